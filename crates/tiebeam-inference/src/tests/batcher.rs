//! The batcher alone: sizes, weights, waiting, and that nothing is lost, repeated or misaligned.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use super::{FakeClock, bad};
use crate::batcher::{Batcher, Chunk, Lane, ModelId, Ran, Slots};
use crate::batching::Batching;
use crate::call::Verdict;
use crate::clock::SystemClock;

type Sizes = Arc<Mutex<Vec<usize>>>;

fn chunk(first: usize, values: Vec<i64>) -> Chunk<i64> {
    Chunk { slots: Slots::From(first), values, weights: Vec::new(), lengths: Vec::new(), bytes: 0, class: 0 }
}

/// Doubles, and notes the size.
fn double(sizes: &Sizes) -> impl FnMut(usize, &[i64]) -> Ran<i64> {
    let sizes = sizes.clone();
    move |_, batch| {
        assert!(!batch.is_empty());
        sizes.lock().unwrap().push(batch.len());
        (Verdict::All(batch.iter().map(|x| x * 2).collect()), ModelId::default(), Duration::ZERO)
    }
}

/// What came back to a lane, by slot.
fn done(lane: &Lane<i64, i64>) -> Vec<(usize, i64, i64)> {
    let mut all = Vec::new();
    for piece in lane.take_done() {
        let slots = match piece.slots {
            Slots::From(first) => (first..first + piece.examples.len()).collect(),
            Slots::Each(slots) => slots,
        };
        let Verdict::All(predictions) = piece.verdict else { panic!("a piece failed: {:?}", piece.verdict) };
        assert_eq!((slots.len(), predictions.len()), (piece.examples.len(), piece.examples.len()));
        all.extend(slots.into_iter().zip(piece.examples).zip(predictions).map(|((s, e), p)| (s, e, p)));
    }
    all.sort();
    all
}

fn sizes_of(batching: &Batching, pushes: impl IntoIterator<Item = Chunk<i64>>) -> Vec<usize> {
    let sizes = Sizes::default();
    let batcher = Batcher::new(batching, 1, 4, Arc::new(FakeClock::default()));
    let lane = batcher.open();
    for chunk in pushes {
        lane.push([chunk], &mut double(&sizes));
    }
    lane.finish(&|| false, &mut double(&sizes)).unwrap();
    sizes.lock().unwrap().clone()
}

#[test]
fn c17_a_fixed_size_and_the_rest() {
    assert_eq!(sizes_of(&Batching::fixed(10), [chunk(0, (0..35).collect())]), [10, 10, 10, 5]);
    let one_by_one = (0..35).map(|i| chunk(i, vec![i as i64]));
    assert_eq!(sizes_of(&Batching::fixed(10), one_by_one), [10, 10, 10, 5]);
}

/// Beam batches each window apart and makes `[5, 5, 10, 10]` and `[10, 7]`; ours mix windows.
#[test]
fn c19_sizes_grow_from_the_minimum_to_the_maximum() {
    let batching = Batching { min_batch_size: 5, ..Batching::at_most(10) };
    assert_eq!(sizes_of(&batching, (0..47).map(|i| chunk(i, vec![i as i64]))), [5, 5, 10, 10, 10, 7]);
}

/// Beam's stateful path batches each window apart and makes `[5, 1, 4]` of ten elements in two windows; ours mix windows,
/// and one-element bundles fill batches together.
#[test]
fn c24_elements_of_many_small_bundles_fill_batches() {
    let sizes = Sizes::default();
    let clock = Arc::new(FakeClock::default());
    let batching = Batching { max_batch_duration: Some(Duration::from_secs(100)), ..Batching::fixed(5) };
    let batcher = Batcher::new(&batching, 1, 1, clock);
    let lanes: Vec<_> = (0..10).map(|_| batcher.open()).collect();
    for (i, lane) in lanes.iter().enumerate() {
        lane.push([chunk(0, vec![i as i64])], &mut double(&sizes));
    }
    for (i, lane) in lanes.iter().enumerate() {
        lane.finish(&|| false, &mut double(&sizes)).unwrap();
        assert_eq!(done(lane), [(0, i as i64, i as i64 * 2)]);
    }
    assert_eq!(*sizes.lock().unwrap(), [5, 5]);
}

