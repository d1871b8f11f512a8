//! The flags that every way of running shares.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// How a pipeline is run.
#[derive(Debug, Clone, Args)]
pub struct RunFlags {
    /// What runs the pipeline.
    #[arg(long, value_enum, default_value_t = RunnerKind::Embedded)]
    pub runner: RunnerKind,
    /// The job service of another engine. Without it, `--runner prism`, `flink` and `spark` start a local one.
    #[arg(long, value_name = "HOST:PORT")]
    pub job_endpoint: Option<String>,
    /// Where the steps run on another engine: loopback, external=HOST:PORT (a pool), process, process=COMMAND, docker=IMAGE.
    #[arg(long, value_name = "PLACE", value_parser = worker_place)]
    pub environment: Option<WorkerPlace>,
    /// An option for the other engine, such as parallelism=4; a value that is JSON is taken as JSON. As often as wanted.
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = setting)]
    pub engine_options: Vec<(String, String)>,
    /// The job's name on the other engine.
    #[arg(long, value_name = "NAME")]
    pub job_name: Option<String>,
    /// Ends once the other engine has started the job; prints the job's id on stdout.
    #[arg(long)]
    pub detach: bool,
    /// Threads of the embedded runner; one a core unless told.
    #[arg(long, value_name = "N")]
    pub threads: Option<std::num::NonZeroUsize>,
    /// The memory that the embedded runner should do with, such as 512MiB or 2GB; what is kept between stages goes to disk
    /// beyond its share. Half of what the process may use unless told.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory_limit: Option<u64>,
    /// A folder where the embedded runner writes down what it has done, so that the job can go on after a kill.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Goes on with the killed job that is in the state directory, if there is one.
    #[arg(long, requires = "state_dir")]
    pub resume: bool,
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
    /// How it is tried and looked at.
    #[command(flatten)]
    pub look: LookFlags,
}

/// The flags by which a job is tried and looked at.
#[derive(Debug, Clone, Default, Args)]
pub struct LookFlags {
    /// Checks everything and says what would be read, done and written; runs nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Each source gives at most as many elements in all, to try a pipeline on a few. Embedded runner only.
    #[arg(long, value_name = "N", conflicts_with = "state_dir")]
    pub limit: Option<u64>,
    /// Serves a page about the running job on this machine, for a browser, `tiebeam top` and `tiebeam tap`. Without an
    /// address a free port is taken; it is printed.
    #[arg(long, value_name = "IP:PORT", num_args = 0..=1, require_equals = true, default_missing_value = "127.0.0.1:0", value_parser = address)]
    pub ui: Option<SocketAddr>,
}

/// What can run a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RunnerKind {
    /// This process, on threads.
    Embedded,
    /// Beam's Prism, a local engine in one binary.
    Prism,
    /// Apache Flink.
    Flink,
    /// Apache Spark.
    Spark,
    /// Google Cloud Dataflow.
    Dataflow,
    /// Whatever job service listens at `--job-endpoint`.
    Portable,
}

impl RunnerKind {
    /// As the flag and the report write it.
    pub fn name(self) -> &'static str {
        match self {
            RunnerKind::Embedded => "embedded",
            RunnerKind::Prism => "prism",
            RunnerKind::Flink => "flink",
            RunnerKind::Spark => "spark",
            RunnerKind::Dataflow => "dataflow",
            RunnerKind::Portable => "portable",
        }
    }
}

/// Where the steps of a job on another engine run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerPlace {
    /// In the process that submitted the job; the engine connects back to it.
    Loopback,
    /// In workers that the pool at this `host:port` starts.
    External(String),
    /// In processes that the engine starts: this program, or another path of it on the engine's machines.
    Process(Option<String>),
    /// In containers of this image.
    Docker(String),
}

/// `loopback`, `external=HOST:PORT`, `process[=COMMAND]`, `docker=IMAGE`.
pub(crate) fn worker_place(text: &str) -> Result<WorkerPlace, String> {
    let (kind, value) = match text.split_once('=') {
        Some((kind, value)) if !value.is_empty() => (kind, Some(value.to_owned())),
        Some(_) => return Err(format!("`{text}` says nothing after the `=`")),
        None => (text, None),
    };
    match (kind.to_ascii_lowercase().as_str(), value) {
        ("loopback", None) => Ok(WorkerPlace::Loopback),
        ("external", Some(address)) => Ok(WorkerPlace::External(address)),
        ("process", command) => Ok(WorkerPlace::Process(command)),
        ("docker", Some(image)) => Ok(WorkerPlace::Docker(image)),
        _ => Err(format!(
            "wanted loopback, external=HOST:PORT, process, process=COMMAND or docker=IMAGE, got `{text}`"
        )),
    }
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

/// `IP:PORT`, or a port of this machine.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let of_port = || text.parse().ok().map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port)));
    let host = || {
        text.strip_prefix("localhost:")?
            .parse()
            .ok()
            .map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port)))
    };
    text.parse()
        .ok()
        .or_else(of_port)
        .or_else(host)
        .ok_or_else(|| format!("wanted an address such as 127.0.0.1:4040, or a port, got `{text}`"))
}

/// A number of bytes: with nothing, B, KB, MB, GB, TB or KiB, MiB, GiB, TiB.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wanted = || format!("wanted a size such as 512MiB or 2GB, got `{text}`");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..split].trim().parse().map_err(|_| wanted())?;
    let unit = match text[split..].to_ascii_lowercase().as_str() {
        "" | "b" => 1u64,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(wanted()),
    };
    let bytes = number * unit as f64;
    if (1.0..9e18).contains(&bytes) { Ok(bytes as u64) } else { Err(wanted()) }
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
    fn addresses_are_ports_too() {
        for text in ["4040", "127.0.0.1:4040", "localhost:4040"] {
            assert_eq!(address(text), Ok(SocketAddr::from(([127, 0, 0, 1], 4040))), "{text}");
        }
        assert_eq!(address("[::1]:1").map(|address| address.port()), Ok(1));
        for text in ["", "here", "127.0.0.1", "70000", ":80", "localhost:"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [
            ("65536", 65_536),
            ("64KiB", 65_536),
            ("512MiB", 512 << 20),
            ("2GB", 2_000_000_000),
            ("1.5 gib", 3 << 29),
            ("3g", 3 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "0", "-1GB", "1PB", "NaN", "1e30", "half"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn places_of_workers_are_read() {
        assert_eq!(worker_place("LOOPBACK"), Ok(WorkerPlace::Loopback));
        assert_eq!(worker_place("external=h:1"), Ok(WorkerPlace::External("h:1".to_owned())));
        assert_eq!(worker_place("process"), Ok(WorkerPlace::Process(None)));
        assert_eq!(worker_place("process=/a b"), Ok(WorkerPlace::Process(Some("/a b".to_owned()))));
        assert_eq!(worker_place("docker=i:1"), Ok(WorkerPlace::Docker("i:1".to_owned())));
        for text in ["", "external", "docker=", "loopback=x", "kubernetes"] {
            assert!(worker_place(text).is_err(), "{text}");
        }
    }

    #[test]
    fn settings_keep_all_after_the_first_equals_sign() {
        assert_eq!(setting("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(setting("=b").is_err() && setting("ab").is_err());
    }
}
