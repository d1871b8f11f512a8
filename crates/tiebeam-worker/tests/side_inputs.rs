//! Side inputs: read when they are wanted and as far as they are wanted, kept as long as the runner says that they are the same.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod runner;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use runner::{
    Answer, GLOBAL, Runner, connected, data, decoded, described, embedding, encoded, global, input_of,
};
use tiebeam_core::{
    DoFn, Element, ElementContext, Iterable, Nesting, Output, Result, SideMap, SideMultimap, View,
};
use tiebeam_exec::EdgeId;
use tiebeam_graph::{Create, Graph, ParDo, Pipeline};
use tiebeam_model::fn_api::process_bundle_request::{CacheToken, cache_token};
use tiebeam_model::fn_api::{ProcessBundleRequest, StateKey, state_key};
use tiebeam_worker::{Worker, WorkerOptions, sink_id, source_id};

/// How a step looks at its side inputs.
#[derive(Debug, Clone, Copy)]
enum Look {
    /// At all numbers, twice.
    All,
    /// At the first number.
    First,
    /// At the list, the map and the multimap.
    Rest,
}

#[derive(Clone)]
struct Looks {
    look: Look,
    numbers: View<Iterable<i64>>,
    list: View<Vec<i64>>,
    map: View<SideMap<String, i64>>,
    multimap: View<SideMultimap<String, i64>>,
}

impl DoFn for Looks {
    type In = i64;
    type Out = i64;

    fn process(&mut self, n: i64, cx: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
        let numbers = cx.side_input(&self.numbers)?;
        out.emit(match self.look {
            Look::All => n + numbers.iter().sum::<i64>() + 1_000 * numbers.count() as i64,
            Look::First => n + numbers.iter().next().unwrap_or_default(),
            Look::Rest => {
                let list: i64 = cx.side_input(&self.list)?.iter().sum();
                let map = cx.side_input(&self.map)?.get(&"key".to_owned()).copied().unwrap_or_default();
                let multimap = cx.side_input(&self.multimap)?;
                let of = |key: &str| -> Result<i64> { Ok(multimap.get(&key.to_owned())?.iter().sum()) };
                n + list + map + of("key")? + of("key")? + of("none")?
            }
        });
        Ok(())
    }
}

/// "Look" with its side inputs, and their names within the step in the order of the struct's fields.
fn looking(look: Look) -> (Arc<Graph>, EdgeId, Vec<String>) {
    let p = Pipeline::new();
    let numbers = p.step("Numbers").apply(Create::of([0i64]));
    let pairs = p.step("Pairs").apply(Create::of([(String::new(), 0i64)]));
    let (iterable, list) = (numbers.as_iterable(), numbers.as_list());
    let (map, multimap) = (pairs.as_map(), pairs.as_multimap());
    let dofn = Looks {
        look,
        numbers: iterable.view(),
        list: list.view(),
        map: map.view(),
        multimap: multimap.view(),
    };
    let names =
        [dofn.numbers.id(), dofn.list.id(), dofn.map.id(), dofn.multimap.id()].map(ToString::to_string);
    let step = ParDo::new(dofn)
        .with_side_input(&iterable)
        .with_side_input(&list)
        .with_side_input(&map)
        .with_side_input(&multimap);
    let out = p.apply(Create::of([0i64])).step("Look").apply(step).edge();
    (p.build().unwrap(), out, names.to_vec())
}

fn numbers(values: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    values.iter().for_each(|value| i64::coder().encode(value, &mut bytes, Nesting::Nested).unwrap());
    bytes
}

fn token(side: &str, token: &'static str) -> CacheToken {
    let side = cache_token::SideInput { transform_id: "t0".to_owned(), side_input_id: side.to_owned() };
    CacheToken {
        token: Bytes::from_static(token.as_bytes()),
        r#type: Some(cache_token::Type::SideInput(side)),
    }
}

/// Runs a bundle of those elements under those tokens; its output, and how many pages it asked for.
fn bundle_of(
    (worker, runner, graph, out): (&Worker, &Arc<Runner>, &Graph, EdgeId),
    id: &str,
    elements: &[i64],
    cache_tokens: Vec<CacheToken>,
) -> (Vec<i64>, usize) {
    let source = source_id(input_of(graph, "Look"));
    let request = ProcessBundleRequest {
        process_bundle_descriptor_id: "stage".to_owned(),
        elements: Some(data(id, &source, encoded(i64::coder(), GLOBAL, &global(elements)))),
        cache_tokens,
        ..ProcessBundleRequest::default()
    };
    let before = runner.state_requests();
    let done = worker.process_bundle(id, request, &runner.api()).unwrap();
    let output = decoded(i64::coder(), GLOBAL, Answer::of(done).data(&sink_id(out)));
    (output.into_iter().map(|(n, _)| n).collect(), runner.state_requests() - before)
}

