//! An element as JSON, by the coder that it travels by: whoever looks on sees values and no bytes.

use tiebeam_core::coder::schema_proto::decode_schema;
use tiebeam_core::coder::{row_coder, urn};
use tiebeam_core::{CoderSpec, Nesting, Reader, Result, Value};
use tiebeam_runner::Sample;

use serde_json::{Map, Value as Json, json};

/// Longer lists are cut.
const MOST: usize = 32;

/// An element with its time and windows, where it has some of its own.
pub(super) fn element(coder: &CoderSpec, sample: &Sample) -> Json {
    let mut shown = Map::new();
    let mut reader = Reader::new(sample.encoded.clone());
    let value = value(coder, &mut reader, Nesting::Nested).unwrap_or_else(|_| raw(&sample.encoded));
    shown.insert("value".to_owned(), value);
    if sample.info.timestamp > tiebeam_core::Timestamp::MIN {
        shown.insert("time".to_owned(), json!(sample.info.timestamp.to_string()));
    }
    let windows = sample.info.windows.as_slice();
    if windows.iter().any(|window| *window != tiebeam_core::Window::Global) {
        let windows: Vec<String> = windows.iter().map(|window| format!("{window:?}")).collect();
        shown.insert("windows".to_owned(), json!(windows));
    }
    Json::Object(shown)
}

/// The next value of a reader.
fn value(coder: &CoderSpec, reader: &mut Reader, nesting: Nesting) -> Result<Json> {
    let bytes = |reader: &mut Reader| match nesting {
        Nesting::Nested => {
            let length = reader.length()?;
            reader.take(length)
        }
        Nesting::Outer => Ok(reader.take_rest()),
    };
    Ok(match (coder.urn.as_str(), coder.components.as_slice()) {
        (urn::BYTES, _) => raw(&bytes(reader)?),
        (urn::STRING_UTF8, _) => json!(String::from_utf8_lossy(&bytes(reader)?)),
        (urn::VARINT, _) => json!(reader.varint()?),
        (urn::BOOL, _) => json!(reader.u8()? != 0),
        (urn::DOUBLE, _) => json!(f64::from_be_bytes(reader.array()?)),
        (urn::UNIT, _) => Json::Null,
        (urn::KV, [key, of_key]) => {
            let key = value(key, reader, Nesting::Nested)?;
            json!([key, value(of_key, reader, nesting)?])
        }
        (urn::NULLABLE, [inner]) => match reader.u8()? {
            0 => Json::Null,
            _ => value(inner, reader, nesting)?,
        },
        (urn::LENGTH_PREFIX, [inner]) => {
            let length = reader.length()?;
            reader.within(length, |reader| value(inner, reader, Nesting::Outer))?
        }
        (urn::ITERABLE | urn::STATE_BACKED_ITERABLE, [inner]) => list(inner, reader)?,
        (urn::ROW, _) => {
            let coder = row_coder(std::sync::Arc::new(decode_schema(coder.payload.clone())?));
            plain(&Value::Row(coder.decode(reader, nesting)?))
        }
        // A coder of the program's own: what it holds is not known here.
        _ => json!({ "coder": coder.to_string(), "bytes": reader.take_rest().len() }),
    })
}

fn list(inner: &CoderSpec, reader: &mut Reader) -> Result<Json> {
    let mut values = Vec::new();
    let mut more = 0usize;
    let mut push = |reader: &mut Reader| -> Result<()> {
        let value = value(inner, reader, Nesting::Nested)?;
        if values.len() < MOST {
            values.push(value);
        } else {
            more += 1;
        }
        Ok(())
    };
    match i32::from_be_bytes(reader.array()?) {
        -1 => loop {
            match reader.varint()? {
                0 | i64::MIN..0 => break,
                n => (0..n).try_for_each(|_| push(reader))?,
            }
        },
        n => (0..n).try_for_each(|_| push(reader))?,
    }
    if more > 0 {
        values.push(json!(format!("… {more} more")));
    }
    Ok(Json::Array(values))
}

