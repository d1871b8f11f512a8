//! Types of what is written in the file, and types that several have in common.

use std::sync::Arc;

use tiebeam_core::row::{FieldType, LogicalType, Row, Schema, TypeKind, Value};
use tiebeam_core::{Error, ErrorKind, Result};

use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::expression::{Raised, conform as conform_value, show};
use crate::plan::Collection;
use crate::source::Span;

const UNKNOWN: &str = "tiebeam:logical_type:unknown:v1";

/// The type of nothing: of null, and of what an empty list holds. It goes with every type.
fn unknown() -> FieldType {
    FieldType::nullable(TypeKind::Logical(Arc::new(LogicalType {
        urn: UNKNOWN.to_owned(),
        payload: Vec::new(),
        representation: FieldType::nullable(TypeKind::String),
        argument: None,
    })))
}

/// A type without unknown parts: what is not known is a nullable string.
fn known(field: FieldType, unknown: &FieldType) -> FieldType {
    let nullable = field.nullable;
    let inner = |of: Box<FieldType>| Box::new(known(*of, unknown));
    let kind = match field.kind {
        kind if kind == unknown.kind => return FieldType::nullable(TypeKind::String),
        TypeKind::Array(of) => TypeKind::Array(inner(of)),
        TypeKind::Row(schema) => {
            let fields = schema.fields.iter().map(|f| (f.name.clone(), known(f.field_type.clone(), unknown)));
            TypeKind::Row(Arc::new(Schema::of(fields)))
        }
        kind => kind,
    };
    FieldType { kind, nullable }
}

fn type_of(node: &Node, unknown: &FieldType) -> std::result::Result<FieldType, Diagnostic> {
    let kind = match &node.content {
        Content::Null => return Ok(unknown.clone()),
        Content::Bool(_) => TypeKind::Boolean,
        Content::Int(_) => TypeKind::Int64,
        Content::Float(_) => TypeKind::Double,
        Content::String(_) => TypeKind::String,
        Content::List(items) => TypeKind::Array(Box::new(common(items, unknown)?)),
        Content::Map(entries) => {
            let mut fields = Vec::with_capacity(entries.len());
            for entry in entries.iter() {
                fields.push((entry.key.clone(), type_of(&entry.value, unknown)?));
            }
            TypeKind::Row(Arc::new(Schema::of(fields)))
        }
    };
    Ok(FieldType::required(kind))
}

fn common(nodes: &[Node], unknown: &FieldType) -> std::result::Result<FieldType, Diagnostic> {
    let mut common: Option<FieldType> = None;
    for node in nodes {
        let next = type_of(node, unknown)?;
        common = Some(match common {
            None => next,
            Some(before) => join(&before, &next).ok_or_else(|| {
                let (next, before) = (known(next, unknown), known(before, unknown));
                let message = format!("this is {}, those before are {}", show(&next), show(&before));
                Diagnostic::new("TB0205", node.span, message)
                    .help("a column has one type: write all its values alike, texts in quotes")
            })?,
        });
    }
    // Of nothing, nothing is null.
    Ok(common.unwrap_or_else(|| FieldType { nullable: false, ..unknown.clone() }))
}

/// The type that the values of several nodes have in common; nullable when one is null, a nullable string when all are.
///
/// # Errors
/// At the first node whose type does not go with those before it.
pub fn common_type(nodes: &[Node]) -> std::result::Result<FieldType, Diagnostic> {
    let unknown = unknown();
    common(nodes, &unknown).map(|common| known(common, &unknown))
}

/// The narrowest type that holds the values of both.
pub fn join(a: &FieldType, b: &FieldType) -> Option<FieldType> {
    let nullable = a.nullable || b.nullable;
    let kind = match (&a.kind, &b.kind) {
        (x, y) if x == y => x.clone(),
        // A type that is not known goes with all.
        (TypeKind::Logical(unknown), known) | (known, TypeKind::Logical(unknown))
            if unknown.urn == UNKNOWN =>
        {
            known.clone()
        }
        (TypeKind::Array(x), TypeKind::Array(y)) => TypeKind::Array(Box::new(join(x, y)?)),
        (TypeKind::Iterable(x), TypeKind::Iterable(y)) => TypeKind::Iterable(Box::new(join(x, y)?)),
        (TypeKind::Map(k, v), TypeKind::Map(l, w)) => {
            TypeKind::Map(Box::new(join(k, l)?), Box::new(join(v, w)?))
        }
        (TypeKind::Row(x), TypeKind::Row(y)) => TypeKind::Row(Arc::new(join_schemas(x, y).ok()?)),
        (x, y) => {
            let (low, high) = (rank(x)?.min(rank(y)?), rank(x)?.max(rank(y)?));
            // A float has 24 digits of its own: wider integers go to a double.
            match (low, high) {
                (_, 0) => TypeKind::Byte,
                (_, 1) => TypeKind::Int16,
                (_, 2) => TypeKind::Int32,
                (_, 3) => TypeKind::Int64,
                (0 | 1, 4) => TypeKind::Float,
                _ => TypeKind::Double,
            }
        }
    };
    Some(FieldType { kind, nullable })
}

