//! From TensorFlow Lite's graph to ONNX's.
//!
//! Images lie channels last there and channels first here: a value is kept in the order that it was made in, and brought
//! into the other one when somebody asks, once. Whole numbers of 32 bits are of 64 here, as ONNX wants shapes and indices.

mod arithmetic;
mod constants;
mod images;
mod shapes;

use tiebeam_onnx::proto::Axis;
use tiebeam_onnx::proto::{AttributeProto, ModelProto, ValueInfoProto, data_type};

use crate::flat::Table;
use crate::model::{Model, Operation, Type};
use crate::operators;
use crate::writer::Writer;

/// Why a graph can't be had.
#[derive(Debug)]
pub(crate) enum Refusal {
    Damaged(String),
    Unsupported(String),
}

impl From<String> for Refusal {
    fn from(what: String) -> Self {
        Refusal::Damaged(what)
    }
}

impl From<&str> for Refusal {
    fn from(what: &str) -> Self {
        Refusal::Damaged(what.to_owned())
    }
}

pub(crate) type Done<T> = Result<T, Refusal>;

fn unsupported<T>(what: impl Into<String>) -> Done<T> {
    Err(Refusal::Unsupported(what.into()))
}

/// A tensor's names in the ONNX graph.
#[derive(Clone, Default)]
struct Value {
    /// Its axes in TensorFlow Lite's order.
    last: Option<String>,
    /// Its axes as N, C, H, W.
    first: Option<String>,
    /// The constant that it is a copy of.
    same_as: Option<usize>,
}

const TO_FIRST: [i64; 4] = [0, 3, 1, 2];
const TO_LAST: [i64; 4] = [0, 2, 3, 1];

pub(crate) struct Converter<'a> {
    model: &'a Model<'a>,
    w: Writer,
    values: Vec<Value>,
}

/// Makes an ONNX graph; `bytes` is the length of the file.
pub(crate) fn convert(model: &Model<'_>, bytes: usize) -> Done<ModelProto> {
    // Half-precision weights double, bytes become four.
    let w = Writer::new(bytes.saturating_mul(16).saturating_add(1 << 16));
    let mut c = Converter { model, w, values: vec![Value::default(); model.tensors.len()] };
    for (tensor, name) in &model.inputs {
        c.input(*tensor, name)?;
    }
    for (number, operation) in model.operations.iter().enumerate() {
        let named = |what: String| {
            format!("operation {number} ({}): {what}", operators::name(operation.code, operation.custom))
        };
        c.operation(operation).map_err(|refusal| match refusal {
            Refusal::Damaged(what) => Refusal::Damaged(named(what)),
            Refusal::Unsupported(what) => Refusal::Unsupported(named(what)),
        })?;
    }
    for (tensor, name) in &model.outputs {
        c.output(*tensor, name)?;
    }
    Ok(c.w.finish())
}

