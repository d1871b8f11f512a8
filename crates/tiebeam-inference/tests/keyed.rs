//! Keyed examples and a model for each key, in three modes.

#![allow(clippy::panic, clippy::unwrap_used)] // a test fails by panicking, in the functions that tests share too

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tiebeam_core::metrics::MetricValue;
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_graph::{Create, Pipeline};
use tiebeam_inference::{
    Batching, InferenceArgs, MaybeKeyed, ModelHandler, ModelInfo, PerKeyModels, RunInference, Stage, from_fn,
};
use tiebeam_runner::{EmbeddedRunner, JobReport, RunnerOptions};
use tiebeam_testing::{TestPipeline, assert_that};

const NAMESPACE: &str = "BeamML_KeyedModels";

/// `x + 1`, and fails on what is below nothing.
fn plus_one() -> impl ModelHandler<Example = i64, Inference = i64> {
    from_fn("plus_one", |batch: &[i64]| match batch.iter().find(|x| **x < 0) {
        Some(x) => Err(format!("{x} is below nothing")),
        None => Ok(batch.iter().map(|x| x + 1).collect()),
    })
}

fn always(answer: i64) -> impl ModelHandler<Example = i64, Inference = i64> {
    from_fn(format!("always {answer}"), move |batch: &[i64]| Ok::<_, String>(vec![answer; batch.len()]))
}

const C03: [(i64, i64); 4] = [(0, 1), (1, 5), (2, 3), (3, 10)];

#[test]
fn c03_keyed_examples() {
    TestPipeline::run_all_modes(|p| {
        let results = p.apply(Create::of(C03)).apply(RunInference::new(plus_one().keyed()));
        let pairs = results.map(|(key, result)| (key, (result.example, result.inference)));
        assert_that(&pairs).contains_in_any_order([(0, (1, 2)), (1, (5, 6)), (2, (3, 4)), (3, (10, 11))]);
    });
}

#[test]
fn steps_see_the_value_and_dead_letters_keep_the_key() {
    TestPipeline::run_all_modes(|p| {
        let chain = plus_one()
            .try_preprocess(|text: String| text.parse::<i64>())
            .postprocess(|result| result.inference * 10)
            .keyed::<String>();
        let input = [("a", "1"), ("b", "x"), ("c", "-3"), ("d", "4")];
        let input = input.map(|(key, text)| (key.to_owned(), text.to_owned()));
        let inferred = p.apply(Create::of(input)).apply(RunInference::new(chain).with_exception_handling());
        assert_that(&inferred.results).contains_in_any_order([("a".to_owned(), 20), ("d".to_owned(), 50)]);
        let failed = inferred.failed.map(|failed| (failed.element.0, failed.letter.stage.name().to_owned()));
        let wanted = [("b", "preprocess"), ("c", "inference")];
        assert_that(&failed).contains_in_any_order(wanted.map(|(k, s)| (k.to_owned(), s.to_owned())));
        let by_stage = inferred.failed_preprocessing(0).map(|failed| failed.element.1);
        assert_that(&by_stage).contains_in_any_order(["x".to_owned()]);
        let by_stage = inferred.failed_inferences().map(|failed| failed.element.1);
        assert_that(&by_stage).contains_in_any_order(["-3".to_owned()]);
    });
}

#[test]
fn keys_come_out_where_they_went_in() {
    TestPipeline::run_all_modes(|p| {
        let input: [MaybeKeyed<String, i64>; 3] =
            [("a".to_owned(), 1).into(), MaybeKeyed::Unkeyed(5), ("b".to_owned(), 3).into()];
        let results = p.apply(Create::of(input)).apply(RunInference::new(plus_one().maybe_keyed()));
        let numbers = results.map(|result| match result {
            MaybeKeyed::Keyed(key, result) => (key, result.inference),
            MaybeKeyed::Unkeyed(result) => ("-".to_owned(), result.inference),
        });
        let wanted = [("a".to_owned(), 2), ("-".to_owned(), 6), ("b".to_owned(), 4)];
        assert_that(&numbers).contains_in_any_order(wanted);
    });
}

