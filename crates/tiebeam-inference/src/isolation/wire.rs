//! What travels between a job and the process of a model: frames over one socket, and what is in them.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use tiebeam_core::coder::{Coder, Nesting, Reader, write_varint};
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::{Element, Failure};

use crate::handler::{Answered, ModelInfo, Predictions};
use crate::prediction::{put_text, take_text};
use crate::signature::{Dim, Port, Signature};
use crate::tensor::DType;
use crate::update::ModelMetadata;

/// What came is not what the other side may send.
pub(super) const NOT_OURS: &str = "TB0347";

/// A frame holds no more: what claims to is no frame.
const MOST: u32 = 1 << 31;

/// Writes a frame: its length in four bytes, and its bytes.
pub(super) fn write_frame(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= MOST);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "more than 2 GiB at once"))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(bytes)?;
    to.flush()
}

/// Reads a frame; none at the end.
pub(super) fn read_frame(mut from: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length);
    if length > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame of more than 2 GiB"));
    }
    // No memory is taken for what was only claimed.
    let mut bytes = Vec::with_capacity((length as usize).min(1 << 20));
    let read = from.take(u64::from(length)).read_to_end(&mut bytes)?;
    if read < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(bytes))
}

/// What a job asks of a model's process.
pub(super) enum Ask<E> {
    /// Load the handler's model, or that version of it.
    Load(Option<ModelMetadata>),
    /// Say what these are.
    Predict(Vec<E>),
}

const LOAD: u8 = 0;
const LOAD_VERSION: u8 = 1;
const PREDICT: u8 = 2;

/// [`Ask::Load`], written.
pub(super) fn put_load(version: Option<&ModelMetadata>, out: &mut Vec<u8>) {
    match version {
        None => out.push(LOAD),
        Some(version) => {
            out.push(LOAD_VERSION);
            put_text(&version.model_id, out);
            put_text(&version.model_name, out);
        }
    }
}

/// [`Ask::Predict`], written.
pub(super) fn put_batch<E: 'static>(coder: &Coder<E>, batch: &[E], out: &mut Vec<u8>) -> Result<()> {
    out.push(PREDICT);
    write_varint(batch.len() as i64, out);
    batch.iter().try_for_each(|example| coder.encode(example, out, Nesting::Nested))
}

/// What is asked.
pub(super) fn take_ask<E: 'static>(coder: &Coder<E>, input: &mut Reader) -> Result<Ask<E>> {
    match input.u8()? {
        LOAD => Ok(Ask::Load(None)),
        LOAD_VERSION => {
            let (model_id, model_name) = (take_text(input)?.to_string(), take_text(input)?.to_string());
            Ok(Ask::Load(Some(ModelMetadata { model_id, model_name })))
        }
        PREDICT => {
            let n = take_count(input)?;
            let take = |_| coder.decode(input, Nesting::Nested);
            Ok(Ask::Predict((0..n).map(take).collect::<Result<_>>()?))
        }
        other => Err(foreign(format_args!("request {other}"))),
    }
}

/// What a model's process answers.
pub(super) enum Answer<P> {
    /// The model is loaded.
    Loaded(About),
    /// What it says of a batch.
    Predicted(Predictions<P>),
}

/// What a job has to know of a loaded model.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct About {
    pub(super) info: ModelInfo,
    pub(super) signature: Option<Signature>,
    /// What an example brings for it.
    pub(super) takes: Option<Vec<Port>>,
}

const LOADED: u8 = 0;
const ALL: u8 = 1;
const EACH: u8 = 2;
const FAILED: u8 = 3;

