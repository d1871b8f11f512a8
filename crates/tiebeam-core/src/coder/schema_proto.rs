//! Beam's Schema message, the payload of `beam:coder:row:v1`, both ways.
//!
//! What the message has beyond our [`Schema`] (descriptions, options) is not kept.

use std::sync::Arc;

use bytes::Bytes;

use super::atoms::bounded;
use super::wire::{Content, Fields, message, varint};
use crate::error::{Error, ErrorKind, Result};
use crate::row::{Field, FieldType, LogicalType, Schema, TypeKind};

/// Types within types beyond this depth are refused: a hostile message must not exhaust the stack.
const MAX_DEPTH: usize = 64;

/// The encoded message of `schema`. A schema without an id is given one that follows from its content: Python keeps
/// schemas by their ids, so an empty one would not do.
pub fn encode_schema(schema: &Schema) -> Vec<u8> {
    let mut out = Vec::new();
    put_schema(schema, &mut out);
    out
}

fn put_schema(schema: &Schema, out: &mut Vec<u8>) {
    let at = out.len();
    for (index, field) in schema.fields.iter().enumerate() {
        let mut one = Vec::new();
        message(&mut one, 1, field.name.as_bytes());
        message(&mut one, 3, &field_type(&field.field_type));
        if let Some(position) = schema.encoding_positions.as_ref().and_then(|positions| positions.get(index))
        {
            varint(&mut one, 5, *position as i64);
        }
        message(out, 1, &one);
    }
    let positions_set = schema.encoding_positions.is_some();
    if schema.id.is_empty() {
        let id = content_id(&out[at..], positions_set);
        message(out, 2, id.as_bytes());
    } else {
        message(out, 2, schema.id.as_bytes());
    }
    varint(out, 4, i64::from(positions_set));
}

/// An id in the form of a UUID (version 8: made by its maker's own rules), always the same for the same fields.
fn content_id(fields: &[u8], positions_set: bool) -> String {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in fields.iter().chain([&u8::from(positions_set)]) {
        hash = (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
    }
    let hash = hash & !(0xf << 76 | 0x3 << 62) | 0x8 << 76 | 0x2 << 62;
    let hex = format!("{hash:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn field_type(field_type: &FieldType) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, 1, i64::from(field_type.nullable));
    match &field_type.kind {
        TypeKind::Byte => varint(&mut out, 2, 1),
        TypeKind::Int16 => varint(&mut out, 2, 2),
        TypeKind::Int32 => varint(&mut out, 2, 3),
        TypeKind::Int64 => varint(&mut out, 2, 4),
        TypeKind::Float => varint(&mut out, 2, 5),
        TypeKind::Double => varint(&mut out, 2, 6),
        TypeKind::String => varint(&mut out, 2, 7),
        TypeKind::Boolean => varint(&mut out, 2, 8),
        TypeKind::Bytes => varint(&mut out, 2, 9),
        TypeKind::Array(element) => nested(&mut out, 3, |out| message(out, 1, &self::field_type(element))),
        TypeKind::Iterable(element) => nested(&mut out, 4, |out| message(out, 1, &self::field_type(element))),
        TypeKind::Map(key, value) => nested(&mut out, 5, |out| {
            message(out, 1, &self::field_type(key));
            message(out, 2, &self::field_type(value));
        }),
        TypeKind::Row(schema) => nested(&mut out, 6, |out| message(out, 1, &encode_schema(schema))),
        TypeKind::Logical(logical) => nested(&mut out, 7, |out| {
            message(out, 1, logical.urn.as_bytes());
            if !logical.payload.is_empty() {
                message(out, 2, &logical.payload);
            }
            message(out, 3, &self::field_type(&logical.representation));
            if let Some((argument_type, argument)) = &logical.argument {
                message(out, 4, &self::field_type(argument_type));
                message(out, 5, argument);
            }
        }),
    }
    out
}

fn nested(out: &mut Vec<u8>, field: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    message(out, field, &inner);
}

/// The schema that an encoded message tells.
///
/// # Errors
/// When the bytes are no such message, or name a type that Beam has not defined.
pub fn decode_schema(payload: impl Into<Bytes>) -> Result<Schema> {
    take_schema(payload.into(), MAX_DEPTH)
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0120", message)
}

fn deeper(depth: usize) -> Result<usize> {
    depth
        .checked_sub(1)
        .ok_or_else(|| bad(format!("a schema has types within types beyond depth {MAX_DEPTH}")))
}

fn take_schema(payload: Bytes, depth: usize) -> Result<Schema> {
    let depth = deeper(depth)?;
    let mut schema = Schema::default();
    let mut positions = Vec::new();
    let mut positions_set = false;
    let mut fields = Fields::of(payload);
    while let Some((number, content)) = fields.next_field()? {
        match number {
            1 => {
                let (field, position) = take_field(content.bytes()?, depth)?;
                schema.fields.push(field);
                positions.push(position);
            }
            2 => schema.id = content.text()?,
            4 => positions_set = content.varint()? != 0,
            _ => {}
        }
    }
    if positions_set {
        let mut seen = vec![false; positions.len()];
        for position in &positions {
            match seen.get_mut(*position) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    return Err(bad(format!(
                        "the encoding positions {positions:?} of a schema are no order"
                    )));
                }
            }
        }
        schema.encoding_positions = Some(positions);
    }
    Ok(schema)
}

