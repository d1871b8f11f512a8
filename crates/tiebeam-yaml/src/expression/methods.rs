//! The methods of Python's strings, lists, dicts and bytes that expressions have.

use tiebeam_core::row::Value;

use super::builtins::{Function, integers, item_type, text};
use super::evaluate::{Raised, items, no_attribute};
use super::format::{repr_of, str_of};
use super::number::{Number, bounded, equal, number, type_name};
use super::types::{Kind, Type};

type Result<T> = std::result::Result<T, Raised>;
type Typed = std::result::Result<Type, String>;

const fn method(
    name: &'static str,
    parameters: &'static [&'static str],
    required: usize,
    result: fn(&[Type]) -> Typed,
    call: super::evaluate::Call,
) -> Function {
    Function { name, parameters, required, variadic: false, result, call }
}

fn str_type(_: &[Type]) -> Typed {
    Ok(Type::STR)
}

fn bool_type(_: &[Type]) -> Typed {
    Ok(Type::BOOL)
}

/// All arguments are strings.
fn texts(seen: &[Type], result: Type) -> Typed {
    seen.iter().try_for_each(|seen| text(seen, "this method"))?;
    Ok(result)
}

fn pad_type(seen: &[Type]) -> Typed {
    integers(&seen[1..2], "the width")?;
    seen.get(2).map_or(Ok(()), |fill| text(fill, "the filling"))?;
    Ok(Type::STR)
}

fn split_type(seen: &[Type]) -> Typed {
    if let Some(by) = seen.get(1)
        && by.kind != Kind::Never
    {
        text(by, "the separator")?;
    }
    integers(seen.get(2..).unwrap_or(&[]), "maxsplit")?;
    Ok(Type::list(Type::STR))
}

fn affix_type(seen: &[Type]) -> Typed {
    match &seen[1].kind {
        Kind::Str | Kind::Any => Ok(Type::BOOL),
        Kind::List(item) if matches!(item.kind, Kind::Str | Kind::Any) => Ok(Type::BOOL),
        _ => Err(format!("this method wants a string or a list of strings, got {}", seen[1])),
    }
}

