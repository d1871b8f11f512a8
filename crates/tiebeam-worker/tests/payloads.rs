//! What travels in payloads: options that a worker must share with the job, and recipes for steps that it has not built.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)] // a test fails by panicking

mod runner;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use runner::{
    GLOBAL, Runner, bundle, data, decoded, described, edge_of, embedding, encoded, global, input_of, run,
};
use tiebeam_core::{
    CoderSpec, DoFn, Element, ElementContext, Error, ErrorKind, Iterable, Output, Result, View,
};
use tiebeam_exec::EdgeId;
use tiebeam_graph::{Create, Graph, ParDo, Pipeline};
use tiebeam_model::fn_api::{ProcessBundleDescriptor, StateKey, instruction_response::Response, state_key};
use tiebeam_model::pipeline::ParDoPayload;
use tiebeam_model::tiebeam::StepPayload;
use tiebeam_model::{Message, urns};
use tiebeam_worker::{
    Recipe, RecipeInput, Recipes, Steps, Worker, coder_of_tree, coder_to_tree, default_environment, sink_id,
    source_id, to_proto, to_proto_with,
};

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A pipeline whose option shows nowhere but in a closure.
fn times(factor: i64) -> (Arc<Graph>, EdgeId) {
    let p = Pipeline::new();
    p.apply(Create::of([1i64])).step("Scale/Times").map(move |n| n * factor);
    let graph = p.build().unwrap();
    let out = edge_of(&graph, "Scale/Times");
    (graph, out)
}

fn numbers(values: &[i64]) -> Bytes {
    encoded(i64::coder(), GLOBAL, &global(values))
}

#[test]
fn a_worker_with_other_options_is_refused_by_name_and_values() {
    let (graph, out) = times(3);
    let job =
        Steps::with_options(graph.clone(), options(&[("factor", "3"), ("api_key", "a"), ("input", "x")]));
    let runner = Arc::new(Runner::with(described(&job, &["Scale/Times"], &[out])));
    let source = input_of(&graph, "Scale/Times");
    let against = |worker: &[(&str, &str)]| {
        let steps = Steps::with_options(times(3).0, options(worker));
        run(&Worker::of(steps, None, embedding()), &runner, source, numbers(&[5]))
    };
    let answer = against(&[("api_key", "a"), ("factor", "3"), ("input", "x")]).unwrap();
    assert_eq!(decoded(i64::coder(), GLOBAL, answer.data(&sink_id(out))), global(&[15]));

    let error = against(&[("factor", "4"), ("api_key", "a"), ("input", "x")]).unwrap_err();
    assert!(
        error
            .starts_with("error[TB0542]: Scale/Times: this worker has built another pipeline than the job: "),
        "{error}"
    );
    assert!(
        error.contains("; option `factor` is `4` here and `3` in the job\n  help: start workers"),
        "{error}"
    );
    let error = against(&[("factor", "3"), ("api_key", "b"), ("input", "x")]).unwrap_err();
    assert!(error.contains("; option `api_key` is `hidden #"), "{error}");
    let error = against(&[]).unwrap_err();
    assert!(error.contains("; option `api_key` is not set here and `hidden #"), "{error}");
    assert!(error.contains("; option `factor` is not set here and `3` in the job"), "{error}");
    // A worker that knows nothing of options is of a pipeline without any.
    let error = run(&Worker::new(times(3).0, embedding()), &runner, source, numbers(&[5])).unwrap_err();
    assert!(error.contains("option `input` is not set here"), "{error}");
}

#[test]
fn options_that_change_the_graph_are_named_before_the_graph_is() {
    let build = |steps: &[&str]| {
        let p = Pipeline::new();
        let mut numbers = p.apply(Create::of([1i64]));
        for step in steps {
            numbers = numbers.step(*step).map(|n| n + 1);
        }
        p.build().unwrap()
    };
    let graph = build(&["A", "B"]);
    let job = Steps::with_options(graph.clone(), options(&[("steps", "2")]));
    let out = edge_of(&graph, "B");
    let runner = Arc::new(Runner::with(described(&job, &["B"], &[out])));
    let worker = |graph, given: &[(&str, &str)]| {
        Worker::of(Steps::with_options(graph, options(given)), None, embedding())
    };
    let fails = |worker: Worker| run(&worker, &runner, input_of(&graph, "B"), numbers(&[1])).unwrap_err();
    let error = fails(worker(build(&["A"]), &[("steps", "1")]));
    assert!(error.contains("; option `steps` is `1` here and `2` in the job\n"), "{error}");
    // With the same options it is the program that differs.
    let error = fails(worker(build(&["A"]), &[("steps", "2")]));
    assert!(error.contains("; this worker has no step `B`\n"), "{error}");
    // A version tells more than all else.
    let mut descriptor = described(&job, &["B"], &[out]);
    change_payloads(&mut descriptor, |payload| {
        payload.fingerprint ^= 1;
        payload.evidence.as_mut().unwrap().version = "0.0.1".to_owned();
    });
    runner.replace(descriptor);
    let error = fails(worker(build(&["A"]), &[("steps", "1")]));
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        error.contains(&format!("; tiebeam is of version {version} here and 0.0.1 in the job\n")),
        "{error}"
    );
}

