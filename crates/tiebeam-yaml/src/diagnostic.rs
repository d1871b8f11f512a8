//! Mistakes in a pipeline file: collected, then shown together, each with its place.

use std::fmt::{self, Write as _};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tiebeam_core::error::{Error, ErrorKind};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::source::{Source, Span};

/// One mistake. Small, since most functions that may fail return one.
#[derive(Debug, Clone)]
pub struct Diagnostic(Box<Mistake>);

/// What a [`Diagnostic`] tells.
#[derive(Debug, Clone)]
pub struct Mistake {
    /// The stable code, such as `TB0204`.
    pub code: &'static str,
    /// What kind of mistake; exit codes follow from it.
    pub kind: ErrorKind,
    /// What was seen and what was wanted, lower case, without a final dot.
    pub message: String,
    /// Where, if it has a place in the file.
    pub span: Option<Span>,
    /// What is said at the place itself.
    pub label: Option<String>,
    /// More lines about it.
    pub notes: Vec<String>,
    /// What to do.
    pub help: Option<String>,
    /// The text that the place is in, where it is another than the report's: the file as it was before jinja.
    pub source: Option<Arc<Source>>,
}

impl Deref for Diagnostic {
    type Target = Mistake;

    fn deref(&self) -> &Mistake {
        &self.0
    }
}

impl DerefMut for Diagnostic {
    fn deref_mut(&mut self) -> &mut Mistake {
        &mut self.0
    }
}

impl Diagnostic {
    /// A mistake at `span`.
    pub fn new(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Diagnostic(Box::new(Mistake {
            code,
            kind: ErrorKind::InvalidPipeline,
            message: message.into(),
            span: Some(span),
            label: None,
            notes: Vec::new(),
            help: None,
            source: None,
        }))
    }

    /// An error of another crate, at `span`.
    pub fn of(error: &Error, span: Span) -> Self {
        let mut diagnostic = Diagnostic::new(error.code(), span, error.message());
        diagnostic.kind = error.kind();
        diagnostic.help = error.help().map(str::to_owned);
        diagnostic.notes.extend(error.place().map(|place| format!("at {place}")));
        diagnostic.notes.extend(error.causes().into_iter().map(|cause| format!("caused by: {cause}")));
        diagnostic
    }

    /// What is said at the place itself.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// One more line.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// What to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// "did you mean", if there is a name near enough.
    #[must_use]
    pub fn did_you_mean<'a>(self, seen: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        match crate::suggest::nearest(seen, names) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }
}

/// All mistakes of one file.
#[derive(Debug, Clone)]
pub struct Report {
    source: Arc<Source>,
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// A report of those mistakes, in the order of their places; the same mistake at the same place is told once.
    pub fn new(source: Arc<Source>, mut diagnostics: Vec<Diagnostic>) -> Self {
        let line = |d: &Diagnostic| {
            let source = d.source.as_ref().unwrap_or(&source);
            d.span.map(|span| (source.position(span.start).line, span.start, span.end))
        };
        diagnostics.sort_by_key(line);
        diagnostics.dedup_by(|a, b| a.span == b.span && a.code == b.code && a.message == b.message);
        Report { source, diagnostics }
    }

    /// The file.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The mistakes.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// The mistakes as people read them, in colours or without.
    pub fn render(&self, colours: bool) -> String {
        let mut out = String::new();
        for (i, diagnostic) in self.diagnostics.iter().enumerate() {
            if i > 0 {
                out.push('\n');
            }
            let source = diagnostic.source.as_ref().unwrap_or(&self.source);
            render(source, diagnostic, Style { colours }, &mut out);
        }
        out
    }

