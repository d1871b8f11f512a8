//! A stage as a runner would describe it to a worker: the way from a planned [`StageSpec`] to a descriptor, for runners
//! written in this library and for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use tiebeam_core::coder::urn;
use tiebeam_core::{CoderSpec, Error, Result};
use tiebeam_exec::{EdgeId, NodeSpec, Operator, StageSpec};
use tiebeam_graph::{GraphNode, NodeKind};
use tiebeam_model::fn_api::{ProcessBundleDescriptor, RemoteGrpcPort};
use tiebeam_model::pipeline::{ApiServiceDescriptor, FunctionSpec, PTransform};
use tiebeam_model::{Message, urns};

use crate::messages::{ENVIRONMENT, Messages, function};
use crate::payload::Steps;
use crate::to_proto::{default_environment, pcollection_id};

/// What a stage is connected to.
#[derive(Debug, Clone)]
pub struct StagePorts {
    /// The stage's id, unique for a worker.
    pub id: String,
    /// Edges that come in, each on a source of its own named by [`source_id`].
    pub sources: Vec<EdgeId>,
    /// Edges that go out, each on a sink of its own named by [`sink_id`].
    pub sinks: Vec<EdgeId>,
    /// Where the data stream is.
    pub url: String,
}

/// The transform id of the source of an edge.
pub fn source_id(edge: EdgeId) -> String {
    format!("source{}", edge.0)
}

/// The transform id of the sink of an edge.
pub fn sink_id(edge: EdgeId) -> String {
    format!("sink{}", edge.0)
}

/// The coder as runners send it to workers: every part that Beam does not define is behind its length, so that a runner
/// can tell elements apart that it can't read.
pub fn behind_lengths(spec: &CoderSpec) -> CoderSpec {
    if spec.urn == urn::LENGTH_PREFIX {
        return spec.clone();
    }
    if !urn::MODEL_CODERS.contains(&spec.urn.as_str()) {
        return CoderSpec::of(urn::LENGTH_PREFIX, [spec.clone()]);
    }
    CoderSpec { components: spec.components.iter().map(behind_lengths).collect(), ..spec.clone() }
}

/// The coders of elements and windows that a port of the stage has for an edge.
///
/// # Errors
/// An internal one when the stage has no such edge.
pub fn port_coders(spec: &StageSpec, edge: EdgeId) -> Result<(CoderSpec, CoderSpec)> {
    let edge = spec.edge(edge)?;
    Ok((behind_lengths(&edge.edge_type.coder_spec()), edge.windowing.window_fn.window_coder()))
}

/// The descriptor of a stage of `steps`' graph.
///
/// # Errors
/// An internal one when the stage holds an operator that is not of that graph.
pub fn describe(spec: &StageSpec, ports: &StagePorts, steps: &Steps) -> Result<ProcessBundleDescriptor> {
    let mut messages = Messages::new(steps);
    let mut transforms = BTreeMap::new();
    let mut pcollections = BTreeMap::new();
    for (index, node) in spec.nodes.iter().enumerate() {
        transforms.insert(format!("t{index}"), transform(&mut messages, node)?);
    }
    let port = |messages: &mut Messages<'_>, urn: &str, edge: EdgeId| -> Result<FunctionSpec> {
        let (element, window) = port_coders(spec, edge)?;
        let coder = CoderSpec::of(urn::WINDOWED_VALUE, [element, window]);
        let payload = RemoteGrpcPort {
            api_service_descriptor: Some(ApiServiceDescriptor {
                url: ports.url.clone(),
                authentication: None,
            }),
            coder_id: messages.coders.id(&coder),
        };
        Ok(function(urn, payload.encode_to_vec()))
    };
    for edge in &ports.sources {
        let spec = Some(port(&mut messages, urns::transform::DATA_SOURCE, *edge)?);
        let outputs = BTreeMap::from([("out".to_owned(), pcollection_id(*edge))]);
        let unique_name = source_id(*edge);
        transforms
            .insert(source_id(*edge), PTransform { unique_name, spec, outputs, ..PTransform::default() });
    }
    for edge in &ports.sinks {
        let spec = Some(port(&mut messages, urns::transform::DATA_SINK, *edge)?);
        let inputs = BTreeMap::from([("in".to_owned(), pcollection_id(*edge))]);
        let unique_name = sink_id(*edge);
        transforms.insert(sink_id(*edge), PTransform { unique_name, spec, inputs, ..PTransform::default() });
    }
    let sides =
        spec.nodes.iter().filter_map(|node| steps.named(&node.step)).flat_map(|node| &node.side_inputs);
    for (_, edge) in sides {
        let edge = steps.graph().edge(*edge)?;
        pcollections.insert(pcollection_id(edge.id), messages.pcollection(edge));
    }
    for edge in &spec.edges {
        pcollections.insert(pcollection_id(edge.id), messages.pcollection(edge));
    }
    Ok(ProcessBundleDescriptor {
        id: ports.id.clone(),
        transforms,
        pcollections,
        windowing_strategies: messages.take_strategies(),
        coders: messages.coders.into_coders(),
        environments: BTreeMap::from([(ENVIRONMENT.to_owned(), default_environment())]),
        state_api_service_descriptor: Some(ApiServiceDescriptor {
            url: ports.url.clone(),
            authentication: None,
        }),
        timer_api_service_descriptor: None,
    })
}

