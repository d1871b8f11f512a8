//! The runner's side of these tests: one descriptor, state from a function, queues for the data stream.

#![allow(dead_code)] // each test file uses its part

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tiebeam_core::coder::{Coder as ElementCoder, WindowedValueCoder};
use tiebeam_core::{CoderSpec, Element, Error, ErrorKind, Nesting, Reader, Result, WindowFn, WindowInfo};
use tiebeam_exec::{EdgeId, NodeSpec, StageSpec};
use tiebeam_graph::{Graph, NodeKind};
use tiebeam_model::fn_api::{
    Elements, InstructionRequest, ProcessBundleDescriptor, ProcessBundleRequest, ProcessBundleResponse,
    RemoteGrpcPort, StateGetResponse, StateKey, StateRequest, StateResponse, elements,
    instruction_request::Request, instruction_response::Response, state_request, state_response,
};
use tiebeam_model::pipeline::{Coder, FunctionSpec, MonitoringInfo, PCollection, PTransform};
use tiebeam_model::{Message, urns};
use tiebeam_worker::coders::CoderTable;
use tiebeam_worker::{
    FnApi, StagePorts, Steps, Worker, WorkerOptions, describe, monitoring, sink_id, source_id,
};

type Serve = dyn Fn(&StateKey) -> Vec<u8> + Send + Sync;

#[derive(Default)]
pub struct Runner {
    descriptor: Mutex<Option<ProcessBundleDescriptor>>,
    serve: Mutex<Option<Box<Serve>>>,
    inbox: Mutex<VecDeque<Elements>>,
    sent: Mutex<Vec<(String, Elements)>>,
    state_requests: AtomicUsize,
}

impl Runner {
    pub fn with(descriptor: ProcessBundleDescriptor) -> Self {
        Runner { descriptor: Mutex::new(Some(descriptor)), ..Runner::default() }
    }

    pub fn api(self: &Arc<Self>) -> Arc<dyn FnApi> {
        self.clone()
    }

    pub fn replace(&self, descriptor: ProcessBundleDescriptor) {
        *self.descriptor.lock().unwrap() = Some(descriptor);
    }

    /// Answers state requests with these bytes, two at a time.
    pub fn serve(&self, serve: impl Fn(&StateKey) -> Vec<u8> + Send + Sync + 'static) {
        *self.serve.lock().unwrap() = Some(Box::new(serve));
    }

    pub fn push(&self, elements: Elements) {
        self.inbox.lock().unwrap().push_back(elements);
    }

    pub fn take_sent(&self) -> Vec<(String, Elements)> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }

    pub fn state_requests(&self) -> usize {
        self.state_requests.load(Ordering::Relaxed)
    }
}

impl FnApi for Runner {
    fn descriptor(&self, id: &str) -> Result<ProcessBundleDescriptor> {
        let known = self.descriptor.lock().unwrap().clone().filter(|descriptor| descriptor.id == id);
        known.ok_or_else(|| Error::new(ErrorKind::NotFound, "TB0900", format!("no descriptor `{id}`")))
    }

    fn state(&self, request: StateRequest) -> Result<StateResponse> {
        self.state_requests.fetch_add(1, Ordering::Relaxed);
        let serve = self.serve.lock().unwrap();
        let Some(serve) = &*serve else {
            let error = "no such state".to_owned();
            return Ok(StateResponse { id: request.id, error, response: None });
        };
        let whole = Bytes::from(serve(request.state_key.as_ref().unwrap()));
        let Some(state_request::Request::Get(get)) = request.request else { panic!("not a get") };
        let at = if get.continuation_token.is_empty() { 0 } else { usize::from(get.continuation_token[0]) };
        let end = whole.len().min(at + 2);
        let continuation_token = if end < whole.len() { Bytes::from(vec![end as u8]) } else { Bytes::new() };
        let get = StateGetResponse { continuation_token, data: whole.slice(at..end) };
        let response = Some(state_response::Response::Get(get));
        Ok(StateResponse { id: request.id, error: String::new(), response })
    }

