//! `windowed_value` and `param_windowed_value`: an element with its time, windows and pane.
//!
//! This is the coder of every port of a worker, so it writes straight into one buffer, and a batch whose elements share
//! their time and windows encodes those once.

use super::{
    Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, WindowCoder, decode_pane, decode_timestamp,
    encode_pane, encode_timestamp, length_prefixed, mismatch, urn,
};
use crate::batch::{Batch, Meta};
use crate::error::Result;
use crate::window::WindowInfo;

/// Encodes and decodes values with what they carry. Cheap to clone.
pub struct WindowedValueCoder<T> {
    value: Coder<T>,
    window: WindowCoder,
    /// What all values carry, when it stands in the payload and not in front of each value.
    constant: Option<WindowInfo>,
}

impl<T> Clone for WindowedValueCoder<T> {
    fn clone(&self) -> Self {
        WindowedValueCoder {
            value: self.value.clone(),
            window: self.window.clone(),
            constant: self.constant.clone(),
        }
    }
}

/// `windowed_value<value, window>` as a coder of pairs. Where the two lie apart, use [`WindowedValueCoder`].
///
/// # Errors
/// When `window` is no coder of windows.
pub fn windowed_value<T: 'static>(value: Coder<T>, window: &CoderSpec) -> Result<Coder<(T, WindowInfo)>> {
    WindowedValueCoder::new(value, window).map(Coder::new)
}

impl<T: 'static> WindowedValueCoder<T> {
    /// `windowed_value<value, window>`.
    ///
    /// # Errors
    /// When `window` is no coder of windows.
    pub fn new(value: Coder<T>, window: &CoderSpec) -> Result<Self> {
        Ok(WindowedValueCoder { value, window: WindowCoder::of(window)?, constant: None })
    }

    /// `param_windowed_value<value, window>`: every value carries `info`, which is not written with it.
    ///
    /// # Errors
    /// When `window` is no coder of windows.
    pub fn constant(value: Coder<T>, window: &CoderSpec, info: WindowInfo) -> Result<Self> {
        Ok(WindowedValueCoder { constant: Some(info), ..WindowedValueCoder::new(value, window)? })
    }

    /// The coder that a runner's tree asks for; `value` makes the coder of the values from their part of it.
    ///
    /// # Errors
    /// When the tree is no windowed value, and those of `value`.
    pub fn of(spec: &CoderSpec, value: impl FnOnce(&CoderSpec) -> Result<Coder<T>>) -> Result<Self> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (urn::WINDOWED_VALUE, [inner, window]) => WindowedValueCoder::new(value(inner)?, window),
            (urn::PARAM_WINDOWED_VALUE, [inner, window]) => {
                let plain = WindowedValueCoder::new(value(inner)?, window)?;
                // Behind them stands an empty value, which says nothing.
                let info = plain.decode_info(&mut Reader::new(spec.payload.clone()))?;
                Ok(WindowedValueCoder { constant: Some(info), ..plain })
            }
            _ => Err(mismatch("a windowed value", spec)),
        }
    }

    /// The coder of the values.
    pub fn value_coder(&self) -> &Coder<T> {
        &self.value
    }

    /// The coder of the windows.
    pub fn window_coder(&self) -> &WindowCoder {
        &self.window
    }

    /// Appends one value and what it carries.
    ///
    /// # Errors
    /// Those of the value's coder, and a window of another kind than the coder's.
    #[inline]
    pub fn encode(&self, value: &T, info: &WindowInfo, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        if self.constant.is_none() {
            self.encode_info(info, out)?;
        }
        self.value.encode(value, out, nesting)
    }

    /// Appends a batch, each value in nested context, as a data stream wants it.
    ///
    /// # Errors
    /// As [`encode`](WindowedValueCoder::encode).
    pub fn encode_batch(&self, batch: &Batch<T>, out: &mut Vec<u8>) -> Result<()> {
        match &batch.meta {
            Meta::Uniform(_) if self.constant.is_some() => {
                batch.values.iter().try_for_each(|value| self.value.encode(value, out, Nesting::Nested))
            }
            Meta::Uniform(info) => {
                let at = out.len();
                let Some((first, rest)) = batch.values.split_first() else { return Ok(()) };
                self.encode_info(info, out)?;
                let header = at..out.len();
                self.value.encode(first, out, Nesting::Nested)?;
                rest.iter().try_for_each(|value| {
                    out.extend_from_within(header.clone());
                    self.value.encode(value, out, Nesting::Nested)
                })
            }
            Meta::Each(_) => {
                batch.iter().try_for_each(|(value, info)| self.encode(value, info, out, Nesting::Nested))
            }
        }
    }

    /// Reads one value and what it carries.
    ///
    /// # Errors
    /// When the bytes are no such encoding.
    #[inline]
    pub fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<(T, WindowInfo)> {
        let info = match &self.constant {
            Some(info) => info.clone(),
            None => self.decode_info(input)?,
        };
        Ok((self.value.decode(input, nesting)?, info))
    }

    #[inline]
    fn encode_info(&self, info: &WindowInfo, out: &mut Vec<u8>) -> Result<()> {
        encode_timestamp(info.timestamp, out);
        self.window.encode_all(&info.windows, out)?;
        encode_pane(&info.pane, out);
        Ok(())
    }

    #[inline]
    fn decode_info(&self, input: &mut Reader) -> Result<WindowInfo> {
        Ok(WindowInfo {
            timestamp: decode_timestamp(input)?,
            windows: self.window.decode_all(input)?,
            pane: decode_pane(input)?,
        })
    }
}

impl<T: crate::Element> WindowedValueCoder<T> {
    /// As [`of`](WindowedValueCoder::of), with the values' coder by their type.
    ///
    /// # Errors
    /// When the tree is no windowed value, or values of this type can't be told by it.
    pub fn of_element(spec: &CoderSpec) -> Result<Self> {
        WindowedValueCoder::of(spec, T::coder_of)
    }

    /// The coder of pairs that a runner's tree asks for; it may be wrapped in `length_prefix`.
    ///
    /// # Errors
    /// As [`of_element`](WindowedValueCoder::of_element).
    pub fn pairs_of(spec: &CoderSpec) -> Result<Coder<(T, WindowInfo)>> {
        if spec.urn == LENGTH_PREFIX {
            return WindowedValueCoder::pairs_of(spec.only_component()?).map(length_prefixed);
        }
        WindowedValueCoder::of_element(spec).map(Coder::new)
    }
}

impl<T: 'static> Codec<(T, WindowInfo)> for WindowedValueCoder<T> {
    #[inline]
    fn encode(&self, (value, info): &(T, WindowInfo), out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        WindowedValueCoder::encode(self, value, info, out, nesting)
    }

    #[inline]
    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<(T, WindowInfo)> {
        WindowedValueCoder::decode(self, input, nesting)
    }

    fn spec(&self) -> CoderSpec {
        let parts = [self.value.spec(), self.window.spec().clone()];
        let Some(info) = &self.constant else { return CoderSpec::of(urn::WINDOWED_VALUE, parts) };
        let mut spec = CoderSpec::of(urn::PARAM_WINDOWED_VALUE, parts);
        // A constant that its own window coder can't write shows as a payload that no worker accepts.
        if self.encode_info(info, &mut spec.payload).is_ok() {
            spec.payload.push(0);
        }
        spec
    }

    fn is_deterministic(&self) -> bool {
        self.value.is_deterministic()
    }
}
