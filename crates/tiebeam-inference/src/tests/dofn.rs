//! The step driven by hand: results, their order, times and windows, metrics, and Beam's own cases.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tiebeam_core::metrics::MetricValue;
use tiebeam_core::row::Value;
use tiebeam_core::window::WindowFn;
use tiebeam_core::{Batch, Meta, RunId, SlidingWindows, Timestamp, WindowInfo, Windows};
use tiebeam_graph::{Create, Pipeline};

use super::{Bench, Counting, Fake, FakeClock, global, plus_one, run};
use crate::batching::Batching;
use crate::handler::{InferenceArgs, ModelHandler};
use crate::{PredictionResult, RunInference, from_fn};

fn inferences<E, P: Clone>(results: &[PredictionResult<E, P>]) -> Vec<P> {
    results.iter().map(|result| result.inference.clone()).collect()
}

#[test]
fn c01_every_example_has_its_prediction() {
    let results = run(RunInference::new(plus_one()), [1, 5, 3, 10]).unwrap();
    assert_eq!(inferences(&results), [2, 6, 4, 11]);
    assert_eq!(results[1].example, 5);
    assert!(results.iter().all(|result| &*result.model_id == "fake"));
}

#[test]
fn c02_copies_take_turns() {
    let transform = RunInference::new(Counting.model_copies(4).max_batch_size(1));
    let results = run(transform, [1, 5, 3, 10].repeat(4)).unwrap();
    assert_eq!(inferences(&results), [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4]);
}

#[test]
fn c07_preprocess() {
    let chain = plus_one().preprocess(|x: i64| x * 2).try_preprocess(|text: String| text.parse::<i64>());
    let results = run(RunInference::new(chain), ["1", "5", "3", "10"].map(String::from)).unwrap();
    assert_eq!(inferences(&results), [3, 11, 7, 21]);
}

#[test]
fn c09_postprocess_steps_run_in_order() {
    let chain = plus_one()
        .postprocess(|result| result.inference * 2)
        .postprocess(|x: i64| x + 1)
        .postprocess(|x: i64| x.to_string());
    assert_eq!(run(RunInference::new(chain), [1, 5, 3, 10]).unwrap(), ["5", "13", "9", "23"]);
}

#[test]
fn the_last_preprocess_step_runs_first() {
    let chain = from_fn("same", |batch: &[String]| Ok::<_, String>(batch.to_vec()))
        .preprocess(|x: String| x + "-first")
        .preprocess(|x: String| x + "-second")
        .postprocess(|result| result.inference + "-third")
        .postprocess(|x: String| x + "-fourth");
    assert_eq!(run(RunInference::new(chain), ["x".to_owned()]).unwrap(), ["x-second-first-third-fourth"]);
}

#[test]
fn results_without_their_example() {
    let results = run(RunInference::new(plus_one()).drop_example(), [1, 5]).unwrap();
    let expected =
        [2, 6].map(|inference| PredictionResult { example: (), inference, model_id: "fake".into() });
    assert_eq!(results, expected);
}

#[test]
fn c16_metrics_under_beams_names() {
    let clock = Arc::new(FakeClock::default());
    let (loading, inferring) = (clock.clone(), clock.clone());
    let handler = Fake::new(move |batch: &[i64]| {
        inferring.advance(Duration::from_millis(3));
        Ok(batch.to_vec())
    })
    .with_load(move || {
        loading.advance(Duration::from_millis(500));
        Ok(())
    });
    let bench =
        Bench::new(RunInference::new(handler).with_clock(clock).with_metrics_namespace("BeamML_Test"));
    let mut instance = bench.instance();
    instance.setup().unwrap();
    instance.bundle([global([1, 5, 3, 10])]).unwrap();
    let mut distributions = BTreeMap::new();
    for (key, value) in bench.cells.drain() {
        assert_eq!(&*key.step, "Outer/RunInference/BeamML_RunInference");
        let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
        match value {
            MetricValue::Distribution(d) => {
                distributions.insert((namespace, name), (d.count, d.sum));
            }
            MetricValue::Counter(n) => {
                assert_eq!((&*namespace, &*name, n), ("BeamML_Test", "num_inferences", 4));
            }
            MetricValue::Gauge(_) => panic!("no gauge is expected"),
        }
    }
    let of = |namespace: &str, name: &str| distributions[&(namespace.to_owned(), name.to_owned())];
    assert_eq!(of("BeamML_Test", "inference_batch_latency_micro_secs"), (3, 9000));
    assert_eq!(of("BeamML_Test", "load_model_latency_milli_secs"), (1, 500));
    assert_eq!(of("BeamML_Test", "inference_request_batch_size"), (3, 4));
    assert_eq!(of("BeamML_Test", "inference_request_batch_byte_size"), (3, 32));
    assert_eq!(of("BatchElements", "batch_size"), (3, 4));
    assert_eq!(of("BatchElements", "msec_per_batch"), (3, 9));
    let (count, bytes) = of("BeamML_Test", "model_byte_size");
    assert!(count == 1 && bytes > 0, "{count} {bytes}");
    // One, one and two of them, 3 ms each.
    assert_eq!(of("BeamML_Test", "queue_wait_micro_secs"), (4, 3000 + 2 * 6000));
    assert_eq!(of("BeamML_Test", "element_latency_micro_secs"), (4, 3000 + 6000 + 2 * 9000));
    assert_eq!(distributions.len(), 9);
}

