//! The handler: what it takes and gives, and how it refuses.

#![allow(missing_docs, clippy::unwrap_used)] // tests fail by panicking

#[path = "support/rows.rs"]
mod support;

use std::sync::Arc;

use support::{fixture, model};
use tiebeam_core::error::{Error, ErrorKind};
use tiebeam_inference::update::ModelMetadata;
use tiebeam_inference::{InferenceArgs, ModelHandler, Tensor, Tensors};
use tiebeam_trees::{LoadOptions, TreesModel, TreesModelHandler};

fn refused(bytes: &[u8]) -> Error {
    TreesModel::from_bytes("m", bytes, &LoadOptions::default()).unwrap_err()
}

#[test]
fn the_handler_tells_what_the_model_is() {
    let handler = TreesModelHandler::xgboost(fixture("xgb_softprob.ubj"));
    let model = handler.load_model().unwrap();
    assert_eq!((&*handler.metrics_namespace(), &*handler.name()), ("BeamML_XGBoost", "TreesModelHandler"));
    let info = handler.model_info(&model);
    assert_eq!(&*info.model_id, fixture("xgb_softprob.ubj").to_str().unwrap());
    assert_eq!(info.sha256.unwrap().len(), 64);
    assert!(info.bytes.unwrap() > 1_000);
    assert_eq!(model.inputs()[0].to_string(), "features float32[batch, 6]");
    assert_eq!(model.outputs()[0].to_string(), "prediction float32[batch, 3]");
    assert_eq!(model.objective(), "multi:softprob");
    let light = TreesModelHandler::new(fixture("lgb_binary.txt"));
    assert_eq!(light.metrics_namespace(), "BeamML_LightGBM");
    assert_eq!(light.load_model().unwrap().outputs()[0].to_string(), "prediction float64[batch]");
    let row = Tensor::vector(vec![0.5f32; 6]);
    let named = handler.named_outputs();
    let answers = named.run_inference(&[row], &model, &InferenceArgs::none()).unwrap();
    assert_eq!(answers[0].get("prediction").unwrap().shape(), [3]);
}

#[test]
fn fault_02_other_versions_are_loaded_from_where_they_are() {
    let digest = TreesModelHandler::new(fixture("xgb_binary.ubj")).load_model().unwrap();
    let digest = digest.details().sha256.clone().unwrap();
    let handler = TreesModelHandler::new(fixture("xgb_binary.ubj")).with_sha256(digest);
    assert!(handler.takes_updates());
    let signature = |model: &TreesModel| handler.signature(model).unwrap();
    let old = handler.load_model().unwrap();
    let version = |name: &str| ModelMetadata::of(fixture(name).to_str().unwrap());
    let new = handler.load_version(&version("xgb_dart.json")).unwrap();
    assert_eq!(&*handler.model_info(&new).model_id, fixture("xgb_dart.json").to_str().unwrap());
    assert_eq!(signature(&old).differs_from(&signature(&new)), None);
    let wide = handler.load_version(&version("xgb_softprob.json")).unwrap();
    assert!(signature(&old).differs_from(&signature(&wide)).is_some());
    assert!(handler.load_version(&version("none.json")).is_err());
}

#[test]
fn rows_that_do_not_fit_are_refused_one_by_one() {
    let (xgb, lgb) =
        (model("xgb_binary.json", &LoadOptions::default()), model("lgb_binary.txt", &LoadOptions::default()));
    let told = |error: Error| (error.kind(), error.code(), error.message().to_owned());
    let wide = Tensor::vector(vec![0f32; 7]);
    let want = "the model wants a row of 6 features, got the shape [7]".to_owned();
    assert_eq!(told(xgb.check(&wide).unwrap_err()), (ErrorKind::InvalidData, "TB0386", want));
    let huge = Tensor::vector(vec![1e300; 6]);
    assert_eq!(xgb.check(&huge).unwrap_err().code(), "TB0387");
    lgb.check(&huge).unwrap();
    lgb.check(&Tensor::vector(vec![1i64; 6])).unwrap();
    let texts = Tensor::vector(vec![Arc::<str>::from("x"); 6]);
    assert_eq!(lgb.check(&texts).unwrap_err().code(), "TB0387");
    let named = |name: &str, tensor: Tensor| Tensors::new([Arc::<str>::from(name)], vec![tensor]).unwrap();
    let unknown = lgb.check(&named("colour", Tensor::scalar(1.0))).unwrap_err();
    assert_eq!(
        unknown.message(),
        "the model has no feature `colour`, its features are `income`, `age`, `visits`, `balance`, `color`, `city`"
    );
    lgb.check(&named("color", Tensor::scalar(1.0))).unwrap();
    let text = Tensor::scalar(Arc::<str>::from("red"));
    assert_eq!(lgb.check(&named("color", text.clone())).unwrap_err().code(), "TB0387");
    let with_names = model("lgb_named.txt", &LoadOptions::default());
    with_names.check(&named("color", text)).unwrap();
    assert_eq!(with_names.check(&named("age", Tensor::vector(vec![1.0, 2.0]))).unwrap_err().code(), "TB0386");
}

