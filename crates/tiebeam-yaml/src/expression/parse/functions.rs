//! `lambda` and `def`, with the statements that functions may have.

use std::sync::Arc;

use super::{Parsed, Parser, binary, refused};
use crate::expression::python::Import;
use crate::expression::token::{Token, syntax};
use crate::expression::tree::{Binary, ExprKind, MAX_NESTING, Program, Statement};
use crate::source::Span;

impl Parser {
    /// `row:` or `row: Type) -> Type:`, up to and with `end`.
    pub(super) fn parameter(&mut self, end: &str) -> Parsed<Arc<str>> {
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

    pub(super) fn function(&mut self) -> Parsed<Program> {
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
        Ok(Program::Function { parameter, body, imports: std::mem::take(&mut self.imports), span })
    }

    /// `import re`, `import math as m`, `from math import sqrt, floor as f`.
    pub(super) fn import(&mut self) -> Parsed<()> {
        let from = self.is_name("from");
        let start = self.span();
        self.at += 1;
        let module = if from { Some(self.dotted()?) } else { None };
        if from {
            self.expect_name("import")?;
        }
        loop {
            let of = self.dotted()?;
            let own = of.split('.').next().unwrap_or(&of).to_owned();
            let name = if self.eat_name("as") { self.dotted()? } else { own };
            let span = start.to(self.last_span());
            self.imports.push(match &module {
                Some(module) => Import {
                    name: name.into(),
                    module: Some(module.as_str().into()),
                    member: Some(of.into()),
                    span,
                },
                None => Import { name: name.into(), module: Some(of.into()), member: None, span },
            });
            if !self.eat_sign(",") {
                return match self.peek() {
                    Token::Newline | Token::End | Token::Sign(";") => Ok(()),
                    _ => Err(self.unexpected("the end of the line")),
                };
            }
        }
    }

    fn dotted(&mut self) -> Parsed<String> {
        let mut name = String::new();
        loop {
            let (Token::Name(part), _) = self.advance() else {
                self.at -= 1;
                return Err(self.unexpected("a name"));
            };
            name.push_str(&part);
            if !self.eat_sign(".") {
                return Ok(name);
            }
            name.push('.');
        }
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
            "import" | "from" => {
                self.import()?;
                self.skip_newlines();
                Ok(())
            }
            "for" | "while" | "with" | "try" | "def" | "class" | "global" | "nonlocal" | "assert" | "del"
            | "async" | "match" => Err(refused(
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

/// `package.module.name`.
pub(super) fn is_dotted(text: &str) -> bool {
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    text.contains('.') && !text.starts_with("row.") && text.split('.').all(is_name)
}
