//! Elements kept between stages, still typed inside.

use std::sync::{Arc, Mutex, PoisonError};

use tiebeam_core::Result;
use tiebeam_exec::{AnyBatch, BatchSink};

/// The batches that a bundle makes for one output; taken when the bundle is done.
#[derive(Clone, Default)]
pub(crate) struct BundleBatches(Arc<Mutex<Vec<Arc<dyn AnyBatch>>>>);

impl BundleBatches {
    /// A sink that keeps batches here.
    pub(crate) fn sink(&self) -> Box<dyn BatchSink> {
        Box::new(Sink(self.clone()))
    }

    /// What came since the last call.
    pub(crate) fn take(&self) -> Vec<Arc<dyn AnyBatch>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Sink(BundleBatches);

impl BatchSink for Sink {
    fn accept(&mut self, batch: Arc<dyn AnyBatch>) -> Result<()> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
        Ok(())
    }
}
