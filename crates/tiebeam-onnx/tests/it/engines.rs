//! Every engine gives the same results for the same rows.

use tiebeam_inference::{Tensor, Tensors};
use tiebeam_onnx::proto::{AttributeProto, Axis, GraphProto, NodeProto, TensorProto, data_type};
use tiebeam_onnx::{Dim, LoadOptions, OnnxModel};

use crate::support::*;

fn run(bytes: Vec<u8>, rows: &[Tensor]) -> Vec<Vec<Tensor>> {
    let results = engines().into_iter().map(|options| load(bytes.clone(), &options).run(rows).unwrap());
    results.collect()
}

fn check(bytes: Vec<u8>, rows: &[Tensor], wanted: &[Tensor]) {
    for (results, options) in run(bytes, rows).into_iter().zip(engines()) {
        assert_eq!(results, wanted, "on {}", options.engine.engine);
    }
}

#[test]
fn numbers_are_rows_of_one() {
    let rows = [1.0f32, -2.0, 0.5].map(Tensor::scalar);
    check(linear(), &rows, &[5.0f32, -10.0, 2.5].map(|v| Tensor::vector(vec![v])));
    check(linear(), &rows[..1], &[Tensor::vector(vec![5.0f32])]);
}

#[test]
fn rows_are_stacked_along_a_new_axis() {
    let rows = [1.0f32, 2.0].map(|v| Tensor::vector(vec![v]));
    check(linear(), &rows, &[5.0f32, 10.0].map(|v| Tensor::vector(vec![v])));
}

#[test]
fn a_row_of_the_whole_shape_is_one_call() {
    let rows = [vec![1.0f32, 2.0], vec![3.0]].map(|v| Tensor::new(&[v.len(), 1], v).unwrap());
    let wanted = [vec![5.0f32, 10.0], vec![15.0]].map(|v| Tensor::new(&[v.len(), 1], v).unwrap());
    check(linear(), &rows, &wanted);
}

#[test]
fn a_batch_axis_of_one_is_one_row_a_call() {
    let rows = [1.0f32, 2.0, 3.0].map(Tensor::scalar);
    let wanted = [5.0f32, 10.0, 15.0].map(|v| Tensor::vector(vec![v]));
    check(linear_of(&[Axis::Fixed(1), Axis::Fixed(1)]), &rows, &wanted);
}

#[test]
fn a_model_without_a_batch_axis_is_one_row_a_call() {
    let rows = [vec![1.0f32, -2.0, 3.0], vec![-4.0, 5.0, -6.0]].map(Tensor::vector);
    let wanted = [vec![1.0f32, 2.0, 3.0], vec![4.0, 5.0, 6.0]].map(Tensor::vector);
    check(one_operator("Abs", F32, &[Axis::Fixed(3)]), &rows, &wanted);
}

#[test]
fn lengths_may_differ_within_a_batch() {
    let lengths = [3usize, 1, 3, 5, 1, 2];
    let rows = lengths.map(|n| Tensor::vector((1..=n).map(|v| v as f32).collect()));
    let wanted = lengths.map(|n| Tensor::scalar((n * (n + 1) / 2) as f32));
    check(sum_of_any_length(), &rows, &wanted);
}

#[test]
fn integers_go_in_and_numbers_fit_or_not() {
    let rows = [vec![0i64, 2], vec![1, 1]].map(Tensor::vector);
    let wanted =
        [vec![0.0f32, 0.5, 2.0, 2.5], vec![1.0, 1.5, 1.0, 1.5]].map(|v| Tensor::new(&[2, 2], v).unwrap());
    check(embedding(), &rows, &wanted);
    let narrow = [vec![0i32, 2], vec![1, 1]].map(Tensor::vector);
    check(embedding(), &narrow, &wanted);
    let bytes = [vec![0u8, 2], vec![1, 1]].map(Tensor::vector);
    check(embedding(), &bytes, &wanted);
}

#[test]
fn other_number_types_become_the_wanted_one() {
    let wanted = [Tensor::vector(vec![10.0f32]), Tensor::vector(vec![15.0f32])];
    check(linear(), &[2.0f64, 3.0].map(Tensor::scalar), &wanted);
    check(linear(), &[2i64, 3].map(Tensor::scalar), &wanted);
    check(linear(), &[Tensor::scalar(2i32), Tensor::scalar(3.0f64)], &wanted);
}

