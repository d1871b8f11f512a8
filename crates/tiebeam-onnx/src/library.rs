//! Finding ONNX Runtime's shared library, and loading it once a process.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tiebeam_core::error::{Error, ErrorKind};

/// ONNX Runtime's library, loaded.
#[derive(Clone)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Its version (`1.31.1`), as far as its name tells it.
    pub version: Option<String>,
    /// Where it was looked for: `the option ort_dylib`, `ORT_DYLIB_PATH`, `beside the binary`, …
    pub place: &'static str,
    pub(crate) environment: ort::environment::Environment,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.as_deref().unwrap_or("of unknown version");
        write!(f, "ONNX Runtime {version} at {} ({})", self.path.display(), self.place)
    }
}

/// A place where the library was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Where: `ORT_DYLIB_PATH`, `beside the binary`, …
    pub place: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// Why it was none.
    pub why: String,
}

/// All places where the library is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFound {
    /// The places, in order.
    pub tried: Vec<Tried>,
    asked_for: bool,
}

const OPTION: &str = "the option ort_dylib";
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// The version of ONNX Runtime's interface that is spoken: libraries from 1.17 on have it.
pub const OLDEST: u32 = ort::MINOR_VERSION;

impl NotFound {
    /// Whether a library was named, by the option or by `ORT_DYLIB_PATH`: then going on without it would be wrong.
    pub fn was_asked_for(&self) -> bool {
        self.asked_for
    }

    /// The same as an error.
    pub fn into_error(self) -> Error {
        let code = "TB0334";
        match (self.asked_for, self.tried.as_slice()) {
            (true, [.., last]) => Error::new(
                ErrorKind::Unsupported,
                code,
                format!("ONNX Runtime can't be loaded from {} ({}): {}", last.path.display(), last.place, last.why),
            )
            .with_help(format!(
                "name libonnxruntime of version 1.{OLDEST} or later (`pip download --no-deps onnxruntime` has one), or \
                 use `engine: rten`, which needs none"
            )),
            (_, tried) => {
                let places = tried.iter().map(|tried| format!("{} ({})", tried.place, tried.why)).collect::<Vec<_>>();
                Error::new(
                    ErrorKind::Unsupported,
                    code,
                    format!("ONNX Runtime's library was not found: {}", places.join("; ")),
                )
                .with_help("`pip install onnxruntime`, or name the library in ORT_DYLIB_PATH, or use `engine: rten`")
            }
        }
    }
}

/// Looks for ONNX Runtime's library and loads it: the option, `ORT_DYLIB_PATH`, beside the binary, the active Python's
/// site-packages, node_modules. A directory stands for the library in it.
///
/// The library stays loaded: a process has one. Once one is loaded, it is found again, and naming another one is
/// refused.
///
/// # Errors
/// Every place that was tried, and why it has none. A library that is named is the only place tried.
pub fn find_onnxruntime(option: Option<&Path>) -> Result<Found, NotFound> {
    let variable = || std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named =
        option.map(|path| (OPTION, path.to_owned())).or_else(|| variable().map(|path| (VARIABLE, path)));
    // Held while loading, so that two threads don't load two libraries.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((place, path)) = named {
        let refuse =
            |why: String| NotFound { tried: vec![Tried { place, path: path.clone(), why }], asked_for: true };
        let file = library_at(&path).map_err(refuse)?;
        return match &*loaded {
            Some(found) if found.path == file => Ok(found.clone()),
            Some(found) => Err(refuse(format!(
                "this process has loaded {} already, and can hold one",
                found.path.display()
            ))),
            None => load(file, place).map(|found| loaded.insert(found).clone()).map_err(refuse),
        };
    }
    if let Some(found) = &*loaded {
        return Ok(found.clone());
    }
    let mut tried = Vec::new();
    for (place, path) in places() {
        match library_at(&path).and_then(|file| load(file, place)) {
            Ok(found) => return Ok(loaded.insert(found).clone()),
            Err(why) => tried.push(Tried { place, path, why }),
        }
    }
    Err(NotFound { tried, asked_for: false })
}

static LOADED: Mutex<Option<Found>> = Mutex::new(None);

fn load(path: PathBuf, place: &'static str) -> Result<Found, String> {
    let built = std::panic::catch_unwind(|| {
        let builder = ort::init_from(&path).map_err(|e| match e {
            ort::LoadDynamicError::Dlopen { error, .. } => format!("not a library that loads here ({error})"),
            ort::LoadDynamicError::MissingApi { .. } => "a library, but not ONNX Runtime".to_owned(),
            ort::LoadDynamicError::BadVersion { version_str, .. } => {
                format!("version {version_str} is too old, wanted 1.{OLDEST} or later")
            }
            other => other.to_string(),
        })?;
        let environment =
            builder.with_name("tiebeam").with_telemetry(false).build().map_err(|e| e.to_string())?;
        // What goes wrong comes back as an error: the library need not write it to stderr too, unless asked.
        if std::env::var_os("ORT_LOG").is_none() {
            environment.set_log_level(ort::logging::LogLevel::Fatal);
        }
        Ok(environment)
    });
    let environment =
        built.unwrap_or_else(|_| Err("a library that fails when it is asked for its version".to_owned()))?;
    Ok(Found { version: version_in(&path), path, place, environment })
}

