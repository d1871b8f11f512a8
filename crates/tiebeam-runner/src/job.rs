//! Running a job: stages in order, bundles on threads, retries, and an end that leaves no thread behind.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tiebeam_core::{Error, ErrorKind, Result, RunId};
use tiebeam_exec::{AnyReceiver, EdgeId, Harness, panics};
use tiebeam_graph::Graph;
use tiebeam_plan::{Destination, Plan, PlanOptions, PlanStage, Root, StoreId, plan};

use crate::aside::{Aside, Output, Room, StageFile};
use crate::bundles::{self, Blocks, BundlePolicy, Work};
use crate::cancel::{CancelToken, Stop};
use crate::executor::{DirectExecutor, OpenStage, StageExecutor};
use crate::memory::{Memory, default_memory_limit};
use crate::report::{JobReport, JobStatus, Progress};
use crate::resume;
use crate::shuffle::{BundleBlocks, Shuffle};
use crate::side_inputs::{JobHarness, at_bundle};
use crate::state::{RunState, StateOptions};
use crate::store::{Batches, BundleBatches};

/// How the embedded runner runs.
#[derive(Clone)]
pub struct RunnerOptions {
    /// The threads that work. Default: one for each core that this process may use.
    pub threads: usize,
    /// How often a bundle is tried. Default 4.
    pub max_attempts: u32,
    /// Which planning rules apply.
    pub plan: PlanOptions,
    /// How bundles are cut.
    pub bundles: BundlePolicy,
    /// For tests: every bundle is run twice, and only the second run counts.
    pub run_twice: bool,
    /// What executes bundles.
    pub executor: Arc<dyn StageExecutor>,
    /// Stops the job from outside.
    pub cancel: CancelToken,
    /// The bytes of memory that the job should do with: what is kept between stages goes to disk beyond its share of it.
    /// None is [`default_memory_limit`].
    pub memory_limit: Option<u64>,
    /// Where the job writes down what it has done, so that it can go on after its process was killed. None: it can't.
    pub state: Option<StateOptions>,
    /// Where what does not fit in memory goes, if there is no state directory; none is the system's folder for
    /// temporary files.
    pub spill_dir: Option<PathBuf>,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        RunnerOptions {
            threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            max_attempts: 4,
            plan: PlanOptions::default(),
            bundles: BundlePolicy::Balanced,
            run_twice: false,
            executor: Arc::new(DirectExecutor),
            cancel: CancelToken::default(),
            memory_limit: None,
            state: None,
            spill_dir: None,
        }
    }
}

impl RunnerOptions {
    /// With that many threads, at least one.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Stopped by that token.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// In that much memory.
    #[must_use]
    pub fn with_memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Going on after a kill by what is in a state directory.
    #[must_use]
    pub fn with_state(mut self, state: StateOptions) -> Self {
        self.state = Some(state);
        self
    }
}

/// Runs graphs in this process.
#[derive(Clone, Default)]
pub struct EmbeddedRunner {
    options: RunnerOptions,
}

impl EmbeddedRunner {
    /// A runner of that kind.
    pub fn new(options: RunnerOptions) -> Self {
        EmbeddedRunner { options }
    }

    /// Runs a graph to its end.
    ///
    /// # Errors
    /// A check that does not hold (nothing was read then), or the first bundle that failed for good, naming its step. Of
    /// kind [`Cancelled`](ErrorKind::Cancelled) when it was.
    pub fn run(&self, graph: &Arc<Graph>) -> Result<JobReport> {
        self.run_with_progress(graph, &Progress::new(graph.clone()))
    }

    /// Runs a graph while others look at its progress.
    ///
    /// # Errors
    /// As [`run`](EmbeddedRunner::run).
    pub fn run_with_progress(&self, graph: &Arc<Graph>, progress: &Progress) -> Result<JobReport> {
        let plan = plan(graph, self.options.plan)?;
        if let Err(error) = graph.run_checks() {
            graph.run_cleanups(RunId::new());
            return Err(error);
        }
        let state = match &self.options.state {
            Some(options) => Some(Arc::new(RunState::open(options, &self.identity(graph, options)?)?)),
            None => None,
        };
        let run = state.as_ref().map_or_else(RunId::new, |state| state.run());
        let result = self.run_stages(graph, &plan, progress, run, state.clone());
        match (state, &result) {
            // What was done is kept with the drafts of the outputs: the run can go on.
            (Some(state), Err(_)) => progress.note(format!(
                "what was done is kept in {}: `--resume` goes on with it",
                state.folder().display()
            )),
            (state, _) => {
                graph.run_cleanups(run);
                if let Some(state) = state {
                    state.finish()?;
                }
            }
        }
        result
    }

