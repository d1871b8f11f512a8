//! What a source file must look like.

use super::{Finding, SourceFile};

/// Lines of a file without its tests, and of a function, beyond which a reviewer is asked; twice that is an offence.
const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 80;

/// Names that say nothing about what is in a module.
const EMPTY_NAMES: &[&str] =
    &["manager", "helper", "helpers", "util", "utils", "common", "data", "info", "misc"];

/// The files that may hold unsafe code; each block in them says why it is sound.
const UNSAFE: &[&str] = &[
    "crates/tiebeam-onnx/src/ort_call.rs",
    "crates/tiebeam-inference/src/env_vars.rs",
    "crates/tiebeam/src/launch/arenas.rs",
];

/// Everything that is wrong with one file.
pub(super) fn check(file: &SourceFile, findings: &mut Vec<Finding>) {
    let SourceFile { path, text } = file;
    // Programs that are meant not to compile are no code of the house.
    if path.contains("/tests/") && path.matches('/').count() > 3 {
        return;
    }
    let stem = path.rsplit('/').next().and_then(|name| name.strip_suffix(".rs")).unwrap_or_default();
    let head = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("#!"));
    if !head.is_some_and(|line| line.starts_with("//!")) {
        findings.push(Finding::offence(path, 1, "no module head: say in a `//!` what is here"));
    }
    if EMPTY_NAMES.contains(&stem) {
        findings.push(Finding::offence(
            path,
            1,
            format!("a module named `{stem}` says nothing about what is in it"),
        ));
    }
    let code = if is_test(path) { "" } else { without_tests(text) };
    let lines = code.lines().count();
    if lines > FILE_LINES {
        let what = format!("{lines} lines without tests, the budget is {FILE_LINES}");
        findings.push(budget(path, 1, lines, FILE_LINES, what));
    }
    for (line, name, length) in functions(code) {
        if length > FUNCTION_LINES {
            let what = format!("fn {name} has {length} lines, the budget is {FUNCTION_LINES}");
            findings.push(budget(path, line, length, FUNCTION_LINES, what));
        }
    }
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        // In pieces, so that this file does not accuse itself.
        if trimmed.starts_with(concat!("#[", "ignore")) {
            findings.push(Finding::offence(path, index + 1, "an ignored test: mend it or remove it"));
        }
        if line.contains(concat!("(unsafe", "_code")) && !UNSAFE.contains(&path.as_str()) {
            findings.push(Finding::offence(
                path,
                index + 1,
                "unsafe code outside of the files that may have it",
            ));
        }
        if index >= lines && trimmed.contains(concat!("thread::", "sleep")) && !trimmed.starts_with("//") {
            findings.push(Finding::offence(
                path,
                index + 1,
                "a test that sleeps: wait for what it waits for",
            ));
        }
        let named = trimmed.strip_prefix("pub ").unwrap_or(trimmed);
        let named = named.strip_prefix("struct ").or_else(|| named.strip_prefix("enum ")).unwrap_or_default();
        let name: String = named.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if ["Impl", "Manager", "Helper", "Util", "Utils"].iter().any(|ending| name.ends_with(ending)) {
            findings.push(Finding::offence(
                path,
                index + 1,
                format!("`{name}` says nothing about what it is"),
            ));
        }
    }
}

fn budget(path: &str, line: usize, size: usize, budget: usize, what: String) -> Finding {
    if size > 2 * budget { Finding::offence(path, line, what) } else { Finding::question(path, line, what) }
}

/// Whether a file holds nothing but tests.
pub(super) fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// The code before a file's tests, which stand at its end.
pub(super) fn without_tests(text: &str) -> &str {
    let mark = "\n#[cfg(test)]\nmod ";
    match text.find(mark) {
        // `mod tests;` is a declaration, and more code follows it.
        Some(at) if text[at + mark.len()..].lines().next().is_some_and(|line| line.ends_with('{')) => {
            &text[..=at]
        }
        _ => text,
    }
}

/// First line, name and length of every function. The code is formatted, so that a function ends with the first
/// closing brace that stands as far left as it does.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    let mut open: Vec<(usize, String, usize)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let trimmed = line.trim_start();
        if trimmed.starts_with('}') {
            while let Some((_, _, at)) = open.last()
                && *at >= indent
            {
                if let Some((start, name, _)) = open.pop() {
                    found.push((start + 1, name, index + 1 - start));
                }
            }
        }
        if let Some(name) = function_name(trimmed)
            // A body on the same line, or none at all, is short.
            && !trimmed.ends_with(['}', ';'])
        {
            open.push((index, name, indent));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    loop {
        match words.next()? {
            "fn" => break,
            "const" | "async" | "unsafe" | "extern" | "default" | "\"C\"" => {}
            word if word == "pub" || word.starts_with("pub(") => {}
            _ => return None,
        }
    }
    let name: String = words.next()?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(&SourceFile { path: path.to_owned(), text: text.to_owned() }, &mut findings);
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_file_says_what_it_is() {
        assert_eq!(told("crates/x/src/lib.rs", "//! Here.\n"), Vec::<String>::new());
        assert_eq!(told("crates/x/src/lib.rs", "#![allow(x)]\n\n//! Here.\n"), Vec::<String>::new());
        assert_eq!(
            told("crates/x/src/util.rs", "fn x() {}\n"),
            [
                "crates/x/src/util.rs:1: offence: no module head: say in a `//!` what is here",
                "crates/x/src/util.rs:1: offence: a module named `util` says nothing about what is in it",
            ]
        );
        assert_eq!(
            told("crates/x/src/a.rs", "//! Here.\npub struct RunnerImpl;\n"),
            ["crates/x/src/a.rs:2: offence: `RunnerImpl` says nothing about what it is"]
        );
        assert_eq!(told("crates/x/tests/refused/a.rs", "fn main() {}\n"), Vec::<String>::new());
    }

    #[test]
    fn lengths_are_measured_without_tests() {
        let body = |lines: usize| "    let x = 1;\n".repeat(lines);
        let text = format!("//! Here.\npub(crate) fn long() {{\n{}}}\n\nfn short() {{\n}}\n", body(79));
        assert_eq!(
            told("crates/x/src/a.rs", &text),
            ["crates/x/src/a.rs:2: question: fn long has 81 lines, the budget is 80"]
        );
        let text = format!("//! Here.\nimpl A {{\n    fn long() {{\n    {}    }}\n}}\n", body(160));
        assert_eq!(
            told("crates/x/src/a.rs", &text),
            ["crates/x/src/a.rs:3: offence: fn long has 162 lines, the budget is 80"]
        );
        let text =
            format!("//! Here.\n{}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "//\n".repeat(600), body(2000));
        assert_eq!(
            told("crates/x/src/a.rs", &text),
            ["crates/x/src/a.rs:1: question: 602 lines without tests, the budget is 600"]
        );
    }

    #[test]
    fn tests_run_and_do_not_sleep() {
        let sleep = concat!("    std::thread::", "sleep(x);\n");
        let text = format!("//! Here.\nfn a() {{\n{sleep}}}\n\n#[cfg(test)]\nmod tests {{\n{sleep}}}\n");
        assert_eq!(
            told("crates/x/src/a.rs", &text),
            ["crates/x/src/a.rs:8: offence: a test that sleeps: wait for what it waits for"]
        );
        let text = format!("//! Here.\n#[test]\n{}]\nfn a() {{\n{sleep}}}\n", concat!("#[", "ignore"));
        assert_eq!(told("crates/x/tests/a.rs", &text).len(), 2);
    }
}
