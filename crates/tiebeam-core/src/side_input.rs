//! Side inputs: whole PCollections that a step reads beside its elements.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::coder::{Coder, Nesting};
use crate::element::Element;
use crate::error::{Error, ErrorKind, Result};
use crate::iterable::Iterable;
use crate::window::Window;

/// A typed handle of a side input; made from a PCollection, read in a DoFn through its context. Cheap to clone.
pub struct View<V> {
    id: Arc<str>,
    shape: PhantomData<fn() -> V>,
}

impl<V> View<V> {
    /// A handle with the name that is unique in its pipeline.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        View { id: id.into(), shape: PhantomData }
    }

    /// The name.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }
}

impl<V> Clone for View<V> {
    fn clone(&self) -> Self {
        View { id: self.id.clone(), shape: PhantomData }
    }
}

impl<V> fmt::Debug for View<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({})", self.id)
    }
}

/// Gives the side inputs of a step, already opened to their types.
pub trait SideInputs {
    /// The value of side input `id` for the main window; a [`View<V>`] of that id holds `Arc<V>` in it.
    ///
    /// # Errors
    /// When there is no such side input, or it can't be read.
    fn side_input(&self, id: &str, main: &Window) -> Result<Arc<dyn Any + Send + Sync>>;
}

/// No side inputs.
pub struct NoSideInputs;

impl SideInputs for NoSideInputs {
    fn side_input(&self, id: &str, _: &Window) -> Result<Arc<dyn Any + Send + Sync>> {
        Err(Error::new(ErrorKind::InvalidPipeline, "TB0210", format!("this step has no side input `{id}`"))
            .with_help("declare it with `with_side_input(&view)` where the step is applied"))
    }
}

/// A side input as keys with one value each. Keys are equal when their encodings are.
pub struct SideMap<K, V> {
    key: Coder<K>,
    entries: HashMap<Vec<u8>, (K, V)>,
}

impl<K: Element, V: Element> SideMap<K, V> {
    /// From pairs.
    ///
    /// # Errors
    /// When a key comes twice, or can't be encoded.
    pub fn new(pairs: impl IntoIterator<Item = (K, V)>, key: Coder<K>) -> Result<Self> {
        let mut entries = HashMap::new();
        for (k, v) in pairs {
            let encoded = key.to_bytes(&k)?;
            if entries.insert(encoded, (k, v)).is_some() {
                return Err(Error::new(
                    ErrorKind::InvalidData,
                    "TB0211",
                    "a side input read as a map has two values for one key",
                )
                .with_help("read it with `as_multimap` instead"));
            }
        }
        Ok(SideMap { key, entries })
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let mut encoded = Vec::new();
        self.key.encode(key, &mut encoded, Nesting::Outer).ok()?;
        self.entries.get(&encoded).map(|(_, v)| v)
    }

    /// All pairs, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.values().map(|(k, v)| (k, v))
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

type Lookup<K, V> = dyn Fn(&K) -> Result<Iterable<V>> + Send + Sync;

/// A side input as keys with any number of values; each key is read when it is asked for.
pub struct SideMultimap<K, V>(Box<Lookup<K, V>>);

impl<K: Element, V: Element> SideMultimap<K, V> {
    /// From the function that reads one key.
    pub fn new(get: impl Fn(&K) -> Result<Iterable<V>> + Send + Sync + 'static) -> Self {
        SideMultimap(Box::new(get))
    }

    /// The values of a key, none if it is absent.
    ///
    /// # Errors
    /// When the runner can't be asked.
    pub fn get(&self, key: &K) -> Result<Iterable<V>> {
        (self.0)(key)
    }
}
