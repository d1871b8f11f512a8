//! Model files that came with a job to this machine, under the paths that the pipeline names.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

type Find = dyn Fn(&Path) -> Option<PathBuf> + Send + Sync;

static STAGED: OnceLock<Box<Find>> = OnceLock::new();

/// Says how to find a file on this machine that has another path in the pipeline. Called by workers before they build a
/// pipeline; the first to say so is heard.
pub fn find_by(find: impl Fn(&Path) -> Option<PathBuf> + Send + Sync + 'static) {
    let _ = STAGED.set(Box::new(find));
}

/// Where to open a file of that path: where it says, or, if nothing is there, where the job's files were put.
pub fn local(path: &Path) -> PathBuf {
    let staged = || if path.exists() { None } else { STAGED.get()?(path) };
    staged().unwrap_or_else(|| path.to_owned())
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
        std::fs::write(&own, b"own").unwrap();
        assert_eq!(local(&own), own);
    }
}
