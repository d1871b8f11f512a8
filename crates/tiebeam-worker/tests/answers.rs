//! What a worker tells beside a bundle's output: metrics by short ids, its own metrics, samples, errors; and where the output
//! itself goes.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod runner;

use std::collections::BTreeMap;
use std::sync::Arc;

use runner::{
    GLOBAL, Runner, bundle, connected, data, decoded, described, edge_of, embedding, encoded, global,
    input_of, run,
};
use tiebeam_core::coder::urn;
use tiebeam_core::{
    Bytes, CoderSpec, DoFn, Element, ElementContext, Error, ErrorKind, Iterable, Output, Reader, Result,
};
use tiebeam_exec::EdgeId;
use tiebeam_graph::{Create, Graph, PCollection, Pipeline, composite};
use tiebeam_model::fn_api::instruction_request::Request;
use tiebeam_model::fn_api::instruction_response::Response;
use tiebeam_model::fn_api::{
    Elements, FinalizeBundleRequest, HarnessMonitoringInfosRequest, InstructionRequest,
    MonitoringInfosMetadataRequest, ProcessBundleResponse, SampleDataRequest, SampledElement, StateKey,
};
use tiebeam_model::pipeline::MonitoringInfo;
use tiebeam_model::urns;
use tiebeam_worker::{FnApi, Worker, WorkerOptions, capabilities, sink_id, source_id};

/// Numbers → "Text", which makes text of them.
fn numbers() -> (Arc<Graph>, EdgeId, EdgeId) {
    let p = Pipeline::new();
    p.apply(Create::of([0i64])).step("Text").map(|n| n.to_string());
    let graph = p.build().unwrap();
    let (source, out) = (input_of(&graph, "Text"), edge_of(&graph, "Text"));
    (graph, source, out)
}

fn input(values: &[i64]) -> Bytes {
    encoded(i64::coder(), GLOBAL, &global(values))
}

fn worker_of(graph: &Arc<Graph>, out: EdgeId, options: WorkerOptions) -> (Worker, Arc<Runner>) {
    let worker = Worker::new(graph.clone(), options);
    let runner = Runner::with(described(worker.steps(), &["Text"], &[out]));
    (worker, Arc::new(runner))
}

fn ask(worker: &Worker, request: Request) -> std::result::Result<Response, String> {
    let nobody: Arc<dyn FnApi> = Arc::new(Runner::default());
    let request = InstructionRequest { instruction_id: "q".to_owned(), request: Some(request) };
    let response = worker.handle(request, &nobody);
    response.response.ok_or(response.error)
}

fn process(worker: &Worker, runner: &Arc<Runner>, source: EdgeId, input: Bytes) -> ProcessBundleResponse {
    let request = bundle("b1", data("b1", &source_id(source), input));
    match worker.handle(request, &runner.api()) {
        response if !response.error.is_empty() => panic!("{}", response.error),
        response => match response.response {
            Some(Response::ProcessBundle(done)) => done,
            other => panic!("{other:?}"),
        },
    }
}

fn names(worker: &Worker, ids: impl IntoIterator<Item = String>) -> BTreeMap<String, MonitoringInfo> {
    let request = MonitoringInfosMetadataRequest { monitoring_info_id: ids.into_iter().collect() };
    match ask(worker, Request::MonitoringInfos(request)) {
        Ok(Response::MonitoringInfos(infos)) => infos.monitoring_info,
        other => panic!("{other:?}"),
    }
}

#[test]
fn metrics_by_short_ids_say_the_same_as_in_full() {
    let (graph, source, out) = numbers();
    let (worker, runner) = worker_of(&graph, out, embedding());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let done = process(&worker, &runner, source, input(&[1, 2, 3]));
        let infos = names(&worker, done.monitoring_data.keys().cloned());
        assert_eq!(infos.len(), done.monitoring_infos.len());
        let with_payload = infos.iter().map(|(id, info)| {
            assert!(info.payload.is_empty());
            MonitoringInfo { payload: done.monitoring_data[id].clone(), ..info.clone() }
        });
        let key = |info: &MonitoringInfo| (info.urn.clone(), info.labels.clone(), info.payload.clone());
        let (mut by_id, mut full): (Vec<_>, Vec<_>) =
            (with_payload.map(|info| key(&info)).collect(), done.monitoring_infos.iter().map(key).collect());
        by_id.sort();
        full.sort();
        assert_eq!(by_id, full);
        ids.push(done.monitoring_data.keys().cloned().collect::<Vec<_>>());
    }
    assert_eq!(ids[0], ids[1], "ids stay");
    let error = ask(
        &worker,
        Request::MonitoringInfos(MonitoringInfosMetadataRequest {
            monitoring_info_id: vec!["zz".to_owned()],
        }),
    );
    assert_eq!(error.unwrap_err(), "error[TB0552]: no metric has the short id `zz`");
}

