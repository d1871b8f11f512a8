//! Transforms without a pipeline file around them: what pipelines of other languages can use, each configured by a row.
//!
//! The row says the same as a file's `config`, as far as a schema's types can. Where they cannot, a text stands for more:
//! `inputs: {x: "a, b"}` is a list of fields, `model_params` may be JSON, `resize: "256"` is a number.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_torch::ParamKind;

use crate::catalog::{self, Inputs, Key, TransformType, Wants, check_keys};
use crate::diagnostic::{Diagnostic, Report};
use crate::document::{self, Node};
use crate::environment::Environment;
use crate::plan::{Collection, MAIN, Made, Maker};
use crate::source::Source;
use crate::syntax::{Input, Name, Step};
use crate::transforms::inference::{self, handler_types};

/// A transform that pipelines of other languages can use.
#[derive(Debug, Clone)]
pub struct Offer {
    /// By what it is asked for.
    pub identifier: &'static str,
    /// Its type in pipeline files.
    pub kind: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// The fields of its configuration.
    pub config: Arc<Schema>,
    /// What each field is for, by its path.
    pub fields: BTreeMap<String, String>,
}

/// Beam's tools name a class after an identifier of this shape.
const KINDS: [(&str, &str); 3] = [
    ("beam:schematransform:org.apache.beam:tiebeam_run_inference:v1", "RunInference"),
    ("beam:schematransform:org.apache.beam:tiebeam_decode_image:v1", "DecodeImage"),
    ("beam:schematransform:org.apache.beam:tiebeam_image_to_tensor:v1", "ImageToTensor"),
];

/// All of them.
pub fn offers() -> Vec<Offer> {
    let found = KINDS.into_iter().filter_map(|(identifier, name)| Some((identifier, catalog::find(name)?)));
    found
        .map(|(identifier, kind)| {
            let mut fields = BTreeMap::new();
            let config = match kind.name {
                "RunInference" => run_inference(kind, &mut fields),
                _ => schema_of(kind.keys.iter(), "", &mut fields),
            };
            Offer { identifier, kind: kind.name, about: kind.about, config: Arc::new(config), fields }
        })
        .collect()
}

/// The fields of these keys. Whatever a key's type cannot tell is none of them.
fn schema_of<'k>(
    keys: impl Iterator<Item = &'k Key>,
    path: &str,
    about: &mut BTreeMap<String, String>,
) -> Schema {
    let mut fields: Vec<(&str, FieldType)> = Vec::new();
    for key in keys {
        let Some(kind) = kind_of(key) else { continue };
        if fields.iter().any(|(name, _)| *name == key.name) {
            continue;
        }
        about.insert(format!("{path}{}", key.name), key.about.to_owned());
        fields.push((key.name, FieldType { kind, nullable: !key.required }));
    }
    Schema::of(fields)
}

fn list(kind: TypeKind) -> TypeKind {
    TypeKind::Array(Box::new(FieldType::required(kind)))
}

fn kind_of(key: &Key) -> Option<TypeKind> {
    let text = || Box::new(FieldType::required(TypeKind::String));
    Some(match (key.name, key.wants) {
        // Handlers of tensors take none.
        ("inference_args", _) => return None,
        ("error_handling" | "monitoring", _) => {
            TypeKind::Row(Arc::new(Schema::of([("output", FieldType::required(TypeKind::String))])))
        }
        ("model_params", _) => TypeKind::Row(Arc::new(model_params())),
        ("mean" | "std", _) => list(TypeKind::Double),
        ("size" | "batch_bucket_boundaries", _) => list(TypeKind::Int64),
        (_, Wants::Text | Wants::Any) => TypeKind::String,
        (_, Wants::Texts | Wants::List) => list(TypeKind::String),
        (_, Wants::Int) => TypeKind::Int64,
        (_, Wants::Number) => TypeKind::Double,
        (_, Wants::Bool) => TypeKind::Boolean,
        (_, Wants::Map) => TypeKind::Map(text(), text()),
    })
}

