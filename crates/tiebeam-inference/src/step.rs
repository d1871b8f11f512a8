//! [`Step`]: what all instances of one RunInference share: handler, settings, models, batcher; and how a batch is computed.

use std::any::TypeId;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::{OutputTag, View};

use crate::batcher::{Batcher, Chunk, ModelId, Ran, Slots};
use crate::batching::{Batching, LengthFn};
use crate::call::{Caller, MeterBook, Refusal, Verdict};
use crate::chain::{Before, PredictionOf, rescued};
use crate::clock::Clock;
use crate::dead_letter::{FailedInference, Stage};
use crate::facts::{self, Feeds};
use crate::handler::{Answered, InferenceArgs, ModelHandler};
use crate::model::{Loader, ModelCell, SharedModel};
use crate::models::ModelSet;
use crate::report;
use crate::rollout::{Followed, FollowedKeyed, KeyedUpdates};
use crate::signature::Port;
use crate::tensor::{Tensor, Tensors};
use crate::update::{ModelMetadata, Rollout};

/// What is done with predictions that hold NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NanPolicy {
    /// They go on as they are.
    #[default]
    Pass,
    /// Their elements go to the dead letters; needs [`with_exception_handling`](crate::RunInference::with_exception_handling).
    DeadLetter,
    /// They end the bundle.
    Fail,
}

/// Whether two versions say the same.
pub(crate) type Same<P> = Arc<dyn Fn(&P, &P) -> bool + Send + Sync>;

/// What the user asked of a step.
pub(crate) struct Settings<P> {
    pub(crate) args: InferenceArgs,
    pub(crate) namespace: String,
    pub(crate) identity: Arc<str>,
    pub(crate) batching: Batching,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long a load, and how long a call may take.
    pub(crate) timeout: Option<Duration>,
    pub(crate) nan: (NanPolicy, Option<fn(&P) -> bool>),
    pub(crate) updates: Updates<P>,
}

/// Where newer versions of the model come from, and how they take over.
pub(crate) struct Updates<P> {
    pub(crate) metadata: Option<View<ModelMetadata>>,
    pub(crate) keyed: Option<KeyedUpdates>,
    pub(crate) watch: Option<(String, Duration)>,
    pub(crate) rollout: Rollout,
    pub(crate) same: Option<Same<P>>,
}

impl<P> Updates<P> {
    pub(crate) fn are_wanted(&self) -> bool {
        self.metadata.is_some() || self.watch.is_some() || self.keyed.is_some()
    }
}

/// What is known of what a step is fed.
pub(crate) struct Fed<I> {
    pub(crate) feeds: Vec<Feeds>,
    /// Elements that will come.
    pub(crate) given: Vec<I>,
    /// Elements such as will come.
    pub(crate) samples: Vec<I>,
}

fn unfitting(what: &str, model: &str, error: Error) -> Error {
    facts::unfit(format!("{what} does not fit {model}: {}", error.message())).with_source(error)
}

/// The outputs beside the results.
pub(crate) struct Tags<H: ModelHandler, I> {
    /// Where dead letters go.
    pub(crate) failed: Option<OutputTag<FailedInference<I, H::Inference>>>,
    /// Where a copy of what the model said goes.
    pub(crate) monitored: Option<OutputTag<PredictionOf<H>>>,
}

impl<H: ModelHandler, I> Default for Tags<H, I> {
    fn default() -> Self {
        Tags { failed: None, monitored: None }
    }
}

/// See the module.
pub(crate) struct Step<H: ModelHandler, B: Before<H::Example>, A: Send + Sync + 'static> {
    pub(crate) handler: Arc<H>,
    pub(crate) before: B,
    pub(crate) after: A,
    pub(crate) settings: Settings<H::Inference>,
    pub(crate) length: Option<(LengthFn<H::Example>, Arc<[usize]>)>,
    pub(crate) batcher: Arc<Batcher<H::Example, H::Inference>>,
    pub(crate) failed: Option<OutputTag<FailedInference<B::In, H::Inference>>>,
    pub(crate) monitored: Option<OutputTag<PredictionOf<H>>>,
    pub(crate) models: ModelSet<H>,
    /// Instances that need the models, and whether a run does.
    users: Mutex<(usize, bool)>,
    /// One version is loaded at a time.
    pub(crate) updating: Mutex<()>,
    pub(crate) followed: Mutex<Followed>,
    pub(crate) followed_keyed: Mutex<FollowedKeyed>,
    /// An example that the model in use could do: what a new version is tried on.
    pub(crate) sample: Mutex<Option<H::Example>>,
    wants_sample: AtomicBool,
    /// Swaps and failed swaps that no metric has told.
    pub(crate) swaps: (AtomicU64, AtomicU64),
    pub(crate) watching: Mutex<Option<Arc<AtomicBool>>>,
}

