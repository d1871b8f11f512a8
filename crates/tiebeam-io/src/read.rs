//! Reading files record by record: list and split, spread, read one range at a time.
//!
//! A format brings a [`RangeReader`]; everything else is here. Nothing is looked at while the pipeline is built: files are
//! listed when it runs.

use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::failed::failed_coder;
use tiebeam_core::{
    BATCH_SIZE, Batch, Coder, DoFn, Element, ElementContext, Error, ErrorKind, Failed, Failure, Output,
    OutputTag, Result, SetupContext,
};
use tiebeam_graph::{Begin, PCollection, PTransform, ParDo, impulse};

use crate::compression::Compression;
use crate::fs;
use crate::lines::{Line, Lines, MAX_LINE};
use crate::ranges::{FileRange, Splitting};

/// How files are found and cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Whether a pattern may match nothing.
    pub allow_empty: bool,
    /// How the files are compressed.
    pub compression: Compression,
    /// How large the parts are that are read at once.
    pub splitting: Splitting,
    /// The most bytes of one line or record.
    pub max_record: usize,
}

impl Default for Listing {
    fn default() -> Self {
        Listing {
            allow_empty: false,
            compression: Compression::Auto,
            splitting: Splitting::default(),
            max_record: MAX_LINE,
        }
    }
}

impl Listing {
    /// The ranges of all files that match a pattern.
    ///
    /// # Errors
    /// `NotFound` when nothing matches and that is not allowed; what the file system says.
    pub fn ranges(&self, pattern: &str) -> Result<Vec<FileRange>> {
        let mut ranges = Vec::new();
        self.each_range(pattern, &mut |range| ranges.push(range))?;
        Ok(ranges)
    }

    /// The same, one after another.
    ///
    /// # Errors
    /// As [`ranges`](Listing::ranges).
    pub fn each_range(&self, pattern: &str, take: &mut dyn FnMut(FileRange)) -> Result<()> {
        self.splitting.split_each(fs::list(pattern, self.allow_empty)?, self.compression, take)
    }
}

/// Reads the records of one range of a file. One instance is cloned for each thread.
pub trait RangeReader: Clone + Send + Sync + 'static {
    /// What a record becomes.
    type Record: Element;

    /// The name of a transform that reads this, such as `ReadFromText`.
    fn label(&self) -> &'static str;

    /// How records travel.
    fn coder(&self) -> Coder<Self::Record>;

    /// What is wrong with the options, found while the pipeline is built.
    ///
    /// # Errors
    /// The mistake.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Whether a file of this format may be cut at line ends.
    fn is_splittable(&self) -> bool {
        true
    }

    /// Reads all records that begin in the range.
    ///
    /// # Errors
    /// When the file can't be read, or a record is bad and `records` doesn't take bad ones.
    fn read(
        &self,
        range: &FileRange,
        listing: &Listing,
        records: &mut Records<'_, Self::Record>,
    ) -> Result<()>;
}

/// Takes what a range holds, in batches.
pub struct Records<'a, T> {
    values: Vec<T>,
    emit: &'a mut dyn FnMut(Vec<T>) -> Result<()>,
    fail: &'a mut dyn FnMut(Bytes, Error) -> Result<()>,
}

impl<'a, T> Records<'a, T> {
    /// Passes batches on to `emit`, and bad records with their reasons to `fail`, which may return the error to end it all.
    pub fn new(
        emit: &'a mut dyn FnMut(Vec<T>) -> Result<()>,
        fail: &'a mut dyn FnMut(Bytes, Error) -> Result<()>,
    ) -> Self {
        Records { values: Vec::with_capacity(BATCH_SIZE), emit, fail }
    }

    /// One record.
    ///
    /// # Errors
    /// When what is downstream failed.
    #[inline]
    pub fn push(&mut self, record: T) -> Result<()> {
        self.values.push(record);
        if self.values.len() < BATCH_SIZE { Ok(()) } else { self.flush() }
    }