#[test]
fn fault_03_fault_06_weights_bound_batches_and_an_oversize_element_goes_alone() {
    let batching = Batching { max_batch_weight: Some(6), min_batch_size: 100, ..Batching::at_most(100) };
    let heavy = Chunk { weights: vec![10, 3, 3, 3, 7, 1], ..chunk(0, (0..6).collect()) };
    assert_eq!(sizes_of(&batching, [heavy]), [1, 2, 1, 1, 1]);
    let light = Chunk { weights: vec![1; 20], ..chunk(0, (0..20).collect()) };
    assert_eq!(sizes_of(&batching, [light]), [6, 6, 6, 2]);
    let endless = Chunk { weights: vec![u64::MAX, 1], ..chunk(0, vec![1, 2]) };
    assert_eq!(sizes_of(&batching, [endless]), [1, 1]);
}

/// What is run, and after how many elements of 20 bytes it was.
fn runs_of(batching: &Batching, lengths: &[usize]) -> Vec<(usize, Vec<i64>)> {
    let (runs, pushed) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    let mut note = |_: usize, batch: &[i64]| {
        runs.lock().unwrap().push((pushed.load(Ordering::SeqCst), batch.to_vec()));
        (Verdict::All(batch.to_vec()), ModelId::default(), Duration::ZERO)
    };
    let batcher = Batcher::new(batching, 1, 1, Arc::new(FakeClock::default()));
    let lane = batcher.open();
    for (i, length) in lengths.iter().enumerate() {
        pushed.fetch_add(1, Ordering::SeqCst);
        let own = Chunk { lengths: vec![*length], bytes: 20, ..chunk(i, vec![*length as i64]) };
        lane.push([own], &mut note);
    }
    // What comes back is all that went in.
    pushed.store(0, Ordering::SeqCst);
    lane.finish(&|| false, &mut note).unwrap();
    let slots: Vec<usize> = done(&lane).into_iter().map(|(slot, ..)| slot).collect();
    assert_eq!(slots, (0..lengths.len()).collect::<Vec<_>>());
    runs.into_inner().unwrap()
}

#[test]
fn a_queue_that_takes_too_many_bytes_is_run_before_enough_is_gathered() {
    let lengths = [9, 3, 7, 1, 5, 8, 2];
    // Eight batches' worth would be gathered to sort them by their lengths; five elements are too much here.
    let batching = Batching { max_queue_bytes: 99, ..Batching::fixed(4) };
    assert_eq!(runs_of(&batching, &lengths), [(5, vec![1, 3, 5, 7]), (0, vec![2, 8, 9])]);
    assert_eq!(
        runs_of(&Batching::fixed(4), &lengths),
        [(0, vec![1, 2, 3, 5]), (0, vec![7, 8, 9])],
        "as it is without such a bound"
    );
}

#[test]
fn a_queue_in_bytes_never_breaks_the_smallest_batch_that_was_asked_for() {
    let batching = Batching { max_queue_bytes: 1, ..Batching::fixed(3) };
    assert_eq!(runs_of(&batching, &[1, 2, 3, 4]), [(3, vec![1, 2, 3]), (0, vec![4])]);
    let batching = Batching { max_queue_bytes: 1, ..Batching::at_most(100) };
    assert_eq!(runs_of(&batching, &[1, 2, 3]), [(1, vec![1]), (2, vec![2]), (3, vec![3])]);
}

#[test]
fn length_classes_do_not_mix() {
    let each = |class, slots: &[usize]| Chunk {
        slots: Slots::Each(slots.to_vec()),
        values: slots.iter().map(|slot| *slot as i64).collect(),
        weights: Vec::new(),
        lengths: Vec::new(),
        bytes: 0,
        class,
    };
    let sizes = Sizes::default();
    let batcher = Batcher::new(&Batching::fixed(3), 1, 2, Arc::new(FakeClock::default()));
    let lane = batcher.open();
    lane.push([each(0, &[0, 2, 5, 6]), each(1, &[1, 3, 4])], &mut double(&sizes));
    assert_eq!(*sizes.lock().unwrap(), [3, 3]);
    lane.finish(&|| false, &mut double(&sizes)).unwrap();
    assert_eq!(*sizes.lock().unwrap(), [3, 3, 1]);
    let expected: Vec<_> = (0..7).map(|i| (i, i as i64, i as i64 * 2)).collect();
    assert_eq!(done(&lane), expected);
}

