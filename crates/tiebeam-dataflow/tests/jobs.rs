//! Jobs against a fake of Dataflow's REST API: what is sent, field by field, and what is made of the answers.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

#[path = "support/clock.rs"]
mod clock;
mod support;

use std::path::Path;
use std::sync::Arc;

use clock::TestClock;
use serde_json::{Value, json};
use support::{Fake, Reply, Script, message};
use tiebeam_core::Error;
use tiebeam_dataflow::{Dataflow, DataflowJob, DataflowOptions, Secret, Source};
use tiebeam_model::pipeline::{
    ArtifactFilePayload, ArtifactInformation, ArtifactStagingToRolePayload, ArtifactUrlPayload, Components,
    DockerPayload, Environment, PCollection, PTransform, Pipeline, is_bounded,
};
use tiebeam_model::{Message, urns};
use tiebeam_portable::{JobEvent, JobOptions, JobState, Severity};

const JOBS: &str = "/v1b3/projects/p-1/locations/europe-west4/jobs";
const ID: &str = "2026-11-22_02_00_00-123";

fn artifact(path: &Path, name: &str) -> ArtifactInformation {
    let file = ArtifactFilePayload { path: path.display().to_string(), sha256: String::new() };
    let role = ArtifactStagingToRolePayload { staged_name: name.to_owned() };
    ArtifactInformation {
        type_urn: urns::artifact::FILE.to_owned(),
        type_payload: file.encode_to_vec().into(),
        role_urn: urns::artifact::STAGING_TO.to_owned(),
        role_payload: role.encode_to_vec().into(),
    }
}

/// A pipeline of one step in a container.
fn pipeline(files: Vec<ArtifactInformation>) -> Pipeline {
    let environment = Environment {
        urn: urns::environment::DOCKER.to_owned(),
        payload: DockerPayload { container_image: "example/worker:1".to_owned() }.encode_to_vec().into(),
        capabilities: vec![
            "beam:coder:bytes:v1".to_owned(),
            urns::protocol::MULTI_CORE_BUNDLE_PROCESSING.to_owned(),
        ],
        dependencies: files,
        ..Environment::default()
    };
    let step = PTransform {
        unique_name: "Read/Lines".to_owned(),
        environment_id: "tiebeam".to_owned(),
        ..PTransform::default()
    };
    let components = Components {
        environments: [("tiebeam".to_owned(), environment)].into(),
        transforms: [("s1".to_owned(), step)].into(),
        ..Components::default()
    };
    Pipeline { components: Some(components), ..Pipeline::default() }
}

struct Case {
    fake: Fake,
    clock: Arc<TestClock>,
}

impl Case {
    fn new() -> Case {
        Case { fake: Fake::start(), clock: Arc::default() }
    }

    fn options(&self, more: Value) -> JobOptions {
        let mut options = json!({
            "project": "p-1", "region": "europe-west4", "temp_location": "gs://bucket/tmp",
            "dataflow_endpoint": self.fake.url(), "gcs_endpoint": self.fake.url(),
        });
        for (name, value) in more.as_object().unwrap() {
            options[name] = value.clone();
        }
        options.as_object().unwrap().clone()
    }

    fn client(&self, options: &JobOptions) -> Dataflow {
        let sources = vec![Source::Given(Secret::new("t0ken"))];
        Dataflow::with(DataflowOptions::parse(options).unwrap(), sources, self.clock.clone())
    }

    fn submit(&self, more: Value, pipeline: Pipeline) -> Result<DataflowJob, Error> {
        let options = self.options(more);
        self.client(&options).submit("word-count", pipeline, &options, &|_| ())
    }

    /// A job that was made without trouble.
    fn job(&self) -> DataflowJob {
        self.submit(json!({}), pipeline(Vec::new())).unwrap()
    }

    /// The body of the only `jobs.create`.
    fn body(&self) -> Value {
        let created = self.fake.seen(&format!("POST {JOBS}"));
        assert_eq!(created.len(), 1);
        assert_eq!(created[0].headers["authorization"], "Bearer t0ken");
        created[0].json()
    }

