//! How times, windows and panes become bytes.

use bytes::Bytes;

use super::{Codec, CoderSpec, LENGTH_PREFIX, Nesting, Reader, list, urn, write_varint};
use crate::element::Element;
use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;
use crate::window::{CustomWindow, IntervalWindow, Pane, PaneTiming, Window, Windows};
use crate::{Coder, coder::length_prefix::with_length};

/// Writes a time: eight bytes of milliseconds, the sign bit turned over so that later times have greater bytes. What is
/// below a millisecond is rounded down, so that the element stays in its window.
#[inline]
pub fn encode_timestamp(timestamp: Timestamp, out: &mut Vec<u8>) {
    out.extend_from_slice(&(timestamp.millis() ^ i64::MIN).to_be_bytes());
}

/// Reads a time. One beyond Beam's bounds is taken as the bound.
///
/// # Errors
/// When fewer than eight bytes are left.
#[inline]
pub fn decode_timestamp(input: &mut Reader) -> Result<Timestamp> {
    Ok(Timestamp::from_millis(i64::from_be_bytes(input.array()?) ^ i64::MIN))
}

const FIRST: u8 = 0;
const ONE_INDEX: u8 = 1;
const TWO_INDICES: u8 = 2;

/// Writes a pane in the shortest of Beam's three forms: a byte, a byte and one index, or a byte and two.
#[inline]
pub fn encode_pane(pane: &Pane, out: &mut Vec<u8>) {
    let timing = match pane.timing {
        PaneTiming::Early => 0,
        PaneTiming::OnTime => 1,
        PaneTiming::Late => 2,
        PaneTiming::Unknown => 3,
    };
    let flags = u8::from(pane.is_first) | u8::from(pane.is_last) << 1 | timing << 2;
    if pane.timing == PaneTiming::Unknown || (pane.index == 0 && pane.on_time_index == 0) {
        out.push(flags | FIRST << 4);
    } else if pane.index == pane.on_time_index || pane.timing == PaneTiming::Early {
        out.push(flags | ONE_INDEX << 4);
        write_varint(pane.index, out);
    } else {
        out.push(flags | TWO_INDICES << 4);
        write_varint(pane.index, out);
        write_varint(pane.on_time_index, out);
    }
}

/// Reads a pane.
///
/// # Errors
/// When it is cut off, or of a form that Beam has not defined.
#[inline]
pub fn decode_pane(input: &mut Reader) -> Result<Pane> {
    let byte = input.u8()?;
    let timing = match byte >> 2 & 3 {
        0 => PaneTiming::Early,
        1 => PaneTiming::OnTime,
        2 => PaneTiming::Late,
        _ => PaneTiming::Unknown,
    };
    let without_late = |index| if timing == PaneTiming::Early { -1 } else { index };
    let (index, on_time_index) = match byte >> 4 {
        FIRST => (0, without_late(0)),
        ONE_INDEX => input.varint().map(|index| (index, without_late(index)))?,
        TWO_INDICES => (input.varint()?, input.varint()?),
        form => {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "TB0116",
                format!("a pane has form {form}, wanted 0, 1 or 2"),
            ));
        }
    };
    Ok(Pane { is_first: byte & 1 != 0, is_last: byte & 2 != 0, timing, index, on_time_index })
}

fn encode_interval(window: IntervalWindow, out: &mut Vec<u8>) {
    encode_timestamp(window.end, out);
    write_varint(window.end.millis().saturating_sub(window.start.millis()), out);
}

fn decode_interval(input: &mut Reader) -> Result<IntervalWindow> {
    let end = decode_timestamp(input)?;
    let span = input.varint()?;
    if span < 0 {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "TB0117",
            format!("a window spans {span} milliseconds, wanted 0 or more"),
        ));
    }
    Ok(IntervalWindow { start: Timestamp::from_millis(end.millis().saturating_sub(span)), end })
}

/// Writes a window as its own kind says: nothing for the global one, Beam's form for an interval, and a custom window's
/// own bytes. Windows of one window function are equal when these bytes are.
pub fn encode_window(window: &Window, out: &mut Vec<u8>) {
    match window {
        Window::Global => {}
        Window::Interval(interval) => encode_interval(*interval, out),
        Window::Custom(custom) => out.extend_from_slice(&custom.encoded),
    }
}

/// Reads one window by the coder `spec`; for many, make a [`WindowCoder`] once.
///
/// # Errors
/// When `spec` is no window's coder, or the bytes are no window.
pub fn decode_window(spec: &CoderSpec, input: &mut Reader) -> Result<Window> {
    WindowCoder::of(spec)?.decode(input)
}

/// Encodes and decodes windows as one tree of URNs says. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowCoder {
    form: Form,
    spec: CoderSpec,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Global,
    Interval,
    /// The last instant, then the form inside.
    Custom(Box<Form>),
    /// A length, then the form inside.
    LengthPrefix(Box<Form>),
    /// Bytes of a user's window function; only behind its last instant and a length.
    Opaque,
}

impl WindowCoder {
    /// The coder of spans of event time.
    pub fn interval() -> Self {
        WindowCoder { form: Form::Interval, spec: CoderSpec::leaf(urn::INTERVAL_WINDOW) }
    }

    /// The coder that `spec` tells. A window function of the user's travels as
    /// `custom_window<length_prefix<private>>`, so that its windows can be told apart without it.
    ///
    /// # Errors
    /// When it is no coder of windows.
    pub fn of(spec: &CoderSpec) -> Result<Self> {
        Form::of(spec, false, false).map(|form| WindowCoder { form, spec: spec.clone() })
    }

    /// How the coder travels.
    pub fn spec(&self) -> &CoderSpec {
        &self.spec
    }

