//! `cargo xtask tidy`: the house's rules that a machine can hold.
//!
//! An offence fails the run. A question is asked where a budget is passed but not by much: a reviewer decides.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::say;

mod arrows;
mod codes;
mod dependencies;
mod sources;

/// Something that was found, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    line: usize,
    what: String,
    /// Whether it is left to a reviewer.
    question: bool,
}

impl Finding {
    fn offence(file: impl Into<String>, line: usize, what: impl Into<String>) -> Self {
        Finding { file: file.into(), line, what: what.into(), question: false }
    }

    fn question(file: impl Into<String>, line: usize, what: impl Into<String>) -> Self {
        Finding { question: true, ..Finding::offence(file, line, what) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.question { "question" } else { "offence" };
        write!(f, "{}:{}: {kind}: {}", self.file, self.line, self.what)
    }
}

/// A file of the tree, with its path from the root.
struct SourceFile {
    path: String,
    text: String,
}

/// The task.
pub(crate) fn run() -> Result<bool, String> {
    let root = root()?;
    let crates = crates(&metadata(&root)?)?;
    let rust = read_all(&root, &["crates", "xtask"], ".rs")?;
    let docs = read_all(&root, &["docs"], ".md")?;
    let manifests = read_all(&root, &["crates", "xtask"], "Cargo.toml")?;
    let mut findings = arrows::check(&crates, &manifests);
    findings.extend(dependencies::check(&crates, &manifests, &docs));
    findings.extend(codes::check(&rust, &docs));
    rust.iter().for_each(|file| sources::check(file, &mut findings));
    findings.sort();
    findings.iter().for_each(say);
    let questions = findings.iter().filter(|finding| finding.question).count();
    let offences = findings.len() - questions;
    say(format_args!("tidy: {offences} offences, {questions} questions"));
    Ok(offences == 0)
}

fn root() -> Result<PathBuf, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_owned).ok_or_else(|| "xtask stands in no workspace".to_owned())
}

fn metadata(root: &Path) -> Result<Value, String> {
    let output = crate::built::cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("cannot run cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata gave no JSON: {e}"))
}

/// One of our crates.
#[derive(Debug)]
struct Crate {
    name: String,
    dependencies: Vec<Dependency>,
}

/// What a crate's manifest says it uses.
#[derive(Debug)]
struct Dependency {
    name: String,
    /// Whether it is a crate of this workspace.
    ours: bool,
    /// Whether only tests, examples and benchmarks use it.
    dev: bool,
}

fn crates(metadata: &Value) -> Result<Vec<Crate>, String> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let crates: Vec<Crate> = list(metadata, "packages")
        .iter()
        .map(|package| Crate {
            name: text(package, "name"),
            dependencies: list(package, "dependencies")
                .iter()
                .map(|dependency| Dependency {
                    name: text(dependency, "name"),
                    ours: dependency["path"].is_string(),
                    dev: dependency["kind"] == "dev",
                })
                .collect(),
        })
        .collect();
    if crates.is_empty() { Err("cargo metadata names no packages".to_owned()) } else { Ok(crates) }
}

/// All files below `places` whose names end in `ending`, but for what was built.
fn read_all(root: &Path, places: &[&str], ending: &str) -> Result<Vec<SourceFile>, String> {
    let mut open: Vec<PathBuf> = places.iter().map(|place| root.join(place)).collect();
    let mut files = Vec::new();
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        for entry in entries.filter_map(Result::ok) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    open.push(path);
                }
            } else if name.ends_with(ending) {
                let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                files.push(SourceFile { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Where a crate's manifest names a dependency.
fn line_of(manifests: &[SourceFile], of: &str, dependency: &str) -> (String, usize) {
    let own = format!("name = \"{of}\"");
    let Some(file) = manifests.iter().find(|file| file.text.lines().any(|line| line == own)) else {
        return ("Cargo.toml".to_owned(), 1);
    };
    let names = |line: &str| {
        let rest = line.strip_prefix(dependency)?;
        rest.starts_with(['.', ' ', '=']).then_some(())
    };
    let line = file.text.lines().position(|line| names(line).is_some()).map_or(1, |at| at + 1);
    (file.path.clone(), line)
}
