//! A worker seen from the runner's side: descriptors and bytes in, bytes and metrics out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)] // a test fails by panicking

mod runner;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runner::{
    GLOBAL, Runner, bundle, connected, data, decoded, edge_of, embedding, encoded, global, input_of, run,
    spec_of, words,
};
use tiebeam_core::coder::{length_prefixed, urn};
use tiebeam_core::{
    BundleContext, CoderSpec, CombineFn, DoFn, Element, ElementContext, FixedWindows, IntervalWindow,
    Iterable, Nesting, Output, OutputTag, Pane, Result, SetupContext, SideMultimap, Timestamp, View, Window,
    WindowInfo, WindowingStrategy, Windows,
};
use tiebeam_exec::EdgeId;
use tiebeam_graph::{Create, Graph, NodeKind, ParDo, Pipeline};
use tiebeam_model::fn_api::{
    Elements, InstructionRequest, ProcessBundleDescriptor, ProcessBundleRequest, RegisterRequest, StateKey,
    instruction_request::Request, instruction_response::Response, state_key,
};
use tiebeam_model::pipeline::{FunctionSpec, MonitoringInfo, PTransform, ParDoPayload};
use tiebeam_model::tiebeam::StepPayload;
use tiebeam_model::{Message, urns};
use tiebeam_worker::{StagePorts, Worker, WorkerOptions, describe, sink_id, source_id};

/// `Create` → (word, n) → "Swap" → ((n, word), done).
fn pairs() -> (Arc<Graph>, EdgeId) {
    let p = Pipeline::new();
    p.apply(Create::of([("a".to_owned(), 1i64)]))
        .step("Swap")
        .map(|(word, n)| (n * 10, word))
        .step("Tail")
        .map(|(n, word)| (word + "!", n));
    let graph = p.build().unwrap();
    let out = edge_of(&graph, "Tail");
    (graph, out)
}

/// Puts `length_prefix` around a coder everywhere a descriptor's port names it: `at` picks the component ids.
fn prefixed(spec: &CoderSpec, at: &[&[usize]], path: &mut Vec<usize>) -> CoderSpec {
    let components = spec
        .components
        .iter()
        .enumerate()
        .map(|(i, component)| {
            path.push(i);
            let inner = prefixed(component, at, path);
            path.pop();
            inner
        })
        .collect::<Vec<_>>();
    let own = CoderSpec { components, ..spec.clone() };
    if at.contains(&path.as_slice()) { CoderSpec::of(urn::LENGTH_PREFIX, [own]) } else { own }
}

#[test]
fn runners_may_put_length_prefix_anywhere() {
    let (graph, out) = pairs();
    let source = input_of(&graph, "Swap");
    let places: [&[&[usize]]; 6] = [&[], &[&[0]], &[&[1]], &[&[0], &[1]], &[&[]], &[&[], &[0], &[1]]];
    for input_places in places {
        for output_places in places {
            let (worker, runner, mut descriptor) = connected(&graph, &["Swap", "Tail"], &[out]);
            let own = <(String, i64)>::coder().spec();
            let (of_input, of_output) =
                (prefixed(&own, input_places, &mut vec![]), prefixed(&own, output_places, &mut vec![]));
            runner::set_port_coder(&mut descriptor, &source_id(source), &of_input, GLOBAL);
            runner::set_port_coder(&mut descriptor, &sink_id(out), &of_output, GLOBAL);
            runner.replace(descriptor);
            let coder = <(String, i64)>::coder_of(&of_input).unwrap();
            let input = encoded(coder, GLOBAL, &global(&[("x".to_owned(), 7i64), ("".to_owned(), -1)]));
            let answer = run(&worker, &runner, source, input).unwrap();
            let coder = <(String, i64)>::coder_of(&of_output).unwrap();
            let output = decoded(coder, GLOBAL, answer.data(&sink_id(out)));
            assert_eq!(
                output,
                global(&[("x!".to_owned(), 70i64), ("!".to_owned(), -10)]),
                "{input_places:?} {output_places:?}"
            );
        }
    }
}

#[test]
fn steps_are_found_by_payload_under_any_ids() {
    let (graph, out) = pairs();
    let source = input_of(&graph, "Swap");
    let (worker, runner, descriptor) = connected(&graph, &["Swap", "Tail"], &[out]);
    runner.replace(runner::renamed(&descriptor));
    let input = encoded(<(String, i64)>::coder(), GLOBAL, &global(&[("x".to_owned(), 7i64)]));
    let request = bundle("b1", data("b1", &runner::other_id(&source_id(source)), input));
    let response = worker.handle(request, &runner.api());
    assert_eq!(response.error, "");
    let Some(Response::ProcessBundle(done)) = response.response else { panic!("no answer") };
    let answer = runner::Answer::of(done);
    let output = decoded(<(String, i64)>::coder(), GLOBAL, answer.data(&runner::other_id(&sink_id(out))));
    assert_eq!(output, global(&[("x!".to_owned(), 70i64)]));
}