#[test]
fn every_dtype_goes_through() {
    let axes = [N, Axis::Fixed(2)];
    check(
        one_operator("Identity", data_type::DOUBLE, &axes),
        &[Tensor::vector(vec![0.5f64, -2.0])],
        &[Tensor::vector(vec![0.5f64, -2.0])],
    );
    check(
        one_operator("Identity", I64, &axes),
        &[Tensor::vector(vec![7i64, -2])],
        &[Tensor::vector(vec![7i64, -2])],
    );
    check(
        one_operator("Identity", data_type::INT32, &axes),
        &[Tensor::vector(vec![7i32, i32::MIN])],
        &[Tensor::vector(vec![7i32, i32::MIN])],
    );
    check(
        one_operator("Identity", data_type::UINT8, &axes),
        &[Tensor::vector(vec![0u8, 255])],
        &[Tensor::vector(vec![0u8, 255])],
    );
    check(
        one_operator("Identity", data_type::INT8, &axes),
        &[Tensor::vector(vec![-128i8, 127])],
        &[Tensor::vector(vec![-128i8, 127])],
    );
    check(
        one_operator("Not", data_type::BOOL, &axes),
        &[Tensor::vector(vec![true, false])],
        &[Tensor::vector(vec![false, true])],
    );
}

#[test]
fn strings_run_where_the_engine_has_them() {
    let bytes = one_operator("Identity", data_type::STRING, &[N]);
    let rows = ["a", "ü"].map(|text| Tensor::scalar(std::sync::Arc::<str>::from(text)));
    for options in engines() {
        let model = OnnxModel::from_bytes("s.onnx", bytes.clone(), &options).unwrap();
        let result = model.run::<_, Tensor>(&rows);
        match options.engine.engine.name() {
            "ort" => assert_eq!(result.unwrap(), rows),
            _ => {
                let error = result.unwrap_err();
                assert_eq!(error.message(), "model s.onnx: input x: rten has no strings");
                assert_eq!(error.help(), Some("use `engine: ort`"));
            }
        }
    }
}

#[test]
fn c33_several_inputs_and_outputs_by_name() {
    let row = |a: f32| {
        named([("a", Tensor::vector(vec![a, 2.0, 3.0])), ("b", Tensor::vector(vec![1.0f32, 1.0, 3.0]))])
    };
    for options in engines() {
        let model = load(two_and_two(), &options);
        let results: Vec<Tensors> = model.run(&[row(0.0), row(5.0)]).unwrap();
        let texts = results.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            texts,
            [
                "{sum: [1, 3, 6], larger: [false, true, false]}",
                "{sum: [6, 3, 6], larger: [true, true, false]}",
            ]
        );
        let options = LoadOptions { outputs: vec!["larger".to_owned()], ..options };
        let one: Vec<Tensor> = load(two_and_two(), &options).run(&[row(0.0)]).unwrap();
        assert_eq!(one, [Tensor::vector(vec![false, true, false])], "one output chosen");
    }
}

#[test]
fn names_may_come_in_any_order() {
    let row =
        named([("b", Tensor::vector(vec![1.0f32, 1.0, 1.0])), ("a", Tensor::vector(vec![5.0f32, 0.0, 0.0]))]);
    for options in engines() {
        let model = load(two_and_two(), &options);
        model.check(&row).unwrap();
        let results: Vec<Tensors> = model.run(std::slice::from_ref(&row)).unwrap();
        assert_eq!(results[0].get("larger").unwrap().to_string(), "[true, false, false]");
    }
}

