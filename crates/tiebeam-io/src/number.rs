//! Numbers as text: the shortest that reads back as the same number, as Python's `repr` writes them.

use std::io::Write;

/// Appends a whole number.
#[inline]
pub(crate) fn write_int(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a double: `100.0`, `1e-05`, `1e+16`, `nan`, `inf`.
#[inline]
pub(crate) fn write_f64(value: f64, out: &mut Vec<u8>) {
    let size = value.abs();
    if size < WHOLE_F64 && value.trunc() == value && (size > 0.0 || value.is_sign_positive()) {
        return write_whole(value as i64, out);
    }
    if (SMALLEST..1e15).contains(&size) {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
        return;
    }
    write_rare(value, out);
}

/// Appends a float by its own shortest digits, not those of the double that it equals.
#[inline]
pub(crate) fn write_f32(value: f32, out: &mut Vec<u8>) {
    let size = value.abs();
    if size < WHOLE_F32 && value.trunc() == value && (size > 0.0 || value.is_sign_positive()) {
        return write_whole(value as i64, out);
    }
    if (SMALLEST as f32..1e12).contains(&size) {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
        return;
    }
    write_rare(value, out);
}

/// Below these, a number without a fraction has the digits of the whole number: every whole number up to here is a float.
const WHOLE_F64: f64 = 9_007_199_254_740_992.0;
const WHOLE_F32: f32 = 16_777_216.0;
/// From here on, and below where exponents begin, the fast digits are written as Python writes them.
const SMALLEST: f64 = 1e-4;

#[inline]
fn write_whole(value: i64, out: &mut Vec<u8>) {
    write_int(value, out);
    out.extend_from_slice(b".0");
}

/// Appends what the fast ways leave: very large and very small numbers, -0, and what is no number.
#[cold]
fn write_rare(value: impl std::fmt::Debug, out: &mut Vec<u8>) {
    let at = out.len();
    // Writing into a Vec does not fail.
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
        assert_eq!(f32(-0.0), "-0.0");
    }

    #[test]
    fn the_fast_ways_write_as_the_slow_one_does() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        // Of two shortest texts that are as near, Python takes the even one and the standard library the larger one: both
        // are as long, and read back as the same number.
        let double = |value: f64| {
            let (fast, slow) =
                (written(&|out| write_f64(value, out)), written(&|out| write_rare(value, out)));
            let same = fast == slow || (fast.len() == slow.len() && fast.parse() == Ok(value));
            assert!(same, "{fast} {slow}");
        };
        let float = |value: f32| {
            let (fast, slow) =
                (written(&|out| write_f32(value, out)), written(&|out| write_rare(value, out)));
            let same = fast == slow || (fast.len() == slow.len() && fast.parse() == Ok(value));
            assert!(same, "{fast} {slow}");
        };
        // All exponents, and around all powers of ten and of two.
        let mut bits = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let bits = bits ^ (bits >> 29);
            double(f64::from_bits(bits));
            float(f32::from_bits((bits >> 32) as u32));
        }
        for power in -20..20 {
            let near =
                [10f64.powi(power), 2f64.powi(power * 3), 1.0 + f64::from(power), f64::from(power) / 10.0];
            for near in near {
                [near, near.next_up(), near.next_down()].into_iter().for_each(double);
                let near = near as f32;
                [near, near.next_up(), near.next_down()].into_iter().for_each(float);
            }
        }
    }
}
