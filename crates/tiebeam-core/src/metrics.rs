//! Metric cells: counters, distributions and gauges that a step updates and a door collects bundle by bundle.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a metric is called: Beam's (step, namespace, name).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricKey {
    /// The full path of the step.
    pub step: Arc<str>,
    /// The namespace, such as `BeamML_Onnx`.
    pub namespace: Arc<str>,
    /// The name, such as `num_inferences`.
    pub name: Arc<str>,
}

/// Count, sum and bounds of the values seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DistributionValue {
    /// The number of values.
    pub count: i64,
    /// Their sum.
    pub sum: i64,
    /// The smallest; `i64::MAX` while there is none.
    pub min: i64,
    /// The largest; `i64::MIN` while there is none.
    pub max: i64,
}

impl DistributionValue {
    /// No values.
    pub const EMPTY: DistributionValue = DistributionValue { count: 0, sum: 0, min: i64::MAX, max: i64::MIN };

    /// One more value.
    pub fn add(&mut self, value: i64) {
        self.merge(&DistributionValue { count: 1, sum: value, min: value, max: value });
    }

    /// One value, `n` times more.
    pub fn add_many(&mut self, value: i64, n: i64) {
        if n > 0 {
            self.merge(&DistributionValue { count: n, sum: value.saturating_mul(n), min: value, max: value });
        }
    }

    /// All values of another.
    pub fn merge(&mut self, other: &DistributionValue) {
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// The mean, or none of no values.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }
}

/// The value of a metric, or what a bundle adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricValue {
    /// A sum of increments.
    Counter(i64),
    /// A distribution.
    Distribution(DistributionValue),
    /// The latest value.
    Gauge(i64),
}

impl MetricValue {
    /// Adds what a bundle brought. A value of another kind replaces this one.
    pub fn merge(&mut self, other: &MetricValue) {
        match (self, other) {
            (MetricValue::Counter(sum), MetricValue::Counter(more)) => *sum += more,
            (MetricValue::Distribution(all), MetricValue::Distribution(more)) => all.merge(more),
            (this, other) => *this = *other,
        }
    }
}

/// Adds up. Cheap to clone and to share.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicI64>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}

/// Gathers count, sum, min and max.
#[derive(Debug, Clone)]
pub struct Distribution(Arc<Mutex<DistributionValue>>);

impl Distribution {
    /// One more value.
    pub fn update(&self, value: i64) {
        lock(&self.0).add(value);
    }

    /// All values that were gathered elsewhere.
    pub fn merge(&self, values: &DistributionValue) {
        lock(&self.0).merge(values);
    }
}

/// Keeps the latest value.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<Mutex<Option<i64>>>);

impl Gauge {
    /// The value from now on.
    pub fn set(&self, value: i64) {
        *lock(&self.0) = Some(value);
    }
}

#[derive(Debug, Clone)]
enum Cell {
    Counter(Counter),
    Distribution(Distribution),
    Gauge(Gauge),
}

/// The cells of one stage instance. Doors [`drain`](MetricCells::drain) them when a bundle succeeds, and drain and
/// forget when it fails, so that a retried bundle counts once.
#[derive(Debug, Clone, Default)]
pub struct MetricCells(Arc<Mutex<BTreeMap<MetricKey, Cell>>>);

impl MetricCells {
    fn cell(&self, key: MetricKey, new: impl FnOnce() -> Cell) -> Cell {
        lock(&self.0).entry(key).or_insert_with(new).clone()
    }

    /// What was gathered since the last drain; the cells start anew.
    pub fn drain(&self) -> Vec<(MetricKey, MetricValue)> {
        let cells = lock(&self.0);
        let taken = cells.iter().filter_map(|(key, cell)| {
            let value = match cell {
                Cell::Counter(c) => match c.0.swap(0, Ordering::Relaxed) {
                    0 => return None,
                    n => MetricValue::Counter(n),
                },
                Cell::Distribution(d) => {
                    match std::mem::replace(&mut *lock(&d.0), DistributionValue::EMPTY) {
                        DistributionValue { count: 0, .. } => return None,
                        value => MetricValue::Distribution(value),
                    }
                }
                Cell::Gauge(g) => MetricValue::Gauge(lock(&g.0).take()?),
            };
            Some((key.clone(), value))
        });
        taken.collect()
    }

    /// What was gathered since the last drain, while it goes on being gathered.
    pub fn values(&self) -> Vec<(MetricKey, MetricValue)> {
        let cells = lock(&self.0);
        let values = cells.iter().filter_map(|(key, cell)| {
            let value = match cell {
                Cell::Counter(c) => {
                    Some(c.0.load(Ordering::Relaxed)).filter(|n| *n != 0).map(MetricValue::Counter)
                }
                Cell::Distribution(d) => {
                    Some(*lock(&d.0)).filter(|d| d.count != 0).map(MetricValue::Distribution)
                }
                Cell::Gauge(g) => lock(&g.0).map(MetricValue::Gauge),
            };
            Some((key.clone(), value?))
        });
        values.collect()
    }

    /// The metrics of one step.
    pub fn of_step(&self, step: &str) -> StepMetrics {
        StepMetrics { cells: self.clone(), step: step.into() }
    }
}

/// Makes and finds the metrics of one step.
#[derive(Debug, Clone)]
pub struct StepMetrics {
    cells: MetricCells,
    step: Arc<str>,
}

impl StepMetrics {
    fn key(&self, namespace: &str, name: &str) -> MetricKey {
        MetricKey { step: self.step.clone(), namespace: namespace.into(), name: name.into() }
    }

    /// The counter of that name. A name that was taken by another kind gives a counter that nobody collects.
    pub fn counter(&self, namespace: &str, name: &str) -> Counter {
        match self.cells.cell(self.key(namespace, name), || Cell::Counter(Counter::default())) {
            Cell::Counter(counter) => counter,
            _ => Counter::default(),
        }
    }

    /// The distribution of that name; the same rule.
    pub fn distribution(&self, namespace: &str, name: &str) -> Distribution {
        let new = || Distribution(Arc::new(Mutex::new(DistributionValue::EMPTY)));
        match self.cells.cell(self.key(namespace, name), || Cell::Distribution(new())) {
            Cell::Distribution(distribution) => distribution,
            _ => new(),
        }
    }

    /// The gauge of that name; the same rule.
    pub fn gauge(&self, namespace: &str, name: &str) -> Gauge {
        match self.cells.cell(self.key(namespace, name), || Cell::Gauge(Gauge::default())) {
            Cell::Gauge(gauge) => gauge,
            _ => Gauge::default(),
        }
    }
}

/// A lock that a panic elsewhere does not spoil: every critical section here leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
