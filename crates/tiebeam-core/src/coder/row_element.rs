//! Structs as rows: what `#[derive(Element)]` builds on.
//!
//! A derived struct is encoded field by field, straight from its memory; [`Row`]s of it are made only where code asks for
//! them (Beam YAML, say). Both ways give the same bytes.

use std::marker::PhantomData;
use std::sync::Arc;

use super::atoms::{look_bytes, put_bytes, utf8_str};
use super::row::{Absent, at_field, bad, put_header, take_header};
use super::row_field::{RowField, other_type};
use super::schema_proto::{decode_schema, encode_schema};
use super::{
    Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, length_prefixed, mismatch, row_coder, urn,
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
        look_bytes(input, nesting, |name| T::from_name(utf8_str(name)?))
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
        look_bytes(input, Nesting::Nested, |name| T::from_name(utf8_str(name)?))
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
