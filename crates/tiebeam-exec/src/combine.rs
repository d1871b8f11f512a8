//! The pieces of a combine that an engine may ask for one by one: precombine, merge, extract, and all at once.

use std::marker::PhantomData;
use std::sync::Arc;

use hashbrown::HashMap;
use tiebeam_core::coder::Coder;
use tiebeam_core::{
    Batch, BundleContext, CombineFn, DoFn, Element, ElementContext, Iterable, Nesting, Output, Pane, Result,
    Timestamp, TimestampCombiner, Window, WindowInfo, Windows,
};

use crate::window_table::WindowTable;

/// Keys held before a bundle's end; more are passed on at once, so that a bundle of many keys stays small.
const MAX_KEYS: usize = 65_536;

/// Combines what it can before a shuffle: `(K, input)` to `(K, accumulator)`, one a key and window of a bundle.
pub struct Precombine<K, C: CombineFn> {
    combine: Arc<C>,
    key: Coder<K>,
    timestamps: TimestampCombiner,
    windows: WindowTable<Table<K, C::Accumulator>>,
    scratch: Vec<u8>,
    keys: usize,
}

type Table<K, A> = HashMap<Box<[u8]>, Entry<K, A>>;

struct Entry<K, A> {
    key: K,
    accumulator: A,
    earliest: Timestamp,
    latest: Timestamp,
}

impl<K: Element, C: CombineFn> Precombine<K, C> {
    /// By that function; `key` tells which keys are equal.
    pub fn new(combine: Arc<C>, key: Coder<K>, timestamps: TimestampCombiner) -> Self {
        Precombine { combine, key, timestamps, windows: WindowTable::default(), scratch: Vec::new(), keys: 0 }
    }

    fn add(&mut self, key: K, input: C::Input, info: &WindowInfo) -> Result<()> {
        self.scratch.clear();
        self.key.encode(&key, &mut self.scratch, Nesting::Outer)?;
        let (last, others) = match info.windows.as_slice().split_last() {
            Some(split) => split,
            None => return Ok(()),
        };
        for window in others {
            self.add_to(window, key.clone(), input.clone(), info.timestamp);
        }
        self.add_to(last, key, input, info.timestamp);
        Ok(())
    }

    #[inline]
    fn add_to(&mut self, window: &Window, key: K, input: C::Input, at: Timestamp) {
        let table = self.windows.get_or_insert_with(window, HashMap::new);
        match table.get_mut(self.scratch.as_slice()) {
            Some(entry) => {
                self.combine.add_input(&mut entry.accumulator, input);
                entry.earliest = entry.earliest.min(at);
                entry.latest = entry.latest.max(at);
            }
            None => {
                let mut accumulator = self.combine.create_accumulator();
                self.combine.add_input(&mut accumulator, input);
                table.insert(
                    self.scratch.as_slice().into(),
                    Entry { key, accumulator, earliest: at, latest: at },
                );
                self.keys += 1;
            }
        }
    }

    fn pass_on(&mut self, out: &mut Output<(K, C::Accumulator)>) {
        for (window, table) in self.windows.take() {
            for (_, entry) in table {
                let info = WindowInfo {
                    timestamp: self.timestamps.combine(&window, entry.earliest, entry.latest),
                    windows: Windows::One(window.clone()),
                    pane: Pane::NO_FIRING,
                };
                out.emit_with((entry.key, entry.accumulator), &info);
            }
        }
        self.keys = 0;
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
        self.add(key, input, cx.info())
    }

    fn process_batch(
        &mut self,
        batch: Batch<Self::In>,
        _: &BundleContext<'_>,
        out: &mut Output<Self::Out>,
    ) -> Result<()> {
        let Batch { values, meta } = batch;
        for (i, (key, input)) in values.into_iter().enumerate() {
            self.add(key, input, meta.get(i))?;
        }
        if self.keys > MAX_KEYS {
            self.pass_on(out);
        }
        Ok(())
    }

    fn finish_bundle(&mut self, _: &BundleContext<'_>, out: &mut Output<Self::Out>) -> Result<()> {
        self.pass_on(out);
        Ok(())
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
