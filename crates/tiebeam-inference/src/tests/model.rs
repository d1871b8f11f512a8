//! The shared model: one load, many users, errors for all who waited, release.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use tiebeam_core::ErrorKind;
use tiebeam_core::error::{Error, Result};

use super::{Bench, Counting, Fake, FakeClock, global, plus_one};
use crate::handler::{ModelHandler, ModelInfo};
use crate::model::{Loader, ModelCell, unique_identity};
use crate::{RunInference, report};

fn shared_model<H: ModelHandler>(handler: &Arc<H>, identity: &Arc<str>) -> Result<Arc<ModelCell<H::Model>>> {
    let clock = Arc::new(FakeClock::default());
    Loader { handler: handler.clone(), clock, timeout: None }.cell(identity, 0, None)
}

#[test]
fn many_threads_share_one_load() {
    let (handler, identity, gate) = (Arc::new(plus_one()), unique_identity(), Barrier::new(8));
    let models: Vec<_> = std::thread::scope(|scope| {
        let load = || {
            gate.wait();
            shared_model(&handler, &identity).unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(handler.loads.load(Ordering::SeqCst), 1);
    assert!(models.iter().all(|model| Arc::ptr_eq(model, &models[0])));
}

#[test]
fn a_model_is_released_with_its_last_user_and_loaded_anew() {
    let (handler, identity) = (Arc::new(plus_one()), unique_identity());
    let load = || shared_model(&handler, &identity).unwrap();
    let (first, second) = (load(), load());
    let gone = Arc::downgrade(&first);
    drop(first);
    assert!(gone.upgrade().is_some());
    drop(second);
    assert!(gone.upgrade().is_none());
    let _third = load();
    assert_eq!(handler.loads.load(Ordering::SeqCst), 2);
}

#[test]
fn an_error_reaches_every_waiter_and_is_not_kept() {
    let broken = Arc::new(AtomicUsize::new(1));
    let (asks, gate) = (broken.clone(), Barrier::new(4));
    let handler = Arc::new(plus_one().with_load(move || match asks.load(Ordering::SeqCst) {
        0 => Ok(()),
        _ => Err(Error::new(ErrorKind::Model, "TB0323", "no such file: m.pth")),
    }));
    let identity = unique_identity();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                gate.wait();
                let error = shared_model(&handler, &identity).err().unwrap();
                assert_eq!((error.kind(), error.message()), (ErrorKind::Model, "no such file: m.pth"));
            });
        }
    });
    broken.store(0, Ordering::SeqCst);
    assert!(shared_model(&handler, &identity).is_ok());
}

#[test]
fn a_load_that_panics_is_an_error_of_the_model() {
    let handler = Arc::new(plus_one().with_load(|| panic!("bad magic")));
    let identity = unique_identity();
    for _ in 0..2 {
        let error = shared_model(&handler, &identity).err().unwrap();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Model, "TB0323"));
        assert_eq!(error.message(), "Fake panicked while it loaded its model: bad magic");
    }
}

#[test]
fn copies_are_loaded_each_and_taken_in_turn() {
    let (handler, identity) = (Arc::new(plus_one().model_copies(3)), unique_identity());
    let model = shared_model(&handler, &identity).unwrap().current();
    for _ in 0..6 {
        model.next().fetch_add(1, Ordering::SeqCst);
    }
    let counts: Vec<_> = (0..3).map(|_| model.next().load(Ordering::SeqCst)).collect();
    assert_eq!(counts, [2, 2, 2]);
}

#[test]
fn models_of_two_types_do_not_meet_under_one_identity() {
    struct Other;
    impl ModelHandler for Other {
        type Example = i64;
        type Inference = i64;
        type Model = String;
        fn load_model(&self) -> tiebeam_core::Result<String> {
            Ok("other".to_owned())
        }
        fn run_inference(
            &self,
            batch: &[i64],
            _: &String,
            _: &crate::InferenceArgs,
        ) -> tiebeam_core::Result<Vec<i64>> {
            Ok(batch.to_vec())
        }
    }
    let identity = unique_identity();
    let one = shared_model(&Arc::new(Counting), &identity).unwrap().current();
    let other = shared_model(&Arc::new(Other), &identity).unwrap().current();
    assert_eq!((one.any().load(Ordering::SeqCst), other.any().as_str()), (0, "other"));
}

#[test]
fn the_size_is_the_models_own_or_measured_and_never_nothing() {
    let mut handler = plus_one();
    handler.info = ModelInfo { bytes: Some(1000), ..handler.info };
    let model = shared_model(&Arc::new(handler.model_copies(2)), &unique_identity()).unwrap().current();
    assert_eq!(model.untold_cost().unwrap().bytes, 2000);
    assert_eq!(model.untold_cost(), None);
    let model = shared_model(&Arc::new(plus_one()), &unique_identity()).unwrap().current();
    assert!(model.untold_cost().unwrap().bytes > 0);
}

#[test]
fn the_report_tells_one_runs_models() {
    let before = report::mark();
    let mut handler = plus_one();
    handler.info = ModelInfo {
        model_id: "report-test".into(),
        uri: Some("/m.pth".into()),
        sha256: Some("ab".into()),
        bytes: Some(7),
        ..ModelInfo::default()
    };
    let model = shared_model(&Arc::new(handler), &unique_identity()).unwrap();
    let mine = |reports: Vec<report::ModelReport>| {
        reports.into_iter().filter(|report| report.id == "report-test").collect::<Vec<_>>()
    };
    let expected = report::ModelReport {
        id: "report-test".into(),
        handler: "Fake".into(),
        uri: Some("/m.pth".into()),
        sha256: Some("ab".into()),
        bytes: 7,
        copies: 1,
        loads: 1,
        swaps: 0,
        failed_swaps: 0,
        last_failed_swap: None,
        batch_ceiling: None,
        batching: None,
        padding_permille: None,
        element_latency: None,
        counts: Vec::new(),
    };
    let expected = [expected];
    assert_eq!(mine(report::models_since(before)), expected);
    let after = report::mark();
    assert_eq!(mine(report::models_since(after)), []);
    report::used(&model.report);
    assert_eq!(mine(report::models_since(after)), expected);
    assert_eq!(mine(report::models()), expected);
}

#[test]
fn no_more_calls_are_made_at_once_than_the_model_is_good_for() {
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let mut handler = Fake::new(move |batch: &[i64]| {
        seen.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::yield_now();
        inside.fetch_sub(1, Ordering::SeqCst);
        Ok(batch.to_vec())
    });
    handler.info.max_concurrency = Some(1);
    // As many for each copy.
    let bench = Bench::new(RunInference::new(handler.model_copies(2).max_batch_size(1)));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let mut instance = bench.instance();
            scope.spawn(move || {
                instance.setup().unwrap();
                for bundle in 0..20 {
                    instance.bundle([global([thread, bundle, 7])]).unwrap();
                }
                let own: Vec<i64> = instance.results().iter().map(|result| result.inference).collect();
                let wanted: Vec<i64> = (0..20).flat_map(|bundle| [thread, bundle, 7]).collect();
                assert_eq!(own, wanted);
            });
        }
    });
    assert!((1..=2).contains(&most.load(Ordering::SeqCst)), "{most:?}");
}
