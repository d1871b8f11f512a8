//! Files as wholes: what is there, and what is in each.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::{
    Codec, Coder, CoderSpec, DoFn, Element, ElementContext, Error, ErrorKind, Nesting, Output, Reader,
    Result, SourcePlace, Timestamp,
};
use tiebeam_graph::{Begin, PCollection, PTransform, impulse};

use crate::compression::{Compression, is_damage};
use crate::fs::{self, FileMetadata};
use crate::ranges::FileRange;
use crate::read::{Listing, RangeReader, ReadAllFiles, ReadFiles, Records};

/// The most bytes of a file that is read as a whole when nothing else is said: 256 MiB.
pub const MAX_FILE: u64 = 256 << 20;

/// Gives the files that match a pattern, sorted by path. Applied to the pipeline.
#[derive(Debug, Clone)]
pub struct MatchAll {
    pattern: Arc<str>,
    allow_empty: bool,
}

/// The files that match a pattern (see [`glob`](crate::fs::glob)), with their sizes and times.
///
/// ```
/// use tiebeam_graph::Pipeline;
/// use tiebeam_io::files;
///
/// let p = Pipeline::new();
/// let paths = p.apply(files::match_all("in/*.csv")).map(|file| file.path);
/// ```
pub fn match_all(pattern: impl Into<Arc<str>>) -> MatchAll {
    MatchAll { pattern: pattern.into(), allow_empty: false }
}

impl MatchAll {
    /// A pattern that matches nothing gives nothing, instead of an error.
    #[must_use]
    pub fn allow_empty(self) -> Self {
        MatchAll { allow_empty: true, ..self }
    }
}

impl PTransform<Begin> for MatchAll {
    type Output = PCollection<FileMetadata>;

    #[track_caller]
    fn expand(self, input: Begin) -> PCollection<FileMetadata> {
        let (pattern, allow_empty) = (self.pattern.clone(), self.allow_empty);
        input.pipeline().add_input_digest(move || fs::digest(&pattern, allow_empty));
        impulse(input.pipeline()).step("List").par_do(self).reshuffle()
    }
}

impl DoFn for MatchAll {
    type In = Bytes;
    type Out = FileMetadata;

    fn process(&mut self, _: Bytes, _: &ElementContext<'_>, out: &mut Output<FileMetadata>) -> Result<()> {
        fs::list(&self.pattern, self.allow_empty)?.into_iter().for_each(|file| out.emit(file));
        Ok(())
    }
}

/// Reads each file that matches a pattern as `(path, bytes)`. Compressed files are decompressed where their names tell.
///
/// A file of more than 256 MiB is an error unless a larger bound is set.
pub fn read_whole(pattern: impl Into<Arc<str>>) -> ReadFiles<WholeFiles> {
    ReadFiles::new(pattern, WholeFiles { max_bytes: MAX_FILE })
}

/// Reads each file that matches a pattern of a PCollection as `(path, bytes)`; the paths themselves will do.
pub fn read_matches() -> ReadAllFiles<WholeFiles> {
    ReadAllFiles::new(WholeFiles { max_bytes: MAX_FILE })
}

/// Reads whole files.
#[derive(Debug, Clone)]
pub struct WholeFiles {
    max_bytes: u64,
}

impl ReadFiles<WholeFiles> {
    /// The most bytes of a file, decompressed.
    #[must_use]
    pub fn with_max_bytes(self, max_bytes: u64) -> Self {
        self.map_reader(|_| WholeFiles { max_bytes })
    }
}

impl ReadAllFiles<WholeFiles> {
    /// The most bytes of a file, decompressed.
    #[must_use]
    pub fn with_max_bytes(self, max_bytes: u64) -> Self {
        self.map_reader(|_| WholeFiles { max_bytes })
    }
}

impl RangeReader for WholeFiles {
    type Record = (String, Bytes);

    fn label(&self) -> &'static str {
        "ReadWholeFiles"
    }

    fn coder(&self) -> Coder<Self::Record> {
        Self::Record::coder()
    }

    fn is_splittable(&self) -> bool {
        false
    }

    fn read(
        &self,
        range: &FileRange,
        listing: &Listing,
        records: &mut Records<'_, Self::Record>,
    ) -> Result<()> {
        match read_file(&range.path, listing.compression, self.max_bytes) {
            Ok(bytes) => {
                records.push((range.path.clone(), bytes))?;
                // One file may be as large as many batches.
                records.flush()
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => records.bad(range.path.as_bytes(), error),
            Err(error) => Err(error),
        }
    }
}

