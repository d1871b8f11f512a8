//! [`PerKeyModels`]: a model for each set of keys.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tiebeam_core::Element;
use tiebeam_core::error::{Error, ErrorKind, Result};

use crate::batching::Batching;
use crate::chain::{Before, Chain, IntoChain, NoSteps, rescued};
use crate::dead_letter::Stage;
use crate::handler::{InferenceArgs, ModelHandler, ModelInfo, ModelLimit, Predictions};
use crate::isolation::Places;
use crate::keyed::{OnValue, WithKey};
use crate::model::added;
use crate::routes::{ModelKey, Routes};
use crate::signature::{Port, Signature};
use crate::update::ModelMetadata;

/// A handler of whichever kind for examples of `E`.
trait AnyHandler<E, P>: Send + Sync {
    fn load(&self, version: Option<&ModelMetadata>) -> Result<AnyModel>;
    fn predict(&self, batch: &[E], model: &AnyModel, args: &InferenceArgs) -> Result<Predictions<P>>;
    fn check(&self, example: &E, model: &AnyModel) -> Result<()>;
    fn inner(&self) -> Inner;
    fn validate_args(&self, args: &InferenceArgs) -> Result<()>;
    fn lacks_memory(&self, error: &Error) -> bool;
    fn place(&self, places: &mut Places<'_>);
    fn is_loaded(&self);
    fn keeps_time(&self) -> bool;
    fn counts(&self, model: &AnyModel) -> Vec<(&'static str, u64)>;
}

/// What a handler says of itself.
struct Inner {
    name: String,
    batching: Batching,
    takes_updates: bool,
    has_counts: bool,
    files: Vec<std::path::PathBuf>,
    valid: Result<()>,
}

/// A loaded model of whichever kind.
pub struct AnyModel {
    copies: Vec<Box<dyn Any + Send + Sync>>,
    turn: AtomicUsize,
    handler: usize,
    info: ModelInfo,
    signature: Option<Signature>,
    takes: Option<Vec<Port>>,
}

struct Steps<H, B> {
    handler: H,
    before: B,
}

impl<H: ModelHandler, B: Before<H::Example>> Steps<H, B> {
    fn is_bare(&self) -> bool {
        Any::type_id(&self.before) == std::any::TypeId::of::<NoSteps>()
    }

    fn model<'a>(&self, model: &'a AnyModel) -> Result<&'a H::Model> {
        let copy = match model.copies.as_slice() {
            [one] => one,
            copies => &copies[model.turn.fetch_add(1, Ordering::Relaxed) % copies.len()],
        };
        copy.downcast_ref().ok_or_else(|| Error::internal("a model of another handler"))
    }
}

impl<H: ModelHandler, B: Before<H::Example>> AnyHandler<B::In, H::Inference> for Steps<H, B> {
    fn load(&self, version: Option<&ModelMetadata>) -> Result<AnyModel> {
        let load = |_| match version {
            Some(version) => self.handler.load_version(version),
            None => self.handler.load_model(),
        };
        let copies = (0..self.handler.copies().max(1)).map(load).collect::<Result<Vec<_>>>()?;
        let mut info = self.handler.model_info(&copies[0]);
        info.bytes = info.bytes.map(|bytes| bytes.saturating_mul(copies.len() as u64));
        let (signature, takes) = (self.handler.signature(&copies[0]), self.handler.takes(&copies[0]));
        // Steps of the cohort's own make the example of what comes: nothing is known of that.
        let takes = takes.filter(|_| self.is_bare());
        let boxed = |model| Box::new(model) as Box<dyn Any + Send + Sync>;
        let copies = copies.into_iter().map(boxed).collect();
        Ok(AnyModel { copies, turn: AtomicUsize::new(0), handler: 0, info, signature, takes })
    }

