//! Side inputs, opened from encoded values to the type that a [`View`](tiebeam_core::View) names, once a bundle and window.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tiebeam_core::coder::Coder;
use tiebeam_core::side_input::SideInputs;
use tiebeam_core::{
    CoderSpec, Element, Error, ErrorKind, Iterable, Nesting, Result, SideMap, SideMultimap, Window, WindowFn,
};

use crate::group::{GroupType, TypedGroup};
use crate::harness::{Harness, SideValues};

/// How a runner must serve a side input: Beam's two access patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All values of a window.
    Iterable,
    /// The values of one key in a window.
    Multimap,
}

type AnyValue = Arc<dyn Any + Send + Sync>;
type Open = dyn Fn(&Arc<dyn Harness>, &str, &Window) -> Result<AnyValue> + Send + Sync;

/// A side input of a step.
#[derive(Clone)]
pub struct SideInputSpec {
    /// The name that is unique in the pipeline.
    pub id: Arc<str>,
    /// How it is served.
    pub access: Access,
    /// The windows of the side input's own PCollection.
    pub window_fn: Arc<dyn WindowFn>,
    /// How keys and values are taken apart, where it is served by key.
    pub group: Option<Arc<dyn GroupType>>,
    open: Arc<Open>,
}

impl SideInputSpec {
    fn new(
        id: Arc<str>,
        access: Access,
        window_fn: Arc<dyn WindowFn>,
        open: impl Fn(&Arc<dyn Harness>, &str, &Window) -> Result<Arc<dyn Any + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        SideInputSpec { id, access, window_fn, group: None, open: Arc::new(open) }
    }

    /// Exactly one value a window, or a default for none.
    pub fn singleton<T: Element>(
        id: Arc<str>,
        window_fn: Arc<dyn WindowFn>,
        coder: Coder<T>,
        default: Option<T>,
    ) -> Self {
        SideInputSpec::new(id, Access::Iterable, window_fn, move |harness, id, window| {
            let values = iterable(harness, id, window, None, &coder)?;
            let mut iter = values.iter();
            match (iter.next().or_else(|| default.clone()), iter.next()) {
                (Some(one), None) => Ok(Arc::new(one)),
                (first, _) => Err(Error::new(
                    ErrorKind::InvalidData,
                    "TB0213",
                    match first {
                        None => "empty PCollection accessed as a singleton view".to_owned(),
                        Some(_) => format!(
                            "PCollection of size {} with more than one element accessed as a singleton view",
                            values.count()
                        ),
                    },
                )
                .with_retryable(false)),
            }
        })
    }

    /// All values, iterated as often as wanted.
    pub fn iterable<T: Element>(id: Arc<str>, window_fn: Arc<dyn WindowFn>, coder: Coder<T>) -> Self {
        SideInputSpec::new(id, Access::Iterable, window_fn, move |harness, id, window| {
            Ok(Arc::new(iterable(harness, id, window, None, &coder)?))
        })
    }

    /// All values in memory, as a `Vec`.
    pub fn list<T: Element>(id: Arc<str>, window_fn: Arc<dyn WindowFn>, coder: Coder<T>) -> Self {
        SideInputSpec::new(id, Access::Iterable, window_fn, move |harness, id, window| {
            Ok(Arc::new(iterable(harness, id, window, None, &coder)?.to_vec()))
        })
    }

    /// One value a key.
    pub fn map<K: Element, V: Element>(
        id: Arc<str>,
        window_fn: Arc<dyn WindowFn>,
        coder: Coder<(K, V)>,
        key: Coder<K>,
    ) -> Self {
        SideInputSpec::new(id, Access::Iterable, window_fn, move |harness, id, window| {
            let pairs = iterable(harness, id, window, None, &coder)?;
            Ok(Arc::new(SideMap::new(pairs.iter(), key.clone())?))
        })
    }

    /// Any number of values a key, read when asked for.
    pub fn multimap<K: Element, V: Element>(
        id: Arc<str>,
        window_fn: Arc<dyn WindowFn>,
        key: Coder<K>,
        value: Coder<V>,
    ) -> Self {
        let group = Arc::new(TypedGroup::new(key.clone(), value.clone()));
        let spec = SideInputSpec::new(id, Access::Multimap, window_fn, move |harness, id, window| {
            let (harness, id, window) = (harness.clone(), id.to_owned(), window.clone());
            let (key, value) = (key.clone(), value.clone());
            Ok(Arc::new(SideMultimap::new(move |k: &K| {
                let mut encoded = Vec::new();
                match harness.wire_coders(&id).and_then(|wire| wire.key) {
                    None => key.encode(k, &mut encoded, Nesting::Outer)?,
                    Some(spec) => as_written(&key, &spec)?.encode(k, &mut encoded, Nesting::Nested)?,
                }
                iterable(&harness, &id, &window, Some(&encoded), &value)
            })))
        });
        SideInputSpec { group: Some(group), ..spec }
    }
}

fn iterable<T: Element>(
    harness: &Arc<dyn Harness>,
    id: &str,
    window: &Window,
    key: Option<&[u8]>,
    coder: &Coder<T>,
) -> Result<Iterable<T>> {
    let coder = match harness.wire_coders(id) {
        None => coder.clone(),
        Some(wire) => as_written(coder, &wire.value)?,
    };
    Ok(match harness.side_input(id, window, key)? {
        SideValues::Held(values) => Iterable::encoded(values.chunks, values.count, coder),
        SideValues::Paged { token, state } => Iterable::paged(token, state, coder),
    })
}

/// The step's coder as a runner has written it.
fn as_written<T: Element>(own: &Coder<T>, spec: &CoderSpec) -> Result<Coder<T>> {
    if own.spec() == *spec { Ok(own.clone()) } else { T::coder_of(spec) }
}

/// The side inputs of one operator, kept for the length of a bundle: a bundle sees one version of each.
pub struct SideInputCache {
    specs: Arc<[SideInputSpec]>,
    harness: Arc<dyn Harness>,
    opened: Mutex<HashMap<(Arc<str>, Window), AnyValue>>,
}

impl SideInputCache {
    /// Empty, for an operator with these side inputs.
    pub fn new(specs: Arc<[SideInputSpec]>, harness: Arc<dyn Harness>) -> Self {
        SideInputCache { specs, harness, opened: Mutex::default() }
    }

    /// Whether the operator has none.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// Forgets all; at the start of a bundle.
    pub fn clear(&self) {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl SideInputs for SideInputCache {
    fn side_input(&self, id: &str, main: &Window) -> Result<Arc<dyn Any + Send + Sync>> {
        let Some(spec) = self.specs.iter().find(|spec| &*spec.id == id) else {
            return tiebeam_core::side_input::NoSideInputs.side_input(id, main);
        };
        let window = spec.window_fn.side_input_window(main);
        let key = (spec.id.clone(), window);
        if let Some(opened) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(opened.clone());
        }
        let opened = (spec.open)(&self.harness, id, &key.1)?;
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(key, opened.clone());
        Ok(opened)
    }
}
