//! `isolation: process`: models of pipeline files in processes of their own. Such a process is told the handler as the file has it, and
//! makes it without the rest of the file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_inference::env_vars;
use tiebeam_inference::isolation::{Isolate, description, give_up};
use tiebeam_inference::{
    InferenceArgs, Isolated, Isolation, ModelHandler, ModelInfo, ModelMetadata, Port, Predictions, Signature,
    Tensors,
};

use super::handlers::{HandlerType, Loaded, RowModel, handler_types, variable_of};
use super::inputs::Prepared;
use crate::catalog::{Key, Wants, check_keys};
use crate::diagnostic::Diagnostic;
use crate::document::{self, Content, Node};
use crate::environment::Environment;
use crate::plan::Maker;
use crate::source::Source;
use crate::syntax::{Input, Name, Step};

/// The keys of a model's file or folder.
const PATHS: [&str; 3] = ["model_uri", "state_dict_path", "model_path"];

/// Makes the model of a handler, apart where the file says so.
pub fn made(maker: &mut Maker<'_>, kind: &'static HandlerType, config: &Node) -> Option<Loaded> {
    let variables = variables(maker, config)?;
    match isolation(maker, kind, config)? {
        None => {
            if let Err(error) = env_vars::set(&variables) {
                maker.problem(Diagnostic::of(&error, config.get("env_vars")?.span));
                return None;
            }
            (kind.make)(maker, config)
        }
        Some(words) => {
            let path = config.as_map()?.iter().find(|entry| PATHS.contains(&&*entry.key))?;
            let handler = Told {
                kind,
                config: json_of(config),
                environment: maker.environment.clone(),
                files: vec![PathBuf::from(&**path.value.as_str()?)],
            };
            let mut description = handler.describe(None);
            description["isolation"] = words.clone();
            let isolation = isolation_of(&words).with_env_vars(variables);
            let isolated = Arc::new(handler.isolated(isolation).described(description.to_string()));
            Loaded::apart(maker, kind.name, path.value.span, isolated)
        }
    }
}

/// The variables that the file wants in the model's environment. None where they are wrong.
fn variables(maker: &mut Maker<'_>, config: &Node) -> Option<Vec<(String, String)>> {
    let Some(node) = config.get("env_vars").filter(|node| node.content != Content::Null) else {
        return Some(Vec::new());
    };
    let mut variables = Vec::new();
    for entry in node.as_map()? {
        let value = match &entry.value.content {
            Content::String(text) => match variable_of(text).map(|name| (name, std::env::var(name))) {
                None => text.to_string(),
                Some((_, Ok(value))) => value,
                Some((name, Err(_))) => {
                    let message = format!("the environment variable {name} is not set");
                    maker.problem(Diagnostic::new("TB0208", entry.value.span, message));
                    return None;
                }
            },
            Content::Int(number) => number.to_string(),
            Content::Float(number) => number.to_string(),
            Content::Bool(value) => value.to_string(),
            _ => {
                let message = format!("the variable `{}` is a text or a number", entry.key);
                maker.problem(Diagnostic::new("TB0208", entry.value.span, message));
                return None;
            }
        };
        if let Err(error) = env_vars::possible(&entry.key, &value) {
            maker.problem(Diagnostic::of(&error, entry.key_span));
            return None;
        }
        variables.push((entry.key.to_string(), value));
    }
    Some(variables)
}