#[test]
fn a_batch_waits_no_longer_than_its_duration() {
    let (sizes, clock) = (Sizes::default(), Arc::new(FakeClock::default()));
    let second = Duration::from_secs(1);
    let batching = Batching { max_batch_duration: Some(second), ..Batching::fixed(100) };
    let batcher = Batcher::new(&batching, 1, 1, clock.clone());
    let lane = batcher.open();
    lane.push([chunk(0, vec![1])], &mut double(&sizes));
    clock.advance(second / 2);
    lane.push([chunk(1, vec![2])], &mut double(&sizes));
    assert_eq!(*sizes.lock().unwrap(), []);
    clock.advance(second / 2);
    lane.push([chunk(2, vec![3])], &mut double(&sizes));
    assert_eq!(*sizes.lock().unwrap(), [3]);
}

#[test]
fn c25_fault_16_a_bundle_waits_for_another_to_fill_its_batch() {
    for _ in 0..50 {
        let (sizes, gate) = (Sizes::default(), Barrier::new(2));
        // The clock stands still: only the other bundle can end the wait.
        let batcher = Batcher::new(&Batching::fixed(2), 1, 1, Arc::new(FakeClock::default()));
        std::thread::scope(|scope| {
            for values in [vec![1, 2, 3], vec![4]] {
                let (sizes, gate, batcher) = (&sizes, &gate, &batcher);
                scope.spawn(move || {
                    let lane = batcher.open();
                    gate.wait();
                    let expected: Vec<_> = values.iter().enumerate().map(|(i, x)| (i, *x, x * 2)).collect();
                    lane.push([chunk(0, values)], &mut double(sizes));
                    lane.finish(&|| false, &mut double(sizes)).unwrap();
                    assert_eq!(done(&lane), expected);
                });
            }
        });
        assert_eq!(*sizes.lock().unwrap(), [2, 2]);
    }
}

#[test]
fn when_every_bundle_waits_the_last_one_runs_for_all() {
    for _ in 0..50 {
        let (sizes, gate) = (Sizes::default(), Barrier::new(4));
        let batcher = Batcher::new(&Batching::fixed(100), 1, 1, Arc::new(FakeClock::default()));
        std::thread::scope(|scope| {
            for i in 0..4i64 {
                let (sizes, gate, batcher) = (&sizes, &gate, &batcher);
                scope.spawn(move || {
                    let lane = batcher.open();
                    gate.wait();
                    lane.push([chunk(0, vec![i])], &mut double(sizes));
                    lane.finish(&|| false, &mut double(sizes)).unwrap();
                    assert_eq!(done(&lane), [(0, i, i * 2)]);
                });
            }
        });
        assert_eq!(*sizes.lock().unwrap(), [4]);
    }
}

#[test]
fn nobody_waits_for_a_bundle_of_the_same_thread() {
    let sizes = Sizes::default();
    let batcher = Batcher::new(&Batching::fixed(100), 1, 1, Arc::new(FakeClock::default()));
    let (a, b) = (batcher.open(), batcher.open());
    a.push([chunk(0, vec![1])], &mut double(&sizes));
    b.push([chunk(0, vec![2])], &mut double(&sizes));
    a.finish(&|| false, &mut double(&sizes)).unwrap();
    assert_eq!(*sizes.lock().unwrap(), [2]);
    assert_eq!((done(&a), done(&b)), (vec![(0, 1, 2)], vec![(0, 2, 4)]));
    b.finish(&|| false, &mut double(&sizes)).unwrap();
}

#[test]
fn cancelling_wakes_a_waiting_bundle() {
    let sizes = Sizes::default();
    let batcher = Batcher::new(&Batching::fixed(100), 1, 1, Arc::new(FakeClock::default()));
    let idle = batcher.open();
    let cancelled = AtomicBool::new(false);
    let error = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let lane = batcher.open();
            lane.push([chunk(0, vec![1])], &mut double(&sizes));
            lane.finish(&|| cancelled.load(Ordering::SeqCst), &mut double(&sizes)).unwrap_err()
        });
        cancelled.store(true, Ordering::SeqCst);
        waiting.join().unwrap()
    });
    assert_eq!((error.kind(), error.code()), (tiebeam_core::ErrorKind::Cancelled, "TB0326"));
    drop(idle);
    assert_eq!(*sizes.lock().unwrap(), []);
}

