//! The functions of SQL.

use tiebeam_core::row::Value;

use super::evaluate::Call;
use crate::expression::evaluate::Raised;
use crate::expression::number::{Number, equal, number, overflow};
use crate::expression::types::{Kind, Type};

/// What a function takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Text,
    Number,
    Any,
}

/// What a function gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gives {
    Text,
    Int,
    Float,
    /// As its first argument.
    Same,
    /// As its first argument, or null.
    SameOrNull,
}

/// A function of values of one row.
pub struct Function {
    name: &'static str,
    takes: &'static [Takes],
    /// How many of the arguments, from the last one, may be left out.
    optional: usize,
    gives: Gives,
    pub call: Call,
}

use Gives::{Float, Int, Same, SameOrNull};
use Takes::{Any, Number as Num, Text};

const fn function(
    name: &'static str,
    takes: &'static [Takes],
    optional: usize,
    gives: Gives,
    call: Call,
) -> Function {
    Function { name, takes, optional, gives, call }
}

const ALL: [Function; 27] = [
    function("abs", &[Num], 0, Same, |all| match number(&all[0]) {
        Some(Number::Int(value)) => value.checked_abs().map(Value::Int64).ok_or_else(overflow),
        Some(Number::Float(value)) => Ok(Value::Double(value.abs())),
        None => Ok(Value::Null),
    }),
    function("ceil", &[Num], 0, Same, |all| rounded(all, f64::ceil)),
    function("ceiling", &[Num], 0, Same, |all| rounded(all, f64::ceil)),
    function("char_length", &[Text], 0, Int, length),
    function("character_length", &[Text], 0, Int, length),
    function("concat", &[Text, Text, Text, Text, Text, Text, Text, Text], 7, Gives::Text, |all| {
        Ok(Value::String(all.iter().map(text).collect::<String>().into()))
    }),
    function("exp", &[Num], 0, Float, |all| float(all, f64::exp)),
    function("floor", &[Num], 0, Same, |all| rounded(all, f64::floor)),
    function("initcap", &[Text], 0, Gives::Text, |all| Ok(Value::String(initcap(text(&all[0])).into()))),
    function("length", &[Text], 0, Int, length),
    function("ln", &[Num], 0, Float, |all| float(all, f64::ln)),
    function("log10", &[Num], 0, Float, |all| float(all, f64::log10)),
    function("lower", &[Text], 0, Gives::Text, |all| Ok(Value::String(text(&all[0]).to_lowercase().into()))),
    function("ltrim", &[Text], 0, Gives::Text, |all| Ok(trimmed(text(&all[0]).trim_start_matches(' ')))),
    function("mod", &[Num, Num], 0, Same, |all| match (number(&all[0]), number(&all[1])) {
        (Some(Number::Int(_)), Some(Number::Int(0))) => {
            Err(Raised::new("ZeroDivisionError", "division by zero"))
        }
        (Some(Number::Int(a)), Some(Number::Int(b))) => Ok(Value::Int64(a.wrapping_rem(b))),
        (Some(a), Some(b)) => Ok(Value::Double(a.float() % b.float())),
        _ => Ok(Value::Null),
    }),
    function("nullif", &[Any, Any], 0, SameOrNull, |all| {
        Ok(if equal(&all[0], &all[1]) { Value::Null } else { all[0].clone() })
    }),
    function("power", &[Num, Num], 0, Float, |all| {
        let pair = number(&all[0]).zip(number(&all[1]));
        Ok(pair.map_or(Value::Null, |(a, b)| Value::Double(a.float().powf(b.float()))))
    }),
    function("replace", &[Text, Text, Text], 0, Gives::Text, |all| {
        let (of, from, to) = (text(&all[0]), text(&all[1]), text(&all[2]));
        Ok(Value::String(if from.is_empty() { of.into() } else { of.replace(from, to).into() }))
    }),
    function("reverse", &[Text], 0, Gives::Text, |all| {
        Ok(Value::String(text(&all[0]).chars().rev().collect::<String>().into()))
    }),
    function("round", &[Num, Num], 1, Same, |all| match (number(&all[0]), all.get(1).and_then(number)) {
        (Some(Number::Int(value)), None) => Ok(Value::Int64(value)),
        (Some(value), digits) => {
            let digits = digits.map_or(0.0, Number::float).clamp(-300.0, 300.0) as i32;
            let (value, scale) = (value.float(), 10f64.powi(digits.abs()));
            let done =
                if digits < 0 { (value / scale).round() * scale } else { (value * scale).round() / scale };
            let done = if done.is_finite() { done } else { value };
            Ok(match number(&all[0]) {
                Some(Number::Int(_)) => Value::Int64(done as i64),
                _ => Value::Double(done),
            })
        }
        _ => Ok(Value::Null),
    }),
    function("rtrim", &[Text], 0, Gives::Text, |all| Ok(trimmed(text(&all[0]).trim_end_matches(' ')))),
    function("sign", &[Num], 0, Same, |all| match number(&all[0]) {
        Some(Number::Int(value)) => Ok(Value::Int64(value.signum())),
        Some(Number::Float(value)) if value == 0.0 || value.is_nan() => Ok(Value::Double(value)),
        Some(Number::Float(value)) => Ok(Value::Double(value.signum())),
        None => Ok(Value::Null),
    }),
    function("sqrt", &[Num], 0, Float, |all| float(all, f64::sqrt)),
    function("substr", &[Text, Num, Num], 1, Gives::Text, substring),
    function("substring", &[Text, Num, Num], 1, Gives::Text, substring),
    function("trim", &[Text], 0, Gives::Text, |all| Ok(trimmed(text(&all[0]).trim_matches(' ')))),
    function("upper", &[Text], 0, Gives::Text, |all| Ok(Value::String(text(&all[0]).to_uppercase().into()))),
];

