//! Every derived transform, in the three modes.

#![allow(clippy::unwrap_used)] // a test fails by panicking, in the functions that tests share too

use std::time::Duration;

use tiebeam_core::{Failed, FixedWindows, Timestamp, Window, WindowingStrategy};
use tiebeam_graph::{Create, PCollection, Pipeline};
use tiebeam_testing::{TestPipeline, assert_that};
use tiebeam_transforms::extrema::{Max, Min, Top};
use tiebeam_transforms::lists::ToList;
use tiebeam_transforms::sample::Sample;
use tiebeam_transforms::sums::{Mean, Sum};
use tiebeam_transforms::{
    CombineExt, KeyedExt, co_group_by_key, co_group_by_key3, count, distinct, partition,
};

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort();
    values
}

#[test]
fn counts() {
    TestPipeline::run_all_modes(|p: &Pipeline| {
        let words = p.apply(Create::of(texts(["a", "b", "a", "a"])));
        assert_that(&words.apply(count::globally())).equals(4);
        let each = words.apply(count::per_element());
        assert_that(&each).contains_in_any_order([("a".to_owned(), 3), ("b".to_owned(), 1)]);
        let per_key = words.map(|w| (w, 1.5f64)).apply(count::per_key());
        assert_that(&per_key).contains_in_any_order([("a".to_owned(), 3), ("b".to_owned(), 1)]);
        assert_that(&words.apply(distinct())).contains_in_any_order(texts(["a", "b"]));
        assert_that(&p.apply(Create::<i64>::of([])).apply(count::globally())).equals(0);
    });
}

#[test]
fn sums_means_and_extrema() {
    TestPipeline::run_all_modes(|p: &Pipeline| {
        let numbers = p.apply(Create::of((1..=1000i64).map(|n| n * 3 % 1001)));
        assert_that(&numbers.combine_globally(Sum::new())).equals(500_500);
        assert_that(&numbers.combine_globally(Mean::new())).equals(500.5);
        assert_that(&numbers.combine_globally(Min::new())).equals(Some(1));
        assert_that(&numbers.combine_globally(Max::new())).equals(Some(1000));
        assert_that(&numbers.combine_globally(Top::largest(3))).equals(vec![1000, 999, 998]);
        assert_that(&numbers.combine_globally(Top::smallest(2))).equals(vec![1, 2]);
        let near = Top::by(2, |a: &i64, b: &i64| (a - 500).abs().cmp(&(b - 500).abs()).then(a.cmp(b)));
        assert_that(&numbers.combine_globally(near)).equals(vec![500, 499]);
        let per_key = numbers.map(|n| (n % 3, n)).combine_per_key(Top::largest(1));
        assert_that(&per_key).contains_in_any_order([(0, vec![999]), (1, vec![1000]), (2, vec![998])]);
        let none = p.apply(Create::<i64>::of([]));
        assert_that(&none.combine_globally(Min::new())).equals(None);
        assert_that(&none.combine_globally(Sum::new())).equals(0);
    });
}

#[test]
fn lists_and_samples() {
    TestPipeline::run_all_modes(|p: &Pipeline| {
        let numbers = p.apply(Create::of(0..500i64));
        let all = numbers.combine_globally(ToList::new()).map(sorted);
        assert_that(&all).equals((0..500).collect());
        assert_that(&numbers.combine_globally(Sample::of(1000)).map(sorted)).equals((0..500).collect());
        assert_that(&numbers.combine_globally(Sample::seeded(20, 7))).satisfies(|samples| {
            let [sample] = samples else { return Err(format!("one sample, got {}", samples.len())) };
            let distinct: std::collections::BTreeSet<_> = sample.iter().collect();
            if distinct.len() == 20 && distinct.iter().all(|n| (0..500).contains(*n)) {
                Ok(())
            } else {
                Err(format!("20 of the numbers, each once, got {sample:?}"))
            }
        });
    });
}

