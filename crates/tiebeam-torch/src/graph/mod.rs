//! [`GraphBuilder`]: writes an ONNX graph in memory, with the weights of a state dict under torch's names.

mod fold;
mod ops;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_onnx::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, TypeValue, ValueInfoProto, attribute_type,
    data_type,
};

use crate::modules::Module;
use crate::state_dict::StateDict;

/// The version of ONNX's operators that the graphs are written in: the first with LayerNormalization.
const OPSET: i64 = 17;

/// The version of ONNX's file format that goes with it.
const IR_VERSION: i64 = 8;

/// How many names a message about weights lists of each kind.
const LISTED: usize = 5;

/// The size of an axis while a graph is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// Always that size.
    Fixed(usize),
    /// Any size; axes of the same name have the same. The batch axis is `Dim::Named("n")`.
    Named(&'static str),
    /// Any size.
    Free,
}

impl Dim {
    /// The size, if it is known.
    pub fn size(self) -> Option<usize> {
        match self {
            Dim::Fixed(size) => Some(size),
            Dim::Named(_) | Dim::Free => None,
        }
    }

    /// What `f` makes of a known size; free otherwise.
    pub(crate) fn map(self, f: impl FnOnce(usize) -> usize) -> Dim {
        self.size().map_or(Dim::Free, |size| Dim::Fixed(f(size)))
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

/// What the elements of a value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// `float32`
    F32,
    /// `int64`: indices and tokens
    I64,
    /// `bool`: masks
    Bool,
}

impl ElementType {
    fn onnx(self) -> i32 {
        match self {
            ElementType::F32 => data_type::FLOAT,
            ElementType::I64 => data_type::INT64,
            ElementType::Bool => data_type::BOOL,
        }
    }
}

/// A value of the graph: the result of an operation, an input or a weight. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Value {
    name: Arc<str>,
    shape: Vec<Dim>,
    element: ElementType,
}

impl Value {
    /// The axes, as far as they are known.
    pub fn shape(&self) -> &[Dim] {
        &self.shape
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// What its elements are.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// The axes as `[n, 3, 224]`.
    pub(crate) fn axes(&self) -> String {
        let dims: Vec<String> = self.shape.iter().map(Dim::to_string).collect();
        format!("[{}]", dims.join(", "))
    }
}

/// A parameter of an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute<'a> {
    /// An integer.
    Int(i64),
    /// A number.
    Float(f32),
    /// Integers.
    Ints(&'a [usize]),
    /// A word.
    Text(&'static str),
}

/// Builds one graph. Names are relative to the current [`scope`](GraphBuilder::scope), as in torch's modules.
///
/// Weights that are missing, or have another shape, are gathered and told together at the end, so that a module never
/// has to care.
#[derive(Debug)]
pub struct GraphBuilder<'a> {
    weights: &'a StateDict,
    scope: String,
    graph: GraphProto,
    constants: HashSet<String>,
    known: BTreeSet<String>,
    wanted: Vec<(String, Vec<usize>)>,
    missing: Vec<String>,
    wrong: Vec<String>,
    count: usize,
}

impl<'a> GraphBuilder<'a> {
    pub(crate) fn new(weights: &'a StateDict) -> Self {
        GraphBuilder {
            weights,
            scope: String::new(),
            graph: GraphProto::default(),
            constants: HashSet::new(),
            known: BTreeSet::new(),
            wanted: Vec::new(),
            missing: Vec::new(),
            wrong: Vec::new(),
            count: 0,
        }
    }

    /// Declares an input of the model.
    pub fn input(&mut self, name: &str, element: ElementType, shape: &[Dim]) -> Value {
        self.graph.input.push(declaration(name, element, shape));
        Value { name: name.into(), shape: shape.to_vec(), element }
    }

    /// Declares `value` an output of the model.
    pub fn output(&mut self, name: &str, value: &Value) {
        // A node of its own gives it the name, whatever else the value is.
        self.push("Identity", &[value], name.to_owned(), &[]);
        self.graph.output.push(declaration(name, value.element, &value.shape));
    }

    /// Runs `build` with `name` put before every name: the modules of a torch class's attribute.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn scope<T>(&mut self, name: &str, build: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = self.scope.len();
        if !name.is_empty() {
            if before > 0 {
                self.scope.push('.');
            }
            self.scope.push_str(name);
        }
        let result = build(self);
        self.scope.truncate(before);
        result
    }

