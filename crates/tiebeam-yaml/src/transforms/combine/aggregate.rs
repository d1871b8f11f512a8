//! The aggregations of a Combine, several side by side over rows that hold what each of them reads.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::coder::{Codec, Coder, CoderSpec, Nesting, Reader};
use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{CombineFn, Element, Result};

use crate::expression::{order, truth};

/// What is done with the values of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// Added up; 0 for none.
    Sum,
    /// Their mean.
    Mean,
    /// How many there are.
    Count,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// Whether all are true.
    All,
    /// Whether one is true.
    Any,
    /// All of them.
    Group,
    /// The items of all of them, which are lists.
    Concat,
    /// The largest few, largest first.
    Top(usize),
}

impl Function {
    /// The names that a file uses.
    pub const NAMES: [&str; 9] = ["sum", "max", "min", "all", "any", "mean", "count", "group", "concat"];

    /// The function of that name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sum" => Function::Sum,
            "max" => Function::Max,
            "min" => Function::Min,
            "all" => Function::All,
            "any" => Function::Any,
            "mean" => Function::Mean,
            "count" => Function::Count,
            "group" => Function::Group,
            "concat" => Function::Concat,
            _ => return None,
        })
    }

    /// The type that values of `input` must be brought to, and that of the result.
    ///
    /// # Errors
    /// What the function wants, where it cannot be done with such values.
    pub fn types(self, input: &FieldType) -> std::result::Result<(FieldType, FieldType), &'static str> {
        let required = FieldType { nullable: false, ..input.clone() };
        let is_int = matches!(
            input.kind,
            TypeKind::Byte | TypeKind::Int16 | TypeKind::Int32 | TypeKind::Int64 | TypeKind::Boolean
        );
        let is_float = matches!(input.kind, TypeKind::Float | TypeKind::Double);
        let (int, double) = (FieldType::required(TypeKind::Int64), FieldType::required(TypeKind::Double));
        Ok(match self {
            Function::Sum if is_int => (required, int),
            Function::Sum if is_float => (required, double),
            Function::Mean if is_int || is_float => (required, double),
            Function::Sum | Function::Mean => return Err("numbers"),
            Function::Count => (input.clone(), int),
            Function::All | Function::Any => (input.clone(), FieldType::required(TypeKind::Boolean)),
            Function::Group => (input.clone(), FieldType::required(TypeKind::Array(Box::new(input.clone())))),
            Function::Concat => match &input.kind {
                TypeKind::Array(_) | TypeKind::Iterable(_) => (required.clone(), required),
                _ => return Err("lists"),
            },
            Function::Min | Function::Max | Function::Top(_) => {
                let ordered = is_int
                    || is_float
                    || matches!(input.kind, TypeKind::String | TypeKind::Bytes | TypeKind::Array(_));
                if !ordered {
                    return Err("values that have an order");
                }
                match self {
                    Function::Top(_) => {
                        (required.clone(), FieldType::required(TypeKind::Array(Box::new(required))))
                    }
                    _ => (required.clone(), required),
                }
            }
        })
    }
}

/// One aggregation.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// What is done.
    pub function: Function,
    /// The type of the values that it reads.
    pub input: FieldType,
    /// The type of its result.
    pub output: FieldType,
    /// Whether nulls are left out, and nothing but them gives null, as in SQL.
    pub skips_null: bool,
}

