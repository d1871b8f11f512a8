//! Bundles under way, as other instructions find them: to tell how far they are, or to take a part of them back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiebeam_exec::StageWatch;
use tiebeam_model::fn_api::process_bundle_split_response::ChannelSplit;
use tiebeam_model::fn_api::{ProcessBundleSplitRequest, ProcessBundleSplitResponse};
use tiebeam_model::pipeline::MonitoringInfo;

use crate::gate::ReadGate;
use crate::lower::Lowered;
use crate::monitoring::{Counted, monitoring_infos};

/// A bundle under way.
pub(crate) struct Running {
    pub(crate) lowered: Arc<Lowered>,
    pub(crate) watch: StageWatch,
    /// By source.
    pub(crate) gates: Vec<(String, Arc<ReadGate>)>,
    /// Whether it is at work on elements, and not waiting for more.
    pub(crate) consuming: AtomicBool,
    /// Once it has ended, what is counted belongs to its answer or to the next bundle.
    live: Mutex<bool>,
}

impl Running {
    pub(crate) fn new(lowered: Arc<Lowered>, watch: StageWatch, gates: Vec<(String, Arc<ReadGate>)>) -> Self {
        Running { lowered, watch, gates, consuming: AtomicBool::new(false), live: Mutex::new(true) }
    }

    fn live(&self) -> MutexGuard<'_, bool> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bundle's numbers are taken out now. Waits for those that just look at them.
    pub(crate) fn end(&self) {
        *self.live() = false;
    }

    /// What was counted until now, and whether the bundle is at work; none if it has ended.
    fn progress(&self) -> Option<(Vec<MonitoringInfo>, bool)> {
        let live = self.live();
        if !*live {
            return None;
        }
        let read = self.gates.iter().map(|(transform, gate)| (transform.clone(), gate.index())).collect();
        let counted = Counted { stats: self.watch.stats(), metrics: self.watch.metrics(), read };
        Some((monitoring_infos(&self.lowered, counted), self.consuming.load(Ordering::Relaxed)))
    }

    fn split(&self, request: &ProcessBundleSplitRequest) -> Vec<ChannelSplit> {
        let live = self.live();
        if !*live {
            return Vec::new();
        }
        let split = |(transform, gate): &(String, Arc<ReadGate>)| {
            let first_residual_element = gate.split(request.desired_splits.get(transform)?)?;
            let last_primary_element = first_residual_element - 1;
            Some(ChannelSplit {
                transform_id: transform.clone(),
                last_primary_element,
                first_residual_element,
            })
        };
        self.gates.iter().filter_map(split).collect()
    }
}

/// All bundles under way, by instruction.
#[derive(Default)]
pub(crate) struct Bundles(Mutex<HashMap<String, Arc<Running>>>);

/// Takes a bundle out again when it is dropped, whatever became of it.
pub(crate) struct Entry<'a> {
    bundles: &'a Bundles,
    instruction: &'a str,
    running: Arc<Running>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.running.end();
        self.bundles.lock().remove(self.instruction);
    }
}

impl Bundles {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Running>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That bundle can be found until the entry is dropped.
    pub(crate) fn enter<'a>(&'a self, instruction: &'a str, running: &Arc<Running>) -> Entry<'a> {
        self.lock().insert(instruction.to_owned(), running.clone());
        Entry { bundles: self, instruction, running: running.clone() }
    }

    fn find(&self, instruction: &str) -> Option<Arc<Running>> {
        self.lock().get(instruction).cloned()
    }

    /// How far a bundle is; nothing of one that has not begun or has ended.
    pub(crate) fn progress(&self, instruction: &str) -> (Vec<MonitoringInfo>, bool) {
        self.find(instruction).and_then(|running| running.progress()).unwrap_or_default()
    }

    /// Cuts a bundle; not one that has not begun or has ended.
    pub(crate) fn split(&self, request: &ProcessBundleSplitRequest) -> ProcessBundleSplitResponse {
        let running = self.find(&request.instruction_id);
        let channel_splits = running.map(|running| running.split(request)).unwrap_or_default();
        ProcessBundleSplitResponse { channel_splits, ..ProcessBundleSplitResponse::default() }
    }
}
