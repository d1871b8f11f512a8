//! From words to the tree: SQL's precedences, bounded depth, and a name for everything that is refused.

use std::sync::Arc;

use super::token::{Token, syntax, tokens};
use super::tree::{Binary, Cast, Compare, Expr, ExprKind};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

pub(super) type Parsed<T> = Result<T, Diagnostic>;

/// The most expressions inside of each other.
const MAX_DEPTH: u16 = 60;

/// The most operators of one text: each makes its tree a little deeper.
const MAX_OPERATORS: u16 = 400;

/// Words that are no names.
const RESERVED: [&str; 42] = [
    "all",
    "and",
    "as",
    "between",
    "by",
    "case",
    "cast",
    "cross",
    "distinct",
    "else",
    "end",
    "except",
    "exists",
    "false",
    "fetch",
    "from",
    "full",
    "group",
    "having",
    "in",
    "inner",
    "intersect",
    "is",
    "join",
    "left",
    "like",
    "limit",
    "natural",
    "not",
    "null",
    "on",
    "or",
    "order",
    "outer",
    "right",
    "select",
    "then",
    "true",
    "union",
    "using",
    "when",
    "where",
];

/// An expression over columns.
pub fn expression(text: &str) -> Parsed<Expr> {
    let mut parser = Parser::new(text)?;
    let expr = parser.expr()?;
    parser.end()?;
    Ok(expr)
}

/// Reads words one after another.
pub(super) struct Parser {
    tokens: Vec<(Token, Span)>,
    at: usize,
    depth: u16,
    operators: u16,
}

impl Parser {
    pub(super) fn new(text: &str) -> Parsed<Self> {
        Ok(Parser { tokens: tokens(text)?, at: 0, depth: 0, operators: 0 })
    }

    pub(super) fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    pub(super) fn span(&self) -> Span {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(Span::default(), |(_, span)| *span)
    }

    fn last(&self) -> Span {
        self.tokens.get(self.at.saturating_sub(1)).map_or(Span::default(), |(_, span)| *span)
    }

