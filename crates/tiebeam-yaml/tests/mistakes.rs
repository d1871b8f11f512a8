//! The mistakes that people make in a pipeline file: each told once, at its place, with its cause and what to do, and all of
//! them in one run.

#![allow(clippy::unwrap_used)] // the tests' own functions, too

use expect_test::expect;
use tiebeam_yaml::{Environment, Variables, load};

fn told(yaml: &str) -> String {
    let environment = Environment::new(|_, _| (), |_| Ok(()));
    match load("p.yaml", yaml, &Variables::new(), &environment) {
        Ok(_) => "nothing is wrong\n".to_owned(),
        Err(report) => report.render(false),
    }
}

/// A head that all have, and a transform with a mistake each.
const HEAD: &str = "pipeline:
  transforms:
    - type: Create
      name: People
      config: {elements: [{name: Ada, born: 1815}]}
";

const MISTAKES: [(&str, &str, &str); 12] = [
    (
        "TB0204",
        "unknown column",
        "    - type: MapToFields
      name: Column
      input: People
      config: {fields: {n: nme}}
",
    ),
    (
        "TB0231",
        "misspelt key",
        "    - type: Filter
      name: Key
      input: People
      config: {kep: born > 1900}
",
    ),
    (
        "TB0232",
        "misspelt type",
        "    - type: MapToField
      name: Type
      input: People
",
    ),
    (
        "TB0233",
        "missing input",
        "    - type: Filter
      name: Input
      input: Poeple
      config: {keep: born > 1900}
",
    ),
    (
        "TB0205",
        "wrong type in an expression",
        "    - type: Filter
      name: Types
      input: People
      config: {language: python, keep: name + 1 > 2}
",
    ),
    (
        "TB0235",
        "unused error output",
        "    - type: MapToFields
      name: Errors
      input: People
      config: {language: python, fields: {x: 1 / born}, error_handling: {output: failed}}
",
    ),
    (
        "TB0234",
        "cycle",
        "    - type: Filter
      name: Hen
      input: Egg
      config: {keep: born > 1900}
    - type: Filter
      name: Egg
      input: Hen
      config: {keep: born > 1900}
",
    ),
    (
        "TB0209",
        "duplicate name",
        "    - type: Filter
      name: Twice
      input: People
      config: {keep: born > 1900}
    - type: Filter
      name: Twice
      input: People
      config: {keep: born > 1800}
",
    ),
    (
        "TB0224",
        "bad window unit",
        "    - type: WindowInto
      name: Window
      input: People
      config: {windowing: {type: fixed, size: 5q}}
",
    ),
    (
        "TB0205",
        "model input of wrong shape",
        "    - type: RunInference
      name: Shape
      input: People
      config:
        model_handler:
          type: OnnxModelHandlerNumpy
          config: {model_uri: ../../fixtures/models/five.onnx, inputs: {x: [born, born]}}
",
    ),
    (
        "TB0403",
        "missing file",
        "    - type: ReadFromCsv
      name: File
      config: {path: nowhere/people.csv}
",
    ),
    (
        "TB0218",
        "bad jinja",
        "    - type: ReadFromText
      name: Jinja
      config: {path: '{{ folder }}/people.txt'}
",
    ),
];

#[test]
fn each_mistake_is_told_once_with_its_place_and_what_to_do() {
    for (code, what, transform) in MISTAKES {
        let told = told(&format!("{HEAD}{transform}"));
        assert_eq!(told.matches("error[").count(), 1, "{what}\n{told}");
        assert!(told.starts_with(&format!("error[{code}]: ")), "{what}\n{told}");
        for part in ["╭─[p.yaml:", "──", "  help: "] {
            assert!(told.contains(part), "{what} lacks {part}\n{told}");
        }
    }
}

