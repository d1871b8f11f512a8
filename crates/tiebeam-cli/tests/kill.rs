//! `kill -9` in the middle of a run: the earlier output stays whole, the next run tidies up and gives the whole new one.

#![allow(clippy::unwrap_used)] // the tests' own functions, too

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const LINES: usize = 120_000;

fn write_files(dir: &Path) {
    let input: String = (0..LINES).map(|n| format!("{n}\n")).collect();
    fs::write(dir.join("in.txt"), input).unwrap();
    let pipeline = "
pipeline:
  type: chain
  transforms:
    - type: ReadFromText
      config: {path: in.txt}
    - type: MapToFields
      config: {language: python, fields: {line: \"line + '{{ mark }}'\"}}
    - type: WriteToText
      config: {path: out/lines}
";
    fs::write(dir.join("p.yaml"), pipeline).unwrap();
}

fn start(dir: &Path, mark: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tiebeam"))
        .args(["run", "p.yaml", "--progress", "none", "--set", &format!("mark={mark}")])
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Visible files with their contents, and the names of hidden ones.
fn look(dir: &Path) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut visible, mut hidden) = (BTreeMap::new(), Vec::new());
    for entry in fs::read_dir(dir.join("out")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with('.') {
            hidden.push(name);
        } else {
            visible.insert(name, fs::read_to_string(entry.path()).unwrap());
        }
    }
    (visible, hidden)
}

/// All lines of an output, each with that mark and each number once.
fn is_whole(files: &BTreeMap<String, String>, mark: &str) -> bool {
    let mut numbers: Vec<usize> = Vec::new();
    for line in files.values().flat_map(|text| text.lines()) {
        match line.strip_suffix(mark).and_then(|number| number.parse().ok()) {
            Some(number) => numbers.push(number),
            None => return false,
        }
    }
    numbers.sort_unstable();
    numbers == (0..LINES).collect::<Vec<_>>()
}

/// The number of temporary files that a run has begun.
fn begun(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir.join("out")) else { return 0 };
    let own = entries.flatten().filter(|entry| entry.path().is_dir());
    own.map(|entry| 1 + fs::read_dir(entry.path()).map_or(0, Iterator::count)).sum()
}

#[test]
fn a_killed_run_leaves_the_earlier_output_whole_and_the_next_one_tidies_up() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_files(dir);
    finish(start(dir, "a"));
    let (old, hidden) = look(dir);
    assert!(is_whole(&old, "a") && hidden.iter().all(|name| name.ends_with(".lock")), "{hidden:?}");

    let mut killed = 0;
    // From the moment the output is claimed to when several of its files are being written.
    for wanted in [1, 2, 3, 4] {
        let mut child = start(dir, "b");
        while begun(dir) < wanted && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let (seen, _) = look(dir);
        if status.success() {
            // It was done before the signal came.
            assert!(is_whole(&seen, "b"));
            finish(start(dir, "a"));
        } else {
            killed += 1;
            assert!(is_whole(&seen, "a") || is_whole(&seen, "b"), "after a kill at {wanted} files");
        }
    }
    assert!(killed > 0, "no run was killed in the middle");

    finish(start(dir, "c"));
    let (new, hidden) = look(dir);
    assert!(is_whole(&new, "c"));
    assert!(hidden.iter().all(|name| name.ends_with(".lock")), "left over: {hidden:?}");
}
