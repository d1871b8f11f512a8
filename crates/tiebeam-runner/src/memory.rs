//! What a job keeps between its stages, counted in bytes, and the shares of the limit.
//!
//! A limit is divided so that what is kept, what bundles hold while they run and what reading needs fit into it together
//! with the program itself: three eighths are kept, an eighth is in the hands of running bundles, an eighth is for
//! reading back, and the rest is for user code, models, batches on their way and the allocator.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::state::RunState;

/// No run of the shuffle is worth a place on disk below this.
const SMALLEST_RUN: u64 = 16 << 10;

/// The memory of one job.
pub(crate) struct Memory {
    /// The bytes that are kept in memory: committed, or on their way to it.
    kept: AtomicU64,
    /// The bytes that went to disk, so far.
    spilled: AtomicU64,
    limit: u64,
    threads: u64,
    dir: PathBuf,
    /// Where finished bundles are written down, if the job can be resumed.
    state: Option<Arc<RunState>>,
}

impl Memory {
    /// For a job on that many threads; what does not fit goes into files in `dir`.
    pub(crate) fn new(limit: u64, threads: usize, dir: PathBuf, state: Option<Arc<RunState>>) -> Self {
        let threads = threads.max(1) as u64;
        Memory { kept: AtomicU64::new(0), spilled: AtomicU64::new(0), limit, threads, dir, state }
    }

    /// Where spilled data goes.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where finished bundles are written down.
    pub(crate) fn state(&self) -> Option<&Arc<RunState>> {
        self.state.as_ref()
    }

    /// Whether a bundle that holds `own` bytes itself should put them on disk: more is kept than may be, and its part is
    /// large enough for that to help.
    pub(crate) fn should_spill(&self, own: u64) -> bool {
        own >= self.bundle_share() && self.kept.load(Ordering::Relaxed) > self.limit / 8 * 3
    }

    /// Whether that much could be kept in one piece.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        self.kept.load(Ordering::Relaxed).saturating_add(bytes) <= self.limit / 8 * 3
    }

    /// What each running bundle may hold of its output when no more can be kept.
    pub(crate) fn bundle_share(&self) -> u64 {
        (self.limit / 8 / self.threads).max(SMALLEST_RUN)
    }

    /// What each thread may use to read back.
    pub(crate) fn read_share(&self) -> usize {
        usize::try_from((self.limit / 8 / self.threads).max(SMALLEST_RUN)).unwrap_or(usize::MAX)
    }

    /// Counts bytes that went to disk.
    pub(crate) fn spilled(&self, bytes: u64) {
        self.spilled.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The bytes that went to disk so far.
    pub(crate) fn total_spilled(&self) -> u64 {
        self.spilled.load(Ordering::Relaxed)
    }
}

/// Some bytes that are counted as kept, until this is dropped.
pub(crate) struct Charge {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Charge {
    /// None yet.
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        Charge { memory: memory.clone(), bytes: 0 }
    }

    /// So many more.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.memory.kept.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes them all, leaving none.
    pub(crate) fn take(&mut self) -> Charge {
        Charge { memory: self.memory.clone(), bytes: std::mem::take(&mut self.bytes) }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.kept.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The memory limit of a job that was given none: half of what this process may use, by its control group or else by the
/// machine. Without any telling, 2 GiB.
pub fn default_memory_limit() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    available(&read).map_or(2 << 30, |bytes| (bytes / 2).max(64 << 20))
}

/// What this process may use, told by files.
fn available(read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let mut groups =
        vec![number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory/memory.limit_in_bytes")];
    // The group's own folder, where the file system is not mounted at it.
    let own = read("/proc/self/cgroup").unwrap_or_default();
    if let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")).filter(|path| !path.is_empty())
    {
        groups.push(number(&format!("/sys/fs/cgroup/{path}/memory.max")));
    }
    groups.into_iter().flatten().chain(machine).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_of_machine_and_group_counts() {
        let told = |files: &[(&str, &str)]| {
            let files: Vec<(String, String)> =
                files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
            available(&|path| files.iter().find(|(p, _)| p == path).map(|(_, text)| text.clone()))
        };
        let machine = ("/proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\n");
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[machine]), Some(1_024_000));
        assert_eq!(told(&[machine, ("/sys/fs/cgroup/memory.max", "max\n")]), Some(1_024_000));
        assert_eq!(told(&[machine, ("/sys/fs/cgroup/memory.max", "4096\n")]), Some(4096));
        let own = ("/proc/self/cgroup", "0::/a/b\n");
        assert_eq!(told(&[machine, own, ("/sys/fs/cgroup/a/b/memory.max", "5\n")]), Some(5));
        let old = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
        assert_eq!(told(&[machine, old]), Some(1_024_000));
        assert_eq!(told(&[("/proc/meminfo", "MemTotal: many kB")]), None);
    }

    #[test]
    fn charges_are_given_back() {
        let memory = Arc::new(Memory::new(8 << 20, 2, PathBuf::new(), None));
        assert_eq!((memory.bundle_share(), memory.read_share()), (512 << 10, 512 << 10));
        let mut charge = Charge::new(&memory);
        charge.add(3 << 20);
        assert!(!memory.should_spill(3 << 20) && !memory.has_room_for(1));
        charge.add(1);
        assert!(memory.should_spill(1 << 20));
        assert!(!memory.should_spill(1 << 10), "too little to help");
        let taken = charge.take();
        drop(charge);
        assert!(memory.should_spill(1 << 20));
        drop(taken);
        assert!(!memory.should_spill(1 << 20));
    }
}
