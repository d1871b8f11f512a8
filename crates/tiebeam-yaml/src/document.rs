//! YAML as a tree in which every node knows its place.
//!
//! Scalars mean what they mean to Beam (PyYAML): `yes`, `no`, `on` and `off` are booleans, `0x10` and `0o7` integers,
//! `<<` merges. What is bounded: size, depth, and the nodes that aliases unfold to. Keys may not come twice.

use std::sync::Arc;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span as ParserSpan, Tag};

use crate::diagnostic::Diagnostic;
use crate::source::{Source, Span};

/// The longest text that is parsed, in bytes.
pub const MAX_BYTES: usize = 8 << 20;
/// The most nodes that a document unfolds to, aliases included.
pub const MAX_NODES: usize = 500_000;
/// The deepest nesting.
pub const MAX_DEPTH: usize = 96;

/// A node with its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it stands. A block collection's span is that of its first token.
    pub span: Span,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// `null`, `~` or nothing.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number with a point or an exponent.
    Float(f64),
    /// A text.
    String(Arc<str>),
    /// A sequence.
    List(Arc<[Node]>),
    /// A mapping, in the order of the file.
    Map(Arc<[Entry]>),
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key as it is written.
    pub key: Arc<str>,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

/// Equality of content; the place does not count.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl Node {
    /// The text of a string.
    pub fn as_str(&self) -> Option<&Arc<str>> {
        match &self.content {
            Content::String(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.content {
            Content::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a mapping.
    pub fn as_map(&self) -> Option<&[Entry]> {
        match &self.content {
            Content::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entry of a key, if this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.as_map()?.iter().find(|entry| &*entry.key == key)
    }

    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// What it is, for people: `a string`, `a list`.
    pub fn kind(&self) -> &'static str {
        match &self.content {
            Content::Null => "nothing",
            Content::Bool(_) => "a boolean",
            Content::Int(_) => "an integer",
            Content::Float(_) => "a number",
            Content::String(_) => "a string",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }

    fn size(&self) -> usize {
        match &self.content {
            Content::List(items) => 1 + items.iter().map(Node::size).sum::<usize>(),
            Content::Map(entries) => 1 + entries.iter().map(|entry| 1 + entry.value.size()).sum::<usize>(),
            _ => 1,
        }
    }
}

/// Parses the one document of `source`.
///
/// # Errors
/// The first syntax error, duplicate key, foreign tag or exceeded bound, with its place.
pub fn parse(source: &Source) -> Result<Node, Diagnostic> {
    let text = source.text();
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than the {MAX_BYTES} that are read", text.len());
        return Err(Diagnostic::new("TB0217", Span::default(), message));
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    // A long expression may stand before a colon; YAML's own limit of 1024 is kept.
    let mut loader = Loader { text, stack: Vec::new(), anchors: Vec::new(), nodes: 0, document: None };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| {
            let at = error.marker().byte_offset().unwrap_or(0).min(text.len());
            let line = source.line_at(Span::new(at, at).start);
            // An error at the end of a line is shown at its last character.
            let end = line.1 as usize + line.0.len();
            let span =
                if at >= end && !line.0.is_empty() { Span::new(end - 1, end) } else { Span::new(at, at + 1) };
            Diagnostic::new("TB0236", span, format!("not valid YAML: {}", error.info()))
        })?;
        loader.event(event, place(span))?;
    }
    Ok(loader.document.unwrap_or(Node { span: Span::default(), content: Content::Null }))
}

fn place(span: ParserSpan) -> Span {
    let (start, end) = (span.start.byte_offset().unwrap_or(0), span.end.byte_offset().unwrap_or(0));
    Span::new(start, end)
}

struct Loader<'a> {
    text: &'a str,
    stack: Vec<Open>,
    anchors: Vec<Option<Node>>,
    nodes: usize,
    document: Option<Node>,
}

struct Open {
    span: Span,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(Arc<str>, Span)>, merges: Vec<Node> },
}

