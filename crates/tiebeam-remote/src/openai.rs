//! [`OpenAiModelHandler`]: servers that speak OpenAI's API, which most servers of language models do.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use tiebeam_core::Element;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::row::Value;
use tiebeam_inference::{InferenceArgs, ModelInfo, ModelMetadata, Tensor};

use crate::handler::RemoteModelHandler;
use crate::json;
use crate::model::{Answers, RemoteModel};
use crate::remote::Remote;
use crate::request::{Credential, RemoteRequest, RemoteResponse, base_url, miscounted, unreadable};

/// Runs models behind an OpenAI-compatible API: [`chat`](OpenAiModelHandler::chat),
/// [`completions`](OpenAiModelHandler::completions) or [`embeddings`](OpenAiModelHandler::embeddings). Examples are texts.
///
/// The arguments of inference are the API's own (`temperature`, `max_tokens`, …), checked by name when the pipeline is
/// built. An update names another model of the same server.
///
/// ```no_run
/// use tiebeam_inference::RunInference;
/// use tiebeam_remote::OpenAiModelHandler;
///
/// let handler = OpenAiModelHandler::chat("smollm2")
///     .with_base_url("http://127.0.0.1:8080/v1")
///     .with_api_key_env("OPENAI_API_KEY")
///     .with_system_prompt("Answer in one word.")
///     .with_max_concurrency(16);
/// let answers = RunInference::new(handler);
/// ```
pub type OpenAiModelHandler<K> = RemoteModelHandler<OpenAi<K>>;

/// A model behind an OpenAI-compatible API, asked for one kind of thing.
#[derive(Debug, Clone)]
pub struct OpenAi<K> {
    base_url: String,
    model: String,
    credential: Credential,
    plain_http: bool,
    organization: Option<String>,
    more_args: Vec<String>,
    kind: K,
}

/// Chat: one request for each text, which is the user's message; the answer is the text of the first choice.
#[derive(Debug, Clone, Default)]
pub struct Chat {
    system_prompt: Option<String>,
}

/// Completions: several prompts in a request, the text that follows each.
#[derive(Debug, Clone, Default)]
pub struct Completions(());

/// Embeddings: several texts in a request, a vector of `float32` for each.
#[derive(Debug, Clone, Default)]
pub struct Embeddings(());

/// What an argument of the API must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub enum Wanted {
    Number,
    Integer,
    Text,
    Texts,
    Boolean,
    Object,
    One,
}

