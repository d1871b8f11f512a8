//! W1: numbers through a linear model.

use tiebeam::inference::{PredictionResult, RunInference, Tensor};
use tiebeam::io::text;
use tiebeam::onnx::OnnxModelHandler;
use tiebeam::prelude::*;

/// Lines of numbers, one prediction each, as `x,y`.
pub fn build(p: &Pipeline, input: &str, model: &str, out: &str) {
    p.step("Read")
        .apply(text::read(input))
        .step("Parse")
        .apply(ParDo::new(Parse))
        .step("Model")
        .apply(RunInference::new(OnnxModelHandler::new(model)))
        .step("Write")
        .apply(text::write_with(out, |result: &PredictionResult<Tensor, Tensor>, line| {
            let number = |tensor: &Tensor| tensor.to_scalar::<f32>().unwrap_or(f32::NAN);
            line.number(number(&result.example)).text(",").number(number(&result.inference));
        }));
}

/// The numbers of a line.
#[derive(Clone)]
struct Parse;

impl DoFn for Parse {
    type In = String;
    type Out = Tensor;

    fn process(&mut self, line: String, _: &ElementContext<'_>, out: &mut Output<Tensor>) -> Result<()> {
        for cell in line.split(',') {
            let number = cell.trim().parse::<f32>().map_err(|error| {
                Error::new(ErrorKind::InvalidData, "TB0950", format!("`{cell}` is no number"))
                    .with_source(error)
            })?;
            out.emit(Tensor::scalar(number));
        }
        Ok(())
    }
}
