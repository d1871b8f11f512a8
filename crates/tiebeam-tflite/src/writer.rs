//! Writes an ONNX graph.

use bytes::Bytes;
use tiebeam_onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

/// The version of ONNX's operators that the graphs are written in.
const OPSET: i64 = 17;

/// A graph while it is written. Its values are their names.
pub(crate) struct Writer {
    graph: GraphProto,
    count: usize,
    /// How many bytes of constants may still be written: tensors of a damaged file may all claim the same bytes.
    left: usize,
}

impl Writer {
    pub(crate) fn new(most: usize) -> Self {
        let graph = GraphProto { name: "tflite".to_owned(), ..GraphProto::default() };
        Writer { graph, count: 0, left: most }
    }

    fn fresh(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}_{}", self.count)
    }

    /// An operation with one result.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let [output] = self.nodes(operator, inputs, attributes);
        output
    }

    /// An operation with so many results.
    pub(crate) fn nodes<const N: usize>(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> [String; N] {
        let outputs = std::array::from_fn(|_| self.fresh(operator));
        self.push(operator, inputs, &outputs, attributes);
        outputs
    }

    /// An operation with the results of an ONNX node that has any number of them.
    pub(crate) fn many(
        &mut self,
        operator: &str,
        inputs: &[&str],
        count: usize,
        attributes: Vec<AttributeProto>,
    ) -> Vec<String> {
        let outputs: Vec<String> = (0..count).map(|_| self.fresh(operator)).collect();
        self.push(operator, inputs, &outputs, attributes);
        outputs
    }

    fn push(&mut self, operator: &str, inputs: &[&str], outputs: &[String], attributes: Vec<AttributeProto>) {
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let name = outputs.first().copied().unwrap_or_default().to_owned();
        let mut node = NodeProto::of(operator, inputs, &outputs).named(name);
        node.attribute = attributes;
        self.graph.node.push(node);
    }

    fn constant(&mut self, bytes: usize, make: impl FnOnce(&str) -> TensorProto) -> Result<String, String> {
        self.left = self.left.checked_sub(bytes).ok_or("its tensors have more numbers than the file has")?;
        let name = self.fresh("constant");
        self.graph.initializer.push(make(&name));
        Ok(name)
    }

    pub(crate) fn f32s(&mut self, dims: &[usize], numbers: &[f32]) -> Result<String, String> {
        self.constant(numbers.len() * 4, |name| TensorProto::f32(name, dims, numbers))
    }

    pub(crate) fn f32_bytes(&mut self, dims: &[usize], bytes: &[u8]) -> Result<String, String> {
        self.constant(bytes.len(), |name| TensorProto::f32_bytes(name, dims, Bytes::copy_from_slice(bytes)))
    }

    pub(crate) fn i64s(&mut self, dims: &[usize], numbers: &[i64]) -> Result<String, String> {
        self.constant(numbers.len() * 8, |name| TensorProto::i64(name, dims, numbers))
    }

    pub(crate) fn bools(&mut self, dims: &[usize], flags: &[bool]) -> Result<String, String> {
        self.constant(flags.len(), |name| TensorProto::bool(name, dims, flags))
    }

    /// One whole number after the other.
    pub(crate) fn list(&mut self, numbers: &[i64]) -> Result<String, String> {
        self.i64s(&[numbers.len()], numbers)
    }

    /// A number.
    pub(crate) fn scalar(&mut self, number: f32) -> Result<String, String> {
        self.f32s(&[], &[number])
    }

    pub(crate) fn input(&mut self, declared: ValueInfoProto) {
        self.graph.input.push(declared);
    }

    /// Gives a value out under the declared name.
    pub(crate) fn output(&mut self, declared: ValueInfoProto, value: &str) {
        self.graph.node.push(NodeProto::of("Identity", &[value], &[&declared.name]));
        self.graph.output.push(declared);
    }

    pub(crate) fn finish(self) -> ModelProto {
        ModelProto::of(self.graph, OPSET)
    }
}
