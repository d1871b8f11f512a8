//! Reads rows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tiebeam_core::coder::row_coder;
use tiebeam_core::{Coder, Error, ErrorKind, Result, Row, RowElement, Schema, SourcePlace, TypeKind, Value};

use super::Dialect;
use super::infer::{header, ragged};
use super::record::{Next, Place, Record, Records as CsvRecords};
use super::value::{is_readable, to_value, type_name};
use crate::ranges::FileRange;
use crate::read::{Listing, RangeReader, ReadAllFiles, ReadFiles, Records, lines};
use crate::typed::Typed;

/// Reads rows of one schema.
#[derive(Debug, Clone)]
pub struct CsvReader {
    schema: Arc<Schema>,
    dialect: Dialect,
    has_embedded_newlines: bool,
    ignores_extra_columns: bool,
}

impl CsvReader {
    /// Rows of that schema, comma-separated.
    pub fn new(schema: Arc<Schema>) -> Self {
        CsvReader {
            schema,
            dialect: Dialect::default(),
            has_embedded_newlines: true,
            ignores_extra_columns: false,
        }
    }
}

impl CsvReader {
    /// Another delimiter, quote, or no header.
    #[must_use]
    pub fn with_dialect(self, dialect: Dialect) -> Self {
        CsvReader { dialect, ..self }
    }

    /// Promises that no field has a line break inside: large files are then cut and read in parallel.
    #[must_use]
    pub fn without_embedded_newlines(self) -> Self {
        CsvReader { has_embedded_newlines: false, ..self }
    }

    /// Leaves out columns that the schema doesn't have, instead of refusing the file.
    #[must_use]
    pub fn ignore_extra_columns(self) -> Self {
        CsvReader { ignores_extra_columns: true, ..self }
    }
}

macro_rules! options {
    ($type:ty $(, $element:ident)?; $change:ident) => {
        impl$(<$element: RowElement>)? $type {
            /// Another delimiter, quote, or no header.
            #[must_use]
            pub fn with_dialect(self, dialect: Dialect) -> Self {
                self.map_reader(|reader| $change(reader, |csv| csv.with_dialect(dialect)))
            }

            /// Promises that no field has a line break inside: large files are then cut and read in parallel.
            #[must_use]
            pub fn without_embedded_newlines(self) -> Self {
                self.map_reader(|reader| $change(reader, CsvReader::without_embedded_newlines))
            }

            /// Leaves out columns that the schema doesn't have, instead of refusing the file.
            #[must_use]
            pub fn ignore_extra_columns(self) -> Self {
                self.map_reader(|reader| $change(reader, CsvReader::ignore_extra_columns))
            }
        }
    };
}
options!(ReadFiles<CsvReader>; plain);
options!(ReadAllFiles<CsvReader>; plain);
options!(ReadFiles<Typed<CsvReader, T>>, T; typed);

fn plain(reader: CsvReader, change: impl FnOnce(CsvReader) -> CsvReader) -> CsvReader {
    change(reader)
}

fn typed<T>(reader: Typed<CsvReader, T>, change: impl FnOnce(CsvReader) -> CsvReader) -> Typed<CsvReader, T> {
    reader.map_inner(change)
}

impl RangeReader for CsvReader {
    type Record = Row;

