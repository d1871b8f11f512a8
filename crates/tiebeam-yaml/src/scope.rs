//! Who reads whom: references looked up, chains made explicit, an order in which everything comes after what it reads.

use std::sync::Arc;

use crate::diagnostic::Diagnostic;
use crate::source::{Source, Span};
use crate::syntax::{Body, Input, Name, Step};

/// Where a transform's input comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// An input of the composite that the transform is in.
    Outside(Arc<str>),
    /// A transform of the same scope, and which of its outputs; none for the only or main one.
    Step(usize, Option<Arc<str>>),
}

/// A reference with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// What is meant.
    pub target: Target,
    /// Where it stands; of a chain's implicit reference, the transform that reads.
    pub span: Span,
}

/// What a scope gives.
#[derive(Debug, Clone)]
pub enum Outputs {
    /// All outputs of that step.
    All(usize),
    /// These, by name.
    Named(Vec<(Arc<str>, Reference)>),
}

/// The transforms of a pipeline or composite, with their references.
#[derive(Debug, Clone)]
pub struct Scope<'f> {
    /// The transforms.
    pub steps: Vec<Resolved<'f>>,
    /// An order in which each comes after those it reads.
    pub order: Vec<usize>,
    /// What it gives.
    pub outputs: Outputs,
    /// Its windowing.
    pub body: &'f Body,
}

/// A transform with its references.
#[derive(Debug, Clone)]
pub struct Resolved<'f> {
    /// What the file says of it.
    pub step: &'f Step,
    /// Its label, unique in its scope.
    pub label: Arc<str>,
    /// What it reads, by the names of its inputs.
    pub inputs: Vec<(Arc<str>, Vec<Reference>)>,
    /// Whether something that it reads was not found; told already.
    pub lacks_inputs: bool,
    /// The transforms inside.
    pub body: Option<Scope<'f>>,
}

/// Looks up the references of a whole pipeline; mistakes go to `problems`.
pub fn resolve<'f>(body: &'f Body, source: &Source, problems: &mut Vec<Diagnostic>) -> Scope<'f> {
    let mut resolver = Resolver { source, problems };
    resolver.scope(body, &[], None)
}

struct Resolver<'a> {
    source: &'a Source,
    problems: &'a mut Vec<Diagnostic>,
}

