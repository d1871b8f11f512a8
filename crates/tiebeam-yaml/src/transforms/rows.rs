//! Transforms that take rows apart or send them on: Explode, Partition, AssignTimestamps, StripErrorMetadata.

use std::sync::Arc;

use tiebeam_core::coder::row_coder;
use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{DoFn, ElementContext, Output, OutputTag, Result, Timestamp};
use tiebeam_graph::{Arity, ParDo};

use super::fields::{LANGUAGE, check_language, known_columns, one_to_one, texts, udf};
use super::{ErrorOutput, Failing, RowStep, try_rows};
use crate::build::expand;
use crate::catalog::{ERROR_HANDLING, Inputs, Key, TransformType, Wants};
use crate::diagnostic::Diagnostic;
use crate::expression::{Expression, Raised};
use crate::plan::{MAIN, Made, Maker};

pub const TYPES: &[TransformType] = &[
    TransformType {
        name: "Explode",
        about: "one row for each value of a list",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[
            Key::required("fields", Wants::Texts, "the fields that hold lists"),
            Key::optional(
                "cross_product",
                Wants::Bool,
                "with several fields: all combinations, or value by value",
            ),
            ERROR_HANDLING,
        ],
        make: explode,
    },
    TransformType {
        name: "Partition",
        about: "sends each row to the output that an expression names",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[
            Key::required("by", Wants::Any, "an expression that gives the output's name"),
            Key::required("outputs", Wants::Texts, "the names of the outputs"),
            Key::optional("unknown_output", Wants::Text, "the output of rows whose name is none of them"),
            LANGUAGE,
            ERROR_HANDLING,
        ],
        make: partition,
    },
    TransformType {
        name: "AssignTimestamps",
        about: "gives each row the event time that an expression tells, in seconds since 1970",
        inputs: Inputs::One,
        keeps_rows: true,
        keys: &[
            Key::required("timestamp", Wants::Any, "an expression that gives a number of seconds"),
            LANGUAGE,
            ERROR_HANDLING,
        ],
        make: assign_timestamps,
    },
    TransformType {
        name: "StripErrorMetadata",
        about: "the elements of an error output, as they were",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[],
        make: strip_error_metadata,
    },
];

fn explode(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    let names = texts(maker.get("fields"));
    let many = names.len() > 1;
    let cross_product = maker.flag("cross_product");
    if many && maker.get("cross_product").is_none() {
        let span = maker.span("fields");
        maker.problem(
            Diagnostic::new("TB0207", span, "`Explode` of several fields lacks `cross_product`")
                .help("true for all combinations, false for value by value"),
        );
    }
    let mut fields = input.schema.fields.clone();
    let mut indexes = Vec::new();
    for (name, node) in known_columns(maker, names, &input) {
        let Some(index) = input.schema.index_of(&name) else { continue };
        match &input.schema.fields[index].field_type.kind {
            TypeKind::Array(item) | TypeKind::Iterable(item) => {
                // Value by value, the shorter lists are filled up with nulls.
                let nullable = item.nullable || (many && !cross_product);
                fields[index].field_type = FieldType { nullable, ..(**item).clone() };
                indexes.push(index);
            }
            // A text is a list of its characters, as in Python.
            TypeKind::String => {
                fields[index].field_type.nullable |= many && !cross_product;
                indexes.push(index);
            }
            _ => {
                let seen = crate::expression::show(&input.schema.fields[index].field_type);
                let message = format!("`{name}` is {seen}, not a list");
                maker.problem(Diagnostic::new("TB0205", node.span, message));
            }
        }
    }
    let schema = Arc::new(Schema { fields, ..Schema::default() });
    let step = ExplodeStep {
        indexes: indexes.into(),
        cross_product: cross_product || !many,
        schema: schema.clone(),
    };
    Some(one_to_one(maker, &input, schema, Arity::Any, step))
}

#[derive(Clone)]
struct ExplodeStep {
    indexes: Arc<[usize]>,
    cross_product: bool,
    schema: Arc<Schema>,
}

impl ExplodeStep {
    fn combinations(&self, values: &mut Vec<Value>, lists: &[(usize, Arc<[Value]>)], out: &mut Output<Row>) {
        let Some(((index, list), rest)) = lists.split_first() else {
            out.emit(Row::new(self.schema.clone(), values.clone()));
            return;
        };
        for value in list.iter() {
            values[*index] = value.clone();
            self.combinations(values, rest, out);
        }
    }
}

