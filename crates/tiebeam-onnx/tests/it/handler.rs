//! The handler: what it takes, what it refuses and in which words.

use std::path::Path;

use tiebeam_core::error::ErrorKind;
use tiebeam_core::row::Value;
use tiebeam_inference::{InferenceArgs, ModelHandler, ModelInfo, Tensor};
use tiebeam_onnx::proto::{Axis, data_type};
use tiebeam_onnx::{Engine, LoadOptions, OnnxModel, OnnxModelHandler};

use crate::support::*;

fn file(bytes: Vec<u8>) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn a_handler_loads_checks_and_predicts() {
    let (_folder, path) = file(linear());
    for options in engines() {
        let mut handler = OnnxModelHandler::new(&path).with_engine(options.engine.engine);
        if let Some(library) = &options.engine.ort_dylib {
            handler = handler.with_ort_dylib(library);
        }
        let results = predict(&handler, &[Tensor::scalar(2.0f32), Tensor::scalar(20.0f32)]);
        assert_eq!(
            results.iter().map(Tensor::to_value).collect::<Vec<_>>(),
            [Value::Float(10.0), Value::Float(100.0)]
        );
    }
}

#[test]
fn a_handler_says_what_its_model_is() {
    let bytes = linear();
    let (_folder, path) = file(bytes.clone());
    let handler = OnnxModelHandler::new(&path).with_engine(Engine::Rten).with_model_identity("shared");
    let model = handler.load_model().unwrap();
    let details = handler.model_info(&model);
    assert_eq!(*details.model_id, *path.display().to_string());
    assert_eq!(details.uri, Some(path.display().to_string()));
    assert_eq!(details.bytes, Some(bytes.len() as u64));
    let digest = details.sha256.unwrap();
    assert_eq!(digest.len(), 64);
    assert_eq!(handler.metrics_namespace(), "BeamML_Onnx");
    assert_eq!(handler.name(), "OnnxModelHandler");
    assert_eq!(handler.model_identity().as_deref(), Some("shared"));
    assert_eq!(handler.element_size(&Tensor::vector(vec![1.0f64; 3])), 24);
    assert!(handler.clone().with_sha256(digest.to_uppercase()).load_model().is_ok());
    let error = handler.with_sha256("00").load_model().unwrap_err();
    assert_eq!(error.message(), format!("model {}: its SHA-256 is {digest}, wanted 00", path.display()));
    assert_eq!(error.kind(), ErrorKind::Model);
}

#[test]
fn a_model_of_another_format_has_its_own_handler() {
    let read = |path: &Path, options: &LoadOptions| {
        assert_eq!(path, Path::new("five.pth"));
        let details = ModelInfo { model_id: "five.pth".into(), ..ModelInfo::default() };
        Ok(OnnxModel::from_bytes("five", linear(), options)?.with_details(details))
    };
    let handler =
        OnnxModelHandler::from_file("Made", "BeamML_Made", "five.pth", read).with_engine(Engine::Rten);
    assert_eq!(predict(&handler, &[Tensor::scalar(3.0f32)])[0].to_scalar::<f32>(), Some(15.0));
    assert_eq!((handler.name().as_str(), handler.metrics_namespace().as_str()), ("Made", "BeamML_Made"));
    assert_eq!(&*handler.model_info(&handler.load_model().unwrap()).model_id, "five.pth");
}

#[test]
fn forms_that_do_not_match_the_model_are_refused_at_loading() {
    let (_folder, path) = file(two_and_two());
    let handler = OnnxModelHandler::new(&path).with_engine(Engine::Rten);
    let name = path.display();
    let check = |error: tiebeam_core::Error, text: &str, help: &str| {
        assert_eq!(error.message(), format!("model {name}: {text}"));
        assert_eq!(error.help(), Some(help));
        assert_eq!(error.code(), "TB0338");
    };
    check(
        handler.clone().load_model().unwrap_err(),
        "it has 2 inputs, `a`, `b`: one tensor is not enough",
        "give named tensors: `.named_inputs()`",
    );
    check(
        handler.clone().named_inputs().load_model().unwrap_err(),
        "it has 2 outputs, `sum`, `larger`: one was wanted",
        "choose one with `outputs`, or take all by name: `.named_outputs()`",
    );
    assert!(handler.clone().named_inputs().with_outputs(["sum"]).load_model().is_ok());
    assert!(handler.clone().named_inputs().named_outputs().load_model().is_ok());
    let error = handler.clone().with_outputs(["total"]).load_model().unwrap_err();
    assert_eq!(
        error.message(),
        format!("model {name}: it has no output `total`, its outputs are `sum`, `larger`")
    );
    let error = handler.with_outputs(["sum", "sum"]).load_model().unwrap_err();
    assert_eq!(error.message(), format!("model {name}: output `sum` is asked for twice"));
}

fn refused(bytes: Vec<u8>, example: Tensor) -> String {
    let error = load(bytes, &rten()).check(&example).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    error.message().to_owned()
}