/// How the file isolates the model, in its own words: none within where it does not; none where it is wrong.
fn isolation(maker: &mut Maker<'_>, kind: &HandlerType, config: &Node) -> Option<Option<Json>> {
    let Some(entry) = config.entry("isolation").filter(|entry| entry.value.content != Content::Null) else {
        return Some(None);
    };
    let node = &entry.value;
    let refusal = |message: &str| Diagnostic::new("TB0208", node.span, message);
    if !config.as_map()?.iter().any(|entry| PATHS.contains(&&*entry.key)) {
        let message = format!("{} has no model in this process that could be isolated", kind.name);
        maker.problem(refusal(&message));
        return None;
    }
    match &node.content {
        Content::String(text) if &**text == "process" => Some(Some(Json::Null)),
        Content::String(text) if &**text == "none" => Some(None),
        Content::Map(entries) => {
            let keys = [
                Key::optional("memory_mb", Wants::Int, "the memory that its process may take; no limit"),
                Key::optional("writable", Wants::Texts, "folders in which it may change files; none"),
                Key::optional("trusted", Wants::Bool, "apart, but not confined; false"),
            ];
            if !check_keys(entries, &keys, "`isolation`", node.span, maker.problems) {
                return None;
            }
            if let Some(megabytes) = node.get("memory_mb")
                && !matches!(megabytes.content, Content::Int(1..))
            {
                maker.problem(refusal("`memory_mb` is a number from 1 up"));
                return None;
            }
            Some(Some(Json::Object(json_of(node))))
        }
        _ => {
            maker.problem(refusal("`isolation` is process, none, or a map such as `{memory_mb: 2000}`"));
            None
        }
    }
}

/// The isolation that the file's checked words mean.
fn isolation_of(words: &Json) -> Isolation {
    let mut isolation = Isolation::process();
    if let Some(megabytes) = words["memory_mb"].as_u64() {
        isolation = isolation.with_memory_limit(megabytes.saturating_mul(1_000_000));
    }
    for path in words["writable"].as_array().into_iter().flatten().filter_map(Json::as_str) {
        isolation = isolation.with_writable(path);
    }
    if words["trusted"] == true { isolation.trusted() } else { isolation }
}

/// A handler as the file has it. It is made where it is needed: in the model's process.
pub struct Told {
    kind: &'static HandlerType,
    config: Map<String, Json>,
    environment: Environment,
    files: Vec<PathBuf>,
}

impl Told {
    /// The handler in words, of that version.
    fn describe(&self, version: Option<&ModelMetadata>) -> Json {
        let mut config = self.config.clone();
        config.remove("isolation");
        // They are in the process's environment by then, and may be secrets.
        config.remove("env_vars");
        if let Some(version) = version {
            for key in PATHS {
                config.entry(key).and_modify(|path| *path = version.model_id.clone().into());
            }
            // The digest is the first version's.
            config.remove("sha256");
        }
        serde_json::json!({ "type": self.kind.name, "config": config })
    }

    /// The handler, and its isolation, of [`describe`](Told::describe)'s words.
    fn of(description: &[u8], environment: Environment) -> Result<(Told, Isolation)> {
        let foreign =
            || Error::new(ErrorKind::InvalidArgument, "TB0237", "this is no description of a model");
        let json: Json = serde_json::from_slice(description).map_err(|error| foreign().with_source(error))?;
        let kind = handler_types().iter().find(|kind| json["type"] == kind.name).ok_or_else(foreign)?;
        let config = json["config"].as_object().ok_or_else(foreign)?.clone();
        let told = Told { kind, config, environment, files: Vec::new() };
        Ok((told, isolation_of(&json["isolation"])))
    }

    fn load(&self, version: Option<&ModelMetadata>) -> Result<Box<dyn RowModel>> {
        let source = Source::new(self.kind.name, self.describe(version)["config"].to_string());
        let mut problems = Vec::new();
        let loaded =
            document::parse(&source).map_err(|problem| problems.push(problem)).ok().and_then(|config| {
                let step = Step {
                    span: config.span,
                    kind: Name { text: "RunInference".into(), span: config.span },
                    name: None,
                    input: Input::Absent,
                    output: None,
                    config: None,
                    is_misplaced: false,
                    windowing: None,
                    resource_hints: None,
                    body: None,
                };
                let mut maker = Maker {
                    step: &step,
                    inputs: Vec::new(),
                    names: Vec::new(),
                    problems: &mut problems,
                    source: &source,
                    environment: &self.environment,
                };
                (self.kind.make)(&mut maker, &config)?.into_model()
            });
        match loaded {
            Some(model) if problems.is_empty() => Ok(model),
            _ => {
                let said: Vec<&str> = problems.iter().map(|problem| &*problem.message).collect();
                let (kind, code) =
                    problems.first().map_or((ErrorKind::Model, "TB0237"), |first| (first.kind, first.code));
                Err(Error::new(kind, code, said.join("; ")))
            }
        }
    }
}

