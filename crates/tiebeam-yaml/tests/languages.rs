//! SQL and JavaScript in expressions, Parquet and Avro, triggers, batches, and expectations written anew.

#![allow(clippy::unwrap_used, clippy::panic)] // the tests' own functions, too

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use tiebeam_runner::{EmbeddedRunner, RunnerOptions};
use tiebeam_testing::{Mode, TestPipeline};
use tiebeam_yaml::testing::load_tests;
use tiebeam_yaml::testing::update::{load_looks, updated};
use tiebeam_yaml::{Environment, Variables, load};

fn environment() -> Environment {
    Environment::new(|_, _| (), |_| Ok(()))
}

fn lines(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let out = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("out");
    let mut lines: Vec<String> = files
        .filter(|path| path.is_file() && out(path))
        .flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    lines.sort();
    lines
}

/// The lines written to `DIR/out…`, the same in all modes.
fn gives(yaml: &str, expected: &[&str]) {
    for mode in Mode::all() {
        let dir = tempfile::tempdir().unwrap();
        let yaml = yaml.replace("DIR", &dir.path().display().to_string());
        let graph = || match load("p.yaml", &yaml, &Variables::new(), &environment()) {
            Ok(loaded) => Ok(loaded.graph),
            Err(report) => panic!("{}", report.render(false)),
        };
        TestPipeline::run_graph(mode, graph).unwrap();
        assert_eq!(lines(dir.path()), expected, "{mode}");
    }
}

fn run(yaml: &str) {
    match load("p.yaml", yaml, &Variables::new(), &environment()) {
        Ok(loaded) => {
            EmbeddedRunner::new(RunnerOptions::default().with_threads(2)).run(&loaded.graph).unwrap();
        }
        Err(report) => panic!("{}", report.render(false)),
    }
}

fn told(yaml: &str, expected: Expect) {
    let report = load("p.yaml", yaml, &Variables::new(), &environment()).err().unwrap();
    expected.assert_eq(&report.render(false));
}

const CREATE: &str = "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{name: ada, n: 3, x: 1.5}, {name: bob, n: 4, x: null}]}
";

