//! `tiebeam models bench`: how long a model takes, a batch size.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};
use tiebeam::core::row::Value;
use tiebeam::inference::{ModelHandler, Tensor, Tensors};
use tiebeam::launch::{Exit, print_error};
use tiebeam::onnx::{Dim, Engine, LoadOptions, OnnxModel, Port};
use tiebeam::torch::PytorchModelHandlerKeyedTensor;
use tiebeam::{Error, ErrorKind, Result};

use crate::output;

/// The command line of `tiebeam models bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// An .onnx file, or PyTorch weights with --model-class.
    model: PathBuf,
    /// The sizes of the batches.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "1,8,32", value_parser = batch)]
    batch: Vec<usize>,
    /// Which engines; all that run the model.
    #[arg(long, value_enum, default_value_t = Engines::All)]
    engine: Engines,
    /// The size of an axis that the model leaves free, such as seq=128; 1 where it is not told. As often as wanted.
    #[arg(long = "dim", value_name = "NAME=SIZE", value_parser = dim)]
    dims: Vec<(String, usize)>,
    /// The architecture that PyTorch weights belong to.
    #[arg(long, value_name = "CLASS")]
    model_class: Option<String>,
    /// An argument of the architecture; a value that is JSON is taken as JSON. As often as wanted.
    #[arg(long = "model-param", value_name = "NAME=VALUE", value_parser = param)]
    params: Vec<(String, Json)>,
    /// How long each batch size is measured.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engines {
    /// rten and ONNX Runtime, if it is here.
    All,
    /// The built-in engine.
    Rten,
    /// ONNX Runtime.
    Ort,
}

fn batch(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(n @ 1..=1_000_000) => Ok(n),
        _ => Err(format!("wanted a number from 1 to 1000000, got `{text}`")),
    }
}

fn dim(text: &str) -> Result<(String, usize), String> {
    let wanted = || format!("wanted an axis and its size, such as seq=128, got `{text}`");
    let (name, size) = text.split_once('=').ok_or_else(wanted)?;
    match size.parse() {
        Ok(size @ 1..) if !name.is_empty() => Ok((name.to_owned(), size)),
        _ => Err(wanted()),
    }
}

fn param(text: &str) -> Result<(String, Json), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Json::String(value.to_owned()));
            Ok((name.to_owned(), value))
        }
        _ => Err(format!("wanted name=value, got `{text}`")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("wanted seconds from 0 to 3600, got `{text}`")),
    }
}

/// What one batch size took on one engine.
struct Line {
    engine: &'static str,
    batch: usize,
    calls: Vec<Duration>,
}

impl Line {
    /// The time that so many of a hundred calls stay within.
    fn percentile(&self, percent: usize) -> f64 {
        let last = self.calls.len().saturating_sub(1);
        let rank = (self.calls.len() * percent).div_ceil(100).saturating_sub(1);
        self.calls.get(rank.min(last)).map_or(0.0, |call| call.as_secs_f64() * 1000.0)
    }

    fn rows_a_second(&self) -> f64 {
        let all: f64 = self.calls.iter().map(Duration::as_secs_f64).sum();
        (self.batch * self.calls.len()) as f64 / all.max(1e-9)
    }
}

/// Measures a model.
pub fn bench(args: &BenchArgs) -> Exit {
    match measured(args) {
        Ok(text) => {
            output::stdout(text.as_bytes());
            Exit::Ok
        }
        Err(error) => {
            print_error(&error);
            if error.code() == "TB0594" { Exit::BadUsage } else { Exit::ModelRefused }
        }
    }
}