/// Functions of groups of rows.
pub const AGGREGATES: [&str; 5] = ["count", "sum", "min", "max", "avg"];

/// Whether it is a function of groups of rows.
pub fn is_aggregate(name: &str) -> bool {
    AGGREGATES.contains(&name)
}

/// The function of that name.
pub fn find(name: &str) -> Option<&'static Function> {
    ALL.iter().find(|function| function.name == name)
}

/// The names of all functions.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|function| function.name).chain(["coalesce"])
}

impl Function {
    /// The type of its result, or what it wants.
    pub fn result(&self, arguments: &[Type]) -> Result<Type, String> {
        let least = self.takes.len() - self.optional;
        let fits = |(typed, takes): (&Type, &Takes)| {
            matches!(
                (takes, &typed.kind),
                (Any, _) | (_, Kind::Any | Kind::Never) | (Text, Kind::Str) | (Num, Kind::Int | Kind::Float)
            )
        };
        let counted = (least..=self.takes.len()).contains(&arguments.len());
        if !counted || !arguments.iter().zip(self.takes).all(fits) {
            let name = |takes: &Takes| match takes {
                Text => "a string",
                Num => "a number",
                Any => "a value",
            };
            let wanted: Vec<&str> = self.takes[..least.max(1)].iter().map(name).collect();
            let seen: Vec<String> = arguments.iter().map(Type::to_string).collect();
            return Err(format!("({}), got ({})", wanted.join(", "), seen.join(", ")));
        }
        let nullable = arguments.iter().any(|typed| typed.nullable);
        let first = arguments.first().map_or(Kind::Any, |typed| typed.kind.clone());
        Ok(match self.gives {
            Gives::Text => Type { nullable, ..Type::STR },
            Int => Type { nullable, ..Type::INT },
            Float => Type { nullable, ..Type::FLOAT },
            Same if self.name == "mod" && arguments.iter().any(|typed| typed.kind == Kind::Float) => {
                Type { nullable, ..Type::FLOAT }
            }
            Same => Type { kind: first, nullable },
            SameOrNull => Type { kind: first, nullable: true },
        })
    }
}

fn text(value: &Value) -> &str {
    match value {
        Value::String(text) => text,
        _ => "",
    }
}

fn trimmed(text: &str) -> Value {
    Value::String(text.into())
}

fn length(all: &[Value]) -> Result<Value, Raised> {
    Ok(Value::Int64(text(&all[0]).chars().count() as i64))
}

fn float(all: &[Value], of: fn(f64) -> f64) -> Result<Value, Raised> {
    Ok(number(&all[0]).map_or(Value::Null, |value| Value::Double(of(value.float()))))
}

fn rounded(all: &[Value], of: fn(f64) -> f64) -> Result<Value, Raised> {
    Ok(match number(&all[0]) {
        Some(Number::Int(value)) => Value::Int64(value),
        Some(Number::Float(value)) => Value::Double(of(value)),
        None => Value::Null,
    })
}

/// Characters from a place, the first being 1; a length of less than nothing is a mistake.
fn substring(all: &[Value]) -> Result<Value, Raised> {
    let whole = |value: &Value| match number(value) {
        Some(Number::Int(value)) => value,
        Some(Number::Float(value)) => value as i64,
        None => 0,
    };
    let start = whole(&all[1]);
    let end = match all.get(2).map(whole) {
        Some(length) if length < 0 => {
            return Err(Raised::new("ValueError", format!("a text of {length} characters")));
        }
        Some(length) => start.saturating_add(length),
        None => i64::MAX,
    };
    let chars = (1i64..).zip(text(&all[0]).chars());
    let found: String = chars.filter(|(at, _)| (start..end).contains(at)).map(|(_, c)| c).collect();
    Ok(Value::String(found.into()))
}

fn initcap(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphanumeric();
    }
    out
}
