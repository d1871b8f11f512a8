//! Decoding under limits, and resizing as Pillow does.

use image::{ExtendedColorType, ImageEncoder, Rgb};
use serde::Deserialize;

use super::*;
use crate::read::testing::{file, read_cut};

#[derive(Deserialize)]
struct Golden {
    decoding: Vec<Decoding>,
    resizing: Vec<Resizing>,
}

#[derive(Deserialize)]
struct Decoding {
    name: String,
    file: String,
    width: u32,
    height: u32,
    rgb: String,
}

#[derive(Deserialize)]
struct Resizing {
    width: u32,
    height: u32,
    mode: String,
    to: Option<u32>,
    size: [u32; 2],
    rgb: String,
}

/// What Pillow made; see `tests/golden/images.py`.
fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/images.json")).unwrap()
}

fn base64(text: &str) -> Vec<u8> {
    crate::json::read_base64(text).unwrap()
}

/// The largest difference of two bytes in the same place.
fn difference(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or_default()
}

/// The picture of the recording script.
fn picture(width: u32, height: u32) -> ImagePixels {
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            rgb.extend([(x * 7 + y * 3) as u8, (x * x + y * 5) as u8, (x * y * 2 + 11) as u8]);
        }
    }
    ImagePixels::new(height, width, rgb).unwrap()
}

#[test]
fn files_decode_as_in_pillow() {
    for case in golden().decoding {
        let bytes = base64(&case.file);
        let image = decode(&bytes, &ImageLimits::default()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!((image.width(), image.height()), (case.width, case.height), "{}", case.name);
        // Lossless formats agree to the byte; JPEG and lossy WebP allow decoders some rounding.
        let bound = match case.name.as_str() {
            "jpeg cmyk" => 4,
            "jpeg subsampled" | "webp lossy" => 6,
            name if name.starts_with("jpeg") => 2,
            _ => 0,
        };
        let got = difference(image.rgb(), &base64(&case.rgb));
        assert!(got <= bound, "{}: off by {got}", case.name);
    }
}

#[test]
fn sizes_change_as_in_pillow() {
    for case in golden().resizing {
        let resize = match (&*case.mode, case.to) {
            ("shorter", Some(to)) => Resize::ShorterSide(to),
            _ => Resize::Stretch,
        };
        let [height, width] = case.size;
        let config = ImageToF32 { resize, ..ImageToF32::of_size(height, width) };
        let image = ImageConverter::new(config).unwrap().resize(&picture(case.width, case.height)).unwrap();
        let got = difference(image.rgb(), &base64(&case.rgb));
        assert!(got <= 1, "{} × {} {} {:?}: off by {got}", case.height, case.width, case.mode, case.size);
    }
}

#[test]
fn bytes_become_numbers_in_either_layout() {
    let image = ImagePixels::new(1, 2, vec![0, 51, 255, 102, 0, 204]).unwrap();
    let of = |config: ImageToF32| {
        let mut converter = ImageConverter::new(config).unwrap();
        (converter.convert(&image).unwrap(), converter.shape())
    };
    let plain = ImageToF32::of_size(1, 2);
    assert_eq!(of(plain), (vec![0.0, 0.4, 0.2, 0.0, 1.0, 0.8], [3, 1, 2]));
    let hwc = ImageToF32 { layout: Layout::Nhwc, ..plain };
    assert_eq!(of(hwc), (vec![0.0, 0.2, 1.0, 0.4, 0.0, 0.8], [1, 2, 3]));
    let scaled = ImageToF32 { scale: 1.0, mean: [1.0, 2.0, 3.0], std: [2.0, 4.0, 0.5], ..hwc };
    assert_eq!(of(scaled).0, [-0.5, 12.25, 504.0, 50.5, -0.5, 402.0]);
    let crop = ImageToF32 { resize: Resize::Crop, scale: 1.0, ..ImageToF32::of_size(1, 1) };
    assert_eq!(of(crop).0, [0.0, 51.0, 255.0]);
    let error =
        ImageConverter::new(ImageToF32 { size: [2, 2], ..crop }).unwrap().convert(&image).unwrap_err();
    assert_eq!(error.message(), "an image of 1 × 2 pixels is too small to cut 2 × 2 out of it");
}

#[test]
fn settings_are_checked() {
    let base = ImageToF32::of_size(4, 4);
    for (config, why) in [
        (ImageToF32 { size: [0, 4], ..base }, "an image is converted to 1 to 8192 pixels a side, got 0 × 4"),
        (
            ImageToF32 { size: [4, 9000], ..base },
            "an image is converted to 1 to 8192 pixels a side, got 4 × 9000",
        ),
        (
            ImageToF32 { resize: Resize::ShorterSide(3), ..base },
            "the shorter side must be at least what is cut out (4 × 4) and at most 8192, got 3",
        ),
        (ImageToF32 { std: [1.0, 0.0, 1.0], ..base }, "std must not be zero, got [1.0, 0.0, 1.0]"),
        (ImageToF32 { scale: f32::NAN, ..base }, "scale, mean and std are finite numbers, got NaN"),
    ] {
        let Err(error) = ImageConverter::new(config) else { panic!("{why}") };
        assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidArgument, why));
    }
    assert!(ImagePixels::new(2, 2, vec![0; 11]).is_err());
    assert!(ImagePixels::new(0, 2, vec![]).is_err());
}