#[test]
fn what_was_read_under_a_token_is_not_read_again_and_never_under_another() {
    let (graph, out, names) = looking(Look::All);
    let (worker, runner, _) = connected(&graph, &["Look"], &[out]);
    let version = Arc::new(AtomicUsize::new(0));
    let served = version.clone();
    // Pages of two bytes: three of them.
    runner.serve(move |_: &StateKey| match served.load(Ordering::Relaxed) {
        0 => numbers(&[1, 2, 3, 4, 5]),
        _ => numbers(&[7, 7, 7, 7, 700]),
    });
    let run = |id: &str, tokens| bundle_of((&worker, &runner, &graph, out), id, &[0, 10_000], tokens);
    let (old, new) = (vec![5_015, 15_015], vec![5_728, 15_728]);
    assert_eq!(run("b1", vec![token(&names[0], "v1")]), (old.clone(), 3));
    assert_eq!(run("b2", vec![token(&names[0], "v1")]), (old.clone(), 0));
    // The runner says that it is another one now.
    version.store(1, Ordering::Relaxed);
    assert_eq!(run("b3", vec![token(&names[0], "v2")]), (new.clone(), 3));
    assert_eq!(run("b4", vec![token(&names[0], "v2")]), (new.clone(), 0));
    // A bundle of before, told late.
    assert_eq!(run("b5", vec![token(&names[0], "v1")]), (old, 0));
    // Without a token nothing is used that another bundle read: read once a bundle, however often it is looked at.
    assert_eq!(run("b6", vec![]), (new.clone(), 3));
    assert_eq!(run("b7", vec![]), (new.clone(), 3));
    // A token of another side input, or of the user's state, is none of this one's.
    let state = CacheToken {
        token: Bytes::from_static(b"v1"),
        r#type: Some(cache_token::Type::UserState(cache_token::UserState {})),
    };
    assert_eq!(run("b8", vec![token(&names[1], "v1"), state]), (new, 3));
}

#[test]
fn only_the_pages_that_are_looked_at_are_read() {
    let (graph, out, _) = looking(Look::First);
    let (worker, runner, _) = connected(&graph, &["Look"], &[out]);
    runner.serve(|_: &StateKey| numbers(&[5; 200]));
    let (output, pages) = bundle_of((&worker, &runner, &graph, out), "b1", &[1, 2], vec![]);
    assert_eq!((output, pages), (vec![6, 7], 1));
}

#[test]
fn a_cache_of_no_size_changes_nothing_but_how_often_is_read() {
    let (graph, out, names) = looking(Look::All);
    let (_, runner, _) = connected(&graph, &["Look"], &[out]);
    let worker = Worker::new(graph.clone(), WorkerOptions { cache_bytes: 0, ..embedding() });
    runner.replace(described(worker.steps(), &["Look"], &[out]));
    runner.serve(|_: &StateKey| numbers(&[1, 2, 3, 4, 5]));
    for id in ["b1", "b2"] {
        let run = bundle_of((&worker, &runner, &graph, out), id, &[0], vec![token(&names[0], "v1")]);
        assert_eq!(run, (vec![5_015], 6), "twice three pages");
    }
}

#[test]
fn lists_maps_and_multimaps_are_read_over_cut_pages_once_a_bundle() {
    let (graph, out, names) = looking(Look::Rest);
    let (worker, runner, _) = connected(&graph, &["Look"], &[out]);
    let (list, map, multimap) = (names[1].clone(), names[2].clone(), names[3].clone());
    let tokens = vec![token(&list, "l"), token(&map, "m"), token(&multimap, "mm")];
    runner.serve(move |key: &StateKey| match key.r#type.as_ref().unwrap() {
        state_key::Type::IterableSideInput(side) if side.side_input_id == list => numbers(&[1, 20_000, 3]),
        state_key::Type::IterableSideInput(side) if side.side_input_id == map => {
            let coder = <(String, i64)>::coder();
            let mut bytes = Vec::new();
            for pair in [("other".to_owned(), 9), ("key".to_owned(), 300_000)] {
                coder.encode(&pair, &mut bytes, Nesting::Nested).unwrap();
            }
            bytes
        }
        state_key::Type::MultimapSideInput(side) if side.side_input_id == multimap => {
            if &side.key[..] == b"\x03key" { numbers(&[4_000_000, 1]) } else { Vec::new() }
        }
        other => panic!("asked for {other:?}"),
    });
    let wanted = |n: i64| n + 20_004 + 300_000 + 2 * 4_000_001;
    let run = |id, tokens| bundle_of((&worker, &runner, &graph, out), id, &[0, 5], tokens);
    // The list 3 pages, the map 7, the two keys 3 and 1.
    assert_eq!(run("b1", tokens.clone()), (vec![wanted(0), wanted(5)], 14));
    assert_eq!(run("b2", tokens), (vec![wanted(0), wanted(5)], 0));
    assert_eq!(run("b3", vec![]), (vec![wanted(0), wanted(5)], 14));
}
