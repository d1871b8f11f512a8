//! What can be a field of a row, and how each Rust type is told in Beam's schemas.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::atoms::{bounded, put_bytes, take_arc_str, take_bool, take_bytes, take_string};
use super::list::{decode_list, encode_count};
use super::nullable::take_presence;
use super::row::{bad, decode_pairs, put_int32, take_header, take_int32};
use super::{Nesting, Reader, write_varint};
use crate::error::{Error, Result};
use crate::row::{FieldType, LogicalType, Row, Schema, TypeKind, Value};
use crate::time::Timestamp;

/// A value that can be a field of a row.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a row",
    note = "fields are integers (not u8), floats, bool, String, Arc<str>, Bytes, Timestamp, Option, Vec, HashMap and BTreeMap of \
            these, and structs with `#[derive(Clone, Element)]`; bytes are `Bytes`, not `Vec<u8>`"
)]
pub trait RowField: Clone + Send + Sync + 'static {
    /// Whether a value may be absent.
    const NULLABLE: bool = false;

    /// The type in the schema.
    fn field_type() -> FieldType;

    /// Whether equal values always have equal encodings.
    fn is_deterministic() -> bool {
        true
    }

    /// Whether this value is absent.
    fn is_absent(&self) -> bool {
        false
    }

    /// The absent value, if the type has one.
    fn absent() -> Option<Self> {
        None
    }

    /// Appends the encoding of a value that is there; nothing for one that is not.
    ///
    /// # Errors
    /// When a list is too long for its encoding.
    fn encode_field(&self, out: &mut Vec<u8>) -> Result<()>;

    /// Reads a value that is there.
    ///
    /// # Errors
    /// When the bytes are no such value.
    fn decode_field(input: &mut Reader) -> Result<Self>;

    /// Appends the encoding inside a list or map, where the value itself tells whether it is there.
    ///
    /// # Errors
    /// As [`encode_field`](RowField::encode_field).
    fn encode_item(&self, out: &mut Vec<u8>) -> Result<()> {
        self.encode_field(out)
    }

    /// Reads what [`encode_item`](RowField::encode_item) wrote.
    ///
    /// # Errors
    /// As [`decode_field`](RowField::decode_field).
    fn decode_item(input: &mut Reader) -> Result<Self> {
        Self::decode_field(input)
    }

    /// As a row holds it.
    fn to_value(&self) -> Value;

    /// From what a row holds.
    ///
    /// # Errors
    /// When it is of another type.
    fn from_value(value: &Value) -> Result<Self>;
}

/// The error of a row's value that is not a `T`.
pub(crate) fn other_type<T: RowField>(value: &Value) -> Error {
    bad(format!("a value {value:?}, wanted {}", T::field_type()))
}

macro_rules! fields {
    ($($type:ty, $kind:ident, $deterministic:expr, |$value:ident, $out:ident| $encode:expr, |$input:ident| $decode:expr,
        $to:expr, $pattern:pat => $from:expr;)*) => {$(
        impl RowField for $type {
            fn field_type() -> FieldType {
                FieldType::required(TypeKind::$kind)
            }

            fn is_deterministic() -> bool {
                $deterministic
            }

            #[inline]
            fn encode_field(&self, $out: &mut Vec<u8>) -> Result<()> {
                let $value = self;
                $encode;
                Ok(())
            }

            #[inline]
            fn decode_field($input: &mut Reader) -> Result<Self> {
                $decode
            }

            fn to_value(&self) -> Value {
                let $value = self;
                $to
            }

            fn from_value(value: &Value) -> Result<Self> {
                match value {
                    $pattern => $from,
                    other => Err(other_type::<Self>(other)),
                }
            }
        }
    )*};
}

