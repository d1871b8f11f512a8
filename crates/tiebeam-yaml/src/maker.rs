//! What a transform's constructor works with: its configuration, its inputs, and a place for its mistakes.

use std::sync::Arc;

use tiebeam_core::Error;
use tiebeam_core::row::{FieldType, Schema, TypeKind};

use crate::catalog::{self, check_keys};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Entry, Node};
use crate::environment::Environment;
use crate::expression::{Expression, Form};
use crate::plan::Collection;
use crate::source::{Source, Span};
use crate::syntax::Step;

/// What a transform's constructor works with.
pub struct Maker<'a> {
    /// The transform.
    pub step: &'a Step,
    /// What it reads, inputs of several references flattened.
    pub inputs: Vec<Collection>,
    /// The names of the inputs; none where they are any number without names.
    pub names: Vec<Arc<str>>,
    /// Its mistakes.
    pub problems: &'a mut Vec<Diagnostic>,
    /// The file.
    pub source: &'a Source,
    /// What it may use of the world.
    pub environment: &'a Environment,
}

impl Maker<'_> {
    /// The value of a key; none where it is not given or null.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let node = self.step.config.as_ref()?.get(key)?;
        (node.content != Content::Null).then_some(node)
    }

    /// The entry of a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.step.config.as_ref()?.entry(key)
    }

    /// The text of a key.
    pub fn text(&self, key: &str) -> Option<Arc<str>> {
        self.get(key)?.as_str().cloned()
    }

    /// The boolean of a key, false where it is not given.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.get(key).map(|node| &node.content), Some(Content::Bool(true)))
    }

    /// Where a key's value stands; the transform's type where it is not given.
    pub fn span(&self, key: &str) -> Span {
        self.get(key).map_or(self.step.kind.span, |node| node.span)
    }

    /// Notes a mistake.
    pub fn problem(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    /// Notes an error of another crate at a place of the file.
    pub fn refuse(&mut self, error: &Error, span: Span) {
        self.problems.push(Diagnostic::of(error, span));
    }

    /// The only input; the planner saw to it that there is one.
    pub fn input(&self) -> Option<Collection> {
        self.inputs.first().cloned()
    }

    /// As [`errors`](Maker::errors), with the part of all rows that may fail.
    pub fn errors_within(&mut self, element: FieldType) -> Option<(Arc<str>, Arc<Schema>, Option<f64>)> {
        let threshold = self.threshold().cloned();
        let part = match threshold.as_ref().map(|node| &node.content) {
            Some(Content::Float(part)) => Some(*part),
            Some(Content::Int(part)) => Some(*part as f64),
            _ => None,
        };
        if let Some(node) = threshold.filter(|_| !part.is_some_and(|part| (0.0..=1.0).contains(&part))) {
            let problem = Diagnostic::new("TB0208", node.span, "`threshold` is a number from 0 to 1");
            self.problems.push(problem.help("0.1 ends the pipeline when more than a tenth of the rows fail"));
        }
        let (name, schema) = self.error_output(element)?;
        Some((name, schema, part))
    }

    fn threshold(&self) -> Option<&Node> {
        self.step.error_handling()?.value.get("threshold")
    }

    /// The output that failing rows go to, and its schema. Notes what is wrong with `error_handling`.
    pub fn errors(&mut self, element: FieldType) -> Option<(Arc<str>, Arc<Schema>)> {
        if let Some(threshold) = self.threshold() {
            let message = format!("`threshold` is not available for `{}`", self.step.kind.text);
            let problem = Diagnostic::new("TB0219", threshold.span, message);
            self.problems
                .push(problem.help("bound the errors of the whole job: `tiebeam run --max-dead-letters N`"));
        }
        self.error_output(element)
    }

    fn error_output(&mut self, element: FieldType) -> Option<(Arc<str>, Arc<Schema>)> {
        let handling = self.step.error_handling()?;
        let entries = handling.value.as_map()?;
        let known: Vec<&Entry> = entries.iter().filter(|entry| &*entry.key != "threshold").collect();
        let keys =
            [catalog::Key::required("output", catalog::Wants::Text, "the name of the output of failed rows")];
        let known: Vec<Entry> = known.into_iter().cloned().collect();
        check_keys(&known, &keys, "`error_handling`", handling.key_span, self.problems);
        let name = self.step.error_output()?;
        Some((name.text, error_schema(element)))
    }

    /// Parses and checks an expression that stands in the file; notes what is wrong with it, there.
    pub fn expression(
        &mut self,
        form: Form,
        node: &Node,
        input: &Collection,
        declared: Option<FieldType>,
    ) -> Option<Expression> {
        let text = expression_text(node)?;
        let made = Expression::new(form, &text, &input.schema, Some(&input.producer), declared);
        self.relocate(made, node, &text)
    }

    /// As [`expression`](Maker::expression), for one that is only asked whether it is true.
    pub fn condition(&mut self, form: Form, node: &Node, input: &Collection) -> Option<Expression> {
        let text = expression_text(node)?;
        let made = Expression::condition(form, &text, &input.schema, Some(&input.producer));
        self.relocate(made, node, &text)
    }

    fn relocate(
        &mut self,
        made: Result<Expression, Vec<Diagnostic>>,
        node: &Node,
        text: &str,
    ) -> Option<Expression> {
        match made {
            Ok(expression) => Some(expression),
            Err(problems) => {
                for mut problem in problems {
                    problem.span = problem.span.map(|span| locate(self.source, node.span, text, span));
                    self.problems.push(problem);
                }
                None
            }
        }
    }
}

/// The text of an expression: YAML may have taken it for a number or a boolean.
pub fn expression_text(node: &Node) -> Option<Arc<str>> {
    Some(match &node.content {
        Content::String(text) => text.clone(),
        Content::Int(value) => value.to_string().into(),
        Content::Float(value) => format!("{value:?}").into(),
        Content::Bool(true) => "True".into(),
        Content::Bool(false) => "False".into(),
        _ => return None,
    })
}

/// Where a part of a string stands in the file, though YAML folded, unindented or unquoted it.
pub fn locate(source: &Source, whole: Span, text: &str, part: Span) -> Span {
    let written = source.slice(whole);
    let mut at = 0;
    let mut start = None;
    let mut end = written.len();
    for (i, c) in text.char_indices() {
        if i >= part.range().end {
            break;
        }
        // Indentation, line ends and quotes stand in the file but not in the text.
        let Some(found) = written[at..].find(c) else { return whole };
        let skipped = &written[at..at + found];
        if !c.is_whitespace() && !skipped.chars().all(|c| c.is_whitespace() || "'\"\\".contains(c)) {
            return whole;
        }
        at += found;
        if i >= part.range().start && start.is_none() {
            start = Some(at);
        }
        at += c.len_utf8();
        end = at;
    }
    match start {
        Some(start) => Span::new(whole.range().start + start, whole.range().start + end),
        None => whole,
    }
}

/// The schema of failed rows, as Beam has it: the element, the message, the trace.
pub fn error_schema(element: FieldType) -> Arc<Schema> {
    let text = || FieldType::required(TypeKind::String);
    Arc::new(Schema::of([("element", element), ("msg", text()), ("stack", text())]))
}
