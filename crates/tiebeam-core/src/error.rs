//! The one error type of every room.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result of anything that can fail in a pipeline.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, coarse enough to act on: exit codes, retries and dead letters follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument of a public function, transform or option that cannot work.
    InvalidArgument,
    /// A pipeline (graph or YAML file) that is wrong before anything runs.
    InvalidPipeline,
    /// A record, line, file or wire message that cannot be read as what it should be.
    InvalidData,
    /// A function that the user gave returned an error.
    UserCode,
    /// A function that the user gave panicked.
    Panic,
    /// A model file that is missing, damaged, foreign or refused.
    Model,
    /// A model was given a batch and failed, or broke its contract.
    Inference,
    /// The memory of the machine or of a device did not suffice; a smaller piece of the same work may fit.
    OutOfMemory,
    /// A file or directory that does not exist.
    NotFound,
    /// An output or state location that cannot be written.
    Output,
    /// The operating system or another service failed.
    Io,
    /// Something took longer than allowed.
    Timeout,
    /// The job was cancelled.
    Cancelled,
    /// A feature that this build or this engine does not have.
    Unsupported,
    /// A bug of ours.
    Internal,
}

/// Whose problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Domain {
    /// The user's code, file or data.
    User,
    /// The world outside: disk, network, another service.
    External,
    /// Tiebeam itself; please report it.
    Internal,
}

/// Where a bad record stands in its source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SourcePlace {
    /// The file's path or URL.
    pub file: String,
    /// The line, counted from 1, where the format has lines.
    pub line: Option<u64>,
    /// The byte offset, counted from 0.
    pub offset: Option<u64>,
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " (byte offset {offset})")?;
        }
        Ok(())
    }
}

/// An error: a stable code, whose problem it is, which transform, what was seen and what was wanted.
///
/// Messages are lower case without a final dot. Frameworks' own errors enter only as [`source`](StdError::source).
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    code: &'static str,
    message: String,
    help: Option<String>,
    step: Option<String>,
    key: Option<String>,
    place: Option<SourcePlace>,
    retryable: Option<bool>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with its stable code (`TB0123`) and message.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            code,
            message: message.into(),
            help: None,
            step: None,
            key: None,
            place: None,
            retryable: None,
            source: None,
        }))
    }

    /// A bug of ours: says so and asks for a report.
    pub fn internal(message: impl fmt::Display) -> Self {
        Error::new(
            ErrorKind::Internal,
            "TB0900",
            format!("{message} (this is a bug in tiebeam, please report it)"),
        )
    }

    /// An error that a user's function returned.
    pub fn user(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        match source.downcast::<Error>() {
            Ok(own) => *own,
            Err(source) => {
                let mut error = Error::new(ErrorKind::UserCode, "TB0501", source.to_string());
                error.0.source = source.source().map(|cause| Arc::new(Cause::of(cause)) as _);
                error
            }
        }
    }

    /// Adds one line that says what to do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Adds the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Names the transform by its full path, unless an inner one is named already.
    #[must_use]
    pub fn at_step(mut self, step: &str) -> Self {
        if self.0.step.is_none() {
            self.0.step = Some(step.to_owned());
        }
        self
    }

    /// Names the element's key, unless it is named already.
    #[must_use]
    pub fn at_key(mut self, key: impl Into<String>) -> Self {
        self.0.key.get_or_insert(key.into());
        self
    }

    /// Names the place in a source file, unless it is named already.
    #[must_use]
    pub fn at_place(mut self, place: SourcePlace) -> Self {
        self.0.place.get_or_insert(place);
        self
    }

    /// Overrides what [`is_retryable`](Error::is_retryable) says.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = Some(retryable);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable code, such as `TB0204`.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The message alone, without code, step and place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The full path of the transform that failed.
    pub fn step(&self) -> Option<&str> {
        self.0.step.as_deref()
    }

    /// The key of the element that failed.
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// The place of the bad record in its source.
    pub fn place(&self) -> Option<&SourcePlace> {
        self.0.place.as_ref()
    }

    /// Whose problem it is.
    pub fn domain(&self) -> Domain {
        match self.0.kind {
            ErrorKind::Internal => Domain::Internal,
            ErrorKind::Io | ErrorKind::Timeout | ErrorKind::Output | ErrorKind::OutOfMemory => {
                Domain::External
            }
            _ => Domain::User,
        }
    }

    /// Whether the same work may succeed when tried again.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable.unwrap_or(match self.0.kind {
            ErrorKind::Io
            | ErrorKind::Timeout
            | ErrorKind::UserCode
            | ErrorKind::Panic
            | ErrorKind::Inference
            | ErrorKind::OutOfMemory
            | ErrorKind::Internal => true,
            ErrorKind::InvalidArgument
            | ErrorKind::InvalidPipeline
            | ErrorKind::InvalidData
            | ErrorKind::Model
            | ErrorKind::NotFound
            | ErrorKind::Output
            | ErrorKind::Cancelled
            | ErrorKind::Unsupported => false,
        })
    }

    /// The messages of the errors underneath, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }
}

/// A copy of an error chain's text: lets a borrowed cause outlive the error that it came with.
#[derive(Debug)]
struct Cause {
    message: String,
    source: Option<Box<Cause>>,
}

impl Cause {
    fn of(error: &(dyn StdError + 'static)) -> Cause {
        Cause { message: error.to_string(), source: error.source().map(|s| Box::new(Cause::of(s))) }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = &self.0.step {
            write!(f, "{step}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(key) = &self.0.key {
            write!(f, ", key {key}")?;
        }
        if let Some(place) = &self.0.place {
            write!(f, ", at {place}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {self}", self.0.code)?;
        for cause in self.causes() {
            write!(f, "\n  caused by: {cause}")?;
        }
        if let Some(help) = &self.0.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Error::new(kind, "TB0401", error.to_string())
    }
}
