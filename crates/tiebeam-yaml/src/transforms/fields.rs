//! Transforms of a row's fields: MapToFields, Filter, Explode, Partition, AssignTimestamps, StripErrorMetadata.

use std::sync::Arc;

use tiebeam_core::coder::row_coder;
use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{DoFn, ElementContext, Output, OutputTag, Result, Timestamp};
use tiebeam_graph::{Arity, ParDo};

use super::{ErrorOutput, Failing, RowStep, try_rows};
use crate::build::expand;
use crate::catalog::{ERROR_HANDLING, Inputs, Key, TransformType, Wants, check_keys};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::expression::{Expression, Form, Raised, unknown_column};
use crate::plan::{Collection, MAIN, Made, Maker, expression_text};
use crate::schema::declared_type;

const LANGUAGE: Key = Key::optional("language", Wants::Text, "generic or python; both mean the same here");

pub const TYPES: &[TransformType] = &[
    TransformType {
        name: "MapToFields",
        about: "computes fields from fields",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[
            Key::required(
                "fields",
                Wants::Map,
                "`name: expression`, or `name: {callable: …, output_type: …}`",
            ),
            Key::optional("append", Wants::Bool, "keep the input's fields too"),
            Key::optional("drop", Wants::Texts, "with `append`: fields not to keep"),
            LANGUAGE,
            Key::optional("dependencies", Wants::List, "of Python; must be empty here"),
            ERROR_HANDLING,
        ],
        make: map_to_fields,
    },
    TransformType {
        name: "Filter",
        about: "keeps the rows for which an expression is true",
        inputs: Inputs::One,
        keeps_rows: true,
        keys: &[
            Key::required("keep", Wants::Any, "an expression, or `{callable: …}`"),
            LANGUAGE,
            ERROR_HANDLING,
        ],
        make: filter,
    },
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

/// Whether the `language` is one of ours; tells what is wrong where it is not.
fn check_language(maker: &mut Maker<'_>) -> bool {
    let Some(language) = maker.text("language") else { return true };
    if matches!(&*language, "generic" | "python") {
        return true;
    }
    let span = maker.span("language");
    let problem = match &*language {
        "javascript" | "sql" | "calcite" | "java" => Diagnostic::new(
            "TB0219",
            span,
            format!("the language `{language}` is not available in this build"),
        )
        .help("write the expressions in Python: `language: python`"),
        _ => Diagnostic::new("TB0208", span, format!("unknown language `{language}`"))
            .did_you_mean(&language, ["generic", "python"]),
    };
    maker.problem(problem);
    false
}

/// An expression or callable as files give it: the text itself, or a mapping.
struct Udf {
    form: Form,
    node: Node,
    declared: Option<FieldType>,
}

fn udf(maker: &mut Maker<'_>, node: &Node, place: &str) -> Option<Udf> {
    let Some(entries) = node.as_map() else {
        if expression_text(node).is_none() {
            let message = format!("{place} wants an expression, got {}", node.kind());
            let problem = Diagnostic::new("TB0208", node.span, message);
            maker.problem(problem.help("an expression with `:` or `{` in it is written in quotes"));
            return None;
        }
        return Some(Udf { form: Form::Expression, node: node.clone(), declared: None });
    };
    let keys = [
        Key::optional("expression", Wants::Any, "an expression over the columns"),
        Key::optional("callable", Wants::Text, "`lambda row: …` or `def f(row): …`"),
        Key::optional("output_type", Wants::Any, "the type of the value"),
        Key::optional("path", Wants::Text, "a file of Python"),
        Key::optional("name", Wants::Text, "the function in that file"),
    ];
    if !check_keys(entries, &keys, place, node.span, maker.problems) {
        return None;
    }
    if let Some(path) = entries.iter().find(|entry| matches!(&*entry.key, "path" | "name")) {
        let problem =
            Diagnostic::new("TB0219", path.key_span, "functions in files are not available in this build");
        maker.problem(problem.help("write the function here: `callable: |`"));
        return None;
    }
    let declared = match node.get("output_type").map(declared_type) {
        Some(Err(problem)) => {
            maker.problem(problem);
            return None;
        }
        Some(Ok(declared)) => Some(declared),
        None => None,
    };
    match (node.get("expression"), node.get("callable")) {
        (Some(expression), None) if expression_text(expression).is_some() => {
            Some(Udf { form: Form::Expression, node: expression.clone(), declared })
        }
        (None, Some(callable)) => Some(Udf { form: Form::Callable, node: callable.clone(), declared }),
        (Some(_), Some(callable)) => {
            let message = format!("{place} has both `expression` and `callable`");
            maker.problem(Diagnostic::new("TB0208", callable.span, message));
            None
        }
        _ => {
            maker.problem(Diagnostic::new(
                "TB0207",
                node.span,
                format!("{place} lacks `expression` or `callable`"),
            ));
            None
        }
    }
}

/// A string, or a list of strings, each with its node.
fn texts(node: Option<&Node>) -> Vec<(Arc<str>, Node)> {
    match node.map(|node| (node, &node.content)) {
        Some((node, Content::String(text))) => vec![(text.clone(), node.clone())],
        Some((_, Content::List(items))) => {
            items.iter().filter_map(|item| Some((item.as_str()?.clone(), item.clone()))).collect()
        }
        _ => Vec::new(),
    }
}

/// The names that are columns of the input; others are told.
fn known_columns(
    maker: &mut Maker<'_>,
    names: Vec<(Arc<str>, Node)>,
    input: &Collection,
) -> Vec<(Arc<str>, Node)> {
    let (known, unknown): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|(name, _)| input.schema.index_of(name).is_some());
    for (name, node) in unknown {
        maker.problem(unknown_column(&name, node.span, &input.schema, Some(&input.producer)));
    }
    known
}

