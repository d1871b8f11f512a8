//! Error codes: each is explained once in docs/errors*, is used, and by one crate alone; or its line ends in `| shared`
//! because the crates mean the same by it.

use std::collections::BTreeMap;

use super::sources::{is_test, without_tests};
use super::{Finding, SourceFile};

/// What is wrong with the codes of `rust` against the lists in `docs`.
pub(super) fn check(rust: &[SourceFile], docs: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut listed: BTreeMap<&str, (&str, usize, bool)> = BTreeMap::new();
    for doc in docs.iter().filter(|doc| doc.path.starts_with("docs/errors")) {
        for (index, line) in doc.text.lines().enumerate() {
            let cell = line.trim_start_matches(['|', ' ', '`']);
            let Some(code) = code_at(cell) else { continue };
            let shared = line.trim_end_matches([' ', '|']).ends_with("| shared");
            if let Some((file, first, _)) = listed.insert(code, (&doc.path, index + 1, shared)) {
                let what = format!("{code} is explained already, in {file}:{first}");
                findings.push(Finding::offence(&doc.path, index + 1, what));
            }
        }
    }
    let mut users: BTreeMap<&str, (&str, &str, usize)> = BTreeMap::new();
    for file in rust.iter().filter(|file| file.path.contains("/src/") && !is_test(&file.path)) {
        let owner = file.path.split("/src/").next().unwrap_or_default();
        for (index, line) in without_tests(&file.text).lines().enumerate() {
            for (at, _) in line.match_indices("\"TB") {
                let Some(code) = code_at(&line[at + 1..]).filter(|_| line[at + 7..].starts_with('"')) else {
                    continue;
                };
                if !listed.contains_key(code) {
                    let what = format!("{code} is explained in no docs/errors*");
                    findings.push(Finding::offence(&file.path, index + 1, what));
                }
                let (first, place, line) = *users.entry(code).or_insert((owner, &file.path, index + 1));
                if first != owner && !listed.get(code).is_some_and(|(_, _, shared)| *shared) {
                    let what = format!("{code} is {first}'s, see {place}:{line}: one code has one meaning");
                    findings.push(Finding::offence(&file.path, index + 1, what));
                }
            }
        }
    }
    for (code, (file, line, _)) in &listed {
        if !users.contains_key(code) {
            findings.push(Finding::offence(*file, *line, format!("{code} is used nowhere")));
        }
    }
    findings
}

/// The code that `text` begins with.
fn code_at(text: &str) -> Option<&str> {
    let code = text.get(..6)?;
    let digits = code.strip_prefix("TB")?;
    digits.bytes().all(|digit| digit.is_ascii_digit()).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn codes_and_their_list_agree() {
        let rust = [
            file(
                "crates/a/src/x.rs",
                "new(\"TB0001\")\nnew(\"TB0002\")\n\"TB0005\"\n#[cfg(test)]\nmod tests {\n\"TB0009\"\n}\n",
            ),
            file("crates/b/src/y.rs", "\"TB0003\" \"TB0002\" \"TB0005\""),
            file("crates/b/src/y_tests.rs", "\"TB0007\""),
            file("crates/b/tests/y.rs", "\"TB0008\""),
        ];
        let docs = [
            file(
                "docs/errors.d/a.md",
                "TB0001 | one | do\n`TB0002` | two | do\nTB0004 | four | do\n\
                  TB0005 | five | do | shared\n",
            ),
            file("docs/errors.md", "| TB0001 | again |\n"),
        ];
        let mut told: Vec<_> = check(&rust, &docs).iter().map(Finding::to_string).collect();
        told.sort();
        assert_eq!(
            told,
            [
                "crates/b/src/y.rs:1: offence: TB0002 is crates/a's, see crates/a/src/x.rs:2: one code has one meaning",
                "crates/b/src/y.rs:1: offence: TB0003 is explained in no docs/errors*",
                "docs/errors.d/a.md:3: offence: TB0004 is used nowhere",
                "docs/errors.md:1: offence: TB0001 is explained already, in docs/errors.d/a.md:1",
            ]
        );
    }
}
