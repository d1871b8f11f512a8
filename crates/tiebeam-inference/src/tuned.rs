//! [`Tuned`]: a handler with other settings than its own.

use std::path::PathBuf;
use std::sync::Arc;

use tiebeam_core::error::{Error, Result};

use crate::batching::{Batching, LengthFn};
use crate::handler::{InferenceArgs, ModelHandler, ModelInfo, Predictions};

type SizeFn<E> = Arc<dyn Fn(&E) -> u64 + Send + Sync>;

/// A handler of which some settings were changed; made by [`ModelHandler::max_batch_size`] and its like.
pub struct Tuned<H: ModelHandler> {
    handler: H,
    batching: Batching,
    copies: usize,
    length: Option<LengthFn<H::Example>>,
    size: Option<SizeFn<H::Example>>,
}

impl<H: ModelHandler> Tuned<H> {
    pub(crate) fn new(handler: H) -> Self {
        let (batching, copies) = (handler.batching(), handler.copies());
        Tuned { handler, batching, copies, length: None, size: None }
    }

    pub(crate) fn set_batching(mut self, change: impl FnOnce(&mut Batching)) -> Self {
        change(&mut self.batching);
        self
    }

    pub(crate) fn set_copies(mut self, copies: usize) -> Self {
        self.copies = copies;
        self
    }

    pub(crate) fn set_length(mut self, length: LengthFn<H::Example>) -> Self {
        self.length = Some(length);
        self
    }

    pub(crate) fn set_size(mut self, size: SizeFn<H::Example>) -> Self {
        self.size = Some(size);
        self
    }
}

impl<H: ModelHandler> ModelHandler for Tuned<H> {
    type Example = H::Example;
    type Inference = H::Inference;
    type Model = H::Model;

    fn load_model(&self) -> Result<Self::Model> {
        self.handler.load_model()
    }

    fn run_inference(
        &self,
        batch: &[Self::Example],
        model: &Self::Model,
        args: &InferenceArgs,
    ) -> Result<Vec<Self::Inference>> {
        self.handler.run_inference(batch, model, args)
    }

    fn predict(
        &self,
        batch: &[Self::Example],
        model: &Self::Model,
        args: &InferenceArgs,
    ) -> Result<Predictions<Self::Inference>> {
        self.handler.predict(batch, model, args)
    }

    fn batching(&self) -> Batching {
        self.batching.clone()
    }

    fn check_example(&self, example: &Self::Example, model: &Self::Model) -> Result<()> {
        self.handler.check_example(example, model)
    }

    fn element_size(&self, example: &Self::Example) -> u64 {
        match &self.size {
            Some(size) => size(example),
            None => self.handler.element_size(example),
        }
    }

    fn length_fn(&self) -> Option<LengthFn<Self::Example>> {
        self.length.clone().or_else(|| self.handler.length_fn())
    }

    fn copies(&self) -> usize {
        self.copies
    }

    fn num_bytes(&self, batch: &[Self::Example]) -> u64 {
        self.handler.num_bytes(batch)
    }

    fn metrics_namespace(&self) -> String {
        self.handler.metrics_namespace()
    }

    fn name(&self) -> String {
        self.handler.name()
    }

    fn model_info(&self, model: &Self::Model) -> ModelInfo {
        self.handler.model_info(model)
    }

    fn lacks_memory(&self, error: &Error) -> bool {
        self.handler.lacks_memory(error)
    }

    fn validate_inference_args(&self, args: &InferenceArgs) -> Result<()> {
        self.handler.validate_inference_args(args)
    }

    fn model_identity(&self) -> Option<String> {
        self.handler.model_identity()
    }

    fn model_files(&self) -> Vec<PathBuf> {
        self.handler.model_files()
    }
}
