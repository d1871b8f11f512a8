//! [`Remote`]: one request to an endpoint, tried until it is answered, refused for good, or out of time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_http::Fault;

use crate::endpoint::{Count, Counters, Endpoint, RemoteStats, TooLate};
use crate::request::{RemoteRequest, RemoteResponse, Transport, Unanswered};
use crate::retry_after::retry_after;
use crate::settings::Settings;

/// An endpoint at hand, as [`RemoteModel::load`](crate::RemoteModel::load) gets it.
pub struct Remote {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) settings: Settings,
    /// What was done by this one, among all who ask the endpoint.
    pub(crate) own: Counters,
}

/// Why a request has no answer that can be used.
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Some of what was asked is to blame, or that it was too much at once; parts of it may do.
    pub(crate) blames_content: bool,
}

/// How one try ended, other than well.
struct Trouble {
    error: Error,
    /// Whether the same may go well later.
    passes: bool,
    /// Whether the endpoint is overloaded or ill, as adaptive throttling counts it.
    is_ill: bool,
    blames_content: bool,
    /// Whether it was asked too much (429).
    is_too_much: bool,
    /// How long the endpoint wants to be left alone: some other time than our own pause, if it says one.
    alone: Option<Option<Duration>>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.endpoint.name)
    }
}

/// `, attempt 3`, once there were several.
struct Attempts(u32);

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 | 1 => Ok(()),
            n => write!(f, " after {n} attempts"),
        }
    }
}

impl Remote {
    /// Sends a request and gives its answer, whatever its status but those that pass (408, 429, 5xx): these are tried
    /// again, as failures of the connection are, within the handler's deadline. For what a model has to know when it is
    /// loaded.
    ///
    /// # Errors
    /// When there is no answer after all attempts.
    pub fn call(&self, request: impl Fn() -> Result<RemoteRequest>) -> Result<RemoteResponse> {
        let deadline = self.deadline();
        self.settle(deadline, &request, true, &|response| Ok(response.clone()))
            .map_err(|failure| failure.error)
    }

    /// What this process did with the endpoint so far.
    pub fn stats(&self) -> RemoteStats {
        self.endpoint.stats()
    }

    /// What was done with it by this one.
    pub(crate) fn own_stats(&self) -> RemoteStats {
        self.own.stats(&self.endpoint.name)
    }

    /// When a batch that begins now must be done.
    pub(crate) fn deadline(&self) -> Duration {
        self.endpoint.time.now().saturating_add(self.settings.deadline)
    }

    /// Tries a request until `read` takes its answer. An answer that `read` refuses with a retryable error is asked for
    /// again.
    pub(crate) fn settle<R>(
        &self,
        deadline: Duration,
        build: &dyn Fn() -> Result<RemoteRequest>,
        any_status: bool,
        read: &dyn Fn(&RemoteResponse) -> Result<R>,
    ) -> Result<R, Failure> {
        let (endpoint, settings) = (&self.endpoint, &self.settings);
        let count = |what| endpoint.count(&self.own, what, 1);
        let mut attempts = 0;
        let mut last: Option<Error> = None;
        loop {
            // Made before it waits for its turn, so that nothing stands between its turn and its sending.
            let built = build();
            let throttle = settings.throttle.as_ref();
            if let Err(late) = endpoint.admit(deadline, settings.interval(), throttle, &self.own) {
                return Err(self.late(late, attempts, last));
            }
            attempts += 1;
            if attempts > 1 {
                count(Count::Retries);
            }
            let trouble = match built {
                Err(error) => Trouble {
                    passes: error.is_retryable(),
                    is_ill: false,
                    blames_content: false,
                    is_too_much: false,
                    alone: None,
                    error: error.clone(),
                },
                Ok(request) => match self.once(&request, deadline, any_status, read) {
                    Ok(answer) => {
                        endpoint.note(true, throttle);
                        count(Count::Answered);
                        return Ok(answer);
                    }
                    Err(trouble) => trouble,
                },
            };
            endpoint.note(!trouble.is_ill, throttle);
            count(match &trouble {
                Trouble { passes: false, .. } => Count::Refused,
                Trouble { is_too_much: true, .. } => Count::TooMany,
                _ => Count::Failed,
            });
            let pause = endpoint.pause(settings.first_pause, settings.longest_pause, attempts);
            if let Some(alone) = trouble.alone {
                endpoint.close_for(alone.unwrap_or(pause));
            }
            if !trouble.passes || attempts == settings.max_attempts {
                let error = after(trouble.error, attempts);
                return Err(Failure { error, blames_content: trouble.blames_content });
            }
            let now = endpoint.time.now();
            if now.saturating_add(pause) >= deadline {
                let late = TooLate {
                    wait: pause,
                    why: "the pause before the next attempt is longer than what is left",
                };
                return Err(self.late(late, attempts, Some(trouble.error)));
            }
            last = Some(trouble.error);
            endpoint.time.sleep(pause);
        }
    }

