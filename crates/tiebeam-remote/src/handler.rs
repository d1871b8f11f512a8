//! [`RemoteModelHandler`]: any [`RemoteModel`] in RunInference.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_inference::{
    Answered, Batching, InferenceArgs, ModelHandler, ModelInfo, ModelMetadata, Predictions, Signature,
};

use crate::endpoint::{Counters, Endpoint, RemoteStats};
use crate::model::RemoteModel;
use crate::pool::Pool;
use crate::remote::Remote;
use crate::request::{Transport, client, miscounted};
use crate::settings::{Settings, Throttle};
use crate::time::Time;

/// Runs a model behind HTTP.
///
/// A batch is cut into requests of at most [`with_request_size`](RemoteModelHandler::with_request_size) examples, which
/// are in flight at the same time, [`with_max_concurrency`](RemoteModelHandler::with_max_concurrency) at most. What
/// passes (408, 429, 5xx, a connection that fails or breaks off, a timeout, a wrong number of inferences) is tried again
/// after a growing, jittered pause; `Retry-After` holds for every thread of the process; an endpoint that fails too often
/// is asked less. A refusal (other 4xx) fails only the examples of that request, and one that blames its content (400,
/// 413, 422) is halved until only the guilty fail. No batch takes longer than its
/// [`with_deadline`](RemoteModelHandler::with_deadline).
pub struct RemoteModelHandler<T: RemoteModel> {
    pub(crate) model: Arc<T>,
    pub(crate) settings: Settings,
    transport: Option<Arc<dyn Transport>>,
}

impl<T: RemoteModel> RemoteModelHandler<T> {
    /// A handler of that model.
    pub fn of(model: T) -> Self {
        RemoteModelHandler { model: Arc::new(model), settings: Settings::default(), transport: None }
    }

    /// Examples in one request, at most. Default: as the model says, mostly 1.
    #[must_use]
    pub fn with_request_size(mut self, examples: usize) -> Self {
        self.settings.request_size = Some(examples);
        self
    }

    /// Requests in flight at the same time, at most, for each loaded model. Default 8.
    #[must_use]
    pub fn with_max_concurrency(mut self, requests: usize) -> Self {
        self.settings.max_concurrency = requests;
        self
    }

