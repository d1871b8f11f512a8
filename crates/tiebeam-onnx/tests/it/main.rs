//! Tests of ONNX models: on rten always, on ONNX Runtime where its library is found.

#![allow(missing_docs)]

mod engines;
mod handler;
mod hostile;
mod loading;
mod real;
mod support;
