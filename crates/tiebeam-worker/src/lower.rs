//! From a runner's stage descriptor to a [`StageSpec`].
//!
//! Steps are found by the name in their payload; ids of transforms and PCollections are the runner's and mean nothing. What
//! has no payload of ours (a Flatten, an assignment of standard windows) gets its element type from its neighbours.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tiebeam_core::coder::{WindowCoder, urn};
use tiebeam_core::{CoderSpec, Error, ErrorKind, Result, WindowFn, WindowingStrategy};
use tiebeam_exec::{EdgeId, EdgeSpec, EdgeType, NodeSpec, Operator, ReshuffleParts, StageSpec};
use tiebeam_graph::{Graph, GraphNode, NodeKind};
use tiebeam_model::fn_api::{ProcessBundleDescriptor, RemoteGrpcPort};
use tiebeam_model::pipeline::{CombinePayload, FunctionSpec, PTransform, ParDoPayload};
use tiebeam_model::tiebeam::WindowIntoPayload;
use tiebeam_model::{Message, urns};

use crate::coders::{coder_spec, missing};
use crate::harness::SidePort;
use crate::map_windows;
use crate::recipe::{Found, Library};
use crate::scoped::{scoped, scoped_name};
use crate::windowing::window_fn_of;

/// A way in or out of a stage.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    /// The transform's id in the descriptor.
    pub(crate) transform: String,
    /// Where the data stream is.
    pub(crate) url: String,
    /// The edge that comes in or goes out.
    pub(crate) edge: EdgeId,
    /// How elements are written.
    pub(crate) element: CoderSpec,
    /// How their windows are written; a whole `param_windowed_value` where they are not.
    pub(crate) window: CoderSpec,
}

/// A stage as exec understands it, and what ties it to the descriptor.
#[derive(Clone)]
pub(crate) struct Lowered {
    pub(crate) spec: StageSpec,
    pub(crate) sources: Vec<Port>,
    pub(crate) sinks: Vec<Port>,
    /// The PCollection's id of each edge.
    pub(crate) pcollections: HashMap<EdgeId, String>,
    /// The runner's coder of each PCollection, where it tells one.
    pub(crate) element_coders: HashMap<EdgeId, CoderSpec>,
    /// The transform's id of each step.
    pub(crate) transforms: HashMap<Arc<str>, String>,
    pub(crate) sides: HashMap<Arc<str>, SidePort>,
}

/// What a transform will be once its element types are known.
enum Work {
    Operator(Arc<dyn Operator>),
    Flatten,
    AssignWindows(Arc<dyn WindowFn>),
}

struct Draft {
    transform: String,
    step: Arc<str>,
    work: Work,
    inputs: Vec<EdgeId>,
    outputs: Vec<EdgeId>,
}

struct Lowering<'a> {
    descriptor: &'a ProcessBundleDescriptor,
    library: &'a Library,
    edges: BTreeMap<&'a str, EdgeId>,
    /// One past the highest edge: outputs that the runner left out get numbers of their own.
    next_edge: usize,
    types: HashMap<EdgeId, Arc<dyn EdgeType>>,
    drafts: Vec<Draft>,
    sources: Vec<Port>,
    sinks: Vec<Port>,
    sides: HashMap<Arc<str>, SidePort>,
}

/// Lowers a descriptor.
///
/// # Errors
/// When the descriptor is damaged, belongs to another pipeline, or asks for something that workers don't do.
pub(crate) fn lower(descriptor: &ProcessBundleDescriptor, library: &Library) -> Result<Lowered> {
    let edges: BTreeMap<&str, EdgeId> =
        descriptor.pcollections.keys().enumerate().map(|(i, id)| (id.as_str(), EdgeId(i))).collect();
    let mut lowering = Lowering {
        descriptor,
        library,
        next_edge: edges.len(),
        edges,
        types: HashMap::new(),
        drafts: Vec::new(),
        sources: Vec::new(),
        sinks: Vec::new(),
        sides: HashMap::new(),
    };
    for (id, transform) in &descriptor.transforms {
        lowering.add(id, transform)?;
    }
    lowering.spread_types();
    lowering.finish()
}

