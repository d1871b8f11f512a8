//! From the grammar to what will be built: every transform made and typed, and every mistake found, before a graph exists.

use std::collections::HashMap;
use std::sync::Arc;

use tiebeam_core::WindowingStrategy;
use tiebeam_core::row::{FieldType, Row, Schema, TypeKind};
use tiebeam_graph::ResourceHints;
use tiebeam_graph::{PCollection, Pipeline};

use crate::catalog::{self, Inputs, check_keys};
use crate::diagnostic::Diagnostic;
use crate::document::{Entry, Node};
use crate::environment::Environment;
use crate::maker::error_schema;
pub use crate::maker::{Maker, expression_text};
use crate::scope::{Outputs, Reference, Resolved, Scope, Target};
use crate::source::{Source, Span};
use crate::syntax::Step;

/// Builds one transform inside of its own scope: from its inputs to its outputs, in the order of [`Made::outputs`].
pub type Build = Box<dyn FnOnce(&Pipeline, Vec<PCollection<Row>>) -> Vec<PCollection<Row>>>;

/// A transform that was made.
pub struct Made {
    /// Its outputs by name, the main one first. The names of the main one are free: it is what `Name` alone means.
    pub outputs: Vec<(Arc<str>, Arc<Schema>)>,
    /// Builds it.
    pub build: Build,
}

/// The key by which any transform's configuration may tell its rows' types.
const OUTPUT_SCHEMA: &str = "output_schema";

/// The name of a main output.
pub const MAIN: &str = "output";

impl Made {
    /// A transform of one output.
    pub fn one(
        schema: Arc<Schema>,
        build: impl FnOnce(&Pipeline, Vec<PCollection<Row>>) -> PCollection<Row> + 'static,
    ) -> Self {
        Made {
            outputs: vec![(MAIN.into(), schema)],
            build: Box::new(|pipeline, inputs| vec![build(pipeline, inputs)]),
        }
    }

    /// A transform of no output.
    pub fn sink(build: impl FnOnce(&Pipeline, Vec<PCollection<Row>>) + 'static) -> Self {
        Made {
            outputs: Vec::new(),
            build: Box::new(|pipeline, inputs| {
                build(pipeline, inputs);
                Vec::new()
            }),
        }
    }
}

/// What is known of a PCollection before there is one.
#[derive(Debug, Clone)]
pub struct Collection {
    /// Its number.
    pub id: usize,
    /// The schema of its rows.
    pub schema: Arc<Schema>,
    /// The transform that makes it.
    pub producer: Arc<str>,
}

/// What is planned of a pipeline or composite.
pub struct Planned {
    /// The transforms, each after those it reads.
    pub steps: Vec<PlannedStep>,
}

/// One transform that was planned.
pub struct PlannedStep {
    /// Its label.
    pub label: Arc<str>,
    /// Where it stands in the file.
    pub span: Span,
    /// What it needs of a machine.
    pub hints: ResourceHints,
    /// What it does.
    pub work: Work,
}

/// What a planned transform does.
pub enum Work {
    /// A transform: the collections of each of its inputs, what makes its own out of them, and their numbers.
    Leaf {
        /// Of each input the collections that are flattened, and the schema that they are flattened to.
        inputs: Vec<(Vec<usize>, Arc<Schema>)>,
        /// Applied to each input, or to each output where there is no input.
        windowing: Option<WindowingStrategy>,
        /// Builds it.
        build: Build,
        /// The collections that it makes, with their schemas.
        outputs: Vec<(usize, Arc<Schema>)>,
    },
    /// A composite: windows for what goes in (number before and after), and its transforms.
    Composite {
        /// Collections that are windowed before they go in: number, and number after.
        windowed: Vec<(usize, usize)>,
        /// What is inside.
        inside: Planned,
        /// Collections that are windowed when they come out: number, and number after.
        given: Vec<(usize, usize)>,
        /// How.
        windowing: Option<WindowingStrategy>,
    },
}

