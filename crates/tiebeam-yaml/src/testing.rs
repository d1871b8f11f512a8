//! The `tests` of a pipeline file: each runs a part of the pipeline on rows that stand in the file, and says which rows
//! must come out.
//!
//! A mocked input stands in place of what a transform reads, a mocked output in place of what it gives; what a test does
//! not need is left out. Sources that are neither mocked nor allowed are refused: a test reads nothing but the file.

pub mod update;

use std::collections::HashMap;
use std::sync::Arc;

use tiebeam_graph::{Graph, Pipeline};

use crate::build::build;
use crate::catalog::{Key, Wants, check_keys};
use crate::diagnostic::{Diagnostic, Report};
use crate::document::{self, Content, Entry, Node};
use crate::environment::Environment;
use crate::plan::plan;
use crate::scope::{self, Outputs, Reference, Resolved, Scope, Target};
use crate::source::{Source, Span};
use crate::syntax::{self, Input, Name, Step};
use crate::template::{self, Variables};

/// A test that can be run: it holds when its graph runs to its end.
pub struct Test {
    /// Its name.
    pub name: String,
    /// The line where it stands.
    pub line: u32,
    /// What it runs.
    pub graph: Arc<Graph>,
}

/// Loads the tests of `text`, the pipeline file called `name`.
///
/// # Errors
/// All mistakes in the file and in its tests, each with its place.
pub fn load_tests(
    name: &str,
    text: &str,
    variables: &Variables,
    environment: &Environment,
) -> Result<Vec<Test>, Report> {
    let (tests, _) = load(name, text, variables, &Checking::Assert(environment))?;
    Ok(tests.into_iter().map(|(test, ..)| test).collect())
}

/// What is done with the rows that are expected somewhere.
enum Checking<'a> {
    /// They are compared.
    Assert(&'a Environment),
    /// They are kept.
    Look,
}

/// A test, the places of its expectations, and the rows that these see.
type Made = (Test, Vec<(Span, Span)>, update::Seen);

fn load(
    name: &str,
    text: &str,
    variables: &Variables,
    checking: &Checking<'_>,
) -> Result<(Vec<Made>, Arc<Source>), Report> {
    let source = match template::render(name, text, variables) {
        Ok(source) => Arc::new(source),
        Err((source, problem)) => return Err(Report::new(Arc::new(source), vec![problem])),
    };
    let document = document::parse(&source).map_err(|problem| Report::new(source.clone(), vec![problem]))?;
    let mut problems = Vec::new();
    let file = syntax::file(name, &document, &mut problems);
    let tests = file.as_ref().and_then(|file| file.tests.clone());
    let specs = tests.as_ref().and_then(Node::as_list).unwrap_or(&[]);
    if specs.is_empty() && problems.is_empty() {
        let span = tests.as_ref().map_or(Span::default(), |tests| tests.span);
        let problem = Diagnostic::new("TB0207", span, "the file has no tests");
        problems.push(problem.help("a test: `tests: [{name: N, mock_outputs: […], expected_inputs: […]}]`"));
    }
    let Some(file) = file else { return Err(Report::new(source, problems)) };
    let whole = scope::resolve(&file.pipeline, &source, &mut problems);
    let mut made = Vec::with_capacity(specs.len());
    for (number, node) in specs.iter().enumerate() {
        let Some(spec) = Spec::read(node, number, &mut problems) else { continue };
        let mut steps = Vec::new();
        let before = problems.len();
        let looks = matches!(checking, Checking::Look);
        let (planned, places) = Builder::new(&whole, &spec, looks, &mut problems).built(&mut steps);
        if problems.len() > before {
            continue;
        }
        let seen = update::Seen::default();
        let watching = update::watching(&seen);
        let environment = match checking {
            Checking::Assert(environment) => environment,
            Checking::Look => &watching,
        };
        let scope = assembled(planned, &steps, &file.pipeline);
        let (planned, collections) = plan(scope, &source, environment, &mut problems);
        if problems.len() > before {
            continue;
        }
        let pipeline = Pipeline::new();
        let built = build(planned, collections, &pipeline);
        match pipeline.build() {
            Ok(graph) => {
                let line = source.position(spec.span.start).line;
                made.push((Test { name: spec.name, line, graph }, places, seen));
            }
            Err(errors) => problems.extend(errors.0.iter().map(|(error, _)| {
                let step = error.step().and_then(|step| step.split('/').next()).unwrap_or_default();
                Diagnostic::of(error, built.get(step).copied().unwrap_or(spec.span))
            })),
        }
    }
    if problems.is_empty() { Ok((made, source)) } else { Err(Report::new(source, problems)) }
}

/// Rows for, or of, a transform.
struct Rows {
    name: Name,
    elements: Entry,
}