impl Loader<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let content = scalar(&text, style, tag.as_deref(), span)?;
                // A key is kept as it is written, whatever type it would be as a value.
                if let Some(Open { kind: OpenKind::Map { key: key @ None, .. }, .. }) = self.stack.last_mut()
                {
                    let written: Arc<str> =
                        if content == Content::Null { "null".into() } else { (&*text).into() };
                    *key = Some((written, span));
                    self.count(1, span)?;
                    return Ok(());
                }
                self.finish(Node { span, content }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), "seq", span)?;
                self.open(Open { span, anchor, kind: OpenKind::List(Vec::new()) })
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), "map", span)?;
                let kind = OpenKind::Map { entries: Vec::new(), key: None, merges: Vec::new() };
                self.open(Open { span, anchor, kind })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => {
                let node = self.anchors.get(anchor).cloned().flatten().ok_or_else(|| {
                    Diagnostic::new("TB0236", span, "an alias inside of what it stands for")
                })?;
                self.count(node.size(), span)?;
                self.place(Node { span, ..node })
            }
            Event::DocumentStart(..) if self.document.is_some() => {
                Err(Diagnostic::new("TB0236", span, "a second document: a pipeline file holds one"))
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, n: usize, span: Span) -> Result<(), Diagnostic> {
        self.nodes = self.nodes.saturating_add(n);
        if self.nodes > MAX_NODES {
            let message = format!("the document unfolds to more than {MAX_NODES} nodes");
            return Err(Diagnostic::new("TB0217", span, message));
        }
        Ok(())
    }

    fn open(&mut self, open: Open) -> Result<(), Diagnostic> {
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(Diagnostic::new("TB0217", open.span, message));
        }
        if let Some(Open { kind: OpenKind::Map { key: None, .. }, .. }) = self.stack.last() {
            return Err(Diagnostic::new("TB0236", open.span, "a key of a mapping must be a scalar"));
        }
        self.stack.push(open);
        Ok(())
    }

    fn close(&mut self, end: Span) -> Result<(), Diagnostic> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        // Flow collections are known by their brackets; blocks end where the next token begins, which says nothing.
        let flow = matches!(self.text.as_bytes().get(open.span.start as usize), Some(b'{' | b'['));
        let content = match open.kind {
            OpenKind::List(items) => Content::List(items.into()),
            OpenKind::Map { entries, merges, .. } => Content::Map(merge(entries, merges).into()),
        };
        let span = match (&content, flow) {
            (_, true) => open.span.to(end),
            (Content::Map(entries), false) => {
                entries.first().map_or(open.span, |entry| open.span.to(entry.key_span))
            }
            _ => Span { end: open.span.end.max(open.span.start + 1), ..open.span },
        };
        self.finish(Node { span, content }, open.anchor)
    }

    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Diagnostic> {
        self.count(1, node.span)?;
        if anchor > 0 {
            if self.anchors.len() <= anchor {
                self.anchors.resize(anchor + 1, None);
            }
            self.anchors[anchor] = Some(node.clone());
        }
        self.place(node)
    }

    fn place(&mut self, node: Node) -> Result<(), Diagnostic> {
        match self.stack.last_mut().map(|open| &mut open.kind) {
            None => self.document = Some(node),
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Map { entries, key, merges }) => match key.take() {
                None => {
                    return Err(Diagnostic::new("TB0236", node.span, "a key of a mapping must be a scalar"));
                }
                Some((key, key_span)) if &*key == "<<" => match &node.content {
                    Content::Map(_) => merges.push(node),
                    Content::List(items) if items.iter().all(|item| item.as_map().is_some()) => {
                        merges.extend(items.iter().cloned());
                    }
                    _ => {
                        let message =
                            format!("`<<` wants a mapping or a list of mappings, got {}", node.kind());
                        return Err(Diagnostic::new("TB0236", key_span, message));
                    }
                },
                Some((key, key_span)) => {
                    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                        let line = 1 + self.text[..first.key_span.start as usize].matches('\n').count();
                        return Err(Diagnostic::new("TB0216", key_span, format!("key `{key}` comes twice"))
                            .label(format!("first given on line {line}")));
                    }
                    entries.push(Entry { key, key_span, value: node });
                }
            },
        }
        Ok(())
    }
}

