//! Operators on images: convolutions, pools, resizing.

use tiebeam_onnx::proto::AttributeProto;

use super::{Converter, Done, Op, unsupported};

impl Converter<'_> {
    /// Whether the operator is one of these; then it is done.
    pub(super) fn images(&mut self, code: i32, op: &Op<'_>) -> Done<bool> {
        match code {
            3 => self.convolution(op, false)?,
            4 => self.convolution(op, true)?,
            67 => self.transposed(op)?,
            1 => self.pool("AveragePool", op)?,
            17 => self.pool("MaxPool", op)?,
            23 => self.resize(op, true)?,
            97 => self.resize(op, false)?,
            5 => self.blocks("DepthToSpace", op)?,
            26 => self.blocks("SpaceToDepth", op)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// How much is put around the image: `SAME` keeps its size over the stride, `VALID` puts nothing.
    fn padding(
        &self,
        op: &Op<'_>,
        input: usize,
        window: [i64; 2],
        strides: [i64; 2],
        dilations: [i64; 2],
    ) -> Done<AttributeProto> {
        match op.options.u8(0)? {
            1 => return Ok(AttributeProto::ints("pads", &[0; 4])),
            0 => {}
            other => return Err(format!("padding {other}").into()),
        }
        let mut pads = [0; 4];
        for i in 0..2 {
            let Some(Some(size)) = self.shape(input).get(1 + i).copied() else {
                // The engine works it out; those that have it do not take dilations with it.
                return Ok(AttributeProto::string("auto_pad", "SAME_UPPER"));
            };
            let size = size as i64;
            let steps = (size + strides[i] - 1) / strides[i];
            let reach = (window[i] - 1) * dilations[i] + 1;
            let total = ((steps - 1) * strides[i] + reach - size).max(0);
            (pads[i], pads[i + 2]) = (total / 2, total - total / 2);
        }
        Ok(AttributeProto::ints("pads", &pads))
    }

    fn convolution(&mut self, op: &Op<'_>, depthwise: bool) -> Done<()> {
        let (input, weights, output) = (op.input(0)?, op.input(1)?, op.output()?);
        let dims = self.dims(weights)?;
        let [first, height, width, last] = dims[..] else {
            return Err(format!("weights of the shape {dims:?}").into());
        };
        let strides = [op.options.positive(2, 0)?, op.options.positive(1, 0)?];
        // Depthwise ones have a multiplier in between.
        let at = if depthwise { 4 } else { 3 };
        let (activation, across, down) = (at, at + 1, at + 2);
        let dilations = [op.options.positive(down, 1)?, op.options.positive(across, 1)?];
        let numbers = self.floats(weights)?;
        let pixels = height * width;
        let (outer, turned) = if depthwise {
            if first != 1 {
                return Err(format!("weights of the shape {dims:?}").into());
            }
            ([last, 1, height, width], turned(&numbers, 1, pixels, last))
        } else {
            ([first, last, height, width], turned(&numbers, first, pixels, last))
        };
        let channels = self.shape(input).get(3).copied().flatten();
        let group = match (depthwise, channels) {
            (true, Some(channels)) => channels,
            (true, None) => last / op.options.positive(3, 1)? as usize,
            (false, Some(channels)) if last > 0 => channels / last,
            (false, _) => 1,
        };
        if group == 0 || outer[0] % group != 0 {
            return Err(format!("{channels:?} channels for weights of the shape {dims:?}").into());
        }
        let window = [height as i64, width as i64];
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &window),
            AttributeProto::ints("strides", &strides),
            AttributeProto::ints("dilations", &dilations),
            AttributeProto::int("group", group as i64),
            self.padding(op, input, window, strides, dilations)?,
        ];
        let x = self.channels_first(input)?;
        let weights = self.w.f32s(&outer, &turned)?;
        let name = match op.maybe(2) {
            Some(bias) => {
                let bias = self.plain(bias)?;
                self.w.node("Conv", &[&x, &weights, &bias], attributes)
            }
            None => self.w.node("Conv", &[&x, &weights], attributes),
        };
        let name = self.activated(name, op.options.u8(activation)?)?;
        self.set_first(output, name);
        Ok(())
    }

    /// `TRANSPOSE_CONV`: output shape, weights, image, bias.
    fn transposed(&mut self, op: &Op<'_>) -> Done<()> {
        let (sizes, weights, input) = (self.fixed(op.input(0)?)?, op.input(1)?, op.input(2)?);
        let dims = self.dims(weights)?;
        let ([outer, height, width, inner], [_, down, across, _]) = (&dims[..], &sizes[..]) else {
            return Err(format!("weights of the shape {dims:?} for the shape {sizes:?}").into());
        };
        let strides = [op.options.positive(2, 0)?, op.options.positive(1, 0)?];
        let window = [*height as i64, *width as i64];
        let (mut pads, mut more) = ([0; 4], [0; 2]);
        for (i, wanted) in [*down, *across].into_iter().enumerate() {
            let Some(Some(size)) = self.shape(input).get(1 + i).copied() else {
                return unsupported("takes an image of any size");
            };
            let full = (size as i64 - 1) * strides[i] + window[i];
            if !(0..=1 << 24).contains(&wanted) || full > 1 << 24 {
                return Err(format!("an image of {wanted} pixels").into());
            }
            // What is too much goes at both ends, what lacks comes at the end.
            let total = (full - wanted).max(0);
            (pads[i], pads[i + 2]) = (total / 2, total - total / 2);
            more[i] = (wanted - full).max(0);
        }
        let numbers = self.floats(weights)?;
        // O, H, W, I → I, O, H, W
        let (rows, pixels) = (outer * height * width, *inner);
        let turned = turned(&numbers, 1, rows, pixels);
        let weights = self.w.f32s(&[*inner, *outer, *height, *width], &turned)?;
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &window),
            AttributeProto::ints("strides", &strides),
            AttributeProto::ints("pads", &pads),
            AttributeProto::ints("output_padding", &more),
        ];
        let x = self.channels_first(input)?;
        let name = match op.maybe(3) {
            Some(bias) => {
                let bias = self.plain(bias)?;
                self.w.node("ConvTranspose", &[&x, &weights, &bias], attributes)
            }
            None => self.w.node("ConvTranspose", &[&x, &weights], attributes),
        };
        let name = self.activated(name, op.options.u8(3)?)?;
        self.set_first(op.output()?, name);
        Ok(())
    }

    fn pool(&mut self, operator: &str, op: &Op<'_>) -> Done<()> {
        let input = op.input(0)?;
        let strides = [op.options.positive(2, 0)?, op.options.positive(1, 0)?];
        let window = [op.options.positive(4, 0)?, op.options.positive(3, 0)?];
        let mut attributes = vec![
            AttributeProto::ints("kernel_shape", &window),
            AttributeProto::ints("strides", &strides),
            self.padding(op, input, window, strides, [1, 1])?,
        ];
        if operator == "AveragePool" {
            attributes.push(AttributeProto::int("count_include_pad", 0));
        }
        let x = self.channels_first(input)?;
        let name = self.w.node(operator, &[&x], attributes);
        let name = self.activated(name, op.options.u8(5)?)?;
        self.set_first(op.output()?, name);
        Ok(())
    }

    fn resize(&mut self, op: &Op<'_>, linear: bool) -> Done<()> {
        let input = op.input(0)?;
        let at = if linear { 2 } else { 0 };
        let (corners, half) = (op.options.flag(at)?, op.options.flag(at + 1)?);
        let wanted = self.fixed(op.input(1)?)?;
        let (&[down, across], &[_, Some(height), Some(width), _]) = (&wanted[..], self.shape(input)) else {
            return unsupported("takes an image of any size");
        };
        if !(1..=1 << 16).contains(&down) || !(1..=1 << 16).contains(&across) || height == 0 || width == 0 {
            return Err(format!("an image of {down} × {across} pixels").into());
        }
        let places = if corners {
            "align_corners"
        } else if half {
            "half_pixel"
        } else {
            "asymmetric"
        };
        let mut attributes = vec![
            AttributeProto::string("mode", if linear { "linear" } else { "nearest" }),
            AttributeProto::string("coordinate_transformation_mode", places),
        ];
        if !linear {
            let nearest = if corners || half { "round_prefer_ceil" } else { "floor" };
            attributes.push(AttributeProto::string("nearest_mode", nearest));
        }
        let scales = [1.0, 1.0, down as f32 / height as f32, across as f32 / width as f32];
        let scales = self.w.f32s(&[4], &scales)?;
        let x = self.channels_first(input)?;
        let name = self.w.node("Resize", &[&x, "", &scales], attributes);
        self.set_first(op.output()?, name);
        Ok(())
    }

    /// `DEPTH_TO_SPACE`, `SPACE_TO_DEPTH`.
    fn blocks(&mut self, operator: &str, op: &Op<'_>) -> Done<()> {
        let size = op.options.positive(0, 0)?;
        let x = self.channels_first(op.input(0)?)?;
        let mut attributes = vec![AttributeProto::int("blocksize", size)];
        if operator == "DepthToSpace" {
            attributes.push(AttributeProto::string("mode", "DCR"));
        }
        let name = self.w.node(operator, &[&x], attributes);
        self.set_first(op.output()?, name);
        Ok(())
    }
}

/// Brings the last axis of `slices × rows × columns` before the one in the middle.
fn turned(numbers: &[f32], slices: usize, rows: usize, columns: usize) -> Vec<f32> {
    let mut turned = Vec::with_capacity(numbers.len());
    for slice in 0..slices {
        for column in 0..columns {
            for row in 0..rows {
                turned.push(numbers[(slice * rows + row) * columns + column]);
            }
        }
    }
    turned
}
