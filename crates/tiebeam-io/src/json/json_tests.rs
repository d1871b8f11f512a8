//! Reading and writing JSON lines.

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::json::{JsonFormat, infer_schema};
use crate::read::testing::{file, read_cut};
use crate::sink::RecordFormat;

fn schema(fields: &[(&str, FieldType)]) -> Arc<Schema> {
    Arc::new(Schema::of(fields.iter().map(|(name, t)| (*name, t.clone()))))
}

fn required(kind: TypeKind) -> FieldType {
    FieldType::required(kind)
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn nested() -> Arc<Schema> {
    let inner = schema(&[("x", required(TypeKind::Double)), ("y", FieldType::nullable(TypeKind::String))]);
    schema(&[
        ("i", required(TypeKind::Int64)),
        ("r", FieldType::nullable(TypeKind::Row(inner))),
        ("l", FieldType::nullable(TypeKind::Array(Box::new(FieldType::nullable(TypeKind::Int32))))),
        (
            "m",
            FieldType::nullable(TypeKind::Map(
                Box::new(required(TypeKind::String)),
                Box::new(required(TypeKind::Boolean)),
            )),
        ),
        ("b", FieldType::nullable(TypeKind::Bytes)),
    ])
}

fn read(reader: &JsonReader, text: &[u8]) -> (Vec<Row>, Vec<String>) {
    let (_dir, path) = file("x.jsonl", text);
    let (good, bad) = read_cut(reader, &path, &Listing::default(), &[]).unwrap();
    (
        good,
        bad.into_iter()
            .map(|(_, e)| format!("{}: {}", e.code(), e.to_string().replace(&path, "x")))
            .collect(),
    )
}

#[test]
fn nested_values_are_read_by_the_schema() {
    let reader = JsonReader::new(nested());
    let (rows, bad) = read(
        &reader,
        br#"{"i": 1, "r": {"y": "a\u00e9\ud83d\ude00", "x": 2}, "l": [1, null, 3.0], "m": {"k": true, "k": false}, "b": "/wA="}

{"b":null,"i":-9223372036854775808}
{"i":1,"i":2}
"#,
    );
    assert_eq!(bad, Vec::<String>::new());
    let values = &rows[0].values;
    let Value::Row(inner) = &values[1] else { panic!() };
    assert_eq!(inner.values.to_vec(), [Value::Double(2.0), text("aé😀")]);
    assert_eq!(values[2], Value::Array([Value::Int32(1), Value::Null, Value::Int32(3)].into()));
    assert_eq!(values[3], Value::Map([(text("k"), Value::Bool(false))].into()));
    assert_eq!(values[4], Value::Bytes(Bytes::from_static(b"\xff\x00")));
    assert_eq!(rows[1].values[0], Value::Int64(i64::MIN));
    assert_eq!(rows[1].values[1..], [Value::Null, Value::Null, Value::Null, Value::Null]);
    assert_eq!(rows[2].values[0], Value::Int64(2), "the last of two equal keys counts");
}

#[test]
fn numbers_are_exact() {
    let reader = JsonReader::new(schema(&[("d", required(TypeKind::Double))]));
    for number in
        ["0.1", "1.7976931348623157e308", "5e-324", "9007199254740993", "3.141592653589793238462643"]
    {
        let (rows, _) = read(&reader, format!("{{\"d\":{number}}}").as_bytes());
        assert_eq!(rows[0].values[0], Value::Double(number.parse().unwrap()), "{number}");
    }
}

#[test]
fn bad_lines_say_what_is_wrong_and_where() {
    let reader = JsonReader::new(nested());
    let long = format!("{{\"i\":{}", "[".repeat(1000));
    let lines = [
        "{\"i\": 1",
        "{\"i\": 1} x",
        "[1]",
        "7",
        "{}",
        "{\"i\": null}",
        "{\"i\": \"1\"}",
        "{\"i\": 1.5}",
        "{\"i\": 9223372036854775808}",
        "{\"i\": 1, \"j\": 2}",
        "{\"i\": 1, \"r\": {\"x\": true}}",
        "{\"i\": 1, \"r\": {\"y\": null}}",
        "{\"i\": 1, \"r\": 5}",
        "{\"i\": 1, \"l\": [1, 2, \"3\"]}",
        "{\"i\": 1, \"l\": [2147483648]}",
        "{\"i\": 1, \"m\": {\"k\": 0}}",
        "{\"i\": 1, \"b\": \"a\"}",
        "{\"i\": NaN}",
        &long,
    ];
    let mut bytes = lines.join("\n").into_bytes();
    bytes.extend_from_slice(b"\n{\"i\": 1, \"r\": {\"x\": 1, \"y\": \"\xff\"}}");
    let (rows, bad) = read(&reader, &bytes);
    assert_eq!(rows.len(), 0);
    expect![[r#"
        TB0430: a line is not JSON: EOF while parsing an object, at its column 7, at x:1 (byte offset 0)
        TB0430: a line is not JSON: trailing characters, at its column 10, at x:2 (byte offset 8)
        TB0431: invalid type: sequence, expected an object, at x:3 (byte offset 19)
        TB0431: invalid type: integer `7`, expected an object, at x:4 (byte offset 23)
        TB0431: field `i` is missing, at x:5 (byte offset 25)
        TB0431: field `i` is null, at x:6 (byte offset 28)
        TB0431: invalid type: string "1", expected int64 for `i`, at x:7 (byte offset 40)
        TB0431: invalid type: floating point `1.5`, expected int64 for `i`, at x:8 (byte offset 51)
        TB0431: invalid value: integer `9223372036854775808`, expected int64 for `i`, at x:9 (byte offset 62)
        TB0431: field `j` is not in the schema, at x:10 (byte offset 89)
        TB0431: invalid type: boolean `true`, expected double for `r.x`, at x:11 (byte offset 106)
        TB0431: field `r.x` is missing, at x:12 (byte offset 133)
        TB0431: invalid type: integer `5`, expected row for `r`, at x:13 (byte offset 160)
        TB0431: invalid type: string "3", expected int32 for `l[2]`, at x:14 (byte offset 177)
        TB0431: invalid value: integer `2147483648`, expected int32 for `l[0]`, at x:15 (byte offset 204)
        TB0431: invalid type: integer `0`, expected boolean for `m.k`, at x:16 (byte offset 232)
        TB0431: invalid value: string "a", expected base64 text, at x:17 (byte offset 256)
        TB0430: a line is not JSON: expected value, at its column 7, at x:18 (byte offset 275)
        TB0431: invalid type: sequence, expected int64 for `i`, at x:19 (byte offset 286)
        TB0430: a line is not JSON: invalid unicode code point, at its column 30, at x:20 (byte offset 1292)"#]]
    .assert_eq(&bad.join("\n"));
    let lax = JsonReader { ignores_unknown: true, ..reader };
    let (rows, bad) =
        read(&lax, format!("{{\"j\":{{\"k\":[1]}},\"i\":1}}\n{{\"j\":{}", "[".repeat(100_000)).as_bytes());
    assert_eq!((rows.len(), bad.len()), (1, 1), "what is skipped is not followed into the depth");
}

#[test]
fn depth_is_bounded() {
    let mut field_type = required(TypeKind::Int64);
    for _ in 0..200 {
        field_type = required(TypeKind::Array(Box::new(field_type)));
    }
    let reader = JsonReader::new(schema(&[("d", field_type)]));
    let (_, bad) = read(&reader, format!("{{\"d\":{}1{}}}", "[".repeat(200), "]".repeat(200)).as_bytes());
    assert_eq!(
        bad,
        ["TB0430: a line is not JSON: recursion limit exceeded, at its column 132, at x:1 (byte offset 0)"]
    );
    let (_dir, path) = file("x", format!("{{\"d\":{}", "[".repeat(100_000)).as_bytes());
    assert_eq!(infer_schema(&path, &Listing::default()).unwrap_err().code(), "TB0430");
}

#[test]
fn maps_with_other_keys_are_refused_while_the_pipeline_is_built() {
    let map = TypeKind::Map(Box::new(required(TypeKind::Int64)), Box::new(required(TypeKind::Int64)));
    let p = tiebeam_graph::Pipeline::new();
    p.apply(crate::json::read("x", schema(&[("m", required(map))])));
    let Err(errors) = p.build() else { panic!("built") };
    assert_eq!(
        errors.0[0].0.message(),
        "field `m` cannot be read from JSON: the keys of an object are strings"
    );
}

#[test]
fn schemas_are_guessed() {
    let infer = |text: &str| {
        let (_dir, path) = file("x", text.as_bytes());
        infer_schema(&path, &Listing::default())
            .map_err(|e| format!("{}: {}", e.code(), e.to_string().replace(&path, "x")))
    };
    let inner = schema(&[("k", required(TypeKind::Int64)), ("q", FieldType::nullable(TypeKind::Boolean))]);
    assert_eq!(
        infer("{\"z\":1,\"a\":\"x\",\"n\":null,\"l\":[1,2.5,null],\"o\":{\"k\":1}}\n\n{\"a\":null,\"z\":2.5,\"l\":[],\"o\":{\"k\":1,\"q\":true},\"new\":1,\"n\":null}\n").unwrap(),
        Schema::of([
            ("z", required(TypeKind::Double)),
            ("a", FieldType::nullable(TypeKind::String)),
            ("n", FieldType::nullable(TypeKind::String)),
            ("l", required(TypeKind::Array(Box::new(FieldType::nullable(TypeKind::Double))))),
            ("o", required(TypeKind::Row(inner))),
            ("new", FieldType::nullable(TypeKind::Int64)),
        ])
    );
    assert_eq!(
        infer("{\"a\":18446744073709551615}").unwrap(),
        Schema::of([("a", required(TypeKind::Double))])
    );
    assert_eq!(
        infer("{\"o\":{\"a\":1}}\n{\"o\":{\"a\":\"x\"}}").unwrap_err(),
        "TB0432: field `o.a` is a string, but a number in a line before, at x:2 (byte offset 14)"
    );
    assert_eq!(
        infer("[1]").unwrap_err(),
        "TB0431: a line is an array, wanted an object, at x:1 (byte offset 0)"
    );
    assert_eq!(infer("{\"a\":1").unwrap_err().split(':').next(), Some("TB0430"));
    assert_eq!(
        infer("").unwrap_err().split(',').next(),
        Some("TB0433: there is no line to tell the fields by: the file is empty")
    );
}

fn write(rows: &[Row]) -> String {
    let (mut state, mut out) = (Default::default(), Vec::new());
    rows.iter().for_each(|row| RecordFormat::write(&JsonFormat, &mut state, row, &mut out).unwrap());
    String::from_utf8(out).unwrap()
}

#[test]
fn rows_are_written_one_a_line() {
    let schema = schema(&[
        ("a\"", required(TypeKind::Int64)),
        ("d", required(TypeKind::Double)),
        ("f", required(TypeKind::Float)),
        ("s", required(TypeKind::String)),
        ("l", required(TypeKind::Array(Box::new(required(TypeKind::Double))))),
    ]);
    let list =
        Value::Array([Value::Double(1.0), Value::Double(f64::NAN), Value::Double(f64::INFINITY)].into());
    let row = Row::new(
        schema,
        [Value::Int64(-5), Value::Double(100.0), Value::Float(0.1), text("\u{1}\t\u{1f}é/\\\"\u{7f}"), list],
    );
    assert_eq!(
        write(&[row.clone(), row]),
        "{\"a\\\"\":-5,\"d\":100.0,\"f\":0.1,\"s\":\"\\u0001\\t\\u001fé/\\\\\\\"\u{7f}\",\"l\":[1.0,null,null]}\n".repeat(2)
    );
    let empty = Row::new(Arc::new(Schema::default()), []);
    assert_eq!(write(&[empty]), "{}\n");
    let map = Value::Map([(Value::Int64(1), Value::Null), (text("a"), Value::Bool(true))].into());
    let of = |value| Row::new(Arc::new(Schema::of([("m", required(TypeKind::Int64))])), [value]);
    assert_eq!(write(&[of(map)]), "{\"m\":{\"1\":null,\"a\":true}}\n");
    let bad = of(Value::Map([(Value::Null, Value::Null)].into()));
    let error = RecordFormat::write(&JsonFormat, &mut Default::default(), &bad, &mut Vec::new()).unwrap_err();
    assert_eq!(error.message(), "Null cannot be the key of a JSON object");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rows_come_back(
        s in any::<String>(),
        i in any::<i64>(),
        d in any::<f64>().prop_filter("finite", |d| d.is_finite()),
        f in any::<f32>().prop_filter("finite", |f| f.is_finite()),
        b in prop::collection::vec(any::<u8>(), 0..20),
        l in prop::collection::vec(prop::option::of(any::<i16>()), 0..4),
    ) {
        let schema = schema(&[
            ("s", required(TypeKind::String)),
            ("i", required(TypeKind::Int64)),
            ("d", required(TypeKind::Double)),
            ("f", required(TypeKind::Float)),
            ("b", required(TypeKind::Bytes)),
            ("l", required(TypeKind::Array(Box::new(FieldType::nullable(TypeKind::Int16))))),
        ]);
        let list: Vec<Value> = l.into_iter().map(|n| n.map_or(Value::Null, Value::Int16)).collect();
        let row = Row::new(schema.clone(), [
            text(&s), Value::Int64(i), Value::Double(d), Value::Float(f), Value::Bytes(b.into()), Value::Array(list.into()),
        ]);
        let line = write(std::slice::from_ref(&row));
        prop_assert_eq!(line.matches('\n').count(), 1);
        let (rows, bad) = read(&JsonReader::new(schema), line.as_bytes());
        prop_assert_eq!(bad, Vec::<String>::new());
        prop_assert_eq!(&rows[0], &row);
    }

    #[test]
    fn any_bytes_are_borne(bytes in prop::collection::vec(prop::sample::select(b"{}[]\":,1e-.ni\\\n\xff".to_vec()), 0..40)) {
        read(&JsonReader::new(nested()), &bytes);
        let (_dir, path) = file("x", &bytes);
        let _ = infer_schema(&path, &Listing::default());
    }
}
