//! Linear and Embedding.

use tiebeam_core::error::Result;

use super::Module;
use crate::graph::{Attribute, Dim, ElementType, GraphBuilder, Value};

/// `x · weightᵀ + bias` over the last axis. Weights: `weight` \[out, in\], `bias` \[out\].
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    inputs: usize,
    outputs: usize,
    bias: bool,
}

impl Linear {
    /// From `inputs` to `outputs` features, with a bias.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        Linear { inputs, outputs, bias: true }
    }

    /// With a bias or without.
    #[must_use]
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }
}

impl Module for Linear {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        match x.shape().last() {
            Some(Dim::Fixed(size)) if *size != self.inputs => {
                return Err(g.wrong(format!("Linear of {} features was given {}", self.inputs, x.axes())));
            }
            None => return Err(g.wrong("Linear was given a scalar")),
            _ => {}
        }
        let mut shape = x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = Dim::Fixed(self.outputs);
        }
        if x.rank() == 2 {
            let weight = g.parameter("weight", &[self.outputs, self.inputs]);
            let attributes = [("transB", Attribute::Int(1))];
            if self.bias {
                let bias = g.parameter("bias", &[self.outputs]);
                return Ok(g.node("Gemm", &[x, &weight, &bias], &attributes, ElementType::F32, shape));
            }
            return Ok(g.node("Gemm", &[x, &weight], &attributes, ElementType::F32, shape));
        }
        let weight = transposed(g, "weight", self.outputs, self.inputs)?;
        let product = g.node("MatMul", &[x, &weight], &[], ElementType::F32, shape);
        if !self.bias {
            return Ok(product);
        }
        let bias = g.parameter("bias", &[self.outputs]);
        g.add(&product, &bias)
    }
}

/// The weight \[rows, columns\] as a constant \[columns, rows\].
fn transposed(g: &mut GraphBuilder<'_>, name: &str, rows: usize, columns: usize) -> Result<Value> {
    match g.parameter_numbers(name, &[rows, columns]) {
        Some(weight) => turned(g, &weight, rows, columns),
        None => Ok(g.parameter(name, &[rows, columns])),
    }
}

/// A matrix \[rows, columns\] as a constant \[columns, rows\].
pub(super) fn turned(g: &mut GraphBuilder<'_>, matrix: &[f32], rows: usize, columns: usize) -> Result<Value> {
    let mut out = Vec::with_capacity(matrix.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| matrix[row * columns + column]));
    }
    g.constant(&[columns, rows], &out)
}

/// Rows of a table by their index. Weight: `weight` \[rows, width\]. Takes `int64`.
#[derive(Debug, Clone, Copy)]
pub struct Embedding {
    rows: usize,
    width: usize,
}

impl Embedding {
    /// A table of `rows` vectors of `width` numbers.
    pub fn new(rows: usize, width: usize) -> Self {
        Embedding { rows, width }
    }
}

impl Module for Embedding {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        if x.element() != ElementType::I64 {
            return Err(g.wrong("Embedding takes int64"));
        }
        let weight = g.parameter("weight", &[self.rows, self.width]);
        let mut shape = x.shape().to_vec();
        shape.push(Dim::Fixed(self.width));
        Ok(g.node("Gather", &[&weight, x], &[("axis", Attribute::Int(0))], ElementType::F32, shape))
    }
}
