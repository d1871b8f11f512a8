//! Fields to values.

use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::{FieldType, TypeKind, Value};

/// What pandas takes for a missing value.
pub(crate) fn is_missing(field: &[u8]) -> bool {
    matches!(
        field,
        b"" | b"#N/A"
            | b"#N/A N/A"
            | b"#NA"
            | b"-1.#IND"
            | b"-1.#QNAN"
            | b"-NaN"
            | b"-nan"
            | b"1.#IND"
            | b"1.#QNAN"
            | b"<NA>"
            | b"N/A"
            | b"NA"
            | b"NULL"
            | b"NaN"
            | b"None"
            | b"n/a"
            | b"nan"
            | b"null"
    )
}

/// A truth value, as pandas spells them.
pub(crate) fn to_bool(field: &[u8]) -> Option<bool> {
    match field {
        b"True" | b"TRUE" | b"true" => Some(true),
        b"False" | b"FALSE" | b"false" => Some(false),
        _ => None,
    }
}

/// A number of the type, with blanks around it allowed.
pub(crate) fn to_number<T: std::str::FromStr>(field: &[u8]) -> Option<T> {
    std::str::from_utf8(field.trim_ascii()).ok()?.parse().ok()
}

/// Whether a column of that type can be read from a file.
pub(crate) fn is_readable(kind: &TypeKind) -> bool {
    use TypeKind as K;
    matches!(
        kind,
        K::Byte | K::Int16 | K::Int32 | K::Int64 | K::Float | K::Double | K::Boolean | K::String | K::Bytes
    )
}

/// The value of a field; none when it is not of the type.
pub(crate) fn to_value(field: &[u8], field_type: &FieldType) -> Option<Value> {
    if field_type.nullable && is_missing(field) {
        return Some(Value::Null);
    }
    match field_type.kind {
        TypeKind::Byte => to_number(field).map(Value::Byte),
        TypeKind::Int16 => to_number(field).map(Value::Int16),
        TypeKind::Int32 => to_number(field).map(Value::Int32),
        TypeKind::Int64 => to_number(field).map(Value::Int64),
        TypeKind::Float => to_number(field).map(Value::Float),
        TypeKind::Double => to_number(field).map(Value::Double),
        TypeKind::Boolean => to_bool(field).map(Value::Bool),
        TypeKind::String => std::str::from_utf8(field).ok().map(|text| Value::String(Arc::from(text))),
        TypeKind::Bytes => Some(Value::Bytes(Bytes::copy_from_slice(field))),
        _ => None,
    }
}

/// The name of a type in messages.
pub(crate) fn type_name(kind: &TypeKind) -> &'static str {
    match kind {
        TypeKind::Byte => "int8",
        TypeKind::Int16 => "int16",
        TypeKind::Int32 => "int32",
        TypeKind::Int64 => "int64",
        TypeKind::Float => "float",
        TypeKind::Double => "double",
        TypeKind::String => "string",
        TypeKind::Boolean => "boolean",
        TypeKind::Bytes => "bytes",
        TypeKind::Array(_) | TypeKind::Iterable(_) => "array",
        TypeKind::Map(..) => "map",
        TypeKind::Row(_) => "row",
        TypeKind::Logical(_) => "logical type",
    }
}
