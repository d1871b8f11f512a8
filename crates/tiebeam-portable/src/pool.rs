//! A worker pool: starts workers when an engine asks, in this process (loopback) or as processes of their own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_graph::Graph;
use tiebeam_model::fn_api::beam_fn_external_worker_pool_server::{
    BeamFnExternalWorkerPool, BeamFnExternalWorkerPoolServer,
};
use tiebeam_model::fn_api::{StartWorkerRequest, StartWorkerResponse, StopWorkerRequest, StopWorkerResponse};
use tiebeam_worker::{Recipes, Steps, WorkerOptions};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::guard::Guard;
use crate::wire::runtime;
use crate::worker::{BuildSteps, StopWorker, WorkerArgs, run_worker_with};

/// What a pool's workers are.
#[derive(Clone)]
pub enum PoolWorkers {
    /// Threads of this process: they share its models.
    Threads {
        /// How the pipeline is built.
        build: Arc<BuildSteps>,
        /// How the workers behave.
        options: WorkerOptions,
    },
    /// Threads of this process that run only what the library offers to pipelines of other languages.
    Recipes {
        /// How their steps are made.
        recipes: Arc<dyn Recipes>,
        /// How the workers behave.
        options: WorkerOptions,
    },
    /// Processes: a program that is given Beam's flags after these arguments.
    Processes {
        /// The program.
        program: PathBuf,
        /// What comes before the flags.
        arguments: Vec<String>,
    },
}

/// A worker pool that listens until it is dropped.
pub struct WorkerPool {
    address: SocketAddr,
    workers: Arc<Workers>,
    stop: Option<oneshot::Sender<()>>,
}

struct Workers {
    kind: PoolWorkers,
    /// By the workers' ids.
    running: Mutex<HashMap<String, Namesakes>>,
    /// The first error that a worker of this process ended with.
    failed: Mutex<Option<Error>>,
}

enum Running {
    Thread(StopWorker, JoinHandle<()>),
    Process(Child),
}

/// The workers of one id. Machines of one engine that share a pool count their workers each for itself, so several have the
/// same id, and a request to stop one does not say whose.
///
/// Every worker that was started is stopped once by its engine, so one that ended before (it was killed, say) is kept until
/// then: else its engine's request would stop somebody else's worker. While several run, none is stopped: the one that is
/// meant ends by itself, as its engine closes the stream of its instructions.
#[derive(Default)]
struct Namesakes {
    /// With the address that its instructions come from.
    workers: Vec<(String, Running)>,
    /// Requests that could not be told apart; ended workers that they may have meant are forgotten.
    owed: usize,
}

impl Namesakes {
    /// Forgets those whose end was asked for.
    fn settle(&mut self) {
        while self.owed > 0
            && let Some(at) = self.workers.iter_mut().position(|(_, worker)| worker.has_ended())
        {
            self.workers.swap_remove(at);
            self.owed -= 1;
        }
    }

    /// The worker that a request to stop one means, if that is clear and it has not ended.
    fn stopped(&mut self) -> Option<Running> {
        self.settle();
        if let Some(at) = self.workers.iter_mut().position(|(_, worker)| worker.has_ended()) {
            self.workers.swap_remove(at);
            return None;
        }
        match self.workers.len() {
            0 => None,
            1 => self.workers.pop().map(|(_, worker)| worker),
            _ => {
                self.owed += 1;
                None
            }
        }
    }
}

impl WorkerPool {
    /// Listens at `address`: `127.0.0.1:0` for any free port of this machine only.
    ///
    /// # Errors
    /// When the address can't be listened at, or others can reach it.
    pub fn start(address: SocketAddr, kind: PoolWorkers) -> Result<WorkerPool> {
        WorkerPool::start_guarded(address, kind, &Guard::default())
    }

