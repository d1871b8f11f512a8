//! Models made for the tests, and the engines that are here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use prost::Message;
use tiebeam_inference::{InferenceArgs, ModelHandler, Tensor, Tensors};
use tiebeam_onnx::proto::{
    AttributeProto, Axis, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, data_type,
};
use tiebeam_onnx::{Engine, EngineOptions, LoadOptions, OnnxModel};

/// The first file below the cache whose path ends so.
pub fn cached(matches: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    fn walk(folder: &Path, depth: usize, matches: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
        let mut entries = folder.read_dir().ok()?.filter_map(|e| Some(e.ok()?.path())).collect::<Vec<_>>();
        entries.sort();
        entries.iter().find(|path| path.is_file() && matches(path)).cloned().or_else(|| {
            // What lies there beside what was fetched: thousands of files that are none of ours.
            let is_other =
                |path: &Path| ["venv", "target", "engines"].iter().any(|name| path.ends_with(name));
            let inner = entries.iter().filter(|path| depth > 0 && path.is_dir() && !is_other(path));
            inner.into_iter().find_map(|path| walk(path, depth - 1, matches))
        })
    }
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/tiebeam"));
    walk(&std::env::var_os("TIEBEAM_CACHE").map(PathBuf::from).or_else(home)?, 7, matches)
}

/// ONNX Runtime's library, if this machine has one.
pub fn ort_library() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(find_ort_library).clone()
}

fn find_ort_library() -> Option<PathBuf> {
    let named = std::env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty()).map(PathBuf::from);
    let is_library = |path: &Path| {
        path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("libonnxruntime.so"))
    };
    let found = named.or_else(|| cached(&is_library));
    if found.is_none() {
        eprintln!(
            "ONNX Runtime is not tried: no library in ORT_DYLIB_PATH or the cache (`cargo xtask fetch onnxruntime`)"
        );
    }
    found
}

/// Each engine that can run here.
pub fn engines() -> Vec<LoadOptions> {
    let of = |engine, ort_dylib| LoadOptions {
        engine: EngineOptions { engine, ort_dylib, providers: Vec::new() },
        ..LoadOptions::default()
    };
    let mut engines = vec![of(Engine::Rten, None)];
    engines.extend(ort_library().map(|path| of(Engine::Ort, Some(path))));
    engines
}

pub fn rten() -> LoadOptions {
    engines().remove(0)
}

pub fn graph(
    nodes: Vec<NodeProto>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
) -> GraphProto {
    GraphProto { name: "g".to_owned(), node: nodes, input, output, initializer, ..GraphProto::default() }
}

pub fn model(graph: GraphProto) -> Vec<u8> {
    ModelProto::of(graph, 17).encode_to_vec()
}

pub const F32: i32 = data_type::FLOAT;
pub const I64: i32 = data_type::INT64;
pub const N: Axis<'static> = Axis::Named("n");

pub fn value(name: &str, elem_type: i32, axes: &[Axis<'_>]) -> ValueInfoProto {
    ValueInfoProto::tensor(name, elem_type, axes)
}

/// y = 5x: `x` float32[n, 1] to `y` float32[n, 1].
pub fn linear() -> Vec<u8> {
    linear_of(&[N, Axis::Fixed(1)])
}

/// y = 5x for an input of those axes.
pub fn linear_of(axes: &[Axis<'_>]) -> Vec<u8> {
    let node = NodeProto::of("MatMul", &["x", "w"], &["y"]).named("times");
    model(graph(
        vec![node],
        vec![value("x", F32, axes)],
        vec![value("y", F32, axes)],
        vec![TensorProto::f32("w", &[1, 1], &[5.0])],
    ))
}

/// Two inputs of three numbers a row: `sum` = a + b, `larger` = a > b.
pub fn two_and_two() -> Vec<u8> {
    let axes = [N, Axis::Fixed(3)];
    model(graph(
        vec![NodeProto::of("Add", &["a", "b"], &["sum"]), NodeProto::of("Greater", &["a", "b"], &["larger"])],
        vec![value("a", F32, &axes), value("b", F32, &axes)],
        vec![value("sum", F32, &axes), value("larger", data_type::BOOL, &axes)],
        vec![],
    ))
}

/// The sum of a row of any length: float32[n, length] to float32[n].
pub fn sum_of_any_length() -> Vec<u8> {
    let node = NodeProto::of("ReduceSum", &["x", "axes"], &["y"]).with(AttributeProto::int("keepdims", 0));
    model(graph(
        vec![node],
        vec![value("x", F32, &[N, Axis::Named("length")])],
        vec![value("y", F32, &[N])],
        vec![TensorProto::i64("axes", &[1], &[1])],
    ))
}

/// A table looked up by int64: `ids`[n, k] to float32[n, k, 2].
pub fn embedding() -> Vec<u8> {
    model(graph(
        vec![NodeProto::of("Gather", &["table", "ids"], &["y"])],
        vec![value("ids", I64, &[N, Axis::Named("k")])],
        vec![value("y", F32, &[N, Axis::Named("k"), Axis::Fixed(2)])],
        vec![TensorProto::f32("table", &[3, 2], &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5])],
    ))
}

/// One input, one output, of that type and those axes, by one operator.
pub fn one_operator(op: &str, elem_type: i32, axes: &[Axis<'_>]) -> Vec<u8> {
    model(graph(
        vec![NodeProto::of(op, &["x"], &["y"])],
        vec![value("x", elem_type, axes)],
        vec![value("y", elem_type, axes)],
        vec![],
    ))
}

pub fn load(bytes: Vec<u8>, options: &LoadOptions) -> OnnxModel {
    OnnxModel::from_bytes("test.onnx", bytes, options).unwrap()
}

pub fn named<const K: usize>(tensors: [(&str, Tensor); K]) -> Tensors {
    let (names, values): (Vec<Arc<str>>, Vec<_>) =
        tensors.into_iter().map(|(n, t)| (Arc::from(n), t)).unzip();
    Tensors::new(names, values).unwrap()
}

/// Loads, checks and runs, as a pipeline does.
pub fn predict<H: ModelHandler>(handler: &H, batch: &[H::Example]) -> Vec<H::Inference> {
    let model = handler.load_model().unwrap();
    batch.iter().for_each(|example| handler.check_example(example, &model).unwrap());
    handler.run_inference(batch, &model, &InferenceArgs::none()).unwrap()
}