impl<'a> Lowering<'a> {
    fn add(&mut self, id: &str, transform: &'a PTransform) -> Result<()> {
        let Some(spec) = &transform.spec else {
            return if transform.subtransforms.is_empty() {
                Err(unsupported(id, "without a URN"))
            } else {
                Ok(()) // A composite: its parts stand beside it.
            };
        };
        match spec.urn.as_str() {
            urns::transform::DATA_SOURCE => {
                let output = only(&transform.outputs, id, "output")?;
                let port = self.port(id, spec, output)?;
                self.sources.push(port);
                Ok(())
            }
            urns::transform::DATA_SINK => {
                let input = only(&transform.inputs, id, "input")?;
                let port = self.port(id, spec, input)?;
                self.sinks.push(port);
                Ok(())
            }
            urns::transform::PAR_DO => self.par_do(id, transform, spec),
            urns::transform::FLATTEN => self.flatten(id, transform),
            urns::transform::ASSIGN_WINDOWS => self.assign_windows(id, transform, spec),
            urns::transform::MAP_WINDOWS => self.map_windows(id, transform, spec),
            urns::transform::COMBINE_PRECOMBINE
            | urns::transform::COMBINE_MERGE_ACCUMULATORS
            | urns::transform::COMBINE_EXTRACT_OUTPUTS
            | urns::transform::COMBINE_CONVERT_TO_ACCUMULATORS
            | urns::transform::COMBINE_GROUPED_VALUES => self.combine(id, transform, spec),
            _ if !transform.subtransforms.is_empty() => Ok(()),
            other => Err(unsupported(id, &format!("of kind `{other}`"))),
        }
    }

    fn edge(&self, id: &str) -> Result<EdgeId> {
        self.edges.get(id).copied().ok_or_else(|| missing("PCollection", id))
    }

    fn port(&self, id: &str, spec: &FunctionSpec, pcollection: &str) -> Result<Port> {
        let port = RemoteGrpcPort::decode(spec.payload.as_ref()).map_err(|error| damaged(id, error))?;
        let coder = coder_spec(&self.descriptor.coders, &port.coder_id)?;
        let parts = <[CoderSpec; 2]>::try_from(coder.components.clone());
        let [element, window] = match (coder.urn.as_str(), parts) {
            (urn::WINDOWED_VALUE, Ok(parts)) => parts,
            (urn::PARAM_WINDOWED_VALUE, Ok([element, _])) => [element, coder],
            (other, _) => {
                return Err(Error::new(
                    ErrorKind::InvalidData,
                    "TB0540",
                    format!(
                        "port `{id}` has coder {other}, wanted a windowed value of an element and a window"
                    ),
                ));
            }
        };
        let url = port.api_service_descriptor.map(|service| service.url).unwrap_or_default();
        Ok(Port { transform: id.to_owned(), url, edge: self.edge(pcollection)?, element, window })
    }

    fn par_do(&mut self, id: &str, transform: &PTransform, spec: &FunctionSpec) -> Result<()> {
        let payload = ParDoPayload::decode(spec.payload.as_ref()).map_err(|error| damaged(id, error))?;
        let function = payload.do_fn.ok_or_else(|| missing("the function of transform", id))?;
        let found = self.library.find(&function.urn, &function.payload, id)?;
        if function.urn == urns::own::SPREAD_FN || function.urn == urns::own::GATHER_FN {
            return self.reshuffle(id, transform, &function.urn, &found);
        }
        let node = found.node();
        if function.urn == urns::own::PASS_FN {
            return self.pass(id, transform, &found);
        }
        let (NodeKind::ParDo(operator) | NodeKind::AssignWindows(operator)) = &node.kind else {
            return Err(wrong_kind(id, node, "ParDo"));
        };
        let mut main = transform.inputs.iter().filter(|(local, _)| !payload.side_inputs.contains_key(*local));
        let (Some((_, input)), None) = (main.next(), main.next()) else {
            return Err(count_of(
                id,
                "main input",
                transform.inputs.len().saturating_sub(payload.side_inputs.len()),
            ));
        };
        let input = self.edge(input)?;
        self.known_type(input, found.graph(), node.inputs.first().copied())?;
        for (view, _) in &node.side_inputs {
            let port = self.side_port(id, transform, view, operator)?;
            self.sides.insert(scoped_name(id, view).into(), port);
        }
        let mut outputs = Vec::with_capacity(node.outputs.len());
        for output in &node.outputs {
            let edge = match transform.outputs.get(&*output.name) {
                Some(pcollection) => self.edge(pcollection)?,
                None => self.unread_edge(),
            };
            self.known_type(edge, found.graph(), Some(output.edge))?;
            outputs.push(edge);
        }
        self.drafts.push(Draft {
            transform: id.to_owned(),
            step: node.step.clone(),
            work: Work::Operator(scoped(id, operator)),
            inputs: vec![input],
            outputs,
        });
        Ok(())
    }