/// `x` has a batch axis, `k` has none: rows go one by one, and outputs lose the axis that `x` was given.
#[test]
fn inputs_with_and_without_a_batch_axis() {
    let bytes = model(graph(
        vec![NodeProto::of("Mul", &["x", "k"], &["y"]), NodeProto::of("Identity", &["k"], &["same"])],
        vec![value("x", F32, &[N, Axis::Fixed(2)]), value("k", F32, &[])],
        vec![value("y", F32, &[N, Axis::Fixed(2)]), value("same", F32, &[])],
        vec![],
    ));
    let row = |k: f32| named([("x", Tensor::vector(vec![1.0f32, 2.0])), ("k", Tensor::scalar(k))]);
    for options in engines() {
        let results: Vec<Tensors> = load(bytes.clone(), &options).run(&[row(2.0), row(3.0)]).unwrap();
        let texts = results.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts, ["{y: [2, 4], same: 2}", "{y: [3, 6], same: 3}"]);
    }
}

#[test]
fn an_output_without_the_batch_is_an_error() {
    let node = NodeProto::of("ReduceSum", &["x"], &["y"]).with(AttributeProto::int("keepdims", 0));
    let bytes = model(graph(
        vec![node],
        vec![value("x", F32, &[N, Axis::Fixed(1)])],
        vec![value("y", F32, &[])],
        vec![],
    ));
    for options in engines() {
        for n in [1usize, 3] {
            let rows = vec![Tensor::scalar(1.0f32); n];
            let error = load(bytes.clone(), &options).run::<_, Tensor>(&rows).unwrap_err();
            let wanted = format!(
                "model test.onnx: output y has the shape [] for a batch of {n}: its first axis should be the batch"
            );
            assert_eq!(error.message(), wanted);
            assert_eq!(error.code(), "TB0343");
        }
    }
}

#[test]
fn eight_threads_share_one_model() {
    for options in engines() {
        let model = load(linear(), &options);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let model = &model;
                scope.spawn(move || {
                    for round in 0..50 {
                        let rows = (0..17).map(|i| (thread * 1000 + round * 20 + i) as f32);
                        let rows = rows.map(Tensor::scalar).collect::<Vec<_>>();
                        let results: Vec<Tensor> = model.run(&rows).unwrap();
                        for (row, result) in rows.iter().zip(&results) {
                            let x = row.to_scalar::<f32>().unwrap();
                            assert_eq!(result.to_scalar::<f32>(), Some(5.0 * x));
                        }
                    }
                });
            }
        });
    }
}

