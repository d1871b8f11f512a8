//! Python's functions that expressions have, with what they take and give.

use std::sync::Arc;

use tiebeam_core::row::Value;

use super::evaluate::{Call, Raised, items};
use super::format::{repr_of, str_of};
use super::number::{LONGEST, Number, binary, number, order, overflow, too_long, truth, type_name};
use super::tree::Binary;
use super::types::{Kind, Type};

type Result<T> = std::result::Result<T, Raised>;

/// A function or method: its parameters, what it gives for which types, and what it does.
pub struct Function {
    pub name: &'static str,
    /// The names of its parameters, in order; a method's first one is the value itself.
    pub parameters: &'static [&'static str],
    /// How many of them must be given.
    pub required: usize,
    /// Whether any number of arguments may be given.
    pub variadic: bool,
    /// The type of the result, or what is wrong with the arguments' types.
    pub result: fn(&[Type]) -> std::result::Result<Type, String>,
    pub call: Call,
}

const fn function(
    name: &'static str,
    parameters: &'static [&'static str],
    required: usize,
    result: fn(&[Type]) -> std::result::Result<Type, String>,
    call: Call,
) -> Function {
    Function { name, parameters, required, variadic: false, result, call }
}

pub static BUILTINS: [Function; 24] = [
    function("len", &["obj"], 1, |t| sized(t).map(|()| Type::INT), |a| length(&a[0])),
    function(
        "str",
        &["object"],
        0,
        |_| Ok(Type::STR),
        |a| Ok(Value::String(a.first().map(str_of).unwrap_or_default().into())),
    ),
    function("repr", &["obj"], 1, |_| Ok(Type::STR), |a| Ok(Value::String(repr_of(&a[0]).into()))),
    function("int", &["x", "base"], 0, |t| numeric_or_text(t, "int()").map(|()| Type::INT), to_int),
    function("float", &["x"], 0, |t| numeric_or_text(t, "float()").map(|()| Type::FLOAT), to_float),
    function("bool", &["x"], 0, |_| Ok(Type::BOOL), |a| Ok(Value::Bool(a.first().is_some_and(truth)))),
    function("round", &["number", "ndigits"], 1, round_type, round),
    function("abs", &["x"], 1, |t| arithmetic(t, "abs()"), |a| absolute(&a[0])),
    Function {
        name: "min",
        parameters: &[],
        required: 1,
        variadic: true,
        result: |t| extreme_type(t, "min()"),
        call: |a| extreme(a, "<", "min"),
    },
    Function {
        name: "max",
        parameters: &[],
        required: 1,
        variadic: true,
        result: |t| extreme_type(t, "max()"),
        call: |a| extreme(a, ">", "max"),
    },
    function("sum", &["iterable", "start"], 1, sum_type, sum),
    function("sorted", &["iterable", "key", "reverse"], 1, |t| item_type(&t[0]).map(Type::list), sorted),
    function(
        "reversed",
        &["sequence"],
        1,
        |t| item_type(&t[0]).map(Type::list),
        |a| {
            let mut all = items(&a[0])?;
            all.reverse();
            Ok(Value::Array(all.into()))
        },
    ),
    function("list", &["iterable"], 0, list_type, list),
    function("tuple", &["iterable"], 0, list_type, list),
    function(
        "any",
        &["iterable"],
        1,
        |t| item_type(&t[0]).map(|_| Type::BOOL),
        |a| Ok(Value::Bool(items(&a[0])?.iter().any(truth))),
    ),
    function(
        "all",
        &["iterable"],
        1,
        |t| item_type(&t[0]).map(|_| Type::BOOL),
        |a| Ok(Value::Bool(items(&a[0])?.iter().all(truth))),
    ),
    function(
        "range",
        &["start", "stop", "step"],
        1,
        |t| integers(t, "range()").map(|()| Type::list(Type::INT)),
        range,
    ),
    function(
        "ord",
        &["c"],
        1,
        |t| text(&t[0], "ord()").map(|()| Type::INT),
        |a| match &a[0] {
            Value::String(text) => {
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => Ok(Value::Int64(i64::from(u32::from(c)))),
                    _ => Err(Raised::new(
                        "TypeError",
                        format!(
                            "ord() expected a character, but string of length {} found",
                            text.chars().count()
                        ),
                    )),
                }
            }
            other => Err(Raised::new(
                "TypeError",
                format!("ord() expected string, but {} found", type_name(other)),
            )),
        },
    ),
    function(
        "chr",
        &["i"],
        1,
        |t| integers(t, "chr()").map(|()| Type::STR),
        |a| match number(&a[0]) {
            Some(Number::Int(code)) => u32::try_from(code)
                .ok()
                .and_then(char::from_u32)
                .map(|c| Value::String(c.to_string().into()))
                .ok_or_else(|| Raised::new("ValueError", "chr() arg not in range(0x110000)")),
            _ => Err(Raised::new(
                "TypeError",
                format!("'{}' object cannot be interpreted as an integer", type_name(&a[0])),
            )),
        },
    ),
    function(
        "pow",
        &["base", "exp"],
        2,
        |t| super::check::binary_type(Binary::Power, &t[0], &t[1]),
        |a| binary(Binary::Power, &a[0], &a[1]),
    ),
    function("hex", &["x"], 1, |t| integers(t, "hex()").map(|()| Type::STR), |a| in_base(&a[0], 16, "0x")),
    function("bin", &["x"], 1, |t| integers(t, "bin()").map(|()| Type::STR), |a| in_base(&a[0], 2, "0b")),
    function("oct", &["x"], 1, |t| integers(t, "oct()").map(|()| Type::STR), |a| in_base(&a[0], 8, "0o")),
];

