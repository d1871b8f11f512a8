//! `isolation: process` in pipeline files: the command is the model's process too.

#![allow(clippy::unwrap_used)] // the tests' own functions, too

use std::path::Path;
use std::process::{Command, Output};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/models");

fn run(dir: &Path, verb: &str, handler: &str, elements: &str, more: &str) -> Output {
    let file = format!(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{elements}]}}
    - type: RunInference
      config:
        model_handler:
{handler}
          {more}
    - type: LogForTesting
"
    );
    std::fs::write(dir.join("p.yaml"), file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiebeam"));
    command.args([verb, "p.yaml", "--report", "r.json"].iter().take(if verb == "run" { 4 } else { 2 }));
    command.env("TB_GIVEN", "/given/libonnxruntime.so");
    command.current_dir(dir).env_remove("RUST_BACKTRACE").env("NO_COLOR", "1").output().unwrap()
}

fn handler(kind: &str, config: &str) -> String {
    format!("          type: {kind}\n          config:\n{}", config.replace("MODELS", MODELS))
}

fn five(isolation: &str) -> String {
    handler(
        "OnnxModelHandlerNumpy",
        &format!("            model_uri: MODELS/five.onnx\n            {isolation}"),
    )
}

fn said(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// The rows that were logged, in order of their text.
fn rows(output: &Output) -> Vec<String> {
    let text = said(output);
    let mut rows: Vec<String> =
        text.lines().filter_map(|line| line.strip_prefix("info: ")).map(str::to_owned).collect();
    rows.sort();
    rows
}

#[test]
fn rows_are_the_same_whichever_process_has_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let elements = "{x: 1.0}, {x: 2.0}, {x: 3.5}";
    let here = run(dir.path(), "run", &five(""), elements, "");
    assert!(here.status.success(), "{}", said(&here));
    assert_eq!(rows(&here).len(), 3, "{}", said(&here));
    for isolation in [
        "isolation: process",
        "isolation: {memory_mb: 4000}",
        "isolation: {trusted: true}",
        "isolation: none",
    ] {
        let apart = run(dir.path(), "run", &five(isolation), elements, "");
        assert!(apart.status.success(), "{}", said(&apart));
        assert_eq!(rows(&apart), rows(&here), "{isolation}");
    }
    let checked = run(dir.path(), "validate", &five("isolation: process"), elements, "");
    assert!(checked.status.success(), "{}", said(&checked));
}

#[test]
fn other_handlers_may_be_apart_and_models_behind_http_need_not() {
    let dir = tempfile::tempdir().unwrap();
    let torch = |isolation: &str| {
        let config = format!(
            "            state_dict_path: MODELS/five.pth\n            model_class: LinearRegression
            model_params: {{input_dim: 1, output_dim: 1}}\n            {isolation}"
        );
        handler("PytorchModelHandlerTensor", &config)
    };
    let here = run(dir.path(), "run", &torch(""), "{x: 1.0}, {x: 2.0}", "");
    let apart = run(dir.path(), "run", &torch("isolation: process"), "{x: 1.0}, {x: 2.0}", "");
    assert!(apart.status.success(), "{}", said(&apart));
    assert_eq!(rows(&apart), rows(&here));
    let remote = handler(
        "OpenAIModelHandler",
        "            endpoint: http://127.0.0.1:9/v1\n            model: m\n            isolation: process",
    );
    let refused = run(dir.path(), "validate", &remote, "{prompt: a}", "");
    assert!(
        said(&refused).contains("OpenAIModelHandler has no model in this process that could be isolated")
    );
}

#[test]
fn what_the_process_says_of_the_model_is_told_at_its_place_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let missing =
        handler("OnnxModelHandlerNumpy", "            model_uri: none.onnx\n            isolation: process");
    let refused = run(dir.path(), "run", &missing, "{x: 1.0}", "");
    assert!(!refused.status.success());
    let text = said(&refused);
    assert!(text.contains("none.onnx") && text.contains("TB0330") && text.contains("p.yaml:12"), "{text}");
    let starved = run(dir.path(), "run", &five("isolation: {memory_mb: 1}"), "{x: 1.0}", "");
    assert!(!starved.status.success());
    assert!(said(&starved).contains("p.yaml:12"), "{}", said(&starved));
}

#[test]
fn variables_are_set_before_the_model_is_loaded_there_or_here() {
    let dir = tempfile::tempdir().unwrap();
    let more = |variables: &str, isolation: &str| {
        five(&format!("env_vars: {{{variables}}}\n            isolation: {isolation}"))
    };
    for isolation in ["process", "none"] {
        let output = run(dir.path(), "run", &more("TB_ONE: 1, TB_TWO: b", isolation), "{x: 20.0}", "");
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(rows(&output).len(), 1);
        // What looks for its library where a variable says has seen the variable.
        for (nowhere, told) in [
            ("ORT_DYLIB_PATH: /nowhere/libonnxruntime.so", "/nowhere/libonnxruntime.so"),
            ("ORT_DYLIB_PATH: '${env:TB_GIVEN}'", "/given/libonnxruntime.so"),
        ] {
            let output = run(dir.path(), "run", &more(nowhere, isolation), "{x: 20.0}", "");
            assert!(!output.status.success());
            assert!(said(&output).contains(told), "{}", said(&output));
        }
        for (wrong, why) in [
            ("A: [1]", "the variable `A` is a text or a number"),
            ("A=B: 1", "a name with `=`"),
            ("'': 1", "a variable without a name"),
            ("A: '${env:TB_NOT_THERE}'", "the environment variable TB_NOT_THERE is not set"),
        ] {
            let output = run(dir.path(), "validate", &more(wrong, isolation), "{x: 20.0}", "");
            assert!(!output.status.success());
            assert!(said(&output).contains(why), "{}", said(&output));
        }
    }
}
