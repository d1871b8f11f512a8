//! Strings and f-strings.

use super::{Parsed, Parser, refused};
use crate::expression::format::Spec;
use crate::expression::token::{Token, syntax, tokens, unescape};
use crate::expression::tree::{Expr, ExprKind, MAX_NESTING, Piece};
use crate::source::Span;

impl Parser {
    /// Neighbouring strings are one.
    pub(super) fn strings(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let mut pieces: Vec<Piece> = Vec::new();
        let text = |pieces: &mut Vec<Piece>, more: String| match pieces.last_mut() {
            Some(Piece::Text(text)) => *text = format!("{text}{more}").into(),
            _ if more.is_empty() => {}
            _ => pieces.push(Piece::Text(more.into())),
        };
        let mut formats = false;
        loop {
            match self.peek().clone() {
                Token::Str(more) => text(&mut pieces, more),
                Token::Format { body, start, raw } => {
                    formats = true;
                    for piece in self.format_pieces(&body, start, raw)? {
                        match piece {
                            Piece::Text(more) => text(&mut pieces, more.to_string()),
                            value => pieces.push(value),
                        }
                    }
                }
                _ => break,
            }
            self.at += 1;
        }
        let span = start.to(self.last_span());
        let kind = match pieces.as_slice() {
            [] => ExprKind::Str("".into()),
            [Piece::Text(text)] if !formats => ExprKind::Str(text.clone()),
            _ => ExprKind::Format(pieces),
        };
        self.make(span, kind)
    }

    fn format_pieces(&self, body: &str, start: usize, raw: bool) -> Parsed<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut at = 0;
        while let Some(c) = body[at..].chars().next() {
            let here = Span::new(start + at, start + at + 1);
            if body[at..].starts_with("{{") || body[at..].starts_with("}}") {
                text.push(c);
                at += 2;
            } else if c == '}' {
                return Err(
                    syntax(here, "a single `}` in an f-string").help("write `}}` for the sign itself")
                );
            } else if c == '{' {
                let whole = field_end(&body[at + 1..]).ok_or_else(|| syntax(here, "`{` without its `}`"))?;
                let field = &body[at + 1..at + 1 + whole];
                pieces.push(self.text_piece(&mut text, raw, here)?);
                pieces.push(self.format_field(field, start + at + 1)?);
                at += whole + 2;
            } else {
                text.push(c);
                at += c.len_utf8();
            }
        }
        pieces.push(self.text_piece(&mut text, raw, Span::new(start, start + body.len()))?);
        Ok(pieces)
    }

    fn text_piece(&self, text: &mut String, raw: bool, span: Span) -> Parsed<Piece> {
        let text = std::mem::take(text);
        let text = if raw { text } else { unescape(&text).map_err(|message| syntax(span, message))? };
        Ok(Piece::Text(text.into()))
    }

    fn format_field(&self, field: &str, start: usize) -> Parsed<Piece> {
        let span = Span::new(start, start + field.len());
        let mut parser = Parser { tokens: Vec::new(), at: 0, depth: self.depth + 1, imports: Vec::new() };
        if parser.depth >= MAX_NESTING {
            return Err(syntax(span, format!("an expression nested deeper than {MAX_NESTING} levels")));
        }
        let (expr, conversion, format) = split_field(field);
        if format.contains('{') {
            return Err(refused(
                span,
                "a format made by an expression is not available",
                "write the width out",
            ));
        }
        let repr = match conversion {
            None | Some("s") => false,
            Some("r" | "a") => true,
            Some(other) => {
                return Err(syntax(span, format!("`!{other}` is no conversion")).help("use `!r` or `!s`"));
            }
        };
        parser.tokens = tokens(expr, start, false)?;
        if *parser.peek() == Token::End {
            return Err(syntax(span, "an f-string with nothing between `{` and `}`"));
        }
        let value = parser.whole()?;
        parser.end()?;
        Spec::parse(format).map_err(|message| syntax(span, message))?;
        Ok(Piece::Value { value, repr, format: format.into() })
    }
}

/// The bytes up to the `}` that closes a field of an f-string.
fn field_end(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut quote: Option<char> = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '{' | '[' | '(') => depth += 1,
            (None, '}') if depth == 0 => return Some(at),
            (None, '}' | ']' | ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// `expr!conversion:format` in its parts.
fn split_field(field: &str) -> (&str, Option<&str>, &str) {
    let mut depth = 0usize;
    let mut quote: Option<char> = None;
    let mut at = field.len();
    for (i, c) in field.char_indices() {
        let next = field[i + c.len_utf8()..].chars().next();
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '{' | '[' | '(') => depth += 1,
            (None, '}' | ']' | ')') => depth = depth.saturating_sub(1),
            (None, ':') if depth == 0 => {
                at = i;
                break;
            }
            (None, '!') if depth == 0 && next != Some('=') => {
                at = i;
                break;
            }
            _ => {}
        }
    }
    let (expr, rest) = field.split_at(at);
    match rest.strip_prefix('!') {
        Some(rest) => match rest.split_once(':') {
            Some((conversion, format)) => (expr, Some(conversion), format),
            None => (expr, Some(rest), ""),
        },
        None => (expr, None, rest.strip_prefix(':').unwrap_or("")),
    }
}
