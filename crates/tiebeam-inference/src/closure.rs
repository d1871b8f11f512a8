//! [`from_fn`]: the smallest handler, a function over batches.

use std::error::Error as StdError;
use std::marker::PhantomData;

use tiebeam_core::Element;
use tiebeam_core::error::{Error, Result};

use crate::handler::{InferenceArgs, ModelHandler, ModelInfo};

/// A handler whose model is a function: a batch in, exactly one answer for each example out. For rules, and for tests.
pub fn from_fn<E, P, X, F>(name: impl Into<String>, run: F) -> FnHandler<E, P, X, F>
where
    E: Element,
    P: Element,
    X: Into<Box<dyn StdError + Send + Sync>> + 'static,
    F: Fn(&[E]) -> Result<Vec<P>, X> + Send + Sync + 'static,
{
    FnHandler { name: name.into(), run, types: PhantomData }
}

/// Made by [`from_fn`].
pub struct FnHandler<E, P, X, F> {
    name: String,
    run: F,
    types: PhantomData<fn(E) -> Result<P, X>>,
}

impl<E, P, X, F> ModelHandler for FnHandler<E, P, X, F>
where
    E: Element,
    P: Element,
    X: Into<Box<dyn StdError + Send + Sync>> + 'static,
    F: Fn(&[E]) -> Result<Vec<P>, X> + Send + Sync + 'static,
{
    type Example = E;
    type Inference = P;
    type Model = ();

    fn load_model(&self) -> Result<()> {
        Ok(())
    }

    fn run_inference(&self, batch: &[E], (): &(), _: &InferenceArgs) -> Result<Vec<P>> {
        (self.run)(batch).map_err(Error::user)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn model_info(&self, (): &()) -> ModelInfo {
        ModelInfo { model_id: self.name.as_str().into(), ..ModelInfo::default() }
    }
}
