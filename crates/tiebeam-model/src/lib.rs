//! Beam's wire messages, compiled without protoc.
//!
//! The `.proto` files in `proto/` are this project's own text with Beam's message names, field names and numbers. Maps
//! are sorted, so that equal messages have equal encodings, and `bytes` fields are [`Bytes`](bytes::Bytes), so that
//! elements share the buffer they came in. A reader skips fields that it doesn't know.
//!
//! With the feature `grpc` the modules also hold clients and servers of Beam's services.

pub mod urns;

pub use prost::{DecodeError, Message};
pub use prost_types;

// Beam's names need no words of ours in Rust; what a message is for stands in its .proto file.
#[allow(missing_docs, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/beam.rs"));
}

pub use generated::org::apache::beam::model::expansion::v1 as expansion;
pub use generated::org::apache::beam::model::fn_execution::v1 as fn_api;
pub use generated::org::apache::beam::model::job_management::v1 as job;
pub use generated::org::apache::beam::model::pipeline::v1 as pipeline;

/// What this project itself writes into payloads.
pub use generated::tiebeam::v1 as tiebeam;
