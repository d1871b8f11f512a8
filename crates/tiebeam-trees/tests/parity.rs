//! What XGBoost and LightGBM predict with their own models, on a thousand rows with missing numbers and categories.
//! `fixtures/models/make_trees.py` made both.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests fail by panicking, and say what they saw

#[path = "support/rows.rs"]
mod support;

use std::sync::Arc;

use support::{FEATURES, fixture, model, rows};
use tiebeam_inference::{Tensor, TensorData, Tensors};
use tiebeam_trees::{FeatureKind, Format, LoadOptions, TreesModel};

/// Every model with its predictions: the file, the number of outputs.
const MODELS: [(&str, usize); 41] = [
    ("xgb_squarederror.json", 1),
    ("xgb_squarederror.ubj", 1),
    ("xgb_squaredlogerror.ubj", 1),
    ("xgb_reg_logistic.ubj", 1),
    ("xgb_binary.json", 1),
    ("xgb_binary.ubj", 1),
    ("xgb_logitraw.ubj", 1),
    ("xgb_hinge.ubj", 1),
    ("xgb_poisson.ubj", 1),
    ("xgb_gamma.ubj", 1),
    ("xgb_tweedie.ubj", 1),
    ("xgb_absoluteerror.ubj", 1),
    ("xgb_huber.ubj", 1),
    ("xgb_quantiles.ubj", 3),
    ("xgb_softprob.json", 3),
    ("xgb_softprob.ubj", 3),
    ("xgb_softmax.ubj", 1),
    ("xgb_ndcg.ubj", 1),
    ("xgb_dart.json", 1),
    ("xgb_dart.ubj", 1),
    ("xgb_linear.json", 1),
    ("xgb_forest.ubj", 1),
    ("xgb_early.ubj", 1),
    ("lgb_regression.txt", 1),
    ("lgb_sqrt.txt", 1),
    ("lgb_l1.txt", 1),
    ("lgb_zero_missing.txt", 1),
    ("lgb_no_missing.txt", 1),
    ("lgb_poisson.txt", 1),
    ("lgb_gamma.txt", 1),
    ("lgb_tweedie.txt", 1),
    ("lgb_binary.txt", 1),
    ("lgb_multiclass.txt", 3),
    ("lgb_ova.txt", 3),
    ("lgb_cross_entropy.txt", 1),
    ("lgb_cross_entropy_lambda.txt", 1),
    ("lgb_lambdarank.txt", 1),
    ("lgb_rf.txt", 1),
    ("lgb_dart.txt", 1),
    ("lgb_linear.txt", 1),
    ("lgb_named.txt", 1),
];

/// What a package predicted; raw scores that are the predictions were not written twice.
fn predicted(name: &str, raw: bool) -> Vec<f64> {
    let stem = name.split('.').next().unwrap();
    let kind = if name.ends_with(".txt") { "f64" } else { "f32" };
    let bytes = raw.then(|| std::fs::read(fixture(&format!("{stem}.raw.{kind}"))).ok()).flatten();
    let bytes = bytes.unwrap_or_else(|| std::fs::read(fixture(&format!("{stem}.{kind}"))).unwrap());
    if kind == "f64" {
        bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    } else {
        bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
    }
}

fn numbers(tensors: &[Tensor]) -> Vec<f64> {
    let one = |tensor: &Tensor| match tensor.data() {
        TensorData::F32(b) => b.as_slice().iter().map(|x| f64::from(*x)).collect::<Vec<_>>(),
        TensorData::F64(b) => b.as_slice().to_vec(),
        _ => Vec::new(),
    };
    tensors.iter().flat_map(one).collect()
}

/// The greatest difference, relative where numbers are above one; and how many are the same to the last bit.
fn compare(seen: &[f64], want: &[f64]) -> (f64, usize) {
    assert_eq!(seen.len(), want.len());
    let pairs = || seen.iter().zip(want);
    let worst = pairs().map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max);
    assert!(seen.iter().all(|x| !x.is_nan()));
    (worst, pairs().filter(|(a, b)| a.to_bits() == b.to_bits()).count())
}

