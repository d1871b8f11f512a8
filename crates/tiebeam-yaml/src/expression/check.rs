//! Names and types: from the tree to code that can run on rows of one schema.

mod absent;
mod calls;
mod rules;
mod statements;

use std::sync::Arc;

use tiebeam_core::row::{Schema, Value};

use self::absent::absent;
pub use self::rules::{binary_type, may_become, untold};
use self::rules::{ordered, sample};
use super::builtins::{builtin, item_type};
use super::evaluate::{Code, FormatPiece, Op, Step};
use super::format::Spec;
use super::methods;
use super::python::{Import, builtin as builtin_of_python, library};
use super::tree::{Binary, Compare, Expr, ExprKind, Piece, Program, Unary};
use super::types::{Kind, Type, columns};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// What a program was checked to be.
pub struct Checked {
    pub body: Body,
    pub result: Type,
    /// The only thing it does is to give this column.
    pub bare: Option<usize>,
    pub locals: usize,
    pub problems: Vec<Diagnostic>,
    /// What the typed part has not, though Python has it.
    pub foreign: Vec<Diagnostic>,
}

/// The code of a program.
#[derive(Debug, Clone)]
pub enum Body {
    Value(Code),
    Steps(Vec<Step>),
    /// What is more than the typed part.
    Python(super::interpreter::Program),
    /// JavaScript.
    #[cfg(feature = "javascript")]
    JavaScript(tiebeam_javascript::Program),
    /// SQL, which has its own names and types.
    Sql(Arc<super::sql::Code>),
}

/// Checks `program` on rows of `schema`, which the transform called `producer` makes.
pub fn check(program: &Program, schema: &Arc<Schema>, producer: Option<&str>, others: &[Import]) -> Checked {
    let mut imports = others.to_vec();
    if let Program::Function { imports: own, .. } = program {
        imports.extend(own.iter().cloned());
    }
    let mut checker = Checker {
        problems: imports.iter().filter_map(Import::problem).collect(),
        foreign: Vec::new(),
        imports,
        schema,
        producer,
        parameter: None,
        locals: Vec::new(),
        names: Vec::new(),
        slots: 0,
        returns: None,
    };
    let (body, result) = match program {
        Program::Columns(expr) => {
            let (code, result) = checker.expr(expr);
            (Body::Value(code), result)
        }
        Program::Lambda { parameter, body } => {
            checker.parameter = Some(parameter.clone());
            let (code, result) = checker.expr(body);
            (Body::Value(code), result)
        }
        Program::Function { parameter, body, .. } => {
            checker.parameter = Some(parameter.clone());
            let (steps, ends) = checker.statements(body);
            let fell = if ends { None } else { Some(Type::NONE) };
            let result = match (checker.returns.take(), fell) {
                (Some(returned), Some(fell)) => returned.join(&fell),
                (Some(returned), None) => returned,
                (None, fell) => fell.unwrap_or(Type::NONE),
            };
            (Body::Steps(steps), result)
        }
    };
    let bare = match &body {
        Body::Value(Code { op: Op::Column(index), .. }) => Some(*index),
        _ => None,
    };
    Checked {
        body,
        result,
        bare,
        locals: checker.slots,
        problems: checker.problems,
        foreign: checker.foreign,
    }
}

#[derive(Clone)]
struct Local {
    name: Arc<str>,
    slot: usize,
    typed: Type,
    /// Whether every way to this place assigns it.
    certain: bool,
}

struct Checker<'a> {
    schema: &'a Arc<Schema>,
    producer: Option<&'a str>,
    parameter: Option<Arc<str>>,
    locals: Vec<Local>,
    /// The slots of the names that a function assigns.
    names: Vec<(Arc<str>, usize)>,
    slots: usize,
    problems: Vec<Diagnostic>,
    foreign: Vec<Diagnostic>,
    imports: Vec<Import>,
    returns: Option<Type>,
}

fn code(span: Span, op: Op) -> Code {
    Code { span, op }
}

fn types(span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::new("TB0205", span, message)
}

