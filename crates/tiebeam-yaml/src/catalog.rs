//! What transforms there are: their names, their keys, and what makes them.

use crate::diagnostic::Diagnostic;
use crate::document::{Content, Entry, Node};
use crate::plan::{Made, Maker};
use crate::source::Span;
use crate::syntax::unknown_key;
use crate::transforms;

/// How many PCollections a transform reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inputs {
    /// None: it is a source.
    None,
    /// One; several references to it are flattened.
    One,
    /// The same, and beside it, where it is wanted, one of this name. It comes last.
    Beside(&'static str),
    /// Any number.
    Any,
    /// Two or more, each by its name.
    Named,
    /// One, or several by their names.
    Tables,
}

/// What a key's value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// A string.
    Text,
    /// A string, or a list of strings.
    Texts,
    /// An integer.
    Int,
    /// A number.
    Number,
    /// A boolean.
    Bool,
    /// A list.
    List,
    /// A mapping.
    Map,
    /// Whatever its reader takes.
    Any,
}

impl Wants {
    /// What is wanted, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Wants::Text => "a string",
            Wants::Texts => "a string or a list of strings",
            Wants::Int => "an integer",
            Wants::Number => "a number",
            Wants::Bool => "a boolean",
            Wants::List => "a list",
            Wants::Map => "a mapping",
            Wants::Any => "a value",
        }
    }

    fn admits(self, node: &Node) -> bool {
        match (self, &node.content) {
            (Wants::Any, _)
            | (Wants::Text | Wants::Texts, Content::String(_))
            | (Wants::Int | Wants::Number, Content::Int(_))
            | (Wants::Number, Content::Float(_))
            | (Wants::Bool, Content::Bool(_))
            | (Wants::List, Content::List(_))
            | (Wants::Map, Content::Map(_)) => true,
            (Wants::Texts, Content::List(items)) => items.iter().all(|item| item.as_str().is_some()),
            _ => false,
        }
    }
}

/// A key of a configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value must be.
    pub wants: Wants,
    /// Whether it must be given.
    pub required: bool,
    /// What it does, in one line.
    pub about: &'static str,
}

impl Key {
    /// A key that must be given.
    pub const fn required(name: &'static str, wants: Wants, about: &'static str) -> Self {
        Key { name, wants, required: true, about }
    }

    /// A key that may be given.
    pub const fn optional(name: &'static str, wants: Wants, about: &'static str) -> Self {
        Key { name, wants, required: false, about }
    }
}

/// The key that transforms whose rows can fail have.
pub const ERROR_HANDLING: Key =
    Key::optional("error_handling", Wants::Map, "`{output: NAME}`: where rows go that fail");

/// A type of transforms.
#[derive(Debug, Clone, Copy)]
pub struct TransformType {
    /// Its name in files.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// What it reads.
    pub inputs: Inputs,
    /// Whether its rows are those that it reads.
    pub keeps_rows: bool,
    /// The keys of its configuration.
    pub keys: &'static [Key],
    /// Makes one. Its keys were checked.
    pub make: fn(&mut Maker<'_>) -> Option<Made>,
}

impl TransformType {
    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// All types, in the order of their names.
pub fn types() -> Vec<&'static TransformType> {
    let mut all: Vec<&'static TransformType> = transforms::ALL.iter().copied().flatten().collect();
    all.sort_by_key(|kind| kind.name);
    all
}

/// The type of that name.
pub fn find(name: &str) -> Option<&'static TransformType> {
    let hidden = crate::replay::TYPES;
    transforms::ALL.iter().copied().flatten().chain(hidden).find(|kind| kind.name == name)
}

