//! Models behind HTTP whose answers the file describes, since rows have types before any server is asked: from the file's
//! words to ports, from tensors to the types that a server wants, from JSON to tensors.

use std::sync::Arc;

use serde_json::Value as Json;
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_inference::signature::Axes;
use tiebeam_inference::{DType, Dim, Port, Tensor};

use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::plan::Maker;

/// What `outputs: {name: float32[10]}` says: the outputs of one row. None where nothing is said, or what is said is wrong,
/// which is noted.
pub fn outputs(maker: &mut Maker<'_>, config: &Node) -> Option<Vec<Port>> {
    let entries = config.get("outputs").filter(|node| node.content != Content::Null)?.as_map()?;
    let mut ports = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some(port) = entry.value.as_str().and_then(|text| port(&entry.key, text)) else {
            let message = format!("`{}` is not told as a type such as float32[10]", entry.key);
            let problem = Diagnostic::new("TB0208", entry.value.span, message);
            maker.problem(problem.note(
                "types: float32, float64, int64, int32, uint8, int8, bool, string; with axes behind them: [3, ?]",
            ));
            return None;
        };
        ports.push(port);
    }
    (!ports.is_empty()).then_some(ports)
}

/// A port of that name from `float32`, `int64[3, ?]`.
fn port(name: &str, text: &str) -> Option<Port> {
    let (dtype, axes) = match text.trim().split_once('[') {
        Some((dtype, rest)) => (dtype.trim(), Some(rest.strip_suffix(']')?)),
        None => (text.trim(), None),
    };
    let dim = |axis: &str| match axis.trim() {
        "?" => Some(Dim::Free),
        size => size.parse().ok().map(Dim::Fixed),
    };
    let shape = match axes.map(str::trim) {
        None | Some("") => Vec::new(),
        Some(axes) => axes.split(',').map(dim).collect::<Option<_>>()?,
    };
    let dtype = match dtype {
        "string" => DType::Str,
        name => DType::from_name(name)?,
    };
    Some(Port {
        name: name.into(),
        type_name: dtype.name().to_owned(),
        dtype: Some(dtype),
        shape: Some(shape),
    })
}

/// What keeps a server's outputs, which have a first axis for rows, from being those that the file tells.
pub fn differ(told: &[Port], server: &[Port]) -> Option<String> {
    told.iter().find_map(|told| {
        let Some(own) = server.iter().find(|port| port.name == told.name) else {
            return Some(format!("it has no output `{}`", told.name));
        };
        let row = own.shape.as_deref().map(|dims| dims.get(1..).unwrap_or_default());
        let same = |told: &[Dim], own: &[Dim]| {
            let fits = |(told, own): (&Dim, &Dim)| match (told, own) {
                (Dim::Fixed(told), Dim::Fixed(own)) => told == own,
                (Dim::Fixed(_), _) => false,
                _ => true,
            };
            told.len() == own.len() && told.iter().zip(own).all(fits)
        };
        let is_same = own.dtype == told.dtype
            && match (&told.shape, row) {
                (Some(told), Some(own)) => same(told, own),
                _ => true,
            };
        let shown = || format!("{}{}", own.type_name, Axes(row));
        (!is_same).then(|| format!("`{}` is {} a row, and the file says {told}", own.name, shown()))
    })
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0227", message).with_retryable(false)
}

/// The tensor in the type and the axes that a server wants of a row; a number is a row of size 1 on every axis.
///
/// # Errors
/// When a number does not fit, or there are other axes.
pub fn wanted(tensor: &Tensor, port: &Port) -> Result<Tensor> {
    let row = port.shape.as_deref().and_then(|dims| dims.get(1..)).unwrap_or_default();
    let tensor = match port.dtype.filter(|dtype| *dtype != tensor.dtype()) {
        Some(dtype) => {
            let json = numbers(tensor).ok_or_else(|| {
                invalid(format!("input `{}` wants {dtype}, got {}", port.name, tensor.dtype()))
            })?;
            of_flat(dtype, &tensor.shape(), &json)
                .map_err(|error| invalid(format!("input `{}`: {}", port.name, error.message())))?
        }
        None => tensor.clone(),
    };
    match tensor.rank() == 0 && row.iter().all(|dim| dim.admits(1)) {
        true => tensor.reshape(&vec![1; row.len()]),
        false => Ok(tensor),
    }
}

/// A tensor's numbers as JSON has them.
fn numbers(tensor: &Tensor) -> Option<Vec<Json>> {
    fn all<T: tiebeam_inference::tensor::TensorElement + Copy + Into<Json>>(
        tensor: &Tensor,
    ) -> Option<Vec<Json>> {
        Some(tensor.as_slice::<T>()?.iter().map(|number| (*number).into()).collect())
    }
    all::<f64>(tensor)
        .or_else(|| all::<f32>(tensor))
        .or_else(|| all::<i64>(tensor))
        .or_else(|| all::<i32>(tensor))
        .or_else(|| all::<u8>(tensor))
        .or_else(|| all::<i8>(tensor))
}

