//! TFRecord files: records of bytes, each with its length and both with their checksums (CRC-32C, masked).
//!
//! Files are read as streams, each as a whole. A record whose bytes are damaged is a bad record; where a length is damaged
//! nothing behind it can be found, so the file fails.

use std::io::{ErrorKind as IoKind, Read};
use std::sync::Arc;

use tiebeam_core::{Bytes, Coder, Element, Error, ErrorKind, Result, SourcePlace};

use crate::fs;
use crate::ranges::FileRange;
use crate::read::{Listing, RangeReader, ReadFiles, Records};
use crate::sink::RecordFormat;
use crate::sink::write::WriteFiles;

/// Reads the records of the files that match a pattern, in no order.
///
/// ```
/// use tiebeam_graph::Pipeline;
/// use tiebeam_io::tfrecord;
///
/// let p = Pipeline::new();
/// let sizes = p.apply(tfrecord::read("data/*.tfrecord.gz")).map(|record| record.len());
/// ```
pub fn read(pattern: impl Into<Arc<str>>) -> ReadFiles<TfRecordReader> {
    ReadFiles::new(pattern, TfRecordReader)
}

/// Writes each element as a record, into files `path-00000-of-00003`; gives their paths.
pub fn write(path: &str) -> WriteFiles<TfRecordFormat> {
    WriteFiles::new(path, TfRecordFormat, "WriteToTFRecord")
}

/// Reads records.
#[derive(Debug, Clone, Copy, Default)]
pub struct TfRecordReader;

/// The length and its checksum.
const HEAD: usize = 12;

impl RangeReader for TfRecordReader {
    type Record = Bytes;

    fn label(&self) -> &'static str {
        "ReadFromTFRecord"
    }

    fn coder(&self) -> Coder<Bytes> {
        Bytes::coder()
    }

    fn is_splittable(&self) -> bool {
        false
    }

    fn read(&self, range: &FileRange, listing: &Listing, records: &mut Records<'_, Bytes>) -> Result<()> {
        let (fs, local) = fs::of_path(&range.path)?;
        let compression = listing.compression.of_path(&range.path)?;
        let opened = fs.open(&local, 0).and_then(|file| compression.decode(file));
        let mut reader = std::io::BufReader::with_capacity(
            1 << 16,
            opened.map_err(|e| fs::failed_reading("open", &range.path, e))?,
        );
        let mut at = 0u64;
        let mut bytes = Vec::new();
        loop {
            let place = SourcePlace { file: range.path.clone(), offset: Some(at), ..SourcePlace::default() };
            let damaged = |message: String| {
                Error::new(ErrorKind::InvalidData, "TB0457", message).at_place(place.clone())
            };
            let failed = |error: std::io::Error| match error.kind() {
                IoKind::UnexpectedEof => damaged("the file ends within a record".to_owned()),
                _ => fs::failed_reading("read", &range.path, error),
            };
            let mut head = [0; HEAD];
            match reader.read(&mut head[..1]).map_err(failed)? {
                0 => return Ok(()),
                _ => reader.read_exact(&mut head[1..]).map_err(failed)?,
            }
            let ([length @ .., _, _, _, _], [.., a, b, c, d]) = (&head, &head);
            let length: [u8; 8] = *length;
            if masked(&length) != u32::from_le_bytes([*a, *b, *c, *d]) {
                return Err(damaged("the checksum of a record's length is wrong".to_owned())
                    .with_help("is this a TFRecord file?"));
            }
            let length = u64::from_le_bytes(length);
            let most = listing.max_record as u64;
            if length > most {
                let message = format!("a record of {length} bytes, more than {most}");
                return Err(Error::new(ErrorKind::InvalidData, "TB0458", message)
                    .at_place(place)
                    .with_help("set a larger bound if such records are wanted"));
            }
            bytes.clear();
            // Grows with what is there, not with what the length promises.
            let taken = reader.by_ref().take(length).read_to_end(&mut bytes).map_err(failed)?;
            if taken as u64 != length {
                return Err(failed(IoKind::UnexpectedEof.into()));
            }
            let mut sum = [0; 4];
            reader.read_exact(&mut sum).map_err(failed)?;
            if masked(&bytes) == u32::from_le_bytes(sum) {
                records.push(Bytes::copy_from_slice(&bytes))?;
            } else {
                records.bad(&bytes, damaged("the checksum of a record is wrong".to_owned()))?;
            }
            at += length + HEAD as u64 + 4;
        }
    }
}