    /// How often a request is tried. Default 6.
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.settings.max_attempts = attempts;
        self
    }

    /// The pauses between attempts: any time up to `first`, up to twice that, and so on, up to `longest`. Default half a
    /// second and a minute.
    #[must_use]
    pub fn with_backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.settings.first_pause, self.settings.longest_pause) = (first, longest);
        self
    }

    /// How long one request may take, with its answer. Default two minutes.
    #[must_use]
    pub fn with_request_timeout(mut self, time: Duration) -> Self {
        self.settings.request_timeout = time;
        self
    }

    /// How long a batch may take, with all its requests, attempts and pauses. Default ten minutes.
    #[must_use]
    pub fn with_deadline(mut self, time: Duration) -> Self {
        self.settings.deadline = time;
        self
    }

    /// Sends so many requests a second to the endpoint, at most, from this process. Default: as many as it takes.
    #[must_use]
    pub fn with_rate_limit(mut self, requests_per_second: f64) -> Self {
        self.settings.requests_per_second = Some(requests_per_second);
        self
    }

    /// Over what time adaptive throttling looks at requests, and how long it holds one back. Default a minute and a
    /// second.
    #[must_use]
    pub fn with_throttle(mut self, window: Duration, delay: Duration) -> Self {
        self.settings.throttle = Some(Throttle { window, delay });
        self
    }

    /// Holds no requests back because others failed.
    #[must_use]
    pub fn without_throttle(mut self) -> Self {
        self.settings.throttle = None;
        self
    }

    /// The longest answer that is read. Default 64 MiB.
    #[must_use]
    pub fn with_max_response_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_response_bytes = bytes;
        self
    }

    /// Sends a header with every request. Its value is taken for a secret.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.headers.push((name.into(), value.into()));
        self
    }

    /// Jitters in the same way in every run.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Waits by another clock; for tests.
    #[must_use]
    pub fn with_time(mut self, time: Arc<dyn Time>) -> Self {
        self.settings.time = time;
        self
    }

    #[cfg(test)]
    pub(crate) fn with_transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Changes the model of this handler alone.
    pub(crate) fn change(mut self, change: impl FnOnce(&mut T)) -> Self
    where
        T: Clone,
    {
        change(Arc::make_mut(&mut self.model));
        self
    }

    /// The same way of asking another model.
    pub(crate) fn into_other<U: RemoteModel>(self, model: impl FnOnce(&T) -> U) -> RemoteModelHandler<U> {
        RemoteModelHandler {
            model: Arc::new(model(&self.model)),
            settings: self.settings,
            transport: self.transport,
        }
    }

    /// What this process did with the endpoint so far.
    pub fn stats(&self) -> RemoteStats {
        Endpoint::of(&self.model.endpoint(), &self.settings.time, self.settings.seed).stats()
    }

    fn connect(&self, model: Arc<T>) -> Result<RemoteClient<T>> {
        self.settings.validate()?;
        model.validate()?;
        let settings = self.settings.clone();
        let endpoint = Endpoint::of(&model.endpoint(), &settings.time, settings.seed);
        let transport = self.transport.clone().unwrap_or_else(|| client(settings.max_concurrency));
        let pool = Pool::new(settings.max_concurrency);
        let remote = Remote { endpoint, transport, settings, own: Counters::default() };
        let state = model.load(&remote)?;
        Ok(RemoteClient { core: Arc::new(Core { model, state, remote }), pool })
    }

    fn request_size(&self) -> usize {
        self.settings.request_size.unwrap_or_else(|| self.model.request_size()).max(1)
    }

    /// For each example, in order, the inference and the model that computed it, or why there is none.
    pub fn ask(
        &self,
        batch: &[T::Example],
        client: &RemoteClient<T>,
        args: &InferenceArgs,
    ) -> Vec<Result<Answered<T::Inference>>> {
        let core = &client.core;
        let deadline = core.remote.deadline();
        let size = self.request_size().min(core.model.max_request_size(&core.state)).max(1);
        let (tx, rx) = mpsc::channel();
        for range in ranges(batch, size, |one, other| core.model.fit_together(one, other)) {
            let (core, args, tx) = (core.clone(), args.clone(), tx.clone());
            let first = range.start;
            let examples = batch[range].to_vec();
            client.pool.run(move || {
                let asked = catch_unwind(AssertUnwindSafe(|| core.ask(&examples, &args, deadline)));
                let answers = asked.unwrap_or_else(|panic| vec![Err(panicked(&*panic)); examples.len()]);
                // Nobody listens any more when the whole batch has failed.
                let _ = tx.send((first, answers));
            });
        }
        drop(tx);
        let mut all: Vec<Option<Result<Answered<T::Inference>>>> = batch.iter().map(|_| None).collect();
        for (first, answers) in rx {
            for (slot, answer) in all[first..].iter_mut().zip(answers) {
                *slot = Some(answer);
            }
        }
        let missing = || Err(Error::internal("an example of a remote request has no answer"));
        all.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let said =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = format!("the remote model's code panicked: {}", said.unwrap_or("no message"));
    Error::new(ErrorKind::Panic, "TB0611", message)
}

/// Cuts a batch into requests of at most `size` examples that fit together.
fn ranges<E>(batch: &[E], size: usize, fit: impl Fn(&E, &E) -> bool) -> Vec<Range<usize>> {
    let mut ranges = Vec::with_capacity(batch.len().div_ceil(size));
    let mut start = 0;
    for i in 1..=batch.len() {
        if i == batch.len() || i - start == size || !fit(&batch[start], &batch[i]) {
            ranges.push(start..i);
            start = i;
        }
    }
    ranges
}

/// A remote model that is ready to be asked.
pub struct RemoteClient<T: RemoteModel> {
    core: Arc<Core<T>>,
    pool: Pool,
}

impl<T: RemoteModel> RemoteClient<T> {
    /// What the model told when it was loaded.
    pub fn state(&self) -> &T::State {
        &self.core.state
    }

    /// What was done with the endpoint for this one, among all who ask it.
    pub fn stats(&self) -> RemoteStats {
        self.core.remote.own_stats()
    }
}

struct Core<T: RemoteModel> {
    model: Arc<T>,
    state: T::State,
    remote: Remote,
}

type Answer<T> = Result<Answered<<T as RemoteModel>::Inference>>;

