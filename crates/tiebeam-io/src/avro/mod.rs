//! Avro files: rows in blocks, with their schema in front, to and from rows.
//!
//! Files are cut between blocks. What Beam's rows have no type for is refused by name: unions of more than a type and null,
//! decimals, types that contain themselves. `int` is INT32, an enum a STRING, `fixed` is BYTES; instants of milliseconds
//! and microseconds are Beam's logical types.

mod read;
mod schema;
mod write;

use std::sync::Arc;

use tiebeam_core::{Result, Schema};

/// What Parquet's instants are too.
pub(crate) mod types {
    pub(crate) use super::schema::{MICROS, MILLIS, instant, micros_schema};
    pub(crate) use super::write::micros;
}

pub use read::AvroReader;
pub use write::{AvroFormat, Codec, write};

use crate::read::{Listing, ReadFiles};

/// Reads the files that match a pattern as rows of a schema; see [`infer_schema`].
///
/// Fields are found by their names; one that a file does not have is null where the schema allows that.
///
/// ```no_run
/// use std::sync::Arc;
/// use tiebeam_graph::Pipeline;
/// use tiebeam_io::{Listing, avro};
///
/// # fn main() -> tiebeam_core::Result<()> {
/// let schema = avro::infer_schema("people.avro", &Listing::default())?;
/// let p = Pipeline::new();
/// let rows = p.apply(avro::read("people.avro", Arc::new(schema)));
/// # Ok(())
/// # }
/// ```
pub fn read(pattern: impl Into<Arc<str>>, schema: Arc<Schema>) -> ReadFiles<AvroReader> {
    ReadFiles::new(pattern, AvroReader::new(schema))
}

/// The schema of the first file that matches a pattern.
///
/// # Errors
/// When there is no such file, it is no Avro file, or has types that rows have not.
pub fn infer_schema(pattern: &str, listing: &Listing) -> Result<Schema> {
    let files = crate::fs::list(pattern, false)?;
    let Some(first) = files.first() else { return Ok(Schema::default()) };
    read::schema_of(&first.path, listing)
}

#[cfg(test)]
mod tests;
