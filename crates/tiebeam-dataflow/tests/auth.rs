//! Credentials: their sources in their order, tokens that end, keys that are refused; and that no secret is told.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

#[path = "support/clock.rs"]
mod clock;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clock::TestClock;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use support::{Fake, Reply, plain};
use tiebeam_core::Error;
use tiebeam_dataflow::{Clock, Dataflow, DataflowJob, DataflowOptions, Secret, Source};

/// A key that was made for this test and opens nothing.
const KEY: &str = include_str!("data/test_only_key.pem");

fn job(fake: &Fake, sources: Vec<Source>, clock: &Arc<TestClock>) -> DataflowJob {
    let options = json!({
        "project": "p", "region": "r", "temp_location": "gs://bucket",
        "dataflow_endpoint": fake.url(), "gcs_endpoint": fake.url(),
    });
    let options = DataflowOptions::parse(options.as_object().unwrap()).unwrap();
    Dataflow::with(options, sources, clock.clone()).job("j")
}

/// The token with which the last look at a job was made.
fn shown(fake: &Fake) -> String {
    fake.seen("GET /v1b3").last().unwrap().headers["authorization"].clone()
}

fn write(folder: &Path, content: &Value) -> Vec<Source> {
    let path = folder.join("key.json");
    std::fs::write(&path, content.to_string()).unwrap();
    vec![Source::File(path)]
}

fn service_account(fake: &Fake) -> Value {
    json!({
        "type": "service_account", "client_email": "me@p.example", "private_key": KEY, "private_key_id": "k1",
        "token_uri": format!("{}/token", fake.url()),
    })
}

fn token(text: &str, lasts: u64) -> Reply {
    Reply::json(200, json!({"access_token": text, "expires_in": lasts, "token_type": "Bearer"}))
}

fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8(body.to_vec()).unwrap();
    text.split('&')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (plain(name), plain(value)))
        .collect()
}

#[test]
fn what_is_named_is_the_only_source() {
    let of = |token: Option<&str>, variables: &[(&str, &str)]| {
        let token = token.map(Secret::new);
        let sources = Source::of_environment(token.as_ref(), |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        });
        format!("{sources:?}")
    };
    let all = [
        ("TIEBEAM_GCP_TOKEN", "t"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/k.json"),
        ("GCE_METADATA_HOST", "h:1"),
    ];
    assert_eq!(of(Some("x"), &all), "[Given(Secret(…))]");
    assert_eq!(of(None, &all), "[Given(Secret(…))]");
    assert_eq!(of(None, &all[1..]), "[File(\"/k.json\")]");
    let last = "Program(\"gcloud\", [\"auth\", \"print-access-token\"])";
    assert_eq!(of(None, &all[2..]), format!("[Metadata(\"h:1\"), {last}]"));
    let empty = [("TIEBEAM_GCP_TOKEN", " "), ("GOOGLE_APPLICATION_CREDENTIALS", "")];
    assert_eq!(of(None, &empty), format!("[Metadata(\"metadata.google.internal\"), {last}]"));
}

#[test]
fn a_service_account_signs_for_itself_and_renews_in_time() {
    let (fake, clock, folder) = (Fake::start(), Arc::new(TestClock::default()), tempfile::tempdir().unwrap());
    let job = job(&fake, write(folder.path(), &service_account(&fake)), &clock);
    fake.answer("POST /token", token("one", 3600));
    job.state().unwrap();
    job.state().unwrap();
    assert_eq!(shown(&fake), "Bearer one");
    let asked = fake.seen("POST /token");
    assert_eq!(asked.len(), 1, "a token is kept");
    let form = form(&asked[0].body);
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let (signed, signature) = form["assertion"].rsplit_once('.').unwrap();
    let (head, claims) = signed.split_once('.').unwrap();
    let part =
        |text: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap() };
    assert_eq!(part(head), json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
    assert_eq!(
        part(claims),
        json!({
            "iss": "me@p.example",
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "aud": format!("{}/token", fake.url()),
            "iat": 1_795_000_000, "exp": 1_795_003_600,
        })
    );
    let der = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key())
        .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
        .unwrap();

    // Two minutes before its end it is too old.
    clock.sleep(Duration::from_secs(3600 - 121));
    job.state().unwrap();
    assert_eq!(shown(&fake), "Bearer one");
    clock.sleep(Duration::from_secs(2));
    fake.answer("POST /token", token("two", 3600));
    job.state().unwrap();
    assert_eq!(shown(&fake), "Bearer two");
}

#[test]
fn a_token_that_is_refused_is_renewed_once() {
    let (fake, clock, folder) = (Fake::start(), Arc::new(TestClock::default()), tempfile::tempdir().unwrap());
    let user = json!({
        "type": "authorized_user", "client_id": "i", "client_secret": "s+/=", "refresh_token": "1//r",
        "token_uri": format!("{}/token", fake.url()),
    });
    let job = job(&fake, write(folder.path(), &user), &clock);
    fake.with(|state| state.token = "two".to_owned());
    fake.answer("POST /token", token("one", 3600));
    fake.answer("POST /token", token("two", 3600));
    job.state().unwrap();
    let form = form(&fake.seen("POST /token")[0].body);
    let told: Vec<(&str, &str)> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        told,
        [
            ("client_id", "i"),
            ("client_secret", "s+/="),
            ("grant_type", "refresh_token"),
            ("refresh_token", "1//r")
        ]
    );
    fake.with(|state| state.token = "three".to_owned());
    fake.answer("POST /token", token("four", 3600));
    assert_eq!(job.state().unwrap_err().code(), "TB0763");
    assert_eq!(fake.seen("POST /token").len(), 3);
}

