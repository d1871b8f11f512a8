//! Short ways to write models: for graphs that are made here, and for tests.

use bytes::Bytes;

use super::{
    AttributeProto, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, TypeValue, ValueInfoProto, attribute_type,
    data_type,
};

/// The size of an axis as [`ValueInfoProto::tensor`] takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis<'a> {
    /// Always that size.
    Fixed(usize),
    /// Any size; axes of the same name have the same.
    Named(&'a str),
    /// Any size.
    Free,
}

impl ModelProto {
    /// A model of that graph and that version of ONNX's operators, in format 8 (which every engine of the last years
    /// reads).
    pub fn of(graph: GraphProto, opset: i64) -> Self {
        ModelProto {
            ir_version: 8,
            producer_name: "tiebeam".to_owned(),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
            ..ModelProto::default()
        }
    }

    /// The bytes of a `.onnx` file.
    pub fn to_bytes(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(self)
    }
}

impl NodeProto {
    /// A node of one of ONNX's own operators, without attributes.
    pub fn of(op_type: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        NodeProto {
            op_type: op_type.to_owned(),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: outputs.iter().map(|&name| name.to_owned()).collect(),
            ..NodeProto::default()
        }
    }

    /// Names the node: engines tell it in their errors.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with(mut self, attribute: AttributeProto) -> Self {
        self.attribute.push(attribute);
        self
    }
}

impl AttributeProto {
    fn typed(name: &str, r#type: i32) -> Self {
        AttributeProto { name: name.to_owned(), r#type, ..AttributeProto::default() }
    }

    /// A number.
    pub fn float(name: &str, value: f32) -> Self {
        AttributeProto { f: Some(value), ..Self::typed(name, attribute_type::FLOAT) }
    }

    /// An integer.
    pub fn int(name: &str, value: i64) -> Self {
        AttributeProto { i: Some(value), ..Self::typed(name, attribute_type::INT) }
    }

    /// A text.
    pub fn string(name: &str, value: &str) -> Self {
        AttributeProto {
            s: Some(Bytes::copy_from_slice(value.as_bytes())),
            ..Self::typed(name, attribute_type::STRING)
        }
    }

    /// A tensor.
    pub fn tensor(name: &str, value: TensorProto) -> Self {
        AttributeProto { t: Some(value), ..Self::typed(name, attribute_type::TENSOR) }
    }

    /// A graph: the body of an `If`, `Loop` or `Scan`.
    pub fn graph(name: &str, value: GraphProto) -> Self {
        AttributeProto { g: Some(value), ..Self::typed(name, attribute_type::GRAPH) }
    }

    /// Numbers.
    pub fn floats(name: &str, values: &[f32]) -> Self {
        AttributeProto { floats: values.to_vec(), ..Self::typed(name, attribute_type::FLOATS) }
    }

    /// Integers.
    pub fn ints(name: &str, values: &[i64]) -> Self {
        AttributeProto { ints: values.to_vec(), ..Self::typed(name, attribute_type::INTS) }
    }
}

impl TensorProto {
    fn raw(name: &str, dims: &[usize], data_type: i32, raw: Vec<u8>) -> Self {
        TensorProto {
            name: name.to_owned(),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type,
            raw_data: Some(Bytes::from(raw)),
            ..TensorProto::default()
        }
    }

    /// A tensor of `float32` in row-major order; `dims` must hold exactly that many.
    pub fn f32(name: &str, dims: &[usize], values: &[f32]) -> Self {
        Self::raw(name, dims, data_type::FLOAT, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A tensor of `float32` whose little-endian bytes are there already: they are shared, not copied.
    pub fn f32_bytes(name: &str, dims: &[usize], bytes: Bytes) -> Self {
        TensorProto { raw_data: Some(bytes), ..Self::raw(name, dims, data_type::FLOAT, Vec::new()) }
    }

    /// A tensor of `int64` in row-major order; `dims` must hold exactly that many.
    pub fn i64(name: &str, dims: &[usize], values: &[i64]) -> Self {
        Self::raw(name, dims, data_type::INT64, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A tensor of `int32` in row-major order; `dims` must hold exactly that many.
    pub fn i32(name: &str, dims: &[usize], values: &[i32]) -> Self {
        Self::raw(name, dims, data_type::INT32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A tensor of `bool` in row-major order; `dims` must hold exactly that many.
    pub fn bool(name: &str, dims: &[usize], values: &[bool]) -> Self {
        Self::raw(name, dims, data_type::BOOL, values.iter().map(|&v| u8::from(v)).collect())
    }
}

impl ValueInfoProto {
    /// A tensor of a [`data_type`] with those axes.
    pub fn tensor(name: &str, elem_type: i32, axes: &[Axis<'_>]) -> Self {
        let dim = axes.iter().map(|axis| Dimension {
            value: match axis {
                Axis::Fixed(size) => Some(DimensionValue::Value(*size as i64)),
                Axis::Named(name) => Some(DimensionValue::Param((*name).to_owned())),
                Axis::Free => None,
            },
            denotation: String::new(),
        });
        let shape = Some(TensorShapeProto { dim: dim.collect() });
        ValueInfoProto {
            name: name.to_owned(),
            r#type: Some(TypeProto {
                value: Some(TypeValue::Tensor(TensorTypeProto { elem_type, shape })),
                denotation: String::new(),
            }),
            doc_string: String::new(),
        }
    }
}
