//! Normalisations.

use tiebeam_core::error::Result;

use super::Module;
use crate::graph::{Attribute, Dim, ElementType, GraphBuilder, Value};

/// Normalisation of each channel by the statistics of training. Weights: `weight`, `bias`, `running_mean`,
/// `running_var`, each \[channels\].
///
/// Right after a convolution it costs nothing: its numbers are put into that one's.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm2d {
    channels: usize,
    epsilon: f32,
}

impl BatchNorm2d {
    /// Of so many channels; epsilon 1e-5.
    pub fn new(channels: usize) -> Self {
        BatchNorm2d { channels, epsilon: 1e-5 }
    }

    /// Another epsilon.
    #[must_use]
    pub fn epsilon(mut self, epsilon: f32) -> Self {
        self.epsilon = epsilon;
        self
    }
}

impl Module for BatchNorm2d {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        let fits = x.rank() == 4 && x.shape()[1].size().is_none_or(|channels| channels == self.channels);
        if !fits {
            return Err(g.wrong(format!("BatchNorm2d of {} channels was given {}", self.channels, x.axes())));
        }
        let of = |g: &mut GraphBuilder<'_>, name: &str| g.parameter(name, &[self.channels]);
        let (scale, bias) = (of(g, "weight"), of(g, "bias"));
        let (mean, variance) = (of(g, "running_mean"), of(g, "running_var"));
        g.unused("num_batches_tracked");
        let inputs = [x, &scale, &bias, &mean, &variance];
        let attributes = [("epsilon", Attribute::Float(self.epsilon))];
        Ok(g.node("BatchNormalization", &inputs, &attributes, ElementType::F32, x.shape().to_vec()))
    }
}

/// Normalisation of the last axes of each element. Weights: `weight`, `bias`, both of those axes.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    axes: Vec<usize>,
    epsilon: f32,
}

impl LayerNorm {
    /// Over the last axes, of these sizes; epsilon 1e-5.
    pub fn new(axes: &[usize]) -> Self {
        LayerNorm { axes: axes.to_vec(), epsilon: 1e-5 }
    }

    /// Another epsilon.
    #[must_use]
    pub fn epsilon(mut self, epsilon: f32) -> Self {
        self.epsilon = epsilon;
        self
    }
}

impl Module for LayerNorm {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        let own = x.rank().checked_sub(self.axes.len()).map(|first| &x.shape()[first..]);
        let fits = |dims: &[Dim]| {
            dims.iter().zip(&self.axes).all(|(dim, n)| dim.size().is_none_or(|size| size == *n))
        };
        if self.axes.is_empty() || !own.is_some_and(fits) {
            return Err(g.wrong(format!("LayerNorm over {:?} was given {}", self.axes, x.axes())));
        }
        let (scale, bias) = (g.parameter("weight", &self.axes), g.parameter("bias", &self.axes));
        let attributes = [
            ("axis", Attribute::Int(-(self.axes.len() as i64))),
            ("epsilon", Attribute::Float(self.epsilon)),
        ];
        Ok(g.node(
            "LayerNormalization",
            &[x, &scale, &bias],
            &attributes,
            ElementType::F32,
            x.shape().to_vec(),
        ))
    }
}
