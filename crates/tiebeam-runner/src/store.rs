//! Elements kept between stages: still typed in memory, or encoded on disk where the job's memory does not suffice or the
//! job must be able to go on after a kill.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tiebeam_core::{Meta, Result, WindowInfo};
use tiebeam_exec::{AnyBatch, BatchSink, EdgeType};

use crate::aside::Room;
use crate::carried::{Bits, put_meta, put_number, whole};
use crate::memory::{Charge, Memory};
use crate::spill::{Segment, SpillFile};

/// The bytes of batches that are written, and read back, at once.
const CHUNK: usize = 64 << 10;

/// The bytes of batches that a bundle gathers before it writes them, if all is written.
const GATHERED: u64 = 256 << 10;

/// Some elements of a store.
#[derive(Clone)]
pub(crate) enum Part {
    Held(Arc<dyn AnyBatch>),
    Chunk(Arc<Chunk>),
}

/// Batches on disk.
pub(crate) struct Chunk {
    pub(crate) segment: Segment,
    pub(crate) count: usize,
    pub(crate) edge_type: Arc<dyn EdgeType>,
}

impl Part {
    /// The number of elements.
    pub(crate) fn len(&self) -> usize {
        match self {
            Part::Held(batch) => batch.len(),
            Part::Chunk(chunk) => chunk.count,
        }
    }

    /// Gives the elements of `range` as batches.
    pub(crate) fn each(
        &self,
        range: Range<usize>,
        take: &mut dyn FnMut(&dyn AnyBatch) -> Result<()>,
    ) -> Result<()> {
        match self {
            Part::Held(batch) if range == (0..batch.len()) => take(&**batch),
            Part::Held(batch) => take(&*batch.slice(range)),
            Part::Chunk(chunk) => chunk.each(range, take),
        }
    }
}

impl Chunk {
    fn each(&self, range: Range<usize>, take: &mut dyn FnMut(&dyn AnyBatch) -> Result<()>) -> Result<()> {
        let bytes = Bytes::from(self.segment.read()?);
        let (mut at, mut first) = (0, 0);
        while at < bytes.len() && first < range.end {
            let mut bits = Bits::new(&bytes[at..]);
            let count = whole(bits.length())?;
            let meta = whole(bits.meta(count))?;
            let len = whole(bits.length())?;
            let start = at + bits.position();
            whole(bits.take(len))?;
            at = start + len;
            let (from, to) = (range.start.max(first) - first, range.end.min(first + count) - first);
            first += count;
            if from < to {
                let batch = self.edge_type.decode_values(bytes.slice(start..at), count, meta)?;
                if (from, to) == (0, count) { take(&*batch)? } else { take(&*batch.slice(from..to))? }
            }
        }
        Ok(())
    }
}

/// What a bundle made for one output.
pub(crate) struct Kept {
    pub(crate) parts: Vec<Part>,
    charge: Option<Charge>,
}

impl Kept {
    /// What was written down before.
    pub(crate) fn restored(parts: Vec<Part>) -> Self {
        Kept { parts, charge: None }
    }
}

/// All that was made for one store or side input.
#[derive(Default)]
pub(crate) struct Batches(Mutex<Vec<(u64, Kept)>>);

impl Batches {
    /// Adds what a finished bundle made.
    pub(crate) fn commit(&self, bundle: u64, kept: Kept) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((bundle, kept));
    }

    /// Everything, in the order of the bundles.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let mut bundles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bundles.sort_by_key(|(bundle, _)| *bundle);
        bundles.iter().flat_map(|(_, kept)| kept.parts.iter().cloned()).collect()
    }

    /// Throws everything away, the files that nobody else reads too.
    pub(crate) fn discard(self) {
        for (_, kept) in self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            for part in kept.parts {
                if let Part::Chunk(chunk) = part
                    && let Some(chunk) = Arc::into_inner(chunk)
                {
                    SpillFile::discard(chunk.segment.file);
                }
            }
            drop(kept.charge);
        }
    }
}

/// The batches that a bundle makes for one output; taken when the bundle is done.
#[derive(Clone)]
pub(crate) struct BundleBatches(Arc<Mutex<Writing>>);

struct Writing {
    parts: Vec<Part>,
    /// How many of them are on disk, from the first.
    written: usize,
    charge: Charge,
    room: Arc<Room>,
    edge_type: Arc<dyn EdgeType>,
}

impl BundleBatches {
    pub(crate) fn new(edge_type: &Arc<dyn EdgeType>, memory: &Arc<Memory>, room: &Arc<Room>) -> Self {
        BundleBatches(Arc::new(Mutex::new(Writing {
            parts: Vec::new(),
            written: 0,
            charge: Charge::new(memory),
            room: room.clone(),
            edge_type: edge_type.clone(),
        })))
    }

