//! `cargo xtask engines install`: engines from registries, through the registries' own clients.
//!
//! What this machine or its registries can't give is skipped, with the reason and what would cure it; everything else that
//! goes wrong is a failure. An engine that is here in the wanted versions is left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tiebeam_engines::{Layout, State, Versions, installed, mark_installed};

use crate::say;

/// What can be installed.
pub(crate) const ENGINES: [&str; 5] = ["python", "prism", "flink", "spark", "java"];

/// Why an engine was not installed.
enum Refusal {
    /// Something is not here: what, and what would cure it.
    Skipped(String, String),
    Failed(String),
}

impl From<tiebeam_engines::Error> for Refusal {
    fn from(error: tiebeam_engines::Error) -> Refusal {
        Refusal::Failed(error.into())
    }
}

impl From<String> for Refusal {
    fn from(message: String) -> Refusal {
        Refusal::Failed(message)
    }
}

/// The task: installs the named engines, or all. False where one failed.
pub(crate) fn run(names: &[&str]) -> Result<bool, String> {
    if let Some(unknown) = names.iter().find(|name| !ENGINES.contains(name)) {
        return Err(format!("there is no engine `{unknown}` to install, only {}", ENGINES.join(", ")));
    }
    let (layout, versions) = (Layout::of_cache()?, Versions::built_in()?);
    let root = layout.root();
    fs::create_dir_all(root).map_err(|e| format!("cannot create {}: {e}", root.display()))?;
    // Two at once would write into the same directories.
    let lock = fs::File::create(root.join(".lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| format!("cannot lock {}: {e}", root.display()))?;
    let mut good = true;
    for engine in ENGINES.into_iter().filter(|engine| names.is_empty() || names.contains(engine)) {
        let started = Instant::now();
        let seconds = || format!("{:.1} s", started.elapsed().as_secs_f64());
        match installed(engine, &layout, &versions)? {
            State::Ready(place) => {
                say(format_args!("engines: {engine} is here, {}: {}", seconds(), place.display()))
            }
            State::Missing(place) => match install(engine, &place, &layout, &versions) {
                Ok(()) => {
                    say(format_args!("engines: {engine} installed, {}: {}", seconds(), place.display()))
                }
                Err(Refusal::Skipped(reason, cure)) => {
                    say(format_args!("engines: {engine} skipped, {reason} ({cure})"))
                }
                Err(Refusal::Failed(reason)) => {
                    good = false;
                    say(format_args!("engines: {engine} FAILED, {}: {reason}", seconds()));
                }
            },
        }
    }
    Ok(good)
}

fn install(engine: &str, place: &Path, layout: &Layout, versions: &Versions) -> Result<(), Refusal> {
    if place.exists() {
        fs::remove_dir_all(place).map_err(|e| format!("cannot replace {}: {e}", place.display()))?;
    }
    fs::create_dir_all(place).map_err(|e| format!("cannot create {}: {e}", place.display()))?;
    let logs = layout.logs(&format!("install-{engine}"))?;
    let client = Client { engine, log: logs.join("log") };
    match engine {
        "python" => python(&client, place, versions),
        "prism" => prism(&client, place, versions),
        _ => maven(&client, place, versions),
    }?;
    // The stamp comes last: what lies there without one is not whole.
    Ok(mark_installed(engine, place, versions)?)
}

/// A Python of its own with Beam in it.
fn python(client: &Client<'_>, place: &Path, versions: &Versions) -> Result<(), Refusal> {
    client.need("python3", &["--version"], "apt install python3 python3-venv")?;
    client.need("python3", &["-c", "import ensurepip, venv"], "apt install python3-venv")?;
    client.run(Command::new("python3").args(["-m", "venv"]).arg(place))?;
    let python = place.join("bin/python");
    let packages = versions.all("python")?;
    let packages = packages.iter().map(|(name, version)| format!("{name}=={version}"));
    client
        .run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--no-input"]).args(packages))?;
    let check = "import apache_beam.runners.portability.local_job_service_main";
    client.run(Command::new(&python).args(["-c", check]))
}

fn prism(client: &Client<'_>, place: &Path, versions: &Versions) -> Result<(), Refusal> {
    client.need("go", &["version"], "apt install golang-go")?;
    let module = format!("{}@v{}", versions.of("prism", "module")?, versions.of("prism", "beam")?);
    client.run(Command::new("go").args(["install", &module]).env("GOBIN", place))?;
    present(&place.join("prism"))
}

/// A class path from Maven, as the engine's pom says.
fn maven(client: &Client<'_>, place: &Path, versions: &Versions) -> Result<(), Refusal> {
    let engine = client.engine;
    client.need("java", &["-version"], "apt install openjdk-17-jdk-headless")?;
    client.need("mvn", &["--version"], "apt install maven")?;
    let plugin = versions.of("maven", "dependency-plugin")?;
    let lib = place.join("lib");
    let mut copy = Command::new("mvn");
    copy.args(["--quiet", "--batch-mode", "-Dstyle.color=never", "--file"]);
    copy.arg(super::folder().join(engine).join("pom.xml"));
    copy.arg(format!("org.apache.maven.plugins:maven-dependency-plugin:{plugin}:copy-dependencies"));
    copy.arg("-DincludeScope=runtime").arg(format!("-DoutputDirectory={}", lib.display()));
    for (name, version) in versions.all(engine)? {
        copy.arg(format!("-D{name}={version}"));
    }
    client.run(&mut copy)?;
    let beam = versions.of(engine, "beam")?;
    let runner = match engine {
        "java" => "portability-java".to_owned(),
        _ => format!("{engine}-{}", versions.of(engine, "runner")?),
    };
    present(&lib.join(format!("beam-runners-{runner}-{beam}.jar")))?;
    if engine == "flink" {
        again(&lib, &place.join("gradle/wrapper"))?;
    }
    Ok(())
}

/// The same files in another directory, without taking their room again where the file system can.
fn again(from: &Path, into: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("cannot fill {}: {e}", into.display());
    fs::create_dir_all(into).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (old, new) = (entry.path(), into.join(entry.file_name()));
        fs::hard_link(&old, &new).or_else(|_| fs::copy(&old, &new).map(|_| ())).map_err(failed)?;
    }
    Ok(())
}

fn present(file: &Path) -> Result<(), Refusal> {
    if file.is_file() { Ok(()) } else { Err(Refusal::Failed(format!("{} was not made", file.display()))) }
}

/// Runs registries' clients, and keeps what they say.
struct Client<'a> {
    engine: &'a str,
    log: PathBuf,
}

