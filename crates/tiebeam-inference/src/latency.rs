//! How long elements wait: when each arrived at the batcher, what that makes of the step's metrics, and the percentiles in
//! the report.
//!
//! Arrivals are kept by chunk, which has one; where a queue is sorted, each element has its own. The clock is read once for
//! each push and twice for each batch, never for an element.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tiebeam_core::metrics::DistributionValue;

/// When the examples of a chunk that waits arrived.
pub(crate) enum Arrivals {
    /// All at once.
    At(Duration),
    /// Each at its own time.
    Each(std::vec::IntoIter<Duration>),
}

impl Arrivals {
    /// When the example at `place` of those that are left arrived.
    pub(crate) fn get(&self, place: usize) -> Duration {
        match self {
            Arrivals::At(since) => *since,
            Arrivals::Each(each) => each.as_slice().get(place).copied().unwrap_or_default(),
        }
    }

    /// The arrivals of the first `n`, which leave these.
    pub(crate) fn take(&mut self, n: usize) -> Arrived {
        let each = match self {
            Arrivals::At(since) => return Arrived::AtOnce((*since, n)),
            Arrivals::Each(each) => each,
        };
        let mut runs: Vec<(Duration, usize)> = Vec::new();
        let mut taken: Vec<Duration> = each.by_ref().take(n).collect();
        taken.sort_unstable();
        for since in taken {
            match runs.last_mut() {
                Some((last, n)) if *last == since => *n += 1,
                _ => runs.push((since, 1)),
            }
        }
        Arrived::Runs(runs)
    }
}

/// When the examples of a part of a batch arrived, and how many did at each time.
pub(crate) enum Arrived {
    AtOnce((Duration, usize)),
    Runs(Vec<(Duration, usize)>),
}

impl Arrived {
    fn runs(&self) -> &[(Duration, usize)] {
        match self {
            Arrived::AtOnce(run) => std::slice::from_ref(run),
            Arrived::Runs(runs) => runs,
        }
    }
}

/// From when to when a model had a batch in hand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) started: Duration,
    pub(crate) ended: Duration,
}

/// How long elements waited for their batch to begin, and how long till it was done; microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) queue: DistributionValue,
    pub(crate) whole: DistributionValue,
}

impl Default for Waits {
    fn default() -> Self {
        Waits { queue: DistributionValue::EMPTY, whole: DistributionValue::EMPTY }
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

impl Waits {
    /// Those of elements that arrived then and were in that batch.
    pub(crate) fn of(arrived: &Arrived, span: Span) -> Self {
        let mut waits = Waits::default();
        let whole = |time: Duration| micros(time).try_into().unwrap_or(i64::MAX);
        for (since, n) in arrived.runs() {
            let n = i64::try_from(*n).unwrap_or(i64::MAX);
            waits.queue.add_many(whole(span.started.saturating_sub(*since)), n);
            waits.whole.add_many(whole(span.ended.saturating_sub(*since)), n);
        }
        waits
    }
}

/// Each doubling of a time falls into so many buckets.
const FINE: u64 = 32;
const FINE_BITS: u32 = FINE.ilog2();
/// Twelve days, in microseconds; longer times count as that.
const LONGEST: u64 = (1 << 40) - 1;

/// The bucket of a time in microseconds. Up to 63 each has its own.
fn bucket(micros: u64) -> u16 {
    let micros = micros.min(LONGEST);
    if micros < FINE {
        return micros as u16;
    }
    let shift = micros.ilog2() - FINE_BITS;
    (u64::from(shift) * FINE + (micros >> shift)) as u16
}

/// The middle of a bucket: no time in it is further off than one part in 64.
fn middle(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    if bucket < FINE {
        return bucket;
    }
    let shift = bucket / FINE - 1;
    let lower = (bucket % FINE + FINE) << shift;
    lower + ((1 << shift) - 1) / 2
}

/// Times of which half, 95 of a hundred and 99 of a hundred elements took no longer: from the arrival at the step's
/// batcher until the batch's predictions were there. Off by less than one part in fifty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    /// Half of the elements.
    pub p50: Duration,
    /// 95 of a hundred.
    pub p95: Duration,
    /// 99 of a hundred.
    pub p99: Duration,
}

#[derive(Default)]
struct Counted {
    /// The buckets that have any; times of one model are mostly alike.
    buckets: BTreeMap<u16, u64>,
    longest: u64,
}

/// How long the elements of one model took, of all steps that share it.
#[derive(Default)]
pub(crate) struct Latencies(Mutex<Counted>);

impl Latencies {
    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts elements that arrived then and whose batch ended at `ended`.
    pub(crate) fn add(&self, arrived: &Arrived, ended: Duration) {
        let mut counted = self.lock();
        for (since, n) in arrived.runs() {
            let time = micros(ended.saturating_sub(*since));
            *counted.buckets.entry(bucket(time)).or_default() += *n as u64;
            counted.longest = counted.longest.max(time);
        }
    }

