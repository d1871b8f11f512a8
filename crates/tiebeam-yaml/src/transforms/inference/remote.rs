//! Models behind HTTP, as files name them.

use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::row::Value;
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_inference::{
    DType, Dim, InferenceArgs, ModelHandler, ModelInfo, Port, Predictions, Signature, Tensor, Tensors,
};
use tiebeam_remote::{KServeModelHandler, OpenAiModelHandler, RemoteClient, RemoteModel, RemoteModelHandler};

use super::handlers::{self, HandlerType, Load, Loaded, RowModel, text, texts};
use super::inputs::Prepared;
use crate::catalog::{Key, Wants};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::plan::Maker;
use crate::schema::plain_value;

const RETRIES: Key =
    Key::optional("max_retries", Wants::Int, "requests after one that failed for a passing reason; 5");
const CONCURRENCY: Key = Key::optional("max_concurrency", Wants::Int, "requests at the same time; 8");
const RATE: Key = Key::optional("rate_limit", Wants::Number, "requests a second; none");

pub(super) const OPEN_AI: HandlerType = HandlerType {
    name: handlers::OPEN_AI,
    about: "a model behind an OpenAI-compatible API (ours); its input is `prompt`",
    keys: &[
        Key::required("endpoint", Wants::Text, "the base URL, such as http://127.0.0.1:8000/v1"),
        Key::required("model", Wants::Text, "the model's name there"),
        Key::optional("task", Wants::Text, "chat, completions or embeddings; chat"),
        Key::optional("api_key", Wants::Text, "`${env:NAME}`: the environment variable that holds it"),
        Key::optional("system_prompt", Wants::Text, "what a chat begins with"),
        RETRIES,
        CONCURRENCY,
        RATE,
    ],
    make: open_ai,
};

pub(super) const KSERVE: HandlerType = HandlerType {
    name: "KServeModelHandler",
    about: "a model behind KServe's v2 protocol, Triton's too (ours)",
    keys: &[
        Key::required("endpoint", Wants::Text, "scheme, host and port"),
        Key::required("model", Wants::Text, "the model's name there"),
        Key::optional("version", Wants::Text, "its version; the server's choice"),
        RETRIES,
        CONCURRENCY,
        RATE,
    ],
    make: kserve,
};

type ToExample<T> = fn(&Prepared) -> Result<<T as RemoteModel>::Example>;
type OfAnswer<T> = fn(<T as RemoteModel>::Inference, &Arc<[Arc<str>]>) -> Tensors;

/// A model behind HTTP over rows.
struct RemoteRows<T: RemoteModel> {
    handler: Arc<RemoteModelHandler<T>>,
    client: RemoteClient<T>,
    signature: Signature,
    forms: (ToExample<T>, OfAnswer<T>),
    names: Arc<[Arc<str>]>,
}

impl<T: RemoteModel> RowModel for RemoteRows<T> {
    fn signature(&self) -> Signature {
        self.signature.clone()
    }

    fn info(&self) -> ModelInfo {
        self.handler.model_info(&self.client)
    }

    fn check(&self, example: &Prepared) -> Result<()> {
        self.handler.check_example(&(self.forms.0)(example)?, &self.client)
    }

    fn predict(&self, batch: &[Prepared], args: &InferenceArgs) -> Result<Predictions<Tensors>> {
        let examples = batch.iter().map(self.forms.0).collect::<Result<Vec<_>>>()?;
        let answer = |inference| (self.forms.1)(inference, &self.names);
        Ok(match self.handler.predict(&examples, &self.client, args)? {
            Predictions::All(all) => Predictions::All(all.into_iter().map(answer).collect()),
            Predictions::Each(each) => {
                Predictions::Each(each.into_iter().map(|one| one.map(answer)).collect())
            }
        })
    }
}

