//! How pipelines are written: [`Pipeline`], [`PCollection`], [`PTransform`] and the primitives; and the erased [`Graph`] that
//! plans and wires are made of. Building a graph has no side effects: no file is listed, no clock read, nothing is sent.

pub mod explain;
pub mod external;
pub mod fns;
pub mod graph;
pub mod hints;
pub mod ops;
pub mod par_do;
pub mod pcollection;
pub mod pipeline;
pub mod side_input;

pub use external::{ExpansionService, ExternalSpec, apply_external};
pub use graph::{
    Arity, Check, Cleanup, CombineParts, Graph, GraphNode, InputDigest, NodeKind, NodeOutput, PipelineErrors,
    Resumption,
};
pub use hints::ResourceHints;
pub use ops::{Create, impulse};
pub use par_do::{MultiParDo, Outputs, ParDo};
pub use pcollection::{PCollection, TryMap};
pub use pipeline::{Begin, Composite, MODEL_PROCESS, NewOutput, PTransform, Pipeline, composite};
pub use side_input::{AnySideInput, SideInput};
