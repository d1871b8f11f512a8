//! What the pickle machine makes of the few calls that it allows: dicts, storages and descriptions of tensors.

use tiebeam_core::error::Result;

use super::globals::{self, Global};
use super::pickle::{Machine, Node, StorageRef, TensorRef, Value};
use super::tensor::ScalarType;

/// The most axes of a tensor. torch allows 64; no model has weights of more than a few.
const MAX_RANK: usize = 16;

impl Machine<'_> {
    fn tuple(&self, value: Value) -> Option<&[Value]> {
        let Value::Node(id) = value else { return None };
        match self.nodes.get(id)? {
            Node::Tuple(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn call(&mut self, callable: Value, arguments: Value) -> Result<()> {
        let Value::Global(global) = callable else {
            return Err(self.damaged("the pickle calls what is not a function"));
        };
        let Some(arguments) = self.tuple(arguments) else {
            return Err(self.damaged("the pickle calls a function with what is not a tuple"));
        };
        let first = arguments.first().copied();
        let node = match global {
            Global::OrderedDict => self.ordered_dict(first)?,
            Global::RebuildTensor | Global::RebuildTensorV2 => self.rebuild_tensor(arguments, None)?,
            Global::RebuildTensorV3 => {
                let Some(Value::Global(Global::DType(dtype))) = arguments.get(6) else {
                    return Err(self.damaged("a tensor is rebuilt without a dtype"));
                };
                self.rebuild_tensor(arguments, Some(*dtype))?
            }
            // A parameter is its tensor.
            Global::RebuildParameter | Global::Class => {
                let Some(tensor @ Value::Node(_)) = first else {
                    return Err(self.damaged("a parameter is rebuilt from what is not a tensor"));
                };
                return self.push(tensor);
            }
            Global::RebuildFromType => {
                let [function, _, inner, ..] = *arguments else {
                    return Err(self.damaged("a tensor of a class is rebuilt from too little"));
                };
                if function == Value::Global(Global::RebuildFromType) {
                    return Err(self.damaged("a tensor of a class is rebuilt from itself"));
                }
                return self.call(function, inner);
            }
            Global::Size => match first {
                Some(dims @ Value::Node(_)) => return self.push(dims),
                _ => Node::Tuple(Vec::new()),
            },
            Global::Opaque => Node::Opaque,
            Global::Storage(_) | Global::UntypedStorage | Global::DType(_) => {
                return Err(self.damaged("the pickle calls a type that can't be made here"));
            }
        };
        self.push_new(node)
    }

    fn ordered_dict(&mut self, items: Option<Value>) -> Result<Node> {
        // Python 2 wrote the items as a list of pairs, Python 3 sets them afterwards.
        let Some(Value::Node(id)) = items else { return Ok(Node::Dict(Vec::new())) };
        let Some(Node::List(items)) = self.nodes.get(id) else {
            return Err(self.damaged("an OrderedDict is made of what is not a list"));
        };
        self.copied += items.len();
        if self.copied > self.data.len() {
            return Err(self.damaged("the pickle copies the same list again and again"));
        }
        let mut entries = Vec::with_capacity(items.len());
        for item in items {
            let pair = match item {
                Value::Node(id) => match self.nodes.get(*id) {
                    Some(Node::Tuple(pair) | Node::List(pair)) => pair.as_slice(),
                    _ => &[],
                },
                _ => &[],
            };
            let [key, value] = *pair else {
                return Err(self.damaged("an OrderedDict is made of what are not pairs"));
            };
            entries.push((key, value));
        }
        Ok(Node::Dict(entries))
    }

    fn dims(&self, value: Option<&Value>, what: &str) -> Result<Vec<u64>> {
        let bad = || self.damaged(format!("a tensor's {what} is not a tuple of whole numbers from 0"));
        let Some(Value::Node(id)) = value else { return Err(bad()) };
        let (Some(Node::Tuple(values)) | Some(Node::List(values))) = self.nodes.get(*id) else {
            return Err(bad());
        };
        if values.len() > MAX_RANK {
            return Err(self
                .damaged(format!("a tensor has {} axes, more than {MAX_RANK} are not read", values.len())));
        }
        let dim = |value: &Value| match value {
            Value::Int(n) => u64::try_from(*n).map_err(|_| bad()),
            _ => Err(bad()),
        };
        values.iter().map(dim).collect()
    }

    fn rebuild_tensor(&self, arguments: &[Value], dtype: Option<ScalarType>) -> Result<Node> {
        let storage = match arguments.first() {
            Some(Value::Node(id)) => match self.nodes.get(*id) {
                Some(Node::Storage(storage)) => *storage,
                _ => return Err(self.damaged("a tensor is rebuilt from what is not a storage")),
            },
            _ => return Err(self.damaged("a tensor is rebuilt from what is not a storage")),
        };
        let offset = match arguments.get(1) {
            Some(Value::Int(n)) if *n >= 0 => *n as u64,
            _ => return Err(self.damaged("a tensor's storage offset is not a whole number from 0")),
        };
        let shape = self.dims(arguments.get(2), "shape")?;
        let strides = self.dims(arguments.get(3), "strides")?;
        if shape.len() != strides.len() {
            return Err(self.damaged(format!(
                "a tensor has {} axes but {} strides",
                shape.len(),
                strides.len()
            )));
        }
        let Some(dtype) = dtype.or(storage.dtype) else {
            return Err(self.damaged("a tensor of an untyped storage has no dtype"));
        };
        Ok(Node::Tensor(Box::new(TensorRef { storage, dtype, offset, shape, strides })))
    }

    pub(super) fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        let storage = self.storage(id)?;
        self.push_new(Node::Storage(storage))
    }

    fn storage(&self, id: Value) -> Result<StorageRef> {
        let bad = || self.damaged("a persistent id is not ('storage', type, key, location, size)");
        let fields = self.tuple(id).ok_or_else(bad)?;
        match fields.first().and_then(|kind| self.text(*kind)).as_deref() {
            Some("storage") => {}
            Some("module") => return Err(globals::whole_model("a pickled model").at_place(self.place())),
            _ => return Err(bad()),
        }
        let [_, Value::Global(class), Value::Node(key), _, Value::Int(numel), rest @ ..] = fields else {
            return Err(bad());
        };
        let dtype = match class {
            Global::Storage(dtype) => Some(*dtype),
            Global::UntypedStorage => None,
            _ => return Err(bad()),
        };
        if self.text(Value::Node(*key)).is_none() {
            return Err(self.damaged("a storage's key is not text"));
        }
        let numel = u64::try_from(*numel).map_err(|_| self.damaged("a storage has a negative size"))?;
        // Pre-1.6 files tell a view of another storage as (key, offset, size).
        let view_offset = match rest.first() {
            None | Some(Value::None) => 0,
            Some(view) => match self.tuple(*view) {
                Some([_, Value::Int(offset), Value::Int(_)]) if *offset >= 0 => *offset as u64,
                _ => return Err(bad()),
            },
        };
        Ok(StorageRef { dtype, key: *key, numel, view_offset })
    }
}
