//! Tests of the state of runs: what is written comes back, nothing foreign is taken for it.

use super::*;

fn identity(threads: &str) -> BTreeMap<String, String> {
    [("threads", threads), ("option a=b", "x\ny%25")].map(|(n, v)| (n.to_owned(), v.to_owned())).into()
}

fn options(dir: &Path, resume: bool) -> StateOptions {
    StateOptions { dir: dir.to_owned(), resume, options: BTreeMap::new() }
}

fn done() -> Done {
    let key = |name: &str| MetricKey { step: "A/B".into(), namespace: "n".into(), name: name.into() };
    let distribution = DistributionValue { count: 2, sum: -7, min: -9, max: 2 };
    Done {
        elements: vec![(EdgeId(3), u64::MAX), (EdgeId(0), 0)],
        nanos: vec![("A/B".into(), 12)],
        metrics: vec![
            (key("counter"), MetricValue::Counter(-5)),
            (key("gauge"), MetricValue::Gauge(i64::MIN)),
            (key("distribution"), MetricValue::Distribution(distribution)),
        ],
        outputs: vec![
            DoneOutput::Chunks(vec![(0, 10, 3), (10, 1, 1)]),
            DoneOutput::Runs(vec![vec![], vec![(11, 5), (16, 7)]]),
        ],
    }
}

#[test]
fn a_run_is_found_again_and_removed_whole() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("state");
    let first = RunState::open(&options(&dir, true), &identity("2")).unwrap();
    assert!(!first.is_resumed());
    let (run, folder) = (first.run(), first.folder().to_owned());
    let error = RunState::open(&options(&dir, true), &identity("2")).err().unwrap();
    assert_eq!((error.code(), error.kind()), ("TB0571", ErrorKind::Output));
    assert!(first.stage(0).unwrap().bundles.is_none());
    first.begin_stage(0, 3).unwrap();
    first.write_done(0, 1, &done()).unwrap();
    fs::write(first.data_path(0, 1), "data").unwrap();
    fs::write(folder.join("stage-000/000002.done.draft"), "half").unwrap();
    drop(first);

    let second = RunState::open(&options(&dir, true), &identity("2")).unwrap();
    assert!(second.is_resumed() && second.run() == run);
    let stage = second.stage(0).unwrap();
    assert_eq!((stage.bundles, stage.done), (Some(3), BTreeMap::from([(1, done())])));
    assert!(second.stage(1).unwrap().bundles.is_none());
    second.finish().unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn another_job_does_not_go_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    drop(RunState::open(&options(dir.path(), false), &identity("2")).unwrap());
    let error = RunState::open(&options(dir.path(), true), &identity("4")).err().unwrap();
    assert_eq!(error.code(), "TB0572");
    assert_eq!(
        error.message(),
        format!(
            "the run in `{}` cannot go on, it is of another job: threads was `2`, is `4`",
            dir.path().display()
        )
    );
    let other = BTreeMap::from([("threads".to_owned(), "2".to_owned())]);
    let error = RunState::open(&options(dir.path(), true), &other).err().unwrap();
    assert!(error.message().ends_with("option a=b was `x\ny%25`, is nothing"), "{error}");
    // Nothing was lost by that; without `resume` it is cleared away.
    assert!(RunState::open(&options(dir.path(), true), &identity("2")).unwrap().is_resumed());
    assert!(!RunState::open(&options(dir.path(), false), &identity("4")).unwrap().is_resumed());
}

#[test]
fn damage_is_told() {
    let whole = done().to_bytes();
    assert_eq!(Done::of_bytes(&whole), Some(done()));
    for cut in 0..whole.len() {
        assert_eq!(Done::of_bytes(&whole[..cut]), None);
        let mut bytes = whole.clone();
        bytes[cut] ^= 1;
        assert_eq!(Done::of_bytes(&bytes), None, "byte {cut}");
    }
    let dir = tempfile::tempdir().unwrap();
    let state = RunState::open(&options(dir.path(), false), &identity("2")).unwrap();
    state.begin_stage(0, 1).unwrap();
    fs::write(state.folder().join("stage-000/000000.done"), "nonsense").unwrap();
    assert_eq!(state.stage(0).unwrap_err().code(), "TB0573");
    fs::write(state.folder().join("run"), "tiebeam run 0\n").unwrap();
    drop(state);
    assert_eq!(RunState::open(&options(dir.path(), true), &identity("2")).err().unwrap().code(), "TB0573");
    assert!(!RunState::open(&options(dir.path(), false), &identity("2")).unwrap().is_resumed());
}