fn map_to_fields(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    if !check_language(maker) {
        return None;
    }
    if let Some(dependencies) = maker.get("dependencies")
        && dependencies.as_list().is_some_and(|list| !list.is_empty())
    {
        let span = dependencies.span;
        maker.problem(Diagnostic::new("TB0219", span, "Python packages are not available in expressions"));
    }
    let append = maker.flag("append");
    let drop = texts(maker.get("drop"));
    if let (false, Some((_, node))) = (append, drop.first()) {
        let problem = Diagnostic::new("TB0208", node.span, "`drop` needs `append: true`");
        maker.problem(problem.help("without `append`, only the computed fields are kept"));
    }
    let drop = known_columns(maker, drop, &input);
    let dropped = |name: &str| drop.iter().any(|(dropped, _)| **dropped == *name);

    let mut fields: Vec<(Arc<str>, FieldType)> = Vec::new();
    let mut steps = Vec::new();
    if append {
        for (index, field) in
            input.schema.fields.iter().enumerate().filter(|(_, field)| !dropped(&field.name))
        {
            fields.push((field.name.clone(), field.field_type.clone()));
            steps.push(FieldStep::Copy(index));
        }
    }
    for entry in maker.get("fields")?.as_map()?.to_vec() {
        if fields.iter().any(|(name, _)| *name == entry.key) {
            let message = format!("field `{}` is in the input already", entry.key);
            let problem = Diagnostic::new("TB0209", entry.key_span, message);
            maker.problem(problem.help(format!("name it in `drop: [{}]`, or give another name", entry.key)));
            continue;
        }
        let place = format!("field `{}`", entry.key);
        let Some(udf) = udf(maker, &entry.value, &place) else { continue };
        let Some(expression) = maker.expression(udf.form, &udf.node, &input, udf.declared) else { continue };
        let Some(field) = expression.field_type() else { continue };
        fields.push((entry.key.clone(), field.clone()));
        steps.push(FieldStep::Compute(expression));
    }
    let schema = Arc::new(Schema::of(fields));
    let step = MapStep { steps: steps.into(), schema: schema.clone() };
    Some(one_to_one(maker, &input, schema, Arity::OneToOne, step))
}

/// A transform of rows with its error output.
pub fn one_to_one(
    maker: &mut Maker<'_>,
    input: &Collection,
    schema: Arc<Schema>,
    arity: Arity,
    step: impl RowStep,
) -> Made {
    let errors = maker.errors(FieldType::required(TypeKind::Row(input.schema.clone())));
    let mut outputs = vec![(MAIN.into(), schema.clone())];
    outputs.extend(errors.clone());
    let errors = errors.map(|(name, schema)| ErrorOutput::new(&name, schema));
    Made {
        outputs,
        build: Box::new(move |_, inputs| match inputs.into_iter().next() {
            Some(input) => try_rows(input, schema, errors, arity, step),
            None => Vec::new(),
        }),
    }
}

#[derive(Clone)]
enum FieldStep {
    Copy(usize),
    Compute(Expression),
}

#[derive(Clone)]
struct MapStep {
    steps: Arc<[FieldStep]>,
    schema: Arc<Schema>,
}

impl RowStep for MapStep {
    fn step(
        &mut self,
        row: Row,
        _: &ElementContext<'_>,
        out: &mut Output<Row>,
    ) -> Result<(), (Row, Failing)> {
        let mut failing = None;
        // The number of values is known, so that they are written straight into what the row shares.
        let values: Arc<[Value]> = self
            .steps
            .iter()
            .map(|step| match step {
                FieldStep::Copy(index) => row.values.get(*index).cloned().unwrap_or(Value::Null),
                FieldStep::Compute(_) if failing.is_some() => Value::Null,
                FieldStep::Compute(expression) => expression.evaluate(&row).unwrap_or_else(|raised| {
                    failing = Some(Failing::raised(expression, &raised));
                    Value::Null
                }),
            })
            .collect();
        match failing {
            Some(failing) => Err((row, failing)),
            None => {
                out.emit(Row { schema: self.schema.clone(), values });
                Ok(())
            }
        }
    }
}

fn filter(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    if !check_language(maker) {
        return None;
    }
    let keep = maker.get("keep")?.clone();
    let udf = udf(maker, &keep, "`keep`")?;
    let keep = maker.condition(udf.form, &udf.node, &input)?;
    Some(one_to_one(maker, &input, input.schema.clone(), Arity::Filter, FilterStep { keep: Arc::new(keep) }))
}

#[derive(Clone)]
struct FilterStep {
    keep: Arc<Expression>,
}

impl RowStep for FilterStep {
    fn step(
        &mut self,
        row: Row,
        _: &ElementContext<'_>,
        out: &mut Output<Row>,
    ) -> Result<(), (Row, Failing)> {
        match self.keep.holds(&row) {
            Ok(true) => out.emit(row),
            Ok(false) => {}
            Err(raised) => return Err((row, Failing::raised(&self.keep, &raised))),
        }
        Ok(())
    }
}

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
