//! What tasks run is built as `cargo test --workspace` builds it. Asked for one package, cargo would choose fewer features and
//! build hundreds of crates a second time; and without an example it would leave out the features that only tests want.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// An example that is quickly built, for builds that have no other.
const ANY_EXAMPLE: &str = "pipe_worker";

/// Cargo, as a person's shell would start it. Cargo tells a program that it runs the names of that program's package, which
/// build scripts (ring's) take for a change: everything above them would be built twice, once for each way of starting it.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let told = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
                .iter()
                .any(|own| name.starts_with(own))
        });
        if told {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Builds examples, and `tiebeam` itself; their paths by their names.
pub(crate) fn programs(
    names: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    let mut cargo = cargo();
    cargo.args(["build", "--workspace", "--example", ANY_EXAMPLE]);
    for name in &names {
        cargo.args([if name == "tiebeam" { "--bin" } else { "--example" }, name.as_str()]);
    }
    let programs: BTreeMap<String, PathBuf> =
        built(cargo)?.into_iter().map(|built| (built.target, built.path)).collect();
    match names.iter().find(|name| !programs.contains_key(*name)) {
        Some(name) => Err(format!("cargo built no `{name}`")),
        None => Ok(programs),
    }
}

/// Builds the tests of that name; their programs' paths by the names of their packages.
pub(crate) fn tests(name: &str) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut cargo = cargo();
    cargo.args(["test", "--no-run", "--workspace", "--test", name]);
    let package = |built: Built| {
        let folder = built.manifest.parent()?.file_name()?.to_str()?.to_owned();
        (built.target == name).then_some((folder, built.path))
    };
    Ok(built(cargo)?.into_iter().filter_map(package).collect())
}

/// A program that cargo says it made.
#[derive(Debug, PartialEq)]
struct Built {
    target: String,
    /// Its package's Cargo.toml. Every package lies in a folder of its name.
    manifest: PathBuf,
    path: PathBuf,
}

/// What cargo builds at that command.
fn built(mut cargo: Command) -> Result<Vec<Built>, String> {
    let output = cargo
        .args(["--quiet", "--message-format=json-render-diagnostics"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        return Err("cargo could not build what is to run".to_owned());
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

fn executables(messages: &str) -> Vec<Built> {
    let one = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let path = message.get("executable")?.as_str()?.into();
        let manifest = message.get("manifest_path")?.as_str()?.into();
        Some(Built { target: message.get("target")?.get("name")?.as_str()?.to_owned(), manifest, path })
    };
    messages.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_what_cargo_says() {
        let messages = concat!(
            "{\"manifest_path\":\"/w/p/Cargo.toml\",\"target\":{\"name\":\"branch\"},\"executable\":\"/t/branch\"}\n",
            "{\"manifest_path\":\"/w/p/Cargo.toml\",\"target\":{\"name\":\"lib\"},\"executable\":null}\n",
            "not json\n",
        );
        let branch = Built {
            target: "branch".to_owned(),
            manifest: "/w/p/Cargo.toml".into(),
            path: "/t/branch".into(),
        };
        assert_eq!(executables(messages), [branch]);
    }
}
