//! The body of `jobs.create`: a job as Dataflow's API (v1b3) describes it.

use serde_json::{Map, Value, json};
use tiebeam_model::urns::protocol::MULTI_CORE_BUNDLE_PROCESSING;
use tiebeam_portable::JobOptions;

use crate::options::{Autoscaling, DataflowOptions};
use crate::stage::{Image, Staged};

/// The version of the contract between jobs and the service that Runner v2 has.
const MAJOR: &str = "8";
/// What these jobs need: Runner v2, and a pipeline that is given as Beam's message.
const EXPERIMENTS: &[&str] =
    &["beam_fn_api", "use_unified_worker", "use_runner_v2", "use_portable_job_submission"];
/// What such jobs need beside it where they read without end.
const STREAMING: &[&str] = &["enable_streaming_engine", "enable_windmill_service"];

/// What the request is made of.
pub(crate) struct Parts<'a> {
    pub(crate) name: &'a str,
    /// By which the service knows a request that comes twice.
    pub(crate) request_id: &'a str,
    pub(crate) options: &'a DataflowOptions,
    /// What the workers are told.
    pub(crate) told: &'a JobOptions,
    pub(crate) images: &'a [Image],
    pub(crate) staged: &'a Staged,
    pub(crate) streaming: bool,
    /// The job that this one replaces.
    pub(crate) replaces: Option<&'a str>,
}

/// The request's body.
pub(crate) fn body(parts: &Parts<'_>) -> Value {
    let options = parts.options;
    let mut job = Fields::default();
    job.set("name", json!(parts.name));
    job.set("projectId", json!(options.project));
    job.set("location", json!(options.region));
    job.set("clientRequestId", json!(parts.request_id));
    job.set("type", json!(if parts.streaming { "JOB_TYPE_STREAMING" } else { "JOB_TYPE_BATCH" }));
    job.set("environment", environment(parts));
    job.set("steps", json!([]));
    job.some("replaceJobId", parts.replaces);
    job.filled("labels", json!(options.labels), options.labels.is_empty());
    let mapping = &options.transform_name_mapping;
    job.filled("transformNameMapping", json!(mapping), mapping.is_empty());
    job.done()
}

/// The experiments of the job: those that were asked for, and those without which it could not run.
pub(crate) fn experiments(options: &DataflowOptions, streaming: bool) -> Vec<String> {
    let mut all = options.experiments.clone();
    let needed = EXPERIMENTS.iter().chain(if streaming { STREAMING } else { &[] });
    for one in needed {
        if !all.iter().any(|known| known == one) {
            all.push((*one).to_owned());
        }
    }
    all
}

fn environment(parts: &Parts<'_>) -> Value {
    let options = parts.options;
    let experiments = experiments(options, parts.streaming);
    let mut environment = Fields::default();
    environment.set("userAgent", json!({"name": "Tiebeam", "version": env!("CARGO_PKG_VERSION")}));
    let kind = if parts.streaming { "FNAPI_STREAMING" } else { "FNAPI_BATCH" };
    environment.set("version", json!({"major": MAJOR, "job_type": kind}));
    environment.set("tempStoragePrefix", json!(options.temp_location.resource()));
    environment.set("experiments", json!(experiments));
    environment.set("sdkPipelineOptions", sdk_options(parts, &experiments));
    environment.set("workerPools", json!([pool(parts)]));
    let service_options = &options.service_options;
    environment.filled("serviceOptions", json!(service_options), service_options.is_empty());
    environment.some("serviceAccountEmail", options.service_account.as_deref());
    environment.some("serviceKmsKeyName", options.kms_key.as_deref());
    environment.some("workerRegion", options.machines.region.as_deref());
    environment.some("workerZone", options.machines.zone.as_deref());
    let goal = options.flexrs_goal.as_ref().map(|goal| format!("FLEXRS_{goal}"));
    environment.some("flexResourceSchedulingGoal", goal.as_deref());
    environment.done()
}

/// What the service and the workers are told, and what the console shows of it.
fn sdk_options(parts: &Parts<'_>, experiments: &[String]) -> Value {
    let mut told = parts.told.clone();
    let own = [
        ("pipelineUrl", json!(parts.staged.pipeline.to_string())),
        ("pipelineProtoHash", json!(parts.staged.pipeline_sha256)),
        ("project", json!(parts.options.project)),
        ("region", json!(parts.options.region)),
        ("tempLocation", json!(parts.options.temp_location.to_string())),
        ("stagingLocation", json!(parts.options.staging_location.to_string())),
        ("experiments", json!(experiments)),
    ];
    told.extend(own.map(|(name, value)| (name.to_owned(), value)));
    let shown = ["pipelineUrl", "region", "tempLocation", "stagingLocation"];
    let shown: Vec<Value> = shown
        .iter()
        .map(|name| json!({"namespace": "tiebeam", "key": name, "type": "STRING", "value": told[*name]}))
        .collect();
    json!({"options": told, "display_data": shown})
}

fn pool(parts: &Parts<'_>) -> Value {
    let machines = &parts.options.machines;
    let mut pool = Fields::default();
    pool.set("kind", json!("harness"));
    let packages = &parts.staged.packages;
    let packages: Vec<Value> = packages
        .iter()
        .map(|one| json!({"name": one.name, "location": one.location.resource(), "sha256": one.sha256}))
        .collect();
    pool.filled("packages", json!(packages), packages.is_empty());
    let images: Vec<Value> = parts
        .images
        .iter()
        .map(|one| {
            let cores = one.capabilities.iter().any(|urn| urn == MULTI_CORE_BUNDLE_PROCESSING);
            json!({
                "containerImage": one.image,
                "environmentId": one.environment,
                "capabilities": one.capabilities,
                "useSingleCorePerContainer": !cores,
            })
        })
        .collect();
    pool.set("sdkHarnessContainerImages", json!(images));
    if let [only] = parts.images {
        pool.set("workerHarnessContainerImage", json!(only.image));
    }
    let mut scaling = Fields::default();
    scaling.some("maxNumWorkers", machines.most);
    let algorithm = machines.autoscaling.map(|algorithm| match algorithm {
        Autoscaling::None => "AUTOSCALING_ALGORITHM_NONE",
        Autoscaling::ThroughputBased => "AUTOSCALING_ALGORITHM_BASIC",
    });
    scaling.some("algorithm", algorithm);
    pool.set("autoscalingSettings", scaling.done());
    pool.some("numWorkers", machines.count);
    pool.some("machineType", machines.machine_type.as_deref());
    pool.some("diskSizeGb", machines.disk_size_gb);
    pool.some("diskType", machines.disk_type.as_deref());
    pool.some("numThreadsPerWorker", machines.threads);
    pool.some("network", machines.network.as_deref());
    pool.some("subnetwork", machines.subnetwork.as_deref());
    let ip = machines.public_ips.map(|public| if public { "WORKER_IP_PUBLIC" } else { "WORKER_IP_PRIVATE" });
    pool.some("ipConfiguration", ip);
    if parts.streaming {
        let mut disk = Fields::default();
        disk.some("diskType", machines.disk_type.as_deref());
        pool.set("dataDisks", json!([disk.done()]));
    }
    pool.done()
}

/// An object of JSON whose unset fields are left out: Google's defaults stand then.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    fn some<T: Into<Value>>(&mut self, name: &str, value: Option<T>) {
        if let Some(value) = value {
            self.set(name, value.into());
        }
    }

    fn filled(&mut self, name: &str, value: Value, is_empty: bool) {
        if !is_empty {
            self.set(name, value);
        }
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}