    /// All that a wait tells, in its order, and how it ends.
    fn wait(&self, job: &DataflowJob) -> (Vec<JobEvent>, Result<JobState, Error>) {
        let mut events = Vec::new();
        let end = job.wait(|_, event| events.extend(event));
        (events, end)
    }
}

fn said(severity: Severity, text: &str) -> JobEvent {
    JobEvent::Message(severity, text.to_owned())
}

#[test]
fn the_least_job_says_only_what_it_must() {
    let case = Case::new();
    let job = case.submit(json!({"n": 3, "token": "t0ken"}), pipeline(Vec::new())).unwrap();
    assert_eq!(job.id(), ID);
    let body = case.body();
    let options = &body["environment"]["sdkPipelineOptions"]["options"];
    let url = options["pipelineUrl"].as_str().unwrap();
    let hash = options["pipelineProtoHash"].as_str().unwrap();
    assert_eq!(url, format!("gs://bucket/tmp/staging/{hash}/pipeline.pb"));
    let experiments = ["beam_fn_api", "use_unified_worker", "use_runner_v2", "use_portable_job_submission"];
    let shown =
        |name: &str| json!({"namespace": "tiebeam", "key": name, "type": "STRING", "value": options[name]});
    assert_eq!(
        body,
        json!({
            "name": "word-count",
            "projectId": "p-1",
            "location": "europe-west4",
            "clientRequestId": format!("1795000000000000000-{}", &hash[..8]),
            "type": "JOB_TYPE_BATCH",
            "steps": [],
            "environment": {
                "userAgent": {"name": "Tiebeam", "version": env!("CARGO_PKG_VERSION")},
                "version": {"major": "8", "job_type": "FNAPI_BATCH"},
                "tempStoragePrefix": "storage.googleapis.com/bucket/tmp",
                "experiments": experiments,
                "sdkPipelineOptions": {
                    "options": {
                        "n": 3,
                        "project": "p-1",
                        "region": "europe-west4",
                        "temp_location": "gs://bucket/tmp",
                        "tempLocation": "gs://bucket/tmp",
                        "stagingLocation": "gs://bucket/tmp/staging",
                        "experiments": experiments,
                        "pipelineUrl": url,
                        "pipelineProtoHash": hash,
                    },
                    "display_data": [
                        shown("pipelineUrl"), shown("region"), shown("tempLocation"), shown("stagingLocation")
                    ],
                },
                "workerPools": [{
                    "kind": "harness",
                    "autoscalingSettings": {},
                    "workerHarnessContainerImage": "example/worker:1",
                    "sdkHarnessContainerImages": [{
                        "containerImage": "example/worker:1",
                        "environmentId": "tiebeam",
                        "useSingleCorePerContainer": false,
                        "capabilities": ["beam:coder:bytes:v1", urns::protocol::MULTI_CORE_BUNDLE_PROCESSING],
                    }],
                }],
            },
        })
    );
    // The pipeline that lies there is the one that its hash names.
    let staged = case.fake.with(|state| state.objects[url.trim_start_matches("gs://")].clone());
    assert_eq!(sha256(&staged), hash);
    assert_eq!(Pipeline::decode(staged.as_slice()).unwrap(), pipeline(Vec::new()));
}

fn sha256(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    tiebeam_portable::artifacts::sha256(file.path()).unwrap()
}

