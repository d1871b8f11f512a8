//! `beam:coder:row:v1`: rows by their schema; and a private coder for rows whose schema no one knows beforehand.
//!
//! A row is the number of its fields, a bitmap of those that are absent (empty when none is), then the others, each in
//! nested context. Inside arrays and maps an absent value is told by a byte in front, as `nullable` does.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::atoms::{bounded, look_bytes, put_bytes, take_arc_str, take_bool, take_bytes};
use super::list::{decode_list, decode_many, encode_count};
use super::nullable::take_presence;
use super::schema_proto::{decode_schema, encode_schema};
use super::{
    Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, decimal, decode_timestamp, encode_timestamp,
    length_prefixed, mismatch, urn, write_varint,
};
use crate::element::Element;
use crate::error::{Error, ErrorKind, Result};
use crate::row::{FieldType, LogicalType, Row, Schema, TypeKind, Value};
use crate::time::Timestamp;

const MILLIS_INSTANT: &str = "beam:logical_type:millis_instant:v1";
const DECIMAL: &str = "beam:logical_type:decimal:v1";

/// The coder of rows of one schema.
pub fn row_coder(schema: Arc<Schema>) -> Coder<Row> {
    let payload = encode_schema(&schema);
    Coder::new(RowCodec::new(schema, payload))
}

/// The coder of rows of any schema, which travels in front of each. Declared as `length_prefix<private>`, so that
/// runners can pass it on; other languages can't read it: name the schema (`row_coder`) where they should.
pub fn dynamic_row_coder() -> Coder<Row> {
    length_prefixed(Coder::new(DynamicRowCodec::default()))
}

impl Element for Row {
    fn coder() -> Coder<Self> {
        dynamic_row_coder()
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        match spec.urn.as_str() {
            LENGTH_PREFIX => Ok(length_prefixed(Self::coder_of(spec.only_component()?)?)),
            urn::ROW => {
                let schema = decode_schema(spec.payload.clone())?;
                Ok(Coder::new(RowCodec::new(Arc::new(schema), spec.payload.clone())))
            }
            urn::DYNAMIC_ROW => Ok(Coder::new(DynamicRowCodec::default())),
            _ => Err(mismatch("a row", spec)),
        }
    }
}

struct RowCodec {
    schema: Arc<Schema>,
    payload: Vec<u8>,
    deterministic: bool,
}

impl RowCodec {
    fn new(schema: Arc<Schema>, payload: Vec<u8>) -> Self {
        let deterministic = schema.fields.iter().all(|field| is_deterministic(&field.field_type.kind));
        RowCodec { schema, payload, deterministic }
    }
}

/// Whether equal values of a type have equal encodings. Floating-point zeros don't, and maps have no order.
fn is_deterministic(kind: &TypeKind) -> bool {
    match kind {
        TypeKind::Float | TypeKind::Double | TypeKind::Map(..) => false,
        TypeKind::Array(element) | TypeKind::Iterable(element) => is_deterministic(&element.kind),
        TypeKind::Row(schema) => schema.fields.iter().all(|field| is_deterministic(&field.field_type.kind)),
        TypeKind::Logical(logical) => is_deterministic(&logical.representation.kind),
        _ => true,
    }
}

