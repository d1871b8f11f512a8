//! Running a graph on another engine through Beam's portability API, and being the worker that such an engine starts.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use tiebeam_core::metrics::{MetricKey, MetricValue};
use tiebeam_core::{Error, ErrorKind, Result, RunId};
use tiebeam_exec::EdgeId;
use tiebeam_graph::{Graph, GraphNode, NodeKind};
use tiebeam_model::pipeline::MonitoringInfo;
use tiebeam_model::urns::label;
use tiebeam_portable::expansion::expand_externals;
use tiebeam_portable::{
    Environment, Job as Started, JobEvent, JobOptions, JobState, PoolWorkers, Severity, StopWorker,
    Submission, WorkerArgs, WorkerPool, artifacts, pipeline_message, run_worker_with, submit,
};
use tiebeam_runner::{CancelToken, JobReport, JobStatus, Progress, Stop};
use tiebeam_worker::{Recipes, Steps, WorkerOptions, monitoring};

use super::exit::{Exit, print_error, to_stderr};
use super::flags::{ProgressMode, RunFlags, RunnerKind, WorkerPlace};
use super::guard::GuardFlags;
use super::local::Installed;
use super::run::Job;

/// The option that tells workers the folder in which the job was submitted: relative paths mean the same there.
const FOLDER: &str = "tiebeam_folder";

/// The option that tells workers which run they work for.
const RUN: &str = "tiebeam_run";

/// Runs a job on the engine that the flags name, to its end.
pub(super) fn run(
    job: &Job,
    flags: &RunFlags,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<JobReport> {
    // With an endpoint it is a job service like any other.
    if flags.runner == RunnerKind::Dataflow && flags.job_endpoint.is_none() {
        return dataflow(job, flags, progress, cancel);
    }
    let at = match &flags.job_endpoint {
        Some(endpoint) => At::Endpoint(endpoint),
        None => At::Here(Installed::find(flags)?),
    };
    let place = place(flags, at.address())?;
    if place == WorkerPlace::Loopback {
        // Workers elsewhere may see other files than this process.
        job.graph.run_checks()?;
    }
    let run = RunId::new();
    let outcome = match &at {
        At::Endpoint(endpoint) => on_engine(job, run, flags, endpoint, &place, progress, cancel),
        At::Here(installed) => on_local_engine(installed, job, run, flags, &place, progress, cancel),
    };
    if !flags.detach {
        job.graph.run_cleanups(run);
    }
    outcome
}

/// Where a job goes.
enum At<'a> {
    /// To the job service that was named.
    Endpoint(&'a str),
    /// To an engine of this machine that is started for it.
    Here(Installed),
}

impl At<'_> {
    fn address(&self) -> &str {
        match self {
            At::Endpoint(endpoint) => endpoint,
            At::Here(_) => "127.0.0.1",
        }
    }
}

#[cfg(feature = "dataflow")]
use super::dataflow::run as dataflow;

#[cfg(not(feature = "dataflow"))]
fn dataflow(_: &Job, _: &RunFlags, _: &Progress, _: &CancelToken) -> Result<JobReport> {
    Err(Error::new(ErrorKind::Unsupported, "TB0522", "this build cannot make jobs of dataflow").with_help(
        "build tiebeam with its feature `dataflow`, or name a job service by `--job-endpoint HOST:PORT`",
    ))
}

/// A job on another engine, however it was made.
pub(super) trait Followed {
    fn wait(&self, hear: &mut dyn FnMut(&Self, Option<JobEvent>)) -> Result<JobState>;
    fn metrics(&self) -> Result<Vec<MonitoringInfo>>;
    fn cancel(&self) -> Result<JobState>;
    fn drain(&self) -> Result<JobState>;
}

impl Followed for Started {
    fn wait(&self, hear: &mut dyn FnMut(&Self, Option<JobEvent>)) -> Result<JobState> {
        self.wait(hear)
    }
    fn metrics(&self) -> Result<Vec<MonitoringInfo>> {
        self.metrics()
    }
    fn cancel(&self) -> Result<JobState> {
        self.cancel()
    }
    fn drain(&self) -> Result<JobState> {
        self.drain()
    }
}

