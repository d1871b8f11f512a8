//! Groups out of a partition of the shuffle: by key and window, windows merged, values in memory or page by page.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use tiebeam_core::coder::IterableState;
use tiebeam_core::{Error, Pane, Result, Timestamp, Window, WindowInfo, WindowingStrategy, Windows};
use tiebeam_exec::{EncodedValues, GroupReader, SideValues, WindowTable};

use crate::memory::Memory;
use crate::report::Progress;
use crate::runs::merge;
use crate::shuffle::{Block, Source};
use crate::spill::{Segment, SpillFile};

/// The bytes of values that go into one chunk of a group.
const CHUNK: usize = 1 << 20;

/// The contents of a shuffle's partition.
pub struct Blocks {
    pub(crate) sources: Vec<Source>,
    pub(crate) step: Arc<str>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) progress: Progress,
}

/// Encoded values, in memory or partly on disk.
pub(crate) struct Values {
    chunks: Vec<Chunk>,
    open: Vec<u8>,
    pub(crate) count: usize,
    bytes: u64,
    earliest: Timestamp,
    latest: Timestamp,
}

/// Some values, none of them cut.
enum Chunk {
    Held(Bytes),
    Spilled(Segment),
}

impl Values {
    pub(crate) fn new() -> Self {
        Values {
            chunks: Vec::new(),
            open: Vec::new(),
            count: 0,
            bytes: 0,
            earliest: Timestamp::MAX,
            latest: Timestamp::MIN,
        }
    }

    pub(crate) fn push(&mut self, value: &[u8], at: Timestamp) {
        if self.open.len() + value.len() > CHUNK && !self.open.is_empty() {
            self.close();
        }
        self.open.extend_from_slice(value);
        self.count += 1;
        self.bytes += value.len() as u64;
        self.earliest = self.earliest.min(at);
        self.latest = self.latest.max(at);
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push(Chunk::Held(std::mem::take(&mut self.open).into()));
        }
    }

    fn append(&mut self, mut other: Values) {
        self.close();
        other.close();
        self.chunks.append(&mut other.chunks);
        self.count += other.count;
        self.bytes += other.bytes;
        self.earliest = self.earliest.min(other.earliest);
        self.latest = self.latest.max(other.latest);
    }

    /// Puts what is held on disk.
    pub(crate) fn spill(&mut self, file: &Arc<SpillFile>, memory: &Memory) -> Result<()> {
        self.close();
        for chunk in &mut self.chunks {
            if let Chunk::Held(bytes) = chunk {
                let len = bytes.len() as u64;
                let at = file.reserve(len);
                file.write_at(at, bytes)?;
                memory.spilled(len);
                *chunk = Chunk::Spilled(Segment { file: file.clone(), at, len });
            }
        }
        Ok(())
    }

    /// As they are read: whole where they are in memory, page by page where not.
    pub(crate) fn finish(mut self) -> SideValues {
        self.close();
        if self.chunks.iter().any(|chunk| matches!(chunk, Chunk::Spilled(_))) {
            return SideValues::Paged { token: Bytes::new(), state: Arc::new(Pages(self.chunks)) };
        }
        let held = self.chunks.into_iter().filter_map(|chunk| match chunk {
            Chunk::Held(bytes) => Some(bytes),
            Chunk::Spilled(_) => None,
        });
        SideValues::Held(EncodedValues { chunks: held.collect(), count: self.count })
    }
}

/// Serves values chunk by chunk; the token of a page is its number.
struct Pages(Vec<Chunk>);

impl IterableState for Pages {
    fn page(&self, _: &[u8], page: Option<&[u8]>) -> Result<(Bytes, Option<Bytes>)> {
        let number = match page {
            None => 0,
            Some(token) => u64::from_le_bytes(token.try_into().map_err(Error::internal)?) as usize,
        };
        let bytes = match self.0.get(number) {
            None => Bytes::new(),
            Some(Chunk::Held(bytes)) => bytes.clone(),
            Some(Chunk::Spilled(segment)) => segment.read()?.into(),
        };
        let next = number + 1;
        let next = (next < self.0.len()).then(|| Bytes::copy_from_slice(&(next as u64).to_le_bytes()));
        Ok((bytes, next))
    }
}

