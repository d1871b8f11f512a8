//! `cargo xtask engines test`: the same pipelines on the embedded runner and on every engine, and whether they say the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tiebeam_engines::{Engine, Group, Kind, Layout, Settings, State, Versions, installed};

use super::cases::{self, Case, Output};
use super::table::{Cell, Results};
use crate::say;

/// What is asked for on the command line.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    engines: Vec<Kind>,
    cases: Vec<String>,
}

impl Wanted {
    fn of(arguments: &[&str]) -> Result<Wanted, String> {
        let mut wanted = Wanted::default();
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            let value = rest.next().ok_or_else(|| format!("`{flag}` wants a value"));
            match *flag {
                "--only" => wanted.engines.push(value?.parse()?),
                "--case" => wanted.cases.push((*value?).to_owned()),
                other => return Err(format!("engines test has no `{other}`, only --only and --case")),
            }
        }
        Ok(wanted)
    }

    fn engines(&self) -> Vec<Kind> {
        let wants = |kind: &Kind| self.engines.is_empty() || self.engines.contains(kind);
        Kind::ALL.into_iter().filter(wants).collect()
    }

    fn cases(&self, all: Vec<Case>) -> Result<Vec<Case>, String> {
        if let Some(unknown) = self.cases.iter().find(|name| !all.iter().any(|case| case.name == **name)) {
            let known: Vec<_> = all.iter().map(|case| case.name.as_str()).collect();
            return Err(format!("engines/cases.toml has no case `{unknown}`, only {}", known.join(", ")));
        }
        let wants = |case: &Case| self.cases.is_empty() || self.cases.contains(&case.name);
        Ok(all.into_iter().filter(wants).collect())
    }
}

/// The task. False where a case failed.
pub(crate) fn run(arguments: &[&str]) -> Result<bool, String> {
    let wanted = Wanted::of(arguments)?;
    let cases = wanted.cases(cases::read()?)?;
    let layout = Layout::of_cache()?;
    let (files, logs) = layout.scratch("test")?;
    let programs = build(&cases)?;
    let bench = Bench { programs, files, logs };

    let mut results = Results { columns: vec!["embedded".to_owned()], rows: Vec::with_capacity(cases.len()) };
    let mut expected = Vec::with_capacity(cases.len());
    for case in &cases {
        let (cell, lines) = bench.embedded(case)?;
        tell(case, "embedded", &cell);
        results.rows.push((case.name.clone(), vec![cell]));
        expected.push(lines);
    }
    for kind in wanted.engines() {
        results.columns.push(kind.name().to_owned());
        let cells = column(&bench, &layout, kind, &cases, &expected)?;
        results.rows.iter_mut().zip(cells).for_each(|((_, row), cell)| row.push(cell));
    }
    let _ = fs::remove_dir_all(&bench.files);

    say(format_args!("\n{results}\n"));
    results.reasons().iter().for_each(say);
    let [passed, failed, skipped] = results.counts();
    say(format_args!("engines: {passed} passed, {failed} failed, {skipped} skipped"));
    Ok(failed == 0)
}

fn tell(case: &Case, place: &str, cell: &Cell) {
    let why = match cell {
        Cell::Failed(_, reason) | Cell::Skipped(reason) => format!(": {reason}"),
        Cell::Passed(_) | Cell::Absent => String::new(),
    };
    say(format_args!("{} on {place}: {cell}{why}", case.name));
}

