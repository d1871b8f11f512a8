//! Reads the bytes of a file of records as the pipeline does.

use std::sync::Arc;

use tiebeam_core::row::{FieldType, Schema, TypeKind};
use tiebeam_core::{Bytes, Error, ErrorKind};
use tiebeam_io::FileRange;
use tiebeam_io::read::{Listing, RangeReader, Records};

/// Of what the records are.
pub fn schema() -> Arc<Schema> {
    Arc::new(Schema::of([
        ("n", FieldType::required(TypeKind::Int64)),
        ("x", FieldType::nullable(TypeKind::Double)),
        ("t", FieldType::nullable(TypeKind::String)),
    ]))
}

/// Reads `data` whole; whatever is wrong with it is bad data.
pub fn read<R: RangeReader>(reader: &R, data: &[u8]) {
    let path = std::env::temp_dir().join(format!("tiebeam-fuzz-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    if std::fs::write(&path, data).is_err() {
        return;
    }
    let size = data.len() as u64;
    let range = FileRange { path: path.display().to_string(), size, start: 0, end: size };
    let (mut good, mut bad) = (0, 0);
    let wrong = |error: &Error| assert_eq!(error.kind(), ErrorKind::InvalidData, "{error:?}");
    let mut emit = |values: Vec<R::Record>| {
        good += values.len();
        Ok(())
    };
    let mut fail = |_: Bytes, error: Error| {
        wrong(&error);
        bad += 1;
        Ok(())
    };
    let mut records = Records::new(&mut emit, &mut fail);
    let done = reader.read(&range, &Listing::default(), &mut records).and_then(|()| records.flush());
    if let Err(error) = done {
        wrong(&error);
    }
    assert!(good + bad <= data.len(), "{good} and {bad} records of {} bytes", data.len());
}
