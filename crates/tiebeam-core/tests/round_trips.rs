//! Whatever is encoded is decoded as what it was, in both contexts and behind a tree that went to a runner and back.

// Its own functions are part of the tests, which clippy can't see.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use tiebeam_core::coder::{ShardedKey, Timer, TimerFiring, WindowedValueCoder, row_coder, schema_proto, urn};
use tiebeam_core::{
    Bytes, Coder, CoderSpec, Element, FieldType, IntervalWindow, Iterable, Nesting, Pane, PaneTiming, Reader,
    Row, Schema, Timestamp, TypeKind, Value, Window, WindowInfo,
};

fn both_ways<T: PartialEq + Debug + 'static>(coder: &Coder<T>, value: &T) {
    assert_eq!(&coder.from_bytes(coder.to_bytes(value).unwrap()).unwrap(), value);
    // Two in one buffer: each finds its own end.
    let mut out = Vec::new();
    coder.encode(value, &mut out, Nesting::Nested).unwrap();
    coder.encode(value, &mut out, Nesting::Nested).unwrap();
    let mut reader = Reader::new(out);
    for _ in 0..2 {
        assert_eq!(&coder.decode(&mut reader, Nesting::Nested).unwrap(), value);
    }
    assert!(reader.is_empty());
}

fn element<T: Element + PartialEq + Debug>(value: &T) {
    both_ways(&T::coder(), value);
    let prefixed = CoderSpec::of(urn::LENGTH_PREFIX, [T::coder().spec()]);
    both_ways(&T::coder_of(&prefixed).unwrap(), value);
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        any::<i64>().prop_map(Timestamp::from_millis),
        (-100_000i64..100_000).prop_map(Timestamp::from_millis),
        Just(Timestamp::MIN),
        Just(Timestamp::MAX),
    ]
}

fn window() -> impl Strategy<Value = Window> {
    (timestamp(), 0i64..10_000_000).prop_map(|(start, span)| {
        Window::Interval(IntervalWindow::new(start, start.plus_micros(span * 1_000)))
    })
}

/// Panes that a runner can make: an early one has no on-time index, one that no trigger fired has none at all.
fn pane() -> impl Strategy<Value = Pane> {
    (any::<(bool, bool)>(), 0..4, 0i64..1_000, 0i64..1_000).prop_map(
        |((is_first, is_last), timing, index, late)| {
            let (timing, index, on_time_index) = match timing {
                0 => (PaneTiming::Early, index, -1),
                1 => (PaneTiming::OnTime, index, late),
                2 => (PaneTiming::Late, index, late),
                _ => (PaneTiming::Unknown, 0, 0),
            };
            Pane { is_first, is_last, timing, index, on_time_index }
        },
    )
}

fn info() -> impl Strategy<Value = WindowInfo> {
    (timestamp(), vec(window(), 0..4), pane()).prop_map(|(timestamp, windows, pane)| WindowInfo {
        timestamp,
        windows: windows.into_iter().collect(),
        pane,
    })
}

/// A type of a field, with a strategy of its values.
fn field() -> impl Strategy<Value = (FieldType, Value)> {
    let of = |kind: TypeKind, value: BoxedStrategy<Value>| {
        value.prop_map(move |value| (kind.clone(), value)).boxed()
    };
    let leaf = prop_oneof![
        of(TypeKind::Byte, any::<i8>().prop_map(Value::Byte).boxed()),
        of(TypeKind::Int16, any::<i16>().prop_map(Value::Int16).boxed()),
        of(TypeKind::Int32, any::<i32>().prop_map(Value::Int32).boxed()),
        of(TypeKind::Int64, any::<i64>().prop_map(Value::Int64).boxed()),
        of(TypeKind::Float, (-1e9f32..1e9).prop_map(Value::Float).boxed()),
        of(TypeKind::Double, (-1e99f64..1e99).prop_map(Value::Double).boxed()),
        of(TypeKind::String, ".{0,9}".prop_map(|text| Value::String(text.into())).boxed()),
        of(TypeKind::Boolean, any::<bool>().prop_map(Value::Bool).boxed()),
        of(TypeKind::Bytes, vec(any::<u8>(), 0..9).prop_map(|bytes| Value::Bytes(bytes.into())).boxed()),
    ];
    let nullable = |inner: BoxedStrategy<(TypeKind, Value)>| {
        (inner, 0..4).prop_map(|((kind, value), dice)| match dice {
            0 => (FieldType::nullable(kind), Value::Null),
            1 => (FieldType::nullable(kind), value),
            _ => (FieldType::required(kind), value),
        })
    };
    let kinds = leaf.boxed().prop_recursive(3, 12, 4, move |inner| {
        let one = nullable(inner);
        prop_oneof![
            (one.clone(), 0usize..4).prop_map(|((of, value), count)| {
                (TypeKind::Array(Box::new(of)), Value::Array(vec![value; count].into()))
            }),
            (one.clone(), one.clone(), 0usize..4).prop_map(|((key, k), (value, v), count)| {
                (TypeKind::Map(Box::new(key), Box::new(value)), Value::Map(vec![(k, v); count].into()))
            }),
            vec(one, 1..12).prop_map(|fields| {
                let row = row_of(fields);
                (TypeKind::Row(row.schema.clone()), Value::Row(row))
            }),
        ]
    });
    nullable(kinds.boxed())
}