/// Writes an answer, or why there is none.
pub(super) fn put_answer<P: 'static>(
    coder: &Coder<P>,
    answer: Result<Answer<P>>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let put = |prediction: &P, out: &mut Vec<u8>| coder.encode(prediction, out, Nesting::Nested);
    match answer {
        Err(error) => {
            out.push(FAILED);
            put_error(&error, out)
        }
        Ok(Answer::Loaded(about)) => {
            out.push(LOADED);
            put_info(&about.info, out);
            put_flag(about.signature.is_some(), out);
            if let Some(signature) = &about.signature {
                put_ports(&signature.inputs, out);
                put_ports(&signature.outputs, out);
            }
            put_flag(about.takes.is_some(), out);
            if let Some(takes) = &about.takes {
                put_ports(takes, out);
            }
            Ok(())
        }
        Ok(Answer::Predicted(Predictions::All(all))) => {
            out.push(ALL);
            write_varint(all.len() as i64, out);
            all.iter().try_for_each(|prediction| put(prediction, out))
        }
        Ok(Answer::Predicted(predictions)) => {
            let each = predictions.into_each();
            out.push(EACH);
            write_varint(each.len() as i64, out);
            each.into_iter().try_for_each(|one| match one {
                Ok(one) => {
                    out.push(1);
                    put(&one.inference, out)?;
                    put_maybe(one.model_id.as_deref(), out);
                    Ok(())
                }
                Err(error) => {
                    out.push(0);
                    put_error(&error, out)
                }
            })
        }
    }
}

/// What was answered.
///
/// # Errors
/// The model's own, or that the bytes are no answer.
pub(super) fn take_answer<P: 'static>(coder: &Coder<P>, input: &mut Reader) -> Result<Answer<P>> {
    match input.u8()? {
        FAILED => Err(take_error(input)?),
        LOADED => {
            let info = take_info(input)?;
            let signature = match input.u8()? {
                0 => None,
                _ => Some(Signature { inputs: take_ports(input)?, outputs: take_ports(input)? }),
            };
            let takes = if input.u8()? == 0 { None } else { Some(take_ports(input)?) };
            Ok(Answer::Loaded(About { info, signature, takes }))
        }
        ALL => {
            let n = take_count(input)?;
            let take = |_| coder.decode(input, Nesting::Nested);
            Ok(Answer::Predicted(Predictions::All((0..n).map(take).collect::<Result<_>>()?)))
        }
        EACH => {
            let n = take_count(input)?;
            let take = |_| match input.u8()? {
                1 => {
                    let inference = coder.decode(input, Nesting::Nested)?;
                    Ok(Ok(Answered { inference, model_id: take_maybe(input)? }))
                }
                _ => take_error(input).map(Err),
            };
            Ok(Answer::Predicted(Predictions::Told((0..n).map(take).collect::<Result<_>>()?)))
        }
        other => Err(foreign(format_args!("answer {other}"))),
    }
}

fn foreign(what: impl fmt::Display) -> Error {
    let message = format!("a model's process and its job don't understand each other: {what}");
    Error::new(ErrorKind::Io, NOT_OURS, message)
        .with_help("both are the same program: was it replaced while it ran?")
        .with_retryable(false)
}

fn put_flag(is_there: bool, out: &mut Vec<u8>) {
    out.push(u8::from(is_there));
}

fn put_maybe(text: Option<&str>, out: &mut Vec<u8>) {
    put_flag(text.is_some(), out);
    if let Some(text) = text {
        put_text(text, out);
    }
}

fn take_maybe(input: &mut Reader) -> Result<Option<Arc<str>>> {
    if input.u8()? == 0 { Ok(None) } else { take_text(input).map(Some) }
}

fn put_error(error: &Error, out: &mut Vec<u8>) -> Result<()> {
    Failure::coder().encode(&Failure::of("", error), out, Nesting::Nested)?;
    put_maybe(error.help(), out);
    put_flag(error.is_retryable(), out);
    Ok(())
}

fn take_error(input: &mut Reader) -> Result<Error> {
    let told = Failure::coder().decode(input, Nesting::Nested)?;
    let (help, is_retryable) = (take_maybe(input)?, input.u8()? != 0);
    let mut error = Error::new(kind_of(&told.kind), code_of(&told.code), told.message);
    if let Some(cause) = Told::chain(told.causes) {
        error = error.with_source(cause);
    }
    if let Some(help) = help {
        error = error.with_help(&*help);
    }
    if let Some(place) = told.source {
        error = error.at_place(place);
    }
    Ok(error.with_retryable(is_retryable))
}