    /// A record that can't be read: its bytes as they stand in the file.
    ///
    /// # Errors
    /// The error itself where bad records are not taken.
    pub fn bad(&mut self, bytes: &[u8], error: Error) -> Result<()> {
        (self.fail)(Bytes::copy_from_slice(bytes), error)
    }

    /// Passes on what is gathered.
    ///
    /// # Errors
    /// When what is downstream failed.
    pub fn flush(&mut self) -> Result<()> {
        if self.values.is_empty() {
            return Ok(());
        }
        (self.emit)(std::mem::replace(&mut self.values, Vec::with_capacity(BATCH_SIZE)))
    }
}

/// The error of a line that is longer than allowed.
pub(crate) fn too_long(line: &Line<'_>, file: &str, limit: usize) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0407", format!("a line is longer than {limit} bytes"))
        .at_place(line.place(file))
        .with_help("is this a text file? set a larger bound if it is")
}

/// Opens the lines of a range by the listing's options.
pub(crate) fn lines(range: &FileRange, listing: &Listing, header: usize) -> Result<Lines> {
    Lines::open(range, listing.compression, header, listing.max_record)
}

/// Reads the files that match a pattern. Applied to the pipeline.
#[derive(Debug, Clone)]
pub struct ReadFiles<R> {
    pattern: Arc<str>,
    all: ReadAllFiles<R>,
}

/// Reads the files that match each pattern of a PCollection.
#[derive(Debug, Clone)]
pub struct ReadAllFiles<R> {
    listing: Listing,
    reader: R,
}

/// [`ReadFiles`] or [`ReadAllFiles`] with the records that can't be read as a second output.
#[derive(Debug, Clone)]
pub struct WithBadRecords<T>(T);

/// What is read, and what could not be.
pub struct ReadResults<T> {
    /// The records.
    pub records: PCollection<T>,
    /// The bytes of the bad records, each with its reason and place.
    pub failed: PCollection<Failed<Bytes>>,
}

impl<R: RangeReader> ReadFiles<R> {
    /// Reads what matches `pattern` with `reader`.
    pub fn new(pattern: impl Into<Arc<str>>, reader: R) -> Self {
        ReadFiles { pattern: pattern.into(), all: ReadAllFiles::new(reader) }
    }

    /// A pattern that matches nothing gives nothing, instead of an error.
    #[must_use]
    pub fn allow_empty(mut self) -> Self {
        self.all.listing.allow_empty = true;
        self
    }

    /// How the files are compressed, where their names don't tell.
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.all.listing.compression = compression;
        self
    }

    /// How large the parts are that are read at once.
    #[must_use]
    pub fn with_splitting(mut self, splitting: Splitting) -> Self {
        self.all.listing.splitting = splitting;
        self
    }

    /// The most bytes of a line or record; 64 MiB by default.
    #[must_use]
    pub fn with_max_record(mut self, bytes: usize) -> Self {
        self.all.listing.max_record = bytes;
        self
    }

    /// Changes the reader's own options.
    #[must_use]
    pub fn map_reader(mut self, change: impl FnOnce(R) -> R) -> Self {
        self.all = self.all.map_reader(change);
        self
    }

    /// Sends records that can't be read to an output of their own, instead of ending the job.
    pub fn with_error_handling(self) -> WithBadRecords<Self> {
        WithBadRecords(self)
    }
}

impl<R: RangeReader> ReadAllFiles<R> {
    /// Reads with `reader`.
    pub fn new(reader: R) -> Self {
        ReadAllFiles { listing: Listing::default(), reader }
    }

    /// Changes how files are found and cut.
    #[must_use]
    pub fn map_listing(mut self, change: impl FnOnce(Listing) -> Listing) -> Self {
        self.listing = change(self.listing);
        self
    }

    /// Changes the reader's own options.
    #[must_use]
    pub fn map_reader(mut self, change: impl FnOnce(R) -> R) -> Self {
        self.reader = change(self.reader);
        self
    }

    /// Sends records that can't be read to an output of their own, instead of ending the job.
    pub fn with_error_handling(self) -> WithBadRecords<Self> {
        WithBadRecords(self)
    }