/// The arguments of all architectures; one that two of them take as different types is a text.
fn model_params() -> Schema {
    let mut fields: BTreeMap<String, TypeKind> = BTreeMap::new();
    for architecture in tiebeam_torch::architectures() {
        let Ok(architecture) = tiebeam_torch::architecture(&architecture) else { continue };
        for param in architecture.params() {
            let kind = match param.kind() {
                ParamKind::Size => TypeKind::Int64,
                ParamKind::Sizes => list(TypeKind::Int64),
                ParamKind::Number => TypeKind::Double,
                ParamKind::Flag => TypeKind::Boolean,
                ParamKind::Choice(_) => TypeKind::String,
            };
            let known = fields.entry(param.name().to_owned()).or_insert_with(|| kind.clone());
            if *known != kind {
                *known = TypeKind::String;
            }
        }
    }
    Schema::of(fields.into_iter().map(|(name, kind)| (name, FieldType::nullable(kind))))
}

/// One `config` with the keys of all handlers: which of them must be given, the handler knows.
fn run_inference(kind: &TransformType, about: &mut BTreeMap<String, String>) -> Schema {
    let handlers = handler_types();
    let keys: Vec<Key> = handlers
        .iter()
        .flat_map(|handler| handler.keys)
        // What all have is one type here, though a handler may take it as another.
        .filter(|key| inference::COMMON.iter().all(|common| common.name != key.name))
        .chain(inference::COMMON)
        .map(|key| Key { required: false, ..*key })
        .collect();
    let config = schema_of(keys.iter(), "model_handler.config.", about);
    let names: Vec<&str> = handlers.iter().map(|handler| handler.name).collect();
    about.insert("model_handler.type".to_owned(), format!("one of {}", names.join(", ")));
    let handler = Schema::of([
        ("type", FieldType::required(TypeKind::String)),
        ("config", FieldType::required(TypeKind::Row(Arc::new(config)))),
    ]);
    let mut schema = schema_of(kind.keys.iter(), "", about);
    for field in schema.fields.iter_mut().filter(|field| &*field.name == "model_handler") {
        field.field_type.kind = TypeKind::Row(Arc::new(handler.clone()));
    }
    schema
}

/// Makes the transform of that identifier for rows of `input`. Its first output is called `output`.
///
/// # Errors
/// When there is none, or its configuration is wrong: all mistakes, shown in the configuration written as JSON.
pub fn make(identifier: &str, config: &Row, input: &Arc<Schema>, environment: &Environment) -> Result<Made> {
    let kind = KINDS.iter().find(|(known, _)| *known == identifier).and_then(|(_, kind)| catalog::find(kind));
    let Some(kind) = kind.filter(|kind| matches!(kind.inputs, Inputs::One | Inputs::Beside(_))) else {
        let message = format!("there is no transform `{identifier}` for other languages");
        return Err(Error::new(ErrorKind::NotFound, "TB0237", message));
    };
    let mut json = json_of_row(config);
    widen(&mut json);
    let text = serde_json::to_string_pretty(&Json::Object(json)).unwrap_or_default();
    let source = Source::new(kind.name, text);
    let mut problems = Vec::new();
    let made = made(kind, &source, input, environment, &mut problems);
    match made {
        Some(made) if problems.is_empty() => Ok(made),
        _ => Err(error_of(Report::new(Arc::new(source), problems))),
    }
}

fn made(
    kind: &TransformType,
    source: &Source,
    input: &Arc<Schema>,
    environment: &Environment,
    problems: &mut Vec<Diagnostic>,
) -> Option<Made> {
    let config = document::parse(source).map_err(|problem| problems.push(problem)).ok()?;
    if !check_keys(config.as_map()?, kind.keys, &format!("`{}`", kind.name), config.span, problems) {
        return None;
    }
    if let Some(output) = config.get("error_handling").and_then(|handling| handling.get("output"))
        && output.as_str().is_some_and(|name| &**name == MAIN)
    {
        let message = format!("the output of failed rows cannot be called `{MAIN}`: the others are");
        problems.push(Diagnostic::new("TB0209", output.span, message));
    }
    let step = step_of(kind, config);
    let input = Collection { id: 0, schema: input.clone(), producer: "the input".into() };
    let mut maker =
        Maker { step: &step, inputs: vec![input], names: Vec::new(), problems, source, environment };
    (kind.make)(&mut maker)
}