#[test]
fn a_given_token_is_not_renewed() {
    let (fake, clock) = (Fake::start(), Arc::new(TestClock::default()));
    fake.with(|state| state.token = "other".to_owned());
    let job = job(&fake, vec![Source::Given(Secret::new("t0ken"))], &clock);
    assert_eq!(job.state().unwrap_err().code(), "TB0763");
    assert_eq!(fake.seen("GET").len(), 1);
}

#[test]
fn the_metadata_server_is_known_by_its_flavour() {
    let (fake, clock) = (Fake::start(), Arc::new(TestClock::default()));
    let path = "GET /computeMetadata/v1/instance/service-accounts/default/token";
    fake.answer(path, token("of-the-machine", 600).header("metadata-flavor", "Google"));
    let sources = vec![Source::Metadata(fake.host())];
    job(&fake, sources.clone(), &clock).state().unwrap();
    assert_eq!(shown(&fake), "Bearer of-the-machine");
    assert_eq!(fake.seen(path)[0].headers["metadata-flavor"], "Google");
    // A network that answers for every name.
    fake.answer(path, token("of-a-hotel", 600));
    let error = job(&fake, sources, &clock).state().unwrap_err();
    assert_eq!(error.code(), "TB0761");
    assert_eq!(
        error.message(),
        format!("no Google Cloud credentials were found: no metadata server at {}", fake.host())
    );
}

/// A program that does this.
#[cfg(unix)]
fn program(script: &str) -> Vec<Source> {
    vec![Source::Program("/bin/sh".into(), vec!["-c".to_owned(), script.to_owned()])]
}

#[test]
#[cfg(unix)]
fn a_program_prints_a_token() {
    let (fake, clock) = (Fake::start(), Arc::new(TestClock::default()));
    job(&fake, program("echo ya29.x"), &clock).state().unwrap();
    assert_eq!(shown(&fake), "Bearer ya29.x");
    for (script, told) in [
        ("echo; echo 'ERROR: no account' >&2; exit 1", "failed: ERROR: no account"),
        ("echo two words", "is no token"),
        ("true", "is no token"),
    ] {
        let error = job(&fake, program(script), &clock).state().unwrap_err();
        assert_eq!(error.code(), "TB0761");
        assert!(error.message().ends_with(told), "{error}");
    }
    let missing = vec![Source::Program("/no/gcloud".into(), Vec::new())];
    let error: Error = job(&fake, missing, &clock).state().unwrap_err();
    assert!(error.message().ends_with("`/no/gcloud` is not installed"), "{error}");
}

#[test]
fn bad_key_files_are_told_without_what_stands_in_them() {
    let (fake, clock, folder) = (Fake::start(), Arc::new(TestClock::default()), tempfile::tempdir().unwrap());
    let with = |field: &str, value: Value| {
        let mut key = service_account(&fake);
        key[field] = value;
        key
    };
    for (key, code, told) in [
        (json!([]), "TB0762", "lacks `type`"),
        (json!("5ecret"), "TB0762", "lacks `type`"),
        (with("type", json!("external_account")), "TB0762", "is of type `external_account`"),
        (with("client_email", json!(null)), "TB0762", "lacks `client_email`"),
        (with("private_key", json!("5ecret")), "TB0762", "the private key of me@p.example cannot be used"),
        (
            with("private_key", json!("-----BEGIN PRIVATE KEY-----\nNWVjcmV0\n-----END PRIVATE KEY-----\n")),
            "TB0762",
            "the private key of me@p.example cannot be used",
        ),
        (with("token_uri", json!("http://example.org/token")), "TB0771", "in the clear"),
    ] {
        let error = job(&fake, write(folder.path(), &key), &clock).state().unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().ends_with(told), "{error}");
        assert!(!format!("{error:?}").contains("5ecret"), "{error:?}");
        assert!(!format!("{error:?}").contains("PRIVATE KEY"), "{error:?}");
    }
    std::fs::write(folder.path().join("key.json"), "{\"private_key\": 5ecret").unwrap();
    let error = job(&fake, vec![Source::File(folder.path().join("key.json"))], &clock).state().unwrap_err();
    assert!(error.message().ends_with("key.json is not JSON") && !format!("{error:?}").contains("5ecret"));
    let error = job(&fake, vec![Source::File(folder.path().join("none.json"))], &clock).state().unwrap_err();
    assert!(error.message().ends_with("none.json cannot be read"), "{error}");
    assert!(fake.with(|state| state.seen.is_empty()), "nobody was asked");
}

#[test]
fn a_refused_key_is_told_in_the_services_words() {
    let (fake, clock, folder) = (Fake::start(), Arc::new(TestClock::default()), tempfile::tempdir().unwrap());
    let refusal = json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."});
    fake.answer("POST /token", Reply::json(400, refusal));
    let error = job(&fake, write(folder.path(), &service_account(&fake)), &clock).state().unwrap_err();
    assert_eq!(error.code(), "TB0762");
    assert!(error.message().ends_with("gave no token: HTTP 400: Invalid JWT Signature."), "{error}");
    for body in [json!({}), json!({"access_token": ""}), json!({"access_token": "a\nb: c"})] {
        fake.answer("POST /token", Reply::json(200, body));
        let error = job(&fake, write(folder.path(), &service_account(&fake)), &clock).state().unwrap_err();
        assert_eq!(error.code(), "TB0762");
    }
}
