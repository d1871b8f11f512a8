//! `--ui`: what a running job says of itself over HTTP, on this machine only.
//!
//! `GET /` is a small page, `GET /status` the report so far as JSON, `GET /tap?step=STEP&n=N` the next elements that leave a
//! step. Nothing can be changed through it.

mod http;
mod known;
mod render;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_exec::EdgeId;
use tiebeam_graph::Graph;
use tiebeam_runner::{Progress, Samples};

pub use http::{get, json_at};
pub use known::{Known, known_jobs};

use self::http::{Request, Response};
use super::exit::to_stderr;
use super::report::{RunModels, running_json};

/// Who waits for elements longer than this, in seconds, is told what came; and the longest that somebody may wait.
const PATIENCE: u64 = 5;
const MOST_PATIENCE: u64 = 600;
/// Requests that are answered at the same time.
const AT_ONCE: usize = 16;

/// A job that can be looked at.
pub(crate) struct Shown {
    /// Its name.
    pub(crate) job: String,
    /// What runs it.
    pub(crate) runner: &'static str,
    /// Its graph.
    pub(crate) graph: Arc<Graph>,
    /// Its counts.
    pub(crate) progress: Progress,
    /// Its elements; none where they are in other processes.
    pub(crate) samples: Option<Samples>,
    /// Its models.
    pub(crate) models: RunModels,
}

/// Serves until it is dropped.
pub(crate) struct Ui {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    _known: Option<Known>,
}

impl Ui {
    /// Serves a job at `address`, which is one of this machine's own.
    pub(crate) fn start(address: SocketAddr, shown: Shown) -> Result<Ui> {
        let refused = |message: String| Error::new(ErrorKind::InvalidArgument, "TB0598", message);
        if !address.ip().is_loopback() {
            let message = format!(
                "`--ui` listens on this machine only, and {} is an address of the network",
                address.ip()
            );
            return Err(refused(message).with_help("leave the address out, and reach it by `ssh -L`"));
        }
        let cannot = |error: std::io::Error| {
            refused(format!("`--ui` cannot listen at {address}: {error}"))
                .with_help("leave the address out: a free port is taken")
        };
        let listener = TcpListener::bind(address).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        to_stderr(&format!("ui http://{address}\n"));
        let known = Known::announce(&shown.job, address);
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        std::thread::spawn(move || serve(&listener, &Arc::new(shown), &seen));
        Ok(Ui { address, over, _known: known })
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes it up; it may be gone already.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_millis(200)));
    }
}

fn serve(listener: &TcpListener, shown: &Arc<Shown>, over: &Arc<AtomicBool>) {
    let answering = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        if answering.fetch_add(1, Ordering::SeqCst) >= AT_ONCE {
            answering.fetch_sub(1, Ordering::SeqCst);
            Response::text(503, "busy").send(&mut stream);
            continue;
        }
        let (shown, over, answering) = (shown.clone(), over.clone(), answering.clone());
        std::thread::spawn(move || {
            let response = match Request::read(&mut stream) {
                Ok(request) => answer(&request, &shown, &over),
                Err(response) => response,
            };
            response.send(&mut stream);
            answering.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn answer(request: &Request, shown: &Shown, over: &AtomicBool) -> Response {
    match request.path.as_str() {
        "/" => Response::html(include_str!("page.html")),
        "/status" => Response::json(200, &status(shown)),
        "/tap" => match tap(request, shown, over) {
            Ok(taken) => Response::json(200, &taken),
            Err((code, problem)) => Response::json(code, &problem),
        },
        _ => Response::text(404, "here: /, /status, /tap?step=STEP&n=10"),
    }
}

fn status(shown: &Shown) -> Value {
    let mut status = running_json(&shown.job, shown.runner, &shown.progress, shown.models.json());
    if let Some(status) = status.as_object_mut() {
        let steps: Vec<String> = tappable(&shown.graph).into_iter().map(|(name, _)| name).collect();
        status.insert("steps".to_owned(), json!(steps));
        status.insert("tapped".to_owned(), json!(shown.samples.as_ref().map_or(0, Samples::lookers)));
    }
    status
}

fn tap(request: &Request, shown: &Shown, over: &AtomicBool) -> Result<Value, (u16, Value)> {
    let bad = |message: String| (400, json!({ "error": message }));
    let Some(samples) = &shown.samples else {
        let message = format!("the elements of a job on {} are not in this process", shown.runner);
        return Err((501, json!({ "error": message })));
    };
    let step = request.value("step").ok_or_else(|| bad("which step? /tap?step=STEP".to_owned()))?;
    let n = match request.value("n").as_deref().unwrap_or("10").parse::<usize>() {
        Ok(n @ 1..=1000) => n,
        _ => return Err(bad("`n` is a number from 1 to 1000".to_owned())),
    };
    let wait = match request.value("wait").map(|text| text.parse::<u64>()) {
        None => PATIENCE,
        Some(Ok(seconds)) if seconds <= MOST_PATIENCE => seconds,
        Some(_) => return Err(bad(format!("`wait` is a number of seconds to {MOST_PATIENCE}"))),
    };
    let steps = tappable(&shown.graph);
    let Some(edge) = steps.iter().find(|(name, _)| *name == step).map(|(_, edge)| *edge) else {
        let names: Vec<&str> = steps.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!("there is no step `{step}` that gives elements");
        return Err((404, json!({ "error": message, "steps": names })));
    };
    let taken = samples.next(edge, n, Duration::from_secs(wait), &|| over.load(Ordering::SeqCst));
    let about = samples.edge(edge);
    let elements: Vec<Value> = match about {
        Some(about) => taken.iter().map(|sample| render::element(&about.coder, sample)).collect(),
        None => Vec::new(),
    };
    Ok(json!({
        "step": step,
        "coder": about.map(|about| about.coder.to_string()),
        "elements": elements,
    }))
}

/// What can be looked at, by the names under which users know it: steps by what leaves them, top-level transforms by what
/// leaves those, `STEP.OUTPUT` for outputs beside the main one.
fn tappable(graph: &Graph) -> Vec<(String, EdgeId)> {
    let mut names: Vec<(String, EdgeId)> = Vec::new();
    let mut add = |name: String, edge: EdgeId| {
        // What comes last in a transform is what leaves it.
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = edge,
            None => names.push((name, edge)),
        }
    };
    for node in &graph.nodes {
        for output in &node.outputs {
            if &*output.name != "main" {
                add(format!("{}.{}", node.step, output.name), output.edge);
                continue;
            }
            let path = &node.step;
            if let Some((top, _)) = path.split_once('/')
                && !dead_ends(graph, output.edge)
            {
                add(top.to_owned(), output.edge);
            }
            add(path.to_string(), output.edge);
        }
    }
    names
}

/// Whether nothing reads an edge.
fn dead_ends(graph: &Graph, edge: EdgeId) -> bool {
    !graph.nodes.iter().any(|n| n.inputs.contains(&edge) || n.side_inputs.iter().any(|(_, e)| *e == edge))
}
