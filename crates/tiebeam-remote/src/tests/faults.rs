//! What goes wrong between here and a model.

use std::error::Error as _;

use tiebeam_core::ErrorKind;
use tiebeam_inference::Predictions;

use super::*;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn a_model_that_fails_once_is_asked_again() {
    let bench = Bench::new(plus_one().with_request_size(4), |n, request| match n {
        0 => reply(500, "once"),
        _ => plus_one_of(request),
    });
    assert_eq!(inferences(bench.ask(&[1, 5, 3, 10])), [2, 6, 4, 11]);
    assert_eq!(bench.requests(), 2);
    let stats = bench.handler.stats();
    assert_eq!((stats.requests, stats.retries, stats.answered), (2, 1, 1));
}

#[test]
fn each_loaded_model_counts_its_own_requests() {
    let bench = Bench::new(plus_one(), |n, request| match n {
        0 => reply(429, "slower"),
        1 => reply(500, "once"),
        2 => Err(Fault::BrokenOff),
        _ => plus_one_of(request),
    });
    let (first, other) = (bench.load().unwrap(), bench.load().unwrap());
    let answers = bench.handler.ask(&[1, 5], &first, &InferenceArgs::none());
    assert_eq!(inferences(answers), [2, 6]);
    let counts = bench.handler.counts(&first);
    let count = |name: &str| counts.iter().find(|(own, _)| *own == name).unwrap().1;
    let seen = ["requests", "retries", "answered", "refused", "too_many_requests", "failed"]
        .map(|name| count(&format!("remote_{name}")));
    assert_eq!(seen, [5, 3, 2, 0, 1, 2]);
    assert!(bench.handler.counts(&other).iter().all(|(_, n)| *n == 0), "the other one asked nothing");
    assert_eq!(bench.handler.stats().requests, 5, "the endpoint's are those of all");
}

