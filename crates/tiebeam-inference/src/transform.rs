//! [`RunInference`]: the transform.

use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind};
use tiebeam_core::{Element, OutputTag};
use tiebeam_graph::ops::Given;
use tiebeam_graph::{AnySideInput, Arity, PCollection, PTransform, ParDo, Pipeline, SideInput};
use tiebeam_transforms::bound_failures;

use crate::batching::Batching;
use crate::chain::{After, Before, Chain, DropExample, IntoChain, NoSteps, PredictionOf};
use crate::clock::{Clock, SystemClock};
use crate::dead_letter::{FailedInference, Stage, failed_inference_coder};
use crate::dofn::RunInferenceDoFn;
use crate::facts::{Feeds, Infers, TRIED};
use crate::handler::{InferenceArgs, ModelHandler};
use crate::isolation::Places;
use crate::keyed::{WithKey, WithMaybeKey};
use crate::model::unique_identity;
use crate::nan::HoldsNan;
use crate::per_key::PerKeyHandler;
use crate::prediction::PredictionResult;
use crate::rollout::{CohortUpdate, KeyedUpdates, Versions};
use crate::routes::{KeyModelPathMapping, ModelKey, Move};
use crate::staged;
use crate::step::{Fed, NanPolicy, Same, Settings, Step, Tags, Updates};
use crate::update::{ModelMetadata, Rollout};
use crate::watch::Watcher;

/// Runs a model over a PCollection: exactly one result for each element, at the element's own time and in its own
/// windows, in the order of its bundle.
///
/// The model is loaded once in the process, before anything is read, and shared by all threads. Elements are gathered
/// into batches across threads, bundles and windows, as the handler's [`Batching`] says; an element of several windows
/// is asked about once.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// # use tiebeam_inference::{RunInference, from_fn};
/// let p = Pipeline::new();
/// let five_times = from_fn("five_times", |batch: &[i64]| Ok::<_, String>(batch.iter().map(|x| x * 5).collect()));
/// let results = p.apply(Create::of([20i64, 30, 40])).apply(RunInference::new(five_times));
/// let numbers = results.map(|result| result.inference);
/// ```
pub struct RunInference<H: ModelHandler, B: Before<H::Example> = NoSteps, A = NoSteps> {
    chain: Chain<H, B, A>,
    options: Options<H::Inference>,
    fed: Fed<B::In>,
    /// Preprocess steps may be run on elements before the run.
    is_pure: bool,
    monitor: Option<Monitor<H>>,
}

/// What is applied to the raw predictions.
type Monitor<H> = Box<dyn FnOnce(PCollection<PredictionOf<H>>)>;

/// The output that has a copy of the raw predictions.
const MONITORED: &str = "monitored";

/// All that is asked of a step beside its handler.
struct Options<P> {
    args: InferenceArgs,
    namespace: Option<String>,
    identity: Option<String>,
    clock: Arc<dyn Clock>,
    timeout: Option<Duration>,
    nan: (NanPolicy, Option<fn(&P) -> bool>),
    metadata: Option<SideInput<ModelMetadata>>,
    keyed: Option<(AnySideInput, KeyedUpdates)>,
    watch: Option<(String, Duration)>,
    rollout: Rollout,
    same: Option<Same<P>>,
}

impl<O: Element, I: Element, P: Element> Inferred<O, I, P> {
    /// Those that failed in the model, or in the check before it (Beam's `failed_inferences`).
    #[track_caller]
    pub fn failed_inferences(&self) -> PCollection<FailedInference<I, P>> {
        self.failed_in("FailedInferences", Stage::Inference, None)
    }

    /// Those that failed in a preprocess step, by its number, in the order in which the steps run (Beam's
    /// `failed_preprocessing[i]`).
    #[track_caller]
    pub fn failed_preprocessing(&self, index: usize) -> PCollection<FailedInference<I, P>> {
        self.failed_in(&format!("FailedPreprocessing-{index}"), Stage::Preprocess, Some(index))
    }

