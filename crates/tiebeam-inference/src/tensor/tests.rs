//! What tensors promise: round trips, exact texts of refusals, hostile bytes.

use std::sync::Arc;

use tiebeam_core::coder::Coder;
use tiebeam_core::element::Element;
use tiebeam_core::row::{TypeKind, Value};

use super::{DType, Tensor, Tensors};

fn samples() -> Vec<Tensor> {
    vec![
        Tensor::scalar(1.5f32),
        Tensor::vector(vec![1.0f32, -2.5, f32::MAX]),
        Tensor::new(&[2, 0], Vec::<f64>::new()).unwrap(),
        Tensor::new(&[2, 2], vec![1.0f64, 2.0, 3.0, f64::MIN_POSITIVE]).unwrap(),
        Tensor::new(&[1, 1, 1, 1, 3], vec![i64::MIN, 0, i64::MAX]).unwrap(),
        Tensor::vector(vec![i32::MIN, i32::MAX]),
        Tensor::vector(vec![0u8, 255]),
        Tensor::vector(vec![-128i8, 127]),
        Tensor::vector(vec![true, false]),
        Tensor::vector(vec![Arc::<str>::from("a"), "".into(), "ü€".into()]),
    ]
}

fn named() -> Tensors {
    Tensors::new(
        [Arc::from("x"), Arc::from("scores")],
        vec![Tensor::scalar(2i64), Tensor::vector(vec![0.5f32, 1.5])],
    )
    .unwrap()
}

fn round_trip<T: Element + PartialEq + std::fmt::Debug>(value: &T) -> Vec<u8> {
    let coder: Coder<T> = T::coder();
    let bytes = coder.to_bytes(value).unwrap();
    assert_eq!(coder.from_bytes(bytes.clone()).unwrap(), *value);
    assert!(T::coder_of(&coder.spec()).is_ok());
    bytes
}

#[test]
fn tensors_survive_their_coder() {
    samples().iter().for_each(|tensor| {
        round_trip(tensor);
    });
    round_trip(&named());
}

#[test]
fn a_tensor_is_a_beam_row() {
    let bytes = round_trip(&Tensor::new(&[2, 1], vec![5.0f32, -1.0]).unwrap());
    // three fields, none null; "float32"; [2, 1] as int64; eight bytes.
    let expected = b"\x03\x00\x07float32\x00\x00\x00\x02\x02\x01\x08\x00\x00\xa0\x40\x00\x00\x80\xbf";
    assert_eq!(bytes, expected);
    assert_eq!(Tensor::coder().spec().urn, "beam:coder:row:v1");
    // Field { name: "dtype", type: { atomic_type: STRING } } comes first in the schema.
    assert!(Tensor::coder().spec().payload.starts_with(b"\x0a\x0b\x0a\x05dtype\x1a\x02\x10\x07"));
}

#[test]
fn lying_encodings_are_refused_without_allocating() {
    let check = |bytes: &[u8], text: &str| {
        let error = Tensor::coder().from_bytes(bytes.to_vec()).unwrap_err();
        assert_eq!(error.message(), text);
    };
    check(b"\x02\x00", "a tensor's row has 3 fields, got 2");
    check(b"\x03\x01\x02\x07float32", "a tensor's row has a null field");
    check(b"\x03\x00\x04f128\0\0\0\0\0", "a tensor's dtype is unknown: f128");
    check(b"\x03\x00\x07float32\x7f\xff\xff\xff\x01", "an array of 2147483647 values where 1 bytes are left");
    // 2^62 numbers told, four bytes there.
    let mut huge = b"\x03\x00\x07float32\x00\x00\x00\x02".to_vec();
    huge.extend_from_slice(b"\x80\x80\x80\x80\x10\x80\x80\x80\x80\x04\x04\0\0\0\0");
    let error = Tensor::coder().from_bytes(huge).unwrap_err();
    assert!(error.message().ends_with("cannot be told by 4 bytes of numbers"), "{error}");
    check(
        b"\x03\x00\x04bool\x00\x00\x00\x01\x01\x01\x02",
        "a tensor of bool[1] cannot be told by 1 bytes of numbers",
    );
}

#[test]
fn cut_and_changed_encodings_never_panic() {
    let mut seed = 7u64;
    for tensor in samples() {
        let bytes = Tensor::coder().to_bytes(&tensor).unwrap();
        for cut in 0..bytes.len() {
            assert!(Tensor::coder().from_bytes(bytes[..cut].to_vec()).is_err(), "{tensor:?} cut at {cut}");
        }
        for _ in 0..2_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let mut changed = bytes.clone();
            let at = (seed >> 33) as usize % changed.len();
            changed[at] ^= (seed >> 20) as u8;
            if let Ok(read) = Tensor::coder().from_bytes(changed) {
                assert_eq!(read.len(), read.shape().iter().product::<usize>());
            }
        }
    }
}

