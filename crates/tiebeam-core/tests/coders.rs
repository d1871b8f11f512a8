//! Coders as others see them: exact bytes, what is refused, and what a runner may do to their trees.

// Its own functions are part of the tests, which clippy can't see.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use tiebeam_core::coder::{
    self, IterableState, ShardedKey, Timer, TimerFiring, WindowCoder, WindowedValueCoder, row_coder,
    schema_proto, urn, windowed_value,
};
use tiebeam_core::window::CustomWindow;
use tiebeam_core::{
    Batch, Bytes, Coder, CoderSpec, Element, Error, FieldType, IntervalWindow, Iterable, Meta, Nesting, Pane,
    PaneTiming, Reader, Result, Row, Schema, Timestamp, TypeKind, Value, Window, WindowInfo, Windows,
};

fn leaf(urn: &str) -> CoderSpec {
    CoderSpec::leaf(urn)
}

/// Both ways, in both contexts.
fn check<T: PartialEq + std::fmt::Debug + 'static>(coder: &Coder<T>, value: &T, outer: &[u8], nested: &[u8]) {
    for (nesting, bytes) in [(Nesting::Outer, outer), (Nesting::Nested, nested)] {
        let mut out = vec![0xaa];
        coder.encode(value, &mut out, nesting).unwrap();
        assert_eq!(&out[1..], bytes, "{coder:?} {nesting:?} {value:?}");
        let mut reader = Reader::new(bytes.to_vec());
        assert_eq!(&coder.decode(&mut reader, nesting).unwrap(), value);
        assert!(reader.is_empty());
    }
}

fn refused<T: std::fmt::Debug + 'static>(coder: &Coder<T>, bytes: &[u8], code: &str, text: &str) {
    let error: Error = coder.from_bytes(bytes.to_vec()).unwrap_err();
    assert_eq!((error.code(), error.message()), (code, text));
}

fn interval(start: i64, end: i64) -> Window {
    Window::Interval(IntervalWindow::new(Timestamp::from_millis(start), Timestamp::from_millis(end)))
}

#[test]
fn single_values_have_beams_bytes() {
    check(
        &i64::coder(),
        &-1,
        &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
    );
    check(&String::coder(), &"abc".to_owned(), b"abc", b"\x03abc");
    check(&Bytes::coder(), &Bytes::from_static(b"ab\0"), b"ab\0", b"\x03ab\0");
    check(&<(Bytes, Bytes)>::coder(), &("a".into(), "bc".into()), b"\x01abc", b"\x01a\x02bc");
    check(&Option::<String>::coder(), &Some("abc".to_owned()), b"\x01abc", b"\x01\x03abc");
    check(&Option::<String>::coder(), &None, b"\0", b"\0");
    check(&Vec::<i64>::coder(), &vec![1, 200], b"\0\0\0\x02\x01\xc8\x01", b"\0\0\0\x02\x01\xc8\x01");
    check(&<()>::coder(), &(), b"\0", b"\0");
    check(&f64::coder(), &-0.1, &(-0.1f64).to_be_bytes(), &(-0.1f64).to_be_bytes());
}

#[test]
fn a_length_in_front_grows_with_what_it_counts() {
    let coder = coder::length_prefixed(String::coder());
    for length in [0, 1, 127, 128, 16_383, 16_384, 3_000_000] {
        let value = "x".repeat(length);
        let mut want = Vec::new();
        coder::write_varint(length as i64, &mut want);
        want.extend_from_slice(value.as_bytes());
        check(&coder, &value, &want, &want);
    }
}

