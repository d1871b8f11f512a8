//! The shuffle: encoded keys and values, spread over partitions by key. A bundle's part is held in memory, or written as
//! sorted runs where the job's memory does not suffice or the job must be able to go on after a kill.
//!
//! Equal keys are keys of equal encodings. Values stay encoded until somebody iterates them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiebeam_core::{Meta, Result, WindowInfo, WindowingStrategy};
use tiebeam_exec::{KeyedBatch, KeyedSink};

use crate::aside::Room;
use crate::memory::{Charge, Memory};
use crate::runs::write_block;
use crate::spill::{Segment, SpillFile};

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

    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of all keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// What entries carry.
    pub(crate) fn infos(&self) -> &[WindowInfo] {
        &self.infos
    }

    /// A key, its value and what it carries.
    #[inline]
    pub(crate) fn entry(&self, index: usize) -> (&[u8], &[u8], &WindowInfo) {
        let entry = &self.entries[index];
        (
            &self.bytes[entry.start..entry.key_end],
            &self.bytes[entry.key_end..entry.value_end],
            &self.infos[entry.info as usize],
        )
    }

    /// About what it takes in memory.
    fn weight(&self) -> u64 {
        let infos = self.infos.len() * size_of::<WindowInfo>();
        (self.bytes.len() + self.entries.len() * size_of::<Entry>() + infos) as u64
    }
}

/// A part of a partition: what one bundle wrote, or as much of it as it held at once.
#[derive(Clone)]
pub(crate) enum Source {
    Block(Arc<Block>),
    Run(Segment),
}

impl Source {
    /// The bytes that it takes in memory.
    pub(crate) fn held(&self) -> u64 {
        match self {
            Source::Block(block) => block.weight(),
            Source::Run(_) => 0,
        }
    }
}

/// The hash that spreads keys over partitions and orders groups: the same in every process, since a resumed job reads
/// what a killed one wrote. (Keys that were made to collide only make partitions uneven.)
#[inline]
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd6e8_feb8_6659_fd93;
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let mut hash = A ^ key.len() as u64;
    let mut words = key.chunks_exact(8);
    for word in &mut words {
        let word = word.try_into().map_or(0, u64::from_le_bytes);
        hash = fold(hash ^ word, B);
    }
    let rest = words.remainder().iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    fold(fold(hash ^ rest, B) ^ A, B)
}

/// What a bundle writes into one shuffle; taken when the bundle is done.
#[derive(Clone)]
pub(crate) struct BundleBlocks(Arc<Mutex<Writing>>);

struct Writing {
    blocks: Vec<Block>,
    runs: Vec<Vec<Segment>>,
    charge: Charge,
    room: Arc<Room>,
}

/// What a bundle wrote into a shuffle, by partition.
pub(crate) struct Written {
    pub(crate) partitions: Vec<Vec<Source>>,
    charge: Option<Charge>,
}

impl Written {
    /// What was written down before.
    pub(crate) fn restored(partitions: Vec<Vec<Source>>) -> Self {
        Written { partitions, charge: None }
    }

    /// What it takes in memory.
    pub(crate) fn into_charge(self, memory: &Arc<Memory>) -> Charge {
        self.charge.unwrap_or_else(|| Charge::new(memory))
    }
}

impl BundleBlocks {
    pub(crate) fn new(partitions: usize, memory: &Arc<Memory>, room: &Arc<Room>) -> Self {
        BundleBlocks(Arc::new(Mutex::new(Writing {
            blocks: (0..partitions).map(|_| Block::default()).collect(),
            runs: vec![Vec::new(); partitions],
            charge: Charge::new(memory),
            room: room.clone(),
        })))
    }

