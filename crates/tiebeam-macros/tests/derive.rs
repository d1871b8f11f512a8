//! Derived elements: their schemas, their bytes, and how they turn into rows and back.

// Its own functions are part of the tests, which clippy can't see.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tiebeam_core::coder::{row_coder, schema_proto, urn};
use tiebeam_core::{Bytes, CoderSpec, Element, Nesting, Reader, Row, RowElement, Schema, Timestamp, Value};

#[derive(Debug, Clone, PartialEq, Element)]
struct Visit {
    name: String,
    #[element(rename = "class")]
    kind: Option<Kind>,
    score: f32,
    counts: Vec<Option<u32>>,
    place: Option<Place>,
    labels: BTreeMap<Arc<str>, i64>,
    id: Id,
    r#type: bool,
    raw: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Element)]
enum Kind {
    #[element(rename = "a cat")]
    Cat,
    Dog,
}

#[derive(Debug, Clone, PartialEq, Element)]
struct Place {
    x: i16,
    y: i32,
    z: i8,
}

#[derive(Debug, Clone, PartialEq, Eq, Element)]
struct Id(u64);

#[derive(Debug, Clone, PartialEq, Element)]
struct Loose {
    by_name: HashMap<String, f64>,
}

fn visit() -> Visit {
    Visit {
        name: "Ann".to_owned(),
        kind: Some(Kind::Cat),
        score: 0.5,
        counts: vec![Some(7), None],
        place: None,
        labels: [("a".into(), 1)].into(),
        id: Id(300),
        r#type: true,
        raw: Bytes::from_static(b"\0\xff"),
    }
}

#[test]
fn a_struct_is_a_row_of_its_fields() {
    assert_eq!(
        Visit::schema().to_string(),
        "name: STRING, class: STRING?, score: FLOAT, counts: ARRAY<INT64?>, place: ROW<x: INT16, y: INT32, z: BYTE>?, \
         labels: MAP<STRING, INT64>, id: INT64, type: BOOLEAN, raw: BYTES"
    );
    let coder = Visit::coder();
    let bytes = b"\x09\x02\x10\0\x03Ann\x05a cat\x3f\0\0\0\0\0\0\x02\x01\x07\0\0\0\0\x01\x01a\x01\xac\x02\x01\x02\0\xff";
    assert_eq!(coder.to_bytes(&visit()).unwrap(), bytes);
    assert_eq!(coder.from_bytes(&bytes[..]).unwrap(), visit());
    // Fields behind the last absent one may be left out of the bitmap, as Java does.
    let full = Visit { place: Some(Place { x: -2, y: -1, z: -3 }), ..visit() };
    let encoded = coder.to_bytes(&full).unwrap();
    assert_eq!(&encoded[..2], [9, 0]);
    assert_eq!(coder.from_bytes(encoded).unwrap(), full);
}

#[test]
fn the_struct_and_its_row_have_the_same_bytes() {
    for visit in
        [visit(), Visit { kind: None, place: Some(Place { x: 1, y: 2, z: 3 }), counts: vec![], ..visit() }]
    {
        let row = visit.to_row();
        assert_eq!(Visit::from_row(&row).unwrap(), visit);
        let rows = row_coder(Visit::schema());
        assert_eq!(rows.spec(), Visit::coder().spec());
        let bytes = Visit::coder().to_bytes(&visit).unwrap();
        assert_eq!(rows.to_bytes(&row).unwrap(), bytes);
        assert_eq!(rows.from_bytes(bytes).unwrap(), row);
    }
}

#[test]
fn keys_must_be_the_same_bytes_every_time() {
    assert!(Place::coder().is_deterministic());
    assert!(Id::coder().is_deterministic());
    assert!(Kind::coder().is_deterministic());
    assert!(!Visit::coder().is_deterministic(), "it has a float");
    assert!(!Loose::coder().is_deterministic(), "a HashMap has no order");
}

