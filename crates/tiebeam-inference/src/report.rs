//! What models this process has loaded, for the report at a run's end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::handler::ModelInfo;

/// One model of this process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelReport {
    /// The model's own id, as in every prediction.
    pub id: String,
    /// The handler's name.
    pub handler: String,
    /// Where it came from.
    pub uri: Option<String>,
    /// The SHA-256 of its file, in hex.
    pub sha256: Option<String>,
    /// The bytes that all copies take in memory.
    pub bytes: u64,
    /// The copies taken in turn.
    pub copies: usize,
    /// How often it was loaded in this process; each copy counts.
    pub loads: u64,
    /// How often a newer version took its place while it ran.
    pub swaps: u64,
    /// How often a newer version was refused and this one kept.
    pub failed_swaps: u64,
    /// The size that batches are held to because larger ones failed for lack of memory; none as long as none did.
    pub batch_ceiling: Option<u64>,
}

/// Finds a model's line again: steps of one identity share a line, as they share the model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    handler: String,
    identity: String,
    id: String,
}

/// Counts uses; a line remembers the number of its latest.
static USES: AtomicU64 = AtomicU64::new(0);
static LINES: LazyLock<Mutex<BTreeMap<Line, (ModelReport, u64)>>> = LazyLock::new(Mutex::default);

fn lines() -> MutexGuard<'static, BTreeMap<Line, (ModelReport, u64)>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn next_use() -> u64 {
    USES.fetch_add(1, Ordering::SeqCst) + 1
}

/// A moment in this process, to tell one run's models from those of runs before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

/// Now: to be taken before a run.
pub fn mark() -> Mark {
    Mark(USES.load(Ordering::SeqCst))
}

/// All models that this process has loaded so far, released ones too, by handler and identity.
pub fn models() -> Vec<ModelReport> {
    models_since(Mark(0))
}

/// The models that were loaded or used since `mark`.
pub fn models_since(mark: Mark) -> Vec<ModelReport> {
    lines().values().filter(|(_, used)| *used > mark.0).map(|(report, _)| report.clone()).collect()
}

/// Notes a load, and gives the model's line.
pub(crate) fn loaded(handler: &str, identity: &str, info: &ModelInfo, bytes: u64, copies: usize) -> Line {
    let (handler, id) = (handler.to_owned(), info.model_id.to_string());
    let line = Line { handler: handler.clone(), identity: identity.to_owned(), id: id.clone() };
    let mut lines = lines();
    let (entry, used) = lines.entry(line.clone()).or_default();
    let loads = entry.loads + copies as u64;
    *used = next_use();
    *entry = ModelReport {
        id,
        handler,
        uri: info.uri.clone(),
        sha256: info.sha256.clone(),
        bytes,
        copies,
        loads,
        swaps: entry.swaps,
        failed_swaps: entry.failed_swaps,
        batch_ceiling: entry.batch_ceiling,
    };
    line
}

/// Notes that a step of a run has the model in hand.
pub(crate) fn used(line: &Line) {
    if let Some((_, used)) = lines().get_mut(line) {
        *used = next_use();
    }
}
