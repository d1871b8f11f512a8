//! SQL over rows: expressions of columns, and queries of one `select`.
//!
//! Null is unknown: what is made of it is null, and a condition that is null keeps no row. Integers have 64 bits, their
//! quotient is an integer. What is not there is refused by name.

mod evaluate;
mod functions;
mod parse;
mod query;
mod tree;
mod types;

use std::sync::Arc;

use tiebeam_core::row::{FieldType, Row, Schema, Value};

pub use self::evaluate::Code;
pub use self::functions::{AGGREGATES, is_aggregate};
pub use self::query::query;
pub use self::tree::{Compare, Expr, ExprKind, Item, Join, On, Query};
pub use self::types::{Checker, Columns, From, place, resolve, unknown_table};
use super::evaluate::Raised;
use super::types::Type;
use super::{Body, Expression};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

mod token;

/// The name that a query without names of its inputs has for the only one.
pub const ONLY: &str = "PCOLLECTION";

/// The columns of rows that a text has no name for.
pub fn only(schema: &Arc<Schema>, producer: Option<&str>) -> [Columns; 1] {
    let producer = producer.map(Arc::from);
    [Columns { names: vec![ONLY.into()], schema: schema.clone(), producer, may_miss: false }]
}

/// Reads an expression; its columns are found.
///
/// # Errors
/// What is wrong with it, at its place.
pub fn expression(text: &str, tables: &[Columns]) -> Result<Expr, Vec<Diagnostic>> {
    let mut expr = parse::expression(text).map_err(|problem| vec![problem])?;
    let mut problems = Vec::new();
    resolve(&mut expr, tables, &mut problems);
    if problems.is_empty() { Ok(expr) } else { Err(problems) }
}

impl Expression {
    /// Parses and checks SQL over the columns of `schema`.
    ///
    /// # Errors
    /// As [`new`](Expression::new).
    pub fn sql(
        text: &str,
        schema: &Arc<Schema>,
        producer: Option<&str>,
        declared: Option<FieldType>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let tables = only(schema, producer);
        let expr = expression(text, &tables)?;
        let mut checker = Checker { from: From::Row(&tables), problems: Vec::new() };
        Self::of_sql(&expr, text, &mut checker, declared)
    }

    /// As [`sql`](Expression::sql), for what is only asked whether it is true.
    ///
    /// # Errors
    /// As [`new`](Expression::new).
    pub fn sql_condition(
        text: &str,
        schema: &Arc<Schema>,
        producer: Option<&str>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let tables = only(schema, producer);
        let expr = expression(text, &tables)?;
        let mut checker = Checker { from: From::Row(&tables), problems: Vec::new() };
        Self::of_sql_condition(&expr, text, &mut checker)
    }

    /// An expression whose columns were found, of a longer text.
    ///
    /// # Errors
    /// As [`new`](Expression::new).
    pub fn of_sql(
        expr: &Expr,
        text: &str,
        checker: &mut Checker<'_>,
        declared: Option<FieldType>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let before = checker.problems.len();
        let (code, typed) = checker.expr(expr);
        if checker.problems.len() > before {
            return Err(checker.problems.split_off(before));
        }
        let own = match (&checker.from, &expr.kind) {
            // A column as it is keeps its width.
            (From::Row(tables) | From::Joined(tables), ExprKind::Place(table, column)) => {
                let field = tables.get(*table).and_then(|one| one.schema.fields.get(*column));
                field.map(|field| FieldType { nullable: typed.nullable, ..field.field_type.clone() })
            }
            _ => None,
        };
        let output = match &declared {
            Some(declared) => {
                super::check::may_become(&typed, declared)
                    .map_err(|message| vec![Diagnostic::new("TB0205", expr.span, message)])?;
                declared.clone()
            }
            None => match own.or_else(|| typed.to_field()) {
                Some(field) => field,
                None => return Err(vec![untold(&typed, expr.span)]),
            },
        };
        let bare = match (&code, &checker.from) {
            (Code::Column(index), From::Row(tables)) => {
                let field = tables.first().and_then(|one| one.schema.fields.get(*index));
                field.filter(|field| field.field_type == output).map(|_| *index)
            }
            _ => None,
        };
        let text = text.get(expr.span.range()).unwrap_or(text).into();
        Ok(Expression { text, body: Body::Sql(Arc::new(code)), locals: 0, output: Some(output), bare })
    }

    /// As [`of_sql`](Expression::of_sql), for what is only asked whether it is true.
    ///
    /// # Errors
    /// As [`new`](Expression::new).
    pub fn of_sql_condition(
        expr: &Expr,
        text: &str,
        checker: &mut Checker<'_>,
    ) -> Result<Self, Vec<Diagnostic>> {
        // Its `not` wants a boolean too, and changes nothing here.
        let asked = Expr { span: expr.span, kind: ExprKind::Is(Box::new(expr.clone()), Some(true), false) };
        let before = checker.problems.len();
        let (code, _) = checker.expr(&asked);
        if checker.problems.len() > before {
            return Err(checker.problems.split_off(before));
        }
        let text = text.get(expr.span.range()).unwrap_or(text).into();
        Ok(Expression { text, body: Body::Sql(Arc::new(code)), locals: 0, output: None, bare: None })
    }
}

fn untold(typed: &Type, span: Span) -> Diagnostic {
    Diagnostic::new("TB0223", span, format!("the type of this cannot be told: {typed}"))
        .help("convert it: `cast(… as varchar)`")
}

/// Runs code on a row.
pub(super) fn run(code: &Code, row: &Row) -> Result<Value, Raised> {
    code.run(row)
}

#[cfg(test)]
mod tests;
