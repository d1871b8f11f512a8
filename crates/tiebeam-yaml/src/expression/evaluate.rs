//! Expressions that were checked, and how they run on a row.

use std::sync::Arc;

use tiebeam_core::row::{Row, Schema, Value};

use super::format::{Spec, repr_of, str_of};
use super::number::{
    binary, bounded, contains, equal, invert, negate, number, order, plus, truth, type_name,
};
use super::tree::{Binary, Compare};
use crate::source::Span;

type Result<T> = std::result::Result<T, Raised>;

/// An exception as Python has them: what a failing row is told by.
#[derive(Debug, Clone, PartialEq)]
pub struct Raised {
    /// Its name, such as `ZeroDivisionError`.
    pub exception: Arc<str>,
    /// Its message.
    pub message: String,
    /// Where in the expression's text.
    pub span: Option<Span>,
}

impl Raised {
    /// An exception of that name.
    pub fn new(exception: &str, message: impl Into<String>) -> Self {
        Raised { exception: exception.into(), message: message.into(), span: None }
    }

    fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }
}

/// What a function of the tables does.
pub type Call = fn(&[Value]) -> Result<Value>;

#[derive(Debug, Clone)]
pub struct Code {
    pub span: Span,
    pub op: Op,
}

#[derive(Debug, Clone)]
pub enum Op {
    Constant(Value),
    Column(usize),
    /// The whole row, of a callable.
    Row,
    Local(usize),
    Field(Box<Code>, usize),
    Format(Vec<FormatPiece>),
    List(Vec<Code>),
    Dict(Vec<(Code, Code)>),
    MakeRow(Arc<Schema>, Vec<Code>),
    Comprehension {
        item: Box<Code>,
        slot: usize,
        of: Box<Code>,
        conditions: Vec<Code>,
    },
    Not(Box<Code>),
    Minus(Box<Code>),
    Plus(Box<Code>),
    Invert(Box<Code>),
    Binary(Binary, Box<Code>, Box<Code>),
    Compare(Box<Code>, Vec<(Compare, Code)>),
    And(Box<Code>, Box<Code>),
    Or(Box<Code>, Box<Code>),
    If(Box<[Code; 3]>),
    Index(Box<Code>, Box<Code>),
    Slice(Box<Code>, Box<[Option<Code>; 3]>),
    Call(Call, Vec<Code>),
    /// A method of a value whose type is known only now.
    Method(Arc<str>, Vec<Code>),
    /// A field or column of a value whose type is known only now.
    Attribute(Box<Code>, Arc<str>),
}

#[derive(Debug, Clone)]
pub enum FormatPiece {
    Text(Arc<str>),
    Value { value: Code, repr: bool, spec: Option<Spec> },
}

#[derive(Debug, Clone)]
pub enum Step {
    Assign(usize, Code),
    If(Code, Vec<Step>, Vec<Step>),
    Return(Code),
    Raise(Arc<str>, Option<Code>, Span),
}

/// The row and the local values of one evaluation.
pub struct Frame<'a> {
    pub row: &'a Row,
    pub locals: &'a mut [Value],
}

/// Runs the statements of a function; none where no `return` was met.
pub fn run(steps: &[Step], frame: &mut Frame<'_>) -> Result<Option<Value>> {
    for step in steps {
        match step {
            Step::Assign(slot, code) => {
                let value = code.run(frame)?;
                if let Some(local) = frame.locals.get_mut(*slot) {
                    *local = value;
                }
            }
            Step::If(condition, then, otherwise) => {
                let branch = if truth(&condition.run(frame)?) { then } else { otherwise };
                if let Some(value) = run(branch, frame)? {
                    return Ok(Some(value));
                }
            }
            Step::Return(code) => return code.run(frame).map(Some),
            Step::Raise(exception, message, span) => {
                let message = match message {
                    Some(code) => str_of(&code.run(frame)?),
                    None => String::new(),
                };
                return Err(Raised::new(exception, message).at(*span));
            }
        }
    }
    Ok(None)
}

