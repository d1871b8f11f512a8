//! ONNX models on the engine that is always there: refused, or asked once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tiebeam_inference::{Tensor, Tensors};
use tiebeam_onnx::{Engine, EngineOptions, LoadOptions, OnnxModel};

fuzz_target!(|data: &[u8]| {
    let engine = EngineOptions { engine: Engine::Rten, ort_dylib: None, providers: Vec::new() };
    let options = LoadOptions { engine, ..LoadOptions::default() };
    match OnnxModel::from_bytes("m.onnx", data.to_vec(), &options) {
        Ok(model) => {
            let row = Tensor::vector(vec![1.0f32]);
            if model.inputs().len() == 1 && model.check(&row).is_ok() {
                let _ = model.run::<_, Tensors>(&[row.clone(), row]);
            }
        }
        Err(error) => assert!(error.message().starts_with("model m.onnx"), "{error:?}"),
    }
});
