//! The life of one output, as plain steps over a [`FileSystem`]: claim, write, commit; finish or clear away what a
//! killed run left.
//!
//! On disk, beside the output `out`:
//! - `.tiebeam-out.lock`: held while a job writes this output, with the job's id in it. The operating system gives it up with
//!   the process. Other processes of the same run, and later attempts, go on without it: they find their own id.
//! - `.tiebeam-out-<id>/`: the temporary files of one job, and `commit`, its manifest, once all of them are complete.
//!
//! A directory without a manifest means nothing was promised: it is cleared away. One with a manifest means that the
//! new output is whole and only its names are missing: it is finished, as often as need be.

use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tiebeam_core::{Error, ErrorKind, Result, RunId};

use super::Target;
use crate::compression::{Counted, Encoder};
use crate::fs::{FileSystem, Lock, OWN_PREFIX, WriteFile, failed_writing, join};

const MANIFEST: &str = "commit";
const MANIFEST_DRAFT: &str = "commit.draft";
const VERSION: u32 = 1;

/// One complete temporary file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its name in the job's directory. Pieces of a shard are put together in the order of their names.
    pub name: String,
    /// The shard that it belongs to, where their number was given.
    pub shard: usize,
    /// The number of records in it.
    pub records: u64,
    /// The number of bytes in it, compressed.
    pub bytes: u64,
    /// What the format puts at the head of each file, where a record told; it is part of the piece already unless the
    /// number of shards was given.
    pub header: Vec<u8>,
}

/// What a commit made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The paths of the files, in order.
    pub files: Vec<String>,
    /// The number of records in them.
    pub records: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    files: Vec<Naming>,
    /// Names of the older output that goes away.
    remove: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Naming {
    temp: String,
    name: String,
    bytes: u64,
}

/// One output on its file system.
#[derive(Debug, Clone)]
pub struct Place {
    fs: Arc<dyn FileSystem>,
    target: Target,
}

impl Place {
    /// An output at `target`.
    pub fn new(fs: Arc<dyn FileSystem>, target: Target) -> Self {
        Place { fs, target }
    }

    /// The target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether the output could be written now: the directory can be made and written to, and no other job is at it.
    /// Leaves nothing behind.
    ///
    /// # Errors
    /// `Output`, with the path and the reason.
    pub fn check(&self) -> Result<()> {
        let dir = &self.target.dir;
        self.fs.check_writable(dir).map_err(|e| {
            let shown = if dir.is_empty() { "." } else { dir };
            Error::new(ErrorKind::Output, "TB0440", format!("cannot write to directory `{shown}`: {e}"))
                .with_source(e)
        })?;
        // Only look at a lock that is there: making one here would leave a file.
        let lock = self.lock_path();
        if self.fs.size(&lock).map_err(|e| failed_writing("look at", &lock, e))?.is_some() {
            self.claim(None)?;
        }
        Ok(())
    }

    /// Claims the output for a job and makes the directory for its temporary files; first finishes or clears away what
    /// killed runs left. Gives no lock when another process of the same job has it. Doing it again keeps what the job has
    /// written so far.
    ///
    /// # Errors
    /// `Output` when another job has the output, or it can't be written.
    pub fn begin(&self, id: RunId) -> Result<Option<Box<dyn Lock>>> {
        let dir = &self.target.dir;
        self.fs.create_dir(dir).map_err(|e| failed_writing("create directory", dir, e))?;
        let lock = self.claim(Some(id))?;
        if lock.is_some() {
            // Whatever is there is dead: its job would hold the lock.
            let left = self.fs.names(dir).map_err(|e| failed_writing("look into", dir, e))?;
            for job in left.iter().filter_map(|name| self.job_of(name)) {
                match self.manifest(job)? {
                    Some(manifest) => self.finish(job, &manifest)?,
                    None if job == id => {}
                    None => self.clear(job)?,
                }
            }
        }
        self.create_job_dir(id)?;
        Ok(lock)
    }

    fn create_job_dir(&self, id: RunId) -> Result<()> {
        let job_dir = self.job_dir(id);
        self.fs.create_dir(&job_dir).map_err(|e| failed_writing("create directory", &job_dir, e))
    }

