//! The command as a newcomer meets it.

#![allow(clippy::unwrap_used)] // the tests' own functions, too

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use expect_test::{Expect, expect};

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiebeam"));
    command.args(arguments).current_dir(dir).env_remove("RUST_BACKTRACE");
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).output().unwrap()
}

/// What the command printed to both, and its exit code.
fn check(dir: &Path, arguments: &[&str], expected: Expect) {
    let output = run(dir, arguments);
    let shown = format!(
        "{}{}exit {}\n",
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
        output.status.code().unwrap()
    );
    expected.assert_eq(&shown);
}

fn sorted(output: &Output) -> Vec<String> {
    let mut lines: Vec<String> =
        String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

const GOOD: &str = "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{n: 1}, {n: 2}, {n: {{ last | default(3) }}}]}
    - type: MapToFields
      config: {fields: {n: n * 10}}
    - type: WriteToJson
      config: {path: out/rows, num_shards: 1}
";

#[test]
fn examples_run_without_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let example = |name: &str| {
        let output = run(dir.path(), &["run", "--example", name, "--report", "r.json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        sorted(&output)
    };
    assert_eq!(example("times-five"), ["20 -> 100", "30 -> 150", "40 -> 200"]);
    assert_eq!(
        example("branch"),
        [
            "five says 100 of 20",
            "five says 150 of 30",
            "five says 200 of 40",
            "ten says 200 of 20",
            "ten says 300 of 30",
            "ten says 400 of 40"
        ]
    );
    assert_eq!(example("sequence"), ["20 -> 100 -> 1000", "30 -> 150 -> 1500", "40 -> 200 -> 2000"]);
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.path().join("r.json")).unwrap()).unwrap();
    assert_eq!((&report["job"], &report["status"]), (&"sequence".into(), &"done".into()));
    check(
        dir.path(),
        &["run", "--example", "times-six"],
        expect![[r#"
        error[TB0591]: there is no example `times-six`
          help: examples: times-five, branch, sequence
        exit 2
    "#]],
    );
}

#[test]
fn a_file_is_validated_and_run() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.yaml"), GOOD).unwrap();
    check(
        dir.path(),
        &["validate", "p.yaml"],
        expect![[r#"
        p.yaml: valid, 3 transforms
        exit 0
    "#]],
    );
    assert!(!dir.path().join("out/rows-00000-of-00001").exists());
    let output = run(dir.path(), &["run", "p.yaml", "--set", "last=4", "--progress", "none"]);
    assert_eq!((output.status.code(), output.stdout.len(), output.stderr.len()), (Some(0), 0, 0));
    let written = fs::read_to_string(dir.path().join("out/rows-00000-of-00001")).unwrap();
    // In any order: two threads share the work.
    let mut written: Vec<&str> = written.lines().collect();
    written.sort_unstable();
    assert_eq!(written, ["{\"n\":10}", "{\"n\":20}", "{\"n\":40}"]);
    let output = run(dir.path(), &["run", "p.yaml", "--jinja_variables", "{\"last\": 5}"]);
    let verdict = String::from_utf8(output.stderr).unwrap();
    assert!(verdict.contains("3 records written to out/rows-*"), "{verdict}");
}

#[test]
fn the_words_example_runs_in_the_clone() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let setting = format!("output={}", dir.path().join("words").display());
    let output = run(&root, &["run", "examples/words.yaml", "--set", &setting, "--progress", "none"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<String> = Vec::new();
    for entry in fs::read_dir(dir.path()).unwrap() {
        lines.extend(fs::read_to_string(entry.unwrap().path()).unwrap().lines().map(str::to_owned));
    }
    lines.sort();
    assert_eq!(
        lines,
        [
            "again: has 6 letters",
            "hills, has 6 letters",
            "lost; has 5 letters",
            "nothing has 7 letters",
            "rain, has 5 letters",
            "river has 5 letters",
            "river has 5 letters",
            "river. has 6 letters",
            "watershed has 9 letters",
            "Überlauf has 8 letters",
        ]
    );
}

#[test]
fn mistakes_have_exit_codes_and_no_backtraces() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("column.yaml", &GOOD.replace("n * 10", "m * 10").replace("WriteToJson", "WriteToJsn"));
    check(
        dir.path(),
        &["run", "column.yaml"],
        expect![[r#"
            error[TB0204]: unknown column `m`
              ╭─[column.yaml:8:28]
            8 │       config: {fields: {n: m * 10}}
              ·                            ┬
              ·                            ╰── not produced by `Create`
              ╰────
              columns here: n (int64)

            error[TB0232]: unknown transform type `WriteToJsn`
              ╭─[column.yaml:9:13]
            9 │     - type: WriteToJsn
              ·             ──────────
              ╰────
              help: did you mean `WriteToJson`?

            2 mistakes in column.yaml
            exit 78
        "#]],
    );
    check(
        dir.path(),
        &["run", "none.yaml"],
        expect![[r#"
        error[TB0229]: there is no pipeline file none.yaml
        exit 78
    "#]],
    );
    check(
        dir.path(),
        &["run", "column.yaml", "--environment", "kubernetes"],
        expect![[r#"
            error: invalid value 'kubernetes' for '--environment <PLACE>': wanted loopback, external=HOST:PORT, process, process=COMMAND or docker=IMAGE, got `kubernetes`

            For more information, try '--help'.
            exit 2
        "#]],
    );
    write("good.yaml", GOOD);
    check(
        dir.path(),
        &["run", "good.yaml", "--runner", "portable"],
        expect![[r#"
            error[TB0522]: `--runner portable` needs `--job-endpoint HOST:PORT`
              help: it is where the engine's job service listens, such as 127.0.0.1:8099
            exit 2
        "#]],
    );
    check(
        dir.path(),
        &["run", "good.yaml", "--runner", "flink", "--job-endpoint", "jobs.example:8099"],
        expect![[r#"
            error[TB0523]: the engine at `jobs.example:8099` is on another machine and was not told where the steps run
              help: add `--environment docker=IMAGE`, `external=HOST:PORT` (a pool: `tiebeam worker --pool`) or `process=COMMAND`
            exit 2
        "#]],
    );
    check(
        dir.path(),
        &["explain", "tb0204"],
        expect![[r#"
        TB0204: a column that the input rows do not have
          what to do: correct the name; the message lists the columns
        exit 0
    "#]],
    );
    check(
        dir.path(),
        &["explain", "TB9999"],
        expect![[r#"
        error: no error has the code `TB9999`; codes look like TB0204
        exit 2
    "#]],
    );
    check(
        dir.path(),
        &["transforms", "Fliter"],
        expect![[r#"
        error[TB0232]: unknown transform type `Fliter`
          help: did you mean `Filter`?
        exit 2
    "#]],
    );
    let model = "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{x: 1}]}
    - type: RunInference
      config:
        model_handler:
          type: OnnxModelHandlerNumpy
          config: {model_uri: broken.onnx}
";
    write("model.yaml", model);
    write("broken.onnx", "not a model");
    check(
        dir.path(),
        &["validate", "model.yaml"],
        expect![[r#"
        error[TB0331]: model broken.onnx: not an ONNX model, this looks like text
           ╭─[model.yaml:11:31]
        11 │           config: {model_uri: broken.onnx}
           ·                               ───────────
           ╰────
        exit 5
    "#]],
    );
    write("fails.yaml", &GOOD.replace("n * 10", "10 // (n - 2)"));
    check(
        dir.path(),
        &["run", "fails.yaml", "--progress", "none"],
        expect![[r#"
        error[TB0225]: MapToFields: ZeroDivisionError: integer division or modulo by zero (in `10 // (n - 2)`)
          help: send failing rows to an output: `error_handling: {output: errors}`
        exit 1
    "#]],
    );
    assert!(!dir.path().join("out/rows-00000-of-00001").exists());
}

#[test]
fn more_dead_letters_than_allowed_are_exit_code_three() {
    let dir = tempfile::tempdir().unwrap();
    let text = "
pipeline:
  transforms:
    - type: Create
      config: {elements: [{n: 1}, {n: 0}, {n: 2}]}
    - type: MapToFields
      input: Create
      config:
        fields: {n: 10 // n}
        error_handling: {output: bad}
    - type: WriteToStdout
      input: MapToFields
    - type: LogForTesting
      input: MapToFields.bad
      config: {level: ERROR}
";
    fs::write(dir.path().join("p.yaml"), text).unwrap();
    let code = |most: &str| {
        run(dir.path(), &["run", "p.yaml", "--max-dead-letters", most, "--progress", "none"]).status.code()
    };
    assert_eq!(code("1"), Some(0));
    assert_eq!(code("0"), Some(3));
}

#[test]
fn graphs_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.yaml"), GOOD).unwrap();
    for format in ["ascii", "mermaid", "dot", "json"] {
        let output = run(dir.path(), &["graph", "p.yaml", "--format", format]);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("MapToFields"), "{text}");
        if format == "json" {
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["edges"].as_array().unwrap().len(), 2);
        }
    }
    check(
        dir.path(),
        &["graph", "p.yaml"],
        expect![[r#"
        Create
        MapToFields ← Create
        WriteToJson ← MapToFields
        exit 0
    "#]],
    );
    let fused = run(dir.path(), &["graph", "p.yaml", "--fused", "--format", "dot"]);
    assert!(String::from_utf8(fused.stdout).unwrap().starts_with("digraph"));
}

#[test]
fn models_are_inspected() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    let output = run(&models, &["models", "inspect", "five.onnx", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["format"], "onnx");
    assert_eq!(json["inputs"][0]["dtype"], "float32");
    assert!(json["engines"].as_array().unwrap().iter().any(|e| e["name"] == "rten" && e["runs"] == true));
    let output = run(&models, &["models", "inspect", "five.pth", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["format"], &json["parameters"]), (&"pytorch".into(), &2.into()));
    assert_eq!(run(&models, &["models", "inspect", "five_whole_model.pth"]).status.code(), Some(5));
    let text = String::from_utf8(run(&models, &["models", "inspect", "five.onnx"]).stdout).unwrap();
    assert!(text.contains("model_handler:") && text.contains("input   x float32 [n, 1]"), "{text}");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let elements: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let text = format!(
        "pipeline:\n  type: chain\n  transforms:\n    - type: Create\n      config: {{elements: [{}]}}\n    - type: WriteToStdout\n",
        elements.join(", ")
    );
    fs::write(dir.path().join("p.yaml"), text).unwrap();
    let mut child = command(dir.path(), &["run", "p.yaml", "--progress", "none"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn the_command_documents_itself() {
    let dir = tempfile::tempdir().unwrap();
    let says = |arguments: &[&str], wanted: &[&str]| {
        let output = run(dir.path(), arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}");
        for wanted in wanted {
            assert!(text.contains(wanted), "{arguments:?} lacks {wanted}: {text}");
        }
    };
    says(&["transforms"], &["Create", "RunInference", "WriteToStdout"]);
    says(&["transforms", "MapToFields"], &["fields", "required, a mapping", "error_handling"]);
    says(&["transforms", "OnnxModelHandlerNumpy"], &["model_uri", "max_batch_size"]);
    says(&["doctor"], &["threads", "rten", "examples"]);
    says(&["--help"], &["run", "validate", "graph", "models", "explain"]);
    says(&["completions", "bash"], &["_tiebeam"]);
    assert_eq!(run(dir.path(), &["run"]).status.code(), Some(2));
    assert_eq!(run(dir.path(), &["fly"]).status.code(), Some(2));
}

#[test]
fn the_tests_of_a_file_are_run() {
    let dir = tempfile::tempdir().unwrap();
    let tests = "
tests:
  - name: times ten
    mock_outputs: [{name: Create, elements: [{n: 4}]}]
    expected_inputs: [{name: WriteToJson, elements: [{n: 40}]}]
  - name: wrong
    mock_inputs: [{name: MapToFields, elements: [{n: 4}]}]
    expected_outputs: [{name: MapToFields, elements: [{n: 5}]}]
";
    fs::write(dir.path().join("p.yaml"), format!("{GOOD}{tests}")).unwrap();
    check(
        dir.path(),
        &["test", "p.yaml"],
        expect![[r#"
            ok times ten (p.yaml:13)
            FAILED wrong (p.yaml:16): CheckOutput[MapToFields]/Compare: the rows are not those wanted; missing: {n: 5}; not wanted: {n: 40}
            1 passed, 1 failed
            exit 1
        "#]],
    );
    check(
        dir.path(),
        &["test", "p.yaml", "--only", "times"],
        expect![[r#"
            ok times ten (p.yaml:13)
            1 passed, 0 failed
            exit 0
        "#]],
    );
    fs::write(dir.path().join("q.yaml"), GOOD).unwrap();
    let output = run(dir.path(), &["test", "q.yaml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the file has no tests"));
    assert!(!dir.path().join("out").exists());
}
