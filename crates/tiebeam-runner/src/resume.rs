//! Going on with a run: what finished bundles are written down as, and how a stage takes up what earlier processes did.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use tiebeam_core::Result;
use tiebeam_exec::StepStats;
use tiebeam_plan::{Destination, PlanStage};

use crate::aside::Output;
use crate::job::{Job, bundle_number};
use crate::memory::Memory;
use crate::report::MetricEntry;
use crate::shuffle::{Source, Written};
use crate::spill::{Segment, SpillFile};
use crate::state::{Done, DoneOutput, StageState, damaged};
use crate::store::{Chunk, Kept, Part};

/// The program that runs, by its file: another build may compute something else under the same names.
pub(crate) fn program() -> String {
    let found = std::env::current_exe().and_then(|path| Ok((std::fs::metadata(&path)?, path)));
    let Ok((file, path)) = found else { return "unknown".to_owned() };
    let changed = file.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let changed = changed.map_or(0, |since| since.as_nanos());
    format!("{}, {} bytes, changed at {changed}", path.display(), file.len())
}

/// What is written down of a finished bundle.
pub(crate) fn done(stats: &StepStats, metrics: &[MetricEntry], outputs: &[Output]) -> Done {
    let place = |segment: &Segment| (segment.at, segment.len);
    let output = |output: &Output| match output {
        Output::Batches(kept) => DoneOutput::Chunks(
            kept.parts
                .iter()
                .filter_map(|part| match part {
                    Part::Chunk(chunk) => Some((chunk.segment.at, chunk.segment.len, chunk.count as u64)),
                    // All was written before.
                    Part::Held(_) => None,
                })
                .collect(),
        ),
        Output::Blocks(written) => {
            let runs = |sources: &Vec<Source>| {
                let runs = sources.iter().filter_map(|source| match source {
                    Source::Run(segment) => Some(place(segment)),
                    Source::Block(_) => None,
                });
                runs.collect()
            };
            DoneOutput::Runs(written.partitions.iter().map(runs).collect())
        }
    };
    Done {
        elements: stats.elements.clone(),
        nanos: stats.nanos.clone(),
        metrics: metrics.to_vec(),
        outputs: outputs.iter().map(output).collect(),
    }
}

/// What earlier processes of the run did of a stage.
pub(crate) struct Earlier {
    bundles: Option<usize>,
    done: Vec<usize>,
}

impl Earlier {
    /// Whether they did it all.
    pub(crate) fn is_complete(&self) -> bool {
        self.bundles == Some(self.done.len())
    }

    /// Begins the stage, or goes on with it: which of its bundles are done.
    pub(crate) fn begin(&self, stage: usize, bundles: usize, memory: &Memory) -> Result<Vec<bool>> {
        let Some(state) = memory.state() else { return Ok(Vec::new()) };
        match self.bundles {
            Some(before) if before != bundles => return Err(damaged(&state.data_path(stage, 0))),
            Some(_) => {}
            None => state.begin_stage(stage, bundles)?,
        }
        let mut done = vec![false; bundles];
        self.done.iter().for_each(|bundle| done[*bundle] = true);
        Ok(done)
    }
}

impl Job<'_> {
    /// Takes up what earlier processes did of a stage.
    pub(crate) fn restore(&self, number: usize, stage: &PlanStage) -> Result<Earlier> {
        let Some(state) = self.memory.state() else { return Ok(Earlier { bundles: None, done: Vec::new() }) };
        let StageState { bundles, done } = state.stage(number)?;
        let earlier = Earlier { bundles, done: done.keys().copied().collect() };
        for (bundle, done) in done {
            let path = state.data_path(number, bundle);
            let Done { elements, nanos, metrics, outputs } = done;
            let outputs = self.outputs(stage, &SpillFile::existing(path.clone()), outputs);
            self.publish(stage, bundle_number(number, bundle), outputs.ok_or_else(|| damaged(&path))?);
            self.count(stage, StepStats { elements, nanos }, metrics);
        }
        Ok(earlier)
    }

    /// What a bundle made, as it lies in its file.
    fn outputs(
        &self,
        stage: &PlanStage,
        file: &Arc<SpillFile>,
        made: Vec<DoneOutput>,
    ) -> Option<Vec<Output>> {
        if made.len() != stage.outputs.len() {
            return None;
        }
        let segment = |at, len| Segment { file: file.clone(), at, len };
        let outputs = stage.outputs.iter().zip(made).map(|(output, made)| match (&output.to, made) {
            (Destination::Shuffle(..), DoneOutput::Runs(partitions))
                if partitions.len() == self.partitions() =>
            {
                let sources = |runs: Vec<(u64, u64)>| {
                    runs.into_iter().map(|(at, len)| Source::Run(segment(at, len))).collect()
                };
                Some(Output::Blocks(Written::restored(partitions.into_iter().map(sources).collect())))
            }
            (Destination::Store(_) | Destination::SideInput(_), DoneOutput::Chunks(chunks)) => {
                let edge_type = &self.plan.edges[output.edge.0].edge_type;
                let part = |(at, len, count)| {
                    let count = usize::try_from(count).ok()?;
                    let chunk = Chunk { segment: segment(at, len), count, edge_type: edge_type.clone() };
                    Some(Part::Chunk(Arc::new(chunk)))
                };
                Some(Output::Batches(Kept::restored(chunks.into_iter().map(part).collect::<Option<_>>()?)))
            }
            _ => None,
        });
        outputs.collect()
    }
}
