//! [`WorkerExecutor`]: the embedded runner's stages, executed by a Fn API worker in this process.
//!
//! Each stage becomes a bundle descriptor and each bundle's input a message, the worker answers with messages, and what it
//! answers goes on to where the runner wants it. Side inputs go through state requests, a few bytes a page.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tiebeam_core::coder::WindowCoder;
use tiebeam_core::metrics::{MetricKey, MetricValue};
use tiebeam_core::{Error, ErrorKind, Reader, Result, RunId};
use tiebeam_exec::edge::EncodedReceiver;
use tiebeam_exec::{
    AnyReceiver, EdgeId, EncodedSink, EncodedValues, Harness, SideInputSpec, SideValues, StepStats,
};
use tiebeam_graph::Graph;
use tiebeam_model::fn_api::{
    Elements, ProcessBundleDescriptor, ProcessBundleRequest, StateGetResponse, StateKey, StateRequest,
    StateResponse, elements, state_key, state_request, state_response,
};
use tiebeam_model::pipeline::MonitoringInfo;
use tiebeam_model::urns::{label, metric};
use tiebeam_plan::PlanStage;
use tiebeam_runner::{Feeder, OpenStage, StageExecutor, Work};
use tiebeam_worker::{
    FnApi, StagePorts, Steps, Worker, WorkerOptions, describe, monitoring, port_coders, sink_id, source_id,
};

/// Bytes of state in one answer: few, so that values are cut by the end of a page.
const PAGE: usize = 50;
/// Bytes of output in one piece: few, so that some bundles put theirs into the answer and others send it before.
const PIECE: usize = 2_000;

/// Executes stages by a worker that has built the same graph.
pub struct WorkerExecutor {
    /// The runner's view of the pipeline, which descriptors are made of.
    steps: Steps,
    /// The worker's own build of the pipeline.
    again: Arc<Graph>,
    /// Made for the first stage, which tells the run.
    worker: OnceLock<Arc<Worker>>,
    descriptors: Arc<Mutex<HashMap<String, ProcessBundleDescriptor>>>,
    bundles: Arc<AtomicUsize>,
}

impl WorkerExecutor {
    /// For a runner of `graph`, with a worker of `again`: the same pipeline built a second time, as a worker elsewhere
    /// builds it.
    pub fn new(graph: Arc<Graph>, again: Arc<Graph>) -> Self {
        WorkerExecutor {
            steps: Steps::new(graph),
            again,
            worker: OnceLock::new(),
            descriptors: Arc::default(),
            bundles: Arc::default(),
        }
    }

    fn worker(&self, run: RunId) -> Arc<Worker> {
        let options = WorkerOptions { embed_output: true, piece: PIECE, ..WorkerOptions::default() };
        let make = || Arc::new(Worker::of(Steps::new(self.again.clone()).of_run(run), None, options));
        self.worker.get_or_init(make).clone()
    }
}

impl StageExecutor for WorkerExecutor {
    fn open(
        &self,
        stage: &PlanStage,
        sinks: Vec<(EdgeId, AnyReceiver)>,
        harness: &Arc<dyn Harness>,
    ) -> Result<Box<dyn OpenStage>> {
        let spec = &stage.spec;
        let root = stage.root.edge();
        let mut of_edge: Vec<(EdgeId, Vec<AnyReceiver>)> = Vec::new();
        for (edge, sink) in sinks {
            match of_edge.iter_mut().find(|(known, _)| *known == edge) {
                Some((_, sinks)) => sinks.push(sink),
                None => of_edge.push((edge, vec![sink])),
            }
        }
        let out: Vec<EdgeId> = of_edge.iter().map(|(edge, _)| *edge).collect();
        let id = format!("{} from {} to {out:?}", spec.name, root.0);
        // Every instance describes the stage again, and finds it described alike.
        let ports =
            StagePorts { id: id.clone(), sources: vec![root], sinks: out, url: "in-process".to_owned() };
        let descriptor = describe(spec, &ports, &self.steps)?;
        lock(&self.descriptors).entry(id.clone()).or_insert(descriptor);

        let mut decoders = HashMap::new();
        for (edge, sinks) in of_edge {
            let edge_type = &spec.edge(edge)?.edge_type;
            let (element, window) = port_coders(spec, edge)?;
            let decoder = edge_type.with_coder(&element)?.decoder(&window, edge_type.tee(sinks)?)?;
            decoders.insert(sink_id(edge), decoder);
        }
        let input = Arc::new(Mutex::new(Vec::new()));
        let (element, window) = port_coders(spec, root)?;
        let edge_type = spec.edge(root)?.edge_type.with_coder(&element)?;
        let feeder = Feeder::new(stage, edge_type.encoder(&window, Box::new(Gather(input.clone())))?)?;
        let sides = spec.nodes.iter().flat_map(|node| node.operator.side_inputs());
        let sent = Arc::new(Mutex::new(Vec::new()));
        let api = InProcess {
            descriptors: self.descriptors.clone(),
            harness: harness.clone(),
            sides: sides.map(|side| (side.id.to_string(), side.clone())).collect(),
            sent: sent.clone(),
        };
        Ok(Box::new(WorkerStage {
            worker: self.worker(harness.run()),
            api: Arc::new(api),
            descriptor: id,
            source: source_id(root),
            steps: spec.nodes.iter().map(|node| node.step.clone()).collect(),
            feeder,
            input,
            sent,
            decoders,
            bundles: self.bundles.clone(),
            metrics: Vec::new(),
            stats: StepStats::default(),
        }))
    }
}

