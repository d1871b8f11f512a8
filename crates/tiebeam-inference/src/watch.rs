//! [`Watcher`]: looks for newer files of a pattern, and for one that was rewritten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tiebeam_core::error::{Error, ErrorKind, Result};

use crate::staged;

/// What is seen of a file without reading it: another content has another print, unless somebody takes pains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Print {
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
    /// When the file system last noted a change of it, which nobody sets by hand; seconds and nanoseconds.
    pub(crate) changed: (i64, i64),
}

/// The print of a file; none if it is gone or no file.
pub(crate) fn print_of(path: &Path) -> Option<Print> {
    if staged::is_url(path) {
        return list_of(path.to_str()?).ok()?.pop().map(|(_, print)| print);
    }
    let seen = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    #[cfg(unix)]
    let changed = {
        use std::os::unix::fs::MetadataExt;
        (seen.ctime(), seen.ctime_nsec())
    };
    #[cfg(not(unix))]
    let changed = (0, 0);
    Some(Print { bytes: seen.len(), modified: seen.modified().ok()?, changed })
}

/// The objects of a pattern in a store. Each is there as a whole or not at all, and a newer one has a newer date.
fn list_of(pattern: &str) -> Result<Vec<Seen>> {
    let seen = |file: staged::Listed| {
        (file.url.into(), Print { bytes: file.size, modified: file.modified, changed: (0, 0) })
    };
    Ok(staged::list(pattern)?.into_iter().map(seen).collect())
}

/// A file that was seen.
pub(crate) type Seen = (PathBuf, Print);

/// The rule: a file is a version when it is newer than the start, or has come or changed since, and looked the same in two
/// looks one after the other, so that no half-written file is taken. Of several the newest counts.
pub(crate) struct Watcher {
    pattern: glob::Pattern,
    text: String,
    is_url: bool,
    start: SystemTime,
    /// Files that are dealt with.
    known: BTreeMap<PathBuf, Print>,
    is_first: bool,
    /// What the last look would have taken.
    last: Option<Seen>,
}

impl Watcher {
    /// Watches from `start` on.
    ///
    /// # Errors
    /// When the pattern is none.
    pub(crate) fn new(pattern: &str, start: SystemTime) -> Result<Self> {
        let is_url = staged::is_url(Path::new(pattern));
        if is_url {
            staged::check_pattern(pattern)?;
        }
        let parsed = glob::Pattern::new(pattern).map_err(|error| {
            let message = format!("watch_model_pattern `{pattern}` is no pattern of files");
            Error::new(ErrorKind::InvalidArgument, "TB0354", message).with_source(error)
        })?;
        Ok(Watcher {
            pattern: parsed,
            text: pattern.to_owned(),
            is_url,
            start,
            known: BTreeMap::new(),
            is_first: true,
            last: None,
        })
    }

    /// The files of the pattern; none at all where a store does not say.
    fn list(&self) -> Option<Vec<Seen>> {
        if self.is_url {
            return list_of(&self.text).ok();
        }
        let Ok(paths) = glob::glob(&self.text) else { return Some(Vec::new()) };
        let files = paths.flatten().filter(|path| self.pattern.matches_path(path));
        Some(files.filter_map(|path| print_of(&path).map(|print| (path, print))).collect())
    }

    /// Looks once; gives a version that is there to be loaded.
    pub(crate) fn look(&mut self) -> Option<Seen> {
        let files = self.list()?;
        self.judge(files)
    }

    /// As [`look`](Watcher::look), of files that were listed.
    pub(crate) fn judge(&mut self, files: Vec<Seen>) -> Option<Seen> {
        if std::mem::take(&mut self.is_first) {
            let old = files.iter().filter(|(_, print)| print.modified <= self.start);
            self.known = old.cloned().collect();
        }
        let is_new = |(path, print): &Seen| self.known.get(path) != Some(print);
        let fresh: Vec<Seen> = files.into_iter().filter(is_new).collect();
        let newest = fresh.iter().max_by_key(|(path, print)| (print.modified, print.changed, path)).cloned();
        if newest.is_none() || newest != self.last {
            self.last = newest;
            return None;
        }
        self.last = None;
        // The older ones have missed their time.
        self.known.extend(fresh);
        newest
    }

