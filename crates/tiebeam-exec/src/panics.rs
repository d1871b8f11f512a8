//! Where a caught panic happened: told by a hook, since the payload does not say, and printed nowhere else.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

static INSTALL: Once = Once::new();

/// Panics of this thread are reported as errors from now on and not printed. Other threads keep the hook they had.
pub fn capture_on_this_thread() {
    INSTALL.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if QUIET.get() {
                PLACE.set(panic.location().map(|place| format!("{}:{}", place.file(), place.line())));
            } else {
                previous(panic);
            }
        }));
    });
    QUIET.set(true);
}

/// Where the last panic of this thread was, if it was captured.
pub(crate) fn take_place() -> Option<String> {
    PLACE.take()
}
