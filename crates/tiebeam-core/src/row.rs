//! Rows: elements whose fields are known by a schema.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

/// A value of a row's field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value; only in nullable fields.
    Null,
    /// BOOLEAN.
    Bool(bool),
    /// BYTE: eight bits, signed.
    Byte(i8),
    /// INT16.
    Int16(i16),
    /// INT32.
    Int32(i32),
    /// INT64.
    Int64(i64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// STRING.
    String(Arc<str>),
    /// BYTES.
    Bytes(Bytes),
    /// An array or iterable.
    Array(Arc<[Value]>),
    /// A map; keys in the order in which they came.
    Map(Arc<[(Value, Value)]>),
    /// A row within a row.
    Row(Row),
}

/// The type of a field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldType {
    /// What it is when it is there.
    pub kind: TypeKind,
    /// Whether it may be absent.
    pub nullable: bool,
}

/// The kinds of Beam's schema types.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TypeKind {
    /// Eight bits, signed.
    Byte,
    /// Sixteen bits.
    Int16,
    /// Thirty-two bits.
    Int32,
    /// Sixty-four bits.
    Int64,
    /// Single precision.
    Float,
    /// Double precision.
    Double,
    /// UTF-8 text.
    String,
    /// True or false.
    Boolean,
    /// Bytes.
    Bytes,
    /// An array of one element type.
    Array(Box<FieldType>),
    /// Like an array, possibly larger.
    Iterable(Box<FieldType>),
    /// From keys to values.
    Map(Box<FieldType>, Box<FieldType>),
    /// A row within a row.
    Row(Arc<Schema>),
    /// A type that is told by a URN and travels as another; its values here are those of the representation.
    Logical(Arc<LogicalType>),
}

/// A logical type of Beam's schemas.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogicalType {
    /// Its name, such as `beam:logical_type:micros_instant:v1`.
    pub urn: String,
    /// What the URN defines as payload.
    pub payload: Vec<u8>,
    /// The type that travels.
    ///
    /// Values are those of this type but for two types that Beam encodes in ways of their own:
    /// `beam:logical_type:millis_instant:v1` is an INT64 of milliseconds since 1970, and
    /// `beam:logical_type:decimal:v1` is a STRING such as `-12.50`.
    pub representation: FieldType,
    /// The argument's type and encoding, where the URN has one.
    pub argument: Option<(FieldType, Vec<u8>)>,
}

/// A named field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Field {
    /// Its name.
    pub name: Arc<str>,
    /// Its type.
    pub field_type: FieldType,
}

/// The fields of a row, in order. Schemas are equal when their rows are: the id does not count, which encoding adds where
/// there is none.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// The fields.
    pub fields: Vec<Field>,
    /// Beam's UUID of the schema, where it came with one.
    pub id: String,
    /// The position at which each field is encoded, where it differs from the order of the fields.
    pub encoding_positions: Option<Vec<usize>>,
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields && self.encoding_positions == other.encoding_positions
    }
}

impl Eq for Schema {}

impl Hash for Schema {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fields.hash(state);
        self.encoding_positions.hash(state);
    }
}

/// Values with the schema that names them. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct Row {
    /// Names and types of the values.
    pub schema: Arc<Schema>,
    /// One value for each field.
    pub values: Arc<[Value]>,
}

impl FieldType {
    /// A type whose values are always there.
    pub const fn required(kind: TypeKind) -> Self {
        FieldType { kind, nullable: false }
    }

    /// A type whose values may be absent.
    pub const fn nullable(kind: TypeKind) -> Self {
        FieldType { kind, nullable: true }
    }
}

impl Schema {
    /// A schema of named types.
    pub fn of<N: Into<Arc<str>>>(fields: impl IntoIterator<Item = (N, FieldType)>) -> Self {
        let fields = fields.into_iter().map(|(name, field_type)| Field { name: name.into(), field_type });
        Schema { fields: fields.collect(), ..Schema::default() }
    }

    /// The position of a field.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| &*field.name == name)
    }
}

impl Row {
    /// A row of that schema; `values` has one for each field.
    pub fn new(schema: Arc<Schema>, values: impl Into<Arc<[Value]>>) -> Self {
        Row { schema, values: values.into() }
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(self.schema.index_of(name)?)
    }
}

impl fmt::Display for TypeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TypeKind::Byte => f.write_str("BYTE"),
            TypeKind::Int16 => f.write_str("INT16"),
            TypeKind::Int32 => f.write_str("INT32"),
            TypeKind::Int64 => f.write_str("INT64"),
            TypeKind::Float => f.write_str("FLOAT"),
            TypeKind::Double => f.write_str("DOUBLE"),
            TypeKind::String => f.write_str("STRING"),
            TypeKind::Boolean => f.write_str("BOOLEAN"),
            TypeKind::Bytes => f.write_str("BYTES"),
            TypeKind::Array(element) => write!(f, "ARRAY<{element}>"),
            TypeKind::Iterable(element) => write!(f, "ITERABLE<{element}>"),
            TypeKind::Map(key, value) => write!(f, "MAP<{key}, {value}>"),
            TypeKind::Row(schema) => write!(f, "ROW<{schema}>"),
            TypeKind::Logical(logical) => write!(f, "LOGICAL<{}>", logical.urn),
        }
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind, if self.nullable { "?" } else { "" })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.field_type)
    }
}

/// As `name: STRING, age: INT64?`; a question mark marks what may be absent.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, field) in self.fields.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{field}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (field, value) in self.schema.fields.iter().zip(self.values.iter()) {
            map.entry(&field.name, value);
        }
        map.finish()
    }
}
