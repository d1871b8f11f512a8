//! PyTorch state dicts: a bounded reader, and modules that become ONNX graphs.
