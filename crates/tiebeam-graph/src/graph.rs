//! The erased graph: what every runner and wire sees.

use std::fmt;
use std::panic::Location;
use std::path::PathBuf;
use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result, RunId, WindowingStrategy};
use tiebeam_exec::{EdgeId, EdgeSpec, EdgeType, GroupType, Operator};

use crate::external::ExternalSpec;
use crate::hints::ResourceHints;

/// What a transform is to a runner.
#[derive(Clone)]
pub enum NodeKind {
    /// One empty element: how every pipeline begins.
    Impulse,
    /// Element-wise work.
    ParDo(Arc<dyn Operator>),
    /// Element-wise too, and known to only assign windows.
    AssignWindows(Arc<dyn Operator>),
    /// Several PCollections of one type into one.
    Flatten(Arc<dyn Operator>),
    /// The values of each key and window brought together.
    GroupByKey(Arc<dyn GroupType>),
    /// The values of each key and window combined.
    CombinePerKey(CombineParts),
    /// The same elements, spread anew over all workers.
    Reshuffle,
    /// A reshuffle of elements that each stand for much work (a range of a file, say): each becomes a bundle of its own.
    ReshuffleOneByOne,
    /// A transform of another language, for engines only.
    External(Arc<ExternalSpec>),
}

/// The pieces that a runner makes a combine of.
#[derive(Clone)]
pub struct CombineParts {
    /// `(K, input)` → `(K, accumulator)`, before the shuffle.
    pub precombine: Arc<dyn Operator>,
    /// The edge of `(K, accumulator)`.
    pub accumulators: Arc<dyn EdgeType>,
    /// Groups `(K, accumulator)`.
    pub accumulator_group: Arc<dyn GroupType>,
    /// `(K, Iterable<accumulator>)` → `(K, accumulator)`.
    pub merge: Arc<dyn Operator>,
    /// `(K, accumulator)` → `(K, output)`.
    pub extract: Arc<dyn Operator>,
    /// `(K, input)` → `(K, accumulator)`, one by one.
    pub convert: Arc<dyn Operator>,
    /// Groups `(K, input)`, where the combine is not lifted.
    pub input_group: Arc<dyn GroupType>,
    /// `(K, Iterable<input>)` → `(K, output)`.
    pub combine_grouped: Arc<dyn Operator>,
}

impl NodeKind {
    /// One word, for `explain` and the fingerprint.
    pub fn name(&self) -> &'static str {
        match self {
            NodeKind::Impulse => "Impulse",
            NodeKind::ParDo(_) => "ParDo",
            NodeKind::AssignWindows(_) => "AssignWindows",
            NodeKind::Flatten(_) => "Flatten",
            NodeKind::GroupByKey(_) => "GroupByKey",
            NodeKind::CombinePerKey(_) => "CombinePerKey",
            NodeKind::Reshuffle => "Reshuffle",
            NodeKind::ReshuffleOneByOne => "ReshuffleOneByOne",
            NodeKind::External(_) => "External",
        }
    }
}

/// How a transform's counts relate, so that reports can prove that nothing was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// in = out + dead.
    OneToOne,
    /// in = out + dead + filtered.
    Filter,
    /// Any number of results an element.
    Any,
}

/// One output of a transform.
#[derive(Debug, Clone)]
pub struct NodeOutput {
    /// Its name within the transform; `main` for the first.
    pub name: Arc<str>,
    /// The PCollection.
    pub edge: EdgeId,
    /// Whether it holds dead letters.
    pub is_dead_letters: bool,
}

/// One primitive transform.
#[derive(Clone)]
pub struct GraphNode {
    /// Its full path, unique in the graph.
    pub step: Arc<str>,
    /// What it does.
    pub kind: NodeKind,
    /// What it reads.
    pub inputs: Vec<EdgeId>,
    /// What it reads beside its elements: the side input's name and PCollection.
    pub side_inputs: Vec<(Arc<str>, EdgeId)>,
    /// What it makes.
    pub outputs: Vec<NodeOutput>,
    /// How its counts relate.
    pub arity: Arity,
    /// The composite it is part of, by number.
    pub scope: usize,
    /// What it needs of a machine.
    pub hints: ResourceHints,
    /// Where the user wrote it.
    pub place: &'static Location<'static>,
}

/// A composite transform, or the pipeline itself (number 0).
#[derive(Debug, Clone)]
pub struct Scope {
    /// Its full path; empty for the pipeline.
    pub path: Arc<str>,
    /// The composite it is part of.
    pub parent: usize,
}

/// Something that must hold before any element is read.
#[derive(Clone)]
pub struct Check {
    /// The step that wants it.
    pub step: Arc<str>,
    /// Looks whether it holds.
    pub run: Arc<dyn Fn() -> Result<()> + Send + Sync>,
}

/// What tidies up when a run ends, in whatever way.
#[derive(Clone)]
pub struct Cleanup {
    /// The step that wants it.
    pub step: Arc<str>,
    /// Tidies up; does nothing when there is nothing left to do.
    pub run: Arc<dyn Fn(RunId) + Send + Sync>,
}

/// What a step must take up again when a run goes on in another process: the claim of an output, say.
#[derive(Clone)]
pub struct Resumption {
    /// The step that wants it.
    pub step: Arc<str>,
    /// Takes it up.
    pub run: Arc<dyn Fn(RunId) -> Result<()> + Send + Sync>,
}

/// What a run reads from outside, so that another run can be told from one of the same input.
#[derive(Clone)]
pub struct InputDigest {
    /// The step that reads it.
    pub step: Arc<str>,
    /// A digest of it: the names, sizes and times of files, say.
    pub digest: Arc<dyn Fn() -> Result<u64> + Send + Sync>,
}

