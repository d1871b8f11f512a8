//! ExtractWindowingInfo: what is known of a row's time, as fields of the row.

use std::sync::Arc;

use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::window::{Pane, PaneTiming, Window, WindowInfo, Windows};
use tiebeam_core::{ElementContext, Output, Timestamp};
use tiebeam_graph::Arity;

use super::{Failing, RowStep, try_rows};
use crate::catalog::{Inputs, Key, TransformType, Wants};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::plan::{MAIN, Made, Maker};

pub const TYPES: &[TransformType] = &[TransformType {
    name: "ExtractWindowingInfo",
    about: "adds the row's time and window as fields; times are seconds since 1970",
    inputs: Inputs::One,
    keeps_rows: false,
    keys: &[Key::optional(
        "fields",
        Wants::Any,
        "`[timestamp, window_start, window_end]`, or `{name: parameter}`",
    )],
    make: extract_windowing_info,
}];

#[derive(Debug, Clone, Copy)]
enum Parameter {
    Timestamp,
    Start,
    End,
    Text,
    Type,
    Pane,
}

const NAMES: [&str; 6] =
    ["timestamp", "window_start", "window_end", "window_string", "window_type", "pane_info"];

impl Parameter {
    fn named(name: &str) -> Option<Self> {
        use Parameter::{End, Pane, Start, Text, Timestamp, Type};
        let all = [Timestamp, Start, End, Text, Type, Pane];
        Some(all[NAMES.iter().position(|known| *known == name)?])
    }

    fn field_type(self, pane: &Arc<Schema>) -> FieldType {
        match self {
            Parameter::Timestamp | Parameter::End => FieldType::required(TypeKind::Double),
            Parameter::Start => FieldType::nullable(TypeKind::Double),
            Parameter::Text | Parameter::Type => FieldType::required(TypeKind::String),
            Parameter::Pane => FieldType::required(TypeKind::Row(pane.clone())),
        }
    }

    fn value(self, info: &WindowInfo, window: &Window, pane: &Arc<Schema>) -> Value {
        match (self, window) {
            (Parameter::Timestamp, _) => Value::Double(seconds(info.timestamp)),
            (Parameter::Start, Window::Interval(window)) => Value::Double(seconds(window.start)),
            (Parameter::Start, _) => Value::Null,
            (Parameter::End, Window::Interval(window)) => Value::Double(seconds(window.end)),
            (Parameter::End, window) => Value::Double(seconds(window.max_timestamp())),
            (Parameter::Text, Window::Interval(window)) => {
                Value::String(format!("[{:?}, {:?})", seconds(window.start), seconds(window.end)).into())
            }
            (Parameter::Text, _) => Value::String("GlobalWindow".into()),
            (Parameter::Type, Window::Interval(_)) => Value::String("IntervalWindow".into()),
            (Parameter::Type, Window::Global) => Value::String("GlobalWindow".into()),
            (Parameter::Type, Window::Custom(_)) => Value::String("CustomWindow".into()),
            (Parameter::Pane, _) => Value::Row(pane_row(&info.pane, pane)),
        }
    }
}

fn seconds(timestamp: Timestamp) -> f64 {
    timestamp.micros() as f64 / 1e6
}

fn pane_schema() -> Arc<Schema> {
    let of = FieldType::required;
    Arc::new(Schema::of([
        ("is_first", of(TypeKind::Boolean)),
        ("is_last", of(TypeKind::Boolean)),
        ("timing", of(TypeKind::String)),
        ("index", of(TypeKind::Int64)),
        ("nonspeculative_index", of(TypeKind::Int64)),
    ]))
}

fn pane_row(pane: &Pane, schema: &Arc<Schema>) -> Row {
    let timing = match pane.timing {
        PaneTiming::Early => "EARLY",
        PaneTiming::OnTime => "ON_TIME",
        PaneTiming::Late => "LATE",
        PaneTiming::Unknown => "UNKNOWN",
    };
    let values = vec![
        Value::Bool(pane.is_first),
        Value::Bool(pane.is_last),
        Value::String(timing.into()),
        Value::Int64(pane.index),
        Value::Int64(pane.on_time_index),
    ];
    Row::new(schema.clone(), values)
}

fn extract_windowing_info(maker: &mut Maker<'_>) -> Option<Made> {
    let input = maker.input()?;
    let asked: Vec<(Arc<str>, Node)> = match maker.get("fields").map(|node| (node, &node.content)) {
        None => ["timestamp", "window_start", "window_end"]
            .map(|name| {
                (name.into(), Node { span: maker.step.kind.span, content: Content::String(name.into()) })
            })
            .into(),
        Some((_, Content::Map(entries))) => {
            entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
        }
        Some((node, _)) => super::fields::texts(Some(node)),
    };
    let pane = pane_schema();
    let mut fields: Vec<(Arc<str>, FieldType)> =
        input.schema.fields.iter().map(|field| (field.name.clone(), field.field_type.clone())).collect();
    let mut parameters = Vec::with_capacity(asked.len());
    for (name, node) in asked {
        let wanted = node.as_str().cloned().unwrap_or_default();
        let Some(parameter) = Parameter::named(&wanted) else {
            let problem = if &*wanted == "window_object" {
                Diagnostic::new("TB0219", node.span, "a window as such is no value of a row here")
                    .help("take `window_start` and `window_end`")
            } else {
                Diagnostic::new("TB0208", node.span, format!("unknown windowing parameter `{wanted}`"))
                    .did_you_mean(&wanted, NAMES)
            };
            maker.problem(problem.note(format!("parameters: {}", NAMES.join(", "))));
            continue;
        };
        if fields.iter().any(|(other, _)| *other == name) {
            let message = format!("field `{name}` is in the input already");
            let problem = Diagnostic::new("TB0209", node.span, message);
            maker.problem(problem.help(format!("give it another name: `fields: {{other_name: {wanted}}}`")));
            continue;
        }
        fields.push((name, parameter.field_type(&pane)));
        parameters.push(parameter);
    }
    let schema = Arc::new(Schema::of(fields));
    let step = ExtractStep { parameters: parameters.into(), schema: schema.clone(), pane };
    Some(Made {
        outputs: vec![(MAIN.into(), schema.clone())],
        build: Box::new(move |_, inputs| match inputs.into_iter().next() {
            Some(input) => try_rows(input, schema, None, Arity::Any, step),
            None => Vec::new(),
        }),
    })
}

#[derive(Clone)]
struct ExtractStep {
    parameters: Arc<[Parameter]>,
    schema: Arc<Schema>,
    pane: Arc<Schema>,
}

impl RowStep for ExtractStep {
    fn step(
        &mut self,
        row: Row,
        cx: &ElementContext<'_>,
        out: &mut Output<Row>,
    ) -> Result<(), (Row, Failing)> {
        // A row in several windows is another row in each.
        for window in cx.info().windows.as_slice() {
            let own = WindowInfo { windows: Windows::One(window.clone()), ..cx.info().clone() };
            let added = self.parameters.iter().map(|parameter| parameter.value(&own, window, &self.pane));
            let values: Vec<Value> = row.values.iter().cloned().chain(added).collect();
            out.emit_with(Row::new(self.schema.clone(), values), &own);
        }
        Ok(())
    }
}
