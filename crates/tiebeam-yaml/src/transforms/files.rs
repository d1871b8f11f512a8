//! Files: text, csv, json lines and TFRecord.

use std::sync::Arc;

use tiebeam_core::coder::row_coder;
use tiebeam_core::row::{FieldType, Row, Schema, TypeKind, Value};
use tiebeam_core::{Bytes, Failed};
use tiebeam_graph::{Begin, PCollection, PTransform};
use tiebeam_io::csv::Dialect;
use tiebeam_io::read::{Listing, RangeReader, ReadResults, WithBadRecords};
use tiebeam_io::{Compression, ReadFiles, csv, json, text, tfrecord};

use super::ErrorOutput;
use crate::build::expand;
use crate::catalog::{ERROR_HANDLING, Inputs, Key, TransformType, Wants};
use crate::diagnostic::Diagnostic;
use crate::document::Content;
use crate::expression::python_str;
use crate::plan::{MAIN, Made, Maker};

pub const READ_PATH: Key = Key::required("path", Wants::Text, "a file, or a pattern with * and ?");
pub const WRITE_PATH: Key = Key::required("path", Wants::Text, "what the files' names begin with");
pub const SHARDS: Key = Key::optional("num_shards", Wants::Int, "the number of files (ours)");

pub const TYPES: &[TransformType] = &[
    TransformType {
        name: "ReadFromText",
        about: "the lines of text files, as rows with the field `line`",
        inputs: Inputs::None,
        keeps_rows: false,
        keys: &[READ_PATH, ERROR_HANDLING],
        make: read_from_text,
    },
    TransformType {
        name: "ReadFromCsv",
        about: "the records of csv files with a header; types are guessed from the first 1000",
        inputs: Inputs::None,
        keeps_rows: false,
        keys: &[
            READ_PATH,
            Key::optional("delimiter", Wants::Text, "what stands between fields; a comma"),
            Key::optional("comment", Wants::Text, "not available here"),
            Key::optional("filename_column", Wants::Text, "not available here"),
            ERROR_HANDLING,
        ],
        make: read_from_csv,
    },
    TransformType {
        name: "ReadFromJson",
        about: "the objects of JSON lines files; types are guessed from the first 1000",
        inputs: Inputs::None,
        keeps_rows: false,
        keys: &[READ_PATH, ERROR_HANDLING],
        make: read_from_json,
    },
    TransformType {
        name: "ReadFromTFRecord",
        about: "the records of TFRecord files, as rows with the field `record` of bytes",
        inputs: Inputs::None,
        keeps_rows: false,
        keys: &[
            Key::required("file_pattern", Wants::Text, "a file, or a pattern with * and ?"),
            Key::optional("compression_type", Wants::Text, "AUTO, UNCOMPRESSED or GZIP"),
            Key::optional(
                "validate",
                Wants::Bool,
                "taken for Beam's sake; files are looked for before the run",
            ),
            ERROR_HANDLING,
        ],
        make: read_from_tfrecord,
    },
    TransformType {
        name: "WriteToTFRecord",
        about: "writes rows of one field of bytes as TFRecord files",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[
            Key::required("file_path_prefix", Wants::Text, "what the files' names begin with"),
            Key::optional("file_name_suffix", Wants::Text, "what they end with"),
            Key::optional("compression_type", Wants::Text, "AUTO, UNCOMPRESSED or GZIP"),
            SHARDS,
        ],
        make: write_to_tfrecord,
    },
    TransformType {
        name: "WriteToText",
        about: "writes rows of one field as lines",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[WRITE_PATH, SHARDS],
        make: write_to_text,
    },
    TransformType {
        name: "WriteToCsv",
        about: "writes rows as csv files with a header",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[
            WRITE_PATH,
            Key::optional("delimiter", Wants::Text, "what stands between fields; a comma"),
            SHARDS,
        ],
        make: write_to_csv,
    },
    TransformType {
        name: "WriteToJson",
        about: "writes rows as JSON lines",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[WRITE_PATH, SHARDS],
        make: write_to_json,
    },
];

