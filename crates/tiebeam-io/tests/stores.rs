//! Pipelines on object stores, against a store in this process that fails as it is told to.

#![cfg(feature = "object-stores")]
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test fails by panicking, and a child says what it has seen

#[allow(dead_code)] // the facade's tests have more kinds of faults
mod support;

use std::io::{Read, Write};
use std::time::Duration;

use support::{Fake, Fault};
use tiebeam_core::{ErrorKind, RunId};
use tiebeam_graph::{Create, Pipeline};
use tiebeam_io::fs;
use tiebeam_io::fs::stores::{Cache, Settings, configure, google_token};
use tiebeam_io::{Splitting, text};
use tiebeam_testing::{Mode, TestPipeline, assert_that};

fn settings(fake: &Fake) -> Settings {
    let url = format!("http://{}", fake.address);
    let options = [
        ("google_base_url", url.as_str()),
        ("google_skip_signature", "true"),
        ("aws_endpoint", &url),
        ("aws_allow_http", "true"),
        ("aws_region", "nowhere"),
        ("aws_access_key_id", "me"),
        ("aws_secret_access_key", "topsecret"),
        ("azure_storage_endpoint", &url),
        ("azure_storage_account_name", "me"),
        ("azure_skip_signature", "true"),
        ("azure_allow_http", "true"),
    ];
    Settings {
        options: options.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        https_hosts: [fake.address.clone()].into(),
        retries: 4,
        first_pause: Duration::from_millis(1),
        ..Settings::default()
    }
}

/// A store of its own for a test, under all schemes: buckets are the process's.
fn store(name: &str) -> (Fake, [String; 3]) {
    let fake = Fake::start();
    let roots = ["gs", "s3", "az"].map(|scheme| format!("{scheme}://{name}"));
    for root in &roots {
        configure(root, settings(&fake)).unwrap();
    }
    (fake, roots)
}

fn listed(pattern: &str) -> Vec<String> {
    fs::list(pattern, true).unwrap().into_iter().map(|file| file.path).collect()
}

fn whole(path: &str, start: u64) -> std::io::Result<Vec<u8>> {
    let (fs, path) = fs::of_path(path).unwrap();
    let mut bytes = Vec::new();
    fs.open(&path, start)?.read_to_end(&mut bytes).map(|_| bytes)
}

#[test]
fn patterns_find_objects_as_they_find_files() {
    let (fake, roots) = store("globs");
    for key in [
        "a.csv",
        "b.csv",
        "b.csv.gz",
        "x/a.csv",
        "x/y/a.csv",
        "x/y/z/b.csv",
        "odd[1].csv",
        ".tiebeam-o-1/s.csv",
        "é f.csv",
    ] {
        fake.put(&format!("globs/{key}"), "12345");
    }
    for page in [1000, 2] {
        fake.page(page);
        for root in &roots {
            let of = |pattern: &str| -> Vec<String> {
                let found = listed(&format!("{root}/{pattern}"));
                found.iter().map(|path| path.strip_prefix(&format!("{root}/")).unwrap().to_owned()).collect()
            };
            assert_eq!(of("*.csv"), ["a.csv", "b.csv", "odd[1].csv", "é f.csv"]);
            assert_eq!(of("*/a.csv"), ["x/a.csv"]);
            assert_eq!(of("**/a.csv"), ["a.csv", "x/a.csv", "x/y/a.csv"]);
            assert_eq!(of("x/**"), ["x/a.csv", "x/y/a.csv", "x/y/z/b.csv"]);
            assert_eq!(of("x/*/z/[ab].csv"), ["x/y/z/b.csv"]);
            assert_eq!(of("odd[1].csv"), ["odd[1].csv"]);
            assert_eq!(of(".tieb*/*"), Vec::<String>::new());
            assert_eq!(of("no/such/*"), Vec::<String>::new());
            assert_eq!(of("a.csv"), ["a.csv"]);
        }
    }
    let found = &fs::list("gs://globs/a.csv", false).unwrap()[0];
    assert_eq!((found.size, found.modified.micros()), (5, 1_893_456_000_000_000));
    let error = fs::list("gs://globs/x/y", false).unwrap_err();
    assert_eq!(
        error.message(),
        "cannot list `gs://globs/x/y`: it is a directory, not a file; `/*` behind it matches the files in it"
    );
    assert_eq!(
        fs::list("gs://globs/none*", false).unwrap_err().message(),
        "no file matches `gs://globs/none*`"
    );
}

