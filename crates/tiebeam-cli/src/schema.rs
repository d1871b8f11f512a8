//! `tiebeam schema`: pipeline files as a JSON schema, for editors that complete and check while one types.

use serde_json::{Map, Value, json};
use tiebeam::launch::Exit;
use tiebeam_yaml::catalog::{self, Inputs, Key, TransformType, Wants};
use tiebeam_yaml::transforms::inference;

use crate::output;

/// Prints the schema.
pub fn schema() -> Exit {
    output::stdout(format!("{:#}\n", pipeline_file()).as_bytes());
    Exit::Ok
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/definitions/{name}") })
}

/// An object of these properties and no others; keys that begin with two underscores are comments.
fn object(properties: Map<String, Value>, required: &[&str], about: &str) -> Value {
    json!({
        "type": "object",
        "description": about,
        "properties": properties,
        "patternProperties": { "^__": {} },
        "required": required,
        "additionalProperties": false,
    })
}

fn properties(entries: &[(&str, Value)]) -> Map<String, Value> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn pipeline_file() -> Value {
    let list = |items: &str| json!({ "type": "array", "items": reference(items) });
    let top = properties(&[
        ("pipeline", reference("pipeline")),
        ("options", json!({ "type": ["object", "null"] })),
        ("providers", json!({ "type": ["array", "null"] })),
        ("tests", json!({ "type": ["array", "null"], "items": reference("test") })),
    ]);
    let mut file = object(top, &["pipeline"], "A pipeline file of Beam YAML, as Tiebeam runs it.");
    let types: Vec<&str> =
        catalog::types().iter().map(|kind| kind.name).chain(["chain", "composite"]).collect();
    let inside = json!({
        "transforms": list("knownTransform"), "source": reference("knownTransform"),
        "sink": reference("knownTransform"), "extra_transforms": list("knownTransform"),
    });
    let mut definitions = properties(&[
        ("pipeline", json!({ "oneOf": [list("transform"), body(&["chain", "composite"])] })),
        ("transform", transform()),
        // Without providers there are no other types than these.
        ("knownBody", json!({ "properties": inside, "items": reference("knownTransform") })),
        (
            "knownTransform",
            json!({ "allOf": [{ "properties": { "type": { "enum": types } } }, reference("knownBody")] }),
        ),
        ("input", input()),
        ("windowing", windowing()),
        ("errorHandling", error_handling()),
        ("test", test()),
        ("modelHandler", model_handler()),
    ]);
    for kind in catalog::types() {
        definitions.insert(format!("config of {}", kind.name), config(kind));
    }
    if let Some(file) = file.as_object_mut() {
        file.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
        file.insert("title".to_owned(), json!("Tiebeam pipeline"));
        file.insert("if".to_owned(), json!({ "not": { "required": ["providers"] } }));
        file.insert("then".to_owned(), json!({ "properties": { "pipeline": reference("knownBody") } }));
        file.insert("definitions".to_owned(), Value::Object(definitions));
    }
    file
}

/// The keys of a pipeline or composite that hold transforms.
fn inner() -> Vec<(&'static str, Value)> {
    let list = json!({ "type": "array", "items": reference("transform") });
    vec![
        ("transforms", list.clone()),
        ("source", reference("transform")),
        ("sink", reference("transform")),
        ("extra_transforms", list),
        ("windowing", reference("windowing")),
        ("resource_hints", json!({})),
    ]
}

fn body(types: &[&str]) -> Value {
    let mut entries = inner();
    entries.push((
        "type",
        json!({ "enum": types, "description": "chain: each transform reads the one before it" }),
    ));
    object(properties(&entries), &[], "the transforms")
}

/// A transform: what may stand beside its type depends on that.
fn transform() -> Value {
    let name = json!({ "type": ["string", "integer"], "description": "what others refer to it by" });
    let mut shared =
        vec![("type", json!({ "type": "string" })), ("name", name), ("input", reference("input"))];
    let mut composite = inner();
    composite.extend(shared.clone());
    composite.push(("output", json!({ "type": ["string", "object"] })));
    shared.extend([
        ("config", json!({ "type": ["object", "null"] })),
        ("windowing", reference("windowing")),
        ("resource_hints", json!({})),
    ]);
    let is = |types: &[&str]| json!({ "properties": { "type": { "enum": types } }, "required": ["type"] });
    let mut rules = vec![json!({
        "if": is(&["chain", "composite"]),
        "then": object(properties(&composite), &["type"], "transforms made of transforms"),
        "else": object(properties(&shared), &["type"], "a transform"),
    })];
    for kind in catalog::types() {
        let mut then = json!({ "properties": { "config": reference(&format!("config of {}", kind.name)) } });
        if kind.keys.iter().any(|key| key.required) {
            then["required"] = json!(["config"]);
        }
        if kind.inputs == Inputs::None {
            then["description"] = json!(format!("{} (a source)", kind.about));
        }
        rules.push(json!({ "if": is(&[kind.name]), "then": then }));
    }
    json!({ "type": "object", "required": ["type"], "allOf": rules })
}

