//! Kills a job at each of its file system operations in turn, and looks at what the next one finds.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::compression::Compression;
use crate::fs::local::Local;
use crate::fs::{FileMetadata, WriteFile};
use crate::sink::write::Sink;

/// How an operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// It is not done, and nothing is after it: the process is gone.
    KilledBefore,
    /// It is done, and nothing is after it.
    KilledAfter,
    /// It fails once; what comes after works.
    Once,
}

/// The local file system, with a fault at the nth operation that changes or reads something.
#[derive(Debug)]
struct Faulty {
    at: usize,
    fault: Fault,
    done: AtomicUsize,
}

impl Faulty {
    fn step<R>(&self, operation: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let n = self.done.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::Once if n == self.at => Err(io::Error::other("injected")),
            Fault::KilledAfter if n == self.at => operation().and(Err(io::Error::other("killed"))),
            Fault::KilledBefore | Fault::KilledAfter if n >= self.at => Err(io::Error::other("killed")),
            _ => operation(),
        }
    }
}

struct FaultyFile {
    inner: Box<dyn WriteFile>,
    fs: Arc<Faulty>,
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let FaultyFile { inner, fs } = self;
        // A write that is cut off leaves half of it.
        let half = bytes.len() / 2;
        match fs.step(|| inner.write(bytes)) {
            Err(e) => inner.write_all(&bytes[..half]).and(Err(e)),
            done => done,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WriteFile for FaultyFile {
    fn finish(self: Box<Self>) -> io::Result<()> {
        let FaultyFile { inner, fs } = *self;
        // The operation counts, but the disk need not be waited for: no test can cut the power.
        fs.step(|| {
            drop(inner);
            Ok(())
        })
    }
}

#[derive(Debug, Clone)]
struct FaultyFs(Arc<Faulty>);

impl FileSystem for FaultyFs {
    fn list(&self, pattern: &str) -> io::Result<Vec<FileMetadata>> {
        self.0.step(|| Local.list(pattern))
    }

    fn names(&self, dir: &str) -> io::Result<Vec<String>> {
        self.0.step(|| Local.names(dir))
    }

    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        self.0.step(|| Local.size(path))
    }

    fn open(&self, path: &str, start: u64) -> io::Result<Box<dyn Read + Send>> {
        self.0.step(|| Local.open(path, start))
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn WriteFile>> {
        let inner = self.0.step(|| Local.create(path))?;
        Ok(Box::new(FaultyFile { inner, fs: self.0.clone() }))
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.0.step(|| Local.create_dir(dir))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.step(|| Local.rename(from, to))
    }

    fn delete(&self, path: &str) -> io::Result<()> {
        self.0.step(|| Local.delete(path))
    }

    fn delete_dir(&self, dir: &str) -> io::Result<()> {
        self.0.step(|| Local.delete_dir(dir))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.step(|| Local.size(dir).map(|_| ()))
    }

    fn try_lock(&self, path: &str, owner: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let inner = self.0.step(|| Local.try_lock(path, owner))?;
        Ok(inner.map(|inner| Box::new(FaultyLock { inner, fs: self.0.clone() }) as Box<dyn Lock>))
    }

    fn check_writable(&self, dir: &str) -> io::Result<()> {
        Local.check_writable(dir)
    }
}

struct FaultyLock {
    inner: Box<dyn Lock>,
    fs: Arc<Faulty>,
}

impl Lock for FaultyLock {
    fn remove(self: Box<Self>) -> io::Result<()> {
        let FaultyLock { inner, fs } = *self;
        fs.step(|| inner.remove())
    }
}

fn target(dir: &tempfile::TempDir) -> Target {
    let target = Target::new(&format!("{}/out/part", dir.path().display())).unwrap();
    // Most of these tests are about several files.
    Target { join_below: 0, ..target }
}

fn write_piece(place: &Place, job: RunId, shard: usize, name: &str, text: &str) -> Result<Piece> {
    let path = place.temp_path(job, name);
    let failed = |e| failed_writing("write", &path, e);
    let mut encoder = Encoder::new(place.fs().create(&path).map_err(failed)?, place.target().compression)
        .map_err(failed)?;
    encoder.write_all(text.as_bytes()).map_err(failed)?;
    let bytes = encoder.finish().map_err(failed)?;
    Ok(Piece { name: name.into(), shard, records: 1, bytes, header: Vec::new() })
}

/// A job of one piece for each text; each of its three steps is tried twice, as a runner would. With a number of shards
/// the pieces go round among them.
fn run(fs: Arc<dyn FileSystem>, target: &Target, texts: &[&str]) -> Result<Committed> {
    let sink = Sink::new(Place::new(fs.clone(), target.clone()));
    let place = Place::new(fs, target.clone());
    let job = RunId::new();
    sink.begin(job).or_else(|_| sink.begin(job))?;
    let mut pieces = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let shard = i % target.num_shards.unwrap_or(1);
        let write =
            |attempt: usize| write_piece(&place, job, shard, &format!("shard-{i:03}-{attempt}"), text);
        pieces.push(write(1).or_else(|_| write(2))?);
    }
    sink.commit(job, &pieces, b"").or_else(|_| sink.commit(job, &pieces, b""))
}

/// Without a fault.
fn local() -> Arc<dyn FileSystem> {
    Arc::new(FaultyFs(Arc::new(Faulty { at: usize::MAX, fault: Fault::Once, done: AtomicUsize::new(0) })))
}

/// What is in the output's directory, and what every reader sees of it.
fn look(target: &Target) -> (Vec<String>, BTreeMap<String, String>) {
    let mut hidden = Vec::new();
    let mut visible = BTreeMap::new();
    for name in Local.names(&target.dir).unwrap() {
        if name.starts_with(OWN_PREFIX) {
            hidden.push(name);
        } else {
            let file = Local.open(&join(&target.dir, &name), 0).unwrap();
            let mut text = String::new();
            target.compression.decode(file).unwrap().read_to_string(&mut text).unwrap();
            visible.insert(name, text);
        }
    }
    hidden.sort();
    (hidden, visible)
}

fn output(target: &Target, texts: &[&str]) -> BTreeMap<String, String> {
    let named = texts.iter().enumerate().map(|(i, t)| (target.shard_name(i, texts.len()), (*t).to_owned()));
    named.collect()
}

/// An old output, then a new one that is stopped at every possible point; after a run that fails right away, and after one
/// that works, exactly one whole output is there and nothing else.
fn check_faults(settings: impl Fn(&mut Target), old: &[&str], pieces: &[&str], new: &[&str]) {
    for fault in [Fault::KilledBefore, Fault::KilledAfter, Fault::Once] {
        let mut at = 0;
        loop {
            let dir = tempfile::tempdir().unwrap();
            let mut target = target(&dir);
            settings(&mut target);
            let target = target.checked().unwrap();
            let plain = Target { num_shards: None, join_below: 0, ..target.clone() };
            if !old.is_empty() {
                run(local(), &plain, old).unwrap();
            }
            let before = output(&plain, old);
            let after = output(&plain, new);
            let faulty = Arc::new(Faulty { at, fault, done: AtomicUsize::new(0) });
            let result = run(Arc::new(FaultyFs(faulty.clone())), &target, pieces);
            let was_reached = faulty.done.load(Ordering::Relaxed) > at;
            let case = format!("{fault:?} at {at}: {result:?}");

            let seen =
                if Local.size(&target.dir).unwrap().is_some() { look(&target).1 } else { BTreeMap::new() };
            for (name, text) in &seen {
                let whole = before.get(name) == Some(text) || after.get(name) == Some(text);
                assert!(whole, "{case}: a half file `{name}` is seen: {text:?}");
            }
            if fault == Fault::Once {
                assert!(result.is_ok(), "{case}: one failure is borne by trying again");
            }
            if result.is_ok() {
                assert_eq!(seen, after, "{case}");
            }

            // A job that begins and fails.
            let next = Sink::new(Place::new(local(), target.clone()));
            let failing = RunId::new();
            next.begin(failing).unwrap();
            next.close(failing);
            let (hidden, seen) = look(&target);
            assert_eq!(hidden, Vec::<String>::new(), "{case}");
            assert!(seen == before || seen == after, "{case}: mixed: {seen:?}");

            run(local(), &plain, &["last\n"]).unwrap();
            assert_eq!(look(&target), (vec![], output(&plain, &["last\n"])), "{case}");
            if !was_reached {
                assert!(result.is_ok(), "{case}");
                break;
            }
            at += 1;
        }
        assert!(at > 10, "the faults were at {at} places");
    }
}

const A: &str = "a1\na2\n";
const B: &str = "b1 is longer\nb2\n";
const C: &str = "c\n";

#[test]
fn a_kill_anywhere_leaves_one_whole_output() {
    check_faults(|_| {}, &[], &[A], &[A]);
    check_faults(|_| {}, &["x\n", "y\n"], &[A, B], &[A, B]);
    check_faults(|_| {}, &["x\n"], &[A, B, C], &[A, B, C]);
    check_faults(|_| {}, &["x\n", "y\n", "z\n"], &[A], &[A]);
}

#[test]
fn a_kill_anywhere_while_small_pieces_are_put_together() {
    let joins = |t: &mut Target| t.join_below = 1 << 20;
    check_faults(joins, &["x\n"], &[A, B, C], &["a1\na2\nb1 is longer\nb2\nc\n"]);
    let some = |t: &mut Target| t.join_below = A.len() as u64 + 1;
    check_faults(some, &["x\n", "y\n"], &[A, B, C], &[B, "a1\na2\nc\n"]);
    let compressed = |t: &mut Target| {
        t.join_below = 1 << 20;
        t.compression = Compression::Gzip;
    };
    check_faults(compressed, &["x\n"], &[A, B], &["a1\na2\nb1 is longer\nb2\n"]);
}

#[test]
fn a_kill_anywhere_of_an_empty_output() {
    check_faults(|_| {}, &["x\n", "y\n"], &[], &[""]);
}

#[test]
fn a_kill_anywhere_of_a_given_number_of_shards() {
    check_faults(|t| t.num_shards = Some(1), &["x\n", "y\n"], &[A, B], &["a1\na2\nb1 is longer\nb2\n"]);
    check_faults(|t| t.num_shards = Some(3), &["x\n"], &[A, B], &[A, B, ""]);
}

#[test]
fn a_kill_anywhere_of_a_compressed_output() {
    let settings = |t: &mut Target| {
        t.compression = Compression::Gzip;
        t.num_shards = Some(2);
    };
    check_faults(settings, &["x\n"], &[A, B, C], &["a1\na2\nc\n", B]);
}

#[test]
fn two_jobs_at_once_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(&dir);
    let first = Sink::new(Place::new(local(), target.clone()));
    let second = Sink::new(Place::new(local(), target.clone()));
    let (job, other) = (RunId::new(), RunId::new());
    first.begin(job).unwrap();
    first.begin(job).unwrap();
    for error in [second.begin(other).unwrap_err(), second.check_place().unwrap_err()] {
        assert_eq!((error.kind(), error.code()), (ErrorKind::Output, "TB0441"));
        assert_eq!(
            error.message(),
            format!("output `{}/out/part` is being written by another job", dir.path().display())
        );
    }
    // Another output in the same directory is no hindrance, whatever its name begins with.
    let beside = Target { prefix: "part-two".into(), ..target.clone() };
    run(local(), &beside, &[B]).unwrap();
    let place = Place::new(local(), target.clone());
    let piece = write_piece(&place, job, 0, "shard", A).unwrap();
    let committed = first.commit(job, std::slice::from_ref(&piece), b"").unwrap();
    assert_eq!(committed.files, [format!("{}/out/part-00000-of-00001", dir.path().display())]);
    assert_eq!(committed.records, 1);
    assert_eq!(first.commit(job, &[piece], b"").unwrap(), committed, "a commit that is run again");
    second.begin(other).unwrap();
    second.close(other);
    let (hidden, visible) = look(&target);
    assert_eq!(hidden, Vec::<String>::new());
    assert_eq!(visible.into_keys().collect::<Vec<_>>(), ["part-00000-of-00001", "part-two-00000-of-00001"]);
}

