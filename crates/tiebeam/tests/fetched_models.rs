//! Models under URLs, from a store and a web server in this process. What a program does with its environment is asked of
//! programs: this binary once more, for one model each.

#![cfg(feature = "object-stores")]
#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests fail by panicking, and a child says what it has seen

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tiebeam::inference::{Batching, ModelHandler, RunInference, Tensor, report};
use tiebeam::io::fs::stores::{Settings, configure};
use tiebeam::onnx::{Engine, OnnxModelHandler};
use tiebeam::prelude::*;
use tiebeam::tflite::TFModelHandler;
use tiebeam::torch::PytorchModelHandlerTensor;
use tiebeam::trees::TreesModelHandler;
use tiebeam_runner::{EmbeddedRunner, RunnerOptions};
use tiebeam_testing::{TestPipeline, assert_that};

#[path = "../../tiebeam-io/tests/support/mod.rs"]
#[allow(dead_code, missing_docs)] // of another crate's tests
mod support;
use support::{Fake, Fault};

const MODEL: &str = "TIEBEAM_TEST_MODEL";
const SHA256: &str = "TIEBEAM_TEST_SHA256";

fn fixture(name: &str) -> Vec<u8> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    std::fs::read(models.join(name)).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a program says that uses the model: `ok` and its id, or the error.
fn asked(fake: &Fake, cache: &Path, url: &str, digest: Option<&str>, hosts: &str) -> (String, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_program_with_a_model", "--nocapture"]);
    command.env(MODEL, url).env("TIEBEAM_CACHE", cache).env("TIEBEAM_HTTPS_HOSTS", hosts);
    command.env("STORAGE_EMULATOR_HOST", &fake.address);
    let address = format!("http://{}", fake.address);
    command.envs([("AWS_ENDPOINT_URL_S3", &*address), ("AWS_ALLOW_HTTP", "true"), ("AWS_REGION", "nowhere")]);
    command.envs([("AWS_ACCESS_KEY_ID", "me"), ("AWS_SECRET_ACCESS_KEY", "topsecret")]);
    command.envs([("AZURE_STORAGE_ENDPOINT", &*address), ("AZURE_ALLOW_HTTP", "true")]);
    command.envs([("AZURE_STORAGE_ACCOUNT_NAME", "me"), ("AZURE_SKIP_SIGNATURE", "true")]);
    if let Some(digest) = digest {
        command.env(SHA256, digest);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = text.lines().find_map(|line| Some(line.split_once("SAID ")?.1.to_owned()));
    (said.unwrap_or(text), String::from_utf8(output.stderr).unwrap())
}

/// The program: does nothing as a test of its own.
#[test]
fn a_program_with_a_model() {
    let Ok(url) = std::env::var(MODEL) else { return };
    tiebeam::launch::fetch_models();
    let told = |loaded: Result<String>| match loaded {
        Ok(id) => println!("SAID ok {id}"),
        Err(error) => println!("SAID {} {}", error.code(), error.message()),
    };
    fn id<H: ModelHandler>(handler: &H) -> Result<String> {
        Ok(handler.model_info(&handler.load_model()?).model_id.to_string())
    }
    let end = url.rsplit('.').next().unwrap();
    match end {
        "onnx" => {
            let mut handler = OnnxModelHandler::new(&url).with_engine(Engine::Rten);
            if let Ok(digest) = std::env::var(SHA256) {
                handler = handler.with_sha256(digest);
            }
            let loaded = id(&handler);
            if loaded.is_ok() {
                let p = Pipeline::new();
                p.apply(Create::of([Tensor::scalar(2.0f32)])).apply(RunInference::new(handler.clone()));
                assert_eq!(p.build().unwrap().files, Vec::<PathBuf>::new(), "a URL travels to nobody");
                TestPipeline::run_all_modes(move |p: &Pipeline| {
                    let url = url.clone();
                    let numbers = p.apply(Create::of([2.0f32, 3.0])).map(Tensor::scalar);
                    let predicted = numbers.apply(RunInference::new(handler.clone()));
                    let shown = predicted.map(move |result| {
                        (result.inference.to_scalar::<f32>().map(|x| x as i64), *result.model_id == *url)
                    });
                    assert_that(&shown).contains_in_any_order([(Some(10), true), (Some(15), true)]);
                });
            }
            told(loaded);
        }
        "pth" => {
            let one = [("input_dim", Value::Int64(1)), ("output_dim", Value::Int64(1))];
            let handler = PytorchModelHandlerTensor::new(&url, "LinearRegression").with_params(one);
            told(id(&handler.with_engine(Engine::Rten)));
        }
        "tflite" => {
            told(id(&TFModelHandler::new(&url).with_engine(Engine::Rten).named_inputs().named_outputs()))
        }
        _ => told(id(&TreesModelHandler::new(&url))),
    }
}

/// The program: does nothing as a test of its own.
#[test]
fn a_program_that_watches_a_store() {
    if std::env::var(MODEL).is_err() {
        return;
    }
    let fake = Arc::new(Fake::start());
    let address = format!("http://{}", fake.address);
    let options = [("google_base_url", address.as_str()), ("google_skip_signature", "true")];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    configure("gs://watched", Settings { options, ..Settings::default() }).unwrap();
    fake.put("watched/v1.onnx", fixture("five.onnx"));
    tiebeam::launch::fetch_models();
    let p = Pipeline::new();
    let handler = OnnxModelHandler::new("gs://watched/v1.onnx").with_engine(Engine::Rten);
    let run = RunInference::new(handler.with_batching(Batching::fixed(1)))
        .watch_model_pattern("gs://watched/v*.onnx", Duration::from_millis(1));
    let swaps = || report::models().into_iter().map(|line| line.swaps).sum::<u64>();
    let found =
        p.apply(Create::of(1..4i64)).map(|x| Tensor::scalar(x as f32)).apply(run).map(move |result| {
            if result.example.to_scalar() == Some(1.0f32) {
                fake.put("watched/v2.onnx", fixture("ten.onnx"));
                while swaps() == 0 {
                    std::thread::yield_now();
                }
            }
            let inferred: f32 = result.inference.to_scalar().unwrap();
            (inferred.round() as i64, result.model_id.to_string())
        });
    let by = |version: u8| format!("gs://watched/v{version}.onnx");
    assert_that(&found).contains_in_any_order([(5, by(1)), (20, by(2)), (30, by(2))]);
    EmbeddedRunner::new(RunnerOptions::default().with_threads(1)).run(&p.build().unwrap()).unwrap();
    println!("SAID ok");
}

#[test]
fn a_pattern_of_a_store_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", "a_program_that_watches_a_store", "--nocapture"]);
    let output = command.env(MODEL, "watched").env("TIEBEAM_CACHE", dir.path()).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("SAID ok"), "{text}");
}

