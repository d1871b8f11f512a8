//! Operators that cut, join and rearrange.

use tiebeam_onnx::proto::AttributeProto;

use super::{Converter, Done, Op, unsupported};

/// As far as a slice can go.
const END: i64 = i64::MAX;

impl Converter<'_> {
    /// Whether the operator is one of these; then it is done.
    pub(super) fn shapes(&mut self, code: i32, op: &Op<'_>) -> Done<bool> {
        match code {
            2 => self.concatenation(op)?,
            6 => self.dequantize(op)?,
            22 => self.reshape(op)?,
            34 | 60 => self.pad(op)?,
            100 => self.mirror_pad(op)?,
            36 => self.gather(op)?,
            39 => {
                let order = self.fixed(op.input(1)?)?;
                let x = self.plain(op.input(0)?)?;
                let name = self.transpose(&x, &order);
                self.set(op.output()?, name);
            }
            43 => self.squeeze(op)?,
            45 => self.strided_slice(op)?,
            49 => {
                let axis = self.one(op.input(0)?)?;
                self.split(op, op.input(1)?, axis, None)?;
            }
            102 => {
                let (sizes, axis) = (self.fixed(op.input(1)?)?, self.one(op.input(2)?)?);
                self.split(op, op.input(0)?, axis, Some(sizes))?;
            }
            53 => self.cast(op)?,
            65 => self.slice(op)?,
            69 => {
                let (x, times) = (self.plain(op.input(0)?)?, self.plain(op.input(1)?)?);
                let name = self.w.node("Tile", &[&x, &times], Vec::new());
                self.set(op.output()?, name);
            }
            70 => {
                let axis = self.one(op.input(1)?)?;
                let x = self.plain(op.input(0)?)?;
                let axes = self.w.list(&[axis])?;
                let name = self.w.node("Unsqueeze", &[&x, &axes], Vec::new());
                self.set(op.output()?, name);
            }
            77 => {
                let x = self.plain(op.input(0)?)?;
                let name = self.w.node("Shape", &[&x], Vec::new());
                self.set(op.output()?, name);
            }
            83 => self.pack(op)?,
            88 => self.unpack(op)?,
            130 => {
                let (x, shape) = (self.plain(op.input(0)?)?, self.plain(op.input(1)?)?);
                let name = self.w.node("Expand", &[&x, &shape], Vec::new());
                self.set(op.output()?, name);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A constant stays one; nothing else is quantised here.
    fn dequantize(&mut self, op: &Op<'_>) -> Done<()> {
        let (input, output) = (op.input(0)?, op.output()?);
        if !self.is_constant(input) {
            return unsupported("computes in quantised numbers");
        }
        self.values[output].same_as = Some(self.values[input].same_as.unwrap_or(input));
        Ok(())
    }

    fn concatenation(&mut self, op: &Op<'_>) -> Done<()> {
        let output = op.output()?;
        let (rank, axis) = (self.rank(output) as i32, op.options.i32_or(0, 0)?);
        let axis = if axis < 0 { axis + rank } else { axis };
        let inputs = op.inputs.iter().flatten().copied().collect::<Vec<_>>();
        let first = rank == 4 && axis == 3 && inputs.iter().all(|input| self.is_first(*input));
        let mut names = Vec::with_capacity(inputs.len());
        for input in inputs {
            names.push(if first { self.channels_first(input)? } else { self.plain(input)? });
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let axis = if first { 1 } else { axis };
        let name = self.w.node("Concat", &names, vec![AttributeProto::int("axis", axis.into())]);
        let name = self.activated(name, op.options.u8(1)?)?;
        if first {
            self.set_first(output, name)
        } else {
            self.set(output, name)
        }
        Ok(())
    }

    fn reshape(&mut self, op: &Op<'_>) -> Done<()> {
        let x = self.plain(op.input(0)?)?;
        let shape = match op.maybe(1) {
            Some(shape) => self.plain(shape)?,
            None => {
                let shape: Vec<i64> = op.options.i32s(0)?.into_iter().map(i64::from).collect();
                self.w.list(&shape)?
            }
        };
        let name = self.w.node("Reshape", &[&x, &shape], Vec::new());
        self.set(op.output()?, name);
        Ok(())
    }

    /// How much is put before and behind each axis, as ONNX orders it.
    fn pads(&mut self, op: &Op<'_>) -> Done<String> {
        let pairs = self.fixed(op.input(1)?)?;
        let (befores, afters) = (pairs.iter().step_by(2), pairs.iter().skip(1).step_by(2));
        let pads: Vec<i64> = befores.chain(afters).copied().collect();
        if pads.len() != 2 * self.rank(op.input(0)?) || pads.iter().any(|n| !(0..=1 << 24).contains(n)) {
            return Err(format!("paddings of {pads:?}").into());
        }
        Ok(self.w.list(&pads)?)
    }

    fn pad(&mut self, op: &Op<'_>) -> Done<()> {
        let pads = self.pads(op)?;
        let x = self.plain(op.input(0)?)?;
        let name = match op.maybe(2) {
            Some(value) => {
                let value = self.plain(value)?;
                self.w.node("Pad", &[&x, &pads, &value], Vec::new())
            }
            None => self.w.node("Pad", &[&x, &pads], Vec::new()),
        };
        self.set(op.output()?, name);
        Ok(())
    }

    fn mirror_pad(&mut self, op: &Op<'_>) -> Done<()> {
        if op.options.u8(0)? != 0 {
            return unsupported("repeats the edge (mode SYMMETRIC)");
        }
        let pads = self.pads(op)?;
        let x = self.plain(op.input(0)?)?;
        let name = self.w.node("Pad", &[&x, &pads], vec![AttributeProto::string("mode", "reflect")]);
        self.set(op.output()?, name);
        Ok(())
    }

    fn gather(&mut self, op: &Op<'_>) -> Done<()> {
        if op.options.i32_or(1, 0)? != 0 {
            return unsupported("has batch_dims");
        }
        let (x, at) = (self.plain(op.input(0)?)?, self.plain(op.input(1)?)?);
        let axis = AttributeProto::int("axis", op.options.i32_or(0, 0)?.into());
        let name = self.w.node("Gather", &[&x, &at], vec![axis]);
        self.set(op.output()?, name);
        Ok(())
    }

    fn squeeze(&mut self, op: &Op<'_>) -> Done<()> {
        let x = self.plain(op.input(0)?)?;
        let axes: Vec<i64> = op.options.i32s(0)?.into_iter().map(i64::from).collect();
        let name = if axes.is_empty() {
            self.w.node("Squeeze", &[&x], Vec::new())
        } else {
            let axes = self.w.list(&axes)?;
            self.w.node("Squeeze", &[&x, &axes], Vec::new())
        };
        self.set(op.output()?, name);
        Ok(())
    }

    fn strided_slice(&mut self, op: &Op<'_>) -> Done<()> {
        let (begin_mask, end_mask) = (op.options.i32_or(0, 0)?, op.options.i32_or(1, 0)?);
        if op.options.i32_or(2, 0)? != 0 || op.options.i32_or(3, 0)? != 0 {
            return unsupported("has an ellipsis or a new axis");
        }
        let shrink = op.options.i32_or(4, 0)?;
        let (mut begin, mut end) = (self.fixed(op.input(1)?)?, self.fixed(op.input(2)?)?);
        let strides = self.fixed(op.input(3)?)?;
        if begin.len() != end.len() || begin.len() != strides.len() || begin.len() > self.rank(op.input(0)?) {
            return Err("begin, end and strides of other lengths than the axes".into());
        }
        let mut gone = Vec::new();
        for (i, step) in strides.iter().enumerate() {
            let bit = 1 << i;
            if shrink & bit != 0 {
                // One slice, and its axis goes.
                end[i] = if begin[i] == -1 { END } else { begin[i].saturating_add(1) };
                gone.push(i as i64);
                continue;
            }
            if begin_mask & bit != 0 {
                begin[i] = if *step > 0 { 0 } else { END };
            }
            if end_mask & bit != 0 {
                end[i] = if *step > 0 { END } else { i64::MIN };
            }
        }
        let steps: Vec<i64> =
            (0..).zip(&strides).map(|(i, step)| if gone.contains(&i) { 1 } else { *step }).collect();
        if steps.contains(&0) {
            return Err("a stride of 0".into());
        }
        let x = self.plain(op.input(0)?)?;
        let mut name = self.cut(&x, &begin, &end, &steps)?;
        if !gone.is_empty() {
            let axes = self.w.list(&gone)?;
            name = self.w.node("Squeeze", &[&name, &axes], Vec::new());
        }
        self.set(op.output()?, name);
        Ok(())
    }

    fn cut(&mut self, x: &str, begin: &[i64], end: &[i64], steps: &[i64]) -> Done<String> {
        let axes: Vec<i64> = (0..begin.len() as i64).collect();
        let (begin, end) = (self.w.list(begin)?, self.w.list(end)?);
        let (axes, steps) = (self.w.list(&axes)?, self.w.list(steps)?);
        Ok(self.w.node("Slice", &[x, &begin, &end, &axes, &steps], Vec::new()))
    }

    fn slice(&mut self, op: &Op<'_>) -> Done<()> {
        let (begin, sizes) = (self.fixed(op.input(1)?)?, self.fixed(op.input(2)?)?);
        if begin.len() != sizes.len() {
            return Err("begin and size of different lengths".into());
        }
        let end = |(begin, size): (&i64, &i64)| if *size < 0 { END } else { begin.saturating_add(*size) };
        let ends: Vec<i64> = begin.iter().zip(&sizes).map(end).collect();
        let x = self.plain(op.input(0)?)?;
        let name = self.cut(&x, &begin, &ends, &vec![1; begin.len()])?;
        self.set(op.output()?, name);
        Ok(())
    }

    fn split(&mut self, op: &Op<'_>, input: usize, axis: i64, sizes: Option<Vec<i64>>) -> Done<()> {
        let x = self.plain(input)?;
        let sizes = match sizes {
            Some(sizes) => sizes,
            None => {
                let rank = self.rank(input) as i64;
                let at = if axis < 0 { axis + rank } else { axis };
                let size =
                    usize::try_from(at).ok().and_then(|at| self.shape(input).get(at).copied().flatten());
                let Some(size) = size else { return unsupported("splits an axis of any size") };
                vec![(size / op.outputs.len().max(1)) as i64; op.outputs.len()]
            }
        };
        if sizes.len() != op.outputs.len() {
            return Err(format!("{} sizes for {} outputs", sizes.len(), op.outputs.len()).into());
        }
        let sizes = self.w.list(&sizes)?;
        let names =
            self.w.many("Split", &[&x, &sizes], op.outputs.len(), vec![AttributeProto::int("axis", axis)]);
        for (output, name) in op.outputs.iter().zip(names) {
            self.set(*output, name);
        }
        Ok(())
    }

    fn pack(&mut self, op: &Op<'_>) -> Done<()> {
        let axis = i64::from(op.options.i32_or(1, 0)?);
        let axes = self.w.list(&[axis])?;
        let mut names = Vec::with_capacity(op.inputs.len());
        for input in op.inputs.iter().flatten() {
            let x = self.plain(*input)?;
            names.push(self.w.node("Unsqueeze", &[&x, &axes], Vec::new()));
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let name = self.w.node("Concat", &names, vec![AttributeProto::int("axis", axis)]);
        self.set(op.output()?, name);
        Ok(())
    }

    fn unpack(&mut self, op: &Op<'_>) -> Done<()> {
        let axis = i64::from(op.options.i32_or(1, 0)?);
        let x = self.plain(op.input(0)?)?;
        let (sizes, axes) = (self.w.list(&vec![1; op.outputs.len()])?, self.w.list(&[axis])?);
        let parts =
            self.w.many("Split", &[&x, &sizes], op.outputs.len(), vec![AttributeProto::int("axis", axis)]);
        for (output, part) in op.outputs.iter().zip(parts) {
            let name = self.w.node("Squeeze", &[&part, &axes], Vec::new());
            self.set(*output, name);
        }
        Ok(())
    }
}