#[test]
fn elements_keep_times_windows_and_panes() {
    let p = Pipeline::new();
    p.apply(Create::of([1i64]))
        .window_into(WindowingStrategy::of(FixedWindows::of(Duration::from_secs(10))))
        .step("Double")
        .map(|n| n * 2);
    let graph = p.build().unwrap();
    let out = edge_of(&graph, "Double");
    let (worker, runner, _) = connected(&graph, &["Double"], &[out]);
    let window = |s| {
        let (start, end) = (Timestamp::from_secs(s), Timestamp::from_secs(s + 10));
        Window::Interval(IntervalWindow { start, end })
    };
    let info = |t, windows: Windows| WindowInfo {
        timestamp: Timestamp::from_millis(t),
        windows,
        pane: Pane::ON_TIME_AND_ONLY,
    };
    let elements = [
        (1i64, info(1_234, Windows::One(window(0)))),
        (2, info(11_000, [window(10), window(20)].into_iter().collect())),
    ];
    let input = encoded(i64::coder(), urn::INTERVAL_WINDOW, &elements);
    let answer = run(&worker, &runner, input_of(&graph, "Double"), input).unwrap();
    let output = decoded(i64::coder(), urn::INTERVAL_WINDOW, answer.data(&sink_id(out)));
    let doubled: Vec<_> = elements.into_iter().map(|(n, info)| (n * 2, info)).collect();
    assert_eq!(output, doubled);
}

#[test]
fn ports_may_say_time_and_windows_once_for_all() {
    let (graph, out) = pairs();
    let source = input_of(&graph, "Swap");
    let (worker, runner, mut descriptor) = connected(&graph, &["Swap", "Tail"], &[out]);
    let info = WindowInfo {
        timestamp: Timestamp::from_millis(5_000),
        windows: Windows::One(Window::Interval(IntervalWindow {
            start: Timestamp::from_secs(0),
            end: Timestamp::from_secs(10),
        })),
        pane: Pane::NO_FIRING,
    };
    let empty = encoded(Bytes::coder(), urn::INTERVAL_WINDOW, &[(Bytes::new(), info.clone())]);
    let pair = <(String, i64)>::coder().spec();
    let parts = [pair.clone(), CoderSpec::leaf(urn::INTERVAL_WINDOW)];
    let with =
        |payload: Vec<u8>| CoderSpec { payload, ..CoderSpec::of(urn::PARAM_WINDOWED_VALUE, parts.clone()) };
    runner::set_whole_port_coder(&mut descriptor, &source_id(source), &with(empty.to_vec()));
    runner::set_port_coder(&mut descriptor, &sink_id(out), &pair, urn::INTERVAL_WINDOW);
    runner.replace(descriptor.clone());
    // Nothing but the elements, one after another.
    let mut input = Vec::new();
    for element in [("x".to_owned(), 7i64), ("y".to_owned(), 8)] {
        <(String, i64)>::coder().encode(&element, &mut input, Nesting::Nested).unwrap();
    }
    let answer = run(&worker, &runner, source, input.clone().into()).unwrap();
    let output = decoded(<(String, i64)>::coder(), urn::INTERVAL_WINDOW, answer.data(&sink_id(out)));
    let wanted = [("x!".to_owned(), 70i64), ("y!".to_owned(), 80)].map(|pair| (pair, info.clone()));
    assert_eq!(output, wanted);
    // On the way out, too: what the elements carry is left out.
    runner::set_whole_port_coder(&mut descriptor, &sink_id(out), &with(empty.to_vec()));
    let (worker, runner) =
        (Worker::new(graph.clone(), embedding()), Arc::new(Runner::with(descriptor.clone())));
    let answer = run(&worker, &runner, source, input.clone().into()).unwrap();
    let mut wanted = Vec::new();
    for element in [("x!".to_owned(), 70i64), ("y!".to_owned(), 80)] {
        <(String, i64)>::coder().encode(&element, &mut wanted, Nesting::Nested).unwrap();
    }
    assert_eq!(answer.data(&sink_id(out)), wanted);
    // A payload that tells nothing.
    runner::set_whole_port_coder(&mut descriptor, &source_id(source), &with(vec![1, 2]));
    let (worker, runner) = (Worker::new(graph.clone(), embedding()), Arc::new(Runner::with(descriptor)));
    let error = run(&worker, &runner, source, input.into()).unwrap_err();
    assert!(error.starts_with("error[TB0101]: encoding cut off"), "{error}");
}

#[derive(Clone)]
struct Counting {
    seen: tiebeam_core::metrics::Counter,
    sizes: Option<tiebeam_core::metrics::Distribution>,
    long: OutputTag<String>,
}

impl DoFn for Counting {
    type In = String;
    type Out = i64;

    fn setup(&mut self, cx: &SetupContext) -> Result<()> {
        self.seen = cx.counter("words", "seen");
        self.sizes = Some(cx.distribution("words", "sizes"));
        Ok(())
    }

    fn process(&mut self, word: String, _: &ElementContext<'_>, out: &mut Output<i64>) -> Result<()> {
        assert_ne!(word, "boom", "a word that nobody may say");
        self.seen.inc();
        self.sizes.as_ref().unwrap().update(word.len() as i64);
        out.emit(word.len() as i64);
        if word.len() > 3 {
            out.emit_to(&self.long, word);
        }
        Ok(())
    }
}

