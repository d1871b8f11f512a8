//! W3: photos to classes.

use std::path::Path;

use serde_json::json;
use tiebeam::ImageToTensor;
use tiebeam::inference::{ModelHandler, RunInference};
use tiebeam::io::images::{self, ImageToF32};
use tiebeam::io::text;
use tiebeam::onnx::OnnxModelHandler;
use tiebeam::prelude::*;

use crate::{Workload, invalid};

/// The first photos by name, the best class of each as a JSON line.
pub fn build(p: &Pipeline, workload: &Workload, elements: usize) -> Result<()> {
    let folder = workload.file("images");
    let failed = |error: std::io::Error| invalid(format!("cannot look into {folder}")).with_source(error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "jpg") {
            paths.push(path.display().to_string());
        }
    }
    paths.sort();
    paths.truncate(elements);
    let name = std::env::var("PEER_VISION").unwrap_or_else(|_| "mobilenetv2".to_owned());
    let model = OnnxModelHandler::new(workload.file(&format!("{name}.onnx")));
    // What torchvision's models were trained on.
    let config = ImageToF32 {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        ..ImageToF32::of_size(224, 224)
    };
    p.step("Paths")
        .apply(Create::of(paths))
        .step("Read")
        .apply(images::read_all())
        .step("ToTensor")
        .apply(ParDo::new(ImageToTensor::new(config)?))
        .step("Classify")
        .apply(RunInference::new(model.carrying::<String>()))
        .step("Show")
        .map(|result| {
            let scores = result.inference.as_slice::<f32>().unwrap_or_default();
            let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or_default();
            let file =
                Path::new(&result.example.0).file_name().unwrap_or_default().to_string_lossy().into_owned();
            let score = scores.get(best).copied().unwrap_or_default();
            json!({"file": file, "class": best, "score": (f64::from(score) * 1e3).round() / 1e3}).to_string()
        })
        .step("Write")
        .apply(text::write(&workload.out));
    Ok(())
}
