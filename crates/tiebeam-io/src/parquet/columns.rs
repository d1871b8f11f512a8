//! A part of a column's values, and the place in it.

use std::sync::Arc;

use ::parquet::column::reader::ColumnReader;
use ::parquet::data_type::{ByteArray, FixedLenByteArray, Int96};
use ::parquet::errors::ParquetError;
use tiebeam_core::{Bytes, Row, Value};

use super::nodes::Leaf;
use crate::avro::types::micros_schema;

/// The values of some rows of a column.
pub struct Column {
    reader: ColumnReader,
    max_def: i16,
    defs: Vec<i16>,
    reps: Vec<i16>,
    values: Values,
    /// How many levels were taken.
    level: usize,
    /// How many levels there are.
    levels: usize,
    /// How many values were taken.
    value: usize,
}

enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Int96(Vec<Int96>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

impl Column {
    /// The column that `reader` reads.
    pub fn new(reader: ColumnReader, max_def: i16) -> Self {
        let values = match &reader {
            ColumnReader::BoolColumnReader(_) => Values::Bool(Vec::new()),
            ColumnReader::Int32ColumnReader(_) => Values::Int32(Vec::new()),
            ColumnReader::Int64ColumnReader(_) => Values::Int64(Vec::new()),
            ColumnReader::Int96ColumnReader(_) => Values::Int96(Vec::new()),
            ColumnReader::FloatColumnReader(_) => Values::Float(Vec::new()),
            ColumnReader::DoubleColumnReader(_) => Values::Double(Vec::new()),
            ColumnReader::ByteArrayColumnReader(_) => Values::Bytes(Vec::new()),
            ColumnReader::FixedLenByteArrayColumnReader(_) => Values::Fixed(Vec::new()),
        };
        let (defs, reps) = (Vec::new(), Vec::new());
        Column { reader, max_def, defs, reps, values, level: 0, levels: 0, value: 0 }
    }

    /// Reads the next rows; how many there were.
    pub fn fill(&mut self, rows: usize) -> Result<usize, ParquetError> {
        self.defs.clear();
        self.reps.clear();
        (self.level, self.value) = (0, 0);
        let (defs, reps) = (&mut self.defs, &mut self.reps);
        macro_rules! read {
            ($reader:expr, $values:expr) => {{
                $values.clear();
                $reader.read_records(rows, Some(defs), Some(reps), $values)?
            }};
        }
        let (records, _, levels) = match (&mut self.reader, &mut self.values) {
            (ColumnReader::BoolColumnReader(reader), Values::Bool(values)) => read!(reader, values),
            (ColumnReader::Int32ColumnReader(reader), Values::Int32(values)) => read!(reader, values),
            (ColumnReader::Int64ColumnReader(reader), Values::Int64(values)) => read!(reader, values),
            (ColumnReader::Int96ColumnReader(reader), Values::Int96(values)) => read!(reader, values),
            (ColumnReader::FloatColumnReader(reader), Values::Float(values)) => read!(reader, values),
            (ColumnReader::DoubleColumnReader(reader), Values::Double(values)) => read!(reader, values),
            (ColumnReader::ByteArrayColumnReader(reader), Values::Bytes(values)) => read!(reader, values),
            (ColumnReader::FixedLenByteArrayColumnReader(reader), Values::Fixed(values)) => {
                read!(reader, values)
            }
            _ => return Err(ParquetError::General("a column changed its type".to_owned())),
        };
        self.levels = levels;
        Ok(records)
    }

    /// Whether all that was read was taken.
    pub fn is_done(&self) -> bool {
        self.level == self.levels
    }

    /// The levels that come next: that at which something is there, and that at which it is one more.
    pub fn level(&self) -> Result<(i16, i16), String> {
        if self.level >= self.levels {
            return Err("a column has fewer values than others".to_owned());
        }
        let def = if self.max_def == 0 { 0 } else { self.defs.get(self.level).copied().unwrap_or(0) };
        Ok((def, self.reps.get(self.level).copied().unwrap_or(0)))
    }

    /// Whether what comes next is one more of the list of that level.
    pub fn goes_on(&self, again: i16) -> bool {
        self.level().is_ok_and(|(_, rep)| rep >= again)
    }

    /// Goes over a level without a value.
    pub fn skip(&mut self) -> Result<(), String> {
        if self.level()?.0 >= self.max_def && self.max_def > 0 {
            return Err("a column has a value where others have none".to_owned());
        }
        self.level += 1;
        Ok(())
    }

    /// The next value.
    pub fn value(&mut self, leaf: Leaf) -> Result<Value, String> {
        if self.level()?.0 < self.max_def {
            return Err("a column has no value where others have one".to_owned());
        }
        let at = self.value;
        self.level += 1;
        self.value += 1;
        let lost = || "a column has fewer values than its levels say".to_owned();
        Ok(match &self.values {
            Values::Bool(all) => Value::Bool(*all.get(at).ok_or_else(lost)?),
            Values::Float(all) => Value::Float(*all.get(at).ok_or_else(lost)?),
            Values::Double(all) => Value::Double(*all.get(at).ok_or_else(lost)?),
            Values::Int32(all) => of_int32(*all.get(at).ok_or_else(lost)?, leaf)?,
            Values::Int64(all) => of_int64(*all.get(at).ok_or_else(lost)?, leaf)?,
            Values::Int96(all) => of_int96(all.get(at).ok_or_else(lost)?)?,
            Values::Bytes(all) => of_bytes(all.get(at).ok_or_else(lost)?.data(), leaf)?,
            Values::Fixed(all) => of_bytes(all.get(at).ok_or_else(lost)?.data(), leaf)?,
        })
    }
}

fn of_int32(value: i32, leaf: Leaf) -> Result<Value, String> {
    let wrong = |name: &str| format!("{value} is no {name}");
    Ok(match leaf {
        Leaf::Byte => Value::Byte(i8::try_from(value).map_err(|_| wrong("integer of 8 bits"))?),
        Leaf::Int16 => Value::Int16(i16::try_from(value).map_err(|_| wrong("integer of 16 bits"))?),
        Leaf::UInt32 => Value::Int64(i64::from(value as u32)),
        _ => Value::Int32(value),
    })
}

fn of_int64(value: i64, leaf: Leaf) -> Result<Value, String> {
    Ok(match leaf {
        Leaf::UInt64 if value < 0 => return Err(format!("{} is more than rows can hold", value as u64)),
        Leaf::Micros => instant(value),
        Leaf::Nanos if value % 1_000 != 0 => {
            return Err(format!("an instant of {value} nanoseconds is finer than the microseconds of rows"));
        }
        Leaf::Nanos => instant(value / 1_000),
        _ => Value::Int64(value),
    })
}

/// Nanoseconds of a day, and the day by the Julian count.
fn of_int96(value: &Int96) -> Result<Value, String> {
    const JULIAN_1970: i64 = 2_440_588;
    let [low, high, day] = value.data() else { return Err("an instant of another length".to_owned()) };
    let nanos = i64::from(*high) << 32 | i64::from(*low);
    let micros = (i64::from(*day) - JULIAN_1970).checked_mul(86_400_000_000);
    // What old writers had of nanoseconds is rounded down: they had no other type.
    let micros = micros.and_then(|micros| micros.checked_add(nanos.div_euclid(1_000)));
    micros.map(instant).ok_or_else(|| "an instant that is too far away".to_owned())
}

fn instant(micros: i64) -> Value {
    let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    Value::Row(Row::new(micros_schema(), [Value::Int64(seconds), Value::Int64(micros)]))
}

fn of_bytes(bytes: &[u8], leaf: Leaf) -> Result<Value, String> {
    Ok(match leaf {
        Leaf::Text => {
            let text = std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8")?;
            Value::String(Arc::from(text))
        }
        _ => Value::Bytes(Bytes::copy_from_slice(bytes)),
    })
}
