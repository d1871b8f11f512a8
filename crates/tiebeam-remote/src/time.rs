//! [`Time`]: where waiting and deadlines come from, so that tests need not sleep.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

/// A clock that one can wait on. Real runs use the machine's; tests bring one that they move by hand.
pub trait Time: Send + Sync + fmt::Debug + 'static {
    /// The time since some fixed moment; it only moves forward.
    fn now(&self) -> Duration;

    /// The time of day, for dates that servers name.
    fn date(&self) -> SystemTime;

    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The machine's clock.
#[derive(Debug)]
struct MachineTime(Instant);

impl Time for MachineTime {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn date(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, time: Duration) {
        // Waiting is what is asked for: a pause between requests, on a thread that has nothing else to do.
        std::thread::sleep(time);
    }
}

/// The machine's clock: one for the process, since endpoints are shared by all who measure time alike.
pub(crate) fn machine() -> Arc<dyn Time> {
    static MACHINE: LazyLock<Arc<MachineTime>> = LazyLock::new(|| Arc::new(MachineTime(Instant::now())));
    MACHINE.clone()
}

#[cfg(test)]
pub(crate) mod fake {
    use std::sync::Mutex;

    use super::*;

    /// A clock that moves only when somebody sleeps.
    #[derive(Debug, Default)]
    pub(crate) struct FakeTime {
        now: Mutex<Duration>,
        sleeps: Mutex<Vec<Duration>>,
    }

    impl FakeTime {
        pub(crate) fn advance(&self, by: Duration) {
            *self.now.lock().unwrap() += by;
        }

        pub(crate) fn sleeps(&self) -> Vec<Duration> {
            self.sleeps.lock().unwrap().clone()
        }
    }

    impl Time for FakeTime {
        fn now(&self) -> Duration {
            *self.now.lock().unwrap()
        }

        fn date(&self) -> SystemTime {
            // A day of the year 2026, so that dates can be named.
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000) + self.now()
        }

        fn sleep(&self, time: Duration) {
            self.sleeps.lock().unwrap().push(time);
            self.advance(time);
        }
    }
}
