//! A graph as Beam's Pipeline: every id resolves, composites hold what they should, payloads find their steps.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use expect_test::expect;
use tiebeam_core::{CombineFn, FixedWindows, Iterable, Sessions, WindowingStrategy};
use tiebeam_graph::{Create, Graph, Pipeline, ResourceHints};
use tiebeam_model::pipeline::{CombinePayload, Components, ParDoPayload};
use tiebeam_model::{Message, pipeline, urns};
use tiebeam_worker::{Steps, default_environment, to_proto};

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

fn words() -> Arc<Graph> {
    let p = Pipeline::new();
    let first = p.step("First").apply(Create::of(["a b".to_owned()]));
    let second = p.step("Second").apply(Create::of(["c".to_owned()]));
    let all = p.flatten([first.clone(), second]);
    let words = all
        .window_into(WindowingStrategy::of(FixedWindows::of(Duration::from_secs(10))))
        .step("Split")
        .flat_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    words.step("Pair").map(|word| (word, 1i64)).step("Sum").combine_per_key(Sum);
    words
        .step("Key")
        .map(|word| (word.len() as i64, word))
        .group_by_key()
        .step("Count")
        .map(|(n, words): (i64, Iterable<String>)| n * words.count() as i64);
    p.build().unwrap()
}

/// Every id that stands in the components, checked against them.
fn check(components: &Components, roots: &[String]) {
    let transform =
        |id: &String| components.transforms.get(id).unwrap_or_else(|| panic!("no transform {id}"));
    let mut seen = BTreeSet::new();
    let mut open: Vec<String> = roots.to_vec();
    while let Some(id) = open.pop() {
        assert!(seen.insert(id.clone()), "{id} is in two places");
        open.extend(transform(&id).subtransforms.clone());
    }
    assert_eq!(seen, components.transforms.keys().cloned().collect(), "transforms that no root reaches");
    let names: BTreeSet<_> = components.transforms.values().map(|t| &t.unique_name).collect();
    assert_eq!(names.len(), components.transforms.len(), "unique names are unique");
    for (id, transform) in &components.transforms {
        for pcollection in transform.inputs.values().chain(transform.outputs.values()) {
            assert!(components.pcollections.contains_key(pcollection), "{id}: {pcollection}");
        }
        let environment = &transform.environment_id;
        assert!(
            environment.is_empty() || components.environments.contains_key(environment),
            "{id}: {environment}"
        );
    }
    for (id, pcollection) in &components.pcollections {
        assert!(components.coders.contains_key(&pcollection.coder_id), "{id}");
        let strategy = &components.windowing_strategies[&pcollection.windowing_strategy_id];
        assert!(components.coders.contains_key(&strategy.window_coder_id), "{id}");
        let makers = components.transforms.values().filter(|transform| {
            transform.subtransforms.is_empty() && transform.outputs.values().any(|output| output == id)
        });
        assert_eq!(makers.count(), 1, "primitives that make {id}");
    }
    for (id, coder) in &components.coders {
        assert!(coder.component_coder_ids.iter().all(|c| components.coders.contains_key(c)), "{id}");
    }
}

fn tree(components: &Components, ids: &[String], depth: usize, text: &mut String) {
    for id in ids {
        let transform = &components.transforms[id];
        let urn = transform.spec.as_ref().map_or("composite", |spec| spec.urn.as_str());
        let urn = urn.trim_start_matches("beam:transform:").trim_end_matches(":v1");
        let list = |map: &std::collections::BTreeMap<String, String>| {
            map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
        };
        let (inputs, outputs) = (list(&transform.inputs), list(&transform.outputs));
        *text += &format!("{}{id}: {urn} ({inputs}) -> ({outputs})\n", "  ".repeat(depth));
        tree(components, &transform.subtransforms, depth + 1, text);
    }
}