#[test]
fn what_is_no_such_encoding_is_refused() {
    refused(&bool::coder(), &[2], "TB0109", "a boolean is 0 or 1, got 2");
    refused(
        &String::coder(),
        &[0xff],
        "TB0108",
        "a string is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0",
    );
    refused(&i64::coder(), &[0x80; 11], "TB0103", "a varint is longer than ten bytes");
    refused(&i64::coder(), &[0x80], "TB0101", "encoding cut off: wanted 2 bytes, 1 left");
    refused(&i64::coder(), &[1, 2], "TB0105", "1 bytes left over after a value of coder varint");
    refused(&i32::coder(), &[255, 255, 255, 255, 127], "TB0107", "34359738367 is out of range for i32");
    refused(&<(Bytes, Bytes)>::coder(), &[9, 1], "TB0104", "a length of 9 where 1 bytes are left");
    refused(&Option::<i64>::coder(), &[7, 1], "TB0113", "a nullable value begins with 0 or 1, got 7");
    refused(
        &Vec::<i64>::coder(),
        &[127, 255, 255, 255, 1],
        "TB0101",
        "encoding cut off: wanted 1 bytes, 0 left",
    );
    refused(
        &Vec::<i64>::coder(),
        &[128, 0, 0, 0],
        "TB0112",
        "a list says -2147483648 values, wanted 0 or more",
    );
    let error = String::coder_of(&leaf(urn::VARINT)).unwrap_err();
    assert_eq!(error.code(), "TB0106");
}

#[test]
fn a_runner_may_put_lengths_anywhere() {
    let prefix = |inner| CoderSpec::of(urn::LENGTH_PREFIX, [inner]);
    let tree = prefix(CoderSpec::of(
        urn::KV,
        [prefix(leaf(urn::STRING_UTF8)), CoderSpec::of(urn::ITERABLE, [prefix(leaf(urn::VARINT))])],
    ));
    let coder = <(String, Vec<i64>)>::coder_of(&tree).unwrap();
    assert_eq!(coder.spec(), tree);
    let bytes = b"\x08\x01k\0\0\0\x01\x01\x07";
    check(&coder, &("k".to_owned(), vec![7]), bytes, bytes);
    // A private coder is declared with its length; it is known with two and with none too.
    let private = <()>::coder().spec();
    assert_eq!(private.to_string(), "length_prefix<tiebeam:coder:unit>");
    for tree in [private.clone(), private.components[0].clone(), prefix(private)] {
        assert_eq!(<()>::coder_of(&tree).unwrap().spec(), tree);
    }
}

struct Pages;

impl IterableState for Pages {
    fn page(&self, token: &[u8], page: Option<&[u8]>) -> Result<(Bytes, Option<Bytes>)> {
        assert_eq!(token, b"tok");
        Ok(match page {
            None => (Bytes::from_static(&[1, 2]), Some("next".into())),
            Some(_) => (Bytes::from_static(&[3]), None),
        })
    }
}

#[test]
fn values_that_the_runner_keeps_are_read_when_they_are_wanted() {
    let bytes = b"\xff\xff\xff\xff\x02\x0a\xc8\x01\x01\x05\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x03tok";
    let tree = CoderSpec::of(urn::STATE_BACKED_ITERABLE, [leaf(urn::VARINT)]);
    let coder = Iterable::<i64>::coder_of(&tree).unwrap();
    let mut reader = Reader::new(&bytes[..]).with_state(Arc::new(Pages));
    let values = coder.decode(&mut reader, Nesting::Outer).unwrap();
    assert!(reader.is_empty());
    assert_eq!(values.to_vec(), [10, 200, 5, 1, 2, 3]);
    assert_eq!(values.count(), 6);
    assert_eq!(coder.to_bytes(&values).unwrap(), b"\0\0\0\x06\x0a\xc8\x01\x05\x01\x02\x03");
    let mut reader = Reader::new(&bytes[..]).with_state(Arc::new(Pages));
    assert_eq!(
        Vec::<i64>::coder_of(&tree).unwrap().decode(&mut reader, Nesting::Outer).unwrap(),
        values.to_vec()
    );
    refused(&coder, bytes, "TB0111", "a state-backed iterable came without state");
}

#[test]
fn encoded_values_pass_through_as_they_are() {
    let value = i64::coder();
    let coder = tiebeam_core::iterable::iterable_coder(value.clone());
    let chunks = vec![Bytes::from_static(&[1, 2]), Bytes::from_static(&[3])];
    let values = Iterable::encoded(chunks, 3, value);
    assert_eq!(coder.to_bytes(&values).unwrap(), b"\0\0\0\x03\x01\x02\x03");
    assert_eq!(Iterable::<i64>::coder().to_bytes(&values).unwrap(), b"\0\0\0\x03\x01\x02\x03");
}

