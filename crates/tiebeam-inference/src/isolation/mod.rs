//! Models in processes of their own: [`ModelHandler::isolated`].
//!
//! The process is this program once more. It builds the same pipeline as far as the step of the model, or takes a description of the
//! model, confines itself, loads the model and answers batches over a socket. It does not outlive the job.

mod child;
mod confine;
mod process;
mod wire;

use std::ffi::OsString;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tiebeam_core::Element;
use tiebeam_core::coder::{Coder, Reader};
use tiebeam_core::error::{Error, ErrorKind, Result};

use self::confine::Bounds;
use self::process::{Ended, NoAnswer, Process};
use self::wire::{About, Answer, Task, put_batch, put_load, take_answer};
use crate::batching::{Batching, LengthFn};
use crate::call::too_slow;
use crate::env_vars::{self, EnvVars};
use crate::handler::{InferenceArgs, ModelHandler, ModelInfo, Predictions};
use crate::signature::{Port, Signature};
use crate::staged;
use crate::update::ModelMetadata;

pub use child::{description, give_up, is_model_process, job_options};

/// How a model is kept apart from the job: in a process of its own, which survives nothing but is replaced.
///
/// The process can't use the network, start programs or change files, but may read them; a folder of its own for temporary
/// files (`TMPDIR`) is the exception. It is confined by Landlock and seccomp before the model is loaded.
#[derive(Clone, Default)]
pub struct Isolation {
    bounds: Bounds,
    arguments: Option<Vec<OsString>>,
    env_vars: EnvVars,
}

impl fmt::Debug for Isolation {
    /// Values of variables may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env_vars.iter().map(|(name, _)| &**name).collect();
        let mut shown = f.debug_struct("Isolation");
        shown.field("bounds", &self.bounds).field("arguments", &self.arguments).field("env_vars", &names);
        shown.finish()
    }
}

impl Isolation {
    /// A process of its own for each copy of the model.
    pub fn process() -> Self {
        Isolation::default()
    }

    /// The process may take at most so many bytes of memory, the program's own included (of what it writes to: files that are
    /// mapped don't count). A batch for which that is too little is halved, as for any lack of memory. Default: no limit.
    #[must_use]
    pub fn with_memory_limit(mut self, bytes: u64) -> Self {
        self.bounds.memory = Some(bytes);
        self
    }

    /// Lets the process change that file, or files in that folder.
    #[must_use]
    pub fn with_writable(mut self, path: impl Into<PathBuf>) -> Self {
        self.bounds.writable.push(path.into());
        self
    }

    /// Keeps the model apart but does not confine it: for systems without Landlock and seccomp, and for models that need the network.
    #[must_use]
    pub fn trusted(mut self) -> Self {
        self.bounds.is_trusted = true;
        self
    }

    /// The process has these variables in its environment, beside those of this one.
    #[must_use]
    pub fn with_env_vars<N: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.env_vars.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Starts this program with these arguments for it. Default: the arguments that it has. A test needs it: its process is
    /// the test program with the test's own name and `--exact`.
    #[must_use]
    pub fn with_arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments = Some(arguments.into_iter().map(Into::into).collect());
        self
    }
}

/// The job's options as they travel to a model's process, if this program was told them.
static JOB: Mutex<Option<Bytes>> = Mutex::new(None);

/// Isolated models that were placed in this process.
static PLACED: AtomicU64 = AtomicU64::new(0);

/// Says from what the pipeline is built again in the process of a model, where it is [`job_options`]. A program that does not say it is
/// started as it was, and has to come to the same pipeline before it runs any other.
pub fn rebuild_by(options: impl Into<Vec<u8>>) {
    *lock(&JOB) = Some(options.into().into());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the handlers of a step are in the pipeline, for those that have to be found again in another process; and what the step says
/// of all its calls.
pub struct Places<'a> {
    pub(crate) step: &'a str,
    pub(crate) args: &'a InferenceArgs,
    pub(crate) timeout: Option<Duration>,
    handlers: usize,
    /// The variables that handlers around want in the model's environment.
    around: EnvVars,
}

impl<'a> Places<'a> {
    pub(crate) fn new(step: &'a str, args: &'a InferenceArgs, timeout: Option<Duration>) -> Self {
        Places { step, args, timeout, handlers: 0, around: Vec::new() }
    }

