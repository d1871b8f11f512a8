//! Door 1, the embedded runner: a whole job in one process, on threads.
//!
//! A job's stages run one after another; within a stage all threads take bundles from one queue. A bundle's output is kept
//! aside until the bundle is done, so that a failed one can be tried again as if it had never begun. What is kept between
//! stages is counted, and goes to disk beyond its share of the memory limit (`memory.rs`, `spill.rs`, `runs.rs`); with a
//! state directory all of it does, so that a killed job can go on (`state.rs`, `resume.rs`).

mod aside;
mod bundles;
mod cancel;
mod carried;
mod executor;
mod groups;
mod job;
mod memory;
mod report;
mod resume;
mod runs;
mod shuffle;
mod side_inputs;
mod spill;
mod state;
mod store;
mod watch;

pub use bundles::{Blocks, BundlePolicy, Piece, Work};
pub use cancel::{CancelToken, Stop};
pub use executor::{DirectExecutor, Feeder, OpenStage, StageExecutor};
pub use job::{EmbeddedRunner, RunnerOptions};
pub use memory::default_memory_limit;
pub use report::{JobReport, JobStatus, MetricEntry, Progress, StepReport};
pub use state::StateOptions;
pub use watch::{Limit, Sample, SampledEdge, Samples, WatchedExecutor, sources};