    /// Those that failed in a postprocess step, by its number (Beam's `failed_postprocessing[i]`). They keep what the model
    /// said.
    #[track_caller]
    pub fn failed_postprocessing(&self, index: usize) -> PCollection<FailedInference<I, P>> {
        self.failed_in(&format!("FailedPostprocessing-{index}"), Stage::Postprocess, Some(index))
    }

    #[track_caller]
    fn failed_in(
        &self,
        name: &str,
        stage: Stage,
        index: Option<usize>,
    ) -> PCollection<FailedInference<I, P>> {
        let suffix = index.map(|index| format!("-{index}")).unwrap_or_default();
        let is_of = move |failed: &FailedInference<I, P>| {
            failed.letter.stage == stage && failed.letter.failure.stage.ends_with(&suffix)
        };
        self.failed.step(name).filter(is_of).with_coder(self.failed.coder())
    }
}

/// RunInference whose failures are dead letters; made by [`RunInference::with_exception_handling`].
pub struct RescuedInference<H: ModelHandler, B: Before<H::Example> = NoSteps, A = NoSteps> {
    run: RunInference<H, B, A>,
    threshold: Option<f64>,
}

impl<H: ModelHandler, B: Before<H::Example>, A: After<PredictionOf<H>>> RescuedInference<H, B, A> {
    /// Ends the job when more than this share of the elements fails, from 0 to 1.
    #[must_use]
    pub fn with_threshold(mut self, threshold: f64) -> Self {
        self.threshold = Some(threshold);
        self
    }

    /// As [`RunInference::with_timeout`].
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.run = self.run.with_timeout(timeout);
        self
    }
}

/// What [`RescuedInference`] makes.
pub struct Inferred<O, I, P> {
    /// The results.
    pub results: PCollection<O>,
    /// The elements that failed before, in, or after the model, each with the reason.
    pub failed: PCollection<FailedInference<I, P>>,
}

impl<H: ModelHandler, B: Before<H::Example>, A: After<PredictionOf<H>>> RunInference<H, B, A> {
    /// Runs the model of `handler`, which may have preprocess and postprocess steps.
    pub fn new<C: IntoChain<Handler = H, Before = B, After = A>>(handler: C) -> Self {
        RunInference {
            chain: handler.into_chain(),
            options: Options {
                args: InferenceArgs::none(),
                namespace: None,
                identity: None,
                clock: Arc::new(SystemClock::default()),
                timeout: None,
                nan: (NanPolicy::Pass, None),
                metadata: None,
                keyed: None,
                watch: None,
                rollout: Rollout::swap(),
                same: None,
            },
            fed: Fed { feeds: Vec::new(), given: Vec::new(), samples: Vec::new() },
            is_pure: false,
            monitor: None,
        }
    }

    /// Gives a copy of the raw predictions to `monitor`, which may apply any transform to them: what drifts, what is rare, what
    /// an auditor wants to see. They are what the model said, before the postprocess steps and with the example that it was
    /// asked about, each at its element's own time and in its windows; also where a postprocess step then refuses the
    /// element. The results are not changed by it, and without a monitor nothing is copied.
    ///
    /// ```
    /// # use tiebeam_graph::{Create, Pipeline};
    /// # use tiebeam_inference::{ModelHandler, PredictionResult, RunInference, from_fn};
    /// let p = Pipeline::new();
    /// let five_times = from_fn("five_times", |batch: &[i64]| Ok::<_, String>(batch.iter().map(|x| x * 5).collect()));
    /// let words = five_times.postprocess(|result| format!("it is {}", result.inference));
    /// let inference = RunInference::new(words).with_monitoring(|raw| {
    ///     raw.filter(|result: &PredictionResult<i64, i64>| result.inference > 100).map(|result| result.example);
    /// });
    /// let results = p.apply(Create::of([20i64, 30, 40])).apply(inference);
    /// ```
    #[must_use]
    pub fn with_monitoring(mut self, monitor: impl FnOnce(PCollection<PredictionOf<H>>) + 'static) -> Self {
        self.monitor = Some(Box::new(monitor));
        self
    }

