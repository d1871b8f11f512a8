//! Variables of the environment that models want to be set before they are loaded.

#![allow(clippy::panic, clippy::unwrap_used)] // tests fail by panicking

use tiebeam_core::{Error, Result};
use tiebeam_graph::{Create, PCollection, Pipeline};
use tiebeam_inference::{
    InferenceArgs, Isolation, ModelHandler, PerKeyModels, PredictionResult, RunInference,
};
use tiebeam_testing::{TestPipeline, assert_that};

/// A model that is what its variable was when it was loaded.
struct Reader(&'static str);

impl ModelHandler for Reader {
    type Example = i64;
    type Inference = String;
    type Model = String;

    fn load_model(&self) -> Result<String> {
        std::env::var(self.0).map_err(|_| Error::user(format!("{} is not set", self.0)))
    }

    fn run_inference(&self, batch: &[i64], model: &String, _: &InferenceArgs) -> Result<Vec<String>> {
        Ok(batch.iter().map(|x| format!("{model} {x}")).collect())
    }
}

/// A process for a model of the test of that name.
fn process(test: &str) -> Isolation {
    Isolation::process().with_arguments([test, "--exact", "--nocapture", "--test-threads=1"])
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_model_finds_its_variables_when_it_is_loaded() {
    TestPipeline::run_all_modes(|p| {
        let variables = [("TB_HERE", "one"), ("TB_BESIDE", "")];
        let handler = Reader("TB_HERE").max_batch_size(2).with_env_vars(variables).keyed();
        let results = p.apply(Create::of([(7i64, 1i64), (8, 2)])).apply(RunInference::new(handler));
        let said = results.map(|(key, result)| format!("{key}: {}", result.inference));
        assert_that(&said).contains_in_any_order(texts(&["7: one 1", "8: one 2"]));
    });
    assert_eq!(std::env::var("TB_BESIDE").unwrap(), "");
}

#[test]
fn models_in_processes_of_their_own_have_variables_of_their_own() {
    const TEST: &str = "models_in_processes_of_their_own_have_variables_of_their_own";
    TestPipeline::run_all_modes(|p| {
        let numbers = p.apply(Create::of([1i64]));
        let within = Reader("TB_APART").with_env_vars([("TB_APART", "within")]).isolated(process(TEST));
        let around = Reader("TB_APART").isolated(process(TEST)).with_env_vars([("TB_APART", "around")]);
        let own = process(TEST).with_env_vars([("TB_APART", "own")]);
        let own = Reader("TB_APART").isolated(own);
        let said = |name: &str, results: PCollection<PredictionResult<i64, String>>| {
            let said = results.step(name).map(|result| result.inference);
            assert_that(&said).contains_in_any_order(texts(&[&format!("{name} 1")]));
        };
        said("within", numbers.step("A").apply(RunInference::new(within)));
        said("around", numbers.step("B").apply(RunInference::new(around)));
        said("own", numbers.step("C").apply(RunInference::new(own)));
    });
    assert!(std::env::var_os("TB_APART").is_none(), "they are not this process's");
}

#[test]
fn two_values_in_one_process_and_names_that_can_not_be_are_refused() {
    let refused = |build: &dyn Fn(&Pipeline)| {
        let p = Pipeline::new();
        build(&p);
        p.build().unwrap().run_checks().unwrap_err()
    };
    let error = refused(&|p| {
        let models = PerKeyModels::new()
            .with_models([1i64], Reader("TB_TWICE").with_env_vars([("TB_TWICE", "its secret")]))
            .with_models([2i64], Reader("TB_TWICE").with_env_vars([("TB_TWICE", "another")]));
        p.apply(Create::of([(1i64, 1i64)])).apply(RunInference::new(models));
    });
    assert_eq!(error.code(), "TB0349");
    assert!(error.message().contains("`TB_TWICE` is wanted in two ways"), "{error}");
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");

    for (name, value, why) in [("", "x", "without a name"), ("A=B", "x", "`=`"), ("A", "x\0", "zero byte")] {
        for apart in [false, true] {
            let error = refused(&|p| {
                let numbers = p.apply(Create::of([1i64]));
                if apart {
                    let isolated = Reader("A").isolated(Isolation::process());
                    numbers.apply(RunInference::new(isolated.with_env_vars([(name, value)])));
                } else {
                    numbers.apply(RunInference::new(Reader("A").with_env_vars([(name, value)])));
                }
            });
            assert_eq!(error.code(), "TB0349");
            assert!(error.message().contains(why), "{error}");
        }
    }
}
