//! [`Pages`]: reads the values of a state-backed iterable from one page after another, holding what is not yet read.

use std::sync::Arc;

use bytes::Bytes;

use super::{IterableState, Reader};
use crate::error::{Error, ErrorKind, Result};

/// The values that lie with a runner under a token, from the first.
///
/// The pages are one stream of bytes: where one ends is the runner's affair, and may be in the middle of a value.
pub(crate) struct Pages {
    token: Bytes,
    state: Arc<dyn IterableState>,
    /// The page to be asked for: none after the last, `Some(None)` for the first.
    next: Option<Option<Bytes>>,
    reader: Reader,
}

impl Pages {
    /// None is asked for yet.
    pub(crate) fn new(token: Bytes, state: Arc<dyn IterableState>) -> Self {
        Pages { token, state, next: Some(None), reader: Reader::new(Bytes::new()) }
    }

    /// The next value, by `one` in nested context; none after the last.
    ///
    /// # Errors
    /// Those of `one` and of the runner.
    pub(crate) fn read<T>(&mut self, mut one: impl FnMut(&mut Reader) -> Result<T>) -> Result<Option<T>> {
        loop {
            while self.reader.is_empty() {
                match self.fetch()? {
                    Some(page) => self.continue_with(page),
                    None => return Ok(None),
                }
            }
            let start = self.reader.position();
            match one(&mut self.reader) {
                Ok(_) if self.reader.position() == start => {
                    return Err(Error::new(
                        ErrorKind::InvalidData,
                        "TB0112",
                        "a page of a list's values holds bytes, and its values take none",
                    ));
                }
                Ok(value) => return Ok(Some(value)),
                // The value is read anew once more of it is there.
                Err(error) if self.next.is_some() && self.reader.ran_short() => self.join(start, error)?,
                Err(error) => return Err(error),
            }
        }
    }

    fn fetch(&mut self) -> Result<Option<Bytes>> {
        let Some(at) = self.next.take() else { return Ok(None) };
        let (page, next) = self.state.page(&self.token, at.as_deref())?;
        self.next = next.map(Some);
        Ok(Some(page))
    }

    fn continue_with(&mut self, bytes: impl Into<Bytes>) {
        // The values may hold iterables that lie with the runner themselves.
        self.reader = Reader::new(bytes).with_state(self.state.clone());
    }

    /// Puts more pages behind what is left of this one: at least as much again, so that a value over many pages is not
    /// tried and copied for each of them. Gives `error` back when there is no more.
    fn join(&mut self, start: usize, error: Error) -> Result<()> {
        let left = self.reader.from(start);
        let mut whole = Vec::new();
        while whole.len() < 2 * left.len() {
            let Some(page) = self.fetch()? else { break };
            if whole.is_empty() {
                whole.reserve_exact(left.len() + page.len());
                whole.extend_from_slice(&left);
            }
            whole.extend_from_slice(&page);
        }
        if whole.len() == left.len() || whole.is_empty() {
            return Err(error);
        }
        self.continue_with(whole);
        Ok(())
    }
}
