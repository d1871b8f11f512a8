//! The shuffle: encoded keys and values, spread over partitions by key, and grouped by key and window when they are read.
//!
//! Equal keys are keys of equal encodings. Values stay encoded until somebody iterates them.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashMap};
use tiebeam_core::{Meta, Pane, Result, Timestamp, Window, WindowInfo, WindowingStrategy, Windows};
use tiebeam_exec::{GroupReader, KeyedBatch, KeyedSink, WindowTable};

/// The bytes of values that go into one chunk of a group.
const CHUNK: usize = 1 << 20;

/// The contents of one partition, from one bundle.
#[derive(Debug, Default)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    infos: Vec<WindowInfo>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: usize,
    key_end: usize,
    value_end: usize,
    info: u32,
}

impl Block {
    fn push(&mut self, key: &[u8], value: &[u8], info: &WindowInfo) {
        if self.infos.last() != Some(info) {
            self.infos.push(info.clone());
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.entries.push(Entry {
            start,
            key_end: start + key.len(),
            value_end: start + key.len() + value.len(),
            info: (self.infos.len() - 1) as u32,
        });
    }
}

/// What a bundle writes into one shuffle; taken when the bundle is done.
#[derive(Clone)]
pub(crate) struct BundleBlocks(Arc<Mutex<Vec<Block>>>);

impl BundleBlocks {
    pub(crate) fn new(partitions: usize) -> Self {
        BundleBlocks(Arc::new(Mutex::new((0..partitions).map(|_| Block::default()).collect())))
    }

    pub(crate) fn sink(&self, hasher: DefaultHashBuilder) -> Box<dyn KeyedSink> {
        Box::new(Sink { blocks: self.clone(), hasher })
    }

    /// What came since the last call, one block a partition.
    pub(crate) fn take(&self) -> Vec<Block> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.iter_mut().map(std::mem::take).collect()
    }
}

struct Sink {
    blocks: BundleBlocks,
    hasher: DefaultHashBuilder,
}

impl KeyedSink for Sink {
    fn accept(&mut self, batch: &KeyedBatch, meta: &Meta) -> Result<()> {
        let mut blocks = self.blocks.0.lock().unwrap_or_else(PoisonError::into_inner);
        let partitions = blocks.len() as u64;
        for (i, (key, value)) in batch.iter().enumerate() {
            let mut hasher = self.hasher.build_hasher();
            hasher.write(key);
            // The high bits: the low ones pick the place in the groups' own table.
            let partition = ((hasher.finish() >> 32) % partitions) as usize;
            blocks[partition].push(key, value, meta.get(i));
        }
        Ok(())
    }
}

/// All that was written for one grouping.
pub(crate) struct Shuffle {
    hasher: DefaultHashBuilder,
    partitions: Vec<Mutex<Vec<Arc<Block>>>>,
    windowing: WindowingStrategy,
}

struct Group {
    key: Bytes,
    windows: WindowTable<Values>,
}

struct Values {
    chunks: Vec<Bytes>,
    open: Vec<u8>,
    count: usize,
    earliest: Timestamp,
    latest: Timestamp,
}

impl Values {
    fn new() -> Self {
        Values {
            chunks: Vec::new(),
            open: Vec::new(),
            count: 0,
            earliest: Timestamp::MAX,
            latest: Timestamp::MIN,
        }
    }

    fn push(&mut self, value: &[u8], at: Timestamp) {
        if self.open.len() + value.len() > CHUNK && !self.open.is_empty() {
            self.chunks.push(std::mem::take(&mut self.open).into());
        }
        self.open.extend_from_slice(value);
        self.count += 1;
        self.earliest = self.earliest.min(at);
        self.latest = self.latest.max(at);
    }

