//! Lines to records: quotes, delimiters, line breaks inside quotes.

use memchr::memchr;
use tiebeam_core::{Error, ErrorKind, Result, SourcePlace};

use super::Dialect;
use crate::lines::{Line, Lines};
use crate::read::too_long;

/// The fields of one record, unquoted, in one buffer that is used again.
#[derive(Debug, Default)]
pub(crate) struct Record {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// The record as it stands in the file, for dead letters; only kept for records of several lines.
    raw: Vec<u8>,
}

impl Record {
    /// The number of fields.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// One field.
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.raw.clear();
    }

    /// Takes in the fields of one line; false when it ends inside quotes.
    fn take_line(&mut self, line: &[u8], dialect: &Dialect, mut in_quotes: bool) -> bool {
        let mut rest = line;
        loop {
            if !in_quotes && rest.first() == Some(&dialect.quote) {
                rest = &rest[1..];
                in_quotes = true;
            }
            if in_quotes {
                match self.take_quoted(rest, dialect.quote) {
                    Some(behind) => rest = behind,
                    None => return false,
                }
                in_quotes = false;
            }
            // What stands behind a closing quote belongs to the field, as in pandas.
            match memchr(dialect.delimiter, rest) {
                Some(i) => {
                    self.bytes.extend_from_slice(&rest[..i]);
                    self.ends.push(self.bytes.len());
                    rest = &rest[i + 1..];
                }
                None => {
                    self.bytes.extend_from_slice(rest);
                    self.ends.push(self.bytes.len());
                    return true;
                }
            }
        }
    }

    /// Takes in text up to the closing quote; what is behind it, or none when there is no closing quote.
    fn take_quoted<'a>(&mut self, mut rest: &'a [u8], quote: u8) -> Option<&'a [u8]> {
        loop {
            let Some(i) = memchr(quote, rest) else {
                self.bytes.extend_from_slice(rest);
                return None;
            };
            self.bytes.extend_from_slice(&rest[..i]);
            rest = &rest[i + 1..];
            if rest.first() != Some(&quote) {
                return Some(rest);
            }
            self.bytes.push(quote);
            rest = &rest[1..];
        }
    }
}

/// What came next.
pub(crate) enum Next<'a> {
    /// A record and where it begins.
    Record(&'a Record, Place<'a>),
    /// Bytes that are no record, and why.
    Bad(&'a [u8], Error),
    /// Nothing more.
    End,
}

/// Where a record stands, and its bytes.
pub(crate) struct Place<'a> {
    pub(crate) number: Option<u64>,
    pub(crate) offset: u64,
    pub(crate) raw: &'a [u8],
}

impl Place<'_> {
    pub(crate) fn of(&self, file: &str) -> SourcePlace {
        SourcePlace { file: file.to_owned(), line: self.number, offset: Some(self.offset) }
    }
}

/// Reads records from lines.
pub(crate) struct Records {
    lines: Lines,
    dialect: Dialect,
    file: String,
    limit: usize,
    record: Record,
}

impl Records {
    pub(crate) fn new(lines: Lines, dialect: Dialect, file: &str, limit: usize) -> Self {
        Records { lines, dialect, file: file.to_owned(), limit, record: Record::default() }
    }

    /// The next record. Empty lines are none.
    ///
    /// # Errors
    /// When the file can't be read on; what is wrong with one record is [`Next::Bad`].
    pub(crate) fn next(&mut self) -> Result<Next<'_>> {
        loop {
            // The borrow checker can't follow a line through the loop, so its facts are taken out.
            let (number, offset, is_whole) = match self.lines.next()? {
                None => return Ok(Next::End),
                Some(line) if line.bytes.is_empty() && !line.too_long => continue,
                Some(line) if line.too_long => {
                    let error = too_long(&line, &self.file, self.limit);
                    self.record.clear();
                    self.record.raw.extend_from_slice(line.bytes);
                    return Ok(Next::Bad(&self.record.raw, error));
                }
                Some(line) => {
                    self.record.clear();
                    let is_whole = self.record.take_line(line.bytes, &self.dialect, false);
                    self.record.raw.extend_from_slice(line.bytes);
                    if !is_whole {
                        self.record.raw.extend_from_slice(line.terminator);
                        self.record.bytes.extend_from_slice(line.terminator);
                    }
                    (line.number, line.offset, is_whole)
                }
            };
            if !is_whole && let Some(error) = self.take_more(number, offset)? {
                return Ok(Next::Bad(&self.record.raw, error));
            }
            let place = Place { number, offset, raw: &self.record.raw };
            return Ok(Next::Record(&self.record, place));
        }
    }

    /// Takes in lines until the open quote is closed; the error of one that isn't.
    fn take_more(&mut self, number: Option<u64>, offset: u64) -> Result<Option<Error>> {
        let place = || SourcePlace { file: self.file.clone(), line: number, offset: Some(offset) };
        loop {
            let line: Option<Line<'_>> = self.lines.next()?;
            let Some(line) = line else {
                let message = "a quoted field is never closed: the file ends inside it";
                return Ok(Some(Error::new(ErrorKind::InvalidData, "TB0420", message).at_place(place())));
            };
            if line.too_long || self.record.raw.len() + line.bytes.len() > self.limit {
                let message =
                    format!("a record is longer than {} bytes; is a quote missing or too much?", self.limit);
                return Ok(Some(Error::new(ErrorKind::InvalidData, "TB0407", message).at_place(place())));
            }
            self.record.raw.extend_from_slice(line.bytes);
            if self.record.take_line(line.bytes, &self.dialect, true) {
                return Ok(None);
            }
            self.record.raw.extend_from_slice(line.terminator);
            self.record.bytes.extend_from_slice(line.terminator);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(line: &str) -> Option<Vec<String>> {
        let mut record = Record::default();
        let whole = record.take_line(line.as_bytes(), &Dialect::default(), false);
        let fields = (0..record.len()).map(|i| String::from_utf8(record.get(i).to_vec()).unwrap());
        whole.then(|| fields.collect())
    }

    #[test]
    fn fields_are_those_of_pandas() {
        for (line, wanted) in [
            ("a,b", vec!["a", "b"]),
            ("a,", vec!["a", ""]),
            (",,", vec!["", "", ""]),
            ("\"a,b\",c", vec!["a,b", "c"]),
            ("\"a\"\"b\"", vec!["a\"b"]),
            ("\"\",x", vec!["", "x"]),
            ("\"\"\"\"", vec!["\""]),
            ("\"a\"b,c", vec!["ab", "c"]),
            ("a\"b\",c", vec!["a\"b\"", "c"]),
            ("5\" pipe,c", vec!["5\" pipe", "c"]),
            (" \"a\",c", vec![" \"a\"", "c"]),
        ] {
            assert_eq!(fields(line).unwrap(), wanted, "{line}");
        }
        assert_eq!(fields("a,\"b"), None);
        assert_eq!(fields("\"a\"\""), None);
    }
}
