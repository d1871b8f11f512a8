//! Rule 4, the sanity check: what the other rules made is a plan of the whole graph.

use std::collections::HashSet;

use tiebeam_core::{Error, Result};
use tiebeam_graph::NodeKind;

use crate::{Destination, Plan, StoreId};

pub(crate) fn check(plan: &Plan) -> Result<()> {
    let mut written: HashSet<StoreId> = HashSet::new();
    let mut placed: HashSet<&str> = HashSet::new();
    for (index, stage) in plan.stages.iter().enumerate() {
        if stage.after.iter().any(|before| *before >= index) {
            return Err(Error::internal(format!("stage {} runs before what it waits for", stage.spec.name)));
        }
        if let Some(store) = stage.root.store()
            && !written.contains(&store)
        {
            return Err(Error::internal(format!("stage {} reads what nobody wrote", stage.spec.name)));
        }
        written.extend(stage.outputs.iter().filter_map(|output| match &output.to {
            Destination::Store(store) | Destination::Shuffle(store, _) => Some(*store),
            Destination::SideInput(_) => None,
        }));
        let mut made = HashSet::from([stage.root.edge()]);
        for node in &stage.spec.nodes {
            placed.insert(&node.step);
            if !node.inputs.iter().any(|input| made.contains(input)) {
                return Err(Error::internal(format!("{} has no input in its stage", node.step)));
            }
            made.extend(node.outputs.iter().copied());
        }
        if let Some(output) = stage.outputs.iter().find(|output| !made.contains(&output.edge)) {
            let name = &plan.edges[output.edge.0].name;
            return Err(Error::internal(format!("stage {} does not make {name}", stage.spec.name)));
        }
    }
    for node in &plan.graph.nodes {
        let is_placed = match node.kind {
            NodeKind::ParDo(_) | NodeKind::AssignWindows(_) | NodeKind::Flatten(_) => {
                placed.contains(&*node.step)
            }
            NodeKind::CombinePerKey(_) => placed.contains(&*format!("{}/Extract", node.step)),
            _ => true,
        };
        if !is_placed {
            return Err(Error::internal(format!("{} is in no stage", node.step)));
        }
    }
    Ok(())
}
