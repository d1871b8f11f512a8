//! `cargo xtask engines`: real Beam engines, installed, started on loopback and asked to run our pipelines.
//!
//! Where they lie and how they are started is `tiebeam-engines`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tiebeam_engines::{Engine, Kind, Settings};

use crate::say;

mod cases;
mod drill;
mod harness;
mod install;
mod table;

/// Where the poms and the cases are, in the clone.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engines")
}

/// The task with its arguments.
pub(crate) fn run(arguments: &[&str]) -> Result<bool, String> {
    match arguments {
        ["install", names @ ..] => install::run(names),
        ["start", name, rest @ ..] => start(name, rest),
        ["test", rest @ ..] => harness::run(rest),
        ["drill", rest @ ..] => drill::run(rest),
        ["start"] => Err(format!("start which? {}", Kind::names())),
        other => Err(format!(
            "engines knows install, start, test and drill, not `{}`; see cargo xtask help",
            other.first().unwrap_or(&"")
        )),
    }
}

/// Starts an engine and keeps it until a signal comes, standard input ends, or one of its processes does.
fn start(name: &str, arguments: &[&str]) -> Result<bool, String> {
    let kind: Kind = name.parse()?;
    let settings = settings(arguments)?;
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
            return Err(failure.into());
        }
    }
    Ok(true)
}

/// What the flags say of an engine.
fn settings(arguments: &[&str]) -> Result<Settings, String> {
    let mut settings = Settings::default();
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("`{flag}` wants a value"));
        match *flag {
            "--beside" => settings.beside.push((*value?).to_owned()),
            "--flink" => {
                let value = value?;
                let (name, value) = value
                    .split_once('=')
                    .ok_or_else(|| format!("`--flink` wants NAME=VALUE, got `{value}`"))?;
                settings.flink.insert(name.to_owned(), value.to_owned());
            }
            other => return Err(format!("engines start has no `{other}`, only --beside and --flink")),
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn settings_are_read() {
        let read = settings(&["--beside", "a b", "--flink", "x.y=1=2", "--beside", "c", "--flink", "x.y=3"]);
        let read = read.unwrap();
        assert_eq!(read.beside, ["a b", "c"]);
        assert_eq!(read.flink, BTreeMap::from([("x.y".to_owned(), "3".to_owned())]));
        for wrong in [&["--beside"][..], &["--flink", "x"], &["--pool", "x"]] {
            assert!(settings(wrong).is_err(), "{wrong:?}");
        }
    }
}
