//! ONNX Runtime: the fast engine, from its shared library.
//!
//! A model is one session there, whatever the number of threads: on the CPU they call it together, on other devices in
//! turn. Large weights are mapped from a file, so that ONNX Runtime can let go of those that it packs for its kernels.

use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};

use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session as OrtInner, SessionInputValue};
use ort::value::{DynValue, TensorElementType, TensorRef, ValueType};
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_inference::{Tensor, TensorData};

use crate::engine::{CPU, Session, guarded};
use crate::file::{ModelFile, model_error};
use crate::library::Found;
use crate::ort_call::SharedSession;
use tiebeam_inference::Port;

/// A model in ONNX Runtime.
pub(crate) struct OrtSession {
    name: String,
    outputs: Vec<(Arc<str>, CString)>,
    calls: Calls,
}

/// How threads call the session.
enum Calls {
    /// At once: the CPU.
    Together(SharedSession),
    /// One after the other: ONNX Runtime promises no more for other devices.
    InTurn(Box<Mutex<InTurn>>),
}

/// A session with its choice of outputs.
struct InTurn {
    session: OrtInner,
    options: RunOptions<HasSelectedOutputs>,
}

/// One protobuf message ends at 2 GiB; larger weights stay in their files.
const LARGEST_MESSAGE: u64 = 3 << 29;

/// Weights of so many bytes in all are mapped from a file; fewer are given in the model's own bytes.
const MAPPED_FROM: u64 = 16 << 20;

impl OrtSession {
    pub(crate) fn open(
        file: ModelFile,
        outputs: &[Port],
        library: &Found,
        providers: &[String],
    ) -> Result<Self> {
        let name = file.name().to_owned();
        let refused = |e: ort::Error| {
            let what = format!("ONNX Runtime can't load it: {}", one_line(&e.to_string()));
            model_error("TB0336", &name, what)
        };
        let others: Vec<&String> = providers.iter().filter(|name| *name != CPU).collect();
        let others = others.into_iter().map(|name| provider(name)).collect::<Result<Vec<_>>>()?;
        let on_cpu = others.is_empty();
        let session = create(file, library, others)?.map_err(refused)?;
        let calls = if on_cpu {
            Calls::Together(SharedSession::new(session))
        } else {
            let selector =
                outputs.iter().fold(OutputSelector::no_default(), |all, port| all.with(&*port.name));
            let options = RunOptions::new().map_err(refused)?.with_outputs(selector);
            Calls::InTurn(Box::new(Mutex::new(InTurn { session, options })))
        };
        let outputs = outputs.iter().map(|port| Ok((port.name.clone(), c_name(&name, &port.name)?)));
        Ok(OrtSession { outputs: outputs.collect::<Result<_>>()?, name, calls })
    }

    fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Inference, "TB0342", format!("model {}: {what}", self.name))
    }

    fn execute(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>> {
        let failed = |e: ort::Error| self.error("ONNX Runtime failed on the batch").with_source(e);
        match &self.calls {
            Calls::Together(session) => {
                let names = inputs.iter().map(|(name, _)| c_name(&self.name, name));
                let names = names.collect::<Result<Vec<_>>>()?;
                let values =
                    names.iter().zip(inputs).map(|(name, (_, tensor))| Ok((&**name, value(tensor)?)));
                let values = values.collect::<ort::Result<Vec<_>>>().map_err(failed)?;
                let outputs: Vec<_> = self.outputs.iter().map(|(_, name)| &**name).collect();
                let tensors = session.run(&values, &outputs, |found| {
                    self.outputs
                        .iter()
                        .zip(found)
                        .map(|((name, _), value)| self.tensor(name, value))
                        .collect()
                });
                tensors.map_err(failed)?
            }
            Calls::InTurn(session) => {
                let values = inputs.iter().map(|(name, tensor)| Ok((*name, value(tensor).map_err(failed)?)));
                let values = values.collect::<Result<Vec<_>>>()?;
                let mut held = session.lock().unwrap_or_else(PoisonError::into_inner);
                let InTurn { session, options } = &mut *held;
                let results = session.run_with_options(values, options).map_err(failed)?;
                let read = |name: &str| {
                    let value =
                        results.get(name).ok_or_else(|| self.error(format!("output {name} is missing")))?;
                    self.tensor(name, value)
                };
                self.outputs.iter().map(|(name, _)| read(name)).collect()
            }
        }
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
        guarded(&self.name, "ONNX Runtime", || self.execute(inputs))
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

/// Makes the session; the model and its weights in memory are let go of before ONNX Runtime takes its own.
fn create(
    file: ModelFile,
    library: &Found,
    providers: Vec<ExecutionProviderDispatch>,
) -> Result<ort::Result<OrtInner>> {
    let builder = || {
        Ok(OrtInner::builder(&library.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            // It keeps a block of memory for each shape of a batch that it has seen, which is another one each time.
            .with_memory_pattern(false)?
            .with_execution_providers(&providers)?)
    };
    if let Some(path) = file.path().filter(|_| file.external_bytes() > LARGEST_MESSAGE) {
        return Ok(builder().and_then(|mut builder: SessionBuilder| builder.commit_from_file(path)));
    }
    if file.num_bytes() >= MAPPED_FROM {
        // A copy of our own: were the user's file mapped, a shorter one written over it would end the process. Where
        // there is no room for it, the weights are given in memory, as those of small models are.
        let copied = tempfile::Builder::new()
            .prefix("tiebeam-model-")
            .tempdir()
            .and_then(|folder| file.write_apart(folder.path()).map(|model| (folder, model)));
        if let Ok((_folder, model)) = copied {
            drop(file);
            return Ok(builder().and_then(|mut builder: SessionBuilder| builder.commit_from_file(model)));
        }
    }
    let bytes = file.self_contained()?;
    drop(file);
    Ok(builder().and_then(|mut builder: SessionBuilder| builder.commit_from_memory(&bytes)))
}

/// A name as C reads it.
fn c_name(model: &str, name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| {
        model_error("TB0336", model, format!("ONNX Runtime can't have a zero byte in the name {name:?}"))
    })
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
