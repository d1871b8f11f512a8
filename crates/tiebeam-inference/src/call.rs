//! One call of a model: the contract of one prediction per example, panics, metrics; and who is to blame when it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tiebeam_core::dofn::SetupContext;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::metrics::{Counter, Distribution};

use crate::brain::Lengths;
use crate::clock::Clock;
use crate::handler::{InferenceArgs, ModelHandler, Predictions};
use crate::model::{LoadCost, SharedModel, panic_text};

/// The code of a model that gave fewer or more predictions than it was given examples.
const WRONG_COUNT: &str = "TB0324";

/// The metrics of one step, under Beam's names.
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
}

fn whole(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

impl Meters {
    pub(crate) fn new(cx: &SetupContext, namespace: &str) -> Self {
        Meters {
            num_inferences: cx.counter(namespace, "num_inferences"),
            failed_batches: cx.counter(namespace, "failed_batches_counter"),
            batch_size: cx.distribution(namespace, "inference_request_batch_size"),
            batch_bytes: cx.distribution(namespace, "inference_request_batch_byte_size"),
            latency: cx.distribution(namespace, "inference_batch_latency_micro_secs"),
            model_bytes: cx.distribution(namespace, "model_byte_size"),
            load_latency: cx.distribution(namespace, "load_model_latency_milli_secs"),
            elements_size: cx.distribution("BatchElements", "batch_size"),
            elements_time: cx.distribution("BatchElements", "msec_per_batch"),
            padded: cx.counter(namespace, "padded_length"),
            padding: cx.counter(namespace, "padding_length"),
        }
    }

    /// The share of the padding is `padding_length` of `padded_length`.
    pub(crate) fn was_padded(&self, lengths: Lengths) {
        self.padded.add(whole(lengths.padded));
        self.padding.add(whole(lengths.padding));
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
    Each(Vec<Result<P, Refusal>>),
    /// Nothing for anyone.
    Failed(Error),
}

/// A model at hand, with all that a call of it needs.
pub(crate) struct Caller<'a, H: ModelHandler> {
    pub(crate) handler: &'a H,
    pub(crate) model: &'a SharedModel<H::Model>,
    pub(crate) args: &'a InferenceArgs,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) meters: &'a Meters,
}

/// A batch that is taken apart.
struct Search<P> {
    /// Whether elements may be refused one by one; else the first that must be ends the search.
    isolate: bool,
    each: Vec<Result<P, Refusal>>,
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
        let each = match predictions {
            Predictions::All(all) => {
                self.each.extend(all.into_iter().map(Ok));
                return Ok(true);
            }
            Predictions::Each(each) => each,
        };
        let mut all_well = true;
        for verdict in each {
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

impl<H: ModelHandler> Caller<'_, H> {
    /// Runs a batch: in parts where the model is known not to hold it as a whole. One that is too large for the model is
    /// halved until it fits. With `isolate`, one that fails for another reason is halved until only the guilty are left
    /// without a prediction.
    pub(crate) fn run(&self, examples: &[H::Example], isolate: bool) -> Verdict<H::Inference> {
        let n = examples.len();
        let may_be_size = n > self.model.memory.works();
        let mut search = Search { isolate, each: Vec::new(), may_be_size };
        if n > self.model.memory.limit() {
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
                            self.meters.failed_batches.inc();
                        }
                        search.verdict()
                    }
                    Err(error) => {
                        self.meters.failed_batches.inc();
                        Verdict::Failed(error)
                    }
                };
            }
            Err(error) => error,
        };
        self.meters.failed_batches.inc();
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
        let started = self.clock.now();
        let called =
            catch_unwind(AssertUnwindSafe(|| self.handler.predict(examples, self.model.next(), self.args)));
        let took = self.clock.now().saturating_sub(started);
        let (name, n) = (|| self.handler.name(), examples.len());
        let predictions = called.unwrap_or_else(|panic| {
            let said = panic_text(&*panic);
            let message = format!("{} panicked on a batch of {n}: {said}", name());
            Err(Error::new(ErrorKind::Panic, "TB0325", message))
        })?;
        if predictions.len() != n {
            let message =
                format!("{} gave {} predictions for a batch of {n} examples", name(), predictions.len());
            return Err(Error::new(ErrorKind::Inference, WRONG_COUNT, message)
                .with_help("run_inference returns exactly one prediction for each example, in their order")
                .with_retryable(false));
        }
        self.model.memory.worked(n);
        self.meters.batch_size.update(whole(n));
        self.meters.batch_bytes.update(whole(self.handler.num_bytes(examples)));
        self.meters.latency.update(whole(took.as_micros()));
        self.meters.elements_size.update(whole(n));
        self.meters.elements_time.update(whole(took.as_millis()));
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
            self.model.memory.lacked(examples.len());
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
            let (part, later) = rest.split_at(self.model.memory.limit().min(rest.len()));
            match self.call(part) {
                Ok(predictions) => {
                    search.take(predictions, attempts + 1)?;
                }
                Err(error) if part.len() > 1 && self.handler.lacks_memory(&error) => {
                    self.model.memory.lacked(part.len());
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
        if examples.len() > self.model.memory.limit() {
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
            self.model.memory.suspect(examples.len(), attempts);
        }
        Ok(())
    }
}