/// `Create` → "Count" with a tagged output.
fn counting() -> (Arc<Graph>, EdgeId, EdgeId) {
    let p = Pipeline::new();
    let long = OutputTag::new("long");
    let dofn = Counting { seen: Default::default(), sizes: None, long: long.clone() };
    let outputs =
        p.apply(Create::of(["a".to_owned()])).step("Count").apply(ParDo::new(dofn).with_output(&long));
    let (main, long) = (outputs.main.edge(), outputs.get(&long).edge());
    (p.build().unwrap(), main, long)
}

#[test]
fn outputs_and_metrics_of_a_bundle() {
    let (graph, main, long) = counting();
    let (worker, runner, descriptor) = connected(&graph, &["Count"], &[main, long]);
    let source = input_of(&graph, "Count");
    for _ in 0..2 {
        // The second bundle reuses the instance, and counts anew.
        let answer = run(&worker, &runner, source, words(&["a", "word", "longer"])).unwrap();
        assert_eq!(decoded(i64::coder(), GLOBAL, answer.data(&sink_id(main))), global(&[1, 4, 6]));
        let long_words = decoded(String::coder(), GLOBAL, answer.data(&sink_id(long)));
        assert_eq!(long_words, global(&["word".to_owned(), "longer".to_owned()]));
        let step = descriptor.transforms.iter().find(|(_, t)| t.unique_name == "Count").unwrap().0;
        assert_eq!(answer.payload(urns::metric::USER_SUM_INT64, step), [3]);
        assert_eq!(answer.payload(urns::metric::USER_DISTRIBUTION_INT64, step), [3, 11, 1, 6]);
        assert_eq!(answer.payload(urns::metric::DATA_CHANNEL_READ_INDEX, &source_id(source)), [3]);
        assert_eq!(answer.payload(urns::metric::ELEMENT_COUNT, &format!("p{}", long.0)), [2]);
        assert_eq!(answer.payload(urns::metric::ELEMENT_COUNT, &format!("p{}", source.0)), [3]);
    }
}

#[test]
fn an_output_that_the_runner_left_out_goes_nowhere() {
    let (graph, main, _) = counting();
    let (worker, runner, mut descriptor) = connected(&graph, &["Count"], &[main]);
    for transform in descriptor.transforms.values_mut() {
        transform.outputs.remove("long");
    }
    runner.replace(descriptor);
    let answer = run(&worker, &runner, input_of(&graph, "Count"), words(&["longer"])).unwrap();
    assert_eq!(decoded(i64::coder(), GLOBAL, answer.data(&sink_id(main))), global(&[6]));
}

#[test]
fn a_panic_becomes_an_error_that_names_the_step_and_the_worker_lives_on() {
    let (graph, main, long) = counting();
    let (worker, runner, descriptor) = connected(&graph, &["Count"], &[main, long]);
    let source = input_of(&graph, "Count");
    let error = run(&worker, &runner, source, words(&["fine", "boom"])).unwrap_err();
    assert!(error.starts_with("error[TB0502]: Count: user code panicked: "), "{error}");
    assert!(error.contains("a word that nobody may say"), "{error}");
    // The failed bundle's counts are forgotten.
    let answer = run(&worker, &runner, source, words(&["fine"])).unwrap();
    let step = descriptor.transforms.iter().find(|(_, t)| t.unique_name == "Count").unwrap().0;
    assert_eq!(answer.payload(urns::metric::USER_SUM_INT64, step), [1]);
}

#[test]
fn an_error_of_a_dofn_names_the_step() {
    struct Refuses;
    impl DoFn for Refuses {
        type In = String;
        type Out = String;
        fn process(&mut self, word: String, _: &ElementContext<'_>, _: &mut Output<String>) -> Result<()> {
            Err(tiebeam_core::Error::user(format!("no `{word}`")))
        }
        fn finish_bundle(&mut self, _: &BundleContext<'_>, _: &mut Output<String>) -> Result<()> {
            panic!("not after an error")
        }
    }
    let p = Pipeline::new();
    p.apply(Create::of(["a".to_owned()])).step("Refuse").apply(ParDo::from_fn(|| Refuses));
    let graph = p.build().unwrap();
    let (worker, runner, _) = connected(&graph, &["Refuse"], &[edge_of(&graph, "Refuse")]);
    let error = run(&worker, &runner, input_of(&graph, "Refuse"), words(&["x"])).unwrap_err();
    assert_eq!(error, "error[TB0501]: Refuse: no `x`");
}

#[test]
fn truncated_and_foreign_elements_are_errors() {
    let (graph, main, long) = counting();
    let (worker, runner, _) = connected(&graph, &["Count"], &[main, long]);
    let source = input_of(&graph, "Count");
    let whole = words(&["longer"]);
    for cut in 1..whole.len() {
        let error = run(&worker, &runner, source, whole.slice(..cut)).unwrap_err();
        assert!(error.starts_with("error[TB01"), "{cut}: {error}");
    }
    // Not UTF-8.
    let mut bytes = whole.to_vec();
    *bytes.last_mut().unwrap() = 0xff;
    let error = run(&worker, &runner, source, bytes.into()).unwrap_err();
    assert!(error.contains("not UTF-8"), "{error}");
    let response = worker.handle(bundle("b1", data("b1", "elsewhere", whole)), &runner.api());
    assert_eq!(
        response.error,
        "error[TB0548]: elements came for transform `elsewhere`, which is no source of this stage"
    );
}

