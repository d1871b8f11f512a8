//! Running a graph on Google Cloud Dataflow, by its REST API.

use std::collections::BTreeMap;

use tiebeam_core::{Error, ErrorKind, Result, RunId};
use tiebeam_dataflow::{Dataflow, DataflowJob, DataflowOptions, job_name_of};
use tiebeam_graph::{ExpansionService, Graph, NodeKind};
use tiebeam_model::pipeline::MonitoringInfo;
use tiebeam_portable::expansion::expand_externals;
use tiebeam_portable::{Environment, JobEvent, JobState, pipeline_message};
use tiebeam_runner::{CancelToken, JobReport, JobStatus, Progress};

use super::exit::{to_stderr, to_stdout};
use super::flags::{ProgressMode, RunFlags, WorkerPlace};
use super::portable::{Followed, files, follow, options, steps};
use super::run::Job;

/// Beam's image whose boot program fetches a bare program and starts it as the worker.
const BOOT_IMAGE: &str = "apache/beam_go_sdk:2.77.0";

/// Runs a job to its end.
pub(super) fn run(
    job: &Job,
    flags: &RunFlags,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<JobReport> {
    let run = RunId::new();
    let name = flags.job_name.clone().unwrap_or_else(|| job_name_of(&job.name));
    let told = options(job, run, flags, &name)?;
    let dataflow = DataflowOptions::parse(&told)?;
    let environment = environment(flags, &dataflow)?;
    let mut pipeline = pipeline_message(&steps(job), &environment, files(job)?)?;
    if let Some(step) = python_step(&job.graph) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "TB0523",
            "this step runs in a Python beside this process, which Dataflow's machines cannot reach",
        )
        .with_help("name an expansion service whose steps run in a container: `.with_expansion_service(\"HOST:PORT\")`")
        .at_step(step));
    }
    // Nothing runs here for the steps that were asked for elsewhere.
    let _ = expand_externals(&job.graph, &mut pipeline)?;
    let is_shown = flags.progress != ProgressMode::None;
    let started = Dataflow::new(dataflow).submit(&name, pipeline, &told, &|what| {
        if is_shown {
            to_stderr(&format!("{what}\n"));
        }
    })?;
    if flags.detach {
        to_stdout(&format!("{}\n", started.id()));
        return Ok(progress.report(JobStatus::Done));
    }
    if is_shown {
        to_stderr(&format!("job {}: {}\n", started.id(), started.page()));
    }
    let ended = follow(job, flags, &started, progress, cancel);
    job.graph.run_cleanups(run);
    ended
}

/// The first step for which a Python of this machine would be started.
fn python_step(graph: &Graph) -> Option<&str> {
    let asks = |kind: &NodeKind| matches!(kind, NodeKind::External(spec) if spec.service == ExpansionService::Python);
    graph.nodes.iter().find(|node| asks(&node.kind)).map(|node| &*node.step)
}

/// Where the steps run. What is no container, Dataflow's client refuses.
fn environment(flags: &RunFlags, dataflow: &DataflowOptions) -> Result<Environment> {
    match &flags.environment {
        Some(WorkerPlace::Docker(image)) => Ok(Environment::Docker { image: image.clone() }),
        Some(WorkerPlace::Process(_)) => {
            Ok(Environment::Process { command: String::new(), variables: BTreeMap::new() })
        }
        Some(WorkerPlace::Loopback | WorkerPlace::External(_)) => {
            Ok(Environment::External { address: String::new() })
        }
        None if dataflow.worker_binary.is_some() => Ok(Environment::Docker { image: BOOT_IMAGE.to_owned() }),
        None => Err(Error::new(
            ErrorKind::InvalidArgument,
            "TB0523",
            "dataflow was not told which container the steps run in",
        )
        .with_help(
            "add `--environment docker=IMAGE`, or `--option worker_binary=FILE` with a static program",
        )),
    }
}

impl Followed for DataflowJob {
    fn wait(&self, hear: &mut dyn FnMut(&Self, Option<JobEvent>)) -> Result<JobState> {
        self.wait(hear)
    }
    fn metrics(&self) -> Result<Vec<MonitoringInfo>> {
        self.metrics()
    }
    fn cancel(&self) -> Result<JobState> {
        self.cancel()
    }
    fn drain(&self) -> Result<JobState> {
        self.drain()
    }
}
