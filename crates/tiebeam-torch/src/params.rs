//! [`Params`]: the typed arguments of an architecture, `model_params` in pipeline files.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_core::row::Value;

/// The largest size that a parameter may give: an axis beyond it is a slip of the pen.
const MAX_SIZE: i64 = 1 << 31;

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// A whole number from 1.
    Size,
    /// A list of whole numbers from 1 (one alone will do).
    Sizes,
    /// A number.
    Number,
    /// True or false.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl fmt::Display for ParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamKind::Size => f.write_str("a whole number from 1"),
            ParamKind::Sizes => f.write_str("a list of whole numbers from 1"),
            ParamKind::Number => f.write_str("a number"),
            ParamKind::Flag => f.write_str("true or false"),
            ParamKind::Choice(words) => write!(f, "one of {}", words.join(", ")),
        }
    }
}

/// A parameter that an architecture declares.
#[derive(Debug, Clone)]
pub struct Param {
    name: &'static str,
    also: Option<&'static str>,
    kind: ParamKind,
    default: Option<Value>,
}

impl Param {
    /// One that must be given.
    pub const fn required(name: &'static str, kind: ParamKind) -> Self {
        Param { name, also: None, kind, default: None }
    }

    /// One that is `default` when it is not given.
    pub const fn optional(name: &'static str, kind: ParamKind, default: Value) -> Self {
        Param { name, also: None, kind, default: Some(default) }
    }

    /// Another name for it.
    #[must_use]
    pub const fn or_named(mut self, name: &'static str) -> Self {
        self.also = Some(name);
        self
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it takes.
    pub fn kind(&self) -> ParamKind {
        self.kind
    }
}

/// The checked parameters of an architecture.
#[derive(Debug, Clone, Default)]
pub struct Params {
    values: BTreeMap<&'static str, Value>,
}

impl Params {
    /// Holds `given` to what the architecture declares.
    ///
    /// # Errors
    /// All at once: parameters that are unknown (with the name that was meant), missing or of another type.
    pub(crate) fn check(
        architecture: &str,
        declared: &[Param],
        given: &BTreeMap<String, Value>,
    ) -> Result<Params> {
        let mut problems = Vec::new();
        let mut values = BTreeMap::new();
        for (name, value) in given {
            let Some(param) = declared.iter().find(|p| p.name == name || p.also == Some(name)) else {
                let names = declared.iter().flat_map(|param| [Some(param.name), param.also]).flatten();
                let hint = match nearest(name, names) {
                    Some(meant) => format!(" (did you mean `{meant}`?)"),
                    None => String::new(),
                };
                problems.push(format!("`{name}` is unknown{hint}"));
                continue;
            };
            if !fits(param.kind, value) {
                problems.push(format!("`{name}` is {}, wanted {}", shown(value), param.kind));
            } else if values.insert(param.name, value.clone()).is_some() {
                problems.push(format!("`{name}` is given twice"));
            }
        }
        for param in declared {
            let named = |name: &str| given.contains_key(name);
            if named(param.name) || param.also.is_some_and(named) {
                continue;
            }
            match &param.default {
                Some(default) => drop(values.insert(param.name, default.clone())),
                None => problems.push(format!("`{}` is missing: {}", param.name, param.kind)),
            }
        }
        if problems.is_empty() {
            return Ok(Params { values });
        }
        let error = Error::new(
            ErrorKind::InvalidArgument,
            "TB0372",
            format!("model_params of {architecture}: {}", problems.join("; ")),
        );
        let names: Vec<&str> = declared.iter().map(|param| param.name).collect();
        Err(if names.is_empty() {
            error.with_help(format!("{architecture} takes none"))
        } else {
            error.with_help(format!("{architecture} takes {}", names.join(", ")))
        })
    }

