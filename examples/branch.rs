//! Branch: the same numbers to two models at once, and the answers side by side.
//!
//! ```text
//! $ cargo run -p tiebeam --example branch -- --output out/branch
//! $ cat out/branch-* | sort
//! 20: five says 100, ten says 200
//! 30: five says 150, ten says 300
//! 40: five says 200, ten says 400
//! ```

use std::process::ExitCode;

use tiebeam::inference::{RunInference, Tensor};
use tiebeam::io::text;
use tiebeam::onnx::OnnxModelHandler;
use tiebeam::prelude::*;

/// A PCollection used twice is a branch; both answers meet again by the number they are about.
pub fn build(p: &Pipeline, options: &Options) {
    let input = if options.input.is_empty() { "examples/data/numbers.csv" } else { &options.input };
    let output = if options.output.is_empty() { "out/branch" } else { &options.output };
    let cells = p
        .step("Read")
        .apply(text::read(input))
        .step("Split")
        .flat_map(|line: String| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let numbers =
        cells.step("Parse").try_map(|cell: String| cell.trim().parse::<f32>().map(Tensor::scalar)).results;

    let ask = |name: &str, path: &str| {
        let answers = numbers.step(name).apply(RunInference::new(OnnxModelHandler::new(path)));
        answers
            .step(format!("{name}Answer"))
            .map(|result| (result.example.to_string(), result.inference.to_scalar().unwrap_or(f32::NAN)))
    };
    let five = ask("Five", options.get("five").unwrap_or("fixtures/models/five.onnx"));
    let ten = ask("Ten", options.get("ten").unwrap_or("fixtures/models/ten.onnx"));

    five.step("Meet")
        .apply(co_group_by_key(&ten))
        .step("Compare")
        .flat_map(|(number, (five, ten))| {
            let pairs = five.to_vec().into_iter().zip(ten.to_vec());
            pairs.map(|(five, ten)| format!("{number}: five says {five}, ten says {ten}")).collect::<Vec<_>>()
        })
        .step("Write")
        .apply(text::write(output));
}

/// The program.
pub fn main() -> ExitCode {
    tiebeam::main(build)
}
