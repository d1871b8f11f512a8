//! The text of a pipeline file and places in it.

use std::sync::Arc;

/// A stretch of a [`Source`], in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// The first byte inside.
    pub start: u32,
    /// The first byte after.
    pub end: u32,
}

impl Span {
    /// From byte offsets; those past four gigabytes are held there (no accepted file is that long).
    pub fn new(start: usize, end: usize) -> Self {
        let held = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Span { start: held(start), end: held(end.max(start)) }
    }

    /// The smallest span that covers both.
    #[must_use]
    pub fn to(self, other: Span) -> Self {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The bytes as a range.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The text that was parsed, with the name and the lines of the file that it came from.
///
/// After jinja, the text is not the file's: `origin` then tells the file's line for each line of the text.
#[derive(Debug, Clone)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
    lines: Vec<u32>,
    origin: Option<Vec<u32>>,
}

/// A place for people: both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line of the file.
    pub line: u32,
    /// The column in the text's line.
    pub column: u32,
}

impl Source {
    /// A file's own text.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let lines = std::iter::once(0).chain(starts).map(|i| Span::new(i, i).start).collect();
        Source { name: name.into(), text, lines, origin: None }
    }

    /// Tells, for each line of the text, the line of the file that it was made from, both counted from 1.
    #[must_use]
    pub fn with_origin(mut self, origin: Vec<u32>) -> Self {
        self.origin = Some(origin);
        self
    }

    /// The file's name, as it was given.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The text.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The text of a span; empty where the span is none of this text.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.range()).unwrap_or("")
    }

    fn line_index(&self, offset: u32) -> usize {
        self.lines.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// The text of the line that holds `offset`, and the offset of its first byte.
    pub fn line_at(&self, offset: u32) -> (&str, u32) {
        let start = self.lines.get(self.line_index(offset)).copied().unwrap_or(0);
        let rest = self.text.get(start as usize..).unwrap_or("");
        (rest.lines().next().unwrap_or(""), start)
    }

    /// Where `offset` stands.
    pub fn position(&self, offset: u32) -> Position {
        let index = self.line_index(offset);
        let start = self.lines.get(index).copied().unwrap_or(0);
        let before = self.text.get(start as usize..offset as usize).unwrap_or("");
        let line = match &self.origin {
            Some(origin) => origin.get(index).or(origin.last()).copied().unwrap_or(1),
            None => Span::new(index + 1, index + 1).start,
        };
        Position { line, column: Span::new(before.chars().count() + 1, 0).start }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one_and_in_characters() {
        let source = Source::new("f", "ab\näöü x\n");
        let at = source.text().find('x').unwrap() as u32;
        assert_eq!(source.position(at), Position { line: 2, column: 5 });
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.line_at(at), ("äöü x", 3));
        assert_eq!(source.position(1_000), Position { line: 3, column: 1 });
    }

    #[test]
    fn lines_after_jinja_are_those_of_the_file() {
        let source = Source::new("f", "a\nb\nb\n").with_origin(vec![1, 3, 3]);
        assert_eq!(source.position(4).line, 3);
    }
}
