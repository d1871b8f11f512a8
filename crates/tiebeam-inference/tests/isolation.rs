//! Models in processes of their own: what dies there leaves the job as it is.

#![allow(clippy::panic, clippy::unwrap_used, clippy::print_stderr)] // tests fail by panicking, and a model says its last words

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use tiebeam_core::row::Value;
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_graph::{Create, Pipeline};
use tiebeam_inference::{
    Batching, InferenceArgs, Isolation, ModelHandler, ModelInfo, ModelMetadata, PerKeyModels, RunInference,
    from_fn,
};
use tiebeam_runner::{EmbeddedRunner, JobReport, RunnerOptions};
use tiebeam_testing::{TestPipeline, assert_that};

/// As many elements as a run has.
const ELEMENTS: i64 = 200;

/// A process for the model of the test of that name.
fn process(test: &str) -> Isolation {
    Isolation::process().with_arguments([test, "--exact", "--nocapture", "--test-threads=1"])
}

/// Does what its example says.
#[derive(Clone)]
struct Fragile {
    loads_badly: bool,
}

/// An example that ends the process.
const ABORTS: i64 = 77;
const FAULTS: i64 = 78;
const EXITS: i64 = 79;
const HANGS: i64 = 80;
const PANICS: i64 = 81;
const GROWS: i64 = 82;
/// One that does not fit.
const WRONG: i64 = 83;
/// One that tells the process's number.
const WHO: i64 = -1;

impl ModelHandler for Fragile {
    type Example = i64;
    type Inference = i64;
    type Model = i64;

    fn load_model(&self) -> Result<i64> {
        if self.loads_badly {
            eprintln!("the weights are cursed");
            std::process::abort();
        }
        Ok(2)
    }

    fn load_version(&self, version: &ModelMetadata) -> Result<i64> {
        version
            .model_id
            .parse()
            .map_err(|error| Error::new(ErrorKind::Model, "TB0330", "no number").with_source(error))
    }

    fn takes_updates(&self) -> bool {
        true
    }

    fn check_example(&self, example: &i64, _: &i64) -> Result<()> {
        match *example {
            WRONG => {
                Err(Error::new(ErrorKind::InvalidData, "TB0340", "a wrong one").with_help("another one"))
            }
            _ => Ok(()),
        }
    }

    fn run_inference(&self, batch: &[i64], times: &i64, args: &InferenceArgs) -> Result<Vec<i64>> {
        let plus = match args.get("plus") {
            Some(Value::Int64(plus)) => *plus,
            _ => 0,
        };
        let say = |x: &i64| match *x {
            ABORTS => std::process::abort(),
            FAULTS => {
                // The first one only takes the handler away that Rust has for overflows of the stack.
                loop {
                    let own = rustix::process::getpid();
                    rustix::process::kill_process(own, rustix::process::Signal::SEGV).unwrap();
                }
            }
            EXITS => std::process::exit(3),
            HANGS => loop {
                std::thread::park();
            },
            PANICS => panic!("not this one"),
            GROWS => vec![1u8; 1 << 30].iter().map(|byte| i64::from(*byte)).sum(),
            WHO => i64::from(std::process::id()),
            x => x * times + plus,
        };
        Ok(batch.iter().map(say).collect())
    }

    fn validate_inference_args(&self, _: &InferenceArgs) -> Result<()> {
        Ok(())
    }

    fn model_info(&self, times: &i64) -> ModelInfo {
        ModelInfo { model_id: format!("times {times}").into(), bytes: Some(8), ..ModelInfo::default() }
    }

    fn name(&self) -> String {
        "Fragile".to_owned()
    }
}

fn fragile() -> Fragile {
    Fragile { loads_badly: false }
}

fn run(p: &Pipeline, threads: usize) -> Result<JobReport> {
    EmbeddedRunner::new(RunnerOptions::default().with_threads(threads)).run(&p.build().unwrap())
}