    /// What stands between a Flatten and an input that the runner makes: passes elements on.
    fn pass(&mut self, id: &str, transform: &PTransform, found: &Found) -> Result<()> {
        let node = found.node();
        let NodeKind::Flatten(operator) = &node.kind else {
            return Err(wrong_kind(id, node, "Flatten"));
        };
        let output =
            node.outputs.first().ok_or_else(|| Error::internal(format!("{} makes nothing", node.step)))?;
        let edge_type = found.graph().edge(output.edge)?.edge_type.clone();
        let piece = id.rsplit('/').next().unwrap_or("Pass");
        let step = format!("{}/{piece}", node.step).into();
        self.single(id, transform, step, operator.clone(), edge_type.clone(), edge_type)
    }

    /// One half of a reshuffle, for a runner that knows none itself.
    fn reshuffle(&mut self, id: &str, transform: &PTransform, urn: &str, found: &Found) -> Result<()> {
        let node = found.node();
        let (NodeKind::Reshuffle | NodeKind::ReshuffleOneByOne) = &node.kind else {
            return Err(wrong_kind(id, node, "half of a Reshuffle"));
        };
        let (edge_type, parts) = reshuffle_parts(found.graph(), node)?;
        let (piece, operator, from, to) = if urn == urns::own::SPREAD_FN {
            ("Spread", parts.spread, edge_type, parts.keyed)
        } else {
            ("Gather", parts.gather, parts.group.grouped_edge(), edge_type)
        };
        self.single(id, transform, format!("{}/{piece}", node.step).into(), operator, from, to)
    }

    /// A transform of one input and one output, both of known type.
    fn single(
        &mut self,
        id: &str,
        transform: &PTransform,
        step: Arc<str>,
        operator: Arc<dyn Operator>,
        from: Arc<dyn EdgeType>,
        to: Arc<dyn EdgeType>,
    ) -> Result<()> {
        let input = self.edge(only(&transform.inputs, id, "input")?)?;
        let output = self.edge(only(&transform.outputs, id, "output")?)?;
        self.types.insert(input, from);
        self.types.insert(output, to);
        self.drafts.push(Draft {
            transform: id.to_owned(),
            step,
            work: Work::Operator(operator),
            inputs: vec![input],
            outputs: vec![output],
        });
        Ok(())
    }

    fn side_port(
        &self,
        id: &str,
        transform: &PTransform,
        view: &Arc<str>,
        operator: &Arc<dyn Operator>,
    ) -> Result<SidePort> {
        let pcollection = transform.inputs.get(&**view).ok_or_else(|| missing("side input", view))?;
        let pcollection = self
            .descriptor
            .pcollections
            .get(pcollection)
            .ok_or_else(|| missing("PCollection", pcollection))?;
        let strategy = self
            .descriptor
            .windowing_strategies
            .get(&pcollection.windowing_strategy_id)
            .ok_or_else(|| missing("windowing strategy", &pcollection.windowing_strategy_id))?;
        let access = operator
            .side_inputs()
            .iter()
            .find(|side| side.id == *view)
            .map(|side| side.access)
            .ok_or_else(|| Error::internal(format!("step {id} does not know its side input `{view}`")))?;
        Ok(SidePort {
            transform: id.to_owned(),
            local: view.to_string(),
            access,
            window: WindowCoder::of(&coder_spec(&self.descriptor.coders, &strategy.window_coder_id)?)?,
            element: coder_spec(&self.descriptor.coders, &pcollection.coder_id)?,
        })
    }

