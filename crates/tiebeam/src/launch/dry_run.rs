//! `--dry-run`: everything up to the run, said on standard output.

use std::fmt::Write as _;
use std::path::Path;

use tiebeam_core::{Result, RunId};
use tiebeam_plan::{PlanOptions, plan};

use super::exit::{Exit, print_error, to_stdout};
use super::progress::thousands;
use super::run::Job;

/// Checks everything that can be checked without reading an element, and says what a run would do.
pub(super) fn dry_run(job: &Job) -> Exit {
    let checked = job.graph.run_checks();
    job.graph.run_cleanups(RunId::new());
    match checked.and_then(|()| told(job)) {
        Ok(text) => {
            to_stdout(&text);
            Exit::Ok
        }
        Err(error) => {
            print_error(&error);
            Exit::of(&error)
        }
    }
}

fn told(job: &Job) -> Result<String> {
    let graph = &job.graph;
    let steps = graph.scopes.iter().skip(1).filter(|scope| scope.parent == 0).count();
    let mut text = format!("{}: valid, {steps} transforms, nothing was run\n", job.name);
    section(&mut text, "reads", job.inputs.iter().map(|input| format!("{input}: {}", found(input))));
    let size =
        |path: &Path| std::fs::metadata(path).map_or_else(|_| "not here".to_owned(), |m| bytes(m.len()));
    section(
        &mut text,
        "models, loaded and checked",
        graph.files.iter().map(|path| format!("{}: {}", path.display(), size(path))),
    );
    let plan = plan(graph, PlanOptions::default())?;
    section(&mut text, "stages", plan.explain().lines().map(str::to_owned));
    section(&mut text, "writes", job.outputs.iter().map(|output| format!("{output}{}", replaced(output))));
    Ok(text)
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        let _ = writeln!(text, "{title}");
        lines.for_each(|line| {
            let _ = writeln!(text, "  {line}");
        });
    }
}

/// How many files, and how large.
#[cfg(feature = "io")]
fn found(pattern: &str) -> String {
    match tiebeam_io::fs::list(pattern, true) {
        Ok(files) => {
            let all = files.iter().map(|file| file.size).sum();
            let plural = if files.len() == 1 { "" } else { "s" };
            format!("{} file{plural}, {}", thousands(files.len() as u64), bytes(all))
        }
        Err(error) => error.message().to_owned(),
    }
}

#[cfg(not(feature = "io"))]
fn found(_: &str) -> String {
    "not looked at".to_owned()
}

/// What a run would take the place of: files with the names that a sink gives its own.
#[cfg(feature = "io")]
fn replaced(output: &str) -> String {
    let Some(prefix) = output.strip_suffix("-*") else { return String::new() };
    match tiebeam_io::fs::list(&format!("{prefix}-?????-of-?????*"), true).map(|files| files.len()) {
        Ok(0) | Err(_) => String::new(),
        Ok(1) => ", in place of 1 file that is there".to_owned(),
        Ok(n) => format!(", in place of {} files that are there", thousands(n as u64)),
    }
}

#[cfg(not(feature = "io"))]
fn replaced(_: &str) -> String {
    String::new()
}

/// As people write sizes.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut size = n as f64;
    let mut unit = "bytes";
    for next in UNITS {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    match unit {
        "bytes" if n == 1 => "1 byte".to_owned(),
        "bytes" => format!("{n} bytes"),
        unit => format!("{size:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_units() {
        for (n, text) in
            [(0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")]
        {
            assert_eq!(bytes(n), text);
        }
    }
}
