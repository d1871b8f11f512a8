//! `KeyedModelHandler`: a model for each key.

use tiebeam_core::row::Value;
use tiebeam_core::{Error, ErrorKind, Result};

use super::apart::made;
use super::handlers::{KEYED, Loaded};
use super::{handler_of, positive};
use crate::catalog::{Key, Wants, check_keys};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Node};
use crate::expression::unknown_column;
use crate::plan::{Collection, Maker};

/// A model for each key, beside the first one.
pub struct Keyed {
    /// The column of the key.
    pub column: usize,
    /// The first cohort's keys.
    pub first: Vec<String>,
    /// The others'.
    pub others: Vec<(Vec<String>, Loaded)>,
    /// How many may be loaded at once.
    pub max_models: Option<usize>,
}

/// Keys, and the handler of their model.
type Given<'a> = Vec<(Vec<String>, &'a Node)>;

/// The models as the file gives them; mistakes are noted.
fn given<'a>(maker: &mut Maker<'_>, models: &'a Node) -> Option<Given<'a>> {
    let mut given = Vec::new();
    match &models.content {
        Content::Map(entries) => {
            given.extend(entries.iter().map(|entry| (vec![entry.key.to_string()], &entry.value)));
        }
        Content::List(items) => {
            for item in items.iter() {
                let keys = [
                    Key::required("keys", Wants::List, "the keys"),
                    Key::required("handler", Wants::Map, "`{type: …, config: …}`"),
                ];
                let Some(map) = item.as_map() else {
                    let message = "`models` lists maps: `{keys: […], handler: …}`";
                    maker.problem(Diagnostic::new("TB0208", item.span, message));
                    return None;
                };
                if !check_keys(map, &keys, "`models`", item.span, maker.problems) {
                    return None;
                }
                let keys = item.get("keys")?.as_list()?.iter().map(|key| match &key.content {
                    Content::String(text) => Some(text.to_string()),
                    Content::Int(n) => Some(n.to_string()),
                    Content::Bool(b) => Some(b.to_string()),
                    _ => None,
                });
                let Some(keys) = keys.collect::<Option<Vec<_>>>() else {
                    maker.problem(Diagnostic::new("TB0208", item.span, "keys are texts or whole numbers"));
                    return None;
                };
                given.push((keys, item.get("handler")?));
            }
        }
        _ => {
            let message = "`models` is a map of keys to handlers, or a list of `{keys: […], handler: …}`";
            maker.problem(Diagnostic::new("TB0208", models.span, message));
            return None;
        }
    }
    if given.is_empty() {
        maker.problem(Diagnostic::new("TB0207", models.span, "`models` has no model"));
        return None;
    }
    Some(given)
}

/// The models of `KeyedModelHandler`: the first one, and the others with all their keys.
pub fn keyed_models(
    maker: &mut Maker<'_>,
    config: &Node,
    input: &Collection,
) -> Option<(Loaded, Option<Keyed>)> {
    let key = config.get("key")?;
    let Some(column) = input.schema.index_of(key.as_str()?) else {
        let problem = unknown_column(key.as_str()?, key.span, &input.schema, Some(&input.producer));
        maker.problem(problem);
        return None;
    };
    for entry in ["batch_length_fn", "element_size_fn"].iter().filter_map(|key| config.entry(key)) {
        let message = format!("`{}` is not available for a model for each key", entry.key);
        maker.problem(Diagnostic::new("TB0219", entry.key_span, message));
    }
    let max_models = positive(maker, config, "max_models_per_worker_hint");
    let mut all: Vec<(Vec<String>, Loaded)> = Vec::new();
    for (keys, handler) in given(maker, config.get("models")?)? {
        let (kind, config) = handler_of(maker, handler)?;
        if kind.name == KEYED {
            maker.problem(Diagnostic::new("TB0208", handler.span, "a model for each key has none in it"));
            return None;
        }
        let mut loaded = made(maker, kind, &config)?;
        if let Some((_, first)) = all.first()
            && let Some(why) = loaded.signature().differs_from(first.signature())
        {
            let why = why.replace("the one in use", "the first one");
            let message = format!("the models of all keys take and give the same: {why}");
            maker.problem(Diagnostic::new("TB0205", loaded.span, message));
            return None;
        }
        // Those that can't be there at the same time are loaded when they are wanted.
        if max_models.is_some_and(|most| all.len() >= most) {
            loaded.model = None;
        }
        all.push((keys, loaded));
    }
    let (first, loaded) = all.remove(0);
    Some((loaded, Some(Keyed { column, first, others: all, max_models })))
}

/// A row's key as the file writes keys.
///
/// # Errors
/// When it is neither a text nor a whole number.
pub fn key_of(value: Option<&Value>) -> Result<String> {
    Ok(match value {
        Some(Value::String(text)) => text.to_string(),
        Some(Value::Int64(n)) => n.to_string(),
        Some(Value::Int32(n)) => n.to_string(),
        Some(Value::Bool(b)) => b.to_string(),
        other => {
            let seen = other.map_or_else(|| "nothing".to_owned(), |value| format!("{value:?}"));
            let message = format!("a key is a text or a whole number, got {seen}");
            return Err(Error::new(ErrorKind::InvalidData, "TB0227", message).with_retryable(false));
        }
    })
}