/// A test as the file says it.
struct Spec {
    name: String,
    span: Span,
    mock_inputs: Vec<Rows>,
    mock_outputs: Vec<Rows>,
    expected_inputs: Vec<Rows>,
    expected_outputs: Vec<Rows>,
    allowed: Vec<Arc<str>>,
}

const KEYS: [Key; 6] = [
    Key::optional("name", Wants::Text, "the test's name"),
    Key::optional("mock_inputs", Wants::List, "rows that transforms read"),
    Key::optional("mock_outputs", Wants::List, "rows that transforms give"),
    Key::optional("expected_inputs", Wants::List, "rows that transforms must read"),
    Key::optional("expected_outputs", Wants::List, "rows that transforms must give"),
    Key::optional("allowed_sources", Wants::List, "sources that may be read, by name or type"),
];

impl Spec {
    fn read(node: &Node, number: usize, problems: &mut Vec<Diagnostic>) -> Option<Spec> {
        let Some(entries) = node.as_map() else {
            let message = format!("a test wants a mapping, got {}", node.kind());
            problems.push(Diagnostic::new("TB0208", node.span, message));
            return None;
        };
        if !check_keys(entries, &KEYS, "a test", node.span, problems) {
            return None;
        }
        let mut rows = |key: &str| -> Option<Vec<Rows>> {
            let list = node.get(key).and_then(Node::as_list).unwrap_or(&[]);
            list.iter().map(|one| rows(one, key, problems)).collect()
        };
        let mock_inputs = rows("mock_inputs");
        let mock_outputs = rows("mock_outputs");
        let expected_inputs = rows("expected_inputs");
        let expected_outputs = rows("expected_outputs");
        let name = node.get("name").and_then(Node::as_str);
        let allowed = node.get("allowed_sources").and_then(Node::as_list).unwrap_or(&[]);
        let spec = Spec {
            name: name.map_or(format!("test {}", number + 1), |name| name.to_string()),
            span: node.get("name").unwrap_or(node).span,
            mock_inputs: mock_inputs?,
            mock_outputs: mock_outputs?,
            expected_inputs: expected_inputs?,
            expected_outputs: expected_outputs?,
            allowed: allowed.iter().filter_map(|one| one.as_str().cloned()).collect(),
        };
        if spec.expected_inputs.is_empty() && spec.expected_outputs.is_empty() {
            let problem =
                Diagnostic::new("TB0207", spec.span, format!("the test `{}` expects nothing", spec.name));
            problems.push(problem.help("add `expected_outputs` or `expected_inputs`"));
            return None;
        }
        Some(spec)
    }
}

fn rows(node: &Node, key: &str, problems: &mut Vec<Diagnostic>) -> Option<Rows> {
    const ROWS: [Key; 2] = [
        Key::required("name", Wants::Text, "the transform, or `Transform.output`"),
        Key::required("elements", Wants::List, "the rows"),
    ];
    let place = format!("`{key}`");
    let Some(entries) = node.as_map() else {
        let message = format!("{place} wants mappings, got {}", node.kind());
        problems.push(Diagnostic::new("TB0208", node.span, message));
        return None;
    };
    if !check_keys(entries, &ROWS, &place, node.span, problems) {
        return None;
    }
    let name = node.get("name")?;
    Some(Rows {
        name: Name { text: name.as_str()?.clone(), span: name.span },
        elements: node.entry("elements")?.clone(),
    })
}

/// An output of a transform of the whole pipeline.
type Place = (usize, Option<Arc<str>>);

/// A transform of a test: one of the pipeline's, or one that the test adds.
enum Part<'f> {
    Own(Resolved<'f>),
    Added(usize),
}

/// What a test is made of, each after what it reads.
struct Parts<'f> {
    parts: Vec<Part<'f>>,
    inputs: Vec<Vec<(Arc<str>, Vec<Reference>)>>,
}

struct Builder<'a, 'f> {
    whole: &'a Scope<'f>,
    spec: &'a Spec,
    /// Rows are looked at, not compared.
    looks: bool,
    places: Vec<(Span, Span)>,
    problems: &'a mut Vec<Diagnostic>,
    mocked_inputs: HashMap<usize, usize>,
    mocked_outputs: HashMap<Place, usize>,
    /// Where what was asked for already is.
    used: HashMap<usize, usize>,
    inputs: HashMap<usize, usize>,
    outputs: HashMap<Place, usize>,
    parts: Vec<Part<'f>>,
    references: Vec<Vec<(Arc<str>, Vec<Reference>)>>,
}

