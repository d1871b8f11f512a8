//! Numbers as text: the shortest that reads back as the same number, as Python's `repr` writes them.

use std::io::Write;

/// Appends a whole number.
#[inline]
pub(crate) fn write_int(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a double: `100.0`, `1e-05`, `1e+16`, `nan`, `inf`.
pub(crate) fn write_f64(value: f64, out: &mut Vec<u8>) {
    let at = out.len();
    // Writing into a Vec does not fail.
    let _ = write!(out, "{value:?}");
    pythonise(at, out);
}

/// Appends a float by its own shortest digits, not those of the double that it equals.
pub(crate) fn write_f32(value: f32, out: &mut Vec<u8>) {
    let at = out.len();
    let _ = write!(out, "{value:?}");
    pythonise(at, out);
}

/// Rust writes `1e-5` and `1e16` where Python has `1e-05` and `1e+16`; both change to exponents at the same numbers.
fn pythonise(at: usize, out: &mut Vec<u8>) {
    if out[at..].ends_with(b"NaN") {
        out.truncate(at);
        out.extend_from_slice(b"nan");
        return;
    }
    let Some(e) = out[at..].iter().position(|byte| *byte == b'e') else { return };
    let exponent = out.split_off(at + e + 1);
    let (sign, digits) = match exponent.split_first() {
        Some((b'-', digits)) => (b'-', digits),
        _ => (b'+', &*exponent),
    };
    out.push(sign);
    if digits.len() < 2 {
        out.push(b'0');
    }
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pythons() {
        let f64 = |value| {
            let mut out = Vec::new();
            write_f64(value, &mut out);
            String::from_utf8(out).unwrap()
        };
        let f32 = |value| {
            let mut out = Vec::new();
            write_f32(value, &mut out);
            String::from_utf8(out).unwrap()
        };
        // The right side is Python 3's repr().
        for (value, wanted) in [
            (100.0, "100.0"),
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (1.0 / 3.0, "0.3333333333333333"),
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(f64(value), wanted);
        }
        assert_eq!(f32(0.1), "0.1");
        assert_eq!(f32(1e-5), "1e-05");
        assert_eq!(f32(16_777_216.0), "16777216.0");
    }
}
