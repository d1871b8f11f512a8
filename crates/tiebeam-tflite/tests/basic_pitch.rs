//! A real model that is there as `.tflite` and as `.onnx`: both must hear the same notes.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests fail by panicking, and say what they skip

use std::path::PathBuf;

use tiebeam_inference::{InferenceArgs, ModelHandler, Tensor, Tensors};
use tiebeam_onnx::{Engine, OnnxModelHandler};
use tiebeam_tflite::TFModelHandler;

/// Where `cargo xtask fetch basic-pitch` puts the models.
fn models() -> Option<PathBuf> {
    let home = std::env::var_os("TIEBEAM_CACHE").map(PathBuf::from);
    let cache = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/tiebeam")))?;
    let folder = cache.join("basic-pitch-0.4.0/basic_pitch/saved_models/icassp_2022");
    folder.join("nmp.tflite").is_file().then_some(folder)
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

/// A pure tone at 22,050 samples a second.
fn tone(hertz: f64) -> Tensor {
    let sample = |i: usize| (2.0 * std::f64::consts::PI * hertz * i as f64 / 22_050.0).sin() as f32 * 0.5;
    Tensor::new(&[43_844, 1], (0..43_844).map(sample).collect()).unwrap()
}

#[test]
fn a_tone_of_440_hertz_is_an_a4_in_both_formats() {
    let Some(folder) = models() else {
        println!("skipped: basic-pitch 0.4.0 is not in the cache (cargo xtask fetch basic-pitch)");
        return;
    };
    let batch = [tone(440.0), tone(261.63)];
    for engine in engines() {
        let lite = TFModelHandler::new(folder.join("nmp.tflite")).with_engine(engine).named_outputs();
        let model = lite.load_model().unwrap();
        let ports: Vec<String> =
            model.inputs().iter().chain(model.outputs()).map(ToString::to_string).collect();
        assert_eq!(
            ports,
            [
                "input_2 float32[n, 43844, 1]",
                "onset float32[n, 172, 88]",
                "note float32[n, 172, 88]",
                "contour float32[n, 172, 264]"
            ]
        );
        let seen: Vec<Tensors> = lite.run_inference(&batch, &model, &InferenceArgs::none()).unwrap();
        let onnx = OnnxModelHandler::new(folder.join("nmp.onnx")).with_engine(engine).named_outputs();
        let model = onnx.load_model().unwrap();
        let want: Vec<Tensors> = onnx.run_inference(&batch, &model, &InferenceArgs::none()).unwrap();
        let mut worst = 0f32;
        for (seen, want) in seen.iter().zip(&want) {
            for (ours, theirs) in [("contour", 0), ("note", 1), ("onset", 2)] {
                let theirs = want.get(&format!("StatefulPartitionedCall:{theirs}")).unwrap();
                let ours = seen.get(ours).unwrap();
                assert_eq!(ours.shape(), theirs.shape());
                assert!(ours.as_slice::<f32>().unwrap().iter().all(|x| x.is_finite()));
                let pairs = ours.as_slice::<f32>().unwrap().iter().zip(theirs.as_slice::<f32>().unwrap());
                worst = pairs.map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
            }
        }
        println!("{engine}: {worst:.1e} between the formats");
        assert!(worst <= 1e-4, "{engine}: {worst}");
        // Key 0 is A0 (MIDI 21): A4 is key 48, middle C key 39.
        let loudest = |row: &Tensors| {
            let notes = row.get("note").unwrap().as_slice::<f32>().unwrap().to_vec();
            let middle = &notes[86 * 88..87 * 88];
            (0..88).max_by(|a, b| middle[*a].total_cmp(&middle[*b])).unwrap()
        };
        assert_eq!((loudest(&seen[0]), loudest(&seen[1])), (48, 39), "{engine}");
    }
}
