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

#[test]
fn groups_are_combined_by_every_function() {
    check(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config:
        elements:
          - {k: a, x: 1, f: 0.5, l: [1], b: true}
          - {k: b, x: 2, f: 1.5, l: [2, 3], b: false}
          - {k: a, x: 3, f: 2.5, l: [], b: false}
          - {k: a, x: -5, f: 0.25, l: [4], b: true}
    - type: Combine
      config:
        language: python
        group_by: k
        combine:
          total: {value: x, fn: sum}
          twice: {value: x * 2, fn: {type: sum}}
          f: sum
          mean: {value: x, fn: mean}
          n: {value: f, fn: count}
          least: {value: f, fn: min}
          most: {value: x, fn: max}
          all: {value: b, fn: all}
          any: {value: b, fn: any}
          top: {value: x, fn: {type: apache_beam.transforms.combiners.TopCombineFn, config: {n: 2}}}
    - type: WriteToJson
      config: {path: DIR/out}
",
        &[
            r#"{"k":"a","total":-1,"twice":-2,"f":3.25,"mean":-0.3333333333333333,"n":3,"least":0.25,"most":3,"all":false,"any":true,"top":[3,1]}"#,
            r#"{"k":"b","total":2,"twice":4,"f":1.5,"mean":2.0,"n":1,"least":1.5,"most":2,"all":false,"any":false,"top":[2]}"#,
        ],
    );
}

#[test]
fn groups_are_lists_and_all_rows_are_one_group() {
    // A list has no order: it is made a number or a sorted text before it is written.
    check(
        "
pipeline:
  transforms:
    - type: Create
      config: {elements: [{x: 1.5, l: [2]}, {x: 0.5, l: [1, 5]}, {x: -0.0, l: [7]}, {x: 0.0, l: []}]}
    - type: Combine
      name: All
      input: Create
      config: {group_by: [], combine: {x: group, l: concat, n: {value: x, fn: count}}}
    - type: MapToFields
      input: All
      config: {language: python, fields: {x: 'sorted([abs(v) for v in x])', l: sorted(l), n: n}}
    - type: WriteToJson
      input: MapToFields
      config: {path: DIR/all}
    - type: Combine
      name: ByNumber
      input: Create
      config: {language: sql, group_by: [x], combine: {n: 'count(*)'}}
    - type: WriteToJson
      input: ByNumber
      config: {path: DIR/by}
    - type: Filter
      input: Create
      config: {keep: x > 100}
    - type: Combine
      name: Nothing
      input: Filter
      config: {group_by: [], combine: {x: sum}}
    - type: WriteToJson
      input: Nothing
      config: {path: DIR/none}
",
        &[
            r#"{"x":0.0,"n":2}"#,
            r#"{"x":0.5,"n":1}"#,
            r#"{"x":1.5,"n":1}"#,
            r#"{"x":[0.0,0.0,0.5,1.5],"l":[1,2,5,7],"n":4}"#,
        ],
    );
}