#[test]
fn without_options_payloads_are_as_they_were() {
    let graph = times(3).0;
    let plain = to_proto(&graph, default_environment()).unwrap();
    let with =
        |given| to_proto_with(&Steps::with_options(graph.clone(), given), default_environment()).unwrap();
    assert_eq!(with(options(&[])), plain);
    assert_ne!(with(options(&[("a", "b")])), plain);
    assert_eq!(Steps::new(graph.clone()).fingerprint(), graph.fingerprint());
}

#[test]
fn no_secret_is_in_a_payload() {
    let given =
        options(&[("db_password", "hunter2"), ("Token", "hunter2"), ("apiKey", "hunter2"), ("x", "seen")]);
    let steps = Steps::with_options(times(3).0, given);
    let bytes = to_proto_with(&steps, default_environment()).unwrap().encode_to_vec();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("seen") && has("db_password"));
    assert!(!has("hunter2"));
}

fn change_payloads(descriptor: &mut ProcessBundleDescriptor, change: impl Fn(&mut StepPayload)) {
    for spec in descriptor.transforms.values_mut().filter_map(|transform| transform.spec.as_mut()) {
        if spec.urn == urns::transform::PAR_DO {
            let mut payload = ParDoPayload::decode(spec.payload.as_ref()).unwrap();
            let function = payload.do_fn.as_mut().unwrap();
            let mut own = StepPayload::decode(function.payload.as_ref()).unwrap();
            change(&mut own);
            function.payload = own.encode_to_vec().into();
            spec.payload = payload.encode_to_vec().into();
        }
    }
}

/// "tiebeam:test:add": adds its configuration to every number, beside the sum of a side input.
#[derive(Default)]
struct Adding {
    made: AtomicUsize,
}

#[derive(Clone)]
struct Add {
    by: i64,
    more: View<Iterable<i64>>,
}

impl DoFn for Add {
    type In = i64;
    type Out = i64;

    fn process(&mut self, n: i64, cx: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
        out.emit(n + self.by + cx.side_input(&self.more)?.iter().sum::<i64>());
        Ok(())
    }
}

fn adding(recipe: &Recipe) -> Arc<Graph> {
    let by = i64::coder().from_bytes(recipe.config.clone()).unwrap();
    let p = Pipeline::new();
    let more = p.step("More").apply(Create::of([0i64])).as_iterable();
    let add = ParDo::new(Add { by, more: more.view() }).with_side_input(&more);
    p.apply(Create::of([1i64])).step(format!("{}/Add", recipe.namespace)).apply(add);
    p.build().unwrap()
}

fn recipe(namespace: &str, by: i64) -> Recipe {
    Recipe {
        urn: "tiebeam:test:add".to_owned(),
        config: i64::coder().to_bytes(&by).unwrap().into(),
        config_schema: Bytes::new(),
        inputs: vec![RecipeInput {
            name: "in".to_owned(),
            element: Some(coder_to_tree(&i64::coder().spec())),
            window_fn: Bytes::new(),
        }],
        namespace: namespace.to_owned(),
    }
}

impl Recipes for Adding {
    fn graph(&self, recipe: &Recipe) -> Result<Arc<Graph>> {
        self.made.fetch_add(1, Ordering::Relaxed);
        if recipe.urn != "tiebeam:test:add" {
            return Err(Error::new(ErrorKind::NotFound, "TB0900", format!("no transform {}", recipe.urn)));
        }
        Ok(adding(recipe))
    }
}

fn add_stage(recipe: &Recipe) -> (Steps, ProcessBundleDescriptor, EdgeId, EdgeId) {
    let steps = Steps::new(adding(recipe)).with_recipe(recipe.clone());
    let step = format!("{}/Add", recipe.namespace);
    let (source, out) = (input_of(steps.graph(), &step), edge_of(steps.graph(), &step));
    let descriptor = described(&steps, &[&step], &[out]);
    (steps, descriptor, source, out)
}

