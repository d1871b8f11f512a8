//! The rows that `fixtures/models/make_trees.py` makes, by the same formula.

#![allow(dead_code)] // each test uses a part

use std::path::PathBuf;

use tiebeam_inference::Tensor;
use tiebeam_trees::{LoadOptions, TreesModel};

pub const FEATURES: [&str; 6] = ["income", "age", "visits", "balance", "color", "city"];

pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/trees").join(name)
}

pub fn model(name: &str, options: &LoadOptions) -> TreesModel {
    TreesModel::load(&fixture(name), options).unwrap()
}

fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ x >> 16
}

/// `count` rows from number `first` on.
pub fn rows(first: u32, count: u32, cities: u32) -> Vec<[f64; 6]> {
    let number = |row: u32, j: u32| {
        let h = mix(row.wrapping_mul(64).wrapping_add(j + 1));
        if mix(h.wrapping_add(77)).is_multiple_of(10) {
            return f64::NAN;
        }
        match j {
            0 | 1 => (f64::from(h % 20_001) - 10_000.0) / 1_000.0,
            2 => (f64::from(h % 12) - 3.0).max(0.0),
            3 => (f64::from(h % 201) - 100.0) / 7.0,
            4 => f64::from(h % 5),
            _ => f64::from(h % cities),
        }
    };
    (first..first + count).map(|row| std::array::from_fn(|j| number(row, j as u32))).collect()
}

/// The rows with the numbers that pandas gives to cities, whose names it sorts as texts: `c10` stands before `c2`.
pub fn as_pandas_has_them(rows: &[[f64; 6]]) -> Vec<Tensor> {
    let mut names: Vec<String> = (0..40).map(|city| format!("c{city}")).collect();
    names.sort();
    let place = |city: f64| {
        names.iter().position(|name| *name == format!("c{city}")).map_or(f64::NAN, |at| at as f64)
    };
    let one = |row: &[f64; 6]| {
        let mut row = row.to_vec();
        row[5] = if row[5].is_nan() { row[5] } else { place(row[5]) };
        Tensor::vector(row)
    };
    rows.iter().map(one).collect()
}
