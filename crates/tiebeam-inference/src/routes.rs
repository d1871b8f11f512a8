//! [`Routes`]: which key's examples go to which cohort's model, and how updates change that.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tiebeam_core::Element;
use tiebeam_core::coder::{Codec, Coder, CoderSpec, Nesting, Reader, kv_coder, mismatch, urn, vec_coder};
use tiebeam_core::error::{Error, ErrorKind, Result};

use crate::update::ModelMetadata;

/// A key that a model can be chosen by.
pub trait ModelKey: Element + Hash + Eq + Send + Sync + ToString {}
impl<K: Element + Hash + Eq + Send + Sync + ToString> ModelKey for K {}

/// A newer version for some keys (Beam's `KeyModelPathMapping`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyModelPathMapping<K> {
    /// The keys whose examples it is for.
    pub keys: Vec<K>,
    /// Where the model is.
    pub update_path: String,
    /// What the version's own metrics begin with, after the key; empty for nothing.
    pub model_name: String,
}

/// Travels as a pair of the keys and the version.
struct MappingCodec<K>(Coder<(Vec<K>, ModelMetadata)>);

impl<K: ModelKey> Codec<KeyModelPathMapping<K>> for MappingCodec<K> {
    fn encode(&self, value: &KeyModelPathMapping<K>, out: &mut Vec<u8>, nesting: Nesting) -> Result<()> {
        self.0.encode(&(value.keys.clone(), value.metadata()), out, nesting)
    }

    fn decode(&self, input: &mut Reader, nesting: Nesting) -> Result<KeyModelPathMapping<K>> {
        let (keys, ModelMetadata { model_id, model_name }) = self.0.decode(input, nesting)?;
        Ok(KeyModelPathMapping { keys, update_path: model_id, model_name })
    }

    fn spec(&self) -> CoderSpec {
        self.0.spec()
    }
}

impl<K: ModelKey> Element for KeyModelPathMapping<K> {
    fn coder() -> Coder<Self> {
        Coder::new(MappingCodec(kv_coder(vec_coder(K::coder()), ModelMetadata::coder())))
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        match (spec.urn.as_str(), spec.components.as_slice()) {
            (urn::KV, [keys, metadata]) => Ok(Coder::new(MappingCodec(kv_coder(
                <Vec<K>>::coder_of(keys)?,
                ModelMetadata::coder_of(metadata)?,
            )))),
            _ => Err(mismatch("a version for keys", spec)),
        }
    }
}

impl<K> KeyModelPathMapping<K> {
    fn metadata(&self) -> ModelMetadata {
        ModelMetadata { model_id: self.update_path.clone(), model_name: self.model_name.clone() }
    }
}

/// The keys of a cohort.
#[derive(Clone)]
struct Cohort<K> {
    /// The first of them when it began, which it is named after.
    name: Option<String>,
    /// Which handler loads its model.
    base: usize,
    keys: usize,
    of: std::marker::PhantomData<fn(K)>,
}

/// See the module.
pub(crate) struct Routes<K> {
    table: RwLock<Table<K>>,
    has_updates: AtomicBool,
}

struct Table<K> {
    cohort_of: HashMap<K, usize>,
    /// In the order in which they were given.
    keys: Vec<K>,
    cohorts: Vec<Cohort<K>>,
}

impl<K> Default for Routes<K> {
    fn default() -> Self {
        let table = Table { cohort_of: HashMap::new(), keys: Vec::new(), cohorts: Vec::new() };
        Routes { table: RwLock::new(table), has_updates: AtomicBool::new(false) }
    }
}

/// Keys that get a version: those of a whole cohort keep theirs, others get one of their own.
pub(crate) struct Move<K> {
    pub(crate) cohort: usize,
    pub(crate) version: ModelMetadata,
    keys: Vec<K>,
    /// The handler of a cohort that begins with them.
    begins: Option<usize>,
}

impl<K> Move<K> {
    /// Whether the cohort is none yet.
    pub(crate) fn begins(&self) -> bool {
        self.begins.is_some()
    }
}