    /// As [`start`](WorkerPool::start), for those whom the guard lets in.
    ///
    /// # Errors
    /// When the address can't be listened at, or others can reach it and nothing keeps them out.
    pub fn start_guarded(address: SocketAddr, kind: PoolWorkers, guard: &Guard) -> Result<WorkerPool> {
        guard.check(address)?;
        let runtime = runtime()?;
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Io, "TB0716", format!("a worker pool cannot listen at {address}"))
                .with_source(error)
        };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let workers = Arc::new(Workers { kind, running: Mutex::default(), failed: Mutex::default() });
        let (stop, stopped) = oneshot::channel();
        let service =
            BeamFnExternalWorkerPoolServer::with_interceptor(Service(workers.clone()), guard.door());
        let mut server = guard.server()?;
        runtime.spawn(async move {
            let stopped = async {
                // Dropping the sender says the same.
                let _ = stopped.await;
            };
            // A server that fails is seen by the engine, which can't start workers then.
            let _ = server
                .add_service(service)
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped)
                .await;
        });
        Ok(WorkerPool { address, workers, stop: Some(stop) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The first error that a worker of this process ended with, if any did.
    pub fn worker_error(&self) -> Option<Error> {
        lock(&self.workers.failed).take()
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        drop(self.stop.take());
        let running = std::mem::take(&mut *lock(&self.workers.running));
        let workers = running.into_values().flat_map(|namesakes| namesakes.workers);
        workers.for_each(|(_, worker)| worker.stop());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    fn has_ended(&mut self) -> bool {
        match self {
            Running::Process(child) => matches!(child.try_wait(), Ok(Some(_))),
            Running::Thread(_, thread) => thread.is_finished(),
        }
    }

    fn stop(self) {
        match self {
            Running::Thread(stop, thread) => {
                stop.stop();
                // A worker that panicked has told the engine already.
                let _ = thread.join();
            }
            Running::Process(mut child) => {
                // It may have gone by itself.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

impl Workers {
    fn start(self: &Arc<Self>, request: &StartWorkerRequest) -> std::result::Result<(), String> {
        let args = WorkerArgs::of_request(request);
        let control = args.control.clone();
        let mut running = lock(&self.running);
        let namesakes = running.entry(args.id.clone()).or_default();
        namesakes.settle();
        if namesakes.workers.iter_mut().any(|(from, worker)| *from == control && !worker.has_ended()) {
            return Err(format!("worker `{}` of {control} is running already", args.id));
        }
        let worker = match &self.kind {
            PoolWorkers::Threads { build, options } => self.thread(args, *options, None, build.clone())?,
            PoolWorkers::Recipes { recipes, options } => self.thread(
                args,
                *options,
                Some(recipes.clone()),
                Arc::new(|_| Ok(Steps::new(Arc::new(Graph::empty())))),
            )?,
            PoolWorkers::Processes { program, arguments } => {
                let child = Command::new(program)
                    .args(arguments)
                    .args(args.to_flags())
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .spawn();
                Running::Process(child.map_err(|error| {
                    format!("the worker's program {} cannot be started: {error}", program.display())
                })?)
            }
        };
        namesakes.workers.push((control, worker));
        Ok(())
    }

    fn thread(
        self: &Arc<Self>,
        args: WorkerArgs,
        options: WorkerOptions,
        recipes: Option<Arc<dyn Recipes>>,
        build: Arc<BuildSteps>,
    ) -> std::result::Result<Running, String> {
        let (stop, workers) = (StopWorker::default(), self.clone());
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name(format!("worker {}", args.id)).spawn(move || {
            if let Err(error) = run_worker_with(args, options, &stopped, recipes, |options| build(options)) {
                lock(&workers.failed).get_or_insert(error);
            }
        });
        Ok(Running::Thread(stop, thread.map_err(|error| format!("no thread for a worker: {error}"))?))
    }

    fn stop(&self, id: &str) {
        let worker = lock(&self.running).get_mut(id).and_then(Namesakes::stopped);
        if let Some(worker) = worker {
            worker.stop();
        }
    }
}

struct Service(Arc<Workers>);

#[tonic::async_trait]
impl BeamFnExternalWorkerPool for Service {
    async fn start_worker(
        &self,
        request: Request<StartWorkerRequest>,
    ) -> std::result::Result<Response<StartWorkerResponse>, Status> {
        let error = self.0.start(request.get_ref()).err().unwrap_or_default();
        Ok(Response::new(StartWorkerResponse { error }))
    }

    async fn stop_worker(
        &self,
        request: Request<StopWorkerRequest>,
    ) -> std::result::Result<Response<StopWorkerResponse>, Status> {
        let workers = self.0.clone();
        // Waits for the worker's end: not on the threads of the network.
        let id = request.into_inner().worker_id;
        let stopped = tokio::task::spawn_blocking(move || workers.stop(&id)).await;
        let error = stopped.err().map(|error| error.to_string()).unwrap_or_default();
        Ok(Response::new(StopWorkerResponse { error }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive() -> Running {
        Running::Process(Command::new("cat").stdin(Stdio::piped()).spawn().unwrap())
    }

    fn ended() -> Running {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        Running::Process(child)
    }

    fn namesakes(workers: Vec<Running>) -> Namesakes {
        Namesakes { workers: workers.into_iter().map(|worker| (String::new(), worker)).collect(), owed: 0 }
    }

    #[test]
    fn a_killed_worker_is_not_mistaken_for_its_namesake() {
        let mut both = namesakes(vec![alive(), ended()]);
        assert!(both.stopped().is_none(), "the dead one was meant");
        let last = both.stopped().expect("only one is left");
        last.stop();
        assert!(both.stopped().is_none());
    }

    #[test]
    fn a_request_that_was_not_clear_counts_for_the_next_that_ends() {
        let mut both = namesakes(vec![alive(), alive()]);
        assert!(both.stopped().is_none());
        assert_eq!((both.owed, both.workers.len()), (1, 2));
        if let (_, Running::Process(child)) = &mut both.workers[0] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        both.stopped().expect("the other one").stop();
        assert_eq!((both.owed, both.workers.len()), (0, 0));
    }
}
