//! Newer versions of a model while it runs.

#![allow(clippy::panic, clippy::unwrap_used)] // a test fails by panicking, in the functions that tests share too

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tiebeam_core::{Error, ErrorKind, FixedWindows, Result, SlidingWindows, Timestamp, WindowingStrategy};
use tiebeam_graph::{Create, PCollection, Pipeline};
use tiebeam_inference::{
    Batching, InferenceArgs, KeyModelPathMapping, ModelHandler, ModelInfo, ModelMetadata, PerKeyModels,
    Rollout, RunInference, report,
};
use tiebeam_runner::{EmbeddedRunner, JobReport, RunnerOptions};
use tiebeam_testing::{Mode, TestPipeline, assert_that};

const NAME: &str = "RunInference";

/// Reads a number from a file and multiplies by it. Files that hold no number can't be loaded; one that holds a negative
/// number loads, and fails on every example.
#[derive(Clone)]
struct Times {
    path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    alive: AtomicUsize,
    most_alive: AtomicUsize,
    calls: AtomicUsize,
    /// Refused as long as it is so.
    is_away: AtomicBool,
}

struct Factor {
    path: PathBuf,
    factor: i64,
    text: String,
    shared: Arc<Shared>,
}

impl Drop for Factor {
    fn drop(&mut self) {
        self.shared.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Times {
    fn of(path: &Path) -> Self {
        Times { path: path.to_owned(), shared: Arc::default() }
    }

    fn load(&self, path: &Path) -> Result<Factor> {
        let broken = |what: String| Error::new(ErrorKind::Model, "TB0360", what);
        let text = std::fs::read_to_string(path).map_err(|e| broken(format!("{}: {e}", path.display())))?;
        let factor = text.trim().parse().map_err(|_| broken(format!("`{text}` is no number")))?;
        let alive = self.shared.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.shared.most_alive.fetch_max(alive, Ordering::SeqCst);
        Ok(Factor { path: path.to_owned(), factor, text, shared: self.shared.clone() })
    }
}

impl ModelHandler for Times {
    type Example = i64;
    type Inference = i64;
    type Model = Factor;

    fn load_model(&self) -> Result<Factor> {
        self.load(&self.path)
    }

    fn load_version(&self, version: &ModelMetadata) -> Result<Factor> {
        if self.shared.is_away.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Io, "TB0401", "the disk is away").with_retryable(true));
        }
        self.load(Path::new(&version.model_id))
    }

    fn takes_updates(&self) -> bool {
        true
    }

    fn run_inference(&self, batch: &[i64], model: &Factor, _: &InferenceArgs) -> Result<Vec<i64>> {
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        if model.factor < 0 {
            return Err(Error::new(ErrorKind::Inference, "TB0330", "incompatible"));
        }
        Ok(batch.iter().map(|x| x * model.factor).collect())
    }

    fn name(&self) -> String {
        "Times".to_owned()
    }

    fn model_info(&self, model: &Factor) -> ModelInfo {
        ModelInfo {
            model_id: model.path.display().to_string().into(),
            uri: Some(model.path.display().to_string()),
            sha256: Some(format!("{:0>64}", model.text.trim())),
            bytes: Some(8),
            ..ModelInfo::default()
        }
    }
}

/// A folder of versions: `write(n, text)` makes `v<n>.txt`.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, n: usize) -> PathBuf {
        self.0.path().join(format!("v{n:03}.txt"))
    }

    fn write(&self, n: usize, text: &str) -> PathBuf {
        let path = self.path(n);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn pattern(&self) -> String {
        self.0.path().join("v*.txt").display().to_string()
    }

    fn id(&self, n: usize) -> String {
        self.path(n).display().to_string()
    }
}

fn lines(id: &str) -> report::ModelReport {
    report::models().into_iter().rfind(|line| line.id == id).unwrap_or_else(|| panic!("no line of {id}"))
}

