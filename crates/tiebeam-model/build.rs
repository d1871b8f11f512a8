//! Compiles `proto/` to Rust: protox parses, prost writes the types, tonic the services. No protoc.

use std::error::Error;
use std::path::PathBuf;

/// What the world begins with; the rest is imported from there.
const ROOTS: [&str; 10] = [
    "org/apache/beam/model/pipeline/v1/beam_runner_api.proto",
    "org/apache/beam/model/pipeline/v1/schema.proto",
    "org/apache/beam/model/pipeline/v1/standard_window_fns.proto",
    "org/apache/beam/model/pipeline/v1/external_transforms.proto",
    "org/apache/beam/model/fn_execution/v1/beam_fn_api.proto",
    "org/apache/beam/model/fn_execution/v1/beam_provision_api.proto",
    "org/apache/beam/model/job_management/v1/beam_job_api.proto",
    "org/apache/beam/model/job_management/v1/beam_artifact_api.proto",
    "org/apache/beam/model/job_management/v1/beam_expansion_api.proto",
    "tiebeam/v1/step.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let files = protox::compile(ROOTS, [root])?;
    let mut messages = prost_build::Config::new();
    messages
        // Elements and payloads share the buffer they came in.
        .bytes(["."])
        // Sorted maps: equal messages have equal bytes, so descriptors and pipelines can be compared.
        .btree_map(["."])
        .include_file("beam.rs");
    #[cfg(feature = "grpc")]
    tonic_prost_build::configure().compile_fds_with_config(files, messages)?;
    #[cfg(not(feature = "grpc"))]
    messages.compile_fds(files)?;
    Ok(())
}
