//! Sources and sinks in whole pipelines, in all three modes: fused, paranoid (every bundle twice, cut anywhere), and through
//! the Fn API worker.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tiebeam_core::{ErrorKind, FieldType, Row, Schema, TypeKind, Value};
use tiebeam_graph::{Create, Pipeline};
use tiebeam_io::{Splitting, csv, files, images, json, text};
use tiebeam_testing::{Mode, TestPipeline, assert_that};

/// What is in a directory, by name.
fn files_in(dir: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return BTreeMap::new() };
    let entries = entries.map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

fn lines_of(files: &BTreeMap<String, String>) -> Vec<String> {
    let mut lines: Vec<String> = files.values().flat_map(|text| text.lines()).map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Small parts, so that small files are cut too.
const SMALL: Splitting = Splitting { max_bytes: 64, min_bytes: 8, parts: Some(16) };

#[test]
fn lines_come_back_whatever_the_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let wanted: Vec<String> = (0..500).map(|i| format!("line {i}{}", "é".repeat(i % 5))).collect();
    std::fs::write(dir.path().join("a.txt"), wanted[..300].join("\r\n")).unwrap();
    std::fs::write(dir.path().join("b.txt"), wanted[300..].join("\n") + "\n").unwrap();
    std::fs::write(dir.path().join("empty.txt"), "").unwrap();
    let pattern = format!("{}/*.txt", dir.path().display());
    TestPipeline::run_all_modes(|p: &Pipeline| {
        let lines = p.apply(text::read(&*pattern).with_splitting(SMALL));
        assert_that(&lines).contains_in_any_order(wanted.clone());
        let patterns =
            p.step("Patterns").apply(Create::of([pattern.replace('*', "a"), pattern.replace('*', "b")]));
        let all = patterns.apply(
            text::read_all().map_listing(|listing| tiebeam_io::read::Listing { splitting: SMALL, ..listing }),
        );
        assert_that(&all).contains_in_any_order(wanted.clone());
    });
}

#[test]
fn what_is_missing_ends_the_job_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let pattern = format!("{}/*.txt", dir.path().display());
    for error in TestPipeline::fails_in_all_modes(|p: &Pipeline| {
        p.apply(text::read(&*pattern));
    }) {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.message(), format!("no file matches `{pattern}`"));
        assert_eq!(error.step(), Some("ReadFromText/List"));
    }
    TestPipeline::run_all_modes(|p: &Pipeline| {
        let lines = p.apply(text::read(&*pattern).allow_empty());
        assert_that(&lines).is_empty();
    });
}

#[test]
fn bad_lines_are_dead_letters_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.txt");
    std::fs::write(&path, b"good\nb\xffd\nfine\n").unwrap();
    let path = path.to_str().unwrap().to_owned();
    TestPipeline::run_all_modes(|p: &Pipeline| {
        let read = p.apply(text::read(&*path).with_error_handling());
        assert_that(&read.records).contains_in_any_order(["good".to_owned(), "fine".to_owned()]);
        let wanted = path.clone();
        assert_that(&read.failed).satisfies(move |failed| {
            let [one] = failed else { return Err(format!("{} dead letters", failed.len())) };
            let source = one.failure.source.clone().ok_or("no source")?;
            let is_right = one.element == b"b\xffd\n"[..]
                && one.failure.code == "TB0406"
                && one.failure.stage == "ReadFromText/Read"
                && (source.file.as_str(), source.line, source.offset) == (&*wanted, Some(2), Some(5));
            if is_right { Ok(()) } else { Err(format!("{one:?}")) }
        });
    });
    let errors = TestPipeline::fails_in_all_modes(|p: &Pipeline| {
        p.apply(text::read(&*path));
    });
    assert!(errors.iter().all(|error| error.code() == "TB0406" && error.place().is_some()), "{errors:?}");
}

#[test]
fn files_appear_whole_and_replace_the_older_ones() {
    for mode in Mode::all() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("deep/er/out");
        let path = out.to_str().unwrap().to_owned();
        std::fs::create_dir_all(out.parent().unwrap()).unwrap();
        for old in ["out-00000-of-00002.txt", "out-00007-of-00008.txt", "other-00000-of-00002.txt"] {
            std::fs::write(out.with_file_name(old), "old\n").unwrap();
        }
        let report = TestPipeline::run(mode, |p: &Pipeline| {
            let written = p
                .apply(Create::of(0..1000i64))
                .apply(text::write(&path).with_suffix(".txt").with_num_shards(2));
            let names = [0, 1].map(|i| format!("{path}-0000{i}-of-00002.txt"));
            assert_that(&written).contains_in_any_order(names);
        });
        report.unwrap_or_else(|e| panic!("{mode}: {e:?}"));
        let mut files = files_in(out.parent().unwrap());
        assert_eq!(files.remove("other-00000-of-00002.txt").as_deref(), Some("old\n"), "{mode}");
        assert_eq!(
            files.keys().collect::<Vec<_>>(),
            ["out-00000-of-00002.txt", "out-00001-of-00002.txt"],
            "{mode}"
        );
        let mut wanted: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
        wanted.sort();
        assert_eq!(lines_of(&files), wanted, "{mode}");
    }
}

