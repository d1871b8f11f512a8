//! Sums and means.

use std::marker::PhantomData;

use tiebeam_core::{CombineFn, Element};

/// A number that can be added up.
pub trait Number: Element + Copy {
    /// Nothing.
    const ZERO: Self;
    /// The sum. Whole numbers that overflow stay at their largest or smallest.
    #[must_use]
    fn plus(self, other: Self) -> Self;
    /// As a double, for means.
    fn to_f64(self) -> f64;
}

macro_rules! whole { ($($t:ty),*) => {$(
    impl Number for $t {
        const ZERO: Self = 0;
        fn plus(self, other: Self) -> Self { self.saturating_add(other) }
        fn to_f64(self) -> f64 { self as f64 }
    }
)*}; }
macro_rules! real { ($($t:ty),*) => {$(
    impl Number for $t {
        const ZERO: Self = 0.0;
        fn plus(self, other: Self) -> Self { self + other }
        fn to_f64(self) -> f64 { f64::from(self) }
    }
)*}; }
whole!(i64, i32, i16, i8, u64, u32, u16, usize);
real!(f64, f32);

/// Adds up its inputs; 0 for none.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// # let p = Pipeline::new();
/// use tiebeam_transforms::sums::Sum;
/// let sums = p.apply(Create::of([(1i64, 2i64), (1, 3)])).combine_per_key(Sum::new()); // (1, 5)
/// ```
pub struct Sum<T>(PhantomData<fn(T)>);

/// The mean of its inputs as a double; NaN for none, as Beam's.
pub struct Mean<T>(PhantomData<fn(T)>);

impl<T> Sum<T> {
    /// Of numbers.
    pub fn new() -> Self {
        Sum(PhantomData)
    }
}

impl<T> Default for Sum<T> {
    fn default() -> Self {
        Sum::new()
    }
}

impl<T> Mean<T> {
    /// Of numbers.
    pub fn new() -> Self {
        Mean(PhantomData)
    }
}

impl<T> Default for Mean<T> {
    fn default() -> Self {
        Mean::new()
    }
}

impl<T: Number> CombineFn for Sum<T> {
    type Input = T;
    type Accumulator = T;
    type Output = T;

    fn create_accumulator(&self) -> T {
        T::ZERO
    }

    fn add_input(&self, accumulator: &mut T, input: T) {
        *accumulator = accumulator.plus(input);
    }

    fn merge(&self, accumulator: &mut T, other: T) {
        *accumulator = accumulator.plus(other);
    }

    fn extract_output(&self, accumulator: T) -> T {
        accumulator
    }
}

impl<T: Number> CombineFn for Mean<T> {
    type Input = T;
    type Accumulator = (f64, i64);
    type Output = f64;

    fn create_accumulator(&self) -> (f64, i64) {
        (0.0, 0)
    }

    fn add_input(&self, accumulator: &mut (f64, i64), input: T) {
        accumulator.0 += input.to_f64();
        accumulator.1 += 1;
    }

    fn merge(&self, accumulator: &mut (f64, i64), other: (f64, i64)) {
        accumulator.0 += other.0;
        accumulator.1 += other.1;
    }

    fn extract_output(&self, (sum, count): (f64, i64)) -> f64 {
        sum / count as f64
    }
}