    fn flatten(&mut self, id: &str, transform: &PTransform) -> Result<()> {
        let inputs = transform.inputs.values().map(|input| self.edge(input)).collect::<Result<Vec<_>>>()?;
        let output = self.edge(only(&transform.outputs, id, "output")?)?;
        self.draft_of_neighbours(id, transform, Work::Flatten, inputs, output)
    }

    fn assign_windows(&mut self, id: &str, transform: &PTransform, spec: &FunctionSpec) -> Result<()> {
        let payload = WindowIntoPayload::decode(spec.payload.as_ref()).map_err(|error| damaged(id, error))?;
        let input = self.edge(only(&transform.inputs, id, "input")?)?;
        let output = self.edge(only(&transform.outputs, id, "output")?)?;
        let Some(step) = &payload.step else {
            let function = FunctionSpec::decode(payload.window_fn).map_err(|error| damaged(id, error))?;
            let work = Work::AssignWindows(window_fn_of(&function)?);
            return self.draft_of_neighbours(id, transform, work, vec![input], output);
        };
        let found = self.library.agreed(step)?;
        let node = found.node();
        let NodeKind::AssignWindows(operator) = &node.kind else {
            return Err(wrong_kind(id, node, "AssignWindows"));
        };
        self.known_type(input, found.graph(), node.inputs.first().copied())?;
        self.known_type(output, found.graph(), node.outputs.first().map(|output| output.edge))?;
        self.drafts.push(Draft {
            transform: id.to_owned(),
            step: node.step.clone(),
            work: Work::Operator(operator.clone()),
            inputs: vec![input],
            outputs: vec![output],
        });
        Ok(())
    }

    /// A transform whose element type its neighbours tell, or the step of the same name.
    fn draft_of_neighbours(
        &mut self,
        id: &str,
        transform: &PTransform,
        work: Work,
        inputs: Vec<EdgeId>,
        output: EdgeId,
    ) -> Result<()> {
        let own = self.library.own();
        let named = own.named(&transform.unique_name);
        if let Some(node) =
            named.filter(|node| matches!(node.kind, NodeKind::Flatten(_) | NodeKind::AssignWindows(_)))
        {
            self.known_type(output, own.graph(), node.outputs.first().map(|output| output.edge))?;
        }
        let name = if transform.unique_name.is_empty() { id } else { transform.unique_name.as_str() };
        let (transform, step, outputs) = (id.to_owned(), name.into(), vec![output]);
        self.drafts.push(Draft { transform, step, work, inputs, outputs });
        Ok(())
    }

    fn map_windows(&mut self, id: &str, transform: &PTransform, spec: &FunctionSpec) -> Result<()> {
        let mapping = FunctionSpec::decode(spec.payload.as_ref()).map_err(|error| damaged(id, error))?;
        let window_fn = map_windows::side_window_fn(&mapping, &self.library.graphs())?;
        let (from, to) = (map_windows::edge_type(), map_windows::edge_type());
        self.single(id, transform, id.into(), map_windows::operator(window_fn), from, to)
    }

