//! Python's ways to write a value: `str`, `repr`, and the format of f-strings.

use std::fmt::Write as _;

use tiebeam_core::row::Value;

use super::evaluate::Raised;
use super::number::{Number, number, type_name};

/// Python's `str(value)`.
pub fn str_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        other => repr_of(other),
    }
}

/// Python's `repr(value)`.
pub fn repr_of(value: &Value) -> String {
    let mut out = String::new();
    write_repr(value, &mut out);
    out
}

fn write_repr(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::String(text) => quote(text, out),
        Value::Bytes(bytes) => quote_bytes(bytes, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_repr(item, out);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (i, (key, value)) in entries.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_repr(key, out);
                out.push_str(": ");
                write_repr(value, out);
            }
            out.push('}');
        }
        Value::Row(row) => {
            out.push_str("Row(");
            for (i, (field, value)) in row.schema.fields.iter().zip(row.values.iter()).enumerate() {
                let _ = write!(out, "{}{}=", if i > 0 { ", " } else { "" }, field.name);
                write_repr(value, out);
            }
            out.push(')');
        }
        Value::Float(value) => out.push_str(&float_repr(f64::from(*value))),
        Value::Double(value) => out.push_str(&float_repr(*value)),
        int => match number(int) {
            Some(Number::Int(value)) => {
                let _ = write!(out, "{value}");
            }
            _ => out.push('?'),
        },
    }
}

