//! Objects in Cloud Storage, by its JSON API: written once, by resumable uploads.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tiebeam_core::{Error, ErrorKind, Result};

use crate::gs::GsPath;
use crate::http::{Answer, Call, escaped};
use crate::service::Service;

/// What goes up in one request: a multiple of 256 KiB, as the protocol wants.
const PIECE: u64 = 8 << 20;
/// Failures in a row after which an upload is given up; each of them was tried more than once already.
const FAILURES: u32 = 5;

/// What is uploaded.
pub(crate) enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// What was done about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It was there.
    Known,
    /// It is there now.
    Uploaded,
}

impl Content {
    fn size(&self) -> Result<u64> {
        match self {
            Content::Bytes(bytes) => Ok(bytes.len() as u64),
            Content::File(path) => {
                Ok(std::fs::metadata(path).map_err(|error| unreadable(path, error))?.len())
            }
        }
    }

    /// The bytes from `from` on, at most a piece of them.
    fn piece(&self, from: u64, size: u64) -> Result<Vec<u8>> {
        let wanted = PIECE.min(size.saturating_sub(from)) as usize;
        match self {
            Content::Bytes(bytes) => Ok(bytes[from as usize..from as usize + wanted].to_vec()),
            Content::File(path) => {
                let mut piece = vec![0; wanted];
                let mut read = || {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(from))?;
                    file.read_exact(&mut piece)
                };
                read().map_err(|error| unreadable(path, error))?;
                Ok(piece)
            }
        }
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "TB0770", format!("the file {} cannot be read", path.display()))
        .with_source(error)
}

/// Writes an object, unless one of that name and size is there. Names are made of contents, so that it is the same one.
pub(crate) fn write_once(service: &Service, path: &GsPath, content: &Content) -> Result<Written> {
    let size = content.size()?;
    let what = format!("looking for {path}");
    let object = format!(
        "{}/storage/v1/b/{}/o/{}?fields=name,size",
        service.options.gcs_endpoint,
        escaped(&path.bucket),
        escaped(&path.name)
    );
    let found = service.ask(&what, &Call::new("GET", object))?;
    match found.status {
        200 if size_of(&found.json(&what)?) == Some(size) => return Ok(Written::Known),
        200 => return Err(other_size(path, size)),
        404 => {}
        _ => return Err(found.refusal(&what)),
    }
    Upload { service, path, content, size }.run()
}

fn size_of(object: &Value) -> Option<u64> {
    object["size"].as_u64().or_else(|| object["size"].as_str()?.parse().ok())
}

fn other_size(path: &GsPath, size: u64) -> Error {
    Error::new(ErrorKind::Io, "TB0770", format!("{path} is not the {size} bytes that its name says"))
        .with_help("somebody else wrote there, or an old upload broke: delete the object")
}

struct Upload<'a> {
    service: &'a Service,
    path: &'a GsPath,
    content: &'a Content,
    size: u64,
}

/// How far an upload is.
enum Progress {
    /// The service has this many bytes.
    At(u64),
    Done,
    /// The session is gone: it has to begin again.
    Lost,
}

impl Upload<'_> {
    fn run(&self) -> Result<Written> {
        let mut failures = 0;
        let mut last = String::new();
        while failures < FAILURES {
            let Some(session) = self.begin()? else { return Ok(Written::Known) };
            let mut at = 0;
            while failures < FAILURES {
                // What a failed request left behind is only known to the service.
                let step = self.send(&session, at).or_else(|error| {
                    failures += 1;
                    last = error.to_string();
                    self.ask_how_far(&session)
                });
                match step {
                    Ok(Progress::At(now)) => {
                        failures = if now > at { 0 } else { failures + 1 };
                        at = now;
                    }
                    Ok(Progress::Done) => return Ok(Written::Uploaded),
                    Ok(Progress::Lost) => {
                        failures += 1;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let message = format!("the upload to {} broke off again and again", self.path);
        let error = Error::new(ErrorKind::Io, "TB0768", message).with_retryable(true);
        Err(if last.is_empty() { error } else { error.with_source(last) })
    }

    /// Opens a session; none when the object has come to be in the meantime.
    fn begin(&self) -> Result<Option<String>> {
        let url = format!(
            "{}/upload/storage/v1/b/{}/o?uploadType=resumable&name={}&ifGenerationMatch=0",
            self.service.options.gcs_endpoint,
            escaped(&self.path.bucket),
            escaped(&self.path.name)
        );
        let what = format!("the upload to {}", self.path);
        let call = Call::new("POST", url)
            .header("x-upload-content-type", "application/octet-stream")
            .header("x-upload-content-length", self.size.to_string())
            .json(&json!({"name": self.path.name, "contentType": "application/octet-stream"}));
        let answer = self.service.ask(&what, &call)?;
        if answer.status == 412 {
            return Ok(None);
        }
        if !answer.is_success() {
            return Err(answer.refusal(&what));
        }
        let session = answer.header("location").map(str::to_owned);
        let session = session.filter(|url| crate::http::safe_session(url)).ok_or_else(|| {
            Error::new(ErrorKind::Io, "TB0769", format!("{what} was taken without saying where to send it"))
        })?;
        Ok(Some(session))
    }

    /// Sends the next piece. The session's address is the right to write to it: it goes without a token.
    fn send(&self, session: &str, at: u64) -> Result<Progress> {
        let piece = self.content.piece(at, self.size)?;
        let range = match piece.len() as u64 {
            0 => format!("bytes */{}", self.size),
            n => format!("bytes {at}-{}/{}", at + n - 1, self.size),
        };
        let call = Call::new("PUT", session.to_owned()).header("content-range", range).bytes(piece);
        let what = format!("the upload to {}", self.path);
        // Not tried again as it is: half of it may have arrived.
        match self.service.http.once(&call) {
            Ok(answer) if !answer.is_passing() => self.progress(&answer, &what),
            Ok(answer) => Err(answer.refusal(&what)),
            Err(error) => {
                Err(Error::new(ErrorKind::Io, "TB0768", format!("{what} broke off")).with_source(error))
            }
        }
    }

    fn ask_how_far(&self, session: &str) -> Result<Progress> {
        let what = format!("resuming the upload to {}", self.path);
        let call = Call::new("PUT", session.to_owned())
            .header("content-range", format!("bytes */{}", self.size))
            .bytes(Vec::new());
        self.progress(&self.service.http.call(&what, &call)?, &what)
    }

    fn progress(&self, answer: &Answer, what: &str) -> Result<Progress> {
        match answer.status {
            200 | 201 => match size_of(&answer.json(what)?) {
                Some(size) if size != self.size => Err(other_size(self.path, self.size)),
                _ => Ok(Progress::Done),
            },
            308 => {
                let last = answer
                    .header("range")
                    .and_then(|range| range.strip_prefix("bytes=0-")?.parse::<u64>().ok());
                let at = last.map_or(0, |last| last + 1);
                if at > self.size {
                    return Err(other_size(self.path, self.size));
                }
                Ok(Progress::At(at))
            }
            // Someone else finished the same object first; objects are named by their content.
            412 => Ok(Progress::Done),
            404 | 410 => Ok(Progress::Lost),
            _ => Err(answer.refusal(what)),
        }
    }
}
