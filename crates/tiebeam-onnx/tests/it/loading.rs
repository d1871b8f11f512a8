//! Files that are no model, or not this one: one clear line each.

use std::path::Path;

use prost::Message;
use tiebeam_core::error::ErrorKind;
use tiebeam_inference::{ModelHandler, Tensor, staged};
use tiebeam_onnx::proto::{Axis, EXTERNAL, ModelProto, NodeProto, StringStringEntryProto, TensorProto};
use tiebeam_onnx::{LoadOptions, ModelFile, OnnxModel, OnnxModelHandler};

use crate::support::*;

fn refused(bytes: &[u8]) -> String {
    let error = ModelFile::from_bytes("m.onnx", bytes.to_vec()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model);
    let message = error.message().to_owned();
    assert!(!message.contains('\n'), "one line: {message}");
    message.strip_prefix("model m.onnx: ").expect("names the model").to_owned()
}

#[test]
fn what_a_foreign_file_looks_like_is_told() {
    let looks = |bytes: &[u8], what: &str| {
        assert_eq!(refused(bytes), format!("not an ONNX model, this looks like {what}"));
    };
    looks(b"PK\x03\x04\0\0\0\0\0\0archive/data.pkl", "a PyTorch file (zip)");
    looks(b"PK\x03\x04\0\0\0\0\0\0word/document.xml", "a zip file");
    looks(b"\x80\x02\x8a\x0al\xfc\x9cF", "a Python pickle, perhaps a PyTorch file of before 1.6");
    looks(b"<!DOCTYPE html><html>404", "HTML: a web page was saved in place of the model");
    looks(b"\n <html><body>sign in", "HTML: a web page was saved in place of the model");
    looks(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a",
        "a Git LFS pointer: fetch the file itself with `git lfs pull`",
    );
    looks(b"\x1c\0\0\0TFL3\0\0", "a TensorFlow Lite model");
    looks(b"\x89HDF\r\n\x1a\n", "HDF5, perhaps a Keras model");
    looks(b"GGUF\x03\0\0\0", "GGUF");
    looks(b"\x40\0\0\0\0\0\0\0{\"w\":{\"dtype\":\"F32\"}}", "safetensors");
    looks(b"{\"learner\": {}}", "JSON");
    looks(b"tree\nversion=v4\nnum_class=1\n", "text");
}

#[test]
fn an_empty_or_cut_file_is_told() {
    assert_eq!(refused(b""), "the file is empty");
    let whole = linear();
    for cut in 1..whole.len() {
        // A protobuf that is cut between fields is a smaller message: then something is missing in it.
        if ModelFile::from_bytes("m.onnx", whole[..cut].to_vec()).is_ok() {
            panic!("cut at {cut} of {} was taken", whole.len());
        }
    }
    let text = refused(&whole[..whole.len() - 3]);
    assert!(text.starts_with("not an ONNX model, or cut off or damaged (failed to decode"), "{text}");
    assert_eq!(refused(&ModelProto::default().encode_to_vec().repeat(1)), "the file is empty");
    let hollow = ModelProto { ir_version: 8, ..ModelProto::default() }.encode_to_vec();
    assert_eq!(refused(&hollow), "not an ONNX model: there is no graph in it");
}

#[test]
fn a_missing_file_is_told_with_its_path() {
    let error = OnnxModel::load(Path::new("nowhere/m.onnx"), &LoadOptions::default()).unwrap_err();
    assert_eq!(error.message(), "model nowhere/m.onnx: there is no such file");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Model, "TB0330"));
    let folder = tempfile::tempdir().unwrap();
    let error = OnnxModel::load(folder.path(), &LoadOptions::default()).unwrap_err();
    assert_eq!(
        error.message(),
        format!("model {}: this is a directory, not a file", folder.path().display())
    );
}