/// Builds a source whose records become rows by `to_row`.
pub fn source<R: RangeReader>(
    maker: &mut Maker<'_>,
    read: ReadFiles<R>,
    schema: Arc<Schema>,
    to_rows: impl FnOnce(PCollection<R::Record>) -> PCollection<Row> + 'static,
) -> Made
where
    ReadFiles<R>: PTransform<Begin, Output = PCollection<R::Record>>,
    WithBadRecords<ReadFiles<R>>: PTransform<Begin, Output = ReadResults<R::Record>>,
{
    let errors = maker.errors(FieldType::required(TypeKind::Bytes));
    let mut outputs = vec![(MAIN.into(), schema)];
    outputs.extend(errors.clone());
    let errors = errors.map(|(name, schema)| ErrorOutput::new(&name, schema));
    Made {
        outputs,
        build: Box::new(move |pipeline, _| match errors {
            None => vec![to_rows(expand(read, pipeline.begin()))],
            Some(errors) => {
                let results = expand(read.with_error_handling(), pipeline.begin());
                let schema = errors.schema().clone();
                let to_row = move |failed: Failed<Bytes>| {
                    errors.of_failure(Value::Bytes(failed.element), &failed.failure)
                };
                let failed = results.failed.step("Errors").map(to_row).with_coder(row_coder(schema));
                vec![to_rows(results.records), failed]
            }
        }),
    }
}

fn read_from_text(maker: &mut Maker<'_>) -> Option<Made> {
    let path = maker.text("path")?;
    if let Err(error) = Listing::default().ranges(&path) {
        let span = maker.span("path");
        maker.refuse(&error, span);
    }
    let schema = Arc::new(Schema::of([("line", FieldType::required(TypeKind::String))]));
    let rows = schema.clone();
    Some(source(maker, text::read(path), schema, move |lines| {
        let schema = rows.clone();
        let to_row = move |line: String| Row::new(schema.clone(), vec![Value::String(line.into())]);
        lines.step("ToRows").map(to_row).with_coder(row_coder(rows))
    }))
}

/// The delimiter that is given, if it is one byte.
fn delimiter(maker: &mut Maker<'_>) -> Option<u8> {
    let Some(text) = maker.text("delimiter") else { return Some(b',') };
    match text.as_bytes() {
        [one] => Some(*one),
        _ => {
            let message = format!("`delimiter` wants one ASCII character, got `{text}`");
            maker.problem(Diagnostic::new("TB0208", maker.span("delimiter"), message));
            None
        }
    }
}

fn read_from_csv(maker: &mut Maker<'_>) -> Option<Made> {
    let path = maker.text("path")?;
    for key in ["comment", "filename_column"] {
        if let Some(entry) = maker.entry(key).filter(|entry| entry.value.content != Content::Null) {
            let message = format!("`{key}` is not available in this build");
            maker.problems.push(Diagnostic::new("TB0219", entry.key_span, message));
        }
    }
    let dialect = Dialect::delimited_by(delimiter(maker)?);
    match csv::infer_schema(&path, &dialect, &Listing::default()) {
        Ok(schema) => {
            let schema = Arc::new(schema);
            let read = csv::read(path, schema.clone()).with_dialect(dialect);
            Some(source(maker, read, schema, |rows| rows))
        }
        Err(error) => {
            let span = maker.span("path");
            maker.refuse(&error, span);
            None
        }
    }
}

fn read_from_json(maker: &mut Maker<'_>) -> Option<Made> {
    let path = maker.text("path")?;
    match json::infer_schema(&path, &Listing::default()) {
        Ok(schema) => {
            let schema = Arc::new(schema);
            Some(source(maker, json::read(path, schema.clone()), schema, |rows| rows))
        }
        Err(error) => {
            let span = maker.span("path");
            maker.refuse(&error, span);
            None
        }
    }
}

fn compression(maker: &mut Maker<'_>) -> Option<Compression> {
    Some(match maker.text("compression_type").as_deref() {
        None | Some("AUTO") => Compression::Auto,
        Some("UNCOMPRESSED") => Compression::None,
        Some("GZIP") => Compression::Gzip,
        Some(other) => {
            let span = maker.span("compression_type");
            let problem =
                Diagnostic::new("TB0208", span, format!("`compression_type` {other} is not available"));
            maker.problem(problem.did_you_mean(other, ["AUTO", "UNCOMPRESSED", "GZIP"]));
            return None;
        }
    })
}

