//! Where words go: data to stdout, the rest to stderr. A closed one is nobody's problem.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tiebeam::{Error, Result};
use tiebeam_yaml::{Environment, Level, Report};

/// Whether somebody closed stdout while it was written to.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Writes to stdout.
pub fn stdout(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Writes to stderr.
pub fn stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Shows mistakes in a pipeline file.
pub fn report(report: &Report) {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    stderr(&report.render(colours));
    let n = report.diagnostics().len();
    if n > 1 {
        stderr(&format!("\n{n} mistakes in {}\n", report.source().name()));
    }
}

/// The environment of a pipeline that this command runs.
pub fn environment() -> Environment {
    Environment::new(
        |level, line| {
            let level = match level {
                Level::Debug => "debug",
                Level::Info => "info",
                Level::Error => "error",
            };
            stderr(&format!("{level}: {line}\n"));
        },
        print,
    )
}

fn print(lines: &[u8]) -> Result<()> {
    if CLOSED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(lines).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // Whoever read has seen enough; files that the job writes too are still wanted.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            CLOSED.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(error) => {
            let message = format!("standard output cannot be written: {error}");
            Err(Error::new(tiebeam::ErrorKind::Output, "TB0590", message))
        }
    }
}
