//! What stands beside a model's step: newer versions from a side input, and a copy of its raw predictions.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tiebeam_core::coder::row_coder;
use tiebeam_core::row::{Row, Schema, TypeKind, Value};
use tiebeam_graph::PCollection;
use tiebeam_inference::chain::{After, Before, PredictionOf};
use tiebeam_inference::{
    KeyModelPathMapping, ModelHandler, ModelMetadata, PredictionResult, RunInference, Tensors,
};

use super::inputs::Prepared;
use super::keyed::key_of;
use super::outputs::OutputPlan;
use crate::catalog::{Key, Wants, check_keys};
use crate::diagnostic::Diagnostic;
use crate::expression::unknown_column;
use crate::plan::{Collection, MAIN, Maker};

/// The input that newer versions come from, as Beam's argument is called.
pub const METADATA: &str = "model_metadata";

/// Which columns of the side input name newer versions.
pub struct Versions {
    id: usize,
    name: Option<usize>,
    /// Of models for keys, the keys that a version is for.
    keys: Option<usize>,
}

impl Versions {
    /// Finds them, or none where there is no such input; mistakes are noted.
    pub fn of(maker: &mut Maker<'_>, is_keyed: bool) -> Option<Option<Versions>> {
        let Some(side) = maker.inputs.get(1).cloned() else { return Some(None) };
        let is_text = |kind: &TypeKind| *kind == TypeKind::String;
        let id = column(maker, &side, "model_id", is_text, "a text: where the model is")?;
        let id = required(maker, &side, "model_id", id)?;
        let name = column(maker, &side, "model_name", is_text, "a text: what its metrics begin with")?;
        let mut keys = None;
        if is_keyed {
            let is_list = |kind: &TypeKind| match kind {
                TypeKind::Array(key) => {
                    matches!(
                        key.kind,
                        TypeKind::String | TypeKind::Int64 | TypeKind::Int32 | TypeKind::Boolean
                    )
                }
                _ => false,
            };
            let wanted = "a list of keys, which are texts or whole numbers";
            let found = column(maker, &side, "keys", is_list, wanted)?;
            keys = Some(required(maker, &side, "keys", found)?);
        }
        Some(Some(Versions { id, name, keys }))
    }

    /// The version that a row names; null changes nothing, as an empty id does.
    fn version(&self, row: &Row) -> ModelMetadata {
        let text = |at: usize| match row.values.get(at) {
            Some(Value::String(text)) => text.to_string(),
            _ => String::new(),
        };
        match self.name.map(text) {
            Some(model_name) if !model_name.is_empty() => {
                ModelMetadata { model_id: text(self.id), model_name }
            }
            _ => ModelMetadata::of(text(self.id)),
        }
    }

    /// The versions of a side input.
    #[track_caller]
    pub fn read(self, side: &PCollection<Row>) -> PCollection<ModelMetadata> {
        side.step("ModelMetadata").map(move |row: Row| self.version(&row))
    }

    /// The versions of a side input, each with its keys. A list of keys that is null is empty, which ends the job, as does
    /// a key that no model has.
    #[track_caller]
    pub fn read_keyed(self, side: &PCollection<Row>) -> PCollection<KeyModelPathMapping<String>> {
        side.step("ModelMetadata").map(move |row: Row| {
            let keys = match self.keys.and_then(|at| row.values.get(at)) {
                Some(Value::Array(keys)) => keys.iter().map(|key| key_of(Some(key))).collect(),
                _ => Ok(Vec::new()),
            };
            let ModelMetadata { model_id, model_name } = self.version(&row);
            KeyModelPathMapping { keys: keys.unwrap_or_default(), update_path: model_id, model_name }
        })
    }
}