#[test]
fn a_bundle_that_failed_takes_its_examples_along() {
    let sizes = Sizes::default();
    let batcher = Batcher::new(&Batching::fixed(4), 1, 1, Arc::new(FakeClock::default()));
    let (gone, stays) = (batcher.open(), batcher.open());
    gone.push([chunk(0, vec![1, 2, 3])], &mut double(&sizes));
    drop(gone);
    stays.push([chunk(0, vec![4, 5])], &mut double(&sizes));
    stays.finish(&|| false, &mut double(&sizes)).unwrap();
    assert_eq!(*sizes.lock().unwrap(), [2]);
    assert_eq!(done(&stays), [(0, 4, 8), (1, 5, 10)]);
}

#[test]
fn a_thread_that_is_lost_fails_the_examples_it_had_and_nobody_hangs() {
    let batcher: Arc<Batcher<i64, i64>> =
        Batcher::new(&Batching::fixed(2), 1, 1, Arc::new(FakeClock::default()));
    let gate = Barrier::new(2);
    let verdict = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let lane = batcher.open();
            gate.wait();
            lane.push([chunk(0, vec![1])], &mut |_, _| panic!("not this one"));
            gate.wait();
            lane.finish(&|| false, &mut |_, _| panic!("not this one")).unwrap();
            lane.take_done().remove(0).verdict
        });
        let lost = scope.spawn(|| {
            let lane = batcher.open();
            gate.wait();
            gate.wait();
            lane.push([chunk(0, vec![2])], &mut |_, _| panic!("lost"));
        });
        assert!(lost.join().is_err());
        waiting.join().unwrap()
    });
    let Verdict::Failed(error) = verdict else { panic!("{verdict:?}") };
    assert!(error.message().contains("was lost"), "{error}");
}

#[test]
fn bundles_that_share_a_batch_do_not_share_its_failure() {
    let batcher = Batcher::new(&Batching::fixed(4), 1, 1, Arc::new(FakeClock::default()));
    let (good, guilty) = (batcher.open(), batcher.open());
    let mut run = |_: usize, batch: &[i64]| match batch.contains(&-1) {
        true => (Verdict::Failed(bad("minus one")), ModelId::default(), Duration::ZERO),
        false => (Verdict::All(batch.to_vec()), ModelId::default(), Duration::ZERO),
    };
    good.push([chunk(0, vec![1, 2])], &mut run);
    guilty.push([chunk(0, vec![3, -1])], &mut run);
    assert_eq!(done(&good), [(0, 1, 1), (1, 2, 2)]);
    let piece = guilty.take_done().remove(0);
    let Verdict::Failed(error) = piece.verdict else { panic!("{:?}", piece.verdict) };
    assert_eq!(error.message(), "minus one");
}

/// A generator of our own, so that every run makes the same bundles.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[test]
fn under_stress_nothing_is_lost_repeated_or_misaligned() {
    let settings = [
        Batching::default(),
        Batching::at_most(7),
        Batching::fixed(64),
        Batching { max_batch_weight: Some(100), ..Batching::at_most(50) },
        Batching { max_batch_duration: Some(Duration::from_millis(1)), ..Batching::fixed(200) },
        Batching { bucket_boundaries: Some(Arc::from([5, 9])), ..Batching::at_most(20) },
        Batching {
            bucket_boundaries: Some(Arc::from([5, 9])),
            max_batch_weight: Some(100),
            max_batch_duration: Some(Duration::from_millis(1)),
            ..Batching::at_most(20)
        },
    ];
    for (case, batching) in settings.into_iter().enumerate() {
        let (predicted, pushed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let batcher = Batcher::new(&batching, 1, 3, Arc::new(SystemClock::default()));
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (batcher, batching, predicted, pushed) = (&batcher, &batching, &predicted, &pushed);
                scope.spawn(move || {
                    let mut random = Seeded(thread * 1000 + case as u64);
                    let mut next = (thread as i64) << 32;
                    for _ in 0..60 {
                        one_bundle(batcher, batching, &mut random, &mut next, predicted, pushed);
                    }
                });
            }
        });
        assert_eq!(predicted.into_inner(), pushed.into_inner(), "{batching:?}");
    }
}

