//! The transform that writes files: claims the output, writes a temporary file for each bundle, commits.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tiebeam_core::metrics::Counter;
use tiebeam_core::{
    Batch, BundleContext, Codec, Coder, CoderSpec, DoFn, Element, ElementContext, Error, Iterable, Nesting,
    Output, Reader, Result, RunId, SetupContext, View, Window, WindowInfo, WindowingStrategy,
};
use tiebeam_graph::{Create, PCollection, PTransform, ParDo, impulse};

use super::job::{Committed, Piece, Place};
use super::{RecordFormat, Target};
use crate::compression::{Compression, Encoder};
use crate::fs::{self, FileSystem, Lock, failed_writing};

/// The namespace of the sinks' counters: `records`, `bytes` and `files`.
pub const METRICS: &str = "sink";

/// A writer passes its bytes on when it has this many.
const FLUSH: usize = 1 << 20;

/// The files that a bundle has open. Of more shards, what was gathered for one is written as a file of its own, and closed.
const MOST_OPEN: usize = 8;

/// The bytes that are gathered for all shards, where they are more than may be open.
const GATHERED: usize = 32 << 20;

/// Writes a PCollection as files `path-00000-of-00003`; gives their paths.
///
/// The files appear together when everything is written, in place of what an earlier run wrote under the same path. A
/// failed job leaves the earlier files as they are. Without elements one empty file is written.
pub struct WriteFiles<F> {
    target: Result<Target>,
    format: F,
    label: &'static str,
}

impl<F> WriteFiles<F> {
    /// Files in this format whose paths begin with `path`.
    pub fn new(path: &str, format: F, label: &'static str) -> Self {
        WriteFiles { target: Target::new(path), format, label }
    }

    /// What the files' names end with, such as `.csv`; nothing by default.
    #[must_use]
    pub fn with_suffix(mut self, suffix: impl Into<String>) -> Self {
        if let Ok(target) = &mut self.target {
            target.suffix = suffix.into();
        }
        self
    }

    /// Exactly this many files, of about as many records each. By default there is one for each bundle that wrote a megabyte
    /// or more, and what the others wrote is put together.
    #[must_use]
    pub fn with_num_shards(mut self, num_shards: usize) -> Self {
        if let Ok(target) = &mut self.target {
            target.num_shards = Some(num_shards);
        }
        self
    }

    /// Compresses the files; by default that goes by the end of their names.
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> Self {
        if let Ok(target) = &mut self.target {
            target.compression = compression;
        }
        self
    }

    /// Changes the format.
    #[must_use]
    pub fn map_format(mut self, change: impl FnOnce(F) -> F) -> Self {
        self.format = change(self.format);
        self
    }
}

impl<T: Element, F: RecordFormat<T>> PTransform<PCollection<T>> for WriteFiles<F> {
    type Output = PCollection<String>;

    fn label(&self) -> String {
        self.label.to_owned()
    }

    #[track_caller]
    fn expand(self, input: PCollection<T>) -> PCollection<String> {
        let pipeline = input.pipeline().clone();
        let target = match self.target.and_then(Target::checked) {
            Ok(target) => Target { joining: self.format.joining(), ..target },
            Err(error) => {
                pipeline.fail(error);
                return pipeline.apply(Create::of([]));
            }
        };
        let fs = match fs::of_target(&target.dir) {
            Ok(fs) => fs,
            Err(error) => {
                pipeline.fail(error);
                return pipeline.apply(Create::of([]));
            }
        };
        let sink = Arc::new(Sink::new(Place::new(fs, target)));
        let check = sink.clone();
        pipeline.add_check(move || check.place.check());
        let cleanup = sink.clone();
        pipeline.add_cleanup(move |run| cleanup.close(run));
        // The claim ended with the process that made it; what that has written is kept.
        let again = sink.clone();
        pipeline.add_resumption(move |run| again.begin(run));

        let job = impulse(&pipeline).step("Begin").apply(ParDo::new(BeginOutput {
            sink: sink.clone(),
            step: pipeline.current_step(),
            job: None,
        }));
        let side = job.as_singleton();
        let view = side.view();
        let (writer, format) = (sink.clone(), self.format.clone());
        let write = ParDo::from_fn(move || WriteShards::new(writer.clone(), format.clone(), view.clone()));
        let pieces = input
            .step("Global")
            .window_into(WindowingStrategy::global())
            .step("WriteShards")
            .apply(write.with_side_input(&side));
        // The job itself is among the pieces, so that there is something to commit even without any.
        let begun = job.step("Job").map(|job| (job, None));
        pipeline
            .flatten([begun, pieces])
            .step("Gather")
            .group_by_key()
            .step("Commit")
            .apply(ParDo::new(Commit { sink, format: self.format, counters: None, elements: PhantomData }))
    }
}

