//! Images: JPEG, PNG, GIF, BMP and WebP to pixels, and pixels to the numbers that models take.
//!
//! Images are decoded under limits that hold before anything is allocated. The orientation that cameras note (EXIF) is
//! applied. Transparency is dropped, as in Pillow's `convert("RGB")`; of an animation the first frame is read.

mod convert;
mod decode;
mod webp;

use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::{
    Codec, Coder, CoderSpec, Element, Error, ErrorKind, Nesting, Reader, Result, SourcePlace,
};

pub use convert::{ImageConverter, ImageToF32, Layout, Resize};
pub use decode::{ImageLimits, decode};

use crate::compression::Compression;
use crate::files::{MAX_FILE, read_file};
use crate::ranges::FileRange;
use crate::read::{Listing, RangeReader, ReadAllFiles, ReadFiles, Records};

/// A decoded image: eight bits each of red, green and blue, row by row from the top left. Cheap to clone. Travels as
/// Beam's `kv<kv<varint, varint>, bytes>`.
#[derive(Clone, PartialEq, Eq)]
pub struct ImagePixels {
    height: u32,
    width: u32,
    rgb: Bytes,
}

impl ImagePixels {
    /// An image of `height` × `width` pixels.
    ///
    /// # Errors
    /// `InvalidArgument` when there are not three bytes a pixel, or no pixels.
    pub fn new(height: u32, width: u32, rgb: impl Into<Bytes>) -> Result<Self> {
        let rgb = rgb.into();
        let wanted = u64::from(height) * u64::from(width) * 3;
        if wanted == 0 || rgb.len() as u64 != wanted {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0454",
                format!("an image of {height} × {width} pixels has {wanted} bytes, got {}", rgb.len()),
            ));
        }
        Ok(ImagePixels { height, width, rgb })
    }

    /// The number of rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The number of pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// The bytes.
    pub fn rgb(&self) -> &Bytes {
        &self.rgb
    }
}

impl std::fmt::Debug for ImagePixels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ImagePixels({} × {})", self.height, self.width)
    }
}

/// Reads each image file that matches a pattern as `(path, pixels)`.
///
/// ```
/// use tiebeam_graph::Pipeline;
/// use tiebeam_io::images;
///
/// let p = Pipeline::new();
/// let read = p.apply(images::read("photos/**/*.jpg").with_error_handling());
/// let sizes = read.records.map(|(path, image)| (path, (image.height(), image.width())));
/// let damaged = read.failed.map(|failed| failed.failure.message);
/// ```
pub fn read(pattern: impl Into<Arc<str>>) -> ReadFiles<ImageFiles> {
    ReadFiles::new(pattern, ImageFiles::default())
}

/// Reads each image file that matches a pattern of a PCollection; the paths themselves will do.
pub fn read_all() -> ReadAllFiles<ImageFiles> {
    ReadAllFiles::new(ImageFiles::default())
}

/// Reads and decodes image files.
#[derive(Debug, Clone, Default)]
pub struct ImageFiles {
    limits: ImageLimits,
}

impl ReadFiles<ImageFiles> {
    /// How large images may be.
    #[must_use]
    pub fn with_limits(self, limits: ImageLimits) -> Self {
        self.map_reader(|_| ImageFiles { limits })
    }
}

impl ReadAllFiles<ImageFiles> {
    /// How large images may be.
    #[must_use]
    pub fn with_limits(self, limits: ImageLimits) -> Self {
        self.map_reader(|_| ImageFiles { limits })
    }
}

impl RangeReader for ImageFiles {
    type Record = (String, ImagePixels);

    fn label(&self) -> &'static str {
        "ReadImages"
    }

    fn coder(&self) -> Coder<Self::Record> {
        Self::Record::coder()
    }

    fn is_splittable(&self) -> bool {
        false
    }

    fn read(&self, range: &FileRange, _: &Listing, records: &mut Records<'_, Self::Record>) -> Result<()> {
        match read_image(&range.path, &self.limits) {
            Ok(image) => {
                records.push((range.path.clone(), image))?;
                // An image is as large as many small elements.
                records.flush()
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => records.bad(range.path.as_bytes(), error),
            Err(error) => Err(error),
        }
    }
}

/// Reads and decodes one file.
///
/// # Errors
/// `InvalidData` naming the file when it is no image, damaged, or larger than the limits; what the file system says.
pub fn read_image(path: &str, limits: &ImageLimits) -> Result<ImagePixels> {
    let bytes = read_file(path, Compression::None, MAX_FILE)?;
    decode(&bytes, limits)
        .map_err(|e| e.at_place(SourcePlace { file: path.to_owned(), ..SourcePlace::default() }))
}

type Wire = ((u32, u32), Bytes);

struct PixelsCodec(Coder<Wire>);

impl Codec<ImagePixels> for PixelsCodec {
    fn encode(&self, image: &ImagePixels, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        self.0.encode(&((image.height, image.width), image.rgb.clone()), out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<ImagePixels> {
        let ((height, width), rgb) = self.0.decode(input, nesting)?;
        ImagePixels::new(height, width, rgb)
            .map_err(|e| Error::new(ErrorKind::InvalidData, "TB0454", e.message().to_owned()))
    }

    fn spec(&self) -> CoderSpec {
        self.0.spec()
    }
}

impl Element for ImagePixels {
    fn coder() -> Coder<Self> {
        Coder::new(PixelsCodec(Wire::coder()))
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        Ok(Coder::new(PixelsCodec(Wire::coder_of(spec)?)))
    }
}

#[cfg(test)]
mod tests;
