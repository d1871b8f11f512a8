//! The zip reader: stored and deflated records of an archive that is in memory, checksums held, sizes bounded.

use std::collections::HashMap;
use std::io::Read;

use bytes::Bytes;
use tiebeam_core::error::{Error, ErrorKind, Result, SourcePlace};

/// What all records together may inflate to, as a multiple of the file's size. Weights that were deflated shrink by a
/// tenth, zeros by a thousand; this stands between them.
const MAX_INFLATION: u64 = 64;

/// One record of the central directory.
#[derive(Debug, Clone, Copy)]
struct Record {
    method: u16,
    flags: u16,
    crc: u32,
    compressed: u64,
    size: u64,
    header: u64,
    is_link: bool,
}

/// A zip archive in memory.
#[derive(Debug)]
pub(super) struct Archive {
    data: Bytes,
    file: String,
    records: HashMap<String, Record>,
    stored_left: u64,
    inflated_left: u64,
}

/// Little-endian numbers of a slice; none past its end.
fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

/// Where the central directory begins, and its number of records.
fn directory(data: &[u8]) -> Option<(u64, u64)> {
    const END: usize = 22;
    let last = data.len().checked_sub(END)?;
    // The end record is followed by a comment of at most 65,535 bytes.
    let first = last.saturating_sub(usize::from(u16::MAX));
    let end = (first..=last).rev().find(|at| {
        data[*at..].starts_with(b"PK\x05\x06")
            && u16_at(data, at + 20).is_some_and(|n| at + END + usize::from(n) == data.len())
    })?;
    let (records, offset) = (u16_at(data, end + 10)?, u32_at(data, end + 16)?);
    // torch writes the zip64 record always; others when the numbers need it.
    if let Some(locator) = end.checked_sub(20).filter(|at| data[*at..].starts_with(b"PK\x06\x07")) {
        let at = usize::try_from(u64_at(data, locator + 8)?).ok()?;
        if !data.get(at..)?.starts_with(b"PK\x06\x06") {
            return None;
        }
        return Some((u64_at(data, at + 48)?, u64_at(data, at + 32)?));
    }
    Some((u64::from(offset), u64::from(records)))
}

/// The record at `at` of the central directory with its name, and where the next one begins.
fn record(data: &[u8], at: usize) -> Option<(String, Record, usize)> {
    if !data.get(at..)?.starts_with(b"PK\x01\x02") {
        return None;
    }
    let name_len = usize::from(u16_at(data, at + 28)?);
    let extra_len = usize::from(u16_at(data, at + 30)?);
    let comment_len = usize::from(u16_at(data, at + 32)?);
    let name_at = at + 46;
    let name = std::str::from_utf8(data.get(name_at..name_at + name_len)?).ok()?.to_owned();
    let mut record = Record {
        flags: u16_at(data, at + 8)?,
        method: u16_at(data, at + 10)?,
        crc: u32_at(data, at + 16)?,
        compressed: u64::from(u32_at(data, at + 20)?),
        size: u64::from(u32_at(data, at + 24)?),
        header: u64::from(u32_at(data, at + 42)?),
        // Unix's mode, where the archive was made there.
        is_link: u32_at(data, at + 38)? >> 28 == 0o12,
    };
    let extra_at = name_at + name_len;
    let extra = data.get(extra_at..extra_at + extra_len)?;
    let mut field = 0;
    while let (Some(id), Some(len)) = (u16_at(extra, field), u16_at(extra, field + 2)) {
        let mut at = field + 4;
        if id == 1 {
            // Zip64: only the numbers that did not fit, in this order.
            for number in [&mut record.size, &mut record.compressed, &mut record.header] {
                if *number == u64::from(u32::MAX) {
                    *number = u64_at(extra, at)?;
                    at += 8;
                }
            }
        }
        field += 4 + usize::from(len);
    }
    Some((name, record, extra_at + extra_len + comment_len))
}

/// Whether a record's name is none of a file in a folder of the archive's own.
fn leads_out(name: &str) -> bool {
    name.contains(['\\', '\0']) || name.starts_with('/') || name.split('/').any(|part| part == "..")
}

