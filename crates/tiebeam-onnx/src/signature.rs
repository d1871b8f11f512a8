//! What goes into a model and what comes out: read from the file, the same for every engine.

use std::fmt;
use std::sync::Arc;

use tiebeam_inference::DType;

use crate::file::ModelFile;
use crate::proto::{DimensionValue, TensorTypeProto, TypeProto, TypeValue, ValueInfoProto, data_type};

/// The size of an axis as a model declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Always that size.
    Fixed(usize),
    /// Any size; axes of the same name have the same.
    Named(Arc<str>),
    /// Any size.
    Free,
}

impl Dim {
    /// Whether an axis of that size fits.
    #[inline]
    pub fn admits(&self, size: usize) -> bool {
        match self {
            Dim::Fixed(fixed) => *fixed == size,
            Dim::Named(_) | Dim::Free => true,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(size) => size.fmt(f),
            Dim::Named(name) => f.write_str(name),
            Dim::Free => f.write_str("?"),
        }
    }
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: Arc<str>,
    /// Its type as numpy names it (`float32`), or as ONNX does where it is not a tensor (`sequence<…>`).
    pub type_name: String,
    /// Its type as our tensors have it; none when they can't hold it.
    pub dtype: Option<DType>,
    /// The axes; none when even their number is free.
    pub shape: Option<Vec<Dim>>,
}

impl Port {
    fn of(value: &ValueInfoProto) -> Port {
        let tensor = value.r#type.as_ref().and_then(tensor_type);
        let dtype = tensor.and_then(|tensor| dtype_of(tensor.elem_type));
        let shape = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| {
            let dims = shape.dim.iter().map(|dim| match &dim.value {
                Some(DimensionValue::Value(size)) => usize::try_from(*size).map_or(Dim::Free, Dim::Fixed),
                Some(DimensionValue::Param(name)) if !name.is_empty() => Dim::Named(name.as_str().into()),
                _ => Dim::Free,
            });
            dims.collect()
        });
        Port {
            name: value.name.as_str().into(),
            type_name: type_name(value.r#type.as_ref(), 0),
            dtype,
            shape,
        }
    }

    /// The number of axes, where it is fixed.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }
}

/// As `x float32[batch, 3, ?]`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.name, self.type_name, Axes(self.shape.as_deref()))
    }
}

/// Axes as `[batch, 3]`; nothing when their number is free.
pub(crate) struct Axes<'a>(pub(crate) Option<&'a [Dim]>);

impl fmt::Display for Axes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(dims) = self.0 else { return Ok(()) };
        f.write_str("[")?;
        for (i, dim) in dims.iter().enumerate() {
            write!(f, "{}{dim}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}

fn tensor_type(value: &TypeProto) -> Option<&TensorTypeProto> {
    match &value.value {
        Some(TypeValue::Tensor(tensor)) => Some(tensor),
        _ => None,
    }
}

/// Our dtype of ONNX's number.
pub(crate) fn dtype_of(number: i32) -> Option<DType> {
    Some(match number {
        data_type::FLOAT => DType::F32,
        data_type::DOUBLE => DType::F64,
        data_type::INT64 => DType::I64,
        data_type::INT32 => DType::I32,
        data_type::UINT8 => DType::U8,
        data_type::INT8 => DType::I8,
        data_type::BOOL => DType::Bool,
        data_type::STRING => DType::Str,
        _ => return None,
    })
}

fn type_name(value: Option<&TypeProto>, depth: usize) -> String {
    let scalar = |number: i32| data_type::name(number).unwrap_or("unknown").to_owned();
    match value.and_then(|value| value.value.as_ref()) {
        // The decoder ends at depth 100; a name of that depth helps nobody.
        _ if depth > 8 => "…".to_owned(),
        None => "unknown".to_owned(),
        Some(TypeValue::Tensor(tensor)) => scalar(tensor.elem_type),
        Some(TypeValue::SparseTensor(tensor)) => format!("sparse<{}>", scalar(tensor.elem_type)),
        Some(TypeValue::Sequence(inner)) => {
            format!("sequence<{}>", type_name(inner.elem_type.as_deref(), depth + 1))
        }
        Some(TypeValue::Optional(inner)) => {
            format!("optional<{}>", type_name(inner.elem_type.as_deref(), depth + 1))
        }
        Some(TypeValue::Map(map)) => {
            format!("map<{}, {}>", scalar(map.key_type), type_name(map.value_type.as_deref(), depth + 1))
        }
    }
}

/// What a model takes (without weights that old files list as inputs) and gives.
pub(crate) fn signature(file: &ModelFile) -> (Vec<Port>, Vec<Port>) {
    let graph = file.graph();
    let weights = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let sparse =
        graph.sparse_initializer.iter().filter_map(|sparse| Some(sparse.values.as_ref()?.name.as_str()));
    let weights = weights.chain(sparse).collect::<std::collections::HashSet<_>>();
    let inputs = graph.input.iter().filter(|value| !weights.contains(value.name.as_str()));
    (inputs.map(Port::of).collect(), graph.output.iter().map(Port::of).collect())
}