    fn get(&self, name: &str) -> Result<&Value> {
        self.values.get(name).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                "TB0372",
                format!("the architecture asks for the parameter `{name}`, which it does not declare"),
            )
        })
    }

    fn other(name: &str, kind: &str) -> Error {
        let message =
            format!("the architecture asks for the parameter `{name}` as {kind}, but declares it otherwise");
        Error::new(ErrorKind::InvalidArgument, "TB0372", message)
    }

    /// A parameter of kind [`Size`](ParamKind::Size).
    ///
    /// # Errors
    /// When the architecture does not declare it so.
    pub fn size(&self, name: &str) -> Result<usize> {
        size(self.get(name)?).ok_or_else(|| Params::other(name, "a size"))
    }

    /// A parameter of kind [`Sizes`](ParamKind::Sizes).
    ///
    /// # Errors
    /// When the architecture does not declare it so.
    pub fn sizes(&self, name: &str) -> Result<Vec<usize>> {
        match self.get(name)? {
            Value::Array(values) => values.iter().map(size).collect::<Option<_>>(),
            one => size(one).map(|one| vec![one]),
        }
        .ok_or_else(|| Params::other(name, "sizes"))
    }

    /// A parameter of kind [`Number`](ParamKind::Number).
    ///
    /// # Errors
    /// When the architecture does not declare it so.
    pub fn number(&self, name: &str) -> Result<f64> {
        number(self.get(name)?).ok_or_else(|| Params::other(name, "a number"))
    }

    /// A parameter of kind [`Flag`](ParamKind::Flag).
    ///
    /// # Errors
    /// When the architecture does not declare it so.
    pub fn flag(&self, name: &str) -> Result<bool> {
        match self.get(name)? {
            Value::Bool(flag) => Ok(*flag),
            _ => Err(Params::other(name, "a flag")),
        }
    }

    /// A parameter of kind [`Choice`](ParamKind::Choice).
    ///
    /// # Errors
    /// When the architecture does not declare it so.
    pub fn choice(&self, name: &str) -> Result<Arc<str>> {
        match self.get(name)? {
            Value::String(word) => Ok(word.clone()),
            _ => Err(Params::other(name, "a choice")),
        }
    }
}

fn integer(value: &Value) -> Option<i64> {
    Some(match value {
        Value::Byte(n) => i64::from(*n),
        Value::Int16(n) => i64::from(*n),
        Value::Int32(n) => i64::from(*n),
        Value::Int64(n) => *n,
        _ => return None,
    })
}

fn size(value: &Value) -> Option<usize> {
    integer(value).filter(|n| (1..=MAX_SIZE).contains(n)).map(|n| n as usize)
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(x) => Some(f64::from(*x)),
        Value::Double(x) => Some(*x),
        other => integer(other).map(|n| n as f64),
    }
}

fn fits(kind: ParamKind, value: &Value) -> bool {
    match (kind, value) {
        (ParamKind::Size, value) => size(value).is_some(),
        (ParamKind::Sizes, Value::Array(values)) => {
            values.len() <= 1000 && values.iter().all(|v| size(v).is_some())
        }
        (ParamKind::Sizes, value) => size(value).is_some(),
        (ParamKind::Number, value) => number(value).is_some_and(f64::is_finite),
        (ParamKind::Flag, value) => matches!(value, Value::Bool(_)),
        (ParamKind::Choice(words), Value::String(word)) => words.contains(&&**word),
        (ParamKind::Choice(_), _) => false,
    }
}

/// A value as the user wrote it, or at least its type.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::String(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
        Value::Bytes(_) => "bytes".to_owned(),
        Value::Array(values) if values.len() <= 8 => {
            format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        Value::Array(values) => format!("a list of {}", values.len()),
        Value::Map(_) | Value::Row(_) => "a mapping".to_owned(),
        other => integer(other)
            .map(|n| n.to_string())
            .or_else(|| number(other).map(|x| x.to_string()))
            .unwrap_or_else(|| "another value".to_owned()),
    }
}

/// The name that was probably meant: the nearest one, if it is near at all.
pub(crate) fn nearest<'a>(seen: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let seen: Vec<char> = seen.chars().take(100).flat_map(char::to_lowercase).collect();
    names
        .into_iter()
        .map(|name| (distance(&seen, &name.chars().flat_map(char::to_lowercase).collect::<Vec<_>>()), name))
        .filter(|(distance, name)| *distance <= (name.len().max(seen.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many letters must be put in, left out or changed.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
