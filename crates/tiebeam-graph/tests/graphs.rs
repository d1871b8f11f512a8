//! What pipelines build: names, text, mistakes, fingerprints.

#![allow(clippy::unwrap_used)] // a test fails by panicking, in the functions that tests share too

use expect_test::expect;
use tiebeam_core::{FixedWindows, OutputTag, WindowingStrategy};
use tiebeam_graph::{Create, PCollection, Pipeline, composite};

fn sample(window_seconds: u64) -> Pipeline {
    let p = Pipeline::new();
    let words = p.step("Words").apply(Create::of(["a".to_owned()]));
    let parsed = words.try_map(|w| w.parse::<i64>());
    parsed.failed.step("Complain").map(|f| f.failure.message);
    let windows = WindowingStrategy::of(FixedWindows::of(std::time::Duration::from_secs(window_seconds)));
    parsed
        .results
        .apply(composite("Twice", |x: PCollection<i64>| x.map(|x| x + 1).map(|x| (x % 2, x))))
        .window_into(windows)
        .group_by_key();
    p
}

#[test]
fn explain_tells_every_step_with_its_types() {
    expect![[r#"
        Words/Impulse [Impulse] -> Bytes
        Words/Elements [ParDo] <- Words/Impulse -> String
        Words/Reshuffle [Reshuffle] <- Words/Elements -> String
        TryMap [ParDo] <- Words/Reshuffle -> i64, failed: Failed<String>
        Complain [ParDo] <- TryMap.failed -> String
        Twice/Map [ParDo] <- TryMap -> i64
        Twice/Map-2 [ParDo] <- Twice/Map -> (i64, i64)
        WindowInto [AssignWindows] <- Twice/Map-2 -> (i64, i64)
        GroupByKey [GroupByKey] <- WindowInto -> (i64, Iterable<i64>)
    "#]]
    .assert_eq(&sample(10).build().unwrap().explain());
}

#[test]
fn the_fingerprint_is_the_same_for_the_same_pipeline_and_differs_for_another() {
    let print = |seconds| sample(seconds).build().unwrap().fingerprint();
    assert_eq!(print(10), print(10));
    assert_ne!(print(10), print(11));
}

#[test]
fn every_mistake_is_told_with_its_place_and_cure() {
    let p = Pipeline::new();
    let a = p.step("A").apply(Create::of([(0.5f64, 1i64)]));
    a.step("Same").map(|x| x);
    a.step("Same").map(|x| x);
    a.group_by_key();
    let windows = WindowingStrategy::of(FixedWindows::of(std::time::Duration::from_secs(1)));
    p.flatten([a.clone(), a.window_into(windows)]);
    let outputs = a.apply(
        tiebeam_graph::ParDo::new(tiebeam_graph::fns::MapFn::new(|x: (f64, i64)| x))
            .with_output(&OutputTag::<i64>::new("there")),
    );
    outputs.get(&OutputTag::<String>::new("absent"));
    let text = p.build().err().unwrap().to_string();
    let lines: Vec<String> =
        text.lines().filter(|line| line.starts_with("error")).map(str::to_owned).collect();
    expect![[r#"
        error[TB0201]: Same: the label `Same` is used twice in the same place
        error[TB0215]: Flatten: collections with different windows cannot be flattened: GlobalWindows and FixedWindows { size: 1000000, offset: 0 }
        error[TB0212]: the step has no output `absent` of that type
        error[TB0202]: GroupByKey: (f64, i64) cannot be grouped by key: equal keys may have unequal encodings"#]]
    .assert_eq(&lines.join("\n"));
    assert_eq!(text.matches("graphs.rs:").count(), 4, "{text}");
}

#[test]
fn an_empty_pipeline_is_a_mistake() {
    assert!(Pipeline::new().build().err().unwrap().to_string().contains("no transforms"));
}
