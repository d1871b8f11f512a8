//! How large the next batch should be: Beam's estimate from the times of the batches before.

use std::collections::VecDeque;
use std::time::Duration;

use crate::batching::Batching;

/// Measurements kept; the oldest are thinned out when there are more.
const MAX_MEASUREMENTS: usize = 100;
/// A batch is at most this many times as large as the largest of the last ones.
const MAX_GROWTH: f64 = 2.0;
const LAST: usize = 8;
/// From this many measurements on, outliers are thrown out and sizes are spread.
const ENOUGH: usize = 10;
/// How many times as far from the line as the median a time must lie to be an outlier.
const OUTLIER: f64 = 5.0;
/// How often the line is drawn anew without the outliers.
const REFITS: usize = 3;
/// Times kept of each class of sizes (1, 2 to 3, 4 to 7, …) to compare their elements per second.
const RECENT: usize = 8;
/// So many times must be known of the largest sizes before they are judged.
const JUDGED: usize = 3;
/// The smallest sizes are taken at which an element costs no more than this many times what it costs at the best ones: a larger
/// batch that gains nothing only takes more memory, and its elements wait longer.
const TOLERANCE: f64 = 1.03;
/// After so many batches at a smaller size the larger ones get another chance: the machine may be free by now.
const FORGIVEN: usize = 64;

/// Why the size is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    AsSet,
    Unmeasured,
    Growing,
    Overhead,
    Duration,
    WholeDuration,
    Maximum,
    Fastest,
}

/// Learns `time = a + b·size` and says what size comes next.
#[derive(Debug)]
pub(crate) struct Estimator {
    batching: Batching,
    /// (size, seconds), in the order in which they came.
    measured: Vec<(f64, f64)>,
    /// The first batch after a load warms caches and kernels up; its time says nothing of the next.
    ignore_next: bool,
    replay: Option<usize>,
    random: u64,
    /// The last fit, and how many times were told since.
    fitted: (f64, f64),
    unfitted: usize,
    speeds: Speeds,
    /// The size that is not exceeded as long as no larger one has shown to be worth it.
    fastest: Option<usize>,
    /// The last choice, before it was spread.
    chosen: (usize, Why),
}

impl Estimator {
    pub(crate) fn new(batching: &Batching) -> Self {
        Estimator {
            batching: batching.clone(),
            measured: Vec::new(),
            ignore_next: false,
            replay: None,
            random: 0x9E37_79B9_7F4A_7C15,
            fitted: (0.0, 0.0),
            unfitted: 0,
            speeds: Speeds::default(),
            fastest: None,
            chosen: (batching.min_batch_size.max(1), Why::Unmeasured),
        }
    }

    /// The size and the reason for it; nothing while nothing was measured.
    pub(crate) fn told(&self) -> Option<(usize, String)> {
        if self.measured.is_empty() {
            return None;
        }
        let (size, why) = self.chosen;
        let batching = &self.batching;
        let why = match why {
            Why::AsSet => "as set".to_owned(),
            Why::Unmeasured | Why::Growing => "still growing".to_owned(),
            Why::Maximum => "the maximum".to_owned(),
            Why::Overhead => {
                let share = batching.target_batch_overhead.unwrap_or_default() * 100.0;
                format!("above it the fixed cost is less than {share}% of the time")
            }
            Why::Duration => {
                format!("its elements take {:?}", batching.target_batch_duration.unwrap_or_default())
            }
            Why::WholeDuration => {
                let whole = batching.target_batch_duration_including_fixed_cost;
                format!("it takes {:?}", whole.unwrap_or_default())
            }
            Why::Fastest => {
                let sizes: Vec<String> = self.speeds.sizes().map(|size| size.to_string()).collect();
                format!("best of {} by elements per second", sizes.join(", "))
            }
        };
        Some((size, why))
    }

    /// The next time told is not believed, and its size is tried again.
    pub(crate) fn ignore_next_time(&mut self) {
        self.ignore_next = true;
    }

    /// Tells how long a batch of `size` took, and how much was computed: its length with padding, where lengths count. Within a
    /// class they differ by half, and without them long examples would look like a size that is too large.
    pub(crate) fn record_work(&mut self, size: usize, work: f64, took: Duration) {
        if std::mem::take(&mut self.ignore_next) {
            self.replay = Some(size);
            return;
        }
        self.measured.push((size as f64, took.as_secs_f64()));
        self.unfitted += 1;
        self.speeds.record(size, took.as_secs_f64() / work.max(1.0));
        self.fastest = self.speeds.fastest();
        if self.measured.len() >= MAX_MEASUREMENTS {
            // Two at once, so that whether their number is odd (which `next` uses) does not change.
            let (old, older) =
                (self.random_below(MAX_MEASUREMENTS / 4), self.random_below(MAX_MEASUREMENTS / 2));
            self.measured.remove(old);
            self.measured.remove(older);
        }
    }

