//! Lists files and cuts them into the ranges that are read in parallel.

use tiebeam_core::{Codec, Coder, CoderSpec, Element, Nesting, Reader, Result};

use crate::compression::Compression;
use crate::fs::FileMetadata;

/// A part of a file. Travels as Beam's `kv<string, kv<varint, kv<varint, varint>>>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRange {
    /// The file's path.
    pub path: String,
    /// The file's size when it was listed.
    pub size: u64,
    /// The first byte of the part.
    pub start: u64,
    /// The first byte behind it.
    pub end: u64,
}

/// How large the parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splitting {
    /// The most bytes in a part.
    pub max_bytes: u64,
    /// The fewest bytes in a part of a larger file.
    pub min_bytes: u64,
    /// The number of parts to aim at over all files of one pattern; none is four for each processor.
    pub parts: Option<usize>,
}

impl Default for Splitting {
    /// Parts of 1 to 64 MiB, four for each processor.
    fn default() -> Self {
        Splitting { max_bytes: 64 << 20, min_bytes: 1 << 20, parts: None }
    }
}

impl Splitting {
    /// Never cuts a file, and keeps empty ones.
    pub const WHOLE: Splitting = Splitting { max_bytes: u64::MAX, min_bytes: u64::MAX, parts: Some(1) };

    /// The ranges of some files. A compressed file is one range; an empty one none, unless files are read as
    /// [wholes](Splitting::WHOLE).
    ///
    /// # Errors
    /// As [`Compression::of_path`].
    pub fn split(&self, files: &[FileMetadata], compression: Compression) -> Result<Vec<FileRange>> {
        let mut ranges = Vec::new();
        self.split_each(files.to_vec(), compression, &mut |range| ranges.push(range))?;
        Ok(ranges)
    }

    /// The same, one after another: of a million files there is one list and not two.
    ///
    /// # Errors
    /// As [`Compression::of_path`].
    pub fn split_each(
        &self,
        files: Vec<FileMetadata>,
        compression: Compression,
        take: &mut dyn FnMut(FileRange),
    ) -> Result<()> {
        let total: u64 = files.iter().map(|file| file.size).sum();
        let parts = self.parts.unwrap_or_else(|| {
            // Asked where the files are listed, not where the pipeline is built: machines differ.
            4 * std::thread::available_parallelism().map_or(1, usize::from)
        });
        let min = self.min_bytes.max(1);
        let wanted = total.div_ceil((parts as u64).max(1)).clamp(min, self.max_bytes.max(min));
        for file in files.into_iter().filter(|file| file.size > 0 || *self == Splitting::WHOLE) {
            let pieces = match compression.of_path(&file.path)?.is_splittable() {
                true => file.size.div_ceil(wanted).max(1),
                false => 1,
            };
            // Parts of equal size, so that no small rest is left.
            let cut = |i: u64| (u128::from(file.size) * u128::from(i) / u128::from(pieces)) as u64;
            let size = file.size;
            for i in 1..pieces {
                take(FileRange { path: file.path.clone(), size, start: cut(i - 1), end: cut(i) });
            }
            take(FileRange { path: file.path, size, start: cut(pieces - 1), end: size });
        }
        Ok(())
    }
}

type Wire = (String, (u64, (u64, u64)));

struct RangeCodec(Coder<Wire>);

impl Codec<FileRange> for RangeCodec {
    fn encode(&self, range: &FileRange, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        self.0.encode(&(range.path.clone(), (range.size, (range.start, range.end))), out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<FileRange> {
        let (path, (size, (start, end))) = self.0.decode(input, nesting)?;
        Ok(FileRange { path, size, start, end })
    }

    fn spec(&self) -> CoderSpec {
        self.0.spec()
    }
}

impl Element for FileRange {
    fn coder() -> Coder<Self> {
        Coder::new(RangeCodec(Wire::coder()))
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        Ok(Coder::new(RangeCodec(Wire::coder_of(spec)?)))
    }
}

#[cfg(test)]
mod tests {
    use tiebeam_core::Timestamp;

    use super::*;

    fn file(path: &str, size: u64) -> FileMetadata {
        FileMetadata { path: path.into(), size, modified: Timestamp::MIN }
    }

    fn cuts(splitting: Splitting, files: &[FileMetadata]) -> Vec<(String, u64, u64)> {
        let ranges = splitting.split(files, Compression::Auto).unwrap();
        ranges.into_iter().map(|r| (r.path, r.start, r.end)).collect()
    }

    #[test]
    fn files_are_cut_evenly() {
        let parts = |n| Splitting { max_bytes: 100, min_bytes: 10, parts: Some(n) };
        assert_eq!(
            cuts(parts(4), &[file("a", 8), file("b", 0)]),
            [("a".into(), 0, 8)],
            "small files stay whole"
        );
        assert_eq!(
            cuts(parts(4), &[file("a", 81)]),
            [("a".into(), 0, 20), ("a".into(), 20, 40), ("a".into(), 40, 60), ("a".into(), 60, 81)]
        );
        assert_eq!(cuts(parts(1), &[file("a", 201)]).len(), 3, "parts have an upper bound");
        assert_eq!(cuts(parts(9), &[file("a.gz", 5000)]), [("a.gz".into(), 0, 5000)]);
        assert_eq!(cuts(Splitting::WHOLE, &[file("a", u64::MAX / 2)]).len(), 1);
        let many = cuts(Splitting { parts: Some(8), ..Splitting::default() }, &[file("a", 16 << 20)]);
        assert_eq!(many.len(), 8);
    }

    #[test]
    fn ranges_travel() {
        let range = FileRange { path: "a\u{e9}".into(), size: u64::MAX, start: 1, end: 1 << 40 };
        let coder = FileRange::coder();
        assert_eq!(coder.from_bytes(coder.to_bytes(&range).unwrap()).unwrap(), range);
        assert_eq!(FileRange::coder_of(&coder.spec()).unwrap().spec(), coder.spec());
    }
}
