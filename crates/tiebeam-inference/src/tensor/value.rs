//! Tensors and the values of rows: numbers, nested arrays, and a logical type that carries a large tensor as bytes.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::row::{FieldType, LogicalType, Row, Schema, TypeKind, Value};

use super::{DType, Tensor, TensorData, TensorElement, Tensors};

/// The logical type of tensors in schemas. Its representation is the row `{dtype: string, shape: array<int64>, data:
/// bytes}`.
pub const TENSOR_TYPE: &str = "tiebeam:logical_type:tensor:v1";

/// Deeper arrays are refused: no model has more axes, and a hostile value can't exhaust the stack.
const MAX_RANK: usize = 32;

static ROW_SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    Arc::new(Schema::of([
        ("dtype", FieldType::required(TypeKind::String)),
        ("shape", FieldType::required(TypeKind::Array(Box::new(FieldType::required(TypeKind::Int64))))),
        ("data", FieldType::required(TypeKind::Bytes)),
    ]))
});

static FIELD_TYPE: LazyLock<FieldType> = LazyLock::new(|| {
    FieldType::required(TypeKind::Logical(Arc::new(LogicalType {
        urn: TENSOR_TYPE.to_owned(),
        payload: Vec::new(),
        representation: FieldType::required(TypeKind::Row(ROW_SCHEMA.clone())),
        argument: None,
    })))
});

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0313", message)
}

/// The kind of a value, as schemas name it.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Byte(_) => "byte",
        Value::Int16(_) => "int16",
        Value::Int32(_) => "int32",
        Value::Int64(_) => "int64",
        Value::Float(_) => "float",
        Value::Double(_) => "double",
        Value::String(_) => "string",
        Value::Bytes(_) => "bytes",
        Value::Array(_) => "array",
        Value::Map(_) => "map",
        Value::Row(_) => "row",
    }
}

impl Tensor {
    /// The type of a field that holds a tensor as one value: the logical type [`TENSOR_TYPE`].
    pub fn field_type() -> FieldType {
        FIELD_TYPE.clone()
    }

    /// The tensor as a value of [`field_type`](Tensor::field_type): its numbers as one run of bytes.
    pub fn to_row_value(&self) -> Value {
        let mut data = Vec::with_capacity(self.num_bytes());
        self.write_le_bytes(&mut data);
        let shape = self.with_shape(|shape| shape.iter().map(|dim| Value::Int64(*dim as i64)).collect());
        let values =
            [Value::String(self.dtype().name().into()), Value::Array(shape), Value::Bytes(Bytes::from(data))];
        Value::Row(Row::new(ROW_SCHEMA.clone(), values))
    }

    /// The tensor as plain values: a number for the shapes `[]` and `[1]`, else arrays nested by axis. `uint8` becomes
    /// int16, since Beam's bytes are signed.
    pub fn to_value(&self) -> Value {
        self.with_shape(|shape| {
            let shape = if shape == [1] { &[] } else { shape };
            match &self.data {
                TensorData::F32(b) => nest(shape, b.as_slice(), &|v| Value::Float(*v)),
                TensorData::F64(b) => nest(shape, b.as_slice(), &|v| Value::Double(*v)),
                TensorData::I64(b) => nest(shape, b.as_slice(), &|v| Value::Int64(*v)),
                TensorData::I32(b) => nest(shape, b.as_slice(), &|v| Value::Int32(*v)),
                TensorData::U8(b) => nest(shape, b.as_slice(), &|v| Value::Int16(i16::from(*v))),
                TensorData::I8(b) => nest(shape, b.as_slice(), &|v| Value::Byte(*v)),
                TensorData::Bool(b) => nest(shape, b.as_slice(), &|v| Value::Bool(*v)),
                TensorData::Str(b) => nest(shape, b.as_slice(), &|v| Value::String(v.clone())),
            }
        })
    }

    /// The type of what [`to_value`](Tensor::to_value) gives for tensors of that dtype and number of axes (a tensor of
    /// shape `[1]` counts as one without axes).
    pub fn value_type(dtype: DType, rank: usize) -> FieldType {
        let number = FieldType::required(match dtype {
            DType::F32 => TypeKind::Float,
            DType::F64 => TypeKind::Double,
            DType::I64 => TypeKind::Int64,
            DType::I32 => TypeKind::Int32,
            DType::U8 => TypeKind::Int16,
            DType::I8 => TypeKind::Byte,
            DType::Bool => TypeKind::Boolean,
            DType::Str => TypeKind::String,
        });
        (0..rank).fold(number, |inner, _| FieldType::required(TypeKind::Array(Box::new(inner))))
    }

