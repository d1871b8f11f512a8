//! The `tiebeam` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tiebeam_cli::main(std::env::args_os())
}