impl Converter<'_> {
    fn input(&mut self, tensor: usize, name: &str) -> Done<()> {
        let declared = self.declared(tensor, name)?;
        self.w.input(declared);
        let name = match self.model.tensors[tensor].kind {
            Type::I32 => {
                self.w.node("Cast", &[name], vec![AttributeProto::int("to", data_type::INT64.into())])
            }
            _ => name.to_owned(),
        };
        self.set(tensor, name);
        Ok(())
    }

    fn output(&mut self, tensor: usize, name: &str) -> Done<()> {
        let mut declared = self.declared(tensor, name)?;
        if self.model.inputs.iter().any(|(_, input)| input == name) {
            declared.name = format!("{name}_out");
        }
        let mut value = self.plain(tensor)?;
        if self.model.tensors[tensor].kind == Type::I32 {
            let to = AttributeProto::int("to", data_type::INT32.into());
            value = self.w.node("Cast", &[&value], vec![to]);
        }
        self.w.output(declared, &value);
        Ok(())
    }

    fn declared(&self, tensor: usize, name: &str) -> Done<ValueInfoProto> {
        let tensor = &self.model.tensors[tensor];
        if tensor.is_quantized() {
            return unsupported(format!("`{name}` is quantised: numbers that stand for others"));
        }
        let kind = match tensor.kind {
            Type::F32 => data_type::FLOAT,
            Type::I32 => data_type::INT32,
            Type::I64 => data_type::INT64,
            Type::Bool => data_type::BOOL,
            Type::U8 => data_type::UINT8,
            other => return unsupported(format!("`{name}` is of type {other:?}")),
        };
        let axis = |(i, dim): (usize, &Option<usize>)| match dim {
            Some(size) => Axis::Fixed(*size),
            None if i == 0 => Axis::Named("n"),
            None => Axis::Free,
        };
        let axes: Vec<Axis<'_>> = tensor.shape.iter().enumerate().map(axis).collect();
        Ok(ValueInfoProto::tensor(name, kind, &axes))
    }

    /// The number of a tensor that an operation names.
    fn tensor(&self, number: i32) -> Done<usize> {
        match usize::try_from(number) {
            Ok(number) if number < self.values.len() => Ok(number),
            _ => Err(format!("tensor {number} of {}", self.values.len()).into()),
        }
    }

    fn shape(&self, tensor: usize) -> &[Option<usize>] {
        &self.model.tensors[tensor].shape
    }

    fn rank(&self, tensor: usize) -> usize {
        self.shape(tensor).len()
    }

    /// The value with its axes in their own order.
    fn plain(&mut self, tensor: usize) -> Done<String> {
        if let Some(name) = &self.values[tensor].last {
            return Ok(name.clone());
        }
        let name = match &self.values[tensor].first {
            Some(name) => {
                let name = name.clone();
                self.transpose(&name, &TO_LAST)
            }
            None => self.constant(tensor)?,
        };
        self.values[tensor].last = Some(name.clone());
        Ok(name)
    }

    /// The value as N, C, H, W.
    fn channels_first(&mut self, tensor: usize) -> Done<String> {
        if let Some(name) = &self.values[tensor].first {
            return Ok(name.clone());
        }
        if self.rank(tensor) != 4 {
            return Err(format!("an image of {} axes", self.rank(tensor)).into());
        }
        let plain = self.plain(tensor)?;
        let name = self.transpose(&plain, &TO_FIRST);
        self.values[tensor].first = Some(name.clone());
        Ok(name)
    }

    fn transpose(&mut self, value: &str, order: &[i64]) -> String {
        self.w.node("Transpose", &[value], vec![AttributeProto::ints("perm", order)])
    }

    fn set(&mut self, tensor: usize, name: String) {
        self.values[tensor] = Value { last: Some(name), ..Value::default() };
    }

    fn set_first(&mut self, tensor: usize, name: String) {
        self.values[tensor] = Value { first: Some(name), ..Value::default() };
    }

    /// Whether only the order N, C, H, W is there.
    fn is_first(&self, tensor: usize) -> bool {
        self.values[tensor].first.is_some() && self.values[tensor].last.is_none()
    }

    fn operation(&mut self, operation: &Operation<'_>) -> Done<()> {
        let mut inputs = Vec::with_capacity(operation.inputs.len());
        for number in &operation.inputs {
            inputs.push(if *number == -1 { None } else { Some(self.tensor(*number)?) });
        }
        let mut outputs = Vec::with_capacity(operation.outputs.len());
        for number in &operation.outputs {
            outputs.push(self.tensor(*number)?);
        }
        let op = Op { inputs, outputs, options: Options(operation.options) };
        // Constants are computed ahead; what flows must be numbers that mean themselves.
        for tensor in op.inputs.iter().flatten().chain(&op.outputs).copied() {
            let declared = &self.model.tensors[tensor];
            if declared.is_quantized() && declared.data.is_none() && self.values[tensor].same_as.is_none() {
                return unsupported(format!("computes in quantised {:?} numbers", declared.kind));
            }
        }
        if self.arithmetic(operation.code, &op)?
            || self.images(operation.code, &op)?
            || self.shapes(operation.code, &op)?
        {
            return Ok(());
        }
        unsupported("is not among the operators that are known here")
    }
}

/// An operation with its tensors looked up.
struct Op<'a> {
    inputs: Vec<Option<usize>>,
    outputs: Vec<usize>,
    options: Options<'a>,
}

impl Op<'_> {
    fn input(&self, i: usize) -> Done<usize> {
        self.maybe(i).ok_or_else(|| format!("input {i} is missing").into())
    }

    fn maybe(&self, i: usize) -> Option<usize> {
        self.inputs.get(i).copied().flatten()
    }

    fn output(&self) -> Done<usize> {
        self.outputs.first().copied().ok_or_else(|| "it has no output".into())
    }
}

/// The parameters of an operation; those that are absent have their defaults.
struct Options<'a>(Option<Table<'a>>);

impl Options<'_> {
    fn u8(&self, slot: usize) -> Result<u8, String> {
        self.0.map_or(Ok(0), |table| table.u8(slot))
    }

    fn flag(&self, slot: usize) -> Result<bool, String> {
        self.0.map_or(Ok(false), |table| table.flag(slot))
    }

    fn i32_or(&self, slot: usize, default: i32) -> Result<i32, String> {
        self.0.map_or(Ok(default), |table| table.i32_or(slot, default))
    }

    fn f32_or(&self, slot: usize, default: f32) -> Result<f32, String> {
        self.0.map_or(Ok(default), |table| table.f32_or(slot, default))
    }

    fn i32s(&self, slot: usize) -> Result<Vec<i32>, String> {
        self.0.map_or(Ok(Vec::new()), |table| table.i32s(slot, 16))
    }

    /// A stride, a dilation, a size of a window.
    fn positive(&self, slot: usize, default: i32) -> Result<i64, String> {
        match self.i32_or(slot, default)? {
            n @ 1..=65_536 => Ok(i64::from(n)),
            other => Err(format!("a stride or size of {other}")),
        }
    }
}