    /// What all processes of a run must agree on.
    fn identity(&self, graph: &Graph, state: &StateOptions) -> Result<BTreeMap<String, String>> {
        let RunnerOptions { threads, plan, bundles, .. } = &self.options;
        let mut identity = BTreeMap::from([
            ("the pipeline".to_owned(), format!("{:016x}", graph.fingerprint())),
            ("the program".to_owned(), resume::program()),
            ("threads".to_owned(), threads.to_string()),
            ("bundles".to_owned(), format!("{bundles:?}, fused: {}", plan.fuse)),
        ]);
        for (step, digest) in graph.input_digests()? {
            identity.insert(format!("the input of {step}"), format!("{digest:016x}"));
        }
        identity.extend(state.options.iter().map(|(name, value)| (format!("option {name}"), value.clone())));
        Ok(identity)
    }

    fn run_stages(
        &self,
        graph: &Arc<Graph>,
        plan: &Plan,
        progress: &Progress,
        run: RunId,
        state: Option<Arc<RunState>>,
    ) -> Result<JobReport> {
        if state.as_ref().is_some_and(|state| state.is_resumed()) {
            graph.run_resumptions(run)?;
        }
        let dir = match (&state, &self.options.spill_dir) {
            (Some(state), _) => state.folder().to_owned(),
            (None, Some(dir)) => dir.clone(),
            (None, None) => std::env::temp_dir(),
        };
        let limit = self.options.memory_limit.unwrap_or_else(default_memory_limit);
        let memory = Arc::new(Memory::new(limit, self.options.threads, dir, state));
        let failed = Arc::new(AtomicBool::new(false));
        let cancel = self.options.cancel.clone();
        let harness = Arc::new(JobHarness::new(cancel, failed.clone(), run, memory.clone()));
        let mut job = Job {
            options: &self.options,
            plan,
            progress,
            harness,
            failed,
            memory,
            stores: HashMap::new(),
            sides: HashMap::new(),
            drained: false,
        };
        for (number, stage) in plan.stages.iter().enumerate() {
            let before = job.memory.total_spilled();
            let done = job.run_stage(number, stage);
            let spilled = job.memory.total_spilled() - before;
            if spilled > 0 {
                progress.count(&stage.spec.name, "spilled_bytes", spilled);
            }
            done?;
        }
        let status = if job.drained { JobStatus::Drained } else { JobStatus::Done };
        Ok(progress.report(status))
    }
}

/// What is kept between two stages.
pub(crate) enum Store {
    Batches(Batches),
    Shuffle(Shuffle),
}

pub(crate) struct Job<'a> {
    options: &'a RunnerOptions,
    pub(crate) plan: &'a Plan,
    pub(crate) progress: &'a Progress,
    harness: Arc<JobHarness>,
    failed: Arc<AtomicBool>,
    pub(crate) memory: Arc<Memory>,
    stores: HashMap<StoreId, Store>,
    sides: HashMap<Arc<str>, Batches>,
    drained: bool,
}

/// A stage while its bundles run.
struct Running<'a> {
    number: usize,
    stage: &'a PlanStage,
    work: Vec<Work>,
    /// Which of the bundles were done by an earlier process; empty for none.
    done: Vec<bool>,
    file: Arc<StageFile>,
    next: AtomicUsize,
    drained: AtomicBool,
}

/// An instance of a stage with what its bundles make.
struct Opened {
    instance: Box<dyn OpenStage>,
    aside: Vec<Aside>,
    room: Arc<Room>,
}

/// The number of a bundle among all of the run.
pub(crate) fn bundle_number(stage: usize, bundle: usize) -> u64 {
    (stage as u64) << 32 | bundle as u64
}

