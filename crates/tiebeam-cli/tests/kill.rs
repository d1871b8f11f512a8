//! `kill -9` in the middle of a run: the earlier output stays whole, the next run tidies up and gives the whole new one; with
//! a state directory it goes on where the killed one was.

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
    start_with(dir, &["--set", &format!("mark={mark}")])
}

fn start_with(dir: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tiebeam"))
        .args(["run", "p.yaml", "--progress", "none"])
        .args(arguments)
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

/// Many small files, two outputs, a grouping between.
fn write_many_files(dir: &Path) {
    fs::create_dir(dir.join("in")).unwrap();
    for file in 0..40 {
        let lines: String =
            (file * 250..(file + 1) * 250).map(|n| format!("k{},{n}\n", n * 7919 % 101)).collect();
        fs::write(dir.join(format!("in/{file:02}.csv")), format!("key,n\n{lines}")).unwrap();
    }
    let pipeline = "
pipeline:
  transforms:
    - type: ReadFromCsv
      name: Read
      config: {path: 'in/*.csv'}
    - type: MapToFields
      name: Shape
      input: Read
      config: {language: python, append: true, fields: {more: \"n + {{ add }}\"}}
    - type: WriteToCsv
      name: All
      input: Shape
      config: {path: out/all, num_shards: 3}
    - type: Combine
      name: Sums
      input: Shape
      config: {group_by: key, combine: {n: sum, more: max}}
    - type: WriteToCsv
      name: Kept
      input: Sums
      config: {path: out/sums}
";
    fs::write(dir.join("p.yaml"), pipeline).unwrap();
}

fn start_resumable(dir: &Path, add: usize) -> Child {
    let add = format!("add={add}");
    start_with(dir, &["--threads", "2", "--state-dir", "state", "--resume", "--set", &add])
}

/// The bundles that are written down as done.
fn bundles_done(dir: &Path) -> usize {
    let Ok(stages) = fs::read_dir(dir.join("state/tiebeam-run")) else { return 0 };
    let files = stages.flatten().filter_map(|stage| fs::read_dir(stage.path()).ok()).flatten().flatten();
    files.filter(|file| file.path().extension().is_some_and(|ending| ending == "done")).count()
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Starts the job and kills it once that many more bundles are done; false where it ended before.
fn kill_after(dir: &Path, more: usize) -> bool {
    let mut child = start_resumable(dir, 1);
    let before = bundles_done(dir);
    while bundles_done(dir) < before + more && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_many_files(dir);
    finish(start_resumable(dir, 1));
    let (wanted, hidden) = look(dir);
    assert_eq!(
        (wanted.len(), hidden.len(), names(&dir.join("state")).len()),
        (4, 0, 0),
        "{wanted:?} {hidden:?}"
    );
    fs::remove_dir_all(dir.join("out")).unwrap();

    let mut killed = 0;
    for more in [1, 5, 2, 9, 13, 4] {
        killed += usize::from(kill_after(dir, more));
        let (seen, _) = if dir.join("out").exists() { look(dir) } else { Default::default() };
        assert!(
            seen.iter().all(|(name, text)| wanted.get(name) == Some(text)),
            "partial files are to be seen"
        );
    }
    assert!(killed > 0, "no run was killed in the middle");
    finish(start_resumable(dir, 1));
    let (seen, hidden) = look(dir);
    assert!(seen == wanted, "the output is not that of an undisturbed run");
    assert_eq!((hidden, names(&dir.join("state"))), (vec![], vec![]), "left over");
}

#[test]
fn a_killed_run_does_not_go_on_as_another() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_many_files(dir);
    assert!(kill_after(dir, 3));
    let refused = |child: Child| {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    };
    let text = refused(start_resumable(dir, 2));
    assert!(text.contains("TB0572") && text.contains("option add was `1`, is `2`"), "{text}");
    fs::write(dir.join("in/99.csv"), "key,n\nk0,1\n").unwrap();
    let text = refused(start_resumable(dir, 1));
    assert!(text.contains("it is of another job: the input of Read"), "{text}");
    fs::remove_file(dir.join("in/99.csv")).unwrap();
    // As it was begun it goes on, and gives the whole.
    finish(start_resumable(dir, 1));
    let (seen, hidden) = look(dir);
    let lines: usize =
        seen.iter().filter(|(name, _)| name.starts_with("all")).map(|(_, text)| text.lines().count()).sum();
    assert_eq!((seen.len(), lines, hidden.len()), (4, 10_000 + 3, 0));
    assert_eq!(names(&dir.join("state")), Vec::<String>::new());
}
