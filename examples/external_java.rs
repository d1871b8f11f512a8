//! A transform of Java's in a Rust pipeline: Beam's own `Count.perElement`, which an expansion service of Java's knows and
//! runs. `engines/java/Expansion.java` is such a service.
//!
//! ```text
//! $ cargo run -p tiebeam --example external_java -- \
//!     --runner portable --job-endpoint 127.0.0.1:8099 --set expansion=127.0.0.1:8097 --output out/java
//! $ sort out/java-*
//! a: 3
//! b: 1
//! c: 1
//! ```

use std::process::ExitCode;

use tiebeam::external;
use tiebeam::io::text;
use tiebeam::prelude::*;

/// Counts letters in Java, and writes what came back.
pub fn build(p: &Pipeline, options: &Options) {
    let output = if options.output.is_empty() { "out/external_java" } else { &options.output };
    let service = options.get("expansion").unwrap_or("127.0.0.1:8097");
    let count = external::java::<(String, i64)>(service, "org.apache.beam.sdk.transforms.Count");
    p.step("Letters")
        .apply(Create::of(["a", "b", "a", "c", "a"].map(str::to_owned)))
        .step("Count")
        .apply(count.constructor_method("perElement"))
        .map(|(letter, n)| format!("{letter}: {n}"))
        .step("Write")
        .apply(text::write(output));
}

/// The program.
pub fn main() -> ExitCode {
    tiebeam::main(build)
}
