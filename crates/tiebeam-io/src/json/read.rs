//! Reads rows, straight from the text into the schema's values.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use tiebeam_core::coder::row_coder;
use tiebeam_core::{Coder, Error, ErrorKind, FieldType, Result, Row, Schema, SourcePlace, TypeKind, Value};

use crate::ranges::FileRange;
use crate::read::{Listing, RangeReader, ReadAllFiles, ReadFiles, Records, lines, too_long};

/// Reads rows of one schema.
#[derive(Debug, Clone)]
pub struct JsonReader {
    schema: Arc<Schema>,
    ignores_unknown: bool,
}

impl JsonReader {
    pub(super) fn new(schema: Arc<Schema>) -> Self {
        JsonReader { schema, ignores_unknown: false }
    }
}

impl ReadFiles<JsonReader> {
    /// Leaves out fields that the schema doesn't have, instead of refusing the line.
    #[must_use]
    pub fn ignore_unknown_fields(self) -> Self {
        self.map_reader(|reader| JsonReader { ignores_unknown: true, ..reader })
    }
}

impl ReadAllFiles<JsonReader> {
    /// Leaves out fields that the schema doesn't have, instead of refusing the line.
    #[must_use]
    pub fn ignore_unknown_fields(self) -> Self {
        self.map_reader(|reader| JsonReader { ignores_unknown: true, ..reader })
    }
}

impl RangeReader for JsonReader {
    type Record = Row;

    fn label(&self) -> &'static str {
        "ReadFromJson"
    }

    fn coder(&self) -> Coder<Row> {
        row_coder(self.schema.clone())
    }

    fn check(&self) -> Result<()> {
        check_schema(&self.schema)
    }

    fn read(&self, range: &FileRange, listing: &Listing, records: &mut Records<'_, Row>) -> Result<()> {
        let mut lines = lines(range, listing, 0)?;
        while let Some(line) = lines.next()? {
            if line.too_long {
                records.bad(line.bytes, too_long(&line, &range.path, listing.max_record))?;
                continue;
            }
            if line.bytes.trim_ascii().is_empty() {
                continue;
            }
            match self.row(line.bytes) {
                Ok(row) => records.push(row)?,
                Err(e) => records.bad(line.bytes, json_error(&e, line.place(&range.path)))?,
            }
        }
        Ok(())
    }
}

impl JsonReader {
    fn row(&self, text: &[u8]) -> serde_json::Result<Row> {
        let mut input = serde_json::Deserializer::from_slice(text);
        let seed = RowSeed { schema: &self.schema, ignores_unknown: self.ignores_unknown, path: Path::Top };
        let row = seed.deserialize(&mut input)?;
        input.end()?;
        Ok(row)
    }
}

/// What is wrong with a line.
pub(super) fn json_error(error: &serde_json::Error, place: SourcePlace) -> Error {
    let text = error.to_string();
    let suffix = format!(" at line {} column {}", error.line(), error.column());
    let message = text.strip_suffix(&suffix).unwrap_or(&text);
    if error.is_data() {
        return Error::new(ErrorKind::InvalidData, "TB0431", message).at_place(place);
    }
    Error::new(
        ErrorKind::InvalidData,
        "TB0430",
        format!("a line is not JSON: {message}, at its column {}", error.column()),
    )
    .at_place(place)
    .with_help("the file must have one JSON object a line")
}

/// Refuses types that JSON has no form for.
fn check_schema(schema: &Schema) -> Result<()> {
    schema.fields.iter().try_for_each(|field| check_type(&field.name, &field.field_type))
}

fn check_type(name: &str, field_type: &FieldType) -> Result<()> {
    match &field_type.kind {
        TypeKind::Array(element) | TypeKind::Iterable(element) => check_type(name, element),
        TypeKind::Map(key, value) if key.kind == TypeKind::String => check_type(name, value),
        TypeKind::Map(..) => Err(Error::new(
            ErrorKind::InvalidArgument,
            "TB0434",
            format!("field `{name}` cannot be read from JSON: the keys of an object are strings"),
        )),
        TypeKind::Row(schema) => check_schema(schema),
        TypeKind::Logical(logical) => check_type(name, &logical.representation),
        _ => Ok(()),
    }
}

/// Where in the object we are, for messages; lives on the stack.
#[derive(Clone, Copy)]
enum Path<'a> {
    Top,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Top => Ok(()),
            Path::Field(Path::Top, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

struct RowSeed<'a> {
    schema: &'a Arc<Schema>,
    ignores_unknown: bool,
    path: Path<'a>,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Row;

    fn deserialize<D: de::Deserializer<'de>>(self, input: D) -> Result<Row, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path {
            Path::Top => f.write_str("an object"),
            path => write!(f, "an object for `{path}`"),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Row, A::Error> {
        let fields = &self.schema.fields;
        let mut values: Vec<Option<Value>> = vec![None; fields.len()];
        // Objects mostly have their fields in the schema's order.
        let mut likely = 0;
        while let Some(key) = object.next_key_seed(KeySeed { schema: self.schema, likely })? {
            match key {
                Ok(index) => {
                    let field = &fields[index];
                    let path = Path::Field(&self.path, &field.name);
                    let seed = ValueSeed {
                        field_type: &field.field_type,
                        ignores_unknown: self.ignores_unknown,
                        path,
                    };
                    values[index] = Some(object.next_value_seed(seed)?);
                    likely = index + 1;
                }
                Err(_) if self.ignores_unknown => {
                    object.next_value::<IgnoredAny>()?;
                }
                Err(name) => {
                    let path = Path::Field(&self.path, &name).to_string();
                    return Err(de::Error::custom(format_args!("field `{path}` is not in the schema")));
                }
            }
        }
        let mut missing = None;
        let values: Arc<[Value]> = values
            .into_iter()
            .enumerate()
            .map(|(i, value)| {
                value.unwrap_or_else(|| {
                    if !fields[i].field_type.nullable {
                        missing.get_or_insert(i);
                    }
                    Value::Null
                })
            })
            .collect();
        match missing {
            None => Ok(Row { schema: self.schema.clone(), values }),
            Some(i) => {
                let path = Path::Field(&self.path, &fields[i].name).to_string();
                Err(de::Error::custom(format_args!("field `{path}` is missing")))
            }
        }
    }
}

