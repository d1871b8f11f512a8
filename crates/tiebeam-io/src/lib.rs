//! File systems, text, csv, json, images, match and read, atomic file sinks.

pub mod compression;
pub mod fs;
mod lines;
pub mod ranges;
pub mod sink;

pub use compression::Compression;
pub use fs::{FileMetadata, FileSystem};
pub use ranges::{FileRange, Splitting};
