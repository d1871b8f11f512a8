//! How a program knows that it is to be a worker: by its arguments or by its environment.

use std::path::PathBuf;

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_model::fn_api::{ProvisionInfo, StartWorkerRequest};

use crate::options::{JobOptions, from_json, from_struct};

/// What a worker is told when it is started: Beam's container contract, its variables, or a pool's request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkerArgs {
    /// Its id.
    pub id: String,
    /// Where instructions come from.
    pub control: String,
    /// Where log entries go.
    pub logging: String,
    /// Where files are fetched.
    pub artifact: String,
    /// Where all the others are told.
    pub provision: String,
    /// Where the engine asks what the worker is doing.
    pub status: String,
    /// A folder that outlives the worker.
    pub semi_persist_dir: Option<PathBuf>,
    /// The job's options, where they did not come by the provisioning service.
    pub options: Option<JobOptions>,
}

impl WorkerArgs {
    /// The program's own arguments and variables; none when it was not started as a worker.
    pub fn of_process() -> Option<Result<WorkerArgs>> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        WorkerArgs::detect(&args, |name| std::env::var(name).ok())
    }

    /// Those arguments (without the program's name) and variables.
    pub(crate) fn detect(
        args: &[String],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<Result<WorkerArgs>> {
        if flag(args, "control_endpoint").is_some() || flag(args, "provision_endpoint").is_some() {
            return Some(WorkerArgs::of_flags(args, variable));
        }
        let control = variable("CONTROL_API_SERVICE_DESCRIPTOR")?;
        let id = variable("WORKER_ID")?;
        let address = |name: &str| variable(name).map(|text| url_of(&text)).unwrap_or_default();
        let options = match variable("PIPELINE_OPTIONS").filter(|text| !text.is_empty()) {
            Some(text) => match from_json(&text) {
                Ok(options) => Some(options),
                Err(error) => return Some(Err(error)),
            },
            None => None,
        };
        Some(Ok(WorkerArgs {
            id,
            control: url_of(&control),
            logging: address("LOGGING_API_SERVICE_DESCRIPTOR"),
            status: address("STATUS_API_SERVICE_DESCRIPTOR"),
            semi_persist_dir: variable("SEMI_PERSISTENT_DIRECTORY").map(PathBuf::from),
            options,
            ..WorkerArgs::default()
        }))
    }

    fn of_flags(args: &[String], variable: impl Fn(&str) -> Option<String>) -> Result<WorkerArgs> {
        let text = |name: &str| flag(args, name).unwrap_or_default().to_owned();
        // The boot program of Beam's Go image asks the provisioning service itself, and leaves the options in a file.
        let file = || std::fs::read_to_string(variable("PIPELINE_OPTIONS_FILE")?).ok();
        let told = flag(args, "options").map(str::to_owned).or_else(file);
        let options = match told.filter(|text| !text.is_empty()) {
            Some(json) => Some(from_json(&json)?),
            None => None,
        };
        let args = WorkerArgs {
            id: text("id"),
            control: text("control_endpoint"),
            logging: text("logging_endpoint"),
            artifact: text("artifact_endpoint"),
            provision: text("provision_endpoint"),
            status: text("status_endpoint"),
            semi_persist_dir: flag(args, "semi_persist_dir").map(PathBuf::from),
            options,
        };
        if args.id.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0708",
                "a worker was started without `--id`",
            )
            .with_help("engines start workers with --id, --control_endpoint, --logging_endpoint, --artifact_endpoint and --provision_endpoint"));
        }
        Ok(args)
    }

    /// What a pool's request says.
    pub(crate) fn of_request(request: &StartWorkerRequest) -> WorkerArgs {
        let url = |endpoint: &Option<tiebeam_model::pipeline::ApiServiceDescriptor>| {
            endpoint.as_ref().map(|endpoint| endpoint.url.clone()).unwrap_or_default()
        };
        WorkerArgs {
            id: request.worker_id.clone(),
            control: url(&request.control_endpoint),
            logging: url(&request.logging_endpoint),
            artifact: url(&request.artifact_endpoint),
            provision: url(&request.provision_endpoint),
            ..WorkerArgs::default()
        }
    }

    /// The same as arguments of a program.
    pub(crate) fn to_flags(&self) -> Vec<String> {
        let flags = [
            ("id", &self.id),
            ("control_endpoint", &self.control),
            ("logging_endpoint", &self.logging),
            ("artifact_endpoint", &self.artifact),
            ("provision_endpoint", &self.provision),
            ("status_endpoint", &self.status),
        ];
        let told = flags.into_iter().filter(|(_, value)| !value.is_empty());
        told.map(|(name, value)| format!("--{name}={value}")).collect()
    }

    /// Fills what is still unknown from the provisioning service's answer.
    pub(crate) fn complete(&mut self, info: &ProvisionInfo) {
        let endpoints = [
            (&mut self.control, &info.control_endpoint),
            (&mut self.logging, &info.logging_endpoint),
            (&mut self.artifact, &info.artifact_endpoint),
            (&mut self.status, &info.status_endpoint),
        ];
        for (known, told) in endpoints {
            if known.is_empty()
                && let Some(told) = told
            {
                told.url.clone_into(known);
            }
        }
        if let Some(options) = &info.pipeline_options {
            self.options = Some(from_struct(options));
        }
    }
}

