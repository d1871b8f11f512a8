//! Which jobs run on this machine: each that can be looked at leaves a note where others find it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

/// A job that can be looked at. Its note goes when this does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub job: String,
    /// The process.
    pub pid: u32,
    /// Where it answers.
    pub address: SocketAddr,
    note: PathBuf,
    own: bool,
}

/// The folder of the notes: the user's own.
fn folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("tiebeam"),
        None => {
            let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
            let user: String = user.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
            std::env::temp_dir().join(format!("tiebeam-jobs-{user}"))
        }
    }
}

impl Known {
    /// Leaves a note. Where that is not possible the job runs all the same: its address was printed.
    pub(super) fn announce(job: &str, address: SocketAddr) -> Option<Known> {
        let (folder, pid) = (folder(), std::process::id());
        create_private(&folder).ok()?;
        let note = folder.join(format!("{pid}-{}.json", address.port()));
        let text = json!({ "job": job, "pid": pid, "address": address.to_string() }).to_string();
        std::fs::write(&note, text).ok()?;
        Some(Known { job: job.to_owned(), pid, address, note, own: true })
    }

    fn read(note: PathBuf) -> Option<Known> {
        let value: Value = serde_json::from_str(&std::fs::read_to_string(&note).ok()?).ok()?;
        let address: SocketAddr = value["address"].as_str()?.parse().ok()?;
        // A note is only a hint: it leads to no other machine.
        address.ip().is_loopback().then_some(())?;
        let pid = u32::try_from(value["pid"].as_u64()?).ok()?;
        Some(Known { job: value["job"].as_str()?.to_owned(), pid, address, note, own: false })
    }

    /// Removes the note of a job that does not answer any more.
    pub fn forget(&self) {
        // Somebody else may have done so.
        let _ = std::fs::remove_file(&self.note);
    }
}

#[cfg(unix)]
fn create_private(folder: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_private(folder: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)
}

impl Drop for Known {
    fn drop(&mut self) {
        if self.own {
            self.forget();
        }
    }
}

/// The jobs that left notes, by process.
pub fn known_jobs() -> Vec<Known> {
    let entries = std::fs::read_dir(folder()).into_iter().flatten().filter_map(Result::ok);
    let notes =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
    let mut jobs: Vec<Known> = notes.filter_map(Known::read).collect();
    jobs.sort_by_key(|job| (job.pid, job.address.port()));
    jobs
}
