//! Tests of what the crate keeps to itself; the ones through whole pipelines stand in `tests/`.

mod batcher;
mod cost;
mod dofn;
mod failures;
mod latency;
mod model;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tiebeam_core::error::{Error, Result};
use tiebeam_core::metrics::{MetricCells, MetricValue};
use tiebeam_core::side_input::NoSideInputs;
use tiebeam_core::{
    Batch, BundleContext, DoFn, Element, Output, OutputTag, Receiver, RunId, SetupContext, WindowInfo,
};
use tiebeam_graph::Pipeline;

use crate::chain::{After, Before, PredictionOf};
use crate::clock::Clock;
use crate::dead_letter::FailedInference;
use crate::dofn::RunInferenceDoFn;
use crate::handler::{InferenceArgs, ModelHandler, ModelInfo};
use crate::step::Tags;
use crate::transform::RunInference;

/// A clock that only moves when it is told to.
#[derive(Debug, Default)]
struct FakeClock(AtomicU64);

impl FakeClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as u64, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst))
    }
}

type Kept<T> = Arc<Mutex<Vec<(T, WindowInfo)>>>;

struct Keep<T>(Kept<T>);

impl<T: Send + Clone> Receiver<T> for Keep<T> {
    fn receive(&mut self, batch: Batch<T>) -> Result<()> {
        assert!(!batch.is_empty());
        self.0.lock().unwrap().extend(batch.iter().map(|(value, info)| (value.clone(), info.clone())));
        Ok(())
    }
}

/// One instance of a step, driven by hand as a runner would.
struct Instance<H: ModelHandler, B: Before<H::Example>, A: After<PredictionOf<H>>> {
    dofn: RunInferenceDoFn<H, B, A>,
    out: Output<A::Out>,
    results: Kept<A::Out>,
    failed: Kept<FailedInference<B::In, H::Inference>>,
    cells: MetricCells,
}

/// A step of which instances can be made.
struct Bench<H: ModelHandler, B: Before<H::Example>, A: After<PredictionOf<H>>> {
    dofn: RunInferenceDoFn<H, B, A>,
    tag: Option<OutputTag<FailedInference<B::In, H::Inference>>>,
    cells: MetricCells,
}

impl<H: ModelHandler, B: Before<H::Example>, A: After<PredictionOf<H>>> Bench<H, B, A> {
    fn new(transform: RunInference<H, B, A>) -> Self {
        let step = transform.into_step(&Pipeline::new(), Tags::default());
        Bench { dofn: RunInferenceDoFn::new(step), tag: None, cells: MetricCells::default() }
    }

    fn rescued(transform: RunInference<H, B, A>) -> Self {
        let tag = OutputTag::new("failed");
        let step = transform.into_step(&Pipeline::new(), Tags { failed: Some(tag.clone()), monitored: None });
        Bench { dofn: RunInferenceDoFn::new(step), tag: Some(tag), cells: MetricCells::default() }
    }

    fn instance(&self) -> Instance<H, B, A> {
        let (results, failed) = (Kept::default(), Kept::default());
        let mut out = Output::new(Box::new(Keep(results.clone())));
        if let Some(tag) = &self.tag {
            out.add_tagged(tag, Box::new(Keep(failed.clone())));
        }
        Instance { dofn: self.dofn.clone(), out, results, failed, cells: self.cells.clone() }
    }

    fn counter(&self, name: &str) -> i64 {
        let drained = self.cells.drain();
        drained
            .iter()
            .find_map(|(key, value)| match value {
                MetricValue::Counter(n) if &*key.name == name => Some(*n),
                _ => None,
            })
            .unwrap_or(0)
    }
}

impl<H: ModelHandler, B: Before<H::Example>, A: After<PredictionOf<H>>> Instance<H, B, A> {
    fn setup(&mut self) -> Result<()> {
        let step = "Outer/RunInference/BeamML_RunInference";
        self.dofn.setup(&SetupContext::new(step, RunId::new(), self.cells.of_step(step)))
    }

    fn bundle(&mut self, batches: impl IntoIterator<Item = Batch<B::In>>) -> Result<()> {
        let cx = BundleContext::new(&NoSideInputs, &|| false);
        self.dofn.start_bundle(&cx, &mut self.out)?;
        for batch in batches {
            self.dofn.process_batch(batch, &cx, &mut self.out)?;
        }
        self.dofn.finish_bundle(&cx, &mut self.out)?;
        self.out.flush()
    }