#[test]
fn keys_values_and_partitions() {
    TestPipeline::run_all_modes(|p: &Pipeline| {
        let pairs = p.apply(Create::of([(1i64, "x".to_owned()), (2, "y".to_owned())]));
        assert_that(&pairs.keys()).contains_in_any_order([1, 2]);
        assert_that(&pairs.values()).contains_in_any_order(texts(["x", "y"]));
        assert_that(&pairs.swap()).contains_in_any_order([("x".to_owned(), 1), ("y".to_owned(), 2)]);
        assert_that(&pairs.map_values(|v| v.len() as i64)).contains_in_any_order([(1, 1), (2, 1)]);
        let parts = p.apply(Create::of(0..10i64)).apply(partition(3, |n: &i64| (*n % 3) as usize));
        assert_that(&parts[0]).contains_in_any_order([0, 3, 6, 9]);
        assert_that(&parts[1]).contains_in_any_order([1, 4, 7]);
        assert_that(&parts[2]).contains_in_any_order([2, 5, 8]);
    });
}

#[test]
fn a_part_that_does_not_exist_fails_the_job() {
    for error in TestPipeline::fails_in_all_modes(|p: &Pipeline| {
        p.apply(Create::of([9i64])).apply(partition(3, |n: &i64| *n as usize));
    }) {
        assert!(error.to_string().contains("part 9 of 3"), "{error}");
    }
}

#[test]
fn co_groups_hold_every_key_of_every_input() {
    TestPipeline::run_all_modes(|p: &Pipeline| {
        let pair = |k: &str, v: i64| (k.to_owned(), v);
        let a = p.step("A").apply(Create::of([pair("x", 1), pair("x", 2), pair("y", 3)]));
        let b = p
            .step("B")
            .apply(Create::of([("y".to_owned(), "why".to_owned()), ("z".to_owned(), "zed".to_owned())]));
        let c = p.step("C").apply(Create::of([("x".to_owned(), true)]));
        let two =
            a.apply(co_group_by_key(&b)).map(|(k, (a, b))| (k, (sorted(a.to_vec()), sorted(b.to_vec()))));
        assert_that(&two).contains_in_any_order([
            ("x".to_owned(), (vec![1, 2], vec![])),
            ("y".to_owned(), (vec![3], texts(["why"]))),
            ("z".to_owned(), (vec![], texts(["zed"]))),
        ]);
        let three = a
            .step("Three")
            .apply(co_group_by_key3(&b, &c))
            .map(|(k, (a, b, c))| (k, (a.count() as i64, b.count() as i64, c.to_vec())));
        assert_that(&three).contains_in_any_order([
            ("x".to_owned(), (2, 0, vec![true])),
            ("y".to_owned(), (1, 1, vec![])),
            ("z".to_owned(), (0, 1, vec![])),
        ]);
    });
}

#[test]
fn try_map_sends_what_fails_to_the_dead_letters_with_the_reason() {
    let reports = TestPipeline::run_all_modes(|p: &Pipeline| {
        let parsed =
            p.apply(Create::of(texts(["1", "two", "3"]))).step("Parse").try_map(|s| s.parse::<i64>());
        assert_that(&parsed.results).contains_in_any_order([1, 3]);
        let failed = parsed.failed.map(|f: Failed<String>| (f.element, (f.failure.message, f.failure.stage)));
        let why = "invalid digit found in string".to_owned();
        assert_that(&failed).equals(("two".to_owned(), (why, "Parse".to_owned())));
    });
    for report in reports {
        let step = report.steps.iter().find(|step| &*step.step == "Parse").unwrap();
        assert_eq!((step.elements_in, step.elements_out, step.dead), (3, 2, 1));
    }
}

#[test]
fn combines_stay_within_their_windows() {
    TestPipeline::run_all_modes(|p: &Pipeline| {
        let windowed: PCollection<i64> = p
            .apply(Create::of(0..60i64))
            .with_timestamps(|n| Timestamp::from_secs(*n))
            .window_into(WindowingStrategy::of(FixedWindows::of(Duration::from_secs(20))));
        let window = |s: i64| {
            Window::Interval(tiebeam_core::IntervalWindow::new(
                Timestamp::from_secs(s),
                Timestamp::from_secs(s + 20),
            ))
        };
        assert_that(&windowed.combine_globally(Sum::new())).contains_in_windows([
            (190, window(0)),
            (590, window(20)),
            (990, window(40)),
        ]);
        assert_that(&windowed.apply(count::globally())).contains_in_windows([
            (20, window(0)),
            (20, window(20)),
            (20, window(40)),
        ]);
    });
}
