//! Random pipelines in all three modes against a model of a few lines: planning, fusion, shuffles, windows, side inputs and
//! the worker must not change what a pipeline means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::{
    CombineFn, DoFn, ElementContext, FixedWindows, GlobalWindows, Iterable, Output, Result, SlidingWindows,
    Timestamp, View, Window, WindowFn, WindowingStrategy, Windows,
};
use tiebeam_graph::{Create, PCollection, ParDo, Pipeline};
use tiebeam_testing::{TestPipeline, assert_that};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// A PCollection and what it must hold.
#[derive(Clone)]
struct Both {
    real: PCollection<i64>,
    model: Vec<(i64, Windows)>,
    windowing: usize,
}

const WINDOWINGS: usize = 3;

fn windowing(kind: usize) -> Arc<dyn WindowFn> {
    let seconds = Duration::from_secs;
    match kind {
        0 => Arc::new(GlobalWindows),
        1 => Arc::new(FixedWindows::of(seconds(10)).with_offset(seconds(3))),
        _ => Arc::new(SlidingWindows::of(seconds(20), seconds(10))),
    }
}

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

#[derive(Clone)]
struct AddAll(View<Vec<i64>>);

impl DoFn for AddAll {
    type In = i64;
    type Out = i64;

    fn process(&mut self, n: i64, cx: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
        out.emit(added(n, cx.side_input(&self.0)?.iter().copied()));
        Ok(())
    }
}

fn added(n: i64, all: impl Iterator<Item = i64>) -> i64 {
    (n + all.sum::<i64>()) % 1_009
}

fn of_group(key: i64, sum: i64) -> i64 {
    (sum * 5 + key) % 1_013
}

fn timestamp(n: i64) -> Timestamp {
    Timestamp::from_millis(n.rem_euclid(61) * 700)
}

impl Both {
    fn change(&self, real: PCollection<i64>, change: impl Fn(i64) -> Vec<i64>) -> Both {
        let model =
            self.model.iter().flat_map(|(n, w)| change(*n).into_iter().map(|n| (n, w.clone()))).collect();
        Both { real, model, windowing: self.windowing }
    }

    fn map(&self) -> Both {
        let f = |n: i64| (n * 3 + 1) % 1_000;
        self.change(self.real.map(f), |n| vec![f(n)])
    }

    fn filter(&self) -> Both {
        let f = |n: i64| n % 3 != 0;
        self.change(self.real.filter(move |n| f(*n)), |n| if f(n) { vec![n] } else { vec![] })
    }

    fn flat_map(&self) -> Both {
        let f = |n: i64| vec![n + 1; n.rem_euclid(3) as usize];
        self.change(self.real.flat_map(f), f)
    }

    fn reshuffle(&self) -> Both {
        self.change(self.real.reshuffle(), |n| vec![n])
    }

    fn window(&self, kind: usize) -> Both {
        let window_fn = windowing(kind);
        let assigned = |n| window_fn.assign(timestamp(n), &Windows::GLOBAL);
        let model = self.model.iter().map(|(n, _)| (*n, assigned(*n))).collect();
        let strategy = WindowingStrategy { window_fn: windowing(kind), ..WindowingStrategy::global() };
        let real = self.real.with_timestamps(|n| timestamp(*n)).window_into(strategy);
        Both { real, model, windowing: kind }
    }

    fn group(&self, combine: bool) -> Both {
        let keyed = self.real.map(|n| (n.rem_euclid(5), n));
        let sums = if combine {
            keyed.combine_per_key(Sum)
        } else {
            keyed.group_by_key().map(|(k, all): (i64, Iterable<i64>)| (k, all.iter().sum::<i64>()))
        };
        let mut groups: BTreeMap<(Window, i64), i64> = BTreeMap::new();
        for (n, windows) in &self.model {
            for window in windows.as_slice() {
                *groups.entry((window.clone(), n.rem_euclid(5))).or_default() += n;
            }
        }
        let model = groups.into_iter().map(|((w, k), sum)| (of_group(k, sum), Windows::One(w))).collect();
        Both { real: sums.map(|(k, sum)| of_group(k, sum)), model, windowing: self.windowing }
    }

    fn flatten(&self, p: &Pipeline, other: &Both) -> Both {
        let real = p.flatten([self.real.clone(), other.real.clone(), self.real.clone()]);
        let model = [&self.model[..], &other.model[..], &self.model[..]].concat();
        Both { real, model, windowing: self.windowing }
    }

    fn add_all(&self, side: &Both) -> Both {
        let view = side.real.as_list();
        let real = self.real.apply(ParDo::new(AddAll(view.view())).with_side_input(&view));
        let side_fn = windowing(side.windowing);
        let mut model = Vec::new();
        for (n, windows) in &self.model {
            for window in windows.as_slice() {
                let wanted = side_fn.side_input_window(window);
                let all = side.model.iter().filter(|(_, windows)| windows.as_slice().contains(&wanted));
                model.push((added(*n, all.map(|(n, _)| *n)), Windows::One(window.clone())));
            }
        }
        Both { real, model, windowing: self.windowing }
    }
}

fn random_pipeline(p: &Pipeline, seed: u64) {
    let mut random = Random(seed);
    let mut all: Vec<Both> = Vec::new();
    for _ in 0..2 {
        let n = random.below(120) as i64;
        let real = p.apply(Create::of(0..n));
        all.push(Both { real, model: (0..n).map(|n| (n, Windows::GLOBAL)).collect(), windowing: 0 });
    }
    for _ in 0..10 {
        let from = all[random.below(all.len())].clone();
        let other = all[random.below(all.len())].clone();
        let next = match random.below(9) {
            0 => from.map(),
            1 => from.filter(),
            2 if from.model.len() < 400 => from.flat_map(),
            3 => from.reshuffle(),
            4 => from.window(random.below(WINDOWINGS)),
            5 => from.group(true),
            6 => from.group(false),
            7 if from.windowing == other.windowing && from.model.len() < 400 => from.flatten(p, &other),
            8 => from.add_all(&other),
            _ => from.map(),
        };
        all.push(next);
    }
    for both in all {
        let wanted = both.model.into_iter().flat_map(|(n, windows)| {
            let windows: Vec<Window> = windows.as_slice().to_vec();
            windows.into_iter().map(move |window| (n, window))
        });
        assert_that(&both.real).contains_in_windows(wanted);
    }
}

#[test]
fn random_pipelines_mean_the_same_in_all_modes() {
    for seed in 0..60 {
        TestPipeline::run_all_modes(|p| random_pipeline(p, seed));
    }
}