#[test]
fn what_fails_for_a_while_is_read_all_the_same() {
    let (fake, roots) = store("reads");
    let bytes: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    fake.put("reads/big", &bytes);
    for root in &roots {
        let path = format!("{root}/big");
        fake.fail("HEAD", "big", 1, Fault::Status(503, "later"));
        for fault in
            [Fault::Status(429, "slow down"), Fault::Status(500, "oops"), Fault::Reset, Fault::Truncated]
        {
            fake.fail("GET", "big", 1, fault);
        }
        assert!(whole(&path, 0).unwrap() == bytes);
        assert!(whole(&path, 11_999_990).unwrap() == bytes[11_999_990..]);
        assert_eq!(whole(&path, 12_000_000).unwrap(), b"");
    }
    fake.put("reads/empty", "");
    assert_eq!(whole("gs://reads/empty", 0).unwrap(), b"");
}

#[test]
fn what_does_not_get_better_is_told_in_the_stores_words_without_secrets() {
    let (fake, roots) = store("refusals");
    fake.put("refusals/x", "text");
    for root in &roots {
        let path = format!("{root}/x");
        fake.fail("HEAD", "refusals/x", 1, Fault::Status(403, ""));
        assert_eq!(whole(&path, 0).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
        fake.fail("GET", "refusals/x", 1, Fault::Status(403, "no right for topsecret\n to\tread"));
        let error = whole(&path, 0).unwrap_err();
        assert_eq!(error.to_string(), "HTTP 403 Forbidden: no right for … to read");
        fake.log();
        fake.fail("GET", "refusals/x", 5, Fault::Status(500, "broken"));
        assert_eq!(whole(&path, 0).unwrap_err().to_string(), "HTTP 500 Internal Server Error: broken");
        assert_eq!(fake.log().len(), 6, "one look and five tries");
    }
    let error = fs::list("gs://refusals/none", false).unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::NotFound, "no file matches `gs://refusals/none`")
    );
}

#[test]
fn an_object_that_is_replaced_while_it_is_read_is_never_mixed() {
    let (fake, roots) = store("changes");
    for root in &roots {
        fake.put("changes/x", vec![1; 2 << 20]);
        let (fs, path) = fs::of_path(&format!("{root}/x")).unwrap();
        let mut reader = fs.open(&path, 0).unwrap();
        reader.read_exact(&mut [0; 10]).unwrap();
        fake.put("changes/x", vec![2; 2 << 20]);
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "the object was replaced while it was read");
    }
}

#[test]
fn pipelines_read_and_write_in_all_modes() {
    let (fake, roots) = store("pipes");
    let wanted: Vec<String> = (0..500).map(|i| format!("line {i}{}", "é".repeat(i % 5))).collect();
    fake.put("pipes/in/a.txt", wanted[..300].join("\r\n"));
    fake.put("pipes/in/b.txt", wanted[300..].join("\n") + "\n");
    const SMALL: Splitting = Splitting { max_bytes: 512, min_bytes: 8, parts: Some(16) };
    for root in &roots {
        TestPipeline::run_all_modes(|p: &Pipeline| {
            let lines = p.apply(text::read(format!("{root}/in/*.txt")).with_splitting(SMALL));
            assert_that(&lines).contains_in_any_order(wanted.clone());
        });
        for mode in Mode::all() {
            fake.put("pipes/out/part-00007-of-00009.txt", "old");
            for fault in [Fault::Status(429, ""), Fault::Status(500, ""), Fault::Reset] {
                fake.fail("PUT", "pipes/out/.tiebeam-part.txt-", 1, fault);
            }
            // S3 is asked to remove several at once.
            let removal = if root.starts_with("gs") { ("DELETE", "pipes/out/") } else { ("POST", "delete") };
            fake.fail(removal.0, removal.1, 2, Fault::DoneButReset);
            TestPipeline::run(mode, |p: &Pipeline| {
                let lines = p.apply(Create::of(wanted.clone()));
                let files = lines
                    .apply(text::write(&format!("{root}/out/part")).with_suffix(".txt").with_num_shards(3));
                let names = (0..3).map(|i| format!("{root}/out/part-0000{i}-of-00003.txt"));
                assert_that(&files).contains_in_any_order(names);
            })
            .unwrap();
            let out: Vec<String> =
                fake.keys().into_iter().filter(|key| key.starts_with("pipes/out/")).collect();
            let names = (0..3).map(|i| format!("pipes/out/part-0000{i}-of-00003.txt"));
            assert_eq!(out, names.clone().collect::<Vec<_>>(), "the old file and all of ours are gone");
            let mut lines: Vec<String> = names
                .flat_map(|n| {
                    String::from_utf8(fake.get(&n).unwrap())
                        .unwrap()
                        .lines()
                        .map(str::to_owned)
                        .collect::<Vec<_>>()
                })
                .collect();
            lines.sort();
            let mut sorted = wanted.clone();
            sorted.sort();
            assert_eq!(lines, sorted);
            fake.forgive();
        }
    }
}

