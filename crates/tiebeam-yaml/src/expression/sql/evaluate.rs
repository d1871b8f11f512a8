//! SQL that was checked, and how it runs on a row: what is made of null is null, and conditions are true, false or null.

use std::cmp::Ordering;

use tiebeam_core::row::{Row, Value};

use super::tree::{Binary, Cast, Compare};
use crate::expression::evaluate::Raised;
use crate::expression::format::str_of;
use crate::expression::number::{Number, equal, number, order, overflow, type_name};

type Result<T> = std::result::Result<T, Raised>;

/// What a function does with arguments of which none is null.
pub type Call = fn(&[Value]) -> Result<Value>;

#[derive(Debug, Clone)]
pub enum Code {
    Constant(Value),
    Column(usize),
    /// A column of one of the rows that a row holds.
    Joined(usize, usize),
    Minus(Box<Code>),
    Not(Box<Code>),
    And(Box<[Code; 2]>),
    Or(Box<[Code; 2]>),
    Arithmetic(Binary, Box<[Code; 2]>),
    Concat(Box<[Code; 2]>),
    Compare(Compare, Box<[Code; 2]>),
    Is(Box<Code>, Option<bool>, bool),
    /// The value, and those it may be.
    In(Vec<Code>, bool),
    Like(Box<[Code; 2]>, bool),
    Case(Vec<(Code, Code)>, Box<Code>),
    Cast(Box<Code>, Cast),
    Coalesce(Vec<Code>),
    Call(Call, Vec<Code>),
}

impl Code {
    /// The value for a row.
    pub fn run(&self, row: &Row) -> Result<Value> {
        match self {
            Code::Constant(value) => Ok(value.clone()),
            Code::Column(index) => Ok(row.values.get(*index).cloned().unwrap_or(Value::Null)),
            Code::Joined(table, index) => Ok(match row.values.get(*table) {
                Some(Value::Row(inner)) => inner.values.get(*index).cloned().unwrap_or(Value::Null),
                _ => Value::Null,
            }),
            Code::Minus(of) => match number(&of.run(row)?) {
                Some(Number::Int(value)) => value.checked_neg().map(Value::Int64).ok_or_else(overflow),
                Some(Number::Float(value)) => Ok(Value::Double(-value)),
                None => Ok(Value::Null),
            },
            Code::Not(of) => Ok(truth(of.truth(row)?.map(|value| !value))),
            Code::And(both) => Ok(truth(all(both, row, false)?)),
            Code::Or(both) => Ok(truth(all(both, row, true)?)),
            Code::Arithmetic(operator, both) => arithmetic(*operator, &both[0].run(row)?, &both[1].run(row)?),
            Code::Concat(both) => match (both[0].run(row)?, both[1].run(row)?) {
                (Value::String(a), Value::String(b)) => Ok(Value::String(format!("{a}{b}").into())),
                _ => Ok(Value::Null),
            },
            Code::Compare(compare, both) => {
                Ok(truth(compared(*compare, &both[0].run(row)?, &both[1].run(row)?)?))
            }
            Code::Is(of, None, not) => Ok(Value::Bool((of.run(row)? == Value::Null) != *not)),
            Code::Is(of, wanted, not) => Ok(Value::Bool((of.truth(row)? == *wanted) != *not)),
            Code::In(codes, not) => self.contained(codes, *not, row),
            Code::Like(both, not) => match (both[0].run(row)?, both[1].run(row)?) {
                (Value::String(text), Value::String(pattern)) => {
                    Ok(Value::Bool(like(&text, &pattern) != *not))
                }
                _ => Ok(Value::Null),
            },
            Code::Case(cases, otherwise) => {
                for (when, then) in cases {
                    if when.truth(row)? == Some(true) {
                        return then.run(row);
                    }
                }
                otherwise.run(row)
            }
            Code::Cast(of, to) => cast(of.run(row)?, *to),
            Code::Coalesce(codes) => {
                for code in codes {
                    let value = code.run(row)?;
                    if value != Value::Null {
                        return Ok(value);
                    }
                }
                Ok(Value::Null)
            }
            Code::Call(call, codes) => {
                let arguments: Vec<Value> = codes.iter().map(|code| code.run(row)).collect::<Result<_>>()?;
                if arguments.contains(&Value::Null) { Ok(Value::Null) } else { call(&arguments) }
            }
        }
    }

    fn contained(&self, codes: &[Code], not: bool, row: &Row) -> Result<Value> {
        let Some((of, list)) = codes.split_first() else { return Ok(Value::Null) };
        let of = of.run(row)?;
        let mut found = Some(false);
        for one in list {
            match compared(Compare::Equal, &of, &one.run(row)?)? {
                Some(true) => return Ok(Value::Bool(!not)),
                Some(false) => {}
                None => found = None,
            }
        }
        Ok(truth(found.map(|found| found != not)))
    }

