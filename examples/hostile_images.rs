//! Hostile images: good photos among damaged ones and decompression bombs. Each good one gets its class from a model, each other one
//! is told with its file and the reason, and no file takes more memory than the limits allow.
//!
//! ```text
//! $ cargo run -p tiebeam --example hostile_images -- make out/hostile 10000
//! $ cargo run -p tiebeam --example hostile_images -- --input out/hostile --output out/classes
//! ```
//!
//! The first line writes the files, one in a hundred of them damaged in one of twelve ways, three bombs beside them, and a
//! model: the mean of each colour. What the process took at most is told on stderr, where the system knows it.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use image::{ExtendedColorType, ImageFormat, Rgb, RgbImage};
use tiebeam::ImageToTensor;
use tiebeam::inference::{ModelHandler, RunInference};
use tiebeam::io::images::{self, ImageToF32};
use tiebeam::io::text;
use tiebeam::onnx::OnnxModelHandler;
use tiebeam::onnx::proto::{
    AttributeProto, Axis, GraphProto, ModelProto, NodeProto, ValueInfoProto, data_type,
};
use tiebeam::prelude::*;

type Made<T> = Result<T, Box<dyn std::error::Error>>;

/// The side of the tensors.
const SIDE: u32 = 32;

/// Reads images, tells the colour that each has most of, and writes what can't be read with its reason.
pub fn build(p: &Pipeline, options: &Options) {
    let input = if options.input.is_empty() { "out/hostile" } else { &options.input };
    let output = if options.output.is_empty() { "out/classes" } else { &options.output };
    let to_tensor = match ImageToTensor::new(ImageToF32::of_size(SIDE, SIDE)) {
        Ok(to_tensor) => to_tensor,
        Err(wrong) => return p.fail(wrong),
    };
    let model = OnnxModelHandler::new(format!("{input}/mean.onnx"));
    let read = p.step("Read").apply(images::read(format!("{input}/photos/*")).with_error_handling());
    read.failed
        .step("Tell")
        .map(|failed| {
            let failure = failed.failure;
            let file = failure.source.map_or_else(String::new, |place| name(&place.file));
            format!("{file}\t{}\t{}", failure.code, failure.message.replace(['\n', '\t'], " "))
        })
        .step("WriteDamaged")
        .apply(text::write(&format!("{output}-damaged")));
    read.records
        .step("ToTensor")
        .apply(to_tensor)
        .step("Ask")
        .apply(RunInference::new(model.carrying::<String>()))
        .step("Name")
        .map(|result| {
            let means = result.inference.as_slice::<f32>().unwrap_or_default();
            let most = (0..means.len()).max_by(|a, b| means[*a].total_cmp(&means[*b])).unwrap_or_default();
            format!("{}\t{}", name(&result.example.0), ["red", "green", "blue"].get(most).unwrap_or(&"none"))
        })
        .step("Write")
        .apply(text::write(output));
}

