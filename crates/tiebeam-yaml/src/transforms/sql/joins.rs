//! The joins of a query: equalities of columns, from `on`, `using` or `where`.

use std::sync::Arc;

use tiebeam_core::row::{FieldType, Row, Schema, TypeKind};
use tiebeam_graph::PCollection;

use super::Problems;
use crate::diagnostic::Diagnostic;
use crate::expression::sql::{Columns, Compare, Expr, ExprKind, Join, On, Query, place, resolve};
use crate::source::Span;
use crate::transforms::join::{How, Link, joined, key_type, keys_of};

/// A column: the table's number and the place in its rows.
type Place = (usize, usize);

/// The inputs of a query, joined.
pub struct Joined {
    /// The schema of joined rows: a row for each table.
    pub schema: Arc<Schema>,
    names: Vec<Arc<str>>,
    tables: Vec<Arc<Schema>>,
    links: Vec<Link>,
    /// The columns of `using`, each with the expression that they are.
    merged: Vec<(Arc<str>, Expr)>,
    merged_names: Vec<Arc<str>>,
}

impl Joined {
    /// What the query joins. Equalities that are used here stay in its `where`, where they are true.
    pub fn of(query: &mut Query, tables: &mut [Columns]) -> Result<Self, Problems> {
        let mut joined = Joined {
            schema: Arc::default(),
            names: tables.iter().filter_map(|table| table.names.first().cloned()).collect(),
            tables: tables.iter().map(|table| table.schema.clone()).collect(),
            links: Vec::new(),
            merged: Vec::new(),
            merged_names: Vec::new(),
        };
        let mut problems = Vec::new();
        for number in 1..query.tables.len() {
            let Some((join, on)) = query.tables[number].join.clone() else { continue };
            let pairs = match on {
                On::Using(names) => joined.using(&names, join, number, tables, &mut problems),
                On::Condition(expr) => joined.on(expr, join, number, query, tables, &mut problems),
                On::Nothing => equalities(query.filter.as_ref(), number, tables),
            };
            if pairs.is_empty() && problems.is_empty() {
                let message = format!(
                    "no column of `{}` is equal to one of the inputs before it",
                    joined.names[number]
                );
                let problem = Diagnostic::new("TB0219", query.tables[number].span, message);
                problems
                    .push(problem.help("all rows with all rows are not available: `join … on a.x = b.x`"));
            }
            match link(&pairs, join, tables) {
                Ok(link) => joined.links.push(link),
                Err(problem) => problems.push(problem),
            }
            if matches!(join, Join::Right | Join::Full) {
                tables[..number].iter_mut().for_each(|table| table.may_miss = true);
            }
            tables[number].may_miss |= matches!(join, Join::Left | Join::Full);
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let fields = joined.names.iter().cloned().zip(&joined.tables);
        let fields = fields.map(|(name, table)| (name, FieldType::nullable(TypeKind::Row(table.clone()))));
        joined.schema = Arc::new(Schema::of(fields));
        Ok(joined)
    }

    fn using(
        &mut self,
        names: &[(Arc<str>, Span)],
        join: Join,
        number: usize,
        tables: &[Columns],
        problems: &mut Problems,
    ) -> Vec<(Place, Place, Span)> {
        let mut pairs = Vec::with_capacity(names.len());
        for (name, span) in names {
            let before = self.merged.iter().find(|(other, _)| other == name).map(|(_, expr)| expr.clone());
            let left = match &before {
                Some(Expr { kind: ExprKind::Place(table, column), .. }) => Ok((*table, *column)),
                Some(_) => {
                    Err(Diagnostic::new("TB0219", *span, "`using` behind a full join is not available")
                        .help("write which column is meant: `on a.x = b.x`"))
                }
                None => place(None, name, *span, &tables[..number]),
            };
            match (left, place(None, name, *span, &tables[number..=number])) {
                (Ok(left), Ok((_, right))) => {
                    let column =
                        |(table, column): Place| Expr { span: *span, kind: ExprKind::Place(table, column) };
                    let (left, right) = (left, (number, right));
                    let expr = match join {
                        Join::Inner | Join::Left => column(left),
                        Join::Right => column(right),
                        Join::Full => {
                            let both = vec![column(left), column(right)];
                            Expr { span: *span, kind: ExprKind::Call("coalesce".into(), both, false) }
                        }
                    };
                    self.merged.retain(|(other, _)| other != name);
                    self.merged.push((name.clone(), expr));
                    if !self.merged_names.contains(name) {
                        self.merged_names.push(name.clone());
                    }
                    pairs.push((left, right, *span));
                }
                (left, right) => problems.extend([left.err(), right.err()].into_iter().flatten()),
            }
        }
        pairs
    }

    fn on(
        &mut self,
        mut expr: Expr,
        join: Join,
        number: usize,
        query: &mut Query,
        tables: &[Columns],
        problems: &mut Problems,
    ) -> Vec<(Place, Place, Span)> {
        let before = problems.len();
        resolve(&mut expr, &tables[..=number], problems);
        if problems.len() > before {
            return Vec::new();
        }
        let mut pairs = Vec::new();
        for part in conjuncts(&expr) {
            match equality(part, number) {
                Some(pair) => pairs.push(pair),
                // What inner joins keep besides is the same as what is kept afterwards.
                None if join == Join::Inner => {
                    query.filter = Some(match query.filter.take() {
                        Some(filter) => {
                            let span = filter.span;
                            let kind = ExprKind::And(Box::new(filter), Box::new(part.clone()));
                            Expr { span, kind }
                        }
                        None => part.clone(),
                    });
                }
                None => {
                    let message =
                        "an outer join is of columns that are equal: no other condition is available";
                    let problem = Diagnostic::new("TB0219", part.span, message);
                    problems.push(problem.help("keep the rows with a `Filter` before"));
                }
            }
        }
        pairs
    }

    /// What a column of `using` is, told by its bare name.
    pub fn merged(&self, name: &str, span: Span) -> Option<Expr> {
        let found = self.merged.iter().find(|(other, _)| **other == *name)?;
        Some(Expr { span, kind: found.1.kind.clone() })
    }

    /// The columns of `using`.
    pub fn merged_names(&self) -> &[Arc<str>] {
        &self.merged_names
    }

    /// The joined rows.
    pub fn build(&self, inputs: &[PCollection<Row>]) -> Option<PCollection<Row>> {
        joined(inputs, &self.names, &self.tables, &self.links)
    }
}

fn link(pairs: &[(Place, Place, Span)], join: Join, tables: &[Columns]) -> Result<Link, Diagnostic> {
    let field = |place: &Place| &tables[place.0].schema.fields[place.1].field_type;
    let mut types = Vec::with_capacity(pairs.len());
    for (left, right, span) in pairs {
        let found = key_type(field(left), field(right));
        types.push(found.map_err(|message| Diagnostic::new("TB0205", *span, message))?);
    }
    let how = match join {
        Join::Inner => How::Inner,
        Join::Left => How::Left,
        Join::Right => How::Right,
        Join::Full => How::Full,
    };
    let left = pairs.iter().map(|(left, ..)| *left).collect();
    let right = pairs.iter().map(|(_, right, _)| *right).collect();
    Ok(Link { how, left, right, keys: keys_of(types) })
}

/// The parts of a condition that must all be true.
fn conjuncts(expr: &Expr) -> Vec<&Expr> {
    match &expr.kind {
        ExprKind::And(a, b) => [conjuncts(a), conjuncts(b)].concat(),
        _ => vec![expr],
    }
}

/// A column before the table that is equal to one of the table.
fn equality(expr: &Expr, number: usize) -> Option<(Place, Place, Span)> {
    let ExprKind::Compare(Compare::Equal, a, b) = &expr.kind else { return None };
    let (ExprKind::Place(a, x), ExprKind::Place(b, y)) = (&a.kind, &b.kind) else { return None };
    let (left, right) = if a < b { ((*a, *x), (*b, *y)) } else { ((*b, *y), (*a, *x)) };
    (right.0 == number && left.0 < number).then_some((left, right, expr.span))
}

/// The equalities of `where` that join a table to those before it.
fn equalities(filter: Option<&Expr>, number: usize, tables: &[Columns]) -> Vec<(Place, Place, Span)> {
    let Some(filter) = filter else { return Vec::new() };
    let mut filter = filter.clone();
    // What is not known is told where the condition is checked.
    resolve(&mut filter, tables, &mut Vec::new());
    conjuncts(&filter).into_iter().filter_map(|part| equality(part, number)).collect()
}
