//! Reading csv: what files hold, what they must not, and where it is told.

use bytes::Bytes;
use proptest::prelude::*;
use tiebeam_core::{ErrorKind, FieldType, TypeKind};

use super::*;
use crate::csv::infer::guess;
use crate::csv::{CsvFormat, infer_schema, write};
use crate::read::testing::{file, read_cut};
use crate::sink::RecordFormat;

fn schema(fields: &[(&str, FieldType)]) -> Arc<Schema> {
    Arc::new(Schema::of(fields.iter().map(|(name, t)| (*name, t.clone()))))
}

const INT: FieldType = FieldType::required(TypeKind::Int64);
const DOUBLE: FieldType = FieldType::required(TypeKind::Double);
const STRING: FieldType = FieldType::required(TypeKind::String);

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn read_with(reader: &CsvReader, bytes: &[u8], cuts: &[u64]) -> (Vec<Vec<Value>>, Vec<(Bytes, String)>) {
    let (_dir, path) = file("x.csv", bytes);
    let (good, bad) = read_cut(reader, &path, &Listing::default(), cuts).unwrap();
    let bad =
        bad.into_iter().map(|(bytes, error)| (bytes, error.to_string().replace(&path, "x.csv"))).collect();
    (good.into_iter().map(|row| row.values.to_vec()).collect(), bad)
}

