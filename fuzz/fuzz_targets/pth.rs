//! PyTorch state dicts, zipped or as before 1.6: an error of the model's kind, or tensors that can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tiebeam_core::ErrorKind;
use tiebeam_torch::StateDict;

fuzz_target!(|data: &[u8]| {
    match StateDict::from_bytes("m.pth", data.to_vec()) {
        Ok(weights) => weights.iter().for_each(|(_, tensor)| assert_eq!(tensor.to_f32().len(), tensor.len())),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Model, "{error:?}"),
    }
});
