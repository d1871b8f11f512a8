//! [`ModelHandler`]: what a framework gives so that its models can run in pipelines.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;

use tiebeam_core::Element;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::row::Value;

use crate::batching::{Batching, LengthFn};
use crate::carrying::Carrying;
use crate::chain::{After, Before, Chain, IntoChain, NoSteps};
use crate::isolation::{Isolated, Isolation, Places};
use crate::keyed::{OnMaybeKeyed, OnValue, WithKey, WithMaybeKey};
use crate::memory;
use crate::prebatched::Prebatched;
use crate::prediction::PredictionResult;
pub use crate::prediction::{Answered, Predictions};
use crate::signature::{Port, Signature};
use crate::tuned::Tuned;
use crate::update::{ModelMetadata, no_versions};

/// Arguments given to the handler with every batch; cannot be changed by it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InferenceArgs(Arc<BTreeMap<String, Value>>);

impl InferenceArgs {
    /// No arguments.
    pub fn none() -> Self {
        InferenceArgs::default()
    }

    /// The argument of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All arguments by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl<N: Into<String>> FromIterator<(N, Value)> for InferenceArgs {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(iter: I) -> Self {
        InferenceArgs(Arc::new(iter.into_iter().map(|(name, value)| (name.into(), value)).collect()))
    }
}

/// What a model is, for reports and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelInfo {
    /// Told in every [`PredictionResult`]; mostly the model's path.
    pub model_id: Arc<str>,
    /// Where the model came from.
    pub uri: Option<String>,
    /// The SHA-256 of its file, in hex.
    pub sha256: Option<String>,
    /// The bytes that it takes in memory.
    pub bytes: Option<u64>,
    /// Where it computes: `cuda:0`, an execution provider; none is the CPU. How large batches may be is remembered by
    /// model and device.
    pub device: Option<String>,
    /// How many calls of one copy are worth making at once; threads with more batches wait for their turn. For a model that
    /// computes on the processor it is [`cores`]: more calls at once take more memory and no less time. None: as many as
    /// there are threads.
    pub max_concurrency: Option<usize>,
}

/// In an `impl ModelHandler` of a handler around another one, `self.handler`, of the same model: all that it says alike.
macro_rules! as_the_inner_handler {
    () => {
        fn load_model(&self) -> Result<Self::Model> {
            self.handler.load_model()
        }

        fn load_version(&self, version: &crate::update::ModelMetadata) -> Result<Self::Model> {
            self.handler.load_version(version)
        }

        fn load_cohort(
            &self,
            cohort: usize,
            version: Option<&crate::update::ModelMetadata>,
        ) -> Result<Self::Model> {
            self.handler.load_cohort(cohort, version)
        }

        fn place(&self, places: &mut crate::isolation::Places<'_>) {
            self.handler.place(places);
        }

        as_the_inner_handler!(but for loads and places);
    };
    (but for loads and places) => {
        fn takes_updates(&self) -> bool {
            self.handler.takes_updates()
        }

        fn validate(&self) -> Result<()> {
            self.handler.validate()
        }

        fn signature(&self, model: &Self::Model) -> Option<crate::signature::Signature> {
            self.handler.signature(model)
        }

        fn takes(&self, model: &Self::Model) -> Option<Vec<crate::signature::Port>> {
            self.handler.takes(model)
        }

        fn has_counts(&self) -> bool {
            self.handler.has_counts()
        }

        fn counts(&self, model: &Self::Model) -> Vec<(&'static str, u64)> {
            self.handler.counts(model)
        }

        fn cohorts(&self) -> usize {
            self.handler.cohorts()
        }

        fn first_cohorts(&self) -> usize {
            self.handler.first_cohorts()
        }

        fn cohort_name(&self, cohort: usize) -> Option<String> {
            self.handler.cohort_name(cohort)
        }

        fn model_limit(&self) -> crate::handler::ModelLimit {
            self.handler.model_limit()
        }

        fn metrics_namespace(&self) -> String {
            self.handler.metrics_namespace()
        }

        fn name(&self) -> String {
            self.handler.name()
        }

        fn model_info(&self, model: &Self::Model) -> crate::handler::ModelInfo {
            self.handler.model_info(model)
        }

        fn lacks_memory(&self, error: &tiebeam_core::Error) -> bool {
            self.handler.lacks_memory(error)
        }

        fn validate_inference_args(&self, args: &InferenceArgs) -> Result<()> {
            self.handler.validate_inference_args(args)
        }

        fn model_identity(&self) -> Option<String> {
            self.handler.model_identity()
        }

        fn model_files(&self) -> Vec<std::path::PathBuf> {
            self.handler.model_files()
        }

        fn keeps_time(&self) -> bool {
            self.handler.keeps_time()
        }

        fn is_loaded(&self, cohort: usize) {
            self.handler.is_loaded(cohort);
        }
    };
}
pub(crate) use as_the_inner_handler;

