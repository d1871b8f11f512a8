//! Modules with torch's names and defaults. Each writes its ONNX operations, with the weights that torch gives it.

mod activation;
mod attention;
mod conv;
mod linear;
mod norm;
mod pool;

use tiebeam_core::error::Result;

use crate::graph::{GraphBuilder, Value};

pub use activation::{GELU, Identity, ReLU, ReLU6, SiLU, Sigmoid, Softmax, Tanh};
pub use attention::MultiheadAttention;
pub use conv::{Conv2d, Pair};
pub use linear::{Embedding, Linear};
pub use norm::{BatchNorm2d, LayerNorm};
pub use pool::{AdaptiveAvgPool2d, AvgPool2d, Dropout, Flatten, MaxPool2d};

/// A piece of a model, as torch's `nn.Module`: writes what it computes into a graph. Its weights' names are relative to
/// the builder's scope.
///
/// ```
/// use tiebeam_core::error::Result;
/// use tiebeam_torch::modules::{BatchNorm2d, Conv2d, Module};
/// use tiebeam_torch::{GraphBuilder, Value};
///
/// /// A residual block: torch's class has the attributes `conv` and `bn`.
/// struct Block {
///     channels: usize,
/// }
///
/// impl Module for Block {
///     fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
///         let y = g.apply("conv", &Conv2d::new(self.channels, self.channels, 3).padding(1).bias(false), x)?;
///         let y = g.apply("bn", &BatchNorm2d::new(self.channels), &y)?;
///         let sum = g.add(&y, x)?;
///         Ok(g.relu(&sum))
///     }
/// }
/// ```
pub trait Module {
    /// Writes the module's operations on `x`.
    ///
    /// # Errors
    /// When the module can't take a value of that shape. Missing or wrong weights are told by the builder at the end.
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value>;
}

/// Modules one after the other, named `0`, `1`, … as in `nn.Sequential`.
#[derive(Default)]
pub struct Sequential(Vec<Box<dyn Module>>);

impl Sequential {
    /// No modules yet.
    pub fn new() -> Self {
        Sequential::default()
    }

    /// Adds one at the end.
    #[must_use]
    pub fn with(mut self, module: impl Module + 'static) -> Self {
        self.0.push(Box::new(module));
        self
    }
}

impl Module for Sequential {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        let mut x = x.clone();
        for (i, module) in self.0.iter().enumerate() {
            x = g.apply(&i.to_string(), module.as_ref(), &x)?;
        }
        Ok(x)
    }
}
