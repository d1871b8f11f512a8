//! What a `.tflite` file says, as far as its graph needs it.

use crate::flat::{Read, Table};

/// How many axes a tensor may have.
const MOST_AXES: usize = 8;

/// The types of tensors that graphs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    F32,
    F16,
    I32,
    U8,
    I64,
    Bool,
    I8,
    F64,
    I16,
    /// Another one, by its number.
    Other(u8),
}

impl Type {
    pub(crate) fn of(number: u8) -> Type {
        match number {
            0 => Type::F32,
            1 => Type::F16,
            2 => Type::I32,
            3 => Type::U8,
            4 => Type::I64,
            6 => Type::Bool,
            7 => Type::I16,
            9 => Type::I8,
            10 => Type::F64,
            other => Type::Other(other),
        }
    }

    /// How many bytes a number takes.
    pub(crate) fn size(self) -> Option<usize> {
        Some(match self {
            Type::U8 | Type::Bool | Type::I8 => 1,
            Type::F16 | Type::I16 => 2,
            Type::F32 | Type::I32 => 4,
            Type::I64 | Type::F64 => 8,
            Type::Other(_) => return None,
        })
    }
}

/// How whole numbers stand for others: `(q - zero) · scale`, by slice along an axis or for all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quantization {
    pub(crate) scales: Vec<f32>,
    pub(crate) zeros: Vec<i64>,
    pub(crate) axis: usize,
}

/// A tensor as it is declared.
pub(crate) struct Tensor<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: Type,
    /// The sizes of its axes; none where one may be of any size.
    pub(crate) shape: Vec<Option<usize>>,
    /// Its numbers, if it is a constant.
    pub(crate) data: Option<&'a [u8]>,
    pub(crate) quantization: Quantization,
}

impl Tensor<'_> {
    /// Whether its numbers stand for others.
    pub(crate) fn is_quantized(&self) -> bool {
        matches!(self.kind, Type::I8 | Type::U8 | Type::I16 | Type::I32)
            && !self.quantization.scales.is_empty()
    }
}

/// An operation.
pub(crate) struct Operation<'a> {
    pub(crate) code: i32,
    /// The name of one that is not TensorFlow Lite's own.
    pub(crate) custom: &'a str,
    /// Numbers of tensors; -1 is one that is left out.
    pub(crate) inputs: Vec<i32>,
    pub(crate) outputs: Vec<i32>,
    pub(crate) options: Option<Table<'a>>,
}

/// A graph with its tensors.
pub(crate) struct Model<'a> {
    pub(crate) tensors: Vec<Tensor<'a>>,
    pub(crate) operations: Vec<Operation<'a>>,
    /// Tensors with the names that they have outside.
    pub(crate) inputs: Vec<(usize, String)>,
    pub(crate) outputs: Vec<(usize, String)>,
}

/// Reads a file.
pub(crate) fn read(bytes: &[u8]) -> Read<Model<'_>> {
    let root = Table::root(bytes)?;
    let codes = root.tables(1)?.map(code).collect::<Read<Vec<_>>>()?;
    let buffers = root.tables(4)?.collect::<Read<Vec<_>>>()?;
    let graphs = root.tables(2)?.collect::<Read<Vec<_>>>()?;
    let Some(graph) = graphs.first() else { return Err("it has no graph".to_owned()) };
    if graphs.len() > 1 {
        return Err("it has several graphs: loops and branches can't be run here".to_owned());
    }
    let tensors = graph.tables(0)?.map(|one| tensor(bytes, one?, &buffers)).collect::<Read<Vec<_>>>()?;
    // Lists may lie over each other in a damaged file: all together they are held to what a whole one can have.
    let mut left = bytes.len() / 4;
    let operations =
        graph.tables(3)?.map(|one| operation(one?, &codes, &mut left)).collect::<Read<Vec<_>>>()?;
    let named = |slot: usize| -> Read<Vec<(usize, String)>> {
        let numbers = graph.i32s(slot, 1024)?;
        let one = |number: &i32| {
            let number = usize::try_from(*number).ok().filter(|number| *number < tensors.len());
            let number = number.ok_or("an input or output is no tensor of the graph")?;
            Ok((number, tensors[number].name.chars().take(200).collect()))
        };
        numbers.iter().map(one).collect()
    };
    let (mut inputs, mut outputs) = (named(1)?, named(2)?);
    if let Some(signature) = root.tables(7)?.next() {
        let signature = signature?;
        rename(&mut inputs, signature, 0)?;
        rename(&mut outputs, signature, 1)?;
    }
    Ok(Model { tensors, operations, inputs, outputs })
}

