//! Parquet and Avro files that pyarrow and fastavro wrote are read here, and those written here are read by them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::fetch;
use crate::say;

const SCRIPT: &str = include_str!("tables.py");

/// Runs all; whether every file is as it should be.
pub(crate) fn run(tiebeam: &Path) -> Result<bool, String> {
    let Some(python) = python()? else {
        say("skipped: no Python with pyarrow and fastavro is here (cargo xtask engines install python)");
        say("tables: 0 passed, 0 failed, 0 skipped");
        return Ok(true);
    };
    let work = fetch::cache()?.join(format!(".tables.{}", std::process::id()));
    let done = compare(&python, tiebeam, &work);
    let _ = fs::remove_dir_all(&work);
    done
}

/// A Python that has both libraries.
fn python() -> Result<Option<PathBuf>, String> {
    let cache = fetch::cache()?;
    let version = tiebeam_engines::Versions::built_in()
        .and_then(|all| Ok(all.of("python", "apache-beam")?.to_owned()))?;
    let own = std::env::var_os("TIEBEAM_BEAM_PYTHON").map(PathBuf::from);
    let places = [
        Some(cache.join("venv/bin/python")),
        Some(cache.join(format!("engines/python-{version}/bin/python"))),
    ];
    let has = |python: &PathBuf| {
        let test = Command::new(python).args(["-c", "import fastavro, pyarrow.parquet"]).output();
        test.is_ok_and(|output| output.status.success())
    };
    Ok(own.into_iter().chain(places.into_iter().flatten()).find(has))
}

fn compare(python: &Path, tiebeam: &Path, work: &Path) -> Result<bool, String> {
    fs::create_dir_all(work).map_err(|e| format!("cannot create {}: {e}", work.display()))?;
    script(python, "write", work)?;
    let wanted = lines(&work.join("theirs.json"))?;
    let (mut passed, mut skipped, mut failures) = (0, 0, Vec::new());
    let mut told = |name: &str, seen: Result<Vec<String>, String>, wanted: &[String]| match seen {
        Ok(seen) if seen == wanted => {
            passed += 1;
            say(format_args!("equal: {name}"));
        }
        Ok(seen) => {
            let first = seen.iter().zip(wanted).find(|(a, b)| a != b);
            let how = first.map_or(format!("{} rows, wanted {}", seen.len(), wanted.len()), |(a, b)| {
                format!("{a}, wanted {b}")
            });
            failures.push(format!("{name}: {how}"));
        }
        Err(why) => failures.push(format!("{name}: {why}")),
    };
    for name in names(work, "theirs-")? {
        let format = if name.ends_with("avro") { "Avro" } else { "Parquet" };
        let steps = format!(
            "    - {{type: ReadFrom{format}, config: {{path: {name}}}}}\n    - {{type: WriteToJson, config: {{path: out/{name}}}}}\n"
        );
        let seen = pipeline(tiebeam, work, &steps).and_then(|()| shards(work, &format!("out/{name}")));
        told(&name, seen, &wanted);
    }
    // What was read of a file of theirs is written by each codec, and read by them.
    let source = "    - {type: ReadFromParquet, config: {path: theirs-none-1.parquet}}\n";
    let codecs: [(&str, &str, &[&str]); 2] = [
        ("Parquet", "parquet", &["none", "snappy", "gzip", "zstd", "lz4"]),
        ("Avro", "avro", &["null", "deflate", "snappy", "zstandard"]),
    ];
    for (format, suffix, names) in codecs {
        for codec in names {
            let path = format!("ours-{codec}");
            let steps = format!(
                "{source}    - {{type: WriteTo{format}, config: {{path: {path}, codec: {codec}, num_shards: 1, file_name_suffix: .{suffix}}}}}\n"
            );
            pipeline(tiebeam, work, &steps)?;
        }
    }
    script(python, "read", work)?;
    for (_, suffix, names) in codecs {
        for codec in names {
            let name = format!("ours-{codec}-00000-of-00001.{suffix}");
            let read = work.join(format!("{name}.json"));
            // What fastavro lacks a library for, it said above.
            if *suffix == *"avro" && !read.exists() {
                skipped += 1;
                say(format_args!("skipped: {name}"));
                continue;
            }
            told(&name, lines(&read), &wanted);
        }
    }
    failures.iter().for_each(|failure| say(format_args!("FAILED: {failure}")));
    say(format_args!("tables: {passed} passed, {} failed, {skipped} skipped", failures.len()));
    Ok(failures.is_empty())
}

fn script(python: &Path, what: &str, work: &Path) -> Result<(), String> {
    let output = Command::new(python)
        .args(["-c", SCRIPT, what])
        .arg(work)
        .output()
        .map_err(|e| format!("{}: {e}", python.display()))?;
    String::from_utf8_lossy(&output.stdout).lines().for_each(say);
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!("python {what}: {}", told.lines().last().unwrap_or("it said nothing")))
}

fn pipeline(tiebeam: &Path, work: &Path, steps: &str) -> Result<(), String> {
    let file = work.join("pipeline.yaml");
    fs::write(&file, format!("pipeline:\n  type: chain\n  transforms:\n{steps}"))
        .map_err(|e| e.to_string())?;
    let output = Command::new(tiebeam)
        .args(["run", "pipeline.yaml", "--progress", "none"])
        .current_dir(work)
        .output()
        .map_err(|e| format!("{}: {e}", tiebeam.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(told.lines().find(|line| line.starts_with("error")).unwrap_or("it said nothing").to_owned())
}

/// The files of a folder that begin so, in order.
fn names(folder: &Path, prefix: &str) -> Result<Vec<String>, String> {
    let all = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut names: Vec<String> = all
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    Ok(names)
}

/// The rows of all shards of an output.
fn shards(work: &Path, path: &str) -> Result<Vec<String>, String> {
    let path = Path::new(path);
    let folder = work.join(path.parent().unwrap_or(path));
    let prefix = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut all = Vec::new();
    for name in names(&folder, &format!("{prefix}-0"))? {
        all.extend(lines(&folder.join(name))?);
    }
    all.sort();
    Ok(all)
}

/// The rows of a file, each as JSON with its keys in order.
fn lines(path: &Path) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut lines = Vec::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).map_err(|e| format!("{}: {e}", path.display()))?;
        lines.push(sorted(row).to_string());
    }
    lines.sort();
    Ok(lines)
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| (key, sorted(value)))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect(),
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        // A whole number may be a double.
        Value::Number(number) => number.as_f64().map_or(Value::Number(number.clone()), Value::from),
        other => other,
    }
}