#[test]
fn a_bundle_of_many_pieces_comes_and_goes_on_the_data_stream() {
    let (graph, main, long) = counting();
    let (_, runner, _) = connected(&graph, &["Count"], &[main, long]);
    let worker = Worker::new(graph.clone(), WorkerOptions { piece: 16, ..WorkerOptions::default() });
    let source = source_id(input_of(&graph, "Count"));
    for word in ["abcd", "efghi"] {
        let mut piece = data("b7", &source, words(&[word; 300]));
        piece.data[0].is_last = false;
        piece.data.truncate(1);
        runner.push(piece);
    }
    runner.push(data("b7", &source, Bytes::new()));
    let request = ProcessBundleRequest {
        process_bundle_descriptor_id: "stage".to_owned(),
        ..ProcessBundleRequest::default()
    };
    let done = worker.process_bundle("b7", request, &runner.api()).unwrap();
    assert_eq!(done.elements, None);
    let sent = runner.take_sent();
    assert!(sent.iter().all(|(url, _)| url == "data"));
    let pieces: Vec<_> = sent.into_iter().flat_map(|(_, elements)| elements.data).collect();
    for sink in [main, long] {
        let of_sink: Vec<_> = pieces.iter().filter(|piece| piece.transform_id == sink_id(sink)).collect();
        assert!(of_sink.len() > 2, "only {} pieces", of_sink.len());
        let closed: Vec<bool> = of_sink.iter().map(|piece| piece.is_last).collect();
        assert_eq!(closed.iter().filter(|last| **last).count(), 1);
        assert!(of_sink.last().unwrap().is_last && of_sink.last().unwrap().data.is_empty());
    }
    let of_main: Vec<u8> =
        pieces.iter().filter(|p| p.transform_id == sink_id(main)).flat_map(|p| p.data.to_vec()).collect();
    assert_eq!(decoded(i64::coder(), GLOBAL, of_main), global(&[vec![4; 300], vec![5; 300]].concat()));
}

#[test]
fn a_worker_of_another_pipeline_says_what_differs() {
    let (graph, main, long) = counting();
    let (_, runner, _) = connected(&graph, &["Count"], &[main, long]);
    let source = input_of(&graph, "Count");
    let against = |other: &dyn Fn(&Pipeline)| {
        let p = Pipeline::new();
        other(&p);
        let worker = Worker::new(p.build().unwrap(), embedding());
        run(&worker, &runner, source, words(&["a"])).unwrap_err()
    };
    let error = against(&|p| {
        p.apply(Create::of([1i64])).step("Count").map(|n| n + 1);
    });
    assert!(
        error.starts_with("error[TB0542]: Count: this worker has built another pipeline than the job: "),
        "{error}"
    );
    assert!(
        error.contains(
            "; the step reads i64 here and alloc::string::String in the job\n  help: start workers from"
        ),
        "{error}"
    );
    let error = against(&|p| {
        p.apply(Create::of(["a".to_owned()])).step("Other").map(|w| w.len() as i64);
    });
    assert!(error.contains("; this worker has no step `Count`\n"), "{error}");
    let error = against(&|p| {
        let dofn = Counting { seen: Default::default(), sizes: None, long: OutputTag::new("long") };
        let words = p.apply(Create::of(["a".to_owned()]));
        words.step("Count").apply(ParDo::new(dofn).with_output(&OutputTag::<String>::new("long")));
        words.step("More").map(|w| w);
    });
    assert!(error.contains("; the pipeline has 5 steps here and 4 in the job"), "{error}");
}

fn with_par_do_payload(
    descriptor: &mut ProcessBundleDescriptor,
    change: impl Fn(&mut ParDoPayload, &mut PTransform),
) {
    for transform in descriptor.transforms.values_mut() {
        let spec = transform.spec.clone().unwrap();
        if spec.urn == urns::transform::PAR_DO {
            let mut payload = ParDoPayload::decode(spec.payload.as_ref()).unwrap();
            change(&mut payload, transform);
            transform.spec = Some(FunctionSpec { payload: payload.encode_to_vec().into(), ..spec });
        }
    }
}

