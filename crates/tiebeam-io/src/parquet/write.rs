//! Writes rows by columns, a row group at a time.

use std::io::Write;
use std::sync::Arc;

use ::parquet::basic::{Compression, GzipLevel, ZstdLevel};
use ::parquet::column::writer::ColumnCloseResult;
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::TypePtr;
use tiebeam_core::{Error, ErrorKind, Result, Row, Schema};

use super::guarded;
use super::nodes::Node;
use super::read::Input;
use super::shred::{self, Shreds};
use super::types::of_schema;
use crate::fs::FileSystem;
use crate::sink::write::WriteFiles;
use crate::sink::{Joining, RecordFormat};

/// A row group is written when its rows have this many bytes.
const GROUP: usize = 32 << 20;

/// A row group is written when it has this many rows.
const ROWS: usize = 1 << 20;

/// Writes rows of a schema into Parquet files `path-00000-of-00003`; gives their paths.
///
/// ```
/// use std::sync::Arc;
/// use tiebeam_core::{FieldType, Row, Schema, TypeKind, Value};
/// use tiebeam_graph::{Create, Pipeline};
/// use tiebeam_io::parquet;
///
/// let schema = Arc::new(Schema::of([("value", FieldType::required(TypeKind::Double))]));
/// let p = Pipeline::new();
/// let rows = p.apply(Create::of([Row::new(schema.clone(), [Value::Double(1.0)])]));
/// rows.apply(parquet::write("out/rows", schema)?.with_suffix(".parquet"));
/// # Ok::<(), tiebeam_core::Error>(())
/// ```
///
/// # Errors
/// When the schema has what Parquet has not.
pub fn write(path: &str, schema: Arc<Schema>) -> Result<WriteFiles<ParquetFormat>> {
    Ok(WriteFiles::new(path, ParquetFormat::new(&schema, Codec::default())?, "WriteToParquet"))
}

/// How columns are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// Not at all; Beam's own choice.
    #[default]
    None,
    /// Fast, less dense.
    Snappy,
    /// As gzip files are.
    Gzip,
    /// Dense and fast.
    Zstd,
    /// Fastest.
    Lz4,
}

impl Codec {
    /// The codec of that name, as Beam's options have it.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Codec::None,
            "snappy" => Codec::Snappy,
            "gzip" => Codec::Gzip,
            "zstd" => Codec::Zstd,
            "lz4" => Codec::Lz4,
            _ => return None,
        })
    }

    fn compression(self) -> Compression {
        match self {
            Codec::None => Compression::UNCOMPRESSED,
            Codec::Snappy => Compression::SNAPPY,
            Codec::Gzip => Compression::GZIP(GzipLevel::default()),
            Codec::Zstd => Compression::ZSTD(ZstdLevel::default()),
            Codec::Lz4 => Compression::LZ4_RAW,
        }
    }
}

/// Rows as Parquet.
#[derive(Debug, Clone)]
pub struct ParquetFormat {
    columns: usize,
    nodes: Arc<[Node]>,
    typed: TypePtr,
    codec: Codec,
}

impl ParquetFormat {
    /// Rows of that schema.
    ///
    /// # Errors
    /// When it has what Parquet has not.
    pub fn new(schema: &Arc<Schema>, codec: Codec) -> Result<Self> {
        let (typed, nodes) = of_schema(schema).map_err(|why| {
            Error::new(ErrorKind::InvalidArgument, "TB0459", format!("Parquet cannot hold these rows: {why}"))
                .with_help("choose or convert fields before")
        })?;
        let mut columns = 0;
        nodes.iter().for_each(|node| node.each_column(&mut |_| columns += 1));
        Ok(ParquetFormat { columns, nodes: nodes.into(), typed: Arc::new(typed), codec })
    }

    /// With columns compressed in another way.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        ParquetFormat { codec, ..self }
    }

    fn open(&self) -> Result<Group> {
        let writer =
            guarded("", || SerializedFileWriter::new(Vec::new(), self.typed.clone(), properties(self.codec)));
        let mut columns = Vec::new();
        columns.resize_with(self.columns, Shreds::default);
        Ok(Group { writer: writer?, columns, rows: 0, bytes: 0 })
    }
}