    /// Appends the encoding of a window.
    ///
    /// # Errors
    /// When the window is of another kind than the coder's.
    #[inline]
    pub fn encode(&self, window: &Window, out: &mut Vec<u8>) -> Result<()> {
        match (&self.form, window) {
            (Form::Global, Window::Global) => Ok(()),
            (Form::Interval, Window::Interval(interval)) => {
                encode_interval(*interval, out);
                Ok(())
            }
            (form, window) => form.encode(window, out).map_err(|()| {
                Error::new(
                    ErrorKind::InvalidData,
                    "TB0118",
                    format!("window {window:?} cannot be written by coder {}", self.spec),
                )
            }),
        }
    }

    /// Reads a window.
    ///
    /// # Errors
    /// When the bytes are no window of the coder's kind.
    #[inline]
    pub fn decode(&self, input: &mut Reader) -> Result<Window> {
        self.form.decode(input, None)
    }

    /// Appends the windows of one element: their number and each one.
    ///
    /// # Errors
    /// As [`encode`](WindowCoder::encode), and when there are more than `i32::MAX`.
    #[inline]
    pub fn encode_all(&self, windows: &Windows, out: &mut Vec<u8>) -> Result<()> {
        let windows = windows.as_slice();
        list::encode_count(windows.len(), out)?;
        windows.iter().try_for_each(|window| self.encode(window, out))
    }

    /// Reads what [`encode_all`](WindowCoder::encode_all) wrote.
    ///
    /// # Errors
    /// As [`decode`](WindowCoder::decode).
    #[inline]
    pub fn decode_all(&self, input: &mut Reader) -> Result<Windows> {
        let count = i32::from_be_bytes(input.peek()?);
        if count == 1 {
            input.array::<4>()?;
            return self.decode(input).map(Windows::One);
        }
        if self.form == Form::Global && count != 0 {
            let message = format!("an element is in the global window {count} times, wanted once at most");
            return Err(Error::new(ErrorKind::InvalidData, "TB0117", message));
        }
        list::decode_list(input, |input| self.decode(input)).map(Windows::from_iter)
    }
}

impl Form {
    /// Inside a `custom_window` and a length, anything may stand: it is kept as bytes.
    fn of(spec: &CoderSpec, custom: bool, bounded: bool) -> Result<Form> {
        Ok(match (spec.urn.as_str(), spec.components.as_slice()) {
            (urn::GLOBAL_WINDOW, []) => Form::Global,
            (urn::INTERVAL_WINDOW, []) => Form::Interval,
            (urn::CUSTOM_WINDOW, [inner]) if !custom => {
                Form::Custom(Box::new(Form::of(inner, true, bounded)?))
            }
            // One length is enough to find the end, and a tree without end is no tree.
            (LENGTH_PREFIX, [inner]) if !bounded => {
                Form::LengthPrefix(Box::new(Form::of(inner, custom, true)?))
            }
            _ if custom && bounded => Form::Opaque,
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidData,
                    "TB0119",
                    format!("{spec} is no coder of windows that can be read here"),
                )
                .with_help(
                    "a window function of your own declares custom_window<length_prefix<its coder>>",
                ));
            }
        })
    }

    fn encode(&self, window: &Window, out: &mut Vec<u8>) -> Result<(), ()> {
        match (self, window) {
            (Form::Global, Window::Global) => {}
            (Form::Interval, Window::Interval(interval)) => encode_interval(*interval, out),
            (Form::Custom(inner), window) => {
                encode_timestamp(window.max_timestamp(), out);
                inner.encode(window, out)?;
            }
            (Form::LengthPrefix(inner), window) => {
                let mut fits = Ok(());
                with_length(out, |out| {
                    fits = inner.encode(window, out);
                    Ok(())
                })
                .map_err(|_| ())?;
                fits?;
            }
            (Form::Opaque, Window::Custom(custom)) => out.extend_from_slice(&custom.encoded),
            _ => return Err(()),
        }
        Ok(())
    }

    fn decode(&self, input: &mut Reader, max_timestamp: Option<Timestamp>) -> Result<Window> {
        match self {
            Form::Global => Ok(Window::Global),
            Form::Interval => decode_interval(input).map(Window::Interval),
            Form::Custom(inner) => {
                let max_timestamp = decode_timestamp(input)?;
                inner.decode(input, Some(max_timestamp))
            }
            Form::LengthPrefix(inner) => {
                let n = input.length()?;
                input.within(n, |input| inner.decode(input, max_timestamp))
            }
            Form::Opaque => {
                // Only behind a last instant and inside a length: both are known here.
                let max_timestamp = max_timestamp.unwrap_or(Timestamp::END_OF_GLOBAL_WINDOW);
                // A copy: the window may outlive the buffer that it came in by far.
                let encoded = input.look(input.remaining(), |bytes| Ok(Bytes::copy_from_slice(bytes)))?;
                Ok(Window::Custom(std::sync::Arc::new(CustomWindow { max_timestamp, encoded })))
            }
        }
    }
}

impl Codec<Window> for WindowCoder {
    fn encode(&self, value: &Window, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        WindowCoder::encode(self, value, out)
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Window> {
        WindowCoder::decode(self, input)
    }

    fn spec(&self) -> CoderSpec {
        self.spec.clone()
    }
}

/// Windows of the commonest kind; other kinds need [`WindowCoder::of`].
impl Element for IntervalWindow {
    fn coder() -> Coder<Self> {
        Coder::new(IntervalWindowCodec)
    }
}

struct IntervalWindowCodec;

impl Codec<IntervalWindow> for IntervalWindowCodec {
    fn encode(&self, value: &IntervalWindow, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        encode_interval(*value, out);
        Ok(())
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<IntervalWindow> {
        decode_interval(input)
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::leaf(urn::INTERVAL_WINDOW)
    }
}
