//! [`ModelMemory`]: what the process has learned of a model on a device, whichever step or run asked: how large its
//! batches may be.
//!
//! A size that failed for lack of memory bounds all batches from then on; the largest size that works is then looked for
//! between the largest that did work and the smallest that did not, one batch at a time, so that nothing is run twice for
//! it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use tiebeam_core::error::{Error, ErrorKind};

use crate::batching::Batching;
use crate::brain::{Brain, Lengths};
use crate::handler::ModelInfo;

/// So many calls must have failed that no element explains before their size is blamed; one alone may be chance.
const PROOF: u32 = 2;
/// The search for the ceiling ends when it is known to one part in so many.
const PRECISION: usize = 16;

/// See the module.
pub(crate) struct ModelMemory {
    /// The largest size that worked.
    works: AtomicUsize,
    /// The smallest size that was too large; `usize::MAX` while none was.
    fails: AtomicUsize,
    /// Failed calls that no element explains.
    unexplained: Mutex<u32>,
    /// What was learned of the best sizes, one for each way of batching.
    brains: Mutex<Vec<Arc<Brain>>>,
}

impl Default for ModelMemory {
    fn default() -> Self {
        ModelMemory {
            works: AtomicUsize::new(0),
            fails: AtomicUsize::new(usize::MAX),
            unexplained: Mutex::new(0),
            brains: Mutex::default(),
        }
    }
}

impl ModelMemory {
    /// The largest size that is known to work.
    pub(crate) fn works(&self) -> usize {
        self.works.load(Ordering::Relaxed)
    }

    /// The largest size that the next batch may have.
    pub(crate) fn limit(&self) -> usize {
        let fails = self.fails.load(Ordering::Relaxed);
        if fails == usize::MAX {
            return fails;
        }
        let works = self.works().min(fails - 1);
        let gap = fails - works;
        let next = if gap <= 1 + works / PRECISION { works } else { works + gap / 2 };
        next.max(1)
    }

    /// The size that batches are held to, if one was ever too large.
    pub(crate) fn ceiling(&self) -> Option<u64> {
        let fails = self.fails.load(Ordering::Relaxed);
        (fails != usize::MAX).then(|| self.works().clamp(1, (fails - 1).max(1)) as u64)
    }

    /// A batch of that size worked.
    pub(crate) fn worked(&self, size: usize) {
        // Mostly it is no news; then nobody's cache is disturbed.
        if size > self.works() {
            let highest = self.fails.load(Ordering::Relaxed) - 1;
            self.works.fetch_max(size.min(highest), Ordering::Relaxed);
        }
    }

    /// A batch of that size failed for lack of memory.
    pub(crate) fn lacked(&self, size: usize) {
        let _one_at_a_time = self.unexplained();
        self.bound(size);
    }

    /// A batch of that size failed though both of its halves worked, after `failures` failed calls in a row on ever smaller
    /// batches. A size that has worked before is not blamed.
    pub(crate) fn suspect(&self, size: usize, failures: u32) {
        let mut unexplained = self.unexplained();
        if size > self.works() {
            *unexplained = unexplained.saturating_add(failures);
            if *unexplained >= PROOF {
                self.bound(size);
            }
        }
    }

    /// What was learned for that way of batching, by whichever step and run.
    pub(crate) fn brain(&self, batching: &Batching, classes: usize) -> Arc<Brain> {
        let mut brains = self.brains();
        if let Some(known) = brains.iter().find(|brain| brain.is_for(batching, classes)) {
            return known.clone();
        }
        let brain = Brain::new(batching, classes);
        brains.push(brain.clone());
        brain
    }