impl Aggregate {
    /// The function as SQL has it, of values of `seen`.
    ///
    /// # Errors
    /// As [`Function::types`].
    pub fn of_sql(function: Function, seen: &FieldType) -> std::result::Result<Self, &'static str> {
        let (input, output) = function.types(seen)?;
        let input = FieldType { nullable: seen.nullable, ..input };
        let nullable = seen.nullable && function != Function::Count;
        Ok(Aggregate { function, input, output: FieldType { nullable, ..output }, skips_null: true })
    }

    fn start(&self) -> State {
        match self.function {
            Function::Sum | Function::Mean if !is_float(&self.input) => State::Int(0, 0),
            Function::Sum | Function::Mean => State::Float(0.0, 0),
            Function::Count => State::Int(0, 0),
            Function::All => State::Bool(true),
            Function::Any => State::Bool(false),
            Function::Min | Function::Max => State::Best(None),
            Function::Group | Function::Concat | Function::Top(_) => State::List(Vec::new()),
        }
    }

    fn add(&self, state: &mut State, value: Value) {
        if self.skips_null && value == Value::Null {
            return;
        }
        match (state, self.function) {
            (State::Int(_, count), Function::Count) => *count += 1,
            (State::Int(sum, count), _) => {
                *sum = sum.saturating_add(int_of(&value));
                *count += 1;
            }
            (State::Float(sum, count), _) => {
                *sum += float_of(&value);
                *count += 1;
            }
            (State::Bool(all), Function::All) => *all &= truth(&value),
            (State::Bool(any), _) => *any |= truth(&value),
            (State::Best(best), function) => {
                let better = best.as_ref().is_none_or(|best| {
                    let ordering = ordered(&value, best);
                    ordering == if function == Function::Min { Ordering::Less } else { Ordering::Greater }
                });
                if better {
                    *best = Some(value);
                }
            }
            (State::List(all), Function::Concat) => {
                if let Value::Array(items) = value {
                    all.extend(items.iter().cloned());
                }
            }
            (State::List(all), Function::Top(n)) => {
                all.push(value);
                if all.len() >= 2 * n + 16 {
                    trim(all, n);
                }
            }
            (State::List(all), _) => all.push(value),
        }
    }

    fn merge(&self, state: &mut State, other: State) {
        match (state, other) {
            (State::Int(sum, count), State::Int(more, others)) => {
                *sum = sum.saturating_add(more);
                *count += others;
            }
            (State::Float(sum, count), State::Float(more, others)) => {
                *sum += more;
                *count += others;
            }
            (State::Bool(all), State::Bool(other)) if self.function == Function::All => *all &= other,
            (State::Bool(any), State::Bool(other)) => *any |= other,
            (state @ State::Best(_), State::Best(Some(other))) => self.add(state, other),
            (State::List(all), State::List(others)) => {
                all.extend(others);
                if let Function::Top(n) = self.function {
                    trim(all, n);
                }
            }
            // An accumulator of the same function has the same shape; one that lacks a value adds nothing.
            _ => {}
        }
    }

    fn result(&self, state: State) -> Value {
        match (state, self.function) {
            (State::Int(_, count), Function::Count) => Value::Int64(count),
            (State::Int(_, 0) | State::Float(_, 0), _) if self.output.nullable => Value::Null,
            // What does not fit in a column of integers stays at its end, as sums of typed pipelines do.
            (State::Int(sum, _), Function::Sum) => {
                Value::Int64(i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX }))
            }
            (State::Int(sum, count), _) => Value::Double(sum as f64 / count as f64),
            (State::Float(sum, _), Function::Sum) => Value::Double(sum),
            (State::Float(sum, count), _) => Value::Double(sum / count as f64),
            (State::Bool(value), _) => Value::Bool(value),
            (State::Best(best), _) => best.unwrap_or(Value::Null),
            (State::List(mut all), Function::Top(n)) => {
                trim(&mut all, n);
                Value::Array(all.into())
            }
            (State::List(all), _) => Value::Array(all.into()),
        }
    }

    /// The type of what travels between the parts.
    fn accumulator(&self) -> FieldType {
        let list = |of: FieldType| FieldType::required(TypeKind::Array(Box::new(of)));
        match self.start() {
            State::Int(..) | State::Float(..) => list(FieldType::required(TypeKind::Bytes)),
            State::Bool(_) => FieldType::required(TypeKind::Boolean),
            State::Best(_) => FieldType { nullable: true, ..self.input.clone() },
            State::List(_) if self.function == Function::Concat => self.input.clone(),
            State::List(_) => list(self.input.clone()),
        }
    }

    fn read(&self, value: Value) -> State {
        let start = self.start();
        match (start, value) {
            (State::Int(..), Value::Array(parts)) => {
                let sum = i128::from_le_bytes(bytes(parts.first()));
                State::Int(sum, i64::from_le_bytes(bytes(parts.get(1))))
            }
            (State::Float(..), Value::Array(parts)) => {
                let sum = f64::from_le_bytes(bytes(parts.first()));
                State::Float(sum, i64::from_le_bytes(bytes(parts.get(1))))
            }
            (State::Bool(_), Value::Bool(value)) => State::Bool(value),
            (State::Best(_), Value::Null) => State::Best(None),
            (State::Best(_), value) => State::Best(Some(value)),
            (State::List(_), Value::Array(all)) => State::List(all.to_vec()),
            (start, _) => start,
        }
    }
}

fn is_float(field: &FieldType) -> bool {
    matches!(field.kind, TypeKind::Float | TypeKind::Double)
}

fn bytes<const N: usize>(value: Option<&Value>) -> [u8; N] {
    match value {
        Some(Value::Bytes(bytes)) => bytes.as_ref().try_into().unwrap_or([0; N]),
        _ => [0; N],
    }
}

fn trim(all: &mut Vec<Value>, n: usize) {
    all.sort_by(|a, b| ordered(b, a));
    all.truncate(n);
}

/// Not-a-numbers are in no order: they come last, as if they were the smallest.
fn ordered(a: &Value, b: &Value) -> Ordering {
    match order("<", a, b) {
        Ok(Some(ordering)) => ordering,
        _ => {
            let is_nan = |value: &Value| float_of(value).is_nan();
            is_nan(b).cmp(&is_nan(a))
        }
    }
}

fn int_of(value: &Value) -> i128 {
    match value {
        Value::Bool(value) => i128::from(*value),
        Value::Byte(value) => i128::from(*value),
        Value::Int16(value) => i128::from(*value),
        Value::Int32(value) => i128::from(*value),
        Value::Int64(value) => i128::from(*value),
        _ => 0,
    }
}

