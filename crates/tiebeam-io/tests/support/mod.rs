//! An object store in this process: GCS's XML API, S3's, Azure's and a plain web server's in one, over HTTP on 127.0.0.1. It does wrong
//! what it is told to, and writes down what it was asked.

mod azure;

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What goes wrong with one request.
#[derive(Clone)]
pub enum Fault {
    /// This status and body instead of an answer.
    Status(u16, &'static str),
    /// The connection ends without a word.
    Reset,
    /// Half of the body, and then the end.
    Truncated,
    /// It is done, and then the connection ends without a word.
    DoneButReset,
    /// Nothing at all: a later request is meant.
    Nothing,
}

#[derive(Clone)]
struct Object {
    bytes: Vec<u8>,
    version: u64,
    modified: u64,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, BTreeMap<u64, Vec<u8>>>,
    /// Azure's: by key and the block's id.
    blocks: BTreeMap<(String, String), Vec<u8>>,
    version: u64,
    now: u64,
    /// The next request that has this method and this in its target fails so.
    faults: VecDeque<(&'static str, &'static str, Fault)>,
    log: Vec<String>,
    page: usize,
    ranges: bool,
    redirects: BTreeMap<String, String>,
    /// The requests that still get through.
    left: usize,
}

/// The store; keys begin with the bucket.
pub struct Fake {
    /// `127.0.0.1:port`.
    pub address: String,
    state: Arc<Mutex<State>>,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Fake {
    pub fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state =
            Arc::new(Mutex::new(State { page: 1000, ranges: true, left: usize::MAX, ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Fake { address, state }
    }

    pub fn put(&self, key: &str, bytes: impl AsRef<[u8]>) {
        self.state.lock().unwrap().put(key, bytes.as_ref().to_vec());
    }

    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().objects.get(key).map(|o| o.bytes.clone())
    }

    pub fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    pub fn open_uploads(&self) -> usize {
        self.state.lock().unwrap().uploads.len()
    }

    pub fn fail(&self, method: &'static str, part: &'static str, times: usize, fault: Fault) {
        let faults = std::iter::repeat_n((method, part, fault), times);
        self.state.lock().unwrap().faults.extend(faults);
    }

    pub fn forgive(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    /// Its clock goes on.
    pub fn later(&self, seconds: u64) {
        self.state.lock().unwrap().now += seconds;
    }

    pub fn page(&self, size: usize) {
        self.state.lock().unwrap().page = size;
    }

    pub fn without_ranges(&self) {
        self.state.lock().unwrap().ranges = false;
    }

    /// Only so many requests get an answer any more.
    pub fn cut_after(&self, requests: usize) {
        self.state.lock().unwrap().left = requests;
    }

    pub fn redirect(&self, key: &str, to: &str) {
        self.state.lock().unwrap().redirects.insert(key.into(), to.into());
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let (answer, fault) = {
            let mut state = state.lock().unwrap();
            if state.left == 0 {
                return;
            }
            if state.left != usize::MAX {
                state.left -= 1;
            }
            let target = format!("{}?{:?}", request.path, request.query);
            let at =
                state.faults.iter().position(|(m, part, _)| *m == request.method && target.contains(part));
            let fault = at.and_then(|at| state.faults.remove(at)).map(|(_, _, fault)| fault);
            state.log.push(format!("{} {}", request.method, request.path));
            match fault {
                Some(Fault::Status(status, body)) => {
                    (Answer { status, headers: vec![], body: body.into() }, None)
                }
                Some(Fault::Reset) => return,
                fault => (state.answer(&request), fault),
            }
        };
        if matches!(fault, Some(Fault::DoneButReset)) {
            return;
        }
        let mut head = format!("HTTP/1.1 {} x\r\n", answer.status);
        if !answer.headers.iter().any(|(name, _)| *name == "content-length") {
            head += &format!("content-length: {}\r\n", answer.body.len());
        }
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let out = reader.get_mut();
        out.write_all((head + "\r\n").as_bytes()).ok();
        if request.method == "HEAD" {
            continue;
        }
        if matches!(fault, Some(Fault::Truncated)) {
            out.write_all(&answer.body[..answer.body.len() / 2]).ok();
            return;
        }
        if out.write_all(&answer.body).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut parts = line.split(' ');
    let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length").map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(&value.replace('+', " ")))
    });
    let path = decoded(path.trim_start_matches('/'));
    Some(Request { method, path, query: query.collect(), headers, body })
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
            out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}

fn xml(text: String) -> Answer {
    Answer { status: 200, headers: vec![("content-type", "application/xml".into())], body: text.into_bytes() }
}

fn refused(status: u16, text: &str) -> Answer {
    Answer { status, headers: vec![], body: text.into() }
}

fn clock(now: u64) -> String {
    format!("{:02}:{:02}:{:02}", now / 3600, now / 60 % 60, now % 60)
}

impl State {
    fn put(&mut self, key: &str, bytes: Vec<u8>) -> u64 {
        self.version += 1;
        let object = Object { bytes, version: self.version, modified: self.now };
        self.objects.insert(key.to_owned(), object);
        self.version
    }

    fn written(version: u64) -> Answer {
        let headers = vec![("etag", format!("\"e{version}\"")), ("x-goog-generation", version.to_string())];
        Answer { status: 200, headers, body: vec![] }
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let (key, query) = (&request.path, &request.query);
        let header = |name: &str| request.headers.get(name).map(String::as_str);
        let there = self.objects.get(key).map(|object| object.version);
        if let Some(answer) = self.azure(request) {
            return answer;
        }
        match request.method.as_str() {
            "GET" if query.contains_key("list-type") => self.list(key, query),
            "GET" | "HEAD" => self.read(request),
            "DELETE" if query.contains_key("uploadId") => {
                self.uploads.remove(&query["uploadId"]);
                Answer { status: 204, headers: vec![], body: vec![] }
            }
            "DELETE" => {
                let status = if self.objects.remove(key).is_some() { 204 } else { 404 };
                Answer { status, headers: vec![], body: vec![] }
            }
            "POST" if query.contains_key("delete") => {
                let text = String::from_utf8(request.body.clone()).unwrap();
                let mut gone = String::new();
                for piece in text.split("<Key>").skip(1) {
                    let name = piece.split("</Key>").next().unwrap();
                    self.objects.remove(&format!("{key}/{name}"));
                    gone += &format!("<Deleted><Key>{name}</Key></Deleted>");
                }
                xml(format!("<DeleteResult>{gone}</DeleteResult>"))
            }
            "POST" if query.contains_key("uploads") => {
                self.version += 1;
                let id = format!("u{}", self.version);
                self.uploads.insert(id.clone(), BTreeMap::new());
                xml(format!("<R><Bucket>b</Bucket><Key>k</Key><UploadId>{id}</UploadId></R>"))
            }
            "POST" => {
                let Some(parts) = self.uploads.remove(&query["uploadId"]) else {
                    return refused(404, "NoSuchUpload");
                };
                let version = self.put(key, parts.into_values().flatten().collect());
                xml(format!("<R><ETag>\"e{version}\"</ETag></R>"))
            }
            "PUT" if query.contains_key("partNumber") => {
                let Some(parts) = self.uploads.get_mut(&query["uploadId"]) else {
                    return refused(404, "NoSuchUpload");
                };
                parts.insert(query["partNumber"].parse().unwrap(), request.body.clone());
                Answer { status: 200, headers: vec![("etag", "\"part\"".into())], body: vec![] }
            }
            "PUT" => {
                if let Some(from) = header("x-goog-copy-source").or(header("x-amz-copy-source")) {
                    let Some(from) = self.objects.get(decoded(from).trim_start_matches('/')).cloned() else {
                        return refused(404, "NoSuchKey");
                    };
                    let version = self.put(key, from.bytes);
                    return xml(format!("<R><ETag>\"e{version}\"</ETag></R>"));
                }
                let generation = header("x-goog-if-generation-match").map(|g| g.parse::<u64>().unwrap());
                let fits = match (generation, header("if-none-match"), header("if-match")) {
                    (Some(wanted), ..) => there.unwrap_or(0) == wanted,
                    (_, Some(_), _) => there.is_none(),
                    (.., Some(etag)) => there.is_some_and(|version| etag == format!("\"e{version}\"")),
                    _ => true,
                };
                if !fits {
                    return refused(412, "PreconditionFailed");
                }
                Self::written(self.put(key, request.body.clone()))
            }
            other => refused(405, other),
        }
    }

    fn read(&self, request: &Request) -> Answer {
        if let Some(to) = self.redirects.get(&request.path) {
            return Answer { status: 302, headers: vec![("location", to.clone())], body: vec![] };
        }
        let Some(object) = self.objects.get(&request.path) else { return refused(404, "NoSuchKey") };
        let etag = format!("\"e{}\"", object.version);
        if request.headers.get("if-match").is_some_and(|wanted| *wanted != etag) {
            return refused(412, "PreconditionFailed");
        }
        let mut headers = vec![
            ("etag", etag),
            ("x-goog-generation", object.version.to_string()),
            ("last-modified", format!("Tue, 01 Jan 2030 {} GMT", clock(object.modified))),
        ];
        let size = object.bytes.len();
        let range = request.headers.get("range").filter(|_| self.ranges);
        let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
            if request.method == "HEAD" {
                headers.push(("content-length", size.to_string()));
            }
            return Answer { status: 200, headers, body: object.bytes.clone() };
        };
        let start: usize = range.0.parse().unwrap();
        let end = range.1.parse::<usize>().map_or(size, |last| size.min(last + 1));
        if start >= size {
            return refused(416, "InvalidRange");
        }
        headers.push(("content-range", format!("bytes {start}-{}/{size}", end - 1)));
        Answer { status: 206, headers, body: object.bytes[start..end].to_vec() }
    }

    /// The objects of a bucket by key, and its folders without any.
    fn entries(&self, bucket: &str, prefix: &str, by_folder: bool) -> BTreeMap<String, Option<&Object>> {
        let mut entries: BTreeMap<String, Option<&Object>> = BTreeMap::new();
        for (key, object) in &self.objects {
            let Some(key) = key.strip_prefix(bucket).and_then(|key| key.strip_prefix('/')) else { continue };
            let Some(rest) = key.strip_prefix(prefix) else { continue };
            match rest.split_once('/').filter(|_| by_folder) {
                Some((dir, _)) => entries.insert(format!("{prefix}{dir}/"), None),
                None => entries.insert(key.to_owned(), Some(object)),
            };
        }
        entries
    }

    fn list(&self, bucket: &str, query: &BTreeMap<String, String>) -> Answer {
        let get = |name: &str| query.get(name).map_or("", String::as_str);
        let (prefix, after) = (get("prefix"), get("continuation-token"));
        let entries = self.entries(bucket, prefix, query.contains_key("delimiter"));
        let left: Vec<_> = entries.into_iter().filter(|(key, _)| key.as_str() > after).collect();
        let mut text = String::from("<ListBucketResult>");
        for (key, object) in left.iter().take(self.page) {
            let shown = key.replace('&', "&amp;").replace('<', "&lt;");
            text += &match object {
                None => format!("<CommonPrefixes><Prefix>{shown}</Prefix></CommonPrefixes>"),
                Some(o) => format!(
                    "<Contents><Key>{shown}</Key><Size>{}</Size><LastModified>2030-01-01T{}.000Z</LastModified><ETag>\"e{}\"</ETag></Contents>",
                    o.bytes.len(),
                    clock(o.modified),
                    o.version
                ),
            };
        }
        if left.len() > self.page {
            text += &format!("<NextContinuationToken>{}</NextContinuationToken>", left[self.page - 1].0);
        }
        xml(text + "</ListBucketResult>")
    }
}
