//! The types of a file as a tree that knows its levels and columns, and how rows are put together by it.

use std::sync::Arc;

use tiebeam_core::{FieldType, Row, Schema, TypeKind, Value};

use super::columns::Column;

/// A field, with the level at which it is there.
#[derive(Debug, Clone)]
pub struct Node {
    pub nullable: bool,
    pub def: i16,
    pub kind: Kind,
}

/// What a field is when it is there.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A value, of the column of that number.
    Leaf(Leaf, usize),
    Row(Arc<Schema>, Vec<Node>),
    /// Its items, the level at which there is one, and the level at which one more comes.
    List(Box<Node>, i16, i16),
    /// Its keys and values, with levels as a list's.
    Map(Box<[Node; 2]>, i16, i16),
}

/// How a column's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    Bool,
    Byte,
    Int16,
    Int32,
    Int64,
    UInt32,
    UInt64,
    Float,
    Double,
    Text,
    Bytes,
    Fixed,
    Millis,
    Micros,
    Nanos,
    Int96,
}

impl Node {
    /// The type of a row's field that holds it.
    pub fn field(&self) -> FieldType {
        let kind = match &self.kind {
            Kind::Leaf(leaf, _) => leaf.kind(),
            Kind::Row(schema, _) => TypeKind::Row(schema.clone()),
            Kind::List(item, ..) => TypeKind::Array(Box::new(item.field())),
            Kind::Map(both, ..) => TypeKind::Map(Box::new(both[0].field()), Box::new(both[1].field())),
        };
        FieldType { kind, nullable: self.nullable }
    }

    /// The number of its first column.
    fn first(&self) -> usize {
        match &self.kind {
            Kind::Leaf(_, column) => *column,
            Kind::Row(_, fields) => fields.first().map_or(0, Node::first),
            Kind::List(item, ..) => item.first(),
            Kind::Map(both, ..) => both[0].first(),
        }
    }

    /// Calls `work` with the number of each of its columns.
    pub fn each_column(&self, work: &mut dyn FnMut(usize)) {
        match &self.kind {
            Kind::Leaf(_, column) => work(*column),
            Kind::Row(_, fields) => fields.iter().for_each(|field| field.each_column(work)),
            Kind::List(item, ..) => item.each_column(work),
            Kind::Map(both, ..) => both.iter().for_each(|one| one.each_column(work)),
        }
    }

    /// The next value; `columns` has those of the whole file, by number.
    ///
    /// # Errors
    /// When the columns do not go together.
    pub fn next(&self, columns: &mut [Option<Column>]) -> Result<Value, String> {
        let first = self.first();
        let def = column(columns, first)?.level()?.0;
        if self.nullable && def < self.def {
            return self.skip(columns).map(|()| Value::Null);
        }
        match &self.kind {
            Kind::Leaf(leaf, number) => column(columns, *number)?.value(*leaf),
            Kind::Row(schema, fields) => {
                let mut values = Vec::with_capacity(fields.len());
                for field in fields {
                    values.push(field.next(columns)?);
                }
                Ok(Value::Row(Row::new(schema.clone(), values)))
            }
            Kind::List(item, there, again) => {
                let mut items = Vec::new();
                if def < *there {
                    self.skip(columns)?;
                    return Ok(Value::Array(items.into()));
                }
                loop {
                    items.push(item.next(columns)?);
                    if !column(columns, first)?.goes_on(*again) {
                        return Ok(Value::Array(items.into()));
                    }
                }
            }
            Kind::Map(both, there, again) => {
                let mut entries = Vec::new();
                if def < *there {
                    self.skip(columns)?;
                    return Ok(Value::Map(entries.into()));
                }
                loop {
                    let key = both[0].next(columns)?;
                    if key == Value::Null {
                        return Err("a key of a map is null".to_owned());
                    }
                    entries.push((key, both[1].next(columns)?));
                    if !column(columns, first)?.goes_on(*again) {
                        return Ok(Value::Map(entries.into()));
                    }
                }
            }
        }
    }

    /// Goes over one that is not there: each of its columns says so once.
    fn skip(&self, columns: &mut [Option<Column>]) -> Result<(), String> {
        let mut done = Ok(());
        self.each_column(&mut |number| {
            if done.is_ok() {
                done = column(columns, number).and_then(Column::skip);
            }
        });
        done
    }
}

fn column(columns: &mut [Option<Column>], number: usize) -> Result<&mut Column, String> {
    columns.get_mut(number).and_then(Option::as_mut).ok_or_else(|| "a column is not there".to_owned())
}
