//! The pieces of a combine that an engine may ask for one by one: precombine, merge, extract, and all at once.

use std::hash::{BuildHasher, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashTable};
use tiebeam_core::coder::{Coder, Reader};
use tiebeam_core::{
    Batch, BundleContext, CombineFn, DoFn, Element, ElementContext, Iterable, Meta, Nesting, Output, Pane,
    Result, Timestamp, TimestampCombiner, Window, WindowInfo, Windows,
};

use crate::window_table::WindowTable;

/// Keys held before a bundle's end; more are passed on at once, so that a bundle of many keys stays small.
const MAX_KEYS: usize = 65_536;

/// Combines what it can before a shuffle: `(K, input)` to `(K, accumulator)`, one a key and window of a bundle.
pub struct Precombine<K, C: CombineFn> {
    combine: Arc<C>,
    key: Coder<K>,
    timestamps: TimestampCombiner,
    windows: WindowTable<HashTable<Entry<C::Accumulator>>>,
    hasher: DefaultHashBuilder,
    scratch: Vec<u8>,
    keys: usize,
}

struct Entry<A> {
    /// All that is kept of a key is its encoding.
    key: EncodedKey,
    accumulator: A,
    earliest: Timestamp,
    latest: Timestamp,
}

impl<K: Element, C: CombineFn> Precombine<K, C> {
    /// By that function; `key` tells which keys are equal.
    pub fn new(combine: Arc<C>, key: Coder<K>, timestamps: TimestampCombiner) -> Self {
        Precombine {
            combine,
            key,
            timestamps,
            windows: WindowTable::default(),
            hasher: DefaultHashBuilder::default(),
            scratch: Vec::new(),
            keys: 0,
        }
    }

    /// Adds inputs that share one time and its windows.
    fn add_all(&mut self, pairs: impl Iterator<Item = (K, C::Input)>, info: &WindowInfo) -> Result<()> {
        let Some((last, others)) = info.windows.as_slice().split_last() else { return Ok(()) };
        for (key, input) in pairs {
            self.scratch.clear();
            self.key.encode(&key, &mut self.scratch, Nesting::Outer)?;
            let key = EncodedKey::of(&self.scratch);
            for window in others {
                self.add(window, &key, input.clone(), info.timestamp);
            }
            self.add(last, &key, input, info.timestamp);
        }
        Ok(())
    }

    #[inline(always)] // so that the key's words stay where they are: moving them costs more than the look-up
    fn add(&mut self, window: &Window, key: &EncodedKey, input: C::Input, at: Timestamp) {
        let hash = key.hash(&self.hasher);
        let table = self.windows.get_or_insert_with(window, HashTable::new);
        if let Some(entry) = table.find_mut(hash, |entry| entry.key == *key) {
            self.combine.add_input(&mut entry.accumulator, input);
            entry.earliest = entry.earliest.min(at);
            entry.latest = entry.latest.max(at);
            return;
        }
        let mut accumulator = self.combine.create_accumulator();
        self.combine.add_input(&mut accumulator, input);
        let entry = Entry { key: key.clone(), accumulator, earliest: at, latest: at };
        table.insert_unique(hash, entry, |entry| entry.key.hash(&self.hasher));
        self.keys += 1;
    }

    fn pass_on(&mut self, out: &mut Output<(K, C::Accumulator)>) -> Result<()> {
        for (window, table) in self.windows.take() {
            for entry in table {
                let info = WindowInfo {
                    timestamp: self.timestamps.combine(&window, entry.earliest, entry.latest),
                    windows: Windows::One(window.clone()),
                    pane: Pane::NO_FIRING,
                };
                let mut key_bytes = Reader::new(entry.key.bytes());
                let key = self.key.decode(&mut key_bytes, Nesting::Outer)?;
                out.emit_with((key, entry.accumulator), &info);
            }
        }
        self.keys = 0;
        Ok(())
    }
}

/// A key's encoding. A short one lies in the table itself, where a look at it costs no second trip to memory, and as words,
/// since these are compared and hashed without counting bytes.
#[derive(Clone, PartialEq, Eq)]
enum EncodedKey {
    /// Up to 23 bytes with zeros behind them; the last byte of the last word is their number. Not an array: words that are
    /// written one by one to memory and read from there two at a time stall the processor.
    Short(u64, u64, u64),
    Long(Box<[u8]>),
}

impl EncodedKey {
    #[inline(always)] // as `add`
    fn of(bytes: &[u8]) -> Self {
        let word = |chunk: &[u8; 8]| u64::from_le_bytes(*chunk);
        let length = (bytes.len() as u64) << 56;
        match bytes.as_chunks::<8>() {
            ([], rest) => EncodedKey::Short(last_word(rest), 0, length),
            ([first], rest) => EncodedKey::Short(word(first), last_word(rest), length),
            ([first, second], rest) => EncodedKey::Short(word(first), word(second), last_word(rest) | length),
            _ => EncodedKey::Long(bytes.into()),
        }
    }

    /// The encoding itself.
    fn bytes(&self) -> Bytes {
        match self {
            EncodedKey::Short(first, second, last) => {
                let bytes: Vec<u8> =
                    [first, second, last].into_iter().flat_map(|word| word.to_le_bytes()).collect();
                Bytes::from(bytes).slice(..(last >> 56) as usize)
            }
            EncodedKey::Long(bytes) => Bytes::copy_from_slice(bytes),
        }
    }