impl Wanted {
    fn takes(self, value: &Value) -> bool {
        let is_integer =
            matches!(value, Value::Byte(_) | Value::Int16(_) | Value::Int32(_) | Value::Int64(_));
        match self {
            Wanted::Number => {
                is_integer
                    || matches!(value, Value::Float(v) if v.is_finite())
                    || matches!(value, Value::Double(v) if v.is_finite())
            }
            Wanted::Integer => is_integer,
            Wanted::Text => matches!(value, Value::String(_)),
            Wanted::Texts => match value {
                Value::Array(values) => values.iter().all(|value| matches!(value, Value::String(_))),
                other => matches!(other, Value::String(_)),
            },
            Wanted::Boolean => matches!(value, Value::Bool(_)),
            Wanted::Object => matches!(value, Value::Row(_) | Value::Map(_)),
            Wanted::One => is_integer && json::of_value(value).is_ok_and(|json| json == json!(1)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Wanted::Number => "a number",
            Wanted::Integer => "an integer",
            Wanted::Text => "a text",
            Wanted::Texts => "a text or texts",
            Wanted::Boolean => "a boolean",
            Wanted::Object => "an object",
            Wanted::One => "1: each example has one inference",
        }
    }
}

const GENERATION: [(&str, Wanted); 10] = [
    ("temperature", Wanted::Number),
    ("top_p", Wanted::Number),
    ("max_tokens", Wanted::Integer),
    ("stop", Wanted::Texts),
    ("presence_penalty", Wanted::Number),
    ("frequency_penalty", Wanted::Number),
    ("seed", Wanted::Integer),
    ("logit_bias", Wanted::Object),
    ("user", Wanted::Text),
    ("n", Wanted::One),
];

/// One kind of question to an OpenAI-compatible API. Implemented by this crate alone.
pub trait Kind: Clone + Send + Sync + 'static {
    /// What comes back for a text.
    type Inference: Element;
    /// The path after the base address.
    #[doc(hidden)]
    const PATH: &'static str;
    #[doc(hidden)]
    const REQUEST_SIZE: usize;
    #[doc(hidden)]
    fn args() -> Vec<(&'static str, Wanted)>;
    #[doc(hidden)]
    fn fill(&self, texts: &[String], body: &mut Map<String, Json>);
    #[doc(hidden)]
    fn read(&self, response: &RemoteResponse, count: usize) -> Result<Answers<Self::Inference>>;
}

/// Puts numbered answers in the order of their examples.
fn in_order<T>(numbered: impl IntoIterator<Item = (usize, T)>, count: usize, what: &str) -> Result<Vec<T>> {
    let mut slots: Vec<Option<T>> = (0..count).map(|_| None).collect();
    let mut seen = 0;
    for (index, value) in numbered {
        seen += 1;
        match slots.get_mut(index) {
            Some(slot @ None) => *slot = Some(value),
            Some(Some(_)) => return Err(miscounted(format!("two {what} have the index {index}"))),
            None => return Err(miscounted(format!("the index {index} of {what} for {count} examples"))),
        }
    }
    let all: Vec<T> = slots.into_iter().flatten().collect();
    if all.len() == count {
        return Ok(all);
    }
    Err(miscounted(format!("the answer has {seen} {what} for {count} examples")))
}

/// The model that an answer names.
fn named(model: Option<String>) -> Option<Arc<str>> {
    model.filter(|name| !name.is_empty()).map(Arc::from)
}

#[derive(Deserialize)]
struct Choices<C> {
    choices: Vec<C>,
    model: Option<String>,
}

#[derive(Deserialize)]
struct ChatChoice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
}

impl Kind for Chat {
    type Inference = String;
    const PATH: &'static str = "/chat/completions";
    const REQUEST_SIZE: usize = 1;

    fn args() -> Vec<(&'static str, Wanted)> {
        let mut args = GENERATION.to_vec();
        args.extend([
            ("max_completion_tokens", Wanted::Integer),
            ("reasoning_effort", Wanted::Text),
            ("response_format", Wanted::Object),
            ("service_tier", Wanted::Text),
            ("verbosity", Wanted::Text),
            ("store", Wanted::Boolean),
        ]);
        args
    }

    fn fill(&self, texts: &[String], body: &mut Map<String, Json>) {
        let system = self.system_prompt.iter().map(|text| json!({"role": "system", "content": text}));
        let user = texts.iter().take(1).map(|text| json!({"role": "user", "content": text}));
        body.insert("messages".to_owned(), system.chain(user).collect());
    }

    fn read(&self, response: &RemoteResponse, _: usize) -> Result<Answers<String>> {
        let answer: Choices<ChatChoice> = response.json()?;
        let model_id = named(answer.model);
        let mut choices = answer.choices.into_iter();
        let (Some(choice), None) = (choices.next(), choices.next()) else {
            return Err(miscounted("the answer has not exactly one choice"));
        };
        match (choice.message.content, choice.message.refusal) {
            (Some(text), _) => Ok(Answers { inferences: vec![text], model_id }),
            (None, Some(refusal)) => Err(unreadable(format!("the model refused to answer: {refusal}"))),
            (None, None) => Err(unreadable("the answer's message has no text")),
        }
    }
}

#[derive(Deserialize)]
struct TextChoice {
    index: usize,
    text: String,
}

impl Kind for Completions {
    type Inference = String;
    const PATH: &'static str = "/completions";
    const REQUEST_SIZE: usize = 16;

    fn args() -> Vec<(&'static str, Wanted)> {
        let mut args = GENERATION.to_vec();
        args.extend([("suffix", Wanted::Text), ("echo", Wanted::Boolean)]);
        args
    }

