//! Texts in pipelines: tokenizers (`tokenizer.json`), and BERT-like encoders that make vectors of sentences.

pub mod handler;
pub mod model;

pub use handler::TextEmbeddingHandler;
pub use model::{TextModel, TextOptions};