impl<K: ModelKey> Routes<K> {
    fn read(&self) -> RwLockReadGuard<'_, Table<K>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table<K>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cohort of these keys, with a handler of its own. Gives a key that has one already, and which.
    pub(crate) fn add(&self, keys: Vec<K>) -> Option<(String, usize)> {
        let mut table = self.write();
        let cohort = table.cohorts.len();
        let name = keys.first().map(K::to_string);
        table.cohorts.push(Cohort { name, base: cohort, keys: keys.len(), of: std::marker::PhantomData });
        let mut twice = None;
        for key in keys {
            if let Some(other) = table.cohort_of.insert(key.clone(), cohort) {
                twice.get_or_insert((key.to_string(), other));
            }
            table.keys.push(key);
        }
        twice
    }

    /// Keys may be given to cohorts that do not exist yet.
    pub(crate) fn expect_updates(&self) {
        self.has_updates.store(true, Ordering::Relaxed);
    }

    /// How many cohorts there may ever be at once, with those that updates make: a key can be in one alone, and a cohort
    /// that takes over from another stands beside it for a while.
    pub(crate) fn capacity(&self) -> usize {
        let table = self.read();
        let more = if self.has_updates.load(Ordering::Relaxed) { table.keys.len() * 2 } else { 0 };
        (table.cohorts.iter().filter(|cohort| cohort.keys > 0).count().max(1) + more).max(table.cohorts.len())
    }

    pub(crate) fn cohort_of(&self, key: &K) -> Option<usize> {
        self.read().cohort_of.get(key).copied()
    }

    pub(crate) fn base_of(&self, cohort: usize) -> usize {
        self.read().cohorts.get(cohort).map_or(cohort, |cohort| cohort.base)
    }

    pub(crate) fn name(&self, cohort: usize) -> Option<String> {
        self.read().cohorts.get(cohort)?.name.clone()
    }

    /// The first keys, and how many more there are.
    pub(crate) fn some_keys(&self, most: usize) -> (Vec<String>, usize) {
        let table = self.read();
        let known: Vec<String> = table.keys.iter().take(most).map(K::to_string).collect();
        let more = table.keys.len() - known.len();
        (known, more)
    }

    /// What updates change: every key must be in exactly one of them. Nothing is changed yet.
    ///
    /// # Errors
    /// In Beam's words: a key that is in two lists, is not known, or is missing.
    pub(crate) fn plan(&self, updates: &[KeyModelPathMapping<K>]) -> Result<Vec<Move<K>>> {
        let invalid = |what: String| {
            let message = format!("Invalid model update: {what}");
            Err(Error::new(ErrorKind::InvalidArgument, "TB0306", message).with_retryable(false))
        };
        let mut table = self.write();
        let mut wanted: HashMap<&K, usize> = HashMap::new();
        for (i, update) in updates.iter().enumerate() {
            for key in &update.keys {
                if wanted.insert(key, i).is_some() {
                    return invalid(format!("{} appears in multiple update lists.", key.to_string()));
                }
                if !table.cohort_of.contains_key(key) {
                    let key = key.to_string();
                    return invalid(format!(
                        "{key} appears in update, but not in the original configuration."
                    ));
                }
            }
        }
        if let Some(key) = table.keys.iter().find(|key| !wanted.contains_key(key)) {
            let key = key.to_string();
            return invalid(format!("{key} appears in the original configuration, but not the update."));
        }
        let mut moves = Vec::new();
        for update in updates {
            // Keys of one cohort stay together.
            let mut groups: Vec<(usize, Vec<K>)> = Vec::new();
            for key in &update.keys {
                let cohort = table.cohort_of[key];
                match groups.iter_mut().find(|(own, _)| *own == cohort) {
                    Some((_, keys)) => keys.push(key.clone()),
                    None => groups.push((cohort, vec![key.clone()])),
                }
            }
            for (cohort, keys) in groups {
                let (version, whole) = (update.metadata(), table.cohorts[cohort].keys == keys.len());
                if whole {
                    moves.push(Move { cohort, version, keys, begins: None });
                    continue;
                }
                let base = table.cohorts[cohort].base;
                let taken = |i: &usize| moves.iter().any(|taken: &Move<K>| taken.cohort == *i);
                let unused = (0..table.cohorts.len()).find(|i| table.cohorts[*i].keys == 0 && !taken(i));
                let new = unused.unwrap_or(table.cohorts.len());
                let begun = Cohort {
                    name: keys.first().map(K::to_string),
                    base,
                    keys: 0,
                    of: std::marker::PhantomData,
                };
                match unused {
                    Some(unused) => table.cohorts[unused] = begun,
                    None => table.cohorts.push(begun),
                }
                moves.push(Move { cohort: new, version, keys, begins: Some(base) });
            }
        }
        Ok(moves)
    }