#[test]
fn windowed_values_have_beams_bytes() {
    let coder = windowed_value(i64::coder(), &leaf(urn::GLOBAL_WINDOW)).unwrap();
    let value = (2, WindowInfo::GLOBAL.at(Timestamp::from_millis(1_454_293_425_000)));
    let bytes = b"\x80\0\x01R\x9a\xa4\x9bh\0\0\0\x01\x0f\x02";
    check(&coder, &value, bytes, bytes);
    check(
        &coder,
        &(2, WindowInfo::GLOBAL),
        b"\x7f\xdf;dZ\x1c\xac\x09\0\0\0\x01\x0f\x02",
        b"\x7f\xdf;dZ\x1c\xac\x09\0\0\0\x01\x0f\x02",
    );

    let coder = windowed_value(i64::coder(), &leaf(urn::INTERVAL_WINDOW)).unwrap();
    let windows = [interval(10, 20), interval(15, 25)].into_iter().collect();
    let pane =
        Pane { is_first: false, is_last: true, timing: PaneTiming::OnTime, index: 30, on_time_index: 40 };
    let value = (4, WindowInfo { timestamp: Timestamp::from_millis(-100), windows, pane });
    let bytes = b"\x7f\xff\xff\xff\xff\xff\xff\x9c\0\0\0\x02\x80\0\0\0\0\0\0\x14\x0a\x80\0\0\0\0\0\0\x19\x0a\x26\x1e\x28\x04";
    check(&coder, &value, bytes, bytes);

    let error = coder.to_bytes(&(1, WindowInfo::GLOBAL)).unwrap_err();
    assert_eq!(error.message(), "window Global cannot be written by coder interval_window");
    assert_eq!(windowed_value(i64::coder(), &leaf(urn::BYTES)).unwrap_err().code(), "TB0119");
}

#[test]
fn panes_take_the_shortest_form() {
    let pane =
        |timing, index, on_time_index| Pane { is_first: false, is_last: false, timing, index, on_time_index };
    for (pane, bytes) in [
        (Pane::NO_FIRING, &[0x0f][..]),
        (Pane::ON_TIME_AND_ONLY, &[0x07]),
        (pane(PaneTiming::Early, 0, -1), &[0x10, 0]),
        (pane(PaneTiming::Early, 7, -1), &[0x10, 7]),
        (pane(PaneTiming::OnTime, 3, 3), &[0x14, 3]),
        (pane(PaneTiming::Late, 200, 1), &[0x28, 200, 1, 1]),
    ] {
        let mut out = Vec::new();
        coder::encode_pane(&pane, &mut out);
        assert_eq!(out, bytes);
        assert_eq!(coder::decode_pane(&mut Reader::new(out)).unwrap(), pane);
    }
    let error = coder::decode_pane(&mut Reader::new(&[0x8f][..])).unwrap_err();
    assert_eq!(error.message(), "a pane has form 8, wanted 0, 1 or 2");
}

#[test]
fn a_batch_encodes_as_its_elements_do() {
    let coder = WindowedValueCoder::new(String::coder(), &leaf(urn::INTERVAL_WINDOW)).unwrap();
    let info = |start| WindowInfo {
        timestamp: Timestamp::from_millis(start),
        windows: Windows::One(interval(start, start + 10)),
        pane: Pane::NO_FIRING,
    };
    let values: Vec<_> = ["a", "", "ccc"].map(str::to_owned).into();
    for meta in [Meta::Uniform(info(5)), Meta::Each([1, 2, 3].map(info).into())] {
        let batch = Batch { values: values.clone(), meta };
        let (mut whole, mut single) = (vec![9], vec![9]);
        coder.encode_batch(&batch, &mut whole).unwrap();
        for (value, info) in batch.iter() {
            coder.encode(value, info, &mut single, Nesting::Nested).unwrap();
        }
        assert_eq!(whole, single);
        let mut reader = Reader::new(whole[1..].to_vec());
        for (value, info) in batch.iter() {
            assert_eq!(coder.decode(&mut reader, Nesting::Nested).unwrap(), (value.clone(), info.clone()));
        }
        assert!(reader.is_empty());
    }
    let mut out = Vec::new();
    coder.encode_batch(&Batch::uniform(vec![], info(1)), &mut out).unwrap();
    assert!(out.is_empty());
}

