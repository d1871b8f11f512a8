//! One call of a model: the contract of one prediction per example, panics, metrics; and who is to blame when it fails.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::metrics::{Counter, Distribution, StepMetrics};

use crate::batcher::ModelTag;
use crate::brain::Lengths;
use crate::chain::Before;
use crate::clock::Clock;
use crate::handler::{Answered, InferenceArgs, ModelHandler, Predictions};
use crate::latency::Waits;
use crate::memory::ModelMemory;
use crate::model::{LoadCost, SharedModel, panic_text, within};
use crate::models::ModelSet;
use crate::step::Step;

/// The code of a model that gave fewer or more predictions than it was given examples.
const WRONG_COUNT: &str = "TB0324";

/// The metrics of one step, under Beam's names: those of all its models, and those of each that has a name of its own.
pub(crate) struct MeterBook<M> {
    metrics: StepMetrics,
    namespace: String,
    pub(crate) total: Meters,
    named: RefCell<BTreeMap<Arc<str>, Arc<Meters>>>,
    /// Versions whose load was told in metrics that are not committed yet.
    told: RefCell<Vec<Weak<SharedModel<M>>>>,
}

impl<M> MeterBook<M> {
    pub(crate) fn new(metrics: &StepMetrics, namespace: &str) -> Self {
        MeterBook {
            metrics: metrics.clone(),
            namespace: namespace.to_owned(),
            total: Meters::new(metrics, namespace, ""),
            named: RefCell::default(),
            told: RefCell::default(),
        }
    }

    /// The metrics of a model that has a name.
    pub(crate) fn of(&self, tag: &ModelTag) -> Option<Arc<Meters>> {
        let prefix = tag.prefix.as_ref()?;
        let mut named = self.named.borrow_mut();
        if let Some(known) = named.get(prefix) {
            return Some(known.clone());
        }
        let meters = Arc::new(Meters::new(&self.metrics, &self.namespace, prefix));
        named.insert(prefix.clone(), meters.clone());
        Some(meters)
    }

    /// Predictions of that model go on.
    pub(crate) fn inferred(&self, tag: &ModelTag, n: usize) {
        self.total.num_inferences.add(whole(n));
        if let Some(named) = self.of(tag) {
            named.num_inferences.add(whole(n));
        }
    }

    /// Elements came back from that model after so long.
    pub(crate) fn waited(&self, tag: &ModelTag, waits: &Waits) {
        if waits.queue.count > 0 {
            self.total.waited(waits);
            if let Some(named) = self.of(tag) {
                named.waited(waits);
            }
        }
    }

    /// Tells what a model's load took, unless somebody has.
    pub(crate) fn loaded(&self, version: &Arc<SharedModel<M>>) {
        if let Some(cost) = version.untold_cost() {
            self.total.loaded(cost);
            if let Some(named) = self.of(&version.tag) {
                named.loaded(cost);
            }
            self.told.borrow_mut().push(Arc::downgrade(version));
        }
    }

    /// What was told is committed.
    pub(crate) fn committed(&self) {
        self.told.borrow_mut().clear();
    }

    /// What was told is lost: somebody else shall tell it.
    pub(crate) fn lost(&self) {
        self.told.take().iter().filter_map(Weak::upgrade).for_each(|version| version.tell_again());
    }

    /// Swaps and failed swaps.
    pub(crate) fn swapped(&self, (swaps, failed): (u64, u64)) {
        if (swaps, failed) != (0, 0) {
            self.metrics.counter(&self.namespace, "model_swaps").add(whole(swaps));
            self.metrics.counter(&self.namespace, "failed_model_swaps").add(whole(failed));
        }
    }