#[test]
fn one_file_a_bundle_and_one_for_nothing() {
    for mode in Mode::all() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        TestPipeline::run(mode, |p: &Pipeline| {
            let numbers = p.apply(Create::of(0..2000i64));
            numbers.apply(text::write(&path("some/out")));
            numbers.filter(|_| false).apply(text::write(&path("none/out")).with_suffix(".gz"));
        })
        .unwrap_or_else(|e| panic!("{mode}: {e:?}"));
        let some = files_in(&dir.path().join("some"));
        let count = some.len();
        for (i, name) in some.keys().enumerate() {
            assert_eq!(*name, format!("out-{i:05}-of-{count:05}"), "{mode}");
        }
        let mut wanted: Vec<String> = (0..2000).map(|i| i.to_string()).collect();
        wanted.sort();
        assert_eq!(lines_of(&some), wanted, "{mode}");
        let gz = std::fs::read(dir.path().join("none/out-00000-of-00001.gz")).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(&*gz), &mut text).unwrap();
        assert_eq!(text, "", "{mode}");
    }
}

#[test]
fn a_failed_job_changes_nothing() {
    for mode in Mode::all() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("out-00000-of-00001"), "old\n").unwrap();
        let path = dir.path().join("out").to_str().unwrap().to_owned();
        let Err(error) = TestPipeline::run(mode, |p: &Pipeline| {
            let numbers = p.apply(Create::of(0..5000i64)).reshuffle();
            numbers
                .map(|n| {
                    if n == 4321 {
                        tiebeam_core::iterable::abort_bundle(tiebeam_core::Error::internal("stop"))
                    } else {
                        n
                    }
                })
                .apply(text::write(&path));
        }) else {
            panic!("{mode}: it succeeded")
        };
        assert!(error.message().starts_with("stop"), "{mode}: {error:?}");
        let files = files_in(dir.path());
        assert_eq!(files, BTreeMap::from([("out-00000-of-00001".to_owned(), "old\n".to_owned())]), "{mode}");
    }
}

#[test]
fn an_output_that_cannot_be_written_ends_the_job_before_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let path = dir.path().join("file/out").to_str().unwrap().to_owned();
    for error in TestPipeline::fails_in_all_modes(|p: &Pipeline| {
        // The input is missing too, but nothing is read.
        p.apply(text::read("/no/such/file")).apply(text::write(&path));
    }) {
        assert_eq!((error.kind(), error.step()), (ErrorKind::Output, Some("WriteToText")));
    }
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::of([
        ("name", FieldType::required(TypeKind::String)),
        ("value", FieldType::required(TypeKind::Double)),
        ("count", FieldType::nullable(TypeKind::Int64)),
    ]))
}

fn row(name: &str, value: f64, count: Option<i64>) -> Row {
    Row::new(
        schema(),
        [Value::String(name.into()), Value::Double(value), count.map_or(Value::Null, Value::Int64)],
    )
}

#[test]
fn rows_go_from_csv_to_json_and_back() {
    for mode in Mode::all() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("in.csv"), "name,value,count\n\"a,\nb\",1.0,\nc,0.5,7\nbad,x,1\n").unwrap();
        let guessed = csv::infer_schema(&path("good.csv"), &csv::Dialect::default(), &Default::default());
        assert_eq!(guessed.unwrap_err().kind(), ErrorKind::NotFound);
        TestPipeline::run(mode, |p: &Pipeline| {
            let read = p.apply(csv::read(path("in.csv"), schema()).with_error_handling());
            assert_that(&read.failed).has_count(1);
            assert_that(&read.records)
                .contains_in_any_order([row("a,\nb", 1.0, None), row("c", 0.5, Some(7))]);
            read.records.apply(json::write(&path("rows")).with_num_shards(1));
            read.records.apply(csv::write(&path("table")).with_suffix(".csv").with_num_shards(1));
        })
        .unwrap_or_else(|e| panic!("{mode}: {e:?}"));
        let text = std::fs::read_to_string(path("rows-00000-of-00001")).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort();
        assert_eq!(
            lines,
            [r#"{"name":"a,\nb","value":1.0,"count":null}"#, r#"{"name":"c","value":0.5,"count":7}"#],
            "{mode}"
        );
        let guessed =
            csv::infer_schema(&path("table*"), &csv::Dialect::default(), &Default::default()).unwrap();
        assert_eq!(guessed, *schema(), "{mode}");
        TestPipeline::run(mode, |p: &Pipeline| {
            let rows = [row("a,\nb", 1.0, None), row("c", 0.5, Some(7))];
            let from_json = p.apply(json::read(path("rows-*"), schema()));
            assert_that(&from_json).contains_in_any_order(rows.clone());
            let from_csv = p.apply(csv::read(path("table-*.csv"), schema()));
            assert_that(&from_csv).contains_in_any_order(rows);
        })
        .unwrap_or_else(|e| panic!("{mode}: {e:?}"));
    }
}

#[test]
fn files_are_listed_and_read_as_wholes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "1\n2").unwrap();
    std::fs::write(dir.path().join("b"), "").unwrap();
    let at = |name: &str| format!("{}/{name}", dir.path().display());
    TestPipeline::run_all_modes(|p: &Pipeline| {
        let listed = p.apply(files::match_all(at("*")));
        assert_that(&listed.map(|file| (file.path, file.size)))
            .contains_in_any_order([(at("a"), 3u64), (at("b"), 0)]);
        let read = listed.map(|file| file.path).apply(files::read_matches());
        assert_that(&read).contains_in_any_order([(at("a"), "1\n2".into()), (at("b"), "".into())]);
        let decoded = p.apply(images::read(at("*")).with_error_handling());
        assert_that(&decoded.records).is_empty();
        let bad = decoded.failed.map(|failed| (failed.element, failed.failure.message));
        assert_that(&bad).contains_in_any_order([
            (
                at("a").into(),
                "not a JPEG, PNG, GIF, BMP or WebP image: it begins with the bytes 310a32".to_owned(),
            ),
            (at("b").into(), "an image file is empty".to_owned()),
        ]);
    });
}