impl Code {
    pub fn run(&self, frame: &mut Frame<'_>) -> Result<Value> {
        match &self.op {
            Op::Constant(value) => Ok(value.clone()),
            Op::Column(index) => frame.row.values.get(*index).cloned().ok_or_else(|| self.lost()),
            Op::Local(slot) => frame.locals.get(*slot).cloned().ok_or_else(|| self.lost()),
            Op::Binary(operator, a, b) => {
                let a = a.run(frame)?;
                let b = b.run(frame)?;
                binary(*operator, &a, &b).map_err(|raised| raised.at(self.span))
            }
            Op::Compare(first, rest) => self.compare(first, rest, frame),
            Op::And(a, b) => {
                let a = a.run(frame)?;
                if truth(&a) { b.run(frame) } else { Ok(a) }
            }
            Op::Or(a, b) => {
                let a = a.run(frame)?;
                if truth(&a) { Ok(a) } else { b.run(frame) }
            }
            Op::Not(of) => Ok(Value::Bool(!truth(&of.run(frame)?))),
            Op::If(parts) => {
                let [condition, then, otherwise] = &**parts;
                if truth(&condition.run(frame)?) { then.run(frame) } else { otherwise.run(frame) }
            }
            Op::Minus(of) => negate(&of.run(frame)?).map_err(|raised| raised.at(self.span)),
            Op::Plus(of) => plus(&of.run(frame)?).map_err(|raised| raised.at(self.span)),
            Op::Invert(of) => invert(&of.run(frame)?).map_err(|raised| raised.at(self.span)),
            Op::Call(call, arguments) => {
                let arguments = all(arguments, frame)?;
                call(&arguments).map_err(|raised| raised.at(self.span))
            }
            Op::Row => Ok(Value::Row(frame.row.clone())),
            Op::Field(of, index) => match of.run(frame)? {
                Value::Row(row) => row.values.get(*index).cloned().ok_or_else(|| self.lost()),
                other => Err(no_attribute(&other, "its fields").at(self.span)),
            },
            _ => self.run_rarer(frame),
        }
    }

