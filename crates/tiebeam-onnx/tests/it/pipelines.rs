//! A real model in whole pipelines: rows that do not fit it cost themselves alone, and never reach a batch.

use tiebeam_core::metrics::MetricValue;
use tiebeam_graph::Create;
use tiebeam_inference::{Batching, ModelHandler, ModelMetadata, RunInference, Tensor};
use tiebeam_onnx::OnnxModelHandler;
use tiebeam_onnx::proto::{Axis, NodeProto};
use tiebeam_testing::{TestPipeline, assert_that};

use crate::support::*;

/// y = x + x: rows of three numbers.
fn twice() -> Vec<u8> {
    let axes = [N, Axis::Fixed(3)];
    let (x, y) = (value("x", F32, &axes), value("y", F32, &axes));
    model(graph(vec![NodeProto::of("Add", &["x", "x"], &["y"])], vec![x], vec![y], vec![]))
}

/// Row `i` of ten thousand: every hundredth has a wrong shape, a dtype that is never converted, or a number that does not
/// fit.
fn row(i: i64) -> Tensor {
    let x = i as f32;
    match (i % 100, i / 100 % 4) {
        (7, 0) => Tensor::vector(vec![x; 2]),
        (7, 1) => Tensor::new(&[3, 1], vec![x; 3]).unwrap(),
        (7, 2) => Tensor::vector(vec![true; 3]),
        (7, _) => Tensor::vector(vec![1e39f64; 3]),
        _ => Tensor::vector(vec![x; 3]),
    }
}

#[test]
fn a_hundred_wrong_rows_among_ten_thousand_are_exactly_the_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("twice.onnx");
    std::fs::write(&path, twice()).unwrap();
    for options in engines() {
        let reports = TestPipeline::run_all_modes(|p| {
            let mut handler = OnnxModelHandler::new(&path).with_engine(options.engine.engine);
            if let Some(library) = &options.engine.ort_dylib {
                handler = handler.with_ort_dylib(library);
            }
            let run = RunInference::new(handler.with_batching(Batching::fixed(64)));
            let inferred = p.apply(Create::of(0..10_000i64)).map(row).apply(run.with_exception_handling());
            let first = |row: &Tensor| row.as_slice::<f32>().map_or(-1, |numbers| numbers[0] as i64);
            let pairs =
                inferred.results.map(move |result| (first(&result.example), first(&result.inference)));
            assert_that(&pairs)
                .contains_in_any_order((0..10_000i64).filter(|i| i % 100 != 7).map(|i| (i, i * 2)));
            let told = inferred.failed.map(|failed| failed.letter.failure.message);
            let wanted = (0..100).map(|i| {
                let wanted = match i % 4 {
                    0 => "input x wants the shape [n, 3] (a row: [3]), got [2]",
                    1 => "input x wants the shape [n, 3] (a row: [3]), got [3, 1]",
                    2 => "input x wants float32, got bool",
                    _ => "input x wants float32, and 1000000000000000000000000000000000000000 (float64) does not fit",
                };
                wanted.to_owned()
            });
            assert_that(&told).contains_in_any_order(wanted);
        });
        for report in reports {
            let name = "BeamML_Onnx";
            assert_eq!((report.counter(name, "num_inferences"), report.dead_letters()), (9900, 100));
            assert_eq!(report.counter(name, "failed_batches_counter"), 0);
            match report.metric(name, "inference_request_batch_size") {
                Some(MetricValue::Distribution(sizes)) => assert!(sizes.max <= 64, "{sizes:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Beam's ONNX handler takes no notice of a newer version.
#[test]
fn fault_02_a_newer_model_takes_over_and_one_of_other_inputs_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let times = |n: usize, axis: usize| {
        let axes = [N, Axis::Fixed(axis)];
        let (x, y) = (value("x", F32, &axes), value("y", F32, &axes));
        let nodes = match n {
            2 => vec![NodeProto::of("Add", &["x", "x"], &["y"])],
            _ => vec![NodeProto::of("Sum", &["x", "x", "x"], &["y"])],
        };
        let path = folder.path().join(format!("times_{n}_of_{axis}.onnx"));
        std::fs::write(&path, model(graph(nodes, vec![x], vec![y], vec![]))).unwrap();
        path
    };
    let (old, new, other) = (times(2, 3), times(3, 3), times(3, 4));
    for options in engines() {
        for (version, factor, by, failed) in [(&new, 3.0f32, &new, 0), (&other, 2.0, &old, 1)] {
            let reports = TestPipeline::run_all_modes(|p| {
                let mut handler = OnnxModelHandler::new(&old).with_engine(options.engine.engine);
                if let Some(library) = &options.engine.ort_dylib {
                    handler = handler.with_ort_dylib(library);
                }
                let version = ModelMetadata::of(version.display().to_string());
                let metadata = p.step("Versions").apply(Create::of([version]));
                let rows = p.apply(Create::of([1.0f32, 5.0])).map(|x| Tensor::vector(vec![x; 3]));
                let found = rows.apply(RunInference::new(handler).with_model_metadata(&metadata));
                let found = found.map(|result| (result.inference.to_string(), result.model_id.to_string()));
                let wanted = [1.0, 5.0].map(|x| Tensor::vector(vec![x * factor; 3]).to_string());
                assert_that(&found).contains_in_any_order(wanted.map(|y| (y, by.display().to_string())));
            });
            assert_eq!(reports[0].counter("BeamML_Onnx", "failed_model_swaps"), failed);
            assert_eq!(reports[0].counter("BeamML_Onnx", "model_swaps"), 1 - failed);
        }
    }
    let line = tiebeam_inference::report::models().into_iter().find(|line| line.last_failed_swap.is_some());
    let why = line.and_then(|line| line.last_failed_swap).unwrap();
    let wanted = "it takes x float32[n, 4], the one in use x float32[n, 3]";
    assert!(why.contains(wanted), "{why}");
}
