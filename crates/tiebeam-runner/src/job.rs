//! Running a job: stages in order, bundles on threads, retries, and an end that leaves no thread behind.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tiebeam_core::{Batch, Error, ErrorKind, Result, RunId, WindowInfo};
use tiebeam_exec::{AnyBatch, AnyReceiver, EdgeId, Harness, panics};
use tiebeam_graph::Graph;
use tiebeam_plan::{Destination, Plan, PlanOptions, PlanStage, Root, StoreId, plan};

use crate::bundles::{self, Blocks, BundlePolicy, Work};
use crate::cancel::{CancelToken, Stop};
use crate::executor::{DirectExecutor, OpenStage, StageExecutor};
use crate::report::{JobReport, JobStatus, Progress};
use crate::shuffle::{BundleBlocks, Shuffle};
use crate::side_inputs::JobHarness;
use crate::store::BundleBatches;

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
        let run = RunId::new();
        let result = self.run_stages(graph, progress, run);
        graph.run_cleanups(run);
        result
    }

    fn run_stages(&self, graph: &Arc<Graph>, progress: &Progress, run: RunId) -> Result<JobReport> {
        let plan = plan(graph, self.options.plan)?;
        graph.run_checks()?;
        let failed = Arc::new(AtomicBool::new(false));
        let harness = Arc::new(JobHarness::new(self.options.cancel.clone(), failed.clone(), run));
        let mut job = Job {
            options: &self.options,
            plan: &plan,
            progress,
            harness,
            failed,
            stores: HashMap::new(),
            sides: HashMap::new(),
            drained: false,
        };
        for stage in &plan.stages {
            job.run_stage(stage)?;
        }
        let status = if job.drained { JobStatus::Drained } else { JobStatus::Done };
        Ok(progress.report(status))
    }
}

/// What is kept between two stages.
enum Store {
    Batches(Mutex<Vec<Arc<dyn AnyBatch>>>),
    Shuffle(Shuffle),
}

struct Job<'a> {
    options: &'a RunnerOptions,
    plan: &'a Plan,
    progress: &'a Progress,
    harness: Arc<JobHarness>,
    failed: Arc<AtomicBool>,
    stores: HashMap<StoreId, Store>,
    sides: HashMap<Arc<str>, Mutex<Vec<Arc<dyn AnyBatch>>>>,
    drained: bool,
}

/// What one bundle makes, kept aside until it is done.
enum Aside {
    Batches(BundleBatches),
    Blocks(BundleBlocks),
}

