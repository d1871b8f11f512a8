//! HTTP to Google's services: one blocking client, retries with backoff, and what its refusals mean.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tiebeam_core::{Error, ErrorKind, Result};
pub(crate) use tiebeam_http::escaped;
use tiebeam_http::ureq::http::{HeaderMap, Request, Uri};
use tiebeam_http::ureq::{self, Agent};
use tiebeam_http::{Fault, Limits, is_loopback};

use crate::clock::{Clock, since_epoch};

/// How often a request is tried.
const TRIES: u32 = 7;
/// The first pause; each one is twice the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// No pause is longer, even if the service asks for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// No answer of these services is longer: one page of messages, one job.
const LONGEST_ANSWER: u64 = 64 << 20;

/// A request.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<Vec<u8>>,
}

impl Call {
    pub(crate) fn new(method: &'static str, url: String) -> Call {
        Call { method, url, headers: Vec::new(), body: None }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn json(self, body: &Value) -> Call {
        self.header("content-type", "application/json; charset=UTF-8").bytes(body.to_string().into_bytes())
    }

    pub(crate) fn bytes(mut self, body: Vec<u8>) -> Call {
        self.body = Some(body);
        self
    }
}

impl fmt::Debug for Call {
    /// Headers and bodies may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)
    }
}

/// What a service answered, whatever its status.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Its JSON.
    pub(crate) fn json(&self, what: &str) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::new(ErrorKind::Io, "TB0769", format!("the answer to {what} cannot be read as JSON"))
                .with_source(error)
        })
    }

    /// Whether the same request may succeed later.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504)
    }

    /// How long the service asks to be left alone. It may also name a date, which is not worth reading.
    fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after")?.trim().parse().ok().map(Duration::from_secs)
    }

    /// The service's own words, from either form of Google's errors.
    pub(crate) fn words(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let said = body["error"]["message"].as_str().or_else(|| body["error_description"].as_str());
        let said = said.or_else(|| body["error"].as_str()).map(str::to_owned);
        let said = said.unwrap_or_else(|| String::from_utf8_lossy(&self.body).into_owned());
        let short: String = said.trim().chars().take(2000).collect();
        if short.is_empty() {
            format!("HTTP {}", self.status)
        } else {
            format!("HTTP {}: {short}", self.status)
        }
    }

    /// What a refusal means.
    pub(crate) fn refusal(&self, what: &str) -> Error {
        let words = self.words();
        let error = |kind, code, help: &str| {
            Error::new(kind, code, format!("{what} was refused: {words}")).with_help(help)
        };
        match self.status {
            401 => error(
                ErrorKind::Io,
                "TB0763",
                "the token is not valid, or not any more: see docs/engines/dataflow.md for where it is taken from",
            ),
            403 => error(
                ErrorKind::Io,
                "TB0764",
                "the account lacks a role, such as roles/dataflow.developer for jobs and roles/storage.objectAdmin for the \
                 bucket, or the API is not enabled in the project",
            ),
            404 => error(
                ErrorKind::NotFound,
                "TB0765",
                "look at `project`, `region` and the bucket's name; a bucket has to exist before the job",
            ),
            _ if self.is_passing() => {
                error(ErrorKind::Io, "TB0768", "the service is busy or ill: try again later")
                    .with_retryable(true)
            }
            _ => error(ErrorKind::InvalidArgument, "TB0767", "the service's own words follow the status"),
        }
    }
}

/// The client.
pub(crate) struct Http {
    agent: Agent,
    /// For this machine itself, which no proxy leads to.
    direct: Agent,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Http {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Http {
        let far = Duration::from_secs(30);
        Http { agent: agent(far, true), direct: agent(far, false), clock }
    }

    /// One for the metadata server: it answers at once or is not there, and is never behind a proxy.
    pub(crate) fn near(clock: Arc<dyn Clock>) -> Http {
        let agent = agent(Duration::from_secs(1), false);
        Http { direct: agent.clone(), agent, clock }
    }

    /// One try; whatever status comes back is an answer.
    pub(crate) fn once(&self, call: &Call) -> Result<Answer, ureq::Error> {
        let mut request = Request::builder().method(call.method).uri(call.url.as_str());
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let is_here = call.url.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(is_loopback));
        let agent = if is_here { &self.direct } else { &self.agent };
        let response = match &call.body {
            Some(body) => agent.run(request.body(body.as_slice())?)?,
            None => agent.run(request.body(())?)?,
        };
        let (head, body) = response.into_parts();
        let body = body.into_with_config().limit(LONGEST_ANSWER).read_to_vec()?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// Tries until there is an answer that will not change by itself. For requests that may be made twice.
    pub(crate) fn call(&self, what: &str, call: &Call) -> Result<Answer> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let tried = self.once(call);
            let wanted = match &tried {
                Ok(answer) if answer.is_passing() => answer.retry_after(),
                Ok(_) => None,
                Err(error) if is_fatal(error) => return Err(unreachable(what, call, tried.err())),
                Err(_) => None,
            };
            match tried {
                Ok(answer) if !answer.is_passing() || attempt == TRIES => return Ok(answer),
                Err(error) if attempt == TRIES => return Err(unreachable(what, call, Some(error))),
                _ => {}
            }
            self.clock.sleep(wanted.map_or_else(|| self.spread(pause), |wanted| wanted.min(LONGEST_PAUSE)));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(Error::internal("a request was never tried"))
    }

