//! `beam:coder:nullable:v1`: a byte that says whether there is a value, then the value in the same context.

use super::{Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, length_prefixed, mismatch, urn};
use crate::element::Element;
use crate::error::{Error, ErrorKind, Result};

struct NullableCodec<T>(Coder<T>);

/// Reads the byte in front of a nullable value: whether there is one.
pub(crate) fn take_presence(input: &mut Reader) -> Result<bool> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::new(
            ErrorKind::InvalidData,
            "TB0113",
            format!("a nullable value begins with 0 or 1, got {other}"),
        )),
    }
}

impl<T: 'static> Codec<Option<T>> for NullableCodec<T> {
    fn encode(&self, value: &Option<T>, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        out.push(u8::from(value.is_some()));
        value.iter().try_for_each(|value| self.0.encode(value, out, nesting))
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<Option<T>> {
        take_presence(input)?.then(|| self.0.decode(input, nesting)).transpose()
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::of(urn::NULLABLE, [self.0.spec()])
    }

    fn is_deterministic(&self) -> bool {
        self.0.is_deterministic()
    }
}

/// `nullable<value>`.
pub fn nullable_coder<T: 'static>(value: Coder<T>) -> Coder<Option<T>> {
    Coder::new(NullableCodec(value))
}

impl<T: Element> Element for Option<T> {
    fn coder() -> Coder<Self> {
        nullable_coder(T::coder())
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (LENGTH_PREFIX, [inner]) => Ok(length_prefixed(Self::coder_of(inner)?)),
            (urn::NULLABLE, [inner]) => Ok(nullable_coder(T::coder_of(inner)?)),
            _ => Err(mismatch("an optional value", spec)),
        }
    }
}
