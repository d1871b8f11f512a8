//! As much HTTP as a status page needs: one GET a connection, both ways.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use tiebeam_core::{Error, ErrorKind, Result};

/// The longest head of a request, and how long a client may take for it.
const LONGEST_HEAD: usize = 8 << 10;
const PATIENCE: Duration = Duration::from_secs(5);

/// A request that was read.
pub(super) struct Request {
    pub(super) path: String,
    query: Vec<(String, String)>,
}

impl Request {
    /// Reads one. What is no GET to this machine's own name is answered at once.
    pub(super) fn read(stream: &mut TcpStream) -> Result<Request, Response> {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let mut head = Vec::new();
        let mut chunk = [0; 1024];
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut chunk) {
                Ok(n @ 1..) if head.len() + n <= LONGEST_HEAD => head.extend_from_slice(&chunk[..n]),
                Ok(1..) => return Err(Response::text(431, "the request is too long")),
                _ => return Err(Response::text(400, "the request ended early")),
            }
        }
        Request::of(&String::from_utf8_lossy(&head))
    }

    fn of(head: &str) -> Result<Request, Response> {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if method != "GET" {
            return Err(Response::text(405, "only GET"));
        }
        let host =
            lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("host"));
        // A page from elsewhere whose name leads to this machine must not read what is here.
        if !host.is_some_and(|(_, host)| is_this_machine(host.trim())) {
            return Err(Response::text(403, "ask by the address 127.0.0.1"));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        Ok(Request { path: decoded(path), query: pairs.map(pair).collect() })
    }

    /// A parameter of the query.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Percent-decoded, as far as it is right.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Percent-encoded, for a query.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// An answer.
pub(super) struct Response {
    code: u16,
    kind: &'static str,
    body: String,
}

impl Response {
    pub(super) fn text(code: u16, body: &str) -> Response {
        Response { code, kind: "text/plain; charset=utf-8", body: format!("{body}\n") }
    }

    pub(super) fn json(code: u16, body: &Value) -> Response {
        Response { code, kind: "application/json", body: format!("{body}\n") }
    }

    pub(super) fn html(body: &str) -> Response {
        Response { code: 200, kind: "text/html; charset=utf-8", body: body.to_owned() }
    }

    /// Sends it. A client that went away is nobody's problem.
    pub(super) fn send(&self, stream: &mut TcpStream) {
        let Response { code, kind, body } = self;
        let reason = if *code == 200 { "OK" } else { "No" };
        let head = format!(
            "HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Content-Security-Policy: default-src 'self' 'unsafe-inline'\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
}

fn unreachable_job(address: SocketAddr, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, "TB0599", format!("no job answers at {address}: {why}"))
        .with_help("jobs that were started with `--ui` answer as long as they run; `tiebeam top` lists them")
}

/// Asks the page of a running job, which may wait that long before it answers: the code and the body of the answer.
///
/// # Errors
/// When nothing answers there, or not in HTTP.
pub fn get(address: SocketAddr, path: &str, query: &[(&str, &str)], wait: Duration) -> Result<(u16, String)> {
    let failed = |error: std::io::Error| unreachable_job(address, error);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
    stream.set_read_timeout(Some(wait + PATIENCE * 3)).map_err(failed)?;
    let query: Vec<String> =
        query.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let request = format!("GET {path}{mark}{} HTTP/1.1\r\nHost: {address}\r\n\r\n", query.join("&"));
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(64 << 20).read_to_end(&mut answer).map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some((code, body.to_owned()))
    });
    parsed.ok_or_else(|| unreachable_job(address, "what listens there speaks no HTTP"))
}

/// The same, of an answer in JSON.
///
/// # Errors
/// As [`get`], and when the answer is no JSON.
pub fn json_at(
    address: SocketAddr,
    path: &str,
    query: &[(&str, &str)],
    wait: Duration,
) -> Result<(u16, Value)> {
    let (code, body) = get(address, path, query, wait)?;
    let value = serde_json::from_str(&body)
        .map_err(|_| unreachable_job(address, "what listens there is no job of tiebeam's"))?;
    Ok((code, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read() {
        let Ok(request) = Request::of("GET /tap?step=A%2FB+c&n=3 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n")
        else {
            panic!("refused")
        };
        assert_eq!((request.path.as_str(), request.value("step").as_deref()), ("/tap", Some("A/B c")));
        assert_eq!((request.value("n").as_deref(), request.value("m")), (Some("3"), None));
        assert_eq!(decoded("%zz%4"), "%zz%4");
        assert_eq!(decoded(&encoded("Ü b/&=%")), "Ü b/&=%");
    }

    #[test]
    fn strangers_are_refused() {
        let code = |head: &str| Request::of(head).map_or_else(|response| response.code, |_| 200);
        assert_eq!(code("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n"), 405);
        assert_eq!(code("GET / HTTP/1.1\r\n\r\n"), 403);
        assert_eq!(code("GET / HTTP/1.1\r\nHost: evil.example:4040\r\n\r\n"), 403);
        assert_eq!(code("GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n"), 403);
        for host in ["localhost:1", "127.0.0.1", "[::1]:4040", "LOCALHOST"] {
            assert_eq!(code(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), 200, "{host}");
        }
        assert_eq!(code(""), 405);
    }
}