#[test]
fn wrappers_and_enums_travel_as_what_they_hold() {
    assert_eq!(Id::coder().spec(), CoderSpec::leaf(urn::VARINT));
    assert_eq!(Id::coder().to_bytes(&Id(300)).unwrap(), [0xac, 2]);
    let wrapped = CoderSpec::of(urn::LENGTH_PREFIX, [CoderSpec::leaf(urn::VARINT)]);
    assert_eq!(Id::coder_of(&wrapped).unwrap().to_bytes(&Id(300)).unwrap(), [2, 0xac, 2]);
    let mut out = Vec::new();
    Kind::coder().encode(&Kind::Dog, &mut out, Nesting::Nested).unwrap();
    assert_eq!(out, b"\x03Dog");
    assert_eq!(Kind::coder().decode(&mut Reader::new(out), Nesting::Nested).unwrap(), Kind::Dog);
    let error = Kind::coder().from_bytes(&b"Cow"[..]).unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        ("TB0122", "`Cow` is no value of Kind, wanted one of `a cat`, `Dog`")
    );
}

fn reordered() -> Schema {
    let mut schema = (*Place::schema()).clone();
    schema.fields.reverse();
    schema.id = "00000000-0000-0000-0000-000000000001".to_owned();
    schema
}

#[test]
fn another_language_may_order_the_fields() {
    let place = Place { x: 1, y: 2, z: 3 };
    let spec = row_coder(reordered().into()).spec();
    let coder = Place::coder_of(&spec).unwrap();
    assert_eq!(coder.spec(), spec);
    assert_eq!(coder.to_bytes(&place).unwrap(), [3, 0, 3, 2, 0, 1]);
    assert_eq!(coder.from_bytes(&[3, 0, 3, 2, 0, 1][..]).unwrap(), place);
    let mut schema = (*Place::schema()).clone();
    schema.encoding_positions = Some(vec![1, 0, 2]);
    let spec = CoderSpec { payload: schema_proto::encode_schema(&schema), ..CoderSpec::leaf(urn::ROW) };
    assert_eq!(Place::coder_of(&spec).unwrap().to_bytes(&place).unwrap(), [3, 0, 2, 0, 1, 3]);
    let mut schema = reordered();
    schema.fields.pop();
    let error = Place::coder_of(&row_coder(schema.into()).spec()).unwrap_err();
    assert_eq!(
        error.message(),
        "rows of (z: BYTE, y: INT32), the program's type has (x: INT16, y: INT32, z: BYTE)"
    );
}

#[test]
fn rows_that_do_not_fit_are_refused_by_name() {
    let row = |values: Vec<Value>| Row::new(Place::schema(), values);
    let message = |row: Row| Place::from_row(&row).unwrap_err().message().to_owned();
    assert_eq!(
        message(row(vec![Value::Int16(1), Value::Int64(2), Value::Byte(3)])),
        "field `y`: a value Int64(2), wanted INT32"
    );
    assert_eq!(message(Row::new(Id2::schema(), [Value::Int32(1)])), "a row of (y: INT32) has no field `x`");
    let refused = |bytes: &'static [u8]| Place::coder().from_bytes(bytes).unwrap_err().message().to_owned();
    assert_eq!(refused(&[3, 1, 1]), "field `x` has no value and is not nullable");
    assert_eq!(refused(&[2, 0, 0, 1, 2]), "field `z` has no value and is not nullable");
    assert_eq!(refused(&[4, 0]), "a row of 4 fields, the schema has 3");
    assert_eq!(refused(&[3, 0, 0]), "field `x`: encoding cut off: wanted 2 bytes, 1 left");
}

#[derive(Debug, Clone, PartialEq, Element)]
struct Event {
    at: Timestamp,
    until: Option<Timestamp>,
}

#[test]
fn times_are_beams_instants() {
    let event = Event { at: Timestamp::from_micros(-1_500_000), until: Some(Timestamp::MAX) };
    let bytes = Event::coder().to_bytes(&event).unwrap();
    assert_eq!(&bytes[..4], [2, 0, 2, 0]);
    assert_eq!(Event::coder().from_bytes(bytes.clone()).unwrap(), event);
    assert_eq!(row_coder(Event::schema()).to_bytes(&event.to_row()).unwrap(), bytes);
    assert_eq!(Event::from_row(&event.to_row()).unwrap(), event);
    let seconds = Value::Row(Row::new(Id2::schema(), [Value::Int64(-2), Value::Int64(500_000)]));
    let row = Row::new(Event::schema(), [seconds, Value::Null]);
    assert_eq!(Event::from_row(&row).unwrap(), Event { until: None, ..event });
}

#[derive(Debug, Clone, Element)]
#[element(crate = "tiebeam_core")]
struct Id2 {
    y: i32,
}

#[test]
fn what_cannot_travel_is_told_where_it_stands() {
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}
