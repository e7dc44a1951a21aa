//! A record batch of the coordinator's records, as a producer would send it: uncompressed, base offset 0.

use bytes::Bytes;
use ringmill_groups::Write;
use ringmill_record::HEADER_BYTES;
use ringmill_record::write::{Sealing, no_headers, put_record, seal};

/// Bytes around key and value of one record, at most.
const RECORD_OVERHEAD_BYTES: usize = 32;

pub(super) fn bytes_of(write: &Write) -> usize {
    let sizes = write.records.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Bytes::len));
    sizes.map(|bytes| bytes + RECORD_OVERHEAD_BYTES).sum()
}

pub(super) struct Builder {
    time_ms: i64,
    count: i32,
    /// Room for the header, then records.
    out: Vec<u8>,
}

impl Builder {
    pub fn new(time_ms: i64) -> Builder {
        Builder { time_ms, count: 0, out: vec![0; HEADER_BYTES] }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    pub fn push(&mut self, records: &[(Bytes, Option<Bytes>)]) {
        for (key, value) in records {
            put_record(&mut self.out, 0, self.count, Some(key), value.as_deref(), no_headers());
            self.count += 1;
        }
    }

    pub fn finish(mut self) -> Vec<u8> {
        seal(&mut self.out, &Sealing::plain(self.time_ms, self.time_ms, self.count));
        self.out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Builder;
    use bytes::Bytes;
    use ringmill_record::{Records, validate_produced};

    #[test]
    fn a_batch_is_one_that_a_producer_may_send() {
        let records: Vec<(Bytes, Option<Bytes>)> = (0..300u32)
            .map(|n| {
                let value = (n % 3 != 0).then(|| Bytes::from(vec![7; n as usize]));
                (Bytes::from(n.to_be_bytes().to_vec()), value)
            })
            .collect();
        let mut builder = Builder::new(1_700_000_000_000);
        let (first, rest) = records.split_at(100);
        builder.push(first);
        builder.push(rest);
        let batch = builder.finish();
        let header = validate_produced(Some(&batch), 13).unwrap().header;
        assert_eq!((header.record_count, header.max_timestamp_ms), (300, 1_700_000_000_000));
        let read = Records::new(&header, &batch).unwrap().map(Result::unwrap);
        let read: Vec<(Bytes, Option<Bytes>)> = read
            .map(|r| (Bytes::copy_from_slice(r.key.unwrap()), r.value.map(Bytes::copy_from_slice)))
            .collect();
        assert_eq!(read, records);
    }
}
