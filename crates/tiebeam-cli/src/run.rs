//! `tiebeam run` and `tiebeam validate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use tiebeam::launch::{Exit, Job, JobOptions, RunFlags, print_error};
use tiebeam::{Error, ErrorKind, RunId};
use tiebeam_yaml::clock::timed;
use tiebeam_yaml::{Loaded, Report, Variables, load};

use crate::examples::Example;
use crate::{output, worker};

/// Which pipeline, and with what.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// The pipeline file.
    #[arg(required_unless_present = "example")]
    pub file: Option<PathBuf>,
    /// One of the examples in this command, instead of a file: times-five, branch, sequence.
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    pub example: Option<String>,
    #[command(flatten)]
    pub settings: Settings,
}

/// What a pipeline file's template is given.
#[derive(Debug, Clone, Default, Args)]
pub struct Settings {
    /// A jinja variable; a value that is JSON is taken as JSON. As often as wanted.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<(String, serde_json::Value)>,
    /// Jinja variables as one JSON object, as Beam takes them.
    #[arg(long = "jinja_variables", visible_alias = "jinja-variables", value_name = "JSON", value_parser = variables)]
    pub jinja_variables: Option<Variables>,
}

impl Settings {
    /// All of them; those of `--set` count more.
    pub fn variables(&self) -> Variables {
        let mut variables = self.jinja_variables.clone().unwrap_or_default();
        variables.extend(self.set.iter().cloned());
        variables
    }
}

/// The command line of `tiebeam run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    flags: RunFlags,
}

/// The command line of `tiebeam validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    file: FileArgs,
}

/// `name=value`; the value as JSON where it is JSON.
fn setting(text: &str) -> Result<(String, serde_json::Value), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let value =
                serde_json::from_str(value).unwrap_or_else(|_| serde_json::Value::String(value.to_owned()));
            Ok((name.to_owned(), value))
        }
        _ => Err(format!("wanted name=value, got `{text}`")),
    }
}

fn variables(text: &str) -> Result<Variables, String> {
    serde_json::from_str(text).map_err(|error| format!("wanted a JSON object such as {{\"n\": 3}}: {error}"))
}

/// A pipeline that was loaded; an example keeps its files as long as this lives.
pub struct Opened {
    pub loaded: Loaded,
    pub name: String,
    /// What a worker on another engine needs to load the same file.
    pub for_workers: JobOptions,
    /// What a worker must have been given too.
    pub decisive: BTreeMap<String, String>,
    _example: Option<Example>,
}

impl FileArgs {
    /// The name and text of the file, and the variables; what is wrong is shown, and gives the exit code.
    pub fn text(&self) -> Result<(String, String, Variables), Exit> {
        let Some(path) = &self.file else {
            print_error(&Error::new(ErrorKind::InvalidPipeline, "TB0229", "examples have no tests"));
            return Err(Exit::BadUsage);
        };
        match read(path) {
            Ok(text) => {
                let variables = timed(&text, self.settings.variables());
                Ok((path.display().to_string(), text, variables))
            }
            Err(error) => {
                print_error(&error);
                Err(Exit::PipelineInvalid)
            }
        }
    }

    /// Loads the pipeline; what is wrong is shown, and gives the exit code.
    pub fn open(&self) -> Result<Opened, Exit> {
        let (path, example) = match (&self.file, &self.example) {
            (_, Some(name)) => match Example::unpack(name) {
                Ok(example) => (example.file(), Some(example)),
                Err(error) => {
                    print_error(&error);
                    return Err(Exit::BadUsage);
                }
            },
            (Some(path), None) => (path.clone(), None),
            (None, None) => return Err(Exit::BadUsage),
        };
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) => {
                print_error(&error);
                return Err(Exit::PipelineInvalid);
            }
        };
        let name = path.display().to_string();
        let variables = timed(&text, self.settings.variables());
        match load(&name, &text, &variables, &output::environment()) {
            Ok(loaded) => {
                let for_workers = worker::options(&name, &text, &variables);
                let decisive = worker::decisive(&text, &variables);
                let name = path.file_stem().map_or(name, |stem| stem.to_string_lossy().into_owned());
                Ok(Opened { loaded, name, for_workers, decisive, _example: example })
            }
            Err(report) => {
                output::report(&report);
                Err(exit_of(&report))
            }
        }
    }
}

/// The text of a pipeline file.
pub fn read(path: &Path) -> Result<String, Error> {
    let refused = |what: String| Error::new(ErrorKind::InvalidPipeline, "TB0229", what);
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => refused(format!("there is no pipeline file {}", path.display())),
        _ => refused(format!("the pipeline file {} cannot be read: {error}", path.display())),
    })?;
    String::from_utf8(bytes)
        .map_err(|_| refused(format!("the pipeline file {} is not UTF-8", path.display())))
}

/// A file whose only trouble is its model, or a place that cannot be written, has an exit code of its own.
pub fn exit_of(report: &Report) -> Exit {
    let all = |kind: ErrorKind| report.diagnostics().iter().all(|diagnostic| diagnostic.kind == kind);
    if all(ErrorKind::Model) {
        Exit::ModelRefused
    } else if all(ErrorKind::Output) {
        Exit::OutputUnusable
    } else {
        Exit::PipelineInvalid
    }
}

/// Runs a pipeline file.
pub fn run(args: &RunArgs) -> Exit {
    let mut flags = args.flags.clone();
    // Examples run in a folder of their own; the report and the state are wanted in this one.
    if let Ok(here) = std::env::current_dir() {
        flags.report = flags.report.map(|report| here.join(report));
        flags.state_dir = flags.state_dir.map(|dir| here.join(dir));
    }
    let opened = match args.file.open() {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let Opened { loaded, name, for_workers, decisive, _example } = opened;
    let job = Job {
        name,
        graph: loaded.graph,
        inputs: loaded.inputs,
        outputs: loaded.outputs,
        options: for_workers,
        decisive,
    };
    tiebeam::launch::run(&job, &flags)
}

/// Checks a pipeline file.
pub fn validate(args: &ValidateArgs) -> Exit {
    match args.file.open() {
        Ok(opened) => check(&opened),
        Err(exit) => exit,
    }
}

/// What must hold before a run: models load, outputs can be written.
fn check(opened: &Opened) -> Exit {
    let graph = &opened.loaded.graph;
    let checked = graph.run_checks();
    graph.run_cleanups(RunId::new());
    match checked {
        Ok(()) => {
            let steps = graph.scopes.iter().skip(1).filter(|scope| scope.parent == 0).count();
            output::stdout(
                format!("{}: valid, {steps} transforms\n", opened.loaded.source.name()).as_bytes(),
            );
            Exit::Ok
        }
        Err(error) => {
            print_error(&error);
            Exit::of(&error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_json_where_they_can_be() {
        let value = |text: &str| setting(text).unwrap().1;
        assert_eq!(value("n=3"), serde_json::json!(3));
        assert_eq!(value("s=three"), serde_json::json!("three"));
        assert_eq!(value("l=[1, 2]"), serde_json::json!([1, 2]));
        assert_eq!(value("e="), serde_json::json!(""));
        assert_eq!(value("q=\"3\""), serde_json::json!("3"));
        assert!(setting("n").is_err() && setting("=3").is_err());
    }
}
