//! [`TreesModel`]: a loaded model that takes rows and gives rows.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_inference::signature::{Dim, Example, Inference, Port};
use tiebeam_inference::{DType, ModelInfo, Tensor, cores};

use crate::file::{self, Format, model_error};
use crate::forest::{Forest, Lightgbm, Xgboost};
use crate::link::Link;
use crate::rows::{Columns, Places, each_number, gather};

/// What is wanted of a model when it is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whose model it must be. Default: told by its content.
    pub format: Option<Format>,
    /// The SHA-256 that the file must have, in hex.
    pub sha256: Option<String>,
    /// Gives raw scores in place of what the package's `predict` gives (its `output_margin`, `raw_score`).
    pub raw_scores: bool,
    /// Takes all trees, where XGBoost's early stopping wrote down a best iteration.
    pub all_iterations: bool,
}

/// What the numbers of a feature are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureKind {
    /// Numbers.
    Numerical,
    /// Categories, by their numbers.
    Categorical,
}

/// A feature of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Its name: as the model has it, else its number behind `f` (XGBoost).
    pub name: Arc<str>,
    /// What its numbers are.
    pub kind: FeatureKind,
    /// The names of its categories, category 0 first, where the model has them; whole numbers that were categories in training are
    /// names, too. Those at the end that XGBoost's file does not tell for certain (up to 3.3, where some are not ASCII) are not there.
    pub categories: Option<Vec<Arc<str>>>,
    pub(crate) unknown: UnknownCategory,
}

/// What a text is that is none of the categories' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownCategory {
    Missing,
    Refused,
    /// Refused; but it may be the name of a category that XGBoost's file does not tell.
    RefusedOrCut,
}

/// The features as a file has them.
pub(crate) struct Features {
    pub(crate) count: usize,
    /// None where the file says nothing but their number.
    pub(crate) listed: Option<Vec<Feature>>,
    /// What stands before the number in the name of one without.
    pub(crate) prefix: &'static str,
}

impl Features {
    /// All features, made where the file did not list them.
    pub(crate) fn listed_mut(&mut self) -> &mut [Feature] {
        let (count, prefix) = (self.count, self.prefix);
        self.listed.get_or_insert_with(|| unnamed(count, prefix))
    }
}

/// Features of which nothing is known but their number.
fn unnamed(count: usize, prefix: &str) -> Vec<Feature> {
    let feature = |i: usize| Feature {
        name: format!("{prefix}{i}").into(),
        kind: FeatureKind::Numerical,
        categories: None,
        unknown: UnknownCategory::Refused,
    };
    (0..count).map(feature).collect()
}

/// Why a file is no model that can be run.
pub(crate) enum Refusal {
    Damaged(String),
    Foreign(String),
    Unsupported(String),
}

/// What a file says of a model.
pub(crate) struct Read {
    pub(crate) body: Body,
    pub(crate) features: Features,
    pub(crate) link: Link,
    pub(crate) objective: String,
}

/// What computes.
pub(crate) enum Body {
    Xgboost {
        forest: Forest<Xgboost>,
        base: Vec<f32>,
    },
    Lightgbm {
        forest: Forest<Lightgbm>,
        divisor: f64,
    },
    /// XGBoost's `gblinear`: for each feature its weights by output, then the biases.
    Linear {
        weights: Vec<f32>,
        base: Vec<f32>,
    },
}

impl Body {
    fn groups(&self) -> usize {
        match self {
            Body::Xgboost { base, .. } | Body::Linear { base, .. } => base.len(),
            Body::Lightgbm { forest, .. } => forest.groups(),
        }
    }

    fn num_bytes(&self) -> u64 {
        match self {
            Body::Xgboost { forest, .. } => forest.num_bytes(),
            Body::Lightgbm { forest, .. } => forest.num_bytes(),
            Body::Linear { weights, .. } => size_of_val(weights.as_slice()) as u64,
        }
    }
}

/// How many features without names are given some.
const NAMED: usize = 1 << 16;

/// A model that is loaded and ready, shared by all threads.
///
/// It takes examples that are rows: a tensor of as many numbers as there are features, where NaN is a missing one; or
/// tensors of one number by the features' names, where an absent one is missing and a text stands for the category of that
/// name. A number stands for the category of that place in training, from 0 on, as in a numpy array: not for the category of that
/// name, where the categories were whole numbers. A text that was no category in training is missing to LightGBM's models and refused
/// for XGBoost's, as their packages have it. The answer is a number, or a row of them where there are several outputs.
pub struct TreesModel {
    name: Arc<str>,
    details: ModelInfo,
    format: Format,
    objective: String,
    features: Features,
    named: OnceLock<Vec<Feature>>,
    by_name: OnceLock<HashMap<Arc<str>, usize>>,
    /// By feature, where there are categories with names.
    codes: OnceLock<Vec<HashMap<Arc<str>, usize>>>,
    body: Body,
    link: Link,
    trees: usize,
    inputs: [Port; 1],
    outputs: [Port; 1],
    output_names: Arc<[Arc<str>]>,
}

