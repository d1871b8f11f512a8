//! `tiebeam doctor`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tiebeam::engines::{Kind, Versions, find, install_commands, on_path};
use tiebeam::launch::Exit;
use tiebeam_yaml::catalog;
use tiebeam_yaml::transforms::inference;

use crate::{examples, output};

/// Says what this machine has for pipelines. Exits with 4 where temporary files cannot be written.
pub fn doctor() -> Exit {
    let mut text = format!("tiebeam {}\n", env!("CARGO_PKG_VERSION"));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let _ = writeln!(text, "  threads       {cores}");
    let _ = writeln!(
        text,
        "  runners       embedded; with `--job-endpoint HOST:PORT` any of Beam's; without it those of these that are here:"
    );
    for kind in [Kind::Prism, Kind::FlinkLocal, Kind::Spark] {
        let _ = writeln!(text, "  {:<12}  {}", kind.installation(), engine(kind));
    }
    let _ = writeln!(text, "  python        {}", python());
    let _ = writeln!(text, "  java          {}", java());
    let _ = writeln!(text, "  rten          built in");
    let _ = match tiebeam::onnx::find_onnxruntime(None) {
        Ok(found) => writeln!(text, "  onnx runtime  {found:?}"),
        Err(_) => writeln!(
            text,
            "  onnx runtime  not found: models run on rten; name its library with ORT_DYLIB_PATH"
        ),
    };
    let handlers: Vec<&str> = inference::handler_types().iter().map(|handler| handler.name).collect();
    let _ = writeln!(text, "  handlers      {}", handlers.join(", "));
    let _ = writeln!(text, "  transforms    {}", catalog::types().len());
    let _ = writeln!(text, "  examples      {}", examples::names().collect::<Vec<_>>().join(", "));
    let temporary = std::env::temp_dir();
    let exit = match tempfile::tempfile() {
        Ok(_) => {
            let _ = writeln!(text, "  temporary     {} is writable", temporary.display());
            Exit::Ok
        }
        Err(error) => {
            let _ = writeln!(text, "  temporary     {} is not writable: {error}", temporary.display());
            Exit::OutputUnusable
        }
    };
    output::stdout(text.as_bytes());
    exit
}

/// Where an engine is, or what would bring it here.
fn engine(kind: Kind) -> String {
    match find(kind) {
        Ok(Some(place)) => place.display().to_string(),
        Ok(None) => match install_commands(kind) {
            Ok(commands) => format!("not found: {} (in a clone of tiebeam)", commands.join(", or ")),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    }
}

/// The Python that transforms written in Python run in, as they look for it.
fn python() -> String {
    let named = std::env::var_os("TIEBEAM_PYTHON").map(PathBuf::from);
    let Some(python) = named.or_else(|| on_path("python3")) else {
        return "not found: apt install python3 python3-venv".to_owned();
    };
    // What is installed can be asked without loading it, which takes seconds.
    let ask = "from importlib.metadata import version; print(version('apache-beam'))";
    match said(&python, &["-c", ask]) {
        Some(version) => format!("{}, apache-beam {version}", python.display()),
        None if said(&python, &["--version"]).is_none() => format!("{} does not run", python.display()),
        None => format!("{} is without Apache Beam: {}", python.display(), python_cure(&python)),
    }
}

/// What gives a Python Beam, or us a Python that has it.
fn python_cure(python: &Path) -> String {
    if let Ok(Some(place)) = find(Kind::Python) {
        return format!("export TIEBEAM_PYTHON={}", place.join("bin/python").display());
    }
    let versions = Versions::built_in();
    let version = versions.as_ref().ok().and_then(|versions| versions.of("python", "apache-beam").ok());
    let wanted = version.map(|version| format!("=={version}")).unwrap_or_default();
    format!("{} -m pip install apache-beam{wanted}", python.display())
}

/// The Java that Flink and Spark run on.
fn java() -> String {
    let missing = "apt install openjdk-17-jre-headless (Flink and Spark need it)";
    match on_path("java") {
        Some(java) => match said(&java, &["--version"]) {
            Some(version) => format!("{}, {version}", java.display()),
            None => format!("{} does not run: {missing}", java.display()),
        },
        None => format!("not found: {missing}"),
    }
}

/// The first line of what a program says, where it ends well.
fn said(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}
