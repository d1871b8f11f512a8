//! A job that was stopped goes on where it was: bundles that were done are not done again.

#![allow(clippy::unwrap_used)] // a test fails by panicking, in the functions that tests share too

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tiebeam_core::window::{FixedWindows, WindowingStrategy};
use tiebeam_core::{DoFn, ElementContext, Error, Output, Result};
use tiebeam_graph::{Create, ParDo, Pipeline};
use tiebeam_runner::{RunnerOptions, StateOptions};
use tiebeam_testing::{Mode, TestPipeline};

/// Fails for good at its `at`th element of all instances, and counts what it saw.
#[derive(Clone)]
struct StopsAt {
    seen: Arc<AtomicUsize>,
    at: usize,
}

impl DoFn for StopsAt {
    type In = i64;
    type Out = i64;
    fn process(&mut self, n: i64, _: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
        if self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            return Err(Error::user("stopped").with_retryable(false));
        }
        out.emit(n);
        Ok(())
    }
}

fn state(dir: &Path, resume: bool, option: &str) -> StateOptions {
    let options = BTreeMap::from([("option".to_owned(), option.to_owned())]);
    StateOptions { dir: dir.to_owned(), resume, options }
}

/// The lines of a job of several stages, with a step that stops after some elements in the second and one in the last.
struct Job {
    lines: Arc<Mutex<Vec<String>>>,
    first: StopsAt,
    last: StopsAt,
}

impl Job {
    fn new(first: usize, last: usize) -> Self {
        let stop = |at| StopsAt { seen: Arc::default(), at };
        Job { lines: Arc::default(), first: stop(first), last: stop(last) }
    }

    fn run(&self, mode: Mode, options: StateOptions) -> Result<Vec<(Arc<str>, u64, u64)>> {
        let build = |p: &Pipeline| {
            let into = self.lines.clone();
            let numbers = p.apply(Create::of(0..2_000i64)).reshuffle().apply(ParDo::new(self.first.clone()));
            let side = numbers.step("Count").map(|n| n).as_iterable();
            let view = side.view();
            let windowed = numbers
                .window_into(WindowingStrategy::of(FixedWindows::of(std::time::Duration::from_secs(1))));
            let sums = windowed
                .map(|n| (n % 50, n))
                .group_by_key()
                .map(|(key, values)| key * 1_000_000 + values.iter().sum::<i64>());
            let sums = sums
                .window_into(WindowingStrategy::global())
                .reshuffle()
                .apply(ParDo::new(self.last.clone()));
            #[derive(Clone)]
            struct WithAll(tiebeam_core::View<tiebeam_core::Iterable<i64>>);
            impl DoFn for WithAll {
                type In = i64;
                type Out = String;
                fn process(
                    &mut self,
                    n: i64,
                    cx: &ElementContext<'_>,
                    out: &mut Output<String>,
                ) -> Result<()> {
                    out.emit(format!("{n} of {}", cx.side_input(&self.0)?.iter().sum::<i64>()));
                    Ok(())
                }
            }
            let lines = sums.apply(ParDo::new(WithAll(view)).with_side_input(&side));
            lines.map(move |line| into.lock().unwrap().push(line));
        };
        let change = |o: RunnerOptions| RunnerOptions { threads: 2, ..o }.with_state(options);
        let report = TestPipeline::run_with(mode, change, build)?;
        Ok(report.steps.iter().map(|s| (s.step.clone(), s.elements_in, s.elements_out)).collect())
    }

    fn seen(&self) -> (usize, usize) {
        (self.first.seen.load(Ordering::Relaxed), self.last.seen.load(Ordering::Relaxed))
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = self.lines.lock().unwrap().clone();
        lines.sort();
        lines.dedup();
        lines
    }
}

const NEVER: usize = usize::MAX;