    fn run_rarer(&self, frame: &mut Frame<'_>) -> Result<Value> {
        match &self.op {
            Op::Format(pieces) => self.format(pieces, frame),
            Op::List(items) => Ok(Value::Array(all(items, frame)?.into())),
            Op::Dict(entries) => {
                let mut made: Vec<(Value, Value)> = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let (key, value) = (key.run(frame)?, value.run(frame)?);
                    match made.iter_mut().find(|(other, _)| equal(other, &key)) {
                        Some(entry) => entry.1 = value,
                        None => made.push((key, value)),
                    }
                }
                Ok(Value::Map(made.into()))
            }
            Op::MakeRow(schema, fields) => {
                let mut values = Vec::with_capacity(fields.len());
                for (code, field) in fields.iter().zip(&schema.fields) {
                    let value = code.run(frame)?;
                    values.push(
                        super::conform(value, &field.field_type).map_err(|raised| raised.at(code.span))?,
                    );
                }
                Ok(Value::Row(Row::new(schema.clone(), values)))
            }
            Op::Comprehension { item, slot, of, conditions } => {
                let items = items(&of.run(frame)?).map_err(|raised| raised.at(of.span))?;
                let mut made = Vec::new();
                'items: for one in items {
                    if let Some(local) = frame.locals.get_mut(*slot) {
                        *local = one;
                    }
                    for condition in conditions {
                        if !truth(&condition.run(frame)?) {
                            continue 'items;
                        }
                    }
                    made.push(item.run(frame)?);
                }
                Ok(Value::Array(made.into()))
            }
            Op::Index(of, index) => {
                let (of, index) = (of.run(frame)?, index.run(frame)?);
                index_of(&of, &index).map_err(|raised| raised.at(self.span))
            }
            Op::Slice(of, bounds) => {
                let of = of.run(frame)?;
                let mut given = [None, None, None];
                for (slot, bound) in given.iter_mut().zip(bounds.iter()) {
                    if let Some(code) = bound {
                        *slot = slice_bound(&code.run(frame)?).map_err(|raised| raised.at(code.span))?;
                    }
                }
                slice(&of, given).map_err(|raised| raised.at(self.span))
            }
            Op::Method(name, arguments) => {
                let arguments = all(arguments, frame)?;
                super::methods::call_dynamic(name, &arguments).map_err(|raised| raised.at(self.span))
            }
            Op::Attribute(of, name) => match of.run(frame)? {
                Value::Row(row) => match row.get(name) {
                    Some(value) => Ok(value.clone()),
                    None => Err(no_attribute(&Value::Row(row), name).at(self.span)),
                },
                other => Err(no_attribute(&other, name).at(self.span)),
            },
            _ => Err(self.lost()),
        }
    }

    /// A row that is not of the schema that the expression was checked against.
    fn lost(&self) -> Raised {
        Raised::new("RuntimeError", "the row has fewer columns than its schema").at(self.span)
    }

    fn compare(&self, first: &Code, rest: &[(Compare, Code)], frame: &mut Frame<'_>) -> Result<Value> {
        let mut left = first.run(frame)?;
        for (compare, code) in rest {
            let right = code.run(frame)?;
            if !holds(*compare, &left, &right).map_err(|raised| raised.at(self.span))? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    fn format(&self, pieces: &[FormatPiece], frame: &mut Frame<'_>) -> Result<Value> {
        let mut out = String::new();
        for piece in pieces {
            match piece {
                FormatPiece::Text(text) => out.push_str(text),
                FormatPiece::Value { value, repr, spec } => {
                    let value = value.run(frame)?;
                    let value = if *repr { Value::String(repr_of(&value).into()) } else { value };
                    match spec {
                        Some(spec) => {
                            out.push_str(&spec.apply(&value).map_err(|raised| raised.at(self.span))?)
                        }
                        None => out.push_str(&str_of(&value)),
                    }
                }
            }
            bounded(out.len()).map_err(|raised| raised.at(self.span))?;
        }
        Ok(Value::String(out.into()))
    }
}

fn all(codes: &[Code], frame: &mut Frame<'_>) -> Result<Vec<Value>> {
    codes.iter().map(|code| code.run(frame)).collect()
}

fn holds(compare: Compare, left: &Value, right: &Value) -> Result<bool> {
    Ok(match compare {
        Compare::Equal => equal(left, right),
        Compare::NotEqual => !equal(left, right),
        Compare::Is => same(left, right),
        Compare::IsNot => !same(left, right),
        Compare::In => contains(right, left)?,
        Compare::NotIn => !contains(right, left)?,
        Compare::Less => order("<", left, right)?.is_some_and(|order| order.is_lt()),
        Compare::LessOrEqual => order("<=", left, right)?.is_some_and(|order| order.is_le()),
        Compare::Greater => order(">", left, right)?.is_some_and(|order| order.is_gt()),
        Compare::GreaterOrEqual => order(">=", left, right)?.is_some_and(|order| order.is_ge()),
    })
}

/// `is`, which is only allowed with `None`, `True` and `False`.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        _ => false,
    }
}

pub fn no_attribute(value: &Value, name: &str) -> Raised {
    Raised::new("AttributeError", format!("'{}' object has no attribute '{name}'", type_name(value)))
}

/// What iterating over a value gives.
pub fn items(value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items.to_vec()),
        Value::String(text) => {
            let mut buffer = [0; 4];
            Ok(text.chars().map(|c| Value::String((&*c.encode_utf8(&mut buffer)).into())).collect())
        }
        Value::Map(entries) => Ok(entries.iter().map(|(key, _)| key.clone()).collect()),
        Value::Bytes(bytes) => Ok(bytes.iter().map(|byte| Value::Int64(i64::from(*byte))).collect()),
        other => Err(Raised::new("TypeError", format!("'{}' object is not iterable", type_name(other)))),
    }
}

