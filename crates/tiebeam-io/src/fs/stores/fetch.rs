//! Files that are needed as files, models above all: fetched once into a folder where they are named by their content.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tiebeam_core::{Error, ErrorKind, Result};

use super::super::{FileSystem, failed_reading};
use super::{of_url, shown};

/// A folder of fetched files: `sha256/<digest>/<name>` each, and drafts that a broken fetch goes on with.
#[derive(Clone)]
pub struct Cache {
    root: PathBuf,
    watch: Option<Arc<Watch>>,
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetching<'a> {
    /// The file's URL.
    pub url: &'a str,
    /// The bytes that are here.
    pub done: u64,
    /// All its bytes.
    pub size: u64,
}

type Watch = dyn Fn(Fetching<'_>) + Send + Sync;

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Cache {
    /// A cache in that folder.
    pub fn new(root: impl Into<PathBuf>) -> Cache {
        Cache { root: root.into(), watch: None }
    }

    /// Tells `watch` what is brought here: once when it begins (with what an earlier fetch left), then after each piece.
    #[must_use]
    pub fn watched_by(mut self, watch: impl Fn(Fetching<'_>) + Send + Sync + 'static) -> Cache {
        self.watch = Some(Arc::new(watch));
        self
    }

    /// `$TIEBEAM_CACHE/models`, else `models` in the user's own cache folder for tiebeam.
    ///
    /// # Errors
    /// `InvalidArgument` where neither can be told.
    pub fn of_user() -> Result<Cache> {
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let root = variable("TIEBEAM_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("tiebeam")))
            .or_else(|| variable("HOME").map(|dir| dir.join(".cache/tiebeam")))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidArgument,
                    "TB0449",
                    "there is no folder to keep fetched files in",
                )
                .with_help("set TIEBEAM_CACHE to a folder")
            })?;
        Ok(Cache::new(root.join("models")))
    }

    /// The file of a URL, here. With a digest, what is here already is not asked for again, and nothing else is accepted.
    /// Without one, the store is asked whether the file changed. A fetch that broke off goes on where it was.
    ///
    /// # Errors
    /// `NotFound`, `Io` as for any input; `InvalidData` when the digest is another one.
    pub fn fetch(&self, url: &str, sha256: Option<&str>) -> Result<PathBuf> {
        let name = url.rsplit('/').next().filter(|n| is_plain(n)).unwrap_or("file");
        let wanted = sha256.map(str::to_ascii_lowercase);
        if let Some(digest) = &wanted {
            if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    "TB0449",
                    format!("`{digest}` is no SHA-256: wanted 64 hex digits"),
                ));
            }
            let there = self.place(digest, name);
            if there.is_file() {
                return Ok(there);
            }
        }
        let store = of_url(url)?;
        let failed = |e| failed_reading("fetch", &shown(url), e);
        let meta = store.key(url).and_then(|key| store.head(&key)).map_err(failed)?;
        let meta =
            meta.ok_or_else(|| failed(io::Error::new(io::ErrorKind::NotFound, "there is no such object")))?;
        // The draft of one version: bytes of two are never put together.
        let mark =
            format!("{url}\n{}\n{}\n{}", meta.size, meta.last_modified, meta.e_tag.unwrap_or_default());
        let version = hex(&Sha256::digest(mark.as_bytes()));
        let known = self.root.join("versions").join(&version);
        if wanted.is_none()
            && let Ok(digest) = fs::read_to_string(&known)
            && digest.len() == 64
            && self.place(&digest, name).is_file()
        {
            return Ok(self.place(&digest, name));
        }
        let keep = |e: io::Error| {
            let shown = self.root.display().to_string();
            Error::new(ErrorKind::Io, "TB0449", format!("cannot keep fetched files in `{shown}`: {e}"))
                .with_source(e)
        };
        let draft = self.root.join("drafts").join(&version);
        for dir in ["drafts", "versions"] {
            fs::create_dir_all(self.root.join(dir)).map_err(keep)?;
        }
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&draft).map_err(keep)?;
        // Two processes that want the same file: one fetches, the other waits and finds it.
        file.lock().map_err(keep)?;
        let tell = |done| {
            if let Some(watch) = &self.watch {
                watch(Fetching { url: &shown(url), done, size: meta.size });
            }
        };
        let digest = match fill(&mut file, meta.size, |at| store.open(url, at), tell) {
            Ok(digest) => digest,
            Err(Broken::Reading(e)) => return Err(failed(e)),
            Err(Broken::Keeping(e)) => return Err(keep(e)),
        };
        if let Some(wanted) = &wanted
            && *wanted != digest
        {
            fs::remove_file(&draft).map_err(keep)?;
            return Err(Error::new(
                ErrorKind::InvalidData,
                "TB0446",
                format!("`{}` has the SHA-256 {digest}, wanted {wanted}", shown(url)),
            )
            .with_help("the file is another one than was meant: correct the digest or the path"));
        }
        let place = self.place(&digest, name);
        if let Some(dir) = place.parent() {
            fs::create_dir_all(dir).map_err(keep)?;
        }
        match fs::rename(&draft, &place) {
            // The one that we waited for has done it.
            Err(e) if e.kind() == io::ErrorKind::NotFound && place.is_file() => {}
            done => done.map_err(keep)?,
        }
        fs::write(&known, &digest).map_err(keep)?;
        Ok(place)
    }

    fn place(&self, digest: &str, name: &str) -> PathBuf {
        self.root.join("sha256").join(digest).join(name)
    }
}

/// [`Cache::fetch`] into the user's own cache.
///
/// # Errors
/// As [`Cache::fetch`].
pub fn fetch(url: &str, sha256: Option<&str>) -> Result<PathBuf> {
    Cache::of_user()?.fetch(url, sha256)
}

enum Broken {
    Reading(io::Error),
    Keeping(io::Error),
}

/// Goes on with a draft to its end; gives the digest of the whole.
fn fill(
    file: &mut File,
    size: u64,
    open: impl Fn(u64) -> io::Result<Box<dyn Read + Send>>,
    tell: impl Fn(u64),
) -> std::result::Result<String, Broken> {
    let mut there = file.metadata().map_err(Broken::Keeping)?.len();
    if there > size {
        file.set_len(0).map_err(Broken::Keeping)?;
        there = 0;
    }
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    file.seek(SeekFrom::Start(0)).map_err(Broken::Keeping)?;
    let mut left = there;
    while left > 0 {
        let n = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.read_exact(&mut chunk[..n]).map_err(Broken::Keeping)?;
        hash.update(&chunk[..n]);
        left -= n as u64;
    }
    let mut source = open(there).map_err(Broken::Reading)?;
    let mut at = there;
    tell(at);
    loop {
        let n = source.read(&mut chunk).map_err(Broken::Reading)?;
        if n == 0 {
            break;
        }
        at += n as u64;
        if at > size {
            return Err(Broken::Reading(io::Error::other("the store gave more bytes than it has")));
        }
        file.write_all(&chunk[..n]).map_err(Broken::Keeping)?;
        hash.update(&chunk[..n]);
        tell(at);
    }
    if at < size {
        return Err(Broken::Reading(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the store gave fewer bytes than it has",
        )));
    }
    file.sync_all().map_err(Broken::Keeping)?;
    Ok(hex(&hash.finalize()))
}

/// Whether a name can be that of a file of ours.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && Path::new(name).file_name().is_some()
        && name.chars().all(|c| c.is_alphanumeric() || "-_.+= ".contains(c))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
