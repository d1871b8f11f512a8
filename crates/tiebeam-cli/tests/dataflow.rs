//! `--runner dataflow` from the command line to the verdict, against the fake of its API.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

#[path = "../../tiebeam-dataflow/tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;

use clap::Parser;
use serde_json::{Value, json};
use support::{Fake, Reply, message};
use tiebeam::Element;
use tiebeam::core::row::{Row, Schema};
use tiebeam::external::{self, External};
use tiebeam::graph::{Create, Pipeline};
use tiebeam::launch::{Exit, Job, Options};
use tiebeam::portable::Environment;
use tiebeam::portable::expansion::{ExpansionServer, NamedRows, SchemaTransform, SchemaTransforms};

const JOB: &str = "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{n: 1}, {n: 2}]}
    - type: MapToFields
      config: {fields: {n: n * 10}}
    - type: WriteToJson
      config: {path: out/rows}
";

/// The command with these flags more, and the folder that it ran in.
fn run(fake: &Fake, more: &[&str]) -> (Output, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("My_Job.yaml"), JOB).unwrap();
    let endpoints = ["dataflow_endpoint", "gcs_endpoint"].map(|name| format!("{name}={}", fake.url()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiebeam"));
    command.current_dir(folder.path()).env("TIEBEAM_GCP_TOKEN", "t0ken").env_remove("RUST_BACKTRACE");
    command.args([
        "run",
        "My_Job.yaml",
        "--runner",
        "dataflow",
        "--report",
        "report.json",
        "--progress",
        "plain",
    ]);
    for option in ["project=p-1", "region=r1", "temp_location=gs://bucket/tmp", &endpoints[0], &endpoints[1]]
    {
        command.args(["--option", option]);
    }
    (command.args(more).output().unwrap(), folder)
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_file_runs_as_a_job_and_its_counts_come_back() {
    let fake = Fake::start();
    let counter = |namespace: &str, name: &str, n: u64| {
        let context = json!({"step": "Map", "namespace": namespace});
        json!({"name": {"origin": "user", "name": name, "context": context}, "scalar": n})
    };
    fake.with(|state| {
        state.states = ["JOB_STATE_DONE"].into();
        state.messages =
            vec![(0, message("1", "2026-11-22T10:00:00Z", "WARNING", "Quota is nearly used up.\nmore"))];
        state.metrics = vec![counter("sink", "records", 2)];
    });
    let (output, folder) =
        run(&fake, &["--environment", "docker=example/worker:1", "--option", "num_workers=3"]);
    let words = told(&output);
    assert!(output.status.success(), "{words}");
    assert!(words.contains("job 2026-11-22_02_00_00-123: https://console.cloud.google.com/"), "{words}");
    assert!(words.contains("dataflow: Quota is nearly used up.\n"), "{words}");
    assert!(words.contains("2 records written"), "{words}");
    assert!(!words.contains("t0ken"), "{words}");
    let created = fake.seen("POST /v1b3/projects/p-1/locations/r1/jobs");
    assert_eq!(created[0].headers["authorization"], "Bearer t0ken");
    let body = created[0].json();
    assert_eq!(body["name"], "my-job");
    let pool = &body["environment"]["workerPools"][0];
    assert_eq!(
        (&pool["numWorkers"], &pool["workerHarnessContainerImage"]),
        (&json!(3), &json!("example/worker:1"))
    );
    let images = &pool["sdkHarnessContainerImages"][0];
    assert_eq!(images["useSingleCorePerContainer"], false);
    assert!(images["capabilities"].as_array().unwrap().len() > 10, "{images}");
    let report: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["runner"], &report["status"]), (&json!("dataflow"), &json!("done")));
}

