//! The project's own tasks, as `cargo xtask TASK`.

use std::io::Write;
use std::process::ExitCode;

mod built;
mod conformance;
mod deploy;
mod drill;
mod engines;
mod fetch;
mod hostile;
mod tidy;
mod yaml;

const HELP: &str = "\
cargo xtask TASK

  tidy                 the house's rules: arrows between crates, sizes, error codes, documents
  fetch [NAME...]      packages that tests and examples read, into TIEBEAM_CACHE or ~/.cache/tiebeam
  conformance coders   our coders against Beam's standard_coders.yaml
  conformance runinference
                       a test for each of Beam's cases of RunInference and each fault that is made right: run, and told
  conformance tables   Parquet and Avro files of pyarrow's and fastavro's are read here, and the other way round
  conformance yaml-docs
                       the pipelines of Beam YAML's documents, here and with Beam Python: the same rows come out
  drill [group|resume|images]... [--size 1GB] [--memory-limit 128MiB] [--kills 8] [--seed 1]
                       the embedded runner: groups of more data than memory, a job that is killed again and again,
                       damaged images and bombs
  hostile [--mutations 20000]
                       mutated files of every format: none may panic, abort, hang or take more memory than is declared
  deploy-lint          the Dockerfile and the manifests below deploy/ before linters, Cloud Storage before other people's fake of it
  engines install [NAME...]
                       python, prism, flink, spark, java into the same cache; the versions are in engines/versions.toml
  engines start NAME [--beside COMMAND]... [--flink KEY=VALUE]...
                       python, prism, flink-local, flink-cluster or spark, on loopback, till Ctrl-C or the end of stdin
  engines test [--only ENGINE]... [--case NAME]...
                       the cases of engines/cases.toml on every engine: the same lines as the embedded runner gives
  engines drill [million|kill]... [--elements N]
                       on Flink's cluster: elements per second beside Python Beam's, a worker killed in mid-job
";

/// Writes one line to standard output; a reader that has gone away is no error.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["tidy"] => tidy::run(),
        ["fetch", names @ ..] => fetch::run(names),
        ["deploy-lint"] => deploy::run(),
        ["drill", rest @ ..] => drill::run(rest),
        ["hostile", rest @ ..] => hostile::run(rest),
        ["engines", rest @ ..] => engines::run(rest),
        ["conformance", "coders"] => conformance::coders(),
        ["conformance", "runinference"] => conformance::runinference(),
        ["conformance", "tables"] => conformance::tables(),
        ["conformance", "yaml-docs"] => conformance::yaml_docs(),
        ["help" | "--help" | "-h"] | [] => {
            say(HELP.trim_end());
            Ok(true)
        }
        other => Err(format!("there is no task `{}`\n\n{}", other.join(" "), HELP.trim_end())),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "error: {message}");
            ExitCode::from(2)
        }
    }
}
