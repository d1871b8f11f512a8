//! [`StateCache`]: pages of side inputs that were read, for all bundles of a worker, in bounded memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// What a page takes beside its bytes: its place in two tables.
const OVERHEAD: usize = 200;

/// How long a page may be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// As long as the runner gives this token with bundles: what lies under it never changes.
    Token(Bytes),
    /// In that bundle only.
    Bundle(Arc<str>),
}

/// Which page.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PageKey {
    pub(crate) scope: Scope,
    /// The encoded state key.
    pub(crate) state: Bytes,
    /// The token of the page; none for the first.
    pub(crate) page: Option<Bytes>,
}

/// A page, and the token of the next while there is one.
pub(crate) type Page = (Bytes, Option<Bytes>);

struct Kept {
    page: Page,
    weight: usize,
    used: u64,
}

#[derive(Default)]
struct Inner {
    pages: HashMap<Arc<PageKey>, Kept>,
    /// Least lately used first.
    by_use: BTreeMap<u64, Arc<PageKey>>,
    /// What goes when a bundle ends.
    of_bundles: HashMap<Arc<str>, HashSet<Arc<PageKey>>>,
    /// What somebody is fetching just now.
    on_the_way: HashSet<Arc<PageKey>>,
    uses: u64,
    stats: CacheStats,
}

/// What a cache has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CacheStats {
    /// Bytes held now.
    pub(crate) bytes: usize,
    /// Pages that were there.
    pub(crate) hits: u64,
    /// Pages that had to be fetched.
    pub(crate) misses: u64,
    /// Pages that made room for others.
    pub(crate) evictions: u64,
}

pub(crate) struct StateCache {
    limit: usize,
    inner: Mutex<Inner>,
    /// A fetch has ended.
    arrived: Condvar,
}

/// A page that this thread fetches; others wait for it until this is dropped.
struct Fetching<'a> {
    cache: &'a StateCache,
    key: Arc<PageKey>,
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.cache.lock().on_the_way.remove(&self.key);
        self.cache.arrived.notify_all();
    }
}

