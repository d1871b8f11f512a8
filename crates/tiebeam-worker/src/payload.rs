//! What travels in a step's payload, and how a worker finds its own step by it.
//!
//! Nothing of a user's code is serialised. The worker is the same program and builds the same graph; the payload names the
//! step, and a fingerprint of the whole graph tells whether it really is the same.

use std::collections::HashMap;
use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_graph::{Graph, GraphNode};
use tiebeam_model::tiebeam::StepPayload;
use tiebeam_model::tiebeam::step_payload::{Evidence, Output};
use tiebeam_model::{Message, urns};

/// A graph with its steps by name, and its fingerprint.
pub struct Steps {
    graph: Arc<Graph>,
    by_name: HashMap<Arc<str>, usize>,
    fingerprint: u64,
}

impl Steps {
    /// Of that graph.
    pub fn new(graph: Arc<Graph>) -> Self {
        let by_name = graph.nodes.iter().enumerate().map(|(i, node)| (node.step.clone(), i)).collect();
        let fingerprint = graph.fingerprint();
        Steps { graph, by_name, fingerprint }
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
        }
    }

    /// The step that a function's payload names, if it is one of ours; `transform` only names it in messages.
    ///
    /// # Errors
    /// When the payload is foreign or damaged, or was made by another pipeline than this worker's.
    pub fn find(&self, urn: &str, payload: &[u8], transform: &str) -> Result<&GraphNode> {
        let own = [urns::own::DO_FN, urns::own::COMBINE_FN, urns::own::SPREAD_FN, urns::own::GATHER_FN];
        if !own.contains(&urn) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "TB0544",
                format!("transform `{transform}` has a function of kind `{urn}`, which is not one of this worker's"),
            )
            .with_help("steps of other languages need an environment of their own"));
        }
        let payload = StepPayload::decode(payload).map_err(|error| {
            Error::new(
                ErrorKind::InvalidData,
                "TB0540",
                format!("the payload of transform `{transform}` is damaged"),
            )
            .with_source(error)
        })?;
        self.agreed(&payload)
    }

    /// The step that a payload names.
    ///
    /// # Errors
    /// When the payload was made by another pipeline than this worker's: says what differs.
    pub fn agreed(&self, payload: &StepPayload) -> Result<&GraphNode> {
        let found = self.named(&payload.step);
        match found {
            Some(node) if payload.fingerprint == self.fingerprint => return Ok(node),
            _ => {}
        }
        let difference = match found {
            None if payload.fingerprint == self.fingerprint => {
                return Err(Error::internal(format!(
                    "the worker has no step `{}` in the same pipeline",
                    payload.step
                )));
            }
            None => format!("this worker has no step `{}`{}", payload.step, self.similar(&payload.step)),
            Some(node) => difference(&payload.evidence.clone().unwrap_or_default(), &self.evidence(node)),
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

/// What differs first between a step as the job has it and as the worker has it.
fn difference(job: &Evidence, worker: &Evidence) -> String {
    let said = |what: &str, job: &str, worker: &str| format!("{what} {worker} here and {job} in the job");
    if job.version != worker.version {
        return said("tiebeam is of version", &job.version, &worker.version);
    }
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
