//! Providers: transforms that are written in YAML themselves, in the pipeline file or in files that it includes.
//!
//! A body is a template. A text is rendered as a whole; of a mapping, each text in it, and what comes out stays a text, as
//! Beam has it. What stands in a body has no place in the pipeline file: mistakes in it are told where it is used.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiebeam_core::row::TypeKind;

use crate::diagnostic::Diagnostic;
use crate::document::{self, Content, Entry, Node};
use crate::schema::{declared_type, plain_value};
use crate::source::{Source, Span};
use crate::syntax::unknown_key;
use crate::template::{self, Variables};

/// How deep transforms of providers may use each other.
pub const MAX_DEPTH: usize = 16;

/// How deep listings may include each other.
const MAX_INCLUDES: usize = 8;

/// A transform that a provider defines.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Its type.
    pub name: Arc<str>,
    /// The keys of its configuration, by `properties` of a JSON schema.
    schema: Option<Node>,
    /// Whether it reads something.
    pub requires_inputs: bool,
    body: Node,
}

/// All transforms that the providers of a file define.
#[derive(Debug, Clone, Default)]
pub struct Providers {
    all: Vec<Definition>,
}

impl Providers {
    /// Those of the `providers` of the file called `name`; mistakes go to `problems`.
    pub fn read(name: &str, providers: &Node, problems: &mut Vec<Diagnostic>) -> Self {
        let folder = Path::new(name).parent().map(Path::to_path_buf).unwrap_or_default();
        let mut reader = Listing { found: Providers::default(), problems, place: None };
        reader.list(providers, &folder, 0);
        reader.found
    }

    /// The transform of that type.
    pub fn find(&self, kind: &str) -> Option<&Definition> {
        // What comes later stands for what comes before it.
        self.all.iter().rev().find(|one| &*one.name == kind)
    }

    /// The types.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|one| &*one.name)
    }
}

struct Listing<'a> {
    found: Providers,
    problems: &'a mut Vec<Diagnostic>,
    /// In an included file: where it is included, and its name.
    place: Option<(Span, String)>,
}

impl Listing<'_> {
    fn problem(&mut self, problem: Diagnostic) {
        self.problems.push(match &self.place {
            None => problem,
            Some((span, name)) => {
                let mut problem = problem.note(format!("in the included file {name}"));
                problem.span = Some(*span);
                problem
            }
        });
    }

    fn list(&mut self, providers: &Node, folder: &Path, depth: usize) {
        let Some(list) = providers.as_list() else {
            let message = format!("`providers` wants a list, got {}", providers.kind());
            self.problem(Diagnostic::new("TB0208", providers.span, message));
            return;
        };
        for provider in list {
            if let Some(include) = provider.get("include") {
                self.include(include, folder, depth);
                continue;
            }
            match provider.get("type").and_then(Node::as_str).map(|kind| &**kind) {
                Some("yaml") => self.yaml(provider),
                kind => self.foreign(provider, kind),
            }
        }
    }

    fn foreign(&mut self, provider: &Node, kind: Option<&str>) {
        let span = provider.get("type").unwrap_or(provider).span;
        self.problem(match kind {
            None => Diagnostic::new("TB0207", span, "a provider lacks the key `type`")
                .help("`type: yaml` with `transforms`, or `include: FILE`"),
            Some(kind) => Diagnostic::new("TB0219", span, format!("a provider of type `{kind}` is not available"))
                .note("such providers run transforms of other SDKs; this build has its own, and those of `type: yaml`")
                .help("`tiebeam transforms` lists its own"),
        });
    }

    fn include(&mut self, include: &Node, folder: &Path, depth: usize) {
        let Some(given) = include.as_str() else {
            let message = format!("`include` wants the name of a file, got {}", include.kind());
            return self.problem(Diagnostic::new("TB0208", include.span, message));
        };
        let path = given.strip_prefix("file://").unwrap_or(given);
        if path.contains("://") {
            let problem =
                Diagnostic::new("TB0219", include.span, format!("`{given}` is not on this machine"));
            return self.problem(
                problem.help("copy the listing beside the pipeline file, and include it from there"),
            );
        }
        if depth >= MAX_INCLUDES {
            let problem = Diagnostic::new("TB0219", include.span, "listings include each other too deeply");
            return self.problem(problem.note(format!("at most {MAX_INCLUDES} deep")));
        }
        let path: PathBuf = folder.join(path);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("`{}` cannot be read: {error}", path.display());
                return self.problem(Diagnostic::new("TB0244", include.span, message));
            }
        };
        let place = self.place.clone().map_or(include.span, |(span, _)| span);
        let outer = self.place.replace((place, path.display().to_string()));
        match document::parse(&Source::new(path.display().to_string(), text)) {
            // A listing may stand under its key, as in a pipeline file.
            Ok(listing) => {
                let list = listing.get("providers").unwrap_or(&listing);
                let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
                self.list(&moved(list, place), &folder, depth + 1);
            }
            Err(problem) => self.problem(problem),
        }
        self.place = outer;
    }

    fn yaml(&mut self, provider: &Node) {
        let Some(transforms) = provider.get("transforms").and_then(Node::as_map) else {
            let problem =
                Diagnostic::new("TB0207", provider.span, "a provider of type `yaml` lacks `transforms`");
            return self.problem(problem.help("`transforms: {Name: {config_schema: …, body: …}}`"));
        };
        const KEYS: [&str; 4] = ["config_schema", "requires_inputs", "body", "description"];
        for entry in transforms.iter().filter(|entry| !entry.key.starts_with("__")) {
            let keys = entry.value.as_map().unwrap_or(&[]);
            for key in keys.iter().filter(|key| !KEYS.contains(&&*key.key) && !key.key.starts_with("__")) {
                let problem = unknown_key(key, &KEYS, &format!("the transform `{}`", entry.key));
                self.problem(problem);
            }
            let Some(body) = entry.value.get("body") else {
                let message = format!("the transform `{}` lacks its `body`", entry.key);
                self.problem(Diagnostic::new("TB0207", entry.key_span, message));
                continue;
            };
            let inputs = entry.value.get("requires_inputs").map(|node| &node.content);
            self.found.all.push(Definition {
                name: entry.key.clone(),
                schema: entry.value.get("config_schema").cloned(),
                requires_inputs: inputs != Some(&Content::Bool(false)),
                body: body.clone(),
            });
        }
    }
}

