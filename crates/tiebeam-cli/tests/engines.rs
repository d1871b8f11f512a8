//! Engines that are started for a job, with programs in Prism's place that are none: no engine needs to be here.

#![allow(clippy::unwrap_used)] // the tests' own functions, too

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

const PIPELINE: &str = "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{n: 1}]}
    - type: WriteToJson
      config: {path: out/rows}
";

/// The command in a folder with a pipeline and without any engine.
fn command(dir: &Path, arguments: &[&str]) -> Command {
    fs::write(dir.join("p.yaml"), PIPELINE).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiebeam"));
    command.args(arguments).current_dir(dir).env_remove("RUST_BACKTRACE");
    command.env("TIEBEAM_CACHE", dir.join("cache")).env("HOME", dir).env_remove("TIEBEAM_PRISM");
    command.env_remove("GOBIN").env_remove("GOPATH");
    command
}

/// The exit code and what it wrote to stderr.
fn ended(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_engine_that_is_not_here_is_told_with_what_installs_it() {
    let dir = tempfile::tempdir().unwrap();
    let run = |runner: &str| {
        let mut command = command(dir.path(), &["run", "p.yaml", "--runner", runner]);
        command.env("PATH", dir.path());
        ended(command)
    };
    for runner in ["flink", "spark"] {
        let told = format!(
            "error[TB0522]: there is no {runner} on this machine, and no `--job-endpoint HOST:PORT` names another\n  \
             help: install it: `cargo xtask engines install {runner}` in a clone of tiebeam\n"
        );
        assert_eq!(run(runner), (Some(2), told));
    }
    let (code, told) = run("prism");
    assert_eq!(code, Some(2));
    assert!(told.contains("install it: `go install github.com/apache/beam/sdks/v2/go/cmd/prism@v"), "{told}");
    assert!(told.contains("or `cargo xtask engines install prism` in a clone of tiebeam"), "{told}");
    assert!(!dir.path().join("cache").exists(), "looking leaves nothing behind");
}

#[test]
fn a_named_prism_that_is_no_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), &["run", "p.yaml", "--runner", "prism"]);
    command.env("TIEBEAM_PRISM", "p.yaml");
    let told = "error[TB0522]: TIEBEAM_PRISM names `p.yaml`, which is no program\n";
    assert_eq!(ended(command), (Some(2), told.to_owned()));
}

#[test]
fn an_engine_that_is_started_can_not_be_left() {
    let dir = tempfile::tempdir().unwrap();
    script(&dir.path().join("prism"), "exit 0");
    let mut command =
        command(dir.path(), &["run", "p.yaml", "--runner", "prism", "--detach", "--environment", "process"]);
    command.env("TIEBEAM_PRISM", "prism");
    let (code, told) = ended(command);
    assert_eq!(code, Some(2));
    assert!(told.starts_with("error[TB0524]: `--detach` cannot leave a job on a prism"), "{told}");
}

#[test]
fn an_engine_that_dies_is_told_with_its_log_and_last_words() {
    let dir = tempfile::tempdir().unwrap();
    script(&dir.path().join("prism"), "echo no more ports >&2; exit 3");
    let mut command = command(dir.path(), &["run", "p.yaml", "--runner", "prism", "--progress", "none"]);
    command.env("TIEBEAM_PRISM", "./prism");
    let (code, told) = ended(command);
    assert_eq!(code, Some(1), "{told}");
    let cache = dir.path().join("cache/engines");
    let log =
        format!("caused by: prism: prism ended (exit status: 3): {}", cache.join("logs/prism-").display());
    assert!(told.starts_with("error[TB0532]: the engine for the job did not start\n"), "{told}");
    assert!(told.contains(&log) && told.contains("prism.log\n  no more ports\n"), "{told}");
    assert_eq!(fs::read_dir(cache.join("run")).unwrap().count(), 0, "its files are gone");
}

#[test]
fn a_signal_ends_the_start_and_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // It never listens. Who holds the other end of the FIFO is seen by its end.
    script(&dir.path().join("prism"), "exec 9>\"$FIFO\"; echo here >&9; exec sleep 1000");
    let mut command = command(dir.path(), &["run", "p.yaml", "--runner", "prism"]);
    command.env("TIEBEAM_PRISM", "./prism").env("FIFO", &fifo).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut held = BufReader::new(File::open(&fifo).unwrap());
    let mut line = String::new();
    held.read_line(&mut line).unwrap();
    assert_eq!(line, "here\n");
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143), "{told}");
    assert!(told.starts_with("starting prism … 127.0.0.1:"), "{told}");
    assert!(told.ends_with("cancelled: no output was committed\n"), "{told}");
    assert_eq!(held.read(&mut [0; 9]).unwrap(), 0, "the engine is gone");
}
