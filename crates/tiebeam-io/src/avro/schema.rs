//! Avro's types and those of rows.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use tiebeam_core::row::LogicalType;
use tiebeam_core::{FieldType, Schema, TypeKind};

/// The deepest type.
const MAX_DEPTH: usize = 60;

/// Beam's instants: an INT64 of milliseconds since 1970.
pub(crate) const MILLIS: &str = "beam:logical_type:millis_instant:v1";

/// Beam's instants: a row of seconds since 1970 and microseconds.
pub(crate) const MICROS: &str = "beam:logical_type:micros_instant:v1";

/// How a value is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Avro {
    Null,
    Bool,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Enum(Arc<[Arc<str>]>),
    Array(Box<Avro>),
    Map(Box<Avro>),
    Record(Arc<Schema>, Vec<Avro>),
    /// A type and null, which is the first of both or the second.
    Nullable(Box<Avro>, bool),
    /// A long of milliseconds since 1970.
    Millis,
    /// A long of microseconds since 1970.
    Micros,
}

/// A type of instants.
pub(crate) fn instant(urn: &str) -> TypeKind {
    let int = || FieldType::required(TypeKind::Int64);
    let representation = match urn {
        MILLIS => int(),
        _ => FieldType::required(TypeKind::Row(micros_schema())),
    };
    TypeKind::Logical(Arc::new(LogicalType {
        urn: urn.to_owned(),
        payload: Vec::new(),
        representation,
        argument: None,
    }))
}

/// The schema of an instant of microseconds.
pub(crate) fn micros_schema() -> Arc<Schema> {
    let int = || FieldType::required(TypeKind::Int64);
    Arc::new(Schema::of([("seconds", int()), ("micros", int())]))
}

impl Avro {
    /// The type of a row's field that holds such values.
    pub fn field(&self) -> FieldType {
        let kind = match self {
            Avro::Nullable(of, _) => return FieldType { nullable: true, ..of.field() },
            Avro::Null => return FieldType::nullable(TypeKind::String),
            Avro::Bool => TypeKind::Boolean,
            Avro::Int => TypeKind::Int32,
            Avro::Long => TypeKind::Int64,
            Avro::Float => TypeKind::Float,
            Avro::Double => TypeKind::Double,
            Avro::Bytes | Avro::Fixed(_) => TypeKind::Bytes,
            Avro::Text | Avro::Enum(_) => TypeKind::String,
            Avro::Array(of) => TypeKind::Array(Box::new(of.field())),
            Avro::Map(of) => {
                TypeKind::Map(Box::new(FieldType::required(TypeKind::String)), Box::new(of.field()))
            }
            Avro::Record(schema, _) => TypeKind::Row(schema.clone()),
            Avro::Millis => instant(MILLIS),
            Avro::Micros => instant(MICROS),
        };
        FieldType::required(kind)
    }

    /// Reads a schema as files have it.
    ///
    /// # Errors
    /// What rows cannot hold, or what is no schema.
    pub fn parse(text: &[u8]) -> Result<Avro, String> {
        let json: Json =
            serde_json::from_slice(text).map_err(|error| format!("its schema is no JSON: {error}"))?;
        Parser { named: HashMap::new() }.parse(&json, "", "", MAX_DEPTH)
    }

    /// The type that writes rows of a schema.
    ///
    /// # Errors
    /// What Avro has no type for.
    pub fn of_schema(schema: &Arc<Schema>) -> Result<Avro, String> {
        let fields = schema.fields.iter();
        let of = |field: &tiebeam_core::Field| {
            Avro::of_field(&field.field_type).map_err(|why| format!("field `{}`: {why}", field.name))
        };
        let fields: Vec<Avro> = fields.map(of).collect::<Result<_, _>>()?;
        if let Some(bad) = schema.fields.iter().find(|field| !is_name(&field.name)) {
            return Err(format!("field `{}`: names are of letters, digits and `_` in Avro", bad.name));
        }
        Ok(Avro::Record(schema.clone(), fields))
    }

