//! The HTTP client of the house: blocking, without an async runtime; TLS with the machine's own roots of trust; bodies under
//! a cap; and failures by what can be done about them.
//!
//! It knows no service: what a status means, what is tried again and when is for whoever asks.

use std::sync::Arc;
use std::time::Duration;

pub use ureq;
use ureq::Agent;
use ureq::http::{HeaderMap, Request, Uri, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// How a client is set up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a connection may take.
    pub connect: Duration,
    /// How long a whole request may take, with its answer, unless the request says otherwise.
    pub total: Duration,
    /// How many connections to a host are kept for the next requests.
    pub idle_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connect: Duration::from_secs(30), total: Duration::from_secs(300), idle_connections: 3 }
    }
}

/// What a server answered, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

/// A client that follows no redirects and sends its requests through the proxy that the environment names, but for those
/// to this machine itself. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    /// For this machine itself, which no proxy leads to.
    direct: Agent,
}

impl Client {
    /// A client within these limits.
    pub fn new(limits: &Limits) -> Self {
        let roots = roots();
        Client { agent: agent_with(limits, true, roots.clone()), direct: agent_with(limits, false, roots) }
    }

    /// Sends one request, once, and reads its answer to the end: at most `longest` bytes, and within `timeout`.
    ///
    /// # Errors
    /// When there is no whole answer; [`Fault::of`] says what that means. A status is never an error.
    pub fn send(
        &self,
        request: Request<Vec<u8>>,
        timeout: Duration,
        longest: u64,
    ) -> Result<Answer, ureq::Error> {
        let agent = if is_here(request.uri()) { &self.direct } else { &self.agent };
        let has_body = !request.body().is_empty();
        let response = if has_body {
            agent.run(agent.configure_request(request).timeout_global(Some(timeout)).build())?
        } else {
            let request = request.map(|_| ());
            agent.run(agent.configure_request(request).timeout_global(Some(timeout)).build())?
        };
        let (head, body) = response.into_parts();
        let told =
            head.headers.get(header::CONTENT_LENGTH).and_then(|told| told.to_str().ok()?.parse::<u64>().ok());
        if told.is_some_and(|told| told > longest) {
            // Not a byte of it is read: the connection is closed.
            return Err(ureq::Error::BodyExceedsLimit(longest));
        }
        // One byte more, so that a body of just that length is whole.
        let body = body.into_with_config().limit(longest.saturating_add(1)).read_to_vec()?;
        if body.len() as u64 > longest {
            return Err(ureq::Error::BodyExceedsLimit(longest));
        }
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }
}

/// Why a request has no answer, by what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The server could not be reached: nothing was sent.
    Unreachable,
    /// The connection broke, or the answer ended before its end.
    BrokenOff,
    /// It took too long.
    TimedOut,
    /// The body is longer than allowed.
    TooLong,
    /// The request, or the trust between the two: the same once more will fail the same way.
    Lasting,
}

impl Fault {
    /// What an error of [`Client::send`] means.
    pub fn of(error: &ureq::Error) -> Fault {
        use ureq::Error as E;
        match error {
            E::Timeout(_) => Fault::TimedOut,
            E::ConnectionFailed | E::HostNotFound | E::ConnectProxyFailed(_) => Fault::Unreachable,
            E::Io(error) => match error.kind() {
                std::io::ErrorKind::ConnectionRefused
                | std::io::ErrorKind::AddrNotAvailable
                | std::io::ErrorKind::HostUnreachable
                | std::io::ErrorKind::NetworkUnreachable => Fault::Unreachable,
                std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => Fault::TimedOut,
                // A certificate that is not trusted, a protocol that both don't speak.
                _ if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => Fault::Lasting,
                _ => Fault::BrokenOff,
            },
            E::Protocol(_) | E::BodyStalled => Fault::BrokenOff,
            E::BodyExceedsLimit(_) => Fault::TooLong,
            _ => Fault::Lasting,
        }
    }
}

/// An agent with the house's settings, for what needs more than [`Client`]: it follows no redirects, and gives every status
/// as an answer.
pub fn agent(limits: &Limits, proxy: bool) -> Agent {
    agent_with(limits, proxy, roots())
}

fn roots() -> Arc<Vec<Certificate<'static>>> {
    let found = rustls_native_certs::load_native_certs().certs;
    Arc::new(found.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).collect())
}

fn agent_with(limits: &Limits, proxy: bool, roots: Arc<Vec<Certificate<'static>>>) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .allow_non_standard_methods(true)
        .max_idle_connections(limits.idle_connections.max(10))
        .max_idle_connections_per_host(limits.idle_connections)
        .timeout_connect(Some(limits.connect))
        .timeout_global(Some(limits.total))
        .user_agent(concat!("tiebeam/", env!("CARGO_PKG_VERSION")));
    let config = if proxy { config } else { config.proxy(None) };
    config.build().new_agent()
}

/// Whether a host is this machine itself.
pub fn is_loopback(host: &str) -> bool {
    matches!(host, "127.0.0.1" | "localhost" | "[::1]")
}

fn is_here(uri: &Uri) -> bool {
    uri.host().is_some_and(is_loopback)
}

/// Text as one segment of a path or as a value in a query.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A server that answers one request with these bytes and closes the connection.
    fn answering(bytes: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = [0; 4096];
            let _ = stream.read(&mut seen);
            let _ = stream.write_all(bytes);
        });
        url
    }

    fn get(url: &str, longest: u64) -> Result<Answer, Fault> {
        let client = Client::new(&Limits::default());
        let request = Request::get(url).body(Vec::new()).unwrap();
        client.send(request, Duration::from_secs(20), longest).map_err(|error| Fault::of(&error))
    }

    #[test]
    fn every_status_is_an_answer() {
        let url = answering(b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno");
        let answer = get(&url, 100).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (503, b"no".as_slice()));
        assert_eq!(answer.headers["retry-after"], "7");
        let url =
            answering(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(get(&url, 100).unwrap().status, 302);
    }

    #[test]
    fn a_body_is_read_whole_or_not_at_all() {
        assert_eq!(
            get(&answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"), 100).unwrap_err(),
            Fault::BrokenOff
        );
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n";
        assert_eq!(get(&answering(chunked), 100).unwrap_err(), Fault::BrokenOff);
        assert_eq!(get(&answering(b"HTTP/1.1 200 OK\r\n\r\n12345"), 5).unwrap().body, b"12345");
        assert_eq!(get(&answering(b"HTTP/1.1 200 OK\r\n\r\n123456"), 5).unwrap_err(), Fault::TooLong);
        let huge = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n1";
        assert_eq!(get(&answering(huge), 1 << 20).unwrap_err(), Fault::TooLong);
    }

    #[test]
    fn a_server_that_is_not_there_is_told_from_one_that_hangs_up() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(get(&format!("http://{free}/"), 5).unwrap_err(), Fault::Unreachable);
        assert_eq!(get(&answering(b""), 5).unwrap_err(), Fault::BrokenOff);
        assert_eq!(get(&answering(b"SSH-2.0-x\r\n"), 5).unwrap_err(), Fault::BrokenOff);
        assert_eq!(get("gopher://127.0.0.1:1/", 5).unwrap_err(), Fault::Lasting);
    }

    #[test]
    fn text_is_escaped_byte_by_byte() {
        assert_eq!(escaped("a/b c+d%é~"), "a%2Fb%20c%2Bd%25%C3%A9~");
    }
}
