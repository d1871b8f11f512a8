//! A whole graph as Beam's Pipeline message.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tiebeam_core::{Error, Result, WindowingStrategy};
use tiebeam_exec::{EdgeId, EdgeSpec, EdgeType};
use tiebeam_graph::{CombineParts, Graph, GraphNode, NodeKind, ResourceHints};
use tiebeam_model::pipeline::{Components, Environment, FunctionSpec, PCollection, PTransform, Pipeline};
use tiebeam_model::urns;

use crate::lower::reshuffle_parts;
use crate::messages::{ENVIRONMENT, Messages, function};
use crate::payload::Steps;

/// What a worker of this library can do, as URNs: what an environment declares.
pub fn capabilities() -> Vec<String> {
    let transforms = [
        urns::transform::PAR_DO,
        urns::transform::FLATTEN,
        urns::transform::ASSIGN_WINDOWS,
        urns::transform::MAP_WINDOWS,
        urns::transform::COMBINE_PRECOMBINE,
        urns::transform::COMBINE_MERGE_ACCUMULATORS,
        urns::transform::COMBINE_EXTRACT_OUTPUTS,
        urns::transform::COMBINE_CONVERT_TO_ACCUMULATORS,
        urns::transform::COMBINE_GROUPED_VALUES,
    ];
    let protocols = [
        urns::protocol::PROGRESS_REPORTING,
        urns::protocol::SDK_CONSUMING_RECEIVED_DATA,
        urns::protocol::HARNESS_MONITORING_INFOS,
        urns::protocol::MONITORING_INFO_SHORT_IDS,
        urns::protocol::WORKER_STATUS,
        urns::protocol::DATA_SAMPLING,
        urns::protocol::MULTI_CORE_BUNDLE_PROCESSING,
        urns::protocol::STATE_CACHING,
        urns::protocol::CONTROL_REQUEST_ELEMENTS_EMBEDDING,
        urns::protocol::CONTROL_RESPONSE_ELEMENTS_EMBEDDING,
    ];
    let version = concat!("beam:version:sdk_base:tiebeam/", env!("CARGO_PKG_VERSION"));
    tiebeam_core::coder::urn::MODEL_CODERS
        .iter()
        .chain(&transforms)
        .chain(&protocols)
        .map(|urn| (*urn).to_owned())
        .chain([version.to_owned()])
        .collect()
}

/// The environment that says nothing about where it is: whatever the runner has for it.
pub fn default_environment() -> Environment {
    Environment {
        urn: urns::environment::DEFAULT.to_owned(),
        capabilities: capabilities(),
        ..Environment::default()
    }
}

/// The message of a pipeline that was built without options. All user code runs in `environment`, that of steps with resource
/// hints in a copy of it which has them; its capabilities are [`capabilities`] whatever it says.
///
/// # Errors
/// Internal ones, when the graph contradicts itself.
pub fn to_proto(graph: &Arc<Graph>, environment: Environment) -> Result<Pipeline> {
    to_proto_with(&Steps::new(graph.clone()), environment)
}

/// The message of the pipeline whose steps these are: with the options that it was built with, or the recipe.
///
/// Transforms' ids are their paths, PCollections' are `p` and their number: both only for people who read the message.
///
/// # Errors
/// Internal ones, when the graph contradicts itself.
pub fn to_proto_with(steps: &Steps, environment: Environment) -> Result<Pipeline> {
    let graph = steps.graph();
    let mut writer = Writer {
        messages: Messages::new(steps),
        transforms: BTreeMap::new(),
        inner: Vec::new(),
        hinted: Vec::new(),
        own: ENVIRONMENT.to_owned(),
    };
    let mut ids: HashMap<&str, String> = HashMap::new();
    let composites = composites(graph);
    for node in &graph.nodes {
        let inside = composites.iter().any(|scope| graph.scopes[*scope].path == node.step);
        let id = if inside { format!("{}/{}", node.step, node.kind.name()) } else { node.step.to_string() };
        writer.node(graph, node, &id)?;
        ids.insert(&node.step, id);
    }
    let mut roots = Vec::new();
    let mut children: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut placed = BTreeSet::new();
    for node in &graph.nodes {
        let mut child = ids.get(&*node.step).cloned().unwrap_or_default();
        let mut scope = node.scope;
        loop {
            if scope == 0 {
                roots.push(child);
                break;
            }
            if !composites.contains(&scope) {
                scope = graph.scopes[scope].parent;
                continue;
            }
            children.entry(scope).or_default().push(child);
            if !placed.insert(scope) {
                break;
            }
            child = graph.scopes[scope].path.to_string();
            scope = graph.scopes[scope].parent;
        }
    }
    for (scope, subtransforms) in children {
        writer.composite(graph, scope, subtransforms);
    }
    let Writer { mut messages, transforms, inner, hinted, .. } = writer;
    let pcollections = graph.edges.iter().map(|edge| (pcollection_id(edge.id), messages.pcollection(edge)));
    let pcollections = pcollections.collect::<Vec<_>>().into_iter().chain(inner).collect();
    let environment = Environment { capabilities: capabilities(), ..environment };
    let with_hints = |(i, hints): (usize, ResourceHints)| {
        let mut environment = environment.clone();
        environment.resource_hints.extend(hints.to_map().into_iter().map(|(urn, value)| (urn, value.into())));
        (environment_id(i), environment)
    };
    let hinted: Vec<_> = hinted.into_iter().enumerate().map(with_hints).collect();
    Ok(Pipeline {
        components: Some(Components {
            transforms,
            pcollections,
            windowing_strategies: messages.take_strategies(),
            coders: messages.coders.into_coders(),
            environments: [(ENVIRONMENT.to_owned(), environment)].into_iter().chain(hinted).collect(),
        }),
        root_transform_ids: roots,
        display_data: Vec::new(),
        requirements: Vec::new(),
    })
}