fn take_field(payload: Bytes, depth: usize) -> Result<(Field, usize)> {
    let (mut name, mut field_type, mut position) = (String::new(), None, 0);
    let mut fields = Fields::of(payload);
    while let Some((number, content)) = fields.next_field()? {
        match number {
            1 => name = content.text()?,
            3 => field_type = Some(take_field_type(content.bytes()?, depth)?),
            5 => position = bounded::<u32>(content.varint()?)? as usize,
            _ => {}
        }
    }
    let field_type = field_type.ok_or_else(|| bad(format!("field `{name}` of a schema has no type")))?;
    Ok((Field { name: name.into(), field_type }, position))
}

fn take_field_type(payload: Bytes, depth: usize) -> Result<FieldType> {
    let depth = deeper(depth)?;
    let (mut nullable, mut kind) = (false, None);
    let mut fields = Fields::of(payload);
    while let Some((number, content)) = fields.next_field()? {
        match number {
            1 => nullable = content.varint()? != 0,
            2 => kind = Some(atomic(content.varint()?)?),
            3 => kind = Some(TypeKind::Array(element(&content, 1, depth)?)),
            4 => kind = Some(TypeKind::Iterable(element(&content, 1, depth)?)),
            5 => kind = Some(TypeKind::Map(element(&content, 1, depth)?, element(&content, 2, depth)?)),
            6 => {
                let schema = part(&content, 1)?.ok_or_else(|| bad("a row type of a schema has no schema"))?;
                kind = Some(TypeKind::Row(Arc::new(take_schema(schema.bytes()?, depth)?)));
            }
            7 => kind = Some(TypeKind::Logical(Arc::new(take_logical(content.bytes()?, depth)?))),
            _ => {}
        }
    }
    let kind = kind.ok_or_else(|| bad("a field type of a schema names no type"))?;
    Ok(FieldType { kind, nullable })
}

fn atomic(number: i64) -> Result<TypeKind> {
    Ok(match number {
        1 => TypeKind::Byte,
        2 => TypeKind::Int16,
        3 => TypeKind::Int32,
        4 => TypeKind::Int64,
        5 => TypeKind::Float,
        6 => TypeKind::Double,
        7 => TypeKind::String,
        8 => TypeKind::Boolean,
        9 => TypeKind::Bytes,
        other => return Err(bad(format!("a schema names atomic type {other}, wanted 1 to 9"))),
    })
}

/// The last field `number` of the message in `content`.
fn part(content: &Content, number: u32) -> Result<Option<Content>> {
    let mut found = None;
    let mut fields = Fields::of(content.bytes()?);
    while let Some((at, content)) = fields.next_field()? {
        if at == number {
            found = Some(content);
        }
    }
    Ok(found)
}

fn element(content: &Content, number: u32, depth: usize) -> Result<Box<FieldType>> {
    let inner =
        part(content, number)?.ok_or_else(|| bad("a list or map type of a schema lacks an inner type"))?;
    take_field_type(inner.bytes()?, depth).map(Box::new)
}

fn take_logical(payload: Bytes, depth: usize) -> Result<LogicalType> {
    let (mut urn, mut own, mut representation) = (String::new(), Vec::new(), None);
    let (mut argument_type, mut argument) = (None, Vec::new());
    let mut fields = Fields::of(payload);
    while let Some((number, content)) = fields.next_field()? {
        match number {
            1 => urn = content.text()?,
            2 => own = content.bytes()?.to_vec(),
            3 => representation = Some(take_field_type(content.bytes()?, depth)?),
            4 => argument_type = Some(take_field_type(content.bytes()?, depth)?),
            5 => argument = content.bytes()?.to_vec(),
            _ => {}
        }
    }
    let representation = representation
        .ok_or_else(|| bad(format!("logical type `{urn}` of a schema has no representation")))?;
    Ok(LogicalType { urn, payload: own, representation, argument: argument_type.map(|t| (t, argument)) })
}
