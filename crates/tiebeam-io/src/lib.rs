//! File systems, text, csv, json, Parquet, Avro, images, match and read, atomic file sinks.

#[cfg(feature = "tables")]
pub mod avro;
pub mod compression;
pub mod csv;
pub mod files;
pub mod fs;
#[cfg(feature = "images")]
pub mod images;
pub mod json;
mod lines;
mod number;
#[cfg(feature = "tables")]
pub mod parquet;
pub mod ranges;
pub mod read;
pub mod sink;
#[cfg(feature = "tables")]
mod tables;
#[cfg(all(test, feature = "tables"))]
mod tables_tests;
pub mod text;
pub mod tfrecord;
mod typed;

pub use compression::Compression;
pub use fs::{FileMetadata, FileSystem};
pub use ranges::{FileRange, Splitting};
pub use read::{Listing, ReadAllFiles, ReadFiles, ReadResults};
pub use sink::write::WriteFiles;
pub use typed::Typed;
