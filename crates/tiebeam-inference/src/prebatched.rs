//! [`Prebatched`]: elements that are batches already.

use tiebeam_core::error::{Error, ErrorKind, Result};

use crate::batching::Batching;
use crate::handler::{InferenceArgs, ModelHandler, Predictions, as_the_inner_handler};

/// A handler of lists: each is given to the model as it comes, as one batch, and its predictions are a list too. Made by
/// [`ModelHandler::no_batching`].
pub struct Prebatched<H> {
    handler: H,
}

impl<H> Prebatched<H> {
    pub(crate) fn new(handler: H) -> Self {
        Prebatched { handler }
    }
}

impl<H: ModelHandler> Prebatched<H> {
    /// Exactly one prediction for each example of a list, or nothing for it.
    fn list(&self, list: &[H::Example], model: &H::Model, args: &InferenceArgs) -> Result<Vec<H::Inference>> {
        if list.is_empty() {
            return Ok(Vec::new());
        }
        let predictions: Vec<H::Inference> = self.handler.predict(list, model, args)?.into_all()?;
        if predictions.len() == list.len() {
            return Ok(predictions);
        }
        let (name, seen) = (self.handler.name(), predictions.len());
        let message = format!("{name} gave {seen} predictions for a batch of {} examples", list.len());
        Err(Error::new(ErrorKind::Inference, "TB0324", message).with_retryable(false))
    }
}

impl<H: ModelHandler> ModelHandler for Prebatched<H> {
    type Example = Vec<H::Example>;
    type Inference = Vec<H::Inference>;
    type Model = H::Model;

    as_the_inner_handler!();

    fn run_inference(
        &self,
        batch: &[Self::Example],
        model: &Self::Model,
        args: &InferenceArgs,
    ) -> Result<Vec<Self::Inference>> {
        batch.iter().map(|list| self.list(list, model, args)).collect()
    }

    fn predict(
        &self,
        batch: &[Self::Example],
        model: &Self::Model,
        args: &InferenceArgs,
    ) -> Result<Predictions<Self::Inference>> {
        Ok(Predictions::Each(batch.iter().map(|list| self.list(list, model, args)).collect()))
    }

    fn batching(&self) -> Batching {
        Batching::fixed(1)
    }

    fn check_example(&self, list: &Self::Example, model: &Self::Model) -> Result<()> {
        list.iter().try_for_each(|example| self.handler.check_example(example, model))
    }

    fn element_size(&self, list: &Self::Example) -> u64 {
        list.iter().map(|example| self.handler.element_size(example)).sum()
    }

    fn copies(&self) -> usize {
        self.handler.copies()
    }
}
