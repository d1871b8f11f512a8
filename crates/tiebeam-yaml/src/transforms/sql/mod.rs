//! Sql: one `select` over one or more inputs, lowered to joins, filters, groups and new rows.
//!
//! Rows of several inputs travel as rows that hold a row (or null) of each, as those of `Join` do. Aggregations leave nulls
//! out. Without `group by` there is one group of all rows; none comes out where there are no rows, as of `Combine`.

mod groups;
mod joins;

use std::sync::Arc;

use tiebeam_core::row::{Row, Schema};
use tiebeam_graph::{Arity, PCollection};

use self::groups::Groups;
pub use self::groups::aggregation;
use self::joins::Joined;
use super::each_row;
use super::fields::{FieldStep, FilterStep, MapStep};
use crate::catalog::{Inputs, Key, TransformType, Wants};
use crate::diagnostic::Diagnostic;
use crate::expression::Expression;
use crate::expression::sql::{Checker, Columns, Expr, ExprKind, From, Item, Query, query, unknown_table};
use crate::maker::locate;
use crate::plan::{MAIN, Made, Maker};
use crate::source::Span;

pub const TYPES: &[TransformType] = &[TransformType {
    name: "Sql",
    about: "one `select` over its inputs, which it calls by their names, or PCOLLECTION where there is one",
    inputs: Inputs::Tables,
    keeps_rows: false,
    keys: &[
        Key::required(
            "query",
            Wants::Text,
            "`select … from PCOLLECTION [join …] [where …] [group by …] [having …]`",
        ),
        Key::optional("dialect", Wants::Text, "calcite; the part of SQL that is here is common to all"),
    ],
    make: sql,
}];

/// Mistakes, with places in the query.
type Problems = Vec<Diagnostic>;

fn sql(maker: &mut Maker<'_>) -> Option<Made> {
    let node = maker.get("query")?.clone();
    let text = node.as_str()?.clone();
    match Lowered::of(maker, &text) {
        Ok(lowered) => Some(lowered.made()),
        Err(problems) => {
            for mut problem in problems {
                let part = problem.span.unwrap_or(Span::new(0, text.len()));
                problem.span = Some(locate(maker.source, node.span, &text, part));
                maker.problem(problem);
            }
            None
        }
    }
}

/// What a query became.
struct Lowered {
    /// Of each table the number of its input.
    inputs: Vec<usize>,
    joined: Option<Joined>,
    /// The schema of the rows that the query is over.
    rows: Arc<Schema>,
    filter: Option<Expression>,
    groups: Option<Groups>,
    having: Option<Expression>,
    fields: Vec<Expression>,
    schema: Arc<Schema>,
    /// The groups of equal results.
    distinct: Option<Groups>,
}

