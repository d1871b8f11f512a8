//! Parquet files: rows by columns, with their schema behind them, to and from rows.
//!
//! Row groups are read in parallel, and of them only the columns that are wanted. Lists, maps and rows within rows are
//! put together from Parquet's levels. Decimals are refused; instants are Beam's logical types, dates and times of day are
//! the integers that they are stored as.

mod columns;
mod nodes;
mod read;
mod shred;
mod types;
mod write;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result, Schema, SourcePlace};

pub use read::ParquetReader;
pub(crate) use write::join;
pub use write::{Codec, ParquetFormat, write};

use crate::read::{Listing, ReadFiles};

/// Reads the files that match a pattern as rows of a schema; see [`infer_schema`]. Columns that it does not have are not
/// read at all.
///
/// ```no_run
/// use std::sync::Arc;
/// use tiebeam_graph::Pipeline;
/// use tiebeam_io::{Listing, parquet};
///
/// # fn main() -> tiebeam_core::Result<()> {
/// let schema = parquet::infer_schema("people.parquet", &Listing::default())?;
/// let p = Pipeline::new();
/// let rows = p.apply(parquet::read("people.parquet", Arc::new(schema)));
/// # Ok(())
/// # }
/// ```
pub fn read(pattern: impl Into<Arc<str>>, schema: Arc<Schema>) -> ReadFiles<ParquetReader> {
    ReadFiles::new(pattern, ParquetReader::new(schema))
}

/// The schema of the first file that matches a pattern.
///
/// # Errors
/// When there is no such file, it is no Parquet file, or has types that rows have not.
pub fn infer_schema(pattern: &str, _: &Listing) -> Result<Schema> {
    let files = crate::fs::list(pattern, false)?;
    match files.first() {
        Some(first) => read::schema_of(&first.path, first.size),
        None => Ok(Schema::default()),
    }
}

/// What the reader of Parquet says of a file, or that it gave up on it.
fn guarded<T>(path: &str, work: impl FnOnce() -> Result<T, ::parquet::errors::ParquetError>) -> Result<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(::parquet::errors::ParquetError::General("its reader gave up".to_owned())))
        .map_err(|error| damaged(path, &error.to_string()))
}

/// The error of a file that is none of Parquet's, or damaged.
fn damaged(path: &str, why: &str) -> Error {
    let why = why.trim_start_matches("Parquet error: ").trim_start_matches("External: ");
    Error::new(ErrorKind::InvalidData, "TB0460", format!("the Parquet file is damaged: {why}"))
        .at_place(SourcePlace { file: path.to_owned(), ..SourcePlace::default() })
}

#[cfg(test)]
mod tests;
