//! What is done to elements before and after a model: [`Chain`], a handler with its preprocess and postprocess steps.

use std::cell::Cell;
use std::error::Error as StdError;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tiebeam_core::Element;
use tiebeam_core::error::{Error, ErrorKind, Result};

use crate::batching::Batching;
use crate::dead_letter::Stage;
use crate::handler::ModelHandler;
use crate::model::panic_text;
use crate::prediction::PredictionResult;
use crate::tuned::Tuned;

/// A step that refused an element: which one of its stage, and why.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) stage: Stage,
    pub(crate) index: usize,
    pub(crate) error: Error,
}

impl Fault {
    /// The name of the step, as in Beam's labels.
    pub(crate) fn label(&self) -> String {
        match self.stage {
            Stage::Inference => "BeamML_RunInference".to_owned(),
            Stage::Preprocess => format!("BeamML_RunInference_Preprocess-{}", self.index),
            Stage::Postprocess => format!("BeamML_RunInference_Postprocess-{}", self.index),
        }
    }

    /// The error, saying which step it comes from. `step` is the full path of the model's own step, beside which the
    /// others stand.
    pub(crate) fn into_error(self, step: &str) -> Error {
        let path = match (self.stage, step.rsplit_once('/')) {
            (Stage::Inference, _) => step.to_owned(),
            (_, Some((parent, _))) => format!("{parent}/{}", self.label()),
            (_, None) => self.label(),
        };
        self.error.at_step(&path)
    }
}

/// The preprocess steps of a chain, composed. Implemented by this crate alone.
pub trait Before<E: Element>: Send + Sync + 'static {
    /// What the first step takes.
    type In: Element;

    /// All steps on one element; `at` tells how far it came, `index` is the number of the first.
    #[doc(hidden)]
    fn run(&self, input: Self::In, at: &Cell<usize>, index: usize) -> Result<E>;

    /// The inputs as they are, for the case that there are no steps.
    #[doc(hidden)]
    fn untouched(inputs: Vec<Self::In>) -> Result<Vec<E>, Vec<Self::In>>;

    /// The element that an example was made from: the one that was kept, or, without steps, the example.
    #[doc(hidden)]
    fn origin(kept: Option<Self::In>, example: E) -> Option<Self::In>;
}

/// The postprocess steps of a chain, composed. Implemented by this crate alone.
pub trait After<R>: Send + Sync + 'static {
    /// What the last step gives.
    type Out: Element;
    /// The number of steps that may refuse what they get, so that more has to be remembered.
    const STEPS: usize;

    /// All steps on one result; `at` tells how far it came.
    #[doc(hidden)]
    fn run(&self, result: R, at: &Cell<usize>) -> Result<Self::Out>;
}

/// No steps.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSteps;

impl<E: Element> Before<E> for NoSteps {
    type In = E;

    #[inline]
    fn run(&self, input: E, _: &Cell<usize>, _: usize) -> Result<E> {
        Ok(input)
    }

    fn untouched(inputs: Vec<E>) -> Result<Vec<E>, Vec<E>> {
        Ok(inputs)
    }

    fn origin(_: Option<E>, example: E) -> Option<E> {
        Some(example)
    }
}

impl<R: Element> After<R> for NoSteps {
    type Out = R;
    const STEPS: usize = 0;

    #[inline]
    fn run(&self, result: R, _: &Cell<usize>) -> Result<R> {
        Ok(result)
    }
}

/// A step put before the steps there are.
pub struct First<F, B, I> {
    step: F,
    rest: B,
    input: PhantomData<fn(I)>,
}

impl<E, B, F, I> Before<E> for First<F, B, I>
where
    E: Element,
    B: Before<E>,
    I: Element,
    F: Fn(I) -> Result<B::In> + Send + Sync + 'static,
{
    type In = I;

    #[inline]
    fn run(&self, input: I, at: &Cell<usize>, index: usize) -> Result<E> {
        at.set(index);
        let next = (self.step)(input)?;
        self.rest.run(next, at, index + 1)
    }

    fn untouched(inputs: Vec<I>) -> Result<Vec<E>, Vec<I>> {
        Err(inputs)
    }

    fn origin(kept: Option<I>, _: E) -> Option<I> {
        kept
    }
}

/// A step put after the steps there are.
pub struct Then<A, F, U> {
    rest: A,
    step: F,
    output: PhantomData<fn() -> U>,
}

impl<R, A, F, U> After<R> for Then<A, F, U>
where
    A: After<R>,
    U: Element,
    F: Fn(A::Out) -> Result<U> + Send + Sync + 'static,
{
    type Out = U;
    const STEPS: usize = A::STEPS + 1;

    #[inline]
    fn run(&self, result: R, at: &Cell<usize>) -> Result<U> {
        let result = self.rest.run(result, at)?;
        at.set(A::STEPS);
        (self.step)(result)
    }
}

/// Leaves the example out of results.
#[derive(Debug, Clone, Copy)]
pub struct DropExample;

impl<E: Element, P: Element> After<PredictionResult<E, P>> for DropExample {
    type Out = PredictionResult<(), P>;
    const STEPS: usize = 0;