/// Where the steps run: as told, or in this process where the engine is on this machine.
fn place(flags: &RunFlags, endpoint: &str) -> Result<WorkerPlace> {
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    let place = match &flags.environment {
        Some(place) => place.clone(),
        None if ["localhost", "127.0.0.1", "[::1]"].contains(&host) => WorkerPlace::Loopback,
        None => {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0523",
                format!("the engine at `{endpoint}` is on another machine and was not told where the steps run"),
            )
            .with_help("add `--environment docker=IMAGE`, `external=HOST:PORT` (a pool: `tiebeam worker --pool`) or `process=COMMAND`"));
        }
    };
    if flags.detach && place == WorkerPlace::Loopback {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "TB0524",
            "`--detach` cannot leave a job whose steps run in this process",
        )
        .with_help("add `--environment process`, `external=HOST:PORT` or `docker=IMAGE`"));
    }
    Ok(place)
}

/// A job on an engine that is started for it, and ends with it.
fn on_local_engine(
    installed: &Installed,
    job: &Job,
    run: RunId,
    flags: &RunFlags,
    place: &WorkerPlace,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<JobReport> {
    let mut engine = installed.start(flags, cancel)?;
    let endpoint = engine.endpoint();
    on_engine(job, run, flags, &endpoint, place, progress, cancel).map_err(|error| engine.explain(error))
}

fn on_engine(
    job: &Job,
    run: RunId,
    flags: &RunFlags,
    endpoint: &str,
    place: &WorkerPlace,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<JobReport> {
    let mut pool = None;
    let environment = match place {
        WorkerPlace::Loopback => {
            let (graph, decisive) = (job.graph.clone(), job.decisive.clone());
            let steps = move || Steps::with_options(graph.clone(), decisive.clone()).of_run(run);
            let build = Arc::new(move |_: &JobOptions| Ok(steps()));
            let workers = PoolWorkers::Threads { build, options: WorkerOptions::default() };
            let started = pool.insert(WorkerPool::start(SocketAddr::from(([127, 0, 0, 1], 0)), workers)?);
            Environment::External { address: started.address().to_string() }
        }
        elsewhere => environment_of(elsewhere)?,
    };
    let mut pipeline = pipeline_message(&steps(job), &environment, files(job)?)?;
    let services = expand_externals(&job.graph, &mut pipeline)?;
    if flags.detach && services.is_needed() {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "TB0524",
            "`--detach` cannot leave a job whose Python steps run beside this process",
        )
        .with_help("name an expansion service that stays: `.with_expansion_service(\"HOST:PORT\")`"));
    }
    let name = flags.job_name.clone().unwrap_or_else(|| job.name.clone());
    let options = options(job, run, flags, &name)?;
    let started = submit(Submission { endpoint: endpoint.to_owned(), name, pipeline, options })?;
    if flags.detach {
        super::exit::to_stdout(&format!("{}\n", started.id()));
        return Ok(progress.report(JobStatus::Done));
    }
    if flags.progress != ProgressMode::None {
        to_stderr(&format!("job {} on {endpoint}\n", started.id()));
    }
    let ended = follow(job, flags, &started, progress, cancel);
    drop((pool, services));
    ended
}

/// The environment of steps that run in other processes than this one.
pub(super) fn environment_of(place: &WorkerPlace) -> Result<Environment> {
    Ok(match place {
        WorkerPlace::Loopback => return Err(Error::internal("this process has no pool of workers")),
        WorkerPlace::External(address) => Environment::External { address: address.clone() },
        WorkerPlace::Docker(image) => Environment::Docker { image: image.clone() },
        WorkerPlace::Process(command) => Environment::Process {
            command: match command {
                Some(command) => command.clone(),
                None => this_program()?.display().to_string(),
            },
            variables: BTreeMap::new(),
        },
    })
}

fn this_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| Error::internal(format!("this program has no path: {error}")))
}

/// The job's steps, with the options that decide what they compute.
pub(super) fn steps(job: &Job) -> Steps {
    Steps::with_options(job.graph.clone(), job.decisive.clone())
}

/// The files that travel with the job.
pub(super) fn files(job: &Job) -> Result<Vec<tiebeam_model::pipeline::ArtifactInformation>> {
    // A file that is not here is one of the workers' machines, or an address that they read themselves.
    let here = job.graph.files.iter().filter(|path| path.is_file());
    here.map(|path| artifacts::describe(&artifacts::StagedFile::of(path))).collect()
}

