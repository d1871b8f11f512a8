//! [`Tuned`]: a handler with other settings than its own.

use std::sync::Arc;

use tiebeam_core::error::Result;

use crate::batching::{Batching, LengthFn};
use crate::env_vars::{self, EnvVars};
use crate::handler::{InferenceArgs, ModelHandler, Predictions, as_the_inner_handler};
use crate::isolation::Places;
use crate::update::ModelMetadata;

type SizeFn<E> = Arc<dyn Fn(&E) -> u64 + Send + Sync>;

/// A handler of which some settings were changed; made by [`ModelHandler::max_batch_size`] and its like.
pub struct Tuned<H: ModelHandler> {
    handler: H,
    batching: Batching,
    copies: usize,
    length: Option<LengthFn<H::Example>>,
    size: Option<SizeFn<H::Example>>,
    env_vars: EnvVars,
}

impl<H: ModelHandler> Tuned<H> {
    pub(crate) fn new(handler: H) -> Self {
        let (batching, copies) = (handler.batching(), handler.copies());
        Tuned { handler, batching, copies, length: None, size: None, env_vars: Vec::new() }
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

    fn set_variables(&self) -> Result<()> {
        // A model with a process of its own has them there.
        if self.handler.keeps_time() { Ok(()) } else { env_vars::set(&self.env_vars) }
    }

    pub(crate) fn set_env_vars(mut self, variables: EnvVars) -> Self {
        self.env_vars = variables;
        self
    }
}

impl<H: ModelHandler> ModelHandler for Tuned<H> {
    type Example = H::Example;
    type Inference = H::Inference;
    type Model = H::Model;

    as_the_inner_handler!(but for loads and places);

    fn load_model(&self) -> Result<H::Model> {
        self.set_variables()?;
        self.handler.load_model()
    }

    fn load_version(&self, version: &ModelMetadata) -> Result<H::Model> {
        self.set_variables()?;
        self.handler.load_version(version)
    }

    fn load_cohort(&self, cohort: usize, version: Option<&ModelMetadata>) -> Result<H::Model> {
        self.set_variables()?;
        self.handler.load_cohort(cohort, version)
    }

    fn place(&self, places: &mut Places<'_>) {
        places.within(&self.env_vars, |places| self.handler.place(places));
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

    fn cohort_of(&self, example: &Self::Example) -> Result<usize> {
        self.handler.cohort_of(example)
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
}
