//! ONNX's protobuf messages, declared by hand: names and field numbers are ONNX's, no `.proto` file and no `protoc`.
//!
//! Fields that nobody reads here (training, devices, docs of single values) are left out: a decoder skips what it does
//! not know. What is repeated and not packed in ONNX's own file is written unpacked, since some readers take nothing
//! else; both forms are read. Nested messages end at depth 100, so that a hostile file can't exhaust the stack.

use bytes::Bytes;

mod build;

pub use build::Axis;

/// The element types of tensors (`TensorProto.DataType`).
pub mod data_type {
    /// No type; never in a valid tensor.
    pub const UNDEFINED: i32 = 0;
    /// `float32`
    pub const FLOAT: i32 = 1;
    /// `uint8`
    pub const UINT8: i32 = 2;
    /// `int8`
    pub const INT8: i32 = 3;
    /// `uint16`
    pub const UINT16: i32 = 4;
    /// `int16`
    pub const INT16: i32 = 5;
    /// `int32`
    pub const INT32: i32 = 6;
    /// `int64`
    pub const INT64: i32 = 7;
    /// UTF-8 strings
    pub const STRING: i32 = 8;
    /// `bool`
    pub const BOOL: i32 = 9;
    /// `float16`
    pub const FLOAT16: i32 = 10;
    /// `float64`
    pub const DOUBLE: i32 = 11;
    /// `uint32`
    pub const UINT32: i32 = 12;
    /// `uint64`
    pub const UINT64: i32 = 13;
    /// Two `float32`
    pub const COMPLEX64: i32 = 14;
    /// Two `float64`
    pub const COMPLEX128: i32 = 15;
    /// `bfloat16`
    pub const BFLOAT16: i32 = 16;

    /// numpy's name of a data type, as reports show it; `None` for a number that ONNX does not define.
    pub const fn name(data_type: i32) -> Option<&'static str> {
        Some(match data_type {
            FLOAT => "float32",
            UINT8 => "uint8",
            INT8 => "int8",
            UINT16 => "uint16",
            INT16 => "int16",
            INT32 => "int32",
            INT64 => "int64",
            STRING => "str",
            BOOL => "bool",
            FLOAT16 => "float16",
            DOUBLE => "float64",
            UINT32 => "uint32",
            UINT64 => "uint64",
            COMPLEX64 => "complex64",
            COMPLEX128 => "complex128",
            BFLOAT16 => "bfloat16",
            17 => "float8_e4m3fn",
            18 => "float8_e4m3fnuz",
            19 => "float8_e5m2",
            20 => "float8_e5m2fnuz",
            21 => "uint4",
            22 => "int4",
            23 => "float4_e2m1",
            24 => "float8_e8m0fnu",
            25 => "uint2",
            26 => "int2",
            _ => return None,
        })
    }
}

/// What an attribute holds (`AttributeProto.AttributeType`).
pub mod attribute_type {
    /// `f`
    pub const FLOAT: i32 = 1;
    /// `i`
    pub const INT: i32 = 2;
    /// `s`
    pub const STRING: i32 = 3;
    /// `t`
    pub const TENSOR: i32 = 4;
    /// `g`
    pub const GRAPH: i32 = 5;
    /// `floats`
    pub const FLOATS: i32 = 6;
    /// `ints`
    pub const INTS: i32 = 7;
    /// `strings`
    pub const STRINGS: i32 = 8;
    /// `tensors`
    pub const TENSORS: i32 = 9;
    /// `graphs`
    pub const GRAPHS: i32 = 10;
}

/// `TensorProto.data_location` of a tensor whose numbers are in another file.
pub const EXTERNAL: i32 = 1;

/// A key and its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringStringEntryProto {
    /// The key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A set of operators that a model needs: a domain (empty for ONNX's own) and its version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperatorSetIdProto {
    /// The domain; empty for `ai.onnx`.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// The version.
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// A model: the whole of an `.onnx` file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelProto {
    /// The version of the format; set in every valid model.
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    /// The tool that wrote it.
    #[prost(string, tag = "2")]
    pub producer_name: String,
    /// That tool's version.
    #[prost(string, tag = "3")]
    pub producer_version: String,
    /// The model's name space.
    #[prost(string, tag = "4")]
    pub domain: String,
    /// The model's own version.
    #[prost(int64, tag = "5")]
    pub model_version: i64,
    /// A text for people.
    #[prost(string, tag = "6")]
    pub doc_string: String,
    /// The computation.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    /// The operators that it needs; at least one in a valid model.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// Keys and values of the producer.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
    /// Functions that nodes of the graph call.
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<FunctionProto>,
}

