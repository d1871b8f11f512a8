//! What a pipeline feeds is compared with what its models take, before any element is read; and what models tell of
//! themselves while they answer.

#![allow(clippy::panic, clippy::unwrap_used)] // a test fails by panicking, in the functions that tests share too

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tiebeam_core::{Error, ErrorKind, FixedWindows, Result, WindowingStrategy};
use tiebeam_graph::{Create, PCollection, Pipeline};
use tiebeam_inference::{
    Answered, DType, Dim, Feeds, InferenceArgs, ModelHandler, PerKeyModels, Port, PredictionResult,
    Predictions, Results, RunInference, Signature, Tensor, report,
};
use tiebeam_runner::{EmbeddedRunner, RunnerOptions};
use tiebeam_testing::{TestPipeline, assert_that};

/// Gives what it gets, if that has as many numbers as it wants.
#[derive(Clone)]
struct Vectors {
    name: &'static str,
    takes: usize,
    gives: usize,
}

fn port(name: &str, size: usize) -> Port {
    Port {
        name: name.into(),
        type_name: "float32".to_owned(),
        dtype: Some(DType::F32),
        shape: Some(vec![Dim::Named("batch".into()), Dim::Fixed(size)]),
    }
}

impl ModelHandler for Vectors {
    type Example = Tensor;
    type Inference = Tensor;
    type Model = ();

    fn load_model(&self) -> Result<()> {
        Ok(())
    }

    fn signature(&self, (): &()) -> Option<Signature> {
        Some(Signature { inputs: vec![port("x", self.takes)], outputs: vec![port("y", self.gives)] })
    }

    fn check_example(&self, example: &Tensor, (): &()) -> Result<()> {
        if example.shape() == [self.takes] {
            return Ok(());
        }
        let message = format!("input x wants [{}], got {:?}", self.takes, example.shape());
        Err(Error::new(ErrorKind::InvalidData, "TB0340", message))
    }

    fn run_inference(&self, batch: &[Tensor], (): &(), _: &InferenceArgs) -> Result<Vec<Tensor>> {
        Ok(batch.iter().map(|_| zeros(self.gives)).collect())
    }

    fn name(&self) -> String {
        self.name.to_owned()
    }
}

fn zeros(size: usize) -> Tensor {
    Tensor::vector(vec![0f32; size])
}

fn model(name: &'static str, takes: usize, gives: usize) -> Vectors {
    Vectors { name, takes, gives }
}

/// Builds a pipeline on tensors whose reading is counted; says why it is refused, and that nothing was read.
fn refused(build: impl Fn(PCollection<Tensor>)) -> Error {
    let read = Arc::new(AtomicUsize::new(0));
    let p = Pipeline::new();
    let count = read.clone();
    let tensors = p.apply(Create::of([1i64, 2])).step("Read").map(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        zeros(3)
    });
    build(tensors);
    let graph = p.build().unwrap();
    let checked = graph.run_checks().unwrap_err();
    let error = EmbeddedRunner::new(RunnerOptions::default()).run(&graph).unwrap_err();
    assert_eq!(error.message(), checked.message(), "`validate` says the same");
    assert_eq!((error.code(), error.kind()), ("TB0307", ErrorKind::InvalidPipeline), "{error}");
    assert!(error.help().is_some());
    assert_eq!(read.load(Ordering::SeqCst), 0, "no element was read");
    error
}

fn runs(build: impl Fn(&Pipeline)) {
    let p = Pipeline::new();
    build(&p);
    EmbeddedRunner::new(RunnerOptions::default()).run(&p.build().unwrap()).unwrap();
}

