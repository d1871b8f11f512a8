//! The machine's own files.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use tiebeam_core::Timestamp;

use super::glob::{Segment, is_pattern, segments};
use super::{FileMetadata, FileSystem, Lock, OWN_PREFIX, WriteFile, join};

/// The local file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Local;

impl FileSystem for Local {
    fn list(&self, pattern: &str) -> io::Result<Vec<FileMetadata>> {
        match fs::metadata(pattern) {
            Ok(found) if found.is_file() => return Ok(vec![metadata(pattern.to_owned(), &found)]),
            Ok(found) if found.is_dir() && !is_pattern(pattern) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is a directory, not a file; `/*` behind it matches the files in it",
                ));
            }
            // A device or a pipe: read as a file of unknown size would be empty, so say so.
            Ok(found) if !found.is_dir() => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
            }
            _ => {}
        }
        let mut found = Vec::new();
        let base = if pattern.starts_with('/') { "/" } else { "" };
        if is_pattern(pattern) {
            walk(base, &segments(pattern), &mut found)?;
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.dedup();
        Ok(found)
    }

    fn names(&self, dir: &str) -> io::Result<Vec<String>> {
        Ok(read_dir(dir)?.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        match fs::metadata(path) {
            Ok(found) => Ok(Some(found.len())),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn open(&self, path: &str, start: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory, not a file"));
        }
        if start > 0 {
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(Box::new(file))
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(LocalFile(File::create(path)?)))
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        if dir.is_empty() { Ok(()) } else { fs::create_dir_all(dir) }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn delete(&self, path: &str) -> io::Result<()> {
        absent_is_fine(fs::remove_file(path))
    }

    fn delete_dir(&self, dir: &str) -> io::Result<()> {
        absent_is_fine(fs::remove_dir(dir))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(or_here(dir))?.sync_all()
    }

    fn try_lock(&self, path: &str, owner: &str) -> io::Result<Option<Box<dyn Lock>>> {
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(e),
            }
            // The holder before us may have removed the file between our open and our lock: then the lock is of a
            // file that nobody else will find.
            if same_file(&file, path)? {
                file.set_len(0)?;
                (&file).write_all(owner.as_bytes())?;
                return Ok(Some(Box::new(LocalLock { file, path: path.to_owned() })));
            }
        }
    }

    fn check_writable(&self, dir: &str) -> io::Result<()> {
        let mut dir = Path::new(or_here(dir));
        while !absent_is_no(fs::exists(dir))? {
            dir = match dir.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
        }
        if !fs::metadata(dir)?.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                format!("`{}` is a file", dir.display()),
            ));
        }
        let probe = dir.join(format!("{OWN_PREFIX}probe-{}", std::process::id()));
        File::create(&probe)?;
        fs::remove_file(&probe)
    }
}

struct LocalFile(File);

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl WriteFile for LocalFile {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.0.sync_all()
    }
}

struct LocalLock {
    file: File,
    path: String,
}

impl Lock for LocalLock {
    fn remove(self: Box<Self>) -> io::Result<()> {
        // Only while the path is still this file: another may have taken its place.
        if same_file(&self.file, &self.path)? { absent_is_fine(fs::remove_file(&self.path)) } else { Ok(()) }
    }
}

#[cfg(unix)]
fn same_file(file: &File, path: &str) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((own.dev(), own.ino()) == (there.dev(), there.ino())),
        Err(e) if is_absent(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(not(unix))]
fn same_file(_: &File, path: &str) -> io::Result<bool> {
    fs::exists(path)
}

fn walk(dir: &str, pattern: &[Segment], found: &mut Vec<FileMetadata>) -> io::Result<()> {
    let Some((segment, rest)) = pattern.split_first() else { return Ok(()) };
    match segment {
        Segment::Literal(name) => visit(join(dir, name), rest, found),
        Segment::Wild(_) => {
            let mut look = |entry: &fs::DirEntry| {
                let shown = entry.file_name().to_string_lossy().into_owned();
                if !shown.starts_with(OWN_PREFIX) && segment.matches(&shown) {
                    visit(join(dir, &name(entry)?), rest, found)?;
                }
                Ok(())
            };
            // A million files are looked at one by one. Of directories a list is made first, so that those above are not
            // open while one is walked through.
            if rest.is_empty() {
                return entries(dir)?.into_iter().flatten().try_for_each(|entry| look(&entry?));
            }
            read_dir(dir)?.iter().try_for_each(look)
        }
        Segment::Deep => {
            // `**` at the end means every file below.
            let rest = if rest.is_empty() { &[Segment::Wild(vec![super::glob::Token::Any])] } else { rest };
            walk(dir, rest, found)?;
            for entry in read_dir(dir)? {
                // Not through links, which may go round in circles.
                if !entry.file_type()?.is_dir() {
                    continue;
                }
                let name = name(&entry)?;
                if !name.starts_with(OWN_PREFIX) {
                    walk(&join(dir, &name), pattern, found)?;
                }
            }
            Ok(())
        }
    }
}

fn visit(path: String, rest: &[Segment], found: &mut Vec<FileMetadata>) -> io::Result<()> {
    let there = match fs::metadata(&path) {
        Ok(there) => there,
        Err(e) if is_absent(&e) => return Ok(()),
        Err(e) => return Err(e),
    };
    if rest.is_empty() {
        if there.is_file() {
            found.push(metadata(path, &there));
        }
        return Ok(());
    }
    if there.is_dir() { walk(&path, rest, found) } else { Ok(()) }
}

