//! `tiebeam models`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tiebeam::Result;
use tiebeam::launch::{Exit, print_error};
use tiebeam::onnx::{EngineOptions, Inspection, Port};
use tiebeam::torch::{StateDict, architectures};

use crate::{bench, output};

/// The command line of `tiebeam models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    verb: ModelsVerb,
}

#[derive(Debug, Subcommand)]
enum ModelsVerb {
    /// Says what a model takes and gives, and which engines run it.
    Inspect {
        /// An .onnx file, or PyTorch weights: .pth, .pt, .safetensors.
        model: PathBuf,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Measures latency and throughput a batch size, on inputs made of the model's shapes.
    Bench(bench::BenchArgs),
}

/// Looks into a model file.
pub fn models(args: &ModelsArgs) -> Exit {
    let (model, json) = match &args.verb {
        ModelsVerb::Inspect { model, json } => (model, json),
        ModelsVerb::Bench(args) => return bench::bench(args),
    };
    match inspect(model, *json) {
        Ok(text) => {
            output::stdout(text.as_bytes());
            Exit::Ok
        }
        Err(error) => {
            print_error(&error);
            Exit::ModelRefused
        }
    }
}

fn inspect(path: &Path, json: bool) -> Result<String> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    if matches!(extension.as_deref(), Some("pth" | "pt" | "bin" | "safetensors")) {
        let weights = StateDict::open(path)?;
        return Ok(if json { format!("{:#}\n", weights_json(&weights)) } else { weights_text(&weights) });
    }
    let inspection = tiebeam::onnx::inspect(path, &EngineOptions::default())?;
    Ok(if json { format!("{}\n", inspection.to_json()) } else { onnx_text(&inspection) })
}

fn ports(text: &mut String, title: &str, ports: &[Port]) {
    for port in ports {
        let shape = match &port.shape {
            None => "any shape".to_owned(),
            Some(dims) => {
                format!("[{}]", dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        };
        let _ = writeln!(text, "  {title:7} {} {} {shape}", port.name, port.type_name);
    }
}

fn onnx_text(inspection: &Inspection) -> String {
    let mut text = format!(
        "{}: {}, {} bytes, {} parameters\n",
        inspection.uri, inspection.format, inspection.bytes, inspection.parameters
    );
    let _ = writeln!(text, "  sha256  {}", inspection.sha256);
    ports(&mut text, "input", &inspection.inputs);
    ports(&mut text, "output", &inspection.outputs);
    for engine in &inspection.engines {
        let runs = if engine.runs { "runs" } else { "does not run" };
        let _ = writeln!(text, "  engine  {} {runs}: {}", engine.name, engine.why);
    }
    if let Some(handler) = &inspection.handler {
        text.push_str("\nmodel_handler:\n");
        for line in handler.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

fn format_of(weights: &StateDict) -> &'static str {
    if weights.file().ends_with(".safetensors") { "safetensors" } else { "pytorch" }
}

fn parameters(weights: &StateDict) -> u64 {
    weights.iter().map(|(_, tensor)| tensor.shape().iter().map(|dim| *dim as u64).product::<u64>()).sum()
}

fn weights_text(weights: &StateDict) -> String {
    let mut text = format!(
        "{}: {} state dict, {} bytes, {} parameters\n",
        weights.file(),
        format_of(weights),
        weights.file_bytes(),
        parameters(weights)
    );
    let _ = writeln!(text, "  sha256  {}", weights.sha256());
    for (name, tensor) in weights.iter() {
        let _ = writeln!(text, "  tensor  {name} {} {:?}", tensor.dtype().name(), tensor.shape());
    }
    let _ = writeln!(text, "\nweights alone are no model: `model_class` says what they are the weights of");
    let _ = writeln!(text, "  classes {}", architectures().join(", "));
    text
}

fn weights_json(weights: &StateDict) -> Value {
    let tensors: Vec<Value> = weights
        .iter()
        .map(
            |(name, tensor)| json!({ "name": name, "dtype": tensor.dtype().name(), "shape": tensor.shape() }),
        )
        .collect();
    json!({
        "format": format_of(weights),
        "uri": weights.file(),
        "sha256": weights.sha256(),
        "bytes": weights.file_bytes(),
        "parameters": parameters(weights),
        "inputs": [],
        "outputs": [],
        "tensors": tensors,
        "engines": [],
        "model_classes": architectures(),
    })
}
