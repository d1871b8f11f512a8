//! One wired instance of a stage, and what goes in and out of it during a bundle.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tiebeam_core::coder::IterableState;
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_exec::edge::EncodedReceiver;
use tiebeam_exec::{EdgeId, EncodedSink, Harness, Stage};
use tiebeam_model::fn_api::{Elements, elements};
use tiebeam_model::pipeline::MonitoringInfo;

use crate::harness::{BundleChannel, WorkerHarness, now};
use crate::lower::{Lowered, Port};
use crate::monitoring;

/// Output of all sinks of a bundle, gathered into pieces.
struct Outbox {
    channel: Option<BundleChannel>,
    /// Whether output goes into the answer and not onto the data stream.
    embed: bool,
    /// Bytes of one sink at which a piece is sent.
    piece: usize,
    ports: Vec<(String, String, Vec<u8>)>,
    embedded: Elements,
}

impl Outbox {
    fn begin(&mut self, channel: BundleChannel) {
        self.channel = Some(channel);
        self.embedded = Elements::default();
        self.ports.iter_mut().for_each(|(.., buffer)| buffer.clear());
    }

    fn data(&self, port: usize, data: Vec<u8>, is_last: bool) -> elements::Data {
        let instruction_id = self.channel.as_ref().map(|c| c.instruction.to_string()).unwrap_or_default();
        elements::Data {
            instruction_id,
            transform_id: self.ports[port].0.clone(),
            data: data.into(),
            is_last,
        }
    }

    fn send(&mut self, port: usize, is_last: bool) -> Result<()> {
        let buffer = mem::take(&mut self.ports[port].2);
        let mut data = Vec::with_capacity(2);
        if !buffer.is_empty() {
            data.push(self.data(port, buffer, false));
        }
        if is_last {
            data.push(self.data(port, Vec::new(), true));
        }
        if self.embed {
            self.embedded.data.extend(data);
            return Ok(());
        }
        let channel = self.channel.as_ref().ok_or_else(|| Error::internal("output outside a bundle"))?;
        channel.api.send(&self.ports[port].1, Elements { data, timers: Vec::new() })
    }

    /// Sends what is left of every sink and closes it.
    fn finish(&mut self) -> Result<Option<Elements>> {
        for port in 0..self.ports.len() {
            self.send(port, true)?;
        }
        Ok(self.embed.then(|| mem::take(&mut self.embedded)))
    }
}

/// The end of a stage at one sink.
struct PortSink {
    outbox: Arc<Mutex<Outbox>>,
    port: usize,
}

impl EncodedSink for PortSink {
    fn accept(&mut self, encoded: &[u8], _: usize) -> Result<()> {
        let mut outbox = lock(&self.outbox);
        let buffer = &mut outbox.ports[self.port].2;
        buffer.extend_from_slice(encoded);
        if buffer.len() >= outbox.piece { outbox.send(self.port, false) } else { Ok(()) }
    }
}

struct Source {
    port: Port,
    /// None where nothing in the stage reads the source.
    receiver: Option<Box<dyn EncodedReceiver>>,
}

/// A stage that is wired to its ports; used for one bundle after another.
pub(crate) struct Instance {
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
    pub(crate) fn new(lowered: &Lowered, embed: bool, piece: usize) -> Result<Instance> {
        let harness = Arc::new(WorkerHarness::new(lowered.sides.clone()));
        let ports =
            lowered.sinks.iter().map(|sink| (sink.transform.clone(), sink.url.clone(), Vec::new())).collect();
        let embedded = Elements::default();
        let outbox = Arc::new(Mutex::new(Outbox { channel: None, embed, piece, ports, embedded }));
        let mut sinks = Vec::with_capacity(lowered.sinks.len());
        for (port, sink) in lowered.sinks.iter().enumerate() {
            let edge_type = lowered.spec.edge(sink.edge)?.edge_type.with_coder(&sink.element)?;
            let to = PortSink { outbox: outbox.clone(), port };
            sinks.push((sink.edge, edge_type.encoder(&sink.window, Box::new(to))?));
        }
        let as_harness: Arc<dyn Harness> = harness.clone();
        let mut stage = Stage::build(&lowered.spec, sinks, &as_harness)?;
        let mut sources = Vec::with_capacity(lowered.sources.len());
        for port in &lowered.sources {
            let is_read = lowered.spec.nodes.iter().any(|node| node.inputs.contains(&port.edge))
                || lowered.sinks.iter().any(|sink| sink.edge == port.edge);
            let receiver = if is_read {
                let edge_type = lowered.spec.edge(port.edge)?.edge_type.with_coder(&port.element)?;
                Some(edge_type.decoder(&port.window, stage.take_root(port.edge)?)?)
            } else {
                None
            };
            sources.push(Source { port: port.clone(), receiver });
        }
        Ok(Instance { stage, sources, outbox, harness })
    }

