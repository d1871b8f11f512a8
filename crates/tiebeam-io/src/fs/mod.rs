//! Where files are: one small trait, and the file system of a path.
//!
//! Paths are strings, as users write them. `file://` URLs and bare paths belong to the [`local`] file system; object
//! stores are other implementations of the same trait.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result, Timestamp};

pub mod glob;
pub mod local;
#[cfg(feature = "object-stores")]
pub mod stores;

/// What the names of all our own temporary files and directories begin with. No pattern ever matches them.
pub const OWN_PREFIX: &str = ".tiebeam-";

/// One file of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMetadata {
    /// The path, as it can be opened again.
    pub path: String,
    /// The number of bytes.
    pub size: u64,
    /// When it was last changed; [`Timestamp::MIN`] where the file system doesn't say.
    pub modified: Timestamp,
}

/// A file being written.
pub trait WriteFile: Write + Send {
    /// Ends the file: all bytes are on stable storage when it returns.
    ///
    /// # Errors
    /// What the file system says.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// An exclusive claim, given up when dropped (or when the process dies).
pub trait Lock: Send + Sync {
    /// Gives the claim up and removes its file.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(self: Box<Self>) -> io::Result<()>;
}

/// A place where files are. Paths are absolute or relative to the process's directory, with `/` between their parts.
///
/// Errors are plain [`io::Error`]s; callers add the path and what they were about to do with it.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// The files (no directories) that match a pattern as [`glob`] tells, sorted by path; none is no error. A pattern
    /// that is itself the path of a file matches that file.
    ///
    /// # Errors
    /// When a directory can't be read; `InvalidData` for a name that is not UTF-8; `InvalidInput` for a directory that is
    /// named without wildcards.
    fn list(&self, pattern: &str) -> io::Result<Vec<FileMetadata>>;

    /// The names of everything in a directory, in no order, ours included; empty when there is no such directory. Names that
    /// are not UTF-8 are left out.
    ///
    /// # Errors
    /// When it can't be read.
    fn names(&self, dir: &str) -> io::Result<Vec<String>>;

    /// The size of a file; none when there is no such file.
    ///
    /// # Errors
    /// When that can't be found out.
    fn size(&self, path: &str) -> io::Result<Option<u64>>;

    /// Reads a file from byte `start` to its end.
    ///
    /// # Errors
    /// When it can't be opened.
    fn open(&self, path: &str, start: u64) -> io::Result<Box<dyn Read + Send>>;

    /// Writes a file anew.
    ///
    /// # Errors
    /// When it can't be created.
    fn create(&self, path: &str) -> io::Result<Box<dyn WriteFile>>;

    /// Makes a directory and those above it, unless they are there.
    ///
    /// # Errors
    /// When it can't be made.
    fn create_dir(&self, dir: &str) -> io::Result<()>;

    /// Gives a file another name on the same file system, in place of what had that name, in one step.
    ///
    /// # Errors
    /// When it can't be renamed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; no error when there is none.
    ///
    /// # Errors
    /// When it can't be removed.
    fn delete(&self, path: &str) -> io::Result<()>;

    /// Removes an empty directory; no error when there is none.
    ///
    /// # Errors
    /// When it can't be removed.
    fn delete_dir(&self, dir: &str) -> io::Result<()>;

    /// Makes what was created, renamed and removed in a directory last through a power cut.
    ///
    /// # Errors
    /// What the file system says.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Claims a path for one holder, among all processes; none while another holds it. The holder's file says `owner`.
    ///
    /// # Errors
    /// When the lock's file can't be made.
    fn try_lock(&self, path: &str, owner: &str) -> io::Result<Option<Box<dyn Lock>>>;

    /// Whether a file could be made in `dir`, which need not exist yet. Leaves nothing behind.
    ///
    /// # Errors
    /// Why it could not.
    fn check_writable(&self, dir: &str) -> io::Result<()>;
}

/// The file system of a path or pattern, and the path as that file system wants it.
///
/// # Errors
/// `Unsupported` for a scheme that this build has no file system for.
pub fn of_path(path: &str) -> Result<(Arc<dyn FileSystem>, String)> {
    let Some((scheme, rest)) = path.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return Ok((Arc::new(local::Local), path.to_owned()));
    };
    #[cfg(feature = "object-stores")]
    if stores::is_known(scheme) {
        return Ok((stores::of_url(path)?, path.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("file") {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "TB0402",
            format!("no file system for `{scheme}://` in this build, wanted by `{path}`"),
        )
        .with_help(match cfg!(feature = "object-stores") {
            true => "use a local path, file://, gs://, s3://, az:// or https://",
            false => "use a local path or a file:// URL; the feature `object-stores` brings gs://, s3://, az:// and https://",
        }));
    }
    let local_path = match rest.strip_prefix("localhost/") {
        Some(_) => &rest["localhost".len()..],
        None => rest,
    };
    Ok((Arc::new(local::Local), percent_decoded(local_path)))
}