    /// Up to a quarter more, so that clients that failed together do not come back together.
    fn spread(&self, pause: Duration) -> Duration {
        let nanos = since_epoch(&*self.clock).subsec_nanos();
        pause + pause.mul_f64(f64::from(nanos) / 4e9)
    }
}

/// Failures that the same request will meet again.
fn is_fatal(error: &ureq::Error) -> bool {
    matches!(Fault::of(error), Fault::Lasting | Fault::TooLong)
}

fn unreachable(what: &str, call: &Call, error: Option<ureq::Error>) -> Error {
    let host = call.url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let failed = Error::new(ErrorKind::Io, "TB0768", format!("{what} failed: {host} cannot be reached"))
        .with_retryable(true);
    match error {
        Some(error) => failed.with_source(error),
        None => failed,
    }
}

/// It follows no redirects: 308 is how an upload says `go on`; nothing else of these services redirects.
fn agent(connect: Duration, proxy: bool) -> Agent {
    tiebeam_http::agent(&Limits { connect, total: connect * 10, ..Limits::default() }, proxy)
}

/// Refuses an address to which a token must not be sent: plain HTTP leads only to this machine.
pub(crate) fn safe_endpoint(option: &str, url: &str) -> Result<String> {
    let refused = |why: &str| {
        Error::new(ErrorKind::InvalidArgument, "TB0771", format!("`{option}={url}` {why}"))
            .with_help("wanted https://HOST, or http://127.0.0.1:PORT for a fake on this machine")
    };
    let uri: Uri = url.parse().map_err(|_| refused("is no URL"))?;
    let host = uri.host().unwrap_or_default();
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) || uri.query().is_some() {
        return Err(refused("is more than a scheme, a host and a path"));
    }
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => {}
        Some("http") if is_loopback(host) => {}
        Some("http") => return Err(refused("would send a token through the network in the clear")),
        _ => return Err(refused("is no URL of a service")),
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// Whether an address that a service gave for an upload is one that a file may go to.
pub(crate) fn safe_session(url: &str) -> bool {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    safe_endpoint("location", bare).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_over_tls_or_to_this_machine() {
        for url in
            ["https://dataflow.example", "https://h:8443/a/", "http://127.0.0.1:80", "http://localhost:1/x"]
        {
            assert_eq!(safe_endpoint("e", url).unwrap(), url.trim_end_matches('/'), "{url}");
        }
        for url in [
            "",
            "h:1",
            "http://example.org",
            "http://127.0.0.1.example.org",
            "ftp://127.0.0.1",
            "https://user:pw@h",
            "https://h?x=y",
        ] {
            assert_eq!(safe_endpoint("e", url).unwrap_err().code(), "TB0771", "{url}");
        }
    }

    #[test]
    fn errors_are_read_in_all_forms() {
        let words = |body: &str| {
            Answer { status: 400, headers: HeaderMap::new(), body: body.as_bytes().to_vec() }.words()
        };
        assert_eq!(words(r#"{"error":{"code":400,"message":"bad name"}}"#), "HTTP 400: bad name");
        assert_eq!(words(r#"{"error":"invalid_grant","error_description":"expired"}"#), "HTTP 400: expired");
        assert_eq!(words(r#"{"error":"invalid_grant"}"#), "HTTP 400: invalid_grant");
        assert_eq!(words("<html>"), "HTTP 400: <html>");
        assert_eq!(words(""), "HTTP 400");
    }
}