/// Weights large enough for ONNX Runtime to map them from a file, called by threads with batches of different sizes at once.
#[test]
fn large_weights_are_shared_and_right() {
    let n = 2048usize;
    let weights = (0..n * n).map(|i| if i % (n + 1) == 0 { 2.0 } else { 0.0 }).collect::<Vec<f32>>();
    let axes = [N, Axis::Fixed(n)];
    let bytes = model(graph(
        // The second use of the weights is one that no kernel packs.
        vec![NodeProto::of("MatMul", &["x", "w"], &["y"]), NodeProto::of("Gather", &["w", "row"], &["z"])],
        vec![value("x", F32, &axes), value("row", I64, &[N])],
        vec![value("y", F32, &axes), value("z", F32, &axes)],
        vec![TensorProto::f32("w", &[n, n], &weights)],
    ));
    for options in engines() {
        let model = load(bytes.clone(), &options);
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                let model = &model;
                scope.spawn(move || {
                    for round in 0..8 {
                        let rows = (0..1 + (thread + round) % 5).map(|i| thread * 100 + round * 10 + i);
                        let inputs = rows.clone().map(|row| {
                            let x = (0..n).map(|i| (i + row) as f32).collect();
                            named([("x", Tensor::vector(x)), ("row", Tensor::scalar(row as i64))])
                        });
                        let results: Vec<Tensors> = model.run(&inputs.collect::<Vec<_>>()).unwrap();
                        for (row, result) in rows.zip(results) {
                            let y = (0..n).map(|i| 2.0 * (i + row) as f32).collect();
                            let z = (0..n).map(|i| if i == row { 2.0f32 } else { 0.0 }).collect();
                            assert_eq!(result, named([("y", Tensor::vector(y)), ("z", Tensor::vector(z))]));
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn an_operator_that_is_missing_is_named_with_who_has_it() {
    let mut unknown = NodeProto::of("Twist", &["x"], &["y"]);
    unknown.domain = "acme".to_owned();
    let axes = [N, Axis::Fixed(1)];
    let of = |node: NodeProto| {
        model(graph(vec![node], vec![value("x", F32, &axes)], vec![value("y", F32, &axes)], vec![]))
    };
    let error = OnnxModel::from_bytes("m.onnx", of(unknown.clone()), &rten()).unwrap_err();
    assert_eq!(error.message(), "model m.onnx: engine rten lacks the operator acme.Twist");
    assert_eq!(
        error.help(),
        Some("an operator of that domain is part of neither engine: export the model without it")
    );
    assert_eq!(error.code(), "TB0335");

    let bytes = of(NodeProto::of("Mish", &["x"], &["y"]));
    let error = OnnxModel::from_bytes("m.onnx", bytes.clone(), &rten()).unwrap_err();
    assert_eq!(error.message(), "model m.onnx: engine rten lacks the operator Mish");
    assert!(error.help().unwrap().starts_with("ONNX Runtime has ONNX's"), "{error:?}");
    for options in engines().iter().filter(|o| o.engine.engine.name() == "ort") {
        // Operator set 17 has no Mish: 18 brought it.
        let proto: tiebeam_onnx::proto::ModelProto = prost::Message::decode(&bytes[..]).unwrap();
        let proto = tiebeam_onnx::proto::ModelProto::of(proto.graph.unwrap(), 18);
        let model = load(prost::Message::encode_to_vec(&proto), options);
        let results: Vec<Tensor> = model.run(&[Tensor::scalar(0.0f32)]).unwrap();
        assert_eq!(results, [Tensor::vector(vec![0.0f32])]);
        let error = OnnxModel::from_bytes("m.onnx", of(unknown.clone()), options).unwrap_err();
        assert!(error.message().starts_with("model m.onnx: ONNX Runtime can't load it"), "{error}");
        assert!(error.message().contains("Twist"), "{error}");
    }
}

#[test]
fn all_missing_operators_are_named_those_in_branches_too() {
    let branch = |name: &str, op: &str| GraphProto {
        name: name.to_owned(),
        node: vec![NodeProto::of(op, &["x"], &[name])],
        output: vec![value(name, F32, &[N])],
        ..GraphProto::default()
    };
    let node = NodeProto::of("If", &["c"], &["y"])
        .with(AttributeProto::graph("then_branch", branch("t", "ThisOp")))
        .with(AttributeProto::graph("else_branch", branch("e", "ThatOp")));
    let bytes = model(graph(
        vec![node],
        vec![value("c", data_type::BOOL, &[]), value("x", F32, &[N])],
        vec![value("y", F32, &[N])],
        vec![],
    ));
    let error = OnnxModel::from_bytes("m.onnx", bytes, &rten()).unwrap_err();
    assert_eq!(error.message(), "model m.onnx: engine rten lacks the operators ThatOp, ThisOp");
}

#[test]
fn rten_refuses_what_it_would_cut() {
    let model = load(embedding(), &rten());
    let row = Tensor::vector(vec![5_000_000_000i64]);
    let error = model.run::<_, Tensor>(&[row]).unwrap_err();
    assert_eq!(
        error.message(),
        "model test.onnx: input ids: 5000000000 is too large for rten, which has int32 only"
    );
}

#[test]
fn an_engine_s_own_failure_is_an_error_of_that_batch() {
    for options in engines() {
        let model = load(embedding(), &options);
        let error = model.run::<_, Tensor>(&[Tensor::vector(vec![99i64])]).unwrap_err();
        assert_eq!(error.code(), "TB0342", "{error:?}");
        assert!(!error.causes().is_empty(), "the engine's own words are the cause");
        let fine: Vec<Tensor> = model.run(&[Tensor::vector(vec![1i64])]).unwrap();
        assert_eq!(fine[0].to_string(), "[[1, 1.5]]", "the model still works");
    }
}

#[test]
fn the_signature_is_read_from_the_file() {
    let model = load(embedding(), &rten());
    assert_eq!(model.inputs()[0].to_string(), "ids int64[n, k]");
    assert_eq!(model.outputs()[0].to_string(), "y float32[n, k, 2]");
    assert_eq!(model.inputs()[0].shape.as_ref().unwrap()[0], Dim::Named("n".into()));
}