#[test]
fn a_model_that_answers_under_another_name_is_told_by_its_answers() {
    let model = crate::OpenAiModelHandler::chat("m").with_base_url("http://127.0.0.1:9/named");
    let bench = Bench::new(model, |n, _| {
        let name = if n == 0 { "m" } else { "m-2026-08-06" };
        let choice = r#"[{"index":0,"message":{"content":"yes"}}]"#;
        reply(200, format!(r#"{{"model":"{name}","choices":{choice}}}"#))
    });
    let client = bench.load().unwrap();
    let predict = || bench.handler.predict(&["?".to_owned()], &client, &InferenceArgs::none()).unwrap();
    assert!(matches!(predict(), Predictions::All(all) if all == ["yes"]), "nothing new");
    let Predictions::Told(told) = predict() else { panic!("the answer tells another model") };
    assert_eq!(told[0].as_ref().unwrap().model_id.as_deref(), Some("m-2026-08-06"));
}

#[test]
fn only_what_passes_is_tried_again() {
    for status in [408, 429, 500, 501, 502, 503, 504, 529, 599] {
        let bench = Bench::new(plus_one().with_max_attempts(3), move |_, _| reply(status, "later"));
        let error = bench.error(&[1]);
        assert_eq!((error.code(), bench.requests()), ("TB0603", 3), "{status}");
        assert!(error.is_retryable());
        let name = bench.handler.model.0.clone();
        assert_eq!(error.message(), format!("{name} answered with HTTP {status}: later after 3 attempts"));
    }
    for status in [301, 307, 400, 401, 402, 403, 404, 405, 409, 410, 413, 415, 422, 451, 600] {
        let bench = Bench::new(plus_one().with_max_attempts(3), move |_, _| reply(status, "never"));
        let error = bench.error(&[1]);
        assert_eq!((error.code(), bench.requests()), ("TB0602", 1), "{status}");
        assert!(!error.is_retryable());
        assert!(error.message().ends_with(&format!("answered with HTTP {status}: never")), "{error}");
    }
    for (fault, code, requests) in [
        (Fault::Unreachable, "TB0604", 3),
        (Fault::BrokenOff, "TB0604", 3),
        (Fault::TimedOut, "TB0604", 3),
        (Fault::Lasting, "TB0604", 1),
        (Fault::TooLong, "TB0607", 1),
    ] {
        let bench = Bench::new(plus_one().with_max_attempts(3), move |_, _| Err(fault));
        let error = bench.error(&[1]);
        assert_eq!((error.code(), bench.requests()), (code, requests), "{fault:?}");
        assert_eq!(error.is_retryable(), requests == 3);
        assert!(error.message().contains(&bench.handler.model.0), "{error}");
    }
}

#[test]
fn a_wrong_number_of_inferences_is_asked_for_again() {
    for wrong in ["[]", "[2]", "[2, 6, 4]"] {
        let bench = Bench::new(plus_one().with_request_size(2), move |n, request| match n {
            0 | 1 => reply(200, wrong),
            _ => plus_one_of(request),
        });
        assert_eq!(inferences(bench.ask(&[1, 5])), [2, 6]);
        let bench = Bench::new(plus_one().with_request_size(2), move |_, _| reply(200, wrong));
        let error = bench.error(&[1, 5]);
        assert_eq!((error.code(), bench.requests()), ("TB0606", 6));
        assert!(error.message().contains("inferences for 2 examples"), "{error}");
    }
    // JSON that ends too early is whole the next time; JSON that is something else stays it.
    let bench =
        Bench::new(plus_one(), |n, request| if n == 0 { reply(200, "[2") } else { plus_one_of(request) });
    assert_eq!(inferences(bench.ask(&[1])), [2]);
    let bench = Bench::new(plus_one(), |_, _| reply(200, "<html>busy</html>"));
    let error = bench.error(&[1]);
    assert_eq!((error.code(), bench.requests()), ("TB0607", 1));
    assert!(error.message().contains("it said: <html>busy</html>"), "{error}");
}

#[test]
fn no_request_goes_out_before_its_retry_after() {
    let day = "Fri, 18 Dec 2026 00:00:00 GMT";
    for (header, date, wait) in [
        ("30", None, secs(30)),
        ("0.5", None, Duration::from_millis(500)),
        ("Fri, 18 Dec 2026 00:00:45 GMT", Some(day), secs(45)),
    ] {
        let bench = Bench::new(plus_one(), move |n, request| match n {
            0 => {
                let told = with_header(reply(429, "slow down"), "retry-after", header);
                date.map_or(told.clone(), |date| with_header(told, "date", date))
            }
            _ => plus_one_of(request),
        });
        assert_eq!(inferences(bench.ask(&[1])), [2]);
        let times = bench.times();
        assert_eq!(times[0], Duration::ZERO);
        assert!(times[1] >= wait, "{times:?}");
    }
}

#[test]
fn retry_after_holds_for_every_handler_of_the_endpoint() {
    let time = Arc::new(FakeTime::default());
    let first = plus_one().with_max_attempts(1);
    let second = RemoteModelHandler::of(first.model.as_ref().clone());
    let told = |_: usize, _: &RemoteRequest| with_header(reply(429, ""), "retry-after", "90");
    let first = Bench::at(time.clone(), first, told);
    let second = Bench::at(time.clone(), second, |_, request| plus_one_of(request));
    assert_eq!(first.error(&[1]).code(), "TB0603");
    assert_eq!(time.now(), Duration::ZERO);
    assert_eq!(inferences(second.ask(&[1, 2, 3])), [2, 3, 4]);
    assert!(second.times().iter().all(|time| *time >= secs(90)), "{:?}", second.times());
    assert!(second.handler.stats().asked_to_wait_ms >= 90_000);
}

#[test]
fn nothing_waits_longer_than_the_deadline() {
    // An endpoint that hangs, or fails, for ever.
    for fault in [Fault::TimedOut, Fault::Unreachable] {
        let handler = plus_one()
            .with_deadline(secs(100))
            .with_request_timeout(secs(30))
            .with_max_attempts(1_000_000)
            .with_max_concurrency(1)
            .with_request_size(4);
        let bench = Bench::new(handler, move |_, _| Err(fault));
        let error = bench.error(&[1, 2, 3]);
        assert_eq!((error.code(), error.kind()), ("TB0605", ErrorKind::Timeout));
        assert!(error.message().contains("within the deadline of 100s"), "{error}");
        assert!(error.source().is_some());
        assert!(bench.time.now() <= secs(100), "{:?}", bench.time.now());
    }
    // One that wants more time than there is: nobody waits in vain.
    let bench = Bench::new(plus_one().with_deadline(secs(100)), |_, _| {
        with_header(reply(503, "maintenance"), "retry-after", "3600")
    });
    let error = bench.error(&[1]);
    assert_eq!((error.code(), bench.requests()), ("TB0605", 1));
    assert!(error.causes()[0].contains("maintenance"), "{error:?}");
    assert!(bench.time.now() < secs(100));
}

#[test]
fn one_refused_example_of_many_fails_alone() {
    for status in [400, 413, 422] {
        let bench = Bench::new(plus_one().with_request_size(64), move |_, request| {
            let numbers: Vec<i64> = serde_json::from_slice(request.body()).unwrap();
            if numbers.contains(&41) { reply(status, "41 is not allowed") } else { plus_one_of(request) }
        });
        let batch = (0..64).collect::<Vec<i64>>();
        let answers = bench.ask(&batch);
        for (example, answer) in batch.iter().zip(&answers) {
            match answer {
                Ok(answer) => assert_eq!(answer.inference, example + 1),
                Err(error) => {
                    assert_eq!((*example, error.code()), (41, "TB0602"));
                    assert!(error.message().contains("41 is not allowed"));
                }
            }
        }
        assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1);
        assert!(bench.requests() <= 13, "{}", bench.requests());
        let client = bench.load().unwrap();
        let predictions = bench.handler.predict(&batch, &client, &InferenceArgs::none()).unwrap();
        assert!(matches!(&predictions, Predictions::Told(each) if each.len() == 64 && each[41].is_err()));
    }
    // What is not about the examples fails all of them at once.
    let bench = Bench::new(plus_one().with_request_size(64), |_, _| reply(401, "who are you"));
    let error = bench.error(&(0..64).collect::<Vec<i64>>());
    assert_eq!((error.code(), bench.requests()), ("TB0602", 1));
}

#[test]
fn a_batch_is_cut_into_requests_and_put_together_in_order() {
    let bench = Bench::new(plus_one().with_request_size(7).with_max_concurrency(5), |_, request| {
        // The answers come back in any order.
        for _ in 0..request.body()[1] % 5 {
            std::thread::yield_now();
        }
        plus_one_of(request)
    });
    let batch = (0..100).collect::<Vec<i64>>();
    assert_eq!(inferences(bench.ask(&batch)), (1..101).collect::<Vec<i64>>());
    assert_eq!(bench.requests(), 15);
    let client = bench.load().unwrap();
    let predictions = bench.handler.predict(&batch, &client, &InferenceArgs::none()).unwrap();
    assert!(matches!(predictions, Predictions::All(all) if all == (1..101).collect::<Vec<i64>>()));
    assert_eq!(bench.handler.batching().max_batch_size, 140);
}

#[test]
fn the_rate_limit_holds_between_batches() {
    // One at a time: where several are sent at once, which of them the clock is read for first is chance.
    let handler = plus_one().with_rate_limit(4.0).with_max_concurrency(1);
    let bench = Bench::new(handler, |_, request| plus_one_of(request));
    let batch = (0..10).collect::<Vec<i64>>();
    assert_eq!(bench.ask(&batch).len(), 10);
    assert_eq!(bench.ask(&batch[..3]).len(), 3);
    let mut times = bench.times();
    times.sort_unstable();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(250)), "{times:?}");
}

