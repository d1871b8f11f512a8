//! Comma-separated values, as [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180) and pandas have them, to and from rows.
//!
//! A file's first line names its columns. Their types come from a schema, which can be guessed from the first rows
//! ([`infer_schema`]). What does not fit is an error with file, line and byte offset, or a dead letter.
//!
//! A file is cut into parts only when no field of it has a line break inside ([`ReadFiles::without_embedded_newlines`]):
//! otherwise nobody can tell in the middle of a file where a record begins.

mod infer;
mod read;
mod record;
mod value;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result, RowElement, Schema};

pub use infer::infer_schema;
pub use read::CsvReader;
pub(crate) use value::type_name;
pub use write::{CsvFormat, write};

use crate::read::{ReadAllFiles, ReadFiles};
use crate::typed::Typed;

/// How the files are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// What stands between fields; a comma.
    pub delimiter: u8,
    /// What fields are quoted with; `"`. Twice inside a quoted field it stands for itself.
    pub quote: u8,
    /// Whether the first line names the columns.
    pub has_header: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Dialect { delimiter: b',', quote: b'"', has_header: true }
    }
}

impl Dialect {
    /// A comma, double quotes and a header, but another delimiter.
    pub fn delimited_by(delimiter: u8) -> Self {
        Dialect { delimiter, ..Dialect::default() }
    }

    fn check(&self) -> Result<()> {
        let odd = |byte: u8| !byte.is_ascii() || matches!(byte, b'\n' | b'\r' | 0);
        if odd(self.delimiter) || odd(self.quote) || self.delimiter == self.quote {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0425",
                format!(
                    "delimiter and quote are two different ASCII characters, got {:?} and {:?}",
                    char::from(self.delimiter),
                    char::from(self.quote)
                ),
            ));
        }
        Ok(())
    }
}

/// Reads the files that match a pattern as rows of a schema. Columns are found by the names in each file's header.
///
/// Fields of whole numbers, floating point, truth values, text and bytes can be read. What pandas takes for a missing
/// value (an empty field, `NA`, `NaN`, `null` and the like) is null where the schema allows that.
///
/// ```
/// use std::sync::Arc;
/// use tiebeam_core::{FieldType, Schema, TypeKind};
/// use tiebeam_graph::Pipeline;
/// use tiebeam_io::csv;
///
/// let schema = Schema::of([("value", FieldType::required(TypeKind::Double))]);
/// let p = Pipeline::new();
/// let rows = p.apply(csv::read("numbers.csv", Arc::new(schema)));
/// ```
pub fn read(pattern: impl Into<Arc<str>>, schema: Arc<Schema>) -> ReadFiles<CsvReader> {
    ReadFiles::new(pattern, CsvReader::new(schema))
}

/// Reads the files that match each pattern of a PCollection.
pub fn read_all(schema: Arc<Schema>) -> ReadAllFiles<CsvReader> {
    ReadAllFiles::new(CsvReader::new(schema))
}

/// Reads the files that match a pattern as structs, whose fields are the columns.
///
/// ```
/// use tiebeam_core::Element;
/// use tiebeam_graph::Pipeline;
/// use tiebeam_io::csv;
///
/// #[derive(Clone, Element)]
/// struct Reading {
///     place: String,
///     value: Option<f64>,
/// }
///
/// let p = Pipeline::new();
/// let values = p.apply(csv::read_as::<Reading>("readings/*.csv")).filter(|reading| reading.value.is_some());
/// ```
pub fn read_as<T: RowElement>(pattern: impl Into<Arc<str>>) -> ReadFiles<Typed<CsvReader, T>> {
    ReadFiles::new(pattern, Typed::new(CsvReader::new(T::schema())))
}

/// The names of columns from a header, as pandas makes them unique: `a`, `a.1`, `Unnamed: 2`.
fn column_names(header: &record::Record) -> Vec<Result<String, std::str::Utf8Error>> {
    // How often each name stood before, so that a header of one name a million times takes no million times a million.
    let mut before = HashMap::<String, usize>::new();
    let names = (0..header.len()).map(|i| {
        let name = std::str::from_utf8(header.get(i))?;
        let name = if name.is_empty() { format!("Unnamed: {i}") } else { name.to_owned() };
        let mut unique = name.clone();
        let mut n = before.get(&name).copied().unwrap_or_default();
        while before.contains_key(&unique) {
            unique = format!("{name}.{}", n.max(1));
            n += 1;
        }
        before.insert(name, n);
        before.entry(unique.clone()).or_insert(1);
        Ok(unique)
    });
    names.collect()
}
