//! [`Reader`]: a bounded cursor over encoded bytes, and the varints it reads.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::error::{Error, ErrorKind, Result};

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

    /// The bytes that were read since `earlier`, a copy of this cursor taken before; they share its buffer.
    pub fn since(&self, earlier: &Reader) -> Bytes {
        earlier.rest.slice(..earlier.rest.len().saturating_sub(self.rest.len()))
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
        self.rest.advance(1);
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
        self.rest.advance(N);
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
                self.rest.advance(i + 1);
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
    Error::new(
        ErrorKind::InvalidData,
        "TB0101",
        format!("encoding cut off: wanted {wanted} bytes, {left} left"),
    )
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
