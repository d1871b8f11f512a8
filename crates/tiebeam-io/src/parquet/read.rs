//! Reads the row groups of a range of a file.

use std::io::Read;
use std::sync::Arc;

use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use ::parquet::file::reader::{ChunkReader, FileReader, Length};
use ::parquet::file::serialized_reader::SerializedFileReader;
use tiebeam_core::coder::row_coder;
use tiebeam_core::{Bytes, Coder, Error, ErrorKind, Result, Row, Schema, SourcePlace, Value};

use super::columns::Column;
use super::nodes::Node;
use super::types::Reader;
use super::{damaged, guarded};
use crate::fs::{self, FileSystem};
use crate::ranges::FileRange;
use crate::read::{Listing, RangeReader, Records};
use crate::tables::Projection;

/// How many rows are read at once.
const ROWS: usize = 1024;

/// The most bytes of the schema and the places of the row groups.
const MAX_FOOTER: u64 = 256 << 20;

/// The most bytes that a column's part in a row group unpacks to.
const MAX_CHUNK: i64 = 4 << 30;

/// Reads rows of a schema.
#[derive(Debug, Clone)]
pub struct ParquetReader {
    schema: Arc<Schema>,
}

impl ParquetReader {
    /// Rows of that schema.
    pub fn new(schema: Arc<Schema>) -> Self {
        ParquetReader { schema }
    }
}

impl RangeReader for ParquetReader {
    type Record = Row;

    fn label(&self) -> &'static str {
        "ReadFromParquet"
    }

    fn coder(&self) -> Coder<Row> {
        row_coder(self.schema.clone())
    }

    fn read(&self, range: &FileRange, _: &Listing, records: &mut Records<'_, Row>) -> Result<()> {
        let input = Input::open(&range.path, range.size)?;
        let path = input.path.clone();
        let metadata = input.metadata()?;
        let (seen, nodes) = types_of(&metadata, &path)?;
        let projection = Projection::new(&Arc::new(seen.clone()), &self.schema, &path)?;
        let wanted: Vec<Option<&Node>> = seen
            .fields
            .iter()
            .zip(&nodes)
            .map(|(field, node)| match (self.schema.index_of(&field.name), node) {
                (Some(_), Ok(node)) => Ok(Some(node)),
                (Some(_), Err(why)) => Err(refused(&path, why)),
                (None, _) => Ok(None),
            })
            .collect::<Result<_>>()?;
        let groups: Vec<usize> = (0..metadata.num_row_groups())
            .filter(|number| {
                // A group belongs to the range in which it begins; one that begins nowhere is told by the last one.
                let begin = start(metadata.row_group(*number)).clamp(0, range.size.saturating_sub(1));
                (range.start..range.end).contains(&begin)
            })
            .collect();
        for number in &groups {
            check_group(metadata.row_group(*number), range.size).map_err(|why| damaged(&path, &why))?;
        }
        let seen = Arc::new(seen);
        let reader = guarded(&path, || SerializedFileReader::new(input))?;
        for number in groups {
            read_group(&reader, number, &wanted, &seen, &path, &mut |row| {
                let row = projection.row(row).map_err(|why| damaged(&path, &why))?;
                records.push(row)
            })?;
        }
        Ok(())
    }
}

fn read_group(
    reader: &SerializedFileReader<Input>,
    number: usize,
    wanted: &[Option<&Node>],
    schema: &Arc<Schema>,
    path: &str,
    push: &mut dyn FnMut(Row) -> Result<()>,
) -> Result<()> {
    let group = guarded(path, || reader.get_row_group(number))?;
    let mut columns: Vec<Option<Column>> = Vec::new();
    columns.resize_with(group.metadata().num_columns(), || None);
    let mut numbers = Vec::new();
    wanted.iter().flatten().for_each(|node| node.each_column(&mut |number| numbers.push(number)));
    for number in &numbers {
        let max_def = group.metadata().column(*number).column_descr().max_def_level();
        let opened = guarded(path, || group.get_column_reader(*number))?;
        if let Some(slot) = columns.get_mut(*number) {
            *slot = Some(Column::new(opened, max_def));
        }
    }
    let mut left = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
    while left > 0 {
        let mut rows = None;
        for column in columns.iter_mut().flatten() {
            let read = guarded(path, || column.fill(ROWS.min(left)))?;
            if *rows.get_or_insert(read) != read {
                return Err(damaged(path, "its columns have different numbers of rows"));
            }
        }
        // Of no column at all, only the number of rows is known.
        let rows = rows.unwrap_or(ROWS.min(left));
        if rows == 0 {
            return Err(damaged(path, &format!("row group {number} has {left} rows fewer than it says")));
        }
        for _ in 0..rows {
            let mut values = Vec::with_capacity(wanted.len());
            for node in wanted {
                values.push(match node {
                    Some(node) => node.next(&mut columns).map_err(|why| damaged(path, &why))?,
                    None => Value::Null,
                });
            }
            push(Row::new(schema.clone(), values))?;
        }
        if !columns.iter().flatten().all(Column::is_done) {
            return Err(damaged(path, "a column has more values than others"));
        }
        left -= rows;
    }
    Ok(())
}