    /// Nothing while nothing was counted.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let counted = self.lock();
        let total: u64 = counted.buckets.values().sum();
        let at = |percent: u64| {
            // The smallest time that so many of them don't exceed.
            let rank = (u128::from(total) * u128::from(percent)).div_ceil(100).max(1) as u64;
            let mut below = 0;
            let reached = counted.buckets.iter().find(|(_, n)| {
                below += **n;
                below >= rank
            });
            let middle = middle(*reached?.0);
            Some(Duration::from_micros(middle.min(counted.longest)))
        };
        Some(Percentiles { p50: at(50)?, p95: at(95)?, p99: at(99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn of(times: impl IntoIterator<Item = (u64, usize)>) -> Option<[u64; 3]> {
        let latencies = Latencies::default();
        for (time, n) in times {
            latencies.add(&Arrived::AtOnce((us(5), n)), us(5 + time));
        }
        let Percentiles { p50, p95, p99 } = latencies.percentiles()?;
        Some([p50, p95, p99].map(micros))
    }

    #[test]
    fn every_time_falls_into_a_bucket_whose_middle_is_close() {
        let mut before = 0;
        for shift in 0..40 {
            for step in 0..200u64 {
                let time = (1u64 << shift) + ((step << shift) / 200);
                let bucket = bucket(time);
                assert!(bucket >= before, "{time} is in {bucket}, shorter ones in {before}");
                before = bucket;
                assert!(middle(bucket).abs_diff(time) * 64 <= time, "{time} is told as {}", middle(bucket));
            }
        }
        for time in 0..64 {
            assert_eq!(middle(bucket(time)), time);
        }
        assert_eq!(bucket(64), bucket(65), "two each from here on");
        assert_eq!(bucket(LONGEST), 36 * 32 - 1);
        assert_eq!(bucket(u64::MAX), bucket(LONGEST));
    }

    #[test]
    fn percentiles_of_known_times() {
        assert_eq!(of([]), None);
        assert_eq!(of([(0, 3)]), Some([0, 0, 0]));
        assert_eq!(of([(40, 1)]), Some([40, 40, 40]));
        assert_eq!(of((1..=60).map(|time| (time, 1))), Some([30, 57, 60]));
        assert_eq!(of([(10, 50), (20, 45), (30, 4), (50, 1)]), Some([10, 20, 30]), "the last of each share");
        assert_eq!(of([(10, 49), (20, 45), (30, 4), (50, 2)]), Some([20, 30, 50]), "one fewer");
        assert_eq!(of([(1_000_000, 1000)]), Some([1_000_000; 3]), "no longer than the longest");
        let [p50, p95, p99] = of((1..=100_000).map(|time| (time, 1))).unwrap();
        for (told, exact) in [(p50, 50_000u64), (p95, 95_000), (p99, 99_000)] {
            assert!(told.abs_diff(exact) * 50 < exact, "{told} for {exact}");
        }
    }

    #[test]
    fn who_arrived_at_once_is_counted_at_once() {
        let span = Span { started: us(100), ended: us(250) };
        let waits = Waits::of(&Arrivals::At(us(70)).take(3), span);
        assert_eq!(waits.queue, DistributionValue { count: 3, sum: 90, min: 30, max: 30 });
        assert_eq!(waits.whole, DistributionValue { count: 3, sum: 540, min: 180, max: 180 });
    }

    #[test]
    fn who_was_sorted_keeps_the_own_arrival() {
        let mut arrivals = Arrivals::Each(vec![us(20), us(10), us(20), us(50)].into_iter());
        assert_eq!(arrivals.get(1), us(10));
        assert_eq!(arrivals.take(3).runs(), [(us(10), 1), (us(20), 2)]);
        assert_eq!((arrivals.get(0), arrivals.take(1).runs()), (us(50), &[(us(50), 1)][..]));
        assert_eq!(Waits::of(&arrivals.take(0), Span { started: us(1), ended: us(2) }), Waits::default());
    }
}
