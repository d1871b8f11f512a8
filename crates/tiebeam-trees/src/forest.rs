//! [`Forest`]: trees as one array of nodes, walked by eight rows at a time.
//!
//! The two children of a node lie beside each other, so that a step is one comparison and one addition. A leaf leads to
//! itself: rows that have arrived wait there for the others.

use std::collections::BTreeSet;
use std::fmt::Debug;

/// How a package decides at a node, and in which numbers it computes.
pub(crate) trait Rule: Send + Sync + 'static {
    type Real: Real;
    /// Whether a number that is there goes right at a threshold.
    fn right(x: Self::Real, threshold: Self::Real) -> bool;
    /// The category that a number stands for; [`NO_CATEGORY`] where it is none.
    fn category(x: Self::Real) -> u32;
    /// Whether the members of a node's set go right, and all others left.
    const MEMBERS_GO_RIGHT: bool;
}

/// `f32` and `f64`.
pub(crate) trait Real: Copy + Default + Debug + Send + Sync + 'static + PartialOrd {
    const NAN: Self;
    fn missing(self) -> bool;
    fn is_zero(self) -> bool;
    /// A node of categories keeps the place of its set where others have a threshold.
    fn of_index(index: u32) -> Self;
    fn index(self) -> usize;
    fn add(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
}

/// A category that no set has.
const NO_CATEGORY: u32 = u32::MAX;

/// XGBoost: `x < threshold` goes left, in f32.
pub(crate) struct Xgboost;

/// LightGBM: `x <= threshold` goes left, in f64.
pub(crate) struct Lightgbm;

/// What XGBoost takes for the first number that is no category.
pub(crate) const TOO_LARGE: f32 = 16_777_216.0;

impl Rule for Xgboost {
    type Real = f32;
    const MEMBERS_GO_RIGHT: bool = true;

    #[inline(always)]
    fn right(x: f32, threshold: f32) -> bool {
        x >= threshold
    }

    #[inline(always)]
    fn category(x: f32) -> u32 {
        if (0.0..TOO_LARGE).contains(&x) { x as u32 } else { NO_CATEGORY }
    }
}

impl Rule for Lightgbm {
    type Real = f64;
    const MEMBERS_GO_RIGHT: bool = false;

    #[inline(always)]
    fn right(x: f64, threshold: f64) -> bool {
        x > threshold
    }

    #[inline(always)]
    fn category(x: f64) -> u32 {
        // Cut off towards zero, so that -0.5 is category 0.
        if x > -1.0 && x < f64::from(1u32 << 31) { x as u32 } else { NO_CATEGORY }
    }
}

/// What LightGBM takes for zero: the f32 nearest to 1e-35.
pub(crate) const ZERO: f64 = 1e-35_f32 as f64;

impl Real for f32 {
    const NAN: Self = f32::NAN;

    #[inline(always)]
    fn missing(self) -> bool {
        self.is_nan()
    }

    #[inline(always)]
    fn is_zero(self) -> bool {
        self == 0.0
    }

    fn of_index(index: u32) -> Self {
        f32::from_bits(index)
    }

    #[inline(always)]
    fn index(self) -> usize {
        self.to_bits() as usize
    }

    fn times(self, other: Self) -> Self {
        self * other
    }

    fn add(self, other: Self) -> Self {
        self + other
    }
}

impl Real for f64 {
    const NAN: Self = f64::NAN;

    #[inline(always)]
    fn missing(self) -> bool {
        self.is_nan()
    }

    #[inline(always)]
    fn is_zero(self) -> bool {
        self.abs() <= ZERO
    }

    fn of_index(index: u32) -> Self {
        f64::from_bits(u64::from(index))
    }

    #[inline(always)]
    fn index(self) -> usize {
        self.to_bits() as usize
    }

    fn times(self, other: Self) -> Self {
        self * other
    }

    fn add(self, other: Self) -> Self {
        self + other
    }
}

/// A node as a file has it; children by their numbers in the file.
pub(crate) enum Raw<T> {
    Leaf(T),
    Split { feature: usize, decide: Decide<T>, nan_right: bool, left: usize, right: usize },
}