/// Keeps a bundle's encoded input.
struct Gather(Arc<Mutex<Vec<u8>>>);

impl EncodedSink for Gather {
    fn accept(&mut self, encoded: &[u8], _: usize) -> Result<()> {
        lock(&self.0).extend_from_slice(encoded);
        Ok(())
    }
}

struct WorkerStage {
    worker: Arc<Worker>,
    api: Arc<dyn FnApi>,
    descriptor: String,
    source: String,
    /// The steps in the order of the descriptor's transforms.
    steps: Vec<Arc<str>>,
    feeder: Feeder,
    input: Arc<Mutex<Vec<u8>>>,
    sent: Arc<Mutex<Vec<elements::Data>>>,
    decoders: HashMap<String, Box<dyn EncodedReceiver>>,
    bundles: Arc<AtomicUsize>,
    metrics: Vec<(MetricKey, MetricValue)>,
    stats: StepStats,
}

impl OpenStage for WorkerStage {
    fn run_bundle(&mut self, work: &Work) -> Result<()> {
        lock(&self.input).clear();
        lock(&self.sent).clear();
        self.feeder.feed(work)?;
        let instruction = format!("bundle-{}", self.bundles.fetch_add(1, Ordering::Relaxed));
        let input = Bytes::from(std::mem::take(&mut *lock(&self.input)));
        let piece = |data: Bytes, is_last| elements::Data {
            instruction_id: instruction.clone(),
            transform_id: self.source.clone(),
            data,
            is_last,
        };
        let elements =
            Elements { data: vec![piece(input, false), piece(Bytes::new(), true)], timers: Vec::new() };
        let request = ProcessBundleRequest {
            process_bundle_descriptor_id: self.descriptor.clone(),
            elements: Some(elements),
            ..ProcessBundleRequest::default()
        };
        let done = self.worker.process_bundle(&instruction, request, &self.api)?;
        let mut open: Vec<&String> = self.decoders.keys().collect();
        let mut data = std::mem::take(&mut *lock(&self.sent));
        match done.elements {
            Some(embedded) if data.is_empty() => data = embedded.data,
            Some(_) => return Err(Error::internal("the worker both sent and embedded output")),
            None => {}
        }
        for piece in &data {
            if piece.is_last {
                open.retain(|sink| **sink != piece.transform_id);
            }
        }
        if let Some(sink) = open.first() {
            return Err(Error::internal(format!("the worker did not close {sink}")));
        }
        for piece in data.into_iter().filter(|piece| !piece.data.is_empty()) {
            let decoder = self.decoders.get_mut(&piece.transform_id);
            let decoder =
                decoder.ok_or_else(|| Error::internal("the worker wrote to a sink that nobody has"))?;
            decoder.receive(piece.data, None)?;
        }
        for info in &done.monitoring_infos {
            self.count(info)?;
        }
        Ok(())
    }

    fn drain_metrics(&mut self) -> Vec<(MetricKey, MetricValue)> {
        std::mem::take(&mut self.metrics)
    }

    fn drain_stats(&mut self) -> StepStats {
        std::mem::take(&mut self.stats)
    }
}

