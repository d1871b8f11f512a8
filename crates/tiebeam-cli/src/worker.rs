//! `tiebeam worker`, and being the worker that an engine starts: a pipeline file travels in the job's options.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::Value;
use tiebeam::graph::Graph;
use tiebeam::launch::{
    Built, GuardFlags, JobOptions, WorkerArgs, WorkerOptions, run_as_worker_with, run_pool,
};
use tiebeam::{Error, ErrorKind, Result};
use tiebeam_yaml::{Variables, load};

use crate::{expansion, output};

/// How a pipeline file travels to workers.
const NAME: &str = "tiebeam_file";
const TEXT: &str = "tiebeam_yaml";
const VARIABLES: &str = "tiebeam_variables";

/// The command line of `tiebeam worker`.
#[derive(Debug, Args)]
pub struct WorkerVerb {
    /// Listens there as a worker pool, for engines with `--environment external=HOST:PORT`. Without a port of your own, 0
    /// takes a free one; the address is printed.
    #[arg(long, value_name = "IP:PORT", required = true)]
    pool: String,
    #[command(flatten)]
    guard: GuardFlags,
}

/// Is a worker pool until a signal comes.
pub fn worker(verb: &WorkerVerb) -> ExitCode {
    run_pool(&verb.pool, &verb.guard, &[])
}

/// What workers need to load that file again.
pub fn options(name: &str, text: &str, variables: &Variables) -> JobOptions {
    let mut options = JobOptions::new();
    options.insert(NAME.to_owned(), name.into());
    options.insert(TEXT.to_owned(), text.into());
    options.insert(VARIABLES.to_owned(), Value::Object(variables.clone().into_iter().collect()));
    options
}

/// Is the worker that an engine started.
pub fn be_worker(args: Result<WorkerArgs>) -> ExitCode {
    run_as_worker_with(args, WorkerOptions::default(), Some(expansion::recipes()), build)
}

/// What decides what a pipeline file computes: its text and its variables.
pub fn decisive(text: &str, variables: &Variables) -> BTreeMap<String, String> {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let variables = variables.iter().map(|(name, value)| (name.clone(), shown(value)));
    [("the pipeline file".to_owned(), text.to_owned())].into_iter().chain(variables).collect()
}

fn build(job: &JobOptions) -> Result<Built> {
    let text = |name: &str| job.get(name).and_then(Value::as_str);
    // Without a file, all that the job has for this worker is what an expansion service gave to it.
    let Some(yaml) = text(TEXT) else {
        return Ok(Built { graph: Arc::new(Graph::empty()), decisive: BTreeMap::new() });
    };
    let variables = job.get(VARIABLES).and_then(Value::as_object).cloned().unwrap_or_default();
    let variables: Variables = variables.into_iter().collect();
    let name = text(NAME).unwrap_or("pipeline");
    let loaded = load(name, yaml, &variables, &output::environment()).map_err(|report| {
        Error::new(
            ErrorKind::InvalidPipeline,
            "TB0230",
            format!("the pipeline file cannot be loaded in a worker:\n{report}"),
        )
    })?;
    Ok(Built { graph: loaded.graph, decisive: decisive(yaml, &variables) })
}