    fn fill(&self, texts: &[String], body: &mut Map<String, Json>) {
        body.insert("prompt".to_owned(), json!(texts));
    }

    fn read(&self, response: &RemoteResponse, count: usize) -> Result<Answers<String>> {
        let answer: Choices<TextChoice> = response.json()?;
        let numbered = answer.choices.into_iter().map(|choice| (choice.index, choice.text));
        Ok(Answers { inferences: in_order(numbered, count, "choices")?, model_id: named(answer.model) })
    }
}

#[derive(Deserialize)]
struct Vectors {
    data: Vec<Vector>,
    model: Option<String>,
}

#[derive(Deserialize)]
struct Vector {
    index: usize,
    embedding: Vec<f64>,
}

impl Kind for Embeddings {
    type Inference = Tensor;
    const PATH: &'static str = "/embeddings";
    const REQUEST_SIZE: usize = 64;

    fn args() -> Vec<(&'static str, Wanted)> {
        vec![("dimensions", Wanted::Integer), ("user", Wanted::Text)]
    }

    fn fill(&self, texts: &[String], body: &mut Map<String, Json>) {
        body.insert("input".to_owned(), json!(texts));
        body.insert("encoding_format".to_owned(), json!("float"));
    }

    fn read(&self, response: &RemoteResponse, count: usize) -> Result<Answers<Tensor>> {
        let answer: Vectors = response.json()?;
        let model_id = named(answer.model);
        let numbered = answer.data.into_iter().map(|vector| (vector.index, vector.embedding));
        let vectors = in_order(numbered, count, "embeddings")?;
        let length = vectors.first().map_or(0, Vec::len);
        let single = |vector: Vec<f64>| {
            if vector.len() != length || length == 0 {
                return Err(unreadable(format!("embeddings of {length} and of {} numbers", vector.len())));
            }
            let numbers: Vec<f32> = vector.iter().map(|number| *number as f32).collect();
            match numbers.iter().position(|number| !number.is_finite()) {
                Some(at) => Err(unreadable(format!("{} in an embedding is no float32", vector[at]))),
                None => Ok(Tensor::vector(numbers)),
            }
        };
        Ok(Answers { inferences: vectors.into_iter().map(single).collect::<Result<_>>()?, model_id })
    }
}

impl<K: Kind> OpenAi<K> {
    fn new(model: impl Into<String>, kind: K) -> RemoteModelHandler<Self> {
        RemoteModelHandler::of(OpenAi {
            base_url: "https://api.openai.com/v1".to_owned(),
            model: model.into(),
            credential: Credential::None,
            plain_http: false,
            organization: None,
            more_args: Vec::new(),
            kind,
        })
    }
}

impl RemoteModelHandler<OpenAi<Chat>> {
    /// Texts are messages of the user; the inference is the model's answer.
    pub fn chat(model: impl Into<String>) -> Self {
        OpenAi::new(model, Chat::default())
    }

    /// A message of the system before each text.
    #[must_use]
    pub fn with_system_prompt(self, text: impl Into<String>) -> Self {
        self.change(|model| model.kind.system_prompt = Some(text.into()))
    }
}

impl RemoteModelHandler<OpenAi<Completions>> {
    /// Texts are prompts; the inference is how the model goes on.
    pub fn completions(model: impl Into<String>) -> Self {
        OpenAi::new(model, Completions(()))
    }
}

impl RemoteModelHandler<OpenAi<Embeddings>> {
    /// Texts become vectors.
    pub fn embeddings(model: impl Into<String>) -> Self {
        OpenAi::new(model, Embeddings(()))
    }
}

impl<K: Kind> RemoteModelHandler<OpenAi<K>> {
    /// The address up to and with the version, as `http://127.0.0.1:8000/v1`. Default: OpenAI's own.
    #[must_use]
    pub fn with_base_url(self, url: impl Into<String>) -> Self {
        self.change(|model| model.base_url = url.into())
    }

    /// The key of the API.
    #[must_use]
    pub fn with_api_key(self, key: impl Into<String>) -> Self {
        self.change(|model| model.credential = Credential::Value(key.into()))
    }

