//! Python's arithmetic and comparisons. Integers have 64 bits; what does not fit is an error, never a wrong number.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::row::Value;

use super::evaluate::Raised;
use super::tree::Binary;

type Result<T> = std::result::Result<T, Raised>;

/// The longest text or list, in bytes or items, that one operation makes.
pub const LONGEST: usize = 16 << 20;

/// A number as arithmetic sees it.
#[derive(Clone, Copy)]
pub enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    pub fn float(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        }
    }

    fn value(self) -> Value {
        match self {
            Number::Int(value) => Value::Int64(value),
            Number::Float(value) => Value::Double(value),
        }
    }
}

#[inline]
pub fn number(value: &Value) -> Option<Number> {
    Some(match value {
        Value::Int64(value) => Number::Int(*value),
        Value::Double(value) => Number::Float(*value),
        Value::Bool(value) => Number::Int(i64::from(*value)),
        Value::Byte(value) => Number::Int(i64::from(*value)),
        Value::Int16(value) => Number::Int(i64::from(*value)),
        Value::Int32(value) => Number::Int(i64::from(*value)),
        Value::Float(value) => Number::Float(f64::from(*value)),
        _ => return None,
    })
}

/// Python's name for a value's type.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Byte(_) | Value::Int16(_) | Value::Int32(_) | Value::Int64(_) => "int",
        Value::Float(_) | Value::Double(_) => "float",
        Value::String(_) => "str",
        Value::Bytes(_) => "bytes",
        Value::Array(_) => "list",
        Value::Map(_) => "dict",
        Value::Row(_) => "Row",
    }
}

pub fn overflow() -> Raised {
    Raised::new("OverflowError", "integer overflow: the result does not fit int64")
}

fn zero_division(message: &str) -> Raised {
    Raised::new("ZeroDivisionError", message)
}

pub fn too_long(length: usize) -> Raised {
    Raised::new("MemoryError", format!("a result of {length} items is longer than the {LONGEST} allowed"))
}

#[inline]
pub fn binary(operator: Binary, a: &Value, b: &Value) -> Result<Value> {
    match (number(a), number(b)) {
        (Some(Number::Int(x)), Some(Number::Int(y))) => {
            if let (Value::Bool(x), Value::Bool(y)) = (a, b)
                && let Some(value) = logic(operator, *x, *y)
            {
                return Ok(Value::Bool(value));
            }
            ints(operator, x, y)
        }
        (Some(x), Some(y)) => floats(operator, x.float(), y.float())
            .ok_or_else(|| unsupported(operator, a, b))?
            .map(Value::Double),
        _ => others(operator, a, b),
    }
}

fn logic(operator: Binary, x: bool, y: bool) -> Option<bool> {
    match operator {
        Binary::BitAnd => Some(x & y),
        Binary::BitOr => Some(x | y),
        Binary::BitXor => Some(x ^ y),
        _ => None,
    }
}

fn ints(operator: Binary, x: i64, y: i64) -> Result<Value> {
    let whole = |value: Option<i64>| value.map(Value::Int64).ok_or_else(overflow);
    match operator {
        Binary::Add => whole(x.checked_add(y)),
        Binary::Subtract => whole(x.checked_sub(y)),
        Binary::Multiply => whole(x.checked_mul(y)),
        Binary::Divide if y == 0 => Err(zero_division("division by zero")),
        Binary::Divide => Ok(Value::Double(divide(x, y))),
        Binary::FloorDivide if y == 0 => Err(zero_division("integer division or modulo by zero")),
        Binary::Modulo if y == 0 => Err(zero_division("integer modulo by zero")),
        Binary::FloorDivide => {
            let quotient = x.checked_div(y).ok_or_else(overflow)?;
            Ok(Value::Int64(quotient - i64::from(x % y != 0 && (x < 0) != (y < 0))))
        }
        Binary::Modulo => {
            let rest = x.wrapping_rem(y);
            Ok(Value::Int64(if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }))
        }
        Binary::Power if y < 0 && x == 0 => Err(zero_division("0.0 cannot be raised to a negative power")),
        Binary::Power if y < 0 => Ok(Value::Double((x as f64).powf(y as f64))),
        Binary::Power => match x {
            0 | 1 => Ok(Value::Int64(if y == 0 { 1 } else { x })),
            -1 => Ok(Value::Int64(if y % 2 == 0 { 1 } else { -1 })),
            _ => whole(u32::try_from(y).ok().and_then(|y| x.checked_pow(y))),
        },
        Binary::BitAnd => Ok(Value::Int64(x & y)),
        Binary::BitOr => Ok(Value::Int64(x | y)),
        Binary::BitXor => Ok(Value::Int64(x ^ y)),
        Binary::ShiftLeft | Binary::ShiftRight if y < 0 => {
            Err(Raised::new("ValueError", "negative shift count"))
        }
        Binary::ShiftLeft if x == 0 => Ok(Value::Int64(0)),
        Binary::ShiftLeft => {
            whole(u32::try_from(y).ok().filter(|y| *y < 63).and_then(|y| x.checked_mul(1i64 << y)))
        }
        Binary::ShiftRight => Ok(Value::Int64(x >> y.min(63))),
    }
}

