//! ValidateWithSchema: rows held to a JSON schema.

use std::sync::Arc;

use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{ElementContext, Output};
use tiebeam_graph::Arity;

use super::fields::one_to_one;
use super::{Failing, RowStep};
use crate::catalog::{ERROR_HANDLING, Inputs, Key, TransformType, Wants};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::expression::{Raised, order, python_repr, show};
use crate::plan::{Made, Maker};
use crate::schema::plain_value;

pub const TYPES: &[TransformType] = &[TransformType {
    name: "ValidateWithSchema",
    about: "rows that are not as a JSON schema says fail",
    inputs: Inputs::One,
    keeps_rows: true,
    keys: &[Key::required("schema", Wants::Map, "a JSON schema of `type: object`"), ERROR_HANDLING],
    make: validate,
}];

/// The keywords of JSON Schema that are here.
const KEYWORDS: [&str; 19] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
    "uniqueItems",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "description",
    "title",
];

/// A schema as it is checked.
#[derive(Debug, Clone, Default)]
struct Rules {
    kinds: Vec<Arc<str>>,
    properties: Vec<(Arc<str>, Rules)>,
    required: Vec<Arc<str>>,
    closed: bool,
    items: Option<Box<Rules>>,
    length: (Option<i64>, Option<i64>),
    unique: bool,
    among: Option<Vec<Value>>,
    /// A sign and what is on its right.
    bounds: Vec<(&'static str, Value)>,
    multiple_of: Option<f64>,
}

fn validate(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    let schema = maker.get("schema")?.clone();
    let before = maker.problems.len();
    let row = FieldType::required(TypeKind::Row(input.schema.clone()));
    let rules = rules(maker, &schema, Some(&row), "");
    if maker.problems.len() > before {
        return None;
    }
    let step = ValidateStep { rules: Arc::new(rules) };
    Some(one_to_one(maker, &input, input.schema.clone(), Arity::OneToOne, step))
}

/// The rules of a node; what no row of these columns can be is told before the run.
fn rules(maker: &mut Maker<'_>, node: &Node, seen: Option<&FieldType>, path: &str) -> Rules {
    let mut rules = Rules::default();
    let place = if path.is_empty() { "the schema".to_owned() } else { format!("the schema of `{path}`") };
    let Some(entries) = node.as_map() else {
        let message = format!("{place} wants a mapping, got {}", node.kind());
        maker.problem(Diagnostic::new("TB0208", node.span, message));
        return rules;
    };
    for entry in entries.iter().filter(|entry| !KEYWORDS.contains(&&*entry.key)) {
        let problem =
            Diagnostic::new("TB0219", entry.key_span, format!("`{}` in {place} is not available", entry.key))
                .did_you_mean(&entry.key, KEYWORDS);
        maker.problem(problem.note(format!("keywords here: {}", KEYWORDS.join(", "))));
    }
    let int = |key: &str| match node.get(key).map(|node| &node.content) {
        Some(Content::Int(value)) => Some(*value),
        _ => None,
    };
    if let Some(kind) = node.get("type") {
        rules.kinds = super::fields::texts(Some(kind)).into_iter().map(|(name, _)| name).collect();
        if let Some(seen) = seen
            && !rules.kinds.is_empty()
            && !rules.kinds.iter().any(|kind| may_be(seen, kind))
        {
            let kinds: Vec<&str> = rules.kinds.iter().map(|kind| &**kind).collect();
            let what = if path.is_empty() { "a row".to_owned() } else { format!("`{path}`") };
            let message = format!("{what} is {}, never {}", show(seen), kinds.join(" or "));
            maker.problem(Diagnostic::new("TB0205", kind.span, message));
        }
    }
    let inner = seen.map(|seen| &seen.kind);
    for property in node.get("properties").and_then(Node::as_map).unwrap_or(&[]).to_vec() {
        let field = match inner {
            Some(TypeKind::Row(schema)) => field_of(schema, &property.key),
            _ => None,
        };
        let path =
            if path.is_empty() { property.key.to_string() } else { format!("{path}.{}", property.key) };
        let own = self::rules(maker, &property.value, field.as_ref(), &path);
        rules.properties.push((property.key.clone(), own));
    }
    rules.required = super::fields::texts(node.get("required")).into_iter().map(|(name, _)| name).collect();
    if let (Some(TypeKind::Row(schema)), Some(required)) = (inner, node.get("required")) {
        for (name, node) in super::fields::texts(Some(required)) {
            if schema.index_of(&name).is_none() {
                let problem = crate::expression::unknown_column(&name, node.span, schema, None);
                maker.problem(problem);
            }
        }
    }
    rules.closed = node.get("additionalProperties").map(|node| &node.content) == Some(&Content::Bool(false));
    if let Some(items) = node.get("items") {
        let item = match inner {
            Some(TypeKind::Array(item) | TypeKind::Iterable(item)) => Some((**item).clone()),
            _ => None,
        };
        rules.items = Some(Box::new(self::rules(maker, items, item.as_ref(), &format!("{path}[]"))));
    }
    rules.length = (int("minLength").or(int("minItems")), int("maxLength").or(int("maxItems")));
    rules.unique = node.get("uniqueItems").map(|node| &node.content) == Some(&Content::Bool(true));
    let one = node.get("const").map(|node| vec![plain_value(node)]);
    let listed = node.get("enum").and_then(Node::as_list).map(|list| list.iter().map(plain_value).collect());
    rules.among = one.or(listed);
    for (key, sign) in
        [("minimum", ">="), ("maximum", "<="), ("exclusiveMinimum", ">"), ("exclusiveMaximum", "<")]
    {
        rules.bounds.extend(node.get(key).map(|node| (sign, plain_value(node))));
    }
    rules.multiple_of = match node.get("multipleOf").map(|node| &node.content) {
        Some(Content::Int(value)) => Some(*value as f64),
        Some(Content::Float(value)) => Some(*value),
        _ => None,
    };
    rules
}

fn field_of(schema: &Schema, name: &str) -> Option<FieldType> {
    schema.index_of(name).map(|index| schema.fields[index].field_type.clone())
}

/// Whether values of a type may be what JSON calls by a name.
fn may_be(seen: &FieldType, kind: &str) -> bool {
    let int = matches!(seen.kind, TypeKind::Byte | TypeKind::Int16 | TypeKind::Int32 | TypeKind::Int64);
    let float = matches!(seen.kind, TypeKind::Float | TypeKind::Double);
    match (&seen.kind, kind) {
        (_, "null") => seen.nullable,
        (TypeKind::Logical(_), _) => true,
        (_, "integer" | "number") => int || float,
        (TypeKind::String | TypeKind::Bytes, "string")
        | (TypeKind::Boolean, "boolean")
        | (TypeKind::Array(_) | TypeKind::Iterable(_), "array")
        | (TypeKind::Row(_) | TypeKind::Map(..), "object") => true,
        _ => false,
    }
}

#[derive(Clone)]
struct ValidateStep {
    rules: Arc<Rules>,
}

impl RowStep for ValidateStep {
    fn step(
        &mut self,
        row: Row,
        _: &ElementContext<'_>,
        out: &mut Output<Row>,
    ) -> Result<(), (Row, Failing)> {
        match self.rules.check(&Value::Row(row.clone()), "") {
            Ok(()) => {
                out.emit(row);
                Ok(())
            }
            Err(message) => Err((row, Failing::plain(&Raised::new("ValidationError", message)))),
        }
    }
}

impl Rules {
    fn check(&self, value: &Value, path: &str) -> Result<(), String> {
        let at = if path.is_empty() { String::new() } else { format!("`{path}`: ") };
        let fail = |what: String| Err(format!("{at}{} {what}", python_repr(value)));
        if !self.kinds.is_empty() && !self.kinds.iter().any(|kind| is(value, kind)) {
            return fail(format!("is not of type {}", self.kinds.join(" or ")));
        }
        let same =
            |other: &Value| order("<", value, other).ok().flatten().map_or(value == other, |o| o.is_eq());
        if self.among.as_ref().is_some_and(|among| !among.iter().any(same)) {
            return fail("is not one of those allowed".to_owned());
        }
        for (sign, bound) in &self.bounds {
            let Ok(Some(ordering)) = order(sign, value, bound) else { continue };
            let holds = match *sign {
                ">=" => ordering.is_ge(),
                "<=" => ordering.is_le(),
                ">" => ordering.is_gt(),
                _ => ordering.is_lt(),
            };
            if !holds {
                return fail(format!("is not {sign} {}", python_repr(bound)));
            }
        }
        if let (Some(of), Value::Int64(_) | Value::Double(_)) = (self.multiple_of, value) {
            let number = match value {
                Value::Int64(value) => *value as f64,
                Value::Double(value) => *value,
                _ => 0.0,
            };
            if number % of != 0.0 {
                return fail(format!("is not a multiple of {of}"));
            }
        }
        self.check_parts(value, path, &fail)
    }