/// How many models of a step may be loaded at once. The ones that were not used for the longest time are let go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelLimit {
    /// At most so many (Beam's `max_models_per_worker_hint`).
    pub models: Option<usize>,
    /// At most so many bytes together; one that takes more than all of them is loaded alone.
    pub bytes: Option<u64>,
}

impl ModelLimit {
    pub(crate) fn is_set(&self) -> bool {
        *self != ModelLimit::default()
    }
}

/// The processor's cores that this process may use, one at least.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Loads a model and runs it on batches. Handlers are values made by builders; nothing of them is serialised.
///
/// The model is loaded once a process and shared by all threads, so `run_inference` takes `&self` and `&Model` and is
/// called by many threads at once.
pub trait ModelHandler: Send + Sync + 'static {
    /// What the model is asked about.
    type Example: Element;
    /// What it answers.
    type Inference: Element;
    /// The loaded model.
    type Model: Send + Sync + 'static;

    /// Loads the model: once a process, before any element is read.
    ///
    /// # Errors
    /// Of kind [`Model`](ErrorKind::Model), naming the file and what is wrong with it.
    fn load_model(&self) -> Result<Self::Model>;

    /// Loads another version of the model, as [`load_model`](ModelHandler::load_model) loads the first one: from the place
    /// that `version` names. Called while the one in use computes.
    ///
    /// # Errors
    /// As `load_model`. Default: the handler has no versions.
    fn load_version(&self, version: &ModelMetadata) -> Result<Self::Model> {
        Err(no_versions(&self.name(), version))
    }

    /// Whether [`load_version`](ModelHandler::load_version) can load any: a pipeline that updates the model is refused else.
    fn takes_updates(&self) -> bool {
        false
    }

    /// Refuses the handler's own mistakes when the pipeline is built.
    ///
    /// # Errors
    /// What is wrong with it, without looking at any file.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// What the model takes and gives. A newer version with another signature is refused.
    fn signature(&self, model: &Self::Model) -> Option<Signature> {
        let _ = model;
        None
    }

    /// What an example brings for the model, where tensors by the [`signature`](ModelHandler::signature) are not what it
    /// brings: compared with what the pipeline is known to feed, before any element is read. Default: the signature's inputs.
    fn takes(&self, model: &Self::Model) -> Option<Vec<Port>> {
        self.signature(model).map(|signature| signature.inputs)
    }

    /// Whether the handler [counts](ModelHandler::counts) anything.
    fn has_counts(&self) -> bool {
        false
    }

    /// What is counted of a loaded model beside the metrics of all models, since it was loaded: the requests and retries of
    /// a service, say. They are the step's counters and stand in the report, always in the same order.
    fn counts(&self, model: &Self::Model) -> Vec<(&'static str, u64)> {
        let _ = model;
        Vec::new()
    }

    /// How many models the handler has: examples of different cohorts are for different ones and share no batches.
    #[doc(hidden)]
    fn cohorts(&self) -> usize {
        1
    }

    /// How many of them there are before any update.
    #[doc(hidden)]
    fn first_cohorts(&self) -> usize {
        self.cohorts()
    }

    /// Which one of them an example is for.
    #[doc(hidden)]
    fn cohort_of(&self, example: &Self::Example) -> Result<usize> {
        let _ = example;
        Ok(0)
    }

    /// What the metrics of a cohort begin with.
    #[doc(hidden)]
    fn cohort_name(&self, cohort: usize) -> Option<String> {
        let _ = cohort;
        None
    }

    /// Loads the model of a cohort, or that version of it.
    #[doc(hidden)]
    fn load_cohort(&self, cohort: usize, version: Option<&ModelMetadata>) -> Result<Self::Model> {
        let _ = cohort;
        match version {
            Some(version) => self.load_version(version),
            None => self.load_model(),
        }
    }

    /// How many models may be loaded at once.
    #[doc(hidden)]
    fn model_limit(&self) -> ModelLimit {
        ModelLimit::default()
    }

    /// Exactly one inference for each example, in order. Never called with an empty batch.
    ///
    /// # Errors
    /// When the model can't; the batch's elements are then failed one by one or together.
    fn run_inference(
        &self,
        batch: &[Self::Example],
        model: &Self::Model,
        args: &InferenceArgs,
    ) -> Result<Vec<Self::Inference>>;

    /// As [`run_inference`](ModelHandler::run_inference), for handlers that know which examples of a batch can't be
    /// predicted: only those fail then, and the others are not asked again. RunInference calls this one.
    ///
    /// # Errors
    /// When nothing at all can be said of the batch, or of who is to blame.
    fn predict(
        &self,
        batch: &[Self::Example],
        model: &Self::Model,
        args: &InferenceArgs,
    ) -> Result<Predictions<Self::Inference>> {
        self.run_inference(batch, model, args).map(Predictions::All)
    }

    /// How elements are gathered.
    fn batching(&self) -> Batching {
        Batching::default()
    }

    /// Whether an example can go to the model at all (its shape and dtype, say). Asked for each element before
    /// batching, so that one wrong element can't fail a batch.
    ///
    /// # Errors
    /// What is wrong with the example: seen and wanted.
    fn check_example(&self, example: &Self::Example, model: &Self::Model) -> Result<()> {
        let _ = (example, model);
        Ok(())
    }

    /// The weight of an example, for `max_batch_weight`. Default: its size in bytes as far as the type alone tells.
    fn element_size(&self, example: &Self::Example) -> u64 {
        let _ = example;
        size_of::<Self::Example>() as u64
    }

    /// The length of an example (words, tokens, samples), where only examples of about the same length should share a
    /// batch. Default: none; lengths do not matter.
    fn length_fn(&self) -> Option<LengthFn<Self::Example>> {
        None
    }

    /// How many copies of the model are loaded and taken in turn, batch by batch. Default 1.
    fn copies(&self) -> usize {
        1
    }

    /// The bytes of a batch, for the metric `inference_request_batch_byte_size`.
    fn num_bytes(&self, batch: &[Self::Example]) -> u64 {
        batch.iter().map(|example| self.element_size(example)).sum()
    }

    /// The namespace of the metrics, such as `BeamML_Onnx`.
    fn metrics_namespace(&self) -> String {
        "RunInference".to_owned()
    }

    /// A short name for labels and reports.
    fn name(&self) -> String {
        let name = std::any::type_name::<Self>();
        name.split('<').next().and_then(|n| n.rsplit("::").next()).unwrap_or(name).to_owned()
    }

    /// What the model is.
    fn model_info(&self, model: &Self::Model) -> ModelInfo {
        let _ = model;
        ModelInfo { model_id: self.name().into(), ..ModelInfo::default() }
    }

    /// Whether `error` of [`run_inference`](ModelHandler::run_inference) says that the batch was too large for the memory:
    /// it is halved and tried again, and later batches stay below. Default: an error of kind
    /// [`OutOfMemory`](ErrorKind::OutOfMemory), and one that says so in the words of the usual frameworks.
    fn lacks_memory(&self, error: &Error) -> bool {
        memory::is_told(error)
    }

    /// Refuses arguments that the handler can't use, when the pipeline is built.
    ///
    /// # Errors
    /// When it takes none and some are given, or one is unknown.
    fn validate_inference_args(&self, args: &InferenceArgs) -> Result<()> {
        if args.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidArgument,
            "TB0321",
            format!("inference_args were given, but {} takes none", self.name()),
        ))
    }

    /// Steps whose handlers give the same identity share one loaded model. Default: none, a model a step.
    fn model_identity(&self) -> Option<String> {
        None
    }

    /// The files of this machine that the model is loaded from: they travel with a job to engines on other machines, where
    /// [`staged::local`](crate::staged::local) finds them; URLs stay where they are, and workers fetch them.
    /// Default: none.
    fn model_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Whether the handler ends loads and calls that take longer than the step's timeout by itself.
    #[doc(hidden)]
    fn keeps_time(&self) -> bool {
        false
    }

    /// Learns that the model of a cohort is there, loaded by this handler or by another step's that shares it: what was kept for a
    /// load may go.
    #[doc(hidden)]
    fn is_loaded(&self, cohort: usize) {
        let _ = cohort;
    }

    /// Learns where in the pipeline it is, before anything is loaded.
    #[doc(hidden)]
    fn place(&self, places: &mut Places<'_>) {
        let _ = places;
    }

    /// The same handler with its model in a process of its own, one for each copy: an abort, a segmentation fault, a call that hangs
    /// or more memory than allowed ends that process and no other, the next call starts a new one, and with
    /// [`with_exception_handling`](crate::RunInference::with_exception_handling) exactly the elements that did it are in the dead
    /// letters. Batches travel by the coders of examples and inferences.
    ///
    /// The process is this program started once more, up to the step that has the handler; what a program does before it builds
    /// the pipeline is done again there. A program that builds several pipelines can isolate models of the first one only, unless
    /// it is told its options as `tiebeam::main` does.
    fn isolated(self, isolation: Isolation) -> Isolated<Self>
    where
        Self: Sized,
    {
        Isolated::new(self, isolation)
    }

    /// The same handler, which finds these variables in its environment when its model is loaded (Beam's `env_vars`). A model in a
    /// [process of its own](ModelHandler::isolated) has them there; else they are set in this process, for everybody in it and for
    /// good. So two models of one process can't want two values of the same variable: the second one's load fails.
    fn with_env_vars<N: Into<String>, V: Into<String>>(
        self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Tuned<Self>
    where
        Self: Sized,
    {
        let own = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Tuned::new(self).set_env_vars(own.collect())
    }

    /// The same handler with batches of at most `size`; a larger minimum comes down with it.
    fn max_batch_size(self, size: usize) -> Tuned<Self>
    where
        Self: Sized,
    {
        Tuned::new(self).set_batching(|batching| {
            batching.max_batch_size = size;
            batching.min_batch_size = batching.min_batch_size.min(size);
        })
    }

    /// The same handler with elements gathered in another way.
    fn with_batching(self, batching: Batching) -> Tuned<Self>
    where
        Self: Sized,
    {
        Tuned::new(self).set_batching(|own| *own = batching)
    }

    /// The same handler with `copies` of its model loaded and taken in turn, batch by batch.
    fn model_copies(self, copies: usize) -> Tuned<Self>
    where
        Self: Sized,
    {
        Tuned::new(self).set_copies(copies)
    }

    /// The same handler with batches of examples of about the same length; the classes are the batching's
    /// [`bucket_boundaries`](Batching::bucket_boundaries).
    fn with_length_fn(self, length: impl Fn(&Self::Example) -> usize + Send + Sync + 'static) -> Tuned<Self>
    where
        Self: Sized,
    {
        Tuned::new(self).set_length(Arc::new(length))
    }

    /// The same handler with elements weighed by `size` (Beam's `element_size_fn`), for
    /// [`max_batch_weight`](Batching::max_batch_weight).
    fn with_element_size_fn(self, size: impl Fn(&Self::Example) -> u64 + Send + Sync + 'static) -> Tuned<Self>
    where
        Self: Sized,
    {
        Tuned::new(self).set_size(Arc::new(size))
    }

    /// The same handler for lists of examples that are batches already: each goes to the model as it comes, and comes out
    /// with the list of its predictions (Beam's `no_batching`).
    fn no_batching(self) -> Prebatched<Self>
    where
        Self: Sized,
    {
        Prebatched::new(self)
    }

    /// The same handler for pairs: the model is asked about the second part, and the result's example is the whole pair. For
    /// what must come out with the answer and is none of the model's business, such as a file's name.
    fn carrying<T: Element>(self) -> Carrying<Self, T>
    where
        Self: Sized,
    {
        Carrying::new(self)
    }

    /// The same handler for pairs of a key and an example: pairs of the key and the result come out (Beam's
    /// `KeyedModelHandler`).
    fn keyed<K: Element>(self) -> Chain<Carrying<Self, K>, OnValue<NoSteps, K>, WithKey<NoSteps>>
    where
        Self: Sized,
    {
        self.into_chain().keyed()
    }

    /// The same handler for elements of which some have a key: those come out with it (Beam's `MaybeKeyedModelHandler`).
    fn maybe_keyed<K: Element>(
        self,
    ) -> Chain<Carrying<Self, Option<K>>, OnMaybeKeyed<NoSteps, K>, WithMaybeKey<NoSteps, K>>
    where
        Self: Sized,
    {
        self.into_chain().maybe_keyed()
    }

    /// Runs `step` on each element before the model: elements of type `I` go in from now on.
    fn preprocess<I: Element>(
        self,
        step: impl Fn(I) -> Self::Example + Send + Sync + 'static,
    ) -> Chain<Self, impl Before<Self::Example, In = I>, NoSteps>
    where
        Self: Sized,
    {
        self.into_chain().preprocess(step)
    }

    /// Runs a `step` that may refuse an element before the model.
    fn try_preprocess<I: Element, X: Into<Box<dyn StdError + Send + Sync>>>(
        self,
        step: impl Fn(I) -> Result<Self::Example, X> + Send + Sync + 'static,
    ) -> Chain<Self, impl Before<Self::Example, In = I>, NoSteps>
    where
        Self: Sized,
    {
        self.into_chain().try_preprocess(step)
    }

    /// Runs `step` on each result: values of type `U` come out from now on.
    fn postprocess<U: Element>(
        self,
        step: impl Fn(PredictionResult<Self::Example, Self::Inference>) -> U + Send + Sync + 'static,
    ) -> Chain<Self, NoSteps, impl After<PredictionResult<Self::Example, Self::Inference>, Out = U>>
    where
        Self: Sized,
    {
        self.into_chain().postprocess(step)
    }

    /// Runs a `step` that may refuse a result after the model.
    fn try_postprocess<U: Element, X: Into<Box<dyn StdError + Send + Sync>>>(
        self,
        step: impl Fn(PredictionResult<Self::Example, Self::Inference>) -> Result<U, X> + Send + Sync + 'static,
    ) -> Chain<Self, NoSteps, impl After<PredictionResult<Self::Example, Self::Inference>, Out = U>>
    where
        Self: Sized,
    {
        self.into_chain().try_postprocess(step)
    }
}
