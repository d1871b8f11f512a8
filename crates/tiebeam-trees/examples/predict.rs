//! How long a model takes for a hundred thousand rows on one thread: `predict MODEL [ROWS]`. The rows are those of
//! `fixtures/models/make_trees.py`, whose `bench` makes models for this and times the packages themselves.

#![allow(clippy::print_stdout)] // it is for a terminal

use std::time::Instant;

use tiebeam_core::error::{Error, Result};
use tiebeam_inference::Tensor;
use tiebeam_trees::{Format, LoadOptions, TreesModel};

#[path = "../tests/support/rows.rs"]
#[allow(clippy::unwrap_used)] // the tests' own
mod support;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or_else(|| Error::internal("predict MODEL [ROWS]"))?;
    let count = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let model = TreesModel::load(path.as_ref(), &LoadOptions::default())?;
    let rows = support::rows(0, count, 40);
    let width = model.num_features();
    let batch: Vec<Tensor> = match model.format() {
        Format::Xgboost => rows
            .iter()
            .map(|row| Tensor::vector(row.iter().take(width).map(|x| *x as f32).collect()))
            .collect(),
        Format::Lightgbm => rows.iter().map(|row| Tensor::vector(row[..width].to_vec())).collect(),
    };
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        let answers: Vec<Tensor> = model.run(&batch)?;
        best = best.min(start.elapsed().as_secs_f64());
        assert_eq!(answers.len(), batch.len());
    }
    println!("{model:?}: {best:.3} s for {count} rows, the best of five");
    Ok(())
}