/// Where the column of that name is, if it is there and of the right type.
fn column(
    maker: &mut Maker<'_>,
    side: &Collection,
    name: &str,
    is_right: impl Fn(&TypeKind) -> bool,
    wanted: &str,
) -> Option<Option<usize>> {
    let Some(at) = side.schema.fields.iter().position(|field| &*field.name == name) else {
        return Some(None);
    };
    let kind = &side.schema.fields.get(at)?.field_type;
    if is_right(&kind.kind) {
        return Some(Some(at));
    }
    let message = format!("`{name}` of `{METADATA}` is {wanted}; it is {}", crate::expression::show(kind));
    let problem = Diagnostic::new("TB0205", maker.step.title_span(), message);
    maker.problem(problem.help(format!("`{}` makes it", side.producer)));
    None
}

fn required(maker: &mut Maker<'_>, side: &Collection, name: &str, found: Option<usize>) -> Option<usize> {
    if found.is_none() {
        let problem = unknown_column(name, maker.step.title_span(), &side.schema, Some(&side.producer));
        maker.problem(problem.note(format!("`{METADATA}` names newer versions of the model by `{name}`")));
    }
    found
}

/// A copy of the raw predictions: the rows with what the model said of them, before `postprocess`, and which model it was.
pub struct Monitoring {
    name: Arc<str>,
    schema: Arc<Schema>,
    plan: OutputPlan,
}

impl Monitoring {
    /// What the file says of it, or none; mistakes are noted.
    pub fn of(
        maker: &mut Maker<'_>,
        input: &Collection,
        tag: &Arc<str>,
        plan: &OutputPlan,
    ) -> Option<Option<Monitoring>> {
        let Some(node) = maker.get("monitoring").cloned() else { return Some(None) };
        let keys = [Key::required("output", Wants::Text, "the name of the output of raw predictions")];
        if !check_keys(node.as_map()?, &keys, "`monitoring`", node.span, maker.problems) {
            return None;
        }
        let output = node.get("output")?;
        let name = output.as_str()?.clone();
        let errors = maker.step.error_output();
        if &*name == MAIN || errors.is_some_and(|errors| errors.text == name) {
            let problem = Diagnostic::new("TB0209", output.span, format!("`{name}` is an output already"));
            maker.problem(problem.help("give the monitored predictions another name"));
            return None;
        }
        let schema = super::answer_schema(maker, &input.schema.fields, tag, (plan.raw_type(), true))?;
        Some(Some(Monitoring { name, schema, plan: plan.clone() }))
    }

    /// The name of the output, and what its rows are.
    pub fn output(&self) -> (Arc<str>, Arc<Schema>) {
        (self.name.clone(), self.schema.clone())
    }

    /// Has the step give its raw predictions, where that is wanted; they are in the slot once it is applied. `plain` takes the key off where there
    /// is one. A prediction whose outputs have not the axes that the model declares is not among them: the step fails on it.
    #[track_caller]
    pub fn tap<H, B, A>(
        monitoring: Option<Monitoring>,
        run: RunInference<H, B, A>,
        plain: fn(PredictionOf<H>) -> PredictionResult<Prepared, Tensors>,
    ) -> (RunInference<H, B, A>, Slot)
    where
        H: ModelHandler<Inference = Tensors>,
        B: Before<H::Example>,
        A: After<PredictionOf<H>>,
    {
        let slot = Slot::default();
        let Some(monitoring) = monitoring else { return (run, slot) };
        let filled = slot.clone();
        let run = run.with_monitoring(move |raw| {
            let coder = row_coder(monitoring.schema.clone());
            let to_row = move |result| {
                let result = plain(result);
                let answer = monitoring.plan.raw(&result).ok()?;
                let row = result.example.into_row();
                let values = row.values.iter().cloned().chain([answer, Value::String(result.model_id)]);
                Some(Row::new(monitoring.schema.clone(), values.collect::<Vec<_>>()))
            };
            let rows = raw.step("Monitored").flat_map(to_row).with_coder(coder);
            *filled.borrow_mut() = Some(rows);
        });
        (run, slot)
    }
}

/// Where the monitored predictions of a step are found after it is applied.
pub type Slot = Rc<RefCell<Option<PCollection<Row>>>>;
