//! Being the process of a model: what this program does when a job started it for that.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread;

use tiebeam_core::Element;
use tiebeam_core::coder::Reader;
use tiebeam_core::error::{Error, ErrorKind, Result};
use tiebeam_graph::MODEL_PROCESS;

use super::confine::{Bounds, confine};
use super::wire::{Answer, Ask, Hello, Task, put_answer, read_frame, take_ask, write_frame};
use crate::call::guarded;
use crate::handler::{InferenceArgs, ModelHandler, Predictions};
use crate::model::panicked_loading;

/// What this process is for, and where it hears more.
struct Wanted {
    hello: Hello,
    stream: Mutex<Option<UnixStream>>,
}

/// What a job wants of this process, if one started it for a model.
fn wanted() -> Option<&'static Wanted> {
    static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        std::env::var_os(MODEL_PROCESS)?;
        let own = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
        let stream = UnixStream::from(own);
        let hello = Hello::of_bytes(read_frame(&stream).ok()??).ok()?;
        Some(Wanted { hello, stream: Mutex::new(Some(stream)) })
    });
    wanted.as_ref()
}

/// Whether a job started this process to hold a model of its pipeline.
pub fn is_model_process() -> bool {
    std::env::var_os(MODEL_PROCESS).is_some()
}

/// The options of the job that started this process for a model, in the words of [`rebuild_by`](super::rebuild_by): a program builds its
/// pipeline from them, and the model's step takes over.
pub fn job_options() -> Option<Vec<u8>> {
    match &wanted()?.hello.task {
        Task::Placed { job, .. } => Some(job.as_ref()?.to_vec()),
        Task::Described(_) => None,
    }
}

/// What this process is to hold, in the words of [`Isolated::described`](super::Isolated::described).
pub fn description() -> Option<Vec<u8>> {
    match &wanted()?.hello.task {
        Task::Described(words) => Some(words.to_vec()),
        Task::Placed { .. } => None,
    }
}

/// Whether this process is for the model at that place, which is the `nth` of the process.
pub(super) fn is_for(place: &str, nth: u64) -> bool {
    let Some(wanted) = wanted() else { return false };
    matches!(&wanted.hello.task, Task::Placed { place: own, nth: own_nth, .. }
        if own == place && own_nth.is_none_or(|own| own == nth))
}

/// Holds the handler's model for the job until that lets it go, and ends this process.
pub(super) fn serve<H: ModelHandler>(handler: Arc<H>, args: InferenceArgs, bounds: &Bounds) -> ! {
    let stream = wanted().and_then(|wanted| {
        let stream = wanted.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.map(|stream| (stream, &wanted.hello))
    });
    let served = match stream {
        Some((stream, hello)) => {
            confine(bounds, Path::new(&hello.scratch)).and_then(|()| hold(handler, args, &stream))
        }
        None => Err(Error::internal("the process of a model was asked twice")),
    };
    end(served)
}

/// Ends this process, which can't do what it is for.
pub fn give_up(error: Error) -> ! {
    end(Err(error))
}

fn end(served: Result<()>) -> ! {
    if let Err(error) = &served {
        // Whoever started it hears of it by this alone.
        let _ = writeln!(std::io::stderr(), "{error:?}");
    }
    std::process::exit(i32::from(served.is_err()))
}

/// One thread at a time takes a request from here.
type Requests<E> = Mutex<Receiver<(u64, Ask<E>)>>;

struct Holder<H: ModelHandler> {
    handler: Arc<H>,
    args: InferenceArgs,
    model: RwLock<Option<H::Model>>,
    to: Mutex<UnixStream>,
    /// Threads that wait for a request.
    idle: Mutex<usize>,
}

