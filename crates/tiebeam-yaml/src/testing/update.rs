//! Expected rows of tests, written anew: `tiebeam test --update`.

use std::sync::{Arc, Mutex, PoisonError};

use tiebeam_graph::Graph;

use super::{Checking, load};
use crate::diagnostic::{Diagnostic, Report};
use crate::environment::Environment;
use crate::source::Span;
use crate::template::Variables;

/// A test that looks at its rows instead of checking them.
pub struct Look {
    /// Its name.
    pub name: String,
    /// What it runs; when it has run, the rows are there.
    pub graph: Arc<Graph>,
    /// Where each expectation's `elements` stand: the key and the value.
    pub(super) places: Vec<(Span, Span)>,
    pub(super) seen: Seen,
}

/// Rows as JSON, with the numbers of their expectations.
pub(super) type Seen = Arc<Mutex<Vec<(usize, String)>>>;

/// An environment that keeps what expectations see.
pub(super) fn watching(seen: &Seen) -> Environment {
    let seen = seen.clone();
    let log = move |_, line: &str| {
        if let Some((number, row)) = line.strip_prefix(MARK).and_then(|rest| rest.split_once(' '))
            && let Ok(number) = number.parse()
        {
            seen.lock().unwrap_or_else(PoisonError::into_inner).push((number, row.to_owned()));
        }
    };
    Environment::new(log, |_| Ok(()))
}

/// What a row's line begins with.
pub(super) const MARK: &str = "\u{f5a02}";

/// Loads the tests of a file to look at their rows.
///
/// # Errors
/// As [`load_tests`](super::load_tests); a file with jinja cannot be written anew.
pub fn load_looks(name: &str, text: &str, variables: &Variables) -> Result<Vec<Look>, Report> {
    let (tests, source) = load(name, text, variables, &Checking::Look)?;
    if &**source.text() != text {
        let problem = Diagnostic::new("TB0219", Span::default(), "a file with jinja in it cannot be updated");
        return Err(Report::new(source, vec![problem.help("correct its expectations by hand")]));
    }
    Ok(tests
        .into_iter()
        .map(|(test, places, seen)| Look { name: test.name, graph: test.graph, places, seen })
        .collect())
}

/// The text with the rows that the tests saw in the place of those that it expects.
pub fn updated(text: &str, looks: &[Look]) -> String {
    let mut changes: Vec<(std::ops::Range<usize>, String)> = Vec::new();
    for look in looks {
        let seen = look.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, (key, value)) in look.places.iter().enumerate() {
            let mut rows: Vec<&str> =
                seen.iter().filter(|(of, _)| *of == number).map(|(_, row)| row.as_str()).collect();
            rows.sort_unstable();
            changes.push(change(text, *key, *value, &rows));
        }
    }
    changes.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let mut out = text.to_owned();
    for (range, rows) in changes {
        out.replace_range(range, &rows);
    }
    out
}

/// What becomes of an `elements`: JSON is YAML too.
fn change(text: &str, key: Span, value: Span, rows: &[&str]) -> (std::ops::Range<usize>, String) {
    let start = key.range().end;
    // Behind the colon.
    let start = text[start..].find(':').map_or(start, |at| start + at + 1);
    let value = value.range();
    if text[value.start..].starts_with('[') {
        let end = closing(&text[value.start..]).map_or(value.end, |length| value.start + length);
        return (value.start..end, format!("[{}]", rows.join(", ")));
    }
    let line = text[..key.range().start].rfind('\n').map_or(0, |at| at + 1);
    let column = key.range().start - line;
    let end = block_end(text, start, column);
    let indent = " ".repeat(column + 2);
    let new = if rows.is_empty() {
        " []\n".to_owned()
    } else {
        rows.iter().fold("\n".to_owned(), |out, row| format!("{out}{indent}- {row}\n"))
    };
    (start..end, new)
}

/// The length of a list in brackets.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), c) if c == open && !escaped => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + c.len_utf8());
                }
            }
            _ => {}
        }
        escaped = false;
    }
    None
}

/// Where the value of a key in that column ends: before the next line that is not part of it.
fn block_end(text: &str, start: usize, column: usize) -> usize {
    let mut at = text[start..].find('\n').map_or(text.len(), |end| start + end + 1);
    let mut end = at;
    while at < text.len() {
        let line = text[at..].split_inclusive('\n').next().unwrap_or_default();
        let rest = line.trim_start_matches(' ');
        let indent = line.len() - rest.len();
        let blank = rest.trim().is_empty() || rest.starts_with('#');
        let item = rest.starts_with("- ") || rest.trim_end() == "-";
        if !blank && (indent < column || (indent == column && !item)) {
            break;
        }
        at += line.len();
        // Blank lines and comments at the end belong to what follows.
        if !blank {
            end = at;
        }
    }
    end
}