#[test]
fn values_and_tensors_are_each_other() {
    let array = |values: Vec<Value>| Value::Array(values.into());
    let cases = [
        (Value::Int64(7), Tensor::scalar(7i64)),
        (Value::Double(0.5), Tensor::scalar(0.5f64)),
        (Value::Float(0.5), Tensor::scalar(0.5f32)),
        (Value::Bool(true), Tensor::scalar(true)),
        (Value::String("a".into()), Tensor::scalar(Arc::<str>::from("a"))),
        (array(vec![Value::Float(1.0), Value::Float(2.0)]), Tensor::vector(vec![1.0f32, 2.0])),
        (
            array(vec![
                array(vec![Value::Int32(1), Value::Int32(2)]),
                array(vec![Value::Int32(3), Value::Int32(4)]),
            ]),
            Tensor::new(&[2, 2], vec![1i32, 2, 3, 4]).unwrap(),
        ),
    ];
    for (value, tensor) in cases {
        assert_eq!(Tensor::from_value(&value).unwrap(), tensor);
        assert_eq!(tensor.to_value(), value);
    }
    assert_eq!(Tensor::vector(vec![5.0f32]).to_value(), Value::Float(5.0), "shape [1] is a number");
    assert_eq!(Tensor::vector(vec![200u8]).to_value(), Value::Int16(200));
    assert_eq!(Tensor::from_value(&Value::Bytes(vec![1, 2].into())).unwrap(), Tensor::vector(vec![1u8, 2]));
    for tensor in samples() {
        assert_eq!(Tensor::from_value(&tensor.to_row_value()).unwrap(), tensor);
    }
    let TypeKind::Logical(logical) = Tensor::field_type().kind else { panic!("not logical") };
    assert_eq!(logical.urn, super::TENSOR_TYPE);
}

#[test]
fn values_that_are_no_tensor_say_why() {
    let array = |values: Vec<Value>| Value::Array(values.into());
    let check = |value: Value, text: &str| {
        assert_eq!(Tensor::from_value(&value).unwrap_err().message(), text);
    };
    check(Value::Null, "a tensor wants numbers or arrays of numbers, got null");
    check(
        array(vec![Value::Int64(1), Value::Double(2.0)]),
        "an array of mixed types: a double beside a int64",
    );
    check(array(vec![array(vec![Value::Int64(1)]), array(vec![])]), "a ragged array: 0 values beside 1");
    check(array(vec![Value::Null]), "a tensor wants arrays of numbers, got an array of null");
    let deep = (0..40).fold(Value::Int64(1), |inner, _| array(vec![inner]));
    check(deep, "an array is nested deeper than 32");
    let row = named().to_value();
    check(row, "a tensor's row has the fields dtype, shape and data, got [\"x\", \"scores\"]");
}

#[test]
fn a_list_of_fields_is_a_vector() {
    let fields = |values: &[Value]| Tensor::from_fields(values);
    let ints = [Value::Int64(1), Value::Int64(2)];
    assert_eq!(fields(&ints).unwrap(), Tensor::vector(vec![1i64, 2]));
    let mixed = [Value::Int64(1), Value::Double(2.5)];
    assert_eq!(fields(&mixed).unwrap(), Tensor::vector(vec![1.0f64, 2.5]));
    let widths = [Value::Int32(1), Value::Int64(2)];
    assert_eq!(fields(&widths).unwrap(), Tensor::vector(vec![1i64, 2]));
    let floats = [Value::Float(1.0), Value::Float(2.5)];
    assert_eq!(fields(&floats).unwrap(), Tensor::vector(vec![1.0f32, 2.5]));
    let inexact = [Value::Int64(i64::MAX), Value::Double(2.5)];
    assert!(fields(&inexact).is_err(), "2^63 - 1 is no float64");
    assert!(fields(&[Value::Int64(1), Value::Null]).is_err());
}

#[test]
fn named_tensors_keep_order_and_names() {
    let tensors = named();
    assert_eq!(tensors.to_string(), "{x: 2, scores: [0.5, 1.5]}");
    assert_eq!(tensors.get("x"), Some(&Tensor::scalar(2i64)));
    assert_eq!(tensors.get("y"), None);
    assert_eq!(tensors.num_bytes(), 16);
    let names = || [Arc::<str>::from("x"), Arc::from("x")];
    let error = Tensors::new(names(), vec![Tensor::scalar(1i64), Tensor::scalar(2i64)]).unwrap_err();
    assert_eq!(error.message(), "two tensors have the name `x`");
    let error = Tensors::new(names(), vec![Tensor::scalar(1i64)]).unwrap_err();
    assert_eq!(error.message(), "2 names for 1 tensors");
    assert_eq!(DType::from_name("float16"), None);
}

#[test]
fn a_tensor_falls_into_its_rows() {
    let rows = |tensor: Tensor| tensor.into_rows().unwrap();
    let two = Tensor::new(&[2, 1], vec![1.0f32, 2.0]).unwrap();
    assert_eq!(rows(two), [Tensor::vector(vec![1.0f32]), Tensor::vector(vec![2.0f32])]);
    assert_eq!(rows(Tensor::vector(vec![1i64, 2])), [Tensor::scalar(1i64), Tensor::scalar(2i64)]);
    let one = Tensor::new(&[1, 2, 2], vec![1u8, 2, 3, 4]).unwrap();
    assert_eq!(rows(one), [Tensor::new(&[2, 2], vec![1u8, 2, 3, 4]).unwrap()]);
    let empty = Tensor::new(&[3, 0], Vec::<f64>::new()).unwrap();
    assert_eq!(rows(empty), vec![Tensor::vector(Vec::<f64>::new()); 3]);
    assert_eq!(rows(Tensor::new(&[0, 5], Vec::<f32>::new()).unwrap()), []);
    let error = Tensor::scalar(1.0f32).into_rows().unwrap_err();
    assert_eq!(error.message(), "a tensor without axes has no rows");
}