/// Runs the model in a process over the elements that do it no harm and over those of `dead`: exactly these are in the dead letters,
/// each with its kind of error and its message.
fn only_these_die(test: &str, isolation: impl Fn(Isolation) -> Isolation, dead: &[(i64, ErrorKind, &str)]) {
    let harmful = ABORTS..=WRONG;
    let dies = |x: i64| dead.iter().any(|(own, ..)| *own == x);
    let reports = TestPipeline::run_all_modes(|p| {
        let run = RunInference::new(fragile().isolated(isolation(process(test)))).with_exception_handling();
        let run = if dies(HANGS) { run.with_timeout(Duration::from_secs(1)) } else { run };
        let elements = (0..ELEMENTS).filter(|x| !harmful.contains(x) || dies(*x));
        let inferred = p.apply(Create::of(elements)).apply(run);
        let well = (0..ELEMENTS).filter(|x| !harmful.contains(x)).map(|x| (x, x * 2, "times 2".to_owned()));
        let results =
            inferred.results.map(|result| (result.example, result.inference, result.model_id.to_string()));
        assert_that(&results).contains_in_any_order(well.collect::<Vec<_>>());
        let told = inferred.failed.map(|failed| {
            let failure = failed.letter.failure;
            (failed.element, failure.kind, failure.message)
        });
        let dead = dead.iter().map(|(x, kind, told)| (*x, format!("{kind:?}"), (*told).to_owned()));
        assert_that(&told).contains_in_any_order(dead.collect::<Vec<_>>());
    });
    for report in [&reports[0], &reports[2]] {
        let predicted = ELEMENTS - (WRONG - ABORTS + 1);
        assert_eq!(report.counter("RunInference", "num_inferences"), predicted);
        assert_eq!(report.dead_letters(), dead.len() as u64);
        let deaths = report.counter("RunInference", "model_process_deaths");
        assert_eq!(deaths > 0, dead.iter().any(|(_, kind, _)| *kind != ErrorKind::InvalidData), "{deaths}");
    }
}

#[test]
fn exactly_the_element_that_aborts_is_in_the_dead_letters() {
    const NAME: &str = "exactly_the_element_that_aborts_is_in_the_dead_letters";
    let told = "the process of Fragile ended by signal 6 (abort) on a batch of 1";
    only_these_die(NAME, |process| process, &[(ABORTS, ErrorKind::Inference, told)]);
}

#[test]
fn many_ways_to_die_are_told_apart() {
    const NAME: &str = "many_ways_to_die_are_told_apart";
    let told = |how: &str| format!("the process of Fragile ended {how} on a batch of 1");
    let (abort, fault, exit) =
        (told("by signal 6 (abort)"), told("by signal 11 (segmentation fault)"), told("with exit code 3"));
    let dead = [
        (ABORTS, ErrorKind::Inference, &*abort),
        (FAULTS, ErrorKind::Inference, &*fault),
        (EXITS, ErrorKind::Inference, &*exit),
        (PANICS, ErrorKind::Panic, "Fragile panicked on a batch of 1: not this one"),
        (WRONG, ErrorKind::InvalidData, "a wrong one"),
    ];
    only_these_die(NAME, |process| process, &dead);
}

#[test]
fn a_call_that_hangs_is_killed_and_its_process_replaced() {
    const NAME: &str = "a_call_that_hangs_is_killed_and_its_process_replaced";
    let told = "Fragile did not come back from a batch of 1 within 1s";
    only_these_die(NAME, |process| process, &[(HANGS, ErrorKind::Timeout, told)]);
}

#[test]
fn what_takes_more_memory_than_allowed_is_dead_and_the_machine_is_not() {
    const NAME: &str = "what_takes_more_memory_than_allowed_is_dead_and_the_machine_is_not";
    let told = "the process of Fragile ended by signal 6 (abort) on a batch of 1";
    only_these_die(
        NAME,
        |process| process.with_memory_limit(600 << 20),
        &[(GROWS, ErrorKind::OutOfMemory, told)],
    );
}

#[test]
fn a_model_that_dies_while_it_loads_is_told_before_anything_is_read() {
    const NAME: &str = "a_model_that_dies_while_it_loads_is_told_before_anything_is_read";
    let p = Pipeline::new();
    let handler = Fragile { loads_badly: true }.isolated(process(NAME));
    let read = p.apply(Create::of([1i64])).map(|x| -> i64 { panic!("{x} was read") });
    read.apply(RunInference::new(handler).with_exception_handling());
    let error = run(&p, 1).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Model, "TB0345"));
    assert_eq!(
        error.message(),
        "the process of Fragile ended by signal 6 (abort) before its model was loaded"
    );
    assert!(error.causes()[0].contains("the weights are cursed"), "{error:?}");
}