fn results(
    results: &PCollection<tiebeam_inference::PredictionResult<i64, i64>>,
) -> PCollection<(i64, (i64, String))> {
    results.map(|result| (result.example, (result.inference, result.model_id.to_string())))
}

#[test]
fn a_side_input_names_the_version() {
    let folder = Folder::new();
    let (old, new) = (folder.write(1, "2"), folder.write(2, "3"));
    let id = folder.id(2);
    let reports = TestPipeline::run_all_modes(|p| {
        let metadata = ModelMetadata { model_id: folder.id(2), model_name: "second".to_owned() };
        let metadata = p.step("Versions").apply(Create::of([metadata]));
        let run = RunInference::new(Times::of(&old)).with_model_metadata(&metadata);
        let found = p.apply(Create::of([1i64, 5])).apply(run);
        assert_that(&results(&found)).contains_in_any_order([(1, (3, id.clone())), (5, (15, id.clone()))]);
    });
    for report in reports {
        assert_eq!(report.counter(NAME, "num_inferences"), 2);
        assert_eq!(report.counter(NAME, "second_num_inferences"), 2, "the version's own metrics");
        assert_eq!(report.counter(NAME, "failed_model_swaps"), 0);
    }
    assert_eq!(lines(&new.display().to_string()).swaps, 1);
}

#[test]
fn an_empty_side_input_and_an_empty_id_change_nothing() {
    let folder = Folder::new();
    let old = folder.write(1, "2");
    for metadata in [vec![], vec![ModelMetadata::default()]] {
        TestPipeline::run_all_modes(|p| {
            let metadata = p.step("Versions").apply(Create::of(metadata.clone()));
            let run = RunInference::new(Times::of(&old)).with_model_metadata(&metadata);
            let found = p.apply(Create::of([1i64, 5])).apply(run).map(|result| result.inference);
            assert_that(&found).contains_in_any_order([2, 10]);
        });
    }
}

