//! `cargo xtask engines test`: the same pipelines on the embedded runner and on every engine, and whether they say the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use tiebeam_engines::{Engine, Group, Kind, Layout, Settings, State, Versions, installed};

use super::cases::{self, Case, Output, Places, Right, placed};
use super::table::{Cell, Results};
use crate::built::programs;
use crate::{fetch, say};

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
    let place = |name| match installed(name, &layout, &Versions::built_in()?)? {
        State::Ready(place) => Ok::<_, String>(Some(place)),
        State::Missing(_) => Ok(None),
    };
    let python = place("python")?.map(|place| place.join("bin/python"));
    let java = place("java")?.map(|place| place.join("lib"));
    let bench = Bench { programs, python, java, files, logs };

    let mut results = Results { columns: vec!["embedded".to_owned()], rows: Vec::with_capacity(cases.len()) };
    let mut expected = Vec::with_capacity(cases.len());
    for case in &cases {
        let (cell, right) = bench.embedded(case)?;
        tell(case, "embedded", &cell);
        results.rows.push((case.name.clone(), vec![cell]));
        expected.push(right);
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
        Cell::Passed(_) => String::new(),
        Cell::Absent => return,
    };
    say(format_args!("{} on {place}: {cell}{why}", case.name));
}

/// All cases on one engine, which is started once; again after it has died, and for a case that wants it otherwise.
fn column(
    bench: &Bench,
    layout: &Layout,
    kind: Kind,
    cases: &[Case],
    expected: &[Option<Right>],
) -> Result<Vec<Cell>, String> {
    let installation = kind.installation();
    let versions = Versions::built_in()?;
    let here = |name: &str| Ok(matches!(installed(name, layout, &versions)?, State::Ready(_)));
    let here =
        |name: &str| -> Result<bool, String> { here(name).map_err(|e: tiebeam_engines::Error| e.into()) };
    let mut shared: Option<Engine> = None;
    let mut cells = Vec::with_capacity(cases.len());
    for (case, expected) in cases.iter().zip(expected) {
        let wanted = case.requires.iter().map(String::as_str).chain([installation]);
        let mut missing = None;
        for name in wanted {
            if !here(name)? {
                missing = Some(name);
            }
        }
        let cell = match expected {
            _ if !case.is_for(kind) => Cell::Absent,
            _ if missing.is_some() => {
                let name = missing.unwrap_or_default();
                Cell::Skipped(format!("{name} is not installed (cargo xtask engines install {name})"))
            }
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
    programs(cases.iter().flat_map(Case::programs))
}

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the cases have in common.
struct Bench {
    programs: BTreeMap<String, PathBuf>,
    /// The Python with Beam in it, where it is installed.
    python: Option<PathBuf>,
    /// The jars of Java pipelines, where they are installed.
    java: Option<PathBuf>,
    files: PathBuf,
    logs: PathBuf,
}

/// How a program ended.
struct Ended {
    status: ExitStatus,
    /// What it wrote to stderr.
    said: String,
    /// Its sorted lines, where it ended well.
    lines: Vec<String>,
    log: PathBuf,
}

/// Where a case runs, and on what it has no influence.
struct Place<'a> {
    name: &'a str,
    /// What else has gone wrong.
    trouble: &'a mut dyn FnMut() -> Option<String>,
}

impl Bench {
    /// A case as it is, and what is right from now on.
    fn embedded(&self, case: &Case) -> Result<(Cell, Option<Right>), String> {
        if let Some(reason) = case.lacks()? {
            return Ok((Cell::Skipped(reason), None));
        }
        if !case.is_embedded() {
            return Ok((Cell::Absent, case.right.clone()));
        }
        let begun = Instant::now();
        let mut place = Place { name: "embedded", trouble: &mut || None };
        let ended = self.run(case, &mut place, |places| case.embedded(places))?;
        let failed = |reason| (Cell::Failed(begun.elapsed(), reason), None);
        Ok(match (ended, &case.right) {
            (Err(reason), _) => failed(reason),
            (Ok(ended), Some(right)) => match self.wrong(case, "embedded", right, &ended)? {
                None => (Cell::Passed(begun.elapsed()), Some(right.clone())),
                Some(reason) => failed(reason),
            },
            (Ok(ended), None) if !ended.status.success() => failed(ended.why()),
            (Ok(ended), None) if ended.lines.is_empty() => failed("it wrote not one line".to_owned()),
            (Ok(ended), None) => (Cell::Passed(begun.elapsed()), Some(Right::Lines(ended.lines))),
        })
    }

    /// A case on an engine.
    fn portable(&self, case: &Case, engine: &mut Engine, kind: Kind, right: &Right) -> Result<Cell, String> {
        let begun = Instant::now();
        let endpoint = engine.endpoint();
        let mut place = Place { name: kind.name(), trouble: &mut || engine.failure().map(String::from) };
        let ended = self.run(case, &mut place, |places| case.portable(places, &endpoint))?;
        let time = begun.elapsed();
        let wrong = match ended {
            Err(reason) => Some(reason),
            Ok(ended) => self.wrong(case, kind.name(), right, &ended)?,
        };
        Ok(wrong.map_or(Cell::Passed(time), |reason| Cell::Failed(time, reason)))
    }

    /// What is not right.
    fn wrong(
        &self,
        case: &Case,
        place: &str,
        right: &Right,
        ended: &Ended,
    ) -> Result<Option<String>, String> {
        match right {
            Right::Failure(_) if ended.status.success() => Ok(Some("it ended well".to_owned())),
            Right::Failure(texts) => {
                let missing = texts.iter().find(|text| !ended.said.contains(*text));
                Ok(missing.map(|text| format!("it did not say `{text}`: {}", ended.why())))
            }
            Right::Lines(_) if !ended.status.success() => Ok(Some(ended.why())),
            Right::Lines(expected) if *expected == ended.lines => Ok(None),
            Right::Lines(expected) => {
                let kept = self.logs.join(format!("{}-{place}", case.name));
                let write = |ending: &str, lines: &[String]| {
                    let file = kept.with_extension(ending);
                    fs::write(&file, lines.join("\n") + "\n")
                        .map_err(|e| format!("cannot write {}: {e}", file.display()))
                };
                write("expected", expected)?;
                write("got", &ended.lines)?;
                Ok(Some(format!("{}, all in {}.got", difference(expected, &ended.lines), kept.display())))
            }
        }
    }

    /// Runs a case in a directory of its own to its end, or says why that did not come.
    fn run(
        &self,
        case: &Case,
        place: &mut Place<'_>,
        arguments: impl Fn(&Places) -> Vec<String>,
    ) -> Result<Result<Ended, String>, String> {
        let files = self.files.join(&case.name).join(place.name);
        let out = files.join("out");
        fs::create_dir_all(&out).map_err(|e| format!("cannot create {}: {e}", out.display()))?;
        let mut group = Group::new(&files)?;
        let mut places = Places::new();
        for (name, path) in [("out", &out), ("files", &files), ("cache", &fetch::cache()?), ("root", &root())]
        {
            places.insert(name.to_owned(), path.display().to_string());
        }
        for (name, path) in &self.programs {
            places.insert(format!("program:{name}"), path.display().to_string());
        }
        if let Some(jars) = &self.java {
            places.insert("java".to_owned(), jars.display().to_string());
        }
        if let Err(reason) = self.make_ready(case, place.name, &files, &mut group, &mut places)? {
            return Ok(Err(reason));
        }
        let named = |ending: &str| self.logs.join(format!("{}-{}.{ending}", case.name, place.name));
        let (log, stdout) = (named("log"), named("stdout"));
        let mut command = self.command(&case.program)?;
        command.args(arguments(&places)).stdout(create(&stdout)?).stderr(create(&log)?);
        group.join(&case.name, command, &log)?;
        let begun = Instant::now();
        let status = loop {
            let ended = group.ended().find(|(name, ..)| *name == case.name);
            if let Some((_, status, _)) = ended {
                break status;
            }
            if begun.elapsed() > case.patience {
                let seconds = case.patience.as_secs();
                return Ok(Err(format!("it did not end in {seconds} s ({})", log.display())));
            }
            if let Some(trouble) = (place.trouble)() {
                return Ok(Err(trouble));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut lines = match case.output {
            _ if !status.success() => Vec::new(),
            Output::Files => lines_below(&out)?,
            Output::Stdout => text_of(&stdout)?.lines().map(str::to_owned).collect(),
        };
        lines.sort_unstable();
        Ok(Ok(Ended { status, said: text_of(&log)?, lines, log }))
    }

    /// What a case finds when it starts: its files, its worker's script, and what runs beside it.
    fn make_ready(
        &self,
        case: &Case,
        place: &str,
        files: &Path,
        group: &mut Group,
        places: &mut Places,
    ) -> Result<Result<(), String>, String> {
        if let Some(script) = &case.before {
            let done = Command::new("sh").args(["-ec", &placed(script, places)]).current_dir(root()).status();
            if !done.map_err(|e| format!("cannot run sh: {e}"))?.success() {
                return Ok(Err("its script `before` failed".to_owned()));
            }
        }
        if let Some(script) = &case.worker {
            let path = files.join("worker");
            fs::write(&path, format!("#!/bin/sh\n{}\n", placed(script, places)))
                .map_err(|e| e.to_string())?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
            places.insert("worker".to_owned(), path.display().to_string());
        }
        for service in &case.services {
            let named =
                |ending: &str| self.logs.join(format!("{}-{place}-{}.{ending}", case.name, service.name));
            let (log, stdout) = (named("log"), named("stdout"));
            let mut command = self.command(&service.program)?;
            command.args(service.arguments.iter().map(|argument| placed(argument, places)));
            command.stdout(create(&stdout)?).stderr(create(&log)?);
            group.join(&service.name, command, &log)?;
            let begun = Instant::now();
            let address = loop {
                // Its first line ends in its address.
                let said = text_of(&stdout)?;
                if let Some((first, _)) = said.split_once('\n') {
                    break first.rsplit(' ').next().unwrap_or_default().to_owned();
                }
                if group.ended().next().is_some() || begun.elapsed() > SERVICE {
                    let reason = complaint(&text_of(&log)?);
                    return Ok(Err(format!("{} does not run: {reason} ({})", service.name, log.display())));
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            places.insert(service.name.clone(), address);
        }
        Ok(Ok(()))
    }

    /// A program that is run in the clone's root.
    fn command(&self, program: &str) -> Result<Command, String> {
        let missing = || format!("there is no `{program}`");
        let path = match program {
            "python" => self.python.as_deref(),
            "java" => Some(Path::new("java")),
            own => self.programs.get(own).map(PathBuf::as_path),
        };
        let mut command = Command::new(path.ok_or_else(missing)?);
        command.current_dir(root());
        if let Some(python) = &self.python {
            command.env("TIEBEAM_PYTHON", python);
        }
        Ok(command)
    }
}

/// How long what runs beside a case may take to say its address.
const SERVICE: Duration = Duration::from_secs(60);

impl Ended {
    /// What it says is wrong.
    fn why(&self) -> String {
        format!("{}: {} ({})", self.status, complaint(&self.said), self.log.display())
    }
}

fn create(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|e| format!("cannot create {}: {e}", path.display()))
}

fn text_of(path: &Path) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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

    fn bench(place: &Path) -> Bench {
        let (files, logs) = (place.join("files"), place.join("logs"));
        fs::create_dir_all(&logs).unwrap();
        let sh = if Path::new("/bin/sh").exists() { "/bin/sh" } else { "/usr/bin/sh" };
        Bench {
            programs: [("times_five".to_owned(), PathBuf::from(sh))].into(),
            python: None,
            java: None,
            files,
            logs,
        }
    }

    fn ran(script: &str, trouble: Option<&str>) -> Result<Vec<String>, String> {
        ran_with(script, trouble, |_| {})
    }

    fn ran_with(
        script: &str,
        trouble: Option<&str>,
        change: impl FnOnce(&mut Case),
    ) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let bench = bench(folder.path());
        let mut case = cases::read().unwrap().remove(0);
        case.patience = Duration::from_secs(if script.contains("1000") { 0 } else { 60 });
        change(&mut case);
        let arguments = |places: &Places| {
            ["-c", &placed(script, places), "sh", &places["out"]].map(str::to_owned).to_vec()
        };
        let mut place = Place { name: "here", trouble: &mut || trouble.map(str::to_owned) };
        let ended = bench.run(&case, &mut place, arguments).unwrap();
        assert!(!folder.path().join("files/times-five/here").exists(), "the case leaves files behind");
        let right = case.right.clone().unwrap_or(Right::Lines(Vec::new()));
        let wrong = |ended: &Ended| bench.wrong(&case, "here", &right, ended).unwrap();
        match ended {
            Ok(ended) if ended.status.success() && case.right.is_none() => Ok(ended.lines),
            Ok(ended) => wrong(&ended).map_or(Ok(Vec::new()), Err),
            Err(reason) => Err(reason),
        }
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

    #[test]
    fn a_failure_is_right_where_it_says_what_is_wanted() {
        let told = |script| {
            let right = Right::Failure(vec!["step A".to_owned(), "TB0100".to_owned()]);
            ran_with(script, None, |case| case.right = Some(right))
        };
        assert_eq!(told("echo 'error[TB0100]: step A' >&2; exit 1"), Ok(Vec::new()));
        assert_eq!(told("echo 'error[TB0100]: step A' >&2"), Err("it ended well".to_owned()));
        let other = told("echo 'error[TB0100]: step B' >&2; exit 1").unwrap_err();
        assert!(
            other.starts_with("it did not say `step A`: exit status: 1: error[TB0100]: step B ("),
            "{other}"
        );
    }

    #[test]
    fn a_case_finds_what_runs_beside_it_and_what_was_made_ready() {
        let service = |script: &str| cases::Service {
            name: "pool".to_owned(),
            program: "times_five".to_owned(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
        };
        let told = |beside: &'static str| {
            ran_with("{worker} {pool} >$1/x; cat {files}/y >>$1/x", None, |case| {
                case.before = Some("echo ready >{files}/y".to_owned());
                case.worker = Some("echo \"$1 in {out}\" | sed s:/.*/::".to_owned());
                case.services = vec![service(beside)];
            })
        };
        assert_eq!(told("echo pool h:1; exec sleep 999").unwrap(), ["h:1 in out", "ready"]);
        let reason = told("echo no >&2; exit 3").unwrap_err();
        assert!(reason.starts_with("pool does not run: no ("), "{reason}");
    }
}
