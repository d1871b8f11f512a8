//! What TensorFlow Lite itself computes with small models of all operators: `fixtures/models/make_tflite.py` made both.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests fail by panicking, and say what they skip

use std::path::PathBuf;

use tiebeam_core::error::ErrorKind;
use tiebeam_inference::{InferenceArgs, ModelHandler, Tensor, Tensors};
use tiebeam_onnx::Engine;
use tiebeam_tflite::{TFModelHandler, to_onnx};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/tflite").join(name)
}

fn engines() -> Vec<Engine> {
    match tiebeam_onnx::find_onnxruntime(None) {
        Ok(_) => vec![Engine::Rten, Engine::Ort],
        Err(_) => {
            println!("skipped on ort: ONNX Runtime's library was not found");
            vec![Engine::Rten]
        }
    }
}

/// The rows of the script's formula.
fn row(shape: &[usize], seed: i64) -> Tensor {
    let count = shape.iter().product::<usize>() as i64;
    let number = |i: i64| (((i + seed * 1000) * 37 % 101 - 50) as f64 / 50.0) as f32;
    Tensor::new(shape, (0..count).map(number).collect()).unwrap()
}

fn numbers(row: &Tensors) -> Vec<f32> {
    row.values().iter().flat_map(|tensor| tensor.as_slice::<f32>().unwrap().to_vec()).collect()
}

#[test]
fn every_operator_computes_what_tensorflow_lite_computes() {
    let models: [(&str, &[usize]); 5] = [
        ("mobile", &[9, 8, 3]),
        ("images", &[4, 5, 4]),
        ("shapes", &[4, 6]),
        ("arithmetic", &[3, 4]),
        ("narrow", &[6]),
    ];
    for engine in engines() {
        for (name, shape) in models {
            let handler =
                TFModelHandler::new(fixture(&format!("{name}.tflite"))).with_engine(engine).named_outputs();
            let model = handler.load_model().unwrap();
            let batch = [row(shape, 50), row(shape, 51)];
            let seen = handler.run_inference(&batch, &model, &InferenceArgs::none()).unwrap();
            let bytes = std::fs::read(fixture(&format!("{name}.f32"))).unwrap();
            let want: Vec<f32> =
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            let mut at = 0;
            for row in &seen {
                for (output, tensor) in row.iter() {
                    let seen = tensor.as_slice::<f32>().unwrap();
                    let want = &want[at..at + seen.len()];
                    at += seen.len();
                    let off = |(a, b): (&f32, &f32)| (a - b).abs() / b.abs().max(1.0);
                    let worst = seen.iter().zip(want).map(off).fold(0.0, f32::max);
                    assert!(worst <= 1e-5, "{name}, {output} on {engine}: {worst}\n{seen:?}\n{want:?}");
                    assert!(seen.iter().zip(want).all(|(a, b)| a.is_nan() == b.is_nan()), "{name}, {output}");
                }
            }
            assert_eq!(at, want.len(), "{name}");
            assert_eq!(numbers(&seen[0]).len() * 2, at);
        }
    }
}

#[test]
fn the_handler_tells_what_the_model_is_and_refuses_what_is_none() {
    let handler = TFModelHandler::new(fixture("narrow.tflite")).with_engine(Engine::Rten);
    assert_eq!((&*handler.metrics_namespace(), &*handler.name()), ("BeamML_TF_Tensor", "TFModelHandler"));
    let two = handler.load_model().unwrap_err();
    assert!(two.message().contains("it has 2 outputs"), "{two}");
    let model = handler.clone().with_outputs(["t5"]).load_model().unwrap_err();
    assert!(model.message().contains("t5"), "{model}");
    let digest = handler.clone().with_sha256("00").load_model().unwrap_err();
    assert_eq!((digest.code(), digest.kind()), ("TB0395", ErrorKind::Model));
    let missing = TFModelHandler::new(fixture("none.tflite")).load_model().unwrap_err();
    assert_eq!(missing.code(), "TB0393");

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("saved_model.pb"), b"\x08\x01").unwrap();
    let saved = TFModelHandler::new(folder.path()).load_model().unwrap_err();
    assert_eq!((saved.code(), saved.kind()), ("TB0393", ErrorKind::Model));
    assert!(saved.message().ends_with("this is a SavedModel"), "{saved}");
    assert!(saved.help().unwrap().contains("tf2onnx.convert --saved-model"), "{saved:?}");

    for (bytes, want) in [
        (&b""[..], "the file is empty"),
        (b"\x89HDF\r\n\x1a\n", "perhaps a Keras model"),
        (b"\x08\x01\x12", "SavedModel's graph"),
    ] {
        let error = to_onnx("m", bytes).unwrap_err();
        assert!(error.message().contains(want), "{error}");
        assert_eq!(error.code(), "TB0393");
    }
    let whole = std::fs::read(fixture("mobile.tflite")).unwrap();
    let cut = to_onnx("m", &whole[..whole.len() / 2]).unwrap_err();
    assert_eq!((cut.code(), cut.kind()), ("TB0394", ErrorKind::Model));
}

#[test]
fn operators_that_are_not_known_are_named_with_their_place() {
    let mut bytes = std::fs::read(fixture("mobile.tflite")).unwrap();
    // The code 117 (HARD_SWISH), as the old field and the new one.
    let at = bytes.windows(4).position(|four| four == [117, 0, 0, 0]).unwrap();
    bytes[at] = 118;
    let other = to_onnx("m", &bytes).unwrap_err();
    assert_eq!((other.code(), other.kind()), ("TB0396", ErrorKind::Unsupported));
    assert!(other.message().starts_with("model m: operation 3 (IF): is not among"), "{other}");
}
