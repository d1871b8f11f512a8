//! `beam:coder:length_prefix:v1`: a length, then the inner encoding in outer context.

use super::{Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader};
use crate::error::Result;

struct LengthPrefix<T>(Coder<T>);

/// `inner` with its length in front.
pub fn length_prefixed<T: 'static>(inner: Coder<T>) -> Coder<T> {
    Coder::new(LengthPrefix(inner))
}

/// Writes what `write` appends with its length as a varint in front, all in one buffer.
pub(crate) fn with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let at = out.len();
    // Most values are shorter than 128 bytes, so that one byte is enough; longer ones are moved up once.
    out.push(0);
    write(out)?;
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return Ok(());
    }
    let extra = (usize::BITS - length.leading_zeros()).div_ceil(7) as usize - 1;
    out.resize(out.len() + extra, 0);
    out.copy_within(at + 1..at + 1 + length, at + 1 + extra);
    let mut rest = length;
    for byte in &mut out[at..at + extra] {
        *byte = (rest as u8) | 0x80;
        rest >>= 7;
    }
    out[at + extra] = rest as u8;
    Ok(())
}

impl<T: 'static> Codec<T> for LengthPrefix<T> {
    fn encode(&self, value: &T, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        with_length(out, |out| self.0.encode(value, out, Nesting::Outer))
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<T> {
        let n = input.length()?;
        input.within(n, |input| self.0.decode(input, Nesting::Outer))
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::of(LENGTH_PREFIX, [self.0.spec()])
    }

    fn is_deterministic(&self) -> bool {
        self.0.is_deterministic()
    }

    fn unprefixed(&self) -> Option<Coder<T>> {
        Some(self.0.clone())
    }
}
