//! From a graph to a program: what `tiebeam::main` and the `tiebeam` binary share. Flags, signals, progress, the report, the
//! verdict, exit codes.

mod arenas;
#[cfg(feature = "dataflow")]
mod dataflow;
mod dry_run;
mod exit;
#[cfg(feature = "portable")]
mod expansion;
#[cfg(all(feature = "inference", feature = "object-stores"))]
mod fetching;
mod flags;
#[cfg(feature = "portable")]
mod guard;
#[cfg(feature = "portable")]
mod local;
#[cfg(feature = "portable")]
mod portable;
mod progress;
mod report;
mod run;
mod signals;
pub mod ui;

use std::process::ExitCode;

use clap::Parser;
#[cfg(feature = "portable")]
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_graph::Pipeline;

pub use exit::{Exit, print_error};
#[cfg(feature = "portable")]
pub use expansion::run_expansion_service;
pub use flags::{LookFlags, ProgressMode, RunFlags, RunnerKind, WorkerPlace};
#[cfg(feature = "portable")]
pub use guard::GuardFlags;
#[cfg(feature = "portable")]
pub use portable::{Built, run_as_worker, run_as_worker_with, run_pool, worker_args};
pub use report::report_json;
pub use run::{Job, run};
#[cfg(feature = "portable")]
pub use {tiebeam_portable::WorkerArgs, tiebeam_worker::WorkerOptions};

/// Options of a job by name, as they travel to engines and workers.
pub type JobOptions = serde_json::Map<String, serde_json::Value>;

/// The command line of a program made with [`main`].
#[derive(Debug, Clone, Parser)]
#[command(about = "A Tiebeam pipeline", version)]
pub struct Options {
    /// What the pipeline reads: a path or a pattern.
    #[arg(long, default_value = "")]
    pub input: String,
    /// What the pipeline writes: the first part of the files' names.
    #[arg(long, default_value = "")]
    pub output: String,
    /// Any other setting of the pipeline, as often as wanted.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = flags::setting)]
    pub settings: Vec<(String, String)>,
    /// How the pipeline is run.
    #[command(flatten)]
    pub run: RunFlags,
}

impl Options {
    /// The value of `--set name=value`; the last one where there are several.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The options that decide what is computed, by the names under which a user knows them.
    fn decisive(&self) -> std::collections::BTreeMap<String, String> {
        let own = [("input", &self.input), ("output", &self.output)];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value.clone()));
        // The last of two settings of a name counts, here too.
        own.chain(self.settings.iter().cloned()).collect()
    }

    /// What a worker needs to build the same pipeline, as options of the job.
    fn for_job(&self) -> JobOptions {
        let settings = self.settings.iter().map(|(name, value)| serde_json::json!([name, value]));
        let mut options = JobOptions::new();
        options.insert(INPUT.to_owned(), self.input.clone().into());
        options.insert(OUTPUT.to_owned(), self.output.clone().into());
        options.insert(SETTINGS.to_owned(), settings.collect());
        options
    }

    /// The other way round. A worker that was started with flags of its own goes by those, and is refused if they make
    /// another pipeline than the job's.
    #[cfg(feature = "portable")]
    fn of_job(job: &JobOptions) -> Result<Options> {
        let mut arguments: Vec<String> = vec!["worker".to_owned()];
        let mut given = std::env::args().skip(1);
        while let Some(argument) = given.next() {
            let flag = argument.split('=').next().unwrap_or_default();
            if ["--input", "--output", "--set"].contains(&flag) {
                let is_alone = flag == argument;
                arguments.push(argument);
                arguments.extend(if is_alone { given.next() } else { None });
            }
        }
        if arguments.len() == 1 {
            let text = |name: &str| job.get(name).and_then(|value| value.as_str()).unwrap_or_default();
            arguments.push(format!("--input={}", text(INPUT)));
            arguments.push(format!("--output={}", text(OUTPUT)));
            for setting in job.get(SETTINGS).and_then(|value| value.as_array()).into_iter().flatten() {
                if let (Some(name), Some(value)) = (setting[0].as_str(), setting[1].as_str()) {
                    arguments.push(format!("--set={name}={value}"));
                }
            }
        }
        Options::try_parse_from(arguments)
            .map_err(|error| Error::new(ErrorKind::InvalidArgument, "TB0529", error.to_string()))
    }
}