    fn results(&self) -> Vec<A::Out> {
        self.results.lock().unwrap().iter().map(|(value, _)| value.clone()).collect()
    }

    fn letters(&self) -> Vec<FailedInference<B::In, H::Inference>> {
        self.failed.lock().unwrap().iter().map(|(value, _)| value.clone()).collect()
    }
}

fn global<T>(values: impl IntoIterator<Item = T>) -> Batch<T> {
    Batch::uniform(values.into_iter().collect(), WindowInfo::GLOBAL)
}

/// All of `inputs` as one bundle through `transform`; what came out.
fn run<H, B, A>(
    transform: RunInference<H, B, A>,
    inputs: impl IntoIterator<Item = B::In>,
) -> Result<Vec<A::Out>>
where
    H: ModelHandler,
    B: Before<H::Example>,
    A: After<PredictionOf<H>>,
{
    let mut instance = Bench::new(transform).instance();
    instance.setup()?;
    instance.bundle([global(inputs)])?;
    Ok(instance.results())
}

/// A handler whose every part can be told from outside.
struct Fake<E, P> {
    loads: Arc<AtomicUsize>,
    /// The sizes of the batches it was called with.
    calls: Arc<Mutex<Vec<usize>>>,
    answer: Box<dyn Fn(&[E]) -> Result<Vec<P>> + Send + Sync>,
    check: Box<dyn Fn(&E) -> Result<()> + Send + Sync>,
    load: Box<dyn Fn() -> Result<()> + Send + Sync>,
    info: ModelInfo,
}

impl<E: Element, P: Element> Fake<E, P> {
    fn new(answer: impl Fn(&[E]) -> Result<Vec<P>> + Send + Sync + 'static) -> Self {
        Fake {
            loads: Arc::default(),
            calls: Arc::default(),
            answer: Box::new(answer),
            check: Box::new(|_| Ok(())),
            load: Box::new(|| Ok(())),
            info: ModelInfo { model_id: "fake".into(), ..ModelInfo::default() },
        }
    }

    fn with_check(mut self, check: impl Fn(&E) -> Result<()> + Send + Sync + 'static) -> Self {
        self.check = Box::new(check);
        self
    }

    fn with_load(mut self, load: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        self.load = Box::new(load);
        self
    }
}

/// `x + 1`.
fn plus_one() -> Fake<i64, i64> {
    Fake::new(|batch| Ok(batch.iter().map(|x| x + 1).collect()))
}

impl<E: Element, P: Element> ModelHandler for Fake<E, P> {
    type Example = E;
    type Inference = P;
    type Model = AtomicUsize;

    fn load_model(&self) -> Result<AtomicUsize> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        (self.load)()?;
        Ok(AtomicUsize::new(0))
    }

    fn run_inference(&self, batch: &[E], model: &AtomicUsize, _: &InferenceArgs) -> Result<Vec<P>> {
        assert!(!batch.is_empty(), "a model is never called with nothing");
        model.fetch_add(1, Ordering::SeqCst);
        self.calls.lock().unwrap().push(batch.len());
        (self.answer)(batch)
    }

    fn check_example(&self, example: &E, _: &AtomicUsize) -> Result<()> {
        (self.check)(example)
    }

    fn name(&self) -> String {
        "Fake".to_owned()
    }

    fn model_info(&self, _: &AtomicUsize) -> ModelInfo {
        self.info.clone()
    }
}

/// A model that counts the examples it has seen: each prediction is the count so far.
struct Counting;

impl ModelHandler for Counting {
    type Example = i64;
    type Inference = i64;
    type Model = AtomicUsize;

    fn load_model(&self) -> Result<AtomicUsize> {
        Ok(AtomicUsize::new(0))
    }

    fn run_inference(&self, batch: &[i64], model: &AtomicUsize, _: &InferenceArgs) -> Result<Vec<i64>> {
        Ok(batch.iter().map(|_| model.fetch_add(1, Ordering::SeqCst) as i64 + 1).collect())
    }
}

fn bad(message: &str) -> Error {
    Error::new(tiebeam_core::ErrorKind::Inference, "TB0324", message)
}
