//! Uploads to Cloud Storage against a fake: pieces, broken connections, lost sessions. With `TIEBEAM_FAKE_GCS` at the address
//! of somebody else's fake (`cargo xtask deploy-lint` starts one), the same against that.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

#[path = "support/clock.rs"]
mod clock;
mod support;

use std::sync::Arc;

use clock::TestClock;
use serde_json::{Value, json};
use support::{Fake, Reply, Script};
use tiebeam_core::Error;
use tiebeam_dataflow::{Dataflow, DataflowOptions, Secret, Source};
use tiebeam_model::pipeline::{
    ArtifactFilePayload, ArtifactInformation, Components, DockerPayload, Environment, PTransform, Pipeline,
};
use tiebeam_model::{Message, urns};

/// What goes up in one request.
const PIECE: usize = 8 << 20;

/// A job with one file of these bytes; jobs are made by the fake, files go to `storage`.
fn submit(fake: &Fake, storage: &str, bytes: &[u8], clock: &Arc<TestClock>) -> Result<Value, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    std::fs::write(&path, bytes).unwrap();
    let file = ArtifactFilePayload { path: path.display().to_string(), sha256: String::new() };
    let environment = Environment {
        urn: urns::environment::DOCKER.to_owned(),
        payload: DockerPayload { container_image: "i".to_owned() }.encode_to_vec().into(),
        dependencies: vec![ArtifactInformation {
            type_urn: urns::artifact::FILE.to_owned(),
            type_payload: file.encode_to_vec().into(),
            ..ArtifactInformation::default()
        }],
        ..Environment::default()
    };
    let step = PTransform { environment_id: "e".to_owned(), ..PTransform::default() };
    let components = Components {
        environments: [("e".to_owned(), environment)].into(),
        transforms: [("s".to_owned(), step)].into(),
        ..Components::default()
    };
    let options = json!({
        "project": "p", "region": "r", "temp_location": "gs://bucket/tmp",
        "dataflow_endpoint": fake.url(), "gcs_endpoint": storage,
    });
    let options = options.as_object().unwrap();
    let sources = vec![Source::Given(Secret::new("t"))];
    let client = Dataflow::with(DataflowOptions::parse(options).unwrap(), sources, clock.clone());
    let pipeline = Pipeline { components: Some(components), ..Pipeline::default() };
    client.submit("a", pipeline, options, &|_| ())?;
    Ok(fake.seen("POST /v1b3").last().unwrap().json())
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn staged(fake: &Fake) -> Vec<u8> {
    let found = fake.with(|state| {
        state.objects.iter().find(|(name, _)| name.ends_with("/weights.bin")).map(|(_, bytes)| bytes.clone())
    });
    found.unwrap()
}

#[test]
fn files_of_any_length_arrive_whole() {
    for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 3] {
        let (fake, clock) = (Fake::start(), Arc::default());
        submit(&fake, &fake.url(), &content(length), &clock).unwrap();
        assert!(staged(&fake) == content(length), "{length}");
        let pieces = fake.seen("PUT /session/0").len();
        assert_eq!(pieces, length.div_ceil(PIECE).max(1), "{length}");
    }
}

#[test]
fn an_upload_goes_on_where_a_broken_connection_left_it() {
    let (fake, clock) = (Fake::start(), Arc::new(TestClock::default()));
    let bytes = content(PIECE + 5);
    fake.script("PUT /session/0", Script::TakeAndBreak(3 << 20));
    fake.script("PUT /session/0", Script::Break);
    submit(&fake, &fake.url(), &bytes, &clock).unwrap();
    assert!(staged(&fake) == bytes);
    let ranges: Vec<String> =
        fake.seen("PUT /session/0").iter().map(|seen| seen.headers["content-range"].clone()).collect();
    let size = bytes.len();
    assert_eq!(
        ranges,
        [
            format!("bytes 0-{}/{size}", PIECE - 1),
            // How far is it? The first time there is no answer.
            format!("bytes */{size}"),
            format!("bytes */{size}"),
            format!("bytes {}-{}/{size}", 3 << 20, size - 1),
        ]
    );
}

