//! Says what a file is that is no state dict.

use tiebeam_core::error::{Error, ErrorKind};

use super::archive::Archive;
use super::pickle;

/// The error for a file of no known format.
pub(super) fn foreign(data: &bytes::Bytes, file: &str) -> Error {
    let (is, help) = describe(data);
    let error =
        Error::new(ErrorKind::Model, "TB0360", format!("model file {file} is not a state dict: {is}"));
    let error = match help {
        Some(help) => error.with_help(help),
        None => {
            error.with_help("wanted is what torch.save(model.state_dict(), path) writes, or .safetensors")
        }
    };
    // A pickle that torch.save did not write: the global that it calls tells what it is.
    if data.first() == Some(&0x80) && data.get(1).is_some_and(|protocol| (2..=5).contains(protocol)) {
        return match pickle::unpickle(data, 0, file, Some(0)) {
            Err(refusal) if matches!(refusal.code(), "TB0363" | "TB0365") => refusal,
            _ => error,
        };
    }
    error
}

fn describe(data: &[u8]) -> (String, Option<&'static str>) {
    let start = &data[..data.len().min(1024)];
    let text = std::str::from_utf8(start).unwrap_or_else(|e| {
        // A cut in the middle of a character is no sign of a binary file.
        if start.len() - e.valid_up_to() < 4 {
            std::str::from_utf8(&start[..e.valid_up_to()]).unwrap_or_default()
        } else {
            ""
        }
    });
    let lower = text.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    let is_text =
        !text.is_empty() && !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    let plain = |what: &str| (what.to_owned(), None);
    if data.is_empty() {
        return plain("it is empty");
    }
    if lower.starts_with("version https://git-lfs") {
        return (
            "it is a Git LFS pointer, not the file itself".to_owned(),
            Some("fetch it with git lfs pull"),
        );
    }
    if lower.starts_with("<!doctype") || lower.starts_with("<html") || lower.starts_with("<?xml") {
        let help = "a download page was saved in place of the file; download the file itself";
        return ("it is an HTML or XML page".to_owned(), Some(help));
    }
    if is_text {
        let first: String = text.lines().next().unwrap_or_default().chars().take(40).collect();
        return (format!("it is text that begins with {first:?}"), None);
    }
    if is_onnx(data) {
        return ("it is an ONNX model".to_owned(), Some("run it with OnnxModelHandler"));
    }
    match start {
        [0x1f, 0x8b, ..] => plain("it is compressed with gzip"),
        [b'P', b'K', ..] => plain("it is a cut off zip archive"),
        [0x89, b'H', b'D', b'F', ..] => plain("it is an HDF5 file (Keras?)"),
        [b'G', b'G', b'U', b'F', ..] => plain("it is a GGUF model"),
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => {
            ("it is a TensorFlow Lite model".to_owned(), Some("run it with TFModelHandler"))
        }
        [0x80, 2..=5, ..] => plain("it is a pickle that torch.save did not write, or a cut off file"),
        _ if data.get(257..262) == Some(b"ustar") => {
            plain("it is a tar archive, as torch wrote them before 0.2")
        }
        _ => {
            let first: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            (format!("its format is unknown (first bytes {})", first.join(" ")), None)
        }
    }
}

/// ONNX's ModelProto begins with its ir_version, followed by the producer's name, domain, a version or the graph.
fn is_onnx(data: &[u8]) -> bool {
    matches!(data, [0x08, 1..=20, 0x12 | 0x1a | 0x22 | 0x2a | 0x3a | 0x42, ..])
}

/// The error for a zip archive that torch did not write.
pub(super) fn foreign_archive(archive: &Archive, file: &str) -> Error {
    let has = |wanted: &str| archive.names().any(|name| name == wanted);
    let is = if has("[Content_Types].xml") {
        "an Office document"
    } else if has("META-INF/MANIFEST.MF") {
        "a Java archive"
    } else if has("config.json") && has("model.weights.h5") {
        "a Keras model"
    } else if archive.names().any(|name| name.ends_with(".npy")) {
        "numpy arrays"
    } else {
        "a zip archive without data.pkl"
    };
    Error::new(ErrorKind::Model, "TB0360", format!("model file {file} is not a state dict: it is {is}"))
        .with_help("wanted is what torch.save(model.state_dict(), path) writes, or .safetensors")
}
