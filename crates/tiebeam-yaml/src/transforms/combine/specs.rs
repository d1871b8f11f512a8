//! What a file says of the aggregations of a Combine.

use std::sync::Arc;

use super::aggregate::{Aggregate, Function};
use crate::catalog::{Key, Wants, check_keys};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Entry, Node};
use crate::expression::sql::{self, ExprKind};
use crate::expression::{Expression, Form};
use crate::maker::locate;
use crate::plan::{Collection, Maker, expression_text};
use crate::source::Span;
use crate::transforms::sql::aggregation;

/// One aggregation as a file says it.
pub struct Spec {
    /// The name of the result.
    pub name: Arc<str>,
    /// Where it stands.
    pub span: Span,
    /// What is done.
    pub function: Function,
    /// With which value of each row; none for the row as such.
    pub value: Option<Expression>,
    /// As SQL has it, which leaves nulls out.
    pub sql: Option<Aggregate>,
}

/// Beam's functions of Python that are here under their own names.
const PYTHON: [(&str, Function); 6] = [
    ("MeanCombineFn", Function::Mean),
    ("CountCombineFn", Function::Count),
    ("ToListCombineFn", Function::Group),
    ("ConcatListCombineFn", Function::Concat),
    ("TopCombineFn", Function::Top(0)),
    ("builtins.sum", Function::Sum),
];

/// All aggregations; what is wrong with one is noted, and the others are looked at all the same.
pub fn specs(maker: &mut Maker<'_>, input: &Collection) -> Option<Vec<Spec>> {
    let language = maker.text("language");
    let sql = match language.as_deref() {
        None | Some("generic" | "python") => false,
        Some("sql" | "calcite") => true,
        Some(_) => {
            super::super::fields::check_language(maker);
            return None;
        }
    };
    let python = language.as_deref() == Some("python");
    let entries = maker.get("combine")?.as_map()?.to_vec();
    let mut fine = true;
    let mut found = Vec::with_capacity(entries.len());
    for entry in &entries {
        let spec = if sql { of_sql(maker, entry, input) } else { of_entry(maker, entry, input, python) };
        fine &= spec.is_some();
        found.extend(spec);
    }
    fine.then_some(found)
}

fn of_entry(maker: &mut Maker<'_>, entry: &Entry, input: &Collection, python: bool) -> Option<Spec> {
    let place = format!("`{}`", entry.key);
    let (function, value) = match &entry.value.content {
        Content::String(_) => (entry.value.clone(), None),
        Content::Map(entries) => {
            let keys = [
                Key::optional("value", Wants::Any, "an expression over the columns"),
                Key::required("fn", Wants::Any, "what is done with the values"),
            ];
            if !check_keys(entries, &keys, &place, entry.key_span, maker.problems) {
                return None;
            }
            (entry.value.get("fn")?.clone(), entry.value.get("value").cloned())
        }
        _ => {
            let message = format!("{place} wants a function or {{value, fn}}, got {}", entry.value.kind());
            maker.problem(Diagnostic::new("TB0208", entry.value.span, message));
            return None;
        }
    };
    let function = function_of(maker, &function, &place, python)?;
    let value = match value {
        Some(value) => value,
        // Without a value it is the field of that name.
        None => Node { span: entry.key_span, content: Content::String(entry.key.clone()) },
    };
    if expression_text(&value).is_none() {
        let message = format!("the value of {place} wants an expression, got {}", value.kind());
        maker.problem(Diagnostic::new("TB0208", value.span, message));
        return None;
    }
    let value = maker.expression(Form::Expression, &value, input, None)?;
    Some(Spec { name: entry.key.clone(), span: entry.key_span, function, value: Some(value), sql: None })
}

