//! Reads the blocks of a range of a file.

use std::io::{BufReader, ErrorKind as IoKind, Read};
use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::coder::row_coder;
use tiebeam_core::{Coder, Error, ErrorKind, Result, Row, Schema, SourcePlace, Value};

use super::schema::{Avro, micros_schema};
use super::write::MAGIC;
use crate::compression::Compression;
use crate::fs;
use crate::ranges::FileRange;
use crate::read::{Listing, RangeReader, Records};
use crate::tables::Projection;

/// The most bytes of a block when it is unpacked.
const MAX_BLOCK: u64 = 256 << 20;

/// The most bytes of what stands before the blocks.
const MAX_HEADER: usize = 16 << 20;

/// Values that take no bytes, of which a block may have this many beside those that do.
const FREE_VALUES: usize = 1 << 20;

/// Reads rows of a schema.
#[derive(Debug, Clone)]
pub struct AvroReader {
    schema: Arc<Schema>,
}

impl AvroReader {
    /// Rows of that schema.
    pub fn new(schema: Arc<Schema>) -> Self {
        AvroReader { schema }
    }
}

impl RangeReader for AvroReader {
    type Record = Row;

    fn label(&self) -> &'static str {
        "ReadFromAvro"
    }

    fn coder(&self) -> Coder<Row> {
        row_coder(self.schema.clone())
    }

    fn read(&self, range: &FileRange, listing: &Listing, records: &mut Records<'_, Row>) -> Result<()> {
        let mut file = Input::open(&range.path, listing, 0)?;
        let header = Header::read(&mut file)?;
        let Avro::Record(schema, _) = &header.avro else {
            return Err(file.damaged("its values are no records"));
        };
        let projection = Projection::new(schema, &self.schema, &range.path)?;
        let compression = listing.compression.of_path(&range.path)?;
        let end = if compression.is_splittable() { range.end } else { u64::MAX };
        if range.start > file.at {
            // The block begins behind the mark of the one before it.
            file = Input::open(&range.path, listing, range.start.saturating_sub(16))?;
            if !file.seek(&header.sync, end)? {
                return Ok(());
            }
        }
        let mut data = Vec::new();
        while file.at < end {
            let place = file.place();
            let Some(count) = file.block(&header, listing, &mut data)? else { return Ok(()) };
            match rows(&header.avro, count, &data, &projection) {
                Ok(rows) => rows.into_iter().try_for_each(|row| records.push(row))?,
                Err(why) => {
                    let message = format!("a block of {count} records is damaged: {why}");
                    let error = Error::new(ErrorKind::InvalidData, "TB0460", message).at_place(place);
                    records.bad(&data, error)?;
                }
            }
        }
        Ok(())
    }
}