impl Client<'_> {
    /// A program that is on other machines, or not.
    fn need(&self, program: &str, arguments: &[&str], cure: &str) -> Result<(), Refusal> {
        let skipped = |reason: String| Err(Refusal::Skipped(reason, cure.to_owned()));
        match Command::new(program).args(arguments).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said.lines().last().unwrap_or_default().trim().to_owned();
                skipped(format!("`{program} {}` fails: {last}", arguments.join(" ")))
            }
            Err(_) => skipped(format!("{program} is not on this machine")),
        }
    }

    fn run(&self, command: &mut Command) -> Result<(), Refusal> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = command.output().map_err(|e| format!("cannot run {program}: {e}"))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        fs::write(&self.log, &*said).map_err(|e| format!("cannot write {}: {e}", self.log.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let again = format!("cargo xtask engines install {}", self.engine);
        match (line_with(&said, UNREACHABLE), line_with(&said, NOT_SERVED)) {
            (Some(line), _) => Err(Refusal::Skipped(
                format!("the registry can't be reached: {line}"),
                format!("later: {again}"),
            )),
            (None, Some(line)) => Err(Refusal::Skipped(
                format!("the registry does not have it: {line}"),
                format!("change engines/versions.toml, then: {again}"),
            )),
            (None, None) => {
                let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
                Err(Refusal::Failed(format!("{program} failed: {} ({})", last.trim(), self.log.display())))
            }
        }
    }
}

/// What pip, Go and Maven say where there is no way to a registry.
const UNREACHABLE: &[&str] = &[
    "temporary failure in name resolution",
    "name or service not known",
    "nodename nor servname",
    "no such host",
    "unknown host",
    "could not resolve host",
    "connection refused",
    "network is unreachable",
    "connection timed out",
    "connect timed out",
    "read timed out",
    "i/o timeout",
    "connection reset",
];

/// What they say where a registry lacks what is asked for.
const NOT_SERVED: &[&str] = &[
    "could not find artifact",
    "no matching distribution found",
    "unknown revision",
    "404 not found",
    "410 gone",
    "status code: 403",
    "403 forbidden",
];

/// The first line with one of these words.
fn line_with<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    text.lines().map(str::trim).find(|line| {
        let line = line.to_ascii_lowercase();
        words.iter().any(|word| line.contains(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(place: &Path) -> Client<'static> {
        Client { engine: "prism", log: place.join("log") }
    }

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_registry_lacks_is_skipped_and_what_breaks_fails() {
        let place = tempfile::tempdir().unwrap();
        for (said, want) in [
            (
                "a\ndial tcp: lookup x: no such host",
                "skipped the registry can't be reached: dial tcp: lookup x: no such host (later: cargo xtask engines install prism)",
            ),
            (
                "[ERROR] Could not find artifact a:b:jar:1",
                "skipped the registry does not have it: [ERROR] Could not find artifact a:b:jar:1 (change engines/versions.toml, then: cargo xtask engines install prism)",
            ),
            // pip says both when it is offline.
            (
                "x Connection refused\nERROR: No matching distribution found for y",
                "skipped the registry can't be reached: x Connection refused (later: cargo xtask engines install prism)",
            ),
            ("main.go:1: syntax error\n\n", "failed sh failed: main.go:1: syntax error"),
            ("", "failed sh failed: it said nothing"),
        ] {
            let told = match client(place.path()).run(&mut sh(&format!("echo '{said}' >&2; exit 1"))) {
                Ok(()) => "ran".to_owned(),
                Err(Refusal::Skipped(reason, cure)) => format!("skipped {reason} ({cure})"),
                Err(Refusal::Failed(reason)) => format!("failed {}", reason.split(" (").next().unwrap()),
            };
            assert_eq!(told, want);
            assert_eq!(fs::read_to_string(place.path().join("log")).unwrap(), format!("{said}\n"));
        }
        assert!(client(place.path()).run(&mut sh("exit 0")).is_ok());
    }

    #[test]
    fn a_program_that_is_not_here_is_skipped_with_its_cure() {
        let place = tempfile::tempdir().unwrap();
        let need = |program, arguments: &[&str]| match client(place.path()).need(program, arguments, "get it")
        {
            Err(Refusal::Skipped(reason, cure)) => format!("{reason} ({cure})"),
            Err(Refusal::Failed(reason)) => reason,
            Ok(()) => "here".to_owned(),
        };
        assert_eq!(need("no-such-program", &[]), "no-such-program is not on this machine (get it)");
        assert_eq!(
            need("sh", &["-c", "echo no venv >&2; exit 1"]),
            "`sh -c echo no venv >&2; exit 1` fails: no venv (get it)"
        );
        assert_eq!(need("sh", &["-c", ""]), "here");
    }
}
