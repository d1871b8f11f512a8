//! The safetensors format: a JSON header, then the tensors' bytes without gaps.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use tiebeam_core::error::{Error, ErrorKind, Result};

use super::tensor::{ScalarType, StateTensor, bad_tensor};

/// The longest header, as the format's own reader has it.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default)]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The names, tensors and metadata of such a file.
pub(super) type Contents = (Vec<(String, StateTensor)>, Vec<(String, String)>);

/// The header's bytes, if the file begins like one of this format.
fn header(data: &Bytes) -> Option<(Bytes, Bytes)> {
    let n = u64::from_le_bytes(data.get(..8)?.try_into().ok()?);
    let end = usize::try_from(n).ok()?.checked_add(8).filter(|end| *end <= data.len() && n <= MAX_HEADER)?;
    (data.get(8) == Some(&b'{')).then(|| (data.slice(8..end), data.slice(end..)))
}

/// Whether the file begins like one of this format.
pub(super) fn is(data: &Bytes) -> bool {
    data.get(8) == Some(&b'{') && data.get(5..8) == Some(&[0, 0, 0])
}

/// The tensors in the order of their bytes.
pub(super) fn read(data: &Bytes, file: &str) -> Result<Contents> {
    let damaged = |what: String| {
        Error::new(
            ErrorKind::Model,
            "TB0361",
            format!("{file} is a damaged or cut off safetensors file: {what}"),
        )
        .with_help("copy or download the file again")
    };
    let (head, body) = header(data)
        .ok_or_else(|| damaged(format!("its header does not fit into its {} bytes", data.len())))?;
    let head: Header = serde_json::from_slice(&head)
        .map_err(|error| damaged("its header is not what it should be".to_owned()).with_source(error))?;
    let mut entries: Vec<_> = head.tensors.into_iter().collect();
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut at = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let (from, to) = entry.data_offsets;
        // As the format demands: no gaps, no overlaps, so every byte is read once.
        if from != at || to < from || to > body.len() as u64 {
            return Err(damaged(format!(
                "the bytes {from} to {to} of tensor `{name}` do not follow those before it in {} bytes",
                body.len()
            )));
        }
        at = to;
        let dtype = scalar_type(&entry.dtype)
            .ok_or_else(|| bad_tensor(&name, &format!("its type {} is not supported", entry.dtype)))?;
        let wanted = entry.shape.iter().try_fold(dtype.size() as u64, |n, dim| n.checked_mul(*dim));
        if wanted != Some(to - from) {
            let why =
                format!("its shape {:?} of {} does not take {} bytes", entry.shape, entry.dtype, to - from);
            return Err(bad_tensor(&name, &why));
        }
        let tensor = StateTensor::contiguous(dtype, &entry.shape, body.slice(from as usize..to as usize))
            .map_err(|why| bad_tensor(&name, &why))?;
        tensors.push((name, tensor));
    }
    if at != body.len() as u64 {
        return Err(damaged(format!("{} bytes belong to no tensor", body.len() as u64 - at)));
    }
    Ok((tensors, head.metadata.into_iter().collect()))
}

fn scalar_type(name: &str) -> Option<ScalarType> {
    Some(match name {
        "F32" => ScalarType::F32,
        "F64" => ScalarType::F64,
        "F16" => ScalarType::F16,
        "BF16" => ScalarType::BF16,
        "I64" => ScalarType::I64,
        "I32" => ScalarType::I32,
        "I16" => ScalarType::I16,
        "I8" => ScalarType::I8,
        "U8" => ScalarType::U8,
        "BOOL" => ScalarType::Bool,
        _ => return None,
    })
}