    /// Tries this element, such as will come, before any is read: the preprocess steps run on it, and the handler says
    /// whether what they make can go to the model. A job that would fail at its first element fails before it begins.
    #[must_use]
    pub fn with_sample(mut self, element: B::In) -> Self {
        self.fed.samples.push(element);
        self
    }

    /// Says what goes into the model, where the pipeline does not tell by itself, such as after preprocess steps: compared
    /// with the model's inputs before any element is read.
    #[must_use]
    pub fn with_example_signature(mut self, feeds: Feeds) -> Self {
        self.fed.feeds.push(feeds);
        self
    }

    /// The preprocess steps have no effects, so that elements that are given in the program can be tried before the run.
    #[must_use]
    pub fn with_pure_preprocess(mut self) -> Self {
        self.is_pure = true;
        self
    }

    /// Adds what is known of the input.
    fn knowing(mut self, input: &PCollection<B::In>, is_rescued: bool) -> Self {
        let has_steps = B::untouched(Vec::new()).is_err();
        if let Some(feeds) = input.noted::<Feeds>().filter(|_| !has_steps) {
            self.fed.feeds.push(Feeds::clone(&feeds));
        }
        // With dead letters, each element is judged for itself.
        let may_try = !is_rescued && (!has_steps || self.is_pure);
        if let Some(given) = input.noted::<Given<B::In>>().filter(|_| may_try) {
            self.fed.given.extend(given.0.iter().take(TRIED).cloned());
        }
        self
    }

    /// Gives the handler these arguments with every batch. A handler that can't use them refuses them when the pipeline
    /// is built.
    #[must_use]
    pub fn with_inference_args(mut self, args: InferenceArgs) -> Self {
        self.options.args = args;
        self
    }