fields! {
    bool, Boolean, true, |v, out| out.push(u8::from(*v)), |input| take_bool(input),
        Value::Bool(*v), Value::Bool(v) => Ok(*v);
    i8, Byte, true, |v, out| out.push(*v as u8), |input| input.u8().map(|byte| byte as i8),
        Value::Byte(*v), Value::Byte(v) => Ok(*v);
    i16, Int16, true, |v, out| out.extend_from_slice(&v.to_be_bytes()), |input| input.array().map(i16::from_be_bytes),
        Value::Int16(*v), Value::Int16(v) => Ok(*v);
    i32, Int32, true, |v, out| put_int32(*v, out), |input| take_int32(input),
        Value::Int32(*v), Value::Int32(v) => Ok(*v);
    i64, Int64, true, |v, out| write_varint(*v, out), |input| input.varint(),
        Value::Int64(*v), Value::Int64(v) => Ok(*v);
    // Beam has no unsigned types: each takes the next wider one, and u64 the same bits.
    u16, Int32, true, |v, out| put_int32(i32::from(*v), out), |input| bounded(i64::from(take_int32(input)?)),
        Value::Int32(i32::from(*v)), Value::Int32(v) => bounded(i64::from(*v));
    u32, Int64, true, |v, out| write_varint(i64::from(*v), out), |input| bounded(input.varint()?),
        Value::Int64(i64::from(*v)), Value::Int64(v) => bounded(*v);
    u64, Int64, true, |v, out| write_varint(*v as i64, out), |input| input.varint().map(|v| v as u64),
        Value::Int64(*v as i64), Value::Int64(v) => Ok(*v as u64);
    usize, Int64, true, |v, out| write_varint(*v as i64, out), |input| bounded(input.varint()?),
        Value::Int64(*v as i64), Value::Int64(v) => bounded(*v);
    f32, Float, false, |v, out| out.extend_from_slice(&v.to_be_bytes()), |input| input.array().map(f32::from_be_bytes),
        Value::Float(*v), Value::Float(v) => Ok(*v);
    f64, Double, false, |v, out| out.extend_from_slice(&v.to_be_bytes()), |input| input.array().map(f64::from_be_bytes),
        Value::Double(*v), Value::Double(v) => Ok(*v);
    String, String, true, |v, out| put_bytes(v.as_bytes(), out, Nesting::Nested),
        |input| take_string(input, Nesting::Nested),
        Value::String(v.as_str().into()), Value::String(v) => Ok(v.to_string());
    Arc<str>, String, true, |v, out| put_bytes(v.as_bytes(), out, Nesting::Nested),
        |input| take_arc_str(input, Nesting::Nested),
        Value::String(v.clone()), Value::String(v) => Ok(v.clone());
    Bytes, Bytes, true, |v, out| put_bytes(v, out, Nesting::Nested), |input| take_bytes(input, Nesting::Nested),
        Value::Bytes(v.clone()), Value::Bytes(v) => Ok(v.clone());
}

impl<T: RowField> RowField for Option<T> {
    const NULLABLE: bool = {
        assert!(!T::NULLABLE, "a row cannot hold an Option of an Option: it knows one kind of absence");
        true
    };

    fn field_type() -> FieldType {
        FieldType { nullable: Self::NULLABLE, ..T::field_type() }
    }

