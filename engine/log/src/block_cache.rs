//! Which blocks of segment files stay in memory.
//!
//! The cache begins small and grows when a block is wanted again that a larger cache would still hold, so that a reader
//! that goes once through everything is served from a few megabytes of warm memory, and readers that share a range, or
//! come back to it, get what the settings allow. Owns no file and starts no read: `cold.rs` does.

use ringmill_reactor::{Buf, FileId};
use ringmill_types::limits::CACHE_BLOCK_BYTES;
use std::collections::{HashMap, HashSet, VecDeque};

pub(crate) const BLOCK: u64 = CACHE_BLOCK_BYTES as u64;

/// What a cache holds before anything is wanted again: the blocks of two sequential readers, with those read ahead.
const FIRST_BYTES: u64 = 32 << 20;

/// By how much it grows each time that happens.
const GROWTH_BYTES: u64 = 4 * BLOCK;

type Key = (u64, u64);

pub(crate) enum Block {
    Reading {
        waiters: Vec<u64>,
    },
    /// `valid` bytes of it count; a block at the end of a growing segment is read again when more is wanted.
    Ready {
        buf: Buf,
        valid: usize,
        used: u64,
    },
}

pub(crate) struct Wanted {
    pub key: Key,
    pub file: FileId,
    pub slot: u32,
    pub valid: usize,
}

pub(crate) struct BlockCache {
    pub blocks: HashMap<Key, Block>,
    order: VecDeque<Key>,
    /// Blocks that a cache of full size would still hold, oldest first.
    ghosts: VecDeque<Key>,
    ghost_keys: HashSet<Key>,
    pub queue: VecDeque<Wanted>,
    pub reading: HashMap<u64, Wanted>,
    /// Tickets that wait for a segment to be opened.
    pub opening: HashMap<u64, Vec<u64>>,
    bytes: u64,
    /// What it may hold by now, and at most.
    target_bytes: u64,
    limit_bytes: u64,
    /// What the reader of the largest answer needs at once: not given back for others.
    held_bytes: u64,
    pub reads_max: usize,
    pub more: bool,
    tick: u64,
}