fn measured(args: &BenchArgs) -> Result<String> {
    let mut lines = Vec::new();
    let mut inputs = Vec::new();
    let mut left_out = Vec::new();
    let engines: &[(Engine, &'static str)] = match args.engine {
        Engines::All => &[(Engine::Rten, "rten"), (Engine::Ort, "ort")],
        Engines::Rten => &[(Engine::Rten, "rten")],
        Engines::Ort => &[(Engine::Ort, "ort")],
    };
    for (engine, name) in engines {
        let model = match load(args, *engine) {
            Ok(model) => model,
            // What one engine lacks the other may have; why is said beside the figures of those that run.
            Err(error)
                if engines.len() > 1
                    && (*engine == Engine::Ort || error.kind() == ErrorKind::Unsupported) =>
            {
                left_out.push((*name, error));
                continue;
            }
            Err(error) => return Err(error),
        };
        let row = row(&model, &args.dims)?;
        if inputs.is_empty() {
            inputs = model.inputs().iter().zip(row.values()).map(|(p, t)| (p.clone(), t.shape())).collect();
        }
        for batch in &args.batch {
            lines.push(Line { engine: name, batch: *batch, calls: run(&model, &row, *batch, args.seconds)? });
        }
    }
    if lines.is_empty() {
        return Err(left_out
            .pop()
            .map_or_else(|| Error::internal("no engine was asked for"), |(_, error)| error));
    }
    Ok(match args.json {
        true => format!("{:#}\n", as_json(&args.model, &inputs, &lines, &left_out)),
        false => as_text(&args.model, &inputs, &lines, &left_out),
    })
}

fn load(args: &BenchArgs, engine: Engine) -> Result<OnnxModel> {
    let Some(class) = &args.model_class else {
        let extension = args.model.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        if matches!(extension.as_deref(), Some("pth" | "pt" | "bin" | "safetensors")) {
            let message = format!("{} holds weights alone, which are no model", args.model.display());
            return Err(Error::new(ErrorKind::InvalidArgument, "TB0594", message).with_help(
                "add `--model-class CLASS`, and `--model-param NAME=VALUE` for its arguments; `tiebeam models inspect` lists classes",
            ));
        }
        let mut options = LoadOptions::default();
        options.engine = options.engine.with_engine(engine);
        return OnnxModel::load(&args.model, &options);
    };
    let params = args.params.iter().map(|(name, value)| (name.clone(), plain(value)));
    PytorchModelHandlerKeyedTensor::new(&args.model, class.as_str())
        .with_params(params)
        .with_engine(engine)
        .named_outputs()
        .load_model()
}

fn plain(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int64(number),
            None => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(text.as_str().into()),
        Json::Array(items) => Value::Array(items.iter().map(plain).collect()),
        Json::Object(_) => Value::String(value.to_string().into()),
    }
}

/// A row of the model's shapes: the first axis is the batch where it is free, numbers between 0 and 1, whole numbers 1.
fn row(model: &OnnxModel, dims: &[(String, usize)]) -> Result<Tensors> {
    let known: Vec<&str> = model.inputs().iter().flat_map(free_axes).collect();
    if let Some((name, _)) = dims.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        let message = format!("the model has no free axis `{name}`");
        let help = match known.as_slice() {
            [] => "it has none with a name".to_owned(),
            known => format!("free axes: {}", known.join(", ")),
        };
        return Err(Error::new(ErrorKind::InvalidArgument, "TB0594", message).with_help(help));
    }
    let mut values = Vec::with_capacity(model.inputs().len());
    for port in model.inputs() {
        let axes = port.shape.as_deref().unwrap_or(&[]);
        // What leaves its first axis free, or fixes it to one, is given rows.
        let axes = match axes.first() {
            Some(Dim::Named(_) | Dim::Free | Dim::Fixed(1)) => &axes[1..],
            _ => axes,
        };
        let shape: Vec<usize> = axes
            .iter()
            .map(|axis| match axis {
                Dim::Fixed(size) => *size,
                Dim::Named(name) => {
                    dims.iter().find(|(known, _)| **known == **name).map_or(1, |(_, size)| *size)
                }
                Dim::Free => 1,
            })
            .collect();
        values.push(tensor(port, &shape)?);
    }
    let names: Vec<std::sync::Arc<str>> = model.inputs().iter().map(|port| port.name.clone()).collect();
    Tensors::new(names, values)
}

/// The axes that can be told by name, but for the batch's.
fn free_axes(port: &Port) -> Vec<&str> {
    let axes = port.shape.as_deref().unwrap_or(&[]);
    let named = axes.iter().skip(1).filter_map(|axis| match axis {
        Dim::Named(name) => Some(&**name),
        _ => None,
    });
    named.collect()
}

