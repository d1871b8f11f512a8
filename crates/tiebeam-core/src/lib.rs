//! The bottom of the house: what elements are, how they become bytes, what they carry, and the traits that user code
//! implements. No pipelines, threads or protos here.

extern crate self as tiebeam_core;

pub mod batch;
pub mod coder;
pub mod combine;
pub mod dofn;
pub mod element;
pub mod error;
pub mod failed;
pub mod iterable;
pub mod metrics;
pub mod row;
pub mod run_id;
pub mod side_input;
pub mod time;
pub mod window;

pub use batch::{BATCH_SIZE, Batch, BatchBuilder, MAX_BATCH_SIZE, Meta};
pub use bytes::Bytes;
pub use coder::{Codec, Coder, CoderSpec, Nesting, Reader, RowElement};
pub use combine::CombineFn;
pub use dofn::{BundleContext, DoFn, ElementContext, Output, OutputTag, Receiver, SetupContext};
pub use element::Element;
pub use error::{Domain, Error, ErrorKind, Result, SourcePlace};
pub use failed::{Failed, Failure};
pub use iterable::Iterable;
pub use row::{Field, FieldType, Row, Schema, TypeKind, Value};
pub use run_id::RunId;
pub use side_input::{SideMap, SideMultimap, View};
pub use tiebeam_macros::Element;
pub use time::Timestamp;
pub use window::{
    FixedWindows, GlobalWindows, IntervalWindow, Pane, PaneTiming, Sessions, SlidingWindows,
    TimestampCombiner, Window, WindowFn, WindowInfo, WindowingStrategy, Windows,
};