    fn of_field(field: &FieldType) -> Result<Avro, String> {
        let own = match &field.kind {
            TypeKind::Boolean => Avro::Bool,
            TypeKind::Byte | TypeKind::Int16 | TypeKind::Int32 => Avro::Int,
            TypeKind::Int64 => Avro::Long,
            TypeKind::Float => Avro::Float,
            TypeKind::Double => Avro::Double,
            TypeKind::String => Avro::Text,
            TypeKind::Bytes => Avro::Bytes,
            TypeKind::Array(of) | TypeKind::Iterable(of) => Avro::Array(Box::new(Avro::of_field(of)?)),
            TypeKind::Map(key, of) if key.kind == TypeKind::String && !key.nullable => {
                Avro::Map(Box::new(Avro::of_field(of)?))
            }
            TypeKind::Map(key, _) => return Err(format!("keys of maps are strings in Avro, not {key}")),
            TypeKind::Row(schema) => Avro::of_schema(schema)?,
            TypeKind::Logical(logical) => match logical.urn.as_str() {
                MILLIS => Avro::Millis,
                MICROS => Avro::Micros,
                urn if urn.contains("decimal") => return Err("decimals are not available".to_owned()),
                _ => Avro::of_field(&logical.representation)?,
            },
        };
        Ok(if field.nullable && !matches!(own, Avro::Nullable(..)) {
            Avro::Nullable(Box::new(own), true)
        } else {
            own
        })
    }

