//! Rules 2 and 3: fusion with unzipped flattens, cuts where a side input would wait for its own stage, and the order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tiebeam_core::{Error, Result};
use tiebeam_exec::{EdgeId, StageSpec};
use tiebeam_graph::Graph;

use crate::lift::{Lifted, Op, OpKind};
use crate::{Destination, Plan, PlanOptions, PlanStage, Root, StageOutput, StoreId};

struct Draft {
    root: Root,
    nodes: Vec<tiebeam_exec::NodeSpec>,
    outputs: Vec<StageOutput>,
    after: BTreeSet<usize>,
}

struct Fusion {
    edges: Vec<tiebeam_exec::EdgeSpec>,
    stages: Vec<Draft>,
    /// The stages in which the elements of an edge come by.
    live: HashMap<EdgeId, Vec<usize>>,
    /// Stages that begin at an edge kept because of a cut.
    cuts: HashMap<(EdgeId, usize), usize>,
    stores: usize,
}

pub(crate) fn fuse(graph: &Arc<Graph>, lifted: Lifted, options: PlanOptions) -> Result<Plan> {
    let Lifted { ops, edges } = lifted;
    let mut fusion =
        Fusion { edges, stages: Vec::new(), live: HashMap::new(), cuts: HashMap::new(), stores: 0 };
    for op in ops {
        fusion.add(op, options)?;
    }
    let Fusion { edges, stages, stores, .. } = fusion;
    let stages = stages.into_iter().map(|draft| finish(draft, &edges)).collect();
    Ok(Plan { graph: graph.clone(), stages, edges, stores })
}

fn finish(draft: Draft, edges: &[tiebeam_exec::EdgeSpec]) -> PlanStage {
    let mut used: BTreeSet<EdgeId> = BTreeSet::from([draft.root.edge()]);
    for node in &draft.nodes {
        used.extend(node.inputs.iter().chain(&node.outputs));
    }
    used.extend(draft.outputs.iter().map(|output| output.edge));
    let name = match (draft.nodes.first(), draft.nodes.last()) {
        (Some(first), Some(last)) if draft.nodes.len() > 1 => {
            format!("{} … {}", first.step, last.step).into()
        }
        (Some(only), _) => only.step.clone(),
        _ => edges[draft.root.edge().0].name.clone(),
    };
    let spec =
        StageSpec { name, nodes: draft.nodes, edges: used.iter().map(|e| edges[e.0].clone()).collect() };
    PlanStage { spec, root: draft.root, outputs: draft.outputs, after: draft.after.into_iter().collect() }
}

impl Fusion {
    fn stage(&mut self, root: Root, after: impl IntoIterator<Item = usize>) -> usize {
        let edge = root.edge();
        self.stages.push(Draft { root, nodes: vec![], outputs: vec![], after: after.into_iter().collect() });
        let stage = self.stages.len() - 1;
        self.live.entry(edge).or_default().push(stage);
        stage
    }

    fn store(&mut self) -> StoreId {
        self.stores += 1;
        StoreId(self.stores - 1)
    }

    fn live_in(&self, edge: EdgeId) -> Result<Vec<usize>> {
        self.live.get(&edge).cloned().ok_or_else(|| {
            Error::internal(format!("edge {} is read before it is made", self.edges[edge.0].name))
        })
    }

    /// Whether `stage` must run after `other`, by whatever way.
    fn waits_for(&self, stage: usize, other: usize) -> bool {
        stage == other || self.stages[stage].after.iter().any(|before| self.waits_for(*before, other))
    }

    fn add(&mut self, op: Op, options: PlanOptions) -> Result<()> {
        match &op.kind {
            OpKind::Impulse => {
                self.stage(Root::Impulse(op.node.outputs[0]), []);
            }
            OpKind::Group(group) => {
                let store = self.store();
                let from = self.live_in(op.node.inputs[0])?;
                for stage in &from {
                    let to = Destination::Shuffle(store, group.clone());
                    self.stages[*stage].outputs.push(StageOutput { edge: op.node.inputs[0], to });
                }
                self.stage(Root::Groups { edge: op.node.outputs[0], store, group: group.clone() }, from);
            }
            OpKind::Reshuffle { one_by_one } => {
                let store = self.store();
                let from = self.live_in(op.node.inputs[0])?;
                for stage in &from {
                    let to = Destination::Store(store);
                    self.stages[*stage].outputs.push(StageOutput { edge: op.node.inputs[0], to });
                }
                let (edge, one_by_one) = (op.node.outputs[0], *one_by_one);
                self.stage(Root::Read { edge, store, one_by_one, makes_edge: true }, from);
            }
            OpKind::ElementWise => self.add_element_wise(op, options)?,
        }
        Ok(())
    }