    /// The lock; none when another process has it for the same job.
    fn claim(&self, id: Option<RunId>) -> Result<Option<Box<dyn Lock>>> {
        let path = self.lock_path();
        let owner = id.map(|id| id.to_string()).unwrap_or_default();
        if let Some(lock) = self.fs.try_lock(&path, &owner).map_err(|e| failed_writing("lock", &path, e))? {
            return Ok(Some(lock));
        }
        if id.is_some() && self.owner()? == id {
            return Ok(None);
        }
        Err(Error::new(
            ErrorKind::Output,
            "TB0441",
            format!("output `{}` is being written by another job", self.target.path()),
        )
        .with_help("wait for that job, or write to another path"))
    }

    /// The job whose id is in the lock's file.
    fn owner(&self) -> Result<Option<RunId>> {
        let path = self.lock_path();
        let read = |e| failed_writing("read", &path, e);
        if self.fs.size(&path).map_err(read)?.is_none() {
            return Ok(None);
        }
        let mut text = String::new();
        let file = self.fs.open(&path, 0).map_err(read)?;
        file.take(64).read_to_string(&mut text).map_err(read)?;
        Ok(RunId::parse(&text))
    }

    /// Removes the lock of a job whose output is complete or given up, where another process of the job has it.
    ///
    /// # Errors
    /// What the file system says; the lock does no harm once its process is gone.
    pub fn release(&self, id: RunId) -> io::Result<()> {
        if self.owner().is_ok_and(|owner| owner == Some(id)) {
            self.fs.delete(&self.lock_path())?;
        }
        Ok(())
    }