/// The value of `--name=value` or `--name value`.
fn flag<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    args.iter().enumerate().find_map(|(i, arg)| {
        let rest = arg.strip_prefix("--")?.strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(unquoted(value)),
            None if rest.is_empty() => args.get(i + 1).map(String::as_str),
            None => None,
        }
    })
}

/// Prism 2.77 puts quotes around the id as if a shell would take them off again; it starts processes without one.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(value)
}

/// The address in an endpoint's text form: `url: "localhost:1234"`.
fn url_of(text: &str) -> String {
    let after = text.split_once("url:").map_or(text, |(_, rest)| rest);
    let mut quoted = after.split('"').skip(1);
    quoted.next().unwrap_or(after).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(args: &[&str], variables: &[(&str, &str)]) -> Option<Result<WorkerArgs>> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        WorkerArgs::detect(&args, |name| {
            variables.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_five_flags_make_a_worker() {
        let args =
            ["--id=w1", "--control_endpoint", "h:1", "--logging_endpoint=h:2", "--provision_endpoint=h:3"];
        let worker = detect(&args, &[]).unwrap().unwrap();
        let told = (worker.id.as_str(), worker.control.as_str(), worker.logging.as_str());
        assert_eq!((told, worker.provision.as_str()), (("w1", "h:1", "h:2"), "h:3"));
        let again: Vec<String> = worker.to_flags();
        assert_eq!(WorkerArgs::detect(&again, |_| None).unwrap().unwrap(), worker);
        assert!(detect(&["--provision_endpoint=h:3"], &[]).unwrap().is_err(), "an id is wanted");
        let prism = detect(&["--id='job-1[a]_x'", "--provision_endpoint=h:3"], &[]).unwrap().unwrap();
        assert_eq!(prism.id, "job-1[a]_x");
    }

    #[test]
    fn the_boot_program_of_beams_go_image_makes_a_worker() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipeline_options.json");
        std::fs::write(&file, r#"{"options": {"n": 3}, "display_data": []}"#).unwrap();
        let args = [
            "--worker=true",
            "--id=w",
            "--logging_endpoint=h:2",
            "--control_endpoint=h:1",
            "--semi_persist_dir=/tmp",
        ];
        let worker = detect(&args, &[("PIPELINE_OPTIONS_FILE", file.to_str().unwrap())]).unwrap().unwrap();
        assert_eq!((worker.control.as_str(), worker.options.unwrap()["n"].clone()), ("h:1", 3.into()));
    }

    #[test]
    fn variables_make_a_worker() {
        let variables = [
            ("CONTROL_API_SERVICE_DESCRIPTOR", "url: \"localhost:7\"\n"),
            ("WORKER_ID", "w2"),
            ("PIPELINE_OPTIONS", r#"{"beam:option:n:v1": 3}"#),
        ];
        let worker = detect(&[], &variables).unwrap().unwrap();
        assert_eq!((worker.id.as_str(), worker.control.as_str()), ("w2", "localhost:7"));
        assert_eq!(worker.options.unwrap()["n"], 3);
        assert!(detect(&[], &variables[..1]).is_none());
    }

    #[test]
    fn a_users_own_flags_make_none() {
        assert!(detect(&["--input=a", "--id=3", "run"], &[]).is_none());
    }
}
