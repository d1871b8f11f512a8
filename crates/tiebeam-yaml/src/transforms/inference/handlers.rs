//! The model handlers that files can name, and the handler of rows over all of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiebeam_core::Result;
use tiebeam_inference::{
    Batching, Dim, InferenceArgs, Isolated, ModelHandler, ModelInfo, ModelMetadata, Port, Predictions,
    Signature, Tensors,
};
use tiebeam_onnx::{Engine, OnnxModel, OnnxModelHandler};
use tiebeam_tflite::TFModelHandler;
use tiebeam_torch::PytorchModelHandlerKeyedTensor;
use tiebeam_trees::{Format, TreesModel, TreesModelHandler};

use super::apart::{Apart, Told};
use super::inputs::Prepared;
use crate::catalog::{Key, Wants};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::plan::Maker;
use crate::schema::plain_value;
use crate::source::Span;

/// A type of model handlers.
pub struct HandlerType {
    /// Its name in files.
    pub name: &'static str,
    /// What it runs, in one line.
    pub about: &'static str,
    /// Its own keys, beside those that all handlers have.
    pub keys: &'static [Key],
    /// Loads the model. The keys were checked.
    pub(super) make: fn(&mut Maker<'_>, &Node) -> Option<Loaded>,
}

impl HandlerType {
    /// Its own keys, and those that all handlers have, as far as it has none of that name.
    pub fn all_keys(&self) -> Vec<Key> {
        let own = |common: &&Key| self.keys.iter().all(|key| key.name != common.name);
        self.keys.iter().chain(super::COMMON.iter().filter(own)).copied().collect()
    }

    /// Whether the step's arguments are for it.
    pub(super) fn takes_args(&self) -> bool {
        matches!(self.name, OPEN_AI | "KServeModelHandler" | "VertexAIModelHandlerJSON")
    }
}

/// The handler of OpenAI-compatible APIs.
pub const OPEN_AI: &str = "OpenAIModelHandler";

pub(super) const ENGINE: Key = Key::optional("engine", Wants::Text, "auto, rten or ort (ours)");
const TORCH_KEYS: &[Key] = &[
    Key::required("state_dict_path", Wants::Text, "a .pth, .pt or .safetensors file of weights"),
    Key::required("model_class", Wants::Text, "the architecture, such as LinearRegression"),
    Key::optional("model_params", Wants::Map, "the architecture's arguments"),
    Key::optional("device", Wants::Text, "cpu"),
    ENGINE,
];

const TREES_KEYS: &[Key] = &[
    Key::required("model_uri", Wants::Text, "the model's file"),
    Key::optional("features", Wants::Texts, "the columns of the features, in the model's order"),
    Key::optional("raw_scores", Wants::Bool, "sums of the leaves instead of probabilities (ours)"),
];

/// The handlers of trees.
const TREES: [&str; 2] = ["XGBoostModelHandlerNumpy", "LightGBMModelHandler"];

/// All types of handlers.
pub fn handler_types() -> &'static [HandlerType] {
    const TYPES: &[HandlerType] = &[
        HandlerType {
            name: "OnnxModelHandlerNumpy",
            about: "an ONNX model",
            keys: &[
                Key::required("model_uri", Wants::Text, "the .onnx file"),
                ENGINE,
                Key::optional("providers", Wants::Texts, "ONNX Runtime's execution providers, best first"),
            ],
            make: onnx,
        },
        HandlerType {
            name: "PytorchModelHandlerTensor",
            about: "a PyTorch state dict, in an architecture of one input",
            keys: TORCH_KEYS,
            make: torch,
        },
        HandlerType {
            name: "PytorchModelHandlerKeyedTensor",
            about: "a PyTorch state dict, in an architecture of named inputs",
            keys: TORCH_KEYS,
            make: torch,
        },
        HandlerType {
            name: "XGBoostModelHandlerNumpy",
            about: "XGBoost's trees, from .json or .ubj",
            keys: TREES_KEYS,
            make: xgboost,
        },
        HandlerType {
            name: "LightGBMModelHandler",
            about: "LightGBM's trees, from its text (ours)",
            keys: TREES_KEYS,
            make: lightgbm,
        },
        HandlerType {
            name: "TFModelHandlerNumpy",
            about: "a TensorFlow Lite model",
            keys: &[Key::required("model_uri", Wants::Text, "the .tflite file"), ENGINE],
            make: tflite,
        },
        HandlerType {
            name: KEYED,
            about: "a model for each key (ours)",
            keys: &[
                Key::required("key", Wants::Text, "the field of the key"),
                Key::required(
                    "models",
                    Wants::Any,
                    "`{KEY: handler}`, or a list of `{keys: […], handler: …}`",
                ),
                Key::optional("max_models_per_worker_hint", Wants::Int, "models loaded at once; all"),
            ],
            // Its models are made one by one.
            make: |_, _| None,
        },
        #[cfg(feature = "remote")]
        super::remote::OPEN_AI,
        #[cfg(feature = "remote")]
        super::remote::KSERVE,
        #[cfg(feature = "remote")]
        super::remote::VERTEX_AI,
        #[cfg(feature = "text")]
        super::texts::SENTENCES,
    ];
    TYPES
}