/// Bounds what the C library's allocator keeps for each thread; see its module. [`main`] and the command do it first of all; a main of your own
/// may, before it begins any thread.
pub fn bound_arenas() {
    arenas::bound();
}

/// Lets models be URLs of object stores and web servers, where this build has the feature `object-stores`: they are fetched into
/// the user's cache. [`main`] and the workers do it; a program that runs pipelines by itself calls it before it builds them.
pub fn fetch_models() {
    #[cfg(all(feature = "inference", feature = "object-stores"))]
    fetching::install();
}

/// Says from what options the processes of isolated models build the pipeline again.
#[cfg(all(feature = "inference", feature = "portable"))]
fn rebuild_models_by(options: &JobOptions) {
    // Text of these keys and values can always be written.
    tiebeam_inference::isolation::rebuild_by(serde_json::to_vec(options).unwrap_or_default());
}

/// How the options of a program travel to its workers.
const INPUT: &str = "tiebeam_input";
const OUTPUT: &str = "tiebeam_output";
const SETTINGS: &str = "tiebeam_settings";

/// Parses the command line, builds the pipeline, runs it as the flags say, and tells how it went: the whole of a program.
///
/// Exit codes: 0 done; 1 the job failed; 2 bad usage; 3 more dead letters than `--max-dead-letters`; 4 an output that cannot
/// be written; 5 a model refused; 78 a pipeline with mistakes; 130 and 143 cancelled.
///
/// ```no_run
/// use std::process::ExitCode;
/// use tiebeam::prelude::*;
///
/// fn main() -> ExitCode {
///     tiebeam::main(|p: &Pipeline, options: &Options| {
///         p.apply(Create::of([1i64, 2, 3])).map(|x| x * 5);
///     })
/// }
/// ```
pub fn main(build: impl FnOnce(&Pipeline, &Options)) -> ExitCode {
    bound_arenas();
    fetch_models();
    #[cfg(feature = "portable")]
    {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if let [verb, flag, address, rest @ ..] = arguments.as_slice()
            && (verb.as_str(), flag.as_str()) == ("worker", "--pool")
        {
            return match GuardFlags::split(rest) {
                Ok((guard, arguments)) => run_pool(address, &guard, &arguments),
                Err(error) => {
                    print_error(&error);
                    Exit::BadUsage.into()
                }
            };
        }
        #[cfg(feature = "inference")]
        if let Some(options) = tiebeam_inference::isolation::job_options() {
            // The step of the model takes over; whoever comes back here has not found it.
            let built = serde_json::from_slice(&options).map_err(Error::user).and_then(|job| {
                let pipeline = Pipeline::new();
                build(&pipeline, &Options::of_job(&job)?);
                pipeline
                    .build()
                    .map_err(|errors| Error::new(ErrorKind::InvalidPipeline, "TB0528", errors.to_string()))
            });
            if let Err(error) = built {
                print_error(&error);
            }
            return Exit::PipelineInvalid.into();
        }
        if let Some(args) = worker_args() {
            return run_as_worker(args, tiebeam_worker::WorkerOptions::default(), |options| {
                let options = Options::of_job(options)?;
                let pipeline = Pipeline::new();
                build(&pipeline, &options);
                let graph = pipeline
                    .build()
                    .map_err(|errors| Error::new(ErrorKind::InvalidPipeline, "TB0528", errors.to_string()))?;
                Ok(Built { graph, decisive: options.decisive() })
            });
        }
    }
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let pipeline = Pipeline::new();
    build(&pipeline, &options);
    let graph = match pipeline.build() {
        Ok(graph) => graph,
        Err(errors) => {
            exit::to_stderr(&format!("{errors}\n"));
            return Exit::PipelineInvalid.into();
        }
    };
    let name = std::env::args().next().unwrap_or_default();
    let name = std::path::Path::new(&name).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let job = Job {
        name: name.unwrap_or_else(|| "pipeline".to_owned()),
        graph,
        inputs: Vec::new(),
        outputs: Vec::new(),
        options: options.for_job(),
        decisive: options.decisive(),
    };
    run(&job, &options.run).into()
}
