//! How a stage's bundles are executed: directly, or by whatever a test puts in its place.

use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::metrics::{MetricKey, MetricValue};
use tiebeam_core::{Batch, Error, Result, WindowInfo};
use tiebeam_exec::edge::BatchReceiver;
use tiebeam_exec::{AnyReceiver, EdgeId, GroupReader, Harness, Stage, StepStats};
use tiebeam_plan::{PlanStage, Root};

use crate::bundles::Work;
use crate::groups::read_groups;

/// Opens stages for execution.
pub trait StageExecutor: Send + Sync {
    /// An instance for one thread. `sinks` take what leaves the stage, in the order of its outputs.
    ///
    /// # Errors
    /// Those of wiring.
    fn open(
        &self,
        stage: &PlanStage,
        sinks: Vec<(EdgeId, AnyReceiver)>,
        harness: &Arc<dyn Harness>,
    ) -> Result<Box<dyn OpenStage>>;
}

/// An instance of a stage, used by one thread.
pub trait OpenStage {
    /// Runs one bundle. After an error the instance is not used again.
    ///
    /// # Errors
    /// The bundle's.
    fn run_bundle(&mut self, work: &Work) -> Result<()>;

    /// The metrics since the last call.
    fn drain_metrics(&mut self) -> Vec<(MetricKey, MetricValue)>;

    /// What went through since the last call.
    fn drain_stats(&mut self) -> StepStats;
}

/// Puts a bundle's work into a stage's first edge.
pub struct Feeder(Into);

enum Into {
    Batches(Box<dyn BatchReceiver>),
    Groups(Box<dyn GroupReader>),
}

impl Feeder {
    /// Into a receiver of the stage's first edge.
    ///
    /// # Errors
    /// An internal one when the receiver is of another type.
    pub fn new(stage: &PlanStage, into: AnyReceiver) -> Result<Self> {
        Ok(Feeder(match &stage.root {
            Root::Impulse(edge) | Root::Read { edge, .. } => {
                Into::Batches(stage.spec.edge(*edge)?.edge_type.replayer(into)?)
            }
            Root::Groups { group, .. } => Into::Groups(group.reader(into)?),
        }))
    }

    /// Feeds it all.
    ///
    /// # Errors
    /// Those of the stage.
    pub fn feed(&mut self, work: &Work) -> Result<()> {
        match (&mut self.0, work) {
            (Into::Batches(receiver), Work::Impulse) => {
                receiver.receive(&Batch::uniform(vec![Bytes::new()], WindowInfo::GLOBAL))
            }
            (Into::Batches(receiver), Work::Elements(pieces)) => pieces.iter().try_for_each(|piece| {
                piece.part.each(piece.range.clone(), &mut |batch| receiver.receive(batch))
            }),
            (Into::Groups(reader), Work::Groups(blocks, windowing)) => {
                read_groups(blocks, windowing, &mut **reader)
            }
            _ => Err(Error::internal("a bundle's work does not fit its stage")),
        }
    }
}

/// Executes stages as they are: the everyday way.
pub struct DirectExecutor;

struct DirectStage {
    stage: Stage,
    feeder: Feeder,
}

impl StageExecutor for DirectExecutor {
    fn open(
        &self,
        stage: &PlanStage,
        sinks: Vec<(EdgeId, AnyReceiver)>,
        harness: &Arc<dyn Harness>,
    ) -> Result<Box<dyn OpenStage>> {
        let mut instance = Stage::build(&stage.spec, sinks, harness)?;
        let feeder = Feeder::new(stage, instance.take_root(stage.root.edge())?)?;
        Ok(Box::new(DirectStage { stage: instance, feeder }))
    }
}

impl OpenStage for DirectStage {
    fn run_bundle(&mut self, work: &Work) -> Result<()> {
        let DirectStage { stage, feeder } = self;
        stage.run_bundle(|| feeder.feed(work))
    }

    fn drain_metrics(&mut self) -> Vec<(MetricKey, MetricValue)> {
        self.stage.metrics().drain()
    }

    fn drain_stats(&mut self) -> StepStats {
        self.stage.drain_stats()
    }
}