#[test]
fn results_without_the_example_keep_their_keys() {
    TestPipeline::run_all_modes(|p| {
        let results = p.apply(Create::of(C03)).apply(RunInference::new(plus_one().keyed()).drop_example());
        let pairs = results.map(|(key, result)| {
            let () = result.example;
            (key, result.inference)
        });
        assert_that(&pairs).contains_in_any_order([(0, 2), (1, 6), (2, 4), (3, 11)]);
        let input: [MaybeKeyed<i64, i64>; 2] = [(7, 1).into(), MaybeKeyed::Unkeyed(5)];
        let run = RunInference::new(plus_one().maybe_keyed()).drop_example().with_exception_handling();
        let inferred = p.step("Some").apply(Create::of(input)).step("Maybe").apply(run);
        let numbers = inferred.results.map(|result| match result {
            MaybeKeyed::Keyed(key, result) => (key, result.inference),
            MaybeKeyed::Unkeyed(result) => (-1, result.inference),
        });
        assert_that(&numbers).contains_in_any_order([(7, 2), (-1, 6)]);
    });
}

fn loads(report: &JobReport, name: &str) -> i64 {
    match report.metric(NAMESPACE, name) {
        Some(MetricValue::Distribution(loads)) => loads.count,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn c04_a_model_for_each_key_and_its_metrics() {
    let reports = TestPipeline::run_all_modes(|p| {
        let models = PerKeyModels::new().with_models([0i64], always(200)).with_models([1, 2, 3], plus_one());
        let results = p.apply(Create::of(C03)).apply(RunInference::new(models));
        let pairs = results.map(|(key, result)| (key, (result.inference, result.model_id.to_string())));
        let wanted = [(0, 200, "always 200"), (1, 6, "plus_one"), (2, 4, "plus_one"), (3, 11, "plus_one")];
        assert_that(&pairs).contains_in_any_order(wanted.map(|(k, n, id)| (k, (n, id.to_owned()))));
    });
    for report in &reports {
        assert_eq!(report.counter(NAMESPACE, "0-_num_inferences"), 1);
        assert_eq!(report.counter(NAMESPACE, "1-_num_inferences"), 3);
        assert_eq!(report.counter(NAMESPACE, "num_inferences"), 4);
    }
    // (The paranoid mode forgets what a bundle's first run told.)
    for report in [&reports[0], &reports[2]] {
        assert_eq!(loads(report, "0-_load_model_latency_milli_secs"), 1);
        assert_eq!(loads(report, "load_model_latency_milli_secs"), 2);
    }
}

/// Counts its loads and how many of it and its like are in memory.
struct Counted {
    loads: Arc<AtomicUsize>,
    alive: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    bytes: u64,
}

struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ModelHandler for Counted {
    type Example = i64;
    type Inference = i64;
    type Model = Alive;

    fn load_model(&self) -> Result<Alive> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let alive = self.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(alive, Ordering::SeqCst);
        Ok(Alive(self.alive.clone()))
    }

    fn run_inference(&self, batch: &[i64], _: &Alive, _: &InferenceArgs) -> Result<Vec<i64>> {
        Ok(batch.to_vec())
    }

    fn model_info(&self, _: &Alive) -> ModelInfo {
        ModelInfo { model_id: "counted".into(), bytes: Some(self.bytes), ..ModelInfo::default() }
    }
}

/// Two cohorts of which one may be loaded: loads, and the most that were in memory at once.
fn with_limit(limit: impl Fn(PerKeyModels<i64, i64, i64>) -> PerKeyModels<i64, i64, i64>) -> (usize, usize) {
    let (loads, alive, most) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = || Counted { loads: loads.clone(), alive: alive.clone(), most: most.clone(), bytes: 1000 };
    let p = Pipeline::new();
    let models = PerKeyModels::new().with_models([0i64], counted()).with_models([1], counted());
    let input = p.apply(Create::of((0..20i64).map(|i| (i % 2, i))));
    let results = input.apply(RunInference::new(limit(models)));
    assert_that(&results.map(|(_, result)| result.inference)).contains_in_any_order(0..20);
    let options = RunnerOptions::default().with_threads(1);
    EmbeddedRunner::new(options).run(&p.build().unwrap()).unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 0, "released at the end");
    (loads.load(Ordering::SeqCst), most.load(Ordering::SeqCst))
}

