//! The heart of the house: models in pipelines. Handlers, batching, sharing, dead letters, metrics. No framework in it.

pub mod batching;
pub mod clock;
mod estimator;
pub mod handler;
pub mod tensor;

pub use batching::{Batching, LengthFn};
pub use clock::{Clock, SystemClock};
pub use handler::{InferenceArgs, ModelHandler, ModelInfo, PredictionResult};
pub use tensor::{DType, TENSOR_TYPE, Tensor, TensorData, Tensors};
