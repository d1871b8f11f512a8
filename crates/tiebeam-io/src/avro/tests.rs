//! Rows there and back, files of others, and hostile ones.

use std::sync::Arc;

use tiebeam_core::{Error, FieldType, Row, Schema, TypeKind, Value};

use super::schema::Avro;
use super::write::write_long;
use super::*;
use crate::ranges::FileRange;
use crate::read::{RangeReader, Records};
use crate::sink::RecordFormat;
use crate::tables_tests::{rows, schema};

fn written(format: &AvroFormat, rows: &[Row]) -> Vec<u8> {
    let mut out = format.header(rows.first()).unwrap().unwrap();
    let mut block = Default::default();
    rows.iter().for_each(|row| format.write(&mut block, row, &mut out).unwrap());
    format.finish(&mut block, &mut out).unwrap();
    out
}

/// What is read of bytes that are cut in parts of `part` bytes: rows, and what is wrong.
fn read_all(bytes: &[u8], schema: &Arc<Schema>, part: u64) -> (Vec<Row>, Vec<Error>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.avro").display().to_string();
    std::fs::write(&path, bytes).unwrap();
    let size = bytes.len() as u64;
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut start = 0;
    while start < size {
        let end = (start + part).min(size);
        let range = FileRange { path: path.clone(), size, start, end };
        let mut emit = |all: Vec<Row>| {
            good.extend(all);
            Ok(())
        };
        let mut wrong = Vec::new();
        let mut fail = |_: bytes::Bytes, error: Error| {
            wrong.push(error);
            Ok(())
        };
        let mut records = Records::new(&mut emit, &mut fail);
        let ended = AvroReader::new(schema.clone()).read(&range, &Listing::default(), &mut records);
        records.flush().unwrap();
        bad.extend(wrong);
        bad.extend(ended.err());
        start = end;
    }
    (good, bad)
}

fn whole(bytes: &[u8], schema: &Arc<Schema>) -> Vec<Row> {
    let (rows, bad) = read_all(bytes, schema, u64::MAX / 4);
    assert!(bad.is_empty(), "{bad:?}");
    rows
}

#[test]
fn rows_of_all_types_come_back_in_every_codec() {
    let schema = schema(false);
    let rows = rows(500, false);
    for codec in [Codec::None, Codec::Deflate, Codec::Snappy, Codec::Zstd] {
        let format = AvroFormat::new(&schema, codec).unwrap();
        let bytes = written(&format, &rows);
        assert_eq!(whole(&bytes, &schema), rows, "{codec:?}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.avro").display().to_string();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(infer_schema(&path, &Listing::default()).unwrap(), *schema);
    }
}

#[test]
fn parts_of_a_file_have_each_row_once() {
    let schema = schema(false);
    let rows = rows(6_000, false);
    let bytes = written(&AvroFormat::new(&schema, Codec::None).unwrap(), &rows);
    assert!(bytes.len() > 400_000, "{}", bytes.len());
    for part in [1_000, 65_536, 70_001, 333_333] {
        let (seen, bad) = read_all(&bytes, &schema, part);
        assert!(bad.is_empty(), "{bad:?}");
        assert_eq!(seen, rows, "{part}");
    }
}

#[test]
fn files_of_one_schema_are_put_together() {
    let schema = schema(false);
    let rows = rows(50, false);
    let format = AvroFormat::new(&schema, Codec::Deflate).unwrap();
    let (mut a, b) = (written(&format, &rows[..20]), written(&format, &rows[20..]));
    let header = format.header(None).unwrap().unwrap();
    a.extend_from_slice(b.strip_prefix(&*header).unwrap());
    assert_eq!(whole(&a, &schema), rows);
    assert_eq!(whole(&header, &schema), []);
}

#[test]
fn columns_are_chosen_and_widened() {
    let own = schema(false);
    let bytes = written(&AvroFormat::new(&own, Codec::None).unwrap(), &rows(3, false));
    let wanted = Arc::new(Schema::of([
        ("int32", FieldType::required(TypeKind::Int64)),
        ("new", FieldType::nullable(TypeKind::String)),
        ("bool", FieldType::required(TypeKind::Boolean)),
    ]));
    let seen = whole(&bytes, &wanted);
    assert_eq!(seen[1].values[0], Value::Int64(i64::from(i32::MIN) + 1));
    assert_eq!(seen[1].values[1..], [Value::Null, Value::Bool(false)]);
    let said =
        |fields: Schema| read_all(&bytes, &Arc::new(fields), u64::MAX / 4).1.remove(0).message().to_owned();
    let one = |name, field| Schema::of([(name, field)]);
    assert_eq!(said(one("no", FieldType::required(TypeKind::Int64))), "the file has no column `no`");
    assert_eq!(
        said(one("text", FieldType::required(TypeKind::Int64))),
        "column `text` is STRING?, not INT64"
    );
    assert_eq!(
        said(one("int64", FieldType::required(TypeKind::Int64))),
        "the Avro file is damaged: a block of 3 records is damaged: field `int64` is null"
            .replace("the Avro file is damaged: ", "")
    );
}