    /// Runs the module that torch's class keeps under `name` on `x`.
    ///
    /// # Errors
    /// When the value's shape is none that the module takes.
    pub fn apply(&mut self, name: &str, module: &(impl Module + ?Sized), x: &Value) -> Result<Value> {
        self.scope(name, |g| module.forward(g, x))
    }

    fn full_name(&self, name: &str) -> String {
        if self.scope.is_empty() { name.to_owned() } else { format!("{}.{name}", self.scope) }
    }

    /// The bytes of a weight, if it is there in that shape; what is wrong is told by [`finish`](Self::finish).
    fn weight_bytes(&mut self, name: &str, shape: &[usize]) -> Option<Bytes> {
        let full = self.full_name(name);
        let first = self.known.insert(full.clone());
        if first {
            self.wanted.push((full.clone(), shape.to_vec()));
        }
        match self.weights.get(&full) {
            None => {
                if first {
                    self.missing.push(format!("`{full}` {shape:?}"));
                }
                None
            }
            Some(tensor) if tensor.shape() != shape => {
                if first {
                    self.wrong.push(format!("`{full}` has shape {:?}, wanted {shape:?}", tensor.shape()));
                }
                None
            }
            Some(tensor) => Some(tensor.to_f32_bytes()),
        }
    }

    /// The weight of that name and shape, as `float32`.
    pub fn parameter(&mut self, name: &str, shape: &[usize]) -> Value {
        let full = self.full_name(name);
        if !self.constants.contains(&full)
            && let Some(bytes) = self.weight_bytes(name, shape)
        {
            self.initializer(full.clone(), ElementType::F32, shape, bytes);
        }
        constant_value(&full, ElementType::F32, shape)
    }

    /// The numbers of the weight of that name and shape, in row-major order, for modules that rearrange them; none when
    /// it is missing or has another shape, which is told when the graph is finished.
    pub fn parameter_numbers(&mut self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        let bytes = self.weight_bytes(name, shape)?;
        Some(numbers(&bytes))
    }

    /// Says that the state dict may have a tensor of that name which inference needs not.
    pub fn unused(&mut self, name: &str) {
        self.known.insert(self.full_name(name));
    }

    /// A constant of numbers.
    ///
    /// # Errors
    /// When the shape holds another number of them.
    pub fn constant(&mut self, shape: &[usize], values: &[f32]) -> Result<Value> {
        self.any_constant(
            ElementType::F32,
            shape,
            values.len(),
            values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        )
    }

    /// A constant of integers: indices, shapes.
    ///
    /// # Errors
    /// When the shape holds another number of them.
    pub fn constant_i64(&mut self, shape: &[usize], values: &[i64]) -> Result<Value> {
        self.any_constant(
            ElementType::I64,
            shape,
            values.len(),
            values.iter().flat_map(|n| n.to_le_bytes()).collect(),
        )
    }

