//! Models under URLs: fetched into the user's cache, with a line now and then for those that take long.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use tiebeam_core::Result;
use tiebeam_inference::staged::{self, Listed};
use tiebeam_io::fs;
use tiebeam_io::fs::stores::{Cache, Fetching};

use super::exit::to_stderr;

/// Between two lines of a fetch.
const PAUSE: Duration = Duration::from_secs(5);

/// Lets model handlers fetch and watchers list.
pub(super) fn install() {
    staged::fetch_by(|url, sha256| {
        let said = Mutex::new(Instant::now());
        let tell = move |at: Fetching<'_>| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            if at.done == at.size || said.elapsed() >= PAUSE {
                *said = Instant::now();
                to_stderr(&line(at));
            }
        };
        Cache::of_user()?.watched_by(tell).fetch(url, sha256)
    });
    staged::list_by(list);
    #[cfg(feature = "remote")]
    tiebeam_remote::google_tokens_by(fs::stores::google_token);
}

/// `fetching gs://b/m.onnx: 12.0 of 90.1 MB`
fn line(at: Fetching<'_>) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    match at.done == at.size {
        true => format!("fetched {}: {:.1} MB\n", at.url, megabytes(at.size)),
        false => format!("fetching {}: {:.1} of {:.1} MB\n", at.url, megabytes(at.done), megabytes(at.size)),
    }
}

fn list(pattern: &str) -> Result<Vec<Listed>> {
    let seen = |file: fs::FileMetadata| {
        let modified = u64::try_from(file.modified.micros()).unwrap_or(0);
        let modified = SystemTime::UNIX_EPOCH + Duration::from_micros(modified);
        Listed { url: file.path, size: file.size, modified }
    };
    Ok(fs::list(pattern, true)?.into_iter().map(seen).collect())
}
