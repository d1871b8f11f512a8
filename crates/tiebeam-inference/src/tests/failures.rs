//! What happens to elements that fail: dead letters for the guilty alone, or a clear end of the bundle.

use proptest::prelude::*;
use tiebeam_core::{ErrorKind, Timestamp, Window, WindowInfo, Windows};

use super::{Bench, Fake, bad, global, plus_one, run};
use crate::batching::Batching;
use crate::dead_letter::Stage;
use crate::handler::ModelHandler;
use crate::{RunInference, from_fn};

/// Fails on any batch with a number below nothing, else `x + 1`.
fn picky() -> Fake<i64, i64> {
    Fake::new(|batch: &[i64]| match batch.iter().find(|x| **x < 0) {
        Some(x) => Err(bad(&format!("{x} is below nothing"))),
        None => Ok(batch.iter().map(|x| x + 1).collect()),
    })
}

#[test]
fn c11_a_preprocess_failure_is_a_dead_letter() {
    let chain = plus_one().preprocess(|x: i64| x * 2).try_preprocess(|text: String| match &*text {
        "5" => Err("no fives".to_owned()),
        text => text.parse::<i64>().map_err(|e| e.to_string()),
    });
    let bench = Bench::rescued(RunInference::new(chain));
    let mut instance = bench.instance();
    instance.setup().unwrap();
    instance.bundle([global(["1", "5", "3", "10"].map(String::from))]).unwrap();
    let results: Vec<_> = instance.results().iter().map(|result| result.inference).collect();
    assert_eq!(results, [3, 7, 21]);
    let letters = instance.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((&*letters[0].element, letters[0].letter.stage), ("5", Stage::Preprocess));
    assert_eq!(letters[0].letter.failure.stage, "BeamML_RunInference_Preprocess-0");
    assert_eq!(letters[0].letter.failure.message, "no fives");
    assert_eq!(letters[0].letter.failure.attempts, 1);
    assert_eq!(letters[0].letter.inference, None);
}

#[test]
fn c12_a_postprocess_failure_keeps_the_inference() {
    let chain = plus_one().postprocess(|result| result.inference).try_postprocess(|x: i64| match x {
        6 => Err("no sixes"),
        x => Ok((x * 2).to_string()),
    });
    let mut instance = Bench::rescued(RunInference::new(chain)).instance();
    instance.setup().unwrap();
    instance.bundle([global([1, 5, 3, 10])]).unwrap();
    assert_eq!(instance.results(), ["4", "8", "22"]);
    let letters = instance.letters();
    assert_eq!(letters.len(), 1);
    // Beam's dead letter is the 6 that the model said; ours is the element, with the 6 beside it.
    assert_eq!((letters[0].element, letters[0].letter.inference), (5, Some(6)));
    assert_eq!(letters[0].letter.stage, Stage::Postprocess);
    assert_eq!(letters[0].letter.failure.stage, "BeamML_RunInference_Postprocess-1");
    assert_eq!(&*letters[0].letter.model_id, "fake");
}

#[test]
fn c13_an_inference_failure_is_a_dead_letter() {
    let parse = Fake::new(|batch: &[String]| {
        batch.iter().map(|text| text.parse::<i64>().map(|x| x + 1).map_err(|e| bad(&e.to_string()))).collect()
    });
    let bench = Bench::rescued(RunInference::new(parse.max_batch_size(1)));
    let mut instance = bench.instance();
    instance.setup().unwrap();
    instance.bundle([global(["1", "TEST", "3", "10", "TEST2"].map(String::from))]).unwrap();
    let results: Vec<_> = instance.results().iter().map(|result| result.inference).collect();
    assert_eq!(results, [2, 4, 11]);
    let failed: Vec<_> = instance.letters().iter().map(|letter| letter.element.clone()).collect();
    assert_eq!(failed, ["TEST", "TEST2"]);
    assert!(instance.letters().iter().all(|failed| failed.letter.stage == Stage::Inference));
    let cells = bench.cells.drain();
    let count = |name: &str| {
        let found = cells.iter().find(|(key, _)| &*key.name == name);
        found.map(|(_, value)| format!("{value:?}")).unwrap_or_default()
    };
    assert_eq!((&*count("num_inferences"), &*count("failed_batches_counter")), ("Counter(3)", "Counter(2)"));
}

