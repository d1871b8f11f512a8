//! Signals: the first asks for a drain, the second cancels, the third exits now.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tiebeam_runner::{CancelToken, Stop};

use super::exit::to_stderr;

/// Listens as long as it lives.
pub(crate) struct Listening {
    handle: Option<Handle>,
    last: Arc<AtomicI32>,
}

impl Listening {
    /// Turns signals into requests to `cancel`.
    pub(crate) fn start(cancel: CancelToken, drain_timeout: Duration) -> Self {
        let last = Arc::new(AtomicI32::new(0));
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else {
            return Listening { handle: None, last };
        };
        let handle = signals.handle();
        let seen = last.clone();
        let count = AtomicUsize::new(0);
        std::thread::spawn(move || {
            for signal in signals.forever() {
                seen.store(signal, Ordering::SeqCst);
                match count.fetch_add(1, Ordering::SeqCst) {
                    0 => {
                        to_stderr(
                            "draining: reading stops, what was read is finished; once more to cancel\n",
                        );
                        cancel.stop(Stop::Drain);
                        let cancel = cancel.clone();
                        std::thread::spawn(move || {
                            std::thread::sleep(drain_timeout);
                            cancel.stop(Stop::Cancel);
                        });
                    }
                    1 => {
                        to_stderr("cancelling\n");
                        cancel.stop(Stop::Cancel);
                    }
                    // The user has asked three times: whatever hangs is not worth waiting for.
                    _ => std::process::exit(128 + signal),
                }
            }
        });
        Listening { handle: Some(handle), last }
    }

    /// The last signal that came, 0 for none.
    pub(crate) fn last(&self) -> u8 {
        u8::try_from(self.last.load(Ordering::SeqCst)).unwrap_or(0)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.close();
        }
    }
}
