//! One call of a model: the contract of one prediction per example, panics, metrics; and who is to blame when it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tiebeam_core::dofn::SetupContext;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::metrics::{Counter, Distribution};

use crate::clock::Clock;
use crate::handler::{InferenceArgs, ModelHandler};
use crate::model::{LoadCost, SharedModel, panic_text};

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
        }
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

impl<H: ModelHandler> Caller<'_, H> {
    /// Runs a batch. With `isolate`, a failed one is halved until only the guilty are left without a prediction.
    pub(crate) fn run(&self, examples: &[H::Example], isolate: bool) -> Verdict<H::Inference> {
        match self.call(examples) {
            Ok(predictions) => Verdict::All(predictions),
            Err(error) => {
                self.meters.failed_batches.inc();
                if !isolate || error.kind() == ErrorKind::Cancelled {
                    return Verdict::Failed(error);
                }
                let mut each = Vec::with_capacity(examples.len());
                self.bisect(examples, Some(error), 1, &mut each);
                Verdict::Each(each)
            }
        }
    }

    /// Exactly one prediction for each of the examples.
    fn call(&self, examples: &[H::Example]) -> Result<Vec<H::Inference>> {
        let started = self.clock.now();
        let called = catch_unwind(AssertUnwindSafe(|| {
            self.handler.run_inference(examples, self.model.next(), self.args)
        }));
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
            return Err(Error::new(ErrorKind::Inference, "TB0324", message)
                .with_help("run_inference returns exactly one prediction for each example, in their order")
                .with_retryable(false));
        }
        self.meters.batch_size.update(whole(n));
        self.meters.batch_bytes.update(whole(self.handler.num_bytes(examples)));
        self.meters.latency.update(whole(took.as_micros()));
        self.meters.elements_size.update(whole(n));
        self.meters.elements_time.update(whole(took.as_millis()));
        Ok(predictions)
    }

    /// The examples are known to fail together, with `error` if they were tried as they are. Tries the halves; where
    /// the first half is well, the second one holds the guilty and is halved without being tried as a whole. That is at
    /// most 2·log2(n) + 1 calls for each guilty example.
    fn bisect(
        &self,
        examples: &[H::Example],
        error: Option<Error>,
        attempts: u32,
        each: &mut Vec<Result<H::Inference, Refusal>>,
    ) {
        if let ([_], Some(error)) = (examples, &error) {
            each.push(Err(Refusal { error: error.clone(), attempts }));
            return;
        }
        let (left, right) = examples.split_at(examples.len() / 2);
        let mut left_is_well = true;
        if !left.is_empty() {
            match self.call(left) {
                Ok(predictions) => each.extend(predictions.into_iter().map(Ok)),
                Err(error) => {
                    left_is_well = false;
                    self.bisect(left, Some(error), attempts + 1, each);
                }
            }
        }
        if left_is_well && right.len() > 1 {
            self.bisect(right, None, attempts, each);
            return;
        }
        match self.call(right) {
            Ok(predictions) => each.extend(predictions.into_iter().map(Ok)),
            Err(error) => self.bisect(right, Some(error), attempts + 1, each),
        }
    }
}
