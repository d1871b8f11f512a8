//! [`Pipeline`]: collects transforms; and [`PTransform`], what they are.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::panic::Location;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tiebeam_core::coder::Coder;
use tiebeam_core::{Element, Error, ErrorKind, Result, RunId, WindowingStrategy};
use tiebeam_exec::{EdgeId, EdgeSpec, TypedEdge};

use crate::graph::{
    Arity, Check, Cleanup, Graph, GraphNode, InputDigest, NodeKind, NodeOutput, PipelineErrors, Resumption,
    Scope,
};
use crate::hints::ResourceHints;
use crate::pcollection::PCollection;

/// The variable of the environment that makes a program the process of an isolated model: it builds its pipeline for the step that
/// has the model, and runs none.
pub const MODEL_PROCESS: &str = "TIEBEAM_MODEL_PROCESS";

/// A transform: from a PCollection, several, or the pipeline's beginning, to what it makes.
///
/// `expand` only builds: it lists no files, reads no clock, opens no connection. A worker runs it again.
pub trait PTransform<Input> {
    /// What it makes.
    type Output;

    /// Its label where the user gives none: the type's own name.
    fn label(&self) -> String {
        let name = std::any::type_name::<Self>();
        let name = name.split('<').next().unwrap_or(name);
        name.rsplit("::").next().unwrap_or(name).to_owned()
    }

    /// Applies the transforms that it is made of.
    fn expand(self, input: Input) -> Self::Output;
}

/// A pipeline under construction. Clones are handles of the same pipeline.
#[derive(Clone)]
pub struct Pipeline(Rc<RefCell<Builder>>);

struct Builder {
    nodes: Vec<GraphNode>,
    edges: Vec<EdgeSpec>,
    scopes: Vec<Scope>,
    checks: Vec<Check>,
    cleanups: Vec<Cleanup>,
    resumptions: Vec<Resumption>,
    inputs: Vec<InputDigest>,
    files: Vec<PathBuf>,
    errors: Vec<(Error, &'static Location<'static>)>,
    /// The composites that are being expanded, innermost last; the user's place of the outermost.
    open: Vec<(usize, &'static Location<'static>)>,
    /// What the steps that are being applied need of a machine, that of the outer ones within the inner, innermost last.
    hints: Vec<ResourceHints>,
    /// Labels taken, by full path.
    taken: HashSet<String>,
    /// How often a default label was used, by full path.
    used: HashMap<String, usize>,
    /// How many side inputs were made.
    views: usize,
    /// What is known of edges beside their types, by the type of the fact.
    notes: HashMap<(usize, TypeId), Arc<dyn Any + Send + Sync>>,
}

/// Where a pipeline begins: what sources are applied to.
#[derive(Clone)]
pub struct Begin {
    pipeline: Pipeline,
    label: Option<Arc<str>>,
    hints: Option<ResourceHints>,
}

impl Begin {
    /// The pipeline.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Applies a source.
    #[track_caller]
    pub fn apply<T: PTransform<Begin>>(&self, transform: T) -> T::Output {
        let input = self.pipeline.begin();
        self.pipeline.in_step((&self.label, &self.hints), &transform.label(), || transform.expand(input))
    }

    /// Says what the source that is applied next needs of a machine.
    #[must_use]
    pub fn with_resource_hints(&self, hints: ResourceHints) -> Self {
        Begin { hints: Some(hints), ..self.clone() }
    }
}

/// What a node makes, before it has a number.
pub struct NewOutput {
    /// Its name within the transform.
    pub name: Arc<str>,
    /// Its element type.
    pub edge_type: Arc<dyn tiebeam_exec::EdgeType>,
    /// Its windowing.
    pub windowing: WindowingStrategy,
    /// Whether it holds dead letters.
    pub is_dead_letters: bool,
}

impl NewOutput {
    /// The main output: elements of `T` by `coder`.
    pub fn main<T: Element>(coder: Coder<T>, windowing: WindowingStrategy) -> Self {
        NewOutput { name: "main".into(), edge_type: TypedEdge::new(coder), windowing, is_dead_letters: false }
    }
}

impl Default for Pipeline {
    fn default() -> Self {
        Pipeline::new()
    }
}

