//! The three modes: the same results in each, and each finds what it is there to find.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tiebeam_core::coder::{Codec, Coder, CoderSpec, Nesting, Reader};
use tiebeam_core::metrics::{DistributionValue, MetricValue};
use tiebeam_core::{
    BundleContext, Bytes, CombineFn, DoFn, Element, ElementContext, Error, ErrorKind, FixedWindows,
    IntervalWindow, Iterable, Output, OutputTag, Result, Sessions, SetupContext, SideMap, SideMultimap,
    Timestamp, View, Window, WindowingStrategy,
};
use tiebeam_graph::{Create, ParDo, Pipeline};
use tiebeam_testing::{Mode, TestPipeline, assert_that};

fn text(s: &str) -> String {
    s.to_owned()
}

fn seconds(start: i64, end: i64) -> Window {
    Window::Interval(IntervalWindow { start: Timestamp::from_secs(start), end: Timestamp::from_secs(end) })
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

    fn add_input(&self, sum: &mut i64, input: i64) {
        *sum += input;
    }

    fn merge(&self, sum: &mut i64, other: i64) {
        *sum += other;
    }

    fn extract_output(&self, sum: i64) -> i64 {
        sum
    }
}

#[test]
fn element_wise_grouping_and_combining() {
    TestPipeline::run_all_modes(|p| {
        let numbers = p.apply(Create::of(0..2_000i64));
        let even = numbers.filter(|n| n % 2 == 0).map(|n| (n % 3, n));
        let sums = (0..3).map(|r| (r, (0..2_000).filter(|n| n % 2 == 0 && n % 3 == r).sum::<i64>()));
        assert_that(&even.combine_per_key(Sum)).contains_in_any_order(sums);
        let sizes = even.group_by_key().map(|(k, all): (i64, Iterable<i64>)| (k, all.count() as i64));
        assert_that(&sizes).contains_in_any_order([(0, 334), (1, 333), (2, 333)]);
        assert_that(&numbers.reshuffle().filter(|n| *n < 0)).is_empty();
        assert_that(&numbers).has_count(2_000);
    });
}

#[test]
fn flatten_and_several_readers_of_one_collection() {
    TestPipeline::run_all_modes(|p| {
        let a = p.step("A").apply(Create::of([text("a"), text("b")]));
        let b = a.map(|word| word + "!");
        let all = p.flatten([a.clone(), b.clone(), a.clone()]);
        let wanted = ["a", "b", "a", "b", "a!", "b!"].map(text);
        assert_that(&all).contains_in_any_order(wanted.clone());
        // Out of a flatten into a shuffle, a store and a side input at once.
        assert_that(&all.reshuffle()).contains_in_any_order(wanted.clone());
        let counts = all.map(|word| (word, 1i64)).combine_per_key(Sum);
        let wanted = [("a", 2), ("b", 2), ("a!", 1), ("b!", 1)].map(|(word, n)| (text(word), n));
        assert_that(&counts).contains_in_any_order(wanted);
    });
}

#[test]
fn windows_and_sessions() {
    TestPipeline::run_all_modes(|p| {
        let times = p.apply(Create::of([1i64, 4, 11, 29])).with_timestamps(|s| Timestamp::from_secs(*s));
        let fixed = WindowingStrategy::of(FixedWindows::of(Duration::from_secs(10)));
        let sums = times.window_into(fixed).map(|n| (text("k"), n)).combine_per_key(Sum);
        let of = |n| (text("k"), n);
        assert_that(&sums).contains_in_windows([
            (of(5), seconds(0, 10)),
            (of(11), seconds(10, 20)),
            (of(29), seconds(20, 30)),
        ]);
        let sessions = WindowingStrategy::of(Sessions::with_gap(Duration::from_secs(8)));
        let grouped = times.window_into(sessions).map(|n| (text("k"), n)).group_by_key();
        let sums = grouped.map(|(k, all): (String, Iterable<i64>)| (k, all.iter().sum::<i64>()));
        assert_that(&sums).contains_in_windows([(of(16), seconds(1, 19)), (of(29), seconds(29, 37))]);
    });
}

