//! The tiebeam command: one file a verb. Data goes to stdout, everything else to stderr.

mod bench;
mod codes;
mod doctor;
mod errors;
mod examples;
mod expansion;
mod explain;
mod graph;
mod init;
mod look;
mod models;
mod output;
mod run;
mod schema;
mod svg;
mod test;
mod transforms;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

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
    /// Makes a folder to begin with: a pipeline file, its data and its model.
    Init(init::InitArgs),
    /// Runs a pipeline file.
    Run(run::RunArgs),
    /// Checks a pipeline file: grammar, references, columns, types, files, models; runs nothing.
    Validate(run::ValidateArgs),
    /// Runs the tests of a pipeline file: its section `tests`.
    Test(test::TestArgs),
    /// Shows the graph of a pipeline file.
    Graph(graph::GraphArgs),
    /// Looks into model files, and measures models.
    Models(models::ModelsArgs),
    /// Groups dead letters by their causes, or reruns them.
    Errors(errors::ErrorsArgs),
    /// Shows the counts of a job that runs with `--ui`.
    Top(look::TopArgs),
    /// Shows elements that leave a step of a job that runs with `--ui`.
    Tap(look::TapArgs),
    /// Starts workers for engines elsewhere.
    Worker(worker::WorkerVerb),
    /// Offers the library's transforms to pipelines in Python, Java and Beam YAML.
    ExpansionService(expansion::ExpansionArgs),
    /// Says what this machine has for pipelines.
    Doctor,
    /// Lists the transforms of pipeline files, or the keys of one.
    Transforms(transforms::TransformsArgs),
    /// Says what an error code means and what to do.
    Explain(explain::ExplainArgs),
    /// Writes the JSON schema of pipeline files, for editors.
    Schema,
    /// Writes a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command line; gives the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    tiebeam::launch::bound_arenas();
    tiebeam::launch::fetch_models();
    if let Some(exit) = tiebeam_yaml::transforms::inference::be_model_process(&output::environment()) {
        return exit;
    }
    if let Some(args) = tiebeam::launch::worker_args() {
        return worker::be_worker(args);
    }
    let command = match Command::try_parse_from(arguments) {
        Ok(command) => command,
        Err(error) => return usage(&error),
    };
    let exit = match command.verb {
        Verb::Init(args) => init::init(&args),
        Verb::Run(args) => run::run(&args),
        Verb::Validate(args) => run::validate(&args),
        Verb::Test(args) => test::test(&args),
        Verb::Graph(args) => graph::graph(&args),
        Verb::Models(args) => models::models(&args),
        Verb::Errors(args) => errors::errors(&args),
        Verb::Top(args) => look::top(&args),
        Verb::Tap(args) => look::tap(&args),
        Verb::Worker(args) => return worker::worker(&args),
        Verb::ExpansionService(args) => return expansion::expansion_service(&args),
        Verb::Doctor => doctor::doctor(),
        Verb::Transforms(args) => transforms::transforms(&args),
        Verb::Explain(args) => explain::explain(&args),
        Verb::Schema => schema::schema(),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Command::command(), "tiebeam", &mut script);
            output::stdout(&script);
            Exit::Ok
        }
    };
    exit.into()
}

fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a closed terminal.
    let _ = error.print();
    if error.use_stderr() { Exit::BadUsage.into() } else { Exit::Ok.into() }
}