    fn append(&mut self, mut other: Values) {
        for values in [&mut *self, &mut other] {
            if !values.open.is_empty() {
                values.chunks.push(std::mem::take(&mut values.open).into());
            }
        }
        self.chunks.append(&mut other.chunks);
        self.count += other.count;
        self.earliest = self.earliest.min(other.earliest);
        self.latest = self.latest.max(other.latest);
    }

    fn finish(mut self) -> Arc<[Bytes]> {
        if !self.open.is_empty() {
            self.chunks.push(self.open.into());
        }
        self.chunks.into()
    }
}

impl Shuffle {
    pub(crate) fn new(partitions: usize, windowing: WindowingStrategy) -> Self {
        Shuffle {
            hasher: DefaultHashBuilder::default(),
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            windowing,
        }
    }

    /// The hash by which bundles must spread their keys.
    pub(crate) fn hasher(&self) -> DefaultHashBuilder {
        self.hasher.clone()
    }

    /// Adds what a finished bundle wrote.
    pub(crate) fn commit(&self, blocks: Vec<Block>) {
        for (partition, block) in self.partitions.iter().zip(blocks) {
            if !block.entries.is_empty() {
                partition.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(block));
            }
        }
    }

    /// The partitions that hold anything.
    pub(crate) fn filled(&self) -> Vec<Vec<Arc<Block>>> {
        let taken = self.partitions.iter().map(|p| p.lock().unwrap_or_else(PoisonError::into_inner).clone());
        taken.filter(|blocks| !blocks.is_empty()).collect()
    }

    pub(crate) fn windowing(&self) -> &WindowingStrategy {
        &self.windowing
    }
}

/// Groups the blocks of one partition by key and window, and hands the groups to `reader`.
///
/// Groups come in the order of their keys' first appearance, values in the order of the blocks.
pub(crate) fn read_groups(
    blocks: &[Arc<Block>],
    windowing: &WindowingStrategy,
    reader: &mut dyn GroupReader,
) -> Result<()> {
    for mut group in grouped(blocks) {
        let windows = group.windows.take();
        let windows = if windowing.window_fn.is_merging() { merged(windows, windowing) } else { windows };
        for (window, values) in windows {
            let timestamp = windowing.timestamp_combiner.combine(&window, values.earliest, values.latest);
            let info = WindowInfo { timestamp, windows: Windows::One(window), pane: Pane::ON_TIME_AND_ONLY };
            let count = values.count;
            reader.group(group.key.clone(), values.finish(), count, &info)?;
        }
    }
    Ok(())
}

fn grouped(blocks: &[Arc<Block>]) -> Vec<Group> {
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for block in blocks {
        for entry in &block.entries {
            let key = &block.bytes[entry.start..entry.key_end];
            let value = &block.bytes[entry.key_end..entry.value_end];
            let info = &block.infos[entry.info as usize];
            let place = *places.entry(key).or_insert_with(|| {
                groups.push(Group { key: Bytes::copy_from_slice(key), windows: WindowTable::default() });
                groups.len() - 1
            });
            let windows = &mut groups[place].windows;
            for window in info.windows.as_slice() {
                windows.get_or_insert_with(window, Values::new).push(value, info.timestamp);
            }
        }
    }
    groups
}

fn merged(windows: Vec<(Window, Values)>, windowing: &WindowingStrategy) -> Vec<(Window, Values)> {
    let mut distinct: Vec<Window> = windows.iter().map(|(window, _)| window.clone()).collect();
    distinct.sort();
    let mut result: Vec<(Window, Values)> = Vec::new();
    let mut into: HashMap<Window, usize> = HashMap::new();
    for (parts, whole) in windowing.window_fn.merge(&distinct) {
        result.push((whole, Values::new()));
        into.extend(parts.into_iter().map(|part| (part, result.len() - 1)));
    }
    for (window, values) in windows {
        match into.get(&window) {
            Some(index) => result[*index].1.append(values),
            // A window function that forgets a window has not merged it.
            None => result.push((window, values)),
        }
    }
    result.retain(|(_, values)| values.count > 0);
    result
}