impl Job<'_> {
    fn run_stage(&mut self, number: usize, stage: &PlanStage) -> Result<()> {
        self.open_outputs(stage)?;
        let earlier = self.restore(number, stage)?;
        if !earlier.is_complete() {
            self.open_side_inputs(stage)?;
            let work = self.work(stage)?;
            let done = earlier.begin(number, work.len(), &self.memory)?;
            let running = Running {
                number,
                stage,
                work,
                done,
                file: Arc::default(),
                next: AtomicUsize::new(0),
                drained: AtomicBool::new(false),
            };
            self.run_bundles(running)?;
        }
        // What nobody reads any more goes, on disk too.
        self.drop_side_inputs(stage);
        match stage.root.store().and_then(|store| self.stores.remove(&store)) {
            Some(Store::Batches(batches)) => batches.discard(),
            Some(Store::Shuffle(shuffle)) => shuffle.discard(),
            None => {}
        }
        Ok(())
    }

    fn run_bundles(&mut self, mut running: Running<'_>) -> Result<()> {
        if let Root::Read { one_by_one: true, .. } = running.stage.root
            && self.options.cancel.asked() == Stop::Drain
            && !running.work.is_empty()
        {
            self.drained = true;
            running.work.clear();
        }
        let first_error: Mutex<Option<Error>> = Mutex::new(None);
        let threads = self.options.threads.min(running.work.len());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    panics::capture_on_this_thread();
                    if let Err(error) = self.work_through(&running) {
                        self.failed.store(true, Ordering::SeqCst);
                        first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                });
            }
        });
        self.drained |= running.drained.load(Ordering::Relaxed);
        if self.options.cancel.asked() == Stop::Cancel {
            return Err(Error::new(ErrorKind::Cancelled, "TB0510", "the job was cancelled"));
        }
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// One thread's share: takes bundles until there are none, or the job ends.
    fn work_through(&self, running: &Running<'_>) -> Result<()> {
        let stage = running.stage;
        let is_source = matches!(stage.root, Root::Read { one_by_one: true, .. });
        let mut open: Option<Opened> = None;
        loop {
            let bundle = running.next.fetch_add(1, Ordering::Relaxed);
            let Some(work) = running.work.get(bundle) else { return Ok(()) };
            if running.done.get(bundle).is_some_and(|done| *done) {
                continue;
            }
            if self.harness.is_cancelled() {
                return Ok(());
            }
            if is_source && self.options.cancel.asked() == Stop::Drain {
                running.drained.store(true, Ordering::Relaxed);
                return Ok(());
            }
            let mut attempt = 1;
            loop {
                let opened = match &mut open {
                    Some(open) => open,
                    None => open.insert(self.open(running)?),
                };
                let Err(error) = self.run_bundle(running, opened, bundle, work) else { break };
                // User code may be in any state now: it gets a new instance.
                open = None;
                let again = error.is_retryable() && attempt < self.options.max_attempts;
                if !again || self.harness.is_cancelled() {
                    return Err(error);
                }
                self.progress.retried(error.step().unwrap_or(&stage.spec.name));
                attempt += 1;
            }
        }
    }

    /// Runs a bundle, makes its output and counts everybody's.
    fn run_bundle(
        &self,
        running: &Running<'_>,
        opened: &mut Opened,
        bundle: usize,
        work: &Work,
    ) -> Result<()> {
        let state = self.memory.state();
        let path = || state.map(|state| state.data_path(running.number, bundle));
        at_bundle(bundle_number(running.number, bundle));
        opened.room.begin(path());
        opened.instance.run_bundle(work)?;
        if self.options.run_twice {
            opened.forget();
            opened.room.begin(path());
            opened.instance.run_bundle(work)?;
        }
        let outputs = opened.aside.iter().map(Aside::take).collect::<Result<Vec<_>>>()?;
        opened.room.finish()?;
        let (stats, metrics) = (opened.instance.drain_stats(), opened.instance.drain_metrics());
        if let Some(state) = state {
            let done = resume::done(&stats, &metrics, &outputs);
            state.write_done(running.number, bundle, &done)?;
        }
        self.publish(running.stage, bundle_number(running.number, bundle), outputs);
        self.count(running.stage, stats, metrics);
        Ok(())
    }

    fn open(&self, running: &Running<'_>) -> Result<Opened> {
        let stage = running.stage;
        let room = Room::new(&self.memory, &running.file);
        let mut sinks: Vec<(EdgeId, AnyReceiver)> = Vec::new();
        let mut aside = Vec::new();
        for output in &stage.outputs {
            let edge_type = &stage.spec.edge(output.edge)?.edge_type;
            let (sink, kept) = match &output.to {
                Destination::Store(_) | Destination::SideInput(_) => {
                    let batches = BundleBatches::new(edge_type, &self.memory, &room);
                    (edge_type.collector(batches.sink()), Aside::Batches(batches))
                }
                Destination::Shuffle(_, group) => {
                    let blocks = BundleBlocks::new(self.partitions(), &self.memory, &room);
                    (group.writer(blocks.sink()), Aside::Blocks(blocks))
                }
            };
            sinks.push((output.edge, sink));
            aside.push(kept);
        }
        let harness: Arc<dyn Harness> = self.harness.clone();
        Ok(Opened { instance: self.options.executor.open(stage, sinks, &harness)?, aside, room })
    }

    /// Makes a finished bundle's output everybody's.
    pub(crate) fn publish(&self, stage: &PlanStage, bundle: u64, outputs: Vec<Output>) {
        for (output, made) in stage.outputs.iter().zip(outputs) {
            match (&output.to, made) {
                (Destination::Store(store), Output::Batches(kept)) => {
                    if let Some(Store::Batches(all)) = self.stores.get(store) {
                        all.commit(bundle, kept);
                    }
                }
                (Destination::SideInput(spec), Output::Batches(kept)) => {
                    if let Some(all) = self.sides.get(&spec.id) {
                        all.commit(bundle, kept);
                    }
                }
                (Destination::Shuffle(store, _), Output::Blocks(written)) => {
                    if let Some(Store::Shuffle(shuffle)) = self.stores.get(store) {
                        shuffle.commit(bundle, written);
                    }
                }
                _ => {}
            }
        }
    }

    /// Counts what a finished bundle did.
    pub(crate) fn count(
        &self,
        stage: &PlanStage,
        stats: tiebeam_exec::StepStats,
        metrics: Vec<crate::report::MetricEntry>,
    ) {
        let root = stage.root.edge();
        let root_is_made = !matches!(stage.root, Root::Read { makes_edge: false, .. });
        self.progress.commit(stats, |edge| edge != root || root_is_made, metrics);
    }

    /// Partitions of a shuffle: a few for each thread, so that uneven keys even out.
    pub(crate) fn partitions(&self) -> usize {
        self.options.threads * 4
    }

    fn open_outputs(&mut self, stage: &PlanStage) -> Result<()> {
        for output in &stage.outputs {
            match &output.to {
                Destination::Store(store) => {
                    self.stores.entry(*store).or_insert_with(|| Store::Batches(Batches::default()));
                }
                Destination::Shuffle(store, _) => {
                    let windowing = self.plan.edges[output.edge.0].windowing.clone();
                    let partitions = self.partitions();
                    let new = || Store::Shuffle(Shuffle::new(partitions, windowing));
                    self.stores.entry(*store).or_insert_with(new);
                }
                Destination::SideInput(spec) => {
                    self.sides.entry(spec.id.clone()).or_default();
                }
            }
        }
        Ok(())
    }

    /// Makes the side inputs readable that this stage reads.
    fn open_side_inputs(&mut self, stage: &PlanStage) -> Result<()> {
        for spec in stage.spec.nodes.iter().flat_map(|node| node.operator.side_inputs()) {
            let Some(batches) = self.sides.get(&spec.id) else { continue };
            let made = |o: &&tiebeam_plan::StageOutput| matches!(&o.to, Destination::SideInput(s) if s.id == spec.id);
            let output = self.plan.stages.iter().flat_map(|stage| &stage.outputs).find(made);
            let edge = output.ok_or_else(|| Error::internal("a side input that no stage makes"))?.edge;
            let edge = &self.plan.edges[edge.0];
            let parts = batches.parts();
            // In memory they are not needed twice.
            if self.memory.state().is_none() {
                self.sides.remove(&spec.id);
            }
            self.harness.add(spec, edge, parts)?;
        }
        Ok(())
    }

    /// Removes what side inputs were made of, once the stage that reads them is done.
    fn drop_side_inputs(&mut self, stage: &PlanStage) {
        for spec in stage.spec.nodes.iter().flat_map(|node| node.operator.side_inputs()) {
            if let Some(batches) = self.sides.remove(&spec.id) {
                batches.discard();
            }
        }
    }

    /// The stage's input as bundles.
    fn work(&self, stage: &PlanStage) -> Result<Vec<Work>> {
        let policy = self.options.bundles;
        match &stage.root {
            Root::Impulse(_) => Ok(vec![Work::Impulse]),
            Root::Read { store, one_by_one, .. } => match self.stores.get(store) {
                Some(Store::Batches(batches)) => {
                    Ok(bundles::cut(batches.parts(), *one_by_one, self.options.threads, policy))
                }
                _ => Err(Error::internal("a stage reads a store that was not opened")),
            },
            Root::Groups { store, edge, .. } => match self.stores.get(store) {
                Some(Store::Shuffle(shuffle)) => {
                    let step = stage.spec.edge(*edge)?.name.clone();
                    let blocks = |sources| Blocks {
                        sources,
                        step: step.clone(),
                        memory: self.memory.clone(),
                        progress: self.progress.clone(),
                    };
                    let filled = shuffle.filled().into_iter();
                    let groups =
                        filled.map(|sources| Work::Groups(blocks(sources), shuffle.windowing().clone()));
                    let mut work: Vec<Work> = groups.collect();
                    bundles::order(&mut work, policy);
                    Ok(work)
                }
                _ => Err(Error::internal("a stage reads a shuffle that was not opened")),
            },
        }
    }
}

impl Opened {
    /// Throws away what a bundle made and counted.
    fn forget(&mut self) {
        self.aside.iter().for_each(Aside::forget);
        drop(self.instance.drain_metrics());
        drop(self.instance.drain_stats());
    }
}