#[test]
fn every_model_predicts_what_its_package_predicts() {
    for (name, outputs) in MODELS {
        for raw in [false, true] {
            let model = model(name, &LoadOptions { raw_scores: raw, ..LoadOptions::default() });
            if !raw {
                // Of multi:softmax the prediction is a class, and the raw scores are one a class.
                assert_eq!(model.num_outputs(), outputs, "{name}");
            }
            let rows = rows(1_000_000, 1_000, 44);
            let batch: Vec<Tensor> = if name == "lgb_named.txt" {
                support::as_pandas_has_them(&rows)
            } else {
                rows.iter().map(|row| Tensor::vector(row.to_vec())).collect()
            };
            for example in &batch {
                model.check(example).unwrap();
            }
            let seen: Vec<Tensor> = model.run(&batch).unwrap();
            let (worst, same) = compare(&numbers(&seen), &predicted(name, raw));
            println!("{name} raw={raw}: {worst:.1e}, {same} of {} the same", numbers(&seen).len());
            assert!(worst <= 1e-6, "{name} raw={raw}: {worst}");
            // One row alone is what it is among others.
            assert_eq!(model.run::<_, Tensor>(&batch[7..8]).unwrap()[0], seen[7], "{name}");
        }
    }
}

#[test]
fn features_by_name_may_be_absent_and_categories_may_be_texts() {
    let colors = ["blue", "green", "red", "white", "über"];
    let (plain, named) = (
        model("lgb_regression.txt", &LoadOptions::default()),
        model("lgb_named.txt", &LoadOptions::default()),
    );
    assert_eq!(&*plain.feature_names()[2], "visits");
    let color = &named.features()[4];
    assert_eq!((color.kind, color.categories.as_ref().unwrap().len()), (FeatureKind::Categorical, 5));
    let rows = rows(1_000_000, 1_000, 44);
    let example = |row: &[f64; 6], texts: bool| {
        let (mut names, mut values) = (Vec::<Arc<str>>::new(), Vec::new());
        // Another order than the model's.
        for i in (0..FEATURES.len()).rev().filter(|i| !row[*i].is_nan()) {
            names.push(FEATURES[i].into());
            values.push(match i {
                4 if texts => Tensor::scalar(Arc::<str>::from(colors[row[4] as usize])),
                5 if texts => Tensor::scalar(Arc::<str>::from(format!("c{}", row[5]))),
                _ => Tensor::scalar(row[i]),
            });
        }
        Tensors::new(names, values).unwrap()
    };
    for (model, name, texts) in [(&plain, "lgb_regression.txt", false), (&named, "lgb_named.txt", true)] {
        let batch: Vec<Tensors> = rows.iter().map(|row| example(row, texts)).collect();
        batch.iter().for_each(|example| model.check(example).unwrap());
        let seen: Vec<Tensor> = model.run(&batch).unwrap();
        assert!(compare(&numbers(&seen), &predicted(name, false)).0 <= 1e-6, "{name}");
    }
}

/// An example of a row's numbers by name, in another order than the model's; `text` says what categories are.
fn by_name(row: &[f64; 6], text: impl Fn(usize, u32) -> String) -> Tensors {
    let (mut names, mut values) = (Vec::<Arc<str>>::new(), Vec::new());
    for i in (0..FEATURES.len()).rev().filter(|i| !row[*i].is_nan()) {
        names.push(FEATURES[i].into());
        values.push(match i {
            4 | 5 => Tensor::scalar(Arc::<str>::from(text(i, row[i] as u32))),
            _ => Tensor::scalar(row[i]),
        });
    }
    Tensors::new(names, values).unwrap()
}