    /// As files have it. Records are named by their place, since names must differ.
    pub fn to_json(&self, name: &str) -> Json {
        match self {
            Avro::Null => "null".into(),
            Avro::Bool => "boolean".into(),
            Avro::Int => "int".into(),
            Avro::Long => "long".into(),
            Avro::Float => "float".into(),
            Avro::Double => "double".into(),
            Avro::Bytes => "bytes".into(),
            Avro::Text => "string".into(),
            Avro::Fixed(size) => json!({"type": "fixed", "name": name, "size": size}),
            Avro::Enum(symbols) => {
                let symbols: Vec<&str> = symbols.iter().map(|symbol| &**symbol).collect();
                json!({"type": "enum", "name": name, "symbols": symbols})
            }
            Avro::Array(of) => json!({"type": "array", "items": of.to_json(&format!("{name}_item"))}),
            Avro::Map(of) => json!({"type": "map", "values": of.to_json(&format!("{name}_value"))}),
            Avro::Millis => json!({"type": "long", "logicalType": "timestamp-millis"}),
            Avro::Micros => json!({"type": "long", "logicalType": "timestamp-micros"}),
            Avro::Nullable(of, true) => json!(["null", of.to_json(name)]),
            Avro::Nullable(of, false) => json!([of.to_json(name), "null"]),
            Avro::Record(schema, fields) => {
                let fields: Vec<Json> = schema
                    .fields
                    .iter()
                    .zip(fields)
                    .map(|(field, avro)| {
                        let typed = avro.to_json(&format!("{name}_{}", field.name));
                        json!({"name": &*field.name, "type": typed})
                    })
                    .collect();
                json!({"type": "record", "name": name, "fields": fields})
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

struct Parser {
    /// Types by their full names; none while one is being read.
    named: HashMap<String, Option<Avro>>,
}

impl Parser {
    fn parse(&mut self, json: &Json, place: &str, namespace: &str, depth: usize) -> Result<Avro, String> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("{}types are more than {MAX_DEPTH} deep", told(place)));
        };
        match json {
            Json::String(name) => self.name(name, place, namespace),
            Json::Array(union) => self.union(union, place, namespace, depth),
            Json::Object(object) => self.object(object, place, namespace, depth),
            _ => Err(format!("{}a type is a name, a list or an object", told(place))),
        }
    }

    fn name(&mut self, name: &str, place: &str, namespace: &str) -> Result<Avro, String> {
        Ok(match name {
            "null" => Avro::Null,
            "boolean" => Avro::Bool,
            "int" => Avro::Int,
            "long" => Avro::Long,
            "float" => Avro::Float,
            "double" => Avro::Double,
            "bytes" => Avro::Bytes,
            "string" => Avro::Text,
            _ => {
                let full = full_name(name, namespace);
                return match self.named.get(&full).or_else(|| self.named.get(name)) {
                    Some(Some(found)) => Ok(found.clone()),
                    Some(None) => Err(format!("{}`{name}` contains itself, which rows cannot", told(place))),
                    None => Err(format!("{}there is no type `{name}`", told(place))),
                };
            }
        })
    }

    fn union(&mut self, union: &[Json], place: &str, namespace: &str, depth: usize) -> Result<Avro, String> {
        let null = |json: &Json| json.as_str() == Some("null");
        match union {
            [only] => self.parse(only, place, namespace, depth),
            [a, b] if null(a) != null(b) => {
                let first = null(a);
                let of = self.parse(if first { b } else { a }, place, namespace, depth)?;
                Ok(match of {
                    Avro::Nullable(..) | Avro::Null => {
                        return Err(format!("{}a union stands in a union", told(place)));
                    }
                    of => Avro::Nullable(Box::new(of), first),
                })
            }
            _ => Err(format!(
                "{}a union of several types, which rows have not: only one type and null",
                told(place)
            )),
        }
    }

    fn object(
        &mut self,
        object: &Map<String, Json>,
        place: &str,
        namespace: &str,
        depth: usize,
    ) -> Result<Avro, String> {
        let lacks = |key: &str| format!("{}a type lacks `{key}`", told(place));
        let kind = object.get("type").ok_or_else(|| lacks("type"))?;
        let Some(kind) = kind.as_str() else { return self.parse(kind, place, namespace, depth) };
        let logical = object.get("logicalType").and_then(Json::as_str);
        if logical == Some("decimal") {
            return Err(format!("{}decimals are not available", told(place)));
        }
        let name = object.get("name").and_then(Json::as_str).unwrap_or_default();
        let own = object.get("namespace").and_then(Json::as_str).unwrap_or(namespace).to_owned();
        let full = full_name(name, &own);
        let own = full.rsplit_once('.').map_or("", |(own, _)| own).to_owned();
        let found = match kind {
            "record" | "error" => {
                self.named.insert(full.clone(), None);
                let fields = object.get("fields").and_then(Json::as_array).ok_or_else(|| lacks("fields"))?;
                let mut found = Vec::with_capacity(fields.len());
                let mut types = Vec::with_capacity(fields.len());
                for field in fields {
                    let name = field.get("name").and_then(Json::as_str).ok_or_else(|| lacks("name"))?;
                    let typed = field.get("type").ok_or_else(|| lacks("type"))?;
                    let inner = if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
                    let avro = self.parse(typed, &inner, &own, depth)?;
                    types.push((name, avro.field()));
                    found.push(avro);
                }
                Avro::Record(Arc::new(Schema::of(types)), found)
            }
            "enum" => {
                let symbols =
                    object.get("symbols").and_then(Json::as_array).ok_or_else(|| lacks("symbols"))?;
                let symbols: Option<Vec<Arc<str>>> =
                    symbols.iter().map(|symbol| symbol.as_str().map(Arc::from)).collect();
                Avro::Enum(symbols.ok_or_else(|| lacks("symbols"))?.into())
            }
            "fixed" => {
                let size =
                    object.get("size").and_then(Json::as_u64).and_then(|size| usize::try_from(size).ok());
                Avro::Fixed(size.ok_or_else(|| lacks("size"))?)
            }
            "array" => {
                let items = object.get("items").ok_or_else(|| lacks("items"))?;
                return Ok(Avro::Array(Box::new(self.parse(items, place, namespace, depth)?)));
            }
            "map" => {
                let values = object.get("values").ok_or_else(|| lacks("values"))?;
                return Ok(Avro::Map(Box::new(self.parse(values, place, namespace, depth)?)));
            }
            name => {
                return Ok(match (self.name(name, place, namespace)?, logical) {
                    (Avro::Long, Some("timestamp-millis")) => Avro::Millis,
                    (Avro::Long, Some("timestamp-micros")) => Avro::Micros,
                    (found, _) => found,
                });
            }
        };
        self.named.insert(full, Some(found.clone()));
        Ok(found)
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn told(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("field `{place}`: ") }
}