/// The schema of a file.
pub(super) fn schema_of(path: &str, listing: &Listing) -> Result<Schema> {
    let mut file = Input::open(path, listing, 0)?;
    match Header::read(&mut file)?.avro {
        Avro::Record(schema, _) => Ok(schema.as_ref().clone()),
        _ => Err(file.damaged("its values are no records")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packed {
    No,
    Deflate,
    Snappy,
    Zstd,
}

struct Header {
    avro: Avro,
    packed: Packed,
    sync: [u8; 16],
}

impl Header {
    fn read(file: &mut Input) -> Result<Self> {
        let mut magic = [0; 4];
        file.exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(file.damaged("it does not begin as one").with_help("is this an Avro file?"));
        }
        let (mut schema, mut codec) = (None, Vec::new());
        loop {
            let count = match file.long()? {
                0 => break,
                count if count < 0 => {
                    file.long()?;
                    count.unsigned_abs()
                }
                count => count.unsigned_abs(),
            };
            for _ in 0..count {
                let (key, value) = (file.bytes(MAX_HEADER)?, file.bytes(MAX_HEADER)?);
                match key.as_slice() {
                    b"avro.schema" => schema = Some(value),
                    b"avro.codec" => codec = value,
                    _ => {}
                }
            }
        }
        let mut sync = [0; 16];
        file.exact(&mut sync)?;
        let Some(schema) = schema else { return Err(file.damaged("it has no schema")) };
        let packed = match codec.as_slice() {
            b"" | b"null" => Packed::No,
            b"deflate" => Packed::Deflate,
            b"snappy" => Packed::Snappy,
            b"zstandard" => Packed::Zstd,
            other => {
                let message =
                    format!("blocks of the codec `{}` cannot be read", String::from_utf8_lossy(other));
                let error = Error::new(ErrorKind::Unsupported, "TB0459", message).at_place(file.place());
                return Err(error.with_help("write it with deflate, snappy or zstandard"));
            }
        };
        let avro = Avro::parse(&schema).map_err(|why| {
            Error::new(ErrorKind::Unsupported, "TB0459", format!("rows cannot hold what the file has: {why}"))
                .at_place(SourcePlace { file: file.path.clone(), ..SourcePlace::default() })
        })?;
        Ok(Header { avro, packed, sync })
    }
}

/// A file, and the place in it.
struct Input {
    path: String,
    reader: BufReader<Box<dyn Read + Send>>,
    at: u64,
}

impl Input {
    fn open(path: &str, listing: &Listing, start: u64) -> Result<Self> {
        let (fs, local) = fs::of_path(path)?;
        let compression: Compression = listing.compression.of_path(path)?;
        let opened = fs.open(&local, start).and_then(|file| compression.decode(file));
        let opened = opened.map_err(|error| fs::failed_reading("open", path, error))?;
        Ok(Input { path: path.to_owned(), reader: BufReader::with_capacity(1 << 16, opened), at: start })
    }

    fn place(&self) -> SourcePlace {
        SourcePlace { file: self.path.clone(), offset: Some(self.at), ..SourcePlace::default() }
    }

    fn damaged(&self, why: &str) -> Error {
        Error::new(ErrorKind::InvalidData, "TB0460", format!("the Avro file is damaged: {why}"))
            .at_place(self.place())
    }

    fn failed(&self, error: std::io::Error) -> Error {
        match error.kind() {
            IoKind::UnexpectedEof => self.damaged("it ends too early"),
            _ => fs::failed_reading("read", &self.path, error),
        }
    }

    fn exact(&mut self, into: &mut [u8]) -> Result<()> {
        self.reader.read_exact(into).map_err(|error| self.failed(error))?;
        self.at += into.len() as u64;
        Ok(())
    }

    /// The next byte; none at the end.
    fn byte(&mut self) -> Result<Option<u8>> {
        let mut one = [0];
        loop {
            match self.reader.read(&mut one) {
                Ok(0) => return Ok(None),
                Ok(_) => {
                    self.at += 1;
                    return Ok(Some(one[0]));
                }
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn long(&mut self) -> Result<i64> {
        match self.long_or_end()? {
            Some(value) => Ok(value),
            None => Err(self.damaged("it ends too early")),
        }
    }

    fn long_or_end(&mut self) -> Result<Option<i64>> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let Some(byte) = self.byte()? else {
                return if shift == 0 { Ok(None) } else { Err(self.damaged("it ends too early")) };
            };
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(Some(unzigzag(value)));
            }
            shift += 7;
            if shift > 63 {
                return Err(self.damaged("a number is too long"));
            }
        }
    }

    fn bytes(&mut self, most: usize) -> Result<Vec<u8>> {
        let length = self.long()?;
        let Ok(length) = usize::try_from(length) else { return Err(self.damaged("a length is negative")) };
        if length > most {
            return Err(self.damaged(&format!("a part of {length} bytes, more than {most}")));
        }
        let mut found = Vec::new();
        self.take(length, &mut found)?;
        Ok(found)
    }

    /// That many bytes: grows with what is there, not with what the length promises.
    fn take(&mut self, length: usize, into: &mut Vec<u8>) -> Result<()> {
        into.clear();
        let taken = self.reader.by_ref().take(length as u64).read_to_end(into);
        let taken = taken.map_err(|error| self.failed(error))?;
        self.at += taken as u64;
        if taken == length { Ok(()) } else { Err(self.damaged("it ends too early")) }
    }

    /// Goes behind the next mark that ends before `end`; false where there is none.
    fn seek(&mut self, sync: &[u8; 16], end: u64) -> Result<bool> {
        let mut seen = [0u8; 16];
        let mut count = 0;
        while self.at < end {
            let Some(byte) = self.byte()? else { return Ok(false) };
            seen.rotate_left(1);
            seen[15] = byte;
            count += 1;
            if count >= 16 && seen == *sync {
                return Ok(self.at < end);
            }
        }
        Ok(false)
    }

    /// Reads a block into `data`: the number of its records; none at the end of the file.
    fn block(&mut self, header: &Header, listing: &Listing, data: &mut Vec<u8>) -> Result<Option<u64>> {
        let Some(count) = self.long_or_end()? else { return Ok(None) };
        let Ok(count) = u64::try_from(count) else {
            return Err(self.damaged("a block of less than no records"));
        };
        let packed = self.bytes(listing.max_record)?;
        let mut sync = [0; 16];
        self.exact(&mut sync)?;
        if sync != header.sync {
            return Err(self.damaged("the mark behind a block is wrong"));
        }
        *data = unpacked(header.packed, packed).map_err(|why| self.damaged(&why))?;
        Ok(Some(count))
    }
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn unpacked(packed: Packed, bytes: Vec<u8>) -> std::result::Result<Vec<u8>, String> {
    let all = |reader: &mut dyn Read| {
        let mut out = Vec::new();
        let read = reader.take(MAX_BLOCK + 1).read_to_end(&mut out);
        match read {
            Ok(length) if length as u64 > MAX_BLOCK => Err(format!("a block of more than {MAX_BLOCK} bytes")),
            Ok(_) => Ok(out),
            Err(error) => Err(format!("a block cannot be unpacked: {error}")),
        }
    };
    match packed {
        Packed::No => Ok(bytes),
        Packed::Deflate => all(&mut flate2::read::DeflateDecoder::new(&*bytes)),
        Packed::Zstd => {
            let decoder = zstd::stream::read::Decoder::new(&*bytes);
            all(&mut decoder.map_err(|error| format!("a block cannot be unpacked: {error}"))?)
        }
        Packed::Snappy => {
            let Some((data, sum)) = bytes.split_last_chunk::<4>() else {
                return Err("a block without its checksum".to_owned());
            };
            let failed = |error: snap::Error| format!("a block cannot be unpacked: {error}");
            let length = snap::raw::decompress_len(data).map_err(failed)?;
            // Snappy packs to a twentieth at best.
            if length as u64 > MAX_BLOCK || length / 32 > data.len() {
                return Err(format!("a block of {length} bytes in {}", data.len()));
            }
            let out = snap::raw::Decoder::new().decompress_vec(data).map_err(failed)?;
            let mut seen = flate2::Crc::new();
            seen.update(&out);
            if seen.sum() != u32::from_be_bytes(*sum) {
                return Err("the checksum of a block is wrong".to_owned());
            }
            Ok(out)
        }
    }
}

/// The rows of a block.
fn rows(
    avro: &Avro,
    count: u64,
    data: &[u8],
    projection: &Projection,
) -> std::result::Result<Vec<Row>, String> {
    let mut input = Data { rest: data, budget: 4 * data.len() + FREE_VALUES };
    let mut rows = Vec::with_capacity(usize::try_from(count).unwrap_or(usize::MAX).min(data.len() + 1));
    for _ in 0..count {
        match input.value(avro)? {
            Value::Row(row) => rows.push(projection.row(row)?),
            other => return Err(format!("{other:?} is no record")),
        }
    }
    if !input.rest.is_empty() {
        return Err(format!("{} bytes are left over", input.rest.len()));
    }
    Ok(rows)
}

struct Data<'a> {
    rest: &'a [u8],
    /// How many values may come yet: some take no bytes.
    budget: usize,
}

impl<'a> Data<'a> {
    fn take(&mut self, length: usize) -> std::result::Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("it ends within a value")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> std::result::Result<[u8; N], String> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or("it ends within a value")?;
        self.rest = rest;
        Ok(*taken)
    }

    fn long(&mut self) -> std::result::Result<i64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(unzigzag(value));
            }
        }
        Err("a number is too long".to_owned())
    }

    fn bytes(&mut self) -> std::result::Result<&'a [u8], String> {
        let length = self.long()?;
        self.take(usize::try_from(length).map_err(|_| "a length is negative")?)
    }

    fn text(&mut self) -> std::result::Result<Arc<str>, String> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| "a text is not UTF-8")?;
        Ok(text.into())
    }

    /// The items of an array or map, which come in parts.
    fn many<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> std::result::Result<T, String>,
    ) -> std::result::Result<Arc<[T]>, String> {
        let mut all = Vec::new();
        loop {
            let count = match self.long()? {
                0 => return Ok(all.into()),
                count if count < 0 => {
                    self.long()?;
                    count.unsigned_abs()
                }
                count => count.unsigned_abs(),
            };
            for _ in 0..count {
                all.push(one(self)?);
            }
        }
    }

    fn value(&mut self, avro: &Avro) -> std::result::Result<Value, String> {
        self.budget = self.budget.checked_sub(1).ok_or("it has more values than bytes")?;
        Ok(match avro {
            Avro::Null => Value::Null,
            Avro::Bool => match self.array::<1>()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(format!("{other} is no boolean")),
            },
            Avro::Int => {
                let value = self.long()?;
                Value::Int32(i32::try_from(value).map_err(|_| format!("{value} is no int"))?)
            }
            Avro::Long | Avro::Millis => Value::Int64(self.long()?),
            Avro::Micros => {
                let micros = self.long()?;
                let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
                Value::Row(Row::new(micros_schema(), [Value::Int64(seconds), Value::Int64(micros)]))
            }
            Avro::Float => Value::Float(f32::from_le_bytes(self.array()?)),
            Avro::Double => Value::Double(f64::from_le_bytes(self.array()?)),
            Avro::Bytes => Value::Bytes(Bytes::copy_from_slice(self.bytes()?)),
            Avro::Fixed(size) => Value::Bytes(Bytes::copy_from_slice(self.take(*size)?)),
            Avro::Text => Value::String(self.text()?),
            Avro::Enum(symbols) => {
                let index = self.long()?;
                let found = usize::try_from(index).ok().and_then(|index| symbols.get(index));
                Value::String(found.ok_or_else(|| format!("there is no symbol {index}"))?.clone())
            }
            Avro::Array(of) => Value::Array(self.many(|input| input.value(of))?),
            Avro::Map(of) => {
                Value::Map(self.many(|input| Ok((Value::String(input.text()?), input.value(of)?)))?)
            }
            Avro::Record(schema, fields) => {
                let mut values = Vec::with_capacity(fields.len());
                for field in fields {
                    values.push(self.value(field)?);
                }
                Value::Row(Row::new(schema.clone(), values))
            }
            Avro::Nullable(of, null_first) => match (self.long()?, null_first) {
                (0, true) | (1, false) => Value::Null,
                (1, true) | (0, false) => self.value(of)?,
                (other, _) => return Err(format!("there is no type {other} of two")),
            },
        })
    }
}
