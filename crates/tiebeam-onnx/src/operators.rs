//! Which operators a model needs, and which of them an engine lacks. The engine is asked: no list of ours can be wrong.

use std::collections::BTreeSet;

use prost::Message;
use rten::{LoadErrorKind, ModelOptions};
use tiebeam_core::error::Error;

use crate::engine::guarded;
use crate::file::{ModelFile, for_each_node, model_error};
use crate::proto::{Axis, GraphProto, ModelProto, NodeProto, ValueInfoProto, data_type};

/// The operators of a model, as `Gemm` or `com.microsoft.Gelu`, in order.
pub fn operators(file: &ModelFile) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for_each_node(file.proto(), &mut |node| {
        names.insert(full_name(node));
    });
    names
}

fn full_name(node: &NodeProto) -> String {
    match node.domain.as_str() {
        "" | "ai.onnx" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    }
}

/// The operators of a model that rten does not have.
pub(crate) fn rten_lacks(file: &ModelFile) -> Vec<String> {
    let mut asked = BTreeSet::new();
    let mut lacks = Vec::new();
    for_each_node(file.proto(), &mut |node| {
        let name = full_name(node);
        // Constants are no operators to rten: it reads them as weights.
        if name != "Constant" && asked.insert(name.clone()) && !rten_has(node) {
            lacks.push(name);
        }
    });
    lacks.sort_unstable();
    lacks
}

/// Whether rten knows an operator: a model of that node alone is loaded, and may fail for any other reason.
fn rten_has(node: &NodeProto) -> bool {
    let output = node.output.first().cloned().unwrap_or_default();
    let value = |name: &str| ValueInfoProto::tensor(name, data_type::FLOAT, &[Axis::Free]);
    let graph = GraphProto {
        name: "probe".to_owned(),
        node: vec![NodeProto { attribute: Vec::new(), ..node.clone() }],
        input: node.input.iter().filter(|name| !name.is_empty()).map(|name| value(name)).collect(),
        output: Some(output).filter(|name| !name.is_empty()).iter().map(|name| value(name)).collect(),
        ..GraphProto::default()
    };
    let bytes = ModelProto::of(graph, 18).encode_to_vec();
    let loaded = guarded("probe", "rten", || {
        let mut options = ModelOptions::with_all_ops();
        options.enable_optimization(false);
        Ok(options.load(bytes))
    });
    match loaded {
        Ok(Err(e)) if e.kind() == LoadErrorKind::OperatorInvalid => {
            let text = e.to_string();
            !text.contains("not supported or not enabled") && !text.contains("compiled without")
        }
        _ => true,
    }
}

/// The error of a model that rten refuses for its operators: names all that are missing, and the engine that has them.
pub(crate) fn lacking(file: &ModelFile, error: &rten::LoadError) -> Error {
    match rten_lacks(file).as_slice() {
        [] => model_error("TB0336", file.name(), format!("rten can't load it: {error}"))
            .with_help("ONNX Runtime may run it: `engine: ort`"),
        missing => {
            let (noun, names) =
                (if missing.len() == 1 { "operator" } else { "operators" }, missing.join(", "));
            let custom = missing.iter().any(|name| !is_onnx_runtime_s(name));
            let help = if custom {
                "an operator of that domain is part of neither engine: export the model without it"
            } else {
                "ONNX Runtime has ONNX's, ai.onnx.ml's and com.microsoft's operators: use `engine: ort` and \
                 `pip install onnxruntime`, or name its library in ORT_DYLIB_PATH"
            };
            model_error("TB0335", file.name(), format!("engine rten lacks the {noun} {names}"))
                .with_help(help)
        }
    }
}

/// Whether an operator's domain is one that ONNX Runtime has built in.
fn is_onnx_runtime_s(full_name: &str) -> bool {
    match full_name.rsplit_once('.') {
        None => true,
        Some((domain, _)) => {
            domain.starts_with("ai.onnx")
                || matches!(domain, "com.microsoft" | "com.microsoft.nchwc" | "com.ms.internal.nhwc")
        }
    }
}
