//! Whole pipeline files, run by the embedded runner.

#![allow(clippy::unwrap_used)] // the tests' own functions, too

use std::fs;
use std::sync::{Arc, Mutex};

use expect_test::{Expect, expect};
use tiebeam_runner::{EmbeddedRunner, RunnerOptions};
use tiebeam_yaml::{Environment, Variables, load};

/// The repository's models, from where tests run.
const MODELS: &str = "../../fixtures/models";

/// Runs a file in an empty folder `DIR`; gives what it printed, sorted, and what it logged.
fn run_in(dir: &tempfile::TempDir, yaml: &str) -> String {
    let yaml = yaml.replace("DIR", &dir.path().display().to_string()).replace("MODELS", MODELS);
    let printed: Arc<Mutex<Vec<u8>>> = Arc::default();
    let logged: Arc<Mutex<Vec<String>>> = Arc::default();
    let (print, log) = (printed.clone(), logged.clone());
    let environment = Environment::new(
        move |level, line| log.lock().unwrap().push(format!("{level:?}: {line}\n")),
        move |lines| {
            print.lock().unwrap().extend_from_slice(lines);
            Ok(())
        },
    );
    let shown = match load("p.yaml", &yaml, &Variables::new(), &environment) {
        Err(report) => report.render(false),
        Ok(loaded) => {
            match EmbeddedRunner::new(RunnerOptions::default().with_threads(2)).run(&loaded.graph) {
                Err(error) => format!("{error:?}\n"),
                Ok(report) => {
                    let mut lines: Vec<String> = String::from_utf8(printed.lock().unwrap().clone())
                        .unwrap()
                        .lines()
                        .map(str::to_owned)
                        .collect();
                    lines.sort();
                    let mut out: String = lines.iter().map(|line| format!("{line}\n")).collect();
                    let mut logged = logged.lock().unwrap().clone();
                    logged.sort();
                    out.extend(logged);
                    if report.dead_letters() > 0 {
                        out.push_str(&format!("{} dead letters\n", report.dead_letters()));
                    }
                    out
                }
            }
        }
    };
    shown.replace(&dir.path().display().to_string(), "DIR")
}

fn check(yaml: &str, expected: Expect) {
    let dir = tempfile::tempdir().unwrap();
    expected.assert_eq(&run_in(&dir, yaml));
}

