//! The logging stream: what steps and the worker say reaches the engine's log.

use std::cell::RefCell;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tiebeam_model::fn_api::beam_fn_logging_client::BeamFnLoggingClient;
use tiebeam_model::fn_api::{LogEntry, log_entry};
use tiebeam_model::prost_types::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::wire::{Identity, connect, forward, runtime};

/// Entries that wait for the network. More are dropped, and their number is told: a log must never stop a bundle.
const WAITING: usize = 10_000;
/// How long a worker that goes waits for its last entries to be taken.
const LAST_WORDS: Duration = Duration::from_secs(1);

thread_local! {
    /// The worker that this thread works for, and the instruction that it works on.
    static WORKING: RefCell<Option<(WorkerLog, String)>> = const { RefCell::new(None) };
}

/// Says what this thread works on until the guard is dropped.
pub(crate) fn working_on(log: &WorkerLog, instruction: &str) -> impl Drop + use<> {
    struct Ended;
    impl Drop for Ended {
        fn drop(&mut self) {
            WORKING.set(None);
        }
    }
    WORKING.set(Some((log.clone(), instruction.to_owned())));
    Ended
}

/// Where log entries go: to the engine, or to stderr where it takes none.
#[derive(Clone)]
pub(crate) struct WorkerLog(Arc<Inner>);

struct Inner {
    worker: String,
    sender: Mutex<Option<Open>>,
}

/// A way to the engine.
#[derive(Clone)]
struct Open {
    entries: mpsc::Sender<LogEntry>,
    _open: Arc<mpsc::Receiver<()>>,
}

impl WorkerLog {
    /// Entries go to stderr.
    pub(crate) fn to_stderr(worker: &str) -> Self {
        WorkerLog(Arc::new(Inner { worker: worker.to_owned(), sender: Mutex::new(None) }))
    }

    /// Entries go to the logging service at that address; nobody waits for it.
    pub(crate) fn to_runner(worker: &str, identity: Identity, address: &str) -> Self {
        let Ok(runtime) = runtime() else { return WorkerLog::to_stderr(worker) };
        let (sender, entries) = mpsc::channel::<LogEntry>(WAITING);
        // Closed when the log is.
        let (ended, open) = mpsc::channel::<()>(1);
        let address = address.to_owned();
        runtime.spawn(async move {
            let Ok(channel) = connect("the runner's logging service", &address).await else { return };
            let mut client = BeamFnLoggingClient::with_interceptor(channel, identity);
            let (body, messages) = mpsc::channel(1);
            let batches =
                ReceiverStream::new(messages).map(|entry| log_entry::List { log_entries: vec![entry] });
            let heard = async {
                let Ok(answer) = client.logging(batches).await else { return };
                let mut control = answer.into_inner();
                // The runner may send word about log levels; there is nothing to answer.
                while let Ok(Some(_)) = control.message().await {}
            };
            tokio::select! {
                () = heard => {}
                () = forward(entries, body) => {}
                // The runner has a moment to take the last words.
                () = async { ended.closed().await; tokio::time::sleep(LAST_WORDS).await } => {}
            }
        });
        WorkerLog(Arc::new(Inner {
            worker: worker.to_owned(),
            sender: Mutex::new(Some(Open { entries: sender, _open: Arc::new(open) })),
        }))
    }

    /// Lets the stream end once what is written has left; later entries go to stderr.
    pub(crate) fn close(&self) {
        self.0.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Writes an entry.
    pub(crate) fn write(&self, severity: log_entry::severity::Enum, message: &str, place: &str) {
        let sender = self.0.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(sender) = sender else {
            // A worker that cannot say anything anywhere still works.
            let _ = writeln!(std::io::stderr(), "worker {}: {message}", self.0.worker);
            return;
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = LogEntry {
            severity: severity.into(),
            timestamp: Some(Timestamp {
                seconds: since.as_secs().cast_signed(),
                nanos: since.subsec_nanos().cast_signed(),
            }),
            message: message.to_owned(),
            instruction_id: WORKING
                .with_borrow(|on| on.as_ref().map(|(_, id)| id.clone()))
                .unwrap_or_default(),
            log_location: place.to_owned(),
            thread: std::thread::current().name().unwrap_or_default().to_owned(),
            ..LogEntry::default()
        };
        // A full queue drops the entry.
        let _ = sender.entries.try_send(entry);
    }
}

/// Takes what the `log` macros say in this process, and passes it to the worker whose thread says it.
struct ByThread;

impl log::Log for ByThread {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // What the network crates say about themselves would feed itself.
        let target = metadata.target();
        !["h2", "hyper", "tonic", "tower"].iter().any(|noisy| target.starts_with(noisy))
    }

    fn log(&self, record: &log::Record<'_>) {
        use log_entry::severity::Enum;
        if !self.enabled(record.metadata()) {
            return;
        }
        let severity = match record.level() {
            log::Level::Error => Enum::Error,
            log::Level::Warn => Enum::Warn,
            log::Level::Info => Enum::Info,
            log::Level::Debug => Enum::Debug,
            log::Level::Trace => Enum::Trace,
        };
        let place = match (record.file(), record.line()) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            _ => record.target().to_owned(),
        };
        match WORKING.with_borrow(|on| on.as_ref().map(|(log, _)| log.clone())) {
            Some(log) => log.write(severity, &record.args().to_string(), &place),
            // A worker that cannot say anything anywhere still works.
            None => drop(writeln!(std::io::stderr(), "{}", record.args())),
        }
    }

    fn flush(&self) {}
}

/// Takes what the `log` macros say from now on; a program that has its own logger keeps it.
pub(crate) fn install() {
    if log::set_logger(&ByThread).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}