#[derive(Clone)]
struct Joins {
    factor: View<i64>,
    list: View<Vec<i64>>,
    map: View<SideMap<String, i64>>,
    multimap: View<SideMultimap<String, i64>>,
}

impl DoFn for Joins {
    type In = String;
    type Out = (String, i64);

    fn process(&mut self, word: String, cx: &ElementContext<'_>, out: &mut Output<Self::Out>) -> Result<()> {
        let factor = *cx.side_input(&self.factor)?;
        let list: i64 = cx.side_input(&self.list)?.iter().sum();
        let one = cx.side_input(&self.map)?.get(&word).copied().unwrap_or(-1);
        let many: i64 = cx.side_input(&self.multimap)?.get(&word)?.iter().sum();
        out.emit((word, factor * (list + one + many)));
        Ok(())
    }
}

#[test]
fn side_inputs_of_all_shapes() {
    TestPipeline::run_all_modes(|p| {
        let words = p.step("Words").apply(Create::of(["a", "b", "c"].map(text)));
        let factor = p.step("Factor").apply(Create::of([10i64])).as_singleton();
        let list = p.step("List").apply(Create::of(0..100i64)).as_list();
        let map = p.step("Map").apply(Create::of([(text("a"), 1i64), (text("b"), 2)])).as_map();
        let pairs = [("a", 100i64), ("a", 200), ("c", 300)].map(|(k, v)| (text(k), v));
        let multimap = p.step("Multimap").apply(Create::of(pairs)).as_multimap();
        let dofn =
            Joins { factor: factor.view(), list: list.view(), map: map.view(), multimap: multimap.view() };
        let par_do = ParDo::new(dofn)
            .with_side_input(&factor)
            .with_side_input(&list)
            .with_side_input(&map)
            .with_side_input(&multimap);
        let wanted = [("a", 52_510i64), ("b", 49_520), ("c", 52_490)].map(|(k, v)| (text(k), v));
        assert_that(&words.apply(par_do)).contains_in_any_order(wanted);
    });
}

#[derive(Clone)]
struct Counting(Option<SetupCells>);

#[derive(Clone)]
struct SetupCells {
    words: tiebeam_core::metrics::Counter,
    sizes: tiebeam_core::metrics::Distribution,
    last: tiebeam_core::metrics::Gauge,
}

impl DoFn for Counting {
    type In = String;
    type Out = i64;

    fn setup(&mut self, cx: &SetupContext) -> Result<()> {
        self.0 = Some(SetupCells {
            words: cx.counter("ns", "words"),
            sizes: cx.distribution("ns", "sizes"),
            last: cx.gauge("ns", "last"),
        });
        Ok(())
    }

    fn process(&mut self, word: String, _: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
        let cells = self.0.as_ref().unwrap();
        cells.words.inc();
        cells.sizes.update(word.len() as i64);
        cells.last.set(7);
        out.emit(word.len() as i64);
        Ok(())
    }
}

#[test]
fn metrics_and_counts_are_the_same_in_all_modes() {
    let reports = TestPipeline::run_all_modes(|p| {
        let words = p.apply(Create::of(["a", "bb", "ccc"].map(text)));
        words.step("Count").apply(ParDo::new(Counting(None))).step("Big").filter(|n| *n > 1);
    });
    for report in &reports {
        assert_eq!(report.counter("ns", "words"), 3);
        let sizes = DistributionValue { count: 3, sum: 6, min: 1, max: 3 };
        assert_eq!(report.metric("ns", "sizes"), Some(MetricValue::Distribution(sizes)));
        assert_eq!(report.metric("ns", "last"), Some(MetricValue::Gauge(7)));
        let counts: Vec<_> = report
            .steps
            .iter()
            .map(|step| (&*step.step, step.elements_in, step.elements_out, step.filtered))
            .collect();
        assert_eq!(
            counts,
            [
                ("Create/Impulse", 0, 1, 0),
                ("Create/Elements", 1, 3, 0),
                ("Create/Reshuffle", 3, 3, 0),
                ("Count", 3, 3, 0),
                ("Big", 3, 2, 1),
            ]
        );
    }
}

