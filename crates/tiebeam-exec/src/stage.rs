//! [`StageSpec`], what both doors lower to, and [`Stage`], one wired instance of it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tiebeam_core::metrics::{MetricCells, MetricKey, MetricValue};
use tiebeam_core::{
    Batch, Element, Error, ErrorKind, Receiver, Result, RunId, SetupContext, WindowingStrategy,
};

use crate::edge::{AnyReceiver, EdgeType, Tap};
use crate::harness::Harness;
use crate::side_input::SideInputSpec;

/// Names an edge: one PCollection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeId(pub usize);

/// One PCollection as execution sees it.
#[derive(Clone)]
pub struct EdgeSpec {
    /// Its number in the graph.
    pub id: EdgeId,
    /// The full path of the transform and output that make it.
    pub name: Arc<str>,
    /// Its element type and coder.
    pub edge_type: Arc<dyn EdgeType>,
    /// Its windows.
    pub windowing: WindowingStrategy,
}

/// One operator of a stage.
#[derive(Clone)]
pub struct NodeSpec {
    /// The full path of its transform.
    pub step: Arc<str>,
    /// What it does.
    pub operator: Arc<dyn Operator>,
    /// What it reads.
    pub inputs: Vec<EdgeId>,
    /// What it makes, in the operator's order.
    pub outputs: Vec<EdgeId>,
}

/// Operators that run fused: a batch goes through all of them by calls.
#[derive(Clone)]
pub struct StageSpec {
    /// For messages.
    pub name: Arc<str>,
    /// The operators, each after all that feed it.
    pub nodes: Vec<NodeSpec>,
    /// Every edge that a node reads or makes.
    pub edges: Vec<EdgeSpec>,
}

impl StageSpec {
    /// The edge of that number.
    ///
    /// # Errors
    /// An internal one when the stage has none.
    pub fn edge(&self, id: EdgeId) -> Result<&EdgeSpec> {
        self.edges
            .iter()
            .find(|edge| edge.id == id)
            .ok_or_else(|| Error::internal(format!("stage {} has no edge {}", self.name, id.0)))
    }
}

impl fmt::Debug for StageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes.iter().map(|node| &node.step)).finish()
    }
}

/// What makes an operator's instance. Shared by all threads.
pub trait Operator: Send + Sync {
    /// Wires one instance.
    ///
    /// # Errors
    /// Internal ones, when the wiring is wrong.
    fn build(&self, cx: Build) -> Result<Built>;

    /// What it reads beside its elements.
    fn side_inputs(&self) -> &[SideInputSpec] {
        &[]
    }

    /// The names of its outputs, the main one first.
    fn output_names(&self) -> Vec<Arc<str>> {
        vec!["main".into()]
    }
}

/// What an operator is given to wire an instance.
pub struct Build {
    /// The full path of its transform.
    pub step: Arc<str>,
    /// The number of its inputs.
    pub inputs: usize,
    /// A receiver for each output.
    pub outputs: Vec<AnyReceiver>,
    /// The door's services.
    pub harness: Arc<dyn Harness>,
    /// Where its time is added up.
    pub stats: Arc<AtomicU64>,
}

/// A wired operator: its life cycle, and a receiver for each input.
pub struct Built {
    node: Arc<Mutex<dyn Node>>,
    inputs: Vec<AnyReceiver>,
}

impl Built {
    /// An operator of one input of `T`.
    pub fn single<T: Element, N: Node + Receiver<T> + 'static>(
        node: N,
        step: &Arc<str>,
        stats: &Arc<AtomicU64>,
    ) -> Self {
        Built::many::<T, N>(node, step, stats, 1)
    }

    /// An operator of several inputs of `T`, which it does not tell apart.
    pub fn many<T: Element, N: Node + Receiver<T> + 'static>(
        node: N,
        step: &Arc<str>,
        stats: &Arc<AtomicU64>,
        inputs: usize,
    ) -> Self {
        let node = Arc::new(Mutex::new(node));
        let entry = || {
            let entry = Entry { node: node.clone(), step: step.clone(), nanos: stats.clone() };
            AnyReceiver::new::<T>(Box::new(entry))
        };
        Built { inputs: (0..inputs).map(|_| entry()).collect(), node }
    }
}

/// The life cycle of an operator's instance.
pub trait Node: Send {
    /// Once, before all else.
    ///
    /// # Errors
    /// Those of user code.
    fn setup(&mut self, cx: &SetupContext) -> Result<()> {
        let _ = cx;
        Ok(())
    }
    /// Before a bundle.
    ///
    /// # Errors
    /// Those of user code.
    fn start_bundle(&mut self) -> Result<()> {
        Ok(())
    }
    /// After a bundle's last element; passes on all that is held.
    ///
    /// # Errors
    /// Those of user code and of the operators downstream.
    fn finish_bundle(&mut self) -> Result<()> {
        Ok(())
    }
    /// Once, at the end.
    fn teardown(&mut self) {}
}

