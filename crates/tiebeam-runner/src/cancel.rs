//! Stopping a job from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// How a job is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all.
    No,
    /// Read no further, finish what is in, commit.
    Drain,
    /// Leave everything as it was.
    Cancel,
}

/// Asks a job to stop; clones ask the same job. Can be used from a signal handler's thread.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicU8>);

impl CancelToken {
    /// Asks. A job that was cancelled can't be drained any more.
    pub fn stop(&self, how: Stop) {
        self.0.fetch_max(how as u8, Ordering::SeqCst);
    }

    /// What was asked.
    pub fn asked(&self) -> Stop {
        match self.0.load(Ordering::Relaxed) {
            0 => Stop::No,
            1 => Stop::Drain,
            _ => Stop::Cancel,
        }
    }
}