#[test]
fn lying_weights_are_refused_before_an_engine_sees_them() {
    let with = |change: &dyn Fn(&mut TensorProto)| {
        let mut proto = ModelProto::decode(&linear()[..]).unwrap();
        change(&mut proto.graph.as_mut().unwrap().initializer[0]);
        refused(&proto.encode_to_vec())
    };
    assert_eq!(
        with(&|w| w.dims = vec![1 << 40, 1]),
        "weight w: 4 bytes for the shape [1099511627776, 1] of float32, wanted 4398046511104"
    );
    assert_eq!(with(&|w| w.dims = vec![-1, 1]), "weight w: its shape is [-1, 1]");
    assert_eq!(
        with(&|w| w.dims = vec![i64::MAX, i64::MAX]),
        format!("weight w: its shape is [{0}, {0}]", i64::MAX)
    );
    assert_eq!(
        with(&|w| {
            w.raw_data = None;
            w.float_data = vec![1.0, 2.0];
        }),
        "weight w: 2 numbers for the shape [1, 1]"
    );
}

#[test]
fn a_type_that_tensors_cannot_hold_is_refused_by_name() {
    let half = one_operator("Identity", tiebeam_onnx::proto::data_type::FLOAT16, &[N]);
    let error = OnnxModel::from_bytes("m.onnx", half, &rten()).unwrap_err();
    assert_eq!(error.message(), "model m.onnx: input x float16[n] is of a type that tensors can't hold");
}

/// The linear model with its weight in another file.
fn with_external(location: &str, offset: Option<&str>) -> Vec<u8> {
    let mut proto = ModelProto::decode(&linear()[..]).unwrap();
    let weight = &mut proto.graph.as_mut().unwrap().initializer[0];
    weight.raw_data = None;
    weight.data_location = EXTERNAL;
    let entry =
        |key: &str, value: &str| StringStringEntryProto { key: key.to_owned(), value: value.to_owned() };
    weight.external_data = vec![entry("location", location), entry("length", "4")];
    weight.external_data.extend(offset.map(|offset| entry("offset", offset)));
    proto.encode_to_vec()
}

