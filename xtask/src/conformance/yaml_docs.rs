//! The pipelines of Beam YAML's documents, here and with Beam Python: sorted outputs are compared.
//!
//! What Beam gave is kept in the cache, by Beam's version and the case's text, so that a machine without Beam's Python can
//! compare too. Rows of error outputs are compared without their messages and traces, which tell of the language they
//! come from; numbers are compared by their values, to the ten decimals that Beam writes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::docs::{self, Case};
use crate::fetch;

const SCRIPT: &str = include_str!("yaml_docs.py");

/// What a run of a case gave.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    /// Why it failed, if it did.
    error: Option<String>,
    /// The lines of each file that it wrote, sorted; of tests, which of them hold.
    files: BTreeMap<String, Vec<String>>,
}

/// How a case went.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    Equal,
    /// Not the same as Beam's.
    Differs(String),
    /// Refused here by name, or nothing that Beam could run.
    Skipped(String),
}

/// Runs all cases; a verdict for each, by name.
pub(crate) fn run(
    documents: &[(String, String)],
    version: &str,
    tiebeam: &Path,
) -> Result<Vec<(Case, Verdict)>, String> {
    let cases = docs::cases(documents);
    let cache = fetch::cache()?;
    let kept = cache.join(format!("yaml-docs-{version}"));
    fs::create_dir_all(&kept).map_err(|e| format!("cannot create {}: {e}", kept.display()))?;
    let work = cache.join(format!(".yaml-docs.{}", std::process::id()));
    let done = compare(cases, &kept, &work, version, tiebeam);
    let _ = fs::remove_dir_all(&work);
    done
}

fn compare(
    cases: Vec<Case>,
    kept: &Path,
    work: &Path,
    version: &str,
    tiebeam: &Path,
) -> Result<Vec<(Case, Verdict)>, String> {
    let theirs = beam(&cases, kept, &work.join("beam"), version)?;
    let mut verdicts = Vec::with_capacity(cases.len());
    for (number, case) in cases.into_iter().enumerate() {
        let folder = work.join(format!("ours-{number}"));
        prepare(&case, &folder)?;
        let ours = ours(&case, &folder, tiebeam)?;
        let verdict = match &theirs[number] {
            Ok(theirs) => verdict(&ours, theirs),
            Err(reason) => Verdict::Skipped(reason.clone()),
        };
        verdicts.push((case, verdict));
    }
    Ok(verdicts)
}

/// How a reason begins that a case has in Beam itself.
pub(crate) const CANNOT: &str = "Beam itself cannot run it";

fn verdict(ours: &Outcome, theirs: &Outcome) -> Verdict {
    match (&ours.error, &theirs.error) {
        (None, None) if ours.files == theirs.files => Verdict::Equal,
        (None, None) => Verdict::Differs(difference(&ours.files, &theirs.files)),
        (Some(ours), None) if ours.starts_with("refused: ") => Verdict::Skipped(ours.clone()),
        (Some(ours), None) => Verdict::Differs(ours.clone()),
        (None, Some(theirs)) => Verdict::Skipped(format!("runs here; {CANNOT}: {theirs}")),
        (Some(ours), Some(theirs)) => Verdict::Skipped(format!("{ours}; {CANNOT}: {theirs}")),
    }
}

fn difference(ours: &BTreeMap<String, Vec<String>>, theirs: &BTreeMap<String, Vec<String>>) -> String {
    let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
    for name in names {
        let (a, b) = (ours.get(name), theirs.get(name));
        if a != b {
            let show =
                |lines: Option<&Vec<String>>| lines.map_or("no file".to_owned(), |lines| lines.join(" "));
            return format!("{name}: here {}, Beam {}", show(a), show(b));
        }
    }
    "the same".to_owned()
}

/// Lays out a case's files and their data in an empty folder.
fn prepare(case: &Case, folder: &Path) -> Result<(), String> {
    let data = docs::DATA.iter().chain([&docs::UDF]).map(|(path, text)| (*path, *text));
    let own = case.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
    for (path, text) in data.chain(own) {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|e| format!("cannot create {}: {e}", parent.display()))?;
        fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(())
}

