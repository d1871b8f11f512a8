//! Model files that are not where the pipeline names them: they came with a job to this machine, or are elsewhere, under URLs
//! such as `gs://bucket/model.onnx`, and are fetched when the model is loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use tiebeam_core::error::{Error, ErrorKind, Result};

use crate::handler::ModelInfo;

type Find = dyn Fn(&Path) -> Option<PathBuf> + Send + Sync;
type Fetch = dyn Fn(&str, Option<&str>) -> Result<PathBuf> + Send + Sync;
type List = dyn Fn(&str) -> Result<Vec<Listed>> + Send + Sync;

static STAGED: OnceLock<Box<Find>> = OnceLock::new();
static FETCH: OnceLock<Box<Fetch>> = OnceLock::new();
static LIST: OnceLock<Box<List>> = OnceLock::new();

/// Files that were found already, by the path that the pipeline names. The process of an isolated model, which may not look for them
/// itself, is given its own.
static FOUND: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());

/// From now on those are where the files of these paths are.
pub(crate) fn found(files: impl IntoIterator<Item = (PathBuf, PathBuf)>) {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
}

fn found_already(path: &Path) -> Option<PathBuf> {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
}

/// Says how to find a file on this machine that has another path in the pipeline. Called by workers before they build a
/// pipeline; the first to say so is heard.
pub fn find_by(find: impl Fn(&Path) -> Option<PathBuf> + Send + Sync + 'static) {
    let _ = STAGED.set(Box::new(find));
}

/// Says how to bring the file of a URL to this machine, one of that SHA-256 where it is known. The first to say so is heard.
pub fn fetch_by(fetch: impl Fn(&str, Option<&str>) -> Result<PathBuf> + Send + Sync + 'static) {
    let _ = FETCH.set(Box::new(fetch));
}

/// One file of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Where it is.
    pub url: String,
    /// Its bytes.
    pub size: u64,
    /// When it was put there.
    pub modified: SystemTime,
}

/// Says how to list the files of a pattern that is a URL, for models that are watched. The first to say so is heard.
pub fn list_by(list: impl Fn(&str) -> Result<Vec<Listed>> + Send + Sync + 'static) {
    let _ = LIST.set(Box::new(list));
}

/// Where to open a file of that path: where it says, or, if nothing is there, where the job's files were put.
pub fn local(path: &Path) -> PathBuf {
    let staged = || if path.exists() { None } else { STAGED.get()?(path) };
    found_already(path).or_else(staged).unwrap_or_else(|| path.to_owned())
}

/// Where to open a model's file: as [`local`], or, for a URL such as `gs://bucket/model.onnx`, what was fetched of it.
///
/// # Errors
/// `Unsupported` for a URL in a program that can fetch none; why it cannot be fetched.
pub fn open(path: &Path, sha256: Option<&str>) -> Result<PathBuf> {
    if let Some(found) = found_already(path) {
        return Ok(found);
    }
    match place(path) {
        Place::Here(path) => Ok(local(&path)),
        Place::At(url) => match FETCH.get() {
            Some(fetch) => fetch(url, sha256),
            None => Err(cannot_fetch(&format!("model file `{url}`"))),
        },
    }
}

/// What a model that was [`open`]ed is told to be: where the pipeline says that it is, not where it was fetched to.
pub fn told(path: &Path, mut info: ModelInfo) -> ModelInfo {
    if is_url(path) {
        let name = path.display().to_string();
        info.model_id = name.as_str().into();
        info.uri = Some(name);
    }
    info
}

/// Those of a model's files that are on this machine, and may have to travel to another one: workers fetch URLs themselves.
pub(crate) fn here(paths: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let here = |path: PathBuf| match place(&path) {
        Place::Here(path) => Some(path),
        Place::At(_) => None,
    };
    paths.into_iter().filter_map(here).collect()
}

/// Whether a path is a URL of somewhere else. `file://` is not: it is a path of this machine.
pub fn is_url(path: &Path) -> bool {
    matches!(place(path), Place::At(_))
}

/// The files of a pattern that is a URL.
pub(crate) fn list(pattern: &str) -> Result<Vec<Listed>> {
    LIST.get().ok_or_else(|| cannot_fetch(&format!("pattern `{pattern}`")))?(pattern)
}

/// Whether a pattern that is a URL can be listed at all.
pub(crate) fn check_pattern(pattern: &str) -> Result<()> {
    if LIST.get().is_none() {
        return Err(cannot_fetch(&format!("watch_model_pattern `{pattern}`")));
    }
    let scheme = pattern.split_once("://").map_or("", |(scheme, _)| scheme);
    if ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web)) {
        let message = format!("watch_model_pattern `{pattern}`: a web server can't be asked for its files");
        return Err(Error::new(ErrorKind::Unsupported, "TB0314", message).with_help(
            "watch a pattern of gs://, s3:// or az://, or name new versions by a side input of ModelMetadata",
        ));
    }
    Ok(())
}

