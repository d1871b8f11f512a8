//! Sequence: what one model says goes to the next.
//!
//! ```text
//! $ cargo run -p tiebeam --example sequence -- --output out/sequence
//! $ cat out/sequence-* | sort
//! 100 -> 1000
//! 150 -> 1500
//! 200 -> 2000
//! ```

use std::process::ExitCode;

use tiebeam::inference::{RunInference, Tensor};
use tiebeam::io::text;
use tiebeam::onnx::OnnxModelHandler;
use tiebeam::prelude::*;
use tiebeam::torch::PytorchModelHandlerTensor;

/// A PyTorch model, a step between, an ONNX model.
pub fn build(p: &Pipeline, options: &Options) {
    let input = if options.input.is_empty() { "examples/data/numbers.csv" } else { &options.input };
    let output = if options.output.is_empty() { "out/sequence" } else { &options.output };
    let cells = p
        .step("Read")
        .apply(text::read(input))
        .step("Split")
        .flat_map(|line: String| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let numbers =
        cells.step("Parse").try_map(|cell: String| cell.trim().parse::<f32>().map(Tensor::scalar)).results;

    let one_to_one = [("input_dim", Value::Int64(1)), ("output_dim", Value::Int64(1))];
    let five = PytorchModelHandlerTensor::new("fixtures/models/five.pth", "LinearRegression")
        .with_params(one_to_one);
    let ten = OnnxModelHandler::new("fixtures/models/ten.onnx");

    numbers
        .step("ModelA")
        .apply(RunInference::new(five))
        .step("Between")
        .map(|result| result.inference)
        .step("ModelB")
        .apply(RunInference::new(ten))
        .step("Show")
        .map(|result| format!("{} -> {}", number(&result.example), number(&result.inference)))
        .step("Write")
        .apply(text::write(output));
}

/// The only number of a tensor; a model says `[100]` for one row of one output.
fn number(tensor: &Tensor) -> f32 {
    tensor.to_scalar().unwrap_or(f32::NAN)
}

/// The program.
pub fn main() -> ExitCode {
    tiebeam::main(build)
}
