//! [`Process`]: the process of a model, as its job sees it.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_graph::MODEL_PROCESS;

use super::wire::{Hello, Task, read_frame, write_frame};

/// The process could not be started.
const NOT_STARTED: &str = "TB0346";

/// So many lines that a process said last are kept.
const LAST_WORDS: usize = 12;

/// The words of a process that is gone are waited for no longer: somebody else may have its standard error open.
const A_MOMENT: Duration = Duration::from_secs(1);

/// What the process said on its standard output and error.
#[derive(Default)]
struct Words {
    last: VecDeque<String>,
    /// Whether it is passed on: what a process says before its model is loaded is told when it fails.
    passes: bool,
    are_over: bool,
    /// Whether it ran out of memory, by its own words.
    lacked_memory: bool,
}

/// How allocators say it, in lower case.
const LACKS_MEMORY: [&str; 3] = ["memory allocation of", "out of memory", "bad_alloc"];

/// Calls that wait for their answers.
#[derive(Default)]
struct Waiting {
    calls: HashMap<u64, Sender<Vec<u8>>>,
    /// Nothing comes any more.
    is_over: bool,
}

/// See the module. Dropping it ends the process.
pub(super) struct Process {
    child: Mutex<Child>,
    to: Mutex<UnixStream>,
    waiting: Arc<Mutex<Waiting>>,
    words: Arc<(Mutex<Words>, Condvar)>,
    next: AtomicU64,
    is_gone: AtomicBool,
    is_mourned: AtomicBool,
    /// Files that only this process could make; gone with it.
    _scratch: Scratch,
}

/// How a call of a process ended without an answer.
pub(super) enum NoAnswer {
    /// The process is gone.
    Gone,
    /// It took too long, so the process was killed.
    TooSlow,
    /// What was to be said can't be.
    Unsayable(Error),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder that is removed when nobody needs it any more.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let nth = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("tiebeam-model-{}-{nth}", std::process::id()));
            let mut folder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
            match folder.create(&path) {
                Ok(()) => return Ok(Scratch(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed is the operating system's to clean: it is in the folder of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Process {
    /// Starts one for that task: this program once more, with these arguments or its own, and these variables beside its own. The files
    /// are there as it names them, or here.
    pub(super) fn start(
        task: Task,
        arguments: Option<&[OsString]>,
        variables: &[(String, String)],
        files: Vec<(String, String)>,
    ) -> Result<Arc<Process>> {
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Io, NOT_STARTED, "no process could be started for a model")
                .with_source(error)
        };
        let scratch = Scratch::new().map_err(failed)?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let (said, says) = io::pipe().map_err(failed)?;
        let mut command = Command::new(this_program().map_err(failed)?);
        match arguments {
            Some(arguments) => command.args(arguments),
            None => command.args(std::env::args_os().skip(1)),
        };
        command
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env(MODEL_PROCESS, "1")
            .env("TMPDIR", &scratch.0)
            // A death is told in one line; and looking up a trace takes longer than a new process.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(says.try_clone().map_err(failed)?)
            .stderr(says)
            // A Ctrl-C in the terminal is for the job, which may want to finish what it has begun.
            .process_group(0)
            .arg0(std::env::args_os().next().unwrap_or_default());
        let child = command.spawn().map_err(failed)?;
        drop(command);
        let (waiting, words) = (Arc::<Mutex<Waiting>>::default(), Arc::<(Mutex<Words>, Condvar)>::default());
        let hello = Hello { task, scratch: scratch.0.to_string_lossy().into_owned(), files };
        let process = Process {
            child: Mutex::new(child),
            to: Mutex::new(ours.try_clone().map_err(failed)?),
            waiting: waiting.clone(),
            words: words.clone(),
            next: AtomicU64::new(0),
            is_gone: AtomicBool::new(false),
            is_mourned: AtomicBool::new(false),
            _scratch: scratch,
        };
        let threads = [
            thread::Builder::new()
                .name("tiebeam-answers".to_owned())
                .spawn(move || take_answers(ours, &waiting)),
            thread::Builder::new().name("tiebeam-words".to_owned()).spawn(move || take_words(said, &words)),
        ];
        for thread in threads {
            thread.map_err(failed)?;
        }
        // One that is gone by now is told of by the first call.
        let _ = write_frame(&*lock(&process.to), &hello.to_bytes());
        Ok(Arc::new(process))
    }

    /// Asks the process and waits for its answer.
    pub(super) fn call(
        &self,
        timeout: Option<Duration>,
        put: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<Vec<u8>, NoAnswer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut frame = id.to_le_bytes().to_vec();
        put(&mut frame).map_err(NoAnswer::Unsayable)?;
        let (tell, told) = channel();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.is_over {
                return Err(NoAnswer::Gone);
            }
            waiting.calls.insert(id, tell);
        }
        let written = {
            let to = lock(&self.to);
            // One that is stopped reads nothing.
            to.set_write_timeout(timeout).and_then(|()| write_frame(&*to, &frame))
        };
        if let Err(error) = written {
            lock(&self.waiting).calls.remove(&id);
            if error.kind() == io::ErrorKind::InvalidInput {
                let message = "a batch of more than 2 GiB can't go to a model's process";
                let error = Error::new(ErrorKind::OutOfMemory, "TB0345", message).with_source(error);
                return Err(NoAnswer::Unsayable(error));
            }
            // Whoever asks next gets another process, though nobody may have read the end of this one yet.
            self.kill();
            let is_slow = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            return Err(if is_slow { NoAnswer::TooSlow } else { NoAnswer::Gone });
        }
        let answer = match timeout {
            None => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(timeout) => told.recv_timeout(timeout),
        };
        answer.map_err(|error| match error {
            RecvTimeoutError::Disconnected => NoAnswer::Gone,
            RecvTimeoutError::Timeout => {
                self.kill();
                NoAnswer::TooSlow
            }
        })
    }

    /// The model is loaded: what the process says from now on is passed on to our own standard error.
    pub(super) fn is_ready(&self) {
        let mut words = lock(&self.words.0);
        words.passes = true;
        words.last.clear();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed) || lock(&self.waiting).is_over
    }

    /// Whether nobody else has told of its death.
    pub(super) fn is_mourned_first(&self) -> bool {
        !self.is_mourned.swap(true, Ordering::Relaxed)
    }

    fn kill(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
        let mut child = lock(&self.child);
        // What it started goes with it, as long as its own number is not somebody else's. It may be gone already.
        #[cfg(target_os = "linux")]
        if let (Ok(None), Some(group)) = (child.try_wait(), rustix::process::Pid::from_raw(child.id() as i32))
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.kill();
    }

    /// How it ended, and what it said last.
    pub(super) fn ended(&self) -> Ended {
        // Its socket is closed. That is the end of it, whose status this can't change any more; or it is of no use.
        self.kill();
        let status = lock(&self.child).wait().ok();
        let (words, is_over) = &*self.words;
        let waited = is_over.wait_timeout_while(lock(words), A_MOMENT, |words| !words.are_over);
        let (words, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Ended { status, last: words.last.iter().cloned().collect(), lacked_memory: words.lacked_memory }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // So that it does not stay as a zombie.
        let _ = lock(&self.child).wait();
    }
}

