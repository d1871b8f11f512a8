//! The transforms of Beam YAML beside the everyday ones, Python behind the typed part, providers and tests of files.

#![allow(clippy::unwrap_used)] // the tests' own functions, too

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use expect_test::{Expect, expect};
use tiebeam_runner::{EmbeddedRunner, RunnerOptions};
use tiebeam_testing::{Mode, TestPipeline};
use tiebeam_yaml::testing::load_tests;
use tiebeam_yaml::{Environment, Variables, load};

/// Runs a file that prints; its lines sorted, or what is wrong.
fn run(yaml: &str) -> String {
    let printed: Arc<Mutex<Vec<u8>>> = Arc::default();
    let print = printed.clone();
    let environment = Environment::new(
        |_, _| (),
        move |lines| {
            print.lock().unwrap().extend_from_slice(lines);
            Ok(())
        },
    );
    match load("p.yaml", yaml, &Variables::new(), &environment) {
        Err(report) => report.render(false),
        Ok(loaded) => {
            match EmbeddedRunner::new(RunnerOptions::default().with_threads(2)).run(&loaded.graph) {
                Err(error) => format!("{error:?}\n"),
                Ok(_) => {
                    let text = String::from_utf8(printed.lock().unwrap().clone()).unwrap();
                    let mut lines: Vec<&str> = text.lines().collect();
                    lines.sort_unstable();
                    lines.iter().map(|line| format!("{line}\n")).collect()
                }
            }
        }
    }
}

fn check(yaml: &str, expected: Expect) {
    expected.assert_eq(&run(yaml));
}

/// In the three modes, by what is written into the folder `DIR`.
fn check_modes(yaml: &str, expected: &[&str]) {
    for mode in Mode::all() {
        let dir = tempfile::tempdir().unwrap();
        let yaml = yaml.replace("DIR", &dir.path().display().to_string());
        let environment = Environment::new(|_, _| (), |_| Ok(()));
        let graph = || Ok(load("p.yaml", &yaml, &Variables::new(), &environment).unwrap().graph);
        TestPipeline::run_graph(mode, graph).unwrap();
        assert_eq!(lines(dir.path()), expected, "{mode}\n{yaml}");
    }
}

fn lines(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let shown = |path: &std::path::PathBuf| !path.file_name().unwrap().to_str().unwrap().starts_with('.');
    let mut lines: Vec<String> = files
        .filter(|path| path.is_file() && shown(path))
        .flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    lines.sort();
    lines
}

fn fields(fields: &str) -> String {
    format!(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{{col1: 12ab, col2: 3, xs: [3, 1, 2]}}, {{col1: x, col2: 0, xs: []}}]}}
    - type: MapToFields
      config:
        language: python
        fields:
          {fields}
    - type: WriteToStdout
      config: {{format: json}}
"
    )
}

