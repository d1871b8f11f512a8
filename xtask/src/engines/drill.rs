//! `cargo xtask engines drill`: what is asked of an engine beyond the right answer. Each drill starts Flink's cluster and a
//! pool of our workers, and ends with whether every line of the output is right.
//!
//! - `million`: many elements through RunInference, beside Python Beam's RunInference on the same cluster.
//! - `kill`: a worker is killed while it writes its part.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tiebeam_engines::{Engine, Group, Kind, Layout, Settings, State, Versions, installed};

use super::harness::{difference, lines_below, root};
use crate::built::programs;
use crate::say;

/// Numbers that the model is asked for, unless told.
const ELEMENTS: usize = 1_000_000;

/// How long one job may take.
const PATIENCE: Duration = Duration::from_secs(400);

/// Between two looks at what cannot be waited for.
const LOOK: Duration = Duration::from_millis(20);

type Outcome<T> = Result<T, String>;

/// The task with its arguments. False where an output was wrong.
pub(crate) fn run(arguments: &[&str]) -> Outcome<bool> {
    let mut elements = ELEMENTS;
    let mut names = Vec::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match *word {
            "--elements" => {
                let given = rest.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                elements = given.ok_or("`--elements` wants a number")?;
            }
            "million" | "kill" => names.push(*word),
            other => return Err(format!("there is no drill `{other}`, only million and kill")),
        }
    }
    if names.is_empty() {
        names = vec!["million", "kill"];
    }
    let layout = Layout::of_cache()?;
    if !matches!(installed("flink", &layout, &Versions::built_in()?)?, State::Ready(_)) {
        say("skipped: flink is not installed (cargo xtask engines install flink)");
        say(format_args!("drill: 0 passed, 0 failed, {} skipped", names.len()));
        return Ok(true);
    }
    let bench = Bench::new(&layout, elements)?;
    let (mut passed, mut failed) = (0, 0);
    for name in names {
        let done = match name {
            "million" => bench.million(&layout),
            _ => bench.kill(),
        };
        match done {
            Ok(told) => {
                passed += 1;
                say(format_args!("drill {name}: ok\n{told}"));
            }
            Err(why) => {
                failed += 1;
                say(format_args!("drill {name}: FAILED: {why}"));
            }
        }
    }
    let _ = fs::remove_dir_all(&bench.files);
    say(format_args!("drill: {passed} passed, {failed} failed, 0 skipped"));
    Ok(failed == 0)
}

/// What the drills share: the input, the lines that are right, the program.
struct Bench {
    program: PathBuf,
    files: PathBuf,
    logs: PathBuf,
    input: PathBuf,
    expected: Vec<String>,
}

impl Bench {
    fn new(layout: &Layout, elements: usize) -> Outcome<Bench> {
        let program = programs(["times_five"])?.remove("times_five").ok_or("cargo built no times_five")?;
        let (files, logs) = layout.scratch("drill")?;
        let input = files.join("numbers.txt");
        let mut text = String::new();
        let mut expected = Vec::with_capacity(elements);
        for i in 0..elements {
            let n = i % 1000;
            let _ = writeln!(text, "{n}");
            expected.push(format!("{n} -> {}", n * 5));
        }
        expected.sort_unstable();
        fs::create_dir_all(&files).and_then(|()| fs::write(&input, text)).map_err(cannot("write", &input))?;
        Ok(Bench { program, files, logs, input, expected })
    }

    /// A new cluster with a pool of our workers, and the pool's address.
    fn cluster(&self, settings: Settings) -> Outcome<(Engine, Pool)> {
        let engine = Engine::start(Kind::FlinkCluster, &settings)?;
        Ok((engine, Pool::start(&self.program, &self.files, &self.logs)?))
    }

    fn ours(&self, engine: &Engine, pool: &Pool, input: &Path, name: &str) -> Outcome<Job> {
        let mut command = Command::new(&self.program);
        command.arg("--input").arg(input).arg("--output").arg(self.out(name)?.join("part"));
        command.args(["--runner", "flink", "--job-endpoint", &engine.endpoint()]);
        command.args(["--environment", &format!("external={}", pool.address)]);
        command.arg("--report").arg(self.report(name));
        Job::start(command, &self.logs.join(format!("{name}.log")))
    }

    fn python(&self, layout: &Layout, engine: &Engine, input: &Path, name: &str) -> Outcome<Option<Job>> {
        let State::Ready(place) = installed("python", layout, &Versions::built_in()?)? else {
            return Ok(None);
        };
        let mut command = Command::new(place.join("bin/python"));
        command.arg(root().join("engines/python/million.py"));
        command.arg(format!("--job_endpoint={}", engine.endpoint()));
        command.arg("--input").arg(input).arg("--output").arg(self.out(name)?.join("part"));
        Job::start(command, &self.logs.join(format!("{name}.log"))).map(Some)
    }

