//! From a graph to a program: what `tiebeam::main` and the `tiebeam` binary share. Flags, signals, progress, the report, the
//! verdict, exit codes.

mod exit;
mod flags;
mod progress;
mod report;
mod run;
mod signals;

use std::process::ExitCode;

use clap::Parser;
use tiebeam_graph::Pipeline;

pub use exit::{Exit, print_error};
pub use flags::{ProgressMode, RunFlags, RunnerKind};
pub use report::report_json;
pub use run::{Job, run};

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
}

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
    let job = Job { name: name.unwrap_or_else(|| "pipeline".to_owned()), graph, outputs: Vec::new() };
    run(&job, &options.run).into()
}
