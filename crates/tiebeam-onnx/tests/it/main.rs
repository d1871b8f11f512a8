//! Tests of ONNX models: on rten always, on ONNX Runtime where its library is found.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod engines;
mod handler;
mod hostile;
mod inspecting;
mod loading;
mod pipelines;
mod real;
mod sklearn;
mod support;
