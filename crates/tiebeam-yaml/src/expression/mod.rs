//! Expressions over rows: a typed part of Python, parsed and checked once, run without parsing.
//!
//! What is there: literals, columns by name, arithmetic as Python does it (true division, floors, exact comparisons of
//! integers and floats), chained comparisons, `and`, `or`, `not`, `in`, conditionals, f-strings, the methods of strings,
//! lists and dicts, the usual functions, comprehensions; `lambda row: …`, and `def f(row):` with assignments, `if`,
//! `return` and `raise`. Integers have 64 bits: what does not fit raises OverflowError. What is not there is refused by
//! name. Types are inferred from the columns', so an expression that cannot work is refused before the run.

#![allow(missing_docs)] // the parts are private; what is public is documented here

mod builtins;
mod check;
mod evaluate;
mod format;
mod interpreter;
#[cfg(feature = "javascript")]
mod javascript;
mod methods;
mod number;
mod parse;
mod python;
pub mod sql;
mod token;
mod tree;
mod types;

use std::sync::Arc;

use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};

pub use check::unknown_column;
pub use evaluate::Raised;
pub use interpreter::functions as python_functions;
pub use number::{order, truth};
pub use python::with_last;
pub use types::{Type, columns, show};

use self::check::{Body, Checked};
use self::evaluate::Frame;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// How a value is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An expression over the columns.
    Expression,
    /// A function of the row.
    Callable,
    /// SQL over the columns.
    Sql,
    /// An expression of JavaScript over the columns.
    JavaScript,
    /// A function of the row, of JavaScript.
    JavaScriptCallable,
}

/// An expression that was checked against a schema.
#[derive(Debug, Clone)]
pub struct Expression {
    text: Arc<str>,
    body: Body,
    locals: usize,
    output: Option<FieldType>,
    /// The value of one column as it is.
    bare: Option<usize>,
}

impl Expression {
    /// Parses and checks `text` for rows of `schema`, made by the transform called `producer`. With `declared`, every
    /// value is held to that type; without, the type is inferred.
    ///
    /// # Errors
    /// All that is wrong with it, with places in `text`.
    pub fn new(
        form: Form,
        text: &str,
        schema: &Arc<Schema>,
        producer: Option<&str>,
        declared: Option<FieldType>,
    ) -> Result<Self, Vec<Diagnostic>> {
        if form == Form::Sql {
            return Self::sql(text, schema, producer, declared);
        }
        if matches!(form, Form::JavaScript | Form::JavaScriptCallable) {
            return Self::javascript(form, text, schema, Some(declared));
        }
        let checked = Self::checked(form, text, schema, producer)?;
        let whole = Span::new(0, text.len());
        let output = match (&declared, checked.bare) {
            (Some(declared), _) => {
                if let Err(message) = check::may_become(&checked.result, declared) {
                    return Err(vec![Diagnostic::new("TB0205", whole, message)]);
                }
                declared.clone()
            }
            (None, Some(index)) => schema.fields[index].field_type.clone(),
            (None, None) => match checked.result.to_field() {
                Some(field) => field,
                None => {
                    let problem = check::untold(&checked.result, whole);
                    return Err(vec![match checked.foreign.first() {
                        Some(foreign) => {
                            problem.note(format!("it is left to Python itself: {}", foreign.message))
                        }
                        None => problem,
                    }]);
                }
            },
        };
        let bare = checked.bare.filter(|index| output == schema.fields[*index].field_type);
        let Checked { body, locals, .. } = checked;
        Ok(Expression { text: text.into(), body, locals, output: Some(output), bare })
    }

    /// An expression that is only asked whether it is true.
    ///
    /// # Errors
    /// As [`new`](Expression::new).
    pub fn condition(
        form: Form,
        text: &str,
        schema: &Arc<Schema>,
        producer: Option<&str>,
    ) -> Result<Self, Vec<Diagnostic>> {
        if form == Form::Sql {
            return Self::sql_condition(text, schema, producer);
        }
        if matches!(form, Form::JavaScript | Form::JavaScriptCallable) {
            return Self::javascript(form, text, schema, None);
        }
        let Checked { body, locals, .. } = Self::checked(form, text, schema, producer)?;
        Ok(Expression { text: text.into(), body, locals, output: None, bare: None })
    }

    /// In a build without it, JavaScript is refused where it stands.
    #[cfg(not(feature = "javascript"))]
    fn javascript(
        _: Form,
        text: &str,
        _: &Arc<Schema>,
        _: Option<Option<FieldType>>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let whole = Span::new(0, text.len());
        let problem = Diagnostic::new("TB0219", whole, "this build was made without JavaScript");
        Err(vec![problem.help("build it with the feature `javascript`, or write it in Python")])
    }

