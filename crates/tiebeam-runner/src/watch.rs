//! Looking at a job's elements while it runs, and bounding what its sources give: taps on the edges that matter, and none
//! anywhere else.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tiebeam_core::metrics::{MetricKey, MetricValue};
use tiebeam_core::{CoderSpec, Result, RunId, Timestamp, Window, WindowInfo};
use tiebeam_exec::harness::{Timer, UserState};
use tiebeam_exec::{
    AnyBatch, AnyReceiver, EdgeId, EdgeSpec, EdgeType, Harness, SideValues, Stage, StepStats, Tap, WireCoders,
};
use tiebeam_graph::{Graph, GraphNode, NodeKind};
use tiebeam_plan::{PlanStage, Root};

use crate::bundles::Work;
use crate::executor::{Feeder, OpenStage, StageExecutor};

/// Executes stages with taps on their edges: a limit of what sources give, samples for who looks on.
#[derive(Default)]
pub struct WatchedExecutor {
    limit: Option<Limit>,
    samples: Option<Samples>,
}

impl WatchedExecutor {
    /// Without taps yet.
    pub fn new() -> Self {
        WatchedExecutor::default()
    }

    /// Each source gives at most as many elements.
    #[must_use]
    pub fn with_limit(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Elements can be looked at.
    #[must_use]
    pub fn with_samples(mut self, samples: Samples) -> Self {
        self.samples = Some(samples);
        self
    }
}

impl StageExecutor for WatchedExecutor {
    fn open(
        &self,
        stage: &PlanStage,
        sinks: Vec<(EdgeId, AnyReceiver)>,
        harness: &Arc<dyn Harness>,
    ) -> Result<Box<dyn OpenStage>> {
        let made_elsewhere = match &stage.root {
            Root::Read { edge, makes_edge: false, .. } => Some(*edge),
            _ => None,
        };
        let taken: Mutex<Vec<Arc<Taken>>> = Mutex::default();
        let harness: Arc<dyn Harness> = match &self.limit {
            Some(limit) => Arc::new(Limited { harness: harness.clone(), sources: limit.0.clone() }),
            None => harness.clone(),
        };
        let mut instance = Stage::build_tapped(&stage.spec, sinks, &harness, &|edge| {
            if made_elsewhere == Some(edge.id) {
                return None;
            }
            let limit = self.limit.as_ref().and_then(|limit| limit.taken(edge.id));
            if let Some(limit) = &limit {
                taken.lock().unwrap_or_else(PoisonError::into_inner).push(limit.clone());
            }
            let samples = self.samples.as_ref().and_then(|samples| samples.tap(edge));
            (limit.is_some() || samples.is_some())
                .then(|| Arc::new(EdgeTap { limit, samples }) as Arc<dyn Tap>)
        })?;
        let feeder = Feeder::new(stage, instance.take_root(stage.root.edge())?)?;
        let taken = taken.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Box::new(WatchedStage { stage: instance, feeder, taken }))
    }
}

struct WatchedStage {
    stage: Stage,
    feeder: Feeder,
    taken: Vec<Arc<Taken>>,
}

impl OpenStage for WatchedStage {
    fn run_bundle(&mut self, work: &Work) -> Result<()> {
        let WatchedStage { stage, feeder, taken } = self;
        // The bundle before this one has been committed.
        taken.iter().for_each(|taken| taken.keep());
        let result = stage.run_bundle(|| feeder.feed(work));
        if result.is_err() {
            taken.iter().for_each(|taken| taken.give_back());
        }
        result
    }

    fn drain_metrics(&mut self) -> Vec<(MetricKey, MetricValue)> {
        self.stage.metrics().drain()
    }

    fn drain_stats(&mut self) -> StepStats {
        self.stage.drain_stats()
    }
}

struct EdgeTap {
    limit: Option<Arc<Taken>>,
    samples: Option<SampleTap>,
}

impl Tap for EdgeTap {
    fn pass(&self, batch: &dyn AnyBatch) -> Result<usize> {
        let passing = match &self.limit {
            Some(limit) => limit.take(batch.len()),
            None => batch.len(),
        };
        if let Some(samples) = &self.samples {
            samples.look(batch, passing);
        }
        Ok(passing)
    }
}

/// At most so many elements from each source, in all: exact with any number of threads, and the first ones with one.
pub struct Limit(Arc<[Source]>);

struct Source {
    /// The full path of the composite that the source is, with a slash behind it.
    inside: String,
    edges: Vec<EdgeId>,
    left: AtomicU64,
}

impl Limit {
    /// `n` elements from each source of that graph.
    pub fn new(graph: &Graph, n: u64) -> Self {
        let sources = sources(graph).into_iter();
        Limit(
            sources
                .map(|(path, edges)| Source { inside: format!("{path}/"), edges, left: AtomicU64::new(n) })
                .collect(),
        )
    }

