//! Requests and responses, and secrets that are never shown.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_http::ureq::http::{HeaderMap, Request};
use tiebeam_http::{Client, Fault, Limits};

/// How much of an answer's body an error shows.
const SHOWN: usize = 200;

/// A request for some examples.
#[derive(Clone)]
pub struct RemoteRequest {
    method: &'static str,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    secrets: Vec<String>,
}

impl RemoteRequest {
    /// Asks for what is there.
    pub fn get(url: impl Into<String>) -> Self {
        RemoteRequest {
            method: "GET",
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// Sends JSON.
    pub fn post_json(url: impl Into<String>, body: Vec<u8>) -> Self {
        let request = RemoteRequest { method: "POST", body, ..RemoteRequest::get(url) };
        request.header("content-type", "application/json")
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a header whose value appears in no error, even if the server says it.
    #[must_use]
    pub fn secret_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let value = value.into();
        if let Some((_, token)) = value.split_once(' ') {
            self.secrets.push(token.to_owned());
        }
        self.secrets.push(value.clone());
        self.header(name, value)
    }

    /// With the header `authorization: Bearer …`.
    #[must_use]
    pub fn bearer(self, token: Option<String>) -> Self {
        match token {
            Some(token) => self.secret_header("authorization", format!("Bearer {token}")),
            None => self,
        }
    }

    /// Where it goes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it says.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Text of the server's without the request's secrets.
    pub(crate) fn scrubbed(&self, text: &str) -> String {
        // What is shorter is no secret, but may be a part of any word.
        let secrets = self.secrets.iter().filter(|secret| secret.len() > 3);
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "[secret]"))
    }

    /// The beginning of a body, in one line.
    pub(crate) fn excerpt(&self, body: &[u8]) -> String {
        // Far more than is shown, so that no secret is cut in two; and no more, for bodies of many megabytes.
        let longest = self.secrets.iter().map(String::len).max().unwrap_or(0);
        let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN * 4 + longest)]).into_owned();
        let text = self.scrubbed(&text);
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut printable = line.chars().filter(|c| !c.is_control());
        let mut shown: String = printable.by_ref().take(SHOWN).collect();
        if printable.next().is_some() {
            shown.push('…');
        }
        shown
    }
}

impl fmt::Debug for RemoteRequest {
    /// Headers and bodies may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)
    }
}

/// What an endpoint answered.
#[derive(Clone)]
pub struct RemoteResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl RemoteResponse {
    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header, where it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The whole body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none. A body that merely ends too early may be whole the next time, and is asked for again.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            unreadable(format!("the answer is not the JSON that was wanted: {error}"))
                .with_retryable(error.is_eof())
        })
    }
}

impl fmt::Debug for RemoteResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteResponse({}, {} bytes)", self.status, self.body.len())
    }
}

/// An answer that says something else than it should, and would again.
pub(crate) fn unreadable(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Inference, "TB0607", message).with_retryable(false)
}

/// An answer that has not one inference for each example. Some servers do that once in a while: it is asked for again.
pub(crate) fn miscounted(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Inference, "TB0606", message).with_retryable(true)
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) fault: Fault,
    pub(crate) said: String,
}

/// What carries requests; tests bring their own.
pub(crate) trait Transport: Send + Sync + 'static {
    /// Sends a request once.
    fn send(
        &self,
        request: &RemoteRequest,
        timeout: Duration,
        longest: u64,
    ) -> Result<RemoteResponse, Unanswered>;
}

impl Transport for Client {
    fn send(
        &self,
        request: &RemoteRequest,
        timeout: Duration,
        longest: u64,
    ) -> Result<RemoteResponse, Unanswered> {
        let mut built = Request::builder().method(request.method).uri(&request.url);
        for (name, value) in &request.headers {
            built = built.header(name, value);
        }
        let built = built
            .body(request.body.clone())
            .map_err(|error| Unanswered { fault: Fault::Lasting, said: error.to_string() })?;
        match Client::send(self, built, timeout, longest) {
            Ok(answer) => {
                Ok(RemoteResponse { status: answer.status, headers: answer.headers, body: answer.body })
            }
            Err(error) => Err(Unanswered { fault: Fault::of(&error), said: error.to_string() }),
        }
    }
}

/// The client under a handler that keeps so many requests in flight.
pub(crate) fn client(connections: usize) -> Arc<dyn Transport> {
    Arc::new(Client::new(&Limits { idle_connections: connections, ..Limits::default() }))
}

/// Where a token comes from.
#[derive(Clone, Default)]
pub(crate) enum Credential {
    #[default]
    None,
    Value(String),
    /// The name of an environment variable.
    Env(String),
    Source(Arc<dyn Fn() -> Result<String> + Send + Sync>),
}

