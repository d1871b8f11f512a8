//! Safetensors behind a right length of their header, so that what is in it is looked at.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tiebeam_core::ErrorKind;
use tiebeam_torch::StateDict;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().rposition(|byte| *byte == b'}').map_or(0, |at| at + 1);
    let file = [&(end as u64).to_le_bytes()[..], data].concat();
    match StateDict::from_bytes("m.safetensors", file) {
        Ok(weights) => weights.iter().for_each(|(_, tensor)| assert_eq!(tensor.to_f32().len(), tensor.len())),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Model, "{error:?}"),
    }
});