#[test]
fn constant_windows_travel_in_the_payload() {
    let windows = Windows::One(interval(10, 20));
    let pane =
        Pane { is_first: false, is_last: true, timing: PaneTiming::OnTime, index: 30, on_time_index: 40 };
    let info = WindowInfo { timestamp: Timestamp::from_millis(1000), windows, pane };
    let coder =
        WindowedValueCoder::constant(i64::coder(), &leaf(urn::INTERVAL_WINDOW), info.clone()).unwrap();
    let coder = Coder::new(coder);
    check(&coder, &(2, info.clone()), &[2], &[2]);
    assert_eq!(coder.spec().payload, b"\x80\0\0\0\0\0\x03\xe8\0\0\0\x01\x80\0\0\0\0\0\0\x14\n&\x1e(\0");
    let again = WindowedValueCoder::<i64>::pairs_of(&coder.spec()).unwrap();
    assert_eq!(again.from_bytes(vec![2]).unwrap(), (2, info));
}

#[test]
fn a_users_windows_travel_behind_their_end() {
    let spec =
        CoderSpec::of(urn::CUSTOM_WINDOW, [CoderSpec::of(urn::LENGTH_PREFIX, [leaf("user:window:v1")])]);
    let coder = Coder::new(WindowCoder::of(&spec).unwrap());
    let max_timestamp = Timestamp::from_millis(19);
    let window = Window::Custom(Arc::new(CustomWindow { max_timestamp, encoded: "w1".into() }));
    let bytes = b"\x80\0\0\0\0\0\0\x13\x02w1";
    check(&coder, &window, bytes, bytes);
    // A custom window of a known kind is that kind.
    let spec = CoderSpec::of(urn::CUSTOM_WINDOW, [leaf(urn::INTERVAL_WINDOW)]);
    let coder = Coder::new(WindowCoder::of(&spec).unwrap());
    let bytes = b"\x80\0\0\0\0\0\0\x13\x80\0\0\0\0\0\0\x14\x0a";
    check(&coder, &interval(10, 20), bytes, bytes);
    // Without a length there is no telling where it ends.
    let spec = CoderSpec::of(urn::CUSTOM_WINDOW, [leaf("user:window:v1")]);
    assert_eq!(WindowCoder::of(&spec).unwrap_err().code(), "TB0119");
}

#[test]
fn timers_and_sharded_keys_have_beams_bytes() {
    let spec = CoderSpec::of(urn::TIMER, [leaf(urn::STRING_UTF8), leaf(urn::GLOBAL_WINDOW)]);
    let coder = Timer::<String>::coder_of(&spec).unwrap();
    let firing = Some(TimerFiring {
        fire: Timestamp::from_millis(1234),
        hold: Timestamp::from_millis(5678),
        pane: Pane::NO_FIRING,
    });
    let timer = Timer { user_key: "key".to_owned(), tag: "tag".into(), windows: Windows::GLOBAL, firing };
    let bytes = b"\x03key\x03tag\0\0\0\x01\0\x80\0\0\0\0\0\x04\xd2\x80\0\0\0\0\0\x16\x2e\x0f";
    check(&coder, &timer, bytes, bytes);
    let cleared = Timer { firing: None, ..timer };
    check(&coder, &cleared, b"\x03key\x03tag\0\0\0\x01\x01", b"\x03key\x03tag\0\0\0\x01\x01");
    let key = ShardedKey { shard_id: "shard_id".into(), key: "key".to_owned() };
    check(&ShardedKey::<String>::coder(), &key, b"\x08shard_id\x03key", b"\x08shard_id\x03key");
}

fn person() -> Arc<Schema> {
    Arc::new(Schema::of([
        ("name", FieldType::required(TypeKind::String)),
        ("age", FieldType::nullable(TypeKind::Int32)),
        ("tags", FieldType::required(TypeKind::Array(Box::new(FieldType::nullable(TypeKind::String))))),
    ]))
}