    /// The listing as the format bears it.
    fn own_listing(&self) -> Listing {
        let splitting = if self.reader.is_splittable() { self.listing.splitting } else { Splitting::WHOLE };
        Listing { splitting, ..self.listing.clone() }
    }

    fn read_range(&self, failed: Option<OutputTag<Failed<Bytes>>>) -> ParDo<FileRange, R::Record> {
        let coder = self.reader.coder();
        let listing = self.own_listing();
        ParDo::new(ReadRange { reader: self.reader.clone(), listing, failed, step: "".into() })
            .with_coder(coder)
    }
}

impl<R: RangeReader> ReadFiles<R> {
    #[track_caller]
    fn ranges(&self, input: &Begin) -> PCollection<FileRange> {
        if let Err(error) = self.all.reader.check() {
            input.pipeline().fail(error);
        }
        let list = ListPattern { pattern: self.pattern.clone(), listing: self.all.own_listing() };
        let (pattern, allow_empty) = (self.pattern.clone(), self.all.listing.allow_empty);
        input.pipeline().add_input_digest(move || fs::digest(&pattern, allow_empty));
        impulse(input.pipeline()).step("List").par_do(list).reshuffle_one_by_one()
    }
}

impl<R: RangeReader> ReadAllFiles<R> {
    #[track_caller]
    fn ranges(&self, input: &PCollection<String>) -> PCollection<FileRange> {
        if let Err(error) = self.reader.check() {
            input.pipeline().fail(error);
        }
        input.step("List").par_do(ListEach { listing: self.own_listing() }).reshuffle_one_by_one()
    }
}

#[track_caller]
fn read_ranges<R: RangeReader>(
    all: &ReadAllFiles<R>,
    ranges: PCollection<FileRange>,
) -> PCollection<R::Record> {
    ranges.step("Read").apply(all.read_range(None))
}

#[track_caller]
fn read_ranges_and_bad<R: RangeReader>(
    all: &ReadAllFiles<R>,
    ranges: PCollection<FileRange>,
) -> ReadResults<R::Record> {
    let tag = OutputTag::<Failed<Bytes>>::new("failed");
    let read = all.read_range(Some(tag.clone())).with_dead_letters(&tag, failed_coder(Bytes::coder()));
    let outputs = ranges.step("Read").apply(read);
    ReadResults { failed: outputs.get(&tag), records: outputs.main }
}

impl<R: RangeReader> PTransform<Begin> for ReadFiles<R> {
    type Output = PCollection<R::Record>;

    fn label(&self) -> String {
        self.all.reader.label().to_owned()
    }

    #[track_caller]
    fn expand(self, input: Begin) -> Self::Output {
        read_ranges(&self.all, self.ranges(&input))
    }
}

impl<R: RangeReader> PTransform<Begin> for WithBadRecords<ReadFiles<R>> {
    type Output = ReadResults<R::Record>;

    fn label(&self) -> String {
        self.0.all.reader.label().to_owned()
    }

    #[track_caller]
    fn expand(self, input: Begin) -> Self::Output {
        read_ranges_and_bad(&self.0.all, self.0.ranges(&input))
    }
}

impl<R: RangeReader> PTransform<PCollection<String>> for ReadAllFiles<R> {
    type Output = PCollection<R::Record>;

    fn label(&self) -> String {
        format!("{}All", self.reader.label())
    }

    #[track_caller]
    fn expand(self, input: PCollection<String>) -> Self::Output {
        read_ranges(&self, self.ranges(&input))
    }
}

impl<R: RangeReader> PTransform<PCollection<String>> for WithBadRecords<ReadAllFiles<R>> {
    type Output = ReadResults<R::Record>;

    fn label(&self) -> String {
        format!("{}All", self.0.reader.label())
    }

    #[track_caller]
    fn expand(self, input: PCollection<String>) -> Self::Output {
        read_ranges_and_bad(&self.0, self.0.ranges(&input))
    }
}

#[derive(Clone)]
struct ListPattern {
    pattern: Arc<str>,
    listing: Listing,
}

