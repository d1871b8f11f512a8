//! The one HTTP client under all object stores: blocking, on threads of the runtime's own, with time limits.
//!
//! Bodies are read whole before anything above sees them: readers ask for ranges of a few MiB, so that one that breaks off is
//! a request that failed, and is made again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use tiebeam_http::ureq::http::{Method, Request, Response, Uri, header, request, response};
use tiebeam_http::ureq::{self, Agent};
use tiebeam_http::{Fault, Limits, is_loopback};

use super::Settings;

/// No body that is longer is read: ranges and pages of listings are shorter. A server without ranges gives whole files.
const LONGEST_BODY: u64 = 256 << 20;
/// How often a web server may send us on.
const MOST_REDIRECTS: usize = 5;

/// Makes clients that keep to the settings.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    service: Service,
}

impl Connector {
    /// For a store of a cloud, which never redirects, or for web servers, which may to hosts on the list.
    pub(super) fn new(settings: &Settings, web: bool) -> Connector {
        let allowed = web.then(|| settings.https_hosts.clone());
        let (agent, direct) = (agent(settings.timeout, true), agent(settings.timeout, false));
        Connector { service: Service { agent, direct, allowed } }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.service.clone()))
    }
}

#[derive(Clone)]
struct Service {
    agent: Agent,
    /// For this machine itself and a cloud's own address within it, which no proxy leads to.
    direct: Agent,
    /// The hosts that a redirect may lead to; none follows none.
    allowed: Option<Arc<[String]>>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let service = self.clone();
        let done = tokio::task::spawn_blocking(move || service.run(request)).await;
        done.unwrap_or_else(|e| Err(HttpError::new(HttpErrorKind::Unknown, e)))
    }
}

impl Service {
    fn run(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (mut head, body) = request.into_parts();
        let bytes = match body.as_bytes() {
            Some(bytes) => bytes.to_vec(),
            None => gathered(body)?,
        };
        let mut hops = 0;
        loop {
            let (status, body) = self.once(&head, &bytes)?;
            let next = self.redirected(&head.uri, &status, hops)?;
            let Some(next) = next.filter(|_| matches!(head.method, Method::GET | Method::HEAD)) else {
                return Ok(Response::from_parts(status, body));
            };
            head.uri = next;
            // Hosts that we are sent on to are not those that a credential is for.
            head.headers.remove(header::AUTHORIZATION);
            head.headers.remove(header::COOKIE);
            hops += 1;
        }
    }

    fn once(
        &self,
        head: &request::Parts,
        bytes: &[u8],
    ) -> Result<(response::Parts, HttpResponseBody), HttpError> {
        let mut request = Request::builder().method(head.method.clone()).uri(head.uri.clone());
        for (name, value) in &head.headers {
            // The client says these itself, by the body and the address.
            if name != header::CONTENT_LENGTH && name != header::HOST {
                request = request.header(name, value);
            }
        }
        let agent = if is_near(head.uri.host().unwrap_or_default()) { &self.direct } else { &self.agent };
        let sends = !bytes.is_empty() || matches!(head.method, Method::PUT | Method::POST);
        let sent = match sends {
            true => request.body(bytes).map_err(ureq::Error::from).and_then(|r| agent.run(r)),
            false => request.body(()).map_err(ureq::Error::from).and_then(|r| agent.run(r)),
        };
        let failed = |error| failed(error, is_removal(head));
        let (parts, body) = sent.map_err(failed)?.into_parts();
        let body = match head.method == Method::HEAD {
            true => Vec::new(),
            false => body.into_with_config().limit(LONGEST_BODY).read_to_vec().map_err(failed)?,
        };
        Ok((parts, HttpResponseBody::from(body)))
    }

