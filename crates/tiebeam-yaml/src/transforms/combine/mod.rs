//! Combine: rows grouped by fields, and what is made of each group.

mod aggregate;
mod key;
mod specs;

use std::sync::Arc;

use tiebeam_core::coder::{kv_coder, row_coder};
use tiebeam_core::row::{FieldType, Row, Schema, Value};
use tiebeam_core::{DoFn, ElementContext, Output, Result};
use tiebeam_graph::{Arity, ParDo};

pub use self::aggregate::{Aggregate, Aggregates, Function};
pub use self::key::Keys;
use self::specs::{Spec, specs};
use super::Failing;
use super::fields::{known_columns, texts};
use crate::catalog::{Inputs, Key, TransformType, Wants};
use crate::diagnostic::Diagnostic;
use crate::expression::{Expression, Raised, conform, show};
use crate::plan::{Made, Maker};

pub const TYPES: &[TransformType] = &[TransformType {
    name: "Combine",
    about: "groups rows by fields and combines each group",
    inputs: Inputs::One,
    keeps_rows: false,
    keys: &[
        Key::required("group_by", Wants::Texts, "the fields to group by; `[]` for one group"),
        Key::required(
            "combine",
            Wants::Map,
            "`name: function`, or `name: {value: expression, fn: function}`",
        ),
        Key::optional("language", Wants::Text, "generic, python, or sql for `name: \"sum(field)\"`"),
    ],
    make: combine,
}];

fn combine(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    let names = texts(maker.get("group_by"));
    let group_by = known_columns(maker, names, &input);
    let specs = specs(maker, &input)?;
    let mut fields: Vec<(Arc<str>, FieldType)> = Vec::new();
    for (name, node) in &group_by {
        let Some(index) = input.schema.index_of(name) else { continue };
        if fields.iter().any(|(other, _)| other == name) {
            let message = format!("`{name}` stands twice in `group_by`");
            maker.problem(Diagnostic::new("TB0209", node.span, message));
        }
        fields.push((name.clone(), input.schema.fields[index].field_type.clone()));
    }
    let keys: Vec<usize> = fields.iter().filter_map(|(name, _)| input.schema.index_of(name)).collect();
    let (mut aggregates, mut names, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for Spec { name, span, function, value, sql } in specs {
        if fields.iter().any(|(other, _)| *other == name) {
            let message = format!("`{name}` is a field to group by already");
            maker.problem(Diagnostic::new("TB0209", span, message).help("give the result another name"));
            continue;
        }
        // A count of rows reads nothing.
        let seen = match &value {
            Some(value) => value.field_type()?.clone(),
            None => FieldType::required(tiebeam_core::row::TypeKind::Int64),
        };
        let made = match sql {
            Some(aggregate) => Ok(aggregate),
            None => function.types(&seen).map(|(input, output)| Aggregate {
                function,
                input,
                output,
                skips_null: false,
            }),
        };
        match made {
            Ok(aggregate) => {
                fields.push((name.clone(), aggregate.output.clone()));
                names.push(name);
                values.push(value);
                aggregates.push(aggregate);
            }
            Err(wanted) => {
                let message = format!("`{name}` combines {}, its function wants {wanted}", show(&seen));
                maker.problem(Diagnostic::new("TB0205", span, message));
            }
        }
    }
    let keys = Keys::new(&input.schema, &keys);
    let reads: Arc<Schema> = Arc::new(Schema::of(
        names.iter().cloned().zip(aggregates.iter().map(|aggregate| aggregate.input.clone())),
    ));
    let aggregates = Aggregates::new(&names, aggregates);
    let schema = Arc::new(Schema::of(fields));
    let out = schema.clone();
    Some(Made {
        outputs: vec![(crate::plan::MAIN.into(), schema)],
        build: Box::new(move |_, inputs| {
            let Some(input) = inputs.into_iter().next() else { return Vec::new() };
            let extract = Extract { keys: keys.clone(), values: values.into(), schema: reads.clone() };
            let coder = kv_coder(row_coder(keys.schema().clone()), row_coder(reads));
            let pairs =
                input.step("Values").apply(ParDo::new(extract).with_coder(coder).with_arity(Arity::OneToOne));
            let combined = pairs.combine_per_key(aggregates);
            let back = ParDo::new(Back { keys, schema: out.clone() });
            vec![combined.step("Rows").apply(back.with_coder(row_coder(out)).with_arity(Arity::OneToOne))]
        }),
    })
}

/// The key of a row, and what the aggregations read of it.
#[derive(Clone)]
struct Extract {
    keys: Keys,
    values: Arc<[Option<Expression>]>,
    schema: Arc<Schema>,
}

impl DoFn for Extract {
    type In = Row;
    type Out = (Row, Row);

    fn process(&mut self, row: Row, _: &ElementContext<'_>, out: &mut Output<(Row, Row)>) -> Result<()> {
        let mut values = Vec::with_capacity(self.values.len());
        for (expression, field) in self.values.iter().zip(&self.schema.fields) {
            let Some(expression) = expression else {
                values.push(Value::Int64(1));
                continue;
            };
            let value = expression.evaluate(&row).and_then(|value| match value {
                Value::Null if !field.field_type.nullable => {
                    Err(Raised::new("TypeError", format!("`{}` cannot combine None", field.name)))
                }
                value => conform(value, &field.field_type),
            });
            values.push(value.map_err(|raised| Failing::raised(expression, &raised).into_error())?);
        }
        out.emit((self.keys.of(&row), Row::new(self.schema.clone(), values)));
        Ok(())
    }
}

/// Key and results as one row.
#[derive(Clone)]
pub(crate) struct Back {
    pub(crate) keys: Keys,
    pub(crate) schema: Arc<Schema>,
}

impl DoFn for Back {
    type In = (Row, Row);
    type Out = Row;

    fn process(
        &mut self,
        (key, results): (Row, Row),
        _: &ElementContext<'_>,
        out: &mut Output<Row>,
    ) -> Result<()> {
        let values: Vec<Value> = self.keys.back(&key).chain(results.values.iter().cloned()).collect();
        out.emit(Row::new(self.schema.clone(), values));
        Ok(())
    }
}
