//! The few protobuf pieces that coder and window payloads need, so that this crate stays free of a protobuf library.

use bytes::Bytes;

use super::{Reader, write_varint};
use crate::error::{Error, ErrorKind, Result};

/// A varint field.
pub fn varint(out: &mut Vec<u8>, field: u32, value: i64) {
    if value != 0 {
        write_varint(i64::from(field << 3), out);
        write_varint(value, out);
    }
}

/// A length-delimited field: bytes, a string or an encoded message.
pub fn message(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    write_varint(i64::from(field << 3 | 2), out);
    write_varint(value.len() as i64, out);
    out.extend_from_slice(value);
}

/// `google.protobuf.Duration` (and `Timestamp`, which has the same shape) of microseconds.
pub fn duration(micros: i64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, 1, micros.div_euclid(1_000_000));
    varint(&mut out, 2, micros.rem_euclid(1_000_000) * 1_000);
    out
}

/// The content of one field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A number, a boolean or an enum.
    Varint(i64),
    /// Eight bytes.
    Fixed64([u8; 8]),
    /// Bytes, a string or a message.
    Bytes(Bytes),
    /// Four bytes.
    Fixed32([u8; 4]),
}

impl Content {
    /// The number in it.
    ///
    /// # Errors
    /// When it is not a varint.
    pub fn varint(&self) -> Result<i64> {
        match self {
            Content::Varint(value) => Ok(*value),
            other => Err(wrong("a varint", other)),
        }
    }

    /// The bytes in it.
    ///
    /// # Errors
    /// When it is not length-delimited.
    pub fn bytes(&self) -> Result<Bytes> {
        match self {
            Content::Bytes(value) => Ok(value.clone()),
            other => Err(wrong("bytes", other)),
        }
    }

    /// The text in it.
    ///
    /// # Errors
    /// When it is not length-delimited UTF-8.
    pub fn text(&self) -> Result<String> {
        super::atoms::utf8(self.bytes()?)
    }
}

fn wrong(wanted: &str, got: &Content) -> Error {
    let got = match got {
        Content::Varint(_) => "a varint",
        Content::Fixed64(_) => "eight fixed bytes",
        Content::Bytes(_) => "bytes",
        Content::Fixed32(_) => "four fixed bytes",
    };
    Error::new(ErrorKind::InvalidData, "TB0115", format!("a protobuf field holds {got}, wanted {wanted}"))
}

/// The fields of an encoded message, in the order in which they come.
pub struct Fields(Reader);

impl Fields {
    /// The fields of `message`.
    pub fn of(message: impl Into<Bytes>) -> Self {
        Fields(Reader::new(message))
    }

    /// The next field's number and content; none at the end.
    ///
    /// # Errors
    /// When the bytes are no protobuf message.
    pub fn next_field(&mut self) -> Result<Option<(u32, Content)>> {
        let input = &mut self.0;
        if input.is_empty() {
            return Ok(None);
        }
        let key = input.varint()?;
        let field = u32::try_from(key >> 3).ok().filter(|&field| field > 0);
        let content = match key & 7 {
            0 => Content::Varint(input.varint()?),
            1 => Content::Fixed64(input.array()?),
            2 => {
                let n = input.length()?;
                Content::Bytes(input.take(n)?)
            }
            5 => Content::Fixed32(input.array()?),
            _ => return Err(bad_key(key)),
        };
        field.map(|field| Some((field, content))).ok_or_else(|| bad_key(key))
    }
}

fn bad_key(key: i64) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0115", format!("no protobuf field begins with the key {key}"))
}
