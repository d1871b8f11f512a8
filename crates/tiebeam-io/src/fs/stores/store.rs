//! One bucket as a file system: directories are prefixes, a rename is a copy and a removal.

use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt};
use tiebeam_core::Timestamp;

use super::super::glob::{Segment, Token, is_pattern, segments};
use super::super::{FileMetadata, FileSystem, Lock, OWN_PREFIX, WriteFile};
use super::lease::Lease;
use super::transfer::{Reading, Writing};
use super::{Settings, wait};

/// A bucket, or the files of one web server. Its paths are whole URLs.
pub struct Store {
    /// `scheme://bucket`.
    root: String,
    pub(super) inner: Arc<dyn ObjectStore>,
    pub(super) settings: Settings,
    pub(super) secrets: Arc<[String]>,
    /// Whether it can only be read, and has no listings.
    web: bool,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.root)
    }
}

impl Store {
    pub(super) fn new(root: String, inner: Arc<dyn ObjectStore>, settings: &Settings, web: bool) -> Store {
        Store { root, inner, settings: settings.clone(), secrets: settings.secrets().into(), web }
    }

    /// The name of an object in its bucket.
    pub(super) fn key(&self, url: &str) -> io::Result<Path> {
        let raw = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, key)| key);
        let parsed = match self.web {
            true => Path::from_url_path(raw),
            false => Path::parse(raw),
        };
        parsed.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("it names no object: {e}")))
    }

    fn url(&self, key: &str) -> String {
        format!("{}/{key}", self.root)
    }

    /// Waits for a request; its failure becomes what files say.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        work: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        wait(work)?.map_err(|e| as_io(&e, &self.secrets))
    }

    pub(super) fn head(&self, key: &Path) -> io::Result<Option<ObjectMeta>> {
        let (inner, key) = (self.inner.clone(), key.clone());
        match self.ask(async move { inner.head(&key).await }) {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What is right below a prefix: objects, and the prefixes further down.
    fn below(&self, prefix: &str) -> io::Result<(Vec<ObjectMeta>, Vec<Path>)> {
        let inner = self.inner.clone();
        let prefix = Path::parse(prefix).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let found = self.ask(async move { inner.list_with_delimiter(Some(&prefix)).await })?;
        Ok((found.objects, found.common_prefixes))
    }

    fn all_below(&self, prefix: &str) -> io::Result<Vec<ObjectMeta>> {
        let inner = self.inner.clone();
        let prefix = Path::parse(prefix).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        self.ask(async move { inner.list(Some(&prefix)).try_collect().await })
    }

    fn metadata(&self, meta: &ObjectMeta) -> FileMetadata {
        FileMetadata {
            path: self.url(meta.location.as_ref()),
            size: meta.size,
            modified: Timestamp::from_micros(meta.last_modified.timestamp_micros()),
        }
    }

    /// Level by level, as long as the pattern says how many there are.
    fn walk(&self, prefix: &str, pattern: &[Segment], found: &mut Vec<FileMetadata>) -> io::Result<()> {
        let Some((segment, rest)) = pattern.split_first() else { return Ok(()) };
        match segment {
            Segment::Literal(name) => {
                let path = super::super::join(prefix, name);
                if !rest.is_empty() {
                    return self.walk(&path, rest, found);
                }
                let key = Path::parse(&path).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
                found.extend(self.head(&key)?.map(|meta| self.metadata(&meta)));
            }
            Segment::Wild(_) => {
                let (objects, prefixes) = self.below(prefix)?;
                let fits = |path: &Path| {
                    path.filename().is_some_and(|n| !n.starts_with(OWN_PREFIX) && segment.matches(n))
                };
                if rest.is_empty() {
                    found.extend(objects.iter().filter(|o| fits(&o.location)).map(|o| self.metadata(o)));
                } else {
                    for below in prefixes.iter().filter(|below| fits(below)) {
                        self.walk(below.as_ref(), rest, found)?;
                    }
                }
            }
            Segment::Deep => {
                let skipped = prefix.split('/').filter(|part| !part.is_empty()).count();
                for object in self.all_below(prefix)? {
                    let names: Vec<&str> = object.location.as_ref().split('/').skip(skipped).collect();
                    if !names.iter().any(|name| name.starts_with(OWN_PREFIX)) && fits_all(pattern, &names) {
                        found.push(self.metadata(&object));
                    }
                }
            }
        }
        Ok(())
    }

    fn read_only(&self) -> io::Error {
        io::Error::new(
            io::ErrorKind::ReadOnlyFilesystem,
            format!("{} is a web server, which can only be read", self.root),
        )
    }
}

/// Whether names match a pattern to the end. Each `**` may stand for any number of them; at the end for one or more.
fn fits_all(pattern: &[Segment], names: &[&str]) -> bool {
    // Row by row: which beginnings of the pattern match the names so far.
    let mut pattern = pattern.to_vec();
    if pattern.last() == Some(&Segment::Deep) {
        pattern.push(Segment::Wild(vec![Token::Any]));
    }
    let reach = |mut states: Vec<bool>| {
        for i in 0..pattern.len() {
            if states[i] && pattern[i] == Segment::Deep {
                states[i + 1] = true;
            }
        }
        states
    };
    let mut states = vec![false; pattern.len() + 1];
    states[0] = true;
    let mut states = reach(states);
    for name in names {
        let mut next = vec![false; pattern.len() + 1];
        for (i, segment) in pattern.iter().enumerate().filter(|(i, _)| states[*i]) {
            match segment {
                Segment::Deep => next[i] = true,
                segment if segment.matches(name) => next[i + 1] = true,
                _ => {}
            }
        }
        states = reach(next);
    }
    states[pattern.len()]
}

impl FileSystem for Store {
    fn list(&self, pattern: &str) -> io::Result<Vec<FileMetadata>> {
        let key = pattern.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, k)| k);
        if self.web {
            if is_pattern(key) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "web servers have no listings, so it cannot have wildcards",
                ));
            }
            let found = self.head(&self.key(pattern)?)?;
            let file = |meta: ObjectMeta| FileMetadata { path: pattern.to_owned(), ..self.metadata(&meta) };
            return Ok(found.map(file).into_iter().collect());
        }
        if key.contains('[') {
            // A name with a bracket in it wins over the pattern that it is.
            if let Ok(exact) = self.key(pattern)
                && let Some(meta) = self.head(&exact)?
            {
                return Ok(vec![self.metadata(&meta)]);
            }
        }
        let mut found = Vec::new();
        self.walk("", &segments(key), &mut found)?;
        if found.is_empty() && !is_pattern(key) {
            let (objects, prefixes) = self.below(key.trim_end_matches('/'))?;
            if !objects.is_empty() || !prefixes.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is a directory, not a file; `/*` behind it matches the files in it",
                ));
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.dedup();
        Ok(found)
    }

    fn names(&self, dir: &str) -> io::Result<Vec<String>> {
        let (objects, prefixes) = self.below(self.key(dir)?.as_ref())?;
        let paths = objects.iter().map(|object| &object.location).chain(&prefixes);
        Ok(paths.filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    fn size(&self, path: &str) -> io::Result<Option<u64>> {
        Ok(self.head(&self.key(path)?)?.map(|meta| meta.size))
    }

    fn open(&self, path: &str, start: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Reading::open(self, self.key(path)?, start)?))
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn WriteFile>> {
        if self.web {
            return Err(self.read_only());
        }
        Ok(Box::new(Writing::new(self, self.key(path)?)))
    }

    /// Prefixes need no making.
    fn create_dir(&self, _: &str) -> io::Result<()> {
        if self.web { Err(self.read_only()) } else { Ok(()) }
    }

    /// A copy within the store, then a removal: stopped between them it can be done again.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to, inner) = (self.key(from)?, self.key(to)?, self.inner.clone());
        let source = from.clone();
        self.ask(async move { inner.copy(&source, &to).await })?;
        self.delete(&self.url(from.as_ref()))
    }

    fn delete(&self, path: &str) -> io::Result<()> {
        let (key, inner) = (self.key(path)?, self.inner.clone());
        match self.ask(async move { inner.delete(&key).await }) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn delete_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    /// An object is there for good once it is written.
    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self, path: &str, owner: &str) -> io::Result<Option<Box<dyn Lock>>> {
        if self.web {
            return Err(self.read_only());
        }
        let lease = Lease::take(self, self.key(path)?, owner)?;
        Ok(lease.map(|lease| Box::new(lease) as Box<dyn Lock>))
    }

    fn check_writable(&self, dir: &str) -> io::Result<()> {
        if self.web {
            return Err(self.read_only());
        }
        let probe = super::super::join(dir, &format!("{OWN_PREFIX}probe-{}", tiebeam_core::RunId::new()));
        self.create(&probe)?.finish()?;
        self.delete(&probe)
    }
}

