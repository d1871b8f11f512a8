//! Steps that are not of the worker's own pipeline: transforms of the library that pipelines in other languages use. A payload
//! tells how to make them, and the worker makes them when it meets the first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tiebeam_core::{CoderSpec, Error, ErrorKind, Result};
use tiebeam_graph::{Graph, GraphNode};
pub use tiebeam_model::tiebeam::step_payload::{Recipe, RecipeInput};
use tiebeam_model::tiebeam::{CoderTree, StepPayload};
use tiebeam_model::{Message, urns};

use crate::payload::{Steps, decoded};

/// Makes graphs of recipes.
///
/// The same recipe must always make the same graph: whoever put it into a payload made one, too, and the worker checks by
/// the fingerprint that they agree. Step names begin with the recipe's namespace.
pub trait Recipes: Send + Sync {
    /// The graph of a recipe. Asked once for each; the worker keeps what it is given.
    ///
    /// # Errors
    /// When the URN is unknown or its configuration is wrong.
    fn graph(&self, recipe: &Recipe) -> Result<Arc<Graph>>;
}

/// A coder as it stands in a recipe.
pub fn coder_to_tree(spec: &CoderSpec) -> CoderTree {
    CoderTree {
        urn: spec.urn.clone(),
        payload: spec.payload.clone().into(),
        components: spec.components.iter().map(coder_to_tree).collect(),
    }
}

/// The coder that stands in a recipe.
pub fn coder_of_tree(tree: &CoderTree) -> CoderSpec {
    CoderSpec {
        urn: tree.urn.clone(),
        payload: tree.payload.to_vec(),
        components: tree.components.iter().map(coder_of_tree).collect(),
    }
}

/// All steps that a worker can run: those of its own pipeline, and those of recipes as they come.
pub(crate) struct Library {
    own: Arc<Steps>,
    recipes: Option<Arc<dyn Recipes>>,
    /// By the recipe's bytes.
    made: Mutex<HashMap<Vec<u8>, Arc<Steps>>>,
}

/// A step and the graph that it is of.
pub(crate) struct Found {
    pub(crate) steps: Arc<Steps>,
    index: usize,
}

impl Found {
    pub(crate) fn node(&self) -> &GraphNode {
        &self.steps.graph().nodes[self.index]
    }

    pub(crate) fn graph(&self) -> &Graph {
        self.steps.graph()
    }
}

impl Library {
    pub(crate) fn new(own: Steps, recipes: Option<Arc<dyn Recipes>>) -> Self {
        Library { own: Arc::new(own), recipes, made: Mutex::default() }
    }

    /// Those of the worker's own pipeline.
    pub(crate) fn own(&self) -> &Arc<Steps> {
        &self.own
    }

    /// The worker's own graph and all that were made of recipes.
    pub(crate) fn graphs(&self) -> Vec<Arc<Graph>> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        [&self.own].into_iter().chain(made.values()).map(|steps| steps.graph().clone()).collect()
    }

    /// The step that a function's payload names; `transform` only names it in messages.
    pub(crate) fn find(&self, urn: &str, payload: &[u8], transform: &str) -> Result<Found> {
        self.agreed(&decoded(urn, payload, transform)?)
    }

    /// The step that a payload names.
    pub(crate) fn agreed(&self, payload: &StepPayload) -> Result<Found> {
        let steps = match &payload.recipe {
            None => self.own.clone(),
            Some(recipe) => self.of_recipe(recipe).map_err(|error| error.at_step(&payload.step))?,
        };
        let index = steps.agreed_index(payload)?;
        Ok(Found { steps, index })
    }

    fn of_recipe(&self, recipe: &Recipe) -> Result<Arc<Steps>> {
        let bytes = recipe.encode_to_vec();
        let lock = || self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(steps) = lock().get(&bytes) {
            return Ok(steps.clone());
        }
        let recipes = self.recipes.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "TB0551",
                format!(
                    "transform `{}` is one of the library's, and this worker makes none of these",
                    recipe.urn
                ),
            )
            .with_help("start the worker by the program whose expansion service gave the transform")
        })?;
        // Not under the lock: a graph may take its time, and other recipes need not wait.
        let steps =
            Arc::new(Steps::new(recipes.graph(recipe)?).with_recipe(recipe.clone()).of_run(self.own.run()));
        Ok(lock().entry(bytes).or_insert(steps).clone())
    }
}

/// Whether a function of that URN is told by a [`StepPayload`].
pub(crate) fn is_own(urn: &str) -> bool {
    use urns::own::{COMBINE_FN, DO_FN, GATHER_FN, PASS_FN, SPREAD_FN};
    [DO_FN, COMBINE_FN, SPREAD_FN, GATHER_FN, PASS_FN].contains(&urn)
}
