//! [`Clock`]: where the time that batching and latency metrics see comes from.

use std::fmt;
use std::time::{Duration, Instant};

/// A clock that only moves forward. Real runs use [`SystemClock`]; tests bring one that they move by hand.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The time since some fixed moment.
    fn now(&self) -> Duration;
}

/// The machine's monotonic clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