/// A handler with what all of them share, loaded once.
fn loaded<T: RemoteModel>(
    maker: &mut Maker<'_>,
    config: &Node,
    (name, handler): (&'static str, RemoteModelHandler<T>),
    signature: impl Fn(&RemoteModelHandler<T>, &RemoteClient<T>) -> Signature + Send + Sync + 'static,
    forms: (ToExample<T>, OfAnswer<T>),
) -> Option<Loaded> {
    let endpoint = config.get("endpoint")?.span;
    let handler = shared_settings(config, handler);
    let args: InferenceArgs = maker
        .get("inference_args")
        .and_then(Node::as_map)
        .map(|args| args.iter().map(|entry| (entry.key.to_string(), plain_value(&entry.value))).collect())
        .unwrap_or_default();
    if let Err(error) = handler.validate_inference_args(&args) {
        let span = maker.get("inference_args").map_or(endpoint, |node| node.span);
        maker.refuse(&error, span);
        return None;
    }
    if let Err(error) = handler.validate() {
        maker.refuse(&error, endpoint);
        return None;
    }
    let (batching, namespace) = (handler.batching(), handler.metrics_namespace());
    let handler = Arc::new(handler);
    let load: Load = Arc::new(move |version| {
        let client = match version {
            Some(version) => handler.load_version(version)?,
            None => handler.load_model()?,
        };
        let signature = signature(&handler, &client);
        let names = signature.outputs.iter().map(|port| port.name.clone()).collect();
        let handler = handler.clone();
        Ok(Box::new(RemoteRows { handler, client, signature, forms, names }) as Box<dyn RowModel>)
    });
    let mut loaded = Loaded::by(maker, (name, namespace, Vec::new()), endpoint, load)?;
    loaded.batching = Some(batching);
    Some(loaded)
}

/// Retries, concurrency, rate and the time of a request.
fn shared_settings<T: RemoteModel>(
    config: &Node,
    mut handler: RemoteModelHandler<T>,
) -> RemoteModelHandler<T> {
    let whole = |key: &str| match config.get(key).map(|node| &node.content) {
        Some(Content::Int(n)) => usize::try_from(*n).ok(),
        _ => None,
    };
    if let Some(retries) = whole("max_retries") {
        handler = handler.with_max_attempts(u32::try_from(retries).unwrap_or(u32::MAX).saturating_add(1));
    }
    if let Some(requests) = whole("max_concurrency").filter(|n| *n > 0) {
        handler = handler.with_max_concurrency(requests);
    }
    match config.get("rate_limit").map(|node| &node.content) {
        Some(Content::Int(rate)) => handler = handler.with_rate_limit(*rate as f64),
        Some(Content::Float(rate)) => handler = handler.with_rate_limit(*rate),
        _ => {}
    }
    if let Some(node) = config.get("timeout").filter(|node| node.content != Content::Null) {
        let read = match node.content {
            Content::Int(seconds) => Duration::try_from_secs_f64(seconds as f64).ok(),
            Content::Float(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            _ => crate::windowing::duration(node).ok(),
        };
        if let Some(timeout) = read.filter(|timeout| !timeout.is_zero()) {
            handler = handler.with_request_timeout(timeout);
        }
    }
    handler
}

/// The text of the only input.
fn prompt(example: &Prepared) -> Result<String> {
    let value = example.tensors().values().first().map(Tensor::to_value);
    match value {
        Some(Value::String(text)) => Ok(text.to_string()),
        _ => Err(Error::new(ErrorKind::InvalidData, "TB0227", "the prompt is no text")),
    }
}

fn of_text(text: String, names: &Arc<[Arc<str>]>) -> Tensors {
    Tensors::of_checked_names(names.clone(), vec![Tensor::scalar(Arc::<str>::from(text))])
}

fn of_tensor(tensor: Tensor, names: &Arc<[Arc<str>]>) -> Tensors {
    Tensors::of_checked_names(names.clone(), vec![tensor])
}

/// What such a model takes and gives.
fn texts_to(name: &str, dtype: DType, shape: Vec<Dim>) -> Signature {
    let port = |name: &str, dtype, shape| {
        let type_name = if dtype == DType::Str { "string" } else { "float32" }.to_owned();
        Port { name: name.into(), type_name, dtype: Some(dtype), shape: Some(shape) }
    };
    Signature {
        inputs: vec![port("prompt", DType::Str, Vec::new())],
        outputs: vec![port(name, dtype, shape)],
    }
}

/// The environment variable of the key: none within where there is no key, none where it is wrong.
fn api_key(maker: &mut Maker<'_>, config: &Node) -> Option<Option<String>> {
    let Some(given) = text(config, "api_key") else { return Some(None) };
    let name = given.strip_prefix("${env:").and_then(|rest| rest.strip_suffix('}'));
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        return Some(Some(name.to_owned()));
    }
    let span = config.get("api_key").map_or(config.span, |node| node.span);
    let message = "`api_key` names the environment variable that holds the key";
    let problem = Diagnostic::new("TB0208", span, message);
    maker.problem(problem.help("a key in a file is soon everybody's: `api_key: ${env:OPENAI_API_KEY}`"));
    None
}

fn open_ai(maker: &mut Maker<'_>, config: &Node) -> Option<Loaded> {
    const NAME: &str = handlers::OPEN_AI;
    let (endpoint, model) = (text(config, "endpoint")?, text(config, "model")?);
    let key = api_key(maker, config)?;
    let task = text(config, "task");
    match task.as_deref().unwrap_or("chat") {
        "chat" => {
            let mut handler = OpenAiModelHandler::chat(&*model).with_base_url(&*endpoint);
            if let Some(key) = key {
                handler = handler.with_api_key_env(key);
            }
            if let Some(system) = text(config, "system_prompt") {
                handler = handler.with_system_prompt(&*system);
            }
            let signature = |_: &_, _: &_| texts_to("text", DType::Str, Vec::new());
            loaded(maker, config, (NAME, handler), signature, (prompt, of_text))
        }
        "completions" => {
            let mut handler = OpenAiModelHandler::completions(&*model).with_base_url(&*endpoint);
            if let Some(key) = key {
                handler = handler.with_api_key_env(key);
            }
            let signature = |_: &_, _: &_| texts_to("text", DType::Str, Vec::new());
            loaded(maker, config, (NAME, handler), signature, (prompt, of_text))
        }
        "embeddings" => {
            let mut handler = OpenAiModelHandler::embeddings(&*model).with_base_url(&*endpoint);
            if let Some(key) = key {
                handler = handler.with_api_key_env(key);
            }
            let signature = |_: &_, _: &_| texts_to("embedding", DType::F32, vec![Dim::Free]);
            loaded(maker, config, (NAME, handler), signature, (prompt, of_tensor))
        }
        other => {
            let span = config.get("task").map_or(config.span, |node| node.span);
            let tasks = ["chat", "completions", "embeddings"];
            let problem = Diagnostic::new("TB0208", span, format!("unknown task `{other}`"));
            maker.problem(problem.did_you_mean(other, tasks).note("tasks: chat, completions, embeddings"));
            None
        }
    }
}

fn kserve(maker: &mut Maker<'_>, config: &Node) -> Option<Loaded> {
    let (endpoint, model) = (text(config, "endpoint")?, text(config, "model")?);
    let mut handler = KServeModelHandler::new(&*endpoint, &*model).named_inputs().named_outputs();
    if let Some(version) = text(config, "version") {
        handler = handler.with_version(&*version);
    }
    let outputs = texts(config, "outputs");
    if !outputs.is_empty() {
        handler = handler.with_outputs(outputs);
    }
    fn example(example: &Prepared) -> Result<Tensors> {
        Ok(example.tensors().clone())
    }
    fn answer(tensors: Tensors, _: &Arc<[Arc<str>]>) -> Tensors {
        tensors
    }
    let signature = |handler: &RemoteModelHandler<_>, client: &RemoteClient<_>| {
        handler.signature(client).unwrap_or(Signature { inputs: Vec::new(), outputs: Vec::new() })
    };
    loaded(maker, config, ("KServeModelHandler", handler), signature, (example, answer))
}