#[test]
fn e_side_two_versions_at_once_are_an_error() {
    let folder = Folder::new();
    let old = folder.write(1, "2");
    for error in TestPipeline::fails_in_all_modes(|p| {
        let both = ["a", "b"].map(ModelMetadata::of);
        let metadata = p.step("Versions").apply(Create::of(both));
        p.apply(Create::of([1i64])).apply(RunInference::new(Times::of(&old)).with_model_metadata(&metadata));
    }) {
        let wanted = "PCollection of size 2 with more than one element accessed as a singleton view";
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

/// Beam says the new model's id of values that the old one computed, and does not try again.
#[test]
fn fault_01_a_failed_swap_keeps_the_old_model_and_tells_the_truth() {
    let folder = Folder::new();
    let (old, _damaged, _incompatible) = (folder.write(1, "2"), folder.write(2, "?"), folder.write(3, "-1"));
    for (bad, why) in [(2, "no number"), (4, "No such file")] {
        let reports = TestPipeline::run_all_modes(|p| {
            let metadata = p.step("Versions").apply(Create::of([ModelMetadata::of(folder.id(bad))]));
            let run = RunInference::new(Times::of(&old)).with_model_metadata(&metadata);
            let found = p.apply(Create::of([1i64, 5])).apply(run);
            let id = folder.id(1);
            assert_that(&results(&found)).contains_in_any_order([(1, (2, id.clone())), (5, (10, id))]);
        });
        // What a bundle that is run twice told the first time is forgotten with it.
        assert_eq!(reports[0].counter(NAME, "failed_model_swaps"), 1);
        let line = lines(&folder.id(1));
        assert_eq!((line.swaps, line.failed_swaps > 0), (0, true));
        assert!(line.last_failed_swap.as_ref().unwrap().contains(why), "{line:?}");
    }
}

#[test]
fn fault_01_a_load_that_failed_for_a_reason_that_passes_is_tried_again() {
    let folder = Folder::new();
    let old = Times::of(&folder.write(1, "2"));
    folder.write(2, "3");
    old.shared.is_away.store(true, Ordering::SeqCst);
    let p = Pipeline::new();
    let metadata = p.step("Versions").apply(Create::of([ModelMetadata::of(folder.id(2))]));
    let (shared, clock) = (old.shared.clone(), Arc::new(Jumping::default()));
    // After the first of them the disk is back, and each takes ten seconds of a clock that jumps.
    let run = RunInference::new(old.with_batching(Batching::fixed(1)).postprocess(move |result| {
        shared.is_away.store(false, Ordering::SeqCst);
        (result.example, result.inference)
    }));
    let run = run.with_model_metadata(&metadata).with_clock(clock);
    let input = p.apply(Create::of(0..2000i64));
    assert_that(&input.apply(run)).satisfies(|found| {
        let old = found.iter().filter(|(x, y)| *y == x * 2 && *x > 0).count();
        let new = found.iter().filter(|(x, y)| *y == x * 3 && *x > 0).count();
        match (old, new) {
            (1.., 1..) if old + new == 1999 => Ok(()),
            other => Err(format!("{other:?} by the old one and the new one")),
        }
    });
    let report = run_with(&p, 1);
    assert_eq!(report.counter(NAME, "model_swaps"), 1);
    assert!(report.counter(NAME, "failed_model_swaps") >= 1);
}

#[test]
fn versions_for_keys_that_failed_for_a_reason_that_passes_are_tried_again() {
    let folder = Folder::new();
    let old = Times::of(&folder.write(1, "2"));
    let (two, three) = (folder.id(2), folder.id(3));
    folder.write(2, "3");
    folder.write(3, "4");
    old.shared.is_away.store(true, Ordering::SeqCst);
    let p = Pipeline::new();
    let version = |key: i64, path: &str| KeyModelPathMapping {
        keys: vec![key],
        update_path: path.to_owned(),
        model_name: String::new(),
    };
    // One cohort becomes two: one keeps its place, the other begins.
    let list = p.step("Versions").apply(Create::of([version(0, &two), version(1, &three)]));
    let (shared, clock) = (old.shared.clone(), Arc::new(Jumping::default()));
    let models = PerKeyModels::new().with_models([0i64, 1], old).with_batching(Batching::fixed(1));
    let run = RunInference::new(models).with_keyed_model_updates(&list).with_clock(clock);
    let input = p.apply(Create::of((0..4000i64).map(|x| (x % 2, x))));
    let found = input.apply(run).map(move |(key, result)| {
        shared.is_away.store(false, Ordering::SeqCst);
        (key, (result.example, result.inference))
    });
    assert_that(&found).satisfies(|found| {
        let by = |key: i64, factor: i64| {
            found.iter().filter(|(k, (x, y))| *k == key && *x > 1 && *y == x * factor).count()
        };
        let counts = [by(0, 2), by(1, 2), by(0, 3), by(1, 4)];
        match counts.iter().all(|n| *n > 0) && counts.iter().sum::<usize>() == 3998 {
            true => Ok(()),
            false => Err(format!("{counts:?} by the old one and the new ones")),
        }
    });
    let report = run_with(&p, 1);
    assert_eq!(report.counter("BeamML_KeyedModels", "model_swaps"), 2);
    assert!(report.counter("BeamML_KeyedModels", "failed_model_swaps") >= 2);
}

/// Ten seconds later at each look.
#[derive(Debug, Default)]
struct Jumping(AtomicUsize);

impl tiebeam_inference::Clock for Jumping {
    fn now(&self) -> Duration {
        Duration::from_secs(10 * self.0.fetch_add(1, Ordering::SeqCst) as u64)
    }
}

fn run_with(p: &Pipeline, threads: usize) -> JobReport {
    EmbeddedRunner::new(RunnerOptions::default().with_threads(threads)).run(&p.build().unwrap()).unwrap()
}

#[test]
fn each_window_follows_its_own_version() {
    let folder = Folder::new();
    let old = folder.write(0, "1");
    (1..=3).for_each(|n| drop(folder.write(n, &format!("{}", n * 10))));
    TestPipeline::run_with(
        Mode::Fused,
        |options| options.with_threads(1),
        |p| {
            let second = |n: i64| Timestamp::from_secs(n);
            let windows = || WindowingStrategy::of(FixedWindows::of(Duration::from_secs(10)));
            let versions = (0..3i64).map(|n| (n * 10, folder.id(n as usize + 1)));
            let metadata = p
                .step("Versions")
                .apply(Create::of(versions))
                .with_timestamps(move |(at, _)| second(*at))
                .window_into(windows())
                .map(|(_, id): (i64, String)| ModelMetadata::of(id));
            let input =
                p.apply(Create::of(0..30i64)).with_timestamps(move |x| second(*x)).window_into(windows());
            let found = input.apply(RunInference::new(Times::of(&old)).with_model_metadata(&metadata));
            let wanted = (0..30i64).map(|x| {
                let version = x / 10 + 1;
                (x, (x * version * 10, folder.id(version as usize)))
            });
            assert_that(&results(&found)).contains_in_any_order(wanted);
        },
    )
    .unwrap();
}

/// Beam runs the model once a window and gives each result the window's end as its time.
#[test]
fn fault_09_a_sliding_window_asks_once_an_element_with_updates_too() {
    let folder = Folder::new();
    let (old, times) = (folder.write(1, "1"), folder.write(2, "7"));
    let reports = TestPipeline::run_all_modes(|p| {
        let metadata = p.step("Versions").apply(Create::of([ModelMetadata::of(times.display().to_string())]));
        let windows = SlidingWindows::of(Duration::from_secs(60), Duration::from_secs(1));
        let input = p
            .apply(Create::of(0..500i64))
            .with_timestamps(|x| Timestamp::from_secs(*x))
            .window_into(WindowingStrategy::of(windows));
        let found = input.apply(RunInference::new(Times::of(&old)).with_model_metadata(&metadata));
        assert_that(&found.map(|result| result.inference)).contains_in_any_order((0..500i64).map(|x| x * 7));
    });
    for report in reports {
        assert_eq!(report.counter(NAME, "num_inferences"), 500);
    }
}

/// 50 versions, ten of them damaged or incompatible, while 200,000 elements run.
#[test]
fn fifty_swaps_while_elements_run() {
    const N: i64 = 200_000;
    const VERSIONS: i64 = 50;
    let folder = Folder::new();
    let times = Times::of(&folder.write(0, "1"));
    let (shared, root) = (times.shared.clone(), folder.0.path().to_owned());
    let seen: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
    // Versions that took over or were refused.
    let handled = {
        let root = root.display().to_string();
        move || {
            let own = report::models().into_iter().filter(|line| line.id.starts_with(&root));
            own.map(|line| (line.swaps + line.failed_swaps) as i64).sum::<i64>()
        }
    };
    let is_bad = |n: i64| n % 5 == 0;
    // A version is written when the one before it has computed something, or was refused.
    let write_all = {
        let (seen, handled, root) = (seen.clone(), handled.clone(), root.clone());
        move |done: &AtomicBool| {
            for n in 0..=VERSIONS {
                let text = match (is_bad(n), n % 10) {
                    (true, 0) => "no number".to_owned(),
                    (true, _) => "-1".to_owned(),
                    (false, _) => (n + 1).to_string(),
                };
                if n > 0 {
                    // Written aside and renamed, as a good uploader does.
                    std::fs::write(root.join("draft"), text).unwrap();
                    std::fs::rename(root.join("draft"), root.join(format!("v{n:03}.txt"))).unwrap();
                }
                let refused = || n > 0 && is_bad(n);
                while !(handled() >= n && (refused() || seen.lock().unwrap().contains(&n))) {
                    assert!(!done.load(Ordering::SeqCst), "the job ended before version {n} was there");
                    std::thread::yield_now();
                }
            }
        }
    };
    let p = Pipeline::new();
    let run = RunInference::new(times.with_batching(Batching::at_most(64)))
        .watch_model_pattern(folder.pattern(), Duration::from_millis(1));
    // What `handled` said last: it looks through the lines of all tests.
    let reached = AtomicI64::new(0);
    let found = p.apply(Create::of(0..N)).apply(run).map(move |result| {
        let (x, id) = (result.example, Path::new(&*result.model_id));
        assert!(id.starts_with(&root), "{id:?}");
        let version: i64 = id.file_stem().unwrap().to_str().unwrap().trim_start_matches('v').parse().unwrap();
        assert_eq!(result.inference, x * (version + 1), "{x} by {id:?}");
        assert!(version == 0 || !is_bad(version), "{x} by {id:?}");
        seen.lock().unwrap().insert(version);
        // Elements do not run ahead of the versions: each has its share of them.
        while reached.load(Ordering::SeqCst) < x * (VERSIONS + 1) / N {
            std::thread::yield_now();
            reached.fetch_max(handled(), Ordering::SeqCst);
        }
        x
    });
    assert_that(&found).satisfies(|found| {
        let all: BTreeSet<i64> = found.iter().copied().collect();
        match (found.len() as i64, all.len() as i64) {
            (N, N) => Ok(()),
            other => Err(format!("{other:?} elements came out")),
        }
    });
    let done = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        let writing = scope.spawn(|| write_all(&done));
        let report = run_with(&p, 2);
        done.store(true, Ordering::SeqCst);
        writing.join().unwrap();
        report
    });
    assert_eq!(report.counter(NAME, "num_inferences"), N);
    let line = lines(&folder.id(VERSIONS as usize - 1));
    assert_eq!((line.swaps, line.failed_swaps), (40, 10));
    assert_eq!(report.counter(NAME, "model_swaps"), 40);
    assert_eq!(report.counter(NAME, "failed_model_swaps"), 10);
    assert!(shared.most_alive.load(Ordering::SeqCst) <= 2, "at most one extra model");
    assert_eq!(shared.alive.load(Ordering::SeqCst), 0);
}

