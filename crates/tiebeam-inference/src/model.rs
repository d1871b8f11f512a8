//! The shared model: loaded once a process, used by all threads, released with its last user.
//!
//! The registry holds models weakly, by the type of the model and an identity. Whoever asks first loads; who asks
//! meanwhile waits for that one load and gets its model or its error. An error is not kept: the next one to ask loads
//! anew.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind, Result};

use crate::batcher::{ModelId, ModelTag};
use crate::clock::Clock;
use crate::gate::Gate;
use crate::handler::{ModelHandler, ModelInfo};
use crate::latency::Latencies;
use crate::memory::{self, ModelMemory};
use crate::report;
use crate::update::{ModelMetadata, Rollout};

/// What a load took, told once to the metrics of whoever used the model first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoadCost {
    pub(crate) took: Duration,
    pub(crate) bytes: u64,
}

/// One version of a model, loaded, with its copies.
pub(crate) struct SharedModel<M> {
    copies: Vec<M>,
    turn: AtomicUsize,
    pub(crate) info: ModelInfo,
    pub(crate) tag: ModelId,
    cost: LoadCost,
    told: AtomicBool,
    /// A call of it did not come back in time.
    hangs: AtomicBool,
    /// How large its batches may be.
    pub(crate) memory: Arc<ModelMemory>,
    /// What the handler counted of it and somebody has told.
    counted: Mutex<Vec<(&'static str, u64)>>,
}

/// Counts of several under the same names.
pub(crate) fn added(all: impl Iterator<Item = Vec<(&'static str, u64)>>) -> Vec<(&'static str, u64)> {
    all.reduce(|mut sum, more| {
        sum.iter_mut().zip(more).for_each(|((_, own), (_, more))| *own += more);
        sum
    })
    .unwrap_or_default()
}

impl<M> SharedModel<M> {
    /// What its handler counted of all copies: since the load, and since the last time this was asked.
    pub(crate) fn take_counts<H: ModelHandler<Model = M>>(
        &self,
        handler: &H,
    ) -> [Vec<(&'static str, u64)>; 2] {
        let mut told = lock(&self.counted);
        let all = added(self.copies.iter().map(|copy| handler.counts(copy)));
        let last = |i: usize| told.get(i).map_or(0, |(_, n)| *n);
        let new = all.iter().enumerate().map(|(i, (name, n))| (*name, n.saturating_sub(last(i)))).collect();
        told.clone_from(&all);
        [all, new]
    }

    /// The copy whose turn it is.
    pub(crate) fn next(&self) -> &M {
        let turn = if self.copies.len() == 1 { 0 } else { self.turn.fetch_add(1, Ordering::Relaxed) };
        &self.copies[turn % self.copies.len()]
    }

    /// Any copy: for questions that all of them answer alike.
    pub(crate) fn any(&self) -> &M {
        &self.copies[0]
    }

    /// What the load took, the first time it is asked.
    pub(crate) fn untold_cost(&self) -> Option<LoadCost> {
        (!self.told.load(Ordering::Relaxed) && !self.told.swap(true, Ordering::Relaxed)).then_some(self.cost)
    }

    /// Whoever asked for the cost failed, and its metrics with it: somebody else shall ask again.
    pub(crate) fn tell_again(&self) {
        self.told.store(false, Ordering::Relaxed);
    }

    /// The same version under an id of its own, where its place is that of `old`: a rewritten file.
    pub(crate) fn told_apart_from(mut self, old: &SharedModel<M>) -> Self {
        let place = &self.info.model_id;
        if *place == old.info.model_id {
            let id = match &self.info.sha256 {
                Some(sha256) => format!("{place}@{}", sha256.get(..12).unwrap_or(sha256)),
                None => format!("{place}@{}", UNIQUE.fetch_add(1, Ordering::Relaxed)),
            };
            self.tag = Arc::new(ModelTag { id: id.into(), prefix: self.tag.prefix.clone() });
        }
        self
    }

    /// The bytes that all copies take.
    pub(crate) fn num_bytes(&self) -> u64 {
        self.cost.bytes
    }

    /// A call did not come back in time: it may never, and whoever asks next may have to wait for it.
    pub(crate) fn note_hanging(&self) {
        self.hangs.store(true, Ordering::Relaxed);
    }

    pub(crate) fn hangs(&self) -> bool {
        self.hangs.load(Ordering::Relaxed)
    }
}

/// A new version that is tried beside the one in use.
pub(crate) struct Trial<M> {
    pub(crate) model: Arc<SharedModel<M>>,
    pub(crate) metadata: ModelMetadata,
    pub(crate) rollout: Rollout,
    /// Elements that came since the last batch it was given, weighed by its share, in millionths.
    due: AtomicU64,
    /// Elements that it was given.
    seen: AtomicU64,
}

impl<M> Trial<M> {
    /// Whether a batch of `n` is for the new version: as many elements as its share says, in the long run.
    pub(crate) fn takes(&self, n: usize) -> bool {
        const WHOLE: u64 = 1_000_000;
        let more = (self.rollout.share() * WHOLE as f64) as u64 * n as u64;
        let due = self.due.fetch_add(more, Ordering::Relaxed) + more;
        let price = WHOLE * n as u64;
        let takes = due >= price;
        if takes {
            let _saturates = self
                .due
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| Some(due.saturating_sub(price)));
        }
        takes
    }

    /// `n` elements went well; says whether that is enough to take the old one's place.
    pub(crate) fn went_well(&self, n: usize) -> bool {
        let seen = self.seen.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        self.rollout.enough().is_some_and(|enough| seen >= enough)
    }
}

/// What the steps of one identity share: the version of a model that is in use, and at most one more.
pub(crate) struct ModelCell<M> {
    key: Key,
    current: Mutex<Arc<SharedModel<M>>>,
    trial: Mutex<Option<Arc<Trial<M>>>>,
    has_trial: AtomicBool,
    /// Versions that were in use or tried and may still be computing.
    retired: Mutex<Vec<Weak<SharedModel<M>>>>,
    /// The line of this model in the process's report.
    pub(crate) report: report::Line,
    /// What all calls of a batch go through, whichever version they ask.
    pub(crate) gate: Gate,
    /// How long the elements took that were given to it, whichever version computed them.
    pub(crate) latencies: Arc<Latencies>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M> ModelCell<M> {
    /// The version in use.
    pub(crate) fn current(&self) -> Arc<SharedModel<M>> {
        lock(&self.current).clone()
    }

    /// The version that is tried.
    pub(crate) fn trial(&self) -> Option<Arc<Trial<M>>> {
        if !self.has_trial.load(Ordering::Relaxed) {
            return None;
        }
        lock(&self.trial).clone()
    }

    /// Whether a version that was in use before is still in memory: a thread computes with it.
    pub(crate) fn is_retiring(&self) -> bool {
        let mut retired = lock(&self.retired);
        // One that hangs may never go; nobody waits for it.
        retired.retain(|version| version.upgrade().is_some_and(|version| !version.hangs()));
        !retired.is_empty()
    }

    /// Lets the version on trial go.
    pub(crate) fn withdraw_trial(&self) -> Option<Arc<Trial<M>>> {
        let trial = lock(&self.trial).take();
        self.has_trial.store(false, Ordering::Relaxed);
        if let Some(trial) = &trial {
            lock(&self.retired).push(Arc::downgrade(&trial.model));
        }
        trial
    }

    /// Tries a version beside the one in use.
    pub(crate) fn try_out(&self, model: Arc<SharedModel<M>>, metadata: ModelMetadata, rollout: Rollout) {
        let trial = Trial { model, metadata, rollout, due: AtomicU64::new(0), seen: AtomicU64::new(0) };
        *lock(&self.trial) = Some(Arc::new(trial));
        self.has_trial.store(true, Ordering::Relaxed);
    }

    /// From now on batches are computed by that version.
    pub(crate) fn swap(&self, model: Arc<SharedModel<M>>, copies: usize) {
        report::swapped(&self.report, &model.tag.id, &model.info, (model.num_bytes(), copies));
        let old = std::mem::replace(&mut *lock(&self.current), model);
        lock(&self.retired).push(Arc::downgrade(&old));
    }

    /// The version on trial takes the place of the one in use, if it is still on trial.
    pub(crate) fn promote(&self, trial: &Arc<Trial<M>>, copies: usize) -> bool {
        let mut on_trial = lock(&self.trial);
        if !on_trial.as_ref().is_some_and(|own| Arc::ptr_eq(own, trial)) {
            return false;
        }
        *on_trial = None;
        drop(on_trial);
        self.has_trial.store(false, Ordering::Relaxed);
        self.swap(trial.model.clone(), copies);
        true
    }
}

impl<M> Drop for ModelCell<M> {
    fn drop(&mut self) {
        let mut slots = registry();
        let gone = matches!(slots.get(&self.key), Some(Slot::Loaded(weak)) if weak.strong_count() == 0);
        if gone {
            slots.remove(&self.key);
        }
    }
}

type Key = (TypeId, Arc<str>);

enum Slot {
    /// Somebody is loading it: an `Arc<Load<M>>`.
    Loading(Arc<dyn Any + Send + Sync>),
    /// It was loaded: a `ModelCell<M>`, perhaps gone by now.
    Loaded(Weak<dyn Any + Send + Sync>),
}

struct Load<M> {
    done: Mutex<Option<Result<Arc<ModelCell<M>>>>>,
    changed: Condvar,
}

static REGISTRY: LazyLock<Mutex<HashMap<Key, Slot>>> = LazyLock::new(Mutex::default);
static UNIQUE: AtomicU64 = AtomicU64::new(0);

fn registry() -> MutexGuard<'static, HashMap<Key, Slot>> {
    lock(&REGISTRY)
}

/// An identity that nobody else has: steps without a common one each load a model of their own.
pub(crate) fn unique_identity() -> Arc<str> {
    format!("#{}", UNIQUE.fetch_add(1, Ordering::Relaxed)).into()
}

/// What loads the models of a step.
pub(crate) struct Loader<H> {
    pub(crate) handler: Arc<H>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long a load may take.
    pub(crate) timeout: Option<Duration>,
}

impl<H> Clone for Loader<H> {
    fn clone(&self) -> Self {
        Loader { handler: self.handler.clone(), clock: self.clock.clone(), timeout: self.timeout }
    }
}

impl<H: ModelHandler> Loader<H> {
    /// The model of that identity, loaded for the cohort if it isn't yet; in another version than the handler's own where
    /// one is named.
    ///
    /// # Errors
    /// What `load_model` said, for everyone who waited for that load.
    pub(crate) fn cell(
        &self,
        identity: &Arc<str>,
        cohort: usize,
        version: Option<&ModelMetadata>,
    ) -> Result<Arc<ModelCell<H::Model>>> {
        let key: Key = (TypeId::of::<H::Model>(), identity.clone());
        let load = {
            let mut slots = registry();
            match slots.get(&key) {
                Some(Slot::Loaded(weak)) => {
                    if let Some(model) = weak.upgrade().and_then(|any| any.downcast().ok()) {
                        return Ok(model);
                    }
                }
                Some(Slot::Loading(load)) => {
                    if let Ok(load) = load.clone().downcast::<Load<H::Model>>() {
                        drop(slots);
                        return wait_for(&load);
                    }
                }
                None => {}
            }
            let load = Arc::new(Load { done: Mutex::new(None), changed: Condvar::new() });
            slots.insert(key.clone(), Slot::Loading(load.clone()));
            load
        };
        let loaded = self.version(identity, cohort, version).map(|model| {
            let name = self.handler.name();
            let line = (name.as_str(), &*identity.clone());
            let report =
                report::loaded(line, &model.info, (model.num_bytes(), model.copies.len()), &model.memory);
            let at_once = model.info.max_concurrency.unwrap_or(usize::MAX);
            let gate = Gate::new(at_once.saturating_mul(model.copies.len()));
            Arc::new(ModelCell {
                latencies: report::latencies(&report),
                key: key.clone(),
                current: Mutex::new(Arc::new(model)),
                trial: Mutex::new(None),
                has_trial: AtomicBool::new(false),
                retired: Mutex::default(),
                report,
                gate,
            })
        });
        match &loaded {
            Ok(model) => {
                let any: Arc<dyn Any + Send + Sync> = model.clone();
                registry().insert(key, Slot::Loaded(Arc::downgrade(&any)));
            }
            Err(_) => {
                registry().remove(&key);
            }
        }
        *lock(&load.done) = Some(loaded.clone());
        load.changed.notify_all();
        loaded
    }

    /// Loads a model of its own: nobody else gets it by this.
    ///
    /// # Errors
    /// What `load_model` said; of kind [`Timeout`](ErrorKind::Timeout) when it took too long.
    pub(crate) fn version(
        &self,
        identity: &Arc<str>,
        cohort: usize,
        version: Option<&ModelMetadata>,
    ) -> Result<SharedModel<H::Model>> {
        let before = resident_bytes();
        let started = self.clock.now();
        let wanted = self.handler.copies().max(1);
        let (handler, metadata) = (self.handler.clone(), version.cloned());
        let load = move || {
            // All of the handler's own code that a load runs: a panic in it must not leave the others waiting.
            let loaded = catch_unwind(AssertUnwindSafe(|| {
                let load = |_| handler.load_cohort(cohort, metadata.as_ref());
                let copies = (0..wanted).map(load).collect::<Result<Vec<_>>>()?;
                let info = handler.model_info(&copies[0]);
                Ok((copies, info))
            }));
            loaded.unwrap_or_else(|panic| Err(panicked_loading(&*handler, &*panic)))
        };
        let (copies, info) = match self.timeout {
            None => load(),
            Some(timeout) => within(timeout, load).unwrap_or_else(|| {
                let message = format!("{} did not load its model within {timeout:?}", self.handler.name());
                Err(Error::new(ErrorKind::Timeout, "TB0350", message)
                    .with_help("a load that hangs is left behind; give it longer: `timeout`"))
            }),
        }?;
        let took = self.clock.now().saturating_sub(started);
        let grown = resident_bytes().saturating_sub(before);
        let told = info.bytes.map(|bytes| bytes.saturating_mul(wanted as u64)).filter(|bytes| *bytes > 0);
        // A model that is smaller than what can be measured still takes its own place.
        let bytes = told.unwrap_or_else(|| grown.max((size_of::<H::Model>() * wanted) as u64).max(1));
        let memory = memory::of(&self.handler.name(), &info, identity);
        let prefix = match (self.handler.cohort_name(cohort), version.map(|version| &*version.model_name)) {
            (Some(cohort), name) => Some(format!("{cohort}-{}_", name.unwrap_or_default()).into()),
            (None, Some(name)) if !name.is_empty() => Some(format!("{name}_").into()),
            (None, _) => None,
        };
        Ok(SharedModel {
            copies,
            turn: AtomicUsize::new(0),
            tag: Arc::new(ModelTag { id: info.model_id.clone(), prefix }),
            info,
            cost: LoadCost { took, bytes },
            told: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            memory,
            counted: Mutex::default(),
        })
    }

    /// The model of that identity is no longer given to anyone who asks for it: whoever asks next loads anew.
    pub(crate) fn forget(&self, cell: &Arc<ModelCell<H::Model>>) {
        let mut slots = registry();
        let any: Arc<dyn Any + Send + Sync> = cell.clone();
        if matches!(slots.get(&cell.key), Some(Slot::Loaded(weak)) if weak.ptr_eq(&Arc::downgrade(&any))) {
            slots.remove(&cell.key);
        }
    }
}

/// So many calls may be left behind at once; more are not begun.
const MOST_LEFT_BEHIND: usize = 64;
static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// Where a call on a thread of its own stands: it runs; somebody has given it up; it is done.
const RUNS: u8 = 0;
const GIVEN_UP: u8 = 1;
const DONE: u8 = 2;

/// Runs `call` on a thread of its own and gives what it gives; nothing if it takes longer than `timeout`. Then it is left
/// behind: a thread can't be stopped, but it keeps nobody from going on, nor the process from ending.
pub(crate) fn within<T: Send + 'static>(
    timeout: Duration,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Option<Result<T>> {
    let refused = |message: &str| Error::new(ErrorKind::Io, "TB0351", message);
    if LEFT_BEHIND.load(Ordering::Relaxed) >= MOST_LEFT_BEHIND {
        let message = format!("{MOST_LEFT_BEHIND} calls of models did not come back yet; no more are begun");
        return Some(Err(refused(&message).with_retryable(false)));
    }
    let (tell, told) = channel();
    let state = Arc::new(AtomicU8::new(RUNS));
    let thread = std::thread::Builder::new().name("tiebeam-model".to_owned());
    let own = state.clone();
    let started = thread.spawn(move || {
        let _nobody_waits = tell.send(call());
        if own.swap(DONE, Ordering::Relaxed) == GIVEN_UP {
            LEFT_BEHIND.fetch_sub(1, Ordering::Relaxed);
        }
    });
    if let Err(error) = started {
        return Some(Err(refused("no thread for a call with a timeout").with_source(error)));
    }
    let called = told.recv_timeout(timeout).ok();
    if called.is_none() {
        LEFT_BEHIND.fetch_add(1, Ordering::Relaxed);
        if state.swap(GIVEN_UP, Ordering::Relaxed) == DONE {
            LEFT_BEHIND.fetch_sub(1, Ordering::Relaxed);
        }
    }
    called
}

fn wait_for<M>(load: &Load<M>) -> Result<Arc<ModelCell<M>>> {
    let mut done = lock(&load.done);
    loop {
        if let Some(result) = &*done {
            return result.clone();
        }
        done = load.changed.wait(done).unwrap_or_else(PoisonError::into_inner);
    }
}

/// The process's resident memory, or 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// A handler's own code panicked while it loaded a model.
pub(crate) fn panicked_loading<H: ModelHandler>(handler: &H, panic: &(dyn Any + Send)) -> Error {
    let message = format!("{} panicked while it loaded its model: {}", handler.name(), panic_text(panic));
    Error::new(ErrorKind::Model, "TB0323", message)
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
