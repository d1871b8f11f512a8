//! Random samples of a fixed size.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use tiebeam_core::{CombineFn, Element};

/// Up to `n` inputs, each set of `n` as likely as any other. Beam's `Sample.FixedSizeGlobally` and `…PerKey`.
///
/// Each input draws a random number and the `n` smallest stay, so that parts can be combined in any order.
pub struct Sample<T> {
    n: usize,
    state: AtomicU64,
    element: PhantomData<fn(T)>,
}

impl<T> Sample<T> {
    /// Of `n` inputs, another sample in every run.
    pub fn of(n: usize) -> Self {
        // The standard library's hash keys are random in every process: the only randomness needed here.
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), n);
        Sample::seeded(n, seed)
    }

    /// Of `n` inputs, from that seed. The sample is the same in every run only where the order of the inputs is.
    pub fn seeded(n: usize, seed: u64) -> Self {
        Sample { n, state: AtomicU64::new(seed), element: PhantomData }
    }

    /// SplitMix64 (Steele, Lea, Flood, 2014).
    fn draw(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15u64;
        let mut z = self.state.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn trim(&self, all: &mut Vec<(u64, T)>) {
        all.sort_by_key(|(drawn, _)| *drawn);
        all.truncate(self.n);
    }
}

impl<T: Element> CombineFn for Sample<T> {
    type Input = T;
    type Accumulator = Vec<(u64, T)>;
    type Output = Vec<T>;

    fn create_accumulator(&self) -> Self::Accumulator {
        Vec::new()
    }

    fn add_input(&self, accumulator: &mut Self::Accumulator, input: T) {
        accumulator.push((self.draw(), input));
        if accumulator.len() >= 2 * self.n + 16 {
            self.trim(accumulator);
        }
    }

    fn merge(&self, accumulator: &mut Self::Accumulator, other: Self::Accumulator) {
        accumulator.extend(other);
        self.trim(accumulator);
    }

    fn extract_output(&self, mut accumulator: Self::Accumulator) -> Vec<T> {
        self.trim(&mut accumulator);
        accumulator.into_iter().map(|(_, element)| element).collect()
    }
}
