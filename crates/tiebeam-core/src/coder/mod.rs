//! Coders: how elements become bytes that every Beam SDK can read.
//!
//! A [`Coder`] is a value with a [`CoderSpec`], the tree of URNs that travels to runners. Runners may change that tree
//! (they insert `length_prefix` where they like), so a worker builds its coders from the tree it was given, through
//! [`Element::coder_of`](crate::Element::coder_of), and never from the type alone.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};

pub mod wire;

/// A coder as it travels: Beam's URN, its payload, the coders inside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CoderSpec {
    /// Beam's URN, such as `beam:coder:varint:v1`.
    pub urn: String,
    /// What the URN defines as payload; mostly empty.
    pub payload: Vec<u8>,
    /// The coders of the parts, in the URN's order.
    pub components: Vec<CoderSpec>,
}

impl CoderSpec {
    /// A coder without parts.
    pub fn leaf(urn: &str) -> Self {
        CoderSpec { urn: urn.to_owned(), payload: Vec::new(), components: Vec::new() }
    }

    /// A coder of parts.
    pub fn of(urn: &str, components: impl Into<Vec<CoderSpec>>) -> Self {
        CoderSpec { urn: urn.to_owned(), payload: Vec::new(), components: components.into() }
    }

    /// The single part of a coder that has one.
    ///
    /// # Errors
    /// Names the coder when it has none.
    pub fn only_component(&self) -> Result<&CoderSpec> {
        match self.components.as_slice() {
            [one] => Ok(one),
            others => Err(Error::new(
                ErrorKind::InvalidData,
                "TB0102",
                format!("coder {} wants one component coder, got {}", self.urn, others.len()),
            )),
        }
    }
}

impl fmt::Display for CoderSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.urn.strip_prefix("beam:coder:").unwrap_or(&self.urn);
        f.write_str(short.strip_suffix(":v1").unwrap_or(short))?;
        if !self.components.is_empty() {
            f.write_str("<")?;
            for (i, component) in self.components.iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                component.fmt(f)?;
            }
            f.write_str(">")?;
        }
        Ok(())
    }
}

/// Whether an encoding must say where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nesting {
    /// The encoding is all there is: its end is the end of the buffer (Beam's *outer* context).
    Outer,
    /// Other encodings follow in the same buffer.
    Nested,
}

/// Serves the values of iterables that a runner keeps on its side (`state_backed_iterable`).
pub trait IterableState: Send + Sync {
    /// One page of encoded values, and the token of the next page while there is one. `token` is the one in the
    /// element's encoding, `page` none for the first page.
    ///
    /// # Errors
    /// Whatever keeps the runner from answering.
    fn page(&self, token: &[u8], page: Option<&[u8]>) -> Result<(Bytes, Option<Bytes>)>;
}

/// A cursor over encoded bytes. Decoded [`Bytes`] share its buffer.
#[derive(Clone)]
pub struct Reader {
    rest: Bytes,
    state: Option<Arc<dyn IterableState>>,
}

impl Reader {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Reader { rest: bytes.into(), state: None }
    }

    /// Lets state-backed iterables be read.
    #[must_use]
    pub fn with_state(mut self, state: Arc<dyn IterableState>) -> Self {
        self.state = Some(state);
        self
    }

    /// Where state-backed iterables are read from, if anywhere.
    pub fn state(&self) -> Option<&Arc<dyn IterableState>> {
        self.state.as_ref()
    }

    /// The bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn take(&mut self, n: usize) -> Result<Bytes> {
        if n > self.rest.len() {
            return Err(truncated(n, self.rest.len()));
        }
        Ok(self.rest.split_to(n))
    }

    /// All bytes that are left.
    pub fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// A cursor of its own over the next `n` bytes, with the same state.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn sub(&mut self, n: usize) -> Result<Reader> {
        Ok(Reader { rest: self.take(n)?, state: self.state.clone() })
    }

    /// The next byte.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn u8(&mut self) -> Result<u8> {
        let byte = *self.rest.first().ok_or_else(|| truncated(1, 0))?;
        bytes::Buf::advance(&mut self.rest, 1);
        Ok(byte)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some(array) = self.rest.first_chunk::<N>().copied() else {
            return Err(truncated(N, self.rest.len()));
        };
        bytes::Buf::advance(&mut self.rest, N);
        Ok(array)
    }

    /// The next varint, as Beam writes it: two's complement, seven bits a byte, low bits first.
    ///
    /// # Errors
    /// When it is cut off or longer than ten bytes.
    pub fn varint(&mut self) -> Result<i64> {
        let mut value = 0u64;
        for (i, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                bytes::Buf::advance(&mut self.rest, i + 1);
                return Ok(value as i64);
            }
        }
        Err(if self.rest.len() < 10 {
            truncated(self.rest.len() + 1, self.rest.len())
        } else {
            Error::new(ErrorKind::InvalidData, "TB0103", "a varint is longer than ten bytes")
        })
    }

    /// The next varint as a length of something that must still be in the buffer: a lying length can't make a decoder
    /// allocate more than its input.
    ///
    /// # Errors
    /// When it is cut off, negative, or more than the bytes that are left.
    pub fn length(&mut self) -> Result<usize> {
        let value = self.varint()?;
        match usize::try_from(value) {
            Ok(n) if n <= self.rest.len() => Ok(n),
            _ => Err(Error::new(
                ErrorKind::InvalidData,
                "TB0104",
                format!("a length of {value} where {} bytes are left", self.rest.len()),
            )),
        }
    }
}

