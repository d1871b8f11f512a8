//! rten: the engine that is always there.
//!
//! A loaded model is shared by all threads. rten runs a call on a thread pool; each call borrows a pool of one thread,
//! so that a call is single-threaded and many of them run at once, never more pools than there were calls at once.
//!
//! rten has no 64-bit numbers: `int64` and `bool` are `int32` inside, `float64` is `float32`. What does not fit is
//! refused on the way in, never cut.

use std::sync::{Arc, Mutex, PoisonError};

use rten::{
    LoadErrorKind, Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView, ValueView,
};
use rten_tensor::Layout;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_inference::{DType, Tensor, TensorData};

use crate::engine::{Session, guarded};
use crate::file::{ModelFile, model_error};
use crate::operators;
use tiebeam_inference::Port;

/// A model in rten.
pub(crate) struct RtenSession {
    name: String,
    model: Model,
    inputs: Vec<(Arc<str>, NodeId)>,
    outputs: Vec<(Port, NodeId)>,
    output_ids: Vec<NodeId>,
}

/// Pools of one thread that no call has now.
static POOLS: Mutex<Vec<Arc<ThreadPool>>> = Mutex::new(Vec::new());

/// A pool for one call; goes back when the call ends, however it ends.
struct Borrowed(Arc<ThreadPool>);

impl Borrowed {
    fn new() -> Self {
        let free = POOLS.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Borrowed(free.unwrap_or_else(|| Arc::new(ThreadPool::with_num_threads(1))))
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        POOLS.lock().unwrap_or_else(PoisonError::into_inner).push(self.0.clone());
    }
}

/// Loads a model into rten, without looking at what it lacks.
pub(crate) fn load(file: &ModelFile, optimize: bool) -> Result<Result<Model, rten::LoadError>> {
    let bytes = file.self_contained()?;
    let mut options = ModelOptions::with_all_ops();
    options.enable_optimization(optimize).prepack_weights(optimize);
    Ok(options.load(Vec::from(bytes)))
}

impl RtenSession {
    pub(crate) fn open(file: &ModelFile, inputs: &[Port], outputs: &[Port]) -> Result<Self> {
        let model = load(file, true)?.map_err(|e| match e.kind() {
            LoadErrorKind::OperatorInvalid => operators::lacking(file, &e),
            _ => model_error("TB0336", file.name(), "rten can't load it").with_source(e),
        })?;
        let find = |port: &Port| {
            model.find_node(&port.name).ok_or_else(|| {
                model_error("TB0336", file.name(), format!("rten has no value `{}` in it", port.name))
            })
        };
        let ids = |ports: &[Port]| ports.iter().map(&find).collect::<Result<Vec<_>>>();
        let (input_ids, output_ids) = (ids(inputs)?, ids(outputs)?);
        Ok(RtenSession {
            name: file.name().to_owned(),
            inputs: inputs.iter().map(|port| port.name.clone()).zip(input_ids).collect(),
            outputs: outputs.iter().cloned().zip(output_ids.iter().copied()).collect(),
            output_ids,
            model,
        })
    }

    fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Inference, "TB0342", format!("model {}: {what}", self.name))
    }

    fn execute(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>> {
        let mut values = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            let id = self.inputs.iter().find(|(own, _)| &**own == *name).map(|(_, id)| *id);
            let id = id.ok_or_else(|| self.error(format!("it has no input `{name}`")))?;
            values.push((id, self.value(name, tensor)?));
        }
        let pool = Borrowed::new();
        let options = RunOptions::default().with_thread_pool(Some(pool.0.clone()));
        let results = self
            .model
            .run(values, &self.output_ids, Some(options))
            .map_err(|e| self.error("rten failed on the batch").with_source(e))?;
        results.into_iter().zip(&self.outputs).map(|(value, (port, _))| self.tensor(value, port)).collect()
    }

    /// A tensor as rten takes it; numbers of a width that rten has are not copied.
    fn value<'a>(&self, name: &str, tensor: &'a Tensor) -> Result<ValueOrView<'a>> {
        let shape = tensor.shape();
        let unfit = |e: &dyn std::fmt::Display| self.error(format!("input {name}: {e}"));
        macro_rules! view {
            ($buffer:expr) => {
                ValueView::from_shape(&shape[..], $buffer.as_slice())
                    .map(ValueOrView::from)
                    .map_err(|e| unfit(&e))
            };
        }
        macro_rules! owned {
            ($values:expr) => {
                Value::from_shape(&shape[..], $values).map(ValueOrView::from).map_err(|e| unfit(&e))
            };
        }
        match tensor.data() {
            TensorData::F32(b) => view!(b),
            TensorData::I32(b) => view!(b),
            TensorData::I8(b) => view!(b),
            TensorData::U8(b) => view!(b),
            TensorData::Bool(b) => owned!(b.as_slice().iter().map(|v| i32::from(*v)).collect::<Vec<_>>()),
            TensorData::F64(b) => owned!(b.as_slice().iter().map(|v| *v as f32).collect::<Vec<_>>()),
            TensorData::I64(b) => {
                let mut narrow = Vec::with_capacity(b.as_slice().len());
                for value in b.as_slice() {
                    narrow.push(i32::try_from(*value).map_err(|_| {
                        self.error(format!(
                            "input {name}: {value} is too large for rten, which has int32 only"
                        ))
                        .with_help("use `engine: ort`")
                    })?);
                }
                owned!(narrow)
            }
            TensorData::Str(_) => {
                Err(self.error(format!("input {name}: rten has no strings")).with_help("use `engine: ort`"))
            }
        }
    }

    /// What rten gave, in the dtype that the model declares.
    fn tensor(&self, value: Value, port: &Port) -> Result<Tensor> {
        let shape = value.shape().to_vec();
        match (value, port.dtype) {
            (Value::FloatTensor(t), Some(DType::F64)) => {
                Tensor::new(&shape, t.into_data().into_iter().map(f64::from).collect())
            }
            (Value::FloatTensor(t), _) => Tensor::new(&shape, t.into_data()),
            (Value::Int32Tensor(t), Some(DType::I64)) => {
                Tensor::new(&shape, t.into_data().into_iter().map(i64::from).collect())
            }
            (Value::Int32Tensor(t), Some(DType::Bool)) => {
                Tensor::new(&shape, t.into_data().into_iter().map(|v| v != 0).collect())
            }
            (Value::Int32Tensor(t), _) => Tensor::new(&shape, t.into_data()),
            (Value::Int8Tensor(t), _) => Tensor::new(&shape, t.into_data()),
            (Value::UInt8Tensor(t), _) => Tensor::new(&shape, t.into_data()),
            (other, _) => {
                Err(self.error(format!("output {} is a {:?}, not a tensor", port.name, other.dtype())))
            }
        }
    }
}

impl Session for RtenSession {
    fn run(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>> {
        guarded(&self.name, "rten", || self.execute(inputs))
    }
}