fn rank(kind: &TypeKind) -> Option<u8> {
    Some(match kind {
        TypeKind::Byte => 0,
        TypeKind::Int16 => 1,
        TypeKind::Int32 => 2,
        TypeKind::Int64 => 3,
        TypeKind::Float => 4,
        TypeKind::Double => 5,
        _ => return None,
    })
}

/// A schema with the fields of both; those that one lacks are nullable.
///
/// # Errors
/// The name of a field whose types do not go together.
pub fn join_schemas(a: &Schema, b: &Schema) -> std::result::Result<Schema, (Arc<str>, FieldType, FieldType)> {
    let mut fields: Vec<(Arc<str>, FieldType)> = Vec::with_capacity(a.fields.len());
    for field in &a.fields {
        let joined = match b.index_of(&field.name).map(|index| &b.fields[index].field_type) {
            Some(other) => join(&field.field_type, other)
                .ok_or_else(|| (field.name.clone(), field.field_type.clone(), other.clone()))?,
            None => FieldType { nullable: true, ..field.field_type.clone() },
        };
        fields.push((field.name.clone(), joined));
    }
    for field in b.fields.iter().filter(|field| a.index_of(&field.name).is_none()) {
        fields.push((field.name.clone(), FieldType { nullable: true, ..field.field_type.clone() }));
    }
    Ok(Schema::of(fields))
}

/// The schema of several collections together; what does not go together is noted at `span`.
pub fn unify(all: &[Collection], span: Span, problems: &mut Vec<Diagnostic>) -> Option<Arc<Schema>> {
    let first = all.first()?;
    let mut joined = first.schema.clone();
    for other in &all[1..] {
        if *joined == *other.schema {
            continue;
        }
        match join_schemas(&joined, &other.schema) {
            Ok(schema) => joined = Arc::new(schema),
            Err((name, a, b)) => {
                let message = format!(
                    "column `{name}` is {} in one input and {} in `{}`: they cannot be flattened",
                    show(&a),
                    show(&b),
                    other.producer
                );
                problems.push(
                    Diagnostic::new("TB0205", span, message).help("convert it in a MapToFields before"),
                );
                return None;
            }
        }
    }
    Some(joined)
}

/// A row brought to a schema that has all its fields: missing ones are null, numbers widen.
///
/// # Errors
/// When a field cannot be what the schema says.
pub fn conform(row: &Row, schema: &Arc<Schema>) -> Result<Row> {
    let values = schema.fields.iter().map(|field| {
        let value = row.get(&field.name).cloned().unwrap_or(Value::Null);
        conform_value(value, &field.field_type).map_err(|raised| misfit(&field.name, &raised))
    });
    Ok(Row::new(schema.clone(), values.collect::<Result<Vec<_>>>()?))
}

/// The error of a field that is not of its type.
pub fn misfit(field: &str, raised: &Raised) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0226", format!("field `{field}`: {}", raised.message))
}

/// A node's value as a column of that type holds it.
///
/// # Errors
/// When it cannot be such a value.
pub fn value_of(node: &Node, wanted: &FieldType) -> std::result::Result<Value, Diagnostic> {
    conform_value(plain_value(node), wanted)
        .map_err(|raised| Diagnostic::new("TB0205", node.span, raised.message))
}

/// A node's value by itself: mappings with keys that are strings.
pub fn plain_value(node: &Node) -> Value {
    match &node.content {
        Content::Null => Value::Null,
        Content::Bool(value) => Value::Bool(*value),
        Content::Int(value) => Value::Int64(*value),
        Content::Float(value) => Value::Double(*value),
        Content::String(text) => Value::String(text.clone()),
        Content::List(items) => Value::Array(items.iter().map(plain_value).collect()),
        Content::Map(entries) => Value::Map(
            entries
                .iter()
                .map(|entry| (Value::String(entry.key.clone()), plain_value(&entry.value)))
                .collect(),
        ),
    }
}