    fn predict(
        &self,
        batch: &[B::In],
        model: &AnyModel,
        args: &InferenceArgs,
    ) -> Result<Predictions<H::Inference>> {
        let model = self.model(model)?;
        match B::untouched(batch.to_vec()) {
            Ok(examples) => self.handler.predict(&examples, model, args),
            Err(inputs) => {
                let at = Cell::new(0);
                let (mut examples, mut refused) = (Vec::with_capacity(inputs.len()), Vec::new());
                for (place, input) in inputs.into_iter().enumerate() {
                    let made = rescued(Stage::Preprocess, &at, || {
                        let example = self.before.run(input, &at, 0)?;
                        self.handler.check_example(&example, model)?;
                        Ok(example)
                    });
                    match made {
                        Ok(example) => examples.push(example),
                        Err(fault) => refused.push((place, fault.error)),
                    }
                }
                if refused.is_empty() {
                    return self.handler.predict(&examples, model, args);
                }
                let mut each = match examples.is_empty() {
                    true => Vec::new(),
                    false => self.handler.predict(&examples, model, args)?.into_each(),
                };
                // In ascending order of their places, so that each finds its own.
                for (place, error) in refused {
                    each.insert(place.min(each.len()), Err(error));
                }
                Ok(Predictions::Told(each))
            }
        }
    }

    fn check(&self, example: &B::In, model: &AnyModel) -> Result<()> {
        // Where there are steps, what they make is checked when they have.
        match (example as &dyn Any).downcast_ref::<H::Example>().filter(|_| self.is_bare()) {
            Some(example) => self.handler.check_example(example, self.model(model)?),
            None => Ok(()),
        }
    }

    fn inner(&self) -> Inner {
        let handler = &self.handler;
        Inner {
            name: handler.name(),
            batching: handler.batching(),
            takes_updates: handler.takes_updates(),
            has_counts: handler.has_counts(),
            files: handler.model_files(),
            valid: handler.validate(),
        }
    }

    fn validate_args(&self, args: &InferenceArgs) -> Result<()> {
        self.handler.validate_inference_args(args)
    }

    fn lacks_memory(&self, error: &Error) -> bool {
        self.handler.lacks_memory(error)
    }

    fn place(&self, places: &mut Places<'_>) {
        self.handler.place(places);
    }

    fn is_loaded(&self) {
        self.handler.is_loaded(0);
    }

    fn keeps_time(&self) -> bool {
        self.handler.keeps_time()
    }

    fn counts(&self, model: &AnyModel) -> Vec<(&'static str, u64)> {
        let own = model.copies.iter().filter_map(|copy| copy.downcast_ref());
        added(own.map(|copy| self.handler.counts(copy)))
    }
}

/// A model for each set of keys (Beam's `KeyedModelHandler` with `KeyModelMapping`s): elements are pairs of a key and an
/// example, and pairs of the key and the result come out. The models of a set of keys are a *cohort*, named after its first
/// key: its batches are its own, so that one that fails keeps no other from its predictions, and so are its metrics
/// (`<first key>-_num_inferences` beside the total `num_inferences`).
///
/// Models are loaded before the run starts; with a limit as many as it allows, the others when they are first needed, and
/// those that were not used for the longest time are let go.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// # use tiebeam_inference::{PerKeyModels, RunInference, from_fn};
/// let times = |n: i64| from_fn(format!("times {n}"), move |batch: &[i64]| {
///     Ok::<_, String>(batch.iter().map(|x| x * n).collect::<Vec<i64>>())
/// });
/// let models = PerKeyModels::new()
///     .with_models(["es".to_owned(), "fr".to_owned()], times(2))
///     .with_models(["de".to_owned()], times(3));
/// let p = Pipeline::new();
/// let results = p.apply(Create::of([("de".to_owned(), 5i64)])).apply(RunInference::new(models));
/// let numbers = results.map(|(key, result)| (key, result.inference)); // ("de", 15)
/// ```
pub struct PerKeyModels<K, E, P> {
    handler: PerKeyHandler<K, E, P>,
}

/// The handler that [`PerKeyModels`] builds.
pub struct PerKeyHandler<K, E, P> {
    handlers: Vec<Arc<dyn AnyHandler<E, P>>>,
    pub(crate) routes: Arc<Routes<K>>,
    batching: Option<Batching>,
    limit: ModelLimit,
    problem: Option<Error>,
}