static STR: [Function; 36] = [
    method("upper", &[""], 1, str_type, |a| map(a, str::to_uppercase)),
    method("lower", &[""], 1, str_type, |a| map(a, str::to_lowercase)),
    method("casefold", &[""], 1, str_type, |a| map(a, str::to_lowercase)),
    method("capitalize", &[""], 1, str_type, |a| map(a, capitalize)),
    method("title", &[""], 1, str_type, |a| map(a, title)),
    method("swapcase", &[""], 1, str_type, |a| {
        map(a, |text| {
            let swap = |c: char| {
                if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() }
            };
            text.chars().map(swap).collect()
        })
    }),
    method("strip", &["", "chars"], 1, |t| texts(t, Type::STR), |a| strip(a, true, true)),
    method("lstrip", &["", "chars"], 1, |t| texts(t, Type::STR), |a| strip(a, true, false)),
    method("rstrip", &["", "chars"], 1, |t| texts(t, Type::STR), |a| strip(a, false, true)),
    method("split", &["", "sep", "maxsplit"], 1, split_type, split),
    method("rsplit", &["", "sep", "maxsplit"], 1, split_type, rsplit),
    method(
        "splitlines",
        &[""],
        1,
        |_| Ok(Type::list(Type::STR)),
        |a| Ok(strings(of(a)?.lines().map(str::to_owned))),
    ),
    method("join", &["", "iterable"], 2, join_type, join),
    method("replace", &["", "old", "new", "count"], 3, replace_type, replace),
    method("startswith", &["", "prefix"], 2, affix_type, |a| {
        affix(a, |text, prefix| text.starts_with(prefix))
    }),
    method("endswith", &["", "suffix"], 2, affix_type, |a| affix(a, |text, suffix| text.ends_with(suffix))),
    method(
        "removeprefix",
        &["", "prefix"],
        2,
        |t| texts(t, Type::STR),
        |a| {
            let (text, prefix) = (of(a)?, argument(a, 1)?);
            Ok(Value::String(text.strip_prefix(prefix).unwrap_or(text).into()))
        },
    ),
    method(
        "removesuffix",
        &["", "suffix"],
        2,
        |t| texts(t, Type::STR),
        |a| {
            let (text, suffix) = (of(a)?, argument(a, 1)?);
            Ok(Value::String(text.strip_suffix(suffix).unwrap_or(text).into()))
        },
    ),
    method(
        "find",
        &["", "sub"],
        2,
        |t| texts(t, Type::INT),
        |a| Ok(find(a, false)?.unwrap_or(Value::Int64(-1))),
    ),
    method(
        "rfind",
        &["", "sub"],
        2,
        |t| texts(t, Type::INT),
        |a| Ok(find(a, true)?.unwrap_or(Value::Int64(-1))),
    ),
    method(
        "index",
        &["", "sub"],
        2,
        |t| texts(t, Type::INT),
        |a| find(a, false)?.ok_or_else(|| Raised::new("ValueError", "substring not found")),
    ),
    method(
        "count",
        &["", "sub"],
        2,
        |t| texts(t, Type::INT),
        |a| {
            let (text, sub) = (of(a)?, argument(a, 1)?);
            let count = if sub.is_empty() { text.chars().count() + 1 } else { text.matches(sub).count() };
            Ok(Value::Int64(i64::try_from(count).unwrap_or(i64::MAX)))
        },
    ),
    method(
        "partition",
        &["", "sep"],
        2,
        |t| texts(t, Type::list(Type::STR)),
        |a| {
            let (text, by) = (of(a)?, separator(argument(a, 1)?)?);
            let (before, by, after) = match text.split_once(by) {
                Some((before, after)) => (before, by, after),
                None => (text, "", ""),
            };
            Ok(strings([before, by, after].map(str::to_owned)))
        },
    ),
    method("zfill", &["", "width"], 2, pad_type, |a| {
        let (text, width) = (of(a)?, width(a)?);
        let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
        let missing = width.saturating_sub(text.chars().count());
        Ok(Value::String(format!("{sign}{}{digits}", "0".repeat(missing)).into()))
    }),
    method("ljust", &["", "width", "fillchar"], 2, pad_type, |a| pad(a, |missing| (0, missing))),
    method("rjust", &["", "width", "fillchar"], 2, pad_type, |a| pad(a, |missing| (missing, 0))),
    method("center", &["", "width", "fillchar"], 2, pad_type, |a| {
        let odd = width(a)? & 1;
        pad(a, |missing| {
            let left = missing / 2 + (missing & odd & 1);
            (left, missing - left)
        })
    }),
    method("isdigit", &[""], 1, bool_type, |a| test(a, |c| c.is_numeric() && !c.is_alphabetic())),
    method("isnumeric", &[""], 1, bool_type, |a| test(a, char::is_numeric)),
    method("isdecimal", &[""], 1, bool_type, |a| test(a, |c| c.is_ascii_digit())),
    method("isalpha", &[""], 1, bool_type, |a| test(a, char::is_alphabetic)),
    method("isalnum", &[""], 1, bool_type, |a| test(a, char::is_alphanumeric)),
    method("isspace", &[""], 1, bool_type, |a| test(a, char::is_whitespace)),
    method("isupper", &[""], 1, bool_type, |a| cased(a, char::is_uppercase, char::is_lowercase)),
    method("islower", &[""], 1, bool_type, |a| cased(a, char::is_lowercase, char::is_uppercase)),
    method(
        "encode",
        &["", "encoding"],
        1,
        |t| texts(t, Type::of(Kind::Bytes)),
        |a| match a.get(1).map(str_of).unwrap_or("utf-8".to_owned()).to_lowercase().as_str() {
            "utf-8" | "utf8" => Ok(Value::Bytes(of(a)?.to_owned().into())),
            other => Err(Raised::new("LookupError", format!("unknown encoding: {other}"))),
        },
    ),
];

