//! Transforms of a row's fields: MapToFields and Filter.

use std::sync::Arc;

use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{ElementContext, Output};
use tiebeam_graph::Arity;

use super::{ErrorOutput, Failing, RowStep, try_rows};
use crate::catalog::{ERROR_HANDLING, Inputs, Key, TransformType, Wants, check_keys};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::expression::{Expression, Form, unknown_column, with_last};
use crate::plan::{Collection, MAIN, Made, Maker, expression_text};
use crate::schema::declared_type;

pub const LANGUAGE: Key =
    Key::optional("language", Wants::Text, "generic, python (both mean the same here), javascript or sql");

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
];

/// Whether the `language` is one of ours; tells what is wrong where it is not.
pub fn check_language(maker: &mut Maker<'_>) -> bool {
    let Some(language) = maker.text("language") else { return true };
    if matches!(&*language, "generic" | "python" | "javascript" | "sql" | "calcite") {
        return true;
    }
    let span = maker.span("language");
    let problem = match &*language {
        "java" => Diagnostic::new(
            "TB0219",
            span,
            format!("the language `{language}` is not available in this build"),
        )
        .help("write the expressions in Python: `language: python`"),
        _ => Diagnostic::new("TB0208", span, format!("unknown language `{language}`"))
            .did_you_mean(&language, ["generic", "python", "javascript", "sql"]),
    };
    maker.problem(problem);
    false
}

/// The forms of expressions and of functions in a transform's language; SQL has no functions.
fn forms(maker: &Maker<'_>) -> (Form, Option<Form>) {
    match maker.text("language").as_deref() {
        Some("sql" | "calcite") => (Form::Sql, None),
        Some("javascript") => (Form::JavaScript, Some(Form::JavaScriptCallable)),
        _ => (Form::Expression, Some(Form::Callable)),
    }
}

/// An expression or callable as files give it: the text itself, or a mapping.
pub struct Udf {
    pub form: Form,
    pub node: Node,
    pub declared: Option<FieldType>,
}

pub fn udf(maker: &mut Maker<'_>, node: &Node, place: &str) -> Option<Udf> {
    let (expression, function) = forms(maker);
    let Some(entries) = node.as_map() else {
        if expression_text(node).is_none() {
            let message = format!("{place} wants an expression, got {}", node.kind());
            let problem = Diagnostic::new("TB0208", node.span, message);
            maker.problem(problem.help("an expression with `:` or `{` in it is written in quotes"));
            return None;
        }
        return Some(Udf { form: expression, node: node.clone(), declared: None });
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
    let declared = match node.get("output_type").map(declared_type) {
        Some(Err(problem)) => {
            maker.problem(problem);
            return None;
        }
        Some(Ok(declared)) => Some(declared),
        None => None,
    };
    let form = expression;
    let given = node.get("callable").or(node.get("path"));
    let callable_form = match (function, given) {
        (Some(function), _) => function,
        (None, None) => form,
        (None, Some(given)) => {
            let message = "SQL has expressions, and no functions of its own";
            let problem = Diagnostic::new("TB0219", given.span, message);
            maker.problem(problem.help("write an `expression`, or `language: python`"));
            return None;
        }
    };
    if let Some(path) = node.get("path") {
        let node = in_file(maker, path, node.get("name"), place, callable_form)?;
        return Some(Udf { form: callable_form, node, declared });
    }
    match (node.get("expression"), node.get("callable")) {
        (Some(expression), None) if expression_text(expression).is_some() => {
            Some(Udf { form, node: expression.clone(), declared })
        }
        (None, Some(callable)) => Some(Udf { form: callable_form, node: callable.clone(), declared }),
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

/// The function that a file has, as it would stand here.
fn in_file(maker: &mut Maker<'_>, path: &Node, name: Option<&Node>, place: &str, form: Form) -> Option<Node> {
    let Some(name) = name else {
        let message = format!("{place} lacks the key `name`");
        let problem = Diagnostic::new("TB0207", path.span, message);
        maker.problem(problem.help("name: the function in that file"));
        return None;
    };
    let (file, wanted) = (path.as_str()?, name.as_str()?);
    let text = match std::fs::read_to_string(&**file) {
        Ok(text) => text,
        Err(error) => {
            let problem = Diagnostic::new("TB0244", path.span, format!("`{file}` cannot be read: {error}"));
            maker.problem(problem.help("the path is taken from the folder that the command runs in"));
            return None;
        }
    };
    if form == Form::JavaScriptCallable {
        // What the text ends with is its value: the function of that name.
        let text = format!("{text}\n;{wanted}");
        return Some(Node { span: path.span, content: Content::String(text.into()) });
    }
    match with_last(&text, wanted) {
        Some(text) => Some(Node { span: path.span, content: Content::String(text.into()) }),
        None => {
            let defined = crate::expression::python_functions(&text);
            let problem =
                Diagnostic::new("TB0208", name.span, format!("`{file}` defines no function `{wanted}`"));
            maker.problem(problem.did_you_mean(wanted, defined.iter().copied()));
            None
        }
    }
}

/// A string, or a list of strings, each with its node.
pub fn texts(node: Option<&Node>) -> Vec<(Arc<str>, Node)> {
    match node.map(|node| (node, &node.content)) {
        Some((node, Content::String(text))) => vec![(text.clone(), node.clone())],
        Some((_, Content::List(items))) => {
            items.iter().filter_map(|item| Some((item.as_str()?.clone(), item.clone()))).collect()
        }
        _ => Vec::new(),
    }
}

/// The names that are columns of the input; others are told.
pub fn known_columns(
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
    let errors = maker.errors_within(FieldType::required(TypeKind::Row(input.schema.clone())));
    let mut outputs = vec![(MAIN.into(), schema.clone())];
    outputs.extend(errors.iter().map(|(name, schema, _)| (name.clone(), schema.clone())));
    let errors = errors.map(|(name, schema, part)| ErrorOutput::new(&name, schema).within(part));
    Made {
        outputs,
        build: Box::new(move |_, inputs| match inputs.into_iter().next() {
            Some(input) => try_rows(input, schema, errors, arity, step),
            None => Vec::new(),
        }),
    }
}

/// What a field of a new row is.
#[derive(Clone)]
pub enum FieldStep {
    Copy(usize),
    Compute(Expression),
}

/// New rows out of rows.
#[derive(Clone)]
pub struct MapStep {
    pub steps: Arc<[FieldStep]>,
    pub schema: Arc<Schema>,
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

/// The rows for which an expression is true.
#[derive(Clone)]
pub struct FilterStep {
    pub keep: Arc<Expression>,
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
