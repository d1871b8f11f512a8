//! RunInference against a server that does everything wrong, over real connections.

#![allow(clippy::unwrap_used)] // a test fails by panicking, in the functions that tests share too

mod support;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{Reply, Seen, Server};
use tiebeam_core::{ErrorKind, Result};
use tiebeam_graph::{Create, Pipeline};
use tiebeam_inference::{Batching, InferenceArgs, ModelHandler, PredictionResult, RunInference};
use tiebeam_remote::{
    Answers, OpenAiModelHandler, Remote, RemoteModel, RemoteModelHandler, RemoteRequest, RemoteResponse,
};
use tiebeam_runner::{EmbeddedRunner, JobReport, RunnerOptions};
use tiebeam_testing::assert_that;

/// A service that says 3·x + 7 of each number.
#[derive(Clone)]
struct Affine(String);

fn affine(url: String) -> RemoteModelHandler<Affine> {
    RemoteModelHandler::of(Affine(url))
        .with_backoff(Duration::from_millis(4), Duration::from_millis(50))
        .with_seed(7)
}

impl RemoteModel for Affine {
    type Example = i64;
    type Inference = i64;
    type State = ();

    fn endpoint(&self) -> String {
        self.0.clone()
    }

    fn load(&self, _: &Remote) -> Result<()> {
        Ok(())
    }

    fn request(&self, examples: &[i64], _: &(), _: &InferenceArgs) -> Result<RemoteRequest> {
        Ok(RemoteRequest::post_json(&self.0, format!("{examples:?}").into_bytes())
            .bearer(Some("sk-secret".to_owned())))
    }

    fn response(&self, _: &[i64], response: &RemoteResponse, _: &()) -> Result<Answers<i64>> {
        Ok(response.json::<Vec<i64>>()?.into())
    }
}

fn value_of(x: i64) -> i64 {
    3 * x + 7
}

fn numbers(seen: &Seen) -> Vec<i64> {
    let text = std::str::from_utf8(&seen.body).unwrap();
    let inner = text.trim_start_matches('[').trim_end_matches(']');
    inner.split(", ").map(|n| n.parse().unwrap()).collect()
}

fn well(numbers: &[i64]) -> Vec<u8> {
    format!("{:?}", numbers.iter().map(|x| value_of(*x)).collect::<Vec<_>>()).into_bytes()
}

/// The faults of the plan, in parts of a thousand.
const PLAN: [(&str, u64); 6] =
    [("429", 50), ("500", 50), ("reset", 20), ("cut", 20), ("hang", 10), ("count", 10)];
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// The fault of an attempt: the same in every run, whatever the order in which requests come.
fn fault_of(first: i64, attempt: u64) -> Option<&'static str> {
    let mut mixed =
        (first as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ attempt.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let mut drawn = (mixed ^ (mixed >> 29)) % 1000;
    for (fault, share) in PLAN {
        if drawn < share {
            return Some(fault);
        }
        drawn -= share;
    }
    None
}

/// What the server did wrong, and when it told to wait.
#[derive(Default)]
struct Done {
    faults: BTreeMap<&'static str, u64>,
    told_to_wait: Vec<Instant>,
}

/// A server that keeps to the plan.
fn faulty() -> (Server, Arc<Mutex<Done>>) {
    let done = Arc::new(Mutex::new(Done::default()));
    let attempts = Mutex::new(BTreeMap::<i64, u64>::new());
    let noted = done.clone();
    let server = Server::start(move |seen| {
        let numbers = numbers(seen);
        let attempt = {
            let mut attempts = attempts.lock().unwrap();
            let attempt = attempts.entry(numbers[0]).or_default();
            *attempt += 1;
            *attempt
        };
        let Some(fault) = fault_of(numbers[0], attempt) else { return Reply::json(well(&numbers)) };
        let mut done = noted.lock().unwrap();
        *done.faults.entry(fault).or_default() += 1;
        match fault {
            "429" => {
                done.told_to_wait.push(Instant::now());
                Reply::of(429, "slow down").with("retry-after", RETRY_AFTER.as_secs_f64().to_string())
            }
            "500" => Reply::of(500, "oh"),
            "reset" => Reply::Reset,
            // However few numbers there are, the answer is longer than what gets through of it.
            "cut" => Reply::Cut(150, [well(&numbers), vec![b' '; 300]].concat()),
            "hang" => Reply::Hang,
            _ => Reply::json(well(&numbers[1..])),
        }
    });
    (server, done)
}

