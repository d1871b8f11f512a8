//! [`TreesModelHandler`]: XGBoost's and LightGBM's models in `RunInference`.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use tiebeam_core::error::Result;
use tiebeam_inference::signature::{Example, Inference, Port, Signature};
use tiebeam_inference::update::ModelMetadata;
use tiebeam_inference::{InferenceArgs, ModelHandler, ModelInfo, Tensor, Tensors, staged};

use crate::file::Format;
use crate::model::{LoadOptions, TreesModel};

/// Runs models of XGBoost (`.json`, `.ubj`) and LightGBM (text), without their libraries.
///
/// An example is one row (see [`TreesModel`]): a [`Tensor`] of all features, NaN where one is missing; or, after
/// [`named_inputs`](TreesModelHandler::named_inputs), [`Tensors`] of one number each by the features' names. An inference
/// is a number, or a row of them where the model has several outputs: what the package's own `predict` gives.
///
/// ```no_run
/// use tiebeam_trees::TreesModelHandler;
///
/// let handler = TreesModelHandler::xgboost("models/churn.ubj");
/// let by_name = TreesModelHandler::lightgbm("models/price.txt").named_inputs();
/// ```
#[derive(Debug)]
pub struct TreesModelHandler<E = Tensor, P = Tensor> {
    path: PathBuf,
    options: LoadOptions,
    identity: Option<String>,
    forms: PhantomData<fn(E) -> P>,
}

impl<E, P> Clone for TreesModelHandler<E, P> {
    fn clone(&self) -> Self {
        self.with_forms()
    }
}

impl TreesModelHandler {
    /// A handler of the model in that file, of either package.
    pub fn new(path: impl AsRef<Path>) -> Self {
        TreesModelHandler {
            path: path.as_ref().to_owned(),
            options: LoadOptions::default(),
            identity: None,
            forms: PhantomData,
        }
    }

    /// A handler of an XGBoost model.
    pub fn xgboost(path: impl AsRef<Path>) -> Self {
        TreesModelHandler::new(path).with_format(Format::Xgboost)
    }

    /// A handler of a LightGBM model.
    pub fn lightgbm(path: impl AsRef<Path>) -> Self {
        TreesModelHandler::new(path).with_format(Format::Lightgbm)
    }
}

impl<E, P> TreesModelHandler<E, P> {
    fn with_forms<F, Q>(&self) -> TreesModelHandler<F, Q> {
        TreesModelHandler {
            path: self.path.clone(),
            options: self.options.clone(),
            identity: self.identity.clone(),
            forms: PhantomData,
        }
    }

    /// Takes examples of one number for each feature by the features' names; one that is absent is missing, a text is the
    /// category of that name.
    pub fn named_inputs(self) -> TreesModelHandler<Tensors, P> {
        self.with_forms()
    }

    /// Gives the answer under its name, `prediction`.
    pub fn named_outputs(self) -> TreesModelHandler<E, Tensors> {
        self.with_forms()
    }

    /// Whose model it must be. Default: told by the file's content.
    #[must_use]
    pub fn with_format(mut self, format: Format) -> Self {
        self.options.format = Some(format);
        self
    }

    /// Gives raw scores in place of probabilities, rates and classes.
    #[must_use]
    pub fn with_raw_scores(mut self) -> Self {
        self.options.raw_scores = true;
        self
    }

    /// Takes all trees of an XGBoost model that was stopped early, as `Booster.predict` does. Default: those up to the best
    /// iteration, as `predict` of XGBoost's scikit-learn interface does.
    #[must_use]
    pub fn with_all_iterations(mut self) -> Self {
        self.options.all_iterations = true;
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

    /// Whose model it is, as far as that can be told without reading it.
    fn presumed(&self) -> Option<Format> {
        self.options.format.or_else(|| match self.path.extension()?.to_str()? {
            "json" | "ubj" => Some(Format::Xgboost),
            "txt" => Some(Format::Lightgbm),
            _ => None,
        })
    }
}

impl<E: Example, P: Inference> ModelHandler for TreesModelHandler<E, P> {
    type Example = E;
    type Inference = P;
    type Model = TreesModel;

    fn load_model(&self) -> Result<TreesModel> {
        let file = staged::open(&self.path, self.options.sha256.as_deref())?;
        let model = TreesModel::load(&file, &self.options)?;
        model.check_forms::<E>()?;
        let details = staged::told(&self.path, model.details().clone());
        Ok(model.with_details(details))
    }

    fn load_version(&self, version: &ModelMetadata) -> Result<TreesModel> {
        let mut other = self.clone();
        // The digest is that of the first version's file.
        (other.path, other.options.sha256) = (version.model_id.clone().into(), None);
        other.load_model()
    }

    fn takes_updates(&self) -> bool {
        true
    }

    fn signature(&self, model: &TreesModel) -> Option<Signature> {
        Some(Signature { inputs: model.inputs().to_vec(), outputs: model.outputs().to_vec() })
    }

    /// Columns by the names of features may lack some: elements are judged one by one.
    fn takes(&self, model: &TreesModel) -> Option<Vec<Port>> {
        E::SINGLE.then(|| model.inputs().to_vec())
    }

    fn run_inference(&self, batch: &[E], model: &TreesModel, _: &InferenceArgs) -> Result<Vec<P>> {
        model.run(batch)
    }

    fn check_example(&self, example: &E, model: &TreesModel) -> Result<()> {
        model.check(example)
    }

    fn element_size(&self, example: &E) -> u64 {
        example.num_bytes() as u64
    }

    fn metrics_namespace(&self) -> String {
        match self.presumed() {
            Some(Format::Xgboost) => "BeamML_XGBoost",
            Some(Format::Lightgbm) => "BeamML_LightGBM",
            None => "BeamML_Trees",
        }
        .to_owned()
    }

    fn name(&self) -> String {
        "TreesModelHandler".to_owned()
    }

    fn model_info(&self, model: &TreesModel) -> ModelInfo {
        model.details().clone()
    }

    fn model_identity(&self) -> Option<String> {
        self.identity.clone()
    }

    fn model_files(&self) -> Vec<PathBuf> {
        staged::here([self.path.clone()])
    }
}