fn truncated(wanted: usize, left: usize) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0101", format!("encoding cut off: wanted {wanted} bytes, {left} left"))
}

/// Writes a varint as [`Reader::varint`] reads it.
pub fn write_varint(value: i64, out: &mut Vec<u8>) {
    let mut rest = value as u64;
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Encodes and decodes values of one type. Implementations are pure and shared by all threads.
pub trait Codec<T>: Send + Sync + 'static {
    /// Appends the encoding of `value`.
    ///
    /// # Errors
    /// When the value can't be told by this coder (a row of another schema, say).
    fn encode(&self, value: &T, out: &mut Vec<u8>, nesting: Nesting) -> Result<()>;

    /// Reads one value. With [`Nesting::Outer`] the reader holds nothing but that value.
    ///
    /// # Errors
    /// When the bytes are not such an encoding. Never panics and never allocates more than in proportion to the bytes.
    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<T>;

    /// How the coder travels.
    fn spec(&self) -> CoderSpec;

    /// Whether equal values always have equal encodings, so that they can be keys.
    fn is_deterministic(&self) -> bool {
        true
    }
}

/// A coder for values of type `T`; cheap to clone.
pub struct Coder<T>(Arc<dyn Codec<T>>);

impl<T> Clone for Coder<T> {
    fn clone(&self) -> Self {
        Coder(self.0.clone())
    }
}

impl<T: 'static> fmt::Debug for Coder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.spec().fmt(f)
    }
}

impl<T: 'static> Coder<T> {
    /// A coder from its codec.
    pub fn new(codec: impl Codec<T>) -> Self {
        Coder(Arc::new(codec))
    }

    /// Appends the encoding of `value`.
    ///
    /// # Errors
    /// As [`Codec::encode`].
    #[inline]
    pub fn encode(&self, value: &T, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        self.0.encode(value, out, nesting)
    }

    /// Reads one value.
    ///
    /// # Errors
    /// As [`Codec::decode`].
    #[inline]
    pub fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<T> {
        self.0.decode(input, nesting)
    }

    /// The whole of `bytes` as one value in outer context.
    ///
    /// # Errors
    /// When the bytes are no such encoding, or some are left over.
    pub fn from_bytes(&self, bytes: impl Into<Bytes>) -> Result<T> {
        let mut reader = Reader::new(bytes);
        let value = self.decode(&mut reader, Nesting::Outer)?;
        if !reader.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "TB0105",
                format!("{} bytes left over after a value of coder {}", reader.remaining(), self.spec()),
            ));
        }
        Ok(value)
    }

    /// The encoding of `value` in outer context.
    ///
    /// # Errors
    /// As [`Codec::encode`].
    pub fn to_bytes(&self, value: &T) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.encode(value, &mut out, Nesting::Outer)?;
        Ok(out)
    }

    /// How the coder travels.
    pub fn spec(&self) -> CoderSpec {
        self.0.spec()
    }

    /// Whether equal values always have equal encodings.
    pub fn is_deterministic(&self) -> bool {
        self.0.is_deterministic()
    }
}

/// `length_prefix<inner>`: the length, then the inner encoding in outer context.
struct LengthPrefix<T>(Coder<T>);

impl<T: 'static> Codec<T> for LengthPrefix<T> {
    fn encode(&self, value: &T, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        let mut inner = Vec::new();
        self.0.encode(value, &mut inner, Nesting::Outer)?;
        write_varint(inner.len() as i64, out);
        out.extend_from_slice(&inner);
        Ok(())
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<T> {
        let n = input.length()?;
        let mut inner = input.sub(n)?;
        let value = self.0.decode(&mut inner, Nesting::Outer)?;
        if inner.is_empty() {
            Ok(value)
        } else {
            Err(Error::new(
                ErrorKind::InvalidData,
                "TB0105",
                format!("{} bytes left over inside {}", inner.remaining(), self.spec()),
            ))
        }
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::of(LENGTH_PREFIX, [self.0.spec()])
    }

    fn is_deterministic(&self) -> bool {
        self.0.is_deterministic()
    }
}

/// The URN of `length_prefix`.
pub const LENGTH_PREFIX: &str = "beam:coder:length_prefix:v1";

/// `inner` with its length in front.
pub fn length_prefixed<T: 'static>(inner: Coder<T>) -> Coder<T> {
    Coder::new(LengthPrefix(inner))
}

/// The error of a tree that says another coder than the type wants.
pub fn mismatch(wanted: &str, got: &CoderSpec) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0106", format!("a value of {wanted} cannot be read by coder {got}"))
}