    fn combine(&mut self, id: &str, transform: &PTransform, spec: &FunctionSpec) -> Result<()> {
        let payload = CombinePayload::decode(spec.payload.as_ref()).map_err(|error| damaged(id, error))?;
        let function = payload.combine_fn.ok_or_else(|| missing("the function of transform", id))?;
        let found = self.library.find(&function.urn, &function.payload, id)?;
        let node = found.node();
        let NodeKind::CombinePerKey(parts) = &node.kind else {
            return Err(wrong_kind(id, node, "CombinePerKey"));
        };
        let of_graph = |edge: Option<EdgeId>| -> Result<Arc<dyn EdgeType>> {
            let edge = edge.ok_or_else(|| Error::internal(format!("{} has no edge", node.step)))?;
            Ok(found.graph().edge(edge)?.edge_type.clone())
        };
        let of_input = || of_graph(node.inputs.first().copied());
        let of_output = || of_graph(node.outputs.first().map(|output| output.edge));
        let accumulators = || parts.accumulators.clone();
        let (piece, operator, from, to) = match spec.urn.as_str() {
            urns::transform::COMBINE_PRECOMBINE => {
                ("Precombine", &parts.precombine, of_input()?, accumulators())
            }
            urns::transform::COMBINE_MERGE_ACCUMULATORS => {
                ("Merge", &parts.merge, parts.accumulator_group.grouped_edge(), accumulators())
            }
            urns::transform::COMBINE_EXTRACT_OUTPUTS => {
                ("Extract", &parts.extract, accumulators(), of_output()?)
            }
            urns::transform::COMBINE_CONVERT_TO_ACCUMULATORS => {
                ("Convert", &parts.convert, of_input()?, accumulators())
            }
            _ => ("Combine", &parts.combine_grouped, parts.input_group.grouped_edge(), of_output()?),
        };
        self.single(id, transform, format!("{}/{piece}", node.step).into(), operator.clone(), from, to)
    }

    fn unread_edge(&mut self) -> EdgeId {
        self.next_edge += 1;
        EdgeId(self.next_edge - 1)
    }

    fn known_type(&mut self, edge: EdgeId, graph: &Graph, of: Option<EdgeId>) -> Result<()> {
        let of = of.ok_or_else(|| Error::internal("a step without an edge"))?;
        self.types.insert(edge, graph.edge(of)?.edge_type.clone());
        Ok(())
    }

    /// Gives every edge its element type: those beside a Flatten or an assignment of windows have one in common; what is
    /// still unknown then is looked up by the PCollection's name.
    fn spread_types(&mut self) {
        let mut named = false;
        loop {
            let before = self.types.len();
            for draft in self.drafts.iter().filter(|draft| !matches!(draft.work, Work::Operator(_))) {
                let edges = || draft.inputs.iter().chain(&draft.outputs);
                if let Some(known) = edges().find_map(|edge| self.types.get(edge).cloned()) {
                    for edge in edges() {
                        self.types.entry(*edge).or_insert_with(|| known.clone());
                    }
                }
            }
            if self.types.len() == before {
                if named {
                    return;
                }
                named = true;
                for (id, edge) in &self.edges {
                    let name = &self.descriptor.pcollections[*id].unique_name;
                    if let Some(own) = self.library.own().graph().edges.iter().find(|own| *own.name == **name)
                    {
                        self.types.entry(*edge).or_insert_with(|| own.edge_type.clone());
                    }
                }
            }
        }
    }

    fn finish(self) -> Result<Lowered> {
        let pcollections: HashMap<EdgeId, String> =
            self.edges.iter().map(|(id, edge)| (*edge, (*id).to_owned())).collect();
        let coder = |id: &str| {
            let pcollection = self.descriptor.pcollections.get(id)?;
            coder_spec(&self.descriptor.coders, &pcollection.coder_id).ok()
        };
        let element_coders = self.edges.iter().filter_map(|(id, edge)| Some((*edge, coder(id)?))).collect();
        let mut used: BTreeSet<EdgeId> =
            self.sources.iter().chain(&self.sinks).map(|port| port.edge).collect();
        used.extend(self.drafts.iter().flat_map(|draft| draft.inputs.iter().chain(&draft.outputs)));
        let mut edges = Vec::with_capacity(used.len());
        for edge in used {
            let id = pcollections.get(&edge).map_or("(unread)", String::as_str);
            let edge_type = self.types.get(&edge).cloned().ok_or_else(|| {
                Error::new(
                    ErrorKind::Unsupported,
                    "TB0544",
                    format!(
                        "nothing in stage `{}` tells the element type of PCollection `{id}`",
                        self.descriptor.id
                    ),
                )
            })?;
            // Ports write windows as their own coders say, and operators know their own windowing.
            edges.push(EdgeSpec {
                id: edge,
                name: id.into(),
                edge_type,
                windowing: WindowingStrategy::global(),
            });
        }
        let transforms =
            self.drafts.iter().map(|draft| (draft.step.clone(), draft.transform.clone())).collect();
        let nodes = in_order(&self.descriptor.id, self.drafts, &self.sources)?
            .into_iter()
            .map(|draft| node_of(draft, &self.types))
            .collect::<Result<Vec<_>>>()?;
        let spec = StageSpec { name: self.descriptor.id.as_str().into(), nodes, edges };
        Ok(Lowered {
            spec,
            sources: self.sources,
            sinks: self.sinks,
            pcollections,
            element_coders,
            transforms,
            sides: self.sides,
        })
    }
}

