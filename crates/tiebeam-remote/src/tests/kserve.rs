//! KServe v2.

use serde_json::{Value as Json, json};
use tiebeam_core::ErrorKind;
use tiebeam_core::row::Value;
use tiebeam_inference::{ModelMetadata, Tensor, Tensors};

use super::*;
use crate::kserve::KServeModelHandler;

fn metadata() -> Json {
    json!({
        "name": "lin", "versions": ["3"], "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [-1, 1]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]}
        ]
    })
}

/// A server that tells `metadata` and answers by `infer`.
fn server(
    metadata: Json,
    infer: impl Fn(&Json) -> Reply + Send + Sync + 'static,
) -> impl Fn(usize, &RemoteRequest) -> Reply + Send + Sync {
    move |_, request| {
        if request.url().ends_with("/ready") {
            reply(200, "")
        } else if request.url().ends_with("/infer") {
            infer(&serde_json::from_slice(request.body()).unwrap())
        } else {
            reply(200, metadata.to_string())
        }
    }
}

/// y = 2·x0 + x1 for each row, and a label.
fn linear(body: &Json) -> Reply {
    let x = body["inputs"][0]["data"].as_array().unwrap();
    let y: Vec<f64> =
        x.chunks(2).map(|row| 2.0 * row[0].as_f64().unwrap() + row[1].as_f64().unwrap()).collect();
    let labels: Vec<String> = y.iter().map(|y| format!("label {y}")).collect();
    let n = y.len();
    let answer = json!({
        "model_name": "lin", "model_version": "3", "id": "1",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [n], "data": labels},
            {"name": "y", "datatype": "FP32", "shape": [n, 1], "data": y}
        ]
    });
    reply(200, answer.to_string())
}

fn handler(name: &str) -> KServeModelHandler {
    KServeModelHandler::new(format!("http://127.0.0.1:1/{name}"), "lin")
}

fn row(a: f32, b: f32) -> Tensor {
    Tensor::vector(vec![a, b])
}

#[test]
fn a_request_stacks_its_examples_and_the_answer_is_split_by_row() {
    let bench =
        Bench::new(handler("stack").with_version("3").with_outputs(["y"]), server(metadata(), linear));
    let args = InferenceArgs::from_iter([("priority", Value::Int64(1))]);
    let client = bench.load().unwrap();
    assert_eq!(&*bench.handler.model_info(&client).model_id, "lin/3");
    let answers = bench.handler.ask(&[row(1.0, 0.5), row(0.1, 0.0), row(-1.0, 2.0)], &client, &args);
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().model_id.as_deref() == Some("lin/3")));
    assert_eq!(inferences(answers), [2.5f32, 0.2, 0.0].map(|y| Tensor::vector(vec![y])));
    let base = "http://127.0.0.1:1/stack/v2/models/lin/versions/3";
    assert_eq!(bench.urls(), [format!("{base}/ready"), base.to_owned(), format!("{base}/infer")]);
    let asked = bench.transport.asked.lock().unwrap();
    assert_eq!(
        std::str::from_utf8(asked[2].1.body()).unwrap(),
        r#"{"inputs":[{"name":"x","shape":[3,2],"datatype":"FP32","data":[1.0,0.5,0.1,0.0,-1.0,2.0]}],"outputs":[{"name":"y"}],"parameters":{"priority":1}}"#
    );
}

#[test]
fn several_outputs_come_by_name() {
    let bench = Bench::new(handler("named").named_outputs().with_request_size(2), server(metadata(), linear));
    let answers = inferences(bench.ask(&[row(1.0, 0.0), row(2.0, 0.0), row(3.0, 0.0)]));
    for (answer, y) in answers.iter().zip([2.0f32, 4.0, 6.0]) {
        assert_eq!(answer.get("y").unwrap(), &Tensor::vector(vec![y]));
        assert_eq!(answer.get("label").unwrap(), &Tensor::scalar::<Arc<str>>(format!("label {y}").into()));
        assert_eq!(answer.names().iter().map(|name| &**name).collect::<Vec<_>>(), ["y", "label"]);
    }
}

