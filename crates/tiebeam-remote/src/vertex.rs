//! [`VertexAiModelHandler`]: models deployed to endpoints of Vertex AI.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Map, Value as Json};
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_http::escaped;
use tiebeam_inference::{InferenceArgs, ModelInfo, ModelMetadata};

use crate::handler::RemoteModelHandler;
use crate::json::{self, kind};
use crate::model::{Answers, RemoteModel};
use crate::remote::Remote;
use crate::request::{Credential, RemoteRequest, RemoteResponse, base_url, miscounted, unreadable};
use crate::value::JsonValue;

/// Runs models of Vertex AI endpoints. Examples are instances as the model takes them; the arguments of inference are the
/// request's parameters.
///
/// A prediction's model is the deployed model that the answer names. Public endpoints take at most 1.5 MB in a request: set
/// [`with_request_size`](RemoteModelHandler::with_request_size) by that.
///
/// A handler that is told no token asks Google's hosts with the token of [`google_tokens_by`], which `tiebeam::main` and the command
/// install: that of the machine's service account or of its user (Application Default Credentials).
///
/// ```no_run
/// use tiebeam_inference::RunInference;
/// use tiebeam_remote::VertexAiModelHandler;
///
/// let handler = VertexAiModelHandler::new("my-project", "europe-west4", "1234567890").with_request_size(32);
/// let predictions = RunInference::new(handler);
/// ```
pub type VertexAiModelHandler = RemoteModelHandler<VertexAi>;

/// Gives the tokens of this machine's own Google account.
type Tokens = Arc<dyn Fn() -> Result<String> + Send + Sync>;

static TOKENS: Mutex<Option<Tokens>> = Mutex::new(None);

/// The domains that this machine's own token goes to.
const GOOGLES: [&str; 2] = [".googleapis.com", ".vertexai.goog"];

/// Says where handlers without a token have one from. It goes to Google's own hosts only. Called for each request, so it should remember
/// the token while it is valid.
pub fn google_tokens_by(source: impl Fn() -> Result<String> + Send + Sync + 'static) {
    *TOKENS.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(source));
}

/// A model deployed to an endpoint of Vertex AI.
#[derive(Debug, Clone)]
pub struct VertexAi {
    project: String,
    location: String,
    endpoint_id: String,
    base_url: Option<String>,
    invoke_route: Option<String>,
    credential: Credential,
    plain_http: bool,
}

impl RemoteModelHandler<VertexAi> {
    /// The model behind the public endpoint of that number, in that project and location.
    pub fn new(
        project: impl Into<String>,
        location: impl Into<String>,
        endpoint_id: impl Into<String>,
    ) -> Self {
        RemoteModelHandler::of(VertexAi {
            project: project.into(),
            location: location.into(),
            endpoint_id: endpoint_id.into(),
            base_url: None,
            invoke_route: None,
            credential: Credential::None,
            plain_http: false,
        })
    }

    /// Asks a private endpoint, or one with a DNS name of its own, at that address (scheme and host).
    #[must_use]
    pub fn with_base_url(self, url: impl Into<String>) -> Self {
        self.change(|model| model.base_url = Some(url.into()))
    }

    /// Asks a route of the model's own container, such as `/predict/v1`, in place of `predict`. The answer is taken for the
    /// predictions if it has `predictions` or is an array of the right length; an answer to a request of one example is
    /// that example's whatever it is, as bytes if it is no JSON. Requests have one example unless told otherwise.
    #[must_use]
    pub fn with_invoke_route(self, route: impl Into<String>) -> Self {
        self.change(|model| model.invoke_route = Some(route.into()))
    }

    /// Where the access token comes from; called for each request, so it should remember the token while it is valid.
    #[must_use]
    pub fn with_token_source(self, source: impl Fn() -> Result<String> + Send + Sync + 'static) -> Self {
        self.change(|model| model.credential = Credential::Source(Arc::new(source)))
    }

    /// The environment variable that holds the access token.
    #[must_use]
    pub fn with_bearer_env(self, name: impl Into<String>) -> Self {
        self.change(|model| model.credential = Credential::Env(name.into()))
    }

    /// The access token.
    #[must_use]
    pub fn with_bearer(self, token: impl Into<String>) -> Self {
        self.change(|model| model.credential = Credential::Value(token.into()))
    }

    /// Sends the token without TLS too: private endpoints are reached by plain HTTP within their network.
    #[must_use]
    pub fn with_plain_http(self) -> Self {
        self.change(|model| model.plain_http = true)
    }
}

impl VertexAi {
    fn host(&self) -> String {
        match &self.base_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None if self.location == "global" => "https://aiplatform.googleapis.com".to_owned(),
            None => format!("https://{}-aiplatform.googleapis.com", self.location),
        }
    }

    /// What a request brings along.
    fn credential(&self) -> Credential {
        let host = self.host();
        let host = host.strip_prefix("https://").and_then(|rest| rest.split(['/', ':']).next());
        let is_googles = host.is_some_and(|host| GOOGLES.iter().any(|domain| host.ends_with(domain)));
        let tokens = TOKENS.lock().unwrap_or_else(PoisonError::into_inner);
        match &*tokens {
            Some(tokens) if self.credential.is_none() && is_googles => Credential::Source(tokens.clone()),
            _ => self.credential.clone(),
        }
    }

    fn resource(&self) -> String {
        let VertexAi { project, location, endpoint_id, .. } = self;
        let [project, location, endpoint] = [project, location, endpoint_id].map(|part| escaped(part));
        format!("projects/{project}/locations/{location}/endpoints/{endpoint}")
    }

    /// What a route of the model's own said.
    fn invoked(&self, count: usize, response: &RemoteResponse) -> Result<Answers<JsonValue>> {
        let Ok(json) = serde_json::from_slice::<Json>(response.body()) else {
            return match count {
                1 => Ok(vec![JsonValue::Bytes(Bytes::copy_from_slice(response.body()))].into()),
                _ => Err(unreadable(format!("the answer to {count} examples is no JSON"))
                    .with_help("set `with_request_size(1)` for routes that answer one example")),
            };
        };
        match json {
            Json::Object(object) if object.contains_key("predictions") => predictions(object),
            Json::Array(values) if values.len() == count => {
                Ok(values.into_iter().map(JsonValue::from).collect::<Vec<_>>().into())
            }
            other if count == 1 => Ok(vec![JsonValue::from(other)].into()),
            other => Err(miscounted(format!("{} for {count} examples", kind(&other)))
                .with_help("set `with_request_size(1)` for routes that answer one example")),
        }
    }
}