/// What a case gives here.
fn ours(case: &Case, folder: &Path, tiebeam: &Path) -> Result<Outcome, String> {
    let mut command = Command::new(tiebeam);
    command.arg(if case.tests { "test" } else { "run" }).arg(&case.file).current_dir(folder);
    if !case.tests {
        command.args(["--progress", "none"]);
    }
    if let Some(variables) = case.variables {
        command.args(["--jinja_variables", variables]);
    }
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{}: {e}", tiebeam.display()))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let first = told.lines().find(|line| line.starts_with("error")).unwrap_or("it said nothing").to_owned();
    if case.tests && matches!(output.status.code(), Some(0 | 1)) {
        let lines = String::from_utf8_lossy(&output.stdout).lines().filter_map(test_line).collect();
        return Ok(Outcome { error: None, files: BTreeMap::from([("tests".to_owned(), sorted(lines))]) });
    }
    match output.status.code() {
        Some(0) => Ok(Outcome { error: None, files: written(case, folder)? }),
        // The file is refused before anything runs.
        Some(78) => {
            let place = told
                .lines()
                .find_map(|line| line.split_once("╭─["))
                .map(|(_, place)| place.trim_end_matches(']'));
            Ok(Outcome {
                error: Some(format!("refused: {first} ({})", place.unwrap_or("?"))),
                files: BTreeMap::new(),
            })
        }
        code => Ok(Outcome { error: Some(format!("failed with {code:?}: {first}")), files: BTreeMap::new() }),
    }
}

/// `ok NAME` and `FAILED NAME` as Beam's are kept.
fn test_line(line: &str) -> Option<String> {
    let (verdict, name) = line.split_once(' ')?;
    let name = name.split(" (").next()?.split(": ").next()?;
    match verdict {
        "ok" => Some(format!("{name}: true")),
        "FAILED" => Some(format!("{name}: false")),
        _ => None,
    }
}

/// What Beam gives for each case, from the cache or by running it; why not where neither is possible.
fn beam(
    cases: &[Case],
    kept: &Path,
    work: &Path,
    version: &str,
) -> Result<Vec<Result<Outcome, String>>, String> {
    let mut found: Vec<Option<Outcome>> = cases.iter().map(|case| remembered(case, kept)).collect();
    let missing: Vec<usize> = (0..cases.len()).filter(|number| found[*number].is_none()).collect();
    let mut reason = String::new();
    if !missing.is_empty() {
        match python(version)? {
            Ok(python) => {
                let ran = run_beam(cases, &missing, work, &python)?;
                for (number, outcome) in missing.into_iter().zip(ran) {
                    remember(&cases[number], kept, &outcome)?;
                    found[number] = Some(outcome);
                }
            }
            Err(why) => reason = why,
        }
    }
    Ok(found.into_iter().map(|outcome| outcome.ok_or_else(|| reason.clone())).collect())
}

/// Changes with how files and lines are brought to a form that can be compared, since that form is kept.
const FORM: u32 = 3;

/// The file in which what Beam gave for a case is kept.
fn place(case: &Case, kept: &Path) -> PathBuf {
    let mut hash = Sha256::new();
    hash.update(format!("{FORM}{SCRIPT}{case:?}{:?}{:?}", docs::DATA, docs::UDF));
    let hash: String = hash.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    kept.join(format!("{}-{hash}.json", case.name.replace(':', "-")))
}

fn remembered(case: &Case, kept: &Path) -> Option<Outcome> {
    let value: Value = serde_json::from_str(&fs::read_to_string(place(case, kept)).ok()?).ok()?;
    let files = value.get("files")?.as_object()?.iter().map(|(name, lines)| {
        let lines = lines.as_array()?.iter().map(|line| line.as_str().map(str::to_owned));
        Some((name.clone(), lines.collect::<Option<_>>()?))
    });
    let error = value.get("error").and_then(Value::as_str).map(str::to_owned);
    Some(Outcome { error, files: files.collect::<Option<_>>()? })
}

