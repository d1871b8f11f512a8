//! [`TFModelHandler`]: TensorFlow Lite's models in `RunInference`.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_inference::signature::{Example, Inference, Signature};
use tiebeam_inference::update::ModelMetadata;
use tiebeam_inference::{InferenceArgs, ModelHandler, ModelInfo, Tensor, Tensors, staged};
use tiebeam_onnx::proto::ModelProto;
use tiebeam_onnx::{Engine, LoadOptions, OnnxModel};

use crate::convert::{Refusal, convert};
use crate::model;

/// Runs models of TensorFlow Lite (`.tflite`) on the engines of ONNX models.
///
/// An example is one row without a batch axis: a [`Tensor`] for a model of one input, [`Tensors`] after
/// [`named_inputs`](TFModelHandler::named_inputs). An inference is the row of the only output, or of all outputs by name
/// after [`named_outputs`](TFModelHandler::named_outputs). The names are those of the model's signature, if it has one.
///
/// A SavedModel is refused with the line that converts it.
///
/// ```no_run
/// use tiebeam_tflite::TFModelHandler;
///
/// let handler = TFModelHandler::new("models/mobilenet.tflite");
/// ```
#[derive(Debug)]
pub struct TFModelHandler<E = Tensor, P = Tensor> {
    path: PathBuf,
    options: LoadOptions,
    identity: Option<String>,
    forms: PhantomData<fn(E) -> P>,
}

impl<E, P> Clone for TFModelHandler<E, P> {
    fn clone(&self) -> Self {
        self.with_forms()
    }
}

impl TFModelHandler {
    /// A handler of the model in that file.
    pub fn new(path: impl AsRef<Path>) -> Self {
        TFModelHandler {
            path: path.as_ref().to_owned(),
            options: LoadOptions::default(),
            identity: None,
            forms: PhantomData,
        }
    }
}

impl<E, P> TFModelHandler<E, P> {
    fn with_forms<F, Q>(&self) -> TFModelHandler<F, Q> {
        TFModelHandler {
            path: self.path.clone(),
            options: self.options.clone(),
            identity: self.identity.clone(),
            forms: PhantomData,
        }
    }

    /// Takes examples of several tensors by the names of the model's inputs.
    pub fn named_inputs(self) -> TFModelHandler<Tensors, P> {
        self.with_forms()
    }

    /// Gives all outputs (or those asked for) by name.
    pub fn named_outputs(self) -> TFModelHandler<E, Tensors> {
        self.with_forms()
    }

    /// Uses that engine or refuses. Default: ONNX Runtime where its library is found, else rten.
    #[must_use]
    pub fn with_engine(mut self, engine: Engine) -> Self {
        self.options.engine.engine = engine;
        self
    }

    /// Names ONNX Runtime's library, or the directory that has it.
    #[must_use]
    pub fn with_ort_dylib(mut self, path: impl AsRef<Path>) -> Self {
        self.options.engine.ort_dylib = Some(path.as_ref().to_owned());
        self
    }

    /// The outputs that are computed, in that order. Default: all.
    #[must_use]
    pub fn with_outputs<N: Into<String>>(mut self, outputs: impl IntoIterator<Item = N>) -> Self {
        self.options.outputs = outputs.into_iter().map(Into::into).collect();
        self
    }

    /// The SHA-256 that the file must have, in hex.
    #[must_use]
    pub fn with_sha256(mut self, digest: impl Into<String>) -> Self {
        self.options.sha256 = Some(digest.into());
        self
    }

    /// Steps whose handlers have the same identity share one loaded model (Beam's `model_identifier`).
    #[must_use]
    pub fn with_model_identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// Everything that is wanted of the model when it is loaded.
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// The model's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn model_error(code: &'static str, name: &str, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Model, code, format!("model {name}: {what}"))
}

/// How a model of another kind gets here.
const CONVERT: &str = "convert it: `python -m tf2onnx.convert --saved-model DIRECTORY --output model.onnx` and use OnnxModelHandler, or \
     tf.lite.TFLiteConverter.from_saved_model(DIRECTORY).convert() and write what it gives to a .tflite file";