#[test]
fn steps_of_two_recipes_run_in_one_stage_of_a_worker_of_neither() {
    let ((_, first, source, between), (_, second, _, out)) =
        (add_stage(&recipe("first", 100)), add_stage(&recipe("second", 1_000)));
    // first's transform feeds second's: both read a side input of the same name.
    let mut descriptor = first.clone();
    let other = runner::renamed(&second);
    assert_eq!(
        first.transforms["t0"].inputs.keys().collect::<Vec<_>>(),
        second.transforms["t0"].inputs.keys().collect::<Vec<_>>()
    );
    descriptor.transforms.remove(&sink_id(between));
    descriptor.transforms.extend(other.transforms);
    descriptor.pcollections.extend(other.pcollections);
    descriptor.transforms.remove(&runner::other_id(&source_id(source)));
    let t1 = descriptor.transforms.get_mut(&runner::other_id("t0")).unwrap();
    t1.inputs.insert("in0".to_owned(), format!("p{}", between.0));
    let runner = Arc::new(Runner::with(descriptor));
    runner.serve(|key: &StateKey| match key.r#type.as_ref().unwrap() {
        state_key::Type::IterableSideInput(side) => {
            vec![if side.transform_id == "t0" { 10 } else { 20 }]
        }
        other => panic!("asked for {other:?}"),
    });
    let recipes = Arc::new(Adding::default());
    let worker = Worker::of(Steps::new(times(3).0), Some(recipes.clone()), embedding());
    for _ in 0..2 {
        let answer = run(&worker, &runner, source, numbers(&[1, 2])).unwrap();
        let output = answer.data(&runner::other_id(&sink_id(out)));
        assert_eq!(decoded(i64::coder(), GLOBAL, output), global(&[1_131, 1_132]));
    }
    assert_eq!(recipes.made.load(Ordering::Relaxed), 2, "each recipe's graph is made once");
}

#[test]
fn recipes_that_cannot_be_made_are_errors_at_their_step() {
    let (_, descriptor, source, _) = add_stage(&recipe("ns", 1));
    let runner = Arc::new(Runner::with(descriptor.clone()));
    let error = run(&Worker::new(times(3).0, embedding()), &runner, source, numbers(&[1])).unwrap_err();
    assert_eq!(
        error,
        "error[TB0551]: ns/Add: transform `tiebeam:test:add` is one of the library's, and this worker makes none of \
         these\n  help: start the worker by the program whose expansion service gave the transform"
    );
    let with = |change: &dyn Fn(&mut Recipe)| {
        let mut descriptor = descriptor.clone();
        change_payloads(&mut descriptor, |payload| change(payload.recipe.as_mut().unwrap()));
        runner.replace(descriptor);
        let recipes: Arc<dyn Recipes> = Arc::new(Adding::default());
        let worker = Worker::of(Steps::new(times(3).0), Some(recipes), embedding());
        run(&worker, &runner, source, numbers(&[1])).unwrap_err()
    };
    let error = with(&|recipe| recipe.urn = "other".to_owned());
    assert_eq!(error, "error[TB0900]: ns/Add: no transform other");
    // A recipe that makes another graph than the one that the payload is of.
    let error = with(&|recipe| recipe.namespace = "elsewhere".to_owned());
    assert!(error.contains("this worker has no step `ns/Add`, but `elsewhere/Add`"), "{error}");
}

#[test]
fn coders_go_through_trees_unchanged() {
    let mut row = CoderSpec::leaf(urns::coder::ROW);
    row.payload = vec![1, 2, 3];
    for spec in [<(String, Vec<(i64, Bytes)>)>::coder().spec(), CoderSpec::of(urns::coder::NULLABLE, [row])] {
        assert_eq!(coder_of_tree(&coder_to_tree(&spec)), spec);
    }
}

#[test]
fn a_panic_while_a_recipe_is_made_is_an_answer_with_its_words() {
    struct Panics;
    impl Recipes for Panics {
        fn graph(&self, _: &Recipe) -> Result<Arc<Graph>> {
            panic!("no such {}", "model")
        }
    }
    let (_, descriptor, source, _) = add_stage(&recipe("ns", 1));
    let runner = Arc::new(Runner::with(descriptor));
    let worker = Worker::of(Steps::new(times(3).0), Some(Arc::new(Panics)), embedding());
    let response = worker.handle(bundle("b1", data("b1", &source_id(source), numbers(&[1]))), &runner.api());
    assert_eq!(response.instruction_id, "b1");
    assert!(response.error.contains("an instruction ended in a panic: no such model"), "{}", response.error);
    assert!(!matches!(response.response, Some(Response::ProcessBundle(_))));
}