impl Pipeline {
    /// An empty pipeline.
    pub fn new() -> Self {
        Pipeline(Rc::new(RefCell::new(Builder {
            nodes: Vec::new(),
            edges: Vec::new(),
            scopes: vec![Scope { path: "".into(), parent: 0 }],
            checks: Vec::new(),
            cleanups: Vec::new(),
            resumptions: Vec::new(),
            inputs: Vec::new(),
            files: Vec::new(),
            errors: Vec::new(),
            open: Vec::new(),
            hints: Vec::new(),
            taken: HashSet::new(),
            used: HashMap::new(),
            views: 0,
            notes: HashMap::new(),
        })))
    }

    /// The beginning, with a label for the source applied next.
    pub fn step(&self, label: impl Into<Arc<str>>) -> Begin {
        Begin { label: Some(label.into()), ..self.begin() }
    }

    /// The beginning.
    pub fn begin(&self) -> Begin {
        Begin { pipeline: self.clone(), label: None, hints: None }
    }

    /// Applies a source.
    #[track_caller]
    pub fn apply<T: PTransform<Begin>>(&self, transform: T) -> T::Output {
        self.begin().apply(transform)
    }

    /// As [`in_scope`](Pipeline::in_scope), with what a handle says of the step that is applied to it.
    #[track_caller]
    pub(crate) fn in_step<R>(
        &self,
        (label, hints): (&Option<Arc<str>>, &Option<ResourceHints>),
        default: &str,
        expand: impl FnOnce() -> R,
    ) -> R {
        match hints {
            None => self.in_scope(label.as_deref(), default, expand),
            Some(hints) => {
                let hinted = || self.with_resource_hints(hints.clone(), expand);
                self.in_scope(label.as_deref(), default, hinted)
            }
        }
    }

    /// Expands inside a scope of that label: how `apply` works, and how a composite groups steps without a type of its own.
    #[track_caller]
    pub fn in_scope<R>(&self, label: Option<&str>, default: &str, expand: impl FnOnce() -> R) -> R {
        let here = Location::caller();
        {
            let mut builder = self.0.borrow_mut();
            let (parent, place) = builder.open.last().copied().unwrap_or((0, here));
            let base = join(&builder.scopes[parent].path, label.unwrap_or(default));
            let path = match label {
                Some(label) if !builder.taken.insert(base.clone()) => {
                    let error = Error::new(
                        ErrorKind::InvalidPipeline,
                        "TB0201",
                        format!("the label `{label}` is used twice in the same place"),
                    )
                    .with_help("give each step its own label: `.step(\"…\")`");
                    builder.errors.push((error.at_step(&base), place));
                    builder.unused(&base)
                }
                Some(_) => base,
                None => builder.unused(&base),
            };
            builder.scopes.push(Scope { path: path.into(), parent });
            let scope = builder.scopes.len() - 1;
            builder.open.push((scope, place));
        }
        let result = expand();
        self.0.borrow_mut().open.pop();
        result
    }

    /// Says of all that `expand` applies what it needs of a machine; hints of inner steps add to it.
    pub fn with_resource_hints<R>(&self, hints: ResourceHints, expand: impl FnOnce() -> R) -> R {
        {
            let mut builder = self.0.borrow_mut();
            let hints = match builder.hints.last() {
                Some(outer) => hints.within(outer),
                None => hints,
            };
            builder.hints.push(hints);
        }
        let result = expand();
        self.0.borrow_mut().hints.pop();
        result
    }

    /// The full path of the transform that is being expanded.
    pub fn current_step(&self) -> Arc<str> {
        let builder = self.0.borrow();
        builder.scopes[builder.open.last().map_or(0, |(scope, _)| *scope)].path.clone()
    }

    /// Records a mistake in the pipeline's construction. Handles stay usable, so that one build shows all mistakes.
    #[track_caller]
    pub fn fail(&self, error: Error) {
        let here = Location::caller();
        let step = self.current_step();
        let mut builder = self.0.borrow_mut();
        let place = builder.open.last().map_or(here, |(_, place)| place);
        let error = if step.is_empty() { error } else { error.at_step(&step) };
        builder.errors.push((error, place));
    }

    /// Adds something that must hold before any element is read: a model that loads, an output that can be written.
    pub fn add_check(&self, run: impl Fn() -> Result<()> + Send + Sync + 'static) {
        let step = self.current_step();
        self.0.borrow_mut().checks.push(Check { step, run: Arc::new(run) });
    }