fn input() -> Value {
    let name = json!({ "type": ["string", "integer"] });
    let names = json!({ "anyOf": [name, { "type": "array", "items": name }] });
    json!({
        "description": "the transforms that it reads: a name, `Name.output`, a list, or a mapping of inputs",
        "anyOf": [names, { "type": "null" }, { "type": "object", "additionalProperties": names }],
    })
}

fn windowing() -> Value {
    let span = json!({ "type": ["string", "number"], "description": "a number of seconds, or one with ms, s, m, h or d" });
    let kinds = [
        ("fixed", vec!["size"], vec!["offset"]),
        ("sliding", vec!["size", "period"], vec!["offset"]),
        ("sessions", vec!["gap"], vec![]),
        ("global", vec![], vec![]),
    ];
    let kinds = kinds.map(|(name, required, optional)| {
        let mut entries = vec![("type", json!({ "const": name }))];
        entries.extend(required.iter().chain(&optional).map(|key| (*key, span.clone())));
        entries.extend(["trigger", "accumulation_mode", "allowed_lateness"].map(|key| (key, json!({}))));
        let required: Vec<&str> = required.into_iter().chain(["type"]).collect();
        object(properties(&entries), &required, "windows of event time")
    });
    json!({ "anyOf": kinds })
}

fn error_handling() -> Value {
    let entries = [
        ("output", json!({ "type": "string", "description": "the name of the output of failed rows" })),
        ("threshold", json!({ "type": "number", "minimum": 0, "maximum": 1 })),
    ];
    object(properties(&entries), &["output"], "where rows go that fail")
}

fn test() -> Value {
    let name = ("name", json!({ "type": ["string", "integer"] }));
    let rows = object(
        properties(&[name.clone(), ("elements", json!({ "type": "array" }))]),
        &["name", "elements"],
        "rows of a transform",
    );
    let rows = json!({ "type": "array", "items": rows });
    let keys = ["mock_inputs", "mock_outputs", "expected_inputs", "expected_outputs"];
    let mut entries =
        vec![name, ("allowed_sources", json!({ "type": "array", "items": { "type": "string" } }))];
    entries.extend(keys.map(|key| (key, rows.clone())));
    object(properties(&entries), &[], "a part of the pipeline on rows that stand here")
}

fn model_handler() -> Value {
    let handlers = inference::handler_types();
    let names: Vec<&str> = handlers.iter().map(|handler| handler.name).collect();
    let rules: Vec<Value> = handlers
        .iter()
        .map(|handler| {
            json!({
                "if": { "properties": { "type": { "const": handler.name } } },
                "then": { "properties": { "config": of_keys(&handler.all_keys(), handler.about) } },
            })
        })
        .collect();
    let entries = [("type", json!({ "enum": names })), ("config", json!({ "type": "object" }))];
    let mut schema = object(properties(&entries), &["type", "config"], "the model and what runs it");
    schema["allOf"] = json!(rules);
    schema
}

fn config(kind: &TransformType) -> Value {
    let mut schema = of_keys(kind.keys, kind.about);
    schema["properties"]["output_schema"] =
        json!({ "type": "object", "description": "what its rows must be" });
    if kind.keys.iter().all(|key| !key.required) {
        schema["type"] = json!(["object", "null"]);
    }
    schema
}

fn of_keys(keys: &[Key], about: &str) -> Value {
    let here = |key: &&Key| !key.about.starts_with("not available");
    let entries: Map<String, Value> =
        keys.iter().filter(here).map(|key| (key.name.to_owned(), value_of(key))).collect();
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    object(entries, &required, about)
}

/// What a key's value must be. One that may be left out may be null, too.
fn value_of(key: &Key) -> Value {
    match key.name {
        "model_handler" => return reference("modelHandler"),
        "error_handling" => return reference("errorHandling"),
        "windowing" => return reference("windowing"),
        _ => {}
    }
    let types: &[&str] = match key.wants {
        Wants::Any => return json!({ "description": key.about }),
        Wants::Text => &["string"],
        Wants::Texts => &["string", "array"],
        Wants::Int => &["integer"],
        Wants::Number => &["number"],
        Wants::Bool => &["boolean"],
        Wants::List => &["array"],
        Wants::Map => &["object"],
    };
    let types: Vec<&str> = types.iter().copied().chain((!key.required).then_some("null")).collect();
    let mut schema = json!({ "type": types, "description": key.about });
    if key.wants == Wants::Texts {
        schema["items"] = json!({ "type": "string" });
    }
    schema
}