/// A computation: nodes in topological order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GraphProto {
    /// The nodes.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    /// The graph's name; set in every valid graph.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Named constants: the weights.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    /// A text for people.
    #[prost(string, tag = "10")]
    pub doc_string: String,
    /// The inputs; in old models (format 3) the weights too.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    /// The outputs.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    /// Types of values in between.
    #[prost(message, repeated, tag = "13")]
    pub value_info: Vec<ValueInfoProto>,
    /// Named constants that are mostly zero.
    #[prost(message, repeated, tag = "15")]
    pub sparse_initializer: Vec<SparseTensorProto>,
}

/// One operation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeProto {
    /// The values that go in; empty names are absent optional inputs.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// The values that come out.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// The node's name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The operator, such as `Gemm`.
    #[prost(string, tag = "4")]
    pub op_type: String,
    /// The operator's parameters.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    /// A text for people.
    #[prost(string, tag = "6")]
    pub doc_string: String,
    /// The operator's domain; empty for `ai.onnx`.
    #[prost(string, tag = "7")]
    pub domain: String,
    /// Which of several functions of the same name.
    #[prost(string, tag = "8")]
    pub overload: String,
}

/// A parameter of an operator; `type` says which field holds it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeProto {
    /// The parameter's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// A number.
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    /// An integer.
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    /// A text (UTF-8 bytes).
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub s: Option<Bytes>,
    /// A tensor.
    #[prost(message, optional, tag = "5")]
    pub t: Option<TensorProto>,
    /// A graph: the body of an `If`, `Loop` or `Scan`.
    #[prost(message, optional, tag = "6")]
    pub g: Option<GraphProto>,
    /// Numbers.
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    /// Integers.
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    /// Texts.
    #[prost(bytes = "bytes", repeated, tag = "9")]
    pub strings: Vec<Bytes>,
    /// Tensors.
    #[prost(message, repeated, tag = "10")]
    pub tensors: Vec<TensorProto>,
    /// Graphs.
    #[prost(message, repeated, tag = "11")]
    pub graphs: Vec<GraphProto>,
    /// A text for people.
    #[prost(string, tag = "13")]
    pub doc_string: String,
    /// One of [`attribute_type`].
    #[prost(int32, tag = "20")]
    pub r#type: i32,
    /// Inside a function: the function's parameter that this one takes its value from.
    #[prost(string, tag = "21")]
    pub ref_attr_name: String,
}

/// A tensor with its numbers: in the field of its type, in `raw_data` (little endian), or in another file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorProto {
    /// The size of each axis.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// One of [`data_type`].
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    /// Numbers of FLOAT, COMPLEX64.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Numbers of INT32 and everything narrower, BOOL and FLOAT16 too.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// Texts of STRING.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub string_data: Vec<Bytes>,
    /// Numbers of INT64.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// The tensor's name.
    #[prost(string, tag = "8")]
    pub name: String,
    /// The numbers of any type but STRING, little endian, in row-major order.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
    /// Numbers of DOUBLE, COMPLEX128.
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// Numbers of UINT32, UINT64.
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
    /// A text for people.
    #[prost(string, tag = "12")]
    pub doc_string: String,
    /// Where the numbers are: `location`, `offset`, `length`.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// 0, or [`EXTERNAL`].
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

/// A tensor that is mostly zero.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SparseTensorProto {
    /// The numbers that are not zero; carries the name.
    #[prost(message, optional, tag = "1")]
    pub values: Option<TensorProto>,
    /// Where they are.
    #[prost(message, optional, tag = "2")]
    pub indices: Option<TensorProto>,
    /// The size of each axis.
    #[prost(int64, repeated, packed = "false", tag = "3")]
    pub dims: Vec<i64>,
}

/// A named value with its type.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueInfoProto {
    /// The value's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its type; always there for inputs and outputs of a model.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
    /// A text for people.
    #[prost(string, tag = "3")]
    pub doc_string: String,
}

/// A type.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TypeProto {
    /// Which kind of type.
    #[prost(oneof = "TypeValue", tags = "1, 4, 5, 8, 9")]
    pub value: Option<TypeValue>,
    /// What it stands for, such as `IMAGE`.
    #[prost(string, tag = "6")]
    pub denotation: String,
}

