//! How much members may say of themselves, so that no request, and no crowd of them, takes more memory than there is.
//!
//! Kafka keeps whatever comes. What cannot work there either is refused here before it is kept: a group whose members say
//! more than one record holds never gets an assignment, because the record with it is refused.

use crate::messages::Text;
use bytes::Bytes;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Records' worth of bytes that the members of a classic group may say: only what they say under one of their protocols
/// goes into the group's record.
pub(crate) const RECORDS_OF_A_GROUP: u64 = 8;
/// What keeping a name costs beside its bytes.
const NAME_BYTES: u64 = 32;

/// What the members of all groups of one coordinator hold together. Clones are the same budget.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget {
    used: Arc<AtomicU64>,
}

impl Budget {
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub fn share(&self, bytes: u64) -> Share {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Share { bytes, of: self.clone() }
    }
}

/// Bytes that are counted for as long as this lives.
#[derive(Debug, Default)]
pub(crate) struct Share {
    bytes: u64,
    of: Budget,
}

impl Share {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Clone for Share {
    fn clone(&self) -> Share {
        self.of.share(self.bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A classic member's protocols, in its order of preference, with what it says under each.
#[derive(Clone, Debug)]
pub(crate) struct Protocols {
    list: Vec<(Text, Bytes)>,
    share: Share,
}

impl Protocols {
    pub fn new(list: Vec<(Text, Bytes)>, budget: &Budget) -> Protocols {
        let bytes = list.iter().map(|(name, said)| protocol_bytes(name, said)).sum();
        Protocols { list, share: budget.share(bytes) }
    }

    pub fn bytes(&self) -> u64 {
        self.share.bytes()
    }
}

impl Deref for Protocols {
    type Target = [(Text, Bytes)];

    fn deref(&self) -> &[(Text, Bytes)] {
        &self.list
    }
}

impl PartialEq for Protocols {
    fn eq(&self, other: &Protocols) -> bool {
        self.list == other.list
    }
}

pub(crate) fn protocol_bytes(name: &str, said: &[u8]) -> u64 {
    name_bytes(name) + said.len() as u64
}

pub(crate) fn name_bytes(name: &str) -> u64 {
    name.len() as u64 + NAME_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_while_they_live() {
        let budget = Budget::default();
        let said = |bytes: usize| vec![(Text::from("range"), Bytes::from(vec![0; bytes]))];
        let mut first = Protocols::new(said(1000), &budget);
        let each = first.bytes();
        assert_eq!((each, budget.used()), (1000 + 5 + NAME_BYTES, each));
        let copy = first.clone();
        assert_eq!(budget.used(), 2 * each);
        first = Protocols::new(said(10), &budget);
        assert_eq!(budget.used(), each + first.bytes());
        drop((first, copy));
        assert_eq!(budget.used(), 0);
    }
}
