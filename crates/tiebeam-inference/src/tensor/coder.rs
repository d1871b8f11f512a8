//! How tensors travel: as Beam rows `{dtype: string, shape: array<int64>, data: bytes}`, with the numbers little endian
//! in row-major order, so that every SDK can read them. A text in `data` is its length (four bytes) and its UTF-8.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use tiebeam_core::coder::{Codec, Coder, CoderSpec, Nesting, Reader, wire, write_varint};
use tiebeam_core::element::Element;
use tiebeam_core::error::{Error, ErrorKind, Result};

use super::{DType, Tensor, TensorData, TensorElement, Tensors};

/// Beam's numbers of the atomic types that the rows use.
const INT64: i64 = 4;
const STRING: i64 = 7;
const BYTES: i64 = 9;

fn damaged(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0311", message)
}

impl Tensor {
    /// Appends the numbers, little endian in row-major order (a text: its length in four bytes and its UTF-8).
    pub fn write_le_bytes(&self, out: &mut Vec<u8>) {
        macro_rules! numbers {
            ($buffer:expr) => {
                $buffer.as_slice().iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()))
            };
        }
        match &self.data {
            TensorData::F32(b) => numbers!(b),
            TensorData::F64(b) => numbers!(b),
            TensorData::I64(b) => numbers!(b),
            TensorData::I32(b) => numbers!(b),
            TensorData::U8(b) => out.extend_from_slice(b.as_slice()),
            TensorData::I8(b) => numbers!(b),
            TensorData::Bool(b) => out.extend(b.as_slice().iter().map(|&value| u8::from(value))),
            TensorData::Str(b) => {
                for text in b.as_slice() {
                    // A text of 4 GiB can't come from a record; its length is told wrapped and then refused.
                    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
    }

    /// The bytes of the numbers.
    pub fn num_bytes(&self) -> usize {
        match &self.data {
            TensorData::F32(b) => size_of_val(b.as_slice()),
            TensorData::F64(b) => size_of_val(b.as_slice()),
            TensorData::I64(b) => size_of_val(b.as_slice()),
            TensorData::I32(b) => size_of_val(b.as_slice()),
            TensorData::U8(b) => b.as_slice().len(),
            TensorData::I8(b) => b.as_slice().len(),
            TensorData::Bool(b) => b.as_slice().len(),
            TensorData::Str(b) => b.as_slice().iter().map(|text| 4 + text.len()).sum(),
        }
    }

    /// A tensor from its dtype, its shape and what [`write_le_bytes`](Tensor::write_le_bytes) writes.
    ///
    /// # Errors
    /// When the bytes are not exactly the shape's numbers. Allocates in proportion to the bytes, whatever the shape says.
    pub fn from_le_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Self> {
        let count = shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim));
        let wrong = || {
            damaged(format!(
                "a tensor of {dtype}{shape:?} cannot be told by {} bytes of numbers",
                bytes.len()
            ))
        };
        let count = count.ok_or_else(wrong)?;
        fn numbers<T: TensorElement, const N: usize>(
            shape: &[usize],
            count: usize,
            bytes: &[u8],
            read: fn([u8; N]) -> T,
        ) -> Option<Result<Tensor>> {
            let (chunks, rest) = bytes.as_chunks::<N>();
            (rest.is_empty() && chunks.len() == count)
                .then(|| Tensor::new(shape, chunks.iter().map(|chunk| read(*chunk)).collect()))
        }
        match dtype {
            DType::F32 => numbers(shape, count, bytes, f32::from_le_bytes),
            DType::F64 => numbers(shape, count, bytes, f64::from_le_bytes),
            DType::I64 => numbers(shape, count, bytes, i64::from_le_bytes),
            DType::I32 => numbers(shape, count, bytes, i32::from_le_bytes),
            DType::U8 => numbers(shape, count, bytes, |[byte]: [u8; 1]| byte),
            DType::I8 => numbers(shape, count, bytes, i8::from_le_bytes),
            DType::Bool if bytes.iter().all(|byte| *byte <= 1) => {
                numbers(shape, count, bytes, |[byte]: [u8; 1]| byte == 1)
            }
            DType::Bool => None,
            DType::Str => {
                texts(bytes)?.filter(|texts| texts.len() == count).map(|texts| Tensor::new(shape, texts))
            }
        }
        .unwrap_or_else(|| Err(wrong()))
    }
}

/// The texts of a tensor of `str`; none when their lengths don't fit the bytes.
fn texts(mut bytes: &[u8]) -> Result<Option<Vec<Arc<str>>>> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let Some((text, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(text)
            .map_err(|e| damaged(format!("a text in a tensor is not UTF-8: {e}")))?;
        texts.push(Arc::from(text));
        bytes = rest;
    }
    Ok(bytes.is_empty().then_some(texts))
}

/// One field of a Beam schema (`Field { name = 1, type = 3, id = 4, encoding_position = 5 }`).
fn schema_field(out: &mut Vec<u8>, position: i64, name: &str, field_type: &[u8]) {
    let mut field = Vec::new();
    wire::message(&mut field, 1, name.as_bytes());
    wire::message(&mut field, 3, field_type);
    wire::varint(&mut field, 4, position);
    wire::varint(&mut field, 5, position);
    wire::message(out, 1, &field);
}

fn atomic(kind: i64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::varint(&mut out, 2, kind);
    out
}

/// `FieldType { array_type = 3 { element_type = 1 } }`.
fn array_of(element: &[u8]) -> Vec<u8> {
    let (mut array, mut out) = (Vec::new(), Vec::new());
    wire::message(&mut array, 1, element);
    wire::message(&mut out, 3, &array);
    out
}

