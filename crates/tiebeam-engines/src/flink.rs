//! Flink: its configuration and its processes.
//!
//! Flink's own scripts and its distribution are not needed: the entry points of JobManager and TaskManager are in the
//! libraries that Beam's job server uses, so all four processes have one class path and can't be of two versions. What the
//! scripts would work out, the sizes of a TaskManager's memory, is said here in full; Flink refuses to start with less.
//!
//! Beam's job server sends its class path to the cluster with every job: 160 files, 15 seconds, and a class loader of its
//! own a job. The TaskManagers here have these classes already. Beam keeps out of what it sends whatever lies below a
//! `gradle/wrapper`, a rule made for another build; a job server whose jars lie there sends nothing. A symbolic link to
//! them does not do: Beam resolves it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::Result;
use crate::engine::{Parts, get};

/// TaskManagers of the cluster.
pub(crate) const TASK_MANAGERS: u64 = 2;

/// Where the cluster listens, beside ports that Flink picks itself.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    /// Beam's job service.
    pub(crate) job: u16,
    /// The JobManager, for its TaskManagers.
    pub(crate) control: u16,
    /// The JobManager, for everyone else.
    pub(crate) rest: u16,
}

/// What everything of Flink's is told. A job that names no parallelism gets the default one.
const COMMON: &[(&str, &str)] = &[
    // Everything stays on this machine.
    ("jobmanager.rpc.address", "127.0.0.1"),
    ("jobmanager.bind-host", "127.0.0.1"),
    ("rest.address", "127.0.0.1"),
    ("rest.bind-address", "127.0.0.1"),
    ("taskmanager.host", "127.0.0.1"),
    ("taskmanager.bind-host", "127.0.0.1"),
    // One path to a class, see the module's head.
    ("classloader.resolve-order", "parent-first"),
    // Flink asks for 512 buffers, 16 MB, for each shuffle of each task.
    ("taskmanager.network.sort-shuffle.min-buffers", "64"),
    // A job whose worker dies is tried again.
    ("restart-strategy.type", "fixed-delay"),
    ("restart-strategy.fixed-delay.attempts", "2"),
    ("restart-strategy.fixed-delay.delay", "1 s"),
];

const LOCAL: &[(&str, &str)] = &[
    ("parallelism.default", "2"),
    ("taskmanager.numberOfTaskSlots", "2"),
    ("taskmanager.memory.network.min", "256m"),
    ("taskmanager.memory.network.max", "256m"),
    ("rest.port", "0"),
];

/// Two TaskManagers of 2 GiB each, with two slots each.
const CLUSTER: &[(&str, &str)] = &[
    ("parallelism.default", "4"),
    ("cluster.evenly-spread-out-slots", "true"),
    ("jobmanager.memory.process.size", "1280m"),
    ("taskmanager.numberOfTaskSlots", "2"),
    ("taskmanager.cpu.cores", "2"),
    ("taskmanager.memory.framework.heap.size", "128m"),
    ("taskmanager.memory.task.heap.size", "640m"),
    ("taskmanager.memory.framework.off-heap.size", "128m"),
    ("taskmanager.memory.task.off-heap.size", "128m"),
    ("taskmanager.memory.network.min", "256m"),
    ("taskmanager.memory.network.max", "256m"),
    ("taskmanager.memory.managed.size", "384m"),
    ("taskmanager.memory.jvm-metaspace.size", "256m"),
    ("taskmanager.memory.jvm-overhead.min", "192m"),
    ("taskmanager.memory.jvm-overhead.max", "192m"),
];

type Configuration = BTreeMap<String, String>;

fn configuration(own: &[(&str, &str)], given: &Configuration) -> Configuration {
    let ours = COMMON.iter().chain(own).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    ours.chain(given.clone()).collect()
}

/// Writes a configuration where Flink looks for it; the folder.
fn written(parts: &Parts, name: &str, configuration: &Configuration) -> Result<PathBuf> {
    let folder = parts.run.join(name);
    let file = folder.join("flink-conf.yaml");
    let text: String = configuration.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let failed = |e: std::io::Error| format!("cannot write {}: {e}", file.display());
    std::fs::create_dir_all(&folder).map_err(failed)?;
    std::fs::write(&file, text).map_err(failed)?;
    Ok(folder)
}

fn with_directories(parts: &Parts, mut configuration: Configuration) -> Configuration {
    configuration.entry("io.tmp.dirs".to_owned()).or_insert_with(|| parts.run.display().to_string());
    configuration
}

const JOB_SERVER: &str = "org.apache.beam.runners.flink.FlinkJobServerDriver";

/// A job server that runs its jobs itself.
pub(crate) fn local(parts: &Parts, port: u16, given: &Configuration) -> Result<Command> {
    let configuration = with_directories(parts, configuration(LOCAL, given));
    let folder = written(parts, "conf", &configuration)?;
    let mut command = parts.java("lib", "-Xmx1536m");
    command.args([JOB_SERVER, "--flink-master", "[local]", "--flink-conf-dir"]).arg(folder);
    parts.serve(&mut command, port);
    Ok(command)
}

