//! Newtypes for the numbers that must not be mixed up.

use std::fmt;

/// Position of a record in its partition, in records. Kafka's `int64` offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    pub const ZERO: Offset = Offset(0);

    /// The offset `records` further on; saturates, because a length may come from a damaged disk.
    pub fn plus(self, records: i64) -> Offset {
        Offset(self.0.saturating_add(records))
    }
}

/// Which leadership an offset was given under (KIP-101). Grows, never shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

/// A thread with its ring, connections, partitions and core log. Dense from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

/// Names a partition in the core log. Given by control's journal, never reused, so an entry of a deleted topic can
/// never be replayed into a new one of the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u64);

/// Sequence of a flush group in one core log. Starts at 1; 0 means "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupSeq(pub u64);

/// KIP-360 producer id; -1 means that the batch is not idempotent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

impl ProducerId {
    pub const NONE: ProducerId = ProducerId(-1);
}

/// Fences older incarnations of one producer id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerEpoch(pub i16);

/// Kafka's topic UUID (KIP-516), 16 bytes, big-endian on the wire.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    pub const ZERO: TopicId = TopicId([0; 16]);

    /// Kafka's text form: URL-safe base64 without padding, 22 characters.
    pub fn to_base64(self) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut out = String::with_capacity(22);
        for chunk in self.0.chunks(3) {
            let mut word = 0u32;
            for (i, byte) in chunk.iter().enumerate() {
                word |= u32::from(*byte) << (16 - 8 * i);
            }
            for i in 0..=chunk.len() {
                out.push(char::from(ALPHABET[(word >> (18 - 6 * i)) as usize & 63]));
            }
        }
        out
    }

    /// Reads Kafka's text form; `None` when it is not 22 characters of URL-safe base64.
    pub fn from_base64(text: &str) -> Option<TopicId> {
        let text = text.trim_end_matches('=').as_bytes();
        if text.len() != 22 {
            return None;
        }
        let mut bits = 0u32;
        let mut have = 0;
        let mut out = Vec::with_capacity(16);
        for c in text {
            let value = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            bits = (bits << 6) | u32::from(value);
            have += 6;
            if have >= 8 {
                have -= 8;
                out.push((bits >> have) as u8);
            }
        }
        out.try_into().ok().map(TopicId)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

macro_rules! display_inner {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}
display_inner!(Offset, LeaderEpoch, CoreId, PartitionId, GroupSeq, ProducerId, ProducerEpoch);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_id_text_is_kafkas() {
        // From `kafka-storage random-uuid` and Java's Uuid.fromString/getMostSignificantBits.
        let id = TopicId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(id.to_base64(), "AAAAAAAAAAAAAAAAAAAAAQ");
        let id = TopicId([0xff; 16]);
        assert_eq!(TopicId::from_base64(&id.to_base64()), Some(id));
        assert_eq!(TopicId::from_base64("short"), None);
    }
}
