//! Text files, line by line.
//!
//! Lines end with `\n` or `\r\n`; the last one may have no end. A byte order mark at a file's start is left out. Text is
//! UTF-8.

use std::fmt::Display;
use std::io::Write;
use std::marker::PhantomData;
use std::sync::Arc;

use tiebeam_core::{Coder, Element, Error, ErrorKind, Result};

use crate::lines::Line;
use crate::number::{write_f32, write_f64, write_int};
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

/// Writes each element as the line that `format` puts together, straight into the file's buffer: what a sink of many numbers
/// wants, since neither a String an element nor the standard library's formatting is paid for.
///
/// ```
/// use tiebeam_graph::{Create, Pipeline};
/// use tiebeam_io::text;
///
/// let p = Pipeline::new();
/// let halves = p.apply(Create::of([1i64, 3])).map(|n| (n, n as f64 / 2.0));
/// // 1,0.5 and 3,1.5
/// halves.apply(text::write_with("out/halves", |(n, half), line| {
///     line.number(*n).text(",").number(*half);
/// }));
/// ```
pub fn write_with<T, F>(path: &str, format: F) -> WriteFiles<LineFormat<T, F>>
where
    T: Element,
    F: Fn(&T, &mut LineWriter<'_>) + Send + Sync + 'static,
{
    let format = LineFormat { format: Arc::new(format), element: PhantomData };
    WriteFiles::new(path, format, "WriteToText")
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

/// Lines that a function puts together; made by [`write_with`].
pub struct LineFormat<T, F> {
    format: Arc<F>,
    element: PhantomData<fn(&T)>,
}

impl<T, F> Clone for LineFormat<T, F> {
    fn clone(&self) -> Self {
        LineFormat { format: self.format.clone(), element: PhantomData }
    }
}

impl<T, F> RecordFormat<T> for LineFormat<T, F>
where
    T: Element,
    F: Fn(&T, &mut LineWriter<'_>) + Send + Sync + 'static,
{
    type File = ();

    fn write(&self, (): &mut (), record: &T, out: &mut Vec<u8>) -> Result<()> {
        (self.format)(record, &mut LineWriter(out));
        out.push(b'\n');
        Ok(())
    }
}

/// A line under construction. Numbers are written with the fewest digits that read back as the same number, floats as Python's
/// `repr` writes them: `5.0`, `1e-05`, `nan`.
pub struct LineWriter<'a>(&'a mut Vec<u8>);

impl LineWriter<'_> {
    /// Appends text as it is.
    #[inline]
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Appends a number.
    #[inline]
    pub fn number(&mut self, number: impl Number) -> &mut Self {
        number.append(self.0);
        self
    }

    /// Appends whatever can be shown.
    pub fn show(&mut self, value: impl Display) -> &mut Self {
        // Writing into a Vec does not fail; a Display that does has written what it could.
        let _ = write!(self.0, "{value}");
        self
    }
}

/// The numbers that a [`LineWriter`] appends.
pub trait Number: sealed::Number {}

mod sealed {
    pub trait Number {
        fn append(self, out: &mut Vec<u8>);
    }
}

macro_rules! numbers {
    ($($type:ty as $wide:ty: $write:path),*) => {$(
        impl Number for $type {}

        impl sealed::Number for $type {
            #[inline]
            fn append(self, out: &mut Vec<u8>) {
                $write(<$wide>::from(self), out);
            }
        }
    )*};
}
numbers!(i8 as i64: write_int, i16 as i64: write_int, i32 as i64: write_int, i64 as i64: write_int);
numbers!(u8 as i64: write_int, u16 as i64: write_int, u32 as i64: write_int, f32 as f32: write_f32, f64 as f64: write_f64);

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