thread_local! {
    /// The step that this thread is in: a panic unwinds without telling, so it is read afterwards.
    static CURRENT_STEP: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
    /// Time spent in operators called by the current one, so that each step is charged its own.
    static NESTED_NANOS: Cell<u64> = const { Cell::new(0) };
}

/// The way into an operator: names its step in errors and panics, and adds up its time.
struct Entry<N> {
    node: Arc<Mutex<N>>,
    step: Arc<str>,
    nanos: Arc<AtomicU64>,
}

impl<T, N: Receiver<T>> Receiver<T> for Entry<N> {
    fn receive(&mut self, batch: Batch<T>) -> Result<()> {
        let node = &self.node;
        in_step(&self.step, &self.nanos, || lock(node).receive(batch))
    }
}

fn in_step(step: &Arc<str>, nanos: &AtomicU64, call: impl FnOnce() -> Result<()>) -> Result<()> {
    let outer = CURRENT_STEP.replace(Some(step.clone()));
    let before = NESTED_NANOS.replace(0);
    let start = Instant::now();
    let result = call();
    let elapsed = start.elapsed().as_nanos() as u64;
    nanos.fetch_add(elapsed.saturating_sub(NESTED_NANOS.get()), Ordering::Relaxed);
    NESTED_NANOS.set(before + elapsed);
    CURRENT_STEP.set(outer);
    result.map_err(|error| error.at_step(step))
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What went through a stage instance since it was last asked.
#[derive(Debug, Clone, Default)]
pub struct StepStats {
    /// Elements of each edge.
    pub elements: Vec<(EdgeId, u64)>,
    /// Nanoseconds in each step, without the steps it called.
    pub nanos: Vec<(Arc<str>, u64)>,
}

/// A step, its operator's instance, and the nanoseconds spent in it.
type WiredNode = (Arc<str>, Arc<Mutex<dyn Node>>, Arc<AtomicU64>);

/// Looks at a stage instance from another thread, while bundles go through it.
#[derive(Clone)]
pub struct StageWatch {
    nanos: Vec<(Arc<str>, Arc<AtomicU64>)>,
    counts: Vec<(EdgeId, Arc<AtomicU64>)>,
    metrics: MetricCells,
}

impl StageWatch {
    /// What went through since the last [`drain_stats`](Stage::drain_stats). Steps are charged when a batch leaves them.
    pub fn stats(&self) -> StepStats {
        StepStats {
            elements: self.counts.iter().map(|(edge, n)| (*edge, n.load(Ordering::Relaxed))).collect(),
            nanos: self.nanos.iter().map(|(step, n)| (step.clone(), n.load(Ordering::Relaxed))).collect(),
        }
    }

    /// The metrics of its steps since they were last drained.
    pub fn metrics(&self) -> Vec<(MetricKey, MetricValue)> {
        self.metrics.values()
    }
}

/// What taps an edge, if anything does.
pub type TapOf<'a> = dyn Fn(&EdgeSpec) -> Option<Arc<dyn Tap>> + 'a;

/// One wired instance of a stage. Used by one thread at a time.
pub struct Stage {
    name: Arc<str>,
    nodes: Vec<WiredNode>,
    roots: HashMap<EdgeId, AnyReceiver>,
    counts: Vec<(EdgeId, Arc<AtomicU64>)>,
    metrics: MetricCells,
    run: RunId,
    /// How many nodes, from the front, had their set-up.
    set_up: usize,
}

impl Stage {
    /// Wires an instance: `sinks` take what leaves the stage, each edge any number of times. Every edge that no node of
    /// the stage makes becomes a root.
    ///
    /// # Errors
    /// Internal ones, when the wiring is wrong.
    pub fn build(
        spec: &StageSpec,
        sinks: Vec<(EdgeId, AnyReceiver)>,
        harness: &Arc<dyn Harness>,
    ) -> Result<Stage> {
        Stage::build_tapped(spec, sinks, harness, &|_| None)
    }

    /// The same, with taps on edges.
    ///
    /// # Errors
    /// Internal ones, when the wiring is wrong.
    pub fn build_tapped(
        spec: &StageSpec,
        sinks: Vec<(EdgeId, AnyReceiver)>,
        harness: &Arc<dyn Harness>,
        tap: &TapOf<'_>,
    ) -> Result<Stage> {
        let mut consumers: HashMap<EdgeId, Vec<AnyReceiver>> = HashMap::new();
        for (edge, receiver) in sinks {
            consumers.entry(edge).or_default().push(receiver);
        }
        let mut counts = Vec::new();
        let mut close =
            |edge: EdgeId, consumers: &mut HashMap<EdgeId, Vec<AnyReceiver>>| -> Result<AnyReceiver> {
                let edge_spec = spec.edge(edge)?;
                let edge_type = &edge_spec.edge_type;
                let count = Arc::new(AtomicU64::new(0));
                counts.push((edge, count.clone()));
                let all = edge_type.tee(consumers.remove(&edge).unwrap_or_default())?;
                let all = edge_type.counted(all, count)?;
                match tap(edge_spec) {
                    // What a tap holds back was not there: it is not counted.
                    Some(tap) => edge_type.tapped(all, tap),
                    None => Ok(all),
                }
            };
        let mut nodes = Vec::with_capacity(spec.nodes.len());
        for node in spec.nodes.iter().rev() {
            let outputs =
                node.outputs.iter().map(|edge| close(*edge, &mut consumers)).collect::<Result<Vec<_>>>()?;
            let stats = Arc::new(AtomicU64::new(0));
            let built = node.operator.build(Build {
                step: node.step.clone(),
                inputs: node.inputs.len(),
                outputs,
                harness: harness.clone(),
                stats: stats.clone(),
            })?;
            for (edge, receiver) in node.inputs.iter().zip(built.inputs) {
                consumers.entry(*edge).or_default().push(receiver);
            }
            nodes.push((node.step.clone(), built.node, stats));
        }
        nodes.reverse();
        let made = |edge: EdgeId| spec.nodes.iter().any(|node| node.outputs.contains(&edge));
        let mut roots = HashMap::new();
        // Those that nobody reads, too: their elements are counted and go nowhere.
        for edge in spec.edges.iter().map(|edge| edge.id).filter(|edge| !made(*edge)) {
            roots.insert(edge, close(edge, &mut consumers)?);
        }
        Ok(Stage {
            name: spec.name.clone(),
            nodes,
            roots,
            counts,
            metrics: MetricCells::default(),
            run: harness.run(),
            set_up: 0,
        })
    }

    /// The way in for an edge that comes from outside. Each can be taken once.
    ///
    /// # Errors
    /// An internal one when the stage does not read that edge.
    pub fn take_root(&mut self, edge: EdgeId) -> Result<AnyReceiver> {
        self.roots
            .remove(&edge)
            .ok_or_else(|| Error::internal(format!("stage {} does not read edge {}", self.name, edge.0)))
    }

    /// The metrics of its steps.
    pub fn metrics(&self) -> &MetricCells {
        &self.metrics
    }

    /// What other threads look at it by.
    pub fn watch(&self) -> StageWatch {
        StageWatch {
            nanos: self.nodes.iter().map(|(step, _, n)| (step.clone(), n.clone())).collect(),
            counts: self.counts.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// What went through since the last call.
    pub fn drain_stats(&self) -> StepStats {
        StepStats {
            elements: self.counts.iter().map(|(edge, n)| (*edge, n.swap(0, Ordering::Relaxed))).collect(),
            nanos: self
                .nodes
                .iter()
                .map(|(step, _, n)| (step.clone(), n.swap(0, Ordering::Relaxed)))
                .collect(),
        }
    }

    /// Runs one bundle: set-up if it is the first, then start, `feed` (which pushes elements into the roots), finish.
    ///
    /// User panics are caught here: they become errors that name the step, and the stage must not be used again.
    ///
    /// # Errors
    /// The first one of user code, of `feed`, or of what takes the output.
    pub fn run_bundle(&mut self, feed: impl FnOnce() -> Result<()>) -> Result<()> {
        CURRENT_STEP.set(None);
        NESTED_NANOS.set(0);
        let bundle = AssertUnwindSafe(|| {
            while let Some((step, node, nanos)) = self.nodes.get(self.set_up) {
                let cx = SetupContext::new(step.clone(), self.run, self.metrics.of_step(step));
                in_step(step, nanos, || lock(node).setup(&cx))?;
                self.set_up += 1;
            }
            for (step, node, nanos) in self.nodes.iter().rev() {
                in_step(step, nanos, || lock(node).start_bundle())?;
            }
            feed()?;
            for (step, node, nanos) in &self.nodes {
                NESTED_NANOS.set(0);
                in_step(step, nanos, || lock(node).finish_bundle())?;
            }
            Ok(())
        });
        catch_unwind(bundle).unwrap_or_else(|payload| Err(of_panic(payload)))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for (_, node, _) in self.nodes.iter().take(self.set_up) {
            // A teardown that panics must not keep the others from theirs, nor abort while already unwinding.
            let torn_down = catch_unwind(AssertUnwindSafe(|| lock(node).teardown()));
            drop(torn_down);
        }
    }
}

/// The error of a caught panic, with the step that it happened in.
fn of_panic(payload: Box<dyn Any + Send>) -> Error {
    let step = CURRENT_STEP.take();
    let error = match payload.downcast::<Error>() {
        // `abort_bundle`: an error that had no other way out.
        Ok(error) => *error,
        Err(payload) => {
            let text = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic without a message".to_owned());
            let place = crate::panics::take_place().map(|place| format!(" ({place})")).unwrap_or_default();
            Error::new(ErrorKind::Panic, "TB0502", format!("user code panicked: {text}{place}"))
        }
    };
    match step {
        Some(step) => error.at_step(&step),
        None => error,
    }
}