    /// The model of a move is there: its keys are its cohort's from now on. Gives the cohorts that are left without keys.
    pub(crate) fn commit(&self, moved: &Move<K>) -> Vec<usize> {
        let mut table = self.write();
        if moved.begins.is_none() {
            return Vec::new();
        }
        let mut left = Vec::new();
        for key in &moved.keys {
            let Some(old) = table.cohort_of.insert(key.clone(), moved.cohort) else { continue };
            table.cohorts[moved.cohort].keys += 1;
            table.cohorts[old].keys -= 1;
            if table.cohorts[old].keys == 0 {
                left.push(old);
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes<String> {
        let routes = Routes::default();
        routes.add(vec!["a".to_owned(), "b".to_owned()]);
        routes.add(vec!["c".to_owned()]);
        routes.expect_updates();
        routes
    }

    fn update(keys: &[&str], path: &str) -> KeyModelPathMapping<String> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        KeyModelPathMapping { keys, update_path: path.to_owned(), model_name: String::new() }
    }

    fn refused(updates: &[KeyModelPathMapping<String>]) -> String {
        routes().plan(updates).err().unwrap().message().to_owned()
    }

    #[test]
    fn e_upd_dup_a_key_in_two_lists() {
        let said = refused(&[update(&["a", "b"], "x"), update(&["a", "c"], "y")]);
        assert_eq!(said, "Invalid model update: a appears in multiple update lists.");
    }

    #[test]
    fn e_upd_unknown_a_key_without_a_model() {
        let said = refused(&[update(&["a", "b", "z"], "x"), update(&["c"], "y")]);
        assert_eq!(said, "Invalid model update: z appears in update, but not in the original configuration.");
    }

    #[test]
    fn e_upd_missing_a_key_without_an_update() {
        let said = refused(&[update(&["a", "b"], "x")]);
        assert_eq!(
            said,
            "Invalid model update: c appears in the original configuration, but not the update."
        );
    }

    #[test]
    fn updates_split_cohorts_and_cohorts_without_keys_are_used_again() {
        let routes = routes();
        let moves = routes.plan(&[update(&["a", "c"], "x"), update(&["b"], "y")]).unwrap();
        let told: Vec<_> = moves.iter().map(|m| (m.cohort, &*m.version.model_id, m.keys.join(""))).collect();
        assert_eq!(told, [(2, "x", "a".to_owned()), (1, "x", "c".to_owned()), (3, "y", "b".to_owned())]);
        assert_eq!([0, 2, 3].map(|cohort| routes.base_of(cohort)), [0; 3], "by the handler that they had");
        assert_eq!(routes.cohort_of(&"a".to_owned()), Some(0), "nothing is changed by the plan");
        let left: Vec<_> = moves.iter().map(|moved| routes.commit(moved)).collect();
        assert_eq!(left, [vec![], vec![], vec![0]]);
        assert_eq!(["a", "b", "c"].map(|key| routes.cohort_of(&key.to_owned())), [Some(2), Some(3), Some(1)]);
        let moves = routes.plan(&[update(&["a"], "z"), update(&["c"], "x"), update(&["b"], "y")]).unwrap();
        assert!(moves.iter().all(|moved| moved.begins.is_none()), "each is a cohort of its own now");
    }

    #[test]
    fn mappings_travel() {
        let coder = KeyModelPathMapping::<String>::coder();
        let mapping = update(&["a", "b"], "x");
        let bytes = coder.to_bytes(&mapping).unwrap();
        let again = KeyModelPathMapping::<String>::coder_of(&coder.spec()).unwrap();
        assert_eq!(again.from_bytes(bytes).unwrap(), mapping);
    }
}
