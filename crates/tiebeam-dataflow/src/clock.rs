//! Time, so that tests need not wait for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What tells the time and waits.
pub trait Clock: Send + Sync {
    /// The time of day.
    fn now(&self) -> SystemTime;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// What is left until `time`, nothing when it has passed.
pub(crate) fn until(clock: &dyn Clock, time: SystemTime) -> Duration {
    time.duration_since(clock.now()).unwrap_or_default()
}

/// Time since 1970.
pub(crate) fn since_epoch(clock: &dyn Clock) -> Duration {
    clock.now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