/// Batches of many threads are in the process when it dies: only one of them is to blame.
#[test]
fn those_who_were_there_when_it_died_are_not_to_blame() {
    const NAME: &str = "those_who_were_there_when_it_died_are_not_to_blame";
    let p = Pipeline::new();
    let handler = fragile().isolated(process(NAME)).with_batching(Batching::fixed(1));
    let elements: Vec<i64> = (0..40).map(|x| if x % 13 == 5 { ABORTS } else { x }).collect();
    let inferred =
        p.apply(Create::of(elements.clone())).apply(RunInference::new(handler).with_exception_handling());
    let well: Vec<i64> = elements.iter().filter(|x| **x != ABORTS).map(|x| x * 2).collect();
    assert_that(&inferred.results.map(|result| result.inference)).contains_in_any_order(well);
    assert_that(&inferred.failed.map(|failed| failed.element)).contains_in_any_order([ABORTS; 3]);
    run(&p, 8).unwrap();
}

#[test]
fn without_dead_letters_the_job_ends_with_what_was_said_last() {
    const NAME: &str = "without_dead_letters_the_job_ends_with_what_was_said_last";
    let p = Pipeline::new();
    p.apply(Create::of([ABORTS])).apply(RunInference::new(fragile().isolated(process(NAME))));
    let error = run(&p, 1).unwrap_err();
    assert_eq!(error.code(), "TB0345");
    assert!(error.to_string().contains("the process of Fragile ended by signal 6 (abort)"), "{error}");
}

#[test]
fn arguments_and_newer_versions_reach_the_process() {
    const NAME: &str = "arguments_and_newer_versions_reach_the_process";
    let p = Pipeline::new();
    let updates = p.apply(Create::of([ModelMetadata::of("5")]));
    let args = InferenceArgs::from_iter([("plus", Value::Int64(1))]);
    let run_inference = RunInference::new(fragile().isolated(process(NAME)))
        .with_inference_args(args)
        .with_model_metadata(&updates);
    let results = p.apply(Create::of([10i64])).apply(run_inference);
    let results = results.map(|result| (result.inference, result.model_id.to_string()));
    assert_that(&results).contains_in_any_order([(51, "times 5".to_owned())]);
    run(&p, 1).unwrap();
}

#[test]
fn copies_are_processes_each_and_none_of_them_is_this_one() {
    const NAME: &str = "copies_are_processes_each_and_none_of_them_is_this_one";
    let p = Pipeline::new();
    let handler = fragile().isolated(process(NAME)).model_copies(2).max_batch_size(1);
    let results = p.apply(Create::of([WHO; 8])).apply(RunInference::new(handler));
    let numbers = results.map(|result| result.inference);
    assert_that(&numbers).satisfies(|numbers| {
        let mut seen = numbers.to_vec();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(!seen.contains(&i64::from(std::process::id())));
        Ok(())
    });
    run(&p, 1).unwrap();
}

#[test]
fn models_for_keys_may_be_apart_each_for_itself() {
    const NAME: &str = "models_for_keys_may_be_apart_each_for_itself";
    TestPipeline::run_all_modes(|p| {
        let own =
            from_fn("own", |batch: &[i64]| Ok::<_, Error>(batch.iter().map(|x| x + 1).collect::<Vec<_>>()));
        let models = PerKeyModels::new()
            .with_models(["apart".to_owned()], fragile().isolated(process(NAME)))
            .with_models(["too".to_owned()], fragile().isolated(process(NAME)))
            .with_models(["here".to_owned()], own);
        let elements = [("apart", 3i64), ("here", 3), ("apart", ABORTS), ("here", ABORTS), ("too", 4)];
        let elements = elements.map(|(key, x)| (key.to_owned(), x));
        let inferred =
            p.apply(Create::of(elements)).apply(RunInference::new(models).with_exception_handling());
        let results = inferred.results.map(|(key, result)| (key, result.inference));
        let well = [("apart", 6i64), ("here", 4), ("here", ABORTS + 1), ("too", 8)];
        assert_that(&results).contains_in_any_order(well.map(|(key, x)| (key.to_owned(), x)));
        let failed = inferred.failed.map(|failed| failed.element);
        assert_that(&failed).contains_in_any_order([("apart".to_owned(), ABORTS)]);
    });
}

