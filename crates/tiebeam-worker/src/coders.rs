//! Coders between [`CoderSpec`], a tree, and the messages, where coders name each other by id.

use std::collections::{BTreeMap, HashMap};

use tiebeam_core::{CoderSpec, Error, ErrorKind, Result};
use tiebeam_model::pipeline::{Coder, FunctionSpec};

/// The most nodes of a coder's tree. A few shared ids can spell a tree that no memory holds, so it is counted.
const MAX_NODES: usize = 10_000;
/// The deepest nesting.
const MAX_DEPTH: usize = 100;

/// The tree of the coder with that id.
///
/// # Errors
/// When the id or one below it is missing, or the ids go round in circles.
pub fn coder_spec(coders: &BTreeMap<String, Coder>, id: &str) -> Result<CoderSpec> {
    let mut nodes = 0;
    tree(coders, id, 0, &mut nodes)
}

fn tree(coders: &BTreeMap<String, Coder>, id: &str, depth: usize, nodes: &mut usize) -> Result<CoderSpec> {
    *nodes += 1;
    if depth > MAX_DEPTH || *nodes > MAX_NODES {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "TB0541",
            format!(
                "coder `{id}` is nested without end: more than {MAX_DEPTH} deep or {MAX_NODES} coders in one tree"
            ),
        ));
    }
    let coder = coders.get(id).ok_or_else(|| missing("coder", id))?;
    let components = coder
        .component_coder_ids
        .iter()
        .map(|id| tree(coders, id, depth + 1, nodes))
        .collect::<Result<Vec<_>>>()?;
    let spec = coder.spec.as_ref();
    Ok(CoderSpec {
        urn: spec.map(|spec| spec.urn.clone()).unwrap_or_default(),
        payload: spec.map(|spec| spec.payload.to_vec()).unwrap_or_default(),
        components,
    })
}

/// The error of an id that stands nowhere in its message.
pub(crate) fn missing(kind: &str, id: &str) -> Error {
    Error::new(
        ErrorKind::InvalidData,
        "TB0540",
        format!("the message names {kind} `{id}` and has none of that id"),
    )
}

/// Gives coders ids, equal ones the same.
#[derive(Debug, Default)]
pub struct CoderTable {
    ids: HashMap<CoderSpec, String>,
    coders: BTreeMap<String, Coder>,
}

impl CoderTable {
    /// The id of a coder; it and all below it are in the table from now on.
    pub fn id(&mut self, spec: &CoderSpec) -> String {
        if let Some(id) = self.ids.get(spec) {
            return id.clone();
        }
        let component_coder_ids = spec.components.iter().map(|component| self.id(component)).collect();
        let id = format!("c{}", self.coders.len());
        let function = FunctionSpec { urn: spec.urn.clone(), payload: spec.payload.clone().into() };
        self.coders.insert(id.clone(), Coder { spec: Some(function), component_coder_ids });
        self.ids.insert(spec.clone(), id.clone());
        id
    }

    /// All coders by id.
    pub fn into_coders(self) -> BTreeMap<String, Coder> {
        self.coders
    }
}

#[cfg(test)]
mod tests {
    use tiebeam_model::urns;

    use super::*;

    fn coder(urn: &str, components: &[&str]) -> Coder {
        Coder {
            spec: Some(FunctionSpec { urn: urn.to_owned(), payload: Default::default() }),
            component_coder_ids: components.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    #[test]
    fn a_tree_goes_out_and_comes_back() {
        let text = CoderSpec::leaf(urns::coder::STRING_UTF8);
        let mut row = CoderSpec::leaf(urns::coder::ROW);
        row.payload = vec![1, 2, 3];
        let spec = CoderSpec::of(
            urns::coder::KV,
            [
                text.clone(),
                CoderSpec::of(urns::coder::ITERABLE, [CoderSpec::of(urns::coder::KV, [text, row])]),
            ],
        );
        let mut table = CoderTable::default();
        let id = table.id(&spec);
        assert_eq!(table.id(&spec), id);
        let coders = table.into_coders();
        assert_eq!(coders.len(), 5, "text stands once: {coders:?}");
        assert_eq!(coder_spec(&coders, &id).unwrap(), spec);
    }

    #[test]
    fn a_missing_coder_is_named() {
        let coders = BTreeMap::from([("a".to_owned(), coder(urns::coder::ITERABLE, &["b"]))]);
        let error = coder_spec(&coders, "a").unwrap_err();
        assert_eq!(error.to_string(), "the message names coder `b` and has none of that id");
    }

    #[test]
    fn circles_and_bombs_are_errors() {
        let circle = BTreeMap::from([
            ("a".to_owned(), coder(urns::coder::ITERABLE, &["b"])),
            ("b".to_owned(), coder(urns::coder::ITERABLE, &["a"])),
        ]);
        assert_eq!(coder_spec(&circle, "a").unwrap_err().code(), "TB0541");
        // Sixty coders that spell a tree of 2^60.
        let bomb = (0..60)
            .map(|i| {
                let next = format!("{}", i + 1);
                (format!("{i}"), coder(urns::coder::KV, &[next.as_str(), next.as_str()]))
            })
            .chain([("60".to_owned(), coder(urns::coder::VARINT, &[]))])
            .collect();
        assert_eq!(coder_spec(&bomb, "0").unwrap_err().code(), "TB0541");
    }
}
