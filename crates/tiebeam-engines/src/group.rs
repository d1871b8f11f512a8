//! Processes that end together: when they are dropped, and also when this process dies without a word.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// A process group. Its leader is a small shell that passes on the signals it reads and, when the pipe to it breaks, ends the
/// group by itself: so nothing is left behind by a `kill -9` of this process either, and there is no id of a group that
/// might be someone else's by now.
pub struct Group {
    guard: Child,
    members: Vec<Member>,
    files: PathBuf,
    stopped: bool,
}

struct Member {
    name: String,
    child: Child,
    log: PathBuf,
}

const GUARD: &str = "\
trap '' HUP INT TERM
while read -r signal; do kill -s \"$signal\" -- \"-$$\"; done
kill -s TERM -- \"-$$\"
sleep 3
rm -rf -- \"$1\"
kill -s KILL -- \"-$$\"";

/// How long a process may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(10);

impl Group {
    /// A group without members yet; `files` are theirs, and go when they do.
    pub fn new(files: &Path) -> Result<Group> {
        let guard = Command::new("sh")
            .args(["-c", GUARD, "engines-guard"])
            .arg(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|e| format!("cannot start sh: {e}"))?;
        Ok(Group { guard, members: Vec::new(), files: files.to_owned(), stopped: false })
    }

    /// Starts a member, which writes both its outputs to `log`.
    pub fn spawn(&mut self, name: &str, mut command: Command, log: &Path) -> Result<()> {
        let create = |e| format!("cannot create {}: {e}", log.display());
        let output = File::create(log).map_err(create)?;
        let errors = output.try_clone().map_err(create)?;
        command.stdout(output).stderr(errors);
        self.join(name, command, log)
    }

    /// Starts a member whose outputs the command itself says.
    pub fn join(&mut self, name: &str, mut command: Command, log: &Path) -> Result<()> {
        let group = i32::try_from(self.guard.id()).map_err(|e| e.to_string())?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .process_group(group)
            .spawn()
            .map_err(|e| format!("cannot start {program}: {e}"))?;
        self.members.push(Member { name: name.to_owned(), child, log: log.to_owned() });
        Ok(())
    }

    /// The members that have ended: their names, how, and their logs.
    pub fn ended(&mut self) -> impl Iterator<Item = (&str, ExitStatus, &Path)> {
        self.members.iter_mut().filter_map(|member| match member.child.try_wait() {
            Ok(Some(status)) => Some((member.name.as_str(), status, member.log.as_path())),
            _ => None,
        })
    }

    /// Ends all of them: asks, waits, and then no longer asks.
    pub fn stop(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        self.signal("TERM");
        let patience = Instant::now() + PATIENCE;
        while self.members.iter_mut().any(|member| matches!(member.child.try_wait(), Ok(None)))
            && Instant::now() < patience
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = std::fs::remove_dir_all(&self.files);
        // What the members started themselves may still run; the guard goes with it.
        self.signal("KILL");
        for member in &mut self.members {
            let _ = member.child.wait();
        }
        let _ = self.guard.wait();
    }

    fn signal(&mut self, name: &str) {
        if let Some(pipe) = &mut self.guard.stdin {
            let _ = writeln!(pipe, "{name}").and_then(|()| pipe.flush());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A member that holds one end of a pair of sockets, and so does what it starts: the other end sees when the last is gone.
    fn member(group: &mut Group, script: &str, log: &Path) -> BufReader<UnixStream> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(std::os::fd::OwnedFd::from(theirs));
        group.join("member", command, log).unwrap();
        BufReader::new(ours)
    }

    fn word(from: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    #[test]
    fn members_and_what_they_started_end_with_the_group() {
        let place = tempfile::tempdir().unwrap();
        let files = place.path().join("files");
        std::fs::create_dir(&files).unwrap();
        let mut group = Group::new(&files).unwrap();
        // The grandchild is deaf to TERM.
        let script = "sh -c \"trap '' TERM; echo grandchild; while :; do sleep 1; done\" & sleep 1000";
        let mut end = member(&mut group, script, &place.path().join("log"));
        assert_eq!(word(&mut end), "grandchild");
        assert!(group.ended().next().is_none());
        drop(group);
        assert_eq!(end.read(&mut [0; 9]).unwrap(), 0, "someone still holds the other end");
        assert!(!files.exists());
    }

    #[test]
    fn a_broken_pipe_to_the_guard_ends_the_group() {
        let place = tempfile::tempdir().unwrap();
        let mut group = Group::new(&place.path().join("none")).unwrap();
        let mut end = member(&mut group, "echo here; sleep 1000", &place.path().join("log"));
        assert_eq!(word(&mut end), "here");
        // As when this process dies.
        group.guard.stdin = None;
        assert_eq!(end.read(&mut [0; 9]).unwrap(), 0);
    }

    #[test]
    fn a_member_that_ended_is_told_with_its_log() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        let mut group = Group::new(place.path()).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo why >&2; exit 7"]);
        group.spawn("short", command, &log).unwrap();
        let _ = group.members[0].child.wait();
        let (name, status, told) = group.ended().next().unwrap();
        assert_eq!((name, status.code(), told), ("short", Some(7), log.as_path()));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "why\n");
        let missing = group.join("x", Command::new("no-such-program-here"), &log).unwrap_err().to_string();
        assert!(missing.starts_with("cannot start no-such-program-here: "), "{missing}");
    }
}