fn remember(case: &Case, kept: &Path, outcome: &Outcome) -> Result<(), String> {
    let text = json!({ "error": outcome.error, "files": outcome.files }).to_string();
    let path = place(case, kept);
    fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// A Python that has Beam with what its YAML needs, or why there is none.
fn python(version: &str) -> Result<Result<PathBuf, String>, String> {
    let own = std::env::var_os("TIEBEAM_BEAM_PYTHON").map(PathBuf::from);
    let installed = fetch::cache()?.join(format!("engines/python-{version}/bin/python"));
    let python = own.unwrap_or(installed);
    if !python.exists() {
        return Ok(Err(format!(
            "Beam {version} for Python is not here (cargo xtask engines install python), nor what it gave before"
        )));
    }
    let test = Command::new(&python)
        .args([
            "-c",
            "import apache_beam.version, jinja2, jsonschema; print(apache_beam.version.__version__)",
        ])
        .output()
        .map_err(|e| format!("{}: {e}", python.display()))?;
    let said = String::from_utf8_lossy(&test.stdout).trim().to_owned();
    if !test.status.success() {
        return Ok(Err(format!("{} lacks apache-beam[yaml]", python.display())));
    }
    if said != version {
        return Ok(Err(format!("{} has Beam {said}, wanted {version}", python.display())));
    }
    Ok(Ok(python))
}

fn run_beam(cases: &[Case], missing: &[usize], work: &Path, python: &Path) -> Result<Vec<Outcome>, String> {
    let folder = |number: usize| work.join(number.to_string());
    let mut asked = Vec::new();
    for number in missing {
        let case = &cases[*number];
        prepare(case, &folder(*number))?;
        asked.push(json!({
            "name": case.name, "folder": folder(*number), "file": case.file, "variables": case.variables,
            "tests": case.tests,
        }));
    }
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{}: {e}", python.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(Value::Array(asked).to_string().as_bytes()).map_err(|e| e.to_string())?;
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines = said.lines();
    let mut outcomes = Vec::new();
    for number in missing {
        let line = lines.next().ok_or("Beam's Python ended before all cases had run")?;
        let value: Value =
            serde_json::from_str(line).map_err(|e| format!("Beam's Python said {line}: {e}"))?;
        let error = value.get("error").and_then(Value::as_str).map(str::to_owned);
        let files =
            if error.is_none() { written(&cases[*number], &folder(*number))? } else { BTreeMap::new() };
        outcomes.push(Outcome { error, files });
    }
    Ok(outcomes)
}

/// The files that a run added, with their lines; shards together.
fn written(case: &Case, folder: &Path) -> Result<BTreeMap<String, Vec<String>>, String> {
    let given = |path: &str| {
        let data = docs::DATA.iter().chain([&docs::UDF]);
        data.map(|(given, _)| *given).chain(case.files.keys().map(String::as_str)).any(|given| given == path)
    };
    let timed = case.files.values().any(|text| text.contains("now("));
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(place) = folders.pop() {
        for entry in fs::read_dir(&place).map_err(|e| format!("{}: {e}", place.display()))?.flatten() {
            let path = entry.path();
            let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if path.is_dir() {
                folders.push(path);
            } else if !hidden && !given(&name) {
                let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                match name.as_str() {
                    "tests.json" => drop(found.insert("tests".to_owned(), told_tests(&text)?)),
                    _ => {
                        let name = if timed { undated(&unsharded(&name)) } else { unsharded(&name) };
                        found.entry(name).or_default().extend(text.lines().map(comparable));
                    }
                }
            }
        }
    }
    // Beam writes no file where there are no rows; here an empty one says that there were none.
    found.retain(|_, lines| !lines.is_empty());
    Ok(found.into_iter().map(|(name, lines)| (name, sorted(lines))).collect())
}

fn told_tests(text: &str) -> Result<Vec<String>, String> {
    let told: Map<String, Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    Ok(told.iter().map(|(name, held)| format!("{name}: {held}")).collect())
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// A file's name without the numbers of its shard, and without its window, which Beam puts before them.
fn unsharded(name: &str) -> String {
    let Some(at) = name.find("-000").filter(|at| name[*at..].contains("-of-")) else {
        return name.to_owned();
    };
    let (start, rest) = name.split_at(at);
    let end = rest.find("-of-").map_or(rest.len(), |of| (of + 4 + 5).min(rest.len()));
    let windowed = start.len().checked_sub(WINDOW.len()).and_then(|at| start.split_at_checked(at));
    let start = windowed.filter(|(_, window)| is_like(window, WINDOW)).map_or(start, |(start, _)| start);
    format!("{start}{}", &rest[end..])
}

/// A path without a day (`2026/11/23`), as a pipeline with Jinja's `now()` writes it: what is kept of Beam may be of
/// another day.
fn undated(name: &str) -> String {
    const DAY: &str = "0000/00/00";
    let day = (0..name.len()).find(|&at| name.get(at..at + DAY.len()).is_some_and(|text| is_like(text, DAY)));
    day.map_or_else(|| name.to_owned(), |at| format!("{}DAY{}", &name[..at], &name[at + DAY.len()..]))
}

/// Whether a text has a digit wherever the pattern has `0`, and else the pattern's characters.
fn is_like(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text
            .chars()
            .zip(pattern.chars())
            .all(|(c, pattern)| if pattern == '0' { c.is_ascii_digit() } else { c == pattern })
}

/// How Beam writes a window in a file's name.
const WINDOW: &str = "-0000-00-00T00:00:00-0000-00-00T00:00:00";

/// A line as it is compared: JSON with its numbers as doubles of ten decimals, as many as Beam's JSON has; an error row
/// with the values of its element alone, since Beam writes those without their names.
fn comparable(line: &str) -> String {
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(all)) if all.contains_key("msg") && all.contains_key("stack") => {
            let mut values = Vec::new();
            all.iter()
                .filter(|(key, _)| !matches!(key.as_str(), "msg" | "stack"))
                .for_each(|(_, value)| leaves(value, &mut values));
            format!("failed: {}", values.join(", "))
        }
        Ok(value @ Value::Object(_)) => plain(value).to_string(),
        _ => line.to_owned(),
    }
}

