//! RunInference in whole pipelines, in three modes: fused, paranoid, and through the Fn API worker.

#![allow(clippy::panic)] // a test fails by panicking, in the functions that tests share too

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tiebeam_core::metrics::MetricValue;
use tiebeam_core::{
    DoFn, ElementContext, Error, ErrorKind, Iterable, Output, Result, SlidingWindows, Timestamp, Window,
    WindowingStrategy,
};
use tiebeam_graph::{Arity, Create, PCollection, Pipeline};
use tiebeam_inference::{
    Batching, FailedInference, InferenceArgs, ModelHandler, ModelInfo, PredictionResult, RunInference, Stage,
    Tensor, from_fn, report,
};
use tiebeam_runner::{CancelToken, EmbeddedRunner, JobReport, RunnerOptions, Stop};
use tiebeam_testing::{TestPipeline, assert_that};

const NAME: &str = "RunInference";

/// `x + 1`, and fails on what is below nothing.
fn plus_one() -> impl ModelHandler<Example = i64, Inference = i64> {
    from_fn("plus_one", |batch: &[i64]| match batch.iter().find(|x| **x < 0) {
        Some(x) => Err(format!("{x} is below nothing")),
        None => Ok(batch.iter().map(|x| x + 1).collect()),
    })
}

/// Element → what a step saw of it: its time and the number of its windows.
#[derive(Clone)]
struct Seen;

impl DoFn for Seen {
    type In = PredictionResult<i64, i64>;
    type Out = (i64, (i64, (i64, i64)));

    fn process(
        &mut self,
        result: Self::In,
        cx: &ElementContext<'_>,
        out: &mut Output<Self::Out>,
    ) -> Result<()> {
        let (seconds, windows) = (cx.timestamp().micros() / 1_000_000, cx.windows().len() as i64);
        out.emit((result.example, (result.inference, (seconds, windows))));
        Ok(())
    }
}

/// The key and the sum of a group, with the window it was grouped in.
#[derive(Clone)]
struct SumInWindow;

impl DoFn for SumInWindow {
    type In = (i64, Iterable<i64>);
    type Out = (i64, (i64, (i64, i64)));

    fn process(
        &mut self,
        (key, values): Self::In,
        cx: &ElementContext<'_>,
        out: &mut Output<Self::Out>,
    ) -> Result<()> {
        let start = match cx.windows() {
            [Window::Interval(window)] => window.start.micros() / 1_000_000,
            other => return Err(Error::internal(format!("one window was expected, not {other:?}"))),
        };
        let (mut count, mut sum) = (0, 0);
        for value in values.iter() {
            count += 1;
            sum += value;
        }
        out.emit((key, (start, (count, sum))));
        Ok(())
    }
}

const MANY: i64 = 100_000;

fn second_of(x: i64) -> i64 {
    x % 613
}

/// A grouping before and one after, sliding windows around the model: every element has its own time at the model's
/// output, is in three windows there, was asked about once, and every group has exactly its sum.
#[test]
fn a_hundred_thousand_elements_between_two_groupings() {
    let reports = TestPipeline::run_all_modes(|p| {
        let numbers = p
            .apply(Create::of((0..MANY / 1000).map(|i| (i % 17, i))))
            .group_by_key()
            .flat_map(|(_, all): (i64, Iterable<i64>)| all.to_vec())
            .flat_map(|thousand| thousand * 1000..(thousand + 1) * 1000)
            .with_timestamps(|x| Timestamp::from_secs(second_of(*x)));
        let windows = SlidingWindows::of(Duration::from_secs(30), Duration::from_secs(10));
        let results =
            numbers.window_into(WindowingStrategy::of(windows)).apply(RunInference::new(plus_one()));
        assert_that(&results.par_do(Seen)).satisfies(|seen| {
            let mut seen = seen.to_vec();
            seen.sort_unstable();
            for (x, found) in (0..MANY).zip(&seen) {
                let wanted = (x, (x + 1, (second_of(x), 3)));
                if *found != wanted {
                    return Err(format!("wanted {wanted:?}, found {found:?}"));
                }
            }
            if seen.len() as i64 == MANY { Ok(()) } else { Err(format!("{} results", seen.len())) }
        });
        let sums =
            results.map(|result| (result.example % 7, result.inference)).group_by_key().par_do(SumInWindow);
        assert_that(&sums).satisfies(|found| {
            let mut wanted = BTreeMap::new();
            for x in 0..MANY {
                let last = second_of(x) / 10 * 10;
                for start in [last - 20, last - 10, last] {
                    let (count, sum) = wanted.entry((x % 7, start)).or_insert((0, 0));
                    *count += 1;
                    *sum += x + 1;
                }
            }
            let mut found = found.to_vec();
            found.sort_unstable();
            let wanted: Vec<_> = wanted.into_iter().map(|((k, start), sums)| (k, (start, sums))).collect();
            if found == wanted {
                Ok(())
            } else {
                Err(format!("{} groups, wanted {}", found.len(), wanted.len()))
            }
        });
    });
    for report in &reports {
        assert_eq!(report.counter(NAME, "num_inferences"), MANY, "for each element, not for each window");
        let step = step(report);
        assert_eq!((step.elements_in, step.elements_out, step.dead), (MANY as u64, MANY as u64, 0));
        assert_eq!(step.arity, Arity::OneToOne);
    }
    // Every example was in exactly one batch. (The paranoid mode forgets what a bundle's first run told, which may have
    // been a batch that it shared with another bundle.)
    for report in [&reports[0], &reports[2]] {
        let Some(MetricValue::Distribution(sizes)) = report.metric(NAME, "inference_request_batch_size")
        else {
            panic!("no batch sizes");
        };
        assert_eq!(sizes.sum, MANY);
    }
}

