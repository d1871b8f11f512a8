//! Smallest, largest, and the first few in an order.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::sync::Arc;

use tiebeam_core::{CombineFn, Element};

/// The smallest input, if there is any. Doubles are not `Ord`: wrap or map them, or use [`Top`] with an order.
pub struct Min<T>(PhantomData<fn(T)>);

/// The largest input, if there is any.
pub struct Max<T>(PhantomData<fn(T)>);

/// The first `n` inputs in an order, in that order. Equal ones are in no particular order.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// # let p = Pipeline::new();
/// use tiebeam_transforms::{extrema::Top, CombineExt};
/// let two = p.apply(Create::of([3i64, 9, 4])).combine_globally(Top::largest(2)); // [9, 4]
/// ```
pub struct Top<T> {
    n: usize,
    order: Arc<dyn Fn(&T, &T) -> Ordering + Send + Sync>,
}

macro_rules! extremum {
    ($name:ident, $pick:ident) => {
        impl<T> $name<T> {
            /// Of ordered elements.
            pub fn new() -> Self {
                $name(PhantomData)
            }
        }

        impl<T> Default for $name<T> {
            fn default() -> Self {
                $name::new()
            }
        }

        impl<T: Element + Ord> CombineFn for $name<T> {
            type Input = T;
            type Accumulator = Option<T>;
            type Output = Option<T>;

            fn create_accumulator(&self) -> Option<T> {
                None
            }

            fn add_input(&self, accumulator: &mut Option<T>, input: T) {
                *accumulator = Some(match accumulator.take() {
                    None => input,
                    Some(best) => best.$pick(input),
                });
            }

            fn merge(&self, accumulator: &mut Option<T>, other: Option<T>) {
                if let Some(other) = other {
                    self.add_input(accumulator, other);
                }
            }

            fn extract_output(&self, accumulator: Option<T>) -> Option<T> {
                accumulator
            }
        }
    };
}
extremum!(Min, min);
extremum!(Max, max);

impl<T: Element> Top<T> {
    /// The first `n` by `order`: `Less` comes first.
    pub fn by(n: usize, order: impl Fn(&T, &T) -> Ordering + Send + Sync + 'static) -> Self {
        Top { n, order: Arc::new(order) }
    }

    /// The `n` largest, largest first. Beam's `Top.Largest`.
    pub fn largest(n: usize) -> Self
    where
        T: Ord,
    {
        Top::by(n, |a: &T, b: &T| b.cmp(a))
    }

    /// The `n` smallest, smallest first. Beam's `Top.Smallest`.
    pub fn smallest(n: usize) -> Self
    where
        T: Ord,
    {
        Top::by(n, T::cmp)
    }

    /// Sorts and keeps the first `n`; called when twice as many have gathered, so that it costs little an element.
    fn trim(&self, all: &mut Vec<T>) {
        all.sort_by(|a, b| (self.order)(a, b));
        all.truncate(self.n);
    }
}

impl<T: Element> CombineFn for Top<T> {
    type Input = T;
    type Accumulator = Vec<T>;
    type Output = Vec<T>;

    fn create_accumulator(&self) -> Vec<T> {
        Vec::new()
    }

    fn add_input(&self, accumulator: &mut Vec<T>, input: T) {
        accumulator.push(input);
        if accumulator.len() >= 2 * self.n + 16 {
            self.trim(accumulator);
        }
    }

    fn merge(&self, accumulator: &mut Vec<T>, other: Vec<T>) {
        accumulator.extend(other);
        self.trim(accumulator);
    }

    fn extract_output(&self, mut accumulator: Vec<T>) -> Vec<T> {
        self.trim(&mut accumulator);
        accumulator
    }
}
