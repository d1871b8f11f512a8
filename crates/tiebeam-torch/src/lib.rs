//! PyTorch state dicts: a bounded reader, and modules that become ONNX graphs.

pub mod state_dict;

pub use state_dict::{ScalarType, StateDict, StateTensor};
