//! Engines: what runs a model. One small trait, two of them, and the rule that chooses.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_inference::Tensor;

use crate::file::{ModelFile, model_error};
use crate::library::{self, Found};
use crate::{ort_engine, rten_engine};
use tiebeam_inference::Port;

/// A model in an engine, ready to run. Shared by all threads: each call runs on one thread, many calls at once.
pub trait Session: Send + Sync {
    /// Runs the model once. `inputs` has every input of the model by name, in its dtype and a shape that it admits.
    ///
    /// Gives one tensor for each output that the session was opened for, in that order.
    ///
    /// # Errors
    /// Of kind [`Inference`](ErrorKind::Inference) with the engine's own words underneath.
    fn run(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>>;
}

/// Which engine runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Engine {
    /// ONNX Runtime where its library is found, else rten.
    #[default]
    Auto,
    /// rten: pure Rust, always there, without RoiAlign, ai.onnx.ml and custom operators.
    Rten,
    /// ONNX Runtime, from its shared library.
    Ort,
}

impl Engine {
    /// The name in configurations: `auto`, `rten`, `ort`.
    pub const fn name(self) -> &'static str {
        match self {
            Engine::Auto => "auto",
            Engine::Rten => "rten",
            Engine::Ort => "ort",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Engine {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Engine::Auto, Engine::Rten, Engine::Ort].into_iter().find(|engine| engine.name() == text).ok_or_else(
            || {
                Error::new(
                    ErrorKind::InvalidArgument,
                    "TB0334",
                    format!("engine is auto, rten or ort, got `{text}`"),
                )
            },
        )
    }
}

/// How models are run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// The engine; one that is named is used or refused.
    pub engine: Engine,
    /// ONNX Runtime's library, or the directory that has it. Default: looked for (see
    /// [`find_onnxruntime`](crate::find_onnxruntime)).
    pub ort_dylib: Option<PathBuf>,
    /// ONNX Runtime's execution providers by their names (`CUDAExecutionProvider`), in order of preference. One that
    /// is named and not available is refused. Default: the CPU.
    pub providers: Vec<String>,
}

/// The provider that every engine has.
pub(crate) const CPU: &str = "CPUExecutionProvider";

impl EngineOptions {
    /// What computes on that engine, for reports: an execution provider, in the order of preference the first.
    pub(crate) fn device(&self, engine: Engine) -> String {
        match (engine, self.providers.first()) {
            (Engine::Ort, Some(provider)) => provider.clone(),
            _ => CPU.to_owned(),
        }
    }

    /// These options with that engine.
    pub fn with_engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    fn wants_providers(&self) -> bool {
        self.providers.iter().any(|provider| provider != CPU)
    }

    /// Which engine the rule chooses, with ONNX Runtime's library where that is it.
    ///
    /// # Errors
    /// When an engine or a library is named that can't be had, or providers that the engine has not.
    pub(crate) fn choose(&self) -> Result<Option<Found>> {
        let needs_ort = self.engine == Engine::Ort || self.wants_providers();
        if self.engine == Engine::Rten {
            return match self.wants_providers() {
                false => Ok(None),
                true => Err(Error::new(
                    ErrorKind::Unsupported,
                    "TB0337",
                    format!("engine rten runs on the CPU, it has no {}", self.providers.join(", ")),
                )
                .with_help("leave `providers` out, or set `engine: ort`")),
            };
        }
        match library::find_onnxruntime(self.ort_dylib.as_deref()) {
            Ok(found) => Ok(Some(found)),
            Err(missing) if needs_ort || missing.was_asked_for() => Err(missing.into_error()),
            Err(_) => Ok(None),
        }
    }
}

/// Opens a model in the engine that the options say, for those outputs. The file is let go as soon as the engine has its own
/// form of it, so that large weights are not there twice.
///
/// # Errors
/// Of kind [`Model`](ErrorKind::Model) or [`Unsupported`](ErrorKind::Unsupported): what the engine lacks, and which one
/// has it.
pub(crate) fn open(
    file: ModelFile,
    inputs: &[Port],
    outputs: &[Port],
    options: &EngineOptions,
) -> Result<(Engine, Arc<dyn Session>)> {
    match options.choose()? {
        Some(library) => {
            let name = file.name().to_owned();
            let session = guarded(&name, "ONNX Runtime", || {
                ort_engine::OrtSession::open(file, outputs, &library, &options.providers)
            })?;
            Ok((Engine::Ort, Arc::new(session)))
        }
        None => {
            let session =
                guarded(file.name(), "rten", || rten_engine::RtenSession::open(&file, inputs, outputs));
            session.map(|session| (Engine::Rten, Arc::new(session) as Arc<dyn Session>))
        }
    }
}

/// Runs an engine's code: a panic in it becomes an error.
pub(crate) fn guarded<T>(model: &str, engine: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    // What the engine held is dropped with the failed call, or is only read: nothing half-changed is seen again.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_owned());
        Err(model_error("TB0344", model, format!("{engine} panicked: {text}"))
            .with_help("the file is damaged, or this is a bug of the engine; the other engine may run it"))
    })
}