#[test]
fn foreign_and_damaged_descriptors_are_errors() {
    let (graph, main, long) = counting();
    let source = input_of(&graph, "Count");
    let with = |change: &dyn Fn(&mut ProcessBundleDescriptor)| {
        let (worker, runner, mut descriptor) = connected(&graph, &["Count"], &[main, long]);
        change(&mut descriptor);
        runner.replace(descriptor);
        run(&worker, &runner, source, words(&["a"])).unwrap_err()
    };
    let error = with(&|d| {
        with_par_do_payload(d, |payload, _| {
            payload.do_fn.as_mut().unwrap().urn = "beam:dofn:pickled:v1".to_owned()
        });
    });
    assert!(
        error.starts_with("error[TB0544]: transform `t0` has a function of kind `beam:dofn:pickled:v1`"),
        "{error}"
    );
    let error = with(&|d| {
        with_par_do_payload(d, |payload, _| payload.do_fn.as_mut().unwrap().payload = vec![0x0a, 200].into());
    });
    assert!(
        error.starts_with("error[TB0540]: the payload of transform `t0` is damaged\n  caused by: "),
        "{error}"
    );
    let error = with(&|d| {
        with_par_do_payload(d, |payload, _| {
            let function = payload.do_fn.as_mut().unwrap();
            let mut own = StepPayload::decode(function.payload.as_ref()).unwrap();
            own.step = "Create/Impulse".to_owned();
            function.payload = own.encode_to_vec().into();
        });
    });
    assert!(
        error.contains("transform `t0` is a ParDo and names step `Create/Impulse`, which is a Impulse"),
        "{error}"
    );
    let error = with(&|d| {
        d.transforms.get_mut("t0").unwrap().spec.as_mut().unwrap().urn =
            "beam:transform:group_by_key:v1".to_owned()
    });
    assert_eq!(
        error,
        "error[TB0544]: transform `t0` of kind `beam:transform:group_by_key:v1` cannot be run by a worker"
    );
    let error = with(&|d| d.coders.clear());
    assert!(error.starts_with("error[TB0540]: the message names coder `"), "{error}");
    let error = with(&|d| {
        let into = d.transforms["t0"].outputs["main"].clone();
        d.transforms.get_mut("t0").unwrap().inputs.insert("in0".to_owned(), into);
    });
    assert_eq!(error, "error[TB0540]: the transforms of stage `stage` wait for each other in a circle");
    let error = with(&|d| {
        let text = CoderSpec::leaf(urn::VARINT);
        runner::set_port_coder(d, &source_id(source), &text, GLOBAL);
    });
    assert!(error.contains("cannot be read by coder varint"), "{error}");
}

#[test]
fn every_instruction_is_answered() {
    let (graph, main, long) = counting();
    let (worker, runner, _) = connected(&graph, &["Count"], &[main, long]);
    let answer = |request: Option<Request>| {
        let response =
            worker.handle(InstructionRequest { instruction_id: "i".to_owned(), request }, &runner.api());
        assert_eq!(response.instruction_id, "i");
        response
    };
    let unknown = answer(None);
    assert_eq!(
        unknown.error,
        "error[TB0545]: instruction `i` asks for something that this worker does not know"
    );
    assert_eq!(unknown.response, None);
    let kinds = [
        Request::ProcessBundleProgress(Default::default()),
        Request::ProcessBundleSplit(Default::default()),
        Request::FinalizeBundle(Default::default()),
        Request::MonitoringInfos(Default::default()),
        Request::HarnessMonitoringInfos(Default::default()),
        Request::SampleData(Default::default()),
    ];
    for request in kinds {
        let asked = format!("{request:?}");
        let response = answer(Some(request));
        assert_eq!(response.error, "");
        let got = format!("{:?}", response.response.unwrap());
        assert_eq!(got.split('(').next(), asked.split('(').next());
    }
    let mut request = bundle("i", Elements::default());
    if let Some(Request::ProcessBundle(bundle)) = &mut request.request {
        bundle.process_bundle_descriptor_id = "nowhere".to_owned();
    }
    let response = worker.handle(request, &runner.api());
    assert_eq!(
        response.error,
        "error[TB0546]: the runner did not tell what stage `nowhere` is\n  caused by: no descriptor `nowhere`"
    );
}

#[test]
fn registered_descriptors_need_not_be_asked_for() {
    let (graph, main, long) = counting();
    let (worker, runner, descriptor) = connected(&graph, &["Count"], &[main, long]);
    let registration = RegisterRequest { process_bundle_descriptor: vec![descriptor] };
    let nobody: Arc<dyn tiebeam_worker::FnApi> = Arc::new(Runner::default());
    let request = Some(Request::Register(registration));
    assert_eq!(
        worker.handle(InstructionRequest { instruction_id: "r".to_owned(), request }, &nobody).error,
        ""
    );
    let source = source_id(input_of(&graph, "Count"));
    assert_eq!(worker.handle(bundle("b", data("b", &source, words(&["a"]))), &nobody).error, "");
    drop(runner);
}

#[derive(Clone)]
struct Joins {
    all: View<Iterable<i64>>,
    by_key: View<SideMultimap<String, i64>>,
}

impl DoFn for Joins {
    type In = String;
    type Out = (String, i64);

    fn process(&mut self, word: String, cx: &ElementContext<'_>, out: &mut Output<Self::Out>) -> Result<()> {
        let all: i64 = cx.side_input(&self.all)?.iter().sum();
        let count = cx.side_input(&self.all)?.count() as i64;
        for n in &cx.side_input(&self.by_key)?.get(&word)? {
            out.emit((word.clone(), n + 1_000 * all + 1_000_000 * count));
        }
        Ok(())
    }
}

