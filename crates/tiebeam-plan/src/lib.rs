//! From a [`Graph`] to stages: a pure function made of ordered rules, the last of which checks what the others did.
//!
//! 1. *Lift combiners*: a combine becomes precombine → group → merge → extract.
//! 2. *Fuse and cut*: every element-wise transform joins the stage of what feeds it; a Flatten is unzipped, so that what
//!    follows it runs in each of its producers' stages. A stage begins at an impulse, a group, a reshuffle, or where a side
//!    input could not be ready in time.
//! 3. *Order*: stages after all that they wait for.
//! 4. *Check*: nothing was lost, nothing reads what nobody writes.

mod check;
mod fuse;
mod lift;
mod text;

use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_exec::{EdgeId, EdgeSpec, GroupType, SideInputSpec, StageSpec};
use tiebeam_graph::{Graph, NodeKind};

/// Transforms of other languages run in engines alone.
fn refuse_external(graph: &Graph) -> Result<()> {
    match graph.nodes.iter().find(|node| matches!(node.kind, NodeKind::External(_))) {
        None => Ok(()),
        Some(node) => {
            let message = "a transform of another language cannot run on the embedded runner";
            Err(Error::new(ErrorKind::Unsupported, "TB0239", message)
                .with_help("run the pipeline on an engine: `--runner prism|flink|spark|portable --job-endpoint HOST:PORT`")
                .at_step(&node.step))
        }
    }
}

/// Names what is kept between stages: a shuffle's contents, or the elements of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub usize);

/// Where a stage's elements come from.
#[derive(Clone)]
pub enum Root {
    /// One empty element.
    Impulse(EdgeId),
    /// Elements that were kept, spread over all threads.
    Read {
        /// The edge they enter on.
        edge: EdgeId,
        /// Where they are kept.
        store: StoreId,
        /// Whether each element is so much work that it is a bundle of its own.
        one_by_one: bool,
        /// Whether the edge is made here (a reshuffle's) and not by another stage.
        makes_edge: bool,
    },
    /// Groups out of a shuffle.
    Groups {
        /// The edge they enter on.
        edge: EdgeId,
        /// The shuffle.
        store: StoreId,
        /// How keys and values are put together.
        group: Arc<dyn GroupType>,
    },
}

impl Root {
    /// The edge on which elements enter the stage.
    pub fn edge(&self) -> EdgeId {
        match self {
            Root::Impulse(edge) | Root::Read { edge, .. } | Root::Groups { edge, .. } => *edge,
        }
    }

    /// What the stage reads.
    pub fn store(&self) -> Option<StoreId> {
        match self {
            Root::Impulse(_) => None,
            Root::Read { store, .. } | Root::Groups { store, .. } => Some(*store),
        }
    }
}

/// Where elements of a stage go.
#[derive(Clone)]
pub struct StageOutput {
    /// The edge that leaves the stage.
    pub edge: EdgeId,
    /// Where it goes.
    pub to: Destination,
}

/// The kinds of destination.
#[derive(Clone)]
pub enum Destination {
    /// Kept as they are.
    Store(StoreId),
    /// Taken apart into a shuffle.
    Shuffle(StoreId, Arc<dyn GroupType>),
    /// Kept as a side input.
    SideInput(SideInputSpec),
}

/// One stage with its place in the job.
#[derive(Clone)]
pub struct PlanStage {
    /// Its operators.
    pub spec: StageSpec,
    /// Where its elements come from.
    pub root: Root,
    /// Where they go.
    pub outputs: Vec<StageOutput>,
    /// The stages that must be done before, as indices into [`Plan::stages`].
    pub after: Vec<usize>,
}

/// A job as stages, in an order in which they can run.
#[derive(Clone)]
pub struct Plan {
    /// The graph it was made of.
    pub graph: Arc<Graph>,
    /// The stages.
    pub stages: Vec<PlanStage>,
    /// The graph's edges and those that the rules added.
    pub edges: Vec<EdgeSpec>,
    /// The number of stores.
    pub stores: usize,
}

/// Which rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanOptions {
    /// Off: every element-wise transform is a stage of its own. For tests: every edge is then kept between stages.
    pub fuse: bool,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions { fuse: true }
    }
}

/// Plans a graph.
///
/// # Errors
/// Internal ones, when the rules contradict each other.
pub fn plan(graph: &Arc<Graph>, options: PlanOptions) -> Result<Plan> {
    refuse_external(graph)?;
    let lifted = lift::lift_combiners(graph);
    let fused = fuse::fuse(graph, lifted, options)?;
    let plan = fuse::order(fused)?;
    check::check(&plan)?;
    Ok(plan)
}
