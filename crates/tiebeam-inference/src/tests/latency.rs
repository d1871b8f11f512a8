//! How long elements wait, by a clock that is moved by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::metrics::{DistributionValue, MetricCells, MetricValue};

use super::{Bench, Fake, FakeClock, bad, global};
use crate::batcher::{Batcher, Chunk, ModelId, Slots};
use crate::batching::Batching;
use crate::call::Verdict;
use crate::clock::Clock;
use crate::handler::ModelHandler;
use crate::{RunInference, report};

fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// Count, sum, min and max of the waits in the queue and of the whole latencies.
type Told = [Option<(i64, i64, i64, i64)>; 2];

fn told(cells: &MetricCells) -> Told {
    let all: BTreeMap<String, MetricValue> =
        cells.drain().into_iter().map(|(key, value)| (key.name.to_string(), value)).collect();
    ["queue_wait_micro_secs", "element_latency_micro_secs"].map(|name| match all.get(name) {
        Some(MetricValue::Distribution(DistributionValue { count, sum, min, max })) => {
            Some((*count, *sum, *min, *max))
        }
        _ => None,
    })
}

/// A model whose calls take five microseconds, which fails on what is below nothing.
fn slow(clock: &Arc<FakeClock>) -> Fake<i64, i64> {
    let clock = clock.clone();
    Fake::new(move |batch: &[i64]| {
        clock.advance(us(5));
        match batch.iter().find(|x| **x < 0) {
            Some(_) => Err(bad("below nothing")),
            None => Ok(batch.to_vec()),
        }
    })
}

#[test]
fn elements_of_one_batch_wait_since_their_own_arrival() {
    let clock = Arc::new(FakeClock::default());
    let handler = slow(&clock).with_batching(Batching::fixed(4));
    let bench = Bench::new(RunInference::new(handler).with_clock(clock.clone()));
    let mut instance = bench.instance();
    instance.setup().unwrap();
    let later = [0u64, 10].into_iter().map(|wait| {
        clock.advance(us(wait));
        global([1i64, 2])
    });
    instance.bundle(later).unwrap();
    assert_eq!(told(&bench.cells), [Some((4, 20, 0, 10)), Some((4, 40, 5, 15))]);
}

#[test]
fn who_is_refused_before_the_model_does_not_wait_and_who_is_refused_by_it_does() {
    let clock = Arc::new(FakeClock::default());
    let check = |x: &i64| if *x == 7 { Err(bad("no sevens")) } else { Ok(()) };
    let handler = slow(&clock).with_check(check).with_batching(Batching::fixed(2));
    let bench = Bench::rescued(RunInference::new(handler).with_clock(clock.clone()));
    let mut instance = bench.instance();
    instance.setup().unwrap();
    instance.bundle([global([7i64, -1, 1])]).unwrap();
    assert_eq!((instance.results().len(), instance.letters().len()), (1, 2));
    // The batch, and each of its halves: three calls.
    assert_eq!(told(&bench.cells), [Some((2, 0, 0, 0)), Some((2, 30, 15, 15))]);
}

#[test]
fn sorted_by_length_each_keeps_its_own_arrival() {
    // The first eight come 100 microseconds before the second eight; each batch of two takes ten.
    let waits = |lengths: [usize; 16]| {
        let clock = Arc::new(FakeClock::default());
        let batcher: Arc<Batcher<i64, i64>> = Batcher::new(&Batching::fixed(2), 1, 1, clock.clone());
        let lane = batcher.open();
        let mut run = |_: usize, batch: &[i64]| {
            clock.advance(us(10));
            (Verdict::All(batch.to_vec()), ModelId::default(), Duration::ZERO)
        };
        for first in [0usize, 8] {
            let values = (first as i64..first as i64 + 8).collect();
            let lengths = lengths[first..first + 8].to_vec();
            let chunk =
                Chunk { slots: Slots::From(first), values, weights: Vec::new(), lengths, bytes: 0, class: 0 };
            lane.push([chunk], &mut run);
            clock.advance(us(if first == 0 { 100 } else { 0 }));
        }
        assert_eq!(clock.now(), us(180));
        let told = |piece: &crate::batcher::Piece<i64, i64>| (piece.waits.queue.min, piece.waits.queue.max);
        lane.take_done().iter().map(told).collect::<Vec<_>>()
    };
    let alike = waits([1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(alike, (0..8).map(|k| (10 * k, 100 + 10 * k)).collect::<Vec<_>>(), "one of each push");
    let apart = waits([1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]);
    let wanted = (0..8).map(|k| if k < 4 { (100 + 10 * k, 100 + 10 * k) } else { (10 * k, 10 * k) });
    assert_eq!(apart, wanted.collect::<Vec<_>>());
}

#[test]
fn the_report_tells_percentiles() {
    let clock = Arc::new(FakeClock::default());
    let handler = slow(&clock).with_batching(Batching::fixed(60));
    let transform = RunInference::new(handler).with_clock(clock.clone());
    let bench = Bench::new(transform.with_model_identifier("percentiles of sixty"));
    let before = report::mark();
    let mut instance = bench.instance();
    instance.setup().unwrap();
    let one_by_one = (0..60i64).map(|x| {
        clock.advance(us(1));
        global([x])
    });
    instance.bundle(one_by_one).unwrap();
    let latencies = report::models_since(before).into_iter().filter_map(|model| model.element_latency);
    let wanted = report::Percentiles { p50: us(34), p95: us(61), p99: us(64) };
    assert!(latencies.into_iter().any(|found| found == wanted), "from 5 to 64 microseconds");
}