impl RowStep for ExplodeStep {
    fn step(
        &mut self,
        row: Row,
        _: &ElementContext<'_>,
        out: &mut Output<Row>,
    ) -> Result<(), (Row, Failing)> {
        let mut lists = Vec::with_capacity(self.indexes.len());
        for index in self.indexes.iter() {
            match row.values.get(*index) {
                Some(Value::Array(items)) => lists.push((*index, items.clone())),
                Some(Value::String(text)) => {
                    let letter = |c: char| Value::String(c.encode_utf8(&mut [0; 4]).into());
                    lists.push((*index, text.chars().map(letter).collect()));
                }
                _ => {
                    let raised = Raised::new("TypeError", "'NoneType' object is not iterable");
                    return Err((row, Failing::plain(&raised)));
                }
            }
        }
        let mut values = row.values.to_vec();
        if self.cross_product {
            self.combinations(&mut values, &lists, out);
            return Ok(());
        }
        let longest = lists.iter().map(|(_, list)| list.len()).max().unwrap_or(0);
        for at in 0..longest {
            for (index, list) in &lists {
                values[*index] = list.get(at).cloned().unwrap_or(Value::Null);
            }
            out.emit(Row::new(self.schema.clone(), values.clone()));
        }
        Ok(())
    }
}

fn partition(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    if !check_language(maker) {
        return None;
    }
    let by = maker.get("by")?.clone();
    let udf = udf(maker, &by, "`by`")?;
    let by = maker.expression(udf.form, &udf.node, &input, Some(FieldType::nullable(TypeKind::String)));
    let mut names: Vec<Arc<str>> = texts(maker.get("outputs")).into_iter().map(|(name, _)| name).collect();
    let unknown = maker.text("unknown_output");
    if let Some(unknown) = unknown.clone().filter(|unknown| !names.contains(unknown)) {
        names.push(unknown);
    }
    let errors = maker.errors(FieldType::required(TypeKind::Row(input.schema.clone())));
    if let Some((name, _)) = errors.as_ref().filter(|(name, _)| names.contains(name)) {
        let span = maker.span("error_handling");
        maker.problem(Diagnostic::new(
            "TB0209",
            span,
            format!("the error output `{name}` is one of `outputs`"),
        ));
    }
    let by = Arc::new(by?);
    let mut outputs: Vec<(Arc<str>, Arc<Schema>)> =
        names.iter().map(|name| (name.clone(), input.schema.clone())).collect();
    outputs.extend(errors.clone());
    let errors =
        errors.map(|(name, schema)| (OutputTag::<Row>::new(name.clone()), ErrorOutput::new(&name, schema)));
    let tags: Arc<[OutputTag<Row>]> = names.iter().map(|name| OutputTag::new(name.clone())).collect();
    let unknown = unknown.and_then(|unknown| names.iter().position(|name| *name == unknown));
    let dofn = PartitionFn { by, tags: tags.clone(), unknown, errors: errors.clone() };
    let schema = input.schema.clone();
    Some(Made {
        outputs,
        build: Box::new(move |_, inputs| {
            let Some(input) = inputs.into_iter().next() else { return Vec::new() };
            let coder = row_coder(schema);
            let mut tagged = tags.iter();
            let Some(first) = tagged.next() else { return vec![input] };
            let mut par_do = ParDo::<Row, Row>::new(dofn)
                .with_coder(coder.clone())
                .with_arity(Arity::OneToOne)
                .with_coded_output(first, coder.clone());
            for tag in tagged {
                par_do = par_do.with_coded_output(tag, coder.clone());
            }
            if let Some((tag, errors)) = &errors {
                par_do = par_do.with_dead_letters(tag, row_coder(errors.schema().clone()));
            }
            let outputs = expand(par_do, input);
            let failed = errors.iter().map(|(tag, _)| outputs.get(tag));
            tags.iter().map(|tag| outputs.get(tag)).chain(failed).collect()
        }),
    })
}