    pub(crate) fn sink(&self) -> Box<dyn KeyedSink> {
        Box::new(Sink(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came since the last call, by partition; on disk if it must outlive the process.
    pub(crate) fn take(&self) -> Result<Written> {
        let mut writing = self.lock();
        if writing.room.is_kept() {
            writing.spill()?;
        }
        let Writing { blocks, runs, charge, .. } = &mut *writing;
        let partitions = blocks.iter_mut().zip(runs).map(|(block, runs)| {
            let runs = std::mem::take(runs).into_iter().map(Source::Run);
            let block = std::mem::take(block);
            let block = (block.len() > 0).then(|| Source::Block(Arc::new(block)));
            runs.chain(block).collect()
        });
        Ok(Written { partitions: partitions.collect(), charge: Some(charge.take()) })
    }

    /// Throws away what came.
    pub(crate) fn forget(&self) {
        let mut writing = self.lock();
        writing.blocks.iter_mut().for_each(|block| *block = Block::default());
        writing.runs.iter_mut().for_each(Vec::clear);
        drop(writing.charge.take());
    }
}

impl Writing {
    /// Writes what is held as runs.
    fn spill(&mut self) -> Result<()> {
        if self.blocks.iter().all(|block| block.len() == 0) {
            return Ok(());
        }
        let file = self.room.file()?;
        for (block, runs) in self.blocks.iter_mut().zip(&mut self.runs) {
            if block.len() > 0 {
                let run = write_block(block, file.clone())?;
                self.room.memory().spilled(run.len);
                runs.push(run);
                *block = Block::default();
            }
        }
        drop(self.charge.take());
        Ok(())
    }
}

struct Sink(BundleBlocks);

impl KeyedSink for Sink {
    fn accept(&mut self, batch: &KeyedBatch, meta: &Meta) -> Result<()> {
        let mut writing = self.0.lock();
        let partitions = writing.blocks.len() as u64;
        for (i, (key, value)) in batch.iter().enumerate() {
            // The high bits are as good as the low ones, and spread without a division by a constant.
            let partition = ((key_hash(key) >> 32) % partitions) as usize;
            writing.blocks[partition].push(key, value, meta.get(i));
        }
        let carried = match meta {
            Meta::Uniform(_) => 0,
            Meta::Each(infos) => infos.len() * size_of::<WindowInfo>(),
        };
        let bytes = batch.buffer.len() + batch.ends.len() * size_of::<Entry>() + carried;
        writing.charge.add(bytes as u64);
        if writing.room.memory().should_spill(writing.charge.bytes()) {
            writing.spill()?;
        }
        Ok(())
    }
}

/// All that was written for one grouping.
pub(crate) struct Shuffle {
    bundles: Mutex<Vec<(u64, Written)>>,
    partitions: usize,
    windowing: WindowingStrategy,
}

impl Shuffle {
    pub(crate) fn new(partitions: usize, windowing: WindowingStrategy) -> Self {
        Shuffle { bundles: Mutex::default(), partitions, windowing }
    }

    /// Adds what a finished bundle wrote.
    pub(crate) fn commit(&self, bundle: u64, written: Written) {
        self.bundles.lock().unwrap_or_else(PoisonError::into_inner).push((bundle, written));
    }

    /// The partitions that hold anything, each in the order of the bundles.
    pub(crate) fn filled(&self) -> Vec<Vec<Source>> {
        let mut bundles = self.bundles.lock().unwrap_or_else(PoisonError::into_inner);
        bundles.sort_by_key(|(bundle, _)| *bundle);
        let mut partitions: Vec<Vec<Source>> = vec![Vec::new(); self.partitions];
        for (_, written) in bundles.iter() {
            for (partition, sources) in partitions.iter_mut().zip(&written.partitions) {
                partition.extend(sources.iter().cloned());
            }
        }
        partitions.retain(|sources| !sources.is_empty());
        partitions
    }

    pub(crate) fn windowing(&self) -> &WindowingStrategy {
        &self.windowing
    }

    /// Throws everything away, the files that nobody else reads too.
    pub(crate) fn discard(self) {
        for (_, written) in self.bundles.into_inner().unwrap_or_else(PoisonError::into_inner) {
            for source in written.partitions.into_iter().flatten() {
                if let Source::Run(run) = source {
                    SpillFile::discard(run.file);
                }
            }
            drop(written.charge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_same_in_every_build() {
        // What killed runs wrote is read by these.
        let hashes = [&b""[..], b"a", b"key", b"12345678", b"123456789"].map(key_hash);
        let mut distinct = hashes.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 5);
        let mut buckets = [0; 8];
        for key in 0..8_000u64 {
            buckets[(key_hash(&key.to_le_bytes()) >> 32) as usize % 8] += 1;
        }
        assert!(buckets.iter().all(|n| (850..1150).contains(n)), "{buckets:?}");
    }
}