impl Archive {
    /// Reads the central directory.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn open(data: Bytes, file: &str) -> Result<Self> {
        let damaged = |what: String| {
            Err(Error::new(
                ErrorKind::Model,
                "TB0361",
                format!("{file} is a damaged or cut off zip archive: {what}"),
            )
            .with_help("copy or download the file again"))
        };
        let Some((start, count)) = directory(&data) else {
            return damaged("its directory is not at its end".to_owned());
        };
        let mut at = usize::try_from(start).unwrap_or(usize::MAX);
        let mut records = HashMap::new();
        for _ in 0..count {
            let Some((name, record, next)) = record(&data, at) else {
                return damaged(format!("its directory says {count} records and holds {}", records.len()));
            };
            if records.contains_key(&name) {
                return damaged(format!("it has two records `{name}`"));
            }
            // Nothing is ever written where a name says; but torch never writes such names, and other readers may follow them.
            if leads_out(&name) {
                return damaged(format!("its record `{}` leads out of the archive", name.escape_debug()));
            }
            if record.is_link {
                return damaged(format!("its record `{name}` is a link"));
            }
            records.insert(name, record);
            at = next;
        }
        let len = data.len() as u64;
        Ok(Archive {
            data,
            file: file.to_owned(),
            records,
            stored_left: len,
            inflated_left: len.saturating_mul(MAX_INFLATION),
        })
    }

    /// The names of all records.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.records.keys().map(String::as_str)
    }

    fn bad(&self, name: &str, what: impl std::fmt::Display, at: u64) -> Error {
        let place = SourcePlace { file: self.file.clone(), line: None, offset: Some(at) };
        Error::new(ErrorKind::Model, "TB0361", format!("record `{name}` of the zip archive {what}"))
            .at_place(place)
    }

    /// The bytes of a record with their checksum verified, and their offset in the file when they are not compressed;
    /// none when there is no such record.
    ///
    /// # Errors
    /// When the record is damaged, encrypted, overlaps others, or inflates to far more than the file.
    pub fn read(&mut self, name: &str) -> Result<Option<(Bytes, Option<u64>)>> {
        let Some(record) = self.records.get(name).copied() else { return Ok(None) };
        if record.flags & 1 != 0 {
            return Err(self.bad(name, "is encrypted", record.header));
        }
        let start = self.start(&record).ok_or_else(|| self.bad(name, "has no header", record.header))?;
        let end = usize::try_from(record.compressed).ok().and_then(|n| start.checked_add(n));
        let Some(end) = end.filter(|end| *end <= self.data.len()) else {
            let what = format!("says {} bytes, more than the file has", record.compressed);
            return Err(self.bad(name, what, start as u64));
        };
        let raw = self.data.slice(start..end);
        let (bytes, base) = match record.method {
            0 => {
                if record.size != record.compressed {
                    return Err(self.bad(name, "is stored with two sizes", start as u64));
                }
                // Records that share bytes could have the same bytes read again and again.
                self.stored_left = self
                    .stored_left
                    .checked_sub(record.size)
                    .ok_or_else(|| self.bad(name, "overlaps other records", start as u64))?;
                (raw, Some(start as u64))
            }
            8 => (self.inflate(name, &raw, record.size, start as u64)?, None),
            other => {
                let what = format!("is compressed by method {other}; stored (0) and deflated (8) are read");
                return Err(self.bad(name, what, start as u64));
            }
        };
        let crc = crc32fast::hash(&bytes);
        if crc != record.crc {
            let what = format!("is damaged: its checksum is {crc:08x}, the archive says {:08x}", record.crc);
            return Err(self.bad(name, what, start as u64).with_help("copy or download the file again"));
        }
        Ok(Some((bytes, base)))
    }

    /// Where a record's bytes begin: after its local header, whose name and extra field have lengths of their own.
    fn start(&self, record: &Record) -> Option<usize> {
        let at = usize::try_from(record.header).ok()?;
        if !self.data.get(at..)?.starts_with(b"PK\x03\x04") {
            return None;
        }
        let name = usize::from(u16_at(&self.data, at + 26)?);
        let extra = usize::from(u16_at(&self.data, at + 28)?);
        Some(at + 30 + name + extra)
    }

    fn inflate(&mut self, name: &str, raw: &[u8], size: u64, at: u64) -> Result<Bytes> {
        self.inflated_left = self.inflated_left.checked_sub(size).ok_or_else(|| {
            let what =
                format!("inflates to {size} bytes: more than {MAX_INFLATION} times the file is not read");
            self.bad(name, what, at)
        })?;
        // As long as it says, which is within the limit: doubled on its way, it could take three times as much.
        let mut out = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let mut limited = flate2::read::DeflateDecoder::new(raw).take(size + 1);
        limited
            .read_to_end(&mut out)
            .map_err(|error| self.bad(name, "can't be inflated", at).with_source(error))?;
        if out.len() as u64 != size {
            return Err(self.bad(name, format!("does not inflate to the {size} bytes that it says"), at));
        }
        Ok(out.into())
    }
}