    /// Places handlers within one that wants these variables for them.
    pub(crate) fn within(&mut self, variables: &[(String, String)], place: impl FnOnce(&mut Self)) {
        let outer = self.around.len();
        self.around.extend_from_slice(variables);
        place(self);
        self.around.truncate(outer);
    }
}

/// What a handler learned where it was placed.
struct Placed {
    task: Task,
    timeout: Option<Duration>,
    /// The step's arguments, in words.
    args: String,
    env_vars: EnvVars,
}

/// A handler whose model is in a process of its own; made by [`ModelHandler::isolated`].
pub struct Isolated<H> {
    handler: Arc<H>,
    isolation: Isolation,
    description: Option<Bytes>,
    placed: OnceLock<Placed>,
}

impl<H: ModelHandler> Isolated<H> {
    pub(crate) fn new(handler: H, isolation: Isolation) -> Self {
        Isolated { handler: Arc::new(handler), isolation, description: None, placed: OnceLock::new() }
    }

    /// Tells the process what to hold by a description, for programs that can make the handler of it without the pipeline: they take it by
    /// [`description`], and [`serve`](Isolated::serve).
    #[must_use]
    pub fn described(mut self, description: impl Into<Vec<u8>>) -> Self {
        self.description = Some(description.into().into());
        self
    }

    /// Is the process that holds the model, until the job lets it go.
    pub fn serve(&self) -> ! {
        child::serve(self.handler.clone(), InferenceArgs::none(), &self.isolation.bounds)
    }

    fn timeout(&self) -> Option<Duration> {
        self.placed.get()?.timeout
    }

    fn load(&self, version: Option<&ModelMetadata>) -> Result<Isolate<H>> {
        let described = || self.description.clone().map(Task::Described);
        let task = self.placed.get().map(|placed| placed.task.clone()).or_else(described);
        let task = task.ok_or_else(|| Error::internal("an isolated model has no place in a pipeline"))?;
        let versions = version.map(|version| PathBuf::from(&version.model_id));
        let mut files = Vec::new();
        for named in self.handler.model_files().into_iter().chain(versions) {
            let here = staged::open(&named, None)?;
            if here != named {
                files.push((named.to_string_lossy().into_owned(), here.to_string_lossy().into_owned()));
            }
        }
        let mut env_vars = self.isolation.env_vars.clone();
        env_vars.extend(self.placed.get().into_iter().flat_map(|placed| placed.env_vars.iter().cloned()));
        for (name, value) in &env_vars {
            env_vars::possible(name, value)?;
        }
        let isolate = Isolate {
            name: self.handler.name(),
            task,
            arguments: self.isolation.arguments.clone(),
            env_vars,
            version: version.cloned(),
            files,
            coders: (H::Example::coder(), H::Inference::coder()),
            gate: RwLock::new(()),
            running: Mutex::default(),
            deaths: AtomicU64::new(0),
            about: OnceLock::new(),
        };
        isolate.process(self.timeout())?;
        Ok(isolate)
    }

    fn say(&self, batch: &[H::Example], model: &Isolate<H>) -> Result<Predictions<H::Inference>> {
        let (timeout, n) = (self.timeout(), batch.len());
        model.predict(batch, timeout).map_err(|why| match why {
            NotPredicted::Said(error) => error,
            NotPredicted::Died(process) => {
                model.died(&format!("on a batch of {n}"), &process.ended(), ErrorKind::Inference)
            }
            NotPredicted::TooSlow => too_slow(&*self.handler, n, timeout.unwrap_or_default()).with_help(
                "its process was killed, and another one loads the model; give it longer: `timeout`",
            ),
        })
    }
}

/// Why there is no prediction from another process.
enum NotPredicted {
    Said(Error),
    TooSlow,
    /// The process is gone.
    Died(Arc<Process>),
}

/// A model in a process of its own, which is replaced when it dies.
pub struct Isolate<H: ModelHandler> {
    name: String,
    task: Task,
    arguments: Option<Vec<OsString>>,
    env_vars: EnvVars,
    version: Option<ModelMetadata>,
    /// Where files are that the pipeline names in another way: the process can't fetch any.
    files: Vec<(String, String)>,
    coders: (Coder<H::Example>, Coder<H::Inference>),
    /// Many calls at once, or one that has to be alone.
    gate: RwLock<()>,
    running: Mutex<Running>,
    deaths: AtomicU64,
    about: OnceLock<About>,
}

