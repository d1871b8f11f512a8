//! The verbs as somebody meets them at two in the morning: what they print, what they refuse, what they leave behind.

#![allow(clippy::unwrap_used)] // the tests' own functions, too

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use expect_test::{Expect, expect};
use serde_json::Value;

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiebeam"));
    command.args(arguments).current_dir(dir).env_remove("RUST_BACKTRACE").env("XDG_RUNTIME_DIR", dir);
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).output().unwrap()
}

/// What the command printed to both, and its exit code.
fn said(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    format!(
        "{}{}exit {}\n",
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
        output.status.code().unwrap()
    )
}

fn check(dir: &Path, arguments: &[&str], expected: Expect) {
    expected.assert_eq(&said(dir, arguments));
}

fn lines(path: &Path) -> Vec<String> {
    let mut lines: Vec<String> = fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn starters_run_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    check(
        dir.path(),
        &["init", "--list"],
        expect![[r#"
            score     a csv file through a PyTorch model to JSON; what fails goes beside, with tests
            words     the long words of text files, no model
            branch    the same numbers to two ONNX models at once
            sequence  one model's answer to the next: PyTorch, then ONNX
            exit 0
        "#]],
    );
    for template in ["score", "words", "branch", "sequence"] {
        let made = run(dir.path(), &["init", template, "--template", template]);
        assert!(made.status.success(), "{made:?}");
        let folder = dir.path().join(template);
        let pipeline = fs::read_to_string(folder.join("pipeline.yaml")).unwrap();
        assert!(!pipeline.contains("examples/") && !pipeline.contains("fixtures/"), "{pipeline}");
        let ran = run(&folder, &["run", "pipeline.yaml"]);
        assert!(ran.status.success(), "{template}: {}", String::from_utf8_lossy(&ran.stderr));
    }
    let score = dir.path().join("score");
    assert_eq!(lines(&score.join("out/prices-00000-of-00001")).len(), 4);
    check(
        &score,
        &["test", "pipeline.yaml"],
        expect![[r#"
            ok a price for each flat (pipeline.yaml:40)
            1 passed, 0 failed
            exit 0
        "#]],
    );
}

#[test]
fn a_starter_writes_over_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), "").unwrap();
    check(
        dir.path(),
        &["init", "."],
        expect![[r#"
            error[TB0593]: the folder . is not empty
              help: name a new one: nothing is written over
            exit 4
        "#]],
    );
    check(
        dir.path(),
        &["init", "mine"],
        expect![[r#"
            error[TB0593]: mine cannot be used: Not a directory (os error 20)
            exit 4
        "#]],
    );
    check(
        dir.path(),
        &["init", "new", "--template", "scores"],
        expect![[r#"
            error[TB0592]: there is no template `scores`
              help: templates: score, words, branch, sequence
            exit 2
        "#]],
    );
    assert!(!dir.path().join("new").exists());
}

/// Three files of five thousand numbers, and a pipeline that reads them and a Create.
fn numbers(dir: &Path) {
    for file in 0..3 {
        let text: String = (0..5_000).map(|n| format!("{}\n", file * 5_000 + n)).collect();
        fs::write(dir.join(format!("numbers-{file}.txt")), text).unwrap();
    }
    let pipeline = "
pipeline:
  transforms:
    - type: ReadFromText
      config: {path: numbers-*.txt}
    - type: Create
      config: {elements: [{line: a}, {line: b}, {line: c}]}
    - type: WriteToText
      name: Numbers
      input: ReadFromText
      config: {path: out/numbers, num_shards: 1}
    - type: WriteToText
      name: Letters
      input: Create
      config: {path: out/letters, num_shards: 1}
";
    fs::write(dir.join("p.yaml"), pipeline).unwrap();
}

#[test]
fn a_limit_is_exact_for_each_source() {
    let dir = tempfile::tempdir().unwrap();
    numbers(dir.path());
    let limited = |n: &str, threads: &str| {
        let flags =
            ["run", "p.yaml", "--limit", n, "--threads", threads, "--report", "r.json", "--progress", "none"];
        let output = run(dir.path(), &flags);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&fs::read(dir.path().join("r.json")).unwrap()).unwrap();
        let stages = report["stages"].as_array().unwrap();
        let rows = stages.iter().find(|stage| stage["name"] == "ReadFromText/ToRows").unwrap();
        let written = lines(&dir.path().join("out/numbers-00000-of-00001"));
        assert_eq!(rows["out"].as_u64().unwrap(), written.len() as u64);
        let letters = lines(&dir.path().join("out/letters-00000-of-00001"));
        (written, letters.concat())
    };
    // With one thread they are the first ones.
    let mut first: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    first.sort();
    assert_eq!(limited("1000", "1"), (first, "abc".to_owned()));
    assert_eq!(limited("2", "1"), (vec!["0".to_owned(), "1".to_owned()], "ab".to_owned()));
    for n in [0, 1, 255, 256, 257, 7_000, 15_000, 20_000] {
        let (written, letters) = limited(&n.to_string(), "3");
        assert_eq!((written.len(), letters.len()), (n.min(15_000), n.min(3)), "{n}");
        let mut unique = written.clone();
        unique.dedup();
        assert_eq!(unique.len(), written.len());
    }
    check(
        dir.path(),
        &["run", "p.yaml", "--limit", "1", "--runner", "portable", "--job-endpoint", "127.0.0.1:1"],
        expect![[r#"
            error[TB0597]: `--limit` bounds sources of the embedded runner, not those of portable
              help: try the pipeline without `--runner` first
            exit 2
        "#]],
    );
}

#[test]
fn a_dry_run_tells_all_and_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    numbers(dir.path());
    fs::create_dir(dir.path().join("out")).unwrap();
    fs::write(dir.path().join("out/letters-00000-of-00001"), "old\n").unwrap();
    check(
        dir.path(),
        &["run", "p.yaml", "--dry-run"],
        expect![[r#"
        p: valid, 4 transforms, nothing was run
        reads
          numbers-*.txt: 3 files, 77.0 KiB
        stages
          stage 0 from impulse
            ReadFromText/List
            => store 0 (ReadFromText/List)
          stage 1 from impulse
            Create/Elements
            => store 1 (Create/Elements)
          stage 2 from impulse
            Numbers/Begin
            Numbers/Job
            Numbers/Flatten
            => side input side:10:1 (Numbers/Begin)
            => shuffle 2 (Numbers/Flatten)
          stage 3 from impulse
            Letters/Begin
            Letters/Job
            Letters/Flatten
            => side input side:19:2 (Letters/Begin)
            => shuffle 3 (Letters/Flatten)
          stage 4 from store 0 one by one, after 0, 2
            ReadFromText/Read
            ReadFromText/ToRows
            Numbers/Lines
            Numbers/Global
            Numbers/WriteShards
            Numbers/Flatten
            => shuffle 2 (Numbers/Flatten)
          stage 5 from store 1, after 1, 3
            Letters/Lines
            Letters/Global
            Letters/WriteShards
            Letters/Flatten
            => shuffle 3 (Letters/Flatten)
          stage 6 from shuffle 2, after 2, 4
            Numbers/Commit
          stage 7 from shuffle 3, after 3, 5
            Letters/Commit
        writes
          out/numbers-*
          out/letters-*, in place of 1 file that is there
        exit 0
    "#]],
    );
    assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(dir.path().join("out/letters-00000-of-00001")).unwrap(), "old\n");
    let example = said(dir.path(), &["run", "--example", "times-five", "--dry-run"]);
    assert!(example.contains("models, loaded and checked\n  fixtures/models/five.pth: "), "{example}");
}

#[test]
fn progress_as_json_is_a_line_a_step() {
    let dir = tempfile::tempdir().unwrap();
    numbers(dir.path());
    let output = run(dir.path(), &["run", "p.yaml", "--progress", "json"]);
    let text = String::from_utf8(output.stderr).unwrap();
    let parsed: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(text.lines().count(), parsed.len() + 1, "only the verdict is no JSON: {text}");
    let last = parsed.iter().rev().find(|line| line["stage"] == "ReadFromText/ToRows").unwrap();
    let keys: Vec<&str> = last.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["t", "stage", "in", "out", "dead", "committed", "watermark"]);
    assert_eq!(
        (&last["in"], &last["out"], &last["committed"]),
        (&15_000.into(), &15_000.into(), &15_000.into())
    );
}

const REFUSING: &str = "
pipeline:
  transforms:
    - type: Create
      name: Numbers
      config: {elements: [{n: 1, d: 2}, {n: 2, d: 0}, {n: 3, d: 0}, {n: 44, d: 4}]}
    - type: MapToFields
      name: Divide
      input: Numbers
      config:
        language: python
        fields: {n: n, share: n // d}
        error_handling: {output: bad}
    - type: Create
      name: Names
      config: {elements: [{k: 2, name: two}, {k: 3, name: three}]}
    - type: Join
      name: Named
      input: {d: Divide, n: Names}
      config: {type: left, equalities: [{d: n, n: k}], fields: {d: [n, share], n: [name]}}
    - type: WriteToJson
      name: Shares
      input: Named
      config: {path: out/shares, num_shards: 1}
    - type: WriteToJson
      name: Bad
      input: Divide.bad
      config: {path: out/bad, num_shards: 1}
";

#[test]
fn dead_letters_are_grouped_by_cause() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.yaml"), REFUSING).unwrap();
    assert!(run(dir.path(), &["run", "p.yaml", "--threads", "1"]).status.success());
    check(
        dir.path(),
        &["errors", "out/bad"],
        expect![[r#"
        2 dead letters in 1 file, 1 cause

        2 × ZeroDivisionError: integer division or modulo by zero
          element  {"n":2,"d":0}
          letter   out/bad-00000-of-00001:1
        exit 0
    "#]],
    );
    let json = run(dir.path(), &["errors", "out/bad-*", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["letters"], &json["causes"][0]["count"]), (&2.into(), &2.into()));
    check(
        dir.path(),
        &["errors", "out/none"],
        expect![[r#"
        error[TB0595]: there are no dead letters at out/none
          help: name what the sink of the error output writes, such as `out/bad-*`
        exit 2
    "#]],
    );
    check(
        dir.path(),
        &["errors", "out/shares"],
        expect![[r#"
        error[TB0595]: out/shares-00000-of-00001:1 is no dead letter: no JSON object with `element` and `msg`
          help: dead letters are what an error output writes: `{element, msg, stack}`
        exit 2
    "#]],
    );
}

#[test]
fn mended_code_reruns_only_what_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = dir.path().join("p.yaml");
    fs::write(&pipeline, REFUSING).unwrap();
    assert!(run(dir.path(), &["run", "p.yaml"]).status.success());
    let out = |name: &str| dir.path().join("out").join(format!("{name}-00000-of-00001"));
    let before = (fs::read(out("shares")).unwrap(), fs::read(out("bad")).unwrap());
    // One is mended, the other is refused again.
    fs::write(&pipeline, REFUSING.replace("n // d", "n // d if n != 2 else -1")).unwrap();
    let first = run(dir.path(), &["errors", "out/bad", "--replay", "p.yaml", "--report", "r.json"]);
    let told = String::from_utf8(first.stderr).unwrap();
    assert_eq!(first.status.code(), Some(0), "{told}");
    assert!(
        told.starts_with(
            "2 dead letters in 1 file, 1 cause go through `Divide` again\nnote: `Named` brings together"
        ),
        "{told}"
    );
    // The other side of the join ran too.
    assert_eq!(lines(&out("shares-replay1")), ["{\"n\":2,\"share\":-1,\"name\":\"two\"}"]);
    assert_eq!(lines(&out("bad-replay1")).len(), 1);
    let report: Value = serde_json::from_slice(&fs::read(dir.path().join("r.json")).unwrap()).unwrap();
    let stages = report["stages"].as_array().unwrap();
    assert!(stages.iter().all(|stage| !stage["name"].as_str().unwrap().starts_with("Numbers")), "{report}");
    // What is left, after another mend: beside what is there already.
    fs::write(&pipeline, REFUSING.replace("n // d", "n // d if d != 0 else 0")).unwrap();
    let second = run(dir.path(), &["errors", "out/bad-replay1", "--replay", "p.yaml", "--step", "Divide"]);
    assert_eq!(second.status.code(), Some(0), "{}", String::from_utf8_lossy(&second.stderr));
    assert_eq!(lines(&out("shares-replay2")), ["{\"n\":3,\"share\":0,\"name\":\"three\"}"]);
    assert_eq!((fs::read(out("shares")).unwrap(), fs::read(out("bad")).unwrap()), before);
}

#[test]
fn a_mended_model_reruns_what_it_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    fs::copy(fixtures.join("five.onnx"), dir.path().join("m.onnx")).unwrap();
    let pipeline = "
pipeline:
  transforms:
    - type: Create
      config: {elements: [{x: [1.5], id: a}, {x: [2.0, 3.0], id: b}]}
    - type: RunInference
      name: Ask
      input: Create
      config:
        model_handler:
          type: OnnxModelHandlerNumpy
          config: {model_uri: m.onnx, PREPARE}
        error_handling: {output: bad}
    - type: MapToFields
      name: Say
      input: Ask
      config: {language: python, fields: {id: id}}
    - type: WriteToJson
      name: Good
      input: Say
      config: {path: out/good, num_shards: 1}
    - type: WriteToJson
      name: Bad
      input: Ask.bad
      config: {path: out/bad, num_shards: 1}
";
    let write =
        |prepare: &str| fs::write(dir.path().join("p.yaml"), pipeline.replace("PREPARE", prepare)).unwrap();
    write("inputs: {x: x}");
    assert!(run(dir.path(), &["run", "p.yaml"]).status.success());
    let told = said(dir.path(), &["errors", "out/bad"]);
    assert!(told.contains("1 × error[TB0340]: "), "{told}");
    assert!(told.contains("  element  {\"x\":[2.0,3.0],\"id\":\"b\"}"), "{told}");
    write("preprocess: {expression: 'x[:1]'}");
    let rerun = run(dir.path(), &["errors", "out/bad", "--replay", "p.yaml"]);
    assert_eq!(rerun.status.code(), Some(0), "{}", String::from_utf8_lossy(&rerun.stderr));
    assert_eq!(lines(&dir.path().join("out/good-replay1-00000-of-00001")), ["{\"id\":\"b\"}"]);
}

#[test]
fn what_cannot_be_rerun_is_told_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.yaml"), REFUSING).unwrap();
    assert!(run(dir.path(), &["run", "p.yaml"]).status.success());
    fs::copy(dir.path().join("out/bad-00000-of-00001"), dir.path().join("elsewhere.jsonl")).unwrap();
    check(
        dir.path(),
        &["errors", "elsewhere.jsonl", "--replay", "p.yaml"],
        expect![[r#"
        error[TB0270]: no sink of the pipeline writes dead letters to elsewhere.jsonl
          ╭─[p.yaml:2:1]
        2 │ pipeline:
          · ────────
          ╰────
          transforms with an error output: Divide
          help: name the transform that refused them: `--step NAME`
        exit 78
    "#]],
    );
    check(
        dir.path(),
        &["errors", "out/bad", "--replay", "p.yaml", "--step", "Divid"],
        expect![[r#"
        error[TB0270]: there is no transform `Divid` with an error output
          ╭─[p.yaml:2:1]
        2 │ pipeline:
          · ────────
          ╰────
          transforms with an error output: Divide
          help: did you mean `Divide`?
        exit 78
    "#]],
    );
    check(
        dir.path(),
        &["errors", "out/bad", "--replay", "none.yaml"],
        expect![[r#"
        error[TB0229]: there is no pipeline file none.yaml
        exit 78
    "#]],
    );
    check(
        dir.path(),
        &["errors", "out/bad", "--replay", "p.yaml", "--runner", "prism"],
        expect![[r#"
        error[TB0595]: dead letters are rerun in this process: `--replay` goes without `--runner`
        exit 2
    "#]],
    );
}

#[test]
fn models_are_measured() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    let bench = |arguments: &[&str]| run(&models, &[&["models", "bench"], arguments].concat());
    let output = bench(&["five.onnx", "--batch", "1,8", "--seconds", "0", "--engine", "rten", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["inputs"], serde_json::json!([{"name": "x", "dtype": "float32", "row_shape": [1]}]));
    let results = json["results"].as_array().unwrap();
    assert_eq!(results.iter().map(|line| &line["batch"]).collect::<Vec<_>>(), [1, 8]);
    for line in results {
        assert_eq!((&line["engine"], &line["calls"]), (&"rten".into(), &1.into()));
        assert!(line["p50_ms"].as_f64().unwrap() > 0.0 && line["rows_per_second"].as_f64().unwrap() > 0.0);
    }
    let torch = [
        "five.pth",
        "--model-class",
        "LinearRegression",
        "--model-param",
        "input_dim=1",
        "--model-param",
        "output_dim=1",
        "--seconds",
        "0",
        "--engine",
        "rten",
        "--batch",
        "4",
    ];
    let text = String::from_utf8(bench(&torch).stdout).unwrap();
    assert!(
        text.contains("rows/s") && text.lines().any(|line| line.starts_with("rten           4        1")),
        "{text}"
    );
    check(
        &models,
        &["models", "bench", "five.pth"],
        expect![[r#"
        error[TB0594]: five.pth holds weights alone, which are no model
          help: add `--model-class CLASS`, and `--model-param NAME=VALUE` for its arguments; `tiebeam models inspect` lists classes
        exit 2
    "#]],
    );
    check(
        &models,
        &["models", "bench", "five.onnx", "--dim", "seq=3", "--engine", "rten"],
        expect![[r#"
        error[TB0594]: the model has no free axis `seq`
          help: it has none with a name
        exit 2
    "#]],
    );
    assert_eq!(bench(&["none.onnx"]).status.code(), Some(5));
    assert_eq!(bench(&["five.onnx", "--batch", "0"]).status.code(), Some(2));
}

#[test]
fn a_running_job_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..400_000).map(|n| format!("line {n}\n")).collect();
    fs::write(dir.path().join("lines.txt"), text).unwrap();
    let pipeline = "
pipeline:
  type: chain
  transforms:
    - type: ReadFromText
      config: {path: lines.txt}
    - type: WriteToStdout
";
    fs::write(dir.path().join("look.yaml"), pipeline).unwrap();
    // It waits for somebody to read what it prints.
    let mut job = command(dir.path(), &["run", "look.yaml", "--ui", "--progress", "none", "--threads", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(job.stderr.take().unwrap()).read_line(&mut first).unwrap();
    let address = first.trim().strip_prefix("ui http://").unwrap().to_owned();
    let status = || -> Value {
        serde_json::from_slice(&run(dir.path(), &["top", &address, "--json"]).stdout).unwrap()
    };
    assert_eq!((&status()["job"], &status()["status"]), (&"look".into(), &"running".into()));
    let shown = String::from_utf8(run(dir.path(), &["top", "--once"]).stdout).unwrap();
    assert!(
        shown.starts_with("look: running on embedded, ") && shown.contains("ReadFromText/Read"),
        "{shown}"
    );
    check(
        dir.path(),
        &["tap", "look", "ReadFromTxt"],
        expect![[r#"
            error[TB0596]: there is no step `ReadFromTxt` that gives elements
              help: steps here: ReadFromText, ReadFromText/Impulse, ReadFromText/List, ReadFromText/Reshuffle, ReadFromText/Read, ReadFromText/ToRows, WriteToStdout
            exit 2
        "#]],
    );
    let mut tap = command(dir.path(), &["tap", "-", "ReadFromText", "-n", "3", "--wait", "300"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Until it looks, or has seen enough already: the job may still have been filling the pipe.
    while status()["tapped"] != 1 && tap.try_wait().unwrap().is_none() {}
    // Now it may go on.
    let mut printed = String::new();
    job.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    let tapped = String::from_utf8(tap.wait_with_output().unwrap().stdout).unwrap();
    let elements: Vec<Value> = tapped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(elements.len(), 3, "{tapped}");
    assert!(elements.iter().all(|row| row["line"].as_str().unwrap().starts_with("line ")), "{tapped}");
    assert!(job.wait().unwrap().success());
    assert_eq!(printed.lines().count(), 400_000);
    // Its note has gone with it.
    check(
        dir.path(),
        &["top"],
        expect![[r#"
            error[TB0596]: no job that can be looked at runs on this machine
              help: start one with `tiebeam run FILE --ui`
            exit 2
        "#]],
    );
}

#[test]
fn a_page_for_the_network_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    numbers(dir.path());
    check(
        dir.path(),
        &["run", "p.yaml", "--ui=0.0.0.0:0"],
        expect![[r#"
            error[TB0598]: `--ui` listens on this machine only, and 0.0.0.0 is an address of the network
              help: leave the address out, and reach it by `ssh -L`
            exit 2
        "#]],
    );
    assert!(!dir.path().join("out").exists());
}

#[test]
fn graphs_are_pictures_too() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.yaml"), REFUSING).unwrap();
    let svg = String::from_utf8(run(dir.path(), &["graph", "p.yaml", "--format", "svg"]).stdout).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains(">Divide<") && svg.contains(">bad<"), "{svg}");
    let fused = run(dir.path(), &["graph", "p.yaml", "--format", "svg", "--fused"]);
    assert!(String::from_utf8(fused.stdout).unwrap().contains(">stage 0"));
}

#[test]
fn shells_are_told_the_verbs() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(run(dir.path(), &["completions", shell]).stdout).unwrap();
        for verb in ["init", "errors", "bench", "schema", "limit"] {
            assert!(script.contains(verb), "{shell} lacks {verb}");
        }
    }
}
