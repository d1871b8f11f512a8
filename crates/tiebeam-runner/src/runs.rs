//! Sorted runs: parts of the shuffle's partitions on disk, and the merge that reads them.
//!
//! Why sorted runs and not partitions divided further: a partition is then read with one buffer a run whatever its size, a
//! key of any size costs no more than its values pass by, and the order of groups (by key's hash, then key) is the same
//! however the memory was at the time, so that a resumed job gives what an undisturbed one gives.

use std::cmp::Ordering;
use std::sync::Arc;

use tiebeam_core::{Result, WindowInfo};

use crate::carried::{Bits, damaged, put_info, put_number};
use crate::memory::Memory;
use crate::shuffle::{Block, Source, key_hash};
use crate::spill::{Segment, SegmentWriter, SpillFile};

/// The smallest buffer that a run is read through.
const SMALLEST_BUFFER: usize = 4 << 10;
/// The largest one: more wins nothing.
const LARGEST_BUFFER: usize = 256 << 10;

/// The most bytes that an entry takes beside its key, its value and what it carries.
const ENTRY_HEAD: u64 = 8 + 10 + 10 + 1;

/// Writes entries in order.
pub(crate) struct RunWriter {
    out: SegmentWriter,
    last: Option<WindowInfo>,
}

impl RunWriter {
    fn new(out: SegmentWriter) -> Self {
        RunWriter { out, last: None }
    }

    /// One entry, not before any that was written.
    pub(crate) fn push(&mut self, hash: u64, key: &[u8], value: &[u8], info: &WindowInfo) -> Result<()> {
        let buffer = self.out.buffer();
        buffer.extend_from_slice(&hash.to_le_bytes());
        put_number(key.len() as u64, buffer);
        put_number(value.len() as u64, buffer);
        if self.last.as_ref() == Some(info) {
            buffer.push(0);
        } else {
            buffer.push(1);
            put_info(info, buffer);
            self.last = Some(info.clone());
        }
        buffer.extend_from_slice(key);
        buffer.extend_from_slice(value);
        self.out.settle()
    }

    /// The run.
    pub(crate) fn finish(self) -> Result<Segment> {
        self.out.finish()
    }
}

/// Writes a block as a run.
pub(crate) fn write_block(block: &Block, file: Arc<SpillFile>) -> Result<Segment> {
    let order = sorted(block);
    let mut writer = RunWriter::new(SegmentWriter::new(file, most_bytes(block)));
    for (hash, index) in order {
        let (key, value, info) = block.entry(index as usize);
        writer.push(hash, key, value, info)?;
    }
    writer.finish()
}

/// What a block takes as a run, at most.
fn most_bytes(block: &Block) -> u64 {
    let mut scratch = Vec::new();
    // What entries carry is written again wherever it differs from the entry before: at worst each time.
    let largest = block.infos().iter().map(|info| {
        scratch.clear();
        put_info(info, &mut scratch);
        scratch.len() as u64
    });
    block.bytes() + block.len() as u64 * (ENTRY_HEAD + largest.max().unwrap_or(0))
}

/// The places of a block's entries by hash, then key; equal ones in the order in which they came.
fn sorted(block: &Block) -> Vec<(u64, u32)> {
    let mut order: Vec<(u64, u32)> =
        (0..block.len()).map(|i| (key_hash(block.entry(i).0), i as u32)).collect();
    order.sort_unstable_by(|a, b| {
        let keys = || block.entry(a.1 as usize).0.cmp(block.entry(b.1 as usize).0);
        a.0.cmp(&b.0).then_with(keys).then(a.1.cmp(&b.1))
    });
    order
}

/// Where the merge stands in one of its sources.
pub(crate) enum Cursor {
    Block { block: Arc<Block>, order: Vec<(u64, u32)>, at: usize },
    Run(RunCursor),
}

/// Where it stands in a run: an entry, and what was read ahead.
pub(crate) struct RunCursor {
    segment: Segment,
    /// The bytes of the segment that were read.
    read: u64,
    buffer: Vec<u8>,
    size: usize,
    /// Where in the buffer the entry's key and value are, and where the next entry begins.
    key: usize,
    value: usize,
    end: usize,
    hash: u64,
    info: WindowInfo,
}

impl Cursor {
    /// At the first entry; none where there is no entry. `size` is that of the buffer.
    fn open(source: &Source, size: usize) -> Result<Option<Cursor>> {
        match source {
            Source::Block(block) => {
                let order = sorted(block);
                Ok((!order.is_empty()).then(|| Cursor::Block { block: block.clone(), order, at: 0 }))
            }
            Source::Run(segment) => {
                let mut cursor = RunCursor {
                    segment: segment.clone(),
                    read: 0,
                    buffer: Vec::new(),
                    size,
                    key: 0,
                    value: 0,
                    end: 0,
                    hash: 0,
                    info: WindowInfo::GLOBAL,
                };
                Ok(cursor.advance()?.then_some(Cursor::Run(cursor)))
            }
        }
    }

    /// The entry's hash and key.
    #[inline]
    pub(crate) fn key(&self) -> (u64, &[u8]) {
        match self {
            Cursor::Block { block, order, at } => (order[*at].0, block.entry(order[*at].1 as usize).0),
            Cursor::Run(run) => (run.hash, &run.buffer[run.key..run.value]),
        }
    }