impl WorkerStage {
    /// Reads one of the worker's metrics.
    fn count(&mut self, info: &MonitoringInfo) -> Result<()> {
        let step =
            info.labels.get(label::PTRANSFORM).and_then(|id| id.strip_prefix('t')?.parse::<usize>().ok());
        let step = step.and_then(|index| self.steps.get(index));
        if let Some(value) = monitoring::user_value(info)? {
            let label = |name| info.labels.get(name).map(String::as_str).unwrap_or_default().into();
            if label(label::NAMESPACE) == Arc::from(monitoring::STEPS) {
                return Ok(()); // The same as the element counts and times.
            }
            let step = step.ok_or_else(|| Error::internal(format!("a metric of no step: {info:?}")))?.clone();
            let key = MetricKey { step, namespace: label(label::NAMESPACE), name: label(label::NAME) };
            self.metrics.push((key, value));
            return Ok(());
        }
        let number = Reader::new(info.payload.clone()).varint()?.unsigned_abs();
        match info.urn.as_str() {
            metric::ELEMENT_COUNT => {
                let id =
                    info.labels.get(label::PCOLLECTION).and_then(|id| id.strip_prefix('p')?.parse().ok());
                let id = id.ok_or_else(|| Error::internal(format!("a count of no PCollection: {info:?}")))?;
                self.stats.elements.push((EdgeId(id), number));
            }
            metric::TOTAL_MSECS => {
                if let Some(step) = step {
                    self.stats.nanos.push((step.clone(), number * 1_000_000));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The runner's side, as plain calls.
struct InProcess {
    descriptors: Arc<Mutex<HashMap<String, ProcessBundleDescriptor>>>,
    harness: Arc<dyn Harness>,
    sides: HashMap<String, SideInputSpec>,
    /// What went onto the data stream.
    sent: Arc<Mutex<Vec<elements::Data>>>,
}

impl InProcess {
    fn values(&self, key: Option<StateKey>) -> Result<EncodedValues> {
        let (side_input, window, key) = match key.and_then(|key| key.r#type) {
            Some(state_key::Type::IterableSideInput(side)) => (side.side_input_id, side.window, None),
            Some(state_key::Type::MultimapSideInput(side)) => {
                (side.side_input_id, side.window, Some(side.key))
            }
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "TB0561",
                    format!("state {other:?} is not served"),
                ));
            }
        };
        let side = self.sides.get(&side_input).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidData,
                "TB0561",
                format!("no side input `{side_input}` in this stage"),
            )
        })?;
        let window = WindowCoder::of(&side.window_fn.window_coder())?.decode(&mut Reader::new(window))?;
        let key = match (key, &side.group) {
            (Some(key), Some(group)) => Some(group.outer_key(key)?),
            _ => None,
        };
        match self.harness.side_input(&side_input, &window, key.as_deref())? {
            SideValues::Held(values) => Ok(values),
            // On disk: brought into memory as a whole here, and sent on in pages of another size.
            SideValues::Paged { token, state } => {
                let (mut chunks, mut next) = (Vec::new(), None);
                loop {
                    let (page, more) = state.page(&token, next.as_deref())?;
                    chunks.push(page);
                    next = more;
                    if next.is_none() {
                        return Ok(EncodedValues { chunks: chunks.into(), count: 0 });
                    }
                }
            }
        }
    }
}

impl FnApi for InProcess {
    fn descriptor(&self, id: &str) -> Result<ProcessBundleDescriptor> {
        lock(&self.descriptors)
            .get(id)
            .cloned()
            .ok_or_else(|| Error::internal(format!("stage `{id}` was run before it was opened")))
    }

    fn state(&self, request: StateRequest) -> Result<StateResponse> {
        let Some(state_request::Request::Get(get)) = request.request else {
            return Err(Error::new(ErrorKind::Unsupported, "TB0561", "only reading of state is served"));
        };
        let values = self.values(request.state_key)?;
        let total: usize = values.chunks.iter().map(Bytes::len).sum();
        let at = if get.continuation_token.is_empty() { 0 } else { token(&get.continuation_token)? };
        let end = total.min(at.saturating_add(PAGE));
        let continuation_token = if end < total { Bytes::from(end.to_string()) } else { Bytes::new() };
        // A page of its own: it is kept, and would keep all the others with it.
        let mut page = Vec::with_capacity(end.saturating_sub(at));
        let mut start = 0;
        for chunk in values.chunks.iter() {
            let (from, to) = (at.max(start) - start, end.clamp(start, start + chunk.len()) - start);
            page.extend_from_slice(chunk.get(from..to).unwrap_or_default());
            start += chunk.len();
        }
        let get = StateGetResponse { continuation_token, data: page.into() };
        let response = Some(state_response::Response::Get(get));
        Ok(StateResponse { id: request.id, error: String::new(), response })
    }

    fn send(&self, _: &str, elements: Elements) -> Result<()> {
        lock(&self.sent).extend(elements.data);
        Ok(())
    }

    fn is_cancelled(&self, _: &str) -> bool {
        self.harness.is_cancelled()
    }
}

fn token(token: &[u8]) -> Result<usize> {
    let number = std::str::from_utf8(token).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::internal("a continuation token that was not given out"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