impl Codec<Row> for RowCodec {
    fn encode(&self, value: &Row, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        encode_row(&self.schema, value, out)
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Row> {
        decode_row(&self.schema, Fields::MayLack, input)
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec { payload: self.payload.clone(), ..CoderSpec::leaf(urn::ROW) }
    }

    fn is_deterministic(&self) -> bool {
        self.deterministic
    }
}

/// Behind a length for itself, the schema; then the row. Rows of one kind come one after another, so the last schema is
/// kept in both directions.
#[derive(Default)]
struct DynamicRowCodec {
    written: Mutex<Option<(Arc<Schema>, Vec<u8>)>>,
    read: Mutex<Option<(Bytes, Arc<Schema>)>>,
}

impl Codec<Row> for DynamicRowCodec {
    fn encode(&self, row: &Row, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let (_, payload) = match &mut *written {
                Some(last) if Arc::ptr_eq(&last.0, &row.schema) => last,
                slot => slot.insert((row.schema.clone(), encode_schema(&row.schema))),
            };
            put_bytes(payload, out, Nesting::Nested);
        }
        encode_row(&row.schema, row, out)
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<Row> {
        let schema = look_bytes(input, Nesting::Nested, |payload| {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((last, schema)) = &*read
                && *last == payload
            {
                return Ok(schema.clone());
            }
            let payload = Bytes::copy_from_slice(payload);
            let schema = Arc::new(decode_schema(payload.clone())?);
            *read = Some((payload, schema.clone()));
            Ok(schema)
        })?;
        decode_row(&schema, Fields::All, input)
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::leaf(urn::DYNAMIC_ROW)
    }

    fn is_deterministic(&self) -> bool {
        false
    }
}

/// The error of a row that does not fit.
pub(crate) fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0114", message)
}

/// Names the field that an error is about.
pub(crate) fn at_field(error: Error, name: &str) -> Error {
    Error::new(error.kind(), error.code(), format!("field `{name}`: {}", error.message()))
}

/// The absent fields of a row, by their place in the schema.
pub(crate) enum Absent {
    /// Of a row of at most 64 fields.
    Few(u64),
    Many(Bytes),
}

impl Absent {
    fn take(input: &mut Reader) -> Result<Absent> {
        let n = input.length()?;
        if n > 8 {
            return input.take(n).map(Absent::Many);
        }
        input.look(n, |bytes| {
            Ok(Absent::Few(bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte))))
        })
    }

    /// Whether the field at `index` is absent. Writers may leave out bytes at the end that are 0.
    #[inline]
    pub(crate) fn has(&self, index: usize) -> bool {
        match self {
            Absent::Few(bits) => index < 64 && bits >> index & 1 != 0,
            Absent::Many(bytes) => bytes.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 != 0),
        }
    }
}

/// Writes what stands in front of the fields; `absent` says which are not there.
pub(crate) fn put_header(count: usize, absent: impl Fn(usize) -> bool, out: &mut Vec<u8>) {
    write_varint(count as i64, out);
    if !(0..count).any(&absent) {
        out.push(0);
        return;
    }
    write_varint(count.div_ceil(8) as i64, out);
    for byte in 0..count.div_ceil(8) {
        let bits = byte * 8..count.min(byte * 8 + 8);
        out.push(bits.enumerate().fold(0, |bits, (bit, index)| bits | u8::from(absent(index)) << bit));
    }
}

/// Reads what stands in front of the fields: the number of those that were written, at most `count`, and the absent
/// ones.
pub(crate) fn take_header(count: usize, input: &mut Reader) -> Result<(usize, Absent)> {
    let written = input.varint()?;
    let absent = Absent::take(input)?;
    match usize::try_from(written) {
        Ok(written) if written <= count => Ok((written, absent)),
        _ => Err(bad(format!("a row of {written} fields, the schema has {count}"))),
    }
}

fn encode_row(schema: &Arc<Schema>, row: &Row, out: &mut Vec<u8>) -> Result<()> {
    if !Arc::ptr_eq(schema, &row.schema) && schema.fields != row.schema.fields {
        return Err(bad(format!("a row of ({}), the coder is for ({schema})", row.schema)));
    }
    let values = &row.values;
    if values.len() != schema.fields.len() {
        return Err(bad(format!(
            "a row of {} values, its schema has {} fields",
            values.len(),
            schema.fields.len()
        )));
    }
    put_header(values.len(), |index| values[index] == Value::Null, out);
    for index in 0..values.len() {
        let index = schema.written_at(index);
        let (field, value) = (&schema.fields[index], &values[index]);
        if *value != Value::Null {
            encode_value(&field.field_type.kind, value, out).map_err(|e| at_field(e, &field.name))?;
        } else if !field.field_type.nullable {
            return Err(bad(format!("field `{}` has no value and is not nullable", field.name)));
        }
    }
    Ok(())
}

