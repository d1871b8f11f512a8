//! One wired instance of a stage, and what goes in and out of it during a bundle.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tiebeam_core::coder::IterableState;
use tiebeam_core::{Error, ErrorKind, Result, RunId};
use tiebeam_exec::edge::EncodedReceiver;
use tiebeam_exec::{Harness, Stage, Tap};
use tiebeam_model::fn_api::Elements;
use tiebeam_model::pipeline::MonitoringInfo;

use crate::gate::ReadGate;
use crate::harness::{BundleChannel, WorkerHarness};
use crate::lower::{Lowered, Port};
use crate::monitoring::{Counted, monitoring_infos};
use crate::outbox::{Outbox, PortSink, lock};
use crate::running::Running;
use crate::sampling::Sampler;
use crate::worker::WorkerOptions;

struct Source {
    port: Port,
    gate: Arc<ReadGate>,
    /// None where nothing in the stage reads the source.
    receiver: Option<Box<dyn EncodedReceiver>>,
}

/// A stage that is wired to its ports; used for one bundle after another.
pub(crate) struct Instance {
    lowered: Arc<Lowered>,
    stage: Stage,
    sources: Vec<Source>,
    outbox: Arc<Mutex<Outbox>>,
    harness: Arc<WorkerHarness>,
}

/// What a bundle brought beside its output on the data stream.
pub(crate) struct Done {
    pub(crate) embedded: Option<Elements>,
    pub(crate) monitoring_infos: Vec<MonitoringInfo>,
}

impl Instance {
    /// Wires a stage.
    pub(crate) fn new(
        lowered: &Arc<Lowered>,
        options: &WorkerOptions,
        sampler: Option<&Sampler>,
        run: RunId,
    ) -> Result<Instance> {
        let harness = Arc::new(WorkerHarness::new(lowered.sides.clone(), run));
        let outbox = Outbox::new(&lowered.sinks, options.embed_output, options.piece);
        let outbox = Arc::new(Mutex::new(outbox));
        let mut sinks = Vec::with_capacity(lowered.sinks.len());
        for (port, sink) in lowered.sinks.iter().enumerate() {
            let edge_type = lowered.spec.edge(sink.edge)?.edge_type.with_coder(&sink.element)?;
            let to = PortSink { outbox: outbox.clone(), port };
            sinks.push((sink.edge, edge_type.encoder(&sink.window, Box::new(to))?));
        }
        let as_harness: Arc<dyn Harness> = harness.clone();
        let mut stage = Stage::build_tapped(&lowered.spec, sinks, &as_harness, &|edge| {
            sampler.and_then(|sampler| sampler.tap(lowered, edge))
        })?;
        let mut sources = Vec::with_capacity(lowered.sources.len());
        for port in &lowered.sources {
            let is_read = lowered.spec.nodes.iter().any(|node| node.inputs.contains(&port.edge))
                || lowered.sinks.iter().any(|sink| sink.edge == port.edge);
            let gate = Arc::new(ReadGate::default());
            let receiver = if is_read {
                let edge_type = lowered.spec.edge(port.edge)?.edge_type.with_coder(&port.element)?;
                let tap: Arc<dyn Tap> = gate.clone();
                let into = edge_type.tapped(stage.take_root(port.edge)?, tap)?;
                Some(edge_type.decoder(&port.window, into)?)
            } else {
                None
            };
            sources.push(Source { port: port.clone(), gate, receiver });
        }
        Ok(Instance { lowered: lowered.clone(), stage, sources, outbox, harness })
    }

    /// Opens the instance for a bundle, and gives what others find it by.
    pub(crate) fn begin(&self) -> Arc<Running> {
        self.sources.iter().for_each(|source| source.gate.open());
        let gates = self.sources.iter().filter(|source| source.receiver.is_some());
        let gates = gates.map(|source| (source.port.transform.clone(), source.gate.clone())).collect();
        Arc::new(Running::new(self.lowered.clone(), self.stage.watch(), gates))
    }

    /// Runs the bundle that was begun. After an error the instance must not be used again.
    pub(crate) fn run(
        &mut self,
        channel: BundleChannel,
        embedded: Option<Elements>,
        running: &Running,
    ) -> Result<Done> {
        let Instance { stage, sources, outbox, harness, .. } = self;
        harness.begin(channel.clone());
        lock(outbox).begin(channel.clone());
        stage.run_bundle(|| feed(sources, &channel, embedded, running))?;
        let embedded = lock(outbox).finish()?;
        running.end();
        let stats = self.stage.drain_stats();
        let counts: HashMap<_, _> = stats.elements.iter().copied().collect();
        let count = |source: &Source| counts.get(&source.port.edge).copied().unwrap_or_default();
        let read = self.sources.iter().map(|source| (source.port.transform.clone(), count(source))).collect();
        let counted = Counted { stats, metrics: self.stage.metrics().drain(), read };
        Ok(Done { embedded, monitoring_infos: monitoring_infos(&self.lowered, counted) })
    }
}

/// Pushes all input into the stage: what came with the request first, then what the data streams bring, until every source
/// is closed. What lies behind a split is taken from the streams, too, and goes nowhere.
fn feed(
    sources: &mut [Source],
    channel: &BundleChannel,
    embedded: Option<Elements>,
    running: &Running,
) -> Result<()> {
    let state: Arc<dyn IterableState> = Arc::new(channel.clone());
    let mut open: Vec<usize> = (0..sources.len()).collect();
    let mut next = embedded;
    loop {
        running.consuming.store(true, Ordering::Relaxed);
        for data in next.take().into_iter().flat_map(take_data) {
            let (transform, bytes, is_last) = data?;
            let source = sources.iter().position(|source| source.port.transform == transform);
            let source = source.ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidData,
                    "TB0548",
                    format!("elements came for transform `{transform}`, which is no source of this stage"),
                )
            })?;
            if !open.contains(&source) {
                return Err(Error::new(
                    ErrorKind::InvalidData,
                    "TB0548",
                    format!("elements came for source `{transform}` after its last"),
                ));
            }
            let Source { gate, receiver, .. } = &mut sources[source];
            if let Some(receiver) = receiver
                && !bytes.is_empty()
                && !gate.has_stopped()
            {
                receiver.receive(bytes, Some(state.clone()))?;
            }
            if is_last {
                gate.close();
                open.retain(|other| *other != source);
            }
        }
        let Some(waiting) = open.first() else { return Ok(()) };
        running.consuming.store(false, Ordering::Relaxed);
        next = Some(channel.api.receive(&channel.instruction, &sources[*waiting].port.url)?);
    }
}

/// The pieces of data in a message; timers that fire are an error, for no operator sets any.
fn take_data(elements: Elements) -> Vec<Result<(String, Bytes, bool)>> {
    let fired = elements.timers.into_iter().find(|timers| !timers.timers.is_empty()).map(|timers| {
        Err(Error::new(
            ErrorKind::Unsupported,
            "TB0548",
            format!("timers came for transform `{}`, which sets none", timers.transform_id),
        ))
    });
    let data = elements.data.into_iter().map(|data| Ok((data.transform_id, data.data, data.is_last)));
    fired.into_iter().chain(data).collect()
}