fn joins() -> (Arc<Graph>, EdgeId) {
    let p = Pipeline::new();
    let numbers = p.step("Numbers").apply(Create::of([1i64])).as_iterable();
    let pairs = p.step("Pairs").apply(Create::of([("a".to_owned(), 1i64)]));
    let pairs =
        pairs.window_into(WindowingStrategy::of(FixedWindows::of(Duration::from_secs(60)))).as_multimap();
    let dofn = Joins { all: numbers.view(), by_key: pairs.view() };
    let par_do = ParDo::new(dofn).with_side_input(&numbers).with_side_input(&pairs);
    let out = p.step("Words").apply(Create::of(["a".to_owned()])).step("Join").apply(par_do).edge();
    (p.build().unwrap(), out)
}

#[test]
fn side_inputs_are_read_through_state_page_by_page() {
    for prefix in [false, true] {
        let (graph, out) = joins();
        let (worker, runner, mut descriptor) = connected(&graph, &["Join"], &[out]);
        let with = |coder: CoderSpec| if prefix { CoderSpec::of(urn::LENGTH_PREFIX, [coder]) } else { coder };
        let (key, number) = (with(CoderSpec::leaf(urn::STRING_UTF8)), with(CoderSpec::leaf(urn::VARINT)));
        for (view, edge) in &graph.nodes.iter().find(|node| &*node.step == "Join").unwrap().side_inputs {
            let is_pairs = graph.edge(*edge).unwrap().edge_type.coder_spec().urn == urn::KV;
            let spec =
                if is_pairs { CoderSpec::of(urn::KV, [key.clone(), number.clone()]) } else { number.clone() };
            runner::set_pcollection_coder(&mut descriptor, &format!("p{}", edge.0), &spec);
            assert!(descriptor.transforms["t0"].inputs.contains_key(&**view));
        }
        runner.replace(descriptor);
        let numbers = |values: &[i64]| {
            let coder = i64::coder_of(&number).unwrap();
            let mut bytes = Vec::new();
            values.iter().for_each(|n| coder.encode(n, &mut bytes, Nesting::Nested).unwrap());
            bytes
        };
        let asked_key = {
            let mut bytes = Vec::new();
            String::coder_of(&key).unwrap().encode(&"word".to_owned(), &mut bytes, Nesting::Nested).unwrap();
            bytes
        };
        // The window of the last instant of the global window.
        let window = {
            let end = FixedWindows::of(Duration::from_secs(60));
            let window = tiebeam_core::WindowFn::side_input_window(&end, &Window::Global);
            let mut bytes = Vec::new();
            tiebeam_core::coder::encode_window(&window, &mut bytes);
            bytes
        };
        let (all, of_key) = (numbers(&[300, 20]), numbers(&[5, -6]));
        runner.serve(move |key: &StateKey| match key.r#type.as_ref().unwrap() {
            state_key::Type::IterableSideInput(side)
                if side.window.is_empty() && side.transform_id == "t0" =>
            {
                all.clone()
            }
            state_key::Type::MultimapSideInput(side) if side.window == window && side.key == asked_key => {
                of_key.clone()
            }
            other => panic!("asked for {other:?}"),
        });
        let answer = run(&worker, &runner, input_of(&graph, "Join"), words(&["word"])).unwrap();
        let output = decoded(<(String, i64)>::coder(), GLOBAL, answer.data(&sink_id(out)));
        let wanted = [("word".to_owned(), 2_320_005i64), ("word".to_owned(), 2_319_994)];
        assert_eq!(output, global(&wanted));
        assert!(runner.state_requests() > 4, "a page at a time");
    }
}

#[test]
fn values_that_the_runner_keeps_are_read_while_they_are_iterated() {
    let p = Pipeline::new();
    let words = p.apply(Create::of([(1i64, "a".to_owned())]));
    words.group_by_key().step("Join").map(|(n, words): (i64, Iterable<String>)| {
        // Twice: an iterable can be read again.
        (n + words.count() as i64, words.iter().collect::<Vec<_>>().concat())
    });
    let graph = p.build().unwrap();
    let (source, out) = (input_of(&graph, "Join"), edge_of(&graph, "Join"));
    let (worker, runner, mut descriptor) = connected(&graph, &["Join"], &[out]);
    let text = CoderSpec::leaf(urn::STRING_UTF8);
    let spec = CoderSpec::of(
        urn::KV,
        [CoderSpec::leaf(urn::VARINT), CoderSpec::of(urn::STATE_BACKED_ITERABLE, [text])],
    );
    runner::set_port_coder(&mut descriptor, &source_id(source), &spec, GLOBAL);
    runner.replace(descriptor);
    // Time, one window, no pane; the key 7; -1, a block of one value, then a token for the rest.
    let mut input = encoded(i64::coder(), GLOBAL, &global(&[7i64])).to_vec();
    input.extend([255, 255, 255, 255, 1, 1, b'x']);
    tiebeam_core::coder::write_varint(-1, &mut input);
    input.extend([3, b't', b'o', b'k']);
    runner.serve(|key: &StateKey| match key.r#type.as_ref().unwrap() {
        // Pages are of two bytes: none of these values is cut by the end of one.
        state_key::Type::Runner(runner) if &runner.key[..] == b"tok" => vec![1, b'y', 1, b'z'],
        other => panic!("asked for {other:?}"),
    });
    let answer = run(&worker, &runner, source, input.clone().into()).unwrap();
    let output = decoded(<(i64, String)>::coder(), GLOBAL, answer.data(&sink_id(out)));
    assert_eq!(output, global(&[(10, "xyz".to_owned())]));
    // State that does not come ends the bundle.
    runner.serve(|_: &StateKey| vec![9, b'y']);
    let error = run(&worker, &runner, source, input.into()).unwrap_err();
    assert!(error.starts_with("error[TB0104]: Join: a length of 9"), "{error}");
}