impl<T: RemoteModel> Core<T> {
    /// One request for all of the examples; where it is refused for what they say, for each half of them.
    fn ask(&self, examples: &[T::Example], args: &InferenceArgs, deadline: Duration) -> Vec<Answer<T>> {
        let build = || self.model.request(examples, &self.state, args);
        let asked = self.remote.settle(deadline, &build, false, &|response| {
            let answers = self.model.response(examples, response, &self.state)?;
            if answers.inferences.len() != examples.len() {
                let (got, wanted) = (answers.inferences.len(), examples.len());
                return Err(miscounted(format!("the answer has {got} inferences for {wanted} examples")));
            }
            Ok(answers)
        });
        match asked {
            Ok(answers) => {
                let model_id = answers.model_id;
                let answered = |inference| Ok(Answered { inference, model_id: model_id.clone() });
                answers.inferences.into_iter().map(answered).collect()
            }
            Err(failure) if failure.blames_content && examples.len() > 1 => {
                let (left, right) = examples.split_at(examples.len() / 2);
                let mut all = self.ask(left, args, deadline);
                all.extend(self.ask(right, args, deadline));
                all
            }
            Err(failure) => vec![Err(failure.error); examples.len()],
        }
    }
}

impl<T: RemoteModel> ModelHandler for RemoteModelHandler<T> {
    type Example = T::Example;
    type Inference = T::Inference;
    type Model = RemoteClient<T>;

    fn load_model(&self) -> Result<RemoteClient<T>> {
        self.connect(self.model.clone())
    }

    fn load_version(&self, version: &ModelMetadata) -> Result<RemoteClient<T>> {
        let Some(model) = self.model.version(version) else {
            let message = format!("{} has no version {}", self.name(), version.model_id);
            return Err(Error::new(ErrorKind::Unsupported, "TB0613", message));
        };
        self.connect(Arc::new(model))
    }

    fn takes_updates(&self) -> bool {
        self.model.takes_updates()
    }

    fn signature(&self, model: &RemoteClient<T>) -> Option<Signature> {
        model.core.model.signature(&model.core.state)
    }

    fn has_counts(&self) -> bool {
        true
    }

    fn counts(&self, model: &RemoteClient<T>) -> Vec<(&'static str, u64)> {
        model.stats().counts()
    }

    fn run_inference(
        &self,
        batch: &[T::Example],
        model: &RemoteClient<T>,
        args: &InferenceArgs,
    ) -> Result<Vec<T::Inference>> {
        self.ask(batch, model, args).into_iter().map(|answer| answer.map(|a| a.inference)).collect()
    }

    fn predict(
        &self,
        batch: &[T::Example],
        model: &RemoteClient<T>,
        args: &InferenceArgs,
    ) -> Result<Predictions<T::Inference>> {
        let mut each = self.ask(batch, model, args);
        // Mostly the answers name the model that was asked for, which need not be told again.
        let own = model.core.model.model_info(&model.core.state).model_id;
        for answered in each.iter_mut().flatten() {
            answered.model_id.take_if(|told| *told == own);
        }
        let is_plain = |one: &Answer<T>| matches!(one, Ok(Answered { model_id: None, .. }));
        if each.iter().all(is_plain) {
            return Ok(Predictions::All(each.into_iter().flatten().map(|answer| answer.inference).collect()));
        }
        Ok(Predictions::Told(each))
    }

    /// Four times as many examples as can be in flight at the same time, so that one slow request does not leave the
    /// others idle; not more, since what waits for its turn within a batch uses up the batch's deadline.
    fn batching(&self) -> Batching {
        let in_flight = self.request_size().saturating_mul(self.settings.max_concurrency);
        Batching::at_most(in_flight.saturating_mul(4).max(1))
    }

    fn check_example(&self, example: &T::Example, model: &RemoteClient<T>) -> Result<()> {
        model.core.model.check_example(example, &model.core.state)
    }

    fn element_size(&self, example: &T::Example) -> u64 {
        self.model.element_size(example)
    }

    fn metrics_namespace(&self) -> String {
        self.model.metrics_namespace()
    }

    fn name(&self) -> String {
        self.model.name()
    }

    fn model_info(&self, model: &RemoteClient<T>) -> ModelInfo {
        ModelInfo {
            bytes: Some(size_of::<Core<T>>() as u64),
            ..model.core.model.model_info(&model.core.state)
        }
    }

    /// A service's words about its own memory say nothing of ours: it is asked for halves where it says 413.
    fn lacks_memory(&self, _: &Error) -> bool {
        false
    }

    fn validate_inference_args(&self, args: &InferenceArgs) -> Result<()> {
        self.settings.validate()?;
        self.model.validate()?;
        self.model.validate_inference_args(args)
    }
}
