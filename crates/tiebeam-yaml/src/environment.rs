//! What a pipeline may use of the world: where logs and standard output go.

use std::fmt;
use std::sync::Arc;

use tiebeam_core::Result;

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For who looks closely.
    Debug,
    /// For everybody.
    Info,
    /// Something is wrong.
    Error,
}

type Log = dyn Fn(Level, &str) + Send + Sync;
type Print = dyn Fn(&[u8]) -> Result<()> + Send + Sync;

/// What a pipeline may use of the world.
#[derive(Clone)]
pub struct Environment {
    log: Arc<Log>,
    print: Arc<Print>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

impl Environment {
    /// `log` takes the lines of LogForTesting, `print` whole lines for standard output.
    pub fn new(
        log: impl Fn(Level, &str) + Send + Sync + 'static,
        print: impl Fn(&[u8]) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Environment { log: Arc::new(log), print: Arc::new(print) }
    }

    /// Writes a log line.
    pub fn log(&self, level: Level, line: &str) {
        (self.log)(level, line);
    }

    /// Writes whole lines to standard output.
    ///
    /// # Errors
    /// When it is closed or full.
    pub fn print(&self, lines: &[u8]) -> Result<()> {
        (self.print)(lines)
    }
}
