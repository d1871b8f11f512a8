//! What outlives the process of a job that can be resumed: for each bundle that is done, what it made and counted.
//!
//! Below the state directory, `tiebeam-run.lock` is held by the process that runs the job, and `tiebeam-run/` has:
//! - `run`: the run's id, and all that a process must agree on to go on with it. Without this file there is no run.
//! - `stage-003/bundles`: the number of the stage's bundles, written before the first of them begins.
//! - `stage-003/000012.data` and `000012.done`: what a bundle made, and where in that file what is. A bundle is done when
//!   the second is there; it is written whole and renamed into its place.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiebeam_core::metrics::{DistributionValue, MetricKey, MetricValue};
use tiebeam_core::{Error, ErrorKind, Result, RunId};
use tiebeam_exec::EdgeId;

use crate::carried::{Bits, put_number, put_text};
use crate::spill::failed;

const FOLDER: &str = "tiebeam-run";
const LOCK: &str = "tiebeam-run.lock";
const RUN: &str = "run";
const BUNDLES: &str = "bundles";
const HEAD: &str = "tiebeam run 1";

/// Where a job keeps what it has done, so that it can go on after its process was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateOptions {
    /// The directory; made if it is not there.
    pub dir: PathBuf,
    /// Whether to go on with the run that is there, if there is one. If not, it is cleared away.
    pub resume: bool,
    /// Options that decide what is computed: a run goes on only with the same.
    pub options: BTreeMap<String, String>,
}

/// The state of one run.
pub(crate) struct RunState {
    folder: PathBuf,
    lock: PathBuf,
    held: File,
    run: RunId,
    is_resumed: bool,
}

/// What a bundle that is done has left.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Done {
    pub(crate) elements: Vec<(EdgeId, u64)>,
    pub(crate) nanos: Vec<(Arc<str>, u64)>,
    pub(crate) metrics: Vec<(MetricKey, MetricValue)>,
    pub(crate) outputs: Vec<DoneOutput>,
}

/// Where one output of a bundle is in its file: begin and length of each part.
#[derive(Debug, PartialEq)]
pub(crate) enum DoneOutput {
    /// Batches, with the number of elements.
    Chunks(Vec<(u64, u64, u64)>),
    /// Sorted runs, by partition.
    Runs(Vec<Vec<(u64, u64)>>),
}

/// What is known of a stage.
#[derive(Debug, Default)]
pub(crate) struct StageState {
    /// The number of its bundles, if it was begun.
    pub(crate) bundles: Option<usize>,
    /// Those that are done.
    pub(crate) done: BTreeMap<usize, Done>,
}

impl RunState {
    /// Claims the directory and begins a run, or goes on with the one that is there. `identity` is what the processes of a
    /// run must agree on, by name.
    pub(crate) fn open(options: &StateOptions, identity: &BTreeMap<String, String>) -> Result<RunState> {
        let dir = &options.dir;
        fs::create_dir_all(dir).map_err(|e| failed("create a folder", dir, e))?;
        let lock = dir.join(LOCK);
        let held = claim(&lock, dir)?;
        let folder = dir.join(FOLDER);
        let found = if options.resume { read_run(&folder)? } else { None };
        if let Some((run, there)) = found {
            agree(dir, &there, identity)?;
            return Ok(RunState { folder, lock, held, run, is_resumed: true });
        }
        remove_run(&folder)?;
        let run = RunId::new();
        fs::create_dir_all(&folder).map_err(|e| failed("create a folder", &folder, e))?;
        let lines = identity.iter().map(|(name, value)| format!("{}={}\n", escaped(name), escaped(value)));
        let text = format!("{HEAD}\n{run}\n{}", lines.collect::<String>());
        write_whole(&folder, RUN, text.as_bytes())?;
        sync_dir(dir)?;
        Ok(RunState { folder, lock, held, run, is_resumed: false })
    }

    /// The run.
    pub(crate) fn run(&self) -> RunId {
        self.run
    }

    /// Whether another process began it.
    pub(crate) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Where the files of the run are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn stage_dir(&self, stage: usize) -> PathBuf {
        self.folder.join(format!("stage-{stage:03}"))
    }

    /// Where a bundle puts what it makes.
    pub(crate) fn data_path(&self, stage: usize, bundle: usize) -> PathBuf {
        self.stage_dir(stage).join(format!("{bundle:06}.data"))
    }

    /// Says how many bundles a stage has, before the first of them begins.
    pub(crate) fn begin_stage(&self, stage: usize, bundles: usize) -> Result<()> {
        let dir = self.stage_dir(stage);
        fs::create_dir_all(&dir).map_err(|e| failed("create a folder", &dir, e))?;
        write_whole(&dir, BUNDLES, format!("{bundles}\n").as_bytes())?;
        sync_dir(&self.folder)
    }