impl<K: ModelKey, E: Element, P: Element> Default for PerKeyModels<K, E, P> {
    fn default() -> Self {
        PerKeyModels::new()
    }
}

impl<K: ModelKey, E: Element, P: Element> PerKeyModels<K, E, P> {
    /// No models yet.
    pub fn new() -> Self {
        PerKeyModels {
            handler: PerKeyHandler {
                handlers: Vec::new(),
                routes: Arc::default(),
                batching: None,
                limit: ModelLimit::default(),
                problem: None,
            },
        }
    }

    /// Adds a cohort: the model of `handler`, which may have preprocess steps of its own, for examples of these keys. No
    /// keys at all, and a key that has a model already, are mistakes that are told when the pipeline is built.
    #[must_use]
    pub fn with_models<C>(mut self, keys: impl IntoIterator<Item = K>, handler: C) -> Self
    where
        C: IntoChain<After = NoSteps>,
        C::Handler: ModelHandler<Inference = P>,
        C::Before: Before<<C::Handler as ModelHandler>::Example, In = E>,
    {
        let Chain { handler, before, .. } = handler.into_chain();
        let name = handler.name();
        let keys: Vec<K> = keys.into_iter().collect();
        let own = &mut self.handler;
        let mut refuse = |message: String| {
            let error = Error::new(ErrorKind::InvalidArgument, "TB0304", message);
            own.problem.get_or_insert(error);
        };
        if keys.is_empty() {
            refuse(format!("{name} was given an empty list of keys"));
        }
        if let Some((key, other)) = own.routes.add(keys) {
            let with = own.handlers.get(other).map_or_else(|| name.clone(), |h| h.inner().name);
            refuse(format!("the key {key} is in two lists, that of {with} and that of {name}"));
        }
        own.handlers.push(Arc::new(Steps { handler, before }));
        self
    }

    /// At most so many models are loaded at once (Beam's `max_models_per_worker_hint`).
    #[must_use]
    pub fn max_models_hint(mut self, models: usize) -> Self {
        self.handler.limit.models = Some(models.max(1));
        self
    }

    /// The models that are loaded at once take at most so many bytes together; one that takes more is loaded alone.
    #[must_use]
    pub fn max_model_bytes(mut self, bytes: u64) -> Self {
        self.handler.limit.bytes = Some(bytes);
        self
    }

    /// Gathers the elements of each cohort in that way. Default: as the first handler says, with batches no larger than the
    /// smallest maximum.
    #[must_use]
    pub fn with_batching(mut self, batching: Batching) -> Self {
        self.handler.batching = Some(batching);
        self
    }

    /// Runs `step` on each value before its model.
    pub fn preprocess<I: Element>(
        self,
        step: impl Fn(I) -> E + Send + Sync + 'static,
    ) -> Chain<PerKeyHandler<K, E, P>, impl Before<(K, E), In = (K, I)>, WithKey<NoSteps>> {
        self.into_chain().preprocess(move |(key, value): (K, I)| (key, step(value)))
    }
}

impl<K: ModelKey, E: Element, P: Element> IntoChain for PerKeyModels<K, E, P> {
    type Handler = PerKeyHandler<K, E, P>;
    type Before = OnValue<NoSteps, K>;
    type After = WithKey<NoSteps>;

    fn into_chain(self) -> Chain<Self::Handler, Self::Before, Self::After> {
        Chain { handler: self.handler, before: OnValue::none(), after: WithKey::none() }
    }
}

impl<K: ModelKey, E: Element, P: Element> ModelHandler for PerKeyHandler<K, E, P> {
    type Example = (K, E);
    type Inference = P;
    type Model = AnyModel;

    fn load_model(&self) -> Result<AnyModel> {
        self.load_cohort(0, None)
    }

    fn load_cohort(&self, cohort: usize, version: Option<&ModelMetadata>) -> Result<AnyModel> {
        let base = self.routes.base_of(cohort);
        let handler = self.handlers.get(base).ok_or_else(|| Error::internal("no such cohort"))?;
        let model = handler.load(version)?;
        Ok(AnyModel { handler: base, ..model })
    }

