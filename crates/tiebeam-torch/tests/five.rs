//! The model y = 5x, from every format, through the handler.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // what helps tests is a test too

use std::path::PathBuf;

use tiebeam_core::error::{Error, ErrorKind};
use tiebeam_core::row::Value;
use tiebeam_inference::{InferenceArgs, ModelHandler, Tensor, Tensors};
use tiebeam_onnx::Engine;
use tiebeam_torch::modules::Linear;
use tiebeam_torch::{
    Architecture, Dim, ElementType, Param, ParamKind, PytorchModelHandlerKeyedTensor,
    PytorchModelHandlerTensor, StateDict,
};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(name)
}

/// rten always, ONNX Runtime where its library is found.
fn engines() -> Vec<Engine> {
    match tiebeam_onnx::find_onnxruntime(None) {
        Ok(_) => vec![Engine::Rten, Engine::Ort],
        Err(_) => {
            println!("skipped on ort: ONNX Runtime's library was not found");
            vec![Engine::Rten]
        }
    }
}

fn linear(name: &str) -> PytorchModelHandlerTensor {
    let dims = [("input_dim", Value::Int64(1)), ("output_dim", Value::Int64(1))];
    PytorchModelHandlerTensor::new(fixture(name), "LinearRegression").with_params(dims)
}

fn predictions(handler: &PytorchModelHandlerTensor, xs: &[f32]) -> Vec<f32> {
    let model = handler.load_model().unwrap();
    let batch: Vec<Tensor> = xs.iter().map(|x| Tensor::scalar(*x)).collect();
    let ys = handler.run_inference(&batch, &model, &InferenceArgs::none()).unwrap();
    ys.iter().map(|y| y.to_scalar().unwrap()).collect()
}

#[test]
fn every_format_and_engine_gives_the_same_numbers() {
    for engine in engines() {
        for name in ["five.pth", "five_pre16.pth", "five.safetensors", "five_checkpoint.pth"] {
            let handler = linear(name).with_engine(engine);
            assert_eq!(
                predictions(&handler, &[20.0, 30.0, 40.0]),
                [100.0, 150.0, 200.0],
                "{name} on {engine}"
            );
        }
        assert_eq!(predictions(&linear("ten.pth").with_engine(engine), &[20.0]), [200.0]);
        let onnx = tiebeam_onnx::OnnxModelHandler::new(fixture("five.onnx")).with_engine(engine);
        let model = onnx.load_model().unwrap();
        let y = onnx.run_inference(&[Tensor::scalar(20f32)], &model, &InferenceArgs::none()).unwrap();
        assert_eq!(y[0].to_scalar::<f32>(), Some(100.0), "five.onnx on {engine}");
    }
}

#[test]
fn rows_of_one_number_go_in_too() {
    let handler = linear("five.pth").with_engine(Engine::Rten);
    let model = handler.load_model().unwrap();
    let rows = [Tensor::vector(vec![3f32]), Tensor::vector(vec![4f32])];
    let ys = handler.run_inference(&rows, &model, &InferenceArgs::none()).unwrap();
    assert_eq!(ys, [Tensor::vector(vec![15f32]), Tensor::vector(vec![20f32])]);
    let wide = Tensor::vector(vec![1f32, 2.0]);
    let error = handler.check_example(&wide, &model).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.message().contains("[2]"), "{error}");
}

#[test]
fn the_handler_tells_what_the_model_is() {
    let handler = linear("five.pth").with_engine(Engine::Rten);
    assert_eq!(
        (handler.metrics_namespace().as_str(), handler.name().as_str()),
        ("BeamML_PyTorch", "PytorchModelHandlerTensor")
    );
    let details = handler.model_info(&handler.load_model().unwrap());
    assert_eq!(&*details.model_id, fixture("five.pth").to_str().unwrap());
    let sha256 = StateDict::open(fixture("five.pth")).unwrap().sha256().to_owned();
    assert_eq!(details.sha256.as_ref(), Some(&sha256));
    assert!(details.bytes.unwrap() > 8);

    assert!(linear("five.pth").with_sha256(&sha256).load_model().is_ok());
    let error = linear("ten.pth").with_sha256(&sha256).load_model().unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Model, "TB0367"));
}