    /// Counts under this namespace instead of the handler's own.
    #[must_use]
    pub fn with_metrics_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.options.namespace = Some(namespace.into());
        self
    }

    /// Steps of the same identifier (and the same kind of model) share one loaded model. Without one, and without the
    /// handler's own [`model_identity`](ModelHandler::model_identity), each step loads its own.
    #[must_use]
    pub fn with_model_identifier(mut self, identifier: impl Into<String>) -> Self {
        self.options.identity = Some(identifier.into());
        self
    }

    /// Takes the time for batching and latencies from `clock`; for tests that move it by hand.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.options.clock = clock;
        self
    }

    /// Gives up a load, or a call of the model, that takes longer. A call that does not come back is left behind with its
    /// copy of the model, which is loaded anew for the next one; the elements of its batch are tried in halves where there
    /// are dead letters. What is left behind keeps neither the job nor the process from ending.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Says what becomes of predictions that hold NaN. Default: they go on.
    #[must_use]
    pub fn with_nan_policy(mut self, policy: NanPolicy) -> Self
    where
        H::Inference: HoldsNan,
    {
        self.options.nan = (policy, (policy != NanPolicy::Pass).then_some(H::Inference::holds_nan));
        self
    }

    /// Takes newer versions of the model from a side input (Beam's `model_metadata_pcoll`): before the elements of a window
    /// are computed, the version that the side input names for that window is loaded beside the one in use and takes its
    /// place, unless it is damaged, incompatible or not there: then the one in use stays, and the failure is counted and
    /// tried again where it may pass. Empty side inputs and empty ids change nothing; two values for one window are an
    /// error. The version in use is the process's: windows that want different ones at the same time take turns, and every
    /// result tells which one computed it.
    #[must_use]
    pub fn with_model_metadata(mut self, metadata: &PCollection<ModelMetadata>) -> Self {
        self.options.metadata = Some(metadata.as_singleton_or(ModelMetadata::default()));
        self
    }

    /// Looks every `interval` for files of this pattern that are newer than the start, or were rewritten, and that looked
    /// the same in two looks: the newest takes the place of the model as it runs, or, if it is damaged or incompatible, is
    /// counted as a failed swap and leaves the model as it is.
    #[must_use]
    pub fn watch_model_pattern(mut self, pattern: impl Into<String>, interval: Duration) -> Self {
        self.options.watch = Some((pattern.into(), interval));
        self
    }

    /// Says how newer versions take over. Default: at once.
    #[must_use]
    pub fn with_rollout(mut self, rollout: Rollout) -> Self {
        self.options.rollout = rollout;
        self
    }

    /// Says when two versions agree, for [`Rollout::shadow`]. Default: when their predictions are equal to the bit.
    #[must_use]
    pub fn with_agreement(
        mut self,
        same: impl Fn(&H::Inference, &H::Inference) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.options.same = Some(Arc::new(same));
        self
    }

    /// Sends elements that fail to an output of their own instead of ending the bundle. A failed batch is halved until
    /// only the guilty are left; their batch-mates are predicted.
    #[must_use]
    pub fn with_exception_handling(self) -> RescuedInference<H, B, A> {
        RescuedInference { run: self, threshold: None }
    }

    /// The step that all instances share. Every mistake in its settings is told to the pipeline.
    #[track_caller]
    pub(crate) fn into_step(self, pipeline: &Pipeline, tags: Tags<H, B::In>) -> Arc<Step<H, B, A>> {
        let RunInference { chain: Chain { handler, before, after }, options, fed, .. } = self;
        let batching = match handler.batching().validated(handler.length_fn().is_some()) {
            Ok(batching) => batching,
            Err(error) => {
                pipeline.fail(error);
                Batching::default()
            }
        };
        let invalid = |message| pipeline.fail(Error::new(ErrorKind::InvalidArgument, "TB0322", message));
        if let Err(error) = handler.validate() {
            pipeline.fail(error);
        }
        if let Err(error) = handler.validate_inference_args(&options.args) {
            pipeline.fail(error);
        }
        if handler.copies() == 0 {
            invalid(format!("{} asks for 0 copies of its model; at least one is needed", handler.name()));
        }
        if options.timeout.is_some_and(|timeout| timeout.is_zero()) {
            invalid("the timeout must be more than nothing".to_owned());
        }
        if options.nan.0 == NanPolicy::DeadLetter && tags.failed.is_none() {
            invalid("predictions with NaN have no dead letters to go to: with_exception_handling".to_owned());
        }
        options.check_updates(pipeline, &handler);
        let step = pipeline.current_step();
        let mut places = Places::new(&step, &options.args, options.timeout);
        handler.place(&mut places);
        let identity = match options.identity.or_else(|| handler.model_identity()) {
            Some(named) => format!("={named}").into(),
            None => unique_identity(),
        };
        let settings = Settings {
            args: options.args,
            namespace: options.namespace.unwrap_or_else(|| handler.metrics_namespace()),
            identity,
            batching,
            clock: options.clock,
            // A handler that keeps the time itself has been told it.
            timeout: options.timeout.filter(|_| !handler.keeps_time()),
            nan: options.nan,
            updates: Updates {
                metadata: options.metadata.map(|side| side.view().clone()),
                keyed: options.keyed.map(|(_, updates)| updates),
                watch: options.watch,
                rollout: options.rollout,
                same: options.same,
            },
        };
        let files = staged::here(handler.model_files());
        let step = Arc::new(Step::new((Arc::new(handler), before, after), settings, tags));
        files.into_iter().for_each(|file| pipeline.add_file(file));
        let (loads, releases) = (step.clone(), step.clone());
        pipeline.add_check(move || loads.preflight());
        let judges = step.clone();
        pipeline.add_check(move || judges.fits(&fed));
        pipeline.add_cleanup(move |_| releases.release());
        step
    }
}

/// The side inputs of a step.
struct Sides {
    metadata: Option<SideInput<ModelMetadata>>,
    keyed: Option<AnySideInput>,
}

impl<P> Options<P> {
    fn sides(&self) -> Sides {
        Sides { metadata: self.metadata.clone(), keyed: self.keyed.as_ref().map(|(side, _)| side.clone()) }
    }

