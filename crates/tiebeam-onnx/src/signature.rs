//! What goes into a model and what comes out: read from the file, the same for every engine.

use tiebeam_inference::{DType, Dim, Port};

use crate::file::ModelFile;
use crate::proto::{DimensionValue, TensorTypeProto, TypeProto, TypeValue, ValueInfoProto, data_type};

fn port_of(value: &ValueInfoProto) -> Port {
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
    Port { name: value.name.as_str().into(), type_name: type_name(value.r#type.as_ref(), 0), dtype, shape }
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
    (inputs.map(port_of).collect(), graph.output.iter().map(port_of).collect())
}
