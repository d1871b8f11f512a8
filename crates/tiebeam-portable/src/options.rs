//! Pipeline options as they travel: a protobuf Struct whose keys are `beam:option:NAME:v1`.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_model::prost_types::{ListValue, Struct, Value as Message, value::Kind};

/// The options of a job by their plain names, such as `job_name` or `flink_master`.
pub type JobOptions = Map<String, Value>;

/// Options as a job service wants them. Names that are URNs already stay as they are.
pub fn to_struct(options: &JobOptions) -> Struct {
    let urn = |name: &str| {
        if name.starts_with("beam:") { name.to_owned() } else { format!("beam:option:{name}:v1") }
    };
    Struct { fields: options.iter().map(|(name, value)| (urn(name), message(value))).collect() }
}

/// Options as a worker is told them; numbers that are whole become integers again.
pub fn from_struct(options: &Struct) -> JobOptions {
    // Dataflow hands on what it was given when the job was made: `{"options": {…}, "display_data": […]}`.
    if let Some(Kind::StructValue(inner)) =
        options.fields.get("options").and_then(|value| value.kind.as_ref())
    {
        return from_struct(inner);
    }
    let plain = |name: &str| {
        let inner = name.strip_prefix("beam:option:").and_then(|rest| rest.strip_suffix(":v1"));
        inner.unwrap_or(name).to_owned()
    };
    options.fields.iter().map(|(name, value)| (plain(name), json(value))).collect()
}

/// Options from JSON, as the variable `PIPELINE_OPTIONS` and the flag `--options` hold them.
///
/// # Errors
/// When it is not an object.
pub fn from_json(text: &str) -> Result<JobOptions> {
    let refused = |why: String| {
        Error::new(
            ErrorKind::InvalidArgument,
            "TB0705",
            format!("the pipeline options given to this worker are {why}"),
        )
    };
    let value: Value = serde_json::from_str(text).map_err(|error| refused(format!("not JSON: {error}")))?;
    let Value::Object(all) = value else { return Err(refused("no JSON object".to_owned())) };
    // Beam's older workers are given `{"options": {…}}`, newer ones URNs.
    if let Some(Value::Object(inner)) = all.get("options") {
        return Ok(inner.clone());
    }
    let fields = all.iter().map(|(name, value)| (name.clone(), message(value))).collect();
    Ok(from_struct(&Struct { fields }))
}

fn message(value: &Value) -> Message {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(message).collect() }),
        Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(name, value)| (name.clone(), message(value))).collect(),
        }),
    };
    Message { kind: Some(kind) }
}

fn json(message: &Message) -> Value {
    match &message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        // Every number is a double on the wire.
        Some(Kind::NumberValue(value)) if value.fract() == 0.0 && value.abs() < 9e15 => {
            Value::Number((*value as i64).into())
        }
        Some(Kind::NumberValue(value)) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(value)) => Value::String(value.clone()),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(json).collect()),
        Some(Kind::StructValue(inner)) => {
            Value::Object(inner.fields.iter().map(|(name, value)| (name.clone(), json(value))).collect())
        }
    }
}

/// Options as texts, for comparing: strings as they are, all else as JSON.
pub fn as_texts(options: &JobOptions) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    options.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_go_out_and_come_back() {
        let Value::Object(options) =
            json!({"job_name": "a", "n": 3, "half": 0.5, "list": ["x", null, true], "in": {"deep": -1}})
        else {
            unreachable!()
        };
        let sent = to_struct(&options);
        assert!(sent.fields.contains_key("beam:option:job_name:v1"));
        assert_eq!(from_struct(&sent), options);
    }

    #[test]
    fn options_are_read_in_both_of_beams_forms() {
        for text in [r#"{"beam:option:n:v1": 3}"#, r#"{"options": {"n": 3}}"#, r#"{"n": 3}"#] {
            assert_eq!(from_json(text).unwrap().get("n"), Some(&json!(3)), "{text}");
        }
        let dataflows = message(&json!({"options": {"n": 3}, "display_data": []}));
        let Some(Kind::StructValue(dataflows)) = dataflows.kind else { unreachable!() };
        assert_eq!(from_struct(&dataflows).get("n"), Some(&json!(3)));
        for text in ["", "3", "[1]", "{"] {
            assert!(from_json(text).is_err(), "{text}");
        }
    }
}
