//! [`Iterable`]: the values of one key, which may be more than fit in memory.

use std::sync::Arc;

use bytes::Bytes;

use crate::coder::list::{decode_list, decode_many, too_many};
use crate::coder::pages::Pages;
use crate::coder::{
    Codec, Coder, CoderSpec, IterableState, LENGTH_PREFIX, Nesting, Reader, length_prefixed, mismatch, urn,
};
use crate::element::Element;
use crate::error::{Error, Result};

/// The values that a grouping brought together, in no particular order. Can be iterated any number of times.
///
/// Values may be held decoded, or encoded, or on the runner's side; the last two are decoded while they are iterated, so
/// that one hot key need not fit in memory. An error while doing so (a runner that is gone, say) ends the bundle.
pub struct Iterable<T>(Source<T>);

enum Source<T> {
    Decoded(Arc<[T]>),
    Encoded {
        chunks: Arc<[Bytes]>,
        count: usize,
        coder: Coder<T>,
    },
    State {
        first: Arc<[Bytes]>,
        token: Bytes,
        state: Arc<dyn IterableState>,
        coder: Coder<T>,
        /// The number of values, where it is known without reading them.
        count: Option<usize>,
    },
}

impl<T> Clone for Iterable<T> {
    fn clone(&self) -> Self {
        Iterable(match &self.0 {
            Source::Decoded(values) => Source::Decoded(values.clone()),
            Source::Encoded { chunks, count, coder } => {
                Source::Encoded { chunks: chunks.clone(), count: *count, coder: coder.clone() }
            }
            Source::State { first, token, state, coder, count } => Source::State {
                count: *count,
                first: first.clone(),
                token: token.clone(),
                state: state.clone(),
                coder: coder.clone(),
            },
        })
    }
}

impl<T: Element> Iterable<T> {
    /// Values that are encoded one after another, each in nested context, in `chunks` that never cut one.
    pub fn encoded(chunks: impl Into<Arc<[Bytes]>>, count: usize, coder: Coder<T>) -> Self {
        Iterable(Source::Encoded { chunks: chunks.into(), count, coder })
    }

    /// Values that lie with a runner under `token`, encoded one after another, each in nested context. They are read page
    /// by page while they are iterated, each time anew.
    pub fn paged(token: impl Into<Bytes>, state: Arc<dyn IterableState>, coder: Coder<T>) -> Self {
        Iterable(Source::State { first: Arc::from([]), token: token.into(), state, coder, count: None })
    }

    /// The same values, of which the runner knows how many there are.
    #[must_use]
    pub fn counted(mut self, values: usize) -> Self {
        if let Source::State { count, .. } = &mut self.0 {
            *count = Some(values);
        }
        self
    }

    /// All values, one after another.
    pub fn iter(&self) -> IterableIter<'_, T> {
        IterableIter(match &self.0 {
            Source::Decoded(values) => Iter::Decoded(values.iter()),
            Source::Encoded { chunks, coder, .. } => Iter::Encoded {
                reader: Reader::new(Bytes::new()),
                chunks: chunks.iter(),
                coder,
                state: None,
                pages: None,
            },
            Source::State { first, token, state, coder, .. } => {
                let pages = Some(Box::new(Pages::new(token.clone(), state.clone())));
                Iter::Encoded {
                    reader: Reader::new(Bytes::new()),
                    chunks: first.iter(),
                    coder,
                    state: Some(state),
                    pages,
                }
            }
        })
    }

    /// The number of values, counted if need be.
    pub fn count(&self) -> usize {
        match &self.0 {
            Source::Decoded(values) => values.len(),
            Source::Encoded { count, .. } => *count,
            Source::State { count, .. } => count.unwrap_or_else(|| self.iter().count()),
        }
    }

    /// All values in memory.
    pub fn to_vec(&self) -> Vec<T> {
        self.iter().collect()
    }
}

impl<T> From<Vec<T>> for Iterable<T> {
    fn from(values: Vec<T>) -> Self {
        Iterable(Source::Decoded(values.into()))
    }
}

impl<T: Element> FromIterator<T> for Iterable<T> {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        Iterable(Source::Decoded(iter.into_iter().collect()))
    }
}

impl<T: Element + std::fmt::Debug> std::fmt::Debug for Iterable<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Element + PartialEq> PartialEq for Iterable<T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Element> IntoIterator for &'a Iterable<T> {
    type Item = T;
    type IntoIter = IterableIter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterates an [`Iterable`].
pub struct IterableIter<'a, T>(Iter<'a, T>);

