//! [`OnnxModel`]: a loaded model that takes rows and gives rows. What it does is the same on every engine.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_inference::{Example, Inference, ModelInfo, Port, Signature, Tensor, cores};

use crate::engine::{self, CPU, Engine, EngineOptions, Session};
use crate::file::{ModelFile, model_error};
use crate::rows::{self, Fit};
use crate::signature::signature;

/// What is wanted of a model when it is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The engine and its settings.
    pub engine: EngineOptions,
    /// The SHA-256 that the file must have, in hex. Weights in files beside the model are not covered.
    pub sha256: Option<String>,
    /// The outputs that are computed, in that order. Default: all of them, in the model's order.
    pub outputs: Vec<String>,
    /// Inputs whose rows may be of different lengths, with the number that fills up the shorter ones.
    pub padding: Vec<(String, i64)>,
}

/// A model that is loaded and ready, shared by all threads.
///
/// It takes examples (one tensor, or tensors by name), of which each is **one row**: a row's tensor has no batch axis.
/// Rows are stacked along a new first axis where the model's input has one more dimension than the row and that
/// dimension is free; where it is fixed to 1, or the input has no batch axis, a call takes one row. Rows of different
/// shapes are stacked by shape, or, where [`padding`](LoadOptions::padding) is given for the inputs that differ, filled up
/// at their ends to the longest of the batch. A number stands for a row of size 1.
///
/// Numbers go in as they are where the dtypes are the same. Floating-point numbers become the other width (a finite
/// number stays finite), integers another width or a floating-point number where they fit exactly; nothing else is
/// converted.
pub struct OnnxModel {
    name: Arc<str>,
    details: ModelInfo,
    engine: Engine,
    inputs: Vec<Port>,
    /// For each input.
    padding: Vec<Option<i64>>,
    outputs: Vec<Port>,
    output_names: Arc<[Arc<str>]>,
    session: Arc<dyn Session>,
}

impl std::fmt::Debug for OnnxModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OnnxModel({} on {})", self.name, self.engine)
    }
}

