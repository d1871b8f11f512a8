//! Bytes that no honest peer wrote: decoders refuse them, without a panic, and take memory in proportion to them.

// Its own functions are part of the tests, which clippy can't see.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use peak_alloc::PeakAlloc;
use tiebeam_core::coder::{
    IterableState, ShardedKey, Timer, TimerFiring, WindowedValueCoder, row_coder, schema_proto, timer_coder,
    urn, windowed_value,
};
use tiebeam_core::window::CustomWindow;
use tiebeam_core::{
    Bytes, Coder, CoderSpec, Element, FieldType, IntervalWindow, Iterable, Nesting, Pane, PaneTiming, Reader,
    Result, Row, RowElement, Schema, Timestamp, TypeKind, Value, Window, WindowInfo, Windows,
};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A row's field takes a bit when it is absent, and tens of bytes in memory; a list sets aside room for a thousand
/// values on its count's word.
const PER_BYTE: usize = 1_024;
const AT_LEAST: usize = 256 * 1024;

#[derive(Clone, Element)]
struct Everything {
    name: String,
    count: Option<i32>,
    small: i8,
    numbers: Vec<Option<f64>>,
    labels: BTreeMap<String, Vec<i64>>,
    inner: Option<Inner>,
    raw: Bytes,
}

#[derive(Clone, Element)]
struct Inner {
    yes: bool,
    short: i16,
}

fn everything(count: usize) -> Everything {
    Everything {
        name: "some name".repeat(count),
        count: count.is_multiple_of(2).then_some(-7),
        small: -1,
        numbers: (0..count).map(|i| (i % 3 > 0).then_some(i as f64)).collect(),
        labels: (0..count).map(|i| (i.to_string(), vec![i as i64; i % 4])).collect(),
        inner: (count > 1).then_some(Inner { yes: true, short: 300 }),
        raw: Bytes::from(vec![7; count]),
    }
}

/// A step of a xorshift generator: the same bytes in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            let loud = [0, 1, 0x7f, 0x80, 0xff][self.below(5)];
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = loud,
                2 => bytes.truncate(at),
                3 => bytes.insert(at, loud),
                4 => {
                    // A count or length that lies.
                    let length = 1 + self.below(9);
                    bytes.splice(at..at, std::iter::repeat_n(0xff, length));
                }
                _ => {
                    let from = self.below(bytes.len());
                    let piece = bytes[from..bytes.len().min(from + 16)].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    }
}

/// A runner that answers with hostile bytes too.
struct Answers(Bytes);

impl IterableState for Answers {
    fn page(&self, _: &[u8], page: Option<&[u8]>) -> Result<(Bytes, Option<Bytes>)> {
        Ok((self.0.clone(), page.is_none().then(|| Bytes::from_static(b"next"))))
    }
}

type Decode = Box<dyn Fn(Reader, Nesting) -> bool>;

/// A coder with samples of its own bytes.
struct Target(String, Vec<Vec<u8>>, Decode);

fn target<T: 'static>(coder: Coder<T>, samples: impl IntoIterator<Item = T>) -> Target {
    let samples = samples.into_iter().map(|sample| coder.to_bytes(&sample).unwrap()).collect();
    let name = coder.spec().to_string();
    Target(name, samples, Box::new(move |mut reader, nesting| coder.decode(&mut reader, nesting).is_ok()))
}

fn leaf(urn: &str) -> CoderSpec {
    CoderSpec::leaf(urn)
}

fn interval(start: i64) -> Window {
    Window::Interval(IntervalWindow::new(
        Timestamp::from_millis(start),
        Timestamp::from_millis(start + 60_000),
    ))
}

fn info(windows: impl IntoIterator<Item = Window>) -> WindowInfo {
    WindowInfo {
        timestamp: Timestamp::from_millis(1_454_293_425_000),
        windows: windows.into_iter().collect(),
        pane: Pane { is_first: false, is_last: true, timing: PaneTiming::Late, index: 300, on_time_index: 2 },
    }
}

