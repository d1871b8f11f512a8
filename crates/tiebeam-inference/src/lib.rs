//! The heart of the house: models in pipelines. Handlers, batching, sharing, dead letters, metrics. No framework in it.

pub mod handler;
pub mod tensor;

pub use handler::{Batching, InferenceArgs, ModelHandler, ModelInfo, PredictionResult};
pub use tensor::{DType, Tensor, TensorData};
