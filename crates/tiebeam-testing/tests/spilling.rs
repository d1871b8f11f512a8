//! What does not fit in memory goes to disk, and nothing is different for it: groups, windows, times, side inputs.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking, in the functions that tests share too

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tiebeam_core::window::{FixedWindows, Sessions, SlidingWindows, WindowingStrategy};
use tiebeam_core::{DoFn, ElementContext, Output, Result, Timestamp, View};
use tiebeam_graph::{Create, PCollection, ParDo, Pipeline};
use tiebeam_runner::{JobReport, RunnerOptions};
use tiebeam_testing::{Mode, TestPipeline, assert_that};

/// So little that everything spills.
const TINY: u64 = 64 << 10;

fn tiny(dir: &Path) -> impl FnOnce(RunnerOptions) -> RunnerOptions {
    let dir = dir.to_owned();
    move |options| RunnerOptions { spill_dir: Some(dir), ..options.with_memory_limit(TINY) }
}

/// Runs it in all modes with tiny memory. Something must have spilled, and nothing be left of it.
fn run_tiny(build: impl Fn(&Pipeline)) -> [JobReport; 3] {
    let dir = tempfile::tempdir().unwrap();
    Mode::all().map(|mode| {
        let report = match TestPipeline::run_with(mode, tiny(dir.path()), &build) {
            Ok(report) => report,
            Err(error) => panic!("failed in mode {mode}\n{error:?}"),
        };
        assert!(report.counter("runner", "spilled_bytes") > 0, "nothing spilled in mode {mode}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "left over in mode {mode}");
        report
    })
}

/// A number that has nothing to do with its neighbours'.
fn mixed(n: i64) -> i64 {
    let z = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 8) as i64
}

#[test]
fn groups_are_the_same_from_disk() {
    let count = 30_000;
    let expected: Vec<(i64, (usize, i64, i64))> = {
        let mut all: BTreeMap<i64, (usize, i64, i64)> = BTreeMap::new();
        for n in 0..count {
            let group = all.entry(mixed(n) % 500).or_default();
            *group = (group.0 + 1, group.1 + n, group.2.wrapping_add(n * n));
        }
        all.into_iter().collect()
    };
    run_tiny(|p| {
        let keyed = p.apply(Create::of(0..count)).reshuffle().map(|n| (mixed(n) % 500, n));
        let sums = keyed.group_by_key().map(|(key, values)| {
            let sums = values.iter().fold((0, 0i64), |(s, q), n| (s + n, q.wrapping_add(n * n)));
            // Twice, and the number is known without reading.
            assert_eq!(values.count(), values.iter().count());
            (key, (values.count() as i64, sums))
        });
        let flat = sums.map(|(key, (n, (s, q)))| format!("{key} {n} {s} {q}"));
        let wanted = expected.iter().map(|(key, (n, s, q))| format!("{key} {n} {s} {q}"));
        assert_that(&flat).contains_in_any_order(wanted.collect::<Vec<_>>());
    });
}

#[test]
fn a_group_larger_than_the_limit_is_read_page_by_page_and_named() {
    let reports = run_tiny(|p| {
        let words = p.apply(Create::of(0..4_000i64)).reshuffle().map(|n| {
            let key = if n % 4 == 0 { "cold".to_owned() + &(n % 7).to_string() } else { "hot".to_owned() };
            (key, format!("{n:0>100}"))
        });
        let sums = words.group_by_key().map(|(key, values)| {
            let numbers = || values.iter().map(|text| text.parse::<i64>().unwrap());
            assert_eq!(numbers().max(), numbers().reduce(i64::max));
            format!("{key} {} {}", values.count(), numbers().sum::<i64>())
        });
        let mut expected: BTreeMap<String, (usize, i64)> = BTreeMap::new();
        for n in 0..4_000i64 {
            let key = if n % 4 == 0 { format!("cold{}", n % 7) } else { "hot".to_owned() };
            let group = expected.entry(key).or_default();
            *group = (group.0 + 1, group.1 + n);
        }
        let expected = expected.into_iter().map(|(key, (n, sum))| format!("{key} {n} {sum}"));
        assert_that(&sums).contains_in_any_order(expected.collect::<Vec<_>>());
    });
    for report in &reports {
        let first = report.notes.first().unwrap();
        assert!(first.starts_with("key `hot` has 3000 values of 303000 bytes in "), "{first}");
    }
}

/// An element's time, exactly.
#[derive(Clone)]
struct AtMicros;

