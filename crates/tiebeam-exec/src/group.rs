//! The erased type of a grouping: how a runner's shuffle takes keys and values apart and hands groups back, without
//! knowing either. Grouping itself (windows, triggers, merging) is the runner's.

use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::coder::{Coder, IterableState, Nesting, Reader};
use tiebeam_core::iterable::{Iterable, iterable_coder};
use tiebeam_core::{Batch, Element, Error, ErrorKind, Meta, Receiver, Result, WindowInfo};

use crate::edge::{AnyReceiver, EdgeType, TypedEdge};

/// Encoded keys and values of a batch, in one buffer.
#[derive(Debug, Default)]
pub struct KeyedBatch {
    /// All encodings: key (outer context), value (nested context), key, value…
    pub buffer: Vec<u8>,
    /// For each element, where its key ends and where its value ends in `buffer`.
    pub ends: Vec<(usize, usize)>,
}

impl KeyedBatch {
    /// Each element's key and value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(key, value)| {
            let pair = (&self.buffer[start..key], &self.buffer[key..value]);
            start = value;
            pair
        })
    }
}

/// Takes keyed batches into a shuffle.
pub trait KeyedSink: Send {
    /// Takes one batch with what its elements carry.
    ///
    /// # Errors
    /// Whatever keeps it from doing so.
    fn accept(&mut self, batch: &KeyedBatch, meta: &Meta) -> Result<()>;
}

/// Hands groups out of a shuffle.
pub trait GroupReader: Send {
    /// One group: an encoded key, the values (encoded in nested context, in chunks that cut none) and their number.
    ///
    /// # Errors
    /// Those of the stage, or what is wrong with the bytes.
    fn group(&mut self, key: Bytes, values: Arc<[Bytes]>, count: usize, info: &WindowInfo) -> Result<()>;

    /// One group whose values are too many for memory: they are read page by page each time that they are iterated.
    ///
    /// # Errors
    /// Those of the stage, or what is wrong with the bytes.
    fn paged(
        &mut self,
        key: Bytes,
        state: Arc<dyn IterableState>,
        count: usize,
        info: &WindowInfo,
    ) -> Result<()>;
}

/// What a runner needs to group `(K, V)` into `(K, Iterable<V>)`.
pub trait GroupType: Send + Sync {
    /// A receiver of `(K, V)` that takes them apart.
    fn writer(&self, sink: Box<dyn KeyedSink>) -> AnyReceiver;
    /// The other end: groups into a receiver of `(K, Iterable<V>)`.
    ///
    /// # Errors
    /// An internal one when `into` is of another type.
    fn reader(&self, into: AnyReceiver) -> Result<Box<dyn GroupReader>>;
    /// The edge type of the result.
    fn grouped_edge(&self) -> Arc<dyn EdgeType>;
    /// Whether equal keys have equal encodings; if not, the pipeline is refused.
    fn key_is_deterministic(&self) -> bool;
    /// A key that was encoded in nested context (as workers ask for side inputs), encoded in outer context (as groups are
    /// kept).
    ///
    /// # Errors
    /// When the bytes are no such key.
    fn outer_key(&self, nested: Bytes) -> Result<Vec<u8>>;
}

/// The grouping of `(K, V)`.
pub struct TypedGroup<K, V> {
    key: Coder<K>,
    value: Coder<V>,
}

impl<K: Element, V: Element> TypedGroup<K, V> {
    /// A grouping by these coders.
    pub fn new(key: Coder<K>, value: Coder<V>) -> Self {
        TypedGroup { key, value }
    }

    /// The coder of the groups.
    pub fn grouped_coder(&self) -> Coder<(K, Iterable<V>)> {
        tiebeam_core::element::kv_coder(self.key.clone(), iterable_coder(self.value.clone()))
    }
}

impl<K: Element, V: Element> GroupType for TypedGroup<K, V> {
    fn writer(&self, sink: Box<dyn KeyedSink>) -> AnyReceiver {
        AnyReceiver::new::<(K, V)>(Box::new(Writer {
            key: self.key.clone(),
            value: self.value.clone(),
            sink,
            batch: KeyedBatch::default(),
        }))
    }

    fn reader(&self, into: AnyReceiver) -> Result<Box<dyn GroupReader>> {
        Ok(Box::new(TypedReader {
            key: self.key.clone(),
            value: self.value.clone(),
            into: into.open::<(K, Iterable<V>)>()?,
        }))
    }

    fn grouped_edge(&self) -> Arc<dyn EdgeType> {
        TypedEdge::new(self.grouped_coder())
    }

    fn key_is_deterministic(&self) -> bool {
        self.key.is_deterministic()
    }

    fn outer_key(&self, nested: Bytes) -> Result<Vec<u8>> {
        let mut reader = Reader::new(nested);
        let key = self.key.decode(&mut reader, Nesting::Nested)?;
        if !reader.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "TB0105",
                format!("{} bytes left over after a key", reader.remaining()),
            ));
        }
        self.key.to_bytes(&key)
    }
}

struct Writer<K, V> {
    key: Coder<K>,
    value: Coder<V>,
    sink: Box<dyn KeyedSink>,
    batch: KeyedBatch,
}

impl<K: Element, V: Element> Receiver<(K, V)> for Writer<K, V> {
    fn receive(&mut self, batch: Batch<(K, V)>) -> Result<()> {
        self.batch.buffer.clear();
        self.batch.ends.clear();
        for (key, value) in &batch.values {
            self.key.encode(key, &mut self.batch.buffer, Nesting::Outer)?;
            let key_end = self.batch.buffer.len();
            self.value.encode(value, &mut self.batch.buffer, Nesting::Nested)?;
            self.batch.ends.push((key_end, self.batch.buffer.len()));
        }
        self.sink.accept(&self.batch, &batch.meta)
    }
}

struct TypedReader<K, V> {
    key: Coder<K>,
    value: Coder<V>,
    into: Box<dyn Receiver<(K, Iterable<V>)>>,
}

impl<K: Element, V: Element> GroupReader for TypedReader<K, V> {
    fn group(&mut self, key: Bytes, values: Arc<[Bytes]>, count: usize, info: &WindowInfo) -> Result<()> {
        let key = self.key.from_bytes(key)?;
        let values = Iterable::encoded(values, count, self.value.clone());
        self.into.receive(Batch::uniform(vec![(key, values)], info.clone()))
    }

    fn paged(
        &mut self,
        key: Bytes,
        state: Arc<dyn IterableState>,
        count: usize,
        info: &WindowInfo,
    ) -> Result<()> {
        let key = self.key.from_bytes(key)?;
        let values = Iterable::paged(Bytes::new(), state, self.value.clone()).counted(count);
        self.into.receive(Batch::uniform(vec![(key, values)], info.clone()))
    }
}
