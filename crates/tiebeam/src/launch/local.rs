//! An engine on this machine that is started for one job.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_engines::{Engine, Kind, Settings, find, install_commands};
use tiebeam_runner::{CancelToken, Stop};

use super::exit::to_stderr;
use super::flags::{ProgressMode, RunFlags, RunnerKind};

/// An engine that is here and does not run yet.
pub(super) struct Installed {
    kind: Kind,
    place: PathBuf,
}

impl Installed {
    /// The engine that the flags name.
    pub(super) fn find(flags: &RunFlags) -> Result<Installed> {
        let runner = flags.runner.name();
        let kind = match flags.runner {
            RunnerKind::Prism => Kind::Prism,
            RunnerKind::Flink => Kind::FlinkLocal,
            RunnerKind::Spark => Kind::Spark,
            _ => {
                return Err(needs_endpoint(format!("`--runner {runner}` needs `--job-endpoint HOST:PORT`"))
                    .with_help("it is where the engine's job service listens, such as 127.0.0.1:8099"));
            }
        };
        if flags.detach {
            let message = format!(
                "`--detach` cannot leave a job on a {runner} that is started for it and ends with it"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, "TB0524", message).with_help(format!(
                "start one that stays, `cargo xtask engines start {kind}`, and name it by `--job-endpoint`"
            )));
        }
        match find(kind).map_err(|error| needs_endpoint(error.to_string()))? {
            Some(place) => Ok(Installed { kind, place }),
            None => Err(not_here(runner, kind)),
        }
    }

    /// Starts it, and waits until it takes jobs or a signal comes.
    pub(super) fn start(&self, flags: &RunFlags, cancel: &CancelToken) -> Result<LocalEngine> {
        let mut engine = Engine::begin(self.kind, &self.place, &Settings::default()).map_err(not_started)?;
        if flags.progress != ProgressMode::None {
            to_stderr(&format!("starting {} … {}\n", flags.runner.name(), engine.endpoint()));
        }
        let ready = engine.ready(&mut || cancel.asked() != Stop::No);
        if cancel.asked() != Stop::No {
            return Err(Error::new(ErrorKind::Cancelled, "TB0525", "the job was cancelled"));
        }
        ready.map_err(not_started)?;
        Ok(LocalEngine { engine })
    }
}

/// One that runs. Ends when it is dropped, and also when this process is killed.
pub(super) struct LocalEngine {
    engine: Engine,
}

impl LocalEngine {
    /// `host:port` of its job service.
    pub(super) fn endpoint(&self) -> String {
        self.engine.endpoint()
    }

    /// Why a job on it failed: that the engine itself is gone, with its log's name and last words, where that is so.
    pub(super) fn explain(&mut self, error: Error) -> Error {
        // What a step said is the job's fault, whatever the engine does then.
        if ["TB0525", "TB0526"].contains(&error.code()) {
            return error;
        }
        // Connections break a moment before their process counts as ended.
        let patience = Instant::now() + Duration::from_millis(500);
        loop {
            match self.engine.failure() {
                Some(failure) => return ended(failure.to_string()),
                None if Instant::now() > patience => return error,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

fn needs_endpoint(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "TB0522", message)
}

fn not_here(runner: &str, kind: Kind) -> Error {
    let message =
        format!("there is no {runner} on this machine, and no `--job-endpoint HOST:PORT` names another");
    let help = match install_commands(kind) {
        Ok(commands) => {
            let told = |command: &String| match command.starts_with("cargo xtask") {
                true => format!("`{command}` in a clone of tiebeam"),
                false => format!("`{command}`"),
            };
            format!("install it: {}", commands.iter().map(told).collect::<Vec<_>>().join(", or "))
        }
        Err(error) => error.to_string(),
    };
    needs_endpoint(message).with_help(help)
}

fn not_started(error: tiebeam_engines::Error) -> Error {
    let error =
        Error::new(ErrorKind::Io, "TB0532", "the engine for the job did not start").with_source(error);
    error.with_help("`tiebeam doctor` says what this machine has")
}

fn ended(failure: String) -> Error {
    Error::new(ErrorKind::Io, "TB0532", "the engine that was started for the job ended before it")
        .with_source(failure)
}
