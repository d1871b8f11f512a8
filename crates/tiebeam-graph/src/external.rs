//! Transforms of other languages: steps of which the graph knows only how to ask for them.
//!
//! An engine runs them, in a worker of their own language, after whoever submits the pipeline has had them expanded. The
//! embedded runner refuses them.

use std::sync::Arc;

use tiebeam_core::Element;
use tiebeam_core::coder::Coder;

use crate::graph::{Arity, NodeKind};
use crate::pcollection::PCollection;
use crate::pipeline::NewOutput;

/// Who knows a transform of another language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpansionService {
    /// A Python with Apache Beam in it, which is started when the pipeline is submitted.
    Python,
    /// The expansion service at this `host:port`.
    At(String),
}

/// A transform of another language, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalSpec {
    /// What kind of payload it has.
    pub urn: String,
    /// What names and configures it.
    pub payload: Vec<u8>,
    /// Who knows it.
    pub service: ExpansionService,
    /// Whether it can be told the coder of its output; otherwise the output must have the wanted one by itself.
    pub takes_coder: bool,
}

/// Applies a transform of another language; its output travels by `coder` and has the input's windows.
#[track_caller]
pub fn apply_external<I: Element, O: Element>(
    input: &PCollection<I>,
    spec: ExternalSpec,
    coder: Coder<O>,
) -> PCollection<O> {
    let pipeline = input.pipeline();
    let output = NewOutput::main(coder.clone(), input.windowing());
    let kind = NodeKind::External(Arc::new(spec));
    let edges = pipeline.add_node(kind, vec![input.edge()], vec![], vec![output], Arity::Any);
    // A node with one output has one edge.
    pipeline.pcollection(edges.first().copied().unwrap_or(input.edge()), coder)
}