/// What the engine and the workers are told.
pub(super) fn options(job: &Job, run: RunId, flags: &RunFlags, name: &str) -> Result<JobOptions> {
    let mut options = JobOptions::new();
    options.insert("job_name".to_owned(), json!(name));
    options.insert(RUN.to_owned(), json!(run.to_string()));
    if let Ok(folder) = std::env::current_dir() {
        options.insert(FOLDER.to_owned(), json!(folder));
    }
    options.extend(job.options.clone());
    for (name, value) in &flags.engine_options {
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.clone()));
        options.insert(name.clone(), value);
    }
    Ok(options)
}

/// Waits for the job's end; passes on what it says, and what the user's signals ask for.
pub(super) fn follow(
    job: &Job,
    flags: &RunFlags,
    started: &impl Followed,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<JobReport> {
    let mut asked = Stop::No;
    let mut failures: Vec<String> = Vec::new();
    let mut ticks = 0u32;
    let state = started.wait(&mut |started, event| {
        match event {
            Some(JobEvent::Message(severity, text)) if severity >= Severity::Error => failures.push(text),
            Some(JobEvent::Message(Severity::Warning, text)) if flags.progress != ProgressMode::None => {
                to_stderr(&format!("{}: {}\n", flags.runner.name(), first_line(&text)));
            }
            _ => {}
        }
        let stop = cancel.asked();
        if stop > asked {
            asked = stop;
            stop_job(started, stop);
        }
        ticks += 1;
        // Engines count slowly: often enough for a person to see it move.
        if ticks.is_multiple_of(4) {
            observe(job, started, progress);
        }
    })?;
    observe(job, started, progress);
    match state {
        JobState::Done | JobState::Updated => Ok(progress.report(JobStatus::Done)),
        JobState::Drained => Ok(progress.report(JobStatus::Drained)),
        JobState::Cancelled => Err(Error::new(ErrorKind::Cancelled, "TB0525", "the job was cancelled")),
        _ => Err(failed(flags.runner, &failures)),
    }
}

fn stop_job(started: &impl Followed, stop: Stop) {
    let done = match stop {
        Stop::No => return,
        Stop::Drain => started.drain().or_else(|error| {
            // Not every engine can drain; leaving the job running would be worse.
            to_stderr(&format!("the engine does not drain ({error}): the job is cancelled\n"));
            started.cancel()
        }),
        Stop::Cancel => started.cancel(),
    };
    if let Err(error) = done {
        print_error(&error);
    }
}

/// The error of a job that failed: what a worker said where it is found among the engine's words.
fn failed(runner: RunnerKind, messages: &[String]) -> Error {
    let error = |message: String| Error::new(ErrorKind::UserCode, "TB0526", message);
    if let Some(words) = messages.iter().find_map(|text| worker_words(text)) {
        return error(format!("the job failed on {}", runner.name())).with_source(words);
    }
    match messages.last() {
        Some(text) => {
            let lines: Vec<&str> =
                text.lines().filter(|line| !line.trim_start().starts_with("at ")).collect();
            let shown = lines.iter().take(6).copied().collect::<Vec<_>>().join("\n");
            error(format!("the job failed on {}", runner.name())).with_source(shown)
        }
        None => error(format!("the job failed on {} without a word", runner.name()))
            .with_help("look into the engine's log"),
    }
}

/// What one of our workers said, cut out of an engine's stack trace.
fn worker_words(text: &str) -> Option<String> {
    let from = text.find("error[TB")?;
    let foreign = |line: &str| {
        let line = line.trim_start();
        line.starts_with("at ")
            || line.starts_with("Caused by:")
            || line.starts_with("Traceback ")
            || line.starts_with("File \"")
            || line.starts_with("Suppressed:")
    };
    let words: Vec<&str> = text[from..].lines().take_while(|line| !foreign(line)).collect();
    Some(words.join("\n").trim_end().to_owned())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Takes over what the engine has counted so far. Engines without counts leave the report's zeros.
fn observe(job: &Job, started: &impl Followed, progress: &Progress) {
    if let Ok(infos) = started.metrics() {
        let (elements, nanos, metrics) = counts(&job.graph, &infos);
        progress.replace(elements, nanos, metrics);
    }
}

type Counts = (HashMap<EdgeId, u64>, BTreeMap<Arc<str>, u64>, BTreeMap<MetricKey, MetricValue>);

/// An engine's metrics as counts of the graph's edges and steps.
fn counts(graph: &Graph, infos: &[MonitoringInfo]) -> Counts {
    let mut counted: HashMap<&str, u64> = HashMap::new();
    let mut metrics: BTreeMap<MetricKey, MetricValue> = BTreeMap::new();
    let steps: HashMap<&str, &Arc<str>> = graph.nodes.iter().map(|node| (&*node.step, &node.step)).collect();
    for info in infos {
        let of = |name: &str| info.labels.get(name).map(String::as_str).unwrap_or_default();
        // Metrics that this version can't read are the engine's own.
        let Ok(Some(value)) = monitoring::user_value(info) else { continue };
        if let (monitoring::STEPS, MetricValue::Counter(n)) = (of(label::NAMESPACE), value) {
            *counted.entry(of(label::NAME)).or_default() += n.unsigned_abs();
            continue;
        }
        let transform = of(label::PTRANSFORM);
        let step = steps.get(transform).map_or_else(|| transform.into(), |step| (*step).clone());
        let key = MetricKey { step, namespace: of(label::NAMESPACE).into(), name: of(label::NAME).into() };
        metrics.entry(key).and_modify(|all| all.merge(&value)).or_insert(value);
    }
    let nanos = counted.iter().filter_map(|(name, n)| Some((name.strip_prefix("nanos|")?.into(), *n)));
    let nanos = nanos.collect();
    (edge_counts(graph, &counted), nanos, metrics)
}

/// The elements of each edge: as the step that makes it counted, or, where the engine itself makes it (a group, say), as one
/// of those that read it did.
fn edge_counts(graph: &Graph, counted: &HashMap<&str, u64>) -> HashMap<EdgeId, u64> {
    let count = |what: String| counted.get(what.as_str()).copied();
    let mut elements: HashMap<EdgeId, u64> = HashMap::new();
    for node in &graph.nodes {
        // The last piece of a combine or a reshuffle makes what the whole does.
        let pieces = ["", "/Extract", "/Combine", "/Gather"];
        for (i, output) in node.outputs.iter().enumerate() {
            let made = pieces.iter().find_map(|piece| count(format!("out{i}|{}{piece}", node.step)));
            if let Some(n) = made {
                elements.insert(output.edge, n);
            }
        }
    }
    for node in graph.nodes.iter().filter(|node| node.inputs.len() == 1) {
        let first = ["", "/Precombine", "/Convert", "/Combine", "/Spread"];
        let Some(n) = first.iter().find_map(|piece| count(format!("in|{}{piece}", node.step))) else {
            continue;
        };
        elements.entry(node.inputs[0]).or_insert(n);
    }
    // A reshuffle gives what it takes, and between two of them nobody of ours counts.
    let is_reshuffle =
        |node: &&GraphNode| matches!(node.kind, NodeKind::Reshuffle | NodeKind::ReshuffleOneByOne);
    let sides = |node: &GraphNode| Some((*node.inputs.first()?, node.outputs.first()?.edge));
    let reshuffles: Vec<_> = graph.nodes.iter().filter(is_reshuffle).filter_map(sides).collect();
    for (from, to) in
        reshuffles.iter().copied().chain(reshuffles.iter().rev().map(|(input, output)| (*output, *input)))
    {
        if let Some(n) = elements.get(&from).copied() {
            elements.entry(to).or_insert(n);
        }
    }
    // Engines flatten without asking anybody.
    for node in graph.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Flatten(_))) {
        let sum = node.inputs.iter().filter_map(|edge| elements.get(edge)).sum();
        if let Some(output) = node.outputs.first() {
            elements.entry(output.edge).or_insert(sum);
        }
    }
    elements
}