/// The version in a name such as `libonnxruntime.so.1.31.1` or `libonnxruntime.1.31.1.dylib`.
fn version_in(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let digits = name.split(|c: char| !c.is_ascii_digit() && c != '.').map(|part| part.trim_matches('.'));
    digits.filter(|part| part.contains('.')).max_by_key(|part| part.len()).map(str::to_owned)
}

/// The library that a path means: the file itself, or the one in a directory. Links are followed.
fn library_at(path: &Path) -> Result<PathBuf, String> {
    let metadata = path.metadata().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => e.to_string(),
    })?;
    let file = if metadata.is_dir() {
        let entries =
            path.read_dir().map_err(|e| e.to_string())?.filter_map(|entry| Some(entry.ok()?.path()));
        entries.filter(|path| is_library(path)).max().ok_or("no ONNX Runtime in this directory")?
    } else {
        path.to_owned()
    };
    file.canonicalize().map_err(|e| e.to_string())
}

fn is_library(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    if cfg!(windows) {
        name.eq_ignore_ascii_case("onnxruntime.dll")
    } else if cfg!(target_vendor = "apple") {
        name.starts_with("libonnxruntime.") && name.ends_with(".dylib")
    } else {
        name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so.")
    }
}

/// Where the library is looked for when none is named.
fn places() -> Vec<(&'static str, PathBuf)> {
    let mut places = Vec::new();
    if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        places.push(("beside the binary", folder.to_owned()));
        places.push(("beside the binary", folder.join("../lib")));
    }
    for site in site_packages() {
        places.push(("the active Python", site.join("onnxruntime/capi")));
    }
    if let Ok(here) = std::env::current_dir() {
        let (system, machine) = match (std::env::consts::OS, std::env::consts::ARCH) {
            (system, "x86_64") => (system, "x64"),
            (system, "aarch64") => (system, "arm64"),
            other => other,
        };
        let system = match system {
            "macos" => "darwin",
            "windows" => "win32",
            other => other,
        };
        for folder in here.ancestors() {
            let package = folder.join("node_modules/onnxruntime-node/bin");
            for version in children(&package) {
                places.push(("node_modules", version.join(system).join(machine)));
            }
        }
    }
    places
}

/// The directories in a directory, the last name first; nothing when it can't be read.
fn children(path: &Path) -> Vec<PathBuf> {
    let entries = path.read_dir().into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut entries = entries.filter(|path| path.is_dir()).collect::<Vec<_>>();
    entries.sort_unstable();
    entries.reverse();
    entries
}

/// The package directories of the Python that a shell would start, without starting it.
fn site_packages() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut prefixes = Vec::new();
    prefixes.extend(variable("VIRTUAL_ENV"));
    prefixes.extend(variable("CONDA_PREFIX"));
    let names: &[&str] = if cfg!(windows) { &["python.exe"] } else { &["python3", "python"] };
    let search = variable("PATH").unwrap_or_default();
    let first = std::env::split_paths(&search)
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|path| path.is_file());
    if let Some(python) = first {
        let real = python.canonicalize().unwrap_or_else(|_| python.clone());
        match real.parent() {
            // A shim of pyenv is a script: the version that it starts is told by files.
            Some(folder) if folder.ends_with("shims") => {
                let root = folder.parent().unwrap_or(folder);
                let version = std::env::var("PYENV_VERSION").ok();
                let version = version.or_else(|| std::fs::read_to_string(root.join("version")).ok());
                let version = version.as_deref().unwrap_or("").lines().next().unwrap_or("").trim().to_owned();
                prefixes.push(root.join("versions").join(version));
            }
            Some(folder) if cfg!(windows) => prefixes.push(folder.to_owned()),
            Some(folder) => prefixes.extend(folder.parent().map(Path::to_owned)),
            None => {}
        }
    }
    prefixes.extend(variable("HOME").map(|home| home.join(".local")));
    let mut sites = Vec::new();
    for prefix in prefixes {
        if cfg!(windows) {
            sites.push(prefix.join("Lib/site-packages"));
            continue;
        }
        for python in children(&prefix.join("lib")) {
            let name = python.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("python3") {
                sites.push(python.join("site-packages"));
                sites.push(python.join("dist-packages"));
            }
        }
    }
    sites.retain(|site| site.is_dir());
    sites.dedup();
    sites
}
