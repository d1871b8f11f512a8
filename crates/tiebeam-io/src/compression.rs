//! Compressed files: gzip and zstd, read as a stream and written as one.

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use tiebeam_core::{Error, ErrorKind, Result};

use crate::fs::WriteFile;

/// How a file's bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// By the path's extension: `.gz` is gzip, `.zst` and `.zstd` are zstd, anything else is not compressed.
    #[default]
    Auto,
    /// Not at all, whatever the path says.
    None,
    /// Gzip; a file of several members is read as their texts in a row.
    Gzip,
    /// Zstandard; several frames likewise. Frames that want a window of more than 128 MiB are refused.
    Zstd,
}

impl Compression {
    /// What the path's extension says; never [`Auto`](Compression::Auto).
    ///
    /// # Errors
    /// `Unsupported` for the extension of a compression that we don't have, where reading it as plain text would only
    /// give a confusing error later.
    pub fn of_path(self, path: &str) -> Result<Compression> {
        if self != Compression::Auto {
            return Ok(self);
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
        match extension.as_str() {
            "gz" | "gzip" => Ok(Compression::Gzip),
            "zst" | "zstd" => Ok(Compression::Zstd),
            "bz2" | "xz" | "lzma" | "lz4" | "br" | "snappy" | "zip" => Err(Error::new(
                ErrorKind::Unsupported,
                "TB0412",
                format!("`{path}`: files compressed as `.{extension}` cannot be read"),
            )
            .with_help("use gzip or zstd, or set the compression to none to read the bytes as they are")),
            _ => Ok(Compression::None),
        }
    }

    /// Whether a reader can begin in the middle.
    pub fn is_splittable(self) -> bool {
        self == Compression::None
    }

    /// The extension that this compression is known by, with its dot; empty for none.
    pub fn extension(self) -> &'static str {
        match self {
            Compression::Auto | Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        }
    }

    /// The plain bytes of what `inner` reads.
    ///
    /// # Errors
    /// When a decoder can't be made.
    pub(crate) fn decode(self, inner: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Compression::Auto | Compression::None => inner,
            Compression::Gzip => Box::new(MultiGzDecoder::new(inner)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(inner)?),
        })
    }
}

/// Whether an error of a decoder means damaged bytes and not a failing disk.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::InvalidInput | E::InvalidData | E::UnexpectedEof)
        || error.raw_os_error().is_none()
}

/// A file being written, compressed on the way; counts the bytes that reach the file.
pub(crate) enum Encoder {
    Plain(Counted),
    Gzip(GzEncoder<Counted>),
    Zstd(zstd::stream::write::Encoder<'static, Counted>),
}

impl Encoder {
    pub(crate) fn new(file: Box<dyn WriteFile>, compression: Compression) -> io::Result<Self> {
        Encoder::over(Counted::new(file), compression)
    }

    /// A stream at the place where a file is now.
    pub(crate) fn over(file: Counted, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Auto | Compression::None => Encoder::Plain(file),
            Compression::Gzip => Encoder::Gzip(GzEncoder::new(file, flate2::Compression::default())),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(file, 0)?;
                encoder.include_checksum(true)?;
                Encoder::Zstd(encoder)
            }
        })
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Encoder::Plain(file) => file.write_all(bytes),
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// Ends the stream but not the file.
    pub(crate) fn into_file(self) -> io::Result<Counted> {
        match self {
            Encoder::Plain(file) => Ok(file),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }

    /// Ends the stream and the file, which is on stable storage then; the bytes in it.
    pub(crate) fn finish(self) -> io::Result<u64> {
        self.into_file()?.finish()
    }
}

/// Counts what is written.
pub(crate) struct Counted {
    file: Box<dyn WriteFile>,
    bytes: u64,
}

impl Counted {
    pub(crate) fn new(file: Box<dyn WriteFile>) -> Self {
        Counted { file, bytes: 0 }
    }

    /// Ends the file, which is on stable storage then; the bytes in it.
    pub(crate) fn finish(self) -> io::Result<u64> {
        self.file.finish()?;
        Ok(self.bytes)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::FileSystem;
    use crate::fs::local::Local;

    #[test]
    fn extensions_tell() {
        let of = |path: &str| Compression::Auto.of_path(path);
        assert_eq!(of("a/b.csv.GZ").unwrap(), Compression::Gzip);
        assert_eq!(of("b.zst").unwrap(), Compression::Zstd);
        assert_eq!(of("dir.gz/b").unwrap(), Compression::None);
        assert_eq!(Compression::None.of_path("b.gz").unwrap(), Compression::None);
        let error = of("b.bz2").unwrap_err();
        assert_eq!(error.message(), "`b.bz2`: files compressed as `.bz2` cannot be read");
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = "line of text\n".repeat(100_000);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let path = dir.path().join("x").to_str().unwrap().to_owned();
            let mut encoder = Encoder::new(Local.create(&path).unwrap(), compression).unwrap();
            encoder.write_all(text.as_bytes()).unwrap();
            let bytes = encoder.finish().unwrap();
            assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
            assert!(compression == Compression::None || bytes < 10_000);
            let mut read = String::new();
            let mut reader = compression.decode(Local.open(&path, 0).unwrap()).unwrap();
            reader.read_to_string(&mut read).unwrap();
            assert_eq!(read, text);
        }
    }
}