    fn receive(&self, instruction_id: &str, _: &str) -> Result<Elements> {
        let next = self.inbox.lock().unwrap().pop_front();
        next.ok_or_else(|| {
            Error::new(ErrorKind::Io, "TB0900", format!("the stream of {instruction_id} ended"))
        })
    }

    fn send(&self, url: &str, elements: Elements) -> Result<()> {
        self.sent.lock().unwrap().push((url.to_owned(), elements));
        Ok(())
    }
}

/// All elements of one source, and its end.
pub fn data(instruction: &str, source: &str, bytes: Bytes) -> Elements {
    let piece = |data: Bytes, is_last| elements::Data {
        instruction_id: instruction.to_owned(),
        transform_id: source.to_owned(),
        data,
        is_last,
    };
    Elements { data: vec![piece(bytes, false), piece(Bytes::new(), true)], timers: Vec::new() }
}

/// What a bundle answered.
#[derive(Debug)]
pub struct Answer {
    data: HashMap<String, Vec<u8>>,
    pub monitoring_infos: Vec<MonitoringInfo>,
}

impl Answer {
    pub fn of(response: ProcessBundleResponse) -> Self {
        let mut data: HashMap<String, Vec<u8>> = HashMap::new();
        for piece in response.elements.unwrap_or_default().data {
            data.entry(piece.transform_id).or_default().extend_from_slice(&piece.data);
        }
        Answer { data, monitoring_infos: response.monitoring_infos }
    }

    pub fn data(&self, sink: &str) -> Vec<u8> {
        self.data.get(sink).cloned().unwrap_or_else(|| panic!("nothing for {sink}, not even its end"))
    }

    /// The payload of the one metric of that kind whose label is a transform or PCollection of that id.
    pub fn payload(&self, urn: &str, of: &str) -> Vec<u8> {
        let is = |info: &&MonitoringInfo| {
            info.urn == urn
                && info.labels.get("NAMESPACE").is_none_or(|namespace| namespace != monitoring::STEPS)
                && ["PTRANSFORM", "PCOLLECTION"].iter().any(|l| info.labels.get(*l).is_some_and(|v| v == of))
        };
        let found: Vec<_> = self.monitoring_infos.iter().filter(is).collect();
        assert_eq!(found.len(), 1, "{urn} of {of}: {:?}", self.monitoring_infos);
        found[0].payload.to_vec()
    }
}

/// The stage of those steps of the graph.
pub fn stage(graph: &Graph, steps: &[&str]) -> StageSpec {
    let nodes = steps.iter().map(|step| {
        let node = graph.nodes.iter().find(|node| &*node.step == *step).unwrap();
        let operator = match &node.kind {
            NodeKind::ParDo(op) | NodeKind::AssignWindows(op) | NodeKind::Flatten(op) => op.clone(),
            other => panic!("{} does not run in a stage", other.name()),
        };
        let outputs = node.outputs.iter().map(|output| output.edge).collect();
        NodeSpec { step: node.step.clone(), operator, inputs: node.inputs.clone(), outputs }
    });
    spec_of(graph, nodes.collect(), &[])
}

pub fn spec_of(graph: &Graph, nodes: Vec<NodeSpec>, more: &[EdgeId]) -> StageSpec {
    let used = |edge: &EdgeId| {
        more.contains(edge)
            || nodes.iter().any(|node| node.inputs.contains(edge) || node.outputs.contains(edge))
    };
    let edges = graph.edges.iter().filter(|edge| used(&edge.id)).cloned().collect();
    StageSpec { name: "test".into(), nodes, edges }
}

fn add_coders(descriptor: &mut ProcessBundleDescriptor, spec: &CoderSpec, prefix: &str) -> String {
    let mut table = CoderTable::default();
    let id = table.id(spec);
    let name = |id: &str| format!("{prefix}-{id}");
    for (id, coder) in table.into_coders() {
        let component_coder_ids = coder.component_coder_ids.iter().map(|id| name(id)).collect();
        descriptor.coders.insert(name(&id), Coder { component_coder_ids, ..coder });
    }
    name(&id)
}

