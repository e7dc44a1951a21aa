//! What is made for whoever comes and forgotten when nobody needs it: accounts and allowances of clients and addresses.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// So many stay, needed or not: below that none are looked through.
pub(crate) const KEPT_MIN: usize = 256;

/// A map that looks for what nobody needs whenever it has doubled, so that each entry costs a look or two.
pub(crate) struct Kept<K, V> {
    of: HashMap<K, V>,
    /// Look when there are so many.
    look_at: usize,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Kept<K, V> {
        Kept { of: HashMap::new(), look_at: KEPT_MIN }
    }
}

impl<K: Eq + Hash, V> Kept<K, V> {
    /// The place of `key`; may drop others that are not `needed` any more.
    pub fn entry(&mut self, key: K, mut needed: impl FnMut(&mut V) -> bool) -> Entry<'_, K, V> {
        if self.of.len() >= self.look_at {
            self.of.retain(|_, value| needed(value));
            self.look_at = KEPT_MIN.max(self.of.len() * 2);
        }
        self.of.entry(key)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.of.len()
    }
}
