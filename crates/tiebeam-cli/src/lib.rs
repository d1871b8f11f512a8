//! The tiebeam command: one file a verb. Data goes to stdout, everything else to stderr.

mod doctor;
mod errors;
mod examples;
mod explain;
mod graph;
mod models;
mod output;
mod run;
mod transforms;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use tiebeam::launch::Exit;

/// Data pipelines with machine-learning models in them, after the Apache Beam model.
#[derive(Debug, Parser)]
#[command(name = "tiebeam", version, arg_required_else_help = true, subcommand_required = true)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs a pipeline file.
    Run(run::RunArgs),
    /// Checks a pipeline file: grammar, references, columns, types, files, models; runs nothing.
    Validate(run::ValidateArgs),
    /// Shows the graph of a pipeline file.
    Graph(graph::GraphArgs),
    /// Looks into model files.
    Models(models::ModelsArgs),
    /// Says what this machine has for pipelines.
    Doctor,
    /// Lists the transforms of pipeline files, or the keys of one.
    Transforms(transforms::TransformsArgs),
    /// Says what an error code means and what to do.
    Explain(explain::ExplainArgs),
    /// Writes a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command line; gives the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match Command::try_parse_from(arguments) {
        Ok(command) => command,
        Err(error) => return usage(&error),
    };
    let exit = match command.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Validate(args) => run::validate(&args),
        Verb::Graph(args) => graph::graph(&args),
        Verb::Models(args) => models::models(&args),
        Verb::Doctor => doctor::doctor(),
        Verb::Transforms(args) => transforms::transforms(&args),
        Verb::Explain(args) => explain::explain(&args),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Command::command(), "tiebeam", &mut script);
            output::stdout(&script);
            Exit::Ok
        }
    };
    exit.into()
}

/// Runners of Beam's world that people will ask for.
const RUNNERS: [&str; 5] = ["prism", "flink", "spark", "dataflow", "portable"];

fn usage(error: &clap::Error) -> ExitCode {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    if error.kind() == ErrorKind::InvalidValue
        && context(ContextKind::InvalidArg).starts_with("--runner")
        && RUNNERS.contains(&context(ContextKind::InvalidValue))
    {
        output::stderr(&format!(
            "error: the runner `{}` is not in this build; it has `embedded`, which runs in this process\n",
            context(ContextKind::InvalidValue)
        ));
        return Exit::BadUsage.into();
    }
    // Nothing can be done about a closed terminal.
    let _ = error.print();
    if error.use_stderr() { Exit::BadUsage.into() } else { Exit::Ok.into() }
}