/// What is asked at a node.
pub(crate) enum Decide<T> {
    /// A threshold. Zero may count as missing.
    Number { threshold: T, zero_missing: bool },
    /// A set of categories.
    Members(Members),
}

/// Categories as a node has them.
pub(crate) enum Members {
    Bits(Vec<u32>),
    Sorted(Vec<u32>),
}

#[derive(Debug, Clone, Copy)]
struct Node<T> {
    /// The threshold, the place of a set, or the value of a leaf.
    value: T,
    /// The column of the feature, and what the node is.
    bits: u32,
    /// The left child; the right one follows. Of a leaf: itself.
    left: u32,
}

const NAN_RIGHT: u32 = 1 << 31;
const SPLIT: u32 = 1 << 30;
const SET: u32 = 1 << 29;
const ZERO_MISSING: u32 = 1 << 28;
const COLUMN: u32 = (1 << 28) - 1;

/// Added to the length of a set that is a list.
const SORTED: u32 = 1 << 31;

/// How many rows walk a tree together.
const TOGETHER: usize = 8;

/// A leaf that is a linear model (LightGBM's `linear_tree`).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LinearLeaf<T> {
    pub(crate) constant: T,
    /// Features, later columns, with their factors.
    pub(crate) terms: Vec<(u32, T)>,
}

/// Trees that are ready.
pub(crate) struct Forest<R: Rule> {
    nodes: Vec<Node<R::Real>>,
    /// The first node of each tree, and the output that it adds to.
    roots: Vec<(u32, u32)>,
    /// The sets of categories, each with its length before it: as bits, or as a list where [`SORTED`] is added to the length.
    /// The first is an empty one, for nodes that have none.
    members: Vec<u32>,
    /// The linear model of nodes that have one, by node.
    linear: Vec<(u32, LinearLeaf<R::Real>)>,
    /// The features that some node asks for, in order: the columns.
    columns: Vec<u32>,
    groups: usize,
    /// Whether some node asks for a set or takes zero for missing.
    special: bool,
}

impl<R: Rule> Forest<R> {
    pub(crate) fn new(groups: usize) -> Self {
        Forest {
            nodes: Vec::new(),
            roots: Vec::new(),
            members: vec![0],
            linear: Vec::new(),
            columns: Vec::new(),
            groups,
            special: false,
        }
    }

    /// Adds a tree of `count` nodes, of which number 0 is the root. `linear` gives the linear model of a leaf.
    ///
    /// # Errors
    /// When a node leads out of the tree, or to one that another leads to; and what `node` refuses.
    pub(crate) fn add(
        &mut self,
        group: usize,
        count: usize,
        mut node: impl FnMut(usize) -> Result<Raw<R::Real>, String>,
        mut linear: impl FnMut(usize) -> Option<LinearLeaf<R::Real>>,
    ) -> Result<(), String> {
        if count == 0 {
            return Err("it has no nodes".to_owned());
        }
        let start = self.nodes.len();
        if start + count > i32::MAX as usize {
            return Err("the model has more nodes than can be".to_owned());
        }
        self.roots.push((start as u32, group as u32));
        let mut seen = vec![false; count];
        // Nodes of the file in the order that they get here.
        let mut order = vec![0];
        seen[0] = true;
        let mut at = 0;
        while let Some(number) = order.get(at).copied() {
            let here = (start + at) as u32;
            at += 1;
            let made = match node(number)? {
                Raw::Leaf(value) if value.missing() => return Err(format!("leaf {number} is NaN")),
                Raw::Leaf(value) => {
                    self.linear.extend(linear(number).map(|leaf| (here, leaf)));
                    Node { value, bits: 0, left: here }
                }
                Raw::Split { feature, decide, nan_right, left, right } => {
                    let first = (start + order.len()) as u32;
                    for child in [left, right] {
                        match seen.get_mut(child) {
                            Some(seen) if !*seen => *seen = true,
                            Some(_) => return Err(format!("two ways lead to node {child}: that is no tree")),
                            None => return Err(format!("node {number} leads to {child} of {count} nodes")),
                        }
                        order.push(child);
                    }
                    let (value, bits) = self.decision(number, decide)?;
                    let feature = u32::try_from(feature).ok().filter(|feature| *feature <= COLUMN);
                    let feature = feature.ok_or("a feature's number is too large")?;
                    let side = if nan_right { NAN_RIGHT } else { 0 };
                    Node { value, bits: feature | bits | SPLIT | side, left: first }
                }
            };
            self.nodes.push(made);
        }
        Ok(())
    }

