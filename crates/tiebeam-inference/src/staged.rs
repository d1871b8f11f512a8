//! Model files that came with a job to this machine, under the paths that the pipeline names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

static STAGED: RwLock<BTreeMap<PathBuf, PathBuf>> = RwLock::new(BTreeMap::new());

/// Says where a file lies on this machine that has another path in the pipeline. Called by workers before any model loads.
pub fn register(path: PathBuf, here: PathBuf) {
    STAGED.write().unwrap_or_else(PoisonError::into_inner).insert(path, here);
}

/// Where to open a file of that path: where it says, or, if nothing is there, where the job's files were put.
pub fn local(path: &Path) -> PathBuf {
    if !path.exists()
        && let Some(here) = STAGED.read().unwrap_or_else(PoisonError::into_inner).get(path)
    {
        return here.clone();
    }
    path.to_owned()
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
        register(own.clone(), came.clone());
        assert_eq!(local(&own), came);
        std::fs::write(&own, b"own").unwrap();
        assert_eq!(local(&own), own);
    }
}
