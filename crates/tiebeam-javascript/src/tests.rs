//! What programs give, and how hostile ones end.

use std::sync::Arc;

use tiebeam_core::row::{FieldType, Schema, TypeKind};

use super::*;

fn schema() -> Arc<Schema> {
    Arc::new(Schema::of([
        ("name", FieldType::required(TypeKind::String)),
        ("n", FieldType::required(TypeKind::Int64)),
        ("x", FieldType::nullable(TypeKind::Double)),
        ("big", FieldType::required(TypeKind::Int64)),
        ("xs", FieldType::required(TypeKind::Array(Box::new(FieldType::required(TypeKind::Int64))))),
        ("raw", FieldType::required(TypeKind::Bytes)),
        ("class", FieldType::required(TypeKind::Int64)),
    ]))
}

fn row() -> Row {
    let values = vec![
        Value::String("Ada \u{1f600}".into()),
        Value::Int64(7),
        Value::Null,
        Value::Int64(i64::MAX),
        Value::Array([Value::Int64(3), Value::Int64(1)].into()),
        Value::Bytes(vec![1, 2].into()),
        Value::Int64(0),
    ];
    Row::new(schema(), values)
}

fn value(text: &str) -> Result<Value, Exception> {
    Program::expression(text, &schema())?.call(&row())
}

fn called(text: &str) -> Result<Value, Exception> {
    Program::function(text)?.call(&row())
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

#[test]
fn expressions_see_columns() {
    for (expression, wanted) in [
        ("name.toUpperCase()", text("ADA \u{1f600}")),
        ("n + 1", Value::Int64(8)),
        ("n / 2", Value::Double(3.5)),
        ("x", Value::Null),
        ("x === null ? -1 : x", Value::Int64(-1)),
        ("-0.0", Value::Double(-0.0)),
        ("0.1 + 0.2", Value::Double(0.1 + 0.2)),
        ("big", Value::Int64(i64::MAX)),
        ("big - 1n", Value::Int64(i64::MAX - 1)),
        ("[...xs].sort()", Value::Array([Value::Int64(1), Value::Int64(3)].into())),
        ("raw", Value::Bytes(vec![1, 2].into())),
        ("raw.length", Value::Int64(2)),
        ("undefined", Value::Null),
        ("/(\\d+)/.exec('a12')[1]", text("12")),
        ("new Date(0)", text("1970-01-01T00:00:00.000Z")),
        (
            "({a: n, b: [name.length]})",
            Value::Map(
                [(text("a"), Value::Int64(7)), (text("b"), Value::Array([Value::Int64(6)].into()))].into(),
            ),
        ),
        ("n > 5 &&\n  name.startsWith('A') // a comment", Value::Bool(true)),
    ] {
        assert_eq!(value(expression), Ok(wanted), "{expression}");
    }
}

#[test]
fn functions_see_the_row() {
    for function in [
        "row => row.n * 2",
        "(row) => { return row.n * 2; }",
        "function (row) { return row.n * 2 }",
        "function twice(row) {\n  return row.n * 2;\n}\n",
        "function helper(n) { return n * 2; }\nfunction main(row) { return helper(row.n); }",
        "const k = 2;\nfunction main(row) {\n  return row.n * k;\n}\n;main",
    ] {
        assert_eq!(called(function), Ok(Value::Int64(14)), "{function}");
    }
    let program = Program::function("row => row.class").unwrap();
    assert_eq!(program.call(&row()), Ok(Value::Int64(0)));
    let all: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4).map(|_| scope.spawn(|| program.call(&row()))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    assert_eq!(all, vec![Ok(Value::Int64(0)); 4]);
}

#[test]
fn what_goes_wrong_is_an_exception_with_its_line() {
    let told = |raised: Exception| (raised.kind, raised.message, raised.line);
    let owned = |kind: &str, message: &str, line| (kind.to_owned(), message.to_owned(), line);
    let raised = called("row => {\n  const n = row.n;\n  return row.none.length;\n}").unwrap_err();
    assert_eq!(told(raised), owned("TypeError", "cannot read property 'length' of undefined", Some(3)));
    let raised = called("row => { throw new RangeError('too far'); }").unwrap_err();
    assert_eq!(told(raised), owned("RangeError", "too far", Some(1)));
    let raised = called("row => { throw 'a text'; }").unwrap_err();
    assert_eq!(told(raised), owned("Error", "a text", None));
    let raised = value("n +\n* 2").unwrap_err();
    assert_eq!((raised.kind.as_str(), raised.line), ("SyntaxError", Some(2)));
    assert_eq!(value("nothing").unwrap_err().kind, "ReferenceError");
    assert_eq!(called("42").unwrap_err().kind, "TypeError");
    assert_eq!(value("() => 1").unwrap_err().message, "a row holds no function");
    assert_eq!(value("Symbol()").unwrap_err().message, "a row holds no symbol");
    assert_eq!(value("require('fs')").unwrap_err().kind, "ReferenceError");
    assert_eq!(value("fetch('http://127.0.0.1')").unwrap_err().kind, "ReferenceError");
}

#[test]
fn hostile_programs_end() {
    assert_eq!(called("row => { while (true) {} }").unwrap_err().kind, "TimeoutError");
    assert_eq!(
        called("row => { try { while (true) {} } catch (e) { return 1 } }").unwrap_err().kind,
        "TimeoutError"
    );
    let deep = called("function f(row) { return f(row) }").unwrap_err();
    assert!(deep.message.contains("stack"), "{deep:?}");
    for hungry in [
        "row => { const all = []; while (true) all.push(new Array(1000).fill(1)) }",
        "row => 'x'.repeat(1 << 29)",
        "row => new Uint8Array(1 << 30)",
    ] {
        assert!(called(hungry).is_err(), "{hungry}");
    }
    assert_eq!(value("new Array(4000000000)").unwrap_err().message, "a value of more than 1048576 parts");
    assert_eq!(
        called("row => { const a = []; a.push(a); return a }").unwrap_err().message,
        "a value is more than 64 deep"
    );
    for text in ["(", "[", "{", "-", "!", "1+", "f(", "`${", "a?.", "x=>"] {
        let part = text.repeat((LONGEST - 200) / text.len());
        assert!(value(&part).is_err(), "{text}");
        assert!(called(&part).is_err(), "{text}");
    }
    assert!(value(&"1".repeat(LONGEST + 1)).is_err());
    // A program goes on behind one that ran out of time.
    let program = Program::function("row => { if (row.n === 7) while (true) {} }").unwrap();
    assert!(program.call(&row()).is_err() && program.call(&row()).is_err());
}