#[test]
fn every_option_has_its_field() {
    let case = Case::new();
    let more = json!({
        "staging_location": "gs://other/s",
        "num_workers": 2, "max_num_workers": 8, "autoscaling_algorithm": "THROUGHPUT_BASED",
        "worker_machine_type": "n2-standard-8", "disk_size_gb": 100, "worker_disk_type": "pd-ssd",
        "number_of_worker_harness_threads": 4, "network": "net", "subnetwork": "regions/r/subnetworks/s",
        "use_public_ips": false, "worker_zone": "europe-west4-a",
        "service_account_email": "w@p-1.example", "dataflow_kms_key": "projects/k",
        "labels": {"team": "a"}, "experiments": "use_runner_v2,mine=1", "dataflow_service_options": "enable_prime",
        "flexrs_goal": "SPEED_OPTIMIZED", "min_ram": "8GB", "accelerator": "type:nvidia-l4;count:1;install-nvidia-driver",
    });
    case.submit(more, pipeline(Vec::new())).unwrap();
    let body = case.body();
    let environment = &body["environment"];
    for (field, want) in [
        ("serviceAccountEmail", json!("w@p-1.example")),
        ("serviceKmsKeyName", json!("projects/k")),
        ("serviceOptions", json!(["enable_prime"])),
        ("workerZone", json!("europe-west4-a")),
        ("flexResourceSchedulingGoal", json!("FLEXRS_SPEED_OPTIMIZED")),
        (
            "experiments",
            json!([
                "use_runner_v2",
                "mine=1",
                "beam_fn_api",
                "use_unified_worker",
                "use_portable_job_submission"
            ]),
        ),
    ] {
        assert_eq!(environment[field], want, "{field}");
    }
    let pool = &environment["workerPools"][0];
    for (field, want) in [
        ("numWorkers", json!(2)),
        ("autoscalingSettings", json!({"algorithm": "AUTOSCALING_ALGORITHM_BASIC", "maxNumWorkers": 8})),
        ("machineType", json!("n2-standard-8")),
        ("diskSizeGb", json!(100)),
        ("diskType", json!("pd-ssd")),
        ("numThreadsPerWorker", json!(4)),
        ("network", json!("net")),
        ("subnetwork", json!("regions/r/subnetworks/s")),
        ("ipConfiguration", json!("WORKER_IP_PRIVATE")),
    ] {
        assert_eq!(pool[field], want, "{field}");
    }
    assert_eq!(body["labels"], json!({"team": "a"}));
    let url = environment["sdkPipelineOptions"]["options"]["pipelineUrl"].as_str().unwrap();
    let staged = case.fake.with(|state| state.objects[url.strip_prefix("gs://").unwrap()].clone());
    let sent = Pipeline::decode(staged.as_slice()).unwrap().components.unwrap();
    let hints = &sent.environments["tiebeam"].resource_hints;
    assert_eq!(hints["beam:resources:min_ram_bytes:v1"], "8000000000");
    assert_eq!(hints["beam:resources:accelerator:v1"], "type:nvidia-l4;count:1;install-nvidia-driver");
}

#[test]
fn a_pipeline_that_reads_without_end_is_a_streaming_job() {
    let case = Case::new();
    let mut endless = pipeline(Vec::new());
    let lines = PCollection { is_bounded: is_bounded::Enum::Unbounded as i32, ..PCollection::default() };
    endless.components.as_mut().unwrap().pcollections.insert("p".to_owned(), lines);
    case.submit(json!({"disk_type": "pd-ssd"}), endless).unwrap();
    let body = case.body();
    assert_eq!(body["type"], "JOB_TYPE_STREAMING");
    assert_eq!(body["environment"]["version"]["job_type"], "FNAPI_STREAMING");
    assert_eq!(body["environment"]["workerPools"][0]["dataDisks"], json!([{"diskType": "pd-ssd"}]));
    let experiments = body["environment"]["experiments"].as_array().unwrap();
    assert!(experiments.contains(&json!("enable_streaming_engine")));
    assert!(experiments.contains(&json!("enable_windmill_service")));
}

#[test]
fn an_update_names_the_running_job_and_what_became_of_its_steps() {
    let case = Case::new();
    // On the second page, after one whose name only begins alike.
    case.fake.with(|state| {
        state.active =
            vec![json!({"id": "j-0", "name": "word-count-2"}), json!({"id": "j-1", "name": "word-count"})];
    });
    let more = json!({"update": true, "transform_name_mapping": {"Old": "New"}, "streaming": true});
    case.submit(more, pipeline(Vec::new())).unwrap();
    let body = case.body();
    assert_eq!(body["replaceJobId"], "j-1");
    assert_eq!(body["transformNameMapping"], json!({"Old": "New"}));
    assert_eq!(case.fake.seen(&format!("GET {JOBS}")).len(), 2);

    let case = Case::new();
    let error = case.submit(json!({"update": true}), pipeline(Vec::new())).err().unwrap();
    assert_eq!(error.code(), "TB0772");
    assert_eq!(error.message(), "there is no running job `word-count` to update in europe-west4");
    assert!(case.fake.seen("upload").is_empty(), "nothing is staged for it");
}

