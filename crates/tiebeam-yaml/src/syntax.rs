//! The grammar of a pipeline file: what stands where, before anything is looked up.

use std::sync::Arc;

use crate::diagnostic::Diagnostic;
use crate::document::{Content, Entry, Node};
use crate::providers::{Definition, MAX_DEPTH, Providers};
use crate::source::Span;

/// A name with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    /// The name.
    pub text: Arc<str>,
    /// Where it stands.
    pub span: Span,
}

/// A pipeline file.
#[derive(Debug, Clone)]
pub struct File {
    /// What `pipeline` holds.
    pub pipeline: Body,
    /// The pipeline options, a mapping.
    pub options: Option<Node>,
    /// The tests, a list.
    pub tests: Option<Node>,
}

/// The transforms of a pipeline or composite.
#[derive(Debug, Clone)]
pub struct Body {
    /// The transforms in the order of the file: the source first, the sink last, then the extra ones.
    pub steps: Vec<Step>,
    /// The number of steps, from the first, of which each reads the one before.
    pub chained: usize,
    /// How it is windowed.
    pub windowing: Option<Entry>,
    /// What all of it needs of a machine.
    pub resource_hints: Option<Entry>,
    /// Where it is called a chain or composite, or begins.
    pub span: Span,
    /// Whether the file says what type it is.
    pub is_typed: bool,
}

/// What a transform says of its input.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Nothing.
    Absent,
    /// That it has none: `input: {}`.
    Nothing,
    /// References by the names of the transform's inputs; several references to one are flattened.
    Given(Vec<(Arc<str>, Vec<Name>)>),
}

/// One transform.
#[derive(Debug, Clone)]
pub struct Step {
    /// Where it begins.
    pub span: Span,
    /// Its type.
    pub kind: Name,
    /// Its name, where it has one.
    pub name: Option<Name>,
    /// What it reads.
    pub input: Input,
    /// What a composite gives, by name; references into the composite.
    pub output: Option<Vec<(Arc<str>, Name)>>,
    /// Its configuration, a mapping.
    pub config: Option<Node>,
    /// Whether what belongs in its configuration stands elsewhere; told already.
    pub is_misplaced: bool,
    /// How what it reads (or makes, if it reads nothing) is windowed.
    pub windowing: Option<Entry>,
    /// What it needs of a machine.
    pub resource_hints: Option<Entry>,
    /// The transforms inside of a chain or composite.
    pub body: Option<Body>,
}

impl Step {
    /// The name that references use.
    pub fn title(&self) -> &Arc<str> {
        self.name.as_ref().map_or(&self.kind.text, |name| &name.text)
    }

    /// Where the transform is named.
    pub fn title_span(&self) -> Span {
        self.name.as_ref().map_or(self.kind.span, |name| name.span)
    }

    /// The `error_handling` of its configuration.
    pub fn error_handling(&self) -> Option<&Entry> {
        self.config.as_ref()?.entry("error_handling")
    }

    /// The output that its errors go to.
    pub fn error_output(&self) -> Option<Name> {
        self.output_of("error_handling")
    }

    /// The output that a copy of a model's raw predictions goes to.
    pub fn monitoring_output(&self) -> Option<Name> {
        // Transforms of other people may have a key of that name.
        (&*self.kind.text == "RunInference").then(|| self.output_of("monitoring")).flatten()
    }

    fn output_of(&self, key: &str) -> Option<Name> {
        let output = self.config.as_ref()?.get(key)?.get("output")?;
        Some(Name { text: output.as_str()?.clone(), span: output.span })
    }
}

const TOP: [&str; 4] = ["pipeline", "options", "providers", "tests"];
const PIPELINE: [&str; 7] =
    ["type", "transforms", "source", "sink", "extra_transforms", "windowing", "resource_hints"];
const LEAF: [&str; 6] = ["type", "name", "input", "config", "windowing", "resource_hints"];
const COMPOSITE: [&str; 10] = [
    "type",
    "name",
    "input",
    "output",
    "transforms",
    "source",
    "sink",
    "extra_transforms",
    "windowing",
    "resource_hints",
];

