//! Writes rows in blocks.

use std::io::Write;
use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result, Row, Schema, Value};

use super::schema::Avro;
use crate::sink::RecordFormat;
use crate::sink::write::WriteFiles;

/// What a file begins with.
pub(super) const MAGIC: &[u8; 4] = b"Obj\x01";

/// A block is written when it has this many bytes.
const BLOCK: usize = 64 << 10;

/// Writes rows of a schema into Avro files `path-00000-of-00003`; gives their paths.
///
/// ```
/// use std::sync::Arc;
/// use tiebeam_core::{FieldType, Row, Schema, TypeKind, Value};
/// use tiebeam_graph::{Create, Pipeline};
/// use tiebeam_io::avro;
///
/// let schema = Arc::new(Schema::of([("value", FieldType::required(TypeKind::Double))]));
/// let p = Pipeline::new();
/// let rows = p.apply(Create::of([Row::new(schema.clone(), [Value::Double(1.0)])]));
/// rows.apply(avro::write("out/rows", schema)?.with_suffix(".avro"));
/// # Ok::<(), tiebeam_core::Error>(())
/// ```
///
/// # Errors
/// When the schema has what Avro has not.
pub fn write(path: &str, schema: Arc<Schema>) -> Result<WriteFiles<AvroFormat>> {
    Ok(WriteFiles::new(path, AvroFormat::new(&schema, Codec::default())?, "WriteToAvro"))
}

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// Not at all.
    None,
    /// As in zip files; Beam's own choice.
    #[default]
    Deflate,
    /// Fast, less dense.
    Snappy,
    /// Dense and fast; `zstandard`.
    Zstd,
}

impl Codec {
    /// The codec of that name, as Avro's files and Beam's options have it.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "null" | "none" => Codec::None,
            "deflate" => Codec::Deflate,
            "snappy" => Codec::Snappy,
            "zstandard" | "zstd" => Codec::Zstd,
            _ => return None,
        })
    }

    /// As Avro's files have it.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "null",
            Codec::Deflate => "deflate",
            Codec::Snappy => "snappy",
            Codec::Zstd => "zstandard",
        }
    }
}

/// Rows as Avro.
#[derive(Debug, Clone)]
pub struct AvroFormat {
    avro: Arc<Avro>,
    codec: Codec,
    header: Arc<[u8]>,
    /// What stands between blocks: the same in all files of the schema, so that they can be put together.
    sync: [u8; 16],
}

impl AvroFormat {
    /// Rows of that schema.
    ///
    /// # Errors
    /// When it has what Avro has not.
    pub fn new(schema: &Arc<Schema>, codec: Codec) -> Result<Self> {
        let avro = Avro::of_schema(schema).map_err(|why| {
            Error::new(ErrorKind::InvalidArgument, "TB0459", format!("Avro cannot hold these rows: {why}"))
                .with_help("choose or convert fields before")
        })?;
        let text = avro.to_json("Row").to_string();
        let sync = mark(&text);
        let mut header = MAGIC.to_vec();
        write_long(2, &mut header);
        for (key, value) in [("avro.schema", text.as_str()), ("avro.codec", codec.name())] {
            write_bytes(key.as_bytes(), &mut header);
            write_bytes(value.as_bytes(), &mut header);
        }
        write_long(0, &mut header);
        header.extend_from_slice(&sync);
        Ok(AvroFormat { avro: Arc::new(avro), codec, header: header.into(), sync })
    }

    /// With blocks compressed in another way.
    ///
    /// # Errors
    /// As [`new`](AvroFormat::new).
    pub fn with_codec(self, codec: Codec) -> Result<Self> {
        match &*self.avro {
            Avro::Record(schema, _) => AvroFormat::new(schema, codec),
            _ => Ok(self),
        }
    }

    fn close(&self, block: &mut Block, out: &mut Vec<u8>) -> Result<()> {
        if block.rows == 0 {
            return Ok(());
        }
        let failed =
            |error: std::io::Error| Error::internal(format!("a block could not be compressed: {error}"));
        let data = match self.codec {
            Codec::None => std::mem::take(&mut block.data),
            Codec::Deflate => {
                let level = flate2::Compression::new(6);
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(&block.data).and_then(|()| encoder.finish()).map_err(failed)?
            }
            Codec::Snappy => {
                let packed = snap::raw::Encoder::new().compress_vec(&block.data);
                let mut packed = packed.map_err(|error| failed(error.into()))?;
                let mut sum = flate2::Crc::new();
                sum.update(&block.data);
                packed.extend_from_slice(&sum.sum().to_be_bytes());
                packed
            }
            Codec::Zstd => zstd::bulk::compress(&block.data, 3).map_err(failed)?,
        };
        write_long(block.rows, out);
        write_bytes(&data, out);
        out.extend_from_slice(&self.sync);
        block.data.clear();
        block.rows = 0;
        Ok(())
    }
}