#[test]
fn named_tensors_go_in_by_the_inputs_names() {
    // Two inputs: y = 5 (a + b).
    let plan = Architecture::new("Sum", |_, g| {
        let shape = [Dim::Named("n"), Dim::Fixed(1)];
        let (a, b) = (g.input("a", ElementType::F32, &shape), g.input("b", ElementType::F32, &shape));
        let sum = g.add(&a, &b)?;
        let y = g.apply("linear", &Linear::new(1, 1), &sum)?;
        g.output("y", &y);
        g.output("sum", &sum);
        Ok(())
    });
    let handler = PytorchModelHandlerKeyedTensor::new(fixture("five.pth"), plan)
        .with_engine(Engine::Rten)
        .with_outputs(["y"]);
    assert_eq!(handler.name(), "PytorchModelHandlerKeyedTensor");
    let model = handler.load_model().unwrap();
    let row = |a: f32, b: f32| {
        Tensors::new(["a".into(), "b".into()], vec![Tensor::scalar(a), Tensor::scalar(b)]).unwrap()
    };
    let ys = handler.run_inference(&[row(1.0, 2.0), row(3.0, 4.0)], &model, &InferenceArgs::none()).unwrap();
    assert_eq!(ys, [Tensor::vector(vec![15f32]), Tensor::vector(vec![35f32])]);

    let all = handler.clone().with_outputs(["sum", "y"]).named_outputs();
    let model = all.load_model().unwrap();
    let ys = all.run_inference(&[row(1.0, 2.0)], &model, &InferenceArgs::none()).unwrap();
    assert_eq!(ys[0].get("sum"), Some(&Tensor::vector(vec![3f32])));
    assert_eq!(ys[0].get("y"), Some(&Tensor::vector(vec![15f32])));
}