#[test]
fn xgboost_categories_go_by_name_as_in_tables_of_another_order() {
    let rows = rows(1_000_000, 1_000, 40);
    let text =
        |feature: usize, number: u32| format!("{}{number}", if feature == 4 { "color" } else { "town" });
    let batch: Vec<Tensors> = rows.iter().map(|row| by_name(row, text)).collect();
    for (name, raw) in [("xgb_named.json", false), ("xgb_named.ubj", false), ("xgb_named.ubj", true)] {
        let model = model(name, &LoadOptions { raw_scores: raw, ..LoadOptions::default() });
        let city = &model.features()[5];
        assert_eq!((city.kind, city.categories.as_ref().unwrap().len()), (FeatureKind::Categorical, 40));
        assert_eq!(&*city.categories.as_ref().unwrap()[1], "town7");
        batch.iter().for_each(|example| model.check(example).unwrap());
        let seen = numbers(&model.run::<_, Tensor>(&batch).unwrap());
        let (worst, same) = compare(&seen, &predicted(name, raw));
        println!("{name} raw={raw}: {worst:.1e}, {same} of {} the same", seen.len());
        assert!(worst <= 1e-6, "{name} raw={raw}: {worst}");
        // Numbers are places in training, whatever the names: `town7` was the second.
        let (by_text, by_number) =
            (by_name(&[f64::NAN, 1.0, 2.0, 3.0, 3.0, 7.0], text), [f64::NAN, 1.0, 2.0, 3.0, 4.0, 1.0]);
        let by_number = model.run::<_, Tensor>(&[Tensor::vector(by_number.to_vec())]).unwrap();
        assert_eq!(model.run::<_, Tensor>(&[by_text]).unwrap(), by_number);
    }
}

/// Names of which XGBoost 3.2 keeps some: what is left of them goes by name, the others by number. And whole numbers as names.
#[test]
fn xgboost_names_that_are_not_ascii_go_by_name_as_far_as_the_file_has_them() {
    let model = model("xgb_cut_names.ubj", &LoadOptions::default());
    let features = model.features();
    let colors: Vec<&str> = features[4].categories.iter().flatten().map(|name| &**name).collect();
    // Category i of training was number i * 7 % 5, of which 30 - 10 * number is the name.
    assert_eq!(colors, ["30", "10", "-10", "20", "0"]);
    let cities = features[5].categories.as_ref().unwrap();
    assert!((30..40).contains(&cities.len()) && &*cities[1] == "città7", "{cities:?}");
    let want = predicted("xgb_cut_names.ubj", false);
    let (mut texts, mut cut) = (0, 0);
    for (row, want) in rows(1_000_000, 1_000, 40).iter().zip(want) {
        let example = by_name(row, |feature, number| match feature {
            4 => (30 - 10 * i64::from(number)).to_string(),
            _ => format!("città{number}"),
        });
        if let Err(error) = model.check(&example) {
            assert_eq!(error.code(), "TB0387");
            assert!(error.help().unwrap().contains("keeps only some of the names"), "{error}");
            cut += 1;
        } else {
            let seen = numbers(&model.run::<_, Tensor>(&[example]).unwrap());
            assert!(compare(&seen, &[want]).0 <= 1e-6);
            texts += 1;
        }
        // Times 23 undoes times 7 among forty, times 3 among five.
        let places = [row[0], row[1], row[2], row[3], row[4] * 3.0 % 5.0, row[5] * 23.0 % 40.0];
        let seen = numbers(&model.run::<_, Tensor>(&[Tensor::vector(places.to_vec())]).unwrap());
        assert!(compare(&seen, &[want]).0 <= 1e-6);
    }
    println!("{texts} rows by name, {cut} with a name that was cut off");
    assert!(texts > 750 && cut > 50);
}

#[test]
fn early_stopping_is_heard_unless_all_trees_are_wanted() {
    let best = model("xgb_early.ubj", &LoadOptions::default());
    let all = model("xgb_early.ubj", &LoadOptions { all_iterations: true, ..LoadOptions::default() });
    assert_eq!((best.num_trees(), all.num_trees()), (best.num_trees(), best.num_trees() + 4));
    let forest = model("xgb_forest.ubj", &LoadOptions::default());
    assert_eq!(
        (forest.num_trees(), forest.format(), &*forest.feature_names()[5]),
        (15, Format::Xgboost, "f5")
    );
}

#[test]
fn files_of_before_3_1_have_one_number_for_the_base_score() {
    let text = std::fs::read_to_string(fixture("xgb_binary.json")).unwrap();
    let old = text.replace("\"[7.166996E-1]\"", "\"7.166996E-1\"");
    assert_ne!(text, old);
    let old = TreesModel::from_bytes("old", old.as_bytes(), &LoadOptions::default()).unwrap();
    let new = model("xgb_binary.json", &LoadOptions::default());
    let batch: Vec<Tensor> = rows(0, 50, 40).iter().map(|row| Tensor::vector(row.to_vec())).collect();
    assert_eq!(old.run::<_, Tensor>(&batch).unwrap(), new.run::<_, Tensor>(&batch).unwrap());
}