    /// Says that a bundle is done. What it made is on stable storage already.
    pub(crate) fn write_done(&self, stage: usize, bundle: usize, done: &Done) -> Result<()> {
        write_whole(&self.stage_dir(stage), &format!("{bundle:06}.done"), &done.to_bytes())
    }

    /// What earlier processes did of a stage.
    pub(crate) fn stage(&self, stage: usize) -> Result<StageState> {
        let dir = self.stage_dir(stage);
        let Some(text) = absent_is_none(fs::read_to_string(dir.join(BUNDLES)))
            .map_err(|e| failed("read back", &dir, e))?
        else {
            return Ok(StageState::default());
        };
        let count: usize = text.trim().parse().map_err(|_| damaged(&dir.join(BUNDLES)))?;
        let mut done = BTreeMap::new();
        for bundle in 0..count {
            let path = dir.join(format!("{bundle:06}.done"));
            let Some(bytes) = absent_is_none(fs::read(&path)).map_err(|e| failed("read back", &dir, e))?
            else {
                continue;
            };
            done.insert(bundle, Done::of_bytes(&bytes).ok_or_else(|| damaged(&path))?);
        }
        Ok(StageState { bundles: Some(count), done })
    }

    /// Removes everything: the run has ended well.
    pub(crate) fn finish(&self) -> Result<()> {
        remove_run(&self.folder)?;
        // Only our own: another may have taken the place of a lock that somebody removed.
        if is_same(&self.held, &self.lock) {
            absent_is_none(fs::remove_file(&self.lock))
                .map_err(|e| failed("remove the lock", &self.folder, e))?;
        }
        Ok(())
    }
}

/// Takes the lock, which the operating system gives up with the process.
fn claim(lock: &Path, dir: &Path) -> Result<File> {
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(lock);
        let file = file.map_err(|e| failed("create a lock", dir, e))?;
        match file.try_lock() {
            // The holder before us may have removed the file between our open and our lock.
            Ok(()) if is_same(&file, lock) => return Ok(file),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(
                    ErrorKind::Output,
                    "TB0571",
                    format!("the state directory `{}` is used by another job", dir.display()),
                )
                .with_help("wait for that job, or give each job a state directory of its own"));
            }
            Err(TryLockError::Error(e)) => return Err(failed("lock a file", dir, e)),
        }
    }
}

#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |found: fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(own), Ok(there)) => place(own) == place(there),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
}

/// The run that is there, with what its processes agree on.
fn read_run(folder: &Path) -> Result<Option<(RunId, BTreeMap<String, String>)>> {
    let path = folder.join(RUN);
    let text = absent_is_none(fs::read_to_string(&path)).map_err(|e| failed("read back", folder, e))?;
    let Some(text) = text else { return Ok(None) };
    let mut lines = text.lines();
    let head = (lines.next(), lines.next().and_then(RunId::parse));
    let (Some(HEAD), Some(run)) = head else { return Err(damaged(&path)) };
    let pairs = lines.map(|line| line.split_once('=').map(|(n, v)| (unescaped(n), unescaped(v))));
    let identity = pairs.collect::<Option<BTreeMap<_, _>>>().ok_or_else(|| damaged(&path))?;
    Ok(Some((run, identity)))
}

/// Whether a run may go on: everything that decides what it computes is as it was.
fn agree(dir: &Path, there: &BTreeMap<String, String>, here: &BTreeMap<String, String>) -> Result<()> {
    let names: std::collections::BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    let shown =
        |value: Option<&String>| value.map_or("nothing".to_owned(), |value| format!("`{}`", short(value)));
    let differences = names.into_iter().filter(|name| there.get(*name) != here.get(*name));
    let told: Vec<String> = differences
        .map(|name| format!("{name} was {}, is {}", shown(there.get(name)), shown(here.get(name))))
        .collect();
    if told.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        "TB0572",
        format!("the run in `{}` cannot go on, it is of another job: {}", dir.display(), told.join("; ")),
    )
    .with_help("run it as it was begun, or begin anew without `--resume`, which clears the old run away"))
}

/// The beginning of a value.
fn short(value: &str) -> String {
    if value.chars().count() > 60 {
        value.chars().take(60).chain(['…']).collect()
    } else {
        value.to_owned()
    }
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('=', "%3d").replace('\n', "%0a").replace('\r', "%0d")
}

fn unescaped(text: &str) -> String {
    text.replace("%0d", "\r").replace("%0a", "\n").replace("%3d", "=").replace("%25", "%")
}