impl DoFn for AtMicros {
    type In = (i64, i64);
    type Out = (i64, i64);
    fn process(
        &mut self,
        (key, n): (i64, i64),
        cx: &ElementContext<'_>,
        out: &mut Output<(i64, i64)>,
    ) -> Result<()> {
        out.emit_with((key, n), &cx.info().at(Timestamp::from_micros(n * 1_000)));
        Ok(())
    }
}

#[derive(Clone)]
struct Told;

impl DoFn for Told {
    type In = (i64, tiebeam_core::Iterable<i64>);
    type Out = String;
    fn process(
        &mut self,
        (key, values): Self::In,
        cx: &ElementContext<'_>,
        out: &mut Output<String>,
    ) -> Result<()> {
        let info = cx.info();
        let sum: i64 = values.iter().sum();
        out.emit(format!(
            "{key} {:?} {:?} {:?} {} {sum}",
            info.timestamp,
            info.windows,
            info.pane,
            values.count()
        ));
        Ok(())
    }
}

/// What grouping gives with plenty of memory and with little: in each mode the same lines.
fn same_with_little_memory(strategy: &WindowingStrategy, gap: i64) {
    let dir = tempfile::tempdir().unwrap();
    for mode in Mode::all() {
        let run = |little: bool| {
            let lines = Arc::new(Mutex::new(Vec::new()));
            let into = lines.clone();
            let build = |p: &Pipeline| {
                let into = into.clone();
                let timed = p
                    .apply(Create::of(0..20_000i64))
                    .reshuffle()
                    .map(move |n| (mixed(n) % 11, n + (n / 1_000) * gap))
                    .apply(ParDo::new(AtMicros));
                let groups = timed.window_into(strategy.clone()).group_by_key().apply(ParDo::new(Told));
                groups.map(move |line| into.lock().unwrap().push(line));
            };
            let change = |options: RunnerOptions| if little { tiny(dir.path())(options) } else { options };
            let report = TestPipeline::run_with(mode, change, build).unwrap();
            assert_eq!(report.counter("runner", "spilled_bytes") > 0, little, "{mode}");
            let mut lines = std::mem::take(&mut *lines.lock().unwrap());
            lines.sort();
            // Bundles are run twice in one of the modes.
            lines.dedup();
            lines
        };
        let (plenty, little) = (run(false), run(true));
        assert!(plenty.len() > 11, "{}", plenty.len());
        assert_eq!(plenty, little, "{mode}");
    }
}

#[test]
fn windows_times_and_panes_stay_exact() {
    same_with_little_memory(&WindowingStrategy::of(FixedWindows::of(Duration::from_secs(3))), 0);
    same_with_little_memory(
        &WindowingStrategy::of(SlidingWindows::of(Duration::from_secs(4), Duration::from_secs(2))),
        0,
    );
}

#[test]
fn sessions_merge_from_disk() {
    same_with_little_memory(&WindowingStrategy::of(Sessions::with_gap(Duration::from_millis(600))), 5_000);
}

/// Times that Beam's coders can't tell: they must not be rounded by a stay on disk.
#[test]
fn microseconds_survive_between_stages() {
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    let build = move |p: &Pipeline| {
        #[derive(Clone)]
        struct Odd;
        impl DoFn for Odd {
            type In = i64;
            type Out = i64;
            fn process(&mut self, n: i64, cx: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
                out.emit_with(n, &cx.info().at(Timestamp::from_micros(n * 1_001 + 7)));
                Ok(())
            }
        }
        #[derive(Clone)]
        struct See(Arc<Mutex<Vec<(i64, i64)>>>);
        impl DoFn for See {
            type In = i64;
            type Out = i64;
            fn process(&mut self, n: i64, cx: &ElementContext<'_>, _: &mut Output<i64>) -> Result<()> {
                self.0.lock().unwrap().push((n, cx.timestamp().micros()));
                Ok(())
            }
        }
        let odd = p.apply(Create::of(0..20_000i64)).apply(ParDo::new(Odd));
        odd.reshuffle().apply(ParDo::new(See(into.clone())));
    };
    let report = TestPipeline::run_with(Mode::Fused, tiny(dir.path()), build).unwrap();
    assert!(report.counter("runner", "spilled_bytes") > 0);
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_unstable();
    assert_eq!(seen, (0..20_000i64).map(|n| (n, n * 1_001 + 7)).collect::<Vec<_>>());
}

#[derive(Clone)]
struct Lookup(View<tiebeam_core::SideMultimap<i64, String>>);