/// `FieldType { row_type = 6 { schema = 1 } }`.
fn row_of(schema: &[u8]) -> Vec<u8> {
    let (mut row, mut out) = (Vec::new(), Vec::new());
    wire::message(&mut row, 1, schema);
    wire::message(&mut out, 6, &row);
    out
}

const ROW: &str = "beam:coder:row:v1";

/// Beam's schema of a tensor's row, encoded.
static TENSOR_SCHEMA: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut schema = Vec::new();
    schema_field(&mut schema, 0, "dtype", &atomic(STRING));
    schema_field(&mut schema, 1, "shape", &array_of(&atomic(INT64)));
    schema_field(&mut schema, 2, "data", &atomic(BYTES));
    wire::message(&mut schema, 2, b"6b1d3c36-5a5e-4c5c-9d0b-7d1f4a4e7a01");
    schema
});

/// Beam's schema of named tensors: a row of two arrays, encoded.
static TENSORS_SCHEMA: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut schema = Vec::new();
    schema_field(&mut schema, 0, "names", &array_of(&atomic(STRING)));
    schema_field(&mut schema, 1, "tensors", &array_of(&row_of(&TENSOR_SCHEMA)));
    wire::message(&mut schema, 2, b"6b1d3c36-5a5e-4c5c-9d0b-7d1f4a4e7a02");
    schema
});

/// The head of a row of `fields` values of which none is null.
fn write_row_head(fields: i64, out: &mut Vec<u8>) {
    write_varint(fields, out);
    write_varint(0, out);
}

fn read_row_head(fields: i64, input: &mut Reader) -> Result<()> {
    let seen = input.varint()?;
    if seen != fields {
        return Err(damaged(format!("a tensor's row has {fields} fields, got {seen}")));
    }
    let nulls = input.length()?;
    if input.take(nulls)?.iter().any(|byte| *byte != 0) {
        return Err(damaged("a tensor's row has a null field".to_owned()));
    }
    Ok(())
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_varint(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

fn read_bytes(input: &mut Reader) -> Result<Bytes> {
    let n = input.length()?;
    input.take(n)
}

fn read_text(input: &mut Reader) -> Result<Arc<str>> {
    let bytes = read_bytes(input)?;
    std::str::from_utf8(&bytes).map(Arc::from).map_err(|e| damaged(format!("a name is not UTF-8: {e}")))
}

/// The count in front of an array: four bytes, big endian; each value takes at least one byte.
fn read_count(input: &mut Reader) -> Result<usize> {
    let count = i32::from_be_bytes(input.array()?);
    usize::try_from(count).ok().filter(|n| *n <= input.remaining()).ok_or_else(|| {
        damaged(format!("an array of {count} values where {} bytes are left", input.remaining()))
    })
}

fn write_count(count: usize, out: &mut Vec<u8>) -> Result<()> {
    let count =
        i32::try_from(count).map_err(|_| damaged(format!("{count} values are too many for an array")))?;
    out.extend_from_slice(&count.to_be_bytes());
    Ok(())
}

struct TensorCodec;

impl Codec<Tensor> for TensorCodec {
    fn encode(&self, value: &Tensor, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        write_row_head(3, out);
        write_bytes(value.dtype().name().as_bytes(), out);
        value.with_shape(|shape| -> Result<()> {
            write_count(shape.len(), out)?;
            shape.iter().for_each(|dim| write_varint(*dim as i64, out));
            Ok(())
        })?;
        write_varint(value.num_bytes() as i64, out);
        value.write_le_bytes(out);
        Ok(())
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Tensor> {
        read_row_head(3, input)?;
        let dtype = read_text(input)?;
        let dtype = DType::from_name(&dtype)
            .ok_or_else(|| damaged(format!("a tensor's dtype is unknown: {dtype}")))?;
        let rank = read_count(input)?;
        let mut shape = Vec::with_capacity(rank);
        for _ in 0..rank {
            let dim = input.varint()?;
            shape.push(
                usize::try_from(dim).map_err(|_| damaged(format!("a tensor's axis has the size {dim}")))?,
            );
        }
        Tensor::from_le_bytes(dtype, &shape, &read_bytes(input)?)
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec { urn: ROW.to_owned(), payload: TENSOR_SCHEMA.clone(), components: Vec::new() }
    }

    /// Equal numbers may have several encodings: `0.0` and `-0.0`.
    fn is_deterministic(&self) -> bool {
        false
    }
}

impl Element for Tensor {
    fn coder() -> Coder<Self> {
        Coder::new(TensorCodec)
    }
}

struct TensorsCodec;

impl Codec<Tensors> for TensorsCodec {
    fn encode(&self, value: &Tensors, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        write_row_head(2, out);
        write_count(value.len(), out)?;
        value.names().iter().for_each(|name| write_bytes(name.as_bytes(), out));
        write_count(value.len(), out)?;
        value.values().iter().try_for_each(|tensor| TensorCodec.encode(tensor, out, Nesting::Nested))
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Tensors> {
        read_row_head(2, input)?;
        let count = read_count(input)?;
        let names = (0..count).map(|_| read_text(input)).collect::<Result<Vec<_>>>()?;
        let count = read_count(input)?;
        let values =
            (0..count).map(|_| TensorCodec.decode(input, Nesting::Nested)).collect::<Result<Vec<_>>>()?;
        Tensors::new(names, values).map_err(|e| damaged(e.message().to_owned()))
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec { urn: ROW.to_owned(), payload: TENSORS_SCHEMA.clone(), components: Vec::new() }
    }

    fn is_deterministic(&self) -> bool {
        false
    }
}

impl Element for Tensors {
    fn coder() -> Coder<Self> {
        Coder::new(TensorsCodec)
    }
}
