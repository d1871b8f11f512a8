//! The sink's DoFns: shards, headers, failures.

use std::fmt::Write as _;

use tiebeam_core::metrics::{MetricCells, MetricValue};
use tiebeam_core::side_input::SideInputs;
use tiebeam_core::{ErrorKind, Receiver};

use super::*;

/// Each number on a line; the header is told by the first one.
#[derive(Clone)]
struct Numbers {
    with_header: bool,
}

impl RecordFormat<i64> for Numbers {
    type File = ();

    fn header(&self, first: Option<&i64>) -> Result<Option<Vec<u8>>> {
        Ok(first.filter(|_| self.with_header).map(|_| b"number\n".to_vec()))
    }

    fn write(&self, (): &mut (), record: &i64, out: &mut Vec<u8>) -> Result<()> {
        let mut text = String::new();
        writeln!(text, "{record}").map_err(Error::internal)?;
        out.extend_from_slice(text.as_bytes());
        if *record < 0 {
            return Err(Error::new(ErrorKind::InvalidData, "TB0444", "no negative numbers"));
        }
        Ok(())
    }
}

struct Job(String);

impl SideInputs for Job {
    fn side_input(&self, _: &str, _: &Window) -> Result<Arc<dyn std::any::Any + Send + Sync>> {
        Ok(Arc::new(self.0.clone()))
    }
}

type Gathered = Arc<Mutex<Vec<(String, Option<Piece>)>>>;

struct Gather(Gathered);

impl Receiver<(String, Option<Piece>)> for Gather {
    fn receive(&mut self, batch: Batch<(String, Option<Piece>)>) -> Result<()> {
        self.0.lock().unwrap().extend(batch.values);
        Ok(())
    }
}

struct Setup {
    dir: tempfile::TempDir,
    sink: Arc<Sink>,
    job: RunId,
    format: Numbers,
    pieces: Gathered,
    metrics: MetricCells,
}

impl Setup {
    fn new(num_shards: Option<usize>, with_header: bool) -> Setup {
        Setup::joining(num_shards, with_header, 0)
    }

    fn joining(num_shards: Option<usize>, with_header: bool, join_below: u64) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let mut target = Target::new(dir.path().join("out").to_str().unwrap()).unwrap();
        target.num_shards = num_shards;
        target.join_below = join_below;
        let sink = Arc::new(Sink::new(Place::new(Arc::new(fs::local::Local), target.checked().unwrap())));
        let job = RunId::new();
        sink.begin(job).unwrap();
        let format = Numbers { with_header };
        Setup { dir, sink, job, format, pieces: Gathered::default(), metrics: MetricCells::default() }
    }

    fn bundle(&self, batches: &[&[i64]]) -> Result<()> {
        let mut dofn = WriteShards::new(self.sink.clone(), self.format.clone(), View::new("job"));
        dofn.setup(&SetupContext::new("Write", self.job, self.metrics.of_step("Write")))?;
        let job = Job(self.job.to_string());
        let cx = BundleContext::new(&job, &|| false);
        let mut out = Output::new(Box::new(Gather(self.pieces.clone())));
        dofn.start_bundle(&cx, &mut out)?;
        for batch in batches {
            dofn.process_batch(Batch::uniform(batch.to_vec(), WindowInfo::GLOBAL), &cx, &mut out)?;
        }
        dofn.finish_bundle(&cx, &mut out)?;
        dofn.teardown();
        out.flush()
    }

    fn pieces(&self) -> Vec<Piece> {
        self.pieces.lock().unwrap().iter().filter_map(|(_, piece)| piece.clone()).collect()
    }

    fn commit(&self) -> Vec<(String, String)> {
        let header = RecordFormat::<i64>::header(&self.format, None).unwrap().unwrap_or_default();
        let committed = self.sink.commit(self.job, &self.pieces(), &header).unwrap();
        let read = |path: &String| {
            let name = path.rsplit('/').next().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        };
        let seen = committed.files.iter().map(read).collect();
        let mut names: Vec<_> =
            std::fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        let wanted: Vec<_> = committed.files.iter().map(|f| f.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, wanted, "nothing else is left");
        seen
    }
}

