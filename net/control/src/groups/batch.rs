//! A record batch of the coordinator's records, as a producer would send it: uncompressed, base offset 0.

use bytes::Bytes;
use ringmill_groups::Write;
use ringmill_record::HEADER_BYTES;
use ringmill_record::batch::CRC_FROM;

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
    record: Vec<u8>,
}

impl Builder {
    pub fn new(time_ms: i64) -> Builder {
        Builder { time_ms, count: 0, out: vec![0; HEADER_BYTES], record: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    pub fn push(&mut self, records: &[(Bytes, Option<Bytes>)]) {
        for (key, value) in records {
            let record = &mut self.record;
            record.clear();
            // Attributes, and the time as a difference from the batch's.
            record.extend([0, 0]);
            put_varint(record, i64::from(self.count));
            put_field(record, Some(key));
            put_field(record, value.as_deref());
            put_varint(record, 0);
            put_varint(&mut self.out, record.len() as i64);
            self.out.extend_from_slice(record);
            self.count += 1;
        }
    }

    pub fn finish(mut self) -> Vec<u8> {
        let length = (self.out.len() - 12) as i32;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend(0i64.to_be_bytes());
        header.extend(length.to_be_bytes());
        header.extend((-1i32).to_be_bytes());
        header.push(2);
        header.extend(0u32.to_be_bytes());
        header.extend(0i16.to_be_bytes());
        header.extend((self.count - 1).to_be_bytes());
        header.extend(self.time_ms.to_be_bytes());
        header.extend(self.time_ms.to_be_bytes());
        header.extend((-1i64).to_be_bytes());
        header.extend((-1i16).to_be_bytes());
        header.extend((-1i32).to_be_bytes());
        header.extend(self.count.to_be_bytes());
        assert_eq!(header.len(), HEADER_BYTES, "the fields of a batch header");
        if let Some(place) = self.out.get_mut(..HEADER_BYTES) {
            place.copy_from_slice(&header);
        }
        let crc = crc32c::crc32c(self.out.get(CRC_FROM..).unwrap_or_default());
        if let Some(place) = self.out.get_mut(CRC_FROM - 4..CRC_FROM) {
            place.copy_from_slice(&crc.to_be_bytes());
        }
        self.out
    }
}

/// Zigzag.
fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
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
