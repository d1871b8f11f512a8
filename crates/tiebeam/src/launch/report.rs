//! `--report`: what a job did, as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tiebeam_core::Error;
use tiebeam_core::metrics::MetricValue;
use tiebeam_graph::Arity;
use tiebeam_runner::{JobStatus, MetricEntry, Progress, StepReport};

/// The report of a job that ended, or of one that failed with `error`.
pub fn report_json(
    job: &str,
    runner: &str,
    progress: &Progress,
    outcome: Result<JobStatus, &Error>,
    models: Vec<Value>,
) -> Value {
    let status = match outcome {
        Ok(JobStatus::Done) => "done",
        Ok(JobStatus::Drained) => "drained",
        Err(_) => "failed",
    };
    let mut report = counts_json(job, runner, progress, status, models);
    if let (Err(error), Some(report)) = (outcome, report.as_object_mut()) {
        report.insert("error".to_owned(), error_json(error));
    }
    report
}

/// The report of a job that runs, so far.
pub(crate) fn running_json(job: &str, runner: &str, progress: &Progress, models: Vec<Value>) -> Value {
    counts_json(job, runner, progress, "running", models)
}

fn counts_json(job: &str, runner: &str, progress: &Progress, status: &str, models: Vec<Value>) -> Value {
    let steps = progress.steps();
    let metrics = progress.metrics();
    json!({
        "job": job,
        "runner": runner,
        "status": status,
        "seconds": progress.elapsed().as_secs_f64(),
        "stages": steps.iter().map(step).collect::<Vec<_>>(),
        "models": models,
        "sinks": sinks(&metrics),
        "metrics": metrics.iter().map(metric).collect::<Vec<_>>(),
    })
}

fn step(step: &StepReport) -> Value {
    json!({
        "name": &*step.step,
        "in": step.elements_in,
        "out": step.elements_out,
        "dead": step.dead,
        "filtered": step.filtered,
        "dropped_late": step.dropped_late,
        "retries": step.retries,
        "seconds": step.busy.as_secs_f64(),
        "one_to_one": step.arity != Arity::Any,
    })
}

fn error_json(error: &Error) -> Value {
    json!({
        "code": error.code(),
        "kind": format!("{:?}", error.kind()),
        "step": error.step(),
        "message": error.message(),
        "causes": error.causes(),
        "help": error.help(),
        "source": error.place().map(ToString::to_string),
    })
}

/// The models that a run used: taken from when it was made until [`json`](RunModels::json) is called.
#[derive(Clone)]
pub(crate) struct RunModels {
    #[cfg(feature = "inference")]
    mark: tiebeam_inference::report::Mark,
}

impl RunModels {
    #[cfg(feature = "inference")]
    pub(crate) fn start() -> Self {
        RunModels { mark: tiebeam_inference::report::mark() }
    }

    #[cfg(not(feature = "inference"))]
    pub(crate) fn start() -> Self {
        RunModels {}
    }

    #[cfg(feature = "inference")]
    pub(crate) fn json(&self) -> Vec<Value> {
        tiebeam_inference::report::models_since(self.mark)
            .iter()
            .map(|model| {
                json!({
                    "id": &*model.id,
                    "handler": model.handler,
                    "uri": model.uri,
                    "sha256": model.sha256,
                    "bytes": model.bytes,
                    "copies": model.copies,
                    "loads": model.loads,
                    "swaps": model.swaps,
                    "failed_swaps": model.failed_swaps,
                    "last_failed_swap": model.last_failed_swap,
                    "batch_ceiling": model.batch_ceiling,
                    "batching": model.batching,
                    "counts": model.counts.iter().map(|(name, n)| ((*name).to_owned(), json!(n))).collect::<Map<_, _>>(),
                    "element_latency_ms": model.element_latency.map(|latency| {
                        let millis = |time: std::time::Duration| time.as_secs_f64() * 1e3;
                        json!({"p50": millis(latency.p50), "p95": millis(latency.p95), "p99": millis(latency.p99)})
                    }),
                    "padding_share": model.padding_permille.map(|permille| f64::from(permille) / 1000.0),
                })
            })
            .collect()
    }

    #[cfg(not(feature = "inference"))]
    pub(crate) fn json(&self) -> Vec<Value> {
        Vec::new()
    }
}

/// Sinks count under the namespace `sink`.
fn sinks(metrics: &[MetricEntry]) -> Vec<Value> {
    let mut sinks: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (key, value) in metrics.iter().filter(|(key, _)| &*key.namespace == "sink") {
        if let MetricValue::Counter(n) = value {
            // A sink writes and commits in steps of its own: the composite is what a user named.
            let name = key.step.rsplit_once('/').map_or(&*key.step, |(parent, _)| parent);
            sinks.entry(name).or_default().insert(key.name.to_string(), json!(n));
        }
    }
    let named = sinks.into_iter().map(|(name, mut counts)| {
        counts.insert("name".to_owned(), json!(name));
        for count in ["files", "records"] {
            counts.entry(count).or_insert(json!(0));
        }
        Value::Object(counts)
    });
    named.collect()
}

fn metric((key, value): &MetricEntry) -> Value {
    let mut entry = json!({ "step": &*key.step, "namespace": &*key.namespace, "name": &*key.name });
    let (kind, value) = match value {
        MetricValue::Counter(n) => ("counter", json!(n)),
        MetricValue::Gauge(n) => ("gauge", json!(n)),
        MetricValue::Distribution(d) => (
            "distribution",
            json!({ "count": d.count, "sum": d.sum, "min": d.min, "max": d.max, "mean": d.mean() }),
        ),
    };
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("kind".to_owned(), json!(kind));
        entry.insert("value".to_owned(), value);
    }
    entry
}
