//! Model files: what a file is and whether it is whole, before anything is made of it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use tiebeam_core::error::{Error, ErrorKind, Result};

use crate::model::{Read, Refusal};
use crate::{json, lightgbm, ubjson, xgboost};

/// Whose model a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// XGBoost's `.json` and `.ubj`.
    Xgboost,
    /// LightGBM's text.
    Lightgbm,
}

impl Format {
    /// `xgboost` or `lightgbm`.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Xgboost => "xgboost",
            Format::Lightgbm => "lightgbm",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Xgboost => "XGBoost",
            Format::Lightgbm => "LightGBM",
        })
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Format::Xgboost, Format::Lightgbm].into_iter().find(|format| format.name() == text).ok_or_else(
            || {
                let what = format!("there is no format `{text}` of trees, only xgboost and lightgbm");
                Error::new(ErrorKind::InvalidArgument, "TB0384", what)
            },
        )
    }
}

/// How a file is written.
#[derive(Clone, Copy)]
enum Form {
    Json,
    Ubjson,
    Text,
}

/// An error of kind [`Model`](ErrorKind::Model) that names the model.
pub(crate) fn model_error(code: &'static str, name: &str, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Model, code, format!("model {name}: {what}"))
}

/// The bytes of a file.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>> {
    let name = path.display().to_string();
    std::fs::read(path).map_err(|e| {
        let what = match e.kind() {
            std::io::ErrorKind::NotFound => "there is no such file",
            std::io::ErrorKind::IsADirectory => "this is a directory, not a file",
            _ => "the file cannot be read",
        };
        model_error("TB0380", &name, what).with_source(e)
    })
}

/// The digest in hex; an error where another is wanted.
pub(crate) fn digest(name: &str, bytes: &[u8], wanted: Option<&str>) -> Result<String> {
    use std::fmt::Write;
    let sha256 = Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    match wanted {
        Some(wanted) if !wanted.eq_ignore_ascii_case(&sha256) => {
            let what = format!("its SHA-256 is {sha256}, wanted {wanted}");
            Err(model_error("TB0383", name, what).with_help("fetch the file anew, or correct `sha256`"))
        }
        _ => Ok(sha256),
    }
}

/// What a file says, and whose it is.
pub(crate) fn read(name: &str, bytes: &[u8], wanted: Option<Format>, all: bool) -> Result<(Format, Read)> {
    if bytes.is_empty() {
        return Err(model_error("TB0381", name, "the file is empty"));
    }
    let Some(form) = form(bytes) else {
        let what = format!("neither XGBoost's nor LightGBM's{}", looks_like(bytes));
        let help = "write the model with save_model: XGBoost's to .json or .ubj, LightGBM's to .txt";
        return Err(model_error("TB0381", name, what).with_help(help));
    };
    let format = match form {
        Form::Text => Format::Lightgbm,
        Form::Json | Form::Ubjson => Format::Xgboost,
    };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != format) {
        let what = format!("this is a model of {format}, wanted one of {wanted}");
        return Err(model_error("TB0381", name, what));
    }
    let read = match form {
        Form::Json => {
            json::read(bytes).map_err(Refusal::Damaged).and_then(|document| xgboost::read(&document, all))
        }
        Form::Ubjson => {
            ubjson::read(bytes).map_err(Refusal::Damaged).and_then(|document| xgboost::read(&document, all))
        }
        Form::Text => match std::str::from_utf8(bytes) {
            Ok(text) => lightgbm::read(text),
            Err(_) => Err(Refusal::Damaged("the text is not UTF-8".to_owned())),
        },
    };
    read.map(|read| (format, read)).map_err(|refusal| match refusal {
        Refusal::Damaged(what) => {
            let what = format!("a damaged model of {format}: {what}");
            model_error("TB0382", name, what)
                .with_help("copy the file again, or write it anew with save_model")
        }
        Refusal::Foreign(what) => model_error("TB0381", name, format!("this is {what}")),
        Refusal::Unsupported(what) => {
            let what = format!("model {name}: {format}'s {what} can't be run here");
            Error::new(ErrorKind::Unsupported, "TB0384", what)
                .with_help("convert the model to ONNX with onnxmltools and run that")
        }
    })
}

/// How a model is written, by its first bytes.
fn form(bytes: &[u8]) -> Option<Form> {
    let text = bytes.trim_ascii_start();
    if text.starts_with(b"tree\n") || text.starts_with(b"tree\r\n") {
        return Some(Form::Text);
    }
    let inner = text.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    match inner.and_then(<[u8]>::first) {
        Some(b'"' | b'}') => Some(Form::Json),
        Some(b'L' | b'l' | b'I' | b'i' | b'U' | b'#') if bytes[0] == b'{' => Some(Form::Ubjson),
        // XGBoost's dump is a list; the message comes with what it has.
        _ => text.starts_with(b"[").then_some(Form::Json),
    }
}

/// What other files are, by their first bytes.
fn looks_like(bytes: &[u8]) -> &'static str {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).trim_start().to_ascii_lowercase();
    if starts(b"binf") || starts(b"bs64") {
        "; this looks like XGBoost's old binary format: load it with an XGBoost before 3.1 and write it as .ubj"
    } else if starts(b"\x80\x02") || starts(b"\x80\x03") || starts(b"\x80\x04") || starts(b"\x80\x05") {
        "; this looks like a Python pickle, which can carry programs and is never loaded"
    } else if starts(b"PK\x03\x04") {
        "; this looks like a zip file"
    } else if starts(b"\x1f\x8b") {
        "; this looks like a gzip file: unpack it first"
    } else if head.starts_with("<!doctype") || head.starts_with("<html") || head.starts_with("<?xml") {
        "; this looks like HTML: a web page was saved in place of the model"
    } else if head.starts_with("version https://git-lfs") {
        "; this is a Git LFS pointer: fetch the file itself with `git lfs pull`"
    } else if starts(b"\x08") {
        "; this may be an ONNX model: use OnnxModelHandler"
    } else {
        ""
    }
}
