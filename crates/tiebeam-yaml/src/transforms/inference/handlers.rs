//! The model handlers that files can name, and the handler of rows over all of them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tiebeam_core::Result;
use tiebeam_core::row::Value;
use tiebeam_inference::{InferenceArgs, LengthFn, ModelHandler, ModelInfo, Tensors};
use tiebeam_onnx::{Engine, OnnxModel, OnnxModelHandler};
use tiebeam_torch::PytorchModelHandlerKeyedTensor;

use super::inputs::Prepared;
use crate::catalog::{Key, Wants};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::expression::Expression;
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

const ENGINE: Key = Key::optional("engine", Wants::Text, "auto, rten or ort (ours)");
const TORCH_KEYS: &[Key] = &[
    Key::required("state_dict_path", Wants::Text, "a .pth, .pt or .safetensors file of weights"),
    Key::required("model_class", Wants::Text, "the architecture, such as LinearRegression"),
    Key::optional("model_params", Wants::Map, "the architecture's arguments"),
    Key::optional("device", Wants::Text, "cpu"),
    ENGINE,
];

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
    ];
    TYPES
}

type Load = Arc<dyn Fn() -> Result<OnnxModel> + Send + Sync>;

/// A model that was loaded once already, to know what it takes and gives.
pub struct Loaded {
    handler: &'static str,
    namespace: String,
    load: Load,
    files: Vec<PathBuf>,
    model: OnnxModel,
    /// Where the file names it.
    pub span: Span,
}

impl Loaded {
    /// Loads the model; what is wrong with it is told at `span`.
    fn new(
        maker: &mut Maker<'_>,
        handler: &'static str,
        span: Span,
        model: impl ModelHandler<Model = OnnxModel>,
    ) -> Option<Loaded> {
        let namespace = model.metrics_namespace();
        let files = model.model_files();
        let load: Load = Arc::new(move || model.load_model());
        match load() {
            Ok(model) => Some(Loaded { handler, namespace, load, files, model, span }),
            Err(error) => {
                maker.refuse(&error, span);
                None
            }
        }
    }

    /// The model.
    pub fn model(&self) -> &OnnxModel {
        &self.model
    }
}

fn text(config: &Node, key: &str) -> Option<Arc<str>> {
    config.get(key)?.as_str().cloned()
}

fn texts(config: &Node, key: &str) -> Vec<String> {
    match config.get(key).map(|node| &node.content) {
        Some(Content::String(one)) => vec![one.to_string()],
        Some(Content::List(items)) => {
            items.iter().filter_map(|item| item.as_str().map(|text| text.to_string())).collect()
        }
        _ => Vec::new(),
    }
}

fn engine(maker: &mut Maker<'_>, config: &Node) -> Option<Engine> {
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

/// What the file measures of rows, for batches.
pub struct Measures {
    /// Rows of about one length share batches.
    pub length: Option<Arc<Expression>>,
    /// What a row weighs.
    pub weight: Option<Arc<Expression>>,
}

/// What an expression gives for a row; a row that it fails on counts nothing.
fn measured(expression: &Expression, example: &Prepared) -> u64 {
    match expression.evaluate(example.row()) {
        Ok(Value::Int64(value)) => u64::try_from(value).unwrap_or(0),
        _ => 0,
    }
}

/// Runs a model on rows whose tensors were prepared. The copy that was loaded first is the first one used.
pub struct RowHandler {
    handler: &'static str,
    namespace: String,
    load: Load,
    files: Vec<PathBuf>,
    first: Mutex<Option<OnnxModel>>,
    measures: Measures,
}

impl RowHandler {
    pub fn new(loaded: Loaded, measures: Measures) -> Self {
        let Loaded { handler, namespace, load, files, model, .. } = loaded;
        RowHandler { handler, namespace, load, files, first: Mutex::new(Some(model)), measures }
    }
}

impl ModelHandler for RowHandler {
    type Example = Prepared;
    type Inference = Tensors;
    type Model = OnnxModel;

    fn load_model(&self) -> Result<OnnxModel> {
        match self.first.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(model) => Ok(model),
            None => (self.load)(),
        }
    }

    fn run_inference(
        &self,
        batch: &[Prepared],
        model: &OnnxModel,
        _: &InferenceArgs,
    ) -> Result<Vec<Tensors>> {
        model.run(batch)
    }

    fn check_example(&self, example: &Prepared, model: &OnnxModel) -> Result<()> {
        model.check(example)
    }

    fn element_size(&self, example: &Prepared) -> u64 {
        match &self.measures.weight {
            Some(weight) => measured(weight, example),
            None => tiebeam_inference::Example::num_bytes(example) as u64,
        }
    }

    fn num_bytes(&self, batch: &[Prepared]) -> u64 {
        batch.iter().map(|example| tiebeam_inference::Example::num_bytes(example) as u64).sum()
    }

    fn length_fn(&self) -> Option<LengthFn<Prepared>> {
        let length = self.measures.length.clone()?;
        Some(Arc::new(move |example| usize::try_from(measured(&length, example)).unwrap_or(usize::MAX)))
    }

    fn metrics_namespace(&self) -> String {
        self.namespace.clone()
    }

    fn name(&self) -> String {
        self.handler.to_owned()
    }

    fn model_info(&self, model: &OnnxModel) -> ModelInfo {
        model.details().clone()
    }

    fn model_files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }
}
