//! ONNX Runtime: the fast engine, from its shared library.
//!
//! A session there runs one call at a time, so a model is a pool of sessions: a call takes a free one or makes one, and
//! puts it back. The sessions share the large weights and what ONNX Runtime makes of them; each runs on the caller's
//! thread alone.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session as OrtInner, SessionInputValue};
use ort::value::{DynValue, TensorElementType, TensorRef, ValueType};
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_inference::{Tensor, TensorData};

use crate::engine::{CPU, Session, guarded};
use crate::file::{ModelFile, model_error};
use crate::library::Found;
use crate::proto::data_type;
use crate::signature::Port;

/// A model in ONNX Runtime.
pub(crate) struct OrtSession {
    name: String,
    source: Source,
    library: Found,
    providers: Vec<ExecutionProviderDispatch>,
    weights: Vec<(String, Arc<DynValue>)>,
    prepacked: PrepackedWeights,
    outputs: Vec<Arc<str>>,
    free: Mutex<Vec<Pooled>>,
}

/// Where sessions are made from.
enum Source {
    Bytes(Bytes),
    /// A model whose weights are too large for one message.
    File(std::path::PathBuf),
}

/// A session with its choice of outputs.
struct Pooled {
    session: OrtInner,
    options: RunOptions<HasSelectedOutputs>,
}

/// One protobuf message ends at 2 GiB; larger weights stay in their files.
const LARGEST_MESSAGE: u64 = 3 << 29;

/// Weights from this many bytes on are shared by the sessions.
const SHARED_FROM: usize = 4096;

impl OrtSession {
    pub(crate) fn open(
        file: ModelFile,
        outputs: &[Port],
        library: &Found,
        providers: &[String],
    ) -> Result<Self> {
        let (source, weights) = match file.path() {
            Some(path) if file.external_bytes() > LARGEST_MESSAGE => {
                (Source::File(path.to_owned()), Vec::new())
            }
            _ => {
                let weights = shared_weights(&file)?;
                let is_shared = |name: &str| weights.iter().any(|(shared, _)| shared == name);
                let bytes = match weights.is_empty() {
                    true => file.self_contained()?,
                    // Else each weight would be there three times: in these bytes, in the session's copy of them, and here.
                    false => file.without_weights(is_shared)?,
                };
                (Source::Bytes(bytes), weights)
            }
        };
        let session = OrtSession {
            name: file.name().to_owned(),
            source,
            library: library.clone(),
            providers: providers
                .iter()
                .filter(|name| *name != CPU)
                .map(|name| provider(name))
                .collect::<Result<_>>()?,
            weights,
            prepacked: PrepackedWeights::new(),
            outputs: outputs.iter().map(|port| port.name.clone()).collect(),
            free: Mutex::new(Vec::new()),
        };
        drop(file);
        // The first one now: a model that the engine refuses is refused when it is loaded.
        let first = session.create()?;
        session.put_back(first);
        Ok(session)
    }

    fn create(&self) -> Result<Pooled> {
        let refused = |e: ort::Error| {
            model_error(
                "TB0336",
                &self.name,
                format!("ONNX Runtime can't load it: {}", one_line(&e.to_string())),
            )
        };
        let mut builder = self.builder().map_err(refused)?;
        let session = match &self.source {
            Source::Bytes(bytes) => builder.commit_from_memory(bytes),
            Source::File(path) => builder.commit_from_file(path),
        };
        let session = session.map_err(refused)?;
        let selector = self.outputs.iter().fold(OutputSelector::no_default(), |all, name| all.with(&**name));
        let options = RunOptions::new().map_err(refused)?.with_outputs(selector);
        Ok(Pooled { session, options })
    }

    fn builder(&self) -> ort::Result<SessionBuilder> {
        let mut builder = OrtInner::builder(&self.library.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_execution_providers(&self.providers)?
            .with_prepacked_weights(&self.prepacked)?;
        for (name, weight) in &self.weights {
            builder = builder.with_external_initializer(name, weight.clone())?;
        }
        Ok(builder)
    }

    fn put_back(&self, pooled: Pooled) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(pooled);
    }

    fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Inference, "TB0342", format!("model {}: {what}", self.name))
    }

    fn execute(&self, pooled: &mut Pooled, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>> {
        let failed = |e: ort::Error| self.error("ONNX Runtime failed on the batch").with_source(e);
        let values = inputs.iter().map(|(name, tensor)| Ok((*name, value(tensor).map_err(failed)?)));
        let values = values.collect::<Result<Vec<_>>>()?;
        let results = pooled.session.run_with_options(values, &pooled.options).map_err(failed)?;
        let mut tensors = Vec::with_capacity(self.outputs.len());
        for name in &self.outputs {
            let value =
                results.get(&**name).ok_or_else(|| self.error(format!("output {name} is missing")))?;
            tensors.push(self.tensor(name, value)?);
        }
        Ok(tensors)
    }

    fn tensor(&self, name: &str, value: &DynValue) -> Result<Tensor> {
        let failed = |e: ort::Error| self.error(format!("output {name} can't be read")).with_source(e);
        macro_rules! numbers {
            ($type:ty) => {{
                let (shape, values) = value.try_extract_tensor::<$type>().map_err(failed)?;
                Tensor::new(&shape.iter().map(|dim| *dim as usize).collect::<Vec<_>>(), values.to_vec())
            }};
        }
        match value.dtype() {
            ValueType::Tensor { ty, .. } => match ty {
                TensorElementType::Float32 => numbers!(f32),
                TensorElementType::Float64 => numbers!(f64),
                TensorElementType::Int64 => numbers!(i64),
                TensorElementType::Int32 => numbers!(i32),
                TensorElementType::Uint8 => numbers!(u8),
                TensorElementType::Int8 => numbers!(i8),
                TensorElementType::Bool => numbers!(bool),
                TensorElementType::String => {
                    let (shape, values) = value.try_extract_strings().map_err(failed)?;
                    let shape = shape.iter().map(|dim| *dim as usize).collect::<Vec<_>>();
                    Tensor::new(&shape, values.into_iter().map(Arc::<str>::from).collect())
                }
                other => {
                    Err(self.error(format!("output {name} is a tensor of {other}, which is not supported")))
                }
            },
            other => Err(self.error(format!("output {name} is no tensor but {other}"))),
        }
    }
}