#[test]
fn a_failure_is_told_in_the_workers_words() {
    let fake = Fake::start();
    let error = "Workflow failed. Causes: error[TB0100]: step Map: it broke\n  at org.x";
    fake.with(|state| {
        state.states = ["JOB_STATE_FAILED"].into();
        state.messages = vec![(0, message("1", "2026-11-22T10:00:00Z", "ERROR", error))];
    });
    let (output, _folder) = run(&fake, &["--environment", "docker=i"]);
    let words = told(&output);
    assert!(words.contains("error[TB0526]: the job failed on dataflow"), "{words}");
    assert!(words.contains("error[TB0100]: step Map: it broke") && !words.contains("org.x"), "{words}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_is_missing_is_told_before_anything_is_sent() {
    let fake = Fake::start();
    for (more, want) in [
        (vec![], "error[TB0523]: dataflow was not told which container the steps run in"),
        (
            vec!["--environment", "loopback"],
            "error[TB0773]: Dataflow runs steps in containers only, not in beam:env:external:v1",
        ),
        (
            vec!["--environment", "docker=i", "--option", "region="],
            "error[TB0760]: a job on dataflow needs the option region",
        ),
        (
            vec!["--environment", "docker=i", "--job-name", "My_Job"],
            "error[TB0760]: the option `job_name` is `My_Job`",
        ),
        (
            vec!["--option", "worker_binary=My_Job.yaml"],
            "error[TB0770]: the worker binary My_Job.yaml is no program for 64-bit Linux",
        ),
    ] {
        let (output, _folder) = run(&fake, &more);
        assert!(told(&output).contains(want), "{}", told(&output));
        assert!(!output.status.success());
    }
    assert!(fake.with(|state| state.seen.is_empty()));
}

#[test]
fn a_job_is_left_with_its_id_on_stdout_and_a_refused_token_is_told() {
    let fake = Fake::start();
    let (output, _folder) = run(&fake, &["--environment", "docker=i", "--detach"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "2026-11-22_02_00_00-123\n");
    fake.answer("POST /v1b3", Reply::refusal(401, "UNAUTHENTICATED", "Request had invalid credentials."));
    let (output, _folder) = run(&fake, &["--environment", "docker=i", "--option", "token=sEcret"]);
    let words = told(&output);
    assert!(words.contains("error[TB0763]: the job `my-job` was refused: HTTP 401"), "{words}");
    assert!(!words.contains("sEcret"), "{words}");
    let last = fake.seen("POST /v1b3").pop().unwrap();
    assert_eq!(last.headers["authorization"], "Bearer sEcret");
    assert!(!String::from_utf8(last.body).unwrap().contains("sEcret"));
}

/// Multiplies the field `n` of rows.
struct Times;

impl SchemaTransforms for Times {
    fn offered(&self) -> Vec<SchemaTransform> {
        vec![SchemaTransform {
            identifier: "test:times:v1".to_owned(),
            about: "multiplies".to_owned(),
            config: Arc::new(Schema::default()),
            fields: Default::default(),
            inputs: vec!["input".to_owned()],
            outputs: vec!["output".to_owned()],
        }]
    }

    fn apply(&self, _: &str, _: &Row, _: &Pipeline, inputs: NamedRows) -> tiebeam::Result<NamedRows> {
        let (_, input) = inputs.into_iter().next().unwrap();
        let coder = input.coder();
        Ok(vec![("output".to_owned(), input.step("Multiply").map(|row: Row| row).with_coder(coder))])
    }
}

#[derive(Debug, Clone, PartialEq, Element)]
struct Number {
    n: i64,
}

/// A program whose one step `Ask` is another language's, run on the fake.
fn run_external(fake: &Fake, ask: External<Number>) -> Exit {
    let pipeline = Pipeline::new();
    pipeline.apply(Create::of([Number { n: 1 }])).step("Ask").apply(ask);
    let endpoints = ["dataflow_endpoint", "gcs_endpoint"].map(|name| format!("{name}={}", fake.url()));
    let told = [
        "project=p-1",
        "region=r1",
        "temp_location=gs://bucket/tmp",
        "token=t",
        &endpoints[0],
        &endpoints[1],
    ];
    let told = told.into_iter().flat_map(|option| ["--option", option]);
    let flags = ["x", "--runner", "dataflow", "--environment", "docker=ours:1", "--progress", "none"];
    let options = Options::try_parse_from(flags.into_iter().chain(told)).unwrap();
    let job = Job {
        name: "asks".to_owned(),
        graph: pipeline.build().unwrap(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        options: Default::default(),
        decisive: Default::default(),
    };
    tiebeam::launch::run(&job, &options.run)
}

#[test]
fn transforms_of_other_languages_are_asked_for_and_run_in_containers_of_their_own() {
    let fake = Fake::start();
    fake.with(|state| state.states = ["JOB_STATE_DONE"].into());
    let theirs = Environment::Docker { image: "theirs:2".to_owned() };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let service =
        ExpansionServer::start(any, Arc::new(Times), &theirs, true, &tiebeam::portable::Guard::default())
            .unwrap();
    let address = service.address().to_string();
    let config = || Row::new(Arc::new(Schema::default()), Vec::new());
    let ask = external::schema_transform::<Number>(&address, "test:times:v1", config());
    assert_eq!(run_external(&fake, ask), Exit::Ok);
    let created = fake.seen("POST /v1b3/projects/p-1/locations/r1/jobs").remove(0).json();
    let images = created["environment"]["workerPools"][0]["sdkHarnessContainerImages"].as_array().unwrap();
    let mut images: Vec<_> = images.iter().map(|image| image["containerImage"].as_str().unwrap()).collect();
    images.sort_unstable();
    assert_eq!(images, ["ours:1", "theirs:2"]);

    // Nothing goes out where it could not run.
    let fake = Fake::start();
    let python = external::python::<Number>("apache_beam.Map");
    assert_eq!(run_external(&fake, python), Exit::BadUsage);
    let unknown = external::schema_transform::<Number>(&address, "test:none:v1", config());
    assert_eq!(run_external(&fake, unknown), Exit::PipelineInvalid);
    assert!(fake.with(|state| state.seen.is_empty()));
}