fn step(report: &JobReport) -> &tiebeam_runner::StepReport {
    let name = "RunInference/BeamML_RunInference";
    report.steps.iter().find(|step| &*step.step == name).unwrap_or_else(|| panic!("no step {name}"))
}

fn numbers(p: &Pipeline) -> PCollection<i64> {
    p.apply(Create::of([1i64, 5, 3, 10]))
}

fn texts(p: &Pipeline) -> PCollection<String> {
    p.apply(Create::of(["1", "5", "3", "10"].map(String::from)))
}

#[test]
fn c01_predictions() {
    TestPipeline::run_all_modes(|p| {
        let results = numbers(p).apply(RunInference::new(plus_one()));
        let wanted = [(1, 2), (5, 6), (3, 4), (10, 11)].map(|(example, inference)| PredictionResult {
            example,
            inference,
            model_id: "plus_one".into(),
        });
        assert_that(&results).contains_in_any_order(wanted);
    });
}

#[test]
fn c07_c09_steps_around_the_model() {
    TestPipeline::run_all_modes(|p| {
        let chain = plus_one().preprocess(|x: i64| x * 2).try_preprocess(|text: String| text.parse::<i64>());
        let results = texts(p).apply(RunInference::new(chain));
        assert_that(&results.map(|r| r.inference)).contains_in_any_order([3, 11, 7, 21]);
        let chain = plus_one()
            .postprocess(|r| r.inference * 2)
            .postprocess(|x: i64| x + 1)
            .postprocess(|x: i64| x.to_string());
        let wanted = ["5", "13", "9", "23"].map(String::from);
        assert_that(&numbers(p).apply(RunInference::new(chain))).contains_in_any_order(wanted);
        let bare = numbers(p).step("Bare").apply(RunInference::new(plus_one()).drop_example());
        let wanted = [2, 6, 4, 11].map(|inference| ((), inference));
        assert_that(&bare.map(|r| (r.example, r.inference))).contains_in_any_order(wanted);
    });
}

/// What a test looks at in a dead letter.
fn told<I: Clone, P: Clone>(failed: &FailedInference<I, P>) -> (I, Stage, Option<P>, String) {
    let letter = &failed.letter;
    (failed.element.clone(), letter.stage, letter.inference.clone(), letter.failure.message.clone())
}

#[test]
fn c11_c12_c13_dead_letters_of_every_stage() {
    let reports = TestPipeline::run_all_modes(|p| {
        let chain = plus_one()
            .try_preprocess(|text: String| text.parse::<i64>())
            .try_postprocess(|r| if r.inference == 6 { Err("no sixes") } else { Ok(r.inference * 2) });
        let input = p.apply(Create::of(["1", "5", "TEST", "3", "-7", "10"].map(String::from)));
        let inferred = input.apply(RunInference::new(chain.max_batch_size(4)).with_exception_handling());
        assert_that(&inferred.results).contains_in_any_order([4, 8, 22]);
        assert_that(&inferred.failed).satisfies(|failed| {
            let mut found: Vec<_> = failed.iter().map(told).collect();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            let wanted = [
                ("-7", Stage::Inference, None, "-7 is below nothing"),
                ("5", Stage::Postprocess, Some(6), "no sixes"),
                ("TEST", Stage::Preprocess, None, "invalid digit found in string"),
            ]
            .map(|(element, stage, inference, why)| (element.to_owned(), stage, inference, why.to_owned()));
            if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
        });
    });
    for report in reports {
        assert_eq!(report.dead_letters(), 3);
        let step = step(&report);
        assert_eq!((step.elements_in, step.elements_out, step.dead), (6, 3, 3));
        assert_eq!(report.counter(NAME, "num_inferences"), 4);
    }
}