    /// Where a web server sends us, if it does.
    fn redirected(
        &self,
        from: &Uri,
        answer: &response::Parts,
        hops: usize,
    ) -> Result<Option<Uri>, HttpError> {
        let Some(allowed) = &self.allowed else { return Ok(None) };
        if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let refused = |why: String| HttpError::new(HttpErrorKind::Unknown, Refused(why));
        if hops == MOST_REDIRECTS {
            return Err(refused(format!("more than {MOST_REDIRECTS} redirects")));
        }
        let Some(location) = answer.headers.get(header::LOCATION).and_then(|l| l.to_str().ok()) else {
            return Ok(None);
        };
        let origin = format!(
            "{}://{}",
            from.scheme_str().unwrap_or("https"),
            from.authority().map_or("", |a| a.as_str())
        );
        let target = match location.starts_with('/') && !location.starts_with("//") {
            true => format!("{origin}{location}"),
            false => location.to_owned(),
        };
        let uri: Uri = target.parse().map_err(|_| refused("a redirect to what is no URL".into()))?;
        let shown = uri.authority().map_or("", |a| a.as_str()).rsplit('@').next().unwrap_or_default();
        match uri.scheme_str() {
            Some(scheme @ ("http" | "https")) if is_allowed(scheme, shown, allowed) => Ok(Some(uri)),
            scheme => Err(refused(format!(
                "a redirect to {}://{shown}, which is not allowed",
                scheme.unwrap_or("?")
            ))),
        }
    }
}

/// Whether files may be had from that host: it is on the list, and plain HTTP leads to this machine only.
pub(super) fn is_allowed(scheme: &str, authority: &str, hosts: &[String]) -> bool {
    let authority = authority.to_ascii_lowercase();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => &authority,
    };
    let near = is_loopback(host);
    if scheme.eq_ignore_ascii_case("http") && !near {
        return false;
    }
    hosts.iter().any(|allowed| match allowed.strip_prefix("*.") {
        Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => *allowed == authority || allowed == host,
    })
}

fn is_near(host: &str) -> bool {
    is_loopback(host)
        || matches!(host, "169.254.169.254" | "169.254.170.2" | "metadata.google.internal" | "metadata")
}

#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// A body in several pieces, as large uploads have.
fn gathered(body: object_store::client::HttpRequestBody) -> Result<Vec<u8>, HttpError> {
    use futures_util::StreamExt;
    let mut stream = HttpResponseBody::new(body).bytes_stream();
    futures_util::FutureExt::now_or_never(async {
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    })
    .unwrap_or_else(|| Err(HttpError::new(HttpErrorKind::Unknown, Refused("a body was not ready".into()))))
}

/// Whether a request takes something away. Done twice it is as done once, which `object_store` does not assume.
fn is_removal(head: &request::Parts) -> bool {
    head.method == Method::DELETE || (head.method == Method::POST && head.uri.query() == Some("delete"))
}

/// What may be tried again: what broke off or took too long, not what will be the same once more.
fn failed(error: ureq::Error, is_removal: bool) -> HttpError {
    let kind = match Fault::of(&error) {
        // The kind for what was not sent: that is made again whatever the method.
        Fault::TimedOut | Fault::BrokenOff if is_removal => HttpErrorKind::Request,
        Fault::TimedOut => HttpErrorKind::Timeout,
        Fault::Unreachable => HttpErrorKind::Connect,
        Fault::BrokenOff => HttpErrorKind::Interrupted,
        Fault::TooLong | Fault::Lasting => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}

fn agent(timeout: Duration, proxy: bool) -> Agent {
    let connect = timeout.min(Duration::from_secs(30));
    tiebeam_http::agent(&Limits { connect, total: timeout, ..Limits::default() }, proxy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_on_the_list_are_allowed() {
        let hosts: Vec<String> =
            ["example.org", "*.cdn.net", "127.0.0.1:80", "localhost"].map(Into::into).to_vec();
        for (scheme, authority, wanted) in [
            ("https", "example.org", true),
            ("https", "EXAMPLE.org", true),
            ("https", "example.org:8443", true),
            ("https", "a.example.org", false),
            ("https", "example.org.evil.net", false),
            ("https", "a.cdn.net", true),
            ("https", "a.b.cdn.net", true),
            ("https", "cdn.net", false),
            ("https", "evilcdn.net", false),
            ("https", ".cdn.net", false),
            ("http", "example.org", false),
            ("http", "a.cdn.net", false),
            ("http", "127.0.0.1:80", true),
            ("http", "127.0.0.1:81", false),
            ("http", "localhost:7", true),
            ("https", "", false),
        ] {
            assert_eq!(is_allowed(scheme, authority, &hosts), wanted, "{scheme}://{authority}");
        }
    }
}
