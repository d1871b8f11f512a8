//! Text files, line by line.
//!
//! Lines end with `\n` or `\r\n`; the last one may have no end. A byte order mark at a file's start is left out. Text is
//! UTF-8.

use std::fmt::Display;
use std::io::Write;
use std::sync::Arc;

use tiebeam_core::{Coder, Element, Error, ErrorKind, Result};

use crate::lines::Line;
use crate::ranges::FileRange;
use crate::read::{Listing, RangeReader, ReadAllFiles, ReadFiles, Records, lines, too_long};
use crate::sink::RecordFormat;
use crate::sink::write::WriteFiles;

/// Reads the lines of the files that match a pattern (see [`glob`](crate::fs::glob)) as Strings, in no order.
///
/// ```
/// use tiebeam_graph::Pipeline;
/// use tiebeam_io::text;
///
/// let p = Pipeline::new();
/// let lengths = p.apply(text::read("logs/**/*.txt.gz")).map(|line| line.len());
/// ```
pub fn read(pattern: impl Into<Arc<str>>) -> ReadFiles<TextReader> {
    ReadFiles::new(pattern, TextReader::default())
}

/// Reads the lines of the files that match each pattern of a PCollection.
pub fn read_all() -> ReadAllFiles<TextReader> {
    ReadAllFiles::new(TextReader::default())
}

/// Writes each element on a line of its own, into files `path-00000-of-00003`; gives their paths.
///
/// ```
/// use tiebeam_graph::{Create, Pipeline};
/// use tiebeam_io::text;
///
/// let p = Pipeline::new();
/// let files = p.apply(Create::of([1i64, 2])).apply(text::write("out/numbers").with_suffix(".txt"));
/// ```
pub fn write(path: &str) -> WriteFiles<TextFormat> {
    WriteFiles::new(path, TextFormat::default(), "WriteToText")
}

/// Reads lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextReader {
    keep_newlines: bool,
    skip_header_lines: usize,
}

impl ReadFiles<TextReader> {
    /// Keeps the end of each line as it stands in the file.
    #[must_use]
    pub fn keep_newlines(self) -> Self {
        self.map_reader(|reader| TextReader { keep_newlines: true, ..reader })
    }

    /// Leaves out that many lines at the start of each file.
    #[must_use]
    pub fn skip_header_lines(self, count: usize) -> Self {
        self.map_reader(|reader| TextReader { skip_header_lines: count, ..reader })
    }
}

impl ReadAllFiles<TextReader> {
    /// Keeps the end of each line as it stands in the file.
    #[must_use]
    pub fn keep_newlines(self) -> Self {
        self.map_reader(|reader| TextReader { keep_newlines: true, ..reader })
    }

    /// Leaves out that many lines at the start of each file.
    #[must_use]
    pub fn skip_header_lines(self, count: usize) -> Self {
        self.map_reader(|reader| TextReader { skip_header_lines: count, ..reader })
    }
}

impl RangeReader for TextReader {
    type Record = String;

    fn label(&self) -> &'static str {
        "ReadFromText"
    }

    fn coder(&self) -> Coder<String> {
        String::coder()
    }

    fn read(&self, range: &FileRange, listing: &Listing, records: &mut Records<'_, String>) -> Result<()> {
        let mut lines = lines(range, listing, self.skip_header_lines)?;
        while let Some(line) = lines.next()? {
            if line.too_long {
                records.bad(line.bytes, too_long(&line, &range.path, listing.max_record))?;
                continue;
            }
            match std::str::from_utf8(line.bytes) {
                Ok(text) if self.keep_newlines => {
                    let mut whole = String::with_capacity(text.len() + line.terminator.len());
                    whole.push_str(text);
                    whole.extend(line.terminator.iter().map(|byte| *byte as char));
                    records.push(whole)?;
                }
                Ok(text) => records.push(text.to_owned())?,
                Err(e) => records.bad(&line.with_terminator(), not_utf8(&line, &range.path, e))?,
            }
        }
        Ok(())
    }
}

/// The error of a line that is not UTF-8.
pub(crate) fn not_utf8(line: &Line<'_>, file: &str, error: std::str::Utf8Error) -> Error {
    let at = error.valid_up_to();
    let byte = line.bytes.get(at).copied().unwrap_or_default();
    Error::new(
        ErrorKind::InvalidData,
        "TB0406",
        format!("a line is not UTF-8: byte 0x{byte:02x} at its position {at}"),
    )
    .at_place(line.place(file))
    .with_help("convert the file to UTF-8, or send bad lines to an output of their own")
}

/// Lines of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextFormat {
    header: Option<Arc<str>>,
}

impl WriteFiles<TextFormat> {
    /// A line that each file begins with.
    #[must_use]
    pub fn with_header(self, header: impl Into<Arc<str>>) -> Self {
        self.map_format(|_| TextFormat { header: Some(header.into()) })
    }
}

impl<T: Display> RecordFormat<T> for TextFormat {
    type File = ();

    fn header(&self, _: Option<&T>) -> Result<Option<Vec<u8>>> {
        Ok(self.header.as_ref().map(|header| format!("{header}\n").into_bytes()))
    }

    fn write(&self, (): &mut (), record: &T, out: &mut Vec<u8>) -> Result<()> {
        // Straight into the buffer, without a String of its own.
        writeln!(out, "{record}").map_err(|e| {
            Error::new(ErrorKind::UserCode, "TB0444", format!("an element cannot be written as text: {e}"))
        })
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