/// Transforms of Beam's that this build does not have.
const BEAM: [&str; 38] = [
    "AnomalyDetection",
    "DicomSearch",
    "Enrichment",
    "MLTransform",
    "PyTransform",
    "ReadFromAvro",
    "ReadFromBigQuery",
    "ReadFromBigTable",
    "ReadFromDebezium",
    "ReadFromDelta",
    "ReadFromDeltaCDC",
    "ReadFromIceberg",
    "ReadFromJdbc",
    "ReadFromJms",
    "ReadFromKafka",
    "ReadFromKinesis",
    "ReadFromMongoDB",
    "ReadFromMySql",
    "ReadFromOracle",
    "ReadFromParquet",
    "ReadFromPostgres",
    "ReadFromPubSub",
    "ReadFromPubSubLite",
    "ReadFromSnowflake",
    "ReadFromSpanner",
    "ReadFromSqlServer",
    "RunCompleter",
    "WriteToAvro",
    "WriteToBigQuery",
    "WriteToBigTable",
    "WriteToIceberg",
    "WriteToJdbc",
    "WriteToKafka",
    "WriteToMongoDB",
    "WriteToParquet",
    "WriteToPubSub",
    "WriteToSpanner",
    "WriteToMySql",
];

/// Why a transform of Beam's is not here, and what to do instead.
fn why_not(name: &str) -> (&'static str, &'static str) {
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    match name {
        "PyTransform" => (
            "it runs transforms of Beam's Python SDK, and there is no Python SDK here",
            "write functions of rows in `MapToFields` (`callable`), or a transform in YAML (`providers`)",
        ),
        _ if has(&["BigQuery", "BigTable", "PubSub", "Spanner", "Dicom", "Enrichment", "RunCompleter"]) => (
            "it talks to a cloud service, for which there is no connector here",
            "read and write files beside it",
        ),
        _ if has(&[
            "Kafka",
            "Jdbc",
            "Sql",
            "Postgres",
            "Oracle",
            "MongoDB",
            "Snowflake",
            "Jms",
            "Kinesis",
            "Debezium",
        ]) =>
        {
            (
                "it talks to another system, for which there is no connector here",
                "read and write files beside it",
            )
        }
        _ if has(&["Parquet", "Avro"]) => {
            ("this build was made without Parquet and Avro", "build it with the feature `tables`")
        }
        _ => ("it is not written yet", "`tiebeam transforms` lists those there are"),
    }
}

/// The mistake of a type that is not there.
pub fn unknown_type(name: &str, span: Span) -> Diagnostic {
    if BEAM.contains(&name) {
        let message = format!("`{name}` is a transform of Beam's that this build does not have");
        let (why, help) = why_not(name);
        return Diagnostic::new("TB0232", span, message).note(why).help(help);
    }
    let names = types().into_iter().map(|kind| kind.name).chain(["chain", "composite"]);
    let problem = Diagnostic::new("TB0232", span, format!("unknown transform type `{name}`"));
    let near = crate::suggest::nearest(name, names);
    match near {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("`tiebeam transforms` lists those there are"),
    }
}

/// Checks a configuration against its keys: unknown ones, missing ones, values of another type. Whether what is known is
/// enough to go on with: an unknown key is told and left out.
pub fn check_keys(
    config: &[Entry],
    keys: &[Key],
    place: &str,
    span: Span,
    problems: &mut Vec<Diagnostic>,
) -> bool {
    let mut fine = true;
    let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
    for entry in config.iter().filter(|entry| !entry.key.starts_with("__")) {
        match keys.iter().find(|key| key.name == &*entry.key) {
            None => problems.push(unknown_key(entry, &names, place)),
            // Nothing is given where a key has no value.
            Some(key) if entry.value.content == Content::Null && !key.required => {}
            Some(key) if !key.wants.admits(&entry.value) => {
                let seen = entry.value.kind();
                let message = format!("`{}` wants {}, got {seen}", key.name, key.wants.name());
                let span = if entry.value.span.start == entry.value.span.end {
                    entry.key_span
                } else {
                    entry.value.span
                };
                problems.push(Diagnostic::new("TB0208", span, message));
                fine = false;
            }
            Some(_) => {}
        }
    }
    for key in keys.iter().filter(|key| key.required) {
        if !config.iter().any(|entry| &*entry.key == key.name) {
            let meant =
                |entry: &Entry| crate::suggest::nearest(&entry.key, names.iter().copied()) == Some(key.name);
            if config.iter().any(meant) {
                // It is there, misspelt: told as that.
                fine = false;
                continue;
            }
            let message = format!("{place} lacks the key `{}`", key.name);
            problems
                .push(Diagnostic::new("TB0207", span, message).help(format!("{}: {}", key.name, key.about)));
            fine = false;
        }
    }
    fine
}