enum Iter<'a, T> {
    Decoded(std::slice::Iter<'a, T>),
    Encoded {
        reader: Reader,
        chunks: std::slice::Iter<'a, Bytes>,
        coder: &'a Coder<T>,
        state: Option<&'a Arc<dyn IterableState>>,
        /// What comes after the chunks.
        pages: Option<Box<Pages>>,
    },
}

impl<T: Element> Iterator for IterableIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Iter::Decoded(values) => values.next().cloned(),
            Iter::Encoded { reader, chunks, coder, state, pages } => {
                let one = |input: &mut Reader| coder.decode(input, Nesting::Nested);
                while reader.is_empty() {
                    let Some(chunk) = chunks.next() else {
                        return pages.as_mut()?.read(one).unwrap_or_else(|error| abort_bundle(error));
                    };
                    *reader = Reader::new(chunk.clone());
                    // The values may hold iterables that lie with the runner themselves.
                    if let Some(state) = state {
                        *reader = reader.clone().with_state((*state).clone());
                    }
                }
                Some(one(reader).unwrap_or_else(|error| abort_bundle(error)))
            }
        }
    }
}

/// Ends the bundle from a place that has no way to return an error: unwinds with the [`Error`] itself, which the
/// bundle's edge catches and reports as such, not as a panic.
pub fn abort_bundle(error: Error) -> ! {
    std::panic::resume_unwind(Box::new(error))
}

struct IterableCodec<T> {
    value: Coder<T>,
    spec: CoderSpec,
}

impl<T: Element> Codec<Iterable<T>> for IterableCodec<T> {
    fn encode(&self, value: &Iterable<T>, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut count = 0usize;
        match &value.0 {
            // Bytes of this very coder are passed on as they are.
            Source::Encoded { chunks, count: known, coder } if coder.is(&self.value) => {
                chunks.iter().for_each(|chunk| out.extend_from_slice(chunk));
                count = *known;
            }
            Source::Decoded(values) => {
                values.iter().try_for_each(|one| self.value.encode(one, out, Nesting::Nested))?;
                count = values.len();
            }
            _ => {
                for one in value {
                    self.value.encode(&one, out, Nesting::Nested)?;
                    count += 1;
                }
            }
        }
        let count = i32::try_from(count).map_err(|_| too_many(count))?;
        out[at..at + 4].copy_from_slice(&count.to_be_bytes());
        Ok(())
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Iterable<T>> {
        let one = |input: &mut Reader| self.value.decode(input, Nesting::Nested);
        let state = match (input.peek()? == (-1i32).to_be_bytes(), input.state()) {
            (true, Some(state)) => state.clone(),
            // Only the state-backed form is worth keeping encoded: the others' bytes are in memory already.
            _ => return decode_list(input, one).map(Iterable::from),
        };
        input.array::<4>()?;
        // Where the first values end is known only by reading them; their bytes are kept for when there are more.
        let (mut values, mut first) = (Vec::new(), Vec::new());
        loop {
            match input.varint()? {
                0 => return Ok(Iterable::from(values)),
                -1 => {
                    let n = input.length()?;
                    let token = input.take(n)?;
                    let coder = self.value.clone();
                    return Ok(Iterable(Source::State {
                        first: first.into(),
                        token,
                        state,
                        coder,
                        count: None,
                    }));
                }
                count => {
                    let start = input.position();
                    decode_many(count, &mut values, input, one)?;
                    first.push(input.since(start));
                }
            }
        }
    }

    fn spec(&self) -> CoderSpec {
        self.spec.clone()
    }

    fn is_deterministic(&self) -> bool {
        // The order of the values is no one's promise.
        false
    }
}

impl<T: Element> Element for Iterable<T> {
    fn coder() -> Coder<Self> {
        iterable_coder(T::coder())
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (LENGTH_PREFIX, [inner]) => Ok(length_prefixed(Self::coder_of(inner)?)),
            (urn::ITERABLE | urn::STATE_BACKED_ITERABLE, [inner]) => {
                Ok(Coder::new(IterableCodec { value: T::coder_of(inner)?, spec: spec.clone() }))
            }
            _ => Err(mismatch("an iterable", spec)),
        }
    }
}

/// `iterable<value>`.
pub fn iterable_coder<T: Element>(value: Coder<T>) -> Coder<Iterable<T>> {
    let spec = CoderSpec::of(urn::ITERABLE, [value.spec()]);
    Coder::new(IterableCodec { value, spec })
}
