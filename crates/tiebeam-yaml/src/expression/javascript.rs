//! Expressions and functions of JavaScript: run by `tiebeam-javascript`, their types told by the file.

use std::sync::Arc;

use tiebeam_core::row::{FieldType, Schema};
use tiebeam_javascript::{Exception, Program};

use super::check::Body;
use super::evaluate::Raised;
use super::{Expression, Form};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

impl Expression {
    /// JavaScript; `declared` is none where it is only asked whether it is true.
    pub(super) fn javascript(
        form: Form,
        text: &str,
        schema: &Arc<Schema>,
        declared: Option<Option<FieldType>>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let whole = Span::new(0, text.len());
        let bare = schema.index_of(text.trim()).filter(|_| form == Form::JavaScript);
        // A column's own name needs no JavaScript, and its type is known.
        if let (Some(index), Some(None)) = (bare, &declared)
            && let Some(column) = Expression::column(&schema.fields[index].name, schema)
        {
            return Ok(column);
        }
        let made = match form {
            Form::JavaScript => Program::expression(text, schema),
            _ => Program::function(text),
        };
        let program = made.map_err(|exception| {
            let span = place(text, &exception).unwrap_or(whole);
            vec![Diagnostic::new("TB0206", span, format!("{}: {}", exception.kind, exception.message))]
        })?;
        let output = match declared {
            None => None,
            Some(Some(declared)) => Some(declared),
            Some(None) => {
                let problem = Diagnostic::new("TB0223", whole, "the type of JavaScript cannot be told");
                return Err(vec![problem.help("add it: `{expression: …, output_type: string}`")]);
            }
        };
        Ok(Expression { text: text.into(), body: Body::JavaScript(program), locals: 0, output, bare: None })
    }
}

/// The line of the text that an exception names.
fn place(text: &str, exception: &Exception) -> Option<Span> {
    let index = usize::try_from(exception.line?).ok()?.checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(index).map(str::len).sum();
    let line = text.get(start..)?.lines().next()?;
    let blank = line.len() - line.trim_start().len();
    Some(Span::new(start + blank, start + line.trim_end().len()))
}

/// An exception as expressions raise it.
pub fn raised(exception: Exception) -> Raised {
    let place = exception.line.map(|line| format!(" (line {line})")).unwrap_or_default();
    Raised::new(&exception.kind, format!("{}{place}", exception.message))
}
