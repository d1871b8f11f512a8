//! File types: what each file is, told by magika's model from its first and last kilobyte.
//!
//! The model and its labels come with `cargo xtask fetch magika`.
//!
//! ```text
//! $ cargo run -p tiebeam --example file_types -- --input 'examples/data/file_types/*.sample' --output out/types
//! $ sort out/types-*
//! c.sample: c 0.99
//! csv.sample: csv 1.00
//! html.sample: html 0.97
//! …
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tiebeam::inference::{ModelHandler, RunInference, Tensor};
use tiebeam::io::{files, text};
use tiebeam::onnx::OnnxModelHandler;
use tiebeam::prelude::*;

/// The model looks at this many bytes at each end.
const END: usize = 1024;
/// It was trained on ends of at most this many bytes before white space was taken off.
const BLOCK: usize = 4096;
/// Stands where a file has no more bytes.
const PADDING: i32 = 256;

/// Where `cargo xtask fetch` puts magika, unless `--set magika=DIR` says otherwise.
pub fn model_dir(options: &Options) -> PathBuf {
    let cache = std::env::var_os("TIEBEAM_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/tiebeam"),
        PathBuf::from,
    );
    match options.get("magika") {
        Some(dir) => dir.into(),
        None => cache.join("magika-1.0.3/magika/models/standard_v3_3"),
    }
}

/// Reads whole files, asks the model, and writes name, label and score of each.
pub fn build(p: &Pipeline, options: &Options) {
    let input = if options.input.is_empty() { "examples/data/file_types/*.sample" } else { &options.input };
    let output = if options.output.is_empty() { "out/types" } else { &options.output };
    let dir = model_dir(options);
    let mut model = OnnxModelHandler::new(dir.join("model.onnx"));
    match options.get("engine").map(str::parse) {
        Some(Ok(engine)) => model = model.with_engine(engine),
        Some(Err(unknown)) => p.fail(unknown),
        None => {}
    }
    if let Some(library) = options.get("ort_dylib") {
        model = model.with_ort_dylib(library);
    }
    let labels = labels_in(&dir);

    p.step("Read")
        .apply(files::read_whole(input))
        .step("Features")
        .map(|(path, bytes)| (path, features(&bytes)))
        .step("Ask")
        .apply(RunInference::new(model.carrying::<String>()))
        .step("Name")
        .map(move |result| {
            let scores = result.inference.as_slice::<f32>().unwrap_or_default();
            let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or_default();
            let label = labels.get(best).map_or("unknown", String::as_str);
            let name =
                Path::new(&result.example.0).file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("{name}: {label} {:.2}", scores.get(best).copied().unwrap_or_default())
        })
        .step("Write")
        .apply(text::write(output));
}

/// The first and the last kilobyte without the white space around them, as magika does it.
pub fn features(bytes: &[u8]) -> Tensor {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let head = &bytes[..bytes.len().min(BLOCK)];
    let head = &head[head.iter().position(|b| !is_space(b)).unwrap_or(head.len())..];
    let tail = &bytes[bytes.len().saturating_sub(BLOCK)..];
    let tail = &tail[..tail.iter().rposition(|b| !is_space(b)).map_or(0, |last| last + 1)];
    let head = &head[..head.len().min(END)];
    let tail = &tail[tail.len().saturating_sub(END)..];
    let mut tokens = vec![PADDING; 2 * END];
    for (token, byte) in tokens.iter_mut().zip(head) {
        *token = i32::from(*byte);
    }
    for (token, byte) in tokens[2 * END - tail.len()..].iter_mut().zip(tail) {
        *token = i32::from(*byte);
    }
    Tensor::vector(tokens)
}

/// The model's labels, out of the list `target_labels_space` in its configuration. A missing one leaves numbers unnamed;
/// the missing model beside it is what the run will complain about.
fn labels_in(dir: &Path) -> Vec<String> {
    let config = std::fs::read_to_string(dir.join("config.min.json")).unwrap_or_default();
    let list = config.split("\"target_labels_space\"").nth(1).unwrap_or_default();
    let list = list.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    list.split(',').map(|label| label.trim().trim_matches('"').to_owned()).collect()
}

/// The program.
pub fn main() -> ExitCode {
    tiebeam::main(build)
}