/// The id that a PCollection of the graph has in messages.
pub(crate) fn pcollection_id(edge: EdgeId) -> String {
    format!("p{}", edge.0)
}

/// The scopes that are more than the one primitive they were made for.
fn composites(graph: &Graph) -> BTreeSet<usize> {
    let mut members: HashMap<usize, usize> = HashMap::new();
    for node in &graph.nodes {
        *members.entry(node.scope).or_default() += 1;
    }
    let parents: BTreeSet<usize> = graph.scopes.iter().skip(1).map(|scope| scope.parent).collect();
    (1..graph.scopes.len())
        .filter(|scope| {
            let n = members.get(scope).copied().unwrap_or_default();
            n > 1 || parents.contains(scope)
        })
        .collect()
}

/// The id of the environment with the hints of that number.
fn environment_id(hints: usize) -> String {
    format!("{ENVIRONMENT}-{}", hints + 1)
}

struct Writer<'a> {
    messages: Messages<'a>,
    transforms: BTreeMap<String, PTransform>,
    /// PCollections inside combines and reshuffles, with their ids.
    inner: Vec<(String, PCollection)>,
    /// The hints of environments beside the one without.
    hinted: Vec<ResourceHints>,
    /// The environment of the node that is written.
    own: String,
}

impl Writer<'_> {
    fn node(&mut self, graph: &Graph, node: &GraphNode, id: &str) -> Result<()> {
        self.own = self.environment_of(node);
        let windowing = || -> Result<_> {
            let output = node
                .outputs
                .first()
                .ok_or_else(|| Error::internal(format!("{} makes nothing", node.step)))?;
            Ok(&graph.edge(output.edge)?.windowing)
        };
        let (spec, environment) = match &node.kind {
            NodeKind::Impulse => (function(urns::transform::IMPULSE, Vec::new()), ""),
            NodeKind::GroupByKey(_) => (function(urns::transform::GROUP_BY_KEY, Vec::new()), ""),
            NodeKind::Reshuffle | NodeKind::ReshuffleOneByOne => return self.reshuffle(node, id),
            // As it is asked for; whoever submits the pipeline has it expanded first.
            NodeKind::External(spec) => (function(&spec.urn, spec.payload.clone()), ""),
            NodeKind::Flatten(_) => return self.flatten(graph, node, id),
            NodeKind::ParDo(operator) => (self.messages.par_do(node, &**operator)?, &*self.own),
            NodeKind::AssignWindows(_) => (self.messages.assign_windows(node, windowing()?), &*self.own),
            NodeKind::CombinePerKey(parts) => {
                return self.combine(node, id, parts);
            }
        };
        let transform = PTransform {
            unique_name: id.to_owned(),
            spec: Some(spec),
            inputs: inputs_of(node),
            outputs: outputs_of(node),
            environment_id: environment.to_owned(),
            ..PTransform::default()
        };
        self.transforms.insert(id.to_owned(), transform);
        Ok(())
    }

    fn environment_of(&mut self, node: &GraphNode) -> String {
        if node.hints.is_empty() {
            return ENVIRONMENT.to_owned();
        }
        let known = self.hinted.iter().position(|hints| *hints == node.hints);
        environment_id(known.unwrap_or_else(|| {
            self.hinted.push(node.hints.clone());
            self.hinted.len() - 1
        }))
    }

    /// A Flatten. Java's fuser puts one into our stage *and* leaves it to the runner where an input comes from our stage and
    /// another from what the runner does itself: there, a step of ours stands between.
    fn flatten(&mut self, graph: &Graph, node: &GraphNode, id: &str) -> Result<()> {
        let spec = function(urns::transform::FLATTEN, Vec::new());
        let by_runner = |edge: EdgeId| {
            let producer = graph.producer(edge).map(|producer| &producer.kind);
            use NodeKind::{GroupByKey, Impulse, Reshuffle, ReshuffleOneByOne};
            matches!(producer, Some(Impulse | GroupByKey(_) | Reshuffle | ReshuffleOneByOne))
        };
        let (mut inputs, mut pieces) = (inputs_of(node), Vec::new());
        for (i, edge) in node.inputs.iter().enumerate().filter(|(_, edge)| by_runner(**edge)) {
            let read = graph.edge(*edge)?;
            let passed =
                self.inner(format!("{id}/Pass{i}"), read.edge_type.clone(), read.windowing.clone(), false);
            let pass = self.messages.step_function(node, urns::own::PASS_FN);
            let own = self.own.clone();
            pieces.push(self.piece(id, &format!("Pass{i}"), pass, main(*edge), main(passed), &own));
            inputs.insert(format!("in{i}"), pcollection_id(passed));
        }
        if pieces.is_empty() {
            let transform = PTransform {
                unique_name: id.to_owned(),
                spec: Some(spec),
                inputs,
                outputs: outputs_of(node),
                ..PTransform::default()
            };
            self.transforms.insert(id.to_owned(), transform);
            return Ok(());
        }
        pieces.push(self.piece(id, "Flatten", spec, inputs, outputs_of(node), ""));
        let whole = PTransform {
            unique_name: id.to_owned(),
            inputs: inputs_of(node),
            outputs: outputs_of(node),
            subtransforms: pieces,
            ..PTransform::default()
        };
        self.transforms.insert(id.to_owned(), whole);
        Ok(())
    }

    /// A combine is a composite that runners may know. Its pieces are those of a lifted one: Java's fuser knows no other, and
    /// lifts nothing itself.
    fn combine(&mut self, node: &GraphNode, id: &str, parts: &CombineParts) -> Result<()> {
        let output =
            node.outputs.first().ok_or_else(|| Error::internal(format!("{} makes nothing", node.step)))?;
        let windowing = self.messages.steps.graph().edge(output.edge)?.windowing.clone();
        let mut edge = |name: &str, edge_type: Arc<dyn EdgeType>| {
            self.inner(format!("{id}/{name}"), edge_type, windowing.clone(), false)
        };
        let partial = edge("Precombine", parts.accumulators.clone());
        let grouped = edge("GroupByKey", parts.accumulator_group.grouped_edge());
        let merged = edge("Merge", parts.accumulators.clone());
        let mut part = |urn: &str| self.messages.combine(urn, node, parts);
        let whole = part(urns::transform::COMBINE_PER_KEY);
        let precombine = part(urns::transform::COMBINE_PRECOMBINE);
        let merge = part(urns::transform::COMBINE_MERGE_ACCUMULATORS);
        let extract = part(urns::transform::COMBINE_EXTRACT_OUTPUTS);
        let (inputs, outputs) = (inputs_of(node), outputs_of(node));
        let group = function(urns::transform::GROUP_BY_KEY, Vec::new());
        let own = self.own.clone();
        let pieces = [
            self.piece(id, "Precombine", precombine, inputs.clone(), main(partial), &own),
            self.piece(id, "GroupByKey", group, main(partial), main(grouped), ""),
            self.piece(id, "Merge", merge, main(grouped), main(merged), &own),
            self.piece(id, "Extract", extract, main(merged), outputs.clone(), &own),
        ];
        self.whole(id, whole, inputs, outputs, pieces.into());
        Ok(())
    }

    /// A reshuffle is a composite that runners may know: keys of no meaning, a GroupByKey, and the elements out again.
    fn reshuffle(&mut self, node: &GraphNode, id: &str) -> Result<()> {
        let (_, parts) = reshuffle_parts(self.messages.steps.graph(), node)?;
        let global = WindowingStrategy::global;
        let keyed = self.inner(format!("{id}/Spread"), parts.keyed, global(), true);
        let grouped = self.inner(format!("{id}/GroupByKey"), parts.group.grouped_edge(), global(), true);
        let (inputs, outputs) = (inputs_of(node), outputs_of(node));
        let spread = self.messages.step_function(node, urns::own::SPREAD_FN);
        let group = function(urns::transform::GROUP_BY_KEY, Vec::new());
        let gather = self.messages.step_function(node, urns::own::GATHER_FN);
        let own = self.own.clone();
        let pieces = [
            self.piece(id, "Spread", spread, inputs.clone(), main(keyed), &own),
            self.piece(id, "GroupByKey", group, main(keyed), main(grouped), ""),
            self.piece(id, "Gather", gather, main(grouped), outputs.clone(), &own),
        ];
        self.whole(id, function(urns::transform::RESHUFFLE, Vec::new()), inputs, outputs, pieces.into());
        Ok(())
    }

    /// A PCollection inside a composite that the graph does not have.
    fn inner(
        &mut self,
        name: String,
        edge_type: Arc<dyn EdgeType>,
        windowing: WindowingStrategy,
        passing_on: bool,
    ) -> EdgeId {
        let id = EdgeId(self.messages.steps.graph().edges.len() + self.inner.len());
        let edge = EdgeSpec { id, name: name.into(), edge_type, windowing };
        let message =
            if passing_on { self.messages.passing_on(&edge) } else { self.messages.pcollection(&edge) };
        self.inner.push((pcollection_id(id), message));
        id
    }

    /// A primitive inside a composite; gives its id.
    fn piece(
        &mut self,
        whole: &str,
        piece: &str,
        spec: FunctionSpec,
        inputs: BTreeMap<String, String>,
        outputs: BTreeMap<String, String>,
        environment: &str,
    ) -> String {
        let id = format!("{whole}/{piece}");
        let transform = PTransform {
            unique_name: id.clone(),
            spec: Some(spec),
            inputs,
            outputs,
            environment_id: environment.to_owned(),
            ..PTransform::default()
        };
        self.transforms.insert(id.clone(), transform);
        id
    }

    fn whole(
        &mut self,
        id: &str,
        spec: FunctionSpec,
        inputs: BTreeMap<String, String>,
        outputs: BTreeMap<String, String>,
        subtransforms: Vec<String>,
    ) {
        let transform = PTransform {
            unique_name: id.to_owned(),
            spec: Some(spec),
            inputs,
            outputs,
            subtransforms,
            // A runner that lifts a combine runs the pieces where the whole says.
            environment_id: self.own.clone(),
            ..PTransform::default()
        };
        self.transforms.insert(id.to_owned(), transform);
    }

    fn composite(&mut self, graph: &Graph, scope: usize, subtransforms: Vec<String>) {
        let path = &graph.scopes[scope].path;
        let is_inside = |node: &&GraphNode| {
            let mut at = node.scope;
            while at != 0 && at != scope {
                at = graph.scopes[at].parent;
            }
            at == scope
        };
        let (inside, outside): (Vec<_>, Vec<_>) = graph.nodes.iter().partition(is_inside);
        let reads = |nodes: &[&GraphNode]| -> BTreeSet<EdgeId> {
            let sides = nodes.iter().flat_map(|node| node.side_inputs.iter().map(|(_, edge)| *edge));
            nodes.iter().flat_map(|node| node.inputs.iter().copied()).chain(sides).collect()
        };
        let makes: BTreeSet<EdgeId> =
            inside.iter().flat_map(|node| node.outputs.iter().map(|output| output.edge)).collect();
        let named = |edges: Vec<EdgeId>| -> BTreeMap<String, String> {
            edges.into_iter().enumerate().map(|(i, edge)| (format!("{i}"), pcollection_id(edge))).collect()
        };
        let read_outside = reads(&outside);
        let transform = PTransform {
            unique_name: path.to_string(),
            spec: None,
            inputs: named(reads(&inside).difference(&makes).copied().collect()),
            outputs: named(makes.intersection(&read_outside).copied().collect()),
            subtransforms,
            ..PTransform::default()
        };
        self.transforms.insert(path.to_string(), transform);
    }
}

fn main(edge: EdgeId) -> BTreeMap<String, String> {
    BTreeMap::from([("main".to_owned(), pcollection_id(edge))])
}

/// Local names of inputs: side inputs have those of their views, others are numbered.
pub(crate) fn inputs_of(node: &GraphNode) -> BTreeMap<String, String> {
    let main = node.inputs.iter().enumerate().map(|(i, edge)| (format!("in{i}"), pcollection_id(*edge)));
    let sides = node.side_inputs.iter().map(|(view, edge)| (view.to_string(), pcollection_id(*edge)));
    main.chain(sides).collect()
}

/// Local names of outputs: their tags.
pub(crate) fn outputs_of(node: &GraphNode) -> BTreeMap<String, String> {
    node.outputs.iter().map(|output| (output.name.to_string(), pcollection_id(output.edge))).collect()
}
