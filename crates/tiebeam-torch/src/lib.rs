//! PyTorch state dicts: a bounded reader, and modules that become ONNX graphs.
//!
//! [`StateDict`] reads what `torch.save(model.state_dict(), path)` writes (and safetensors) without running anything of
//! it. An [`Architecture`] puts [`modules`] with torch's names together and writes an ONNX graph in memory, which the
//! engines of `tiebeam-onnx` run. [`PytorchModelHandlerTensor`] is the handler over all of it.

pub mod architecture;
pub mod graph;
pub mod handler;
pub mod modules;
pub mod params;
pub mod state_dict;
mod zoo;

pub use architecture::{Architecture, architecture, architectures, register};
pub use graph::{Attribute, Dim, ElementType, GraphBuilder, Value};
pub use handler::{
    ModelClass, PytorchModelHandler, PytorchModelHandlerKeyedTensor, PytorchModelHandlerTensor,
};
pub use modules::Module;
pub use params::{Param, ParamKind, Params};
pub use state_dict::{ScalarType, StateDict, StateTensor};
