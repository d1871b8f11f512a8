//! [`RowHandler`]: whichever model a file names, over rows.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tiebeam_core::Result;
use tiebeam_core::row::Value;
use tiebeam_inference::isolation::Places;
use tiebeam_inference::{
    InferenceArgs, Isolated, LengthFn, ModelHandler, ModelInfo, ModelMetadata, Port, Predictions, Signature,
    Tensors,
};

use super::apart::Told;
use super::handlers::{Load, Loaded, RowModel};
use super::inputs::Prepared;
use crate::expression::Expression;

/// What the file measures of rows, for batches.
#[derive(Default)]
pub struct Measures {
    /// Rows of about one length share batches.
    pub length: Option<Arc<Expression>>,
    /// What a row weighs.
    pub weight: Option<Arc<Expression>>,
}

/// What an expression gives for a row; a row that it fails on counts nothing.
fn measured(expression: &Expression, example: &Prepared) -> u64 {
    match expression.evaluate(example.row()) {
        Ok(Value::Int64(value)) => u64::try_from(value).unwrap_or(0),
        _ => 0,
    }
}

/// Runs a model on rows whose tensors were prepared. The copy that was loaded first is the first one used.
pub struct RowHandler {
    handler: &'static str,
    namespace: String,
    load: Load,
    files: Vec<PathBuf>,
    first: Mutex<Option<Box<dyn RowModel>>>,
    measures: Measures,
    /// The handler of its process, where it is in one.
    apart: Option<Arc<Isolated<Told>>>,
    /// Whether it is one behind HTTP, which counts its requests, or in a process, whose deaths are counted.
    has_counts: bool,
}

impl RowHandler {
    pub fn new(loaded: Loaded, measures: Measures) -> Self {
        let Loaded { handler, namespace, load, files, model, batching, apart, .. } = loaded;
        let has_counts = batching.is_some() || apart.is_some();
        RowHandler { handler, namespace, load, files, first: Mutex::new(model), measures, apart, has_counts }
    }
}

impl ModelHandler for RowHandler {
    type Example = Prepared;
    type Inference = Tensors;
    type Model = Box<dyn RowModel>;

    fn load_model(&self) -> Result<Box<dyn RowModel>> {
        match self.first.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(model) => Ok(model),
            None => (self.load)(None),
        }
    }

    fn load_version(&self, version: &ModelMetadata) -> Result<Box<dyn RowModel>> {
        (self.load)(Some(version))
    }

    fn takes_updates(&self) -> bool {
        true
    }

    fn signature(&self, model: &Box<dyn RowModel>) -> Option<Signature> {
        Some(model.signature())
    }

    fn takes(&self, model: &Box<dyn RowModel>) -> Option<Vec<Port>> {
        model.takes()
    }

    fn has_counts(&self) -> bool {
        self.has_counts
    }

    fn counts(&self, model: &Box<dyn RowModel>) -> Vec<(&'static str, u64)> {
        model.counts()
    }

    fn run_inference(
        &self,
        batch: &[Prepared],
        model: &Box<dyn RowModel>,
        args: &InferenceArgs,
    ) -> Result<Vec<Tensors>> {
        model.predict(batch, args)?.into_all()
    }

    fn predict(
        &self,
        batch: &[Prepared],
        model: &Box<dyn RowModel>,
        args: &InferenceArgs,
    ) -> Result<Predictions<Tensors>> {
        model.predict(batch, args)
    }

    // They were judged where the file gives them.
    fn validate_inference_args(&self, _: &InferenceArgs) -> Result<()> {
        Ok(())
    }

    fn check_example(&self, example: &Prepared, model: &Box<dyn RowModel>) -> Result<()> {
        model.check(example)
    }

    fn element_size(&self, example: &Prepared) -> u64 {
        match &self.measures.weight {
            Some(weight) => measured(weight, example),
            None => tiebeam_inference::Example::num_bytes(example) as u64,
        }
    }

    fn num_bytes(&self, batch: &[Prepared]) -> u64 {
        batch.iter().map(|example| tiebeam_inference::Example::num_bytes(example) as u64).sum()
    }

    fn length_fn(&self) -> Option<LengthFn<Prepared>> {
        let length = self.measures.length.clone()?;
        Some(Arc::new(move |example| usize::try_from(measured(&length, example)).unwrap_or(usize::MAX)))
    }

    fn metrics_namespace(&self) -> String {
        self.namespace.clone()
    }

    fn name(&self) -> String {
        self.handler.to_owned()
    }

    fn model_info(&self, model: &Box<dyn RowModel>) -> ModelInfo {
        model.info()
    }

    fn model_files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn keeps_time(&self) -> bool {
        self.apart.is_some()
    }

    // Another step's copy may be the one that is used.
    fn is_loaded(&self, _: usize) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn place(&self, places: &mut Places<'_>) {
        if let Some(apart) = &self.apart {
            apart.place(places);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tiebeam_graph::{Create, Pipeline};
    use tiebeam_inference::RunInference;

    use super::*;

    /// A model that counts how many there are.
    struct Counted(Arc<AtomicUsize>);

    impl Counted {
        fn one(alive: &Arc<AtomicUsize>) -> Box<dyn RowModel> {
            alive.fetch_add(1, Ordering::SeqCst);
            Box::new(Counted(alive.clone()))
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl RowModel for Counted {
        fn signature(&self) -> Signature {
            Signature { inputs: Vec::new(), outputs: Vec::new() }
        }

        fn info(&self) -> ModelInfo {
            ModelInfo::default()
        }

        fn check(&self, _: &Prepared) -> Result<()> {
            Ok(())
        }

        fn predict(&self, batch: &[Prepared], _: &InferenceArgs) -> Result<Predictions<Tensors>> {
            Ok(Predictions::All(batch.iter().map(|example| example.tensors().clone()).collect()))
        }
    }

    #[test]
    fn steps_that_share_a_model_keep_no_other() {
        let alive = Arc::<AtomicUsize>::default();
        let p = Pipeline::new();
        let example = Prepared::bare(Tensors::of_checked_names(Arc::new([]), Vec::new()));
        let input = p.apply(Create::of([example]));
        for name in ["One", "Two", "Three"] {
            let load: Load = {
                let alive = alive.clone();
                Arc::new(move |_| Ok(Counted::one(&alive)))
            };
            let handler = RowHandler {
                handler: "Counted",
                namespace: "Ours".to_owned(),
                load,
                files: Vec::new(),
                first: Mutex::new(Some(Counted::one(&alive))),
                measures: Measures::default(),
                apart: None,
                has_counts: false,
            };
            input.step(name).apply(RunInference::new(handler).with_model_identifier("one of three"));
        }
        assert_eq!(alive.load(Ordering::SeqCst), 3, "each was loaded to know what it takes");
        let graph = p.build().unwrap();
        graph.run_checks().unwrap();
        assert_eq!(alive.load(Ordering::SeqCst), 1);
        drop(graph);
    }
}
