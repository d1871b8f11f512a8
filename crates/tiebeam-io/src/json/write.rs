//! Writes rows, each as an object on a line of its own.

use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result, Row, Schema, Value};

use crate::number::{write_f32, write_f64, write_int};
use crate::sink::RecordFormat;
use crate::sink::write::WriteFiles;

/// Writes rows as JSON lines into files `path-00000-of-00003`; gives their paths.
///
/// Whole numbers have no fraction, doubles always one (`100.0`); what JSON has no number for (NaN, infinities) is null, as
/// in pandas. Bytes are base64 text. Text is written as UTF-8, without escapes that need not be.
///
/// ```
/// use std::sync::Arc;
/// use tiebeam_core::{FieldType, Row, Schema, TypeKind, Value};
/// use tiebeam_graph::{Create, Pipeline};
/// use tiebeam_io::json;
///
/// let schema = Arc::new(Schema::of([("value", FieldType::required(TypeKind::Double))]));
/// let p = Pipeline::new();
/// p.apply(Create::of([Row::new(schema, [Value::Double(1.0)])])).apply(json::write("out/rows"));
/// ```
pub fn write(path: &str) -> WriteFiles<JsonFormat> {
    WriteFiles::new(path, JsonFormat, "WriteToJson")
}

/// Rows as JSON lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JsonFormat;

/// The names of a schema's fields as they stand in an object, made once a file and schema.
#[derive(Default)]
pub struct Keys {
    schema: Option<Arc<Schema>>,
    /// `{"first":`, `,"second":`, …
    keys: Vec<Vec<u8>>,
}

impl Keys {
    fn of(&mut self, schema: &Arc<Schema>) -> &[Vec<u8>] {
        if !self.schema.as_ref().is_some_and(|known| Arc::ptr_eq(known, schema)) {
            self.keys = schema
                .fields
                .iter()
                .enumerate()
                .map(|(i, field)| {
                    let mut key = vec![if i == 0 { b'{' } else { b',' }];
                    write_string(&field.name, &mut key);
                    key.push(b':');
                    key
                })
                .collect();
            self.schema = Some(schema.clone());
        }
        &self.keys
    }
}

impl RecordFormat<Row> for JsonFormat {
    type File = Keys;

    fn write(&self, file: &mut Keys, row: &Row, out: &mut Vec<u8>) -> Result<()> {
        if row.values.is_empty() {
            out.extend_from_slice(b"{}\n");
            return Ok(());
        }
        let keys = file.of(&row.schema);
        if keys.len() != row.values.len() {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "TB0444",
                format!("a row has {} values for {} fields", row.values.len(), keys.len()),
            ));
        }
        for (key, value) in keys.iter().zip(row.values.iter()) {
            out.extend_from_slice(key);
            write_value(value, out)?;
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// Appends a value as JSON.
pub(crate) fn write_value(value: &Value, out: &mut Vec<u8>) -> Result<()> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Byte(n) => write_int(i64::from(*n), out),
        Value::Int16(n) => write_int(i64::from(*n), out),
        Value::Int32(n) => write_int(i64::from(*n), out),
        Value::Int64(n) => write_int(*n, out),
        Value::Float(n) if n.is_finite() => write_f32(*n, out),
        Value::Double(n) if n.is_finite() => write_f64(*n, out),
        Value::Float(_) | Value::Double(_) => out.extend_from_slice(b"null"),
        Value::String(text) => write_string(text, out),
        Value::Bytes(bytes) => {
            out.push(b'"');
            write_base64(bytes, out);
            out.push(b'"');
        }
        Value::Array(values) => {
            out.push(b'[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_value(value, out)?;
            }
            out.push(b']');
        }
        Value::Map(entries) => {
            out.push(b'{');
            for (i, (key, value)) in entries.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_key(key, out)?;
                out.push(b':');
                write_value(value, out)?;
            }
            out.push(b'}');
        }
        Value::Row(row) => {
            out.push(b'{');
            for (i, (field, value)) in row.schema.fields.iter().zip(row.values.iter()).enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_string(&field.name, out);
                out.push(b':');
                write_value(value, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// Appends the key of a map: text, or the text of a number or truth value.
fn write_key(key: &Value, out: &mut Vec<u8>) -> Result<()> {
    match key {
        Value::String(text) => write_string(text, out),
        Value::Bool(_)
        | Value::Byte(_)
        | Value::Int16(_)
        | Value::Int32(_)
        | Value::Int64(_)
        | Value::Bytes(_) => {
            let mut text = Vec::new();
            write_value(key, &mut text)?;
            if text.first() == Some(&b'"') {
                out.extend_from_slice(&text);
            } else {
                out.push(b'"');
                out.extend_from_slice(&text);
                out.push(b'"');
            }
        }
        other => {
            let message = format!("{other:?} cannot be the key of a JSON object");
            return Err(Error::new(ErrorKind::InvalidData, "TB0444", message));
        }
    }
    Ok(())
}

/// Appends text in quotes.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (i, byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..i]);
        from = i + 1;
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            let hex = |nibble: u8| char::from_digit(u32::from(nibble), 16).map_or(b'0', |c| c as u8);
            out.extend_from_slice(&[b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends bytes as base64 with padding.
pub(crate) fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or_default());
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let letter = ALPHABET[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { letter } else { b'=' });
        }
    }
}

/// Bytes from base64 with or without padding; none when it is not that.
pub(crate) fn read_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    let unpadded = match text {
        [start @ .., b'=', b'='] | [start @ .., b'='] if text.len().is_multiple_of(4) => start,
        all => all,
    };
    if unpadded.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(unpadded.len() / 4 * 3 + 2);
    for chunk in unpadded.chunks(4) {
        let mut word = 0u32;
        for i in 0..4 {
            let value = match chunk.get(i) {
                Some(byte) => match byte {
                    b'A'..=b'Z' => byte - b'A',
                    b'a'..=b'z' => byte - b'a' + 26,
                    b'0'..=b'9' => byte - b'0' + 52,
                    b'+' => 62,
                    b'/' => 63,
                    _ => return None,
                },
                None => 0,
            };
            word = word << 6 | u32::from(value);
        }
        out.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
    }
    Some(out)
}