#[test]
fn c05_no_more_models_at_once_than_the_hint() {
    let (loads, most) = with_limit(|models| models.max_models_hint(1));
    assert!(loads > 2 && loads < 12, "{loads} loads");
    assert_eq!(most, 1);
    assert_eq!(with_limit(|models| models), (2, 2));
}

#[test]
fn models_are_let_go_by_their_bytes() {
    let (loads, most) = with_limit(|models| models.max_model_bytes(1500));
    assert!(loads > 2, "{loads} loads");
    // What it takes is known after the first load.
    assert!(most <= 2, "{most}");
    assert_eq!(with_limit(|models| models.max_model_bytes(2000)), (2, 2));
}

#[test]
fn fault_07_models_for_each_key_have_preprocess_steps() {
    TestPipeline::run_all_modes(|p| {
        let own = plus_one().try_preprocess(|text: String| text.parse::<i64>());
        let models = PerKeyModels::new()
            .with_models(["a".to_owned()], own)
            .with_models(["b".to_owned()], always(7).preprocess(|text: String| text.len() as i64));
        let input = [("a", "1"), ("a", "x"), ("b", "y"), ("a", "-4"), ("a", "5")];
        let input = p.apply(Create::of(input.map(|(key, text)| (key.to_owned(), text.to_owned()))));
        let inferred = input.apply(RunInference::new(models).with_exception_handling());
        let numbers = inferred.results.map(|(key, result)| (key, result.inference));
        assert_that(&numbers)
            .contains_in_any_order([("a", 2), ("a", 6), ("b", 7)].map(|(k, n)| (k.to_owned(), n)));
        let failed = inferred.failed.map(|failed| failed.element.1);
        assert_that(&failed).contains_in_any_order(["x", "-4"].map(str::to_owned));
        // And steps before all of them.
        let models = PerKeyModels::new().with_models([1i64], plus_one()).with_models([2], always(9));
        let doubled = models.preprocess(|text: String| text.len() as i64 * 2);
        let input = p.step("Texts").apply(Create::of([(1i64, "abc".to_owned()), (2, String::new())]));
        let results = input.step("All").apply(RunInference::new(doubled));
        assert_that(&results.map(|(key, result)| (key, result.inference)))
            .contains_in_any_order([(1, 7), (2, 9)]);
    });
}

#[test]
fn fault_15_a_failing_model_fails_no_other_keys_elements() {
    let reports = TestPipeline::run_all_modes(|p| {
        let broken = from_fn("broken", |_: &[i64]| Err::<Vec<i64>, _>("it is broken".to_owned()));
        let models = PerKeyModels::new().with_models([0i64], broken).with_models([1, 2], plus_one());
        let input = p.apply(Create::of((0..300i64).map(|i| (i % 3, i))));
        let models = models.with_batching(Batching::fixed(64));
        let inferred = input.apply(RunInference::new(models).with_exception_handling());
        let wanted = (0..300i64).filter(|i| i % 3 != 0).map(|i| (i % 3, i + 1));
        assert_that(&inferred.results.map(|(key, result)| (key, result.inference)))
            .contains_in_any_order(wanted);
        let failed = inferred.failed.map(|failed| failed.element);
        assert_that(&failed).contains_in_any_order((0..300i64).filter(|i| i % 3 == 0).map(|i| (0, i)));
    });
    for report in &reports {
        assert_eq!(report.counter(NAMESPACE, "1-_num_inferences"), 200);
        assert_eq!(report.counter(NAMESPACE, "1-_failed_batches_counter"), 0);
    }
    // (The paranoid mode forgets what a bundle's first run told.)
    assert!(reports[0].counter(NAMESPACE, "0-_failed_batches_counter") > 0);
}

