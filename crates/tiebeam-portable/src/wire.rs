//! gRPC as this crate uses it: one runtime a process, channels without the default message limits, the worker's id on
//! every call.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tiebeam_core::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::guard::{Bearer, Credentials};

/// How long a server may take to answer its door; engines that have just been started need some seconds.
const CONNECT: Duration = Duration::from_secs(30);
/// The window of a stream: several messages of the size that engines send.
const WINDOW: u32 = 16 << 20;
/// A Java engine puts its stack traces into the trailers.
const HEADERS: u32 = 8 << 20;
/// Threads for bundles: engines say how many run at once, this only stops a runaway.
const BUNDLES: usize = 1024;

/// The runtime that all connections of this process share. User code never runs on its own threads, only on those for
/// blocking work.
///
/// # Errors
/// When the system gives no threads.
pub(crate) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(BUNDLES)
            .thread_name("tiebeam-wire")
            .enable_all()
            .build()
    });
    made.as_ref().map_err(|error| {
        Error::new(ErrorKind::Io, "TB0701", format!("no threads for network connections: {error}"))
    })
}

/// A connection that brings the token of this process's environment, if it goes by TLS.
pub(crate) type Wire = InterceptedService<Channel, Bearer>;

/// A connection of a client to a service that a person named: `host:port`, or by TLS `https://host:port`.
///
/// # Errors
/// As [`connect`]; when the token or the certificates of the environment can't be used.
pub(crate) async fn connect_client(what: &str, address: &str) -> Result<Wire> {
    connect_as(what, address, &Credentials::of_environment()?).await
}

pub(crate) async fn connect_as(what: &str, address: &str, credentials: &Credentials) -> Result<Wire> {
    let bearer = credentials.bearer(address.starts_with("https://"))?;
    Ok(InterceptedService::new(connected(what, address, credentials).await?, bearer))
}

/// As [`connect_client`], for calls that say who asks.
pub(crate) async fn connect_worker(what: &str, address: &str, id: &str) -> Result<(Channel, Identity)> {
    let credentials = Credentials::of_environment()?;
    let bearer = credentials.bearer(address.starts_with("https://"))?;
    let channel = connected(what, address, &credentials).await?;
    Ok((channel, Identity { bearer, ..Identity::of_worker(id)? }))
}

/// A channel to an engine's `host:port`; it is connected when this returns.
///
/// # Errors
/// When the address is none, or nobody answers there.
pub(crate) async fn connect(what: &str, address: &str) -> Result<Channel> {
    connected(what, address, &Credentials::default()).await
}

async fn connected(what: &str, address: &str, credentials: &Credentials) -> Result<Channel> {
    let failed = |error: tonic::transport::Error| {
        Error::new(ErrorKind::Io, "TB0702", format!("{what} cannot be reached at `{address}`"))
            .with_source(Chain(error.to_string(), std::error::Error::source(&error).map(ToString::to_string)))
            .with_help(format!("is it running, and is `{address}` its address? wanted is host:port"))
    };
    let secure = address.strip_prefix("https://");
    let plain = secure.unwrap_or(address).trim_start_matches("http://").trim_start_matches("ipv4:");
    let scheme = if secure.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{plain}")).map_err(failed)?;
    if secure.is_some() {
        endpoint = endpoint.tls_config(credentials.tls()?).map_err(failed)?;
    }
    endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_max_header_list_size(HEADERS)
        .connect()
        .await
        .map_err(failed)
}

/// An error's text with its cause: what a transport error says itself is too little.
#[derive(Debug)]
struct Chain(String, Option<String>);

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.1 {
            Some(cause) => write!(f, "{}: {cause}", self.0),
            None => f.write_str(&self.0),
        }
    }
}

impl std::error::Error for Chain {}

/// Puts the worker's id on every call.
#[derive(Clone, Default)]
pub(crate) struct Identity {
    worker_id: Option<MetadataValue<Ascii>>,
    bearer: Bearer,
}

impl Identity {
    pub(crate) fn of_worker(id: &str) -> Result<Self> {
        let worker_id = MetadataValue::try_from(id).map_err(|_| {
            Error::new(ErrorKind::InvalidArgument, "TB0703", format!("`{id}` cannot be a worker's id"))
        })?;
        Ok(Identity { worker_id: Some(worker_id), bearer: Bearer::default() })
    }
}

impl Interceptor for Identity {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(id) = &self.worker_id {
            request.metadata_mut().insert("worker_id", id.clone());
        }
        self.bearer.call(request)
    }
}

/// Tasks that end when this is dropped. Java's engines never complete a stream that their worker has completed, and wait a
/// minute for it: a worker that goes has to break its streams.
#[derive(Default)]
pub(crate) struct EndsWith(Mutex<Vec<AbortHandle>>);

impl EndsWith {
    pub(crate) fn add(&self, task: &JoinHandle<()>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
    }
}

impl Drop for EndsWith {
    fn drop(&mut self) {
        for task in self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

/// Passes messages on to a stream's body, and never ends. Whoever stops polling it ends the body: a Java engine that has
/// completed a stream waits a minute for its client to complete it too.
pub(crate) async fn forward<T>(mut from: mpsc::Receiver<T>, to: mpsc::Sender<T>) {
    while let Some(message) = from.recv().await {
        if to.send(message).await.is_err() {
            break;
        }
    }
    drop(to);
    std::future::pending().await
}

/// What a refused call becomes.
pub(crate) fn refused(what: &str) -> impl Fn(Status) -> Error + '_ {
    move |status| {
        let code = status.code();
        Error::new(ErrorKind::Io, "TB0704", format!("{what} failed: {}", first_lines(status.message(), 12)))
            .with_help(format!("the service answered with {code:?}"))
    }
}

/// A text's first lines, and how many are left out: stack traces have no end.
pub(crate) fn first_lines(text: &str, most: usize) -> String {
    let text = text.trim_end();
    let lines = text.lines().count();
    if lines <= most {
        return text.to_owned();
    }
    let mut cut = text.lines().take(most).collect::<Vec<_>>().join("\n");
    cut += &format!("\n… {} more lines", lines - most);
    cut
}
