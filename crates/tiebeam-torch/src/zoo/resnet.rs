//! torchvision's ResNets: `torchvision.models.resnet18`, `…34`, `…50`, `…101`, `…152`.
//!
//! Parameter `num_classes` (1000). They take `x` float32 \[n, 3, height, width\], normalised as torchvision does, and give
//! `y` \[n, num_classes\]: logits.

use tiebeam_core::error::Result;
use tiebeam_core::row::Value as Given;

use crate::architecture::Architecture;
use crate::graph::{Dim, ElementType, GraphBuilder, Value};
use crate::modules::{
    AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, Module, Sequential,
};
use crate::params::{Param, ParamKind, Params};

pub(super) fn architectures() -> Vec<Architecture> {
    let all = [
        ("resnet18", Block::Basic, [2, 2, 2, 2]),
        ("resnet34", Block::Basic, [3, 4, 6, 3]),
        ("resnet50", Block::Bottleneck, [3, 4, 6, 3]),
        ("resnet101", Block::Bottleneck, [3, 4, 23, 3]),
        ("resnet152", Block::Bottleneck, [3, 8, 36, 3]),
    ];
    let make = |(name, block, depths)| {
        Architecture::new(format!("torchvision.models.{name}"), move |params, g| {
            resnet(block, depths, params, g)
        })
        .with_param(Param::optional("num_classes", ParamKind::Size, Given::Int64(1000)))
    };
    all.into_iter().map(make).collect()
}

#[derive(Clone, Copy)]
enum Block {
    /// Two convolutions.
    Basic,
    /// Three, the middle one narrower.
    Bottleneck,
}

impl Block {
    const fn expansion(self) -> usize {
        match self {
            Block::Basic => 1,
            Block::Bottleneck => 4,
        }
    }
}

/// One residual block: torchvision's `BasicBlock` or `Bottleneck`.
struct Residual {
    block: Block,
    inputs: usize,
    width: usize,
    stride: usize,
}

impl Residual {
    fn outputs(&self) -> usize {
        self.width * self.block.expansion()
    }

    /// The `i`th convolution with its normalisation.
    fn step(
        &self,
        g: &mut GraphBuilder<'_>,
        i: usize,
        conv: &Conv2d,
        channels: usize,
        x: &Value,
    ) -> Result<Value> {
        let y = g.apply(&format!("conv{i}"), conv, x)?;
        g.apply(&format!("bn{i}"), &BatchNorm2d::new(channels), &y)
    }
}

impl Module for Residual {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        let (inputs, width, outputs) = (self.inputs, self.width, self.outputs());
        let conv = |inputs, outputs, kernel: usize| {
            Conv2d::new(inputs, outputs, kernel).padding(kernel / 2).bias(false)
        };
        let y = match self.block {
            Block::Basic => {
                let y = self.step(g, 1, &conv(inputs, width, 3).stride(self.stride), width, x)?;
                let y = g.relu(&y);
                self.step(g, 2, &conv(width, width, 3), width, &y)?
            }
            Block::Bottleneck => {
                let y = self.step(g, 1, &conv(inputs, width, 1), width, x)?;
                let y = g.relu(&y);
                let y = self.step(g, 2, &conv(width, width, 3).stride(self.stride), width, &y)?;
                let y = g.relu(&y);
                self.step(g, 3, &conv(width, outputs, 1), outputs, &y)?
            }
        };
        let shortcut = if self.stride != 1 || inputs != outputs {
            let project = conv(inputs, outputs, 1).stride(self.stride);
            g.apply("downsample", &Sequential::new().with(project).with(BatchNorm2d::new(outputs)), x)?
        } else {
            x.clone()
        };
        let sum = g.add(&y, &shortcut)?;
        Ok(g.relu(&sum))
    }
}

fn resnet(block: Block, depths: [usize; 4], params: &Params, g: &mut GraphBuilder<'_>) -> Result<()> {
    let shape = [Dim::Named("n"), Dim::Fixed(3), Dim::Named("height"), Dim::Named("width")];
    let image = g.input("x", ElementType::F32, &shape);
    let x = g.apply("conv1", &Conv2d::new(3, 64, 7).stride(2).padding(3).bias(false), &image)?;
    let x = g.apply("bn1", &BatchNorm2d::new(64), &x)?;
    let x = g.relu(&x);
    let mut x = MaxPool2d::new(3).stride(2).padding(1).forward(g, &x)?;
    let mut inputs = 64;
    for (i, depth) in depths.into_iter().enumerate() {
        for j in 0..depth {
            let stride = if i > 0 && j == 0 { 2 } else { 1 };
            let residual = Residual { block, inputs, width: 64 << i, stride };
            x = g.apply(&format!("layer{}.{j}", i + 1), &residual, &x)?;
            inputs = residual.outputs();
        }
    }
    let x = AdaptiveAvgPool2d::new(1).forward(g, &x)?;
    let x = Flatten.forward(g, &x)?;
    let y = g.apply("fc", &Linear::new(inputs, params.size("num_classes")?), &x)?;
    g.output("y", &y);
    Ok(())
}