    fn is_deterministic() -> bool {
        T::is_deterministic()
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    #[inline]
    fn encode_field(&self, out: &mut Vec<u8>) -> Result<()> {
        self.as_ref().map_or(Ok(()), |value| value.encode_field(out))
    }

    #[inline]
    fn decode_field(input: &mut Reader) -> Result<Self> {
        T::decode_field(input).map(Some)
    }

    fn encode_item(&self, out: &mut Vec<u8>) -> Result<()> {
        out.push(u8::from(self.is_some()));
        self.encode_field(out)
    }

    fn decode_item(input: &mut Reader) -> Result<Self> {
        take_presence(input)?.then(|| T::decode_field(input)).transpose()
    }

    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::to_value)
    }

    fn from_value(value: &Value) -> Result<Self> {
        match value {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

impl<T: RowField> RowField for Vec<T> {
    fn field_type() -> FieldType {
        FieldType::required(TypeKind::Array(Box::new(T::field_type())))
    }

    fn is_deterministic() -> bool {
        T::is_deterministic()
    }

    fn encode_field(&self, out: &mut Vec<u8>) -> Result<()> {
        encode_count(self.len(), out)?;
        self.iter().try_for_each(|one| one.encode_item(out))
    }

    fn decode_field(input: &mut Reader) -> Result<Self> {
        decode_list(input, T::decode_item)
    }

    fn to_value(&self) -> Value {
        Value::Array(self.iter().map(T::to_value).collect())
    }

    fn from_value(value: &Value) -> Result<Self> {
        match value {
            Value::Array(values) => values.iter().map(T::from_value).collect(),
            other => Err(other_type::<Self>(other)),
        }
    }
}

fn map_type<K: RowField, V: RowField>() -> FieldType {
    FieldType::required(TypeKind::Map(Box::new(K::field_type()), Box::new(V::field_type())))
}

fn encode_pairs<'a, K: RowField, V: RowField>(
    pairs: impl ExactSizeIterator<Item = (&'a K, &'a V)>,
    out: &mut Vec<u8>,
) -> Result<()> {
    encode_count(pairs.len(), out)?;
    for (key, value) in pairs {
        key.encode_item(out)?;
        value.encode_item(out)?;
    }
    Ok(())
}

macro_rules! maps {
    ($(($($bound:tt)*) $type:ty, $deterministic:expr;)*) => {$(
        impl<$($bound)*> RowField for $type {
            fn field_type() -> FieldType {
                map_type::<K, V>()
            }

            fn is_deterministic() -> bool {
                $deterministic
            }

            fn encode_field(&self, out: &mut Vec<u8>) -> Result<()> {
                encode_pairs(self.iter(), out)
            }

            fn decode_field(input: &mut Reader) -> Result<Self> {
                let pairs = decode_pairs(input, |input| Ok((K::decode_item(input)?, V::decode_item(input)?)))?;
                Ok(pairs.into_iter().collect())
            }

            fn to_value(&self) -> Value {
                Value::Map(self.iter().map(|(key, value)| (key.to_value(), value.to_value())).collect())
            }

            fn from_value(value: &Value) -> Result<Self> {
                match value {
                    Value::Map(pairs) => pairs
                        .iter()
                        .map(|(key, value)| Ok((K::from_value(key)?, V::from_value(value)?)))
                        .collect(),
                    other => Err(other_type::<Self>(other)),
                }
            }
        }
    )*};
}

maps! {
    (K: RowField + Eq + Hash, V: RowField, S: BuildHasher + Default + Clone + Send + Sync + 'static)
        HashMap<K, V, S>, false;
    (K: RowField + Ord, V: RowField) BTreeMap<K, V>, K::is_deterministic() && V::is_deterministic();
}

/// The representation of [`Timestamp`], which is Beam's `micros_instant`.
static INSTANT: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let number = || FieldType::required(TypeKind::Int64);
    Arc::new(Schema::of([("seconds", number()), ("micros", number())]))
});

impl RowField for Timestamp {
    fn field_type() -> FieldType {
        FieldType::required(TypeKind::Logical(Arc::new(LogicalType {
            urn: "beam:logical_type:micros_instant:v1".to_owned(),
            payload: Vec::new(),
            representation: FieldType::required(TypeKind::Row(INSTANT.clone())),
            argument: None,
        })))
    }

    fn encode_field(&self, out: &mut Vec<u8>) -> Result<()> {
        // A row of two fields, neither absent.
        out.extend_from_slice(&[2, 0]);
        write_varint(self.micros().div_euclid(1_000_000), out);
        write_varint(self.micros().rem_euclid(1_000_000), out);
        Ok(())
    }

    fn decode_field(input: &mut Reader) -> Result<Self> {
        let (written, _) = take_header(2, input)?;
        if written != 2 {
            return Err(bad(format!("an instant of {written} fields, wanted 2")));
        }
        instant(input.varint()?, input.varint()?)
    }

    fn to_value(&self) -> Value {
        let parts = [self.micros().div_euclid(1_000_000), self.micros().rem_euclid(1_000_000)];
        Value::Row(Row::new(INSTANT.clone(), parts.map(Value::Int64)))
    }

    fn from_value(value: &Value) -> Result<Self> {
        if let Value::Row(row) = value
            && let [Value::Int64(seconds), Value::Int64(micros)] = *row.values
        {
            return instant(seconds, micros);
        }
        Err(other_type::<Self>(value))
    }
}

fn instant(seconds: i64, micros: i64) -> Result<Timestamp> {
    let whole = seconds.checked_mul(1_000_000).and_then(|whole| whole.checked_add(micros));
    whole
        .map(Timestamp::from_micros)
        .ok_or_else(|| bad(format!("an instant of {seconds} seconds is beyond all time")))
}
