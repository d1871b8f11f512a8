//! Calls: functions, methods, formats and rows.

use std::sync::Arc;

use tiebeam_core::row::{FieldType, Schema, Value};

use super::absent::absent;
use super::{Checker, code, is_name, types};
use crate::diagnostic::Diagnostic;
use crate::expression::builtins::{self, Function, builtin};
use crate::expression::evaluate::{Code, Op};
use crate::expression::methods;
use crate::expression::python::{self, Import};
use crate::expression::tree::{Argument, Expr, ExprKind, Piece};
use crate::expression::types::{Kind, Type};
use crate::source::Span;

/// Arguments by name that functions of Python's have and the typed part has not.
const PYTHON_ARGUMENTS: [&str; 9] =
    ["key", "reverse", "default", "start", "sep", "maxsplit", "strict", "encoding", "errors"];

impl Checker<'_> {
    pub(super) fn call(&mut self, function: &Expr, arguments: &[Argument], span: Span) -> (Code, Type) {
        match &function.kind {
            ExprKind::Attribute(of, name, _) if &**name == "Row" && is_name(of, "beam") => {
                self.make_row(arguments, span)
            }
            ExprKind::Name(name) if &**name == "Row" && self.schema.index_of(name).is_none() => {
                self.make_row(arguments, span)
            }
            ExprKind::Name(name) if self.imported(name).is_some() => {
                arguments.iter().for_each(|argument| drop(self.expr(&argument.value)));
                self.expr(function)
            }
            ExprKind::Name(name) => match builtin(name) {
                Some(builtin) => {
                    let Some((codes, seen)) = self.bind(builtin, None, arguments, span) else {
                        return self.any(span);
                    };
                    self.apply(builtin, codes, &seen, span)
                }
                None => {
                    let problem = absent(name, function.span).unwrap_or_else(|| {
                        Diagnostic::new("TB0219", function.span, format!("no function `{name}`"))
                            .did_you_mean(name, builtins::BUILTINS.iter().map(|f| f.name))
                    });
                    match python::builtin(name) {
                        Some(typed) => {
                            arguments.iter().for_each(|argument| drop(self.expr(&argument.value)));
                            self.foreign(problem, typed)
                        }
                        None => self.problem(problem),
                    }
                }
            },
            ExprKind::Attribute(of, name, at) => self.method(of, name, *at, arguments, span),
            _ => self.problem(types(function.span, "this is no function")),
        }
    }

    fn any(&self, span: Span) -> (Code, Type) {
        (code(span, Op::Constant(Value::Null)), Type::ANY)
    }

    fn apply(&mut self, function: &Function, codes: Vec<Code>, seen: &[Type], span: Span) -> (Code, Type) {
        match (function.result)(seen) {
            Ok(typed) => (code(span, Op::Call(function.call, codes)), typed),
            Err(message) => self.problem(types(span, message)),
        }
    }

    fn method(
        &mut self,
        of: &Expr,
        name: &Arc<str>,
        at: Span,
        arguments: &[Argument],
        span: Span,
    ) -> (Code, Type) {
        if let (ExprKind::Str(template), "format") = (&of.kind, &**name) {
            return self.str_format(template, arguments, span);
        }
        if let ExprKind::Name(module) = &of.kind
            && let Some(Import { module: Some(module), member: None, .. }) = self.imported(module)
        {
            arguments.iter().for_each(|argument| drop(self.expr(&argument.value)));
            let problem = Diagnostic::new("TB0219", span, "imports are not available");
            return self.foreign(problem, python::library(&module, name));
        }
        let (receiver, typed) = self.expr(of);
        if typed.kind == Kind::Any {
            let mut codes = vec![receiver];
            codes.extend(arguments.iter().map(|argument| self.expr(&argument.value).0));
            return (code(span, Op::Method(name.clone(), codes)), Type::ANY);
        }
        let table = methods::methods(&typed.kind);
        match table.iter().find(|method| method.name == &**name) {
            Some(method) => {
                let Some((codes, seen)) = self.bind(method, Some((receiver, typed)), arguments, span) else {
                    return self.any(span);
                };
                self.apply(method, codes, &seen, span)
            }
            None => {
                let problem = Diagnostic::new("TB0219", at, format!("{typed} has no method `{name}`"))
                    .did_you_mean(name, table.iter().map(|method| method.name));
                if python::is_method(&typed.kind, name) {
                    arguments.iter().for_each(|argument| drop(self.expr(&argument.value)));
                    return self.foreign(problem, Type::ANY);
                }
                self.problem(problem)
            }
        }
    }

    /// Puts arguments in the order of the parameters.
    fn bind(
        &mut self,
        function: &Function,
        receiver: Option<(Code, Type)>,
        arguments: &[Argument],
        span: Span,
    ) -> Option<(Vec<Code>, Vec<Type>)> {
        let mut bound: Vec<Option<(Code, Type)>> =
            vec![receiver].into_iter().filter(Option::is_some).collect();
        let mut fine = true;
        for argument in arguments {
            let value = self.expr(&argument.value);
            let place = match &argument.name {
                None => bound.len(),
                Some((name, at)) => {
                    match function.parameters.iter().position(|p| **p == **name && !p.is_empty()) {
                        Some(place) => place,
                        None => {
                            let message = format!("{}() takes no argument `{name}`", function.name);
                            let problem = Diagnostic::new("TB0219", *at, message);
                            match PYTHON_ARGUMENTS.contains(&&**name) {
                                true => self.foreign.push(problem),
                                false => self.problems.push(problem),
                            }
                            fine = false;
                            continue;
                        }
                    }
                }
            };
            if bound.len() <= place {
                bound.resize_with(place + 1, || None);
            }
            if bound[place].replace(value).is_some() {
                let message = format!("{}() got an argument twice", function.name);
                self.problems.push(types(argument.value.span, message));
                fine = false;
            }
        }
        let most = if function.variadic { usize::MAX } else { function.parameters.len() };
        if fine
            && (bound.len() < function.required
                || bound.len() > most
                || bound.iter().take(function.required).any(Option::is_none))
        {
            let own = usize::from(function.parameters.first() == Some(&""));
            let message = match (function.required - own, most.saturating_sub(own), function.variadic) {
                (least, _, true) => format!("{}() takes at least {least} arguments", function.name),
                (1, 1, _) => format!("{}() takes 1 argument", function.name),
                (least, most, _) if least == most => format!("{}() takes {least} arguments", function.name),
                (least, most, _) => format!("{}() takes {least} to {most} arguments", function.name),
            };
            self.problems.push(types(span, format!("{message}, got {}", arguments.len())));
            fine = false;
        }
        if !fine {
            return None;
        }
        let absent = || (code(span, Op::Constant(Value::Null)), Type::of(Kind::Never));
        Some(bound.into_iter().map(|one| one.unwrap_or_else(absent)).unzip())
    }

    /// `"{} of {name:.1f}".format(a, name=b)` is an f-string.
    fn str_format(&mut self, template: &str, arguments: &[Argument], span: Span) -> (Code, Type) {
        let mut pieces = Vec::new();
        let mut next = 0;
        let mut rest = template;
        let bad = |message: String| types(span, message);
        while !rest.is_empty() {
            let at = rest.find(['{', '}']).unwrap_or(rest.len());
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].into()));
            }
            rest = &rest[at..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                pieces.push(Piece::Text(rest[..1].into()));
                rest = &rest[2..];
                continue;
            }
            let Some(field) = rest.strip_prefix('{') else {
                if rest.is_empty() {
                    break;
                }
                return self.problem(bad("a single `}` in a format".to_owned()));
            };
            let Some((field, after)) = field.split_once('}') else {
                return self.problem(bad("`{` without its `}` in a format".to_owned()));
            };
            rest = after;
            let (name, format) = field.split_once(':').unwrap_or((field, ""));
            let (name, conversion) = name.split_once('!').unwrap_or((name, "s"));
            let found = match name.parse::<usize>() {
                Ok(place) => arguments.iter().filter(|a| a.name.is_none()).nth(place),
                Err(_) if name.is_empty() => {
                    next += 1;
                    arguments.iter().filter(|a| a.name.is_none()).nth(next - 1)
                }
                Err(_) => arguments.iter().find(|a| a.name.as_ref().is_some_and(|(n, _)| **n == *name)),
            };
            let Some(argument) = found else {
                return self.problem(bad(format!("format() has no argument for `{{{field}}}`")));
            };
            let value = argument.value.clone();
            pieces.push(Piece::Value { value, repr: conversion == "r", format: format.into() });
        }
        self.format(&pieces, span)
    }

    fn make_row(&mut self, arguments: &[Argument], span: Span) -> (Code, Type) {
        let mut codes = Vec::new();
        let mut fields: Vec<(Arc<str>, FieldType)> = Vec::new();
        for argument in arguments {
            let (value, typed) = self.expr(&argument.value);
            let name = match (&argument.name, &argument.value.kind) {
                (Some((name, _)), _) => name.clone(),
                (None, ExprKind::Attribute(_, name, _)) => name.clone(),
                (None, ExprKind::Name(name)) => name.clone(),
                _ => {
                    let problem = types(argument.value.span, "a field of a row needs a name");
                    return self.problem(problem.help("write `beam.Row(name=…)`"));
                }
            };
            let Some(field) = typed.to_field() else {
                let message = format!("the type of field `{name}` cannot be told: {typed}");
                return self.problem(Diagnostic::new("TB0223", argument.value.span, message));
            };
            if fields.iter().any(|(other, _)| *other == name) {
                return self.problem(types(argument.value.span, format!("field `{name}` comes twice")));
            }
            fields.push((name, field));
            codes.push(value);
        }
        let schema = Arc::new(Schema::of(fields));
        (code(span, Op::MakeRow(schema.clone(), codes)), Type::of(Kind::Row(schema)))
    }
}
