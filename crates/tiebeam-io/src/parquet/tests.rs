//! Rows there and back, files of pyarrow's, and hostile ones.

use std::sync::Arc;

use tiebeam_core::{Error, FieldType, Row, Schema, TypeKind, Value};

use super::*;
use crate::fs::local::Local;
use crate::ranges::FileRange;
use crate::read::{RangeReader, Records};
use crate::sink::RecordFormat;
use crate::tables_tests::{rows, schema};

fn written(format: &ParquetFormat, rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut file = None;
    for row in rows {
        format.write(&mut file, row, &mut out).unwrap();
    }
    format.finish(&mut file, &mut out).unwrap();
    out
}

fn read_file(path: &str, size: u64, schema: &Arc<Schema>, part: u64) -> (Vec<Row>, Vec<Error>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut start = 0;
    while start < size {
        let end = start.saturating_add(part).min(size);
        let range = FileRange { path: path.to_owned(), size, start, end };
        let mut emit = |all: Vec<Row>| {
            good.extend(all);
            Ok(())
        };
        let mut fail = |_: bytes::Bytes, error: Error| Err(error);
        let mut records = Records::new(&mut emit, &mut fail);
        let ended = ParquetReader::new(schema.clone()).read(&range, &Listing::default(), &mut records);
        records.flush().unwrap();
        bad.extend(ended.err());
        start = end;
    }
    (good, bad)
}

fn read_all(bytes: &[u8], schema: &Arc<Schema>, part: u64) -> (Vec<Row>, Vec<Error>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet").display().to_string();
    std::fs::write(&path, bytes).unwrap();
    read_file(&path, bytes.len() as u64, schema, part)
}

fn whole(bytes: &[u8], schema: &Arc<Schema>) -> Vec<Row> {
    let (rows, bad) = read_all(bytes, schema, u64::MAX);
    assert!(bad.is_empty(), "{bad:?}");
    rows
}

#[test]
fn rows_of_all_types_come_back_in_every_codec() {
    let schema = schema(true);
    let rows = rows(3_000, true);
    for codec in [Codec::None, Codec::Snappy, Codec::Gzip, Codec::Zstd, Codec::Lz4] {
        let bytes = written(&ParquetFormat::new(&schema, codec).unwrap(), &rows);
        let seen = whole(&bytes, &schema);
        assert_eq!(seen.len(), rows.len());
        for (a, b) in seen.iter().zip(&rows) {
            assert_eq!(a, b, "{codec:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet").display().to_string();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(infer_schema(&path, &Listing::default()).unwrap().to_string(), schema.to_string());
    }
}

#[test]
fn files_are_put_together_and_read_in_parts() {
    let schema = schema(true);
    let rows = rows(900, true);
    let format = ParquetFormat::new(&schema, Codec::Snappy).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (i, part) in rows.chunks(300).enumerate() {
        let path = dir.path().join(format!("{i}")).display().to_string();
        let bytes = written(&format, part);
        std::fs::write(&path, &bytes).unwrap();
        files.push((path, bytes.len() as u64));
    }
    let mut joined = Vec::new();
    let local: Arc<dyn crate::fs::FileSystem> = Arc::new(Local);
    join(&local, &files, &mut joined).unwrap();
    assert_eq!(whole(&joined, &schema), rows);
    for part in [100, 10_000, 33_333] {
        let (seen, bad) = read_all(&joined, &schema, part);
        assert!(bad.is_empty(), "{bad:?}");
        assert_eq!(seen, rows, "{part}");
    }
    let empty = format.header(None).unwrap().unwrap();
    assert_eq!(whole(&empty, &schema), []);
}

#[test]
fn columns_are_chosen() {
    let own = schema(true);
    let rows = rows(10, true);
    let bytes = written(&ParquetFormat::new(&own, Codec::None).unwrap(), &rows);
    let wanted = Arc::new(Schema::of([
        ("rows", own.fields[15].field_type.clone()),
        ("new", FieldType::nullable(TypeKind::String)),
        ("int32", FieldType::required(TypeKind::Int64)),
    ]));
    let seen = whole(&bytes, &wanted);
    assert_eq!(seen[3].values[0], rows[3].values[15]);
    assert_eq!(seen[3].values[1..], [Value::Null, Value::Int64(i64::from(i32::MIN) + 3)]);
    let none = Arc::new(Schema::of([("new", FieldType::nullable(TypeKind::String))]));
    assert_eq!(whole(&bytes, &none).len(), 10);
    let no = Arc::new(Schema::of([("no", FieldType::required(TypeKind::String))]));
    assert_eq!(read_all(&bytes, &no, u64::MAX).1[0].message(), "the file has no column `no`");
}

#[test]
fn rows_that_do_not_fit_are_refused_and_leave_nothing() {
    let schema = Arc::new(Schema::of([
        ("a", FieldType::required(TypeKind::Int64)),
        ("b", FieldType::required(TypeKind::String)),
    ]));
    let format = ParquetFormat::new(&schema, Codec::None).unwrap();
    let row = |a: i64, b: Value| Row::new(schema.clone(), vec![Value::Int64(a), b]);
    let (mut file, mut out) = (None, Vec::new());
    let good = row(1, Value::String("x".into()));
    format.write(&mut file, &good, &mut out).unwrap();
    let error = format.write(&mut file, &row(2, Value::Null), &mut out).unwrap_err();
    assert_eq!(error.message(), "field `b`: Null where the schema says STRING");
    format.finish(&mut file, &mut out).unwrap();
    assert_eq!(whole(&out, &schema), [good]);
    let decimal = Arc::new(tiebeam_core::row::LogicalType {
        urn: "beam:logical_type:decimal:v1".to_owned(),
        payload: Vec::new(),
        representation: FieldType::required(TypeKind::String),
        argument: None,
    });
    let decimal = Schema::of([("d", FieldType::required(TypeKind::Logical(decimal)))]);
    let error = ParquetFormat::new(&Arc::new(decimal), Codec::None).unwrap_err();
    assert_eq!(error.message(), "Parquet cannot hold these rows: field `d`: decimals are not available");
}

#[test]
fn damage_is_told_with_the_file() {
    let schema = schema(true);
    let rows = rows(40, true);
    for codec in [Codec::None, Codec::Snappy, Codec::Zstd] {
        let bytes = written(&ParquetFormat::new(&schema, codec).unwrap(), &rows);
        for cut in (0..bytes.len()).step_by(211) {
            let (seen, bad) = read_all(&bytes[..cut], &schema, u64::MAX);
            assert!(seen.is_empty(), "{cut}");
            if cut > 0 {
                assert!(
                    bad[0].place().is_some_and(|place| place.file.ends_with("x.parquet")),
                    "{:?}",
                    bad[0]
                );
            }
        }
        let mut state = 1u64;
        for _ in 0..300 {
            let mut changed = bytes.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % changed.len();
                changed[at] = (state >> 20) as u8;
            }
            let _ = read_all(&changed, &schema, u64::MAX);
        }
    }
    let (_, bad) = read_all(b"no file of Parquet's", &schema, u64::MAX);
    assert_eq!(bad[0].message(), "the Parquet file is damaged: it does not end as one");
}