    fn add_element_wise(&mut self, op: Op, options: PlanOptions) -> Result<()> {
        let mut side_stages = BTreeSet::new();
        for edge in &op.side_inputs {
            side_stages.extend(self.live_in(*edge)?);
        }
        for (spec, edge) in op.node.operator.side_inputs().iter().zip(&op.side_inputs) {
            for stage in self.live_in(*edge)? {
                let outputs = &mut self.stages[stage].outputs;
                let known = |o: &StageOutput| matches!(&o.to, Destination::SideInput(s) if s.id == spec.id);
                if !outputs.iter().any(known) {
                    outputs.push(StageOutput { edge: *edge, to: Destination::SideInput(spec.clone()) });
                }
            }
        }
        // Which stages feed the transform, and on which edges.
        let mut feeding: BTreeMap<usize, Vec<EdgeId>> = BTreeMap::new();
        for edge in &op.node.inputs {
            for stage in self.live_in(*edge)? {
                let edges = feeding.entry(stage).or_default();
                if !edges.contains(edge) {
                    edges.push(*edge);
                }
            }
        }
        let mut homes = BTreeSet::new();
        for (stage, edges) in feeding {
            let would_wait_for_itself = side_stages.iter().any(|side| self.waits_for(*side, stage));
            if options.fuse && !would_wait_for_itself {
                homes.insert(stage);
            } else {
                for edge in edges {
                    homes.insert(self.cut(edge, stage, &side_stages, options));
                }
            }
        }
        for home in &homes {
            self.stages[*home].after.extend(&side_stages);
            self.stages[*home].nodes.push(op.node.clone());
        }
        for output in &op.node.outputs {
            self.live.insert(*output, homes.iter().copied().collect());
        }
        Ok(())
    }

    /// A stage that reads what `stage` keeps of `edge`.
    fn cut(
        &mut self,
        edge: EdgeId,
        stage: usize,
        side_stages: &BTreeSet<usize>,
        options: PlanOptions,
    ) -> usize {
        if options.fuse
            && let Some(existing) = self.cuts.get(&(edge, stage))
            && !side_stages.iter().any(|side| self.waits_for(*side, *existing))
        {
            return *existing;
        }
        let store = self.store();
        self.stages[stage].outputs.push(StageOutput { edge, to: Destination::Store(store) });
        let root = Root::Read { edge, store, one_by_one: false, makes_edge: false };
        self.stages.push(Draft { root, nodes: vec![], outputs: vec![], after: BTreeSet::from([stage]) });
        let cut = self.stages.len() - 1;
        self.cuts.insert((edge, stage), cut);
        cut
    }
}

/// Rule 3: each stage after all that it waits for, otherwise in the order in which they were written.
pub(crate) fn order(plan: Plan) -> Result<Plan> {
    let n = plan.stages.len();
    let mut place = vec![usize::MAX; n];
    let mut order = Vec::with_capacity(n);
    while order.len() < n {
        let before = order.len();
        for stage in 0..n {
            if place[stage] == usize::MAX && plan.stages[stage].after.iter().all(|a| place[*a] != usize::MAX)
            {
                place[stage] = order.len();
                order.push(stage);
            }
        }
        if order.len() == before {
            return Err(Error::internal("stages wait for each other in a circle"));
        }
    }
    let mut stages: Vec<PlanStage> = order.into_iter().map(|stage| plan.stages[stage].clone()).collect();
    for stage in &mut stages {
        stage.after = stage.after.iter().map(|before| place[*before]).collect();
        stage.after.sort_unstable();
    }
    Ok(Plan { stages, ..plan })
}