impl DoFn for Lookup {
    type In = i64;
    type Out = String;
    fn process(&mut self, key: i64, cx: &ElementContext<'_>, out: &mut Output<String>) -> Result<()> {
        let values = cx.side_input(&self.0)?.get(&key)?;
        let mut values: Vec<String> = values.iter().map(|v| v.trim_start_matches('0').to_owned()).collect();
        values.sort();
        out.emit(format!("{key} {} {}", values.len(), values.join(",").len()));
        Ok(())
    }
}

#[derive(Clone)]
struct Total(View<tiebeam_core::Iterable<String>>);

impl DoFn for Total {
    type In = i64;
    type Out = String;
    fn process(&mut self, key: i64, cx: &ElementContext<'_>, out: &mut Output<String>) -> Result<()> {
        let all = cx.side_input(&self.0)?;
        let sum: i64 = all.iter().map(|text| text.parse::<i64>().unwrap()).sum();
        out.emit(format!("{key} {} {sum}", all.iter().count()));
        Ok(())
    }
}

fn long_numbers(p: &Pipeline) -> PCollection<(i64, String)> {
    p.apply(Create::of(0..4_000i64)).map(|n| (n % 300, format!("{n:0>60}")))
}

#[test]
fn side_inputs_are_read_from_disk() {
    run_tiny(|p| {
        let side = long_numbers(p).as_multimap();
        let keys = p.step("Keys").apply(Create::of([0i64, 7, 299, 300]));
        let found = keys.apply(ParDo::new(Lookup(side.view())).with_side_input(&side));
        let line = |key: i64| {
            let mut values: Vec<String> =
                (0..4_000).filter(|n| n % 300 == key && *n > 0).map(|n| n.to_string()).collect();
            values.extend((key == 0).then(String::new));
            values.sort();
            format!("{key} {} {}", values.len(), values.join(",").len())
        };
        assert_that(&found).contains_in_any_order([0, 7, 299, 300].map(line));
    });
    run_tiny(|p| {
        let side = long_numbers(p).map(|(_, text)| text).as_iterable();
        let keys = p.step("Keys").apply(Create::of([1i64, 2]));
        let totals = keys.apply(ParDo::new(Total(side.view())).with_side_input(&side));
        assert_that(&totals).contains_in_any_order([1, 2].map(|key| format!("{key} 4000 {}", 3_999 * 2_000)));
    });
}

/// Fails in its first bundles, after they wrote more than fits in memory.
#[derive(Clone)]
struct FailsLate(Arc<AtomicUsize>);

impl DoFn for FailsLate {
    type In = i64;
    type Out = (i64, String);
    fn process(&mut self, n: i64, _: &ElementContext<'_>, out: &mut Output<(i64, String)>) -> Result<()> {
        (0..400).for_each(|i| out.emit((i % 10, format!("{:0>80}", n * 1_000 + i))));
        if n % 10 == 9 && self.0.fetch_add(1, Ordering::Relaxed) < 3 {
            return Err(tiebeam_core::Error::user("not yet"));
        }
        Ok(())
    }
}

#[test]
fn what_a_failed_bundle_spilled_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [Mode::Fused, Mode::Paranoid { seed: 5 }] {
        let failures = Arc::new(AtomicUsize::new(0));
        let build = |p: &Pipeline| {
            let pairs =
                p.apply(Create::of(0..100i64)).reshuffle().apply(ParDo::new(FailsLate(failures.clone())));
            let groups = pairs.group_by_key().map(|(key, values)| {
                let distinct: std::collections::BTreeSet<String> = values.iter().collect();
                format!("{key} {} {}", values.count(), distinct.len())
            });
            assert_that(&groups).contains_in_any_order((0..10).map(|key| format!("{key} 4000 4000")));
        };
        let report = TestPipeline::run_with(mode, tiny(dir.path()), build).unwrap();
        assert!(failures.load(Ordering::Relaxed) >= 3);
        assert!(report.steps.iter().map(|step| step.retries).sum::<u64>() >= 3);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_place_that_cannot_be_written_is_told() {
    let build = |p: &Pipeline| {
        long_numbers(p).group_by_key().map(|(key, values)| (key, values.count() as i64));
    };
    let change = |options: RunnerOptions| RunnerOptions {
        spill_dir: Some("/no/such/folder".into()),
        ..options.with_memory_limit(TINY)
    };
    let error = TestPipeline::run_with(Mode::Fused, change, build).unwrap_err();
    assert_eq!(error.code(), "TB0570");
    assert!(
        error.message().starts_with("cannot create a file for spilled data in `/no/such/folder`"),
        "{error}"
    );
}