#[test]
fn a_commit_is_known_again_by_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(&dir);
    let place = Place::new(local(), target.clone());
    let job = RunId::new();
    let _lock = place.begin(job).unwrap();
    let pieces =
        [write_piece(&place, job, 0, "s1", A).unwrap(), write_piece(&place, job, 0, "s2", B).unwrap()];
    let committed = place.commit(job, &pieces, b"").unwrap();
    assert_eq!(place.commit(job, &pieces, b"").unwrap(), committed);
    std::fs::write(dir.path().join("out/part-00001-of-00002"), "other").unwrap();
    let error = place.commit(job, &pieces, b"").unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Output, "TB0443"));
}

#[test]
fn an_attempt_in_another_process_goes_on_with_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(&dir);
    let sink = || Sink::new(Place::new(local(), target.clone()));
    let (job, place) = (RunId::new(), Place::new(local(), target.clone()));
    // The engine lost a worker, and begins again on another one while the first still has the lock.
    let (first, second, client) = (sink(), sink(), sink());
    first.begin(job).unwrap();
    let one = write_piece(&place, job, 0, "s1", A).unwrap();
    second.begin(job).unwrap();
    let two = write_piece(&place, job, 0, "s2", B).unwrap();
    let committed = second.commit(job, &[one, two], b"").unwrap();
    assert_eq!(committed.records, 2);
    assert_eq!(
        look(&target),
        (vec![], output(&target, &[A, B])),
        "not even the lock of the other process is left"
    );

    // And once more from the start, after it committed: written anew, to the same names.
    first.begin(job).unwrap();
    let path = place.temp_path(job, "s3");
    let file = place.create(job, &path).unwrap();
    let mut encoder = Encoder::new(file, Compression::None).unwrap();
    encoder.write_all(C.as_bytes()).unwrap();
    let bytes = encoder.finish().unwrap();
    let piece = Piece { name: "s3".into(), shard: 0, records: 1, bytes, header: Vec::new() };
    second.begin(job).unwrap();
    second.commit(job, &[piece], b"").unwrap();
    assert_eq!(look(&target), (vec![], output(&target, &[C])));

    // A job that fails on an engine is cleared away by its client, which never began it.
    let failing = RunId::new();
    first.begin(failing).unwrap();
    write_piece(&place, failing, 0, "s1", A).unwrap();
    client.close(RunId::new());
    assert_eq!(look(&target).0.len(), 2, "that was another job");
    client.close(failing);
    assert_eq!(look(&target), (vec![], output(&target, &[C])));
}