impl StateCache {
    /// Holds at most that many bytes.
    pub(crate) fn new(limit: usize) -> Self {
        StateCache { limit, inner: Mutex::default(), arrived: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page, from memory or by `fetch`. Bundles that want the same page at the same time fetch it once.
    pub(crate) fn get<E>(&self, key: PageKey, fetch: impl FnOnce() -> Result<Page, E>) -> Result<Page, E> {
        let key = Arc::new(key);
        let mut inner = self.lock();
        if inner.on_the_way.contains(&key) {
            let wait = |inner: &mut Inner| inner.on_the_way.contains(&key);
            inner = self.arrived.wait_while(inner, wait).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(page) = inner.find(&key) {
            return Ok(page);
        }
        // One that came and was not kept is fetched by all who waited, at once and not in a row.
        let fetching =
            inner.on_the_way.insert(key.clone()).then(|| Fetching { cache: self, key: key.clone() });
        drop(inner);
        let page = fetch()?;
        self.lock().keep(key, &page, self.limit);
        drop(fetching);
        Ok(page)
    }

    /// Forgets what only that bundle could use.
    pub(crate) fn end_bundle(&self, bundle: &str) {
        let mut inner = self.lock();
        for key in inner.of_bundles.remove(bundle).unwrap_or_default() {
            inner.remove(&key);
        }
    }

    pub(crate) fn stats(&self) -> CacheStats {
        self.lock().stats
    }
}

impl Inner {
    fn find(&mut self, key: &PageKey) -> Option<Page> {
        let Some(kept) = self.pages.get_mut(key) else {
            self.stats.misses += 1;
            return None;
        };
        self.stats.hits += 1;
        self.uses += 1;
        if let Some(key) = self.by_use.remove(&kept.used) {
            self.by_use.insert(self.uses, key);
        }
        kept.used = self.uses;
        Some(kept.page.clone())
    }

    fn keep(&mut self, key: Arc<PageKey>, page: &Page, limit: usize) {
        let names = key.state.len() + key.page.as_ref().map_or(0, Bytes::len);
        let weight = OVERHEAD + names + page.0.len() + page.1.as_ref().map_or(0, Bytes::len);
        if weight > limit {
            return;
        }
        self.remove(&key);
        while self.stats.bytes + weight > limit {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.remove(&oldest);
            self.stats.evictions += 1;
        }
        self.uses += 1;
        self.stats.bytes += weight;
        self.by_use.insert(self.uses, key.clone());
        if let Scope::Bundle(bundle) = &key.scope {
            self.of_bundles.entry(bundle.clone()).or_default().insert(key.clone());
        }
        self.pages.insert(key, Kept { page: page.clone(), weight, used: self.uses });
    }

    fn remove(&mut self, key: &PageKey) {
        if let Some(kept) = self.pages.remove(key) {
            self.stats.bytes -= kept.weight;
            self.by_use.remove(&kept.used);
            if let Scope::Bundle(bundle) = &key.scope
                && let Some(keys) = self.of_bundles.get_mut(bundle)
            {
                keys.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(scope: Scope, state: u8) -> PageKey {
        PageKey { scope, state: Bytes::from(vec![state]), page: None }
    }

    fn token(token: &'static str) -> Scope {
        Scope::Token(Bytes::from_static(token.as_bytes()))
    }

    /// Gets a page of that length; whether it had to be fetched.
    fn fetched(cache: &StateCache, key: PageKey, len: usize) -> bool {
        let mut fetched = false;
        let page = cache.get(key, || {
            fetched = true;
            Ok::<_, ()>((Bytes::from(vec![7; len]), None))
        });
        assert_eq!(page.unwrap().0.len(), len);
        fetched
    }

    #[test]
    fn the_least_lately_used_makes_room_and_the_bytes_stay_within_the_limit() {
        let weight = 1_000 + OVERHEAD + 1;
        let cache = StateCache::new(3 * weight);
        let of = |state| key(token("t"), state);
        for state in 0..3 {
            assert!(fetched(&cache, of(state), 1_000));
        }
        assert_eq!(cache.stats().bytes, 3 * weight);
        assert!(!fetched(&cache, of(0), 1_000));
        assert!(fetched(&cache, of(3), 1_000), "takes the place of 1");
        assert!(!fetched(&cache, of(0), 1_000));
        assert!(!fetched(&cache, of(2), 1_000));
        assert!(fetched(&cache, of(1), 1_000));
        assert_eq!(cache.stats(), CacheStats { bytes: 3 * weight, hits: 3, misses: 5, evictions: 2 });
        // Greater than all there is: never kept, and nothing goes for it.
        assert!(fetched(&cache, of(9), 3 * weight));
        assert!(fetched(&cache, of(9), 3 * weight));
        assert_eq!((cache.stats().bytes, cache.stats().evictions), (3 * weight, 2));
        // One that takes the place of all.
        assert!(fetched(&cache, of(8), 2 * weight));
        assert!(cache.stats().bytes <= 3 * weight);
        let inner = cache.lock();
        assert_eq!(inner.pages.len(), inner.by_use.len());
    }

    #[test]
    fn another_token_is_another_page() {
        let cache = StateCache::new(1 << 20);
        assert!(fetched(&cache, key(token("t1"), 0), 10));
        assert!(fetched(&cache, key(token("t2"), 0), 20));
        assert!(!fetched(&cache, key(token("t1"), 0), 10));
        assert!(!fetched(&cache, key(token("t2"), 0), 20));
        let next = PageKey { page: Some(Bytes::from_static(b"2")), ..key(token("t1"), 0) };
        assert!(fetched(&cache, next, 30));
    }

    #[test]
    fn what_is_of_a_bundle_goes_with_it() {
        let cache = StateCache::new(1 << 20);
        let of = |bundle: &str, state| key(Scope::Bundle(bundle.into()), state);
        for (bundle, state) in [("b1", 0), ("b1", 1), ("b2", 0)] {
            assert!(fetched(&cache, of(bundle, state), 100));
            assert!(!fetched(&cache, of(bundle, state), 100));
        }
        assert!(fetched(&cache, key(token("b1"), 0), 100));
        cache.end_bundle("b1");
        assert!(fetched(&cache, of("b1", 0), 100));
        assert!(!fetched(&cache, of("b2", 0), 100));
        assert!(!fetched(&cache, key(token("b1"), 0), 100));
        cache.end_bundle("b1");
        cache.end_bundle("b2");
        cache.end_bundle("never");
        let inner = cache.lock();
        assert_eq!((inner.pages.len(), inner.by_use.len(), inner.of_bundles.len()), (1, 1, 0));
    }

    #[test]
    fn what_was_not_fetched_is_asked_for_again() {
        let cache = StateCache::new(1 << 20);
        assert_eq!(cache.get(key(token("t"), 0), || Err("gone")), Err("gone"));
        let panics = std::panic::AssertUnwindSafe(|| cache.get::<()>(key(token("t"), 0), || panic!("gone")));
        std::panic::catch_unwind(panics).unwrap_err();
        assert!(fetched(&cache, key(token("t"), 0), 1));
        assert!(cache.lock().on_the_way.is_empty());
    }

    #[test]
    fn who_wants_a_page_that_is_on_its_way_waits_for_it() {
        for limit in [1 << 20, 0] {
            let cache = Arc::new(StateCache::new(limit));
            let mut others = Vec::new();
            let first = cache.get(key(token("t"), 0), || {
                // They come while it is fetched; how long they take to ask is no matter.
                for _ in 0..3 {
                    let cache = cache.clone();
                    others.push(std::thread::spawn(move || fetched(&cache, key(token("t"), 0), 5)));
                }
                Ok::<_, ()>((Bytes::from(vec![7; 5]), None))
            });
            assert_eq!(first.unwrap().0.len(), 5);
            let fetched: Vec<bool> = others.into_iter().map(|other| other.join().unwrap()).collect();
            // What is not kept has to be fetched by each.
            assert_eq!(fetched, [limit == 0; 3]);
        }
    }
}
