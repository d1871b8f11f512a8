//! Which engines are on this machine, and what would bring one here.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::layout::{Layout, STAMP};
use crate::versions::{Versions, pom};
use crate::{Error, Kind};

/// Names a Prism to use instead of an installed one.
const PRISM: &str = "TIEBEAM_PRISM";

/// Whether an engine is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// In this directory, whole and of the wanted versions.
    Ready(PathBuf),
    /// It would be in this one.
    Missing(PathBuf),
}

/// Whether an engine is installed in the cache in the versions that are wanted now.
pub fn installed(engine: &str, layout: &Layout, versions: &Versions) -> Result<State> {
    let place = layout.place(engine, versions)?;
    let whole = fs::read_to_string(place.join(STAMP)).is_ok_and(|found| Ok(found) == stamp(engine, versions));
    Ok(if whole { State::Ready(place) } else { State::Missing(place) })
}

/// Says of a directory that the engine in it is whole. What has no such mark counts as missing.
pub fn mark_installed(engine: &str, place: &Path, versions: &Versions) -> Result<()> {
    let stamp = stamp(engine, versions)?;
    fs::write(place.join(STAMP), stamp).map_err(|e| format!("cannot write {STAMP}: {e}"))?;
    Ok(())
}

/// What an installation is made from, so that a change of any of it installs anew.
fn stamp(engine: &str, versions: &Versions) -> Result<String> {
    let mut stamp: String =
        versions.all(engine)?.into_iter().map(|(name, version)| format!("{name} {version}\n")).collect();
    if let Some(text) = pom(engine) {
        let sum: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        stamp.push_str(&format!("pom {sum}\n"));
    }
    Ok(stamp)
}

/// Where an engine is that [`Engine::begin`](crate::Engine::begin) can start: its directory in the cache. A Prism may be
/// elsewhere, as its program: the one that `TIEBEAM_PRISM` names goes before the cache, one on `PATH` or where `go install`
/// puts programs comes after it. None where there is none; that `TIEBEAM_PRISM` names no program is an error.
pub fn find(kind: Kind) -> Result<Option<PathBuf>> {
    if let (Kind::Prism, Some(named)) = (kind, std::env::var_os(PRISM)) {
        let named = PathBuf::from(named);
        if !is_program(&named) {
            return Err(Error::from(format!("{PRISM} names `{}`, which is no program", named.display())));
        }
        // Engines run in folders of their own.
        return Ok(Some(std::path::absolute(&named).unwrap_or(named)));
    }
    match installed(kind.installation(), &Layout::of_cache()?, &Versions::built_in()?)? {
        State::Ready(place) => Ok(Some(place)),
        State::Missing(_) if kind == Kind::Prism => {
            Ok(on_path("prism").or_else(|| first("prism", go_bins())))
        }
        State::Missing(_) => Ok(None),
    }
}

/// The commands that install an engine, each of which is enough.
pub fn install_commands(kind: Kind) -> Result<Vec<String>> {
    let mut commands = vec![format!("cargo xtask engines install {}", kind.installation())];
    if kind == Kind::Prism {
        let versions = Versions::built_in()?;
        let (module, beam) = (versions.of("prism", "module")?, versions.of("prism", "beam")?);
        commands.insert(0, format!("go install {module}@v{beam}"));
    }
    Ok(commands)
}

/// A program by its name, where a shell would find it.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    first(program, std::env::split_paths(&path))
}

/// Where `go install` puts what it makes; that is often not on `PATH`.
fn go_bins() -> impl Iterator<Item = PathBuf> {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let go_path = of("GOPATH").or_else(|| Some(of("HOME")?.join("go")));
    of("GOBIN").into_iter().chain(go_path.map(|path| path.join("bin")))
}

fn first(program: &str, folders: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    // An empty or relative entry means another folder to each process.
    let mut candidates =
        folders.into_iter().filter(|folder| folder.is_absolute()).map(|folder| folder.join(program));
    candidates.find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_installation_of_other_versions_or_half_of_one_is_none() {
        let place = tempfile::tempdir().unwrap();
        let (layout, versions) = (Layout::at(place.path()), Versions::built_in().unwrap());
        let missing = |engine| match installed(engine, &layout, &versions).unwrap() {
            State::Ready(_) => None,
            State::Missing(place) => Some(place),
        };
        for engine in ["python", "prism", "flink", "spark"] {
            let at = missing(engine).unwrap();
            fs::create_dir_all(&at).unwrap();
            assert!(missing(engine).is_some(), "{engine} has no stamp");
            fs::write(at.join(STAMP), "beam 1.0\n").unwrap();
            assert!(missing(engine).is_some(), "{engine} is of other versions");
            mark_installed(engine, &at, &versions).unwrap();
            assert!(missing(engine).is_none(), "{engine}");
        }
        assert!(stamp("flink", &versions).unwrap().contains("pom "));
        assert!(!stamp("prism", &versions).unwrap().contains("pom "));
    }

    #[test]
    fn programs_are_files_that_may_run_in_absolute_folders() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = place.path().join(name);
            fs::create_dir(&folder).unwrap();
            folder
        };
        let (dull, dir, good) = (folder("dull"), folder("dir"), folder("good"));
        fs::write(dull.join("x"), "").unwrap();
        fs::create_dir(dir.join("x")).unwrap();
        fs::write(good.join("x"), "").unwrap();
        fs::set_permissions(good.join("x"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            first("x", [PathBuf::new(), PathBuf::from("."), dull, dir, good.clone()]),
            Some(good.join("x"))
        );
        assert_eq!(first("y", [good]), None);
    }

    #[test]
    fn each_engine_tells_what_installs_it() {
        assert_eq!(
            install_commands(Kind::FlinkLocal),
            Ok(vec!["cargo xtask engines install flink".to_owned()])
        );
        let prism = install_commands(Kind::Prism).unwrap();
        assert!(
            prism[0].starts_with("go install github.com/apache/beam/sdks/v2/go/cmd/prism@v"),
            "{prism:?}"
        );
        assert_eq!(prism[1], "cargo xtask engines install prism");
    }
}