fn kind_of(name: &str) -> ErrorKind {
    use ErrorKind::{
        Cancelled, Inference, Internal, InvalidArgument, InvalidData, InvalidPipeline, Io, Model, NotFound,
        OutOfMemory, Output, Panic, Timeout, Unsupported, UserCode,
    };
    let kinds = [
        InvalidArgument,
        InvalidPipeline,
        InvalidData,
        UserCode,
        Panic,
        Model,
        Inference,
        OutOfMemory,
        NotFound,
        Output,
        Io,
        Timeout,
        Cancelled,
        Unsupported,
        Internal,
    ];
    kinds.into_iter().find(|kind| format!("{kind:?}") == name).unwrap_or(Inference)
}

/// The code as one that lasts. There are as many as we have; what is none of ours is not kept.
fn code_of(code: &str) -> &'static str {
    static CODES: LazyLock<Mutex<BTreeSet<&'static str>>> = LazyLock::new(Mutex::default);
    const MOST_CODES: usize = 1000;
    let mut codes = CODES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = codes.get(code) {
        return known;
    }
    let is_code =
        code.strip_prefix("TB").is_some_and(|n| n.len() == 4 && n.bytes().all(|b| b.is_ascii_digit()));
    if !is_code || codes.len() >= MOST_CODES {
        return NOT_OURS;
    }
    let kept: &'static str = Box::leak(code.to_owned().into_boxed_str());
    codes.insert(kept);
    kept
}

/// What an error underneath said in the other process.
#[derive(Debug)]
struct Told(String, Option<Box<Told>>);

impl Told {
    fn chain(causes: Vec<String>) -> Option<Told> {
        causes.into_iter().rev().fold(None, |inner, cause| Some(Told(cause, inner.map(Box::new))))
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Told {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.1.as_deref().map(|inner| inner as _)
    }
}

fn put_info(info: &ModelInfo, out: &mut Vec<u8>) {
    put_text(&info.model_id, out);
    for text in [&info.uri, &info.sha256, &info.device] {
        put_maybe(text.as_deref(), out);
    }
    for number in [info.bytes, info.max_concurrency.map(|calls| calls as u64)] {
        write_varint(number.map_or(-1, |number| i64::try_from(number).unwrap_or(i64::MAX)), out);
    }
}

fn take_info(input: &mut Reader) -> Result<ModelInfo> {
    let model_id = take_text(input)?;
    let mut text = || Ok::<_, Error>(take_maybe(input)?.map(|text| text.to_string()));
    let (uri, sha256, device) = (text()?, text()?, text()?);
    let bytes = u64::try_from(input.varint()?).ok();
    let max_concurrency = usize::try_from(input.varint()?).ok();
    Ok(ModelInfo { model_id, uri, sha256, bytes, device, max_concurrency })
}

fn put_ports(ports: &[Port], out: &mut Vec<u8>) {
    write_varint(ports.len() as i64, out);
    for port in ports {
        put_text(&port.name, out);
        put_text(&port.type_name, out);
        put_maybe(port.dtype.map(DType::name), out);
        put_flag(port.shape.is_some(), out);
        let Some(shape) = &port.shape else { continue };
        write_varint(shape.len() as i64, out);
        for dim in shape {
            match dim {
                Dim::Free => out.push(0),
                Dim::Fixed(size) => {
                    out.push(1);
                    write_varint(*size as i64, out);
                }
                Dim::Named(name) => {
                    out.push(2);
                    put_text(name, out);
                }
            }
        }
    }
}

fn take_ports(input: &mut Reader) -> Result<Vec<Port>> {
    let dim = |input: &mut Reader| match input.u8()? {
        0 => Ok(Dim::Free),
        1 => take_count(input).map(Dim::Fixed),
        2 => take_text(input).map(Dim::Named),
        other => Err(foreign(format_args!("axis {other}"))),
    };
    let port = |input: &mut Reader| {
        let (name, type_name) = (take_text(input)?, take_text(input)?.to_string());
        let dtype = take_maybe(input)?.and_then(|name| DType::from_name(&name));
        let shape = match input.u8()? {
            0 => None,
            _ => {
                let n = take_count(input)?;
                Some((0..n).map(|_| dim(input)).collect::<Result<_>>()?)
            }
        };
        Ok(Port { name, type_name, dtype, shape })
    };
    let n = take_count(input)?;
    (0..n).map(|_| port(input)).collect()
}

/// A number that is not the length of bytes that follow: examples may have none.
fn take_count(input: &mut Reader) -> Result<usize> {
    let count = input.varint()?;
    usize::try_from(count).map_err(|_| foreign(format_args!("a count of {count}")))
}

/// What a model's process has to know first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Which model it is for.
    pub(super) task: Task,
    /// The only folder in which files may be made.
    pub(super) scratch: String,
    /// Where the files are that the pipeline names in another way.
    pub(super) files: Vec<(String, String)>,
}