impl<'a, 'f> Builder<'a, 'f> {
    fn new(whole: &'a Scope<'f>, spec: &'a Spec, looks: bool, problems: &'a mut Vec<Diagnostic>) -> Self {
        let mut builder = Builder {
            whole,
            spec,
            looks,
            places: Vec::new(),
            problems,
            mocked_inputs: HashMap::new(),
            mocked_outputs: HashMap::new(),
            used: HashMap::new(),
            inputs: HashMap::new(),
            outputs: HashMap::new(),
            parts: Vec::new(),
            references: Vec::new(),
        };
        for (number, mock) in spec.mock_inputs.iter().enumerate() {
            if let Some((step, _)) = builder.find(&mock.name, false) {
                builder.mocked_inputs.insert(step, number);
            }
        }
        for (number, mock) in spec.mock_outputs.iter().enumerate() {
            if let Some(place) = builder.find(&mock.name, true) {
                builder.mocked_outputs.insert(place, number);
            }
        }
        builder
    }

    fn built(mut self, steps: &mut Vec<Step>) -> (Parts<'f>, Vec<(Span, Span)>) {
        for expected in &self.spec.expected_outputs {
            let Some(place) = self.find(&expected.name, true) else { continue };
            let reference = self.output(&place, expected.name.span, steps);
            let name = format!("CheckOutput[{}]", expected.name.text);
            self.check(name, expected, vec![("input".into(), vec![reference])], steps);
        }
        for expected in &self.spec.expected_inputs {
            let Some((step, _)) = self.find(&expected.name, false) else { continue };
            let all = self.inputs_of(step, steps);
            let all = all.into_iter().flat_map(|(_, references)| references).collect();
            let name = format!("CheckInput[{}]", expected.name.text);
            self.check(name, expected, vec![("input".into(), all)], steps);
        }
        (Parts { parts: self.parts, inputs: self.references }, self.places)
    }

    /// The transform that is named, by name or type, and the output that is named behind a point.
    fn find(&mut self, name: &Name, outputs: bool) -> Option<Place> {
        let all = &self.whole.steps;
        let named = |wanted: &str| -> Vec<usize> {
            let is = |step: &Step| **step.title() == *wanted || *step.kind.text == *wanted;
            (0..all.len()).filter(|index| is(all[*index].step)).collect()
        };
        let mut found = named(&name.text);
        let mut output = None;
        if let (true, true, Some((step, tag))) = (found.is_empty(), outputs, name.text.rsplit_once('.')) {
            found = named(step);
            // The main output has more than one name.
            output = Some(tag).filter(|tag| !matches!(*tag, "output" | "out" | "good")).map(Arc::from);
        }
        match found.as_slice() {
            [one] => Some((*one, output)),
            [] => {
                let titles: Vec<&str> = all.iter().map(|step| &**step.step.title()).collect();
                let problem =
                    Diagnostic::new("TB0233", name.span, format!("unknown transform `{}`", name.text))
                        .did_you_mean(&name.text, titles.iter().copied())
                        .note(format!("here: {}", titles.join(", ")));
                self.problems.push(problem);
                None
            }
            _ => {
                let message = format!("`{}` could be {} transforms", name.text, found.len());
                let problem = Diagnostic::new("TB0222", name.span, message);
                self.problems.push(problem.help("give each a `name` of its own"));
                None
            }
        }
    }

    fn push(&mut self, part: Part<'f>, inputs: Vec<(Arc<str>, Vec<Reference>)>) -> usize {
        self.parts.push(part);
        self.references.push(inputs);
        self.parts.len() - 1
    }

    /// An output as the test has it: mocked, or made.
    fn output(&mut self, place: &Place, span: Span, steps: &mut Vec<Step>) -> Reference {
        let target = match self.mocked_outputs.get(place) {
            Some(number) => {
                let mock = &self.spec.mock_outputs[*number];
                let part = match self.outputs.get(place) {
                    Some(part) => *part,
                    None => {
                        let part = self.create(format!("MockOutput[{}]", mock.name.text), mock, steps);
                        self.outputs.insert(place.clone(), part);
                        part
                    }
                };
                Target::Step(part, None)
            }
            None => {
                if self.mocked_outputs.keys().any(|(step, _)| *step == place.0) {
                    let title = self.whole.steps[place.0].step.title();
                    let output = place.1.as_deref().unwrap_or("output");
                    let message = format!(
                        "the output `{output}` of `{title}` is used, but only others of it are mocked"
                    );
                    self.problems.push(Diagnostic::new("TB0242", self.spec.span, message));
                }
                Target::Step(self.step(place.0, steps), place.1.clone())
            }
        };
        Reference { target, span }
    }