#[test]
fn runners_that_understand_short_ids_get_nothing_else() {
    let (graph, source, out) = numbers();
    let (worker, runner) = worker_of(&graph, out, WorkerOptions { short_ids_only: true, ..embedding() });
    let done = process(&worker, &runner, source, input(&[1, 2, 3]));
    assert!(done.monitoring_infos.is_empty());
    let infos = names(&worker, done.monitoring_data.keys().cloned());
    let read = infos.iter().find(|(_, info)| info.urn == urns::metric::DATA_CHANNEL_READ_INDEX).unwrap().0;
    assert_eq!(&done.monitoring_data[read][..], [3]);
}

#[test]
fn the_worker_tells_of_itself() {
    let (graph, source, out) = numbers();
    let (worker, runner) = worker_of(&graph, out, embedding());
    process(&worker, &runner, source, input(&[1]));
    process(&worker, &runner, source, input(&[1]));
    run(&worker, &runner, source, Bytes::from_static(&[1])).unwrap_err();
    let Ok(Response::HarnessMonitoringInfos(own)) =
        ask(&worker, Request::HarnessMonitoringInfos(HarnessMonitoringInfosRequest {}))
    else {
        panic!("another answer")
    };
    let infos = names(&worker, own.monitoring_data.keys().cloned());
    let counters: BTreeMap<&str, i64> = infos
        .iter()
        .filter(|(_, info)| info.urn == urns::metric::USER_SUM_INT64)
        .map(|(id, info)| {
            assert_eq!(info.labels.keys().collect::<Vec<_>>(), ["NAME", "NAMESPACE"]);
            let value = Reader::new(own.monitoring_data[id].clone()).varint().unwrap();
            (info.labels["NAME"].as_str(), value)
        })
        .collect();
    assert_eq!(
        counters.into_iter().collect::<Vec<_>>(),
        [
            ("bundles_done", 2),
            ("bundles_failed", 1),
            ("state_cache_evictions", 0),
            ("state_cache_hits", 0),
            ("state_cache_misses", 0)
        ]
    );
}

