//! Images of five formats: bad data, or pixels within the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tiebeam_core::ErrorKind;
use tiebeam_io::images::{ImageLimits, decode};

fuzz_target!(|data: &[u8]| {
    let limits = ImageLimits { max_side: 1 << 10, max_pixels: 1 << 18, max_alloc: 8 << 20 };
    match decode(data, &limits) {
        Ok(image) => assert!(image.rgb().len() as u64 <= 3 * limits.max_pixels),
        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidData, "{error:?}"),
    }
});
