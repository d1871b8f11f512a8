//! A model that may crash, in a process of its own: what it crashes on is in the dead letters, and the rest is predicted.
//!
//! ```text
//! $ cargo run -p tiebeam --example isolated -- --output out/isolated
//! $ cat out/isolated-*
//! 1 -> 1
//! 2 -> 4
//! 4 -> 16
//! 13 failed: the process of squares ended by signal 6 (abort) on a batch of 1
//! ```

use std::process::ExitCode;

use tiebeam::Error;
use tiebeam::inference::{Isolation, ModelHandler, RunInference, from_fn};
use tiebeam::io::text;
use tiebeam::prelude::*;

/// Squares numbers with code that does not survive 13.
pub fn build(p: &Pipeline, options: &Options) {
    let output = if options.output.is_empty() { "out/isolated" } else { &options.output };
    let squares = from_fn("squares", |batch: &[i64]| {
        if batch.contains(&13) {
            std::process::abort();
        }
        Ok::<_, Error>(batch.iter().map(|x| x * x).collect::<Vec<i64>>())
    });
    let isolated = squares.isolated(Isolation::process().with_memory_limit(1 << 30));
    let inferred = p
        .apply(Create::of([1i64, 2, 13, 4]))
        .step("Model")
        .apply(RunInference::new(isolated).with_exception_handling());
    let squared = inferred.results.map(|result| format!("{} -> {}", result.example, result.inference));
    let failed =
        inferred.failed.map(|failed| format!("{} failed: {}", failed.element, failed.letter.failure.message));
    p.flatten([squared, failed]).step("Write").apply(text::write(output));
}

/// The program.
pub fn main() -> ExitCode {
    tiebeam::main(build)
}