/// The function of that name.
pub fn builtin(name: &str) -> Option<&'static Function> {
    BUILTINS.iter().find(|function| function.name == name)
}

fn wrong(what: &str, wanted: &str, seen: &Type) -> String {
    format!("{what} wants {wanted}, got {seen}")
}

pub fn text(seen: &Type, what: &str) -> std::result::Result<(), String> {
    match seen.kind {
        Kind::Str | Kind::Any | Kind::Never => Ok(()),
        _ => Err(wrong(what, "a string", seen)),
    }
}

pub fn integers(seen: &[Type], what: &str) -> std::result::Result<(), String> {
    match seen.iter().find(|t| !matches!(t.kind, Kind::Int | Kind::Bool | Kind::Any | Kind::Never)) {
        Some(seen) => Err(wrong(what, "an integer", seen)),
        None => Ok(()),
    }
}

fn arithmetic(seen: &[Type], what: &str) -> std::result::Result<Type, String> {
    match seen[0].kind {
        Kind::Int | Kind::Bool => Ok(Type::INT),
        Kind::Float => Ok(Type::FLOAT),
        Kind::Any => Ok(Type::ANY),
        _ => Err(wrong(what, "a number", &seen[0])),
    }
}

fn numeric_or_text(seen: &[Type], what: &str) -> std::result::Result<(), String> {
    match seen.first() {
        Some(seen) if !seen.numeric() && seen.kind != Kind::Str && seen.kind != Kind::Bytes => {
            Err(wrong(what, "a number or a string", seen))
        }
        _ => Ok(()),
    }
}

fn sized(seen: &[Type]) -> std::result::Result<(), String> {
    match seen[0].kind {
        Kind::Str | Kind::Bytes | Kind::List(_) | Kind::Dict(..) | Kind::Row(_) | Kind::Any => Ok(()),
        _ => Err(wrong("len()", "a string, a list or a map", &seen[0])),
    }
}

/// The type of what iterating gives.
pub fn item_type(seen: &Type) -> std::result::Result<Type, String> {
    match &seen.kind {
        Kind::List(item) => Ok((**item).clone()),
        Kind::Str => Ok(Type::STR),
        Kind::Bytes => Ok(Type::INT),
        Kind::Dict(key, _) => Ok((**key).clone()),
        Kind::Any => Ok(Type::ANY),
        _ => Err(format!("{seen} cannot be iterated over")),
    }
}

