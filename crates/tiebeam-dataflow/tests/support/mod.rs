//! A fake of the three services that this client talks to, on loopback: Dataflow's API (v1b3), Cloud Storage's JSON API and
//! a token service. It keeps what it was asked, checks the shape of what it is given against the API's published description
//! (`shape.rs`), and answers in the recorded shape; any answer can be replaced by a script.

#![allow(dead_code)] // each test program uses its own part of it

mod shape;

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Without the query, as it was escaped.
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Reply {
    pub fn json(status: u16, body: Value) -> Reply {
        Reply {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.to_string(),
        }
    }

    /// A refusal in Google's form.
    pub fn refusal(status: u16, code: &str, message: &str) -> Reply {
        Reply::json(status, json!({"error": {"code": status, "message": message, "status": code}}))
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }
}

/// What the fake does instead of what it would.
#[derive(Debug, Clone)]
pub enum Script {
    Answer(Reply),
    /// Breaks the connection without a word.
    Break,
    /// Takes the first so many bytes of an upload's piece, then breaks the connection.
    TakeAndBreak(usize),
}

#[derive(Default)]
pub struct State {
    pub seen: Vec<Seen>,
    /// Objects by `bucket/name`.
    pub objects: BTreeMap<String, Vec<u8>>,
    /// The states that a job has, one after the other; the last one stays.
    pub states: VecDeque<&'static str>,
    /// Messages, each told from the n-th look at the state on.
    pub messages: Vec<(usize, Value)>,
    pub metrics: Vec<Value>,
    /// Jobs that are active: what the list shows.
    pub active: Vec<Value>,
    /// The token that is taken; any where it is empty.
    pub token: String,
    sessions: BTreeMap<String, (String, Vec<u8>)>,
    scripts: VecDeque<(String, Script)>,
    opened: usize,
    looks: usize,
}

pub struct Fake {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
}

impl Fake {
    pub fn start() -> Fake {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let stopped: Arc<AtomicBool> = Arc::default();
        let (shared, stop) = (state.clone(), stopped.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream.unwrap(), address, &shared));
            }
        });
        Fake { address, state, stopped }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Answers the next request whose `METHOD PATH` contains these words by a script; scripts for the same words follow each
    /// other.
    pub fn script(&self, words: &str, script: Script) {
        self.with(|state| state.scripts.push_back((words.to_owned(), script)));
    }

    pub fn answer(&self, words: &str, reply: Reply) {
        self.script(words, Script::Answer(reply));
    }

    /// All requests whose `METHOD PATH` contains these words.
    pub fn seen(&self, words: &str) -> Vec<Seen> {
        self.with(|state| state.seen.iter().filter(|seen| seen.line().contains(words)).cloned().collect())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, address: SocketAddr, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(seen) = read(&mut reader) else { return };
    let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    state.seen.push(seen.clone());
    let line = seen.line();
    let script = state.scripts.iter().position(|(words, _)| line.contains(words.as_str()));
    let reply = match script.and_then(|at| state.scripts.remove(at)) {
        Some((_, Script::Answer(reply))) => reply,
        Some((_, Script::Break)) => return,
        Some((_, Script::TakeAndBreak(bytes))) => {
            if let Some((_, content)) = state.sessions.get_mut(&seen.path) {
                content.extend_from_slice(&seen.body[..bytes]);
            }
            return;
        }
        None => answer(&mut state, &seen, address),
    };
    drop(state);
    send(stream, &reply);
}

fn read(reader: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(name, value)| (plain(name), plain(value))).collect();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length: &String| length.parse().unwrap());
    assert!(!headers.contains_key("transfer-encoding"), "Google's upload wants a length");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { method, path: path.to_owned(), query, headers, body })
}

