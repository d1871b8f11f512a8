//! [`TextModel`]: a tokenizer and an encoder that make vectors of texts.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::row::Value;
use tiebeam_inference::signature::Signature;
use tiebeam_inference::{DType, Dim, ModelInfo, Port, Tensor, Tensors, staged};
use tiebeam_onnx::{LoadOptions, OnnxModel};
use tiebeam_torch::{StateDict, architecture};
use tokenizers::{Tokenizer, TruncationParams};

/// The files that a model is made of, all of which must be in its folder.
pub(crate) const FILES: [&str; 3] = ["model.safetensors", "config.json", "tokenizer.json"];

/// sentence-transformers' own file, which says how long texts may be; it may be absent.
pub(crate) const LENGTHS: &str = "sentence_bert_config.json";

/// How many texts go into one call: more are slower, since they must all be as long as the longest.
const TOGETHER: usize = 16;

/// The parameters of `BertModel` that `config.json` has.
const SIZES: [&str; 7] = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
];

/// What is wanted of a model when it is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// The engine, and the SHA-256 that `model.safetensors` must have.
    pub load: LoadOptions,
    /// The most tokens of a text that are looked at. Default: what the model says.
    pub max_tokens: Option<usize>,
}

/// A tokenizer and an encoder that are loaded and ready, shared by all threads.
pub struct TextModel {
    tokenizer: Tokenizer,
    encoder: OnnxModel,
    names: Arc<[Arc<str>]>,
    width: usize,
}

impl std::fmt::Debug for TextModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TextModel({} numbers, {:?})", self.width, self.encoder)
    }
}

fn model_error(folder: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Model, "TB0397", format!("model {}: {what}", folder.display()))
}

/// A file of the folder, wherever the job has put it, or fetched.
fn file(folder: &Path, name: &str, sha256: Option<&str>) -> Result<PathBuf> {
    staged::open(&folder.join(name), sha256)
}

fn json(folder: &Path, name: &str) -> Result<Json> {
    let text = std::fs::read(file(folder, name, None)?)
        .map_err(|e| model_error(folder, format!("{name} cannot be read")).with_source(e))?;
    serde_json::from_slice(&text)
        .map_err(|e| model_error(folder, format!("{name} is not JSON")).with_source(e))
}

impl TextModel {
    /// Loads the model of a folder: `model.safetensors`, `config.json` and `tokenizer.json`.
    ///
    /// # Errors
    /// Of kind [`Model`](ErrorKind::Model) or [`Unsupported`](ErrorKind::Unsupported): a file is missing or damaged, or the
    /// model is none of BERT's kind.
    pub fn load(folder: &Path, options: &TextOptions) -> Result<Self> {
        let config = json(folder, "config.json")?;
        let kind = config.get("model_type").and_then(Json::as_str).unwrap_or("bert");
        let activation = config.get("hidden_act").and_then(Json::as_str).unwrap_or("gelu");
        let places = config.get("position_embedding_type").and_then(Json::as_str).unwrap_or("absolute");
        if kind != "bert" || activation != "gelu" || places != "absolute" {
            let what = format!(
                "model {}: `{kind}` with `{activation}` and {places} positions, wanted bert with gelu and absolute ones",
                folder.display()
            );
            return Err(Error::new(ErrorKind::Unsupported, "TB0398", what)
                .with_help("export the model to ONNX and use OnnxModelHandler"));
        }
        let mut params = BTreeMap::new();
        for name in SIZES {
            if let Some(size) = config.get(name).and_then(Json::as_i64) {
                params.insert(name.to_owned(), Value::Int64(size));
            }
        }
        if let Some(epsilon) = config.get("layer_norm_eps").and_then(Json::as_f64) {
            params.insert("layer_norm_eps".to_owned(), Value::Double(epsilon));
        }
        let size = |name: &str| config.get(name).and_then(Json::as_u64).map(|size| size as usize);
        let most = size("max_position_embeddings").unwrap_or(512);
        let own = match json(folder, LENGTHS) {
            // A store that does not answer is not one without this file.
            Err(error) if staged::is_url(folder) && error.kind() != ErrorKind::NotFound => return Err(error),
            own => own.ok(),
        };
        let own = own.and_then(|own| own.get("max_seq_length")?.as_u64());
        let wanted = options.max_tokens.or(own.map(|length| length as usize)).unwrap_or(most);
        let tokenizer = tokenizer(folder, wanted.clamp(2, most.max(2)))?;

        let mut weights = StateDict::open(file(folder, FILES[0], options.load.sha256.as_deref())?)?;
        if let Some(sha256) = &options.load.sha256 {
            weights = weights.verified(sha256)?;
        }
        let bytes = architecture("BertModel")?.to_onnx(&weights, &params)?.to_bytes();
        let details = ModelInfo {
            model_id: folder.display().to_string().into(),
            uri: Some(folder.display().to_string()),
            sha256: Some(weights.sha256().to_owned()),
            bytes: Some(bytes.len() as u64),
            ..ModelInfo::default()
        };
        drop(weights);
        let names = ["input_ids", "attention_mask", "token_type_ids"];
        let mut load = options.load.clone();
        load.outputs = vec!["sentence_embedding".to_owned()];
        load.padding = names.iter().map(|name| ((*name).to_owned(), 0)).collect();
        let encoder = OnnxModel::from_bytes(&*details.model_id, bytes, &load)?.with_details(details);
        let names = names.map(Arc::<str>::from);
        Ok(TextModel {
            tokenizer,
            encoder,
            names: Arc::new(names),
            width: size("hidden_size").unwrap_or(384),
        })
    }

