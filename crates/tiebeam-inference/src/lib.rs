//! The heart of the house: models in pipelines. Handlers, batching, sharing, dead letters, metrics. No framework in it.

mod batcher;
pub mod batching;
mod brain;
mod call;
pub mod carrying;
pub mod chain;
pub mod clock;
pub mod closure;
pub mod dead_letter;
pub mod dofn;
mod estimator;
pub mod handler;
pub mod keyed;
mod memory;
mod model;
mod models;
pub mod nan;
pub mod per_key;
pub mod prediction;
pub mod report;
mod rollout;
mod scatter;
pub mod signature;
pub mod staged;
mod step;
pub mod tensor;
#[cfg(test)]
mod tests;
pub mod transform;
pub mod tuned;
pub mod update;
mod watch;

pub use batching::{Batching, LengthFn};
pub use clock::{Clock, SystemClock};
pub use closure::from_fn;
pub use dead_letter::{FailedInference, Stage};
pub use handler::{InferenceArgs, ModelHandler, ModelInfo, ModelLimit, Predictions};
pub use keyed::MaybeKeyed;
pub use nan::HoldsNan;
pub use per_key::PerKeyModels;
pub use prediction::PredictionResult;
pub use signature::{Dim, Example, Inference, Port, Signature};
pub use step::NanPolicy;
pub use tensor::{DType, TENSOR_TYPE, Tensor, TensorData, Tensors};
pub use transform::{Inferred, RescuedInference, RunInference};
pub use update::{ModelMetadata, Rollout};
