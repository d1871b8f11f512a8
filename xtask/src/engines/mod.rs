//! `cargo xtask engines`: real Beam engines, installed, started on loopback and asked to run our pipelines.
//!
//! # Where things lie
//!
//! All below `TIEBEAM_CACHE` or `~/.cache/tiebeam`, with the versions of `engines/versions.toml` in the names:
//!
//! | path | what |
//! |---|---|
//! | `engines/python-2.77.0/bin/python` | a Python with Beam in it: `-m apache_beam.runners.portability.local_job_service_main` |
//! | `engines/prism-2.77.0/prism` | Prism |
//! | `engines/flink-2.62.0/lib/*.jar` | class path of `org.apache.beam.runners.flink.FlinkJobServerDriver`, and of Flink's own processes |
//! | `engines/flink-2.62.0/gradle/wrapper/*.jar` | the same jars again (hard links): the class path of a job server that stages none of them, see `flink.rs` |
//! | `engines/spark-2.62.0/lib/*.jar` | class path of `org.apache.beam.runners.spark.SparkJobServerDriver` |
//! | `engines/*/.installed` | says that an installation is whole, and of which versions |
//! | `engines/run/NAME-PID-N/` | configuration and temporary files of an engine that runs; gone when it stops |
//! | `engines/logs/NAME-PID-N/` | what its processes said |
//!
//! The version in a name is Beam's.

use std::io::Read;
use std::time::Duration;

use self::engine::{Engine, Kind, Settings};
use crate::say;

mod cases;
mod engine;
mod flink;
mod group;
mod harness;
mod install;
mod layout;
mod table;
mod versions;

/// The task with its arguments.
pub(crate) fn run(arguments: &[&str]) -> Result<bool, String> {
    match arguments {
        ["install", names @ ..] => install::run(names),
        ["start", name, rest @ ..] => start(name, rest),
        ["test", rest @ ..] => harness::run(rest),
        ["start"] => Err(format!("start which? {}", Kind::names())),
        other => Err(format!(
            "engines knows install, start and test, not `{}`; see cargo xtask help",
            other.first().unwrap_or(&"")
        )),
    }
}

/// Starts an engine and keeps it until a signal comes, standard input ends, or one of its processes does.
fn start(name: &str, arguments: &[&str]) -> Result<bool, String> {
    let kind: Kind = name.parse()?;
    let settings = Settings::of(arguments)?;
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGHUP,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
    ])
    .map_err(|e| format!("cannot wait for signals: {e}"))?;
    let mut engine = Engine::start(kind, &settings)?;
    say(format_args!("{name} {}", engine.endpoint()));
    let (ended, end) = std::sync::mpsc::channel();
    let by_signal = ended.clone();
    std::thread::spawn(move || {
        signals.forever().next();
        let _ = by_signal.send(());
    });
    std::thread::spawn(move || {
        let mut nothing = [0; 256];
        while std::io::stdin().read(&mut nothing).is_ok_and(|n| n > 0) {}
        let _ = ended.send(());
    });
    // Between two looks at the processes nothing is lost: they write their logs without us.
    while end.recv_timeout(Duration::from_millis(200)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        if let Some(failure) = engine.failure() {
            return Err(failure);
        }
    }
    Ok(true)
}