/// Slots, lengths and examples of one class.
type Grouped<E> = (Vec<usize>, Vec<usize>, Vec<E>);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<H: ModelHandler, B: Before<H::Example>, A: Send + Sync + 'static> Step<H, B, A> {
    pub(crate) fn new(
        (handler, before, after): (Arc<H>, B, A),
        settings: Settings<H::Inference>,
        Tags { failed, monitored }: Tags<H, B::In>,
    ) -> Self {
        let length = handler.length_fn().map(|length| (length, settings.batching.boundaries()));
        let classes = length.as_ref().map_or(1, |(_, boundaries)| boundaries.len() + 1);
        let clock = settings.clock.clone();
        let loader = Loader { handler: handler.clone(), clock: clock.clone(), timeout: settings.timeout };
        let models = ModelSet::new(loader, &settings.identity, handler.model_limit());
        let batcher = Batcher::new(&settings.batching, models.len(), classes, clock);
        let wants_sample = AtomicBool::new(settings.updates.are_wanted());
        Step {
            handler,
            before,
            after,
            settings,
            length,
            batcher,
            failed,
            monitored,
            models,
            users: Mutex::default(),
            updating: Mutex::new(()),
            followed: Mutex::default(),
            followed_keyed: Mutex::default(),
            sample: Mutex::new(None),
            wants_sample,
            swaps: Default::default(),
            watching: Mutex::new(None),
        }
    }

    /// An instance needs the models from now on, till it [leaves](Step::leave).
    pub(crate) fn enter(self: &Arc<Self>) {
        let mut users = lock(&self.users);
        if *users == (0, false) {
            self.watch();
        }
        users.0 += 1;
    }

    /// Models go with the last one who needs them, when no other step has them.
    pub(crate) fn leave(&self) {
        let mut users = lock(&self.users);
        users.0 = users.0.saturating_sub(1);
        self.let_go(*users);
    }

    /// The run is over.
    pub(crate) fn release(&self) {
        let mut users = lock(&self.users);
        users.1 = false;
        self.let_go(*users);
    }

    fn let_go(&self, users: (usize, bool)) {
        if users != (0, false) {
            return;
        }
        if let Some(stop) = lock(&self.watching).take() {
            stop.store(true, Ordering::Relaxed);
        }
        self.models.clear();
        // The next run judges the side inputs anew.
        *lock(&self.followed) = Followed::default();
        *lock(&self.followed_keyed) = FollowedKeyed::default();
        *lock(&self.sample) = None;
        self.wants_sample.store(self.settings.updates.are_wanted(), Ordering::Relaxed);
    }

    /// Loads a cohort's model, if it isn't.
    ///
    /// # Errors
    /// What the load said.
    pub(crate) fn load(&self, cohort: usize) -> Result<Arc<ModelCell<H::Model>>> {
        let cell = self.models.acquire(cohort)?.cell.clone();
        self.handler.is_loaded(cohort);
        self.batcher.know(cohort, &cell.current().memory, &cell.latencies);
        Ok(cell)
    }

    /// Whether an element, not the job, is to blame for a load that failed: one that took too long, where the user wants
    /// what takes too long among the dead letters.
    pub(crate) fn rescues(&self, error: &Error) -> bool {
        self.failed.is_some() && error.kind() == ErrorKind::Timeout
    }

    /// Loads the models before anything is read, as many as may be loaded, and keeps them until
    /// [`release`](Step::release).
    pub(crate) fn preflight(self: &Arc<Self>) -> Result<()> {
        {
            let mut users = lock(&self.users);
            if *users == (0, false) {
                self.watch();
            }
            users.1 = true;
        }
        for cohort in 0..self.models.at_first() {
            if let Err(error) = self.load(cohort).map(drop)
                && !self.rescues(&error)
            {
                self.release();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Examples in chunks of one class, with their slots and, where they count, their weights.
    pub(crate) fn chunks(&self, examples: Vec<H::Example>, first: usize) -> Vec<Chunk<H::Example>> {
        let weigh = |examples: &[H::Example]| match self.settings.batching.max_batch_weight {
            Some(_) => examples.iter().map(|example| self.handler.element_size(example)).collect(),
            None => Vec::new(),
        };
        let has_cohorts = self.models.len() > 1;
        if self.length.is_none() && !has_cohorts {
            let weights = weigh(&examples);
            let (slots, lengths, bytes) = (Slots::From(first), Vec::new(), self.handler.num_bytes(&examples));
            return vec![Chunk { slots, values: examples, weights, lengths, bytes, class: 0 }];
        }
        let mut chunks: BTreeMap<usize, Grouped<H::Example>> = BTreeMap::new();
        let some = examples.len() / 4 + 1;
        let lengths = if self.length.is_some() { some } else { 0 };
        let group = || (Vec::with_capacity(some), Vec::with_capacity(lengths), Vec::with_capacity(some));
        for (slot, example) in (first..).zip(examples) {
            // Those that are for none were refused before.
            let cohort = if has_cohorts { self.handler.cohort_of(&example).unwrap_or(0) } else { 0 };
            let (length, class) = match &self.length {
                None => (None, cohort),
                Some((length, boundaries)) => {
                    let length = length(&example);
                    let class = boundaries.partition_point(|boundary| *boundary < length);
                    (Some(length), cohort * (boundaries.len() + 1) + class)
                }
            };
            let (slots, lengths, values) = chunks.entry(class).or_insert_with(group);
            slots.push(slot);
            lengths.extend(length);
            values.push(example);
        }
        let chunk = |(class, (slots, lengths, values)): (usize, Grouped<H::Example>)| {
            let (weights, bytes) = (weigh(&values), self.handler.num_bytes(&values));
            Chunk { slots: Slots::Each(slots), values, weights, lengths, bytes, class }
        };
        chunks.into_iter().map(chunk).collect()
    }

    /// Computes a batch of a cohort with the version in use, or with one on trial, as soon as the model takes one more call.
    pub(crate) fn compute(
        &self,
        cohort: usize,
        examples: &[H::Example],
        meters: &MeterBook<H::Model>,
    ) -> Ran<H::Inference> {
        let in_use = match self.models.acquire(cohort) {
            Ok(in_use) => in_use,
            Err(error) => {
                return (self.all_refused(error, examples.len()), ModelId::default(), Duration::ZERO);
            }
        };
        let (cell, n) = (&in_use.cell, examples.len());
        let (_inside, waited) = match cell.gate.try_enter() {
            Some(inside) => (inside, Duration::ZERO),
            None => {
                let clock = &self.settings.clock;
                let began = clock.now();
                let inside = cell.gate.enter();
                (inside, clock.now().saturating_sub(began))
            }
        };
        let version = cell.current();
        self.batcher.know(cohort, &version.memory, &cell.latencies);
        let done = match cell.trial().filter(|trial| trial.takes(n)) {
            None => self.compute_with(cohort, version, examples, meters),
            Some(trial) if trial.rollout.is_shadow() => {
                let done = self.compute_with(cohort, version, examples, meters);
                self.shadow(cell, cohort, &trial, examples, &done.0, meters);
                done
            }
            Some(trial) => self.canary(cell, cohort, &trial, version, examples, meters),
        };
        if self.wants_sample.load(Ordering::Relaxed)
            && done.0.is_well()
            && self.wants_sample.swap(false, Ordering::Relaxed)
        {
            *lock(&self.sample) = examples.first().cloned();
        }
        (done.0, done.1, waited)
    }

    /// What the handler counted of its models, to the metrics and the report.
    pub(crate) fn tell_counts(&self, meters: &MeterBook<H::Model>) {
        if !self.handler.has_counts() {
            return;
        }
        for cell in self.models.loaded() {
            let [all, new] = cell.current().take_counts(&*self.handler);
            meters.counted(&new);
            report::counted(&cell.report, all);
        }
    }

    /// Compares what is known of what the pipeline feeds with what the loaded models take.
    ///
    /// # Errors
    /// The first that does not fit.
    pub(crate) fn fits(&self, fed: &Fed<B::In>) -> Result<()> {
        let name = self.handler.name();
        for cohort in 0..self.models.len() {
            let Some(version) = self.models.peek(cohort).map(|cell| cell.current()) else { continue };
            if let Some(takes) = self.handler.takes(version.any()) {
                fed.feeds.iter().try_for_each(|feeds| feeds.fit(&name, &takes))?;
            }
        }
        let judge = |example: &H::Example| {
            let cohort = self.handler.cohort_of(example)?;
            let Some(cell) = self.models.peek(cohort) else { return Ok(()) };
            self.handler.check_example(example, cell.current().any())
        };
        let at = Cell::new(0);
        for given in &fed.given {
            // What a preprocess step says of it is told when it is read.
            let Ok(example) = rescued(Stage::Preprocess, &at, || self.before.run(given.clone(), &at, 0))
            else {
                continue;
            };
            judge(&example).map_err(|error| unfitting("an element that the pipeline gives", &name, error))?;
        }
        for sample in &fed.samples {
            rescued(Stage::Preprocess, &at, || self.before.run(sample.clone(), &at, 0))
                .map_err(|fault| fault.error)
                .and_then(|example| judge(&example))
                .map_err(|error| unfitting("the sample", &name, error))?;
        }
        Ok(())
    }

    /// What the model gives, once it is loaded; nothing where there are several, or it does not tell.
    pub(crate) fn gives(&self) -> Option<Vec<Port>> {
        let cell = (self.models.len() == 1).then(|| self.models.peek(0)).flatten()?;
        let mut outputs = self.handler.signature(cell.current().any())?.outputs;
        let kind = TypeId::of::<H::Inference>();
        if kind == TypeId::of::<Tensor>() {
            // What is alone needs no name.
            outputs.iter_mut().for_each(|port| port.name = Arc::default());
        }
        (kind == TypeId::of::<Tensor>() || kind == TypeId::of::<Tensors>()).then_some(outputs)
    }

    /// Nothing could be asked: nobody in the batch is to blame more than another.
    fn all_refused(&self, error: Error, n: usize) -> Verdict<H::Inference> {
        if self.failed.is_none() || error.kind() == ErrorKind::Cancelled {
            return Verdict::Failed(error);
        }
        let refusal = || Err(Refusal { error: error.clone(), attempts: 0 });
        Verdict::Each((0..n).map(|_| refusal()).collect())
    }

    pub(crate) fn compute_with(
        &self,
        cohort: usize,
        version: Arc<SharedModel<H::Model>>,
        examples: &[H::Example],
        meters: &MeterBook<H::Model>,
    ) -> (Verdict<H::Inference>, ModelId) {
        let mut version = version;
        loop {
            let tag = version.tag.clone();
            let caller = Caller::new(self, cohort, version, meters);
            let verdict = caller.run(examples, self.failed.is_some());
            match caller.other_version() {
                Some(other) => version = other,
                None => return (self.without_nan(verdict), tag),
            }
        }
    }

    fn without_nan(&self, verdict: Verdict<H::Inference>) -> Verdict<H::Inference> {
        let (policy, Some(is_nan)) = self.settings.nan else { return verdict };
        let error = || {
            Error::new(ErrorKind::Inference, "TB0357", format!("{} gave NaN", self.handler.name()))
                .with_help("the nan policy says what is done with it: pass, dead letter, fail")
                .with_retryable(false)
        };
        let each = match verdict {
            Verdict::All(all) if !all.iter().any(is_nan) => return Verdict::All(all),
            Verdict::All(all) => all.into_iter().map(|one| Ok(one.into())).collect(),
            Verdict::Each(each) => each,
            failed => return failed,
        };
        if policy == NanPolicy::Fail && each.iter().flatten().any(|one| is_nan(&one.inference)) {
            return Verdict::Failed(error());
        }
        let judge = |one: Result<Answered<H::Inference>, Refusal>| match one {
            Ok(answered) if is_nan(&answered.inference) => Err(Refusal { error: error(), attempts: 1 }),
            other => other,
        };
        Verdict::Each(each.into_iter().map(judge).collect())
    }
}
