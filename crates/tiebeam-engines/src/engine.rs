//! An engine that runs: its processes, where it takes jobs, and its end.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::flink;
use crate::group::Group;
use crate::layout::Layout;
use crate::locate::{State, installed};
use crate::versions::Versions;
use crate::{Error, Result};

/// What can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Beam's own job service in Python, the reference.
    Python,
    /// Beam's Prism.
    Prism,
    /// Flink in the job server's process.
    FlinkLocal,
    /// A JobManager, two TaskManagers and a job server.
    FlinkCluster,
    /// Spark in the job server's process.
    Spark,
}

impl Kind {
    /// All, in the order in which tables show them.
    pub const ALL: [Kind; 5] = [Kind::Python, Kind::Prism, Kind::FlinkLocal, Kind::FlinkCluster, Kind::Spark];

    /// As commands and tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Python => "python",
            Kind::Prism => "prism",
            Kind::FlinkLocal => "flink-local",
            Kind::FlinkCluster => "flink-cluster",
            Kind::Spark => "spark",
        }
    }

    /// What has to be installed for it.
    pub fn installation(self) -> &'static str {
        match self {
            Kind::FlinkLocal | Kind::FlinkCluster => "flink",
            other => other.name(),
        }
    }

    /// All names, for messages.
    pub fn names() -> String {
        Kind::ALL.map(Kind::name).join(", ")
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Kind> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        Ok(found.ok_or_else(|| format!("there is no engine `{name}`, only {}", Kind::names()))?)
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is wanted of an engine beyond its name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Commands for a shell, each started once beside every TaskManager (once where there is none), with its number from 1
    /// in `TASK_MANAGER`. On one machine two pools can't listen at one address, and a job names one: a pool that serves
    /// both TaskManagers is started by `[ $TASK_MANAGER = 1 ] && exec …`, one each by ports made of the number.
    pub beside: Vec<String>,
    /// Flink's configuration, over our own.
    pub flink: BTreeMap<String, String>,
}

/// An engine on this machine. It ends when this is dropped, or this process is gone.
pub struct Engine {
    kind: Kind,
    endpoint: SocketAddr,
    /// Where a cluster tells of itself.
    rest: SocketAddr,
    beside: Vec<String>,
    logs: PathBuf,
    group: Group,
}

/// How long an engine may take until it takes jobs. Two cores that are busy elsewhere need a multiple of the usual 5 seconds.
const PATIENCE: Duration = Duration::from_secs(120);

impl Engine {
    /// Starts an engine of the cache and waits until it takes jobs.
    pub fn start(kind: Kind, settings: &Settings) -> Result<Engine> {
        let wanted = kind.installation();
        let State::Ready(place) = installed(wanted, &Layout::of_cache()?, &Versions::built_in()?)? else {
            return Err(format!("{kind} is not installed (cargo xtask engines install {wanted})").into());
        };
        let mut engine = Engine::begin(kind, &place, settings)?;
        engine.ready(&mut || false)?;
        Ok(engine)
    }

    /// Starts the processes of the engine that is at `place`, as [`find`](crate::find) tells it. Whether they take jobs is
    /// for [`ready`](Engine::ready) to say.
    pub fn begin(kind: Kind, place: &Path, settings: &Settings) -> Result<Engine> {
        let (run, logs) = Layout::of_cache()?.scratch(kind.name())?;
        let parts = Parts { run: run.clone(), installed: place.to_owned() };
        let [job, control, rest] = free_ports()?;
        let (group, beside) = (Group::new(&run)?, settings.beside.clone());
        let mut engine = Engine { kind, endpoint: local(job), rest: local(rest), beside, logs, group };
        match kind {
            Kind::Python => engine.process("job-service", parts.python(job))?,
            Kind::Prism => engine.process("prism", parts.prism(job))?,
            Kind::Spark => engine.process("job-server", parts.spark(job))?,
            Kind::FlinkLocal => engine.process("job-server", flink::local(&parts, job, &settings.flink)?)?,
            Kind::FlinkCluster => {
                let ports = flink::Ports { job, control, rest };
                for (name, command) in flink::cluster(&parts, ports, &settings.flink)? {
                    engine.process(&name, command)?;
                }
            }
        }
        Ok(engine)
    }