/// Rows that are not written yet.
#[derive(Debug, Default)]
pub struct Block {
    data: Vec<u8>,
    rows: i64,
}

impl RecordFormat<Row> for AvroFormat {
    type File = Block;

    fn header(&self, _: Option<&Row>) -> Result<Option<Vec<u8>>> {
        Ok(Some(self.header.to_vec()))
    }

    fn write(&self, block: &mut Block, row: &Row, out: &mut Vec<u8>) -> Result<()> {
        let before = block.data.len();
        if let Err(why) = encode(&self.avro, &Value::Row(row.clone()), &mut block.data) {
            block.data.truncate(before);
            return Err(Error::new(ErrorKind::InvalidData, "TB0444", why));
        }
        block.rows += 1;
        if block.data.len() >= BLOCK { self.close(block, out) } else { Ok(()) }
    }

    fn finish(&self, block: &mut Block, out: &mut Vec<u8>) -> Result<()> {
        self.close(block, out)
    }
}

/// A number with its sign in the last bit, seven bits a byte.
pub(super) fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

fn encode(avro: &Avro, value: &Value, out: &mut Vec<u8>) -> std::result::Result<(), String> {
    let wrong = || Err(format!("{value:?} where the schema says {}", avro.field()));
    match (avro, value) {
        (Avro::Nullable(_, first), Value::Null) => write_long(i64::from(!first), out),
        (Avro::Nullable(of, first), value) => {
            write_long(i64::from(*first), out);
            return encode(of, value, out);
        }
        (Avro::Null, Value::Null) => {}
        (Avro::Bool, Value::Bool(value)) => out.push(u8::from(*value)),
        (Avro::Int, Value::Byte(value)) => write_long(i64::from(*value), out),
        (Avro::Int, Value::Int16(value)) => write_long(i64::from(*value), out),
        (Avro::Int, Value::Int32(value)) => write_long(i64::from(*value), out),
        (Avro::Long | Avro::Millis, Value::Int64(value)) => write_long(*value, out),
        (Avro::Micros, Value::Row(row)) => match micros(row) {
            Some(micros) => write_long(micros, out),
            None => return wrong(),
        },
        (Avro::Float, Value::Float(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (Avro::Double, Value::Double(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (Avro::Text, Value::String(text)) => write_bytes(text.as_bytes(), out),
        (Avro::Bytes, Value::Bytes(bytes)) => write_bytes(bytes, out),
        (Avro::Array(of), Value::Array(items)) => {
            if !items.is_empty() {
                write_long(items.len() as i64, out);
                items.iter().try_for_each(|item| encode(of, item, out))?;
            }
            write_long(0, out);
        }
        (Avro::Map(of), Value::Map(entries)) => {
            if !entries.is_empty() {
                write_long(entries.len() as i64, out);
            }
            for (key, value) in entries.iter() {
                encode(&Avro::Text, key, out)?;
                encode(of, value, out)?;
            }
            write_long(0, out);
        }
        (Avro::Record(schema, fields), Value::Row(row)) if row.values.len() == fields.len() => {
            for ((avro, value), field) in fields.iter().zip(row.values.iter()).zip(&schema.fields) {
                encode(avro, value, out).map_err(|why| format!("field `{}`: {why}", field.name))?;
            }
        }
        _ => return wrong(),
    }
    Ok(())
}

/// Microseconds since 1970 of a row of seconds and microseconds.
pub(crate) fn micros(row: &Row) -> Option<i64> {
    let [Value::Int64(seconds), Value::Int64(micros)] = &*row.values else { return None };
    seconds.checked_mul(1_000_000)?.checked_add(*micros)
}

/// Sixteen bytes that no data has by chance, made of the schema.
fn mark(text: &str) -> [u8; 16] {
    let mut state: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in text.bytes().chain(*b"tiebeam") {
        state = (state ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    state.to_be_bytes()
}
