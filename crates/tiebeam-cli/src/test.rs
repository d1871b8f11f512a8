//! `tiebeam test`: the `tests` of a pipeline file.

use clap::Args;
use tiebeam::launch::Exit;
use tiebeam::prelude::{EmbeddedRunner, RunnerOptions};
use tiebeam_yaml::testing::{Test, load_tests};

use crate::output;
use crate::run::{FileArgs, exit_of};

/// The command line of `tiebeam test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Only the tests whose names have this in them.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Runs the tests of a pipeline file: a line for each on standard output, `ok` or `FAILED`.
pub fn test(args: &TestArgs) -> Exit {
    let (name, text, variables) = match args.file.text() {
        Ok(read) => read,
        Err(exit) => return exit,
    };
    let tests = match load_tests(&name, &text, &variables, &output::environment()) {
        Ok(tests) => tests,
        Err(report) => {
            output::report(&report);
            return exit_of(&report);
        }
    };
    let wanted = |test: &&Test| args.only.as_ref().is_none_or(|only| test.name.contains(only));
    let runner = EmbeddedRunner::new(RunnerOptions::default());
    let (mut held, mut failed) = (0, 0);
    for test in tests.iter().filter(wanted) {
        let line = match runner.run(&test.graph) {
            Ok(_) => {
                held += 1;
                format!("ok {} ({name}:{})\n", test.name, test.line)
            }
            Err(error) => {
                failed += 1;
                let step = error.step().map(|step| format!("{step}: ")).unwrap_or_default();
                format!("FAILED {} ({name}:{}): {step}{}\n", test.name, test.line, error.message())
            }
        };
        output::stdout(line.as_bytes());
    }
    output::stdout(format!("{held} passed, {failed} failed\n").as_bytes());
    if failed > 0 { Exit::JobFailed } else { Exit::Ok }
}