fn odd_schema() -> Arc<Schema> {
    let logical = |urn: &str, kind| {
        TypeKind::Logical(Arc::new(tiebeam_core::row::LogicalType {
            urn: urn.to_owned(),
            payload: Vec::new(),
            representation: FieldType::required(kind),
            argument: None,
        }))
    };
    let map = TypeKind::Map(
        Box::new(FieldType::required(TypeKind::String)),
        Box::new(FieldType::nullable(TypeKind::Iterable(Box::new(FieldType::required(TypeKind::Float))))),
    );
    let mut schema = Schema::of([
        ("when", FieldType::required(logical("beam:logical_type:millis_instant:v1", TypeKind::Int64))),
        ("price", FieldType::required(logical("beam:logical_type:decimal:v1", TypeKind::Bytes))),
        ("code", FieldType::nullable(logical("beam:logical_type:fixed_char:v1", TypeKind::String))),
        ("map", FieldType::required(map)),
        (
            "inner",
            FieldType::required(TypeKind::Array(Box::new(FieldType::nullable(TypeKind::Row(
                Inner::schema(),
            ))))),
        ),
    ]);
    schema.encoding_positions = Some(vec![4, 3, 2, 1, 0]);
    Arc::new(schema)
}

fn odd_row() -> Row {
    Row::new(
        odd_schema(),
        [
            Value::Int64(1_600_000_000_000),
            Value::String("-123456789012345678901234567890.12345".into()),
            Value::Null,
            Value::Map([(Value::String("a".into()), Value::Array([Value::Float(1.5)].into()))].into()),
            Value::Array([Value::Null, Value::Row(Inner { yes: false, short: -2 }.to_row())].into()),
        ],
    )
}

fn targets() -> Vec<Target> {
    let custom =
        CoderSpec::of(urn::CUSTOM_WINDOW, [CoderSpec::of(urn::LENGTH_PREFIX, [leaf("user:window")])]);
    let user_window =
        Window::Custom(Arc::new(CustomWindow { max_timestamp: Timestamp::MAX, encoded: "abc".into() }));
    let lists: Coder<Vec<Vec<Option<String>>>> = Element::coder();
    let pairs: Coder<(String, Iterable<i64>)> = Element::coder();
    let constant =
        WindowedValueCoder::constant(i64::coder(), &leaf(urn::INTERVAL_WINDOW), info([interval(1)])).unwrap();
    let firing = TimerFiring { fire: Timestamp::MIN, hold: Timestamp::MAX, pane: Pane::ON_TIME_AND_ONLY };
    let state_backed = CoderSpec::of(urn::STATE_BACKED_ITERABLE, [leaf(urn::STRING_UTF8)]);
    let mut kept = target(Iterable::<String>::coder_of(&state_backed).unwrap(), []);
    kept.1.push(
        b"\xff\xff\xff\xff\x02\x01a\x02bc\x01\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x05token".to_vec(),
    );
    kept.1.push(b"\xff\xff\xff\xff\x02\x01a\x02bc\0".to_vec());
    vec![
        target(i64::coder(), [0, -1, i64::MAX]),
        target(i32::coder(), [0, -1]),
        target(bool::coder(), [true]),
        target(f64::coder(), [0.5]),
        target(<()>::coder(), [()]),
        target(String::coder(), ["".to_owned(), "häß\0".to_owned()]),
        target(Bytes::coder(), [Bytes::from(vec![0xff; 300])]),
        target(lists, [vec![vec![Some("a".to_owned()), None]; 20], vec![]]),
        target(pairs, [("key".to_owned(), Iterable::from(vec![1, 300, -1]))]),
        kept,
        target(
            ShardedKey::<String>::coder(),
            [ShardedKey { shard_id: "shard".into(), key: "key".to_owned() }],
        ),
        target(windowed_value(i64::coder(), &leaf(urn::GLOBAL_WINDOW)).unwrap(), [(1, WindowInfo::GLOBAL)]),
        target(
            windowed_value(String::coder(), &leaf(urn::INTERVAL_WINDOW)).unwrap(),
            [("x".to_owned(), info([interval(0), interval(5)])), ("y".to_owned(), info([interval(0)]))],
        ),
        target(windowed_value(Everything::coder(), &custom).unwrap(), [(everything(2), info([user_window]))]),
        target(Coder::new(constant), [(3, info([interval(1)]))]),
        target(
            timer_coder(String::coder(), &leaf(urn::GLOBAL_WINDOW)).unwrap(),
            [Timer {
                user_key: "key".to_owned(),
                tag: "tag".into(),
                windows: Windows::GLOBAL,
                firing: Some(firing),
            }],
        ),
        target(Everything::coder(), [everything(0), everything(1), everything(9)]),
        target(row_coder(Everything::schema()), [everything(9).to_row()]),
        target(row_coder(odd_schema()), [odd_row()]),
        target(Row::coder(), [odd_row(), everything(3).to_row()]),
    ]
}