/// All cases on one engine, which is started once; again after it has died, and for a case that wants it otherwise.
fn column(
    bench: &Bench,
    layout: &Layout,
    kind: Kind,
    cases: &[Case],
    expected: &[Option<Vec<String>>],
) -> Result<Vec<Cell>, String> {
    let installation = kind.installation();
    let here = matches!(installed(installation, layout, &Versions::built_in()?)?, State::Ready(_));
    let mut shared: Option<Engine> = None;
    let mut cells = Vec::with_capacity(cases.len());
    for (case, expected) in cases.iter().zip(expected) {
        let cell = match expected {
            _ if !case.is_for(kind) => Cell::Absent,
            _ if !here => Cell::Skipped(format!(
                "{installation} is not installed (cargo xtask engines install {installation})"
            )),
            None => Cell::Skipped("the embedded runner did not say what is right".to_owned()),
            Some(expected) if case.flink.is_empty() => match started(&mut shared, kind) {
                Ok(engine) => bench.portable(case, engine, kind, expected)?,
                Err(reason) => Cell::Failed(Duration::ZERO, reason),
            },
            Some(expected) => {
                // Two at once would not find their memory.
                shared = None;
                let settings = Settings { flink: case.flink.clone(), ..Settings::default() };
                match Engine::start(kind, &settings) {
                    Ok(mut engine) => bench.portable(case, &mut engine, kind, expected)?,
                    Err(reason) => Cell::Failed(Duration::ZERO, reason.into()),
                }
            }
        };
        tell(case, kind.name(), &cell);
        cells.push(cell);
    }
    Ok(cells)
}

/// The engine that the cases share, started where it does not run.
fn started(shared: &mut Option<Engine>, kind: Kind) -> Result<&mut Engine, String> {
    if shared.as_mut().is_some_and(|engine| engine.failure().is_some()) {
        *shared = None;
    }
    match shared {
        Some(engine) => Ok(engine),
        none => {
            let begun = Instant::now();
            let engine = Engine::start(kind, &Settings::default())?;
            let seconds = begun.elapsed().as_secs_f64();
            say(format_args!("{kind} takes jobs after {seconds:.1} s; logs in {}", engine.logs().display()));
            Ok(none.insert(engine))
        }
    }
}

/// Builds what the cases run; the programs' paths by their names.
fn build(cases: &[Case]) -> Result<BTreeMap<String, PathBuf>, String> {
    programs(cases.iter().map(|case| case.program.as_str()).collect())
}

/// Builds examples, and `tiebeam` itself; their paths by their names.
pub(super) fn programs(mut names: Vec<&str>) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--message-format=json-render-diagnostics"]);
    cargo.args(["--package", "tiebeam", "--package", "tiebeam-cli"]);
    names.sort_unstable();
    names.dedup();
    for name in &names {
        cargo.args([if *name == "tiebeam" { "--bin" } else { "--example" }, name]);
    }
    let output = cargo
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        return Err("cargo could not build what the cases run".to_owned());
    }
    let programs = executables(&String::from_utf8_lossy(&output.stdout));
    match names.iter().find(|name| !programs.contains_key(**name)) {
        Some(name) => Err(format!("cargo built no `{name}`")),
        None => Ok(programs),
    }
}

/// The programs that cargo says it made.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let one = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let path = message.get("executable")?.as_str()?;
        Some((message.get("target")?.get("name")?.as_str()?.to_owned(), PathBuf::from(path)))
    };
    messages.lines().filter_map(one).collect()
}

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the cases have in common.
struct Bench {
    programs: BTreeMap<String, PathBuf>,
    files: PathBuf,
    logs: PathBuf,
}

impl Bench {
    /// A case as it is, and the lines that are right from now on.
    fn embedded(&self, case: &Case) -> Result<(Cell, Option<Vec<String>>), String> {
        if let Some(reason) = case.lacks()? {
            return Ok((Cell::Skipped(reason), None));
        }
        let begun = Instant::now();
        Ok(match self.lines(case, "embedded", |out| case.embedded(out), &mut || None)? {
            Ok(lines) if lines.is_empty() => {
                (Cell::Failed(begun.elapsed(), "it wrote not one line".to_owned()), None)
            }
            Ok(lines) => (Cell::Passed(begun.elapsed()), Some(lines)),
            Err(reason) => (Cell::Failed(begun.elapsed(), reason), None),
        })
    }

