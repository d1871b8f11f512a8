//! [`RunInference`]: the transform.

use std::sync::Arc;

use tiebeam_core::error::{Error, ErrorKind};
use tiebeam_core::{Element, OutputTag};
use tiebeam_graph::{Arity, PCollection, PTransform, ParDo, Pipeline};

use crate::batching::Batching;
use crate::chain::{After, Before, Chain, DropExample, IntoChain, NoSteps, PredictionOf};
use crate::clock::{Clock, SystemClock};
use crate::dead_letter::{FailedInference, failed_inference_coder};
use crate::dofn::{FailedTag, RunInferenceDoFn, Settings, Step};
use crate::handler::{InferenceArgs, ModelHandler};
use crate::model::unique_identity;

/// Runs a model over a PCollection: exactly one result for each element, at the element's own time and in its own
/// windows, in the order of its bundle.
///
/// The model is loaded once in the process, before anything is read, and shared by all threads. Elements are gathered
/// into batches across threads, bundles and windows, as the handler's [`Batching`] says; an element of several windows
/// is asked about once.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// # use tiebeam_inference::{RunInference, from_fn};
/// let p = Pipeline::new();
/// let five_times = from_fn("five_times", |batch: &[i64]| Ok::<_, String>(batch.iter().map(|x| x * 5).collect()));
/// let results = p.apply(Create::of([20i64, 30, 40])).apply(RunInference::new(five_times));
/// let numbers = results.map(|result| result.inference);
/// ```
pub struct RunInference<H, B = NoSteps, A = NoSteps> {
    chain: Chain<H, B, A>,
    args: InferenceArgs,
    namespace: Option<String>,
    identity: Option<String>,
    clock: Arc<dyn Clock>,
}

/// RunInference whose failures are dead letters; made by [`RunInference::with_exception_handling`].
pub struct RescuedInference<H, B = NoSteps, A = NoSteps>(RunInference<H, B, A>);

/// What [`RescuedInference`] makes.
pub struct Inferred<O, I, P> {
    /// The results.
    pub results: PCollection<O>,
    /// The elements that failed before, in, or after the model, each with the reason.
    pub failed: PCollection<FailedInference<I, P>>,
}

impl<H: ModelHandler, B: Before<H::Example>, A: After<PredictionOf<H>>> RunInference<H, B, A> {
    /// Runs the model of `handler`, which may have preprocess and postprocess steps.
    pub fn new<C: IntoChain<Handler = H, Before = B, After = A>>(handler: C) -> Self {
        RunInference {
            chain: handler.into_chain(),
            args: InferenceArgs::none(),
            namespace: None,
            identity: None,
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// Gives the handler these arguments with every batch. A handler that can't use them refuses them when the pipeline
    /// is built.
    #[must_use]
    pub fn with_inference_args(mut self, args: InferenceArgs) -> Self {
        self.args = args;
        self
    }

    /// Counts under this namespace instead of the handler's own.
    #[must_use]
    pub fn with_metrics_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Steps of the same identifier (and the same kind of model) share one loaded model. Without one, and without the
    /// handler's own [`model_identity`](ModelHandler::model_identity), each step loads its own.
    #[must_use]
    pub fn with_model_identifier(mut self, identifier: impl Into<String>) -> Self {
        self.identity = Some(identifier.into());
        self
    }

    /// Takes the time for batching and latencies from `clock`; for tests that move it by hand.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sends elements that fail to an output of their own instead of ending the bundle. A failed batch is halved until
    /// only the guilty are left; their batch-mates are predicted.
    #[must_use]
    pub fn with_exception_handling(self) -> RescuedInference<H, B, A> {
        RescuedInference(self)
    }

    /// The step that all instances share. Every mistake in its settings is told to the pipeline.
    #[track_caller]
    pub(crate) fn into_step(
        self,
        pipeline: &Pipeline,
        failed: Option<FailedTag<B::In, H::Inference>>,
    ) -> Arc<Step<H, B, A>> {
        let RunInference { chain: Chain { handler, before, after }, args, namespace, identity, clock } = self;
        let batching = match handler.batching().validated(handler.length_fn().is_some()) {
            Ok(batching) => batching,
            Err(error) => {
                pipeline.fail(error);
                Batching::default()
            }
        };
        if let Err(error) = handler.validate_inference_args(&args) {
            pipeline.fail(error);
        }
        if handler.copies() == 0 {
            let message =
                format!("{} asks for 0 copies of its model; at least one is needed", handler.name());
            pipeline.fail(Error::new(ErrorKind::InvalidArgument, "TB0322", message));
        }
        let identity = match identity.or_else(|| handler.model_identity()) {
            Some(named) => format!("={named}").into(),
            None => unique_identity(),
        };
        let namespace = namespace.unwrap_or_else(|| handler.metrics_namespace());
        let settings = Settings { args, namespace, identity, batching, clock };
        let files = handler.model_files();
        let step = Arc::new(Step::new((handler, before, after), settings, failed));
        files.into_iter().for_each(|file| pipeline.add_file(file));
        let (loads, releases) = (step.clone(), step.clone());
        pipeline.add_check(move || loads.preflight());
        pipeline.add_cleanup(move |_| releases.release());
        step
    }
}

impl<H: ModelHandler, B: Before<H::Example>> RunInference<H, B, NoSteps> {
    /// Leaves the example out of the results.
    #[must_use]
    pub fn drop_example(self) -> RunInference<H, B, DropExample> {
        let RunInference { chain: Chain { handler, before, .. }, args, namespace, identity, clock } = self;
        RunInference {
            chain: Chain { handler, before, after: DropExample },
            args,
            namespace,
            identity,
            clock,
        }
    }
}

impl<H, B, A> PTransform<PCollection<B::In>> for RunInference<H, B, A>
where
    H: ModelHandler,
    B: Before<H::Example>,
    A: After<PredictionOf<H>>,
{
    type Output = PCollection<A::Out>;

    fn label(&self) -> String {
        "RunInference".to_owned()
    }

    #[track_caller]
    fn expand(self, input: PCollection<B::In>) -> PCollection<A::Out> {
        let step = self.into_step(input.pipeline(), None);
        let par_do = ParDo::new(RunInferenceDoFn::new(step)).with_arity(Arity::OneToOne);
        input.step("BeamML_RunInference").apply(par_do)
    }
}

impl<H, B, A> PTransform<PCollection<B::In>> for RescuedInference<H, B, A>
where
    H: ModelHandler,
    B: Before<H::Example>,
    A: After<PredictionOf<H>>,
{
    type Output = Inferred<A::Out, B::In, H::Inference>;

    fn label(&self) -> String {
        "RunInference".to_owned()
    }

    #[track_caller]
    fn expand(self, input: PCollection<B::In>) -> Self::Output {
        let tag = OutputTag::new("failed");
        let step = self.0.into_step(input.pipeline(), Some(tag.clone()));
        let coder = failed_inference_coder(input.coder(), H::Inference::coder());
        let par_do = ParDo::new(RunInferenceDoFn::new(step))
            .with_arity(Arity::OneToOne)
            .with_dead_letters(&tag, coder);
        let outputs = input.step("BeamML_RunInference").apply(par_do);
        Inferred { failed: outputs.get(&tag), results: outputs.main }
    }
}
