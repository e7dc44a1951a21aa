//! Record batches: decided on record by record, written at once when they leave, without an allocation for each.

use crate::compress::Compress;
use crate::records::{Draft, Maker};
use ringmill_reactor::Buf;
use ringmill_record::HEADER_BYTES;
use ringmill_record::write::{Sealer, Sealing, no_headers, put_record, record_bytes};
use std::io;

/// Room for what surrounds key and value of a record.
const FRAME_BYTES: usize = 32;

/// Records that were meant for the same time, and made at the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meant {
    pub intended_ns: u64,
    pub timestamp_ms: i64,
    pub records: u32,
    /// Bytes of their values.
    pub bytes: u64,
    /// Not of the warm-up.
    pub counts: bool,
}

/// A batch that is being filled.
#[derive(Debug)]
pub struct Batch {
    drafts: Vec<Draft>,
    meant: Vec<Meant>,
    /// What it will be on the wire, uncompressed.
    bytes: usize,
    last_timestamp_ms: i64,
    /// When its first record came in, and its number among all batches.
    pub since_ns: u64,
    pub serial: u64,
}

/// Who sends a batch: producer id and epoch.
pub type Identity = (i64, i16);

/// A batch that takes no further record. Its bytes are there while the kernel may want them; one that is sent again is
/// made again, the same to the byte.
pub struct Sealed {
    drafts: Vec<Draft>,
    sealing: Sealing,
    bytes: Option<Buf>,
    pub meant: Vec<Meant>,
    pub serial: u64,
    pub since_ns: u64,
    /// What it took while it was filled, which is what is given back at its end.
    pub held_bytes: usize,
    pub attempts: u32,
}

/// What bytes of batches are made with.
pub struct Press<'a> {
    pub compress: Compress,
    pub maker: &'a mut Maker,
    /// Memory of batches that the kernel has taken: fresh memory costs it a clearing of every page, and what was used
    /// last is in a cache still.
    pub spare: &'a mut Vec<Vec<u8>>,
}