#[test]
fn what_is_noted_of_tensors_is_compared_with_the_model() {
    let error = refused(|tensors| {
        tensors.with_note(Feeds::one(DType::F32, [Dim::Fixed(3)])).apply(RunInference::new(model("M", 4, 1)));
    });
    assert_eq!(
        error.message(),
        "the pipeline feeds M float32[3] for the input `x`, which wants the shape [batch, 4] (a row: [4]); \
         it takes x float32[batch, 4]"
    );
    assert_eq!(error.step(), Some("RunInference"));
    // Steps that pass elements on keep what is known; dead letters don't help against what is never right.
    let error = refused(|tensors| {
        let known = tensors.with_note(Feeds::one(DType::Str, [Dim::Fixed(4)]));
        let windowing = WindowingStrategy::of(FixedWindows::of(std::time::Duration::from_secs(1)));
        let same = known.filter(|_| true).window_into(windowing).reshuffle();
        same.apply(RunInference::new(model("M", 4, 1)).with_exception_handling());
    });
    assert!(error.message().contains("str[4] for the input `x`, which wants float32"), "{error}");
    refused(|tensors| {
        let feeds = Feeds::named([("z", DType::F32, vec![Dim::Fixed(4)])]);
        let pairs = tensors.map(|tensor| (1i64, tensor)).with_note(feeds);
        pairs.apply(RunInference::new(model("M", 4, 1).keyed()));
    });
}

#[test]
fn a_model_after_another_takes_what_that_one_gives() {
    let error = refused(|tensors| {
        let first = tensors.apply(RunInference::new(model("A", 3, 5)));
        first.inferences().step("Second").apply(RunInference::new(model("B", 6, 1)));
    });
    assert!(error.message().starts_with("A feeds B float32[batch, 5] for the input `x`"), "{error}");
    assert_eq!(error.step(), Some("Second"));
    refused(|tensors| {
        let keyed = tensors.map(|tensor| (1i64, tensor));
        let first = keyed.apply(RunInference::new(model("A", 3, 5).keyed()).drop_example());
        first.inferences().apply(RunInference::new(model("B", 6, 1).keyed()));
    });
    refused(|tensors| {
        let first = tensors.apply(RunInference::new(model("A", 3, 5)).with_exception_handling()).results;
        let models = PerKeyModels::new().with_models([1i64], model("B", 6, 1));
        let feeds = first.inferences().noted::<Feeds>().unwrap();
        let keyed = first.inferences().map(|tensor| (1i64, tensor)).with_note(Feeds::clone(&feeds));
        keyed.apply(RunInference::new(models));
    });
    runs(|p| {
        let tensors = p.apply(Create::of([zeros(3)]));
        let first = tensors.apply(RunInference::new(model("A", 3, 5)));
        let second = first.inferences().apply(RunInference::new(model("B", 5, 1)));
        assert_that(&second.map(|result| result.inference.len() as i64)).contains_in_any_order([1]);
        // A step between them may change what it is: nothing is known any more.
        let changed = first.inferences().map(|_| zeros(7));
        changed.step("Third").apply(RunInference::new(model("C", 7, 1)));
    });
}

#[test]
fn given_elements_and_samples_are_tried_before_the_run() {
    let p = Pipeline::new();
    p.apply(Create::of([zeros(4), zeros(3)])).apply(RunInference::new(model("M", 4, 1)));
    let error = p.build().unwrap().run_checks().unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        ("TB0307", "an element that the pipeline gives does not fit M: input x wants [4], got [3]")
    );
    let error = refused(|tensors| {
        let chain = model("M", 4, 1).preprocess(|tensor: Tensor| tensor);
        tensors.apply(RunInference::new(chain).with_sample(zeros(3)));
    });
    assert_eq!(error.message(), "the sample does not fit M: input x wants [4], got [3]");
    let error = refused(|tensors| {
        let chain = model("M", 4, 1).try_preprocess(|_: Tensor| Err::<Tensor, _>("never"));
        tensors.apply(RunInference::new(chain).with_sample(zeros(3)).with_exception_handling());
    });
    assert_eq!(error.message(), "the sample does not fit M: never");
    let error = refused(|tensors| {
        let chain = model("M", 4, 1).preprocess(|tensor: Tensor| tensor);
        let feeds = Feeds::one(DType::F32, [Dim::Fixed(3)]);
        tensors.apply(RunInference::new(chain).with_example_signature(feeds));
    });
    assert!(error.message().contains("float32[3] for the input `x`"), "{error}");
    // Where there are dead letters, each given element is judged for itself; what a step makes of it is not known.
    runs(|p| {
        let tensors = p.apply(Create::of([zeros(4), zeros(3)]));
        let inferred = tensors.apply(RunInference::new(model("M", 4, 1)).with_exception_handling());
        assert_that(&inferred.failed.map(|failed| failed.element.len() as i64)).contains_in_any_order([3]);
        let chain = model("N", 4, 1).preprocess(|_: Tensor| zeros(4));
        tensors.step("Chain").apply(RunInference::new(chain));
        let rest = tensors.filter(|tensor| tensor.len() == 4);
        rest.step("Rest").apply(RunInference::new(model("O", 4, 1)));
    });
}