    /// What the handler counted of its own, since the last time.
    pub(crate) fn counted(&self, counts: &[(&'static str, u64)]) {
        for (name, more) in counts.iter().filter(|(_, more)| *more > 0) {
            self.metrics.counter(&self.namespace, name).add(whole(*more));
        }
    }

    /// Elements that a version in the shadow computed, and those of them for which it said something else.
    pub(crate) fn shadowed(&self, elements: usize, differences: usize) {
        self.metrics.counter(&self.namespace, "shadow_inferences").add(whole(elements));
        self.metrics.counter(&self.namespace, "shadow_differences").add(whole(differences));
    }
}

/// See [`MeterBook`].
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    pub(crate) num_inferences: Counter,
    pub(crate) failed_batches: Counter,
    batch_size: Distribution,
    batch_bytes: Distribution,
    latency: Distribution,
    model_bytes: Distribution,
    load_latency: Distribution,
    elements_size: Distribution,
    elements_time: Distribution,
    padded: Counter,
    padding: Counter,
    queue_wait: Distribution,
    element_latency: Distribution,
}

fn whole(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

impl Meters {
    fn new(metrics: &StepMetrics, namespace: &str, prefix: &str) -> Self {
        let counter = |name: &str| metrics.counter(namespace, &format!("{prefix}{name}"));
        let distribution = |name: &str| metrics.distribution(namespace, &format!("{prefix}{name}"));
        Meters {
            num_inferences: counter("num_inferences"),
            failed_batches: counter("failed_batches_counter"),
            batch_size: distribution("inference_request_batch_size"),
            batch_bytes: distribution("inference_request_batch_byte_size"),
            latency: distribution("inference_batch_latency_micro_secs"),
            model_bytes: distribution("model_byte_size"),
            load_latency: distribution("load_model_latency_milli_secs"),
            elements_size: metrics.distribution("BatchElements", "batch_size"),
            elements_time: metrics.distribution("BatchElements", "msec_per_batch"),
            padded: counter("padded_length"),
            padding: counter("padding_length"),
            queue_wait: distribution("queue_wait_micro_secs"),
            element_latency: distribution("element_latency_micro_secs"),
        }
    }

    fn called(&self, n: usize, bytes: u64, took: Duration) {
        self.batch_size.update(whole(n));
        self.batch_bytes.update(whole(bytes));
        self.latency.update(whole(took.as_micros()));
    }

    /// The share of the padding is `padding_length` of `padded_length`.
    pub(crate) fn was_padded(&self, lengths: Lengths) {
        self.padded.add(whole(lengths.padded));
        self.padding.add(whole(lengths.padding));
    }

    fn waited(&self, waits: &Waits) {
        self.queue_wait.merge(&waits.queue);
        self.element_latency.merge(&waits.whole);
    }

    pub(crate) fn loaded(&self, cost: LoadCost) {
        self.load_latency.update(whole(cost.took.as_millis()));
        self.model_bytes.update(whole(cost.bytes));
    }
}

/// Why an element has no prediction, and how many calls it was part of.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) error: Error,
    pub(crate) attempts: u32,
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Verdict<P> {
    /// A prediction for every example.
    All(Vec<P>),
    /// A prediction or a refusal for every example.
    Each(Vec<Result<Answered<P>, Refusal>>),
    /// Nothing for anyone.
    Failed(Error),
}

impl<P> Verdict<P> {
    /// The predictions, if every example has one.
    pub(crate) fn predictions(&self) -> Option<Vec<&P>> {
        match self {
            Verdict::All(all) => Some(all.iter().collect()),
            Verdict::Each(each) => {
                each.iter().map(|one| one.as_ref().ok().map(|one| &one.inference)).collect()
            }
            Verdict::Failed(_) => None,
        }
    }

    /// Whether every example has a prediction.
    pub(crate) fn is_well(&self) -> bool {
        match self {
            Verdict::All(_) => true,
            Verdict::Each(each) => each.iter().all(Result::is_ok),
            Verdict::Failed(_) => false,
        }
    }
}

/// A model at hand, with all that a call of it needs.
pub(crate) struct Caller<'a, H: ModelHandler> {
    handler: &'a Arc<H>,
    models: &'a ModelSet<H>,
    cohort: usize,
    version: RefCell<Arc<SharedModel<H::Model>>>,
    args: &'a InferenceArgs,
    clock: &'a dyn Clock,
    meters: &'a MeterBook<H::Model>,
    named: Option<Arc<Meters>>,
    timeout: Option<Duration>,
    /// Another version is there than the one that began with the batch, which hangs.
    other: RefCell<Option<Arc<SharedModel<H::Model>>>>,
}

/// Runs a handler's code: a panic in it is an error.
pub(crate) fn guarded<H: ModelHandler, T>(
    handler: &H,
    n: usize,
    call: impl FnOnce() -> Result<T>,
) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let said = panic_text(&*panic);
        let message = format!("{} panicked on a batch of {n}: {said}", handler.name());
        Err(Error::new(ErrorKind::Panic, "TB0325", message))
    })
}

pub(crate) fn too_slow<H: ModelHandler>(handler: &H, n: usize, timeout: Duration) -> Error {
    let message = format!("{} did not come back from a batch of {n} within {timeout:?}", handler.name());
    Error::new(ErrorKind::Timeout, "TB0359", message)
        .with_help("the call is left behind and the model loaded anew; give it longer: `timeout`")
        .with_retryable(false)
}

pub(crate) fn wrong_count<H: ModelHandler>(handler: &H, seen: usize, n: usize) -> Error {
    let message = format!("{} gave {seen} predictions for a batch of {n} examples", handler.name());
    Error::new(ErrorKind::Inference, WRONG_COUNT, message)
        .with_help("run_inference returns exactly one prediction for each example, in their order")
        .with_retryable(false)
}