fn fails(reader: &CsvReader, bytes: &[u8]) -> String {
    let (_dir, path) = file("x.csv", bytes);
    let error = read_cut(reader, &path, &Listing::default(), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    format!("{}: {}", error.code(), error.to_string().replace(&path, "x.csv"))
}

#[test]
fn rows_have_the_schemas_types() {
    let schema = schema(&[
        ("s", STRING),
        ("i", INT),
        ("d", DOUBLE),
        ("b", FieldType::required(TypeKind::Boolean)),
        ("n", FieldType::nullable(TypeKind::Int32)),
        ("f", FieldType::required(TypeKind::Float)),
        ("y", FieldType::required(TypeKind::Bytes)),
    ]);
    let reader = CsvReader::new(schema);
    let (rows, bad) = read_with(
        &reader,
        "\u{feff}y,n,f,b,d,i,s\r\nab,,0.5,True,1e3, 7 ,\"a,\"\"b\"\"\r\nc\"\r\nx,NA,-inf,false,NaN,-9223372036854775808,é\n".as_bytes(),
        &[],
    );
    assert_eq!(bad, []);
    assert_eq!(
        rows[0],
        [
            text("a,\"b\"\r\nc"),
            Value::Int64(7),
            Value::Double(1000.0),
            Value::Bool(true),
            Value::Null,
            Value::Float(0.5),
            Value::Bytes(Bytes::from_static(b"ab")),
        ]
    );
    assert_eq!(rows[1][..2], [text("é"), Value::Int64(i64::MIN)]);
    assert!(matches!(rows[1][2], Value::Double(n) if n.is_nan()));
    assert_eq!(rows[1][5], Value::Float(f32::NEG_INFINITY));
    assert_eq!(rows.len(), 2);
}

#[test]
fn bad_rows_are_told_with_their_place() {
    let reader = CsvReader::new(schema(&[("a", INT), ("b", STRING)]));
    let (rows, bad) = read_with(
        &reader,
        b"a,b\n1,x\n\n2\n3,y,z\nfour,w\n,v\n5,\"q\nr\"\n6,\xff\n99999999999999999999,k\n7,end",
        &[],
    );
    assert_eq!(
        rows,
        [
            vec![Value::Int64(1), text("x")],
            vec![Value::Int64(5), text("q\nr")],
            vec![Value::Int64(7), text("end")]
        ]
    );
    let shown: Vec<(&[u8], &str)> = bad.iter().map(|(bytes, error)| (&**bytes, &**error)).collect();
    assert_eq!(
        shown,
        [
            (&b"2"[..], "a record has 1 fields, wanted 2, at x.csv:4 (byte offset 9)"),
            (b"3,y,z", "a record has 3 fields, wanted 2, at x.csv:5 (byte offset 11)"),
            (b"four,w", "column `a` is `four`, wanted int64, at x.csv:6 (byte offset 17)"),
            (b",v", "column `a` is empty, wanted int64, at x.csv:7 (byte offset 24)"),
            (b"6,\xff", "column `b` is not UTF-8: `\u{fffd}`, at x.csv:10 (byte offset 35)"),
            (
                b"99999999999999999999,k",
                "column `a` is `99999999999999999999`, wanted int64, at x.csv:11 (byte offset 39)"
            ),
        ]
    );
}

#[test]
fn open_quotes_do_not_swallow_the_rest() {
    let reader = CsvReader::new(schema(&[("a", INT), ("b", STRING)]));
    let (rows, bad) = read_with(&reader, b"a,b\n1,x\n2,\"y\n3,z\n", &[]);
    assert_eq!(rows, [vec![Value::Int64(1), text("x")]]);
    let wanted = "a quoted field is never closed: the file ends inside it, at x.csv:3 (byte offset 8)";
    assert_eq!(bad, [(Bytes::from_static(b"2,\"y\n3,z\n"), wanted.to_owned())]);
    let (_dir, path) = file("x.csv", format!("a,b\n2,\"y\n{}", "3,z\n".repeat(100)).as_bytes());
    let listing = Listing { max_record: 50, ..Listing::default() };
    let (_, bad) = read_cut(&reader, &path, &listing, &[]).unwrap();
    assert_eq!(bad[0].1.message(), "a record is longer than 50 bytes; is a quote missing or too much?");
}

#[test]
fn headers_must_fit_the_schema() {
    let reader = CsvReader::new(schema(&[("a", INT), ("b", STRING)]));
    assert_eq!(fails(&reader, b"a,c\n1,x\n"), "TB0423: there is no column `b`, at x.csv:1 (byte offset 0)");
    assert_eq!(
        fails(&reader, b"a,b,c\n1,x,y\n"),
        "TB0423: column `c` is not in the schema, at x.csv:1 (byte offset 0)"
    );
    let lax = CsvReader { ignores_extra_columns: true, ..reader.clone() };
    assert_eq!(read_with(&lax, b"c,b,a\n1,x,2\n", &[]).0, [vec![Value::Int64(2), text("x")]]);
    assert_eq!(
        fails(&reader, b"a,\xff\n"),
        "TB0406: the header is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0, at x.csv:1 (byte offset 0)"
    );
    assert_eq!(read_with(&reader, b"a,b\n", &[]).0, Vec::<Vec<Value>>::new());
    assert_eq!(read_with(&reader, b"\n\n", &[]).0, Vec::<Vec<Value>>::new());
    let bare = CsvReader {
        dialect: Dialect { has_header: false, delimiter: b'\t', quote: b'\'' },
        ..reader.clone()
    };
    assert_eq!(read_with(&bare, b"1\t'x\ty'\n", &[]).0, [vec![Value::Int64(1), text("x\ty")]]);
    let twice = CsvReader::new(schema(&[("a", INT), ("a.1", INT), ("Unnamed: 2", INT)]));
    assert_eq!(read_with(&twice, b"a,a,\n1,2,3\n", &[]).0.len(), 1);
}

#[test]
fn what_cannot_be_read_is_refused_while_the_pipeline_is_built() {
    let array = FieldType::required(TypeKind::Array(Box::new(INT)));
    let p = tiebeam_graph::Pipeline::new();
    p.apply(crate::csv::read("x", schema(&[("a", array)])));
    p.apply(crate::csv::read("x", schema(&[("a", INT)])).with_dialect(Dialect::delimited_by(b'"')));
    let Err(errors) = p.build() else { panic!("built") };
    let messages: Vec<_> = errors.0.iter().map(|(error, _)| error.message().to_owned()).collect();
    assert_eq!(
        messages,
        [
            "column `a` cannot be read from csv as array",
            "delimiter and quote are two different ASCII characters, got '\"' and '\"'",
        ]
    );
}

#[test]
fn files_without_line_breaks_in_fields_can_be_cut_anywhere() {
    let reader =
        CsvReader { has_embedded_newlines: false, ..CsvReader::new(schema(&[("a", INT), ("b", STRING)])) };
    assert!(reader.is_splittable());
    let bytes = b"a,b\r\n1,x\r\n2,\"y,z\"\r\n\r\n3,\r\n4,end";
    let wanted = read_with(&reader, bytes, &[]).0;
    assert_eq!(wanted.len(), 4);
    for first in 0..=bytes.len() as u64 {
        for second in first..=bytes.len() as u64 {
            assert_eq!(read_with(&reader, bytes, &[first, second]).0, wanted, "{first} {second}");
        }
    }
}

#[test]
fn types_are_guessed_as_pandas_does() {
    for (fields, kind, nullable) in [
        (&["1", "-2", "+3", " 4 "][..], TypeKind::Int64, false),
        (&["1", "2.5"], TypeKind::Double, false),
        (&["1", ""], TypeKind::Int64, true),
        (&["1e5", "inf", "nan"], TypeKind::Double, true),
        (&["True", "false", "TRUE"], TypeKind::Boolean, false),
        (&["True", "NA"], TypeKind::Boolean, true),
        (&["True", "1"], TypeKind::String, false),
        (&["yes"], TypeKind::String, false),
        (&["1_000"], TypeKind::String, false),
        (&["0x10"], TypeKind::String, false),
        (&["9223372036854775807"], TypeKind::Int64, false),
        (&["9223372036854775808"], TypeKind::String, false),
        (&["1.5", "123456789012345678901"], TypeKind::String, false),
        (&["", "NA"], TypeKind::String, true),
        (&[], TypeKind::String, true),
        (&["2024-01-01"], TypeKind::String, false),
    ] {
        assert_eq!(guess(fields), FieldType { kind, nullable }, "{fields:?}");
    }
}

#[test]
fn a_schema_is_guessed_from_the_first_file_with_rows() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.csv", "");
    write("b.csv", "value,name,a,a,\n1.5,x,,1,True\n2,,,2,False\n");
    write("c.csv", "other\n1\n");
    let infer = |pattern: &str, dialect: &Dialect| {
        infer_schema(&format!("{}/{pattern}", dir.path().display()), dialect, &Listing::default())
    };
    assert_eq!(
        infer("*.csv", &Dialect::default()).unwrap(),
        Schema::of([
            ("value", DOUBLE),
            ("name", FieldType::nullable(TypeKind::String)),
            ("a", FieldType::nullable(TypeKind::String)),
            ("a.1", INT),
            ("Unnamed: 4", FieldType::required(TypeKind::Boolean)),
        ])
    );
    let bare = Dialect { has_header: false, ..Dialect::default() };
    assert_eq!(infer("c.csv", &bare).unwrap(), Schema::of([("0", STRING)]));
    assert_eq!(infer("a.csv", &bare).unwrap_err().code(), "TB0423");
    assert_eq!(infer("d.csv", &bare).unwrap_err().kind(), ErrorKind::NotFound);
    write("ragged.csv", "a,b\n1,2\n3\n");
    let error = infer("ragged.csv", &Dialect::default()).unwrap_err();
    assert_eq!((error.code(), error.place().unwrap().line), ("TB0421", Some(3)));
    write("long.csv", &format!("a\n{}x\n", "1\n".repeat(1000)));
    assert_eq!(
        infer("long.csv", &Dialect::default()).unwrap(),
        Schema::of([("a", INT)]),
        "a sample of 1000 rows"
    );
}

