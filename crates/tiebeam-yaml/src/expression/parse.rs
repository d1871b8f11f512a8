//! From tokens to the tree: Python's precedences, bounded depth, and a name for everything that is refused.

use std::sync::Arc;

use super::token::{Token, syntax, tokens, unescape};
use super::tree::{
    Argument, Binary, Compare, Expr, ExprKind, MAX_DEPTH, MAX_NESTING, Piece, Program, Statement, Unary,
};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

type Parsed<T> = Result<T, Diagnostic>;

/// An expression over columns.
pub fn expression(text: &str) -> Parsed<Program> {
    let mut parser = Parser::new(tokens(text, 0, false)?);
    let expr = parser.whole()?;
    parser.end()?;
    Ok(Program::Columns(expr))
}

/// `lambda row: …` or `def name(row): …`.
pub fn callable(text: &str) -> Parsed<Program> {
    let first = text.trim_start();
    let base = text.len() - first.len();
    if first.starts_with("lambda") {
        let mut parser = Parser::new(tokens(text, 0, false)?);
        parser.expect_name("lambda")?;
        let parameter = parser.parameter(":")?;
        let body = parser.whole()?;
        parser.end()?;
        return Ok(Program::Lambda { parameter, body });
    }
    let mut parser = Parser::new(tokens(text, 0, true)?);
    parser.skip_newlines();
    let start = parser.span();
    match parser.peek() {
        Token::Name(name) if name == "def" => parser.function(),
        Token::Name(name) if name == "import" || name == "from" => Err(refused(
            start,
            "imports are not available",
            "use the functions that expressions have, or do this step in Rust",
        )),
        _ => {
            let whole = Span::new(base, base + first.trim_end().len());
            Err(syntax(whole, "a callable is `lambda row: …` or `def name(row): …`")
                .help("for an expression over the columns, use `expression` instead of `callable`"))
        }
    }
}

/// Something of Python's that is not here.
fn refused(span: Span, message: impl Into<String>, help: &str) -> Diagnostic {
    Diagnostic::new("TB0219", span, message).help(help)
}

struct Parser {
    tokens: Vec<(Token, Span)>,
    at: usize,
    depth: u16,
}

/// How tightly a binary operator binds; higher is tighter.
fn binary(sign: &str) -> Option<(Binary, u8)> {
    Some(match sign {
        "|" => (Binary::BitOr, 1),
        "^" => (Binary::BitXor, 2),
        "&" => (Binary::BitAnd, 3),
        "<<" => (Binary::ShiftLeft, 4),
        ">>" => (Binary::ShiftRight, 4),
        "+" => (Binary::Add, 5),
        "-" => (Binary::Subtract, 5),
        "*" => (Binary::Multiply, 6),
        "/" => (Binary::Divide, 6),
        "//" => (Binary::FloorDivide, 6),
        "%" => (Binary::Modulo, 6),
        _ => return None,
    })
}

const RESERVED: [&str; 33] = [
    "and", "or", "not", "in", "is", "if", "else", "elif", "for", "while", "lambda", "def", "return", "class",
    "try", "except", "finally", "with", "as", "yield", "await", "async", "import", "from", "global",
    "nonlocal", "pass", "break", "continue", "raise", "del", "assert", "match",
];

