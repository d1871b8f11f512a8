//! File sinks: a set of files that appears as a whole or not at all.
//!
//! Records are written to temporary files in a hidden directory beside the output; when all are complete, a manifest is
//! written that says which file gets which name, and then the files are renamed. Whoever is killed in the middle leaves
//! either nothing that anybody reads, or a manifest that the next run finishes.

pub mod job;
pub mod write;

use tiebeam_core::{Error, ErrorKind, Result};

use crate::compression::Compression;

/// The most shards that can be asked for.
pub const MAX_SHARDS: usize = 4096;

/// What is small enough to be put together unless told otherwise.
const JOIN_BELOW: u64 = 1 << 20;

/// Where a sink writes, and what the files are called: `prefix-00000-of-00003.suffix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The directory, empty for the current one.
    pub dir: String,
    /// What the files' names begin with.
    pub prefix: String,
    /// What they end with, such as `.csv`; may be empty.
    pub suffix: String,
    /// The number of files; none is one for each bundle that wrote much.
    pub num_shards: Option<usize>,
    /// Where the number of files is open, what bundles wrote of less than this many bytes is put together, so that a small
    /// output is one file however many bundles wrote it.
    pub join_below: u64,
    /// How the files are compressed. `Auto` goes by the suffix.
    pub compression: Compression,
    /// How several files become one.
    pub joining: Joining,
}

impl Target {
    /// Files that begin with `path`: its directories, and the prefix of their names.
    ///
    /// # Errors
    /// `InvalidArgument` when the path names no file; `Unsupported` for a scheme without a file system.
    pub fn new(path: &str) -> Result<Target> {
        let (_, local) = crate::fs::of_path(path)?;
        // A path of an object store is its whole URL: its directory is never shorter than the bucket.
        if local.contains("://") && local.matches('/').count() < 3 {
            return Err(no_name(path));
        }
        let (dir, prefix) = match local.rsplit_once('/') {
            Some(("", prefix)) => ("/", prefix),
            Some((dir, prefix)) => (dir, prefix),
            None => ("", local.as_str()),
        };
        if prefix.is_empty() || prefix == "." || prefix == ".." || prefix.contains('\0') {
            return Err(no_name(path));
        }
        Ok(Target {
            dir: dir.to_owned(),
            prefix: prefix.to_owned(),
            suffix: String::new(),
            num_shards: None,
            join_below: JOIN_BELOW,
            compression: Compression::Auto,
            joining: Joining::Bytes,
        })
    }

    /// Checks what was set, and settles the compression.
    ///
    /// # Errors
    /// `InvalidArgument` for no shards or too many, or a suffix with a `/` in it.
    pub fn checked(mut self) -> Result<Target> {
        if let Some(n) = self.num_shards
            && !(1..=MAX_SHARDS).contains(&n)
        {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0445",
                format!("an output has 1 to {MAX_SHARDS} shards, got {n}"),
            ));
        }
        if self.suffix.contains(['/', '\0']) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0445",
                format!("a suffix is a part of a file's name, got `{}`", self.suffix),
            ));
        }
        self.compression = self.compression.of_path(&format!("{}{}", self.prefix, self.suffix))?;
        Ok(self)
    }

    /// The path that the files begin with.
    pub fn path(&self) -> String {
        crate::fs::join(&self.dir, &self.prefix)
    }

    /// The name of one file.
    pub fn shard_name(&self, index: usize, count: usize) -> String {
        format!("{}-{index:05}-of-{count:05}{}", self.prefix, self.suffix)
    }

    /// Whether a name is one that this sink gives, whatever the number of shards.
    pub fn is_shard_name(&self, name: &str) -> bool {
        let middle = name.strip_prefix(&*self.prefix).and_then(|rest| rest.strip_suffix(&*self.suffix));
        let Some((index, count)) =
            middle.and_then(|m| m.strip_prefix('-')).and_then(|m| m.split_once("-of-"))
        else {
            return false;
        };
        let number = |text: &str| {
            (text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit()))
                .then(|| text.parse::<u64>().ok())
                .flatten()
        };
        matches!((number(index), number(count)), (Some(index), Some(count)) if index < count)
    }
}

fn no_name(path: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        "TB0445",
        format!("an output path ends with the first part of the files' names, got `{path}`"),
    )
    .with_help(format!("write to `{}/part`, for example", path.trim_end_matches('/')))
}

/// How records become bytes. Each thread of a step has a clone.
pub trait RecordFormat<T>: Clone + Send + Sync + 'static {
    /// What is remembered from one record of a file to the next.
    type File: Default + Send + 'static;

    /// What each file begins with; `first` is its first record, if it has any. None when that can't be told without
    /// a record.
    ///
    /// # Errors
    /// When the record can't be told in this format.
    fn header(&self, first: Option<&T>) -> Result<Option<Vec<u8>>> {
        let _ = first;
        Ok(None)
    }

    /// Appends one record with what ends it.
    ///
    /// # Errors
    /// When the record can't be told in this format. What was appended then is taken back.
    fn write(&self, file: &mut Self::File, record: &T, out: &mut Vec<u8>) -> Result<()>;

    /// Appends what ends a file, and what of its records was not appended yet.
    ///
    /// # Errors
    /// When it can't be told in this format.
    fn finish(&self, file: &mut Self::File, out: &mut Vec<u8>) -> Result<()> {
        let _ = (file, out);
        Ok(())
    }

    /// How files become one.
    fn joining(&self) -> Joining {
        Joining::Bytes
    }
}

/// How several files of a format become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Joining {
    /// One behind the other, with the header of the first alone.
    #[default]
    Bytes,
    /// By what Parquet's footers say.
    #[cfg(feature = "tables")]
    Parquet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_beams() {
        let mut target = Target::new("out/predictions").unwrap();
        assert_eq!((target.dir.as_str(), target.prefix.as_str()), ("out", "predictions"));
        assert_eq!(target.shard_name(0, 1), "predictions-00000-of-00001");
        target.suffix = ".csv".into();
        assert_eq!(target.shard_name(7, 123_456), "predictions-00007-of-123456.csv");
        for (name, wanted) in [
            ("predictions-00000-of-00001.csv", true),
            ("predictions-00007-of-123456.csv", true),
            ("predictions-00001-of-00001.csv", false),
            ("predictions-00000-of-00001", false),
            ("predictions-0-of-1.csv", false),
            ("predictions-0000x-of-00001.csv", false),
            ("predictions2-00000-of-00001.csv", false),
            ("predictions-a-00000-of-00001.csv", false),
            ("my-predictions-00000-of-00001.csv", false),
        ] {
            assert_eq!(target.is_shard_name(name), wanted, "{name}");
        }
        assert_eq!(Target::new("/x").unwrap().dir, "/");
        assert_eq!(Target::new("file:///a/x").unwrap().dir, "/a");
        assert_eq!(
            Target::new("out/").unwrap_err().to_string(),
            "an output path ends with the first part of the files' names, got `out/`"
        );
        assert_eq!(Target::new("ftp://b/x").unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn options_are_checked() {
        let target = Target::new("x").unwrap();
        let shards = |n| Target { num_shards: Some(n), ..target.clone() }.checked();
        assert_eq!(shards(0).unwrap_err().to_string(), "an output has 1 to 4096 shards, got 0");
        assert!(shards(4096).is_ok());
        assert!(shards(4097).is_err());
        let gz = Target { suffix: ".txt.gz".into(), ..target.clone() }.checked().unwrap();
        assert_eq!(gz.compression, Compression::Gzip);
        assert!(Target { suffix: "/x".into(), ..target }.checked().is_err());
    }
}