/// The processes of a cluster, by name.
pub(crate) fn cluster(parts: &Parts, ports: Ports, given: &Configuration) -> Result<Vec<(String, Command)>> {
    let mut configuration = with_directories(parts, configuration(CLUSTER, given));
    configuration.insert("jobmanager.rpc.port".to_owned(), ports.control.to_string());
    configuration.insert("rest.port".to_owned(), ports.rest.to_string());
    let folder = written(parts, "conf", &configuration)?;

    let mut manager = parts.java("lib", "-Xmx768m");
    manager.args(["org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint", "--configDir"]);
    manager.arg(&folder);
    let mut processes = vec![("jobmanager".to_owned(), manager)];

    let sum = |sizes: &[&str]| sizes.iter().map(|name| mebibytes(&configuration, name)).sum::<Result<u64>>();
    let heap = sum(&["taskmanager.memory.framework.heap.size", "taskmanager.memory.task.heap.size"])?;
    let direct = sum(&[
        "taskmanager.memory.framework.off-heap.size",
        "taskmanager.memory.task.off-heap.size",
        "taskmanager.memory.network.max",
    ])?;
    for number in 1..=TASK_MANAGERS {
        let mut worker = parts.java("lib", &format!("-Xmx{heap}m"));
        // Java takes the main class for the end of its own flags, and they may come in any order before it.
        worker.arg(format!("-XX:MaxDirectMemorySize={direct}m"));
        worker.args(["org.apache.flink.runtime.taskexecutor.TaskManagerRunner", "--configDir"]).arg(&folder);
        processes.push((format!("taskmanager-{number}"), worker));
    }

    let mut server = parts.java("gradle/wrapper", "-Xmx768m");
    server.args([JOB_SERVER, "--flink-master", &format!("127.0.0.1:{}", ports.rest), "--flink-conf-dir"]);
    server.arg(&folder);
    parts.serve(&mut server, ports.job);
    processes.push(("job-server".to_owned(), server));
    Ok(processes)
}

/// A size of the configuration, `640m` or `2g`.
fn mebibytes(configuration: &Configuration, name: &str) -> Result<u64> {
    let text = configuration.get(name).map(String::as_str).unwrap_or_default();
    let number = |digits: &str, unit: u64| digits.parse::<u64>().ok()?.checked_mul(unit);
    let size = match (text.strip_suffix('m'), text.strip_suffix('g')) {
        (Some(digits), _) => number(digits, 1),
        (_, Some(digits)) => number(digits, 1024),
        _ => None,
    };
    Ok(size.ok_or_else(|| format!("{name} is `{text}`, wanted a size such as 640m or 2g"))?)
}

/// How many TaskManagers the JobManager knows; none while it does not answer.
pub(crate) fn task_managers(rest: SocketAddr) -> u64 {
    let overview = get(rest, "/overview").ok().and_then(|body| serde_json::from_str::<Value>(&body).ok());
    overview.and_then(|overview| overview.get("taskmanagers")?.as_u64()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Configuration {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn parts(run: &std::path::Path) -> Parts {
        Parts { run: run.to_owned(), installed: PathBuf::from("/i") }
    }

    fn words(command: &Command) -> Vec<String> {
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_task_managers_java_gets_what_the_configuration_says() {
        let place = tempfile::tempdir().unwrap();
        let ports = Ports { job: 1, control: 2, rest: 3 };
        let given = given(&[("taskmanager.memory.task.heap.size", "2g"), ("parallelism.default", "1")]);
        let processes = cluster(&parts(place.path()), ports, &given).unwrap();
        let names: Vec<_> = processes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["jobmanager", "taskmanager-1", "taskmanager-2", "job-server"]);
        let worker = words(&processes[1].1);
        assert!(worker.contains(&"-Xmx2176m".to_owned()), "{worker:?}");
        assert!(worker.contains(&"-XX:MaxDirectMemorySize=512m".to_owned()), "{worker:?}");
        let text = std::fs::read_to_string(place.path().join("conf/flink-conf.yaml")).unwrap();
        for line in ["parallelism.default: 1", "rest.port: 3", "jobmanager.rpc.port: 2"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        // Only the job server reads the jars that it does not send.
        let server = words(&processes[3].1);
        assert!(
            server.contains(&"/i/gradle/wrapper/*".to_owned())
                && !worker.contains(&"/i/gradle/wrapper/*".to_owned())
        );
    }

    #[test]
    fn nothing_of_flink_listens_to_other_machines() {
        for own in [LOCAL, CLUSTER] {
            let configuration = configuration(own, &Configuration::new());
            for name in ["jobmanager.bind-host", "rest.bind-address", "taskmanager.bind-host"] {
                assert_eq!(configuration[name], "127.0.0.1");
            }
        }
    }

    #[test]
    fn sizes_are_read() {
        let sizes =
            given(&[("a", "640m"), ("b", "2g"), ("c", "2 GB"), ("d", "m"), ("e", "99999999999999999999g")]);
        assert_eq!(mebibytes(&sizes, "a"), Ok(640));
        assert_eq!(mebibytes(&sizes, "b"), Ok(2048));
        assert_eq!(
            mebibytes(&sizes, "c").unwrap_err().to_string(),
            "c is `2 GB`, wanted a size such as 640m or 2g"
        );
        for wrong in ["d", "e", "absent"] {
            assert!(mebibytes(&sizes, wrong).is_err(), "{wrong}");
        }
    }
}