#[test]
fn a_failed_job_leaves_the_old_output_alone() {
    let (fake, roots) = store("fails");
    for root in &roots {
        fake.put("fails/part-00000-of-00001", "old\n");
        for mode in Mode::all() {
            let failed = TestPipeline::run(mode, |p: &Pipeline| {
                let lines = p.apply(Create::of(["1", "2", "x"].map(str::to_owned)));
                let checked = lines.map(|line: String| {
                    assert!(line != "x", "not this one");
                    line
                });
                checked.apply(text::write(&format!("{root}/part")));
            });
            assert!(failed.is_err());
            assert_eq!(fake.keys(), ["fails/part-00000-of-00001"]);
        }
    }
    let error = TestPipeline::run(Mode::all()[0], |p: &Pipeline| {
        fake.fail("PUT", "probe", 1, Fault::Status(403, "read only"));
        p.apply(Create::of(["1".to_owned()])).apply(text::write("gs://fails/part"));
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Output);
    assert_eq!(error.message(), "cannot write to directory `gs://fails`: HTTP 403 Forbidden: read only");
}

#[test]
fn large_files_are_written_in_parts_and_given_up_without_a_trace() {
    let (fake, roots) = store("parts");
    let bytes: Vec<u8> = (0..5_000_000u32).flat_map(u32::to_le_bytes).collect();
    for root in &roots {
        let (fs, path) = fs::of_path(&format!("{root}/big")).unwrap();
        let mut file = fs.create(&path).unwrap();
        fake.fail("PUT", "partNumber", 2, Fault::Status(500, ""));
        file.write_all(&bytes).unwrap();
        assert_eq!(fake.get("parts/big"), None, "nobody sees it before its end");
        file.finish().unwrap();
        assert!(fake.get("parts/big").unwrap() == bytes);
        fs.rename(&path, &format!("{root}/other")).unwrap();
        assert_eq!(fake.keys(), ["parts/other"]);
        fs.delete(&format!("{root}/other")).unwrap();
        fs.delete(&format!("{root}/other")).unwrap();
        let mut file = fs.create(&path).unwrap();
        file.write_all(&bytes).unwrap();
        drop(file);
        assert_eq!((fake.keys().len(), fake.open_uploads()), (0, 0));
    }
}

#[test]
fn a_claim_has_one_holder_until_it_lapses_by_the_stores_clock() {
    let (fake, roots) = store("claims");
    for root in &roots {
        let (fs, path) = fs::of_path(&format!("{root}/.tiebeam-x.lock")).unwrap();
        let held = fs.try_lock(&path, "one").unwrap().unwrap();
        assert_eq!(fake.get("claims/.tiebeam-x.lock").unwrap(), b"one");
        assert!(fs.try_lock(&path, "two").unwrap().is_none());
        held.remove().unwrap();
        assert_eq!(fake.keys().len(), 0);

        // A process that died says nothing more.
        fake.put("claims/.tiebeam-x.lock", "dead");
        fake.later(59);
        assert!(fs.try_lock(&path, "two").unwrap().is_none());
        fake.later(1);
        if root.starts_with("gs") {
            fake.fail("DELETE", "clock", 1, Fault::DoneButReset);
        }
        let held = fs.try_lock(&path, "two").unwrap().unwrap();
        assert_eq!(fake.get("claims/.tiebeam-x.lock").unwrap(), b"two");
        // Somebody took it from a holder that was silent for too long: the holder leaves it alone.
        fake.put("claims/.tiebeam-x.lock", "three");
        drop(held);
        assert_eq!(fake.keys(), ["claims/.tiebeam-x.lock"], "probes are gone, the other's claim is not");
        fs.delete(&path).unwrap();
    }
}

#[test]
fn a_commit_that_was_killed_anywhere_is_finished_or_cleared_by_the_next_run() {
    use tiebeam_io::sink::{Target, job::Place};
    let (fake, _) = store("kills");
    let target = Target::new("gs://kills/out/part").unwrap().checked().unwrap();
    let (fs, _) = fs::of_path("gs://kills/out/part").unwrap();
    let place = Place::new(fs.clone(), target);
    let old = ["kills/out/part-00000-of-00001"];
    let new = ["kills/out/part-00000-of-00002", "kills/out/part-00001-of-00002"];
    let (mut finished, mut cleared) = (0, 0);
    for steps in 0.. {
        for key in fake.keys() {
            fs.delete(&format!("gs://{key}")).unwrap();
        }
        fake.put(old[0], "old");
        let id = RunId::new();
        let lock = place.begin(id).unwrap();
        let mut pieces = Vec::new();
        for name in ["a", "b"] {
            let mut file = place.create(id, &place.temp_path(id, name)).unwrap();
            file.write_all(&vec![name.as_bytes()[0]; 2 << 20]).unwrap();
            file.finish().unwrap();
            let bytes = 2 << 20;
            pieces.push(tiebeam_io::sink::job::Piece {
                name: name.into(),
                shard: 0,
                records: 1,
                bytes,
                header: vec![],
            });
        }
        // From here on only so many requests get through, and then the process is no more.
        fake.cut_after(steps);
        let committed = place.commit(id, &pieces, b"");
        fake.cut_after(usize::MAX);
        drop(lock);
        if committed.is_ok() {
            assert_eq!(fake.keys(), new);
            break;
        }
        let next = RunId::new();
        let lock = place.begin(next).unwrap().unwrap();
        place.abandon(next).unwrap();
        lock.remove().unwrap();
        let keys = fake.keys();
        if keys == new {
            finished += 1;
        } else {
            assert_eq!(keys, old, "after {steps} requests");
            cleared += 1;
        }
    }
    assert!(finished > 3 && cleared > 3, "{finished} {cleared}");
}

#[test]
fn files_of_web_servers_come_from_hosts_that_were_named() {
    let (fake, _) = store("web");
    let root = format!("http://{}", fake.address);
    configure(&root, settings(&fake)).unwrap();
    fake.put("d/é f.txt", "one\ntwo");
    TestPipeline::run_all_modes(|p: &Pipeline| {
        let lines = p.apply(text::read(format!("{root}/d/%C3%A9%20f.txt")));
        assert_that(&lines).contains_in_any_order(["one".to_owned(), "two".to_owned()]);
    });
    let told = |path: &str| fs::list(path, false).unwrap_err().message().to_owned();
    assert_eq!(
        told(&format!("{root}/d/*")),
        format!("cannot list `{root}/d/*`: web servers have no listings, so it cannot have wildcards")
    );
    assert_eq!(told("https://example.invalid/x"), "files of https://example.invalid are not allowed");
    assert_eq!(told("http://example.invalid/x"), "files of http://example.invalid are not allowed");
    assert_eq!(told("https://me:pw@host/x?sig=1"), "`https://host/x` has a name or password in it");
    assert_eq!(told("https://host/x?sig=1"), "`https://host/x` has a query or fragment");
    assert_eq!(told("gs:///x"), "`gs:///x` names no bucket");
    assert_eq!(told("gs://buck*t/x"), "`gs://buck*t/x` names no bucket");

    fake.put("away", "there");
    fake.redirect("here", "/away");
    assert_eq!(whole(&format!("{root}/here"), 0).unwrap(), b"there");
    fake.redirect("out", "https://user:pw@evil.invalid/x");
    assert_eq!(
        whole(&format!("{root}/out"), 0).unwrap_err().to_string(),
        "a redirect to https://evil.invalid, which is not allowed"
    );
    fake.redirect("round", "/round");
    assert_eq!(whole(&format!("{root}/round"), 0).unwrap_err().to_string(), "more than 5 redirects");
    let error = fs::of_path(&root).unwrap().0.create(&format!("{root}/new")).err().unwrap();
    assert_eq!(error.to_string(), format!("{root} is a web server, which can only be read"));
    fake.without_ranges();
    let bytes = vec![7; 3 << 20];
    fake.put("big", &bytes);
    assert!(whole(&format!("{root}/big"), 0).unwrap() == bytes);
    assert!(whole(&format!("{root}/big"), 5).unwrap() == bytes[5..]);
}

#[test]
fn models_are_fetched_once_and_go_on_where_they_broke_off() {
    let (fake, roots) = store("models");
    let bytes: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = "b0b8ff8c4ef5c3b2a4dd9e4ae2ff5ef8cbf34cbb3df3c4d9f5d4b5ff7ef00000";
    for root in &roots {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let url = format!("{root}/m/five.onnx");
        fake.put("models/m/five.onnx", &bytes);
        // Two pieces come, then the store is ill for good.
        fake.cut_after(3);
        let error = cache.fetch(&url, None).unwrap_err();
        assert!(error.message().starts_with(&format!("cannot fetch `{url}`: ")), "{error}");
        fake.cut_after(usize::MAX);
        fake.log();
        let path = cache.fetch(&url, None).unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
        assert!(path.ends_with("five.onnx"));
        assert_eq!(
            fake.log().len(),
            5,
            "two looks, and three ranges of what was missing: four would be the whole"
        );
        let own = path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(cache.fetch(&url, None).unwrap(), path);
        assert_eq!(fake.log(), ["HEAD models/m/five.onnx"], "only asked whether it changed");
        assert_eq!(cache.fetch(&url, Some(&own.to_uppercase())).unwrap(), path);
        assert_eq!(fake.log().len(), 0, "a digest says it all");
        let error = cache.fetch(&url, Some(digest)).unwrap_err();
        assert_eq!(error.message(), format!("`{url}` has the SHA-256 {own}, wanted {digest}"));
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(
            cache.fetch(&url, Some("12")).unwrap_err().message(),
            "`12` is no SHA-256: wanted 64 hex digits"
        );
        fake.put("models/m/five.onnx", "another");
        let other = cache.fetch(&url, None).unwrap();
        assert_ne!(other, path);
        assert_eq!(std::fs::read(other).unwrap(), b"another");
        assert_eq!(std::fs::read_dir(dir.path().join("drafts")).unwrap().count(), 0);
        let missing = cache.fetch(&format!("{root}/none"), None).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}

#[test]
fn settings_come_from_variables_and_keep_secrets() {
    let of = |pairs: &[(&str, &str)]| {
        Settings::of_variables(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())))
    };
    let settings = of(&[
        ("TIEBEAM_HTTPS_HOSTS", " Example.org, *.cdn.net,,"),
        ("STORAGE_EMULATOR_HOST", "127.0.0.1:9"),
        ("TIEBEAM_GCP_TOKEN", "ya29.x\n"),
        ("AWS_REGION", "eu-1"),
        ("AWS_EMPTY", " "),
        ("PATH", "/bin"),
    ]);
    assert_eq!(&*settings.https_hosts, ["example.org", "*.cdn.net"]);
    let pairs: Vec<(&str, &str)> = settings.options.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(
        pairs,
        [
            ("google_base_url", "http://127.0.0.1:9"),
            ("google_skip_signature", "true"),
            ("google_bearer_token", "ya29.x"),
            ("aws_region", "eu-1"),
        ]
    );
    assert!(!format!("{settings:?}").contains("ya29"));
}

