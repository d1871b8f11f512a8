//! [`TestPipeline`]: one pipeline, three modes.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use tiebeam_core::{Error, Result};
use tiebeam_graph::{Graph, Pipeline};
use tiebeam_plan::PlanOptions;
use tiebeam_runner::{BundlePolicy, EmbeddedRunner, JobReport, RunnerOptions};

use crate::round_trip::RoundTripExecutor;
use crate::worker_mode::WorkerExecutor;

/// How a test's pipeline is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As users run it: fused, on the embedded runner.
    Fused,
    /// No fusion, every edge encoded and decoded, bundles cut at random places and run in random order, each of them twice.
    Paranoid {
        /// What the places, the order and the number of threads follow from.
        seed: u64,
    },
    /// Every bundle by a Fn API worker in this process, which has built the pipeline for itself.
    Worker,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Fused => f.write_str("fused"),
            Mode::Paranoid { seed } => write!(f, "paranoid (again with TIEBEAM_TEST_SEED={seed})"),
            Mode::Worker => f.write_str("worker"),
        }
    }
}

impl Mode {
    /// All three. The paranoid one's seed is `TIEBEAM_TEST_SEED` from the environment, or else a new one each time.
    pub fn all() -> [Mode; 3] {
        let seed = std::env::var("TIEBEAM_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        [Mode::Fused, Mode::Paranoid { seed }, Mode::Worker]
    }

    fn options(self, graph: &Arc<Graph>, again: &dyn Fn() -> Result<Arc<Graph>>) -> Result<RunnerOptions> {
        let options = RunnerOptions::default();
        Ok(match self {
            Mode::Fused => options,
            Mode::Paranoid { seed } => RunnerOptions {
                threads: 1 + (seed % 4) as usize,
                plan: PlanOptions { fuse: false },
                bundles: BundlePolicy::Random(seed),
                run_twice: true,
                executor: Arc::new(RoundTripExecutor),
                ..options
            },
            Mode::Worker => {
                RunnerOptions { executor: Arc::new(WorkerExecutor::new(graph.clone(), again()?)), ..options }
            }
        })
    }
}

/// Runs pipelines of tests.
pub struct TestPipeline;

impl TestPipeline {
    /// Builds and runs what `build` makes in one mode. `build` is called again for a worker, and must make the same.
    ///
    /// # Errors
    /// Mistakes in the pipeline's construction, and whatever fails the run.
    pub fn run(mode: Mode, build: impl Fn(&Pipeline)) -> Result<JobReport> {
        TestPipeline::run_graph(mode, || {
            let pipeline = Pipeline::new();
            build(&pipeline);
            Ok(pipeline.build()?)
        })
    }

    /// Runs a graph that something else than a function over a [`Pipeline`] makes, such as a pipeline file. `make` is called
    /// again for a worker, and must make the same.
    ///
    /// # Errors
    /// Those of `make`, and whatever fails the run.
    pub fn run_graph(mode: Mode, make: impl Fn() -> Result<Arc<Graph>>) -> Result<JobReport> {
        let graph = make()?;
        let options = mode.options(&graph, &make)?;
        EmbeddedRunner::new(options).run(&graph)
    }

    /// Runs what `build` makes in one mode, with the mode's options changed.
    ///
    /// # Errors
    /// As [`run`](TestPipeline::run).
    pub fn run_with(
        mode: Mode,
        change: impl FnOnce(RunnerOptions) -> RunnerOptions,
        build: impl Fn(&Pipeline),
    ) -> Result<JobReport> {
        let make = || {
            let pipeline = Pipeline::new();
            build(&pipeline);
            Ok(pipeline.build()?)
        };
        let graph = make()?;
        let options = mode.options(&graph, &make)?;
        EmbeddedRunner::new(change(options)).run(&graph)
    }

    /// Runs it in all three modes; each must succeed. Gives the reports, fused, paranoid, worker.
    ///
    /// # Panics
    /// When one of them fails: that is how a test fails. The message has the mode, its seed, and the error.
    #[track_caller]
    pub fn run_all_modes(build: impl Fn(&Pipeline)) -> [JobReport; 3] {
        Mode::all().map(|mode| match TestPipeline::run(mode, &build) {
            Ok(report) => report,
            Err(error) => fail(&format!("the pipeline failed in mode {mode}\n{error:?}")),
        })
    }

    /// Runs it in all three modes; each must fail. Gives the errors, fused, paranoid, worker.
    ///
    /// # Panics
    /// When one of them succeeds.
    #[track_caller]
    pub fn fails_in_all_modes(build: impl Fn(&Pipeline)) -> [Error; 3] {
        Mode::all().map(|mode| match TestPipeline::run(mode, &build) {
            Err(error) => error,
            Ok(_) => fail(&format!("the pipeline was to fail and succeeded in mode {mode}")),
        })
    }
}

/// Fails the test that called.
#[track_caller]
#[allow(clippy::panic)]
fn fail(message: &str) -> ! {
    panic!("{message}")
}
