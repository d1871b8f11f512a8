//! [`ModelSet`]: the loaded models of one step, one for each cohort, as many at once as the step may have.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tiebeam_core::error::{Error, Result};

use crate::handler::{ModelHandler, ModelLimit};
use crate::model::{Loader, ModelCell, SharedModel};
use crate::update::ModelMetadata;

/// A load that failed is not tried again before this: else every batch would try.
const PAUSE: Duration = Duration::from_secs(1);

struct Slot<M> {
    cell: Option<Arc<ModelCell<M>>>,
    /// Batches that are computed with it.
    users: usize,
    /// When it was used last, by the count of uses.
    used: u64,
    is_loading: bool,
    /// What it takes in memory, as far as a load has told.
    bytes: u64,
    /// The version that took the place of the handler's own.
    version: Option<ModelMetadata>,
    /// Why the last load failed, and till when that is the answer.
    failed: Option<(Duration, Error)>,
}

struct State<M> {
    slots: Vec<Slot<M>>,
    uses: u64,
}

/// See the module.
pub(crate) struct ModelSet<H: ModelHandler> {
    pub(crate) loader: Loader<H>,
    identities: Vec<Arc<str>>,
    limit: ModelLimit,
    state: Mutex<State<H::Model>>,
    changed: Condvar,
}

/// A cohort's model while a batch is computed with it.
pub(crate) struct InUse<'a, H: ModelHandler> {
    set: &'a ModelSet<H>,
    cohort: usize,
    pub(crate) cell: Arc<ModelCell<H::Model>>,
}

impl<H: ModelHandler> Drop for InUse<'_, H> {
    fn drop(&mut self) {
        if let Some(slot) = self.set.lock().slots.get_mut(self.cohort) {
            slot.users -= 1;
        }
        if self.set.limit.is_set() {
            self.set.changed.notify_all();
        }
    }
}