    /// Whether it is true; none for null.
    pub fn truth(&self, row: &Row) -> Result<Option<bool>> {
        match self.run(row)? {
            Value::Bool(value) => Ok(Some(value)),
            Value::Null => Ok(None),
            other => {
                Err(Raised::new("TypeError", format!("{} where a boolean is wanted", type_name(&other))))
            }
        }
    }
}

fn truth(value: Option<bool>) -> Value {
    value.map_or(Value::Null, Value::Bool)
}

/// `and`, which false decides, or `or`, which true decides.
fn all(both: &[Code; 2], row: &Row, decides: bool) -> Result<Option<bool>> {
    let left = both[0].truth(row)?;
    if left == Some(decides) {
        return Ok(left);
    }
    let right = both[1].truth(row)?;
    Ok(if right == Some(decides) { right } else { left.and(right) })
}

fn arithmetic(operator: Binary, a: &Value, b: &Value) -> Result<Value> {
    let (Some(a), Some(b)) = (number(a), number(b)) else { return Ok(Value::Null) };
    let zero = || Raised::new("ZeroDivisionError", "division by zero");
    if let (Number::Int(a), Number::Int(b)) = (a, b) {
        let value = match operator {
            Binary::Add => a.checked_add(b),
            Binary::Subtract => a.checked_sub(b),
            Binary::Multiply => a.checked_mul(b),
            Binary::Divide | Binary::Modulo if b == 0 => return Err(zero()),
            Binary::Divide => a.checked_div(b),
            _ => a.checked_rem(b),
        };
        return value.map(Value::Int64).ok_or_else(overflow);
    }
    let (a, b) = (a.float(), b.float());
    Ok(Value::Double(match operator {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        _ => a % b,
    }))
}

/// None where one is null.
fn compared(compare: Compare, a: &Value, b: &Value) -> Result<Option<bool>> {
    if *a == Value::Null || *b == Value::Null {
        return Ok(None);
    }
    let ordering = match compare {
        Compare::Equal => return Ok(Some(equal(a, b))),
        Compare::NotEqual => return Ok(Some(!equal(a, b))),
        _ => order("<", a, b)?,
    };
    Ok(Some(match (compare, ordering) {
        (_, None) => false,
        (Compare::Less, Some(ordering)) => ordering == Ordering::Less,
        (Compare::LessOrEqual, Some(ordering)) => ordering != Ordering::Greater,
        (Compare::Greater, Some(ordering)) => ordering == Ordering::Greater,
        (_, Some(ordering)) => ordering != Ordering::Less,
    }))
}

/// `%` is any text, `_` any character. In time of the product of both lengths at most.
fn like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut at, mut of, mut back) = (0, 0, None);
    while at < text.len() {
        match pattern.get(of) {
            Some('%') => {
                back = Some((at, of));
                of += 1;
            }
            Some(c) if *c == '_' || *c == text[at] => {
                at += 1;
                of += 1;
            }
            _ => match &mut back {
                Some((from, percent)) => {
                    *from += 1;
                    at = *from;
                    of = *percent + 1;
                }
                None => return false,
            },
        }
    }
    pattern[of..].iter().all(|c| *c == '%')
}

fn cast(value: Value, to: Cast) -> Result<Value> {
    let wrong = |value: &Value, wanted: &str| {
        Err(Raised::new("ValueError", format!("`{}` is no {wanted}", str_of(value))))
    };
    Ok(match (to, &value) {
        (_, Value::Null) => value,
        (Cast::Text, Value::String(_)) => value,
        (Cast::Text, Value::Bool(true)) => Value::String("true".into()),
        (Cast::Text, Value::Bool(false)) => Value::String("false".into()),
        (Cast::Text, value) => Value::String(str_of(value).into()),
        (Cast::Bool, Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => return wrong(&value, "boolean"),
        },
        (Cast::Bool, Value::Bool(_)) => value,
        (Cast::Bool, _) => return wrong(&value, "boolean"),
        (Cast::Int, Value::String(text)) => match text.trim().parse() {
            Ok(int) => Value::Int64(int),
            Err(_) => return wrong(&value, "integer"),
        },
        (Cast::Float, Value::String(text)) => match text.trim().parse() {
            Ok(float) => Value::Double(float),
            Err(_) => return wrong(&value, "number"),
        },
        (Cast::Int, _) => match number(&value) {
            Some(Number::Int(int)) => Value::Int64(int),
            // 2^63 is the first that does not fit.
            Some(Number::Float(float))
                if float.trunc() >= -(2f64.powi(63)) && float.trunc() < 2f64.powi(63) =>
            {
                Value::Int64(float.trunc() as i64)
            }
            Some(_) => return Err(overflow()),
            None => return wrong(&value, "integer"),
        },
        (Cast::Float, _) => match number(&value) {
            Some(number) => Value::Double(number.float()),
            None => return wrong(&value, "number"),
        },
    })
}