    /// Runs one bundle. After an error the instance must not be used again.
    pub(crate) fn run(
        &mut self,
        channel: BundleChannel,
        embedded: Option<Elements>,
        lowered: &Lowered,
    ) -> Result<Done> {
        let Instance { stage, sources, outbox, harness } = self;
        harness.begin(channel.clone());
        lock(outbox).begin(channel.clone());
        let fed = stage.run_bundle(|| feed(sources, &channel, embedded));
        if let Err(error) = fed {
            // What a failed bundle counted must not be counted again when it is retried.
            stage.metrics().drain();
            return Err(error);
        }
        let embedded = lock(outbox).finish()?;
        Ok(Done { embedded, monitoring_infos: self.monitoring_infos(lowered) })
    }

    fn monitoring_infos(&self, lowered: &Lowered) -> Vec<MonitoringInfo> {
        let mut infos = Vec::new();
        let stats = self.stage.drain_stats();
        let counts: HashMap<_, _> = stats.elements.into_iter().collect();
        for (edge, count) in &counts {
            if let Some(pcollection) = lowered.pcollections.get(edge) {
                infos.push(monitoring::element_count(pcollection, *count));
            }
        }
        for source in &self.sources {
            let count = counts.get(&source.port.edge).copied().unwrap_or_default();
            infos.push(monitoring::read_index(&source.port.transform, count));
        }
        for (step, nanos) in stats.nanos {
            if let Some(transform) = lowered.transforms.get(&step) {
                infos.push(monitoring::total_msecs(transform, nanos));
                infos.extend(monitoring::step_count(transform, "nanos", &step, nanos));
            }
        }
        for node in &lowered.spec.nodes {
            let Some(transform) = lowered.transforms.get(&node.step) else { continue };
            let count = |edge: &EdgeId| counts.get(edge).copied().unwrap_or_default();
            let read = node.inputs.iter().map(count).sum();
            infos.extend(monitoring::step_count(transform, "in", &node.step, read));
            for (i, edge) in node.outputs.iter().enumerate() {
                infos.extend(monitoring::step_count(transform, &format!("out{i}"), &node.step, count(edge)));
            }
        }
        let now = now().millis();
        for (key, value) in self.stage.metrics().drain() {
            if let Some(transform) = lowered.transforms.get(&key.step) {
                infos.push(monitoring::user(transform, &key, &value, now));
            }
        }
        infos
    }
}

/// Pushes all input into the stage: what came with the request first, then what the data streams bring, until every source
/// is closed.
fn feed(sources: &mut [Source], channel: &BundleChannel, embedded: Option<Elements>) -> Result<()> {
    let state: Arc<dyn IterableState> = Arc::new(channel.clone());
    let mut open: Vec<usize> = (0..sources.len()).collect();
    let mut next = embedded;
    loop {
        for data in next.take().into_iter().flat_map(take_data) {
            let (transform, bytes, is_last) = data?;
            let source =
                sources.iter().position(|source| source.port.transform == transform).ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidData,
                        "TB0548",
                        format!(
                            "elements came for transform `{transform}`, which is no source of this stage"
                        ),
                    )
                })?;
            if !open.contains(&source) {
                return Err(Error::new(
                    ErrorKind::InvalidData,
                    "TB0548",
                    format!("elements came for source `{transform}` after its last"),
                ));
            }
            if let Some(receiver) = &mut sources[source].receiver
                && !bytes.is_empty()
            {
                receiver.receive(bytes, Some(state.clone()))?;
            }
            if is_last {
                open.retain(|other| *other != source);
            }
        }
        let Some(waiting) = open.first() else { return Ok(()) };
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