#[test]
fn several_inputs_are_taken_by_name() {
    let metadata = json!({
        "name": "sum",
        "inputs": [
            {"name": "ids", "datatype": "INT64", "shape": [-1, -1]},
            {"name": "on", "datatype": "BOOL", "shape": [-1]},
            {"name": "text", "datatype": "BYTES", "shape": [-1]}
        ],
        "outputs": [{"name": "n", "datatype": "INT64", "shape": [-1]}]
    });
    let infer = |body: &Json| {
        let ids = body["inputs"][0]["data"].as_array().unwrap();
        let n = body["inputs"][1]["shape"][0].as_u64().unwrap() as usize;
        let sums: Vec<i64> =
            ids.chunks(ids.len() / n).map(|row| row.iter().map(|id| id.as_i64().unwrap()).sum()).collect();
        reply(
            200,
            json!({"outputs": [{"name": "n", "datatype": "INT64", "shape": [n], "data": sums}]}).to_string(),
        )
    };
    let bench = Bench::new(handler("inputs").named_inputs(), server(metadata, infer));
    let names: Arc<[Arc<str>]> = ["text", "ids", "on"].map(Arc::from).into();
    let example = |ids: Vec<i64>| {
        let text = Tensor::scalar::<Arc<str>>("hé".into());
        Tensors::new(names.clone(), vec![text, Tensor::vector(ids), Tensor::scalar(true)]).unwrap()
    };
    let batch = [example(vec![1, 2]), example(vec![3, 4]), example(vec![5, 6, 7]), example(vec![8, 9, 10])];
    assert_eq!(inferences(bench.ask(&batch)), [3i64, 7, 18, 27].map(Tensor::scalar));
    let mut bodies = bench.transport.asked.lock().unwrap()[2..]
        .iter()
        .map(|(_, request)| serde_json::from_slice::<Json>(request.body()).unwrap())
        .collect::<Vec<_>>();
    bodies.sort_by_key(|body| body["inputs"][0]["shape"][1].as_u64());
    assert_eq!(bodies.len(), 2, "rows of another length go in another request");
    assert_eq!(
        bodies[0]["inputs"][2],
        json!({"name": "text", "shape": [2], "datatype": "BYTES", "data": ["hé", "hé"]})
    );
    assert_eq!(bodies[1]["inputs"][0]["shape"], json!([2, 3]));

    let client = bench.load().unwrap();
    bench.handler.check_example(&batch[0], &client).unwrap();
    let unknown = Tensors::new(["ids", "on", "text", "more"].map(Arc::from), {
        let mut values = vec![Tensor::vector(vec![1i64]), Tensor::scalar(true)];
        values.extend([Tensor::scalar::<Arc<str>>("".into()), Tensor::scalar(1i64)]);
        values
    });
    let missing = Tensors::new(["ids"].map(Arc::from), vec![Tensor::vector(vec![1i64])]);
    for (example, name) in [(unknown.unwrap(), "more"), (missing.unwrap(), "on")] {
        let error = bench.handler.check_example(&example, &client).unwrap_err();
        assert_eq!(
            (error.code(), error.message().contains(&format!("`{name}`"))),
            ("TB0610", true),
            "{error}"
        );
    }
}

#[test]
fn examples_are_checked_before_they_are_sent() {
    let bench = Bench::new(handler("check").with_outputs(["y"]), server(metadata(), linear));
    let client = bench.load().unwrap();
    bench.handler.check_example(&row(1.0, 2.0), &client).unwrap();
    for (example, said) in [
        (Tensor::vector(vec![1.0f64, 2.0]), "`x` must be float32[2], got float64[2]"),
        (Tensor::vector(vec![1.0f32]), "`x` must be float32[2], got float32[1]"),
        (Tensor::new(&[1, 2], vec![1.0f32, 2.0]).unwrap(), "`x` must be float32[2], got float32[1, 2]"),
        (row(f32::NAN, 0.0), "`x` has a number that is not finite, which JSON has not"),
    ] {
        let error = bench.handler.check_example(&example, &client).unwrap_err();
        assert_eq!((error.code(), error.message()), ("TB0610", said));
    }
}