impl Checker<'_> {
    fn problem(&mut self, problem: Diagnostic) -> (Code, Type) {
        let span = problem.span.unwrap_or_default();
        self.problems.push(problem);
        (code(span, Op::Constant(Value::Null)), Type::ANY)
    }

    /// Something that Python gives and the typed part does not.
    fn foreign(&mut self, problem: Diagnostic, typed: Type) -> (Code, Type) {
        let span = problem.span.unwrap_or_default();
        self.foreign.push(problem);
        (code(span, Op::Constant(Value::Null)), typed)
    }

    fn imported(&self, name: &str) -> Option<Import> {
        let local = self.locals.iter().any(|local| &*local.name == name);
        self.imports.iter().find(|import| &*import.name == name && !local).cloned()
    }

    fn boxed(&mut self, expr: &Expr) -> (Box<Code>, Type) {
        let (code, typed) = self.expr(expr);
        (Box::new(code), typed)
    }

    fn expr(&mut self, expr: &Expr) -> (Code, Type) {
        let span = expr.span;
        let constant = |value: Value, typed: Type| (code(span, Op::Constant(value)), typed);
        match &expr.kind {
            ExprKind::None => constant(Value::Null, Type::NONE),
            ExprKind::Bool(value) => constant(Value::Bool(*value), Type::BOOL),
            ExprKind::Int(value) => constant(Value::Int64(*value), Type::INT),
            ExprKind::Float(value) => constant(Value::Double(*value), Type::FLOAT),
            ExprKind::Str(text) => constant(Value::String(text.clone()), Type::STR),
            ExprKind::Bytes(bytes) => constant(Value::Bytes(bytes.clone()), Type::of(Kind::Bytes)),
            ExprKind::Name(name) => self.name(name, span),
            ExprKind::Format(pieces) => self.format(pieces, span),
            ExprKind::List(items) => {
                let mut codes = Vec::with_capacity(items.len());
                let mut item = Type::of(Kind::Never);
                for (i, one) in items.iter().enumerate() {
                    let (code, typed) = self.expr(one);
                    codes.push(code);
                    item = if i == 0 { typed } else { item.join(&typed) };
                }
                (code(span, Op::List(codes)), Type::list(item))
            }
            ExprKind::Dict(entries) => self.dict(entries, span),
            ExprKind::Comprehension { item, name, of, conditions } => {
                self.comprehension(span, item, name, of, conditions)
            }
            ExprKind::Unary(unary, of) => self.unary(*unary, of, span),
            ExprKind::Binary(operator, a, b) => self.binary(*operator, a, b, span),
            ExprKind::Compare(first, rest) => self.compare(first, rest, span),
            ExprKind::And(a, b) => {
                let ((a, left), (b, right)) = (self.boxed(a), self.boxed(b));
                (code(span, Op::And(a, b)), left.join(&right))
            }
            ExprKind::Or(a, b) => {
                let ((a, left), (b, right)) = (self.boxed(a), self.boxed(b));
                // The left side is only taken when it is true, so never when it is None.
                let left = Type { nullable: left.kind == Kind::Any, ..left };
                (code(span, Op::Or(a, b)), left.join(&right))
            }
            ExprKind::If { condition, then, otherwise } => {
                let (condition, _) = self.expr(condition);
                let ((then, left), (otherwise, right)) = (self.expr(then), self.expr(otherwise));
                (code(span, Op::If(Box::new([condition, then, otherwise]))), left.join(&right))
            }
            ExprKind::Attribute(of, name, at) => self.attribute(of, name, *at, span),
            ExprKind::Call { function, arguments } => self.call(function, arguments, span),
            ExprKind::Index(of, index) => self.index(of, index, span),
            ExprKind::Slice(of, bounds) => self.slice(of, bounds, span),
        }
    }

    fn name(&mut self, name: &Arc<str>, span: Span) -> (Code, Type) {
        if let Some(local) = self.locals.iter().rev().find(|local| local.name == *name) {
            let (slot, typed, certain) = (local.slot, local.typed.clone(), local.certain);
            if !certain {
                let message = format!("`{name}` is not assigned on every way to this place");
                return self.problem(types(span, message).help("assign it before the `if`"));
            }
            return (code(span, Op::Local(slot)), typed);
        }
        if let Some(import) = self.imported(name) {
            let typed = match (&import.module, &import.member) {
                (Some(module), Some(member)) => library(module, member),
                _ => Type::ANY,
            };
            let problem = Diagnostic::new("TB0219", span, "imports are not available");
            return self.foreign(problem, typed);
        }
        match &self.parameter {
            Some(parameter) if parameter == name => {
                return (code(span, Op::Row), Type::of(Kind::Row(self.schema.clone())));
            }
            Some(parameter) => {
                let message = format!("unknown name `{name}`");
                let mut problem = types(span, message);
                if self.schema.index_of(name).is_some() {
                    problem = problem.help(format!("a column of the row is `{parameter}.{name}`"));
                } else if let Some(problem) = absent(name, span) {
                    return match builtin_of_python(name) {
                        Some(_) => self.foreign(problem, Type::ANY),
                        None => self.problem(problem),
                    };
                } else {
                    let locals = self.locals.iter().map(|local| &*local.name).chain([&**parameter]);
                    problem = problem.did_you_mean(name, locals);
                }
                return self.problem(problem);
            }
            None => {}
        }
        if let Some(index) = self.schema.index_of(name) {
            return (code(span, Op::Column(index)), Type::of_field(&self.schema.fields[index].field_type));
        }
        if builtin(name).is_some() {
            let message = format!("`{name}` is a function");
            return self.problem(types(span, message).help(format!("call it: `{name}(…)`")));
        }
        match absent(name, span) {
            Some(problem) if builtin_of_python(name).is_some() => self.foreign(problem, Type::ANY),
            Some(problem) => self.problem(problem),
            None => {
                let problem = unknown_column(name, span, self.schema, self.producer);
                self.problem(problem)
            }
        }
    }

    fn format(&mut self, pieces: &[Piece], span: Span) -> (Code, Type) {
        let pieces = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => FormatPiece::Text(text.clone()),
                Piece::Value { value, repr, format } => {
                    let (code, typed) = self.expr(value);
                    let spec = match Spec::parse(format) {
                        Ok(spec) => (!format.is_empty()).then_some(spec),
                        Err(message) => {
                            self.problems.push(types(value.span, message));
                            None
                        }
                    };
                    if let Some(spec) = spec.as_ref().filter(|_| !repr)
                        && let Some(sample) = sample(&typed)
                        && let Err(raised) = spec.apply(&sample)
                    {
                        self.problems.push(types(value.span, raised.message));
                    }
                    FormatPiece::Value { value: code, repr: *repr, spec }
                }
            })
            .collect();
        (code(span, Op::Format(pieces)), Type::STR)
    }

    fn dict(&mut self, entries: &[(Expr, Expr)], span: Span) -> (Code, Type) {
        let mut codes = Vec::with_capacity(entries.len());
        let (mut keys, mut values) = (Type::of(Kind::Never), Type::of(Kind::Never));
        for (i, (key, value)) in entries.iter().enumerate() {
            let ((key, key_type), (value, value_type)) = (self.expr(key), self.expr(value));
            codes.push((key, value));
            keys = if i == 0 { key_type } else { keys.join(&key_type) };
            values = if i == 0 { value_type } else { values.join(&value_type) };
        }
        (code(span, Op::Dict(codes)), Type::of(Kind::Dict(Box::new(keys), Box::new(values))))
    }

    fn comprehension(
        &mut self,
        span: Span,
        item: &Expr,
        name: &Arc<str>,
        of: &Expr,
        conditions: &[Expr],
    ) -> (Code, Type) {
        let (of, list) = self.boxed(of);
        let each = match item_type(&list) {
            Ok(each) => each,
            Err(message) => {
                self.problems.push(types(of.span, message));
                Type::ANY
            }
        };
        let slot = self.slot();
        self.locals.push(Local { name: name.clone(), slot, typed: each, certain: true });
        let conditions = conditions.iter().map(|condition| self.expr(condition).0).collect();
        let (item, typed) = self.boxed(item);
        self.locals.pop();
        (code(span, Op::Comprehension { item, slot, of, conditions }), Type::list(typed))
    }

    fn slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    /// The slot of a function's name: the same on every way.
    fn slot_of(&mut self, name: &Arc<str>) -> usize {
        if let Some((_, slot)) = self.names.iter().find(|(known, _)| known == name) {
            return *slot;
        }
        let slot = self.slot();
        self.names.push((name.clone(), slot));
        slot
    }

    fn unary(&mut self, unary: Unary, of: &Expr, span: Span) -> (Code, Type) {
        let (of, typed) = self.boxed(of);
        let number = match typed.kind {
            Kind::Bool | Kind::Int => Type::INT,
            Kind::Float => Type::FLOAT,
            _ => Type::ANY,
        };
        let fits = typed.numeric() && !(unary == Unary::Invert && typed.kind == Kind::Float);
        if unary != Unary::Not && !fits {
            let sign = match unary {
                Unary::Minus => "-",
                Unary::Plus => "+",
                _ => "~",
            };
            return self.problem(types(span, format!("`{sign}` wants a number, got {typed}")));
        }
        match unary {
            Unary::Not => (code(span, Op::Not(of)), Type::BOOL),
            Unary::Minus => (code(span, Op::Minus(of)), number),
            Unary::Plus => (code(span, Op::Plus(of)), number),
            Unary::Invert => (code(span, Op::Invert(of)), number),
        }
    }

    fn binary(&mut self, operator: Binary, a: &Expr, b: &Expr, span: Span) -> (Code, Type) {
        let exponent = &b.kind;
        let ((left, left_type), (right, right_type)) = (self.boxed(a), self.boxed(b));
        let typed = match (operator, exponent, &left_type.kind, &right_type.kind) {
            (Binary::Power, ExprKind::Int(0..), Kind::Int | Kind::Bool, _) => Ok(Type::INT),
            (Binary::Power, ExprKind::Int(_), Kind::Int | Kind::Bool, _) => Ok(Type::FLOAT),
            _ => binary_type(operator, &left_type, &right_type),
        };
        match typed {
            Ok(typed) => (code(span, Op::Binary(operator, left, right)), typed),
            Err(message) => {
                let mut problem = types(span, message);
                let texts = (left_type.kind == Kind::Str, right_type.kind == Kind::Str);
                problem = match (operator, texts) {
                    (Binary::Modulo, (true, _)) => problem.help("format with an f-string: `f\"{name}\"`"),
                    (Binary::Add, (true, false)) => problem.help("convert with `str()`, or use an f-string"),
                    (_, (true, _) | (_, true)) => problem.help("convert with `int()` or `float()`"),
                    _ => problem,
                };
                self.problem(problem)
            }
        }
    }

    fn compare(&mut self, first: &Expr, rest: &[(Compare, Expr)], span: Span) -> (Code, Type) {
        let (first, mut left) = self.boxed(first);
        let mut codes = Vec::with_capacity(rest.len());
        for (compare, expr) in rest {
            let (right_code, right) = self.expr(expr);
            let at = right_code.span;
            match compare {
                Compare::Is | Compare::IsNot => {
                    if !matches!(expr.kind, ExprKind::None | ExprKind::Bool(_)) {
                        self.problems.push(
                            types(at, format!("`{}` is for None, True and False", compare.sign()))
                                .help("compare values with `==` or `!=`"),
                        );
                    }
                }
                Compare::In | Compare::NotIn => self.check_in(*compare, &left, &right, at),
                Compare::Equal | Compare::NotEqual => {}
                _ if ordered(&left, &right) => {}
                _ => {
                    let message = format!("`{}` cannot compare {left} with {right}", compare.sign());
                    let mut problem = types(span, message);
                    if left.kind == Kind::Str || right.kind == Kind::Str {
                        problem = problem.help("convert with `int()` or `float()`");
                    }
                    self.problems.push(problem);
                }
            }
            codes.push((*compare, right_code));
            left = right;
        }
        (code(span, Op::Compare(first, codes)), Type::BOOL)
    }

    fn check_in(&mut self, compare: Compare, left: &Type, right: &Type, at: Span) {
        let fits = match &right.kind {
            Kind::Str => matches!(left.kind, Kind::Str | Kind::Any),
            Kind::List(_) | Kind::Dict(..) | Kind::Any | Kind::Bytes => true,
            _ => false,
        };
        if !fits {
            let message = format!("`{}` cannot look for {left} in {right}", compare.sign());
            self.problems.push(types(at, message));
        }
    }

    fn attribute(&mut self, of: &Expr, name: &Arc<str>, at: Span, span: Span) -> (Code, Type) {
        if let (ExprKind::Name(of), Some(parameter)) = (&of.kind, &self.parameter)
            && of == parameter
            && !self.locals.iter().any(|local| local.name == *of)
        {
            return match self.schema.index_of(name) {
                Some(index) => {
                    (code(span, Op::Column(index)), Type::of_field(&self.schema.fields[index].field_type))
                }
                None => {
                    let problem = unknown_column(name, at, self.schema, self.producer);
                    self.problem(problem)
                }
            };
        }
        if let ExprKind::Name(module) = &of.kind
            && let Some(Import { module: Some(module), member: None, .. }) = self.imported(module)
        {
            let problem = Diagnostic::new("TB0219", span, "imports are not available");
            return self.foreign(problem, library(&module, name));
        }
        let (of, typed) = self.boxed(of);
        match &typed.kind {
            Kind::Row(schema) => match schema.index_of(name) {
                Some(index) => {
                    let field = Type::of_field(&schema.fields[index].field_type);
                    (code(span, Op::Field(of, index)), field)
                }
                None => {
                    let problem = unknown_column(name, at, schema, None);
                    self.problem(problem)
                }
            },
            Kind::Any => (code(span, Op::Attribute(of, name.clone())), Type::ANY),
            _ if methods::known(name) => {
                self.problem(types(at, format!("`{name}` is a method")).help(format!("call it: `.{name}()`")))
            }
            _ => self.problem(types(at, format!("{typed} has no field `{name}`"))),
        }
    }

    fn index(&mut self, of: &Expr, index: &Expr, span: Span) -> (Code, Type) {
        let ((of, typed), (at, at_type)) = (self.boxed(of), self.boxed(index));
        let integer = matches!(at_type.kind, Kind::Int | Kind::Bool | Kind::Any);
        let result = match (&typed.kind, &index.kind) {
            (Kind::Any, _) => Type::ANY,
            (Kind::Dict(_, value), _) => (**value).clone(),
            (Kind::Str, _) if integer => Type::STR,
            (Kind::Bytes, _) if integer => Type::INT,
            (Kind::List(item), _) if integer => (**item).clone(),
            (Kind::Row(schema), ExprKind::Int(at)) => {
                match usize::try_from(*at).ok().and_then(|at| schema.fields.get(at)) {
                    Some(field) => Type::of_field(&field.field_type),
                    None => return self.problem(types(index.span, format!("the row has no column at {at}"))),
                }
            }
            (Kind::Row(_), ExprKind::Str(name)) => {
                let problem = types(span, "a row is not indexed by names");
                return self.problem(problem.help(format!("write `.{name}`")));
            }
            _ => return self.problem(types(span, format!("{typed} cannot be indexed by {at_type}"))),
        };
        (code(span, Op::Index(of, at)), result)
    }

    fn slice(&mut self, of: &Expr, bounds: &[Option<Box<Expr>>; 3], span: Span) -> (Code, Type) {
        let (of, typed) = self.boxed(of);
        let mut codes = [None, None, None];
        for (slot, bound) in codes.iter_mut().zip(bounds) {
            let Some(bound) = bound else { continue };
            let (code, seen) = self.expr(bound);
            if !matches!(seen.kind, Kind::Int | Kind::Bool | Kind::Any | Kind::Never) {
                self.problems.push(types(bound.span, format!("a slice is bounded by integers, got {seen}")));
            }
            *slot = Some(code);
        }
        let result = match &typed.kind {
            Kind::Str => Type::STR,
            Kind::Bytes | Kind::List(_) => Type { nullable: false, ..typed },
            Kind::Any => Type::ANY,
            _ => return self.problem(types(span, format!("{typed} cannot be sliced"))),
        };
        (code(span, Op::Slice(of, Box::new(codes))), result)
    }
}

fn is_name(expr: &Expr, wanted: &str) -> bool {
    matches!(&expr.kind, ExprKind::Name(name) if &**name == wanted)
}

/// A column that the rows do not have.
pub fn unknown_column(name: &str, span: Span, schema: &Schema, producer: Option<&str>) -> Diagnostic {
    let mut problem = Diagnostic::new("TB0204", span, format!("unknown column `{name}`"));
    if let Some(producer) = producer {
        problem = problem.label(format!("not produced by `{producer}`"));
    }
    problem
        .note(format!("columns here: {}", columns(schema)))
        .did_you_mean(name, schema.fields.iter().map(|field| &*field.name))
}
