//! Texts in files: vectors of sentences.

use std::path::Path;
use std::sync::Arc;

use tiebeam_core::Result;
use tiebeam_inference::{InferenceArgs, ModelInfo, Predictions, Signature, Tensors};
use tiebeam_text::{TextEmbeddingHandler, TextModel};

use super::handlers::{ENGINE, HandlerType, Loaded, RowModel, engine, text};
use super::inputs::Prepared;
use crate::catalog::{Key, Wants};
use crate::document::Node;
use crate::plan::Maker;

pub(super) const SENTENCES: HandlerType = HandlerType {
    name: "SentenceTransformerModelHandler",
    about: "vectors of texts, by a BERT-like model of sentence-transformers (ours); its input is `text`",
    keys: &[
        Key::required(
            "model_path",
            Wants::Text,
            "the folder of model.safetensors, config.json and tokenizer.json",
        ),
        Key::optional("max_seq_length", Wants::Int, "tokens of a text that are looked at; the model's"),
        ENGINE,
    ],
    make: sentences,
};

impl RowModel for TextModel {
    fn signature(&self) -> Signature {
        TextModel::signature(self)
    }

    fn info(&self) -> ModelInfo {
        self.details().clone()
    }

    fn check(&self, example: &Prepared) -> Result<()> {
        example.text().map(drop)
    }

    fn predict(&self, batch: &[Prepared], _: &InferenceArgs) -> Result<Predictions<Tensors>> {
        let texts = batch.iter().map(Prepared::text).collect::<Result<Vec<_>>>()?;
        let names: Arc<[Arc<str>]> = self.signature().outputs.iter().map(|port| port.name.clone()).collect();
        let row = |vector| Tensors::of_checked_names(names.clone(), vec![vector]);
        Ok(Predictions::All(self.embed(&texts)?.into_iter().map(row).collect()))
    }
}

fn sentences(maker: &mut Maker<'_>, config: &Node) -> Option<Loaded> {
    let path = config.get("model_path")?;
    let mut handler =
        TextEmbeddingHandler::new(Path::new(&**path.as_str()?)).with_engine(engine(maker, config)?);
    if let Some(tokens) = super::positive(maker, config, "max_seq_length") {
        handler = handler.with_max_tokens(tokens);
    }
    if let Some(sha256) = text(config, "sha256") {
        handler = handler.with_sha256(&*sha256);
    }
    Loaded::new(maker, "SentenceTransformerModelHandler", path.span, handler)
}