impl ModelHandler for Told {
    type Example = Tensors;
    type Inference = Tensors;
    type Model = Box<dyn RowModel>;

    fn load_model(&self) -> Result<Box<dyn RowModel>> {
        self.load(None)
    }

    fn load_version(&self, version: &ModelMetadata) -> Result<Box<dyn RowModel>> {
        self.load(Some(version))
    }

    fn takes_updates(&self) -> bool {
        true
    }

    fn signature(&self, model: &Box<dyn RowModel>) -> Option<Signature> {
        Some(model.signature())
    }

    fn takes(&self, model: &Box<dyn RowModel>) -> Option<Vec<Port>> {
        model.takes()
    }

    fn check_example(&self, example: &Tensors, model: &Box<dyn RowModel>) -> Result<()> {
        model.check(&Prepared::bare(example.clone()))
    }

    fn run_inference(
        &self,
        batch: &[Tensors],
        model: &Box<dyn RowModel>,
        args: &InferenceArgs,
    ) -> Result<Vec<Tensors>> {
        self.predict(batch, model, args)?.into_all()
    }

    fn predict(
        &self,
        batch: &[Tensors],
        model: &Box<dyn RowModel>,
        args: &InferenceArgs,
    ) -> Result<Predictions<Tensors>> {
        let batch: Vec<Prepared> = batch.iter().cloned().map(Prepared::bare).collect();
        model.predict(&batch, args)
    }

    fn name(&self) -> String {
        self.kind.name.to_owned()
    }

    fn model_info(&self, model: &Box<dyn RowModel>) -> ModelInfo {
        model.info()
    }

    fn model_files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }
}

/// A model in a process of its own, over rows.
pub struct Apart {
    /// Whoever calls it.
    pub handler: Arc<Isolated<Told>>,
    /// The process.
    pub model: Isolate<Told>,
    /// As [`RowModel::takes_missing`].
    pub takes_missing: bool,
}

impl RowModel for Apart {
    fn signature(&self) -> Signature {
        let none = || Signature { inputs: Vec::new(), outputs: Vec::new() };
        self.handler.signature(&self.model).unwrap_or_else(none)
    }

    fn takes(&self) -> Option<Vec<Port>> {
        self.handler.takes(&self.model)
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.handler.counts(&self.model)
    }

    fn takes_missing(&self) -> bool {
        self.takes_missing
    }

    fn info(&self) -> ModelInfo {
        self.handler.model_info(&self.model)
    }

    // Its process does.
    fn check(&self, _: &Prepared) -> Result<()> {
        Ok(())
    }

    fn predict(&self, batch: &[Prepared], args: &InferenceArgs) -> Result<Predictions<Tensors>> {
        let batch: Vec<Tensors> = batch.iter().map(|example| example.tensors().clone()).collect();
        self.handler.predict(&batch, &self.model, args)
    }
}

/// Is the process of a model, if a job started this program for one that a pipeline file isolates.
pub fn be_model_process(environment: &Environment) -> Option<ExitCode> {
    let description = description()?;
    match Told::of(&description, environment.clone()) {
        Ok((told, isolation)) => told.isolated(isolation).serve(),
        Err(error) => give_up(error),
    }
}

/// A node as JSON, which is YAML.
fn json_of(node: &Node) -> Map<String, Json> {
    fn value(node: &Node) -> Json {
        match &node.content {
            Content::Null => Json::Null,
            Content::Bool(value) => (*value).into(),
            Content::Int(value) => (*value).into(),
            Content::Float(value) => (*value).into(),
            Content::String(value) => (&**value).into(),
            Content::List(items) => items.iter().map(value).collect(),
            Content::Map(_) => Json::Object(json_of(node)),
        }
    }
    let entries = node.as_map().unwrap_or(&[]).iter();
    entries.map(|entry| (entry.key.to_string(), value(&entry.value))).collect()
}