#[test]
fn many_dead_letters_are_the_guilty_and_all_of_them() {
    TestPipeline::run_all_modes(|p| {
        let input = p.apply(Create::of((0..5000i64).map(|x| if x % 97 == 0 { -x - 1 } else { x })));
        let inferred = input.apply(RunInference::new(plus_one()).with_exception_handling());
        let wanted = (0..5000i64).filter(|x| x % 97 != 0).map(|x| x + 1);
        assert_that(&inferred.results.map(|r| r.inference)).contains_in_any_order(wanted);
        let wanted = (0..5000i64).filter(|x| x % 97 == 0).map(|x| -x - 1);
        assert_that(&inferred.failed.map(|failed| failed.element)).contains_in_any_order(wanted);
    });
}

/// The job of the seed: numbers through one model, its answers through another.
#[test]
fn c36_five_times_and_ten_times() {
    TestPipeline::run_all_modes(|p| {
        let times = |factor: f32| {
            from_fn(format!("times {factor}"), move |batch: &[Tensor]| {
                let scalar = |tensor: &Tensor| tensor.to_scalar::<f32>().ok_or("a scalar was expected");
                batch
                    .iter()
                    .map(|x| scalar(x).map(|x| Tensor::scalar(x * factor)))
                    .collect::<Result<Vec<_>, _>>()
            })
        };
        let a = p
            .apply(Create::of([20.0f32, 30.0, 40.0]))
            .map(Tensor::scalar)
            .step("ModelA")
            .apply(RunInference::new(times(5.0)));
        let b =
            a.step("PostProcess").map(|r| r.inference).step("ModelB").apply(RunInference::new(times(10.0)));
        let lines = b.map(|r| format!("{} -> {} by {}", r.example, r.inference, r.model_id));
        let wanted = ["100 -> 1000 by times 10", "150 -> 1500 by times 10", "200 -> 2000 by times 10"];
        assert_that(&lines).contains_in_any_order(wanted.map(String::from));
    });
}

/// `x + 1`, but for the third call, which fails.
fn flaky() -> impl ModelHandler<Example = i64, Inference = i64> {
    let calls = AtomicUsize::new(0);
    from_fn("flaky", move |batch: &[i64]| match calls.fetch_add(1, Ordering::SeqCst) {
        2 => Err("not now"),
        _ => Ok(batch.iter().map(|x| x + 1).collect()),
    })
    .with_batching(Batching::fixed(100))
}

fn through_flaky(p: &Pipeline) {
    let results = p.apply(Create::of(0..1000i64)).apply(RunInference::new(flaky()));
    assert_that(&results.map(|r| r.inference)).contains_in_any_order(1..1001i64);
}

#[test]
fn what_failed_is_tried_again_and_counts_once() {
    for report in TestPipeline::run_all_modes(through_flaky) {
        assert_eq!(report.counter(NAME, "num_inferences"), 1000);
    }
    // On one thread the failed batch is one bundle's, which is run again. (A batch of several bundles is first tried
    // apart for each of them.)
    let p = Pipeline::new();
    through_flaky(&p);
    let runner = EmbeddedRunner::new(RunnerOptions::default().with_threads(1));
    let report = runner.run(&p.build().unwrap()).unwrap();
    assert_eq!(report.counter(NAME, "num_inferences"), 1000);
    assert_eq!(report.steps.iter().map(|step| step.retries).sum::<u64>(), 1);
}

#[test]
fn a_failing_model_ends_the_job_and_names_its_step() {
    let errors = TestPipeline::fails_in_all_modes(|p| {
        let input = p.apply(Create::of([1i64, -2, 3]));
        input.step("Ask").apply(RunInference::new(plus_one()));
    });
    for error in errors {
        assert_eq!(error.to_string(), "Ask/BeamML_RunInference: -2 is below nothing");
    }
}