    /// Waits until the engine takes jobs; no longer once `given_up` says so, which is an error like any other.
    pub fn ready(&mut self, given_up: &mut dyn FnMut() -> bool) -> Result<()> {
        let mut managers = 1;
        if self.kind == Kind::FlinkCluster {
            managers = flink::TASK_MANAGERS;
            let registered = |engine: &mut Engine| flink::task_managers(engine.rest) == flink::TASK_MANAGERS;
            self.wait("the TaskManagers to register", given_up, registered)?;
        }
        for (at, command) in std::mem::take(&mut self.beside).iter().enumerate() {
            for manager in 1..=managers {
                let mut shell = Command::new("sh");
                shell.args(["-c", command]).env("TASK_MANAGER", manager.to_string());
                self.process(&format!("beside-{}-{manager}", at + 1), shell)?;
            }
        }
        let answers = |engine: &mut Engine| {
            TcpStream::connect_timeout(&engine.endpoint, Duration::from_secs(1)).is_ok()
        };
        self.wait("its job service to answer", given_up, answers)
    }

    /// `host:port` of the job service.
    pub fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }

    /// The folder of its processes' logs.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// What is wrong: a process that has ended. One that was started beside may end well.
    pub fn failure(&mut self) -> Option<Error> {
        let kind = self.kind;
        let bad = |(name, status, _): &(&str, ExitStatus, &Path)| {
            !(name.starts_with("beside-") && status.success())
        };
        let (name, status, log) = self.group.ended().find(bad)?;
        Some(format!("{kind}: {name} ended ({status}): {}{}", log.display(), end_of(log)).into())
    }

    fn process(&mut self, name: &str, command: Command) -> Result<()> {
        let log = self.logs.join(format!("{name}.log"));
        self.group.spawn(name, command, &log)
    }

    fn wait(
        &mut self,
        what: &str,
        given_up: &mut dyn FnMut() -> bool,
        mut done: impl FnMut(&mut Engine) -> bool,
    ) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            if done(self) {
                return Ok(());
            }
            if given_up() {
                return Err(format!("{}: no longer waited for {what}", self.kind).into());
            }
            if started.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                let logs = self.logs.display();
                return Err(format!("{}: waited {seconds} s for {what}: {logs}", self.kind).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What a log says at last, each line on its own: its last errors where it has any, since engines say much while they go
/// down, else its last lines. Nothing of an empty one.
fn end_of(log: &Path) -> String {
    const MOST: usize = 5;
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let is_error = |line: &&&str| line.contains(" ERROR ") || line.starts_with("Caused by: ");
    let errors: Vec<_> = lines.iter().filter(is_error).copied().collect();
    let told = if errors.is_empty() { lines } else { errors };
    told[told.len().saturating_sub(MOST)..].iter().map(|line| format!("\n  {line}")).collect()
}

/// What an engine's commands are made of.
pub(crate) struct Parts {
    /// Where the engine is installed: a directory, or the program itself.
    pub(crate) installed: PathBuf,
    /// Where its files go while it runs.
    pub(crate) run: PathBuf,
}

/// Packages of the JDK that Flink, Spark and the serialisers of both reach into; since Java 17 that must be allowed.
const OPENED: [&str; 13] = [
    "java.io",
    "java.lang",
    "java.lang.invoke",
    "java.lang.reflect",
    "java.net",
    "java.nio",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "sun.nio.ch",
    "sun.nio.cs",
    "sun.security.action",
    "sun.util.calendar",
];

impl Parts {
    fn python(&self, port: u16) -> Command {
        let mut command = self.command(&self.installed.join("bin/python"));
        command.args(["-m", "apache_beam.runners.portability.local_job_service_main", "--job_port"]);
        command.arg(port.to_string());
        command
    }

    fn prism(&self, port: u16) -> Command {
        // One that was found elsewhere is named itself.
        let inside = self.installed.is_dir().then(|| self.installed.join("prism"));
        let mut command = self.command(inside.as_ref().unwrap_or(&self.installed));
        command.args(["--job_port", &port.to_string(), "--serve_http=false"]);
        command
    }

    fn spark(&self, port: u16) -> Command {
        let mut command = self.java("lib", "-Xmx1536m");
        command.env("SPARK_LOCAL_IP", "127.0.0.1");
        for property in
            ["spark.ui.enabled=false", "spark.driver.host=127.0.0.1", "spark.driver.bindAddress=127.0.0.1"]
        {
            command.arg(format!("-D{property}"));
        }
        command.arg(format!("-Dspark.local.dir={}", self.run.display()));
        command.arg("org.apache.beam.runners.spark.SparkJobServerDriver");
        command.args(["--spark-master-url", "local[2]"]);
        self.serve(&mut command, port);
        command
    }

    /// What all job servers of Java are told.
    pub(crate) fn serve(&self, command: &mut Command, port: u16) {
        command.args(["--job-host", "localhost", "--job-port", &port.to_string()]);
        command.args(["--artifact-port", "0", "--expansion-port", "0", "--artifacts-dir"]);
        command.arg(self.run.join("artifacts"));
    }

    /// A Java process with all jars of a directory of the installation; the main class is still to be added.
    pub(crate) fn java(&self, jars: &str, memory: &str) -> Command {
        let mut command = self.command(Path::new("java"));
        command.arg(memory);
        command.args(OPENED.map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED")));
        command.arg(format!("-Djava.io.tmpdir={}", self.run.display()));
        command.args([
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
        ]);
        let mut jars = OsString::from(self.installed.join(jars));
        jars.push("/*");
        command.arg("-cp").arg(jars);
        command
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("TMPDIR", &self.run).current_dir(&self.run);
        command
    }
}

pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Three ports that no one listens at now.
fn free_ports() -> Result<[u16; 3]> {
    let bind = || TcpListener::bind(local(0)).map_err(|e| format!("cannot listen on 127.0.0.1: {e}"));
    // All are held before the first is given back, so that they differ.
    let listeners = [bind()?, bind()?, bind()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr().map_err(|e| e.to_string())?.port();
    }
    Ok(ports)
}

/// The body of what a server on this machine answers to a GET.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_owned()),
        None => Err(std::io::Error::other("the answer has no end of its head")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn engines_have_names() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        let told = "storm".parse::<Kind>().unwrap_err();
        assert_eq!(
            told.to_string(),
            "there is no engine `storm`, only python, prism, flink-local, flink-cluster, spark"
        );
    }

    #[test]
    fn ports_differ() {
        let mut ports = free_ports().unwrap().to_vec();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 3);
        assert!(!ports.contains(&0));
    }

    #[test]
    fn a_log_ends_in_its_last_lines_that_say_something() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        assert_eq!(end_of(&log), "");
        std::fs::write(&log, b"1\n2\n\n3\n4\n5\n\xff6\n \n").unwrap();
        assert_eq!(end_of(&log), "\n  2\n  3\n  4\n  5\n  \u{fffd}6");
        std::fs::write(&log, "1 INFO a\n2 ERROR b\nCaused by: c\n3 INFO d\n").unwrap();
        assert_eq!(end_of(&log), "\n  2 ERROR b\n  Caused by: c");
    }

    #[test]
    fn a_body_is_what_follows_the_head() {
        let listener = TcpListener::bind(local(0)).unwrap();
        let address = listener.local_addr().unwrap();
        for (answer, want) in
            [("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}\r\n\r\n", Some("{}\r\n\r\n")), ("nonsense", None)]
        {
            let server = std::thread::scope(|scope| {
                let asked = scope.spawn(|| get(address, "/x"));
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
                assert_eq!(request.next().unwrap().unwrap(), "GET /x HTTP/1.0");
                assert!(request.any(|line| line.unwrap().is_empty()));
                stream.write_all(answer.as_bytes()).unwrap();
                stream.shutdown(std::net::Shutdown::Both).unwrap();
                asked.join().unwrap()
            });
            assert_eq!(server.ok().as_deref(), want);
        }
    }
}
