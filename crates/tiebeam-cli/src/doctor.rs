//! `tiebeam doctor`.

use std::fmt::Write as _;

use tiebeam::launch::Exit;
use tiebeam_yaml::catalog;
use tiebeam_yaml::transforms::inference;

use crate::{examples, output};

/// Says what this machine has for pipelines. Exits with 4 where temporary files cannot be written.
pub fn doctor() -> Exit {
    let mut text = format!("tiebeam {}\n", env!("CARGO_PKG_VERSION"));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let _ = writeln!(text, "  threads       {cores}");
    let _ = writeln!(text, "  runners       embedded");
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
