//! From a model's outputs to a column.

use std::sync::Arc;

use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_inference::{PredictionResult, Tensor, Tensors};
use tiebeam_onnx::{Dim, Port};

use super::handlers::Loaded;
use super::inputs::{InputPlan, Prepared, processing};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::expression::Expression;
use crate::plan::{Collection, Maker};

/// How a model's answer becomes a value.
#[derive(Debug, Clone)]
pub struct OutputPlan {
    /// The type of each output.
    fields: Arc<[FieldType]>,
    /// The row of all outputs, where there are several.
    row: Option<Arc<Schema>>,
    /// What is computed of it, over rows of that schema.
    postprocess: Option<(Expression, Arc<Schema>)>,
    /// The type of the outputs as they are.
    raw: FieldType,
    result: FieldType,
}

impl OutputPlan {
    /// Types the answer; mistakes are noted.
    pub fn make(
        maker: &mut Maker<'_>,
        config: &Node,
        input: &Collection,
        inputs: &InputPlan,
        loaded: &Loaded,
    ) -> Option<OutputPlan> {
        let ports = loaded.outputs();
        let mut fields = Vec::with_capacity(ports.len());
        for port in ports {
            match output_type(port, inputs.is_batched) {
                Some(field) => fields.push(field),
                None => {
                    let message = format!(
                        "output `{}` has the type {}, which no column holds",
                        port.name, port.type_name
                    );
                    let problem = Diagnostic::new("TB0205", loaded.span, message);
                    maker.problem(problem.help("choose others with `outputs: [NAME]`"));
                    return None;
                }
            }
        }
        let named =
            || Arc::new(Schema::of(ports.iter().map(|port| port.name.clone()).zip(fields.iter().cloned())));
        let (row, answer) = match fields.as_slice() {
            [only] => (None, only.clone()),
            _ => {
                let schema = named();
                (Some(schema.clone()), FieldType::required(TypeKind::Row(schema)))
            }
        };
        let mut plan = OutputPlan {
            fields: fields.into(),
            row,
            postprocess: None,
            raw: answer.clone(),
            result: answer.clone(),
        };
        if let Some(node) = config.get("postprocess").filter(|node| node.content != Content::Null) {
            let schema = Arc::new(Schema::of([
                ("inference", answer),
                ("example", FieldType::required(TypeKind::Row(input.schema.clone()))),
                ("model_id", FieldType::required(TypeKind::String)),
            ]));
            let results =
                Collection { schema: schema.clone(), producer: "the model".into(), ..input.clone() };
            let expression = processing(maker, node, "`postprocess`", &results)?;
            plan.result = expression.field_type()?.clone();
            plan.postprocess = Some((expression, schema));
        }
        Some(plan)
    }

    /// The type of the answer.
    pub fn field_type(&self) -> &FieldType {
        &self.result
    }

    /// The type of what the model says, before `postprocess`.
    pub fn raw_type(&self) -> &FieldType {
        &self.raw
    }

    /// What the model says of a row.
    ///
    /// # Errors
    /// When an output has not the axes that the model declares.
    pub fn raw(&self, result: &PredictionResult<Prepared, Tensors>) -> Result<Value> {
        let mut values = Vec::with_capacity(self.fields.len());
        for (tensor, field) in result.inference.values().iter().zip(self.fields.iter()) {
            values.push(to_value(tensor, field)?);
        }
        Ok(match &self.row {
            Some(schema) => Value::Row(Row::new(schema.clone(), values)),
            None => values.pop().unwrap_or(Value::Null),
        })
    }

    /// The answer for a row.
    ///
    /// # Errors
    /// When an output has not the axes that the model declares, or `postprocess` fails.
    pub fn answer(&self, result: &PredictionResult<Prepared, Tensors>) -> Result<Value> {
        let answer = self.raw(result)?;
        let Some((expression, schema)) = &self.postprocess else { return Ok(answer) };
        let id = Value::String(result.model_id.clone());
        let row = Row::new(schema.clone(), vec![answer, Value::Row(result.example.row().clone()), id]);
        expression.evaluate(&row).map_err(|raised| {
            let message = expression.trace(&raised).replace("\n  ", " ");
            Error::new(ErrorKind::UserCode, "TB0225", message).with_retryable(false)
        })
    }
}

/// The type of one row of an output: a number for the shapes [] and [1], lists for others, a tensor where the number of
/// axes is not known.
fn output_type(port: &Port, is_batched: bool) -> Option<FieldType> {
    let dtype = port.dtype?;
    let Some(dims) = &port.shape else { return Some(Tensor::field_type()) };
    let dims = if is_batched { dims.get(1..).unwrap_or(&[]) } else { dims };
    let rank = match dims {
        [Dim::Fixed(1)] => 0,
        dims => dims.len(),
    };
    Some(Tensor::value_type(dtype, rank))
}

fn to_value(tensor: &Tensor, wanted: &FieldType) -> Result<Value> {
    if matches!(wanted.kind, TypeKind::Logical(_)) {
        return Ok(tensor.to_row_value());
    }
    let value = tensor.to_value();
    match (&wanted.kind, &value) {
        (TypeKind::Array(_), Value::Array(_)) => Ok(value),
        // A list that happens to have one value.
        (TypeKind::Array(item), _) if !matches!(item.kind, TypeKind::Array(_)) => {
            Ok(Value::Array(Arc::from([value])))
        }
        (TypeKind::Array(_), _) | (_, Value::Array(_)) => {
            let (seen, wanted) = (tensor.shape(), crate::expression::show(wanted));
            let message = format!("an output has the shape {seen:?} where the model declares {wanted}");
            Err(Error::new(ErrorKind::Inference, "TB0227", message).with_retryable(false))
        }
        _ => Ok(value),
    }
}
