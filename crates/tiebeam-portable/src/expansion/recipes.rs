//! From a recipe to a graph: what the service does to answer a request, and a worker again when it meets a step of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tiebeam_core::row::Row;
use tiebeam_core::{Element, Error, ErrorKind, Result, WindowingStrategy};
use tiebeam_exec::EdgeId;
use tiebeam_graph::{Arity, Graph, NewOutput, NodeKind, Pipeline};
use tiebeam_model::pipeline::FunctionSpec;
use tiebeam_model::{Message, urns};
use tiebeam_worker::windowing::window_fn_of;
use tiebeam_worker::{Recipe, RecipeInput, Recipes, coder_of_tree};

use super::SchemaTransforms;
use super::answer::damaged;
use super::schema::row_of;

/// A recipe's graph, and which of its PCollections are the transform's.
pub(super) struct Made {
    pub(super) graph: Arc<Graph>,
    pub(super) inputs: Vec<(String, EdgeId)>,
    pub(super) outputs: Vec<(String, EdgeId)>,
}

/// Makes the graph of a recipe. Its inputs are impulses of the right element type: nobody runs them.
pub(super) fn make(transforms: &dyn SchemaTransforms, recipe: &Recipe) -> Result<Made> {
    let config = row_of(&recipe.config_schema, &recipe.config)?;
    let pipeline = Pipeline::new();
    let mut inputs = Vec::with_capacity(recipe.inputs.len());
    let mut rows = Vec::with_capacity(recipe.inputs.len());
    for input in &recipe.inputs {
        let coder = row_coder_of(input)?;
        let windowing = windowing_of(input)?;
        let label = format!("{}<{}>", recipe.namespace, input.name);
        let edge = pipeline.in_scope(Some(&label), &label, || {
            let output = NewOutput::main(coder.clone(), windowing);
            pipeline.add_node(NodeKind::Impulse, vec![], vec![], vec![output], Arity::Any)
        });
        let edge = edge.first().copied().ok_or_else(|| Error::internal("an impulse makes nothing"))?;
        inputs.push((input.name.clone(), edge));
        rows.push((input.name.clone(), pipeline.pcollection(edge, coder)));
    }
    let short = recipe.urn.rsplit(':').find(|part| !is_version(part)).unwrap_or("Transform").to_owned();
    let made = pipeline.in_scope(Some(&recipe.namespace), "External", || {
        pipeline.in_scope(Some(&short), &short, || transforms.apply(&recipe.urn, &config, &pipeline, rows))
    })?;
    let outputs = made.into_iter().map(|(name, rows)| (name, rows.edge())).collect();
    let graph = pipeline.build().map_err(Error::from)?;
    Ok(Made { graph, inputs, outputs })
}

fn is_version(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn row_coder_of(input: &RecipeInput) -> Result<tiebeam_core::coder::Coder<Row>> {
    let spec = input.element.as_ref().map(coder_of_tree);
    match spec {
        Some(spec) if spec.urn == urns::coder::ROW => Row::coder_of(&spec),
        other => Err(Error::new(
            ErrorKind::InvalidPipeline,
            "TB0731",
            format!(
                "input `{}` is of coder {}, wanted rows",
                input.name,
                other.map_or_else(|| "nothing".to_owned(), |spec| spec.to_string())
            ),
        )
        .with_help(
            "make it rows of a schema: in Python `beam.Row(name=…)` or a NamedTuple, in Java a schema",
        )),
    }
}

/// Windows that only the caller knows are kept as they are by whoever runs the step: they pass for the global one here.
fn windowing_of(input: &RecipeInput) -> Result<WindowingStrategy> {
    if input.window_fn.is_empty() {
        return Ok(WindowingStrategy::global());
    }
    let function = FunctionSpec::decode(input.window_fn.as_ref()).map_err(damaged("a window function"))?;
    match window_fn_of(&function) {
        Ok(window_fn) => Ok(WindowingStrategy { window_fn, ..WindowingStrategy::global() }),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(WindowingStrategy::global()),
        Err(error) => Err(error),
    }
}

/// Makes the steps of transforms that an expansion service has given, in its own process or in workers elsewhere.
///
/// Workers of one process share the graph of a recipe, and with it one copy of its model; when the last of them goes, so
/// does the graph.
pub struct LibraryRecipes {
    transforms: Arc<dyn SchemaTransforms>,
    made: Mutex<HashMap<Vec<u8>, Weak<Graph>>>,
}

impl LibraryRecipes {
    /// For these transforms.
    pub fn new(transforms: Arc<dyn SchemaTransforms>) -> Self {
        LibraryRecipes { transforms, made: Mutex::default() }
    }
}

impl Recipes for LibraryRecipes {
    fn graph(&self, recipe: &Recipe) -> Result<Arc<Graph>> {
        let bytes = recipe.encode_to_vec();
        // Under the lock: two workers that ask at once would load two models.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(graph) = made.get(&bytes).and_then(Weak::upgrade) {
            return Ok(graph);
        }
        let graph = make(&*self.transforms, recipe)?.graph;
        made.retain(|_, graph| graph.strong_count() > 0);
        made.insert(bytes, Arc::downgrade(&graph));
        Ok(graph)
    }
}