/// What a store says, as files say it. A secret never stands in it.
pub(super) fn as_io(error: &StoreError, secrets: &[String]) -> io::Error {
    let kind = match error {
        StoreError::NotFound { .. } => io::ErrorKind::NotFound,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => io::ErrorKind::ResourceBusy,
        StoreError::InvalidPath { .. } => io::ErrorKind::InvalidInput,
        StoreError::NotSupported { .. } => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, words(error, secrets))
}

/// The innermost reason, without addresses and times, on one line of bounded length.
pub(super) fn words(error: &StoreError, secrets: &[String]) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let mut text = inner.to_string();
    if let Some(rest) = text.strip_prefix("Server returned non-2xx status code: ") {
        text = format!("HTTP {}", rest.trim_end().trim_end_matches(':'));
    }
    for secret in secrets {
        text = text.replace(secret.as_str(), "…");
    }
    for mark in
        ["sig=", "Signature=", "X-Amz-Credential=", "X-Amz-Security-Token=", "access_token=", "Bearer "]
    {
        text = hidden(&text, mark);
    }
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A text with what follows each mark replaced.
fn hidden(text: &str, mark: &str) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || "&\"'<>,;)".contains(c)).unwrap_or(part.len());
        out.push_str(mark);
        out.push('…');
        out.push_str(&part[end..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_patterns_match_names() {
        let fits =
            |pattern: &str, path: &str| fits_all(&segments(pattern), &path.split('/').collect::<Vec<_>>());
        for (pattern, path, wanted) in [
            ("**/a.csv", "a.csv", true),
            ("**/a.csv", "x/y/a.csv", true),
            ("**/a.csv", "x/y/b.csv", false),
            ("x/**", "x/a", true),
            ("x/**", "x/y/z", true),
            ("x/**", "x", false),
            ("**/y/**/b.csv", "x/y/z/b.csv", true),
            ("**/y/**/b.csv", "y/b.csv", true),
            ("**/y/**/b.csv", "x/b.csv", false),
            ("**/*.csv", "x/y.csv/z", false),
        ] {
            assert_eq!(fits(pattern, path), wanted, "{pattern} on {path}");
        }
    }

    #[test]
    fn no_secret_is_told() {
        let source =
            "HTTP 403 for /c/k?sv=1&sig=abc%2Fdef&se=2 with Bearer ya29.secret and \n topsecretkey".into();
        let error = StoreError::Generic { store: "S3", source };
        assert_eq!(
            words(&error, &["topsecretkey".to_owned()]),
            "HTTP 403 for /c/k?sv=1&sig=…&se=2 with Bearer … and …"
        );
        let long = StoreError::Generic { store: "S3", source: "x".repeat(5000).into() };
        assert_eq!(words(&long, &[]).chars().count(), 401);
    }
}