/// The ONNX graph of a `.tflite` file; `name` stands for its path.
///
/// # Errors
/// Of kind [`Model`](ErrorKind::Model) or [`Unsupported`](ErrorKind::Unsupported), naming the path: the file is foreign or
/// damaged, or an operator is not known here, which is named with its number.
pub fn to_onnx(name: &str, bytes: &[u8]) -> Result<ModelProto> {
    if bytes.is_empty() {
        return Err(model_error("TB0393", name, "the file is empty"));
    }
    if bytes.get(4..8) != Some(b"TFL3") {
        let looks = if bytes.starts_with(b"\x89HDF") {
            ", this looks like HDF5, perhaps a Keras model"
        } else if bytes.starts_with(b"PK\x03\x04") {
            ", this looks like a zip file, perhaps a Keras model"
        } else if bytes.starts_with(b"\x08") {
            ", this may be a SavedModel's graph or an ONNX model"
        } else {
            ""
        };
        return Err(model_error("TB0393", name, format!("not a .tflite file{looks}")).with_help(CONVERT));
    }
    let made = model::read(bytes).map_err(Refusal::Damaged).and_then(|model| convert(&model, bytes.len()));
    made.map_err(|refusal| match refusal {
        Refusal::Damaged(what) => model_error("TB0394", name, format!("a damaged .tflite file: {what}")),
        Refusal::Unsupported(what) => {
            let what = format!("model {name}: {what}");
            Error::new(ErrorKind::Unsupported, "TB0396", what)
                .with_help("convert the model with tf2onnx and use OnnxModelHandler")
        }
    })
}

/// The file's bytes and digest.
fn read(path: &Path, wanted: Option<&str>) -> Result<(Vec<u8>, String)> {
    use std::fmt::Write;
    let name = path.display().to_string();
    if path.join("saved_model.pb").is_file() {
        return Err(model_error("TB0393", &name, "this is a SavedModel").with_help(CONVERT));
    }
    let bytes = std::fs::read(path).map_err(|e| {
        let what = match e.kind() {
            std::io::ErrorKind::NotFound => "there is no such file",
            std::io::ErrorKind::IsADirectory => "this is a directory, not a file",
            _ => "the file cannot be read",
        };
        model_error("TB0393", &name, what).with_source(e)
    })?;
    let sha256 = Sha256::digest(&bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    if let Some(wanted) = wanted
        && !wanted.eq_ignore_ascii_case(&sha256)
    {
        let what = format!("its SHA-256 is {sha256}, wanted {wanted}");
        return Err(model_error("TB0395", &name, what).with_help("fetch the file anew, or correct `sha256`"));
    }
    Ok((bytes, sha256))
}

impl<E: Example, P: Inference> ModelHandler for TFModelHandler<E, P> {
    type Example = E;
    type Inference = P;
    type Model = OnnxModel;

    fn load_model(&self) -> Result<OnnxModel> {
        let path = staged::open(&self.path, self.options.sha256.as_deref())?;
        let name = path.display().to_string();
        let (bytes, sha256) = read(&path, self.options.sha256.as_deref())?;
        let details = staged::told(
            &self.path,
            ModelInfo {
                model_id: name.as_str().into(),
                uri: Some(name.clone()),
                sha256: Some(sha256),
                bytes: Some(bytes.len() as u64),
                ..ModelInfo::default()
            },
        );
        let onnx = to_onnx(&name, &bytes)?.to_bytes();
        let model = OnnxModel::from_bytes(name, onnx, &self.options)?.with_details(details);
        model.check_forms::<E, P>()?;
        Ok(model)
    }

    fn load_version(&self, version: &ModelMetadata) -> Result<OnnxModel> {
        let mut other = self.clone();
        // The digest is that of the first version's file.
        (other.path, other.options.sha256) = (version.model_id.clone().into(), None);
        other.load_model()
    }

    fn takes_updates(&self) -> bool {
        true
    }

    fn signature(&self, model: &OnnxModel) -> Option<Signature> {
        Some(Signature { inputs: model.inputs().to_vec(), outputs: model.outputs().to_vec() })
    }

    fn run_inference(&self, batch: &[E], model: &OnnxModel, _: &InferenceArgs) -> Result<Vec<P>> {
        model.run(batch)
    }

    fn check_example(&self, example: &E, model: &OnnxModel) -> Result<()> {
        model.check(example)
    }

    fn element_size(&self, example: &E) -> u64 {
        example.num_bytes() as u64
    }

    fn metrics_namespace(&self) -> String {
        if E::SINGLE { "BeamML_TF_Tensor" } else { "BeamML_TF_Tensors" }.to_owned()
    }

    fn name(&self) -> String {
        "TFModelHandler".to_owned()
    }

    fn model_info(&self, model: &OnnxModel) -> ModelInfo {
        model.details().clone()
    }

    fn model_identity(&self) -> Option<String> {
        self.identity.clone()
    }

    fn model_files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }
}