fn function_of(maker: &mut Maker<'_>, node: &Node, place: &str, python: bool) -> Option<Function> {
    let (kind, config) = match &node.content {
        Content::String(_) => (node.clone(), None),
        Content::Map(entries) => {
            let keys = [
                Key::required("type", Wants::Text, "the function's name"),
                Key::optional("config", Wants::Map, "its arguments"),
            ];
            let place = format!("the function of {place}");
            if !check_keys(entries, &keys, &place, node.span, maker.problems) {
                return None;
            }
            (node.get("type")?.clone(), node.entry("config").cloned())
        }
        _ => {
            let message = format!("the function of {place} wants a name, got {}", node.kind());
            maker.problem(Diagnostic::new("TB0208", node.span, message));
            return None;
        }
    };
    let name = kind.as_str()?.trim().to_owned();
    let function = Function::named(&name).or_else(|| {
        let own =
            name.strip_prefix("apache_beam.transforms.combiners.").or(name.strip_prefix("beam.combiners."));
        let own = own.unwrap_or(&name);
        PYTHON.iter().find(|(known, _)| *known == own).map(|(_, function)| *function)
    });
    let Some(function) = function else {
        let problem = if python || name.contains('.') {
            Diagnostic::new("TB0219", kind.span, "functions of Python other than Beam's own are not available in a Combine")
                .note("there are TopCombineFn, MeanCombineFn, CountCombineFn, ToListCombineFn and ConcatListCombineFn")
        } else {
            Diagnostic::new("TB0208", kind.span, format!("unknown function `{name}`"))
                .did_you_mean(&name, Function::NAMES)
        };
        maker.problem(problem.note(format!("functions: {}", Function::NAMES.join(", "))));
        return None;
    };
    match (function, config) {
        (Function::Top(_), Some(config)) => match config.value.get("n").map(|n| (n.span, &n.content)) {
            Some((_, Content::Int(n @ 1..=1_000_000))) => Some(Function::Top(usize::try_from(*n).ok()?)),
            other => {
                let span = other.map_or(config.key_span, |(span, _)| span);
                maker.problem(Diagnostic::new("TB0208", span, "`n` is a number from 1 to 1000000"));
                None
            }
        },
        (Function::Top(_), None) => {
            let problem = Diagnostic::new("TB0207", kind.span, "`TopCombineFn` lacks its `config`");
            maker.problem(problem.help("how many are wanted: `config: {n: 10}`"));
            None
        }
        (_, Some(config)) if config.value.as_map().is_some_and(|map| !map.is_empty()) => {
            maker.problem(Diagnostic::new("TB0231", config.key_span, format!("`{name}` takes no `config`")));
            None
        }
        (function, _) => Some(function),
    }
}

/// One aggregation of SQL, such as `count(*)` or `sum(price * amount)`.
fn of_sql(maker: &mut Maker<'_>, entry: &Entry, input: &Collection) -> Option<Spec> {
    let text = expression_text(&entry.value)?;
    let tables = sql::only(&input.schema, Some(&input.producer));
    let mut checker = sql::Checker { from: sql::From::Row(&tables), problems: Vec::new() };
    let made = sql::expression(&text, &tables).and_then(|call| match &call.kind {
        ExprKind::Call(name, ..) if sql::is_aggregate(name) => aggregation(&call, &text, &mut checker),
        _ => {
            let message = format!("`{}` is no aggregation", text.trim());
            let problem = Diagnostic::new("TB0219", call.span, message);
            Err(vec![
                problem
                    .help(format!("one of {} with its argument, or `count(*)`", sql::AGGREGATES.join(", "))),
            ])
        }
    });
    match made {
        Ok((value, aggregate)) => {
            let function = aggregate.function;
            Some(Spec {
                name: entry.key.clone(),
                span: entry.key_span,
                function,
                value,
                sql: Some(aggregate),
            })
        }
        Err(problems) => {
            for mut problem in problems {
                let part = problem.span.unwrap_or(Span::new(0, text.len()));
                problem.span = Some(locate(maker.source, entry.value.span, &text, part));
                maker.problem(problem);
            }
            None
        }
    }
}
