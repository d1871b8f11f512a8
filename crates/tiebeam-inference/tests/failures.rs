//! What hangs, what can't be loaded, what says NaN, and how much failure is too much.

#![allow(clippy::panic, clippy::unwrap_used)] // a test fails by panicking, in the functions that tests share too

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tiebeam_core::row::Value;
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_graph::{Create, Pipeline};
use tiebeam_inference::{
    Batching, InferenceArgs, ModelHandler, NanPolicy, PerKeyModels, RunInference, Stage, Tensor, from_fn,
};
use tiebeam_runner::{EmbeddedRunner, RunnerOptions};
use tiebeam_testing::{TestPipeline, assert_that};

const NAME: &str = "RunInference";
const SHORT: Duration = Duration::from_secs(1);

/// Closed until somebody opens it.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |open| !*open).unwrap());
    }
}

/// Opened however a test ends, so that no thread is left waiting.
struct Opens(Arc<Gate>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// A model that waits at the gate for an example of 20, and, if it is slow to load, for its load.
struct Waits {
    gate: Arc<Gate>,
    loads_slowly: bool,
    deleted: Arc<AtomicUsize>,
    loads: Arc<AtomicUsize>,
}

struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Waits {
    fn at(gate: &Arc<Gate>) -> Self {
        Waits { gate: gate.clone(), loads_slowly: false, deleted: Arc::default(), loads: Arc::default() }
    }
}

impl ModelHandler for Waits {
    type Example = i64;
    type Inference = i64;
    type Model = Held;

    fn load_model(&self) -> Result<Held> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if self.loads_slowly {
            self.gate.pass();
        }
        Ok(Held(self.deleted.clone()))
    }

    fn run_inference(&self, batch: &[i64], _: &Held, _: &InferenceArgs) -> Result<Vec<i64>> {
        if batch.contains(&20) {
            self.gate.pass();
        }
        Ok(batch.to_vec())
    }

    fn name(&self) -> String {
        "Waits".to_owned()
    }
}

fn one_thread(p: &Pipeline) -> Result<tiebeam_runner::JobReport> {
    EmbeddedRunner::new(RunnerOptions::default().with_threads(1)).run(&p.build().unwrap())
}

#[test]
fn c14_a_load_that_takes_too_long_is_told_by_the_dead_letters() {
    let gate = Arc::new(Gate::default());
    let _opens = Opens(gate.clone());
    let p = Pipeline::new();
    let slow = Waits { loads_slowly: true, ..Waits::at(&gate) }.max_batch_size(1);
    let run = RunInference::new(slow).with_exception_handling().with_timeout(SHORT);
    let inferred = p.apply(Create::of([1i64, 2])).apply(run);
    assert_that(&inferred.results.map(|result| result.inference)).is_empty();
    let failed = inferred.failed.map(|failed| (failed.element, failed.letter.failure.message));
    let told = "Waits did not load its model within 1s";
    assert_that(&failed).contains_in_any_order([(1, told.to_owned()), (2, told.to_owned())]);
    one_thread(&p).unwrap();
}

