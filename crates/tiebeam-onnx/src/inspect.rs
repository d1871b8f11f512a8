//! Looking into a model file before a job starts: what it takes and gives, and which engines run it.

use std::fmt::Write;
use std::path::Path;

use tiebeam_core::error::Result;

use crate::engine::{self, Engine, EngineOptions};
use crate::file::ModelFile;
use crate::operators::{operators, rten_lacks};
use crate::signature::signature;
use tiebeam_inference::{Dim, Port};

/// What a model file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// `onnx`
    pub format: &'static str,
    /// The file, or the name that a model in memory was given.
    pub uri: String,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// The bytes of the file and of the weights beside it.
    pub bytes: u64,
    /// The numbers in its weights.
    pub parameters: u64,
    /// What goes in.
    pub inputs: Vec<Port>,
    /// What comes out.
    pub outputs: Vec<Port>,
    /// The operators that it is made of, in alphabetical order.
    pub operators: Vec<String>,
    /// Each engine, and whether it runs the model.
    pub engines: Vec<EngineReport>,
    /// A handler for a pipeline file, as YAML; none when no engine runs the model.
    pub handler: Option<String>,
}

/// What an engine says to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineReport {
    /// `rten` or `ort`.
    pub name: &'static str,
    /// Whether it loads the model.
    pub runs: bool,
    /// Why not, or what to know.
    pub why: String,
}

