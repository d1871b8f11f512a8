//! The worker on its wires: control, data, state, logging, provisioning, artifacts, status.

mod args;
mod elements;
pub(crate) mod logging;
mod state;
mod status;

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_model::fn_api::beam_fn_control_client::BeamFnControlClient;
use tiebeam_model::fn_api::instruction_request::Request;
use tiebeam_model::fn_api::log_entry::severity;
use tiebeam_model::fn_api::provision_service_client::ProvisionServiceClient;
use tiebeam_model::fn_api::{
    Elements, GetProcessBundleDescriptorRequest, GetProvisionInfoRequest, InstructionRequest,
    InstructionResponse, ProcessBundleDescriptor, ProvisionInfo, RemoteGrpcPort, StateRequest, StateResponse,
};
use tiebeam_model::{Message, urns};
use tiebeam_worker::{FnApi, Recipes, Steps, Worker, WorkerOptions};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

pub use args::WorkerArgs;

use crate::artifacts;
use crate::options::JobOptions;
use crate::wire::{Identity, connect, refused, runtime};
use elements::DataStreams;
use logging::WorkerLog;
use state::StateStreams;
use status::Doing;

/// Builds the pipeline from the job's options: what a program does again in each worker. The steps know which options they
/// were built with, so that a worker that was given others is refused.
pub type BuildSteps = dyn Fn(&JobOptions) -> Result<Steps> + Send + Sync;

type Control = BeamFnControlClient<InterceptedService<Channel, Identity>>;

/// Lets somebody else end a worker that runs in this process.
#[derive(Clone, Default)]
pub struct StopWorker(Arc<tokio::sync::Notify>);

impl StopWorker {
    /// Ends it; bundles that run are given up.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

/// Runs a worker until its engine lets it go.
///
/// Bundles run on threads of their own, as many at a time as the engine asks for; all share the process's models. A
/// pipeline that can't be built is no reason to go: each instruction is answered with why, so that the job's owner sees it.
///
/// `build` is called once, on this thread, before the first bundle.
///
/// # Errors
/// When the engine can't be reached, or its control stream breaks in the middle of a bundle.
pub fn run_worker(
    args: WorkerArgs,
    options: WorkerOptions,
    stop: &StopWorker,
    build: impl FnOnce(&JobOptions) -> Result<Steps>,
) -> Result<()> {
    run_worker_with(args, options, stop, None, build)
}

/// As [`run_worker`], for a worker that can also make steps of the library that pipelines of other languages use.
///
/// # Errors
/// As [`run_worker`].
pub fn run_worker_with(
    mut args: WorkerArgs,
    options: WorkerOptions,
    stop: &StopWorker,
    recipes: Option<Arc<dyn Recipes>>,
    build: impl FnOnce(&JobOptions) -> Result<Steps>,
) -> Result<()> {
    let runtime = runtime()?;
    let identity = Identity::of_worker(&args.id)?;
    let mut info = ProvisionInfo::default();
    if !args.provision.is_empty() {
        info = runtime.block_on(provision(&args.provision, identity.clone()))?;
        args.complete(&info);
    }
    if args.control.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "TB0709",
            format!("worker `{}` was not told where its instructions come from", args.id),
        )
        .with_help("it takes --control_endpoint, or a --provision_endpoint that knows it"));
    }
    let log = match args.logging.as_str() {
        "" => WorkerLog::to_stderr(&args.id),
        address => WorkerLog::to_runner(&args.id, identity.clone(), address),
    };
    logging::install();
    // What this engine takes beyond what every engine does.
    let can = |urn: &str| info.runner_capabilities.iter().any(|capability| capability == urn);
    let options = WorkerOptions {
        embed_output: options.embed_output || can(urns::protocol::CONTROL_RESPONSE_ELEMENTS_EMBEDDING),
        short_ids_only: options.short_ids_only || can(urns::protocol::MONITORING_INFO_SHORT_IDS),
        data_sampling: options.data_sampling || wants_samples(args.options.as_ref()),
        ..options
    };
    let worker = prepare(&args, &info, build).map(|steps| Worker::of(steps, recipes, options));
    match &worker {
        Ok(_) => log.write(severity::Enum::Info, &format!("worker {} is ready", args.id), ""),
        Err(error) => log.write(severity::Enum::Error, &format!("{error:?}"), ""),
    }
    let doing = Arc::new(Doing::default());
    if !args.status.is_empty() {
        status::serve(&args.status, identity.clone(), doing.clone())?;
    }
    let ended = runtime.block_on(async {
        let channel = connect("the runner's control service", &args.control).await?;
        let serve = serve(channel, identity, worker, log.clone(), doing);
        tokio::select! {
            ended = serve => ended,
            () = stop.0.notified() => Ok(()),
        }
    });
    log.close();
    ended
}

