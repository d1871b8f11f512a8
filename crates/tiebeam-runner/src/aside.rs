//! What one thread's bundles make, kept aside until they are done, and where they put what they don't hold.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tiebeam_core::Result;

use crate::memory::Memory;
use crate::shuffle::{BundleBlocks, Written};
use crate::spill::SpillFile;
use crate::store::{BundleBatches, Kept};

/// What a bundle makes for one output.
pub(crate) enum Aside {
    Batches(BundleBatches),
    Blocks(BundleBlocks),
}

/// The same of a bundle that is done.
pub(crate) enum Output {
    Batches(Kept),
    Blocks(Written),
}

impl Aside {
    /// What came since the last call.
    pub(crate) fn take(&self) -> Result<Output> {
        Ok(match self {
            Aside::Batches(batches) => Output::Batches(batches.take()?),
            Aside::Blocks(blocks) => Output::Blocks(blocks.take()?),
        })
    }

    /// Throws it away.
    pub(crate) fn forget(&self) {
        match self {
            Aside::Batches(batches) => batches.forget(),
            Aside::Blocks(blocks) => blocks.forget(),
        }
    }
}

/// The nameless file of a stage, made when something does not fit in memory.
#[derive(Default)]
pub(crate) struct StageFile(Mutex<Option<Arc<SpillFile>>>);

/// Where the bundles of one thread put what they don't hold.
pub(crate) struct Room {
    memory: Arc<Memory>,
    stage: Arc<StageFile>,
    /// Whether all that bundles make must outlive the process.
    kept: bool,
    /// Of a job that can be resumed, the file of the bundle that runs: its path, and itself once it is begun.
    bundle: Mutex<Option<(PathBuf, Option<Arc<SpillFile>>)>>,
}

impl Room {
    /// Of a job's bundles.
    pub(crate) fn new(memory: &Arc<Memory>, stage: &Arc<StageFile>) -> Arc<Self> {
        let kept = memory.state().is_some();
        Arc::new(Room { memory: memory.clone(), stage: stage.clone(), kept, bundle: Mutex::default() })
    }

    /// Of something that is made anew by the next process.
    pub(crate) fn passing(memory: &Arc<Memory>) -> Arc<Self> {
        let (memory, stage) = (memory.clone(), Arc::default());
        Arc::new(Room { memory, stage, kept: false, bundle: Mutex::default() })
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Whether all that bundles make must outlive the process.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept
    }

    /// A new attempt at a bundle, whose output goes into that file.
    pub(crate) fn begin(&self, path: Option<PathBuf>) {
        *self.bundle.lock().unwrap_or_else(PoisonError::into_inner) = path.map(|path| (path, None));
    }

    /// The file to write to.
    pub(crate) fn file(&self) -> Result<Arc<SpillFile>> {
        if let Some((path, file)) = &mut *self.bundle.lock().unwrap_or_else(PoisonError::into_inner) {
            return match file {
                Some(file) => Ok(file.clone()),
                None => Ok(file.insert(SpillFile::create(path.clone())?).clone()),
            };
        }
        let mut file = self.stage.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*file {
            Some(file) => Ok(file.clone()),
            None => Ok(file.insert(SpillFile::nameless(self.memory.dir())?).clone()),
        }
    }

    /// The bundle's own file with everything on stable storage, if it has one and wrote anything.
    pub(crate) fn finish(&self) -> Result<()> {
        match self.bundle.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some((_, Some(file))) => file.finish(),
            _ => Ok(()),
        }
    }
}