    /// A sink that keeps batches here.
    pub(crate) fn sink(&self) -> Box<dyn BatchSink> {
        Box::new(Sink(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came since the last call; on disk if it must outlive the process.
    pub(crate) fn take(&self) -> Result<Kept> {
        let mut writing = self.lock();
        if writing.room.is_kept() {
            writing.spill()?;
        }
        writing.written = 0;
        Ok(Kept { parts: std::mem::take(&mut writing.parts), charge: Some(writing.charge.take()) })
    }

    /// Throws away what came.
    pub(crate) fn forget(&self) {
        let mut writing = self.lock();
        writing.parts.clear();
        writing.written = 0;
        drop(writing.charge.take());
    }
}

impl Writing {
    /// Writes what is held.
    fn spill(&mut self) -> Result<()> {
        let held = self.parts.split_off(self.written);
        if held.is_empty() {
            return Ok(());
        }
        let file = self.room.file()?;
        let (mut buffer, mut values, mut count) = (Vec::new(), Vec::new(), 0);
        let last = held.len() - 1;
        for (i, part) in held.into_iter().enumerate() {
            if let Part::Held(batch) = part {
                pack(&*self.edge_type, &*batch, &mut values, &mut buffer)?;
                count += batch.len();
            }
            if buffer.len() >= CHUNK || i == last {
                let len = buffer.len() as u64;
                let at = file.reserve(len);
                file.write_at(at, &buffer)?;
                self.room.memory().spilled(len);
                buffer.clear();
                let segment = Segment { file: file.clone(), at, len };
                let chunk =
                    Chunk { segment, count: std::mem::take(&mut count), edge_type: self.edge_type.clone() };
                self.parts.push(Part::Chunk(Arc::new(chunk)));
            }
        }
        self.written = self.parts.len();
        drop(self.charge.take());
        Ok(())
    }
}

/// Appends a batch: the number of its elements, what they carry, the length of their encodings, and those.
fn pack(
    edge_type: &dyn EdgeType,
    batch: &dyn AnyBatch,
    values: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<()> {
    values.clear();
    let mut meta: Option<Meta> = None;
    let mut seen = 0;
    edge_type.encode_values(batch, &mut |value, info| {
        values.extend_from_slice(value);
        add(&mut meta, info, seen);
        seen += 1;
        Ok(())
    })?;
    put_number(seen as u64, out);
    put_meta(meta.as_ref().unwrap_or(&Meta::Uniform(WindowInfo::GLOBAL)), out);
    put_number(values.len() as u64, out);
    out.extend_from_slice(values);
    Ok(())
}

/// One more element's: uniform as long as they agree.
fn add(meta: &mut Option<Meta>, info: &WindowInfo, seen: usize) {
    match meta {
        None => *meta = Some(Meta::Uniform(info.clone())),
        Some(Meta::Uniform(all)) if all == info => {}
        Some(Meta::Uniform(all)) => {
            let mut each = vec![all.clone(); seen];
            each.push(info.clone());
            *meta = Some(Meta::Each(each));
        }
        Some(Meta::Each(each)) => each.push(info.clone()),
    }
}

struct Sink(BundleBatches);

impl BatchSink for Sink {
    fn accept(&mut self, batch: Arc<dyn AnyBatch>) -> Result<()> {
        let mut writing = self.0.lock();
        let weight = writing.edge_type.weigh(&*batch) as u64;
        writing.charge.add(weight);
        writing.parts.push(Part::Held(batch));
        let own = writing.charge.bytes();
        if writing.room.memory().should_spill(own) || (own >= GATHERED && writing.room.is_kept()) {
            writing.spill()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiebeam_core::{Batch, Element, Timestamp};
    use tiebeam_exec::TypedEdge;

    #[test]
    fn chunks_give_any_range_of_their_elements() {
        let dir = tempfile::tempdir().unwrap();
        let edge_type = TypedEdge::new(i64::coder());
        let at = |n: i64| WindowInfo::GLOBAL.at(Timestamp::from_micros(n));
        let each = Batch { values: vec![3, 4, 5], meta: Meta::Each(vec![at(7), at(7), at(8)]) };
        let batches: [Batch<i64>; 3] =
            [Batch::uniform(vec![1, 2], at(1)), each, Batch::uniform(vec![6], WindowInfo::GLOBAL)];
        let mut bytes = Vec::new();
        for batch in &batches {
            pack(&*edge_type, batch, &mut Vec::new(), &mut bytes).unwrap();
        }
        let file = SpillFile::nameless(dir.path()).unwrap();
        file.write_at(0, &bytes).unwrap();
        let segment = Segment { file, at: 0, len: bytes.len() as u64 };
        let part = Part::Chunk(Arc::new(Chunk { segment, count: 6, edge_type }));
        let all: Vec<(i64, WindowInfo)> =
            batches.iter().flat_map(|batch| batch.iter().map(|(v, i)| (*v, i.clone()))).collect();
        for from in 0..6 {
            for to in from..=6 {
                let mut got = Vec::new();
                part.each(from..to, &mut |batch| {
                    let batch: &Batch<i64> = tiebeam_exec::edge::opened(batch)?;
                    got.extend(batch.iter().map(|(value, info)| (*value, info.clone())));
                    Ok(())
                })
                .unwrap();
                assert_eq!(got, all[from..to], "{from}..{to}");
            }
        }
    }
}
