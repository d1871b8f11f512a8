//! Rows with all types, for the tests of formats with schemas of their own.

#![allow(clippy::panic)] // the tests' own functions, too

use std::sync::Arc;

use tiebeam_core::{Bytes, FieldType, Row, Schema, TypeKind, Value};

use crate::avro::types::{MICROS, MILLIS, instant, micros_schema};

fn required(kind: TypeKind) -> FieldType {
    FieldType::required(kind)
}

fn list(of: FieldType) -> TypeKind {
    TypeKind::Array(Box::new(of))
}

/// A schema with every type; `short` integers are as wide as the format keeps them.
pub(crate) fn schema(short: bool) -> Arc<Schema> {
    let inner = Arc::new(Schema::of([
        ("a", FieldType::nullable(TypeKind::Int64)),
        ("b", required(list(required(TypeKind::String)))),
    ]));
    let (byte, int16) =
        if short { (TypeKind::Byte, TypeKind::Int16) } else { (TypeKind::Int32, TypeKind::Int32) };
    let text = || Box::new(required(TypeKind::String));
    Arc::new(Schema::of([
        ("bool", required(TypeKind::Boolean)),
        ("byte", required(byte)),
        ("int16", FieldType::nullable(int16)),
        ("int32", required(TypeKind::Int32)),
        ("int64", FieldType::nullable(TypeKind::Int64)),
        ("float", required(TypeKind::Float)),
        ("double", FieldType::nullable(TypeKind::Double)),
        ("text", FieldType::nullable(TypeKind::String)),
        ("bytes", required(TypeKind::Bytes)),
        ("millis", required(instant(MILLIS))),
        ("micros", FieldType::nullable(instant(MICROS))),
        ("list", FieldType::nullable(list(FieldType::nullable(TypeKind::Double)))),
        ("lists", required(list(required(list(required(TypeKind::Int64)))))),
        ("map", required(TypeKind::Map(text(), Box::new(FieldType::nullable(TypeKind::Int64))))),
        ("row", FieldType::nullable(TypeKind::Row(inner.clone()))),
        ("rows", FieldType::nullable(list(FieldType::nullable(TypeKind::Row(inner))))),
    ]))
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn array(values: impl IntoIterator<Item = Value>) -> Value {
    Value::Array(values.into_iter().collect())
}

/// Rows of [`schema`]: full ones, empty ones, ones of nulls, in turn.
pub(crate) fn rows(count: usize, short: bool) -> Vec<Row> {
    let schema = schema(short);
    let TypeKind::Row(inner) = &schema.fields[14].field_type.kind else { panic!("no row") };
    let row = |a: Option<i64>, b: &[&str]| {
        let b = array(b.iter().map(|one| text(one)));
        Value::Row(Row::new(inner.clone(), vec![a.map_or(Value::Null, Value::Int64), b]))
    };
    (0..count)
        .map(|i| {
            let n = i as i64;
            let gone = i % 3 == 1;
            let unless = |value: Value| if gone { Value::Null } else { value };
            let int =
                |value: i64| if short { Value::Int16(value as i16) } else { Value::Int32(value as i32) };
            let micros = Row::new(micros_schema(), vec![Value::Int64(n - 1), Value::Int64(999_999)]);
            let full = i % 3 == 0;
            Row::new(
                schema.clone(),
                vec![
                    Value::Bool(i % 2 == 0),
                    if short { Value::Byte((i % 100) as i8 - 50) } else { Value::Int32(i as i32 - 50) },
                    unless(int(n % 1_000)),
                    Value::Int32(i32::MIN + i as i32),
                    unless(Value::Int64(i64::MAX - n)),
                    Value::Float(n as f32 / 2.0),
                    unless(Value::Double(n as f64 / 3.0)),
                    unless(text(&format!("row {i} \u{e9}"))),
                    Value::Bytes(Bytes::from(vec![i as u8; i % 5])),
                    Value::Int64(-n),
                    unless(Value::Row(micros)),
                    unless(array(
                        (0..i % 4).map(|k| if k == 1 { Value::Null } else { Value::Double(k as f64) }),
                    )),
                    array((0..i % 3).map(|k| array((0..k).map(|m| Value::Int64(m as i64))))),
                    Value::Map((0..i % 3).map(|k| (text(&k.to_string()), unless(Value::Int64(n)))).collect()),
                    unless(row(full.then_some(n), if full { &["x", "y"] } else { &[] })),
                    unless(array(
                        [row(None, &["z"]), Value::Null, row(Some(n), &[])].into_iter().take(i % 4),
                    )),
                ],
            )
        })
        .collect()
}