#[test]
fn a_model_that_panics_ends_the_job_and_never_hangs() {
    let errors = TestPipeline::fails_in_all_modes(|p| {
        let broken =
            from_fn("broken", |_: &[i64]| -> Result<Vec<i64>, String> { panic!("index out of bounds") });
        p.apply(Create::of(0..1000i64)).apply(RunInference::new(broken));
    });
    for error in errors {
        assert_eq!((error.kind(), error.code()), (ErrorKind::Panic, "TB0325"));
        assert!(error.message().ends_with("index out of bounds"), "{error}");
    }
}

/// A model that is loaded from nowhere.
struct Missing;

impl ModelHandler for Missing {
    type Example = i64;
    type Inference = i64;
    type Model = ();

    fn load_model(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Model, "TB0360", "no model file at /models/m.pth"))
    }

    fn run_inference(&self, batch: &[i64], (): &(), _: &InferenceArgs) -> Result<Vec<i64>> {
        Ok(batch.to_vec())
    }
}

#[test]
fn a_missing_model_is_told_before_anything_is_read() {
    let read = Arc::new(AtomicUsize::new(0));
    let errors = TestPipeline::fails_in_all_modes(|p| {
        let read = read.clone();
        let input = p.apply(Create::of([1i64])).map(move |x| {
            read.fetch_add(1, Ordering::SeqCst);
            x
        });
        input.apply(RunInference::new(Missing).with_exception_handling());
    });
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Model);
        assert_eq!(error.to_string(), "RunInference: no model file at /models/m.pth");
    }
    assert_eq!(read.load(Ordering::SeqCst), 0);
}

/// A model that can be counted, and says what it is.
struct Counted(Arc<AtomicUsize>);

impl ModelHandler for Counted {
    type Example = i64;
    type Inference = i64;
    type Model = Vec<u8>;

    fn load_model(&self) -> Result<Vec<u8>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(vec![0; 1000])
    }

    fn run_inference(&self, batch: &[i64], _: &Vec<u8>, _: &InferenceArgs) -> Result<Vec<i64>> {
        Ok(batch.to_vec())
    }

    fn model_info(&self, model: &Vec<u8>) -> ModelInfo {
        let uri = Some("/models/counted.pth".to_owned());
        ModelInfo { model_id: "counted".into(), uri, bytes: Some(model.len() as u64), ..ModelInfo::default() }
    }

    fn model_identity(&self) -> Option<String> {
        Some("counted".to_owned())
    }

    fn metrics_namespace(&self) -> String {
        "BeamML_Counted".to_owned()
    }
}

