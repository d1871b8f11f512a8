//! What `models inspect` shows.

use tiebeam_onnx::proto::{Axis, NodeProto, TypeProto, TypeValue, ValueInfoProto, data_type};
use tiebeam_onnx::{EngineOptions, Inspection, ModelFile, inspect, inspect_file};

use crate::support::*;

fn look(bytes: Vec<u8>) -> Inspection {
    let options = EngineOptions { ort_dylib: ort_library(), ..EngineOptions::default() };
    inspect_file(&ModelFile::from_bytes("m.onnx", bytes).unwrap(), &options)
}

#[test]
fn a_model_is_described() {
    let seen = look(embedding());
    assert_eq!((seen.format, seen.parameters, seen.bytes), ("onnx", 6, embedding().len() as u64));
    assert_eq!(seen.inputs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ids int64[n, k]"]);
    assert_eq!(seen.outputs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["y float32[n, k, 2]"]);
    assert_eq!(seen.operators, ["Gather"]);
    assert_eq!((seen.engines[0].name, seen.engines[0].runs), ("rten", true));
    assert_eq!(seen.engines[0].why, "computes int64 as int32");
    assert_eq!((seen.engines[1].name, seen.engines[1].runs), ("ort", ort_library().is_some()));
    assert_eq!(
        seen.handler.as_deref(),
        Some("type: OnnxModelHandlerNumpy\nconfig:\n  model_uri: \"m.onnx\"\n  inputs: {\"ids\": \"ids\"}\n")
    );
}

#[test]
fn the_json_has_the_contract_s_keys() {
    let bytes = linear_of(&[N, Axis::Free]);
    let seen = look(bytes.clone());
    let json = seen.to_json();
    let start = format!(
        "{{\"format\":\"onnx\",\"uri\":\"m.onnx\",\"sha256\":\"{}\",\"bytes\":{},\"parameters\":1,\"inputs\":\
         [{{\"name\":\"x\",\"dtype\":\"float32\",\"shape\":[\"n\",null]}}],\"outputs\":[{{\"name\":\"y\",\
         \"dtype\":\"float32\",\"shape\":[\"n\",null]}}],\"operators\":[\"MatMul\"],\"engines\":[{{\"name\":\"rten\",\
         \"runs\":true,\"why\":\"built in\"}},{{\"name\":\"ort\",",
        seen.sha256,
        bytes.len(),
    );
    assert!(json.starts_with(&start), "{json}\n{start}");
}

#[test]
fn an_engine_that_lacks_operators_names_them() {
    let mut scaler = NodeProto::of("Scaler", &["x"], &["y"]);
    scaler.domain = "ai.onnx.ml".to_owned();
    let axes = [N, Axis::Fixed(1)];
    let bytes =
        model(graph(vec![scaler], vec![value("x", F32, &axes)], vec![value("y", F32, &axes)], vec![]));
    let seen = look(bytes);
    assert_eq!(seen.engines[0].why, "lacks ai.onnx.ml.Scaler");
    assert!(!seen.engines[0].runs);
}

/// What scikit-learn's classifiers give: a list of maps beside a tensor of labels.
#[test]
fn outputs_that_are_no_tensors_are_named_and_left_out() {
    let string = TypeValue::Sequence(Box::new(tiebeam_onnx::proto::ElementTypeProto {
        elem_type: Some(Box::new(TypeProto {
            value: Some(TypeValue::Map(Box::new(tiebeam_onnx::proto::MapTypeProto {
                key_type: data_type::INT64,
                value_type: value("v", F32, &[]).r#type.map(Box::new),
            }))),
            denotation: String::new(),
        })),
    }));
    let scores = ValueInfoProto {
        name: "scores".to_owned(),
        r#type: Some(TypeProto { value: Some(string), denotation: String::new() }),
        doc_string: String::new(),
    };
    let mut zip = NodeProto::of("ZipMap", &["x"], &["scores"])
        .with(tiebeam_onnx::proto::AttributeProto::ints("classlabels_int64s", &[0, 1]));
    zip.domain = "ai.onnx.ml".to_owned();
    let axes = [N, Axis::Fixed(2)];
    let graph = graph(
        vec![zip, NodeProto::of("Abs", &["x"], &["y"])],
        vec![value("x", F32, &axes)],
        vec![value("y", F32, &axes), scores],
        vec![],
    );
    let mut proto = tiebeam_onnx::proto::ModelProto::of(graph, 17);
    let ml = tiebeam_onnx::proto::OperatorSetIdProto { domain: "ai.onnx.ml".to_owned(), version: 3 };
    proto.opset_import.push(ml);
    let seen = look(prost::Message::encode_to_vec(&proto));
    assert_eq!(seen.outputs[1].to_string(), "scores sequence<map<int64, float32>>");
    if ort_library().is_some() {
        assert!(seen.engines[1].runs, "{}", seen.engines[1].why);
        assert!(seen.handler.unwrap().contains("  outputs: [\"y\"]\n"));
    } else {
        assert_eq!(seen.handler, None);
    }
}

#[test]
fn inspecting_what_is_no_model_is_an_error() {
    let error = inspect(std::path::Path::new("none.onnx"), &EngineOptions::default()).unwrap_err();
    assert_eq!(error.message(), "model none.onnx: there is no such file");
}
