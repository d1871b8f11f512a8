//! How a stage's input is cut into bundles.

use std::ops::Range;

use tiebeam_core::WindowingStrategy;

pub use crate::groups::Blocks;
use crate::store::Part;

/// The input of one bundle.
pub enum Work {
    /// One empty element, out of nothing.
    Impulse,
    /// Elements that were kept.
    Elements(Vec<Piece>),
    /// A partition of a shuffle.
    Groups(Blocks, WindowingStrategy),
}

/// Some elements that were kept.
pub struct Piece {
    pub(crate) part: Part,
    pub(crate) range: Range<usize>,
}

/// How bundles are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundlePolicy {
    /// A few for each thread, so that all threads work until the end.
    Balanced,
    /// At random places, in random order: for tests. The number is the seed.
    Random(u64),
}

/// Bundles for each thread: enough that a slow one does not leave the others idle for long.
const BUNDLES_PER_THREAD: usize = 4;

/// The most bundles of one element: of a million files, each bundle reads several.
const MOST_ONE_BY_ONE: usize = 1_024;

/// Cuts kept elements into bundles.
pub(crate) fn cut(parts: Vec<Part>, one_by_one: bool, threads: usize, policy: BundlePolicy) -> Vec<Work> {
    let total: usize = parts.iter().map(Part::len).sum();
    if total == 0 {
        return Vec::new();
    }
    let even = total.div_ceil(threads * BUNDLES_PER_THREAD).max(1);
    let few = total.div_ceil(MOST_ONE_BY_ONE.max(threads * BUNDLES_PER_THREAD));
    let mut random = match policy {
        BundlePolicy::Balanced => None,
        BundlePolicy::Random(seed) => Some(Random::new(seed)),
    };
    let mut size = move || match (&mut random, one_by_one) {
        (_, true) => few,
        (None, false) => even,
        (Some(random), false) => 1 + random.below(total.min(4 * even).max(1)),
    };
    let mut bundles = Vec::new();
    let mut bundle = Vec::new();
    let mut room = size();
    for part in parts {
        let mut start = 0;
        while start < part.len() {
            let end = part.len().min(start + room);
            bundle.push(Piece { part: part.clone(), range: start..end });
            room -= end - start;
            start = end;
            if room == 0 {
                bundles.push(Work::Elements(std::mem::take(&mut bundle)));
                room = size();
            }
        }
    }
    if !bundle.is_empty() {
        bundles.push(Work::Elements(bundle));
    }
    order(&mut bundles, policy);
    bundles
}

/// Puts bundles into the policy's order.
pub(crate) fn order(bundles: &mut [Work], policy: BundlePolicy) {
    if let BundlePolicy::Random(seed) = policy {
        let mut random = Random::new(seed ^ 0x5eed);
        for i in (1..bundles.len()).rev() {
            bundles.swap(i, random.below(i + 1));
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): enough to shuffle tests.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
