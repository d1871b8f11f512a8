//! Activations: no weights, any shape.

use tiebeam_core::error::Result;

use super::Module;
use crate::graph::{GraphBuilder, Value};

macro_rules! activations {
    ($($(#[$doc:meta])* $name:ident => |$g:ident, $x:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default)]
        pub struct $name;

        impl Module for $name {
            fn forward(&self, $g: &mut GraphBuilder<'_>, $x: &Value) -> Result<Value> {
                $body
            }
        }
    )*};
}

activations! {
    /// `max(x, 0)`
    ReLU => |g, x| Ok(g.relu(x));
    /// `min(max(x, 0), 6)`
    ReLU6 => |g, x| g.clip(x, 0.0, 6.0);
    /// `x · sigmoid(x)`, also called Swish
    SiLU => |g, x| g.silu(x);
    /// `1 / (1 + exp(-x))`
    Sigmoid => |g, x| Ok(g.sigmoid(x));
    /// The hyperbolic tangent
    Tanh => |g, x| Ok(g.tanh(x));
    /// Nothing: `x` itself
    Identity => |_g, x| Ok(x.clone());
}

/// `x · Φ(x)`: exact, or by the tanh approximation (`approximate="tanh"`).
#[allow(clippy::upper_case_acronyms)] // torch's name
#[derive(Debug, Clone, Copy, Default)]
pub struct GELU {
    tanh: bool,
}

impl GELU {
    /// The exact one.
    pub fn new() -> Self {
        GELU::default()
    }

    /// The approximation.
    pub fn approximate() -> Self {
        GELU { tanh: true }
    }
}

impl Module for GELU {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        if self.tanh { g.gelu_tanh(x) } else { g.gelu(x) }
    }
}

/// Shares of one along an axis.
#[derive(Debug, Clone, Copy)]
pub struct Softmax {
    axis: isize,
}

impl Softmax {
    /// Along `axis`; negative ones count from the end.
    pub fn new(axis: isize) -> Self {
        Softmax { axis }
    }
}

impl Module for Softmax {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        g.softmax(x, self.axis)
    }
}
