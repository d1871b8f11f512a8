//! From tokens to the tree: Python's precedences, bounded depth, and a name for everything that is refused.

mod functions;
mod strings;

use std::sync::Arc;

use self::functions::is_dotted;
use super::python::Import;
use super::token::{Token, syntax, tokens};
use super::tree::{Argument, Binary, Compare, Expr, ExprKind, MAX_DEPTH, MAX_NESTING, Program, Unary};
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
    while parser.is_name("import") || parser.is_name("from") {
        parser.import()?;
        parser.skip_newlines();
    }
    match parser.peek() {
        Token::Name(name) if name == "def" => parser.function(),
        _ if is_dotted(first.trim_end()) => Err(refused(
            Span::new(base, base + first.trim_end().len()),
            format!("`{}` is a function of a Python package, which is not available", first.trim_end()),
            "write the function here: `callable: |`, or in a file: `path` and `name`",
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
    imports: Vec<Import>,
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
        Parser { tokens, at: 0, depth: 0, imports: Vec::new() }
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
}
