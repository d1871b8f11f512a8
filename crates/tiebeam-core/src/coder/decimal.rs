//! `beam:logical_type:decimal:v1`: exact decimal numbers, kept here as text.
//!
//! On the wire stands a scale (the digits after the point), then the number without its point as a big-endian two's
//! complement integer with its length. The text keeps the scale: `1.50` and `1.5` are two values.

use super::atoms::{bounded, put_bytes, take_bytes};
use super::{Nesting, Reader, write_varint};
use crate::error::{Error, ErrorKind, Result};

/// A number of more bytes is refused: turning it to text takes time that grows with the square of its length.
const MAX_BYTES: usize = 1_024;

/// Zeros are written out up to this many places; beyond them the text has an exponent.
const MAX_PLACES: i64 = 64;

fn bad(text: &str) -> Error {
    let text: String = text.chars().take(60).collect();
    Error::new(ErrorKind::InvalidData, "TB0121", format!("`{text}` is no decimal number that can be encoded"))
        .with_help("wanted digits with at most one point and one exponent, such as -12.50 or 1E-9")
}

/// Writes a decimal number from its text.
pub(super) fn encode(text: &str, out: &mut Vec<u8>) -> Result<()> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().map_err(|_| bad(text))?),
        None => (text, 0),
    };
    let (negative, number) = match number.as_bytes().first() {
        Some(b'-') => (true, &number[1..]),
        Some(b'+') => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().count() == 0 || !digits().all(|digit| digit.is_ascii_digit()) {
        return Err(bad(text));
    }
    let scale = bounded::<i32>(fraction.len() as i64 - i64::from(exponent)).map_err(|_| bad(text))?;
    // Little-endian base 256.
    let mut magnitude: Vec<u8> = Vec::new();
    for digit in digits() {
        let mut carry = u32::from(digit - b'0');
        for byte in &mut magnitude {
            carry += u32::from(*byte) * 10;
            *byte = carry as u8;
            carry >>= 8;
        }
        if carry > 0 {
            magnitude.push(carry as u8);
        }
        if magnitude.len() > MAX_BYTES {
            return Err(bad(text));
        }
    }
    if negative {
        negate(&mut magnitude);
    }
    let sign_is_set = magnitude.last().is_some_and(|top| top & 0x80 != 0);
    let is_zero = magnitude.iter().all(|byte| *byte == 0);
    if is_zero {
        magnitude = vec![0];
    } else if negative != sign_is_set {
        magnitude.push(if negative { 0xff } else { 0 });
    }
    magnitude.reverse();
    write_varint(i64::from(scale), out);
    put_bytes(&magnitude, out, Nesting::Nested);
    Ok(())
}

/// Two's complement of little-endian bytes, cut to their length.
fn negate(bytes: &mut [u8]) {
    let mut carry = true;
    for byte in bytes {
        let (negated, overflow) = (!*byte).overflowing_add(u8::from(carry));
        *byte = negated;
        carry = overflow;
    }
}

/// Reads a decimal number as text.
pub(super) fn decode(input: &mut Reader) -> Result<String> {
    let scale = i64::from(bounded::<i32>(input.varint()?)?);
    let bytes = take_bytes(input, Nesting::Nested)?;
    if bytes.is_empty() || bytes.len() > MAX_BYTES {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "TB0121",
            format!("a decimal number of {} bytes, wanted 1 to {MAX_BYTES}", bytes.len()),
        ));
    }
    let negative = bytes[0] & 0x80 != 0;
    let mut magnitude: Vec<u8> = bytes.iter().rev().copied().collect();
    if negative {
        negate(&mut magnitude);
    }
    let digits = digits_of(magnitude);
    let mut text = String::with_capacity(digits.len() + 4);
    if negative {
        text.push('-');
    }
    let count = digits.len() as i64;
    match scale {
        0 => text.push_str(&digits),
        1.. if scale < count => {
            let (whole, fraction) = digits.split_at((count - scale) as usize);
            text.extend([whole, ".", fraction]);
        }
        1.. if scale - count <= MAX_PLACES => {
            text.push_str("0.");
            text.extend(std::iter::repeat_n('0', (scale - count) as usize));
            text.push_str(&digits);
        }
        _ => text.extend([digits.as_str(), "E", &(-scale).to_string()]),
    }
    Ok(text)
}

/// Decimal digits of a little-endian number.
fn digits_of(mut magnitude: Vec<u8>) -> String {
    let mut groups: Vec<u32> = Vec::new();
    while magnitude.last() == Some(&0) {
        magnitude.pop();
    }
    while !magnitude.is_empty() {
        let mut rest = 0u64;
        for byte in magnitude.iter_mut().rev() {
            rest = rest << 8 | u64::from(*byte);
            *byte = (rest / 1_000_000_000) as u8;
            rest %= 1_000_000_000;
        }
        groups.push(rest as u32);
        while magnitude.last() == Some(&0) {
            magnitude.pop();
        }
    }
    let mut digits = groups.pop().unwrap_or(0).to_string();
    for group in groups.iter().rev() {
        digits.push_str(&format!("{group:09}"));
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode(text, &mut out).unwrap();
        out
    }

    #[test]
    fn text_and_bytes_agree() {
        // The bytes are those of Java's BigDecimal: scale, length, two's complement.
        for (text, encoded) in [
            ("0", &[0, 1, 0][..]),
            ("0.0", &[1, 1, 0]),
            ("1.0", &[1, 1, 10]),
            ("127", &[0, 1, 127]),
            ("128", &[0, 2, 0, 128]),
            ("-128", &[0, 1, 128]),
            ("-129", &[0, 2, 255, 127]),
            ("3.1415", &[4, 2, 0x7a, 0xb7]),
            ("-100.123", &[3, 3, 0xfe, 0x78, 0xe5]),
            ("0.00012", &[5, 1, 12]),
        ] {
            assert_eq!(bytes(text), encoded, "{text}");
            assert_eq!(decode(&mut Reader::new(encoded)).unwrap(), text);
        }
        let large = "-123456789012345678901234567890123456789012345678901234567890.000001";
        assert_eq!(decode(&mut Reader::new(bytes(large))).unwrap(), large);
    }

    #[test]
    fn exponents_become_scales() {
        assert_eq!(bytes("12E-3"), bytes("0.012"));
        assert_eq!(decode(&mut Reader::new(bytes("7E5"))).unwrap(), "7E5");
        assert_eq!(decode(&mut Reader::new(bytes("7E-2000000000"))).unwrap(), "7E-2000000000");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", ".", "1.2.3", "0x10", "NaN", "1e", "1E99999999999", "½", "１"] {
            assert_eq!(encode(text, &mut Vec::new()).unwrap_err().code(), "TB0121", "{text}");
        }
        assert_eq!(decode(&mut Reader::new(&[0, 0][..])).unwrap_err().code(), "TB0121");
        let long = "9".repeat(100_000);
        assert_eq!(encode(&long, &mut Vec::new()).unwrap_err().code(), "TB0121");
    }
}