    /// A column as it is; none where the schema has none of that name.
    pub fn column(name: &str, schema: &Schema) -> Option<Self> {
        let index = schema.index_of(name)?;
        Some(Expression {
            text: name.into(),
            body: Body::Value(evaluate::Code {
                span: Span::new(0, name.len()),
                op: evaluate::Op::Column(index),
            }),
            locals: 0,
            output: Some(schema.fields[index].field_type.clone()),
            bare: Some(index),
        })
    }

    fn checked(
        form: Form,
        text: &str,
        schema: &Arc<Schema>,
        producer: Option<&str>,
    ) -> Result<Checked, Vec<Diagnostic>> {
        let alone = if form == Form::Callable { python::alone(text) } else { None };
        let (own, others) = match &alone {
            Some((own, others)) => (own.as_str(), others.as_slice()),
            None => (text, &[][..]),
        };
        // A column's own name needs no Python, whatever it is.
        let program = match schema.index_of(text.trim()) {
            Some(_) if form == Form::Expression => tree::Program::Columns(tree::Expr {
                span: Span::new(0, text.len()),
                depth: 1,
                kind: tree::ExprKind::Name(text.trim().into()),
            }),
            _ => {
                let parsed = match form {
                    Form::Expression => parse::expression(own),
                    _ => parse::callable(own),
                };
                match parsed {
                    Ok(program) => program,
                    Err(problem) => return Self::foreign(form, text, schema, producer, problem),
                }
            }
        };
        let mut checked = check::check(&program, schema, producer, others);
        if !checked.problems.is_empty() {
            // What Python would give is no mistake of its own.
            return Err(checked.problems);
        }
        if !checked.foreign.is_empty() {
            checked.body =
                Body::Python(python::program(form, text, schema).map_err(|problem| vec![problem])?);
            checked.bare = None;
        }
        Ok(checked)
    }

    /// A text that the typed part cannot read; `problem` is what it says. Its names are looked at, its type is unknown.
    fn foreign(
        form: Form,
        text: &str,
        schema: &Arc<Schema>,
        producer: Option<&str>,
        problem: Diagnostic,
    ) -> Result<Checked, Vec<Diagnostic>> {
        if problem.code != "TB0219" {
            return Err(vec![problem]);
        }
        // What Python itself cannot read is told as it tells it.
        let program = match python::program(form, text, schema) {
            Ok(program) => program,
            Err(told) if told.message.starts_with("SyntaxError") => return Err(vec![told]),
            Err(_) => return Err(vec![problem]),
        };
        let unknown = python::unknown_columns(form, text, schema, producer);
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let result = types::Type::ANY;
        Ok(Checked {
            body: Body::Python(program),
            result,
            bare: None,
            locals: 0,
            problems: Vec::new(),
            foreign: vec![problem],
        })
    }

    /// The type of every value; none for a [`condition`](Expression::condition).
    pub fn field_type(&self) -> Option<&FieldType> {
        self.output.as_ref()
    }

    /// The expression's own text.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    fn run(&self, row: &Row) -> Result<Value, Raised> {
        if self.locals == 0 {
            return self.run_in(&mut Frame { row, locals: &mut [] });
        }
        let mut locals = vec![Value::Null; self.locals];
        self.run_in(&mut Frame { row, locals: &mut locals })
    }

    fn run_in(&self, frame: &mut Frame<'_>) -> Result<Value, Raised> {
        match &self.body {
            Body::Value(code) => code.run(frame),
            Body::Steps(steps) => Ok(evaluate::run(steps, frame)?.unwrap_or(Value::Null)),
            Body::Python(program) => program.call(frame.row).map_err(python::raised),
            #[cfg(feature = "javascript")]
            Body::JavaScript(program) => program.call(frame.row).map_err(javascript::raised),
            Body::Sql(code) => sql::run(code, frame.row),
        }
    }

    /// The value for a row of the schema.
    ///
    /// # Errors
    /// The exception that Python would raise, `OverflowError` for integers that do not fit, `TypeError` for a value that
    /// is not of the declared type.
    pub fn evaluate(&self, row: &Row) -> Result<Value, Raised> {
        if let Some(value) = self.bare.and_then(|index| row.values.get(index)) {
            return Ok(value.clone());
        }
        let value = self.run(row)?;
        match &self.output {
            Some(output) => conform(value, output),
            None => Ok(value),
        }
    }

    /// Whether the value is true, as Python sees it.
    ///
    /// # Errors
    /// As [`evaluate`](Expression::evaluate).
    pub fn holds(&self, row: &Row) -> Result<bool, Raised> {
        self.run(row).map(|value| number::truth(&value))
    }

    /// An exception as a stack trace would tell it.
    pub fn trace(&self, raised: &Raised) -> String {
        let mut out = format!("{}: {}", raised.exception, raised.message);
        if let Some(part) = raised.span.and_then(|span| self.text.get(span.range())) {
            out.push_str(&format!("\n  in `{part}`"));
        }
        if raised.span.is_none_or(|span| span.range() != (0..self.text.len())) {
            out.push_str(&format!("\n  of `{}`", self.text.trim()));
        }
        out
    }
}