impl Job<'_> {
    fn run_stage(&mut self, stage: &PlanStage) -> Result<()> {
        self.open_side_inputs(stage)?;
        let mut work = self.work(stage)?;
        self.open_outputs(stage)?;
        if let Root::Read { one_by_one: true, .. } = stage.root
            && self.options.cancel.asked() == Stop::Drain
            && !work.is_empty()
        {
            self.drained = true;
            work.clear();
        }
        let drained = AtomicBool::new(false);
        let next = AtomicUsize::new(0);
        let first_error: Mutex<Option<Error>> = Mutex::new(None);
        let threads = self.options.threads.min(work.len());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    panics::capture_on_this_thread();
                    if let Err(error) = self.work_through(stage, &work, &next, &drained) {
                        self.failed.store(true, Ordering::SeqCst);
                        first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                });
            }
        });
        self.drained |= drained.load(Ordering::Relaxed);
        if self.options.cancel.asked() == Stop::Cancel {
            return Err(Error::new(ErrorKind::Cancelled, "TB0510", "the job was cancelled"));
        }
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => {
                if let Some(store) = stage.root.store() {
                    self.stores.remove(&store);
                }
                Ok(())
            }
        }
    }

    /// One thread's share: takes bundles until there are none, or the job ends.
    fn work_through(
        &self,
        stage: &PlanStage,
        work: &[Work],
        next: &AtomicUsize,
        drained: &AtomicBool,
    ) -> Result<()> {
        let is_source = matches!(stage.root, Root::Read { one_by_one: true, .. });
        let mut open: Option<(Box<dyn OpenStage>, Vec<Aside>)> = None;
        while let Some(bundle) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            if self.harness.is_cancelled() {
                return Ok(());
            }
            if is_source && self.options.cancel.asked() == Stop::Drain {
                drained.store(true, Ordering::Relaxed);
                return Ok(());
            }
            let mut attempt = 1;
            loop {
                let (instance, aside) = match &mut open {
                    Some(open) => open,
                    None => open.insert(self.open(stage)?),
                };
                let result = self.run_bundle(&mut **instance, aside, bundle);
                match result {
                    Ok(()) => {
                        self.commit(stage, &mut **instance, aside);
                        break;
                    }
                    Err(error) => {
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
        }
        Ok(())
    }

    fn run_bundle(&self, instance: &mut dyn OpenStage, aside: &[Aside], work: &Work) -> Result<()> {
        instance.run_bundle(work)?;
        if self.options.run_twice {
            forget(instance, aside);
            instance.run_bundle(work)?;
        }
        Ok(())
    }

    fn open(&self, stage: &PlanStage) -> Result<(Box<dyn OpenStage>, Vec<Aside>)> {
        let mut sinks: Vec<(EdgeId, AnyReceiver)> = Vec::new();
        let mut aside = Vec::new();
        for output in &stage.outputs {
            let edge = stage.spec.edge(output.edge)?;
            let (sink, kept) = match &output.to {
                Destination::Store(_) | Destination::SideInput(_) => {
                    let batches = BundleBatches::default();
                    (edge.edge_type.collector(batches.sink()), Aside::Batches(batches))
                }
                Destination::Shuffle(store, group) => {
                    let Some(Store::Shuffle(shuffle)) = self.stores.get(store) else {
                        return Err(Error::internal("a shuffle was not opened"));
                    };
                    let blocks = BundleBlocks::new(self.partitions());
                    (group.writer(blocks.sink(shuffle.hasher())), Aside::Blocks(blocks))
                }
            };
            sinks.push((output.edge, sink));
            aside.push(kept);
        }
        let harness: Arc<dyn Harness> = self.harness.clone();
        Ok((self.options.executor.open(stage, sinks, &harness)?, aside))
    }

    /// Makes a finished bundle's output and counts everybody's.
    fn commit(&self, stage: &PlanStage, instance: &mut dyn OpenStage, aside: &[Aside]) {
        for (output, aside) in stage.outputs.iter().zip(aside) {
            match (&output.to, aside) {
                (Destination::Store(store), Aside::Batches(batches)) => {
                    if let Some(Store::Batches(all)) = self.stores.get(store) {
                        all.lock().unwrap_or_else(PoisonError::into_inner).extend(batches.take());
                    }
                }
                (Destination::SideInput(spec), Aside::Batches(batches)) => {
                    if let Some(all) = self.sides.get(&spec.id) {
                        all.lock().unwrap_or_else(PoisonError::into_inner).extend(batches.take());
                    }
                }
                (Destination::Shuffle(store, _), Aside::Blocks(blocks)) => {
                    if let Some(Store::Shuffle(shuffle)) = self.stores.get(store) {
                        shuffle.commit(blocks.take());
                    }
                }
                _ => {}
            }
        }
        let root = stage.root.edge();
        let root_is_made = !matches!(stage.root, Root::Read { makes_edge: false, .. });
        let made = |edge: EdgeId| edge != root || root_is_made;
        self.progress.commit(instance.drain_stats(), made, instance.drain_metrics());
    }

    /// Partitions of a shuffle: a few for each thread, so that uneven keys even out.
    fn partitions(&self) -> usize {
        self.options.threads * 4
    }

    fn open_outputs(&mut self, stage: &PlanStage) -> Result<()> {
        for output in &stage.outputs {
            match &output.to {
                Destination::Store(store) => {
                    self.stores.entry(*store).or_insert_with(|| Store::Batches(Mutex::default()));
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

    /// Makes the side inputs readable that this stage is the first to read.
    fn open_side_inputs(&mut self, stage: &PlanStage) -> Result<()> {
        for spec in stage.spec.nodes.iter().flat_map(|node| node.operator.side_inputs()) {
            let Some(batches) = self.sides.remove(&spec.id) else { continue };
            let made = |o: &&tiebeam_plan::StageOutput| matches!(&o.to, Destination::SideInput(s) if s.id == spec.id);
            let output = self.plan.stages.iter().flat_map(|stage| &stage.outputs).find(made);
            let edge = output.ok_or_else(|| Error::internal("a side input that no stage makes"))?.edge;
            let batches = batches.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.harness.add(spec, &self.plan.edges[edge.0], &batches)?;
        }
        Ok(())
    }

    /// The stage's input as bundles.
    fn work(&self, stage: &PlanStage) -> Result<Vec<Work>> {
        let policy = self.options.bundles;
        match &stage.root {
            Root::Impulse(_) => {
                let impulse: Arc<dyn AnyBatch> =
                    Arc::new(Batch::uniform(vec![Bytes::new()], WindowInfo::GLOBAL));
                Ok(vec![Work::Batches(vec![impulse])])
            }
            Root::Read { store, one_by_one, .. } => match self.stores.get(store) {
                Some(Store::Batches(batches)) => {
                    let batches = batches.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    Ok(bundles::cut(batches, *one_by_one, self.options.threads, policy))
                }
                _ => Err(Error::internal("a stage reads a store that was not opened")),
            },
            Root::Groups { store, .. } => match self.stores.get(store) {
                Some(Store::Shuffle(shuffle)) => {
                    let blocks = shuffle.filled().into_iter();
                    let mut work: Vec<Work> =
                        blocks.map(|b| Work::Groups(Blocks(b), shuffle.windowing().clone())).collect();
                    bundles::order(&mut work, policy);
                    Ok(work)
                }
                _ => Err(Error::internal("a stage reads a shuffle that was not opened")),
            },
        }
    }
}

/// Throws away what a bundle made and counted.
fn forget(instance: &mut dyn OpenStage, aside: &[Aside]) {
    for aside in aside {
        match aside {
            Aside::Batches(batches) => drop(batches.take()),
            Aside::Blocks(blocks) => drop(blocks.take()),
        }
    }
    drop(instance.drain_metrics());
    drop(instance.drain_stats());
}