impl Batch {
    /// An empty one; `drafts` is memory that may have been another one's.
    pub fn new(mut drafts: Vec<Draft>, since_ns: u64, serial: u64) -> Batch {
        drafts.clear();
        Batch {
            drafts,
            meant: Vec::new(),
            bytes: HEADER_BYTES,
            last_timestamp_ms: i64::MIN,
            since_ns,
            serial,
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn count(&self) -> i32 {
        self.drafts.len() as i32
    }

    /// Whether the record still belongs into a batch of `batch_bytes`; an empty one takes any.
    pub fn has_room(&self, draft: Draft, batch_bytes: usize) -> bool {
        let record = draft.key_bytes().unwrap_or(0) + draft.value_bytes() + FRAME_BYTES;
        self.drafts.is_empty() || self.bytes + record <= batch_bytes
    }

    pub fn push(&mut self, draft: Draft, intended_ns: u64, counts: bool, timestamp_ms: i64) {
        let delta = timestamp_ms - self.base_timestamp_ms().unwrap_or(timestamp_ms);
        self.last_timestamp_ms = self.last_timestamp_ms.max(timestamp_ms);
        self.bytes += record_bytes(delta, self.count(), draft.key_bytes(), Some(draft.value_bytes()));
        self.drafts.push(draft);
        let bytes = draft.value_bytes() as u64;
        match self.meant.last_mut() {
            Some(last)
                if last.intended_ns == intended_ns
                    && last.timestamp_ms == timestamp_ms
                    && last.counts == counts =>
            {
                last.records += 1;
                last.bytes += bytes;
            }
            Some(_) | None => {
                self.meant.push(Meant { intended_ns, timestamp_ms, records: 1, bytes, counts });
            }
        }
    }

    fn base_timestamp_ms(&self) -> Option<i64> {
        self.meant.first().map(|first| first.timestamp_ms)
    }

    /// Ends it; the sequence is that of its first record.
    pub fn seal(self, compress: Compress, identity: Option<(Identity, i32)>) -> Sealed {
        let base_timestamp_ms = self.base_timestamp_ms().unwrap_or(0);
        let mut sealing = Sealing::plain(base_timestamp_ms, self.last_timestamp_ms, self.count());
        sealing.attributes = compress.codec.bits();
        if let Some(((producer_id, producer_epoch), base_sequence)) = identity {
            sealing = Sealing { producer_id, producer_epoch, base_sequence, ..sealing };
        }
        Sealed {
            drafts: self.drafts,
            sealing,
            bytes: None,
            meant: self.meant,
            serial: self.serial,
            since_ns: self.since_ns,
            held_bytes: self.bytes,
            attempts: 0,
        }
    }
}

impl Sealed {
    pub fn count(&self) -> u64 {
        self.drafts.len() as u64
    }

    /// The batch as it goes on the wire.
    ///
    /// # Errors
    /// What the codec reports.
    pub fn bytes(&mut self, press: &mut Press<'_>) -> io::Result<Buf> {
        if let Some(bytes) = &self.bytes {
            return Ok(bytes.clone());
        }
        let bytes = Buf::from_vec(self.make(press)?);
        self.bytes = Some(bytes.clone());
        Ok(bytes)
    }

    /// The memory of its bytes, once nobody else holds them.
    pub fn release(&mut self) -> Option<Vec<u8>> {
        self.bytes.take()?.into_vec()
    }

    /// The memory of its drafts.
    pub fn into_drafts(self) -> Vec<Draft> {
        self.drafts
    }

    fn make(&self, press: &mut Press<'_>) -> io::Result<Vec<u8>> {
        let mut out = press.spare.pop().unwrap_or_default();
        out.clear();
        out.reserve(self.held_bytes);
        out.resize(HEADER_BYTES, 0);
        let mut sealer = Sealer::begin(&mut out, &self.sealing);
        let plain = press.compress.is_none();
        let mut drafts = self.drafts.iter().zip(0..);
        for meant in &self.meant {
            let delta = meant.timestamp_ms - self.sealing.base_timestamp_ms;
            for (draft, at) in drafts.by_ref().take(meant.records as usize) {
                let (key, value) = press.maker.write(*draft, meant.intended_ns, meant.counts);
                put_record(&mut out, delta, at, key, Some(value), no_headers());
                if plain {
                    sealer.advance(&out);
                }
            }
        }
        assert_eq!(out.len(), self.held_bytes, "a batch has the size that it was counted with");
        if !plain {
            let packed = press.compress.compress(out.get(HEADER_BYTES..).unwrap_or_default())?;
            out.truncate(HEADER_BYTES);
            out.extend_from_slice(&packed);
        }
        sealer.finish(&mut out);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Keys, Payload, Sizes};
    use proptest::prelude::*;
    use ringmill_client::Codec;
    use ringmill_client::batch::OpenBatch;
    use ringmill_record::BatchHeader;
    use ringmill_record::produced::validate_produced;

    proptest! {
        #[test]
        fn a_broker_takes_what_is_built_and_a_reader_reads_it(
            sizes in (1u32..40, 0u32..2000).prop_map(|(min, more)| Sizes::Uniform { min, max: min + more }),
            count in 1usize..120,
            has_keys: bool,
            start in 0i64..1 << 41,
            codec in prop::sample::select(Codec::ALL.to_vec()),
            seed: u64,
        ) {
            let keys = if has_keys { Keys::Uniform(2000) } else { Keys::None };
            let maker = || Maker::new(keys.clone(), Payload::Letters(sizes.clone()), None, seed);
            let mut decided = maker();
            let expected: Vec<(Option<Vec<u8>>, Vec<u8>)> = (0..count).map(|_| {
                let draft = decided.draft();
                let (key, value) = decided.write(draft, 0, true);
                (key.map(<[u8]>::to_vec), value.to_vec())
            }).collect();
            let mut used = maker();
            let mut batch = Batch::new(vec![used.draft(); 3], 0, 1);
            used = maker();
            for at in 0..count {
                batch.push(used.draft(), at as u64 / 2, true, start + at as i64 / 2);
            }
            let plain_bytes = batch.bytes();
            let mut spare = vec![vec![7; 10_000]];
            let compress = Compress { codec, level: None };
            let mut press = Press { compress, maker: &mut used, spare: &mut spare };
            let mut sealed = batch.seal(compress, Some(((7, 2), 40)));
            prop_assert_eq!(sealed.held_bytes, plain_bytes);
            let sent = sealed.bytes(&mut press).expect("compresses");
            if compress.is_none() {
                prop_assert_eq!(sent.len(), plain_bytes);
            }
            // The kernel has it, and it has to be sent again.
            let first = sent.to_vec();
            drop(sent);
            let memory = sealed.release().expect("nobody else holds it");
            press.spare.push(memory);
            let sent = sealed.bytes(&mut press).expect("compresses");
            prop_assert_eq!(&*sent, &first[..]);
            let records: u32 = sealed.meant.iter().map(|m| m.records).sum();
            let bytes: u64 = sealed.meant.iter().map(|m| m.bytes).sum();
            prop_assert_eq!(records as usize, count);
            prop_assert_eq!(bytes as usize, expected.iter().map(|(_, value)| value.len()).sum::<usize>());
            prop_assert_eq!(sealed.meant.len(), count.div_ceil(2));
            let header = validate_produced(Some(&sent), 9).expect("valid").header;
            prop_assert_eq!(header.max_timestamp_ms, start + (count as i64 - 1) / 2);
            prop_assert_eq!(header.base_sequence, 40);
            let header = BatchHeader::parse(&sent).expect("whole");
            let open = OpenBatch::new(header, &sent).expect("opens");
            let read: Vec<_> = open.records().map(|record| {
                let record = record.expect("a record");
                (record.key.map(<[u8]>::to_vec), record.value.expect("a value").to_vec())
            }).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