    /// Tells the pipeline what keeps the model from being updated as is wanted.
    #[track_caller]
    fn check_updates<H: ModelHandler>(&self, pipeline: &Pipeline, handler: &H) {
        if let Err(error) = self.rollout.validated() {
            pipeline.fail(error);
        }
        if self.metadata.is_none() && self.watch.is_none() && self.keyed.is_none() {
            return;
        }
        if handler.first_cohorts() > 1 && (self.metadata.is_some() || self.watch.is_some()) {
            let message = format!(
                "{} has several models, and one version was to take the place of them: with_keyed_model_updates",
                handler.name()
            );
            pipeline.fail(Error::new(ErrorKind::InvalidArgument, "TB0322", message));
        }
        if !handler.takes_updates() {
            let message = format!("{} has no versions that could take its model's place", handler.name());
            pipeline.fail(Error::new(ErrorKind::Unsupported, "TB0355", message));
        }
        if let Some((pattern, interval)) = &self.watch {
            if interval.is_zero() {
                let message = "the interval of watch_model_pattern must be more than nothing";
                pipeline.fail(Error::new(ErrorKind::InvalidArgument, "TB0354", message));
            }
            if let Err(error) = Watcher::new(pattern, std::time::SystemTime::UNIX_EPOCH) {
                pipeline.fail(error);
            }
        }
    }
}

impl<K, E, P, B, A> RunInference<PerKeyHandler<K, E, P>, B, A>
where
    K: ModelKey,
    E: Element,
    P: Element,
    B: Before<(K, E)>,
    A: After<PredictionResult<(K, E), P>>,
{
    /// Takes newer versions of the models from a side input of lists of keys, in which every key is exactly once. Keys that
    /// had one model and get two are two cohorts from then on. As with
    /// [`with_model_metadata`](RunInference::with_model_metadata), a version that can't be loaded is counted, and its keys
    /// keep their model.
    #[must_use]
    pub fn with_keyed_model_updates(mut self, updates: &PCollection<KeyModelPathMapping<K>>) -> Self {
        let routes = self.chain.handler.routes.clone();
        routes.expect_updates();
        let side = updates.as_list();
        let view = side.view();
        let read: KeyedUpdates = Arc::new(move |cx, window, last| {
            let list: Arc<Vec<KeyModelPathMapping<K>>> = cx.side_input_in(&view, window)?;
            let last = last.and_then(|last| last.clone().downcast::<Vec<KeyModelPathMapping<K>>>().ok());
            if list.is_empty() || last.is_some_and(|last| Arc::ptr_eq(&last, &list) || last == list) {
                return Ok(None);
            }
            let update = |moved: Move<K>| {
                let (cohort, version, routes) = (moved.cohort, moved.version.clone(), routes.clone());
                let begins = moved.begins();
                CohortUpdate { cohort, version, begins, commit: Box::new(move || routes.commit(&moved)) }
            };
            let plan = routes.plan(&list)?.into_iter().map(update).collect();
            Ok(Some((list as Versions, plan)))
        });
        self.options.keyed = Some((side.any(), read));
        self
    }
}

impl<H: ModelHandler, B: Before<H::Example>> RunInference<H, B, NoSteps> {
    /// Leaves the example out of the results.
    #[must_use]
    pub fn drop_example(self) -> RunInference<H, B, DropExample> {
        self.with_after(DropExample)
    }
}

impl<H: ModelHandler, B: Before<H::Example>> RunInference<H, B, WithKey<NoSteps>> {
    /// Leaves the example out of the results; their keys stay.
    #[must_use]
    pub fn drop_example(self) -> RunInference<H, B, WithKey<DropExample>> {
        self.with_after(WithKey::dropping())
    }
}

impl<H: ModelHandler, B: Before<H::Example>, K> RunInference<H, B, WithMaybeKey<NoSteps, K>> {
    /// Leaves the example out of the results; their keys stay.
    #[must_use]
    pub fn drop_example(self) -> RunInference<H, B, WithMaybeKey<DropExample, K>> {
        self.with_after(WithMaybeKey::dropping())
    }
}

impl<H: ModelHandler, B: Before<H::Example>, A> RunInference<H, B, A> {
    fn with_after<D>(self, after: D) -> RunInference<H, B, D> {
        let RunInference { chain: Chain { handler, before, .. }, options, fed, is_pure, monitor } = self;
        RunInference { chain: Chain { handler, before, after }, options, fed, is_pure, monitor }
    }
}