#[test]
fn c14c_a_timeout_that_is_not_hit_changes_nothing() {
    let gate = Arc::new(Gate::default());
    gate.open();
    let handler = Waits { loads_slowly: true, ..Waits::at(&gate) };
    let (loads, p) = (handler.loads.clone(), Pipeline::new());
    let run = RunInference::new(handler).with_exception_handling().with_timeout(Duration::from_secs(500));
    let inferred = p.apply(Create::of([1i64, 2])).apply(run);
    assert_that(&inferred.results.map(|result| result.inference)).contains_in_any_order([1, 2]);
    assert_that(&inferred.failed).has_count(0);
    one_thread(&p).unwrap();
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn c15_a_call_that_hangs_fails_its_element_alone_and_the_model_is_replaced() {
    let gate = Arc::new(Gate::default());
    let opens = Opens(gate.clone());
    let handler = Waits::at(&gate);
    let (deleted, loads, p) = (handler.deleted.clone(), handler.loads.clone(), Pipeline::new());
    let run = RunInference::new(handler.with_batching(Batching::fixed(4)))
        .with_model_identifier("c15")
        .with_exception_handling()
        .with_timeout(SHORT);
    let input = std::iter::once(20).chain([1i64; 15]);
    let inferred = p.apply(Create::of(input)).apply(run);
    assert_that(&inferred.results.map(|result| result.inference)).contains_in_any_order([1; 15]);
    let failed = inferred.failed.map(|failed| {
        assert_eq!((failed.letter.stage, &*failed.letter.failure.code), (Stage::Inference, "TB0359"));
        (failed.element, failed.letter.failure.message)
    });
    let told = "Waits did not come back from a batch of 1 within 1s".to_owned();
    assert_that(&failed).contains_in_any_order([(20, told)]);
    one_thread(&p).unwrap();
    // Four elements, two, one: three calls hung, each with a model that was replaced; the last one was let go at the end.
    assert_eq!((loads.load(Ordering::SeqCst), deleted.load(Ordering::SeqCst)), (4, 1));
    drop(opens);
    // Now that they can come back, their models go too.
    while deleted.load(Ordering::SeqCst) < 4 {
        std::thread::yield_now();
    }
}

/// Beam's call returns, and the process then waits for it all the same.
#[test]
fn fault_11_a_process_ends_though_a_call_hangs() {
    const NAME: &str = "fault_11_a_process_ends_though_a_call_hangs";
    if std::env::var_os("TIEBEAM_TEST_HANGS").is_none() {
        // This test again, in a process of its own: it must end by itself.
        let own = std::env::current_exe().unwrap();
        let mut child = std::process::Command::new(own);
        child.args([NAME, "--exact", "--nocapture"]).env("TIEBEAM_TEST_HANGS", "1");
        let ended = child.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success(), "{said}\n{}", String::from_utf8_lossy(&ended.stderr));
        return;
    }
    let gate = Arc::new(Gate::default());
    let p = Pipeline::new();
    let run = RunInference::new(Waits::at(&gate)).with_exception_handling().with_timeout(SHORT);
    let inferred = p.apply(Create::of([1i64, 20])).apply(run);
    assert_that(&inferred.results.map(|result| result.inference)).contains_in_any_order([1]);
    assert_that(&inferred.failed.map(|failed| failed.element)).contains_in_any_order([20]);
    one_thread(&p).unwrap();
    // The gate is never opened.
}

#[test]
fn a_call_that_hangs_ends_the_job_where_there_are_no_dead_letters() {
    let gate = Arc::new(Gate::default());
    let _opens = Opens(gate.clone());
    let p = Pipeline::new();
    p.apply(Create::of([1i64, 20])).apply(RunInference::new(Waits::at(&gate)).with_timeout(SHORT));
    let error = one_thread(&p).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Timeout, "TB0359"));
}

/// Loads only so often.
struct Brittle(AtomicUsize);

impl ModelHandler for Brittle {
    type Example = i64;
    type Inference = i64;
    type Model = ();

    fn load_model(&self) -> Result<()> {
        match self.0.fetch_sub(1, Ordering::SeqCst) {
            0 => {
                self.0.store(0, Ordering::SeqCst);
                Err(Error::new(ErrorKind::Model, "TB0360", "no model at m.pth"))
            }
            _ => Ok(()),
        }
    }

    fn run_inference(&self, batch: &[i64], (): &(), _: &InferenceArgs) -> Result<Vec<i64>> {
        Ok(batch.to_vec())
    }
}