#[test]
fn a_load_is_told_once_however_many_instances_there_are() {
    let bench = Bench::new(RunInference::new(plus_one()));
    let mut instances = [bench.instance(), bench.instance()];
    for instance in &mut instances {
        instance.setup().unwrap();
    }
    let loads =
        bench.cells.drain().into_iter().filter(|(key, _)| &*key.name == "load_model_latency_milli_secs");
    let counts: Vec<_> = loads
        .map(|(_, value)| match value {
            MetricValue::Distribution(d) => d.count,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, [1]);
}

/// Beam's model answers each batch by its longest example, which shows who shared a batch with whom.
#[test]
fn c22_examples_of_one_length_class_share_a_batch() {
    let longest = |batch: &[String]| {
        let longest = batch.iter().map(String::len).max().unwrap_or(0);
        Ok::<_, String>(batch.iter().map(|text| format!("{text}:{longest}")).collect())
    };
    let batching = Batching {
        bucket_boundaries: Some(Arc::from([5])),
        max_batch_duration: Some(Duration::from_secs(60)),
        ..Batching::fixed(2)
    };
    let handler = from_fn("longest", longest).with_batching(batching).with_length_fn(String::len);
    let transform = RunInference::new(handler).with_clock(Arc::new(FakeClock::default()));
    let results = run(transform, ["a", "cccccc", "bb", "ddddddd"].map(String::from)).unwrap();
    // In the order in which they came, though their batches were others.
    assert_eq!(inferences(&results), ["a:2", "cccccc:7", "bb:2", "ddddddd:7"]);
}

#[test]
fn c29a_steps_without_an_identifier_load_a_model_each() {
    let first = run(RunInference::new(Counting), [1, 2, 3]).unwrap();
    let second = run(RunInference::new(Counting), inferences(&first)).unwrap();
    assert_eq!(inferences(&second), [1, 2, 3]);
}

#[test]
fn steps_of_one_identifier_share_a_model() {
    let shared = || RunInference::new(Counting).with_model_identifier("c29");
    let (first, second) = (Bench::new(shared()), Bench::new(shared()));
    let (mut first, mut second) = (first.instance(), second.instance());
    first.setup().unwrap();
    second.setup().unwrap();
    first.bundle([global([1, 2, 3])]).unwrap();
    second.bundle([global([1, 2, 3])]).unwrap();
    assert_eq!(inferences(&second.results()), [4, 5, 6]);
}

#[test]
fn c34_a_batch_is_one_call() {
    let handler =
        Fake::new(|batch: &[Vec<i64>]| Ok(batch.iter().map(|row| row.iter().sum::<i64>()).collect()));
    let calls = handler.calls.clone();
    let batching = Batching { min_batch_size: 3, ..Batching::default() };
    let rows = [vec![1, 2, 3], vec![4, 5, 6], vec![7, 8, 9]];
    let results = run(RunInference::new(handler.with_batching(batching)), rows).unwrap();
    assert_eq!(inferences(&results), [6, 15, 24]);
    assert_eq!(*calls.lock().unwrap(), [3]);
}

/// `[20, 30, 40]` times five.
#[test]
fn c36_the_seed() {
    let five_times =
        from_fn("five_times", |batch: &[f32]| Ok::<_, String>(batch.iter().map(|x| x * 5.0).collect()));
    assert_eq!(
        inferences(&run(RunInference::new(five_times), [20.0, 30.0, 40.0]).unwrap()),
        [100.0, 150.0, 200.0]
    );
}

fn sliding(index: i64) -> WindowInfo {
    let timestamp = Timestamp::from_secs(index);
    let windows = SlidingWindows::of(Duration::from_secs(30), Duration::from_secs(10));
    WindowInfo { timestamp, windows: windows.assign(timestamp, &Windows::GLOBAL), ..WindowInfo::GLOBAL }
}

#[test]
fn fault_08_fault_09_every_element_keeps_its_place_time_and_windows_and_is_asked_about_once() {
    for size in [1, 7, 64, 100, 1000] {
        let handler = plus_one();
        let calls = handler.calls.clone();
        let mut instance =
            Bench::new(RunInference::new(handler.with_batching(Batching::fixed(size)))).instance();
        instance.setup().unwrap();
        // Batches of many sizes, some uniform, some not.
        let mut start = 0;
        let sizes = [1, 256, 3, 200, 40, 1024, 5];
        let batches: Vec<_> = sizes
            .into_iter()
            .enumerate()
            .map(|(i, n)| {
                let values: Vec<i64> = (start..start + n).collect();
                start += n;
                let meta = match i % 2 {
                    0 => Meta::Uniform(sliding(values[0])),
                    _ => Meta::Each(values.iter().map(|value| sliding(*value)).collect()),
                };
                Batch { values, meta }
            })
            .collect();
        let expected: Vec<_> = batches
            .iter()
            .flat_map(|batch| batch.iter())
            .map(|(value, info)| {
                let (example, inference) = (*value, value + 1);
                (PredictionResult { example, inference, model_id: "fake".into() }, info.clone())
            })
            .collect();
        instance.bundle(batches).unwrap();
        assert_eq!(*instance.results.lock().unwrap(), expected, "batches of {size}");
        assert_eq!(calls.lock().unwrap().iter().sum::<usize>(), 1529);
        assert!(expected.iter().all(|(_, info)| info.windows.as_slice().len() == 3));
    }
}

#[test]
fn many_instances_share_one_model_and_one_batcher() {
    let handler = Fake::new(|batch: &[i64]| Ok(batch.iter().map(|x| x * 3).collect()));
    let loads = handler.loads.clone();
    let bench = Bench::new(RunInference::new(handler.max_batch_size(50)));
    let mut instances: Vec<_> = (0..8).map(|_| bench.instance()).collect();
    instances.iter_mut().for_each(|instance| instance.setup().unwrap());
    std::thread::scope(|scope| {
        for (thread, mut instance) in (0i64..).zip(instances) {
            scope.spawn(move || {
                for bundle in 0..20i64 {
                    let first = thread * 1_000_000 + bundle * 1000;
                    let batches = (0..bundle % 5).map(|i| global(first + i * 70..first + (i + 1) * 70));
                    instance.bundle(batches).unwrap();
                }
                for result in instance.results() {
                    assert_eq!((result.inference, result.example / 1_000_000), (result.example * 3, thread));
                }
                assert_eq!(instance.results().len(), 4 * 70 * (1 + 2 + 3 + 4));
            });
        }
    });
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert_eq!(bench.counter("num_inferences"), 8 * 4 * 70 * 10);
}

fn mistakes(build: impl FnOnce(&Pipeline)) -> Vec<String> {
    let p = Pipeline::new();
    build(&p);
    match p.build() {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.iter().map(|(error, _)| error.to_string()).collect(),
    }
}

fn apply<H: ModelHandler<Example = i64>>(handler: H) -> Vec<String> {
    mistakes(|p| {
        p.apply(Create::of([1i64])).apply(RunInference::new(handler));
    })
}

#[test]
fn e_min_greater_than_max() {
    let batching = Batching { min_batch_size: 5, ..Batching::at_most(2) };
    let expected = "RunInference: Minimum (5) must not be greater than maximum (2)";
    assert_eq!(apply(plus_one().with_batching(batching)), [expected]);
}

#[test]
fn e_buckets_without_lengths() {
    let batching = Batching { bucket_boundaries: Some(Arc::from([16, 32])), ..Batching::default() };
    let expected = "RunInference: bucket_boundaries requires length_fn to be set.";
    assert_eq!(apply(plus_one().with_batching(batching.clone())), [expected]);
    assert_eq!(apply(plus_one().with_batching(batching).with_length_fn(|x| *x as usize)), [""; 0]);
    let batching = Batching { bucket_boundaries: Some(Arc::from([32, 16])), ..Batching::default() };
    let expected = "RunInference: bucket_boundaries must be positive and ascending, got [32, 16]";
    assert_eq!(apply(plus_one().with_batching(batching).with_length_fn(|x| *x as usize)), [expected]);
}

#[test]
fn all_mistakes_of_a_step_are_shown_at_once() {
    let batching = Batching { target_batch_overhead: Some(1.5), ..Batching::default() };
    let args: InferenceArgs = [("temperature", Value::Double(0.5))].into_iter().collect();
    let shown = mistakes(|p| {
        let handler = plus_one().with_batching(batching).model_copies(0);
        p.apply(Create::of([1i64])).apply(RunInference::new(handler).with_inference_args(args));
    });
    let expected = [
        "RunInference: target_batch_overhead (1.5) must be between 0 and 1",
        "RunInference: inference_args were given, but Fake takes none",
        "RunInference: Fake asks for 0 copies of its model; at least one is needed",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn the_model_is_loaded_by_the_check_kept_and_released_by_the_cleanup() {
    let p = Pipeline::new();
    let handler = plus_one();
    let loads = handler.loads.clone();
    p.apply(Create::of([1i64])).apply(RunInference::new(handler));
    let graph = p.build().unwrap();
    assert_eq!(loads.load(Ordering::SeqCst), 0, "building loads nothing");
    graph.run_checks().unwrap();
    graph.run_checks().unwrap();
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    graph.run_cleanups(RunId::new());
    graph.run_checks().unwrap();
    assert_eq!(loads.load(Ordering::SeqCst), 2);
}

#[test]
fn a_missing_model_is_told_by_the_check() {
    let p = Pipeline::new();
    let missing =
        || Err(tiebeam_core::Error::new(tiebeam_core::ErrorKind::Model, "TB0360", "no model at m.pth"));
    p.apply(Create::of([1i64])).step("Ask").apply(RunInference::new(plus_one().with_load(missing)));
    let error = p.build().unwrap().run_checks().unwrap_err();
    assert_eq!(error.to_string(), "Ask: no model at m.pth");
    assert_eq!(error.kind(), tiebeam_core::ErrorKind::Model);
}

/// What an element waited and what it took in all: how many, their sum, the least and the most microseconds. Two elements come
/// at 0 and one at 3 s; a batch of three begins then, and takes 2 s.
fn waits_of<H>(tuned: impl FnOnce(Fake<i64, i64>) -> H) -> [(i64, i64, i64, i64); 2]
where
    H: ModelHandler<Example = i64, Inference = i64>,
{
    let clock = Arc::new(FakeClock::default());
    let works = clock.clone();
    let handler = tuned(Fake::new(move |batch: &[i64]| {
        works.advance(Duration::from_secs(2));
        Ok(batch.to_vec())
    }));
    let bench = Bench::new(RunInference::new(handler).with_clock(clock.clone()));
    let mut instance = bench.instance();
    instance.setup().unwrap();
    let batches = [vec![1, 2], vec![9]].into_iter().enumerate().map(|(turn, batch)| {
        clock.advance(Duration::from_secs(3 * turn as u64));
        global(batch)
    });
    instance.bundle(batches).unwrap();
    let drained = bench.cells.drain();
    ["queue_wait_micro_secs", "element_latency_micro_secs"].map(|name| {
        match drained.iter().find(|(key, _)| &*key.name == name) {
            Some((_, MetricValue::Distribution(d))) => (d.count, d.sum, d.min, d.max),
            other => panic!("{name}: {other:?}"),
        }
    })
}

#[test]
fn waits_and_latencies_are_those_of_each_element() {
    let wanted = [(3, 6_000_000, 0, 3_000_000), (3, 12_000_000, 2_000_000, 5_000_000)];
    assert_eq!(waits_of(|handler| handler.with_batching(Batching::fixed(3))), wanted);
    // Put in the order of their lengths, whoever came last is first.
    let sorted =
        waits_of(|handler| handler.with_batching(Batching::fixed(3)).with_length_fn(|x| 16 - *x as usize));
    assert_eq!(sorted, wanted);
}