#[test]
fn a_lost_piece_is_noticed_before_anything_is_renamed() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(&dir);
    run(local(), &target, &["old\n"]).unwrap();
    let place = Place::new(local(), target.clone());
    let job = RunId::new();
    let _lock = place.begin(job).unwrap();
    let pieces =
        [write_piece(&place, job, 0, "s1", A).unwrap(), write_piece(&place, job, 0, "s2", B).unwrap()];
    std::fs::write(place.temp_path(job, "s2"), "cut").unwrap();
    assert_eq!(place.commit(job, &pieces, b"").unwrap_err().code(), "TB0443");
    assert_eq!(look(&target).1, output(&target, &["old\n"]));
    place.abandon(job).unwrap();
}

#[test]
fn hostile_manifests_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(&dir);
    let place = Place::new(local(), target.clone());
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    for (text, why) in [
        ("", "cannot be read: EOF"),
        (r#"{"version":2,"files":[],"remove":[]}"#, "has version 2, wanted 1"),
        (
            r#"{"version":1,"files":[{"temp":"../../victim","name":"part-00000-of-00001","bytes":1}],"remove":[]}"#,
            "names `../../victim`",
        ),
        (
            r#"{"version":1,"files":[{"temp":"x","name":"../victim","bytes":1}],"remove":[]}"#,
            "names `../victim`",
        ),
        (r#"{"version":1,"files":[],"remove":["../victim"]}"#, "names `../victim`, which is not of output"),
    ] {
        let left = format!("{}/out/.tiebeam-part-0123456789abcdef", dir.path().display());
        std::fs::create_dir_all(&left).unwrap();
        std::fs::write(format!("{left}/commit"), text).unwrap();
        let Err(error) = place.begin(RunId::new()) else { panic!("{text} was taken") };
        assert_eq!((error.kind(), error.code()), (ErrorKind::Output, "TB0442"));
        assert!(error.message().contains(why), "{error}");
        assert!(victim.exists());
    }
}

#[test]
fn an_output_that_cannot_be_written_is_told_beforehand() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let target = Target::new(&format!("{}/file/out/part", dir.path().display())).unwrap();
    let place = Place::new(local(), target);
    let path = dir.path().display();
    let error = place.check().unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Output, "TB0440"));
    assert_eq!(
        error.message(),
        format!("cannot write to directory `{path}/file/out`: `{path}/file` is a file")
    );
    assert_eq!(place.begin(RunId::new()).err().map(|e| e.kind()), Some(ErrorKind::Output));
}
