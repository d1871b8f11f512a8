//! `beam:coder:timer:v1`: a timer that is set or cleared.

use std::sync::Arc;

use super::atoms::{put_bytes, take_arc_str, take_bool};
use super::{
    Codec, Coder, CoderSpec, Nesting, Reader, WindowCoder, decode_pane, decode_timestamp, encode_pane,
    encode_timestamp, mismatch, urn,
};
use crate::error::Result;
use crate::time::Timestamp;
use crate::window::{Pane, Windows};

/// A timer of one key: where it stands, and when it fires unless it is cleared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Timer<K> {
    /// The key whose timer it is.
    pub user_key: K,
    /// Tells timers of one family apart; mostly empty.
    pub tag: Arc<str>,
    /// The windows that it was set in.
    pub windows: Windows,
    /// When it fires; none clears it.
    pub firing: Option<TimerFiring>,
}

/// When a timer fires.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TimerFiring {
    /// The time that sets it off.
    pub fire: Timestamp,
    /// The event time of what it puts out: the output watermark waits for it.
    pub hold: Timestamp,
    /// The pane of the element that set it.
    pub pane: Pane,
}

struct TimerCodec<K> {
    key: Coder<K>,
    window: WindowCoder,
}

/// `timer<key, window>`.
///
/// # Errors
/// When `window` is no coder of windows.
pub fn timer_coder<K: 'static>(key: Coder<K>, window: &CoderSpec) -> Result<Coder<Timer<K>>> {
    Ok(Coder::new(TimerCodec { key, window: WindowCoder::of(window)? }))
}

impl<K: crate::Element> Timer<K> {
    /// The coder that a runner's tree asks for.
    ///
    /// # Errors
    /// When the tree is no timer, or its key can't be told by it.
    pub fn coder_of(spec: &CoderSpec) -> Result<Coder<Timer<K>>> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (urn::TIMER, [key, window]) => timer_coder(K::coder_of(key)?, window),
            _ => Err(mismatch("a timer", spec)),
        }
    }
}

impl<K: 'static> Codec<Timer<K>> for TimerCodec<K> {
    fn encode(&self, timer: &Timer<K>, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        self.key.encode(&timer.user_key, out, Nesting::Nested)?;
        put_bytes(timer.tag.as_bytes(), out, Nesting::Nested);
        self.window.encode_all(&timer.windows, out)?;
        out.push(u8::from(timer.firing.is_none()));
        if let Some(firing) = &timer.firing {
            encode_timestamp(firing.fire, out);
            encode_timestamp(firing.hold, out);
            encode_pane(&firing.pane, out);
        }
        Ok(())
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Timer<K>> {
        let user_key = self.key.decode(input, Nesting::Nested)?;
        let tag = take_arc_str(input, Nesting::Nested)?;
        let windows = self.window.decode_all(input)?;
        let firing = if take_bool(input)? {
            None
        } else {
            Some(TimerFiring {
                fire: decode_timestamp(input)?,
                hold: decode_timestamp(input)?,
                pane: decode_pane(input)?,
            })
        };
        Ok(Timer { user_key, tag, windows, firing })
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::of(urn::TIMER, [self.key.spec(), self.window.spec().clone()])
    }

    fn is_deterministic(&self) -> bool {
        self.key.is_deterministic()
    }
}
