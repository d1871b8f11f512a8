//! Dead letters once more: the part of a pipeline file from the step that refused them on, over the elements that it
//! refused.
//!
//! What the step reads comes out of the file of dead letters, with the types that the pipeline knows; what follows it runs
//! as in the file, and what else that needs (the other side of a join) runs too. Sinks write beside what they wrote before.

use std::collections::BTreeSet;
use std::sync::Arc;

use tiebeam_core::coder::row_coder;
use tiebeam_core::coder::schema_proto::{decode_schema, encode_schema};
use tiebeam_core::coder::urn;
use tiebeam_core::row::{Row, Schema, TypeKind, Value};
use tiebeam_core::{DoFn, ElementContext, Error, ErrorKind, Output, Result};
use tiebeam_graph::{Graph, GraphNode, ParDo, Pipeline};
use tiebeam_io::json;

use crate::build::{build, expand};
use crate::catalog::{Inputs, Key, TransformType, Wants};
use crate::diagnostic::{Diagnostic, Report};
use crate::document::{self, Content, Entry, Node};
use crate::environment::Environment;
use crate::load::{Loaded, PATHS, path_of};
use crate::maker::Maker;
use crate::plan::{Made, plan};
use crate::scope::{self, Outputs, Reference, Resolved, Scope, Target};
use crate::source::Span;
use crate::syntax::{self, Body, Input, Name, Step};
use crate::template::{self, Variables};

/// A pipeline over dead letters.
#[derive(Debug)]
pub struct Replay {
    /// What runs.
    pub loaded: Loaded,
    /// The step that refused the elements.
    pub step: String,
    /// Steps after it that bring rows together: what they make is made of the rerun rows alone.
    pub partial: Vec<String>,
}

/// Which dead letters are rerun, and where what they become is written.
#[derive(Debug, Clone, Copy)]
pub struct Letters<'a> {
    /// The files, by path or pattern.
    pub path: &'a str,
    /// The step that refused them, where their path does not tell.
    pub step: Option<&'a str>,
    /// What is put behind the paths of all sinks.
    pub suffix: &'a str,
}

/// Makes the pipeline that reruns dead letters of `text`, the pipeline file called `name`.
///
/// # Errors
/// All mistakes of the file; a step that is not there, or whose dead letters are not rows that it reads.
pub fn replay(
    name: &str,
    text: &str,
    variables: &Variables,
    environment: &Environment,
    letters: Letters<'_>,
) -> std::result::Result<Replay, Report> {
    // The whole file first: what is wrong with it is told as ever, and it knows the types.
    let whole = crate::load(name, text, variables, environment)?;
    let source = match template::render(name, text, variables) {
        Ok(source) => Arc::new(source),
        Err((source, problem)) => return Err(Report::new(Arc::new(source), vec![problem])),
    };
    let refused = |problem: Diagnostic| Report::new(source.clone(), vec![problem]);
    let document = document::parse(&source).map_err(refused)?;
    let mut problems = Vec::new();
    let Some(file) = syntax::file(name, &document, &mut problems) else {
        return Err(Report::new(source, problems));
    };
    let mut body = file.pipeline;
    let found = {
        let scope = scope::resolve(&body, &source, &mut problems);
        let index = failing(&scope, letters).map_err(refused)?;
        let step = &scope.steps[index];
        schema_of(&whole.graph, step).map(|schema| (index, schema)).map_err(refused)?
    };
    let (index, schema) = found;
    rename_sinks(&mut body, letters.suffix);
    let scope = scope::resolve(&body, &source, &mut problems);
    let added = letters_step(&scope.steps[index], letters.path, &schema);
    let step = scope.steps[index].label.to_string();
    let (part, partial) = part(&scope, index, &added);
    let mut outputs = Vec::new();
    for kept in &part.steps {
        sinks(kept.step, &mut outputs);
    }
    let (planned, collections) = plan(part, &source, environment, &mut problems);
    if !problems.is_empty() {
        return Err(Report::new(source, problems));
    }
    let pipeline = Pipeline::new();
    build(planned, collections, &pipeline);
    match pipeline.build() {
        Ok(graph) => {
            let inputs = vec![letters.path.to_owned()];
            Ok(Replay { loaded: Loaded { source, graph, inputs, outputs }, step, partial })
        }
        Err(errors) => {
            let problems = errors.0.iter().map(|(error, _)| Diagnostic::of(error, Span::default())).collect();
            Err(Report::new(source, problems))
        }
    }
}

