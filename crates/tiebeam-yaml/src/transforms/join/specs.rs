//! What a file says of a join: which fields are equal, and what becomes of rows that nothing is equal to.

use std::sync::Arc;

use tiebeam_core::row::FieldType;

use super::{key_type, keys_of};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::expression::unknown_column;
use crate::plan::Maker;
use crate::source::Span;
use crate::transforms::combine::Keys;

/// How an input is joined to what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Only rows that match.
    Inner,
    /// All of what is before.
    Left,
    /// All of the input.
    Right,
    /// All of both.
    Full,
}

/// How one input is joined to those before it.
pub struct Link {
    pub how: How,
    /// The fields of those before, as input and place.
    pub left: Arc<[(usize, usize)]>,
    /// The fields of the input.
    pub right: Arc<[(usize, usize)]>,
    pub keys: Keys,
}

/// A field of an input: its number, and the field's place.
type Place = (usize, usize);

/// The links of all inputs but the first.
pub fn links(maker: &mut Maker<'_>) -> Option<Vec<Link>> {
    let outer = outer(maker);
    let pairs = pairs(maker)?;
    let conditions = conditions(maker, &pairs)?;
    let outer = outer?;
    let mut links = Vec::with_capacity(conditions.len());
    for (number, conditions) in conditions.into_iter().enumerate() {
        let how = match &outer {
            Outer::All(how) => *how,
            Outer::These(these) => match (these.contains(&number), these.contains(&(number + 1))) {
                (true, true) => How::Full,
                (true, false) => How::Left,
                (false, true) => How::Right,
                (false, false) => How::Inner,
            },
        };
        let mut types: Vec<FieldType> = Vec::new();
        for (left, right, span) in &conditions {
            let field = |place: &Place| &maker.inputs[place.0].schema.fields[place.1].field_type;
            match key_type(field(left), field(right)) {
                Ok(found) => types.push(found),
                Err(message) => maker.problems.push(Diagnostic::new("TB0205", *span, message)),
            }
        }
        links.push(Link {
            how,
            left: conditions.iter().map(|(left, ..)| *left).collect(),
            right: conditions.iter().map(|(_, right, _)| *right).collect(),
            keys: keys_of(types),
        });
    }
    Some(links)
}

enum Outer {
    All(How),
    These(Vec<usize>),
}

fn outer(maker: &mut Maker<'_>) -> Option<Outer> {
    const TYPES: [&str; 4] = ["inner", "left", "right", "outer"];
    let Some(node) = maker.get("type").cloned() else { return Some(Outer::All(How::Inner)) };
    match &node.content {
        Content::String(name) => match &**name {
            "inner" => Some(Outer::All(How::Inner)),
            "left" => Some(Outer::All(How::Left)),
            "right" => Some(Outer::All(How::Right)),
            "outer" => Some(Outer::All(How::Full)),
            other => {
                let problem = Diagnostic::new("TB0208", node.span, format!("unknown type of join `{other}`"));
                maker
                    .problem(problem.did_you_mean(other, TYPES).note(format!("types: {}", TYPES.join(", "))));
                None
            }
        },
        _ => {
            let Some(list) = node.get("outer").and_then(Node::as_list) else {
                let message =
                    format!("the type of a join is one of {}, or `{{outer: [inputs]}}`", TYPES.join(", "));
                maker.problem(Diagnostic::new("TB0208", node.span, message));
                return None;
            };
            let found: Option<Vec<usize>> = list.to_vec().iter().map(|one| input(maker, one)).collect();
            Some(Outer::These(found?))
        }
    }
}

/// The number of an input that is named.
fn input(maker: &mut Maker<'_>, node: &Node) -> Option<usize> {
    let name = node.as_str().cloned().unwrap_or_default();
    table(maker, &name, node.span)
}

fn table(maker: &mut Maker<'_>, name: &str, span: Span) -> Option<usize> {
    let found = maker.names.iter().position(|known| **known == *name);
    if found.is_none() {
        let names: Vec<&str> = maker.names.iter().map(|name| &**name).collect();
        let problem = Diagnostic::new("TB0208", span, format!("there is no input `{name}`"));
        let problem = problem.did_you_mean(name, names.iter().copied());
        maker.problems.push(problem.note(format!("inputs: {}", names.join(", "))));
    }
    found
}

/// The equalities, each of two fields.
fn pairs(maker: &mut Maker<'_>) -> Option<Vec<(Place, Place, Span)>> {
    let node = maker.get("equalities")?.clone();
    let mut equalities: Vec<Vec<(Place, Span)>> = Vec::new();
    match &node.content {
        Content::String(field) => {
            let all = (0..maker.inputs.len()).map(|input| place(maker, input, field, node.span));
            equalities.push(all.collect::<Vec<_>>().into_iter().collect::<Option<_>>()?);
        }
        Content::List(items) => {
            for item in items.iter() {
                let Some(entries) = item.as_map().filter(|entries| entries.len() > 1) else {
                    let message = "an equality names a field of at least two inputs: `{a: field, b: field}`";
                    maker.problem(Diagnostic::new("TB0208", item.span, message));
                    return None;
                };
                let mut equality = Vec::with_capacity(entries.len());
                for entry in entries {
                    let table = table(maker, &entry.key, entry.key_span)?;
                    let field = entry.value.as_str().cloned().unwrap_or_default();
                    equality.push(place(maker, table, &field, entry.value.span)?);
                }
                equalities.push(equality);
            }
        }
        _ => {
            let message = format!(
                "`equalities` wants a field or a list of `{{a: field, b: field}}`, got {}",
                node.kind()
            );
            maker.problem(Diagnostic::new("TB0208", node.span, message));
            return None;
        }
    }
    let pairs = equalities.iter().filter_map(|equality| equality.split_first());
    Some(
        pairs
            .flat_map(|((first, _), rest)| rest.iter().map(|(other, span)| (*first, *other, *span)))
            .collect(),
    )
}

fn place(maker: &mut Maker<'_>, input: usize, field: &str, span: Span) -> Option<(Place, Span)> {
    let collection = &maker.inputs[input];
    let Some(index) = collection.schema.index_of(field) else {
        let problem = unknown_column(field, span, &collection.schema, Some(&collection.producer));
        maker.problems.push(problem);
        return None;
    };
    Some(((input, index), span))
}

type Conditions = Vec<(Place, Place, Span)>;

/// For each input but the first, what its fields are equal to in those before it.
fn conditions(maker: &mut Maker<'_>, pairs: &[(Place, Place, Span)]) -> Option<Vec<Conditions>> {
    let mut conditions: Vec<Conditions> = vec![Vec::new(); maker.inputs.len()];
    for (a, b, span) in pairs {
        let (left, right) = if a.0 < b.0 { (a, b) } else { (b, a) };
        if left.0 == right.0 {
            maker.problem(Diagnostic::new("TB0208", *span, "an equality is of fields of different inputs"));
            return None;
        }
        conditions[right.0].push((*left, *right, *span));
    }
    let lonely = (1..conditions.len()).find(|table| conditions[*table].is_empty());
    if let Some(table) = lonely {
        let span = maker.span("equalities");
        let message = format!("nothing joins `{}` to an input before it", maker.names[table]);
        let problem = Diagnostic::new("TB0208", span, message);
        maker.problem(problem.help("add an equality, or name the inputs in another order"));
        return None;
    }
    conditions.remove(0);
    Some(conditions)
}
