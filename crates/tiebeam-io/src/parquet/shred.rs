//! Rows taken apart into the values and levels of their columns.

use ::parquet::column::writer::ColumnWriter;
use ::parquet::data_type::{ByteArray, FixedLenByteArray};
use ::parquet::errors::ParquetError;
use tiebeam_core::{Row, Value};

use super::nodes::{Kind, Leaf, Node};
use crate::avro::types::micros;

/// The values of a column that are not written yet.
#[derive(Debug, Default)]
pub struct Shreds {
    defs: Vec<i16>,
    reps: Vec<i16>,
    bools: Vec<bool>,
    ints: Vec<i32>,
    longs: Vec<i64>,
    floats: Vec<f32>,
    doubles: Vec<f64>,
    bytes: Vec<ByteArray>,
}

/// How much of each column there is, to go back to.
pub type Mark = Vec<[usize; 7]>;

/// What there is now.
pub fn mark(columns: &[Shreds]) -> Mark {
    columns
        .iter()
        .map(|one| {
            [
                one.defs.len(),
                one.bools.len(),
                one.ints.len(),
                one.longs.len(),
                one.floats.len(),
                one.doubles.len(),
                one.bytes.len(),
            ]
        })
        .collect()
}

/// Takes back what came after.
pub fn go_back(columns: &mut [Shreds], mark: &Mark) {
    for (one, [levels, bools, ints, longs, floats, doubles, bytes]) in columns.iter_mut().zip(mark) {
        one.defs.truncate(*levels);
        one.reps.truncate(*levels);
        one.bools.truncate(*bools);
        one.ints.truncate(*ints);
        one.longs.truncate(*longs);
        one.floats.truncate(*floats);
        one.doubles.truncate(*doubles);
        one.bytes.truncate(*bytes);
    }
}

/// Adds a row to its columns; how many bytes it has, about.
///
/// # Errors
/// When a value is not of its field's type.
pub fn add(nodes: &[Node], row: &Row, columns: &mut [Shreds]) -> Result<usize, String> {
    if row.values.len() != nodes.len() {
        return Err(format!("a row has {} values for {} fields", row.values.len(), nodes.len()));
    }
    let mut size = 0;
    for ((node, value), field) in nodes.iter().zip(row.values.iter()).zip(&row.schema.fields) {
        size += value_of(node, value, 0, columns).map_err(|why| format!("field `{}`: {why}", field.name))?;
    }
    Ok(size)
}

fn value_of(node: &Node, value: &Value, rep: i16, columns: &mut [Shreds]) -> Result<usize, String> {
    match (&node.kind, value) {
        (_, Value::Null) if node.nullable => Ok(absent(node, node.def - 1, rep, columns)),
        (Kind::Leaf(leaf, column), value) => match columns.get_mut(*column) {
            Some(column) => column.push(*leaf, value, node.def, rep),
            None => Err("it has no column".to_owned()),
        },
        (Kind::Row(_, fields), Value::Row(row)) if row.values.len() == fields.len() => {
            let mut size = 0;
            for (field, value) in fields.iter().zip(row.values.iter()) {
                size += value_of(field, value, rep, columns)?;
            }
            Ok(size)
        }
        (Kind::List(..), Value::Array(items)) if items.is_empty() => Ok(absent(node, node.def, rep, columns)),
        (Kind::List(item, _, again), Value::Array(items)) => {
            let mut size = 0;
            for (i, one) in items.iter().enumerate() {
                size += value_of(item, one, if i == 0 { rep } else { *again }, columns)?;
            }
            Ok(size)
        }
        (Kind::Map(..), Value::Map(entries)) if entries.is_empty() => {
            Ok(absent(node, node.def, rep, columns))
        }
        (Kind::Map(both, _, again), Value::Map(entries)) => {
            let mut size = 0;
            for (i, (key, value)) in entries.iter().enumerate() {
                let rep = if i == 0 { rep } else { *again };
                size += value_of(&both[0], key, rep, columns)?;
                size += value_of(&both[1], value, rep, columns)?;
            }
            Ok(size)
        }
        (_, value) => Err(format!("{value:?} where the schema says {}", node.field())),
    }
}

/// Says in each column of a node that it is not there.
fn absent(node: &Node, def: i16, rep: i16, columns: &mut [Shreds]) -> usize {
    let mut size = 0;
    node.each_column(&mut |number| {
        if let Some(column) = columns.get_mut(number) {
            column.defs.push(def);
            column.reps.push(rep);
            size += 4;
        }
    });
    size
}

impl Shreds {
    fn push(&mut self, leaf: Leaf, value: &Value, def: i16, rep: i16) -> Result<usize, String> {
        let wrong = || format!("{value:?} where the schema says {}", leaf.kind());
        let size = match (leaf, value) {
            (Leaf::Bool, Value::Bool(value)) => {
                self.bools.push(*value);
                1
            }
            (Leaf::Byte, Value::Byte(value)) => self.int(i32::from(*value)),
            (Leaf::Int16, Value::Int16(value)) => self.int(i32::from(*value)),
            (Leaf::Int32, Value::Int32(value)) => self.int(*value),
            (Leaf::Int64 | Leaf::Millis, Value::Int64(value)) => self.long(*value),
            (Leaf::Micros, Value::Row(row)) => self.long(micros(row).ok_or_else(wrong)?),
            (Leaf::Float, Value::Float(value)) => {
                self.floats.push(*value);
                4
            }
            (Leaf::Double, Value::Double(value)) => {
                self.doubles.push(*value);
                8
            }
            (Leaf::Text, Value::String(text)) => {
                self.bytes.push(ByteArray::from(text.as_bytes().to_vec()));
                text.len() + 24
            }
            (Leaf::Bytes, Value::Bytes(bytes)) => {
                self.bytes.push(ByteArray::from(bytes.clone()));
                bytes.len() + 24
            }
            _ => return Err(wrong()),
        };
        self.defs.push(def);
        self.reps.push(rep);
        Ok(size + 4)
    }

    fn int(&mut self, value: i32) -> usize {
        self.ints.push(value);
        4
    }

    fn long(&mut self, value: i64) -> usize {
        self.longs.push(value);
        8
    }

    /// Writes all of it.
    pub fn write(&mut self, writer: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        let (defs, reps) = (Some(self.defs.as_slice()), Some(self.reps.as_slice()));
        match writer {
            ColumnWriter::BoolColumnWriter(writer) => writer.write_batch(&self.bools, defs, reps),
            ColumnWriter::Int32ColumnWriter(writer) => writer.write_batch(&self.ints, defs, reps),
            ColumnWriter::Int64ColumnWriter(writer) => writer.write_batch(&self.longs, defs, reps),
            ColumnWriter::FloatColumnWriter(writer) => writer.write_batch(&self.floats, defs, reps),
            ColumnWriter::DoubleColumnWriter(writer) => writer.write_batch(&self.doubles, defs, reps),
            ColumnWriter::ByteArrayColumnWriter(writer) => writer.write_batch(&self.bytes, defs, reps),
            ColumnWriter::FixedLenByteArrayColumnWriter(writer) => {
                writer.write_batch(&Vec::<FixedLenByteArray>::new(), defs, reps)
            }
            ColumnWriter::Int96ColumnWriter(writer) => writer.write_batch(&Vec::new(), defs, reps),
        }?;
        *self = Shreds::default();
        Ok(())
    }
}
