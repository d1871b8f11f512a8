//! The graph as text: what was built, step by step.

use std::fmt::Write as _;

use crate::graph::Graph;

impl Graph {
    /// One line a step: its path, what it is, what it reads and makes, with element types.
    pub fn explain(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let inputs: Vec<String> =
                node.inputs.iter().map(|edge| self.edges[edge.0].name.to_string()).collect();
            let outputs: Vec<String> = node
                .outputs
                .iter()
                .map(|output| {
                    let element = short_type(self.edges[output.edge.0].edge_type.type_name());
                    if &*output.name == "main" { element } else { format!("{}: {element}", output.name) }
                })
                .collect();
            let _ = write!(text, "{} [{}]", node.step, node.kind.name());
            if !inputs.is_empty() {
                let _ = write!(text, " <- {}", inputs.join(", "));
            }
            for (_, edge) in &node.side_inputs {
                let _ = write!(text, " (side: {})", self.edges[edge.0].name);
            }
            let _ = writeln!(text, " -> {}", outputs.join(", "));
        }
        text
    }
}

/// A type's name without the modules it is in: `(String, Iterable<i64>)`.
pub fn short_type(name: &str) -> String {
    let mut short = String::with_capacity(name.len());
    let mut word = String::new();
    for c in name.chars() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
        } else if c == ':' {
            word.clear();
        } else {
            short.push_str(&word);
            word.clear();
            short.push(c);
        }
    }
    short + &word
}
