//! `tiebeam explain`.

use clap::Args;
use tiebeam::launch::Exit;

use crate::{codes, output};

/// The command line of `tiebeam explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The code, such as TB0204.
    code: String,
}

/// Tells what a code means and what to do.
pub fn explain(args: &ExplainArgs) -> Exit {
    let wanted = args.code.trim().to_uppercase();
    match codes::codes().find(|code| code.code == wanted) {
        Some(code) => {
            output::stdout(
                format!("{}: {}\n  what to do: {}\n", code.code, code.means, code.cure).as_bytes(),
            );
            Exit::Ok
        }
        None => {
            output::stderr(&format!(
                "error: no error has the code `{}`; codes look like TB0204\n",
                args.code
            ));
            Exit::BadUsage
        }
    }
}