/// Runs the numbers through the handler; every one of them must have its own value.
fn run(count: i64, threads: usize, handler: impl ModelHandler<Example = i64, Inference = i64>) -> JobReport {
    let p = Pipeline::new();
    let results = p
        .apply(Create::of(0..count / 100))
        .flat_map(|hundred| hundred * 100..(hundred + 1) * 100)
        .apply(RunInference::new(handler));
    assert_that(&results).satisfies(move |results| all_there(count, results));
    let options = RunnerOptions::default().with_threads(threads);
    EmbeddedRunner::new(options).run(&p.build().unwrap()).unwrap()
}

fn all_there(count: i64, results: &[PredictionResult<i64, i64>]) -> Result<(), String> {
    let mut seen = vec![false; count as usize];
    for result in results {
        if result.inference != value_of(result.example) {
            return Err(format!("{} got {}", result.example, result.inference));
        }
        if std::mem::replace(&mut seen[result.example as usize], true) {
            return Err(format!("{} came twice", result.example));
        }
    }
    match seen.iter().position(|seen| !seen) {
        Some(lost) => Err(format!("{lost} is lost")),
        None => Ok(()),
    }
}

/// Requests that came between a 429 and the end of its Retry-After.
fn early(server: &Server, done: &Done) -> usize {
    let seen = server.seen();
    let is_early =
        |seen: &&Seen| done.told_to_wait.iter().any(|told| seen.at > *told && seen.at < *told + RETRY_AFTER);
    seen.iter().filter(is_early).count()
}

#[test]
fn a_hundred_thousand_elements_survive_a_faulty_endpoint() {
    const COUNT: i64 = 100_000;
    const AT_ONCE: usize = 16;
    let handler = |url| {
        let handler = affine(url)
            .with_request_size(20)
            .with_max_concurrency(AT_ONCE)
            .with_max_attempts(12)
            .with_request_timeout(Duration::from_secs(1));
        handler.with_batching(Batching::fixed(20 * AT_ONCE * 4))
    };
    let faultless = Server::start(|seen| Reply::json(well(&numbers(seen))));
    run(COUNT, 2, handler(faultless.url("/")));
    let needed = faultless.seen().len();

    let (server, done) = faulty();
    let report = run(COUNT, 2, handler(server.url("/")));
    assert_eq!(report.counter("RunInference", "num_inferences"), COUNT);
    assert_eq!(report.counter("RunInference", "failed_batches_counter"), 0);
    let (seen, done) = (server.seen(), done.lock().unwrap());
    // Every kind of fault happened, about as often as planned.
    for (fault, share) in PLAN {
        let (wanted, got) = (share as f64 / 1000.0 * seen.len() as f64, done.faults[fault] as f64);
        assert!((wanted * 0.5..wanted * 1.6).contains(&got), "{fault}: {got} of {}", seen.len());
    }
    let most = needed as f64 * 1.3;
    assert!((seen.len() as f64) <= most, "{} requests, {needed} without faults", seen.len());
    // What was on its way when the first of them was told to wait can't be called back: at most one a thread.
    let early = early(&server, &done);
    println!("{} requests, {needed} without faults; {:?}; {early} on their way", seen.len(), done.faults);
    assert!(early <= done.told_to_wait.len() * (AT_ONCE - 1), "{early} of {}", done.told_to_wait.len());
    let stats = tiebeam_remote::stats().into_iter().find(|stats| stats.endpoint == server.url("/")).unwrap();
    assert_eq!(stats.requests, seen.len() as u64);
    assert_eq!(stats.retries, stats.requests - stats.answered);
    assert_eq!(stats.refused, 0);
    assert!(stats.asked_to_wait_ms > 0);
}

#[test]
fn no_request_comes_before_its_retry_after() {
    let (server, done) = faulty();
    // One request at a time for the two threads of the job: nothing is on its way when the answer comes.
    let handler = affine(server.url("/"))
        .with_request_size(20)
        .with_max_concurrency(1)
        .with_max_attempts(12)
        .with_request_timeout(Duration::from_secs(1));
    run(10_000, 2, handler);
    let done = done.lock().unwrap();
    assert!(done.told_to_wait.len() > 10);
    assert_eq!(early(&server, &done), 0);
}