    /// A case on an engine.
    fn portable(
        &self,
        case: &Case,
        engine: &mut Engine,
        kind: Kind,
        expected: &[String],
    ) -> Result<Cell, String> {
        let begun = Instant::now();
        let endpoint = engine.endpoint();
        let arguments = |out: &Path| case.portable(out, &endpoint);
        let lines = self.lines(case, kind.name(), arguments, &mut || engine.failure().map(String::from))?;
        let time = begun.elapsed();
        Ok(match lines {
            Err(reason) => Cell::Failed(time, reason),
            Ok(lines) if lines == expected => Cell::Passed(time),
            Ok(lines) => {
                let kept = self.logs.join(format!("{}-{kind}", case.name));
                let write = |ending: &str, lines: &[String]| {
                    let file = kept.with_extension(ending);
                    fs::write(&file, lines.join("\n") + "\n")
                        .map_err(|e| format!("cannot write {}: {e}", file.display()))
                };
                write("expected", expected)?;
                write("got", &lines)?;
                Cell::Failed(time, format!("{}, all in {}.got", difference(expected, &lines), kept.display()))
            }
        })
    }

    /// Runs a case in a directory of its own; its sorted lines, or why there are none. `trouble` says what else has gone wrong.
    fn lines(
        &self,
        case: &Case,
        place: &str,
        arguments: impl Fn(&Path) -> Result<Vec<String>, String>,
        trouble: &mut dyn FnMut() -> Option<String>,
    ) -> Result<Result<Vec<String>, String>, String> {
        let files = self.files.join(&case.name).join(place);
        let out = files.join("out");
        fs::create_dir_all(&out).map_err(|e| format!("cannot create {}: {e}", out.display()))?;
        let program =
            self.programs.get(&case.program).ok_or_else(|| format!("there is no `{}`", case.program))?;
        let named = |ending: &str| self.logs.join(format!("{}-{place}.{ending}", case.name));
        let (log, stdout) = (named("log"), named("stdout"));
        let create =
            |path: &Path| File::create(path).map_err(|e| format!("cannot create {}: {e}", path.display()));
        let mut command = Command::new(program);
        command.args(arguments(&out)?).current_dir(root());
        command.stdout(create(&stdout)?).stderr(create(&log)?);

        let mut group = Group::new(&files)?;
        group.join(&case.name, command, &log)?;
        let begun = Instant::now();
        let status = loop {
            if let Some((_, status, _)) = group.ended().next() {
                break status;
            }
            if begun.elapsed() > case.patience {
                let seconds = case.patience.as_secs();
                return Ok(Err(format!("it did not end in {seconds} s ({})", log.display())));
            }
            if let Some(trouble) = trouble() {
                return Ok(Err(trouble));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if !status.success() {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Ok(Err(format!("{status}: {} ({})", complaint(&said), log.display())));
        }
        let mut lines = match case.output {
            Output::Files => lines_below(&out)?,
            Output::Stdout => {
                let text = fs::read_to_string(&stdout).map_err(|e| format!("{}: {e}", stdout.display()))?;
                text.lines().map(str::to_owned).collect()
            }
        };
        lines.sort_unstable();
        Ok(Ok(lines))
    }
}

/// What a program that failed says is wrong: its error with its cause, on one line, or the last line.
pub(super) fn complaint(said: &str) -> String {
    const MOST: usize = 300;
    let from = said.lines().position(|line| line.starts_with("error"));
    let text = match from {
        Some(from) => said.lines().skip(from).take(2).map(str::trim).collect::<Vec<_>>().join(" "),
        None => said.lines().last().unwrap_or("it said nothing").to_owned(),
    };
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The lines of all files in a directory and below, hidden ones aside.
pub(super) fn lines_below(directory: &Path) -> Result<Vec<String>, String> {
    let failed = |e: std::io::Error| format!("cannot read {}: {e}", directory.display());
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            lines.extend(lines_below(&path)?);
        } else {
            let text =
                fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    Ok(lines)
}

/// How two sorted lists differ: how many lines, and the first of each sort.
pub(super) fn difference(expected: &[String], got: &[String]) -> String {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    expected.iter().for_each(|line| *counts.entry(line).or_default() += 1);
    got.iter().for_each(|line| *counts.entry(line).or_default() -= 1);
    let side = |what: &str, sign: i64| {
        let lines = || counts.iter().filter(|(_, n)| **n * sign > 0);
        let many: i64 = lines().map(|(_, n)| n.abs()).sum();
        lines().next().map(|(first, _)| format!("{many} {what}, such as `{first}`"))
    };
    let told: Vec<String> =
        [side("lines are missing", 1), side("lines are too many", -1)].into_iter().flatten().collect();
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read() {
        let wanted = Wanted::of(&["--only", "spark", "--case", "branch", "--only", "python"]).unwrap();
        assert_eq!(wanted.engines(), [Kind::Python, Kind::Spark]);
        let all = || cases::read().unwrap();
        let names: Vec<_> = wanted.cases(all()).unwrap().into_iter().map(|case| case.name).collect();
        assert_eq!(names, ["branch"]);
        assert_eq!(Wanted::of(&[]).unwrap().engines(), Kind::ALL);
        assert_eq!(Wanted::of(&[]).unwrap().cases(all()).unwrap().len(), all().len());
        for wrong in [&["--only"][..], &["--only", "flink"], &["branch"], &["--all", "x"]] {
            assert!(Wanted::of(wrong).is_err(), "{wrong:?}");
        }
        assert!(Wanted::of(&["--case", "no"]).unwrap().cases(all()).is_err());
    }

    #[test]
    fn differences_are_counted_with_repeats() {
        let lines = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let told = |expected: &str, got: &str| difference(&lines(expected), &lines(got));
        assert_eq!(told("a a b", "a b"), "1 lines are missing, such as `a`");
        assert_eq!(told("a", "b b"), "1 lines are missing, such as `a`; 2 lines are too many, such as `b`");
        assert_eq!(told("a", "a"), "");
    }

    #[test]
    fn programs_are_found_in_what_cargo_says() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"branch\"},\"executable\":\"/t/branch\"}\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"lib\"},\"executable\":null}\n",
            "not json\n",
        );
        let programs = executables(messages);
        assert_eq!(programs, BTreeMap::from([("branch".to_owned(), PathBuf::from("/t/branch"))]));
    }

    fn bench(place: &Path) -> Bench {
        let (files, logs) = (place.join("files"), place.join("logs"));
        fs::create_dir_all(&logs).unwrap();
        let sh = if Path::new("/bin/sh").exists() { "/bin/sh" } else { "/usr/bin/sh" };
        Bench { programs: [("times_five".to_owned(), PathBuf::from(sh))].into(), files, logs }
    }

    fn ran(script: &str, trouble: Option<&str>) -> Result<Vec<String>, String> {
        let place = tempfile::tempdir().unwrap();
        let bench = bench(place.path());
        let mut case = cases::read().unwrap().remove(0);
        case.patience = Duration::from_secs(if script.contains("1000") { 0 } else { 60 });
        let arguments = |out: &Path| {
            Ok(vec!["-c".to_owned(), script.to_owned(), "sh".to_owned(), out.display().to_string()])
        };
        let lines = bench.lines(&case, "here", arguments, &mut || trouble.map(str::to_owned)).unwrap();
        assert!(!place.path().join("files/times-five/here").exists(), "the case leaves files behind");
        lines
    }

    #[test]
    fn a_case_gives_the_sorted_lines_of_its_files() {
        let script = "mkdir $1/d; printf 'b\\na\\n' > $1/d/x; echo c > $1/y; echo d > $1/.hidden";
        assert_eq!(ran(script, None).unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn a_case_that_fails_or_does_not_end_says_why() {
        let told = |script, trouble| ran(script, trouble).unwrap_err();
        let failed = told("echo noise >&2; echo 'error[TB0100]: no' >&2; echo more >&2; exit 4", None);
        assert!(failed.starts_with("exit status: 4: error[TB0100]: no more ("), "{failed}");
        let failed = told("exit 1", None);
        assert!(failed.starts_with("exit status: 1: it said nothing ("), "{failed}");
        let failed = told("sleep 1000", None);
        assert!(failed.starts_with("it did not end in 0 s ("), "{failed}");
        assert_eq!(told("sleep 999", Some("the engine died")), "the engine died");
    }
}
