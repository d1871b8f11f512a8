//! `tiebeam test`: the `tests` of a pipeline file.

use clap::Args;
use tiebeam::launch::{Exit, print_error};
use tiebeam::prelude::{EmbeddedRunner, RunnerOptions};
use tiebeam::{Error, ErrorKind};
use tiebeam_yaml::Variables;
use tiebeam_yaml::testing::update::{load_looks, updated};
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
    /// Writes the rows that failed tests gave into the file, in place of those that they expect.
    #[arg(long)]
    update: bool,
}

/// Runs the tests of a pipeline file: a line for each on standard output, `ok` or `FAILED`.
pub fn test(args: &TestArgs) -> Exit {
    let (name, text, variables) = match args.file.text() {
        Ok(read) => read,
        Err(exit) => return exit,
    };
    let tests = match load_tests(&name, &text, &variables, &output::environment()) {
        Ok(tests) => tests,
        // Expectations that cannot be compared at all can be written anew all the same.
        Err(_) if args.update && load_looks(&name, &text, &variables).is_ok() => {
            return update(&name, &text, &variables, None);
        }
        Err(report) => {
            output::report(&report);
            return exit_of(&report);
        }
    };
    let wanted = |test: &&Test| args.only.as_ref().is_none_or(|only| test.name.contains(only));
    let runner = EmbeddedRunner::new(RunnerOptions::default());
    let (mut held, mut failed) = (0, Vec::new());
    for test in tests.iter().filter(wanted) {
        let line = match runner.run(&test.graph) {
            Ok(_) => {
                held += 1;
                format!("ok {} ({name}:{})\n", test.name, test.line)
            }
            Err(error) => {
                failed.push(test.name.clone());
                let step = error.step().map(|step| format!("{step}: ")).unwrap_or_default();
                format!("FAILED {} ({name}:{}): {step}{}\n", test.name, test.line, error.message())
            }
        };
        output::stdout(line.as_bytes());
    }
    output::stdout(format!("{held} passed, {} failed\n", failed.len()).as_bytes());
    match (failed.is_empty(), args.update) {
        (true, _) => Exit::Ok,
        (false, true) => update(&name, &text, &variables, Some(&failed)),
        (false, false) => Exit::JobFailed,
    }
}

/// Writes what the failed tests (or all) gave into the file.
fn update(name: &str, text: &str, variables: &Variables, failed: Option<&[String]>) -> Exit {
    let looks = match load_looks(name, text, variables) {
        Ok(looks) => looks,
        Err(report) => {
            output::report(&report);
            return exit_of(&report);
        }
    };
    let runner = EmbeddedRunner::new(RunnerOptions::default());
    let mut done = Vec::new();
    for look in looks.into_iter().filter(|look| failed.is_none_or(|failed| failed.contains(&look.name))) {
        // What does not run has no rows to write.
        match runner.run(&look.graph) {
            Ok(_) => done.push(look),
            Err(error) => {
                print_error(&error);
                return Exit::JobFailed;
            }
        }
    }
    if let Err(error) = std::fs::write(name, updated(text, &done)) {
        print_error(&Error::new(ErrorKind::Output, "TB0229", format!("{name} cannot be written: {error}")));
        return Exit::OutputUnusable;
    }
    for look in done {
        output::stdout(format!("updated {}\n", look.name).as_bytes());
    }
    Exit::Ok
}