    fn out(&self, name: &str) -> Outcome<PathBuf> {
        let out = self.files.join(name);
        fs::create_dir_all(&out).map_err(cannot("create", &out))?;
        Ok(out)
    }

    fn report(&self, name: &str) -> PathBuf {
        self.files.join(format!("{name}.json"))
    }

    /// Whether what that job wrote is right, to the last line.
    fn check(&self, name: &str) -> Outcome<()> {
        let mut lines = lines_below(&self.out(name)?)?;
        lines.sort_unstable();
        if lines == self.expected {
            Ok(())
        } else {
            Err(format!("{name}: {}", difference(&self.expected, &lines)))
        }
    }

    /// Times both sides, each after a small job of its own, so that neither pays for what starts but once.
    fn million(&self, layout: &Layout) -> Outcome<String> {
        let (engine, pool) = self.cluster(Settings::default())?;
        let small = self.files.join("small.txt");
        fs::write(&small, "1\n2\n3\n").map_err(cannot("write", &small))?;
        self.ours(&engine, &pool, &small, "warm-ours")?.end(&mut || None)?;
        let mut processes = BTreeSet::new();
        let ours = self.ours(&engine, &pool, &self.input, "ours")?.end(&mut || {
            processes.extend(pool.workers());
            None
        })?;
        self.check("ours")?;
        let loads = metric(&self.report("ours"), "load_model_latency_milli_secs", "count")?;
        if loads as usize > processes.len() {
            return Err(format!("{} worker processes loaded the model {loads} times", processes.len()));
        }
        let rate = |time: Duration| self.expected.len() as f64 / time.as_secs_f64();
        let mut told = format!(
            "  {} elements, {} worker processes, {loads} model loads\n  tiebeam  {:>6.1} s  {:>9.0} elements/s\n",
            self.expected.len(),
            processes.len(),
            ours.as_secs_f64(),
            rate(ours)
        );
        let Some(warm) = self.python(layout, &engine, &small, "warm-python")? else {
            told.push_str(
                "  python is not installed: nothing to compare with (cargo xtask engines install python)",
            );
            return Ok(told);
        };
        warm.end(&mut || None)?;
        let job = self.python(layout, &engine, &self.input, "python")?.ok_or("python went away")?;
        let theirs = job.end(&mut || None)?;
        self.check("python")?;
        let _ = write!(
            told,
            "  python   {:>6.1} s  {:>9.0} elements/s\n  ratio {:.2}",
            theirs.as_secs_f64(),
            rate(theirs),
            theirs.as_secs_f64() / ours.as_secs_f64()
        );
        Ok(told)
    }

    /// Kills a worker as soon as one has begun to write its part: the job is then well under way.
    fn kill(&self) -> Outcome<String> {
        // Each task of the dead worker fails for itself, and counts as an attempt.
        let attempts = ("restart-strategy.fixed-delay.attempts".to_owned(), "10".to_owned());
        let (engine, pool) = self.cluster(Settings { flink: [attempts].into(), ..Settings::default() })?;
        let (job, out) = (self.ours(&engine, &pool, &self.input, "killed")?, self.out("killed")?);
        let mut killed: Option<(u32, Instant)> = None;
        let mut since = BTreeSet::new();
        let time = job.end(&mut || {
            match &killed {
                None if is_written_to(&out) => {
                    let before = pool.workers();
                    if let Some(worker) = before.first().copied() {
                        if let Err(why) = kill_9(worker) {
                            return Some(why);
                        }
                        killed = Some((worker, Instant::now()));
                        since = before;
                    }
                }
                None => {}
                Some(_) => since.extend(pool.workers()),
            }
            None
        })?;
        let Some((worker, when)) = killed else {
            return Err("the job ended before a worker could be killed".to_owned());
        };
        self.check("killed")?;
        let left = hidden(&out);
        if !left.is_empty() {
            return Err(format!("{} was left behind", left.join(", ")));
        }
        Ok(format!(
            "  {} elements, exact; worker {worker} was killed {:.1} s before the end of a job of {:.1} s; {} worker processes in all",
            self.expected.len(),
            when.elapsed().as_secs_f64(),
            time.as_secs_f64(),
            since.len()
        ))
    }
}

fn cannot(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.display().to_string();
    move |e| format!("cannot {what} {path}: {e}")
}

/// Our worker pool.
struct Pool {
    address: String,
    leader: u32,
    _group: Group,
}