/// Notes what the results are known to hold.
fn with_infers<H, B, A>(step: &Arc<Step<H, B, A>>, results: PCollection<A::Out>) -> PCollection<A::Out>
where
    H: ModelHandler,
    B: Before<H::Example>,
    A: After<PredictionOf<H>>,
{
    if A::STEPS > 0 {
        return results;
    }
    let (model, name) = (step.clone(), step.handler.name());
    results.with_note(Infers(Feeds::of_outputs(Arc::new(move || model.gives()), name.into())))
}

/// The step of a DoFn: one result or dead letter for each element, asked about once whatever its windows are.
fn par_do<H, B, A>(step: Arc<Step<H, B, A>>, sides: Sides) -> ParDo<B::In, A::Out>
where
    H: ModelHandler,
    B: Before<H::Example>,
    A: After<PredictionOf<H>>,
{
    let par_do = ParDo::new(RunInferenceDoFn::new(step)).with_arity(Arity::OneToOne);
    let par_do = match &sides.metadata {
        Some(side) => par_do.with_side_input(side).with_windows_kept(),
        None => par_do,
    };
    match &sides.keyed {
        Some(side) => par_do.with_any_side_input(side).with_windows_kept(),
        None => par_do,
    }
}

impl<H, B, A> PTransform<PCollection<B::In>> for RunInference<H, B, A>
where
    H: ModelHandler,
    B: Before<H::Example>,
    A: After<PredictionOf<H>>,
{
    type Output = PCollection<A::Out>;

    fn label(&self) -> String {
        "RunInference".to_owned()
    }

    #[track_caller]
    fn expand(mut self, input: PCollection<B::In>) -> PCollection<A::Out> {
        let (sides, monitor) = (self.options.sides(), self.monitor.take());
        let monitored = monitor.as_ref().map(|_| OutputTag::new(MONITORED));
        let tags = Tags { failed: None, monitored: monitored.clone() };
        let step = self.knowing(&input, false).into_step(input.pipeline(), tags);
        let (place, par_do) = (input.step("BeamML_RunInference"), par_do(step.clone(), sides));
        let results = match monitor.zip(monitored) {
            None => place.apply(par_do),
            Some((monitor, tag)) => {
                let outputs = place.apply(par_do.with_output(&tag));
                monitor(outputs.get(&tag));
                outputs.main
            }
        };
        with_infers(&step, results)
    }
}

impl<H, B, A> PTransform<PCollection<B::In>> for RescuedInference<H, B, A>
where
    H: ModelHandler,
    B: Before<H::Example>,
    A: After<PredictionOf<H>>,
{
    type Output = Inferred<A::Out, B::In, H::Inference>;

    fn label(&self) -> String {
        "RunInference".to_owned()
    }

    #[track_caller]
    fn expand(mut self, input: PCollection<B::In>) -> Self::Output {
        let tag = OutputTag::new("failed");
        let (sides, monitor) = (self.run.options.sides(), self.run.monitor.take());
        let monitored = monitor.as_ref().map(|_| OutputTag::new(MONITORED));
        let tags = Tags { failed: Some(tag.clone()), monitored: monitored.clone() };
        let step = self.run.knowing(&input, true).into_step(input.pipeline(), tags);
        let coder = failed_inference_coder(input.coder(), H::Inference::coder());
        let mut par_do = par_do(step.clone(), sides).with_dead_letters(&tag, coder);
        if let Some(monitored) = &monitored {
            par_do = par_do.with_output(monitored);
        }
        let outputs = input.step("BeamML_RunInference").apply(par_do);
        let failed = outputs.get(&tag);
        if let Some((monitor, monitored)) = monitor.zip(monitored) {
            monitor(outputs.get(&monitored));
        }
        let inferred = Inferred { failed, results: with_infers(&step, outputs.main) };
        if let Some(threshold) = self.threshold {
            if !(0.0..=1.0).contains(&threshold) {
                let message = format!("the threshold ({threshold}) must be from 0 to 1");
                input.pipeline().fail(Error::new(ErrorKind::InvalidArgument, "TB0322", message));
            }
            bound_failures(&input, &inferred.failed, threshold);
        }
        inferred
    }
}