/// A whole pipeline with all types erased.
#[derive(Clone)]
pub struct Graph {
    /// The primitives, each after all that it reads.
    pub nodes: Vec<GraphNode>,
    /// The PCollections; `EdgeId` is the index.
    pub edges: Vec<EdgeSpec>,
    /// The composites.
    pub scopes: Vec<Scope>,
    /// What runners check first.
    pub checks: Vec<Check>,
    /// What runners call when a run has ended: done, failed or cancelled.
    pub cleanups: Vec<Cleanup>,
    /// What runners call before a run goes on in another process.
    pub resumptions: Vec<Resumption>,
    /// What runners ask where a run may have to go on.
    pub inputs: Vec<InputDigest>,
    /// Files that steps read beside their input, such as models: workers on other machines need them too.
    pub files: Vec<PathBuf>,
}

impl Graph {
    /// A graph of nothing: what a worker has that runs only steps of other programs' pipelines.
    pub fn empty() -> Self {
        let root = Scope { path: "".into(), parent: 0 };
        Graph {
            nodes: Vec::new(),
            edges: Vec::new(),
            scopes: vec![root],
            checks: Vec::new(),
            cleanups: Vec::new(),
            resumptions: Vec::new(),
            inputs: Vec::new(),
            files: Vec::new(),
        }
    }

    /// The PCollection of that number.
    ///
    /// # Errors
    /// An internal one when there is none.
    pub fn edge(&self, id: EdgeId) -> Result<&EdgeSpec> {
        self.edges.get(id.0).ok_or_else(|| Error::internal(format!("the graph has no edge {}", id.0)))
    }

    /// The transform that makes an edge.
    pub fn producer(&self, edge: EdgeId) -> Option<&GraphNode> {
        self.nodes.iter().find(|node| node.outputs.iter().any(|output| output.edge == edge))
    }

    /// The windowing of a PCollection.
    ///
    /// # Errors
    /// An internal one when there is no such edge.
    pub fn windowing(&self, edge: EdgeId) -> Result<&WindowingStrategy> {
        Ok(&self.edge(edge)?.windowing)
    }

    /// Runs the checks, in the order of the pipeline.
    ///
    /// # Errors
    /// The first that fails, with its step.
    pub fn run_checks(&self) -> Result<()> {
        self.checks.iter().try_for_each(|check| (check.run)().map_err(|error| error.at_step(&check.step)))
    }

    /// Calls the cleanups: once a run, after its last bundle, whether it succeeded, failed or was cancelled.
    pub fn run_cleanups(&self, run: RunId) {
        self.cleanups.iter().for_each(|cleanup| (cleanup.run)(run.of_step(&cleanup.step)));
    }

    /// Calls the resumptions: before a run goes on that was begun by another process.
    ///
    /// # Errors
    /// The first that fails, with its step.
    pub fn run_resumptions(&self, run: RunId) -> Result<()> {
        let call = |each: &Resumption| (each.run)(run.of_step(&each.step)).map_err(|e| e.at_step(&each.step));
        self.resumptions.iter().try_for_each(call)
    }

    /// The digests of what a run reads from outside, by step.
    ///
    /// # Errors
    /// The first that can't be made, with its step.
    pub fn input_digests(&self) -> Result<Vec<(Arc<str>, u64)>> {
        let digest = |input: &InputDigest| match (input.digest)() {
            Ok(digest) => Ok((input.step.clone(), digest)),
            Err(error) => Err(error.at_step(&input.step)),
        };
        self.inputs.iter().map(digest).collect()
    }

    /// A hash of everything that two builds of a pipeline must agree on to run the same job: version, names, kinds, edges,
    /// element types, coders, windowing.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fnv::default();
        hash.text(env!("CARGO_PKG_VERSION"));
        for node in &self.nodes {
            hash.text(&node.step);
            hash.text(node.kind.name());
            for edge in &node.inputs {
                hash.number(edge.0);
            }
            for (id, edge) in &node.side_inputs {
                hash.text(id);
                hash.number(edge.0);
            }
            for output in &node.outputs {
                hash.text(&output.name);
                hash.number(output.edge.0);
            }
        }
        for edge in &self.edges {
            hash.text(edge.edge_type.type_name());
            hash.text(&edge.edge_type.coder_spec().to_string());
            let (urn, payload) = edge.windowing.window_fn.to_wire();
            hash.text(&urn);
            hash.bytes(&payload);
        }
        hash.0
    }
}

/// FNV-1a, 64 bits: small, and the same in every build.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // A separator, so that "ab" + "c" and "a" + "bc" differ.
        self.0 = (self.0 ^ 0xff).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn number(&mut self, number: usize) {
        self.bytes(&(number as u64).to_le_bytes());
    }
}

/// Everything that is wrong with a pipeline, at once.
#[derive(Debug, Clone)]
pub struct PipelineErrors(pub Vec<(Error, &'static Location<'static>)>);

impl fmt::Display for PipelineErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (error, place)) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "error[{}]: {error}\n  at {}:{}", error.code(), place.file(), place.line())?;
            if let Some(help) = error.help() {
                write!(f, "\n  help: {help}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for PipelineErrors {}

impl From<PipelineErrors> for Error {
    fn from(errors: PipelineErrors) -> Self {
        match errors.0.as_slice() {
            [(only, _)] => only.clone(),
            many => Error::new(
                ErrorKind::InvalidPipeline,
                "TB0200",
                format!("the pipeline has {} mistakes", many.len()),
            )
            .with_source(errors),
        }
    }
}