/// Reads the grammar of a whole file, as far as it can be read; mistakes go to `problems`. What it includes is looked for
/// beside it, by its `name`.
pub fn file(name: &str, document: &Node, problems: &mut Vec<Diagnostic>) -> Option<File> {
    let mut reader = Reader { problems, providers: Providers::default(), depth: 0 };
    if document.content == Content::Null {
        let problem = Diagnostic::new("TB0207", document.span, "the file is empty");
        reader.problems.push(problem.help("a pipeline file begins with `pipeline:`"));
        return None;
    }
    let entries = reader.map(document, "a pipeline file")?;
    reader.keys(entries, &TOP, "a pipeline file");
    if let Some(providers) = document.entry("providers") {
        reader.providers = Providers::read(name, &providers.value, reader.problems);
    }
    let options = document.get("options").filter(|node| reader.map(node, "`options`").is_some()).cloned();
    let tests = document.get("tests").filter(|node| reader.list(node, "`tests`").is_some()).cloned();
    let Some(pipeline) = document.entry("pipeline") else {
        reader.missing("pipeline", document.span, "a pipeline file");
        return None;
    };
    let pipeline = reader.pipeline(pipeline)?;
    Some(File { pipeline, options, tests })
}

struct Reader<'a> {
    problems: &'a mut Vec<Diagnostic>,
    providers: Providers,
    /// How many bodies of providers the transform is in.
    depth: usize,
}