/// The quotient nearest to the true one.
fn divide(x: i64, y: i64) -> f64 {
    const EXACT: u64 = 1 << 53;
    if x.unsigned_abs() <= EXACT && y.unsigned_abs() <= EXACT {
        return x as f64 / y as f64;
    }
    // One of the operands would be rounded before the division: divide in integers to 64 bits, the last one sticky,
    // and round only once.
    let (n, d) = (u128::from(x.unsigned_abs()), u128::from(y.unsigned_abs()));
    let shift = n.leading_zeros();
    let scaled = n << shift;
    let mut quotient = scaled / d;
    if scaled % d != 0 {
        quotient |= 1;
    }
    let magnitude = quotient as f64 * (-(f64::from(shift))).exp2();
    if (x < 0) == (y < 0) { magnitude } else { -magnitude }
}

fn floats(operator: Binary, x: f64, y: f64) -> Option<Result<f64>> {
    Some(match operator {
        Binary::Add => Ok(x + y),
        Binary::Subtract => Ok(x - y),
        Binary::Multiply => Ok(x * y),
        Binary::Divide if y == 0.0 => Err(zero_division("float division by zero")),
        Binary::Divide => Ok(x / y),
        Binary::FloorDivide if y == 0.0 => Err(zero_division("float floor division by zero")),
        Binary::FloorDivide => Ok(floor_divide(x, y).0),
        Binary::Modulo if y == 0.0 => Err(zero_division("float modulo")),
        Binary::Modulo => Ok(floor_divide(x, y).1),
        Binary::Power if x == 0.0 && y < 0.0 => {
            Err(zero_division("0.0 cannot be raised to a negative power"))
        }
        Binary::Power if x < 0.0 && x.is_finite() && y.is_finite() && y.fract() != 0.0 => {
            Err(Raised::new("ValueError", "a negative number raised to a fraction is complex"))
        }
        Binary::Power => {
            let power = x.powf(y);
            if power.is_infinite() && x.is_finite() && y.is_finite() {
                Err(Raised::new("OverflowError", "(34, 'Numerical result out of range')"))
            } else {
                Ok(power)
            }
        }
        Binary::BitAnd | Binary::BitOr | Binary::BitXor | Binary::ShiftLeft | Binary::ShiftRight => {
            return None;
        }
    })
}

/// Python's `divmod` of floats: the rest has the divisor's sign.
fn floor_divide(x: f64, y: f64) -> (f64, f64) {
    let mut rest = x % y;
    let mut quotient = (x - rest) / y;
    if rest != 0.0 {
        if (y < 0.0) != (rest < 0.0) {
            rest += y;
            quotient -= 1.0;
        }
    } else {
        rest = 0.0f64.copysign(y);
    }
    let floor = if quotient == 0.0 {
        0.0f64.copysign(x / y)
    } else {
        let floor = quotient.floor();
        if quotient - floor > 0.5 { floor + 1.0 } else { floor }
    };
    (floor, rest)
}

fn others(operator: Binary, a: &Value, b: &Value) -> Result<Value> {
    match (operator, a, b) {
        (Binary::Add, Value::String(a), Value::String(b)) => {
            bounded(a.len() + b.len())?;
            let mut text = String::with_capacity(a.len() + b.len());
            text.push_str(a);
            text.push_str(b);
            Ok(Value::String(text.into()))
        }
        (Binary::Add, Value::Bytes(a), Value::Bytes(b)) => {
            bounded(a.len() + b.len())?;
            Ok(Value::Bytes([&a[..], &b[..]].concat().into()))
        }
        (Binary::Add, Value::Array(a), Value::Array(b)) => {
            bounded(a.len() + b.len())?;
            Ok(Value::Array(a.iter().chain(b.iter()).cloned().collect()))
        }
        (Binary::Multiply, of, times) | (Binary::Multiply, times, of)
            if matches!(of, Value::String(_) | Value::Bytes(_) | Value::Array(_)) =>
        {
            let Some(Number::Int(times)) = number(times) else { return Err(unsupported(operator, a, b)) };
            repeat(of, usize::try_from(times).unwrap_or(0))
        }
        _ => Err(unsupported(operator, a, b)),
    }
}

fn repeat(of: &Value, times: usize) -> Result<Value> {
    let long = |length: usize| bounded(length.saturating_mul(times));
    Ok(match of {
        Value::String(text) => {
            long(text.len())?;
            Value::String(text.repeat(times).into())
        }
        Value::Bytes(bytes) => {
            long(bytes.len())?;
            Value::Bytes(Bytes::from(bytes.repeat(times)))
        }
        Value::Array(items) => {
            long(items.len())?;
            let all: Arc<[Value]> =
                std::iter::repeat_n(items, times).flat_map(|items| items.iter().cloned()).collect();
            Value::Array(all)
        }
        other => other.clone(),
    })
}