impl OnnxModel {
    /// Loads a model from its file.
    ///
    /// # Errors
    /// Of kind [`Model`](ErrorKind::Model) or [`Unsupported`](ErrorKind::Unsupported), naming the path: the file is
    /// missing, foreign, damaged or another one, or the engine can't be had or lacks something.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self> {
        OnnxModel::of(ModelFile::open(path, options.sha256.as_deref())?, options)
    }

    /// Loads a model that is in memory; `name` stands for its path. `options.sha256` is not looked at.
    ///
    /// # Errors
    /// As [`load`](OnnxModel::load).
    pub fn from_bytes(
        name: impl Into<String>,
        bytes: impl Into<Bytes>,
        options: &LoadOptions,
    ) -> Result<Self> {
        OnnxModel::of(ModelFile::from_bytes(name, bytes)?, options)
    }

    /// Loads a model that was read before.
    ///
    /// # Errors
    /// As [`load`](OnnxModel::load).
    pub fn of(file: ModelFile, options: &LoadOptions) -> Result<Self> {
        let (inputs, all) = signature(&file);
        let outputs = select(&file, &all, &options.outputs)?;
        for (what, port) in inputs.iter().map(|p| ("input", p)).chain(outputs.iter().map(|p| ("output", p))) {
            if port.dtype.is_none() {
                let error = model_error(
                    "TB0338",
                    file.name(),
                    format!("{what} {port} is of a type that tensors can't hold"),
                );
                return Err(match what {
                    "output" if all.len() > 1 => {
                        error.with_help(format!("name the outputs you want: {}", list(&all)))
                    }
                    _ => error,
                });
            }
        }
        let padding = padding(&file, &inputs, &options.padding)?;
        let name = Arc::<str>::from(file.name());
        let details = ModelInfo {
            model_id: name.clone(),
            uri: Some(file.name().to_owned()),
            sha256: Some(file.sha256().to_owned()),
            bytes: Some(file.num_bytes()),
            ..ModelInfo::default()
        };
        let (engine, session) = engine::open(file, &inputs, &outputs, &options.engine)?;
        let device = options.engine.device(engine);
        // What is no processor is called in turn.
        let max_concurrency = Some(if device == CPU { cores() } else { 1 });
        let details = ModelInfo { device: Some(device), max_concurrency, ..details };
        let output_names = outputs.iter().map(|port| port.name.clone()).collect();
        Ok(OnnxModel { name, details, engine, inputs, padding, outputs, output_names, session })
    }

    /// The same model with another identity in reports: where an ONNX graph was made from another file. It stays on its
    /// device unless they name one, and takes as many calls at once.
    #[must_use]
    pub fn with_details(mut self, details: ModelInfo) -> Self {
        self.name = details.model_id.clone();
        let device = details.device.clone().or_else(|| self.details.device.take());
        let max_concurrency = details.max_concurrency.or(self.details.max_concurrency);
        self.details = ModelInfo { device, max_concurrency, ..details };
        self
    }

    /// What the model is: path, digest, bytes.
    pub fn details(&self) -> &ModelInfo {
        &self.details
    }

    /// The engine that runs it.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// What goes in.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What comes out, as far as it was asked for.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// What goes in and what comes out.
    pub fn signature(&self) -> Signature {
        Signature { inputs: self.inputs.clone(), outputs: self.outputs.clone() }
    }

    /// Whether examples of type `E` and inferences of type `P` can be had of this model at all.
    ///
    /// # Errors
    /// When one tensor is given to several inputs, or one is wanted of several outputs.
    pub fn check_forms<E: Example, P: Inference>(&self) -> Result<()> {
        if E::SINGLE && self.inputs.len() != 1 {
            let what = format!(
                "it has {} inputs, {}: one tensor is not enough",
                self.inputs.len(),
                list(&self.inputs)
            );
            return Err(
                model_error("TB0338", &self.name, what).with_help("give named tensors: `.named_inputs()`")
            );
        }
        if P::SINGLE && self.outputs.len() != 1 {
            let what =
                format!("it has {} outputs, {}: one was wanted", self.outputs.len(), list(&self.outputs));
            let help = "choose one with `outputs`, or take all by name: `.named_outputs()`";
            return Err(model_error("TB0338", &self.name, what).with_help(help));
        }
        Ok(())
    }

    /// Whether an example can go in: names, shapes, dtypes and numbers. Allocates nothing where it can.
    ///
    /// # Errors
    /// Of kind [`InvalidData`](ErrorKind::InvalidData): what was seen and what is wanted.
    pub fn check<E: Example>(&self, example: &E) -> Result<()> {
        for (index, port) in self.inputs.iter().enumerate() {
            let tensor = self.tensor_of(example, index, port)?;
            rows::fit(port, tensor)?;
            rows::check_numbers(port, tensor)?;
        }
        match example.names() {
            Some(names) if names.len() > self.inputs.len() => {
                let known = |name: &Arc<str>| self.inputs.iter().any(|port| port.name == *name);
                let extra = names.iter().find(|name| !known(name)).map_or("?", |name| name);
                let message =
                    format!("the model has no input `{extra}`, its inputs are {}", list(&self.inputs));
                Err(Error::new(ErrorKind::InvalidData, "TB0340", message))
            }
            _ => Ok(()),
        }
    }

    /// Runs the model on examples: exactly one inference for each, in order.
    ///
    /// # Errors
    /// When an example does not fit, the engine fails, or an output does not have one row for each example.
    pub fn run<E: Example, P: Inference>(&self, batch: &[E]) -> Result<Vec<P>> {
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        let fits = self.fits(first)?;
        let one_a_call = fits.iter().any(|fit| *fit != Fit::Stack);
        if !one_a_call && self.fit_together(first, &batch[1..]) {
            return self.run_rows(batch.len(), &fits, |i| &batch[i]);
        }
        let mut results = (0..batch.len()).map(|_| None).collect::<Vec<Option<P>>>();
        for group in self.groups(batch)? {
            let fits = self.fits(&batch[group[0]])?;
            let size = if fits.iter().any(|fit| *fit != Fit::Stack) { 1 } else { group.len() };
            for rows in group.chunks(size) {
                let inferences = self.run_rows(rows.len(), &fits, |i| &batch[rows[i]])?;
                for (row, inference) in rows.iter().zip(inferences) {
                    results[*row] = Some(inference);
                }
            }
        }
        results
            .into_iter()
            .collect::<Option<Vec<P>>>()
            .ok_or_else(|| Error::internal("a row got no inference"))
    }

    fn tensor_of<'a, E: Example>(&self, example: &'a E, index: usize, port: &Port) -> Result<&'a Tensor> {
        example.tensor(index, &port.name).ok_or_else(|| {
            let names = example.names().unwrap_or_default();
            let seen = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let message = format!("input `{}` is missing, got {seen}", port.name);
            Error::new(ErrorKind::InvalidData, "TB0340", message)
        })
    }

    fn fits<E: Example>(&self, example: &E) -> Result<Vec<Fit>> {
        let ports = self.inputs.iter().enumerate();
        ports.map(|(index, port)| rows::fit(port, self.tensor_of(example, index, port)?)).collect()
    }

    /// Whether rows go into one call: they have the same shapes, or the same ranks where they are padded.
    fn fit_together<E: Example>(&self, first: &E, rest: &[E]) -> bool {
        self.inputs.iter().zip(&self.padding).enumerate().all(|(index, (port, padding))| {
            let shape = first.tensor(index, &port.name);
            rest.iter().all(|row| match (shape, row.tensor(index, &port.name)) {
                (Some(a), Some(b)) if padding.is_some() => a.rank() == b.rank(),
                (Some(a), Some(b)) => a.same_shape(b),
                _ => false,
            })
        })
    }

    /// The rows by their shapes (their ranks where they are padded), each group and the groups in the order of their first rows.
    fn groups<E: Example>(&self, batch: &[E]) -> Result<Vec<Vec<usize>>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut by_shape = HashMap::new();
        for (row, example) in batch.iter().enumerate() {
            let mut shapes = Vec::new();
            for (index, port) in self.inputs.iter().enumerate() {
                let tensor = self.tensor_of(example, index, port)?;
                shapes.push(tensor.rank());
                if self.padding[index].is_none() {
                    tensor.with_shape(|shape| shapes.extend_from_slice(shape));
                }
            }
            let group = *by_shape.entry(shapes).or_insert(groups.len());
            match groups.get_mut(group) {
                Some(rows) => rows.push(row),
                None => groups.push(vec![row]),
            }
        }
        Ok(groups)
    }

    /// Runs `n` rows that fit together in one call.
    fn run_rows<'a, E: Example, P: Inference>(
        &self,
        n: usize,
        fits: &[Fit],
        rows: impl Fn(usize) -> &'a E + Copy,
    ) -> Result<Vec<P>> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for ((index, port), fit) in self.inputs.iter().enumerate().zip(fits) {
            // Every row was seen to bring the input when the shapes were compared.
            let first = self.tensor_of(rows(0), index, port)?;
            let column =
                |i: usize| if i == 0 { first } else { rows(i).tensor(index, &port.name).unwrap_or(first) };
            inputs.push((&*port.name, rows::gather(port, *fit, n, self.padding[index], column)?));
        }
        let outputs = self.session.run(&inputs)?;
        if outputs.len() != self.outputs.len() {
            let (seen, wanted) = (outputs.len(), self.outputs.len());
            return Err(self.broken(format!("{} gave {seen} outputs, wanted {wanted}", self.engine)));
        }
        let columns =
            outputs.into_iter().zip(&self.outputs).map(|(output, port)| self.rows_of(output, port, n, fits));
        Ok(P::of_columns(&self.output_names, columns.collect::<Result<_>>()?))
    }

    /// The rows of an output.
    fn rows_of(&self, output: Tensor, port: &Port, n: usize, fits: &[Fit]) -> Result<Vec<Tensor>> {
        let first = output.with_shape(|shape| shape.first().copied());
        if fits.iter().all(|fit| *fit != Fit::Whole) && !fits.is_empty() {
            return match first {
                Some(rows) if rows == n => output.into_rows(),
                _ => Err(self.broken(format!(
                    "output {} has the shape {:?} for a batch of {n}: its first axis should be the batch",
                    port.name,
                    output.shape()
                ))),
            };
        }
        // One row: a batch axis that was put in front of some inputs is taken away from what has it.
        let put_in = fits.iter().any(|fit| *fit != Fit::Whole);
        let declared = port.shape.as_ref().and_then(|dims| dims.first());
        let batch_axis = declared.is_none_or(|dim| dim.admits(1));
        if put_in && first == Some(1) && batch_axis { output.into_rows() } else { Ok(vec![output]) }
    }

    fn broken(&self, what: String) -> Error {
        Error::new(ErrorKind::Inference, "TB0343", format!("model {}: {what}", self.name))
    }
}