/// `value` as a column of that type holds it: integers widen to numbers, dicts become rows.
///
/// # Errors
/// When it cannot be such a value.
pub fn conform(value: Value, wanted: &FieldType) -> Result<Value, Raised> {
    let wrong = |value: &Value| {
        let seen = format::repr_of(value);
        let seen: String = seen.chars().take(80).collect();
        Err(Raised::new("TypeError", format!("{seen} is no {}", show(wanted))))
    };
    if value == Value::Null {
        return if wanted.nullable {
            Ok(value)
        } else {
            Err(Raised::new("TypeError", format!("None where a {} is wanted", show(wanted))))
        };
    }
    let int = match (&value, number::number(&value)) {
        (Value::Bool(_), _) => None,
        (_, Some(number::Number::Int(int))) => Some(int),
        _ => None,
    };
    let number = match (&value, number::number(&value)) {
        (Value::Bool(_), _) => None,
        (_, number) => number.map(number::Number::float),
    };
    Ok(match (&wanted.kind, value) {
        (TypeKind::Int64, Value::Int64(int)) => Value::Int64(int),
        (TypeKind::Double, Value::Double(float)) => Value::Double(float),
        (TypeKind::String, value @ Value::String(_))
        | (TypeKind::Boolean, value @ Value::Bool(_))
        | (TypeKind::Bytes, value @ Value::Bytes(_)) => value,
        (TypeKind::Array(of) | TypeKind::Iterable(of), Value::Array(items)) => {
            Value::Array(items.iter().map(|item| conform(item.clone(), of)).collect::<Result<_, _>>()?)
        }
        (TypeKind::Map(key, of), Value::Map(entries)) => Value::Map(
            entries
                .iter()
                .map(|(k, v)| Ok((conform(k.clone(), key)?, conform(v.clone(), of)?)))
                .collect::<Result<_, Raised>>()?,
        ),
        (TypeKind::Map(key, of), Value::Row(row)) => Value::Map(
            row.schema
                .fields
                .iter()
                .zip(row.values.iter())
                .map(|(f, v)| Ok((conform(Value::String(f.name.clone()), key)?, conform(v.clone(), of)?)))
                .collect::<Result<_, Raised>>()?,
        ),
        (TypeKind::Row(schema), Value::Row(row)) if row.schema == *schema => Value::Row(row),
        (TypeKind::Row(schema), Value::Row(row)) => conform_row(schema, |name| row.get(name).cloned())?,
        (TypeKind::Row(schema), Value::Map(entries)) => conform_row(schema, |name| {
            let found = entries.iter().find(|(key, _)| matches!(key, Value::String(key) if **key == *name));
            found.map(|(_, value)| value.clone())
        })?,
        (TypeKind::Logical(logical), value) => {
            let representation = FieldType { nullable: wanted.nullable, ..logical.representation.clone() };
            conform(value, &representation)?
        }
        (kind, value) => match (kind, int, number) {
            (TypeKind::Int64, Some(int), _) => Value::Int64(int),
            (TypeKind::Int32, Some(int), _) if i32::try_from(int).is_ok() => Value::Int32(int as i32),
            (TypeKind::Int16, Some(int), _) if i16::try_from(int).is_ok() => Value::Int16(int as i16),
            (TypeKind::Byte, Some(int), _) if i8::try_from(int).is_ok() => Value::Byte(int as i8),
            (TypeKind::Double, _, Some(number)) => Value::Double(number),
            (TypeKind::Float, _, Some(number)) => Value::Float(number as f32),
            _ => return wrong(&value),
        },
    })
}

fn conform_row(schema: &Arc<Schema>, get: impl Fn(&str) -> Option<Value>) -> Result<Value, Raised> {
    let values: Vec<Value> = schema
        .fields
        .iter()
        .map(|field| conform(get(&field.name).unwrap_or(Value::Null), &field.field_type))
        .collect::<Result<_, _>>()?;
    Ok(Value::Row(Row::new(schema.clone(), values)))
}

/// A value as Python's `str` writes it.
pub fn python_str(value: &Value) -> String {
    format::str_of(value)
}

/// A value as Python's `repr` writes it.
pub fn python_repr(value: &Value) -> String {
    format::repr_of(value)
}

#[cfg(test)]
mod tests;