    /// Adds something to be called when a run has ended, however it ended: what removes the temporary files of a failed
    /// job, say. It is called in the process that submitted the job, with the run's id for this step, see
    /// [`RunId::of_step`] (the step is the one that is being expanded), and must bear being called when there is nothing
    /// to do.
    pub fn add_cleanup(&self, run: impl Fn(RunId) + Send + Sync + 'static) {
        let step = self.current_step();
        self.0.borrow_mut().cleanups.push(Cleanup { step, run: Arc::new(run) });
    }

    /// Adds something to be taken up again before a run goes on in another process: the claim of an output, say. It is
    /// called with the run's id for this step, as a [cleanup](Pipeline::add_cleanup) is.
    pub fn add_resumption(&self, run: impl Fn(RunId) -> Result<()> + Send + Sync + 'static) {
        let step = self.current_step();
        self.0.borrow_mut().resumptions.push(Resumption { step, run: Arc::new(run) });
    }

    /// Adds a digest of what this step reads from outside. It is asked for when a run begins that may have to go on in
    /// another process, and again there: a run does not go on with another input.
    pub fn add_input_digest(&self, digest: impl Fn() -> Result<u64> + Send + Sync + 'static) {
        let step = self.current_step();
        self.0.borrow_mut().inputs.push(InputDigest { step, digest: Arc::new(digest) });
    }

    /// Adds a file that a step reads beside its input, such as a model: it travels with a job to another engine.
    pub fn add_file(&self, path: impl Into<PathBuf>) {
        let (path, mut builder) = (path.into(), self.0.borrow_mut());
        if !builder.files.contains(&path) {
            builder.files.push(path);
        }
    }

    /// Notes what is known of the elements of an edge beside their type, for transforms that read it: one fact of a type.
    pub(crate) fn note<F: Send + Sync + 'static>(&self, edge: EdgeId, fact: Arc<F>) {
        self.0.borrow_mut().notes.insert((edge.0, TypeId::of::<F>()), fact);
    }

    /// What was noted of an edge.
    pub(crate) fn noted<F: Send + Sync + 'static>(&self, edge: EdgeId) -> Option<Arc<F>> {
        self.0.borrow().notes.get(&(edge.0, TypeId::of::<F>()))?.clone().downcast().ok()
    }

    /// What is known of one edge is true of another one.
    pub(crate) fn keep_notes(&self, from: EdgeId, to: EdgeId) {
        let mut builder = self.0.borrow_mut();
        let of = |((edge, kind), fact): (&(usize, TypeId), &Arc<dyn Any + Send + Sync>)| {
            (*edge == from.0).then(|| ((to.0, *kind), fact.clone()))
        };
        let kept: Vec<_> = builder.notes.iter().filter_map(of).collect();
        builder.notes.extend(kept);
    }

    /// Adds a primitive with the path of the scope that is open; gives the numbers of its outputs.
    #[track_caller]
    pub fn add_node(
        &self,
        kind: NodeKind,
        inputs: Vec<EdgeId>,
        side_inputs: Vec<(Arc<str>, EdgeId)>,
        outputs: Vec<NewOutput>,
        arity: Arity,
    ) -> Vec<EdgeId> {
        let here = Location::caller();
        let mut builder = self.0.borrow_mut();
        let (scope, place) = builder.open.last().copied().unwrap_or((0, here));
        let path = builder.scopes[scope].path.clone();
        let taken = builder.nodes.iter().any(|node| node.step == path);
        let step: Arc<str> = if path.is_empty() || taken {
            let base = join(&path, kind.name());
            builder.unused(&base).into()
        } else {
            path
        };
        let mut ids = Vec::with_capacity(outputs.len());
        let mut made = Vec::with_capacity(outputs.len());
        for output in outputs {
            let id = EdgeId(builder.edges.len());
            let name =
                if &*output.name == "main" { step.clone() } else { format!("{step}.{}", output.name).into() };
            builder.edges.push(EdgeSpec {
                id,
                name,
                edge_type: output.edge_type,
                windowing: output.windowing,
            });
            made.push(NodeOutput { name: output.name, edge: id, is_dead_letters: output.is_dead_letters });
            ids.push(id);
        }
        let hints = builder.hints.last().cloned().unwrap_or_default();
        let node = GraphNode { step, kind, inputs, side_inputs, outputs: made, arity, scope, hints, place };
        builder.nodes.push(node);
        ids
    }

    /// A handle of an edge that [`add_node`](Pipeline::add_node) made.
    pub fn pcollection<T: Element>(&self, edge: EdgeId, coder: Coder<T>) -> PCollection<T> {
        PCollection::from_edge(self.clone(), edge, coder)
    }

    pub(crate) fn windowing(&self, edge: EdgeId) -> WindowingStrategy {
        self.0.borrow().edges[edge.0].windowing.clone()
    }

    pub(crate) fn set_coder<T: Element>(&self, edge: EdgeId, coder: Coder<T>) {
        self.0.borrow_mut().edges[edge.0].edge_type = TypedEdge::new(coder);
    }

    /// A number that no other view of this pipeline has.
    pub(crate) fn next_view(&self) -> usize {
        let mut builder = self.0.borrow_mut();
        builder.views += 1;
        builder.views
    }

    pub(crate) fn is(&self, other: &Pipeline) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// The number of transforms applied so far.
    pub fn len(&self) -> usize {
        self.0.borrow().nodes.len()
    }

    /// Whether nothing was applied.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The finished graph.
    ///
    /// # Errors
    /// All mistakes at once, each with its place in the user's code.
    pub fn build(&self) -> Result<Arc<Graph>, PipelineErrors> {
        let builder = self.0.borrow();
        let mut errors = builder.errors.clone();
        if std::env::var_os(MODEL_PROCESS).is_some() {
            let message = "the process of an isolated model came to a pipeline that does not have the model";
            let error = Error::new(ErrorKind::InvalidPipeline, "TB0246", message).with_help(
                "a program finds the model again if it builds the same pipeline first of all, whenever it is started",
            );
            errors.push((error, Location::caller()));
        }
        for node in &builder.nodes {
            let group = match &node.kind {
                NodeKind::GroupByKey(group) => group,
                NodeKind::CombinePerKey(parts) => &parts.input_group,
                _ => continue,
            };
            if !group.key_is_deterministic() {
                let key = node.inputs.first().map(|edge| builder.edges[edge.0].edge_type.type_name());
                let error = Error::new(
                    ErrorKind::InvalidPipeline,
                    "TB0202",
                    format!(
                        "{} cannot be grouped by key: equal keys may have unequal encodings",
                        key.unwrap_or("?")
                    ),
                )
                .with_help("use a whole number, text, bytes or a struct of these as the key");
                errors.push((error.at_step(&node.step), node.place));
            }
        }
        if builder.nodes.is_empty() {
            let error = Error::new(ErrorKind::InvalidPipeline, "TB0203", "the pipeline has no transforms");
            errors.push((error, Location::caller()));
        }
        if !errors.is_empty() {
            return Err(PipelineErrors(errors));
        }
        Ok(Arc::new(Graph {
            nodes: builder.nodes.clone(),
            edges: builder.edges.clone(),
            scopes: builder.scopes.clone(),
            checks: builder.checks.clone(),
            cleanups: builder.cleanups.clone(),
            resumptions: builder.resumptions.clone(),
            inputs: builder.inputs.clone(),
            files: builder.files.clone(),
        }))
    }
}

