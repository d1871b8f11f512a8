//! A whole graph as Beam's Pipeline message.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tiebeam_core::{Error, Result};
use tiebeam_exec::{EdgeId, EdgeSpec, EdgeType};
use tiebeam_graph::{CombineParts, Graph, GraphNode, NodeKind};
use tiebeam_model::pipeline::{Components, Environment, FunctionSpec, PTransform, Pipeline};
use tiebeam_model::urns;

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
        urns::protocol::HARNESS_MONITORING_INFOS,
        urns::protocol::MULTI_CORE_BUNDLE_PROCESSING,
        urns::protocol::CONTROL_REQUEST_ELEMENTS_EMBEDDING,
    ];
    let version = concat!("beam:version:sdk_base:tiebeam:", env!("CARGO_PKG_VERSION"));
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

/// The message of a pipeline. All user code runs in `environment`; its capabilities are [`capabilities`] whatever it says.
///
/// Transforms' ids are their paths, PCollections' are `p` and their number: both only for people who read the message.
///
/// # Errors
/// Internal ones, when the graph contradicts itself.
pub fn to_proto(graph: &Arc<Graph>, environment: Environment) -> Result<Pipeline> {
    let steps = Steps::new(graph.clone());
    let mut writer =
        Writer { messages: Messages::new(&steps), transforms: BTreeMap::new(), extra: Vec::new() };
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
    let Writer { mut messages, transforms, extra } = writer;
    let pcollections = graph
        .edges
        .iter()
        .chain(&extra)
        .map(|edge| (pcollection_id(edge.id), messages.pcollection(edge)))
        .collect();
    let environment = Environment { capabilities: capabilities(), ..environment };
    Ok(Pipeline {
        components: Some(Components {
            transforms,
            pcollections,
            windowing_strategies: messages.take_strategies(),
            coders: messages.coders.into_coders(),
            environments: BTreeMap::from([(ENVIRONMENT.to_owned(), environment)]),
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

struct Writer<'a> {
    messages: Messages<'a>,
    transforms: BTreeMap<String, PTransform>,
    /// PCollections inside combines.
    extra: Vec<EdgeSpec>,
}

impl Writer<'_> {
    fn node(&mut self, graph: &Graph, node: &GraphNode, id: &str) -> Result<()> {
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
            NodeKind::Reshuffle | NodeKind::ReshuffleOneByOne => {
                (function(urns::transform::RESHUFFLE, Vec::new()), "")
            }
            NodeKind::Flatten(_) => (function(urns::transform::FLATTEN, Vec::new()), ""),
            NodeKind::ParDo(operator) => (self.messages.par_do(node, &**operator)?, ENVIRONMENT),
            NodeKind::AssignWindows(_) => (self.messages.assign_windows(node, windowing()?), ENVIRONMENT),
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

    /// A combine is a composite that runners may know: a GroupByKey and the combining of grouped values.
    fn combine(&mut self, node: &GraphNode, id: &str, parts: &CombineParts) -> Result<()> {
        let output =
            node.outputs.first().ok_or_else(|| Error::internal(format!("{} makes nothing", node.step)))?;
        let graph = self.messages.steps.graph().clone();
        let grouped = EdgeId(graph.edges.len() + self.extra.len());
        self.extra.push(EdgeSpec {
            id: grouped,
            name: format!("{id}/GroupByKey").into(),
            edge_type: parts.input_group.grouped_edge() as Arc<dyn EdgeType>,
            windowing: graph.edge(output.edge)?.windowing.clone(),
        });
        let between = BTreeMap::from([("main".to_owned(), pcollection_id(grouped))]);
        let whole = self.messages.combine(urns::transform::COMBINE_PER_KEY, node, parts);
        let values = self.messages.combine(urns::transform::COMBINE_GROUPED_VALUES, node, parts);
        let (group_id, values_id) = (format!("{id}/GroupByKey"), format!("{id}/CombineGroupedValues"));
        let transform =
            |unique_name: &str, spec: FunctionSpec, inputs, outputs, environment: &str| PTransform {
                unique_name: unique_name.to_owned(),
                spec: Some(spec),
                inputs,
                outputs,
                environment_id: environment.to_owned(),
                ..PTransform::default()
            };
        let group = function(urns::transform::GROUP_BY_KEY, Vec::new());
        let (inputs, outputs) = (inputs_of(node), outputs_of(node));
        let group = transform(&group_id, group, inputs.clone(), between.clone(), "");
        let values = transform(&values_id, values, between, outputs.clone(), ENVIRONMENT);
        let mut whole = transform(id, whole, inputs, outputs, ENVIRONMENT);
        whole.subtransforms = vec![group_id.clone(), values_id.clone()];
        self.transforms.extend([(group_id, group), (values_id, values), (id.to_owned(), whole)]);
        Ok(())
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
