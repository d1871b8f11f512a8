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
        JobReport { status, elapsed: self.elapsed(), steps: self.steps(), metrics: self.metrics() }
    }
}

/// What lifting appends to a combine's path.
fn is_piece(rest: &str) -> bool {
    matches!(rest, "/Precombine" | "/Group" | "/Merge" | "/Extract")
}