#[test]
fn an_endpoint_that_fails_is_spared_and_nothing_is_lost() {
    // For ten minutes of its time it answers nothing.
    let bench = Bench::at(
        Arc::default(),
        plus_one().with_deadline(secs(10_000)).with_max_attempts(1000).with_max_concurrency(2),
        |n, request| if n < 60 { reply(503, "overloaded") } else { plus_one_of(request) },
    );
    let batch = (0..20).collect::<Vec<i64>>();
    assert_eq!(inferences(bench.ask(&batch)), (1..21).collect::<Vec<i64>>());
    let stats = bench.handler.stats();
    assert!(stats.throttled > 0 && stats.throttled_ms >= stats.throttled * 1000, "{stats:?}");
    assert_eq!(stats.requests, 80);
}

#[test]
fn a_panic_in_the_models_code_is_its_examples_error() {
    let bench = Bench::new(plus_one(), |_, request| plus_one_of(request));
    let answers = bench.ask(&[1, -13, 3]);
    assert_eq!(answers[0].as_ref().unwrap().inference, 2);
    assert_eq!(answers[2].as_ref().unwrap().inference, 4);
    let error = answers[1].as_ref().unwrap_err();
    assert_eq!((error.code(), error.kind()), ("TB0611", ErrorKind::Panic));
    assert!(error.message().contains("thirteen"));
}

#[test]
fn the_key_is_in_no_error() {
    let echo = "you sent authorization: Bearer sk-very-secret and x-gateway: gate-key";
    for status in [200, 400, 401, 429, 500] {
        let handler = plus_one().with_header("x-gateway", "gate-key").with_max_attempts(2);
        let bench = Bench::new(handler, move |_, _| reply(status, echo));
        let error = bench.error(&[1]);
        let told = format!("{error} {error:?} {:?}", error.causes());
        assert!(!told.contains("sk-very-secret") && !told.contains("gate-key"), "{told}");
        assert!(told.contains("[secret]"), "{told}");
    }
}

#[test]
fn settings_that_cannot_work_are_refused_when_the_pipeline_is_built() {
    let none = InferenceArgs::none();
    for handler in [
        plus_one().with_request_size(0),
        plus_one().with_max_concurrency(0),
        plus_one().with_max_attempts(0),
        plus_one().with_deadline(Duration::ZERO),
        plus_one().with_request_timeout(Duration::ZERO),
        plus_one().with_max_response_bytes(0),
        plus_one().with_rate_limit(0.0),
        plus_one().with_rate_limit(f64::NAN),
        plus_one().with_throttle(secs(1), Duration::ZERO),
    ] {
        assert_eq!(handler.validate_inference_args(&none).unwrap_err().code(), "TB0600");
        assert_eq!(handler.load_model().err().unwrap().code(), "TB0600");
    }
    let some = InferenceArgs::from_iter([("x", tiebeam_core::row::Value::Int64(1))]);
    assert_eq!(plus_one().validate_inference_args(&some).unwrap_err().code(), "TB0601");
    plus_one().validate_inference_args(&none).unwrap();
}