    fn decision(&mut self, number: usize, decide: Decide<R::Real>) -> Result<(R::Real, u32), String> {
        match decide {
            Decide::Number { threshold, .. } if threshold.missing() => {
                Err(format!("the threshold of node {number} is NaN"))
            }
            Decide::Number { threshold, zero_missing } => {
                self.special |= zero_missing;
                Ok((threshold, if zero_missing { ZERO_MISSING } else { 0 }))
            }
            Decide::Members(members) => {
                self.special = true;
                let (sorted, members) = match members {
                    Members::Bits(words) => (false, words),
                    Members::Sorted(list) => (true, list),
                };
                let (start, length) = (self.members.len(), members.len());
                if start + length + 1 > i32::MAX as usize {
                    return Err("the model has more categories than can be".to_owned());
                }
                self.members.push(length as u32 | if sorted { SORTED } else { 0 });
                self.members.extend(members);
                Ok((R::Real::of_index(start as u32), SET))
            }
        }
    }

    /// Gives the features that are asked for their columns. Call it once, when all trees are there.
    pub(crate) fn finish(&mut self) {
        let split = |node: &&Node<R::Real>| node.bits & SPLIT != 0;
        let asked = self.nodes.iter().filter(split).map(|node| node.bits & COLUMN);
        let terms = self.linear.iter().flat_map(|(_, leaf)| leaf.terms.iter().map(|(feature, _)| *feature));
        self.columns = asked.chain(terms).collect::<BTreeSet<_>>().into_iter().collect();
        let columns = std::mem::take(&mut self.columns);
        let column = |feature: u32| columns.binary_search(&feature).unwrap_or(0) as u32;
        for node in self.nodes.iter_mut().filter(|node| node.bits & SPLIT != 0) {
            node.bits = (node.bits & !COLUMN) | column(node.bits & COLUMN);
        }
        for term in self.linear.iter_mut().flat_map(|(_, leaf)| &mut leaf.terms) {
            term.0 = column(term.0);
        }
        self.linear.sort_unstable_by_key(|(node, _)| *node);
        self.columns = columns;
        self.nodes.shrink_to_fit();
    }

    /// The features that [`add_scores`](Self::add_scores) wants, in the order of its columns.
    pub(crate) fn columns(&self) -> &[u32] {
        &self.columns
    }

    /// The number of outputs.
    pub(crate) fn groups(&self) -> usize {
        self.groups
    }

    /// The number of trees.
    pub(crate) fn trees(&self) -> usize {
        self.roots.len()
    }

    /// The bytes that the trees take.
    pub(crate) fn num_bytes(&self) -> u64 {
        let linear =
            self.linear.iter().map(|(_, leaf)| size_of_val(leaf.terms.as_slice()) + size_of_val(leaf));
        let bytes = size_of_val(self.nodes.as_slice())
            + size_of_val(self.roots.as_slice())
            + size_of_val(self.members.as_slice())
            + linear.sum::<usize>();
        bytes as u64
    }

    /// Adds each tree's leaf to `scores` (rows × outputs), tree after tree. `rows` has rows × columns.
    pub(crate) fn add_scores(&self, rows: &[R::Real], scores: &mut [R::Real]) {
        if self.special { self.add_all::<true>(rows, scores) } else { self.add_all::<false>(rows, scores) }
    }

