//! [`Worker`]: answers a runner's instructions.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_graph::Graph;
use tiebeam_model::fn_api::{
    FinalizeBundleResponse, HarnessMonitoringInfosResponse, InstructionRequest, InstructionResponse,
    MonitoringInfosMetadataResponse, ProcessBundleDescriptor, ProcessBundleProgressResponse,
    ProcessBundleRequest, ProcessBundleResponse, ProcessBundleSplitResponse, RegisterResponse,
    SampleDataResponse, instruction_request::Request, instruction_response::Response,
};

use crate::bundle::Instance;
use crate::cache::StateCache;
use crate::fn_api::FnApi;
use crate::harness::BundleChannel;
use crate::lower::{Lowered, lower};
use crate::payload::Steps;
use crate::recipe::{Library, Recipes};

/// How a worker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerOptions {
    /// Whether output is put into the answer and not onto the data stream: for runners that say they understand it.
    pub embed_output: bool,
    /// Bytes of one sink at which a piece is sent on the data stream, while the bundle goes on.
    pub piece: usize,
    /// The most bytes of side inputs that are kept for later bundles, as runners' cache tokens allow.
    pub cache_bytes: usize,
}

impl Default for WorkerOptions {
    /// Output on the data stream, in pieces of a mebibyte; 100 mebibytes of side inputs are kept.
    fn default() -> Self {
        WorkerOptions { embed_output: false, piece: 1 << 20, cache_bytes: 100 << 20 }
    }
}

/// A stage that is ready to run, with the wired instances that are idle.
struct Prepared {
    lowered: Lowered,
    idle: Mutex<Vec<Instance>>,
}

/// Runs bundles for a runner, any number at a time: [`handle`](Worker::handle) is called from as many threads as bundles
/// shall run at once.
///
/// Every instruction is answered. User errors and panics become the answer's `error`, with the step's name; what the bundle
/// counted until then is forgotten, and the instance that ran it is torn down.
pub struct Worker {
    library: Library,
    options: WorkerOptions,
    cache: Arc<StateCache>,
    stages: Mutex<HashMap<String, Arc<Prepared>>>,
    registered: Mutex<HashMap<String, ProcessBundleDescriptor>>,
}

impl Worker {
    /// A worker for the pipeline that this program builds.
    pub fn new(graph: Arc<Graph>, options: WorkerOptions) -> Self {
        Worker::of(Steps::new(graph), None, options)
    }

    /// A worker for a pipeline that this program built with options, see [`Steps::with_options`]; `recipes` makes the
    /// steps that are not of that pipeline, if any are to be run.
    pub fn of(steps: Steps, recipes: Option<Arc<dyn Recipes>>, options: WorkerOptions) -> Self {
        let library = Library::new(steps, recipes);
        let cache = Arc::new(StateCache::new(options.cache_bytes));
        Worker { library, options, cache, stages: Mutex::default(), registered: Mutex::default() }
    }

    /// The pipeline's steps.
    pub fn steps(&self) -> &Steps {
        self.library.own()
    }

    /// Answers one instruction; returns when it is done. `api` is the runner that gave it.
    pub fn handle(&self, request: InstructionRequest, api: &Arc<dyn FnApi>) -> InstructionResponse {
        let instruction_id = request.instruction_id;
        let answer = catch_unwind(AssertUnwindSafe(|| self.answer(&instruction_id, request.request, api)));
        let answer = answer.unwrap_or_else(|payload| {
            let words = payload.downcast_ref::<&str>().map(|words| (*words).to_owned());
            let words = words.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Error::internal(format!("an instruction ended in a panic: {words}")))
        });
        match answer {
            Ok(response) => {
                InstructionResponse { instruction_id, error: String::new(), response: Some(response) }
            }
            Err(error) => InstructionResponse { instruction_id, error: format!("{error:?}"), response: None },
        }
    }

    fn answer(&self, id: &str, request: Option<Request>, api: &Arc<dyn FnApi>) -> Result<Response> {
        Ok(match request {
            Some(Request::ProcessBundle(request)) => {
                Response::ProcessBundle(self.process_bundle(id, request, api)?)
            }
            Some(Request::Register(request)) => {
                let mut registered = lock(&self.registered);
                for descriptor in request.process_bundle_descriptor {
                    registered.insert(descriptor.id.clone(), descriptor);
                }
                Response::Register(RegisterResponse {})
            }
            // Nothing is held back for a commit, split off or sampled, and metrics are sent in full with each bundle, so
            // there is nothing to say: but a runner waits for the answer.
            Some(Request::ProcessBundleProgress(_)) => {
                Response::ProcessBundleProgress(ProcessBundleProgressResponse::default())
            }
            Some(Request::ProcessBundleSplit(_)) => {
                Response::ProcessBundleSplit(ProcessBundleSplitResponse::default())
            }
            Some(Request::FinalizeBundle(_)) => Response::FinalizeBundle(FinalizeBundleResponse {}),
            Some(Request::MonitoringInfos(_)) => {
                Response::MonitoringInfos(MonitoringInfosMetadataResponse::default())
            }
            Some(Request::HarnessMonitoringInfos(_)) => {
                Response::HarnessMonitoringInfos(HarnessMonitoringInfosResponse::default())
            }
            Some(Request::SampleData(_)) => Response::SampleData(SampleDataResponse::default()),
            None => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "TB0545",
                    format!("instruction `{id}` asks for something that this worker does not know"),
                ));
            }
        })
    }

    /// Runs one bundle: what [`handle`](Worker::handle) does for that instruction, with the error as it is.
    ///
    /// # Errors
    /// Those of the stage's steps, of the runner's channels and descriptors, and of elements that can't be read.
    pub fn process_bundle(
        &self,
        instruction_id: &str,
        request: ProcessBundleRequest,
        api: &Arc<dyn FnApi>,
    ) -> Result<ProcessBundleResponse> {
        let stage = self.stage(&request.process_bundle_descriptor_id, api)?;
        let idle = lock(&stage.idle).pop();
        let mut instance = match idle {
            Some(instance) => instance,
            None => Instance::new(&stage.lowered, self.options.embed_output, self.options.piece)?,
        };
        let channel = BundleChannel::new(api, instruction_id, &self.cache, &request.cache_tokens);
        let done = instance.run(channel, request.elements, &stage.lowered);
        self.cache.end_bundle(instruction_id);
        let done = done?;
        lock(&stage.idle).push(instance);
        Ok(ProcessBundleResponse {
            monitoring_infos: done.monitoring_infos,
            elements: done.embedded,
            ..ProcessBundleResponse::default()
        })
    }

    /// The stage of that id, lowered at most once.
    fn stage(&self, id: &str, api: &Arc<dyn FnApi>) -> Result<Arc<Prepared>> {
        if let Some(stage) = lock(&self.stages).get(id) {
            return Ok(stage.clone());
        }
        let registered = lock(&self.registered).get(id).cloned();
        let descriptor = match registered {
            Some(descriptor) => descriptor,
            None => api.descriptor(id).map_err(|error| {
                Error::new(ErrorKind::Io, "TB0546", format!("the runner did not tell what stage `{id}` is"))
                    .with_source(error)
            })?,
        };
        let lowered = lower(&descriptor, &self.library)?;
        let prepared = Arc::new(Prepared { lowered, idle: Mutex::default() });
        Ok(lock(&self.stages).entry(id.to_owned()).or_insert(prepared).clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
