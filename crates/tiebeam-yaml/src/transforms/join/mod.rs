//! Join: rows of several inputs brought together where their fields are equal.
//!
//! As in SQL, in the order of the inputs: each is joined to what was joined before, null is equal to nothing, and columns
//! of the same name are told apart by a number behind it.

mod rows;
mod specs;

use std::sync::Arc;

use tiebeam_core::coder::{kv_coder, row_coder};
use tiebeam_core::row::{FieldType, Schema, TypeKind};
use tiebeam_graph::{Arity, PCollection, ParDo};
use tiebeam_transforms::co_group_by_key;

use self::rows::{KeyOf, Matched, Project, Wrap};
use self::specs::links;
pub use self::specs::{How, Link};
use super::combine::Keys;
use super::fields::texts;
use crate::catalog::{Inputs, Key, TransformType, Wants};
use crate::diagnostic::Diagnostic;
use crate::expression::{show, unknown_column};
use crate::plan::{MAIN, Made, Maker};

pub const TYPES: &[TransformType] = &[TransformType {
    name: "Join",
    about: "rows of two or more inputs together, where fields are equal",
    inputs: Inputs::Named,
    keeps_rows: false,
    keys: &[
        Key::required("equalities", Wants::Any, "a field that all inputs have, or `[{a: field, b: field}]`"),
        Key::optional("type", Wants::Any, "inner, left, right, outer, or `{outer: [inputs]}`"),
        Key::optional("fields", Wants::Map, "`input: [fields]` or `input: {name: field}`; all fields else"),
    ],
    make: join,
}];

/// A column of the result: its name, the input, the place in that input's rows.
struct Column {
    name: Arc<str>,
    table: usize,
    index: usize,
}

fn join(maker: &mut Maker<'_>) -> Option<Made> {
    let before = maker.problems.len();
    let links = links(maker);
    let columns = columns(maker);
    let (links, columns) = (links?, columns?);
    if maker.problems.len() > before {
        return None;
    }
    let tables: Vec<Arc<Schema>> = maker.inputs.iter().map(|input| input.schema.clone()).collect();
    let mut absent = vec![false; tables.len()];
    for (table, link) in links.iter().enumerate() {
        let table = table + 1;
        if matches!(link.how, How::Right | How::Full) {
            absent[..table].fill(true);
        }
        absent[table] |= matches!(link.how, How::Left | How::Full);
    }
    let fields = columns.iter().map(|column| {
        let field = &tables[column.table].fields[column.index].field_type;
        let nullable = field.nullable || absent[column.table];
        (column.name.clone(), FieldType { nullable, ..field.clone() })
    });
    let schema = Arc::new(Schema::of(fields));
    let places: Arc<[(usize, usize)]> = columns.iter().map(|column| (column.table, column.index)).collect();
    let names = maker.names.clone();
    let out = schema.clone();
    Some(Made {
        outputs: vec![(MAIN.into(), schema)],
        build: Box::new(move |_, inputs| {
            let joined = joined(&inputs, &names, &tables, &links);
            let project = ParDo::new(Project { places, schema: out.clone() });
            let project = project.with_coder(row_coder(out)).with_arity(Arity::OneToOne);
            joined.map(|joined| joined.step("Fields").apply(project)).into_iter().collect()
        }),
    })
}

/// All inputs joined: rows with a field for each input, which holds its row or null.
pub fn joined(
    inputs: &[PCollection<tiebeam_core::Row>],
    names: &[Arc<str>],
    tables: &[Arc<Schema>],
    links: &[Link],
) -> Option<PCollection<tiebeam_core::Row>> {
    let fields = names.iter().zip(tables);
    let fields =
        fields.map(|(name, table)| (name.clone(), FieldType::nullable(TypeKind::Row(table.clone()))));
    let all = Arc::new(Schema::of(fields));
    let wrap = |table: usize, input: &PCollection<tiebeam_core::Row>| {
        let wrap = ParDo::new(Wrap { table, schema: all.clone() });
        let wrap = wrap.with_coder(row_coder(all.clone())).with_arity(Arity::OneToOne);
        input.step(format!("Wrap {}", names[table])).apply(wrap)
    };
    let mut joined = wrap(0, inputs.first()?);
    for (number, link) in links.iter().enumerate() {
        let table = number + 1;
        let keyed = |side: &str, input: &PCollection<tiebeam_core::Row>, places: &Arc<[(usize, usize)]>| {
            let key = ParDo::new(KeyOf { places: places.clone(), keys: link.keys.clone() });
            let coder = kv_coder(row_coder(link.keys.schema().clone()), row_coder(all.clone()));
            input
                .step(format!("Key {side} {}", names[table]))
                .apply(key.with_coder(coder).with_arity(Arity::OneToOne))
        };
        let left = keyed("for", &joined, &link.left);
        let right = keyed("of", &wrap(table, inputs.get(table)?), &link.right);
        let matched = Matched { how: link.how, table, schema: all.clone() };
        joined = left
            .step(format!("Join {}", names[table]))
            .apply(co_group_by_key(&right))
            .step(format!("Match {}", names[table]))
            .apply(ParDo::new(matched).with_coder(row_coder(all.clone())).with_arity(Arity::Any));
    }
    Some(joined)
}

