//! Tiebeam: data pipelines with machine-learning models in them, after the Apache Beam model.
//!
//! This crate is the front door: it gives the parts of the house one name each, and [`main`], which turns a function that
//! builds a pipeline into a program with a command line, progress, a report, signals and exit codes.
//!
//! ```
//! use tiebeam::prelude::*;
//!
//! let p = Pipeline::new();
//! let lengths = p.apply(Create::of(["a bc".to_owned(), "d".to_owned()]))
//!     .flat_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
//!     .map(|word| word.len() as i64)
//!     .combine_globally(Sum::new());
//! let report = EmbeddedRunner::default().run(&p.build()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(all(feature = "io", feature = "inference"))]
mod images;
#[cfg(feature = "launch")]
pub mod launch;

#[doc(inline)]
pub use tiebeam_core as core;
#[cfg(feature = "portable")]
#[doc(inline)]
pub use tiebeam_engines as engines;
#[cfg(feature = "inference")]
#[doc(inline)]
pub use tiebeam_inference as inference;
#[cfg(feature = "io")]
#[doc(inline)]
pub use tiebeam_io as io;
#[cfg(feature = "onnx")]
#[doc(inline)]
pub use tiebeam_onnx as onnx;
#[cfg(feature = "portable")]
#[doc(inline)]
pub use tiebeam_portable as portable;
#[cfg(feature = "portable")]
#[doc(inline)]
pub use tiebeam_portable::expansion::external;
#[cfg(feature = "remote")]
#[doc(inline)]
pub use tiebeam_remote as remote;
#[cfg(feature = "testing")]
#[doc(inline)]
pub use tiebeam_testing as testing;
#[cfg(feature = "text")]
#[doc(inline)]
pub use tiebeam_text as text;
#[cfg(feature = "tflite")]
#[doc(inline)]
pub use tiebeam_tflite as tflite;
#[cfg(feature = "torch")]
#[doc(inline)]
pub use tiebeam_torch as torch;
#[cfg(feature = "trees")]
#[doc(inline)]
pub use tiebeam_trees as trees;
#[doc(inline)]
pub use {
    tiebeam_graph as graph, tiebeam_plan as plan, tiebeam_runner as runner, tiebeam_transforms as transforms,
};

#[cfg(all(feature = "io", feature = "inference"))]
pub use images::ImageToTensor;
#[cfg(feature = "launch")]
pub use launch::{Options, main};
pub use tiebeam_core::{Element, Error, ErrorKind, Result, RunId};
pub use tiebeam_graph::{PCollection, PTransform, Pipeline, ResourceHints};

/// What almost every pipeline uses.
pub mod prelude {
    #[cfg(feature = "launch")]
    pub use crate::launch::Options;
    pub use tiebeam_core::{
        Bytes, CombineFn, DoFn, Element, ElementContext, Error, ErrorKind, FixedWindows, GlobalWindows,
        Iterable, Output, OutputTag, Result, Row, Sessions, SetupContext, SlidingWindows, Timestamp, Value,
        WindowingStrategy,
    };
    pub use tiebeam_graph::{Begin, Create, PCollection, PTransform, ParDo, Pipeline, composite, impulse};
    pub use tiebeam_runner::{EmbeddedRunner, JobReport, RunnerOptions};
    pub use tiebeam_transforms::sums::{Mean, Sum};
    pub use tiebeam_transforms::{CombineExt, KeyedExt, co_group_by_key, count, distinct, partition};
}

/// The pages of the book: their programs are documentation tests.
#[cfg(all(doctest, feature = "inference", feature = "onnx", feature = "io", feature = "launch"))]
mod book {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/models.md")]
    struct Models;
    #[doc = include_str!("../../../docs/pipelines-in-rust.md")]
    struct InRust;
    #[doc = include_str!("../../../docs/handlers.md")]
    struct Handlers;
    #[doc = include_str!("../../../docs/updates-and-failures.md")]
    struct Updates;
}
