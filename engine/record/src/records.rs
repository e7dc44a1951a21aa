//! Records inside an uncompressed batch, as far as a broker looks: whether keys are present, and timestamps.
//!
//! Compressed batches pass through untouched; the few callers that must look inside decompress off the cores.

use crate::batch::{BatchHeader, Compression, HEADER_BYTES};

/// A record's bytes contradict the batch around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsError;

/// One record: offset and timestamp relative to the batch, key, value. Headers are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    pub offset_delta: i32,
    pub timestamp_delta_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Header section: a varint count and the headers, undecoded.
    pub headers: &'a [u8],
}

/// Iterates the records of one uncompressed batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    left: i32,
}

impl<'a> Records<'a> {
    /// # Errors
    /// [`RecordsError`] for a compressed batch or one shorter than its header.
    pub fn new(header: &BatchHeader, batch: &'a [u8]) -> Result<Records<'a>, RecordsError> {
        if header.compression() != Some(Compression::None) {
            return Err(RecordsError);
        }
        Ok(Records::of_payload(batch.get(HEADER_BYTES..).ok_or(RecordsError)?, header.record_count))
    }

    /// The same over a payload that was decompressed elsewhere.
    pub fn of_payload(payload: &'a [u8], count: i32) -> Records<'a> {
        Records { rest: payload, left: count }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        let record = read_record(&mut self.rest).ok_or(RecordsError);
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

fn read_record<'a>(from: &mut &'a [u8]) -> Option<RecordView<'a>> {
    let length = usize::try_from(varint(from)?).ok()?;
    let (mut body, rest) = from.split_at_checked(length)?;
    *from = rest;
    let body = &mut body;
    let (_attributes, after) = body.split_first()?;
    *body = after;
    let timestamp_delta_ms = varint(body)?;
    let offset_delta = i32::try_from(varint(body)?).ok()?;
    let key = field(body)?;
    let value = field(body)?;
    Some(RecordView { offset_delta, timestamp_delta_ms, key, value, headers: body })
}

/// A zigzag length and that many bytes; -1 is null.
fn field<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint(from)?;
    if length == -1 {
        return Some(None);
    }
    let (value, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(Some(value))
}

/// Zigzag varint of up to ten bytes (Protocol Buffers' `sint64`).
pub fn varint(from: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}
