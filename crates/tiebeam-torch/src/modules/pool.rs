//! Pooling, and what only changes shapes.

use tiebeam_core::error::Result;

use super::Module;
use super::conv::{Padding, Pair, Window};
use crate::graph::{Attribute, Dim, ElementType, GraphBuilder, Value};

/// The largest number of each window.
#[derive(Debug, Clone, Copy)]
pub struct MaxPool2d(Window);

/// The mean of each window; padding counts as zeros.
#[derive(Debug, Clone, Copy)]
pub struct AvgPool2d(Window);

macro_rules! windows {
    ($($name:ident),*) => {$(
        impl $name {
            /// Windows of that size, side by side.
            pub fn new(kernel: impl Pair) -> Self {
                let kernel = kernel.pair();
                $name(Window { kernel, stride: kernel, dilation: (1, 1), padding: Padding::Zeros(0, 0) })
            }

            /// Steps between the windows.
            #[must_use]
            pub fn stride(mut self, stride: impl Pair) -> Self {
                self.0.stride = stride.pair();
                self
            }

            /// Room around the image.
            #[must_use]
            pub fn padding(mut self, padding: impl Pair) -> Self {
                let (height, width) = padding.pair();
                self.0.padding = Padding::Zeros(height, width);
                self
            }
        }
    )*};
}
windows!(MaxPool2d, AvgPool2d);

impl MaxPool2d {
    /// Steps between a window's own elements.
    #[must_use]
    pub fn dilation(mut self, dilation: impl Pair) -> Self {
        self.0.dilation = dilation.pair();
        self
    }
}

fn pool(
    g: &mut GraphBuilder<'_>,
    window: &Window,
    what: &str,
    operator: &str,
    more: (&str, Attribute<'_>),
    x: &Value,
) -> Result<Value> {
    let (pads, [height, width]) = window.over(g, what, x)?;
    let (kernel, strides) = ([window.kernel.0, window.kernel.1], [window.stride.0, window.stride.1]);
    let pads = pads.unwrap_or_default();
    let attributes = [
        ("kernel_shape", Attribute::Ints(&kernel)),
        ("strides", Attribute::Ints(&strides)),
        ("pads", Attribute::Ints(&pads)),
        more,
    ];
    let shape = vec![x.shape()[0], x.shape()[1], height, width];
    Ok(g.node(operator, &[x], &attributes, ElementType::F32, shape))
}

impl Module for MaxPool2d {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        let dilations = [self.0.dilation.0, self.0.dilation.1];
        pool(g, &self.0, "MaxPool2d", "MaxPool", ("dilations", Attribute::Ints(&dilations)), x)
    }
}

impl Module for AvgPool2d {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        pool(g, &self.0, "AvgPool2d", "AveragePool", ("count_include_pad", Attribute::Int(1)), x)
    }
}

/// The means of a grid of so many places, whatever the image's size.
#[derive(Debug, Clone, Copy)]
pub struct AdaptiveAvgPool2d {
    places: (usize, usize),
}

impl AdaptiveAvgPool2d {
    /// Of that many places; 1 is the mean of the whole image.
    pub fn new(places: impl Pair) -> Self {
        AdaptiveAvgPool2d { places: places.pair() }
    }
}

impl Module for AdaptiveAvgPool2d {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        let [n, channels, height, width] = *x.shape() else {
            return Err(
                g.wrong(format!("AdaptiveAvgPool2d takes [n, channels, height, width], not {}", x.axes()))
            );
        };
        if self.places == (1, 1) {
            let shape = vec![n, channels, Dim::Fixed(1), Dim::Fixed(1)];
            return Ok(g.node("GlobalAveragePool", &[x], &[], ElementType::F32, shape));
        }
        let (Some(height), Some(width)) = (height.size(), width.size()) else {
            let known = "needs an image of known height and width";
            return Err(g.wrong(format!("AdaptiveAvgPool2d to {:?} {known}, not {}", self.places, x.axes())));
        };
        let (rows, columns) = self.places;
        if rows == 0 || columns == 0 || height == 0 || width == 0 {
            return Err(g.wrong(format!("AdaptiveAvgPool2d to {:?} was given {}", self.places, x.axes())));
        }
        if height.is_multiple_of(rows) && width.is_multiple_of(columns) {
            return AvgPool2d::new((height / rows, width / columns)).forward(g, x);
        }
        // Windows of different sizes: the means are products with two small matrices.
        let left = g.constant(&[rows, height], &shares(height, rows))?;
        let right = g.constant(&[columns, width], &shares(width, columns))?;
        let right = g.permute(&right, &[1, 0])?;
        let means = g.matmul(&left, x)?;
        g.matmul(&means, &right)
    }
}

/// A matrix \[places, size\]: how much each element counts in the mean of each place.
fn shares(size: usize, places: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; places * size];
    for place in 0..places {
        let (from, to) = (place * size / places, ((place + 1) * size).div_ceil(places));
        matrix[place * size + from..place * size + to].fill(1.0 / (to - from) as f32);
    }
    matrix
}

/// All axes but the first as one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flatten;

impl Module for Flatten {
    fn forward(&self, g: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        g.flatten(x)
    }
}

/// Nothing: only training drops anything. Keeps its place in a `Sequential`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dropout;

impl Module for Dropout {
    fn forward(&self, _: &mut GraphBuilder<'_>, x: &Value) -> Result<Value> {
        Ok(x.clone())
    }
}
