//! [`RemoteModel`]: what a service must be told apart from HTTP and its faults.

use std::sync::Arc;

use tiebeam_core::Element;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_inference::{InferenceArgs, ModelInfo, ModelMetadata, Signature};

use crate::remote::Remote;
use crate::request::{RemoteRequest, RemoteResponse};

/// What an endpoint said of the examples of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers<P> {
    /// One inference for each example, in order.
    pub inferences: Vec<P>,
    /// The model that computed them, where the answer says so.
    pub model_id: Option<Arc<str>>,
}

impl<P> From<Vec<P>> for Answers<P> {
    fn from(inferences: Vec<P>) -> Self {
        Answers { inferences, model_id: None }
    }
}

/// A service that runs models: what a request for some examples looks like, and how its answer becomes exactly one
/// inference an example. Everything around that is [`RemoteModelHandler`](crate::RemoteModelHandler)'s.
///
/// ```
/// use tiebeam_core::error::Result;
/// use tiebeam_inference::InferenceArgs;
/// use tiebeam_remote::{Answers, Remote, RemoteModel, RemoteModelHandler, RemoteRequest, RemoteResponse};
///
/// /// A service that takes `[1, 5, 3]` and says `[2, 6, 4]`.
/// struct PlusOne(String);
///
/// impl RemoteModel for PlusOne {
///     type Example = i64;
///     type Inference = i64;
///     type State = ();
///
///     fn endpoint(&self) -> String {
///         self.0.clone()
///     }
///
///     fn load(&self, _: &Remote) -> Result<()> {
///         Ok(())
///     }
///
///     fn request(&self, examples: &[i64], _: &(), _: &InferenceArgs) -> Result<RemoteRequest> {
///         Ok(RemoteRequest::post_json(&self.0, format!("{examples:?}").into_bytes()))
///     }
///
///     fn response(&self, _: &[i64], response: &RemoteResponse, _: &()) -> Result<Answers<i64>> {
///         Ok(response.json::<Vec<i64>>()?.into())
///     }
/// }
///
/// let handler = RemoteModelHandler::of(PlusOne("http://127.0.0.1:8000/plus_one".to_owned())).with_request_size(20);
/// ```
pub trait RemoteModel: Send + Sync + 'static {
    /// What the model is asked about.
    type Example: Element;
    /// What it answers.
    type Inference: Element;
    /// What is known of the model once it is loaded.
    type State: Send + Sync + 'static;

    /// The endpoint as errors and statistics name it, without secrets. Handlers of the same endpoint share its waiting
    /// times and its rate.
    fn endpoint(&self) -> String;

    /// Asks for what has to be known of the model, once, before the first element.
    ///
    /// # Errors
    /// When the model can't be used.
    fn load(&self, remote: &Remote) -> Result<Self::State>;

    /// A request for these examples; at least one. Asked for anew for each attempt.
    ///
    /// # Errors
    /// When they can't be sent.
    fn request(
        &self,
        examples: &[Self::Example],
        state: &Self::State,
        args: &InferenceArgs,
    ) -> Result<RemoteRequest>;

    /// What a successful answer (2xx) says of the examples. The handler checks that there is exactly one inference for
    /// each; that they are in order is for this function, where the answer numbers them.
    ///
    /// # Errors
    /// When the answer can't be read. A retryable error is asked for again.
    fn response(
        &self,
        examples: &[Self::Example],
        response: &RemoteResponse,
        state: &Self::State,
    ) -> Result<Answers<Self::Inference>>;

    /// How many examples one request has at most, unless the handler is told otherwise. Default 1.
    fn request_size(&self) -> usize {
        1
    }

    /// How many examples one request may have at most, as the loaded model knows it. Default: any number.
    fn max_request_size(&self, state: &Self::State) -> usize {
        let _ = state;
        usize::MAX
    }

    /// Whether two examples may be in one request. Default: yes.
    fn fit_together(&self, one: &Self::Example, other: &Self::Example) -> bool {
        let _ = (one, other);
        true
    }

    /// A short name for labels and reports.
    fn name(&self) -> String {
        "RemoteModelHandler".to_owned()
    }

    /// The namespace of the metrics.
    fn metrics_namespace(&self) -> String {
        "RunInference".to_owned()
    }

    /// What the model is.
    fn model_info(&self, state: &Self::State) -> ModelInfo {
        let _ = state;
        ModelInfo { model_id: self.endpoint().into(), uri: Some(self.endpoint()), ..ModelInfo::default() }
    }

    /// What the model takes and gives, where it tells.
    fn signature(&self, state: &Self::State) -> Option<Signature> {
        let _ = state;
        None
    }

    /// Another version of the model, of the same service, for updates while a pipeline runs. Default: none.
    fn version(&self, version: &ModelMetadata) -> Option<Self>
    where
        Self: Sized,
    {
        let _ = version;
        None
    }

    /// Whether [`version`](RemoteModel::version) gives any.
    fn takes_updates(&self) -> bool {
        false
    }

    /// Refuses settings that can't work, when the pipeline is built.
    ///
    /// # Errors
    /// Which one, and why.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// As [`ModelHandler::validate_inference_args`](tiebeam_inference::ModelHandler::validate_inference_args). Default: it
    /// takes none.
    ///
    /// # Errors
    /// When there is one that it can't use.
    fn validate_inference_args(&self, args: &InferenceArgs) -> Result<()> {
        match args.iter().next() {
            None => Ok(()),
            Some(_) => {
                let message = format!("inference_args were given, but {} takes none", self.name());
                Err(Error::new(ErrorKind::InvalidArgument, "TB0601", message))
            }
        }
    }

    /// As [`ModelHandler::check_example`](tiebeam_inference::ModelHandler::check_example).
    ///
    /// # Errors
    /// What is wrong with the example.
    fn check_example(&self, example: &Self::Example, state: &Self::State) -> Result<()> {
        let _ = (example, state);
        Ok(())
    }

    /// The weight of an example in bytes. Default: its size as far as the type alone tells.
    fn element_size(&self, example: &Self::Example) -> u64 {
        let _ = example;
        size_of::<Self::Example>() as u64
    }
}