    /// A version could not be loaded for a reason that may pass: it is looked at again.
    pub(crate) fn again(&mut self, path: &Path) {
        self.known.remove(path);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn seen(path: &str, start: SystemTime, after: i64) -> Seen {
        let by = Duration::from_secs(after.unsigned_abs());
        let modified = if after < 0 { start - by } else { start + by };
        (path.into(), Print { bytes: 7, modified, changed: (after, 0) })
    }

    /// Beam's test of its `WatchFilePattern`: files from before the start are no versions, those after it are, in turn.
    #[test]
    fn c28_files_newer_than_the_start() {
        let start = SystemTime::now();
        let mut watcher = Watcher::new("*.py", start).unwrap();
        let mut found = Vec::new();
        let mut files = Vec::new();
        for (path, after) in [("path1.py", -20), ("path2.py", -10), ("path3.py", 10), ("path4.py", 20)] {
            files.push(seen(path, start, after));
            for _ in 0..3 {
                found.extend(watcher.judge(files.clone()).map(|(path, _)| path.display().to_string()));
            }
        }
        // `path2.py` came while we watched, with an old date: that is new too. Both at once are not:
        assert_eq!(found, ["path2.py", "path3.py", "path4.py"]);
        let mut watcher = Watcher::new("*.py", start).unwrap();
        assert_eq!([watcher.judge(files[..2].to_vec()), watcher.judge(files[..2].to_vec())], [None, None]);
        let mut looks = |n: usize| {
            let looked = [watcher.judge(files[..n].to_vec()), watcher.judge(files[..n].to_vec())];
            looked.into_iter().flatten().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!([looks(3), looks(4), looks(4)], [vec!["path3.py"], vec!["path4.py"], vec![]]);
    }

    #[test]
    fn a_file_is_taken_when_it_has_come_to_rest_and_the_newest_of_several() {
        let start = SystemTime::now();
        let mut watcher = Watcher::new("*.onnx", start).unwrap();
        let (a, b) = (seen("a", start, 1), seen("b", start, 2));
        let growing = |bytes| (b.0.clone(), Print { bytes, ..b.1 });
        assert_eq!(watcher.judge(vec![a.clone(), growing(1)]), None);
        assert_eq!(watcher.judge(vec![a.clone(), growing(2)]), None, "it still grows");
        assert_eq!(watcher.judge(vec![a.clone(), growing(2)]), Some(growing(2)));
        assert_eq!(watcher.judge(vec![a.clone(), growing(2)]), None, "`a` is older");
        assert_eq!(watcher.judge(vec![a.clone(), growing(2)]), None);
        watcher.again(&b.0);
        assert_eq!(
            [watcher.judge(vec![growing(2)]), watcher.judge(vec![growing(2)])],
            [None, Some(growing(2))]
        );
    }

    #[test]
    fn a_rewritten_file_is_seen_even_with_its_old_size_and_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.bin");
        std::fs::write(&path, b"one").unwrap();
        let pattern = folder.path().join("*.bin").display().to_string();
        let mut watcher = Watcher::new(&pattern, SystemTime::now() + Duration::from_secs(60)).unwrap();
        assert_eq!([watcher.look(), watcher.look()], [None, None]);
        let before = print_of(&path).unwrap();
        let mut after = before;
        // The file system's clock may tick slowly.
        while after.changed == before.changed {
            std::fs::write(&path, b"two").unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(before.modified).unwrap();
            after = print_of(&path).unwrap();
        }
        assert_eq!([watcher.look(), watcher.look()], [None, Some((path, after))]);
    }
}
