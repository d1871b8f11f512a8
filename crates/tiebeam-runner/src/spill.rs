//! Files for what does not fit in memory, and for what must outlive the process.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tiebeam_core::{Error, ErrorKind, Result};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 256 << 10;

/// A file that many write to, each in a part of its own.
pub(crate) struct SpillFile {
    place: Place,
    dir: PathBuf,
    end: AtomicU64,
}

enum Place {
    /// Without a name: it is gone with its last user, also when that is killed.
    Nameless(File),
    /// With a name, opened when it is needed: there may be more of them than a process may have open.
    Named { path: PathBuf, writing: Mutex<Option<File>> },
}

/// A part of a file.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) file: Arc<SpillFile>,
    pub(crate) at: u64,
    pub(crate) len: u64,
}

impl SpillFile {
    /// A new file without a name.
    pub(crate) fn nameless(dir: &Path) -> Result<Arc<Self>> {
        let file = tempfile::tempfile_in(dir).map_err(|e| failed("create a file", dir, e))?;
        Ok(Arc::new(SpillFile { place: Place::Nameless(file), dir: dir.to_owned(), end: AtomicU64::new(0) }))
    }

    /// A new file of that name, in place of what an earlier attempt left there.
    pub(crate) fn create(path: PathBuf) -> Result<Arc<Self>> {
        let dir = path.parent().unwrap_or(Path::new(".")).to_owned();
        let file = File::create(&path).map_err(|e| failed("create a file", &dir, e))?;
        let place = Place::Named { path, writing: Mutex::new(Some(file)) };
        Ok(Arc::new(SpillFile { place, dir, end: AtomicU64::new(0) }))
    }

    /// A finished file of that name. It is looked for when it is read.
    pub(crate) fn existing(path: PathBuf) -> Arc<Self> {
        let dir = path.parent().unwrap_or(Path::new(".")).to_owned();
        let place = Place::Named { path, writing: Mutex::new(None) };
        Arc::new(SpillFile { place, dir, end: AtomicU64::new(0) })
    }

    /// A part of the file for the caller alone.
    pub(crate) fn reserve(&self, bytes: u64) -> u64 {
        self.end.fetch_add(bytes, Ordering::Relaxed)
    }

    /// Begins anew; only for a file without a name that nobody else uses.
    pub(crate) fn clear(&self) -> Result<()> {
        match &self.place {
            Place::Nameless(file) if self.end.swap(0, Ordering::Relaxed) > 0 => {
                file.set_len(0).map_err(|e| failed("empty a file", &self.dir, e))
            }
            _ => Ok(()),
        }
    }

    /// Writes at that place.
    pub(crate) fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let written = match &self.place {
            Place::Nameless(file) => write_all_at(file, bytes, at),
            Place::Named { path, writing } => {
                match &*writing.lock().unwrap_or_else(PoisonError::into_inner) {
                    Some(file) => write_all_at(file, bytes, at),
                    None => {
                        File::options().write(true).open(path).and_then(|file| write_all_at(&file, bytes, at))
                    }
                }
            }
        };
        written.map_err(|e| failed("write", &self.dir, e))
    }

    /// Reads what is there, which must be all that is asked for.
    pub(crate) fn read_at(&self, at: u64, into: &mut [u8]) -> Result<()> {
        let read = match &self.place {
            Place::Nameless(file) => read_exact_at(file, into, at),
            Place::Named { path, .. } => File::open(path).and_then(|file| read_exact_at(&file, into, at)),
        };
        read.map_err(|e| failed("read back", &self.dir, e))
    }

    /// Ends the writing of a named file: its bytes are on stable storage, and it is no longer open.
    pub(crate) fn finish(&self) -> Result<()> {
        if let Place::Named { writing, .. } = &self.place
            && let Some(file) = writing.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            file.sync_all().map_err(|e| failed("write", &self.dir, e))?;
        }
        Ok(())
    }

    /// Removes a named file with its last user.
    pub(crate) fn discard(file: Arc<Self>) {
        if let Some(SpillFile { place: Place::Named { path, .. }, .. }) = Arc::into_inner(file) {
            // What is left is removed with its folder.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Segment {
    /// All of it.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.len).map_err(Error::internal)?];
        self.file.read_at(self.at, &mut bytes)?;
        Ok(bytes)
    }
}

/// Writes one part of a file from its beginning.
pub(crate) struct SegmentWriter {
    file: Arc<SpillFile>,
    start: u64,
    written: u64,
    /// The bytes that were reserved; none where nobody else writes to the file.
    most: Option<u64>,
    buffer: Vec<u8>,
}