#[test]
fn python_beyond_the_typed_part_is_interpreted() {
    let callable = r#"a:
            callable: |
              import re
              def my_mapping(row):
                if re.match("[0-9]+", row.col1) and row.col2 > 0:
                  return "good"
                else:
                  return "bad"
          b:
            callable: |
              def helper(x):
                return x * 2
              def total(row):
                sum = 0
                for x in row.xs:
                  sum += helper(x)
                return sum
            output_type: integer
          c: "', '.join(str(x) for x in sorted(xs, key=lambda x: -x))"
          d: {expression: "{x: x for x in xs if x > 1}.get(col2, 7)", output_type: integer}
          e: {callable: "lambda row: [y for x in row.xs for y in [x, x]]", output_type: {type: array, items: {type: integer}}}"#;
    check(
        &fields(callable).replace("c: \"', '.join(str(x) for x in sorted(xs, key=lambda x: -x))\"", "c: {expression: \"', '.join(str(x) for x in sorted(xs, key=lambda x: -x))\", output_type: string}"),
        expect![[r#"
            {"a":"bad","b":0,"c":"","d":7,"e":[]}
            {"a":"good","b":12,"c":"3, 2, 1","d":3,"e":[3,3,1,1,2,2]}
        "#]],
    );
}

#[test]
fn what_is_wrong_with_python_is_told_before_the_run() {
    let callable = |body: &str| {
        fields(&format!(
            "a:\n            callable: |\n              {}",
            body.replace('\n', "\n              ")
        ))
    };
    check(
        &callable("def f(row):\n  for x in row.xz:\n    return x\n"),
        expect![[r#"
        error[TB0204]: unknown column `xz`
           ╭─[p.yaml:14:30]
        14 │                 for x in row.xz:
           ·                              ─┬
           ·                               ╰── not produced by `Create`
           ╰────
          columns here: col1 (string), col2 (int64), xs (list of int64)
          help: did you mean `xs`?
    "#]],
    );
    check(
        &callable("import numpy\ndef f(row):\n  return numpy.sum(row.xs)\n"),
        expect![[r#"
        error[TB0219]: the module `numpy` is not available
           ╭─[p.yaml:13:15]
        13 │               import numpy
           ·               ────────────
           ╰────
          modules here: base64, binascii, collections, dataclasses, datetime, functools, itertools, json, math, re, typing
    "#]],
    );
    check(
        &callable("def f(row):\n  for x in row.xs:\n    return x\n"),
        expect![[r#"
            error[TB0223]: the type of this value cannot be told before the run: unknown
               ╭─[p.yaml:13:15]
            13 │               def f(row):
               ·               ───────────
               ╰────
              it is left to Python itself: `for` is not available in a callable
              help: give it: `{expression: …, output_type: string}`; types are integer, number, string, boolean, bytes, array, object
        "#]],
    );
    check(
        &callable("def f(row):\n  while True\n    return x\n"),
        expect![[r#"
            error[TB0206]: SyntaxError: Expected `:`, found newline
               ╭─[p.yaml:14:17]
            14 │                 while True
               ·                 ──────────
               ╰────
        "#]],
    );
    check(
        &fields("a: {callable: pkg.module.fn}"),
        expect![[r#"
            error[TB0219]: `pkg.module.fn` is a function of a Python package, which is not available
               ╭─[p.yaml:11:25]
            11 │           a: {callable: pkg.module.fn}
               ·                         ─────────────
               ╰────
              help: write the function here: `callable: |`, or in a file: `path` and `name`
        "#]],
    );
    check(
        &fields("a: {path: nowhere.py, name: f}"),
        expect![[r#"
            error[TB0244]: `nowhere.py` cannot be read: No such file or directory (os error 2)
               ╭─[p.yaml:11:21]
            11 │           a: {path: nowhere.py, name: f}
               ·                     ──────────
               ╰────
              help: the path is taken from the folder that the command runs in
        "#]],
    );
}

#[test]
fn exceptions_of_python_go_to_the_errors() {
    check(
        "
pipeline:
  transforms:
    - type: Create
      config: {elements: [{x: 0}, {x: 2}]}
    - type: MapToFields
      name: Divide
      input: Create
      config:
        language: python
        fields:
          y:
            callable: |
              import math
              def f(row):
                return math.floor(10 / row.x)
        error_handling: {output: bad}
    - type: WriteToStdout
      name: Good
      input: Divide
      config: {format: json}
    - type: MapToFields
      name: Messages
      input: Divide.bad
      config: {language: python, fields: {x: element.x, msg: msg}}
    - type: WriteToStdout
      name: Bad
      input: Messages
      config: {format: json}
",
        expect![[r#"
            {"x":0,"msg":"division by zero"}
            {"y":5}
        "#]],
    );
}

#[test]
fn functions_in_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("udf.py");
    fs::write(&path, "import re\n\ndef other(row):\n  return 1\n\ndef mine(row):\n  return re.sub('[0-9]', '', row.col1)\n\ndef last(row):\n  return 2\n").unwrap();
    let fields = fields(&format!(
        "a: {{path: {0}, name: mine}}\n          b: {{path: {0}, name: other}}",
        path.display()
    ));
    check(
        &fields,
        expect![[r#"
            {"a":"ab","b":1}
            {"a":"x","b":1}
        "#]],
    );
    let unknown =
        run(&fields.replace("name: mine", "name: mien")).replace(&path.display().to_string(), "udf.py");
    assert!(
        unknown.contains("`udf.py` defines no function `mien`") && unknown.contains("did you mean `mine`?"),
        "{unknown}"
    );
}

#[test]
fn rows_are_held_to_a_schema() {
    check_modes(
        "
pipeline:
  transforms:
    - type: Create
      config: {elements: [{n: 1, s: ab}, {n: 12, s: abc}, {n: null, s: abc}, {n: 3, s: ''}]}
    - type: ValidateWithSchema
      input: Create
      config:
        schema:
          type: object
          required: [n]
          properties:
            n: {type: integer, minimum: 1, maximum: 10}
            s: {type: string, minLength: 1, maxLength: 3}
        error_handling: {output: bad}
    - type: WriteToJson
      input: ValidateWithSchema
      config: {path: DIR/good}
    - type: MapToFields
      input: ValidateWithSchema.bad
      config: {language: python, fields: {msg: msg}}
    - type: WriteToJson
      name: Bad
      input: MapToFields
      config: {path: DIR/bad}
",
        &[
            r#"{"msg":"Row(n=None, s='abc') lacks `n`"}"#,
            r#"{"msg":"`n`: 12 is not <= 10"}"#,
            r#"{"msg":"`s`: '' is too short"}"#,
            r#"{"n":1,"s":"ab"}"#,
        ],
    );
    check(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{n: 1}]}
    - type: ValidateWithSchema
      config: {schema: {type: object, required: [m], properties: {n: {type: string, patern: x}}}}
",
        expect![[r#"
            error[TB0204]: unknown column `m`
              ╭─[p.yaml:8:50]
            8 │       config: {schema: {type: object, required: [m], properties: {n: {type: string, patern: x}}}}
              ·                                                  ─
              ╰────
              columns here: n (int64)

            error[TB0205]: `n` is int64, never string
              ╭─[p.yaml:8:77]
            8 │       config: {schema: {type: object, required: [m], properties: {n: {type: string, patern: x}}}}
              ·                                                                             ──────
              ╰────

            error[TB0219]: `patern` in the schema of `n` is not available
              ╭─[p.yaml:8:85]
            8 │       config: {schema: {type: object, required: [m], properties: {n: {type: string, patern: x}}}}
              ·                                                                                     ──────
              ╰────
              keywords here: type, properties, required, additionalProperties, items, minItems, maxItems, uniqueItems, enum, const, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, minLength, maxLength, description, title
        "#]],
    );
}

#[test]
fn times_and_windows_become_fields() {
    check_modes(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{t: 1}, {t: 11}]}
    - type: AssignTimestamps
      config: {timestamp: t}
    - type: ExtractWindowingInfo
      config: {fields: {kind: window_type}}
    - type: WindowInto
      config: {windowing: {type: sliding, size: 20s, period: 10s}}
    - type: ExtractWindowingInfo
      config: {fields: [timestamp, window_start, window_end, window_string, pane_info]}
    - type: MapToFields
      config: {language: python, fields: {t: t, kind: kind, at: timestamp, from: window_start, to: window_end, w: window_string, last: pane_info.is_last}}
    - type: WriteToJson
      config: {path: DIR/out}
",
        &[
            r#"{"t":1,"kind":"GlobalWindow","at":1.0,"from":-10.0,"to":10.0,"w":"[-10.0, 10.0)","last":true}"#,
            r#"{"t":1,"kind":"GlobalWindow","at":1.0,"from":0.0,"to":20.0,"w":"[0.0, 20.0)","last":true}"#,
            r#"{"t":11,"kind":"GlobalWindow","at":11.0,"from":0.0,"to":20.0,"w":"[0.0, 20.0)","last":true}"#,
            r#"{"t":11,"kind":"GlobalWindow","at":11.0,"from":10.0,"to":30.0,"w":"[10.0, 30.0)","last":true}"#,
        ],
    );
}

#[test]
fn patterns_are_matched() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("a.txt", "one"), ("b.txt", ""), ("c.csv", "")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let matched = |pattern: &str, config: &str| {
        format!(
            "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: ['{}/{pattern}']}}
    - type: MatchAll
      config: {config}
    - type: MapToFields
      config: {{language: python, fields: {{name: \"path.split('/')[-1]\", size: size_in_bytes}}}}
    - type: WriteToStdout
      config: {{format: json}}
",
            dir.path().display()
        )
    };
    check(
        &matched("*.txt", "{}"),
        expect![[r#"
            {"name":"a.txt","size":3}
            {"name":"b.txt","size":0}
        "#]],
    );
    check(&matched("*.png", "{}"), expect![""]);
    check(&matched("*.png", "{empty_match_treatment: ALLOW_IF_WILDCARD}"), expect![""]);
    let failed = run(&matched("d.txt", "{file_pattern: element, empty_match_treatment: ALLOW_IF_WILDCARD}"));
    assert!(failed.contains("TB0403") && failed.contains("no file matches"), "{failed}");
}

#[test]
fn a_text_is_taken_apart_and_more_errors_than_allowed_end_the_job() {
    let yaml = |threshold: &str| {
        format!(
            "
pipeline:
  transforms:
    - type: Create
      config: {{elements: [{{s: ab, n: 1}}, {{s: c, n: 0}}, {{s: '', n: 2}}, {{s: d, n: 4}}]}}
    - type: Explode
      input: Create
      config: {{fields: s}}
    - type: MapToFields
      input: Explode
      config: {{language: python, fields: {{s: s, x: 1 / n}}, error_handling: {{output: bad, threshold: {threshold}}}}}
    - type: WriteToStdout
      input: MapToFields
      config: {{format: json}}
    - type: LogForTesting
      input: MapToFields.bad
"
        )
    };
    check(
        &yaml("0.25"),
        expect![[r#"
            {"s":"a","x":1.0}
            {"s":"b","x":1.0}
            {"s":"d","x":0.25}
        "#]],
    );
    let failed = run(&yaml("0.24"));
    assert!(failed.contains("1 of 4 elements failed, more than the threshold of 0.24"), "{failed}");
    let wrong = run(&yaml("7"));
    assert!(wrong.contains("`threshold` is a number from 0 to 1"), "{wrong}");
}

/// Writes files into a folder; gives the path of the first.
fn files(dir: &Path, all: &[(&str, &str)]) -> String {
    for (name, text) in all {
        fs::write(dir.join(name), text).unwrap();
    }
    dir.join(all[0].0).display().to_string()
}

fn load_and_run(dir: &Path, all: &[(&str, &str)]) -> String {
    let path = files(dir, all);
    let printed: Arc<Mutex<Vec<u8>>> = Arc::default();
    let print = printed.clone();
    let environment = Environment::new(
        |_, _| (),
        move |lines| {
            print.lock().unwrap().extend_from_slice(lines);
            Ok(())
        },
    );
    let shown = match load(&path, all[0].1, &Variables::new(), &environment) {
        Err(report) => report.render(false),
        Ok(loaded) => {
            EmbeddedRunner::new(RunnerOptions::default().with_threads(2)).run(&loaded.graph).unwrap();
            let text = String::from_utf8(printed.lock().unwrap().clone()).unwrap();
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            lines.iter().map(|line| format!("{line}\n")).collect()
        }
    };
    shown.replace(&dir.display().to_string(), "DIR")
}

const LISTING: &str = "
- type: yaml
  transforms:
    RaiseElementToPower:
      config_schema:
        properties:
          n: {type: integer}
      body:
        type: chain
        transforms:
          - type: MapToFields
            config:
              language: python
              append: true
              fields:
                power: \"element ** {{n}}\"
    Range:
      config_schema:
        properties:
          end: {type: integer}
      requires_inputs: false
      body: |
        type: Create
        config:
          elements:
            {% for ix in range(end) %}
            - {{ix}}
            {% endfor %}
    ConsecutivePowers:
      config_schema:
        properties:
          end: {type: integer}
          n: {type: integer}
      requires_inputs: false
      body: |
        type: chain
        transforms:
          - type: Range
            config:
              end: {{end}}
          - type: RaiseElementToPower
            config:
              n: {{n}}
    Endless:
      body: {type: Endless}
    Careful:
      body:
        type: MapToFields
        config:
          language: python
          fields: {x: 1 / element}
          error_handling: {output: my_error}
";

#[test]
fn providers_define_transforms() {
    let dir = tempfile::tempdir().unwrap();
    let main =
        |steps: &str| format!("pipeline:\n  transforms:\n{steps}\nproviders:\n  - include: listing.yaml\n");
    let run = |steps: &str| load_and_run(dir.path(), &[("p.yaml", &main(steps)), ("listing.yaml", LISTING)]);
    let powers = run(
        "    - {type: ConsecutivePowers, config: {end: 4, n: 3}}\n    - {type: WriteToStdout, input: ConsecutivePowers, config: {format: json}}",
    );
    expect![[r#"
        {"element":0,"power":0}
        {"element":1,"power":1}
        {"element":2,"power":8}
        {"element":3,"power":27}
    "#]]
    .assert_eq(&powers);
    let careful = run(
        "    - {type: Range, config: {end: 3}}\n    - {type: Careful, input: Range}\n    - {type: WriteToStdout, input: Careful, config: {format: json}}\n    - {type: StripErrorMetadata, input: Careful.my_error}\n    - {type: WriteToStdout, name: Bad, input: StripErrorMetadata, config: {format: json}}",
    );
    expect![[r#"
        {"element":0}
        {"x":0.5}
        {"x":1.0}
    "#]]
    .assert_eq(&careful);
    expect![[r#"
        error[TB0208]: `end` of `Range` wants int64, got a string
          ╭─[DIR/p.yaml:3:35]
        3 │     - {type: Range, config: {end: three, to: 3}}
          ·                                   ─────
          ╰────

        error[TB0231]: unknown key `to` in `Range`
          ╭─[DIR/p.yaml:3:42]
        3 │     - {type: Range, config: {end: three, to: 3}}
          ·                                          ──
          ╰────
          keys here: end

        error[TB0235]: the errors of `Careful` are not consumed
          ╭─[DIR/p.yaml:4:14]
        4 │     - {type: Careful, input: Range}
          ·              ───────
          ╰────
          help: use `Careful.my_error` as the input of another transform
    "#]].assert_eq(&run("    - {type: Range, config: {end: three, to: 3}}\n    - {type: Careful, input: Range}\n    - {type: LogForTesting, input: Careful}"));
    expect![[r#"
        error[TB0219]: `Endless` is defined by itself, or more than 16 deep
          ╭─[DIR/p.yaml:4:14]
        4 │     - {type: Endless, input: Range}
          ·              ───────
          ╰────
    "#]]
    .assert_eq(&run("    - {type: Range, config: {end: 2}}\n    - {type: Endless, input: Range}"));
    let foreign = "pipeline:\n  transforms: []\nproviders:\n  - {type: javaJar, config: {jar: x.jar}, transforms: {X: y}}\n  - {include: 'https://example.com/providers.yaml'}\n  - {include: nowhere.yaml}\n";
    expect![[r#"
        error[TB0219]: a provider of type `javaJar` is not available
          ╭─[DIR/p.yaml:4:12]
        4 │   - {type: javaJar, config: {jar: x.jar}, transforms: {X: y}}
          ·            ───────
          ╰────
          such providers run transforms of other SDKs; this build has its own, and those of `type: yaml`
          help: `tiebeam transforms` lists its own

        error[TB0219]: `https://example.com/providers.yaml` is not on this machine
          ╭─[DIR/p.yaml:5:15]
        5 │   - {include: 'https://example.com/providers.yaml'}
          ·               ────────────────────────────────────
          ╰────
          help: copy the listing beside the pipeline file, and include it from there

        error[TB0244]: `DIR/nowhere.yaml` cannot be read: No such file or directory (os error 2)
          ╭─[DIR/p.yaml:6:15]
        6 │   - {include: nowhere.yaml}
          ·               ────────────
          ╰────
    "#]]
    .assert_eq(&load_and_run(dir.path(), &[("p.yaml", foreign)]));
}

/// What became of each test of a file.
fn tested(yaml: &str) -> String {
    let environment = Environment::new(|_, _| (), |_| Ok(()));
    match load_tests("p.yaml", yaml, &Variables::new(), &environment) {
        Err(report) => report.render(false),
        Ok(tests) => tests
            .iter()
            .map(|test| match EmbeddedRunner::new(RunnerOptions::default()).run(&test.graph) {
                Ok(_) => format!("ok {} (line {})\n", test.name, test.line),
                Err(error) => format!("FAILED {}: {}\n", test.name, error.message()),
            })
            .collect(),
    }
}

const TESTED: &str = "
pipeline:
  transforms:
    - {type: ReadFromText, name: Lines, config: {path: nowhere.txt}}
    - type: MapToFields
      name: Size
      input: Lines
      config: {language: python, fields: {n: len(line), inverse: 1 / len(line)}, error_handling: {output: errors}}
    - type: Partition
      input: Size
      config: {language: python, by: \"'big' if n > 3 else 'small'\", outputs: [big, small]}
    - {type: StripErrorMetadata, input: Size.errors}
    - {type: WriteToJson, input: [Partition.big, Partition.small], config: {path: nowhere/out}}
tests:
";

#[test]
fn tests_of_a_file_run_its_parts() {
    let tests = "  - name: whole
    mock_outputs: [{name: Lines, elements: [{line: abcd}, {line: ab}, {line: ''}]}]
    expected_inputs: [{name: WriteToJson, elements: [{n: 4, inverse: 0.25}, {n: 2, inverse: 0.5}]}]
    expected_outputs: [{name: StripErrorMetadata, elements: [{line: ''}]}]
  - name: part
    mock_inputs: [{name: Partition, elements: [{n: 1}, {n: 9}]}]
    expected_outputs: [{name: Partition.big, elements: [{n: 9}]}, {name: Partition.small, elements: [{n: 1}]}]
  - name: wrong
    mock_inputs: [{name: Size, elements: [{line: a}]}]
    expected_outputs: [{name: Size, elements: [{n: 2, inverse: 1}]}]
";
    expect![[r#"
        ok whole (line 15)
        ok part (line 19)
        FAILED wrong: the rows are not those wanted; missing: {inverse: 1, n: 2}; not wanted: {inverse: 1, n: 1}
    "#]].assert_eq(&tested(&format!("{TESTED}{tests}")));
}

#[test]
fn what_is_wrong_with_tests_is_told() {
    let tests = "  - name: not mocked
    expected_outputs: [{name: Size, elements: []}]
  - name: nobody
    mock_outputs: [{name: Line, elements: []}]
    expected_outputs: [{name: Lines, elements: []}]
  - {name: nothing}
  - {name: keys, mock_output: [], expected_outputs: [{name: Lines}]}
";
    expect![[r#"
        error[TB0242]: the test `not mocked` needs `Lines`, a source that it does not mock
           ╭─[p.yaml:15:11]
        15 │   - name: not mocked
           ·           ──────────
           ╰────
          help: add its rows to `mock_outputs`, or `allowed_sources: [Lines]`

        error[TB0242]: the test `nobody` needs `Lines`, a source that it does not mock
           ╭─[p.yaml:17:11]
        17 │   - name: nobody
           ·           ──────
           ╰────
          help: add its rows to `mock_outputs`, or `allowed_sources: [Lines]`

        error[TB0233]: unknown transform `Line`
           ╭─[p.yaml:18:27]
        18 │     mock_outputs: [{name: Line, elements: []}]
           ·                           ────
           ╰────
          here: Lines, Size, Partition, StripErrorMetadata, WriteToJson
          help: did you mean `Lines`?

        error[TB0207]: the test `nothing` expects nothing
           ╭─[p.yaml:20:12]
        20 │   - {name: nothing}
           ·            ───────
           ╰────
          help: add `expected_outputs` or `expected_inputs`

        error[TB0231]: unknown key `mock_output` in a test
           ╭─[p.yaml:21:18]
        21 │   - {name: keys, mock_output: [], expected_outputs: [{name: Lines}]}
           ·                  ───────────
           ╰────
          keys here: allowed_sources, expected_inputs, expected_outputs, mock_inputs, mock_outputs, name
          help: did you mean `mock_outputs`?

        error[TB0207]: `expected_outputs` lacks the key `elements`
           ╭─[p.yaml:21:54]
        21 │   - {name: keys, mock_output: [], expected_outputs: [{name: Lines}]}
           ·                                                      ─────────────
           ╰────
          help: elements: the rows
    "#]]
    .assert_eq(&tested(&format!("{TESTED}{tests}")));
    let allowed = "  - name: allowed
    allowed_sources: [Lines]
    expected_outputs: [{name: Size, elements: []}]
";
    let told = tested(&format!("{TESTED}{allowed}"));
    assert!(told.contains("nowhere.txt"), "{told}");
}