/// Removes a run, its head first: what is left of it is no run any more.
fn remove_run(folder: &Path) -> Result<()> {
    let remove = |result: io::Result<()>| {
        absent_is_none(result).map(drop).map_err(|e| failed("remove the files", folder, e))
    };
    remove(fs::remove_file(folder.join(RUN)))?;
    remove(fs::remove_dir_all(folder))
}

/// A whole file or none, through a draft beside it.
fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let draft = dir.join(format!("{name}.draft"));
    let write = || {
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, dir.join(name))
    };
    write().map_err(|e| failed("write", dir, e))?;
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> Result<()> {
    // Where folders can't be opened, as on Windows, renames last by themselves.
    if cfg!(unix) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| failed("write", dir, e))
    } else {
        Ok(())
    }
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The error of state that is not what was written.
pub(crate) fn damaged(path: &Path) -> Error {
    Error::new(ErrorKind::Output, "TB0573", format!("`{}` is damaged, the run cannot go on", path.display()))
        .with_help("begin anew without `--resume`, which clears the old run away")
        .with_retryable(false)
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Done {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(self.elements.len() as u64, &mut out);
        for (edge, n) in &self.elements {
            put_number(edge.0 as u64, &mut out);
            put_number(*n, &mut out);
        }
        put_number(self.nanos.len() as u64, &mut out);
        for (step, n) in &self.nanos {
            put_text(step, &mut out);
            put_number(*n, &mut out);
        }
        put_number(self.metrics.len() as u64, &mut out);
        for (key, value) in &self.metrics {
            [&key.step, &key.namespace, &key.name].into_iter().for_each(|text| put_text(text, &mut out));
            let (kind, numbers) = match value {
                MetricValue::Counter(n) => (0, vec![*n]),
                MetricValue::Gauge(n) => (1, vec![*n]),
                MetricValue::Distribution(d) => (2, vec![d.count, d.sum, d.min, d.max]),
            };
            out.push(kind);
            numbers.into_iter().for_each(|n| put_number(n as u64, &mut out));
        }
        put_number(self.outputs.len() as u64, &mut out);
        for output in &self.outputs {
            match output {
                DoneOutput::Chunks(chunks) => {
                    out.push(0);
                    put_number(chunks.len() as u64, &mut out);
                    for (at, len, count) in chunks {
                        [at, len, count].into_iter().for_each(|n| put_number(*n, &mut out));
                    }
                }
                DoneOutput::Runs(partitions) => {
                    out.push(1);
                    put_number(partitions.len() as u64, &mut out);
                    for runs in partitions {
                        put_number(runs.len() as u64, &mut out);
                        for (at, len) in runs {
                            [at, len].into_iter().for_each(|n| put_number(*n, &mut out));
                        }
                    }
                }
            }
        }
        let sum = checksum(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    fn of_bytes(bytes: &[u8]) -> Option<Done> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
        if checksum(body).to_le_bytes() != *sum {
            return None;
        }
        let mut bits = Bits::new(body);
        let mut done = Done::default();
        for _ in 0..bits.number()? {
            done.elements.push((EdgeId(bits.length()?), bits.number()?));
        }
        for _ in 0..bits.number()? {
            done.nanos.push((bits.text()?.into(), bits.number()?));
        }
        for _ in 0..bits.number()? {
            let mut text = || bits.text().map(Arc::<str>::from);
            let key = MetricKey { step: text()?, namespace: text()?, name: text()? };
            let kind = bits.byte()?;
            let mut number = || bits.number().map(|n| n as i64);
            let value = match kind {
                0 => MetricValue::Counter(number()?),
                1 => MetricValue::Gauge(number()?),
                2 => MetricValue::Distribution(DistributionValue {
                    count: number()?,
                    sum: number()?,
                    min: number()?,
                    max: number()?,
                }),
                _ => return None,
            };
            done.metrics.push((key, value));
        }
        for _ in 0..bits.number()? {
            let kind = bits.byte()?;
            let count = bits.number()?;
            done.outputs.push(match kind {
                0 => DoneOutput::Chunks(
                    (0..count)
                        .map(|_| Some((bits.number()?, bits.number()?, bits.number()?)))
                        .collect::<Option<_>>()?,
                ),
                1 => DoneOutput::Runs(
                    (0..count)
                        .map(|_| {
                            let runs = bits.number()?;
                            (0..runs).map(|_| Some((bits.number()?, bits.number()?))).collect()
                        })
                        .collect::<Option<_>>()?,
                ),
                _ => return None,
            });
        }
        bits.is_empty().then_some(done)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
