//! What models this process has loaded, for the report at a run's end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::handler::ModelInfo;
use crate::latency::Latencies;
pub use crate::latency::Percentiles;
use crate::memory::ModelMemory;

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
    /// Why the last of those was refused.
    pub last_failed_swap: Option<String>,
    /// The size that batches are held to because larger ones failed for lack of memory; none as long as none did.
    pub batch_ceiling: Option<u64>,
    /// The batch size that was chosen and why, such as `size 64: best of 16, 32, 64, 128 by elements per second`; by length
    /// classes where lengths count. None while nothing was measured.
    pub batching: Option<String>,
    /// Of the lengths that the model was given, how many thousandths were padding (each batch's examples filled up to its
    /// longest one); none where lengths don't count.
    pub padding_permille: Option<u32>,
    /// How long elements took, from their arrival at a step until their batch's predictions were there; of all its steps
    /// and versions, and again for elements whose bundle was done again. None while there were none.
    pub element_latency: Option<Percentiles>,
    /// What its handler counted since it was loaded: requests and retries of a service, say.
    pub counts: Vec<(&'static str, u64)>,
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
static LINES: LazyLock<Mutex<BTreeMap<Line, Entry>>> = LazyLock::new(Mutex::default);

/// A model's line, and what is asked of it when it is told.
#[derive(Default)]
struct Entry {
    report: ModelReport,
    /// The number of its latest use.
    used: u64,
    memory: Arc<ModelMemory>,
    latencies: Arc<Latencies>,
}

fn lines() -> MutexGuard<'static, BTreeMap<Line, Entry>> {
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
    let told = |entry: &Entry| {
        let (memory, lengths) = (&entry.memory, entry.memory.lengths());
        let permille = |padded| u128::from(lengths.padding) * 1000 / u128::from(padded);
        ModelReport {
            batch_ceiling: memory.ceiling(),
            batching: memory.told(),
            padding_permille: (lengths.padded > 0).then(|| permille(lengths.padded) as u32),
            element_latency: entry.latencies.percentiles(),
            ..entry.report.clone()
        }
    };
    lines().values().filter(|entry| entry.used > mark.0).map(told).collect()
}

/// Notes a load by a handler for an identity, with its bytes and copies, and gives the model's line.
pub(crate) fn loaded(
    (handler, identity): (&str, &str),
    info: &ModelInfo,
    (bytes, copies): (u64, usize),
    memory: &Arc<ModelMemory>,
) -> Line {
    let (handler, id) = (handler.to_owned(), info.model_id.to_string());
    let line = Line { handler: handler.clone(), identity: identity.to_owned(), id: id.clone() };
    let mut lines = lines();
    let entry = lines.entry(line.clone()).or_default();
    entry.used = next_use();
    entry.memory = memory.clone();
    let report = &mut entry.report;
    report.loads += copies as u64;
    (report.id, report.handler) = (id, handler);
    (report.uri, report.sha256) = (info.uri.clone(), info.sha256.clone());
    (report.bytes, report.copies) = (bytes, copies);
    line
}

/// Where the times of the elements of that line are counted.
pub(crate) fn latencies(line: &Line) -> Arc<Latencies> {
    lines().get(line).map(|entry| entry.latencies.clone()).unwrap_or_default()
}

/// Notes that another version took the place of a model, with its bytes and copies.
pub(crate) fn swapped(line: &Line, id: &str, info: &ModelInfo, (bytes, copies): (u64, usize)) {
    if let Some(Entry { report, .. }) = lines().get_mut(line) {
        report.swaps += 1;
        report.loads += copies as u64;
        report.id = id.to_owned();
        (report.uri, report.sha256) = (info.uri.clone(), info.sha256.clone());
        (report.bytes, report.copies) = (bytes, copies);
    }
}

/// Notes what the handler counted.
pub(crate) fn counted(line: &Line, counts: Vec<(&'static str, u64)>) {
    if let Some(Entry { report, .. }) = lines().get_mut(line) {
        report.counts = counts;
    }
}

/// Notes that another version was refused, and why.
pub(crate) fn swap_failed(line: &Line, why: String) {
    if let Some(Entry { report, .. }) = lines().get_mut(line) {
        report.failed_swaps += 1;
        report.last_failed_swap = Some(why);
    }
}

/// Notes that a step of a run has the model in hand.
pub(crate) fn used(line: &Line) {
    if let Some(entry) = lines().get_mut(line) {
        entry.used = next_use();
    }
}
