//! The words of SQL.

use std::sync::Arc;

use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// The longest text of SQL, in bytes.
const LONGEST: usize = 64 << 10;

/// A word with its meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A name or keyword, as written.
    Word(Arc<str>),
    /// A name in backticks or double quotes: never a keyword.
    Quoted(Arc<str>),
    /// `'text'`
    Text(Arc<str>),
    Int(i64),
    Float(f64),
    Sign(&'static str),
    End,
}

/// The signs, longer ones first.
const SIGNS: [&str; 19] =
    ["||", "<>", "!=", "<=", ">=", "<", ">", "=", "+", "-", "*", "/", "%", "(", ")", ",", ".", "?", ";"];

/// What is no SQL, at its place.
pub fn syntax(span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::new("TB0206", span, message)
}

/// The tokens of a text, each with its place; the last one is its end.
pub fn tokens(text: &str) -> Result<Vec<(Token, Span)>, Diagnostic> {
    if text.len() > LONGEST {
        let message = format!("a text of {} bytes, more than the {LONGEST} that are read", text.len());
        return Err(syntax(Span::new(0, 1), message));
    }
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
        } else if rest.starts_with("--") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            let end = rest
                .find("*/")
                .ok_or_else(|| syntax(Span::new(at, at + 2), "a comment that begins here does not end"))?;
            at += end + 2;
        } else {
            let (token, length) = token(rest, c, at)?;
            found.push((token, Span::new(at, at + length)));
            at += length;
        }
    }
    found.push((Token::End, Span::new(text.trim_end().len(), text.len().max(1))));
    Ok(found)
}

fn token(rest: &str, first: char, at: usize) -> Result<(Token, usize), Diagnostic> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    if first.is_alphabetic() || first == '_' {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        return Ok((Token::Word(rest[..end].into()), end));
    }
    let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    if first.is_ascii_digit() || (first == '.' && digit(rest.as_bytes().get(1))) {
        return number(rest, at);
    }
    if let '\'' | '"' | '`' = first {
        let (text, length) = quoted(rest, first)
            .ok_or_else(|| syntax(Span::new(at, at + 1), format!("nothing ends what {first} begins")))?;
        let token = if first == '\'' { Token::Text(text) } else { Token::Quoted(text) };
        return Ok((token, length));
    }
    match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        Some(sign) => Ok((Token::Sign(sign), sign.len())),
        None => {
            let span = Span::new(at, at + first.len_utf8());
            Err(syntax(span, format!("`{first}` means nothing in SQL")))
        }
    }
}

/// A text in quotes, which stand doubled inside, and how long it is as written.
fn quoted(rest: &str, quote: char) -> Option<(Arc<str>, usize)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            text.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            text.push(c);
            chars.next();
        } else {
            return Some((text.into(), at + c.len_utf8()));
        }
    }
    None
}

fn number(rest: &str, at: usize) -> Result<(Token, usize), Diagnostic> {
    let bytes = rest.as_bytes();
    let digits = |mut end: usize| {
        while bytes.get(end).is_some_and(u8::is_ascii_digit) {
            end += 1;
        }
        end
    };
    let mut end = digits(0);
    let whole = end;
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1);
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    let text = &rest[..end];
    let token = match text.parse() {
        Ok(int) if end == whole => Some(Token::Int(int)),
        _ => text.parse().ok().filter(|float: &f64| float.is_finite()).map(Token::Float),
    };
    let Some(token) = token else {
        return Err(syntax(Span::new(at, at + end), format!("`{text}` is no number")));
    };
    Ok((token, end))
}
