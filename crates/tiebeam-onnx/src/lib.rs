//! ONNX models on rten and on ONNX Runtime.

pub mod proto;
