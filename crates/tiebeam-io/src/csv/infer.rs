//! Guesses a schema from the first rows of a file.

use tiebeam_core::{Error, ErrorKind, FieldType, Result, Schema, SourcePlace, TypeKind};

use super::record::{Next, Records};
use super::value::{is_missing, to_bool, to_number};
use super::{Dialect, column_names};
use crate::fs;
use crate::ranges::FileRange;
use crate::read::{Listing, lines};

/// The number of rows that a schema is guessed from.
pub const SAMPLE: usize = 1000;

/// Guesses a schema from the first 1000 rows of the first file (in the order of paths) that matches and is not empty.
///
/// A column is int64 when all its fields are whole numbers that fit, double when all are numbers, boolean when all are
/// `true` or `false`, string otherwise; and nullable when a field is missing in the sample. Unlike pandas, a column of
/// whole numbers stays one when some are missing. A column without any value is a nullable string.
///
/// Reads files: call it before the pipeline is built, and give the schema to [`read`](super::read()).
///
/// # Errors
/// `NotFound` when nothing matches; `InvalidData` when there is no header, or a record of the sample is bad.
pub fn infer_schema(pattern: &str, dialect: &Dialect, listing: &Listing) -> Result<Schema> {
    dialect.check()?;
    let files = fs::list(pattern, false)?;
    let Some(file) = files.iter().find(|file| file.size > 0) else {
        return Err(no_header(pattern));
    };
    let range = FileRange { path: file.path.clone(), size: file.size, start: 0, end: file.size };
    let mut records =
        Records::new(lines(&range, listing, 0)?, dialect.clone(), &file.path, listing.max_record);
    let mut columns: Option<(Vec<String>, Vec<Column>)> = None;
    if dialect.has_header {
        let Some(names) = header(&mut records, &file.path)? else { return Err(no_header(&file.path)) };
        let count = names.len();
        columns = Some((names, vec![Column::default(); count]));
    }
    for _ in 0..SAMPLE {
        match records.next()? {
            Next::End => break,
            Next::Bad(_, error) => return Err(error),
            Next::Record(record, place) => {
                // Without a header pandas numbers the columns.
                let (names, columns) = columns.get_or_insert_with(|| {
                    (
                        (0..record.len()).map(|i| i.to_string()).collect(),
                        vec![Column::default(); record.len()],
                    )
                });
                if record.len() != names.len() {
                    return Err(ragged(record.len(), names.len(), place.of(&file.path)));
                }
                columns.iter_mut().enumerate().for_each(|(i, column)| column.see(record.get(i)));
            }
        }
    }
    let (names, columns) = columns.ok_or_else(|| no_header(&file.path))?;
    Ok(Schema::of(names.into_iter().zip(columns.iter().map(Column::field_type))))
}

/// The names in the first record; none in a file without records.
pub(super) fn header(records: &mut Records, file: &str) -> Result<Option<Vec<String>>> {
    match records.next()? {
        Next::End => Ok(None),
        Next::Bad(_, error) => Err(error),
        Next::Record(record, place) => {
            let names: Result<Vec<String>, _> = column_names(record).into_iter().collect();
            names.map(Some).map_err(|e| {
                Error::new(ErrorKind::InvalidData, "TB0406", format!("the header is not UTF-8: {e}"))
                    .at_place(place.of(file))
            })
        }
    }
}

fn no_header(path: &str) -> Error {
    Error::new(
        ErrorKind::InvalidData,
        "TB0423",
        "there is no header line to tell the columns by: the file is empty",
    )
    .at_place(SourcePlace { file: path.to_owned(), ..SourcePlace::default() })
}

pub(super) fn ragged(got: usize, wanted: usize, place: SourcePlace) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0421", format!("a record has {got} fields, wanted {wanted}"))
        .at_place(place)
        .with_help("a field with the delimiter in it must be quoted")
}

/// What the fields of one column could all be.
#[derive(Clone)]
struct Column {
    int: bool,
    double: bool,
    boolean: bool,
    missing: bool,
    seen: bool,
}

impl Default for Column {
    fn default() -> Self {
        Column { int: true, double: true, boolean: true, missing: false, seen: false }
    }
}

impl Column {
    fn see(&mut self, field: &[u8]) {
        if is_missing(field) {
            self.missing = true;
            return;
        }
        self.seen = true;
        self.int = self.int && to_number::<i64>(field).is_some();
        // A whole number that does not fit would lose digits as a double: it stays text.
        self.double = self.double && !is_large_int(field) && to_number::<f64>(field).is_some();
        self.boolean = self.boolean && to_bool(field).is_some();
    }

    fn field_type(&self) -> FieldType {
        let kind = match self {
            Column { seen: false, .. } => TypeKind::String,
            Column { int: true, .. } => TypeKind::Int64,
            Column { double: true, .. } => TypeKind::Double,
            Column { boolean: true, .. } => TypeKind::Boolean,
            _ => TypeKind::String,
        };
        FieldType { kind, nullable: self.missing || !self.seen }
    }
}

fn is_large_int(field: &[u8]) -> bool {
    let field = field.trim_ascii();
    let digits = field.strip_prefix(b"-").or_else(|| field.strip_prefix(b"+")).unwrap_or(field);
    digits.len() > 18 && digits.iter().all(u8::is_ascii_digit) && to_number::<i64>(field).is_none()
}

/// The type of a column with these fields.
#[cfg(test)]
pub(super) fn guess(fields: &[&str]) -> FieldType {
    let mut column = Column::default();
    fields.iter().for_each(|field| column.see(field.as_bytes()));
    column.field_type()
}
