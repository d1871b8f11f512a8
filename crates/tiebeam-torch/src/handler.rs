//! [`PytorchModelHandlerTensor`] and [`PytorchModelHandlerKeyedTensor`]: state dicts in `RunInference`.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use prost::Message;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::row::Value;
use tiebeam_inference::{
    Example, Inference, InferenceArgs, ModelHandler, ModelInfo, ModelMetadata, Signature, Tensor, Tensors,
    staged,
};
use tiebeam_onnx::{Engine, LoadOptions, OnnxModel};

use crate::architecture::{Architecture, architecture};
use crate::state_dict::StateDict;

/// Beam's `model_class`: an architecture, or the name of one that is registered.
#[derive(Debug, Clone)]
pub enum ModelClass {
    /// The registered architecture of that name.
    Named(String),
    /// This one.
    Own(Architecture),
}

impl From<&str> for ModelClass {
    fn from(name: &str) -> Self {
        ModelClass::Named(name.to_owned())
    }
}

impl From<String> for ModelClass {
    fn from(name: String) -> Self {
        ModelClass::Named(name)
    }
}

impl From<Architecture> for ModelClass {
    fn from(architecture: Architecture) -> Self {
        ModelClass::Own(architecture)
    }
}

/// Runs a PyTorch model: its state dict in an [`Architecture`], on the engines of ONNX models.
///
/// An example is one row without a batch axis: a [`Tensor`] ([`PytorchModelHandlerTensor`]), or tensors by the names of
/// the architecture's inputs ([`PytorchModelHandlerKeyedTensor`]). An inference is the row of the only output, or of all
/// of them by name after [`named_outputs`](PytorchModelHandler::named_outputs).
///
/// ```no_run
/// use tiebeam_core::row::Value;
/// use tiebeam_torch::PytorchModelHandlerTensor;
///
/// let handler = PytorchModelHandlerTensor::new("five.pth", "LinearRegression")
///     .with_params([("input_dim", Value::Int64(1)), ("output_dim", Value::Int64(1))]);
/// ```
#[derive(Debug)]
pub struct PytorchModelHandler<E, P> {
    path: PathBuf,
    class: ModelClass,
    params: BTreeMap<String, Value>,
    device: String,
    options: LoadOptions,
    identity: Option<String>,
    forms: PhantomData<fn(E) -> P>,
}

/// One tensor in, one tensor out.
pub type PytorchModelHandlerTensor = PytorchModelHandler<Tensor, Tensor>;

/// Tensors by name in, one tensor out.
pub type PytorchModelHandlerKeyedTensor = PytorchModelHandler<Tensors, Tensor>;

impl<E, P> Clone for PytorchModelHandler<E, P> {
    fn clone(&self) -> Self {
        self.with_forms()
    }
}

impl<E> PytorchModelHandler<E, Tensor> {
    /// A handler of the state dict in that file, for the model that the architecture makes of it.
    pub fn new(state_dict_path: impl AsRef<Path>, model_class: impl Into<ModelClass>) -> Self {
        PytorchModelHandler {
            path: state_dict_path.as_ref().to_owned(),
            class: model_class.into(),
            params: BTreeMap::new(),
            device: "cpu".to_owned(),
            options: LoadOptions::default(),
            identity: None,
            forms: PhantomData,
        }
    }
}

impl<E, P> PytorchModelHandler<E, P> {
    fn with_forms<F, Q>(&self) -> PytorchModelHandler<F, Q> {
        PytorchModelHandler {
            path: self.path.clone(),
            class: self.class.clone(),
            params: self.params.clone(),
            device: self.device.clone(),
            options: self.options.clone(),
            identity: self.identity.clone(),
            forms: PhantomData,
        }
    }

    /// Gives all outputs (or those asked for) by name.
    pub fn named_outputs(self) -> PytorchModelHandler<E, Tensors> {
        self.with_forms()
    }

    /// The architecture's arguments, Beam's `model_params`.
    #[must_use]
    pub fn with_params<N: Into<String>>(mut self, params: impl IntoIterator<Item = (N, Value)>) -> Self {
        self.params.extend(params.into_iter().map(|(name, value)| (name.into(), value)));
        self
    }

    /// The device, `cpu` (in any case). Others are refused by [`validate`](PytorchModelHandler::validate).
    #[must_use]
    pub fn with_device(mut self, device: impl Into<String>) -> Self {
        self.device = device.into();
        self
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

    /// The SHA-256 that the state dict's file must have, in hex.
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

    /// The state dict's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn architecture(&self) -> Result<Architecture> {
        match &self.class {
            ModelClass::Named(name) => architecture(name),
            ModelClass::Own(architecture) => Ok(architecture.clone()),
        }
    }

    /// Everything that can be said without the file: the architecture exists, its parameters are right, the device is
    /// one that can be used.
    ///
    /// # Errors
    /// Of kind [`InvalidArgument`](ErrorKind::InvalidArgument) or [`Unsupported`](ErrorKind::Unsupported).
    pub fn validate(&self) -> Result<()> {
        if !self.device.eq_ignore_ascii_case("cpu") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "TB0373",
                format!("device `{}` can't be used: PyTorch models run on the CPU here", self.device),
            )
            .with_help("use device cpu; a model exported to ONNX runs on GPUs with `providers`"));
        }
        self.architecture()?.check_params(&self.params)
    }

    /// The model as an ONNX file in memory, with what it was made from.
    fn to_onnx(&self, path: &Path, sha256: Option<&str>) -> Result<(Vec<u8>, ModelInfo)> {
        PytorchModelHandler::validate(self)?;
        let architecture = self.architecture()?;
        let mut weights = StateDict::open(path)?;
        if let Some(sha256) = sha256 {
            weights = weights.verified(sha256)?;
        }
        let bytes = architecture.to_onnx(&weights, &self.params)?.encode_to_vec();
        let details = ModelInfo {
            model_id: weights.file().into(),
            uri: Some(weights.file().to_owned()),
            sha256: Some(weights.sha256().to_owned()),
            bytes: Some(bytes.len() as u64),
            ..ModelInfo::default()
        };
        Ok((bytes, details))
    }
}

impl<E: Example, P: Inference> PytorchModelHandler<E, P> {
    fn load(&self, path: &Path, sha256: Option<&str>) -> Result<OnnxModel> {
        let (bytes, details) = self.to_onnx(&staged::open(path, sha256)?, sha256)?;
        let details = staged::told(path, details);
        let model = OnnxModel::from_bytes(&*details.model_id, bytes, &self.options)?.with_details(details);
        model.check_forms::<E, P>()?;
        Ok(model)
    }
}

impl<E: Example, P: Inference> ModelHandler for PytorchModelHandler<E, P> {
    type Example = E;
    type Inference = P;
    type Model = OnnxModel;

    fn load_model(&self) -> Result<OnnxModel> {
        self.load(&self.path, self.options.sha256.as_deref())
    }

    fn load_version(&self, version: &ModelMetadata) -> Result<OnnxModel> {
        // The digest is the first version's.
        self.load(Path::new(&version.model_id), None)
    }

    fn takes_updates(&self) -> bool {
        true
    }

    fn validate(&self) -> Result<()> {
        PytorchModelHandler::validate(self)
    }

    fn signature(&self, model: &OnnxModel) -> Option<Signature> {
        Some(model.signature())
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
        "BeamML_PyTorch".to_owned()
    }

    fn name(&self) -> String {
        if E::SINGLE { "PytorchModelHandlerTensor" } else { "PytorchModelHandlerKeyedTensor" }.to_owned()
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
