//! MatchAll: the files that patterns name.

use std::sync::Arc;

use tiebeam_core::coder::row_coder;
use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{DoFn, ElementContext, Output, Result};
use tiebeam_graph::{Arity, ParDo};

use super::fields::known_columns;
use crate::build::expand;
use crate::catalog::{Inputs, Key, TransformType, Wants};
use crate::diagnostic::Diagnostic;
use crate::expression::{columns, python_str};
use crate::plan::{MAIN, Made, Maker};

pub const TYPES: &[TransformType] = &[TransformType {
    name: "MatchAll",
    about: "the files that patterns in a field name: path, size, time of the last change",
    inputs: Inputs::One,
    keeps_rows: false,
    keys: &[
        Key::optional("file_pattern", Wants::Text, "the field that holds the pattern; the only field else"),
        Key::optional("empty_match_treatment", Wants::Text, "ALLOW, DISALLOW or ALLOW_IF_WILDCARD"),
    ],
    make: match_all,
}];

fn match_all(maker: &mut Maker<'_>) -> Option<Made> {
    const TREATMENTS: [&str; 3] = ["ALLOW", "DISALLOW", "ALLOW_IF_WILDCARD"];
    let input = maker.input()?;
    let index = match maker.get("file_pattern").cloned() {
        Some(node) => {
            let name = node.as_str()?.clone();
            known_columns(maker, vec![(name.clone(), node)], &input);
            input.schema.index_of(&name)?
        }
        None if input.schema.fields.len() == 1 => 0,
        None => {
            let span = maker.step.kind.span;
            let problem =
                Diagnostic::new("TB0207", span, "`MatchAll` of several fields lacks the key `file_pattern`");
            maker.problem(problem.note(format!("columns here: {}", columns(&input.schema))));
            return None;
        }
    };
    let treatment = maker.text("empty_match_treatment");
    let treatment = treatment.as_deref().unwrap_or("ALLOW");
    if !TREATMENTS.contains(&treatment) {
        let span = maker.span("empty_match_treatment");
        let message = format!("unknown treatment `{treatment}`");
        maker.problem(Diagnostic::new("TB0208", span, message).did_you_mean(treatment, TREATMENTS));
        return None;
    }
    let schema = Arc::new(Schema::of([
        ("path", FieldType::required(TypeKind::String)),
        ("size_in_bytes", FieldType::required(TypeKind::Int64)),
        ("last_updated_in_seconds", FieldType::nullable(TypeKind::Double)),
    ]));
    let dofn = MatchRows { index, treatment: treatment.into(), schema: schema.clone() };
    Some(Made {
        outputs: vec![(MAIN.into(), schema.clone())],
        build: Box::new(move |_, inputs| {
            let par_do = ParDo::new(dofn).with_coder(row_coder(schema)).with_arity(Arity::Any);
            inputs.into_iter().next().map(|input| expand(par_do, input)).into_iter().collect()
        }),
    })
}

#[derive(Clone)]
struct MatchRows {
    index: usize,
    treatment: Arc<str>,
    schema: Arc<Schema>,
}

impl DoFn for MatchRows {
    type In = Row;
    type Out = Row;

    fn process(&mut self, row: Row, _: &ElementContext<'_>, out: &mut Output<Row>) -> Result<()> {
        let pattern = row.values.get(self.index).map(python_str).unwrap_or_default();
        let wildcard = pattern.contains(['*', '?', '[']);
        let may_be_none = match &*self.treatment {
            "ALLOW" => true,
            "ALLOW_IF_WILDCARD" => wildcard,
            _ => false,
        };
        // The files are the same when it is tried again.
        let files =
            tiebeam_io::fs::list(&pattern, may_be_none).map_err(|error| error.with_retryable(false))?;
        for file in files {
            let values = vec![
                Value::String(file.path.into()),
                Value::Int64(i64::try_from(file.size).unwrap_or(i64::MAX)),
                match file.modified {
                    tiebeam_core::Timestamp::MIN => Value::Null,
                    time => Value::Double(time.micros() as f64 / 1e6),
                },
            ];
            out.emit(Row::new(self.schema.clone(), values));
        }
        Ok(())
    }
}
