//! The newest offset of each key, in bounded memory.
//!
//! Keys are kept as 128 bits of keyed hash, which no client can aim at: two keys of a pass meet with a probability of
//! about n² / 2¹²⁹. One entry is 24 bytes; the table is never filled above nine tenths.

use ringmill_types::Offset;
use std::hash::{BuildHasher, RandomState};

/// One entry.
const ENTRY_BYTES: usize = 24;

pub(super) struct OffsetMap {
    /// Hash and offset; offset -1: free.
    entries: Vec<(u64, u64, i64)>,
    used: usize,
    keys: (RandomState, RandomState),
}

impl OffsetMap {
    /// Of at most `bytes`, and no more than `records` can need.
    pub fn new(bytes: usize, records: u64) -> OffsetMap {
        let most = (bytes / ENTRY_BYTES).max(16);
        let wanted = usize::try_from(records.saturating_mul(10) / 9 + 16).unwrap_or(usize::MAX);
        OffsetMap {
            entries: vec![(0, 0, -1); most.min(wanted)],
            used: 0,
            keys: (RandomState::new(), RandomState::new()),
        }
    }

    pub fn room(&self) -> usize {
        (self.entries.len() * 9 / 10).saturating_sub(self.used)
    }

    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Remembers the greater offset. Only with [`Self::room`].
    pub fn put(&mut self, key: &[u8], offset: Offset) {
        let (first, second, at) = self.find(key);
        if let Some(entry) = self.entries.get_mut(at) {
            if entry.2 < 0 {
                self.used += 1;
            }
            *entry = (first, second, entry.2.max(offset.0));
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        let (_, _, at) = self.find(key);
        self.entries.get(at).filter(|entry| entry.2 >= 0).map(|entry| Offset(entry.2))
    }

    /// Hash, and where the key is or would go. There is always a free entry, so the walk ends.
    fn find(&self, key: &[u8]) -> (u64, u64, usize) {
        let (first, second) = (self.keys.0.hash_one(key), self.keys.1.hash_one(key));
        let count = self.entries.len();
        let mut at = (first % count as u64) as usize;
        for _ in 0..count {
            match self.entries.get(at) {
                Some((a, b, offset)) if *offset >= 0 && (*a, *b) != (first, second) => at = (at + 1) % count,
                _ => break,
            }
        }
        (first, second, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn the_newest_offset_of_each_key_is_known_up_to_the_bound() {
        let mut map = OffsetMap::new(24 * 1000, u64::MAX);
        let mut model = HashMap::new();
        let mut offset = 0;
        while map.room() > 0 {
            let key = format!("key {}", offset * 7919 % 1300);
            map.put(key.as_bytes(), Offset(offset));
            model.insert(key, offset);
            offset += 1;
        }
        assert_eq!(model.len(), 900, "nine tenths");
        for (key, offset) in &model {
            assert_eq!(map.get(key.as_bytes()), Some(Offset(*offset)), "{key}");
        }
        assert_eq!(map.get(b"another"), None);
    }

    #[test]
    fn no_more_memory_than_records_can_need() {
        assert!(OffsetMap::new(1 << 30, 100).entries.len() < 200);
    }
}