    /// The size of the next batch, between the minimum and the maximum.
    pub(crate) fn next(&mut self) -> usize {
        let (min, max) = (self.batching.min_batch_size.max(1), self.batching.max_batch_size);
        if min >= max {
            self.chosen = (max, Why::AsSet);
            return max;
        }
        if let Some(size) = self.replay.take() {
            return size.clamp(min, max);
        }
        let last = match self.measured.as_slice() {
            [] => return min,
            // Two different sizes are needed for a line.
            [_] => {
                let second = (min * MAX_GROWTH as usize).min(max).max(min + 1).min(max);
                self.chosen = (second, Why::Growing);
                return second;
            }
            // What is left at a bundle's end makes small batches; they are no reason to begin anew.
            [..] => self.measured.iter().rev().take(LAST).fold(0.0, |most: f64, (size, _)| most.max(*size)),
        };
        // With many times known, one more changes little: the fit is not worth its cost for every batch.
        if self.unfitted * 10 >= self.measured.len() {
            self.fitted = self.line();
            self.unfitted = 0;
        }
        let (mut target, mut why) = self.bounded(max);
        if let Some(fastest) = self.fastest
            && (fastest as f64) < target
        {
            (target, why) = (fastest as f64, Why::Fastest);
        }
        let cap = (last * MAX_GROWTH).min(max as f64);
        // The cast saturates: a target below nothing is nothing.
        self.chosen = match target > cap {
            true => (cap as usize, if cap < max as f64 { Why::Growing } else { Why::Maximum }),
            false => ((target as usize).max(min), why),
        };
        // Alternates between 0 and 1, so that the size does not stick to the minimum.
        let jitter = self.measured.len() % 2;
        if self.measured.len() > ENOUGH && why != Why::Fastest {
            let unit = self.random_below(1 << 20) as f64 / f64::from(1 << 20);
            target += (target * self.batching.variance * 2.0 * (unit - 0.5)).trunc();
        }
        (target.min(cap) as usize).max(min + jitter).min(max)
    }

    /// The largest size that the settings allow by the line of the times, and the setting that bounds it.
    fn bounded(&self, max: usize) -> (f64, Why) {
        let (a, b) = self.fitted;
        let b = b.max(1e-20);
        let mut bounds = (max as f64, Why::Maximum);
        let mut bound = |target: f64, why| {
            if target < bounds.0 {
                bounds = (target, why);
            }
        };
        if let Some(whole) = self.batching.target_batch_duration_including_fixed_cost {
            bound((whole.as_secs_f64() - a.max(0.0)) / b, Why::WholeDuration);
        }
        if let Some(elements) = self.batching.target_batch_duration {
            bound(elements.as_secs_f64() / b, Why::Duration);
        }
        if let Some(overhead) = self.batching.target_batch_overhead
            && a > 0.0
        {
            // Noise can make the fixed cost come out as nothing or less: then it bounds nothing. (Beam takes it as
            // tiny and falls back to single elements.)
            bound((a / b) * (1.0 / overhead - 1.0), Why::Overhead);
        }
        bounds
    }

    /// `a` and `b` of the line through the measurements, fewest squares, without the largest fifth when there are many
    /// and without outliers.
    fn line(&self) -> (f64, f64) {
        let mut points = self.measured.clone();
        points.sort_by(|p, q| p.partial_cmp(q).unwrap_or(std::cmp::Ordering::Equal));
        points.truncate((points.len() * 4 / 5).max(20));
        let (a, b) = fit(&points, |_| 1.0);
        if points.len() < ENOUGH {
            return (a, b);
        }
        // Small batches know more of the fixed cost: they weigh more. Times are sometimes far too long (another process
        // had the machine) and never far too short, so a few that lie far off the line are left out and it is drawn anew.
        let (mut a, mut b) = fit(&points, |(x, _)| 1.0 / (x * x));
        for _ in 0..REFITS {
            let distance = |(x, y): (f64, f64)| ((y - a - b * x) / (a + b * x)).abs();
            let mut distances: Vec<f64> = points.iter().copied().map(distance).collect();
            distances.sort_by(f64::total_cmp);
            let limit = distances[distances.len() / 2] * OUTLIER + 1e-9;
            let weight = |(x, y): (f64, f64)| if distance((x, y)) <= limit { 1.0 / (x * x) } else { 0.0 };
            (a, b) = fit(&points, weight);
        }
        (a, b)
    }

