//! Values between rows and Python.

use std::sync::Arc;

use monty_types::MontyObject;
use tiebeam_core::row::{Row, Value};

use crate::Exception;

/// A row as what Python knows as a named tuple: `row.name`, `row[0]`, `row._asdict()`.
pub fn row_to_python(row: &Row) -> MontyObject {
    MontyObject::NamedTuple {
        type_name: "Row".to_owned(),
        field_names: row.schema.fields.iter().map(|field| field.name.to_string()).collect(),
        values: row.values.iter().map(to_python).collect(),
    }
}

/// A value as Python has it.
pub fn to_python(value: &Value) -> MontyObject {
    match value {
        Value::Null => MontyObject::None,
        Value::Bool(value) => MontyObject::Bool(*value),
        Value::Byte(value) => MontyObject::Int(i64::from(*value)),
        Value::Int16(value) => MontyObject::Int(i64::from(*value)),
        Value::Int32(value) => MontyObject::Int(i64::from(*value)),
        Value::Int64(value) => MontyObject::Int(*value),
        Value::Float(value) => MontyObject::Float(f64::from(*value)),
        Value::Double(value) => MontyObject::Float(*value),
        Value::String(text) => MontyObject::String(text.to_string()),
        Value::Bytes(bytes) => MontyObject::Bytes(bytes.to_vec()),
        Value::Array(items) => MontyObject::List(items.iter().map(to_python).collect()),
        Value::Map(entries) => {
            MontyObject::Dict(entries.iter().map(|(key, value)| (to_python(key), to_python(value))).collect())
        }
        Value::Row(row) => row_to_python(row),
    }
}

/// A value of Python's as a row can hold it.
///
/// # Errors
/// When no row can.
pub fn from_python(object: MontyObject) -> Result<Value, Exception> {
    let wrong = |kind: &str, message: String| Exception { kind: kind.to_owned(), message, place: None };
    let all = |items: Vec<MontyObject>| -> Result<Arc<[Value]>, Exception> {
        items.into_iter().map(from_python).collect()
    };
    Ok(match object {
        MontyObject::None => Value::Null,
        MontyObject::Bool(value) => Value::Bool(value),
        MontyObject::Int(value) => Value::Int64(value),
        MontyObject::Float(value) => Value::Double(value),
        MontyObject::String(text) => Value::String(text.into()),
        MontyObject::Bytes(bytes) => Value::Bytes(bytes.into()),
        MontyObject::List(items)
        | MontyObject::Tuple(items)
        | MontyObject::Set(items)
        | MontyObject::FrozenSet(items) => Value::Array(all(items)?),
        MontyObject::NamedTuple { field_names, values, .. } => Value::Map(
            field_names
                .into_iter()
                .zip(values)
                .map(|(name, value)| Ok((Value::String(name.into()), from_python(value)?)))
                .collect::<Result<_, Exception>>()?,
        ),
        MontyObject::Dict(pairs) => Value::Map(
            pairs
                .into_iter()
                .map(|(key, value)| Ok((from_python(key)?, from_python(value)?)))
                .collect::<Result<_, Exception>>()?,
        ),
        MontyObject::BigInt(value) => {
            return Err(wrong("OverflowError", format!("{value} does not fit in 64 bits")));
        }
        other => {
            return Err(wrong("TypeError", format!("a row cannot hold {}", other.type_name())));
        }
    })
}
