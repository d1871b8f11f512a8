//! The plan as text and as a dot graph.

use std::fmt::Write as _;

use crate::{Destination, Plan, Root};

impl Plan {
    /// One paragraph a stage: where its elements come from, what is fused in it, where they go.
    pub fn explain(&self) -> String {
        let mut text = String::new();
        for (index, stage) in self.stages.iter().enumerate() {
            let from = match &stage.root {
                Root::Impulse(_) => "impulse".to_owned(),
                Root::Read { store, one_by_one: true, .. } => format!("store {} one by one", store.0),
                Root::Read { store, .. } => format!("store {}", store.0),
                Root::Groups { store, .. } => format!("shuffle {}", store.0),
            };
            let _ = write!(text, "stage {index} from {from}");
            if !stage.after.is_empty() {
                let after: Vec<String> = stage.after.iter().map(usize::to_string).collect();
                let _ = write!(text, ", after {}", after.join(", "));
            }
            text.push('\n');
            for node in &stage.spec.nodes {
                let _ = writeln!(text, "  {}", node.step);
            }
            for output in &stage.outputs {
                let name = &self.edges[output.edge.0].name;
                let _ = match &output.to {
                    Destination::Store(store) => writeln!(text, "  => store {} ({name})", store.0),
                    Destination::Shuffle(store, _) => writeln!(text, "  => shuffle {} ({name})", store.0),
                    Destination::SideInput(spec) => writeln!(text, "  => side input {} ({name})", spec.id),
                };
            }
        }
        text
    }

    /// The stages for graphviz, one box each, an arrow for each wait.
    pub fn to_dot(&self) -> String {
        let mut text = String::from("digraph plan {\n  node [shape=box];\n");
        for (index, stage) in self.stages.iter().enumerate() {
            let steps: Vec<String> = stage
                .spec
                .nodes
                .iter()
                .map(|node| node.step.replace('\\', "\\\\").replace('"', "\\\""))
                .collect();
            let label = if steps.is_empty() { "(read)".to_owned() } else { steps.join("\\n") };
            let _ = writeln!(text, "  s{index} [label=\"{label}\"];");
            for before in &stage.after {
                let _ = writeln!(text, "  s{before} -> s{index};");
            }
        }
        text.push_str("}\n");
        text
    }
}
