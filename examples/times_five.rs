//! Times five: numbers from text files through a linear model that was trained on y = 5x.
//!
//! ```text
//! $ cargo run -p tiebeam --example times_five -- --output out/times_five
//! $ cat out/times_five-*
//! 20 -> 100
//! 30 -> 150
//! 40 -> 200
//! ```
//!
//! Another model of the same shape: `--set model=fixtures/models/ten.onnx`.

use std::process::ExitCode;

use tiebeam::inference::{PredictionResult, RunInference, Tensor};
use tiebeam::io::text;
use tiebeam::onnx::OnnxModelHandler;
use tiebeam::prelude::*;
use tiebeam::torch::PytorchModelHandlerTensor;

/// Reads numbers, one cell after another, and writes what the model says of each.
pub fn build(p: &Pipeline, options: &Options) {
    let input = if options.input.is_empty() { "examples/data/numbers.csv" } else { &options.input };
    let output = if options.output.is_empty() { "out/times_five" } else { &options.output };
    let predicted = predict(&numbers(p, input), options.get("model").unwrap_or("fixtures/models/five.pth"));
    predicted
        .map(|result| format!("{} -> {}", number(&result.example), number(&result.inference)))
        .step("Write")
        .apply(text::write(output));
}

/// The numbers in the cells of the lines of the files that match `input`. What is no number is counted and left out.
pub fn numbers(p: &Pipeline, input: &str) -> PCollection<Tensor> {
    let cells = p
        .step("Read")
        .apply(text::read(input))
        .step("Split")
        .flat_map(|line: String| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    cells.step("Parse").try_map(|cell: String| cell.trim().parse::<f32>().map(Tensor::scalar)).results
}

/// What the model in that file says: ONNX by its ending, else a PyTorch state dict.
pub fn predict(numbers: &PCollection<Tensor>, model: &str) -> PCollection<PredictionResult<Tensor, Tensor>> {
    if model.ends_with(".onnx") {
        return numbers.step("Model").apply(RunInference::new(OnnxModelHandler::new(model)));
    }
    let one_to_one = [("input_dim", Value::Int64(1)), ("output_dim", Value::Int64(1))];
    let handler = PytorchModelHandlerTensor::new(model, "LinearRegression").with_params(one_to_one);
    numbers.step("Model").apply(RunInference::new(handler))
}

/// The only number of a tensor; a model says `[100]` for one row of one output.
pub fn number(tensor: &Tensor) -> f32 {
    tensor.to_scalar().unwrap_or(f32::NAN)
}

/// The program.
pub fn main() -> ExitCode {
    tiebeam::main(build)
}
