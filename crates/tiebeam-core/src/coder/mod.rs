//! Coders: how elements become bytes that every Beam SDK can read.
//!
//! A [`Coder`] is a value with a [`CoderSpec`], the tree of URNs that travels to runners. Runners may change that tree
//! (they insert `length_prefix` where they like), so a worker builds its coders from the tree it was given, through
//! [`Element::coder_of`](crate::Element::coder_of), and never from the type alone.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};

mod atoms;
mod decimal;
mod kv;
mod length_prefix;
pub mod list;
mod nullable;
pub(crate) mod pages;
mod reader;
mod row;
pub mod row_element;
mod row_field;
pub mod schema_proto;
mod sharded_key;
mod timer;
mod tuple;
pub mod urn;
mod window;
mod windowed_value;
pub mod wire;

pub use kv::kv_coder;
pub use length_prefix::length_prefixed;
pub use list::vec_coder;
pub use nullable::nullable_coder;
pub use reader::{IterableState, Reader, write_varint};
pub use row::{dynamic_row_coder, row_coder};
pub use row_element::{NamedElement, RowElement};
pub use row_field::RowField;
pub use sharded_key::{ShardedKey, sharded_key_coder};
pub use timer::{Timer, TimerFiring, timer_coder};
pub use urn::LENGTH_PREFIX;
pub use window::{
    WindowCoder, decode_pane, decode_timestamp, decode_window, encode_pane, encode_timestamp, encode_window,
};
pub use windowed_value::{WindowedValueCoder, windowed_value};

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

/// Encodes and decodes values of one type. Implementations are pure and shared by all threads.
pub trait Codec<T>: Send + Sync + 'static {
    /// Appends the encoding of `value`. After an error `out` may hold a part of it.
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

    /// The coder inside, where this one only puts a length in front of it.
    fn unprefixed(&self) -> Option<Coder<T>> {
        None
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

    /// The coder inside, where this one only puts a length in front of it.
    pub fn unprefixed(&self) -> Option<Coder<T>> {
        self.0.unprefixed()
    }

    /// Whether the two are one and the same, so that bytes of one can be passed on as bytes of the other.
    pub(crate) fn is(&self, other: &Coder<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The error of a tree that says another coder than the type wants.
pub fn mismatch(wanted: &str, got: &CoderSpec) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0106", format!("a value of {wanted} cannot be read by coder {got}"))
}