fn refusal(span: Span, message: String) -> Diagnostic {
    Diagnostic::new("TB0270", span, message)
}

/// The step whose dead letters these are.
fn failing(scope: &Scope<'_>, letters: Letters<'_>) -> std::result::Result<usize, Diagnostic> {
    let fails = |index: usize| scope.steps[index].step.error_output().is_some();
    let candidates: Vec<usize> = (0..scope.steps.len()).filter(|index| fails(*index)).collect();
    let names: Vec<&str> = candidates.iter().map(|index| &**scope.steps[*index].step.title()).collect();
    let of_names = |problem: Diagnostic| match names.as_slice() {
        [] => problem.note("no transform of the pipeline has `error_handling`"),
        names => problem.note(format!("transforms with an error output: {}", names.join(", "))),
    };
    let span = scope.body.span;
    let index = match letters.step {
        Some(wanted) => {
            let named = |index: &&usize| {
                let step = &scope.steps[**index];
                *step.label == *wanted || **step.step.title() == *wanted
            };
            *candidates.iter().find(named).ok_or_else(|| {
                let message = format!("there is no transform `{wanted}` with an error output");
                of_names(refusal(span, message).did_you_mean(wanted, names.iter().copied()))
            })?
        }
        None => by_path(scope, letters.path).ok_or_else(|| {
            let message = format!("no sink of the pipeline writes dead letters to {}", letters.path);
            of_names(refusal(span, message).help("name the transform that refused them: `--step NAME`"))
        })?,
    };
    let step = &scope.steps[index];
    if step.inputs.is_empty() {
        let message = format!(
            "`{}` is a source: its dead letters are not elements that it could read again",
            step.label
        );
        return Err(refusal(step.step.title_span(), message)
            .help("mend the files that it reads and run the pipeline on them"));
    }
    Ok(index)
}

/// The step from whose error output the sink reads that writes to that path.
fn by_path(scope: &Scope<'_>, path: &str) -> Option<usize> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let written = |step: &Resolved<'_>| -> Option<usize> {
        let prefix = path_of(step.step).filter(|_| step.step.kind.text.starts_with("WriteTo"))?;
        let prefix = prefix.strip_prefix("./").unwrap_or(prefix);
        let rest = path.strip_prefix(prefix)?;
        (rest.is_empty() || rest.starts_with('-') || rest.starts_with('*')).then_some(prefix.len())
    };
    let sink = (0..scope.steps.len()).filter_map(|i| Some((written(&scope.steps[i])?, i))).max()?.1;
    let mut at = sink;
    // A chain of steps is no longer than all of them.
    for _ in 0..scope.steps.len() {
        let reference = scope.steps[at].inputs.iter().flat_map(|(_, references)| references).next()?;
        let Target::Step(step, output) = &reference.target else { return None };
        let errors = scope.steps[*step].step.error_output();
        if output.is_some() && errors.is_some_and(|errors| Some(&errors.text) == output.as_ref()) {
            return Some(*step);
        }
        at = *step;
    }
    None
}

