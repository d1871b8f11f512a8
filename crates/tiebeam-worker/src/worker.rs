//! [`Worker`]: answers a runner's instructions.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tiebeam_core::metrics::MetricValue;
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_graph::Graph;
use tiebeam_model::fn_api::{
    FinalizeBundleResponse, HarnessMonitoringInfosResponse, InstructionRequest, InstructionResponse,
    MonitoringInfosMetadataResponse, ProcessBundleDescriptor, ProcessBundleProgressResponse,
    ProcessBundleRequest, ProcessBundleResponse, RegisterResponse, instruction_request::Request,
    instruction_response::Response,
};
use tiebeam_model::pipeline::MonitoringInfo;

use crate::bundle::{Done, Instance};
use crate::cache::StateCache;
use crate::fn_api::FnApi;
use crate::harness::{BundleChannel, now};
use crate::lower::{Lowered, lower};
use crate::monitoring;
use crate::payload::Steps;
use crate::recipe::{Library, Recipes};
use crate::running::Bundles;
use crate::sampling::Sampler;
use crate::short_ids::ShortIds;

/// How a worker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerOptions {
    /// Whether output of less than a piece is put into the answer and not onto the data stream: for runners that say they
    /// understand it.
    pub embed_output: bool,
    /// Bytes of one sink at which a piece is sent on the data stream, while the bundle goes on.
    pub piece: usize,
    /// The most bytes of side inputs that are kept for later bundles, as runners' cache tokens allow.
    pub cache_bytes: usize,
    /// Whether some elements of each PCollection are kept, for runners that show them.
    pub data_sampling: bool,
    /// Whether metrics are told by their short ids alone: for runners that say they understand these.
    pub short_ids_only: bool,
}

impl Default for WorkerOptions {
    /// Output on the data stream, in pieces of a mebibyte; 100 mebibytes of side inputs are kept; no samples; metrics in
    /// full and by short ids.
    fn default() -> Self {
        WorkerOptions {
            embed_output: false,
            piece: 1 << 20,
            cache_bytes: 100 << 20,
            data_sampling: false,
            short_ids_only: false,
        }
    }
}

/// A stage that is ready to run, with the wired instances that are idle.
struct Prepared {
    lowered: Arc<Lowered>,
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
    sampler: Option<Sampler>,
    short_ids: ShortIds,
    bundles: Bundles,
    /// Bundles that ended well, and the others.
    ended: [AtomicU64; 2],
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
        Worker {
            library,
            options,
            cache: Arc::new(StateCache::new(options.cache_bytes)),
            sampler: options.data_sampling.then(Sampler::default),
            short_ids: ShortIds::unlike_others(),
            bundles: Bundles::default(),
            ended: Default::default(),
            stages: Mutex::default(),
            registered: Mutex::default(),
        }
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
            Some(Request::ProcessBundleProgress(request)) => {
                let (infos, consuming) = self.bundles.progress(&request.instruction_id);
                let (monitoring_data, monitoring_infos) = self.told(infos);
                Response::ProcessBundleProgress(ProcessBundleProgressResponse {
                    monitoring_infos,
                    monitoring_data,
                    consuming_received_data: Some(consuming),
                })
            }
            Some(Request::ProcessBundleSplit(request)) => {
                Response::ProcessBundleSplit(self.bundles.split(&request))
            }
            // No step holds anything back until its bundle is committed: there is nothing to do, but a runner waits.
            Some(Request::FinalizeBundle(_)) => Response::FinalizeBundle(FinalizeBundleResponse {}),
            Some(Request::MonitoringInfos(request)) => {
                let monitoring_info = self.short_ids.infos(&request.monitoring_info_id)?;
                Response::MonitoringInfos(MonitoringInfosMetadataResponse { monitoring_info })
            }
            Some(Request::HarnessMonitoringInfos(_)) => {
                let monitoring_data = self.short_ids.of(&self.own_metrics());
                Response::HarnessMonitoringInfos(HarnessMonitoringInfosResponse { monitoring_data })
            }
            Some(Request::SampleData(request)) => {
                let taken = self.sampler.as_ref().map(|sampler| sampler.take(&request));
                Response::SampleData(taken.unwrap_or_default())
            }
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
        let done = self.run_bundle(instruction_id, request, api);
        self.cache.end_bundle(instruction_id);
        self.ended[usize::from(done.is_err())].fetch_add(1, Ordering::Relaxed);
        let done = done?;
        let (monitoring_data, monitoring_infos) = self.told(done.monitoring_infos);
        Ok(ProcessBundleResponse {
            monitoring_infos,
            monitoring_data,
            elements: done.embedded,
            ..ProcessBundleResponse::default()
        })
    }

    fn run_bundle(&self, id: &str, request: ProcessBundleRequest, api: &Arc<dyn FnApi>) -> Result<Done> {
        let stage = self.stage(&request.process_bundle_descriptor_id, api)?;
        let idle = lock(&stage.idle).pop();
        let mut instance = match idle {
            Some(instance) => instance,
            None => {
                let run = self.steps().run();
                Instance::new(&stage.lowered, &self.options, self.sampler.as_ref(), run)?
            }
        };
        let running = instance.begin();
        let entry = self.bundles.enter(id, &running);
        let channel = BundleChannel::new(api, id, &self.cache, &request.cache_tokens);
        let done = instance.run(channel, request.elements, &running)?;
        drop(entry);
        lock(&stage.idle).push(instance);
        Ok(done)
    }

    /// Metrics as they are told: by short ids, and in full unless the runner has no use for that.
    fn told(&self, infos: Vec<MonitoringInfo>) -> (BTreeMap<String, Bytes>, Vec<MonitoringInfo>) {
        let by_short_id = self.short_ids.of(&infos);
        (by_short_id, if self.options.short_ids_only { Vec::new() } else { infos })
    }

    /// What the worker counts that is of no bundle.
    fn own_metrics(&self) -> Vec<MonitoringInfo> {
        let stats = self.cache.stats();
        let [done, failed] = self.ended.each_ref().map(|n| n.load(Ordering::Relaxed));
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let counters = [
            ("bundles_done", done),
            ("bundles_failed", failed),
            ("state_cache_hits", stats.hits),
            ("state_cache_misses", stats.misses),
            ("state_cache_evictions", stats.evictions),
        ];
        let bytes = ("state_cache_bytes", MetricValue::Gauge(number(stats.bytes as u64)));
        let counters = counters.map(|(name, n)| (name, MetricValue::Counter(number(n))));
        let now = now().millis();
        let all = counters.into_iter().chain([bytes]);
        all.map(|(name, value)| monitoring::of_worker(name, &value, now)).collect()
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
        let lowered = Arc::new(lower(&descriptor, &self.library)?);
        let prepared = Arc::new(Prepared { lowered, idle: Mutex::default() });
        Ok(lock(&self.stages).entry(id.to_owned()).or_insert(prepared).clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
