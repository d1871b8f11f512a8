//! Keys and values of pairs.

use tiebeam_core::Element;
use tiebeam_graph::PCollection;

/// What can be done with any PCollection of pairs.
///
/// ```
/// # use tiebeam_graph::{Create, Pipeline};
/// use tiebeam_transforms::KeyedExt;
/// let p = Pipeline::new();
/// let pairs = p.apply(Create::of([("a".to_owned(), 1i64)]));
/// let (keys, values, swapped) = (pairs.keys(), pairs.values(), pairs.swap());
/// ```
pub trait KeyedExt<K, V> {
    /// The keys, one for each pair.
    fn keys(&self) -> PCollection<K>;
    /// The values.
    fn values(&self) -> PCollection<V>;
    /// Value and key changed about.
    fn swap(&self) -> PCollection<(V, K)>;
    /// The same keys with other values.
    fn map_values<O: Element>(&self, f: impl Fn(V) -> O + Send + Sync + 'static) -> PCollection<(K, O)>;
}

impl<K: Element, V: Element> KeyedExt<K, V> for PCollection<(K, V)> {
    #[track_caller]
    fn keys(&self) -> PCollection<K> {
        let coder = self.key_coder();
        self.map(|(key, _)| key).with_coder(coder)
    }

    #[track_caller]
    fn values(&self) -> PCollection<V> {
        let coder = self.value_coder();
        self.map(|(_, value)| value).with_coder(coder)
    }

    #[track_caller]
    fn swap(&self) -> PCollection<(V, K)> {
        let coder = tiebeam_core::coder::kv_coder(self.value_coder(), self.key_coder());
        self.map(|(key, value)| (value, key)).with_coder(coder)
    }

    #[track_caller]
    fn map_values<O: Element>(&self, f: impl Fn(V) -> O + Send + Sync + 'static) -> PCollection<(K, O)> {
        let coder = tiebeam_core::coder::kv_coder(self.key_coder(), O::coder());
        self.map(move |(key, value)| (key, f(value))).with_coder(coder)
    }
}
