//! Where the engines lie in the cache.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Result;
use crate::versions::Versions;

/// `engines/` of the cache.
pub struct Layout {
    root: PathBuf,
}

/// What says that an installation is whole.
pub(crate) const STAMP: &str = ".installed";

/// Where everything is kept that was fetched: the directory that `TIEBEAM_CACHE` names, else `~/.cache/tiebeam`.
pub fn cache() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/tiebeam"));
    let cache = std::env::var_os("TIEBEAM_CACHE").map(PathBuf::from).or_else(home);
    // Engines run in folders of their own, where a relative path would be another.
    let cache = cache.map(|cache| std::path::absolute(&cache).unwrap_or(cache));
    Ok(cache.ok_or_else(|| "set TIEBEAM_CACHE or HOME: there is no place for what is fetched".to_owned())?)
}

impl Layout {
    /// The one below [`cache`].
    pub fn of_cache() -> Result<Layout> {
        Ok(Layout { root: cache()?.join("engines") })
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Layout {
        Layout { root: root.to_owned() }
    }

    /// `engines/` itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of an installed engine: its name and Beam's version.
    pub fn place(&self, engine: &str, versions: &Versions) -> Result<PathBuf> {
        let beam = versions.of(engine, if engine == "python" { "apache-beam" } else { "beam" })?;
        Ok(self.root.join(format!("{engine}-{beam}")))
    }

    /// A new directory for the files and one for the logs of something that runs now.
    pub fn scratch(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        let logs = self.logs(name)?;
        let run = self.root.join("run").join(logs.file_name().unwrap_or_default());
        create(&run)?;
        Ok((run, logs))
    }

    /// A new directory for the logs of something that runs now.
    pub fn logs(&self, name: &str) -> Result<PathBuf> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let all = self.root.join("logs");
        let logs = all.join(name);
        create(&logs)?;
        forget_old(&all);
        Ok(logs)
    }
}

fn create(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|e| format!("cannot create {}: {e}", directory.display()))?;
    Ok(())
}

/// Keeps the newest logs. That an old one can't be deleted is no reason not to start an engine.
fn forget_old(logs: &Path) {
    const KEPT: usize = 40;
    let Ok(entries) = std::fs::read_dir(logs) else { return };
    let mut all: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    all.sort();
    let old = all.len().saturating_sub(KEPT);
    for (_, path) in all.iter().take(old) {
        let _ = std::fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_runs_has_a_place_of_its_own_and_old_logs_go() {
        let place = tempfile::tempdir().unwrap();
        let layout = Layout::at(place.path());
        let places: Vec<_> = (0..50).map(|_| layout.scratch("x").unwrap()).collect();
        let mut runs: Vec<_> = places.iter().map(|(run, _)| run.clone()).collect();
        assert!(runs.iter().all(|run| run.is_dir()));
        runs.sort();
        runs.dedup();
        assert_eq!(runs.len(), 50);
        assert!(std::fs::read_dir(place.path().join("logs")).unwrap().count() <= 40);
    }

    #[test]
    fn installations_are_named_by_beams_version() {
        let versions = Versions::built_in().unwrap();
        let layout = Layout::at(Path::new("/c"));
        let beam = versions.of("flink", "beam").unwrap();
        assert_eq!(layout.place("flink", &versions).unwrap(), Path::new(&format!("/c/flink-{beam}")));
        let beam = versions.of("python", "apache-beam").unwrap();
        assert_eq!(layout.place("python", &versions).unwrap(), Path::new(&format!("/c/python-{beam}")));
    }
}
