//! ONNX models on rten and on ONNX Runtime.

pub mod engine;
pub mod file;
pub mod handler;
pub mod inspect;
pub mod library;
pub mod model;
pub mod operators;
mod ort_call;
mod ort_engine;
pub mod proto;
mod rows;
mod rten_engine;
mod signature;

pub use engine::{Engine, EngineOptions, Session};
pub use file::ModelFile;
pub use handler::OnnxModelHandler;
pub use inspect::{EngineReport, Inspection, inspect, inspect_file};
pub use library::{Found, NotFound, Tried, find_onnxruntime};
pub use model::{LoadOptions, OnnxModel};
pub use tiebeam_inference::{Dim, Port};
