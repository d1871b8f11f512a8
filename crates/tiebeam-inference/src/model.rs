//! The shared model: loaded once a process, used by all threads, released with its last user.
//!
//! The registry holds models weakly, by the type of the model and an identity. Whoever asks first loads; who asks
//! meanwhile waits for that one load and gets its model or its error. An error is not kept: the next one to ask loads
//! anew.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind, Result};

use crate::clock::Clock;
use crate::handler::{ModelHandler, ModelInfo};
use crate::memory::{self, ModelMemory};
use crate::report;

/// What a load took, told once to the metrics of whoever used the model first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoadCost {
    pub(crate) took: Duration,
    pub(crate) bytes: u64,
}

/// A loaded model with its copies.
pub(crate) struct SharedModel<M> {
    copies: Vec<M>,
    turn: AtomicUsize,
    pub(crate) info: ModelInfo,
    cost: LoadCost,
    told: AtomicBool,
    key: Key,
    /// How large its batches may be.
    pub(crate) memory: Arc<ModelMemory>,
    /// The line of this model in the process's report.
    pub(crate) report: report::Line,
}

impl<M> SharedModel<M> {
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
        (!self.told.swap(true, Ordering::Relaxed)).then_some(self.cost)
    }

    /// Whoever asked for the cost failed, and its metrics with it: somebody else shall ask again.
    pub(crate) fn tell_again(&self) {
        self.told.store(false, Ordering::Relaxed);
    }
}

impl<M> Drop for SharedModel<M> {
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
    /// It was loaded: a `SharedModel<M>`, perhaps gone by now.
    Loaded(Weak<dyn Any + Send + Sync>),
}

struct Load<M> {
    done: Mutex<Option<Result<Arc<SharedModel<M>>>>>,
    changed: Condvar,
}

static REGISTRY: LazyLock<Mutex<HashMap<Key, Slot>>> = LazyLock::new(Mutex::default);
static UNIQUE: AtomicU64 = AtomicU64::new(0);

fn registry() -> MutexGuard<'static, HashMap<Key, Slot>> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An identity that nobody else has: steps without a common one each load a model of their own.
pub(crate) fn unique_identity() -> Arc<str> {
    format!("#{}", UNIQUE.fetch_add(1, Ordering::Relaxed)).into()
}

/// The model of that identity, loaded by `handler` if it isn't yet.
///
/// # Errors
/// What `load_model` said, for everyone who waited for that load.
pub(crate) fn shared_model<H: ModelHandler>(
    handler: &H,
    identity: &Arc<str>,
    clock: &dyn Clock,
) -> Result<Arc<SharedModel<H::Model>>> {
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
    let loaded = load_now(handler, &key, clock).map(Arc::new);
    match &loaded {
        Ok(model) => {
            let any: Arc<dyn Any + Send + Sync> = model.clone();
            registry().insert(key, Slot::Loaded(Arc::downgrade(&any)));
        }
        Err(_) => {
            registry().remove(&key);
        }
    }
    *load.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded.clone());
    load.changed.notify_all();
    loaded
}

fn wait_for<M>(load: &Load<M>) -> Result<Arc<SharedModel<M>>> {
    let mut done = load.done.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(result) = &*done {
            return result.clone();
        }
        done = load.changed.wait(done).unwrap_or_else(PoisonError::into_inner);
    }
}

fn load_now<H: ModelHandler>(handler: &H, key: &Key, clock: &dyn Clock) -> Result<SharedModel<H::Model>> {
    let before = resident_bytes();
    let started = clock.now();
    let wanted = handler.copies().max(1);
    // All of the handler's own code that a load runs: a panic in it must not leave the others waiting.
    let loaded = catch_unwind(AssertUnwindSafe(|| {
        let copies = (0..wanted).map(|_| handler.load_model()).collect::<Result<Vec<_>>>()?;
        let took = clock.now().saturating_sub(started);
        let info = handler.model_info(&copies[0]);
        Ok((copies, took, info))
    }));
    let (copies, took, info) = loaded.unwrap_or_else(|panic| {
        let said = panic_text(&*panic);
        Err(Error::new(
            ErrorKind::Model,
            "TB0323",
            format!("{} panicked while it loaded its model: {said}", handler.name()),
        ))
    })?;
    let grown = resident_bytes().saturating_sub(before);
    let told = info.bytes.map(|bytes| bytes.saturating_mul(wanted as u64)).filter(|bytes| *bytes > 0);
    // A model that is smaller than what can be measured still takes its own place.
    let bytes = told.unwrap_or_else(|| grown.max((size_of::<H::Model>() * wanted) as u64).max(1));
    let name = handler.name();
    let memory = memory::of(&name, &info, &key.1);
    let report = report::loaded((&name, &key.1), &info, (bytes, wanted), &memory);
    Ok(SharedModel {
        copies,
        turn: AtomicUsize::new(0),
        info,
        cost: LoadCost { took, bytes },
        told: AtomicBool::new(false),
        key: key.clone(),
        memory,
        report,
    })
}

/// The process's resident memory, or 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
