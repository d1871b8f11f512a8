//! Everything in one list.

use std::marker::PhantomData;

use tiebeam_core::{CombineFn, Element};

/// All inputs in memory, in no particular order. Beam's `ToList`.
pub struct ToList<T>(PhantomData<fn(T)>);

impl<T> ToList<T> {
    /// Of whatever.
    pub fn new() -> Self {
        ToList(PhantomData)
    }
}

impl<T> Default for ToList<T> {
    fn default() -> Self {
        ToList::new()
    }
}

impl<T: Element> CombineFn for ToList<T> {
    type Input = T;
    type Accumulator = Vec<T>;
    type Output = Vec<T>;

    fn create_accumulator(&self) -> Vec<T> {
        Vec::new()
    }

    fn add_input(&self, accumulator: &mut Vec<T>, input: T) {
        accumulator.push(input);
    }

    fn merge(&self, accumulator: &mut Vec<T>, other: Vec<T>) {
        accumulator.extend(other);
    }

    fn extract_output(&self, accumulator: Vec<T>) -> Vec<T> {
        accumulator
    }
}
