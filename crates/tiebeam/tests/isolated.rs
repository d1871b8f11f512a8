//! A program made with `tiebeam::main` whose model is in a process of its own. Without a harness: the test is the program too, and so
//! is the process of its model.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::process::{Command, ExitCode};

#[path = "../../../examples/isolated.rs"]
mod isolated;

/// Makes this the program.
const PROGRAM: &str = "TIEBEAM_TEST_PROGRAM";

fn main() -> ExitCode {
    if std::env::var_os(PROGRAM).is_some() {
        return isolated::main();
    }
    let dir = tempfile::tempdir().unwrap();
    let (output, report) = (dir.path().join("out/part"), dir.path().join("report.json"));
    let ended = Command::new(std::env::current_exe().unwrap())
        .env(PROGRAM, "1")
        .args(["--output", output.to_str().unwrap(), "--report", report.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    let mut lines = Vec::new();
    for file in std::fs::read_dir(dir.path().join("out")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap_or_default();
        lines.extend(text.lines().map(str::to_owned));
    }
    lines.sort();
    let expected = [
        "1 -> 1",
        "13 failed: the process of squares ended by signal 6 (abort) on a batch of 1",
        "2 -> 4",
        "4 -> 16",
    ];
    assert_eq!(lines, expected, "{said}");
    let report = std::fs::read_to_string(report).unwrap();
    assert!(report.contains("\"model_process_deaths\""), "{report}");
    ExitCode::SUCCESS
}