impl Definition {
    /// The body for a configuration, every part of it at `span`.
    ///
    /// # Errors
    /// All that is wrong with the configuration, or with the body.
    pub fn body(&self, config: Option<&Node>, span: Span) -> Result<Node, Vec<Diagnostic>> {
        let given = config.and_then(Node::as_map).unwrap_or(&[]);
        let problems = self.check(given);
        if !problems.is_empty() {
            return Err(problems);
        }
        let variables: Variables =
            given.iter().map(|entry| (entry.key.to_string(), json_of(&entry.value))).collect();
        let rendered = match self.body.as_str() {
            Some(text) => self.render(text, &variables).and_then(|text| {
                document::parse(&Source::new(&*self.name, text)).map_err(|problem| problem.message.clone())
            }),
            None => self.rendered(&self.body, &variables),
        };
        match rendered {
            Ok(body) => Ok(moved(&body, span)),
            Err(message) => {
                let message = format!("the body of `{}`: {message}", self.name);
                Err(vec![Diagnostic::new("TB0218", span, message)])
            }
        }
    }

    fn check(&self, given: &[Entry]) -> Vec<Diagnostic> {
        let properties =
            self.schema.as_ref().and_then(|schema| schema.get("properties")).and_then(Node::as_map);
        let Some(properties) = properties else { return Vec::new() };
        let names: Vec<&str> = properties.iter().map(|property| &*property.key).collect();
        let mut problems = Vec::new();
        for entry in given.iter().filter(|entry| !entry.key.starts_with("__")) {
            let Some(property) = properties.iter().find(|property| property.key == entry.key) else {
                problems.push(unknown_key(entry, &names, &format!("`{}`", self.name)));
                continue;
            };
            // What a schema says beyond types is for people.
            let Ok(wanted) = declared_type(&property.value) else { continue };
            let fits = matches!(
                (&wanted.kind, &entry.value.content),
                (TypeKind::Boolean, Content::Bool(_))
                    | (TypeKind::Int64 | TypeKind::Double, Content::Int(_))
                    | (TypeKind::Double, Content::Float(_))
                    | (TypeKind::String, Content::String(_))
                    | (TypeKind::Array(_), Content::List(_))
                    | (TypeKind::Row(_) | TypeKind::Map(..), Content::Map(_))
                    | (TypeKind::Bytes, _)
            );
            if !fits {
                let (wanted, seen) = (crate::expression::show(&wanted), entry.value.kind());
                let message = format!("`{}` of `{}` wants {wanted}, got {seen}", entry.key, self.name);
                problems.push(Diagnostic::new("TB0208", entry.value.span, message));
            }
        }
        problems
    }

    fn render(&self, text: &str, variables: &Variables) -> Result<String, String> {
        match template::render(&self.name, text, variables) {
            Ok(source) => Ok(source.text().to_string()),
            Err((_, problem)) => Err(problem.message.clone()),
        }
    }

    /// A node whose texts are rendered.
    fn rendered(&self, node: &Node, variables: &Variables) -> Result<Node, String> {
        let content = match &node.content {
            Content::String(text) => Content::String(self.render(text, variables)?.into()),
            Content::List(items) => Content::List(
                items.iter().map(|item| self.rendered(item, variables)).collect::<Result<_, _>>()?,
            ),
            Content::Map(entries) => Content::Map(
                entries
                    .iter()
                    .map(|entry| {
                        Ok(Entry { value: self.rendered(&entry.value, variables)?, ..entry.clone() })
                    })
                    .collect::<Result<_, String>>()?,
            ),
            content => content.clone(),
        };
        Ok(Node { span: node.span, content })
    }
}

/// A node all of whose parts stand at `span`.
fn moved(node: &Node, span: Span) -> Node {
    let content = match &node.content {
        Content::List(items) => Content::List(items.iter().map(|item| moved(item, span)).collect()),
        Content::Map(entries) => Content::Map(
            entries
                .iter()
                .map(|entry| Entry {
                    key: entry.key.clone(),
                    key_span: span,
                    value: moved(&entry.value, span),
                })
                .collect(),
        ),
        content => content.clone(),
    };
    Node { span, content }
}

fn json_of(node: &Node) -> serde_json::Value {
    crate::offer::json_of(&plain_value(node))
}