/// Writes records.
#[derive(Debug, Clone, Copy, Default)]
pub struct TfRecordFormat;

impl RecordFormat<Bytes> for TfRecordFormat {
    type File = ();

    fn write(&self, (): &mut (), record: &Bytes, out: &mut Vec<u8>) -> Result<()> {
        let length = (record.len() as u64).to_le_bytes();
        out.extend_from_slice(&length);
        out.extend_from_slice(&masked(&length).to_le_bytes());
        out.extend_from_slice(record);
        out.extend_from_slice(&masked(record).to_le_bytes());
        Ok(())
    }
}

/// The checksum as TFRecord stores it: turned and shifted, so that a checksum of checksums is no zero.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 by Castagnoli's polynomial, bits reversed.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    let step = |sum: u32, byte: &u8| (sum >> 8) ^ TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize];
    !bytes.iter().fold(!0, step)
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut sum = index as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8], max_record: usize) -> (Vec<Bytes>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tfrecord");
        std::fs::write(&path, bytes).unwrap();
        let range = FileRange {
            path: path.display().to_string(),
            size: bytes.len() as u64,
            start: 0,
            end: bytes.len() as u64,
        };
        let listing = Listing { max_record, ..Listing::default() };
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        let mut emit = |all: Vec<Bytes>| {
            good.extend(all);
            Ok(())
        };
        let mut wrong = Vec::new();
        let mut fail = |_: Bytes, error: Error| {
            wrong.push(error.message().to_owned());
            Ok(())
        };
        let mut records = Records::new(&mut emit, &mut fail);
        let ended = TfRecordReader.read(&range, &listing, &mut records);
        records.flush().unwrap();
        bad.extend(wrong);
        bad.extend(ended.err().map(|error| error.message().to_owned()));
        (good, bad)
    }

    fn written(records: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records {
            TfRecordFormat.write(&mut (), &Bytes::copy_from_slice(record), &mut out).unwrap();
        }
        out
    }

    #[test]
    fn checksums_are_those_of_the_format() {
        // The check value of CRC-32C.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // What Beam's own tests have for `foo`.
        let foo = [3, 0, 0, 0, 0, 0, 0, 0, 176, 153, 73, 14, 102, 111, 111, 97, 138, 190, 254];
        assert_eq!(written(&[b"foo"]), foo);
    }

    #[test]
    fn records_come_back() {
        let records: [&[u8]; 3] = [b"one", b"", &[0xff; 300]];
        let (good, bad) = read_all(&written(&records), 1000);
        assert_eq!(good, records.map(Bytes::copy_from_slice));
        assert!(bad.is_empty(), "{bad:?}");
    }

    #[test]
    fn damage_is_told() {
        let whole = written(&[b"one", b"two"]);
        let mut data = whole.clone();
        data[12] ^= 1;
        let (good, bad) = read_all(&data, 1000);
        assert_eq!((good.len(), bad), (1, vec!["the checksum of a record is wrong".to_owned()]));
        let mut length = whole.clone();
        length[0] ^= 1;
        assert_eq!(read_all(&length, 1000).1, ["the checksum of a record's length is wrong"]);
        for cut in 1..whole.len() {
            let (good, bad) = read_all(&whole[..cut], 1000);
            let wanted = usize::from(cut >= whole.len() / 2);
            assert_eq!(good.len(), wanted, "{cut}");
            assert_eq!(bad.len(), usize::from(cut != whole.len() / 2), "{cut}");
        }
        let mut huge = u64::MAX.to_le_bytes().to_vec();
        huge.extend(masked(&u64::MAX.to_le_bytes()).to_le_bytes());
        assert_eq!(read_all(&huge, 1000).1, [format!("a record of {} bytes, more than 1000", u64::MAX)]);
        let mut promised = 900u64.to_le_bytes().to_vec();
        promised.extend(masked(&900u64.to_le_bytes()).to_le_bytes());
        assert_eq!(read_all(&promised, 1000).1, ["the file ends within a record"]);
    }
}
