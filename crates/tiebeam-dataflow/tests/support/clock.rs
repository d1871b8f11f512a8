//! A clock that stands until somebody waits.

#![allow(dead_code)] // each test program uses its own part of it

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tiebeam_dataflow::Clock;

pub struct TestClock {
    now: Mutex<SystemTime>,
    pub slept: Mutex<Vec<Duration>>,
}

impl Default for TestClock {
    fn default() -> TestClock {
        TestClock {
            now: Mutex::new(UNIX_EPOCH + Duration::from_secs(1_795_000_000)),
            slept: Mutex::default(),
        }
    }
}

impl TestClock {
    /// The pauses so far, in milliseconds; forgets them.
    pub fn pauses(&self) -> Vec<u128> {
        std::mem::take(&mut *self.slept.lock().unwrap()).iter().map(Duration::as_millis).collect()
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        *self.now.lock().unwrap()
    }

    fn sleep(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
        self.slept.lock().unwrap().push(time);
    }
}