    fn taken(&self, edge: EdgeId) -> Option<Arc<Taken>> {
        let index = self.0.iter().position(|source| source.edges.contains(&edge))?;
        Some(Arc::new(Taken { sources: self.0.clone(), index, in_bundle: AtomicU64::new(0) }))
    }
}

/// What one stage's instance has taken of a source's bound: a bundle that fails gives it back.
struct Taken {
    sources: Arc<[Source]>,
    index: usize,
    in_bundle: AtomicU64,
}

impl Taken {
    fn left(&self) -> &AtomicU64 {
        &self.sources[self.index].left
    }

    fn take(&self, n: usize) -> usize {
        let mut given = 0;
        // The closure never refuses.
        let _ = self.left().fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            given = left.min(n as u64);
            Some(left - given)
        });
        self.in_bundle.fetch_add(given, Ordering::SeqCst);
        given as usize
    }

    fn keep(&self) {
        self.in_bundle.store(0, Ordering::SeqCst);
    }

    fn give_back(&self) {
        self.left().fetch_add(self.in_bundle.swap(0, Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// A harness that tells sources when they have given enough.
struct Limited {
    harness: Arc<dyn Harness>,
    sources: Arc<[Source]>,
}

impl Harness for Limited {
    fn has_enough(&self, step: &str) -> bool {
        let of = self.sources.iter().find(|source| step.starts_with(&source.inside));
        of.is_some_and(|source| source.left.load(Ordering::SeqCst) == 0)
    }

    fn side_input(&self, id: &str, window: &Window, key: Option<&[u8]>) -> Result<SideValues> {
        self.harness.side_input(id, window, key)
    }

    fn wire_coders(&self, id: &str) -> Option<WireCoders> {
        self.harness.wire_coders(id)
    }

    fn run(&self) -> RunId {
        self.harness.run()
    }

    fn is_cancelled(&self) -> bool {
        self.harness.is_cancelled()
    }

    fn bundle_number(&self) -> Option<u64> {
        self.harness.bundle_number()
    }

    fn now(&self) -> Timestamp {
        self.harness.now()
    }

    fn state(&self, step: &str, key: &[u8], window: &Window) -> Result<Arc<dyn UserState>> {
        self.harness.state(step, key, window)
    }

    fn set_timer(&self, step: &str, timer: &Timer) -> Result<()> {
        self.harness.set_timer(step, timer)
    }
}

/// The sources of a graph by their paths, with the edges on which their elements come out: composites that begin at an
/// impulse and read nothing from outside. Sinks and combines have impulses too, and read.
pub fn sources(graph: &Graph) -> Vec<(Arc<str>, Vec<EdgeId>)> {
    let mut found: Vec<(Arc<str>, Vec<EdgeId>)> = Vec::new();
    let impulses = graph.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Impulse));
    for impulse in impulses {
        let Some(begin) = impulse.outputs.first().map(|output| output.edge) else { continue };
        let scope = graph.scopes.get(impulse.scope).map_or(0, |scope| scope.parent);
        // An impulse that stands in the pipeline itself is the source together with the step that reads it.
        let inside: Vec<&GraphNode> = match scope {
            0 => graph.nodes.iter().filter(|n| n.step == impulse.step || n.inputs.contains(&begin)).collect(),
            scope => graph.nodes.iter().filter(|node| is_within(graph, node.scope, scope)).collect(),
        };
        let made: BTreeSet<EdgeId> = inside.iter().flat_map(|n| &n.outputs).map(|o| o.edge).collect();
        let reads = |node: &&GraphNode| -> bool {
            let sides = node.side_inputs.iter().map(|(_, edge)| edge);
            node.inputs.iter().chain(sides).any(|edge| !made.contains(edge))
        };
        if inside.iter().any(reads) {
            continue;
        }
        let path = match scope {
            0 => inside.last().map_or_else(|| impulse.step.clone(), |node| node.step.clone()),
            scope => graph.scopes[scope].path.clone(),
        };
        if found.iter().all(|(other, _)| *other != path) {
            found.push((path, leaving(graph, &inside)));
        }
    }
    found
}

fn is_within(graph: &Graph, scope: usize, outer: usize) -> bool {
    let mut at = scope;
    while at != 0 {
        if at == outer {
            return true;
        }
        at = graph.scopes[at].parent;
    }
    false
}

/// The edges by which elements that are no dead letters leave these nodes; before a reshuffle, where there is one: it gives
/// the same elements to all who read them.
fn leaving(graph: &Graph, inside: &[&GraphNode]) -> Vec<EdgeId> {
    let mut dead: BTreeSet<EdgeId> = BTreeSet::new();
    for node in inside {
        let of_dead = !node.inputs.is_empty() && node.inputs.iter().all(|edge| dead.contains(edge));
        dead.extend(node.outputs.iter().filter(|o| of_dead || o.is_dead_letters).map(|o| o.edge));
    }
    let read_outside = |edge: EdgeId| {
        let reads = |node: &GraphNode| {
            node.inputs.contains(&edge) || node.side_inputs.iter().any(|(_, side)| *side == edge)
        };
        graph.nodes.iter().any(|node| reads(node) && inside.iter().all(|own| own.step != node.step))
    };
    let made = inside.iter().flat_map(|node| &node.outputs).map(|output| output.edge);
    let mut edges: Vec<EdgeId> = made.filter(|edge| !dead.contains(edge) && read_outside(*edge)).collect();
    for edge in &mut edges {
        while let Some(node) = graph.producer(*edge)
            && matches!(node.kind, NodeKind::Reshuffle | NodeKind::ReshuffleOneByOne)
            && let Some(before) = node.inputs.first()
        {
            *edge = *before;
        }
    }
    edges
}

/// An element that was looked at.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its encoding, in nested context.
    pub encoded: Bytes,
    /// What it carries.
    pub info: WindowInfo,
}

