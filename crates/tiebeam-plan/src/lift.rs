//! Rule 1: combiner lifting. A combine per key becomes the four pieces that let it run before the shuffle as well as after.

use std::sync::Arc;

use tiebeam_exec::{EdgeId, EdgeSpec, EdgeType, GroupType, NodeSpec, Operator};
use tiebeam_graph::{Graph, GraphNode, NodeKind};

/// A transform of the lifted graph.
pub(crate) struct Op {
    pub(crate) node: NodeSpec,
    pub(crate) kind: OpKind,
    pub(crate) side_inputs: Vec<EdgeId>,
}

pub(crate) enum OpKind {
    Impulse,
    /// Runs inside a stage.
    ElementWise,
    Group(Arc<dyn GroupType>),
    Reshuffle {
        one_by_one: bool,
    },
}

pub(crate) struct Lifted {
    pub(crate) ops: Vec<Op>,
    pub(crate) edges: Vec<EdgeSpec>,
}

/// An operator where none is needed: impulses, groups and reshuffles are the runner's.
struct Nothing;

impl Operator for Nothing {
    fn build(&self, cx: tiebeam_exec::stage::Build) -> tiebeam_core::Result<tiebeam_exec::stage::Built> {
        Err(tiebeam_core::Error::internal(format!("{} is not an operator", cx.step)))
    }
}

pub(crate) fn lift_combiners(graph: &Graph) -> Lifted {
    let mut lifted = Lifted { ops: Vec::new(), edges: graph.edges.clone() };
    for node in &graph.nodes {
        lifted.add(node);
    }
    lifted
}

impl Lifted {
    fn add(&mut self, node: &GraphNode) {
        let inputs = node.inputs.clone();
        let outputs: Vec<EdgeId> = node.outputs.iter().map(|output| output.edge).collect();
        let side_inputs: Vec<EdgeId> = node.side_inputs.iter().map(|(_, edge)| *edge).collect();
        let nothing: Arc<dyn Operator> = Arc::new(Nothing);
        let (kind, operator) = match &node.kind {
            NodeKind::Impulse => (OpKind::Impulse, nothing),
            NodeKind::ParDo(op) | NodeKind::AssignWindows(op) | NodeKind::Flatten(op) => {
                (OpKind::ElementWise, op.clone())
            }
            NodeKind::GroupByKey(group) => (OpKind::Group(group.clone()), nothing),
            // Refused before.
            NodeKind::External(_) => (OpKind::ElementWise, nothing),
            NodeKind::Reshuffle => (OpKind::Reshuffle { one_by_one: false }, nothing),
            NodeKind::ReshuffleOneByOne => (OpKind::Reshuffle { one_by_one: true }, nothing),
            NodeKind::CombinePerKey(parts) => {
                let accumulators = self.edge(node, "Precombine", parts.accumulators.clone());
                let grouped = self.edge(node, "Group", parts.accumulator_group.grouped_edge());
                let merged = self.edge(node, "Merge", parts.accumulators.clone());
                self.step(
                    node,
                    "Precombine",
                    OpKind::ElementWise,
                    &parts.precombine,
                    inputs,
                    vec![accumulators],
                );
                let group = OpKind::Group(parts.accumulator_group.clone());
                self.step(node, "Group", group, &nothing, vec![accumulators], vec![grouped]);
                self.step(node, "Merge", OpKind::ElementWise, &parts.merge, vec![grouped], vec![merged]);
                self.step(node, "Extract", OpKind::ElementWise, &parts.extract, vec![merged], outputs);
                return;
            }
        };
        let spec = NodeSpec { step: node.step.clone(), operator, inputs, outputs };
        self.ops.push(Op { node: spec, kind, side_inputs });
    }

    fn edge(&mut self, node: &GraphNode, piece: &str, edge_type: Arc<dyn EdgeType>) -> EdgeId {
        let id = EdgeId(self.edges.len());
        let windowing = self.edges[node.outputs[0].edge.0].windowing.clone();
        self.edges.push(EdgeSpec { id, name: format!("{}/{piece}", node.step).into(), edge_type, windowing });
        id
    }

    fn step(
        &mut self,
        node: &GraphNode,
        piece: &str,
        kind: OpKind,
        operator: &Arc<dyn Operator>,
        inputs: Vec<EdgeId>,
        outputs: Vec<EdgeId>,
    ) {
        let step = format!("{}/{piece}", node.step).into();
        let node = NodeSpec { step, operator: operator.clone(), inputs, outputs };
        self.ops.push(Op { node, kind, side_inputs: Vec::new() });
    }
}
