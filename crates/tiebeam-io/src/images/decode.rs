//! Files to pixels.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::error::{ImageError, LimitErrorKind};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};
use tiebeam_core::{Error, ErrorKind, Result};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::ImagePixels;

/// How large an image may be. Checked on what the file's head says, before anything is allocated for its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// The most pixels in a row or column.
    pub max_side: u32,
    /// The most pixels.
    pub max_pixels: u64,
    /// The most bytes that decoding may take beside them and beside what a decoder has for itself: 16 MiB at most, WebP's tables
    /// of codes. JPEG takes as much as its pixels need.
    pub max_alloc: u64,
}

impl Default for ImageLimits {
    /// 32,768 a side, 64 megapixels, 512 MiB.
    fn default() -> Self {
        ImageLimits { max_side: 1 << 15, max_pixels: 1 << 26, max_alloc: 512 << 20 }
    }
}

impl ImageLimits {
    pub(super) fn check(&self, width: u32, height: u32) -> Result<()> {
        let pixels = u64::from(width) * u64::from(height);
        if width > self.max_side || height > self.max_side || pixels > self.max_pixels {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "TB0452",
                format!(
                    "an image of {height} × {width} pixels is larger than the limits: {} a side, {} in all",
                    self.max_side, self.max_pixels
                ),
            )
            .with_help("raise the limits if such images are wanted"));
        }
        Ok(())
    }
}

/// The pixels of a JPEG, PNG, GIF, BMP or WebP file, upright.
///
/// # Errors
/// `InvalidData`, saying why: no image of these formats, damaged or cut off, larger than the limits.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<ImagePixels> {
    let format = image::guess_format(bytes).ok().filter(|format| {
        use ImageFormat as F;
        matches!(format, F::Jpeg | F::Png | F::Gif | F::Bmp | F::WebP)
    });
    let Some(format) = format else {
        let head: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let message = if bytes.is_empty() {
            "an image file is empty".to_owned()
        } else {
            format!("not a JPEG, PNG, GIF, BMP or WebP image: it begins with the bytes {head}")
        };
        return Err(Error::new(ErrorKind::InvalidData, "TB0450", message));
    };
    // The decoders are fuzzed and should not panic; if one does, it is this file that is bad, and not the job.
    let decoded = catch_unwind(AssertUnwindSafe(|| match format {
        ImageFormat::Jpeg => decode_jpeg(bytes, limits),
        _ => decode_other(bytes, format, limits),
    }));
    let mut image = decoded.unwrap_or_else(|_| Err(damaged(format, "its decoder panicked")))?;
    let orientation = image.1;
    if orientation != Orientation::NoTransforms {
        let mut turned = DynamicImage::ImageRgb8(image.0);
        turned.apply_orientation(orientation);
        image.0 = turned.into_rgb8();
    }
    let (width, height) = image.0.dimensions();
    ImagePixels::new(height, width, image.0.into_raw()).map_err(|e| damaged(format, e.message()))
}

fn decode_jpeg(bytes: &[u8], limits: &ImageLimits) -> Result<(RgbImage, Orientation)> {
    match decode_jpeg_strictly(bytes, limits, true) {
        // Padding between segments is allowed, and some cameras write it; but then the end must be there.
        Err(error) if error.message().contains("Extra bytes between headers") && has_jpeg_end(bytes) => {
            decode_jpeg_strictly(bytes, limits, false)
        }
        decoded => decoded,
    }
}

fn decode_jpeg_strictly(bytes: &[u8], limits: &ImageLimits, strict: bool) -> Result<(RgbImage, Orientation)> {
    let failed = |e: zune_jpeg::errors::DecodeErrors| damaged(ImageFormat::Jpeg, &e.to_string());
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(failed)?;
    let side = |n: Option<usize>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    let (width, height) = decoder.dimensions().unzip();
    let (width, height) = (side(width), side(height));
    limits.check(width, height)?;
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let pixels = decoder.decode().map_err(failed)?;
    let image = RgbImage::from_raw(width, height, pixels)
        .ok_or_else(|| damaged(ImageFormat::Jpeg, "it has fewer pixels than its head says"))?;
    Ok((image, orientation.unwrap_or(Orientation::NoTransforms)))
}

fn has_jpeg_end(bytes: &[u8]) -> bool {
    memchr::memmem::rfind(bytes, b"\xff\xd9").is_some()
}

fn decode_other(bytes: &[u8], format: ImageFormat, limits: &ImageLimits) -> Result<(RgbImage, Orientation)> {
    if format == ImageFormat::WebP {
        super::webp::check(bytes, limits)?;
    }
    let failed = |e| image_error(format, limits, e);
    let mut own = image::Limits::no_limits();
    own.max_image_width = Some(limits.max_side);
    own.max_image_height = Some(limits.max_side);
    own.max_alloc = Some(limits.max_alloc);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(own);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    limits.check(width, height)?;
    // What the note of the camera says is no reason to refuse the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    Ok((image.into_rgb8(), orientation))
}

fn image_error(format: ImageFormat, limits: &ImageLimits, error: ImageError) -> Error {
    match &error {
        ImageError::Limits(limit) => {
            let what = match limit.kind() {
                LimitErrorKind::DimensionError => {
                    format!("it has more than {} pixels a side", limits.max_side)
                }
                _ => format!("it needs more than {} bytes of memory", limits.max_alloc),
            };
            Error::new(
                ErrorKind::InvalidData,
                "TB0452",
                format!("a {} image is larger than the limits: {what}", name(format)),
            )
            .with_help("raise the limits if such images are wanted")
        }
        ImageError::Unsupported(_) => Error::new(
            ErrorKind::InvalidData,
            "TB0453",
            format!("a {} image is of a kind that cannot be read: {error}", name(format)),
        ),
        _ => damaged(format, &error.to_string()),
    }
}

pub(super) fn damaged(format: ImageFormat, why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0451", format!("a {} image is damaged: {why}", name(format)))
}

fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::WebP => "WebP",
        _ => "foreign",
    }
}