/// The padding of each input.
fn padding(file: &ModelFile, inputs: &[Port], given: &[(String, i64)]) -> Result<Vec<Option<i64>>> {
    if let Some((name, _)) = given.iter().find(|(name, _)| inputs.iter().all(|port| *port.name != **name)) {
        let what = format!("padding is given for `{name}`, its inputs are {}", list(inputs));
        return Err(model_error("TB0338", file.name(), what));
    }
    let of = |port: &Port| given.iter().find(|(name, _)| *port.name == **name).map(|(_, number)| *number);
    Ok(inputs.iter().map(of).collect())
}

/// The outputs that are asked for.
fn select(file: &ModelFile, all: &[Port], wanted: &[String]) -> Result<Vec<Port>> {
    if wanted.is_empty() {
        return Ok(all.to_vec());
    }
    let mut outputs: Vec<Port> = Vec::with_capacity(wanted.len());
    for name in wanted {
        if outputs.iter().any(|port| *port.name == **name) {
            return Err(model_error("TB0338", file.name(), format!("output `{name}` is asked for twice")));
        }
        match all.iter().find(|port| *port.name == **name) {
            Some(port) => outputs.push(port.clone()),
            None => {
                let what = format!("it has no output `{name}`, its outputs are {}", list(all));
                return Err(model_error("TB0338", file.name(), what));
            }
        }
    }
    Ok(outputs)
}

/// Names in backticks.
fn list(ports: &[Port]) -> String {
    ports.iter().map(|port| format!("`{}`", port.name)).collect::<Vec<_>>().join(", ")
}
