//! What an expression's value is, known before any row is.

use std::fmt;
use std::sync::Arc;

use tiebeam_core::row::{Field, FieldType, Schema, TypeKind};

/// The type of a value while it is computed. Python's integers are `Int` here whatever their column's width.
#[derive(Debug, Clone, PartialEq)]
pub struct Type {
    pub kind: Kind,
    /// Whether it may be `None`.
    pub nullable: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// No value at all: what an empty list holds, what `None` is besides nullable.
    Never,
    Bool,
    Int,
    Float,
    Str,
    Bytes,
    List(Box<Type>),
    Dict(Box<Type>, Box<Type>),
    Row(Arc<Schema>),
    /// Known only when there is a value.
    Any,
}

impl Type {
    pub const ANY: Type = Type { kind: Kind::Any, nullable: true };
    pub const BOOL: Type = Type::of(Kind::Bool);
    pub const INT: Type = Type::of(Kind::Int);
    pub const FLOAT: Type = Type::of(Kind::Float);
    pub const STR: Type = Type::of(Kind::Str);
    pub const NONE: Type = Type { kind: Kind::Never, nullable: true };

    pub const fn of(kind: Kind) -> Type {
        Type { kind, nullable: false }
    }

    pub fn list(item: Type) -> Type {
        Type::of(Kind::List(Box::new(item)))
    }

    /// The type of a column's values.
    pub fn of_field(field: &FieldType) -> Type {
        let kind = match &field.kind {
            TypeKind::Byte | TypeKind::Int16 | TypeKind::Int32 | TypeKind::Int64 => Kind::Int,
            TypeKind::Float | TypeKind::Double => Kind::Float,
            TypeKind::String => Kind::Str,
            TypeKind::Boolean => Kind::Bool,
            TypeKind::Bytes => Kind::Bytes,
            TypeKind::Array(item) | TypeKind::Iterable(item) => Kind::List(Box::new(Type::of_field(item))),
            TypeKind::Map(key, value) => {
                Kind::Dict(Box::new(Type::of_field(key)), Box::new(Type::of_field(value)))
            }
            TypeKind::Row(schema) => Kind::Row(schema.clone()),
            TypeKind::Logical(logical) => return Type::of_field(&logical.representation),
        };
        Type { kind, nullable: field.nullable }
    }

    /// The type of a column that holds such values, if there is one.
    pub fn to_field(&self) -> Option<FieldType> {
        let kind = match &self.kind {
            Kind::Never | Kind::Any => return None,
            Kind::Bool => TypeKind::Boolean,
            Kind::Int => TypeKind::Int64,
            Kind::Float => TypeKind::Double,
            Kind::Str => TypeKind::String,
            Kind::Bytes => TypeKind::Bytes,
            Kind::List(item) => TypeKind::Array(Box::new(item.to_field()?)),
            Kind::Dict(key, value) => TypeKind::Map(Box::new(key.to_field()?), Box::new(value.to_field()?)),
            Kind::Row(schema) => TypeKind::Row(schema.clone()),
        };
        Some(FieldType { kind, nullable: self.nullable })
    }

    /// The type of what may be one or the other.
    pub fn join(&self, other: &Type) -> Type {
        let kind = match (&self.kind, &other.kind) {
            (Kind::Never, kind) | (kind, Kind::Never) => kind.clone(),
            (a, b) if a == b => a.clone(),
            (Kind::Int, Kind::Float) | (Kind::Float, Kind::Int) => Kind::Float,
            (Kind::List(a), Kind::List(b)) => Kind::List(Box::new(a.join(b))),
            (Kind::Dict(k, v), Kind::Dict(l, w)) => Kind::Dict(Box::new(k.join(l)), Box::new(v.join(w))),
            _ => Kind::Any,
        };
        let any = kind == Kind::Any;
        Type { kind, nullable: self.nullable || other.nullable || any }
    }

    /// Whether it is a number to Python, a boolean included, or not known yet.
    pub fn numeric(&self) -> bool {
        matches!(self.kind, Kind::Bool | Kind::Int | Kind::Float | Kind::Any)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.kind, self.to_field()) {
            (Kind::Never, _) => f.write_str("None"),
            (Kind::List(item), None) => write!(f, "list of {item}"),
            (Kind::Dict(_, value), None) => write!(f, "map to {value}"),
            (_, None) => f.write_str("unknown"),
            (_, Some(field)) => f.write_str(&show(&field)),
        }
    }
}

/// A column's type, for people: `string`, `int64`, `list of double`, `nullable string`.
pub fn show(field: &FieldType) -> String {
    let name = match &field.kind {
        TypeKind::Byte => "byte".to_owned(),
        TypeKind::Int16 => "int16".to_owned(),
        TypeKind::Int32 => "int32".to_owned(),
        TypeKind::Int64 => "int64".to_owned(),
        TypeKind::Float => "float".to_owned(),
        TypeKind::Double => "double".to_owned(),
        TypeKind::String => "string".to_owned(),
        TypeKind::Boolean => "boolean".to_owned(),
        TypeKind::Bytes => "bytes".to_owned(),
        TypeKind::Array(item) | TypeKind::Iterable(item) => format!("list of {}", show(item)),
        TypeKind::Map(key, value) => format!("map of {} to {}", show(key), show(value)),
        TypeKind::Row(schema) => format!("row ({})", columns(schema)),
        TypeKind::Logical(logical) => logical
            .urn
            .strip_prefix("beam:logical_type:")
            .and_then(|name| name.split(':').next())
            .unwrap_or(&logical.urn)
            .to_owned(),
    };
    if field.nullable { format!("nullable {name}") } else { name }
}

/// The columns of a schema, for people: `col1 (string), col2 (int64)`.
pub fn columns(schema: &Schema) -> String {
    if schema.fields.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<String> = schema.fields.iter().take(12).map(column).collect();
    match schema.fields.len().saturating_sub(12) {
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
    }
}

fn column(field: &Field) -> String {
    format!("{} ({})", field.name, show(&field.field_type))
}