fn transform(messages: &mut Messages<'_>, node: &NodeSpec) -> Result<PTransform> {
    let (of, urn) = origin(messages.steps, node)?;
    let spec = match (&of.kind, urn) {
        (NodeKind::ParDo(operator), _) => messages.par_do(of, &**operator)?,
        (NodeKind::AssignWindows(_), _) => {
            let output =
                of.outputs.first().ok_or_else(|| Error::internal(format!("{} makes nothing", of.step)))?;
            let windowing = messages.steps.graph().windowing(output.edge)?.clone();
            messages.assign_windows(of, &windowing)
        }
        (NodeKind::CombinePerKey(parts), urn) => messages.combine(urn, of, parts),
        (_, urn) => function(urn, Vec::new()),
    };
    let mut inputs: BTreeMap<String, String> =
        node.inputs.iter().enumerate().map(|(i, edge)| (format!("in{i}"), pcollection_id(*edge))).collect();
    inputs.extend(of.side_inputs.iter().map(|(view, edge)| (view.to_string(), pcollection_id(*edge))));
    let names = node.operator.output_names();
    let outputs = node
        .outputs
        .iter()
        .zip(names)
        .map(|(edge, name)| (name.to_string(), pcollection_id(*edge)))
        .collect();
    Ok(PTransform {
        unique_name: node.step.to_string(),
        spec: Some(spec),
        inputs,
        outputs,
        environment_id: ENVIRONMENT.to_owned(),
        ..PTransform::default()
    })
}

/// The graph's step that an operator belongs to, and what it is there.
fn origin<'s>(steps: &'s Steps, node: &NodeSpec) -> Result<(&'s GraphNode, &'static str)> {
    let is = |operator: &Arc<dyn Operator>| Arc::ptr_eq(operator, &node.operator);
    for candidate in &steps.graph().nodes {
        let urn = match &candidate.kind {
            NodeKind::ParDo(operator) if is(operator) => urns::transform::PAR_DO,
            NodeKind::AssignWindows(operator) if is(operator) => urns::transform::ASSIGN_WINDOWS,
            NodeKind::Flatten(operator) if is(operator) => urns::transform::FLATTEN,
            NodeKind::CombinePerKey(parts) if is(&parts.precombine) => urns::transform::COMBINE_PRECOMBINE,
            NodeKind::CombinePerKey(parts) if is(&parts.merge) => urns::transform::COMBINE_MERGE_ACCUMULATORS,
            NodeKind::CombinePerKey(parts) if is(&parts.extract) => urns::transform::COMBINE_EXTRACT_OUTPUTS,
            NodeKind::CombinePerKey(parts) if is(&parts.convert) => {
                urns::transform::COMBINE_CONVERT_TO_ACCUMULATORS
            }
            NodeKind::CombinePerKey(parts) if is(&parts.combine_grouped) => {
                urns::transform::COMBINE_GROUPED_VALUES
            }
            _ => continue,
        };
        return Ok((candidate, urn));
    }
    Err(Error::internal(format!("{} is not of this graph", node.step)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_beam_does_not_define_is_put_behind_a_length() {
        let own = || CoderSpec::leaf("tiebeam:coder:unit:v1");
        let text = || CoderSpec::leaf(urn::STRING_UTF8);
        let list = |inner| CoderSpec::of(urn::ITERABLE, [inner]);
        let behind = |inner| CoderSpec::of(urn::LENGTH_PREFIX, [inner]);
        let spec = CoderSpec::of(urn::KV, [text(), list(own())]);
        assert_eq!(behind_lengths(&spec), CoderSpec::of(urn::KV, [text(), list(behind(own()))]));
        // What is behind a length already stays, and so does all that is inside something foreign.
        assert_eq!(behind_lengths(&behind(own())), behind(own()));
        let foreign = CoderSpec::of("my:coder", [own(), text()]);
        assert_eq!(behind_lengths(&foreign), behind(foreign.clone()));
    }
}
