//! Rows that fail: to the error output where there is one, the end of the job where not.

use std::sync::Arc;

use tiebeam_core::coder::row_coder;
use tiebeam_core::row::{Row, Schema, Value};
use tiebeam_core::{DoFn, ElementContext, Error, ErrorKind, Failure, Output, OutputTag, Result};
use tiebeam_graph::{Arity, MultiParDo, PCollection, ParDo};
use tiebeam_transforms::bound_failures;

use crate::build::expand;
use crate::expression::{Expression, Raised};

/// Where failing rows go.
#[derive(Clone)]
pub struct ErrorOutput {
    tag: OutputTag<Row>,
    schema: Arc<Schema>,
    /// The part of all rows that may fail.
    threshold: Option<f64>,
}

impl ErrorOutput {
    /// An output of that name; `schema` is [`error_schema`](crate::maker::error_schema).
    pub fn new(name: &str, schema: Arc<Schema>) -> Self {
        ErrorOutput { tag: OutputTag::new(name), schema, threshold: None }
    }

    /// The job ends where a larger part of the rows fails.
    #[must_use]
    pub fn within(self, threshold: Option<f64>) -> Self {
        ErrorOutput { threshold, ..self }
    }

    /// The row of a failed element.
    pub fn row(&self, element: Value, message: &str, stack: &str) -> Row {
        let values = vec![element, Value::String(message.into()), Value::String(stack.into())];
        Row::new(self.schema.clone(), values)
    }

    /// The row of an element that another crate's step failed on.
    pub fn of_failure(&self, element: Value, failure: &Failure) -> Row {
        let mut stack = format!("error[{}]: {}: {}", failure.code, failure.stage, failure.message);
        if let Some(place) = &failure.source {
            stack.push_str(&format!("\n  at {place}"));
        }
        for cause in &failure.causes {
            stack.push_str(&format!("\n  caused by: {cause}"));
        }
        self.row(element, &failure.message, &stack)
    }

    /// The part of all rows that may fail.
    pub fn threshold(&self) -> Option<f64> {
        self.threshold
    }

    /// The schema of the rows.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }
}

/// Why a row failed: the message, the trace, and what to do.
pub struct Failing {
    message: String,
    stack: String,
}

impl Failing {
    /// An exception of an expression.
    pub fn raised(expression: &Expression, raised: &Raised) -> Self {
        Failing { message: raised.message.clone(), stack: expression.trace(raised) }
    }

    /// An exception by itself.
    pub fn plain(raised: &Raised) -> Self {
        Failing {
            message: raised.message.clone(),
            stack: format!("{}: {}", raised.exception, raised.message),
        }
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The trace.
    pub fn stack(&self) -> &str {
        &self.stack
    }

    /// As the error that ends a job.
    pub fn into_error(self) -> Error {
        let mut lines = self.stack.lines();
        let first = lines.next().unwrap_or_default().to_owned();
        let place: Vec<&str> = lines.map(str::trim).collect();
        let message = if place.is_empty() { first } else { format!("{first} ({})", place.join(" ")) };
        // The same row fails again.
        Error::new(ErrorKind::UserCode, "TB0225", message)
            .with_retryable(false)
            .with_help("send failing rows to an output: `error_handling: {output: errors}`")
    }
}

/// What is done with each row.
pub trait RowStep: Clone + Send + Sync + 'static {
    /// One row.
    ///
    /// # Errors
    /// The row, and why it failed.
    fn step(
        &mut self,
        row: Row,
        cx: &ElementContext<'_>,
        out: &mut Output<Row>,
    ) -> Result<(), (Row, Failing)>;
}

#[derive(Clone)]
struct TryRows<S> {
    step: S,
    errors: Option<ErrorOutput>,
}

impl<S: RowStep> DoFn for TryRows<S> {
    type In = Row;
    type Out = Row;

    fn process(&mut self, row: Row, cx: &ElementContext<'_>, out: &mut Output<Row>) -> Result<()> {
        match (self.step.step(row, cx, out), &self.errors) {
            (Ok(()), _) => Ok(()),
            (Err((row, failing)), Some(errors)) => {
                out.emit_to(&errors.tag, errors.row(Value::Row(row), &failing.message, &failing.stack));
                Ok(())
            }
            (Err((_, failing)), None) => Err(failing.into_error()),
        }
    }
}

/// Applies `step` to the rows of `input`, in a scope of that name; a row that fails ends the job.
pub fn each_row<S: RowStep>(
    input: &PCollection<Row>,
    label: &str,
    schema: Arc<Schema>,
    arity: Arity,
    step: S,
) -> PCollection<Row> {
    let par_do = ParDo::new(TryRows { step, errors: None }).with_coder(row_coder(schema)).with_arity(arity);
    input.step(label).apply(par_do)
}

/// Applies `step` to the rows of `input`: its results with `schema`, then the failed rows where there is an output for
/// them.
pub fn try_rows<S: RowStep>(
    input: PCollection<Row>,
    schema: Arc<Schema>,
    errors: Option<ErrorOutput>,
    arity: Arity,
    step: S,
) -> Vec<PCollection<Row>> {
    let par_do =
        ParDo::new(TryRows { step, errors: errors.clone() }).with_coder(row_coder(schema)).with_arity(arity);
    match errors {
        None => vec![expand(par_do, input)],
        Some(errors) => {
            let coder = row_coder(errors.schema.clone());
            let par_do: MultiParDo<Row, Row> = par_do.with_dead_letters(&errors.tag, coder);
            let outputs = expand(par_do, input.clone());
            let failed = outputs.get(&errors.tag);
            if let Some(threshold) = errors.threshold {
                bound_failures(&input, &failed, threshold);
            }
            vec![outputs.main.clone(), failed]
        }
    }
}