/// Whether a row may have fewer fields than its schema.
#[derive(Clone, Copy, PartialEq)]
enum Fields {
    /// Yes: it may have been written before the last fields were added.
    MayLack,
    /// No: the schema came with it. A row of two bytes must not fill the fields of a schema that the same hostile hand
    /// made long.
    All,
}

fn decode_row(schema: &Arc<Schema>, fields: Fields, input: &mut Reader) -> Result<Row> {
    let count = schema.fields.len();
    let (written, absent) = take_header(count, input)?;
    if fields == Fields::All && written < count {
        return Err(bad(format!("a row of {written} fields, its own schema has {count}")));
    }
    let mut values: Arc<[Value]> = std::iter::repeat_n(Value::Null, count).collect();
    // No one else has it yet, so that nothing is copied here.
    let slots = Arc::make_mut(&mut values);
    for position in 0..count {
        let index = schema.written_at(position);
        let field = &schema.fields[index];
        if position < written && !absent.has(index) {
            slots[index] =
                decode_value(&field.field_type.kind, fields, input).map_err(|e| at_field(e, &field.name))?;
        } else if !field.field_type.nullable {
            return Err(bad(format!("field `{}` has no value and is not nullable", field.name)));
        }
    }
    Ok(Row::new(schema.clone(), values))
}

impl Schema {
    /// The field that is written at `position`.
    fn written_at(&self, position: usize) -> usize {
        match &self.encoding_positions {
            None => position,
            // Few schemas have them, and those have few fields.
            Some(positions) => positions.iter().position(|at| *at == position).unwrap_or(position),
        }
    }
}

/// A value inside a list or map.
fn encode_item(field_type: &FieldType, value: &Value, out: &mut Vec<u8>) -> Result<()> {
    if field_type.nullable {
        out.push(u8::from(*value != Value::Null));
        if *value == Value::Null {
            return Ok(());
        }
    }
    encode_value(&field_type.kind, value, out)
}

fn decode_item(field_type: &FieldType, fields: Fields, input: &mut Reader) -> Result<Value> {
    if field_type.nullable && !take_presence(input)? {
        return Ok(Value::Null);
    }
    decode_value(&field_type.kind, fields, input)
}

fn encode_value(kind: &TypeKind, value: &Value, out: &mut Vec<u8>) -> Result<()> {
    match (kind, value) {
        (TypeKind::Byte, Value::Byte(value)) => out.push(*value as u8),
        (TypeKind::Int16, Value::Int16(value)) => out.extend_from_slice(&value.to_be_bytes()),
        (TypeKind::Int32, Value::Int32(value)) => put_int32(*value, out),
        (TypeKind::Int64, Value::Int64(value)) => write_varint(*value, out),
        (TypeKind::Float, Value::Float(value)) => out.extend_from_slice(&value.to_be_bytes()),
        (TypeKind::Double, Value::Double(value)) => out.extend_from_slice(&value.to_be_bytes()),
        (TypeKind::String, Value::String(value)) => put_bytes(value.as_bytes(), out, Nesting::Nested),
        (TypeKind::Boolean, Value::Bool(value)) => out.push(u8::from(*value)),
        (TypeKind::Bytes, Value::Bytes(value)) => put_bytes(value, out, Nesting::Nested),
        (TypeKind::Array(element) | TypeKind::Iterable(element), Value::Array(values)) => {
            encode_count(values.len(), out)?;
            values.iter().try_for_each(|value| encode_item(element, value, out))?;
        }
        (TypeKind::Map(key_type, value_type), Value::Map(pairs)) => {
            encode_count(pairs.len(), out)?;
            pairs.iter().try_for_each(|(key, value)| {
                encode_item(key_type, key, out)?;
                encode_item(value_type, value, out)
            })?;
        }
        (TypeKind::Row(schema), Value::Row(row)) => encode_row(schema, row, out)?,
        (TypeKind::Logical(logical), value) => encode_logical(logical, value, out)?,
        (kind, value) => return Err(bad(format!("a value {value:?} where the schema has {kind}"))),
    }
    Ok(())
}