/// What there is to say of an edge whose elements can be looked at.
#[derive(Clone)]
pub struct SampledEdge {
    /// The full path of the step and output.
    pub name: Arc<str>,
    /// The Rust type of the elements.
    pub type_name: &'static str,
    /// How they are encoded.
    pub coder: CoderSpec,
}

/// Lets others look at elements while a job runs. As long as nobody looks it costs one load of a number a batch. Clones
/// look at the same job.
#[derive(Clone)]
pub struct Samples(Arc<HashMap<EdgeId, Arc<Sampled>>>);

struct Sampled {
    edge: SampledEdge,
    /// How many more are wanted.
    wanted: AtomicUsize,
    taken: Mutex<Vec<Sample>>,
    came: Condvar,
}

/// An element that is longer is no sample but a burden.
const LONGEST: usize = 1 << 20;

impl Samples {
    /// Of a job of that graph.
    pub fn new(graph: &Graph) -> Self {
        let of = |edge: &EdgeSpec| Sampled {
            edge: SampledEdge {
                name: edge.name.clone(),
                type_name: edge.edge_type.type_name(),
                coder: edge.edge_type.coder_spec(),
            },
            wanted: AtomicUsize::new(0),
            taken: Mutex::default(),
            came: Condvar::new(),
        };
        Samples(Arc::new(graph.edges.iter().map(|edge| (edge.id, Arc::new(of(edge)))).collect()))
    }

    /// The edge of that number.
    pub fn edge(&self, edge: EdgeId) -> Option<&SampledEdge> {
        self.0.get(&edge).map(|sampled| &sampled.edge)
    }

    /// The next `n` elements on an edge, or as many as come until `patience` has passed or `is_over` says so.
    pub fn next(
        &self,
        edge: EdgeId,
        n: usize,
        patience: Duration,
        is_over: &dyn Fn() -> bool,
    ) -> Vec<Sample> {
        let Some(sampled) = self.0.get(&edge) else { return Vec::new() };
        let end = Instant::now() + patience;
        let mut taken = sampled.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.clear();
        sampled.wanted.store(n, Ordering::SeqCst);
        while taken.len() < n {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || is_over() {
                break;
            }
            let step = left.min(Duration::from_millis(50));
            taken = sampled.came.wait_timeout(taken, step).unwrap_or_else(PoisonError::into_inner).0;
        }
        sampled.wanted.store(0, Ordering::SeqCst);
        std::mem::take(&mut *taken)
    }

    /// How many edges are being looked at.
    pub fn lookers(&self) -> usize {
        self.0.values().filter(|sampled| sampled.wanted.load(Ordering::Relaxed) > 0).count()
    }

    fn tap(&self, edge: &EdgeSpec) -> Option<SampleTap> {
        let sampled = self.0.get(&edge.id)?.clone();
        Some(SampleTap { sampled, edge_type: edge.edge_type.clone() })
    }
}

struct SampleTap {
    sampled: Arc<Sampled>,
    edge_type: Arc<dyn EdgeType>,
}

impl SampleTap {
    fn look(&self, batch: &dyn AnyBatch, passing: usize) {
        let wanted = self.sampled.wanted.load(Ordering::Relaxed);
        if wanted == 0 || passing == 0 {
            return;
        }
        let mut taken = self.sampled.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.sampled.wanted.load(Ordering::SeqCst).saturating_sub(taken.len());
        let mut keep = |encoded: &[u8], info: &WindowInfo| {
            if encoded.len() <= LONGEST {
                taken.push(Sample { encoded: Bytes::copy_from_slice(encoded), info: info.clone() });
            }
            Ok(())
        };
        // An element that can't be encoded is no sample; the step that writes it will say what is wrong with it.
        drop(self.edge_type.encode_values(&*batch.slice(0..room.min(passing)), &mut keep));
        self.sampled.came.notify_all();
    }
}