/// The element type of a reshuffle, and its parts.
pub(crate) fn reshuffle_parts(
    graph: &Graph,
    node: &GraphNode,
) -> Result<(Arc<dyn EdgeType>, ReshuffleParts)> {
    let edge = node.outputs.first().ok_or_else(|| Error::internal(format!("{} makes nothing", node.step)))?;
    let edge = graph.edge(edge.edge)?;
    let parts = edge.edge_type.reshuffle(&edge.windowing.window_fn.window_coder())?;
    Ok((edge.edge_type.clone(), parts))
}

fn node_of(draft: Draft, types: &HashMap<EdgeId, Arc<dyn EdgeType>>) -> Result<NodeSpec> {
    let Draft { transform, step, work, inputs, outputs } = draft;
    let own_type = || {
        let edge = outputs.first().and_then(|edge| types.get(edge));
        edge.ok_or_else(|| Error::internal(format!("transform {transform} has no element type")))
    };
    let operator = match work {
        Work::Operator(operator) => operator,
        Work::Flatten => own_type()?.flatten(),
        Work::AssignWindows(window_fn) => own_type()?.assign_windows(window_fn),
    };
    Ok(NodeSpec { step, operator, inputs, outputs })
}

/// Each transform after all that feed it.
fn in_order(stage: &str, mut drafts: Vec<Draft>, sources: &[Port]) -> Result<Vec<Draft>> {
    let mut makers: HashMap<EdgeId, usize> = HashMap::new();
    for edge in drafts.iter().flat_map(|draft| &draft.outputs).chain(sources.iter().map(|port| &port.edge)) {
        *makers.entry(*edge).or_default() += 1;
    }
    if makers.values().any(|n| *n > 1) {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "TB0540",
            format!("stage `{stage}` has a PCollection that two transforms make"),
        ));
    }
    let mut made: BTreeSet<EdgeId> = sources.iter().map(|port| port.edge).collect();
    let mut ordered = Vec::with_capacity(drafts.len());
    while !drafts.is_empty() {
        let ready = |draft: &Draft| draft.inputs.iter().all(|i| made.contains(i) || !makers.contains_key(i));
        let Some(next) = drafts.iter().position(ready) else {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "TB0540",
                format!("the transforms of stage `{stage}` wait for each other in a circle"),
            ));
        };
        let draft = drafts.remove(next);
        made.extend(&draft.outputs);
        ordered.push(draft);
    }
    Ok(ordered)
}

fn only<'m>(map: &'m BTreeMap<String, String>, id: &str, what: &str) -> Result<&'m str> {
    match map.len() {
        1 => map.values().next().map(String::as_str).ok_or_else(|| count_of(id, what, 0)),
        n => Err(count_of(id, what, n)),
    }
}

fn count_of(id: &str, what: &str, n: usize) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0540", format!("transform `{id}` has {n} {what}s, wanted one"))
}

fn unsupported(id: &str, what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "TB0544", format!("transform `{id}` {what} cannot be run by a worker"))
}

fn wrong_kind(id: &str, node: &GraphNode, wanted: &str) -> Error {
    Error::new(
        ErrorKind::InvalidData,
        "TB0540",
        format!(
            "transform `{id}` is a {wanted} and names step `{}`, which is a {}",
            node.step,
            node.kind.name()
        ),
    )
}

pub(crate) fn damaged(id: &str, error: tiebeam_model::DecodeError) -> Error {
    Error::new(ErrorKind::InvalidData, "TB0540", format!("the payload of transform `{id}` is damaged"))
        .with_source(error)
}