#[test]
fn c38_a_remote_model_that_fails_once_is_asked_again() {
    let failed = Mutex::new(false);
    let server = Server::start(move |seen| match std::mem::replace(&mut *failed.lock().unwrap(), true) {
        false => Reply::of(500, "once"),
        true => {
            let plus_one = numbers(seen).iter().map(|x| x + 1).collect::<Vec<_>>();
            Reply::json(format!("{plus_one:?}"))
        }
    });
    let p = Pipeline::new();
    let results = p.apply(Create::of([1i64, 5, 3, 10])).apply(RunInference::new(affine(server.url("/"))));
    assert_that(&results.map(|result| result.inference)).contains_in_any_order([2, 6, 4, 11]);
    EmbeddedRunner::default().run(&p.build().unwrap()).unwrap();
    assert_eq!(server.seen().len(), 5);
}

#[test]
fn fault_12_remote_defaults_run() {
    let server = Server::start(|seen| Reply::json(well(&numbers(seen))));
    let handler = RemoteModelHandler::of(Affine(server.url("/")));
    let p = Pipeline::new();
    let results = p.apply(Create::of(0..50i64)).apply(RunInference::new(handler));
    assert_that(&results).satisfies(|results| all_there(50, results));
    let report = EmbeddedRunner::default().run(&p.build().unwrap()).unwrap();
    assert_eq!(report.counter("RunInference", "num_inferences"), 50);
    assert_eq!(server.seen().len(), 50);
    assert!(server.seen().iter().all(|seen| seen.headers["authorization"] == "Bearer sk-secret"));
}

#[test]
fn one_refused_element_of_many_is_the_only_dead_letter() {
    let server = Server::start(|seen| match numbers(seen).contains(&41) {
        true => Reply::of(400, "41 is not allowed, and your key is sk-secret"),
        false => Reply::json(well(&numbers(seen))),
    });
    let handler = affine(server.url("/")).with_request_size(64).with_batching(Batching::fixed(64));
    let p = Pipeline::new();
    let inferred = p.apply(Create::of(0..64i64)).apply(RunInference::new(handler).with_exception_handling());
    assert_that(&inferred.results).has_count(63);
    assert_that(&inferred.results.map(|result| result.inference - 3 * result.example)).satisfies(
        |differences| {
            if differences.iter().all(|difference| *difference == 7) {
                Ok(())
            } else {
                Err("misaligned".to_owned())
            }
        },
    );
    assert_that(&inferred.failed).satisfies(|failed| match failed {
        [one] => {
            let told = format!("{one:?}");
            let is_well =
                one.element == 41 && told.contains("41 is not allowed") && !told.contains("sk-secret");
            if is_well { Ok(()) } else { Err(told) }
        }
        other => Err(format!("{} dead letters", other.len())),
    });
    EmbeddedRunner::new(RunnerOptions::default().with_threads(1)).run(&p.build().unwrap()).unwrap();
    assert!(server.seen().len() <= 13);
}

/// What a job says of one element at a server.
fn error_of(handler: RemoteModelHandler<Affine>) -> tiebeam_core::Error {
    let p = Pipeline::new();
    p.apply(Create::of([1i64])).apply(RunInference::new(handler.with_max_attempts(2)));
    let mut options = RunnerOptions::default().with_threads(1);
    options.max_attempts = 1;
    EmbeddedRunner::new(options).run(&p.build().unwrap()).unwrap_err()
}

#[test]
fn a_server_that_is_away_ends_the_job_with_its_name() {
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = error_of(affine(format!("http://{away}/v1")));
    assert_eq!((error.code(), error.kind()), ("TB0604", ErrorKind::Io));
    assert!(error.message().starts_with(&format!("http://{away}/v1 can't be reached")), "{error}");
    assert!(error.message().ends_with("after 2 attempts"), "{error}");
}

