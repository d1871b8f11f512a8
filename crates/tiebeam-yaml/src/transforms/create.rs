//! Create: rows that stand in the file.

use std::sync::Arc;

use tiebeam_core::coder::row_coder;
use tiebeam_core::row::{FieldType, Row, Schema};
use tiebeam_graph::Create;

use crate::build::expand;
use crate::catalog::{Inputs, Key, TransformType, Wants};
use crate::diagnostic::Diagnostic;
use crate::document::Node;
use crate::plan::{Made, Maker};
use crate::schema::{common_type, join_schemas, value_of};

pub const TYPES: &[TransformType] = &[TransformType {
    name: "Create",
    about: "rows that stand in the file",
    inputs: Inputs::None,
    keeps_rows: false,
    keys: &[
        Key::required(
            "elements",
            Wants::List,
            "mappings are rows; other values become rows with the field `element`",
        ),
        Key::optional("reshuffle", Wants::Bool, "spread the rows over all threads"),
    ],
    make: create,
}];

fn create(maker: &mut Maker<'_>) -> Option<Made> {
    let elements = maker.get("elements")?.as_list()?.to_vec();
    match rows(&elements) {
        Ok((schema, rows)) => {
            let reshuffle = maker.flag("reshuffle");
            Some(Made::one(schema.clone(), move |pipeline, _| {
                let made = expand(Create::of(rows).with_coder(row_coder(schema)), pipeline.begin());
                if reshuffle { made.reshuffle() } else { made }
            }))
        }
        Err(problem) => {
            maker.problem(problem);
            None
        }
    }
}

/// The rows of a list of elements, and their schema.
///
/// # Errors
/// At the first element that does not go with those before it.
pub fn rows(elements: &[Node]) -> Result<(Arc<Schema>, Vec<Row>), Diagnostic> {
    let all_rows = elements.iter().all(|element| element.as_map().is_some());
    if elements.is_empty() || elements.iter().all(|element| element.as_map().is_none()) {
        let schema = Arc::new(Schema::of([("element", common_type(elements)?)]));
        let rows: Result<Vec<Row>, Diagnostic> = elements
            .iter()
            .map(|element| {
                Ok(Row::new(schema.clone(), vec![value_of(element, &schema.fields[0].field_type)?]))
            })
            .collect();
        return rows.map(|rows| (schema, rows));
    }
    let schema = Arc::new(if all_rows { schema_of(elements)? } else { mixed_schema(elements)? });
    let mut rows = Vec::with_capacity(elements.len());
    for element in elements {
        let mut values = Vec::with_capacity(schema.fields.len());
        for field in &schema.fields {
            let value = match element.as_map() {
                Some(_) => element.get(&field.name),
                None => Some(element).filter(|_| &*field.name == "element"),
            };
            values.push(match value {
                Some(node) => value_of(node, &field.field_type)?,
                None => tiebeam_core::row::Value::Null,
            });
        }
        rows.push(Row::new(schema.clone(), values));
    }
    Ok((schema, rows))
}

/// The schema that several mappings have in common.
fn schema_of(elements: &[Node]) -> Result<Schema, Diagnostic> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for entry in elements.iter().filter_map(Node::as_map).flatten() {
        if !names.contains(&entry.key) {
            names.push(entry.key.clone());
        }
    }
    let mut fields = Vec::with_capacity(names.len());
    for name in names {
        let column: Vec<Node> = elements.iter().filter_map(|element| element.get(&name)).cloned().collect();
        let common = common_type(&column)?;
        let nullable = common.nullable || column.len() < elements.len();
        fields.push((name, FieldType { nullable, ..common }));
    }
    Ok(Schema::of(fields))
}

/// The schema of mappings among other values: those go to the field `element`.
fn mixed_schema(elements: &[Node]) -> Result<Schema, Diagnostic> {
    let (rows, others): (Vec<Node>, Vec<Node>) =
        elements.iter().cloned().partition(|element| element.as_map().is_some());
    let element = common_type(&others)?;
    let alone = Schema::of([("element", element)]);
    join_schemas(&alone, &schema_of(&rows)?).map_err(|(name, a, b)| {
        let span = others.first().map(|node| node.span).unwrap_or_default();
        let (a, b) = (crate::expression::show(&a), crate::expression::show(&b));
        Diagnostic::new("TB0205", span, format!("field `{name}` is {a} here and {b} in a mapping"))
    })
}