    /// A number below `n`, the same ones in every run.
    fn random_below(&mut self, n: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % n as u64) as usize
    }
}

/// What an element cost lately, by classes of batch sizes. A straight line can't know that a model gets slower again above
/// some size (its caches are full, its memory is swapped); this can.
#[derive(Debug, Default)]
struct Speeds {
    /// By the binary logarithm of the size: (size, seconds for each element, or for its length), oldest first.
    classes: Vec<VecDeque<(usize, f64)>>,
    /// Batches since the largest sizes were found to be slower.
    capped: usize,
}

impl Speeds {
    fn record(&mut self, size: usize, cost: f64) {
        let class = size.max(1).ilog2() as usize;
        if self.classes.len() <= class {
            self.classes.resize_with(class + 1, || VecDeque::with_capacity(RECENT));
        }
        let recent = &mut self.classes[class];
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back((size, cost));
    }

    /// The largest size of each class that was tried.
    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.classes.iter().filter_map(|recent| recent.iter().map(|(size, _)| *size).max())
    }

    /// The size to stay at, when the largest sizes gain nothing over smaller ones. If less is known of those, going back is
    /// how more gets known.
    fn fastest(&mut self) -> Option<usize> {
        let top = self.classes.iter().rposition(|recent| !recent.is_empty())?;
        let largest = |class: &VecDeque<(usize, f64)>| class.iter().map(|(size, _)| *size).max();
        // Times too short for the clock say nothing.
        let best =
            self.classes.iter().filter_map(median).min_by(f64::total_cmp).filter(|best| *best > 0.0)?;
        if self.classes[top].len() < JUDGED {
            // No gain so far: no larger one is tried before it is known.
            let gains = median(&self.classes[top]).is_some_and(|cost| cost <= best);
            return if gains { None } else { largest(&self.classes[top]) };
        }
        let limit = best * TOLERANCE;
        let chosen =
            self.classes.iter().position(|recent| median(recent).is_some_and(|cost| cost <= limit))?;
        if chosen == top {
            self.capped = 0;
            return None;
        }
        self.capped += 1;
        if self.capped > FORGIVEN {
            self.capped = 0;
            self.classes.truncate(chosen + 1);
        }
        largest(&self.classes[chosen])
    }
}

/// The middle one of what elements cost.
fn median(recent: &VecDeque<(usize, f64)>) -> Option<f64> {
    let mut costs = [0.0; RECENT];
    let costs = &mut costs[..recent.len()];
    for (cost, (_, seconds)) in costs.iter_mut().zip(recent) {
        *cost = *seconds;
    }
    costs.sort_by(f64::total_cmp);
    costs.get(costs.len() / 2).copied()
}