impl Builder {
    /// The path, with a number when it was used before.
    fn unused(&mut self, base: &str) -> String {
        loop {
            let n = self.used.entry(base.to_owned()).or_insert(0);
            *n += 1;
            let path = if *n == 1 { base.to_owned() } else { format!("{base}-{n}") };
            if self.taken.insert(path.clone()) {
                return path;
            }
        }
    }
}

fn join(parent: &str, label: &str) -> String {
    if parent.is_empty() { label.to_owned() } else { format!("{parent}/{label}") }
}

/// A transform made of a function: groups the steps inside under one label.
///
/// ```
/// # use tiebeam_graph::{composite, Create, PCollection, Pipeline};
/// let p = Pipeline::new();
/// let lengths = composite("WordLengths", |lines: PCollection<String>| {
///     lines.flat_map(|line| line.split(' ').map(str::len).collect::<Vec<_>>())
/// });
/// let out = p.apply(Create::of(["a bc".to_owned()])).apply(lengths);
/// ```
pub fn composite<I, O, F: FnOnce(I) -> O>(label: impl Into<String>, expand: F) -> Composite<F> {
    Composite { label: label.into(), expand }
}

/// What [`composite`] makes.
pub struct Composite<F> {
    label: String,
    expand: F,
}

impl<I, O, F: FnOnce(I) -> O> PTransform<I> for Composite<F> {
    type Output = O;

    fn label(&self) -> String {
        self.label.clone()
    }

    fn expand(self, input: I) -> O {
        (self.expand)(input)
    }
}
