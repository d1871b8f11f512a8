//! RunInference's cases: each of Beam's own that were run, and each fault of Beam's that is made right here, has a test that is
//! named after it. This runs those tests and tells which stand.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use crate::say;

/// Ids of the cases, and what the names of their tests hold.
const CASES: [(&str, &str); 43] = [
    ("C01", "c01"),
    ("C02", "c02"),
    ("C03", "c03"),
    ("C04", "c04"),
    ("C05", "c05"),
    ("C07", "c07"),
    ("C09", "c09"),
    ("C10", "c10"),
    ("C11", "c11"),
    ("C12", "c12"),
    ("C13", "c13"),
    ("C14", "c14"),
    ("C14c", "c14c"),
    ("C15", "c15"),
    ("C16", "c16"),
    ("C17", "c17"),
    ("C19", "c19"),
    ("C20a", "c20a"),
    ("C20c", "c20c"),
    ("C20d", "c20d"),
    ("C20f", "c20f"),
    ("C22", "c22"),
    ("C24", "c24"),
    ("C25", "c25"),
    ("C28", "c28"),
    ("C29a", "c29a"),
    ("C30", "c30"),
    ("C33", "c33"),
    ("C34", "c34"),
    ("C36", "c36"),
    ("C37a", "c37a"),
    ("C37c", "c37c"),
    ("C37d", "c37d"),
    ("C38", "c38"),
    ("C42", "c42"),
    ("E-min>max", "e_min"),
    ("E-buckets_no_fn", "e_buckets"),
    ("E-upd_dup", "e_upd_dup"),
    ("E-upd_unknown", "e_upd_unknown"),
    ("E-upd_missing", "e_upd_missing"),
    ("E-side_two", "e_side_two"),
    ("E-yaml_extra", "e_yaml_extra"),
    ("E-pandas_rows", "e_pandas_rows"),
];

/// The faults of Beam's that are numbered in RUNINFERENCE.md.
const FAULTS: usize = 16;

/// Whether a test's name has that id as words of its own.
fn is_named(test: &str, id: &str) -> bool {
    let name = test.rsplit("::").next().unwrap_or(test);
    let hit = |at: usize| {
        let before = at == 0 || name.as_bytes()[at - 1] == b'_';
        let after = name.as_bytes().get(at + id.len()).is_none_or(|next| *next == b'_');
        before && after
    };
    name.match_indices(id).any(|(at, _)| hit(at))
}

/// Every test that ran, and whether it passed.
fn tests(output: &str) -> BTreeMap<String, bool> {
    let result = |line: &str| {
        let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
        Some((name.to_owned(), result.trim() == "ok"))
    };
    output.lines().filter_map(result).collect()
}

/// The tests of the cases, run: the list, and a line that counts them.
pub fn run() -> Result<bool, String> {
    let mut command = crate::built::cargo();
    // All of the workspace, as the test step does, so that nothing is built twice.
    command.args(["test", "--workspace", "--no-fail-fast", "--tests"]);
    // Only tests that are named after a case: test binaries take several filters, and run what has one of them.
    let faults: Vec<(String, String)> =
        (1..=FAULTS).map(|n| (format!("fault {n}"), format!("fault_{n:02}"))).collect();
    let ids: Vec<(&str, &str)> =
        CASES.into_iter().chain(faults.iter().map(|(id, words)| (id.as_str(), words.as_str()))).collect();
    command.arg("--").args(ids.iter().map(|(_, words)| format!("{words}_")));
    let done = command.stderr(Stdio::inherit()).output().map_err(|e| format!("cargo test: {e}"))?;
    let tests = tests(&String::from_utf8_lossy(&done.stdout));
    let (mut passed, mut failed) = (0, BTreeSet::new());
    for (id, words) in ids {
        let own: Vec<(&String, bool)> =
            tests.iter().filter(|(name, _)| is_named(name, words)).map(|(name, ok)| (name, *ok)).collect();
        let is_well = !own.is_empty() && own.iter().all(|(_, ok)| *ok);
        let told = match own.as_slice() {
            [] => "has no test".to_owned(),
            own => {
                let name = |(name, ok): &(&String, bool)| {
                    let name = name.rsplit("::").next().unwrap_or(name);
                    if *ok { name.to_owned() } else { format!("{name} FAILED") }
                };
                own.iter().map(name).collect::<Vec<_>>().join(", ")
            }
        };
        say(format!("{:<16} {}  {told}", id, if is_well { "ok    " } else { "FAILED" }));
        if is_well {
            passed += 1;
        } else {
            failed.insert(id);
        }
    }
    if !done.status.success() && failed.is_empty() {
        say("a test of no case failed, or a crate does not build");
        return Ok(false);
    }
    say(format!("runinference: {passed} passed, {} failed", failed.len()));
    Ok(failed.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_ids_as_words() {
        assert!(is_named("updates::c14_a_load", "c14"));
        assert!(!is_named("c14c_a_timeout", "c14"));
        assert!(is_named("c07_c09_steps", "c09"));
        assert!(is_named("fault_03_fault_06_weights", "fault_06"));
        assert!(!is_named("one_fault_066", "fault_06"));
        let output = "running 2 tests\ntest a::c01_x ... ok\ntest c02 ... FAILED\n\nfailures:\n";
        assert_eq!(tests(output), BTreeMap::from([("a::c01_x".to_owned(), true), ("c02".to_owned(), false)]));
    }
}
