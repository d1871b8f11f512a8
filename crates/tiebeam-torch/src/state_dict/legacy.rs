//! The format before torch 1.6: five pickles one after the other, then the storages' bytes.

use std::collections::HashMap;

use bytes::Bytes;
use tiebeam_core::error::{Error, ErrorKind, Result, SourcePlace};

use super::pickle::{Node, Unpickled, Value, unpickle};
use super::resolve::{Storages, storage_size};

/// The first pickle of such a file: the number 0x1950a86a20f9469cfc6c in protocol 2.
pub(super) const MAGIC: &[u8] =
    &[0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// The pickled object, and the bytes of each storage by its key.
pub(super) fn read(data: &Bytes, file: &str) -> Result<(Unpickled, Storages)> {
    let damaged = |message: String, at: usize| {
        let place = SourcePlace { file: file.to_owned(), line: None, offset: Some(at as u64) };
        Error::new(ErrorKind::Model, "TB0361", message).at_place(place)
    };
    let next = |at: usize| unpickle(data, at, file, Some(0));
    let protocol = next(MAGIC.len())?;
    if protocol.root != Value::Int(1001) {
        return Err(damaged(
            "torch.save's protocol is not 1001, the only one there ever was".to_owned(),
            MAGIC.len(),
        ));
    }
    let system = next(protocol.end)?;
    let entries = system
        .dict(system.root)
        .ok_or_else(|| damaged("the file does not say which system wrote it".to_owned(), protocol.end))?;
    let little = entries.iter().find(|(key, _)| system.text(*key) == Some("little_endian"));
    if !matches!(little, Some((_, Value::Bool(true)))) {
        return Err(super::big_endian(file));
    }
    let object = next(system.end)?;
    let keys = next(object.end)?;
    let Some(Node::List(list)) = keys.node(keys.root) else {
        return Err(damaged("the file has no list of its storages".to_owned(), object.end));
    };
    // What the tensors say of the storages: element size and length, by key.
    let declared = object.storages();
    let mut at = keys.end;
    let mut storages = HashMap::new();
    for key in list {
        let key =
            keys.text(*key).ok_or_else(|| damaged("a storage's key is not text".to_owned(), object.end))?;
        let Some(size) = declared.get(key) else {
            return Err(damaged(format!("storage `{key}` belongs to no tensor"), at));
        };
        let cut = || damaged(format!("the file is cut off in storage `{key}`"), at);
        let head = data.get(at..at + 8).ok_or_else(cut)?;
        let numel = head.try_into().map(u64::from_le_bytes).map_err(|_| cut())?;
        let bytes = storage_size(size, numel).filter(|n| *n <= data.len() - at - 8).ok_or_else(cut)?;
        if storages.insert(key.to_owned(), data.slice(at + 8..at + 8 + bytes)).is_some() {
            return Err(damaged(format!("storage `{key}` is there twice"), at));
        }
        at += 8 + bytes;
    }
    Ok((object, Storages::All(storages)))
}
