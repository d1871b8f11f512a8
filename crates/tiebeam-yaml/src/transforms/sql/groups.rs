//! The groups of a query: what their rows have in common, and what is made of them.

use std::sync::Arc;

use tiebeam_core::coder::{kv_coder, row_coder};
use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{DoFn, ElementContext, Output, Result};
use tiebeam_graph::{Arity, PCollection, ParDo};

use super::{Problems, told};
use crate::diagnostic::Diagnostic;
use crate::expression::sql::{AGGREGATES, Checker, Expr, ExprKind, is_aggregate};
use crate::expression::{Expression, Type, conform};
use crate::transforms::Failing;
use crate::transforms::combine::{Aggregate, Aggregates, Back, Function, Keys};

/// Groups of rows.
pub struct Groups {
    /// The values of a group's row, by what they say: first what its rows have in common.
    pub known: Vec<(Expr, Type)>,
    /// The schema of a group's row.
    pub schema: Arc<Schema>,
    common: Vec<Expression>,
    /// What aggregations read; none for the row as such.
    values: Vec<Option<Expression>>,
    aggregates: Vec<Aggregate>,
}

impl Groups {
    /// The groups of a query, if it has any; `asked` is what is made of them.
    pub fn of<'a>(
        by: &[Expr],
        asked: impl Iterator<Item = &'a Expr>,
        text: &str,
        checker: &mut Checker<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let mut calls: Vec<&Expr> = Vec::new();
        asked.for_each(|expr| aggregations(expr, &mut calls));
        if by.is_empty() && calls.is_empty() {
            return None;
        }
        let mut groups = Groups {
            known: Vec::new(),
            schema: Arc::default(),
            common: Vec::new(),
            values: Vec::new(),
            aggregates: Vec::new(),
        };
        let mut types: Vec<FieldType> = Vec::new();
        for expr in by {
            let made = told(Some(expr), problems, |expr| Expression::of_sql(expr, text, checker, None));
            let Some(made) = made else { continue };
            let Some(field) = made.field_type().cloned() else { continue };
            groups.known.push((expr.clone(), Type::of_field(&field)));
            groups.common.push(made);
            types.push(field);
        }
        for call in calls {
            let made = told(Some(call), problems, |call| aggregation(call, text, checker));
            let Some((value, aggregate)) = made else { continue };
            groups.known.push((call.clone(), Type::of_field(&aggregate.output)));
            types.push(aggregate.output.clone());
            groups.values.push(value);
            groups.aggregates.push(aggregate);
        }
        groups.schema =
            Arc::new(Schema::of(types.into_iter().enumerate().map(|(i, one)| (format!("g{i}"), one))));
        Some(groups)
    }

    /// The groups of equal rows.
    pub fn of_rows(schema: &Arc<Schema>) -> Self {
        let common =
            schema.fields.iter().filter_map(|field| Expression::column(&field.name, schema)).collect();
        Groups {
            known: Vec::new(),
            schema: schema.clone(),
            common,
            values: Vec::new(),
            aggregates: Vec::new(),
        }
    }

    /// A row for each group.
    pub fn build(self, rows: &PCollection<Row>, label: &str) -> PCollection<Row> {
        let Groups { schema, common, values, aggregates, .. } = self;
        let indexes: Vec<usize> = (0..common.len()).collect();
        let fields = schema.fields.iter().take(common.len());
        let keys = Keys::typed(&indexes, fields.map(|field| (field.name.clone(), field.field_type.clone())));
        let names: Vec<Arc<str>> = (0..values.len()).map(|i| format!("v{i}").into()).collect();
        let reads = names.iter().cloned().zip(aggregates.iter().map(|one| one.input.clone()));
        let reads = Arc::new(Schema::of(reads));
        let extract = Extract {
            keys: keys.clone(),
            common: common.into(),
            values: values.into(),
            schema: reads.clone(),
        };
        let coder = kv_coder(row_coder(keys.schema().clone()), row_coder(reads));
        let pairs = rows
            .step(format!("{label}Values"))
            .apply(ParDo::new(extract).with_coder(coder).with_arity(Arity::OneToOne));
        let combined = pairs.step(label).combine_per_key(Aggregates::new(&names, aggregates));
        let back = ParDo::new(Back { keys, schema: schema.clone() });
        combined
            .step(format!("{label}Rows"))
            .apply(back.with_coder(row_coder(schema)).with_arity(Arity::OneToOne))
    }
}

/// The aggregations in an expression, each once.
fn aggregations<'a>(expr: &'a Expr, into: &mut Vec<&'a Expr>) {
    if let ExprKind::Call(name, ..) = &expr.kind
        && is_aggregate(name)
    {
        if !into.contains(&expr) {
            into.push(expr);
        }
        return;
    }
    expr.kind.parts().into_iter().for_each(|part| aggregations(part, into));
}

/// One aggregation: what it reads of each row (none for the row as such), and what it does.
///
/// # Errors
/// What is wrong with it.
pub fn aggregation(
    call: &Expr,
    text: &str,
    checker: &mut Checker<'_>,
) -> std::result::Result<(Option<Expression>, Aggregate), Problems> {
    let ExprKind::Call(name, arguments, star) = &call.kind else { return Err(Vec::new()) };
    let wrong = |message: String| vec![Diagnostic::new("TB0205", call.span, message)];
    let function = match &**name {
        "sum" => Function::Sum,
        "min" => Function::Min,
        "max" => Function::Max,
        "avg" => Function::Mean,
        "count" => Function::Count,
        other => return Err(wrong(format!("`{other}` is none of {}", AGGREGATES.join(", ")))),
    };
    let of_type = |field: &FieldType| {
        Aggregate::of_sql(function, field).map_err(|wanted| {
            wrong(format!("`{name}` wants {wanted}, got {}", crate::expression::show(field)))
        })
    };
    match arguments.as_slice() {
        [] if *star => Ok((None, of_type(&FieldType::required(TypeKind::Int64))?)),
        [one] => {
            let value = Expression::of_sql(one, text, checker, None)?;
            let aggregate = match value.field_type() {
                Some(field) => of_type(field)?,
                None => return Err(wrong(format!("the type of what `{name}` reads cannot be told"))),
            };
            Ok((Some(value), aggregate))
        }
        many => Err(wrong(format!("`{name}` wants one argument, got {}", many.len()))),
    }
}

/// What rows have in common, and what the aggregations read of them.
#[derive(Clone)]
struct Extract {
    keys: Keys,
    common: Arc<[Expression]>,
    values: Arc<[Option<Expression>]>,
    schema: Arc<Schema>,
}

impl DoFn for Extract {
    type In = Row;
    type Out = (Row, Row);

    fn process(&mut self, row: Row, _: &ElementContext<'_>, out: &mut Output<(Row, Row)>) -> Result<()> {
        let value = |expression: &Expression| {
            expression.evaluate(&row).map_err(|raised| Failing::raised(expression, &raised).into_error())
        };
        let common: Vec<Value> = self.common.iter().map(value).collect::<Result<_>>()?;
        let mut values = Vec::with_capacity(self.values.len());
        for (expression, field) in self.values.iter().zip(&self.schema.fields) {
            let Some(expression) = expression else {
                values.push(Value::Int64(1));
                continue;
            };
            let read = conform(value(expression)?, &field.field_type);
            values.push(read.map_err(|raised| Failing::raised(expression, &raised).into_error())?);
        }
        let key = self.keys.of(&Row::new(self.schema.clone(), common));
        out.emit((key, Row::new(self.schema.clone(), values)));
        Ok(())
    }
}
