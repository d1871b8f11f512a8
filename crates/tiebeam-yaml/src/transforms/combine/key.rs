//! Fields of rows as keys: equal values must have equal encodings, which floating-point numbers do not have.

use std::sync::Arc;

use tiebeam_core::row::{Field, FieldType, Row, Schema, TypeKind, Value};

/// Which fields are the key, and how it is written.
#[derive(Debug, Clone)]
pub struct Keys {
    indexes: Arc<[usize]>,
    /// The types of the fields themselves.
    types: Arc<[FieldType]>,
    schema: Arc<Schema>,
}

impl Keys {
    /// The fields of `schema` at those places.
    pub fn new(schema: &Schema, indexes: &[usize]) -> Self {
        let fields: Vec<&Field> = indexes.iter().filter_map(|index| schema.fields.get(*index)).collect();
        let types: Vec<FieldType> = fields.iter().map(|field| field.field_type.clone()).collect();
        Keys::typed(indexes, fields.iter().map(|field| field.name.clone()).zip(types))
    }

    /// Those places, brought to these types.
    pub fn typed(indexes: &[usize], fields: impl Iterator<Item = (Arc<str>, FieldType)>) -> Self {
        let (names, types): (Vec<Arc<str>>, Vec<FieldType>) = fields.unzip();
        let written = names.into_iter().zip(types.iter().map(written_type));
        Keys { indexes: indexes.into(), types: types.clone().into(), schema: Arc::new(Schema::of(written)) }
    }

    /// The schema of keys.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The key of a row.
    pub fn of(&self, row: &Row) -> Row {
        let fields = self.indexes.iter().zip(self.types.iter());
        let values: Arc<[Value]> = fields
            .map(|(index, field)| written(row.values.get(*index).cloned().unwrap_or(Value::Null), field))
            .collect();
        Row { schema: self.schema.clone(), values }
    }

    /// The values that a key was made of.
    pub fn back<'a>(&'a self, key: &'a Row) -> impl Iterator<Item = Value> + 'a {
        key.values.iter().zip(self.types.iter()).map(|(value, field)| read(value, field))
    }
}

fn written_type(field: &FieldType) -> FieldType {
    let kind = match &field.kind {
        TypeKind::Double | TypeKind::Float => TypeKind::Int64,
        kind => kind.clone(),
    };
    FieldType { kind, nullable: field.nullable }
}

/// A number that is not whole travels as its bits; both zeros are one, and so are all that are no numbers.
fn written(value: Value, field: &FieldType) -> Value {
    let float = match (&value, &field.kind) {
        (Value::Double(float), _) => *float,
        (Value::Float(float), _) => f64::from(*float),
        (Value::Byte(int), TypeKind::Double) => f64::from(*int),
        (Value::Int16(int), TypeKind::Double) => f64::from(*int),
        (Value::Int32(int), TypeKind::Double) => f64::from(*int),
        (Value::Int64(int), TypeKind::Double) => *int as f64,
        (Value::Byte(int), TypeKind::Int64) => return Value::Int64(i64::from(*int)),
        (Value::Int16(int), TypeKind::Int64) => return Value::Int64(i64::from(*int)),
        (Value::Int32(int), TypeKind::Int64) => return Value::Int64(i64::from(*int)),
        _ => return value,
    };
    let float = if float.is_nan() { f64::NAN } else { float + 0.0 };
    Value::Int64(i64::from_le_bytes(float.to_bits().to_le_bytes()))
}

fn read(value: &Value, field: &FieldType) -> Value {
    let float = |bits: &i64| f64::from_bits(u64::from_le_bytes(bits.to_le_bytes()));
    match (value, &field.kind) {
        (Value::Int64(bits), TypeKind::Double) => Value::Double(float(bits)),
        (Value::Int64(bits), TypeKind::Float) => Value::Float(float(bits) as f32),
        (value, _) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_have_equal_keys_and_come_back() {
        let schema = Schema::of([
            ("x", FieldType::nullable(TypeKind::Double)),
            ("n", FieldType::required(TypeKind::Int64)),
        ]);
        let keys = Keys::new(&schema, &[0, 1]);
        let row = |x: Value| Row::new(Arc::new(schema.clone()), vec![x, Value::Int64(1)]);
        let key = |x: f64| keys.of(&row(Value::Double(x)));
        assert_eq!(key(0.0), key(-0.0));
        assert_eq!(key(f64::NAN), key(-f64::NAN));
        assert_ne!(key(1.0), key(2.0));
        assert_eq!(keys.back(&key(1.5)).collect::<Vec<_>>(), [Value::Double(1.5), Value::Int64(1)]);
        assert_eq!(keys.back(&keys.of(&row(Value::Null))).next(), Some(Value::Null));
    }
}