fn float_of(value: &Value) -> f64 {
    match value {
        Value::Float(value) => f64::from(*value),
        Value::Double(value) => *value,
        _ => 0.0,
    }
}

#[derive(Debug, Clone)]
enum State {
    /// A sum of integers, and of how many values.
    Int(i128, i64),
    Float(f64, i64),
    Bool(bool),
    Best(Option<Value>),
    List(Vec<Value>),
}

impl State {
    fn value(&self) -> Value {
        let parts = |sum: &[u8], count: i64| {
            let part = |bytes: &[u8]| Value::Bytes(Bytes::copy_from_slice(bytes));
            Value::Array([part(sum), part(&count.to_le_bytes())].into())
        };
        match self {
            State::Int(sum, count) => parts(&sum.to_le_bytes(), *count),
            State::Float(sum, count) => parts(&sum.to_le_bytes(), *count),
            State::Bool(value) => Value::Bool(*value),
            State::Best(best) => best.clone().unwrap_or(Value::Null),
            State::List(all) => Value::Array(all.clone().into()),
        }
    }
}

/// What travels between the parts of a Combine: states in memory, a row on the wire.
#[derive(Debug, Clone)]
pub struct Accumulator {
    schema: Arc<Schema>,
    states: Vec<Told>,
    /// As it came, where nobody has looked at it yet.
    came: Option<Row>,
}

/// A state, which only its aggregation can change.
#[derive(Debug, Clone)]
pub struct Told(State);

impl Element for Accumulator {
    fn coder() -> Coder<Self> {
        Coder::new(AccumulatorCodec(Row::coder()))
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        Ok(Coder::new(AccumulatorCodec(Row::coder_of(spec)?)))
    }
}

struct AccumulatorCodec(Coder<Row>);

impl Codec<Accumulator> for AccumulatorCodec {
    fn encode(&self, value: &Accumulator, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        match &value.came {
            Some(row) => self.0.encode(row, out, nesting),
            None => {
                let values: Vec<Value> = value.states.iter().map(|state| state.0.value()).collect();
                self.0.encode(&Row::new(value.schema.clone(), values), out, nesting)
            }
        }
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<Accumulator> {
        let row = self.0.decode(input, nesting)?;
        Ok(Accumulator { schema: row.schema.clone(), states: Vec::new(), came: Some(row) })
    }

    fn spec(&self) -> CoderSpec {
        self.0.spec()
    }

    fn is_deterministic(&self) -> bool {
        false
    }
}

/// All aggregations of a Combine: from rows of their inputs to a row of their results.
#[derive(Debug, Clone)]
pub struct Aggregates {
    all: Arc<[Aggregate]>,
    between: Arc<Schema>,
    results: Arc<Schema>,
}

impl Aggregates {
    /// Of those, whose results have these names.
    pub fn new(names: &[Arc<str>], all: Vec<Aggregate>) -> Self {
        let between = all.iter().enumerate().map(|(i, one)| (format!("f{i}"), one.accumulator()));
        let results = names.iter().cloned().zip(all.iter().map(|one| one.output.clone()));
        let (between, results) = (Arc::new(Schema::of(between)), Arc::new(Schema::of(results)));
        Aggregates { all: all.into(), between, results }
    }

    fn live<'a>(&self, accumulator: &'a mut Accumulator) -> &'a mut Vec<Told> {
        if let Some(row) = accumulator.came.take() {
            let states = self.all.iter().zip(row.values.iter());
            accumulator.states = states.map(|(one, value)| Told(one.read(value.clone()))).collect();
        }
        &mut accumulator.states
    }
}

impl CombineFn for Aggregates {
    type Input = Row;
    type Accumulator = Accumulator;
    type Output = Row;

    fn create_accumulator(&self) -> Accumulator {
        let states = self.all.iter().map(|one| Told(one.start())).collect();
        Accumulator { schema: self.between.clone(), states, came: None }
    }

    fn add_input(&self, accumulator: &mut Accumulator, input: Row) {
        let states = self.live(accumulator);
        for ((one, state), value) in self.all.iter().zip(states).zip(input.values.iter()) {
            one.add(&mut state.0, value.clone());
        }
    }

    fn merge(&self, accumulator: &mut Accumulator, mut other: Accumulator) {
        let others = std::mem::take(self.live(&mut other));
        for ((one, state), other) in self.all.iter().zip(self.live(accumulator)).zip(others) {
            one.merge(&mut state.0, other.0);
        }
    }

    fn extract_output(&self, mut accumulator: Accumulator) -> Row {
        let states = std::mem::take(self.live(&mut accumulator));
        let values: Vec<Value> =
            self.all.iter().zip(states).map(|(one, state)| one.result(state.0)).collect();
        Row::new(self.results.clone(), values)
    }
}