fn quote(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if u32::from(c) < 0x20 || (0x7f..0xa1).contains(&u32::from(c)) => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

fn quote_bytes(bytes: &[u8], out: &mut String) {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    out.push('b');
    out.push(quote);
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            byte if char::from(byte) == quote => {
                out.push('\\');
                out.push(quote);
            }
            0x20..0x7f => out.push(char::from(byte)),
            byte => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push(quote);
}

/// The shortest text that is read back as the same number, as Python writes it.
pub fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// A format such as `>10`, `,.2f`, `05d`, `x`, `.1%`.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    fill: char,
    align: Option<char>,
    sign: char,
    alternate: bool,
    width: usize,
    group: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    /// Reads a format; the empty one is `str()`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Spec, String> {
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        let is_align = |c: Option<&char>| matches!(c, Some('<' | '>' | '^' | '='));
        let mut spec = Spec {
            fill: ' ',
            align: None,
            sign: '-',
            alternate: false,
            width: 0,
            group: None,
            precision: None,
            kind: None,
        };
        if is_align(chars.get(1)) {
            (spec.fill, spec.align) = (chars[0], Some(chars[1]));
            at = 2;
        } else if is_align(chars.first()) {
            spec.align = Some(chars[0]);
            at = 1;
        }
        let eat = |set: &str, at: &mut usize| -> Option<char> {
            let c = chars.get(*at).copied().filter(|c| set.contains(*c))?;
            *at += 1;
            Some(c)
        };
        if let Some(sign) = eat("+- ", &mut at) {
            spec.sign = sign;
        }
        spec.alternate = eat("#", &mut at).is_some();
        if eat("0", &mut at).is_some() && spec.align.is_none() {
            (spec.fill, spec.align) = ('0', Some('='));
        }
        let count = |at: &mut usize| -> Result<Option<usize>, String> {
            let start = *at;
            while chars.get(*at).is_some_and(char::is_ascii_digit) {
                *at += 1;
            }
            let digits: String = chars[start..*at].iter().collect();
            match digits.parse::<usize>() {
                Ok(n) if n <= 4_096 => Ok(Some(n)),
                _ if digits.is_empty() => Ok(None),
                _ => Err(format!("`{digits}` in format `{text}` is more than 4096")),
            }
        };
        spec.width = count(&mut at)?.unwrap_or(0);
        spec.group = eat(",_", &mut at);
        if eat(".", &mut at).is_some() {
            let precision =
                count(&mut at)?.ok_or_else(|| format!("format `{text}` lacks a precision after `.`"))?;
            spec.precision = Some(precision);
        }
        spec.kind = eat("bcdeEfFgGnosxX%", &mut at);
        if at < chars.len() {
            return Err(format!("`{text}` is no format"));
        }
        Ok(spec)
    }

    /// `value` in this format.
    ///
    /// # Errors
    /// When the format does not suit the value.
    pub fn apply(&self, value: &Value) -> Result<String, Raised> {
        let unknown = |kind: char| {
            Raised::new(
                "ValueError",
                format!("Unknown format code '{kind}' for object of type '{}'", type_name(value)),
            )
        };
        let plain = self.kind.is_none() && self.precision.is_none() && self.group.is_none();
        match (value, number(value)) {
            (Value::String(text), _) => match self.kind {
                None | Some('s') => {
                    let text = match self.precision {
                        Some(n) => text.chars().take(n).collect(),
                        None => text.to_string(),
                    };
                    Ok(self.pad(String::new(), text, '<'))
                }
                Some(kind) => Err(unknown(kind)),
            },
            (Value::Bool(_), _) if plain && self.width == 0 => Ok(str_of(value)),
            (_, Some(Number::Int(int))) => match self.kind {
                None | Some('d' | 'n' | 'b' | 'o' | 'x' | 'X' | 'c') if self.precision.is_some() => {
                    Err(Raised::new("ValueError", "Precision not allowed in integer format specifier"))
                }
                None | Some('d' | 'n' | 'b' | 'o' | 'x' | 'X') => Ok(self.int(int)),
                Some('c') => match u32::try_from(int).ok().and_then(char::from_u32) {
                    Some(c) => Ok(self.pad(String::new(), c.to_string(), '<')),
                    None => Err(Raised::new("OverflowError", "%c arg not in range(0x110000)")),
                },
                Some('s') => Err(unknown('s')),
                Some(kind) => Ok(self.float(int as f64, Some(kind))),
            },
            (_, Some(Number::Float(float))) => match self.kind {
                Some(kind @ ('d' | 'b' | 'o' | 'x' | 'X' | 'c' | 's')) => Err(unknown(kind)),
                kind => Ok(self.float(float, kind)),
            },
            _ if plain && self.width == 0 => Ok(str_of(value)),
            _ => Err(Raised::new(
                "TypeError",
                format!("unsupported format string passed to {}.__format__", type_name(value)),
            )),
        }
    }

    fn sign_of(&self, negative: bool) -> String {
        match (negative, self.sign) {
            (true, _) => "-".to_owned(),
            (false, '-') => String::new(),
            (false, sign) => sign.to_string(),
        }
    }

    fn int(&self, value: i64) -> String {
        let magnitude = value.unsigned_abs();
        let (prefix, digits) = match self.kind {
            Some('b') => ("0b", format!("{magnitude:b}")),
            Some('o') => ("0o", format!("{magnitude:o}")),
            Some('x') => ("0x", format!("{magnitude:x}")),
            Some('X') => ("0X", format!("{magnitude:X}")),
            _ => ("", magnitude.to_string()),
        };
        let sign = self.sign_of(value < 0) + if self.alternate { prefix } else { "" };
        let every = if prefix.is_empty() { 3 } else { 4 };
        self.pad(sign, group(&digits, self.group, every), '>')
    }

    fn float(&self, value: f64, kind: Option<char>) -> String {
        let magnitude = value.abs();
        let upper = matches!(kind, Some('E' | 'F' | 'G'));
        let mut text = if !value.is_finite() {
            if value.is_nan() { "nan" } else { "inf" }.to_owned()
        } else {
            match kind {
                Some('f' | 'F') => format!("{magnitude:.*}", self.precision.unwrap_or(6)),
                Some('%') => format!("{:.*}", self.precision.unwrap_or(6), magnitude * 100.0),
                Some('e' | 'E') => exponential(magnitude, self.precision.unwrap_or(6)),
                Some(_) => general(magnitude, self.precision.unwrap_or(6), self.alternate),
                None => match self.precision {
                    None => float_repr(magnitude),
                    Some(precision) => {
                        let text = general(magnitude, precision, self.alternate);
                        if text.contains(['.', 'e']) { text } else { format!("{text}.0") }
                    }
                },
            }
        };
        if upper {
            text = text.to_uppercase();
        }
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text = group(&text[..digits], self.group, 3) + &text[digits..];
        if kind == Some('%') {
            text.push('%');
        }
        let negative = value.is_sign_negative() && !value.is_nan();
        self.pad(self.sign_of(negative), text, '>')
    }

    fn pad(&self, sign: String, text: String, default: char) -> String {
        let missing = self.width.saturating_sub(sign.chars().count() + text.chars().count());
        let fill = |n: usize| std::iter::repeat_n(self.fill, n).collect::<String>();
        match self.align.unwrap_or(default) {
            '<' => sign + &text + &fill(missing),
            '^' => fill(missing / 2) + &sign + &text + &fill(missing - missing / 2),
            '=' => sign + &fill(missing) + &text,
            _ => fill(missing) + &sign + &text,
        }
    }
}

fn group(digits: &str, by: Option<char>, every: usize) -> String {
    let Some(by) = by else { return digits.to_owned() };
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(every) {
            out.push(by);
        }
        out.push(c);
    }
    out
}

fn exponential(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// The format `g`: `precision` digits, an exponent where the number is far from one.
fn general(value: f64, precision: usize, keep_zeros: bool) -> String {
    let digits = precision.max(1);
    let rounded = format!("{value:.*e}", digits - 1);
    let exponent: i32 = rounded.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let text = if exponent < -4 || exponent >= i32::try_from(digits).unwrap_or(i32::MAX) {
        exponential(value, digits - 1)
    } else {
        let after = i32::try_from(digits).unwrap_or(i32::MAX) - 1 - exponent;
        format!("{value:.*}", usize::try_from(after).unwrap_or(0))
    };
    if keep_zeros || !text.contains('.') {
        return text;
    }
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, format!("e{exponent}")),
        None => (text.as_str(), String::new()),
    };
    format!("{}{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
}
