//! `tiebeam graph`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use serde_json::json;
use tiebeam::graph::Graph;
use tiebeam::launch::{Exit, print_error};
use tiebeam::plan::{PlanOptions, plan};

use crate::run::FileArgs;
use crate::{output, svg};

/// The command line of `tiebeam graph`.
#[derive(Debug, Args)]
pub struct GraphArgs {
    #[command(flatten)]
    file: FileArgs,
    /// How it is shown.
    #[arg(long, value_enum, default_value_t = Format::Ascii)]
    format: Format,
    /// The stages that will run, instead of the steps of the file.
    #[arg(long)]
    fused: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Lines for people.
    Ascii,
    /// For documents that draw mermaid.
    Mermaid,
    /// For graphviz.
    Dot,
    /// A picture.
    Svg,
    /// For programs.
    Json,
}

/// Shows a graph.
pub fn graph(args: &GraphArgs) -> Exit {
    let opened = match args.file.open() {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let graph = &opened.loaded.graph;
    let drawing = if args.fused {
        match plan(graph, PlanOptions::default()) {
            Ok(plan) => match args.format {
                Format::Ascii => {
                    output::stdout(plan.explain().as_bytes());
                    return Exit::Ok;
                }
                _ => stages(&plan),
            },
            Err(error) => {
                print_error(&error);
                return Exit::of(&error);
            }
        }
    } else {
        steps(graph)
    };
    let text = match args.format {
        Format::Ascii => drawing.ascii(),
        Format::Mermaid => drawing.mermaid(),
        Format::Dot => drawing.dot(),
        Format::Svg => svg::draw(&drawing.boxes, &drawing.arrows),
        Format::Json => format!("{:#}\n", drawing.json()),
    };
    output::stdout(text.as_bytes());
    Exit::Ok
}

/// Boxes and arrows.
struct Drawing {
    boxes: Vec<String>,
    /// From, to, and what the arrow is called where it is no main output.
    arrows: Vec<(usize, usize, String)>,
}

/// The top-level transforms of the file, as boxes.
fn steps(graph: &Graph) -> Drawing {
    let top = |step: &str| step.split('/').next().unwrap_or(step).to_owned();
    let mut boxes: Vec<String> = Vec::new();
    let mut makers: BTreeMap<usize, (usize, String)> = BTreeMap::new();
    let mut arrows: Vec<(usize, usize, String)> = Vec::new();
    for node in &graph.nodes {
        let name = top(&node.step);
        let index = boxes.iter().position(|known| *known == name).unwrap_or_else(|| {
            boxes.push(name);
            boxes.len() - 1
        });
        let read = node.inputs.iter().chain(node.side_inputs.iter().map(|(_, edge)| edge));
        for edge in read {
            if let Some((from, label)) = makers.get(&edge.0).filter(|(from, _)| *from != index) {
                let arrow = (*from, index, label.clone());
                if !arrows.contains(&arrow) {
                    arrows.push(arrow);
                }
            }
        }
        for output in &node.outputs {
            let label = if output.is_dead_letters { output.name.to_string() } else { String::new() };
            // What is made of dead letters inside of a transform is its error output.
            let inherited = node.inputs.first().and_then(|edge| makers.get(&edge.0));
            let label = match inherited {
                Some((from, inherited)) if *from == index && label.is_empty() => inherited.clone(),
                _ => label,
            };
            makers.insert(output.edge.0, (index, label));
        }
    }
    Drawing { boxes, arrows }
}

fn stages(plan: &tiebeam::plan::Plan) -> Drawing {
    let boxes = plan.stages.iter().enumerate().map(|(i, stage)| {
        let steps: Vec<&str> = stage.spec.nodes.iter().map(|node| &*node.step).collect();
        format!("stage {i}: {}", if steps.is_empty() { "read".to_owned() } else { steps.join(" + ") })
    });
    let mut arrows = Vec::new();
    for (to, stage) in plan.stages.iter().enumerate() {
        arrows.extend(stage.after.iter().map(|from| (*from, to, String::new())));
    }
    Drawing { boxes: boxes.collect(), arrows }
}

impl Drawing {
    fn ascii(&self) -> String {
        let mut text = String::new();
        for (index, name) in self.boxes.iter().enumerate() {
            let from: Vec<String> = self
                .arrows
                .iter()
                .filter(|(_, to, _)| *to == index)
                .map(|(from, _, label)| {
                    if label.is_empty() {
                        self.boxes[*from].clone()
                    } else {
                        format!("{}.{label}", self.boxes[*from])
                    }
                })
                .collect();
            let _ = match from.as_slice() {
                [] => writeln!(text, "{name}"),
                from => writeln!(text, "{name} ← {}", from.join(", ")),
            };
        }
        text
    }

    fn mermaid(&self) -> String {
        let mut text = "flowchart TD\n".to_owned();
        for (index, name) in self.boxes.iter().enumerate() {
            let _ = writeln!(text, "  n{index}[\"{}\"]", name.replace('"', "#quot;"));
        }
        for (from, to, label) in &self.arrows {
            let _ = match label.as_str() {
                "" => writeln!(text, "  n{from} --> n{to}"),
                label => writeln!(text, "  n{from} -->|{label}| n{to}"),
            };
        }
        text
    }

    fn dot(&self) -> String {
        let quoted = |name: &str| name.replace('\\', "\\\\").replace('"', "\\\"");
        let mut text = "digraph pipeline {\n  node [shape=box];\n".to_owned();
        for (index, name) in self.boxes.iter().enumerate() {
            let _ = writeln!(text, "  n{index} [label=\"{}\"];", quoted(name));
        }
        for (from, to, label) in &self.arrows {
            let _ = match label.as_str() {
                "" => writeln!(text, "  n{from} -> n{to};"),
                label => writeln!(text, "  n{from} -> n{to} [label=\"{}\"];", quoted(label)),
            };
        }
        text.push_str("}\n");
        text
    }

    fn json(&self) -> serde_json::Value {
        let nodes: Vec<_> =
            self.boxes.iter().enumerate().map(|(id, name)| json!({ "id": id, "name": name })).collect();
        let edges: Vec<_> = self
            .arrows
            .iter()
            .map(|(from, to, label)| {
                let output = if label.is_empty() { serde_json::Value::Null } else { json!(label) };
                json!({ "from": from, "to": to, "output": output })
            })
            .collect();
        json!({ "nodes": nodes, "edges": edges })
    }
}
