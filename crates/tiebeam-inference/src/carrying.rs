//! [`Carrying`]: a handler whose examples come with something that the model does not see, such as a file's name.

use std::marker::PhantomData;
use std::sync::Arc;

use tiebeam_core::Element;
use tiebeam_core::error::Result;

use crate::batching::{Batching, LengthFn};
use crate::handler::{InferenceArgs, ModelHandler, Predictions, as_the_inner_handler};

/// A handler of pairs: what is carried along, and the example that the model is asked about. Made by
/// [`ModelHandler::carrying`].
pub struct Carrying<H, T> {
    handler: H,
    carried: PhantomData<fn(T)>,
}

impl<H, T> Carrying<H, T> {
    pub(crate) fn new(handler: H) -> Self {
        Carrying { handler, carried: PhantomData }
    }
}

impl<H: ModelHandler, T: Element> ModelHandler for Carrying<H, T> {
    type Example = (T, H::Example);
    type Inference = H::Inference;
    type Model = H::Model;

    as_the_inner_handler!();

    fn run_inference(
        &self,
        batch: &[Self::Example],
        model: &Self::Model,
        args: &InferenceArgs,
    ) -> Result<Vec<Self::Inference>> {
        let examples: Vec<H::Example> = batch.iter().map(|(_, example)| example.clone()).collect();
        self.handler.run_inference(&examples, model, args)
    }

    fn predict(
        &self,
        batch: &[Self::Example],
        model: &Self::Model,
        args: &InferenceArgs,
    ) -> Result<Predictions<Self::Inference>> {
        let examples: Vec<H::Example> = batch.iter().map(|(_, example)| example.clone()).collect();
        self.handler.predict(&examples, model, args)
    }

    fn batching(&self) -> Batching {
        self.handler.batching()
    }

    fn check_example(&self, (_, example): &Self::Example, model: &Self::Model) -> Result<()> {
        self.handler.check_example(example, model)
    }

    fn cohort_of(&self, (_, example): &Self::Example) -> Result<usize> {
        self.handler.cohort_of(example)
    }

    fn element_size(&self, (_, example): &Self::Example) -> u64 {
        self.handler.element_size(example)
    }

    fn length_fn(&self) -> Option<LengthFn<Self::Example>> {
        let length = self.handler.length_fn()?;
        Some(Arc::new(move |(_, example)| length(example)))
    }

    fn copies(&self) -> usize {
        self.handler.copies()
    }
}