impl BlockCache {
    pub fn new(limit_bytes: u64, reads_max: usize) -> BlockCache {
        BlockCache {
            blocks: HashMap::new(),
            order: VecDeque::new(),
            ghosts: VecDeque::new(),
            ghost_keys: HashSet::new(),
            target_bytes: FIRST_BYTES.min(limit_bytes),
            queue: VecDeque::new(),
            reading: HashMap::new(),
            opening: HashMap::new(),
            bytes: 0,
            limit_bytes,
            held_bytes: 0,
            reads_max,
            more: false,
            tick: 0,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file is gone: its blocks are of no use. Those being read are dropped when they arrive; who waits for one that
    /// was not asked for yet is given back, to look again.
    #[must_use]
    pub fn forget(&mut self, uid: u64) -> Vec<u64> {
        let doomed: Vec<Key> = self.blocks.keys().filter(|k| k.0 == uid).copied().collect();
        for key in doomed {
            self.drop_block(key);
        }
        let mut waiting = Vec::new();
        for wanted in self.queue.iter().filter(|w| w.key.0 == uid) {
            if let Some(Block::Reading { waiters }) = self.blocks.remove(&wanted.key) {
                waiting.extend(waiters);
            }
        }
        self.queue.retain(|w| w.key.0 != uid);
        self.ghosts.retain(|key| key.0 != uid);
        self.ghost_keys.retain(|key| key.0 != uid);
        waiting
    }

    /// The segment has more bytes than before. Blocks that end early are replaced when someone needs the rest.
    pub fn grew(&mut self, _uid: u64) {
        self.tick += 1;
    }

    pub fn is_awaited(&self, key: Key) -> bool {
        matches!(self.blocks.get(&key), Some(Block::Reading { waiters }) if !waiters.is_empty())
    }

    /// Reads ahead were left for the next turn.
    pub fn has_more(&self) -> bool {
        self.more
    }

    fn drop_block(&mut self, key: Key) {
        if let Some(Block::Ready { buf, .. }) = self.blocks.get(&key) {
            self.bytes -= buf.len() as u64;
            self.blocks.remove(&key);
        }
    }

    /// The bytes of the block from `from` on, when it is here and holds at least up to `to` (both within the block).
    pub fn ready(&mut self, key: Key, from: usize, to: usize) -> Option<Buf> {
        self.tick += 1;
        let tick = self.tick;
        match self.blocks.get_mut(&key)? {
            Block::Ready { buf, valid, used } if *valid >= to => {
                *used = tick;
                Some(buf.slice(from, to))
            }
            Block::Ready { .. } | Block::Reading { .. } => None,
        }
    }

    /// A block that was read, with `valid` bytes that count.
    pub fn insert(&mut self, key: Key, buf: Buf, valid: usize) {
        // Of blocks that nobody looked at since, read ahead for a reader that went away, half are the older ones too.
        self.tick += 1;
        self.bytes += buf.len() as u64;
        self.blocks.insert(key, Block::Ready { buf, valid, used: self.tick });
        self.order.push_back(key);
    }

    /// One reader needs this much at once.
    pub fn hold_at_least(&mut self, bytes: u64) {
        self.held_bytes = self.held_bytes.max(bytes);
        self.target_bytes = self.target_bytes.max(bytes);
        self.limit_bytes = self.limit_bytes.max(bytes);
    }

    /// A block more stays within what one reader needs.
    pub fn is_needed(&self, bytes: u64) -> bool {
        self.bytes + bytes <= self.held_bytes
    }

    /// Makes room for a block that is about to be read, by dropping blocks not used lately. If it would still be here
    /// had the cache its full size, the cache grows instead.
    pub fn make_room(&mut self, wanted: Key) {
        if self.ghost_keys.remove(&wanted) {
            self.target_bytes = (self.target_bytes + GROWTH_BYTES).min(self.limit_bytes);
        }
        let mut chances = self.order.len() * 2;
        while self.bytes + BLOCK > self.target_bytes && chances > 0 {
            chances -= 1;
            let Some(key) = self.order.pop_front() else { break };
            match self.blocks.get(&key) {
                Some(Block::Ready { used, .. }) if self.tick - used < self.order.len() as u64 / 2 => {
                    self.order.push_back(key)
                }
                Some(Block::Ready { .. }) => {
                    self.drop_block(key);
                    self.note_ghost(key);
                }
                Some(Block::Reading { .. }) => self.order.push_back(key),
                None => {}
            }
        }
    }

    /// Drops the blocks that came first until `bytes` of them are gone, whoever used them lately: others need the memory.
    /// What one reader needs stays.
    pub fn give_back(&mut self, bytes: u64) {
        self.drop_to(self.bytes.saturating_sub(bytes).max(self.held_bytes));
    }

    /// Drops every block: none could be read for a while, and nobody else gives memory back.
    pub fn give_up(&mut self) {
        self.drop_to(0);
    }

    fn drop_to(&mut self, bytes: u64) {
        while self.bytes > bytes {
            let Some(key) = self.order.pop_front() else { break };
            match self.blocks.get(&key) {
                Some(Block::Ready { .. }) => self.drop_block(key),
                // It was dropped and is wanted again; it comes back to the order when it is here.
                Some(Block::Reading { .. }) | None => {}
            }
        }
    }

    /// Remembers a block that was dropped for room, for as long as a cache of full size would have held it.
    fn note_ghost(&mut self, key: Key) {
        if self.ghost_keys.insert(key) {
            self.ghosts.push_back(key);
        }
        let remembered = (self.limit_bytes.saturating_sub(self.target_bytes) / BLOCK) as usize;
        while self.ghosts.len() > remembered {
            if let Some(oldest) = self.ghosts.pop_front() {
                self.ghost_keys.remove(&oldest);
            }
        }
    }

    /// Asks for a block; a ticket of 0 is read-ahead and waits for nothing. Valid: bytes of it that count by now.
    pub fn want(&mut self, key: Key, file: FileId, slot: u32, valid: usize, ticket: u64) {
        match self.blocks.get_mut(&key) {
            Some(Block::Reading { waiters }) => {
                if ticket != 0 && !waiters.contains(&ticket) {
                    waiters.push(ticket);
                }
                return;
            }
            Some(Block::Ready { valid: have, .. }) if *have >= valid => return,
            Some(Block::Ready { .. }) => self.drop_block(key),
            None => {}
        }
        let waiters = if ticket == 0 { Vec::new() } else { vec![ticket] };
        self.blocks.insert(key, Block::Reading { waiters });
        self.queue.push_back(Wanted { key, file, slot, valid });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIMIT: u64 = 128 << 20;

    fn buf() -> Buf {
        Buf::from_vec(vec![0; CACHE_BLOCK_BYTES])
    }

    /// Reads blocks `range` of a file in order; how many had to be read from the disk.
    fn scan(cache: &mut BlockCache, range: std::ops::Range<u64>) -> usize {
        let mut read = 0;
        for block in range {
            let key = (1, block);
            if cache.ready(key, 0, CACHE_BLOCK_BYTES).is_none() {
                cache.make_room(key);
                cache.insert(key, buf(), CACHE_BLOCK_BYTES);
                read += 1;
            }
            assert!(cache.bytes() <= LIMIT, "{}", cache.bytes());
        }
        read
    }

    #[test]
    fn one_pass_keeps_the_cache_small() {
        let mut cache = BlockCache::new(LIMIT, 8);
        let blocks = 4 * LIMIT / BLOCK;
        assert_eq!(scan(&mut cache, 0..blocks), blocks as usize);
        assert!(cache.bytes() <= FIRST_BYTES, "{}", cache.bytes());
        // What a cache of full size could not have kept either does not make it grow.
        scan(&mut cache, 0..blocks);
        assert!(cache.bytes() <= FIRST_BYTES, "{}", cache.bytes());
    }

    #[test]
    fn what_is_wanted_again_makes_it_grow_to_hold_that() {
        let mut cache = BlockCache::new(LIMIT, 8);
        let blocks = LIMIT * 3 / 4 / BLOCK;
        for _ in 0..8 {
            scan(&mut cache, 0..blocks);
        }
        assert_eq!(scan(&mut cache, 0..blocks), 0, "all of it stays now");
        assert!(cache.bytes() <= LIMIT);
    }

    #[test]
    fn blocks_that_nobody_came_for_make_room_too() {
        let mut cache = BlockCache::new(LIMIT, 8);
        for block in 0..4 * LIMIT / BLOCK {
            cache.make_room((1, block));
            cache.insert((1, block), buf(), CACHE_BLOCK_BYTES);
            assert!(cache.bytes() <= FIRST_BYTES, "{} after block {block}", cache.bytes());
        }
    }

    #[test]
    fn what_others_need_is_given_back_oldest_first() {
        let mut cache = BlockCache::new(LIMIT, 8);
        scan(&mut cache, 0..8);
        cache.give_back(3 * BLOCK);
        assert_eq!(cache.bytes(), 5 * BLOCK);
        assert!(cache.ready((1, 2), 0, 1).is_none() && cache.ready((1, 3), 0, 1).is_some());
        cache.hold_at_least(2 * BLOCK);
        cache.give_back(100 * BLOCK);
        assert_eq!(cache.bytes(), 2 * BLOCK, "what one reader needs stays");
        cache.give_up();
        assert_eq!(cache.bytes(), 0);
        assert_eq!(scan(&mut cache, 0..8), 8, "and is read again");
    }

    #[test]
    fn a_file_that_is_gone_leaves_nothing_behind() {
        let mut cache = BlockCache::new(LIMIT, 8);
        scan(&mut cache, 0..2 * FIRST_BYTES / BLOCK);
        assert!(cache.forget(1).is_empty(), "nobody waits");
        assert_eq!(cache.bytes(), 0);
        assert!(cache.ghosts.is_empty() && cache.ghost_keys.is_empty() && cache.blocks.is_empty());
    }

    #[test]
    fn a_small_limit_and_a_large_batch_are_both_respected() {
        let mut cache = BlockCache::new(BLOCK, 8);
        assert_eq!(scan(&mut cache, 0..8), 8);
        assert!(cache.bytes() <= BLOCK);
        cache.hold_at_least(16 * BLOCK);
        scan(&mut cache, 0..16);
        assert_eq!(scan(&mut cache, 0..16), 0, "a batch of 16 blocks is here whole");
    }
}