#[test]
fn a_dead_letter_tells_when_and_where_its_element_was() {
    let mut instance = Bench::rescued(RunInference::new(picky())).instance();
    instance.setup().unwrap();
    let timestamp = Timestamp::from_secs(12);
    let info = WindowInfo { timestamp, windows: Windows::One(Window::Global), ..WindowInfo::GLOBAL };
    instance.bundle([tiebeam_core::Batch::uniform(vec![1, -2, 3], info.clone())]).unwrap();
    let failed = instance.failed.lock().unwrap();
    let (letter, carried) = &failed[0];
    assert_eq!(*carried, info);
    assert_eq!((letter.letter.event_time, &*letter.letter.window), (timestamp, "Global"));
    assert_eq!((&*letter.letter.failure.code, &*letter.letter.failure.kind), ("TB0324", "Inference"));
    assert_eq!(instance.results.lock().unwrap().iter().filter(|(_, carried)| *carried == info).count(), 2);
}

#[test]
fn fewer_or_more_predictions_than_examples_are_an_error_that_names_both() {
    for (give, code) in [(2usize, "TB0324"), (4, "TB0324")] {
        let handler = Fake::new(move |_: &[i64]| Ok(vec![0i64; give]));
        let error = run(RunInference::new(handler.with_batching(Batching::fixed(3))), [1, 2, 3]).unwrap_err();
        assert_eq!((error.code(), error.kind()), (code, ErrorKind::Inference));
        assert_eq!(error.message(), format!("Fake gave {give} predictions for a batch of 3 examples"));
        assert_eq!(error.step(), Some("Outer/RunInference/BeamML_RunInference"));
        assert!(!error.is_retryable());
    }
}

#[test]
fn fault_05_a_model_that_drops_elements_loses_none_of_them() {
    let handler =
        Fake::new(|batch: &[i64]| Ok(batch.iter().filter(|x| **x != 3).map(|x| x + 1).collect::<Vec<_>>()));
    let mut instance =
        Bench::rescued(RunInference::new(handler.with_batching(Batching::fixed(5)))).instance();
    instance.setup().unwrap();
    instance.bundle([global([1, 2, 3, 4, 5])]).unwrap();
    let results: Vec<_> = instance.results().iter().map(|r| (r.example, r.inference)).collect();
    assert_eq!(results, [(1, 2), (2, 3), (4, 5), (5, 6)]);
    let letters = instance.letters();
    assert_eq!((letters.len(), letters[0].element), (1, 3));
    assert_eq!(letters[0].letter.failure.message, "Fake gave 0 predictions for a batch of 1 examples");
}

#[test]
fn a_panic_of_the_model_is_an_error_of_its_batch() {
    let handler = Fake::new(|batch: &[i64]| match batch.contains(&3) {
        true => panic!("shape mismatch"),
        false => Ok(batch.to_vec()),
    });
    let error = run(RunInference::new(handler.with_batching(Batching::fixed(4))), [1, 2, 3, 4]).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Panic, "TB0325"));
    assert_eq!(error.message(), "Fake panicked on a batch of 4: shape mismatch");
}

#[test]
fn a_panic_of_one_element_fails_it_alone() {
    let handler = Fake::new(|batch: &[i64]| match batch.contains(&3) {
        true => panic!("shape mismatch"),
        false => Ok(batch.to_vec()),
    });
    let mut instance =
        Bench::rescued(RunInference::new(handler.with_batching(Batching::fixed(4)))).instance();
    instance.setup().unwrap();
    instance.bundle([global([1, 2, 3, 4])]).unwrap();
    assert_eq!(instance.results().len(), 3);
    assert_eq!(instance.letters()[0].letter.failure.kind, "Panic");
}

