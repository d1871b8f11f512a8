//! The syntax tree of an expression, before its names mean anything.

use std::sync::Arc;

use bytes::Bytes;

use super::python::Import;
use crate::source::Span;

/// The deepest tree: deep enough for people, shallow enough for every stack.
pub const MAX_DEPTH: u16 = 120;

/// The most brackets (or blocks) inside of each other: reading one takes a dozen calls.
pub const MAX_NESTING: u16 = 40;

/// An expression with its place in the expression's own text.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    pub span: Span,
    pub depth: u16,
    pub kind: ExprKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    Name(Arc<str>),
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Arc<str>),
    Bytes(Bytes),
    /// An f-string: texts and values in turn.
    Format(Vec<Piece>),
    List(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    /// `[item for name in of if conditions]`, a generator too.
    Comprehension {
        item: Box<Expr>,
        name: Arc<str>,
        of: Box<Expr>,
        conditions: Vec<Expr>,
    },
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    /// `a < b <= c`: the first operand, then each operator with its right one.
    Compare(Box<Expr>, Vec<(Compare, Expr)>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    If {
        condition: Box<Expr>,
        then: Box<Expr>,
        otherwise: Box<Expr>,
    },
    Attribute(Box<Expr>, Arc<str>, Span),
    Call {
        function: Box<Expr>,
        arguments: Vec<Argument>,
    },
    Index(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, [Option<Box<Expr>>; 3]),
}

/// A piece of an f-string.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    Text(Arc<str>),
    /// A value, whether it is shown by `repr`, and its format.
    Value {
        value: Expr,
        repr: bool,
        format: Arc<str>,
    },
}

/// An argument of a call, named or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    pub name: Option<(Arc<str>, Span)>,
    pub value: Expr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unary {
    Not,
    Minus,
    Plus,
    Invert,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
}

impl Binary {
    pub const fn sign(self) -> &'static str {
        match self {
            Binary::Add => "+",
            Binary::Subtract => "-",
            Binary::Multiply => "*",
            Binary::Divide => "/",
            Binary::FloorDivide => "//",
            Binary::Modulo => "%",
            Binary::Power => "** or pow()",
            Binary::BitAnd => "&",
            Binary::BitOr => "|",
            Binary::BitXor => "^",
            Binary::ShiftLeft => "<<",
            Binary::ShiftRight => ">>",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    Is,
    IsNot,
}

impl Compare {
    pub const fn sign(self) -> &'static str {
        match self {
            Compare::Equal => "==",
            Compare::NotEqual => "!=",
            Compare::Less => "<",
            Compare::LessOrEqual => "<=",
            Compare::Greater => ">",
            Compare::GreaterOrEqual => ">=",
            Compare::In => "in",
            Compare::NotIn => "not in",
            Compare::Is => "is",
            Compare::IsNot => "is not",
        }
    }
}

/// A statement of a function's body.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    Assign {
        name: Arc<str>,
        value: Expr,
    },
    If {
        condition: Expr,
        then: Vec<Statement>,
        otherwise: Vec<Statement>,
    },
    Return(Expr),
    /// `raise ValueError("…")`: the exception's name and its message.
    Raise {
        exception: Arc<str>,
        message: Option<Expr>,
        span: Span,
    },
}

/// What a text was parsed to.
#[derive(Debug, Clone, PartialEq)]
pub enum Program {
    /// An expression over the row's columns.
    Columns(Expr),
    /// `lambda row: …`
    Lambda { parameter: Arc<str>, body: Expr },
    /// `def name(row): …`
    Function { parameter: Arc<str>, body: Vec<Statement>, imports: Vec<Import>, span: Span },
}

impl ExprKind {
    /// The depth of the deepest part.
    pub fn parts_depth(&self) -> u16 {
        let of = |expr: &Expr| expr.depth;
        let all = |parts: &[Expr]| parts.iter().map(of).max().unwrap_or(0);
        match self {
            ExprKind::Name(_)
            | ExprKind::None
            | ExprKind::Bool(_)
            | ExprKind::Int(_)
            | ExprKind::Float(_)
            | ExprKind::Str(_)
            | ExprKind::Bytes(_) => 0,
            ExprKind::Format(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Text(_) => 0,
                    Piece::Value { value, .. } => value.depth,
                })
                .max()
                .unwrap_or(0),
            ExprKind::List(items) => all(items),
            ExprKind::Dict(entries) => entries.iter().map(|(k, v)| k.depth.max(v.depth)).max().unwrap_or(0),
            ExprKind::Comprehension { item, of: list, conditions, .. } => {
                item.depth.max(list.depth).max(all(conditions))
            }
            ExprKind::Unary(_, one) | ExprKind::Attribute(one, ..) => one.depth,
            ExprKind::Binary(_, a, b) | ExprKind::And(a, b) | ExprKind::Or(a, b) | ExprKind::Index(a, b) => {
                a.depth.max(b.depth)
            }
            ExprKind::Compare(first, rest) => {
                rest.iter().map(|(_, expr)| expr.depth).max().unwrap_or(0).max(first.depth)
            }
            ExprKind::If { condition, then, otherwise } => {
                condition.depth.max(then.depth).max(otherwise.depth)
            }
            ExprKind::Call { function, arguments } => {
                arguments.iter().map(|a| a.value.depth).max().unwrap_or(0).max(function.depth)
            }
            ExprKind::Slice(of, bounds) => {
                bounds.iter().flatten().map(|bound| bound.depth).max().unwrap_or(0).max(of.depth)
            }
        }
    }
}