fn step_of(kind: &TransformType, config: Node) -> Step {
    Step {
        span: config.span,
        kind: Name { text: kind.name.into(), span: config.span },
        name: None,
        input: Input::Absent,
        output: None,
        config: Some(config),
        is_misplaced: false,
        windowing: None,
        resource_hints: None,
        body: None,
    }
}

/// All mistakes as one error, of the first one's kind and code.
fn error_of(report: Report) -> Error {
    let first = report.diagnostics().first().map(|first| (first.kind, first.code));
    let (kind, code) = first.unwrap_or((ErrorKind::InvalidPipeline, "TB0237"));
    let text = report.render(false);
    Error::new(kind, code, format!("the configuration is wrong\n{}", text.trim_end()))
}

fn json_of_row(row: &Row) -> Map<String, Json> {
    let fields = row.schema.fields.iter().zip(row.values.iter());
    let given = fields.filter(|(_, value)| **value != Value::Null);
    given.map(|(field, value)| (field.name.to_string(), json_of(value))).collect()
}

/// A value as JSON.
pub(crate) fn json_of(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Byte(value) => (*value).into(),
        Value::Int16(value) => (*value).into(),
        Value::Int32(value) => (*value).into(),
        Value::Int64(value) => (*value).into(),
        Value::Float(value) => f64::from(*value).into(),
        Value::Double(value) => (*value).into(),
        Value::String(value) => (**value).into(),
        Value::Bytes(value) => String::from_utf8_lossy(value).into(),
        Value::Array(values) => values.iter().map(json_of).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| {
                let key = match key {
                    Value::String(key) => key.to_string(),
                    other => json_of(other).to_string(),
                };
                (key, json_of(value))
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Row(row) => json_of_row(row).into(),
    }
}

/// Texts that stand for more.
fn widen(config: &mut Map<String, Json>) {
    for (key, value) in config.iter_mut() {
        let meant = match (key.as_str(), value.as_str()) {
            ("model_handler" | "config" | "model_params" | "inputs", Some(text)) => {
                serde_json::from_str(text).ok().filter(Json::is_object)
            }
            ("resize", Some(text)) => text.trim().parse::<u32>().ok().map(Json::from),
            _ => None,
        };
        if let Some(meant) = meant {
            *value = meant;
        }
        let Some(inner) = value.as_object_mut() else { continue };
        match key.as_str() {
            "inputs" => inner.values_mut().for_each(split_at_commas),
            "model_handler" | "config" => widen(inner),
            _ => {}
        }
    }
}