/// Makes a port read or write elements by that coder.
pub fn set_port_coder(
    descriptor: &mut ProcessBundleDescriptor,
    port: &str,
    element: &CoderSpec,
    window: &str,
) {
    let spec = CoderSpec::of(urns::coder::WINDOWED_VALUE, [element.clone(), CoderSpec::leaf(window)]);
    set_whole_port_coder(descriptor, port, &spec);
}

pub fn set_whole_port_coder(descriptor: &mut ProcessBundleDescriptor, port: &str, spec: &CoderSpec) {
    let coder_id = add_coders(descriptor, spec, port);
    let function = descriptor.transforms.get_mut(port).unwrap().spec.as_mut().unwrap();
    let payload = RemoteGrpcPort::decode(function.payload.as_ref()).unwrap();
    function.payload = RemoteGrpcPort { coder_id, ..payload }.encode_to_vec().into();
}

pub fn set_pcollection_coder(descriptor: &mut ProcessBundleDescriptor, id: &str, spec: &CoderSpec) {
    let coder_id = add_coders(descriptor, spec, id);
    descriptor.pcollections.get_mut(id).unwrap().coder_id = coder_id;
}

pub fn other_id(id: &str) -> String {
    format!("x-{}-{}", id.len(), id.chars().rev().collect::<String>())
}

/// The same stage with every id and every unique name changed, as runners do.
pub fn renamed(descriptor: &ProcessBundleDescriptor) -> ProcessBundleDescriptor {
    let ids = |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| (k.clone(), other_id(v))).collect();
    let transforms = descriptor.transforms.iter().map(|(id, transform)| {
        let renamed = PTransform {
            unique_name: other_id(&transform.unique_name),
            inputs: ids(&transform.inputs),
            outputs: ids(&transform.outputs),
            ..transform.clone()
        };
        (other_id(id), renamed)
    });
    let pcollections = descriptor.pcollections.iter().map(|(id, pcollection)| {
        (other_id(id), PCollection { unique_name: other_id(&pcollection.unique_name), ..pcollection.clone() })
    });
    ProcessBundleDescriptor {
        transforms: transforms.collect(),
        pcollections: pcollections.collect(),
        ..descriptor.clone()
    }
}

/// Puts a transform of one input and output in front of the main input of another.
pub fn insert_before(
    descriptor: &mut ProcessBundleDescriptor,
    at: &str,
    id: &str,
    urn: &str,
    payload: Vec<u8>,
) {
    let input = descriptor.transforms[at].inputs.iter().next().map(|(k, v)| (k.clone(), v.clone())).unwrap();
    let between = format!("before-{at}");
    let like = descriptor.pcollections[&input.1].clone();
    descriptor.pcollections.insert(between.clone(), PCollection { unique_name: between.clone(), ..like });
    descriptor.transforms.get_mut(at).unwrap().inputs.insert(input.0, between.clone());
    descriptor.transforms.insert(
        id.to_owned(),
        PTransform {
            unique_name: id.to_owned(),
            spec: Some(FunctionSpec { urn: urn.to_owned(), payload: payload.into() }),
            inputs: BTreeMap::from([("in".to_owned(), input.1)]),
            outputs: BTreeMap::from([("out".to_owned(), between)]),
            ..PTransform::default()
        },
    );
}

/// Runs one piece of a combine over those bytes, and gives its output's.
pub fn combine_piece(graph: &Arc<Graph>, step: &str, urn: &str, input: Bytes) -> Vec<u8> {
    let (worker, descriptor) = combine_stage(graph, step, urn);
    let runner = Arc::new(Runner::with(descriptor));
    let answer = run(&worker, &runner, EdgeId(100), input).unwrap();
    answer.data(&sink_id(EdgeId(101)))
}

