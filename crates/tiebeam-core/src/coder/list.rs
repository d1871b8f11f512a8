//! `beam:coder:iterable:v1` held in memory, and the reading of its three forms.
//!
//! A count that is known stands in front, as four bytes. Otherwise `-1` stands there, then blocks with a varint count
//! each; a count of 0 ends the list, and `-1` says that the rest lies with the runner under a token that follows.

use super::pages::Pages;
use super::{Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, length_prefixed, mismatch, urn};
use crate::element::Element;
use crate::error::{Error, ErrorKind, Result};

/// Values that take no bytes (global windows, say) are not held back by the size of the input, so their number is.
const MAX_EMPTY: usize = 4_096;

/// Memory is not taken on a count's word alone beyond this many values.
const MAX_RESERVED: usize = 1_024;

/// Writes the count in front of a list.
///
/// # Errors
/// When there are more than `i32::MAX`.
pub fn encode_count(count: usize, out: &mut Vec<u8>) -> Result<()> {
    let count = i32::try_from(count).map_err(|_| too_many(count))?;
    out.extend_from_slice(&count.to_be_bytes());
    Ok(())
}

/// The error of a list that is too long for its encoding.
pub(crate) fn too_many(count: usize) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0110", format!("{count} values are too many for one encoded list"))
}

/// Reads `count` values one after another onto `values`.
///
/// # Errors
/// Those of `one`, and a count that no input of this size can mean.
pub fn decode_many<T>(
    count: i64,
    values: &mut Vec<T>,
    input: &mut Reader,
    mut one: impl FnMut(&mut Reader) -> Result<T>,
) -> Result<()> {
    let bad = |what: &str| {
        Error::new(ErrorKind::InvalidData, "TB0112", format!("a list says {count} values, {what}"))
    };
    let count = usize::try_from(count).map_err(|_| bad("wanted 0 or more"))?;
    values.reserve(count.min(input.remaining()).min(MAX_RESERVED));
    for _ in 0..count {
        let before = input.remaining();
        values.push(one(input)?);
        if input.remaining() == before && values.len() > MAX_EMPTY {
            return Err(bad("which take no bytes"));
        }
    }
    Ok(())
}

/// Reads a list in any of its forms, each value by `one` in nested context. What lies with the runner is fetched.
///
/// # Errors
/// Those of `one` and of the runner, and bytes that are no list.
pub fn decode_list<T>(input: &mut Reader, mut one: impl FnMut(&mut Reader) -> Result<T>) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let count = i32::from_be_bytes(input.array()?);
    if count != -1 {
        decode_many(i64::from(count), &mut values, input, one)?;
        return Ok(values);
    }
    loop {
        match input.varint()? {
            0 => return Ok(values),
            -1 => {
                fetch(input, &mut values, one)?;
                return Ok(values);
            }
            count => decode_many(count, &mut values, input, &mut one)?,
        }
    }
}

fn fetch<T>(
    input: &mut Reader,
    values: &mut Vec<T>,
    mut one: impl FnMut(&mut Reader) -> Result<T>,
) -> Result<()> {
    let n = input.length()?;
    let token = input.take(n)?;
    let state = input.state().cloned().ok_or_else(|| {
        Error::new(ErrorKind::InvalidData, "TB0111", "a state-backed iterable came without state")
    })?;
    let mut pages = Pages::new(token, state);
    while let Some(value) = pages.read(&mut one)? {
        values.push(value);
    }
    Ok(())
}

struct VecCodec<T> {
    value: Coder<T>,
    urn: &'static str,
}

impl<T: 'static> Codec<Vec<T>> for VecCodec<T> {
    fn encode(&self, value: &Vec<T>, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        encode_count(value.len(), out)?;
        value.iter().try_for_each(|one| self.value.encode(one, out, Nesting::Nested))
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Vec<T>> {
        decode_list(input, |input| self.value.decode(input, Nesting::Nested))
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::of(self.urn, [self.value.spec()])
    }

    fn is_deterministic(&self) -> bool {
        self.value.is_deterministic()
    }
}

/// `iterable<value>` held in memory as a list.
pub fn vec_coder<T: 'static>(value: Coder<T>) -> Coder<Vec<T>> {
    Coder::new(VecCodec { value, urn: urn::ITERABLE })
}

impl<T: Element> Element for Vec<T> {
    fn coder() -> Coder<Self> {
        vec_coder(T::coder())
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (LENGTH_PREFIX, [inner]) => Ok(length_prefixed(Self::coder_of(inner)?)),
            (urn::ITERABLE, [inner]) => Ok(vec_coder(T::coder_of(inner)?)),
            (urn::STATE_BACKED_ITERABLE, [inner]) => {
                Ok(Coder::new(VecCodec { value: T::coder_of(inner)?, urn: urn::STATE_BACKED_ITERABLE }))
            }
            _ => Err(mismatch("a list", spec)),
        }
    }
}