    /// Which sizes were chosen, and why.
    pub(crate) fn told(&self) -> Option<String> {
        let ceiling = self.ceiling();
        let told: Vec<String> = self.brains().iter().filter_map(|brain| brain.told(ceiling)).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// The lengths in all of the model's batches.
    pub(crate) fn lengths(&self) -> Lengths {
        let mut all = Lengths::default();
        self.brains().iter().for_each(|brain| all.add(brain.lengths()));
        all
    }

    fn brains(&self) -> MutexGuard<'_, Vec<Arc<Brain>>> {
        self.brains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bound(&self, size: usize) {
        // A batch of one is never too large for its size: its element is.
        let size = size.max(2);
        self.fails.fetch_min(size, Ordering::Relaxed);
        if self.works() >= size {
            self.works.store(size / 2, Ordering::Relaxed);
        }
    }

    fn unexplained(&self) -> MutexGuard<'_, u32> {
        self.unexplained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static MEMORIES: LazyLock<Mutex<HashMap<String, Arc<ModelMemory>>>> = LazyLock::new(Mutex::default);

/// What is known of that model on that device. A model is its file's digest where that is known, else its place, else the
/// identity of the step that has it.
pub(crate) fn of(handler: &str, info: &ModelInfo, identity: &str) -> Arc<ModelMemory> {
    let model = info.sha256.as_deref().or(info.uri.as_deref()).unwrap_or(identity);
    let device = info.device.as_deref().unwrap_or("cpu");
    let key = format!("{handler}\n{model}\n{device}");
    MEMORIES.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
}

/// How frameworks and allocators say it, in lower case.
const OUT_OF_MEMORY: [&str; 7] = [
    "out of memory",
    "outofmemory",
    "cannot allocate memory",
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "resource_exhausted",
];

/// Whether an error says that there was too little memory.
pub(crate) fn is_told(error: &Error) -> bool {
    let says = |text: &str| {
        let text = text.to_ascii_lowercase();
        OUT_OF_MEMORY.iter().any(|words| text.contains(words))
    };
    match error.kind() {
        ErrorKind::OutOfMemory => true,
        ErrorKind::Inference | ErrorKind::UserCode | ErrorKind::Panic => {
            says(error.message()) || error.causes().iter().any(|cause| says(cause))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes that are tried for a model that holds `most`, from `first` on.
    fn tried(first: usize, most: usize) -> (Vec<usize>, Option<u64>) {
        let memory = ModelMemory::default();
        let mut sizes = Vec::new();
        for _ in 0..20 {
            let size = memory.limit().min(first);
            if sizes.last() == Some(&size) {
                break;
            }
            sizes.push(size);
            if size <= most { memory.worked(size) } else { memory.lacked(size) }
        }
        (sizes, memory.ceiling())
    }

    #[test]
    fn a_size_that_lacks_memory_is_halved_and_the_ceiling_is_found() {
        assert_eq!(tried(64, 7), (vec![64, 32, 16, 8, 4, 6, 7], Some(7)));
        assert_eq!(tried(64, 64), (vec![64], None));
        assert_eq!(tried(64, 63), (vec![64, 32, 48, 56, 60], Some(60)));
        assert_eq!(tried(2, 1), (vec![2, 1], Some(1)));
        assert_eq!(tried(10_000, 1000).1, Some(976), "known to one part in sixteen");
    }

    #[test]
    fn one_failure_without_a_culprit_bounds_nothing() {
        let memory = ModelMemory::default();
        memory.suspect(8, 1);
        assert_eq!((memory.limit(), memory.ceiling()), (usize::MAX, None));
        memory.worked(8);
        memory.suspect(8, 5);
        assert_eq!(memory.ceiling(), None, "the size has worked before");
        memory.worked(4);
        memory.suspect(16, 1);
        assert_eq!((memory.limit(), memory.ceiling()), (12, Some(8)));
    }

    #[test]
    fn a_size_that_worked_once_and_lacks_memory_now_comes_down() {
        let memory = ModelMemory::default();
        memory.worked(64);
        memory.lacked(64);
        assert_eq!((memory.limit(), memory.ceiling()), (48, Some(32)));
        memory.worked(64);
        assert_eq!(memory.ceiling(), Some(63), "not what was seen to fail");
        for _ in 0..3 {
            memory.lacked(1);
        }
        assert_eq!((memory.limit(), memory.ceiling()), (1, Some(1)));
    }

    #[test]
    fn the_memory_is_the_models_on_its_device() {
        let on = |device: &str| {
            let (sha256, device) = (Some("memory-test".to_owned()), Some(device.to_owned()));
            ModelInfo { sha256, device, ..ModelInfo::default() }
        };
        of("H", &on("cuda"), "#1").lacked(10);
        assert_eq!(of("H", &on("cuda"), "#2").limit(), 5);
        assert_eq!(of("H", &on("cpu"), "#1").limit(), usize::MAX);
        assert_eq!(of("H", &ModelInfo::default(), "#memory-test").limit(), usize::MAX);
    }
}