#[test]
fn tagged_outputs_and_dead_letters() {
    TestPipeline::run_all_modes(|p| {
        let cells = p.apply(Create::of(["1", "x", "3"].map(text)));
        let parsed = cells.try_map(|cell| cell.parse::<i64>());
        assert_that(&parsed.results).contains_in_any_order([1, 3]);
        assert_that(&parsed.failed.map(|failed| failed.element)).equals(text("x"));
    });
}

#[test]
fn errors_and_panics_name_their_step_in_all_modes() {
    for error in TestPipeline::fails_in_all_modes(|p| {
        p.apply(Create::of([1i64, 0])).step("Divide").map(|n| 10 / n);
    }) {
        assert_eq!((error.code(), error.step(), error.kind()), ("TB0502", Some("Divide"), ErrorKind::Panic));
        assert!(error.message().contains("attempt to divide by zero"), "{error}");
    }

    struct Refuses;
    impl DoFn for Refuses {
        type In = i64;
        type Out = i64;
        fn process(&mut self, n: i64, _: &ElementContext<'_>, _: &mut Output<i64>) -> Result<()> {
            Err(Error::user(format!("no {n}")))
        }
    }
    for error in TestPipeline::fails_in_all_modes(|p| {
        p.apply(Create::of([5i64])).step("Refuse").apply(ParDo::from_fn(|| Refuses));
    }) {
        assert_eq!(error.to_string(), "Refuse: no 5");
    }
}

#[test]
fn a_bundle_that_fails_once_is_tried_again_in_all_modes() {
    let failures = Arc::new(AtomicUsize::new(0));
    for mode in Mode::all() {
        failures.store(0, Ordering::Relaxed);
        let failures = failures.clone();
        let report = TestPipeline::run(mode, move |p| {
            let failures = failures.clone();
            let numbers = p.apply(Create::of(0..50i64)).step("Flaky").map(move |n| {
                assert!(n != 20 || failures.fetch_add(1, Ordering::Relaxed) > 0, "the first time");
                n
            });
            assert_that(&numbers).contains_in_any_order(0..50);
        });
        let retries: u64 = report.unwrap().steps.iter().map(|step| step.retries).sum();
        assert_eq!(retries, 1, "{mode}");
    }
}

/// A number whose coder forgets what is above a byte.
#[derive(Clone, Debug, PartialEq)]
struct Lossy(i64);

struct LossyCodec;

