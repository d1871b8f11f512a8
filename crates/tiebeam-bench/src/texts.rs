//! W2: texts to embeddings.

use std::sync::Arc;

use serde_json::json;
use tiebeam::inference::{ModelHandler, RunInference, Tensor, Tensors};
use tiebeam::io::text;
use tiebeam::onnx::OnnxModelHandler;
use tiebeam::prelude::*;
use tokenizers::{Tokenizer, TruncationParams};

use crate::{Workload, invalid};

/// The most tokens of a text.
const MOST: usize = 128;

/// The first texts of the file, the head of the embedding of each as a JSON line.
pub fn build(p: &Pipeline, workload: &Workload, elements: usize) -> Result<()> {
    let texts = lines(workload, elements)?;
    let handler = OnnxModelHandler::new(workload.file("minilm.onnx"))
        .named_inputs()
        .with_padding([("input_ids", 0), ("attention_mask", 0)])
        .with_length_fn(tokens)
        .carrying::<String>();
    p.step("Texts")
        .apply(Create::of(texts))
        .step("Tokenize")
        .apply(ParDo::new(Tokenize::load(&workload.file("tokenizer.json"))?))
        .step("Embed")
        .apply(RunInference::new(handler))
        .step("Show")
        .map(|result| {
            let numbers = result.inference.as_slice::<f32>().unwrap_or_default();
            let head: Vec<f64> =
                numbers.iter().take(8).map(|x| (f64::from(*x) * 1e5).round() / 1e5).collect();
            json!({"text": result.example.0, "embedding": head}).to_string()
        })
        .step("Write")
        .apply(text::write(&workload.out));
    Ok(())
}

/// The first lines of the file.
pub fn lines(workload: &Workload, n: usize) -> Result<Vec<String>> {
    let path = workload.file("texts.txt");
    let all = std::fs::read_to_string(&path)
        .map_err(|error| invalid(format!("cannot read {path}")).with_source(error))?;
    Ok(all.split('\n').take(n).map(str::to_owned).collect())
}

/// How many there are of a text.
pub fn tokens(row: &Tensors) -> usize {
    row.values().first().map_or(0, Tensor::len)
}

/// Texts to token ids and their mask.
#[derive(Clone)]
pub struct Tokenize {
    names: Arc<[Arc<str>]>,
    /// One for all threads.
    tokenizer: Arc<Tokenizer>,
}

impl Tokenize {
    /// By the tokenizer of that file.
    pub fn load(path: &str) -> Result<Self> {
        let wrong = |error: tokenizers::Error| {
            Error::new(ErrorKind::Model, "TB0950", format!("the tokenizer {path} cannot be used: {error}"))
        };
        let mut tokenizer = Tokenizer::from_file(path).map_err(wrong)?;
        let truncation = TruncationParams { max_length: MOST, ..TruncationParams::default() };
        tokenizer.with_padding(None).with_truncation(Some(truncation)).map_err(wrong)?;
        let names = Arc::new(["input_ids".into(), "attention_mask".into()]);
        Ok(Tokenize { names, tokenizer: Arc::new(tokenizer) })
    }

    /// The ids and the mask of a text.
    pub fn tensors(&self, text: &str) -> Result<Tensors> {
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|error| {
            Error::new(
                ErrorKind::InvalidData,
                "TB0950",
                format!("the text cannot be cut into tokens: {error}"),
            )
        })?;
        let ids: Vec<i64> = encoding.get_ids().iter().map(|id| i64::from(*id)).collect();
        let mask = vec![1i64; ids.len()];
        Tensors::new(self.names.clone(), vec![Tensor::vector(ids), Tensor::vector(mask)])
    }
}

impl DoFn for Tokenize {
    type In = String;
    type Out = (String, Tensors);

    fn process(
        &mut self,
        text: String,
        _: &ElementContext<'_>,
        out: &mut Output<(String, Tensors)>,
    ) -> Result<()> {
        let tensors = self.tensors(&text)?;
        out.emit((text, tensors));
        Ok(())
    }
}
