//! CSV files: rows of their schema and records that are told as bad, never more of them than there are bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tiebeam_io::csv;

#[path = "../records.rs"]
mod records;

fuzz_target!(|data: &[u8]| {
    let mut reader = None;
    let _ = csv::read("x", records::schema()).map_reader(|own| reader.insert(own).clone());
    records::read(&reader.expect("the reader is given at once"), data);
});