    /// A transform of the pipeline, with all it reads before it.
    fn step(&mut self, index: usize, steps: &mut Vec<Step>) -> usize {
        if let Some(part) = self.used.get(&index) {
            return *part;
        }
        let resolved = &self.whole.steps[index];
        let (step, kind) = (resolved.step, &resolved.step.kind.text);
        let is_source = resolved.inputs.is_empty() && !self.mocked_inputs.contains_key(&index);
        let allowed = |name: &Arc<str>| &**name == "Create" || self.spec.allowed.contains(name);
        if is_source && !allowed(kind) && !allowed(step.title()) {
            let message = format!(
                "the test `{}` needs `{}`, a source that it does not mock",
                self.spec.name,
                step.title()
            );
            let problem = Diagnostic::new("TB0242", self.spec.span, message);
            let help = format!("add its rows to `mock_outputs`, or `allowed_sources: [{}]`", step.title());
            self.problems.push(problem.help(help));
        }
        let inputs = self.inputs_of(index, steps);
        let part = self.push(Part::Own(self.whole.steps[index].clone()), inputs);
        self.used.insert(index, part);
        part
    }

    /// What a transform of the pipeline reads.
    fn inputs_of(&mut self, index: usize, steps: &mut Vec<Step>) -> Vec<(Arc<str>, Vec<Reference>)> {
        if let Some(number) = self.mocked_inputs.get(&index).copied() {
            let mock = &self.spec.mock_inputs[number];
            let part = match self.inputs.get(&index) {
                Some(part) => *part,
                None => self.create(format!("MockInput[{}]", mock.name.text), mock, steps),
            };
            self.inputs.insert(index, part);
            return vec![(
                "input".into(),
                vec![Reference { target: Target::Step(part, None), span: mock.name.span }],
            )];
        }
        let inputs = self.whole.steps[index].inputs.clone();
        inputs
            .into_iter()
            .map(|(name, references)| {
                let references = references.into_iter().filter_map(|reference| match reference.target {
                    Target::Step(step, output) => Some(self.output(&(step, output), reference.span, steps)),
                    Target::Outside(_) => None,
                });
                (name, references.collect())
            })
            .collect()
    }

    fn create(&mut self, name: String, rows: &Rows, steps: &mut Vec<Step>) -> usize {
        let step = added("Create", name, rows);
        steps.push(step);
        self.push(Part::Added(steps.len() - 1), Vec::new())
    }

    fn check(
        &mut self,
        name: String,
        rows: &Rows,
        inputs: Vec<(Arc<str>, Vec<Reference>)>,
        steps: &mut Vec<Step>,
    ) {
        let step = added("AssertEqual", name, rows);
        steps.push(if self.looks { looking(step, self.places.len()) } else { step });
        self.places.push((rows.elements.key_span, rows.elements.value.span));
        self.push(Part::Added(steps.len() - 1), inputs);
    }
}

/// A check that tells its rows instead, with the number of the expectation.
fn looking(step: Step, number: usize) -> Step {
    let span = step.span;
    let prefix = Node { span, content: Content::String(format!("{}{number} ", update::MARK).into()) };
    let entry = Entry { key: "prefix".into(), key_span: span, value: prefix };
    let config = Node { span, content: Content::Map([entry].into()) };
    Step { kind: Name { text: "LogForTesting".into(), span }, config: Some(config), ..step }
}

/// A transform that the file does not have.
fn added(kind: &str, name: String, rows: &Rows) -> Step {
    let config =
        Node { span: rows.elements.value.span, content: Content::Map([rows.elements.clone()].into()) };
    Step {
        span: rows.name.span,
        kind: Name { text: kind.into(), span: rows.name.span },
        name: Some(Name { text: name.into(), span: rows.name.span }),
        input: Input::Absent,
        output: None,
        config: Some(config),
        is_misplaced: false,
        windowing: None,
        resource_hints: None,
        body: None,
    }
}

/// The parts of a test as the transforms of a pipeline.
fn assembled<'f>(parts: Parts<'f>, added: &'f [Step], body: &'f syntax::Body) -> Scope<'f> {
    let mut steps: Vec<Resolved<'f>> = Vec::with_capacity(parts.parts.len());
    for (part, inputs) in parts.parts.into_iter().zip(parts.inputs) {
        let mut resolved = match part {
            Part::Own(resolved) => Resolved { inputs, lacks_inputs: false, ..resolved },
            Part::Added(index) => {
                let step = &added[index];
                Resolved { step, label: step.title().clone(), inputs, lacks_inputs: false, body: None }
            }
        };
        while steps.iter().any(|other| other.label == resolved.label) {
            resolved.label = format!("{}'", resolved.label).into();
        }
        steps.push(resolved);
    }
    let order = (0..steps.len()).collect();
    Scope { steps, order, outputs: Outputs::Named(Vec::new()), body }
}
