//! Two-dimensional convolution.

use tiebeam_core::error::Result;

use super::Module;
use crate::graph::{Attribute, Dim, ElementType, GraphBuilder, Value};

/// What is put around an image before it is convolved or pooled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Padding {
    /// So many zeros above and below, left and right.
    Zeros(usize, usize),
    /// TensorFlow's SAME: as many that the result has `ceil(size / stride)` places, the odd one at the end.
    Same,
}

/// A two-dimensional convolution of \[n, channels, height, width\]. Weights: `weight` \[out, in / groups, kh, kw\],
/// `bias` \[out\].
#[derive(Debug, Clone, Copy)]
pub struct Conv2d {
    inputs: usize,
    outputs: usize,
    kernel: (usize, usize),
    stride: (usize, usize),
    dilation: (usize, usize),
    padding: Padding,
    groups: usize,
    bias: bool,
}

/// A square, or height and width.
pub trait Pair {
    /// Height and width.
    fn pair(self) -> (usize, usize);
}

impl Pair for usize {
    fn pair(self) -> (usize, usize) {
        (self, self)
    }
}

impl Pair for (usize, usize) {
    fn pair(self) -> (usize, usize) {
        self
    }
}

impl Conv2d {
    /// From `inputs` to `outputs` channels; stride 1, no padding, with a bias.
    pub fn new(inputs: usize, outputs: usize, kernel: impl Pair) -> Self {
        Conv2d {
            inputs,
            outputs,
            kernel: kernel.pair(),
            stride: (1, 1),
            dilation: (1, 1),
            padding: Padding::Zeros(0, 0),
            groups: 1,
            bias: true,
        }
    }

    /// Steps between the places.
    #[must_use]
    pub fn stride(mut self, stride: impl Pair) -> Self {
        self.stride = stride.pair();
        self
    }

    /// Zeros around the image.
    #[must_use]
    pub fn padding(mut self, padding: impl Pair) -> Self {
        let (height, width) = padding.pair();
        self.padding = Padding::Zeros(height, width);
        self
    }

    /// TensorFlow's SAME padding.
    #[must_use]
    pub fn same(mut self) -> Self {
        self.padding = Padding::Same;
        self
    }

    /// Steps between the kernel's own elements.
    #[must_use]
    pub fn dilation(mut self, dilation: impl Pair) -> Self {
        self.dilation = dilation.pair();
        self
    }

    /// So many convolutions side by side, each of its share of the channels.
    #[must_use]
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// With a bias or without.
    #[must_use]
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }
}

/// A window that moves over an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    pub dilation: (usize, usize),
    pub padding: Padding,
}

impl Window {
    /// Pads \[top, left, bottom, right\] (none: ONNX's SAME_UPPER, told at run time), and the result's height and width.
    pub(super) fn over(
        &self,
        g: &GraphBuilder<'_>,
        what: &str,
        x: &Value,
    ) -> Result<(Option<[usize; 4]>, [Dim; 2])> {
        let [_, _, height, width] = x.shape() else {
            return Err(
                g.wrong(format!("{what} takes [n, channels, height, width] and was given {}", x.axes()))
            );
        };
        let all = [self.kernel, self.stride, self.dilation];
        if all.iter().any(|(height, width)| *height == 0 || *width == 0) {
            return Err(g.wrong(format!("{what} has a kernel, stride or dilation of 0")));
        }
        let reach = [
            self.dilation.0.saturating_mul(self.kernel.0 - 1).saturating_add(1),
            self.dilation.1.saturating_mul(self.kernel.1 - 1).saturating_add(1),
        ];
        let strides = [self.stride.0, self.stride.1];
        let dims = [*height, *width];
        match self.padding {
            Padding::Zeros(vertical, horizontal) => {
                let pads = [vertical, horizontal];
                let mut out = [Dim::Free; 2];
                for i in 0..2 {
                    if let Some(size) = dims[i].size() {
                        let padded = size.saturating_add(pads[i].saturating_mul(2));
                        let Some(room) = padded.checked_sub(reach[i]) else {
                            return Err(g.wrong(format!("{what} does not fit into {}", x.axes())));
                        };
                        out[i] = Dim::Fixed(room / strides[i] + 1);
                    }
                }
                Ok((Some([vertical, horizontal, vertical, horizontal]), out))
            }
            Padding::Same => {
                let out = [dims[0].map(|n| n.div_ceil(strides[0])), dims[1].map(|n| n.div_ceil(strides[1]))];
                let (Some(h), Some(w)) = (dims[0].size(), dims[1].size()) else { return Ok((None, out)) };
                let total = |i: usize, size: usize| {
                    (size.div_ceil(strides[i]).saturating_sub(1) * strides[i] + reach[i]).saturating_sub(size)
                };
                let (v, h) = (total(0, h), total(1, w));
                Ok((Some([v / 2, h / 2, v - v / 2, h - h / 2]), out))
            }
        }
    }
}

impl Module for Conv2d {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        let window = Window {
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            padding: self.padding,
        };
        let (pads, [height, width]) = window.over(g, "Conv2d", x)?;
        if x.shape()[1].size().is_some_and(|channels| channels != self.inputs) {
            return Err(g.wrong(format!("Conv2d of {} channels was given {}", self.inputs, x.axes())));
        }
        if self.groups == 0
            || !self.inputs.is_multiple_of(self.groups)
            || !self.outputs.is_multiple_of(self.groups)
        {
            return Err(g.wrong(format!(
                "{} and {} channels can't be put into {} groups",
                self.inputs, self.outputs, self.groups
            )));
        }
        let weight =
            g.parameter("weight", &[self.outputs, self.inputs / self.groups, self.kernel.0, self.kernel.1]);
        let (kernel, strides, dilations) = (
            [self.kernel.0, self.kernel.1],
            [self.stride.0, self.stride.1],
            [self.dilation.0, self.dilation.1],
        );
        let padding = match &pads {
            Some(pads) => ("pads", Attribute::Ints(pads)),
            None => ("auto_pad", Attribute::Text("SAME_UPPER")),
        };
        let attributes = [
            ("kernel_shape", Attribute::Ints(&kernel)),
            ("strides", Attribute::Ints(&strides)),
            ("dilations", Attribute::Ints(&dilations)),
            ("group", Attribute::Int(self.groups as i64)),
            padding,
        ];
        let shape = vec![x.shape()[0], Dim::Fixed(self.outputs), height, width];
        let bias = self.bias.then(|| g.parameter("bias", &[self.outputs]));
        let inputs = [Some(x), Some(&weight), bias.as_ref()];
        let inputs: Vec<&Value> = inputs.into_iter().flatten().collect();
        Ok(g.node("Conv", &inputs, &attributes, ElementType::F32, shape))
    }
}