/// All bytes of a file, decompressed.
///
/// # Errors
/// `InvalidData` for a file of more than `max_bytes` or a damaged compressed one; what the file system says.
pub fn read_file(path: &str, compression: Compression, max_bytes: u64) -> Result<Bytes> {
    let (fs, local) = fs::of_path(path)?;
    let place = || SourcePlace { file: path.to_owned(), ..SourcePlace::default() };
    let compression = compression.of_path(path)?;
    let opened = fs.open(&local, 0).and_then(|file| compression.decode(file));
    let reader = opened.map_err(|e| fs::failed_reading("open", path, e))?;
    let mut bytes = Vec::new();
    reader.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| {
        if is_damage(&e) {
            let message = format!("compressed file is damaged or cut off: {e}");
            Error::new(ErrorKind::InvalidData, "TB0408", message).at_place(place()).with_source(e)
        } else {
            fs::failed_reading("read", path, e)
        }
    })?;
    if bytes.len() as u64 > max_bytes {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "TB0410",
            format!("a file has more than {max_bytes} bytes"),
        )
        .at_place(place())
        .with_help("set a larger bound if such files are wanted"));
    }
    Ok(bytes.into())
}

type Wire = (String, (u64, i64));

struct MetadataCodec(Coder<Wire>);

impl Codec<FileMetadata> for MetadataCodec {
    fn encode(&self, file: &FileMetadata, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        self.0.encode(&(file.path.clone(), (file.size, file.modified.micros())), out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<FileMetadata> {
        let (path, (size, modified)) = self.0.decode(input, nesting)?;
        Ok(FileMetadata { path, size, modified: Timestamp::from_micros(modified) })
    }

    fn spec(&self) -> CoderSpec {
        self.0.spec()
    }
}

impl Element for FileMetadata {
    fn coder() -> Coder<Self> {
        Coder::new(MetadataCodec(Wire::coder()))
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        Ok(Coder::new(MetadataCodec(Wire::coder_of(spec)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::testing::{file, read_cut};

    #[test]
    fn whole_files_are_read_within_their_bound() {
        let (_dir, path) = file("x.bin", &[0, 255, 10]);
        let reader = WholeFiles { max_bytes: 3 };
        let (good, bad) = read_cut(&reader, &path, &Listing::default(), &[]).unwrap();
        assert_eq!(good, [(path.clone(), Bytes::from_static(&[0, 255, 10]))]);
        assert_eq!(bad.len(), 0);
        let (good, bad) = read_cut(&WholeFiles { max_bytes: 2 }, &path, &Listing::default(), &[]).unwrap();
        assert_eq!(good, []);
        assert_eq!(bad[0].0, path.as_bytes());
        assert_eq!(bad[0].1.to_string(), format!("a file has more than 2 bytes, at {path}"));
        assert_eq!(read_file("/no/such", Compression::Auto, 9).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_compressed_file_cannot_grow_without_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bomb.gz");
        let mut encoder =
            flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, &vec![0; 10 << 20]).unwrap();
        encoder.finish().unwrap();
        let path = path.to_str().unwrap();
        assert!(std::fs::metadata(path).unwrap().len() < 50_000);
        assert_eq!(read_file(path, Compression::Auto, 1 << 20).unwrap_err().code(), "TB0410");
        assert_eq!(read_file(path, Compression::Auto, 10 << 20).unwrap().len(), 10 << 20);
    }

    #[test]
    fn empty_files_are_files_too() {
        let (_dir, path) = file("empty", b"");
        let ranges =
            Listing { splitting: crate::Splitting::WHOLE, ..Listing::default() }.ranges(&path).unwrap();
        assert_eq!(ranges.len(), 1);
        let (good, _) = read_cut(&WholeFiles { max_bytes: 3 }, &path, &Listing::default(), &[]).unwrap();
        assert_eq!(good, [(path, Bytes::new())]);
    }

    #[test]
    fn listings_travel() {
        let file = FileMetadata { path: "a".into(), size: 7, modified: Timestamp::from_secs(-5) };
        let coder = FileMetadata::coder();
        assert_eq!(coder.from_bytes(coder.to_bytes(&file).unwrap()).unwrap(), file);
        assert_eq!(FileMetadata::coder_of(&coder.spec()).unwrap().spec(), coder.spec());
    }

    #[test]
    fn pipelines_are_built_of_them() {
        let p = tiebeam_graph::Pipeline::new();
        let paths = p.apply(match_all("no/such/*").allow_empty()).map(|file| file.path);
        paths.apply(read_matches().with_max_bytes(10).with_error_handling()).records.map(|(path, _)| path);
        p.apply(read_whole("no/such/*"));
        p.build().unwrap();
    }
}
