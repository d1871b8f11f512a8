//! Whole jobs on the embedded runner: results, retries, panics, failures, cancel.

#![allow(clippy::unwrap_used)] // a test fails by panicking, in the functions that tests share too

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tiebeam_core::window::{FixedWindows, Sessions, WindowingStrategy};
use tiebeam_core::{
    CombineFn, DoFn, Element, ElementContext, ErrorKind, Output, OutputTag, Result, Timestamp,
};
use tiebeam_graph::{Create, Outputs, PCollection, ParDo, Pipeline};
use tiebeam_runner::{CancelToken, EmbeddedRunner, JobReport, RunnerOptions, Stop};

/// What a pipeline made, gathered outside of it. Only for tests whose bundles never fail after this step.
fn gather<T: Element>(collection: &PCollection<T>) -> Arc<Mutex<Vec<T>>> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let into = all.clone();
    collection.map(move |element| into.lock().unwrap().push(element));
    all
}

fn run(p: &Pipeline, threads: usize) -> Result<JobReport> {
    EmbeddedRunner::new(RunnerOptions::default().with_threads(threads)).run(&p.build().unwrap())
}

fn sorted<T: Ord + Clone>(all: &Mutex<Vec<T>>) -> Vec<T> {
    let mut all = all.lock().unwrap().clone();
    all.sort();
    all
}

#[derive(Clone)]
struct Sum;

impl CombineFn for Sum {
    type Input = i64;
    type Accumulator = i64;
    type Output = i64;
    fn create_accumulator(&self) -> i64 {
        0
    }
    fn add_input(&self, accumulator: &mut i64, input: i64) {
        *accumulator += input;
    }
    fn merge(&self, accumulator: &mut i64, other: i64) {
        *accumulator += other;
    }
    fn extract_output(&self, accumulator: i64) -> i64 {
        accumulator
    }
}

#[test]
fn elements_are_mapped_filtered_grouped_and_combined() {
    for threads in [1, 2, 7] {
        let p = Pipeline::new();
        let numbers = p.apply(Create::of(0..10_000i64));
        let keyed = numbers.filter(|x| x % 2 == 0).map(|x| (x % 5, x));
        let sums = gather(&keyed.combine_per_key(Sum));
        let counts = gather(
            &keyed.group_by_key().map(|(k, values)| (k, (values.count(), values.iter().sum::<i64>()))),
        );
        let report = run(&p, threads).unwrap();
        let expected: Vec<(i64, i64)> =
            (0..5).map(|k| (k, (0..10_000).filter(|x| x % 2 == 0 && x % 5 == k).sum())).collect();
        assert_eq!(sorted(&sums), expected);
        assert_eq!(
            sorted(&counts),
            expected.iter().map(|(k, sum)| (*k, (1000usize, *sum))).collect::<Vec<_>>()
        );
        let filter = report.steps.iter().find(|step| &*step.step == "Filter").unwrap();
        assert_eq!((filter.elements_in, filter.elements_out, filter.filtered), (10_000, 5_000, 5_000));
    }
}

#[test]
fn windows_group_apart_and_sessions_merge() {
    let p = Pipeline::new();
    let events = p
        .apply(Create::of(
            [("a", 1i64), ("a", 4), ("a", 12), ("b", 3), ("a", 25)].map(|(k, t)| (k.to_owned(), t)),
        ))
        .with_timestamps(|(_, t)| Timestamp::from_secs(*t));
    let fixed = events.window_into(WindowingStrategy::of(FixedWindows::of(Duration::from_secs(10))));
    let in_fixed = gather(&fixed.combine_per_key(Sum));
    let sessions = events.window_into(WindowingStrategy::of(Sessions::with_gap(Duration::from_secs(9))));
    let in_sessions = gather(&sessions.combine_per_key(Sum));
    run(&p, 3).unwrap();
    let pair = |k: &str, v: i64| (k.to_owned(), v);
    assert_eq!(sorted(&in_fixed), [pair("a", 5), pair("a", 12), pair("a", 25), pair("b", 3)]);
    assert_eq!(sorted(&in_sessions), [pair("a", 17), pair("a", 25), pair("b", 3)]);
}

#[test]
fn a_side_input_of_the_same_source_is_ready_in_time() {
    let p = Pipeline::new();
    let numbers = p.apply(Create::of(1..=100i64));
    let total = numbers.map(|x| ((), x)).combine_per_key(Sum).map(|(_, sum)| sum).as_singleton();

    #[derive(Clone)]
    struct Share(tiebeam_core::View<i64>);
    impl DoFn for Share {
        type In = i64;
        type Out = (i64, i64);
        fn process(&mut self, x: i64, cx: &ElementContext<'_>, out: &mut Output<(i64, i64)>) -> Result<()> {
            out.emit((x, *cx.side_input(&self.0)?));
            Ok(())
        }
    }
    let shares = gather(&numbers.apply(ParDo::new(Share(total.view())).with_side_input(&total)));
    run(&p, 2).unwrap();
    assert_eq!(sorted(&shares), (1..=100).map(|x| (x, 5050)).collect::<Vec<_>>());
}

