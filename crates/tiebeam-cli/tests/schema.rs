//! The JSON schema of pipeline files: what runs is right by it, and of the common mistakes it tells those of form.

#![allow(clippy::unwrap_used, clippy::panic)] // the tests' own functions, too

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};
use tiebeam_yaml::document::{self, Content, Node};
use tiebeam_yaml::source::Source;

fn schema() -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_tiebeam")).arg("schema").output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// As much of draft 7 as the schema uses. Gives the path of the first thing that is wrong.
fn wrong(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    let Some(schema) = schema.as_object() else {
        return (schema == &Value::Bool(false)).then(|| format!("{at}: nothing is allowed"));
    };
    for keyword in schema.keys() {
        let known = [
            "$ref",
            "$schema",
            "title",
            "description",
            "definitions",
            "type",
            "const",
            "enum",
            "properties",
            "patternProperties",
            "additionalProperties",
            "required",
            "items",
            "anyOf",
            "oneOf",
            "allOf",
            "if",
            "then",
            "else",
            "not",
            "minimum",
            "maximum",
        ];
        assert!(known.contains(&keyword.as_str()), "the test does not know {keyword}");
    }
    let fails = |schema: &Value| wrong(root, schema, value, at);
    if let Some(reference) = schema.get("$ref") {
        let name = reference.as_str().unwrap().strip_prefix("#/definitions/").unwrap();
        return fails(root["definitions"].get(name).unwrap_or_else(|| panic!("no definition {name}")));
    }
    if let Some(types) = schema.get("type") {
        let types: Vec<&str> = match types {
            Value::String(one) => vec![one],
            many => many.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect(),
        };
        let is = |kind: &&str| match *kind {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("no type {other}"),
        };
        if !types.iter().any(is) {
            return Some(format!("{at}: wants {types:?}"));
        }
    }
    if schema.get("const").is_some_and(|wanted| wanted != value)
        || schema.get("enum").is_some_and(|all| !all.as_array().unwrap().contains(value))
    {
        return Some(format!("{at}: {value} is not one of those allowed"));
    }
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    if let Some(number) = value.as_f64()
        && (bound("minimum").is_some_and(|least| number < least)
            || bound("maximum").is_some_and(|most| number > most))
    {
        return Some(format!("{at}: out of bounds"));
    }
    let each = |key: &str| schema.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    for part in each("allOf") {
        if let Some(problem) = fails(&part) {
            return Some(problem);
        }
    }
    for (key, least, most) in [("anyOf", 1, usize::MAX), ("oneOf", 1, 1)] {
        let parts = each(key);
        let problems: Vec<Option<String>> = parts.iter().map(fails).collect();
        let fine = problems.iter().filter(|problem| problem.is_none()).count();
        if !parts.is_empty() && !(least..=most).contains(&fine) {
            // The one that went deepest is the one that was meant.
            let deepest = problems.into_iter().flatten().max_by_key(|problem| problem.matches('/').count());
            return deepest.or_else(|| Some(format!("{at}: several alternatives fit")));
        }
    }
    if let Some(condition) = schema.get("if") {
        let branch = if fails(condition).is_none() { "then" } else { "else" };
        if let Some(problem) = schema.get(branch).and_then(fails) {
            return Some(problem);
        }
    }
    if schema.get("not").is_some_and(|not| fails(not).is_none()) {
        return Some(format!("{at}: what is not allowed"));
    }
    match value {
        Value::Object(entries) => in_object(root, schema, entries, at),
        Value::Array(items) => {
            let schema = schema.get("items")?;
            items.iter().enumerate().find_map(|(i, item)| wrong(root, schema, item, &format!("{at}/{i}")))
        }
        _ => None,
    }
}

fn in_object(
    root: &Value,
    schema: &Map<String, Value>,
    entries: &Map<String, Value>,
    at: &str,
) -> Option<String> {
    for key in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if !entries.contains_key(key.as_str().unwrap()) {
            return Some(format!("{at}: lacks {key}"));
        }
    }
    for (key, value) in entries {
        let at = format!("{at}/{key}");
        if let Some(known) = schema.get("properties").and_then(|properties| properties.get(key)) {
            if let Some(problem) = wrong(root, known, value, &at) {
                return Some(problem);
            }
        } else if !(schema.contains_key("patternProperties") && key.starts_with("__"))
            && let Some(others) = schema.get("additionalProperties")
            && let Some(problem) = wrong(root, others, value, &at)
        {
            return Some(problem);
        }
    }
    None
}

