//! File systems, text, csv, json, images, match and read, atomic file sinks.

pub mod compression;
pub mod csv;
pub mod files;
pub mod fs;
#[cfg(feature = "images")]
pub mod images;
pub mod json;
mod lines;
mod number;
pub mod ranges;
pub mod read;
pub mod sink;
pub mod text;
pub mod tfrecord;
mod typed;

pub use compression::Compression;
pub use fs::{FileMetadata, FileSystem};
pub use ranges::{FileRange, Splitting};
pub use read::{Listing, ReadAllFiles, ReadFiles, ReadResults};
pub use sink::write::WriteFiles;
pub use typed::Typed;