    /// What the model is: folder, digest, bytes.
    pub fn details(&self) -> &ModelInfo {
        self.encoder.details()
    }

    /// The numbers of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// A text goes in, and a vector comes out.
    pub fn signature(&self) -> Signature {
        let text = Port {
            name: "text".into(),
            type_name: DType::Str.name().to_owned(),
            dtype: Some(DType::Str),
            shape: Some(vec![Dim::Free]),
        };
        Signature { inputs: vec![text], outputs: self.encoder.outputs().to_vec() }
    }

    /// The tokens of a text, with those at its begin and end, as far as they are looked at.
    ///
    /// # Errors
    /// Of kind [`InvalidData`](ErrorKind::InvalidData), when the tokenizer fails.
    pub fn tokens(&self, text: &str) -> Result<Vec<i64>> {
        let failed = |what: String| {
            Error::new(ErrorKind::InvalidData, "TB0399", format!("the tokenizer failed: {what}"))
        };
        let encoded = catch_unwind(AssertUnwindSafe(|| self.tokenizer.encode_fast(text, true)));
        let encoded = encoded.map_err(|_| failed("it panicked".to_owned()))?;
        let encoded = encoded.map_err(|e| failed(e.to_string()))?;
        Ok(encoded.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// A vector of length one for each text, in order. Texts of about the same length share a call.
    ///
    /// # Errors
    /// When the tokenizer or the engine fails.
    pub fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Tensor>> {
        let rows = texts.iter().map(|text| self.row(text.as_ref())).collect::<Result<Vec<_>>>()?;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|row| rows[*row].values()[0].len());
        let mut vectors: Vec<Option<Tensor>> = vec![None; rows.len()];
        for some in order.chunks(TOGETHER) {
            let batch: Vec<Tensors> = some.iter().map(|row| rows[*row].clone()).collect();
            for (row, vector) in some.iter().zip(self.encoder.run::<Tensors, Tensor>(&batch)?) {
                vectors[*row] = Some(vector);
            }
        }
        vectors.into_iter().collect::<Option<_>>().ok_or_else(|| Error::internal("a text got no vector"))
    }

    fn row(&self, text: &str) -> Result<Tensors> {
        let ids = self.tokens(text)?;
        let (ones, zeros) = (vec![1i64; ids.len()], vec![0i64; ids.len()]);
        let values = [ids, ones, zeros].map(Tensor::vector);
        Tensors::new(self.names.clone(), values.into())
    }
}

/// The tokenizer of a folder, without the padding that its file asks for: shorter texts are padded by call.
fn tokenizer(folder: &Path, most: usize) -> Result<Tokenizer> {
    let name = "tokenizer.json";
    let text = std::fs::read(file(folder, name, None)?)
        .map_err(|e| model_error(folder, format!("{name} cannot be read")).with_source(e))?;
    let damaged = |what: String| model_error(folder, format!("{name} is no tokenizer: {what}"));
    // Its reader was not made for files that want to harm.
    let read = catch_unwind(AssertUnwindSafe(|| {
        let mut tokenizer = Tokenizer::from_bytes(&text).map_err(|e| e.to_string())?;
        tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length: most, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|e| e.to_string())?;
        Ok(tokenizer)
    }));
    read.map_err(|_| damaged("its reader panicked".to_owned()))?.map_err(damaged)
}