impl Session for OrtSession {
    fn run(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>> {
        guarded(&self.name, "ONNX Runtime", || {
            let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut pooled = free.map_or_else(|| self.create(), Ok)?;
            let result = self.execute(&mut pooled, inputs);
            self.put_back(pooled);
            result
        })
    }
}

/// A tensor as ONNX Runtime takes it; numbers are not copied.
fn value(tensor: &Tensor) -> ort::Result<SessionInputValue<'_>> {
    macro_rules! view {
        ($buffer:expr) => {
            TensorRef::from_array_view((tensor.shape(), $buffer.as_slice())).map(SessionInputValue::from)
        };
    }
    match tensor.data() {
        TensorData::F32(b) => view!(b),
        TensorData::F64(b) => view!(b),
        TensorData::I64(b) => view!(b),
        TensorData::I32(b) => view!(b),
        TensorData::U8(b) => view!(b),
        TensorData::I8(b) => view!(b),
        TensorData::Bool(b) => view!(b),
        TensorData::Str(b) => {
            let texts = b.as_slice().iter().map(|text| text.to_string()).collect::<Vec<_>>();
            ort::value::Tensor::from_string_array((tensor.shape(), &texts[..])).map(SessionInputValue::from)
        }
    }
}

/// The large weights of a model, held once for all of its sessions.
fn shared_weights(file: &ModelFile) -> Result<Vec<(String, Arc<DynValue>)>> {
    let graph = file.graph();
    let mut shared = Vec::new();
    for tensor in &graph.initializer {
        // Weights that are inputs too may be overridden: those stay in the model.
        let Some(raw) = tensor.raw_data.as_ref().filter(|raw| raw.len() >= SHARED_FROM) else { continue };
        if graph.input.iter().any(|input| input.name == tensor.name) {
            continue;
        }
        let shape = &tensor.dims[..];
        let value = match tensor.data_type {
            data_type::FLOAT => {
                let numbers =
                    raw.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect::<Vec<_>>();
                ort::value::Tensor::from_array((shape, numbers)).map(ort::value::Tensor::into_dyn)
            }
            data_type::UINT8 => {
                ort::value::Tensor::from_array((shape, raw.to_vec())).map(ort::value::Tensor::into_dyn)
            }
            data_type::INT8 => {
                let numbers = raw.iter().map(|byte| *byte as i8).collect::<Vec<_>>();
                ort::value::Tensor::from_array((shape, numbers)).map(ort::value::Tensor::into_dyn)
            }
            _ => continue,
        };
        let value = value.map_err(|e| {
            model_error("TB0336", file.name(), format!("weight {}: ONNX Runtime refuses it", tensor.name))
                .with_source(e)
        })?;
        shared.push((tensor.name.clone(), Arc::new(value)));
    }
    Ok(shared)
}

/// The execution provider of that name, if the library has it.
fn provider(name: &str) -> Result<ExecutionProviderDispatch> {
    fn available<E: ExecutionProvider>(
        name: &str,
        dispatch: ExecutionProviderDispatch,
    ) -> Result<ExecutionProviderDispatch> {
        match E::is_available() {
            Ok(true) => Ok(dispatch.error_on_failure()),
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                "TB0337",
                format!("this ONNX Runtime was built without {name}"),
            )
            .with_help(
                "use a library that has it (the onnxruntime-gpu wheel's for CUDA), or leave `providers` out",
            )),
        }
    }
    match name {
        "CUDAExecutionProvider" => available::<ep::CUDA>(name, ep::CUDA::default().build()),
        "TensorrtExecutionProvider" => available::<ep::TensorRT>(name, ep::TensorRT::default().build()),
        "OpenVINOExecutionProvider" => available::<ep::OpenVINO>(name, ep::OpenVINO::default().build()),
        "CoreMLExecutionProvider" => available::<ep::CoreML>(name, ep::CoreML::default().build()),
        _ => Err(Error::new(
            ErrorKind::InvalidArgument,
            "TB0337",
            format!("no execution provider has the name `{name}`"),
        )
        .with_help(format!(
            "{CPU}, CUDAExecutionProvider, TensorrtExecutionProvider, OpenVINOExecutionProvider, CoreMLExecutionProvider"
        ))),
    }
}

/// ONNX Runtime's messages have several lines; errors have one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
