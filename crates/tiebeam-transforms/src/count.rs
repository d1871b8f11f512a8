//! Counting: all elements, per key, per element.

use std::marker::PhantomData;

use tiebeam_core::{CombineFn, Element};
use tiebeam_graph::{PCollection, PTransform, composite};

use crate::combine::CombineExt;

/// Counts its inputs. Beam's `CountCombineFn`.
pub struct Count<T>(PhantomData<fn(T)>);

impl<T> Count<T> {
    /// Of whatever.
    pub fn new() -> Self {
        Count(PhantomData)
    }
}

impl<T> Default for Count<T> {
    fn default() -> Self {
        Count::new()
    }
}

impl<T: Element> CombineFn for Count<T> {
    type Input = T;
    type Accumulator = i64;
    type Output = i64;

    fn create_accumulator(&self) -> i64 {
        0
    }

    fn add_input(&self, accumulator: &mut i64, _: T) {
        *accumulator += 1;
    }

    fn merge(&self, accumulator: &mut i64, other: i64) {
        *accumulator += other;
    }

    fn extract_output(&self, accumulator: i64) -> i64 {
        accumulator
    }
}

/// The number of elements in each window; 0 for none in the global window.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// # let p = Pipeline::new();
/// use tiebeam_transforms::count;
/// let n = p.apply(Create::of([5i64, 6])).apply(count::globally()); // 2
/// ```
pub fn globally<T: Element>() -> impl PTransform<PCollection<T>, Output = PCollection<i64>> {
    composite("Count.Globally", |input: PCollection<T>| input.combine_globally(Count::new()))
}

/// The number of values of each key.
pub fn per_key<K: Element, V: Element>()
-> impl PTransform<PCollection<(K, V)>, Output = PCollection<(K, i64)>> {
    composite("Count.PerKey", |input: PCollection<(K, V)>| input.combine_per_key(Count::new()))
}

/// How often each element is there. Equal elements are those of equal encodings.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// # let p = Pipeline::new();
/// use tiebeam_transforms::count;
/// let words = p.apply(Create::of(["a", "b", "a"].map(str::to_owned)));
/// let counts = words.apply(count::per_element()); // ("a", 2), ("b", 1)
/// ```
pub fn per_element<T: Element>() -> impl PTransform<PCollection<T>, Output = PCollection<(T, i64)>> {
    composite("Count.PerElement", |input: PCollection<T>| {
        let coder = tiebeam_core::coder::kv_coder(input.coder(), <()>::coder());
        input.step("AddValue").map(|element| (element, ())).with_coder(coder).combine_per_key(Count::new())
    })
}