/// Whether the job was submitted with Beam's experiment `enable_data_sampling`.
fn wants_samples(options: Option<&JobOptions>) -> bool {
    let experiments = options.and_then(|options| options.get("experiments")).and_then(|all| all.as_array());
    experiments.is_some_and(|all| all.iter().any(|one| one == "enable_data_sampling"))
}

async fn provision(address: &str, identity: Identity) -> Result<ProvisionInfo> {
    let channel = connect("the runner's provisioning service", address).await?;
    let mut client =
        ProvisionServiceClient::with_interceptor(channel, identity).max_decoding_message_size(usize::MAX);
    let answer = client.get_provision_info(GetProvisionInfoRequest {}).await;
    Ok(answer.map_err(refused("asking for the job's options"))?.into_inner().info.unwrap_or_default())
}

/// Fetches the job's files and builds its pipeline.
fn prepare(
    args: &WorkerArgs,
    info: &ProvisionInfo,
    build: impl FnOnce(&JobOptions) -> Result<Steps>,
) -> Result<Steps> {
    if !args.artifact.is_empty() && !info.dependencies.is_empty() {
        let folder = args.semi_persist_dir.as_deref();
        artifacts::fetch_files(&args.artifact, &args.id, &info.dependencies, folder)?;
    }
    let options = args.options.clone().unwrap_or_default();
    // Building is user code.
    let built = catch_unwind(AssertUnwindSafe(|| build(&options)));
    built.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it says nothing");
        Err(Error::new(
            ErrorKind::InvalidPipeline,
            "TB0718",
            format!("the program panicked while it built the pipeline in a worker: {said}"),
        ))
    })
}

/// What all bundles of a worker share.
struct Shared {
    control: Control,
    data: DataStreams,
    state: StateStreams,
    /// Where the state of each stage is, by its descriptor's id.
    state_urls: Mutex<HashMap<String, String>>,
    /// The engine has gone, or has let the worker go.
    ended: AtomicBool,
    running: AtomicUsize,
}

/// The runner, as one instruction reaches it.
struct Instruction {
    shared: Arc<Shared>,
    /// The stage that it is about; empty where it is about none.
    descriptor: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FnApi for Instruction {
    fn descriptor(&self, id: &str) -> Result<ProcessBundleDescriptor> {
        let mut control = self.shared.control.clone();
        let request = GetProcessBundleDescriptorRequest { process_bundle_descriptor_id: id.to_owned() };
        let answer = runtime()?.block_on(control.get_process_bundle_descriptor(request));
        let descriptor = answer.map_err(refused("asking for a stage"))?.into_inner();
        if let Some(state) = &descriptor.state_api_service_descriptor {
            lock(&self.shared.state_urls).insert(id.to_owned(), state.url.clone());
        }
        // Java's engines hear of a bundle's failure only once the streams of its elements are there: they wait three
        // minutes for one. A stage that can't even be made would open none.
        for url in data_urls(&descriptor) {
            self.shared.data.open(&url)?;
        }
        Ok(descriptor)
    }

    fn state(&self, request: StateRequest) -> Result<StateResponse> {
        let url = lock(&self.shared.state_urls).get(&self.descriptor).cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "TB0710",
                format!("the runner names no state service for stage `{}`", self.descriptor),
            )
        })?;
        self.shared.state.ask(&url, request)
    }

    fn receive(&self, instruction_id: &str, url: &str) -> Result<Elements> {
        self.shared.data.receive(instruction_id, url)
    }

    fn send(&self, url: &str, elements: Elements) -> Result<()> {
        self.shared.data.send(url, elements)
    }

    fn is_cancelled(&self, _: &str) -> bool {
        self.shared.ended.load(Ordering::Relaxed)
    }
}

