//! Record batches written record by record, without an allocation for each.

use crate::compress::Compress;
use ringmill_reactor::Buf;
use ringmill_record::HEADER_BYTES;
use ringmill_record::write::{Sealing, no_headers, put_record, seal};
use std::io;

/// Room for what surrounds key and value of a record.
const FRAME_BYTES: usize = 32;

/// Records that were meant for the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meant {
    pub intended_ns: u64,
    pub records: u32,
    /// Bytes of their values.
    pub bytes: u64,
    /// Not of the warm-up.
    pub counts: bool,
}

/// A batch that is being filled.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    count: i32,
    base_timestamp_ms: i64,
    last_timestamp_ms: i64,
    meant: Vec<Meant>,
    /// When its first record came in, and its number among all batches.
    pub since_ns: u64,
    pub serial: u64,
}

/// Who sends a batch: producer id and epoch.
pub type Identity = (i64, i16);

/// A batch as it goes on the wire.
pub struct Sealed {
    pub bytes: Buf,
    pub meant: Vec<Meant>,
    pub records: i32,
    pub serial: u64,
    pub since_ns: u64,
    /// What it took while it was filled, which is what is given back at its end.
    pub held_bytes: usize,
    pub attempts: u32,
}

impl Batch {
    /// An empty one in memory that may have been another one's.
    pub fn new(mut memory: Vec<u8>, since_ns: u64, serial: u64) -> Batch {
        memory.clear();
        memory.resize(HEADER_BYTES, 0);
        Batch { bytes: memory, since_ns, serial, ..Batch::default() }
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn count(&self) -> i32 {
        self.count
    }

    /// Whether the record still belongs into a batch of `batch_bytes`; an empty one takes any.
    pub fn has_room(&self, key: Option<&[u8]>, value: &[u8], batch_bytes: usize) -> bool {
        self.count == 0
            || self.bytes.len() + key.map_or(0, <[u8]>::len) + value.len() + FRAME_BYTES <= batch_bytes
    }

    pub fn push(
        &mut self,
        key: Option<&[u8]>,
        value: &[u8],
        intended_ns: u64,
        counts: bool,
        timestamp_ms: i64,
    ) {
        if self.count == 0 {
            self.base_timestamp_ms = timestamp_ms;
        }
        let delta = timestamp_ms - self.base_timestamp_ms;
        self.last_timestamp_ms = self.last_timestamp_ms.max(timestamp_ms);
        put_record(&mut self.bytes, delta, self.count, key, Some(value), no_headers());
        self.count += 1;
        match self.meant.last_mut() {
            Some(last) if last.intended_ns == intended_ns && last.counts == counts => {
                last.records += 1;
                last.bytes += value.len() as u64;
            }
            Some(_) | None => {
                self.meant.push(Meant { intended_ns, records: 1, bytes: value.len() as u64, counts });
            }
        }
    }

    /// The batch as it goes on the wire; `sequence` is that of its first record.
    ///
    /// # Errors
    /// What the codec reports.
    pub fn seal(mut self, compress: Compress, identity: Option<(Identity, i32)>) -> io::Result<Sealed> {
        let held_bytes = self.bytes.len();
        if !compress.is_none() {
            let packed = compress.compress(self.bytes.get(HEADER_BYTES..).unwrap_or_default())?;
            self.bytes.truncate(HEADER_BYTES);
            self.bytes.extend_from_slice(&packed);
        }
        let mut sealing = Sealing::plain(self.base_timestamp_ms, self.last_timestamp_ms, self.count);
        sealing.attributes = compress.codec.bits();
        if let Some(((producer_id, producer_epoch), base_sequence)) = identity {
            sealing = Sealing { producer_id, producer_epoch, base_sequence, ..sealing };
        }
        seal(&mut self.bytes, &sealing);
        Ok(Sealed {
            bytes: Buf::from_vec(self.bytes),
            meant: self.meant,
            records: self.count,
            serial: self.serial,
            since_ns: self.since_ns,
            held_bytes,
            attempts: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringmill_client::Codec;
    use ringmill_client::batch::OpenBatch;
    use ringmill_record::BatchHeader;
    use ringmill_record::produced::validate_produced;

    proptest! {
        #[test]
        fn a_broker_takes_what_is_built_and_a_reader_reads_it(
            values in prop::collection::vec(0usize..300, 1..60),
            start in 0i64..1 << 41,
            codec in prop::sample::select(Codec::ALL.to_vec()),
        ) {
            let mut batch = Batch::new(vec![7; 10], 0, 1);
            let expected: Vec<Vec<u8>> = values.iter().map(|len| vec![*len as u8; *len]).collect();
            for (at, value) in expected.iter().enumerate() {
                batch.push(Some(&value[..value.len() / 2]), value, at as u64 / 2, true, start + at as i64);
            }
            let compress = Compress { codec, level: None };
            let sealed = batch.seal(compress, Some(((7, 2), 40))).expect("compresses");
            let records: u32 = sealed.meant.iter().map(|m| m.records).sum();
            let bytes: u64 = sealed.meant.iter().map(|m| m.bytes).sum();
            prop_assert_eq!(records as usize, values.len());
            prop_assert_eq!(bytes as usize, values.iter().sum::<usize>());
            prop_assert_eq!(sealed.meant.len(), values.len().div_ceil(2));
            let header = validate_produced(Some(&sealed.bytes), 9).expect("valid").header;
            prop_assert_eq!(header.max_timestamp_ms, start + values.len() as i64 - 1);
            prop_assert_eq!(header.base_sequence, 40);
            let header = BatchHeader::parse(&sealed.bytes).expect("whole");
            let open = OpenBatch::new(header, &sealed.bytes).expect("opens");
            let read: Vec<_> = open.records().map(|r| r.expect("a record").value.map(<[u8]>::to_vec)).collect();
            prop_assert_eq!(read, expected.into_iter().map(Some).collect::<Vec<_>>());
        }
    }
}