fn plain(node: &Node) -> Value {
    match &node.content {
        Content::Null => Value::Null,
        Content::Bool(value) => json!(value),
        Content::Int(value) => json!(value),
        Content::Float(value) => json!(value),
        Content::String(text) => json!(&**text),
        Content::List(items) => Value::Array(items.iter().map(plain).collect()),
        Content::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.to_string(), plain(&entry.value))).collect())
        }
    }
}

/// What the schema says of a file.
fn told(schema: &Value, yaml: &str) -> Option<String> {
    let text = yaml.replace("{{ output }}", "out").replace("{{ cache }}", "cache");
    let source = Source::new("p.yaml", text);
    let document = document::parse(&source).unwrap_or_else(|_| panic!("no YAML:\n{yaml}"));
    wrong(schema, schema, &plain(&document), "")
}

#[test]
fn every_example_and_every_page_is_right_by_the_schema() {
    let schema = schema();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![root.join("crates/tiebeam-cli/templates/score.yaml")];
    let examples = fs::read_dir(root.join("examples")).unwrap().map(|entry| entry.unwrap().path());
    files.extend(examples.filter(|path| path.extension().is_some_and(|e| e == "yaml")));
    assert!(files.len() >= 6);
    for file in files {
        assert_eq!(told(&schema, &fs::read_to_string(&file).unwrap()), None, "{}", file.display());
    }
    for page in ["pipelines-in-yaml.md", "first-five-minutes.md", "command-line.md"] {
        let page = fs::read_to_string(root.join("docs").join(page)).unwrap();
        for block in page.split("```yaml").skip(1) {
            let text = block.split("```").next().unwrap().split_once('\n').unwrap().1;
            if !text.contains("WriteToJsn") {
                assert_eq!(told(&schema, text), None, "{text}");
            }
        }
    }
}

const HEAD: &str = "pipeline:
  transforms:
    - type: Create
      name: People
      config: {elements: [{name: Ada, born: 1815}]}
";

#[test]
fn mistakes_of_form_are_told_where_they_are() {
    let schema = schema();
    let step = |text: &str| told(&schema, &format!("{HEAD}    - {text}\n"));
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(step("{type: Filter, input: People, config: {keep: born > 1}}"), None);
    assert_eq!(
        step("{type: Filter, input: People, config: {kep: born > 1}}"),
        some("/pipeline/transforms/1/config: lacks \"keep\"")
    );
    assert_eq!(
        step("{type: Filter, input: People, config: {keep: born > 1, kep: 2}}"),
        some("/pipeline/transforms/1/config/kep: nothing is allowed")
    );
    assert_eq!(
        step("{type: MapToField, input: People}"),
        some("/pipeline/transforms/1/type: \"MapToField\" is not one of those allowed")
    );
    assert_eq!(
        step("{type: Filter, inputs: People, config: {keep: born > 1}}"),
        some("/pipeline/transforms/1/inputs: nothing is allowed")
    );
    assert_eq!(step("{type: WriteToJson, input: People}"), some("/pipeline/transforms/1: lacks \"config\""));
    assert_eq!(
        step("{type: WriteToJson, input: People, config: {path: out, num_shards: many}}"),
        some("/pipeline/transforms/1/config/num_shards: wants [\"integer\", \"null\"]")
    );
    assert_eq!(
        step("{type: Filter, input: People, config: {keep: x}, windowing: {type: fixd, size: 3}}"),
        some("/pipeline/transforms/1/windowing/type: \"fixd\" is not one of those allowed")
    );
    assert_eq!(
        step("{type: chain, input: People, transforms: [{type: Filtr, config: {keep: x}}]}"),
        some("/pipeline/transforms/1/transforms/0/type: \"Filtr\" is not one of those allowed")
    );
    assert_eq!(
        step("{type: Filter, input: People, config: {keep: x, error_handling: {ouput: bad}}}"),
        some("/pipeline/transforms/1/config/error_handling: lacks \"output\"")
    );
    let model = "{type: RunInference, input: People, config: {model_handler: {type: OnnxModelHandlerNumpy, config: {model: x}}}}";
    assert_eq!(step(model), some("/pipeline/transforms/1/config/model_handler/config: lacks \"model_uri\""));
    assert_eq!(told(&schema, "pipelin: {}"), some(": lacks \"pipeline\""));
    assert_eq!(told(&schema, &format!("{HEAD}option: {{}}\n")), some("/option: nothing is allowed"));
}

#[test]
fn types_of_providers_are_left_to_them() {
    let schema = schema();
    let own = format!("{HEAD}    - {{type: Power, input: People, config: {{n: 3}}}}\nproviders: []\n");
    assert_eq!(told(&schema, &own), None);
    assert!(told(&schema, &own.replace("providers: []\n", "")).is_some());
}