#[test]
fn a_key_without_a_model_is_a_dead_letter_that_names_it() {
    TestPipeline::run_all_modes(|p| {
        let models = PerKeyModels::new().with_models([0i64, 1], plus_one());
        let input = p.apply(Create::of([(0i64, 1i64), (9, 2), (1, 3)]));
        let inferred = input.apply(RunInference::new(models).with_exception_handling());
        assert_that(&inferred.results.map(|(key, result)| (key, result.inference)))
            .contains_in_any_order([(0, 2), (1, 4)]);
        let failed = inferred.failed.map(|failed| {
            assert_eq!(failed.letter.stage, Stage::Inference);
            (failed.element, failed.letter.failure.message)
        });
        let wanted = ((9, 2), "no model is for the key 9, only for 0, 1".to_owned());
        assert_that(&failed).contains_in_any_order([wanted]);
    });
}

fn mistakes(models: PerKeyModels<i64, i64, i64>) -> Vec<String> {
    let p = Pipeline::new();
    p.apply(Create::of([(0i64, 1i64)])).apply(RunInference::new(models));
    let errors = p.build().err().unwrap();
    errors.0.iter().map(|(error, _)| error.message().to_owned()).collect()
}

#[test]
fn overlapping_and_empty_lists_of_keys_are_refused() {
    let twice = PerKeyModels::new().with_models([1i64, 2], plus_one()).with_models([2], always(1));
    assert_eq!(mistakes(twice), ["the key 2 is in two lists, that of plus_one and that of always 1"]);
    let empty = PerKeyModels::new().with_models([1i64], plus_one()).with_models([], always(1));
    assert_eq!(mistakes(empty), ["always 1 was given an empty list of keys"]);
    let none: PerKeyModels<i64, i64, i64> = PerKeyModels::new();
    assert_eq!(mistakes(none), ["a model for each key was wanted, and there is not one: `with_models`"]);
}

#[test]
fn a_model_that_is_missing_ends_the_job_before_anything_is_read() {
    struct Missing;
    impl ModelHandler for Missing {
        type Example = i64;
        type Inference = i64;
        type Model = ();
        fn load_model(&self) -> Result<()> {
            Err(Error::new(ErrorKind::Model, "TB0360", "no model at m.pth"))
        }
        fn run_inference(&self, _: &[i64], (): &(), _: &InferenceArgs) -> Result<Vec<i64>> {
            panic!("never loaded")
        }
    }
    let p = Pipeline::new();
    let models = PerKeyModels::new().with_models([0i64], plus_one()).with_models([1], Missing);
    p.apply(Create::of([(0i64, 1i64)])).apply(RunInference::new(models));
    let error = p.build().unwrap().run_checks().unwrap_err();
    assert_eq!(error.message(), "no model at m.pth");
}

/// Every example to its own model, among many, in batches of threads that share them.
#[test]
fn a_hundred_models_and_none_gets_anothers_examples() {
    TestPipeline::run_all_modes(|p| {
        let mut models = PerKeyModels::new();
        for n in 0..100i64 {
            let times = from_fn(format!("times {n}"), move |batch: &[i64]| {
                Ok::<_, String>(batch.iter().map(|x| x * n).collect::<Vec<i64>>())
            });
            models = models.with_models([n], times);
        }
        let input = p.apply(Create::of((0..20_000i64).map(|i| (i * 7 % 100, i))));
        let results = input.apply(RunInference::new(models.max_models_hint(10)));
        assert_that(&results.map(|(key, result)| (key, result.inference))).satisfies(|found| {
            let count = |all: &mut BTreeMap<(i64, i64), i64>, pair, by| *all.entry(pair).or_insert(0) += by;
            let mut all = BTreeMap::new();
            found.iter().for_each(|pair| count(&mut all, *pair, 1));
            (0..20_000i64).map(|i| (i * 7 % 100, i)).for_each(|(n, i)| count(&mut all, (n, n * i), -1));
            match all.into_iter().find(|(_, n)| *n != 0) {
                None => Ok(()),
                Some((pair, n)) => Err(format!("{pair:?} is there {n} times too often")),
            }
        });
    });
}
