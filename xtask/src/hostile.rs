//! `cargo xtask hostile`: mutated files, twenty thousand of each format, read one after another by the tests that read fewer in
//! everyday life. An abort and a hang are told with the mutant that was being read.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{built, say};

/// The packages whose test `hostile` reads mutants.
const PACKAGES: [&str; 5] =
    ["tiebeam-torch", "tiebeam-tflite", "tiebeam-trees", "tiebeam-io", "tiebeam-yaml"];

/// How long a mutant of each format of a test may take on average, in milliseconds: some fifty times what it takes.
const PATIENCE: u64 = 30;

/// The task with its arguments. False where something was wrong.
pub(crate) fn run(arguments: &[&str]) -> Result<bool, String> {
    let mutations: u64 = match arguments {
        [] => 20_000,
        ["--mutations", number] => {
            number.parse().map_err(|_| format!("`--mutations` wants a number, got `{number}`"))?
        }
        other => return Err(format!("there is no `{}`, only --mutations", other.join(" "))),
    };
    let (mut passed, mut failed) = (0, 0);
    let programs = built::tests("hostile")?;
    for package in PACKAGES {
        let program = programs.get(package).ok_or(format!("cargo built no test `hostile` of {package}"))?;
        let (counts, well) = read(program, package, mutations)?;
        passed += counts.0;
        failed += counts.1.max(u64::from(!well));
    }
    say(format_args!("hostile: {passed} passed, {failed} failed"));
    Ok(failed == 0)
}

/// Runs one test; gives its counts and whether it ended well.
fn read(program: &Path, package: &str, mutations: u64) -> Result<((u64, u64), bool), String> {
    let shown = |error: std::io::Error| error.to_string();
    let at = std::env::temp_dir().join(format!("tiebeam-hostile-{}", std::process::id()));
    let mut child = Command::new(program)
        .args(["--nocapture", "--test-threads", "1"])
        .env("TIEBEAM_MUTATIONS", mutations.to_string())
        .env("TIEBEAM_HOSTILE_AT", &at)
        .current_dir(folder(package))
        .stdout(Stdio::piped())
        .spawn()
        .map_err(shown)?;
    let mut out = child.stdout.take().ok_or("the test has no output")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    let until =
        Instant::now() + Duration::from_millis(PATIENCE.saturating_mul(mutations)) + Duration::from_secs(60);
    let ended = loop {
        if let Some(status) = child.try_wait().map_err(shown)? {
            break Some(status);
        }
        if Instant::now() > until {
            child.kill().map_err(shown)?;
            child.wait().map_err(shown)?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(50)); // std has no wait with a time limit
    };
    let text = reader.join().map_err(|_| "the test's output was lost")?.map_err(shown)?;
    let last = std::fs::read_to_string(&at).unwrap_or_default();
    let _ = std::fs::remove_file(&at);
    for line in text.lines().filter_map(told) {
        say(line);
    }
    match ended {
        Some(status) if status.success() => {}
        Some(status) => {
            say(format_args!("hostile: {package} ended with {status}, the last mutant was {}", last.trim()))
        }
        None => say(format_args!("hostile: {package} hangs at mutant {}", last.trim())),
    }
    Ok((counts(&text), ended.is_some_and(|status| status.success())))
}

fn folder(package: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(package)
}

/// The part of a line that a test says of a format; the harness may have begun the line.
fn told(line: &str) -> Option<&str> {
    line.find("hostile ").map(|at| &line[at..]).filter(|line| line.contains(" passed, "))
}

/// Passed and failed of all formats.
fn counts(text: &str) -> (u64, u64) {
    let number = |line: &str, word: &str| {
        let before = line.split(word).next()?;
        before.rsplit(' ').next()?.parse::<u64>().ok()
    };
    let mut all = (0, 0);
    for line in text.lines().filter_map(told) {
        all.0 += number(line, " passed").unwrap_or(0);
        all.1 += number(line, " failed").unwrap_or(0);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_say_is_counted() {
        let text = "running 2 tests\ntest a ... hostile pth: 19 passed, 1 failed; 12 refused, 7 read; at most 1 kB\n\
                    hostile onnx: 20 passed, 0 failed; 20 refused\ntest result: ok. 2 passed, 7 failed\n";
        assert_eq!(counts(text), (39, 1));
    }
}
