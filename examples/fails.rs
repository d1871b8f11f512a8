//! A pipeline that fails: a step panics on one of its elements. What a user then sees is the same on every engine: the job's
//! failure, with the step's name and what the panic said.
//!
//! ```text
//! $ cargo run -p tiebeam --example fails
//! error[TB0502]: Divide: user code panicked: attempt to divide by zero
//! ```

use std::process::ExitCode;

use tiebeam::io::text;
use tiebeam::prelude::*;

/// Divides by what is zero for one of three numbers.
pub fn build(p: &Pipeline, options: &Options) {
    let output = if options.output.is_empty() { "out/fails" } else { &options.output };
    p.step("Numbers")
        .apply(Create::of([1i64, 2, 3]))
        .step("Divide")
        .map(|n| 100 / (n - 2))
        .step("Show")
        .map(|n: i64| n.to_string())
        .step("Write")
        .apply(text::write(output));
}

/// The program.
pub fn main() -> ExitCode {
    tiebeam::main(build)
}