/// The schema of a step's dead letters, whose elements must be the rows that it reads.
fn schema_of(graph: &Graph, step: &Resolved<'_>) -> std::result::Result<Schema, Diagnostic> {
    let label = &*step.label;
    let own = |node: &&GraphNode| {
        node.step.strip_prefix(label).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let nodes: Vec<&GraphNode> = graph.nodes.iter().filter(own).collect();
    let rows = |edge| -> Option<Schema> {
        let spec = graph.edge(edge).ok()?.edge_type.coder_spec();
        (spec.urn == urn::ROW).then(|| decode_schema(spec.payload).ok()).flatten()
    };
    let made = |edge: &_| nodes.iter().any(|n| n.outputs.iter().any(|o| o.edge == *edge));
    let read: Vec<Schema> = nodes
        .iter()
        .flat_map(|node| &node.inputs)
        .filter(|edge| !made(edge))
        .filter_map(|edge| rows(*edge))
        .collect();
    let errors = nodes.iter().flat_map(|node| &node.outputs).filter_map(|output| rows(output.edge));
    let is_read = |element: &Schema| read.iter().any(|schema| schema.fields == element.fields);
    let replayable = |schema: &Schema| {
        let names = schema.fields.iter().map(|field| &*field.name);
        names.eq(["element", "msg", "stack"])
            && matches!(&schema.fields[0].field_type.kind, TypeKind::Row(element) if is_read(element))
    };
    errors.into_iter().find(replayable).ok_or_else(|| {
        let message = format!("the dead letters of `{label}` are not rows that it reads");
        refusal(step.step.title_span(), message).note("they come from within it, and cannot be put in again")
    })
}

/// The steps that are run: the one that failed, all that read what it makes, and what else those need. Beside it the steps
/// among them that bring rows together.
fn part<'f>(scope: &Scope<'f>, failing: usize, added: &'f Step) -> (Scope<'f>, Vec<String>) {
    let reads = |index: usize| -> Vec<usize> {
        let references = scope.steps[index].inputs.iter().flat_map(|(_, references)| references);
        references.filter_map(step_of).collect()
    };
    let mut after: BTreeSet<usize> = BTreeSet::from([failing]);
    for index in &scope.order {
        if reads(*index).iter().any(|read| after.contains(read)) {
            after.insert(*index);
        }
    }
    // What a flatten brings to the elements from elsewhere was done before; what a join wants beside them was not.
    let wanted = |index: usize| -> Vec<usize> {
        let mut wanted = Vec::new();
        for (_, references) in &scope.steps[index].inputs {
            let steps: Vec<usize> = references.iter().filter_map(step_of).collect();
            if !steps.iter().any(|step| after.contains(step)) {
                wanted.extend(steps);
            }
        }
        wanted
    };
    let mut beside: BTreeSet<usize> = BTreeSet::new();
    let mut open: Vec<usize> = after.iter().filter(|i| **i != failing).flat_map(|i| wanted(*i)).collect();
    while let Some(index) = open.pop() {
        if !after.contains(&index) && beside.insert(index) {
            open.extend(reads(index));
        }
    }
    let mut steps: Vec<Resolved<'f>> = vec![Resolved {
        step: added,
        label: "DeadLetters".into(),
        inputs: Vec::new(),
        lacks_inputs: false,
        body: None,
    }];
    let mut number = vec![None; scope.steps.len()];
    let mut partial = Vec::new();
    for index in scope.order.iter().copied().filter(|i| after.contains(i) || beside.contains(i)) {
        number[index] = Some(steps.len());
        let old = &scope.steps[index];
        let from_letters = |name: &Arc<str>| {
            (name.clone(), vec![Reference { target: Target::Step(0, None), span: old.step.span }])
        };
        let renumbered = |references: &Vec<Reference>| -> Vec<Reference> {
            let known = |reference: &Reference| match &reference.target {
                Target::Step(step, output) => number[*step].map(|step| Target::Step(step, output.clone())),
                Target::Outside(_) => None,
            };
            let of = |one: &Reference| Some(Reference { target: known(one)?, span: one.span });
            references.iter().filter_map(of).collect()
        };
        let inputs = old.inputs.iter().map(|(name, references)| match index == failing {
            true => from_letters(name),
            false => (name.clone(), renumbered(references)),
        });
        if after.contains(&index) && matches!(&*old.step.kind.text, "Combine" | "Join") {
            partial.push(old.label.to_string());
        }
        steps.push(Resolved { inputs: inputs.collect(), ..old.clone() });
    }
    let order = (0..steps.len()).collect();
    (Scope { steps, order, outputs: Outputs::Named(Vec::new()), body: scope.body }, partial)
}

