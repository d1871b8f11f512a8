//! Mutated model files of both packages: each is refused with an error of the model's kind or read whole and asked; none
//! panics or hangs, and none takes more memory than is declared for its length. How: `fixtures/hostile.rs`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // tests fail by panicking, and say what they counted

use std::sync::Arc;

use tiebeam_core::error::ErrorKind;
use tiebeam_inference::{Tensor, Tensors};
use tiebeam_trees::{LoadOptions, TreesModel};

#[path = "../../../fixtures/hostile.rs"]
mod hostile;
#[path = "support/rows.rs"]
mod support;

use hostile::{BESIDE, Outcome, check, counted, mutate};
use support::fixture;

/// A model: asked for a few rows, or refused as a model is.
fn read(data: &[u8]) -> Result<Outcome, String> {
    let bound = data.len() * 64 + BESIDE;
    let (read, mut peak) = counted(|| TreesModel::from_bytes("m", data, &LoadOptions::default()));
    let refused = match read {
        Ok(model) => {
            if model.num_features() == 6 {
                let rows: Vec<Tensor> = [f64::NAN, 0.0, -1.0, 3.0, 1e30, f64::INFINITY, -0.5, 7.25, 31.0]
                    .iter()
                    .map(|x| Tensor::vector(vec![*x; 6]))
                    .collect();
                let (ran, taken) = counted(|| model.run::<_, Tensor>(&rows));
                if ran.map_err(|error| format!("{error:?}"))?.len() != rows.len() {
                    return Err("a row got no answer".to_owned());
                }
                peak = peak.max(taken);
                // The names of categories are looked up, whatever they are.
                let names = [Arc::<str>::from("city")];
                let town = Tensors::new(names, vec![Tensor::scalar(Arc::<str>::from("town7"))]);
                let town = [town.map_err(|error| format!("{error:?}"))?];
                let (ran, taken) = counted(|| model.run::<_, Tensor>(&town));
                if let Err(error) = ran
                    && error.kind() != ErrorKind::InvalidData
                {
                    return Err(format!("{error:?}"));
                }
                peak = peak.max(taken);
            }
            false
        }
        Err(error) => {
            let kind = matches!(error.kind(), ErrorKind::Model | ErrorKind::Unsupported);
            if !kind || !error.message().starts_with("model m: ") || !error.code().starts_with("TB038") {
                return Err(format!("{error:?}"));
            }
            true
        }
    };
    Ok(Outcome { refused, peak, bound })
}

fn mutants(format: &str, files: &[&str], words: &[&[u8]]) {
    let whole: Vec<Vec<u8>> = files.iter().map(|name| std::fs::read(fixture(name)).unwrap()).collect();
    check(format, |_, random| {
        let mut data = whole[random.below(whole.len())].clone();
        mutate(&mut data, random, words);
        read(&data)
    });
}

#[test]
fn xgboost_json() {
    let words: [&[u8]; 14] = [
        b"[",
        b"{\"",
        b"NaN",
        b"-1",
        b"4294967296",
        b"1e999",
        b"0",
        b",1",
        b"\"left_children\":[0]",
        b"\"num_class\":\"99999\"",
        b"\"num_feature\":\"2000000000\"",
        b"16777215",
        b"\"offsets\":[0,0,0,0]",
        b"-61",
    ];
    mutants(
        "xgboost-json",
        &["xgb_binary.json", "xgb_softprob.json", "xgb_dart.json", "xgb_linear.json", "xgb_named.json"],
        &words,
    );
}

#[test]
fn xgboost_ubjson() {
    let words: [&[u8]; 9] = [
        b"[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"[$l#L\0\0\0\0\0\0\0\x01\0\0\0\0",
        b"[#L\0\0\0\0\xff\xff\xff\xff",
        b"\x7f\xc0\0\0",
        b"\xff\xff\xff\xff",
        b"[",
        b"{",
        b"\0\0\0\0",
        b"N",
    ];
    mutants(
        "xgboost-ubjson",
        &["xgb_quantiles.ubj", "xgb_early.ubj", "xgb_forest.ubj", "xgb_cut_names.ubj"],
        &words,
    );
}

#[test]
fn lightgbm() {
    let words: [&[u8]; 13] = [
        b" ",
        b"\n",
        b"=",
        b"-1 ",
        b"nan ",
        b"inf ",
        b" 4294967295",
        b"num_leaves=2000000000\n",
        b"num_tree_per_iteration=100000\n",
        b"max_feature_idx=4294967295\n",
        b"Tree=",
        b"cat_boundaries=0 0 0 0\n",
        b"end of trees\n",
    ];
    mutants(
        "lightgbm",
        &["lgb_named.txt", "lgb_linear.txt", "lgb_multiclass.txt", "lgb_zero_missing.txt"],
        &words,
    );
}