/// XGBoost's `predict` fails with "Found a category not in the training set"; LightGBM's takes it for a missing one.
#[test]
fn categories_that_training_did_not_have_are_refused_or_missing() {
    let named = |name: &str, text: &str| {
        Tensors::new([Arc::<str>::from(name)], vec![Tensor::scalar(Arc::<str>::from(text))]).unwrap()
    };
    let xgb = model("xgb_named.json", &LoadOptions::default());
    xgb.check(&named("city", "town39")).unwrap();
    let error = xgb.check(&named("city", "town40")).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::InvalidData, "TB0387"));
    assert_eq!(
        error.message(),
        "feature `city` has no category `town40`, it has `town0`, `town7`, `town14`, `town21`, `town28`, `town35`, `town2`, \
         `town9`, … (40 in all)"
    );
    assert!(error.help().unwrap().contains("it is missing then"), "{error}");
    let ran = xgb.run::<_, Tensor>(&[named("city", "town40")]).unwrap_err();
    assert_eq!(ran.message(), error.message());
    let long = xgb.check(&named("color", &"é".repeat(10_000))).unwrap_err();
    assert!(long.message().len() < 300 && long.message().contains("é…`"), "{long}");
    // A number's name is another thing than the number.
    assert_eq!(xgb.check(&named("age", "1.5")).unwrap_err().code(), "TB0387");
    xgb.check(&Tensors::new([Arc::<str>::from("city")], vec![Tensor::scalar(77.0)]).unwrap()).unwrap();
    let lgb = model("lgb_named.txt", &LoadOptions::default());
    let none = Tensors::new([Arc::<str>::from("city")], vec![Tensor::scalar(f64::NAN)]).unwrap();
    let ran = lgb.run::<_, Tensor>(&[named("city", "town40"), none]).unwrap();
    assert_eq!(ran[0], ran[1]);
}

#[test]
fn damaged_names_of_categories_are_refused() {
    let json = std::fs::read_to_string(fixture("xgb_named.json")).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        let error = refused(json.replacen(from, to, 1).as_bytes());
        assert_eq!((error.kind(), error.code()), (ErrorKind::Model, "TB0382"));
        error.message().to_owned()
    };
    let segments =
        changed("\"feature_segments\":[0,0,0,0,0,5,45]", "\"feature_segments\":[0,0,0,0,0,5,2147483648]");
    let want = "the categories of feature 5: there are 40, but `feature_segments` goes 5 to 2147483648";
    assert!(segments.ends_with(want), "{segments}");
    let offsets = changed("\"offsets\":[0,6,12,", "\"offsets\":[0,16,12,");
    assert!(offsets.ends_with("the categories of feature 4: `offsets` has 12 behind 16"), "{offsets}");
    let bytes = changed("\"values\":[99,111,", "\"values\":[99,-1,");
    assert!(bytes.ends_with("a name that is not UTF-8, at byte 1 of `values`"), "{bytes}");
    // Before 3.1 there are none, and a model of numpy has empty ones.
    let (start, end) = (json.find("\"cats\":").unwrap(), json.find("\"gbtree_model_param\"").unwrap());
    for cats in ["", "\"cats\":{\"enc\":[],\"feature_segments\":[],\"sorted_idx\":[]},"] {
        let old = [&json[..start], cats, &json[end..]].concat();
        let old = TreesModel::from_bytes("old", old.as_bytes(), &LoadOptions::default()).unwrap();
        assert!(old.features().iter().all(|feature| feature.categories.is_none()));
    }
}

