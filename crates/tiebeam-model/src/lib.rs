//! Beam's wire messages, compiled without protoc.