    fn since(&self, start: Span) -> Span {
        Span::new(start.range().start, self.last().range().end.max(start.range().end))
    }

    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(seen) if seen.eq_ignore_ascii_case(word))
    }

    fn is_at(&self, ahead: usize, wanted: &str) -> bool {
        match self.tokens.get(self.at + ahead).map(|(token, _)| token) {
            Some(Token::Word(seen)) => seen.eq_ignore_ascii_case(wanted),
            Some(Token::Sign(seen)) => *seen == wanted,
            _ => false,
        }
    }

    pub(super) fn eat(&mut self, word: &str) -> bool {
        let found = self.is(word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn eat_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(seen) if *seen == sign);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, word: &str) -> Parsed<()> {
        if self.eat(word) { Ok(()) } else { Err(self.unexpected(&format!("`{word}`"))) }
    }

    pub(super) fn expect_sign(&mut self, sign: &str) -> Parsed<()> {
        if self.eat_sign(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> Diagnostic {
        let seen = match self.peek() {
            Token::End => "the end".to_owned(),
            Token::Word(word) => format!("`{word}`"),
            Token::Quoted(name) => format!("`{name}`"),
            Token::Text(text) => format!("'{text}'"),
            Token::Int(value) => value.to_string(),
            Token::Float(value) => format!("{value:?}"),
            Token::Sign(sign) => format!("`{sign}`"),
        };
        // What is missing at the end is missing behind the last word.
        let span = match self.peek() {
            Token::End if self.at > 0 => self.last(),
            _ => self.span(),
        };
        let problem = syntax(span, format!("expected {wanted}, got {seen}"));
        match self.peek() {
            Token::Word(word) if is_reserved(word) && wanted.contains("a name") => {
                problem.help(format!("`{word}` is a word of SQL: write a column of that name in backticks"))
            }
            _ => problem,
        }
    }

    pub(super) fn end(&mut self) -> Parsed<()> {
        self.eat_sign(";");
        if *self.peek() == Token::End { Ok(()) } else { Err(self.unexpected("an operator or the end")) }
    }

    /// A name that is no word of SQL.
    pub(super) fn name(&mut self) -> Parsed<(Arc<str>, Span)> {
        let span = self.span();
        let name = match self.peek() {
            Token::Quoted(name) => name.clone(),
            Token::Word(name) if !is_reserved(name) => name.clone(),
            _ => return Err(self.unexpected("a name")),
        };
        self.at += 1;
        Ok((name, span))
    }

    /// The table of `table.*`, if that comes next.
    pub(super) fn table_star(&mut self) -> Option<(Arc<str>, Span)> {
        if !self.is_name() || !self.is_at(1, ".") || !self.is_at(2, "*") {
            return None;
        }
        let found = self.name().ok();
        self.at += 2;
        found
    }

    /// Whether a name comes next.
    pub(super) fn is_name(&self) -> bool {
        match self.peek() {
            Token::Quoted(_) => true,
            Token::Word(name) => !is_reserved(name),
            _ => false,
        }
    }

    pub(super) fn expr(&mut self) -> Parsed<Expr> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(syntax(
                self.span(),
                format!("more than {MAX_DEPTH} expressions inside of each other"),
            ));
        }
        let expr = self.either()?;
        self.depth -= 1;
        Ok(expr)
    }

    /// Operands with operators of one kind between them.
    fn row(
        &mut self,
        next: fn(&mut Self) -> Parsed<Expr>,
        mut operator: impl FnMut(&mut Self) -> Option<fn(Box<Expr>, Box<Expr>) -> ExprKind>,
    ) -> Parsed<Expr> {
        let start = self.span();
        let mut expr = next(self)?;
        while let Some(make) = operator(self) {
            self.count()?;
            let right = next(self)?;
            expr = Expr { span: self.since(start), kind: make(Box::new(expr), Box::new(right)) };
        }
        Ok(expr)
    }

    fn count(&mut self) -> Parsed<()> {
        self.operators += 1;
        if self.operators <= MAX_OPERATORS {
            return Ok(());
        }
        Err(syntax(self.span(), format!("more than {MAX_OPERATORS} operators in one text")))
    }

    fn either(&mut self) -> Parsed<Expr> {
        self.row(Self::both, |parser| parser.eat("or").then_some(ExprKind::Or))
    }

    fn both(&mut self) -> Parsed<Expr> {
        self.row(Self::negated, |parser| parser.eat("and").then_some(ExprKind::And))
    }

    fn negated(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let mut times = 0;
        while self.eat("not") {
            times += 1;
        }
        let expr = self.predicate()?;
        // Twice is not at all, for nulls too.
        let kind = if times % 2 == 0 { return Ok(expr) } else { ExprKind::Not(Box::new(expr)) };
        Ok(Expr { span: self.since(start), kind })
    }

    fn predicate(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let mut expr = self.sum()?;
        loop {
            let kind = if let Some(compare) = self.comparison() {
                let right = self.sum()?;
                ExprKind::Compare(compare, Box::new(expr), Box::new(right))
            } else if self.eat("is") {
                let not = self.eat("not");
                let what = match () {
                    () if self.eat("null") => None,
                    () if self.eat("true") => Some(true),
                    () if self.eat("false") => Some(false),
                    () => return Err(self.unexpected("`null`, `true` or `false`")),
                };
                ExprKind::Is(Box::new(expr), what, not)
            } else if ["in", "like", "between"]
                .iter()
                .any(|word| self.is(word) || (self.is("not") && self.is_at(1, word)))
            {
                let not = self.eat("not");
                self.containing(expr, not)?
            } else {
                return Ok(expr);
            };
            self.count()?;
            expr = Expr { span: self.since(start), kind };
        }
    }

    fn containing(&mut self, left: Expr, not: bool) -> Parsed<ExprKind> {
        if self.eat("in") {
            self.expect_sign("(")?;
            if self.is("select") {
                return Err(refused(self.span(), "queries inside of queries are not available"));
            }
            return Ok(ExprKind::In(Box::new(left), self.list()?, not));
        }
        if self.eat("like") {
            let pattern = self.sum()?;
            if self.is("escape") {
                return Err(refused(self.span(), "`like … escape` is not available"));
            }
            return Ok(ExprKind::Like(Box::new(left), Box::new(pattern), not));
        }
        self.expect("between")?;
        let low = self.sum()?;
        self.expect("and")?;
        let high = self.sum()?;
        let span = self.since(left.span);
        let compare = |compare, with| {
            let kind = ExprKind::Compare(compare, Box::new(left.clone()), Box::new(with));
            Box::new(Expr { span, kind })
        };
        let both = ExprKind::And(compare(Compare::GreaterOrEqual, low), compare(Compare::LessOrEqual, high));
        Ok(if not { ExprKind::Not(Box::new(Expr { span, kind: both })) } else { both })
    }

    fn comparison(&mut self) -> Option<Compare> {
        let Token::Sign(sign) = self.peek() else { return None };
        let found = match *sign {
            "=" => Compare::Equal,
            "<>" | "!=" => Compare::NotEqual,
            "<" => Compare::Less,
            "<=" => Compare::LessOrEqual,
            ">" => Compare::Greater,
            ">=" => Compare::GreaterOrEqual,
            _ => return None,
        };
        self.at += 1;
        Some(found)
    }

    fn sum(&mut self) -> Parsed<Expr> {
        self.row(Self::product, |parser| {
            Some(match () {
                () if parser.eat_sign("+") => |a, b| ExprKind::Binary(Binary::Add, a, b),
                () if parser.eat_sign("-") => |a, b| ExprKind::Binary(Binary::Subtract, a, b),
                () if parser.eat_sign("||") => |a, b| ExprKind::Binary(Binary::Concat, a, b),
                () => return None,
            })
        })
    }

    fn product(&mut self) -> Parsed<Expr> {
        self.row(Self::signed, |parser| {
            Some(match () {
                () if parser.eat_sign("*") => |a, b| ExprKind::Binary(Binary::Multiply, a, b),
                () if parser.eat_sign("/") => |a, b| ExprKind::Binary(Binary::Divide, a, b),
                () if parser.eat_sign("%") => |a, b| ExprKind::Binary(Binary::Modulo, a, b),
                () => return None,
            })
        })
    }

    fn signed(&mut self) -> Parsed<Expr> {
        let start = self.span();
        let mut negative = false;
        loop {
            if self.eat_sign("-") {
                negative = !negative;
            } else if !self.eat_sign("+") {
                break;
            }
        }
        let expr = self.atom()?;
        let kind = match expr.kind {
            ExprKind::Int(value) if negative => ExprKind::Int(-value),
            ExprKind::Float(value) if negative => ExprKind::Float(-value),
            _ if negative => ExprKind::Minus(Box::new(expr)),
            kind => kind,
        };
        Ok(Expr { span: self.since(start), kind })
    }

    fn atom(&mut self) -> Parsed<Expr> {
        let span = self.span();
        let kind = match self.peek().clone() {
            Token::Int(value) => self.taken(ExprKind::Int(value)),
            Token::Float(value) => self.taken(ExprKind::Float(value)),
            Token::Text(text) => self.taken(ExprKind::Text(text)),
            Token::Sign("(") => {
                self.at += 1;
                if self.is("select") {
                    return Err(refused(self.span(), "queries inside of queries are not available"));
                }
                let inside = self.expr()?;
                self.expect_sign(")")?;
                return Ok(inside);
            }
            Token::Word(word) if self.is_at(1, "(") && !is_operator(&word) => {
                self.at += 2;
                self.call(&word.to_ascii_lowercase(), span)?
            }
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "null" => self.taken(ExprKind::Null),
                "true" => self.taken(ExprKind::Bool(true)),
                "false" => self.taken(ExprKind::Bool(false)),
                "case" => {
                    self.at += 1;
                    self.case()?
                }
                "exists" => return Err(refused(span, "queries inside of queries are not available")),
                _ => self.column()?,
            },
            Token::Quoted(_) => self.column()?,
            _ => return Err(self.unexpected("an expression")),
        };
        Ok(Expr { span: self.since(span), kind })
    }

    fn taken(&mut self, kind: ExprKind) -> ExprKind {
        self.at += 1;
        kind
    }

    fn column(&mut self) -> Parsed<ExprKind> {
        let (name, _) = self.name()?;
        if !self.eat_sign(".") {
            return Ok(ExprKind::Name(None, name));
        }
        // Behind a point, any word is a name.
        let column = match self.peek() {
            Token::Word(column) | Token::Quoted(column) => column.clone(),
            _ => return Err(self.unexpected("a column")),
        };
        self.at += 1;
        Ok(ExprKind::Name(Some(name), column))
    }

    /// The arguments up to the bracket that closes them.
    fn list(&mut self) -> Parsed<Vec<Expr>> {
        let mut found = Vec::new();
        if self.eat_sign(")") {
            return Ok(found);
        }
        loop {
            found.push(self.expr()?);
            if self.eat_sign(")") {
                return Ok(found);
            }
            self.expect_sign(",")?;
        }
    }

    fn call(&mut self, name: &str, span: Span) -> Parsed<ExprKind> {
        match name {
            "cast" => {
                let of = self.expr()?;
                self.expect("as")?;
                let to = self.cast()?;
                self.expect_sign(")")?;
                return Ok(ExprKind::Cast(Box::new(of), to));
            }
            "count" if self.eat_sign("*") => {
                self.expect_sign(")")?;
                return Ok(ExprKind::Call(name.into(), Vec::new(), true));
            }
            "substring" => {
                let of = self.expr()?;
                let mut arguments = vec![of];
                if self.eat("from") {
                    arguments.push(self.expr()?);
                    if self.eat("for") {
                        arguments.push(self.expr()?);
                    }
                    self.expect_sign(")")?;
                } else if self.eat_sign(",") {
                    arguments.extend(self.list()?);
                } else {
                    self.expect_sign(")")?;
                }
                return Ok(ExprKind::Call(name.into(), arguments, false));
            }
            _ => {}
        }
        if self.is("distinct") {
            return Err(refused(self.span(), format!("`{name}(distinct …)` is not available"))
                .help("make the rows distinct first: `select distinct …` in an `Sql` before this one"));
        }
        let arguments = self.list()?;
        if self.is("over") {
            return Err(refused(span, "functions over windows of rows are not available"));
        }
        Ok(ExprKind::Call(name.into(), arguments, false))
    }

    fn cast(&mut self) -> Parsed<Cast> {
        const TYPES: [(&str, Cast); 13] = [
            ("bigint", Cast::Int),
            ("integer", Cast::Int),
            ("int", Cast::Int),
            ("smallint", Cast::Int),
            ("tinyint", Cast::Int),
            ("double", Cast::Float),
            ("float", Cast::Float),
            ("real", Cast::Float),
            ("varchar", Cast::Text),
            ("char", Cast::Text),
            ("character", Cast::Text),
            ("text", Cast::Text),
            ("boolean", Cast::Bool),
        ];
        let found = TYPES.iter().find(|(name, _)| self.is(name));
        let Some((name, cast)) = found else {
            return Err(self.unexpected("bigint, double, varchar or boolean"));
        };
        self.at += 1;
        if *name == "double" {
            self.eat("precision");
        }
        if *name == "character" {
            self.eat("varying");
        }
        if self.eat_sign("(") {
            return Err(
                refused(self.last(), "types with a length are not available").help("leave the length out")
            );
        }
        Ok(*cast)
    }

    fn case(&mut self) -> Parsed<ExprKind> {
        let of = if self.is("when") { None } else { Some(Box::new(self.expr()?)) };
        let mut cases = Vec::new();
        while self.eat("when") {
            let when = self.expr()?;
            self.expect("then")?;
            cases.push((when, self.expr()?));
        }
        if cases.is_empty() {
            return Err(self.unexpected("`when`"));
        }
        let otherwise = if self.eat("else") { Some(Box::new(self.expr()?)) } else { None };
        self.expect("end")?;
        Ok(ExprKind::Case { of, cases, otherwise })
    }
}

fn is_reserved(word: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(word))
}

/// Words before a bracket that call nothing.
fn is_operator(word: &str) -> bool {
    is_reserved(word) && !["cast", "left", "right"].iter().any(|name| name.eq_ignore_ascii_case(word))
}

/// Something of SQL's that is not here.
pub(super) fn refused(span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::new("TB0219", span, message)
}
