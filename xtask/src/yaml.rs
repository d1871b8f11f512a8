//! YAML documents as plain trees: enough for Beam's conformance files.

use granit_parser::{Event, Parser, ScalarStyle};

/// A node of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in its order.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// The value of a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Node::Map(pairs) => pairs.iter().find(|(k, _)| *k == Node::Text(key.to_owned())).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The value of a key that must be there.
    pub(crate) fn need(&self, key: &str) -> Result<&Node, String> {
        self.get(key).ok_or_else(|| format!("no key `{key}` in {self:?}"))
    }

    /// As text.
    pub(crate) fn text(&self) -> Result<&str, String> {
        match self {
            Node::Text(text) => Ok(text),
            other => Err(format!("wanted text, got {other:?}")),
        }
    }

    /// As a whole number.
    pub(crate) fn int(&self) -> Result<i64, String> {
        match self {
            Node::Int(number) => Ok(*number),
            other => Err(format!("wanted a whole number, got {other:?}")),
        }
    }

    /// As a truth value.
    pub(crate) fn bool(&self) -> Result<bool, String> {
        match self {
            Node::Bool(value) => Ok(*value),
            other => Err(format!("wanted true or false, got {other:?}")),
        }
    }

    /// As a sequence.
    pub(crate) fn list(&self) -> Result<&[Node], String> {
        match self {
            Node::List(values) => Ok(values),
            other => Err(format!("wanted a sequence, got {other:?}")),
        }
    }

    /// As a mapping.
    pub(crate) fn pairs(&self) -> Result<&[(Node, Node)], String> {
        match self {
            Node::Map(pairs) => Ok(pairs),
            other => Err(format!("wanted a mapping, got {other:?}")),
        }
    }
}

/// All documents of a file.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, String> {
    let mut documents = Vec::new();
    let mut open: Vec<Vec<Node>> = Vec::new();
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|e| e.to_string())?;
        let done = match event {
            Event::Scalar(text, style, ..) => scalar(&text, style),
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                open.push(Vec::new());
                continue;
            }
            Event::SequenceEnd => Node::List(open.pop().unwrap_or_default()),
            Event::MappingEnd => {
                let mut nodes = open.pop().unwrap_or_default().into_iter();
                let mut pairs = Vec::new();
                while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
                    pairs.push((key, value));
                }
                Node::Map(pairs)
            }
            Event::Alias(_) => return Err(format!("line {}: aliases are not read here", span.start.line())),
            _ => continue,
        };
        match open.last_mut() {
            Some(parent) => parent.push(done),
            None => documents.push(done),
        }
    }
    Ok(documents)
}

fn scalar(text: &str, style: ScalarStyle) -> Node {
    if style != ScalarStyle::Plain {
        return Node::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" => Node::Null,
        "true" => Node::Bool(true),
        "false" => Node::Bool(false),
        _ => text.parse().map_or_else(|_| Node::Text(text.to_owned()), Node::Int),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_text_and_documents_are_apart() {
        let read = documents("a: {b: [1, '1', null, true]}\n---\n\"\\u00c8\\0\": x # why\n").unwrap();
        let text = |text: &str| Node::Text(text.to_owned());
        let list = Node::List(vec![Node::Int(1), text("1"), Node::Null, Node::Bool(true)]);
        assert_eq!(
            read,
            [
                Node::Map(vec![(text("a"), Node::Map(vec![(text("b"), list)]))]),
                Node::Map(vec![(text("\u{c8}\0"), text("x"))]),
            ]
        );
    }
}