#[test]
fn rows_travel_with_their_schema_or_behind_it() {
    let schema = person();
    let row = |age| {
        Row::new(
            schema.clone(),
            [Value::String("Ann".into()), age, Value::Array([Value::Null, Value::String("x".into())].into())],
        )
    };
    let coder = row_coder(schema.clone());
    let bytes = b"\x03\0\x03Ann\xff\xff\xff\xff\x0f\0\0\0\x02\0\x01\x01x";
    check(&coder, &row(Value::Int32(-1)), bytes, bytes);
    let bytes = b"\x03\x01\x02\x03Ann\0\0\0\x02\0\x01\x01x";
    check(&coder, &row(Value::Null), bytes, bytes);
    // The tree carries the schema: another process reads the rows by it.
    let again = Row::coder_of(&coder.spec()).unwrap();
    assert_eq!(again.spec(), coder.spec());
    let read = again.from_bytes(&bytes[..]).unwrap();
    assert_eq!(read.schema.fields, schema.fields);
    assert_eq!(again.to_bytes(&row(Value::Null)).unwrap(), bytes);

    let dynamic = Row::coder();
    assert_eq!(dynamic.spec().to_string(), "length_prefix<tiebeam:coder:dynamic_row>");
    for age in [Value::Null, Value::Int32(5)] {
        let read = dynamic.from_bytes(dynamic.to_bytes(&row(age.clone())).unwrap()).unwrap();
        assert_eq!((&read.schema.fields, &read.values), (&schema.fields, &row(age).values));
    }
    assert!(!dynamic.is_deterministic() && coder.is_deterministic());
}

#[test]
fn rows_that_do_not_fit_are_refused_by_name() {
    let coder = row_coder(person());
    let ok = [Value::String("Ann".into()), Value::Null, Value::Array([].into())];
    let message = |row: Row| coder.to_bytes(&row).unwrap_err().message().to_owned();
    let mut values = ok.clone();
    values[1] = Value::String("five".into());
    assert_eq!(
        message(Row::new(person(), values)),
        "field `age`: a value String(\"five\") where the schema has INT32"
    );
    let mut values = ok.clone();
    values[0] = Value::Null;
    assert_eq!(message(Row::new(person(), values)), "field `name` has no value and is not nullable");
    assert_eq!(message(Row::new(person(), [Value::Null])), "a row of 1 values, its schema has 3 fields");
    let other = Arc::new(Schema::of([("x", FieldType::required(TypeKind::Double))]));
    assert_eq!(
        message(Row::new(other, [Value::Double(1.0)])),
        "a row of (x: DOUBLE), the coder is for (name: STRING, age: INT32?, tags: ARRAY<STRING?>)"
    );
    refused(&coder, b"\x04\0", "TB0114", "a row of 4 fields, the schema has 3");
    refused(&coder, b"\x01\0\x01a", "TB0114", "field `tags` has no value and is not nullable");
    refused(
        &coder,
        b"\x03\0\x01\xff",
        "TB0108",
        "field `name`: a string is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0",
    );
}

#[test]
fn schemas_survive_their_message() {
    let mut schema = (*person()).clone();
    schema.encoding_positions = Some(vec![2, 0, 1]);
    let read = schema_proto::decode_schema(schema_proto::encode_schema(&schema)).unwrap();
    assert_eq!((&read.fields, &read.encoding_positions), (&schema.fields, &schema.encoding_positions));
    // The id that it was given follows from its content, and is kept from then on.
    assert_eq!(read.id.len(), 36);
    assert_eq!(schema_proto::encode_schema(&read), schema_proto::encode_schema(&schema));
    assert_ne!(schema_proto::encode_schema(&schema), schema_proto::encode_schema(&person()));
    // Rows are written in that order.
    let row = Row::new(
        Arc::new(schema.clone()),
        [Value::String("Ann".into()), Value::Int32(1), Value::Array([].into())],
    );
    let bytes = b"\x03\0\x01\0\0\0\0\x03Ann";
    check(&row_coder(Arc::new(schema)), &row, bytes, bytes);

    let mut deep = FieldType::required(TypeKind::Byte);
    for _ in 0..100 {
        deep = FieldType::required(TypeKind::Array(Box::new(deep)));
    }
    let payload = schema_proto::encode_schema(&Schema::of([("deep", deep)]));
    let error = schema_proto::decode_schema(payload).unwrap_err();
    assert_eq!(error.message(), "a schema has types within types beyond depth 64");
    assert_eq!(
        schema_proto::decode_schema(&b"\x0a\x03\x0a\x01a"[..]).unwrap_err().message(),
        "field `a` of a schema has no type"
    );
    assert_eq!(
        schema_proto::decode_schema(&b"\x0b"[..]).unwrap_err().message(),
        "no protobuf field begins with the key 11"
    );
}