static LIST: [Function; 2] = [
    method(
        "index",
        &["", "value"],
        2,
        |_| Ok(Type::INT),
        |a| match &a[0] {
            Value::Array(items) => match items.iter().position(|item| equal(item, &a[1])) {
                Some(at) => Ok(Value::Int64(i64::try_from(at).unwrap_or(i64::MAX))),
                None => Err(Raised::new("ValueError", format!("{} is not in list", repr_of(&a[1])))),
            },
            other => Err(no_attribute(other, "index")),
        },
    ),
    method(
        "count",
        &["", "value"],
        2,
        |_| Ok(Type::INT),
        |a| match &a[0] {
            Value::Array(items) => {
                let count = items.iter().filter(|item| equal(item, &a[1])).count();
                Ok(Value::Int64(i64::try_from(count).unwrap_or(i64::MAX)))
            }
            other => Err(no_attribute(other, "count")),
        },
    ),
];

static DICT: [Function; 3] = [
    method("get", &["", "key", "default"], 2, get_type, |a| match &a[0] {
        Value::Map(entries) => Ok(entries
            .iter()
            .find(|(key, _)| equal(key, &a[1]))
            .map(|(_, value)| value.clone())
            .or_else(|| a.get(2).cloned())
            .unwrap_or(Value::Null)),
        other => Err(no_attribute(other, "get")),
    }),
    method(
        "keys",
        &[""],
        1,
        |t| item_type(&t[0]).map(Type::list),
        |a| Ok(Value::Array(items(&a[0])?.into())),
    ),
    method("values", &[""], 1, values_type, |a| match &a[0] {
        Value::Map(entries) => Ok(Value::Array(entries.iter().map(|(_, value)| value.clone()).collect())),
        other => Err(no_attribute(other, "values")),
    }),
];

static BYTES: [Function; 2] = [
    method("decode", &["", "encoding"], 1, str_type, |a| match &a[0] {
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::String(text.into())),
            Err(error) => {
                Err(Raised::new("UnicodeDecodeError", format!("'utf-8' codec can't decode: {error}")))
            }
        },
        other => Err(no_attribute(other, "decode")),
    }),
    method("hex", &[""], 1, str_type, |a| match &a[0] {
        Value::Bytes(bytes) => {
            Ok(Value::String(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>().into()))
        }
        other => Err(no_attribute(other, "hex")),
    }),
];

/// The methods of values of a type; none for types that have no methods here.
pub fn methods(kind: &Kind) -> &'static [Function] {
    match kind {
        Kind::Str => &STR,
        Kind::List(_) => &LIST,
        Kind::Dict(..) => &DICT,
        Kind::Bytes => &BYTES,
        _ => &[],
    }
}

/// Whether any type has a method of that name.
pub fn known(name: &str) -> bool {
    [&STR[..], &LIST, &DICT, &BYTES].into_iter().flatten().any(|method| method.name == name)
}

/// A method of a value whose type was not known before.
pub fn call_dynamic(name: &str, arguments: &[Value]) -> Result<Value> {
    let table: &[Function] = match &arguments[0] {
        Value::String(_) => &STR,
        Value::Array(_) => &LIST,
        Value::Map(_) => &DICT,
        Value::Bytes(_) => &BYTES,
        _ => &[],
    };
    match table.iter().find(|method| method.name == name) {
        None => Err(no_attribute(&arguments[0], name)),
        Some(method) if arguments.len() < method.required || arguments.len() > method.parameters.len() => {
            Err(Raised::new("TypeError", format!("{name}() got {} arguments", arguments.len() - 1)))
        }
        Some(method) => (method.call)(arguments),
    }
}