/// Plans a whole pipeline; mistakes go to `problems`.
pub fn plan(
    scope: Scope<'_>,
    source: &Source,
    environment: &Environment,
    problems: &mut Vec<Diagnostic>,
) -> (Planned, usize) {
    let mut planner = Planner { source, environment, problems, collections: 0, chain_hint: false };
    planner.chain_hint = !scope.body.is_typed
        && scope.steps.len() > 1
        && scope.steps.iter().all(|step| step.inputs.is_empty());
    let whole = planner.hints(scope.body.resource_hints.as_ref());
    let (mut planned, _) = planner.scope(scope, &HashMap::new(), None);
    for step in &mut planned.steps {
        step.hints = std::mem::take(&mut step.hints).within(&whole);
    }
    (planned, planner.collections)
}

struct Planner<'a> {
    source: &'a Source,
    environment: &'a Environment,
    problems: &'a mut Vec<Diagnostic>,
    collections: usize,
    /// Nothing in the pipeline names an input: it was probably meant as a chain.
    chain_hint: bool,
}

/// The outputs of a step, by name; none where it could not be made.
type StepOutputs = Option<Vec<(Arc<str>, Collection)>>;

impl Planner<'_> {
    fn number(&mut self) -> usize {
        self.collections += 1;
        self.collections - 1
    }

    fn scope(
        &mut self,
        scope: Scope<'_>,
        outside: &HashMap<Arc<str>, Option<Collection>>,
        windowing: Option<&WindowingStrategy>,
    ) -> (Planned, StepOutputs) {
        let own = scope.body.windowing.as_ref().filter(|_| windowing.is_none() && outside.is_empty());
        let own = own.and_then(|entry| self.windowing(entry));
        let to_roots = windowing.or(own.as_ref());
        let Scope { steps, order, outputs, .. } = scope;
        let mut made: Vec<StepOutputs> = steps.iter().map(|_| None).collect();
        let mut planned = Vec::with_capacity(steps.len());
        let mut steps: Vec<Option<Resolved<'_>>> = steps.into_iter().map(Some).collect();
        for index in order {
            let Some(step) = steps[index].take() else { continue };
            let inputs = self.inputs(&step, &made, outside);
            let (work, outputs) = match step.body {
                Some(_) => self.composite(step, inputs, to_roots, &mut planned),
                None => self.leaf(step, inputs, to_roots),
            };
            planned.extend(work);
            made[index] = outputs;
        }
        // What is in a circle was not planned; its configuration is looked at all the same.
        for step in steps.into_iter().flatten() {
            self.check_config(step.step);
        }
        let given = match outputs {
            Outputs::All(last) => made.get(last).cloned().flatten(),
            Outputs::Named(named) => named
                .into_iter()
                .map(|(name, reference)| Some((name, self.resolve(&reference, &made, outside)?)))
                .collect(),
        };
        (Planned { steps: planned }, given)
    }

    /// The collections of each input; none where one is not known because of a mistake that was told already.
    fn inputs(
        &mut self,
        step: &Resolved<'_>,
        made: &[StepOutputs],
        outside: &HashMap<Arc<str>, Option<Collection>>,
    ) -> Option<Vec<(Arc<str>, Vec<Collection>)>> {
        let mut fine = true;
        let mut inputs = Vec::with_capacity(step.inputs.len());
        for (name, references) in &step.inputs {
            let found: Vec<Option<Collection>> =
                references.iter().map(|reference| self.resolve(reference, made, outside)).collect();
            fine &= found.iter().all(Option::is_some) && !found.is_empty();
            inputs.push((name.clone(), found.into_iter().flatten().collect()));
        }
        // A reference that was not found was told already.
        (fine && !step.lacks_inputs).then_some(inputs)
    }

    fn resolve(
        &mut self,
        reference: &Reference,
        made: &[StepOutputs],
        outside: &HashMap<Arc<str>, Option<Collection>>,
    ) -> Option<Collection> {
        match &reference.target {
            Target::Outside(name) => outside.get(name).cloned().flatten(),
            Target::Step(step, output) => {
                let outputs = made.get(*step)?.as_ref()?;
                match output {
                    None => self.main_output(outputs, reference.span),
                    Some(name) => self.named_output(outputs, name, reference.span),
                }
            }
        }
    }

    fn main_output(&mut self, outputs: &[(Arc<str>, Collection)], span: Span) -> Option<Collection> {
        let main = outputs.iter().find(|(name, _)| &**name == MAIN);
        match (main, outputs) {
            (Some((_, main)), _) | (None, [(_, main)]) => Some(main.clone()),
            (None, []) => {
                let problem = Diagnostic::new("TB0233", span, "the transform before gives no output to read");
                self.problems.push(problem.help("a sink ends its branch"));
                None
            }
            (None, many) => {
                let names: Vec<&str> = many.iter().map(|(name, _)| &**name).collect();
                let message = format!("which output is meant? there are {}", names.join(", "));
                self.problems.push(Diagnostic::new("TB0222", span, message).help("write `Name.output`"));
                None
            }
        }
    }

    fn named_output(
        &mut self,
        outputs: &[(Arc<str>, Collection)],
        name: &str,
        span: Span,
    ) -> Option<Collection> {
        let found = outputs.iter().find(|(other, _)| &**other == name);
        // Beam calls a main output `out`, or `good` beside errors.
        let main = || outputs.iter().find(|(other, _)| &**other == MAIN && matches!(name, "out" | "good"));
        if let Some((_, found)) = found.or_else(main) {
            return Some(found.clone());
        }
        let names: Vec<&str> = outputs.iter().map(|(name, _)| &**name).collect();
        let problem = Diagnostic::new("TB0233", span, format!("there is no output `{name}`"))
            .did_you_mean(name, names.iter().copied());
        self.problems.push(match names.as_slice() {
            [] => problem.note("this transform gives no output"),
            [only] if *only == MAIN => {
                problem.help("this transform has one output: leave the name out, or give it `error_handling`")
            }
            names => problem.note(format!("outputs here: {}", names.join(", "))),
        });
        None
    }

    fn windowing(&mut self, entry: &Entry) -> Option<WindowingStrategy> {
        crate::windowing::read(&entry.value, self.problems)
    }

    fn hints(&mut self, entry: Option<&Entry>) -> ResourceHints {
        entry.map(|entry| crate::hints::read(entry, self.problems)).unwrap_or_default()
    }

    fn check_config(&mut self, step: &Step) -> Option<(&'static catalog::TransformType, bool)> {
        let Some(kind) = catalog::find(&step.kind.text) else {
            if step.body.is_none() && !(step.is_misplaced && step.config.is_none()) {
                self.problems.push(catalog::unknown_type(&step.kind.text, step.kind.span));
            }
            return None;
        };
        if step.is_misplaced && step.config.is_none() {
            return Some((kind, false));
        }
        // Every transform may say what its rows are.
        let entries = step.config.as_ref().and_then(Node::as_map).unwrap_or(&[]).iter();
        let entries: Vec<Entry> = entries.filter(|entry| &*entry.key != OUTPUT_SCHEMA).cloned().collect();
        let place = format!("`{}`", kind.name);
        Some((kind, check_keys(&entries, kind.keys, &place, step.kind.span, self.problems)))
    }

    fn leaf(
        &mut self,
        resolved: Resolved<'_>,
        inputs: Option<Vec<(Arc<str>, Vec<Collection>)>>,
        to_roots: Option<&WindowingStrategy>,
    ) -> (Option<PlannedStep>, StepOutputs) {
        let Resolved { step, label, .. } = resolved;
        let windowing = step.windowing.as_ref().and_then(|entry| self.windowing(entry));
        let hints = self.hints(step.resource_hints.as_ref());
        let Some((kind, keys_fine)) = self.check_config(step) else { return (None, None) };
        let Some(mut inputs) = inputs else { return (None, None) };
        if !self.check_inputs(kind, step, &inputs) {
            return (None, None);
        }
        if let Inputs::Beside(side) = kind.inputs {
            inputs.sort_by_key(|(name, _)| **name == *side);
        }
        let names: Vec<Arc<str>> = inputs.iter().map(|(name, _)| name.clone()).collect();
        let inputs: Vec<(Vec<Collection>, Collection)> = if kind.inputs == Inputs::Any {
            inputs.into_iter().flat_map(|(_, all)| all).map(|one| (vec![one.clone()], one)).collect()
        } else {
            let mut flattened = Vec::with_capacity(inputs.len());
            for (_, all) in inputs {
                let Some(joined) = self.flattened(&all, step) else { return (None, None) };
                flattened.push((all, joined));
            }
            flattened
        };
        // What keeps its rows as they are gives them though it has mistakes, so that those after it are told too.
        let kept = kind.keeps_rows.then(|| inputs.first().map(|(_, joined)| joined.clone())).flatten();
        let unmade = |planner: &mut Self| (None, planner.kept_outputs(step, &label, kept.as_ref()));
        if !keys_fine {
            return unmade(self);
        }
        let before = self.problems.len();
        let mut maker = Maker {
            step,
            inputs: inputs.iter().map(|(_, joined)| joined.clone()).collect(),
            names,
            problems: self.problems,
            source: self.source,
            environment: self.environment,
        };
        let Some(made) = (kind.make)(&mut maker) else { return unmade(self) };
        let told = step.config.as_ref().and_then(|config| config.get(OUTPUT_SCHEMA));
        if let (Some(told), Some((_, schema))) = (told, made.outputs.first())
            && let Err(problem) = crate::schema::check_output_schema(told, schema)
        {
            self.problems.push(problem);
        }
        if self.problems.len() > before {
            return unmade(self);
        }
        let is_root = inputs.is_empty();
        let windowing = windowing.or_else(|| to_roots.filter(|_| is_root).cloned());
        let outputs: Vec<(Arc<str>, Collection)> = made
            .outputs
            .iter()
            .map(|(name, schema)| {
                let collection =
                    Collection { id: self.number(), schema: schema.clone(), producer: label.clone() };
                (name.clone(), collection)
            })
            .collect();
        let work = Work::Leaf {
            inputs: inputs
                .into_iter()
                .map(|(all, joined)| (all.iter().map(|one| one.id).collect(), joined.schema))
                .collect(),
            windowing,
            build: made.build,
            outputs: outputs.iter().map(|(_, one)| (one.id, one.schema.clone())).collect(),
        };
        (Some(PlannedStep { label, span: step.title_span(), hints, work }), Some(outputs))
    }

    /// The outputs of a transform with mistakes that gives the rows it reads.
    fn kept_outputs(&mut self, step: &Step, label: &Arc<str>, input: Option<&Collection>) -> StepOutputs {
        let input = input?;
        let element = FieldType::required(TypeKind::Row(input.schema.clone()));
        let errors = step.error_output().map(|name| (name.text, error_schema(element)));
        let outputs = [(Arc::from(MAIN), input.schema.clone())].into_iter().chain(errors);
        Some(
            outputs
                .map(|(name, schema)| (name, Collection { id: usize::MAX, schema, producer: label.clone() }))
                .collect(),
        )
    }

    fn check_inputs(
        &mut self,
        kind: &catalog::TransformType,
        step: &Step,
        inputs: &[(Arc<str>, Vec<Collection>)],
    ) -> bool {
        let span = step.title_span();
        let problem = match (kind.inputs, inputs.len()) {
            (Inputs::None, 1..) => {
                let problem = Diagnostic::new("TB0221", span, format!("`{}` takes no input", kind.name));
                problem.help("it is a source: put it first, or write `input: {}`")
            }
            (Inputs::One | Inputs::Beside(_) | Inputs::Any | Inputs::Named | Inputs::Tables, 0) => {
                let problem = Diagnostic::new("TB0221", span, format!("`{}` lacks its input", step.title()));
                if self.chain_hint {
                    problem.help("add `type: chain` to the pipeline, or `input: NAME` to each transform")
                } else {
                    problem.help("add `input: NAME`")
                }
            }
            (Inputs::Named, 1) => {
                let message = format!("`{}` wants two or more inputs, each with a name", kind.name);
                Diagnostic::new("TB0221", span, message).help("name them: `input: {a: One, b: Other}`")
            }
            (Inputs::One, 2..) => Diagnostic::new("TB0221", span, format!("`{}` takes one input", kind.name))
                .help("to read several, give one list: `input: [A, B]`"),
            (Inputs::Beside(side), n)
                if n - usize::from(inputs.iter().any(|(name, _)| **name == *side)) != 1 =>
            {
                let message = format!("`{}` takes one input, and beside it one named `{side}`", kind.name);
                Diagnostic::new("TB0221", span, message)
                    .help(format!("write `input: {{input: ROWS, {side}: OTHER}}`; several as one: `[A, B]`"))
            }
            _ => return true,
        };
        self.problems.push(problem);
        false
    }

    /// Several collections as one.
    fn flattened(&mut self, all: &[Collection], step: &Step) -> Option<Collection> {
        let first = all.first()?;
        if all.len() == 1 {
            return Some(first.clone());
        }
        let schema = crate::schema::unify(all, step.title_span(), self.problems)?;
        let producers: Vec<&str> = all.iter().map(|one| &*one.producer).collect();
        Some(Collection { id: usize::MAX, schema, producer: producers.join("`, `").into() })
    }

    fn composite(
        &mut self,
        resolved: Resolved<'_>,
        inputs: Option<Vec<(Arc<str>, Vec<Collection>)>>,
        to_roots: Option<&WindowingStrategy>,
        before: &mut Vec<PlannedStep>,
    ) -> (Option<PlannedStep>, StepOutputs) {
        let Resolved { step, label, inputs: references, body, .. } = resolved;
        let Some(body) = body else { return (None, None) };
        let own = step.windowing.as_ref().and_then(|entry| self.windowing(entry));
        let hints = self.hints(step.resource_hints.as_ref());
        let mut outside: HashMap<Arc<str>, Option<Collection>> = HashMap::new();
        let mut windowed = Vec::new();
        match inputs {
            Some(inputs) => {
                for (name, all) in inputs {
                    let Some(mut joined) = self.flattened(&all, step) else {
                        outside.insert(name, None);
                        continue;
                    };
                    if joined.id == usize::MAX {
                        joined.id = self.number();
                        before.push(flatten_before(&label, &name, step, &all, &joined));
                    }
                    if own.is_some() {
                        let after = self.number();
                        windowed.push((joined.id, after));
                        joined.id = after;
                    }
                    outside.insert(name, Some(joined));
                }
            }
            None => outside.extend(references.iter().map(|(name, _)| (name.clone(), None))),
        }
        // A provider's source is one transform to those who use it: what it gives is windowed, not what it reads inside.
        let is_source = outside.is_empty() && !matches!(&*step.kind.text, "chain" | "composite");
        let (to_inner, own) = match is_source {
            true => (None, own.or_else(|| to_roots.cloned())),
            false => (own.clone().or_else(|| to_roots.cloned()), own),
        };
        let (inside, outputs) = self.scope(body, &outside, to_inner.as_ref());
        let mut given = Vec::new();
        let outputs = outputs.map(|outputs| {
            let mut all = Vec::with_capacity(outputs.len());
            for (name, mut collection) in outputs {
                if is_source && own.is_some() {
                    let after = self.number();
                    given.push((collection.id, after));
                    collection.id = after;
                }
                all.push((name, Collection { producer: label.clone(), ..collection }));
            }
            all
        });
        let work = Work::Composite { windowed, inside, given, windowing: own };
        (Some(PlannedStep { label, span: step.title_span(), hints, work }), outputs)
    }
}

/// Several references to one input of a composite are flattened in front of it.
fn flatten_before(
    label: &str,
    input: &str,
    step: &Step,
    all: &[Collection],
    joined: &Collection,
) -> PlannedStep {
    PlannedStep {
        label: format!("{label}-Flatten[{input}]").into(),
        span: step.title_span(),
        hints: ResourceHints::new(),
        work: Work::Leaf {
            inputs: vec![(all.iter().map(|one| one.id).collect(), joined.schema.clone())],
            windowing: None,
            build: Box::new(|_, inputs| inputs),
            outputs: vec![(joined.id, joined.schema.clone())],
        },
    }
}
