//! Pixels to numbers.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use tiebeam_core::{Error, ErrorKind, Result};

use super::ImagePixels;

/// The order of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Channel by channel: shape `[3, height, width]`, as PyTorch has it.
    #[default]
    Nchw,
    /// Pixel by pixel: shape `[height, width, 3]`, as TensorFlow has it.
    Nhwc,
}

/// How an image comes to its size. All resizing is bilinear and antialiased, as Pillow and torchvision do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resize {
    /// The whole image is stretched to the size.
    #[default]
    Stretch,
    /// The shorter side is brought to this length and the middle is cut out: torchvision's `Resize(n)` and `CenterCrop`.
    ShorterSide(u32),
    /// Nothing is resized; the middle is cut out.
    Crop,
}

/// How an image becomes numbers: resized, cut, each byte times `scale`, then `(x - mean) / std` for each channel.
///
/// ```
/// use tiebeam_io::images::{ImageConverter, ImagePixels, ImageToF32, Resize};
///
/// // What torchvision's classifiers want.
/// let config = ImageToF32 {
///     resize: Resize::ShorterSide(256),
///     mean: [0.485, 0.456, 0.406],
///     std: [0.229, 0.224, 0.225],
///     ..ImageToF32::of_size(224, 224)
/// };
/// let mut converter = ImageConverter::new(config)?;
/// let image = ImagePixels::new(300, 400, vec![127; 300 * 400 * 3])?;
/// assert_eq!(converter.convert(&image)?.len(), 3 * 224 * 224);
/// assert_eq!(converter.shape(), [3, 224, 224]);
/// # Ok::<(), tiebeam_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageToF32 {
    /// Height and width of the result.
    pub size: [u32; 2],
    /// How the image comes to that size.
    pub resize: Resize,
    /// The order of the numbers.
    pub layout: Layout,
    /// What each byte is multiplied with first; 1/255 by default.
    pub scale: f32,
    /// What is subtracted then, for red, green and blue.
    pub mean: [f32; 3],
    /// What it is divided by last.
    pub std: [f32; 3],
}

impl ImageToF32 {
    /// Stretched to a size, from 0 to 1, channel by channel.
    pub fn of_size(height: u32, width: u32) -> Self {
        ImageToF32 {
            size: [height, width],
            resize: Resize::Stretch,
            layout: Layout::Nchw,
            scale: 1.0 / 255.0,
            mean: [0.0; 3],
            std: [1.0; 3],
        }
    }
}

/// The largest side of a result.
const MAX_SIDE: u32 = 8192;

/// Converts images one after another, with buffers of its own. One for each thread.
pub struct ImageConverter {
    config: ImageToF32,
    /// The number of each byte, by channel.
    table: Box<[[f32; 256]; 3]>,
    resizer: Resizer,
}

impl ImageConverter {
    /// A converter.
    ///
    /// # Errors
    /// `InvalidArgument` for a size of nothing or beyond 8192, a shorter side shorter than what is cut out, or numbers
    /// that are not finite or a `std` of zero.
    pub fn new(config: ImageToF32) -> Result<Self> {
        let wrong = |message: String| Err(Error::new(ErrorKind::InvalidArgument, "TB0455", message));
        let [height, width] = config.size;
        if [height, width].iter().any(|side| !(1..=MAX_SIDE).contains(side)) {
            return wrong(format!(
                "an image is converted to 1 to {MAX_SIDE} pixels a side, got {height} × {width}"
            ));
        }
        if let Resize::ShorterSide(to) = config.resize
            && (to < height.max(width) || to > MAX_SIDE)
        {
            return wrong(format!(
                "the shorter side must be at least what is cut out ({height} × {width}) and at most {MAX_SIDE}, got {to}"
            ));
        }
        let numbers = [config.scale].into_iter().chain(config.mean).chain(config.std);
        if let Some(odd) = numbers.into_iter().find(|number| !number.is_finite()) {
            return wrong(format!("scale, mean and std are finite numbers, got {odd}"));
        }
        if config.std.contains(&0.0) {
            return wrong(format!("std must not be zero, got {:?}", config.std));
        }
        let mut table = Box::new([[0.0; 256]; 3]);
        for (channel, numbers) in table.iter_mut().enumerate() {
            for (byte, number) in numbers.iter_mut().enumerate() {
                // 1/255 is no float; dividing gives what everybody else gets.
                let scaled = if config.scale == 1.0 / 255.0 {
                    byte as f32 / 255.0
                } else {
                    byte as f32 * config.scale
                };
                *number = (scaled - config.mean[channel]) / config.std[channel];
            }
        }
        Ok(ImageConverter { config, table, resizer: Resizer::new() })
    }

