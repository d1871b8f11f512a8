//! Structs as rows: what `#[derive(Element)]` builds on.
//!
//! A derived struct is encoded field by field, straight from its memory; [`Row`]s of it are made only where code asks for
//! them (Beam YAML, say). Both ways give the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;

use super::atoms::{bounded, put_bytes, take_arc_str, take_bool, take_bytes, utf8, utf8_str};
use super::list::{decode_list, encode_count};
use super::nullable::take_presence;
use super::row::{Absent, at_field, bad, decode_pairs, put_header, put_int32, take_header, take_int32};
use super::schema_proto::{decode_schema, encode_schema};
use super::{
    Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, length_prefixed, mismatch, row_coder, urn,
    write_varint,
};
use crate::element::Element;
use crate::error::{Error, ErrorKind, Result};
use crate::row::{FieldType, Row, Schema, TypeKind, Value};

/// An element that is a row: a struct with `#[derive(Element)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no row",
    note = "a struct with named fields becomes one by `#[derive(Clone, Element)]`"
)]
pub trait RowElement: Element {
    /// Names and types of the fields.
    fn schema() -> Arc<Schema>;

    /// The same values as a row.
    fn to_row(&self) -> Row;

    /// From the fields of a row, found by their names; fields that this type does not have are left out.
    ///
    /// # Errors
    /// When a field is missing or of another type.
    fn from_row(row: &Row) -> Result<Self>;

    /// Appends the row's encoding, the same as that of [`to_row`](RowElement::to_row).
    ///
    /// # Errors
    /// When a list is too long for its encoding.
    fn encode_row(&self, out: &mut Vec<u8>) -> Result<()>;

    /// Reads the row's encoding.
    ///
    /// # Errors
    /// When the bytes are no such row.
    fn decode_row(input: &mut Reader) -> Result<Self>;

    /// Whether equal values always have equal encodings.
    fn has_deterministic_fields() -> bool;
}

/// A value that can be a field of a row.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a row",
    note = "fields are integers (not u8), floats, bool, String, Arc<str>, Bytes, Option, Vec, HashMap and BTreeMap of \
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