#[test]
fn hostile_headers_take_no_long_time() {
    let same = format!("{}a\n1\n", "a,".repeat(200_000));
    let (_dir, path) = file("x.csv", same.as_bytes());
    let error = infer_schema(&path, &Dialect::default(), &Listing::default()).unwrap_err();
    assert_eq!(error.message(), "a record has 1 fields, wanted 200001");
    let reader = CsvReader::new(schema(&[("a.200000", INT)]));
    let lax = CsvReader { ignores_extra_columns: true, ..reader };
    let (_, bad) = read_cut(&lax, &path, &Listing::default(), &[]).unwrap();
    assert_eq!(bad.len(), 1);
}

fn written(format: &CsvFormat, rows: &[Row]) -> String {
    let mut out = format.header(rows.first()).unwrap().unwrap_or_default();
    let mut state = Default::default();
    rows.iter().for_each(|row| format.write(&mut state, row, &mut out).unwrap());
    String::from_utf8(out).unwrap()
}

fn format() -> CsvFormat {
    let mut taken = None;
    let _ = write("x").map_format(|format| {
        taken = Some(format.clone());
        format
    });
    taken.unwrap()
}

#[test]
fn rows_are_written_as_pandas_does() {
    let inner = schema(&[("k", INT)]);
    let schema = schema(&[
        ("a,b", STRING),
        ("d", DOUBLE),
        ("n", FieldType::nullable(TypeKind::Int64)),
        ("t", FieldType::required(TypeKind::Boolean)),
        ("y", FieldType::required(TypeKind::Bytes)),
        ("r", FieldType::required(TypeKind::Row(inner.clone()))),
    ]);
    let row = |s: &str, d: f64| {
        let nested = Value::Row(Row::new(inner.clone(), [Value::Int64(1)]));
        let y = Value::Bytes(Bytes::from_static(b"\xff\x00"));
        Row::new(schema.clone(), [text(s), Value::Double(d), Value::Null, Value::Bool(true), y, nested])
    };
    assert_eq!(
        written(&format(), &[row("x", 100.0), row("say \"é\"\n", 1e-5), row("", f64::NAN)]),
        "\"a,b\",d,n,t,y,r\n\
         x,100.0,,True,/wA=,\"{\"\"k\"\":1}\"\n\
         \"say \"\"é\"\"\n\",1e-05,,True,/wA=,\"{\"\"k\"\":1}\"\n\
         ,,,True,/wA=,\"{\"\"k\"\":1}\"\n"
    );
    assert_eq!(written(&format(), &[]), "", "no rows and no schema: no header");
}