fn samples(worker: &Worker, of: &[EdgeId]) -> BTreeMap<String, Vec<SampledElement>> {
    let pcollection_ids = of.iter().map(|edge| format!("p{}", edge.0)).collect();
    match ask(worker, Request::SampleData(SampleDataRequest { pcollection_ids })) {
        Ok(Response::SampleData(samples)) => {
            samples.element_samples.into_iter().map(|(id, list)| (id, list.elements)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn samples_are_the_first_elements_and_then_one_in_a_thousand() {
    let (graph, source, out) = numbers();
    let (worker, runner) = worker_of(&graph, out, embedding());
    process(&worker, &runner, source, input(&[1]));
    assert!(samples(&worker, &[]).is_empty(), "not unless asked for");

    let (worker, runner) = worker_of(&graph, out, WorkerOptions { data_sampling: true, ..embedding() });
    let shown = |of: &[EdgeId]| -> Vec<(String, Vec<String>)> {
        let text = |element: &SampledElement| {
            assert!(element.exception.is_none() && element.sample_timestamp.is_some_and(|at| at.seconds > 0));
            element.element.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        samples(&worker, of).into_iter().map(|(id, of)| (id, of.iter().map(text).collect())).collect()
    };
    let id = |edge: EdgeId| format!("p{}", edge.0);
    process(&worker, &runner, source, input(&[7, 300]));
    // As the runner's coders say, in nested context: a varint, and text behind its length.
    assert_eq!(
        shown(&[]),
        [
            (id(source), vec!["07".to_owned(), "ac02".to_owned()]),
            (id(out), vec!["0137".to_owned(), "03333030".to_owned()])
        ]
    );
    assert!(shown(&[]).is_empty(), "told once");
    let many: Vec<i64> = (2..2_500).map(|n| n % 100).collect();
    process(&worker, &runner, source, input(&many));
    // Elements 2 to 9, 1000 and 2000.
    let wanted = [2, 3, 4, 5, 6, 7, 8, 9, 0, 0].map(|n: i64| format!("{n:02x}")).to_vec();
    assert_eq!(shown(&[source]), [(id(source), wanted)]);
    assert!(shown(&[source]).is_empty());
    assert_eq!(shown(&[out]).len(), 1, "the other one's are still there");
    for _ in 0..5 {
        process(&worker, &runner, source, input(&[5; 5_000]));
    }
    assert_eq!(shown(&[source])[0].1, vec!["05"; 10], "the last ten");
}

#[test]
fn samples_fetch_no_state() {
    let p = Pipeline::new();
    p.apply(Create::of([(1i64, String::new())]))
        .group_by_key()
        .step("First")
        .map(|(n, _): (i64, Iterable<String>)| n);
    let graph = p.build().unwrap();
    let (source, out) = (input_of(&graph, "First"), edge_of(&graph, "First"));
    let (_, runner, mut descriptor) = connected(&graph, &["First"], &[out]);
    let values = CoderSpec::of(urn::STATE_BACKED_ITERABLE, [CoderSpec::leaf(urn::STRING_UTF8)]);
    let spec = CoderSpec::of(urn::KV, [CoderSpec::leaf(urn::VARINT), values]);
    runner::set_port_coder(&mut descriptor, &source_id(source), &spec, GLOBAL);
    runner.replace(descriptor);
    runner.serve(|_: &StateKey| panic!("nobody looks at the values"));
    let worker = Worker::new(graph.clone(), WorkerOptions { data_sampling: true, ..embedding() });
    let mut element = encoded(i64::coder(), GLOBAL, &global(&[7i64])).to_vec();
    element.extend([255; 4]);
    tiebeam_core::coder::write_varint(-1, &mut element);
    element.extend(b"\x03tok");
    run(&worker, &runner, source, element.into()).unwrap();
    assert_eq!(samples(&worker, &[]).keys().collect::<Vec<_>>(), [&format!("p{}", out.0)]);
}

#[test]
fn output_is_in_the_answer_or_on_the_stream_and_never_in_both() {
    let (graph, source, out) = numbers();
    let options = WorkerOptions { embed_output: true, piece: 2_000, ..WorkerOptions::default() };
    let (worker, runner) = worker_of(&graph, out, options);
    for (count, on_stream) in [(0, false), (1, false), (100, false), (200, true), (10_000, true), (3, false)]
    {
        let values: Vec<i64> = (0..count).map(|n| n % 10).collect();
        let done = process(&worker, &runner, source, input(&values));
        let sent: Vec<Elements> = runner.take_sent().into_iter().map(|(_, elements)| elements).collect();
        assert_eq!((done.elements.is_none(), !sent.is_empty()), (on_stream, on_stream), "{count}");
        let pieces: Vec<_> =
            done.elements.into_iter().chain(sent).flat_map(|elements| elements.data).collect();
        let ends: Vec<bool> = pieces.iter().map(|piece| piece.is_last).collect();
        assert_eq!(ends.iter().position(|end| *end), Some(ends.len() - 1));
        assert!(
            pieces.iter().all(|piece| piece.transform_id == sink_id(out) && piece.instruction_id == "b1")
        );
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.to_vec()).collect();
        let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
        assert_eq!(decoded(String::coder(), GLOBAL, bytes), global(&texts));
        // A piece never cuts an element.
        for piece in pieces.iter().filter(|piece| !piece.data.is_empty()) {
            decoded(String::coder(), GLOBAL, piece.data.clone());
        }
    }
}

#[derive(Clone)]
struct Refuses;

impl DoFn for Refuses {
    type In = i64;
    type Out = i64;

    fn process(&mut self, n: i64, _: &ElementContext<'_>, _: &mut Output<i64>) -> Result<()> {
        assert_ne!(n, 1, "one is none");
        Err(Error::new(ErrorKind::InvalidData, "TB0900", format!("{n} is wrong"))
            .with_source(std::io::Error::other("the disk is tired"))
            .with_help("use another number"))
    }
}

#[test]
fn errors_stand_on_their_own() {
    let p = Pipeline::new();
    p.apply(Create::of([0i64]))
        .step("Outer")
        .apply(composite("Middle", |numbers: PCollection<i64>| numbers.step("Inner").par_do(Refuses)));
    let graph = p.build().unwrap();
    let step = graph.nodes.last().unwrap().step.to_string();
    assert_eq!(step, "Outer/Inner");
    let (source, out) = (input_of(&graph, &step), edge_of(&graph, &step));
    let (worker, runner, _) = connected(&graph, &[&step], &[out]);
    assert_eq!(
        run(&worker, &runner, source, input(&[2])).unwrap_err(),
        "error[TB0900]: Outer/Inner: 2 is wrong\n  caused by: the disk is tired\n  help: use another number"
    );
    let error = run(&worker, &runner, source, input(&[1])).unwrap_err();
    assert!(error.starts_with("error[TB0502]: Outer/Inner: user code panicked: "), "{error}");
    assert!(error.contains("one is none"), "{error}");
}

#[test]
fn a_bundle_may_be_finalised_by_whoever_wants_to() {
    let (graph, ..) = numbers();
    let worker = Worker::new(graph, embedding());
    let request = FinalizeBundleRequest { instruction_id: "b1".to_owned() };
    assert!(matches!(ask(&worker, Request::FinalizeBundle(request)), Ok(Response::FinalizeBundle(_))));
}

#[test]
fn what_is_declared_is_known_by_beam() {
    let declared = capabilities();
    for urn in [
        urns::coder::STATE_BACKED_ITERABLE,
        urns::protocol::PROGRESS_REPORTING,
        urns::protocol::HARNESS_MONITORING_INFOS,
        urns::protocol::WORKER_STATUS,
        urns::protocol::MULTI_CORE_BUNDLE_PROCESSING,
        urns::protocol::STATE_CACHING,
        urns::protocol::DATA_SAMPLING,
        urns::protocol::CONTROL_REQUEST_ELEMENTS_EMBEDDING,
        urns::protocol::CONTROL_RESPONSE_ELEMENTS_EMBEDDING,
        urns::protocol::MONITORING_INFO_SHORT_IDS,
    ] {
        assert_eq!(declared.iter().filter(|declared| *declared == urn).count(), 1, "{urn}");
    }
    let version = format!("beam:version:sdk_base:tiebeam/{}", env!("CARGO_PKG_VERSION"));
    assert!(declared.contains(&version));
}