/// Where the elements of a stage come from and go.
fn data_urls(descriptor: &ProcessBundleDescriptor) -> BTreeSet<String> {
    let ports = descriptor.transforms.values().filter_map(|transform| transform.spec.as_ref());
    let ports = ports.filter(|spec| {
        [urns::transform::DATA_SOURCE, urns::transform::DATA_SINK].contains(&spec.urn.as_str())
    });
    // What is damaged is told when the stage is made.
    let ports = ports.filter_map(|spec| RemoteGrpcPort::decode(spec.payload.as_ref()).ok());
    ports.filter_map(|port| Some(port.api_service_descriptor?.url)).collect()
}

/// Answers instructions until the engine closes the stream.
async fn serve(
    channel: Channel,
    identity: Identity,
    worker: Result<Worker>,
    log: WorkerLog,
    doing: Arc<Doing>,
) -> Result<()> {
    let mut control = BeamFnControlClient::with_interceptor(channel, identity.clone())
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    let shared = Arc::new(Shared {
        control: control.clone(),
        data: DataStreams::new(identity.clone()),
        state: StateStreams::new(identity),
        state_urls: Mutex::default(),
        ended: AtomicBool::new(false),
        running: AtomicUsize::new(0),
    });
    let worker = Arc::new(worker);
    let (answers, outgoing) = mpsc::unbounded_channel();
    let mut requests = control
        .control(UnboundedReceiverStream::new(outgoing))
        .await
        .map_err(refused("the control stream"))?
        .into_inner();
    let ended = loop {
        match requests.message().await {
            Ok(Some(request)) => {
                let (worker, shared, log) = (worker.clone(), shared.clone(), log.clone());
                let (answers, doing) = (answers.clone(), doing.clone());
                tokio::task::spawn_blocking(move || {
                    let response = answer(&worker, &shared, request, &log, &doing);
                    // The engine has gone: nobody is left to be told.
                    let _ = answers.send(response);
                });
            }
            Ok(None) => break Ok(()),
            // Engines that stop tear connections down; that is an error only for a bundle that runs.
            Err(_) if shared.running.load(Ordering::SeqCst) == 0 => break Ok(()),
            Err(status) => break Err(refused("the control stream")(status)),
        }
    };
    shared.ended.store(true, Ordering::SeqCst);
    ended
}

/// Answers one instruction, on a thread for blocking work.
fn answer(
    worker: &Result<Worker>,
    shared: &Arc<Shared>,
    request: InstructionRequest,
    log: &WorkerLog,
    doing: &Doing,
) -> InstructionResponse {
    let id = request.instruction_id.clone();
    let _working = logging::working_on(log, &id);
    let descriptor = match &request.request {
        Some(Request::ProcessBundle(bundle)) => Some(bundle.process_bundle_descriptor_id.clone()),
        _ => None,
    };
    let is_bundle = descriptor.is_some();
    let descriptor = descriptor.unwrap_or_default();
    let _doing = is_bundle.then(|| {
        shared.running.fetch_add(1, Ordering::SeqCst);
        doing.begin(&id, &descriptor)
    });
    let api: Arc<dyn FnApi> =
        Arc::new(Instruction { shared: shared.clone(), descriptor: descriptor.clone() });
    let response = match worker {
        Ok(worker) => worker.handle(request, &api),
        Err(error) => {
            if is_bundle {
                // For its streams; what is wrong with the worker is more than what may be wrong with the stage.
                let _ = api.descriptor(&descriptor);
            }
            InstructionResponse { instruction_id: id.clone(), error: format!("{error:?}"), response: None }
        }
    };
    if is_bundle {
        shared.data.forget(&id);
        shared.running.fetch_sub(1, Ordering::SeqCst);
    }
    if !response.error.is_empty() {
        log.write(severity::Enum::Error, &response.error, "");
    }
    response
}
