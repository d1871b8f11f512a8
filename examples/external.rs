//! Transforms of Python's in a Rust pipeline: Beam's own `Count.PerElement`, and Python's RunInference with a handler written
//! in Python. An engine runs them in a Python that is started for the job: the one that `TIEBEAM_PYTHON` names.
//!
//! ```text
//! $ TIEBEAM_PYTHON=/path/to/python cargo run -p tiebeam --example external -- \
//!     --runner portable --job-endpoint 127.0.0.1:8099 --output out/external
//! $ sort out/external-*
//! 2 -> 10
//! 3 -> 15
//! a: 3
//! b: 1
//! c: 1
//! ```

use std::process::ExitCode;

use tiebeam::external;
use tiebeam::io::text;
use tiebeam::prelude::*;

/// What Python's RunInference gives: the fields of its PredictionResult.
#[derive(Debug, Clone, PartialEq, Element)]
struct Prediction {
    example: f64,
    inference: f64,
}

/// Gives a model handler, in Python.
const HANDLER: &str = r#"
def five_times(factor):
    from apache_beam.ml.inference.base import ModelHandler, PredictionResult

    class Times(ModelHandler):
        def load_model(self):
            return lambda x: x * factor

        def run_inference(self, batch, model, inference_args=None):
            return [PredictionResult(x, model(x)) for x in batch]

    return Times()
"#;

/// Counts letters and asks a model, both in Python, and writes what came back.
pub fn build(p: &Pipeline, options: &Options) {
    let output = if options.output.is_empty() { "out/external" } else { &options.output };
    let letters = ["a", "b", "a", "c", "a"].map(str::to_owned);
    let counted = p
        .step("Letters")
        .apply(Create::of(letters))
        .step("Count")
        .apply(external::python::<(String, i64)>("apache_beam.transforms.combiners.Count.PerElement"))
        .map(|(letter, n)| format!("{letter}: {n}"));
    let predicted = p
        .step("Numbers")
        .apply(Create::of([2.0, 3.0]))
        .step("Predict")
        .apply(
            external::python::<Prediction>("apache_beam.ml.inference.base.RunInference.from_callable")
                .kwarg("model_handler_provider", external::callable(HANDLER))
                .kwarg("factor", 5.0),
        )
        .map(|result| format!("{} -> {}", result.example, result.inference));
    p.flatten([counted, predicted]).step("Write").apply(text::write(output));
}

/// The program.
pub fn main() -> ExitCode {
    tiebeam::main(build)
}