#[test]
fn a_panic_of_a_step_fails_its_element_alone() {
    let chain = plus_one()
        .preprocess(|x: i64| if x == 2 { panic!("before {x}") } else { x })
        .postprocess(|result| if result.inference == 5 { panic!("after") } else { result.inference });
    let mut instance = Bench::rescued(RunInference::new(chain)).instance();
    instance.setup().unwrap();
    instance.bundle([global([1, 2, 3, 4])]).unwrap();
    assert_eq!(instance.results(), [2, 4]);
    let told: Vec<_> = instance
        .letters()
        .into_iter()
        .map(|failed| (failed.element, failed.letter.stage.name(), failed.letter.failure.message))
        .collect();
    let expected = [
        (2, "preprocess", "panicked: before 2".to_owned()),
        (4, "postprocess", "panicked: after".to_owned()),
    ];
    assert_eq!(told, expected);
}

#[test]
fn the_check_keeps_wrong_examples_out_of_batches() {
    let handler = plus_one().with_check(|x| match x {
        x if *x > 100 => Err(tiebeam_core::Error::new(
            ErrorKind::InvalidData,
            "TB0341",
            format!("an example of shape [{x}] where the model wants [1]"),
        )),
        _ => Ok(()),
    });
    let calls = handler.calls.clone();
    let chain = handler.with_batching(Batching::fixed(10)).try_preprocess(|text: String| text.parse::<i64>());
    let mut instance = Bench::rescued(RunInference::new(chain)).instance();
    instance.setup().unwrap();
    instance.bundle([global(["101", "1", "x", "2", "300", "y", "3"].map(String::from))]).unwrap();
    let results: Vec<_> = instance.results().iter().map(|result| result.inference).collect();
    assert_eq!(results, [2, 3, 4]);
    assert_eq!(*calls.lock().unwrap(), [3], "the model was asked once, about the good ones");
    let mut failed: Vec<_> = instance
        .letters()
        .into_iter()
        .map(|failed| (failed.element, failed.letter.stage.name(), failed.letter.failure.attempts))
        .collect();
    failed.sort();
    let expected =
        [("101", "inference", 0), ("300", "inference", 0), ("x", "preprocess", 1), ("y", "preprocess", 1)];
    assert_eq!(failed, expected.map(|(element, stage, attempts)| (element.to_owned(), stage, attempts)));
}

#[test]
fn without_dead_letters_a_wrong_example_ends_the_bundle_and_says_why() {
    let handler = plus_one().with_check(|x| match x {
        2 => Err(bad("2 is not an example")),
        _ => Ok(()),
    });
    let error = run(RunInference::new(handler), [1, 2, 3]).unwrap_err();
    assert_eq!(error.to_string(), "Outer/RunInference/BeamML_RunInference: 2 is not an example");
}

#[test]
fn without_dead_letters_a_steps_failure_names_the_step() {
    let chain = plus_one().try_preprocess(|text: String| text.parse::<i64>());
    let error = run(RunInference::new(chain), ["1", "x"].map(String::from)).unwrap_err();
    let expected = "Outer/RunInference/BeamML_RunInference_Preprocess-0: invalid digit found in string";
    assert_eq!(error.to_string(), expected);
    let chain = plus_one().try_postprocess(|result| Err::<i64, _>(format!("no {}", result.inference)));
    let error = run(RunInference::new(chain), [1]).unwrap_err();
    assert_eq!(error.to_string(), "Outer/RunInference/BeamML_RunInference_Postprocess-0: no 2");
}