fn named(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn one_file_a_bundle() {
    let setup = Setup::new(None, true);
    setup.bundle(&[&[1, 2], &[3]]).unwrap();
    setup.bundle(&[]).unwrap();
    setup.bundle(&[&[4]]).unwrap();
    let metrics = setup.metrics.drain();
    assert_eq!(metrics.len(), 1);
    assert_eq!((&*metrics[0].0.namespace, &*metrics[0].0.name), ("sink", "records"));
    assert_eq!(metrics[0].1, MetricValue::Counter(4));
    assert_eq!(
        setup.commit(),
        named(&[("out-00000-of-00002", "number\n1\n2\n3\n"), ("out-00001-of-00002", "number\n4\n")])
    );
}

#[test]
fn many_shards_are_not_open_at_once() {
    let setup = Setup::new(Some(9), true);
    // Long enough that some are written before the bundle's end, and more than one piece a shard.
    let numbers: Vec<i64> = (0..30_000).map(|n| i64::MAX - n).collect();
    let (first, second) = numbers.split_at(20_000);
    let mut dofn = WriteShards::new(setup.sink.clone(), setup.format.clone(), View::new("job"));
    dofn.setup(&SetupContext::new("Write", setup.job, setup.metrics.of_step("Write"))).unwrap();
    let job = Job(setup.job.to_string());
    let cx = BundleContext::new(&job, &|| false).numbered(Some(3));
    let mut out = Output::new(Box::new(Gather(setup.pieces.clone())));
    dofn.start_bundle(&cx, &mut out).unwrap();
    for _ in 0..20 {
        for batch in [first, second] {
            dofn.process_batch(Batch::uniform(batch.to_vec(), WindowInfo::GLOBAL), &cx, &mut out).unwrap();
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let ours = open.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        assert_eq!(ours.filter(|path| path.starts_with(setup.dir.path())).count(), 1, "the lock alone");
    }
    dofn.finish_bundle(&cx, &mut out).unwrap();
    out.flush().unwrap();
    let files = setup.commit();
    assert_eq!(files.len(), 9);
    assert!(setup.pieces().len() > 9, "{} pieces", setup.pieces().len());
    let mut lines: Vec<i64> =
        files.iter().flat_map(|(_, text)| text.lines().skip(1).map(|line| line.parse().unwrap())).collect();
    lines.sort_unstable();
    let mut wanted: Vec<i64> = (0..20).flat_map(|_| numbers.iter().copied()).collect();
    wanted.sort_unstable();
    assert!(lines == wanted);
}

#[test]
fn small_bundles_share_a_file_with_one_header() {
    let setup = Setup::joining(None, true, 1 << 20);
    setup.bundle(&[&[1, 2], &[3]]).unwrap();
    setup.bundle(&[]).unwrap();
    setup.bundle(&[&[4]]).unwrap();
    assert_eq!(setup.commit(), named(&[("out-00000-of-00001", "number\n1\n2\n3\n4\n")]));
}

#[test]
fn a_given_number_of_files_is_filled_evenly() {
    let setup = Setup::new(Some(1), true);
    setup.bundle(&[&[1, 2, 3]]).unwrap();
    setup.bundle(&[&[4]]).unwrap();
    assert_eq!(setup.commit(), named(&[("out-00000-of-00001", "number\n1\n2\n3\n4\n")]));

    let setup = Setup::new(Some(3), false);
    setup.bundle(&[&[7; 6]]).unwrap();
    let seven = "7\n7\n";
    assert_eq!(
        setup.commit(),
        named(&[("out-00000-of-00003", seven), ("out-00001-of-00003", seven), ("out-00002-of-00003", seven)])
    );

    let setup = Setup::new(Some(2), true);
    assert_eq!(setup.commit(), named(&[("out-00000-of-00002", ""), ("out-00001-of-00002", "")]));
}

#[test]
fn a_failed_bundle_leaves_no_file_and_no_count() {
    let setup = Setup::new(None, false);
    setup.bundle(&[&[1]]).unwrap();
    let error = setup.bundle(&[&[2, -1, 3]]).unwrap_err();
    assert_eq!(error.message(), "no negative numbers");
    setup.bundle(&[&[2, 3]]).unwrap();
    let temp = setup.sink.place.temp_path(setup.job, "");
    assert_eq!(std::fs::read_dir(temp).unwrap().count(), 2);
    assert_eq!(setup.commit(), named(&[("out-00000-of-00002", "1\n"), ("out-00001-of-00002", "2\n3\n")]));
}

#[test]
fn a_failed_job_cleans_up() {
    let setup = Setup::new(None, false);
    std::fs::write(setup.dir.path().join("out-00000-of-00001"), "old").unwrap();
    setup.bundle(&[&[1]]).unwrap();
    setup.sink.close(setup.job);
    setup.sink.close(setup.job);
    let names: Vec<_> =
        std::fs::read_dir(setup.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["out-00000-of-00001"]);
}

#[test]
fn much_is_written_in_steps() {
    let setup = Setup::new(None, false);
    let batch: Vec<i64> = (0..1000).collect();
    let batches: Vec<&[i64]> = vec![&batch; 500];
    setup.bundle(&batches).unwrap();
    let piece = &setup.pieces()[0];
    assert_eq!((piece.records, piece.bytes), (500_000, 500 * 3890));
    let files = setup.commit();
    assert!(files[0].1.ends_with("998\n999\n"));
    assert_eq!(files[0].1.len(), 500 * 3890);
}

#[test]
fn pieces_travel() {
    let piece = Piece { name: "shard-1".into(), shard: 7, records: 3, bytes: 1 << 40, header: vec![0, 255] };
    let coder = Piece::coder();
    assert_eq!(coder.from_bytes(coder.to_bytes(&piece).unwrap()).unwrap(), piece);
    assert_eq!(Piece::coder_of(&coder.spec()).unwrap().spec(), coder.spec());
}

#[test]
fn construction_mistakes_are_collected() {
    let p = tiebeam_graph::Pipeline::new();
    let numbers = p.apply(Create::of([1i64]));
    let format = Numbers { with_header: false };
    numbers.apply(WriteFiles::new("out/", format.clone(), "WriteNumbers"));
    numbers.apply(WriteFiles::new("out/x", format, "WriteNumbers").with_num_shards(0));
    let Err(errors) = p.build() else { panic!("built") };
    let messages: Vec<_> = errors.0.iter().map(|(error, _)| error.to_string()).collect();
    assert_eq!(
        messages,
        [
            "WriteNumbers: an output path ends with the first part of the files' names, got `out/`",
            "WriteNumbers-2: an output has 1 to 4096 shards, got 0",
        ]
    );
}