/// Tries what its example names, in the process of a model.
fn tries(folder: PathBuf) -> impl ModelHandler<Example = String, Inference = String> {
    let said = |result: std::io::Result<()>| match result {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    };
    from_fn("tries", move |batch: &[String]| {
        let one = |what: &String| match what.as_str() {
            "read" => said(std::fs::read(folder.join("model.bin")).map(drop)),
            "change" => {
                said(std::fs::OpenOptions::new().append(true).open(folder.join("model.bin")).map(drop))
            }
            "add" => said(std::fs::write(folder.join("more.bin"), b"x")),
            "remove" => said(std::fs::remove_file(folder.join("model.bin"))),
            "temporary" => said(std::fs::write(std::env::temp_dir().join("x"), b"x")),
            "allowed" => said(std::fs::write(folder.join("allowed/x"), b"x")),
            "start" => said(std::process::Command::new("/bin/true").status().map(drop)),
            address => said(std::net::TcpStream::connect(address).map(drop)),
        };
        Ok::<_, Error>(batch.iter().map(one).collect::<Vec<_>>())
    })
}

#[test]
fn a_model_apart_reads_and_does_nothing_else() {
    const NAME: &str = "a_model_apart_reads_and_does_nothing_else";
    // The process of the model comes here too, and does not need what is made here.
    let folder = match std::env::var_os("TIEBEAM_TEST_FOLDER") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("allowed")).unwrap();
            std::fs::write(folder.path().join("model.bin"), b"model").unwrap();
            // This test again, so that its own process and the model's find the same folder.
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            again.args([NAME, "--exact", "--nocapture"]).env("TIEBEAM_TEST_FOLDER", folder.path());
            let ended = again.output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            assert_eq!(std::fs::read(folder.path().join("model.bin")).unwrap(), b"model");
            assert!(!folder.path().join("more.bin").exists());
            assert!(folder.path().join("allowed/x").exists());
            return;
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let expected = [
        ("read", "done"),
        ("change", "PermissionDenied"),
        ("add", "PermissionDenied"),
        ("remove", "PermissionDenied"),
        ("temporary", "done"),
        ("allowed", "done"),
        ("start", "PermissionDenied"),
        (&address, "PermissionDenied"),
    ];
    let p = Pipeline::new();
    let isolation = process(NAME).with_writable(folder.join("allowed"));
    let results = p
        .apply(Create::of(expected.map(|(what, _)| what.to_owned())))
        .apply(RunInference::new(tries(folder).isolated(isolation)));
    let results = results.map(|result| (result.example, result.inference));
    assert_that(&results)
        .contains_in_any_order(expected.map(|(what, said)| (what.to_owned(), said.to_owned())));
    run(&p, 1).unwrap();
}

#[test]
fn one_that_is_trusted_is_apart_and_may_do_all() {
    const NAME: &str = "one_that_is_trusted_is_apart_and_may_do_all";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let p = Pipeline::new();
    let results = p
        .apply(Create::of([address]))
        .apply(RunInference::new(tries(PathBuf::new()).isolated(process(NAME).trusted())));
    assert_that(&results.map(|result| result.inference)).contains_in_any_order(["done".to_owned()]);
    run(&p, 1).unwrap();
}

/// A program that comes to another pipeline than the job's says so, and nothing of it runs.
#[test]
fn a_process_that_does_not_find_its_model_says_so() {
    const NAME: &str = "a_process_that_does_not_find_its_model_says_so";
    let is_the_process = tiebeam_inference::isolation::is_model_process();
    let p = Pipeline::new();
    let label = if is_the_process { "Another" } else { "Run" };
    let numbers = p.apply(Create::of([1i64]));
    numbers.step(label).apply(RunInference::new(fragile().isolated(process(NAME))));
    let error = match p.build() {
        Ok(graph) => EmbeddedRunner::new(RunnerOptions::default()).run(&graph).unwrap_err(),
        // Here is where such a process ends.
        Err(errors) => panic!("{errors}"),
    };
    assert_eq!((error.kind(), error.code()), (ErrorKind::Model, "TB0345"));
    assert!(error.message().ends_with("before its model was loaded"), "{error}");
    let said = error.causes().join(" ");
    assert!(said.contains("came to a pipeline that does not have the model"), "{said}");
}
