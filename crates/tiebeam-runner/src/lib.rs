//! Door 1, the embedded runner: a whole job in one process, on threads.
//!
//! A job's stages run one after another; within a stage all threads take bundles from one queue. A bundle's output is kept
//! aside until the bundle is done, so that a failed one can be tried again as if it had never begun.

mod bundles;
mod cancel;
mod executor;
mod job;
mod report;
mod shuffle;
mod side_inputs;
mod store;

pub use bundles::{BundlePolicy, Work};
pub use cancel::{CancelToken, Stop};
pub use executor::{DirectExecutor, Feeder, OpenStage, StageExecutor};
pub use job::{EmbeddedRunner, RunnerOptions};
pub use report::{JobReport, JobStatus, MetricEntry, Progress, StepReport};