    #[inline]
    fn run(&self, result: PredictionResult<E, P>, _: &Cell<usize>) -> Result<Self::Out> {
        Ok(PredictionResult { example: (), inference: result.inference, model_id: result.model_id })
    }
}

/// Runs a step's closure so that a panic is an error of that element; only where elements are rescued one by one.
pub(crate) fn rescued<T>(
    stage: Stage,
    at: &Cell<usize>,
    run: impl FnOnce() -> Result<T>,
) -> Result<T, Fault> {
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        Err(Error::new(ErrorKind::Panic, "TB0327", format!("panicked: {}", panic_text(&*panic))))
    });
    outcome.map_err(|error| Fault { stage, index: at.get(), error })
}

/// A model handler with steps before and after it; what [`RunInference::new`](crate::RunInference::new) takes.
///
/// The last preprocess step that was applied runs first; postprocess steps run in order. They run element by element,
/// before batching and after it.
pub struct Chain<H, B, A> {
    pub(crate) handler: H,
    pub(crate) before: B,
    pub(crate) after: A,
}

/// A handler, or a handler with steps.
pub trait IntoChain {
    /// The handler.
    type Handler: ModelHandler;
    /// The steps before it.
    type Before: Before<<Self::Handler as ModelHandler>::Example>;
    /// The steps after it.
    type After: After<PredictionOf<Self::Handler>>;

    /// As a chain.
    fn into_chain(self) -> Chain<Self::Handler, Self::Before, Self::After>;
}

/// What a handler's predictions are.
pub type PredictionOf<H> = PredictionResult<<H as ModelHandler>::Example, <H as ModelHandler>::Inference>;

impl<H: ModelHandler> IntoChain for H {
    type Handler = H;
    type Before = NoSteps;
    type After = NoSteps;

    fn into_chain(self) -> Chain<H, NoSteps, NoSteps> {
        Chain { handler: self, before: NoSteps, after: NoSteps }
    }
}

impl<H: ModelHandler, B: Before<H::Example>, A: After<PredictionOf<H>>> IntoChain for Chain<H, B, A> {
    type Handler = H;
    type Before = B;
    type After = A;

    fn into_chain(self) -> Self {
        self
    }
}

impl<H: ModelHandler, B: Before<H::Example>, A: After<PredictionOf<H>>> Chain<H, B, A> {
    /// Runs `step` on each element before all steps there are.
    pub fn preprocess<I: Element>(
        self,
        step: impl Fn(I) -> B::In + Send + Sync + 'static,
    ) -> Chain<H, impl Before<H::Example, In = I>, A> {
        self.first(move |input| Ok(step(input)))
    }

    /// Runs a `step` that may refuse an element before all steps there are.
    pub fn try_preprocess<I: Element, X: Into<Box<dyn StdError + Send + Sync>>>(
        self,
        step: impl Fn(I) -> Result<B::In, X> + Send + Sync + 'static,
    ) -> Chain<H, impl Before<H::Example, In = I>, A> {
        self.first(move |input| step(input).map_err(Error::user))
    }

    /// Runs `step` on each result after all steps there are.
    pub fn postprocess<U: Element>(
        self,
        step: impl Fn(A::Out) -> U + Send + Sync + 'static,
    ) -> Chain<H, B, impl After<PredictionOf<H>, Out = U>> {
        self.then(move |result| Ok(step(result)))
    }

    /// Runs a `step` that may refuse a result after all steps there are.
    pub fn try_postprocess<U: Element, X: Into<Box<dyn StdError + Send + Sync>>>(
        self,
        step: impl Fn(A::Out) -> Result<U, X> + Send + Sync + 'static,
    ) -> Chain<H, B, impl After<PredictionOf<H>, Out = U>> {
        self.then(move |result| step(result).map_err(Error::user))
    }

    fn first<I: Element, F: Fn(I) -> Result<B::In> + Send + Sync + 'static>(
        self,
        step: F,
    ) -> Chain<H, First<F, B, I>, A> {
        let before = First { step, rest: self.before, input: PhantomData };
        Chain { handler: self.handler, before, after: self.after }
    }

    fn then<U: Element, F: Fn(A::Out) -> Result<U> + Send + Sync + 'static>(
        self,
        step: F,
    ) -> Chain<H, B, Then<A, F, U>> {
        let after = Then { rest: self.after, step, output: PhantomData };
        Chain { handler: self.handler, before: self.before, after }
    }

    /// As [`ModelHandler::max_batch_size`].
    pub fn max_batch_size(self, size: usize) -> Chain<Tuned<H>, B, A> {
        Chain { handler: self.handler.max_batch_size(size), before: self.before, after: self.after }
    }

    /// As [`ModelHandler::with_batching`].
    pub fn with_batching(self, batching: Batching) -> Chain<Tuned<H>, B, A> {
        Chain { handler: self.handler.with_batching(batching), before: self.before, after: self.after }
    }

    /// As [`ModelHandler::model_copies`].
    pub fn model_copies(self, copies: usize) -> Chain<Tuned<H>, B, A> {
        Chain { handler: self.handler.model_copies(copies), before: self.before, after: self.after }
    }
}