fn row_of(fields: Vec<(FieldType, Value)>) -> Row {
    let (types, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let mut schema = Schema::of(types.into_iter().enumerate().map(|(i, of)| (format!("f{i}"), of)));
    schema.id = "of this test".to_owned();
    Row::new(Arc::new(schema), values)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn elements(
        number in any::<i64>(), wide in any::<u64>(), short in any::<i16>(), flag in any::<bool>(),
        text in ".*", bytes in vec(any::<u8>(), 0..300), values in vec(proptest::option::of(".{0,5}"), 0..20),
    ) {
        element(&number);
        element(&wide);
        element(&short);
        element(&flag);
        element(&());
        element(&text);
        element(&Arc::<str>::from(text.as_str()));
        element(&Bytes::from(bytes.clone()));
        element(&values);
        element(&Iterable::from(values.clone()));
        element(&(text.clone(), (number, values.clone())));
        element(&Some((text.clone(), number)));
        element(&ShardedKey { shard_id: bytes.into(), key: text });
    }

    #[test]
    fn windowed_values(value in ".{0,9}", info in info(), fire in timestamp(), hold in timestamp()) {
        let window = CoderSpec::leaf(urn::INTERVAL_WINDOW);
        let coder = Coder::new(WindowedValueCoder::new(String::coder(), &window).unwrap());
        both_ways(&coder, &(value.clone(), info.clone()));
        both_ways(&WindowedValueCoder::pairs_of(&coder.spec()).unwrap(), &(value.clone(), info.clone()));
        let constant = WindowedValueCoder::constant(String::coder(), &window, info.clone()).unwrap();
        both_ways(&WindowedValueCoder::pairs_of(&Coder::new(constant).spec()).unwrap(), &(value.clone(), info.clone()));
        let coder = Timer::<String>::coder_of(&CoderSpec::of(urn::TIMER, [String::coder().spec(), window])).unwrap();
        let firing = Some(TimerFiring { fire, hold, pane: info.pane });
        let timer = Timer { user_key: value.clone(), tag: value.into(), windows: info.windows, firing };
        both_ways(&coder, &timer);
        both_ways(&coder, &Timer { firing: None, ..timer });
    }

    #[test]
    fn rows(fields in vec(field(), 1..12), order in any::<u64>()) {
        let row = row_of(fields);
        both_ways(&row_coder(row.schema.clone()), &row);
        both_ways(&Row::coder(), &row);
        let read = schema_proto::decode_schema(schema_proto::encode_schema(&row.schema)).unwrap();
        prop_assert_eq!(&read, &*row.schema);
        // The same fields, written in another order.
        let count = read.fields.len();
        let first = order as usize % count;
        let positions = (0..count).map(|at| (at + first) % count).collect();
        let schema = Arc::new(Schema { encoding_positions: Some(positions), ..read });
        let moved = Row::new(schema.clone(), row.values.clone());
        let coder = row_coder(schema);
        both_ways(&coder, &moved);
        both_ways(&Row::coder_of(&coder.spec()).unwrap(), &moved);
    }

    #[test]
    fn decimals(digits in "-?[1-9][0-9]{0,60}", places in 0usize..40) {
        let logical = TypeKind::Logical(Arc::new(tiebeam_core::row::LogicalType {
            urn: "beam:logical_type:decimal:v1".to_owned(),
            payload: Vec::new(),
            representation: FieldType::required(TypeKind::Bytes),
            argument: None,
        }));
        let split = digits.len() - places.min(digits.trim_start_matches('-').len() - 1);
        let (whole, fraction) = digits.split_at(split);
        let text = if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") };
        let schema = Arc::new(Schema::of([("d", FieldType::required(logical))]));
        both_ways(&row_coder(schema.clone()), &Row::new(schema, [Value::String(text.into())]));
    }
}
