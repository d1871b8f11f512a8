//! Names and types of SQL: from the tree to code that can run on rows.

use std::sync::Arc;

use tiebeam_core::row::{Schema, Value};

use super::evaluate::Code;
use super::functions;
use super::tree::{Binary, Cast, Compare, Expr, ExprKind};
use crate::diagnostic::Diagnostic;
use crate::expression::types::{Kind, Type, columns};
use crate::expression::unknown_column;
use crate::source::Span;

/// One of the tables that a text's names mean.
#[derive(Debug, Clone)]
pub struct Columns {
    /// The names by which the text may call it.
    pub names: Vec<Arc<str>>,
    pub schema: Arc<Schema>,
    /// The transform that makes its rows.
    pub producer: Option<Arc<str>>,
    /// Whether its rows may be missing, as joins leave them.
    pub may_miss: bool,
}

/// What the columns of an expression are read from.
pub enum From<'a> {
    /// A row of the only table.
    Row(&'a [Columns]),
    /// A row that holds the rows of all tables.
    Joined(&'a [Columns]),
    /// What a group has in common, and what is made of its rows; the first are the values, by what they say.
    Groups(&'a [(Expr, Type)]),
}

fn types(span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::new("TB0205", span, message)
}

/// Replaces names by the places of the columns that they mean.
pub fn resolve(expr: &mut Expr, tables: &[Columns], problems: &mut Vec<Diagnostic>) {
    if let ExprKind::Name(table, name) = &expr.kind {
        match place(table.as_deref(), name, expr.span, tables) {
            Ok((table, column)) => expr.kind = ExprKind::Place(table, column),
            Err(problem) => problems.push(problem),
        }
        return;
    }
    expr.kind.parts_mut().into_iter().for_each(|part| resolve(part, tables, problems));
}

/// The table and place of a column.
pub fn place(
    table: Option<&str>,
    name: &str,
    span: Span,
    tables: &[Columns],
) -> Result<(usize, usize), Diagnostic> {
    let among: Vec<(usize, &Columns)> = match table {
        None => tables.iter().enumerate().collect(),
        Some(wanted) => {
            let found = (0..tables.len()).find(|i| tables[*i].names.iter().any(|name| **name == *wanted));
            let Some(found) = found else { return Err(unknown_table(wanted, span, tables)) };
            vec![(found, &tables[found])]
        }
    };
    let found: Vec<(usize, usize)> =
        among.iter().filter_map(|(i, one)| Some((*i, one.schema.index_of(name)?))).collect();
    match (found.as_slice(), among.as_slice()) {
        ([one], _) => Ok(*one),
        ([], [(_, only)]) => Err(unknown_column(name, span, &only.schema, only.producer.as_deref())),
        ([], _) => {
            let mut problem = Diagnostic::new("TB0204", span, format!("unknown column `{name}`"));
            for (_, one) in &among {
                let title = one.names.first().map_or("", |name| name);
                problem = problem.note(format!("columns of {title}: {}", columns(&one.schema)));
            }
            let all = among.iter().flat_map(|(_, one)| &one.schema.fields);
            Err(problem.did_you_mean(name, all.map(|field| &*field.name)))
        }
        (many, _) => {
            let titles: Vec<String> = many
                .iter()
                .map(|(i, _)| format!("{}.{name}", tables[*i].names.first().map_or("", |name| name)))
                .collect();
            let message = format!("`{name}` could be {}", titles.join(" or "));
            Err(Diagnostic::new("TB0222", span, message).help("write which one is meant"))
        }
    }
}

/// A table that the query does not read.
pub fn unknown_table(wanted: &str, span: Span, tables: &[Columns]) -> Diagnostic {
    let names = || tables.iter().flat_map(|one| &one.names).map(|name| &**name);
    let problem = Diagnostic::new("TB0233", span, format!("there is no input `{wanted}` here"));
    problem.did_you_mean(wanted, names()).note(format!("inputs: {}", names().collect::<Vec<_>>().join(", ")))
}

/// Checks expressions, which [`resolve`] went through.
pub struct Checker<'a> {
    pub from: From<'a>,
    pub problems: Vec<Diagnostic>,
}

impl Checker<'_> {
    fn problem(&mut self, problem: Diagnostic) -> (Code, Type) {
        self.problems.push(problem);
        (Code::Constant(Value::Null), Type::ANY)
    }

    /// The code and the type of an expression.
    pub fn expr(&mut self, expr: &Expr) -> (Code, Type) {
        if let From::Groups(known) = &self.from
            && let Some(index) = known.iter().position(|(one, _)| one == expr)
        {
            return (Code::Column(index), known[index].1.clone());
        }
        let constant = |value, typed| (Code::Constant(value), typed);
        match &expr.kind {
            ExprKind::Null => constant(Value::Null, Type::NONE),
            ExprKind::Bool(value) => constant(Value::Bool(*value), Type::BOOL),
            ExprKind::Int(value) => constant(Value::Int64(*value), Type::INT),
            ExprKind::Float(value) => constant(Value::Double(*value), Type::FLOAT),
            ExprKind::Text(text) => constant(Value::String(text.clone()), Type::STR),
            ExprKind::Name(..) => (Code::Constant(Value::Null), Type::ANY),
            ExprKind::Place(table, column) => self.column(*table, *column, expr.span),
            ExprKind::Minus(of) => {
                let (code, typed) = self.number(of, "-");
                (Code::Minus(Box::new(code)), typed)
            }
            ExprKind::Not(of) => {
                let (code, nullable) = self.truth(of, "not");
                (Code::Not(Box::new(code)), Type { nullable, ..Type::BOOL })
            }
            ExprKind::And(a, b) | ExprKind::Or(a, b) => {
                let is_and = matches!(expr.kind, ExprKind::And(..));
                let word = if is_and { "and" } else { "or" };
                let ((left, x), (right, y)) = (self.truth(a, word), self.truth(b, word));
                let both = Box::new([left, right]);
                let code = if is_and { Code::And(both) } else { Code::Or(both) };
                (code, Type { nullable: x || y, ..Type::BOOL })
            }
            ExprKind::Binary(Binary::Concat, a, b) => {
                let ((left, x), (right, y)) = (self.text(a, "||"), self.text(b, "||"));
                (Code::Concat(Box::new([left, right])), Type { nullable: x || y, ..Type::STR })
            }
            ExprKind::Binary(operator, a, b) => self.arithmetic(*operator, a, b),
            ExprKind::Compare(compare, a, b) => {
                let ((left, x), (right, y)) = (self.expr(a), self.expr(b));
                self.comparable(&x, &y, expr.span);
                let nullable = x.nullable || y.nullable;
                (Code::Compare(*compare, Box::new([left, right])), Type { nullable, ..Type::BOOL })
            }
            ExprKind::Is(of, what, not) => {
                let code = match what {
                    Some(_) => self.truth(of, "is true").0,
                    None => self.expr(of).0,
                };
                (Code::Is(Box::new(code), *what, *not), Type::BOOL)
            }
            ExprKind::In(of, list, not) => self.contained(of, list, *not),
            ExprKind::Like(of, pattern, not) => {
                let ((code, x), (pattern, y)) = (self.text(of, "like"), self.text(pattern, "like"));
                let like = Code::Like(Box::new([code, pattern]), *not);
                (like, Type { nullable: x || y, ..Type::BOOL })
            }
            ExprKind::Case { of, cases, otherwise } => self.case(of.as_deref(), cases, otherwise.as_deref()),
            ExprKind::Cast(of, to) => self.cast(of, *to),
            ExprKind::Call(name, arguments, star) => self.call(name, arguments, *star, expr.span),
        }
    }

    fn column(&mut self, table: usize, column: usize, span: Span) -> (Code, Type) {
        match &self.from {
            From::Row(tables) => (Code::Column(column), column_type(tables, table, column)),
            From::Joined(tables) => (Code::Joined(table, column), column_type(tables, table, column)),
            From::Groups(_) => {
                let problem = Diagnostic::new("TB0205", span, "rows of a group differ in this column");
                self.problem(
                    problem
                        .help("name it in `group by`, or put it into `min`, `max`, `sum`, `avg` or `count`"),
                )
            }
        }
    }

    fn number(&mut self, expr: &Expr, sign: &str) -> (Code, Type) {
        let (code, typed) = self.expr(expr);
        if matches!(typed.kind, Kind::Int | Kind::Float | Kind::Any | Kind::Never) {
            return (code, typed);
        }
        self.problem(types(expr.span, format!("`{sign}` wants a number, got {typed}")))
    }

    fn truth(&mut self, expr: &Expr, word: &str) -> (Code, bool) {
        let (code, typed) = self.expr(expr);
        if !matches!(typed.kind, Kind::Bool | Kind::Any | Kind::Never) {
            self.problem(types(expr.span, format!("`{word}` wants a boolean, got {typed}")));
        }
        (code, typed.nullable)
    }

    fn text(&mut self, expr: &Expr, word: &str) -> (Code, bool) {
        let (code, typed) = self.expr(expr);
        if !matches!(typed.kind, Kind::Str | Kind::Any | Kind::Never) {
            let problem = types(expr.span, format!("`{word}` wants a string, got {typed}"));
            self.problem(problem.help("convert it: `cast(… as varchar)`"));
        }
        (code, typed.nullable)
    }

    fn arithmetic(&mut self, operator: Binary, a: &Expr, b: &Expr) -> (Code, Type) {
        let sign = match operator {
            Binary::Add => "+",
            Binary::Subtract => "-",
            Binary::Multiply => "*",
            Binary::Divide => "/",
            Binary::Modulo => "%",
            Binary::Concat => "||",
        };
        let ((left, x), (right, y)) = (self.number(a, sign), self.number(b, sign));
        let kind = match (&x.kind, &y.kind) {
            (Kind::Any, _) | (_, Kind::Any) => Kind::Any,
            (Kind::Float, _) | (_, Kind::Float) => Kind::Float,
            (Kind::Never, Kind::Never) => Kind::Never,
            _ => Kind::Int,
        };
        let nullable = x.nullable || y.nullable;
        (Code::Arithmetic(operator, Box::new([left, right])), Type { kind, nullable })
    }

    /// Notes where two values are never equal nor ordered.
    fn comparable(&mut self, a: &Type, b: &Type, span: Span) {
        let number = |typed: &Type| matches!(typed.kind, Kind::Int | Kind::Float);
        let open = |typed: &Type| matches!(typed.kind, Kind::Any | Kind::Never);
        if open(a) || open(b) || (number(a) && number(b)) || a.kind == b.kind {
            return;
        }
        let problem = types(span, format!("{a} cannot be compared with {b}"));
        self.problems.push(match (&a.kind, &b.kind) {
            (Kind::Str, _) | (_, Kind::Str) => {
                problem.help("convert one: `cast(… as bigint)` or `cast(… as varchar)`")
            }
            _ => problem,
        });
    }

    fn contained(&mut self, of: &Expr, list: &[Expr], not: bool) -> (Code, Type) {
        let (code, typed) = self.expr(of);
        let mut nullable = typed.nullable;
        let mut codes = vec![code];
        for one in list {
            let (code, seen) = self.expr(one);
            self.comparable(&typed, &seen, one.span);
            nullable |= seen.nullable;
            codes.push(code);
        }
        (Code::In(codes, not), Type { nullable, ..Type::BOOL })
    }

    fn case(&mut self, of: Option<&Expr>, cases: &[(Expr, Expr)], otherwise: Option<&Expr>) -> (Code, Type) {
        let of = of.map(|of| (self.expr(of), of.span));
        let mut codes = Vec::with_capacity(cases.len());
        let mut found: Option<Type> = None;
        for (when, then) in cases {
            let when_code = match &of {
                None => self.truth(when, "when").0,
                Some(((code, typed), _)) => {
                    let (right, seen) = self.expr(when);
                    self.comparable(typed, &seen, when.span);
                    Code::Compare(Compare::Equal, Box::new([code.clone(), right]))
                }
            };
            let (then_code, typed) = self.expr(then);
            found = Some(self.common(found, typed, then.span));
            codes.push((when_code, then_code));
        }
        let (otherwise, typed, span) = match otherwise {
            Some(otherwise) => {
                let (code, typed) = self.expr(otherwise);
                (code, typed, otherwise.span)
            }
            None => (Code::Constant(Value::Null), Type::NONE, Span::default()),
        };
        let typed = self.common(found, typed, span);
        (Code::Case(codes, Box::new(otherwise)), typed)
    }

    fn common(&mut self, before: Option<Type>, next: Type, span: Span) -> Type {
        let Some(before) = before else { return next };
        let joined = before.join(&next);
        let was_known = before.kind != Kind::Any && next.kind != Kind::Any;
        if joined.kind == Kind::Any && was_known {
            self.problem(types(span, format!("this is {next}, those before are {before}")));
        }
        joined
    }

    fn cast(&mut self, of: &Expr, to: Cast) -> (Code, Type) {
        let (code, typed) = self.expr(of);
        let kind = match to {
            Cast::Int => Kind::Int,
            Cast::Float => Kind::Float,
            Cast::Text => Kind::Str,
            Cast::Bool => Kind::Bool,
        };
        let known =
            matches!(typed.kind, Kind::Int | Kind::Float | Kind::Str | Kind::Bool | Kind::Any | Kind::Never);
        let fits = match (&typed.kind, to) {
            (Kind::Int | Kind::Float, Cast::Bool) | (Kind::Bool, Cast::Int | Cast::Float) => false,
            _ => known,
        };
        if !fits {
            let wanted = Type { kind: kind.clone(), nullable: false };
            self.problem(types(of.span, format!("{typed} cannot become {wanted}")));
        }
        (Code::Cast(Box::new(code), to), Type { kind, nullable: typed.nullable })
    }

    fn call(&mut self, name: &Arc<str>, arguments: &[Expr], star: bool, span: Span) -> (Code, Type) {
        if star || functions::is_aggregate(name) {
            let problem =
                Diagnostic::new("TB0205", span, format!("`{name}` is of groups of rows, not of one"));
            return self
                .problem(problem.help("use it in the `select` or `having` of an `Sql`, or in a `Combine`"));
        }
        let checked: Vec<(Code, Type)> = arguments.iter().map(|one| self.expr(one)).collect();
        let (codes, seen): (Vec<Code>, Vec<Type>) = checked.into_iter().unzip();
        if &**name == "coalesce" {
            let mut joined = Type::of(Kind::Never);
            for (typed, argument) in seen.iter().zip(arguments) {
                joined = self.common(Some(joined), typed.clone(), argument.span);
            }
            joined.nullable = seen.iter().all(|typed| typed.nullable);
            return (Code::Coalesce(codes), joined);
        }
        let Some(function) = functions::find(name) else {
            let problem = Diagnostic::new("TB0219", span, format!("there is no function `{name}` here"));
            let problem = problem.did_you_mean(name, functions::names());
            return self.problem(
                problem.note(format!("functions: {}", functions::names().collect::<Vec<_>>().join(", "))),
            );
        };
        match function.result(&seen) {
            Ok(typed) => (Code::Call(function.call, codes), typed),
            Err(wanted) => self.problem(types(span, format!("`{name}` wants {wanted}"))),
        }
    }
}

fn column_type(tables: &[Columns], table: usize, column: usize) -> Type {
    let Some(one) = tables.get(table) else { return Type::ANY };
    let Some(field) = one.schema.fields.get(column) else { return Type::ANY };
    let typed = Type::of_field(&field.field_type);
    Type { nullable: typed.nullable || one.may_miss, ..typed }
}