fn read_from_tfrecord(maker: &mut Maker<'_>) -> Option<Made> {
    let (path, compression) = (maker.text("file_pattern")?, compression(maker)?);
    if let Err(error) = Listing::default().ranges(&path) {
        let span = maker.span("file_pattern");
        maker.refuse(&error, span);
    }
    let schema = Arc::new(Schema::of([("record", FieldType::required(TypeKind::Bytes))]));
    let rows = schema.clone();
    Some(source(maker, tfrecord::read(path).with_compression(compression), schema, move |records| {
        let schema = rows.clone();
        let to_row = move |record: Bytes| Row::new(schema.clone(), vec![Value::Bytes(record)]);
        records.step("ToRows").map(to_row).with_coder(row_coder(rows))
    }))
}

fn write_to_tfrecord(maker: &mut Maker<'_>) -> Option<Made> {
    let (path, shards, input) = (maker.text("file_path_prefix")?, shards(maker)?, maker.input()?);
    let compression = compression(maker)?;
    let suffix = maker.text("file_name_suffix");
    let bytes = |field: &tiebeam_core::row::Field| field.field_type == FieldType::required(TypeKind::Bytes);
    if input.schema.fields.len() != 1 || !input.schema.fields.iter().all(bytes) {
        let span = maker.step.title_span();
        let problem =
            Diagnostic::new("TB0205", span, "`WriteToTFRecord` wants rows of exactly one field of bytes");
        let columns = crate::expression::columns(&input.schema);
        maker.problem(
            problem.note(format!("columns here: {columns}")).help("make one: `record: text.encode()`"),
        );
        return None;
    }
    Some(Made::sink(move |_, inputs| {
        for input in inputs {
            let record = |row: Row| match row.values.first() {
                Some(Value::Bytes(bytes)) => bytes.clone(),
                _ => Bytes::new(),
            };
            let mut write = tfrecord::write(&path).with_compression(compression);
            if let Some(suffix) = &suffix {
                write = write.with_suffix(&**suffix);
            }
            if let Some(shards) = shards {
                write = write.with_num_shards(shards);
            }
            expand(write, input.step("Records").map(record));
        }
    }))
}

/// The number of files that is asked for.
pub fn shards(maker: &mut Maker<'_>) -> Option<Option<usize>> {
    match maker.get("num_shards").map(|node| (node.span, &node.content)) {
        None => Some(None),
        Some((_, Content::Int(n))) if (1..=100_000).contains(n) => Some(usize::try_from(*n).ok()),
        Some((span, _)) => {
            maker.problem(Diagnostic::new("TB0208", span, "`num_shards` is a number from 1 to 100000"));
            None
        }
    }
}

fn write_to_text(maker: &mut Maker<'_>) -> Option<Made> {
    let (path, shards, input) = (maker.text("path")?, shards(maker)?, maker.input()?);
    if input.schema.fields.len() != 1 {
        let columns = crate::expression::columns(&input.schema);
        let problem = Diagnostic::new(
            "TB0205",
            maker.step.title_span(),
            "`WriteToText` wants rows of exactly one field",
        );
        maker.problem(
            problem.note(format!("columns here: {columns}")).help("choose one with MapToFields before it"),
        );
        return None;
    }
    Some(Made::sink(move |_, inputs| {
        for input in inputs {
            let lines = input.step("Lines").map(|row| row.values.first().map(python_str).unwrap_or_default());
            let mut write = text::write(&path);
            if let Some(shards) = shards {
                write = write.with_num_shards(shards);
            }
            expand(write, lines);
        }
    }))
}

fn write_to_csv(maker: &mut Maker<'_>) -> Option<Made> {
    let (path, shards, input) = (maker.text("path")?, shards(maker)?, maker.input()?);
    let delimiter = delimiter(maker)?;
    Some(Made::sink(move |_, inputs| {
        for collection in inputs {
            let mut write = csv::write(&path).with_schema(input.schema.clone()).with_delimiter(delimiter);
            if let Some(shards) = shards {
                write = write.with_num_shards(shards);
            }
            expand(write, collection);
        }
    }))
}

fn write_to_json(maker: &mut Maker<'_>) -> Option<Made> {
    let (path, shards) = (maker.text("path")?, shards(maker)?);
    maker.input()?;
    Some(Made::sink(move |_, inputs| {
        for input in inputs {
            let mut write = json::write(&path);
            if let Some(shards) = shards {
                write = write.with_num_shards(shards);
            }
            expand(write, input);
        }
    }))
}