/// The line of the least weighted squares. Points of one size alone give the mean as the cost of an element.
fn fit(points: &[(f64, f64)], weight: impl Fn((f64, f64)) -> f64) -> (f64, f64) {
    let (mut w, mut wx, mut wy) = (0.0, 0.0, 0.0);
    for &(x, y) in points {
        let weight = weight((x, y));
        w += weight;
        wx += weight * x;
        wy += weight * y;
    }
    if w <= 0.0 {
        return (0.0, 0.0);
    }
    let (mean_x, mean_y) = (wx / w, wy / w);
    let (mut above, mut below) = (0.0, 0.0);
    for &(x, y) in points {
        let weight = weight((x, y));
        above += weight * (x - mean_x) * (y - mean_y);
        below += weight * (x - mean_x).powi(2);
    }
    if below <= f64::EPSILON * wx.abs() {
        return (0.0, if mean_x > 0.0 { mean_y / mean_x } else { 0.0 });
    }
    let b = above / below;
    (mean_y - b * mean_x, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Estimator {
        fn record(&mut self, size: usize, took: Duration) {
            self.record_work(size, size as f64, took);
        }
    }

    fn sizes(n: usize, batching: Batching, took: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut estimator = Estimator::new(&batching);
        (0..n)
            .map(|_| {
                let size = estimator.next();
                estimator.record(size, Duration::from_secs_f64(took(size)));
                size
            })
            .collect()
    }

    fn slow(n: usize) -> f64 {
        1.0 + 0.7 * n as f64
    }

    #[test]
    fn c20a_a_target_duration_bounds_the_size() {
        let batching = Batching { target_batch_overhead: None, ..Batching::default() };
        assert_eq!(sizes(7, batching, slow), [1, 2, 4, 8, 14, 14, 14]);
    }

    #[test]
    fn c20c_a_target_overhead_bounds_the_size() {
        let batching = Batching { target_batch_duration: None, ..Batching::default() };
        assert_eq!(sizes(8, batching, slow), [1, 2, 4, 8, 16, 27, 27, 27]);
    }

    #[test]
    fn c20d_the_defaults_take_the_smaller_bound() {
        assert_eq!(sizes(9, Batching::default(), slow), [1, 2, 4, 8, 14, 14, 14, 14, 14]);
    }

    #[test]
    fn c20f_an_overhead_of_one_asks_for_the_least_and_still_tries_two() {
        let batching = Batching { target_batch_overhead: Some(1.0), ..Batching::default() };
        assert_eq!(sizes(6, batching, |n| 1.0 + 0.1 * n as f64), [1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn the_whole_duration_can_be_bounded() {
        let batching = Batching {
            target_batch_overhead: None,
            target_batch_duration: None,
            target_batch_duration_including_fixed_cost: Some(Duration::from_secs(10)),
            ..Batching::default()
        };
        // (10 - 1) / 0.7 = 12.86
        assert_eq!(sizes(7, batching, slow), [1, 2, 4, 8, 12, 12, 12]);
    }

    #[test]
    fn a_fixed_size_never_changes() {
        assert_eq!(sizes(5, Batching::fixed(10), slow), [10; 5]);
    }

    #[test]
    fn an_ignored_time_is_measured_again_at_the_same_size() {
        let mut estimator = Estimator::new(&Batching::default());
        let mut sizes = Vec::new();
        estimator.ignore_next_time();
        for i in 0..5 {
            let size = estimator.next();
            // The first call is a thousand times slower; it must not spoil the fit.
            estimator.record(size, Duration::from_secs_f64(slow(size) * if i == 0 { 1000.0 } else { 1.0 }));
            sizes.push(size);
        }
        assert_eq!(sizes, [1, 1, 2, 4, 8]);
    }

    #[test]
    fn a_call_without_fixed_cost_grows_to_the_maximum() {
        let mut estimator = Estimator::new(&Batching::at_most(300));
        let mut last = 1;
        for _ in 0..200 {
            let size = estimator.next();
            assert!((1..=300).contains(&size) && size <= last * 2 + 1, "{size} after {last}");
            estimator.record(size, Duration::ZERO);
            last = size;
        }
        assert!(last > 150, "{last}");
    }

    #[test]
    fn many_noisy_times_keep_the_size_near_the_target() {
        let mut estimator = Estimator::new(&Batching::default());
        let mut random = 7u64;
        let mut seen = Vec::new();
        for i in 0..500 {
            let size = estimator.next();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let noise = if i % 37 == 0 { 20.0 } else { 0.95 + (random >> 40) as f64 / 1.6e8 };
            estimator.record(size, Duration::from_secs_f64((0.1 + 0.01 * size as f64) * noise));
            seen.push(size);
        }
        // a/b · 19 = 190, spread by a quarter; less where that costs next to nothing.
        let late = &seen[300..];
        let mean = late.iter().sum::<usize>() / late.len();
        assert!((100..=240).contains(&mean), "mean {mean}, {late:?}");
        assert!(late.iter().all(|size| (64..=400).contains(size)), "{late:?}");
    }

    #[test]
    fn sizes_above_which_the_model_gets_slower_are_left_again() {
        // An element costs 1 ms, and three times that above 100 elements: no line says so, but the times do.
        let took = |n: usize| 0.01 + 0.001 * n as f64 * if n > 100 { 3.0 } else { 1.0 };
        let batching =
            Batching { target_batch_overhead: None, target_batch_duration: None, ..Batching::at_most(1024) };
        let mut estimator = Estimator::new(&batching);
        let mut seen = Vec::new();
        for _ in 0..60 {
            let size = estimator.next();
            estimator.record(size, Duration::from_secs_f64(took(size)));
            seen.push(size);
        }
        assert_eq!(seen[..10], [1, 2, 4, 8, 16, 32, 64, 128, 128, 128]);
        assert!(seen[10..].iter().all(|size| *size == 64), "{seen:?}");
        let (size, why) = estimator.told().unwrap();
        assert_eq!(size, 64);
        assert_eq!(why, "best of 1, 2, 4, 8, 16, 32, 64, 128 by elements per second");
        // The machine got better: after a while the larger sizes are tried again, and kept as far as they gain: at 256 an
        // element costs 2.9 % more than at 1024.
        for _ in 0..150 {
            let size = estimator.next();
            estimator.record(size, Duration::from_secs_f64(0.01 + 0.001 * size as f64));
            seen.push(size);
        }
        assert!(seen[60..].contains(&1024), "{:?}", &seen[60..]);
        let late = &seen[seen.len() - 50..];
        assert!(late.iter().all(|size| (256..512).contains(size)), "{late:?}");
    }

    #[test]
    fn the_rest_at_a_bundles_end_does_not_make_it_grow_anew() {
        let mut estimator = Estimator::new(&Batching::default());
        for rest in [None, None, None, None, Some(1), Some(3), None] {
            let size = estimator.next();
            let size = rest.unwrap_or(size);
            estimator.record(size, Duration::from_secs_f64(slow(size)));
        }
        estimator.next();
        assert_eq!(estimator.told().map(|(size, _)| size), Some(14), "{:?}", estimator.told());
    }

    #[test]
    fn longer_examples_are_no_reason_against_larger_batches() {
        // Each time the gathered examples are in the order of their lengths, so that larger batches have the longer ones.
        let batching =
            Batching { target_batch_overhead: None, target_batch_duration: None, ..Batching::at_most(16) };
        let mut estimator = Estimator::new(&batching);
        for i in 0..20 {
            let size = estimator.next();
            let length = if i < 5 { 16.0 + 4.0 * i as f64 } else { 32.0 };
            let took = length * (6e-4 + 1e-3 * size as f64);
            estimator.record_work(size, length * size as f64, Duration::from_secs_f64(took));
        }
        assert!(estimator.told().is_some_and(|(size, _)| size > 8), "{:?}", estimator.told());
    }

    /// What an element costs by size, in milliseconds, as measured for MobileNetV2: hardly anything is gained by batches.
    #[test]
    fn a_model_that_gains_nothing_by_batches_gets_the_smallest_of_the_best_sizes() {
        let cost = |n: usize| match n {
            0 | 1 => 8.2,
            2..=3 => 8.0,
            4..=7 => 8.1,
            8..=15 => 9.0,
            _ => 10.2,
        };
        let mut estimator = Estimator::new(&Batching::default());
        let mut seen = Vec::new();
        for i in 0..200 {
            let size = estimator.next();
            // The machine is shared: some calls take far longer.
            let noise = if i % 11 == 3 { 2.5 } else { 1.0 };
            estimator.record(size, Duration::from_secs_f64(cost(size) * 1e-3 * size as f64 * noise));
            seen.push(size);
        }
        let most = seen.iter().max();
        assert!(most.is_some_and(|most| *most <= 8), "{seen:?}");
        let small = seen[40..].iter().filter(|size| **size <= 2).count();
        assert!(small >= 150, "{seen:?}");
        assert!(estimator.told().is_some_and(|(size, _)| size <= 2), "{:?}", estimator.told());
    }

    #[test]
    fn the_choice_is_told_with_its_reason() {
        let told = |n: usize, batching: Batching| {
            let mut estimator = Estimator::new(&batching);
            for _ in 0..n {
                let size = estimator.next();
                estimator.record(size, Duration::from_secs_f64(slow(size)));
            }
            estimator.next();
            estimator.told().map(|(size, why)| format!("size {size}: {why}"))
        };
        let of = |n, batching| told(n, batching).unwrap_or_default();
        assert_eq!(told(0, Batching::default()), None);
        assert_eq!(of(2, Batching::default()), "size 4: still growing");
        assert_eq!(of(6, Batching::default()), "size 14: its elements take 10s");
        let no_duration = Batching { target_batch_duration: None, ..Batching::default() };
        let overhead = "size 27: above it the fixed cost is less than 5% of the time";
        assert_eq!(of(8, no_duration), overhead);
        assert_eq!(of(8, Batching::at_most(6)), "size 6: the maximum");
        assert_eq!(of(8, Batching::fixed(64)), "size 64: as set");
    }
}