/// `{"predictions": […], "deployedModelId": …}`.
fn predictions(mut object: Map<String, Json>) -> Result<Answers<JsonValue>> {
    let model_id = match object.remove("deployedModelId") {
        Some(Json::String(id)) if !id.is_empty() => Some(Arc::from(id)),
        _ => None,
    };
    match object.remove("predictions") {
        Some(Json::Array(values)) => {
            Ok(Answers { inferences: values.into_iter().map(JsonValue::from).collect(), model_id })
        }
        other => {
            let got = other.as_ref().map_or("nothing", kind);
            Err(unreadable(format!("`predictions` must be an array, got {got}")))
        }
    }
}

impl RemoteModel for VertexAi {
    type Example = JsonValue;
    type Inference = JsonValue;
    type State = ();

    fn endpoint(&self) -> String {
        format!("{}/v1/{}", self.host(), self.resource())
    }

    // This machine's own token is asked for with the first request: a pipeline can be checked where there is none.
    fn load(&self, _: &Remote) -> Result<()> {
        self.credential.token().map(drop)
    }

    fn request(&self, examples: &[JsonValue], _: &(), args: &InferenceArgs) -> Result<RemoteRequest> {
        let mut body = Map::new();
        body.insert("instances".to_owned(), examples.iter().map(JsonValue::to_json).collect());
        if !args.is_empty() {
            body.insert("parameters".to_owned(), Json::Object(json::of_args(args)?));
        }
        let endpoint = self.endpoint();
        let url = match &self.invoke_route {
            Some(route) => format!("{endpoint}/invoke/{}", route.trim_start_matches('/')),
            None => format!("{endpoint}:predict"),
        };
        let request = RemoteRequest::post_json(url, Json::Object(body).to_string().into_bytes());
        Ok(request.bearer(self.credential().token()?))
    }

    fn response(
        &self,
        examples: &[JsonValue],
        response: &RemoteResponse,
        _: &(),
    ) -> Result<Answers<JsonValue>> {
        match self.invoke_route {
            Some(_) => self.invoked(examples.len(), response),
            None => predictions(response.json()?),
        }
    }

    fn request_size(&self) -> usize {
        if self.invoke_route.is_some() { 1 } else { 16 }
    }

    fn name(&self) -> String {
        "VertexAiModelHandler".to_owned()
    }

    fn metrics_namespace(&self) -> String {
        "BeamML_VertexAI".to_owned()
    }

    fn model_info(&self, _: &()) -> ModelInfo {
        ModelInfo { model_id: self.resource().into(), uri: Some(self.endpoint()), ..ModelInfo::default() }
    }

    /// Another endpoint of the same project and location, by its number or its whole name.
    fn version(&self, version: &ModelMetadata) -> Option<Self> {
        let endpoint_id = version.model_id.rsplit('/').next()?.to_owned();
        let other = VertexAi { endpoint_id, ..self.clone() };
        (!version.model_id.contains('/') || other.resource() == version.model_id).then_some(other)
    }

    fn takes_updates(&self) -> bool {
        true
    }

    fn validate(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::InvalidArgument, "TB0600", message));
        for (name, value) in
            [("project", &self.project), ("location", &self.location), ("endpoint_id", &self.endpoint_id)]
        {
            if value.is_empty() || value.contains(['/', ' ']) || value.starts_with('.') {
                return wrong(format!("`{name}` of a Vertex AI endpoint is a name, got `{value}`"));
            }
        }
        if let Some(route) = &self.invoke_route
            && (!route.starts_with('/')
                || route.len() < 2
                || route.contains(['?', '#'])
                || route.contains(".."))
        {
            return wrong(format!("an invoke route is a path such as `/predict/v1`, got `{route}`"));
        }
        base_url(&self.host(), &self.credential, self.plain_http).map(drop)
    }

    /// Parameters are the model's own: any will do that is JSON.
    fn validate_inference_args(&self, args: &InferenceArgs) -> Result<()> {
        json::of_args(args).map(drop)
    }

    fn element_size(&self, example: &JsonValue) -> u64 {
        match example {
            JsonValue::Json(json) => size_of_json(json),
            JsonValue::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// About the bytes of the text.
fn size_of_json(json: &Json) -> u64 {
    match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => 8,
        Json::String(text) => text.len() as u64 + 2,
        Json::Array(values) => 2 + values.iter().map(size_of_json).sum::<u64>(),
        Json::Object(pairs) => {
            2 + pairs.iter().map(|(k, v)| k.len() as u64 + 4 + size_of_json(v)).sum::<u64>()
        }
    }
}
