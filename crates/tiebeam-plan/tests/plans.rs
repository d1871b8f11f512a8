//! What the rules make of graphs, as text.

#![allow(clippy::unwrap_used)] // a test fails by panicking, in the functions that tests share too

use expect_test::{Expect, expect};
use tiebeam_core::{CombineFn, DoFn, ElementContext, Output, Result, View};
use tiebeam_graph::{Create, ParDo, Pipeline};
use tiebeam_plan::{PlanOptions, plan};

fn check(build: impl Fn(&Pipeline), fuse: bool, expected: Expect) {
    let p = Pipeline::new();
    build(&p);
    let plan = plan(&p.build().unwrap(), PlanOptions { fuse }).unwrap();
    expected.assert_eq(&plan.explain());
}

#[derive(Clone)]
struct Sum;

impl CombineFn for Sum {
    type Input = i64;
    type Accumulator = i64;
    type Output = i64;
    fn create_accumulator(&self) -> i64 {
        0
    }
    fn add_input(&self, accumulator: &mut i64, input: i64) {
        *accumulator += input;
    }
    fn merge(&self, accumulator: &mut i64, other: i64) {
        *accumulator += other;
    }
    fn extract_output(&self, accumulator: i64) -> i64 {
        accumulator
    }
}

#[derive(Clone)]
struct WithTotal(View<i64>);

impl DoFn for WithTotal {
    type In = i64;
    type Out = i64;
    fn process(&mut self, x: i64, cx: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
        out.emit(x + *cx.side_input(&self.0)?);
        Ok(())
    }
}

#[test]
fn element_wise_steps_fuse_between_reshuffles_and_groups() {
    let build = |p: &Pipeline| {
        let words = p.step("Words").apply(Create::of(["a".to_owned()]));
        words.step("Pair").map(|w| (w, 1i64)).step("Group").group_by_key().step("Keys").map(|(k, _)| k);
    };
    check(
        build,
        true,
        expect![[r#"
            stage 0 from impulse
              Words/Elements
              => store 0 (Words/Elements)
            stage 1 from store 0, after 0
              Pair
              => shuffle 1 (Pair)
            stage 2 from shuffle 1, after 1
              Keys
        "#]],
    );
    check(
        build,
        false,
        expect![[r#"
            stage 0 from impulse
              => store 0 (Words/Impulse)
            stage 1 from store 0, after 0
              Words/Elements
              => store 1 (Words/Elements)
            stage 2 from store 1, after 1
              => store 2 (Words/Reshuffle)
            stage 3 from store 2, after 2
              Pair
              => shuffle 3 (Pair)
            stage 4 from shuffle 3, after 3
              => store 4 (Group)
            stage 5 from store 4, after 4
              Keys
        "#]],
    );
}

#[test]
fn combines_are_lifted_before_the_shuffle() {
    check(
        |p| {
            let pairs = p.step("Pairs").apply(Create::of([(1i64, 2i64)]));
            pairs.step("Sum").combine_per_key(Sum).step("Text").map(|(k, v)| format!("{k} {v}"));
        },
        true,
        expect![[r#"
            stage 0 from impulse
              Pairs/Elements
              => store 0 (Pairs/Elements)
            stage 1 from store 0, after 0
              Sum/Precombine
              => shuffle 1 (Sum/Precombine)
            stage 2 from shuffle 1, after 1
              Sum/Merge
              Sum/Extract
              Text
        "#]],
    );
}

#[test]
fn a_flatten_is_unzipped_into_the_stages_that_feed_it() {
    check(
        |p| {
            let a = p.step("A").apply(Create::of([1i64]));
            let b = p.step("B").apply(Create::of([2i64]));
            p.flatten([a.step("Inc").map(|x| x + 1), b])
                .step("Double")
                .map(|x| x * 2)
                .step("After")
                .reshuffle();
        },
        true,
        expect![[r#"
            stage 0 from impulse
              A/Elements
              => store 0 (A/Elements)
            stage 1 from store 0, after 0
              Inc
              Flatten
              Double
              => store 2 (Double)
            stage 2 from impulse
              B/Elements
              => store 1 (B/Elements)
            stage 3 from store 1, after 2
              Flatten
              Double
              => store 2 (Double)
            stage 4 from store 2, after 1, 3
        "#]],
    );
}

#[test]
fn a_side_input_made_from_the_same_stage_cuts_it() {
    check(
        |p| {
            let numbers = p.step("Numbers").apply(Create::of([1i64, 2]));
            let total = numbers.step("Key").map(|x| ((), x)).step("Sum").combine_per_key(Sum);
            let total = total.step("Total").map(|(_, sum)| sum).as_singleton();
            let with = ParDo::new(WithTotal(total.view())).with_side_input(&total);
            numbers.step("Shift").map(|x| x - 1).step("WithTotal").apply(with);
        },
        true,
        expect![[r#"
            stage 0 from impulse
              Numbers/Elements
              => store 0 (Numbers/Elements)
            stage 1 from store 0, after 0
              Key
              Sum/Precombine
              Shift
              => shuffle 1 (Sum/Precombine)
              => store 2 (Shift)
            stage 2 from shuffle 1, after 1
              Sum/Merge
              Sum/Extract
              Total
              => side input side:5:1 (Total)
            stage 3 from store 2, after 1, 2
              WithTotal
        "#]],
    );
}

#[test]
fn the_dot_graph_escapes_what_users_write() {
    let p = Pipeline::new();
    p.apply(Create::of([1i64])).step("say \"hi\"").map(|x| x);
    let plan = plan(&p.build().unwrap(), PlanOptions::default()).unwrap();
    expect![[r#"
        digraph plan {
          node [shape=box];
          s0 [label="Create/Elements"];
          s1 [label="say \"hi\""];
          s0 -> s1;
        }
    "#]]
    .assert_eq(&plan.to_dot());
}
