//! How a step takes newer versions of its model: from a side input or a watched pattern; tried, then swapped in, or put on
//! trial as a canary or in the shadow.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::{BundleContext, Window};

use crate::batcher::ModelId;
use crate::call::{MeterBook, Verdict, guarded, too_slow, wrong_count};
use crate::chain::Before;
use crate::handler::ModelHandler;
use crate::model::{ModelCell, SharedModel, Trial, within};
use crate::report;
use crate::step::{Step, lock};
use crate::update::ModelMetadata;
use crate::watch::{self, Watcher};

/// A version that failed for a reason that may pass is tried so often, with these pauses between, each twice the last.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How often whoever loads a new version looks whether the last one but one is gone.
const LOOK: Duration = Duration::from_millis(2);

/// A version for a cohort, and what is to be done when its model is there: gives the cohorts that nobody needs any more.
pub(crate) struct CohortUpdate {
    pub(crate) cohort: usize,
    pub(crate) version: ModelMetadata,
    /// There is no such cohort yet.
    pub(crate) begins: bool,
    pub(crate) commit: Box<dyn Fn() -> Vec<usize> + Send>,
}

/// A list of versions for keys, of whatever type of keys.
pub(crate) type Versions = Arc<dyn Any + Send + Sync>;

/// Reads the side input of versions for keys as it is for a window: the list and the plan that it makes; nothing where it is
/// the one that was read last.
pub(crate) type KeyedUpdates = Arc<
    dyn Fn(&BundleContext<'_>, &Window, Option<&Versions>) -> Result<Option<(Versions, Vec<CohortUpdate>)>>
        + Send
        + Sync,
>;

/// What the side input of versions for keys held last, and what of it is still to be loaded.
#[derive(Default)]
pub(crate) struct FollowedKeyed {
    list: Option<Versions>,
    /// With the number of attempts, and when the next one is.
    open: Vec<(CohortUpdate, u32, Duration)>,
}

/// What the side input named last, and what became of it.
#[derive(Default)]
pub(crate) struct Followed {
    version: ModelMetadata,
    attempts: u32,
    /// When it is tried again; none when that is settled.
    again: Option<Duration>,
}

impl<H: ModelHandler, B: Before<H::Example>, A: Send + Sync + 'static> Step<H, B, A> {
    /// The new version computes the batch. If it can't, the old one does; if that can, the new one is withdrawn.
    pub(super) fn canary(
        &self,
        cell: &Arc<ModelCell<H::Model>>,
        cohort: usize,
        trial: &Arc<Trial<H::Model>>,
        version: Arc<SharedModel<H::Model>>,
        examples: &[H::Example],
        meters: &MeterBook<H::Model>,
    ) -> (Verdict<H::Inference>, ModelId) {
        let fails = |verdict: &Verdict<H::Inference>| match verdict {
            Verdict::All(_) => None,
            Verdict::Failed(error) => Some(error.clone()),
            Verdict::Each(each) => each.iter().find_map(|one| one.as_ref().err().map(|e| e.error.clone())),
        };
        let done = self.compute_with(cohort, trial.model.clone(), examples, meters);
        let Some(error) = fails(&done.0) else {
            if trial.went_well(examples.len()) {
                self.promote(cell, cohort, trial);
            }
            return done;
        };
        let old = self.compute_with(cohort, version, examples, meters);
        if fails(&old.0).is_none() {
            cell.withdraw_trial();
            self.note_failed(cell, &error.at_step("canary"));
        }
        old
    }

    /// The new version computes the batch too, and what differs is counted.
    pub(super) fn shadow(
        &self,
        cell: &Arc<ModelCell<H::Model>>,
        cohort: usize,
        trial: &Arc<Trial<H::Model>>,
        examples: &[H::Example],
        verdict: &Verdict<H::Inference>,
        meters: &MeterBook<H::Model>,
    ) {
        let Some(old) = verdict.predictions() else { return };
        let asked = self.ask(&trial.model, examples);
        let differs = match (&asked, &self.settings.updates.same) {
            (Err(_), _) => old.len(),
            (Ok(new), Some(same)) => old.iter().zip(new).filter(|(old, new)| !same(old, new)).count(),
            (Ok(new), None) => {
                let coder = <H::Inference as tiebeam_core::Element>::coder();
                let bytes = |p: &H::Inference| coder.to_bytes(p).ok();
                old.iter().zip(new).filter(|(old, new)| bytes(old) != bytes(new)).count()
            }
        };
        meters.shadowed(examples.len(), differs);
        match asked {
            Err(error) => {
                cell.withdraw_trial();
                self.note_failed(cell, &error.at_step("shadow"));
            }
            Ok(_) if trial.went_well(examples.len()) => self.promote(cell, cohort, trial),
            Ok(_) => {}
        }
    }

    /// One guarded call outside of the metrics.
    fn ask(&self, model: &Arc<SharedModel<H::Model>>, examples: &[H::Example]) -> Result<Vec<H::Inference>> {
        let (handler, args, shared) = (self.handler.clone(), self.settings.args.clone(), model.clone());
        let owned = examples.to_vec();
        let call = move || guarded(&*handler, owned.len(), || handler.predict(&owned, shared.next(), &args));
        let predictions = match self.settings.timeout {
            None => call(),
            Some(timeout) => within(timeout, call)
                .unwrap_or_else(|| Err(too_slow(&*self.handler, examples.len(), timeout))),
        }?;
        if predictions.len() != examples.len() {
            return Err(wrong_count(&*self.handler, predictions.len(), examples.len()));
        }
        predictions.into_all()
    }

    fn promote(&self, cell: &Arc<ModelCell<H::Model>>, cohort: usize, trial: &Arc<Trial<H::Model>>) {
        if cell.promote(trial, self.handler.copies().max(1)) {
            self.swaps.0.fetch_add(1, Ordering::Relaxed);
            self.models.set_version(cohort, &trial.metadata);
        }
    }

    fn note_failed(&self, cell: &ModelCell<H::Model>, error: &Error) {
        self.swaps.1.fetch_add(1, Ordering::Relaxed);
        report::swap_failed(&cell.report, error.to_string());
    }

    /// Swaps and failed swaps since the last time this was asked.
    pub(crate) fn take_swaps(&self) -> (u64, u64) {
        let take = |count: &AtomicU64| match count.load(Ordering::Relaxed) {
            0 => 0,
            _ => count.swap(0, Ordering::Relaxed),
        };
        (take(&self.swaps.0), take(&self.swaps.1))
    }

    /// The version that the side input names is loaded, unless it is in use; who asks meanwhile waits. If it can't be
    /// loaded, the model in use stays.
    pub(crate) fn follow(&self, wanted: &ModelMetadata) {
        if wanted.model_id.is_empty() {
            return;
        }
        let mut followed = lock(&self.followed);
        let now = self.settings.clock.now();
        if followed.version != *wanted {
            *followed = Followed { version: wanted.clone(), attempts: 0, again: Some(now) };
        }
        if followed.again.is_none_or(|again| now < again) {
            return;
        }
        followed.attempts += 1;
        followed.again = match self.update(0, wanted, &|| true) {
            Err(error) if error.is_retryable() && followed.attempts < ATTEMPTS => {
                Some(now + FIRST_PAUSE * 2u32.pow(followed.attempts - 1))
            }
            _ => None,
        };
    }

    /// The versions for keys that the side input names are loaded; keys whose version can't be loaded keep their model.
    ///
    /// # Errors
    /// When the side input can't be read, or its lists are no update.
    pub(crate) fn follow_keyed(
        &self,
        updates: &KeyedUpdates,
        cx: &BundleContext<'_>,
        window: &Window,
    ) -> Result<()> {
        let mut followed = lock(&self.followed_keyed);
        let now = self.settings.clock.now();
        let new = updates(cx, window, followed.list.as_ref())?;
        if let Some((list, plan)) = new {
            let open = plan.into_iter().map(|update| (update, 0, now)).collect();
            *followed = FollowedKeyed { list: Some(list), open };
        }
        for (update, attempts, at) in std::mem::take(&mut followed.open) {
            if now < at {
                followed.open.push((update, attempts, at));
                continue;
            }
            match self.update_keys(&update) {
                Ok(()) => (update.commit)().into_iter().for_each(|left| self.models.let_go(left)),
                Err(error) if error.is_retryable() && attempts + 1 < ATTEMPTS => {
                    followed.open.push((update, attempts + 1, now + FIRST_PAUSE * 2u32.pow(attempts)));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Loads the version of some keys.
    fn update_keys(&self, update: &CohortUpdate) -> Result<()> {
        if !update.begins {
            return self.update(update.cohort, &update.version, &|| true);
        }
        self.models.set_version(update.cohort, &update.version);
        let loaded = self.load(update.cohort).map(drop);
        let count = if loaded.is_ok() { &self.swaps.0 } else { &self.swaps.1 };
        count.fetch_add(1, Ordering::Relaxed);
        loaded
    }

    /// Loads a version beside the one in use, tries it on an example, and swaps it in or puts it on trial. `is_settled` says
    /// after the load whether what was loaded is still there as it was.
    ///
    /// # Errors
    /// Why the version was refused: the one in use stays. It is counted.
    pub(crate) fn update(
        &self,
        cohort: usize,
        metadata: &ModelMetadata,
        is_settled: &dyn Fn() -> bool,
    ) -> Result<()> {
        let _one_at_a_time = lock(&self.updating);
        let cell = self.load(cohort)?;
        if cell.current().tag.id.as_ref() == metadata.model_id && self.settings.updates.watch.is_none() {
            return Ok(());
        }
        cell.withdraw_trial();
        // There is never more than one model beside the one in use.
        while cell.is_retiring() {
            std::thread::park_timeout(LOOK);
        }
        let new = self.try_version(cohort, &cell, metadata, is_settled);
        match new {
            Ok(Some(new)) if self.settings.updates.rollout.is_trial() => {
                cell.try_out(Arc::new(new), metadata.clone(), self.settings.updates.rollout);
            }
            Ok(Some(new)) => {
                let memory = new.memory.clone();
                // Before anybody can see it: who waits for it may be the last one to tell it on.
                self.swaps.0.fetch_add(1, Ordering::Relaxed);
                cell.swap(Arc::new(new), self.handler.copies().max(1));
                self.models.set_version(cohort, metadata);
                self.batcher.know(cohort, &memory, &cell.latencies);
            }
            Ok(None) => {}
            Err(error) => {
                self.note_failed(&cell, &error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// A version that was loaded and has done an example; nothing if it is what is in use already.
    fn try_version(
        &self,
        cohort: usize,
        cell: &ModelCell<H::Model>,
        metadata: &ModelMetadata,
        is_settled: &dyn Fn() -> bool,
    ) -> Result<Option<SharedModel<H::Model>>> {
        let old = cell.current();
        let new = self.models.loader.version(self.models.identity(cohort), cohort, Some(metadata))?;
        let refused = |why: String| {
            let message = format!("{} can't take the place of {}: {why}", metadata.model_id, old.tag.id);
            Err(Error::new(ErrorKind::Model, "TB0356", message))
        };
        if !is_settled() {
            let error = Error::new(
                ErrorKind::Io,
                "TB0358",
                format!("{} changed while it was loaded", metadata.model_id),
            );
            return Err(error.with_retryable(true));
        }
        let is_same_place = old.info.uri.is_some() && old.info.uri == new.info.uri;
        if is_same_place && old.info.sha256.is_some() && old.info.sha256 == new.info.sha256 {
            return Ok(None);
        }
        if let (Some(own), Some(others)) =
            (self.handler.signature(new.any()), self.handler.signature(old.any()))
            && let Some(why) = own.differs_from(&others)
        {
            return refused(why);
        }
        // The example was the first cohort's, whichever that was.
        let sample = lock(&self.sample).clone().filter(|sample| {
            self.models.len() == 1 || self.handler.cohort_of(sample).is_ok_and(|own| own == cohort)
        });
        let new = Arc::new(new);
        if let Some(sample) = sample {
            let tried = self
                .handler
                .check_example(&sample, new.any())
                .and_then(|()| self.ask(&new, std::slice::from_ref(&sample)));
            if let Err(error) = tried {
                return refused(format!("it fails on an example that the other one has done: {error}"));
            }
        }
        let Ok(new) = Arc::try_unwrap(new) else {
            return refused("a call of it does not come back".to_owned());
        };
        Ok(Some(new.told_apart_from(&old)))
    }

    /// Looks for newer files of the watched pattern, on a thread of its own, for as long as somebody needs the model.
    pub(super) fn watch(self: &Arc<Self>) {
        let Some((pattern, interval)) = &self.settings.updates.watch else { return };
        let Ok(mut watcher) = Watcher::new(pattern, std::time::SystemTime::now()) else { return };
        let stop = Arc::new(AtomicBool::new(false));
        *lock(&self.watching) = Some(stop.clone());
        let (step, interval) = (Arc::downgrade(self), *interval);
        // The files that are there now are not new.
        let mut found = watcher.look();
        let mut attempts = 0;
        let look = move || {
            loop {
                let Some(step) = step.upgrade().filter(|_| !stop.load(Ordering::Relaxed)) else { return };
                if let Some((path, print)) = found.take() {
                    let metadata = ModelMetadata::of(path.display().to_string());
                    match step.update(0, &metadata, &|| watch::print_of(&path) == Some(print)) {
                        Err(error) if error.is_retryable() && attempts < ATTEMPTS => {
                            attempts += 1;
                            watcher.again(&path);
                        }
                        _ => attempts = 0,
                    }
                }
                if stop.load(Ordering::Relaxed) {
                    // The run ended meanwhile, and the update has loaded what was let go.
                    step.models.clear();
                    return;
                }
                drop(step);
                std::thread::park_timeout(interval);
                found = watcher.look();
            }
        };
        let thread = std::thread::Builder::new().name("tiebeam-watch".to_owned());
        if let Err(error) = thread.spawn(look) {
            self.swaps.1.fetch_add(1, Ordering::Relaxed);
            let why = format!("no thread to watch {pattern}: {error}");
            self.models.loaded().iter().for_each(|cell| report::swap_failed(&cell.report, why.clone()));
        }
    }
}