#[test]
fn rows_of_other_columns_are_refused() {
    let format = format();
    let one = Row::new(schema(&[("a", INT)]), [Value::Int64(1)]);
    let same = Row::new(schema(&[("a", INT)]), [Value::Int64(2)]);
    let other = Row::new(schema(&[("b", INT)]), [Value::Int64(3)]);
    let (mut state, mut out) = (None, Vec::new());
    format.write(&mut state, &one, &mut out).unwrap();
    format.write(&mut state, &same, &mut out).unwrap();
    let error = format.write(&mut state, &other, &mut out).unwrap_err();
    assert_eq!(error.message(), "a row has the columns b, wanted a");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_comes_back(rows in prop::collection::vec(("[a\",\r\n \u{e9}x]{0,8}", any::<f64>()), 1..6)) {
        let schema = schema(&[("s", STRING), ("d", FieldType::nullable(TypeKind::Double))]);
        let written_rows: Vec<Row> = rows.iter()
            .map(|(s, d)| Row::new(schema.clone(), [text(s), Value::Double(*d)]))
            .collect();
        let file_text = written(&format(), &written_rows);
        let (read, bad) = read_with(&CsvReader::new(schema), file_text.as_bytes(), &[]);
        prop_assert_eq!(bad, vec![]);
        let wanted: Vec<Vec<Value>> = rows.iter()
            .map(|(s, d)| vec![text(s), if d.is_nan() { Value::Null } else { Value::Double(*d) }])
            .collect();
        prop_assert_eq!(read, wanted);
    }

    #[test]
    fn any_bytes_are_borne(bytes in prop::collection::vec(prop::sample::select(b"a1,\"\n\r\xff".to_vec()), 0..40)) {
        let reader = CsvReader::new(schema(&[("a", FieldType::nullable(TypeKind::Int64))]));
        let (_dir, path) = file("x.csv", &[&b"a\n"[..], &bytes].concat());
        read_cut(&reader, &path, &Listing::default(), &[]).unwrap();
        let _ = infer_schema(&path, &Dialect::default(), &Listing::default());
    }
}