/// A rewritten file of the same name is a version with an id of its own; a file that is touched is none.
#[test]
fn a_rewritten_file_takes_over_under_an_id_of_its_own() {
    let folder = Folder::new();
    let path = folder.write(0, "2");
    let times = Times::of(&path);
    let shared = times.shared.clone();
    let p = Pipeline::new();
    let run = RunInference::new(times.with_batching(Batching::fixed(1)))
        .watch_model_pattern(folder.pattern(), Duration::from_millis(1));
    let id = folder.id(0);
    let swaps = {
        let id = id.clone();
        move || {
            report::models()
                .into_iter()
                .filter(|line| line.id.starts_with(&id))
                .map(|line| line.swaps)
                .sum::<u64>()
        }
    };
    let wanted = [
        (0, (0, id.clone())),
        (1, (3, format!("{id}@000000000000"))),
        (2, (6, format!("{id}@000000000000"))),
    ];
    let found = p.apply(Create::of(0..3i64)).apply(run).map(move |result| {
        if result.example == 0 {
            std::fs::write(&path, "3").unwrap();
            while swaps() == 0 {
                std::thread::yield_now();
            }
            std::fs::write(&path, "3").unwrap();
        }
        (result.example, (result.inference, result.model_id.to_string()))
    });
    assert_that(&found).contains_in_any_order(wanted);
    assert_eq!(run_with(&p, 1).counter(NAME, "model_swaps"), 1);
    assert_eq!(shared.alive.load(Ordering::SeqCst), 0);
}