impl Resolver<'_> {
    /// `outside` are the names of the scope's own inputs; `told` is the composite whose body it is.
    fn scope<'f>(&mut self, body: &'f Body, outside: &[Arc<str>], told: Option<&'f Step>) -> Scope<'f> {
        self.check_names(&body.steps);
        let implicit = body.chained == 0
            && !outside.is_empty()
            && body.steps.iter().all(|step| step.input == Input::Absent && step.output.is_none());
        let chained = if implicit { body.steps.len() } else { body.chained };
        let mut steps: Vec<Resolved<'f>> = Vec::with_capacity(body.steps.len());
        for (i, step) in body.steps.iter().enumerate() {
            let inputs = if i < chained && step.input == Input::Absent {
                self.chain_input(i, step, outside)
            } else {
                self.given_inputs(step, &body.steps, outside)
            };
            let inner: Vec<Arc<str>> = inputs.iter().map(|(name, _)| name.clone()).collect();
            let label = self.label(step, &steps);
            let inner = step.body.as_ref().map(|body| self.scope(body, &inner, Some(step)));
            let given = match &step.input {
                Input::Given(given) => given.iter().map(|(_, names)| names.len()).sum(),
                _ => 0,
            };
            let found: usize = inputs.iter().map(|(_, references)| references.len()).sum();
            steps.push(Resolved { step, label, inputs, lacks_inputs: given > found, body: inner });
        }
        let outputs = self.outputs(body, chained, told, outside);
        self.check_errors_consumed(&steps, &outputs);
        let order = self.order(&steps);
        Scope { steps, order, outputs, body }
    }

    fn check_names(&mut self, steps: &[Step]) {
        for (i, step) in steps.iter().enumerate() {
            let Some(name) = &step.name else { continue };
            let first = steps[..i]
                .iter()
                .filter_map(|other| other.name.as_ref())
                .find(|other| other.text == name.text);
            if let Some(first) = first {
                let line = self.source.position(first.span.start).line;
                self.problems.push(
                    Diagnostic::new("TB0209", name.span, format!("the name `{}` is used twice", name.text))
                        .label(format!("first used on line {line}"))
                        .help("give each a name of its own: references go by it"),
                );
            }
        }
    }

    /// The transform's name; with its line where the name is taken already.
    fn label(&self, step: &Step, before: &[Resolved<'_>]) -> Arc<str> {
        let taken = |label: &str| before.iter().any(|other| &*other.label == label);
        let title = step.title();
        if !taken(title) {
            return title.clone();
        }
        let line = self.source.position(step.span.start).line;
        let mut label = format!("{title}@{line}");
        while taken(&label) {
            label.push('\'');
        }
        label.into()
    }

    fn chain_input(
        &self,
        index: usize,
        step: &Step,
        outside: &[Arc<str>],
    ) -> Vec<(Arc<str>, Vec<Reference>)> {
        let span = step.kind.span;
        match index {
            0 => outside
                .iter()
                .map(|name| (name.clone(), vec![Reference { target: Target::Outside(name.clone()), span }]))
                .collect(),
            _ => vec![("input".into(), vec![Reference { target: Target::Step(index - 1, None), span }])],
        }
    }

    fn given_inputs(
        &mut self,
        step: &Step,
        steps: &[Step],
        outside: &[Arc<str>],
    ) -> Vec<(Arc<str>, Vec<Reference>)> {
        let Input::Given(inputs) = &step.input else { return Vec::new() };
        inputs
            .iter()
            .map(|(key, names)| {
                let found = names.iter().filter_map(|name| self.reference(name, steps, outside)).collect();
                (key.clone(), found)
            })
            .collect()
    }

    fn reference(&mut self, name: &Name, steps: &[Step], outside: &[Arc<str>]) -> Option<Reference> {
        let span = name.span;
        if outside.contains(&name.text) {
            return Some(Reference { target: Target::Outside(name.text.clone()), span });
        }
        let find = |wanted: &str| -> Vec<usize> {
            let by_name = |step: &Step| step.name.as_ref().is_some_and(|name| &*name.text == wanted);
            let found: Vec<usize> = (0..steps.len()).filter(|i| by_name(&steps[*i])).collect();
            let by_type = (0..steps.len()).filter(|i| &*steps[*i].kind.text == wanted && !found.contains(i));
            let by_type: Vec<usize> = by_type.collect();
            [found, by_type].concat()
        };
        let mut found = find(&name.text);
        let mut output = None;
        if found.is_empty()
            && let Some((step, tag)) = name.text.rsplit_once('.')
        {
            found = find(step);
            output = Some(Arc::from(tag));
        }
        match found.as_slice() {
            [one] => Some(Reference { target: Target::Step(*one, output), span }),
            [] => {
                let names =
                    steps.iter().map(|step| &**step.title()).chain(outside.iter().map(|name| &**name));
                let known: Vec<&str> = names.collect();
                let wanted = name.text.rsplit_once('.').map_or(&*name.text, |(step, _)| step);
                let problem = Diagnostic::new("TB0233", span, format!("unknown input `{}`", name.text));
                self.problems.push(
                    problem
                        .did_you_mean(wanted, known.iter().copied())
                        .note(format!("here: {}", known.join(", "))),
                );
                None
            }
            many => {
                let lines: Vec<String> = many
                    .iter()
                    .map(|i| self.source.position(steps[*i].span.start).line.to_string())
                    .collect();
                let message =
                    format!("`{}` could be the transform on line {}", name.text, lines.join(" or "));
                self.problems
                    .push(Diagnostic::new("TB0222", span, message).help("give each a `name` of its own"));
                None
            }
        }
    }

    fn outputs(&mut self, body: &Body, chained: usize, told: Option<&Step>, outside: &[Arc<str>]) -> Outputs {
        let Some(named) = told.and_then(|step| step.output.as_ref()) else {
            return match chained.checked_sub(1) {
                Some(last) => Outputs::All(last),
                None => Outputs::Named(Vec::new()),
            };
        };
        let mut outputs = Vec::with_capacity(named.len());
        for (key, name) in named {
            // A chain gives its last transform's outputs, which may be told by their bare names.
            let last = chained.checked_sub(1).and_then(|last| body.steps.get(last).map(|step| (last, step)));
            let reference = match last {
                Some((last, step)) if *step.title() == name.text || step.kind.text == name.text => {
                    Some(Reference { target: Target::Step(last, None), span: name.span })
                }
                Some((last, _)) if body.chained > 0 && !name.text.contains('.') => {
                    Some(Reference { target: Target::Step(last, Some(name.text.clone())), span: name.span })
                }
                _ => self.reference(name, &body.steps, outside),
            };
            outputs.extend(reference.map(|reference| (key.clone(), reference)));
        }
        Outputs::Named(outputs)
    }

    fn check_errors_consumed(&mut self, steps: &[Resolved<'_>], outputs: &Outputs) {
        let given = match outputs {
            Outputs::All(_) => &[][..],
            Outputs::Named(named) => named,
        };
        let consumed = |step: usize, output: &str| {
            let inputs = steps.iter().flat_map(|step| &step.inputs).flat_map(|(_, references)| references);
            let matches = |reference: &Reference| match &reference.target {
                Target::Step(of, Some(tag)) => *of == step && &**tag == output,
                _ => false,
            };
            inputs.chain(given.iter().map(|(_, reference)| reference)).any(matches)
                || matches!(outputs, Outputs::All(last) if *last == step)
        };
        for (i, resolved) in steps.iter().enumerate() {
            let title = resolved.step.title();
            for (what, output) in beside_main(resolved.step) {
                if !consumed(i, &output.text) {
                    let message = format!("{what} of `{title}` are not consumed");
                    let help = format!("use `{title}.{}` as the input of another transform", output.text);
                    self.problems.push(Diagnostic::new("TB0235", output.span, message).help(help));
                }
            }
        }
    }

    fn order(&mut self, steps: &[Resolved<'_>]) -> Vec<usize> {
        let reads: Vec<Vec<usize>> = steps
            .iter()
            .map(|step| {
                let references = step.inputs.iter().flat_map(|(_, references)| references);
                let of = |reference: &Reference| match reference.target {
                    Target::Step(step, _) => Some(step),
                    Target::Outside(_) => None,
                };
                references.filter_map(of).collect()
            })
            .collect();
        let mut order = Vec::with_capacity(steps.len());
        let mut done = vec![false; steps.len()];
        loop {
            let ready = (0..steps.len()).find(|i| !done[*i] && reads[*i].iter().all(|read| done[*read]));
            match ready {
                Some(i) => {
                    done[i] = true;
                    order.push(i);
                }
                None => break,
            }
        }
        if let Some(start) = done.iter().position(|done| !done) {
            self.tell_cycle(start, &reads, &done, steps);
        }
        order
    }

    fn tell_cycle(&mut self, start: usize, reads: &[Vec<usize>], done: &[bool], steps: &[Resolved<'_>]) {
        // Whatever is not done reads something that is not done: walking back must come round.
        let mut path = vec![start];
        let mut at = start;
        while let Some(next) = reads[at].iter().copied().find(|read| !done[*read]) {
            if let Some(seen) = path.iter().position(|step| *step == next) {
                path.drain(..seen);
                break;
            }
            path.push(next);
            at = next;
        }
        path.reverse();
        let mut names: Vec<&str> = path.iter().map(|step| &*steps[*step].label).collect();
        names.extend(names.first().copied());
        let first = path.first().copied().unwrap_or(start);
        let span = steps[first].step.title_span();
        let message = format!("these transforms wait for each other: {}", names.join(" → "));
        let help = "one of them must read something that is not made of its own output";
        self.problems.push(Diagnostic::new("TB0234", span, message).help(help));
    }
}

/// The outputs that a transform's configuration names, and what goes there; of a provider's transform, those of the last
/// one inside.
fn beside_main(step: &Step) -> Vec<(&'static str, Name)> {
    match &step.body {
        Some(body) if !matches!(&*step.kind.text, "chain" | "composite") => {
            body.steps.last().map(beside_main).unwrap_or_default()
        }
        _ => {
            let monitored = step.monitoring_output().map(|output| ("the monitored predictions", output));
            step.error_output().map(|output| ("the errors", output)).into_iter().chain(monitored).collect()
        }
    }
}