impl SegmentWriter {
    /// A part of `most` bytes at most.
    pub(crate) fn new(file: Arc<SpillFile>, most: u64) -> Self {
        let start = file.reserve(most);
        SegmentWriter { file, start, written: 0, most: Some(most), buffer: Vec::new() }
    }

    /// A part of any size, of a file that nobody else writes to meanwhile.
    pub(crate) fn alone(file: Arc<SpillFile>) -> Self {
        let start = file.reserve(0);
        SegmentWriter { file, start, written: 0, most: None, buffer: Vec::new() }
    }

    /// Where to append; [`settle`](SegmentWriter::settle) is called after each record.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Writes what was gathered if it is much.
    pub(crate) fn settle(&mut self) -> Result<()> {
        if self.buffer.len() < BUFFER { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<()> {
        let bytes = self.buffer.len() as u64;
        if self.most.is_some_and(|most| self.written + bytes > most) {
            return Err(Error::internal("a part of a spill file is longer than was reserved"));
        }
        self.file.write_at(self.start + self.written, &self.buffer)?;
        self.written += bytes;
        self.buffer.clear();
        Ok(())
    }

    /// The part, with everything written.
    pub(crate) fn finish(mut self) -> Result<Segment> {
        if !self.buffer.is_empty() {
            self.flush()?;
        }
        if self.most.is_none() {
            self.file.reserve(self.written);
        }
        Ok(Segment { file: self.file, at: self.start, len: self.written })
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(unix)]
fn read_exact_at(file: &File, into: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, at)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_write(file, bytes, at)?;
        (bytes, at) = (&bytes[n..], at + n as u64);
    }
    Ok(())
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
    while !into.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, into, at)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (into, at) = (&mut into[n..], at + n as u64);
    }
    Ok(())
}

/// The error of a place for spilled data that fails.
pub(crate) fn failed(action: &str, dir: &Path, error: io::Error) -> Error {
    let shown = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    Error::new(
        ErrorKind::Output,
        "TB0570",
        format!("cannot {action} for spilled data in `{}`: {error}", shown.display()),
    )
    .with_help("give `--state-dir` a folder on a disk with room, or a larger `--memory-limit`")
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_back_wherever_they_lie() {
        let dir = tempfile::tempdir().unwrap();
        let named = SpillFile::create(dir.path().join("x")).unwrap();
        for file in [SpillFile::nameless(dir.path()).unwrap(), named.clone()] {
            let mut first = SegmentWriter::new(file.clone(), 1 << 20);
            let mut second = SegmentWriter::new(file.clone(), 10);
            for i in 0..50_000u64 {
                first.buffer().extend_from_slice(&i.to_le_bytes());
                first.settle().unwrap();
            }
            second.buffer().extend_from_slice(b"second");
            let (first, second) = (first.finish().unwrap(), second.finish().unwrap());
            assert_eq!((first.at, first.len, second.at, second.len), (0, 400_000, 1 << 20, 6));
            assert_eq!(second.read().unwrap(), b"second");
            let bytes = first.read().unwrap();
            assert!(bytes.chunks(8).zip(0u64..).all(|(chunk, i)| chunk == i.to_le_bytes()));
            let beyond = Segment { at: first.at, len: 2 << 20, file: file.clone() };
            let error = beyond.read().unwrap_err();
            assert_eq!((error.code(), error.kind()), ("TB0570", ErrorKind::Output));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the other has no name");
        named.finish().unwrap();
        let again = SpillFile::existing(dir.path().join("x"));
        let mut bytes = [0; 6];
        again.read_at(1 << 20, &mut bytes).unwrap();
        assert_eq!(&bytes, b"second");
        SpillFile::discard(again.clone());
        assert!(dir.path().join("x").exists(), "another user has it");
        SpillFile::discard(again);
        assert!(!dir.path().join("x").exists());
    }

    #[test]
    fn a_part_does_not_grow_over_its_neighbour() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::new(SpillFile::nameless(dir.path()).unwrap(), 3);
        writer.buffer().extend_from_slice(b"four");
        assert_eq!(writer.finish().err().unwrap().kind(), ErrorKind::Internal);
        let error = SpillFile::nameless(&dir.path().join("none")).err().unwrap();
        assert!(error.message().starts_with("cannot create a file for spilled data in"), "{error}");
    }
}
