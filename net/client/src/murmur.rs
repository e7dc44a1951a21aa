//! Where a keyed record goes: Kafka's default partitioner, so that keys meet those of other clients.
//!
//! MurmurHash2 by Austin Appleby (public domain), with the seed and the sign rule of `org.apache.kafka.common.utils.Utils`.

const SEED: u32 = 0x9747_b28c;
const FACTOR: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// The partition of `key` among `count`.
pub fn partition(key: &[u8], count: u32) -> i32 {
    ((hash(key) & 0x7fff_ffff) % count.max(1)) as i32
}

fn hash(key: &[u8]) -> u32 {
    let mut state = SEED ^ key.len() as u32;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(FACTOR);
        mixed ^= mixed >> SHIFT;
        state = state.wrapping_mul(FACTOR) ^ mixed.wrapping_mul(FACTOR);
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        state = (state ^ last).wrapping_mul(FACTOR);
    }
    state ^= state >> 13;
    state = state.wrapping_mul(FACTOR);
    state ^ state >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: the ones Kafka's own `UtilsTest.testMurmur2` pins.
    #[test]
    fn hashes_as_java_does() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(hash(key.as_bytes()) as i32, expected, "{key}");
        }
    }

    #[test]
    fn partitions_are_in_range() {
        for count in [1, 3, 1000] {
            for key in 0..200u32 {
                assert!((0..count as i32).contains(&partition(&key.to_be_bytes(), count)));
            }
        }
    }
}