#[test]
fn what_was_done_is_not_done_again() {
    for mode in [Mode::Fused, Mode::Worker, Mode::Paranoid { seed: 7 }] {
        let dir = tempfile::tempdir().unwrap();
        let undisturbed = Job::new(NEVER, NEVER);
        let counts = undisturbed.run(mode, state(dir.path(), false, "a")).unwrap();
        let (first, last) = undisturbed.seen();
        assert_eq!(undisturbed.lines().len(), 50, "{mode}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "left over in mode {mode}");

        let stopped = Job::new(first / 2, NEVER);
        assert_eq!(stopped.run(mode, state(dir.path(), false, "a")).unwrap_err().message(), "stopped");
        let again = Job::new(NEVER, last - 1);
        assert_eq!(again.run(mode, state(dir.path(), true, "a")).unwrap_err().message(), "stopped");
        assert!(again.seen().0 < first, "{mode}: {:?} of {first}", again.seen());
        let end = Job::new(NEVER, NEVER);
        let counted = end.run(mode, state(dir.path(), true, "a")).unwrap();
        assert_eq!(end.seen().0, 0, "the first stage was done: {mode}");
        assert!(end.seen().1 < last, "{mode}: {:?} of {last}", end.seen());
        assert_eq!(counted, counts, "every element is counted once in mode {mode}");
        let mut lines = [stopped.lines(), again.lines(), end.lines()].concat();
        lines.sort();
        lines.dedup();
        assert_eq!(lines, undisturbed.lines(), "{mode}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "left over in mode {mode}");
    }
}

#[test]
fn another_job_is_refused_and_nothing_is_lost_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let stopped = Job::new(1_000, NEVER);
    stopped.run(Mode::Fused, state(dir.path(), true, "a")).unwrap_err();
    let other = Job::new(NEVER, NEVER);
    let error = other.run(Mode::Fused, state(dir.path(), true, "b")).unwrap_err();
    assert_eq!(error.code(), "TB0572");
    assert!(error.message().ends_with("option option was `a`, is `b`"), "{error}");
    assert!(error.help().unwrap().contains("without `--resume`"));
    let change =
        |o: RunnerOptions| RunnerOptions { threads: 3, ..o }.with_state(state(dir.path(), true, "a"));
    let build = |p: &Pipeline| {
        p.apply(Create::of(0..3i64)).map(|n| n + 1);
    };
    let error = TestPipeline::run_with(Mode::Fused, change, build).unwrap_err();
    assert!(
        error.message().contains("the pipeline was `") && error.message().contains("threads was `2`, is `3`")
    );
    // As it was begun it goes on.
    let end = Job::new(NEVER, NEVER);
    end.run(Mode::Fused, state(dir.path(), true, "a")).unwrap();
    assert!(end.seen().0 < 2_000, "{:?}", end.seen());
    // Without `resume`, what is there is cleared away, and all is done.
    Job::new(1_000, NEVER).run(Mode::Fused, state(dir.path(), false, "a")).unwrap_err();
    let anew = Job::new(NEVER, NEVER);
    anew.run(Mode::Fused, state(dir.path(), false, "a")).unwrap();
    assert_eq!(anew.seen().0, 2_000);
}

#[test]
fn damaged_state_is_told() {
    let dir = tempfile::tempdir().unwrap();
    Job::new(1_000, NEVER).run(Mode::Fused, state(dir.path(), false, "a")).unwrap_err();
    let folder = dir.path().join("tiebeam-run");
    let stage = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|p| p.is_dir());
    let done = stage.flat_map(|dir| std::fs::read_dir(dir).unwrap()).map(|entry| entry.unwrap().path());
    let mut done: Vec<_> = done.filter(|path| path.extension().is_some_and(|e| e == "done")).collect();
    done.sort();
    std::fs::write(done.last().unwrap(), "x").unwrap();
    let error = Job::new(NEVER, NEVER).run(Mode::Fused, state(dir.path(), true, "a")).unwrap_err();
    assert_eq!(error.code(), "TB0573");
    assert!(error.message().contains(&done.last().unwrap().display().to_string()), "{error}");
}
