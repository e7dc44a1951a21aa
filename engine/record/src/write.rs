//! Writing a batch, for those who send one: records into the caller's buffer, then the header in front of them.
//!
//! The twin of [`crate::batch`] and [`crate::records`]. A batch begins as [`HEADER_BYTES`] of anything, records follow
//! (as they are, or compressed), and [`seal`] makes the header say what is there.

use crate::batch::{CRC_FROM, HEADER_BYTES, LOG_OVERHEAD_BYTES};

/// What the header of a batch says that its bytes do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// The codec's bits; the rest is the broker's or a transaction's.
    pub attributes: i16,
    pub base_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
    /// -1, with the next two, when the producer is not idempotent.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
}

impl Sealing {
    /// Of an uncompressed batch of nobody in particular.
    pub fn plain(base_timestamp_ms: i64, max_timestamp_ms: i64, count: i32) -> Sealing {
        Sealing {
            attributes: 0,
            base_timestamp_ms,
            max_timestamp_ms,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count,
        }
    }
}

/// Fills in the header of a batch as a producer sends it: base offset 0, no leader epoch, magic 2, length and CRC.
/// A batch is at most 2 GiB, which whoever gathers it sees to.
pub fn seal(batch: &mut [u8], with: &Sealing) {
    let length = batch.len().saturating_sub(LOG_OVERHEAD_BYTES) as i32;
    put(batch, 0, &0i64.to_be_bytes());
    put(batch, 8, &length.to_be_bytes());
    put(batch, 12, &(-1i32).to_be_bytes());
    put(batch, 16, &[2]);
    put(batch, 21, &with.attributes.to_be_bytes());
    put(batch, 23, &(with.count - 1).to_be_bytes());
    put(batch, 27, &with.base_timestamp_ms.to_be_bytes());
    put(batch, 35, &with.max_timestamp_ms.to_be_bytes());
    put(batch, 43, &with.producer_id.to_be_bytes());
    put(batch, 51, &with.producer_epoch.to_be_bytes());
    put(batch, 53, &with.base_sequence.to_be_bytes());
    put(batch, HEADER_BYTES - 4, &with.count.to_be_bytes());
    let crc = crc32c::crc32c(batch.get(CRC_FROM..).unwrap_or_default());
    put(batch, CRC_FROM - 4, &crc.to_be_bytes());
}

fn put(batch: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = batch.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Appends one record. `headers` are walked twice: a record begins with its length.
pub fn put_record<'a, H>(
    out: &mut Vec<u8>,
    timestamp_delta_ms: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: H,
) where
    H: ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone,
{
    let count = headers.len() as i64;
    let named: usize = headers.clone().map(|(k, v)| field_bytes(Some(k)) + field_bytes(v)).sum();
    let length = 1
        + varint_bytes(timestamp_delta_ms)
        + varint_bytes(i64::from(offset_delta))
        + field_bytes(key)
        + field_bytes(value)
        + varint_bytes(count)
        + named;
    put_varint(out, length as i64);
    // Attributes: none are defined.
    out.push(0);
    put_varint(out, timestamp_delta_ms);
    put_varint(out, i64::from(offset_delta));
    put_field(out, key);
    put_field(out, value);
    put_varint(out, count);
    for (key, value) in headers {
        put_field(out, Some(key));
        put_field(out, value);
    }
}

/// The headers of a record that has none.
pub fn no_headers<'a>() -> std::iter::Empty<(&'a [u8], Option<&'a [u8]>)> {
    std::iter::empty()
}

/// Zigzag, as [`crate::records::varint`] reads it.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (((value << 1) ^ (value >> 63)) as u64 | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// A length and that many bytes; null is -1.
fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    put_varint(out, field.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(field.unwrap_or_default());
}

fn field_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(varint_bytes(-1), |bytes| varint_bytes(bytes.len() as i64) + bytes.len())
}
