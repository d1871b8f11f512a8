//! Pipeline files in the three modes: the rows' coders, the shuffles and the worker agree with what a file says.

#![allow(clippy::unwrap_used)] // the tests' own functions, too

use std::path::Path;

use tiebeam_core::{Error, ErrorKind};
use tiebeam_runner::{EmbeddedRunner, RunnerOptions};
use tiebeam_testing::{Mode, TestPipeline};
use tiebeam_yaml::{Environment, Variables, load};

fn graph(yaml: &str) -> tiebeam_core::Result<std::sync::Arc<tiebeam_graph::Graph>> {
    let environment = Environment::new(|_, _| (), |_| Ok(()));
    let loaded = load("p.yaml", yaml, &Variables::new(), &environment);
    let loaded =
        loaded.map_err(|report| Error::new(ErrorKind::InvalidPipeline, "TB0200", report.render(false)))?;
    Ok(loaded.graph)
}

fn lines(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
            lines.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned));
        }
    }
    lines.sort();
    lines
}

fn check(yaml: &str, expected: &[&str]) {
    for mode in Mode::all() {
        let dir = tempfile::tempdir().unwrap();
        let yaml = yaml.replace("DIR", &dir.path().display().to_string());
        TestPipeline::run_graph(mode, || graph(&yaml)).unwrap();
        assert_eq!(lines(dir.path()), expected, "{mode}\n{yaml}");
    }
    for threads in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let yaml = yaml.replace("DIR", &dir.path().display().to_string());
        let runner = EmbeddedRunner::new(RunnerOptions::default().with_threads(threads));
        runner.run(&graph(&yaml).unwrap()).unwrap();
        assert_eq!(lines(dir.path()), expected, "{threads} threads\n{yaml}");
    }
}

#[test]
fn times_five_says_the_same_from_every_format() {
    let torch = |file: &str| {
        format!(
            "{{type: PytorchModelHandlerTensor, config: {{state_dict_path: ../../fixtures/models/{file}, \
             model_class: LinearRegression, model_params: {{input_dim: 1, output_dim: 1}}, inputs: {{x: value}}}}}}"
        )
    };
    let onnx = "{type: OnnxModelHandlerNumpy, config: {model_uri: ../../fixtures/models/five.onnx, inputs: {x: value}}}";
    for handler in [torch("five.pth"), torch("five_pre16.pth"), torch("five.safetensors"), onnx.to_owned()] {
        let yaml = format!(
            "
pipeline:
  type: chain
  transforms:
    - type: ReadFromCsv
      config: {{path: ../../examples/data/values.csv}}
    - type: RunInference
      config:
        model_handler: {handler}
    - type: WriteToJson
      config: {{path: DIR/out}}
"
        );
        check(
            &yaml,
            &[
                r#"{"value":20,"inference":100.0}"#,
                r#"{"value":30,"inference":150.0}"#,
                r#"{"value":40,"inference":200.0}"#,
            ],
        );
    }
}

#[test]
fn rows_of_every_kind_pass_through_every_edge() {
    check(
        "
pipeline:
  transforms:
    - type: Create
      name: A
      config: {elements: [{n: 1, s: one, f: 0.5, b: true, l: [1, 2]}, {n: 2, s: two, f: 1.5, b: false, l: []}]}
    - type: Create
      name: B
      config: {elements: [{n: 3, s: three, f: 2.5, b: true, l: [3]}]}
    - type: Flatten
      input: [A, B]
    - type: MapToFields
      input: Flatten
      config:
        language: python
        fields: {n: n * 10, s: s.upper(), f: f / n, b: not b, l: l}
        error_handling: {output: bad}
    - type: Filter
      input: MapToFields
      config: {language: python, keep: n < 30}
    - type: WriteToJson
      input: Filter
      config: {path: DIR/out}
    - type: WriteToJson
      input: MapToFields.bad
      config: {path: DIR/bad}
",
        &[
            r#"{"n":10,"s":"ONE","f":0.5,"b":false,"l":[1,2]}"#,
            r#"{"n":20,"s":"TWO","f":0.75,"b":true,"l":[]}"#,
        ],
    );
}