#[test]
fn files_go_up_once_and_the_pipeline_points_at_them() {
    let case = Case::new();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    std::fs::write(&model, b"weights").unwrap();
    let files = || vec![artifact(&model, "model.onnx"), artifact(&model, "model.onnx")];
    case.submit(json!({}), pipeline(files())).unwrap();
    let hash = sha256(b"weights");
    let location = format!("bucket/tmp/staging/{hash}/model.onnx");
    assert_eq!(case.fake.with(|state| state.objects[&location].clone()), b"weights");
    let body = case.body();
    assert_eq!(
        body["environment"]["workerPools"][0]["packages"],
        json!([{"name": "model.onnx", "location": format!("storage.googleapis.com/{location}"), "sha256": hash}])
    );
    let url =
        body["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"].as_str().unwrap().to_owned();
    let staged = case.fake.with(|state| state.objects[url.strip_prefix("gs://").unwrap()].clone());
    let sent = Pipeline::decode(staged.as_slice()).unwrap().components.unwrap();
    let sent = &sent.environments["tiebeam"].dependencies;
    assert_eq!(sent.len(), 2);
    for file in sent {
        assert_eq!(file.type_urn, urns::artifact::URL);
        let payload = ArtifactUrlPayload::decode(file.type_payload.clone()).unwrap();
        assert_eq!(payload, ArtifactUrlPayload { url: format!("gs://{location}"), sha256: hash.clone() });
        assert_eq!(file.role_urn, urns::artifact::STAGING_TO);
    }
    // Two uploads, the file and the pipeline; none the second time.
    assert_eq!(case.fake.seen("POST /upload").len(), 2);
    case.submit(json!({}), pipeline(files())).unwrap();
    assert_eq!(case.fake.seen("POST /upload").len(), 2);
}

#[test]
fn a_bare_program_is_what_the_boot_program_of_an_image_looks_for() {
    let case = Case::new();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("my-worker");
    // The least that is a static program: no table of program headers at all.
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1];
    elf.resize(64, 0);
    std::fs::write(&program, &elf).unwrap();
    case.submit(json!({"worker_binary": program.display().to_string()}), pipeline(Vec::new())).unwrap();
    let body = case.body();
    let options = &body["environment"]["sdkPipelineOptions"]["options"];
    assert!(options.get("worker_binary").is_none(), "a path of this machine means nothing there");
    let package = &body["environment"]["workerPools"][0]["packages"][0];
    assert_eq!(package["name"], "worker");
    let url = options["pipelineUrl"].as_str().unwrap();
    let staged = case.fake.with(|state| state.objects[url.strip_prefix("gs://").unwrap()].clone());
    let sent = Pipeline::decode(staged.as_slice()).unwrap().components.unwrap();
    let file = &sent.environments["tiebeam"].dependencies[0];
    assert_eq!(file.role_urn, urns::artifact::GO_WORKER_BINARY);
    let payload = ArtifactUrlPayload::decode(file.type_payload.clone()).unwrap();
    assert_eq!(payload.url, format!("gs://bucket/tmp/staging/{}/worker", sha256(&elf)));
}

#[test]
fn steps_elsewhere_than_in_containers_are_refused_before_anything_is_sent() {
    let case = Case::new();
    let mut here = pipeline(Vec::new());
    let components = here.components.as_mut().unwrap();
    components.environments.get_mut("tiebeam").unwrap().urn = urns::environment::EXTERNAL.to_owned();
    let error = case.submit(json!({}), here).err().unwrap();
    assert_eq!(error.code(), "TB0773");
    assert_eq!(error.message(), "Dataflow runs steps in containers only, not in beam:env:external:v1");
    assert!(case.fake.with(|state| state.seen.is_empty()));
}

