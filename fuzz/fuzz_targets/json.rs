//! JSON lines: rows of their schema and records that are told as bad, never more of them than there are bytes.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tiebeam_core::row::{FieldType, Schema, TypeKind};
use tiebeam_io::json;

#[path = "../records.rs"]
mod records;

fuzz_target!(|data: &[u8]| {
    let schema = Arc::new(Schema::of([
        ("n", FieldType::required(TypeKind::Int64)),
        ("x", FieldType::nullable(TypeKind::Double)),
        ("t", FieldType::nullable(TypeKind::String)),
    ]));
    let mut reader = None;
    let _ = json::read("x", schema).map_reader(|own| reader.insert(own).clone());
    if let Some(reader) = reader {
        records::read(&reader, data);
    }
});
