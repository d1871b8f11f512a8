//! Whole pipeline files, run by the embedded runner.

use std::fs;
use std::sync::{Arc, Mutex};

use expect_test::{Expect, expect};
use tiebeam_runner::{EmbeddedRunner, RunnerOptions};
use tiebeam_yaml::{Environment, Variables, load};

/// The repository's models.
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/models");

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
    shown.replace(&dir.path().display().to_string(), "DIR").replace(MODELS, "MODELS")
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
        expect![[""]],
    );
}