fn cannot_fetch(what: &str) -> Error {
    let message = format!("{what} is a URL, which this program cannot fetch");
    Error::new(ErrorKind::Unsupported, "TB0314", message).with_help(
        "use a local path; or build with the feature `object-stores`, and call tiebeam::launch::fetch_models() in a main of your own",
    )
}

enum Place<'a> {
    Here(PathBuf),
    At(&'a str),
}

fn place(path: &Path) -> Place<'_> {
    let here = || Place::Here(path.to_owned());
    let Some(text) = path.to_str() else { return here() };
    let Some((scheme, rest)) = text.split_once("://") else { return here() };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !is_scheme {
        return here();
    }
    if !scheme.eq_ignore_ascii_case("file") {
        return Place::At(text);
    }
    let rest = rest.strip_prefix("localhost").filter(|rest| rest.starts_with('/')).unwrap_or(rest);
    Place::Here(decoded(rest).into())
}

/// A URL's path with its `%20` and the like replaced; what is no such escape, or no UTF-8 after it, stays as it is.
fn decoded(path: &str) -> String {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |i: usize| after.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_taken_and_a_staged_one_where_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (own, came) = (folder.path().join("own"), folder.path().join("came"));
        std::fs::write(&came, b"came").unwrap();
        assert_eq!(local(&own), own, "nothing is known of it");
        let (named, there) = (own.clone(), came.clone());
        find_by(move |path| (path == named).then(|| there.clone()));
        assert_eq!(local(&own), came);
        assert_eq!(local(&folder.path().join("other")), folder.path().join("other"));
        assert_eq!(open(&own, None).unwrap(), came);
        assert_eq!(open(Path::new(&format!("file://{}", own.display())), None).unwrap(), came);
        std::fs::write(&own, b"own").unwrap();
        assert_eq!(local(&own), own);
    }

    #[test]
    fn urls_are_fetched_and_paths_are_not() {
        let url = Path::new("gs://bucket/m.onnx");
        let error = open(url, None).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Unsupported, "TB0314"));
        assert_eq!(
            error.message(),
            "model file `gs://bucket/m.onnx` is a URL, which this program cannot fetch"
        );
        let error = check_pattern("gs://bucket/*.onnx").unwrap_err();
        assert!(error.message().starts_with("watch_model_pattern `gs://bucket/*.onnx` is a URL"), "{error}");
        fetch_by(|url, sha256| Ok(PathBuf::from(format!("{url} {sha256:?}"))));
        list_by(|pattern| {
            Ok(vec![Listed { url: pattern.replace('*', "7"), size: 7, modified: SystemTime::UNIX_EPOCH }])
        });
        assert_eq!(open(url, Some("ab")).unwrap(), Path::new("gs://bucket/m.onnx Some(\"ab\")"));
        assert_eq!(list("gs://b/m-*").unwrap()[0].url, "gs://b/m-7");
        check_pattern("gs://b/m-*").unwrap();
        let error = check_pattern("https://host/m-*").unwrap_err();
        assert_eq!(
            error.message(),
            "watch_model_pattern `https://host/m-*`: a web server can't be asked for its files"
        );
        for (path, wanted) in [
            ("no/such/m.onnx", "no/such/m.onnx"),
            ("odd name://m.onnx", "odd name://m.onnx"),
            ("file:///no/such%20one", "/no/such one"),
            ("FILE://localhost/no/such", "/no/such"),
            ("file:///100%", "/100%"),
            ("file:///%ff", "/%ff"),
        ] {
            assert_eq!(open(Path::new(path), None).unwrap(), Path::new(wanted), "{path}");
        }
    }

    #[test]
    fn only_files_of_this_machine_travel() {
        let paths = ["m.onnx", "s3://b/m.onnx", "file:///m.pth", "https://host/m.txt"].map(PathBuf::from);
        assert_eq!(here(paths), ["m.onnx", "/m.pth"].map(PathBuf::from));
        let info = ModelInfo { model_id: "/cache/m.onnx".into(), ..ModelInfo::default() };
        assert_eq!(told(Path::new("m.onnx"), info.clone()), info);
        let url = told(Path::new("s3://b/m.onnx"), info);
        assert_eq!((&*url.model_id, url.uri.as_deref()), ("s3://b/m.onnx", Some("s3://b/m.onnx")));
    }
}