fn tensor(port: &Port, shape: &[usize]) -> Result<Tensor> {
    use tiebeam::inference::DType;
    let n: usize = shape.iter().product();
    // The same numbers every time, and none of them special.
    let number = |i: usize| ((i * 7 + 3) % 101) as f64 / 101.0;
    Ok(match port.dtype {
        Some(DType::F32) => Tensor::new(shape, (0..n).map(|i| number(i) as f32).collect())?,
        Some(DType::F64) => Tensor::new(shape, (0..n).map(number).collect())?,
        Some(DType::I64) => Tensor::new(shape, vec![1i64; n])?,
        Some(DType::I32) => Tensor::new(shape, vec![1i32; n])?,
        Some(DType::U8) => Tensor::new(shape, vec![1u8; n])?,
        Some(DType::I8) => Tensor::new(shape, vec![1i8; n])?,
        Some(DType::Bool) => Tensor::new(shape, vec![true; n])?,
        Some(DType::Str) => Tensor::new(shape, vec![std::sync::Arc::<str>::from("a"); n])?,
        // A model with such an input was refused when it was loaded.
        None => return Err(Error::internal(format!("input {} is of no type that tensors have", port.name))),
    })
}

/// The times of calls, from the shortest to the longest; the first calls, in which engines make themselves ready, do not
/// count.
fn run(model: &OnnxModel, row: &Tensors, batch: usize, seconds: f64) -> Result<Vec<Duration>> {
    let rows = vec![row.clone(); batch];
    for _ in 0..2 {
        model.run::<_, Tensors>(&rows)?;
    }
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut calls = Vec::new();
    while calls.is_empty() || (Instant::now() < end && calls.len() < 100_000) {
        let start = Instant::now();
        model.run::<_, Tensors>(&rows)?;
        calls.push(start.elapsed());
    }
    calls.sort_unstable();
    Ok(calls)
}

type Shapes = [(Port, Vec<usize>)];

fn as_text(model: &Path, inputs: &Shapes, lines: &[Line], left_out: &[(&str, Error)]) -> String {
    let mut text = format!("{}\n", model.display());
    for (port, shape) in inputs {
        let _ = writeln!(text, "  a row of {}: {} {shape:?}", port.name, port.type_name);
    }
    let _ = writeln!(
        text,
        "{:8} {:>7} {:>8} {:>11} {:>11} {:>13}",
        "engine", "batch", "calls", "p50 ms", "p99 ms", "rows/s"
    );
    for line in lines {
        let _ = writeln!(
            text,
            "{:8} {:>7} {:>8} {:>11.3} {:>11.3} {:>13.0}",
            line.engine,
            line.batch,
            line.calls.len(),
            line.percentile(50),
            line.percentile(99),
            line.rows_a_second()
        );
    }
    for (engine, error) in left_out {
        let _ = writeln!(text, "{engine}: not measured: {}", error.message());
    }
    text
}

fn as_json(model: &Path, inputs: &Shapes, lines: &[Line], left_out: &[(&str, Error)]) -> Json {
    let inputs: Vec<Json> = inputs
        .iter()
        .map(|(port, shape)| json!({ "name": &*port.name, "dtype": port.type_name, "row_shape": shape }))
        .collect();
    let results: Vec<Json> = lines
        .iter()
        .map(|line| {
            json!({
                "engine": line.engine, "batch": line.batch, "calls": line.calls.len(),
                "p50_ms": line.percentile(50), "p99_ms": line.percentile(99), "rows_per_second": line.rows_a_second(),
            })
        })
        .collect();
    let left_out: Vec<Json> =
        left_out.iter().map(|(engine, error)| json!({ "engine": engine, "why": error.message() })).collect();
    json!({ "model": model.display().to_string(), "inputs": inputs, "results": results, "not_measured": left_out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_calls() {
        let calls = (1..=200).map(Duration::from_millis).collect();
        let line = Line { engine: "rten", batch: 2, calls };
        assert_eq!((line.percentile(50), line.percentile(99), line.percentile(100)), (100.0, 198.0, 200.0));
        let one = Line { engine: "rten", batch: 10, calls: vec![Duration::from_secs(2)] };
        assert_eq!((one.percentile(50), one.percentile(99), one.rows_a_second()), (2000.0, 2000.0, 5.0));
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(dim("seq=128"), Ok(("seq".to_owned(), 128)));
        assert!(dim("seq").is_err() && dim("seq=0").is_err() && dim("=3").is_err());
        assert!(batch("0").is_err() && batch("x").is_err());
    }
}