#[test]
fn a_canary_computes_its_share_and_is_promoted_or_withdrawn() {
    let folder = Folder::new();
    let old = folder.write(1, "2");
    folder.write(2, "3");
    folder.write(3, "-1");
    let run = |rollout: Rollout, version: usize| {
        let p = Pipeline::new();
        let metadata = p.step("Versions").apply(Create::of([ModelMetadata::of(folder.id(version))]));
        let run = RunInference::new(Times::of(&old).with_batching(Batching::fixed(10)))
            .with_model_metadata(&metadata)
            .with_rollout(rollout);
        let found = p.apply(Create::of(1..=1000i64)).apply(run);
        let tally: Arc<Mutex<(usize, usize)>> = Arc::default();
        let counted = tally.clone();
        assert_that(&found.map(|result| (result.example, result.inference))).satisfies(move |found| {
            let by = |factor| found.iter().filter(|(x, y)| *y == x * factor).count();
            *counted.lock().unwrap() = (by(2), by(3));
            if by(2) + by(3) == 1000 { Ok(()) } else { Err(format!("{found:?}")) }
        });
        let report = run_with(&p, 1);
        let tally = *tally.lock().unwrap();
        (tally, report.counter(NAME, "model_swaps"), report.counter(NAME, "failed_model_swaps"))
    };
    assert_eq!(run(Rollout::canary(0.2), 2), ((800, 200), 0, 0));
    assert_eq!(run(Rollout::canary(0.5).promote_after(100), 2), ((100, 900), 1, 0));
    assert_eq!(run(Rollout::canary(0.2), 3), ((1000, 0), 0, 1), "nothing is lost by a bad canary");
}