fn of(arguments: &[Value]) -> Result<&str> {
    match &arguments[0] {
        Value::String(text) => Ok(text),
        // The type was checked, so it is a column without a value.
        other => {
            Err(Raised::new("AttributeError", format!("'{}' object has no string methods", type_name(other))))
        }
    }
}

fn argument(arguments: &[Value], at: usize) -> Result<&str> {
    match arguments.get(at) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Raised::new("TypeError", format!("must be str, not {}", type_name(other)))),
        None => Ok(""),
    }
}

fn map(arguments: &[Value], f: impl Fn(&str) -> String) -> Result<Value> {
    Ok(Value::String(f(of(arguments)?).into()))
}

fn strings(parts: impl IntoIterator<Item = String>) -> Value {
    Value::Array(parts.into_iter().map(|part| Value::String(part.into())).collect())
}

fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars.as_str().to_lowercase().chars()).collect(),
        None => String::new(),
    }
}

fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphabetic();
    }
    out
}

fn strip(arguments: &[Value], left: bool, right: bool) -> Result<Value> {
    let text = of(arguments)?;
    let set = match arguments.get(1) {
        None | Some(Value::Null) => None,
        Some(_) => Some(argument(arguments, 1)?),
    };
    let goes = |c: char| match set {
        Some(set) => set.contains(c),
        None => c.is_whitespace(),
    };
    let text = if left { text.trim_start_matches(goes) } else { text };
    let text = if right { text.trim_end_matches(goes) } else { text };
    Ok(Value::String(text.into()))
}

fn separator(by: &str) -> Result<&str> {
    if by.is_empty() { Err(Raised::new("ValueError", "empty separator")) } else { Ok(by) }
}