fn properties(codec: Codec) -> Arc<WriterProperties> {
    let name = concat!("tiebeam ", env!("CARGO_PKG_VERSION")).to_owned();
    Arc::new(WriterProperties::builder().set_compression(codec.compression()).set_created_by(name).build())
}

/// A file, and the rows of it that are not written yet.
pub struct Group {
    writer: SerializedFileWriter<Vec<u8>>,
    columns: Vec<Shreds>,
    rows: usize,
    bytes: usize,
}

impl Group {
    fn close(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if self.rows > 0 {
            guarded("", || {
                let mut group = self.writer.next_row_group()?;
                for column in &mut self.columns {
                    let Some(mut writer) = group.next_column()? else { break };
                    column.write(writer.untyped())?;
                    writer.close()?;
                }
                group.close().map(drop)
            })?;
            (self.rows, self.bytes) = (0, 0);
        }
        self.writer.flush().map_err(Error::internal)?;
        out.append(self.writer.inner_mut());
        Ok(())
    }
}

impl RecordFormat<Row> for ParquetFormat {
    type File = Option<Group>;

    fn header(&self, first: Option<&Row>) -> Result<Option<Vec<u8>>> {
        if first.is_some() {
            return Ok(None);
        }
        // A whole file of no rows.
        let mut out = Vec::new();
        self.finish(&mut Some(self.open()?), &mut out)?;
        Ok(Some(out))
    }

    fn write(&self, file: &mut Option<Group>, row: &Row, out: &mut Vec<u8>) -> Result<()> {
        let group = match file {
            Some(group) => group,
            None => file.insert(self.open()?),
        };
        let mark = shred::mark(&group.columns);
        match shred::add(&self.nodes, row, &mut group.columns) {
            Ok(bytes) => group.bytes += bytes,
            Err(why) => {
                shred::go_back(&mut group.columns, &mark);
                return Err(Error::new(ErrorKind::InvalidData, "TB0444", why));
            }
        }
        group.rows += 1;
        if group.bytes >= GROUP || group.rows >= ROWS { group.close(out) } else { Ok(()) }
    }

    fn finish(&self, file: &mut Option<Group>, out: &mut Vec<u8>) -> Result<()> {
        let Some(mut group) = file.take() else { return Ok(()) };
        group.close(out)?;
        let rest = guarded("", || group.writer.into_inner())?;
        out.extend_from_slice(&rest);
        Ok(())
    }

    fn joining(&self) -> Joining {
        Joining::Parquet
    }
}

/// One file of several of the same schema: their columns are copied as they are.
pub(crate) fn join(
    fs: &Arc<dyn FileSystem>,
    files: &[(String, u64)],
    out: &mut (dyn Write + Send),
) -> Result<()> {
    let mut inputs = Vec::with_capacity(files.len());
    for (path, size) in files {
        let input = Input::of(fs.clone(), path, *size);
        let metadata = input.metadata()?;
        inputs.push((input, metadata));
    }
    let Some((_, first)) = inputs.first() else { return Ok(()) };
    let typed = first.file_metadata().schema_descr().root_schema_ptr();
    let path = files.first().map_or("", |(path, _)| path);
    guarded(path, || {
        let mut writer = SerializedFileWriter::new(out, typed.clone(), properties(Codec::None))?;
        for (input, metadata) in &inputs {
            if metadata.file_metadata().schema() != &*typed {
                return Err(ParquetError::General("files of other columns are put together".to_owned()));
            }
            for group in metadata.row_groups() {
                let mut copied = writer.next_row_group()?;
                for column in group.columns() {
                    let closed = ColumnCloseResult {
                        bytes_written: u64::try_from(column.compressed_size()).unwrap_or(0),
                        rows_written: u64::try_from(group.num_rows()).unwrap_or(0),
                        metadata: column.clone(),
                        bloom_filter: None,
                        column_index: None,
                        offset_index: None,
                    };
                    copied.append_column(input, closed)?;
                }
                copied.close()?;
            }
        }
        writer.close().map(drop)
    })
}
