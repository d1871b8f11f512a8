//! Values that lie with a runner: read page by page, wherever the pages' ends are.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tiebeam_core::coder::{IterableState, urn, write_varint};
use tiebeam_core::{Bytes, Coder, CoderSpec, Element, Error, Iterable, Nesting, Reader, Result};

/// All bytes in pages of one size, under the token "t".
struct Paged {
    bytes: Bytes,
    page: usize,
    asked: AtomicUsize,
}

impl Paged {
    fn new(bytes: Vec<u8>, page: usize) -> Arc<Self> {
        Arc::new(Paged { bytes: bytes.into(), page, asked: AtomicUsize::new(0) })
    }
}

impl IterableState for Paged {
    fn page(&self, token: &[u8], page: Option<&[u8]>) -> Result<(Bytes, Option<Bytes>)> {
        assert_eq!(token, b"t");
        self.asked.fetch_add(1, Ordering::Relaxed);
        let at = page.map_or(0, |page| usize::from_be_bytes(page.try_into().unwrap()));
        let end = self.bytes.len().min(at + self.page);
        let next = (end < self.bytes.len()).then(|| Bytes::copy_from_slice(&end.to_be_bytes()));
        Ok((self.bytes.slice(at..end), next))
    }
}

fn encoded<T: 'static>(coder: &Coder<T>, values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    values.iter().for_each(|value| coder.encode(value, &mut bytes, Nesting::Nested).unwrap());
    bytes
}

/// `-1`, the values that stand in the element itself, and the token of the rest.
fn element(of: usize, first: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 4];
    if of > 0 {
        write_varint(of as i64, &mut bytes);
        bytes.extend_from_slice(first);
    }
    write_varint(-1, &mut bytes);
    bytes.extend_from_slice(b"\x01t");
    bytes
}

/// What iterating unwinds with.
fn aborted<T: Element>(values: &Iterable<T>) -> Error {
    let unwound =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| values.iter().count())).unwrap_err();
    *unwound.downcast::<Error>().unwrap()
}

#[test]
fn pages_may_end_anywhere_in_a_value() {
    type Value = (String, Vec<Option<f64>>);
    let values: Vec<Value> = (0..9)
        .map(|i| ("ü".repeat(i * 30), (0..i).map(|n| (n % 2 == 0).then_some(n as f64)).collect()))
        .collect();
    let bytes = encoded(&Value::coder(), &values);
    let spec = CoderSpec::of(urn::STATE_BACKED_ITERABLE, [Value::coder().spec()]);
    let in_element = element(2, &encoded(&Value::coder(), &values[..2]));
    let all = [&values[..2], &values].concat();
    for page in 1..bytes.len() + 2 {
        let read = |from: &[u8], state: &Arc<Paged>| -> Reader {
            Reader::new(from.to_vec()).with_state(state.clone())
        };
        let state = Paged::new(bytes.clone(), page);
        let lazy = Iterable::<Value>::coder_of(&spec).unwrap();
        let lazy = lazy.decode(&mut read(&in_element, &state), Nesting::Nested).unwrap();
        assert_eq!(state.asked.load(Ordering::Relaxed), 0, "nothing is read before it is wanted");
        assert_eq!(lazy.to_vec(), all, "pages of {page}");
        let once = state.asked.load(Ordering::Relaxed);
        assert_eq!(once, bytes.len().div_ceil(page));
        assert_eq!(lazy.count(), all.len());
        assert_eq!(state.asked.load(Ordering::Relaxed), 2 * once, "read again from the first page");

        let eager = Vec::<Value>::coder_of(&spec).unwrap();
        let eager = eager.decode(&mut read(&in_element, &state), Nesting::Nested).unwrap();
        assert_eq!(eager, all, "pages of {page}");

        let paged = Iterable::paged(&b"t"[..], state, Value::coder());
        assert_eq!(paged.to_vec(), values, "pages of {page}");
    }
}

#[test]
fn a_value_over_many_pages_is_not_tried_for_each_of_them() {
    let value = "x".repeat(1 << 20);
    let state = Paged::new(encoded(&String::coder(), &[value.clone(), "end".to_owned()]), 16);
    let values = Iterable::paged(&b"t"[..], state, String::coder());
    // Were the whole tried and copied page by page, this would copy 32 GiB.
    assert_eq!(values.to_vec(), [value, "end".to_owned()]);
}

#[test]
fn a_damaged_value_is_an_error_at_once_and_a_cut_one_at_the_end() {
    let tail = "y".repeat(10_000);
    let with = |mut bytes: Vec<u8>, page| {
        bytes.extend(encoded(&String::coder(), std::slice::from_ref(&tail)));
        let state = Paged::new(bytes, page);
        let error = aborted(&Iterable::paged(&b"t"[..], state.clone(), String::coder()));
        (error, state.asked.load(Ordering::Relaxed))
    };
    // Not UTF-8; a negative length; a varint that does not end: more pages would not make them right.
    for (bytes, code) in [
        (vec![2, 0xff, 0xff], "TB0108"),
        (vec![0xff; 9].into_iter().chain([1]).collect(), "TB0104"),
        (vec![0xff; 11], "TB0103"),
    ] {
        let (error, asked) = with(bytes, 16);
        assert_eq!((error.code(), asked), (code, 1), "{error}");
    }
    // A pair whose length is too short for what is in it.
    let pairs = tiebeam_core::coder::length_prefixed(<(String, i64)>::coder());
    let state = Paged::new([vec![2, 9, b'a'], vec![0; 10_000]].concat(), 16);
    let error = aborted(&Iterable::paged(&b"t"[..], state.clone(), pairs));
    assert_eq!((error.code(), state.asked.load(Ordering::Relaxed)), ("TB0104", 1), "{error}");
    // The last value lacks its end.
    let whole = encoded(&String::coder(), &["abc".to_owned(), tail]);
    for cut in [1, 100, 9_000] {
        let state = Paged::new(whole[..whole.len() - cut].to_vec(), 64);
        let error = aborted(&Iterable::paged(&b"t"[..], state, String::coder()));
        assert_eq!(error.code(), "TB0104", "{error}");
    }
}

#[test]
fn values_that_take_no_bytes_do_not_go_on_for_ever() {
    let nothing = <()>::coder().unprefixed().unwrap();
    let error = aborted(&Iterable::paged(&b"t"[..], Paged::new(vec![1], 1), nothing.clone()));
    assert_eq!(error.to_string(), "a page of a list's values holds bytes, and its values take none");
    let none = Iterable::paged(&b"t"[..], Paged::new(Vec::new(), 1), nothing);
    assert_eq!(none.count(), 0);
}

#[test]
fn empty_pages_are_passed_over() {
    struct Gaps;
    impl IterableState for Gaps {
        fn page(&self, _: &[u8], page: Option<&[u8]>) -> Result<(Bytes, Option<Bytes>)> {
            let pages: [&[u8]; 7] = [b"", b"\x02a", b"", b"", b"b\x01", b"c", b""];
            let at = page.map_or(0, |page| usize::from(page[0]));
            let next = (at + 1 < pages.len()).then(|| Bytes::from(vec![at as u8 + 1]));
            Ok((Bytes::from_static(pages[at]), next))
        }
    }
    let values = Iterable::<String>::paged(Bytes::new(), Arc::new(Gaps), String::coder());
    assert_eq!(values.to_vec(), ["ab", "c"]);
}