/// Takes the names of a signature, where it names all.
fn rename(ports: &mut [(usize, String)], signature: Table<'_>, slot: usize) -> Read<()> {
    let mut names = Vec::new();
    for map in signature.tables(slot)?.take(1024) {
        let map = map?;
        names.push((map.i32(1)? as usize, map.text(0)?));
    }
    let of = |number: usize| names.iter().find(|(tensor, _)| *tensor == number).map(|(_, name)| *name);
    let all = ports.iter().all(|(number, _)| of(*number).is_some_and(|name| !name.is_empty()));
    if all {
        for (number, name) in ports {
            *name = of(*number).unwrap_or_default().chars().take(200).collect();
        }
    }
    Ok(())
}

fn code(table: Read<Table<'_>>) -> Read<(i32, &str)> {
    let table = table?;
    // Numbers above 126 stand in a field of their own.
    Ok((i32::from(table.u8(0)? as i8).max(table.i32(3)?), table.text(1)?))
}

fn tensor<'a>(file: &'a [u8], table: Table<'a>, buffers: &[Table<'a>]) -> Read<Tensor<'a>> {
    let (fixed, signature) = (table.i32s(0, MOST_AXES)?, table.i32s(7, MOST_AXES)?);
    let dims = if signature.len() == fixed.len() { signature } else { fixed };
    let shape: Vec<Option<usize>> = dims.into_iter().map(|dim| usize::try_from(dim).ok()).collect();
    let kind = Type::of(table.u8(1)?);
    let buffer = match table.i32(2)? as usize {
        0 => None,
        number => Some(buffers.get(number).ok_or("a tensor's buffer is missing")?),
    };
    let data = match buffer {
        None => None,
        Some(buffer) => {
            let inside = buffer.bytes(0)?;
            let (offset, size) = (buffer.u64(1)?, buffer.u64(2)?);
            // Large models have their weights behind the FlatBuffer.
            let outside = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
            let data = match outside {
                Some((offset, size)) if offset > 1 => {
                    let end = offset.checked_add(size);
                    end.and_then(|end| file.get(offset..end))
                        .ok_or("a tensor's numbers are behind the end")?
                }
                _ => inside,
            };
            Some(data).filter(|data| !data.is_empty())
        }
    };
    if let (Some(data), Some(size)) = (data, kind.size()) {
        let wanted = shape.iter().try_fold(size, |n, dim| n.checked_mul((*dim)?));
        if wanted != Some(data.len()) {
            return Err(format!("a constant of the shape {shape:?} has {} bytes", data.len()));
        }
    }
    let quantization = match table.table(4)? {
        Some(table) => {
            // As many scales as there are slices along an axis, which the numbers hold down.
            let most = data.map_or(1, <[u8]>::len).max(1);
            Quantization {
                scales: table.f32s(2, most)?,
                zeros: table.i64s(3, most)?,
                axis: table.i32(6)? as usize,
            }
        }
        None => Quantization::default(),
    };
    Ok(Tensor { name: table.text(3)?, kind, shape, data, quantization })
}

fn operation<'a>(table: Table<'a>, codes: &[(i32, &'a str)], left: &mut usize) -> Read<Operation<'a>> {
    let (code, custom) = *codes.get(table.i32(0)? as usize).ok_or("an operation's code is missing")?;
    let (inputs, outputs) = (table.i32s(1, *left)?, table.i32s(2, *left)?);
    *left = left.saturating_sub(inputs.len() + outputs.len());
    Ok(Operation { code, custom, inputs, outputs, options: table.table(4)? })
}