/// One piece of a combine as a stage of its own, from edge 100 to edge 101.
pub fn combine_stage(graph: &Arc<Graph>, step: &str, urn: &str) -> (Worker, ProcessBundleDescriptor) {
    let node = graph.nodes.iter().find(|node| &*node.step == step).unwrap();
    let NodeKind::CombinePerKey(parts) = &node.kind else { panic!("not a combine") };
    let own = |edge: EdgeId| graph.edge(edge).unwrap().edge_type.clone();
    let (from, to) = (own(node.inputs[0]), own(node.outputs[0].edge));
    let accumulators = || parts.accumulators.clone();
    let (operator, from, to) = match urn {
        urns::transform::COMBINE_PRECOMBINE => (&parts.precombine, from, accumulators()),
        urns::transform::COMBINE_CONVERT_TO_ACCUMULATORS => (&parts.convert, from, accumulators()),
        urns::transform::COMBINE_MERGE_ACCUMULATORS => {
            (&parts.merge, parts.accumulator_group.grouped_edge(), accumulators())
        }
        urns::transform::COMBINE_EXTRACT_OUTPUTS => (&parts.extract, accumulators(), to),
        _ => (&parts.combine_grouped, parts.input_group.grouped_edge(), to),
    };
    let windowing = graph.edge(node.inputs[0]).unwrap().windowing.clone();
    let edge = |id, edge_type| tiebeam_exec::EdgeSpec {
        id: EdgeId(id),
        name: format!("edge {id}").into(),
        edge_type,
        windowing: windowing.clone(),
    };
    let spec = StageSpec {
        name: "piece".into(),
        nodes: vec![NodeSpec {
            step: step.into(),
            operator: operator.clone(),
            inputs: vec![EdgeId(100)],
            outputs: vec![EdgeId(101)],
        }],
        edges: vec![edge(100, from), edge(101, to)],
    };
    let options = WorkerOptions { embed_output: true, ..WorkerOptions::default() };
    let worker = Worker::new(graph.clone(), options);
    let ports = StagePorts {
        id: "stage".to_owned(),
        sources: vec![EdgeId(100)],
        sinks: vec![EdgeId(101)],
        url: String::new(),
    };
    let descriptor = describe(&spec, &ports, worker.steps()).unwrap();
    assert_eq!(descriptor.transforms["t0"].spec.as_ref().unwrap().urn, urn);
    (worker, descriptor)
}

/// source ─► map windows to those of `side` ─► sink.
pub fn map_windows_stage(side: &dyn WindowFn) -> ProcessBundleDescriptor {
    let mut table = CoderTable::default();
    let pair = CoderSpec::of(
        urns::coder::KV,
        [CoderSpec::leaf(urns::coder::BYTES), CoderSpec::leaf(urns::coder::INTERVAL_WINDOW)],
    );
    let element = table.id(&pair);
    let port = table
        .id(&CoderSpec::of(urns::coder::WINDOWED_VALUE, [pair, CoderSpec::leaf(urns::coder::GLOBAL_WINDOW)]));
    let port = RemoteGrpcPort { api_service_descriptor: None, coder_id: port }.encode_to_vec();
    let mapping = FunctionSpec {
        urn: urns::own::WINDOW_MAPPING_FN.to_owned(),
        payload: tiebeam_worker::windowing::window_fn_to_proto(side).encode_to_vec().into(),
    };
    let transform = |urn: &str, payload: Vec<u8>, input: Option<&str>, output: Option<&str>| PTransform {
        spec: Some(FunctionSpec { urn: urn.to_owned(), payload: payload.into() }),
        inputs: input.map(|id| ("in".to_owned(), id.to_owned())).into_iter().collect(),
        outputs: output.map(|id| ("out".to_owned(), id.to_owned())).into_iter().collect(),
        ..PTransform::default()
    };
    let pcollection = PCollection { coder_id: element, ..PCollection::default() };
    ProcessBundleDescriptor {
        id: "stage".to_owned(),
        transforms: BTreeMap::from([
            ("source".to_owned(), transform(urns::transform::DATA_SOURCE, port.clone(), None, Some("a"))),
            (
                "map".to_owned(),
                transform(urns::transform::MAP_WINDOWS, mapping.encode_to_vec(), Some("a"), Some("b")),
            ),
            ("sink".to_owned(), transform(urns::transform::DATA_SINK, port, Some("b"), None)),
        ]),
        pcollections: BTreeMap::from([("a".to_owned(), pcollection.clone()), ("b".to_owned(), pcollection)]),
        coders: table.into_coders(),
        ..ProcessBundleDescriptor::default()
    }
}