#[test]
fn every_handler_of_files_takes_urls() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    for name in
        ["five.onnx", "five.pth", "tflite/arithmetic.tflite", "trees/xgb_binary.ubj", "trees/lgb_binary.txt"]
    {
        fake.put(&format!("models/{name}"), fixture(name));
        let stores = ["gs", "s3", "az"].map(|scheme| format!("{scheme}://models/{name}"));
        for url in stores.into_iter().chain([format!("http://{}/models/{name}", fake.address)]) {
            let (said, log) = asked(&fake, dir.path(), &url, None, &fake.address);
            assert_eq!(said, format!("ok {url}"), "{log}");
            assert!(log.contains(&format!("fetched {url}: ")), "{log}");
        }
    }
}

#[test]
fn only_hosts_that_are_named_and_only_the_file_that_was_meant() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    let five = fixture("five.onnx");
    fake.put("models/five.onnx", &five);
    let web = format!("http://{}/models/five.onnx", fake.address);
    let (said, _) = asked(&fake, dir.path(), &web, None, "");
    assert!(said.starts_with("TB0"), "{said}");
    assert_eq!(fake.log(), Vec::<String>::new(), "nobody was asked");

    let (url, own) = ("gs://models/five.onnx", sha256(&five));
    let other = sha256(b"another");
    let (said, _) = asked(&fake, dir.path(), url, Some(&other), "");
    assert_eq!(said, format!("TB0446 `{url}` has the SHA-256 {own}, wanted {other}"));
    assert_eq!(asked(&fake, dir.path(), url, Some(&own), "").0, format!("ok {url}"));
    // The store is gone, and the digest says that the right file is here.
    fake.cut_after(0);
    let (said, log) = asked(&fake, dir.path(), url, Some(&own), "");
    assert_eq!(said, format!("ok {url}"));
    assert!(!log.contains("fetched"), "{log}");
}

#[test]
fn a_fetch_that_broke_off_goes_on() {
    let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
    // Four ranges long, three without the first: `doc_string` is the sixth field of a model.
    let mut long = fixture("five.onnx");
    let (mut size, filling) = (3_900_000usize, vec![b'x'; 3_900_000]);
    long.push(0x32);
    while size > 0x7f {
        long.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    long.push(size as u8);
    long.extend(filling);
    fake.put("models/long.onnx", &long);
    fake.fail("GET", "long.onnx", 1, Fault::Nothing);
    fake.fail("GET", "long.onnx", 1, Fault::Status(403, "not today"));
    let url = "gs://models/long.onnx";
    let (said, _) = asked(&fake, dir.path(), url, None, "");
    assert!(said.starts_with(&format!("TB0405 cannot fetch `{url}`: ")), "{said}");
    let drafts = || std::fs::read_dir(dir.path().join("models/drafts")).unwrap();
    assert_eq!(
        drafts().map(|draft| draft.unwrap().metadata().unwrap().len()).collect::<Vec<_>>(),
        [512 << 10]
    );
    fake.log();
    let (said, _) = asked(&fake, dir.path(), url, None, "");
    assert_eq!(said, format!("ok {url}"));
    let ranges = fake.log().iter().filter(|request| request.starts_with("GET")).count();
    assert_eq!(ranges, 3, "the first was here");
    assert_eq!(drafts().count(), 0);
}