impl DoFn for ListPattern {
    type In = Bytes;
    type Out = FileRange;

    fn process(&mut self, _: Bytes, _: &ElementContext<'_>, out: &mut Output<FileRange>) -> Result<()> {
        self.listing.each_range(&self.pattern, &mut |range| out.emit(range))
    }
}

#[derive(Clone)]
struct ListEach {
    listing: Listing,
}

impl DoFn for ListEach {
    type In = String;
    type Out = FileRange;

    fn process(
        &mut self,
        pattern: String,
        _: &ElementContext<'_>,
        out: &mut Output<FileRange>,
    ) -> Result<()> {
        self.listing.each_range(&pattern, &mut |range| out.emit(range))
    }
}

/// Reads one range after another.
#[derive(Clone)]
pub(crate) struct ReadRange<R> {
    pub(crate) reader: R,
    pub(crate) listing: Listing,
    pub(crate) failed: Option<OutputTag<Failed<Bytes>>>,
    pub(crate) step: Arc<str>,
}

impl<R: RangeReader> DoFn for ReadRange<R> {
    type In = FileRange;
    type Out = R::Record;

    fn setup(&mut self, cx: &SetupContext) -> Result<()> {
        self.step = cx.step().into();
        Ok(())
    }

    fn process(
        &mut self,
        range: FileRange,
        cx: &ElementContext<'_>,
        out: &mut Output<R::Record>,
    ) -> Result<()> {
        if cx.bundle().has_enough() {
            return Ok(());
        }
        let out = std::cell::RefCell::new(out);
        let stopped = std::cell::Cell::new(false);
        let mut emit = |values: Vec<R::Record>| {
            let mut out = out.borrow_mut();
            out.forward(Batch::uniform(values, cx.info().clone()));
            out.check()?;
            if cx.bundle().has_enough() {
                // An error is the only way out of a reader; it ends here.
                stopped.set(true);
                return Err(Error::internal("enough was read"));
            }
            if cx.bundle().is_cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "TB0510", "the job was cancelled"));
            }
            Ok(())
        };
        let mut fail = |bytes: Bytes, error: Error| match &self.failed {
            Some(tag) => {
                let failure = Failure::of(&self.step, &error);
                let mut out = out.borrow_mut();
                out.emit_to_with(tag, Failed { element: bytes, failure }, cx.info());
                out.check()
            }
            None => Err(error),
        };
        let mut records = Records::new(&mut emit, &mut fail);
        match self.reader.read(&range, &self.listing, &mut records) {
            Err(_) if stopped.get() => return Ok(()),
            // A file that is damaged in the middle: what came before it counts, and the file is the bad record.
            Err(error) if self.failed.is_some() && error.kind() == ErrorKind::InvalidData => {
                records.bad(range.path.as_bytes(), error)?;
            }
            read => read?,
        }
        match records.flush() {
            Err(_) if stopped.get() => Ok(()),
            flushed => flushed,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Reads files with a reader, without a pipeline.

    use super::*;

    /// What a reader makes of a file that is cut at `cuts`: the records of each part in a row, and the bad ones.
    pub(crate) fn read_cut<R: RangeReader>(
        reader: &R,
        path: &str,
        listing: &Listing,
        cuts: &[u64],
    ) -> Result<(Vec<R::Record>, Vec<(Bytes, Error)>)> {
        let size = std::fs::metadata(path).unwrap().len();
        let mut good = Vec::new();
        let mut bad = Vec::new();
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain(std::iter::once(size));
        for (start, end) in starts.zip(ends) {
            let range = FileRange { path: path.to_owned(), size, start, end };
            let mut emit = |values: Vec<R::Record>| {
                good.extend(values);
                Ok(())
            };
            let mut fail = |bytes, error| {
                bad.push((bytes, error));
                Ok(())
            };
            let mut records = Records::new(&mut emit, &mut fail);
            reader.read(&range, listing, &mut records)?;
            records.flush()?;
        }
        Ok((good, bad))
    }

    /// A file with these bytes.
    pub(crate) fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (dir, path)
    }
}