/// A pipeline that a worker has built from a job's options.
pub struct Built {
    /// The pipeline.
    pub graph: Arc<Graph>,
    /// The options that decide what is computed, as in [`Job::decisive`].
    pub decisive: BTreeMap<String, String>,
}

/// What an engine told this process when it started it as a worker; none when it was not.
pub fn worker_args() -> Option<Result<WorkerArgs>> {
    WorkerArgs::of_process()
}

/// Is a worker until its engine lets it go. `build` makes the pipeline from the job's options.
pub fn run_as_worker(
    args: Result<WorkerArgs>,
    options: WorkerOptions,
    build: impl FnOnce(&JobOptions) -> Result<Built>,
) -> ExitCode {
    run_as_worker_with(args, options, None, build)
}

/// As [`run_as_worker`], for a worker that also makes steps of the library that an expansion service has given to pipelines
/// of other languages.
pub fn run_as_worker_with(
    args: Result<WorkerArgs>,
    options: WorkerOptions,
    recipes: Option<Arc<dyn Recipes>>,
    build: impl FnOnce(&JobOptions) -> Result<Built>,
) -> ExitCode {
    // Models are opened while pipelines are built, too.
    #[cfg(feature = "inference")]
    tiebeam_inference::staged::find_by(artifacts::placed);
    super::fetch_models();
    let run = |args: WorkerArgs| {
        run_worker_with(args, options, &StopWorker::default(), recipes, |options| {
            // A folder that is not on this machine is none that paths could be relative to.
            if let Some(folder) = options.get(FOLDER).and_then(Value::as_str) {
                let _ = std::env::set_current_dir(folder);
            }
            #[cfg(feature = "inference")]
            super::rebuild_models_by(options);
            let Built { graph, decisive } = build(options)?;
            let steps = Steps::with_options(graph, decisive);
            Ok(match options.get(RUN).and_then(Value::as_str).and_then(RunId::parse) {
                Some(run) => steps.of_run(run),
                None => steps,
            })
        })
    };
    match args.and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            Exit::JobFailed.into()
        }
    }
}