/// What is known of a process that is gone.
pub(super) struct Ended {
    status: Option<ExitStatus>,
    last: Vec<String>,
    /// Whether it ran out of memory, by its own words.
    pub(super) lacked_memory: bool,
}

impl Ended {
    /// How it ended, in words.
    pub(super) fn how(&self) -> String {
        const NAMES: [(i32, &str); 7] = [
            (4, "illegal instruction"),
            (6, "abort"),
            (7, "bus error"),
            (8, "arithmetic error"),
            (9, "killed"),
            (11, "segmentation fault"),
            (31, "forbidden system call"),
        ];
        let Some(status) = self.status else { return "ended".to_owned() };
        match (status.signal(), status.code()) {
            (Some(signal), _) => match NAMES.iter().find(|(number, _)| *number == signal) {
                Some((_, name)) => format!("ended by signal {signal} ({name})"),
                None => format!("ended by signal {signal}"),
            },
            (None, code) => format!("ended with exit code {}", code.unwrap_or_default()),
        }
    }

    /// What it said last, as an error underneath.
    pub(super) fn last_words(&self) -> Option<String> {
        (!self.last.is_empty()).then(|| format!("it said last: {}", self.last.join(" | ")))
    }
}

/// This program's file; what it was started from, even if another file has its name by now.
fn this_program() -> io::Result<std::path::PathBuf> {
    let own = std::path::Path::new("/proc/self/exe");
    if own.exists() { Ok(own.to_owned()) } else { std::env::current_exe() }
}

fn take_answers(from: UnixStream, waiting: &Mutex<Waiting>) {
    let mut from = BufReader::new(from);
    // A broken frame ends it as the process's end does.
    while let Ok(Some(mut frame)) = read_frame(&mut from) {
        let Some(id) = frame.first_chunk().map(|id| u64::from_le_bytes(*id)) else { break };
        if let Some(tell) = lock(waiting).calls.remove(&id) {
            frame.drain(..8);
            let _nobody_waits = tell.send(frame);
        }
    }
    let mut waiting = lock(waiting);
    waiting.is_over = true;
    waiting.calls.clear();
}

fn take_words(from: io::PipeReader, (words, is_over): &(Mutex<Words>, Condvar)) {
    const LONGEST: usize = 2000;
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut from, LONGEST as u64).read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            lock(words).are_over = true;
            is_over.notify_all();
            return;
        }
        let said = String::from_utf8_lossy(&line).trim_end().to_owned();
        if said.is_empty() {
            continue;
        }
        let mut words = lock(words);
        if words.passes {
            // Nothing can be done about a closed terminal.
            let _ = writeln!(io::stderr(), "{said}");
        }
        let lower = said.to_ascii_lowercase();
        words.lacked_memory |= LACKS_MEMORY.iter().any(|words| lower.contains(words));
        if words.last.len() == LAST_WORDS {
            words.last.pop_front();
        }
        words.last.push_back(said);
    }
}