#[test]
fn an_upload_whose_session_is_lost_begins_again() {
    let (fake, clock) = (Fake::start(), Arc::new(TestClock::default()));
    fake.answer("PUT /session/0", Reply::refusal(410, "GONE", "the session is over"));
    let bytes = content(100);
    submit(&fake, &fake.url(), &bytes, &clock).unwrap();
    assert_eq!(staged(&fake), bytes);
    assert_eq!(fake.seen("POST /upload/storage/v1/b/bucket/o").len(), 3, "twice the file, once the pipeline");
}

#[test]
fn an_upload_that_never_gets_on_is_given_up() {
    let (fake, clock) = (Fake::start(), Arc::new(TestClock::default()));
    for _ in 0..20 {
        fake.answer("PUT /session", Reply { status: 308, headers: Vec::new(), body: String::new() });
    }
    let error = submit(&fake, &fake.url(), &content(10), &clock).unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("TB0768", true));
    assert!(error.message().ends_with("/weights.bin broke off again and again"), "{error}");
    assert_eq!(fake.seen("PUT /session").len(), 5);
}

#[test]
fn a_file_that_somebody_else_staged_meanwhile_is_taken_as_it_is() {
    let (fake, clock) = (Fake::start(), Arc::new(TestClock::default()));
    fake.answer("POST /upload", Reply::refusal(412, "FAILED_PRECONDITION", "conditionNotMet"));
    submit(&fake, &fake.url(), b"x", &clock).unwrap();
    assert!(fake.seen("PUT /session/0").len() == 1, "only the pipeline goes up");
}

#[test]
fn an_object_that_is_not_what_its_name_says_is_no_file_of_the_job() {
    let (fake, clock) = (Fake::start(), Arc::new(TestClock::default()));
    fake.answer("GET /storage", Reply::json(200, json!({"name": "x", "size": "99"})));
    let error = submit(&fake, &fake.url(), b"x", &clock).unwrap_err();
    assert_eq!(error.code(), "TB0770");
    assert!(error.message().ends_with("/weights.bin is not the 1 bytes that its name says"), "{error}");
}

#[test]
fn a_bucket_that_is_not_there_and_one_that_is_closed_are_told() {
    for (status, reason, code) in [(404, "NOT_FOUND", "TB0765"), (403, "PERMISSION_DENIED", "TB0764")] {
        let (fake, clock) = (Fake::start(), Arc::new(TestClock::default()));
        fake.answer("POST /upload", Reply::refusal(status, reason, "The specified bucket does not exist."));
        let error = submit(&fake, &fake.url(), b"x", &clock).unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.message().starts_with("the upload to gs://bucket/tmp/staging/"), "{error}");
    }
}

#[test]
fn a_file_goes_to_no_address_that_could_be_anybodys() {
    for location in ["http://example.org/s", "file:///etc", "", "https://user:pw@example.org/"] {
        let (fake, clock) = (Fake::start(), Arc::new(TestClock::default()));
        fake.answer("POST /upload", Reply::json(200, json!({})).header("location", location));
        let error = submit(&fake, &fake.url(), b"x", &clock).unwrap_err();
        assert_eq!(error.code(), "TB0769", "{location}");
    }
}

#[test]
fn the_same_against_a_fake_of_other_people() {
    let Ok(storage) = std::env::var("TIEBEAM_FAKE_GCS") else { return };
    let (fake, clock) = (Fake::start(), Arc::new(TestClock::default()));
    for length in [0, 1, PIECE, 2 * PIECE + 3] {
        // Twice: the second time all of it is there.
        for _ in 0..2 {
            // The fake of the jobs looks for the pipeline in its own bucket, and refuses what is not there.
            let error = submit(&fake, &storage, &content(length), &clock).unwrap_err();
            assert!(error.message().contains("there is no pipeline at gs://bucket/tmp/staging/"), "{error}");
        }
    }
    assert!(fake.seen("upload").is_empty());
}