/// Which model a process is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// That of a step of the pipeline which this program builds.
    Placed {
        /// The step, and which of its handlers.
        place: String,
        /// How many isolated models were placed in the job's process before it, where the program runs as it did there.
        nth: Option<u64>,
        /// The job's options, where the program was told them.
        job: Option<Bytes>,
    },
    /// The one that was described to this program in its own words.
    Described(Bytes),
}

impl Hello {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_text(&self.scratch, &mut out);
        write_varint(self.files.len() as i64, &mut out);
        for (named, here) in &self.files {
            put_text(named, &mut out);
            put_text(here, &mut out);
        }
        let put_bytes = |bytes: &[u8], out: &mut Vec<u8>| {
            write_varint(bytes.len() as i64, out);
            out.extend_from_slice(bytes);
        };
        match &self.task {
            Task::Placed { place, nth, job } => {
                out.push(0);
                put_text(place, &mut out);
                write_varint(nth.map_or(-1, |nth| nth as i64), &mut out);
                put_flag(job.is_some(), &mut out);
                if let Some(job) = job {
                    put_bytes(job, &mut out);
                }
            }
            Task::Described(words) => {
                out.push(1);
                put_bytes(words, &mut out);
            }
        }
        out
    }

    pub(super) fn of_bytes(bytes: Vec<u8>) -> Result<Hello> {
        let input = &mut Reader::new(bytes);
        let scratch = take_text(input)?.to_string();
        let mut files = Vec::new();
        for _ in 0..take_count(input)? {
            files.push((take_text(input)?.to_string(), take_text(input)?.to_string()));
        }
        let take_bytes = |input: &mut Reader| {
            let n = input.length()?;
            input.take(n)
        };
        let task = match input.u8()? {
            0 => {
                let place = take_text(input)?.to_string();
                let nth = u64::try_from(input.varint()?).ok();
                let job = if input.u8()? == 0 { None } else { Some(take_bytes(input)?) };
                Task::Placed { place, nth, job }
            }
            _ => Task::Described(take_bytes(input)?),
        };
        Ok(Hello { task, scratch, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answer: Result<Answer<i64>>) -> Result<Answer<i64>> {
        let (coder, mut bytes) = (i64::coder(), Vec::new());
        put_answer(&coder, answer, &mut bytes).unwrap();
        for cut in 0..bytes.len() {
            let _refused = take_answer(&coder, &mut Reader::new(bytes[..cut].to_vec()));
        }
        take_answer(&coder, &mut Reader::new(bytes))
    }

    #[test]
    fn frames_come_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, b"abc").unwrap();
        write_frame(&mut bytes, b"").unwrap();
        let mut input = &bytes[..];
        assert_eq!(read_frame(&mut input).unwrap().unwrap(), b"abc");
        assert_eq!(read_frame(&mut input).unwrap().unwrap(), b"");
        assert_eq!(read_frame(&mut input).unwrap(), None);
        assert!(read_frame(&bytes[..6]).is_err(), "cut off");
        assert!(read_frame(&[0xff; 12][..]).is_err(), "no frame is that long");
    }

    #[test]
    fn what_is_asked_is_what_comes() {
        let coder = String::coder();
        let mut bytes = Vec::new();
        put_batch(&coder, &["a".to_owned(), "ä".to_owned()], &mut bytes).unwrap();
        assert!(matches!(take_ask(&coder, &mut Reader::new(bytes)), Ok(Ask::Predict(b)) if b == ["a", "ä"]));
        for version in [None, Some(ModelMetadata::of("models/v2.onnx"))] {
            let mut bytes = Vec::new();
            put_load(version.as_ref(), &mut bytes);
            assert!(matches!(take_ask(&coder, &mut Reader::new(bytes)), Ok(Ask::Load(v)) if v == version));
        }
        assert!(take_ask(&coder, &mut Reader::new(vec![9])).is_err());
    }

    #[test]
    fn answers_travel_with_all_that_they_say() {
        assert!(matches!(answered(Ok(Answer::Predicted(Predictions::All(vec![1, -2])))),
            Ok(Answer::Predicted(Predictions::All(all))) if all == [1, -2]));
        let refusal = Error::new(ErrorKind::InvalidData, "TB0340", "too wide").with_help("make it narrower");
        let each = Predictions::Each(vec![Ok(7), Err(refusal)]);
        let Ok(Answer::Predicted(each)) = answered(Ok(Answer::Predicted(each))) else {
            panic!("another answer")
        };
        let each = each.into_each();
        assert_eq!(each[0].as_ref().unwrap(), &Answered::from(7));
        let error = each[1].as_ref().unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::InvalidData, "TB0340"));
        assert_eq!((error.message(), error.help()), ("too wide", Some("make it narrower")));
        assert!(!error.is_retryable());

        let cause = Error::new(ErrorKind::Io, "TB0401", "disk on fire").with_source("smoke");
        let error = answered(Err(Error::new(ErrorKind::Model, "nonsense", "no model").with_source(cause)));
        let error = error.err().unwrap();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Model, NOT_OURS));
        assert_eq!(error.causes(), ["disk on fire", "smoke"]);

        let info = ModelInfo {
            model_id: "m.onnx".into(),
            sha256: Some("ab".to_owned()),
            bytes: Some(4),
            max_concurrency: Some(2),
            ..ModelInfo::default()
        };
        let shape = vec![Dim::Free, Dim::Fixed(1 << 40), Dim::Named("n".into())];
        let port = |name: &str, shape| Port {
            name: name.into(),
            type_name: "float32".to_owned(),
            dtype: Some(DType::F32),
            shape,
        };
        let (x, y) = (port("x", Some(shape)), port("y", None));
        let signature = Some(Signature { inputs: vec![x.clone()], outputs: vec![y] });
        let about = About { info, signature, takes: Some(vec![x]) };
        assert!(matches!(answered(Ok(Answer::Loaded(about.clone()))), Ok(Answer::Loaded(a)) if a == about));
        let told = vec![Ok(Answered { inference: 1, model_id: Some("other".into()) })];
        let told = answered(Ok(Answer::Predicted(Predictions::Told(told))));
        assert!(matches!(told, Ok(Answer::Predicted(Predictions::Told(t)))
            if t[0].as_ref().unwrap().model_id.as_deref() == Some("other")));
    }

    #[test]
    fn a_process_is_told_what_it_is_for() {
        let placed = |nth, job| Task::Placed { place: "Run, first handler".to_owned(), nth, job };
        let job = Some(Bytes::from_static(b"{}"));
        for task in [placed(None, job), placed(Some(3), None), Task::Described(Bytes::from_static(b"x"))] {
            let files = vec![("gs://b/m".to_owned(), "/cache/m".to_owned())];
            let hello = Hello { task, scratch: "/tmp/x".to_owned(), files };
            assert_eq!(Hello::of_bytes(hello.to_bytes()).unwrap(), hello);
        }
    }
}