#[test]
fn a_job_is_followed_through_its_states_and_pages_of_messages() {
    let case = Case::new();
    let job = case.job();
    case.fake.with(|state| {
        state.states = ["PENDING", "RUNNING", "RUNNING", "RESOURCE_CLEANING_UP", "DONE"]
            .map(|name| match name {
                "PENDING" => "JOB_STATE_PENDING",
                "RUNNING" => "JOB_STATE_RUNNING",
                "DONE" => "JOB_STATE_DONE",
                _ => "JOB_STATE_RESOURCE_CLEANING_UP",
            })
            .into();
        state.messages = vec![
            (1, message("1", "2026-11-22T10:00:00Z", "BASIC", "Worker configuration: n2.")),
            (1, message("2", "2026-11-22T10:00:00.5Z", "DEBUG", "noise")),
            (2, message("3", "2026-11-22T10:00:01.25Z", "WARNING", "slow")),
            (2, message("4", "2026-11-22T10:00:01.25Z", "BASIC", "same time")),
            (2, message("5", "2026-11-22T10:00:01.3Z", "BASIC", "third on its page")),
            (3, message("6", "2026-11-22T10:00:01.3Z", "BASIC", "late at the same time")),
            (5, message("7", "2026-11-22T10:00:09Z", "BASIC", "Worker pool stopped.")),
        ];
    });
    let (events, end) = case.wait(&job);
    assert_eq!(end.unwrap(), JobState::Done);
    use JobState::{Done, Running, Starting};
    use Severity::{Basic, Warning};
    assert_eq!(
        events,
        [
            said(Basic, "Worker configuration: n2."),
            JobEvent::State(Starting),
            said(Warning, "slow"),
            said(Basic, "same time"),
            said(Basic, "third on its page"),
            JobEvent::State(Running),
            said(Basic, "late at the same time"),
            said(Basic, "Worker pool stopped."),
            JobEvent::State(Done),
        ]
    );
    // Each look asks from the newest message on.
    let since: Vec<Option<String>> =
        case.fake.seen("/messages").iter().map(|seen| seen.query.get("startTime").cloned()).collect();
    let at = |time: &str| Some(time.to_owned());
    assert_eq!(since[0], None);
    assert_eq!(since[1], at("2026-11-22T10:00:00Z"));
    assert_eq!(since.last().unwrap(), &at("2026-11-22T10:00:01.3Z"));
    // The looks are 1, 2, 3 and 4 s apart, in halves of a second.
    assert_eq!(case.clock.pauses(), [500; 20]);
}

#[test]
fn the_reason_of_a_failure_is_waited_for() {
    let case = Case::new();
    let job = case.job();
    let error = "error[TB0100]: step Read/Lines: it broke";
    case.fake.with(|state| {
        state.states = ["JOB_STATE_FAILED"].into();
        state.messages = vec![(1, message("1", "2026-11-22T10:00:00Z", "BASIC", "begins"))];
    });
    case.fake.answer("/messages", Reply::json(200, json!({})));
    case.fake.answer("/messages", Reply::json(200, json!({})));
    case.fake.answer(
        "/messages",
        Reply::json(200, json!({"jobMessages": [message("2", "2026-11-22T10:00:03Z", "ERROR", error)]})),
    );
    let (events, end) = case.wait(&job);
    assert_eq!(end.unwrap(), JobState::Failed);
    assert_eq!(events, [JobEvent::State(JobState::Failed), said(Severity::Error, error)]);
    assert_eq!(case.clock.pauses(), [1000, 1000]);

    // It is not waited for for ever.
    let job = case.job();
    let (events, end) = case.wait(&job);
    assert_eq!(end.unwrap(), JobState::Failed);
    assert_eq!(events, [said(Severity::Basic, "begins"), JobEvent::State(JobState::Failed)]);
    assert_eq!(case.clock.pauses(), [1000; 50]);
}

