//! [`OnnxModelHandler`]: ONNX models in `RunInference`.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiebeam_core::error::Result;
use tiebeam_inference::{
    Example, Inference, InferenceArgs, ModelHandler, ModelInfo, ModelMetadata, Signature, Tensor, Tensors,
    staged,
};

use crate::engine::Engine;
use crate::file::ModelFile;
use crate::model::{LoadOptions, OnnxModel};

/// Runs ONNX models: on ONNX Runtime where its library is found, else on rten, or on the engine that is named.
///
/// An example is one row (see [`OnnxModel`]): a [`Tensor`] for a model of one input, [`Tensors`] after
/// [`named_inputs`](OnnxModelHandler::named_inputs). An inference is the row of the only output, or of all outputs by
/// name after [`named_outputs`](OnnxModelHandler::named_outputs).
///
/// ```no_run
/// use tiebeam_onnx::{Engine, OnnxModelHandler};
///
/// let handler = OnnxModelHandler::new("models/linear.onnx").with_engine(Engine::Rten);
/// ```
pub struct OnnxModelHandler<E = Tensor, P = Tensor> {
    source: Source,
    name: &'static str,
    namespace: &'static str,
    options: LoadOptions,
    identity: Option<String>,
    forms: PhantomData<fn(E) -> P>,
}

type Reader = Arc<dyn Fn(&Path, &LoadOptions) -> Result<OnnxModel> + Send + Sync>;

/// Where the model comes from.
#[derive(Clone)]
enum Source {
    File(PathBuf),
    /// A file of another format, and what reads it.
    Read(PathBuf, Reader),
}

impl<E, P> Clone for OnnxModelHandler<E, P> {
    fn clone(&self) -> Self {
        self.with_forms()
    }
}

impl OnnxModelHandler {
    /// A handler of the model in that file.
    pub fn new(path: impl AsRef<Path>) -> Self {
        OnnxModelHandler {
            source: Source::File(path.as_ref().to_owned()),
            name: "OnnxModelHandler",
            namespace: "BeamML_Onnx",
            options: LoadOptions::default(),
            identity: None,
            forms: PhantomData,
        }
    }

    /// A handler of a model in a file of another format, which `read` makes an ONNX graph of in memory, with the name of the
    /// handler and the namespace of its metrics. Newer versions are read alike.
    pub fn from_file(
        name: &'static str,
        namespace: &'static str,
        path: impl AsRef<Path>,
        read: impl Fn(&Path, &LoadOptions) -> Result<OnnxModel> + Send + Sync + 'static,
    ) -> Self {
        OnnxModelHandler {
            source: Source::Read(path.as_ref().to_owned(), Arc::new(read)),
            name,
            namespace,
            ..OnnxModelHandler::new("")
        }
    }
}

impl<E, P> OnnxModelHandler<E, P> {
    fn with_forms<F, Q>(&self) -> OnnxModelHandler<F, Q> {
        OnnxModelHandler {
            source: self.source.clone(),
            name: self.name,
            namespace: self.namespace,
            options: self.options.clone(),
            identity: self.identity.clone(),
            forms: PhantomData,
        }
    }

    /// Takes examples of several tensors by the names of the model's inputs.
    pub fn named_inputs(self) -> OnnxModelHandler<Tensors, P> {
        self.with_forms()
    }

    /// Gives all outputs (or those asked for) by name.
    pub fn named_outputs(self) -> OnnxModelHandler<E, Tensors> {
        self.with_forms()
    }

    /// Uses that engine or refuses. Default: [`Engine::Auto`].
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

    /// ONNX Runtime's execution providers by name, in order of preference; one that is not available is refused.
    #[must_use]
    pub fn with_providers<N: Into<String>>(mut self, providers: impl IntoIterator<Item = N>) -> Self {
        self.options.engine.providers = providers.into_iter().map(Into::into).collect();
        self
    }

    /// The outputs that are computed, in that order. Default: all.
    #[must_use]
    pub fn with_outputs<N: Into<String>>(mut self, outputs: impl IntoIterator<Item = N>) -> Self {
        self.options.outputs = outputs.into_iter().map(Into::into).collect();
        self
    }

    /// Lets rows of different lengths share a batch: at these inputs the shorter ones are filled up at their ends with the
    /// number given, to the longest of the batch, such as `[("input_ids", 0), ("attention_mask", 0)]`. Without it rows share
    /// a call only with rows of their own shape.
    #[must_use]
    pub fn with_padding<N: Into<String>>(mut self, inputs: impl IntoIterator<Item = (N, i64)>) -> Self {
        self.options.padding = inputs.into_iter().map(|(name, number)| (name.into(), number)).collect();
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
        match &self.source {
            Source::File(path) | Source::Read(path, _) => path,
        }
    }
}

impl<E: Example, P: Inference> OnnxModelHandler<E, P> {
    fn load(&self, path: &Path, options: &LoadOptions) -> Result<OnnxModel> {
        let file = staged::open(path, options.sha256.as_deref())?;
        let model = match &self.source {
            Source::File(_) if staged::is_url(path) => {
                OnnxModel::of(fetched(path, &file, options)?, options)?
            }
            Source::File(_) => OnnxModel::load(&file, options)?,
            Source::Read(_, read) => {
                let model = read(&file, options)?;
                let details = staged::told(path, model.details().clone());
                model.with_details(details)
            }
        };
        model.check_forms::<E, P>()?;
        Ok(model)
    }
}

/// The model of a URL that was fetched to `file`, and its weights of other files, from the same folder of the store.
fn fetched(url: &Path, file: &Path, options: &LoadOptions) -> Result<ModelFile> {
    let folder = url.parent().unwrap_or(url);
    ModelFile::fetched(url.display().to_string(), file, options.sha256.as_deref(), &|location| {
        staged::open(&folder.join(location), None)
    })
}

impl<E: Example, P: Inference> ModelHandler for OnnxModelHandler<E, P> {
    type Example = E;
    type Inference = P;
    type Model = OnnxModel;

    fn load_model(&self) -> Result<OnnxModel> {
        self.load(self.path(), &self.options)
    }

    fn load_version(&self, version: &ModelMetadata) -> Result<OnnxModel> {
        // The digest is the first version's.
        let options = LoadOptions { sha256: None, ..self.options.clone() };
        self.load(Path::new(&version.model_id), &options)
    }

    fn takes_updates(&self) -> bool {
        true
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
        self.namespace.to_owned()
    }

    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn model_info(&self, model: &OnnxModel) -> ModelInfo {
        model.details().clone()
    }

    fn model_identity(&self) -> Option<String> {
        self.identity.clone()
    }

    fn model_files(&self) -> Vec<PathBuf> {
        vec![self.path().to_owned()]
    }
}
