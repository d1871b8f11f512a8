//! Operators on each element, comparisons, products of matrices, reductions.

use tiebeam_onnx::proto::{AttributeProto, data_type};

use super::{Converter, Done, Op, unsupported};
use crate::model::Type;

/// Operators of one input that ONNX has, too.
const UNARY: [(i32, &str); 16] = [
    (8, "Floor"),
    (14, "Sigmoid"),
    (19, "Relu"),
    (28, "Tanh"),
    (47, "Exp"),
    (59, "Neg"),
    (66, "Sin"),
    (73, "Log"),
    (75, "Sqrt"),
    (87, "Not"),
    (101, "Abs"),
    (104, "Ceil"),
    (108, "Cos"),
    (111, "Elu"),
    (116, "Round"),
    (117, "HardSwish"),
];

impl Converter<'_> {
    /// Whether the operator is one of these; then it is done.
    pub(super) fn arithmetic(&mut self, code: i32, op: &Op<'_>) -> Done<bool> {
        if let Some((_, operator)) = UNARY.iter().find(|(number, _)| *number == code) {
            self.unary(operator, op)?;
            return Ok(true);
        }
        match code {
            0 => self.binary("Add", op, true)?,
            18 => self.binary("Mul", op, true)?,
            41 => self.binary("Sub", op, true)?,
            42 => self.binary("Div", op, true)?,
            55 => self.binary("Max", op, false)?,
            57 => self.binary("Min", op, false)?,
            78 => self.binary("Pow", op, false)?,
            58 => self.binary("Less", op, false)?,
            61 => self.binary("Greater", op, false)?,
            62 => self.binary("GreaterOrEqual", op, false)?,
            63 => self.binary("LessOrEqual", op, false)?,
            71 => self.binary("Equal", op, false)?,
            84 => self.binary("Or", op, false)?,
            86 => self.binary("And", op, false)?,
            20 => self.on_each(op, |c, x| c.activated(x, 2))?,
            21 => self.on_each(op, |c, x| c.activated(x, 3))?,
            72 => {
                self.binary("Equal", op, false)?;
                self.again(op, |c, x| Ok(c.w.node("Not", &[&x], Vec::new())))?;
            }
            76 => {
                self.unary("Sqrt", op)?;
                self.again(op, |c, x| Ok(c.w.node("Reciprocal", &[&x], Vec::new())))?;
            }
            92 => self.on_each(op, |c, x| Ok(c.w.node("Mul", &[&x, &x], Vec::new())))?,
            99 => {
                self.binary("Sub", op, false)?;
                self.again(op, |c, x| Ok(c.w.node("Mul", &[&x, &x], Vec::new())))?;
            }
            98 => {
                let alpha = op.options.f32_or(0, 0.0)?;
                self.on_each(op, |c, x| {
                    Ok(c.w.node("LeakyRelu", &[&x], vec![AttributeProto::float("alpha", alpha)]))
                })?;
            }
            54 => {
                let (x, slope) = (self.plain(op.input(0)?)?, self.plain(op.input(1)?)?);
                let name = self.w.node("PRelu", &[&x, &slope], Vec::new());
                self.set(op.output()?, name);
            }
            25 | 50 => {
                let x = self.scaled(op)?;
                let operator = if code == 25 { "Softmax" } else { "LogSoftmax" };
                let name = self.w.node(operator, &[&x], vec![AttributeProto::int("axis", -1)]);
                self.set(op.output()?, name);
            }
            64 | 123 => {
                let [a, b, c] =
                    [self.plain(op.input(0)?)?, self.plain(op.input(1)?)?, self.plain(op.input(2)?)?];
                let name = self.w.node("Where", &[&a, &b, &c], Vec::new());
                self.set(op.output()?, name);
            }
            9 => self.fully_connected(op)?,
            126 => self.batch_matmul(op)?,
            40 => self.reduce("ReduceMean", op)?,
            74 => self.reduce("ReduceSum", op)?,
            81 => self.reduce("ReduceProd", op)?,
            82 => self.reduce("ReduceMax", op)?,
            89 => self.reduce("ReduceMin", op)?,
            56 => self.arg("ArgMax", op)?,
            79 => self.arg("ArgMin", op)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A value with a fused activation behind it.
    pub(super) fn activated(&mut self, x: String, activation: u8) -> Done<String> {
        let (low, high) = match activation {
            0 => return Ok(x),
            1 => return Ok(self.w.node("Relu", &[&x], Vec::new())),
            2 => (-1.0, 1.0),
            3 => (0.0, 6.0),
            4 => return Ok(self.w.node("Tanh", &[&x], Vec::new())),
            other => return unsupported(format!("fused activation {other}")),
        };
        let (low, high) = (self.w.scalar(low)?, self.w.scalar(high)?);
        Ok(self.w.node("Clip", &[&x, &low, &high], Vec::new()))
    }

    fn unary(&mut self, operator: &str, op: &Op<'_>) -> Done<()> {
        self.on_each(op, |c, x| Ok(c.w.node(operator, &[&x], Vec::new())))
    }

    /// What works on each element keeps the order of the axes.
    fn on_each(&mut self, op: &Op<'_>, f: impl FnOnce(&mut Self, String) -> Done<String>) -> Done<()> {
        let (input, output) = (op.input(0)?, op.output()?);
        if self.is_first(input) {
            let x = self.channels_first(input)?;
            let name = f(self, x)?;
            self.set_first(output, name);
        } else {
            let x = self.plain(input)?;
            let name = f(self, x)?;
            self.set(output, name);
        }
        Ok(())
    }

    /// Another step behind what was just computed.
    fn again(&mut self, op: &Op<'_>, f: impl FnOnce(&mut Self, String) -> Done<String>) -> Done<()> {
        let output = op.output()?;
        let value = std::mem::take(&mut self.values[output]);
        match (value.last, value.first) {
            (Some(x), _) => {
                let name = f(self, x)?;
                self.set(output, name);
            }
            (None, Some(x)) => {
                let name = f(self, x)?;
                self.set_first(output, name);
            }
            (None, None) => return Err("nothing was computed".into()),
        }
        Ok(())
    }

    fn binary(&mut self, operator: &str, op: &Op<'_>, fused: bool) -> Done<()> {
        let (a, b, output) = (op.input(0)?, op.input(1)?, op.output()?);
        let activation = if fused { op.options.u8(0)? } else { 0 };
        let some_first = self.is_first(a) || self.is_first(b);
        if some_first && self.rank(output) == 4 && self.goes_first(a) && self.goes_first(b) {
            let (x, y) = (self.beside_channels(a)?, self.beside_channels(b)?);
            let name = self.w.node(operator, &[&x, &y], Vec::new());
            let name = self.activated(name, activation)?;
            self.set_first(output, name);
        } else {
            let (x, y) = (self.plain(a)?, self.plain(b)?);
            let name = self.w.node(operator, &[&x, &y], Vec::new());
            let name = self.activated(name, activation)?;
            self.set(output, name);
        }
        Ok(())
    }

    /// Whether an operand can be had with its channels first for nothing.
    fn goes_first(&self, tensor: usize) -> bool {
        let shape = self.shape(tensor);
        let by_channel = || shape.iter().rev().skip(1).all(|dim| *dim == Some(1));
        if self.is_constant(tensor) { by_channel() } else { self.values[tensor].first.is_some() }
    }

    /// An operand with its channels first; a constant of one number a channel gets its axes.
    fn beside_channels(&mut self, tensor: usize) -> Done<String> {
        if !self.is_constant(tensor) {
            return self.channels_first(tensor);
        }
        let numbers = self.floats(tensor)?;
        Ok(match numbers.as_slice() {
            [one] => self.w.scalar(*one)?,
            all => self.w.f32s(&[all.len(), 1, 1], all)?,
        })
    }

    /// The input of a softmax, times its beta.
    fn scaled(&mut self, op: &Op<'_>) -> Done<String> {
        let x = self.plain(op.input(0)?)?;
        let beta = op.options.f32_or(0, 1.0)?;
        if beta == 1.0 || beta == 0.0 {
            return Ok(x);
        }
        let beta = self.w.scalar(beta)?;
        Ok(self.w.node("Mul", &[&x, &beta], Vec::new()))
    }

    fn fully_connected(&mut self, op: &Op<'_>) -> Done<()> {
        let (input, weights, output) = (op.input(0)?, op.input(1)?, op.output()?);
        if op.options.u8(1)? != 0 {
            return unsupported("has weights in a shuffled format");
        }
        let mut x = self.plain(input)?;
        let dims = self.dims(weights)?;
        let [rows, columns] = dims[..] else { return Err(format!("weights of the shape {dims:?}").into()) };
        if !op.options.flag(2)? {
            let shape = self.w.list(&[-1, columns as i64])?;
            x = self.w.node("Reshape", &[&x, &shape], Vec::new());
        }
        let numbers = self.floats(weights)?;
        let turned: Vec<f32> =
            (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c)).map(|i| numbers[i]).collect();
        let weights = self.w.f32s(&[columns, rows], &turned)?;
        let mut y = self.w.node("MatMul", &[&x, &weights], Vec::new());
        if let Some(bias) = op.maybe(2) {
            let bias = self.plain(bias)?;
            y = self.w.node("Add", &[&y, &bias], Vec::new());
        }
        let y = self.activated(y, op.options.u8(0)?)?;
        self.set(output, y);
        Ok(())
    }

    fn batch_matmul(&mut self, op: &Op<'_>) -> Done<()> {
        let mut sides = Vec::with_capacity(2);
        for i in 0..2 {
            let tensor = op.input(i)?;
            let mut side = self.plain(tensor)?;
            if op.options.flag(i)? {
                let rank = self.rank(tensor) as i64;
                if rank < 2 {
                    return Err("a matrix of fewer than two axes".into());
                }
                let order: Vec<i64> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
                side = self.transpose(&side, &order);
            }
            sides.push(side);
        }
        let name = self.w.node("MatMul", &[&sides[0], &sides[1]], Vec::new());
        self.set(op.output()?, name);
        Ok(())
    }

    fn reduce(&mut self, operator: &str, op: &Op<'_>) -> Done<()> {
        let (input, output) = (op.input(0)?, op.output()?);
        let keep = op.options.flag(0)?;
        let rank = self.rank(input) as i64;
        let mut axes = self.fixed(op.input(1)?)?;
        for axis in &mut axes {
            *axis += if *axis < 0 { rank } else { 0 };
            if !(0..rank).contains(axis) {
                return Err(format!("there is no axis {axis}").into());
            }
        }
        // The mean of an image over its pixels, the end of most networks, needs no other order of the axes.
        axes.sort_unstable();
        let pixels = self.is_first(input) && axes == [1, 2];
        let x = if pixels { self.channels_first(input)? } else { self.plain(input)? };
        let axes = if pixels { vec![2, 3] } else { axes };
        let keepdims = AttributeProto::int("keepdims", i64::from(keep));
        let name = if operator == "ReduceSum" {
            let axes = self.w.list(&axes)?;
            self.w.node(operator, &[&x, &axes], vec![keepdims])
        } else {
            self.w.node(operator, &[&x], vec![AttributeProto::ints("axes", &axes), keepdims])
        };
        if pixels && keep {
            self.set_first(output, name)
        } else {
            self.set(output, name)
        }
        Ok(())
    }

    fn arg(&mut self, operator: &str, op: &Op<'_>) -> Done<()> {
        let x = self.plain(op.input(0)?)?;
        let axis = AttributeProto::int("axis", self.one(op.input(1)?)?);
        let name = self.w.node(operator, &[&x], vec![axis, AttributeProto::int("keepdims", 0)]);
        self.set(op.output()?, name);
        Ok(())
    }

    /// A value as another type.
    pub(super) fn cast(&mut self, op: &Op<'_>) -> Done<()> {
        let to = match self.model.tensors[op.output()?].kind {
            Type::F32 => data_type::FLOAT,
            Type::I32 | Type::I64 => data_type::INT64,
            Type::Bool => data_type::BOOL,
            Type::U8 => data_type::UINT8,
            other => return unsupported(format!("gives the type {other:?}")),
        };
        self.on_each(op, |c, x| Ok(c.w.node("Cast", &[&x], vec![AttributeProto::int("to", to.into())])))
    }
}