/// Is a worker pool at `host:port` until a signal comes: starts this program, with these arguments before Beam's own, for
/// each worker that an engine wants.
pub fn run_pool(address: &str, guard: &GuardFlags, arguments: &[String]) -> ExitCode {
    match pool(address, guard, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            if error.kind() == ErrorKind::InvalidArgument { Exit::BadUsage } else { Exit::JobFailed }.into()
        }
    }
}

fn pool(address: &str, guard: &GuardFlags, arguments: &[String]) -> Result<()> {
    let wanted: SocketAddr = address.parse().map_err(|_| {
        Error::new(
            ErrorKind::InvalidArgument,
            "TB0527",
            format!(
                "a pool listens at an IP address and a port, such as 127.0.0.1:50000, not at `{address}`"
            ),
        )
    })?;
    let workers = PoolWorkers::Processes { program: this_program()?, arguments: arguments.to_vec() };
    let pool = WorkerPool::start_guarded(wanted, workers, &guard.guard()?)?;
    super::exit::to_stdout(&format!("worker pool {}\n", pool.address()));
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
    // Its workers go with it.
    signals.forever().next();
    drop(pool);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workers_words_are_cut_out_of_stack_traces() {
        let java = "java.lang.RuntimeException: Error received from SDK harness for instruction 4: error[TB0100]: step A: it broke\n  caused by: x\n\tat org.apache.Foo.bar(Foo.java:3)\n\tat y";
        assert_eq!(worker_words(java).unwrap(), "error[TB0100]: step A: it broke\n  caused by: x");
        assert_eq!(worker_words("java.io.IOException: no"), None);
        let error = failed(RunnerKind::Flink, &["noise".to_owned(), java.to_owned()]);
        assert!(format!("{error:?}").contains("caused by: error[TB0100]: step A: it broke"), "{error:?}");
    }

    #[test]
    fn what_only_the_engine_saw_is_counted_by_its_neighbours() {
        use tiebeam_graph::{Create, Pipeline};
        let p = Pipeline::new();
        p.step("Numbers").apply(Create::of(0..3i64)).reshuffle().step("Next").map(|n| n + 1);
        let graph = p.build().unwrap();
        let counted = HashMap::from([("in|Next", 3), ("out0|Next", 3)]);
        let elements = edge_counts(&graph, &counted);
        let of = |step: &str| {
            let node = graph.nodes.iter().find(|node| &*node.step == step).unwrap();
            elements.get(&node.outputs[0].edge).copied()
        };
        // A Create ends in a reshuffle of its own.
        assert_eq!([of("Next"), of("Reshuffle"), of("Numbers/Reshuffle")], [Some(3); 3]);
    }
}