fn refusal(handler: PytorchModelHandlerTensor) -> Error {
    handler.load_model().map(drop).expect_err("must be refused")
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let handler = |class: &str, params: &[(&str, Value)]| {
        let params = params.iter().map(|(name, value)| (*name, value.clone()));
        PytorchModelHandlerTensor::new(fixture("five.pth"), class)
            .with_params(params)
            .with_engine(Engine::Rten)
    };
    let check = |handler: PytorchModelHandlerTensor, expected: expect_test::Expect| {
        expected.assert_eq(&format!("{:?}", handler.validate().unwrap_err()));
    };
    check(
        handler("LinearRegresion", &[]),
        expect_test::expect![[r#"
            error[TB0371]: there is no architecture `LinearRegresion`
              help: did you mean `LinearRegression`?"#]],
    );
    check(
        handler("resnet18", &[]),
        expect_test::expect![[r#"
            error[TB0371]: there is no architecture `resnet18`
              help: did you mean `torchvision.models.resnet18`?"#]],
    );
    check(
        handler(
            "LinearRegression",
            &[("inputdim", Value::Int64(1)), ("output_dim", Value::String("one".into()))],
        ),
        expect_test::expect![[r#"
            error[TB0372]: model_params of LinearRegression: `inputdim` is unknown (did you mean `input_dim`?); `output_dim` is "one", wanted a whole number from 1; `input_dim` is missing: a whole number from 1
              help: LinearRegression takes input_dim, output_dim"#]],
    );
    check(
        handler(
            "MLP",
            &[
                ("input_dim", Value::Int64(0)),
                ("hidden", Value::Array([Value::Int64(3), Value::Double(2.5)].into())),
                ("activation", Value::String("swish".into())),
            ],
        ),
        expect_test::expect![[r#"
            error[TB0372]: model_params of MLP: `activation` is "swish", wanted one of relu, tanh, sigmoid, gelu, silu; `hidden` is [3, 2.5], wanted a list of whole numbers from 1; `input_dim` is 0, wanted a whole number from 1
              help: MLP takes input_dim, hidden, output_dim, activation"#]],
    );
    check(
        linear("five.pth").with_device("cuda:0"),
        expect_test::expect![[r#"
            error[TB0373]: device `cuda:0` can't be used: PyTorch models run on the CPU here
              help: use device cpu; a model exported to ONNX runs on GPUs with `providers`"#]],
    );
    assert!(linear("five.pth").with_device("CPU").validate().is_ok());
}

#[test]
fn weights_that_do_not_fit_are_all_named_at_once() {
    let of = |class: &str, params: &[(&str, i64)]| {
        let params = params.iter().map(|(name, value)| (*name, Value::Int64(*value)));
        let error = refusal(PytorchModelHandlerTensor::new(fixture("five.pth"), class).with_params(params));
        assert_eq!((error.kind(), error.code()), (ErrorKind::Model, "TB0370"));
        let path = fixture("five.pth").display().to_string();
        error.message().replace(&path, "five.pth")
    };
    assert_eq!(
        of("LinearRegression", &[("input_dim", 2)]),
        "the weights in five.pth do not fit LinearRegression: `linear.weight` has shape [1, 1], wanted [1, 2]"
    );
    assert_eq!(
        of("MLP", &[("input_dim", 2), ("hidden_dims", 3)]),
        "the weights in five.pth do not fit MLP: missing `layers.0.weight` [3, 2], `layers.0.bias` [3], \
         `layers.2.weight` [1, 3], `layers.2.bias` [1]; unexpected `linear.weight` [1, 1], `linear.bias` [1]"
    );
    let resnet = of("torchvision.models.resnet18", &[]);
    assert!(resnet.contains("missing `conv1.weight` [64, 3, 7, 7], `bn1.weight` [64], "), "{resnet}");
    assert!(
        resnet.contains(" and 97 more; unexpected `linear.weight` [1, 1], `linear.bias` [1]"),
        "{resnet}"
    );
}

#[test]
fn a_missing_or_foreign_file_is_named() {
    let error = refusal(
        PytorchModelHandlerTensor::new("/nowhere/m.pth", "LinearRegression")
            .with_params([("input_dim", Value::Int64(1))]),
    );
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Model, "model file /nowhere/m.pth does not exist")
    );
    assert_eq!(refusal(linear("five.onnx")).code(), "TB0360");
}

#[test]
fn an_architecture_of_ones_own_is_found_by_its_name() {
    let plan = || {
        Architecture::new("TwiceLinear", |params, g| {
            let x = g.input("x", ElementType::F32, &[Dim::Named("n"), Dim::Fixed(1)]);
            let times = g.constant(&[], &[params.number("times")? as f32])?;
            let y = g.apply("linear", &Linear::new(1, 1), &x)?;
            let y = g.mul(&y, &times)?;
            g.output("y", &y);
            Ok(())
        })
        .with_param(Param::optional("times", ParamKind::Number, Value::Double(2.0)))
    };
    tiebeam_torch::register(plan()).unwrap();
    assert!(tiebeam_torch::architectures().contains(&"TwiceLinear".to_owned()));
    let handler =
        PytorchModelHandlerTensor::new(fixture("five.pth"), "TwiceLinear").with_engine(Engine::Rten);
    assert_eq!(predictions(&handler, &[20.0]), [200.0]);
    let handler = handler.with_params([("times", Value::Int64(-1))]);
    assert_eq!(predictions(&handler, &[20.0]), [-100.0]);
    let again = tiebeam_torch::register(plan()).unwrap_err();
    assert_eq!(again.to_string(), "there is an architecture `TwiceLinear` already");
}

#[test]
fn modules_that_do_not_go_together_are_named() {
    let plan = Architecture::new("Wrong", |_, g| {
        let x = g.input("x", ElementType::F32, &[Dim::Named("n"), Dim::Fixed(4)]);
        g.scope("head", |g| g.apply("linear", &Linear::new(3, 1), &x))?;
        Ok(())
    });
    let error = refusal(PytorchModelHandlerTensor::new(fixture("five.pth"), plan));
    assert_eq!(
        (error.code(), error.message()),
        ("TB0374", "module `head.linear`: Linear of 3 features was given [n, 4]")
    );
}

/// A file of safetensors with these tensors.
fn safetensors(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let (mut header, mut data) = (String::from("{"), Vec::new());
    for (i, (name, shape, values)) in tensors.iter().enumerate() {
        let begin = data.len();
        values.iter().for_each(|value| data.extend_from_slice(&value.to_le_bytes()));
        let comma = if i > 0 { "," } else { "" };
        let (shape, end) = (format!("{shape:?}"), data.len());
        header += &format!(
            "{comma}\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{begin},{end}]}}"
        );
    }
    header.push('}');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    file
}

fn one_linear(folder: &std::path::Path, weight: f32, bias: f32) -> PytorchModelHandlerTensor {
    let path = folder.join("linear.safetensors");
    let tensors: [(&str, &[usize], &[f32]); 2] =
        [("linear.weight", &[1, 1], &[weight]), ("linear.bias", &[1], &[bias])];
    std::fs::write(&path, safetensors(&tensors)).unwrap();
    let dims = [("input_dim", Value::Int64(1)), ("output_dim", Value::Int64(1))];
    PytorchModelHandlerTensor::new(path, "LinearRegression").with_params(dims)
}

#[test]
fn c30_a_linear_model_of_two_and_a_half() {
    let folder = tempfile::tempdir().unwrap();
    for engine in engines() {
        let handler = one_linear(folder.path(), 2.0, 0.5).with_engine(engine);
        assert_eq!(predictions(&handler, &[1.0, 5.0, -3.0, 10.0]), [2.5, 10.5, -5.5, 20.5], "{engine}");
    }
}

#[test]
fn fault_02_a_newer_state_dict_is_loaded_and_another_shape_is_told() {
    use tiebeam_inference::ModelMetadata;
    for engine in engines() {
        let handler = linear("five.pth").with_engine(engine);
        assert!(handler.takes_updates());
        let ten = fixture("ten.safetensors").display().to_string();
        let model = handler.load_version(&ModelMetadata::of(ten.clone())).unwrap();
        let ys = handler.run_inference(&[Tensor::scalar(20f32)], &model, &InferenceArgs::none()).unwrap();
        assert_eq!(ys[0].to_scalar::<f32>(), Some(200.0));
        assert_eq!(&*handler.model_info(&model).model_id, ten, "told by the model that computed");
        let (old, new) = (handler.load_model().unwrap(), handler.signature(&model).unwrap());
        assert_eq!(new.differs_from(&handler.signature(&old).unwrap()), None);
    }
}