#[test]
fn windows_are_combined_one_by_one() {
    for (assigned, beside) in [
        ("", "\n      windowing: {type: fixed, size: 10s}"),
        ("\n    - type: WindowInto\n      windowing: {type: fixed, size: 10s}", ""),
    ] {
        check(
            &format!(
                "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{{k: a, t: 1}}, {{k: a, t: 9}}, {{k: a, t: 11}}, {{k: b, t: 12}}]}}
    - type: AssignTimestamps
      config: {{timestamp: t}}{assigned}
    - type: Combine{beside}
      config: {{group_by: k, combine: {{t: sum}}}}
    - type: WriteToJson
      config: {{path: DIR/out}}
"
            ),
            &[r#"{"k":"a","t":10}"#, r#"{"k":"a","t":11}"#, r#"{"k":"b","t":12}"#],
        );
    }
}

#[test]
fn rows_are_joined_in_every_way() {
    let joined = |config: &str| {
        format!(
            "
pipeline:
  transforms:
    - type: Create
      name: Fruits
      config: {{elements: [{{id: 1, name: pear}}, {{id: 2, name: fig}}, {{id: 3, name: null}}]}}
    - type: Create
      name: Prices
      config: {{elements: [{{name: pear, price: 1.5}}, {{name: pear, price: 2.5}}, {{name: kiwi, price: 3.0}}, {{name: null, price: 9.0}}]}}
    - type: Join
      input: {{f: Fruits, p: Prices}}
      config: {config}
    - type: WriteToJson
      input: Join
      config: {{path: DIR/out}}
"
        )
    };
    let pears = [
        r#"{"id":1,"name":"pear","name0":"pear","price":1.5}"#,
        r#"{"id":1,"name":"pear","name0":"pear","price":2.5}"#,
    ];
    check(&joined("{equalities: name}"), &pears);
    let left = [
        r#"{"id":2,"name":"fig","name0":null,"price":null}"#,
        r#"{"id":3,"name":null,"name0":null,"price":null}"#,
    ];
    let right = [
        r#"{"id":null,"name":null,"name0":"kiwi","price":3.0}"#,
        r#"{"id":null,"name":null,"name0":null,"price":9.0}"#,
    ];
    check(&joined("{type: left, equalities: [{f: name, p: name}]}"), &[&pears[..], &left].concat());
    check(&joined("{type: right, equalities: [{p: name, f: name}]}"), &[&pears[..], &right].concat());
    check(&joined("{type: outer, equalities: name}"), &[&pears[..], &left, &right].concat());
    check(&joined("{type: {outer: [f, p]}, equalities: name}"), &[&pears[..], &left, &right].concat());
    check(
        &joined("{equalities: name, fields: {p: {cost: price}, f: [id]}}"),
        &[r#"{"cost":1.5,"id":1}"#, r#"{"cost":2.5,"id":1}"#],
    );
}

#[test]
fn three_inputs_are_joined_one_after_the_other() {
    check(
        "
pipeline:
  transforms:
    - type: Create
      name: A
      config: {elements: [{x: 1, a: one}, {x: 2, a: two}]}
    - type: Create
      name: B
      config: {elements: [{x: 1.0, y: 7}, {x: 5.0, y: 8}]}
    - type: Create
      name: C
      config: {elements: [{y: 7, c: seven}, {y: 8, c: eight}, {y: 9, c: nine}]}
    - type: Join
      input: {a: A, b: B, c: C}
      config:
        type: {outer: [b]}
        equalities: [{a: x, b: x}, {b: y, c: y}]
        fields: {a: [a], b: [y]}
    - type: WriteToJson
      input: Join
      config: {path: DIR/out}
",
        &[r#"{"a":"one","y":7,"y0":7,"c":"seven"}"#, r#"{"a":null,"y":8,"y0":8,"c":"eight"}"#],
    );
}

const FIVE: &str = "{type: OnnxModelHandlerNumpy, config: {model_uri: ../../fixtures/models/five.onnx}}";

#[test]
fn a_newer_model_and_a_monitor_beside_a_step() {
    let keyed = format!("{{type: KeyedModelHandler, config: {{key: of, models: {{a: {FIVE}, b: {FIVE}}}}}}}");
    let newer = "model_id: ../../fixtures/models/ten.onnx";
    for (handler, newer, b) in [
        (FIVE, format!("{{{newer}}}"), 30.0),
        (
            &keyed,
            format!("{{keys: [a], {newer}}}, {{keys: [b], model_id: ../../fixtures/models/five.onnx}}"),
            15.0,
        ),
    ] {
        let yaml = format!(
            "
pipeline:
  transforms:
    - {{type: Create, name: Rows, config: {{elements: [{{of: a, x: 2.0}}, {{of: b, x: 3.0}}]}}}}
    - {{type: Create, name: Newer, config: {{elements: [{newer}]}}}}
    - type: RunInference
      name: Ask
      input: {{input: Rows, model_metadata: Newer}}
      config:
        monitoring: {{output: raw}}
        model_handler: {handler}
    - type: MapToFields
      name: Raw
      input: Ask.raw
      config: {{language: python, fields: {{raw: inference, by: inference_model_id}}}}
    - {{type: WriteToJson, input: Ask, config: {{path: DIR/out}}}}
    - {{type: WriteToJson, name: WriteRaw, input: Raw, config: {{path: DIR/raw}}}}
"
        );
        let by = if b > 20.0 { "ten" } else { "five" };
        let raw_b = format!(r#"{{"raw":{b:?},"by":"../../fixtures/models/{by}.onnx"}}"#);
        let mut expected = [
            r#"{"of":"a","x":2.0,"inference":20.0}"#,
            &format!(r#"{{"of":"b","x":3.0,"inference":{b:?}}}"#),
            &raw_b,
            r#"{"raw":20.0,"by":"../../fixtures/models/ten.onnx"}"#,
        ];
        expected.sort_unstable();
        check(&yaml, &expected);
    }
}

#[test]
fn metrics_are_counted_under_the_namespace_that_a_file_names() {
    let yaml = format!(
        "
pipeline:
  type: chain
  transforms:
    - {{type: Create, config: {{elements: [{{x: 2.0}}, {{x: 3.0}}]}}}}
    - {{type: RunInference, config: {{metrics_namespace: Prices, model_handler: {FIVE}}}}}
    - {{type: LogForTesting}}
"
    );
    let report = EmbeddedRunner::new(RunnerOptions::default()).run(&graph(&yaml).unwrap()).unwrap();
    assert_eq!(report.counter("Prices", "num_inferences"), 2);
}

#[test]
fn resource_hints_of_a_file_stand_in_the_graph() {
    use tiebeam_graph::ResourceHints;
    let yaml = format!(
        "
pipeline:
  type: chain
  resource_hints: {{min_ram: 1GB}}
  transforms:
    - {{type: Create, config: {{elements: [{{x: 2.0}}]}}}}
    - type: RunInference
      name: Ask
      resource_hints: {{min_ram: 1.5GiB, accelerator: type:nvidia-l4;count:1, cpu_count: 4}}
      config: {{model_handler: {FIVE}}}
    - {{type: LogForTesting, resource_hints: {{min_ram: 2}}}}
"
    );
    let graph = graph(&yaml).unwrap();
    let large =
        ResourceHints::new().min_ram_bytes(1_610_612_736).accelerator("type:nvidia-l4;count:1").cpu_count(4);
    let small = ResourceHints::new().min_ram_bytes(1_000_000_000);
    for node in &graph.nodes {
        let wanted = if node.step.starts_with("Ask") { &large } else { &small };
        assert_eq!(&node.hints, wanted, "{}", node.step);
    }
    let report = EmbeddedRunner::new(RunnerOptions::default()).run(&graph).unwrap();
    assert_eq!(report.dead_letters(), 0);
}