fn one_bundle(
    batcher: &Arc<Batcher<i64, i64>>,
    batching: &Batching,
    random: &mut Seeded,
    next: &mut i64,
    predicted: &AtomicUsize,
    pushed: &AtomicUsize,
) {
    let mut run = |_: usize, batch: &[i64]| {
        assert!(!batch.is_empty() && batch.len() <= batching.max_batch_size);
        predicted.fetch_add(batch.len(), Ordering::SeqCst);
        (Verdict::All(batch.iter().map(|x| x.wrapping_mul(2)).collect()), ModelId::default(), Duration::ZERO)
    };
    let lane = batcher.open();
    let mut wanted = Vec::new();
    for _ in 0..random.below(6) {
        let most = if random.below(4) == 0 { 300 } else { 12 };
        let n = 1 + random.below(most) as usize;
        let first = wanted.len();
        let values: Vec<i64> = (*next..).take(n).collect();
        *next += n as i64;
        wanted.extend(values.iter().enumerate().map(|(i, x)| (first + i, *x, x.wrapping_mul(2))));
        // The classes of one push, each with its own slots.
        let mut classes = vec![(Vec::new(), Vec::new()); 3];
        for (i, value) in values.into_iter().enumerate() {
            let (slots, values) = &mut classes[random.below(3) as usize];
            slots.push(first + i);
            values.push(value);
        }
        let chunks = classes.into_iter().enumerate().filter(|(_, (slots, _))| !slots.is_empty());
        let chunks: Vec<_> = chunks
            .map(|(class, (slots, values))| {
                let weights = match batching.max_batch_weight {
                    Some(_) => values.iter().map(|value| (value % 120).unsigned_abs()).collect(),
                    None => Vec::new(),
                };
                let lengths = match batching.bucket_boundaries {
                    Some(_) => values.iter().map(|value| (value % 31).unsigned_abs() as usize).collect(),
                    None => Vec::new(),
                };
                Chunk { slots: Slots::Each(slots), values, weights, lengths, bytes: 8, class }
            })
            .collect();
        pushed.fetch_add(n, Ordering::SeqCst);
        lane.push(chunks, &mut run);
    }
    lane.finish(&|| false, &mut run).unwrap();
    assert_eq!(done(&lane), wanted);
}

#[test]
fn examples_of_about_one_length_share_a_batch_and_little_is_padded() {
    let lengths: Vec<usize> = (0..64).map(|i| 1 + i * 37 % 64).collect();
    let with_lengths = |range: std::ops::Range<usize>| Chunk {
        lengths: lengths[range.clone()].to_vec(),
        ..chunk(range.start, range.map(|i| i as i64).collect())
    };
    let batches = Mutex::new(Vec::new());
    let mut run = |_: usize, batch: &[i64]| {
        let mut own: Vec<usize> = batch.iter().map(|i| lengths[*i as usize]).collect();
        own.sort_unstable();
        batches.lock().unwrap().push((own[0], own[own.len() - 1]));
        (Verdict::All(batch.iter().map(|x| x * 2).collect()), ModelId::default(), Duration::ZERO)
    };
    let batcher = Batcher::new(&Batching::fixed(8), 1, 1, Arc::new(FakeClock::default()));
    let lane = batcher.open();
    lane.push([with_lengths(0..40)], &mut run);
    assert_eq!(*batches.lock().unwrap(), [], "a window of eight batches is gathered");
    lane.push([with_lengths(40..64)], &mut run);
    let expected: Vec<_> = (0..8).map(|i| (i * 8 + 1, i * 8 + 8)).collect();
    assert_eq!(*batches.lock().unwrap(), expected);
    // Batches to 8, 16, …, 64: 8 · 288, of which 64 · 65 / 2 were asked for.
    let padded = lane.take_lengths();
    assert_eq!((padded.padded, padded.padding), (2304, 2304 - 2080));
    assert_eq!(done(&lane), (0..64).map(|i| (i, i as i64, i as i64 * 2)).collect::<Vec<_>>());
}

#[test]
fn fault_04_weight_counts_with_a_duration_too() {
    let batching = Batching {
        max_batch_weight: Some(6),
        max_batch_duration: Some(Duration::from_secs(60)),
        ..Batching::at_most(100)
    };
    let light = Chunk { weights: vec![1; 20], ..chunk(0, (0..20).collect()) };
    assert_eq!(sizes_of(&Batching { min_batch_size: 100, ..batching }, [light]), [6, 6, 6, 2]);
}