impl Reader<'_> {
    fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Entry]> {
        self.wanted(node, node.as_map(), what, "a mapping")
    }

    fn list<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        self.wanted(node, node.as_list(), what, "a list")
    }

    fn name(&mut self, node: &Node, what: &str) -> Option<Name> {
        // A name that YAML takes for a number or a boolean is a name all the same.
        let text = match &node.content {
            Content::Int(value) => Some(value.to_string().into()),
            Content::String(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        let text = self.wanted(node, text, what, "a name")?;
        Some(Name { text, span: node.span })
    }

    fn wanted<T>(&mut self, node: &Node, found: Option<T>, what: &str, wanted: &str) -> Option<T> {
        if found.is_none() {
            let message = format!("{what} wants {wanted}, got {}", node.kind());
            self.problems.push(Diagnostic::new("TB0208", node.span, message));
        }
        found
    }

    fn keys(&mut self, entries: &[Entry], known: &[&str], place: &str) {
        for entry in
            entries.iter().filter(|entry| !known.contains(&&*entry.key) && !entry.key.starts_with("__"))
        {
            self.problems.push(unknown_key(entry, known, place));
        }
    }

    fn missing(&mut self, key: &str, span: Span, place: &str) {
        let message = format!("{place} lacks the key `{key}`");
        self.problems.push(Diagnostic::new("TB0207", span, message));
    }

    fn pipeline(&mut self, entry: &Entry) -> Option<Body> {
        if let Some(steps) = entry.value.as_list() {
            // Beam takes a bare list of transforms for a composite.
            let steps = self.steps(steps);
            return Some(Body {
                steps,
                chained: 0,
                windowing: None,
                resource_hints: None,
                span: entry.key_span,
                is_typed: false,
            });
        }
        let entries = self.map(&entry.value, "`pipeline`")?;
        self.keys(entries, &PIPELINE, "a pipeline");
        let chain = match entry.value.get("type") {
            None => false,
            Some(node) => match self.name(node, "the pipeline's `type`") {
                Some(name) if &*name.text == "chain" => true,
                Some(name) if &*name.text != "composite" => {
                    let message = format!("a pipeline is a `chain` or a `composite`, got `{}`", name.text);
                    let near = crate::suggest::nearest(&name.text, ["chain", "composite"]);
                    let problem = Diagnostic::new("TB0232", name.span, message);
                    self.problems.push(match near {
                        Some(near) => problem.help(format!("did you mean `{near}`?")),
                        None => problem,
                    });
                    near == Some("chain")
                }
                _ => false,
            },
        };
        self.body(&entry.value, entry.key_span, chain)
    }

    /// The transforms of a pipeline, chain or composite.
    fn body(&mut self, node: &Node, span: Span, chain: bool) -> Option<Body> {
        let mut steps = Vec::new();
        if let Some(source) = node.get("source")
            && let Some(mut step) = self.step(source)
        {
            if step.input == Input::Absent {
                step.input = Input::Nothing;
            }
            steps.push(step);
        }
        match node.get("transforms") {
            Some(transforms) => {
                if let Some(list) = self.list(transforms, "`transforms`") {
                    steps.extend(self.steps(list));
                }
            }
            None if node.get("source").is_some() && node.get("sink").is_some() => {}
            None => self.missing("transforms", span, if chain { "a chain" } else { "a composite" }),
        }
        if let Some(sink) = node.get("sink") {
            steps.extend(self.step(sink));
        }
        let chained = if chain { steps.len() } else { 0 };
        if let Some(extra) = node.entry("extra_transforms") {
            if chain {
                if let Some(list) = self.list(&extra.value, "`extra_transforms`") {
                    let extra = self.steps(list);
                    steps.extend(extra);
                }
            } else {
                let problem =
                    Diagnostic::new("TB0220", extra.key_span, "`extra_transforms` are for chains only");
                self.problems.push(problem.help("put them among `transforms`"));
            }
        }
        for (i, step) in steps.iter().enumerate().take(chained) {
            self.check_chained(i, step);
        }
        let is_typed = node.get("type").is_some();
        let windowing = node.entry("windowing").cloned();
        let resource_hints = node.entry("resource_hints").cloned();
        Some(Body { steps, chained, windowing, resource_hints, span, is_typed })
    }

    fn check_chained(&mut self, index: usize, step: &Step) {
        let given = match &step.input {
            Input::Given(inputs) => inputs.iter().flat_map(|(_, names)| names).map(|name| name.span).next(),
            _ => None,
        };
        if let Some(span) = given {
            self.problems.push(
                Diagnostic::new(
                    "TB0220",
                    span,
                    format!("`{}` is part of a chain, which gives it its input", step.title()),
                )
                .help("remove `input`, or use `type: composite`"),
            );
        }
        if step.input == Input::Nothing && index > 0 {
            let message =
                format!("`{}` is part of a chain, so it reads the transform before it", step.title());
            self.problems.push(Diagnostic::new("TB0220", step.title_span(), message));
        }
        if let Some((_, output)) = step.output.as_ref().and_then(|output| output.first()) {
            let message =
                format!("`{}` is part of a chain, so its output is told by the chain", step.title());
            self.problems.push(Diagnostic::new("TB0220", output.span, message).help("remove `output`"));
        }
    }

    fn steps(&mut self, list: &[Node]) -> Vec<Step> {
        list.iter().filter_map(|node| self.step(node)).collect()
    }

    fn step(&mut self, node: &Node) -> Option<Step> {
        let entries = self.map(node, "a transform")?;
        let Some(kind) = node.get("type") else {
            self.missing("type", node.span, "a transform");
            return None;
        };
        let kind = self.name(kind, "a transform's `type`")?;
        let composite = matches!(&*kind.text, "chain" | "composite");
        let is_misplaced = self.step_keys(entries, &kind, composite);
        let name = node.get("name").and_then(|name| self.name(name, "a transform's `name`"));
        let input = match node.get("input") {
            None => Input::Absent,
            Some(input) => self.input(input),
        };
        let output = match node.get("output") {
            Some(output) if composite => self.output(output),
            _ => None,
        };
        let config = node.get("config").filter(|config| config.content != Content::Null);
        let config = config.filter(|config| self.map(config, "a transform's `config`").is_some()).cloned();
        let defined = self.providers.find(&kind.text).filter(|_| !composite).cloned();
        let body = match &defined {
            Some(defined) => self.defined(defined, &kind, config.as_ref()),
            None if composite => self.body(node, kind.span, &*kind.text == "chain"),
            None => None,
        };
        if composite && body.is_none() {
            return None;
        }
        // A provider's configuration has gone into its body; where that could not be made, it was told.
        let is_misplaced = is_misplaced || (defined.is_some() && body.is_none());
        let config = config.filter(|_| defined.is_none());
        let windowing = node.entry("windowing").cloned();
        let resource_hints = node.entry("resource_hints").cloned();
        let span = node.span;
        Some(Step { span, kind, name, input, output, config, is_misplaced, windowing, resource_hints, body })
    }

    /// What a transform of a provider stands for.
    fn defined(&mut self, defined: &Definition, kind: &Name, config: Option<&Node>) -> Option<Body> {
        if self.depth >= MAX_DEPTH {
            let message = format!("`{}` is defined by itself, or more than {MAX_DEPTH} deep", kind.text);
            self.problems.push(Diagnostic::new("TB0219", kind.span, message));
            return None;
        }
        match defined.body(config, kind.span) {
            Ok(node) => {
                self.depth += 1;
                let inside = self.step(&node);
                self.depth -= 1;
                Some(Body {
                    steps: vec![inside?],
                    chained: 1,
                    windowing: None,
                    resource_hints: None,
                    span: kind.span,
                    is_typed: true,
                })
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }

    /// Whether keys of the configuration stand beside it, or it is misspelt.
    fn step_keys(&mut self, entries: &[Entry], kind: &Name, composite: bool) -> bool {
        if composite {
            self.keys(entries, &COMPOSITE, &format!("a {}", kind.text));
            return false;
        }
        let mut misplaced = false;
        for entry in
            entries.iter().filter(|entry| !LEAF.contains(&&*entry.key) && !entry.key.starts_with("__"))
        {
            let problem = unknown_key(entry, &LEAF, "a transform");
            let known = crate::catalog::find(&kind.text).is_some_and(|kind| kind.key(&entry.key).is_some());
            misplaced |= known || crate::suggest::nearest(&entry.key, LEAF) == Some("config");
            self.problems.push(match &*entry.key {
                "output" => Diagnostic::new("TB0231", entry.key_span, "only a composite tells its `output`")
                    .help("others are referred to by their names: `Name`, or `Name.errors`"),
                key if known || key == "output_schema" => {
                    problem.help(format!("`{key}` belongs under `config`"))
                }
                _ => problem,
            });
        }
        misplaced
    }

    fn input(&mut self, node: &Node) -> Input {
        match &node.content {
            Content::Map(entries) if entries.is_empty() => Input::Nothing,
            Content::Map(entries) => {
                let given = entries.iter().map(|entry| (entry.key.clone(), self.references(&entry.value)));
                Input::Given(given.collect())
            }
            Content::List(items) if items.is_empty() => Input::Nothing,
            Content::Null => Input::Absent,
            _ => Input::Given(vec![("input".into(), self.references(node))]),
        }
    }

    fn references(&mut self, node: &Node) -> Vec<Name> {
        match &node.content {
            Content::List(items) => items.iter().filter_map(|item| self.name(item, "an input")).collect(),
            _ => self.name(node, "an input").into_iter().collect(),
        }
    }

    fn output(&mut self, node: &Node) -> Option<Vec<(Arc<str>, Name)>> {
        match &node.content {
            Content::Map(entries) => Some(
                entries
                    .iter()
                    .filter_map(|entry| Some((entry.key.clone(), self.name(&entry.value, "an output")?)))
                    .collect(),
            ),
            _ => Some(vec![("output".into(), self.name(node, "an output")?)]),
        }
    }
}

/// A key that does not belong there.
pub fn unknown_key(entry: &Entry, known: &[&str], place: &str) -> Diagnostic {
    let problem =
        Diagnostic::new("TB0231", entry.key_span, format!("unknown key `{}` in {place}", entry.key));
    let problem = problem.did_you_mean(&entry.key, known.iter().copied());
    let mut known: Vec<&str> = known.to_vec();
    known.sort_unstable();
    if known.is_empty() {
        return problem.note("no keys here");
    }
    problem.note(format!("keys here: {}", known.join(", ")))
}