#[derive(Clone)]
struct PartitionFn {
    by: Arc<Expression>,
    tags: Arc<[OutputTag<Row>]>,
    unknown: Option<usize>,
    errors: Option<(OutputTag<Row>, ErrorOutput)>,
}

impl DoFn for PartitionFn {
    type In = Row;
    type Out = Row;

    fn process(&mut self, row: Row, _: &ElementContext<'_>, out: &mut Output<Row>) -> Result<()> {
        let name = match self.by.evaluate(&row) {
            Ok(Value::String(name)) => Ok(Some(name)),
            Ok(_) => Ok(None),
            Err(raised) => Err(Failing::raised(&self.by, &raised)),
        };
        let found = name.and_then(|name| {
            let known = name.as_ref().and_then(|name| self.tags.iter().position(|tag| tag.name() == name));
            known.or(self.unknown).ok_or_else(|| {
                let seen = name.map_or("None".to_owned(), |name| format!("`{name}`"));
                Failing::plain(&Raised::new("ValueError", format!("no output is called {seen}")))
            })
        });
        match (found, &self.errors) {
            (Ok(index), _) => out.emit_to(&self.tags[index], row),
            (Err(failing), Some((tag, errors))) => {
                out.emit_to(tag, errors.row(Value::Row(row), failing.message(), failing.stack()));
            }
            (Err(failing), None) => return Err(failing.into_error()),
        }
        Ok(())
    }
}

fn assign_timestamps(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    if !check_language(maker) {
        return None;
    }
    let timestamp = maker.get("timestamp")?.clone();
    let udf = udf(maker, &timestamp, "`timestamp`")?;
    let seconds =
        maker.expression(udf.form, &udf.node, &input, Some(FieldType::required(TypeKind::Double)))?;
    let step = TimestampStep { seconds: Arc::new(seconds) };
    Some(one_to_one(maker, &input, input.schema.clone(), Arity::OneToOne, step))
}

#[derive(Clone)]
struct TimestampStep {
    seconds: Arc<Expression>,
}

impl RowStep for TimestampStep {
    fn step(
        &mut self,
        row: Row,
        cx: &ElementContext<'_>,
        out: &mut Output<Row>,
    ) -> Result<(), (Row, Failing)> {
        match self.seconds.evaluate(&row) {
            Ok(Value::Double(seconds)) if seconds.is_finite() => {
                let timestamp = Timestamp::from_micros((seconds * 1e6).round() as i64);
                out.emit_with(row, &cx.info().at(timestamp));
                Ok(())
            }
            Ok(other) => {
                let raised = Raised::new("ValueError", format!("{other:?} is no time"));
                Err((row, Failing::raised(&self.seconds, &raised)))
            }
            Err(raised) => Err((row, Failing::raised(&self.seconds, &raised))),
        }
    }
}

fn strip_error_metadata(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    let names = ["element", "failed_row", "record"];
    let found = names.iter().find_map(|name| input.schema.index_of(name));
    let Some(index) = found else {
        let span = maker.step.title_span();
        let problem = Diagnostic::new("TB0204", span, format!("`{}` gives no error output", input.producer));
        maker.problem(problem.note(format!("columns here: {}", crate::expression::columns(&input.schema))));
        return None;
    };
    let field = &input.schema.fields[index];
    let schema = match &field.field_type.kind {
        TypeKind::Row(schema) => schema.clone(),
        _ => Arc::new(Schema::of([(field.name.clone(), field.field_type.clone())])),
    };
    let step = StripStep { index, schema: schema.clone() };
    Some(Made {
        outputs: vec![(MAIN.into(), schema.clone())],
        build: Box::new(move |_, inputs| match inputs.into_iter().next() {
            Some(input) => try_rows(input, schema, None, Arity::OneToOne, step),
            None => Vec::new(),
        }),
    })
}

#[derive(Clone)]
struct StripStep {
    index: usize,
    schema: Arc<Schema>,
}

impl RowStep for StripStep {
    fn step(
        &mut self,
        row: Row,
        _: &ElementContext<'_>,
        out: &mut Output<Row>,
    ) -> Result<(), (Row, Failing)> {
        match row.values.get(self.index) {
            Some(Value::Row(element)) => out.emit(element.clone()),
            Some(value) => out.emit(Row::new(self.schema.clone(), vec![value.clone()])),
            None => {}
        }
        Ok(())
    }
}
