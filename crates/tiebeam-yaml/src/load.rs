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
use crate::template::{self, Rendered, Variables};

/// A pipeline file that was found to be right.
pub struct Loaded {
    /// Its text, after jinja.
    pub source: Arc<Source>,
    /// Its graph.
    pub graph: Arc<Graph>,
    /// The files that its sources read, by path or pattern, in the order of the file.
    pub inputs: Vec<String>,
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
    let Rendered { source, plain, problems: templates, repaired } =
        template::render_all(name, text, variables);
    let Some(source) = source.map(Arc::new) else { return Err(Report::new(Arc::new(plain), templates)) };
    if !templates.is_empty() {
        // What is wrong beside the templates is told with them.
        let plain = Arc::new(plain);
        let templates = templates.into_iter().map(|mut problem| {
            problem.source = Some(plain.clone());
            problem
        });
        let mut problems: Vec<Diagnostic> = templates.collect();
        if let Err(report) = loaded(source.clone(), environment) {
            let line = |problem: &Diagnostic| problem.span.map(|span| source.position(span.start).line);
            let others = report
                .diagnostics()
                .iter()
                .filter(|one| line(one).is_some_and(|line| !repaired.contains(&line)));
            problems.extend(others.cloned());
        }
        return Err(Report::new(source, problems));
    }
    loaded(source, environment)
}

/// Loads a text that jinja has gone through.
fn loaded(source: Arc<Source>, environment: &Environment) -> Result<Loaded, Report> {
    let document = match document::parse(&source) {
        Ok(document) => document,
        Err(problem) => return Err(Report::new(source, vec![problem])),
    };
    let mut problems = Vec::new();
    let Some(file) = syntax::file(source.name(), &document, &mut problems) else {
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
            let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
            files(&file.pipeline, &mut inputs, &mut outputs);
            Ok(Loaded { source, graph, inputs, outputs })
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

/// The paths of all sources and sinks.
fn files(body: &Body, inputs: &mut Vec<String>, outputs: &mut Vec<String>) {
    for step in &body.steps {
        if let Some(body) = &step.body {
            files(body, inputs, outputs);
        }
        let Some(path) = path_of(step) else { continue };
        if step.kind.text.starts_with("Read") {
            inputs.push(path.to_string());
        } else if step.kind.text.starts_with("WriteTo") {
            outputs.push(format!("{path}-*"));
        }
    }
}

/// What a source or sink of files names.
pub(crate) fn path_of(step: &Step) -> Option<&Arc<str>> {
    let config = step.config.as_ref()?;
    PATHS.iter().find_map(|key| config.get(key))?.as_str()
}

/// The keys by which sources and sinks name their files.
pub(crate) const PATHS: [&str; 3] = ["path", "file_path_prefix", "file_pattern"];