#[test]
fn other_ends_are_ends() {
    for (name, state) in [
        ("JOB_STATE_CANCELLED", JobState::Cancelled),
        ("JOB_STATE_UPDATED", JobState::Updated),
        ("JOB_STATE_DRAINED", JobState::Drained),
    ] {
        let case = Case::new();
        let job = case.job();
        case.fake.with(|fake| fake.states = [name].into());
        assert_eq!(case.wait(&job).1.unwrap(), state, "{name}");
    }
}

#[test]
fn a_job_is_cancelled_and_drained_by_the_state_that_is_asked_for() {
    let case = Case::new();
    let job = case.job();
    assert_eq!(job.cancel().unwrap(), JobState::Cancelling);
    assert_eq!(job.drain().unwrap(), JobState::Draining);
    let asked: Vec<Value> =
        case.fake.seen(&format!("PUT {JOBS}/{ID}")).iter().map(|seen| seen.json()).collect();
    assert_eq!(
        asked,
        [json!({"requestedState": "JOB_STATE_CANCELLED"}), json!({"requestedState": "JOB_STATE_DRAINING"})]
    );
    let words = "(b1): Batch jobs cannot be drained.";
    case.fake.answer("PUT", Reply::refusal(400, "FAILED_PRECONDITION", words));
    let error = job.drain().unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        ("TB0767", "draining the job was refused: HTTP 400: (b1): Batch jobs cannot be drained.")
    );
}

#[test]
fn metrics_have_the_paths_of_our_steps_and_are_not_asked_for_all_the_time() {
    let case = Case::new();
    let job = case.job();
    let metric = |n: u64| json!({"name": {"origin": "user", "name": "records", "context": {"step": "s1", "namespace": "sink"}}, "scalar": n});
    case.fake.with(|state| state.metrics = vec![metric(4)]);
    let value = |job: &DataflowJob| {
        let infos = job.metrics().unwrap();
        assert_eq!(infos.len(), 1);
        assert_eq!(infos[0].labels["PTRANSFORM"], "Read/Lines");
        infos[0].payload.to_vec()
    };
    assert_eq!(value(&job), [4]);
    case.fake.with(|state| state.metrics = vec![metric(5)]);
    assert_eq!(value(&job), [4], "they stay for ten seconds");
    tiebeam_dataflow::Clock::sleep(&*case.clock, std::time::Duration::from_secs(10));
    assert_eq!(value(&job), [5]);
    // After the end they are asked for once more, whatever the time.
    case.fake.with(|state| state.metrics = vec![metric(6)]);
    case.wait(&job).1.unwrap();
    assert_eq!(value(&job), [6]);
}

#[test]
fn a_busy_service_is_asked_again_as_it_says() {
    let case = Case::new();
    let job = case.job();
    case.fake.answer(
        "GET",
        Reply::refusal(429, "RESOURCE_EXHAUSTED", "Quota exceeded").header("retry-after", "7"),
    );
    case.fake.answer("GET", Reply::refusal(503, "UNAVAILABLE", "later").header("retry-after", "3600"));
    case.fake.answer("GET", Reply::refusal(503, "UNAVAILABLE", "later"));
    case.fake.script("GET", Script::Break);
    assert_eq!(job.state().unwrap(), JobState::Done);
    // Its own wish, its own wish within reason, then twice the last pause each time.
    assert_eq!(case.clock.pauses(), [7_000, 60_000, 4_000, 8_000]);

    // Making a job is tried again too: the request's id says that it is the same one.
    case.fake.answer("POST /v1b3", Reply::refusal(503, "UNAVAILABLE", "later"));
    case.job();
    let made = case.fake.seen("POST /v1b3");
    assert_eq!(made.len(), 3);
    assert_eq!(made[1].json()["clientRequestId"], made[2].json()["clientRequestId"]);

    // In the end it is given up.
    for _ in 0..7 {
        case.fake.answer("GET", Reply::refusal(503, "UNAVAILABLE", "The service is currently unavailable."));
    }
    let error = job.state().unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("TB0768", true));
    assert_eq!(
        error.message(),
        "asking for the job's state was refused: HTTP 503: The service is currently unavailable."
    );
}