/// Text without its escapes.
pub fn plain(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'%' {
            out.push(u8::from_str_radix(&text[i + 1..i + 3], 16).unwrap());
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8(out).unwrap()
}

fn send(mut stream: TcpStream, reply: &Reply) {
    let mut head = format!(
        "HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n",
        reply.status,
        reply.body.len()
    );
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let _ = stream.write_all(format!("{head}\r\n{}", reply.body).as_bytes());
}

fn answer(state: &mut State, seen: &Seen, address: SocketAddr) -> Reply {
    let is_session = seen.path.starts_with("/session/");
    let token = seen.headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if is_session && token.is_some() {
        return Reply::refusal(400, "INVALID_ARGUMENT", "a session's address needs no token");
    }
    if !is_session && (token.is_none() || (!state.token.is_empty() && token != Some(state.token.as_str()))) {
        return Reply::refusal(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.");
    }
    let parts: Vec<String> = seen.path.trim_start_matches('/').split('/').map(plain).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match (seen.method.as_str(), parts.as_slice()) {
        ("GET", ["storage", "v1", "b", bucket, "o", object]) => {
            object_of(state, &format!("{bucket}/{object}"))
        }
        ("POST", ["upload", "storage", "v1", "b", bucket, "o"]) => open_session(state, seen, bucket, address),
        ("PUT", ["session", ..]) => take_piece(state, seen),
        ("POST", ["v1b3", "projects", project, "locations", region, "jobs"]) => {
            create(state, seen, project, region)
        }
        ("GET", ["v1b3", "projects", _, "locations", _, "jobs"]) => list(state, seen),
        ("GET", ["v1b3", "projects", _, "locations", _, "jobs", id]) => {
            state.looks += 1;
            let now =
                if state.states.len() > 1 { state.states.pop_front() } else { state.states.front().copied() };
            Reply::json(200, json!({"id": id, "currentState": now.unwrap_or("JOB_STATE_DONE")}))
        }
        ("PUT", ["v1b3", "projects", _, "locations", _, "jobs", id]) => {
            let wanted = seen.json();
            shape::check("Job", &wanted);
            let now = match wanted["requestedState"].as_str() {
                Some("JOB_STATE_CANCELLED") => "JOB_STATE_CANCELLING",
                Some("JOB_STATE_DRAINING") => "JOB_STATE_DRAINING",
                other => {
                    return Reply::refusal(400, "INVALID_ARGUMENT", &format!("requestedState {other:?}"));
                }
            };
            Reply::json(
                200,
                json!({"id": id, "currentState": now, "requestedState": wanted["requestedState"]}),
            )
        }
        ("GET", ["v1b3", "projects", _, "locations", _, "jobs", _, "messages"]) => messages(state, seen),
        ("GET", ["v1b3", "projects", _, "locations", _, "jobs", _, "metrics"]) => {
            Reply::json(200, json!({"metricTime": "2026-11-22T10:00:00Z", "metrics": state.metrics}))
        }
        _ => Reply::refusal(404, "NOT_FOUND", &format!("no method for {}", seen.line())),
    }
}

fn object_of(state: &State, key: &str) -> Reply {
    match state.objects.get(key) {
        // Google's 64-bit numbers are texts.
        Some(content) => Reply::json(
            200,
            json!({"name": key.split_once('/').unwrap().1, "size": content.len().to_string()}),
        ),
        None => Reply::refusal(404, "NOT_FOUND", &format!("No such object: {key}")),
    }
}

fn open_session(state: &mut State, seen: &Seen, bucket: &str, address: SocketAddr) -> Reply {
    assert_eq!(seen.query["uploadType"], "resumable");
    assert_eq!(seen.query["ifGenerationMatch"], "0");
    assert_eq!(seen.json()["name"], json!(seen.query["name"]));
    let key = format!("{bucket}/{}", seen.query["name"]);
    if state.objects.contains_key(&key) {
        return Reply::refusal(
            412,
            "FAILED_PRECONDITION",
            "At least one of the pre-conditions you specified did not hold.",
        );
    }
    let path = format!("/session/{}", state.opened);
    state.opened += 1;
    state.sessions.insert(path.clone(), (key, Vec::new()));
    Reply::json(200, json!({})).header("location", format!("http://{address}{path}?upload_id=a%2Fb"))
}

fn take_piece(state: &mut State, seen: &Seen) -> Reply {
    let Some((key, content)) = state.sessions.get_mut(&seen.path) else {
        return Reply::refusal(410, "GONE", "the session is over");
    };
    assert_eq!(seen.query["upload_id"], "a/b");
    let (range, size) =
        seen.headers["content-range"].strip_prefix("bytes ").unwrap().split_once('/').unwrap();
    let size: usize = size.parse().unwrap();
    if range != "*" {
        let (from, to) = range.split_once('-').unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(from, content.len(), "a piece goes on where the last one ended");
        assert_eq!(to + 1 - from, seen.body.len());
        assert!(
            to + 1 == size || seen.body.len().is_multiple_of(256 << 10),
            "pieces are multiples of 256 KiB"
        );
        content.extend_from_slice(&seen.body);
    }
    if content.len() == size {
        let (key, content) = (key.clone(), std::mem::take(content));
        state.objects.insert(key.clone(), content);
        state.sessions.remove(&seen.path);
        return object_of(state, &key);
    }
    let reply = Reply { status: 308, headers: Vec::new(), body: String::new() };
    if content.is_empty() { reply } else { reply.header("range", format!("bytes=0-{}", content.len() - 1)) }
}

fn create(state: &mut State, seen: &Seen, project: &str, region: &str) -> Reply {
    let mut job = seen.json();
    shape::check("Job", &job);
    let pipeline =
        job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"].as_str().unwrap_or_default();
    if !state.objects.contains_key(pipeline.trim_start_matches("gs://")) {
        return Reply::refusal(400, "INVALID_ARGUMENT", &format!("there is no pipeline at {pipeline}"));
    }
    let name = job["name"].clone();
    if state.active.iter().any(|one| one["name"] == name) && job["replaceJobId"].is_null() {
        let words =
            "(4e1b): The workflow could not be created. Causes: There is already an active job named so.";
        return Reply::refusal(409, "ALREADY_EXISTS", words);
    }
    job["id"] = json!("2026-11-22_02_00_00-123");
    job["projectId"] = json!(project);
    job["location"] = json!(region);
    job["currentState"] = json!("JOB_STATE_PENDING");
    // The service does not give back all that it was given.
    job.as_object_mut().unwrap().remove("environment");
    Reply::json(200, job)
}

fn list(state: &State, seen: &Seen) -> Reply {
    assert_eq!(seen.query["filter"], "ACTIVE");
    page(&state.active, seen, "jobs", 1)
}

fn messages(state: &State, seen: &Seen) -> Reply {
    let importance = |name: &str| {
        let known = ["DEBUG", "DETAILED", "BASIC", "WARNING", "ERROR"];
        known.iter().position(|one| name == format!("JOB_MESSAGE_{one}")).unwrap()
    };
    let least = importance(&seen.query["minimumImportance"]);
    let since = seen.query.get("startTime").map_or("", String::as_str);
    let told = state.messages.iter().filter(|(from, message)| {
        let text = |name: &str| message[name].as_str().unwrap();
        *from <= state.looks && text("time") >= since && importance(text("messageImportance")) >= least
    });
    let told: Vec<Value> = told.map(|(_, message)| message.clone()).collect();
    page(&told, seen, "jobMessages", 2)
}

/// One page of a list, as long as that.
fn page(all: &[Value], seen: &Seen, name: &str, length: usize) -> Reply {
    let from = seen
        .query
        .get("pageToken")
        .map_or(0, |token| token.trim_start_matches("t+/").parse::<usize>().unwrap());
    let end = (from + length).min(all.len());
    let mut body = json!({name: all[from..end]});
    if end < all.len() {
        body["nextPageToken"] = json!(format!("t+/{end}"));
    }
    Reply::json(200, body)
}

/// A message of a job.
pub fn message(id: &str, time: &str, importance: &str, text: &str) -> Value {
    json!({"id": id, "time": time, "messageImportance": format!("JOB_MESSAGE_{importance}"), "messageText": text})
}