#[test]
fn all_mistakes_of_a_file_are_told_in_one_run() {
    let all: String = MISTAKES.iter().map(|(_, _, transform)| *transform).collect();
    let told = told(&format!("{HEAD}{all}"));
    assert_eq!(told.matches("error[").count(), 12, "{told}");
    expect![[r#"
        error[TB0204]: unknown column `nme`
          ╭─[p.yaml:9:28]
        9 │       config: {fields: {n: nme}}
          ·                            ─┬─
          ·                             ╰── not produced by `People`
          ╰────
          columns here: name (string), born (int64)
          help: did you mean `name`?

        error[TB0231]: unknown key `kep` in `Filter`
           ╭─[p.yaml:13:16]
        13 │       config: {kep: born > 1900}
           ·                ───
           ╰────
          keys here: error_handling, keep, language
          help: did you mean `keep`?

        error[TB0232]: unknown transform type `MapToField`
           ╭─[p.yaml:14:13]
        14 │     - type: MapToField
           ·             ──────────
           ╰────
          help: did you mean `MapToFields`?

        error[TB0233]: unknown input `Poeple`
           ╭─[p.yaml:19:14]
        19 │       input: Poeple
           ·              ──────
           ╰────
          here: People, Column, Key, Type, Input, Types, Errors, Hen, Egg, Twice, Twice, Window, Shape, File, Jinja
          help: did you mean `People`?

        error[TB0205]: `+` has no meaning for string and int64
           ╭─[p.yaml:24:40]
        24 │       config: {language: python, keep: name + 1 > 2}
           ·                                        ────────
           ╰────
          help: convert with `str()`, or use an f-string

        error[TB0235]: the errors of `Errors` are not consumed
           ╭─[p.yaml:28:82]
        28 │       config: {language: python, fields: {x: 1 / born}, error_handling: {output: failed}}
           ·                                                                                  ──────
           ╰────
          help: use `Errors.failed` as the input of another transform

        error[TB0234]: these transforms wait for each other: Egg → Hen → Egg
           ╭─[p.yaml:34:13]
        34 │       name: Egg
           ·             ───
           ╰────
          help: one of them must read something that is not made of its own output

        error[TB0209]: the name `Twice` is used twice
           ╭─[p.yaml:42:13]
        42 │       name: Twice
           ·             ──┬──
           ·               ╰── first used on line 38
           ╰────
          help: give each a name of its own: references go by it

        error[TB0224]: `5q` is no duration
           ╭─[p.yaml:48:47]
        48 │       config: {windowing: {type: fixed, size: 5q}}
           ·                                               ──
           ╰────
          help: write a number and its unit: 500ms, 30s, 5m, 1h, 1d

        error[TB0205]: a row brings 2 numbers, which does not fit the shape [n, 1]
           ╭─[p.yaml:55:76]
        55 │           config: {model_uri: ../../fixtures/models/five.onnx, inputs: {x: [born, born]}}
           ·                                                                            ────────────
           ╰────
          the model's input: x (float32 [n, 1])
          help: give it columns of that type, as many as its shape has numbers a row; MapToFields makes them

        error[TB0403]: no file matches `nowhere/people.csv`
           ╭─[p.yaml:58:22]
        58 │       config: {path: nowhere/people.csv}
           ·                      ──────────────────
           ╰────
          help: check the path, or allow patterns that match nothing

        error[TB0218]: the jinja variable `folder` is not given
           ╭─[p.yaml:61:26]
        61 │       config: {path: '{{ folder }}/people.txt'}
           ·                          ──────
           ╰────
          no variables are given
          help: give it with `--set folder=VALUE`
    "#]].assert_eq(&told);
}

#[test]
fn mistakes_in_resource_hints() {
    let told = told(
        "pipeline:
  resource_hints: 8GB
  transforms:
    - type: Create
      config: {elements: [{x: 1}]}
      resource_hints: {min_ram: much, accelerator: l4, cpu_count: 0, gpu: 1}
    - type: LogForTesting
      input: Create
      resource_hints: {min_ram: 0, accelerator: 4}
",
    );
    expect![[r#"
        error[TB0208]: `resource_hints` is a map
          ╭─[p.yaml:2:19]
        2 │   resource_hints: 8GB
          ·                   ───
          ╰────
          help: such as `resource_hints: {min_ram: 8GB}`

        error[TB0208]: `min_ram` is a size such as 8GB, 1.5GiB or a number of bytes
          ╭─[p.yaml:6:33]
        6 │       resource_hints: {min_ram: much, accelerator: l4, cpu_count: 0, gpu: 1}
          ·                                 ────
          ╰────

        error[TB0208]: `accelerator` begins with the type that is wanted
          ╭─[p.yaml:6:52]
        6 │       resource_hints: {min_ram: much, accelerator: l4, cpu_count: 0, gpu: 1}
          ·                                                    ──
          ╰────
          help: such as type:nvidia-l4;count:1;install-nvidia-driver

        error[TB0208]: `cpu_count` is a number from 1 up
          ╭─[p.yaml:6:67]
        6 │       resource_hints: {min_ram: much, accelerator: l4, cpu_count: 0, gpu: 1}
          ·                                                                   ─
          ╰────

        error[TB0231]: unknown key `gpu` in `resource_hints`
          ╭─[p.yaml:6:70]
        6 │       resource_hints: {min_ram: much, accelerator: l4, cpu_count: 0, gpu: 1}
          ·                                                                      ───
          ╰────
          keys here: accelerator, cpu_count, min_ram

        error[TB0208]: `min_ram` is a size such as 8GB, 1.5GiB or a number of bytes
          ╭─[p.yaml:9:33]
        9 │       resource_hints: {min_ram: 0, accelerator: 4}
          ·                                 ─
          ╰────

        error[TB0208]: `accelerator` wants a string, got an integer
          ╭─[p.yaml:9:49]
        9 │       resource_hints: {min_ram: 0, accelerator: 4}
          ·                                                 ─
          ╰────
    "#]]
    .assert_eq(&told);
}