/// The handler of a model for each key.
pub const KEYED: &str = "KeyedModelHandler";

/// A loaded model over rows, of whichever framework.
pub trait RowModel: Send + Sync {
    /// What goes in and what comes out.
    fn signature(&self) -> Signature;

    /// Whether an input that a row has no number for is a missing value to the model: NaN.
    fn takes_missing(&self) -> bool {
        false
    }

    /// The model's id, place and size.
    fn info(&self) -> ModelInfo;

    /// Whether a row's tensors can go in.
    ///
    /// # Errors
    /// What was seen and what is wanted.
    fn check(&self, example: &Prepared) -> Result<()>;

    /// What an example brings, where it is not the signature's inputs.
    fn takes(&self) -> Option<Vec<Port>> {
        Some(self.signature().inputs)
    }

    /// As [`ModelHandler::counts`].
    fn counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Exactly one answer, or its refusal, for each row.
    ///
    /// # Errors
    /// When the model can't.
    fn predict(&self, batch: &[Prepared], args: &InferenceArgs) -> Result<Predictions<Tensors>>;
}

impl RowModel for OnnxModel {
    fn signature(&self) -> Signature {
        OnnxModel::signature(self)
    }

    fn info(&self) -> ModelInfo {
        self.details().clone()
    }

    fn check(&self, example: &Prepared) -> Result<()> {
        OnnxModel::check(self, example)
    }

    fn predict(&self, batch: &[Prepared], _: &InferenceArgs) -> Result<Predictions<Tensors>> {
        self.run(batch).map(Predictions::All)
    }
}

impl RowModel for TreesModel {
    fn signature(&self) -> Signature {
        // A column for each feature: a number, or a text where the model has categories.
        let input = |feature: &tiebeam_trees::Feature| Port {
            name: feature.name.clone(),
            type_name: "number".to_owned(),
            dtype: None,
            shape: Some(vec![Dim::Free]),
        };
        Signature { inputs: self.features().iter().map(input).collect(), outputs: self.outputs().to_vec() }
    }

    fn takes_missing(&self) -> bool {
        true
    }

    fn info(&self) -> ModelInfo {
        self.details().clone()
    }

    fn check(&self, example: &Prepared) -> Result<()> {
        TreesModel::check(self, example)
    }

    fn predict(&self, batch: &[Prepared], _: &InferenceArgs) -> Result<Predictions<Tensors>> {
        self.run(batch).map(Predictions::All)
    }
}

/// Loads a model, or that version of it.
pub type Load = Arc<dyn Fn(Option<&ModelMetadata>) -> Result<Box<dyn RowModel>> + Send + Sync>;

/// A model that was loaded once already, to know what it takes and gives.
pub struct Loaded {
    pub(super) handler: &'static str,
    pub(super) namespace: String,
    pub(super) load: Load,
    pub(super) files: Vec<PathBuf>,
    /// None where it is asked for when the run begins, or loaded again when it is needed.
    pub(super) model: Option<Box<dyn RowModel>>,
    signature: Signature,
    takes_missing: bool,
    /// The handler of its process, where it is in one.
    pub(super) apart: Option<Arc<Isolated<Told>>>,
    /// Whether it takes whatever inputs the file gives it.
    pub is_open: bool,
    /// How its rows are gathered where the file does not say, for one behind HTTP.
    pub batching: Option<Batching>,
    /// Where the file names it.
    pub span: Span,
}