/// Bytes: their number, and the first of them.
fn raw(bytes: &[u8]) -> Json {
    let hex: String = bytes.iter().take(MOST).map(|byte| format!("{byte:02x}")).collect();
    json!({ "bytes": bytes.len(), "hex": hex })
}

/// A value of a row.
fn plain(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Byte(value) => json!(value),
        Value::Int16(value) => json!(value),
        Value::Int32(value) => json!(value),
        Value::Int64(value) => json!(value),
        Value::Float(value) => json!(value),
        Value::Double(value) => json!(value),
        Value::String(text) => json!(&**text),
        Value::Bytes(bytes) => raw(bytes),
        Value::Array(values) => {
            let mut shown: Vec<Json> = values.iter().take(MOST).map(plain).collect();
            if values.len() > MOST {
                shown.push(json!(format!("… {} more", values.len() - MOST)));
            }
            Json::Array(shown)
        }
        Value::Map(entries) => {
            let entry = |(key, value): (&Value, &Value)| {
                let key = plain(key);
                (key.as_str().map_or_else(|| key.to_string(), str::to_owned), plain(value))
            };
            Json::Object(entries.iter().map(|(key, value)| entry((key, value))).collect())
        }
        Value::Row(row) => {
            #[cfg(feature = "inference")]
            if row.schema.fields.len() == 3
                && row.schema.fields.iter().map(|f| &*f.name).eq(["dtype", "shape", "data"])
                && let Ok(tensor) = tiebeam_inference::Tensor::from_value(value)
            {
                return json!({ "dtype": tensor.dtype().name(), "shape": tensor.shape(), "values": plain(&tensor.to_value()) });
            }
            let fields = row.schema.fields.iter().zip(row.values.iter());
            Json::Object(fields.map(|(field, value)| (field.name.to_string(), plain(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use tiebeam_core::{Element, WindowInfo};

    use super::*;

    fn shown<T: Element>(value: &T) -> Json {
        let coder = T::coder();
        let mut encoded = Vec::new();
        coder.encode(value, &mut encoded, Nesting::Nested).unwrap();
        let sample = Sample { encoded: encoded.into(), info: WindowInfo::GLOBAL };
        element(&coder.spec(), &sample)["value"].clone()
    }

    #[test]
    fn elements_are_shown_as_what_they_are() {
        assert_eq!(shown(&-3i64), json!(-3));
        assert_eq!(shown(&"a\u{fc}".to_owned()), json!("a\u{fc}"));
        assert_eq!(shown(&("k".to_owned(), 1.5f64)), json!(["k", 1.5]));
        assert_eq!(shown(&(7i64, (true, "x".to_owned()))), json!([7, [true, "x"]]));
        assert_eq!(shown(&vec![Some(1i64), None]), json!([1, null]));
        assert_eq!(shown(&tiebeam_core::Bytes::from_static(&[1, 255])), json!({ "bytes": 2, "hex": "01ff" }));
        let many = shown(&(0..100i64).collect::<Vec<_>>());
        assert_eq!((many.as_array().unwrap().len(), &many[32]), (33, &json!("… 68 more")));
    }

    #[cfg(feature = "inference")]
    #[test]
    fn a_tensor_is_shown_with_its_numbers() {
        let tensor = tiebeam_inference::Tensor::new(&[2, 2], vec![1f32, 2.0, 3.0, 4.5]).unwrap();
        let wanted = json!({ "dtype": "float32", "shape": [2, 2], "values": [[1.0, 2.0], [3.0, 4.5]] });
        assert_eq!(shown(&tensor), wanted);
    }

    #[test]
    fn what_cannot_be_read_is_shown_as_bytes() {
        let sample = Sample { encoded: vec![9].into(), info: WindowInfo::GLOBAL };
        assert_eq!(
            element(&CoderSpec::leaf(urn::STRING_UTF8), &sample),
            json!({ "value": { "bytes": 1, "hex": "09" } })
        );
    }
}