fn read_dir(dir: &str) -> io::Result<Vec<fs::DirEntry>> {
    entries(dir)?.into_iter().flatten().collect()
}

/// What is in a directory, if there is one.
fn entries(dir: &str) -> io::Result<Option<fs::ReadDir>> {
    match fs::read_dir(or_here(dir)) {
        Ok(entries) => Ok(Some(entries)),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn name(entry: &fs::DirEntry) -> io::Result<String> {
    entry.file_name().into_string().map_err(|name| {
        io::Error::new(io::ErrorKind::InvalidData, format!("the file name {name:?} in it is not UTF-8"))
    })
}

fn metadata(path: String, found: &fs::Metadata) -> FileMetadata {
    let modified = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified = modified.map_or(Timestamp::MIN, |since| Timestamp::from_secs(0).plus(since));
    FileMetadata { path, size: found.len(), modified }
}

fn or_here(dir: &str) -> &str {
    if dir.is_empty() { "." } else { dir }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn absent_is_no(result: io::Result<bool>) -> io::Result<bool> {
    match result {
        Err(e) if is_absent(&e) => Ok(false),
        other => other,
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let root = dir.path().to_str().unwrap().to_owned();
        (dir, root)
    }

    fn listed(root: &str, pattern: &str) -> Vec<String> {
        let found = Local.list(&format!("{root}/{pattern}")).unwrap();
        found.iter().map(|f| f.path.strip_prefix(&format!("{root}/")).unwrap().to_owned()).collect()
    }

    #[test]
    fn patterns_list_sorted_files() {
        let (_dir, root) = tree(&[
            "b.csv",
            "a.csv",
            "a.txt",
            ".dot.csv",
            "x/a.csv",
            "x/y/a.csv",
            "x/y/z/b.csv",
            ".tiebeam-out-1/a.csv",
            ".tiebeam-out.lock",
            "x/.tiebeam-out-1/shard.csv",
            "odd[1].csv",
        ]);
        assert_eq!(listed(&root, "*.csv"), [".dot.csv", "a.csv", "b.csv", "odd[1].csv"]);
        assert_eq!(listed(&root, "*/a.csv"), ["x/a.csv"]);
        assert_eq!(listed(&root, "**/a.csv"), ["a.csv", "x/a.csv", "x/y/a.csv"]);
        assert_eq!(listed(&root, "x/**"), ["x/a.csv", "x/y/a.csv", "x/y/z/b.csv"]);
        assert_eq!(listed(&root, "**/y/**/b.csv"), ["x/y/z/b.csv"]);
        assert_eq!(listed(&root, "a.csv"), ["a.csv"]);
        assert_eq!(
            listed(&root, "odd[1].csv"),
            ["odd[1].csv"],
            "a file's own name wins over the pattern it is"
        );
        assert_eq!(listed(&root, "[ab].csv"), ["a.csv", "b.csv"]);
        assert_eq!(listed(&root, ".tieb*"), Vec::<String>::new());
        assert_eq!(listed(&root, "a.csv/*"), Vec::<String>::new(), "a file is no directory");
        assert_eq!(listed(&root, "no/such/*"), Vec::<String>::new());
        assert_eq!(Local.list(&root).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let a = &Local.list(&format!("{root}/a.csv")).unwrap()[0];
        assert_eq!(a.size, 5);
        assert!(a.modified > Timestamp::from_secs(1_600_000_000));
    }

    #[cfg(unix)]
    #[test]
    fn links_in_circles_end() {
        let (dir, root) = tree(&["x/a.csv"]);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("x/up")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("x/dead.csv")).unwrap();
        assert_eq!(listed(&root, "**/*.csv"), ["x/a.csv"]);
        assert_eq!(listed(&root, "x/*/x/a.csv"), ["x/up/x/a.csv"], "but a name that is given is followed");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_refused() {
        let error = Local.list("/dev/null").unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file");
    }

    #[test]
    fn a_lock_has_one_holder_and_leaves_nothing() {
        let (_dir, root) = tree(&[]);
        let path = format!("{root}/.tiebeam-x.lock");
        let held = Local.try_lock(&path, "me").unwrap().unwrap();
        assert!(Local.try_lock(&path, "me").unwrap().is_none());
        drop(held);
        let held = Local.try_lock(&path, "me").unwrap().expect("dropped, as in a killed process");
        held.remove().unwrap();
        assert!(!fs::exists(&path).unwrap());
        let held = Local.try_lock(&path, "me").unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        let other = Local.try_lock(&path, "me").unwrap().expect("a new file is a new lock");
        held.remove().unwrap();
        assert!(fs::exists(&path).unwrap(), "the old holder does not remove the new one's file");
        other.remove().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn names_that_are_no_text_matter_only_where_they_match() {
        use std::os::unix::ffi::OsStrExt;
        let (dir, root) = tree(&["a.csv"]);
        fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"b\xff.txt")), "").unwrap();
        assert_eq!(listed(&root, "*.csv"), ["a.csv"]);
        assert_eq!(Local.names(&root).unwrap(), ["a.csv"]);
        let error = Local.list(&format!("{root}/*.txt")).unwrap_err();
        assert_eq!(error.to_string(), "the file name \"b\\xFF.txt\" in it is not UTF-8");
    }

    #[test]
    fn writability_is_told_without_a_trace() {
        let (_dir, root) = tree(&["file"]);
        Local.check_writable(&root).unwrap();
        Local.check_writable(&format!("{root}/new/dirs")).unwrap();
        assert_eq!(Local.names(&root).unwrap(), ["file"]);
        let error = Local.check_writable(&format!("{root}/file/below")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }
}