    fn add_all<const SPECIAL: bool>(&self, rows: &[R::Real], scores: &mut [R::Real]) {
        let (width, groups) = (self.columns.len().max(1), self.groups);
        // A forest without a split has no columns, yet its leaves look at one.
        let nothing = [R::Real::NAN];
        for (root, group) in &self.roots {
            for (eight, chunk) in scores.chunks_mut(groups * TOGETHER).enumerate() {
                let n = chunk.len() / groups;
                let first = eight * TOGETHER;
                let row = |i: usize| -> &[R::Real] {
                    if self.columns.is_empty() {
                        return &nothing;
                    }
                    let at = (first + i.min(n.saturating_sub(1))) * width;
                    &rows[at..at + width]
                };
                let rows: [&[R::Real]; TOGETHER] = std::array::from_fn(row);
                let leaves = self.walk::<SPECIAL>(*root, &rows);
                for ((score, leaf), row) in chunk.chunks_mut(groups).zip(leaves).zip(rows) {
                    let value = if self.linear.is_empty() {
                        self.nodes[leaf as usize].value
                    } else {
                        self.linear_value(leaf, row)
                    };
                    let slot = &mut score[*group as usize];
                    *slot = slot.add(value);
                }
            }
        }
    }

    /// The leaves at which rows arrive.
    #[inline]
    fn walk<const SPECIAL: bool>(&self, root: u32, rows: &[&[R::Real]; TOGETHER]) -> [u32; TOGETHER] {
        let mut at = [root; TOGETHER];
        loop {
            let mut moved = 0;
            for i in 0..TOGETHER {
                let next = self.step::<SPECIAL>(at[i], rows[i]);
                moved |= next ^ at[i];
                at[i] = next;
            }
            if moved == 0 {
                return at;
            }
        }
    }

    #[inline(always)]
    fn step<const SPECIAL: bool>(&self, at: u32, row: &[R::Real]) -> u32 {
        let node = self.nodes[at as usize];
        let x = row[(node.bits & COLUMN) as usize];
        let split = node.bits >> 30 & 1;
        if !SPECIAL {
            let right = if x.missing() { node.bits & NAN_RIGHT != 0 } else { R::right(x, node.value) };
            return node.left + (u32::from(right) & split);
        }
        // Both answers are worked out, without a branch: which one counts can't be foreseen.
        let set = node.bits >> 29 & 1;
        let zero = u32::from(x.is_zero()) & node.bits >> 28;
        let missing = (u32::from(x.missing()) | zero) & 1;
        let member = self.is_member(node.value.index() & 0usize.wrapping_sub(set as usize), R::category(x));
        let by_set = u32::from(member == R::MEMBERS_GO_RIGHT);
        let known = (by_set & set) | (u32::from(R::right(x, node.value)) & (set ^ 1));
        node.left + (((known & (missing ^ 1)) | (node.bits >> 31 & missing)) & split)
    }

    /// Whether the set at that place has a category.
    #[inline(always)]
    fn is_member(&self, set: usize, category: u32) -> bool {
        let length = self.members[set];
        if length & SORTED != 0 {
            return self.members[set + 1..][..(length & !SORTED) as usize].binary_search(&category).is_ok();
        }
        let word = category / 32;
        let inside = word < length;
        // One that is outside looks at the length, which is no matter.
        let word = self.members[set + (word as usize + 1) * usize::from(inside)];
        inside & (word >> (category % 32) & 1 == 1)
    }
}

impl<R: Rule> Forest<R> {
    /// A leaf's value with its linear model, if it has one; a row that lacks a feature of it gets the plain value.
    fn linear_value(&self, leaf: u32, row: &[R::Real]) -> R::Real {
        let plain = self.nodes[leaf as usize].value;
        let Ok(at) = self.linear.binary_search_by_key(&leaf, |(node, _)| *node) else { return plain };
        let LinearLeaf { constant, terms } = &self.linear[at].1;
        let mut value = *constant;
        for (column, factor) in terms {
            let x = row[*column as usize];
            if x.missing() {
                return plain;
            }
            value = value.add(factor.times(x));
        }
        value
    }
}