#[test]
fn a_shadow_is_asked_and_compared_and_never_heard() {
    let folder = Folder::new();
    let old = folder.write(1, "2");
    folder.write(2, "3");
    let run = |rollout: Rollout, agrees: bool| {
        let p = Pipeline::new();
        let metadata = p.step("Versions").apply(Create::of([ModelMetadata::of(folder.id(2))]));
        let mut run = RunInference::new(Times::of(&old).with_batching(Batching::fixed(10)))
            .with_model_metadata(&metadata)
            .with_rollout(rollout);
        if agrees {
            run = run.with_agreement(|_, _| true);
        }
        let found = p.apply(Create::of(0..1000i64)).apply(run);
        let by_old = matches!(rollout, r if r == Rollout::shadow(0.5));
        assert_that(&found.map(|result| (result.example, result.inference))).satisfies(move |found| {
            match found.iter().all(|(x, y)| *y == x * 2) == by_old && found.len() == 1000 {
                true => Ok(()),
                false => Err(format!("{found:?}")),
            }
        });
        let report = run_with(&p, 1);
        let count = |name| report.counter(NAME, name);
        (
            count("shadow_inferences"),
            count("shadow_differences"),
            count("num_inferences"),
            count("model_swaps"),
        )
    };
    // 0 × 2 is 0 × 3: that one does not differ.
    let (asked, differ, all, swaps) = run(Rollout::shadow(0.5), false);
    assert_eq!((asked, all, swaps), (500, 1000, 0));
    assert!((499..=500).contains(&differ), "{differ}");
    assert_eq!(run(Rollout::shadow(0.5), true), (500, 0, 1000, 0));
    let (asked, _, all, swaps) = run(Rollout::shadow(0.5).promote_after(100), false);
    assert_eq!((asked, all, swaps), (100, 1000, 1));
}