impl<H: ModelHandler> ModelSet<H> {
    pub(crate) fn new(loader: Loader<H>, identity: &Arc<str>, limit: ModelLimit) -> Self {
        let cohorts = loader.handler.cohorts().max(1);
        let of = |cohort| match cohorts {
            1 => identity.clone(),
            _ => format!("{identity}/{cohort}").into(),
        };
        let slot = |_| Slot {
            cell: None,
            users: 0,
            used: 0,
            is_loading: false,
            bytes: 0,
            version: None,
            failed: None,
        };
        ModelSet {
            loader,
            identities: (0..cohorts).map(of).collect(),
            limit,
            state: Mutex::new(State { slots: (0..cohorts).map(slot).collect(), uses: 0 }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<H::Model>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of cohorts.
    pub(crate) fn len(&self) -> usize {
        self.identities.len()
    }

    /// The identity of a cohort's model.
    pub(crate) fn identity(&self, cohort: usize) -> &Arc<str> {
        &self.identities[cohort]
    }

    /// How many models may be loaded before anything is read.
    pub(crate) fn at_first(&self) -> usize {
        let all = self.loader.handler.first_cohorts().clamp(1, self.len());
        self.limit.models.map_or(all, |most| most.clamp(1, all))
    }

    /// The cohort's model if it is loaded.
    pub(crate) fn peek(&self, cohort: usize) -> Option<Arc<ModelCell<H::Model>>> {
        self.lock().slots.get(cohort)?.cell.clone()
    }

    /// All that are loaded.
    pub(crate) fn loaded(&self) -> Vec<Arc<ModelCell<H::Model>>> {
        self.lock().slots.iter().filter_map(|slot| slot.cell.clone()).collect()
    }

    /// The cohort's model, loaded if it isn't; before that others are let go, the longest unused ones first, as far as the
    /// limit asks for it. Where all of them are in use, this waits for one.
    ///
    /// # Errors
    /// What the load said; for a moment after it also to those who ask again.
    pub(crate) fn acquire(&self, cohort: usize) -> Result<InUse<'_, H>> {
        let mut state = self.lock();
        loop {
            state.uses += 1;
            let uses = state.uses;
            let slot = state.slots.get_mut(cohort).ok_or_else(no_such_cohort)?;
            if let Some(cell) = &slot.cell {
                let cell = cell.clone();
                slot.users += 1;
                slot.used = uses;
                return Ok(InUse { set: self, cohort, cell });
            }
            if let Some((until, error)) = &slot.failed {
                if self.loader.clock.now() < *until {
                    return Err(error.clone());
                }
                slot.failed = None;
            }
            if !slot.is_loading && self.make_room(&mut state, cohort) {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let slot = &mut state.slots[cohort];
        slot.is_loading = true;
        let version = slot.version.clone();
        drop(state);
        let loaded = self.loader.cell(&self.identities[cohort], cohort, version.as_ref());
        let mut state = self.lock();
        let slot = &mut state.slots[cohort];
        slot.is_loading = false;
        let result = match loaded {
            Ok(cell) => {
                slot.bytes = cell.current().num_bytes();
                slot.cell = Some(cell.clone());
                slot.users += 1;
                Ok(InUse { set: self, cohort, cell })
            }
            Err(error) => {
                slot.failed = Some((self.loader.clock.now() + PAUSE, error.clone()));
                Err(error)
            }
        };
        if result.is_ok() {
            // What it takes is known only now.
            self.make_room(&mut state, cohort);
        }
        drop(state);
        self.changed.notify_all();
        result
    }

    /// Lets models go until there is room for that cohort's; says whether there is.
    fn make_room(&self, state: &mut State<H::Model>, cohort: usize) -> bool {
        loop {
            let others = || state.slots.iter().enumerate().filter(|(i, _)| *i != cohort);
            let is_held = |slot: &&Slot<H::Model>| slot.cell.is_some() || slot.is_loading;
            let (mut models, mut bytes) = (1, state.slots[cohort].bytes);
            for (_, slot) in others().filter(|(_, slot)| is_held(slot)) {
                models += 1;
                bytes = bytes.saturating_add(slot.bytes);
            }
            let is_full = self.limit.models.is_some_and(|most| models > most.max(1))
                || self.limit.bytes.is_some_and(|most| bytes > most && models > 1);
            if !is_full {
                return true;
            }
            let idle = others().filter(|(_, slot)| slot.cell.is_some() && slot.users == 0);
            let Some((oldest, _)) = idle.min_by_key(|(_, slot)| slot.used) else { return false };
            state.slots[oldest].cell = None;
        }
    }

    /// A call of that version did not come back: it is not used again, and loaded anew for whoever asks next.
    pub(crate) fn discard(&self, cohort: usize, hanging: &Arc<SharedModel<H::Model>>) {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(cohort) else { return };
        if slot.cell.as_ref().is_some_and(|cell| Arc::ptr_eq(&cell.current(), hanging))
            && let Some(cell) = slot.cell.take()
        {
            self.loader.forget(&cell);
        }
    }

    /// The cohort's model is loaded in that version from now on.
    pub(crate) fn set_version(&self, cohort: usize, version: &ModelMetadata) {
        if let Some(slot) = self.lock().slots.get_mut(cohort) {
            slot.version = Some(version.clone());
            // That was another version, or another attempt.
            slot.failed = None;
        }
    }

    /// Lets a cohort's model go: nobody asks for it any more.
    pub(crate) fn let_go(&self, cohort: usize) {
        let cell = self.lock().slots.get_mut(cohort).and_then(|slot| slot.cell.take());
        drop(cell);
        self.changed.notify_all();
    }

    /// Lets all models go.
    pub(crate) fn clear(&self) {
        let cells: Vec<_> = self.lock().slots.iter_mut().filter_map(|slot| slot.cell.take()).collect();
        // Dropped without the lock: what a model owns may take long to drop.
        drop(cells);
    }
}

fn no_such_cohort() -> Error {
    Error::internal("a cohort that the handler has not told of")
}
