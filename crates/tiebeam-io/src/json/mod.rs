//! JSON lines: one object a line, to and from rows.
//!
//! Numbers are read exactly. Of a key that stands twice in an object the last one counts. Objects and arrays may be
//! nested 127 deep. Bytes are base64 text.

mod infer;
mod read;
mod write;

use std::sync::Arc;

use tiebeam_core::{RowElement, Schema};

pub use infer::infer_schema;
pub use read::JsonReader;
#[cfg(test)]
pub(crate) use write::read_base64;
pub use write::{JsonFormat, write};
pub(crate) use write::{write_base64, write_value};

use crate::read::{ReadAllFiles, ReadFiles};
use crate::typed::Typed;

/// Reads the files that match a pattern as rows of a schema, one object a line.
///
/// A field that an object doesn't have is null where the schema allows that, and an error where not. A field that the
/// schema doesn't have is an error unless such fields are ignored. Whole numbers are taken for doubles, and doubles without
/// a fraction for whole numbers.
///
/// ```
/// use std::sync::Arc;
/// use tiebeam_core::{FieldType, Schema, TypeKind};
/// use tiebeam_graph::Pipeline;
/// use tiebeam_io::json;
///
/// let schema = Schema::of([("value", FieldType::nullable(TypeKind::Double))]);
/// let p = Pipeline::new();
/// let rows = p.apply(json::read("numbers.jsonl", Arc::new(schema)));
/// ```
pub fn read(pattern: impl Into<Arc<str>>, schema: Arc<Schema>) -> ReadFiles<JsonReader> {
    ReadFiles::new(pattern, JsonReader::new(schema))
}

/// Reads the files that match each pattern of a PCollection.
pub fn read_all(schema: Arc<Schema>) -> ReadAllFiles<JsonReader> {
    ReadAllFiles::new(JsonReader::new(schema))
}

/// Reads the files that match a pattern as structs, one object a line.
pub fn read_as<T: RowElement>(pattern: impl Into<Arc<str>>) -> ReadFiles<Typed<JsonReader, T>> {
    ReadFiles::new(pattern, Typed::new(JsonReader::new(T::schema())))
}