/// A mapping's own entries, then those of the merged ones that it does not have.
fn merge(mut entries: Vec<Entry>, merges: Vec<Node>) -> Vec<Entry> {
    for merged in &merges {
        for entry in merged.as_map().unwrap_or(&[]) {
            if !entries.iter().any(|own| own.key == entry.key) {
                entries.push(entry.clone());
            }
        }
    }
    entries
}

fn refuse_tag(tag: Option<&Tag>, wanted: &str, span: Span) -> Result<(), Diagnostic> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(wanted) => {
            Err(Diagnostic::new("TB0236", span, format!("tag `{}` is not supported", tag.original()))
                .help("only YAML's own tags are read: !!str, !!int, !!float, !!bool, !!null, !!seq, !!map"))
        }
        _ => Ok(()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Content, Diagnostic> {
    if let Some(tag) = tag {
        let misfit = || Diagnostic::new("TB0236", span, format!("`{text}` is no {}", tag.original()));
        return match tag.core_suffix() {
            Some("str") => Ok(Content::String(text.into())),
            Some("int") => integer(text, span)?.ok_or_else(misfit),
            Some("float") => match (integer(text, span)?, float(text)) {
                (_, Some(float)) => Ok(float),
                (Some(Content::Int(int)), None) => Ok(Content::Float(int as f64)),
                _ => Err(misfit()),
            },
            Some("bool") => boolean(text).ok_or_else(misfit),
            Some("null") => null(text).ok_or_else(misfit),
            _ => refuse_tag(Some(tag), "str", span).map(|()| Content::String(text.into())),
        };
    }
    if style != ScalarStyle::Plain {
        return Ok(Content::String(text.into()));
    }
    if let Some(content) = null(text).or_else(|| boolean(text)) {
        return Ok(content);
    }
    if let Some(content) = integer(text, span)? {
        return Ok(content);
    }
    Ok(float(text).unwrap_or_else(|| Content::String(text.into())))
}

fn null(text: &str) -> Option<Content> {
    matches!(text, "" | "~" | "null" | "Null" | "NULL").then_some(Content::Null)
}

fn boolean(text: &str) -> Option<Content> {
    let value = match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => true,
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => false,
        _ => return None,
    };
    Some(Content::Bool(value))
}

fn integer(text: &str, span: Span) -> Result<Option<Content>, Diagnostic> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(None);
    }
    let plain = digits.replace('_', "");
    let (radix, plain) = match plain.as_str() {
        p if p.starts_with("0x") => (16, &p[2..]),
        p if p.starts_with("0o") => (8, &p[2..]),
        p if p.starts_with("0b") => (2, &p[2..]),
        p if p.len() > 1 && p.starts_with('0') => (8, &p[1..]),
        p => (10, p),
    };
    if plain.is_empty() || !plain.chars().all(|c| c.is_digit(radix)) {
        return Ok(None);
    }
    let signed = format!("{}{plain}", if negative { "-" } else { "" });
    match i64::from_str_radix(&signed, radix) {
        Ok(value) => Ok(Some(Content::Int(value))),
        Err(_) => Err(Diagnostic::new("TB0208", span, format!("`{text}` is out of range for int64"))
            .help("write it in quotes if it is a text, with `.0` if it is a number")),
    }
}

fn float(text: &str) -> Option<Content> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let value = match unsigned {
        ".inf" | ".Inf" | ".INF" => f64::INFINITY,
        ".nan" | ".NaN" | ".NAN" => return Some(Content::Float(f64::NAN)),
        _ => {
            let starts = unsigned.starts_with(|c: char| c.is_ascii_digit())
                || (unsigned.starts_with('.') && unsigned[1..].starts_with(|c: char| c.is_ascii_digit()));
            let made = unsigned
                .chars()
                .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-' | '_'));
            if !starts || !made || !unsigned.contains(['.', 'e', 'E']) {
                return None;
            }
            unsigned.replace('_', "").parse().ok()?
        }
    };
    Some(Content::Float(if text.starts_with('-') { -value } else { value }))
}

#[cfg(test)]
mod tests;
