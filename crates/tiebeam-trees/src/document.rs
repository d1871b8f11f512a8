//! [`Node`]: what a JSON or UBJSON document holds, with lists of numbers kept close.

use std::fmt::Display;

/// A value of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    /// A list that has nothing but numbers; an empty list.
    Numbers(Vec<f64>),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// How deep documents may be nested: models are nine levels deep.
pub(crate) const DEPTH: usize = 32;

/// Gathers a list: numbers stay close as long as there is nothing else.
#[derive(Default)]
pub(crate) struct Gathered {
    numbers: Vec<f64>,
    others: Vec<Node>,
}

impl Gathered {
    pub(crate) fn push(&mut self, node: Node) {
        match node {
            Node::Number(number) if self.others.is_empty() => self.numbers.push(number),
            other => {
                if self.others.is_empty() {
                    self.others = std::mem::take(&mut self.numbers).into_iter().map(Node::Number).collect();
                }
                self.others.push(other);
            }
        }
    }

    pub(crate) fn finish(self) -> Node {
        if self.others.is_empty() { Node::Numbers(self.numbers) } else { Node::List(self.others) }
    }
}

impl Node {
    /// The value under a key of a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Node::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The value under a key that must be there.
    pub(crate) fn need(&self, key: &str) -> Result<&Node, String> {
        self.get(key).ok_or_else(|| format!("`{key}` is missing"))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number, or one that was written as a text, as XGBoost does with parameters.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Node::Number(number) => Some(*number),
            Node::Text(text) => text.trim().parse().ok(),
            Node::Bool(flag) => Some(f64::from(u8::from(*flag))),
            _ => None,
        }
    }

    /// The numbers of a list.
    pub(crate) fn numbers(&self) -> Option<&[f64]> {
        match self {
            Node::Numbers(numbers) => Some(numbers),
            _ => None,
        }
    }

    /// The values of a list that are not numbers; an empty list has none.
    pub(crate) fn list(&self) -> Option<&[Node]> {
        match self {
            Node::List(list) => Some(list),
            Node::Numbers(numbers) if numbers.is_empty() => Some(&[]),
            _ => None,
        }
    }

    /// The count under a key that must be there.
    pub(crate) fn count(&self, key: &str) -> Result<usize, String> {
        whole(key, self.need(key)?.number())
    }

    /// The numbers under a key that must be there.
    pub(crate) fn array(&self, key: &str) -> Result<&[f64], String> {
        self.need(key)?.numbers().ok_or_else(|| format!("`{key}` is not a list of numbers"))
    }
}

/// A number that must be whole and at most 2^31.
pub(crate) fn whole(what: impl Display, number: Option<f64>) -> Result<usize, String> {
    match number {
        Some(n) if n >= 0.0 && n <= f64::from(1u32 << 31) && n.fract() == 0.0 => Ok(n as usize),
        Some(n) => Err(format!("`{what}` is {n}, no count")),
        None => Err(format!("`{what}` is not a number")),
    }
}