impl Parser {
    fn new(tokens: Vec<(Token, Span)>) -> Self {
        Parser { tokens, at: 0, depth: 0 }
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn span(&self) -> Span {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(Span::default(), |(_, span)| *span)
    }

    fn advance(&mut self) -> (Token, Span) {
        let taken = self.tokens.get(self.at).cloned().unwrap_or((Token::End, self.span()));
        self.at += 1;
        taken
    }

    fn last_span(&self) -> Span {
        self.tokens.get(self.at.saturating_sub(1)).map_or(Span::default(), |(_, span)| *span)
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(seen) if *seen == sign)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(seen) if seen == name)
    }

    fn eat_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    fn eat_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.eat_sign(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    fn expect_name(&mut self, name: &str) -> Parsed<()> {
        if self.eat_name(name) { Ok(()) } else { Err(self.unexpected(&format!("`{name}`"))) }
    }

    fn skip_newlines(&mut self) {
        while *self.peek() == Token::Newline {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Parsed<()> {
        self.skip_newlines();
        match self.peek() {
            Token::End => Ok(()),
            Token::Sign("=") => Err(syntax(self.span(), "`=` assigns; an expression has no assignments")
                .help("to compare, write `==`")),
            _ => Err(self.unexpected("the end of the expression")),
        }
    }

    fn unexpected(&self, wanted: &str) -> Diagnostic {
        let seen = match self.peek() {
            Token::End => "the end".to_owned(),
            Token::Newline => "the end of the line".to_owned(),
            Token::Indent | Token::Dedent => "another indentation".to_owned(),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::Name(name) => format!("`{name}`"),
            Token::Int(_) | Token::Float(_) => "a number".to_owned(),
            Token::Str(_) | Token::Bytes(_) | Token::Format { .. } => "a string".to_owned(),
        };
        let mut span = self.span();
        if span.start == span.end && span.start > 0 {
            span.start -= 1;
        }
        syntax(span, format!("wanted {wanted}, got {seen}"))
    }

    fn make(&self, span: Span, kind: ExprKind) -> Parsed<Expr> {
        let depth = kind.parts_depth() + 1;
        if depth > MAX_DEPTH {
            return Err(syntax(span, format!("an expression nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Expr { span, depth, kind })
    }

    /// One expression, bounded in depth.
    fn whole(&mut self) -> Parsed<Expr> {
        if self.depth >= MAX_NESTING {
            return Err(syntax(
                self.span(),
                format!("an expression nested deeper than {MAX_NESTING} levels"),
            ));
        }
        self.depth += 1;
        let expr = self.conditional();
        self.depth -= 1;
        expr
    }

    fn conditional(&mut self) -> Parsed<Expr> {
        if self.is_name("lambda") {
            return Err(refused(
                self.span(),
                "a lambda inside of an expression is not available",
                "write the whole field as `callable: \"lambda row: …\"`, or use a list comprehension",
            ));
        }
        let then = self.or()?;
        if !self.eat_name("if") {
            return Ok(then);
        }
        let condition = self.or()?;
        self.expect_name("else")?;
        let otherwise = self.whole()?;
        let span = then.span.to(otherwise.span);
        let kind = ExprKind::If {
            condition: Box::new(condition),
            then: Box::new(then),
            otherwise: Box::new(otherwise),
        };
        self.make(span, kind)
    }

    fn or(&mut self) -> Parsed<Expr> {
        let mut left = self.and()?;
        while self.eat_name("or") {
            let right = self.and()?;
            left = self.make(left.span.to(right.span), ExprKind::Or(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed<Expr> {
        let mut left = self.not()?;
        while self.eat_name("and") {
            let right = self.not()?;
            left = self.make(left.span.to(right.span), ExprKind::And(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let mut nots = 0;
        while self.eat_name("not") {
            nots += 1;
        }
        let mut expr = self.comparison()?;
        for _ in 0..nots {
            expr = self.make(start.to(expr.span), ExprKind::Unary(Unary::Not, Box::new(expr)))?;
        }
        Ok(expr)
    }

    fn compare_sign(&mut self) -> Option<Compare> {
        let compare = match self.peek() {
            Token::Sign("==") => Compare::Equal,
            Token::Sign("!=") => Compare::NotEqual,
            Token::Sign("<") => Compare::Less,
            Token::Sign("<=") => Compare::LessOrEqual,
            Token::Sign(">") => Compare::Greater,
            Token::Sign(">=") => Compare::GreaterOrEqual,
            Token::Name(name) if name == "in" => Compare::In,
            Token::Name(name) if name == "not" => {
                if !matches!(self.tokens.get(self.at + 1), Some((Token::Name(name), _)) if name == "in") {
                    return None;
                }
                self.at += 1;
                Compare::NotIn
            }
            Token::Name(name) if name == "is" => {
                self.at += 1;
                return Some(if self.eat_name("not") { Compare::IsNot } else { Compare::Is });
            }
            _ => return None,
        };
        self.at += 1;
        Some(compare)
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        let first = self.arithmetic(0)?;
        let mut rest = Vec::new();
        while let Some(compare) = self.compare_sign() {
            rest.push((compare, self.arithmetic(0)?));
        }
        match rest.last() {
            None => Ok(first),
            Some((_, last)) => {
                let span = first.span.to(last.span);
                self.make(span, ExprKind::Compare(Box::new(first), rest))
            }
        }
    }

    fn arithmetic(&mut self, least: u8) -> Parsed<Expr> {
        let mut left = self.unary()?;
        loop {
            let Token::Sign(sign) = self.peek() else { return Ok(left) };
            let Some((operator, strength)) = binary(sign).filter(|(_, strength)| *strength > least) else {
                return Ok(left);
            };
            self.at += 1;
            let right = self.arithmetic(strength)?;
            let span = left.span.to(right.span);
            left = self.make(span, ExprKind::Binary(operator, Box::new(left), Box::new(right)))?;
        }
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let mut signs = Vec::new();
        loop {
            signs.push(match self.peek() {
                Token::Sign("-") => Unary::Minus,
                Token::Sign("+") => Unary::Plus,
                Token::Sign("~") => Unary::Invert,
                _ => break,
            });
            self.at += 1;
        }
        let mut expr = self.power()?;
        while let Some(sign) = signs.pop() {
            let span = start.to(expr.span);
            expr = match (sign, &expr.kind) {
                (Unary::Minus, ExprKind::Int(value)) => {
                    Expr { span, depth: 1, kind: ExprKind::Int(value.wrapping_neg()) }
                }
                (Unary::Minus, ExprKind::Float(value)) => {
                    Expr { span, depth: 1, kind: ExprKind::Float(-value) }
                }
                _ => self.make(span, ExprKind::Unary(sign, Box::new(expr)))?,
            };
        }
        Ok(expr)
    }

    fn power(&mut self) -> Parsed<Expr> {
        let base = self.postfix()?;
        if !self.eat_sign("**") {
            return Ok(base);
        }
        if self.depth >= MAX_NESTING {
            return Err(syntax(
                self.span(),
                format!("an expression nested deeper than {MAX_NESTING} levels"),
            ));
        }
        self.depth += 1;
        let exponent = self.unary();
        self.depth -= 1;
        let exponent = exponent?;
        self.make(
            base.span.to(exponent.span),
            ExprKind::Binary(Binary::Power, Box::new(base), Box::new(exponent)),
        )
    }

    fn postfix(&mut self) -> Parsed<Expr> {
        let mut expr = self.atom()?;
        loop {
            if self.eat_sign(".") {
                let (token, at) = self.advance();
                let Token::Name(name) = token else {
                    self.at -= 1;
                    return Err(self.unexpected("a name after `.`"));
                };
                expr = self.make(expr.span.to(at), ExprKind::Attribute(Box::new(expr), name.into(), at))?;
            } else if self.eat_sign("(") {
                let arguments = self.arguments()?;
                let span = expr.span.to(self.last_span());
                expr = self.make(span, ExprKind::Call { function: Box::new(expr), arguments })?;
            } else if self.eat_sign("[") {
                expr = self.subscript(expr)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn arguments(&mut self) -> Parsed<Vec<Argument>> {
        let mut arguments = Vec::new();
        while !self.eat_sign(")") {
            if self.is_sign("*") || self.is_sign("**") {
                return Err(refused(
                    self.span(),
                    "unpacking arguments is not available",
                    "write the arguments out",
                ));
            }
            let named = matches!(
                (self.peek(), self.tokens.get(self.at + 1)),
                (Token::Name(_), Some((Token::Sign("="), _)))
            );
            let name = if named {
                let (token, span) = self.advance();
                self.at += 1;
                match token {
                    Token::Name(name) => Some((Arc::from(name), span)),
                    _ => None,
                }
            } else {
                None
            };
            let start = self.span();
            let value = self.whole()?;
            // A generator as the only argument needs no brackets of its own.
            let value = if self.is_name("for") { self.comprehension(value, start)? } else { value };
            arguments.push(Argument { name, value });
            if !self.eat_sign(",") && !self.is_sign(")") {
                return Err(self.unexpected("`,` or `)`"));
            }
        }
        Ok(arguments)
    }

    fn subscript(&mut self, of: Expr) -> Parsed<Expr> {
        let mut bounds: [Option<Box<Expr>>; 3] = [None, None, None];
        let mut colons = 0;
        loop {
            if self.eat_sign("]") {
                break;
            }
            if self.eat_sign(":") {
                colons += 1;
                if colons > 2 {
                    return Err(syntax(self.last_span(), "a slice has at most two `:`"));
                }
                continue;
            }
            if bounds[colons].is_some() {
                return Err(self.unexpected("`]`"));
            }
            bounds[colons] = Some(Box::new(self.whole()?));
        }
        let span = of.span.to(self.last_span());
        match (colons, bounds) {
            (0, [Some(index), None, None]) => self.make(span, ExprKind::Index(Box::new(of), index)),
            (0, _) => Err(syntax(span, "an index is missing between `[` and `]`")),
            (_, bounds) => self.make(span, ExprKind::Slice(Box::new(of), bounds)),
        }
    }

    fn comprehension(&mut self, item: Expr, start: Span) -> Parsed<Expr> {
        self.expect_name("for")?;
        let (token, at) = self.advance();
        let Token::Name(name) = token else {
            self.at -= 1;
            return Err(self.unexpected("a name after `for`"));
        };
        if self.is_sign(",") {
            return Err(refused(
                at.to(self.span()),
                "several names in a `for` are not available",
                "index the item: `pair[0]`",
            ));
        }
        self.expect_name("in")?;
        let of = self.or()?;
        let mut conditions = Vec::new();
        while self.eat_name("if") {
            conditions.push(self.or()?);
        }
        if self.is_name("for") {
            return Err(refused(
                self.span(),
                "a second `for` is not available",
                "nest one comprehension in another",
            ));
        }
        let kind =
            ExprKind::Comprehension { item: Box::new(item), name: name.into(), of: Box::new(of), conditions };
        self.make(start.to(self.last_span()), kind)
    }

    fn atom(&mut self) -> Parsed<Expr> {
        let (token, span) = self.advance();
        let kind = match token {
            Token::Int(value) => ExprKind::Int(value),
            Token::Float(value) => ExprKind::Float(value),
            Token::Bytes(bytes) => ExprKind::Bytes(bytes.into()),
            Token::Str(_) | Token::Format { .. } => {
                self.at -= 1;
                return self.strings();
            }
            Token::Name(name) => return self.name(name, span),
            Token::Sign("(") => return self.parenthesis(span),
            Token::Sign("[") => return self.list(span),
            Token::Sign("{") => return self.dict(span),
            _ => {
                self.at -= 1;
                return Err(self.unexpected("a value"));
            }
        };
        self.make(span, kind)
    }

    fn name(&mut self, name: String, span: Span) -> Parsed<Expr> {
        let kind = match name.as_str() {
            "None" => ExprKind::None,
            "True" => ExprKind::Bool(true),
            "False" => ExprKind::Bool(false),
            // A column in backquotes may have any name.
            _ if span.end - span.start > Span::new(0, name.len()).end => ExprKind::Name(name.into()),
            "await" | "yield" => {
                return Err(refused(
                    span,
                    format!("`{name}` is not available"),
                    "an expression is a value of one row",
                ));
            }
            word if RESERVED.contains(&word) => {
                self.at -= 1;
                return Err(self.unexpected("a value"));
            }
            _ => ExprKind::Name(name.into()),
        };
        self.make(span, kind)
    }

    /// Neighbouring strings are one.
    fn strings(&mut self) -> Parsed<Expr> {
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
        let mut parser = Parser { tokens: Vec::new(), at: 0, depth: self.depth + 1 };
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
        super::format::Spec::parse(format).map_err(|message| syntax(span, message))?;
        Ok(Piece::Value { value, repr, format: format.into() })
    }

    fn items(&mut self, end: &str) -> Parsed<(Vec<Expr>, bool)> {
        let mut items = Vec::new();
        let mut comma = false;
        while !self.eat_sign(end) {
            items.push(self.whole()?);
            if items.len() == 1 && self.is_name("for") {
                let Some(item) = items.pop() else { break };
                let start = item.span;
                items.push(self.comprehension(item, start)?);
                self.expect(end)?;
                return Ok((items, false));
            }
            if self.eat_sign(",") {
                comma = true;
            } else if !self.is_sign(end) {
                return Err(self.unexpected(&format!("`,` or `{end}`")));
            }
        }
        Ok((items, comma))
    }

    fn parenthesis(&mut self, start: Span) -> Parsed<Expr> {
        let (mut items, tuple) = self.items(")")?;
        let span = start.to(self.last_span());
        if !tuple
            && items.len() == 1
            && let Some(expr) = items.pop()
        {
            return Ok(Expr { span, ..expr });
        }
        self.make(span, ExprKind::List(items))
    }

    fn list(&mut self, start: Span) -> Parsed<Expr> {
        let (mut items, comma) = self.items("]")?;
        let span = start.to(self.last_span());
        match items.as_slice() {
            [Expr { kind: ExprKind::Comprehension { .. }, .. }] if !comma => {
                let expr = items.pop().unwrap_or(self.make(span, ExprKind::None)?);
                Ok(Expr { span, ..expr })
            }
            _ => self.make(span, ExprKind::List(items)),
        }
    }

    fn dict(&mut self, start: Span) -> Parsed<Expr> {
        let mut entries = Vec::new();
        while !self.eat_sign("}") {
            if self.is_sign("**") {
                return Err(refused(
                    self.span(),
                    "unpacking a mapping is not available",
                    "write the entries out",
                ));
            }
            let key = self.whole()?;
            if !self.eat_sign(":") {
                return Err(refused(start.to(key.span), "sets are not available", "use a list: `[…]`"));
            }
            let value = self.whole()?;
            if self.is_name("for") {
                return Err(refused(
                    self.span(),
                    "a dict comprehension is not available",
                    "use a list comprehension",
                ));
            }
            entries.push((key, value));
            if !self.eat_sign(",") && !self.is_sign("}") {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
        self.make(start.to(self.last_span()), ExprKind::Dict(entries))
    }

    /// `row:` or `row: Type) -> Type:`, up to and with `end`.
    fn parameter(&mut self, end: &str) -> Parsed<Arc<str>> {
        let (token, span) = self.advance();
        let Token::Name(name) = token else {
            self.at -= 1;
            return Err(self.unexpected("the parameter that is the row"));
        };
        if end == ")" && self.eat_sign(":") {
            self.skip_annotation(&[")", ","]);
        }
        if self.is_sign(",") || self.is_sign("=") {
            return Err(syntax(span, "a callable takes one parameter, the row"));
        }
        self.expect(end)?;
        Ok(name.into())
    }

    /// Annotations mean nothing here.
    fn skip_annotation(&mut self, ends: &[&str]) {
        let mut depth = 0;
        loop {
            match self.peek() {
                Token::Sign(sign) if depth == 0 && ends.contains(sign) => return,
                Token::Sign("[" | "(") => depth += 1,
                Token::Sign("]" | ")") => depth -= 1,
                Token::End | Token::Newline => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    fn function(&mut self) -> Parsed<Program> {
        let start = self.span();
        self.expect_name("def")?;
        let (token, _) = self.advance();
        if !matches!(token, Token::Name(_)) {
            self.at -= 1;
            return Err(self.unexpected("the function's name"));
        }
        self.expect("(")?;
        let parameter = self.parameter(")")?;
        if self.eat_sign("->") {
            self.skip_annotation(&[":"]);
        }
        let span = start.to(self.last_span());
        self.expect(":")?;
        let body = self.block()?;
        self.end()?;
        Ok(Program::Function { parameter, body, span })
    }

    fn block(&mut self) -> Parsed<Vec<Statement>> {
        if self.depth >= MAX_NESTING {
            return Err(syntax(self.span(), "nested too deep"));
        }
        let mut statements = Vec::new();
        if *self.peek() != Token::Newline {
            self.simple_line(&mut statements)?;
            return Ok(statements);
        }
        self.skip_newlines();
        if *self.peek() != Token::Indent {
            return Err(self.unexpected("an indented block"));
        }
        self.at += 1;
        self.depth += 1;
        while *self.peek() != Token::Dedent && *self.peek() != Token::End {
            self.statement(&mut statements)?;
        }
        self.depth -= 1;
        self.at += 1;
        Ok(statements)
    }

    fn statement(&mut self, statements: &mut Vec<Statement>) -> Parsed<()> {
        let span = self.span();
        let Token::Name(word) = self.peek().clone() else { return self.simple_line(statements) };
        match word.as_str() {
            "if" => {
                self.at += 1;
                let statement = self.branches()?;
                statements.push(statement);
                Ok(())
            }
            "for" | "while" | "with" | "try" | "def" | "class" | "import" | "from" | "global"
            | "nonlocal" | "assert" | "del" | "async" | "match" => Err(refused(
                span,
                format!("`{word}` is not available in a callable"),
                "it may have assignments, `if`, `return` and `raise`; lists have comprehensions",
            )),
            _ => self.simple_line(statements),
        }
    }

    fn branches(&mut self) -> Parsed<Statement> {
        let condition = self.whole()?;
        self.expect(":")?;
        let then = self.block()?;
        self.skip_newlines();
        let otherwise = if self.eat_name("elif") {
            self.depth += 1;
            let rest = if self.depth < MAX_NESTING {
                self.branches()
            } else {
                Err(syntax(self.span(), "too many `elif`"))
            };
            self.depth -= 1;
            vec![rest?]
        } else if self.eat_name("else") {
            self.expect(":")?;
            self.block()?
        } else {
            Vec::new()
        };
        Ok(Statement::If { condition, then, otherwise })
    }

    fn simple_line(&mut self, statements: &mut Vec<Statement>) -> Parsed<()> {
        loop {
            self.simple(statements)?;
            if self.eat_sign(";") {
                continue;
            }
            return match self.peek() {
                Token::Newline => {
                    self.skip_newlines();
                    Ok(())
                }
                Token::End | Token::Dedent => Ok(()),
                _ => Err(self.unexpected("the end of the line")),
            };
        }
    }

    fn simple(&mut self, statements: &mut Vec<Statement>) -> Parsed<()> {
        let span = self.span();
        if self.eat_name("pass") {
            return Ok(());
        }
        if self.eat_name("return") {
            let value = match self.peek() {
                Token::Newline | Token::End | Token::Dedent => self.make(span, ExprKind::None)?,
                _ => self.whole()?,
            };
            statements.push(Statement::Return(value));
            return Ok(());
        }
        if self.eat_name("raise") {
            statements.push(self.raise(span)?);
            return Ok(());
        }
        if let (Token::Name(name), Some((Token::Sign(sign), _))) =
            (self.peek().clone(), self.tokens.get(self.at + 1))
        {
            let operator = sign.strip_suffix('=').filter(|_| !matches!(*sign, "==" | "<=" | ">=" | "!="));
            if let Some(operator) = operator {
                self.at += 2;
                let value = self.whole()?;
                let value = match operator {
                    "" => value,
                    operator => {
                        let old = self.make(span, ExprKind::Name(name.as_str().into()))?;
                        let operator = match operator {
                            "**" => Binary::Power,
                            other => binary(other).map(|(b, _)| b).ok_or_else(|| self.unexpected("`=`"))?,
                        };
                        self.make(
                            span.to(value.span),
                            ExprKind::Binary(operator, Box::new(old), Box::new(value)),
                        )?
                    }
                };
                statements.push(Statement::Assign { name: name.into(), value });
                return Ok(());
            }
            if *sign == ":" {
                self.at += 2;
                self.skip_annotation(&["="]);
                self.expect("=")?;
                let value = self.whole()?;
                statements.push(Statement::Assign { name: name.into(), value });
                return Ok(());
            }
        }
        let expr = self.whole()?;
        if self.is_sign("=") {
            return Err(refused(
                expr.span,
                "only a name can be assigned to",
                "a row is not changed: return a new value",
            ));
        }
        // A text that stands alone is a comment; any other value would be computed for nothing.
        match expr.kind {
            ExprKind::Str(_) => Ok(()),
            _ => Err(syntax(expr.span, "this value is not used").help("did you mean `return`?")),
        }
    }

    fn raise(&mut self, start: Span) -> Parsed<Statement> {
        let (token, at) = self.advance();
        let Token::Name(exception) = token else {
            self.at -= 1;
            return Err(self.unexpected("an exception such as `ValueError(\"…\")`"));
        };
        let message = if self.eat_sign("(") && !self.eat_sign(")") {
            let message = self.whole()?;
            self.expect(")")?;
            Some(message)
        } else {
            None
        };
        Ok(Statement::Raise { exception: exception.into(), message, span: start.to(at) })
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
