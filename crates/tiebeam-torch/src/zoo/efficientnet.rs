//! `EfficientNetLite0` … `EfficientNetLite4`, with the weights' names of the package `efficientnet-lite-pytorch`.
//!
//! Parameters `num_classes` (1000) and `image_size` (224, 240, 260, 280, 300). They take `x` float32
//! \[n, 3, image_size, image_size\] of (pixel − 127) / 128 and give `y` \[n, num_classes\]: logits.

use tiebeam_core::error::Result;
use tiebeam_core::row::Value as Given;

use crate::architecture::Architecture;
use crate::graph::{Dim, ElementType, GraphBuilder, Value};
use crate::modules::{AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, Module};
use crate::params::{Param, ParamKind, Params};

/// The stem's and the head's channels, which are the same in all of them.
const STEM: usize = 32;
const HEAD: usize = 1280;

/// TensorFlow's epsilon.
const EPSILON: f32 = 1e-3;

/// One stage of blocks before scaling: repeats, kernel, stride, expansion, channels that come out.
struct Stage(usize, usize, usize, usize, usize);

const STAGES: [Stage; 7] = [
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
];

pub(super) fn architectures() -> Vec<Architecture> {
    // Width and depth in tenths, so that scaling is exact.
    let all = [(10, 10, 224), (10, 11, 240), (11, 12, 260), (12, 14, 280), (14, 18, 300)];
    let make = |(i, (width, depth, size))| {
        Architecture::new(format!("EfficientNetLite{i}"), move |params, g| {
            efficientnet(width, depth, params, g)
        })
        .with_param(Param::optional("num_classes", ParamKind::Size, Given::Int64(1000)))
        .with_param(Param::optional("image_size", ParamKind::Size, Given::Int64(size)))
    };
    all.into_iter().enumerate().map(make).collect()
}

/// Channels scaled and rounded to a multiple of eight, never down by more than a tenth.
fn scaled_channels(channels: usize, width: usize) -> usize {
    if width == 10 {
        return channels;
    }
    let tenths = channels * width;
    let rounded = ((tenths + 40) / 80 * 8).max(8);
    // Both sides in hundredths.
    if rounded * 100 < tenths * 9 { rounded + 8 } else { rounded }
}

/// An inverted bottleneck: `MBConvBlock`.
struct Inverted {
    kernel: usize,
    stride: usize,
    expansion: usize,
    inputs: usize,
    outputs: usize,
}

impl Module for Inverted {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        let wide = self.inputs * self.expansion;
        let mut y = x.clone();
        if self.expansion != 1 {
            y = step(g, "_expand_conv", "_bn0", Conv2d::new(self.inputs, wide, 1), wide, &y)?;
            y = g.clip(&y, 0.0, 6.0)?;
        }
        let depthwise = Conv2d::new(wide, wide, self.kernel).stride(self.stride).groups(wide);
        y = step(g, "_depthwise_conv", "_bn1", depthwise, wide, &y)?;
        y = g.clip(&y, 0.0, 6.0)?;
        y = step(g, "_project_conv", "_bn2", Conv2d::new(wide, self.outputs, 1), self.outputs, &y)?;
        if self.stride == 1 && self.inputs == self.outputs { g.add(&y, x) } else { Ok(y) }
    }
}

/// A convolution with SAME padding and its normalisation.
fn step(
    g: &mut GraphBuilder<'_>,
    conv: &str,
    norm: &str,
    module: Conv2d,
    channels: usize,
    x: &Value,
) -> Result<Value> {
    let y = g.apply(conv, &module.same().bias(false), x)?;
    g.apply(norm, &BatchNorm2d::new(channels).epsilon(EPSILON), &y)
}

fn efficientnet(width: usize, depth: usize, params: &Params, g: &mut GraphBuilder<'_>) -> Result<()> {
    let size = params.size("image_size")?;
    let shape = [Dim::Named("n"), Dim::Fixed(3), Dim::Fixed(size), Dim::Fixed(size)];
    let image = g.input("x", ElementType::F32, &shape);
    let x = step(g, "_conv_stem", "_bn0", Conv2d::new(3, STEM, 3).stride(2), STEM, &image)?;
    let mut x = g.clip(&x, 0.0, 6.0)?;
    let mut block = 0;
    let mut inputs = STEM;
    for (i, Stage(repeats, kernel, stride, expansion, outputs)) in STAGES.into_iter().enumerate() {
        let outputs = scaled_channels(outputs, width);
        // The first and the last stage are not deepened.
        let repeats = if i == 0 || i + 1 == STAGES.len() { repeats } else { (repeats * depth).div_ceil(10) };
        for repeat in 0..repeats {
            let stride = if repeat == 0 { stride } else { 1 };
            let module = Inverted { kernel, stride, expansion, inputs, outputs };
            x = g.apply(&format!("_blocks.{block}"), &module, &x)?;
            inputs = outputs;
            block += 1;
        }
    }
    let x = step(g, "_conv_head", "_bn1", Conv2d::new(inputs, HEAD, 1), HEAD, &x)?;
    let x = g.clip(&x, 0.0, 6.0)?;
    let x = AdaptiveAvgPool2d::new(1).forward(g, &x)?;
    let x = Flatten.forward(g, &x)?;
    let y = g.apply("_fc", &Linear::new(HEAD, params.size("num_classes")?), &x)?;
    g.output("y", &y);
    Ok(())
}