#[test]
fn a_model_that_cannot_be_asked_this_way_is_refused_when_it_is_loaded() {
    let change = |pointer: &str, to: Json| {
        let mut told = metadata();
        *told.pointer_mut(pointer).unwrap() = to;
        told
    };
    for (number, (told, said)) in [
        (metadata(), "lin has 2 outputs (y, label), but inferences are one tensor"),
        (change("/inputs/0/datatype", json!("UINT64")), "`x` is of type UINT64"),
        (change("/inputs/0/shape", json!([])), "`x` has 0 axes"),
        (change("/inputs/0/shape", json!([8, 2])), "lin takes batches of exactly 8 examples"),
        (change("/inputs", json!([])), "lin tells no inputs"),
        (change("/inputs", json!(7)), "tells of itself what can't be read"),
        (json!("x"), "tells of itself what can't be read"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("refused-{number}");
        let outputs: &[&str] = if number == 0 { &[] } else { &["y"] };
        let bench = Bench::new(handler(&name).with_outputs(outputs.iter().copied()), server(told, linear));
        let error = bench.load().err().unwrap();
        assert_eq!((error.code(), error.kind()), ("TB0609", ErrorKind::Model));
        assert!(error.message().contains(said), "{error}");
    }
    let error =
        Bench::new(handler("none").with_outputs(["z"]), server(metadata(), linear)).load().err().unwrap();
    assert_eq!(error.message(), "lin has no output `z`; it has y, label");
    let bench = Bench::new(handler("absent"), |_, _| reply(404, "no such model"));
    let error = bench.load().err().unwrap();
    assert_eq!(error.message(), "http://127.0.0.1:1/absent/v2/models/lin is not ready: HTTP 404");
    let bench = Bench::new(handler("away").with_max_attempts(2), |_, _| Err(Fault::Unreachable));
    let error = bench.load().err().unwrap();
    assert_eq!((error.code(), bench.requests()), ("TB0604", 2));
}

#[test]
fn a_model_of_a_first_axis_of_one_is_asked_one_by_one() {
    let mut told = metadata();
    told["inputs"][0]["shape"] = json!([1, 2]);
    let bench = Bench::new(handler("one").with_outputs(["y"]), server(told, linear));
    assert_eq!(
        inferences(bench.ask(&[row(1.0, 0.0), row(2.0, 0.0)])),
        [2.0f32, 4.0].map(|y| Tensor::vector(vec![y]))
    );
    assert_eq!(bench.requests(), 4);
}

#[test]
fn another_version_is_loaded_beside_the_one_in_use() {
    let bench =
        Bench::new(handler("versions").with_version("3").with_outputs(["y"]), server(metadata(), linear));
    let old = bench.load().unwrap();
    let new = bench.handler.load_version(&ModelMetadata::of("lin/4")).unwrap();
    assert!(bench.handler.takes_updates());
    assert_eq!(&*bench.handler.model_info(&new).model_id, "lin/4");
    let (old, new) = (bench.handler.signature(&old).unwrap(), bench.handler.signature(&new).unwrap());
    assert_eq!(new.differs_from(&old), None);
    assert_eq!(old.inputs[0].to_string(), "x float32[?, 2]");
    let asked = |suffix: &str| format!("http://127.0.0.1:1/versions/v2/models/{suffix}");
    let urls = ["lin/versions/3/ready", "lin/versions/3", "lin/versions/4/ready", "lin/versions/4"];
    assert_eq!(bench.urls(), urls.map(asked));
}

#[test]
fn answers_that_are_wrong_are_errors() {
    let output = |shape: &str, datatype: &str, data: &str| {
        format!(r#"{{"outputs":[{{"name":"y","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#)
    };
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    for (number, (body, code)) in [
        ("not json".to_owned(), "TB0607"),
        ("{}".to_owned(), "TB0607"),
        (r#"{"outputs":[]}"#.to_owned(), "TB0607"),
        (r#"{"error":"out of memory"}"#.to_owned(), "TB0607"),
        (output("[2,1]", "FP64", "[1,2]"), "TB0607"),
        (output("[2,1]", "FP32", "[1,null]"), "TB0607"),
        (output("[2,1]", "FP32", "[1,\"NaN\"]"), "TB0607"),
        (output("[2,1]", "FP32", "[1,NaN]"), "TB0607"),
        (output("[2,1]", "FP32", "[1,1e300]"), "TB0607"),
        (output("[2,1]", "FP32", "[1]"), "TB0607"),
        (output("[2,1]", "FP32", "7"), "TB0607"),
        (output("[2,1]", "FP32", &deep), "TB0607"),
        (output("[2,18446744073709551615,2]", "FP32", "[]"), "TB0607"),
        (output("[2,-1]", "FP32", "[1,2]"), "TB0607"),
        (output("[3,1]", "FP32", "[1,2,3]"), "TB0606"),
        (output("[1,1]", "FP32", "[1]"), "TB0606"),
        (output("[]", "FP32", "[1]"), "TB0606"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("wrong-{number}");
        let shown = body.clone();
        let bench = Bench::new(
            handler(&name).with_outputs(["y"]).with_max_attempts(2),
            server(metadata(), move |_| reply(200, &body)),
        );
        let error = bench.error(&[row(1.0, 0.0), row(2.0, 0.0)]);
        assert_eq!(error.code(), code, "{shown}: {error}");
    }
    // Nested data are the same as flat ones.
    let nested = output("[2,1]", "FP32", "[[1],[2.5]]");
    let bench =
        Bench::new(handler("nested").with_outputs(["y"]), server(metadata(), move |_| reply(200, &nested)));
    let wanted = [1.0f32, 2.5].map(|y| Tensor::vector(vec![y]));
    assert_eq!(inferences(bench.ask(&[row(1.0, 0.0), row(2.0, 0.0)])), wanted);
}