/// Groups a partition by key and window, and hands the groups to `reader`.
///
/// From memory, groups come in the order of their keys' first appearance; from disk, in the order of their keys' hashes.
/// Values come in the order of the bundles.
pub(crate) fn read_groups(
    blocks: &Blocks,
    windowing: &WindowingStrategy,
    reader: &mut dyn GroupReader,
) -> Result<()> {
    let mut held = Vec::with_capacity(blocks.sources.len());
    let mut bytes = 0;
    for source in &blocks.sources {
        match source {
            Source::Block(block) => {
                bytes += source.held();
                held.push(block.clone());
            }
            Source::Run(_) => return merge_groups(blocks, windowing, reader),
        }
    }
    // Grouped in memory, a partition is there twice.
    if bytes > blocks.memory.read_share() as u64 && !blocks.memory.has_room_for(bytes) {
        return merge_groups(blocks, windowing, reader);
    }
    for (key, mut windows) in grouped(&held) {
        hand_out(key, windows.take(), windowing, reader)?;
    }
    Ok(())
}

fn grouped(blocks: &[Arc<Block>]) -> Vec<(Bytes, WindowTable<Values>)> {
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let mut groups: Vec<(Bytes, WindowTable<Values>)> = Vec::new();
    for block in blocks {
        for index in 0..block.len() {
            let (key, value, info) = block.entry(index);
            let place = *places.entry(key).or_insert_with(|| {
                groups.push((Bytes::copy_from_slice(key), WindowTable::default()));
                groups.len() - 1
            });
            let windows = &mut groups[place].1;
            for window in info.windows.as_slice() {
                windows.get_or_insert_with(window, Values::new).push(value, info.timestamp);
            }
        }
    }
    groups
}

/// One key after another, out of sources that are each in the order of their keys.
fn merge_groups(blocks: &Blocks, windowing: &WindowingStrategy, reader: &mut dyn GroupReader) -> Result<()> {
    let memory = &blocks.memory;
    let share = memory.read_share() / 4;
    let mut merge = merge(blocks.sources.clone(), memory)?;
    let mut file: Option<Arc<SpillFile>> = None;
    let mut last = Vec::new();
    while let Some(top) = merge.top() {
        let (hash, key) = top.key();
        last.clear();
        last.extend_from_slice(key);
        let mut windows: WindowTable<Values> = WindowTable::default();
        let (mut held, mut bytes, mut count) = (0, 0u64, 0u64);
        while let Some(top) = merge.top().filter(|top| top.key() == (hash, &last)) {
            let (value, info) = top.value();
            for window in info.windows.as_slice() {
                windows.get_or_insert_with(window, Values::new).push(value, info.timestamp);
                held += value.len();
            }
            bytes += value.len() as u64;
            count += 1;
            if held > share {
                let file = match &file {
                    Some(file) => file,
                    None => file.insert(SpillFile::nameless(memory.dir())?),
                };
                spill_all(&mut windows, file, memory)?;
                held = 0;
            }
            merge.advance()?;
        }
        if bytes > share as u64 {
            blocks.progress.hot_key(&blocks.step, &last, bytes, count);
        }
        hand_out(Bytes::copy_from_slice(&last), windows.take(), windowing, reader)?;
        // The next key's values may take the place of this one's, unless somebody kept those.
        match file.take() {
            Some(only) if Arc::strong_count(&only) == 1 => {
                only.clear()?;
                file = Some(only);
            }
            _ => {}
        }
    }
    Ok(())
}

fn spill_all(windows: &mut WindowTable<Values>, file: &Arc<SpillFile>, memory: &Memory) -> Result<()> {
    for (window, mut values) in windows.take() {
        values.spill(file, memory)?;
        *windows.get_or_insert_with(&window, Values::new) = values;
    }
    Ok(())
}

/// The groups of one key.
fn hand_out(
    key: Bytes,
    windows: Vec<(Window, Values)>,
    windowing: &WindowingStrategy,
    reader: &mut dyn GroupReader,
) -> Result<()> {
    let windows = if windowing.window_fn.is_merging() { merged(windows, windowing) } else { windows };
    for (window, values) in windows {
        let timestamp = windowing.timestamp_combiner.combine(&window, values.earliest, values.latest);
        let info = WindowInfo { timestamp, windows: Windows::One(window), pane: Pane::ON_TIME_AND_ONLY };
        let count = values.count;
        match values.finish() {
            SideValues::Held(values) => reader.group(key.clone(), values.chunks, count, &info)?,
            SideValues::Paged { state, .. } => reader.paged(key.clone(), state, count, &info)?,
        }
    }
    Ok(())
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
