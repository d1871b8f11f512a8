//! Arguments of inference as JSON, and what is read from JSON with care.

use serde_json::{Map, Number, Value as Json};
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::row::Value;
use tiebeam_inference::InferenceArgs;

/// JSON that is nested deeper is not made: no service takes it, and the stack ends somewhere.
const DEEPEST: usize = 100;

fn refused(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0610", message)
}

/// A value of a row as JSON: rows and maps are objects, bytes are `{"b64": …}` as TensorFlow Serving and Vertex AI take
/// them.
///
/// # Errors
/// When JSON has no such value: a number that is not finite, a key that is no text.
pub(crate) fn of_value(value: &Value) -> Result<Json> {
    at_depth(value, 0)
}

fn at_depth(value: &Value, depth: usize) -> Result<Json> {
    if depth > DEEPEST {
        return Err(refused(format!("a value is nested deeper than {DEEPEST}")));
    }
    let float = |number: f64| {
        let finite = Number::from_f64(number).map(Json::Number);
        finite.ok_or_else(|| refused(format!("JSON has no number {number}")))
    };
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(v) => Json::Bool(*v),
        Value::Byte(v) => Json::from(*v),
        Value::Int16(v) => Json::from(*v),
        Value::Int32(v) => Json::from(*v),
        Value::Int64(v) => Json::from(*v),
        // By its shortest digits, so that 0.1 stays 0.1.
        Value::Float(v) => float(v.to_string().parse().unwrap_or(f64::from(*v)))?,
        Value::Double(v) => float(*v)?,
        Value::String(v) => Json::String(v.to_string()),
        Value::Bytes(v) => bytes(v),
        Value::Array(values) => {
            Json::Array(values.iter().map(|value| at_depth(value, depth + 1)).collect::<Result<_>>()?)
        }
        Value::Map(pairs) => {
            let mut object = Map::new();
            for (key, value) in pairs.iter() {
                let Value::String(key) = key else {
                    return Err(refused("the keys of a JSON object are texts".to_owned()));
                };
                object.insert(key.to_string(), at_depth(value, depth + 1)?);
            }
            Json::Object(object)
        }
        Value::Row(row) => {
            let fields = row.schema.fields.iter().zip(row.values.iter());
            let pairs =
                fields.map(|(field, value)| Ok((field.name.to_string(), at_depth(value, depth + 1)?)));
            Json::Object(pairs.collect::<Result<_>>()?)
        }
    })
}

/// Bytes as `{"b64": …}`.
pub(crate) fn bytes(bytes: &[u8]) -> Json {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    Json::Object(Map::from_iter([("b64".to_owned(), Json::String(text))]))
}

/// Arguments as a JSON object.
pub(crate) fn of_args(args: &InferenceArgs) -> Result<Map<String, Json>> {
    args.iter().map(|(name, value)| Ok((name.to_owned(), of_value(value)?))).collect()
}

/// What kind of value a JSON value is, for messages.
pub(crate) fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use serde_json::json;
    use tiebeam_core::row::{FieldType, Row, Schema, TypeKind};

    use super::*;

    #[test]
    fn values_become_json() {
        let schema = Schema::of([("x", FieldType::required(TypeKind::Int64))]);
        let row = Row::new(Arc::new(schema), [Value::Int64(7)]);
        let map = [(Value::String("k".into()), Value::Array([Value::Bool(true), Value::Null].into()))];
        for (value, wanted) in [
            (Value::Float(0.1), json!(0.1)),
            (Value::Double(-0.5), json!(-0.5)),
            (Value::Int64(i64::MIN), json!(i64::MIN)),
            (Value::Bytes(Bytes::from_static(b"\x00hi")), json!({"b64": "AGhp"})),
            (Value::Map(map.into()), json!({"k": [true, null]})),
            (Value::Row(row), json!({"x": 7})),
        ] {
            assert_eq!(of_value(&value).unwrap(), wanted);
        }
    }

    #[test]
    fn what_json_does_not_have_is_refused() {
        let deep = (0..200).fold(Value::Null, |inner, _| Value::Array([inner].into()));
        let map = Value::Map([(Value::Int64(1), Value::Null)].into());
        for value in [Value::Double(f64::NAN), Value::Float(f32::INFINITY), map, deep] {
            assert_eq!(of_value(&value).unwrap_err().code(), "TB0610");
        }
    }
}