/// Where a row group begins.
fn start(group: &RowGroupMetaData) -> u64 {
    let begin = |column: &::parquet::file::metadata::ColumnChunkMetaData| {
        let data = column.data_page_offset();
        column.dictionary_page_offset().filter(|offset| *offset > 0).map_or(data, |offset| offset.min(data))
    };
    group.columns().first().map_or(0, |column| u64::try_from(begin(column)).unwrap_or(u64::MAX))
}

fn check_group(group: &RowGroupMetaData, size: u64) -> std::result::Result<(), String> {
    for column in group.columns() {
        let (Ok(begin), Ok(length)) =
            (u64::try_from(column.data_page_offset()), u64::try_from(column.compressed_size()))
        else {
            return Err("a column begins or ends before the file".to_owned());
        };
        if begin.checked_add(length).is_none_or(|_| begin >= size) || length > size {
            return Err("a column begins or ends behind the file".to_owned());
        }
        if !(0..=MAX_CHUNK).contains(&column.uncompressed_size()) {
            return Err(format!("a column of {} bytes in a row group", column.uncompressed_size()));
        }
    }
    if group.num_rows() < 0 {
        return Err("a row group of less than no rows".to_owned());
    }
    Ok(())
}

/// The schema of a file.
pub fn schema_of(path: &str, size: u64) -> Result<Schema> {
    let input = Input::open(path, size)?;
    let (schema, nodes) = types_of(&input.metadata()?, path)?;
    match nodes.into_iter().find_map(std::result::Result::err) {
        Some(why) => Err(refused(path, &why)),
        None => Ok(schema),
    }
}

type Nodes = Vec<std::result::Result<Node, String>>;

fn types_of(metadata: &ParquetMetaData, path: &str) -> Result<(Schema, Nodes)> {
    let root = metadata.file_metadata().schema();
    Reader { column: 0 }.fields(root).map_err(|why| refused(path, &why))
}

fn refused(path: &str, why: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "TB0459", format!("rows cannot hold what the file has: {why}"))
        .at_place(SourcePlace { file: path.to_owned(), ..SourcePlace::default() })
        .with_help("name the columns that are wanted, without this one")
}

/// A file of which parts are read.
pub struct Input {
    fs: Arc<dyn FileSystem>,
    path: String,
    local: String,
    size: u64,
}

impl Input {
    pub fn open(path: &str, size: u64) -> Result<Self> {
        let (fs, local) = fs::of_path(path)?;
        Ok(Input { fs, path: path.to_owned(), local, size })
    }

    /// A file of that file system.
    pub fn of(fs: Arc<dyn FileSystem>, path: &str, size: u64) -> Self {
        Input { fs, path: path.to_owned(), local: path.to_owned(), size }
    }

    /// What stands behind the row groups.
    pub fn metadata(&self) -> Result<ParquetMetaData> {
        // Its length stands in the last eight bytes, and is allocated at once.
        let tail = guarded(&self.path, || match self.size {
            0..12 => {
                Err(ParquetError::General("it is too short for one; is this a Parquet file?".to_owned()))
            }
            size => self.get_bytes(size - 8, 8),
        })?;
        let (length, magic) = tail.split_at(4);
        if magic != b"PAR1" {
            return Err(damaged(&self.path, "it does not end as one").with_help("is this a Parquet file?"));
        }
        let length = u64::from(u32::from_le_bytes(length.try_into().unwrap_or_default()));
        if length > self.size - 8 || length > MAX_FOOTER {
            return Err(damaged(&self.path, &format!("what stands behind its rows has {length} bytes")));
        }
        guarded(&self.path, || ParquetMetaDataReader::new().parse_and_finish(self))
    }
}

impl Length for Input {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Input {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.fs.open(&self.local, start)?)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = Vec::new();
        let taken = self.get_read(start)?.take(length as u64).read_to_end(&mut bytes)?;
        if taken != length {
            return Err(ParquetError::EOF("it ends too early".to_owned()));
        }
        Ok(bytes.into())
    }
}