    /// Makes a temporary file of a job, and its directory if an earlier attempt at the job has committed and removed it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(&self, id: RunId, path: &str) -> Result<Box<dyn WriteFile>> {
        let failed = |e| failed_writing("write", path, e);
        match self.fs.create(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.create_job_dir(id)?;
                self.fs.create(path).map_err(failed)
            }
            created => created.map_err(failed),
        }
    }

    /// Whether a job that was begun can go on writing: it didn't start to commit. Makes its directory anew if it is gone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn is_open(&self, id: RunId) -> Result<bool> {
        if self.manifest(id)?.is_some() {
            return Ok(false);
        }
        self.create_job_dir(id)?;
        Ok(true)
    }

    /// Where a temporary file of a job is.
    pub fn temp_path(&self, id: RunId, name: &str) -> String {
        join(&self.job_dir(id), name)
    }

    /// The file system.
    pub fn fs(&self) -> &dyn FileSystem {
        &*self.fs
    }

    /// The file system, to be kept.
    pub fn shared_fs(&self) -> Arc<dyn FileSystem> {
        self.fs.clone()
    }

    /// Gives the pieces their final names, all or none, and removes the older output. Doing it again does nothing.
    ///
    /// # Errors
    /// What the file system says; the output is then as it was before, or the next commit of this job, or the next run,
    /// finishes it.
    pub fn commit(&self, id: RunId, pieces: &[Piece], header: &[u8]) -> Result<Committed> {
        let records = pieces.iter().map(|piece| piece.records).sum();
        let manifest = match self.manifest(id)? {
            Some(manifest) => manifest,
            None => {
                let job_dir = self.job_dir(id);
                let names = self.fs.names(&job_dir).map_err(|e| failed_writing("look into", &job_dir, e))?;
                if let Some(done) = self.already_done(&names, pieces)? {
                    // A run that went on has made the directory anew.
                    self.clear(id)?;
                    return Ok(Committed { files: done, records });
                }
                let shards = self.shards(id, pieces, header)?;
                self.write_manifest(id, shards)?
            }
        };
        self.finish(id, &manifest)?;
        let files = manifest.files.iter().map(|file| join(&self.target.dir, &file.name)).collect();
        Ok(Committed { files, records })
    }

    /// Removes what a failed job wrote and leaves the older output as it is. A job that began to commit is left to the
    /// next run, which finishes it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn abandon(&self, id: RunId) -> Result<()> {
        if self.manifest(id)?.is_none() { self.clear(id) } else { Ok(()) }
    }

    /// The final names, when a commit of these pieces went through before: no piece is left and all files are there.
    fn already_done(&self, names: &[String], pieces: &[Piece]) -> Result<Option<Vec<String>>> {
        if pieces.is_empty() || pieces.iter().any(|piece| names.contains(&piece.name)) {
            return Ok(None);
        }
        let sizes: Vec<Option<u64>> = match self.target.num_shards {
            None => joined(pieces, self.target.join_below)
                .iter()
                .map(|parts| if let [only] = parts.as_slice() { Some(only.bytes) } else { None })
                .collect(),
            Some(count) => vec![None; count],
        };
        let count = sizes.len();
        let mut files = Vec::with_capacity(count);
        for (i, wanted) in sizes.into_iter().enumerate() {
            let path = join(&self.target.dir, &self.target.shard_name(i, count));
            let there = self.fs.size(&path).map_err(|e| failed_writing("look at", &path, e))?;
            if there.is_none() || (wanted.is_some() && there != wanted) {
                return Err(self.lost(&pieces[0].name));
            }
            files.push(path);
        }
        Ok(Some(files))
    }

    /// The temporary file of each shard, in order; makes those that are put together and those that are empty.
    fn shards(&self, id: RunId, pieces: &[Piece], header: &[u8]) -> Result<Vec<(String, u64)>> {
        self.create_job_dir(id)?;
        let sorted = sorted(pieces);
        let Some(count) = self.target.num_shards else {
            if pieces.is_empty() {
                return Ok(vec![self.assemble(id, "empty", &[], header)?]);
            }
            let files = joined(pieces, self.target.join_below).into_iter().enumerate();
            return files
                .map(|(i, parts)| match parts.as_slice() {
                    [only] => Ok((only.name.clone(), only.bytes)),
                    parts => self.join_small(id, &format!("joined-{i:05}"), parts, header),
                })
                .collect();
        };
        let header =
            sorted.iter().map(|piece| &*piece.header).find(|header| !header.is_empty()).unwrap_or(header);
        if sorted.iter().any(|piece| !piece.header.is_empty() && piece.header != header) {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "TB0444",
                format!("the records of output `{}` have different columns", self.target.path()),
            )
            .with_help("give all records the same schema, or leave the number of shards open"));
        }
        let mut shards = Vec::with_capacity(count);
        for i in 0..count {
            let parts: Vec<&Piece> = sorted.iter().copied().filter(|piece| piece.shard == i).collect();
            shards.push(match parts.as_slice() {
                [only] if header.is_empty() => (only.name.clone(), only.bytes),
                parts => self.assemble(id, &format!("whole-{i:05}"), parts, header)?,
            });
        }
        Ok(shards)
    }

    /// One file of a header and some pieces. Compressed ones may be put in a row as they are: both formats allow it.
    fn assemble(&self, id: RunId, name: &str, pieces: &[&Piece], header: &[u8]) -> Result<(String, u64)> {
        #[cfg(feature = "tables")]
        if self.target.joining == super::Joining::Parquet && !pieces.is_empty() {
            return self.join_parquet(id, name, pieces);
        }
        let path = self.temp_path(id, name);
        let failed = |e| failed_writing("write", &path, e);
        let mut whole = Counted::new(self.fs.create(&path).map_err(failed)?);
        // A compressed file without anything in it must still be a valid one.
        if !header.is_empty() || pieces.is_empty() {
            let mut encoder = Encoder::over(whole, self.target.compression).map_err(failed)?;
            encoder.write_all(header).map_err(failed)?;
            whole = encoder.into_file().map_err(failed)?;
        }
        let mut chunk = vec![0; 1 << 20];
        for piece in pieces {
            let from = self.temp_path(id, &piece.name);
            let mut reader = self.fs.open(&from, 0).map_err(|e| failed_writing("read back", &from, e))?;
            let mut copied = 0;
            loop {
                let n = reader.read(&mut chunk).map_err(|e| failed_writing("read back", &from, e))?;
                if n == 0 {
                    break;
                }
                whole.write_all(&chunk[..n]).map_err(failed)?;
                copied += n as u64;
            }
            if copied != piece.bytes {
                return Err(self.lost(&piece.name));
            }
        }
        let bytes = whole.finish().map_err(failed)?;
        Ok((name.to_owned(), bytes))
    }

    /// One file of several small pieces that each begin with the header: it is kept of the first alone.
    fn join_small(&self, id: RunId, name: &str, parts: &[&Piece], header: &[u8]) -> Result<(String, u64)> {
        #[cfg(feature = "tables")]
        if self.target.joining == super::Joining::Parquet {
            return self.join_parquet(id, name, parts);
        }
        let path = self.temp_path(id, name);
        let failed = |e| failed_writing("write", &path, e);
        let file = self.fs.create(&path).map_err(failed)?;
        let mut whole = Encoder::new(file, self.target.compression).map_err(failed)?;
        let mut text = Vec::new();
        for (i, piece) in parts.iter().enumerate() {
            let from = self.temp_path(id, &piece.name);
            let read = |e| failed_writing("read back", &from, e);
            if self.fs.size(&from).map_err(read)? != Some(piece.bytes) {
                return Err(self.lost(&piece.name));
            }
            text.clear();
            let inner = self.fs.open(&from, 0).map_err(read)?;
            self.target.compression.decode(inner).and_then(|mut r| r.read_to_end(&mut text)).map_err(read)?;
            let own = if piece.header.is_empty() { header } else { &piece.header };
            let skipped = if i > 0 && text.starts_with(own) { own.len() } else { 0 };
            whole.write_all(&text[skipped..]).map_err(failed)?;
        }
        let bytes = whole.finish().map_err(failed)?;
        Ok((name.to_owned(), bytes))
    }

    /// One Parquet file of several.
    #[cfg(feature = "tables")]
    fn join_parquet(&self, id: RunId, name: &str, parts: &[&Piece]) -> Result<(String, u64)> {
        let path = self.temp_path(id, name);
        let failed = |e| failed_writing("write", &path, e);
        let paths: Vec<(String, u64)> =
            parts.iter().map(|piece| (self.temp_path(id, &piece.name), piece.bytes)).collect();
        for ((from, bytes), piece) in paths.iter().zip(parts) {
            let size = self.fs.size(from).map_err(|e| failed_writing("read back", from, e))?;
            if size != Some(*bytes) {
                return Err(self.lost(&piece.name));
            }
        }
        let mut whole = Counted::new(self.fs.create(&path).map_err(failed)?);
        crate::parquet::join(&self.fs, &paths, &mut whole)?;
        let bytes = whole.finish().map_err(failed)?;
        Ok((name.to_owned(), bytes))
    }

    fn write_manifest(&self, id: RunId, shards: Vec<(String, u64)>) -> Result<Manifest> {
        let dir = &self.target.dir;
        let count = shards.len();
        let files: Vec<Naming> = shards
            .into_iter()
            .enumerate()
            .map(|(i, (temp, bytes))| Naming { temp, name: self.target.shard_name(i, count), bytes })
            .collect();
        let there = self.fs.names(dir).map_err(|e| failed_writing("look into", dir, e))?;
        let mut remove: Vec<String> = there
            .into_iter()
            .filter(|name| self.target.is_shard_name(name) && files.iter().all(|file| file.name != *name))
            .collect();
        remove.sort();
        for file in &files {
            let path = self.temp_path(id, &file.temp);
            if self.fs.size(&path).map_err(|e| failed_writing("look at", &path, e))? != Some(file.bytes) {
                return Err(self.lost(&file.temp));
            }
        }
        let manifest = Manifest { version: VERSION, files, remove };
        let job_dir = self.job_dir(id);
        let draft = self.temp_path(id, MANIFEST_DRAFT);
        let failed = |e| failed_writing("write", &draft, e);
        let text = serde_json::to_vec(&manifest).map_err(Error::internal)?;
        let mut file = self.fs.create(&draft).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.finish()).map_err(failed)?;
        self.fs.rename(&draft, &self.temp_path(id, MANIFEST)).map_err(failed)?;
        self.fs.sync_dir(&job_dir).map_err(failed)?;
        Ok(manifest)
    }

    /// The manifest of a job that began to commit.
    fn manifest(&self, id: RunId) -> Result<Option<Manifest>> {
        let path = self.temp_path(id, MANIFEST);
        let read = |e| failed_writing("read", &path, e);
        if self.fs.size(&path).map_err(read)?.is_none() {
            return Ok(None);
        }
        let mut text = Vec::new();
        self.fs.open(&path, 0).and_then(|mut file| file.read_to_end(&mut text)).map_err(read)?;
        let damaged = |why: String| {
            Error::new(ErrorKind::Output, "TB0442", format!("commit manifest `{path}` {why}")).with_help(
                format!(
                    "its files are a complete output without its names; look at them, then remove `{}`",
                    self.job_dir(id)
                ),
            )
        };
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|e| damaged(format!("cannot be read: {e}")))?;
        if manifest.version != VERSION {
            return Err(damaged(format!("has version {}, wanted {VERSION}", manifest.version)));
        }
        let temps = manifest.files.iter().map(|file| &file.temp);
        if let Some(name) =
            temps.chain(manifest.files.iter().map(|file| &file.name)).find(|name| name.contains('/'))
        {
            return Err(damaged(format!("names `{name}`, which is not a file's name")));
        }
        let names = manifest.files.iter().map(|file| &file.name).chain(&manifest.remove);
        if let Some(name) = names.into_iter().find(|name| !self.target.is_shard_name(name)) {
            return Err(damaged(format!("names `{name}`, which is not of output `{}`", self.target.path())));
        }
        Ok(Some(manifest))
    }

    /// Does what a manifest says, from wherever an earlier attempt stopped.
    fn finish(&self, id: RunId, manifest: &Manifest) -> Result<()> {
        let dir = &self.target.dir;
        for file in &manifest.files {
            let from = self.temp_path(id, &file.temp);
            let to = join(dir, &file.name);
            if self.fs.size(&from).map_err(|e| failed_writing("look at", &from, e))?.is_some() {
                self.fs.rename(&from, &to).map_err(|e| failed_writing("rename to", &to, e))?;
            } else if self.fs.size(&to).map_err(|e| failed_writing("look at", &to, e))? != Some(file.bytes) {
                return Err(self.lost(&file.temp));
            }
        }
        self.fs.sync_dir(dir).map_err(|e| failed_writing("sync", dir, e))?;
        for name in &manifest.remove {
            let path = join(dir, name);
            self.fs.delete(&path).map_err(|e| failed_writing("remove", &path, e))?;
        }
        if !manifest.remove.is_empty() {
            self.fs.sync_dir(dir).map_err(|e| failed_writing("sync", dir, e))?;
        }
        self.clear(id)
    }

    /// Removes a job's directory, its manifest last: what is stopped in the middle is found again as it was.
    fn clear(&self, id: RunId) -> Result<()> {
        let dir = self.job_dir(id);
        let failed = |e| failed_writing("remove", &dir, e);
        let mut names = self.fs.names(&dir).map_err(failed)?;
        names.sort_by_key(|name| name == MANIFEST);
        for name in names {
            self.fs.delete(&join(&dir, &name)).map_err(failed)?;
        }
        self.fs.delete_dir(&dir).map_err(failed)
    }

    fn lost(&self, temp: &str) -> Error {
        Error::new(
            ErrorKind::Output,
            "TB0443",
            format!("temporary file `{temp}` of output `{}` is gone or incomplete", self.target.path()),
        )
        .with_help("something else removed it; run the job again")
    }

    fn own_name(&self) -> String {
        format!("{OWN_PREFIX}{}{}", self.target.prefix, self.target.suffix)
    }

    pub(super) fn lock_path(&self) -> String {
        join(&self.target.dir, &format!("{}.lock", self.own_name()))
    }

    fn job_dir(&self, id: RunId) -> String {
        join(&self.target.dir, &format!("{}-{id}", self.own_name()))
    }

    /// The job whose directory has that name.
    fn job_of(&self, name: &str) -> Option<RunId> {
        RunId::parse(name.strip_prefix(&self.own_name())?.strip_prefix('-')?)
    }
}

fn sorted(pieces: &[Piece]) -> Vec<&Piece> {
    let mut sorted: Vec<&Piece> = pieces.iter().collect();
    sorted.sort_by(|a, b| (a.shard, &a.name).cmp(&(b.shard, &b.name)));
    sorted.dedup_by(|a, b| a.name == b.name);
    sorted
}

/// The pieces of each file, where the number of files is open: large ones alone, small ones of one header together.
fn joined(pieces: &[Piece], below: u64) -> Vec<Vec<&Piece>> {
    let (small, large): (Vec<&Piece>, Vec<&Piece>) =
        sorted(pieces).into_iter().partition(|p| p.bytes < below);
    let mut files: Vec<Vec<&Piece>> = large.into_iter().map(|piece| vec![piece]).collect();
    let mut open: Option<(Vec<&Piece>, u64)> = None;
    for piece in small {
        match &mut open {
            Some((parts, bytes)) if *bytes < below && parts[0].header == piece.header => {
                parts.push(piece);
                *bytes += piece.bytes;
            }
            _ => files.extend(open.replace((vec![piece], piece.bytes)).map(|(parts, _)| parts)),
        }
    }
    files.extend(open.map(|(parts, _)| parts));
    files
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
