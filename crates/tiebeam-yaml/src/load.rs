//! The whole way: from the text of a pipeline file to its graph.

use std::sync::Arc;

use tiebeam_core::Error;
use tiebeam_graph::{Graph, Pipeline};

use crate::build::build;
use crate::diagnostic::{Diagnostic, Report};
use crate::document;
use crate::environment::Environment;
use crate::plan::plan;
use crate::scope::resolve;
use crate::source::{Source, Span};
use crate::syntax::{self, Body, Step};
use crate::template::{self, Variables};

/// A pipeline file that was found to be right.
pub struct Loaded {
    /// Its text, after jinja.
    pub source: Arc<Source>,
    /// Its graph.
    pub graph: Arc<Graph>,
    /// Where its sinks write, in the order of the file.
    pub outputs: Vec<String>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loaded({}, {} steps)", self.source.name(), self.graph.nodes.len())
    }
}

/// Loads `text`, the pipeline file called `name`: jinja, YAML, grammar, references, columns and types, the graph. Reads
/// what it needs to know of the world: the headers of csv and json files, the models.
///
/// # Errors
/// All mistakes, each with its place.
pub fn load(
    name: &str,
    text: &str,
    variables: &Variables,
    environment: &Environment,
) -> Result<Loaded, Report> {
    let source = match template::render(name, text, variables) {
        Ok(source) => Arc::new(source),
        Err((source, problem)) => return Err(Report::new(Arc::new(source), vec![problem])),
    };
    let document = match document::parse(&source) {
        Ok(document) => document,
        Err(problem) => return Err(Report::new(source, vec![problem])),
    };
    let mut problems = Vec::new();
    let Some(file) = syntax::file(&document, &mut problems) else {
        return Err(Report::new(source, problems));
    };
    let scope = resolve(&file.pipeline, &source, &mut problems);
    let (planned, collections) = plan(scope, &source, environment, &mut problems);
    if !problems.is_empty() {
        return Err(Report::new(source, problems));
    }
    let pipeline = Pipeline::new();
    let places = build(planned, collections, &pipeline);
    match pipeline.build() {
        Ok(graph) => {
            let mut outputs = Vec::new();
            sinks(&file.pipeline, &mut outputs);
            Ok(Loaded { source, graph, outputs })
        }
        Err(errors) => {
            let place = |error: &Error| {
                let mut path = error.step().unwrap_or_default();
                loop {
                    match (places.get(path), path.rsplit_once('/')) {
                        (Some(span), _) => return *span,
                        (None, Some((parent, _))) => path = parent,
                        (None, None) => return Span::default(),
                    }
                }
            };
            let problems = errors.0.iter().map(|(error, _)| Diagnostic::of(error, place(error))).collect();
            Err(Report::new(source, problems))
        }
    }
}

/// The paths of all sinks.
fn sinks(body: &Body, outputs: &mut Vec<String>) {
    for step in &body.steps {
        if let Some(body) = &step.body {
            sinks(body, outputs);
        }
        outputs.extend(sink(step));
    }
}

fn sink(step: &Step) -> Option<String> {
    let path = step.config.as_ref()?.get("path")?.as_str()?;
    step.kind.text.starts_with("WriteTo").then(|| format!("{path}-*"))
}
