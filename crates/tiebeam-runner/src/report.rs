//! What a job did: counts for each step, that prove that nothing was lost; metrics; and progress while it runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tiebeam_core::metrics::{MetricKey, MetricValue};
use tiebeam_exec::{EdgeId, StepStats};
use tiebeam_graph::{Arity, Graph};

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStatus {
    /// All input was read and all output committed.
    Done,
    /// Asked to stop reading; what was read is committed.
    Drained,
}

/// The counts of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Its full path.
    pub step: Arc<str>,
    /// Elements in.
    pub elements_in: u64,
    /// Elements out of the outputs that are not dead letters.
    pub elements_out: u64,
    /// Elements out of the outputs that are.
    pub dead: u64,
    /// Elements that a filter left out.
    pub filtered: u64,
    /// Elements dropped because they came too late.
    pub dropped_late: u64,
    /// Bundles tried again because of it.
    pub retries: u64,
    /// Time spent in it, all threads together.
    pub busy: Duration,
    /// How its counts relate.
    pub arity: Arity,
}

/// One metric of one step.
pub type MetricEntry = (MetricKey, MetricValue);

/// What a finished job did.
#[derive(Debug, Clone)]
pub struct JobReport {
    /// How it ended.
    pub status: JobStatus,
    /// How long it took.
    pub elapsed: Duration,
    /// The steps, in the order of the graph.
    pub steps: Vec<StepReport>,
    /// The metrics, in the order of steps and names.
    pub metrics: Vec<MetricEntry>,
    /// What whoever runs the job may want to know: groups that were too large for memory, say.
    pub notes: Vec<String>,
}

impl JobReport {
    /// The elements in all dead letters.
    pub fn dead_letters(&self) -> u64 {
        self.steps.iter().map(|step| step.dead).sum()
    }

    /// The metric of that namespace and name, of all steps together.
    pub fn metric(&self, namespace: &str, name: &str) -> Option<MetricValue> {
        let mut all: Option<MetricValue> = None;
        for (_, value) in
            self.metrics.iter().filter(|(key, _)| &*key.namespace == namespace && &*key.name == name)
        {
            match &mut all {
                Some(sum) => sum.merge(value),
                None => all = Some(*value),
            }
        }
        all
    }

    /// A counter of that namespace and name, of all steps together; 0 where there is none.
    pub fn counter(&self, namespace: &str, name: &str) -> i64 {
        match self.metric(namespace, name) {
            Some(MetricValue::Counter(value)) => value,
            _ => 0,
        }
    }
}

/// The counts of a job while it runs; clones look at the same job.
#[derive(Clone)]
pub struct Progress {
    graph: Arc<Graph>,
    started: Instant,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    elements: HashMap<EdgeId, u64>,
    nanos: BTreeMap<Arc<str>, u64>,
    retries: BTreeMap<Arc<str>, u64>,
    metrics: BTreeMap<MetricKey, MetricValue>,
    hot_keys: Vec<HotKey>,
    notes: Vec<String>,
}

/// The largest groups that are remembered.
const HOT_KEYS: usize = 10;

/// A group whose values were too many for memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct HotKey {
    bytes: u64,
    values: u64,
    key: Vec<u8>,
    step: Arc<str>,
}