fn split_at_commas(value: &mut Json) {
    if let Some(text) = value.as_str().filter(|text| text.contains(',')) {
        *value = text.split(',').map(|name| Json::from(name.trim())).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN_INFERENCE: &str = KINDS[0].0;

    fn field(schema: &Schema, path: &str) -> FieldType {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let found = schema.fields[schema.index_of(first).unwrap()].field_type.clone();
        match (rest, &found.kind) {
            (None, _) => found,
            (Some(rest), TypeKind::Row(inner)) => field(inner, rest),
            (Some(rest), other) => panic!("no {rest} in {other}"),
        }
    }

    fn row(fields: &[(&str, TypeKind, Value)]) -> Row {
        let schema = fields.iter().map(|(name, kind, _)| (*name, FieldType::required(kind.clone())));
        let values: Vec<Value> = fields.iter().map(|(_, _, value)| value.clone()).collect();
        Row::new(Arc::new(Schema::of(schema)), values)
    }

    fn text(value: &str) -> Value {
        Value::String(value.into())
    }

    fn five(config: &str) -> Row {
        let handler = format!(r#"{{"type": "PytorchModelHandlerTensor", "config": {config}}}"#);
        row(&[("model_handler", TypeKind::String, text(&handler))])
    }

    fn columns(names: &[&str]) -> Arc<Schema> {
        Arc::new(Schema::of(names.iter().map(|name| (*name, FieldType::required(TypeKind::Double)))))
    }

    fn make_of(config: &Row, input: &[&str]) -> Result<Made> {
        make(RUN_INFERENCE, config, &columns(input), &Environment::new(|_, _| {}, |_| Ok(())))
    }

    const FIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/models/five.pth");

    #[test]
    fn configurations_are_typed_and_every_field_is_explained() {
        let offers = offers();
        assert_eq!(offers.len(), KINDS.len());
        for offer in &offers {
            let lacking = |field: &&tiebeam_core::row::Field| !offer.fields.contains_key(&*field.name);
            assert_eq!(offer.config.fields.iter().find(lacking), None, "{}", offer.identifier);
        }
        let schema = &offers[0].config;
        let shown = |path: &str| field(schema, path).to_string();
        assert_eq!(shown("model_handler.type"), "STRING");
        assert_eq!(shown("model_handler.config.state_dict_path"), "STRING?");
        assert_eq!(shown("model_handler.config.model_params.input_dim"), "INT64?");
        assert_eq!(shown("model_handler.config.model_params.hidden"), "ARRAY<INT64>?");
        assert_eq!(shown("model_handler.config.inputs"), "MAP<STRING, STRING>?");
        assert_eq!(shown("error_handling"), "ROW<output: STRING>?");
        assert_eq!(shown("model_handler.config.env_vars"), "MAP<STRING, STRING>?");
    }

    #[test]
    fn texts_stand_for_what_schemas_cannot_tell() {
        let config = format!(
            r#"{{"state_dict_path": {FIVE:?}, "model_class": "LinearRegression", "model_params": "{{\"input_dim\": 1}}"}}"#
        );
        let made = make_of(&five(&config), &["x"]).unwrap();
        assert_eq!(made.outputs[0].1.to_string(), "x: DOUBLE, inference: FLOAT");
        // Two columns for an input of one: the list was read as such.
        let two = config.replacen('{', r#"{"inputs": {"x": "a, b"}, "#, 1);
        let said = format!("{:?}", make_of(&five(&two), &["a", "b"]).map(|_| ()).unwrap_err());
        assert!(said.contains("the model's input: x"), "{said}");
    }

    #[test]
    fn mistakes_are_shown_in_the_configuration() {
        let said = |config: &Row| make_of(config, &["x"]).map(|_| ()).unwrap_err();
        let error = said(&five(r#"{"state_dict_path": "/none.pth", "model_class": "LinearRegresion"}"#));
        let shown = format!("{error:?}");
        assert!(shown.contains("\"model_class\": \"LinearRegresion\""), "{shown}");
        assert!(shown.contains("LinearRegression"), "{shown}");
        let error = said(&row(&[("model_handler", TypeKind::Int64, Value::Int64(3))]));
        assert_eq!(error.code(), "TB0208");
        let error = said(&row(&[]));
        assert_eq!(error.code(), "TB0207");
        let output = row(&[("output", TypeKind::String, text("output"))]);
        let mut config = five(&format!(
            r#"{{"state_dict_path": {FIVE:?}, "model_class": "LinearRegression", "model_params": {{"input_dim": 1}}}}"#
        ));
        let fields = [config.schema.fields[0].clone()].map(|field| (field.name, field.field_type));
        let handling = ("error_handling".into(), FieldType::required(TypeKind::Row(output.schema.clone())));
        let schema = Schema::of(fields.into_iter().chain([handling]));
        config = Row::new(Arc::new(schema), vec![config.values[0].clone(), Value::Row(output)]);
        assert_eq!(said(&config).code(), "TB0209");
        let unknown = make("other", &config, &columns(&["x"]), &Environment::new(|_, _| {}, |_| Ok(())));
        assert_eq!(unknown.map(|_| ()).unwrap_err().code(), "TB0237");
    }
}
