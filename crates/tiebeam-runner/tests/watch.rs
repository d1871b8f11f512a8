//! Limits and samples: exact with any number of threads and failing bundles, and nothing at all where nobody asks.

#![allow(clippy::unwrap_used)] // a test fails by panicking, in the functions that tests share too

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tiebeam_core::{DoFn, Element, ElementContext, Error, ErrorKind, Output, Result};
use tiebeam_graph::{Create, Graph, PCollection, Pipeline, impulse};
use tiebeam_runner::{EmbeddedRunner, JobReport, Limit, RunnerOptions, Samples, WatchedExecutor, sources};

/// What a pipeline made, gathered outside of it. Only for tests whose bundles never fail after this step.
fn gather<T: Element>(collection: &PCollection<T>) -> Arc<Mutex<Vec<T>>> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let into = all.clone();
    collection.map(move |element| into.lock().unwrap().push(element));
    all
}

fn run(graph: &Arc<Graph>, threads: usize, executor: WatchedExecutor) -> Result<JobReport> {
    let mut options = RunnerOptions::default().with_threads(threads);
    options.executor = Arc::new(executor);
    EmbeddedRunner::new(options).run(graph)
}

fn limited(p: &Pipeline, threads: usize, n: u64) -> Result<JobReport> {
    let graph = p.build().unwrap();
    run(&graph, threads, WatchedExecutor::new().with_limit(Limit::new(&graph, n)))
}

fn paths(p: &Pipeline) -> Vec<String> {
    sources(&p.build().unwrap()).iter().map(|(path, _)| path.to_string()).collect()
}

#[test]
fn sources_are_what_begins_and_reads_nothing() {
    let p = Pipeline::new();
    let a = p.step("A").apply(Create::of([1i64]));
    let b = p.apply(Create::of([2i64]));
    p.flatten([a, b]).map(|x| x);
    impulse(&p).step("Own").flat_map(|_| [1i64, 2]);
    assert_eq!(paths(&p), ["A", "Create", "Own"]);
}

#[test]
fn each_source_gives_so_many_and_no_more() {
    for threads in [1, 2, 7] {
        for n in [0, 1, 255, 256, 1000, 5000, 9999] {
            let p = Pipeline::new();
            let numbers = p.step("Numbers").apply(Create::of(0..5000i64));
            let doubled = gather(&numbers.map(|x| x * 2));
            let counted = gather(&numbers);
            let letters = gather(&p.step("Letters").apply(Create::of(["a", "b"].map(str::to_owned))));
            limited(&p, threads, n).unwrap();
            let wanted: Vec<i64> = (0..i64::try_from(n).unwrap().min(5000)).collect();
            let mut counted = counted.lock().unwrap().clone();
            counted.sort_unstable();
            assert_eq!(counted, wanted, "{threads} threads, {n}");
            assert_eq!(doubled.lock().unwrap().len(), wanted.len());
            assert_eq!(letters.lock().unwrap().len() as u64, n.min(2));
        }
    }
}

/// Fails at every third element that it sees, as long as it has tries.
#[derive(Clone)]
struct Stumbles(Arc<AtomicUsize>);

impl DoFn for Stumbles {
    type In = i64;
    type Out = i64;

    fn process(&mut self, element: i64, _: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
        if element % 3 == 0
            && self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        {
            return Err(Error::new(ErrorKind::UserCode, "TB0900", "it stumbled").with_retryable(true));
        }
        out.emit(element);
        Ok(())
    }
}

#[test]
fn what_a_failed_bundle_took_is_given_again() {
    // The limited edge and the step that fails are in one stage, so that each failure had taken its part.
    for threads in [1, 3] {
        let p = Pipeline::new();
        let source = impulse(&p).step("Source").flat_map(|_| (0..100i64).collect::<Vec<_>>());
        let stumbled = source.step("Stumble").par_do(Stumbles(Arc::new(AtomicUsize::new(3))));
        let all = gather(&stumbled.reshuffle());
        let report = limited(&p, threads, 10).unwrap();
        let mut all = all.lock().unwrap().clone();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<i64>>());
        let out = |name: &str| report.steps.iter().find(|step| &*step.step == name).unwrap().elements_out;
        // Only what was let through is counted.
        assert_eq!((out("Source"), out("Stumble")), (10, 10));
        assert_eq!(report.steps.iter().map(|step| step.retries).sum::<u64>(), 3);
    }
}

#[test]
fn elements_are_seen_by_who_asks() {
    let p = Pipeline::new();
    let numbers = p.step("Numbers").apply(Create::of(0..100_000i64));
    numbers.step("Double").map(|x| x * 2).map(|_| ());
    let graph = p.build().unwrap();
    let samples = Samples::new(&graph);
    let node = graph.nodes.iter().find(|node| &*node.step == "Double").unwrap();
    let edge = node.outputs[0].edge;
    let taken = std::thread::scope(|scope| {
        let looker = scope.spawn(|| samples.next(edge, 5, Duration::from_secs(60), &|| false));
        while samples.lookers() == 0 {
            std::thread::yield_now();
        }
        run(&graph, 2, WatchedExecutor::new().with_samples(samples.clone())).unwrap();
        looker.join().unwrap()
    });
    assert_eq!((taken.len(), samples.lookers()), (5, 0));
    for sample in &taken {
        let value = i64::coder().from_bytes(sample.encoded.clone()).unwrap();
        assert!(value % 2 == 0 && value < 200_000);
    }
    assert_eq!(samples.edge(edge).unwrap().coder, i64::coder().spec());
    // Nobody asks, nothing comes; who asks when all is over is not kept waiting.
    assert!(samples.next(edge, 5, Duration::from_secs(60), &|| true).is_empty());
}