/// The kinds of types.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum TypeValue {
    /// A tensor.
    #[prost(message, tag = "1")]
    Tensor(TensorTypeProto),
    /// A list.
    #[prost(message, tag = "4")]
    Sequence(Box<ElementTypeProto>),
    /// A map.
    #[prost(message, tag = "5")]
    Map(Box<MapTypeProto>),
    /// A tensor that is mostly zero.
    #[prost(message, tag = "8")]
    SparseTensor(TensorTypeProto),
    /// A value that may be absent.
    #[prost(message, tag = "9")]
    Optional(Box<ElementTypeProto>),
}

/// The type of a tensor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorTypeProto {
    /// One of [`data_type`].
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    /// The axes; none when even their number is free.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// The type of a list, or of a value that may be absent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ElementTypeProto {
    /// The type of what is inside.
    #[prost(message, optional, boxed, tag = "1")]
    pub elem_type: Option<Box<TypeProto>>,
}

/// The type of a map.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MapTypeProto {
    /// One of [`data_type`].
    #[prost(int32, tag = "1")]
    pub key_type: i32,
    /// The type of the values.
    #[prost(message, optional, boxed, tag = "2")]
    pub value_type: Option<Box<TypeProto>>,
}

/// The axes of a tensor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorShapeProto {
    /// Each axis.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// An axis.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dimension {
    /// Its size, if it is known.
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    pub value: Option<DimensionValue>,
    /// What it stands for, such as `DATA_BATCH`.
    #[prost(string, tag = "3")]
    pub denotation: String,
}

/// The size of an axis.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum DimensionValue {
    /// A number.
    #[prost(int64, tag = "1")]
    Value(i64),
    /// A name: axes of the same name have the same size.
    #[prost(string, tag = "2")]
    Param(String),
}

/// A function: an operator written as a graph.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FunctionProto {
    /// The operator's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The names of its inputs.
    #[prost(string, repeated, tag = "4")]
    pub input: Vec<String>,
    /// The names of its outputs.
    #[prost(string, repeated, tag = "5")]
    pub output: Vec<String>,
    /// The names of its parameters.
    #[prost(string, repeated, tag = "6")]
    pub attribute: Vec<String>,
    /// The nodes.
    #[prost(message, repeated, tag = "7")]
    pub node: Vec<NodeProto>,
    /// A text for people.
    #[prost(string, tag = "8")]
    pub doc_string: String,
    /// The operators that it needs.
    #[prost(message, repeated, tag = "9")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// The operator's domain.
    #[prost(string, tag = "10")]
    pub domain: String,
    /// Parameters that have a default.
    #[prost(message, repeated, tag = "11")]
    pub attribute_proto: Vec<AttributeProto>,
    /// Types of values in between.
    #[prost(message, repeated, tag = "12")]
    pub value_info: Vec<ValueInfoProto>,
    /// Which of several functions of the same name.
    #[prost(string, tag = "13")]
    pub overload: String,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// y = x·5, by ONNX's own numbers: the bytes as `onnx.helper` writes them.
    #[test]
    fn the_wire_is_onnx_s() {
        let node = NodeProto::of("Mul", &["x", "w"], &["y"]).with(AttributeProto::int("a", 0));
        let expected = b"\x0a\x01x\x0a\x01w\x12\x01y\x22\x03Mul\x2a\x08\x0a\x01a\x18\x00\xa0\x01\x02";
        assert_eq!(node.encode_to_vec(), expected);
        let tensor = TensorProto::f32("w", &[2, 1], &[5.0, 1.0]);
        let expected = b"\x08\x02\x08\x01\x10\x01\x42\x01w\x4a\x08\x00\x00\xa0\x40\x00\x00\x80\x3f";
        assert_eq!(tensor.encode_to_vec(), expected, "dims are not packed, as ONNX declares them");
    }

    #[test]
    fn packed_and_unpacked_numbers_are_both_read() {
        let packed = TensorProto::decode(&b"\x0a\x02\x02\x03\x10\x01"[..]).unwrap();
        let unpacked = TensorProto::decode(&b"\x08\x02\x08\x03\x10\x01"[..]).unwrap();
        assert_eq!(packed, unpacked);
        assert_eq!(packed.dims, [2, 3]);
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let mut bytes = Vec::new();
        // optional<optional<…>>: field 9 of a type holds field 1, which is a type again.
        for _ in 0..5_000 {
            for tag in [0x0a, 0x4a] {
                let mut outer = vec![tag];
                prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
                outer.append(&mut bytes);
                bytes = outer;
            }
        }
        assert!(TypeProto::decode(&bytes[..]).is_err());
    }
}