/// One output, shared by all instances of its steps in this process.
pub(crate) struct Sink {
    place: Place,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The job that is writing, with its claim: none where another process of the run has it.
    job: Option<(RunId, Option<Box<dyn Lock>>)>,
    /// The last job that committed, for a commit that is run again.
    last: Option<(RunId, Committed)>,
}

impl Sink {
    pub(crate) fn new(place: Place) -> Self {
        Sink { place, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn check_place(&self) -> Result<()> {
        self.place.check()
    }

    /// Begins a job, or goes on with it where it was begun before, here or in another process of the run: the bundle may
    /// be run again.
    pub(crate) fn begin(&self, id: RunId) -> Result<()> {
        let mut held = self.held();
        if held.job.as_ref().is_some_and(|(job, _)| *job == id) && self.place.is_open(id)? {
            return Ok(());
        }
        // Given up first: what stopped in the middle of its commit is finished by a new beginning.
        held.job = None;
        held.last = None;
        held.job = Some((id, self.place.begin(id)?));
        Ok(())
    }

    pub(crate) fn commit(&self, id: RunId, pieces: &[Piece], header: &[u8]) -> Result<Committed> {
        let mut held = self.held();
        if let Some((_, committed)) = held.last.as_ref().filter(|(last, _)| *last == id) {
            return Ok(committed.clone());
        }
        let committed = self.place.commit(id, pieces, header)?;
        held.last = Some((id, committed.clone()));
        let lock = held.job.take_if(|(job, _)| *job == id).and_then(|(_, lock)| lock);
        // The output is complete; a lock file that can't be removed does no harm to the next job.
        let _ = lock.map_or_else(|| self.place.release(id), |lock| lock.remove());
        Ok(committed)
    }

    /// Ends a job, if it didn't commit. What can't be removed now is cleared away by the next run.
    ///
    /// Only a run's end calls this, never the end of a process: engines let a worker go while others still write. It may be
    /// called where the job was not begun, by the client of the engine that ran it.
    pub(crate) fn close(&self, id: RunId) {
        let mut held = self.held();
        if held.last.as_ref().is_some_and(|(last, _)| *last == id) {
            return;
        }
        let lock = held.job.take_if(|(job, _)| *job == id).and_then(|(_, lock)| lock);
        if self.place.abandon(id).is_ok() {
            let _ = lock.map_or_else(|| self.place.release(id), |lock| lock.remove());
        }
    }
}

#[derive(Clone)]
struct BeginOutput {
    sink: Arc<Sink>,
    /// The sink's own step, by which the job is named.
    step: Arc<str>,
    job: Option<RunId>,
}

impl DoFn for BeginOutput {
    type In = Bytes;
    type Out = String;

    fn setup(&mut self, cx: &SetupContext) -> Result<()> {
        self.job = Some(cx.run().of_step(&self.step));
        Ok(())
    }

    fn process(&mut self, _: Bytes, _: &ElementContext<'_>, out: &mut Output<String>) -> Result<()> {
        let job = self.job.ok_or_else(|| Error::internal("an output was begun without a set-up"))?;
        self.sink.begin(job)?;
        out.emit(job.to_string());
        Ok(())
    }
}

/// The number of bundles that this process wrote, where the runner does not number them: names of temporary files begin with
/// it, so that the shards come in the order in which their bundles began.
static BUNDLES: AtomicU64 = AtomicU64::new(0);

/// Writes one temporary file a bundle (or one for each shard, where their number is given).
pub(crate) struct WriteShards<T, F: RecordFormat<T>> {
    sink: Arc<Sink>,
    format: F,
    view: View<String>,
    bundle: u64,
    job: Option<RunId>,
    /// By shard.
    open: Vec<Option<OpenPiece<F::File>>>,
    next: usize,
    /// The number of pieces begun in this bundle, for their names.
    begun: usize,
    /// The pieces that are complete already.
    complete: Vec<Piece>,
    records: Counter,
    elements: PhantomData<fn(T)>,
}

/// A temporary file being written. Dropped before its end, it removes itself.
struct OpenPiece<S> {
    state: S,
    fs: Arc<dyn FileSystem>,
    path: String,
    piece: Piece,
    buffer: Vec<u8>,
    encoder: Option<Encoder>,
}

impl<T: Element, F: RecordFormat<T>> WriteShards<T, F> {
    pub(crate) fn new(sink: Arc<Sink>, format: F, view: View<String>) -> Self {
        WriteShards {
            sink,
            format,
            view,
            bundle: 0,
            job: None,
            open: Vec::new(),
            next: 0,
            begun: 0,
            complete: Vec::new(),
            records: Counter::default(),
            elements: PhantomData,
        }
    }

    fn job(&mut self, cx: &BundleContext<'_>) -> Result<RunId> {
        if let Some(job) = self.job {
            return Ok(job);
        }
        let job = cx.side_input_in(&self.view, &Window::Global)?;
        Ok(*self.job.insert(job_of(&job)?))
    }

    fn start(&mut self, job: RunId, shard: usize, first: &T) -> Result<OpenPiece<F::File>> {
        let place = &self.sink.place;
        let name = format!("shard-{:020}-{:08}-{}", self.bundle, self.begun, RunId::new());
        self.begun += 1;
        let path = place.temp_path(job, &name);
        let header = self.format.header(Some(first))?.unwrap_or_default();
        // Shards that are put together from pieces are given their header then.
        let buffer = if place.target().num_shards.is_none() { header.clone() } else { Vec::new() };
        let piece = Piece { name, shard, records: 0, bytes: 0, header };
        let (state, fs) = (F::File::default(), place.shared_fs());
        let mut open = OpenPiece { state, fs, path, piece, buffer, encoder: None };
        if self.open.len() <= MOST_OPEN {
            open.create(place, job)?;
        }
        Ok(open)
    }

    /// Ends a piece; only now it needs a file, where there are many.
    fn finish(&mut self, job: RunId, mut open: OpenPiece<F::File>) -> Result<()> {
        open.create(&self.sink.place, job)?;
        self.format.finish(&mut open.state, &mut open.buffer)?;
        let piece = open.finish()?;
        self.complete.push(piece);
        Ok(())
    }

    /// Removes what a bundle that failed has written.
    fn drop_complete(&mut self) {
        if let Some(job) = self.job {
            for piece in self.complete.drain(..) {
                // What can't be removed now is cleared away with the job's directory.
                let _ = self.sink.place.fs().delete(&self.sink.place.temp_path(job, &piece.name));
            }
        }
    }

    fn add(&mut self, job: RunId, record: &T) -> Result<()> {
        let count = self.open.len();
        let shard = self.next;
        self.next = if shard + 1 == count { 0 } else { shard + 1 };
        if self.open[shard].is_none() {
            self.open[shard] = Some(self.start(job, shard, record)?);
        }
        let Some(open) = &mut self.open[shard] else { return Err(Error::internal("a shard is not open")) };
        let length = open.buffer.len();
        if let Err(error) = self.format.write(&mut open.state, record, &mut open.buffer) {
            open.buffer.truncate(length);
            return Err(error);
        }
        open.piece.records += 1;
        if count <= MOST_OPEN {
            return if open.buffer.len() >= FLUSH { open.flush() } else { Ok(()) };
        }
        if open.buffer.len() < (GATHERED / count).clamp(FLUSH / 16, FLUSH) {
            return Ok(());
        }
        match self.open[shard].take() {
            Some(open) => self.finish(job, open),
            None => Ok(()),
        }
    }
}

impl<S> OpenPiece<S> {
    /// Makes its file, unless it has one.
    fn create(&mut self, place: &Place, job: RunId) -> Result<()> {
        if self.encoder.is_none() {
            let file = place.create(job, &self.path)?;
            let encoder = Encoder::new(file, place.target().compression);
            self.encoder = Some(encoder.map_err(|e| failed_writing("write", &self.path, e))?);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(encoder) = &mut self.encoder {
            encoder.write_all(&self.buffer).map_err(|e| failed_writing("write", &self.path, e))?;
        }
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Piece> {
        self.flush()?;
        if let Some(encoder) = self.encoder.take() {
            match encoder.finish() {
                Ok(bytes) => self.piece.bytes = bytes,
                Err(e) => {
                    // Not a whole file: leave no trace of it.
                    let _ = self.fs.delete(&self.path);
                    return Err(failed_writing("write", &self.path, e));
                }
            }
        }
        Ok(self.piece.clone())
    }
}

impl<S> Drop for OpenPiece<S> {
    fn drop(&mut self) {
        if let Some(encoder) = self.encoder.take() {
            // Encoders write what they hold when they are dropped: let that happen before the file goes.
            drop(encoder);
            let _ = self.fs.delete(&self.path);
        }
    }
}

impl<T: Element, F: RecordFormat<T>> DoFn for WriteShards<T, F> {
    type In = T;
    type Out = (String, Option<Piece>);

    fn setup(&mut self, cx: &SetupContext) -> Result<()> {
        self.records = cx.counter(METRICS, "records");
        Ok(())
    }

    fn start_bundle(&mut self, cx: &BundleContext<'_>, _: &mut Output<Self::Out>) -> Result<()> {
        self.bundle = cx.number().unwrap_or_else(|| BUNDLES.fetch_add(1, Ordering::Relaxed));
        self.drop_complete();
        self.job = None;
        self.begun = 0;
        let count = self.sink.place.target().num_shards.unwrap_or(1);
        self.open.clear();
        self.open.resize_with(count, || None);
        // Small bundles would all begin with the first shard.
        self.next = (self.bundle % count as u64) as usize;
        Ok(())
    }

    fn process(&mut self, element: T, cx: &ElementContext<'_>, _: &mut Output<Self::Out>) -> Result<()> {
        let job = self.job(cx.bundle())?;
        self.add(job, &element)
    }

    fn process_batch(
        &mut self,
        batch: Batch<T>,
        cx: &BundleContext<'_>,
        _: &mut Output<Self::Out>,
    ) -> Result<()> {
        let job = self.job(cx)?;
        batch.values.iter().try_for_each(|record| self.add(job, record))
    }

    fn finish_bundle(&mut self, _: &BundleContext<'_>, out: &mut Output<Self::Out>) -> Result<()> {
        let Some(job) = self.job else { return Ok(()) };
        for open in std::mem::take(&mut self.open).into_iter().flatten() {
            self.finish(job, open)?;
        }
        for piece in std::mem::take(&mut self.complete) {
            self.records.add(piece.records as i64);
            out.emit_with((job.to_string(), Some(piece)), &WindowInfo::GLOBAL);
        }
        Ok(())
    }

    fn teardown(&mut self) {
        self.open.clear();
        self.drop_complete();
    }
}

/// The job's id as it travels between the steps.
fn job_of(text: &str) -> Result<RunId> {
    RunId::parse(text).ok_or_else(|| Error::internal(format!("`{text}` is no id of an output's job")))
}

/// Gives the pieces of a job their final names.
struct Commit<T, F> {
    sink: Arc<Sink>,
    format: F,
    counters: Option<(Counter, Counter)>,
    elements: PhantomData<fn(T)>,
}

impl<T, F: Clone> Clone for Commit<T, F> {
    fn clone(&self) -> Self {
        Commit {
            sink: self.sink.clone(),
            format: self.format.clone(),
            counters: self.counters.clone(),
            elements: PhantomData,
        }
    }
}

impl<T: Element, F: RecordFormat<T>> DoFn for Commit<T, F> {
    type In = (String, Iterable<Option<Piece>>);
    type Out = String;

    fn setup(&mut self, cx: &SetupContext) -> Result<()> {
        self.counters = Some((cx.counter(METRICS, "files"), cx.counter(METRICS, "bytes")));
        Ok(())
    }

    fn process(
        &mut self,
        (job, pieces): Self::In,
        _: &ElementContext<'_>,
        out: &mut Output<String>,
    ) -> Result<()> {
        let pieces: Vec<Piece> = pieces.iter().flatten().collect();
        let header = self.format.header(None)?.unwrap_or_default();
        let committed = self.sink.commit(job_of(&job)?, &pieces, &header)?;
        if let Some((files, bytes)) = &self.counters {
            files.add(committed.files.len() as i64);
            bytes.add(pieces.iter().map(|piece| piece.bytes as i64).sum());
        }
        committed.files.into_iter().for_each(|file| out.emit(file));
        Ok(())
    }
}

type Wire = ((String, u64), ((u64, u64), Bytes));

struct PieceCodec(Coder<Wire>);

impl Codec<Piece> for PieceCodec {
    fn encode(&self, piece: &Piece, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        let head = (piece.name.clone(), piece.shard as u64);
        let tail = ((piece.records, piece.bytes), Bytes::copy_from_slice(&piece.header));
        self.0.encode(&(head, tail), out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<Piece> {
        let ((name, shard), ((records, bytes), header)) = self.0.decode(input, nesting)?;
        let shard = usize::try_from(shard).unwrap_or(usize::MAX);
        Ok(Piece { name, shard, records, bytes, header: header.into() })
    }

    fn spec(&self) -> CoderSpec {
        self.0.spec()
    }
}

impl Element for Piece {
    fn coder() -> Coder<Self> {
        Coder::new(PieceCodec(Wire::coder()))
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        Ok(Coder::new(PieceCodec(Wire::coder_of(spec)?)))
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