impl Pool {
    fn start(program: &Path, files: &Path, logs: &Path) -> Outcome<Pool> {
        let (log, begun) = (logs.join("pool.log"), Instant::now());
        let mut group = Group::new(&files.join("pool"))?;
        // The shell tells the id of the process that it then becomes.
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$; exec \"$0\" worker --pool 127.0.0.1:0"]).arg(program);
        group.spawn("pool", command, &log)?;
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let leader = said.lines().next().and_then(|line| line.parse().ok());
            let address = said.lines().find_map(|line| line.strip_prefix("worker pool "));
            if let (Some(leader), Some(address)) = (leader, address) {
                return Ok(Pool { address: address.to_owned(), leader, _group: group });
            }
            if begun.elapsed() > Duration::from_secs(30) || group.ended().next().is_some() {
                return Err(format!("no pool of workers began to listen: {said}"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The worker processes that are there now.
    fn workers(&self) -> BTreeSet<u32> {
        let Ok(entries) = fs::read_dir("/proc") else { return BTreeSet::new() };
        let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.filter(|id| parent_of(*id) == Some(self.leader)).collect()
    }
}

/// From `/proc/ID/stat`: what comes after the name in brackets, which may hold anything.
fn parent_of(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn kill_9(id: u32) -> Outcome<()> {
    let done = Command::new("kill").args(["-9", &id.to_string()]).status();
    match done {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("cannot kill {id}: {other:?}")),
    }
}

/// Whether a sink has begun a temporary file there.
fn is_written_to(out: &Path) -> bool {
    let Ok(entries) = fs::read_dir(out) else { return false };
    let folders = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    folders.filter_map(|path| fs::read_dir(path).ok()).any(|mut files| files.next().is_some())
}

fn hidden(out: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(out) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with('.')).collect()
}

/// A client of an engine, killed when it is dropped.
struct Job {
    child: Child,
    log: PathBuf,
    begun: Instant,
}

impl Job {
    fn start(mut command: Command, log: &Path) -> Outcome<Job> {
        let file = File::create(log).map_err(cannot("create", log))?;
        let errors = file.try_clone().map_err(cannot("create", log))?;
        command.current_dir(root()).stdin(Stdio::null()).stdout(file).stderr(errors);
        let begun = Instant::now();
        let child = command.spawn().map_err(|e| format!("cannot start {:?}: {e}", command.get_program()))?;
        Ok(Job { child, log: log.to_owned(), begun })
    }

    /// How long it took. `meanwhile` is called again and again, and may say why to give up.
    fn end(mut self, meanwhile: &mut dyn FnMut() -> Option<String>) -> Outcome<Duration> {
        loop {
            if let Some(status) = self.child.try_wait().map_err(|e| e.to_string())? {
                let time = self.begun.elapsed();
                if status.success() {
                    return Ok(time);
                }
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!(
                    "{status}: {} ({})",
                    super::harness::complaint(&said),
                    self.log.display()
                ));
            }
            if let Some(why) = meanwhile() {
                return Err(why);
            }
            if self.begun.elapsed() > PATIENCE {
                return Err(format!("it did not end in {} s ({})", PATIENCE.as_secs(), self.log.display()));
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A part of a metric in a report.
fn metric(report: &Path, name: &str, part: &str) -> Outcome<u64> {
    let text = fs::read_to_string(report).map_err(cannot("read", report))?;
    let report: Value = serde_json::from_str(&text).map_err(|e| format!("the report: {e}"))?;
    let all = report.get("metrics").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let found = all.iter().find(|metric| metric.get("name").and_then(Value::as_str) == Some(name));
    let value = found.and_then(|metric| metric.get("value")?.get(part)?.as_u64());
    value.ok_or_else(|| format!("the report has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_on_the_command_line_are_told() {
        assert_eq!(run(&["millions"]).unwrap_err(), "there is no drill `millions`, only million and kill");
        for wrong in [&["--elements"][..], &["--elements", "0"], &["--elements", "x"]] {
            assert_eq!(run(wrong).unwrap_err(), "`--elements` wants a number");
        }
    }

    #[test]
    fn workers_are_the_children_of_their_pool() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert_eq!(parent_of(child.id()), Some(std::process::id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(parent_of(child.id()), None);
    }

    #[test]
    fn metrics_are_read_from_reports() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        fs::write(&path, r#"{"metrics": [{"name": "a", "value": 3}, {"name": "b", "value": {"count": 2}}]}"#)
            .unwrap();
        assert_eq!(metric(&path, "b", "count"), Ok(2));
        assert_eq!(metric(&path, "c", "count").unwrap_err(), "the report has no c");
    }

    #[test]
    fn a_sink_at_work_is_seen_by_its_files() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_written_to(dir.path()));
        fs::create_dir(dir.path().join(".tiebeam-part-1")).unwrap();
        assert!(!is_written_to(dir.path()));
        fs::write(dir.path().join(".tiebeam-part-1/shard-1"), "").unwrap();
        assert!(is_written_to(dir.path()));
        assert_eq!(hidden(dir.path()), [".tiebeam-part-1"]);
    }
}