#[test]
fn refusals_have_codes_help_and_the_services_own_words() {
    let words = "Current user cannot act as service account.";
    for (status, code, ours, help) in [
        (401, "UNAUTHENTICATED", "TB0763", "the token is not valid"),
        (403, "PERMISSION_DENIED", "TB0764", "the account lacks a role"),
        (404, "NOT_FOUND", "TB0765", "look at `project`, `region`"),
        (400, "INVALID_ARGUMENT", "TB0767", "the service's own words"),
    ] {
        let case = Case::new();
        case.fake.answer("POST /v1b3", Reply::refusal(status, code, words));
        let error = case.submit(json!({}), pipeline(Vec::new())).err().unwrap();
        assert_eq!(error.code(), ours);
        assert_eq!(error.message(), format!("the job `word-count` was refused: HTTP {status}: {words}"));
        assert!(error.help().unwrap().starts_with(help), "{:?}", error.help());
        assert!(!format!("{error:?}").contains("t0ken"));
        assert_eq!(case.fake.seen("POST /v1b3").len(), 1, "it is not tried again");
    }
}

#[test]
fn a_second_job_of_the_same_name_is_refused_in_both_of_the_services_ways() {
    let case = Case::new();
    case.fake.with(|state| state.active = vec![json!({"id": "j-1", "name": "word-count"})]);
    let error = case.submit(json!({}), pipeline(Vec::new())).err().unwrap();
    assert_eq!(error.code(), "TB0766");
    assert!(
        error.message().starts_with("a job `word-count` is running already: HTTP 409: (4e1b)"),
        "{error}"
    );

    let case = Case::new();
    let other = json!({"id": "j-1", "name": "word-count", "clientRequestId": "20261122-1"});
    case.fake.answer("POST /v1b3", Reply::json(200, other));
    let error = case.submit(json!({}), pipeline(Vec::new())).err().unwrap();
    assert_eq!(
        (error.code(), error.message()),
        ("TB0766", "a job `word-count` is running already: its id is j-1")
    );
}

#[test]
fn answers_that_are_none_are_errors_and_not_panics() {
    for body in ["", "[]", "{}", "{\"id\": 3}", "<html>", "{\"id\": \"\"}"] {
        let case = Case::new();
        case.fake.answer("POST /v1b3", Reply { status: 200, headers: Vec::new(), body: body.to_owned() });
        let error = case.submit(json!({}), pipeline(Vec::new())).err().unwrap();
        assert_eq!(error.code(), "TB0769", "{body}");
    }
    let case = Case::new();
    let job = case.job();
    for body in ["[]", "{}", "{\"jobMessages\": 3}", "{\"jobMessages\": [3, null, {}]}"] {
        case.fake.answer("/messages", Reply { status: 200, headers: Vec::new(), body: body.to_owned() });
        let (events, end) = case.wait(&job);
        assert_eq!((events, end.unwrap()), (vec![JobEvent::State(JobState::Done)], JobState::Done), "{body}");
    }
}

#[test]
fn a_job_that_is_not_known_yet_is_looked_for_again() {
    let case = Case::new();
    let job = case.job();
    case.fake.answer(&format!("GET {JOBS}/{ID}"), Reply::refusal(404, "NOT_FOUND", "no such job"));
    assert_eq!(case.wait(&job).1.unwrap(), JobState::Done);
    // One that was deleted is not.
    case.fake.with(|state| state.states = ["JOB_STATE_RUNNING"].into());
    let mut looks = 0;
    let end = job.wait(|_, event| {
        if event.is_some() {
            looks += 1;
            case.fake.answer(&format!("GET {JOBS}/{ID}"), Reply::refusal(404, "NOT_FOUND", "no such job"));
        }
    });
    assert_eq!((end.unwrap_err().code(), looks), ("TB0765", 1));
}

#[test]
fn a_job_that_was_left_is_found_by_its_id() {
    let case = Case::new();
    let job = case.client(&case.options(json!({}))).job("a/b");
    job.state().unwrap();
    assert_eq!(case.fake.seen("GET")[0].path, format!("{JOBS}/a%2Fb"));
    assert_eq!(job.page(), "https://console.cloud.google.com/dataflow/jobs/europe-west4/a/b?project=p-1");
}