#[test]
fn sql_in_expressions() {
    let yaml = format!(
        "{CREATE}
    - type: Filter
      config: {{language: sql, keep: 'x > 1 or x is null'}}
    - type: MapToFields
      config:
        language: sql
        append: true
        drop: [x]
        fields: {{big: upper(name), half: n / 2, y: x * 2}}
    - type: WriteToJson
      config: {{path: DIR/out}}
"
    );
    gives(
        &yaml,
        &[
            r#"{"name":"ada","n":3,"big":"ADA","half":1,"y":3.0}"#,
            r#"{"name":"bob","n":4,"big":"BOB","half":2,"y":null}"#,
        ],
    );
    told(
        &format!(
            "{CREATE}    - {{type: MapToFields, config: {{language: sql, fields: {{a: upper(nam)}}}}}}\n"
        ),
        expect![[r#"
            error[TB0204]: unknown column `nam`
              ╭─[p.yaml:7:69]
            7 │     - {type: MapToFields, config: {language: sql, fields: {a: upper(nam)}}}
              ·                                                                     ─┬─
              ·                                                                      ╰── not produced by `Create`
              ╰────
              columns here: name (string), n (int64), x (nullable double)
              help: did you mean `name`?
        "#]],
    );
}

#[test]
fn aggregations_of_sql_in_a_combine() {
    let yaml = format!(
        "{CREATE}
    - type: Combine
      config:
        language: sql
        group_by: [name]
        combine: {{n: count(x), s: sum(x * 2), all: 'count(*)'}}
    - type: WriteToJson
      config: {{path: DIR/out}}
"
    );
    gives(&yaml, &[r#"{"name":"ada","n":1,"s":3.0,"all":1}"#, r#"{"name":"bob","n":0,"s":null,"all":1}"#]);
}

#[cfg(feature = "javascript")]
#[test]
fn javascript_in_expressions() {
    let yaml = format!(
        "{CREATE}
    - type: Filter
      config: {{language: javascript, keep: 'n % 2 == 1 || x === null'}}
    - type: MapToFields
      config:
        language: javascript
        fields:
          name: name
          loud: {{expression: 'name.toUpperCase() + \"!\"', output_type: string}}
          twice:
            callable: |
              function twice(row) {{
                return row.n * 2;
              }}
            output_type: integer
          y: {{expression: 'x === null ? 0.5 : x', output_type: number}}
    - type: WriteToJson
      config: {{path: DIR/out}}
"
    );
    gives(
        &yaml,
        &[
            r#"{"name":"ada","loud":"ADA!","twice":6,"y":1.5}"#,
            r#"{"name":"bob","loud":"BOB!","twice":8,"y":0.5}"#,
        ],
    );
    told(
        &format!(
            "{CREATE}    - type: MapToFields
      config:
        language: javascript
        fields:
          a: name + 1
          b:
            callable: |
              row => {{
                return row.n +;
              }}
            output_type: integer
"
        ),
        expect![[r#"
            error[TB0223]: the type of JavaScript cannot be told
               ╭─[p.yaml:11:14]
            11 │           a: name + 1
               ·              ────────
               ╰────
              help: add it: `{expression: …, output_type: string}`

            error[TB0206]: SyntaxError: unexpected token in expression: ';'
               ╭─[p.yaml:15:17]
            15 │                 return row.n +;
               ·                 ───────────────
               ╰────
        "#]],
    );
}

#[cfg(feature = "tables")]
#[test]
fn rows_go_through_parquet_and_avro() {
    for format in ["Parquet", "Avro"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        run(&format!(
            "{CREATE}    - {{type: WriteTo{format}, config: {{path: {path}/rows, file_name_suffix: .t, num_shards: 2, codec: snappy}}}}\n"
        ));
        gives(
            &format!(
                "
pipeline:
  type: chain
  transforms:
    - {{type: ReadFrom{format}, config: {{path: '{path}/rows*.t', columns: [x, name]}}}}
    - {{type: WriteToJson, config: {{path: DIR/out}}}}
"
            ),
            &[r#"{"x":1.5,"name":"ada"}"#, r#"{"x":null,"name":"bob"}"#],
        );
        // An output without rows is a file without rows.
        run(&format!(
            "{CREATE}    - {{type: Filter, config: {{keep: n > 9}}}}\n    - {{type: WriteTo{format}, config: {{path: {path}/none}}}}\n"
        ));
        gives(
            &format!(
                "
pipeline:
  type: chain
  transforms:
    - {{type: ReadFrom{format}, config: {{path: '{path}/none*'}}}}
    - {{type: WriteToJson, config: {{path: DIR/out}}}}
"
            ),
            &[],
        );
    }
}

#[test]
fn windows_of_a_batch_fire_once() {
    let windows = |more: &str| {
        format!(
            "{CREATE}    - {{type: AssignTimestamps, config: {{timestamp: n * 60}}}}
    - {{type: WindowInto, config: {{windowing: {{type: fixed, size: 60s, {more}}}}}}}
    - {{type: Combine, config: {{group_by: [], combine: {{n: sum}}}}}}
    - {{type: WriteToJson, config: {{path: DIR/out}}}}
"
        )
    };
    for more in [
        "trigger: default, accumulation_mode: discarding",
        "trigger: {type: after_watermark}, allowed_lateness: 1h, accumulation_mode: ACCUMULATING",
    ] {
        gives(&windows(more), &[r#"{"n":3}"#, r#"{"n":4}"#]);
    }
    told(
        &windows("trigger: {type: after_watermark, early: 10}"),
        expect![[r#"
        error[TB0219]: `early` of a trigger is not available: a batch fires each window once
          ╭─[p.yaml:8:104]
        8 │     - {type: WindowInto, config: {windowing: {type: fixed, size: 60s, trigger: {type: after_watermark, early: 10}}}}
          ·                                                                                                        ─────
          ╰────
          help: leave it out, or write `trigger: default`: a window fires when it is complete
    "#]],
    );
    told(
        &windows("trigger: after_count, accumulation_mode: some"),
        expect![[r#"
        error[TB0219]: the trigger `after_count` is not available: a batch fires each window once
          ╭─[p.yaml:8:80]
        8 │     - {type: WindowInto, config: {windowing: {type: fixed, size: 60s, trigger: after_count, accumulation_mode: some}}}
          ·                                                                                ───────────
          ╰────
          help: leave it out, or write `trigger: default`: a window fires when it is complete

        error[TB0224]: unknown accumulation mode `some`
          ╭─[p.yaml:8:112]
        8 │     - {type: WindowInto, config: {windowing: {type: fixed, size: 60s, trigger: after_count, accumulation_mode: some}}}
          ·                                                                                                                ────
          ╰────
          modes: discarding, accumulating
    "#]],
    );
}

#[test]
fn a_providers_source_is_windowed_as_one() {
    gives(
        "
pipeline:
  type: chain
  transforms:
    - type: Timed
      windowing: {type: fixed, size: 10s}
    - {type: Combine, config: {group_by: [], combine: {t: sum}}}
    - {type: WriteToJson, config: {path: DIR/out}}
providers:
  - type: yaml
    transforms:
      Timed:
        requires_inputs: false
        body:
          type: chain
          transforms:
            - {type: Create, config: {elements: [{t: 1}, {t: 2}, {t: 15}]}}
            - {type: AssignTimestamps, config: {timestamp: t}}
",
        &[r#"{"t":15}"#, r#"{"t":3}"#],
    );
}

const TESTED: &str = "# A comment.
pipeline:
  type: chain
  transforms:
    - type: Create
      name: Source
      config: {elements: [{n: 1}]}
    - type: MapToFields
      name: Twice
      config: {language: python, fields: {n: n * 2, text: 'str(n)'}}
tests:
  - name: block
    mock_outputs:
      - name: Source
        elements: [{n: 2}, {n: 1}]
    expected_outputs:
      - name: Twice
        elements:
          # wrong
          - {n: 0, text: none}
          - n: 5
            text: \"5\"

  - name: flow
    mock_outputs: [{name: Source, elements: [{n: 7}]}]
    expected_outputs: [{name: Twice, elements: [{n: \"]\"}]}]
  - name: right
    mock_outputs: [{name: Source, elements: [{n: 1}]}]
    expected_outputs: [{name: Twice, elements: [{n: 2, text: '1'}]}]
";

#[test]
fn expectations_are_written_anew() {
    let runner = EmbeddedRunner::new(RunnerOptions::default().with_threads(1));
    // The second one is not even of the rows' types, so that the tests of the file cannot be loaded.
    let looks =
        load_looks("p.yaml", TESTED, &Variables::new()).map_err(|report| report.render(false)).unwrap();
    assert_eq!(looks.iter().map(|look| &*look.name).collect::<Vec<_>>(), ["block", "flow", "right"]);
    let wanted: Vec<_> = looks.into_iter().take(2).collect();
    wanted.iter().for_each(|look| drop(runner.run(&look.graph).unwrap()));
    let text = updated(TESTED, &wanted);
    expect![[r#"
        tests:
          - name: block
            mock_outputs:
              - name: Source
                elements: [{n: 2}, {n: 1}]
            expected_outputs:
              - name: Twice
                elements:
                  - {"n":2,"text":"1"}
                  - {"n":4,"text":"2"}

          - name: flow
            mock_outputs: [{name: Source, elements: [{n: 7}]}]
            expected_outputs: [{name: Twice, elements: [{"n":14,"text":"7"}]}]
          - name: right
            mock_outputs: [{name: Source, elements: [{n: 1}]}]
            expected_outputs: [{name: Twice, elements: [{n: 2, text: '1'}]}]
    "#]]
    .assert_eq(&text[text.find("tests:\n").unwrap()..]);
    let tests =
        load_tests("p.yaml", &text, &Variables::new(), &environment()).map_err(|r| r.render(false)).unwrap();
    tests.iter().for_each(|test| drop(runner.run(&test.graph).unwrap()));
    let report =
        load_looks("p.yaml", "pipeline: {transforms: []}\ntests: []\n# {{ 1 }}\n", &Variables::new());
    assert!(report.is_err());
}

#[test]
fn rows_of_about_one_length_share_batches() {
    const FIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/models/five.pth");
    let pipeline = |more: &str| {
        format!(
            "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{{x: 1.0, s: a}}, {{x: 2.0, s: bbbb}}, {{x: 3.0, s: cc}}]}}
    - type: RunInference
      config:
        model_handler:
          type: PytorchModelHandlerTensor
          config:
            state_dict_path: {FIVE}
            model_class: LinearRegression
            model_params: {{input_dim: 1, output_dim: 1}}
            inputs: {{x: x}}
            {more}
    - {{type: MapToFields, config: {{language: python, fields: {{y: round(inference)}}}}}}
    - {{type: WriteToJson, config: {{path: DIR/out}}}}
"
        )
    };
    gives(
        &pipeline(
            "batch_length_fn: len(s)
            batch_bucket_boundaries: [2, 4]
            element_size_fn: {callable: 'lambda row: len(row.s)'}
            max_batch_weight: 4
            max_batch_duration: 50ms",
        ),
        &[r#"{"y":10}"#, r#"{"y":15}"#, r#"{"y":5}"#],
    );
    told(
        &pipeline("batch_length_fn: s"),
        expect![[r#"
        error[TB0205]: the value is string, not the declared int64
           ╭─[p.yaml:16:30]
        16 │             batch_length_fn: s
           ·                              ─
           ╰────
    "#]],
    );
    told(
        &pipeline("batch_bucket_boundaries: [2, 4]"),
        expect![[r#"
        error[TB0320]: bucket_boundaries requires length_fn to be set.
           ╭─[p.yaml:16:38]
        16 │             batch_bucket_boundaries: [2, 4]
           ·                                      ──────
           ╰────
    "#]],
    );
    told(
        &pipeline("batch_length_fn: len(s)\n            batch_bucket_boundaries: [4, 2]"),
        expect![[r#"
        error[TB0320]: bucket_boundaries must be positive and ascending, got [4, 2]
           ╭─[p.yaml:17:38]
        17 │             batch_bucket_boundaries: [4, 2]
           ·                                      ──────
           ╰────
    "#]],
    );
}
