//! ONNX models on rten and on ONNX Runtime.