/// Tells of odd numbers that another model computed them, and counts its calls.
struct Telling(Arc<AtomicU64>);

impl ModelHandler for Telling {
    type Example = i64;
    type Inference = i64;
    type Model = ();

    fn load_model(&self) -> Result<()> {
        Ok(())
    }

    fn run_inference(&self, _: &[i64], (): &(), _: &InferenceArgs) -> Result<Vec<i64>> {
        Err(Error::internal("RunInference asks by `predict`"))
    }

    fn predict(&self, batch: &[i64], (): &(), _: &InferenceArgs) -> Result<Predictions<i64>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let odd = |x: &i64| (x % 2 == 1).then(|| Arc::from("odd"));
        let told = |x: &i64| match x {
            ..0 => Err(Error::new(ErrorKind::Inference, "TB0602", "no")),
            x => Ok(Answered { inference: x * 2, model_id: odd(x) }),
        };
        Ok(Predictions::Told(batch.iter().map(told).collect()))
    }

    fn has_counts(&self) -> bool {
        true
    }

    fn counts(&self, (): &()) -> Vec<(&'static str, u64)> {
        vec![("asked", self.0.load(Ordering::SeqCst)), ("never", 0)]
    }

    fn name(&self) -> String {
        "Telling".to_owned()
    }
}

#[test]
fn c37a_each_result_tells_the_model_that_the_server_told() {
    TestPipeline::run_all_modes(|p| {
        let handler = Telling(Arc::default());
        let input = p.apply(Create::of([1i64, 2, 3, -5, 4]));
        let inferred = input.apply(RunInference::new(handler).with_exception_handling());
        let found = inferred.results.map(|result| (result.inference, result.model_id.to_string()));
        let wanted = [(2, "odd"), (4, "Telling"), (6, "odd"), (8, "Telling")];
        assert_that(&found).contains_in_any_order(wanted.map(|(y, id)| (y, id.to_owned())));
        assert_that(&inferred.failed.map(|failed| failed.element)).contains_in_any_order([-5]);
        // By classes of length, elements come back out of order.
        let handler = Telling(Arc::default()).with_length_fn(|x| *x as usize);
        let input = p.step("More").apply(Create::of((0..40i64).map(|x| (x * 7) % 40)));
        let found = input.step("ByLength").apply(RunInference::new(handler));
        let found = found.filter(|result: &PredictionResult<i64, i64>| {
            (result.example % 2 == 1) != (&*result.model_id == "odd")
        });
        assert_that(&found.map(|result| result.example)).is_empty();
    });
}

#[test]
fn what_a_handler_counts_is_in_the_metrics_and_in_the_report() {
    let calls = Arc::new(AtomicU64::new(0));
    let p = Pipeline::new();
    let mark = report::mark();
    p.apply(Create::of(0..1000i64)).apply(RunInference::new(Telling(calls.clone()).max_batch_size(10)));
    let run = EmbeddedRunner::new(RunnerOptions::default()).run(&p.build().unwrap()).unwrap();
    let calls = calls.load(Ordering::SeqCst);
    assert_eq!(run.counter("RunInference", "asked"), calls as i64);
    let models = report::models_since(mark);
    let counts: Vec<_> = models.iter().filter(|model| model.handler == "Telling").collect();
    assert!(counts.iter().any(|model| model.counts == [("asked", calls), ("never", 0)]), "{counts:?}");
}
