//! What files with schemas of their own have in common: their columns brought to those that are wanted.

use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, FieldType, Result, Row, Schema, SourcePlace, TypeKind, Value};

/// Where a wanted field comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The field of the file at that place.
    Field(usize),
    /// The file's field, a wider number than there.
    Widened(usize),
    /// Nowhere: it is null.
    Absent,
}

/// How a file's rows become those that are wanted.
#[derive(Debug)]
pub(crate) struct Projection {
    wanted: Arc<Schema>,
    /// None where the rows are what is wanted.
    origins: Option<Vec<Origin>>,
}

impl Projection {
    /// From rows of `seen`, as the file at `path` has them.
    pub(crate) fn new(seen: &Arc<Schema>, wanted: &Arc<Schema>, path: &str) -> Result<Self> {
        if seen.fields == wanted.fields {
            return Ok(Projection { wanted: wanted.clone(), origins: None });
        }
        let origins = origins(seen, wanted, path)?;
        Ok(Projection { wanted: wanted.clone(), origins: Some(origins) })
    }

    /// A row as it is wanted.
    pub(crate) fn row(&self, row: Row) -> std::result::Result<Row, String> {
        let Some(origins) = &self.origins else { return Ok(Row { schema: self.wanted.clone(), ..row }) };
        let values: Arc<[Value]> = origins
            .iter()
            .zip(&self.wanted.fields)
            .map(|(origin, field)| match origin {
                Origin::Absent => Value::Null,
                Origin::Field(index) => row.values.get(*index).cloned().unwrap_or(Value::Null),
                Origin::Widened(index) => {
                    widened(row.values.get(*index).cloned().unwrap_or(Value::Null), &field.field_type)
                }
            })
            .collect();
        for (value, field) in values.iter().zip(&self.wanted.fields) {
            if *value == Value::Null && !field.field_type.nullable {
                return Err(format!("field `{}` is null", field.name));
            }
        }
        Ok(Row { schema: self.wanted.clone(), values })
    }
}

/// Where each of the wanted fields comes from.
pub(crate) fn origins(seen: &Schema, wanted: &Schema, path: &str) -> Result<Vec<Origin>> {
    let refused = |message: String| {
        Error::new(ErrorKind::InvalidData, "TB0461", message)
            .at_place(SourcePlace { file: path.to_owned(), ..SourcePlace::default() })
            .with_help("files that are read together have the same columns")
    };
    let mut found = Vec::with_capacity(wanted.fields.len());
    for field in &wanted.fields {
        let Some(index) = seen.index_of(&field.name) else {
            if field.field_type.nullable {
                found.push(Origin::Absent);
                continue;
            }
            return Err(refused(format!("the file has no column `{}`", field.name)));
        };
        let own = &seen.fields[index].field_type;
        found.push(match widening(own, &field.field_type) {
            Some(false) => Origin::Field(index),
            Some(true) => Origin::Widened(index),
            None => {
                let message = format!("column `{}` is {own}, not {}", field.name, field.field_type);
                return Err(refused(message));
            }
        });
    }
    Ok(found)
}

/// Whether values must be widened; none where they cannot be what is wanted. A null is told when there is one.
fn widening(seen: &FieldType, wanted: &FieldType) -> Option<bool> {
    if seen.kind == wanted.kind {
        return Some(false);
    }
    let rank = |kind: &TypeKind| {
        Some(match kind {
            TypeKind::Byte => 0,
            TypeKind::Int16 => 1,
            TypeKind::Int32 => 2,
            TypeKind::Int64 => 3,
            TypeKind::Float => 4,
            TypeKind::Double => 5,
            _ => return None,
        })
    };
    let (a, b) = (rank(&seen.kind)?, rank(&wanted.kind)?);
    // A double holds every int, a float every short one.
    let fits = match (a, b) {
        (0..=3, 0..=3) | (4, 5) => a < b,
        (0 | 1, 4) | (0..=2, 5) => true,
        _ => false,
    };
    fits.then_some(true)
}

fn widened(value: Value, wanted: &FieldType) -> Value {
    let int = match &value {
        Value::Byte(value) => i64::from(*value),
        Value::Int16(value) => i64::from(*value),
        Value::Int32(value) => i64::from(*value),
        Value::Float(value) => return Value::Double(f64::from(*value)),
        _ => return value,
    };
    match wanted.kind {
        TypeKind::Int16 => Value::Int16(int as i16),
        TypeKind::Int32 => Value::Int32(int as i32),
        TypeKind::Float => Value::Float(int as f32),
        TypeKind::Double => Value::Double(int as f64),
        _ => Value::Int64(int),
    }
}