fn name(path: &str) -> String {
    Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A model: float32[n, 3, side, side] to the mean of each channel, float32[n, 3].
fn mean() -> Vec<u8> {
    let side = Axis::Fixed(SIDE as usize);
    let node = NodeProto::of("ReduceMean", &["x"], &["y"])
        .with(AttributeProto::ints("axes", &[2, 3]))
        .with(AttributeProto::int("keepdims", 0));
    let graph = GraphProto {
        name: "mean".to_owned(),
        node: vec![node],
        input: vec![ValueInfoProto::tensor(
            "x",
            data_type::FLOAT,
            &[Axis::Named("n"), Axis::Fixed(3), side, side],
        )],
        output: vec![ValueInfoProto::tensor("y", data_type::FLOAT, &[Axis::Named("n"), Axis::Fixed(3)])],
        ..GraphProto::default()
    };
    ModelProto::of(graph, 13).to_bytes()
}

/// The ways in which a file is damaged.
const DAMAGES: [&str; 12] = [
    "empty",
    "text",
    "cut-jpeg",
    "cut-png",
    "cut-gif",
    "cut-bmp",
    "cut-webp",
    "bit-png",
    "no-magic",
    "no-pixels",
    "noise",
    "headless-jpeg",
];

/// Files of images, one in a hundred damaged, three bombs, and the model.
fn make(folder: &Path, count: usize) -> Made<()> {
    let photos = folder.join("photos");
    fs::create_dir_all(&photos)?;
    fs::write(folder.join("mean.onnx"), mean())?;
    for number in 0..count {
        let (name, bytes) = if number % 100 == 50 {
            let kind = DAMAGES[number / 100 % DAMAGES.len()];
            (format!("{number:05}-{kind}.img"), damaged(kind, number)?)
        } else {
            let format =
                [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::WebP]
                    [number % 5];
            let colour = ["red", "green", "blue"][number % 3];
            (format!("{number:05}-{colour}.img"), photo(number, format)?)
        };
        fs::write(photos.join(name), bytes)?;
    }
    fs::write(photos.join("bomb-of-zeros.img"), bomb_of_zeros()?)?;
    // A GIF whose screen is 65,535 × 65,535, and a JPEG that says so in its frame.
    let mut gif = photo(1, ImageFormat::Gif)?;
    gif[6..10].fill(0xff);
    fs::write(photos.join("bomb-of-screen.img"), gif)?;
    let mut jpeg = photo(1, ImageFormat::Jpeg)?;
    let frame = jpeg.windows(2).position(|two| two == [0xff, 0xc0]).ok_or("the JPEG has no frame")?;
    jpeg[frame + 5..frame + 9].fill(0xff);
    fs::write(photos.join("bomb-of-frame.img"), jpeg)?;
    Ok(())
}

/// A picture with most of the colour of its number; sizes differ.
fn photo(number: usize, format: ImageFormat) -> Made<Vec<u8>> {
    let (width, height) = (40 + (number % 7) as u32 * 8, 40 + (number % 5) as u32 * 8);
    let mut random = number as u32 | 1;
    let image = RgbImage::from_fn(width, height, |_, _| {
        // Marsaglia's xorshift: noise that is the same each time.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let mut pixel = [(random & 63) as u8, (random >> 6 & 63) as u8, (random >> 12 & 63) as u8];
        pixel[number % 3] += 150;
        Rgb(pixel)
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format)?;
    Ok(bytes.into_inner())
}

fn damaged(kind: &str, number: usize) -> Made<Vec<u8>> {
    let cut = |format| photo(number, format).map(|bytes| bytes[..bytes.len() / 2].to_vec());
    Ok(match kind {
        "empty" => Vec::new(),
        "text" => b"<html><body>404 Not Found</body></html>".to_vec(),
        "cut-jpeg" => cut(ImageFormat::Jpeg)?,
        "cut-png" => cut(ImageFormat::Png)?,
        "cut-gif" => cut(ImageFormat::Gif)?,
        "cut-bmp" => cut(ImageFormat::Bmp)?,
        "cut-webp" => cut(ImageFormat::WebP)?,
        "bit-png" => {
            let mut bytes = photo(number, ImageFormat::Png)?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        }
        "no-magic" => photo(number, ImageFormat::Png)?[8..].to_vec(),
        "no-pixels" => {
            let mut bytes = photo(number, ImageFormat::Bmp)?;
            bytes[18..22].fill(0);
            bytes
        }
        "noise" => (0..2000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x81).collect(),
        "headless-jpeg" => {
            // The start of a JPEG, then the numbers of its scan without the tables that they need.
            let bytes = photo(number, ImageFormat::Jpeg)?;
            let scan = bytes.windows(2).position(|two| two == [0xff, 0xda]).ok_or("the JPEG has no scan")?;
            [&bytes[..2], &bytes[scan..]].concat()
        }
        other => return Err(format!("there is no damage `{other}`").into()),
    })
}

/// A PNG of one bit a pixel, 30,000 × 30,000 zeros: 110 kB that would be 2.7 GB as colours.
fn bomb_of_zeros() -> Made<Vec<u8>> {
    let side = 30_000u32;
    // The encoder writes eight bits; the head is made for one afterwards, and its check sum with it.
    let rows = vec![0u8; (side as usize / 8) * side as usize];
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    image::ImageEncoder::write_image(encoder, &rows, side / 8, side, ExtendedColorType::L8)?;
    bytes[16..20].copy_from_slice(&side.to_be_bytes());
    bytes[24] = 1;
    let sum = crc32fast::hash(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.to_be_bytes());
    Ok(bytes)
}

#[allow(clippy::print_stderr)] // What went wrong and what the process took is for whoever runs it.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, folder, count] = &arguments[..]
        && verb == "make"
    {
        let made = count.parse().map_err(Into::into).and_then(|count| make(&PathBuf::from(folder), count));
        return match made {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("error: {why}");
                ExitCode::FAILURE
            }
        };
    }
    let code = tiebeam::main(build);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        eprintln!("peak memory: {}", peak.trim());
    }
    code
}
