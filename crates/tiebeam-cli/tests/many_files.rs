//! More files than a process may have open, in and out, in little memory.

#![cfg(unix)]
#![allow(clippy::unwrap_used)] // the tests' own functions, too

use std::fs;
use std::path::Path;
use std::process::Command;

const FILES: usize = 1_100;

/// Runs `p.yaml` in a process that may have 64 files open.
fn run(dir: &Path, arguments: &[&str]) {
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" run p.yaml --threads 4 --progress none \"$@\""])
        .arg(env!("CARGO_BIN_EXE_tiebeam"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn sixty_four_handles_suffice_for_more_than_a_thousand_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("in")).unwrap();
    for n in 0..FILES {
        fs::write(dir.join(format!("in/{n:05}.txt")), format!("{n}\n")).unwrap();
    }
    let pipeline = "
pipeline:
  transforms:
    - type: ReadFromText
      name: Read
      config: {path: 'in/*.txt'}
    - type: WriteToText
      name: All
      input: Read
      config: {path: out/all, num_shards: 100}
    - type: MapToFields
      name: Keyed
      input: Read
      config: {language: python, fields: {key: 'int(line) % 10', n: int(line)}}
    - type: Combine
      name: Sums
      input: Keyed
      config: {group_by: key, combine: {n: sum}}
    - type: WriteToCsv
      name: Kept
      input: Sums
      config: {path: out/sums}
";
    fs::write(dir.join("p.yaml"), pipeline).unwrap();
    // Everything in memory; everything on disk and written down, a file for each bundle.
    for arguments in [&[][..], &["--memory-limit", "256KiB", "--state-dir", "state", "--resume"]] {
        run(dir, arguments);
        let out = names(&dir.join("out"));
        assert_eq!(out.len(), 101, "{arguments:?}: {out:?}");
        let read = |name: &String| fs::read_to_string(dir.join("out").join(name)).unwrap();
        let all: Vec<String> = out.iter().filter(|name| name.starts_with("all-")).map(read).collect();
        let mut numbers: Vec<usize> =
            all.iter().flat_map(|text| text.lines()).map(|line| line.parse().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..FILES).collect::<Vec<_>>(), "{arguments:?}");
        let sums = read(&out[100]);
        let mut sums: Vec<&str> = sums.lines().skip(1).collect();
        sums.sort_unstable();
        let sum = |key: usize| (key..FILES).step_by(10).sum::<usize>();
        assert_eq!(
            sums,
            (0..10).map(|key| format!("{key},{}", sum(key))).collect::<Vec<_>>(),
            "{arguments:?}"
        );
        fs::remove_dir_all(dir.join("out")).unwrap();
    }
    assert_eq!(names(&dir.join("state")), Vec::<String>::new());
}
