//! What only the worker mode finds or exercises: workers of other pipelines, side inputs over many pages and windows, output
//! that is too much for one answer.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tiebeam_core::{
    DoFn, ElementContext, FixedWindows, Iterable, Output, Result, SideMap, View, WindowingStrategy,
};
use tiebeam_graph::{Create, ParDo, Pipeline};
use tiebeam_testing::{Mode, TestPipeline, assert_that};

fn windows(seconds: u64) -> WindowingStrategy {
    WindowingStrategy::of(FixedWindows::of(Duration::from_secs(seconds)))
}

#[derive(Clone)]
struct Plus(View<Vec<i64>>);

impl DoFn for Plus {
    type In = i64;
    type Out = i64;

    fn process(&mut self, n: i64, cx: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
        out.emit(n + cx.side_input(&self.0)?.iter().sum::<i64>());
        Ok(())
    }
}

#[test]
fn workers_of_other_pipelines_say_what_differs() {
    type Build = fn(&Pipeline);
    fn numbers(p: &Pipeline) -> tiebeam_graph::PCollection<i64> {
        p.apply(Create::of([1i64]))
    }
    let job: Build = |p| {
        let more = p.step("More").apply(Create::of([1i64])).as_list();
        numbers(p).step("Plus").apply(ParDo::new(Plus(more.view())).with_side_input(&more));
    };
    let cases: [(Build, &str); 6] = [
        (
            |p| {
                p.step("More").apply(Create::of(["a".to_owned()]));
                numbers(p).step("Plus").map(|n| n);
            },
            // The first step of the job that runs.
            "the step makes main: alloc::string::String here and main: i64 in the job",
        ),
        (
            |p| {
                let more = p.step("Much").apply(Create::of([1i64])).as_list();
                numbers(p).step("Plus").apply(ParDo::new(Plus(more.view())).with_side_input(&more));
            },
            "this worker has no step `More/Elements`, but `Much/Elements`",
        ),
        (
            |p| {
                let more = p.step("More").apply(Create::of([1i64])).window_into(windows(10)).as_list();
                numbers(p).step("Plus").apply(ParDo::new(Plus(more.view())).with_side_input(&more));
            },
            "the pipeline has 8 steps here and 7 in the job",
        ),
        (
            |p| {
                let more = p.step("More").apply(Create::of([1i64])).as_list();
                numbers(p).step("Add").apply(ParDo::new(Plus(more.view())).with_side_input(&more));
            },
            "this step is the same in both, another one differs in its name, element type, coder or windows",
        ),
        (
            |p| {
                p.step("More").apply(Create::of([1i64]));
                numbers(p).step("Plus").map(|n| n);
            },
            "this step is the same in both, another one differs in its name, element type, coder or windows",
        ),
        (
            |p| {
                p.step("More").apply(Create::of([1i64]));
            },
            "the pipeline has 3 steps here and 7 in the job",
        ),
    ];
    for (worker, wanted) in cases {
        let builds = AtomicUsize::new(0);
        let build =
            |p: &Pipeline| if builds.fetch_add(1, Ordering::Relaxed) == 0 { job(p) } else { worker(p) };
        let error = TestPipeline::run(Mode::Worker, build).unwrap_err();
        assert_eq!(error.code(), "TB0542");
        let (_, difference) = error.message().split_once("; ").unwrap();
        assert_eq!(difference, wanted);
        assert_eq!(
            error.help(),
            Some("start workers from the same program as the job, with the same options")
        );
    }
    TestPipeline::run(Mode::Worker, job).unwrap();
}

/// Sums the numbers of its window, twice, and looks its own up.
#[derive(Clone)]
struct Looks {
    numbers: View<Iterable<i64>>,
    names: View<SideMap<i64, String>>,
}

impl DoFn for Looks {
    type In = i64;
    type Out = (i64, String, i64);

    fn process(&mut self, n: i64, cx: &ElementContext<'_>, out: &mut Output<Self::Out>) -> Result<()> {
        let numbers = cx.side_input(&self.numbers)?;
        let sum: i64 = numbers.iter().sum();
        assert_eq!(numbers.count(), 100);
        assert_eq!(numbers.iter().sum::<i64>(), sum);
        let name = cx.side_input(&self.names)?.get(&n).cloned().unwrap_or_default();
        out.emit((n, name, sum));
        Ok(())
    }
}

#[test]
fn side_inputs_of_many_windows_and_pages_are_each_windows_own() {
    TestPipeline::run_all_modes(|p| {
        // Number n is at n tenths of a second: a hundred to a window of ten seconds.
        let timed = |step: &str| {
            let numbers = p.step(step).apply(Create::of(0..1_000i64));
            let at = |n: &i64| tiebeam_core::Timestamp::from_millis(n * 100);
            numbers.par_do(At(at)).window_into(windows(10))
        };
        let numbers = timed("Numbers").as_iterable();
        let names = timed("Names").map(|n| (n, format!("number {n}"))).as_map();
        let looks = Looks { numbers: numbers.view(), names: names.view() };
        let par_do = ParDo::new(looks).with_side_input(&numbers).with_side_input(&names);
        let wanted = (0..1_000i64).map(|n| {
            let first = n / 100 * 100;
            (n, format!("number {n}"), 100 * first + 99 * 50)
        });
        assert_that(&timed("Main").apply(par_do)).contains_in_any_order(wanted);
    });
}

/// Gives elements their times.
#[derive(Clone)]
struct At(fn(&i64) -> tiebeam_core::Timestamp);

impl DoFn for At {
    type In = i64;
    type Out = i64;

    fn process(&mut self, n: i64, cx: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
        let info = tiebeam_core::WindowInfo { timestamp: (self.0)(&n), ..cx.info().clone() };
        out.emit_with(n, &info);
        Ok(())
    }
}

#[test]
fn output_of_any_size_arrives() {
    for size in [0usize, 1, 100, 5_000, 300_000] {
        TestPipeline::run_all_modes(|p| {
            let texts = p.apply(Create::of([size as i64])).step("Grow").flat_map(move |size| {
                [String::new(), "x".repeat(size as usize), "y".repeat(size as usize / 2)]
            });
            let wanted = [0, size as i64, size as i64 / 2];
            assert_that(&texts.step("Measure").map(|text| text.len() as i64)).contains_in_any_order(wanted);
        });
    }
}