#[test]
fn long_thin_images_do_not_explode() {
    let thin = ImagePixels::new(1, 30_000, vec![9; 90_000]).unwrap();
    let config = ImageToF32 { resize: Resize::ShorterSide(256), ..ImageToF32::of_size(224, 224) };
    let numbers = ImageConverter::new(config).unwrap().convert(&thin).unwrap();
    assert!(numbers.iter().all(|n| *n == 9.0 / 255.0));
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 7]));
    let encoder = image::codecs::png::PngEncoder::new(&mut out);
    encoder.write_image(&image, width, height, ExtendedColorType::Rgb8).unwrap();
    out
}

use image::RgbImage;

#[test]
fn sixteen_bits_become_eight() {
    let mut out = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut out);
    let samples: Vec<u8> = [0u16, 0x8080, 0xffff].iter().flat_map(|n| n.to_ne_bytes()).collect();
    encoder.write_image(&samples, 1, 1, ExtendedColorType::Rgb16).unwrap();
    assert_eq!(decode(&out, &ImageLimits::default()).unwrap().rgb(), &[0, 0x80, 0xff][..]);
}

#[test]
fn too_large_images_are_refused_by_their_heads() {
    let small = ImageLimits { max_side: 100, max_pixels: 5000, max_alloc: 1 << 20 };
    assert_eq!(
        decode(&png(60, 90), &small).unwrap_err().message(),
        "an image of 90 × 60 pixels is larger than the limits: 100 a side, 5000 in all"
    );
    assert_eq!(
        decode(&png(101, 3), &small).unwrap_err().message(),
        "a PNG image is larger than the limits: it has more than 100 pixels a side"
    );
    // A head that claims 60,000 × 60,000 pixels, on a file of a few hundred bytes.
    let jpeg = golden()
        .decoding
        .into_iter()
        .find(|case| case.name == "jpeg")
        .map(|case| base64(&case.file))
        .unwrap();
    let sof = memchr::memmem::find(&jpeg, b"\xff\xc0\x00\x11\x08").unwrap();
    let mut bomb = jpeg.clone();
    bomb[sof + 5..sof + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    assert_eq!(
        decode(&bomb, &ImageLimits::default()).unwrap_err().message(),
        "an image of 60000 × 60000 pixels is larger than the limits: 32768 a side, 67108864 in all"
    );
    let mut png = png(10, 10);
    png[16..24].copy_from_slice(&[0, 0, 0x7f, 0xff, 0, 0, 0x7f, 0xff]);
    assert_eq!(decode(&png, &ImageLimits::default()).unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn damaged_files_are_told_and_nothing_panics() {
    for case in golden().decoding {
        let whole = base64(&case.file);
        // Cut off in the middle of the picture.
        let cut = &whole[..whole.len() * 2 / 3];
        match decode(cut, &ImageLimits::default()) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidData),
            Ok(_) => panic!("{}: a cut file was taken", case.name),
        }
        for i in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[i] ^= 1 << (i % 8);
            if let Ok(image) = decode(&bytes, &ImageLimits::default()) {
                assert!(image.rgb().len() as u64 <= 3 << 26);
            }
        }
    }
    assert_eq!(decode(b"", &ImageLimits::default()).unwrap_err().message(), "an image file is empty");
    assert_eq!(
        decode(b"<svg></svg>", &ImageLimits::default()).unwrap_err().message(),
        "not a JPEG, PNG, GIF, BMP or WebP image: it begins with the bytes 3c7376673e3c2f73"
    );
}

#[test]
fn files_are_read_with_their_names_on_errors() {
    let (_dir, path) = file("x.png", &png(3, 2));
    let (good, _) = read_cut(&ImageFiles::default(), &path, &Listing::default(), &[]).unwrap();
    assert_eq!((&good[0].0, good[0].1.width(), good[0].1.height()), (&path, 3, 2));
    let (_dir, path) = file("x.jpg", b"not an image");
    let (_, bad) = read_cut(&ImageFiles::default(), &path, &Listing::default(), &[]).unwrap();
    assert_eq!(bad[0].0, path.as_bytes());
    assert_eq!(
        bad[0].1.to_string(),
        format!(
            "not a JPEG, PNG, GIF, BMP or WebP image: it begins with the bytes 6e6f7420616e2069, at {path}"
        )
    );
}

#[test]
fn pixels_travel() {
    let image = picture(3, 2);
    let coder = ImagePixels::coder();
    let bytes = coder.to_bytes(&image).unwrap();
    assert_eq!(coder.from_bytes(bytes.clone()).unwrap(), image);
    assert_eq!(
        coder.from_bytes(bytes[..bytes.len() - 1].to_vec()).unwrap_err().kind(),
        ErrorKind::InvalidData
    );
}
