//! Mutated `.tflite` files: each becomes an ONNX graph or is refused with an error of the model's kind; none panics, and none
//! takes more memory than is declared for its length. How: `fixtures/hostile.rs`. What engines make of foreign graphs is the
//! matter of tiebeam-onnx's tests.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // tests fail by panicking, and say what they counted

use std::path::PathBuf;

use tiebeam_core::error::ErrorKind;
use tiebeam_tflite::to_onnx;

#[path = "../../../fixtures/hostile.rs"]
mod hostile;

use hostile::{BESIDE, Outcome, check, counted, mutate};

#[test]
fn tflite() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/tflite");
    let names = ["mobile", "images", "shapes", "arithmetic", "narrow"];
    let whole = names.map(|name| std::fs::read(folder.join(format!("{name}.tflite"))).unwrap());
    let words: [&[u8]; 8] = [
        b"\xff\xff\xff\xff",
        b"\xff\xff\xff\x7f",
        b"\0\0\0\x80",
        b"\0\0\0\0",
        b"\x01\0\0\0",
        b"\x20\0\0\0",
        b"\xfc\xff\xff\xff",
        b"\x04\0",
    ];
    check("tflite", |_, random| {
        let mut data = whole[random.below(whole.len())].clone();
        // The magic stays: without it nothing more is looked at.
        let mut rest = data.split_off(8);
        mutate(&mut rest, random, &words);
        data.extend(rest);
        let bound = data.len() * 128 + BESIDE;
        let (made, peak) = counted(|| to_onnx("m", &data).map(|model| model.to_bytes().len()));
        let refused = match made {
            Ok(_) => false,
            Err(error) => {
                let kind = matches!(error.kind(), ErrorKind::Model | ErrorKind::Unsupported);
                if !kind || !error.message().starts_with("model m: ") || !error.code().starts_with("TB039") {
                    return Err(format!("{error:?}"));
                }
                true
            }
        };
        Ok(Outcome { refused, peak, bound })
    });
}
