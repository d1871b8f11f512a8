//! Values between rows and JavaScript.

use std::sync::Arc;

use rquickjs::{Array, BigInt, Ctx, Function, Object, Result, String as Text, TypedArray, Value as Js};
use tiebeam_core::row::{Row, Value};

use crate::Exception;

/// The largest integer of which all smaller ones are doubles too.
const SAFE: i64 = 1 << 53;

/// The deepest value.
const MAX_DEPTH: usize = 64;

/// The most values within one.
const MAX_VALUES: usize = 1 << 20;

/// Why a value is none that a row holds.
pub enum Unheld {
    /// No row holds such values.
    Exception(Exception),
    /// JavaScript raised something on the way.
    Raised(rquickjs::Error),
}

impl From<rquickjs::Error> for Unheld {
    fn from(error: rquickjs::Error) -> Self {
        Unheld::Raised(error)
    }
}

/// A row as an object.
pub fn row_to_js<'js>(cx: &Ctx<'js>, row: &Row) -> Result<Js<'js>> {
    let object = Object::new(cx.clone())?;
    for (field, value) in row.schema.fields.iter().zip(row.values.iter()) {
        object.set(&*field.name, to_js(cx, value)?)?;
    }
    Ok(object.into_value())
}

/// A value as JavaScript has it: integers are numbers as long as those hold them, bytes are a `Uint8Array`.
fn to_js<'js>(cx: &Ctx<'js>, value: &Value) -> Result<Js<'js>> {
    Ok(match value {
        Value::Null => Js::new_null(cx.clone()),
        Value::Bool(value) => Js::new_bool(cx.clone(), *value),
        Value::Byte(value) => Js::new_int(cx.clone(), i32::from(*value)),
        Value::Int16(value) => Js::new_int(cx.clone(), i32::from(*value)),
        Value::Int32(value) => Js::new_int(cx.clone(), *value),
        Value::Int64(value) => match i32::try_from(*value) {
            Ok(short) => Js::new_int(cx.clone(), short),
            Err(_) if (-SAFE..=SAFE).contains(value) => Js::new_float(cx.clone(), *value as f64),
            Err(_) => BigInt::from_i64(cx.clone(), *value)?.into_value(),
        },
        Value::Float(value) => Js::new_float(cx.clone(), f64::from(*value)),
        Value::Double(value) => Js::new_float(cx.clone(), *value),
        Value::String(text) => Text::from_str(cx.clone(), text)?.into_value(),
        Value::Bytes(bytes) => TypedArray::<u8>::new(cx.clone(), bytes.to_vec())?.into_value(),
        Value::Array(items) => {
            let array = Array::new(cx.clone())?;
            for (index, item) in items.iter().enumerate() {
                array.set(index, to_js(cx, item)?)?;
            }
            array.into_value()
        }
        Value::Map(entries) => {
            let object = Object::new(cx.clone())?;
            for (key, value) in entries.iter() {
                object.set(to_js(cx, key)?, to_js(cx, value)?)?;
            }
            object.into_value()
        }
        Value::Row(row) => row_to_js(cx, row)?,
    })
}

/// A value of JavaScript's as a row can hold it.
///
/// # Errors
/// When no row can.
pub fn from_js<'js>(cx: &Ctx<'js>, value: Js<'js>) -> std::result::Result<Value, Unheld> {
    Reader { cx, left: MAX_VALUES }.read(value, MAX_DEPTH)
}

struct Reader<'a, 'js> {
    cx: &'a Ctx<'js>,
    left: usize,
}

fn wrong(kind: &str, message: &str) -> Unheld {
    Unheld::Exception(Exception { kind: kind.to_owned(), message: message.to_owned(), line: None })
}

impl<'js> Reader<'_, 'js> {
    fn read(&mut self, value: Js<'js>, depth: usize) -> std::result::Result<Value, Unheld> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(wrong("RangeError", &format!("a value is more than {MAX_DEPTH} deep")));
        };
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| wrong("RangeError", &format!("a value of more than {MAX_VALUES} parts")))?;
        if value.is_null() || value.is_undefined() {
            return Ok(Value::Null);
        }
        if let Some(value) = value.as_bool() {
            return Ok(Value::Bool(value));
        }
        if let Some(value) = value.as_int() {
            return Ok(Value::Int64(i64::from(value)));
        }
        if let Some(value) = value.as_float() {
            let whole = value.trunc() == value
                && value.abs() <= SAFE as f64
                && (value != 0.0 || value.is_sign_positive());
            return Ok(if whole { Value::Int64(value as i64) } else { Value::Double(value) });
        }
        if let Some(text) = value.as_string() {
            return Ok(Value::String(text.to_string()?.into()));
        }
        if value.is_big_int() {
            let int = value.into_big_int().map(BigInt::to_i64);
            return match int {
                // What does not fit is cut by QuickJS; its text tells.
                Some(Ok(int)) => Ok(Value::Int64(int)),
                _ => Err(wrong("RangeError", "an integer of more than 64 bits")),
            };
        }
        if let Some(array) = value.as_array() {
            // Read as a property: arrays may say that they are longer than integers go.
            let length: f64 = array.as_object().get("length")?;
            let mut items = Vec::new();
            let mut index = 0u32;
            while f64::from(index) < length {
                items.push(self.read(array.as_object().get(index)?, depth)?);
                index = index.saturating_add(1);
            }
            return Ok(Value::Array(items.into()));
        }
        let Some(object) = value.as_object().filter(|_| !value.is_function() && !value.is_symbol()) else {
            return Err(wrong("TypeError", &format!("a row holds no {}", value.type_name())));
        };
        if let Some(bytes) = object.as_typed_array::<u8>() {
            // One by one: its buffer cannot be borrowed safely, since a program may change it.
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let all: Result<Vec<u8>> = (0..length).map(|index| object.get(index)).collect();
            return Ok(Value::Bytes(all?.into()));
        }
        // Dates and the like say themselves what stands for them.
        if let Ok(Some(to_json)) = object.get::<_, Option<Function<'js>>>("toJSON") {
            let told: Js<'js> = to_json.call((rquickjs::function::This(object.clone()),))?;
            return self.read(told, depth);
        }
        let mut entries: Vec<(Value, Value)> = Vec::new();
        for entry in object.props::<String, Js<'js>>() {
            let (key, value) = entry?;
            entries.push((Value::String(Arc::from(key)), self.read(value, depth)?));
        }
        let _ = self.cx;
        Ok(Value::Map(entries.into()))
    }
}