#[test]
fn a_refused_state_request_fails_the_bundle_at_its_step() {
    let (graph, out) = joins();
    let (worker, runner, _) = connected(&graph, &["Join"], &[out]);
    let error = run(&worker, &runner, input_of(&graph, "Join"), words(&["word"])).unwrap_err();
    assert_eq!(error, "error[TB0547]: Join: the runner refused a state request: no such state");
}

#[derive(Clone, Copy)]
struct Mean;

impl CombineFn for Mean {
    type Input = i64;
    type Accumulator = (i64, i64);
    type Output = f64;

    fn create_accumulator(&self) -> (i64, i64) {
        (0, 0)
    }

    fn add_input(&self, (sum, count): &mut (i64, i64), input: i64) {
        *sum += input;
        *count += 1;
    }

    fn merge(&self, (sum, count): &mut (i64, i64), other: (i64, i64)) {
        *sum += other.0;
        *count += other.1;
    }

    fn extract_output(&self, (sum, count): (i64, i64)) -> f64 {
        sum as f64 / count as f64
    }
}

#[test]
fn the_pieces_of_a_combine_run_one_by_one() {
    let p = Pipeline::new();
    p.apply(Create::of([("a".to_owned(), 1i64)])).step("Mean").combine_per_key(Mean);
    let graph = p.build().unwrap();
    type Input = (String, i64);
    type Acc = (String, (i64, i64));
    let text = |s: &str| s.to_owned();
    let input = global(&[(text("a"), 1i64), (text("b"), 5), (text("a"), 3)]);
    let wanted: Vec<Acc> = vec![(text("a"), (4, 2)), (text("b"), (5, 1))];

    let out = runner::combine_piece(
        &graph,
        "Mean",
        urns::transform::COMBINE_PRECOMBINE,
        encoded(Input::coder(), GLOBAL, &input),
    );
    let mut accumulators: Vec<Acc> =
        decoded(Acc::coder(), GLOBAL, out).into_iter().map(|(acc, _)| acc).collect();
    accumulators.sort();
    assert_eq!(accumulators, wanted);

    let out = runner::combine_piece(
        &graph,
        "Mean",
        urns::transform::COMBINE_CONVERT_TO_ACCUMULATORS,
        encoded(Input::coder(), GLOBAL, &input),
    );
    let converted: Vec<Acc> = decoded(Acc::coder(), GLOBAL, out).into_iter().map(|(acc, _)| acc).collect();
    assert_eq!(converted, [(text("a"), (1, 1)), (text("b"), (5, 1)), (text("a"), (3, 1))]);

    let grouped = global(&[
        (text("a"), Iterable::from(vec![(1i64, 1i64), (3, 1)])),
        (text("b"), Iterable::from(vec![(5, 1)])),
    ]);
    let grouped = encoded(<(String, Iterable<(i64, i64)>)>::coder(), GLOBAL, &grouped);
    let out = runner::combine_piece(&graph, "Mean", urns::transform::COMBINE_MERGE_ACCUMULATORS, grouped);
    assert_eq!(decoded(Acc::coder(), GLOBAL, out), global(&wanted));

    let out = runner::combine_piece(
        &graph,
        "Mean",
        urns::transform::COMBINE_EXTRACT_OUTPUTS,
        encoded(Acc::coder(), GLOBAL, &global(&wanted)),
    );
    let means = global(&[(text("a"), 2.0f64), (text("b"), 5.0)]);
    assert_eq!(decoded(<(String, f64)>::coder(), GLOBAL, out), means);

    let grouped = global(&[(text("a"), Iterable::from(vec![1i64, 3])), (text("b"), Iterable::from(vec![5]))]);
    let grouped = encoded(<(String, Iterable<i64>)>::coder(), GLOBAL, &grouped);
    let out = runner::combine_piece(&graph, "Mean", urns::transform::COMBINE_GROUPED_VALUES, grouped);
    assert_eq!(decoded(<(String, f64)>::coder(), GLOBAL, out), means);
}