#[test]
fn what_is_no_model_is_told_for_what_it_is() {
    let cases: [(&[u8], &str, &str); 9] = [
        (b"", "TB0381", "the file is empty"),
        (b"\x80\x04\x95", "TB0381", "Python pickle"),
        (b"binf....", "TB0381", "XGBoost's old binary format"),
        (b"<!DOCTYPE html><html>", "TB0381", "web page"),
        (b"{\"name\": \"tree\", \"tree_info\": []}", "TB0381", "LightGBM's dump_model"),
        (b"[{\"nodeid\": 0}]", "TB0381", "XGBoost's dump_model"),
        (b"{\"a\": 1}", "TB0381", "without a `learner`"),
        (b"{\"learner\": {", "TB0382", "ends early"),
        (b"tree\nversion=v4\nnum_class=1\n", "TB0382", "`max_feature_idx` is missing"),
    ];
    for (bytes, code, want) in cases {
        let error = refused(bytes);
        assert_eq!((error.kind(), error.code()), (ErrorKind::Model, code), "{error}");
        assert!(error.message().contains(want), "{error}");
    }
    let missing = TreesModelHandler::new(fixture("none.json")).load_model().unwrap_err();
    assert_eq!((missing.code(), missing.kind()), ("TB0380", ErrorKind::Model));
    let other = TreesModelHandler::xgboost(fixture("lgb_binary.txt")).load_model().unwrap_err();
    assert!(other.message().ends_with("this is a model of LightGBM, wanted one of XGBoost"), "{other}");
    let digest =
        TreesModelHandler::new(fixture("lgb_binary.txt")).with_sha256("00").load_model().unwrap_err();
    assert_eq!(digest.code(), "TB0383");
    let vector = TreesModelHandler::new(fixture("xgb_vector_leaf.json")).load_model().unwrap_err();
    assert_eq!((vector.code(), vector.kind()), ("TB0384", ErrorKind::Unsupported));
    assert!(vector.message().contains("multi_output_tree"), "{vector}");
}

#[test]
fn trees_that_are_none_are_refused() {
    let json = std::fs::read_to_string(fixture("xgb_binary.json")).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        let error = refused(json.replacen(from, to, 1).as_bytes());
        assert_eq!(error.code(), if to.contains("aft") { "TB0384" } else { "TB0382" });
        error.message().to_owned()
    };
    // The second tree is never asked for its numbers where the first is wrong.
    let cycle = changed("\"left_children\":[1,3,", "\"left_children\":[1,0,");
    assert!(cycle.ends_with("tree 0: two ways lead to node 0: that is no tree"), "{cycle}");
    let outside = changed("\"left_children\":[1,3,", "\"left_children\":[1,300,");
    assert!(outside.ends_with("tree 0: node 1 leads to 300 of 31 nodes"), "{outside}");
    let nan = changed("\"split_conditions\":[-4.222E0,", "\"split_conditions\":[NaN,");
    assert!(nan.ends_with("tree 0: the threshold of node 0 is NaN"), "{nan}");
    let feature = changed("\"split_indices\":[1,", "\"split_indices\":[6,");
    assert!(feature.ends_with("tree 0: node 0 asks for feature 6 of 6"), "{feature}");
    let base = changed("[7.166996E-1]", "[1.5E0]");
    assert!(base.ends_with("`base_score` is none that the objective can have"), "{base}");
    let trees = changed("\"num_trees\":\"12\"", "\"num_trees\":\"13\"");
    assert!(trees.contains("`num_trees` says 13, there are 12 trees"), "{trees}");
    let objective = refused(json.replace("binary:logistic", "binary:new").as_bytes());
    assert_eq!(objective.message(), "model m: XGBoost's objective `binary:new` can't be run here");

    let text = std::fs::read_to_string(fixture("lgb_regression.txt")).unwrap();
    let cut = refused(text.split("end of trees").next().unwrap().as_bytes());
    assert!(cut.message().ends_with("the file is cut off"), "{cut}");
    let fewer = text.split("Tree=11").next().unwrap().to_owned() + "end of trees\n";
    assert!(refused(fewer.as_bytes()).message().contains("11 trees"));
}

/// Beam's handlers take tables of pandas, of one row each.
#[test]
fn e_pandas_rows_an_example_is_one_row() {
    let xgb = model("xgb_binary.json", &LoadOptions::default());
    xgb.check(&Tensor::new(&[1, 6], vec![0f32; 6]).unwrap()).unwrap();
    let error = xgb.check(&Tensor::new(&[2, 6], vec![0f32; 12]).unwrap()).unwrap_err();
    assert_eq!(error.message(), "Only dataframes with single rows are supported. This one has 2");
}
