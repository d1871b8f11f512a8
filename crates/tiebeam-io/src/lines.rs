//! Lines of a file, or of a part of one.
//!
//! A file is cut at any byte; a line belongs to the part in which its first byte lies. Both ends of a part are moved to
//! the next line's start before anything is read ([`aligned`]), so that what reads a part sees whole lines only and
//! needs no rule of its own.

use std::io::{self, Read};

use memchr::memchr;
use tiebeam_core::{Error, ErrorKind, Result, SourcePlace};

use crate::compression::{Compression, is_damage};
use crate::fs::{self, FileSystem};
use crate::ranges::FileRange;

/// The most bytes of a line when nothing else is said: 64 MiB.
pub const MAX_LINE: usize = 64 << 20;

const CHUNK: usize = 1 << 18;

/// The start of the first line that begins at byte `at` or later, or `end` when none does before it. `floor` is known to
/// be a line's start.
pub(crate) fn aligned(fs: &dyn FileSystem, path: &str, at: u64, floor: u64, end: u64) -> io::Result<u64> {
    if at <= floor {
        return Ok(floor);
    }
    if at >= end {
        return Ok(end);
    }
    // The byte before tells whether a line begins right here.
    let mut reader = fs.open(path, at - 1)?;
    let mut position = at - 1;
    let mut chunk = [0u8; 8192];
    loop {
        let n = read_some(&mut reader, &mut chunk)?;
        if n == 0 {
            return Ok(end);
        }
        if let Some(i) = memchr(b'\n', &chunk[..n]) {
            return Ok(end.min(position + i as u64 + 1));
        }
        position += n as u64;
        if position >= end {
            return Ok(end);
        }
    }
}

/// The bytes of a range of a file, with both ends moved to line starts; the whole of a compressed one.
pub(crate) struct Source {
    reader: Box<dyn Read + Send>,
    path: String,
    /// Where the first byte is, in the (decompressed) file.
    pub(crate) start: u64,
    /// What is still to come; none when only the end of the stream tells.
    left: Option<u64>,
}

impl Source {
    /// Opens the range. `header` lines at the file's start belong to no range.
    pub(crate) fn open(range: &FileRange, compression: Compression, header: usize) -> Result<Source> {
        let (fs, path) = fs::of_path(&range.path)?;
        let failed = |e| fs::failed_reading("open", &range.path, e);
        let compression = compression.of_path(&path)?;
        if !compression.is_splittable() {
            let reader = fs.open(&path, 0).and_then(|file| compression.decode(file)).map_err(failed)?;
            let mut source = Source { reader, path: range.path.clone(), start: 0, left: None };
            source.skip_lines(header)?;
            return Ok(source);
        }
        let mut floor = 0;
        for _ in 0..header {
            floor = aligned(&*fs, &path, floor + 1, 0, range.size).map_err(failed)?;
        }
        let start = aligned(&*fs, &path, range.start, floor, range.size).map_err(failed)?;
        let end = aligned(&*fs, &path, range.end, floor, range.size).map_err(failed)?;
        let reader = fs.open(&path, start).map_err(failed)?;
        Ok(Source { reader, path: range.path.clone(), start, left: Some(end.saturating_sub(start)) })
    }

    /// The next bytes; none at the range's end.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let wanted = match self.left {
            Some(left) => into.len().min(usize::try_from(left).unwrap_or(usize::MAX)),
            None => into.len(),
        };
        if wanted == 0 {
            return Ok(0);
        }
        let n = read_some(&mut self.reader, &mut into[..wanted]).map_err(|e| {
            if is_damage(&e) {
                Error::new(
                    ErrorKind::InvalidData,
                    "TB0408",
                    format!("compressed file is damaged or cut off: {e}"),
                )
                .at_place(SourcePlace { file: self.path.clone(), ..SourcePlace::default() })
                .with_source(e)
            } else {
                fs::failed_reading("read", &self.path, e)
            }
        })?;
        if let Some(left) = &mut self.left {
            if n == 0 {
                return Err(Error::new(
                    ErrorKind::Io,
                    "TB0409",
                    format!("`{}` became shorter while it was read: {left} bytes are missing", self.path),
                )
                .with_help("write to a new file and rename it, instead of changing a file that a job reads")
                .with_retryable(false));
            }
            *left -= n as u64;
        }
        Ok(n)
    }

    fn skip_lines(&mut self, count: usize) -> Result<()> {
        let mut chunk = [0u8; 1];
        for _ in 0..count {
            loop {
                let n = self.read(&mut chunk)?;
                self.start += n as u64;
                if n == 0 || chunk[0] == b'\n' {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The plain error of the source, for readers that want [`Read`]; [`Source::read`]'s own error comes back by `source`.
impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Source::read(self, into).map_err(io::Error::other)
    }
}

/// One line as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Its bytes without the line end; the first ones of a line that is too long.
    pub(crate) bytes: &'a [u8],
    /// `\n`, `\r\n`, or nothing at the file's end.
    pub(crate) terminator: &'a [u8],
    /// Where its first byte is, in the (decompressed) file.
    pub(crate) offset: u64,
    /// Its number, counted from 1, where that is known.
    pub(crate) number: Option<u64>,
    /// Whether it is longer than allowed, so that its rest was left out.
    pub(crate) too_long: bool,
}

impl Line<'_> {
    pub(crate) fn place(&self, file: &str) -> SourcePlace {
        SourcePlace { file: file.to_owned(), line: self.number, offset: Some(self.offset) }
    }

    /// The line and its end.
    pub(crate) fn with_terminator(&self) -> Vec<u8> {
        [self.bytes, self.terminator].concat()
    }
}

