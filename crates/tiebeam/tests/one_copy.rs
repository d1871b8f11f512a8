//! However many threads ask a model, it is in memory once, and so is what it computes with: a program with eight threads takes hardly
//! more memory than one with one. Without a harness: the test is the program that is measured, too.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test fails by panicking; what was measured is worth seeing

use std::path::Path;
use std::process::{Command, ExitCode};

use tiebeam::inference::{RunInference, Tensor};
use tiebeam::onnx::proto::{Axis, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, data_type};
use tiebeam::onnx::{Engine, OnnxModelHandler, find_onnxruntime};
use tiebeam::prelude::*;

/// Makes this the program: the engine, the threads and the model.
const PROGRAM: &str = "TIEBEAM_TEST_PROGRAM";

const WIDTH: usize = 2048;
const LAYERS: usize = 4;
const ROWS: i64 = 512;

/// 64 MiB of weights that leave a row as it is.
fn model() -> Vec<u8> {
    let mut weights = vec![0.0f32; WIDTH * WIDTH];
    (0..WIDTH).for_each(|i| weights[i * WIDTH + i] = 1.0);
    let name = |i: usize| format!("x{i}");
    let axes = [Axis::Named("n"), Axis::Fixed(WIDTH)];
    let port = |name: &str| ValueInfoProto::tensor(name, data_type::FLOAT, &axes);
    let weight = |i: usize| TensorProto::f32(&format!("w{i}"), &[WIDTH, WIDTH], &weights);
    let node =
        |i: usize| NodeProto::of("MatMul", &[&name(i), &format!("w{i}")], &[&name(i + 1)]).named(name(i));
    let graph = GraphProto {
        name: "same".to_owned(),
        node: (0..LAYERS).map(node).collect(),
        initializer: (0..LAYERS).map(weight).collect(),
        input: vec![port("x0")],
        output: vec![port(&name(LAYERS))],
        ..GraphProto::default()
    };
    ModelProto::of(graph, 18).to_bytes()
}

/// The program: all rows through the model; the most memory that it had, in KiB, on its standard output.
fn program(wanted: &str) -> Result<()> {
    let [engine, threads, path] = wanted.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        return Err(Error::internal("engine, threads and model are wanted"));
    };
    let p = Pipeline::new();
    let sums = p
        .apply(Create::of(0..ROWS))
        .map(|row: i64| Tensor::vector(vec![row as f32; WIDTH]))
        .apply(RunInference::new(OnnxModelHandler::new(path).with_engine(engine.parse::<Engine>()?)))
        .map(|result| (result.example == result.inference, result.inference))
        .filter(|(is_same, _)| *is_same)
        .apply(count::globally());
    tiebeam_testing::assert_that(&sums).contains_in_any_order([ROWS]);
    let graph = p.build().map_err(|errors| Error::internal(errors.to_string()))?;
    let threads = threads.parse().unwrap_or(1);
    EmbeddedRunner::new(RunnerOptions::default().with_threads(threads)).run(&graph)?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    println!("{}", most.trim().trim_end_matches("kB").trim());
    Ok(())
}

/// The most memory of such a program, in KiB.
fn measured(engine: Engine, threads: usize, model: &Path) -> u64 {
    let ended = Command::new(std::env::current_exe().unwrap())
        .env(PROGRAM, format!("{engine} {threads} {}", model.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{engine}, {threads} threads: {said}");
    String::from_utf8_lossy(&ended.stdout).trim().parse().unwrap()
}

fn main() -> ExitCode {
    if let Ok(wanted) = std::env::var(PROGRAM) {
        return match program(&wanted) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tiebeam::launch::print_error(&error);
                ExitCode::FAILURE
            }
        };
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("same.onnx");
    std::fs::write(&path, model()).unwrap();
    let mut engines = vec![Engine::Rten];
    match find_onnxruntime(None) {
        Ok(_) => engines.push(Engine::Ort),
        Err(_) => println!("skipped on ONNX Runtime: its library was not found"),
    }
    for engine in engines {
        let (one, eight) = (measured(engine, 1, &path), measured(engine, 8, &path));
        println!("{engine}: {one} KiB with one thread, {eight} KiB with eight");
        assert!(one > 64 << 10, "{engine}: the model alone takes more than {one} KiB");
        assert!(eight * 10 < one * 11, "{engine}: {one} KiB with one thread, {eight} KiB with eight");
    }
    ExitCode::SUCCESS
}