impl Lowered {
    fn of(maker: &Maker<'_>, text: &str) -> Result<Self, Problems> {
        let mut query = query(text).map_err(|problem| vec![problem])?;
        let (inputs, mut tables) = tables(maker, &query)?;
        let joined = match query.tables.len() {
            1 => None,
            _ => Some(Joined::of(&mut query, &mut tables)?),
        };
        let names = Names { tables: &tables, joined: joined.as_ref() };
        let mut problems = Vec::new();
        let mut items = names.items(&query, &mut problems);
        let mut rest: Vec<&mut Expr> = items.iter_mut().map(|(expr, ..)| expr).collect();
        rest.extend(query.filter.iter_mut());
        rest.extend(query.having.iter_mut());
        rest.extend(&mut query.groups);
        rest.into_iter().for_each(|expr| names.resolve(expr, &mut problems));
        if !problems.is_empty() {
            return Err(problems);
        }
        let rows = joined.as_ref().map_or(tables[0].schema.clone(), |joined| joined.schema.clone());
        let from = || if joined.is_some() { From::Joined(&tables) } else { From::Row(&tables) };
        let mut checker = Checker { from: from(), problems: Vec::new() };
        let filter = told(query.filter.as_ref(), &mut problems, |expr| {
            Expression::of_sql_condition(expr, text, &mut checker)
        });
        let asked = items.iter().map(|(expr, ..)| expr).chain(&query.having);
        let groups = Groups::of(&query.groups, asked, text, &mut checker, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let known = groups.as_ref().map(|groups| groups.known.clone());
        let from = known.as_ref().map_or_else(from, |known| From::Groups(known));
        let mut checker = Checker { from, problems: Vec::new() };
        let having = told(query.having.as_ref(), &mut problems, |expr| {
            Expression::of_sql_condition(expr, text, &mut checker)
        });
        let mut fields = Vec::with_capacity(items.len());
        for (expr, ..) in &items {
            fields.extend(told(Some(expr), &mut problems, |expr| {
                Expression::of_sql(expr, text, &mut checker, None)
            }));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let types = fields.iter().filter_map(|field| field.field_type().cloned());
        let schema = Arc::new(Schema::of(items.into_iter().map(|(_, name)| name).zip(types)));
        let distinct = query.distinct.then(|| Groups::of_rows(&schema));
        Ok(Lowered { inputs, joined, rows, filter, groups, having, fields, schema, distinct })
    }

    fn made(self) -> Made {
        Made {
            outputs: vec![(MAIN.into(), self.schema.clone())],
            build: Box::new(move |_, inputs| self.build(&inputs).into_iter().collect()),
        }
    }

    fn build(self, inputs: &[PCollection<Row>]) -> Option<PCollection<Row>> {
        let tables: Option<Vec<PCollection<Row>>> =
            self.inputs.iter().map(|input| inputs.get(*input).cloned()).collect();
        let tables = tables?;
        let mut rows = match &self.joined {
            Some(joined) => joined.build(&tables)?,
            None => tables.into_iter().next()?,
        };
        let mut schema = self.rows;
        let keep = |rows: &PCollection<Row>, label, schema: &Arc<Schema>, keep| {
            let step = FilterStep { keep: Arc::new(keep) };
            each_row(rows, label, schema.clone(), Arity::Filter, step)
        };
        if let Some(filter) = self.filter {
            rows = keep(&rows, "Where", &schema, filter);
        }
        if let Some(groups) = self.groups {
            schema = groups.schema.clone();
            rows = groups.build(&rows, "GroupBy");
        }
        if let Some(having) = self.having {
            rows = keep(&rows, "Having", &schema, having);
        }
        let steps = self.fields.into_iter().map(FieldStep::Compute).collect();
        let step = MapStep { steps, schema: self.schema.clone() };
        let selected = each_row(&rows, "Select", self.schema, Arity::OneToOne, step);
        Some(match self.distinct {
            Some(distinct) => distinct.build(&selected, "Distinct"),
            None => selected,
        })
    }
}

/// What is made of an expression; its mistakes are noted.
fn told<T>(
    expr: Option<&Expr>,
    problems: &mut Problems,
    make: impl FnOnce(&Expr) -> Result<T, Problems>,
) -> Option<T> {
    match make(expr?) {
        Ok(made) => Some(made),
        Err(more) => {
            problems.extend(more);
            None
        }
    }
}

/// The tables of a query: the number of each one's input, and its columns.
fn tables(maker: &Maker<'_>, query: &Query) -> Result<(Vec<usize>, Vec<Columns>), Problems> {
    let only = maker.inputs.len() == 1;
    let columns = |input: usize, names: Vec<Arc<str>>| {
        let collection = &maker.inputs[input];
        let producer = Some(collection.producer.clone());
        Columns { names, schema: collection.schema.clone(), producer, may_miss: false }
    };
    let known: Vec<Columns> = (0..maker.inputs.len())
        .map(|input| {
            let name = maker.names.get(input).cloned().unwrap_or_default();
            let names = if only { vec![crate::expression::sql::ONLY.into(), name] } else { vec![name] };
            columns(input, names)
        })
        .collect();
    let (mut inputs, mut tables, mut problems): (Vec<usize>, Vec<Columns>, Problems) = Default::default();
    for table in &query.tables {
        let Some(input) = known.iter().position(|one| one.names.contains(&table.name)) else {
            problems.push(unknown_table(&table.name, table.span, &known));
            continue;
        };
        let name = table.alias.clone().unwrap_or(table.name.clone());
        if tables.iter().any(|one| one.names.contains(&name)) {
            let message = format!("`{name}` stands twice in `from`");
            let problem = Diagnostic::new("TB0209", table.span, message);
            problems.push(problem.help("give each a name of its own: `from A as x join A as y`"));
            continue;
        }
        inputs.push(input);
        tables.push(columns(input, vec![name]));
    }
    if problems.is_empty() { Ok((inputs, tables)) } else { Err(problems) }
}

/// What the names of a query mean.
struct Names<'a> {
    tables: &'a [Columns],
    joined: Option<&'a Joined>,
}

impl Names<'_> {
    fn resolve(&self, expr: &mut Expr, problems: &mut Problems) {
        if let (Some(joined), ExprKind::Name(None, name)) = (self.joined, &expr.kind)
            && let Some(merged) = joined.merged(name, expr.span)
        {
            *expr = merged;
            return;
        }
        match &expr.kind {
            ExprKind::Name(..) => crate::expression::sql::resolve(expr, self.tables, problems),
            _ => expr.kind.parts_mut().into_iter().for_each(|part| self.resolve(part, problems)),
        }
    }