impl Credential {
    /// The token as it is now.
    pub(crate) fn token(&self) -> Result<Option<String>> {
        let missing = |message: String| Error::new(ErrorKind::InvalidArgument, "TB0608", message);
        match self {
            Credential::None => Ok(None),
            Credential::Value(value) => Ok(Some(value.clone())),
            Credential::Env(name) => match std::env::var(name) {
                Ok(value) if !value.trim().is_empty() => Ok(Some(value.trim().to_owned())),
                _ => Err(missing(format!(
                    "the environment variable {name}, which should hold the key, is not set"
                ))),
            },
            Credential::Source(source) => {
                let failed = |error: Error| {
                    let (retryable, help) = (error.is_retryable(), error.help().map(str::to_owned));
                    let missing = missing("no token could be had".to_owned()).with_retryable(retryable);
                    match help {
                        Some(help) => missing.with_help(help).with_source(error),
                        None => missing.with_source(error),
                    }
                };
                source().map(|token| Some(token.trim().to_owned())).map_err(failed)
            }
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Credential::None)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::None => f.write_str("None"),
            Credential::Value(_) => f.write_str("Value([secret])"),
            Credential::Env(name) => write!(f, "Env({name})"),
            Credential::Source(_) => f.write_str("Source"),
        }
    }
}

/// A base address without its last slash: `https`, or plain HTTP where no token goes or where it does not leave this machine.
pub(crate) fn base_url(url: &str, credential: &Credential, plain_http: bool) -> Result<String> {
    let refused = |why: &str| {
        Error::new(ErrorKind::InvalidArgument, "TB0600", format!("the endpoint `{url}` {why}"))
            .with_help("wanted https://HOST/PATH, or http://HOST:PORT/PATH for a server of your own")
    };
    if url.contains(['?', '#', '@']) || url.contains(char::is_whitespace) {
        return Err(refused("is more than a scheme, a host and a path"));
    }
    let (is_plain, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err(refused("is no URL of a service")),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    if host.is_empty() {
        return Err(refused("has no host"));
    }
    if is_plain && !credential.is_none() && !plain_http && !tiebeam_http::is_loopback(host) {
        return Err(refused("would get its key through the network in the clear")
            .with_help("use https, or allow it with `with_plain_http()` where the network is your own"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_shown_by_nothing() {
        let request =
            RemoteRequest::post_json("http://h/x", b"{}".to_vec()).bearer(Some("sk-123".to_owned()));
        assert_eq!(format!("{request:?}"), "POST http://h/x");
        let body = format!("{}invalid key sk-123, Bearer sk-123", " ".repeat(30));
        assert_eq!(request.excerpt(body.as_bytes()), "invalid key [secret], Bearer [secret]");
        let body = format!("{}sk-123", "x".repeat(198));
        assert_eq!(request.excerpt(body.as_bytes()), format!("{}[s…", "x".repeat(198)));
        for credential in [
            Credential::Value("sk-123".to_owned()),
            Credential::Env("NO_SUCH_VARIABLE".to_owned()),
            Credential::Source(Arc::new(|| Ok("sk-123".to_owned()))),
        ] {
            assert!(!format!("{credential:?}").contains("sk-"));
        }
        let error = Credential::Env("TIEBEAM_NO_SUCH_VARIABLE".to_owned()).token().unwrap_err();
        assert_eq!(error.code(), "TB0608");
        assert!(error.message().contains("TIEBEAM_NO_SUCH_VARIABLE"));
    }

    #[test]
    fn an_excerpt_is_one_short_line_of_any_bytes() {
        let request = RemoteRequest::get("http://h");
        assert_eq!(request.excerpt(b"a\n b\x1b[31m\xff"), "a b[31m\u{fffd}");
        assert_eq!(request.excerpt(&[b'x'; 100_000]).chars().count(), 201);
        assert_eq!(request.excerpt(b""), "");
    }

    #[test]
    fn keys_go_over_tls_or_to_this_machine() {
        let key = Credential::Value("k".to_owned());
        for (url, with_key, without) in [
            ("https://api.example/v1/", true, true),
            ("https://h:8443", true, true),
            ("http://127.0.0.1:80/v1", true, true),
            ("http://localhost:1", true, true),
            ("http://[::1]:1", true, true),
            ("http://vllm:8000/v1", false, true),
            ("http://127.0.0.1.example.org", false, true),
            ("", false, false),
            ("h:1", false, false),
            ("ftp://127.0.0.1", false, false),
            ("https://", false, false),
            ("https://:80", false, false),
            ("https://user:pw@h", false, false),
            ("https://h/x?key=1", false, false),
        ] {
            assert_eq!(base_url(url, &key, false).is_ok(), with_key, "{url}");
            assert_eq!(base_url(url, &Credential::None, false).is_ok(), without, "{url}");
            assert_eq!(base_url(url, &key, true).is_ok(), without, "{url}");
        }
        assert_eq!(base_url("https://h/v1//", &key, false).unwrap(), "https://h/v1");
    }
}