impl Loaded {
    /// Loads the model; what is wrong with it is told at `span`.
    pub fn new<M: RowModel + 'static>(
        maker: &mut Maker<'_>,
        handler: &'static str,
        span: Span,
        model: impl ModelHandler<Model = M>,
    ) -> Option<Loaded> {
        let named = (handler, model.metrics_namespace(), model.model_files());
        let load: Load = Arc::new(move |version| {
            let loaded = match version {
                Some(version) => model.load_version(version),
                None => model.load_model(),
            };
            loaded.map(|model| Box::new(model) as Box<dyn RowModel>)
        });
        Loaded::by(maker, named, span, load)
    }

    /// Loads the model by `load`.
    pub fn by(
        maker: &mut Maker<'_>,
        (handler, namespace, files): (&'static str, String, Vec<PathBuf>),
        span: Span,
        load: Load,
    ) -> Option<Loaded> {
        match load(None) {
            Ok(model) => {
                let (signature, takes_missing) = (model.signature(), model.takes_missing());
                let model = Some(model);
                let is_open = false;
                Some(Loaded {
                    handler,
                    namespace,
                    load,
                    files,
                    model,
                    signature,
                    takes_missing,
                    apart: None,
                    is_open,
                    batching: None,
                    span,
                })
            }
            Err(error) => {
                maker.refuse(&error, span);
                None
            }
        }
    }

    /// A model that is not asked for before the run begins: it takes what it is given, and its outputs are told.
    #[cfg(feature = "remote")]
    pub fn told(
        (handler, namespace): (&'static str, String),
        span: Span,
        load: Load,
        outputs: Vec<Port>,
    ) -> Loaded {
        let (files, signature) = (Vec::new(), Signature { inputs: Vec::new(), outputs });
        Loaded {
            handler,
            namespace,
            load,
            files,
            model: None,
            signature,
            takes_missing: false,
            apart: None,
            is_open: true,
            batching: None,
            span,
        }
    }

    /// A model in a process of its own.
    pub fn apart(
        maker: &mut Maker<'_>,
        handler: &'static str,
        span: Span,
        isolated: Arc<Isolated<Told>>,
    ) -> Option<Loaded> {
        let takes_missing = TREES.contains(&handler);
        let (own, named) =
            (isolated.clone(), (handler, isolated.metrics_namespace(), isolated.model_files()));
        let load: Load = Arc::new(move |version| {
            let model = isolated.load_cohort(0, version)?;
            Ok(Box::new(Apart { handler: isolated.clone(), model, takes_missing }) as Box<dyn RowModel>)
        });
        let loaded = Loaded::by(maker, named, span, load)?;
        Some(Loaded { apart: Some(own), ..loaded })
    }

    /// The model, loaded once already.
    pub fn into_model(self) -> Option<Box<dyn RowModel>> {
        self.model
    }

    /// As [`RowModel::takes_missing`].
    pub fn takes_missing(&self) -> bool {
        self.takes_missing
    }

    /// What goes in and what comes out.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What goes into the model.
    pub fn inputs(&self) -> &[Port] {
        &self.signature.inputs
    }

    /// What comes out of it.
    pub fn outputs(&self) -> &[Port] {
        &self.signature.outputs
    }
}

/// The variable that `${env:NAME}` names.
pub fn variable_of(given: &str) -> Option<&str> {
    let name = given.strip_prefix("${env:")?.strip_suffix('}')?;
    (!name.is_empty()).then_some(name)
}

/// The text of a key.
pub fn text(config: &Node, key: &str) -> Option<Arc<str>> {
    config.get(key)?.as_str().cloned()
}

/// The texts of a key; one alone is a list of one.
pub fn texts(config: &Node, key: &str) -> Vec<String> {
    match config.get(key).map(|node| &node.content) {
        Some(Content::String(one)) => vec![one.to_string()],
        Some(Content::List(items)) => {
            items.iter().filter_map(|item| item.as_str().map(|text| text.to_string())).collect()
        }
        _ => Vec::new(),
    }
}

pub fn engine(maker: &mut Maker<'_>, config: &Node) -> Option<Engine> {
    let Some(name) = text(config, "engine") else { return Some(Engine::Auto) };
    match &*name {
        "auto" => Some(Engine::Auto),
        "rten" => Some(Engine::Rten),
        "ort" => Some(Engine::Ort),
        other => {
            let span = config.get("engine").map_or(config.span, |node| node.span);
            let problem = Diagnostic::new("TB0208", span, format!("unknown engine `{other}`"));
            maker.problem(
                problem.did_you_mean(other, ["auto", "rten", "ort"]).note("engines: auto, rten, ort"),
            );
            None
        }
    }
}

fn onnx(maker: &mut Maker<'_>, config: &Node) -> Option<Loaded> {
    let uri = config.get("model_uri")?;
    let mut handler = OnnxModelHandler::new(Path::new(&**uri.as_str()?))
        .with_engine(engine(maker, config)?)
        .with_providers(texts(config, "providers"))
        .with_outputs(texts(config, "outputs"));
    if let Some(sha256) = text(config, "sha256") {
        handler = handler.with_sha256(&*sha256);
    }
    Loaded::new(maker, "OnnxModelHandlerNumpy", uri.span, handler.named_inputs().named_outputs())
}

fn torch(maker: &mut Maker<'_>, config: &Node) -> Option<Loaded> {
    let path = config.get("state_dict_path")?;
    let class = config.get("model_class")?;
    let mut handler = PytorchModelHandlerKeyedTensor::new(Path::new(&**path.as_str()?), &**class.as_str()?)
        .with_engine(engine(maker, config)?)
        .with_outputs(texts(config, "outputs"));
    if let Some(params) = config.get("model_params").and_then(Node::as_map) {
        handler = handler.with_params(params.iter().map(|entry| (&*entry.key, plain_value(&entry.value))));
    }
    if let Some(device) = text(config, "device") {
        handler = handler.with_device(&*device);
    }
    if let Some(sha256) = text(config, "sha256") {
        handler = handler.with_sha256(&*sha256);
    }
    // What can be said without the file is told where it stands.
    if let Err(error) = handler.validate() {
        let device = config.get("device").filter(|_| error.message().starts_with("device"));
        let params = config.get("model_params").filter(|_| error.message().contains("param"));
        maker.refuse(&error, device.or(params).unwrap_or(class).span);
        return None;
    }
    Loaded::new(maker, "PytorchModelHandlerTensor", path.span, handler.named_outputs())
}

fn trees(maker: &mut Maker<'_>, config: &Node, name: &'static str, format: Format) -> Option<Loaded> {
    let uri = config.get("model_uri")?;
    let mut handler = TreesModelHandler::new(Path::new(&**uri.as_str()?)).with_format(format);
    if let Some(sha256) = text(config, "sha256") {
        handler = handler.with_sha256(&*sha256);
    }
    if matches!(config.get("raw_scores").map(|node| &node.content), Some(Content::Bool(true))) {
        handler = handler.with_raw_scores();
    }
    Loaded::new(maker, name, uri.span, handler.named_inputs().named_outputs())
}

fn xgboost(maker: &mut Maker<'_>, config: &Node) -> Option<Loaded> {
    trees(maker, config, "XGBoostModelHandlerNumpy", Format::Xgboost)
}

fn lightgbm(maker: &mut Maker<'_>, config: &Node) -> Option<Loaded> {
    trees(maker, config, "LightGBMModelHandler", Format::Lightgbm)
}

fn tflite(maker: &mut Maker<'_>, config: &Node) -> Option<Loaded> {
    let uri = config.get("model_uri")?;
    let mut handler = TFModelHandler::new(Path::new(&**uri.as_str()?))
        .with_engine(engine(maker, config)?)
        .with_outputs(texts(config, "outputs"));
    if let Some(sha256) = text(config, "sha256") {
        handler = handler.with_sha256(&*sha256);
    }
    Loaded::new(maker, "TFModelHandlerNumpy", uri.span, handler.named_inputs().named_outputs())
}