#[test]
fn a_chain_computes_fields() {
    check(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config:
        elements:
          - {name: ada, born: 1815}
          - {name: grace, born: 1906}
    - type: MapToFields
      config:
        language: python
        append: true
        drop: born
        fields:
          shout: name.upper() + '!'
          century: born // 100 + 1
          half: {expression: born / 2, output_type: number}
          first: {callable: 'lambda row: row.name[0]'}
    - type: Filter
      config: {keep: century > 19}
    - type: WriteToStdout
",
        expect![[r#"
            {"name":"grace","shout":"GRACE!","century":20,"half":953.0,"first":"g"}
        "#]],
    );
}

#[test]
fn models_answer_rows() {
    check(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{value: 20}, {value: 30}, {value: 40}]}
    - type: RunInference
      config:
        inference_tag: five
        with_model_id: true
        model_handler:
          type: PytorchModelHandlerTensor
          config:
            state_dict_path: MODELS/five.pth
            model_class: LinearRegression
            model_params: {input_dim: 1, output_dim: 1}
            inputs: {x: value}
    - type: RunInference
      config:
        inference_tag: fifty
        model_handler:
          type: OnnxModelHandlerNumpy
          config:
            model_uri: MODELS/ten.onnx
            engine: rten
            max_batch_size: 2
            preprocess: {expression: five}
            postprocess: {callable: 'lambda x: x.inference + x.example.value'}
    - type: MapToFields
      config: {fields: {line: \"f'{value} {five} {fifty} {five_model_id}'\"}}
    - type: WriteToStdout
",
        expect![[r#"
            20 100.0 1020.0 ../../fixtures/models/five.pth
            30 150.0 1530.0 ../../fixtures/models/five.pth
            40 200.0 2040.0 ../../fixtures/models/five.pth
        "#]],
    );
}

#[test]
fn answers_may_come_without_their_rows() {
    let run = |handler: &str| {
        let yaml = format!(
            "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{{k: es, x: 2.0}}]}}
    - type: RunInference
      config: {{drop_example: true, with_model_id: true, inference_tag: x, model_handler: {handler}}}
    - type: LogForTesting
"
        );
        run_in(&tempfile::tempdir().unwrap(), &yaml)
    };
    // The answer may have a name that the row had.
    let five = "{type: OnnxModelHandlerNumpy, config: {model_uri: MODELS/five.onnx, postprocess: {expression: 'inference + example.x'}}}";
    assert_eq!(run(five), "Info: {\"x\":12.0,\"x_model_id\":\"../../fixtures/models/five.onnx\"}\n");
    let five = "{type: OnnxModelHandlerNumpy, config: {model_uri: MODELS/five.onnx}}";
    let keyed =
        format!("{{type: KeyedModelHandler, config: {{key: k, models: [{{keys: [es], handler: {five}}}]}}}}");
    assert_eq!(
        run(&keyed),
        "Info: {\"k\":\"es\",\"x\":10.0,\"x_model_id\":\"../../fixtures/models/five.onnx\"}\n"
    );
}

#[test]
fn targets_of_batches_are_those_of_beam() {
    let run = |targets: &str| {
        let yaml = format!(
            "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{{x: 2.0}}]}}
    - type: RunInference
      config:
        model_handler:
          type: OnnxModelHandlerNumpy
          config:
            model_uri: MODELS/five.onnx
            {targets}
    - type: LogForTesting
"
        );
        run_in(&tempfile::tempdir().unwrap(), &yaml)
    };
    for fine in [
        "target_batch_overhead: 0.1",
        "target_batch_overhead: null",
        "target_batch_duration_secs: 0.5",
        "target_batch_duration_secs: null",
        "target_batch_duration_secs_including_fixed_cost: 2",
        "variance: 0",
    ] {
        assert_eq!(run(fine), "Info: {\"x\":2.0,\"inference\":10.0}\n", "{fine}");
    }
    for (wrong, why) in [
        ("target_batch_overhead: 2", "target_batch_overhead (2) must be between 0 and 1"),
        ("target_batch_duration_secs: 0", "target_batch_duration must be more than nothing"),
        ("target_batch_duration_secs: -1", "`target_batch_duration_secs` is a number of seconds"),
        ("target_batch_duration_secs: long", "`target_batch_duration_secs` wants a number"),
        (
            "target_batch_duration_secs_including_fixed_cost: 0",
            "target_batch_duration_including_fixed_cost must be more than nothing",
        ),
        ("variance: 1.5", "variance (1.5) must be between 0 and 1"),
    ] {
        let shown = run(wrong);
        assert!(shown.contains(why), "{shown}");
        // The key itself is shown, not the step.
        assert!(shown.contains(&format!("{wrong}\n")), "{shown}");
    }
}

#[test]
fn the_files_of_models_travel_with_the_pipeline() {
    let yaml = "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{value: 20}]}
    - type: RunInference
      config:
        model_handler:
          type: OnnxModelHandlerNumpy
          config: {model_uri: ../../fixtures/models/ten.onnx, inputs: {x: value}}
    - type: RunInference
      config:
        inference_tag: five
        model_handler:
          type: PytorchModelHandlerTensor
          config:
            state_dict_path: ../../fixtures/models/five.pth
            model_class: LinearRegression
            model_params: {input_dim: 1, output_dim: 1}
            inputs: {x: value}
";
    let environment = Environment::new(|_, _| {}, |_| Ok(()));
    let loaded = load("p.yaml", yaml, &Variables::new(), &environment).map_err(|report| report.render(false));
    let files = &loaded.unwrap().graph.files;
    let wanted = ["ten.onnx", "five.pth"].map(|name| format!("../../fixtures/models/{name}"));
    assert_eq!(*files, wanted.map(std::path::PathBuf::from));
}

#[test]
fn rows_that_fail_go_to_the_error_output() {
    check(
        "
pipeline:
  transforms:
    - type: Create
      config: {elements: [{a: 6, b: 3}, {a: 1, b: 0}, {a: 8, b: 4}, {a: null, b: 1}]}
    - type: MapToFields
      name: Divide
      input: Create
      config:
        append: true
        fields: {q: a / b}
        error_handling: {output: bad}
    - type: WriteToStdout
      input: Divide
    - type: WriteToStdout
      name: Bad
      input: Divide.bad
",
        expect![[r#"
            {"a":6,"b":3,"q":2.0}
            {"a":8,"b":4,"q":2.0}
            {"element":{"a":1,"b":0},"msg":"division by zero","stack":"ZeroDivisionError: division by zero\n  in `a / b`"}
            {"element":{"a":null,"b":1},"msg":"unsupported operand type(s) for /: 'NoneType' and 'int'","stack":"TypeError: unsupported operand type(s) for /: 'NoneType' and 'int'\n  in `a / b`"}
            2 dead letters
        "#]],
    );
    check(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{a: 1, b: 0}]}
    - type: Filter
      config: {keep: a / b > 1}
    - type: LogForTesting
",
        expect![[r#"
            error[TB0225]: Filter: ZeroDivisionError: division by zero (in `a / b` of `a / b > 1`)
              help: send failing rows to an output: `error_handling: {output: errors}`
        "#]],
    );
    check(
        "
pipeline:
  transforms:
    - type: Create
      config: {elements: [{x: 1.5}, {x: null}, {x: 2.0}]}
    - type: RunInference
      input: Create
      config:
        error_handling: {output: failed}
        model_handler:
          type: OnnxModelHandlerNumpy
          config: {model_uri: MODELS/five.onnx}
    - type: WriteToStdout
      input: RunInference
    - type: LogForTesting
      input: RunInference.failed
      config: {prefix: 'failed '}
",
        expect![[r#"
            {"x":1.5,"inference":7.5}
            {"x":2.0,"inference":10.0}
            Info: failed {"element":{"x":null},"msg":"input `x`: a tensor wants numbers or arrays of numbers, got null","stack":"error[TB0313]: BeamML_RunInference_Preprocess-0: input `x`: a tensor wants numbers or arrays of numbers, got null"}
            1 dead letters
        "#]],
    );
}

#[test]
fn composites_flattens_and_partitions() {
    check(
        "
pipeline:
  type: composite
  transforms:
    - type: Create
      name: A
      config: {elements: [{x: 1}, {x: 2}]}
    - type: Create
      name: B
      config: {elements: [{x: 2.5, y: b}]}
    - type: chain
      name: Double
      input: [A, B]
      transforms:
        - type: MapToFields
          config: {append: true, fields: {z: x * 2}}
        - type: Filter
          config: {keep: z > 2}
    - type: composite
      name: Split
      input: {rows: Double}
      output: {small: Sort.small, big: Sort.big}
      transforms:
        - type: Partition
          name: Sort
          input: rows
          config:
            by: \"'small' if z < 5 else 'huge'\"
            outputs: [small, big]
            unknown_output: big
    - type: WriteToStdout
      input: Split.small
    - type: LogForTesting
      input: Split.big
",
        expect![[r#"
            {"x":2.0,"y":null,"z":4.0}
            Info: {"x":2.5,"y":"b","z":5.0}
        "#]],
    );
    check(
        "
pipeline:
  type: chain
  source:
    type: Create
    config: {elements: [{k: a, xs: [1, 2], ys: [x]}, {k: b, xs: [], ys: []}, {k: c, xs: [3], ys: [y, z]}]}
  transforms:
    - type: Explode
      config: {fields: [xs, ys], cross_product: false}
  sink:
    type: WriteToStdout
",
        expect![[r#"
            {"k":"a","xs":1,"ys":"x"}
            {"k":"a","xs":2,"ys":null}
            {"k":"c","xs":3,"ys":"y"}
            {"k":"c","xs":null,"ys":"z"}
        "#]],
    );
}

#[test]
fn files_are_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("in.csv"), "name;n\nada;1\ngrace;x\nalan;3\n").unwrap();
    let shown = run_in(
        &dir,
        "
pipeline:
  type: chain
  transforms:
    - type: ReadFromCsv
      config: {path: DIR/in.csv, delimiter: ';'}
    - type: MapToFields
      config: {fields: {name: name, long: {expression: len(name) > 3}, n: n}}
    - type: WriteToJson
      config: {path: DIR/out/rows, num_shards: 1}
",
    );
    assert_eq!(shown, "");
    assert_eq!(fs::read_to_string(dir.path().join("out/rows-00000-of-00001")).unwrap().lines().count(), 3);
    let shown = run_in(
        &dir,
        "
pipeline:
  transforms:
    - type: ReadFromJson
      config: {path: DIR/out/rows*}
    - type: WriteToCsv
      input: ReadFromJson
      config: {path: DIR/out/csv}
    - type: MapToFields
      input: ReadFromJson
      config: {fields: {line: \"f'{name}={n}'\"}}
    - type: WriteToText
      input: MapToFields
      config: {path: DIR/out/text, num_shards: 1}
    - type: WriteToStdout
      input: ReadFromJson
",
    );
    expect![[r#"
        {"name":"ada","long":false,"n":"1"}
        {"name":"alan","long":true,"n":"3"}
        {"name":"grace","long":true,"n":"x"}
    "#]]
    .assert_eq(&shown);
    let mut lines: Vec<String> = fs::read_to_string(dir.path().join("out/text-00000-of-00001"))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    assert_eq!(lines, ["ada=1", "alan=3", "grace=x"]);
    let shown = run_in(
        &dir,
        "
pipeline:
  transforms:
    - type: ReadFromText
      name: Lines
      config: {path: DIR/in.csv}
    - type: WriteToStdout
      input: Lines
    - type: ReadFromText
      name: Nothing
      config: {path: no/such-*.txt}
    - type: LogForTesting
      input: Nothing
",
    );
    expect![[r#"
        error[TB0403]: no file matches `no/such-*.txt`
           ╭─[p.yaml:11:22]
        11 │       config: {path: no/such-*.txt}
           ·                      ─────────────
           ╰────
          help: check the path, or allow patterns that match nothing
    "#]]
    .assert_eq(&shown);
}

#[test]
fn windows_and_times() {
    check(
        "
pipeline:
  type: chain
  windowing: {type: fixed, size: 1m}
  transforms:
    - type: Create
      config: {elements: [{t: 30}, {t: 90.5}]}
    - type: AssignTimestamps
      config: {timestamp: t}
    - type: WindowInto
      config: {windowing: {type: sliding, size: 1h, period: 30m}}
    - type: LogForTesting
      windowing: {type: sessions, gap: 500ms}
",
        expect![[r#"
            Info: {"t":30.0}
            Info: {"t":90.5}
        "#]],
    );
    check(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [1]}
    - type: WindowInto
      config: {windowing: {type: fixd, size: 60s}}
    - type: WindowInto
      config: {windowing: {type: fixed, size: 60 parsecs}}
    - type: WindowInto
      config: {windowing: {type: sliding, size: 60}}
    - type: LogForTesting
      windowing: {type: global, size: 3s}
",
        expect![[r#"
            error[TB0224]: unknown window type `fixd`
              ╭─[p.yaml:8:34]
            8 │       config: {windowing: {type: fixd, size: 60s}}
              ·                                  ────
              ╰────
              types: fixed, sliding, sessions, global
              help: did you mean `fixed`?

            error[TB0224]: `60 parsecs` is no duration
               ╭─[p.yaml:10:47]
            10 │       config: {windowing: {type: fixed, size: 60 parsecs}}
               ·                                               ──────────
               ╰────
              help: write a number and its unit: 500ms, 30s, 5m, 1h, 1d

            error[TB0207]: sliding windows lacks the key `period`
               ╭─[p.yaml:12:27]
            12 │       config: {windowing: {type: sliding, size: 60}}
               ·                           ─────────────────────────
               ╰────
              help: period: how often a window begins

            error[TB0231]: unknown key `size` in global windows
               ╭─[p.yaml:14:33]
            14 │       windowing: {type: global, size: 3s}
               ·                                 ────
               ╰────
              keys here: type
        "#]],
    );
}

#[test]
fn assertions_hold_or_fail_the_job() {
    let pipeline = |wanted: &str| {
        format!(
            "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{{x: 1}}, {{x: 2}}]}}
    - type: MapToFields
      config: {{fields: {{y: x * 10}}}}
    - type: AssertEqual
      config: {{elements: {wanted}}}
"
        )
    };
    check(&pipeline("[{y: 20}, {y: 10}]"), expect![[""]]);
    check(
        &pipeline("[{y: 20}, {y: 11}]"),
        expect![[r#"
        error[TB0228]: AssertEqual/Compare: the rows are not those wanted; missing: {y: 11}; not wanted: {y: 10}
    "#]],
    );
}

#[test]
fn every_mistake_is_told_at_once_in_the_file() {
    check(
        "
pipline: 3
pipeline:
  transforms:
    - type: Create
      name: Rows
      config:
        elements: [{col1: a, col2: 1}]
        reshufle: true
    - type: MapToField
      input: Rows
    - type: MapToFields
      name: Twice
      input: Rows
      config:
        fields:
          n: col9 + 1
          m: \"col1 - 1\"
          k: |
            len(col1) +
              col3
        error_handling: {}
    - type: Filter
      name: Twice
      input: Twise
      cofnig: {keep: n > 1}
    - type: Filter
      name: Lost
      config: {keep: 1 +}
    - type: WriteToJson
      input: Rows
      path: out
    - type: WriteToBigQuery
      input: Rows
    - type: Filter
      name: First
      input: Second
      config: {keep: 'True'}
    - type: Filter
      name: Second
      input: First
      config: {keep: 'True', error_handling: {output: bad}}
providers:
  - type: javaJar
    config: {jar: x.jar}
    transforms: {X: 'urn:x'}
",
        expect![[r#"
            error[TB0231]: unknown key `pipline` in a pipeline file
              ╭─[p.yaml:2:1]
            2 │ pipline: 3
              · ───────
              ╰────
              keys here: options, pipeline, providers, tests
              help: did you mean `pipeline`?

            error[TB0231]: unknown key `reshufle` in `Create`
              ╭─[p.yaml:9:9]
            9 │         reshufle: true
              ·         ────────
              ╰────
              keys here: elements, reshuffle
              help: did you mean `reshuffle`?

            error[TB0232]: unknown transform type `MapToField`
               ╭─[p.yaml:10:13]
            10 │     - type: MapToField
               ·             ──────────
               ╰────
              help: did you mean `MapToFields`?

            error[TB0204]: unknown column `col9`
               ╭─[p.yaml:17:14]
            17 │           n: col9 + 1
               ·              ──┬─
               ·                ╰── not produced by `Rows`
               ╰────
              columns here: col1 (string), col2 (int64)
              help: did you mean `col1`?

            error[TB0205]: `-` has no meaning for string and int64
               ╭─[p.yaml:18:15]
            18 │           m: "col1 - 1"
               ·               ────────
               ╰────
              help: convert with `int()` or `float()`

            error[TB0204]: unknown column `col3`
               ╭─[p.yaml:21:15]
            21 │               col3
               ·               ──┬─
               ·                 ╰── not produced by `Rows`
               ╰────
              columns here: col1 (string), col2 (int64)
              help: did you mean `col1`?

            error[TB0207]: `error_handling` lacks the key `output`
               ╭─[p.yaml:22:9]
            22 │         error_handling: {}
               ·         ──────────────
               ╰────
              help: output: the name of the output of failed rows

            error[TB0209]: the name `Twice` is used twice
               ╭─[p.yaml:24:13]
            24 │       name: Twice
               ·             ──┬──
               ·               ╰── first used on line 13
               ╰────
              help: give each a name of its own: references go by it

            error[TB0233]: unknown input `Twise`
               ╭─[p.yaml:25:14]
            25 │       input: Twise
               ·              ─────
               ╰────
              here: Rows, MapToField, Twice, Twice, Lost, WriteToJson, WriteToBigQuery, First, Second
              help: did you mean `Twice`?

            error[TB0231]: unknown key `cofnig` in a transform
               ╭─[p.yaml:26:7]
            26 │       cofnig: {keep: n > 1}
               ·       ──────
               ╰────
              keys here: config, input, name, resource_hints, type, windowing
              help: did you mean `config`?

            error[TB0221]: `Lost` lacks its input
               ╭─[p.yaml:28:13]
            28 │       name: Lost
               ·             ────
               ╰────
              help: add `input: NAME`

            error[TB0231]: unknown key `path` in a transform
               ╭─[p.yaml:32:7]
            32 │       path: out
               ·       ────
               ╰────
              keys here: config, input, name, resource_hints, type, windowing
              help: `path` belongs under `config`

            error[TB0232]: `WriteToBigQuery` is a transform of Beam's that this build does not have
               ╭─[p.yaml:33:13]
            33 │     - type: WriteToBigQuery
               ·             ───────────────
               ╰────
              it talks to a cloud service, for which there is no connector here
              help: read and write files beside it

            error[TB0234]: these transforms wait for each other: Second → First → Second
               ╭─[p.yaml:40:13]
            40 │       name: Second
               ·             ──────
               ╰────
              help: one of them must read something that is not made of its own output

            error[TB0235]: the errors of `Second` are not consumed
               ╭─[p.yaml:42:55]
            42 │       config: {keep: 'True', error_handling: {output: bad}}
               ·                                                       ───
               ╰────
              help: use `Second.bad` as the input of another transform

            error[TB0219]: a provider of type `javaJar` is not available
               ╭─[p.yaml:44:11]
            44 │   - type: javaJar
               ·           ───────
               ╰────
              such providers run transforms of other SDKs; this build has its own, and those of `type: yaml`
              help: `tiebeam transforms` lists its own
        "#]],
    );
}

#[test]
fn mistakes_around_models_are_told_before_the_run() {
    let pipeline = |config: &str| {
        format!(
            "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{{value: 1, name: x, inference: 2}}]}}
    - type: RunInference
      config:
{}
    - type: LogForTesting
",
            config.trim_matches('\n').lines().map(|line| format!("        {line}\n")).collect::<String>()
        )
    };
    let onnx = |config: &str| {
        pipeline(&format!(
            "inference_tag: y\nmodel_handler:\n  type: OnnxModelHandlerNumpy\n  config: {config}\n"
        ))
    };
    check(
        &onnx("{model_uri: MODELS/five.onnx, inputs: {x: nme}}"),
        expect![[r#"
        error[TB0204]: unknown column `nme`
           ╭─[p.yaml:12:76]
        12 │           config: {model_uri: ../../fixtures/models/five.onnx, inputs: {x: nme}}
           ·                                                                            ─┬─
           ·                                                                             ╰── not produced by `Create`
           ╰────
          columns here: value (int64), name (string), inference (int64)
          help: did you mean `name`?
    "#]],
    );
    check(
        &onnx("{model_uri: MODELS/five.onnx, inputs: {x: name}}"),
        expect![[r#"
            error[TB0205]: column `name` is string, the model wants float32
               ╭─[p.yaml:12:76]
            12 │           config: {model_uri: ../../fixtures/models/five.onnx, inputs: {x: name}}
               ·                                                                            ────
               ╰────
              the model's input: x (float32 [n, 1])
              help: give it columns of that type, as many as its shape has numbers a row; MapToFields makes them
        "#]],
    );
    check(
        &onnx("{model_uri: MODELS/five.onnx, inputs: {z: value}}"),
        expect![[r#"
            error[TB0207]: `inputs` lacks the model's input `x`
               ╭─[p.yaml:12:72]
            12 │           config: {model_uri: ../../fixtures/models/five.onnx, inputs: {z: value}}
               ·                                                                        ──────────
               ╰────

            error[TB0231]: the model has no input `z`
               ╭─[p.yaml:12:73]
            12 │           config: {model_uri: ../../fixtures/models/five.onnx, inputs: {z: value}}
               ·                                                                         ─
               ╰────
              its inputs: x
        "#]],
    );
    check(
        &onnx("{model_uri: MODELS/five.onnx, inputs: {x: [value, value]}}"),
        expect![[r#"
            error[TB0205]: a row brings 2 numbers, which does not fit the shape [n, 1]
               ╭─[p.yaml:12:76]
            12 │           config: {model_uri: ../../fixtures/models/five.onnx, inputs: {x: [value, value]}}
               ·                                                                            ──────────────
               ╰────
              the model's input: x (float32 [n, 1])
              help: give it columns of that type, as many as its shape has numbers a row; MapToFields makes them
        "#]],
    );
    check(
        &onnx("{model_uri: MODELS/five.onnx}"),
        expect![[r#"
        error[TB0207]: no column is called like the model's input `x`
           ╭─[p.yaml:12:31]
        12 │           config: {model_uri: ../../fixtures/models/five.onnx}
           ·                               ───────────────────────────────
           ╰────
          columns here: value (int64), name (string), inference (int64)
          help: say which: `inputs: {x: COLUMN}`
    "#]],
    );
    check(
        &onnx("{model_uri: MODELS/none.onnx, inputs: {x: value}, sha256: 3}"),
        expect![[r#"
        error[TB0208]: `sha256` wants a string, got an integer
           ╭─[p.yaml:12:92]
        12 │           config: {model_uri: ../../fixtures/models/none.onnx, inputs: {x: value}, sha256: 3}
           ·                                                                                            ─
           ╰────
    "#]],
    );
    check(
        &onnx("{model_uri: MODELS/none.onnx, inputs: {x: value}}"),
        expect![[r#"
        error[TB0330]: model ../../fixtures/models/none.onnx: there is no such file
           ╭─[p.yaml:12:31]
        12 │           config: {model_uri: ../../fixtures/models/none.onnx, inputs: {x: value}}
           ·                               ───────────────────────────────
           ╰────
          caused by: No such file or directory (os error 2)
    "#]],
    );
    check(
        &onnx("{model_uri: MODELS/five.pth, inputs: {x: value}}"),
        expect![[r#"
        error[TB0331]: model ../../fixtures/models/five.pth: not an ONNX model, this looks like a PyTorch file (zip)
           ╭─[p.yaml:12:31]
        12 │           config: {model_uri: ../../fixtures/models/five.pth, inputs: {x: value}}
           ·                               ──────────────────────────────
           ╰────
    "#]],
    );
    check(
        &onnx("{model_uri: MODELS/five.onnx, inputs: {x: value}, engine: gpu, max_batch_size: 0}"),
        expect![[r#"
        error[TB0208]: unknown engine `gpu`
           ╭─[p.yaml:12:92]
        12 │           config: {model_uri: ../../fixtures/models/five.onnx, inputs: {x: value}, engine: gpu, max_batch_size: 0}
           ·                                                                                            ───
           ╰────
          engines: auto, rten, ort

        error[TB0208]: `max_batch_size` is a number from 1 up
           ╭─[p.yaml:12:113]
        12 │           config: {model_uri: ../../fixtures/models/five.onnx, inputs: {x: value}, engine: gpu, max_batch_size: 0}
           ·                                                                                                                 ─
           ╰────
    "#]],
    );
    check(
        &pipeline(
            "
model_handler:
  type: OnnxModelHandler
  config: {}
",
        ),
        expect![[r#"
            error[TB0232]: unknown model handler `OnnxModelHandler`
               ╭─[p.yaml:10:17]
            10 │           type: OnnxModelHandler
               ·                 ────────────────
               ╰────
              handlers here: OnnxModelHandlerNumpy, PytorchModelHandlerTensor, PytorchModelHandlerKeyedTensor, XGBoostModelHandlerNumpy, LightGBMModelHandler, TFModelHandlerNumpy, KeyedModelHandler, OpenAIModelHandler, KServeModelHandler, VertexAIModelHandlerJSON, SentenceTransformerModelHandler
              help: did you mean `OpenAIModelHandler`?
        "#]],
    );
    check(
        &pipeline(
            "
inference_args: {temperature: 1}
model_handler:
  type: PytorchModelHandlerTensor
  config: {state_dict_path: MODELS/five.pth, model_class: LinearRegresion, inputs: {x: value}}
",
        ),
        expect![[r#"
            error[TB0208]: PytorchModelHandlerTensor takes no inference_args, got `temperature`
              ╭─[p.yaml:9:26]
            9 │         inference_args: {temperature: 1}
              ·                          ───────────
              ╰────
              help: what a model needs is told by `inputs`

            error[TB0371]: there is no architecture `LinearRegresion`
               ╭─[p.yaml:12:82]
            12 │           config: {state_dict_path: ../../fixtures/models/five.pth, model_class: LinearRegresion, inputs: {x: value}}
               ·                                                                                  ───────────────
               ╰────
              help: did you mean `LinearRegression`?
        "#]],
    );
    check(
        &pipeline(
            "
model_handler:
  type: PytorchModelHandlerTensor
  config:
    state_dict_path: MODELS/five.pth
    model_class: LinearRegression
    model_params: {input_dim: 1, output_dim: 1}
    inputs: {x: value}
",
        ),
        expect![[r#"
            error[TB0209]: the input has a field `inference` already
              ╭─[p.yaml:7:13]
            7 │     - type: RunInference
              ·             ────────────
              ╰────
              help: give the answer another name: `inference_tag`
        "#]],
    );
}

#[test]
fn a_pipeline_that_was_meant_as_a_chain_is_told_so() {
    check(
        "
pipeline:
  transforms:
    - type: Create
      config: {elements: [1, 2]}
    - type: LogForTesting
",
        expect![[r#"
            error[TB0221]: `LogForTesting` lacks its input
              ╭─[p.yaml:6:13]
            6 │     - type: LogForTesting
              ·             ─────────────
              ╰────
              help: add `type: chain` to the pipeline, or `input: NAME` to each transform
        "#]],
    );
    check(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [1, 2]}
    - type: Filter
      input: Create
      config: {keep: element > 1}
    - type: WriteToStdout
    - type: LogForTesting
",
        expect![[r#"
            error[TB0220]: `Filter` is part of a chain, which gives it its input
              ╭─[p.yaml:8:14]
            8 │       input: Create
              ·              ──────
              ╰────
              help: remove `input`, or use `type: composite`

            error[TB0233]: the transform before gives no output to read
               ╭─[p.yaml:11:13]
            11 │     - type: LogForTesting
               ·             ─────────────
               ╰────
              help: a sink ends its branch
        "#]],
    );
}

#[test]
fn an_output_schema_is_held_before_the_run() {
    let pipeline = |schema: &str| {
        format!(
            "
pipeline:
  type: chain
  transforms:
    - type: Create
      config:
        elements: [{{sdk: MapReduce, year: 2004}}]
        output_schema: {schema}
    - type: WriteToStdout
"
        )
    };
    let fine = "{type: object, properties: {sdk: {type: string}, year: {type: number}}}";
    check(
        &pipeline(fine),
        expect![[r#"
        {"sdk":"MapReduce","year":2004}
    "#]],
    );
    check(
        &pipeline("{type: object, properties: {sdk: {type: integer}}}"),
        expect![[r#"
        error[TB0205]: `sdk` is string, not nullable int64
          ╭─[p.yaml:8:52]
        8 │         output_schema: {type: object, properties: {sdk: {type: integer}}}
          ·                                                    ───
          ╰────
    "#]],
    );
    check(
        &pipeline("{type: object, properties: {yaer: {type: integer}}, required: [yaer]}"),
        expect![[r#"
        error[TB0204]: the rows have no field `yaer`
          ╭─[p.yaml:8:52]
        8 │         output_schema: {type: object, properties: {yaer: {type: integer}}, required: [yaer]}
          ·                                                    ────
          ╰────
          columns here: sdk (string), year (int64)
    "#]],
    );
    check(
        &pipeline("{type: object, properties: {year: {type: integer, minimum: 3}}}"),
        expect![[r#"
        error[TB0219]: `minimum` in an output_schema is not available in this build
          ╭─[p.yaml:8:74]
        8 │         output_schema: {type: object, properties: {year: {type: integer, minimum: 3}}}
          ·                                                                          ───────
          ╰────
          help: an output_schema tells types; check values with `Filter`
    "#]],
    );
    check(
        &pipeline("{type: array}"),
        expect![[r#"
        error[TB0207]: type `array` lacks `items`
          ╭─[p.yaml:8:31]
        8 │         output_schema: {type: array}
          ·                               ─────
          ╰────
    "#]],
    );
}

#[test]
fn images_become_tensors() {
    // Two pixels, red and blue, as a bitmap of 24 bits: the rows of a bitmap are padded to four bytes.
    let mut bitmap = b"BM\x3e\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\x18\0".to_vec();
    bitmap.extend([0; 24]);
    bitmap.extend([0, 0, 255, 255, 0, 0, 0, 0]);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.bmp"), &bitmap).unwrap();
    fs::write(dir.path().join("b.bmp"), b"no image").unwrap();
    let shown = run_in(
        &dir,
        "
pipeline:
  transforms:
    - type: ReadImages
      config: {path: DIR/*.bmp, error_handling: {output: damaged}}
    - type: ImageToTensor
      input: ReadImages
      config: {size: [1, 2], mean: 0.5, std: [0.5, 0.5, 0.5], to: image}
    - type: MapToFields
      name: Shape
      input: ImageToTensor
      config: {fields: {file: \"file.split('/')[-1]\", shape: {callable: 'lambda r: r.image.shape'}}}
    - type: WriteToStdout
      input: Shape
    - type: MapToFields
      name: Why
      input: ReadImages.damaged
      config: {fields: {bytes: len(element)}}
    - type: WriteToStdout
      name: Damaged
      input: Why
",
    );
    expect![[r#"
        21
        {"file":"a.bmp","shape":[3,1,2]}
        1 dead letters
    "#]]
    .assert_eq(&shown);
    check(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{image: x}]}
    - type: ImageToTensor
      config: {size: [0, 2]}
",
        expect![[r#"
            error[TB0205]: `image` is string, no image
              ╭─[p.yaml:7:13]
            7 │     - type: ImageToTensor
              ·             ─────────────
              ╰────
              help: images come from `ReadImages` or `DecodeImage`
        "#]],
    );
}

/// Beam's own case: what goes in is computed of a row, what comes out of the answer, and the rest of the row stays.
#[test]
fn c42_preprocess_and_postprocess_around_a_model() {
    check(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{q: 1}, {q: 5}]}
    - type: RunInference
      config:
        inference_tag: pred
        model_handler:
          type: OnnxModelHandlerNumpy
          config:
            model_uri: MODELS/five.onnx
            preprocess: {callable: 'lambda r: float(r.q)'}
            postprocess: {callable: 'lambda x: int(x.inference) // 5 + 1'}
    - type: LogForTesting
",
        expect![[r#"
            Info: {"q":1,"pred":2}
            Info: {"q":5,"pred":6}
        "#]],
    );
}

#[test]
fn e_yaml_extra_keys_of_a_handler_are_told_in_beams_words() {
    let yaml = "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{q: 1.0}]}
    - type: RunInference
      config:
        model_handler:
          type: OnnxModelHandlerNumpy
          foo: 1
          config: {model_uri: MODELS/five.onnx}
";
    let shown = run_in(&tempfile::tempdir().unwrap(), yaml);
    assert!(shown.contains("Unexpected parameters in model_handler: {'foo'}"), "{shown}");
}

/// Trees take their columns by the features' names or in order; a null and a column that is not there are missing values.
#[test]
fn trees_take_columns_by_name_or_in_order_and_nulls_as_missing() {
    use tiebeam_inference::{InferenceArgs, ModelHandler, Tensor};
    let path = format!("{MODELS}/trees/lgb_named.txt");
    let handler = tiebeam_trees::TreesModelHandler::lightgbm(&path);
    let model = handler.load_model().unwrap();
    let names: Vec<String> = model.feature_names().iter().map(|name| name.to_string()).collect();
    let row = |first: f64, second: f64| {
        let mut row = vec![f64::NAN; names.len()];
        (row[0], row[1]) = (first, second);
        Tensor::vector(row)
    };
    let wanted =
        handler.run_inference(&[row(1.5, 2.5), row(1.5, f64::NAN)], &model, &InferenceArgs::none()).unwrap();
    let wanted: Vec<f64> = wanted.iter().map(|y| y.to_scalar().unwrap()).collect();
    let run = |fields: [&str; 2], features: &str| {
        let yaml = format!(
            "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{{n: 0, {a}: 1.5, {b}: 2.5}}, {{n: 1, {a}: 1.5, {b}: null}}]}}
    - type: RunInference
      config:
        model_handler:
          type: LightGBMModelHandler
          config: {{model_uri: MODELS/trees/lgb_named.txt{features}}}
    - type: MapToFields
      config: {{fields: {{n: n, y: inference}}}}
    - type: LogForTesting
",
            a = fields[0],
            b = fields[1],
        );
        run_in(&tempfile::tempdir().unwrap(), &yaml)
    };
    let told: String = wanted
        .iter()
        .enumerate()
        .map(|(n, y)| format!("Info: {}\n", serde_json::json!({"n": n, "y": y})))
        .collect();
    assert_eq!(run([&names[0], &names[1]], ""), told);
    let shown = run(["a", "b"], ", features: [a, b]");
    let wrong = format!("the model has {} features, 2 columns are listed", names.len());
    assert!(shown.contains(&wrong), "{shown}");
    let shown = run(["a", "b"], "");
    assert!(shown.contains("no column is called like the model's input"), "{shown}");
    let all: Vec<&str> = ["a", "b"].into_iter().chain(std::iter::repeat_n("b", names.len() - 2)).collect();
    let shown = run(["a", "b"], &format!(", features: [{}]", all.join(", ")));
    assert!(shown.starts_with("Info: {\"n\":0,\"y\":"), "{shown}");
}

#[test]
fn texts_are_categories_of_xgboosts_models_by_name() {
    let run = |color: &str, city: &str| {
        let yaml = format!(
            "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{{n: 0, income: 1.5, visits: 0.0, balance: 0.5, color: {color}, city: {city}}}]}}
    - type: RunInference
      config:
        model_handler:
          type: XGBoostModelHandlerNumpy
          config: {{model_uri: MODELS/trees/xgb_named.json}}
    - type: MapToFields
      config: {{fields: {{n: n, y: inference}}}}
    - type: LogForTesting
"
        );
        run_in(&tempfile::tempdir().unwrap(), &yaml)
    };
    // What XGBoost says of that row. In its file `color1` stands fourth, and `town14` third.
    let said = |y: &str| format!("Info: {{\"n\":0,\"y\":{y}}}\n");
    assert_eq!(run("color2", "town14"), said("0.8130791"));
    assert_eq!(run("color1", "town14"), said("0.9625255"));
    assert_eq!(run("color2", "town0"), said("0.72058237"));
    assert_eq!(run("3", "2"), said("0.9625255"));
    let shown = run("mauve", "town14");
    assert!(shown.contains("feature `color` has no category `mauve`, it has `color0`, `color2`"), "{shown}");
}

#[test]
fn a_tensorflow_lite_model_over_rows() {
    let yaml = "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{x: [1.0]}]}
    - type: RunInference
      config:
        model_handler:
          type: TFModelHandlerNumpy
          config: {model_uri: MODELS/tflite/mobile.tflite}
";
    // It is an image model: a list of numbers is none, and its input is told.
    let shown = run_in(&tempfile::tempdir().unwrap(), yaml);
    assert!(shown.contains("error[TB0205]") && shown.contains("the model's input"), "{shown}");
}

#[test]
fn a_models_time_and_its_nan_are_bounded_and_newer_files_watched() {
    let with = |more: &str| {
        let yaml = format!(
            "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{{x: 2.0}}, {{x: 4.0}}]}}
    - type: RunInference
      config:
        model_handler:
          type: OnnxModelHandlerNumpy
          config: {{model_uri: MODELS/five.onnx, {more}}}
    - type: LogForTesting
"
        );
        run_in(&tempfile::tempdir().unwrap(), &yaml)
    };
    let fine = "Info: {\"x\":2,\"inference\":10}\nInfo: {\"x\":4,\"inference\":20}\n";
    for more in [
        "timeout: 60",
        "timeout: 1.5m",
        "nan: fail",
        "watch_model_pattern: {pattern: DIR/v*.onnx, interval: 10ms}",
        "watch_model_pattern: {pattern: DIR/v*.onnx}",
        "watch_model_pattern: {pattern: DIR/v*.onnx}, rollout: {canary: 0.1, promote_after: 1000}",
        "watch_model_pattern: {pattern: DIR/v*.onnx}, rollout: {shadow: 1}",
        "max_queue_bytes: 1000",
        "isolation: none",
    ] {
        assert_eq!(with(more).replace(".0", ""), fine, "{more}");
    }
    for (more, told) in [
        ("timeout: 0", "`timeout` is a number of seconds, or a duration such as 500ms"),
        ("nan: dead_letter", "`nan: dead_letter` needs `error_handling`"),
        ("nan: maybe", "`nan` is pass, dead_letter or fail"),
        ("watch_model_pattern: {interval: 1}", "pattern"),
        ("rollout: {canary: 0.1}", "`rollout` is about newer models, and none are looked for"),
        ("watch_model_pattern: {pattern: v*}, rollout: {canary: 2}", "above 0 and at most 1"),
        (
            "watch_model_pattern: {pattern: v*}, rollout: {canary: 1, shadow: 1}",
            "`{canary: SHARE}` or `{shadow: SHARE}`",
        ),
        (
            "watch_model_pattern: {pattern: v*}, rollout: {canary: 1, promote_after: 0}",
            "`promote_after` is a number",
        ),
        ("max_queue_bytes: 0", "`max_queue_bytes` is a number from 1 up"),
        ("isolation: thread", "`isolation` is process, none, or a map such as `{memory_mb: 2000}`"),
        ("isolation: {memory_mb: 0}", "`memory_mb` is a number from 1 up"),
        ("isolation: {memory: 1}", "memory_mb"),
    ] {
        assert!(with(more).contains(told), "{more}: {}", with(more));
    }
}

#[test]
fn a_models_failures_are_bounded_by_a_threshold() {
    let with = |threshold: &str| {
        let yaml = format!(
            "
pipeline:
  type: composite
  transforms:
    - type: Create
      config: {{elements: [{{x: 2.0}}, {{x: null}}, {{x: 4.0}}]}}
    - type: RunInference
      name: Ask
      input: Create
      config:
        error_handling: {{output: bad, threshold: {threshold}}}
        model_handler:
          type: OnnxModelHandlerNumpy
          config: {{model_uri: MODELS/five.onnx}}
    - type: LogForTesting
      input: Ask
    - type: LogForTesting
      name: Bad
      input: Ask.bad
"
        );
        run_in(&tempfile::tempdir().unwrap(), &yaml)
    };
    let fine = with("0.5");
    assert!(fine.contains("\"inference\":20") && fine.contains("error[TB"), "{fine}");
    let ended = with("0.1");
    assert!(ended.contains("threshold"), "{ended}");
    assert!(with("2").contains("`threshold` is a number from 0 to 1"));
}

/// Whoever names a model that is loaded already gets that one, whatever file it names itself.
#[test]
fn steps_of_one_model_identifier_share_a_model() {
    let with = |second: &str| {
        let ask = |name: &str, file: &str, identifier: &str| {
            format!(
                "
    - type: RunInference
      name: {name}
      input: Create
      config:
        model_identifier: {identifier}
        metrics_namespace: Ours
        model_handler: {{type: OnnxModelHandlerNumpy, config: {{model_uri: MODELS/{file}.onnx}}}}
    - type: LogForTesting
      name: Log{name}
      input: {name}"
            )
        };
        let head = "
pipeline:
  transforms:
    - type: Create
      config: {elements: [{x: 2.0}]}";
        let yaml = format!("{head}{}{}\n", ask("One", "five", "mine"), ask("Two", "ten", second));
        run_in(&tempfile::tempdir().unwrap(), &yaml)
    };
    let fives = |shown: &str| shown.matches("\"inference\":10").count();
    let (shared, apart) = (with("mine"), with("other"));
    assert_eq!((fives(&shared), fives(&apart)), (2, 1), "{shared}{apart}");
}

/// A model's step beside which stands something: `config` and `input` are its own, `more` are further transforms.
fn beside(config: &str, input: &str, more: &str) -> String {
    format!(
        "
pipeline:
  transforms:
    - type: Create
      name: Rows
      config: {{elements: [{{x: 2.0}}, {{x: 3.0}}]}}
    - type: RunInference
      name: Ask
      input: {input}
      config:
        model_handler:
          type: OnnxModelHandlerNumpy
          config: {{model_uri: MODELS/five.onnx, postprocess: {{expression: 1 / (inference - 15)}}}}
        {config}
    - type: LogForTesting
      name: Good
      input: Ask
{more}"
    )
}

/// Before `postprocess`, and though it fails; on the row, with the model's id.
#[test]
fn raw_predictions_go_to_the_monitor() {
    let more = "
    - {type: LogForTesting, name: Raw, input: Ask.raw}
    - {type: LogForTesting, name: Bad, input: Ask.bad}
";
    let config = "monitoring: {output: raw}\n        error_handling: {output: bad}";
    let shown = run_in(&tempfile::tempdir().unwrap(), &beside(config, "Rows", more));
    let id = "../../fixtures/models/five.onnx";
    for line in [
        "{\"x\":2.0,\"inference\":-0.2}".to_owned(),
        format!("{{\"x\":2.0,\"inference\":10.0,\"inference_model_id\":\"{id}\"}}"),
        format!("{{\"x\":3.0,\"inference\":15.0,\"inference_model_id\":\"{id}\"}}"),
        "{\"element\":{\"x\":3.0},\"msg\":\"ZeroDivisionError".to_owned(),
    ] {
        assert_eq!(shown.matches(&line).count(), 1, "{line}: {shown}");
    }
}

#[test]
fn newer_models_come_from_a_side_input() {
    let newer = |row: &str| {
        let more = format!("    - {{type: Create, name: Newer, config: {{elements: [{row}]}}}}\n");
        let input = "{input: Rows, model_metadata: Newer}";
        run_in(&tempfile::tempdir().unwrap(), &beside("with_model_id: true", input, &more))
    };
    let by = |file: &str, row: &str, answer: f64| {
        let shown = newer(row);
        let id = format!("../../fixtures/models/{file}.onnx");
        let line = format!("{{\"x\":2.0,\"inference\":{answer:?},\"inference_model_id\":\"{id}\"}}");
        assert!(shown.contains(&line), "{line}: {shown}");
    };
    by("ten", "{model_id: MODELS/ten.onnx}", 0.2);
    by("ten", "{model_name: ten, model_id: MODELS/ten.onnx}", 0.2);
}

/// Beside a model for each key, a version says for which keys it is; the others keep theirs.
#[test]
fn newer_models_for_some_keys_come_from_a_side_input() {
    let with = |version: &str| {
        let yaml = format!(
            "
pipeline:
  transforms:
    - type: Create
      name: Rows
      config: {{elements: [{{lang: es, x: 2.0}}, {{lang: de, x: 2.0}}]}}
    - {{type: Create, name: Newer, config: {{elements: [{version}]}}}}
    - type: RunInference
      input: {{model_metadata: Newer, input: Rows}}
      config:
        model_handler:
          type: KeyedModelHandler
          config:
            key: lang
            models:
              - keys: [es, de]
                handler: {{type: OnnxModelHandlerNumpy, config: {{model_uri: MODELS/five.onnx}}}}
    - {{type: LogForTesting, input: RunInference}}
"
        );
        run_in(&tempfile::tempdir().unwrap(), &yaml)
    };
    let shown = with("{keys: [es], model_id: MODELS/ten.onnx}, {keys: [de], model_id: MODELS/five.onnx}");
    assert!(shown.contains("{\"lang\":\"es\",\"x\":2.0,\"inference\":20.0}"), "{shown}");
    assert!(shown.contains("{\"lang\":\"de\",\"x\":2.0,\"inference\":10.0}"), "{shown}");
    let shown = with("{keys: [fr], model_id: MODELS/ten.onnx}");
    assert!(shown.contains("Invalid model update: fr appears in update"), "{shown}");
    let shown = with("{model_id: MODELS/ten.onnx}");
    assert!(shown.contains("unknown column `keys`"), "{shown}");
    let shown = with("{keys: es, model_id: MODELS/ten.onnx}");
    assert!(shown.contains("`keys` of `model_metadata` is a list of keys"), "{shown}");
}

#[test]
fn mistakes_beside_a_model() {
    let newer = "    - {type: Create, name: Newer, config: {elements: [{id: a}]}}\n";
    check(
        &beside("inference_tag: y", "{input: Rows, model_metadata: Newer}", newer),
        expect![[r#"
            error[TB0204]: unknown column `model_id`
              ╭─[p.yaml:8:13]
            8 │       name: Ask
              ·             ─┬─
              ·              ╰── not produced by `Newer`
              ╰────
              columns here: id (string)
              `model_metadata` names newer versions of the model by `model_id`
        "#]],
    );
    check(
        &beside("inference_tag: y", "{input: Rows, other: Newer}", newer),
        expect![[r#"
        error[TB0221]: `RunInference` takes one input, and beside it one named `model_metadata`
          ╭─[p.yaml:8:13]
        8 │       name: Ask
          ·             ───
          ╰────
          help: write `input: {input: ROWS, model_metadata: OTHER}`; several as one: `[A, B]`
    "#]],
    );
    check(
        &beside("inference_tag: y", "{model_metadata: Newer}", newer),
        expect![[r#"
        error[TB0221]: `RunInference` takes one input, and beside it one named `model_metadata`
          ╭─[p.yaml:8:13]
        8 │       name: Ask
          ·             ───
          ╰────
          help: write `input: {input: ROWS, model_metadata: OTHER}`; several as one: `[A, B]`
    "#]],
    );
    check(
        &beside("monitoring: {output: raw}", "Rows", ""),
        expect![[r#"
        error[TB0235]: the monitored predictions of `Ask` are not consumed
           ╭─[p.yaml:14:30]
        14 │         monitoring: {output: raw}
           ·                              ───
           ╰────
          help: use `Ask.raw` as the input of another transform
    "#]],
    );
    let same = "monitoring: {output: bad}\n        error_handling: {output: bad}";
    let log = "    - {type: LogForTesting, name: Bad, input: Ask.bad}\n";
    check(
        &beside(same, "Rows", log),
        expect![[r#"
        error[TB0209]: `bad` is an output already
           ╭─[p.yaml:14:30]
        14 │         monitoring: {output: bad}
           ·                              ───
           ╰────
          help: give the monitored predictions another name
    "#]],
    );
    check(
        &beside("monitoring: {to: bad}", "Rows", ""),
        expect![[r#"
        error[TB0207]: `monitoring` lacks the key `output`
           ╭─[p.yaml:14:21]
        14 │         monitoring: {to: bad}
           ·                     ─────────
           ╰────
          help: output: the name of the output of raw predictions

        error[TB0231]: unknown key `to` in `monitoring`
           ╭─[p.yaml:14:22]
        14 │         monitoring: {to: bad}
           ·                      ──
           ╰────
          keys here: output
    "#]],
    );
}

const KEYED_STEP: &str = "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{lang: es, x: 2.0}, {lang: de, x: 2.0}, {lang: it, x: 3.0}, {lang: fr, x: 1.0}]}
    - type: RunInference
      name: Ask
      config:
        with_model_id: true
        error_handling: {output: errors}
        model_handler:
          type: KeyedModelHandler
          config:
            key: lang
            max_models_per_worker_hint: 1
            models:
";

#[test]
fn a_model_for_each_key() {
    let models = "
              - keys: [es, fr]
                handler: {type: OnnxModelHandlerNumpy, config: {model_uri: MODELS/five.onnx}}
              - keys: [de]
                handler:
                  type: OnnxModelHandlerNumpy
                  config: {model_uri: MODELS/ten.onnx}
";
    let sinks = "
  extra_transforms:
    - type: LogForTesting
      name: Bad
      input: Ask.errors
";
    let yaml = KEYED_STEP.to_owned() + models + "    - type: LogForTesting\n";
    let shown = run_in(&tempfile::tempdir().unwrap(), &(yaml + sinks));
    assert!(
        shown.contains(
            r#"{"lang":"es","x":2.0,"inference":10.0,"inference_model_id":"../../fixtures/models/five.onnx"}"#
        ),
        "{shown}"
    );
    assert!(
        shown.contains(
            r#"{"lang":"de","x":2.0,"inference":20.0,"inference_model_id":"../../fixtures/models/ten.onnx"}"#
        ),
        "{shown}"
    );
    assert!(shown.contains(r#"{"lang":"fr","x":1.0,"inference":5.0,"#), "{shown}");
    assert!(shown.contains("no model is for the key it, only for es, fr, de"), "{shown}");
    assert!(shown.ends_with("1 dead letters\n"), "{shown}");
}

#[test]
fn mistakes_around_a_model_for_each_key() {
    let told = |models: &str| {
        let yaml = KEYED_STEP.to_owned() + models;
        run_in(&tempfile::tempdir().unwrap(), &yaml)
    };
    let one = "handler: {type: OnnxModelHandlerNumpy, config: {model_uri: MODELS/five.onnx}}";
    for (models, wanted) in [
        ("              es: {type: Onnx, config: {}}\n".to_owned(), "unknown model handler `Onnx`"),
        ("              []\n".to_owned(), "`models` has no model"),
        ("              - 7\n".to_owned(), "`models` lists maps"),
        (
            format!("              - {{keys: [es], {one}}}\n              - {{keys: [es], {one}}}\n"),
            "the key es is in two lists",
        ),
        (
            format!(
                "              - {{keys: [es], {one}}}\n              - {{keys: [de], handler: {{type: \
                 LightGBMModelHandler, config: {{model_uri: MODELS/trees/lgb_named.txt}}}}}}\n"
            ),
            "the models of all keys take and give the same",
        ),
    ] {
        let shown = told(&models);
        assert!(shown.contains(wanted), "{models}: {shown}");
    }
}

#[cfg(feature = "remote")]
#[test]
fn mistakes_around_models_behind_http() {
    let told = |config: &str| {
        let yaml = format!(
            "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{{prompt: hello}}]}}
    - type: RunInference
      config:
        inference_args: {{temperatur: 0.5}}
        model_handler: {{type: OpenAIModelHandler, config: {{{config}}}}}
"
        );
        run_in(&tempfile::tempdir().unwrap(), &yaml)
    };
    let shown = told("endpoint: 'http://127.0.0.1:9/v1', model: m, task: chatt");
    assert!(shown.contains("unknown task `chatt`") && shown.contains("did you mean `chat`"), "{shown}");
    let shown = told("endpoint: 'http://127.0.0.1:9/v1', model: m, api_key: sk-123");
    assert!(shown.contains("names the environment variable") && !shown.contains("panicked"), "{shown}");
    let shown = told("endpoint: 'http://127.0.0.1:9/v1', model: m");
    assert!(shown.contains("temperatur"), "{shown}");
}

/// A server of one answer to each chat: the prompt, in capitals.
#[cfg(feature = "remote")]
#[test]
fn a_chat_model_behind_http_over_rows() {
    use std::io::{BufRead, BufReader, Read, Write};
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut line, mut length) = (String::new(), 0);
                    loop {
                        line.clear();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = n.trim().parse().unwrap();
                        }
                        if line == "\r\n" {
                            break;
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    let asked = body["messages"][0]["content"].as_str().unwrap().to_uppercase();
                    let answer = serde_json::json!({
                        "choices": [{"index": 0, "message": {"role": "assistant", "content": asked}}]
                    })
                    .to_string();
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
                    let mut stream = &stream;
                    stream.write_all(format!("{head}{}\r\n\r\n{answer}", answer.len()).as_bytes()).unwrap();
                }
            });
        }
    });
    let yaml = format!(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{{id: 1, question: hello}}, {{id: 2, question: world}}]}}
    - type: RunInference
      config:
        inference_tag: answer
        inference_args: {{temperature: 0.5}}
        model_handler:
          type: OpenAIModelHandler
          config:
            endpoint: http://{address}/v1
            model: shouter
            inputs: {{prompt: question}}
            max_retries: 1
            timeout: 30
    - type: LogForTesting
"
    );
    let shown = run_in(&tempfile::tempdir().unwrap(), &yaml);
    let wanted = "Info: {\"id\":1,\"question\":\"hello\",\"answer\":\"HELLO\"}\n\
                  Info: {\"id\":2,\"question\":\"world\",\"answer\":\"WORLD\"}\n";
    assert_eq!(shown, wanted);
}
