//! Files with schemas of their own: Parquet and Avro.

use std::sync::Arc;

use tiebeam_core::Result;
use tiebeam_core::row::Schema;
use tiebeam_io::read::Listing;
use tiebeam_io::sink::RecordFormat;
use tiebeam_io::{WriteFiles, avro, parquet};

use super::fields::texts;
use super::files::{READ_PATH, SHARDS, WRITE_PATH, shards, source};
use crate::build::expand;
use crate::catalog::{ERROR_HANDLING, Inputs, Key, TransformType, Wants};
use crate::diagnostic::Diagnostic;
use crate::plan::{Collection, Made, Maker};

const COLUMNS: Key = Key::optional("columns", Wants::Texts, "the columns that are read (ours); all else");
const SUFFIX: Key = Key::optional("file_name_suffix", Wants::Text, "what they end with");

pub const TYPES: &[TransformType] = &[
    TransformType {
        name: "ReadFromParquet",
        about: "the rows of Parquet files",
        inputs: Inputs::None,
        keeps_rows: false,
        keys: &[READ_PATH, COLUMNS, ERROR_HANDLING],
        make: read_from_parquet,
    },
    TransformType {
        name: "WriteToParquet",
        about: "writes rows as Parquet files",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[
            WRITE_PATH,
            Key::optional("codec", Wants::Text, "none, snappy, gzip, zstd or lz4"),
            SUFFIX,
            SHARDS,
        ],
        make: write_to_parquet,
    },
    TransformType {
        name: "ReadFromAvro",
        about: "the records of Avro files, as rows",
        inputs: Inputs::None,
        keeps_rows: false,
        keys: &[READ_PATH, COLUMNS, ERROR_HANDLING],
        make: read_from_avro,
    },
    TransformType {
        name: "WriteToAvro",
        about: "writes rows as Avro files",
        inputs: Inputs::One,
        keeps_rows: false,
        keys: &[
            WRITE_PATH,
            Key::optional("codec", Wants::Text, "null, deflate (unless told otherwise), snappy or zstandard"),
            SUFFIX,
            SHARDS,
        ],
        make: write_to_avro,
    },
];

/// The path, and the schema of what is read of it.
fn read(
    maker: &mut Maker<'_>,
    infer: fn(&str, &Listing) -> Result<Schema>,
) -> Option<(Arc<str>, Arc<Schema>)> {
    let path = maker.text("path")?;
    let schema = match infer(&path, &Listing::default()) {
        Ok(schema) => Arc::new(schema),
        Err(error) => {
            let span = maker.span("path");
            maker.refuse(&error, span);
            return None;
        }
    };
    if maker.get("columns").is_none() {
        return Some((path, schema));
    }
    let columns = texts(maker.get("columns"));
    let all = Collection { id: usize::MAX, schema, producer: path.clone() };
    let known = super::fields::known_columns(maker, columns, &all);
    let fields = known.iter().filter_map(|(name, _)| all.schema.index_of(name));
    let fields = fields.map(|index| {
        let field = &all.schema.fields[index];
        (field.name.clone(), field.field_type.clone())
    });
    Some((path, Arc::new(Schema::of(fields))))
}

fn read_from_parquet(maker: &mut Maker<'_>) -> Option<Made> {
    let (path, schema) = read(maker, parquet::infer_schema)?;
    Some(source(maker, parquet::read(path, schema.clone()), schema, |rows| rows))
}

fn read_from_avro(maker: &mut Maker<'_>) -> Option<Made> {
    let (path, schema) = read(maker, avro::infer_schema)?;
    Some(source(maker, avro::read(path, schema.clone()), schema, |rows| rows))
}

/// The codec that is told, by its names; the format's own where none is told.
fn codec<C: Default>(maker: &mut Maker<'_>, named: fn(&str) -> Option<C>, names: &[&str]) -> Option<C> {
    let Some(name) = maker.text("codec") else { return Some(C::default()) };
    let found = named(&name);
    if found.is_none() {
        let problem = Diagnostic::new("TB0208", maker.span("codec"), format!("unknown codec `{name}`"));
        let problem = problem.did_you_mean(&name, names.iter().copied());
        maker.problem(problem.note(format!("codecs: {}", names.join(", "))));
    }
    found
}

fn write_to_parquet(maker: &mut Maker<'_>) -> Option<Made> {
    let names = ["none", "snappy", "gzip", "zstd", "lz4"];
    let codec = codec(maker, parquet::Codec::named, &names)?;
    let schema = maker.input()?.schema;
    let format = parquet::ParquetFormat::new(&schema, codec);
    write(maker, format, "WriteToParquet")
}

fn write_to_avro(maker: &mut Maker<'_>) -> Option<Made> {
    let names = ["null", "deflate", "snappy", "zstandard"];
    let codec = codec(maker, avro::Codec::named, &names)?;
    let schema = maker.input()?.schema;
    let format = avro::AvroFormat::new(&schema, codec);
    write(maker, format, "WriteToAvro")
}

fn write<F>(maker: &mut Maker<'_>, format: Result<F>, label: &'static str) -> Option<Made>
where
    F: RecordFormat<tiebeam_core::Row>,
{
    let (path, shards, suffix) = (maker.text("path")?, shards(maker)?, maker.text("file_name_suffix"));
    let format = match format {
        Ok(format) => format,
        Err(error) => {
            let span = maker.step.title_span();
            maker.refuse(&error, span);
            return None;
        }
    };
    Some(Made::sink(move |_, inputs| {
        for input in inputs {
            let mut write = WriteFiles::new(&path, format.clone(), label);
            if let Some(suffix) = &suffix {
                write = write.with_suffix(&**suffix);
            }
            if let Some(shards) = shards {
                write = write.with_num_shards(shards);
            }
            expand(write, input);
        }
    }))
}
