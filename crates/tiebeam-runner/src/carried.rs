//! What elements carry (time, windows, pane) as bytes, exactly: Beam's own encoding keeps milliseconds only.

use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::window::CustomWindow;
use tiebeam_core::{
    Error, IntervalWindow, Meta, Pane, PaneTiming, Result, Timestamp, Window, WindowInfo, Windows,
};

/// Reads what this and its neighbours write; every failure is one of damaged bytes.
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Bits { bytes, at: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(taken)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn length(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    pub(crate) fn fixed(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn signed(&mut self) -> Option<i64> {
        self.fixed().map(|n| n as i64)
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        let n = self.length()?;
        String::from_utf8(self.take(n)?.to_vec()).ok()
    }

    /// What one element carries.
    pub(crate) fn info(&mut self) -> Option<WindowInfo> {
        let timestamp = Timestamp::from_micros(self.signed()?);
        let count = self.length()?;
        let windows = match count {
            1 => Windows::One(self.window()?),
            // No count is trusted further than there are bytes.
            n => (0..n).map(|_| self.window()).collect::<Option<Vec<_>>>()?.into_iter().collect(),
        };
        let flags = self.byte()?;
        let timing = match flags >> 2 {
            0 => PaneTiming::Early,
            1 => PaneTiming::OnTime,
            2 => PaneTiming::Late,
            3 => PaneTiming::Unknown,
            _ => return None,
        };
        let (index, on_time_index) = (self.number()? as i64, self.number()? as i64);
        let pane = Pane { is_first: flags & 1 != 0, is_last: flags & 2 != 0, timing, index, on_time_index };
        Some(WindowInfo { timestamp, windows, pane })
    }

    fn window(&mut self) -> Option<Window> {
        Some(match self.byte()? {
            0 => Window::Global,
            1 => {
                let start = Timestamp::from_micros(self.signed()?);
                Window::Interval(IntervalWindow::new(start, Timestamp::from_micros(self.signed()?)))
            }
            2 => {
                let max_timestamp = Timestamp::from_micros(self.signed()?);
                let n = self.length()?;
                let encoded = Bytes::copy_from_slice(self.take(n)?);
                Window::Custom(Arc::new(CustomWindow { max_timestamp, encoded }))
            }
            _ => return None,
        })
    }

    /// What a batch of `count` elements carries.
    pub(crate) fn meta(&mut self, count: usize) -> Option<Meta> {
        match self.byte()? {
            0 => self.info().map(Meta::Uniform),
            1 => (0..count).map(|_| self.info()).collect::<Option<Vec<_>>>().map(Meta::Each),
            _ => None,
        }
    }
}

/// The error of bytes that are not what was written.
pub(crate) fn damaged() -> Error {
    Error::internal("spilled data is not what was written")
}

/// Appends a number of one to ten bytes.
pub(crate) fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a text with its length.
pub(crate) fn put_text(text: &str, out: &mut Vec<u8>) {
    put_number(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Appends what one element carries.
pub(crate) fn put_info(info: &WindowInfo, out: &mut Vec<u8>) {
    out.extend_from_slice(&info.timestamp.micros().to_le_bytes());
    let windows = info.windows.as_slice();
    put_number(windows.len() as u64, out);
    for window in windows {
        match window {
            Window::Global => out.push(0),
            Window::Interval(interval) => {
                out.push(1);
                out.extend_from_slice(&interval.start.micros().to_le_bytes());
                out.extend_from_slice(&interval.end.micros().to_le_bytes());
            }
            Window::Custom(custom) => {
                out.push(2);
                out.extend_from_slice(&custom.max_timestamp.micros().to_le_bytes());
                put_number(custom.encoded.len() as u64, out);
                out.extend_from_slice(&custom.encoded);
            }
        }
    }
    let timing = match info.pane.timing {
        PaneTiming::Early => 0,
        PaneTiming::OnTime => 1,
        PaneTiming::Late => 2,
        PaneTiming::Unknown => 3,
    };
    out.push(u8::from(info.pane.is_first) | u8::from(info.pane.is_last) << 1 | timing << 2);
    put_number(info.pane.index as u64, out);
    put_number(info.pane.on_time_index as u64, out);
}

/// Appends what a batch carries.
pub(crate) fn put_meta(meta: &Meta, out: &mut Vec<u8>) {
    match meta {
        Meta::Uniform(info) => {
            out.push(0);
            put_info(info, out);
        }
        Meta::Each(infos) => {
            out.push(1);
            infos.iter().for_each(|info| put_info(info, out));
        }
    }
}

/// A value that was read, or the error of damaged bytes.
pub(crate) fn whole<T>(read: Option<T>) -> Result<T> {
    read.ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_carried_comes_back_exactly() {
        let interval = |a: i64, b: i64| {
            Window::Interval(IntervalWindow::new(Timestamp::from_micros(a), Timestamp::from_micros(b)))
        };
        let custom =
            CustomWindow { max_timestamp: Timestamp::from_micros(7), encoded: Bytes::from_static(b"w") };
        let pane =
            Pane { is_first: false, is_last: true, timing: PaneTiming::Late, index: 300, on_time_index: -1 };
        let infos = [
            WindowInfo::GLOBAL,
            WindowInfo {
                timestamp: Timestamp::from_micros(-1_234_567),
                windows: Windows::One(interval(1, 1_001)),
                pane,
            },
            WindowInfo {
                timestamp: Timestamp::MAX,
                windows: [interval(-5, 5), Window::Custom(Arc::new(custom))].into_iter().collect(),
                pane: Pane { timing: PaneTiming::Early, ..Pane::ON_TIME_AND_ONLY },
            },
            WindowInfo {
                timestamp: Timestamp::MIN,
                windows: Windows::Many(Arc::from([])),
                pane: Pane::ON_TIME_AND_ONLY,
            },
        ];
        for meta in [Meta::Uniform(infos[1].clone()), Meta::Each(infos.to_vec())] {
            let mut out = Vec::new();
            put_meta(&meta, &mut out);
            let mut bits = Bits::new(&out);
            assert_eq!(bits.meta(infos.len()), Some(meta));
            assert!(bits.is_empty());
            for cut in 0..out.len() {
                assert_eq!(Bits::new(&out[..cut]).meta(infos.len()), None, "cut at {cut}");
            }
        }
        let mut out = Vec::new();
        for number in [0, 127, 128, u64::MAX] {
            out.clear();
            put_number(number, &mut out);
            assert_eq!(Bits::new(&out).number(), Some(number));
        }
        assert_eq!(Bits::new(&[0xff; 11]).number(), None);
    }
}
