//! Tests of transforms: [`TestPipeline`] runs a pipeline in three modes, [`assert_that`] says what a PCollection must hold.
//!
//! A transform that passes in all three keeps its promises on every runner: its coders agree with its elements, it doesn't
//! depend on fusion, bundle cuts or order, a bundle may be tried again, and it works as a Fn API worker's step.
//!
//! ```
//! use tiebeam_graph::{Create, Pipeline};
//! use tiebeam_testing::{TestPipeline, assert_that};
//!
//! TestPipeline::run_all_modes(|p: &Pipeline| {
//!     let doubled = p.apply(Create::of([1i64, 2, 3])).map(|n| n * 2);
//!     assert_that(&doubled).contains_in_any_order([2, 4, 6]);
//! });
//! ```

mod assert;
mod pipeline;
mod round_trip;
mod worker_mode;

pub use assert::{Assertion, assert_that};
pub use pipeline::{Mode, TestPipeline};
pub use round_trip::RoundTripExecutor;
pub use worker_mode::WorkerExecutor;
