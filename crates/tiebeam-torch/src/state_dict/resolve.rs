//! From a pickled object and the file's storages to named tensors.

use std::collections::HashMap;

use bytes::Bytes;
use tiebeam_core::error::{Error, ErrorKind, Result};

use super::archive::Archive;
use super::pickle::{Node, TensorRef, Unpickled, Value};
use super::tensor::{ScalarType, StateTensor, bad_tensor};

/// Under which keys training scripts keep the state dict of a checkpoint.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "net"];

/// How deep such keys are followed.
const MAX_DEPTH: usize = 3;

/// The longest name of a tensor, in bytes.
const MAX_NAME: usize = 4096;

/// The longest text that is kept as metadata, in bytes.
const MAX_TEXT: usize = 256;

/// The named tensors of a file in its order, and what stands beside them.
pub(super) struct Contents {
    pub tensors: Vec<(String, StateTensor)>,
    pub metadata: Vec<(String, String)>,
}

/// Where the bytes of storages are.
pub(super) enum Storages {
    /// All of them, by key.
    All(HashMap<String, Bytes>),
    /// Records of a zip archive, read when first asked for.
    Records { archive: Archive, prefix: String, read: HashMap<String, Bytes> },
}

impl Storages {
    fn get(&mut self, key: &str) -> Result<Option<Bytes>> {
        match self {
            Storages::All(all) => Ok(all.get(key).cloned()),
            Storages::Records { archive, prefix, read } => {
                if let Some(bytes) = read.get(key) {
                    return Ok(Some(bytes.clone()));
                }
                let Some((bytes, _)) = archive.read(&format!("{prefix}/data/{key}"))? else {
                    return Ok(None);
                };
                read.insert(key.to_owned(), bytes.clone());
                Ok(Some(bytes))
            }
        }
    }
}

/// The bytes of `numel` elements of a storage.
pub(super) fn storage_size(dtype: &Option<ScalarType>, numel: u64) -> Option<usize> {
    let size = dtype.map_or(1, ScalarType::size);
    usize::try_from(numel).ok()?.checked_mul(size)
}

impl Unpickled {
    /// The element type of each storage that the pickle speaks of, by key; none for untyped ones.
    pub(super) fn storages(&self) -> HashMap<&str, Option<ScalarType>> {
        let mut storages = HashMap::new();
        for node in self.nodes() {
            if let Node::Storage(storage) = node
                && let Some(key) = self.text(Value::Node(storage.key))
            {
                storages.entry(key).or_insert(storage.dtype);
            }
        }
        storages
    }

    fn entry(&self, dict: &[(Value, Value)], name: &str) -> Option<Value> {
        dict.iter().rev().find(|(key, _)| self.text(*key) == Some(name)).map(|(_, value)| *value)
    }

    fn find(&self, value: Value, depth: usize) -> Option<&[(Value, Value)]> {
        let dict = self.dict(value)?;
        if depth < MAX_DEPTH {
            for wrapper in WRAPPERS {
                if let Some(found) = self.entry(dict, wrapper).and_then(|inner| self.find(inner, depth + 1)) {
                    return Some(found);
                }
            }
        }
        dict.iter().any(|(_, value)| matches!(self.node(*value), Some(Node::Tensor(_)))).then_some(dict)
    }

    fn describe(&self) -> &'static str {
        match (self.root, self.node(self.root)) {
            (_, Some(Node::Tensor(_))) => "a single tensor",
            (_, Some(Node::List(_) | Node::Tuple(_))) => "a list",
            (_, Some(Node::Dict(entries))) if entries.is_empty() => "an empty dict",
            (_, Some(Node::Dict(_))) => "a dict without tensors",
            (_, Some(Node::Str(_) | Node::Bytes)) => "text",
            (Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_), _) => "a single value",
            _ => "an object of another kind",
        }
    }

    /// Text of a value that is kept as metadata.
    fn metadata(&self, value: Value) -> Option<String> {
        match value {
            Value::None => Some("None".to_owned()),
            Value::Bool(true) => Some("True".to_owned()),
            Value::Bool(false) => Some("False".to_owned()),
            Value::Int(n) => Some(n.to_string()),
            Value::Float(x) => Some(x.to_string()),
            Value::Global(_) => None,
            Value::Node(_) => self.text(value).filter(|text| text.len() <= MAX_TEXT).map(str::to_owned),
        }
    }
}

/// The tensors of the pickled object.
pub(super) fn contents(object: &Unpickled, storages: &mut Storages, file: &str) -> Result<Contents> {
    let Some(dict) = object.find(object.root, 0) else {
        return Err(Error::new(
            ErrorKind::Model,
            "TB0368",
            format!("{file} holds {}, not a state dict", object.describe()),
        )
        .with_help("save the weights: torch.save(model.state_dict(), path)"));
    };
    let mut order: Vec<(&str, Value)> = Vec::with_capacity(dict.len());
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (key, value) in dict {
        let Some(name) = object.text(*key) else { continue };
        if name.len() > MAX_NAME {
            return Err(bad_tensor(&name.chars().take(60).collect::<String>(), "its name is too long"));
        }
        // As in Python: the first place, the last value.
        match places.get(name) {
            Some(at) => order[*at].1 = *value,
            None => {
                places.insert(name, order.len());
                order.push((name, *value));
            }
        }
    }
    let mut contents = Contents { tensors: Vec::new(), metadata: Vec::new() };
    for (name, value) in order {
        if let Some(Node::Tensor(tensor)) = object.node(value) {
            contents.tensors.push((name.to_owned(), resolve(object, storages, name, tensor)?));
        } else if let Some(text) = object.metadata(value) {
            contents.metadata.push((name.to_owned(), text));
        }
    }
    Ok(contents)
}

fn resolve(
    object: &Unpickled,
    storages: &mut Storages,
    name: &str,
    tensor: &TensorRef,
) -> Result<StateTensor> {
    let bad = |why: String| bad_tensor(name, &why);
    let storage = tensor.storage;
    let key = object.text(Value::Node(storage.key)).unwrap_or_default();
    let Some(bytes) = storages.get(key)? else {
        return Err(bad(format!("its storage `{key}` is not in the file")));
    };
    let Some(wanted) = storage_size(&storage.dtype, storage.numel).filter(|n| *n <= bytes.len()) else {
        let why =
            format!("its storage `{key}` says {} elements and has {} bytes", storage.numel, bytes.len());
        return Err(bad(why));
    };
    let offset = tensor.offset.saturating_add(storage.view_offset);
    StateTensor::new(tensor.dtype, &tensor.shape, &tensor.strides, offset, bytes.slice(..wanted)).map_err(bad)
}