fn other_type<T: RowField>(value: &Value) -> Error {
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
        |input| utf8(take_bytes(input, Nesting::Nested)?),
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

impl<T: RowElement> RowField for T {
    fn field_type() -> FieldType {
        FieldType::required(TypeKind::Row(T::schema()))
    }

    fn is_deterministic() -> bool {
        T::has_deterministic_fields()
    }

    fn encode_field(&self, out: &mut Vec<u8>) -> Result<()> {
        self.encode_row(out)
    }

    fn decode_field(input: &mut Reader) -> Result<Self> {
        T::decode_row(input)
    }

    fn to_value(&self) -> Value {
        Value::Row(self.to_row())
    }

    fn from_value(value: &Value) -> Result<Self> {
        match value {
            Value::Row(row) => T::from_row(row),
            other => Err(other_type::<Self>(other)),
        }
    }
}

/// The coder of rows of `T`.
pub fn row_element_coder<T: RowElement>() -> Coder<T> {
    Coder::new(RowElementCodec::<T> { payload: encode_schema(&T::schema()), of: PhantomData })
}

/// The coder of rows of `T` that a runner's tree asks for. Its schema may have the same fields in another order.
///
/// # Errors
/// When the tree is no row, or one with other fields.
pub fn row_element_coder_of<T: RowElement>(spec: &CoderSpec) -> Result<Coder<T>> {
    match spec.urn.as_str() {
        LENGTH_PREFIX => Ok(length_prefixed(row_element_coder_of(spec.only_component()?)?)),
        urn::ROW => {
            let (own, schema) = (T::schema(), decode_schema(spec.payload.clone())?);
            if own.fields == schema.fields && schema.encoding_positions.is_none() {
                return Ok(Coder::new(RowElementCodec::<T> {
                    payload: spec.payload.clone(),
                    of: PhantomData,
                }));
            }
            let order: Option<Vec<usize>> = schema
                .fields
                .iter()
                .map(|field| own.index_of(&field.name).filter(|at| own.fields[*at] == *field))
                .collect();
            match order {
                Some(order) if order.len() == own.fields.len() => {
                    let schema = Arc::new(schema);
                    let rows = row_coder(schema.clone());
                    let of = PhantomData;
                    Ok(Coder::new(ReorderedCodec::<T> { rows, schema, order, spec: spec.clone(), of }))
                }
                _ => Err(bad(format!("rows of ({schema}), the program's type has ({own})"))),
            }
        }
        _ => Err(mismatch(std::any::type_name::<T>(), spec)),
    }
}

struct RowElementCodec<T> {
    payload: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T: RowElement> Codec<T> for RowElementCodec<T> {
    #[inline]
    fn encode(&self, value: &T, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        value.encode_row(out)
    }

    #[inline]
    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<T> {
        T::decode_row(input)
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec { payload: self.payload.clone(), ..CoderSpec::leaf(urn::ROW) }
    }

    fn is_deterministic(&self) -> bool {
        T::has_deterministic_fields()
    }
}

/// For a schema that another language wrote with the fields in an order of its own.
struct ReorderedCodec<T> {
    rows: Coder<Row>,
    schema: Arc<Schema>,
    /// Where each field of the schema stands in the type.
    order: Vec<usize>,
    spec: CoderSpec,
    of: PhantomData<fn() -> T>,
}

impl<T: RowElement> Codec<T> for ReorderedCodec<T> {
    fn encode(&self, value: &T, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        let values = value.to_row().values;
        let values: Arc<[Value]> = self.order.iter().map(|at| values[*at].clone()).collect();
        self.rows.encode(&Row::new(self.schema.clone(), values), out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<T> {
        T::from_row(&self.rows.decode(input, nesting)?)
    }

    fn spec(&self) -> CoderSpec {
        self.spec.clone()
    }

    fn is_deterministic(&self) -> bool {
        T::has_deterministic_fields()
    }
}

/// An element that is one of a few names: an enum without fields, with `#[derive(Element)]`. It travels as text.
pub trait NamedElement: Element {
    /// The name of this value.
    fn name(&self) -> &'static str;

    /// The value of a name.
    ///
    /// # Errors
    /// When no value has it.
    fn from_name(name: &str) -> Result<Self>;
}

/// `string_utf8` for values that have names.
pub fn named_coder<T: NamedElement>() -> Coder<T> {
    Coder::new(NamedCodec(PhantomData))
}

struct NamedCodec<T>(PhantomData<fn() -> T>);

impl<T: NamedElement> Codec<T> for NamedCodec<T> {
    fn encode(&self, value: &T, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        put_bytes(value.name().as_bytes(), out, nesting);
        Ok(())
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<T> {
        T::from_name(utf8_str(&take_bytes(input, nesting)?)?)
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::leaf(urn::STRING_UTF8)
    }
}

/// `inner` for values of a type that only wraps its values.
pub fn wrapped_coder<T: 'static, U: 'static>(
    inner: Coder<U>,
    borrow: fn(&T) -> &U,
    wrap: fn(U) -> T,
) -> Coder<T> {
    Coder::new(WrappedCodec { inner, borrow, wrap })
}

struct WrappedCodec<T, U> {
    inner: Coder<U>,
    borrow: fn(&T) -> &U,
    wrap: fn(U) -> T,
}

impl<T: 'static, U: 'static> Codec<T> for WrappedCodec<T, U> {
    fn encode(&self, value: &T, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        self.inner.encode((self.borrow)(value), out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<T> {
        self.inner.decode(input, nesting).map(self.wrap)
    }

    fn spec(&self) -> CoderSpec {
        self.inner.spec()
    }

    fn is_deterministic(&self) -> bool {
        self.inner.is_deterministic()
    }
}

/// What the code that `#[derive(Element)]` writes calls; not for others.
#[doc(hidden)]
pub mod derived {
    use super::*;

    pub use std::sync::LazyLock;

    pub fn put_absences<const N: usize>(absent: [bool; N], out: &mut Vec<u8>) {
        put_header(N, |index| absent[index], out);
    }

    pub struct Header(usize, Absent);

    pub fn header(count: usize, input: &mut Reader) -> Result<Header> {
        take_header(count, input).map(|(written, absent)| Header(written, absent))
    }

    #[inline]
    pub fn encode<F: RowField>(value: &F, name: &str, out: &mut Vec<u8>) -> Result<()> {
        value.encode_field(out).map_err(|error| at_field(error, name))
    }

    #[inline]
    pub fn decode<F: RowField>(index: usize, name: &str, header: &Header, input: &mut Reader) -> Result<F> {
        if index < header.0 && !header.1.has(index) {
            return F::decode_field(input).map_err(|error| at_field(error, name));
        }
        F::absent().ok_or_else(|| bad(format!("field `{name}` has no value and is not nullable")))
    }

    pub fn get<F: RowField>(row: &Row, name: &str) -> Result<F> {
        let value =
            row.get(name).ok_or_else(|| bad(format!("a row of ({}) has no field `{name}`", row.schema)))?;
        F::from_value(value).map_err(|error| at_field(error, name))
    }

    pub fn encode_name<T: NamedElement>(value: &T, out: &mut Vec<u8>) {
        put_bytes(value.name().as_bytes(), out, Nesting::Nested);
    }

    pub fn decode_name<T: NamedElement>(input: &mut Reader) -> Result<T> {
        T::from_name(utf8_str(&take_bytes(input, Nesting::Nested)?)?)
    }

    pub fn name_of(value: &Value) -> Result<&str> {
        match value {
            Value::String(name) => Ok(name),
            other => Err(bad(format!("a value {other:?}, wanted STRING"))),
        }
    }

    pub fn no_variant(text: &str, type_name: &str, variants: &[&str]) -> Error {
        let text: String = text.chars().take(60).collect();
        let variants = variants.join("`, `");
        Error::new(
            ErrorKind::InvalidData,
            "TB0122",
            format!("`{text}` is no value of {type_name}, wanted one of `{variants}`"),
        )
    }
}
