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
    Sealer::begin(batch, with).finish(batch);
}

/// Seals a batch while its records are being written, so that each byte is summed while the CPU's nearest cache still
/// has it: in a batch of a MiB the first ones are long gone from there when the last one is written.
///
/// ```text
/// begin (header) → records, with `advance` behind each → finish (length, CRC)
/// ```
#[derive(Debug)]
pub struct Sealer {
    crc: u32,
    summed: usize,
}

impl Sealer {
    /// Summed at once: fits the first cache beside the records' source, and is what the CRC's three lanes like best.
    const WINDOW_BYTES: usize = 3 * 8192;

    /// Writes all of the header but length and CRC. What is behind it may follow later, and is not changed after an
    /// [`Sealer::advance`].
    pub fn begin(batch: &mut [u8], with: &Sealing) -> Sealer {
        put(batch, 0, &0i64.to_be_bytes());
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
        let head = batch.get(CRC_FROM..HEADER_BYTES).unwrap_or_default();
        Sealer { crc: crc32c::crc32c(head), summed: HEADER_BYTES }
    }

    /// Sums whole windows of what was written since.
    #[inline]
    pub fn advance(&mut self, batch: &[u8]) {
        while let Some(window) = batch.get(self.summed..self.summed + Self::WINDOW_BYTES) {
            self.crc = crc32c::crc32c_append(self.crc, window);
            self.summed += Self::WINDOW_BYTES;
        }
    }

    /// Sums the rest, and writes length and CRC.
    pub fn finish(self, batch: &mut [u8]) {
        let length = batch.len().saturating_sub(LOG_OVERHEAD_BYTES) as i32;
        put(batch, 8, &length.to_be_bytes());
        let crc = crc32c::crc32c_append(self.crc, batch.get(self.summed..).unwrap_or_default());
        put(batch, CRC_FROM - 4, &crc.to_be_bytes());
    }
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
    let named: usize =
        headers.clone().map(|(k, v)| field_bytes(Some(k.len())) + field_bytes(v.map(<[u8]>::len))).sum();
    let (key_bytes, value_bytes) = (key.map(<[u8]>::len), value.map(<[u8]>::len));
    let length =
        body_bytes(timestamp_delta_ms, offset_delta, key_bytes, value_bytes) + varint_bytes(count) + named;
    let mut front = Front { bytes: [0; Front::BYTES_MAX], len: 0 };
    front.varint(length as i64);
    // Attributes: none are defined.
    front.byte(0);
    front.varint(timestamp_delta_ms);
    front.varint(i64::from(offset_delta));
    if key.is_none() {
        // What most records have: one piece up to the value.
        front.varint(-1);
        front.varint(value.map_or(-1, |bytes| bytes.len() as i64));
        out.extend_from_slice(front.bytes());
        out.extend_from_slice(value.unwrap_or_default());
    } else {
        out.extend_from_slice(front.bytes());
        put_field(out, key);
        put_field(out, value);
    }
    put_varint(out, count);
    for (key, value) in headers {
        put_field(out, Some(key));
        put_field(out, value);
    }
}

/// The first fields of a record, put together where the compiler keeps them, so that the batch is extended once for all
/// of them.
struct Front {
    bytes: [u8; Front::BYTES_MAX],
    len: usize,
}

impl Front {
    /// Five numbers and a byte.
    const BYTES_MAX: usize = 5 * 10 + 1;

    #[inline]
    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    #[inline]
    fn varint(&mut self, value: i64) {
        each_byte(value, |byte| self.byte(byte));
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// What [`put_record`] appends for a record without headers.
#[inline]
pub fn record_bytes(
    timestamp_delta_ms: i64,
    offset_delta: i32,
    key: Option<usize>,
    value: Option<usize>,
) -> usize {
    let length = body_bytes(timestamp_delta_ms, offset_delta, key, value) + varint_bytes(0);
    varint_bytes(length as i64) + length
}

/// Of a record, what stands between its length and its headers.
#[inline]
fn body_bytes(timestamp_delta_ms: i64, offset_delta: i32, key: Option<usize>, value: Option<usize>) -> usize {
    let attributes = 1;
    let place = varint_bytes(timestamp_delta_ms) + varint_bytes(i64::from(offset_delta));
    attributes + place + field_bytes(key) + field_bytes(value)
}

/// The headers of a record that has none.
pub fn no_headers<'a>() -> std::iter::Empty<(&'a [u8], Option<&'a [u8]>)> {
    std::iter::empty()
}

/// Zigzag, as [`crate::records::varint`] reads it.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    each_byte(value, |byte| out.push(byte));
}

#[inline]
fn each_byte(value: i64, mut put: impl FnMut(u8)) {
    let mut left = zigzag(value);
    while left >= 0x80 {
        put(left as u8 | 0x80);
        left >>= 7;
    }
    put(left as u8);
}

#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// A length and that many bytes; null is -1.
#[inline]
fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    put_varint(out, field.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(field.unwrap_or_default());
}

#[inline]
fn field_bytes(field: Option<usize>) -> usize {
    field.map_or(varint_bytes(-1), |bytes| varint_bytes(bytes as i64) + bytes)
}
