//! How a handler asks: retries, limits, deadlines.

use std::sync::Arc;
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind, Result};

use crate::time::{self, Time};

/// Adaptive throttling: requests are held back with the probability max(0, (all − 2 · accepted) / (all + 1)) over the
/// last requests.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Throttle {
    /// How far back it looks.
    pub(crate) window: Duration,
    /// How long a request is held back before it is drawn again.
    pub(crate) delay: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Examples in a request; none is the model's own default.
    pub(crate) request_size: Option<usize>,
    pub(crate) max_concurrency: usize,
    pub(crate) max_attempts: u32,
    pub(crate) first_pause: Duration,
    pub(crate) longest_pause: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) deadline: Duration,
    pub(crate) requests_per_second: Option<f64>,
    pub(crate) throttle: Option<Throttle>,
    pub(crate) max_response_bytes: u64,
    pub(crate) seed: Option<u64>,
    pub(crate) time: Arc<dyn Time>,
    /// Sent with every request; their values are secrets.
    pub(crate) headers: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            request_size: None,
            max_concurrency: 8,
            max_attempts: 6,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
            request_timeout: Duration::from_secs(120),
            deadline: Duration::from_secs(600),
            requests_per_second: None,
            throttle: Some(Throttle { window: Duration::from_secs(60), delay: Duration::from_secs(1) }),
            max_response_bytes: 64 << 20,
            seed: None,
            time: time::machine(),
            headers: Vec::new(),
        }
    }
}

impl Settings {
    /// The settings, if they can work.
    pub(crate) fn validate(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::InvalidArgument, "TB0600", message));
        for (name, is_none) in [
            ("request_size", self.request_size == Some(0)),
            ("max_concurrency", self.max_concurrency == 0),
            ("max_attempts", self.max_attempts == 0),
            ("request_timeout", self.request_timeout.is_zero()),
            ("deadline", self.deadline.is_zero()),
            ("max_response_bytes", self.max_response_bytes == 0),
        ] {
            if is_none {
                return wrong(format!("{name} must be more than nothing"));
            }
        }
        if let Some(rate) = self.requests_per_second
            && !(rate.is_finite() && rate >= 1e-6)
        {
            return wrong(format!("requests_per_second must be a number above 0, got {rate}"));
        }
        if self
            .throttle
            .as_ref()
            .is_some_and(|throttle| throttle.window.is_zero() || throttle.delay.is_zero())
        {
            return wrong("the window and the delay of the throttle must be more than nothing".to_owned());
        }
        Ok(())
    }

    /// The time between two requests.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.requests_per_second.map(|rate| Duration::from_secs_f64(1.0 / rate.max(1e-6)))
    }
}