    fn check_parts(
        &self,
        value: &Value,
        path: &str,
        fail: &dyn Fn(String) -> Result<(), String>,
    ) -> Result<(), String> {
        let length = match value {
            Value::String(text) => i64::try_from(text.chars().count()).ok(),
            Value::Array(items) => i64::try_from(items.len()).ok(),
            _ => None,
        };
        if let Some(length) = length {
            if self.length.0.is_some_and(|least| length < least) {
                return fail("is too short".to_owned());
            }
            if self.length.1.is_some_and(|most| length > most) {
                return fail("is too long".to_owned());
            }
        }
        match value {
            Value::Array(items) => {
                if self.unique && items.iter().enumerate().any(|(i, item)| items[..i].contains(item)) {
                    return fail("has an item twice".to_owned());
                }
                if let Some(rules) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        rules.check(item, &format!("{path}[{index}]"))?;
                    }
                }
            }
            Value::Row(row) => {
                let given = row.schema.fields.iter().zip(row.values.iter());
                // What is null is not there, as in Beam.
                let given: Vec<(&str, &Value)> = given
                    .filter(|(_, value)| **value != Value::Null)
                    .map(|(field, value)| (&*field.name, value))
                    .collect();
                self.check_object(&given, path, fail)?;
            }
            Value::Map(entries) => {
                let given: Vec<(&str, &Value)> = entries
                    .iter()
                    .filter_map(|(key, value)| match key {
                        Value::String(key) => Some((&**key, value)),
                        _ => None,
                    })
                    .collect();
                self.check_object(&given, path, fail)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn check_object(
        &self,
        given: &[(&str, &Value)],
        path: &str,
        fail: &dyn Fn(String) -> Result<(), String>,
    ) -> Result<(), String> {
        if let Some(missing) =
            self.required.iter().find(|name| !given.iter().any(|(given, _)| *given == &***name))
        {
            return fail(format!("lacks `{missing}`"));
        }
        for (name, value) in given {
            let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
            match self.properties.iter().find(|(known, _)| &**known == *name) {
                Some((_, rules)) => rules.check(value, &path)?,
                None if self.closed => return fail(format!("has `{name}`, which the schema does not have")),
                None => {}
            }
        }
        Ok(())
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match (value, kind) {
        (Value::Null, "null")
        | (Value::Bool(_), "boolean")
        | (Value::String(_) | Value::Bytes(_), "string")
        | (Value::Array(_), "array")
        | (Value::Row(_) | Value::Map(_), "object") => true,
        (Value::Byte(_) | Value::Int16(_) | Value::Int32(_) | Value::Int64(_), "integer" | "number") => true,
        (Value::Float(_), "number") => true,
        (Value::Double(_), "number") => true,
        // A whole number with a point is an integer to JSON Schema.
        (Value::Double(value), "integer") => value.fract() == 0.0,
        _ => false,
    }
}