/// How often to split at most, and by what.
fn splitting(arguments: &[Value]) -> Result<(Option<&str>, usize)> {
    let by = match arguments.get(1) {
        None | Some(Value::Null) => None,
        Some(_) => Some(separator(argument(arguments, 1)?)?),
    };
    let most = match arguments.get(2).and_then(number) {
        Some(Number::Int(most)) => usize::try_from(most).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    Ok((by, most))
}

fn split(arguments: &[Value]) -> Result<Value> {
    let text = of(arguments)?;
    let (by, most) = splitting(arguments)?;
    let parts: Vec<String> = match by {
        Some(by) => text.splitn(most.saturating_add(1), by).map(str::to_owned).collect(),
        None => {
            let mut parts = Vec::new();
            let mut rest = text.trim_start();
            while !rest.is_empty() {
                let end = if parts.len() < most { rest.find(char::is_whitespace) } else { None };
                let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
                let part = if parts.len() < most { part } else { part.trim_end() };
                parts.push(part.to_owned());
                rest = after.trim_start();
            }
            parts
        }
    };
    Ok(strings(parts))
}

fn rsplit(arguments: &[Value]) -> Result<Value> {
    let text = of(arguments)?;
    let (by, most) = splitting(arguments)?;
    let mut parts: Vec<String> = match by {
        Some(by) => text.rsplitn(most.saturating_add(1), by).map(str::to_owned).collect(),
        None => {
            let mut parts = Vec::new();
            let mut rest = text.trim_end();
            while !rest.is_empty() {
                let start = if parts.len() < most { rest.rfind(char::is_whitespace) } else { None };
                let start = start.map_or(0, |at| at + rest[at..].chars().next().map_or(1, char::len_utf8));
                let (before, part) = rest.split_at(start);
                parts.push(if parts.len() < most { part } else { part.trim_start() }.to_owned());
                rest = before.trim_end();
            }
            parts
        }
    };
    parts.reverse();
    Ok(strings(parts))
}

fn join_type(seen: &[Type]) -> Typed {
    let item = item_type(&seen[1])?;
    match item.kind {
        Kind::Str | Kind::Any | Kind::Never => Ok(Type::STR),
        _ => Err(format!("join() wants a list of strings, got a list of {item}")),
    }
}

fn join(arguments: &[Value]) -> Result<Value> {
    let by = of(arguments)?;
    let mut out = String::new();
    for (i, item) in items(&arguments[1])?.iter().enumerate() {
        let Value::String(text) = item else {
            let message = format!("sequence item {i}: expected str instance, {} found", type_name(item));
            return Err(Raised::new("TypeError", message));
        };
        if i > 0 {
            out.push_str(by);
        }
        out.push_str(text);
        bounded(out.len())?;
    }
    Ok(Value::String(out.into()))
}

fn replace_type(seen: &[Type]) -> Typed {
    integers(seen.get(3..).unwrap_or(&[]), "count")?;
    texts(&seen[..3], Type::STR)
}

fn replace(arguments: &[Value]) -> Result<Value> {
    let (text, old, new) = (of(arguments)?, argument(arguments, 1)?, argument(arguments, 2)?);
    let most = match arguments.get(3).and_then(number) {
        Some(Number::Int(most)) => usize::try_from(most).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    let times = text.matches(old).count().min(most);
    bounded(text.len().saturating_add(times.saturating_mul(new.len())))?;
    Ok(Value::String(text.replacen(old, new, most).into()))
}

fn affix(arguments: &[Value], has: impl Fn(&str, &str) -> bool) -> Result<Value> {
    let text = of(arguments)?;
    let found = match &arguments[1] {
        Value::Array(all) => all.iter().any(|one| matches!(one, Value::String(one) if has(text, one))),
        _ => has(text, argument(arguments, 1)?),
    };
    Ok(Value::Bool(found))
}

fn find(arguments: &[Value], last: bool) -> Result<Option<Value>> {
    let (text, sub) = (of(arguments)?, argument(arguments, 1)?);
    let at = if last { text.rfind(sub) } else { text.find(sub) };
    Ok(at.map(|at| Value::Int64(i64::try_from(text[..at].chars().count()).unwrap_or(i64::MAX))))
}

fn width(arguments: &[Value]) -> Result<usize> {
    match arguments.get(1).and_then(number) {
        Some(Number::Int(width)) => {
            let width = usize::try_from(width).unwrap_or(0);
            bounded(width).map(|()| width)
        }
        _ => Err(Raised::new("TypeError", "the width must be an integer")),
    }
}

fn pad(arguments: &[Value], sides: impl Fn(usize) -> (usize, usize)) -> Result<Value> {
    let text = of(arguments)?;
    let fill = match arguments.get(2) {
        None => " ",
        Some(_) => argument(arguments, 2)?,
    };
    if fill.chars().count() != 1 {
        return Err(Raised::new("TypeError", "The fill character must be exactly one character long"));
    }
    let (left, right) = sides(width(arguments)?.saturating_sub(text.chars().count()));
    Ok(Value::String(format!("{}{text}{}", fill.repeat(left), fill.repeat(right)).into()))
}

fn test(arguments: &[Value], each: impl Fn(char) -> bool) -> Result<Value> {
    let text = of(arguments)?;
    Ok(Value::Bool(!text.is_empty() && text.chars().all(each)))
}

fn cased(arguments: &[Value], is: impl Fn(char) -> bool, is_not: impl Fn(char) -> bool) -> Result<Value> {
    let text = of(arguments)?;
    Ok(Value::Bool(text.chars().any(&is) && !text.chars().any(is_not)))
}

fn get_type(seen: &[Type]) -> Typed {
    match &seen[0].kind {
        Kind::Dict(_, value) => Ok(value.join(seen.get(2).unwrap_or(&Type::NONE))),
        _ => Ok(Type::ANY),
    }
}

fn values_type(seen: &[Type]) -> Typed {
    match &seen[0].kind {
        Kind::Dict(_, value) => Ok(Type::list((**value).clone())),
        _ => Ok(Type::list(Type::ANY)),
    }
}