fn decode_value(kind: &TypeKind, fields: Fields, input: &mut Reader) -> Result<Value> {
    Ok(match kind {
        TypeKind::Byte => Value::Byte(input.u8()? as i8),
        TypeKind::Int16 => Value::Int16(i16::from_be_bytes(input.array()?)),
        TypeKind::Int32 => Value::Int32(take_int32(input)?),
        TypeKind::Int64 => Value::Int64(input.varint()?),
        TypeKind::Float => Value::Float(f32::from_be_bytes(input.array()?)),
        TypeKind::Double => Value::Double(f64::from_be_bytes(input.array()?)),
        TypeKind::String => Value::String(take_arc_str(input, Nesting::Nested)?),
        TypeKind::Boolean => Value::Bool(take_bool(input)?),
        TypeKind::Bytes => Value::Bytes(take_bytes(input, Nesting::Nested)?),
        TypeKind::Array(element) | TypeKind::Iterable(element) => {
            Value::Array(decode_list(input, |input| decode_item(element, fields, input))?.into())
        }
        TypeKind::Map(key_type, value_type) => Value::Map(
            decode_pairs(input, |input| {
                Ok((decode_item(key_type, fields, input)?, decode_item(value_type, fields, input)?))
            })?
            .into(),
        ),
        TypeKind::Row(schema) => Value::Row(decode_row(schema, fields, input)?),
        TypeKind::Logical(logical) => decode_logical(logical, fields, input)?,
    })
}

/// Reads a map: a count, then pairs.
pub(crate) fn decode_pairs<T>(
    input: &mut Reader,
    one: impl FnMut(&mut Reader) -> Result<T>,
) -> Result<Vec<T>> {
    let count = i32::from_be_bytes(input.array()?);
    let mut pairs = Vec::new();
    decode_many(i64::from(count), &mut pairs, input, one)?;
    Ok(pairs)
}

/// INT32 in a row: a varint of 32 bits, so that a negative number takes five bytes and not ten.
pub(crate) fn put_int32(value: i32, out: &mut Vec<u8>) {
    write_varint(i64::from(value as u32), out);
}

/// Reads INT32 in either width.
pub(crate) fn take_int32(input: &mut Reader) -> Result<i32> {
    let value = input.varint()?;
    u32::try_from(value).map(|value| value as i32).or_else(|_| bounded(value))
}

/// Two logical types have encodings of their own in Beam; all others travel as their representation.
fn encode_logical(logical: &LogicalType, value: &Value, out: &mut Vec<u8>) -> Result<()> {
    match (logical.urn.as_str(), value) {
        (MILLIS_INSTANT, Value::Int64(millis)) => encode_timestamp(Timestamp::from_millis(*millis), out),
        (DECIMAL, Value::String(text)) => decimal::encode(text, out)?,
        (MILLIS_INSTANT | DECIMAL, value) => {
            return Err(bad(format!("a value {value:?} where the schema has logical type {}", logical.urn)));
        }
        _ => encode_item(&logical.representation, value, out)?,
    }
    Ok(())
}

fn decode_logical(logical: &LogicalType, fields: Fields, input: &mut Reader) -> Result<Value> {
    match logical.urn.as_str() {
        MILLIS_INSTANT => Ok(Value::Int64(decode_timestamp(input)?.millis())),
        DECIMAL => decimal::decode(input).map(|text| Value::String(text.into())),
        _ => decode_item(&logical.representation, fields, input),
    }
}