fn hold<H: ModelHandler>(handler: Arc<H>, args: InferenceArgs, stream: &UnixStream) -> Result<()> {
    let to = Mutex::new(stream.try_clone()?);
    let holder = Arc::new(Holder { handler, args, model: RwLock::new(None), to, idle: Mutex::new(0) });
    let (give, take): (Sender<(u64, Ask<H::Example>)>, _) = channel();
    let take = Arc::new(Mutex::new(take));
    let coder = H::Example::coder();
    while let Some(frame) = read_frame(stream)? {
        let mut input = Reader::new(frame);
        let id = u64::from_le_bytes(input.array()?);
        let ask = match take_ask(&coder, &mut input) {
            Ok(ask) => ask,
            Err(error) => {
                holder.answer(id, Err(error))?;
                continue;
            }
        };
        {
            let mut idle = holder.idle.lock().unwrap_or_else(PoisonError::into_inner);
            match idle.checked_sub(1) {
                Some(less) => *idle = less,
                None => {
                    let (holder, take) = (holder.clone(), take.clone());
                    thread::Builder::new()
                        .name("tiebeam-model".to_owned())
                        .spawn(move || holder.work(&take))?;
                }
            }
        }
        // The threads that take them do not end before this one.
        let _ = give.send((id, ask));
    }
    Ok(())
}

impl<H: ModelHandler> Holder<H> {
    /// Answers one request after the other.
    fn work(&self, requests: &Requests<H::Example>) {
        loop {
            let request = requests.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((id, ask)) = request else { return };
            let answer = match ask {
                Ask::Load(version) => self.load(version.as_ref()),
                Ask::Predict(batch) => self.predict(&batch).map(Answer::Predicted),
            };
            if self.answer(id, answer).is_err() {
                return;
            }
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
    }

    fn answer(&self, id: u64, answer: Result<Answer<H::Inference>>) -> Result<()> {
        let coder = H::Inference::coder();
        let mut frame = id.to_le_bytes().to_vec();
        if let Err(error) = put_answer(&coder, &answer, &mut frame) {
            frame.truncate(8);
            put_answer(&coder, &Err(error), &mut frame)?;
        }
        let to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        write_frame(&*to, &frame).map_err(Error::from)
    }

    fn load(&self, version: Option<&crate::ModelMetadata>) -> Result<Answer<H::Inference>> {
        let handler = &*self.handler;
        // All of the handler's own code that a load runs.
        let (model, info, signature) = catch_unwind(AssertUnwindSafe(|| {
            let model = handler.load_cohort(0, version)?;
            let (info, signature) = (handler.model_info(&model), handler.signature(&model));
            Ok((model, info, signature))
        }))
        .unwrap_or_else(|panic| Err(panicked_loading(handler, &*panic)))?;
        *self.model.write().unwrap_or_else(PoisonError::into_inner) = Some(model);
        Ok(Answer::Loaded(info, signature))
    }

    /// What the model says; examples that can't go in are refused here, since nobody else has the model to ask.
    fn predict(&self, batch: &[H::Example]) -> Result<Predictions<H::Inference>> {
        let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
        let model = model.as_ref().ok_or_else(|| Error::internal("a model's process has none"))?;
        let handler = &*self.handler;
        let call = |batch: &[H::Example]| {
            let predicted = guarded(handler, batch.len(), || handler.predict(batch, model, &self.args));
            match predicted {
                Err(error) if handler.lacks_memory(&error) && error.kind() != ErrorKind::OutOfMemory => {
                    let lacks = Error::new(ErrorKind::OutOfMemory, error.code(), error.message());
                    Err(lacks.with_source(error))
                }
                other => other,
            }
        };
        let checked: Vec<Result<()>> = batch
            .iter()
            .map(|example| guarded(handler, 1, || handler.check_example(example, model)))
            .collect();
        if checked.iter().all(Result::is_ok) {
            return call(batch);
        }
        let fit: Vec<H::Example> =
            batch.iter().zip(&checked).filter(|(_, is)| is.is_ok()).map(|(e, _)| e.clone()).collect();
        let mut said = match fit.is_empty() {
            true => Vec::new(),
            false => match call(&fit)? {
                Predictions::All(all) => all.into_iter().map(Ok).collect(),
                Predictions::Each(each) => each,
                Predictions::Told(told) => told.into_iter().map(|one| one.map(|one| one.inference)).collect(),
            },
        }
        .into_iter();
        // Where the model gives too few, the job counts and says so.
        let each = checked.into_iter().map_while(|is| match is {
            Ok(()) => said.next(),
            Err(error) => Some(Err(error)),
        });
        Ok(Predictions::Each(each.collect()))
    }
}
