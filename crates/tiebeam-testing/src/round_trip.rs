//! [`RoundTripExecutor`]: every edge that enters or leaves a stage is encoded and decoded on its way.

use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::Result;
use tiebeam_core::metrics::{MetricKey, MetricValue};
use tiebeam_exec::edge::EncodedReceiver;
use tiebeam_exec::{AnyReceiver, EdgeId, EdgeSpec, EncodedSink, Harness, Stage, StepStats};
use tiebeam_plan::PlanStage;
use tiebeam_runner::{Feeder, OpenStage, StageExecutor, Work};

/// Executes stages with their elements encoded and decoded at both ends. With fusion off, that is every edge.
pub struct RoundTripExecutor;

struct RoundTripStage {
    stage: Stage,
    feeder: Feeder,
}

/// Decodes what was just encoded.
struct Back(Box<dyn EncodedReceiver>);

impl EncodedSink for Back {
    fn accept(&mut self, encoded: &[u8], _: usize) -> Result<()> {
        self.0.receive(Bytes::copy_from_slice(encoded), None)
    }
}

/// A receiver in front of `into` that encodes and decodes.
fn round_trip(edge: &EdgeSpec, into: AnyReceiver) -> Result<AnyReceiver> {
    let window = edge.windowing.window_fn.window_coder();
    let back = edge.edge_type.decoder(&window, into)?;
    edge.edge_type.encoder(&window, Box::new(Back(back)))
}

impl StageExecutor for RoundTripExecutor {
    fn open(
        &self,
        stage: &PlanStage,
        sinks: Vec<(EdgeId, AnyReceiver)>,
        harness: &Arc<dyn Harness>,
    ) -> Result<Box<dyn OpenStage>> {
        let spec = &stage.spec;
        let sinks = sinks
            .into_iter()
            .map(|(edge, into)| Ok((edge, round_trip(spec.edge(edge)?, into)?)))
            .collect::<Result<_>>()?;
        let mut instance = Stage::build(spec, sinks, harness)?;
        let root = stage.root.edge();
        let feeder = Feeder::new(stage, round_trip(spec.edge(root)?, instance.take_root(root)?)?)?;
        Ok(Box::new(RoundTripStage { stage: instance, feeder }))
    }
}

impl OpenStage for RoundTripStage {
    fn run_bundle(&mut self, work: &Work) -> Result<()> {
        let RoundTripStage { stage, feeder } = self;
        stage.run_bundle(|| feeder.feed(work))
    }

    fn drain_metrics(&mut self) -> Vec<(MetricKey, MetricValue)> {
        self.stage.metrics().drain()
    }

    fn drain_stats(&mut self) -> StepStats {
        self.stage.drain_stats()
    }
}