    fn label(&self) -> &'static str {
        "ReadFromCsv"
    }

    fn coder(&self) -> Coder<Row> {
        row_coder(self.schema.clone())
    }

    fn check(&self) -> Result<()> {
        self.dialect.check()?;
        match self.schema.fields.iter().find(|field| !is_readable(&field.field_type.kind)) {
            Some(field) => Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0426",
                format!(
                    "column `{}` cannot be read from csv as {}",
                    field.name,
                    type_name(&field.field_type.kind)
                ),
            )
            .with_help("read it as a string and parse it in a later step")),
            None => Ok(()),
        }
    }

    fn is_splittable(&self) -> bool {
        !self.has_embedded_newlines
    }

    fn read(&self, range: &FileRange, listing: &Listing, records: &mut Records<'_, Row>) -> Result<()> {
        let file = &*range.path;
        let open = |range: &FileRange, header: usize| -> Result<CsvRecords> {
            let lines = lines(range, listing, header)?;
            Ok(CsvRecords::new(lines, self.dialect.clone(), file, listing.max_record))
        };
        let (columns, mut rows) = if !self.dialect.has_header {
            ((0..self.schema.fields.len()).collect(), open(range, 0)?)
        } else if range.start == 0 {
            let mut rows = open(range, 0)?;
            // A file of nothing but blank lines has no columns and no rows.
            let Some(names) = header(&mut rows, file)? else { return Ok(()) };
            (self.columns(&names, file)?, rows)
        } else {
            // A part from the middle asks the file's first line; its own part of that line is nobody's.
            let first = FileRange { start: 0, end: 1, ..range.clone() };
            let Some(names) = header(&mut open(&first, 0)?, file)? else { return Ok(()) };
            (self.columns(&names, file)?, open(range, 1)?)
        };
        loop {
            match rows.next()? {
                Next::End => return Ok(()),
                Next::Bad(bytes, error) => records.bad(bytes, error)?,
                Next::Record(record, place) => match self.row(record, &columns, &place, file) {
                    Ok(row) => records.push(row)?,
                    Err(error) => records.bad(place.raw, error)?,
                },
            }
        }
    }
}

/// A column of the schema by its position in the file; the last entry is the number of columns in the file.
type Columns = Vec<usize>;

impl CsvReader {
    /// Where in the file each field of the schema is.
    fn columns(&self, names: &[String], file: &str) -> Result<Columns> {
        let place = || SourcePlace { file: file.to_owned(), line: Some(1), offset: Some(0) };
        let at: HashMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (&**name, i)).collect();
        let mut columns = Vec::with_capacity(self.schema.fields.len() + 1);
        for field in &self.schema.fields {
            columns.push(at.get(&*field.name).copied().ok_or_else(|| {
                let shown: Vec<&str> = names.iter().take(20).map(String::as_str).collect();
                let more = if names.len() > 20 { ", …" } else { "" };
                Error::new(ErrorKind::InvalidData, "TB0423", format!("there is no column `{}`", field.name))
                    .with_help(format!("columns here: {}{more}", shown.join(", ")))
                    .at_place(place())
            })?);
        }
        let known: HashSet<&str> = self.schema.fields.iter().map(|field| &*field.name).collect();
        let extra = names.iter().find(|name| !known.contains(&***name));
        if let Some(extra) = extra.filter(|_| !self.ignores_extra_columns) {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "TB0423",
                format!("column `{extra}` is not in the schema"),
            )
            .with_help("add it to the schema, or ignore extra columns")
            .at_place(place()));
        }
        columns.push(names.len());
        Ok(columns)
    }

    fn row(&self, record: &Record, columns: &Columns, place: &Place<'_>, file: &str) -> Result<Row> {
        let fields = &self.schema.fields;
        let wanted = columns.get(fields.len()).copied().unwrap_or(fields.len());
        if record.len() != wanted {
            return Err(ragged(record.len(), wanted, place.of(file)));
        }
        let mut bad = None;
        let values: Arc<[Value]> = (0..fields.len())
            .map(|i| {
                to_value(record.get(columns[i]), &fields[i].field_type).unwrap_or_else(|| {
                    bad.get_or_insert(i);
                    Value::Null
                })
            })
            .collect();
        match bad {
            None => Ok(Row { schema: self.schema.clone(), values }),
            Some(i) => Err(self.misfit(record.get(columns[i]), i, place.of(file))),
        }
    }

    fn misfit(&self, text: &[u8], index: usize, place: SourcePlace) -> Error {
        let field = &self.schema.fields[index];
        let mut shown: String = String::from_utf8_lossy(text).chars().take(40).collect();
        if shown.len() < text.len() && shown.chars().count() == 40 {
            shown.push('…');
        }
        let wanted = type_name(&field.field_type.kind);
        let message = if field.field_type.kind == TypeKind::String {
            format!("column `{}` is not UTF-8: `{shown}`", field.name)
        } else if text.is_empty() {
            format!("column `{}` is empty, wanted {wanted}", field.name)
        } else {
            format!("column `{}` is `{shown}`, wanted {wanted}", field.name)
        };
        Error::new(ErrorKind::InvalidData, "TB0422", message).at_place(place).with_help(
            "a guessed schema knows only the first 1000 rows; give the column's type, or send bad rows to an output of \
             their own",
        )
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