/// Beam gives a load failure neither to the dead letters nor to the job.
#[test]
fn fault_10_a_load_failure_ends_the_job_or_is_told_by_the_dead_letters() {
    let p = Pipeline::new();
    p.apply(Create::of([1i64]))
        .apply(RunInference::new(Brittle(AtomicUsize::new(0))).with_exception_handling());
    let error = one_thread(&p).unwrap_err();
    assert_eq!(error.to_string(), "RunInference: no model at m.pth");
    // A model that is loaded later, when the job is on its way.
    let p = Pipeline::new();
    let echo = from_fn("echo", |batch: &[i64]| Ok::<_, String>(batch.to_vec()));
    let models = PerKeyModels::new()
        .with_models([0i64], echo)
        .with_models([1], Brittle(AtomicUsize::new(0)))
        .max_models_hint(1);
    let input = p.apply(Create::of((0..100i64).map(|i| (i % 2, i))));
    let inferred = input.apply(RunInference::new(models).with_exception_handling());
    assert_that(&inferred.results.map(|(_, result)| result.inference))
        .contains_in_any_order((0..50i64).map(|i| i * 2));
    let failed = inferred.failed.map(|failed| (failed.element.1, failed.letter.failure.message));
    let wanted = (0..50i64).map(|i| (i * 2 + 1, "no model at m.pth".to_owned()));
    assert_that(&failed).contains_in_any_order(wanted);
    one_thread(&p).unwrap();
}

/// Square roots, of which some are none.
fn roots() -> impl ModelHandler<Example = f64, Inference = f64> {
    from_fn("roots", |batch: &[f64]| Ok::<_, String>(batch.iter().map(|x| x.sqrt()).collect::<Vec<f64>>()))
}

#[test]
fn nan_goes_on_or_to_the_dead_letters_or_ends_the_job() {
    let input = [4.0f64, -1.0, 9.0];
    TestPipeline::run_all_modes(|p| {
        let found = p.apply(Create::of(input)).apply(RunInference::new(roots()));
        let found = found.map(|result| result.inference.is_nan());
        assert_that(&found).contains_in_any_order([false, true, false]);
    });
    let reports = TestPipeline::run_all_modes(|p| {
        let run = RunInference::new(roots()).with_nan_policy(NanPolicy::DeadLetter).with_exception_handling();
        let inferred = p.apply(Create::of(input)).apply(run);
        assert_that(&inferred.results.map(|result| result.inference)).contains_in_any_order([2.0, 3.0]);
        let failed = inferred.failed.map(|failed| (failed.element, failed.letter.failure.message));
        assert_that(&failed).contains_in_any_order([(-1.0, "roots gave NaN".to_owned())]);
    });
    for report in reports {
        assert_eq!((report.counter(NAME, "num_inferences"), report.dead_letters()), (2, 1));
    }
    for error in TestPipeline::fails_in_all_modes(|p| {
        p.apply(Create::of(input)).apply(RunInference::new(roots()).with_nan_policy(NanPolicy::Fail));
    }) {
        assert_eq!((error.code(), error.message()), ("TB0357", "roots gave NaN"));
    }
    let p = Pipeline::new();
    p.apply(Create::of(input)).apply(RunInference::new(roots()).with_nan_policy(NanPolicy::DeadLetter));
    let errors = p.build().err().unwrap();
    assert!(errors.to_string().contains("no dead letters to go to"), "{errors}");
}

#[test]
fn nan_is_found_in_tensors() {
    use tiebeam_inference::HoldsNan;
    assert!(Tensor::vector(vec![1.0f32, f32::NAN]).holds_nan());
    assert!(!Tensor::vector(vec![1.0f32, f32::INFINITY]).holds_nan());
    assert!(!Tensor::vector(vec![1i64]).holds_nan());
    assert!(vec![Some(f64::NAN), None].holds_nan());
}

