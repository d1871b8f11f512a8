//! What a text of SQL says, before its names mean anything.

use std::sync::Arc;

use crate::source::Span;

/// An expression with its place. Equal are those that say the same, wherever they stand.
#[derive(Debug, Clone)]
pub struct Expr {
    pub span: Span,
    pub kind: ExprKind,
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    /// `name` or `table.name`
    Name(Option<Arc<str>>, Arc<str>),
    /// A column that was found: the table's number and the column's place.
    Place(usize, usize),
    Minus(Box<Expr>),
    Not(Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Compare(Compare, Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    /// `of is [not] null`, `true` or `false`
    Is(Box<Expr>, Option<bool>, bool),
    /// `of [not] in (list)`
    In(Box<Expr>, Vec<Expr>, bool),
    /// `of [not] like pattern`
    Like(Box<Expr>, Box<Expr>, bool),
    Case {
        of: Option<Box<Expr>>,
        cases: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Cast(Box<Expr>, Cast),
    /// A function; `*` for an argument is none.
    Call(Arc<str>, Vec<Expr>, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Concat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    Int,
    Float,
    Text,
    Bool,
}

/// A query: one `select`.
#[derive(Debug, Clone)]
pub struct Query {
    pub distinct: bool,
    pub items: Vec<Item>,
    pub tables: Vec<Table>,
    pub filter: Option<Expr>,
    pub groups: Vec<Expr>,
    pub having: Option<Expr>,
}

/// What a query gives.
#[derive(Debug, Clone)]
pub enum Item {
    /// `*`, or `table.*`
    All(Option<(Arc<str>, Span)>),
    /// An expression, and its name where it has one.
    One(Expr, Option<(Arc<str>, Span)>),
}

/// An input of a query.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: Arc<str>,
    pub span: Span,
    pub alias: Option<Arc<str>>,
    /// How it is joined to those before it; none for the first one.
    pub join: Option<(Join, On)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    Inner,
    Left,
    Right,
    Full,
}

/// What rows must have in common.
#[derive(Debug, Clone)]
pub enum On {
    /// Nothing that is said here: `a, b` or `a cross join b`.
    Nothing,
    Condition(Expr),
    Using(Vec<(Arc<str>, Span)>),
}

impl ExprKind {
    /// The expressions that it is made of.
    pub fn parts(&self) -> Vec<&Expr> {
        match self {
            ExprKind::Minus(of) | ExprKind::Not(of) | ExprKind::Is(of, ..) | ExprKind::Cast(of, _) => {
                vec![&**of]
            }
            ExprKind::Binary(_, a, b)
            | ExprKind::Compare(_, a, b)
            | ExprKind::And(a, b)
            | ExprKind::Or(a, b)
            | ExprKind::Like(a, b, _) => vec![&**a, &**b],
            ExprKind::In(of, list, _) => std::iter::once(&**of).chain(list).collect(),
            ExprKind::Case { of, cases, otherwise } => {
                let cases = cases.iter().flat_map(|(when, then)| [when, then]);
                of.as_deref().into_iter().chain(cases).chain(otherwise.as_deref()).collect()
            }
            ExprKind::Call(_, arguments, _) => arguments.iter().collect(),
            _ => Vec::new(),
        }
    }

    /// The same, to be changed.
    pub fn parts_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            ExprKind::Minus(of) | ExprKind::Not(of) | ExprKind::Is(of, ..) | ExprKind::Cast(of, _) => {
                vec![&mut **of]
            }
            ExprKind::Binary(_, a, b)
            | ExprKind::Compare(_, a, b)
            | ExprKind::And(a, b)
            | ExprKind::Or(a, b)
            | ExprKind::Like(a, b, _) => vec![&mut **a, &mut **b],
            ExprKind::In(of, list, _) => std::iter::once(&mut **of).chain(list).collect(),
            ExprKind::Case { of, cases, otherwise } => {
                let cases = cases.iter_mut().flat_map(|(when, then)| [when, then]);
                of.as_deref_mut().into_iter().chain(cases).chain(otherwise.as_deref_mut()).collect()
            }
            ExprKind::Call(_, arguments, _) => arguments.iter_mut().collect(),
            _ => Vec::new(),
        }
    }
}