#[test]
fn tagged_outputs_and_flatten_keep_every_element() {
    #[derive(Clone)]
    struct Split(OutputTag<String>);
    impl DoFn for Split {
        type In = i64;
        type Out = i64;
        fn process(&mut self, x: i64, _: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
            if x % 3 == 0 {
                out.emit_to(&self.0, x.to_string());
            } else {
                out.emit(x);
            }
            Ok(())
        }
    }
    let tag = OutputTag::new("thirds");
    let p = Pipeline::new();
    let numbers = p.apply(Create::of(0..1000i64));
    let outputs: Outputs<i64> = numbers.apply(ParDo::new(Split(tag.clone())).with_output(&tag));
    let back = outputs.get(&tag).map(|text| text.parse::<i64>().unwrap());
    let all = gather(&p.flatten([outputs.main, back, p.apply(Create::of([5000i64]))]));
    run(&p, 2).unwrap();
    assert_eq!(sorted(&all), (0..1000).chain([5000]).collect::<Vec<_>>());
}

#[test]
fn a_panic_names_its_step_and_place_after_four_attempts() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let p = Pipeline::new();
    p.apply(Create::of([1i64])).step("Explode").map(move |x: i64| {
        counted.fetch_add(1, Ordering::SeqCst);
        assert!(x > 1, "no ones here");
        x
    });
    let error = run(&p, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panic);
    assert_eq!(error.step(), Some("Explode"));
    assert!(error.message().contains("no ones here"), "{error}");
    assert!(error.message().contains("jobs.rs:"), "{error}");
    assert_eq!(tries.load(Ordering::SeqCst), 4);
}

#[test]
fn a_bundle_that_fails_at_first_counts_once() {
    let tries = Arc::new(AtomicUsize::new(0));
    let p = Pipeline::new();
    let flaky = p.apply(Create::of(0..100i64)).step("Flaky").map(move |x| {
        assert!(x != 50 || tries.fetch_add(1, Ordering::SeqCst) > 1, "not yet");
        (0i64, x)
    });
    let sums = gather(&flaky.combine_per_key(Sum));
    let report = run(&p, 2).unwrap();
    assert_eq!(sorted(&sums), [(0, 4950)]);
    let step = report.steps.iter().find(|step| &*step.step == "Flaky").unwrap();
    assert_eq!((step.elements_in, step.elements_out, step.retries), (100, 100, 2));
}

#[test]
fn a_cancelled_job_ends_promptly_with_no_thread_left() {
    let cancel = CancelToken::default();
    let asked = cancel.clone();
    let p = Pipeline::new();
    p.apply(Create::of(0..100_000i64)).reshuffle().flat_map(move |x| {
        asked.stop(Stop::Cancel);
        std::iter::repeat_n(x, 3)
    });
    let options = RunnerOptions::default().with_threads(2).with_cancel(cancel);
    let error = EmbeddedRunner::new(options).run(&p.build().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn a_check_that_does_not_hold_keeps_everything_from_being_read() {
    let read = Arc::new(AtomicUsize::new(0));
    let counted = read.clone();
    let p = Pipeline::new();
    p.apply(Create::of(0..10i64)).map(move |_| counted.fetch_add(1, Ordering::SeqCst) as i64);
    p.add_check(|| Err(tiebeam_core::Error::new(ErrorKind::Model, "TB0301", "no such model")));
    assert_eq!(run(&p, 1).unwrap_err().kind(), ErrorKind::Model);
    assert_eq!(read.load(Ordering::SeqCst), 0);
}

#[test]
fn all_mistakes_of_a_pipeline_are_shown_at_once() {
    let p = Pipeline::new();
    let numbers = p.step("Numbers").apply(Create::of([1.5f64]));
    numbers.step("Same").map(|x| x);
    numbers.step("Same").map(|x| x);
    numbers.map(|x| (x, 1i64)).group_by_key();
    let errors = p.build().err().unwrap();
    let text = errors.to_string();
    assert_eq!(errors.0.len(), 2, "{text}");
    assert!(
        text.contains("the label `Same` is used twice") && text.contains("cannot be grouped by key"),
        "{text}"
    );
    assert!(text.contains("jobs.rs:"), "{text}");
}