/// The values within a value.
fn leaves(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Array(all) => all.iter().for_each(|one| leaves(one, into)),
        Value::Object(all) => all.values().for_each(|one| leaves(one, into)),
        other => into.push(plain(other.clone()).to_string()),
    }
}

fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64().map(|number| (number * 1e10).round() / 1e10)),
        Value::Array(all) => Value::Array(all.into_iter().map(plain).collect()),
        Value::Object(all) => {
            let mut kept: Vec<(String, Value)> =
                all.into_iter().map(|(key, value)| (key, plain(value))).collect();
            kept.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(kept.into_iter().collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared_by_value() {
        assert_eq!(comparable(r#"{"b":1,"a":2.0}"#), comparable(r#"{"a":2,"b":1.0}"#));
        let error = r#"{"element":{"x":1},"msg":"division by zero","stack":"…"}"#;
        assert_eq!(comparable(error), "failed: 1.0");
        assert_eq!(comparable(r#"{"element":[1,null],"msg":"","stack":""}"#), "failed: 1.0");
        assert_eq!(comparable(r#"{"x":0.3333333333333333}"#), comparable(r#"{"x":0.3333333333}"#));
        assert_eq!(comparable("1,2"), "1,2");
        for (name, want) in [
            ("kept-1970-01-01T00:01:00-1970-01-01T00:02:00-00000-of-00001", "kept"),
            ("a-00000-of-00001", "a"),
            ("a-00003-of-00010.csv", "a.csv"),
            ("d/a.json", "d/a.json"),
        ] {
            assert_eq!(unsharded(name), want);
        }
        assert_eq!(undated("data/2026/11/23/out.json"), "data/DAY/out.json");
        assert_eq!(undated("data/2026/1/out.json"), "data/2026/1/out.json");
    }

    #[test]
    fn a_refusal_is_told_and_a_difference_fails() {
        let outcome = |error: Option<&str>, line: &str| Outcome {
            error: error.map(str::to_owned),
            files: BTreeMap::from([("kept".to_owned(), vec![line.to_owned()])]),
        };
        let fine = outcome(None, "1");
        assert_eq!(verdict(&fine, &fine), Verdict::Equal);
        assert_eq!(verdict(&outcome(None, "2"), &fine), Verdict::Differs("kept: here 2, Beam 1".to_owned()));
        assert!(matches!(verdict(&outcome(Some("refused: no"), ""), &fine), Verdict::Skipped(_)));
        assert!(matches!(verdict(&outcome(Some("failed with 1"), ""), &fine), Verdict::Differs(_)));
        assert!(matches!(verdict(&fine, &outcome(Some("Java"), "")), Verdict::Skipped(_)));
    }
}