    /// What is selected, each with its name.
    fn items(&self, query: &Query, problems: &mut Problems) -> Vec<(Expr, Arc<str>)> {
        let mut items: Vec<(Expr, Arc<str>)> = Vec::new();
        for (number, item) in query.items.iter().enumerate() {
            match item {
                Item::All(of) => {
                    let of = match of {
                        None => None,
                        Some((name, span)) => {
                            let found = self.tables.iter().position(|table| table.names.contains(name));
                            if found.is_none() {
                                problems.push(unknown_table(name, *span, self.tables));
                                continue;
                            }
                            found
                        }
                    };
                    self.all(of, &mut items);
                }
                Item::One(expr, name) => {
                    let name = match (name, &expr.kind) {
                        (Some((name, _)), _) | (None, ExprKind::Name(_, name)) => name.clone(),
                        _ => format!("EXPR${number}").into(),
                    };
                    let name = unused(&name, &items);
                    items.push((expr.clone(), name));
                }
            }
        }
        items
    }

    /// All columns, or those of one table.
    fn all(&self, of: Option<usize>, items: &mut Vec<(Expr, Arc<str>)>) {
        let span = Span::default();
        let merged: &[Arc<str>] = match (of, self.joined) {
            (None, Some(joined)) => joined.merged_names(),
            _ => &[],
        };
        for name in merged {
            if let Some(expr) = self.joined.and_then(|joined| joined.merged(name, span)) {
                items.push((expr, unused(name, items)));
            }
        }
        for (table, columns) in self.tables.iter().enumerate().filter(|(i, _)| of.is_none_or(|of| of == *i)) {
            for (index, field) in columns.schema.fields.iter().enumerate() {
                if !merged.contains(&field.name) {
                    let expr = Expr { span, kind: ExprKind::Place(table, index) };
                    items.push((expr, unused(&field.name, items)));
                }
            }
        }
    }
}

/// The name, or the name with the first number behind it that makes it new.
fn unused(name: &Arc<str>, items: &[(Expr, Arc<str>)]) -> Arc<str> {
    let taken = |name: &str| items.iter().any(|(_, other)| **other == *name);
    if !taken(name) {
        return name.clone();
    }
    (0..).map(|number| format!("{name}{number}")).find(|name| !taken(name)).map_or(name.clone(), Arc::from)
}