    /// Not by `BuildHasher::hash_one`, which is a call, and to which the words go through memory.
    #[inline(always)]
    fn hash(&self, hasher: &DefaultHashBuilder) -> u64 {
        let mut state = hasher.build_hasher();
        match self {
            EncodedKey::Short(first, second, last) => {
                state.write_u64(*first);
                // Most keys end here; the number of bytes is in the last word.
                if *second != 0 {
                    state.write_u64(*second);
                }
                state.write_u64(*last);
            }
            EncodedKey::Long(bytes) => state.write(bytes),
        }
        state.finish()
    }
}

/// Fewer than eight bytes as a word, read with as few loads as can be: they may overlap.
#[inline]
fn last_word(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let last = u64::from(u32::from_le_bytes(*last));
        u64::from(u32::from_le_bytes(*first)) | last << (8 * (bytes.len() - 4))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<2>(), bytes.last_chunk::<2>()) {
        let last = u64::from(u16::from_le_bytes(*last));
        u64::from(u16::from_le_bytes(*first)) | last << (8 * (bytes.len() - 2))
    } else {
        bytes.first().map_or(0, |byte| u64::from(*byte))
    }
}

impl<K: Element, C: CombineFn> DoFn for Precombine<K, C> {
    type In = (K, C::Input);
    type Out = (K, C::Accumulator);

    fn start_bundle(&mut self, _: &BundleContext<'_>, _: &mut Output<Self::Out>) -> Result<()> {
        self.windows.take();
        self.keys = 0;
        Ok(())
    }

    fn process(
        &mut self,
        (key, input): Self::In,
        cx: &ElementContext<'_>,
        _: &mut Output<Self::Out>,
    ) -> Result<()> {
        self.add_all(std::iter::once((key, input)), cx.info())
    }

    fn process_batch(
        &mut self,
        batch: Batch<Self::In>,
        _: &BundleContext<'_>,
        out: &mut Output<Self::Out>,
    ) -> Result<()> {
        match &batch.meta {
            Meta::Uniform(info) => self.add_all(batch.values.into_iter(), info)?,
            Meta::Each(infos) => {
                for (pair, info) in batch.values.into_iter().zip(infos) {
                    self.add_all(std::iter::once(pair), info)?;
                }
            }
        }
        if self.keys > MAX_KEYS {
            self.pass_on(out)?;
        }
        Ok(())
    }

    fn finish_bundle(&mut self, _: &BundleContext<'_>, out: &mut Output<Self::Out>) -> Result<()> {
        self.pass_on(out)
    }
}

macro_rules! grouped {
    ($(#[$doc:meta])* $name:ident, $in:ty, $out:ty, |$combine:ident, $value:ident| $body:expr) => {
        $(#[$doc])*
        pub struct $name<K, C> {
            combine: Arc<C>,
            key: PhantomData<fn(K)>,
        }

        impl<K, C> $name<K, C> {
            /// By that function.
            pub fn new(combine: Arc<C>) -> Self {
                $name { combine, key: PhantomData }
            }
        }

        impl<K, C> Clone for $name<K, C> {
            fn clone(&self) -> Self {
                $name::new(self.combine.clone())
            }
        }

        impl<K: Element, C: CombineFn> DoFn for $name<K, C> {
            type In = (K, $in);
            type Out = (K, $out);

            fn process(
                &mut self,
                (key, $value): Self::In,
                _: &ElementContext<'_>,
                out: &mut Output<Self::Out>,
            ) -> Result<()> {
                let $combine = &self.combine;
                out.emit((key, $body));
                Ok(())
            }
        }
    };
}

grouped!(
    /// Merges the accumulators of a key: `(K, Iterable<accumulator>)` to `(K, accumulator)`.
    MergeAccumulators, Iterable<C::Accumulator>, C::Accumulator, |combine, parts| merged(&**combine, &parts)
);
grouped!(
    /// Takes the result out of an accumulator: `(K, accumulator)` to `(K, output)`.
    ExtractOutputs, C::Accumulator, C::Output, |combine, accumulator| combine.extract_output(accumulator)
);
grouped!(
    /// Makes one-input accumulators: `(K, input)` to `(K, accumulator)`.
    ConvertToAccumulators, C::Input, C::Accumulator, |combine, input| {
        let mut accumulator = combine.create_accumulator();
        combine.add_input(&mut accumulator, input);
        accumulator
    }
);
grouped!(
    /// Combines the values of a key at once: `(K, Iterable<input>)` to `(K, output)`.
    CombineGroupedValues, Iterable<C::Input>, C::Output, |combine, values| {
        let mut accumulator = combine.create_accumulator();
        values.iter().for_each(|value| combine.add_input(&mut accumulator, value));
        combine.extract_output(accumulator)
    }
);

fn merged<C: CombineFn>(combine: &C, parts: &Iterable<C::Accumulator>) -> C::Accumulator {
    let mut parts = parts.iter();
    let mut all = parts.next().unwrap_or_else(|| combine.create_accumulator());
    parts.for_each(|part| combine.merge(&mut all, part));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_equal_where_their_bytes_are() {
        let text: Vec<u8> = (1..=40).collect();
        let with_zeros: Vec<u8> = text.iter().map(|byte| byte & 1).collect();
        let mut all: Vec<&[u8]> = Vec::new();
        for bytes in [&text, &with_zeros] {
            all.extend((0..=bytes.len()).map(|len| &bytes[..len]));
        }
        all.extend([&[0][..], &[0, 0], &[0; 8], &[0; 22], &[0; 23], &[0; 24]]);
        for one in &all {
            assert_eq!(EncodedKey::of(one).bytes(), *one);
            for other in &all {
                assert_eq!(EncodedKey::of(one) == EncodedKey::of(other), one == other, "{one:?} {other:?}");
            }
        }
    }
}