/// Finds a key in the schema without making a String of it; the key itself when it isn't there.
struct KeySeed<'a> {
    schema: &'a Schema,
    likely: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Result<usize, String>;

    fn deserialize<D: de::Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        if self.schema.fields.get(self.likely).is_some_and(|field| *field.name == *key) {
            return Ok(Ok(self.likely));
        }
        Ok(self.schema.index_of(key).ok_or_else(|| key.to_owned()))
    }
}

#[derive(Clone, Copy)]
struct ValueSeed<'a> {
    field_type: &'a FieldType,
    ignores_unknown: bool,
    path: Path<'a>,
}

impl ValueSeed<'_> {
    fn wrong<E: de::Error>(&self, got: Unexpected<'_>) -> E {
        E::invalid_type(got, self)
    }

    fn whole<E: de::Error>(&self, value: i64) -> Result<Value, E> {
        let out_of_range = |_| E::invalid_value(Unexpected::Signed(value), self);
        match &self.field_type.kind {
            TypeKind::Int64 => Ok(Value::Int64(value)),
            TypeKind::Int32 => i32::try_from(value).map(Value::Int32).map_err(out_of_range),
            TypeKind::Int16 => i16::try_from(value).map(Value::Int16).map_err(out_of_range),
            TypeKind::Byte => i8::try_from(value).map(Value::Byte).map_err(out_of_range),
            TypeKind::Double => Ok(Value::Double(value as f64)),
            TypeKind::Float => Ok(Value::Float(value as f32)),
            _ => Err(self.wrong(Unexpected::Signed(value))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        if let TypeKind::Logical(logical) = &self.field_type.kind {
            let representation =
                FieldType { kind: logical.representation.kind.clone(), nullable: self.field_type.nullable };
            return ValueSeed { field_type: &representation, ..self }.deserialize(input);
        }
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for `{}`", crate::csv::type_name(&self.field_type.kind), self.path)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        if self.field_type.nullable {
            Ok(Value::Null)
        } else {
            Err(E::custom(format_args!("field `{}` is null", self.path)))
        }
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        match self.field_type.kind {
            TypeKind::Boolean => Ok(Value::Bool(value)),
            _ => Err(self.wrong(Unexpected::Bool(value))),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.whole(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        match (i64::try_from(value), &self.field_type.kind) {
            (Ok(value), _) => self.whole(value),
            (Err(_), TypeKind::Double | TypeKind::Float) => self.visit_f64(value as f64),
            (Err(_), _) => Err(E::invalid_value(Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        match &self.field_type.kind {
            TypeKind::Double => Ok(Value::Double(value)),
            TypeKind::Float if (value as f32).is_finite() => Ok(Value::Float(value as f32)),
            // pandas writes whole numbers as 1.0 where a column has a null. Up to 2^53 nothing is lost.
            TypeKind::Int64 | TypeKind::Int32 | TypeKind::Int16 | TypeKind::Byte
                if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 =>
            {
                self.whole(value as i64)
            }
            _ => Err(self.wrong(Unexpected::Float(value))),
        }
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        match self.field_type.kind {
            TypeKind::String => Ok(Value::String(Arc::from(value))),
            TypeKind::Bytes => match super::write::read_base64(value) {
                Some(bytes) => Ok(Value::Bytes(Bytes::from(bytes))),
                None => Err(E::invalid_value(Unexpected::Str(value), &"base64 text")),
            },
            _ => Err(self.wrong(Unexpected::Str(value))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Value, A::Error> {
        let (TypeKind::Array(element) | TypeKind::Iterable(element)) = &self.field_type.kind else {
            return Err(self.wrong(Unexpected::Seq));
        };
        let mut values = Vec::new();
        loop {
            let path = Path::Index(&self.path, values.len());
            match array.next_element_seed(ValueSeed { field_type: element, path, ..self })? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values.into())),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        match &self.field_type.kind {
            TypeKind::Row(schema) => {
                let seed = RowSeed { schema, ignores_unknown: self.ignores_unknown, path: self.path };
                seed.visit_map(object).map(Value::Row)
            }
            TypeKind::Map(_, value_type) => {
                let mut entries: Vec<(Value, Value)> = Vec::new();
                let mut at = std::collections::HashMap::<Arc<str>, usize>::new();
                while let Some(key) = object.next_key::<String>()? {
                    let path = Path::Field(&self.path, &key);
                    let value = object.next_value_seed(ValueSeed { field_type: value_type, path, ..self })?;
                    let key: Arc<str> = key.into();
                    match at.get(&key) {
                        Some(i) => entries[*i].1 = value,
                        None => {
                            at.insert(key.clone(), entries.len());
                            entries.push((Value::String(key), value));
                        }
                    }
                }
                Ok(Value::Map(entries.into()))
            }
            _ => Err(self.wrong(Unexpected::Map)),
        }
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
