//! Beam's gRPC wires: the worker on its streams, worker pools, and the client of a job service.
//!
//! [`run_worker`] is what a program does when an engine starts it (it is told so by [`WorkerArgs::of_process`]);
//! [`WorkerPool`] starts workers for an engine, in this process or as processes; [`submit`] hands a pipeline to an engine
//! and [`Job`] follows it. Everything async stays in here: callers block.

pub mod artifacts;
mod environment;
pub mod expansion;
mod guard;
mod job;
mod options;
mod pool;
mod wire;
mod worker;

pub use environment::{Environment, pipeline_message};
pub use guard::{CA_VARIABLE, Guard, TOKEN_VARIABLE, Token};
pub use job::{Job, JobEvent, JobState, Severity, Submission, submit};
pub use options::{JobOptions, as_texts, from_json, from_struct, to_struct};
pub use pool::{PoolWorkers, WorkerPool};
pub use worker::{BuildSteps, StopWorker, WorkerArgs, run_worker, run_worker_with};
