//! [`CombineFn`]: an aggregation that can be done in parts.

use crate::element::Element;

/// An associative and commutative aggregation. Runners combine before a shuffle what they can.
pub trait CombineFn: Send + Sync + 'static {
    /// What is combined.
    type Input: Element;
    /// What travels between the parts.
    type Accumulator: Element;
    /// The result.
    type Output: Element;

    /// Of nothing.
    fn create_accumulator(&self) -> Self::Accumulator;

    /// One more input.
    fn add_input(&self, accumulator: &mut Self::Accumulator, input: Self::Input);

    /// All of another accumulator.
    fn merge(&self, accumulator: &mut Self::Accumulator, other: Self::Accumulator);

    /// The result of all inputs.
    fn extract_output(&self, accumulator: Self::Accumulator) -> Self::Output;
}