/// The type that a JSON schema tells, as Beam reads `output_type`: a name, or `{type: …}`.
///
/// # Errors
/// What is wrong with it, at its place.
pub fn declared_type(node: &Node) -> std::result::Result<FieldType, Diagnostic> {
    let named = |name: &str| {
        Some(FieldType::required(match name {
            "boolean" => TypeKind::Boolean,
            "integer" => TypeKind::Int64,
            "number" => TypeKind::Double,
            "string" => TypeKind::String,
            "bytes" => TypeKind::Bytes,
            _ => return None,
        }))
    };
    const NAMES: [&str; 7] = ["boolean", "integer", "number", "string", "bytes", "array", "object"];
    let (name, span) = match &node.content {
        Content::String(name) => (name.clone(), node.span),
        _ => match node.get("type").map(|kind| (kind.as_str(), kind.span)) {
            Some((Some(name), span)) => (name.clone(), span),
            _ => {
                let message = format!("a type is a name or `{{type: NAME}}`, got {}", node.kind());
                return Err(Diagnostic::new("TB0208", node.span, message));
            }
        },
    };
    if let Some(field) = named(&name) {
        return Ok(field);
    }
    let lacks = |key: &str| Diagnostic::new("TB0207", span, format!("type `{name}` lacks `{key}`"));
    match &*name {
        "array" => {
            let items = node.get("items").ok_or_else(|| lacks("items"))?;
            Ok(FieldType::required(TypeKind::Array(Box::new(declared_type(items)?))))
        }
        "object" => match (node.get("properties").and_then(Node::as_map), node.get("additionalProperties")) {
            (Some(properties), _) => {
                let required: Vec<&str> = node
                    .get("required")
                    .and_then(Node::as_list)
                    .map(|list| list.iter().filter_map(|one| one.as_str().map(|text| &**text)).collect())
                    .unwrap_or_default();
                let mut fields = Vec::with_capacity(properties.len());
                for property in properties {
                    let field = declared_type(&property.value)?;
                    let nullable = !required.contains(&&*property.key);
                    fields.push((property.key.clone(), FieldType { nullable, ..field }));
                }
                Ok(FieldType::required(TypeKind::Row(Arc::new(Schema::of(fields)))))
            }
            (None, Some(values)) => {
                let key = Box::new(FieldType::required(TypeKind::String));
                Ok(FieldType::required(TypeKind::Map(key, Box::new(declared_type(values)?))))
            }
            (None, None) => Err(lacks("properties")),
        },
        other => Err(Diagnostic::new("TB0208", span, format!("unknown type `{other}`"))
            .did_you_mean(other, NAMES)
            .note(format!("types: {}", NAMES.join(", ")))),
    }
}

/// What keeps rows of `schema` from being what an `output_schema` says; none where they are. Checks types alone.
///
/// # Errors
/// What is wrong with the `output_schema` itself, or the first field that is not as it says.
pub fn check_output_schema(node: &Node, schema: &Schema) -> std::result::Result<(), Diagnostic> {
    for property in node.get("properties").and_then(Node::as_map).unwrap_or(&[]) {
        let keys = property.value.as_map().unwrap_or(&[]);
        if let Some(entry) = keys.iter().find(|entry| !KNOWN_TO_TYPES.contains(&&*entry.key)) {
            let message = format!("`{}` in an output_schema is not available in this build", entry.key);
            return Err(Diagnostic::new("TB0219", entry.key_span, message)
                .help("an output_schema tells types; check values with `Filter`"));
        }
    }
    let declared = declared_type(node)?;
    let TypeKind::Row(wanted) = &declared.kind else {
        return Err(Diagnostic::new(
            "TB0208",
            node.span,
            "an output_schema is of `type: object`, with `properties`",
        ));
    };
    for field in &wanted.fields {
        let span = node
            .get("properties")
            .and_then(|properties| properties.entry(&field.name))
            .map_or(node.span, |entry| entry.key_span);
        match schema.index_of(&field.name).map(|index| &schema.fields[index].field_type) {
            Some(seen) if goes_as(seen, &field.field_type) => {}
            Some(seen) => {
                let message = format!("`{}` is {}, not {}", field.name, show(seen), show(&field.field_type));
                return Err(Diagnostic::new("TB0205", span, message));
            }
            None if field.field_type.nullable => {}
            None => {
                let message = format!("the rows have no field `{}`", field.name);
                return Err(Diagnostic::new("TB0204", span, message)
                    .note(format!("columns here: {}", crate::expression::columns(schema))));
            }
        }
    }
    Ok(())
}

/// The keys of a JSON schema that tell a type, or nothing.
const KNOWN_TO_TYPES: [&str; 7] =
    ["type", "items", "properties", "additionalProperties", "required", "description", "title"];

/// Whether values of a type are what a JSON schema calls by another: integers of any width are integers and numbers.
fn goes_as(seen: &FieldType, wanted: &FieldType) -> bool {
    match (&seen.kind, &wanted.kind) {
        (seen, wanted) if seen == wanted => true,
        (TypeKind::Array(x) | TypeKind::Iterable(x), TypeKind::Array(y)) => goes_as(x, y),
        (TypeKind::Map(_, x), TypeKind::Map(_, y)) => goes_as(x, y),
        (TypeKind::Row(x), TypeKind::Row(y)) => y.fields.iter().all(|field| match x.index_of(&field.name) {
            Some(index) => goes_as(&x.fields[index].field_type, &field.field_type),
            None => field.field_type.nullable,
        }),
        (TypeKind::Byte | TypeKind::Int16 | TypeKind::Int32, TypeKind::Int64) => true,
        (x, TypeKind::Double) => rank(x).is_some(),
        _ => false,
    }
}
