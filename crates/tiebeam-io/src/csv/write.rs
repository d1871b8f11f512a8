//! Writes rows, as pandas' `to_csv` does without an index.

use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result, Row, Schema, Value};

use crate::json::write_value;
use crate::number::{write_f32, write_f64, write_int};
use crate::sink::RecordFormat;
use crate::sink::write::WriteFiles;

/// Writes rows into files `path-00000-of-00003`, each with a header; gives their paths.
///
/// Fields are quoted where they must be. Nulls are empty; doubles are written as Python writes them; truth values are
/// `True` and `False`; bytes are base64; arrays, maps and rows are JSON.
///
/// ```
/// use std::sync::Arc;
/// use tiebeam_core::{FieldType, Row, Schema, TypeKind, Value};
/// use tiebeam_graph::{Create, Pipeline};
/// use tiebeam_io::csv;
///
/// let schema = Arc::new(Schema::of([("value", FieldType::required(TypeKind::Double))]));
/// let p = Pipeline::new();
/// p.apply(Create::of([Row::new(schema, [Value::Double(1.0)])])).apply(csv::write("out/rows"));
/// ```
pub fn write(path: &str) -> WriteFiles<CsvFormat> {
    WriteFiles::new(path, CsvFormat { schema: None, delimiter: b',', has_header: true }, "WriteToCsv")
}

/// Rows as comma-separated values.
#[derive(Debug, Clone)]
pub struct CsvFormat {
    schema: Option<Arc<Schema>>,
    delimiter: u8,
    has_header: bool,
}

impl WriteFiles<CsvFormat> {
    /// The schema of the rows, so that an output without rows has a header too.
    #[must_use]
    pub fn with_schema(self, schema: Arc<Schema>) -> Self {
        self.map_format(|format| CsvFormat { schema: Some(schema), ..format })
    }

    /// Another delimiter than a comma.
    #[must_use]
    pub fn with_delimiter(self, delimiter: u8) -> Self {
        self.map_format(|format| CsvFormat { delimiter, ..format })
    }

    /// Writes no header.
    #[must_use]
    pub fn without_header(self) -> Self {
        self.map_format(|format| CsvFormat { has_header: false, ..format })
    }
}

impl RecordFormat<Row> for CsvFormat {
    /// The columns that the file has.
    type File = Option<Arc<Schema>>;

    fn header(&self, first: Option<&Row>) -> Result<Option<Vec<u8>>> {
        let Some(schema) = self.schema.as_ref().or(first.map(|row| &row.schema)).filter(|_| self.has_header)
        else {
            return Ok(None);
        };
        let mut out = Vec::new();
        for (i, field) in schema.fields.iter().enumerate() {
            if i > 0 {
                out.push(self.delimiter);
            }
            self.text(field.name.as_bytes(), schema.fields.len() == 1, &mut out);
        }
        out.push(b'\n');
        Ok(Some(out))
    }

    fn write(&self, file: &mut Self::File, row: &Row, out: &mut Vec<u8>) -> Result<()> {
        let schema = file.get_or_insert_with(|| self.schema.as_ref().unwrap_or(&row.schema).clone());
        if !Arc::ptr_eq(schema, &row.schema) {
            let names = |schema: &Schema| schema.fields.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
            let (got, wanted) = (names(&row.schema), names(schema));
            if got != wanted {
                return Err(Error::new(
                    ErrorKind::InvalidData,
                    "TB0444",
                    format!("a row has the columns {}, wanted {}", got.join(", "), wanted.join(", ")),
                ));
            }
            // The same columns: rows that came over a wire bring a schema of their own each batch.
            *schema = row.schema.clone();
        }
        let alone = row.values.len() == 1;
        for (i, value) in row.values.iter().enumerate() {
            if i > 0 {
                out.push(self.delimiter);
            }
            match value {
                Value::Null => self.text(b"", alone, out),
                Value::Bool(true) => out.extend_from_slice(b"True"),
                Value::Bool(false) => out.extend_from_slice(b"False"),
                Value::Byte(n) => write_int(i64::from(*n), out),
                Value::Int16(n) => write_int(i64::from(*n), out),
                Value::Int32(n) => write_int(i64::from(*n), out),
                Value::Int64(n) => write_int(*n, out),
                Value::Float(n) if n.is_nan() => self.text(b"", alone, out),
                Value::Float(n) => write_f32(*n, out),
                Value::Double(n) if n.is_nan() => self.text(b"", alone, out),
                Value::Double(n) => write_f64(*n, out),
                Value::String(text) => self.text(text.as_bytes(), alone, out),
                Value::Bytes(bytes) => crate::json::write_base64(bytes, out),
                other => {
                    let mut json = Vec::new();
                    write_value(other, &mut json)?;
                    self.text(&json, alone, out);
                }
            }
        }
        out.push(b'\n');
        Ok(())
    }
}

impl CsvFormat {
    /// Text, quoted where it must be. An empty field that is alone on its line is quoted, or the line would be none.
    fn text(&self, text: &[u8], alone: bool, out: &mut Vec<u8>) {
        let special = |byte: &u8| matches!(byte, b'"' | b'\n' | b'\r') || *byte == self.delimiter;
        let must_quote = text.iter().any(special) || (alone && text.is_empty());
        if !must_quote {
            out.extend_from_slice(text);
            return;
        }
        out.push(b'"');
        for byte in text {
            if *byte == b'"' {
                out.push(b'"');
            }
            out.push(*byte);
        }
        out.push(b'"');
    }
}