impl std::fmt::Debug for TreesModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TreesModel({}, {} trees of {}, {})", self.name, self.trees, self.format, self.objective)
    }
}

impl TreesModel {
    /// Loads a model from its file.
    ///
    /// # Errors
    /// Of kind [`Model`](ErrorKind::Model) or [`Unsupported`](ErrorKind::Unsupported), naming the path: the file is missing,
    /// foreign, damaged or another one, or has something that can't be run here.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self> {
        TreesModel::from_bytes(path.display().to_string(), &file::bytes(path)?, options)
    }

    /// Loads a model that is in memory; `name` stands for its path.
    ///
    /// # Errors
    /// As [`load`](TreesModel::load).
    pub fn from_bytes(name: impl Into<String>, bytes: &[u8], options: &LoadOptions) -> Result<Self> {
        let name = name.into();
        let sha256 = file::digest(&name, bytes, options.sha256.as_deref())?;
        let (format, mut read) = file::read(&name, bytes, options.format, options.all_iterations)?;
        let link = if options.raw_scores { Link::Identity } else { read.link };
        if let (true, Body::Lightgbm { divisor, .. }) = (options.raw_scores, &mut read.body) {
            // LightGBM's raw scores of a random forest are sums, its predictions are made of means.
            *divisor = 1.0;
        }
        let (dtype, trees) = match &read.body {
            Body::Xgboost { forest, .. } => (DType::F32, forest.trees()),
            Body::Lightgbm { forest, .. } => (DType::F64, forest.trees()),
            Body::Linear { .. } => (DType::F32, 0),
        };
        let port = |name: &str, shape: Option<usize>| {
            let batch = Dim::Named("batch".into());
            let shape = std::iter::once(batch).chain(shape.map(Dim::Fixed)).collect();
            Port {
                name: name.into(),
                type_name: dtype.name().to_owned(),
                dtype: Some(dtype),
                shape: Some(shape),
            }
        };
        let width = link.outputs(read.body.groups());
        let outputs = [port("prediction", (width > 1).then_some(width))];
        let name = Arc::<str>::from(name);
        let details = ModelInfo {
            model_id: name.clone(),
            uri: Some(name.to_string()),
            sha256: Some(sha256),
            bytes: Some(read.body.num_bytes().max(1)),
            device: None,
            max_concurrency: Some(cores()),
        };
        Ok(TreesModel {
            name,
            details,
            format,
            objective: read.objective,
            inputs: [port("features", Some(read.features.count))],
            output_names: Arc::new([outputs[0].name.clone()]),
            outputs,
            features: read.features,
            named: OnceLock::new(),
            by_name: OnceLock::new(),
            codes: OnceLock::new(),
            body: read.body,
            link,
            trees,
        })
    }

    /// What the model is: path, digest, bytes.
    pub fn details(&self) -> &ModelInfo {
        &self.details
    }

    /// The same model with another identity in reports: where its file was fetched from elsewhere.
    #[must_use]
    pub fn with_details(self, details: ModelInfo) -> Self {
        TreesModel { details, ..self }
    }

    /// Whose model it is.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The objective that it was trained for, such as `binary:logistic`.
    pub fn objective(&self) -> &str {
        &self.objective
    }

    /// The number of trees that are asked; none in a linear model.
    pub fn num_trees(&self) -> usize {
        self.trees
    }

    /// The number of features.
    pub fn num_features(&self) -> usize {
        self.features.count
    }

    /// The features, in order. Empty where there are more than 65,536 and the model does not name them.
    pub fn features(&self) -> &[Feature] {
        if let Some(listed) = &self.features.listed {
            return listed;
        }
        self.named.get_or_init(|| {
            let count = if self.features.count <= NAMED { self.features.count } else { 0 };
            unnamed(count, self.features.prefix)
        })
    }

    /// The number of the feature of that name; the first, where several have it.
    pub(crate) fn feature_of(&self, name: &str) -> Option<usize> {
        let by_name = || {
            let names = self.features().iter().enumerate().rev();
            names.map(|(i, feature)| (feature.name.clone(), i)).collect()
        };
        self.by_name.get_or_init(by_name).get(name).copied()
    }

    /// The number of the category of that name; the first, where several have it.
    pub(crate) fn category_of(&self, feature: usize, name: &str) -> Option<usize> {
        let codes = |feature: &Feature| {
            let names = feature.categories.iter().flatten().enumerate();
            let mut codes = HashMap::with_capacity(feature.categories.as_ref().map_or(0, Vec::len));
            for (code, name) in names {
                codes.entry(name.clone()).or_insert(code);
            }
            codes
        };
        let codes = self.codes.get_or_init(|| self.features().iter().map(codes).collect());
        codes.get(feature)?.get(name).copied()
    }

    /// The features' names, in order.
    pub fn feature_names(&self) -> Vec<Arc<str>> {
        self.features().iter().map(|feature| feature.name.clone()).collect()
    }

    /// The numbers of an answer: one, or one a class, quantile or target.
    pub fn num_outputs(&self) -> usize {
        self.link.outputs(self.body.groups())
    }

    /// What goes in: `features`, a row of all of them.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What comes out: `prediction`.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Whether examples of type `E` can be had of this model at all.
    ///
    /// # Errors
    /// When features are wanted by names that they do not have.
    pub fn check_forms<E: Example>(&self) -> Result<()> {
        if !E::SINGLE && self.features().len() != self.features.count {
            let what = format!("its {} features have no names", self.features.count);
            return Err(model_error("TB0385", &self.name, what).with_help("give the features as one tensor"));
        }
        Ok(())
    }

    /// Whether an example can go in: the number of features or their names, and what they are.
    ///
    /// # Errors
    /// Of kind [`InvalidData`](ErrorKind::InvalidData): what was seen and what is wanted.
    pub fn check<E: Example>(&self, example: &E) -> Result<()> {
        // XGBoost refuses infinite numbers; those that f32 can't hold become such.
        let narrow = !matches!(self.body, Body::Lightgbm { .. });
        let mut finite = true;
        each_number(self, example, |x| finite &= !narrow || x.is_nan() || (x as f32).is_finite())?;
        if finite {
            return Ok(());
        }
        let what = "a feature is infinite, or too large for float32, which XGBoost computes in";
        Err(Error::new(ErrorKind::InvalidData, "TB0387", what))
    }

    /// Predicts examples: exactly one answer for each, in order.
    ///
    /// # Errors
    /// When an example does not fit.
    pub fn run<E: Example, P: Inference>(&self, batch: &[E]) -> Result<Vec<P>> {
        let rows = match &self.body {
            Body::Xgboost { forest, base } => self.blocks(
                batch,
                Columns::These(forest.columns()),
                |x| x as f32,
                |rows, n| {
                    let mut scores = base.repeat(n);
                    forest.add_scores(rows, &mut scores);
                    scores
                },
                |link, scores| link.apply_f32(scores),
            ),
            Body::Linear { weights, base } => self.blocks(
                batch,
                Columns::All,
                |x| x as f32,
                |rows, n| linear_scores(weights, base, rows, n),
                |link, scores| link.apply_f32(scores),
            ),
            Body::Lightgbm { forest, divisor } => self.blocks(
                batch,
                Columns::These(forest.columns()),
                |x| if x.abs() <= crate::forest::ZERO { 0.0 } else { x },
                |rows, n| {
                    let mut scores = vec![0.0; n * forest.groups()];
                    forest.add_scores(rows, &mut scores);
                    if *divisor != 1.0 {
                        scores.iter_mut().for_each(|score| *score /= divisor);
                    }
                    scores
                },
                |link, scores| link.apply_f64(scores),
            ),
        };
        Ok(P::of_columns(&self.output_names, vec![rows?]))
    }

    /// Answers of a batch, some rows at a time, so that what is computed on stays near.
    fn blocks<E: Example, T: tiebeam_inference::tensor::TensorElement + Copy>(
        &self,
        batch: &[E],
        columns: Columns<'_>,
        number: impl Fn(f64) -> T,
        scores: impl Fn(&[T], usize) -> Vec<T>,
        link: impl Fn(Link, &mut [T]),
    ) -> Result<Vec<Tensor>> {
        let width = columns.count(self.features.count);
        let groups = self.body.groups();
        let at_once = (65_536 / width.max(groups).max(1)).clamp(8, 256);
        let mut places = Places::default();
        let mut rows = Vec::with_capacity(at_once.min(batch.len()) * width);
        let mut answers = Vec::with_capacity(batch.len());
        let outputs = self.num_outputs();
        for block in batch.chunks(at_once) {
            rows.clear();
            for example in block {
                gather(self, example, &mut places, columns, |x| rows.push(number(x)))?;
            }
            let mut scores = scores(&rows, block.len());
            for scores in scores.chunks_mut(groups) {
                link(self.link, scores);
                answers.push(match scores {
                    [one, ..] if outputs == 1 => Tensor::scalar(*one),
                    all => Tensor::vector(all.to_vec()),
                });
            }
        }
        Ok(answers)
    }
}

/// The scores of XGBoost's `gblinear`: missing numbers add nothing.
fn linear_scores(weights: &[f32], base: &[f32], rows: &[f32], n: usize) -> Vec<f32> {
    let groups = base.len();
    let width = weights.len() / groups - 1;
    let bias = &weights[width * groups..];
    let mut scores = Vec::with_capacity(n * groups);
    for row in 0..n {
        let row = &rows[row * width..(row + 1) * width];
        for group in 0..groups {
            let mut sum = bias[group] + base[group];
            for (x, weights) in row.iter().zip(weights.chunks(groups)) {
                if !x.is_nan() {
                    sum += x * weights[group];
                }
            }
            scores.push(sum);
        }
    }
    scores
}