#[test]
fn updates_that_can_not_be_are_refused_when_the_pipeline_is_built() {
    let refused = |run: &dyn Fn(&Pipeline)| {
        let p = Pipeline::new();
        run(&p);
        let errors = p.build().err().unwrap();
        errors.0.iter().map(|(error, _)| error.message().to_owned()).collect::<Vec<_>>()
    };
    let folder = Folder::new();
    let times = Times::of(&folder.write(0, "2"));
    let rule = || tiebeam_inference::from_fn("rule", |batch: &[i64]| Ok::<_, String>(batch.to_vec()));
    let second = Duration::from_secs(1);
    let shown = refused(&|p| {
        p.apply(Create::of([1i64])).apply(RunInference::new(rule()).watch_model_pattern("v*", second));
    });
    assert_eq!(shown, ["rule has no versions that could take its model's place"]);
    let shown = refused(&|p| {
        let run = RunInference::new(times.clone()).watch_model_pattern("v***", second);
        p.apply(Create::of([1i64])).apply(run.with_rollout(Rollout::canary(1.5)));
    });
    let share = "the share of a canary or shadow (1.5) must be above 0 and at most 1";
    assert_eq!(shown, [share, "watch_model_pattern `v***` is no pattern of files"]);
    let shown = refused(&|p| {
        let models = PerKeyModels::new().with_models([0i64], times.clone()).with_models([1], times.clone());
        p.apply(Create::of([(0i64, 1i64)]))
            .apply(RunInference::new(models).watch_model_pattern("v*", second));
    });
    assert!(shown[0].starts_with("PerKeyModels has several models"), "{shown:?}");
    let shown = refused(&|p| {
        let run = RunInference::new(times.clone()).watch_model_pattern("v*", Duration::ZERO);
        p.apply(Create::of([1i64])).apply(run);
    });
    assert_eq!(shown, ["the interval of watch_model_pattern must be more than nothing"]);
}

#[test]
fn updates_split_the_models_of_keys() {
    let folder = Folder::new();
    let (old, other) = (folder.write(0, "1"), folder.write(1, "2"));
    (2..5).for_each(|n| drop(folder.write(n, &(n * 10).to_string())));
    folder.write(9, "no number");
    let key = |text: &str| text.to_owned();
    let update = |keys: &[&str], version: usize| KeyModelPathMapping {
        keys: keys.iter().map(|text| key(text)).collect(),
        update_path: folder.id(version),
        model_name: String::new(),
    };
    let run = |updates: &[KeyModelPathMapping<String>], wanted: [(&str, i64, usize); 4]| {
        TestPipeline::run_all_modes(|p| {
            let models = PerKeyModels::new()
                .with_models(["a", "b", "c"].map(key), Times::of(&old))
                .with_models(["d"].map(key), Times::of(&other));
            let updates = p.step("Versions").apply(Create::of(updates.to_vec()));
            let input = p.apply(Create::of(["a", "b", "c", "d"].map(|text| (key(text), 1i64))));
            let run = RunInference::new(models).with_keyed_model_updates(&updates);
            let found =
                input.apply(run).map(|(key, result)| (key, (result.inference, result.model_id.to_string())));
            assert_that(&found)
                .contains_in_any_order(wanted.map(|(text, y, version)| (key(text), (y, folder.id(version)))));
        })
    };
    run(&[], [("a", 1, 0), ("b", 1, 0), ("c", 1, 0), ("d", 2, 1)]);
    let split = [update(&["a"], 2), update(&["b", "d"], 3), update(&["c"], 4)];
    let reports = run(&split, [("a", 20, 2), ("b", 30, 3), ("c", 40, 4), ("d", 30, 3)]);
    for report in &reports {
        let count = |name| report.counter("BeamML_KeyedModels", name);
        assert_eq!((count("a-_num_inferences"), count("c-_num_inferences")), (1, 1), "cohorts of their own");
    }
    // Keys whose version can't be loaded keep their model.
    let bad = [update(&["a"], 9), update(&["b", "c"], 3), update(&["d"], 9)];
    run(&bad, [("a", 1, 0), ("b", 30, 3), ("c", 30, 3), ("d", 2, 1)]);
    for error in TestPipeline::fails_in_all_modes(|p| {
        let models = PerKeyModels::new().with_models(["a", "b"].map(key), Times::of(&old));
        let updates = p.step("Versions").apply(Create::of([update(&["a"], 2)]));
        let run = RunInference::new(models).with_keyed_model_updates(&updates);
        p.apply(Create::of([(key("a"), 1i64)])).apply(run);
    }) {
        let said = "Invalid model update: b appears in the original configuration, but not the update.";
        assert_eq!(error.message(), said);
    }
}