    /// The tensor that a value tells: a number is a scalar, arrays are nested by axis, bytes are a vector of `uint8`, a
    /// value of [`field_type`](Tensor::field_type) is what it was made of. Numbers keep their type (int16 becomes
    /// int32); conversion is left to who knows the wanted type.
    ///
    /// # Errors
    /// When the value is null, a map or another row, or its arrays are ragged, of mixed types or deeper than 32.
    pub fn from_value(value: &Value) -> Result<Self> {
        match value {
            Value::Array(_) => {
                let shape = shape_of(value)?;
                from_array(&shape, value)
            }
            Value::Bool(v) => Ok(Tensor::scalar(*v)),
            Value::Byte(v) => Ok(Tensor::scalar(*v)),
            Value::Int16(v) => Ok(Tensor::scalar(i32::from(*v))),
            Value::Int32(v) => Ok(Tensor::scalar(*v)),
            Value::Int64(v) => Ok(Tensor::scalar(*v)),
            Value::Float(v) => Ok(Tensor::scalar(*v)),
            Value::Double(v) => Ok(Tensor::scalar(*v)),
            Value::String(v) => Ok(Tensor::scalar(v.clone())),
            Value::Bytes(v) => Ok(Tensor::vector(v.to_vec())),
            Value::Row(row) => from_row(row),
            Value::Null | Value::Map(_) => {
                Err(invalid(format!("a tensor wants numbers or arrays of numbers, got {}", kind(value))))
            }
        }
    }

    /// A tensor of one axis out of several values of one type: what a list of fields makes.
    ///
    /// # Errors
    /// As [`from_value`](Tensor::from_value), and when the values are not scalars of one type. Integers and
    /// floating-point numbers next to each other become `float64` where that is exact.
    pub fn from_fields<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<Self> {
        let values = values.into_iter().collect::<Vec<_>>();
        let number = |value: &Value| match value {
            Value::Float(v) => Some(f64::from(*v)),
            Value::Double(v) => Some(*v),
            Value::Byte(v) => Some(f64::from(*v)),
            Value::Int16(v) => Some(f64::from(*v)),
            Value::Int32(v) => Some(f64::from(*v)),
            Value::Int64(v) => Some(*v as f64).filter(|exact| *exact as i128 == i128::from(*v)),
            _ => None,
        };
        let float = |value: &&Value| matches!(value, Value::Float(_) | Value::Double(_));
        if values.iter().any(float)
            && !values.iter().all(|v| matches!(v, Value::Float(_)))
            && let Some(numbers) = values.iter().map(|v| number(v)).collect::<Option<Vec<f64>>>()
        {
            return Ok(Tensor::vector(numbers));
        }
        let integer = |value: &Value| match value {
            Value::Byte(v) => Some(i64::from(*v)),
            Value::Int16(v) => Some(i64::from(*v)),
            Value::Int32(v) => Some(i64::from(*v)),
            Value::Int64(v) => Some(*v),
            _ => None,
        };
        if values.windows(2).any(|pair| kind(pair[0]) != kind(pair[1]))
            && let Some(numbers) = values.iter().map(|v| integer(v)).collect::<Option<Vec<i64>>>()
        {
            return Ok(Tensor::vector(numbers));
        }
        Tensor::from_value(&Value::Array(values.into_iter().cloned().collect()))
    }
}

impl Tensors {
    /// The tensors as a row of plain values, one field a name (see [`Tensor::to_value`]).
    pub fn to_value(&self) -> Value {
        let fields = self.iter().map(|(name, tensor)| {
            let rank = if tensor.with_shape(|shape| shape == [1]) { 0 } else { tensor.rank() };
            (name, Tensor::value_type(tensor.dtype(), rank))
        });
        let values = self.values().iter().map(Tensor::to_value).collect::<Vec<_>>();
        Value::Row(Row::new(Arc::new(Schema::of(fields)), values))
    }
}

/// `values` in row-major order, nested by axis.
fn nest<T>(shape: &[usize], values: &[T], to: &impl Fn(&T) -> Value) -> Value {
    match shape {
        [] => values.first().map_or(Value::Null, to),
        [_] => Value::Array(values.iter().map(to).collect()),
        [n, rest @ ..] => {
            let stride = rest.iter().product::<usize>();
            Value::Array((0..*n).map(|i| nest(rest, &values[i * stride..(i + 1) * stride], to)).collect())
        }
    }
}

