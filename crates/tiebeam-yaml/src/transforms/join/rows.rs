//! What a join does with rows. A joined row has a field for each input, which holds that input's row or null.

use std::sync::Arc;

use tiebeam_core::row::{Row, Schema, Value};
use tiebeam_core::{DoFn, ElementContext, Iterable, Output, Result};

use super::specs::How;
use crate::transforms::combine::Keys;

/// A row of one input as a joined row.
#[derive(Clone)]
pub struct Wrap {
    pub table: usize,
    pub schema: Arc<Schema>,
}

impl DoFn for Wrap {
    type In = Row;
    type Out = Row;

    fn process(&mut self, row: Row, _: &ElementContext<'_>, out: &mut Output<Row>) -> Result<()> {
        let mut values = vec![Value::Null; self.schema.fields.len()];
        values[self.table] = Value::Row(row);
        out.emit(Row::new(self.schema.clone(), values));
        Ok(())
    }
}

/// A joined row with the fields that must be equal in front.
#[derive(Clone)]
pub struct KeyOf {
    pub places: Arc<[(usize, usize)]>,
    pub keys: Keys,
}

impl DoFn for KeyOf {
    type In = Row;
    type Out = (Row, Row);

    fn process(&mut self, row: Row, _: &ElementContext<'_>, out: &mut Output<(Row, Row)>) -> Result<()> {
        let values: Vec<Value> = self.places.iter().map(|place| field(&row, *place)).collect();
        let key = self.keys.of(&Row::new(self.keys.schema().clone(), values));
        out.emit((key, row));
        Ok(())
    }
}

fn field(row: &Row, (table, index): (usize, usize)) -> Value {
    match row.values.get(table) {
        Some(Value::Row(row)) => row.values.get(index).cloned().unwrap_or(Value::Null),
        _ => Value::Null,
    }
}

/// The rows of one key: those joined before, and those of the input.
#[derive(Clone)]
pub struct Matched {
    pub how: How,
    pub table: usize,
    pub schema: Arc<Schema>,
}

impl DoFn for Matched {
    type In = (Row, (Iterable<Row>, Iterable<Row>));
    type Out = Row;

    fn process(
        &mut self,
        (key, (left, right)): Self::In,
        _: &ElementContext<'_>,
        out: &mut Output<Row>,
    ) -> Result<()> {
        // Null is equal to nothing, not even to null.
        let unequal = key.values.contains(&Value::Null);
        let (no_left, no_right) =
            (unequal || left.iter().next().is_none(), unequal || right.iter().next().is_none());
        if no_right && matches!(self.how, How::Left | How::Full) {
            left.iter().for_each(|row| out.emit(row));
        }
        if no_left && matches!(self.how, How::Right | How::Full) {
            right.iter().for_each(|row| out.emit(row));
        }
        if no_left || no_right {
            return Ok(());
        }
        for before in left.iter() {
            for row in right.iter() {
                let mut values = before.values.to_vec();
                values[self.table] = row.values.get(self.table).cloned().unwrap_or(Value::Null);
                out.emit(Row::new(self.schema.clone(), values));
            }
        }
        Ok(())
    }
}

/// The columns of the result.
#[derive(Clone)]
pub struct Project {
    pub places: Arc<[(usize, usize)]>,
    pub schema: Arc<Schema>,
}

impl DoFn for Project {
    type In = Row;
    type Out = Row;

    fn process(&mut self, row: Row, _: &ElementContext<'_>, out: &mut Output<Row>) -> Result<()> {
        let values: Vec<Value> = self.places.iter().map(|place| field(&row, *place)).collect();
        out.emit(Row::new(self.schema.clone(), values));
        Ok(())
    }
}
