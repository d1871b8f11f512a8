//! Exit codes, and how an error is shown to a person.

use std::io::Write;
use std::process::ExitCode;

use tiebeam_core::{Error, ErrorKind};

/// How a run ended, as the shell sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or drained.
    Ok,
    /// The job failed.
    JobFailed,
    /// The command line was wrong.
    BadUsage,
    /// Done, but with more dead letters than allowed.
    TooManyDeadLetters,
    /// State or output directory unusable.
    OutputUnusable,
    /// A model was refused.
    ModelRefused,
    /// The pipeline has mistakes.
    PipelineInvalid,
    /// Cancelled by a signal, whose number it is.
    Signal(u8),
}

impl Exit {
    /// The exit code of an error that ended a job.
    pub fn of(error: &Error) -> Self {
        if ["TB0522", "TB0523", "TB0524", "TB0572", "TB0574", "TB0597", "TB0598"].contains(&error.code()) {
            // What the flags say of another engine or another run, not the pipeline.
            return Exit::BadUsage;
        }
        match error.kind() {
            ErrorKind::Model => Exit::ModelRefused,
            ErrorKind::Output => Exit::OutputUnusable,
            ErrorKind::InvalidPipeline | ErrorKind::InvalidArgument => Exit::PipelineInvalid,
            _ => Exit::JobFailed,
        }
    }

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::JobFailed => 1,
            Exit::BadUsage => 2,
            Exit::TooManyDeadLetters => 3,
            Exit::OutputUnusable => 4,
            Exit::ModelRefused => 5,
            Exit::PipelineInvalid => 78,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Writes to stderr; a closed one is nobody's problem.
pub(crate) fn to_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Writes to stdout; a closed one is nobody's problem.
#[cfg_attr(not(feature = "portable"), allow(dead_code))] // Only jobs elsewhere have something to say there.
pub(crate) fn to_stdout(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Shows an error on stderr: code, step, message, place, causes, help.
pub fn print_error(error: &Error) {
    to_stderr(&format!("{error:?}\n"));
}
