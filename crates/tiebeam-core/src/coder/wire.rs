//! The few protobuf pieces that coder and window payloads need, so that this crate stays free of a protobuf library.

use super::write_varint;

/// A varint field.
pub fn varint(out: &mut Vec<u8>, field: u32, value: i64) {
    if value != 0 {
        write_varint(i64::from(field << 3), out);
        write_varint(value, out);
    }
}

/// A length-delimited field: bytes, a string or an encoded message.
pub fn message(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    write_varint(i64::from(field << 3 | 2), out);
    write_varint(value.len() as i64, out);
    out.extend_from_slice(value);
}

/// `google.protobuf.Duration` (and `Timestamp`, which has the same shape) of microseconds.
pub fn duration(micros: i64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, 1, micros.div_euclid(1_000_000));
    varint(&mut out, 2, micros.rem_euclid(1_000_000) * 1_000);
    out
}