#[test]
fn flattens_and_standard_windows_that_the_runner_put_there_get_their_types_from_neighbours() {
    let (graph, main, long) = counting();
    let (worker, runner, mut descriptor) = connected(&graph, &["Count"], &[main, long]);
    let source = input_of(&graph, "Count");
    // source ─► window into fixed windows ─► flatten ─► Count, none of the first two in the graph.
    let windows = tiebeam_worker::windowing::window_fn_to_proto(&FixedWindows::of(Duration::from_secs(1)));
    let payload = tiebeam_model::pipeline::WindowIntoPayload { window_fn: Some(windows) };
    runner::insert_before(&mut descriptor, "t0", "flatten", urns::transform::FLATTEN, Vec::new());
    runner::insert_before(
        &mut descriptor,
        "flatten",
        "window",
        urns::transform::ASSIGN_WINDOWS,
        payload.encode_to_vec(),
    );
    for sink in [main, long] {
        let element = graph.edge(sink).unwrap().edge_type.coder_spec();
        runner::set_port_coder(&mut descriptor, &sink_id(sink), &element, urn::INTERVAL_WINDOW);
    }
    runner.replace(descriptor);
    let at = |s| WindowInfo { timestamp: Timestamp::from_millis(s), ..WindowInfo::GLOBAL };
    let input = encoded(String::coder(), GLOBAL, &[("abc".to_owned(), at(1_500))]);
    let answer = run(&worker, &runner, source, input).unwrap();
    let output = decoded(i64::coder(), urn::INTERVAL_WINDOW, answer.data(&sink_id(main)));
    let window = IntervalWindow { start: Timestamp::from_secs(1), end: Timestamp::from_secs(2) };
    let info = WindowInfo { windows: Windows::One(Window::Interval(window)), ..at(1_500) };
    assert_eq!(output, [(3, info)]);
}

#[test]
fn a_stage_that_only_passes_on_changes_coders() {
    let (graph, ..) = counting();
    let edge = input_of(&graph, "Count");
    let worker = Worker::new(graph.clone(), embedding());
    let spec = spec_of(&graph, vec![], &[edge]);
    let ports =
        StagePorts { id: "stage".to_owned(), sources: vec![edge], sinks: vec![edge], url: "data".to_owned() };
    let mut descriptor = describe(&spec, &ports, worker.steps()).unwrap();
    let prefixed = length_prefixed(String::coder());
    runner::set_port_coder(&mut descriptor, &sink_id(edge), &prefixed.spec(), GLOBAL);
    let runner = Arc::new(Runner::with(descriptor));
    let answer = run(&worker, &runner, edge, words(&["a", "b"])).unwrap();
    let output = decoded(prefixed, GLOBAL, answer.data(&sink_id(edge)));
    assert_eq!(output, global(&["a".to_owned(), "b".to_owned()]));
}

#[test]
fn windows_of_side_inputs_can_be_mapped_by_the_worker() {
    let (graph, ..) = counting();
    let worker = Worker::new(graph, embedding());
    let side = FixedWindows::of(Duration::from_secs(60));
    let descriptor = runner::map_windows_stage(&side);
    let runner = Arc::new(Runner::with(descriptor));
    let spec = CoderSpec::of(urn::KV, [CoderSpec::leaf(urn::BYTES), CoderSpec::leaf(urn::INTERVAL_WINDOW)]);
    let coder = <(Bytes, IntervalWindow)>::coder_of(&spec).unwrap();
    let seconds =
        |start, end| IntervalWindow { start: Timestamp::from_secs(start), end: Timestamp::from_secs(end) };
    let nonce = Bytes::from_static(b"n1");
    let input = encoded(coder.clone(), GLOBAL, &global(&[(nonce.clone(), seconds(70, 80))]));
    let request = bundle("b1", data("b1", "source", input));
    let response = worker.handle(request, &runner.api());
    assert_eq!(response.error, "");
    let Some(Response::ProcessBundle(done)) = response.response else { panic!("no answer") };
    let output = decoded(coder, GLOBAL, runner::Answer::of(done).data("sink"));
    assert_eq!(output, global(&[(nonce, seconds(60, 120))]));
}

#[test]
fn monitoring_infos_carry_the_labels_that_beam_wants() {
    let (graph, main, long) = counting();
    let (worker, runner, _) = connected(&graph, &["Count"], &[main, long]);
    let answer = run(&worker, &runner, input_of(&graph, "Count"), words(&["a"])).unwrap();
    let labels = |info: &MonitoringInfo| info.labels.keys().map(String::as_str).collect::<Vec<_>>().join(" ");
    let mut kinds: Vec<(String, String, String)> = answer
        .monitoring_infos
        .iter()
        .map(|info| (info.urn.clone(), info.r#type.clone(), labels(info)))
        .collect();
    kinds.sort();
    kinds.dedup();
    let wanted = [
        (urns::metric::DATA_CHANNEL_READ_INDEX, urns::metric_type::SUM_INT64, "PTRANSFORM"),
        (urns::metric::ELEMENT_COUNT, urns::metric_type::SUM_INT64, "PCOLLECTION"),
        (urns::metric::TOTAL_MSECS, urns::metric_type::SUM_INT64, "PTRANSFORM"),
        (
            urns::metric::USER_DISTRIBUTION_INT64,
            urns::metric_type::DISTRIBUTION_INT64,
            "NAME NAMESPACE PTRANSFORM",
        ),
        (urns::metric::USER_SUM_INT64, urns::metric_type::SUM_INT64, "NAME NAMESPACE PTRANSFORM"),
    ];
    let wanted = wanted.map(|(urn, r#type, labels)| (urn.to_owned(), r#type.to_owned(), labels.to_owned()));
    assert_eq!(kinds, wanted);
    assert!(matches!(graph.nodes.last().unwrap().kind, NodeKind::ParDo(_)));
}
