//! Models of scikit-learn, exported with operators of ai.onnx.ml: ONNX Runtime says what scikit-learn says, rten names what it
//! lacks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiebeam_inference::{ModelHandler, Tensor, Tensors};
use tiebeam_onnx::{Engine, OnnxModelHandler};

use crate::support::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(name)
}

/// The formula of `make_sklearn.py`.
fn rows() -> Vec<Tensor> {
    let row =
        |i: usize| Tensor::vector((0..4).map(|j| ((i * 7 + j * 13) % 23) as f32 / 10.0).collect::<Vec<_>>());
    (0..20).map(row).collect()
}

#[test]
fn labels_and_probabilities_are_scikit_learns() {
    let Some(library) = ort_library() else {
        eprintln!("skipped: no ONNX Runtime here");
        return;
    };
    for name in ["forest", "linear"] {
        let handler = OnnxModelHandler::new(fixture(&format!("sklearn_{name}.onnx")))
            .with_engine(Engine::Ort)
            .with_ort_dylib(&library)
            .named_outputs();
        let model = handler.load_model().unwrap();
        let found: Vec<Tensors> = model.run(&rows()).unwrap();
        let wanted = std::fs::read_to_string(fixture(&format!("sklearn_{name}.txt"))).unwrap();
        assert_eq!((found.len(), wanted.lines().count()), (20, 20));
        let mut classes = std::collections::BTreeSet::new();
        for (found, wanted) in found.iter().zip(wanted.lines()) {
            let (label, probabilities) = wanted.split_once(' ').unwrap();
            let of = |output: &str| found.get(output).unwrap();
            let told = match name {
                "forest" => of("label").to_scalar::<i64>().map(|label| label.to_string()),
                _ => of("label").as_slice::<Arc<str>>().map(|label| label[0].to_string()),
            };
            assert_eq!(told.as_deref(), Some(label), "{name}");
            classes.insert(label);
            let probabilities = probabilities.split(' ').map(|p| p.parse::<f64>().unwrap());
            let computed = of("probabilities").as_slice::<f32>().unwrap();
            assert_eq!(computed.len(), probabilities.clone().count());
            for (computed, wanted) in computed.iter().zip(probabilities) {
                assert!((f64::from(*computed) - wanted).abs() < 1e-6, "{name}: {computed}, wanted {wanted}");
            }
        }
        assert!(classes.len() > 1, "{classes:?}");
    }
}

#[test]
fn rten_names_the_operators_that_it_lacks() {
    for (name, operator) in
        [("forest", "ai.onnx.ml.TreeEnsembleClassifier"), ("linear", "ai.onnx.ml.LinearClassifier")]
    {
        let path = fixture(&format!("sklearn_{name}.onnx"));
        let error =
            OnnxModelHandler::new(&path).with_engine(Engine::Rten).named_outputs().load_model().unwrap_err();
        assert_eq!(error.code(), "TB0335");
        assert!(error.message().contains(operator), "{error}");
        assert!(error.help().is_some_and(|help| help.contains("ONNX Runtime")), "{error:?}");
    }
}
