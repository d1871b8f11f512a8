//! A real HTTP server (axum, two threads, loopback) that misbehaves as it is told: it resets connections, hangs, breaks
//! answers off, promises gigabytes. It writes down every request with the time of its arrival.

#![allow(dead_code)] // each test program uses its own part of it

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Instant,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
    /// The number of its connection.
    pub connection: usize,
}

/// What is done with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// The connection is reset without an answer.
    Reset,
    /// The connection ends after that many bytes of the answer, head and all.
    Cut(usize, Vec<u8>),
    /// Nothing, for ever.
    Hang,
    /// A body that is promised to have that many bytes.
    Promise(u64),
}

impl Reply {
    pub fn json(body: impl Into<Vec<u8>>) -> Reply {
        Reply::of(200, body)
    }

    pub fn of(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        let headers = vec![("content-type", "application/json".to_owned())];
        Reply::Answer { status, headers, body: body.into() }
    }

    pub fn with(self, name: &'static str, value: impl Into<String>) -> Reply {
        match self {
            Reply::Answer { status, mut headers, body } => {
                headers.push((name, value.into()));
                Reply::Answer { status, headers, body }
            }
            other => other,
        }
    }
}

type Behaviour = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Shared {
    behaviour: Box<Behaviour>,
    seen: Mutex<Vec<Seen>>,
}

/// The server; it goes when this goes.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl Server {
    pub fn start(behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shared = Arc::new(Shared { behaviour: Box::new(behaviour), seen: Mutex::default() });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .fallback(answer)
            .with_state(shared.clone())
            .into_make_service_with_connect_info::<Fate>();
        runtime.spawn(async move { axum::serve(Wires { listener, next: 0 }, app).await });
        Server { address, shared, _runtime: runtime }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far, as they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(fate): ConnectInfo<Fate>,
    request: Request,
) -> Response {
    let at = Instant::now();
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let seen = Seen { at, path: head.uri.path().to_owned(), headers, body, connection: fate.number };
    shared.seen.lock().unwrap().push(seen.clone());
    match (shared.behaviour)(&seen) {
        Reply::Answer { status, headers, body } => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
        Reply::Reset => {
            fate.resets.store(true, Ordering::SeqCst);
            fate.bytes.store(0, Ordering::SeqCst);
            Response::new(Body::empty())
        }
        Reply::Cut(bytes, body) => {
            fate.bytes.store(bytes, Ordering::SeqCst);
            Response::new(Body::from(body))
        }
        Reply::Hang => std::future::pending().await,
        Reply::Promise(bytes) => {
            // What is sent is short; the connection then waits for the rest, which never comes.
            fate.bytes.store(400, Ordering::SeqCst);
            Response::builder().header("content-length", bytes).body(Body::from_stream(Endless)).unwrap()
        }
    }
}

/// A body without an end.
struct Endless;

impl futures_core::Stream for Endless {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(Some(Ok(Bytes::from_static(&[b' '; 4096]))))
    }
}

/// What becomes of a connection: the bytes that may still be written to it.
#[derive(Debug, Clone)]
struct Fate {
    bytes: Arc<AtomicUsize>,
    /// Whether it ends with a reset.
    resets: Arc<AtomicBool>,
    number: usize,
}

impl Connected<IncomingStream<'_, Wires>> for Fate {
    fn connect_info(stream: IncomingStream<'_, Wires>) -> Self {
        stream.io().fate.clone()
    }
}

struct Wires {
    listener: TcpListener,
    next: usize,
}

impl Listener for Wires {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        loop {
            if let Ok((stream, address)) = self.listener.accept().await {
                let _ = stream.set_nodelay(true);
                self.next += 1;
                let bytes = Arc::new(AtomicUsize::new(usize::MAX));
                let fate = Fate { bytes, resets: Arc::default(), number: self.next };
                return (Wire { stream, fate }, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that can be cut off.
struct Wire {
    stream: TcpStream,
    fate: Fate,
}

impl Wire {
    fn broken() -> io::Error {
        io::ErrorKind::BrokenPipe.into()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let left = self.fate.bytes.load(Ordering::SeqCst);
        if left == usize::MAX {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        if left == 0 {
            return Poll::Ready(Err(Wire::broken()));
        }
        let n = bytes.len().min(left);
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[..n]))?;
        self.fate.bytes.store(left - written, Ordering::SeqCst);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.fate.bytes.load(Ordering::SeqCst) == usize::MAX {
            return Pin::new(&mut self.stream).poll_shutdown(cx);
        }
        Poll::Ready(Err(Wire::broken()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.fate.resets.load(Ordering::SeqCst) {
            let _ = self.stream.set_zero_linger();
        }
    }
}