/// Reads a range line by line, through one buffer.
pub(crate) struct Lines {
    source: Source,
    buffer: Vec<u8>,
    /// The part of the buffer that is not given out yet.
    from: usize,
    to: usize,
    /// Where `buffer[from]` is in the file.
    offset: u64,
    number: Option<u64>,
    limit: usize,
    /// Whether we are behind the beginning of a line that was too long.
    skipping: bool,
    ended: bool,
}

impl Lines {
    pub(crate) fn open(
        range: &FileRange,
        compression: Compression,
        header: usize,
        limit: usize,
    ) -> Result<Lines> {
        let source = Source::open(range, compression, header)?;
        // Line numbers are known to whoever begins at the beginning.
        let number = (range.start == 0).then_some(header as u64);
        let offset = source.start;
        let mut lines = Lines {
            source,
            buffer: vec![0; CHUNK],
            from: 0,
            to: 0,
            offset,
            number,
            limit,
            skipping: false,
            ended: false,
        };
        if offset == 0 {
            lines.skip_byte_order_mark()?;
        }
        Ok(lines)
    }

    fn skip_byte_order_mark(&mut self) -> Result<()> {
        while self.to < 3 && self.fill()? {}
        if self.buffer[..self.to].starts_with(b"\xef\xbb\xbf") {
            self.from = 3;
            self.offset = 3;
        }
        Ok(())
    }

    /// Reads more behind what is there; false at the end.
    fn fill(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.to == self.buffer.len() {
            if self.from > 0 {
                self.buffer.copy_within(self.from..self.to, 0);
                self.to -= self.from;
                self.from = 0;
            } else {
                // A line longer than the buffer: bounded, since no more than a line's limit is ever gathered.
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        let n = self.source.read(&mut self.buffer[self.to..])?;
        self.to += n;
        self.ended = n == 0;
        Ok(n > 0)
    }

    /// The next line; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>> {
        if self.skipping {
            self.skip_rest()?;
        }
        let mut scanned = 0;
        let length = loop {
            if let Some(i) = memchr(b'\n', &self.buffer[self.from + scanned..self.to]) {
                break scanned + i + 1;
            }
            scanned = self.to - self.from;
            if scanned > self.limit.saturating_add(2) {
                break scanned;
            }
            if !self.fill()? {
                break self.to - self.from;
            }
        };
        if length == 0 {
            return Ok(None);
        }
        if let Some(number) = &mut self.number {
            *number += 1;
        }
        let offset = self.offset;
        let whole = &self.buffer[self.from..self.from + length];
        let end = match whole {
            [.., b'\r', b'\n'] => length - 2,
            [.., b'\n'] => length - 1,
            _ => length,
        };
        let too_long = end > self.limit;
        self.skipping = too_long && end == length && !self.ended;
        self.from += length;
        self.offset += length as u64;
        Ok(Some(Line {
            bytes: &whole[..end.min(self.limit)],
            terminator: &whole[end..],
            offset,
            number: self.number,
            too_long,
        }))
    }

    fn skip_rest(&mut self) -> Result<()> {
        self.skipping = false;
        loop {
            if let Some(i) = memchr(b'\n', &self.buffer[self.from..self.to]) {
                self.from += i + 1;
                self.offset += i as u64 + 1;
                return Ok(());
            }
            self.offset += (self.to - self.from) as u64;
            (self.from, self.to) = (0, 0);
            if !self.fill()? {
                return Ok(());
            }
        }
    }
}

fn read_some(reader: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(into) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