/// A batch that is taken apart.
struct Search<P> {
    /// Whether elements may be refused one by one; else the first that must be ends the search.
    isolate: bool,
    each: Vec<Result<Answered<P>, Refusal>>,
    /// The batch's size has not worked before: it may be too large rather than have a culprit. Asked once: the first time
    /// that a first half is well, the second one is tried as a whole too.
    may_be_size: bool,
}

impl<P> Search<P> {
    /// Notes what a call said after `attempts` calls; says whether every example has its prediction.
    ///
    /// # Errors
    /// The first refusal, where elements are not refused one by one.
    fn take(&mut self, predictions: Predictions<P>, attempts: u32) -> Result<bool> {
        if let Predictions::All(all) = predictions {
            self.each.extend(all.into_iter().map(|one| Ok(one.into())));
            return Ok(true);
        }
        let mut all_well = true;
        for verdict in predictions.into_each() {
            match verdict {
                Ok(prediction) => self.each.push(Ok(prediction)),
                Err(error) if self.isolate && error.kind() != ErrorKind::Cancelled => {
                    all_well = false;
                    self.each.push(Err(Refusal { error, attempts }));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all_well)
    }

    /// What became of the whole batch.
    fn verdict(self) -> Verdict<P> {
        Verdict::Each(self.each)
    }
}

impl<'a, H: ModelHandler> Caller<'a, H> {
    pub(crate) fn new<B: Before<H::Example>, A: Send + Sync + 'static>(
        step: &'a Step<H, B, A>,
        cohort: usize,
        version: Arc<SharedModel<H::Model>>,
        meters: &'a MeterBook<H::Model>,
    ) -> Self {
        meters.loaded(&version);
        Caller {
            handler: &step.handler,
            models: &step.models,
            cohort,
            named: meters.of(&version.tag),
            version: RefCell::new(version),
            args: &step.settings.args,
            clock: &*step.settings.clock,
            meters,
            timeout: step.settings.timeout,
            other: RefCell::new(None),
        }
    }

    /// The version that the batch has to begin anew with, if the one that it began with is gone.
    pub(crate) fn other_version(&self) -> Option<Arc<SharedModel<H::Model>>> {
        self.other.take()
    }

    fn memory(&self) -> Arc<ModelMemory> {
        self.version.borrow().memory.clone()
    }

    fn note_failure(&self) {
        self.meters.total.failed_batches.inc();
        if let Some(named) = &self.named {
            named.failed_batches.inc();
        }
    }

    /// A call hangs: the model is loaded anew.
    fn renew(&self) -> Result<()> {
        let hanging = self.version.borrow().clone();
        hanging.note_hanging();
        self.models.discard(self.cohort, &hanging);
        let new = self.models.acquire(self.cohort)?.cell.current();
        self.meters.loaded(&new);
        if new.tag != hanging.tag {
            *self.other.borrow_mut() = Some(new);
            return Err(Error::new(ErrorKind::Cancelled, "TB0326", "another version of the model came"));
        }
        *self.version.borrow_mut() = new;
        Ok(())
    }

    /// Runs a batch: in parts where the model is known not to hold it as a whole. One that is too large for the model is
    /// halved until it fits. With `isolate`, one that fails for another reason is halved until only the guilty are left
    /// without a prediction.
    pub(crate) fn run(&self, examples: &[H::Example], isolate: bool) -> Verdict<H::Inference> {
        let n = examples.len();
        let may_be_size = n > self.memory().works();
        let mut search = Search { isolate, each: Vec::new(), may_be_size };
        if n > self.memory().limit() {
            search.each.reserve_exact(n);
            return match self.in_parts(examples, 0, &mut search) {
                Ok(()) => search.verdict(),
                Err(error) => Verdict::Failed(error),
            };
        }
        let error = match self.call(examples) {
            Ok(Predictions::All(predictions)) => return Verdict::All(predictions),
            Ok(each) => {
                return match search.take(each, 1) {
                    Ok(all_well) => {
                        if !all_well {
                            self.note_failure();
                        }
                        search.verdict()
                    }
                    Err(error) => {
                        self.note_failure();
                        Verdict::Failed(error)
                    }
                };
            }
            Err(error) => error,
        };
        self.note_failure();
        let is_contract = error.code() == WRONG_COUNT;
        let is_outside = matches!(error.kind(), ErrorKind::Io | ErrorKind::Timeout);
        let is_worth_it =
            isolate || self.handler.lacks_memory(&error) || (may_be_size && !is_contract && !is_outside);
        if !is_worth_it {
            return Verdict::Failed(error);
        }
        search.each.reserve_exact(n);
        match self.resolve(examples, error.clone(), 1, &mut search) {
            Ok(()) => search.verdict(),
            // What the whole batch said; what a part of it said is the same in other words.
            Err(inner) if inner.kind() != ErrorKind::Cancelled => Verdict::Failed(error),
            Err(cancelled) => Verdict::Failed(cancelled),
        }
    }

    /// Exactly one prediction, or its refusal, for each of the examples.
    fn call(&self, examples: &[H::Example]) -> Result<Predictions<H::Inference>> {
        let n = examples.len();
        let started = self.clock.now();
        let version = self.version.borrow().clone();
        let called = match self.timeout {
            None => guarded(&**self.handler, n, || self.handler.predict(examples, version.next(), self.args)),
            Some(timeout) => {
                let (handler, args, owned) = (self.handler.clone(), self.args.clone(), examples.to_vec());
                let version = version.clone();
                let call = move || guarded(&*handler, n, || handler.predict(&owned, version.next(), &args));
                match within(timeout, call) {
                    Some(called) => called,
                    None => {
                        self.renew()?;
                        Err(too_slow(&**self.handler, n, timeout))
                    }
                }
            }
        };
        let took = self.clock.now().saturating_sub(started);
        let predictions = called?;
        if predictions.len() != n {
            return Err(wrong_count(&**self.handler, predictions.len(), n));
        }
        version.memory.worked(n);
        let (total, bytes) = (&self.meters.total, self.handler.num_bytes(examples));
        total.called(n, bytes, took);
        total.elements_size.update(whole(n));
        total.elements_time.update(whole(took.as_millis()));
        if let Some(named) = &self.named {
            named.called(n, bytes, took);
        }
        Ok(predictions)
    }

    /// The examples failed together, with `error`, in the last of `attempts` calls that they were part of.
    fn resolve(
        &self,
        examples: &[H::Example],
        error: Error,
        attempts: u32,
        search: &mut Search<H::Inference>,
    ) -> Result<()> {
        if error.kind() == ErrorKind::Cancelled {
            return Err(error);
        }
        if examples.len() == 1 {
            if !search.isolate {
                return Err(error);
            }
            search.each.push(Err(Refusal { error, attempts }));
            return Ok(());
        }
        if self.handler.lacks_memory(&error) {
            self.memory().lacked(examples.len());
            return self.in_parts(examples, attempts, search);
        }
        self.bisect(examples, true, attempts, search)
    }

    /// Runs examples in batches that the model holds, as far as that is known by then.
    fn in_parts(
        &self,
        examples: &[H::Example],
        mut attempts: u32,
        search: &mut Search<H::Inference>,
    ) -> Result<()> {
        let mut rest = examples;
        while !rest.is_empty() {
            let (part, later) = rest.split_at(self.memory().limit().min(rest.len()));
            match self.call(part) {
                Ok(predictions) => {
                    search.take(predictions, attempts + 1)?;
                }
                Err(error) if part.len() > 1 && self.handler.lacks_memory(&error) => {
                    self.memory().lacked(part.len());
                    attempts += 1;
                    continue;
                }
                Err(error) => self.resolve(part, error, attempts + 1, search)?,
            }
            rest = later;
        }
        Ok(())
    }

    /// Tries examples as a whole and says whether that went well; if not, each of them has its verdict all the same.
    fn attempt(
        &self,
        examples: &[H::Example],
        attempts: u32,
        search: &mut Search<H::Inference>,
    ) -> Result<bool> {
        if examples.len() > self.memory().limit() {
            self.in_parts(examples, attempts, search)?;
            return Ok(false);
        }
        match self.call(examples) {
            Ok(predictions) => search.take(predictions, attempts + 1),
            Err(error) => self.resolve(examples, error, attempts + 1, search).map(|()| false),
        }
    }

    /// At least two examples fail together: they were `tried`, or it follows from what was. Tries the halves; where the
    /// first half is well, the second one holds the guilty and is halved without being tried as a whole. That is at most
    /// 2·log2(n) + 1 calls for each guilty example.
    fn bisect(
        &self,
        examples: &[H::Example],
        tried: bool,
        attempts: u32,
        search: &mut Search<H::Inference>,
    ) -> Result<()> {
        let (left, right) = examples.split_at(examples.len() / 2);
        let left_is_well = self.attempt(left, attempts, search)?;
        if left_is_well && right.len() > 1 && !std::mem::take(&mut search.may_be_size) {
            return self.bisect(right, false, attempts, search);
        }
        let right_is_well = self.attempt(right, attempts, search)?;
        if tried && left_is_well && right_is_well {
            self.memory().suspect(examples.len(), attempts);
        }
        Ok(())
    }
}