/// Decodes with the memory that it takes watched.
fn watched(name: &str, bytes: &[u8], decode: impl FnOnce(Vec<u8>) -> bool) -> bool {
    let input = bytes.to_vec();
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let accepted = decode(input);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(taken <= bytes.len() * PER_BYTE + AT_LEAST, "{name} took {taken} bytes of memory for {bytes:?}");
    accepted
}

/// One test alone: the memory of others running beside it would count.
#[test]
fn hostile_bytes_are_refused_without_harm() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut accepted, mut refused) = (0u32, 0u32);
    for Target(name, samples, decode) in &targets() {
        for sample in samples {
            assert!(decode(
                Reader::new(sample.clone()).with_state(Arc::new(Answers("\x01x".into()))),
                Nesting::Outer
            ));
            for round in 0..2_000 {
                let bytes = dice.mutate(sample);
                let nesting = if round % 2 == 0 { Nesting::Outer } else { Nesting::Nested };
                let answers = Arc::new(Answers(Bytes::from(dice.mutate(b"\x01x\x03abc"))));
                let ok =
                    watched(name, &bytes, |bytes| decode(Reader::new(bytes).with_state(answers), nesting));
                *(if ok { &mut accepted } else { &mut refused }) += 1;
            }
        }
    }
    // The mutations are neither all harmless nor all absurd.
    assert!(accepted > 5_000 && refused > 20_000, "{accepted} accepted, {refused} refused");

    // Schemas, and rows behind the schemas that come with them.
    let payload = schema_proto::encode_schema(&odd_schema());
    for _ in 0..20_000 {
        let bytes = dice.mutate(&payload);
        watched("schema", &bytes, |bytes| schema_proto::decode_schema(bytes).is_ok());
    }
    let names: Vec<String> = (0..2_000).map(|i| i.to_string()).collect();
    let wide = Schema::of(names.iter().map(|name| (name.as_str(), FieldType::nullable(TypeKind::Byte))));
    let rows = TypeKind::Array(Box::new(FieldType::required(TypeKind::Row(Arc::new(wide)))));
    let payload = schema_proto::encode_schema(&Schema::of([("rows", FieldType::required(rows))]));
    let mut bytes = Vec::new();
    tiebeam_core::coder::length_prefixed(Bytes::coder())
        .encode(&payload.into(), &mut bytes, Nesting::Nested)
        .unwrap();
    bytes.extend_from_slice(b"\x01\0\0\0\x27\x10");
    bytes.extend_from_slice(&[0; 20_000]);
    let dynamic = Row::coder().unprefixed().unwrap();
    assert!(!watched("wide rows", &bytes, |bytes| dynamic.from_bytes(bytes).is_ok()));
}