    fn run_inference(&self, batch: &[(K, E)], model: &AnyModel, args: &InferenceArgs) -> Result<Vec<P>> {
        self.predict(batch, model, args)?.into_all()
    }

    fn predict(&self, batch: &[(K, E)], model: &AnyModel, args: &InferenceArgs) -> Result<Predictions<P>> {
        let examples: Vec<E> = batch.iter().map(|(_, example)| example.clone()).collect();
        self.handlers[model.handler].predict(&examples, model, args)
    }

    fn check_example(&self, (_, example): &(K, E), model: &AnyModel) -> Result<()> {
        self.handlers[model.handler].check(example, model)
    }

    fn validate(&self) -> Result<()> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        if self.handlers.is_empty() {
            let message = "a model for each key was wanted, and there is not one: `with_models`";
            return Err(Error::new(ErrorKind::InvalidArgument, "TB0304", message));
        }
        self.handlers.iter().try_for_each(|handler| handler.inner().valid)
    }

    fn batching(&self) -> Batching {
        if let Some(batching) = &self.batching {
            return batching.clone();
        }
        let all = self.handlers.iter().map(|handler| handler.inner().batching);
        let least = |one: Batching, other: Batching| {
            let max_batch_size = one.max_batch_size.min(other.max_batch_size);
            Batching { max_batch_size, min_batch_size: one.min_batch_size.min(max_batch_size), ..one }
        };
        all.reduce(least).unwrap_or_default()
    }

    fn cohorts(&self) -> usize {
        self.routes.capacity()
    }

    fn first_cohorts(&self) -> usize {
        self.handlers.len()
    }

    fn cohort_of(&self, (key, _): &(K, E)) -> Result<usize> {
        self.routes.cohort_of(key).ok_or_else(|| {
            let (known, more) = self.routes.some_keys(10);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            let message =
                format!("no model is for the key {}, only for {}{rest}", key.to_string(), known.join(", "));
            Error::new(ErrorKind::InvalidData, "TB0305", message).with_retryable(false)
        })
    }

    fn cohort_name(&self, cohort: usize) -> Option<String> {
        self.routes.name(cohort)
    }

    fn model_limit(&self) -> ModelLimit {
        self.limit
    }

    fn metrics_namespace(&self) -> String {
        "BeamML_KeyedModels".to_owned()
    }

    fn name(&self) -> String {
        "PerKeyModels".to_owned()
    }

    fn model_info(&self, model: &AnyModel) -> ModelInfo {
        model.info.clone()
    }

    fn signature(&self, model: &AnyModel) -> Option<Signature> {
        model.signature.clone()
    }

    fn takes(&self, model: &AnyModel) -> Option<Vec<Port>> {
        model.takes.clone()
    }

    fn has_counts(&self) -> bool {
        self.handlers.iter().any(|handler| handler.inner().has_counts)
    }

    fn counts(&self, model: &AnyModel) -> Vec<(&'static str, u64)> {
        self.handlers[model.handler].counts(model)
    }

    fn takes_updates(&self) -> bool {
        self.handlers.iter().all(|handler| handler.inner().takes_updates)
    }

    fn lacks_memory(&self, error: &Error) -> bool {
        self.handlers.iter().any(|handler| handler.lacks_memory(error))
    }

    fn validate_inference_args(&self, args: &InferenceArgs) -> Result<()> {
        self.handlers.iter().try_for_each(|handler| handler.validate_args(args))
    }

    fn keeps_time(&self) -> bool {
        self.handlers.iter().all(|handler| handler.keeps_time())
    }

    fn is_loaded(&self, cohort: usize) {
        if let Some(handler) = self.handlers.get(self.routes.base_of(cohort)) {
            handler.is_loaded();
        }
    }

    fn place(&self, places: &mut Places<'_>) {
        self.handlers.iter().for_each(|handler| handler.place(places));
    }

    fn model_files(&self) -> Vec<std::path::PathBuf> {
        self.handlers.iter().flat_map(|handler| handler.inner().files).collect()
    }
}