#[test]
fn a_pipeline_with_composites_and_a_combine() {
    let graph = words();
    let message = to_proto(&graph, default_environment()).unwrap();
    let components = message.components.as_ref().unwrap();
    check(components, &message.root_transform_ids);
    let mut text = String::new();
    tree(components, &message.root_transform_ids, 0, &mut text);
    expect![[r#"
        First: composite () -> (0=p2)
          First/Impulse: impulse () -> (main=p0)
          First/Elements: pardo (in0=p0) -> (main=p1)
          First/Reshuffle: reshuffle (in0=p1) -> (main=p2)
            First/Reshuffle/Spread: pardo (in0=p1) -> (main=p14)
            First/Reshuffle/GroupByKey: group_by_key (main=p14) -> (main=p15)
            First/Reshuffle/Gather: pardo (main=p15) -> (main=p2)
        Second: composite () -> (0=p5)
          Second/Impulse: impulse () -> (main=p3)
          Second/Elements: pardo (in0=p3) -> (main=p4)
          Second/Reshuffle: reshuffle (in0=p4) -> (main=p5)
            Second/Reshuffle/Spread: pardo (in0=p4) -> (main=p16)
            Second/Reshuffle/GroupByKey: group_by_key (main=p16) -> (main=p17)
            Second/Reshuffle/Gather: pardo (main=p17) -> (main=p5)
        Flatten: composite (in0=p2 in1=p5) -> (main=p6)
          Flatten/Pass0: pardo (main=p2) -> (main=p18)
          Flatten/Pass1: pardo (main=p5) -> (main=p19)
          Flatten/Flatten: flatten (in0=p18 in1=p19) -> (main=p6)
        WindowInto: window_into (in0=p6) -> (main=p7)
        Split: pardo (in0=p7) -> (main=p8)
        Pair: pardo (in0=p8) -> (main=p9)
        Sum: combine_per_key (in0=p9) -> (main=p10)
          Sum/Precombine: combine_per_key_precombine (in0=p9) -> (main=p20)
          Sum/GroupByKey: group_by_key (main=p20) -> (main=p21)
          Sum/Merge: combine_per_key_merge_accumulators (main=p21) -> (main=p22)
          Sum/Extract: combine_per_key_extract_outputs (main=p22) -> (main=p10)
        Key: pardo (in0=p8) -> (main=p11)
        GroupByKey: group_by_key (in0=p11) -> (main=p12)
        Count: pardo (in0=p12) -> (main=p13)
    "#]]
    .assert_eq(&text);
}

#[test]
fn equal_graphs_have_equal_bytes() {
    let bytes = || to_proto(&words(), default_environment()).unwrap().encode_to_vec();
    assert_eq!(bytes(), bytes());
    let message = pipeline::Pipeline::decode(bytes().as_slice()).unwrap();
    assert_eq!(message.encode_to_vec(), bytes());
}

#[test]
fn payloads_find_their_steps_in_another_build_of_the_same_program() {
    let message = to_proto(&words(), default_environment()).unwrap();
    let steps = Steps::new(words());
    let mut found = BTreeSet::new();
    for (id, transform) in &message.components.unwrap().transforms {
        let Some(spec) = &transform.spec else { continue };
        let function = match spec.urn.as_str() {
            urns::transform::PAR_DO => ParDoPayload::decode(spec.payload.as_ref()).unwrap().do_fn,
            urns::transform::COMBINE_PER_KEY
            | urns::transform::COMBINE_PRECOMBINE
            | urns::transform::COMBINE_MERGE_ACCUMULATORS
            | urns::transform::COMBINE_EXTRACT_OUTPUTS => {
                CombinePayload::decode(spec.payload.as_ref()).unwrap().combine_fn
            }
            _ => continue,
        };
        let function = function.unwrap();
        found.insert(steps.find(&function.urn, &function.payload, id).unwrap().step.to_string());
    }
    let wanted =
        "Count First/Elements First/Reshuffle Flatten Key Pair Second/Elements Second/Reshuffle Split Sum";
    assert_eq!(found, wanted.split(' ').map(str::to_owned).collect());
}

#[test]
fn windowing_strategies_are_told_once_each() {
    let p = Pipeline::new();
    let sessions = WindowingStrategy::of(Sessions::with_gap(Duration::from_secs(5)));
    p.apply(Create::of([1i64])).window_into(sessions).step("A").map(|n| n).step("B").map(|n| n);
    let message = to_proto(&p.build().unwrap(), default_environment()).unwrap();
    let strategies = message.components.unwrap().windowing_strategies;
    let urns: Vec<_> = strategies.values().map(|s| s.window_fn.as_ref().unwrap().urn.as_str()).collect();
    // The global one twice: once with the trigger of a reshuffle's inside.
    assert_eq!(urns, [urns::window_fn::GLOBAL, urns::window_fn::GLOBAL, urns::window_fn::SESSIONS]);
}

#[test]
fn the_environment_declares_what_the_worker_can_do() {
    let environment =
        pipeline::Environment { urn: urns::environment::EXTERNAL.to_owned(), ..Default::default() };
    let message = to_proto(&words(), environment).unwrap();
    let environments = message.components.unwrap().environments;
    let [environment] = environments.values().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(environment.urn, urns::environment::EXTERNAL);
    for urn in [
        urns::coder::VARINT,
        urns::transform::COMBINE_PRECOMBINE,
        urns::protocol::MULTI_CORE_BUNDLE_PROCESSING,
    ] {
        assert!(environment.capabilities.iter().any(|capability| capability == urn), "{urn}");
    }
}

/// What needs a machine of its own runs in an environment that says so; equal needs share one, inner ones add to outer ones.
#[test]
fn resource_hints_stand_in_environments() {
    let p = Pipeline::new();
    let large = || ResourceHints::new().min_ram_bytes(8_000_000_000);
    let gpu = ResourceHints::new().min_ram_bytes(1).accelerator("type:t4;count:1");
    let plain = p.step("In").apply(Create::of([1i64])).step("Plain").map(|x| x + 1);
    let twice = plain.step("Large").with_resource_hints(large()).map(|x| x * 2);
    let keyed = twice.step("Key").with_resource_hints(large()).map(|x| (x, x));
    keyed.step("Sum").with_resource_hints(large()).combine_per_key(Sum);
    p.with_resource_hints(large(), || twice.step("Gpu").with_resource_hints(gpu).map(|x| x + 3));
    let message = to_proto(&p.build().unwrap(), default_environment()).unwrap();
    let components = message.components.unwrap();
    check(&components, &message.root_transform_ids);
    let hints = |step: &str| {
        let environment = &components.environments[&components.transforms[step].environment_id];
        assert_eq!(environment.capabilities, tiebeam_worker::capabilities());
        let shown =
            |(urn, value): (&String, &bytes::Bytes)| format!("{urn}={}", String::from_utf8_lossy(value));
        environment.resource_hints.iter().map(shown).collect::<Vec<_>>()
    };
    let ram = "beam:resources:min_ram_bytes:v1=8000000000".to_owned();
    assert!(hints("Plain").is_empty());
    for step in ["Large", "Key", "Sum", "Sum/Precombine", "Sum/Merge", "Sum/Extract"] {
        assert_eq!(hints(step), std::slice::from_ref(&ram), "{step}");
    }
    assert_eq!(hints("Gpu"), ["beam:resources:accelerator:v1=type:t4;count:1".to_owned(), ram]);
    assert_eq!(components.environments.len(), 3);
    assert!(components.environments.keys().all(|id| tiebeam_worker::is_own_environment(id)));
    assert!(
        !["external0_tiebeam", "tiebeam-x", "tiebeams"].into_iter().any(tiebeam_worker::is_own_environment)
    );
}