/// The columns of the result.
fn columns(maker: &mut Maker<'_>) -> Option<Vec<Column>> {
    let mut columns: Vec<Column> = Vec::new();
    let mut told: Vec<usize> = Vec::new();
    let entries = maker.get("fields").and_then(|node| node.as_map()).unwrap_or(&[]).to_vec();
    let mut fine = true;
    for entry in &entries {
        let Some(table) = maker.names.iter().position(|name| *name == entry.key) else {
            let names: Vec<&str> = maker.names.iter().map(|name| &**name).collect();
            let problem =
                Diagnostic::new("TB0208", entry.key_span, format!("there is no input `{}`", entry.key))
                    .did_you_mean(&entry.key, names.iter().copied())
                    .note(format!("inputs: {}", names.join(", ")));
            maker.problem(problem);
            fine = false;
            continue;
        };
        told.push(table);
        let wanted: Vec<(Arc<str>, Arc<str>, crate::source::Span)> = match entry.value.as_map() {
            Some(renamed) => renamed
                .iter()
                .filter_map(|one| Some((one.key.clone(), one.value.as_str()?.clone(), one.value.span)))
                .collect(),
            None => texts(Some(&entry.value))
                .into_iter()
                .map(|(name, node)| (name.clone(), name, node.span))
                .collect(),
        };
        for (name, field, span) in wanted {
            let input = &maker.inputs[table];
            let Some(index) = input.schema.index_of(&field) else {
                let problem = unknown_column(&field, span, &input.schema, Some(&input.producer));
                maker.problem(problem);
                fine = false;
                continue;
            };
            if columns.iter().any(|column| column.name == name) {
                let problem =
                    Diagnostic::new("TB0209", span, format!("the field `{name}` stands twice in `fields`"));
                maker.problem(problem.help("give one another name: `{new_name: field}`"));
                fine = false;
                continue;
            }
            columns.push(Column { name, table, index });
        }
    }
    for (table, input) in maker.inputs.iter().enumerate().filter(|(table, _)| !told.contains(table)) {
        for (index, field) in input.schema.fields.iter().enumerate() {
            let name = unused(&field.name, &columns);
            columns.push(Column { name, table, index });
        }
    }
    fine.then_some(columns)
}

/// The name, or the name with the first number behind it that makes it new.
fn unused(name: &Arc<str>, columns: &[Column]) -> Arc<str> {
    let taken = |name: &str| columns.iter().any(|column| &*column.name == name);
    if !taken(name) {
        return name.clone();
    }
    (0..).map(|number| format!("{name}{number}")).find(|name| !taken(name)).map_or(name.clone(), Arc::from)
}

/// The type that two fields have in common as keys.
pub fn key_type(a: &FieldType, b: &FieldType) -> Result<FieldType, String> {
    let message = || format!("{} is never equal to {}", show(a), show(b));
    let joined = crate::schema::join(a, b).ok_or_else(message)?;
    Ok(FieldType { nullable: true, ..joined })
}

/// The keys of rows, as far as this file's parts need them.
pub fn keys_of(types: Vec<FieldType>) -> Keys {
    let indexes: Vec<usize> = (0..types.len()).collect();
    let fields = types.into_iter().enumerate().map(|(i, field)| (Arc::from(format!("k{i}")), field));
    Keys::typed(&indexes, fields)
}