/// The place of a Python index, which counts from the end when it is negative.
fn place(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let index = if index < 0 { index.checked_add(length)? } else { index };
    usize::try_from(index).ok().filter(|_| index < length)
}

fn index_of(of: &Value, index: &Value) -> Result<Value> {
    if let Value::Map(entries) = of {
        return match entries.iter().find(|(key, _)| equal(key, index)) {
            Some((_, value)) => Ok(value.clone()),
            None => Err(Raised::new("KeyError", repr_of(index))),
        };
    }
    let Some(super::number::Number::Int(at)) = number(index) else {
        return Err(Raised::new(
            "TypeError",
            format!("{} indices must be integers, not {}", type_name(of), type_name(index)),
        ));
    };
    let out_of_range = |what: &str| Raised::new("IndexError", format!("{what} index out of range"));
    match of {
        Value::Array(items) => {
            place(at, items.len()).map(|at| items[at].clone()).ok_or_else(|| out_of_range("list"))
        }
        Value::String(text) => {
            let found = if text.is_ascii() {
                place(at, text.len()).map(|at| Arc::from(&text[at..at + 1]))
            } else {
                let chars: Vec<char> = text.chars().collect();
                place(at, chars.len()).map(|at| Arc::from(chars[at].to_string()))
            };
            found.map(Value::String).ok_or_else(|| out_of_range("string"))
        }
        Value::Bytes(bytes) => match place(at, bytes.len()) {
            Some(at) => Ok(Value::Int64(i64::from(bytes[at]))),
            None => Err(out_of_range("index")),
        },
        Value::Row(row) => match place(at, row.values.len()) {
            Some(at) => Ok(row.values[at].clone()),
            None => Err(out_of_range("tuple")),
        },
        other => Err(Raised::new("TypeError", format!("'{}' object is not subscriptable", type_name(other)))),
    }
}

fn slice_bound(value: &Value) -> Result<Option<i64>> {
    match (value, number(value)) {
        (Value::Null, _) => Ok(None),
        (_, Some(super::number::Number::Int(at))) => Ok(Some(at)),
        _ => Err(Raised::new("TypeError", "slice indices must be integers or None")),
    }
}

/// The places that a slice takes, in its order.
fn places([start, stop, step]: [Option<i64>; 3], length: usize) -> Result<Vec<usize>> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Raised::new("ValueError", "slice step cannot be zero"));
    }
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let held = |bound: Option<i64>, default: i64| match bound {
        None => default,
        Some(at) if at < 0 => at.saturating_add(length).clamp(low, high),
        Some(at) => at.clamp(low, high),
    };
    let (mut at, stop) =
        if step > 0 { (held(start, low), held(stop, high)) } else { (held(start, high), held(stop, low)) };
    let mut places = Vec::new();
    while if step > 0 { at < stop } else { at > stop } {
        places.extend(usize::try_from(at).ok());
        at = at.saturating_add(step);
    }
    Ok(places)
}

fn slice(of: &Value, bounds: [Option<i64>; 3]) -> Result<Value> {
    Ok(match of {
        Value::Array(items) => {
            Value::Array(places(bounds, items.len())?.into_iter().map(|at| items[at].clone()).collect())
        }
        Value::String(text) => {
            let chars: Vec<char> = text.chars().collect();
            let taken: String = places(bounds, chars.len())?.into_iter().map(|at| chars[at]).collect();
            Value::String(taken.into())
        }
        Value::Bytes(bytes) => {
            let taken: Vec<u8> = places(bounds, bytes.len())?.into_iter().map(|at| bytes[at]).collect();
            Value::Bytes(taken.into())
        }
        other => {
            return Err(Raised::new(
                "TypeError",
                format!("'{}' object is not subscriptable", type_name(other)),
            ));
        }
    })
}