/// Weights of a model under a URL come from the same folder of the store, and from nowhere else.
#[test]
fn weights_beside_a_fetched_model_are_fetched_too() {
    let store = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(store.path().join("b/w")).unwrap();
    let weights = [9.0f32, 7.0].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    std::fs::write(store.path().join("b/w/weights.bin"), weights).unwrap();
    std::fs::write(store.path().join("secret.bin"), [0; 8]).unwrap();
    for (name, location) in
        [("m", "w/weights.bin"), ("dot", "./w/weights.bin"), ("up", "../secret.bin"), ("none", "none.bin")]
    {
        let bytes = with_external(location, Some("4"));
        std::fs::write(store.path().join(format!("b/{name}.onnx")), bytes).unwrap();
    }
    // A cache, where each file is in a folder of its own.
    let (cache, from) = (tempfile::tempdir().unwrap(), store.path().to_owned());
    let kept = cache.path().to_owned();
    staged::fetch_by(move |url, _| {
        let rest = url.strip_prefix("test://").unwrap();
        assert!(!rest.contains(".."), "{rest}");
        let place = kept.join(rest.replace('/', "_"));
        std::fs::create_dir_all(&place)?;
        let path = place.join(rest.rsplit('/').next().unwrap());
        std::fs::copy(from.join(rest), &path)?;
        Ok(path)
    });
    for options in engines() {
        let load = |name: &str| {
            let handler = OnnxModelHandler::new(format!("test://b/{name}.onnx"));
            let handler = handler.with_engine(options.engine.engine);
            let handler = match &options.engine.ort_dylib {
                Some(library) => handler.with_ort_dylib(library),
                None => handler,
            };
            handler.load_model()
        };
        for name in ["m", "dot"] {
            let model = load(name).unwrap();
            let results: Vec<Tensor> = model.run(&[Tensor::scalar(2.0f32)]).unwrap();
            assert_eq!(results[0].to_scalar::<f32>(), Some(14.0));
            assert_eq!(&*model.details().model_id, format!("test://b/{name}.onnx"));
        }
        assert_eq!(
            load("up").unwrap_err().message(),
            "model test://b/up.onnx: its weights are in ../secret.bin, outside of the model's own folder: refused"
        );
        assert_eq!(load("none").unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[test]
fn weights_beside_the_model_are_used_on_every_engine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    std::fs::create_dir(folder.path().join("w")).unwrap();
    let weights = [9.0f32, 7.0].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    std::fs::write(folder.path().join("w/weights.bin"), weights).unwrap();
    for location in ["w/weights.bin", "./w/weights.bin"] {
        std::fs::write(&path, with_external(location, Some("4"))).unwrap();
        for options in engines() {
            let model = OnnxModel::load(&path, &options).unwrap();
            let results: Vec<Tensor> = model.run(&[Tensor::scalar(2.0f32)]).unwrap();
            assert_eq!(results[0].to_scalar::<f32>(), Some(14.0));
            let size = std::fs::metadata(&path).unwrap().len() + 8;
            assert_eq!(model.details().bytes, Some(size), "the weights count");
        }
    }
}

#[test]
fn weights_outside_of_the_model_s_folder_are_refused() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("m.onnx");
    std::fs::write(outer.path().join("secret"), [0u8; 4]).unwrap();
    let refused = |location: &str| {
        std::fs::write(&path, with_external(location, None)).unwrap();
        let error = OnnxModel::load(&path, &rten()).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Model, "TB0332"));
        let message = error.message().to_owned();
        message.strip_prefix(&format!("model {}: ", path.display())).unwrap().to_owned()
    };
    let outside = |l: &str| format!("its weights are in {l}, outside of the model's own folder: refused");
    assert_eq!(refused("../secret"), outside("../secret"));
    assert_eq!(refused("a/../../secret"), outside("a/../../secret"));
    let absolute = outer.path().join("secret").display().to_string();
    assert_eq!(refused(&absolute), outside(&absolute));
    assert_eq!(refused("..\\secret"), outside("..\\secret"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outer.path().join("secret"), folder.join("link")).unwrap();
        assert_eq!(refused("link"), "its weights are in link, a link out of the model's own folder: refused");
    }
    let missing = refused("gone.bin");
    assert!(missing.contains("gone.bin, which cannot be read"), "{missing}");
    std::fs::write(folder.join("short.bin"), [0u8; 3]).unwrap();
    assert_eq!(
        refused("short.bin"),
        "weight w ends behind the end of short.bin (3 bytes): the file is cut off or another one"
    );
    std::fs::write(&path, with_external("short.bin", Some("18446744073709551615"))).unwrap();
    let error = OnnxModel::load(&path, &rten()).unwrap_err();
    assert!(error.message().contains("ends behind the end"), "{error}");
    let error = OnnxModel::from_bytes("m", with_external("short.bin", None), &rten()).unwrap_err();
    assert_eq!(
        error.message(),
        "model m: its weights are in another file, short.bin, but it came from memory"
    );
}

#[test]
fn a_weight_that_old_files_list_as_an_input_is_none() {
    let axes = [N, Axis::Fixed(1)];
    let bytes = model(graph(
        vec![NodeProto::of("MatMul", &["x", "w"], &["y"])],
        vec![value("x", F32, &axes), value("w", F32, &[Axis::Fixed(1), Axis::Fixed(1)])],
        vec![value("y", F32, &axes)],
        vec![TensorProto::f32("w", &[1, 1], &[3.0])],
    ));
    for options in engines() {
        let model = load(bytes.clone(), &options);
        assert_eq!(model.inputs().len(), 1);
        let results: Vec<Tensor> = model.run(&[Tensor::scalar(2.0f32)]).unwrap();
        assert_eq!(results[0].to_scalar::<f32>(), Some(6.0));
    }
}