/// The program of the next test: does nothing as a test of its own.
#[test]
fn a_program_that_wants_a_token() {
    if std::env::var_os("TIEBEAM_TEST_TOKEN").is_some() {
        let said = |token: tiebeam_core::Result<String>| match token {
            Ok(token) => format!("token {token}"),
            Err(error) => format!("{} {}", error.code(), error.message()),
        };
        println!("SAID {} and {}", said(google_token()), said(google_token()));
    }
}

#[test]
fn tokens_come_from_where_the_environment_says() {
    let fake = Fake::start();
    let path = "computeMetadata/v1/instance/service-accounts/default/token";
    fake.put(path, r#"{"access_token": "ya29.here", "expires_in": 3000, "token_type": "Bearer"}"#);
    let asked = |variables: &[(&str, &str)]| {
        let home = tempfile::tempdir().unwrap();
        let mut program = std::process::Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", "a_program_that_wants_a_token", "--nocapture"]);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["GOOGLE_", "TIEBEAM_", "GCE_"].iter().any(|prefix| name.starts_with(prefix)) {
                program.env_remove(&*name);
            }
        }
        program.env("TIEBEAM_TEST_TOKEN", "1").env("HOME", home.path());
        let output = program.envs(variables.iter().copied()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|line| Some(line.split_once("SAID ")?.1.to_owned())).unwrap_or(text)
    };
    let here = ("GCE_METADATA_HOST", &*fake.address);
    assert_eq!(asked(&[here]), "token ya29.here and token ya29.here");
    assert_eq!(fake.log().len(), 1, "it is remembered: {:?}", fake.log());
    // A fake of Cloud Storage wants no token, but this is not for it.
    assert_eq!(
        asked(&[here, ("STORAGE_EMULATOR_HOST", "127.0.0.1:1")]),
        "token ya29.here and token ya29.here"
    );
    assert_eq!(asked(&[here, ("TIEBEAM_GCP_TOKEN", " given ")]), "token given and token given");
    let said = asked(&[here, ("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")]);
    let told = "TB0462 no access token of Google Cloud by the key file /nowhere/key.json: No such file";
    assert!(said.starts_with(told), "{said}");
    let nobody = ("GCE_METADATA_HOST", "127.0.0.1:1");
    let said = asked(&[nobody, ("GCE_METADATA_IP", "127.0.0.1:1")]);
    assert!(said.starts_with("TB0462 "), "{said}");
}
