//! [`Reader`]: a bounded cursor over encoded bytes, and the varints it reads.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};

/// Serves the values of iterables that a runner keeps on its side (`state_backed_iterable`).
pub trait IterableState: Send + Sync {
    /// One page of encoded values, and the token of the next page while there is one. `token` is the one in the
    /// element's encoding, `page` none for the first page. A page may end in the middle of a value.
    ///
    /// # Errors
    /// Whatever keeps the runner from answering.
    fn page(&self, token: &[u8], page: Option<&[u8]>) -> Result<(Bytes, Option<Bytes>)>;
}

/// A cursor over encoded bytes. Decoded [`Bytes`] share its buffer.
#[derive(Clone)]
pub struct Reader {
    bytes: Bytes,
    /// What is left is `bytes[at..end]`. Both are moved instead of cutting the buffer, which would count references for
    /// every value read.
    at: usize,
    end: usize,
    state: Option<Arc<dyn IterableState>>,
    /// Whether a value wanted more than the whole buffer has, which more bytes may cure.
    ran_short: Cell<bool>,
}

impl Reader {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Reader { at: 0, end: bytes.len(), bytes, state: None, ran_short: Cell::new(false) }
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

    #[inline]
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..self.end]
    }

    /// The bytes not yet read.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// Whether everything was read.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn take(&mut self, n: usize) -> Result<Bytes> {
        if n > self.remaining() {
            return Err(self.truncated(n));
        }
        self.at += n;
        Ok(self.bytes.slice(self.at - n..self.at))
    }

    /// What `read` makes of the next `n` bytes, which are not kept.
    ///
    /// # Errors
    /// When fewer are left, and those of `read`.
    #[inline]
    pub fn look<T>(&mut self, n: usize, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        let Some(bytes) = self.rest().get(..n) else { return Err(self.truncated(n)) };
        let value = read(bytes)?;
        self.at += n;
        Ok(value)
    }

    /// The bytes that were read since `start`, an earlier [`position`](Reader::position); they share the buffer.
    pub fn since(&self, start: usize) -> Bytes {
        self.bytes.slice(start.min(self.at)..self.at)
    }

    /// The bytes from `start`, an earlier [`position`](Reader::position), to the end; the cursor stays.
    pub(crate) fn from(&self, start: usize) -> Bytes {
        self.bytes.slice(start.min(self.end)..self.end)
    }

    /// Where the cursor stands in its buffer.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Whether the last error was of a value that is longer than the buffer.
    pub(crate) fn ran_short(&self) -> bool {
        self.ran_short.get()
    }

    #[cold]
    fn truncated(&self, wanted: usize) -> Error {
        self.ran_short.set(true);
        Error::new(
            ErrorKind::InvalidData,
            "TB0101",
            format!("encoding cut off: wanted {wanted} bytes, {} left", self.remaining()),
        )
    }

    /// All bytes that are left.
    pub fn take_rest(&mut self) -> Bytes {
        let start = std::mem::replace(&mut self.at, self.end);
        self.bytes.slice(start..self.end)
    }

    /// Reads a value that is all of the next `n` bytes.
    ///
    /// # Errors
    /// When fewer are left, those of `read`, and when it leaves some.
    #[inline]
    pub fn within<T>(&mut self, n: usize, read: impl FnOnce(&mut Reader) -> Result<T>) -> Result<T> {
        if n > self.remaining() {
            return Err(self.truncated(n));
        }
        let outer = std::mem::replace(&mut self.end, self.at + n);
        let value = read(self);
        let left = self.remaining();
        self.end = outer;
        if value.is_err() {
            // All of the value's bytes were there: more behind them would not help it.
            self.ran_short.set(false);
        }
        let value = value?;
        if left > 0 {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "TB0105",
                format!("{left} bytes left over of {n} that hold one value"),
            ));
        }
        Ok(value)
    }

    /// The next byte.
    ///
    /// # Errors
    /// When nothing is left.
    #[inline]
    pub fn u8(&mut self) -> Result<u8> {
        let byte = *self.rest().first().ok_or_else(|| self.truncated(1))?;
        self.at += 1;
        Ok(byte)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// When fewer are left.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let array = self.peek()?;
        self.at += N;
        Ok(array)
    }

    /// The next `N` bytes as an array; they are read again by what comes next.
    ///
    /// # Errors
    /// When fewer are left.
    #[inline]
    pub fn peek<const N: usize>(&self) -> Result<[u8; N]> {
        self.rest().first_chunk::<N>().copied().ok_or_else(|| self.truncated(N))
    }

    /// The next varint, as Beam writes it: two's complement, seven bits a byte, low bits first.
    ///
    /// # Errors
    /// When it is cut off or longer than ten bytes.
    #[inline]
    pub fn varint(&mut self) -> Result<i64> {
        let mut value = 0u64;
        for (i, byte) in self.rest().iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.at += i + 1;
                return Ok(value as i64);
            }
        }
        Err(if self.remaining() < 10 {
            self.truncated(self.remaining() + 1)
        } else {
            Error::new(ErrorKind::InvalidData, "TB0103", "a varint is longer than ten bytes")
        })
    }

    /// The next varint as a length of something that must still be in the buffer: a lying length can't make a decoder
    /// allocate more than its input.
    ///
    /// # Errors
    /// When it is cut off, negative, or more than the bytes that are left.
    #[inline]
    pub fn length(&mut self) -> Result<usize> {
        let value = self.varint()?;
        match usize::try_from(value) {
            Ok(n) if n <= self.remaining() => Ok(n),
            wanted => {
                self.ran_short.set(wanted.is_ok());
                Err(Error::new(
                    ErrorKind::InvalidData,
                    "TB0104",
                    format!("a length of {value} where {} bytes are left", self.remaining()),
                ))
            }
        }
    }
}

/// Writes a varint as [`Reader::varint`] reads it.
#[inline]
pub fn write_varint(value: i64, out: &mut Vec<u8>) {
    let mut rest = value as u64;
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