impl Progress {
    /// Nothing yet, of a job of that graph.
    pub fn new(graph: Arc<Graph>) -> Self {
        Progress { graph, started: Instant::now(), counts: Arc::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what a finished bundle did; of its edges only those that `made` says are made in its stage.
    pub(crate) fn commit(&self, stats: StepStats, made: impl Fn(EdgeId) -> bool, metrics: Vec<MetricEntry>) {
        let mut counts = self.lock();
        for (edge, n) in stats.elements {
            if made(edge) {
                *counts.elements.entry(edge).or_default() += n;
            }
        }
        for (step, nanos) in stats.nanos {
            *counts.nanos.entry(step).or_default() += nanos;
        }
        for (key, value) in metrics {
            counts.metrics.entry(key).and_modify(|all| all.merge(&value)).or_insert(value);
        }
    }

    /// Takes over the counts that another engine tells of the whole job so far, in place of those that are here.
    pub fn replace(
        &self,
        elements: HashMap<EdgeId, u64>,
        nanos: BTreeMap<Arc<str>, u64>,
        metrics: BTreeMap<MetricKey, MetricValue>,
    ) {
        let mut counts = self.lock();
        (counts.elements, counts.nanos, counts.metrics) = (elements, nanos, metrics);
    }

    pub(crate) fn retried(&self, step: &str) {
        *self.lock().retries.entry(step.into()).or_default() += 1;
    }

    /// Remembers a group that did not fit in memory, if it is among the largest.
    pub(crate) fn hot_key(&self, step: &Arc<str>, key: &[u8], bytes: u64, values: u64) {
        let key = &key[..key.len().min(64)];
        let mut counts = self.lock();
        let hot = &mut counts.hot_keys;
        let smallest = hot.last().map_or(0, |key| key.bytes);
        if hot.len() == HOT_KEYS && bytes <= smallest {
            return;
        }
        // A bundle that is tried again says the same again.
        if hot.iter().any(|known| known.key == key && known.step == *step) {
            return;
        }
        hot.push(HotKey { bytes, values, key: key.to_vec(), step: step.clone() });
        hot.sort_by(|a, b| b.cmp(a));
        hot.truncate(HOT_KEYS);
    }

    /// Adds something that whoever runs the job may want to know.
    pub(crate) fn note(&self, note: String) {
        self.lock().notes.push(note);
    }

    /// Adds to a counter of the runner's own.
    pub(crate) fn count(&self, step: &str, name: &str, n: u64) {
        let key = MetricKey { step: step.into(), namespace: "runner".into(), name: name.into() };
        let value = MetricValue::Counter(i64::try_from(n).unwrap_or(i64::MAX));
        self.lock().metrics.entry(key).and_modify(|all| all.merge(&value)).or_insert(value);
    }

    /// What whoever runs the job may want to know so far.
    pub fn notes(&self) -> Vec<String> {
        let counts = self.lock();
        let hot = counts.hot_keys.iter().map(|hot| {
            format!(
                "key {} has {} values of {} bytes in {}: they did not fit in memory and were read from disk",
                shown(&hot.key),
                hot.values,
                hot.bytes,
                hot.step
            )
        });
        counts.notes.iter().cloned().chain(hot).collect()
    }

    /// How long the job has been running.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The counts of all steps so far.
    pub fn steps(&self) -> Vec<StepReport> {
        let counts = self.lock();
        let of_edge = |edge: &EdgeId| counts.elements.get(edge).copied().unwrap_or(0);
        let sum_of = |map: &BTreeMap<Arc<str>, u64>, step: &str| -> u64 {
            // A combine is one step here and four pieces below it.
            let piece =
                |name: &str| name.strip_prefix(step).is_some_and(|rest| rest.is_empty() || is_piece(rest));
            map.iter().filter(|(name, _)| piece(name)).map(|(_, n)| n).sum()
        };
        let steps = self.graph.nodes.iter().map(|node| {
            let elements_in: u64 = node.inputs.iter().map(of_edge).sum();
            let out = |dead: bool| -> u64 {
                node.outputs.iter().filter(|o| o.is_dead_letters == dead).map(|o| of_edge(&o.edge)).sum()
            };
            let (elements_out, dead) = (out(false), out(true));
            let filtered = match node.arity {
                Arity::Filter => elements_in.saturating_sub(elements_out + dead),
                _ => 0,
            };
            StepReport {
                step: node.step.clone(),
                elements_in,
                elements_out,
                dead,
                filtered,
                dropped_late: 0,
                retries: sum_of(&counts.retries, &node.step),
                busy: Duration::from_nanos(sum_of(&counts.nanos, &node.step)),
                arity: node.arity,
            }
        });
        steps.collect()
    }

    /// The metrics so far.
    pub fn metrics(&self) -> Vec<MetricEntry> {
        self.lock().metrics.iter().map(|(key, value)| (key.clone(), *value)).collect()
    }

    /// What the job did, when it has ended like that.
    pub fn report(&self, status: JobStatus) -> JobReport {
        JobReport {
            status,
            elapsed: self.elapsed(),
            steps: self.steps(),
            metrics: self.metrics(),
            notes: self.notes(),
        }
    }
}

/// What lifting appends to a combine's path.
fn is_piece(rest: &str) -> bool {
    matches!(rest, "/Precombine" | "/Group" | "/Merge" | "/Extract")
}

/// The bytes of a key as text where they are some, else in hexadecimal digits.
fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.is_empty() && !text.chars().any(char::is_control) => format!("`{text}`"),
        _ => key.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}
