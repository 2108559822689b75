//! A small cache that evicts the least recently used value.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most recently used values, up to a limit. A lookup is linear, because the limit is small.
pub(super) struct LruCache<K, V> {
    /// The least recently used first.
    entries: Mutex<Vec<(K, Arc<V>)>>,
    limit: usize,
}

impl<K: PartialEq, V> LruCache<K, V> {
    /// Creates a cache for up to `limit` values.
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: Mutex::default(), limit }
    }

    /// Returns a cached value, and marks it as used.
    pub(super) fn get(&self, key: &K) -> Option<Arc<V>> {
        let mut entries = self.entries();
        let at = entries.iter().position(|(cached, _)| cached == key)?;
        let entry = entries.remove(at);
        let value = entry.1.clone();
        entries.push(entry);
        Some(value)
    }

    /// Caches a value, and returns it. If the cache is full, evicts the least recently used one.
    pub(super) fn insert(&self, key: K, value: V) -> Arc<V> {
        let mut entries = self.entries();
        if entries.len() >= self.limit {
            entries.remove(0);
        }
        let value = Arc::new(value);
        entries.push((key, value.clone()));
        value
    }

    /// Removes all values.
    pub(super) fn clear(&self) {
        self.entries().clear();
    }

    fn entries(&self) -> MutexGuard<'_, Vec<(K, Arc<V>)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_value_is_evicted() {
        let cache = LruCache::new(2);
        cache.insert('a', 1);
        cache.insert('b', 2);
        assert_eq!(cache.get(&'a').as_deref(), Some(&1));
        cache.insert('c', 3);
        assert!(cache.get(&'b').is_none());
        assert!(cache.get(&'a').is_some() && cache.get(&'c').is_some());
        cache.clear();
        assert!(cache.get(&'a').is_none());
    }
}
