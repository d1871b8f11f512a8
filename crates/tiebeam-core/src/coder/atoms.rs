//! Coders of single values: bytes, text, booleans, numbers, and nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::{Codec, Coder, CoderSpec, Nesting, Reader, length_prefixed, urn, write_varint};
use crate::element::Element;
use crate::error::{Error, ErrorKind, Result};

macro_rules! atom {
    ($codec:ident, $type:ty, $urn:expr, |$value:ident, $out:ident, $en:ident| $encode:expr, |$input:ident, $de:ident| $decode:expr, $deterministic:expr) => {
        struct $codec;

        impl Codec<$type> for $codec {
            #[inline]
            fn encode(&self, $value: &$type, $out: &mut Vec<u8>, $en: Nesting) -> Result<()> {
                $encode;
                Ok(())
            }

            #[inline]
            fn decode(&self, $input: &mut Reader, $de: Nesting) -> Result<$type> {
                $decode
            }

            fn spec(&self) -> CoderSpec {
                CoderSpec::leaf($urn)
            }

            fn is_deterministic(&self) -> bool {
                $deterministic
            }
        }
    };
}

macro_rules! elements {
    ($($codec:ident $type:ty),*) => {$(
        impl Element for $type {
            fn coder() -> Coder<Self> {
                Coder::new($codec)
            }
        }
    )*};
}

/// `value` as a narrower integer.
pub(crate) fn bounded<T: TryFrom<i64>>(value: i64) -> Result<T> {
    T::try_from(value).map_err(|_| {
        Error::new(
            ErrorKind::InvalidData,
            "TB0107",
            format!("{value} is out of range for {}", std::any::type_name::<T>()),
        )
    })
}

/// Bytes: with their length in front unless they are all there is.
pub(crate) fn take_bytes(input: &mut Reader, nesting: Nesting) -> Result<Bytes> {
    match nesting {
        Nesting::Outer => Ok(input.take_rest()),
        Nesting::Nested => {
            let n = input.length()?;
            input.take(n)
        }
    }
}

/// As [`take_bytes`] reads them.
pub(crate) fn put_bytes(value: &[u8], out: &mut Vec<u8>, nesting: Nesting) {
    if nesting == Nesting::Nested {
        write_varint(value.len() as i64, out);
    }
    out.extend_from_slice(value);
}

/// What `read` makes of such bytes, which are not kept.
#[inline]
pub(crate) fn look_bytes<T>(
    input: &mut Reader,
    nesting: Nesting,
    read: impl FnOnce(&[u8]) -> Result<T>,
) -> Result<T> {
    let n = match nesting {
        Nesting::Outer => input.remaining(),
        Nesting::Nested => input.length()?,
    };
    input.look(n, read)
}

/// Bytes that must be UTF-8.
pub(crate) fn utf8(bytes: Bytes) -> Result<String> {
    utf8_str(&bytes).map(str::to_owned)
}

/// Bytes as the text that they must be.
pub(crate) fn utf8_str(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|e| Error::new(ErrorKind::InvalidData, "TB0108", format!("a string is not UTF-8: {e}")))
}

/// Text as [`put_bytes`] writes it.
pub(crate) fn take_arc_str(input: &mut Reader, nesting: Nesting) -> Result<Arc<str>> {
    look_bytes(input, nesting, |bytes| utf8_str(bytes).map(Arc::from))
}

/// Text as [`put_bytes`] writes it.
pub(crate) fn take_string(input: &mut Reader, nesting: Nesting) -> Result<String> {
    look_bytes(input, nesting, |bytes| utf8_str(bytes).map(str::to_owned))
}

/// A byte that is 0 or 1.
pub(crate) fn take_bool(input: &mut Reader) -> Result<bool> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => {
            Err(Error::new(ErrorKind::InvalidData, "TB0109", format!("a boolean is 0 or 1, got {other}")))
        }
    }
}

atom!(
    BytesCodec,
    Bytes,
    urn::BYTES,
    |value, out, n| put_bytes(value, out, n),
    |input, n| take_bytes(input, n),
    true
);
atom!(
    StringCodec,
    String,
    urn::STRING_UTF8,
    |value, out, n| put_bytes(value.as_bytes(), out, n),
    |input, n| take_string(input, n),
    true
);
atom!(
    ArcStrCodec,
    Arc<str>,
    urn::STRING_UTF8,
    |value, out, n| put_bytes(value.as_bytes(), out, n),
    |input, n| take_arc_str(input, n),
    true
);
atom!(
    BoolCodec,
    bool,
    urn::BOOL,
    |value, out, _n| out.push(u8::from(*value)),
    |input, _n| take_bool(input),
    true
);
// Not keys: 0.0 and -0.0 are equal and their encodings are not.
atom!(
    DoubleCodec,
    f64,
    urn::DOUBLE,
    |value, out, _n| out.extend_from_slice(&value.to_be_bytes()),
    |input, _n| input.array().map(f64::from_be_bytes),
    false
);
atom!(
    FloatCodec,
    f32,
    urn::DOUBLE,
    |value, out, _n| out.extend_from_slice(&f64::from(*value).to_be_bytes()),
    |input, _n| input.array().map(|bytes| f64::from_be_bytes(bytes) as f32),
    false
);
atom!(
    U64Codec,
    u64,
    urn::VARINT,
    |value, out, _n| write_varint(*value as i64, out),
    |input, _n| input.varint().map(|value| value as u64),
    true
);
atom!(
    UsizeCodec,
    usize,
    urn::VARINT,
    |value, out, _n| write_varint(*value as i64, out),
    |input, _n| bounded(input.varint()?),
    true
);

struct UnitCodec;

impl Codec<()> for UnitCodec {
    fn encode(&self, (): &(), _: &mut Vec<u8>, _: Nesting) -> Result<()> {
        Ok(())
    }

    fn decode(&self, _: &mut Reader, _: Nesting) -> Result<()> {
        Ok(())
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::leaf(urn::UNIT)
    }
}

macro_rules! varints {
    ($($codec:ident $type:ty),*) => {
        $(atom!(
            $codec,
            $type,
            urn::VARINT,
            |value, out, _n| write_varint(i64::from(*value), out),
            |input, _n| bounded(input.varint()?),
            true
        );)*
        elements!($($codec $type),*);
    };
}
varints!(I64Codec i64, I32Codec i32, I16Codec i16, I8Codec i8, U32Codec u32, U16Codec u16);
elements!(
    BytesCodec Bytes, StringCodec String, ArcStrCodec Arc<str>, BoolCodec bool, DoubleCodec f64, FloatCodec f32,
    U64Codec u64, UsizeCodec usize
);

impl Element for () {
    // With a length, as all private coders: runners of other languages can pass it on, and a list of nothings has one
    // byte for each.
    fn coder() -> Coder<Self> {
        length_prefixed(Coder::new(UnitCodec))
    }
}