#[test]
fn hostile_answers_are_errors_that_name_the_endpoint() {
    let deep = "[".repeat(200_000);
    for (reply, code) in [
        (Reply::json("<html>"), "TB0607"),
        (Reply::json("[1e999]"), "TB0607"),
        (Reply::json("[NaN]"), "TB0607"),
        (Reply::json("[99999999999999999999999]"), "TB0607"),
        (Reply::json("{\"a\": 1}"), "TB0607"),
        (Reply::json("[\"10\"]"), "TB0607"),
        (Reply::json(deep), "TB0607"),
        (Reply::json("[10, 10]"), "TB0606"),
        (Reply::json(""), "TB0607"),
        (Reply::Promise(1 << 30), "TB0607"),
        (Reply::json(vec![b' '; 3000]), "TB0607"),
        (Reply::Cut(150, b"[10]".repeat(100)), "TB0604"),
        (Reply::Cut(10, Vec::new()), "TB0604"),
        (Reply::Reset, "TB0604"),
        (Reply::Hang, "TB0604"),
        (Reply::of(302, "").with("location", "http://127.0.0.1:9/"), "TB0602"),
        (Reply::of(418, "sk-secret is a teapot"), "TB0602"),
        (Reply::of(429, "no").with("retry-after", "86400"), "TB0605"),
        (Reply::of(503, "no").with("retry-after", "soon"), "TB0603"),
    ] {
        let shown = format!("{reply:?}").chars().take(60).collect::<String>();
        let server = Server::start(move |_| reply.clone());
        let handler = affine(server.url("/"))
            .with_max_response_bytes(2000)
            .with_request_timeout(Duration::from_millis(700))
            .with_deadline(Duration::from_secs(60));
        let error = error_of(handler);
        assert_eq!(error.code(), code, "{shown}: {error:?}");
        let told = format!("{error:?}");
        assert!(told.contains(&server.url("/")) && !told.contains("sk-secret"), "{shown}: {told}");
        assert!(told.len() < 1500, "{shown}: {told}");
    }
}

#[test]
fn a_deadline_ends_an_endpoint_that_hangs() {
    let server = Server::start(|_| Reply::Hang);
    let handler = affine(server.url("/")).with_deadline(Duration::from_millis(500)).with_max_concurrency(2);
    let client = handler.load_model().unwrap();
    let answers = handler.ask(&[1, 2, 3, 4, 5, 6], &client, &InferenceArgs::none());
    assert_eq!(answers.len(), 6);
    for answer in answers {
        assert!(matches!(answer.unwrap_err().code(), "TB0604" | "TB0605"));
    }
    // Those that were not in flight were hardly sent.
    assert!(server.seen().len() < 6);
}

#[test]
fn chat_goes_through_a_pipeline() {
    let server = Server::start(|seen| {
        assert_eq!(seen.path, "/v1/chat/completions");
        match seen.headers.get("authorization").map(String::as_str) {
            Some("Bearer sk-chat") => {
                let text = std::str::from_utf8(&seen.body).unwrap();
                let upper = if text.contains("\"hello\"") { "HELLO" } else { "BYE" };
                Reply::json(format!(
                    r#"{{"model":"m-1","choices":[{{"index":0,"message":{{"content":"{upper}"}}}}]}}"#
                ))
            }
            _ => Reply::of(401, r#"{"error":{"message":"Incorrect API key provided"}}"#),
        }
    });
    let chat = || OpenAiModelHandler::chat("m").with_base_url(server.url("/v1"));
    let p = Pipeline::new();
    let texts = p.apply(Create::of(["hello".to_owned(), "bye".to_owned()]));
    let answers = texts.apply(RunInference::new(chat().with_api_key("sk-chat")));
    let pairs = answers.map(|answer| (answer.example, answer.inference));
    assert_that(&pairs).contains_in_any_order(
        [("hello", "HELLO"), ("bye", "BYE")].map(|(a, b)| (a.to_owned(), b.to_owned())),
    );
    let report = EmbeddedRunner::default().run(&p.build().unwrap()).unwrap();
    assert_eq!(report.counter("BeamML_OpenAI", "num_inferences"), 2);

    let p = Pipeline::new();
    p.apply(Create::of(["hello".to_owned()])).apply(RunInference::new(chat().with_api_key("sk-wrong")));
    let error = EmbeddedRunner::default().run(&p.build().unwrap()).unwrap_err();
    assert_eq!(error.code(), "TB0602");
    assert!(error.message().contains("HTTP 401") && error.message().contains("Incorrect API key"), "{error}");
    assert!(!format!("{error:?}").contains("sk-wrong"));
}