#[test]
fn more_failures_than_the_threshold_end_the_job() {
    let evens = || {
        from_fn("evens", |batch: &[i64]| match batch.iter().find(|x| **x % 2 != 0) {
            Some(odd) => Err(format!("{odd} is odd")),
            None => Ok(batch.to_vec()),
        })
    };
    TestPipeline::run_all_modes(|p| {
        let run = RunInference::new(evens()).with_exception_handling().with_threshold(0.5);
        let inferred = p.apply(Create::of(0..100i64)).apply(run);
        assert_that(&inferred.results).has_count(50);
    });
    for error in TestPipeline::fails_in_all_modes(|p| {
        let run = RunInference::new(evens()).with_exception_handling().with_threshold(0.49);
        p.apply(Create::of(0..100i64)).apply(run);
    }) {
        assert_eq!(error.message(), "50 of 100 elements failed, more than the threshold of 0.49");
    }
}

/// Beam counts only some of them, and reads a size of 0.
#[test]
fn fault_14_failed_batches_are_counted_and_the_model_has_a_size() {
    let reports = TestPipeline::run_all_modes(|p| {
        let picky = from_fn("picky", |batch: &[i64]| match batch.contains(&3) {
            true => Err("three".to_owned()),
            false => Ok(batch.to_vec()),
        });
        let run = RunInference::new(picky.with_batching(Batching::fixed(1))).with_exception_handling();
        let inferred = p.apply(Create::of(0..10i64)).apply(run);
        assert_that(&inferred.failed.map(|failed| failed.element)).contains_in_any_order([3]);
    });
    // (The paranoid mode forgets what a bundle's first run told, which may have been another bundle's batch.)
    for report in [&reports[0], &reports[2]] {
        assert_eq!(report.counter(NAME, "failed_batches_counter"), 1);
    }
    let size = reports[0].metric(NAME, "model_byte_size");
    assert!(
        matches!(size, Some(tiebeam_core::metrics::MetricValue::Distribution(size)) if size.min > 0),
        "{size:?}"
    );
}

/// Beam's handlers take values out of the map that the next batch is given.
#[test]
fn fault_13_every_batch_is_given_the_same_arguments() {
    struct Plus;
    impl ModelHandler for Plus {
        type Example = i64;
        type Inference = i64;
        type Model = ();
        fn load_model(&self) -> Result<()> {
            Ok(())
        }
        fn run_inference(&self, batch: &[i64], (): &(), args: &InferenceArgs) -> Result<Vec<i64>> {
            let Some(Value::Int64(more)) = args.get("more") else {
                return Err(Error::user("the argument `more` is gone"));
            };
            // What it has is its own: changing a copy changes nothing for others.
            let mut own: std::collections::BTreeMap<&str, &Value> = args.iter().collect();
            own.remove("more");
            Ok(batch.iter().map(|x| x + more).collect())
        }
        fn validate_inference_args(&self, _: &InferenceArgs) -> Result<()> {
            Ok(())
        }
    }
    TestPipeline::run_all_modes(|p| {
        let args: InferenceArgs = [("more", Value::Int64(3))].into_iter().collect();
        let run = RunInference::new(Plus.with_batching(Batching::fixed(7))).with_inference_args(args);
        let found = p.apply(Create::of(0..100i64)).apply(run);
        assert_that(&found.map(|result| result.inference)).contains_in_any_order(3..103);
    });
}

#[test]
fn c10_elements_that_are_batches_already() {
    let calls: Arc<Mutex<Vec<usize>>> = Arc::default();
    let noted = calls.clone();
    let p = Pipeline::new();
    let plus_one = from_fn("plus_one", move |batch: &[i64]| {
        noted.lock().unwrap().push(batch.len());
        Ok::<_, String>(batch.iter().map(|x| x + 1).collect::<Vec<i64>>())
    });
    let input = p.apply(Create::of([vec![1i64, 5], vec![], vec![3, 10, 4]]));
    let found = input.apply(RunInference::new(plus_one.no_batching()));
    assert_that(&found.flat_map(|result| result.inference)).contains_in_any_order([2, 6, 4, 11, 5]);
    one_thread(&p).unwrap();
    assert_eq!(*calls.lock().unwrap(), [2, 3], "each as it came, and none with nothing");
}
