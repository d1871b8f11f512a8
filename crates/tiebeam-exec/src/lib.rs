//! The execution core: what a stage is, how its operators are wired, and how a bundle goes through it.
//!
//! It knows elements and operators. It knows no pipelines, no wire messages, no threads and no sockets: those belong to the
//! two doors (the embedded runner and the Fn API worker), which lower to the same [`StageSpec`] and supply a [`Harness`].

pub mod combine;
pub mod edge;
pub mod flatten;
pub mod group;
pub mod harness;
pub mod panics;
pub mod par_do;
pub mod reshuffle;
pub mod side_input;
pub mod stage;
pub mod window_table;
pub mod windows;

pub use edge::{AnyBatch, AnyReceiver, BatchSink, EdgeType, EncodedSink, Tap, TypedEdge};
pub use group::{GroupReader, GroupType, KeyedBatch, KeyedSink, TypedGroup};
pub use harness::{EncodedValues, Harness, SideValues, WireCoders};
pub use par_do::ParDo;
pub use reshuffle::ReshuffleParts;
pub use side_input::{Access, SideInputSpec};
pub use stage::{EdgeId, EdgeSpec, NodeSpec, Operator, Stage, StageSpec, StageWatch, StepStats};
pub use window_table::WindowTable;