/// The tensor of nested lists of JSON, in the type that the file tells.
///
/// # Errors
/// When lists are ragged, or something in them is of another type.
pub fn of_json(json: &Json, port: &Port) -> Result<Tensor> {
    let Some(dtype) = port.dtype else { return Err(Error::internal("an output without a type")) };
    let told = |what: String| invalid(format!("the answer's `{}`, told as {port}: {what}", port.name));
    let (mut shape, mut flat) = (Vec::new(), Vec::new());
    flatten(json, 0, &mut shape, &mut flat).map_err(&told)?;
    let tensor = of_flat(dtype, &shape, &flat).map_err(|error| told(error.message().to_owned()))?;
    let fits = port.shape.as_ref().is_none_or(|dims| {
        dims.len() == shape.len() && dims.iter().zip(&shape).all(|(dim, size)| dim.admits(*size))
    });
    if fits { Ok(tensor) } else { Err(told(format!("it has the shape {shape:?}"))) }
}

fn flatten(json: &Json, depth: usize, shape: &mut Vec<usize>, flat: &mut Vec<Json>) -> Result<(), String> {
    let Json::Array(items) = json else {
        flat.push(json.clone());
        return if depth == shape.len() { Ok(()) } else { Err("its lists are ragged".to_owned()) };
    };
    match shape.get(depth) {
        // The first one of each depth says how long lists of that depth are.
        None if flat.is_empty() && depth < 32 => shape.push(items.len()),
        Some(size) if *size == items.len() => {}
        _ => return Err("its lists are ragged".to_owned()),
    }
    items.iter().try_for_each(|item| flatten(item, depth + 1, shape, flat))
}

fn of_flat(dtype: DType, shape: &[usize], flat: &[Json]) -> Result<Tensor> {
    fn all<T>(flat: &[Json], read: impl Fn(&Json) -> Option<T>, dtype: DType) -> Result<Vec<T>> {
        let one = |json| read(json).ok_or_else(|| invalid(format!("{json} is no {dtype}")));
        flat.iter().map(one).collect()
    }
    fn int<T: TryFrom<i64>>(json: &Json) -> Option<T> {
        T::try_from(json.as_i64()?).ok()
    }
    match dtype {
        DType::F64 => Tensor::new(shape, all(flat, Json::as_f64, dtype)?),
        DType::F32 => {
            let narrow = |json: &Json| json.as_f64().map(|v| v as f32).filter(|v| v.is_finite());
            Tensor::new(shape, all(flat, narrow, dtype)?)
        }
        DType::I64 => Tensor::new(shape, all(flat, int::<i64>, dtype)?),
        DType::I32 => Tensor::new(shape, all(flat, int::<i32>, dtype)?),
        DType::U8 => Tensor::new(shape, all(flat, int::<u8>, dtype)?),
        DType::I8 => Tensor::new(shape, all(flat, int::<i8>, dtype)?),
        DType::Bool => Tensor::new(shape, all(flat, Json::as_bool, dtype)?),
        DType::Str => Tensor::new(shape, all(flat, |json| json.as_str().map(Arc::<str>::from), dtype)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_files_write_them() {
        let shown = |text: &str| port("y", text).map(|port| port.to_string());
        assert_eq!(shown("float32"), Some("y float32[]".to_owned()));
        assert_eq!(shown("int64[3, ?]"), Some("y int64[3, ?]".to_owned()));
        assert_eq!(port("y", "string").unwrap().dtype, Some(DType::Str));
        for wrong in ["", "float", "float32[", "float32[a]", "float32[-1]", "float32[1]]", "[3]"] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn json_becomes_the_type_that_was_told_or_nothing() {
        let read = |json: &str, text: &str| {
            let read = of_json(&serde_json::from_str(json).unwrap(), &port("y", text).unwrap());
            read.map_err(|error| error.message().to_owned())
        };
        assert_eq!(read("[1, 2.5]", "float32[2]").unwrap(), Tensor::vector(vec![1f32, 2.5]));
        assert_eq!(read("[[1], [2]]", "int32[?, 1]").unwrap(), Tensor::new(&[2, 1], vec![1i32, 2]).unwrap());
        assert_eq!(read("\"a\"", "string").unwrap(), Tensor::scalar(Arc::<str>::from("a")));
        for (json, text, wanted) in [
            ("[1, 2]", "float32[3]", "it has the shape [2]"),
            ("[[1], [2, 3]]", "float32[2, ?]", "its lists are ragged"),
            ("[[1], 2]", "float32[2, ?]", "its lists are ragged"),
            ("[1, [2]]", "float32[2]", "its lists are ragged"),
            ("[1.5]", "int64[1]", "1.5 is no int64"),
            ("[300]", "uint8[1]", "300 is no uint8"),
            ("1e300", "float32", "is no float32"),
            ("null", "float64", "null is no float64"),
        ] {
            let said = read(json, text).unwrap_err();
            assert!(said.contains(wanted), "{json}: {said}");
        }
    }

    #[test]
    fn rows_become_what_a_server_wants() {
        let port = Port { shape: Some(vec![Dim::Free, Dim::Fixed(1)]), ..port("x", "float32").unwrap() };
        let made = wanted(&Tensor::scalar(2.5f64), &port).unwrap();
        assert_eq!(made, Tensor::new(&[1], vec![2.5f32]).unwrap());
        assert_eq!(wanted(&Tensor::vector(vec![3i64]), &port).unwrap(), Tensor::vector(vec![3f32]));
        assert!(wanted(&Tensor::scalar(Arc::<str>::from("a")), &port).is_err());
    }
}