#[test]
fn an_example_that_does_not_fit_is_refused_alone() {
    let check = |bytes: Vec<u8>, example: Tensor, text: &str| assert_eq!(refused(bytes, example), text);
    check(
        linear(),
        Tensor::vector(vec![1.0f32, 2.0]),
        "input x wants the shape [n, 1] (a row: [1]), got [2]",
    );
    check(
        one_operator("Abs", F32, &[Axis::Fixed(3)]),
        Tensor::vector(vec![1.0f32, 2.0]),
        "input x wants the shape [3], got [2]",
    );
    check(linear(), Tensor::scalar(true), "input x wants float32, got bool");
    check(linear(), Tensor::scalar(std::sync::Arc::<str>::from("5")), "input x wants float32, got str");
    let text = refused(linear(), Tensor::scalar(1e300f64));
    assert!(
        text.starts_with("input x wants float32, and 1") && text.ends_with("(float64) does not fit"),
        "{text}"
    );
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    let int8 = || one_operator("Identity", data_type::INT8, &[N]);
    assert_eq!(refused(int8(), Tensor::scalar(128i64)), "input x wants int8, and 128 (int64) does not fit");
    assert_eq!(refused(int8(), Tensor::scalar(1.0f32)), "input x wants int8, got float32");
    let inexact = Tensor::scalar(16_777_217i64);
    assert_eq!(refused(linear(), inexact), "input x wants float32, and 16777217 (int64) does not fit");
    let model = load(linear(), &rten());
    for fine in [Tensor::scalar(f64::INFINITY), Tensor::scalar(0.1f64), Tensor::scalar(16_777_216i64)] {
        model.check(&fine).unwrap();
    }
    let nan: Vec<Tensor> = model.run(&[Tensor::scalar(f64::NAN)]).unwrap();
    assert!(nan[0].to_scalar::<f32>().unwrap().is_nan());
}

#[test]
fn a_missing_and_an_unknown_name_are_told() {
    let model = load(two_and_two(), &rten());
    let a = || ("a", Tensor::vector(vec![1.0f32, 2.0, 3.0]));
    let error = model.check(&named([a(), ("c", Tensor::scalar(1.0f32))])).unwrap_err();
    assert_eq!(error.message(), "input `b` is missing, got `a`, `c`");
    let b = ("b", Tensor::vector(vec![1.0f32, 2.0, 3.0]));
    let error = model.check(&named([a(), b, ("c", Tensor::scalar(1.0f32))])).unwrap_err();
    assert_eq!(error.message(), "the model has no input `c`, its inputs are `a`, `b`");
}

#[test]
fn an_example_that_was_not_checked_is_still_refused() {
    let model = load(linear(), &rten());
    let rows = [Tensor::scalar(1.0f32), Tensor::vector(vec![1.0f32, 2.0])];
    let error = model.run::<_, Tensor>(&rows).unwrap_err();
    assert_eq!(error.message(), "input x wants the shape [n, 1] (a row: [1]), got [2]");
    let rows = [Tensor::scalar(1.0f32), Tensor::scalar(1e300f64)];
    let error = model.run::<_, Tensor>(&rows).unwrap_err();
    assert_eq!(error.code(), "TB0341");
}

#[test]
fn inference_args_are_refused() {
    let handler = OnnxModelHandler::new("m.onnx");
    let args = InferenceArgs::from_iter([("beam", Value::Int64(4))]);
    let error = handler.validate_inference_args(&args).unwrap_err();
    assert_eq!(error.message(), "inference_args were given, but OnnxModelHandler takes none");
}

#[test]
fn providers_that_are_not_there_are_refused() {
    let (_folder, path) = file(linear());
    let handler = || OnnxModelHandler::new(&path).with_providers(["CUDAExecutionProvider"]);
    let error = handler().with_engine(Engine::Rten).load_model().unwrap_err();
    assert_eq!(error.message(), "engine rten runs on the CPU, it has no CUDAExecutionProvider");
    assert_eq!(error.help(), Some("leave `providers` out, or set `engine: ort`"));
    let cpu = OnnxModelHandler::new(&path).with_engine(Engine::Rten).with_providers(["CPUExecutionProvider"]);
    assert!(cpu.load_model().is_ok());
    if let Some(library) = ort_library() {
        let error = handler().with_ort_dylib(&library).load_model().unwrap_err();
        assert_eq!(error.message(), "this ONNX Runtime was built without CUDAExecutionProvider");
        let unknown = OnnxModelHandler::new(&path).with_ort_dylib(&library).with_providers(["Abacus"]);
        let error = unknown.load_model().unwrap_err();
        assert_eq!(error.message(), "no execution provider has the name `Abacus`");
    }
}

#[test]
fn an_engine_s_name_is_one_of_three() {
    assert_eq!("ort".parse::<Engine>().unwrap(), Engine::Ort);
    assert_eq!("auto".parse::<Engine>().unwrap(), Engine::Auto);
    let error = "tract".parse::<Engine>().unwrap_err();
    assert_eq!(error.message(), "engine is auto, rten or ort, got `tract`");
}

#[test]
fn rows_of_different_lengths_share_a_call_where_they_are_padded() {
    let rows: Vec<Tensor> =
        [vec![1i64, 2], vec![2], vec![0, 0, 2]].into_iter().map(Tensor::vector::<i64>).collect();
    let (_folder, path) = file(embedding());
    for options in engines() {
        let mut handler = OnnxModelHandler::new(&path).with_engine(options.engine.engine);
        if let Some(library) = &options.engine.ort_dylib {
            handler = handler.with_ort_dylib(library);
        }
        let alone = predict(&handler, &rows);
        assert_eq!(alone.iter().map(Tensor::shape).collect::<Vec<_>>(), [[2, 2], [1, 2], [3, 2]]);
        let together = predict(&handler.clone().with_padding([("ids", 1)]), &rows);
        let numbers: Vec<_> = together.iter().map(|row| row.as_slice::<f32>().unwrap().to_vec()).collect();
        // What fills up is looked up too: entry 1 of the table.
        assert_eq!(
            numbers,
            [[1.0, 1.5, 2.0, 2.5, 1.0, 1.5], [2.0, 2.5, 1.0, 1.5, 1.0, 1.5], [0.0, 0.5, 0.0, 0.5, 2.0, 2.5]]
        );
        let error = handler.with_padding([("mask", 0)]).load_model().unwrap_err();
        assert!(error.message().ends_with("padding is given for `mask`, its inputs are `ids`"), "{error}");
    }
}