    /// Its value and what it carries.
    #[inline]
    pub(crate) fn value(&self) -> (&[u8], &WindowInfo) {
        match self {
            Cursor::Block { block, order, at } => {
                let (_, value, info) = block.entry(order[*at].1 as usize);
                (value, info)
            }
            Cursor::Run(run) => (&run.buffer[run.value..run.end], &run.info),
        }
    }

    /// Goes on to the next entry; false where there is none.
    fn advance(&mut self) -> Result<bool> {
        match self {
            Cursor::Block { order, at, .. } => {
                *at += 1;
                Ok(*at < order.len())
            }
            Cursor::Run(run) => run.advance(),
        }
    }
}

impl RunCursor {
    fn advance(&mut self) -> Result<bool> {
        loop {
            if self.end == self.buffer.len() && self.read == self.segment.len {
                return Ok(false);
            }
            if self.parse() {
                return Ok(true);
            }
            self.fill()?;
        }
    }

    /// Looks at the entry behind this one; false where more of it must be read first.
    fn parse(&mut self) -> bool {
        let start = self.end;
        let mut bits = Bits::new(&self.buffer[start..]);
        let head = (|| Some((bits.fixed()?, bits.length()?, bits.length()?, bits.byte()?)))();
        let Some((hash, key, value, flag)) = head else { return false };
        let info = if flag == 0 { None } else { bits.info() };
        if flag != 0 && info.is_none() {
            return false;
        }
        let at = start + bits.position();
        let Some(end) = at.checked_add(key).and_then(|n| n.checked_add(value)) else { return false };
        if end > self.buffer.len() {
            return false;
        }
        if let Some(info) = info {
            self.info = info;
        }
        (self.hash, self.key, self.value, self.end) = (hash, at, at + key, end);
        true
    }

    /// Reads more: a buffer full, or as much again where one entry is larger than that.
    fn fill(&mut self) -> Result<()> {
        let left = self.buffer.len() - self.end;
        self.buffer.drain(..self.end);
        (self.key, self.value, self.end) = (0, 0, 0);
        let more = ((self.size.max(2 * left) - left) as u64).min(self.segment.len - self.read);
        if more == 0 {
            return Err(damaged());
        }
        self.buffer.resize(left + more as usize, 0);
        self.segment.file.read_at(self.segment.at + self.read, &mut self.buffer[left..])?;
        self.read += more;
        Ok(())
    }
}

/// The entries of several sources in one order: by hash, by key, and among equal keys in the order of the sources.
pub(crate) struct Merge {
    cursors: Vec<Cursor>,
    /// A heap of the cursors that are not at their ends, the first in order on top.
    heap: Vec<usize>,
}

impl Merge {
    /// Of these, with buffers of `size` bytes.
    fn new(sources: &[Source], size: usize) -> Result<Merge> {
        let mut cursors = Vec::with_capacity(sources.len());
        for source in sources {
            cursors.extend(Cursor::open(source, size)?);
        }
        let heap = (0..cursors.len()).collect();
        let mut merge = Merge { cursors, heap };
        for at in (0..merge.heap.len() / 2).rev() {
            merge.sink(at);
        }
        Ok(merge)
    }

    /// The entry that comes next.
    #[inline]
    pub(crate) fn top(&self) -> Option<&Cursor> {
        self.heap.first().map(|top| &self.cursors[*top])
    }

    /// Leaves it behind.
    pub(crate) fn advance(&mut self) -> Result<()> {
        let Some(top) = self.heap.first() else { return Ok(()) };
        if !self.cursors[*top].advance()? {
            self.heap.swap_remove(0);
        }
        self.sink(0);
        Ok(())
    }

    fn is_before(&self, a: usize, b: usize) -> bool {
        let (left, right) = (self.cursors[a].key(), self.cursors[b].key());
        left.0.cmp(&right.0).then_with(|| left.1.cmp(right.1)).then(a.cmp(&b)) == Ordering::Less
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.is_before(self.heap[child], self.heap[least]) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}

/// Merges a partition's sources, in as many passes as its memory wants: of more runs than there are buffers for, neighbours
/// are first merged into longer ones.
pub(crate) fn merge(mut sources: Vec<Source>, memory: &Arc<Memory>) -> Result<Merge> {
    let room = memory.read_share() / 2;
    let most = (room / SMALLEST_BUFFER).max(4);
    while sources.len() > most {
        let file = SpillFile::nameless(memory.dir())?;
        let mut longer = Vec::with_capacity(sources.len().div_ceil(most));
        for neighbours in sources.chunks(most) {
            longer.push(Source::Run(merged_run(neighbours, &file, SMALLEST_BUFFER, memory)?));
        }
        sources = longer;
    }
    let size = (room / sources.len().max(1)).clamp(SMALLEST_BUFFER, LARGEST_BUFFER);
    Merge::new(&sources, size)
}

fn merged_run(sources: &[Source], file: &Arc<SpillFile>, size: usize, memory: &Memory) -> Result<Segment> {
    let mut writer = RunWriter::new(SegmentWriter::alone(file.clone()));
    let mut merge = Merge::new(sources, size)?;
    while let Some(top) = merge.top() {
        let ((hash, key), (value, info)) = (top.key(), top.value());
        writer.push(hash, key, value, info)?;
        merge.advance()?;
    }
    let run = writer.finish()?;
    memory.spilled(run.len);
    Ok(run)
}
