//! Record batches written record by record, without an allocation for each.

use crate::schedule::Random;
use ringmill_record::HEADER_BYTES;
use ringmill_record::write::{Sealing, no_headers, put_record, seal};

/// Bytes that values are cut from: random, so that compression finds nothing.
const VALUES_BYTES: usize = 1 << 20;

/// Values of a fixed size at random places of one block.
#[derive(Clone, Debug)]
pub struct Values {
    block: Vec<u8>,
    value_bytes: usize,
    random: Random,
}

impl Values {
    pub fn new(value_bytes: usize, seed: u64) -> Values {
        let mut random = Random::new(seed);
        let len = VALUES_BYTES + value_bytes;
        let block = (0..len.div_ceil(8)).flat_map(|_| random.next_u64().to_le_bytes()).collect();
        Values { block, value_bytes, random }
    }

    pub fn next_value(&mut self) -> &[u8] {
        let at = (self.random.next_u64() % VALUES_BYTES as u64) as usize;
        self.block.get(at..at + self.value_bytes).unwrap_or_default()
    }
}

/// A batch that is being filled.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    count: i32,
    base_timestamp_ms: i64,
    last_timestamp_ms: i64,
    /// When each record was meant to be sent, nanoseconds.
    pub intended_ns: Vec<u64>,
}

impl Batch {
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn push(&mut self, value: &[u8], intended_ns: u64, timestamp_ms: i64) {
        if self.count == 0 {
            self.bytes.resize(HEADER_BYTES, 0);
            self.base_timestamp_ms = timestamp_ms;
        }
        let delta = timestamp_ms - self.base_timestamp_ms;
        self.last_timestamp_ms = self.last_timestamp_ms.max(timestamp_ms);
        put_record(&mut self.bytes, delta, self.count, None, Some(value), no_headers());
        self.count += 1;
        self.intended_ns.push(intended_ns);
    }

    /// The batch as it goes on the wire, and the intended times of its records.
    pub fn finish(mut self) -> (Vec<u8>, Vec<u64>) {
        let sealing = Sealing::plain(self.base_timestamp_ms, self.last_timestamp_ms, self.count);
        seal(&mut self.bytes, &sealing);
        (self.bytes, self.intended_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringmill_record::produced::validate_produced;
    use ringmill_record::{BatchHeader, Records};

    proptest! {
        #[test]
        fn a_broker_takes_what_is_built(values in prop::collection::vec(0usize..300, 1..60), start in 0i64..1 << 41) {
            let mut batch = Batch::default();
            let expected: Vec<Vec<u8>> = values.iter().map(|len| vec![*len as u8; *len]).collect();
            for (at, value) in expected.iter().enumerate() {
                batch.push(value, at as u64, start + at as i64);
            }
            let (bytes, intended) = batch.finish();
            prop_assert_eq!(intended, (0..values.len() as u64).collect::<Vec<_>>());
            let header = validate_produced(Some(&bytes), 9).expect("valid").header;
            prop_assert_eq!(header.max_timestamp_ms, start + values.len() as i64 - 1);
            let read = Records::new(&BatchHeader::parse(&bytes).expect("whole"), &bytes).expect("records");
            let read: Vec<_> = read.map(|r| r.expect("a record").value.map(<[u8]>::to_vec)).collect();
            prop_assert_eq!(read, expected.into_iter().map(Some).collect::<Vec<_>>());
        }
    }
}