    /// The environment variable that holds the key.
    #[must_use]
    pub fn with_api_key_env(self, name: impl Into<String>) -> Self {
        self.change(|model| model.credential = Credential::Env(name.into()))
    }

    /// The organization that is charged.
    #[must_use]
    pub fn with_organization(self, organization: impl Into<String>) -> Self {
        self.change(|model| model.organization = Some(organization.into()))
    }

    /// Allows arguments of inference that are this server's own (`top_k`, `min_p`), of any type.
    #[must_use]
    pub fn with_extra_args<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.change(|model| model.more_args.extend(names.into_iter().map(Into::into)))
    }

    /// Sends the key without TLS too, to a server in a network of your own.
    #[must_use]
    pub fn with_plain_http(self) -> Self {
        self.change(|model| model.plain_http = true)
    }
}

impl<K: Kind> RemoteModel for OpenAi<K> {
    type Example = String;
    type Inference = K::Inference;
    type State = ();

    fn endpoint(&self) -> String {
        self.base_url.trim_end_matches('/').to_owned()
    }

    fn load(&self, _: &Remote) -> Result<()> {
        // A key that is missing is told before anything is read.
        self.credential.token().map(drop)
    }

    fn request(&self, texts: &[String], _: &(), args: &InferenceArgs) -> Result<RemoteRequest> {
        let mut body = json::of_args(args)?;
        body.insert("model".to_owned(), json!(self.model));
        self.kind.fill(texts, &mut body);
        let url = format!("{}{}", self.endpoint(), K::PATH);
        let request = RemoteRequest::post_json(url, Json::Object(body).to_string().into_bytes());
        let request = match &self.organization {
            Some(organization) => request.header("openai-organization", organization),
            None => request,
        };
        Ok(request.bearer(self.credential.token()?))
    }

    fn response(&self, texts: &[String], response: &RemoteResponse, _: &()) -> Result<Answers<K::Inference>> {
        self.kind.read(response, texts.len())
    }

    fn request_size(&self) -> usize {
        K::REQUEST_SIZE
    }

    fn max_request_size(&self, _: &()) -> usize {
        if K::REQUEST_SIZE == 1 { 1 } else { usize::MAX }
    }

    fn name(&self) -> String {
        "OpenAiModelHandler".to_owned()
    }

    fn metrics_namespace(&self) -> String {
        "BeamML_OpenAI".to_owned()
    }

    fn model_info(&self, _: &()) -> ModelInfo {
        ModelInfo {
            model_id: self.model.as_str().into(),
            uri: Some(format!("{}{}", self.endpoint(), K::PATH)),
            ..ModelInfo::default()
        }
    }

    /// Another model of the same server, by its name.
    fn version(&self, version: &ModelMetadata) -> Option<Self> {
        Some(OpenAi { model: version.model_id.clone(), ..self.clone() })
    }

    fn takes_updates(&self) -> bool {
        true
    }

    fn validate(&self) -> Result<()> {
        if self.model.is_empty() {
            let message = "an OpenAI-compatible handler needs the name of a model";
            return Err(Error::new(ErrorKind::InvalidArgument, "TB0600", message));
        }
        base_url(&self.base_url, &self.credential, self.plain_http).map(drop)
    }

    fn validate_inference_args(&self, args: &InferenceArgs) -> Result<()> {
        let known = K::args();
        for (name, value) in args.iter() {
            let wanted = known.iter().find(|(known, _)| *known == name);
            let message = match wanted {
                Some((_, wanted)) if wanted.takes(value) => continue,
                Some((_, wanted)) => {
                    format!("the inference arg `{name}` must be {}, got {value:?}", wanted.name())
                }
                None if self.more_args.iter().any(|more| more == name) => {
                    json::of_value(value)?;
                    continue;
                }
                None => format!("unknown inference arg `{name}`"),
            };
            let names = known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            return Err(Error::new(ErrorKind::InvalidArgument, "TB0601", message).with_help(format!(
                "known are {names}; allow what else the server takes with `with_extra_args`"
            )));
        }
        Ok(())
    }

    fn element_size(&self, text: &String) -> u64 {
        text.len() as u64
    }
}