/// The window coder's URN of the global window.
pub const GLOBAL: &str = "beam:coder:global_window:v1";

pub fn embedding() -> WorkerOptions {
    WorkerOptions { embed_output: true, ..WorkerOptions::default() }
}

pub fn edge_of(graph: &Graph, step: &str) -> EdgeId {
    graph.nodes.iter().find(|node| &*node.step == step).unwrap().outputs[0].edge
}

pub fn input_of(graph: &Graph, step: &str) -> EdgeId {
    graph.nodes.iter().find(|node| &*node.step == step).unwrap().inputs[0]
}

/// A worker for `graph`, and a runner that knows one stage of it: those steps, in from the first's input, out at the edges.
pub fn connected(
    graph: &Arc<Graph>,
    steps: &[&str],
    out: &[EdgeId],
) -> (Worker, Arc<Runner>, ProcessBundleDescriptor) {
    let worker = Worker::new(graph.clone(), embedding());
    let descriptor = described(worker.steps(), steps, out);
    let runner = Arc::new(Runner::with(descriptor.clone()));
    (worker, runner, descriptor)
}

/// The stage of those steps as a runner tells it, in from the first's input, out at the edges.
pub fn described(all: &Steps, steps: &[&str], out: &[EdgeId]) -> ProcessBundleDescriptor {
    let graph = all.graph();
    let ports = StagePorts {
        id: "stage".to_owned(),
        sources: vec![input_of(graph, steps[0])],
        sinks: out.to_vec(),
        url: "data".to_owned(),
    };
    describe(&stage(graph, steps), &ports, all).unwrap()
}

pub fn encoded<T: 'static>(coder: ElementCoder<T>, window: &str, elements: &[(T, WindowInfo)]) -> Bytes {
    let coder = WindowedValueCoder::new(coder, &CoderSpec::leaf(window)).unwrap();
    let mut bytes = Vec::new();
    for (value, info) in elements {
        coder.encode(value, info, &mut bytes, Nesting::Nested).unwrap();
    }
    bytes.into()
}

pub fn decoded<T: 'static>(
    coder: ElementCoder<T>,
    window: &str,
    bytes: impl Into<Bytes>,
) -> Vec<(T, WindowInfo)> {
    let coder = WindowedValueCoder::new(coder, &CoderSpec::leaf(window)).unwrap();
    let mut reader = Reader::new(bytes);
    let mut elements = Vec::new();
    while !reader.is_empty() {
        elements.push(coder.decode(&mut reader, Nesting::Nested).unwrap());
    }
    elements
}

pub fn global<T: Clone>(values: &[T]) -> Vec<(T, WindowInfo)> {
    values.iter().map(|value| (value.clone(), WindowInfo::GLOBAL)).collect()
}

pub fn bundle(id: &str, elements: Elements) -> InstructionRequest {
    let request = ProcessBundleRequest {
        process_bundle_descriptor_id: "stage".to_owned(),
        elements: Some(elements),
        ..ProcessBundleRequest::default()
    };
    InstructionRequest { instruction_id: id.to_owned(), request: Some(Request::ProcessBundle(request)) }
}

/// Runs a bundle of one source and gives the bytes of each sink with the metrics, or the error's text.
pub fn run(worker: &Worker, runner: &Arc<Runner>, source: EdgeId, input: Bytes) -> Result<Answer, String> {
    let response = worker.handle(bundle("b1", data("b1", &source_id(source), input)), &runner.api());
    assert_eq!(response.instruction_id, "b1");
    match response.response {
        Some(Response::ProcessBundle(bundle)) if response.error.is_empty() => Ok(Answer::of(bundle)),
        None => Err(response.error),
        other => panic!("neither an answer nor an error: {other:?}"),
    }
}

pub fn words(words: &[&str]) -> Bytes {
    encoded(String::coder(), GLOBAL, &global(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()))
}