#[test]
fn an_instance_that_failed_leaves_nothing_behind() {
    let batching = Batching { min_batch_size: 5, ..Batching::at_most(100) };
    let handler = picky().with_check(|x| if *x == 9 { Err(bad("nine")) } else { Ok(()) });
    let calls = handler.calls.clone();
    let bench = Bench::new(RunInference::new(handler.with_batching(batching)));
    let mut failing = bench.instance();
    failing.setup().unwrap();
    assert!(failing.bundle([global([1, 2]), global([9])]).is_err());
    tiebeam_core::DoFn::teardown(&mut failing.dofn);
    let mut next = bench.instance();
    next.setup().unwrap();
    next.bundle([global([3, 4])]).unwrap();
    let results: Vec<_> = next.results().iter().map(|result| result.inference).collect();
    assert_eq!(results, [4, 5]);
    assert_eq!(*calls.lock().unwrap(), [2]);
}

#[test]
fn a_closures_error_is_told_with_its_cause() {
    let handler = from_fn("rule", |_: &[i64]| Err::<Vec<i64>, _>("the rule says no"));
    let error = run(RunInference::new(handler), [1]).unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::UserCode, "the rule says no"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whoever is guilty, however many: only they fail, their batch-mates are predicted in order, and the search costs
    /// at most 2·log2(n) + 1 calls for each of them.
    #[test]
    fn only_the_guilty_fail(values in proptest::collection::vec(-3i64..40, 1..120)) {
        let handler = picky();
        let calls = handler.calls.clone();
        let n = values.len();
        let batching = Batching::fixed(n);
        let mut instance = Bench::rescued(RunInference::new(handler.with_batching(batching))).instance();
        instance.setup().unwrap();
        instance.bundle([global(values.clone())]).unwrap();
        let results: Vec<_> = instance.results().iter().map(|r| (r.example, r.inference)).collect();
        let expected: Vec<_> = values.iter().filter(|x| **x >= 0).map(|x| (*x, x + 1)).collect();
        prop_assert_eq!(results, expected);
        let letters = instance.letters();
        let failed: Vec<_> = letters.iter().map(|letter| letter.element).collect();
        let guilty: Vec<_> = values.iter().copied().filter(|x| *x < 0).collect();
        for failed in &letters {
            let message = format!("{} is below nothing", failed.element);
            prop_assert_eq!(&failed.letter.failure.message, &message);
        }
        prop_assert_eq!(&failed, &guilty);
        let extra = calls.lock().unwrap().len() - 1;
        let bound = (2.0 * (n as f64).log2() + 1.0) * guilty.len() as f64;
        prop_assert!(extra as f64 <= bound, "{} extra calls for {} guilty of {}", extra, guilty.len(), n);
    }
}

#[test]
fn fault_10_one_guilty_at_any_place_costs_few_calls() {
    for n in 1..=130usize {
        for place in 0..n {
            let handler = picky();
            let calls = handler.calls.clone();
            let bench = Bench::rescued(RunInference::new(handler.with_batching(Batching::fixed(n))));
            let mut instance = bench.instance();
            instance.setup().unwrap();
            let values = (0..n).map(|i| if i == place { -1 } else { i as i64 });
            instance.bundle([global(values)]).unwrap();
            assert_eq!((instance.results().len(), instance.letters().len()), (n - 1, 1));
            let extra = (calls.lock().unwrap().len() - 1) as f64;
            assert!(extra <= 2.0 * (n as f64).log2() + 1.0, "{extra} calls, {place} of {n}");
        }
    }
}

#[test]
fn many_threads_share_batches_and_none_gets_anothers_failure() {
    let bench = Bench::rescued(RunInference::new(picky().max_batch_size(16)));
    std::thread::scope(|scope| {
        for thread in 0..8i64 {
            let mut instance = bench.instance();
            scope.spawn(move || {
                instance.setup().unwrap();
                for _ in 0..30 {
                    let values =
                        (0..25).map(|i| if (i + thread) % 7 == 0 { -(thread * 100 + i) - 1 } else { i });
                    instance.bundle([global(values.collect::<Vec<_>>())]).unwrap();
                }
                let letters = instance.letters();
                assert_eq!(letters.len() + instance.results().len(), 30 * 25);
                assert!(letters.iter().all(|letter| (-letter.element - 1) / 100 == thread));
                assert!(instance.results().iter().all(|result| result.inference == result.example + 1));
            });
        }
    });
}
