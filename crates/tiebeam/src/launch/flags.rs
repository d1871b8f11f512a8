//! The flags that every way of running shares.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// How a pipeline is run.
#[derive(Debug, Clone, Args)]
pub struct RunFlags {
    /// What runs the pipeline.
    #[arg(long, value_enum, default_value_t = RunnerKind::Embedded)]
    pub runner: RunnerKind,
    /// Threads of the embedded runner; one a core unless told.
    #[arg(long, value_name = "N")]
    pub threads: Option<std::num::NonZeroUsize>,
    /// How progress is shown, on stderr.
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto)]
    pub progress: ProgressMode,
    /// Writes what the job did, as JSON, to this file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// How long a drain may take before it becomes a cancel.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub drain_timeout: Duration,
    /// More dead letters than this make the exit code 3.
    #[arg(long, value_name = "N")]
    pub max_dead_letters: Option<u64>,
}

/// What can run a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RunnerKind {
    /// This process, on threads.
    Embedded,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// A table on a terminal, lines elsewhere.
    Auto,
    /// A table, redrawn in place.
    Tty,
    /// A line every ten seconds.
    Plain,
    /// A line of JSON for each step every second.
    Json,
    /// Nothing.
    None,
}

/// `name=value`.
pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("wanted name=value, got `{text}`")),
    }
}

/// A number with ms, s, m or h.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wanted = || format!("wanted a duration such as 500ms, 30s, 5m or 2h, got `{text}`");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wanted)?;
    let number: f64 = text[..split].trim().parse().map_err(|_| wanted())?;
    let unit = match &text[split..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wanted()),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|_| wanted())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, millis) in [("500ms", 500), ("30s", 30_000), ("1.5m", 90_000), ("2h", 7_200_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1d", "NaNs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn settings_keep_all_after_the_first_equals_sign() {
        assert_eq!(setting("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(setting("=b").is_err() && setting("ab").is_err());
    }
}