#[test]
fn a_model_is_loaded_once_for_all_threads_and_steps_and_reported() {
    let before = report::mark();
    let loads = Arc::new(AtomicUsize::new(0));
    let p = Pipeline::new();
    let input = p.apply(Create::of(0..20_000i64));
    for label in ["One", "Two"] {
        let results = input.step(label).apply(RunInference::new(Counted(loads.clone()).max_batch_size(50)));
        assert_that(&results).has_count(20_000);
    }
    let graph = p.build().unwrap();
    let report = EmbeddedRunner::new(RunnerOptions::default().with_threads(8)).run(&graph).unwrap();
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert_eq!(report.counter("BeamML_Counted", "num_inferences"), 40_000);
    let once = |name: &str| match report.metric("BeamML_Counted", name) {
        Some(MetricValue::Distribution(d)) => (d.count, d.sum),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(once("model_byte_size"), (1, 1000));
    assert_eq!(once("load_model_latency_milli_secs").0, 1);
    let mine: Vec<_> =
        report::models_since(before).into_iter().filter(|model| model.id == "counted").collect();
    assert_eq!(mine.len(), 1);
    assert_eq!((mine[0].bytes, mine[0].copies, mine[0].loads), (1000, 1, 1));
    assert_eq!(mine[0].uri.as_deref(), Some("/models/counted.pth"));
    // The run is over, and so is the model's time: another run loads it anew.
    EmbeddedRunner::default().run(&graph).unwrap();
    assert_eq!(loads.load(Ordering::SeqCst), 2);
}

#[test]
fn a_cancelled_job_ends_in_the_middle_of_inference() {
    let cancel = CancelToken::default();
    let asks = cancel.clone();
    let p = Pipeline::new();
    let stopping = from_fn("stopping", move |batch: &[i64]| {
        asks.stop(Stop::Cancel);
        Ok::<_, String>(batch.to_vec())
    });
    // Batches that no bundle fills alone: bundles wait for each other when the job is cancelled.
    let batching = Batching {
        min_batch_size: 900,
        max_batch_duration: Some(Duration::from_secs(3600)),
        ..Batching::at_most(1000)
    };
    p.apply(Create::of(0..50_000i64)).apply(RunInference::new(stopping.with_batching(batching)));
    let options = RunnerOptions::default().with_threads(4).with_cancel(cancel);
    let error = EmbeddedRunner::new(options).run(&p.build().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn what_is_carried_comes_out_with_the_answer() {
    TestPipeline::run_all_modes(|p| {
        let named = p.apply(Create::of([("a".to_owned(), 1i64), ("b".to_owned(), 2)]));
        let double = from_fn("Double", |batch: &[i64]| Ok::<_, Error>(batch.iter().map(|x| x * 2).collect()));
        let results = named.apply(RunInference::new(double.carrying::<String>()));
        let told = results.map(|result| (result.example.0, result.inference));
        assert_that(&told).contains_in_any_order([("a".to_owned(), 2i64), ("b".to_owned(), 4)]);
    });
}

fn locked(calls: &Mutex<Vec<usize>>) -> MutexGuard<'_, Vec<usize>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A row of numbers, doubled. Every row of a batch must be as long as the first. Notes the sizes that it is called with.
struct SameShape {
    calls: Arc<Mutex<Vec<usize>>>,
    /// The length of a row, where the model is asked about it before.
    known: Option<usize>,
}

impl ModelHandler for SameShape {
    type Example = Tensor;
    type Inference = Tensor;
    type Model = ();

    fn load_model(&self) -> Result<()> {
        Ok(())
    }

    fn run_inference(&self, batch: &[Tensor], (): &(), _: &InferenceArgs) -> Result<Vec<Tensor>> {
        locked(&self.calls).push(batch.len());
        let double = |row: &Tensor| match row.as_slice::<f32>() {
            Some(numbers) if numbers.len() == 3 => {
                Ok(Tensor::vector(numbers.iter().map(|x| x * 2.0).collect()))
            }
            _ => Err(Error::new(
                ErrorKind::Inference,
                "TB0342",
                format!("can't stack {:?} on [3]", row.shape()),
            )),
        };
        batch.iter().map(double).collect()
    }

    fn check_example(&self, row: &Tensor, (): &()) -> Result<()> {
        match self.known {
            Some(length) if row.shape() != [length] => {
                let message = format!("input x wants the shape [{length}], got {:?}", row.shape());
                Err(Error::new(ErrorKind::InvalidData, "TB0340", message))
            }
            _ => Ok(()),
        }
    }

    fn batching(&self) -> Batching {
        Batching::fixed(64)
    }
}

const ROWS: usize = 10_000;

/// 10,000 rows of three numbers, but every hundredth has two, four or none.
fn rows(p: &Pipeline) -> PCollection<Tensor> {
    p.apply(Create::of(0..ROWS as i64)).map(|i| {
        let length = if i % 100 == 7 { [2, 4, 0][(i / 100) as usize % 3] } else { 3 };
        Tensor::vector(vec![i as f32; length])
    })
}

fn without_the_wrong_rows(calls: &Arc<Mutex<Vec<usize>>>, known: Option<usize>) -> [JobReport; 3] {
    TestPipeline::run_all_modes(|p| {
        let handler = SameShape { calls: calls.clone(), known };
        let inferred = rows(p).apply(RunInference::new(handler).with_exception_handling());
        let first = |row: &Tensor| row.as_slice::<f32>().map_or(-1, |numbers| numbers[0] as i64);
        let pairs = inferred.results.map(move |result| (first(&result.example), first(&result.inference)));
        let right = (0..ROWS as i64).filter(|i| i % 100 != 7).map(|i| (i, i * 2));
        assert_that(&pairs).contains_in_any_order(right);
        let wanted = if known.is_some() { "input x wants the shape [3], got " } else { "can't stack " };
        let told = inferred.failed.map(move |failed| {
            let shape = format!("{:?}", failed.element.shape());
            let message = &failed.letter.failure.message;
            (failed.element.shape()[0] as i64, message.starts_with(wanted) && message.contains(&shape))
        });
        let lengths = (0..100).map(|i| ([2, 4, 0][i % 3], true));
        assert_that(&told).contains_in_any_order(lengths);
    })
}

#[test]
fn a_hundred_wrong_shapes_among_ten_thousand_never_reach_a_batch() {
    let calls = Arc::default();
    for report in without_the_wrong_rows(&calls, Some(3)) {
        assert_eq!((report.counter(NAME, "num_inferences"), report.dead_letters()), (9900, 100));
        assert_eq!(report.counter(NAME, "failed_batches_counter"), 0);
    }
}

#[test]
fn a_hundred_wrong_shapes_among_ten_thousand_are_found_in_their_batches() {
    let calls = Arc::default();
    for report in without_the_wrong_rows(&calls, None) {
        assert_eq!((report.counter(NAME, "num_inferences"), report.dead_letters()), (9900, 100));
    }
    // On one thread the batches are known, and with them what the search may cost.
    locked(&calls).clear();
    let p = Pipeline::new();
    let handler = SameShape { calls: calls.clone(), known: None };
    let inferred = rows(&p).apply(RunInference::new(handler).with_exception_handling());
    assert_that(&inferred.results).has_count(9900);
    let runner = EmbeddedRunner::new(RunnerOptions::default().with_threads(1));
    let report = runner.run(&p.build().unwrap()).unwrap();
    assert_eq!((report.counter(NAME, "num_inferences"), report.dead_letters()), (9900, 100));
    let calls = locked(&calls).len();
    let (batches, each) = (ROWS.div_ceil(64), 2 * 6 + 1);
    assert!(calls <= batches + 100 * each, "{calls} calls");
    let failed = report.counter(NAME, "failed_batches_counter");
    assert!((1..=100).contains(&failed), "{failed} of the batches had a wrong row");
}

/// What a run's report says of the models whose id is `id`.
fn reported(since: report::Mark, id: &str) -> Vec<report::ModelReport> {
    report::models_since(since).into_iter().filter(|model| model.id == id).collect()
}

/// Fails above seven elements, and says so in its own words.
fn at_most_seven(
    name: &str,
    words: &'static str,
    calls: &Arc<AtomicUsize>,
) -> impl ModelHandler<Example = i64, Inference = i64> {
    let calls = calls.clone();
    from_fn(name, move |batch: &[i64]| {
        calls.fetch_add(1, Ordering::SeqCst);
        if batch.len() > 7 { Err(words) } else { Ok(batch.iter().map(|x| x + 1).collect::<Vec<_>>()) }
    })
}

#[test]
fn a_model_that_fails_above_seven_elements_does_all_and_its_ceiling_is_reported() {
    for (name, words) in [("no memory", "CUDA error: out of memory"), ("no reason", "no, thank you")] {
        for batching in [Batching::default(), Batching::fixed(64), Batching::at_most(1000)] {
            let (before, calls) = (report::mark(), Arc::default());
            let build = |p: &Pipeline, rescued: bool| {
                let handler = at_most_seven(name, words, &calls).with_batching(batching.clone());
                let input = p.apply(Create::of(0..2000i64));
                let run = RunInference::new(handler);
                let results = match rescued {
                    true => input.apply(run.with_exception_handling()).results,
                    false => input.apply(run),
                };
                assert_that(&results.map(|r| r.inference)).contains_in_any_order(1..2001i64);
            };
            for rescued in [false, true] {
                for report in TestPipeline::run_all_modes(|p| build(p, rescued)) {
                    assert_eq!(report.dead_letters(), 0);
                    assert_eq!(report.counter(NAME, "num_inferences"), 2000);
                }
            }
            let models = reported(before, name);
            // One a mode; the launcher of the third one loads the model too, but asks it nothing.
            let ceilings: Vec<_> = models.iter().filter_map(|model| model.batch_ceiling).collect();
            assert_eq!(ceilings, [7; 6], "{name}, {batching:?}");
        }
    }
}

#[test]
fn a_ceiling_that_is_known_costs_no_more_calls() {
    let calls = Arc::default();
    let p = Pipeline::new();
    let handler = at_most_seven("known ceiling", "bad_alloc", &calls).with_batching(Batching::fixed(64));
    p.apply(Create::of(0..7000i64)).apply(RunInference::new(handler));
    let graph = p.build().unwrap();
    let runner = EmbeddedRunner::new(RunnerOptions::default().with_threads(1));
    let before = report::mark();
    let run = || {
        calls.store(0, Ordering::SeqCst);
        let report = runner.run(&graph).unwrap();
        (calls.load(Ordering::SeqCst), report.counter(NAME, "failed_batches_counter"))
    };
    // 64, 32, 16 and 8 fail, 4 and 6 work; from then on there is nothing but sevens, but for the bundles' ends.
    let (first, failed) = run();
    assert!(first >= 1000 && failed == 1, "{first} calls, {failed} failed batches");
    let (second, failed) = run();
    assert!(second < first, "{second} calls after {first}");
    assert_eq!(failed, 0, "the process remembers");
    assert_eq!(reported(before, "known ceiling")[0].batch_ceiling, Some(7));
}

#[test]
fn one_element_that_is_too_large_for_the_memory_is_the_only_dead_letter() {
    let before = report::mark();
    for report in TestPipeline::run_all_modes(|p| {
        let handler = from_fn("too large", |batch: &[i64]| match batch.iter().sum::<i64>() > 1000 {
            true => Err("failed to allocate memory for the batch"),
            false => Ok(batch.to_vec()),
        });
        let input = p.apply(Create::of((0..500i64).map(|i| if i == 250 { 5000 } else { 1 })));
        let inferred = input.apply(RunInference::new(handler).with_exception_handling());
        assert_that(&inferred.results).has_count(499);
        assert_that(&inferred.failed.map(|failed| failed.element)).contains_in_any_order([5000]);
    }) {
        assert_eq!(report.dead_letters(), 1);
    }
    let ceilings = reported(before, "too large");
    assert!(ceilings.iter().any(|model| model.batch_ceiling >= Some(1)), "{ceilings:?}");
}

/// Texts whose model is asked about batches; the answer is the length of the longest one in the batch.
fn longest_of_batch(name: &str) -> impl ModelHandler<Example = String, Inference = i64> {
    from_fn(name, |batch: &[String]| {
        let longest = batch.iter().map(String::len).max().unwrap_or(0);
        Ok::<_, String>(vec![longest as i64; batch.len()])
    })
    .with_batching(Batching::fixed(16))
    .with_length_fn(String::len)
}

/// Texts of 1 to 600 letters, in no order, alone and with something carried along: each comes out once, at its own place in its
/// own class, and hardly anything is padding.
#[test]
fn texts_of_many_lengths_are_batched_by_length() {
    let length = |i: i64| 1 + i * 7919 % 600;
    let class =
        |length: i64| [16, 32, 64, 128, 256, 512, i64::MAX].into_iter().find(|upper| length <= *upper);
    let before = report::mark();
    let reports = TestPipeline::run_all_modes(|p| {
        let texts = p.apply(Create::of(0..3000i64)).map(move |i| (i, "x".repeat(length(i) as usize)));
        let alone =
            texts.map(|(_, text)| text).step("Alone").apply(RunInference::new(longest_of_batch("longest")));
        assert_that(&alone).satisfies(move |results| {
            let wrong = |r: &&PredictionResult<String, i64>| {
                let own = r.example.len() as i64;
                r.inference < own || class(r.inference) != class(own)
            };
            match results.iter().find(wrong) {
                Some(wrong) => Err(format!("{} among {}", wrong.example.len(), wrong.inference)),
                None if results.len() == 3000 => Ok(()),
                None => Err(format!("{} results", results.len())),
            }
        });
        let handler = longest_of_batch("carried longest").carrying::<i64>();
        let pairs = texts.step("Carried").apply(RunInference::new(handler));
        let lengths = pairs.map(|r| (r.example.0, r.example.1.len() as i64));
        assert_that(&lengths).contains_in_any_order((0..3000i64).map(move |i| (i, length(i))));
    });
    for report in &reports {
        let counted = |name: &str| report.counter(NAME, name);
        assert_eq!(counted("num_inferences"), 6000);
        assert!(counted("padding_length") > 0 && counted("padded_length") > counted("padding_length"));
    }
    let models = reported(before, "longest");
    let model = models.iter().find(|model| model.batching.is_some()).unwrap_or_else(|| panic!("{models:?}"));
    let told = model.batching.clone().unwrap_or_default();
    assert!(told.starts_with("lengths to 16: size 16: as set; lengths to 32: size 16: as set; "), "{told}");
    assert!(told.ends_with("longer ones: size 16: as set"), "{told}");
    assert!(model.padding_permille.is_some_and(|share| share < 400), "{model:?}");
}

/// One thread, all in one bundle or few: what a window of sorted batches leaves of padding.
#[test]
fn a_window_of_batches_in_order_of_length_leaves_little_padding() {
    let before = report::mark();
    let p = Pipeline::new();
    let texts = p.apply(Create::of(0..20_000i64)).map(|i| "x".repeat((1 + i * 7919 % 500) as usize));
    texts.apply(RunInference::new(longest_of_batch("little padding")));
    let runner = EmbeddedRunner::new(RunnerOptions::default().with_threads(1));
    runner.run(&p.build().unwrap()).unwrap();
    let share = reported(before, "little padding")[0].padding_permille;
    assert!(share.is_some_and(|share| share < 60), "{share:?} thousandths of padding");
}

/// Ten thousand elements in sixty windows each: ten thousand inferences, each result at its element's own time and in its
/// sixty windows.
#[test]
fn fault_08_fault_09_ten_thousand_elements_of_a_sliding_minute() {
    const N: i64 = 10_000;
    let reports = TestPipeline::run_all_modes(|p| {
        let windows = SlidingWindows::of(Duration::from_secs(60), Duration::from_secs(1));
        let results = p
            .apply(Create::of(0..N))
            .with_timestamps(|x| Timestamp::from_secs(second_of(*x)))
            .window_into(WindowingStrategy::of(windows))
            .apply(RunInference::new(plus_one()));
        assert_that(&results.par_do(Seen)).satisfies(|seen| {
            let mut seen = seen.to_vec();
            seen.sort_unstable();
            let wanted = (0..N).map(|x| (x, (x + 1, (second_of(x), 60))));
            match seen.iter().copied().eq(wanted) {
                true => Ok(()),
                false => Err(format!("{} results, such as {:?}", seen.len(), seen.first())),
            }
        });
    });
    for report in reports {
        assert_eq!(report.counter(NAME, "num_inferences"), N, "for each element, not for each window");
    }
}

/// Keys, a postprocess step that refuses some, dead letters and sliding windows: the tap has what the model said of all that
/// it was asked about, at their own times, and the results are as without it.
#[test]
fn a_monitor_sees_the_raw_predictions_before_the_postprocess_steps() {
    let timed = |p: &Pipeline| {
        let windows = SlidingWindows::of(Duration::from_secs(30), Duration::from_secs(10));
        p.apply(Create::of([-1i64, 0, 1, 2, 3]))
            .with_timestamps(|x| Timestamp::from_secs(100 + x))
            .window_into(WindowingStrategy::of(windows))
    };
    let odd = |result: PredictionResult<i64, i64>| match result.inference % 2 {
        0 => Err(format!("{} is even", result.inference)),
        _ => Ok(result.inference * 10),
    };
    TestPipeline::run_all_modes(|p| {
        let inference = RunInference::new(plus_one().try_postprocess(odd)).with_monitoring(|raw| {
            let seen = raw.step("Look").par_do(Seen);
            assert_that(&seen).contains_in_any_order([0, 1, 2, 3].map(|x| (x, (x + 1, (100 + x, 3)))));
        });
        let inferred = timed(p).apply(inference.with_exception_handling());
        assert_that(&inferred.results).contains_in_any_order([10, 30]);
        let failed =
            inferred.failed.map(|failed| (failed.element, failed.letter.stage == Stage::Postprocess));
        assert_that(&failed).contains_in_any_order([(-1, false), (1, true), (3, true)]);
    });
    TestPipeline::run_all_modes(|p| {
        let inference = RunInference::new(plus_one().keyed::<String>()).with_monitoring(|raw| {
            let seen = raw.map(|result| (result.example.0, result.inference));
            assert_that(&seen).contains_in_any_order([("a".to_owned(), 6), ("b".to_owned(), 7)]);
        });
        let input = p.apply(Create::of([("a".to_owned(), 5i64), ("b".to_owned(), 6)]));
        let results = input.apply(inference).map(|(key, result)| (key, result.inference));
        assert_that(&results).contains_in_any_order([("a".to_owned(), 6), ("b".to_owned(), 7)]);
    });
}

/// Without dead letters a refusal ends the run as it does without a monitor.
#[test]
fn a_monitor_does_not_change_how_a_run_fails() {
    let p = Pipeline::new();
    let refusing = plus_one().try_postprocess(|_| Err::<i64, _>("no answer is good enough"));
    let inference = RunInference::new(refusing).with_monitoring(|raw| {
        raw.map(|result| result.inference);
    });
    p.apply(Create::of([1i64])).apply(inference);
    let error = EmbeddedRunner::default().run(&p.build().unwrap()).unwrap_err();
    assert!(error.to_string().contains("no answer is good enough"), "{error}");
}