/// The file system of a directory that [`of_path`] gave: a local path, or the URL of an object store.
pub(crate) fn of_target(dir: &str) -> Result<Arc<dyn FileSystem>> {
    #[cfg(feature = "object-stores")]
    if dir.split_once("://").is_some_and(|(scheme, _)| stores::is_known(scheme)) {
        return Ok(stores::of_url(dir)?);
    }
    let _ = dir;
    Ok(Arc::new(local::Local))
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// A URL's path with its `%20` and the like replaced. What is no such escape, or no UTF-8 after it, stays as it is.
fn percent_decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| (*b as char).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| path.to_owned())
}

/// The files that match a pattern, in order.
///
/// # Errors
/// `NotFound` naming the pattern when there is none and `allow_empty` is not set; whatever keeps directories from being
/// read.
pub fn list(pattern: &str, allow_empty: bool) -> Result<Vec<FileMetadata>> {
    let (fs, path) = of_path(pattern)?;
    let files = fs.list(&path).map_err(|e| failed_reading("list", pattern, e))?;
    if files.is_empty() && !allow_empty {
        return Err(Error::new(ErrorKind::NotFound, "TB0403", format!("no file matches `{pattern}`"))
            .with_help("check the path, or allow patterns that match nothing"));
    }
    Ok(files)
}

/// What a pattern matches now: a digest of paths, sizes and times.
///
/// # Errors
/// As [`list`].
pub(crate) fn digest(pattern: &str, allow_empty: bool) -> Result<u64> {
    let files = list(pattern, allow_empty)?;
    // FNV-1a: the same in every process.
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    Ok(files.iter().fold(0xcbf2_9ce4_8422_2325, |hash, file| {
        let numbers = [file.size.to_le_bytes(), file.modified.micros().to_le_bytes()].concat();
        numbers.iter().fold(file.path.as_bytes().iter().fold(mix(hash, &0xff), mix), mix)
    }))
}

/// The error of an input that can't be read: `cannot open \`x\`: …`.
pub(crate) fn failed_reading(action: &str, path: &str, error: io::Error) -> Error {
    let (kind, code) = match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::NotFound, "TB0405"),
        io::ErrorKind::InvalidData => (ErrorKind::InvalidData, "TB0411"),
        io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory => (ErrorKind::InvalidArgument, "TB0404"),
        _ => (ErrorKind::Io, "TB0405"),
    };
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let failure = Error::new(kind, code, format!("cannot {action} `{path}`: {error}")).with_source(error);
    if denied { failure.with_retryable(false) } else { failure }
}

/// The error of an output that can't be written. What no retry can cure is of kind `Output`.
pub(crate) fn failed_writing(action: &str, path: &str, error: io::Error) -> Error {
    use io::ErrorKind as E;
    let hopeless = matches!(
        error.kind(),
        E::PermissionDenied
            | E::NotADirectory
            | E::IsADirectory
            | E::AlreadyExists
            | E::ReadOnlyFilesystem
            | E::StorageFull
            | E::QuotaExceeded
            | E::FileTooLarge
            | E::InvalidFilename
            | E::NotFound
    );
    let kind = if hopeless { ErrorKind::Output } else { ErrorKind::Io };
    Error::new(kind, "TB0440", format!("cannot {action} `{path}`: {error}")).with_source(error)
}

/// `dir/name`; an empty directory is the current one.
pub(crate) fn join(dir: &str, name: &str) -> String {
    match dir {
        "" => name.to_owned(),
        dir if dir.ends_with('/') => format!("{dir}{name}"),
        dir => format!("{dir}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_file_system() {
        let local = |path: &str| of_path(path).unwrap().1;
        assert_eq!(local("a/b"), "a/b");
        assert_eq!(local("/a/b*"), "/a/b*");
        assert_eq!(local("file:///a/b%20c"), "/a/b c");
        assert_eq!(local("file://localhost/a/b"), "/a/b");
        assert_eq!(local("FILE:///a/100%"), "/a/100%");
        assert_eq!(local("odd name://x"), "odd name://x");
        let error = of_path("ftp://host/x").unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::Unsupported, "no file system for `ftp://` in this build, wanted by `ftp://host/x`")
        );
        #[cfg(not(feature = "object-stores"))]
        assert_eq!(of_path("gs://bucket/x").unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn digests_tell_one_input_from_another() {
        let dir = tempfile::tempdir().unwrap();
        let pattern = format!("{}/*", dir.path().display());
        assert!(digest(&pattern, false).is_err());
        let mut seen = vec![digest(&pattern, true).unwrap()];
        for (name, text) in [("a", "1"), ("b", "2"), ("b", "22")] {
            std::fs::write(dir.path().join(name), text).unwrap();
            seen.push(digest(&pattern, false).unwrap());
            assert_eq!(digest(&pattern, false).unwrap(), seen[seen.len() - 1]);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn a_pattern_without_files_is_not_found_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let pattern = format!("{}/*.csv", dir.path().display());
        let error = list(&pattern, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.message(), format!("no file matches `{pattern}`"));
        assert_eq!(list(&pattern, true).unwrap(), []);
        let missing = format!("{}/not/there", dir.path().display());
        assert_eq!(list(&missing, false).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
