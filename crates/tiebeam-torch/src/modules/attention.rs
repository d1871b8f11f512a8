//! Multi-head attention.

use tiebeam_core::error::Result;

use super::linear::turned;
use super::{Linear, Module};
use crate::graph::{Dim, ElementType, GraphBuilder, Value};

/// Attention of several heads, as `nn.MultiheadAttention(batch_first=True)`: \[n, places, width\]. Weights:
/// `in_proj_weight` \[3 · width, width\], `in_proj_bias` \[3 · width\], `out_proj.weight`, `out_proj.bias`.
#[derive(Debug, Clone, Copy)]
pub struct MultiheadAttention {
    width: usize,
    heads: usize,
    bias: bool,
}

impl MultiheadAttention {
    /// Of that width, which the heads share evenly.
    pub fn new(width: usize, heads: usize) -> Self {
        MultiheadAttention { width, heads, bias: true }
    }

    /// With biases or without.
    #[must_use]
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// What `query` finds in `value` by `key`. `ignore` (bool \[n, places of key\]) is torch's key_padding_mask: true
    /// where a place is not to be looked at.
    ///
    /// # Errors
    /// When the shapes don't go together.
    pub fn attend(
        &self,
        g: &mut GraphBuilder<'_>,
        query: &Value,
        key: &Value,
        value: &Value,
        ignore: Option<&Value>,
    ) -> Result<Value> {
        if self.heads == 0 || !self.width.is_multiple_of(self.heads) {
            return Err(g.wrong(format!("{} heads can't share a width of {}", self.heads, self.width)));
        }
        for x in [query, key, value] {
            if x.rank() != 3 || x.shape()[2].size().is_some_and(|width| width != self.width) {
                let wanted = format!("MultiheadAttention takes [n, places, {}]", self.width);
                return Err(g.wrong(format!("{wanted} and was given {}", x.axes())));
            }
        }
        let weights = g.parameter_numbers("in_proj_weight", &[3 * self.width, self.width]);
        let biases = if self.bias { g.parameter_numbers("in_proj_bias", &[3 * self.width]) } else { None };
        let mut parts = Vec::with_capacity(3);
        for (i, x) in [query, key, value].into_iter().enumerate() {
            parts.push(self.project(g, x, i, weights.as_deref(), biases.as_deref())?);
        }
        let [query, key, value] = parts.as_slice() else {
            return Err(g.wrong("three projections are needed"));
        };
        let key = g.permute(key, &[0, 1, 3, 2])?;
        let root = g.constant(&[], &[((self.width / self.heads) as f32).sqrt()])?;
        let query = g.div(query, &root)?;
        let mut scores = g.matmul(&query, &key)?;
        if let Some(ignore) = ignore {
            scores = self.masked(g, &scores, ignore)?;
        }
        let shares = g.softmax(&scores, -1)?;
        let found = g.matmul(&shares, value)?;
        let found = g.permute(&found, &[0, 2, 1, 3])?;
        let joined = g.reshape(&found, &[0, 0, self.width as i64])?;
        g.apply("out_proj", &Linear::new(self.width, self.width).bias(self.bias), &joined)
    }

    /// One of the three projections, as \[n, heads, places, width of a head\].
    fn project(
        &self,
        g: &mut GraphBuilder<'_>,
        x: &Value,
        i: usize,
        weights: Option<&[f32]>,
        biases: Option<&[f32]>,
    ) -> Result<Value> {
        let (width, rows) = (self.width, i * self.width..(i + 1) * self.width);
        // What is missing is told at the end; until then, any value of the right shape will do.
        let mut projected = x.clone();
        if let Some(weights) = weights {
            let weight = turned(g, &weights[rows.start * width..rows.end * width], width, width)?;
            projected = g.matmul(x, &weight)?;
        }
        if let Some(biases) = biases {
            let bias = g.constant(&[width], &biases[rows])?;
            projected = g.add(&projected, &bias)?;
        }
        let split = g.reshape(&projected, &[0, 0, self.heads as i64, (width / self.heads) as i64])?;
        g.permute(&split, &[0, 2, 1, 3])
    }

    fn masked(&self, g: &mut GraphBuilder<'_>, scores: &Value, ignore: &Value) -> Result<Value> {
        let [n, places] = *ignore.shape() else {
            return Err(g.wrong(format!("a key padding mask is [n, places], not {}", ignore.axes())));
        };
        let axes = g.constant_i64(&[2], &[1, 2])?;
        let shape = vec![n, Dim::Fixed(1), Dim::Fixed(1), places];
        let mask = g.node("Unsqueeze", &[ignore, &axes], &[], ElementType::Bool, shape);
        let never = g.constant(&[], &[f32::NEG_INFINITY])?;
        g.select_where(&mask, &never, scores)
    }
}

impl Module for MultiheadAttention {
    /// Self-attention.
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        self.attend(g, x, x, x, None)
    }
}