impl Inspection {
    /// The same as one JSON object: `{format, uri, sha256, bytes, parameters, inputs: [{name, dtype, shape}], outputs,
    /// operators, engines: [{name, runs, why}], handler}`. A free axis is its name or null; a free number of axes is a
    /// shape of null.
    pub fn to_json(&self) -> String {
        let ports = |ports: &[Port]| {
            let ports = ports.iter().map(|port| {
                let shape = port.shape.as_ref().map_or("null".to_owned(), |dims| {
                    array(dims.iter().map(|dim| match dim {
                        Dim::Fixed(size) => size.to_string(),
                        Dim::Named(name) => quoted(name),
                        Dim::Free => "null".to_owned(),
                    }))
                });
                let (name, dtype) = (quoted(&port.name), quoted(&port.type_name));
                format!("{{\"name\":{name},\"dtype\":{dtype},\"shape\":{shape}}}")
            });
            array(ports)
        };
        let engines = self.engines.iter().map(|engine| {
            format!(
                "{{\"name\":{},\"runs\":{},\"why\":{}}}",
                quoted(engine.name),
                engine.runs,
                quoted(&engine.why)
            )
        });
        format!(
            "{{\"format\":{},\"uri\":{},\"sha256\":{},\"bytes\":{},\"parameters\":{},\"inputs\":{},\"outputs\":{},\
             \"operators\":{},\"engines\":{},\"handler\":{}}}",
            quoted(self.format),
            quoted(&self.uri),
            quoted(&self.sha256),
            self.bytes,
            self.parameters,
            ports(&self.inputs),
            ports(&self.outputs),
            array(self.operators.iter().map(|name| quoted(name))),
            array(engines),
            self.handler.as_deref().map_or("null".to_owned(), quoted),
        )
    }
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Looks into a model file. `options` say where ONNX Runtime's library is; the engine that they name does not matter.
///
/// # Errors
/// When the file is no sound model. An engine that refuses it is part of the answer, not an error.
pub fn inspect(path: &Path, options: &EngineOptions) -> Result<Inspection> {
    Ok(inspect_file(&ModelFile::open(path, None)?, options))
}

/// As [`inspect`], for a model that was read already.
pub fn inspect_file(file: &ModelFile, options: &EngineOptions) -> Inspection {
    let (inputs, outputs) = signature(file);
    let engines = vec![rten_report(file, &inputs, &outputs), ort_report(file, &inputs, &outputs, options)];
    let handler = engines.iter().any(|engine| engine.runs).then(|| suggested(file, &inputs, &outputs));
    let weights = file.graph().initializer.iter();
    let numbers = weights.map(|tensor| tensor.dims.iter().map(|dim| (*dim).max(0) as u64).product::<u64>());
    Inspection {
        format: "onnx",
        uri: file.name().to_owned(),
        sha256: file.sha256().to_owned(),
        bytes: file.num_bytes(),
        parameters: numbers.sum(),
        operators: operators(file).into_iter().collect(),
        inputs,
        outputs,
        engines,
        handler,
    }
}

fn rten_report(file: &ModelFile, inputs: &[Port], outputs: &[Port]) -> EngineReport {
    let report = |runs, why: String| EngineReport { name: "rten", runs, why };
    let lacks = rten_lacks(file);
    if !lacks.is_empty() {
        return report(false, format!("lacks {}", lacks.join(", ")));
    }
    let typed = inputs.iter().chain(outputs);
    if let Some(port) =
        typed.clone().find(|port| matches!(port.type_name.as_str(), "str") || port.dtype.is_none())
    {
        return report(false, format!("has no {} ({})", port.type_name, port.name));
    }
    let options = EngineOptions::default().with_engine(Engine::Rten);
    match engine::open(file.clone(), inputs, outputs, &options) {
        Err(error) => report(false, reason(&error, file)),
        Ok(_) => {
            let mut wide = typed.filter(|port| matches!(port.type_name.as_str(), "float64" | "int64"));
            report(
                true,
                match wide.next() {
                    Some(port) => {
                        format!("computes {} as {}", port.type_name, port.type_name.replace("64", "32"))
                    }
                    None => "built in".to_owned(),
                },
            )
        }
    }
}

fn ort_report(file: &ModelFile, inputs: &[Port], outputs: &[Port], options: &EngineOptions) -> EngineReport {
    let report = |runs, why: String| EngineReport { name: "ort", runs, why };
    let found = match crate::find_onnxruntime(options.ort_dylib.as_deref()) {
        Ok(found) => found,
        Err(missing) => {
            let why = match missing.was_asked_for() {
                true => missing.into_error().message().to_owned(),
                false => "ONNX Runtime's library was not found".to_owned(),
            };
            return report(false, why);
        }
    };
    let wanted = outputs.iter().filter(|port| port.dtype.is_some()).cloned().collect::<Vec<_>>();
    let options =
        EngineOptions { engine: Engine::Ort, ort_dylib: Some(found.path.clone()), providers: Vec::new() };
    match engine::open(file.clone(), inputs, &wanted, &options) {
        Ok(_) => report(true, format!("{found:?}")),
        Err(error) => report(false, reason(&error, file)),
    }
}

/// An error's message without the model's name in front, with what is underneath.
fn reason(error: &tiebeam_core::Error, file: &ModelFile) -> String {
    let prefix = format!("model {}: ", file.name());
    let mut text = error.message().strip_prefix(&prefix).unwrap_or(error.message()).to_owned();
    for cause in error.causes() {
        let _ = write!(text, ": {}", cause.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    text
}

/// A handler for a pipeline file. Fields are taken to have the inputs' names.
fn suggested(file: &ModelFile, inputs: &[Port], outputs: &[Port]) -> String {
    let mut yaml = format!("type: OnnxModelHandlerNumpy\nconfig:\n  model_uri: {}\n", quoted(file.name()));
    if !inputs.is_empty() {
        let fields = inputs.iter().map(|port| format!("{0}: {0}", quoted(&port.name))).collect::<Vec<_>>();
        let _ = writeln!(yaml, "  inputs: {{{}}}", fields.join(", "));
    }
    let tensors = outputs.iter().filter(|port| port.dtype.is_some()).collect::<Vec<_>>();
    if tensors.len() < outputs.len() {
        let names = tensors.iter().map(|port| quoted(&port.name)).collect::<Vec<_>>();
        let _ = writeln!(yaml, "  outputs: [{}]", names.join(", "));
    }
    let one_a_call = |port: &Port| match port.shape.as_ref().and_then(|dims| dims.first()) {
        Some(Dim::Fixed(_)) | None => true,
        Some(Dim::Named(_) | Dim::Free) => false,
    };
    if inputs.iter().any(one_a_call) {
        yaml.push_str("  max_batch_size: 1\n");
    }
    yaml
}