/// The shape that the first value of each axis tells.
fn shape_of(value: &Value) -> Result<Vec<usize>> {
    let mut shape = Vec::new();
    let mut next = Some(value);
    while let Some(Value::Array(values)) = next {
        shape.push(values.len());
        if shape.len() > MAX_RANK {
            return Err(invalid(format!("an array is nested deeper than {MAX_RANK}")));
        }
        next = values.first();
    }
    Ok(shape)
}

fn from_array(shape: &[usize], value: &Value) -> Result<Tensor> {
    let mut first = value;
    while let Value::Array(values) = first {
        let Some(next) = values.first() else {
            // Nothing tells the type of an empty array: numbers are float32 unless told otherwise.
            return gather::<f32>(shape, value, "float", |_| None);
        };
        first = next;
    }
    match first {
        Value::Bool(_) => {
            gather(shape, value, "boolean", |v| if let Value::Bool(v) = v { Some(*v) } else { None })
        }
        Value::Byte(_) => {
            gather(shape, value, "byte", |v| if let Value::Byte(v) = v { Some(*v) } else { None })
        }
        Value::Int16(_) => {
            gather(
                shape,
                value,
                "int16",
                |v| if let Value::Int16(v) = v { Some(i32::from(*v)) } else { None },
            )
        }
        Value::Int32(_) => {
            gather(shape, value, "int32", |v| if let Value::Int32(v) = v { Some(*v) } else { None })
        }
        Value::Int64(_) => {
            gather(shape, value, "int64", |v| if let Value::Int64(v) = v { Some(*v) } else { None })
        }
        Value::Float(_) => {
            gather(shape, value, "float", |v| if let Value::Float(v) = v { Some(*v) } else { None })
        }
        Value::Double(_) => {
            gather(shape, value, "double", |v| if let Value::Double(v) = v { Some(*v) } else { None })
        }
        Value::String(_) => {
            gather(shape, value, "string", |v| if let Value::String(v) = v { Some(v.clone()) } else { None })
        }
        other => Err(invalid(format!("a tensor wants arrays of numbers, got an array of {}", kind(other)))),
    }
}

/// The numbers of nested arrays that must all have that shape and that kind.
fn gather<T: TensorElement>(
    shape: &[usize],
    value: &Value,
    wanted: &str,
    take: fn(&Value) -> Option<T>,
) -> Result<Tensor> {
    fn walk<T>(
        shape: &[usize],
        value: &Value,
        wanted: &str,
        take: fn(&Value) -> Option<T>,
        out: &mut Vec<T>,
    ) -> Result<()> {
        match (shape, value) {
            ([n, rest @ ..], Value::Array(values)) if values.len() == *n => {
                values.iter().try_for_each(|inner| walk(rest, inner, wanted, take, out))
            }
            ([n, ..], Value::Array(values)) => {
                Err(invalid(format!("a ragged array: {} values beside {n}", values.len())))
            }
            ([n, ..], other) => {
                Err(invalid(format!("a ragged array: a {} beside an array of {n}", kind(other))))
            }
            ([], other) => {
                let one = take(other).ok_or_else(|| {
                    invalid(format!("an array of mixed types: a {} beside a {wanted}", kind(other)))
                })?;
                out.push(one);
                Ok(())
            }
        }
    }
    let mut out = Vec::new();
    walk(shape, value, wanted, take, &mut out)?;
    Tensor::new(shape, out)
}

/// A tensor from the representation of [`TENSOR_TYPE`].
fn from_row(row: &Row) -> Result<Tensor> {
    let (Some(Value::String(dtype)), Some(Value::Array(shape)), Some(Value::Bytes(data))) =
        (row.get("dtype"), row.get("shape"), row.get("data"))
    else {
        let fields = row.schema.fields.iter().map(|field| &*field.name).collect::<Vec<_>>();
        return Err(invalid(format!("a tensor's row has the fields dtype, shape and data, got {fields:?}")));
    };
    let dtype =
        DType::from_name(dtype).ok_or_else(|| invalid(format!("a tensor's dtype is unknown: {dtype}")))?;
    let shape = shape
        .iter()
        .map(|dim| match dim {
            Value::Int64(dim) => usize::try_from(*dim).ok(),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| invalid("a tensor's shape wants sizes of axes".to_owned()))?;
    Tensor::from_le_bytes(dtype, &shape, data)
}
