//! [`JsonValue`]: JSON as an element.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value as Json;
use tiebeam_core::Element;
use tiebeam_core::coder::{Codec, Coder, CoderSpec, Nesting, Reader, length_prefixed, write_varint};
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::row::Value;

use crate::json;

/// The coder of [`JsonValue`]: a byte that says whether it is JSON (0) or bytes (1), a length, the text or the bytes.
pub const JSON_CODER: &str = "tiebeam:coder:json:v1";

/// JSON; or bytes, where a service said something that is no JSON. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonValue {
    /// JSON.
    Json(Arc<Json>),
    /// Bytes. Sent to a service they are `{"b64": …}`.
    Bytes(Bytes),
}

impl JsonValue {
    /// The JSON of a row's value: rows and maps are objects.
    ///
    /// # Errors
    /// When JSON has no such value: a number that is not finite, a key that is no text.
    pub fn from_value(value: &Value) -> Result<Self> {
        match value {
            Value::Bytes(bytes) => Ok(JsonValue::Bytes(bytes.clone())),
            other => json::of_value(other).map(JsonValue::from),
        }
    }

    /// As a value of rows: objects are maps from texts in their own order; numbers are INT64 where they are integers that
    /// fit, else DOUBLE.
    pub fn to_value(&self) -> Value {
        match self {
            JsonValue::Json(json) => to_value(json),
            JsonValue::Bytes(bytes) => Value::Bytes(bytes.clone()),
        }
    }

    /// The JSON, if it is some.
    pub fn json(&self) -> Option<&Json> {
        match self {
            JsonValue::Json(json) => Some(json),
            JsonValue::Bytes(_) => None,
        }
    }

    /// As JSON in any case, as it is sent to a service.
    pub(crate) fn to_json(&self) -> Json {
        match self {
            JsonValue::Json(json) => Json::clone(json),
            JsonValue::Bytes(bytes) => json::bytes(bytes),
        }
    }
}

/// Not deeper than what was parsed, which is bounded.
fn to_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(v) => Value::Bool(*v),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Int64(n),
            None => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(text.as_str().into()),
        Json::Array(values) => Value::Array(values.iter().map(to_value).collect()),
        Json::Object(pairs) => {
            Value::Map(pairs.iter().map(|(k, v)| (Value::String(k.as_str().into()), to_value(v))).collect())
        }
    }
}

impl From<Json> for JsonValue {
    fn from(json: Json) -> Self {
        JsonValue::Json(Arc::new(json))
    }
}

/// As JSON text; bytes as their number.
impl fmt::Display for JsonValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonValue::Json(json) => json.fmt(f),
            JsonValue::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

struct JsonCodec;

impl Codec<JsonValue> for JsonCodec {
    fn encode(&self, value: &JsonValue, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        let mut put = |tag: u8, bytes: &[u8]| {
            out.push(tag);
            write_varint(bytes.len() as i64, out);
            out.extend_from_slice(bytes);
        };
        match value {
            JsonValue::Json(json) => put(0, json.to_string().as_bytes()),
            JsonValue::Bytes(bytes) => put(1, bytes),
        }
        Ok(())
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<JsonValue> {
        let damaged = |message: String| Error::new(ErrorKind::InvalidData, "TB0612", message);
        let tag = input.u8()?;
        let length = input.length()?;
        let bytes = input.take(length)?;
        match tag {
            0 => {
                let json = serde_json::from_slice::<Json>(&bytes);
                json.map(JsonValue::from).map_err(|error| damaged(format!("an element is no JSON: {error}")))
            }
            1 => Ok(JsonValue::Bytes(bytes)),
            other => Err(damaged(format!("a JSON element begins with 0 or 1, got {other}"))),
        }
    }

    fn spec(&self) -> CoderSpec {
        CoderSpec::leaf(JSON_CODER)
    }

    /// Objects may tell their pairs in any order.
    fn is_deterministic(&self) -> bool {
        false
    }
}

impl Element for JsonValue {
    fn coder() -> Coder<Self> {
        // A coder that runners don't know travels as bytes with their length.
        length_prefixed(Coder::new(JsonCodec))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_travels_whole() {
        for value in [
            JsonValue::from(json!({"b": [1, 2.5, null, true, "x"], "a": {"c": -7}})),
            JsonValue::from(json!(u64::MAX)),
            JsonValue::from(json!(0.1)),
            JsonValue::Bytes(Bytes::from_static(b"\xff\x00")),
        ] {
            let coder = JsonValue::coder();
            let bytes = coder.to_bytes(&value).unwrap();
            assert_eq!(coder.from_bytes(bytes.clone()).unwrap(), value);
            for cut in 0..bytes.len() {
                assert!(coder.from_bytes(bytes[..cut].to_vec()).is_err(), "cut at {cut}");
            }
        }
        let error = JsonValue::coder().from_bytes(vec![3, 2, 1, 0]).unwrap_err();
        assert_eq!(error.code(), "TB0612");
    }

    #[test]
    fn values_and_back() {
        let value = JsonValue::from(json!({"k": [1, 1.5, "x", null, false]}));
        assert_eq!(JsonValue::from_value(&value.to_value()).unwrap(), value);
        assert_eq!(JsonValue::from(json!(u64::MAX)).to_value(), Value::Double(u64::MAX as f64));
    }
}