#[derive(Default)]
struct Running {
    process: Option<Arc<Process>>,
    /// When the last start failed, and why: the next one waits, or every batch would try.
    failed: Option<(Instant, Error)>,
}

/// How long a failed start is the answer.
const PAUSE: Duration = Duration::from_secs(1);

impl<H: ModelHandler> Isolate<H> {
    /// A process that has the model.
    fn process(&self, timeout: Option<Duration>) -> Result<Arc<Process>> {
        let mut running = lock(&self.running);
        if let Some(process) = running.process.as_ref().filter(|process| !process.is_gone()) {
            return Ok(process.clone());
        }
        if let Some((_, error)) = running.failed.as_ref().filter(|(when, _)| when.elapsed() < PAUSE) {
            return Err(error.clone());
        }
        running.process = None;
        match self.start(timeout) {
            Ok(process) => {
                running.failed = None;
                running.process = Some(process.clone());
                Ok(process)
            }
            Err(error) => {
                running.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn start(&self, timeout: Option<Duration>) -> Result<Arc<Process>> {
        let arguments = self.arguments.as_deref();
        let process = Process::start(self.task.clone(), arguments, &self.env_vars, self.files.clone())?;
        let loaded = process.call(timeout, |out| {
            put_load(self.version.as_ref(), out);
            Ok(())
        });
        let answer = match loaded {
            Ok(answer) => answer,
            Err(NoAnswer::Unsayable(error)) => return Err(error),
            Err(NoAnswer::TooSlow) => {
                let message =
                    format!("{} did not load its model within {:?}", self.name, timeout.unwrap_or_default());
                return Err(Error::new(ErrorKind::Timeout, "TB0350", message)
                    .with_help("its process was killed; give it longer: `timeout`"));
            }
            Err(NoAnswer::Gone) => {
                return Err(self.died("before its model was loaded", &process.ended(), ErrorKind::Model));
            }
        };
        match take_answer(&self.coders.1, &mut Reader::new(answer))? {
            Answer::Loaded(about) => {
                let _known = self.about.set(about);
                process.is_ready();
                Ok(process)
            }
            Answer::Predicted(_) => Err(Error::internal("a load was answered by predictions")),
        }
    }

    fn died(&self, when: &str, ended: &Ended, kind: ErrorKind) -> Error {
        let kind = if ended.lacked_memory { ErrorKind::OutOfMemory } else { kind };
        let message = format!("the process of {} {} {when}", self.name, ended.how());
        let error = Error::new(kind, "TB0345", message).with_retryable(false);
        match ended.last_words() {
            Some(words) => error.with_source(words),
            None => error,
        }
    }

    /// A call among others; if the process dies in it, once more, alone in a new one: only that tells who is to blame.
    fn predict(
        &self,
        batch: &[H::Example],
        timeout: Option<Duration>,
    ) -> Result<Predictions<H::Inference>, NotPredicted> {
        {
            let _among_others = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            match self.ask(batch, timeout) {
                Err(NotPredicted::Died(_)) => {}
                answered => return answered,
            }
        }
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.ask(batch, timeout)
    }

    fn ask(
        &self,
        batch: &[H::Example],
        timeout: Option<Duration>,
    ) -> Result<Predictions<H::Inference>, NotPredicted> {
        let process = self.process(timeout).map_err(NotPredicted::Said)?;
        let answer = process.call(timeout, |out| put_batch(&self.coders.0, batch, out));
        if matches!(answer, Err(NoAnswer::Gone | NoAnswer::TooSlow)) && process.is_mourned_first() {
            self.deaths.fetch_add(1, Ordering::Relaxed);
        }
        let answer = answer.map_err(|why| match why {
            NoAnswer::Gone => NotPredicted::Died(process),
            NoAnswer::TooSlow => NotPredicted::TooSlow,
            NoAnswer::Unsayable(error) => NotPredicted::Said(error),
        })?;
        match take_answer(&self.coders.1, &mut Reader::new(answer)).map_err(NotPredicted::Said)? {
            Answer::Predicted(predictions) => Ok(predictions),
            Answer::Loaded(_) => Err(NotPredicted::Said(Error::internal("a batch was answered by a load"))),
        }
    }
}

impl<H: ModelHandler> ModelHandler for Isolated<H> {
    type Example = H::Example;
    type Inference = H::Inference;
    type Model = Isolate<H>;

    fn load_model(&self) -> Result<Isolate<H>> {
        self.load(None)
    }

    fn load_version(&self, version: &ModelMetadata) -> Result<Isolate<H>> {
        self.load(Some(version))
    }

    fn takes_updates(&self) -> bool {
        self.handler.takes_updates()
    }

    fn validate(&self) -> Result<()> {
        self.handler.validate()
    }

    fn signature(&self, model: &Isolate<H>) -> Option<Signature> {
        model.about.get()?.signature.clone()
    }

    fn takes(&self, model: &Isolate<H>) -> Option<Vec<Port>> {
        model.about.get()?.takes.clone()
    }

    fn has_counts(&self) -> bool {
        true
    }

    fn counts(&self, model: &Isolate<H>) -> Vec<(&'static str, u64)> {
        vec![("model_process_deaths", model.deaths.load(Ordering::Relaxed))]
    }

    fn run_inference(
        &self,
        batch: &[H::Example],
        model: &Isolate<H>,
        _: &InferenceArgs,
    ) -> Result<Vec<H::Inference>> {
        self.say(batch, model)?.into_all()
    }

    // The process has the arguments of its step.
    fn predict(
        &self,
        batch: &[H::Example],
        model: &Isolate<H>,
        _: &InferenceArgs,
    ) -> Result<Predictions<H::Inference>> {
        self.say(batch, model)
    }

    fn batching(&self) -> Batching {
        self.handler.batching()
    }

    fn element_size(&self, example: &H::Example) -> u64 {
        self.handler.element_size(example)
    }

    fn length_fn(&self) -> Option<LengthFn<H::Example>> {
        self.handler.length_fn()
    }

    fn copies(&self) -> usize {
        self.handler.copies()
    }

    fn num_bytes(&self, batch: &[H::Example]) -> u64 {
        self.handler.num_bytes(batch)
    }

    fn metrics_namespace(&self) -> String {
        self.handler.metrics_namespace()
    }

    fn name(&self) -> String {
        self.handler.name()
    }

    fn model_info(&self, model: &Isolate<H>) -> ModelInfo {
        model.about.get().map(|about| about.info.clone()).unwrap_or_default()
    }

    fn lacks_memory(&self, error: &Error) -> bool {
        self.handler.lacks_memory(error)
    }

    fn validate_inference_args(&self, args: &InferenceArgs) -> Result<()> {
        self.handler.validate_inference_args(args)
    }

    fn model_identity(&self) -> Option<String> {
        // Its process has the arguments and variables of one step, so those who share it have to have the same.
        let placed = self.placed.get();
        let args = placed.map(|placed| placed.args.clone()).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        (&self.isolation.env_vars, placed.map(|placed| &placed.env_vars)).hash(&mut hasher);
        let variables = hasher.finish();
        self.handler.model_identity().map(|identity| format!("{identity} isolated{args} {variables:x}"))
    }

    fn model_files(&self) -> Vec<PathBuf> {
        self.handler.model_files()
    }

    fn keeps_time(&self) -> bool {
        true
    }

    fn place(&self, places: &mut Places<'_>) {
        let place = format!("{}, model {} ({})", places.step, places.handlers, std::any::type_name::<H>());
        places.handlers += 1;
        let nth = PLACED.fetch_add(1, Ordering::SeqCst);
        if child::is_for(&place, nth) {
            child::serve(self.handler.clone(), places.args.clone(), &self.isolation.bounds);
        }
        let job = lock(&JOB).clone();
        let task = match &self.description {
            Some(words) => Task::Described(words.clone()),
            // Told the job's options or its own arguments, the program comes to this place in another way than here.
            None if job.is_some() || self.isolation.arguments.is_some() => {
                Task::Placed { place, nth: None, job }
            }
            None => Task::Placed { place, nth: Some(nth), job: None },
        };
        let args = if places.args.is_empty() { String::new() } else { format!(" with {:?}", places.args) };
        let env_vars = places.around.clone();
        let _placed_once = self.placed.set(Placed { task, timeout: places.timeout, args, env_vars });
    }
}