fn step_of(reference: &Reference) -> Option<usize> {
    match reference.target {
        Target::Step(step, _) => Some(step),
        Target::Outside(_) => None,
    }
}

fn sinks(step: &Step, outputs: &mut Vec<String>) {
    if let Some(body) = &step.body {
        body.steps.iter().for_each(|step| sinks(step, outputs));
    }
    if let Some(path) = path_of(step).filter(|_| step.kind.text.starts_with("WriteTo")) {
        outputs.push(format!("{path}-*"));
    }
}

/// Puts the suffix behind the paths of all sinks.
fn rename_sinks(body: &mut Body, suffix: &str) {
    for step in &mut body.steps {
        if let Some(body) = &mut step.body {
            rename_sinks(body, suffix);
        }
        let Some(config) = step.config.as_mut().filter(|_| step.kind.text.starts_with("WriteTo")) else {
            continue;
        };
        let entries = config.as_map().unwrap_or_default().iter().cloned();
        let renamed = entries.map(|entry| match entry.value.as_str() {
            Some(path) if PATHS.contains(&&*entry.key) => {
                let content = Content::String(format!("{path}{suffix}").into());
                Entry { value: Node { span: entry.value.span, content }, ..entry }
            }
            _ => entry,
        });
        config.content = Content::Map(renamed.collect());
    }
}

/// The type of the step that reads dead letters; no file can say it.
const KIND: &str = "dead letters";

pub(crate) const TYPES: &[TransformType] = &[TransformType {
    name: KIND,
    about: "the elements of dead letters",
    inputs: Inputs::None,
    keeps_rows: false,
    keys: &[
        Key::required("path", Wants::Text, "the files"),
        Key::required("schema", Wants::Text, "the dead letters' schema, as Beam encodes it, in hex"),
    ],
    make: read_letters,
}];

fn letters_step(failing: &Resolved<'_>, path: &str, schema: &Schema) -> Step {
    let span = failing.step.title_span();
    let hex: String = encode_schema(schema).iter().map(|byte| format!("{byte:02x}")).collect();
    let entry = |key: &str, text: &str| Entry {
        key: key.into(),
        key_span: span,
        value: Node { span, content: Content::String(text.into()) },
    };
    let config = Node { span, content: Content::Map([entry("path", path), entry("schema", &hex)].into()) };
    Step {
        span,
        kind: Name { text: KIND.into(), span },
        name: None,
        input: Input::Absent,
        output: None,
        config: Some(config),
        is_misplaced: false,
        windowing: None,
        resource_hints: None,
        body: None,
    }
}

fn read_letters(maker: &mut Maker<'_>) -> Option<Made> {
    let (path, hex) = (maker.text("path")?, maker.text("schema")?);
    let bytes = (0..hex.len() / 2).map(|i| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok());
    let letters = Arc::new(decode_schema(bytes.collect::<Option<Vec<u8>>>()?).ok()?);
    let TypeKind::Row(element) = &letters.fields.first()?.field_type.kind else { return None };
    let element = element.clone();
    let rows = element.clone();
    Some(Made::one(element, move |pipeline, _| {
        let read = expand(json::read(path, letters).ignore_unknown_fields(), pipeline.begin());
        read.step("Elements").apply(ParDo::new(TakeElement).with_coder(row_coder(rows)))
    }))
}

/// The element of a dead letter.
#[derive(Clone)]
struct TakeElement;

impl DoFn for TakeElement {
    type In = Row;
    type Out = Row;

    fn process(&mut self, letter: Row, _: &ElementContext<'_>, out: &mut Output<Row>) -> Result<()> {
        match letter.values.first() {
            Some(Value::Row(row)) => out.emit(row.clone()),
            _ => {
                let message = "a dead letter without its element";
                return Err(Error::new(ErrorKind::InvalidData, "TB0270", message).with_retryable(false));
            }
        }
        Ok(())
    }
}