    /// One try.
    fn once<R>(
        &self,
        request: &RemoteRequest,
        deadline: Duration,
        any_status: bool,
        read: &dyn Fn(&RemoteResponse) -> Result<R>,
    ) -> Result<R, Trouble> {
        let settings = &self.settings;
        let left = deadline.saturating_sub(self.endpoint.time.now());
        // Nothing at all would mean no limit.
        let timeout = settings.request_timeout.min(left).max(Duration::from_millis(1));
        let mut request = request.clone();
        for (name, value) in &settings.headers {
            request = request.secret_header(name, value);
        }
        let response = self
            .transport
            .send(&request, timeout, settings.max_response_bytes)
            .map_err(|unanswered| self.unanswered(&request, unanswered, timeout))?;
        let is_success = (200..300).contains(&response.status);
        let is_wanted = is_success || (any_status && !is_passing(response.status));
        if !is_wanted {
            return Err(self.refused(&request, &response));
        }
        read(&response).map_err(|error| {
            let shown = request.excerpt(&response.body);
            let said = request.scrubbed(error.message());
            let message = format!("{}: {said}; it said: {shown}", self.endpoint.name);
            Trouble {
                passes: error.is_retryable(),
                is_ill: false,
                blames_content: false,
                is_too_much: false,
                alone: None,
                error: Error::new(error.kind(), error.code(), message).with_retryable(error.is_retryable()),
            }
        })
    }

    fn unanswered(&self, request: &RemoteRequest, unanswered: Unanswered, timeout: Duration) -> Trouble {
        let endpoint = &self.endpoint.name;
        let said = request.scrubbed(&unanswered.said);
        let error = |kind, code, message: String| Error::new(kind, code, message);
        let error = match unanswered.fault {
            Fault::Unreachable => {
                error(ErrorKind::Io, "TB0604", format!("{endpoint} can't be reached: {said}"))
            }
            Fault::BrokenOff => {
                error(ErrorKind::Io, "TB0604", format!("{endpoint} broke its answer off: {said}"))
            }
            Fault::TimedOut => {
                let message = format!("{endpoint} gave no answer within {timeout:?}");
                error(ErrorKind::Timeout, "TB0604", message).with_retryable(true)
            }
            Fault::TooLong => {
                let most = self.settings.max_response_bytes;
                let message = format!("{endpoint} gave an answer of more than {most} bytes");
                error(ErrorKind::Inference, "TB0607", message)
                    .with_help("ask for less in one request, or allow more with `with_max_response_bytes`")
                    .with_retryable(false)
            }
            Fault::Lasting => error(ErrorKind::Io, "TB0604", format!("{endpoint} can't be asked: {said}"))
                .with_retryable(false),
        };
        let passes = matches!(unanswered.fault, Fault::Unreachable | Fault::BrokenOff | Fault::TimedOut);
        Trouble { error, passes, is_ill: passes, blames_content: false, is_too_much: false, alone: None }
    }

    /// What a status other than success means.
    fn refused(&self, request: &RemoteRequest, response: &RemoteResponse) -> Trouble {
        let (endpoint, status) = (&self.endpoint.name, response.status);
        let said = request.excerpt(&response.body);
        let said = if said.is_empty() { said } else { format!(": {said}") };
        let passes = is_passing(status);
        let alone = matches!(status, 429 | 503).then(|| {
            let header = response.header("retry-after")?;
            retry_after(header, response.header("date"), self.endpoint.time.date())
        });
        // An ill server that names no time is not overloaded: our own pause does.
        let alone = alone.filter(|time| status == 429 || time.is_some());
        let message = format!("{endpoint} answered with HTTP {status}{said}");
        let error = if passes {
            Error::new(ErrorKind::Io, "TB0603", message).with_retryable(true)
        } else {
            let error = Error::new(ErrorKind::Inference, "TB0602", message).with_retryable(false);
            match status {
                300..=399 => error.with_help("redirects are not followed: name the address that it leads to"),
                401 | 403 => {
                    error.with_help("the key or token is missing, wrong, or has no right to this model")
                }
                404 => error.with_help("look at the address and the model's name"),
                _ => error,
            }
        };
        let blames_content = matches!(status, 400 | 413 | 422);
        let is_too_much = status == 429;
        Trouble { error, passes, is_ill: passes && status != 408, blames_content, is_too_much, alone }
    }

    fn late(&self, late: TooLate, attempts: u32, last: Option<Error>) -> Failure {
        let (endpoint, deadline) = (&self.endpoint.name, self.settings.deadline);
        let wait = if late.wait.is_zero() { String::new() } else { format!(" ({:?})", late.wait) };
        let message = format!(
            "{endpoint} gave no answer within the deadline of {deadline:?}{}: {}{wait}",
            Attempts(attempts),
            late.why
        );
        let error = Error::new(ErrorKind::Timeout, "TB0605", message)
            .with_retryable(true)
            .with_help("allow more with `with_deadline`, or ask less often");
        let error = match last {
            Some(last) => error.with_source(last),
            None => error,
        };
        Failure { error, blames_content: false }
    }
}

/// Statuses after which the same request may succeed.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// The error of the last attempt, saying how many there were.
fn after(error: Error, attempts: u32) -> Error {
    if attempts < 2 {
        return error;
    }
    let message = format!("{}{}", error.message(), Attempts(attempts));
    let mut told = Error::new(error.kind(), error.code(), message).with_retryable(error.is_retryable());
    if let Some(help) = error.help() {
        told = told.with_help(help);
    }
    match std::error::Error::source(&error) {
        Some(_) => told.with_source(error),
        None => told,
    }
}
