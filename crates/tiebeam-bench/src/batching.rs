//! What batches by themselves cost beside the best ones by hand: the same texts and photos through the same models.
//!
//! Texts in the order in which they come, batched by RunInference, beside a loop over batches of 16 of all texts sorted by
//! length; and the size that it settles at for a model that gains little by batches, beside all other sizes.

use std::io::Write;
use std::time::{Duration, Instant};

use tiebeam::core::metrics::MetricValue;
use tiebeam::inference::{ModelHandler, RunInference, Tensor, Tensors, report};
use tiebeam::onnx::{LoadOptions, OnnxModel, OnnxModelHandler};
use tiebeam::prelude::*;

use crate::texts::{Tokenize, tokens};
use crate::{Workload, invalid};

/// The size by hand.
const BY_HAND: usize = 16;
/// How often each way is measured, one after the other.
const ROUNDS: usize = 3;

/// Measures both and prints what came out.
pub fn run(workload: &Workload, texts: usize) -> Result<()> {
    for line in [sentences(workload, texts)?, photos(workload)?].concat() {
        writeln!(std::io::stdout(), "{line}")
            .map_err(|error| invalid("nobody reads what was measured".to_owned()).with_source(error))?;
    }
    Ok(())
}

/// The processor's time of this process so far.
fn cpu() -> Result<Duration> {
    let path = "/proc/self/stat";
    let failed = || invalid(format!("{path} does not tell the time of the process"));
    let stat = std::fs::read_to_string(path).map_err(|error| failed().with_source(error))?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    // Linux counts them in hundredths of a second for everybody who asks.
    if ticks.len() == 2 { Ok(Duration::from_millis(10 * (ticks[0] + ticks[1]))) } else { Err(failed()) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn one_thread() -> EmbeddedRunner {
    EmbeddedRunner::new(RunnerOptions { threads: 1, ..RunnerOptions::default() })
}

/// What RunInference chose for that model, and why.
fn chosen(id: &str) -> String {
    let models = report::models();
    let told = models.iter().rev().find(|model| model.id == id).and_then(|model| model.batching.clone());
    told.unwrap_or_else(|| "nothing chosen".to_owned())
}

fn sentences(workload: &Workload, texts: usize) -> Result<Vec<String>> {
    let path = workload.file("minilm.onnx");
    let tokenize = Tokenize::load(&workload.file("tokenizer.json"))?;
    let rows: Vec<Tensors> = crate::texts::lines(workload, texts)?
        .iter()
        .map(|text| tokenize.tensors(text))
        .collect::<Result<_>>()?;
    let padding = vec![("input_ids".to_owned(), 0), ("attention_mask".to_owned(), 0)];
    let model = OnnxModel::load(path.as_ref(), &LoadOptions { padding, ..LoadOptions::default() })?;
    let mut sorted = rows.clone();
    sorted.sort_by_key(tokens);
    let by_hand = |rows: &[Tensors]| -> Result<f64> {
        let before = cpu()?;
        for batch in rows.chunks(BY_HAND) {
            model.run::<_, Tensor>(batch)?;
        }
        Ok((cpu()? - before).as_secs_f64())
    };
    let automatic = || -> Result<f64> {
        let p = Pipeline::new();
        let handler = OnnxModelHandler::new(&path)
            .named_inputs()
            .with_padding([("input_ids", 0), ("attention_mask", 0)])
            .with_length_fn(tokens);
        p.apply(Create::of(rows.clone())).apply(RunInference::new(handler)).apply(count::globally());
        let graph = p.build().map_err(|errors| invalid(errors.to_string()))?;
        let before = cpu()?;
        let done = one_thread().run(&graph)?;
        let whole = (cpu()? - before).as_secs_f64();
        // The loops by hand have their model already.
        let loaded = match done.metric("BeamML_Onnx", "load_model_latency_milli_secs") {
            Some(MetricValue::Distribution(load)) => load.sum as f64 / 1e3,
            _ => 0.0,
        };
        Ok(whole - loaded)
    };
    let (mut ours, mut best, mut as_they_come) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(automatic()?);
        best.push(by_hand(&sorted)?);
        as_they_come.push(by_hand(&rows)?);
    }
    let (first, ours) = (ours[0], median(ours));
    let (best, as_they_come) = (median(best), median(as_they_come));
    Ok(vec![
        format!("{texts} texts, CPU s: {best:.2} in batches of {BY_HAND} sorted by length"),
        format!(
            "  {ours:.2} batched automatically ({:.2} times as much; {first:.2} the first time)",
            ours / best
        ),
        format!(
            "  {as_they_come:.2} in batches of {BY_HAND} as they come ({:.2} times)",
            as_they_come / best
        ),
        format!("  {}", chosen(&path)),
    ])
}

fn photos(workload: &Workload) -> Result<Vec<String>> {
    let path = workload.file("mobilenetv2.onnx");
    let model = OnnxModel::load(path.as_ref(), &LoadOptions::default())?;
    let pixels = (0..3 * 224 * 224).map(|i| (i % 255) as f32 / 255.0).collect();
    let photo = Tensor::new(&[3, 224, 224], pixels)?;
    let p = Pipeline::new();
    let results =
        p.apply(Create::of(vec![photo.clone(); 400])).apply(RunInference::new(OnnxModelHandler::new(&path)));
    results.apply(count::globally());
    let graph = p.build().map_err(|errors| invalid(errors.to_string()))?;
    one_thread().run(&graph)?;
    let why = chosen(&path);
    let size = why.strip_prefix("size ").and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
    let Some(size) = size else { return Err(invalid(format!("no size was chosen: {why}"))) };
    let mut sizes = vec![1, 2, 4, 8, 16];
    if !sizes.contains(&size) {
        sizes.push(size);
    }
    let mut costs = vec![Vec::new(); sizes.len()];
    for _ in 0..4 * ROUNDS {
        for (size, costs) in sizes.iter().zip(&mut costs) {
            let calls = 16usize.div_ceil(*size);
            let batch = vec![photo.clone(); *size];
            let started = Instant::now();
            for _ in 0..calls {
                model.run::<_, Tensor>(&batch)?;
            }
            costs.push(started.elapsed().as_secs_f64() * 1e3 / (calls * size) as f64);
        }
    }
    let costs: Vec<f64> = costs.into_iter().map(median).collect();
    let best = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let of = |i: usize| format!("{}: {:.2}", sizes[i], costs[i]);
    let table: Vec<String> = (0..sizes.len()).map(of).collect();
    let own = sizes.iter().position(|one| *one == size).map_or(f64::NAN, |i| costs[i]);
    Ok(vec![
        format!("photos, ms each by batch size: {}", table.join(", ")),
        format!("  {why}; {:.2} times the best", own / best),
    ])
}