    /// The first mistake as an error, with the rest counted.
    pub fn to_error(&self) -> Error {
        let Some(first) = self.diagnostics.first() else {
            return Error::internal("a report without mistakes");
        };
        let place = match first.span {
            Some(span) => {
                let source = first.source.as_ref().unwrap_or(&self.source);
                let position = source.position(span.start);
                format!("{}:{}:{}: ", source.name(), position.line, position.column)
            }
            None => String::new(),
        };
        let more = match self.diagnostics.len() - 1 {
            0 => String::new(),
            1 => " (and 1 more mistake)".to_owned(),
            n => format!(" (and {n} more mistakes)"),
        };
        let error = Error::new(first.kind, first.code, format!("{place}{}{more}", first.message));
        match &first.help {
            Some(help) => error.with_help(help),
            None => error,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

#[derive(Clone, Copy)]
struct Style {
    colours: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn error(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn frame(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn help(self, text: &str) -> String {
        self.paint("36", text)
    }
}

/// The longest line that is shown whole; longer ones are cut around the place.
const WIDEST: usize = 120;

fn render(source: &Source, diagnostic: &Diagnostic, style: Style, out: &mut String) {
    let title = style.error(&format!("error[{}]", diagnostic.code));
    let _ = writeln!(out, "{title}: {}", printable(&diagnostic.message));
    if let Some(span) = diagnostic.span {
        snippet(source, span, diagnostic.label.as_deref(), style, out);
    }
    for note in &diagnostic.notes {
        let _ = writeln!(out, "  {}", printable(note));
    }
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(out, "  {}: {}", style.help("help"), printable(help));
    }
}

fn snippet(source: &Source, span: Span, label: Option<&str>, style: Style, out: &mut String) {
    let position = source.position(span.start);
    let number = position.line.to_string();
    let gutter = " ".repeat(number.len() + 1);
    let place = format!("{}:{}:{}", source.name(), position.line, position.column);
    let _ = writeln!(out, "{gutter}{}[{place}]", style.frame("╭─"));

    let (line, start) = source.line_at(span.start);
    let from = (span.start - start) as usize;
    let to = ((span.end.max(span.start) - start) as usize).min(line.len()).max(from);
    let (before, marked, after) = cut(line, from, to);
    let _ = writeln!(out, "{} {} {before}{marked}{after}", style.frame(&number), style.frame("│"));

    let indent = " ".repeat(before.width());
    let width = marked.width().max(1);
    let dot = style.frame("·");
    match label {
        Some(label) => {
            let middle = width / 2;
            let line = format!("{}┬{}", "─".repeat(middle), "─".repeat(width - middle - 1));
            let _ = writeln!(out, "{gutter}{dot} {indent}{}", style.error(&line));
            let pointer = format!("╰── {}", printable(label));
            let _ = writeln!(out, "{gutter}{dot} {indent}{}{}", " ".repeat(middle), style.error(&pointer));
        }
        None => {
            let _ = writeln!(out, "{gutter}{dot} {indent}{}", style.error(&"─".repeat(width)));
        }
    }
    let _ = writeln!(out, "{gutter}{}", style.frame("╰────"));
}

/// The line before, in and after the marked bytes, without control characters, and short enough for a terminal.
fn cut(line: &str, from: usize, to: usize) -> (String, String, String) {
    let part = |range: std::ops::Range<usize>| printable(line.get(range).unwrap_or(""));
    let (mut before, mut marked, mut after) = (part(0..from), part(from..to), part(to..line.len()));
    if before.width() + marked.width() + after.width() > WIDEST {
        if marked.width() > WIDEST / 2 {
            marked = format!("{}…", take_width(marked.chars(), WIDEST / 2));
        }
        let room = WIDEST - marked.width();
        if before.width() > room / 2 {
            let tail: String = take_width(before.chars().rev(), room / 2).chars().rev().collect();
            before = format!("…{tail}");
        }
        let room = WIDEST.saturating_sub(before.width() + marked.width());
        if after.width() > room {
            after = format!("{}…", take_width(after.chars(), room));
        }
    }
    (before, marked, after)
}

fn take_width(chars: impl Iterator<Item = char>, limit: usize) -> String {
    let mut width = 0;
    chars
        .take_while(|c| {
            width += c.width().unwrap_or(0);
            width <= limit
        })
        .collect()
}

/// Text of a file or of data, safe to print on a terminal: control characters become visible.
pub(crate) fn printable(text: &str) -> String {
    if !text.contains(|c: char| c.is_control()) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\r' => out.push(' '),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, marked: &str, label: Option<&str>, expected: Expect) {
        let at = text.find(marked).unwrap();
        let mut diagnostic =
            Diagnostic::new("TB0204", Span::new(at, at + marked.len()), "unknown column `col9`");
        diagnostic.label = label.map(str::to_owned);
        let diagnostic =
            diagnostic.note("columns here: col1 (string), col2 (int64)").help("did you mean `col2`?");
        let report = Report::new(Arc::new(Source::new("score.yaml", text)), vec![diagnostic]);
        expected.assert_eq(&report.render(false));
    }

    #[test]
    fn looks_as_the_command_line_promises() {
        check(
            &format!("{}        n:  col9 + 1\n", "\n".repeat(13)),
            "col9",
            Some("not produced by `Create`"),
            expect![[r#"
                error[TB0204]: unknown column `col9`
                   ╭─[score.yaml:14:13]
                14 │         n:  col9 + 1
                   ·             ──┬─
                   ·               ╰── not produced by `Create`
                   ╰────
                  columns here: col1 (string), col2 (int64)
                  help: did you mean `col2`?
            "#]],
        );
    }

    #[test]
    fn wide_characters_and_tabs_keep_the_mark_in_place() {
        check(
            "\t名前: col9",
            "col9",
            None,
            expect![[r#"
                error[TB0204]: unknown column `col9`
                  ╭─[score.yaml:1:6]
                1 │  名前: col9
                  ·        ────
                  ╰────
                  columns here: col1 (string), col2 (int64)
                  help: did you mean `col2`?
            "#]],
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = format!("{} col9 {}", "a".repeat(500), "b".repeat(500));
        check(
            &text,
            "col9",
            Some("here"),
            expect![[r#"
                error[TB0204]: unknown column `col9`
                  ╭─[score.yaml:1:502]
                1 │ …aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa col9 bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb…
                  ·                                                            ──┬─
                  ·                                                              ╰── here
                  ╰────
                  columns here: col1 (string), col2 (int64)
                  help: did you mean `col2`?
            "#]],
        );
    }

    #[test]
    fn one_error_stands_for_all() {
        let source = Arc::new(Source::new("f.yaml", "a: 1\nb: 2\n"));
        let second = Diagnostic::new("TB0231", Span::new(5, 6), "unknown key `b`").help("did you mean `a`?");
        let first = Diagnostic::new("TB0231", Span::new(0, 1), "unknown key `a`");
        let report = Report::new(source, vec![second.clone(), first, second]);
        assert_eq!(report.diagnostics().len(), 2);
        let error = report.to_error();
        assert_eq!((error.code(), error.kind()), ("TB0231", ErrorKind::InvalidPipeline));
        assert_eq!(error.message(), "f.yaml:1:1: unknown key `a` (and 1 more mistake)");
    }
}
