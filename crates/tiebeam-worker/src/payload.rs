//! What travels in a step's payload, and how a worker finds its own step by it.
//!
//! Nothing of a user's code is serialised. The worker is the same program and builds the same graph; the payload names the
//! step, and a fingerprint of the whole graph and of the options it was built with tells whether it really is the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result, RunId};
use tiebeam_graph::{Graph, GraphNode};
use tiebeam_model::Message;
use tiebeam_model::tiebeam::StepPayload;
use tiebeam_model::tiebeam::step_payload::{Evidence, Output, Recipe};

use crate::options;
use crate::recipe::is_own;

/// A graph with its steps by name, and its fingerprint.
pub struct Steps {
    graph: Arc<Graph>,
    by_name: HashMap<Arc<str>, usize>,
    /// The options as they are compared and shown.
    options: BTreeMap<String, String>,
    recipe: Option<Recipe>,
    fingerprint: u64,
    run: RunId,
}

impl Steps {
    /// Of that graph, built without options.
    pub fn new(graph: Arc<Graph>) -> Self {
        Steps::with_options(graph, BTreeMap::new())
    }

    /// Of that graph, built with these pipeline options (name to value): workers must have been started with the same
    /// ones. Options that say how a job is submitted and not what it computes do not belong here.
    ///
    /// In payloads long values are shortened; those of names that hold `secret`, `token`, `password` or `key` are told by
    /// a hash alone.
    pub fn with_options(graph: Arc<Graph>, options: BTreeMap<String, String>) -> Self {
        let by_name = graph.nodes.iter().enumerate().map(|(i, node)| (node.step.clone(), i)).collect();
        let options = options::shown(&options);
        let fingerprint = options::fingerprint(graph.fingerprint(), &options);
        Steps { graph, by_name, options, recipe: None, fingerprint, run: RunId::new() }
    }

    /// Puts how the graph was made into every payload, so that workers that know the recipe need no graph of their own.
    #[must_use]
    pub fn with_recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = Some(recipe);
        self
    }

    /// Says which run the steps are of; a new one unless told.
    #[must_use]
    pub fn of_run(mut self, run: RunId) -> Self {
        self.run = run;
        self
    }

    /// Which run the steps are of.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Of the graph and its options.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The graph.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The step of that full path, if there is one.
    pub fn named(&self, step: &str) -> Option<&GraphNode> {
        self.by_name.get(step).map(|index| &self.graph.nodes[*index])
    }

    /// The payload of a step.
    pub fn payload(&self, node: &GraphNode) -> StepPayload {
        StepPayload {
            step: node.step.to_string(),
            fingerprint: self.fingerprint,
            evidence: Some(self.evidence(node)),
            recipe: self.recipe.clone(),
        }
    }

    fn evidence(&self, node: &GraphNode) -> Evidence {
        let element = |edge: tiebeam_exec::EdgeId| {
            self.graph.edge(edge).map_or_else(|_| String::new(), |edge| edge.edge_type.type_name().to_owned())
        };
        Evidence {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: node.kind.name().to_owned(),
            inputs: node.inputs.iter().map(|edge| element(*edge)).collect(),
            outputs: node
                .outputs
                .iter()
                .map(|output| Output { name: output.name.to_string(), element: element(output.edge) })
                .collect(),
            steps: u32::try_from(self.graph.nodes.len()).unwrap_or(u32::MAX),
            options: self.options.clone(),
        }
    }

    /// The step that a function's payload names, if it is one of ours; `transform` only names it in messages.
    ///
    /// # Errors
    /// When the payload is foreign or damaged, or was made by another pipeline than this worker's.
    pub fn find(&self, urn: &str, payload: &[u8], transform: &str) -> Result<&GraphNode> {
        self.agreed(&decoded(urn, payload, transform)?)
    }

    /// The step that a payload names.
    ///
    /// # Errors
    /// When the payload was made by another pipeline than this worker's: says what differs.
    pub fn agreed(&self, payload: &StepPayload) -> Result<&GraphNode> {
        self.agreed_index(payload).map(|index| &self.graph.nodes[index])
    }

    pub(crate) fn agreed_index(&self, payload: &StepPayload) -> Result<usize> {
        let found = self.by_name.get(payload.step.as_str()).copied();
        match found {
            Some(index) if payload.fingerprint == self.fingerprint => return Ok(index),
            None if payload.fingerprint == self.fingerprint => {
                return Err(Error::internal(format!(
                    "the worker has no step `{}` in the same pipeline",
                    payload.step
                )));
            }
            _ => {}
        }
        let job = payload.evidence.clone().unwrap_or_default();
        let difference = match found {
            _ if job.version != env!("CARGO_PKG_VERSION") => version_difference(&job),
            _ if job.options != self.options => {
                options::difference(&job.options, &self.options).unwrap_or_default()
            }
            None => format!("this worker has no step `{}`{}", payload.step, self.similar(&payload.step)),
            Some(index) => difference(&job, &self.evidence(&self.graph.nodes[index])),
        };
        Err(Error::new(
            ErrorKind::InvalidPipeline,
            "TB0542",
            format!(
                "this worker has built another pipeline than the job: fingerprint {:016x}, wanted {:016x}; {difference}",
                self.fingerprint, payload.fingerprint
            ),
        )
        .with_help("start workers from the same program as the job, with the same options")
        .at_step(&payload.step))
    }

    /// The step whose name is nearest, as a question.
    fn similar(&self, wanted: &str) -> String {
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let near = self.graph.nodes.iter().map(|node| &node.step).find(|step| last(step) == last(wanted));
        near.map(|step| format!(", but `{step}`")).unwrap_or_default()
    }
}

/// The payload of one of our functions.
///
/// # Errors
/// When the function is foreign or the payload damaged.
pub(crate) fn decoded(urn: &str, payload: &[u8], transform: &str) -> Result<StepPayload> {
    if !is_own(urn) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "TB0544",
            format!(
                "transform `{transform}` has a function of kind `{urn}`, which is not one of this worker's"
            ),
        )
        .with_help("steps of other languages need an environment of their own"));
    }
    StepPayload::decode(payload).map_err(|error| {
        Error::new(
            ErrorKind::InvalidData,
            "TB0540",
            format!("the payload of transform `{transform}` is damaged"),
        )
        .with_source(error)
    })
}

fn said(what: &str, job: &str, worker: &str) -> String {
    format!("{what} {worker} here and {job} in the job")
}

fn version_difference(job: &Evidence) -> String {
    said("tiebeam is of version", &job.version, env!("CARGO_PKG_VERSION"))
}

/// What differs first between a step as the job has it and as the worker has it.
fn difference(job: &Evidence, worker: &Evidence) -> String {
    if job.kind != worker.kind {
        return said("the step is a", &job.kind, &worker.kind);
    }
    if job.inputs != worker.inputs {
        return said("the step reads", &list(&job.inputs), &list(&worker.inputs));
    }
    if job.outputs != worker.outputs {
        let told = |outputs: &[Output]| {
            list(&outputs.iter().map(|o| format!("{}: {}", o.name, o.element)).collect::<Vec<_>>())
        };
        return said("the step makes", &told(&job.outputs), &told(&worker.outputs));
    }
    if job.steps != worker.steps {
        return format!("the pipeline has {} steps here and {} in the job", worker.steps, job.steps);
    }
    "this step is the same in both, another one differs in its name, element type, coder or windows"
        .to_owned()
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join(" and ") }
}