impl Codec<Lossy> for LossyCodec {
    fn encode(&self, value: &Lossy, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        out.push(value.0 as u8);
        Ok(())
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Lossy> {
        input.u8().map(|byte| Lossy(i64::from(byte)))
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::leaf("test:lossy")
    }
}

impl Element for Lossy {
    fn coder() -> Coder<Self> {
        Coder::new(LossyCodec)
    }
}

#[test]
fn a_coder_that_loses_is_found_by_the_modes_that_encode() {
    let build = |p: &Pipeline| {
        let lossy = p.apply(Create::of([300i64])).map(Lossy).map(|lossy| lossy.0);
        assert_that(&lossy).equals(300);
    };
    assert!(TestPipeline::run(Mode::Fused, build).is_ok());
    let error = TestPipeline::run(Mode::Paranoid { seed: 1 }, build).unwrap_err();
    assert_eq!(error.step(), Some("AssertThat/Check"));
    let message = error.message();
    assert!(message.starts_with("assertion failed at crates/tiebeam-testing/tests/modes.rs:"), "{message}");
    assert!(
        message.ends_with(
            "wanted 1 elements in any order, found 1\n  missing (1):\n    - 300\n  not wanted (1):\n    + 44"
        ),
        "{message}"
    );
}

#[test]
fn what_depends_on_bundles_is_found_by_the_paranoid_mode() {
    /// Numbers elements across bundles.
    #[derive(Clone)]
    struct Numbers(i64);
    impl DoFn for Numbers {
        type In = i64;
        type Out = i64;
        fn process(&mut self, _: i64, _: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
            self.0 += 1;
            out.emit(self.0);
            Ok(())
        }
    }
    let error = TestPipeline::run(Mode::Paranoid { seed: 3 }, |p| {
        let numbered = p.apply(Create::of([7i64, 7])).step("Number").apply(ParDo::new(Numbers(0)));
        assert_that(&numbered).contains_in_any_order([1, 2]);
    });
    assert!(error.unwrap_err().message().contains("assertion failed"));
}

#[test]
fn a_worker_that_builds_something_else_is_found_by_the_worker_mode() {
    let builds = AtomicUsize::new(0);
    let error = TestPipeline::run(Mode::Worker, |p| {
        let numbers = p.apply(Create::of([1i64]));
        if builds.fetch_add(1, Ordering::Relaxed) == 0 {
            numbers.step("Text").map(|n| n.to_string());
        } else {
            numbers.step("Text").map(|n| n as f64);
        }
    })
    .unwrap_err();
    assert_eq!(error.code(), "TB0542");
    assert!(error.message().starts_with("this worker has built another pipeline than the job"), "{error}");
}

#[test]
fn what_finish_bundle_emits_arrives_once() {
    /// Emits the number of elements at the end of each bundle.
    #[derive(Clone)]
    struct AtEnd(i64, OutputTag<Bytes>);
    impl DoFn for AtEnd {
        type In = i64;
        type Out = i64;
        fn start_bundle(&mut self, _: &BundleContext<'_>, _: &mut Output<i64>) -> Result<()> {
            self.0 = 0;
            Ok(())
        }
        fn process(&mut self, _: i64, _: &ElementContext<'_>, _: &mut Output<i64>) -> Result<()> {
            self.0 += 1;
            Ok(())
        }
        fn finish_bundle(&mut self, _: &BundleContext<'_>, out: &mut Output<i64>) -> Result<()> {
            out.emit(self.0);
            out.emit_to(&self.1, Bytes::from_static(b"end"));
            Ok(())
        }
    }
    TestPipeline::run_all_modes(|p| {
        let tag = OutputTag::new("ends");
        let par_do = ParDo::new(AtEnd(0, tag.clone())).with_output(&tag);
        let outputs = p.apply(Create::of(0..1_000i64)).apply(par_do);
        let total = outputs.main.map(|n| ((), n)).combine_per_key(Sum);
        assert_that(&total.map(|((), n)| n)).equals(1_000);
        assert_that(&outputs.get(&tag).filter(|end| end != "end")).is_empty();
    });
}

#[test]
fn differences_are_short_and_sorted_by_side() {
    for error in TestPipeline::fails_in_all_modes(|p| {
        assert_that(&p.apply(Create::of([1i64, 2, 2]))).contains_in_any_order([2, 2, 3, 3]);
    }) {
        let (_, difference) = error.message().split_once(": ").unwrap();
        assert_eq!(
            difference,
            "wanted 4 elements in any order, found 3\n  missing (2):\n    - 3\n    - 3\n  not wanted (1):\n    + 1"
        );
        assert!(!error.is_retryable());
    }
    for error in TestPipeline::fails_in_all_modes(|p| {
        assert_that(&p.apply(Create::of(0..100i64)).map(|_| 5i64)).is_empty();
    }) {
        assert!(error.message().ends_with("+ 5\n    … and 80 more"), "{error}");
    }
    for error in TestPipeline::fails_in_all_modes(|p| {
        assert_that(&p.apply(Create::of([1i64]))).satisfies(|all| {
            if all.iter().sum::<i64>() == 2 { Ok(()) } else { Err(format!("the sum is not 2: {all:?}")) }
        });
    }) {
        assert!(error.message().ends_with(": the sum is not 2: [1]"), "{error}");
    }
}

#[test]
fn what_nobody_reads_goes_nowhere() {
    TestPipeline::run_all_modes(|p| {
        // Its last edge is read by no step: the job runs all the same.
        let _ = p.step("Unread").apply(Create::of(0..10i64));
        let _ = p.step("Grouped").apply(Create::of([(1i64, 2i64)])).group_by_key();
        assert_that(&p.step("Read").apply(Create::of([1i64, 2]))).contains_in_any_order([1, 2]);
    });
}
