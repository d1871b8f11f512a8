//! [`TextEmbeddingHandler`]: vectors of texts in `RunInference`.

use std::path::{Path, PathBuf};

use tiebeam_core::error::Result;
use tiebeam_inference::signature::Signature;
use tiebeam_inference::update::ModelMetadata;
use tiebeam_inference::{InferenceArgs, ModelHandler, ModelInfo, Tensor};
use tiebeam_onnx::Engine;

use crate::model::{FILES, LENGTHS, TextModel, TextOptions};

/// Makes a vector of each text, of length one, with a BERT-like model of sentence-transformers such as all-MiniLM-L6-v2: its
/// folder with `model.safetensors`, `config.json` and `tokenizer.json`. The mean over a text's tokens, on the engines of ONNX
/// models.
///
/// ```no_run
/// use tiebeam_text::TextEmbeddingHandler;
///
/// let handler = TextEmbeddingHandler::new("models/all-MiniLM-L6-v2");
/// ```
#[derive(Debug, Clone)]
pub struct TextEmbeddingHandler {
    folder: PathBuf,
    options: TextOptions,
    identity: Option<String>,
}

impl TextEmbeddingHandler {
    /// A handler of the model in that folder.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        TextEmbeddingHandler {
            folder: folder.as_ref().to_owned(),
            options: TextOptions::default(),
            identity: None,
        }
    }

    /// Uses that engine or refuses. Default: ONNX Runtime where its library is found, else rten.
    #[must_use]
    pub fn with_engine(mut self, engine: Engine) -> Self {
        self.options.load.engine.engine = engine;
        self
    }

    /// Names ONNX Runtime's library, or the directory that has it.
    #[must_use]
    pub fn with_ort_dylib(mut self, path: impl AsRef<Path>) -> Self {
        self.options.load.engine.ort_dylib = Some(path.as_ref().to_owned());
        self
    }

    /// The most tokens of a text that are looked at. Default: what the model says.
    #[must_use]
    pub fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.options.max_tokens = Some(tokens);
        self
    }

    /// The SHA-256 that `model.safetensors` must have, in hex.
    #[must_use]
    pub fn with_sha256(mut self, digest: impl Into<String>) -> Self {
        self.options.load.sha256 = Some(digest.into());
        self
    }

    /// Steps whose handlers have the same identity share one loaded model (Beam's `model_identifier`).
    #[must_use]
    pub fn with_model_identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// The model's folder.
    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl ModelHandler for TextEmbeddingHandler {
    type Example = String;
    type Inference = Tensor;
    type Model = TextModel;

    fn load_model(&self) -> Result<TextModel> {
        TextModel::load(&self.folder, &self.options)
    }

    fn load_version(&self, version: &ModelMetadata) -> Result<TextModel> {
        let mut other = self.clone();
        // The digest is that of the first version's file.
        (other.folder, other.options.load.sha256) = (version.model_id.clone().into(), None);
        other.load_model()
    }

    fn takes_updates(&self) -> bool {
        true
    }

    fn signature(&self, model: &TextModel) -> Option<Signature> {
        Some(model.signature())
    }

    fn run_inference(&self, batch: &[String], model: &TextModel, _: &InferenceArgs) -> Result<Vec<Tensor>> {
        model.embed(batch)
    }

    fn element_size(&self, text: &String) -> u64 {
        text.len() as u64
    }

    fn metrics_namespace(&self) -> String {
        "BeamML_PyTorch".to_owned()
    }

    fn name(&self) -> String {
        "TextEmbeddingHandler".to_owned()
    }

    fn model_info(&self, model: &TextModel) -> ModelInfo {
        model.details().clone()
    }

    fn model_identity(&self) -> Option<String> {
        self.identity.clone()
    }

    fn model_files(&self) -> Vec<PathBuf> {
        let lengths = Some(LENGTHS).filter(|name| self.folder.join(name).is_file());
        FILES.into_iter().chain(lengths).map(|name| self.folder.join(name)).collect()
    }
}