fn length(value: &Value) -> Result<Value> {
    let length = match value {
        Value::String(text) if text.is_ascii() => text.len(),
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Array(items) => items.len(),
        Value::Map(entries) => entries.len(),
        Value::Row(row) => row.values.len(),
        other => {
            return Err(Raised::new(
                "TypeError",
                format!("object of type '{}' has no len()", type_name(other)),
            ));
        }
    };
    Ok(Value::Int64(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn to_int(arguments: &[Value]) -> Result<Value> {
    let Some(value) = arguments.first() else { return Ok(Value::Int64(0)) };
    let base = match arguments.get(1).map(number) {
        None => None,
        Some(Some(Number::Int(base))) if base == 0 || (2..=36).contains(&base) => u32::try_from(base).ok(),
        Some(_) => return Err(Raised::new("ValueError", "int() base must be >= 2 and <= 36, or 0")),
    };
    match (value, number(value)) {
        (Value::String(_), _) => {}
        _ if base.is_some() => {
            return Err(Raised::new("TypeError", "int() can't convert non-string with explicit base"));
        }
        (_, Some(Number::Int(int))) => return Ok(Value::Int64(int)),
        (_, Some(Number::Float(float))) => return float_to_int(float.trunc()),
        _ => {}
    }
    let given = match value {
        Value::String(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => {
            let message = format!(
                "int() argument must be a string, a bytes-like object or a real number, not '{}'",
                type_name(other)
            );
            return Err(Raised::new("TypeError", message));
        }
    };
    let base = base.unwrap_or(10);
    let bad = || {
        Raised::new("ValueError", format!("invalid literal for int() with base {base}: {}", repr_of(value)))
    };
    let digits = separated(given.trim()).ok_or_else(bad)?;
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let prefixes: &[(&str, u32)] = &[("0x", 16), ("0o", 8), ("0b", 2), ("0X", 16), ("0O", 8), ("0B", 2)];
    let prefixed =
        prefixes.iter().find(|(prefix, of)| digits.starts_with(prefix) && (base == 0 || base == *of));
    let (digits, radix) = match prefixed {
        Some((prefix, of)) => (&digits[prefix.len()..], *of),
        None => (digits, if base == 0 { 10 } else { base }),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(bad());
    }
    let signed = format!("{}{digits}", if negative { "-" } else { "" });
    i64::from_str_radix(&signed, radix).map(Value::Int64).map_err(|_| overflow())
}

/// Digits without the underscores that may stand between them; none where they stand elsewhere.
fn separated(text: &str) -> Option<String> {
    let fine = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    fine.then(|| text.replace('_', ""))
}

pub fn float_to_int(float: f64) -> Result<Value> {
    if float.is_nan() {
        return Err(Raised::new("ValueError", "cannot convert float NaN to integer"));
    }
    if float.is_infinite() {
        return Err(Raised::new("OverflowError", "cannot convert float infinity to integer"));
    }
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float) {
        Ok(Value::Int64(float as i64))
    } else {
        Err(overflow())
    }
}

fn to_float(arguments: &[Value]) -> Result<Value> {
    let Some(value) = arguments.first() else { return Ok(Value::Double(0.0)) };
    if let Some(number) = number(value) {
        return Ok(Value::Double(number.float()));
    }
    let Value::String(text) = value else {
        let message =
            format!("float() argument must be a string or a real number, not '{}'", type_name(value));
        return Err(Raised::new("TypeError", message));
    };
    let plain = separated(text.trim()).unwrap_or_default().to_lowercase();
    let unsigned = plain.strip_prefix(['-', '+']).unwrap_or(&plain);
    let named = matches!(unsigned, "inf" | "infinity" | "nan");
    // Rust reads a few more words than Python does.
    let fine = named || unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    match plain.parse::<f64>() {
        Ok(value) if fine => Ok(Value::Double(value)),
        _ => Err(Raised::new("ValueError", format!("could not convert string to float: {}", repr_of(value)))),
    }
}

fn round_type(seen: &[Type]) -> std::result::Result<Type, String> {
    integers(seen.get(1..).unwrap_or(&[]), "the second argument of round()")?;
    let of = arithmetic(seen, "round()")?;
    Ok(if seen.len() == 1 && of == Type::FLOAT { Type::INT } else { of })
}

fn round(arguments: &[Value]) -> Result<Value> {
    let digits = match arguments.get(1).map(|digits| (digits, number(digits))) {
        None | Some((Value::Null, _)) => None,
        Some((_, Some(Number::Int(digits)))) => Some(digits),
        Some((other, _)) => {
            let message = format!("'{}' object cannot be interpreted as an integer", type_name(other));
            return Err(Raised::new("TypeError", message));
        }
    };
    match (number(&arguments[0]), digits) {
        (Some(Number::Int(int)), None | Some(0..)) => Ok(Value::Int64(int)),
        (Some(Number::Int(int)), Some(digits)) => round_int(int, digits),
        (Some(Number::Float(float)), None) => float_to_int(float.round_ties_even()),
        (Some(Number::Float(float)), Some(digits)) => round_float(float, digits),
        (None, _) => {
            let message = format!("type {} doesn't define __round__ method", type_name(&arguments[0]));
            Err(Raised::new("TypeError", message))
        }
    }
}

fn round_int(int: i64, digits: i64) -> Result<Value> {
    let Some(unit) = u32::try_from(digits.unsigned_abs()).ok().and_then(|n| 10i128.checked_pow(n)) else {
        return Ok(Value::Int64(0));
    };
    let int = i128::from(int);
    let (down, rest) = (int.div_euclid(unit), int.rem_euclid(unit));
    let up = match (rest * 2).cmp(&unit) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => down % 2 != 0,
        std::cmp::Ordering::Less => false,
    };
    i64::try_from((down + i128::from(up)) * unit).map(Value::Int64).map_err(|_| overflow())
}

fn round_float(float: f64, digits: i64) -> Result<Value> {
    if !float.is_finite() || digits > 330 {
        return Ok(Value::Double(float));
    }
    if digits < -310 {
        return Ok(Value::Double(0.0f64.copysign(float)));
    }
    let rounded = match usize::try_from(digits) {
        // The decimal text of a float is exact and ties go to even, as Python's do.
        Ok(digits) => format!("{float:.digits$}").parse().unwrap_or(float),
        Err(_) => {
            let unit = 10f64.powi(i32::try_from(-digits).unwrap_or(0));
            (float / unit).round_ties_even() * unit
        }
    };
    Ok(Value::Double(rounded))
}

fn absolute(value: &Value) -> Result<Value> {
    match number(value) {
        Some(Number::Int(int)) => int.checked_abs().map(Value::Int64).ok_or_else(overflow),
        Some(Number::Float(float)) => Ok(Value::Double(float.abs())),
        None => Err(Raised::new("TypeError", format!("bad operand type for abs(): '{}'", type_name(value)))),
    }
}

fn comparable(a: &Type, b: &Type) -> bool {
    (a.numeric() && b.numeric())
        || a.kind == Kind::Any
        || b.kind == Kind::Any
        || matches!(
            (&a.kind, &b.kind),
            (Kind::Str, Kind::Str) | (Kind::Bytes, Kind::Bytes) | (Kind::List(_), Kind::List(_))
        )
        || a.kind == Kind::Never
        || b.kind == Kind::Never
}

fn extreme_type(seen: &[Type], what: &str) -> std::result::Result<Type, String> {
    if let [one] = seen {
        return item_type(one).map_err(|_| wrong(what, "a list, or two or more values", one));
    }
    let mut joined = seen[0].clone();
    for next in &seen[1..] {
        if !comparable(&joined, next) {
            return Err(format!("{what} cannot compare {joined} with {next}"));
        }
        joined = joined.join(next);
    }
    Ok(joined)
}

fn extreme(arguments: &[Value], sign: &str, name: &str) -> Result<Value> {
    let all = match arguments {
        [one] => items(one)?,
        many => many.to_vec(),
    };
    let mut all = all.into_iter();
    let Some(mut best) = all.next() else {
        return Err(Raised::new("ValueError", format!("{name}() iterable argument is empty")));
    };
    for next in all {
        let order = order(sign, &next, &best)?;
        if if sign == "<" { order.is_some_and(|o| o.is_lt()) } else { order.is_some_and(|o| o.is_gt()) } {
            best = next;
        }
    }
    Ok(best)
}

fn sum_type(seen: &[Type]) -> std::result::Result<Type, String> {
    let item = item_type(&seen[0])?;
    match item.kind {
        Kind::Int | Kind::Bool | Kind::Never => Ok(Type::INT.join(seen.get(1).unwrap_or(&Type::INT))),
        Kind::Float => Ok(Type::FLOAT),
        Kind::Any => Ok(Type::ANY),
        _ => Err(format!("sum() wants a list of numbers, got a list of {item}")),
    }
}

fn sum(arguments: &[Value]) -> Result<Value> {
    let start = arguments.get(1).cloned().unwrap_or(Value::Int64(0));
    items(&arguments[0])?.iter().try_fold(start, |sum, next| binary(Binary::Add, &sum, next))
}

fn sorted(arguments: &[Value]) -> Result<Value> {
    if arguments.get(1).is_some_and(|key| *key != Value::Null) {
        return Err(Raised::new("TypeError", "sorted() takes no key here"));
    }
    let mut all = items(&arguments[0])?;
    let mut failed = None;
    all.sort_by(|a, b| match order("<", a, b) {
        Ok(order) => order.unwrap_or(std::cmp::Ordering::Equal),
        Err(raised) => {
            failed.get_or_insert(raised);
            std::cmp::Ordering::Equal
        }
    });
    if let Some(raised) = failed {
        return Err(raised);
    }
    if arguments.get(2).is_some_and(truth) {
        all.reverse();
    }
    Ok(Value::Array(all.into()))
}

fn list_type(seen: &[Type]) -> std::result::Result<Type, String> {
    match seen.first() {
        Some(seen) => item_type(seen).map(Type::list),
        None => Ok(Type::list(Type::of(Kind::Never))),
    }
}

fn list(arguments: &[Value]) -> Result<Value> {
    match arguments.first() {
        Some(value) => Ok(Value::Array(items(value)?.into())),
        None => Ok(Value::Array(Arc::from([]))),
    }
}

fn range(arguments: &[Value]) -> Result<Value> {
    let mut bounds = Vec::with_capacity(3);
    for argument in arguments {
        match number(argument) {
            Some(Number::Int(int)) => bounds.push(int),
            _ => {
                let message = format!("'{}' object cannot be interpreted as an integer", type_name(argument));
                return Err(Raised::new("TypeError", message));
            }
        }
    }
    let (start, stop, step) = match *bounds.as_slice() {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] => (start, stop, step),
        _ => (0, 0, 1),
    };
    if step == 0 {
        return Err(Raised::new("ValueError", "range() arg 3 must not be zero"));
    }
    let count = (i128::from(stop) - i128::from(start)) / i128::from(step);
    if count > LONGEST as i128 {
        return Err(too_long(usize::try_from(count).unwrap_or(usize::MAX)));
    }
    let mut all = Vec::new();
    let mut at = i128::from(start);
    while if step > 0 { at < i128::from(stop) } else { at > i128::from(stop) } {
        all.extend(i64::try_from(at).map(Value::Int64));
        at += i128::from(step);
    }
    Ok(Value::Array(all.into()))
}

fn in_base(value: &Value, base: u32, prefix: &str) -> Result<Value> {
    let Some(Number::Int(int)) = number(value) else {
        let message = format!("'{}' object cannot be interpreted as an integer", type_name(value));
        return Err(Raised::new("TypeError", message));
    };
    let magnitude = int.unsigned_abs();
    let digits = match base {
        16 => format!("{magnitude:x}"),
        8 => format!("{magnitude:o}"),
        _ => format!("{magnitude:b}"),
    };
    Ok(Value::String(format!("{}{prefix}{digits}", if int < 0 { "-" } else { "" }).into()))
}