/// # Errors
/// When a result would be longer than [`LONGEST`].
pub fn bounded(length: usize) -> Result<()> {
    if length > LONGEST { Err(too_long(length)) } else { Ok(()) }
}

fn unsupported(operator: Binary, a: &Value, b: &Value) -> Raised {
    let (a, b) = (type_name(a), type_name(b));
    Raised::new("TypeError", format!("unsupported operand type(s) for {}: '{a}' and '{b}'", operator.sign()))
}

pub fn negate(value: &Value) -> Result<Value> {
    match number(value) {
        Some(Number::Int(value)) => value.checked_neg().map(Value::Int64).ok_or_else(overflow),
        Some(Number::Float(value)) => Ok(Value::Double(-value)),
        None => Err(bad_unary("-", value)),
    }
}

pub fn plus(value: &Value) -> Result<Value> {
    number(value).map(Number::value).ok_or_else(|| bad_unary("+", value))
}

pub fn invert(value: &Value) -> Result<Value> {
    match number(value) {
        Some(Number::Int(value)) => Ok(Value::Int64(!value)),
        _ => Err(bad_unary("~", value)),
    }
}

fn bad_unary(sign: &str, value: &Value) -> Raised {
    Raised::new("TypeError", format!("bad operand type for unary {sign}: '{}'", type_name(value)))
}

/// Python's `bool()`.
#[inline]
pub fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::String(text) => !text.is_empty(),
        Value::Bytes(bytes) => !bytes.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Map(entries) => !entries.is_empty(),
        Value::Row(row) => !row.values.is_empty(),
        other => match number(other) {
            Some(Number::Int(value)) => value != 0,
            Some(Number::Float(value)) => value != 0.0,
            None => true,
        },
    }
}

/// Python's `==`: values of foreign types are different, no error.
#[inline]
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| equal(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len()
                && a.iter().all(|(k, v)| b.iter().any(|(other, value)| equal(k, other) && equal(v, value)))
        }
        (Value::Row(a), Value::Row(b)) => {
            a.values.len() == b.values.len()
                && a.schema.fields.iter().map(|f| &f.name).eq(b.schema.fields.iter().map(|f| &f.name))
                && a.values.iter().zip(b.values.iter()).all(|(a, b)| equal(a, b))
        }
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => order_numbers(a, b) == Some(Ordering::Equal),
            _ => false,
        },
    }
}

fn order_numbers(a: Number, b: Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
        (Number::Int(a), Number::Float(b)) => order_mixed(a, b),
        (Number::Float(a), Number::Int(b)) => order_mixed(b, a).map(Ordering::reverse),
    }
}

/// An integer against a float, exactly.
fn order_mixed(a: i64, b: f64) -> Option<Ordering> {
    const END: f64 = 9_223_372_036_854_775_808.0;
    if b.is_nan() {
        return None;
    }
    if b >= END {
        return Some(Ordering::Less);
    }
    if b < -END {
        return Some(Ordering::Greater);
    }
    let floor = b.floor();
    match a.cmp(&(floor as i64)) {
        Ordering::Equal if floor < b => Some(Ordering::Less),
        order => Some(order),
    }
}

/// Python's order; none where a NaN has none.
///
/// # Errors
/// When the types have no order. `sign` is told in the message.
#[inline]
pub fn order(sign: &str, a: &Value, b: &Value) -> Result<Option<Ordering>> {
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(order_numbers(a, b));
    }
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(Some(a.cmp(b))),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Some(a.cmp(b))),
        (Value::Array(a), Value::Array(b)) => {
            for (a, b) in a.iter().zip(b.iter()) {
                if !equal(a, b) {
                    return order(sign, a, b);
                }
            }
            Ok(Some(a.len().cmp(&b.len())))
        }
        _ => Err(Raised::new(
            "TypeError",
            format!("'{sign}' not supported between instances of '{}' and '{}'", type_name(a), type_name(b)),
        )),
    }
}

/// Python's `item in all`.
///
/// # Errors
/// When `all` holds nothing.
pub fn contains(all: &Value, item: &Value) -> Result<bool> {
    match (all, item) {
        (Value::String(all), Value::String(item)) => Ok(all.contains(&**item)),
        (Value::String(_), other) => Err(Raised::new(
            "TypeError",
            format!("'in <string>' requires string as left operand, not {}", type_name(other)),
        )),
        (Value::Bytes(all), Value::Bytes(item)) => {
            Ok(item.is_empty() || all.windows(item.len()).any(|window| window == item))
        }
        (Value::Array(items), item) => Ok(items.iter().any(|one| equal(one, item))),
        (Value::Map(entries), item) => Ok(entries.iter().any(|(key, _)| equal(key, item))),
        (other, _) => {
            Err(Raised::new("TypeError", format!("argument of type '{}' is not iterable", type_name(other))))
        }
    }
}