#[test]
fn schemas_of_others_are_read() {
    let parsed = |text: &str| Avro::parse(text.as_bytes()).map(|avro| avro.field().to_string());
    let record = |fields: &str| {
        format!(r#"{{"type": "record", "name": "R", "namespace": "n.s", "fields": [{fields}]}}"#)
    };
    let named = record(
        r#"{"name": "a", "type": {"type": "fixed", "name": "Hash", "size": 4}}, {"name": "b", "type": ["Hash", "null"]},
           {"name": "c", "type": ["null", "n.s.Hash"]}, {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["X"]}},
           {"name": "t", "type": {"type": "long", "logicalType": "timestamp-micros"}}, {"name": "d", "type": {"type": "int", "logicalType": "date"}},
           {"name": "m", "type": {"type": "map", "values": {"type": "array", "items": "float"}}}, {"name": "u", "type": ["string"]}"#,
    );
    assert_eq!(
        parsed(&named).unwrap(),
        "ROW<a: BYTES, b: BYTES?, c: BYTES?, e: STRING, t: LOGICAL<beam:logical_type:micros_instant:v1>, d: INT32, \
         m: MAP<STRING, ARRAY<FLOAT>>, u: STRING>"
    );
    for (fields, wanted) in [
        (
            r#"{"name": "a", "type": ["int", "string"]}"#,
            "field `a`: a union of several types, which rows have not: only one type and null",
        ),
        (
            r#"{"name": "a", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4}}"#,
            "field `a`: decimals are not available",
        ),
        (r#"{"name": "a", "type": ["null", "R"]}"#, "field `a`: `R` contains itself, which rows cannot"),
        (r#"{"name": "a", "type": "Nothing"}"#, "field `a`: there is no type `Nothing`"),
        (r#"{"name": "a"}"#, "a type lacks `type`"),
    ] {
        assert_eq!(parsed(&record(fields)).unwrap_err(), wanted);
    }
    let deep = format!("{}\"int\"{}", r#"{"type": "array", "items": "#.repeat(100), "}".repeat(100));
    assert_eq!(parsed(&deep).unwrap_err(), "types are more than 60 deep");
}

#[test]
fn what_avro_cannot_hold_is_refused() {
    let said = |name: &str, field| {
        AvroFormat::new(&Arc::new(Schema::of([(name, field)])), Codec::None).unwrap_err().message().to_owned()
    };
    let int = || Box::new(FieldType::required(TypeKind::Int64));
    assert_eq!(
        said("a", FieldType::required(TypeKind::Map(int(), int()))),
        "Avro cannot hold these rows: field `a`: keys of maps are strings in Avro, not INT64"
    );
    assert_eq!(
        said("a-b", FieldType::required(TypeKind::Int64)),
        "Avro cannot hold these rows: field `a-b`: names are of letters, digits and `_` in Avro"
    );
    let schema = Arc::new(Schema::of([("a", FieldType::required(TypeKind::Int64))]));
    let format = AvroFormat::new(&schema, Codec::None).unwrap();
    let row = Row::new(schema, vec![Value::Null]);
    let error = format.write(&mut Default::default(), &row, &mut Vec::new()).unwrap_err();
    assert_eq!(error.message(), "field `a`: Null where the schema says INT64");
}

#[test]
fn damage_is_told_with_its_place() {
    let schema = schema(false);
    let rows = rows(30, false);
    for codec in [Codec::None, Codec::Deflate, Codec::Snappy, Codec::Zstd] {
        let bytes = written(&AvroFormat::new(&schema, codec).unwrap(), &rows);
        for cut in (0..bytes.len() - 1).step_by(37) {
            let (seen, bad) = read_all(&bytes[..cut], &schema, u64::MAX / 4);
            assert!(seen.is_empty() || seen.len() == rows.len());
            if let Some(error) = bad.first() {
                assert!(error.place().is_some_and(|place| place.file.ends_with("x.avro")), "{error:?}");
            }
        }
        // Every change of a byte: read, or told, but never a panic.
        let mut state = 1u64;
        for _ in 0..400 {
            let mut changed = bytes.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % changed.len();
                changed[at] = (state >> 20) as u8;
            }
            let _ = read_all(&changed, &schema, u64::MAX / 4);
        }
    }
    let (_, bad) = read_all(b"no file of Avro's", &schema, u64::MAX / 4);
    assert_eq!(bad[0].message(), "the Avro file is damaged: it does not begin as one");
}

#[test]
fn promises_are_not_believed() {
    // Blocks of more values than there are bytes, and of more bytes than there are.
    let header = |schema: &str| {
        let mut out = b"Obj\x01".to_vec();
        write_long(1, &mut out);
        for part in ["avro.schema", schema] {
            write_long(part.len() as i64, &mut out);
            out.extend_from_slice(part.as_bytes());
        }
        write_long(0, &mut out);
        out.extend_from_slice(&[7; 16]);
        out
    };
    let wanted = Arc::new(Schema::of([("a", FieldType::nullable(TypeKind::String))]));
    let mut nulls = header(r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "null"}]}"#);
    write_long(i64::MAX, &mut nulls);
    write_long(0, &mut nulls);
    nulls.extend_from_slice(&[7; 16]);
    let (rows, bad) = read_all(&nulls, &wanted, u64::MAX / 4);
    assert_eq!(rows.len(), 0);
    assert!(bad[0].message().ends_with("it has more values than bytes"), "{}", bad[0].message());
    let mut long = header(r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]}"#);
    write_long(1, &mut long);
    write_long(1 << 25, &mut long);
    let (_, bad) = read_all(&long, &wanted, u64::MAX / 4);
    assert!(bad[0].message().ends_with("it ends too early"), "{}", bad[0].message());
}
