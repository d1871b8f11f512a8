//! [`Brain`]: what a model's batches have taught about their sizes, for one way of batching. It outlives the steps and
//! runs that ask it: the next run of the process begins where the last one was.
//!
//! Each length class learns for itself: a batch of long examples takes longer than one of short ones.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::batching::Batching;
use crate::estimator::Estimator;

/// The lengths of the examples of batches: what a model that pads computes for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// With padding: each batch's longest example times its examples.
    pub(crate) padded: u64,
    /// The padding alone.
    pub(crate) padding: u64,
}

impl Lengths {
    pub(crate) fn add(&mut self, more: Lengths) {
        self.padded = self.padded.saturating_add(more.padded);
        self.padding = self.padding.saturating_add(more.padding);
    }
}

/// What is known of one length class.
struct Class {
    estimator: Estimator,
    target: usize,
}

/// See the module.
pub(crate) struct Brain {
    batching: Batching,
    classes: Vec<Mutex<Class>>,
    padded: AtomicU64,
    padding: AtomicU64,
}

impl Brain {
    pub(crate) fn new(batching: &Batching, classes: usize) -> Arc<Self> {
        let class = || {
            let mut estimator = Estimator::new(batching);
            estimator.ignore_next_time();
            let target = estimator.next();
            Mutex::new(Class { estimator, target })
        };
        let classes = (0..classes.max(1)).map(|_| class()).collect();
        let (padded, padding) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Brain { batching: batching.clone(), classes, padded, padding })
    }

    /// Whether it learns for that way of batching.
    pub(crate) fn is_for(&self, batching: &Batching, classes: usize) -> bool {
        self.batching == *batching && self.classes.len() == classes.max(1)
    }

    fn with<T>(&self, class: usize, ask: impl FnOnce(&mut Class) -> T) -> T {
        ask(&mut self.classes[class].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The size of the next batch of that class.
    pub(crate) fn target(&self, class: usize) -> usize {
        self.with(class, |class| class.target)
    }

    /// Tells what a batch took; gives the size of the next one.
    pub(crate) fn record(&self, class: usize, size: usize, lengths: Lengths, took: Duration) -> usize {
        self.with(class, |class| {
            let work = if lengths.padded > 0 { lengths.padded as f64 } else { size as f64 };
            class.estimator.record_work(size, work, took);
            class.target = class.estimator.next();
            class.target
        })
    }

    /// Tells the lengths in a batch that was run.
    pub(crate) fn was_padded(&self, lengths: Lengths) {
        self.padded.fetch_add(lengths.padded, Ordering::Relaxed);
        self.padding.fetch_add(lengths.padding, Ordering::Relaxed);
    }

    pub(crate) fn lengths(&self) -> Lengths {
        let (padded, padding) = (self.padded.load(Ordering::Relaxed), self.padding.load(Ordering::Relaxed));
        Lengths { padded, padding }
    }

    /// Which sizes were chosen and why, below `ceiling`; nothing while nothing was measured.
    pub(crate) fn told(&self, ceiling: Option<u64>) -> Option<String> {
        let boundaries = (self.classes.len() > 1).then(|| self.batching.boundaries());
        let mut text = String::new();
        for index in 0..self.classes.len() {
            let Some((size, why)) = self.with(index, |class| class.estimator.told()) else { continue };
            if !text.is_empty() {
                text.push_str("; ");
            }
            let length = boundaries.as_ref().map(|boundaries| boundaries.get(index).copied());
            let _infallible = match length {
                Some(Some(upper)) => write!(text, "lengths to {upper}: "),
                Some(None) => text.write_str("longer ones: "),
                None => Ok(()),
            };
            let _infallible = match ceiling {
                Some(ceiling) if ceiling < size as u64 => {
                    write!(text, "size {ceiling}: larger ones failed for their size")
                }
                _ => write!(text, "size {size}: {why}"),
            };
        }
        (!text.is_empty()).then_some(text)
    }
}
