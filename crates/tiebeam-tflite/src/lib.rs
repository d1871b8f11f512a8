//! TensorFlow Lite's models in pipelines: an own bounded reader of `.tflite` files, whose graphs become ONNX graphs in memory
//! and run on the engines of ONNX models.

mod convert;
mod flat;
pub mod handler;
mod model;
mod operators;
mod writer;

pub use handler::{TFModelHandler, to_onnx};
