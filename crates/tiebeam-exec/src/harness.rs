//! [`Harness`]: what a door supplies to the stages it runs.

use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::coder::IterableState;
use tiebeam_core::{CoderSpec, Error, Result, RunId, Timestamp, Window};

/// Encoded values in chunks, none of them cut by a chunk's end, each in nested context.
#[derive(Debug, Clone)]
pub struct EncodedValues {
    /// The chunks.
    pub chunks: Arc<[Bytes]>,
    /// The number of values in all chunks.
    pub count: usize,
}

/// The values of a side input.
#[derive(Clone)]
pub enum SideValues {
    /// In this process's memory.
    Held(EncodedValues),
    /// With a runner, which gives them page by page under a token.
    Paged {
        /// What the runner knows them by.
        token: Bytes,
        /// Asks for the pages.
        state: Arc<dyn IterableState>,
    },
}

/// How a side input's values travel between a runner and a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireCoders {
    /// The keys, of a side input that is read by key.
    pub key: Option<CoderSpec>,
    /// The values; of a side input that is read by key, without the key.
    pub value: CoderSpec,
}

/// The services of a door. Shared by all operators of a stage.
///
/// User state and timers join with the streaming runner as methods here, with defaults that refuse: until then no
/// operator asks for them.
pub trait Harness: Send + Sync {
    /// The values of a side input in one of its own windows; with a key, only those of that key (encoded in outer
    /// context) without the key.
    ///
    /// # Errors
    /// When there is no such side input or it can't be read.
    fn side_input(&self, id: &str, window: &Window, key: Option<&[u8]>) -> Result<SideValues>;

    /// How the values and keys of a side input are written by [`side_input`](Harness::side_input), where that is not as
    /// the step's own coders say: runners put `length_prefix` into coders as they like. Keys are then given in
    /// nested context.
    fn wire_coders(&self, id: &str) -> Option<WireCoders> {
        let _ = id;
        None
    }

    /// The run that the stage works for.
    fn run(&self) -> RunId;

    /// Whether the job was cancelled. Asked once a batch.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// Whether nobody wants more of what a step reads: it may stop, and what it gave stays. Asked once a batch, by sources.
    fn has_enough(&self, step: &str) -> bool {
        let _ = step;
        false
    }

    /// The number of the bundle that the calling thread is at, among all of the run, where the door numbers them: the same
    /// for every attempt at the bundle.
    fn bundle_number(&self) -> Option<u64> {
        None
    }

    /// Processing time.
    fn now(&self) -> Timestamp;

    /// The user state of a step for one key and window.
    ///
    /// # Errors
    /// By default: this door has none.
    fn state(&self, step: &str, key: &[u8], window: &Window) -> Result<Arc<dyn UserState>> {
        let _ = (key, window);
        Err(Error::new(
            tiebeam_core::ErrorKind::Unsupported,
            "TB0530",
            format!("step {step} uses state, which this runner does not offer"),
        ))
    }

    /// Sets or clears a timer of a step.
    ///
    /// # Errors
    /// By default: this door has none.
    fn set_timer(&self, step: &str, timer: &Timer) -> Result<()> {
        let _ = timer;
        Err(Error::new(
            tiebeam_core::ErrorKind::Unsupported,
            "TB0531",
            format!("step {step} uses timers, which this runner does not offer"),
        ))
    }
}

/// The encoded state of one step, key and window: bags of encoded values by name. All of Beam's state kinds are views of
/// these.
pub trait UserState: Send + Sync {
    /// All values of a bag.
    ///
    /// # Errors
    /// When the state can't be read.
    fn read(&self, name: &str) -> Result<EncodedValues>;
    /// One more value.
    ///
    /// # Errors
    /// When the state can't be written.
    fn append(&self, name: &str, value: &[u8]) -> Result<()>;
    /// No values any more.
    ///
    /// # Errors
    /// When the state can't be written.
    fn clear(&self, name: &str) -> Result<()>;
}

/// A timer to be set, or cleared when it has no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// Its family.
    pub family: String,
    /// Its tag within the family.
    pub tag: String,
    /// The encoded key it belongs to.
    pub key: Bytes,
    /// The window it belongs to.
    pub window: Window,
    /// When it fires; none clears it.
    pub fire_at: Option<Timestamp>,
    /// The time that its output holds.
    pub hold: Timestamp,
}