    fn any_constant(
        &mut self,
        element: ElementType,
        shape: &[usize],
        n: usize,
        bytes: Vec<u8>,
    ) -> Result<Value> {
        if shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim)) != Some(n) {
            return Err(self.wrong(format!("a constant of shape {shape:?} was given {n} numbers")));
        }
        let name = self.fresh("constant");
        self.initializer(name.clone(), element, shape, bytes.into());
        Ok(constant_value(&name, element, shape))
    }

    fn initializer(&mut self, name: String, element: ElementType, shape: &[usize], bytes: Bytes) {
        self.constants.insert(name.clone());
        self.graph.initializer.push(TensorProto {
            name,
            data_type: element.onnx(),
            dims: shape.iter().map(|dim| *dim as i64).collect(),
            raw_data: Some(bytes),
            ..TensorProto::default()
        });
    }

    /// An operation of ONNX (opset 17) with one output, for what the modules don't offer. The caller says what comes out.
    pub fn node(
        &mut self,
        operator: &str,
        inputs: &[&Value],
        attributes: &[(&str, Attribute<'_>)],
        element: ElementType,
        shape: Vec<Dim>,
    ) -> Value {
        let name = self.fresh(operator);
        self.push(operator, inputs, name.clone(), attributes);
        Value { name: name.into(), shape, element }
    }

    fn push(
        &mut self,
        operator: &str,
        inputs: &[&Value],
        output: String,
        attributes: &[(&str, Attribute<'_>)],
    ) {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|value| value.name.to_string()).collect(),
            name: output.clone(),
            output: vec![output],
            op_type: operator.to_owned(),
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
            ..NodeProto::default()
        });
    }

    fn fresh(&mut self, what: &str) -> String {
        self.count += 1;
        // A slash is in no name of torch's, so it can't be a weight's.
        self.full_name(&format!("/{what}_{}", self.count))
    }

    /// The error of a module that was given what it can't take; names the module.
    pub fn wrong(&self, message: impl fmt::Display) -> Error {
        let at = if self.scope.is_empty() { String::new() } else { format!("module `{}`: ", self.scope) };
        Error::new(ErrorKind::InvalidArgument, "TB0374", format!("{at}{message}"))
    }

    /// The names and shapes of all weights that were asked for.
    pub(crate) fn into_wanted(self) -> Vec<(String, Vec<usize>)> {
        self.wanted
    }

    /// The whole model.
    ///
    /// # Errors
    /// When weights are missing, left over or of another shape: all of them in one message; when there is no output.
    pub(crate) fn finish(mut self, architecture: &str) -> Result<ModelProto> {
        self.check_weights(architecture)?;
        if self.graph.output.is_empty() {
            return Err(self.wrong(format!("architecture `{architecture}` declares no output")));
        }
        fold::batch_norms(&mut self.graph);
        self.graph.name = architecture.to_owned();
        Ok(ModelProto {
            ir_version: IR_VERSION,
            producer_name: "tiebeam".to_owned(),
            graph: Some(self.graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            ..ModelProto::default()
        })
    }

    fn check_weights(&self, architecture: &str) -> Result<()> {
        let unexpected: Vec<String> = self
            .weights
            .iter()
            .filter(|(name, _)| !self.known.contains(*name))
            .map(|(name, tensor)| format!("`{name}` {:?}", tensor.shape()))
            .collect();
        if self.missing.is_empty() && self.wrong.is_empty() && unexpected.is_empty() {
            return Ok(());
        }
        let mut parts = Vec::new();
        for (what, names) in [("missing ", &self.missing), ("unexpected ", &unexpected), ("", &self.wrong)] {
            if names.is_empty() {
                continue;
            }
            let mut part = format!("{what}{}", names[..names.len().min(LISTED)].join(", "));
            if names.len() > LISTED {
                part.push_str(&format!(" and {} more", names.len() - LISTED));
            }
            parts.push(part);
        }
        Err(Error::new(
            ErrorKind::Model,
            "TB0370",
            format!("the weights in {} do not fit {architecture}: {}", self.weights.file(), parts.join("; ")),
        )
        .with_help("give the model_class and model_params that the weights were trained with"))
    }
}

fn constant_value(name: &str, element: ElementType, shape: &[usize]) -> Value {
    Value { name: name.into(), shape: shape.iter().map(|dim| Dim::Fixed(*dim)).collect(), element }
}

/// Little-endian bytes as numbers.
fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}

fn attribute(name: &str, value: &Attribute<'_>) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    match value {
        Attribute::Int(i) => {
            attribute.r#type = attribute_type::INT;
            attribute.i = Some(*i);
        }
        Attribute::Float(f) => {
            attribute.r#type = attribute_type::FLOAT;
            attribute.f = Some(*f);
        }
        Attribute::Ints(ints) => {
            attribute.r#type = attribute_type::INTS;
            attribute.ints = ints.iter().map(|i| *i as i64).collect();
        }
        Attribute::Text(text) => {
            attribute.r#type = attribute_type::STRING;
            attribute.s = Some(Bytes::from_static(text.as_bytes()));
        }
    }
    attribute
}

fn declaration(name: &str, element: ElementType, shape: &[Dim]) -> ValueInfoProto {
    let dimension = |dim: &Dim| {
        let value = match dim {
            Dim::Fixed(size) => Some(DimensionValue::Value(*size as i64)),
            Dim::Named(name) => Some(DimensionValue::Param((*name).to_owned())),
            Dim::Free => None,
        };
        Dimension { value, ..Dimension::default() }
    };
    let tensor = TensorTypeProto {
        elem_type: element.onnx(),
        shape: Some(TensorShapeProto { dim: shape.iter().map(dimension).collect() }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}