    /// The shape of a result, without a batch axis.
    pub fn shape(&self) -> [usize; 3] {
        let [height, width] = self.config.size.map(|side| side as usize);
        match self.config.layout {
            Layout::Nchw => [3, height, width],
            Layout::Nhwc => [height, width, 3],
        }
    }

    /// The numbers of an image, in the order of [`shape`](ImageConverter::shape).
    ///
    /// # Errors
    /// `InvalidData` when the image is too small to be cut without being resized.
    pub fn convert(&mut self, image: &ImagePixels) -> Result<Vec<f32>> {
        let resized = self.resized(image)?;
        let pixels = resized.as_deref().unwrap_or(image.rgb());
        let table = &self.table;
        Ok(match self.config.layout {
            Layout::Nhwc => {
                let of_pixel = |rgb: &[u8]| [0, 1, 2].map(|c| table[c][usize::from(rgb[c])]);
                pixels.chunks_exact(3).flat_map(of_pixel).collect()
            }
            Layout::Nchw => {
                let mut out = Vec::with_capacity(pixels.len());
                for (channel, numbers) in table.iter().enumerate() {
                    out.extend(pixels[channel..].iter().step_by(3).map(|byte| numbers[usize::from(*byte)]));
                }
                out
            }
        })
    }

    /// The image at its size, before it becomes numbers.
    ///
    /// # Errors
    /// As [`convert`](ImageConverter::convert).
    pub fn resize(&mut self, image: &ImagePixels) -> Result<ImagePixels> {
        let [height, width] = self.config.size;
        match self.resized(image)? {
            Some(rgb) => ImagePixels::new(height, width, rgb),
            None => Ok(image.clone()),
        }
    }

    /// The bytes at the size; none when the image has it already.
    fn resized(&mut self, image: &ImagePixels) -> Result<Option<Vec<u8>>> {
        let [height, width] = self.config.size;
        let (from_height, from_width) = (image.height(), image.width());
        let options =
            ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
        let is_there = (from_height, from_width) == (height, width);
        let options = match self.config.resize {
            Resize::Stretch | Resize::Crop if is_there => return Ok(None),
            Resize::Stretch => options,
            Resize::ShorterSide(to) => options_for_shorter(options, image, to, [height, width]),
            Resize::Crop => return self.cropped(image).map(Some),
        };
        let failed = |e: &dyn std::fmt::Display| Error::internal(format!("resizing an image: {e}"));
        let source =
            ImageRef::new(from_width, from_height, image.rgb(), PixelType::U8x3).map_err(|e| failed(&e))?;
        let mut target = Image::new(width, height, PixelType::U8x3);
        self.resizer.resize(&source, &mut target, Some(&options)).map_err(|e| failed(&e))?;
        Ok(Some(target.into_vec()))
    }

    fn cropped(&self, image: &ImagePixels) -> Result<Vec<u8>> {
        let [height, width] = self.config.size;
        if image.height() < height || image.width() < width {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "TB0456",
                format!(
                    "an image of {} × {} pixels is too small to cut {height} × {width} out of it",
                    image.height(),
                    image.width()
                ),
            ));
        }
        let top = centred(image.height(), height) as usize;
        let left = centred(image.width(), width) as usize;
        let (stride, length) = (image.width() as usize * 3, width as usize * 3);
        let rows = image.rgb().chunks_exact(stride).skip(top).take(height as usize);
        Ok(rows.flat_map(|row| &row[left * 3..left * 3 + length]).copied().collect())
    }
}

/// Resizes only what is cut out afterwards: an image of one pixel by ten thousand must not become a giant on the way.
fn options_for_shorter(
    options: ResizeOptions,
    image: &ImagePixels,
    to: u32,
    size: [u32; 2],
) -> ResizeOptions {
    let (height, width) = (u64::from(image.height()), u64::from(image.width()));
    let to = u64::from(to);
    // torchvision rounds the longer side down.
    let (full_height, full_width) =
        if width <= height { (to * height / width, to) } else { (to, to * width / height) };
    let span = |from: u64, full: u64, out: u32| {
        let factor = from as f64 / full as f64;
        let length = (f64::from(out) * factor).min(from as f64);
        let start =
            (centred(u32::try_from(full).unwrap_or(u32::MAX), out) as f64 * factor).min(from as f64 - length);
        (start.max(0.0), length)
    };
    let (top, crop_height) = span(height, full_height, size[0]);
    let (left, crop_width) = span(width, full_width, size[1]);
    options.crop(left, top, crop_width, crop_height)
}

/// Where the middle begins; halves are rounded to even, as Python does.
fn centred(from: u32, out: u32) -> u32 {
    let rest = from.saturating_sub(out);
    let half = rest / 2;
    if rest % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}
